//! Which kernel multiplies: by the device, by the shape, and on hardware by what was measured.
//!
//! Software adapters, where barriers and workgroup memory cost more than they save, have one kernel for all but few rows. Hardware
//! has a tiled one, one for few rows or columns and, where it lists cooperative matrices with f16 operands and f32 sums,
//! one for tensor cores, of halves or of two halves a number. Which of them is fastest for what depends on the device; natively
//! a [calibration](super::calibration) finds out, after each has shown that it computes right.

use temper_shaders::rests;

use super::cpu::matmul::Sizes;
use super::launch::Gpu;
use crate::settings::choice;

choice! {
    /// In which precision matrices are multiplied; sums are always in single precision.
    pub enum Compute {
        /// Half precision on tensor cores where the device has them and is faster so; else single precision.
        Auto = "auto",
        /// Single precision.
        F32 = "f32",
        /// Half precision on tensor cores, with a scale for each row; logits stay in single precision.
        F16 = "f16",
        /// Half precision with what it rounds away beside it, as a second half of each number: three products for one, and nearly
        /// single precision. Auto never takes it, since it is three times the work of f16.
        Split = "split",
    }
}

impl Compute {
    /// The kernel that wide products have under it whatever it takes, where it asks for one.
    pub(crate) fn demanded(self) -> Option<Multiplier> {
        match self {
            Self::F16 => Some(Multiplier::Cooperative),
            Self::Split => Some(Multiplier::Split),
            Self::Auto | Self::F32 => None,
        }
    }

    /// Whether a kernel may be taken under it.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn admits(self, multiplier: Multiplier) -> bool {
        match multiplier {
            Multiplier::Cooperative => matches!(self, Self::Auto | Self::F16),
            Multiplier::Split => self == Self::Split,
            Multiplier::Software | Multiplier::Tiled | Multiplier::FewRows => true,
        }
    }
}

/// A WGSL kernel for matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplier {
    /// `matmul_vectors.wgsl`, or `matmul.wgsl` where strides do not permit it: without workgroup memory.
    Software,
    /// `matmul_tiled.wgsl`, which reads four numbers at a time where strides permit: tiles in workgroup memory.
    Tiled,
    /// `matmul_few_rows.wgsl`: an element's terms shared among invocations.
    FewRows,
    /// `matmul_cooperative.wgsl`: f16 operands on tensor cores.
    Cooperative,
    /// The same of operands that are two halves each, the f16 and what rounding left of it: three products for one.
    Split,
}

impl Multiplier {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cooperative, Self::Split, Self::Tiled, Self::Software, Self::FewRows];

    /// The one that is called so.
    #[cfg(not(target_family = "wasm"))]
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|multiplier| multiplier.name() == name)
    }

    /// What benchmarks and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Tiled => "tiled",
            Self::FewRows => "few_rows",
            Self::Cooperative => "cooperative",
            Self::Split => "split",
        }
    }

    /// How many products of halves on tensor cores are one of its own: none in single precision.
    pub fn segments(self) -> usize {
        match self {
            Self::Software | Self::Tiled | Self::FewRows => 0,
            Self::Cooperative => 1,
            Self::Split => rests::SEGMENTS,
        }
    }

    /// Largest error relative to the largest element that rounding makes.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn tolerance(self) -> f32 {
        match self {
            Self::Software | Self::Tiled | Self::FewRows => 2e-5,
            Self::Cooperative => 2e-3,
            // Tensor cores may cut their sums off, which of long ones is more than rounding them.
            Self::Split => 5e-5,
        }
    }
}

/// Rows up to which a product is [`Class::Few`].
pub(super) const FEW: usize = 8;
/// Rows or columns up to which it is [`Class::Thin`].
const THIN: usize = 32;

/// Shapes for which the same kernel is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// At most 8 rows: generation.
    Few,
    /// At most 32 rows or columns: the thin sides of an adapter.
    Thin,
    /// Everything else.
    Wide,
    /// The same where single precision is demanded, or there are too few terms to be worth halving.
    Exact,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Few, Self::Thin, Self::Wide, Self::Exact];

    fn of(Sizes { m, n, k }: Sizes, exact: bool) -> Self {
        if m <= FEW {
            Self::Few
        } else if m.min(n) <= THIN {
            Self::Thin
        } else if exact || k < THIN {
            Self::Exact
        } else {
            Self::Wide
        }
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Thin => "thin",
            Self::Wide => "wide",
            Self::Exact => "exact",
        }
    }

    /// Sizes that stand for it in a calibration, of which the first that a layer has are the terms.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn sizes(self) -> Sizes {
        match self {
            Self::Few => Sizes { m: 1, n: 4096, k: 2048 },
            Self::Thin => Sizes { m: 512, n: 16, k: 2048 },
            Self::Wide | Self::Exact => Sizes { m: 512, n: 2048, k: 1024 },
        }
    }

    /// Larger ones of its kind, where a device is done with those too soon to be timed by them.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn larger(self) -> Option<Sizes> {
        matches!(self, Self::Wide | Self::Exact).then_some(Sizes { m: 2048, n: 2560, k: 2560 })
    }

    /// Kernels that may be best for it.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn candidates(self) -> &'static [Multiplier] {
        match self {
            Self::Few | Self::Thin => &[Multiplier::FewRows, Multiplier::Tiled, Multiplier::Software],
            Self::Exact => &[Multiplier::Tiled, Multiplier::Software],
            Self::Wide => &[Multiplier::Tiled, Multiplier::Cooperative, Multiplier::Split, Multiplier::Software],
        }
    }
}

/// Which kernel multiplies what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice([Multiplier; 4]);

impl Choice {
    /// Of a device before anything is measured.
    pub fn unmeasured(software: bool) -> Self {
        // On lavapipe few rows take a third of the time; browsers' software is slower at barriers.
        let few = if cfg!(target_family = "wasm") { Multiplier::Software } else { Multiplier::FewRows };
        match software {
            true => Self([few, Multiplier::Software, Multiplier::Software, Multiplier::Software]),
            false => Self([Multiplier::FewRows, Multiplier::FewRows, Multiplier::Tiled, Multiplier::Tiled]),
        }
    }

    /// The kernel for a product of these sizes; one in single precision where `exact`.
    pub fn of(&self, sizes: Sizes, exact: bool) -> Multiplier {
        match self.for_class(Class::of(sizes, exact)) {
            halving if exact && halving.segments() > 0 => self.for_class(Class::Exact),
            multiplier => multiplier,
        }
    }

    /// The kernels' names, in the order of [`Class::ALL`].
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn names(&self) -> String {
        self.0.map(Multiplier::name).join(" ")
    }

    /// The choice that has these names; none where there is another kernel among them or their number is wrong, or one could not
    /// be its class's.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn from_names(names: &str) -> Option<Self> {
        let named: Vec<Multiplier> = names.split(' ').map(Multiplier::from_name).collect::<Option<_>>()?;
        let named: [Multiplier; 4] = named.try_into().ok()?;
        let fits = Class::ALL.iter().zip(named).all(|(class, multiplier)| class.candidates().contains(&multiplier));
        fits.then_some(Self(named))
    }

    /// The kernel for shapes of a class.
    pub fn for_class(&self, class: Class) -> Multiplier {
        self.0[class as usize]
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn with(mut self, class: Class, multiplier: Multiplier) -> Self {
        self.0[class as usize] = multiplier;
        self
    }
}

/// What a device knows of products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Products {
    /// Rows, columns and terms that its tensor cores multiply together; none without them.
    pub(crate) tile: Option<u32>,
    /// Which kernel multiplies what, where that was settled.
    pub(crate) choice: Option<Choice>,
    /// For what it was settled.
    pub(crate) compute: Compute,
    /// Whether attention is on tensor cores too, which then compute it right and sooner.
    pub(crate) attention: bool,
}

impl Products {
    /// Of a device for which nothing is settled.
    pub(crate) fn of(gpu: Option<&Gpu>) -> Self {
        Self { tile: gpu.and_then(cooperative_tile), choice: None, compute: Compute::Auto, attention: false }
    }
}

/// The larger of the sizes that a kernel of ours is written for and the device lists, with f16 operands and f32 sums.
fn cooperative_tile(gpu: &Gpu) -> Option<u32> {
    #[cfg(target_family = "wasm")]
    {
        let _ = gpu;
        None
    }
    #[cfg(not(target_family = "wasm"))]
    {
        use wgpu::{CooperativeScalarType, Features};
        let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
        if !gpu.device_features().contains(needed) {
            return None;
        }
        let listed = gpu.adapter().cooperative_matrix_properties();
        let has = |tile: &u32| {
            listed.iter().any(|p| {
                [p.m_size, p.n_size, p.k_size] == [*tile; 3]
                    && p.ab_type == CooperativeScalarType::F16
                    && p.cr_type == CooperativeScalarType::F32
            })
        };
        [16, 8].into_iter().find(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_few_rows_or_terms_or_must_be_exact_is_never_halved() {
        let of = |m, n, k, exact| Class::of(Sizes { m, n, k }, exact);
        assert_eq!([of(1, 4096, 64, false), of(8, 8, 8, true)], [Class::Few; 2]);
        assert_eq!([of(9, 4096, 64, false), of(4096, 32, 64, true)], [Class::Thin; 2]);
        assert_eq!([of(33, 33, 31, false), of(512, 512, 512, true)], [Class::Exact; 2]);
        assert_eq!(of(33, 33, 32, false), Class::Wide);
    }

    #[test]
    fn a_choice_is_read_as_it_was_written_and_no_other_text_is_one() {
        let wide = |multiplier| Choice::unmeasured(true).with(Class::Wide, multiplier);
        for choice in [Choice::unmeasured(false), wide(Multiplier::Cooperative), wide(Multiplier::Split)] {
            assert_eq!(Choice::from_names(&choice.names()), Some(choice));
        }
        let exact_in_halves = "few_rows few_rows tiled cooperative";
        for wrong in ["", "tiled", "few_rows few_rows tiled", "few_rows few_rows tiled fast", exact_in_halves] {
            assert_eq!(Choice::from_names(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_must_be_exact_is_so_whatever_its_class_takes() {
        for multiplier in [Multiplier::Cooperative, Multiplier::Split] {
            let halving = Choice([multiplier, multiplier, multiplier, Multiplier::Tiled]);
            for m in [1, 20, 64] {
                let sizes = Sizes { m, n: 64, k: 64 };
                assert_eq!([halving.of(sizes, false), halving.of(sizes, true)], [multiplier, Multiplier::Tiled]);
            }
        }
    }

    #[test]
    fn a_kernel_on_tensor_cores_is_taken_under_its_own_precision_and_two_halves_never_by_auto() {
        let admitted = |compute: Compute| {
            let halving = [Multiplier::Cooperative, Multiplier::Split].into_iter();
            halving.filter(|multiplier| compute.admits(*multiplier)).collect::<Vec<_>>()
        };
        assert!(admitted(Compute::F32).is_empty());
        assert_eq!(admitted(Compute::Auto), [Multiplier::Cooperative]);
        for compute in [Compute::F16, Compute::Split] {
            assert_eq!(admitted(compute), [compute.demanded().expect("it asks for one")]);
        }
        assert_eq!([Compute::Auto, Compute::F32].map(Compute::demanded), [None; 2]);
    }
}
