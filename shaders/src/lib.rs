//! The WGSL kernels of Temper, as text, with the facts a launch needs.
//!
//! Place in the flow: the engine's launch layer compiles [`Kernel::source`], binds [`Kernel::bindings`] in order behind
//! the uniform of [`Kernel::params`], and dispatches [`Kernel::workgroups`] folded by [`fold_workgroups`]. The files are
//! complete WGSL (`README.md` states their contract); this table repeats what they say about sizes, names and order, and
//! `tests/kernels/table.rs` compares every entry with naga's reflection, so that one fact cannot drift into two.
//!
//! Each kernel is a [`TypedKernel`]: it names the struct of its uniform and the struct of its storage bindings, so that a
//! launch is written field by field and does not compile with another kernel's. The CPU twins in the engine take the same
//! uniform structs and the constants below.
//!
//! Run the checks with `cargo test -p temper-shaders`.

use std::marker::PhantomData;
use std::ops::Deref;

use formats::FormatKernels;

/// Calls a macro with the names of the operations: files that hold what belongs to one or several kernels (launch, CPU twin,
/// oracle). The modules and the self-test are declared from this list, so that a new operation is listed once.
#[macro_export]
macro_rules! operations {
    ($with:ident) => {
        $with! { adamw attention cached_attention elementwise gate gated_mlp loss_gradient matmul reference rms_norm rotary row_stats top_tokens wide_entropy }
    };
}

/// Largest K of [`ROW_STATS`], and the width of a row of its `top` binding.
pub const MAX_TOP_K: usize = 64;
/// Width of a row of the `stats` binding of [`ROW_STATS`], [`GATE`] and [`LOSS_GRADIENT`].
pub const STATS_WIDTH: usize = 8;
/// Width of a row of the `state` binding of [`WIDE_ENTROPY`].
pub const WIDE_ENTROPY_STATE: usize = 18;
/// What unused slots of `top`, and the maximum of an empty row, hold: the lowest finite f32.
pub const LOWEST: f32 = f32::MIN;
/// The label of a row that has none.
pub const NO_LABEL: u32 = u32::MAX;
/// Workgroups along one axis of a dispatch that every WebGPU device allows.
pub const MAX_WORKGROUPS_PER_AXIS: u32 = 65_535;

/// What the terms of a row of [`HALF_ROWS`] are a multiple of.
pub const HALF_TERMS: usize = 32;

/// Rows of [`HALF_ROWS`] with what rounding left of each number beside its half, for products nearly in single precision.
pub mod rests {
    /// Segments of such a row.
    pub const SEGMENTS: usize = 3;
    /// Which of them has the rests, counted from 1, in rows of a left operand.
    pub const OF_LEFT: u32 = 1;
    /// And in those of a right one, so that no product has rests on both sides.
    pub const OF_RIGHT: u32 = 2;
}

/// Columns of a row of `stats`.
pub mod stat {
    /// Largest finite logit.
    pub const MAX: usize = 0;
    /// `Σ e^(z - max)`.
    pub const SUM: usize = 1;
    /// `Σ (z - max) e^(z - max)`.
    pub const SUM_SHIFTED: usize = 2;
    /// `Σ e^(2 (z - max))`.
    pub const SUM_SQUARED: usize = 3;
    /// The label's logit; 0 without a label.
    pub const LABEL_LOGIT: usize = 4;
    /// How many logits are NaN or +infinity, plus one if the label's own is not finite.
    pub const NONFINITE: usize = 5;
    /// How many of the row's tokens the entropy is of.
    pub const COUNT: usize = 6;
    /// Entropy in nats of the renormalised largest so many.
    pub const ENTROPY_TOP_K: usize = 7;
}

impl AdamwParams {
    /// The same step on what is held in fewer bits; the launch says how. The seed is that of what is rounded by chance.
    pub fn compact(self, seed: u64) -> AdamwCompactParams {
        let Self { count, learning_rate, beta1, beta2, epsilon, weight_decay, bias1, bias2, gradient_scale } = self;
        AdamwCompactParams {
            count,
            learning_rate,
            beta1,
            beta2,
            epsilon,
            weight_decay,
            bias1,
            bias2,
            gradient_scale,
            weights: 0,
            coded: 0,
            seed_low: seed as u32,
            seed_high: (seed >> 32) as u32,
        }
    }
}

impl AdamwCompactParams {
    /// The same step in single precision.
    pub fn plain(self) -> AdamwParams {
        let Self { count, learning_rate, beta1, beta2, epsilon, weight_decay, bias1, bias2, gradient_scale, .. } = self;
        AdamwParams { count, learning_rate, beta1, beta2, epsilon, weight_decay, bias1, bias2, gradient_scale }
    }
}

/// What [`ADAMW_COMPACT`] and its twin share: how weights and moments are held.
pub mod compact {
    /// Weights in single precision.
    pub const WEIGHTS_F32: u32 = 0;
    /// Weights in bf16, rounded up or down by chance so that the mean is right.
    pub const WEIGHTS_BF16: u32 = 1;
    /// Weights in bf16 with the lower halves of single precision beside them.
    pub const WEIGHTS_SPLIT: u32 = 2;
    /// Elements whose moments share a scale.
    pub const BLOCK: usize = 256;
    /// What is taken from the upper 12 bits of an f32 for the code of a first moment, which keeps 7 of them beside the sign.
    pub const FIRST_BASE: u32 = 889;
    /// What is taken from the upper 13 bits of an f32 for the code of a second moment's root, which keeps 8 of them.
    pub const SECOND_BASE: u32 = 1777;
    /// Smallest number that a code of a first moment stands for, as a share of its block's largest: code 1.
    pub const FIRST_LEAST: f32 = f32::from_bits((FIRST_BASE + 1) << 20);
    /// The same of a second moment's root.
    pub const SECOND_LEAST: f32 = f32::from_bits((SECOND_BASE + 1) << 19);
}

/// What [`GATED_MLP`] and its twin share: which activation a gate has.
pub mod activation {
    /// `x sigmoid(x)`.
    pub const SILU: u32 = 0;
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`.
    pub const GELU_TANH: u32 = 1;
}

/// Type of one field of a kernel's uniform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `u32`.
    U32,
    /// `f32`.
    F32,
}

/// What one workgroup of a kernel covers, of a problem of `rows` by `columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// One row. The number is of the fewest invocations that the text allows, see [`Kernel::narrow_size`].
    Row(u32),
    /// `workgroup_size` elements of `rows * columns`, one an invocation.
    Elements,
    /// Up to this many columns of one row.
    RowTile(u32),
    /// Up to this many columns, all rows.
    ColumnTile(u32),
    /// Up to so many rows of so many columns.
    Tile(u32, u32),
    /// Up to so many rows.
    Rows(u32),
}

/// One kernel: its text and the host's copy of what the text declares.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Its name, also the stem of its CPU twin, launch function and test.
    pub stem: &'static str,
    /// Name of the file that holds `main`, without `.wgsl`: the stem, but for kernels that differ in the parts in front of it
    /// alone.
    pub file: &'static str,
    /// Complete WGSL: the shared parts, the format's part, then the file that holds `main`.
    pub source: &'static str,
    /// The shared parts in front, in order, by the stem of their file in `shared/`.
    pub shared: &'static [&'static str],
    /// The part behind those, by the stem of its file in `formats/`; see [`formats`].
    pub format: Option<&'static str>,
    /// Invocations of a workgroup ([`WORKGROUP_SIZE`] in the text), all along x; of kernels that work on rows a default.
    pub workgroup_size: u32,
    /// What one workgroup covers.
    pub grid: Grid,
    /// Storage bindings from binding 1 on, in order. All are `var<storage, read_write>` arrays of 4-byte elements, or of
    /// vectors of them; f16 where it [is cooperative](Kernel::is_cooperative).
    pub bindings: &'static [&'static str],
    /// Fields of the uniform at binding 0, in order, 4 bytes each without gaps.
    pub params: &'static [&'static str],
    /// Types of those fields.
    pub param_types: &'static [Scalar],
    /// Bytes from the start of the struct that the host fills to each field.
    pub param_offsets: &'static [usize],
}

/// Name of the constant that holds a workgroup's invocations; an `override` where a kernel works on rows.
pub const WORKGROUP_SIZE: &str = "WORKGROUP_SIZE";

/// A kernel with the types that its launch takes: `P` for the uniform, `B` for the storage bindings.
#[derive(Clone, Copy, Debug)]
pub struct TypedKernel<P, B> {
    kernel: Kernel,
    types: PhantomData<fn(P, B)>,
}

impl<P, B> Deref for TypedKernel<P, B> {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}

/// The struct of a kernel's uniform. Its bytes, rounded up to [`Kernel::params_size`], are the uniform buffer.
pub trait Uniform: bytemuck::Pod {
    /// Names of the fields, in order.
    const FIELDS: &'static [&'static str];
    /// Their types.
    const TYPES: &'static [Scalar];
    /// Their offsets in bytes.
    const OFFSETS: &'static [usize];
}

/// The struct of a kernel's storage bindings, whatever handles they are made of.
pub trait Storage {
    /// Names of the bindings, in order from binding 1 on.
    const NAMES: &'static [&'static str];
    /// The struct with a handle of type `T` for each binding.
    type Of<T>: InOrder<T>;
}

/// Handles that a launch binds.
pub trait InOrder<T> {
    /// One a binding, from binding 1 on.
    fn in_order(self) -> Vec<T>;
}

impl Kernel {
    /// The value of [`WORKGROUP_SIZE`] for a software adapter, where it is another: a kernel that gives a workgroup one row,
    /// with the fewest invocations that it allows. There a barrier costs a switch between all groups of four invocations,
    /// so that a tree of 256 takes some hundred times what it saves (measured on SwiftShader).
    pub const fn narrow_size(&self) -> Option<u32> {
        match self.grid {
            Grid::Row(narrow) => Some(narrow),
            _ => None,
        }
    }

    /// Whether it is for devices with cooperative matrices alone, which a browser does not offer: it needs them, `f16` and
    /// subgroups.
    pub fn is_cooperative(&self) -> bool {
        self.shared.first().is_some_and(|part| part.starts_with("cooperative"))
    }

    /// Bytes of the uniform buffer: 4 a field, rounded up to 16.
    pub const fn params_size(&self) -> usize {
        (self.params.len() * 4).next_multiple_of(16)
    }

    /// Workgroups for a problem of `rows` by `columns`, as the kernel's header words its launch. Element kernels take
    /// any two factors of their number of elements.
    pub const fn workgroups(&self, rows: u64, columns: u64) -> u64 {
        match self.grid {
            Grid::Row(_) => rows,
            Grid::Elements => (rows * columns).div_ceil(self.workgroup_size as u64),
            Grid::RowTile(width) => rows * columns.div_ceil(width as u64),
            Grid::ColumnTile(width) => columns.div_ceil(width as u64),
            Grid::Tile(height, width) => rows.div_ceil(height as u64) * columns.div_ceil(width as u64),
            Grid::Rows(height) => rows.div_ceil(height as u64),
        }
    }
}

/// Folds `workgroups` into `[x, y, 1]` with at most [`MAX_WORKGROUPS_PER_AXIS`] along an axis, the twin of
/// `linear_workgroup` in `shared/rows.wgsl`. It may start a few more than asked for; kernels guard against them.
/// `None` if two axes cannot hold them.
pub const fn fold_workgroups(workgroups: u64) -> Option<[u32; 3]> {
    let axis = MAX_WORKGROUPS_PER_AXIS as u64;
    if workgroups <= axis {
        return Some([workgroups as u32, 1, 1]);
    }
    let y = workgroups.div_ceil(axis);
    if y > axis {
        return None;
    }
    // The narrowest x that y rows of workgroups need: fewer idle ones than x = 65,535 would start.
    Some([workgroups.div_ceil(y) as u32, y as u32, 1])
}

/// The uniform number in [0, 1) that [`DROPOUT`] compares with the keep probability: its Rust twin.
pub const fn dropout_uniform(seed_low: u32, seed_high: u32, index: u32) -> f32 {
    (random_bits(seed_low, seed_high, index) >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Number `index` of a seed: the Rust twin of the function in `shared/random.wgsl`.
#[inline(always)]
pub const fn random_bits(seed_low: u32, seed_high: u32, index: u32) -> u32 {
    mix_bits(mix_bits(index ^ mix_bits(seed_low)).wrapping_add(mix_bits(seed_high ^ 0x9e37_79b9)))
}

/// A bijection in which every bit that goes in reaches every bit that comes out, as in `shared/random.wgsl`.
#[inline(always)]
pub const fn mix_bits(mut v: u32) -> u32 {
    v ^= v >> 16;
    v = v.wrapping_mul(0x7feb_352d);
    v ^= v >> 15;
    v = v.wrapping_mul(0x846c_a68b);
    v ^ (v >> 16)
}

/// Declares a kernel's uniform block as a struct, with what the checks compare.
macro_rules! uniform {
    ($stem:literal, $name:ident { $($(#[$doc:meta])* $field:ident: $scalar:ident),* }) => {
        #[doc = concat!("The uniform of `", $stem, ".wgsl`, field by field.")]
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $($(#[$doc])* pub $field: $scalar,)*
        }

        impl Uniform for $name {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];
            const TYPES: &'static [Scalar] = &[$(scalar!($scalar)),*];
            const OFFSETS: &'static [usize] = &[$(std::mem::offset_of!($name, $field)),*];
        }
    };
}

macro_rules! scalar {
    (u32) => {
        Scalar::U32
    };
    (f32) => {
        Scalar::F32
    };
}

/// Declares a kernel's storage bindings as a struct.
macro_rules! storage {
    ($stem:literal, $name:ident { $($binding:ident),* }) => {
        #[doc = concat!("The storage bindings of `", $stem, ".wgsl`, whose header says the shape of each.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T = ()> {
            $(
                #[doc = concat!("`", stringify!($binding), "`.")]
                pub $binding: T,
            )*
        }

        impl Storage for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($binding)),*];
            type Of<T> = $name<T>;
        }

        impl<T> InOrder<T> for $name<T> {
            fn in_order(self) -> Vec<T> {
                vec![$(self.$binding),*]
            }
        }
    };
}

/// A kernel with what the structs of its launch say of themselves.
macro_rules! typed_kernel {
    (
        $stem:expr, $file:expr, $source:expr, shared $shared:expr, format $format:expr, invocations $size:expr, $grid:expr,
        $params:ident, $bindings:ident
    ) => {
        TypedKernel {
            kernel: Kernel {
                stem: $stem,
                file: $file,
                source: $source,
                shared: $shared,
                format: $format,
                workgroup_size: $size,
                grid: $grid,
                bindings: <$bindings as Storage>::NAMES,
                params: <$params as Uniform>::FIELDS,
                param_types: <$params as Uniform>::TYPES,
                param_offsets: <$params as Uniform>::OFFSETS,
            },
            types: PhantomData,
        }
    };
}

// Behind the macros that it uses.
pub mod formats;

macro_rules! first {
    ($first:literal $(, $more:literal)*) => {
        $first
    };
}

/// Declares the kernels, the structs that their launches take, and the table of them all. Kernels that take the same
/// structs name those of an earlier one; kernels that share a file name it behind `of`. The text of a kernel is joined at compile time; a file that does not exist
/// stops the build.
macro_rules! kernels {
    ($(
        $(#[$doc:meta])*
        $kernel:ident = $stem:literal $(of $file:literal)?, shared [$($shared:literal),*], $grid:expr $(, invocations $size:literal)?,
        params $params:ident $({ $($(#[$field_doc:meta])* $field:ident: $scalar:ident),* $(,)? })?,
        bindings $bindings:ident $({ $($binding:ident),* })?;
    )*) => {
        $(
            $(uniform!($stem, $params { $($(#[$field_doc])* $field: $scalar),* });)?
            $(storage!($stem, $bindings { $($binding),* });)?

            $(#[$doc])*
            pub const $kernel: TypedKernel<$params, $bindings> = typed_kernel!(
                $stem,
                first!($($file,)? $stem),
                concat!(
                    $(include_str!(concat!("../shared/", $shared, ".wgsl")),)*
                    include_str!(concat!("../", first!($($file,)? $stem), ".wgsl"))
                ),
                shared &[$($shared),*],
                format None,
                invocations [$($size,)? 256][0],
                $grid,
                $params,
                $bindings
            );
        )*
        /// Every kernel with a file of its own.
        const SINGLE: &[Kernel] = &[$($kernel.kernel),*];
    };
}

kernels! {
    /// Row statistics of the loss head.
    ROW_STATS = "row_stats", shared ["rows", "finite", "logarithm", "stats"], Grid::Row(64),
    params RowStatsParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// Vocabulary entry of the tile's first column.
        column_start: u32,
        /// K of the top-K entropy, at most [`MAX_TOP_K`]; 0 for the entropy of all tokens.
        top_k: u32,
        /// 1 for a row's first tile, which is merged with nothing.
        first: u32,
    },
    bindings RowStatsBindings { logits, labels, top, stats };

    /// Tokens of the largest logits of each row.
    TOP_TOKENS = "top_tokens", shared ["rows", "finite"], Grid::Row(64),
    params TopTokensParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// Vocabulary entry of the tile's first column.
        column_start: u32,
        /// How many of the largest, at most [`MAX_TOP_K`].
        top_k: u32,
    },
    bindings TopTokensBindings { logits, top, tokens };

    /// Weight of each row's cross entropy.
    GATE = "gate", shared ["rows", "logarithm", "sigmoid", "stats"], Grid::Elements,
    params GateParams {
        /// Rows; the launch fills it in.
        rows: u32,
        /// Which formula of the header: a `KIND_` constant of the text.
        kind: u32,
        /// Exponent of kinds power and mile.
        exponent: f32,
        /// What the top-K entropy is divided by (linear, power, sigmoid, hard); 0 stands for the logarithm of how many tokens
        /// each row's entropy is of, at least ln 2.
        normalizer: f32,
        /// First constant of sigmoid, talr and mile.
        a: f32,
        /// Second constant of those; the cross entropy that profit and masked compare with.
        b: f32,
        /// Entropy that hard and masked compare with; the lowest f32 where nothing is to be dropped.
        threshold: f32,
        /// Factor on every weight.
        scale: f32,
    },
    bindings GateBindings { stats, weight };

    /// Entropy of more of the largest logits than [`ROW_STATS`] selects, or of as many as carry a share of the probability.
    WIDE_ENTROPY = "wide_entropy", shared ["rows", "finite", "logarithm", "stats"], Grid::Row(4),
    params WideEntropyParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// How far the digit of this sweep lies from a key's end, 28 to 0 in steps of 4; 32 in the last sweep, which sums up.
        shift: u32,
        /// 1 for the first tile of a sweep.
        first: u32,
        /// 1 for the last tile of a sweep.
        last: u32,
        /// K; 0 where a share is asked for.
        top_k: u32,
        /// Share of the probability.
        share: f32,
    },
    bindings WideEntropyBindings { logits, state, stats };

    /// Gradient of the weighted cross entropy, written over the logits.
    LOSS_GRADIENT = "loss_gradient", shared ["rows", "finite", "row_tile", "stats"], Grid::RowTile(1024),
    params LossGradientParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// Vocabulary entry of the tile's first column.
        column_start: u32,
    },
    bindings LossGradientBindings { logits, labels, weight, stats };

    /// Divergence of each row from another model's.
    REFERENCE_DIVERGENCE = "reference_divergence", shared ["rows", "finite", "logarithm", "reduce", "stats"], Grid::Row(4),
    params ReferenceDivergenceParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// 1 for a row's first tile, which is added to nothing.
        first: u32,
        /// 0 forward, 1 reverse.
        kind: u32,
    },
    bindings ReferenceDivergenceBindings { logits, reference, stats, reference_stats, divergence };

    /// Gradient of the weighted cross entropy and of the divergence from another model, written over the logits.
    REFERENCE_GRADIENT = "reference_gradient", shared ["rows", "finite", "row_tile", "logarithm", "stats"], Grid::RowTile(1024),
    params ReferenceGradientParams {
        /// Rows of logits.
        rows: u32,
        /// Columns of this tile of the vocabulary.
        cols: u32,
        /// Vocabulary entry of the tile's first column.
        column_start: u32,
        /// 0 forward, 1 reverse.
        kind: u32,
        /// Factor on the divergence, divided by the trained tokens like the weights.
        beta: f32,
    },
    bindings ReferenceGradientBindings { logits, reference, labels, weight, stats, reference_stats, divergence };

    /// Root-mean-square normalisation.
    RMS_NORM = "rms_norm", shared ["rows", "reduce"], Grid::Row(4),
    params RmsNormParams {
        /// Rows of x.
        rows: u32,
        /// Columns of x.
        width: u32,
        /// Added to the mean square.
        epsilon: f32,
    },
    bindings RmsNormBindings { x, scale, y, inverse_rms };

    /// Backward pass of [`RMS_NORM`] to its input.
    RMS_NORM_BACKWARD = "rms_norm_backward", shared ["rows", "reduce"], Grid::Row(4),
    params RmsNormBackwardParams {
        /// Rows of x.
        rows: u32,
        /// Columns of x.
        width: u32,
    },
    bindings RmsNormBackwardBindings { x, scale, inverse_rms, dy, dx };

    /// Gradient of [`RMS_NORM`] with respect to its weight.
    RMS_NORM_SCALE_GRADIENT = "rms_norm_scale_gradient", shared ["rows"], Grid::ColumnTile(32),
    params RmsNormBackwardParams,
    bindings RmsNormScaleGradientBindings { x, inverse_rms, dy, dscale };

    /// Rotary position embedding in place, and its backward pass.
    ROTARY = "rotary", shared ["rows"], Grid::Elements,
    params RotaryParams {
        /// Rows of x.
        tokens: u32,
        /// Heads to rotate, from column 0 on.
        heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Leading numbers of each head that are rotated; even, at most `head_dim`.
        rotary_dim: u32,
        /// 1 where pairs are (2i, 2i + 1) rather than (i, i + rotary_dim / 2).
        interleaved: u32,
        /// 1 to rotate by minus the angle: the gradient of the rotation.
        inverse: u32,
        /// Elements between the starts of two rows.
        row_stride: u32,
    },
    bindings RotaryBindings { x, cos_table, sin_table, positions };

    /// The product inside a gated MLP.
    GATED_MLP = "gated_mlp", shared ["rows", "sigmoid", "activation"], Grid::Elements,
    params GatedMlpParams {
        /// Rows of y.
        rows: u32,
        /// Columns of y, half of `gate_up`'s.
        width: u32,
        /// The gate's activation: a constant of [`activation`].
        activation: u32,
    },
    bindings GatedMlpBindings { gate_up, y };

    /// Backward pass of [`GATED_MLP`], written over its input.
    GATED_MLP_BACKWARD = "gated_mlp_backward", shared ["rows", "sigmoid", "activation"], Grid::Elements,
    params GatedMlpParams,
    bindings GatedMlpBackwardBindings { gate_up, dy };

    /// Causal grouped-query attention within documents; times the number of heads.
    ATTENTION = "attention", shared ["rows", "finite", "scores", "attention", "attention_tiles"], Grid::Tile(64, 128),
    params AttentionParams {
        /// Tokens of the packed stream.
        tokens: u32,
        /// Query heads.
        heads: u32,
        /// Key and value heads; divides `heads`.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Number of the launch's first workgroup among those of all pieces.
        first_group: u32,
        /// Factor on the scores.
        scale: f32,
    },
    bindings AttentionBindings { document_start, qkv, out, lse };

    /// The same of heads that are multiples of 4 numbers wide, without workgroup memory: for software adapters.
    ATTENTION_VECTORS = "attention_vectors", shared ["rows", "finite", "scores", "attention_vectors"], Grid::Elements, invocations 16,
    params AttentionParams,
    bindings AttentionBindings;

    /// Gradient of [`ATTENTION`] by its queries; times the number of heads.
    ATTENTION_QUERY_GRADIENT = "attention_query_gradient", shared ["rows", "finite", "scores", "attention", "attention_tiles"], Grid::Tile(64, 128),
    params AttentionParams,
    bindings AttentionQueryGradientBindings { document_start, qkv, out, lse, dout, mean, dqkv };

    /// Gradient of [`ATTENTION_VECTORS`] by its queries.
    ATTENTION_QUERY_GRADIENT_VECTORS = "attention_query_gradient_vectors",
    shared ["rows", "finite", "scores", "attention_vectors"], Grid::Elements, invocations 16,
    params AttentionParams,
    bindings AttentionQueryGradientBindings;

    /// Gradient of [`ATTENTION`] by its keys and values; times the number of their heads.
    ATTENTION_KEY_GRADIENT = "attention_key_gradient", shared ["rows", "finite", "scores", "attention", "attention_tiles"], Grid::Tile(64, 128),
    params AttentionParams,
    bindings AttentionKeyGradientBindings { document_start, qkv, lse, dout, mean, dqkv };

    /// Gradient of [`ATTENTION_VECTORS`] by its keys and values.
    ATTENTION_KEY_GRADIENT_VECTORS = "attention_key_gradient_vectors",
    shared ["rows", "finite", "scores", "attention_vectors"], Grid::Elements, invocations 16,
    params AttentionParams,
    bindings AttentionKeyGradientBindings;

    /// [`ATTENTION`] on tensor cores that multiply 16 x 16 x 16, with the exponents that [`HALF_ROWS`] gives each head's rows;
    /// times the number of heads.
    ATTENTION_MATRICES = "attention_matrices" of "attention",
    shared ["cooperative_16", "rows", "finite", "scores", "powers", "attention", "attention_matrices", "attention_halves"],
    Grid::Tile(64, 128),
    params AttentionParams,
    bindings AttentionMatricesBindings { document_start, qkv, out, lse, qkv_exponents };

    /// Gradient of [`ATTENTION_MATRICES`] by its queries; times the number of heads.
    ATTENTION_QUERY_GRADIENT_MATRICES = "attention_query_gradient_matrices" of "attention_query_gradient",
    shared [
        "cooperative_16", "rows", "finite", "scores", "powers", "attention", "attention_matrices",
        "attention_gradient_halves", "attention_query_gradient_halves"
    ],
    Grid::Tile(64, 128),
    params AttentionParams,
    bindings AttentionQueryGradientMatricesBindings {
        document_start, qkv_halves, out, lse, dout, mean, dqkv, qkv_exponents, dout_halves, dout_exponents
    };

    /// Gradient of [`ATTENTION_MATRICES`] by its keys and values; times the number of their heads.
    ATTENTION_KEY_GRADIENT_MATRICES = "attention_key_gradient_matrices" of "attention_key_gradient",
    shared [
        "cooperative_16", "rows", "finite", "scores", "powers", "attention", "attention_matrices",
        "attention_gradient_halves", "attention_key_gradient_halves"
    ],
    Grid::Tile(64, 128),
    params AttentionParams,
    bindings AttentionKeyGradientMatricesBindings {
        document_start, qkv_halves, lse, dout, mean, dqkv, qkv_exponents, dout_halves, dout_exponents
    };

    /// Puts keys and values of new tokens into a cache.
    APPEND_KEYS = "append_keys", shared ["rows", "halves"], Grid::Elements,
    params AppendKeysParams {
        /// New tokens.
        rows: u32,
        /// Numbers of a token's keys and values.
        width: u32,
        /// Elements between the starts of two rows of the source.
        source_stride: u32,
        /// First column of the keys, which the values follow.
        source_offset: u32,
        /// 1 where the cache holds f16.
        halves: u32,
    },
    bindings AppendKeysBindings { source_values, places, key_values };

    /// Attention of new tokens over what a cache holds.
    CACHED_ATTENTION = "cached_attention", shared ["rows", "finite", "halves", "reduce"], Grid::Row(4),
    params CachedAttentionParams {
        /// New tokens.
        rows: u32,
        /// Query heads.
        heads: u32,
        /// Key and value heads; divides `heads`.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
        /// Elements between the starts of two rows of `qkv`.
        stride: u32,
        /// Number of the launch's first workgroup among those of all pieces.
        first_group: u32,
        /// 1 where the cache holds f16.
        halves: u32,
        /// Factor on the scores.
        scale: f32,
    },
    bindings CachedAttentionBindings { qkv, places, key_values, out };

    /// One AdamW step with decoupled decay.
    ADAMW = "adamw", shared ["rows"], Grid::Elements,
    params AdamwParams {
        /// Elements of the parameter; the launch fills it in.
        count: u32,
        /// Learning rate of this step.
        learning_rate: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the denominator.
        epsilon: f32,
        /// Decoupled weight decay.
        weight_decay: f32,
        /// `1 - beta1^t`, step t counted from 1.
        bias1: f32,
        /// `1 - beta2^t`.
        bias2: f32,
        /// Factor on the gradient before anything else: clipping.
        gradient_scale: f32,
    },
    bindings AdamwBindings { parameter, gradient, first_moment, second_moment };

    /// The step of [`ADAMW`] on weights in bf16, on moments in 8 bits, or on both.
    ADAMW_COMPACT = "adamw_compact", shared ["rows", "random"], Grid::RowTile(1024),
    params AdamwCompactParams {
        /// Elements of the parameter; the launch fills it in.
        count: u32,
        /// Learning rate of this step.
        learning_rate: f32,
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Added to the denominator.
        epsilon: f32,
        /// Decoupled weight decay.
        weight_decay: f32,
        /// `1 - beta1^t`, step t counted from 1.
        bias1: f32,
        /// `1 - beta2^t`.
        bias2: f32,
        /// Factor on the gradient before anything else: clipping.
        gradient_scale: f32,
        /// How weights are held: a constant of [`compact`].
        weights: u32,
        /// 1 where moments take 8 bits.
        coded: u32,
        /// Lower half of the seed of what is rounded by chance.
        seed_low: u32,
        /// Upper half of it.
        seed_high: u32,
    },
    bindings AdamwCompactBindings {
        parameter, low_halves, gradient, first_moment, second_moment, first_scale, second_scale
    };

    /// Inverted dropout from a counter.
    DROPOUT = "dropout", shared ["rows", "random"], Grid::Elements,
    params DropoutParams {
        /// Elements.
        count: u32,
        /// Lower half of the seed.
        seed_low: u32,
        /// Upper half of the seed.
        seed_high: u32,
        /// Probability with which an element is kept.
        keep_probability: f32,
    },
    bindings DropoutBindings { x, y };

    /// Adds a bias to each row, in place.
    ADD_BIAS = "add_bias", shared ["rows"], Grid::Elements,
    params AddBiasParams {
        /// Rows of x.
        rows: u32,
        /// Columns of x.
        width: u32,
    },
    bindings AddBiasBindings { x, bias };

    /// Partial sums of squares; `rows` of the launch is the number of groups.
    SUM_SQUARES = "sum_squares", shared ["rows", "reduce"], Grid::Row(4),
    params SumSquaresParams {
        /// Elements of x.
        count: u32,
        /// Workgroups, and partial sums.
        groups: u32,
    },
    bindings SumSquaresBindings { x, partial_sums };

    /// Copies or adds a block of columns between arrays of different row lengths.
    COPY_COLUMNS = "copy_columns", shared ["rows"], Grid::Elements,
    params CopyColumnsParams {
        /// Rows of both arrays.
        rows: u32,
        /// Elements between the starts of two rows of the source.
        source_stride: u32,
        /// First column of the source.
        source_offset: u32,
        /// Elements between the starts of two rows of the target.
        target_stride: u32,
        /// First column of the target.
        target_offset: u32,
        /// Columns.
        width: u32,
        /// 1 to add, 0 to overwrite.
        accumulate: u32,
    },
    bindings CopyColumnsBindings { source_values, target_values };

    /// Matrix products in any layout, for software adapters; times the number of batches, as all products.
    MATMUL = "matmul", shared ["rows", "numbers", "product"], Grid::Tile(64, 128),
    params MatmulParams {
        /// Rows of the result.
        rows: u32,
        /// Columns of the result.
        columns: u32,
        /// Terms of each sum.
        inner: u32,
        /// Products to compute.
        batches: u32,
        /// First element of `left`.
        left_offset: u32,
        /// Elements between two batches of `left`.
        left_batch: u32,
        /// Elements between two rows of `left`.
        left_row: u32,
        /// Elements between two terms of `left`.
        left_step: u32,
        /// First element of `right`.
        right_offset: u32,
        /// Elements between two batches of `right`.
        right_batch: u32,
        /// Elements between two terms of `right`.
        right_step: u32,
        /// Elements between two columns of `right`.
        right_column: u32,
        /// First element of the target.
        target_offset: u32,
        /// Elements between two batches of the target.
        target_batch: u32,
        /// Elements between two rows of the target.
        target_row: u32,
        /// 1 to add, 0 to overwrite.
        accumulate: u32,
        /// Factor on the product.
        alpha: f32,
    },
    bindings MatmulBindings { left_values, right_values, target_values };

    /// The same of operands that can be read four numbers at a time.
    MATMUL_VECTORS = "matmul_vectors", shared ["rows", "vectors", "product"], Grid::Tile(32, 128), invocations 64,
    params MatmulParams,
    bindings MatmulBindings;

    /// Matrix products in any layout, in tiles that lie in workgroup memory: for hardware.
    MATMUL_TILED = "matmul_tiled", shared ["rows", "numbers", "product", "operands"], Grid::Tile(128, 64), invocations 128,
    params MatmulParams,
    bindings MatmulBindings;

    /// The same of operands that can be read four numbers at a time.
    MATMUL_TILED_VECTORS = "matmul_tiled_vectors" of "matmul_tiled", shared ["rows", "vectors", "product", "operand_vectors"],
    Grid::Tile(128, 64), invocations 128,
    params MatmulParams,
    bindings MatmulBindings;

    /// Matrix products in any layout whose result has few rows or columns.
    MATMUL_FEW_ROWS = "matmul_few_rows", shared ["rows", "numbers", "product"], Grid::Tile(8, 32),
    params MatmulParams,
    bindings MatmulBindings;

    /// Rows of an operand in half precision, for [`MATMUL_COOPERATIVE_16`]; `rows` of the launch are those of all batches.
    HALF_ROWS = "half_rows", shared ["rows", "values", "halves"], Grid::Rows(8),
    params HalfRowsParams {
        /// Rows of a batch, as the product reads them: of a right operand its columns.
        rows: u32,
        /// Batches.
        batches: u32,
        /// Terms of a row.
        inner: u32,
        /// Terms of a segment of a row of the result: at least those, a multiple of [`HALF_TERMS`].
        padded: u32,
        /// First element.
        offset: u32,
        /// Elements between two batches.
        batch: u32,
        /// Elements between two rows.
        row: u32,
        /// Elements between two terms.
        step: u32,
        /// Which of three segments has what rounding left, of [`rests`]; 0 for one segment, of halves.
        rests: u32,
    },
    bindings HalfRowsBindings { values, halves, exponents };

    /// Matrix products of [`HALF_ROWS`] on tensor cores that multiply 16 x 16 x 16.
    MATMUL_COOPERATIVE_16 = "matmul_cooperative_16" of "matmul_cooperative", shared ["cooperative_16", "rows", "powers"],
    Grid::Tile(128, 128),
    params MatmulCooperativeParams {
        /// Rows of the result.
        rows: u32,
        /// Columns of the result.
        columns: u32,
        /// Terms of each sum, with the zeros behind them, of all segments of a row.
        padded: u32,
        /// Products to compute.
        batches: u32,
        /// First element of the target.
        target_offset: u32,
        /// Elements between two batches of the target.
        target_batch: u32,
        /// Elements between two rows of the target.
        target_row: u32,
        /// 1 to add, 0 to overwrite.
        accumulate: u32,
        /// Factor on the product.
        alpha: f32,
    },
    bindings MatmulCooperativeBindings {
        left_halves, left_exponents, right_halves, right_exponents, target_values
    };

    /// The same on those that multiply 8 x 8 x 8.
    MATMUL_COOPERATIVE_8 = "matmul_cooperative_8" of "matmul_cooperative", shared ["cooperative_8", "rows", "powers"],
    Grid::Tile(64, 64),
    params MatmulCooperativeParams,
    bindings MatmulCooperativeBindings;
}

/// Every kernel: those with a file of their own, then those of [`formats`].
pub const KERNELS: &[Kernel] = &every_kernel();

const fn every_kernel() -> [Kernel; SINGLE.len() + formats::ALL.len() * FormatKernels::COUNT] {
    let mut kernels = [SINGLE[0]; SINGLE.len() + formats::ALL.len() * FormatKernels::COUNT];
    let mut index = 0;
    while index < kernels.len() {
        kernels[index] = match index < SINGLE.len() {
            true => SINGLE[index],
            false => {
                let index = index - SINGLE.len();
                formats::ALL[index / FormatKernels::COUNT].all()[index % FormatKernels::COUNT]
            }
        };
        index += 1;
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_covers_every_workgroup_and_keeps_each_axis_within_its_limit() {
        for n in [0, 1, 65_535, 65_536, 131_071, 1_000_003, 65_535 * 65_535] {
            let [x, y, z] = fold_workgroups(n).expect("two axes hold it");
            assert!(x <= MAX_WORKGROUPS_PER_AXIS && y <= MAX_WORKGROUPS_PER_AXIS && z == 1);
            let started = u64::from(x) * u64::from(y);
            assert!(started >= n && started < n.max(1) + u64::from(y), "{n} became {started}");
        }
        assert_eq!(fold_workgroups(65_535 * 65_535 + 1), None);
    }

    #[test]
    fn a_launch_covers_rows_elements_and_tiles() {
        assert_eq!(ROW_STATS.workgroups(7, 50_257), 7);
        assert_eq!(DROPOUT.workgroups(1, 257), 2);
        assert_eq!(LOSS_GRADIENT.workgroups(3, 1025), 6);
        assert_eq!(RMS_NORM_SCALE_GRADIENT.workgroups(1000, 33), 2);
        assert_eq!(ROW_STATS.params_size(), 32);
        assert_eq!(SUM_SQUARES.params_size(), 16);
    }

    #[test]
    fn bindings_are_handed_over_in_the_order_of_the_table() {
        let bindings = RowStatsBindings { top: "top", stats: "stats", labels: "labels", logits: "logits" };
        assert_eq!(bindings.in_order(), ROW_STATS.bindings);
    }

    #[test]
    fn a_uniform_is_its_fields_without_gaps() {
        let params = SumSquaresParams { count: 3, groups: 258 };
        assert_eq!(bytemuck::bytes_of(&params), [3, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(size_of::<MatmulParams>(), 4 * MATMUL.params.len());
    }

    #[test]
    fn dropout_keeps_its_share_and_depends_on_both_halves_of_the_seed() {
        let kept = |low, high| (0..100_000).map(|i| dropout_uniform(low, high, i) < 0.9).collect::<Vec<_>>();
        let base = kept(1, 2);
        let share = base.iter().filter(|&&k| k).count();
        assert!((89_500..90_500).contains(&share), "{share}");
        // Independent masks of keep probability 0.9 agree on 82 % of their elements.
        for other in [kept(2, 2), kept(1, 3), kept(2, 1)] {
            let agreeing = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((81_000..83_000).contains(&agreeing), "{agreeing}");
        }
    }

    #[test]
    fn dropout_never_changes_between_versions() {
        let bits: Vec<u32> = [(0, 0, 0), (1, 2, 3), (u32::MAX, 7, 1 << 20)]
            .into_iter()
            .map(|(low, high, index)| (dropout_uniform(low, high, index) * 16_777_216.0) as u32)
            .collect();
        assert_eq!(bits, [11_431_808, 15_992_827, 6_352_909]);
    }
}
