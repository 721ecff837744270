//! The parameters of a block, listed once.
//!
//! [`BlockOf`] has a field a parameter, in the order in which the forward pass uses them. Filled with names it is a
//! family's data ([`BlockNames`]), with names and shapes a specification ([`BlockSpec`]), with tensors the block of a
//! model ([`super::block::Block`]). Loading goes from one to the next ([`BlockOf::try_map`]); visiting, LoRA's targets,
//! counting and the ledger walk over it ([`BlockOf::parts`]).

use crate::error::Result;

/// One value for each parameter of a block: an `N` for a norm, an `L` for a (fused) linear layer. Norms that only some
/// families have are optional.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockOf<N, L> {
    /// Number of the block from 0; 0 in a family's names.
    pub index: usize,
    /// Norm before attention.
    pub input_norm: N,
    /// Query, key and value projections, fused in this order.
    pub qkv: L,
    /// Norm of each query head.
    pub q_norm: Option<N>,
    /// Norm of each key head.
    pub k_norm: Option<N>,
    /// Output projection of attention.
    pub output: L,
    /// Norm of attention's output before the residual sum.
    pub attention_norm: Option<N>,
    /// Norm before the MLP.
    pub mlp_norm: N,
    /// Gate and up projections, fused in this order.
    pub gate_up: L,
    /// Down projection.
    pub down: L,
    /// Norm of the MLP's output before the residual sum.
    pub mlp_output_norm: Option<N>,
}

/// A field of a [`BlockOf`].
pub enum Part<N, L> {
    /// A norm.
    Norm(N),
    /// A linear layer.
    Linear(L),
}

impl<N, L> BlockOf<N, L> {
    /// What the block has, in the order of the fields.
    pub fn parts(&self) -> impl Iterator<Item = Part<&N, &L>> {
        use Part::{Linear, Norm};
        // Taken apart whole, here and below, so that a new field cannot be forgotten.
        let Self {
            index: _,
            input_norm,
            qkv,
            q_norm,
            k_norm,
            output,
            attention_norm,
            mlp_norm,
            gate_up,
            down,
            mlp_output_norm,
        } = self;
        let parts = [
            Some(Norm(input_norm)),
            Some(Linear(qkv)),
            q_norm.as_ref().map(Norm),
            k_norm.as_ref().map(Norm),
            Some(Linear(output)),
            attention_norm.as_ref().map(Norm),
            Some(Norm(mlp_norm)),
            Some(Linear(gate_up)),
            Some(Linear(down)),
            mlp_output_norm.as_ref().map(Norm),
        ];
        parts.into_iter().flatten()
    }

    /// As [`BlockOf::parts`].
    pub fn parts_mut(&mut self) -> impl Iterator<Item = Part<&mut N, &mut L>> {
        use Part::{Linear, Norm};
        let Self {
            index: _,
            input_norm,
            qkv,
            q_norm,
            k_norm,
            output,
            attention_norm,
            mlp_norm,
            gate_up,
            down,
            mlp_output_norm,
        } = self;
        let parts = [
            Some(Norm(input_norm)),
            Some(Linear(qkv)),
            q_norm.as_mut().map(Norm),
            k_norm.as_mut().map(Norm),
            Some(Linear(output)),
            attention_norm.as_mut().map(Norm),
            Some(Norm(mlp_norm)),
            Some(Linear(gate_up)),
            Some(Linear(down)),
            mlp_output_norm.as_mut().map(Norm),
        ];
        parts.into_iter().flatten()
    }

    /// The same block filled with something else, made by `maker` out of each norm and each linear layer in turn.
    ///
    /// # Errors
    /// The first error of `norm` or `linear`.
    pub fn try_map<B, M, K>(
        &self,
        maker: &mut B,
        norm: impl Fn(&mut B, &N) -> Result<M>,
        linear: impl Fn(&mut B, &L) -> Result<K>,
    ) -> Result<BlockOf<M, K>> {
        let optional = |maker: &mut B, from: &Option<N>| from.as_ref().map(|from| norm(maker, from)).transpose();
        Ok(BlockOf {
            index: self.index,
            input_norm: norm(maker, &self.input_norm)?,
            qkv: linear(maker, &self.qkv)?,
            q_norm: optional(maker, &self.q_norm)?,
            k_norm: optional(maker, &self.k_norm)?,
            output: linear(maker, &self.output)?,
            attention_norm: optional(maker, &self.attention_norm)?,
            mlp_norm: norm(maker, &self.mlp_norm)?,
            gate_up: linear(maker, &self.gate_up)?,
            down: linear(maker, &self.down)?,
            mlp_output_norm: optional(maker, &self.mlp_output_norm)?,
        })
    }
}

/// What a module of a block is called, without its layer and without `.weight` or `.bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// In Hugging Face files, after `model.layers.N.`.
    pub hugging_face: &'static str,
    /// In GGUF files, after `blk.N.`.
    pub gguf: &'static str,
}

/// Hugging Face's name and GGUF's.
pub const fn name(hugging_face: &'static str, gguf: &'static str) -> Name {
    Name { hugging_face, gguf }
}

/// A family's names, and so which parameters its blocks have: one name for each norm, for a linear layer one for each of
/// the matrices that are fused, in order.
pub type BlockNames = BlockOf<Name, &'static [Name]>;

/// Names and shapes of one block.
pub type BlockSpec = BlockOf<TensorSpec, LinearSpec>;

/// The embedding's tensor.
pub const EMBEDDING: Name = name("model.embed_tokens.weight", "token_embd.weight");
/// The tensor of the norm before the head.
pub const FINAL_NORM: Name = name("model.norm.weight", "output_norm.weight");
/// The tensor of a head that is not the embedding.
pub const HEAD: Name = name("lm_head.weight", "output.weight");

/// True for the name, in either kind of file, of the tensor that is the head of a model whose head is `tied` to its embedding
/// or is not.
pub fn is_head(name: &str, tied: bool) -> bool {
    let is = |known: Name| name == known.hugging_face || name == known.gguf;
    is(HEAD) || (tied && is(EMBEDDING))
}

/// A tensor that a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face name.
    pub name: String,
    /// Row-major, `[out, in]` for matrices.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name and shape.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }
}

/// What a tensor is, which decides its random value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Scale of a norm.
    Norm,
    /// Addend of a linear layer.
    Bias,
    /// A matrix, of the vocabulary or of a linear layer.
    Matrix,
    /// A matrix whose output is added to the residual stream.
    Residual,
}

/// One matrix of a linear layer as files hold it: a module, as LoRA's targets name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Full name, such as `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Outputs.
    pub rows: usize,
}

/// A linear layer: modules that read one input and are fused, with their rows in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// What is fused.
    pub modules: Vec<Module>,
    /// Width of the input.
    pub inputs: usize,
    /// Whether each module has a bias.
    pub bias: bool,
    /// [`Kind::Matrix`] or [`Kind::Residual`].
    pub kind: Kind,
}

impl LinearSpec {
    /// Outputs of all modules together.
    pub fn rows(&self) -> usize {
        self.modules.iter().map(|m| m.rows).sum()
    }

    /// A module's matrix `[out, in]`.
    pub fn weight(&self, module: &Module) -> TensorSpec {
        TensorSpec::new(format!("{}.weight", module.name), &[module.rows, self.inputs])
    }

    /// A module's bias `[out]`, where the layer has biases.
    pub fn bias(&self, module: &Module) -> Option<TensorSpec> {
        self.bias.then(|| TensorSpec::new(format!("{}.bias", module.name), &[module.rows]))
    }
}

impl BlockSpec {
    /// Every tensor of the block.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = Vec::new();
        for part in self.parts() {
            match part {
                Part::Norm(norm) => tensors.push(norm.clone()),
                Part::Linear(linear) => {
                    for module in &linear.modules {
                        tensors.push(linear.weight(module));
                        tensors.extend(linear.bias(module));
                    }
                }
            }
        }
        tensors
    }

    /// The linear layers.
    pub fn linears(&self) -> impl Iterator<Item = &LinearSpec> {
        self.parts().filter_map(|part| match part {
            Part::Linear(linear) => Some(linear),
            Part::Norm(_) => None,
        })
    }
}
