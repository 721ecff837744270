//! One transformer block: its forward and its backward pass, written by hand on plain device tensors.
//!
//! Pre-norm attention and gated MLP, with what the families add: q/k norms (Qwen3), projection biases (Qwen2), sandwich
//! norms and partial interleaved rotary embedding (GLM-4), windows with rotary tables of their own (Gemma 3). A block's
//! backward pass needs what [`Activations`] hold; they are either kept from the forward pass or made again from the block's
//! input (gradient checkpointing). Both give the same bits.

use std::cell::RefCell;

use burn::tensor::Tensor;

use super::architecture::Architecture;
use super::layout::{BlockOf, Part};
use super::linear::Linear;
use super::parameter::Parameter;
use crate::data::MicroBatch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels::cached_attention::{KeyValues, Places};
use crate::kernels::launch::size;
use crate::kernels::tensor::empty;
use crate::kernels::{self, Activation, Columns, Indices, Rotary};

/// The parts of a packed token stream that attention needs.
#[derive(Clone)]
pub struct Stream {
    /// Position of each token within its document.
    pub positions: Indices,
    /// Index, in this stream, of the first token of each token's document.
    pub document_start: Indices,
    /// Index of the first token that each token sees in blocks with a window, where a document outgrows it.
    window_start: Option<Indices>,
}

impl Stream {
    /// Of a batch, for a model some of whose blocks see the last `window` tokens alone, the token itself among them.
    pub fn new(device: &Device, batch: &MicroBatch, window: Option<usize>) -> Self {
        let starts = &batch.document_start;
        let within = |window: usize| {
            let seen = starts.iter().enumerate().map(|(t, &start)| start.max(size((t + 1).saturating_sub(window))));
            seen.collect::<Vec<u32>>()
        };
        let window_start = window.map(within).filter(|within| within != starts);
        Self {
            positions: Indices::new(device, batch.positions.clone()),
            document_start: Indices::new(device, starts.clone()),
            window_start: window_start.map(|within| Indices::new(device, within)),
        }
    }

    /// Index of the first token that each token sees in a block, which has a window or none.
    fn first_seen(&self, window: Option<usize>) -> &Indices {
        let within = window.and(self.window_start.as_ref());
        within.unwrap_or(&self.document_start)
    }
}

/// Rotary tables of a model on a device.
#[derive(Clone)]
pub struct RotaryTables {
    of_all: Rotary,
    /// Of blocks with a window, where these have their own.
    of_windows: Option<Rotary>,
}

impl RotaryTables {
    /// For so many positions.
    pub fn new(arch: &Architecture, device: &Device, positions: usize) -> Self {
        Self { of_all: arch.rotary(device, positions), of_windows: arch.local_rotary(device, positions) }
    }

    /// Positions that the tables hold.
    pub fn positions(&self) -> usize {
        self.of_all.positions()
    }

    /// Those of a block, which has a window or none.
    fn of(&self, window: Option<usize>) -> &Rotary {
        window.and(self.of_windows.as_ref()).unwrap_or(&self.of_all)
    }
}

/// Weights of one block.
pub type Block = BlockOf<Parameter, Linear>;

/// What a block's backward pass reads. Cheap elementwise results are made again instead of kept.
#[derive(Clone)]
pub struct Activations {
    input: Tensor<2>,
    /// q and k before their norms, where there are such norms.
    raw_qk: Option<(Tensor<2>, Tensor<2>)>,
    /// q, k and v as attention reads them.
    qkv: Tensor<2>,
    /// Log-sum-exp of each query's scores, `[heads, tokens]`.
    lse: Tensor<2>,
    /// Attention's output before its projection.
    mixed: Tensor<2>,
    /// Attention's projected output, where a norm follows it.
    projected: Option<Tensor<2>>,
    /// The stream between attention and MLP.
    middle: Tensor<2>,
    gate_up: Tensor<2>,
    /// The MLP's output, where a norm follows it.
    mlp: Option<Tensor<2>>,
}

impl Activations {
    /// What the block's linear layers read, in the order of [`BlockOf::parts`].
    ///
    /// # Errors
    /// Device errors.
    pub fn read_by_linears(&self, block: &Block, device: &Device, arch: &Architecture) -> Result<[Tensor<2>; 4]> {
        let eps = arch.norm_epsilon as f32;
        let normed = |x, norm: &Parameter| kernels::rms_norm::forward(device, x, &norm.as_vector(), eps);
        let (before_attention, _) = normed(&self.input, &block.input_norm)?;
        let (before_mlp, _) = normed(&self.middle, &block.mlp_norm)?;
        let active = kernels::gated_mlp::forward(device, &self.gate_up, arch.family.activation)?;
        Ok([before_attention, self.mixed.clone(), before_mlp, active])
    }

    /// Bytes kept per token by a block of this architecture.
    pub fn bytes_per_token(arch: &Architecture) -> usize {
        let block = arch.block(0);
        let (query, key) = (arch.query_width(), arch.key_value_width());
        let attention = arch.hidden + block.qkv.rows() + query + arch.heads;
        let mlp = arch.hidden + block.gate_up.rows();
        let mut floats = attention + mlp;
        if block.q_norm.is_some() {
            floats += query + key;
        }
        for _ in block.attention_norm.iter().chain(&block.mlp_output_norm) {
            floats += arch.hidden;
        }
        floats * size_of::<f32>()
    }

    /// Bytes per token of the widest tensor that a block makes.
    pub fn widest_bytes_per_token(arch: &Architecture) -> usize {
        let block = arch.block(0);
        [block.qkv.rows(), block.gate_up.rows(), block.down.inputs, arch.hidden].into_iter().max().unwrap_or(0)
            * size_of::<f32>()
    }

    /// The same with copies of it in halves, which may be larger than itself.
    fn bound_bytes_per_token(arch: &Architecture, device: &Device) -> u64 {
        let single = size_of::<f32>() as u64;
        Self::widest_bytes_per_token(arch) as u64 / single * single.max(2 * device.segments() as u64)
    }

    /// Most tokens at once that the bindings of a device hold.
    pub fn most_tokens(arch: &Architecture, device: &Device) -> usize {
        let each = Self::bound_bytes_per_token(arch, device).max(1);
        (device.max_binding_bytes() / each).min(usize::MAX as u64) as usize
    }

    /// Refuses more tokens at once than the bindings of a device hold: activations are bound whole.
    ///
    /// # Errors
    /// [`Error::Limit`], with how many tokens there may be.
    pub fn check(arch: &Architecture, tokens: usize, device: &Device) -> Result<()> {
        let (each, allowed) = (Self::bound_bytes_per_token(arch, device), device.max_binding_bytes());
        let most = Self::most_tokens(arch, device);
        let needed = each.saturating_mul(tokens as u64);
        if needed <= allowed {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("a block's widest activation over {tokens} tokens"),
            needed,
            allowed,
            adapter: device.name().into(),
            advice: format!(
                "at most {most} tokens go through this model at once there; lower [run] batch_tokens, and [data] \
                 cutoff_length where a document is longer"
            ),
        })
    }
}

/// Everything about a pass that is not the block's own.
pub struct Pass<'a> {
    /// Where it runs.
    pub device: &'a Device,
    /// The model's description.
    pub arch: &'a Architecture,
    /// Rotary tables.
    pub rotary: &'a RotaryTables,
    /// The packed stream.
    pub stream: &'a Stream,
    /// Dropout seed of this micro-batch, `None` outside training.
    pub seed: Option<u64>,
    /// Where the keys are that its tokens see.
    pub attention: Attention<'a>,
}

/// Where the keys are that the tokens of a pass see.
pub enum Attention<'a> {
    /// In the stream itself.
    Stream,
    /// In a cache, which takes those of the stream in.
    Cache(CachedBlock<'a>),
}

/// A block's keys and values and the tokens that go through it.
pub struct CachedBlock<'a> {
    /// What is held of the sequences.
    pub key_values: RefCell<&'a mut KeyValues>,
    /// Where the stream's tokens stand there.
    pub places: &'a Places,
    /// All sequences begin with this stream, so that nobody sees a key that is not in it.
    pub fresh: bool,
    /// The tokens are a few ([`Linear::forward`]).
    pub few: bool,
}

/// Linear layers of a block, as dropout seeds tell them apart.
#[derive(Clone, Copy)]
enum Layer {
    Qkv,
    Output,
    GateUp,
    Down,
}

impl Pass<'_> {
    fn seed_of(&self, block: usize, layer: Layer) -> Option<u64> {
        self.seed.map(|seed| crate::rng::mix(seed, (block as u64) << 8 | layer as u64))
    }

    fn few(&self) -> bool {
        matches!(&self.attention, Attention::Cache(cached) if cached.few)
    }

    /// Index of the first token that each token of the stream sees in a block.
    fn first_seen(&self, block: usize) -> &Indices {
        self.stream.first_seen(self.arch.window_of(block))
    }

    /// Attention of a block over `qkv`: its result and the log-sum-exp that the backward pass needs.
    fn attend(&self, block: usize, qkv: &Tensor<2>) -> Result<(Tensor<2>, Tensor<2>)> {
        let over_stream =
            || kernels::attention::forward(self.device, qkv, attention_shape(self.arch), self.first_seen(block));
        match &self.attention {
            Attention::Stream => over_stream(),
            Attention::Cache(cached) => {
                let mut key_values = cached.key_values.borrow_mut();
                key_values.append(self.device, qkv, cached.places)?;
                match cached.fresh {
                    true => over_stream(),
                    // Nothing is pulled back through a cache.
                    false => Ok((key_values.attend(self.device, qkv, cached.places)?, empty(self.device, [1, 1]))),
                }
            }
        }
    }

    fn eps(&self) -> f32 {
        self.arch.norm_epsilon as f32
    }

    fn activation(&self) -> Activation {
        self.arch.family.activation
    }

    fn q_columns(&self) -> Columns {
        Columns { offset: 0, width: self.arch.query_width() }
    }

    fn k_columns(&self) -> Columns {
        Columns { offset: self.q_columns().width, width: self.arch.key_value_width() }
    }
}

impl Block {
    /// `[tokens, hidden] -> [tokens, hidden]`, and what the backward pass needs.
    ///
    /// # Errors
    /// Device errors.
    pub fn forward(&self, pass: &Pass, input: Tensor<2>) -> Result<(Tensor<2>, Activations)> {
        let device = pass.device;
        let (normed, _) = kernels::rms_norm::forward(device, &input, &self.input_norm.as_vector(), pass.eps())?;
        let mut qkv = self.qkv.forward(device, &normed, pass.seed_of(self.index, Layer::Qkv), pass.few())?;
        drop(normed);
        let mut raw_qk = None;
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            let q = kernels::elementwise::columns(device, &qkv, pass.q_columns())?;
            let k = kernels::elementwise::columns(device, &qkv, pass.k_columns())?;
            for (raw, norm, columns) in [(&q, q_norm, pass.q_columns()), (&k, k_norm, pass.k_columns())] {
                let heads = per_head(raw, pass.arch.head_dim);
                let (normed, _) = kernels::rms_norm::forward(device, &heads, &norm.as_vector(), pass.eps())?;
                qkv = kernels::elementwise::set_columns(device, qkv, columns, &normed.reshape(raw.dims()))?;
            }
            raw_qk = Some((q, k));
        }
        qkv = self.rotate(pass, qkv, false)?;
        let (mixed, lse) = pass.attend(self.index, &qkv)?;
        let projected = self.output.forward(device, &mixed, pass.seed_of(self.index, Layer::Output), pass.few())?;
        let (branch, projected) = output_norm(pass, &self.attention_norm, projected)?;
        let middle = kernels::elementwise::add(device, &input, branch)?;

        let (normed, _) = kernels::rms_norm::forward(device, &middle, &self.mlp_norm.as_vector(), pass.eps())?;
        let gate_up = self.gate_up.forward(device, &normed, pass.seed_of(self.index, Layer::GateUp), pass.few())?;
        drop(normed);
        let active = kernels::gated_mlp::forward(device, &gate_up, pass.activation())?;
        let mlp = self.down.forward(device, &active, pass.seed_of(self.index, Layer::Down), pass.few())?;
        let (branch, mlp) = output_norm(pass, &self.mlp_output_norm, mlp)?;
        let output = kernels::elementwise::add(device, &middle, branch)?;
        Ok((output, Activations { input, raw_qk, qkv, lse, mixed, projected, middle, gate_up, mlp }))
    }

    /// Pulls `dy [tokens, hidden]` back to the gradient of the block's input, adding to its parameters' gradients.
    ///
    /// # Errors
    /// Device errors.
    pub fn backward(&mut self, pass: &Pass, saved: Activations, dy: Tensor<2>) -> Result<Tensor<2>> {
        let device = pass.device;
        let Activations { input, raw_qk, qkv, lse, mixed, projected, middle, gate_up, mlp } = saved;

        let dmlp = output_norm_backward(pass, &mut self.mlp_output_norm, mlp, &dy)?;
        let active = kernels::gated_mlp::forward(device, &gate_up, pass.activation())?;
        let dactive = self.down.backward(device, &active, &dmlp, pass.seed_of(self.index, Layer::Down))?;
        drop((active, dmlp));
        let dgate_up = kernels::gated_mlp::backward(device, gate_up, &dactive, pass.activation())?;
        drop(dactive);
        let (normed, inverse) = kernels::rms_norm::forward(device, &middle, &self.mlp_norm.as_vector(), pass.eps())?;
        let dnormed = self.gate_up.backward(device, &normed, &dgate_up, pass.seed_of(self.index, Layer::GateUp))?;
        drop((normed, dgate_up));
        let of_norm = norm_backward(device, &mut self.mlp_norm, &middle, &inverse, &dnormed)?;
        let dmiddle = kernels::elementwise::add(device, &dy, of_norm)?;
        drop(dy);
        drop((dnormed, middle));

        let dprojected = output_norm_backward(pass, &mut self.attention_norm, projected, &dmiddle)?;
        let dmixed = self.output.backward(device, &mixed, &dprojected, pass.seed_of(self.index, Layer::Output))?;
        let (shape, first_seen) = (attention_shape(pass.arch), pass.first_seen(self.index));
        let mut dqkv = kernels::attention::backward(device, &qkv, &mixed, &lse, &dmixed, shape, first_seen)?;
        drop((qkv, mixed, lse, dmixed));
        dqkv = self.rotate(pass, dqkv, true)?;
        if let (Some(q_norm), Some(k_norm), Some((q, k))) = (&mut self.q_norm, &mut self.k_norm, raw_qk) {
            for (raw, norm, columns) in [(q, q_norm, pass.q_columns()), (k, k_norm, pass.k_columns())] {
                let heads = per_head(&raw, pass.arch.head_dim);
                let (_, inverse) = kernels::rms_norm::forward(device, &heads, &norm.as_vector(), pass.eps())?;
                let dnormed = kernels::elementwise::columns(device, &dqkv, columns)?;
                let dnormed = per_head(&dnormed, pass.arch.head_dim);
                let draw = norm_backward(device, norm, &heads, &inverse, &dnormed)?;
                dqkv = kernels::elementwise::set_columns(device, dqkv, columns, &draw.reshape(raw.dims()))?;
            }
        }
        let (normed, inverse) = kernels::rms_norm::forward(device, &input, &self.input_norm.as_vector(), pass.eps())?;
        let dnormed = self.qkv.backward(device, &normed, &dqkv, pass.seed_of(self.index, Layer::Qkv))?;
        drop((normed, dqkv));
        let of_norm = norm_backward(device, &mut self.input_norm, &input, &inverse, &dnormed)?;
        kernels::elementwise::add(device, &dmiddle, of_norm)
    }

    /// Rotates the q and k columns by each token's position, or back.
    fn rotate(&self, pass: &Pass, qkv: Tensor<2>, inverse: bool) -> Result<Tensor<2>> {
        let heads = pass.arch.heads + pass.arch.kv_heads;
        kernels::rotary::rotate(
            pass.device,
            qkv,
            heads,
            pass.arch.head_dim,
            pass.rotary.of(pass.arch.window_of(self.index)),
            &pass.stream.positions,
            inverse,
        )
    }

    /// Calls `visit` on every parameter of the block, in a fixed order.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Parameter)) {
        for part in self.parts() {
            match part {
                Part::Norm(norm) => visit(norm),
                Part::Linear(linear) => linear.visit(visit),
            }
        }
    }

    /// Calls `visit` on every parameter of the block, in the order of [`Block::visit`].
    ///
    /// # Errors
    /// The first error of `visit`.
    pub fn visit_mut(&mut self, visit: &mut dyn FnMut(&mut Parameter) -> Result<()>) -> Result<()> {
        for part in self.parts_mut() {
            match part {
                Part::Norm(norm) => visit(norm)?,
                Part::Linear(linear) => linear.visit_mut(visit)?,
            }
        }
        Ok(())
    }
}

pub(super) fn attention_shape(arch: &Architecture) -> kernels::attention::Shape {
    kernels::attention::Shape { heads: arch.heads, kv_heads: arch.kv_heads, head_dim: arch.head_dim }
}

/// `[tokens, heads * head_dim]` seen as `[tokens * heads, head_dim]`.
fn per_head(x: &Tensor<2>, head_dim: usize) -> Tensor<2> {
    let [tokens, width] = x.dims();
    x.clone().reshape([tokens * width / head_dim, head_dim])
}

/// Applies a norm between a branch and its residual, where there is one; also returns the norm's input then.
fn output_norm(pass: &Pass, norm: &Option<Parameter>, x: Tensor<2>) -> Result<(Tensor<2>, Option<Tensor<2>>)> {
    match norm {
        None => Ok((x, None)),
        Some(norm) => {
            let (y, _) = kernels::rms_norm::forward(pass.device, &x, &norm.as_vector(), pass.eps())?;
            Ok((y, Some(x)))
        }
    }
}

fn output_norm_backward(
    pass: &Pass,
    norm: &mut Option<Parameter>,
    x: Option<Tensor<2>>,
    dy: &Tensor<2>,
) -> Result<Tensor<2>> {
    match (norm, x) {
        (Some(norm), Some(x)) => {
            let (_, inverse) = kernels::rms_norm::forward(pass.device, &x, &norm.as_vector(), pass.eps())?;
            norm_backward(pass.device, norm, &x, &inverse, dy)
        }
        _ => Ok(dy.clone()),
    }
}

/// Backward pass of a norm, with its own gradient where it is trained.
pub(super) fn norm_backward(
    device: &Device,
    norm: &mut Parameter,
    x: &Tensor<2>,
    inverse: &Tensor<1>,
    dy: &Tensor<2>,
) -> Result<Tensor<2>> {
    if norm.trained {
        let gradient = kernels::rms_norm::scale_gradient(device, x, inverse, dy)?;
        let n = gradient.dims()[0];
        norm.add_gradient(device, gradient.reshape([1, n]))?;
    }
    kernels::rms_norm::backward(device, x, &norm.as_vector(), inverse, dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_with_a_window_see_the_last_tokens_of_a_document_and_the_others_all_of_it() {
        let document_start = vec![0, 0, 0, 0, 4, 4];
        let batch = MicroBatch { document_start: document_start.clone(), ..MicroBatch::default() };
        let stream = Stream::new(&Device::cpu(), &batch, Some(2));
        assert_eq!(stream.first_seen(Some(2)).host(), [0, 0, 1, 2, 4, 4]);
        assert_eq!(stream.first_seen(None).host(), document_start);
        // Where no document outgrows it there is nothing to hold.
        let stream = Stream::new(&Device::cpu(), &batch, Some(4));
        assert!(stream.window_start.is_none());
        assert_eq!(stream.first_seen(Some(4)).host(), document_start);
    }
}
