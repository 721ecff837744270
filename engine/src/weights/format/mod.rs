//! The formats that weights are stored in, little-endian, as ggml defines them (`ggml-common.h`, `ggml-quants.c`).
//!
//! A format is one file here: its number and name in GGUF, the layout of its blocks, how they expand to f32, how f32
//! values become blocks where Temper writes them, and which shader part reads them. The list at the head of this file is
//! the only place that names all formats. So a new one is: its file here and its lines in the list, its part in
//! `shaders/formats/`, and its definition in the tests' oracle.

mod bfloat16;
mod block;
mod float16;
mod float32;
mod iq4_nl;
mod iq4_xs;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

use block::Facts;
pub use block::{Levels, QuantiseBlock};
use temper_shaders::formats::FormatKernels;

/// Makes the enum out of the list, with the facts behind each name.
macro_rules! formats {
    ($($(#[$doc:meta])* $format:ident = $file:ident;)*) => {
        /// How a tensor's elements are stored: plain numbers, or blocks as GGUF defines them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum WeightFormat {
            $($(#[$doc])* $format,)*
        }

        impl WeightFormat {
            /// Every format.
            pub const ALL: [Self; [$(Self::$format),*].len()] = [$(Self::$format),*];

            fn facts(self) -> &'static Facts {
                match self {
                    $(Self::$format => &$file::FACTS,)*
                }
            }
        }
    };
}

formats! {
    /// IEEE single precision.
    F32 = float32;
    /// IEEE half precision.
    F16 = float16;
    /// The upper half of an f32.
    Bf16 = bfloat16;
    /// 32 elements: f16 scale, 4-bit values.
    Q4_0 = q4_0;
    /// 32 elements: f16 scale, f16 minimum, 4-bit values.
    Q4_1 = q4_1;
    /// 32 elements: f16 scale, 5-bit values.
    Q5_0 = q5_0;
    /// 32 elements: f16 scale, f16 minimum, 5-bit values.
    Q5_1 = q5_1;
    /// 32 elements: f16 scale, 8-bit values.
    Q8_0 = q8_0;
    /// 256 elements: f16 scale and minimum, sixteen 4-bit scales and minima, 2-bit values.
    Q2K = q2_k;
    /// 256 elements: sixteen 6-bit scales, f16 scale, 3-bit values.
    Q3K = q3_k;
    /// 256 elements: f16 scale and minimum, eight 6-bit scales and minima, 4-bit values.
    Q4K = q4_k;
    /// 256 elements: f16 scale and minimum, eight 6-bit scales and minima, 5-bit values.
    Q5K = q5_k;
    /// 256 elements: sixteen 8-bit scales, f16 scale, 6-bit values.
    Q6K = q6_k;
    /// 32 elements: f16 scale, 4-bit indices of unequally spaced levels.
    Iq4Nl = iq4_nl;
    /// 256 elements: f16 scale, eight 6-bit scales, 4-bit indices of the same levels.
    Iq4Xs = iq4_xs;
}

impl WeightFormat {
    /// Elements in a block; a row of a matrix is a whole number of blocks.
    pub fn block_elements(self) -> usize {
        self.facts().block_elements
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Bytes of so many elements; `None` where they are no whole number of blocks, or too many to count.
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let whole = elements.is_multiple_of(self.block_elements());
        whole.then(|| (elements / self.block_elements()).checked_mul(self.block_bytes())).flatten()
    }

    /// Bytes of a tensor whose rows each are whole blocks; `None` as in [`WeightFormat::bytes_for`].
    pub fn bytes_for_shape(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
        let row = shape.last().copied().unwrap_or(1);
        row.is_multiple_of(self.block_elements()).then(|| self.bytes_for(elements)).flatten()
    }

    /// This format, or, where rows of so many elements are no whole number of its blocks, what llama.cpp takes: Q5_0 in
    /// place of Q4_K, Q8_0 in place of Q6_K, and F16 where blocks of 32 do not fit either.
    pub fn for_rows(self, elements: usize) -> Self {
        let second = match self {
            Self::Q4K => Self::Q5_0,
            Self::Q6K => Self::Q8_0,
            other => other,
        };
        let fits = |format: &Self| elements.is_multiple_of(format.block_elements());
        [self, second].into_iter().find(fits).unwrap_or(Self::F16)
    }

    /// True where an element takes fewer bits than in another format.
    pub fn has_fewer_bits_than(self, other: Self) -> bool {
        self.block_bytes() * other.block_elements() < other.block_bytes() * self.block_elements()
    }

    /// The name that GGUF uses (`Q4_K`, `BF16`).
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Number of the type in GGUF.
    pub fn gguf_type(self) -> u32 {
        self.facts().gguf_type
    }

    /// The format behind GGUF's type number. The message names a type that is not supported, and what to do about it.
    pub fn of_gguf_type(number: u32) -> Result<Self, String> {
        if let Some(format) = Self::ALL.into_iter().find(|format| format.gguf_type() == number) {
            return Ok(format);
        }
        let name = OTHER_TYPES.iter().find(|(other, _)| *other == number).map_or("unknown", |(_, name)| name);
        let supported = Self::ALL.map(Self::name).join(", ");
        Err(format!(
            "type {number} ({name}) is not supported; {supported} are (llama.cpp's llama-quantize converts between types)"
        ))
    }

    /// Where in a block 16-bit floats lie, in bytes. All other bytes mean finite numbers whatever they are, so this is what
    /// it takes to make legal blocks out of random bytes.
    pub fn halves(self) -> &'static [usize] {
        self.facts().halves
    }

    /// Expands whole blocks to f32, on all cores; `out` is written completely.
    ///
    /// # Panics
    /// Where `stored` and `out` are not equally many whole blocks.
    pub fn expand(self, stored: &[u8], out: &mut [f32]) {
        (self.facts().expand)(stored, out);
    }

    /// What [`WeightFormat::expand`] calls, for those who ask once and expand often.
    pub fn expander(self) -> fn(&[u8], &mut [f32]) {
        self.facts().expand
    }

    /// All elements of whole blocks in f32.
    ///
    /// # Panics
    /// Where `stored` is no whole number of blocks.
    pub fn to_f32(self, stored: &[u8]) -> Vec<f32> {
        assert!(stored.len().is_multiple_of(self.block_bytes()), "{} is stored in whole blocks", self.name());
        let mut out = vec![0.0; stored.len() / self.block_bytes() * self.block_elements()];
        self.expand(stored, &mut out);
        out
    }

    /// How a block is written; `None` where Temper reads the format but does not write it.
    pub(crate) fn quantise_block(self) -> Option<QuantiseBlock> {
        self.facts().quantise
    }

    /// The levels that a block's elements can be put on one by one; `None` for other formats.
    pub fn levels(self) -> Option<&'static Levels> {
        self.facts().levels
    }

    /// The kernels that read the format; `None` for f32, which devices hold unpacked.
    pub fn kernels(self) -> Option<&'static FormatKernels> {
        self.facts().kernels
    }
}

/// The other types of GGUF, for messages.
const OTHER_TYPES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_gives_as_many_elements_as_its_blocks_hold() {
        for format in WeightFormat::ALL {
            let bytes = vec![0x11; 3 * format.block_bytes()];
            assert_eq!(format.to_f32(&bytes).len(), 3 * format.block_elements(), "{format:?}");
        }
    }

    #[test]
    fn rows_must_be_whole_blocks() {
        assert_eq!(WeightFormat::Q4_1.bytes_for(64), Some(40));
        assert_eq!(WeightFormat::Q4_1.bytes_for(33), None);
        assert_eq!(WeightFormat::Q6K.bytes_for_shape(&[2, 256]), Some(420));
        assert_eq!(WeightFormat::Q6K.bytes_for_shape(&[256, 2]), None);
        assert_eq!(WeightFormat::F32.bytes_for(usize::MAX), None);
        assert_eq!(WeightFormat::F32.bytes_for_shape(&[usize::MAX, 2]), None);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back_as_in_llama_cpp() {
        let found = |format: WeightFormat| [512, 576, 97].map(|row| format.for_rows(row));
        assert_eq!(found(WeightFormat::Q4K), [WeightFormat::Q4K, WeightFormat::Q5_0, WeightFormat::F16]);
        assert_eq!(found(WeightFormat::Q6K), [WeightFormat::Q6K, WeightFormat::Q8_0, WeightFormat::F16]);
        assert_eq!(found(WeightFormat::Q8_0), [WeightFormat::Q8_0, WeightFormat::Q8_0, WeightFormat::F16]);
        assert_eq!(found(WeightFormat::F32), [WeightFormat::F32; 3]);
    }

    #[test]
    fn a_number_of_gguf_is_one_format_or_one_named_refusal() {
        for format in WeightFormat::ALL {
            assert_eq!(WeightFormat::of_gguf_type(format.gguf_type()), Ok(format));
        }
        for (number, name) in OTHER_TYPES.iter().copied() {
            let problem = WeightFormat::of_gguf_type(number).unwrap_err();
            assert!(problem.starts_with(&format!("type {number} ({name}) is not supported; F32, F16, ")), "{problem}");
        }
        assert!(WeightFormat::of_gguf_type(4).unwrap_err().contains("unknown"));
        assert_eq!(WeightFormat::of_gguf_type(14), Ok(WeightFormat::Q6K));
    }

    #[test]
    fn every_shader_part_belongs_to_the_format_of_its_name() {
        let parts: Vec<String> = WeightFormat::ALL
            .into_iter()
            .filter_map(|format| format.kernels().map(|kernels| (format.name().to_lowercase(), kernels.part)))
            .map(|(name, part)| {
                assert_eq!(name, part);
                name
            })
            .collect();
        let mut sorted = parts.clone();
        sorted.sort();
        let listed: Vec<&str> = temper_shaders::formats::ALL.iter().map(|kernels| kernels.part).collect();
        assert_eq!(sorted, listed, "left: the formats, right: shaders/formats/*.wgsl");
    }
}
