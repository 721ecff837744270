//! The WGSL kernels of Temper, as text, with the facts a launch needs.
//!
//! Place in the flow: the engine's launch layer compiles [`Kernel::source`], binds [`Kernel::bindings`] in order behind
//! the uniform of [`Kernel::params`], and dispatches [`Kernel::workgroups`] folded by [`fold_workgroups`]. The files are
//! complete WGSL (`README.md` states their contract); this table repeats what they say about sizes, names and order, and
//! `tests/table.rs` compares every entry with naga's reflection, so that one fact cannot drift into two.
//!
//! Run the checks with `cargo test -p temper-shaders`.

pub mod formats;

/// Largest K of [`ROW_STATS`], and the width of a row of its `top` binding.
pub const MAX_TOP_K: usize = 64;
/// Width of a row of the `stats` binding of [`ROW_STATS`], [`GATE`] and [`LOSS_GRADIENT`].
pub const STATS_WIDTH: usize = 8;
/// What unused slots of `top`, and the maximum of an empty row, hold: the lowest finite f32.
pub const LOWEST: f32 = f32::MIN;
/// The label of a row that has none.
pub const NO_LABEL: u32 = u32::MAX;
/// Workgroups along one axis of a dispatch that every WebGPU device allows.
pub const MAX_WORKGROUPS_PER_AXIS: u32 = 65_535;

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
    /// `max + ln sum`.
    pub const LSE: usize = 6;
    /// Entropy in nats of the renormalised K largest.
    pub const ENTROPY_TOP_K: usize = 7;
}

/// Values of the `kind` parameter of [`GATE`]; the formulas are in the header of `gate.wgsl`.
pub mod gate_kind {
    /// Weight 1.
    pub const SFT: u32 = 0;
    /// Normalised entropy.
    pub const LINEAR: u32 = 1;
    /// A power of the normalised entropy.
    pub const POWER: u32 = 2;
    /// A sigmoid of the normalised entropy.
    pub const SIGMOID: u32 = 3;
    /// 1 above a threshold of the normalised entropy, else 0.
    pub const HARD: u32 = 4;
    /// The label's probability.
    pub const DFT: u32 = 5;
    /// A root of the label's probability, with a floor.
    pub const TALR: u32 = 6;
    /// A power of the shifted full entropy.
    pub const MILE: u32 = 7;
    /// The label's probability to the power of the collision probability.
    pub const DEFT: u32 = 8;
    /// 1 where the label's probability is above a threshold, else 0.
    pub const PROFIT: u32 = 9;
    /// 0 where both the top-K entropy and the label's probability are low, else 1.
    pub const MASKED: u32 = 10;
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
    /// One row. The number is of the fewest invocations that the text allows, see [`Kernel::narrow_source`].
    Row(u32),
    /// `workgroup_size` elements of `rows * columns`, one an invocation.
    Elements,
    /// Up to this many columns of one row.
    RowTile(u32),
    /// Up to this many columns, all rows.
    ColumnTile(u32),
    /// Up to so many rows of so many columns.
    Tile(u32, u32),
}

/// One kernel: its text and the host's copy of what the text declares.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Its name, also the stem of its CPU twin, launch function and test.
    pub stem: &'static str,
    /// Name of the file that holds `main`, without `.wgsl`: the stem, but for kernels that differ in their weight format
    /// alone.
    pub file: &'static str,
    /// Complete WGSL: the shared parts, the format's part, then the file that holds `main`.
    pub source: &'static str,
    /// The shared parts in front, in order, by the stem of their file in `shared/`.
    pub shared: &'static [&'static str],
    /// The part behind those, by the stem of its file in `formats/`; see [`formats`].
    pub format: Option<&'static str>,
    /// Invocations of a workgroup (`WORKGROUP_SIZE` in the text), all along x.
    pub workgroup_size: u32,
    /// What one workgroup covers.
    pub grid: Grid,
    /// Storage bindings from binding 1 on, in order. All are `var<storage, read_write>` arrays of 4-byte elements.
    pub bindings: &'static [&'static str],
    /// Fields of the uniform at binding 0, in order, 4 bytes each without gaps.
    pub params: &'static [&'static str],
    /// Types of those fields.
    pub param_types: &'static [Scalar],
}

impl Kernel {
    /// The text for a software adapter, where it is another: a kernel that gives a workgroup one row, with the fewest
    /// invocations that it allows. There a barrier costs a switch between all groups of four invocations, so that a tree of
    /// 256 takes some hundred times what it saves (measured on SwiftShader).
    pub fn narrow_source(&self) -> Option<String> {
        let Grid::Row(narrow) = self.grid else { return None };
        let declaration = |size: u32| format!("const WORKGROUP_SIZE: u32 = {size}u;");
        // `tests/kernels` compares WORKGROUP_SIZE with the table, so the declaration is there, in these words.
        Some(self.source.replacen(&declaration(self.workgroup_size), &declaration(narrow), 1))
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
    let h = mix_bits(mix_bits(index ^ mix_bits(seed_low)).wrapping_add(mix_bits(seed_high ^ 0x9e37_79b9)));
    (h >> 8) as f32 * (1.0 / 16_777_216.0)
}

const fn mix_bits(mut v: u32) -> u32 {
    v ^= v >> 16;
    v = v.wrapping_mul(0x7feb_352d);
    v ^= v >> 15;
    v = v.wrapping_mul(0x846c_a68b);
    v ^ (v >> 16)
}

/// Declares the kernels and the table of them all. The text of a kernel is joined at compile time; a file that does not
/// exist stops the build.
macro_rules! kernels {
    ($(
        $(#[$doc:meta])*
        $name:ident = $stem:literal, shared [$($shared:literal),*], $grid:expr,
        params { $($param:ident: $scalar:ident),* }, bindings [$($binding:ident),*];
    )*) => {
        $(
            $(#[$doc])*
            pub const $name: Kernel = Kernel {
                stem: $stem,
                file: $stem,
                source: concat!(
                    $(include_str!(concat!("../shared/", $shared, ".wgsl")),)*
                    include_str!(concat!("../", $stem, ".wgsl"))
                ),
                shared: &[$($shared),*],
                format: None,
                workgroup_size: 256,
                grid: $grid,
                bindings: &[$(stringify!($binding)),*],
                params: &[$(stringify!($param)),*],
                param_types: &[$(scalar!($scalar)),*],
            };
        )*
        /// Every kernel with a file of its own.
        const SINGLE: &[Kernel] = &[$($name),*];
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

kernels! {
    /// Row statistics of the loss head.
    ROW_STATS = "row_stats", shared ["rows", "finite", "logarithm"], Grid::Row(64),
    params { rows: u32, cols: u32, column_start: u32, top_k: u32, first: u32 },
    bindings [logits, labels, top, stats];

    /// Weight of each row's cross entropy.
    GATE = "gate", shared ["rows", "logarithm", "sigmoid"], Grid::Elements,
    params { rows: u32, kind: u32, exponent: f32, normalizer: f32, a: f32, b: f32, threshold: f32, scale: f32 },
    bindings [stats, weight];

    /// Gradient of the weighted cross entropy, written over the logits.
    LOSS_GRADIENT = "loss_gradient", shared ["rows", "finite"], Grid::RowTile(1024),
    params { rows: u32, cols: u32, column_start: u32 },
    bindings [logits, labels, weight, stats];

    /// Root-mean-square normalisation.
    RMS_NORM = "rms_norm", shared ["rows", "reduce"], Grid::Row(4),
    params { rows: u32, width: u32, epsilon: f32 },
    bindings [x, scale, y, inverse_rms];

    /// Pull-back of [`RMS_NORM`] to its input.
    RMS_NORM_BACKWARD = "rms_norm_backward", shared ["rows", "reduce"], Grid::Row(4),
    params { rows: u32, width: u32 },
    bindings [x, scale, inverse_rms, dy, dx];

    /// Gradient of [`RMS_NORM`] with respect to its weight.
    RMS_NORM_SCALE_GRADIENT = "rms_norm_scale_gradient", shared ["rows"], Grid::ColumnTile(32),
    params { rows: u32, width: u32, accumulate: u32 },
    bindings [x, inverse_rms, dy, dscale];

    /// Rotary position embedding in place, and its pull-back.
    ROTARY = "rotary", shared ["rows"], Grid::Elements,
    params {
        tokens: u32, heads: u32, head_dim: u32, rotary_dim: u32, interleaved: u32, inverse: u32, row_stride: u32,
        row_offset: u32
    },
    bindings [x, cos_table, sin_table, positions];

    /// The product inside a gated MLP.
    GATED_MLP = "gated_mlp", shared ["rows", "sigmoid"], Grid::Elements,
    params { rows: u32, width: u32 },
    bindings [gate_up, y];

    /// Pull-back of [`GATED_MLP`], written over its input.
    GATED_MLP_BACKWARD = "gated_mlp_backward", shared ["rows", "sigmoid"], Grid::Elements,
    params { rows: u32, width: u32 },
    bindings [gate_up, dy];

    /// Softmax of attention scores under the causal mask of packed documents, in place.
    ATTENTION_SOFTMAX = "attention_softmax", shared ["rows", "finite", "reduce"], Grid::Row(4),
    params { heads: u32, rows: u32, cols: u32, row_start: u32, scale: f32 },
    bindings [scores, document_start];

    /// Pull-back of [`ATTENTION_SOFTMAX`] to the unscaled scores.
    ATTENTION_SOFTMAX_BACKWARD = "attention_softmax_backward", shared ["rows", "reduce"], Grid::Row(4),
    params { heads: u32, rows: u32, cols: u32, row_start: u32, scale: f32 },
    bindings [probabilities, dprobabilities];

    /// One AdamW step with decoupled decay.
    ADAMW = "adamw", shared ["rows"], Grid::Elements,
    params {
        count: u32, learning_rate: f32, beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32, bias1: f32, bias2: f32,
        gradient_scale: f32
    },
    bindings [parameter, gradient, first_moment, second_moment];

    /// Inverted dropout from a counter.
    DROPOUT = "dropout", shared ["rows"], Grid::Elements,
    params { count: u32, seed_low: u32, seed_high: u32, keep_probability: f32 },
    bindings [x, y];

    /// Adds a bias to each row, in place.
    ADD_BIAS = "add_bias", shared ["rows"], Grid::Elements,
    params { rows: u32, width: u32 },
    bindings [x, bias];

    /// Adds a multiple of one array to another.
    SCALE_ADD = "scale_add", shared ["rows"], Grid::Elements,
    params { count: u32, scale: f32 },
    bindings [x, y];

    /// Partial sums of squares; `rows` of the launch is the number of groups.
    SUM_SQUARES = "sum_squares", shared ["rows", "reduce"], Grid::Row(4),
    params { count: u32, groups: u32 },
    bindings [x, partial_sums];

    /// Copies or adds a block of columns between arrays of different row lengths.
    COPY_COLUMNS = "copy_columns", shared ["rows"], Grid::Elements,
    params {
        rows: u32, source_stride: u32, source_offset: u32, target_stride: u32, target_offset: u32, width: u32,
        accumulate: u32
    },
    bindings [source_values, target_values];

    /// Matrix products in any layout, for adapters on which burn's are slower; times the number of batches.
    MATMUL = "matmul", shared ["rows"], Grid::Tile(64, 128),
    params {
        rows: u32, columns: u32, inner: u32, batches: u32, left_offset: u32, left_batch: u32, left_row: u32,
        left_step: u32, right_offset: u32, right_batch: u32, right_step: u32, right_column: u32, target_offset: u32,
        target_batch: u32, target_row: u32, accumulate: u32, alpha: f32
    },
    bindings [left_values, right_values, target_values];
}

/// Every kernel: those with a file of their own, then those of [`formats`].
pub const KERNELS: &[Kernel] = &every_kernel();

const fn every_kernel() -> [Kernel; SINGLE.len() + formats::ALL.len()] {
    let mut kernels = [SINGLE[0]; SINGLE.len() + formats::ALL.len()];
    let mut index = 0;
    while index < kernels.len() {
        kernels[index] = match index < SINGLE.len() {
            true => SINGLE[index],
            false => formats::ALL[index - SINGLE.len()].dequantize,
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
        assert_eq!(SCALE_ADD.workgroups(1, 257), 2);
        assert_eq!(LOSS_GRADIENT.workgroups(3, 1025), 6);
        assert_eq!(RMS_NORM_SCALE_GRADIENT.workgroups(1000, 33), 2);
        assert_eq!(ROW_STATS.params_size(), 32);
        assert_eq!(SCALE_ADD.params_size(), 16);
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
