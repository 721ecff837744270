//! The kernels that read stored weights: entries that are the same for all formats behind the part that says, for one
//! format, what element i of the matrix in `packed_words` is (`fn element(i: u32) -> f32`). Two of them are kernels that
//! also take in plain numbers, with another part in front.
//!
//! Every file of `formats/` is a constant here, in capitals; the build script lists them.

use std::marker::PhantomData;

use crate::{Grid, HalfRowsParams, InOrder, Kernel, MatmulParams, Scalar, Storage, TypedKernel, Uniform};

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
storage!("matmul_few_rows", MatmulStoredBindings { left_values, packed_words, target_values });
storage!("half_rows", HalfRowsStoredBindings { packed_words, halves, exponents });

/// The kernels that read one weight format. Another entry that reads elements is another field.
#[derive(Clone, Copy, Debug)]
pub struct FormatKernels {
    /// Stem of the format's file in `formats/`.
    pub part: &'static str,
    /// All elements to f32: `dequantize.wgsl`.
    pub dequantize: TypedKernel<DequantizeParams, DequantizeBindings>,
    /// A product with few rows, by the matrix as it is: `matmul_few_rows.wgsl`.
    pub matmul_few_rows: TypedKernel<MatmulParams, MatmulStoredBindings>,
    /// Its rows or columns in half precision: `half_rows.wgsl`.
    pub half_rows: TypedKernel<HalfRowsParams, HalfRowsStoredBindings>,
}

impl FormatKernels {
    /// How many kernels a format has.
    pub const COUNT: usize = 3;

    /// They.
    pub const fn all(&self) -> [Kernel; Self::COUNT] {
        [self.dequantize.kernel, self.matmul_few_rows.kernel, self.half_rows.kernel]
    }
}

/// Text of a file of this crate. The path is whole, because the list below lies elsewhere.
macro_rules! text {
    ($($stem:literal),*) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $($stem,)* ".wgsl"))
    };
}

/// A kernel that reads elements of one format.
macro_rules! entry {
    ($file:literal, $part:literal, shared [$($shared:literal),*], $grid:expr, $params:ident, $bindings:ident) => {
        typed_kernel!(
            concat!($file, "_", $part),
            $file,
            concat!($(text!("shared/", $shared),)* text!("formats/", $part), text!($file)),
            shared &[$($shared),*],
            format Some($part),
            invocations 256,
            $grid,
            $params,
            $bindings
        )
    };
}

macro_rules! formats {
    ($($name:ident = $part:literal;)*) => {
        $(
            #[doc = concat!("The kernels with `formats/", $part, ".wgsl`.")]
            pub const $name: FormatKernels = FormatKernels {
                part: $part,
                dequantize: entry!(
                    "dequantize", $part, shared ["rows", "bytes", "stored_values"],
                    Grid::Elements, DequantizeParams, DequantizeBindings
                ),
                matmul_few_rows: entry!(
                    "matmul_few_rows", $part, shared ["rows", "stored_right", "bytes", "product"],
                    Grid::Tile(8, 32), MatmulParams, MatmulStoredBindings
                ),
                half_rows: entry!(
                    "half_rows", $part, shared ["rows", "bytes", "stored_values", "halves"],
                    Grid::Rows(8), HalfRowsParams, HalfRowsStoredBindings
                ),
            };
        )*
        /// Every format, by the name of its part.
        pub const ALL: &[FormatKernels] = &[$($name),*];
    };
}

include!(concat!(env!("OUT_DIR"), "/formats.rs"));
