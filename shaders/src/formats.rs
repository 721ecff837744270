//! The kernels that read stored weights: an entry that is the same for all formats behind the part that says, for one
//! format, what element i of the matrix in `packed_words` is (`fn element(i: u32) -> f32`).
//!
//! Every file of `formats/` is a constant here, in capitals; the build script lists them.

use std::marker::PhantomData;

use crate::{Grid, InOrder, Kernel, Scalar, Storage, TypedKernel, Uniform};

uniform!(
    "dequantize",
    DequantizeParams {
        /// Elements to write.
        count: u32,
        /// The first of them in the matrix.
        first: u32,
        /// The first of them in the result.
        start: u32
    }
);
storage!("dequantize", DequantizeBindings { packed_words, out });

/// The kernels that read one weight format. Another entry that reads elements is another field.
#[derive(Clone, Copy, Debug)]
pub struct FormatKernels {
    /// Stem of the format's file in `formats/`.
    pub part: &'static str,
    /// All elements to f32: `dequantize.wgsl`.
    pub dequantize: TypedKernel<DequantizeParams, DequantizeBindings>,
}

/// Text of a file of this crate. The path is whole, because the list below lies elsewhere.
macro_rules! text {
    ($($stem:literal),*) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $($stem,)* ".wgsl"))
    };
}

macro_rules! formats {
    ($($name:ident = $part:literal;)*) => {
        $(
            #[doc = concat!("The kernels with `formats/", $part, ".wgsl`.")]
            pub const $name: FormatKernels = FormatKernels {
                part: $part,
                dequantize: TypedKernel {
                    kernel: Kernel {
                        stem: concat!("dequantize_", $part),
                        file: "dequantize",
                        source: concat!(
                            text!("shared/rows"),
                            text!("shared/bytes"),
                            text!("formats/", $part),
                            text!("dequantize")
                        ),
                        shared: &["rows", "bytes"],
                        format: Some($part),
                        workgroup_size: 256,
                        grid: Grid::Elements,
                        bindings: <DequantizeBindings as Storage>::NAMES,
                        params: <DequantizeParams as Uniform>::FIELDS,
                        param_types: <DequantizeParams as Uniform>::TYPES,
                        param_offsets: <DequantizeParams as Uniform>::OFFSETS,
                    },
                    types: PhantomData,
                },
            };
        )*
        /// Every format, by the name of its part.
        pub const ALL: &[FormatKernels] = &[$($name),*];
    };
}

include!(concat!(env!("OUT_DIR"), "/formats.rs"));
