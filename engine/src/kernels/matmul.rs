//! Matrix products: of matrices as they are, transposed, or a range of their columns; new, or added to something.
//!
//! A [`Product`] says what is multiplied, [`Product::run`] with what: on the CPU our GEMM on the tensors' own memory,
//! on a GPU the WGSL kernel that is best for the device and the shape ([`Multiplier`]), both with strides instead of copies.
//! A frozen matrix is expanded as it is used: a rectangle at a time on the CPU; on a GPU inside the kernel where there are few
//! rows, into half precision for tensor cores, else in f32 so many of its rows at once as fit a tile.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};
use burn_wgpu::CubeTensor;
use temper_shaders::formats::MatmulStoredBindings;
use temper_shaders::{
    HalfRowsParams, Kernel, MATMUL, MATMUL_FEW_ROWS, MATMUL_TILED, MATMUL_TILED_VECTORS, MATMUL_VECTORS,
    MatmulBindings, MatmulParams, TypedKernel, rests,
};

use super::cpu::matmul::{Layout, RowsOf, Segment, Sizes, Stored, half_rows, matmul, matmul_few_rows, matmul_stored};
use super::dequantize::Piece;
use super::launch::{Binding, size};
use super::multiplier::{FEW, Multiplier};
use super::sample::{Case, matrix};
use super::tensor::{
    empty, empty_gpu, flat, from_cube, from_flex, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
use super::{Columns, Packed};
use crate::device::Device;
use crate::error::Result;

/// A matrix as a product reads it; with `D` = 3 a batch of matrices along the first dimension.
#[derive(Clone)]
pub struct Operand<const D: usize> {
    values: Values<D>,
    /// Columns of the stored matrix, all of them where `None`.
    columns: Option<Columns>,
    transposed: bool,
}

/// What a matrix is made of.
#[derive(Clone)]
enum Values<const D: usize> {
    Tensor(Tensor<D>),
    /// Of a frozen weight: always the right side of a product.
    Packed(Packed),
    /// Some rows of one on a GPU: for kernels that read them as they are stored.
    Piece(Piece),
}

impl<const D: usize> Values<D> {
    fn dims(&self) -> [usize; D] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Packed(packed) => matrix_dims(packed.rows(), packed.columns()),
            Self::Piece(piece) => matrix_dims(piece.rows, piece.columns),
        }
    }

    /// The tensor, where it is one: frozen weights are taken apart before ([`Product::by_rows`]).
    fn into_tensor(self) -> Tensor<D> {
        match self {
            Self::Tensor(tensor) => tensor,
            Self::Packed(_) | Self::Piece(..) => panic!("a frozen matrix where a tensor is needed"),
        }
    }
}

/// Dimensions of a single matrix.
fn matrix_dims<const D: usize>(rows: usize, columns: usize) -> [usize; D] {
    let mut dims = [1; D];
    (dims[D - 2], dims[D - 1]) = (rows, columns);
    dims
}

impl<const D: usize> Operand<D> {
    /// Its transpose.
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    fn view(&self) -> View {
        let dims = self.values.dims();
        let (stored, stride) = (dims[D - 2], dims[D - 1]);
        let Columns { mut offset, width } = self.columns.unwrap_or(Columns { offset: 0, width: stride });
        assert!(offset + width <= stride, "columns {offset} .. {} of a matrix of {stride}", offset + width);
        if let Values::Piece(piece) = &self.values {
            offset += piece.first * piece.columns;
        }
        View {
            batches: dims[..D - 2].iter().product(),
            batch: stored * stride,
            offset,
            layout: Layout { row_stride: stride, transposed: self.transposed },
            shape: if self.transposed { [width, stored] } else { [stored, width] },
        }
    }
}

impl<const D: usize> From<&Tensor<D>> for Operand<D> {
    fn from(tensor: &Tensor<D>) -> Self {
        Self { values: Values::Tensor(tensor.clone()), columns: None, transposed: false }
    }
}

impl From<&Packed> for Operand<2> {
    fn from(packed: &Packed) -> Self {
        Self { values: Values::Packed(packed.clone()), columns: None, transposed: false }
    }
}

/// How a tensor enters a product other than as it is.
pub trait AsOperand<const D: usize> {
    /// Its transpose.
    fn transposed(&self) -> Operand<D>;

    /// Some of its columns.
    fn columns(&self, columns: Columns) -> Operand<D>;
}

impl<const D: usize> AsOperand<D> for Tensor<D> {
    fn transposed(&self) -> Operand<D> {
        Operand::from(self).transposed()
    }

    fn columns(&self, columns: Columns) -> Operand<D> {
        Operand { columns: Some(columns), ..Operand::from(self) }
    }
}

/// Where an operand's numbers lie in its tensor.
struct View {
    batches: usize,
    /// Elements between two batches.
    batch: usize,
    /// First element.
    offset: usize,
    layout: Layout,
    /// Rows and columns as the product reads them.
    shape: [usize; 2],
}

/// Where a product goes.
enum Target<const D: usize> {
    /// A tensor of its own.
    New,
    /// Added to a tensor of its shape.
    Sum(Tensor<D>),
    /// Added to columns of a wider tensor.
    Columns(Tensor<D>, Columns),
    /// In place of columns of a wider tensor: a part of a product, on a GPU.
    Place(Tensor<D>, Columns),
}

impl<const D: usize> Target<D> {
    /// The tensor that is written, `new` where that is one of its own; the first column of it; whether it is added to.
    fn opened(self, new: impl FnOnce() -> Tensor<D>) -> (Tensor<D>, usize, bool) {
        match self {
            Self::New => (new(), 0, false),
            Self::Sum(sum) => (sum, 0, true),
            Self::Columns(whole, columns) => (whole, columns.offset, true),
            Self::Place(whole, columns) => (whole, columns.offset, false),
        }
    }
}

/// `alpha left right`, `left [.., m, k]`, `right [.., k, n]`: a new tensor `[.., m, n]`, or added to one.
///
/// ```text
/// let y = Product::of(x, weight.transposed()).run(device)?;
/// let gradient = Product::of(dy.columns(part).transposed(), x).times(scale).added_to(gradient).run(device)?;
/// ```
pub struct Product<const D: usize> {
    left: Operand<D>,
    right: Operand<D>,
    alpha: f32,
    into: Target<D>,
    by: By,
}

/// Who computes a product on a GPU.
#[derive(Clone, Copy)]
enum By {
    /// The kernel that is best.
    Best,
    /// The best of those in single precision.
    Exact,
    /// This one: for tests and benchmarks.
    Only(Multiplier),
}

impl<const D: usize> Product<D> {
    /// `left right`.
    pub fn of(left: impl Into<Operand<D>>, right: impl Into<Operand<D>>) -> Self {
        Self { left: left.into(), right: right.into(), alpha: 1.0, into: Target::New, by: By::Best }
    }

    /// In single precision, whatever the run computes in: for logits, out of which the gate and the loss are made.
    pub fn exactly(self) -> Self {
        Self { by: By::Exact, ..self }
    }

    /// On a GPU by this kernel and no other.
    pub fn by(self, multiplier: Multiplier) -> Self {
        Self { by: By::Only(multiplier), ..self }
    }

    /// The product times `alpha`.
    pub fn times(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Added to `sum [.., m, n]`; a new tensor where that is `None`.
    pub fn added_to(self, sum: impl Into<Option<Tensor<D>>>) -> Self {
        let into = sum.into().map_or(Target::New, Target::Sum);
        Self { into, ..self }
    }

    /// Added to columns of `whole [.., m, width]`, as many as the product has.
    pub fn added_to_columns(self, whole: Tensor<D>, columns: Columns) -> Self {
        Self { into: Target::Columns(whole, columns), ..self }
    }

    /// Computes it. What it is added to is written in place where nobody else holds it.
    ///
    /// # Errors
    /// Device errors.
    ///
    /// # Panics
    /// Where shapes do not fit each other.
    pub fn run(self, device: &Device) -> Result<Tensor<D>> {
        match (device.is_cpu(), &self.right.values) {
            (true, _) => {
                let (sizes, _) = Self::sizes(&self.left.view(), &self.right.view());
                let kernel = self.multiplier(device, sizes);
                // Only where a test asked for what tensor cores would make of it ([`Device::halving_wide`]).
                if kernel.segments() > 0 { self.halved_on_cpu(device, kernel) } else { self.on_cpu(device) }
            }
            (false, Values::Packed(packed)) => {
                let packed = packed.clone();
                self.by_rows(device, &packed)
            }
            (false, Values::Tensor(_) | Values::Piece(..)) => self.in_wgsl(device),
        }
    }

    /// With operands rounded as this kernel on tensor cores gets them.
    fn halved_on_cpu(self, device: &Device, kernel: Multiplier) -> Result<Tensor<D>> {
        let split = kernel == Multiplier::Split;
        let Self { left, right, alpha, into, .. } = self;
        let rounded = |operand: Operand<D>, of_right: bool| -> Result<Operand<D>> {
            let view = operand.view();
            let [mut rows, mut inner] = view.shape;
            let (mut row, mut step) = view.layout.strides();
            if of_right {
                ((rows, inner), (row, step)) = ((inner, rows), (step, row));
            }
            let values = match operand.values {
                Values::Packed(packed) => on_cpu(&packed.dense(device)?),
                values => on_cpu(&values.into_tensor()),
            };
            let sizes = [rows, view.batches, inner, inner, view.offset, view.batch, row, step].map(size);
            let [rows, batches, inner, padded, offset, batch, row, step] = sizes;
            let rests = rests_of(split, of_right);
            let params = HalfRowsParams { rows, batches, inner, padded, offset, batch, row, step, rests };
            let mut dims = [view.batches; D];
            (dims[D - 2], dims[D - 1]) = (rows as usize, inner as usize);
            let values = Tensor::from_data(TensorData::new(half_rows(params, slice(&values)), dims), device.burn());
            Ok(Operand { values: Values::Tensor(values), columns: None, transposed: of_right })
        };
        Self { left: rounded(left, false)?, right: rounded(right, true)?, alpha, into, by: By::Exact }.on_cpu(device)
    }

    /// Who computes a product of these sizes on a GPU.
    fn multiplier(&self, device: &Device, sizes: Sizes) -> Multiplier {
        match self.by {
            By::Only(multiplier) => multiplier,
            By::Best => device.choice().of(sizes, false),
            By::Exact => device.choice().of(sizes, true),
        }
    }

    /// With a frozen matrix on a GPU: some of its rows at a time, as they are stored where the kernel reads them so, else in
    /// f32 as many as fit into one tile of the device.
    fn by_rows(self, device: &Device, packed: &Packed) -> Result<Tensor<D>> {
        assert!(self.right.columns.is_none(), "columns of a frozen matrix");
        let (sizes, _) = Self::sizes(&self.left.view(), &self.right.view());
        let kernel = self.multiplier(device, sizes);
        let Self { left, right, alpha, into, .. } = self;
        // Of all of it the same kernel, whatever the sizes of a part.
        let by = By::Only(kernel);
        let whole = packed.pieces(0..packed.rows());
        // Few rows expand an element once for each 8 of the result.
        let few = kernel == Multiplier::FewRows && right.transposed && sizes.m <= FEW;
        let as_stored = (few || kernel.segments() > 0) && whole.iter().all(|piece| piece.kernels().is_some());
        // Two halves a number, three times, are more than the number.
        let element_bytes = (2 * kernel.segments() as u64).max(4);
        let tiles: Vec<(Range<usize>, Option<Piece>)> = match as_stored {
            true if few => with_rows(0, whole).collect(),
            true => {
                let tile = |rows: Range<usize>| with_rows(rows.start, packed.pieces(rows));
                packed.tiles(device, element_bytes).into_iter().flat_map(tile).collect()
            }
            false => packed.tiles(device, element_bytes).into_iter().map(|rows| (rows, None)).collect(),
        };
        let operand = |rows: &Range<usize>, piece: Option<Piece>| -> Result<Operand<D>> {
            let values = match piece {
                Some(piece) => Values::Piece(piece),
                None => {
                    let dims = matrix_dims(rows.len(), packed.columns());
                    Values::Tensor(packed.dense_rows(device, rows.clone())?.reshape(dims))
                }
            };
            Ok(Operand { values, columns: None, transposed: right.transposed })
        };
        if let [(rows, piece)] = tiles.as_slice() {
            return Self { left, right: operand(rows, piece.clone())?, alpha, into, by }.run(device);
        }
        if !right.transposed {
            // Each takes columns of the left matrix and is added to what the others gave.
            assert!(!left.transposed, "a transposed matrix by a frozen one");
            let offset = left.columns.map_or(0, |columns| columns.offset);
            let mut into = into;
            for (rows, piece) in tiles {
                let columns = Some(Columns { offset: offset + rows.start, width: rows.len() });
                let left = Operand { columns, ..left.clone() };
                let of_whole = match &into {
                    Target::Columns(_, columns) | Target::Place(_, columns) => Some(*columns),
                    Target::New | Target::Sum(_) => None,
                };
                let sum = Self { left, right: operand(&rows, piece)?, alpha, into, by }.run(device)?;
                into = match of_whole {
                    Some(columns) => Target::Columns(sum, columns),
                    None => Target::Sum(sum),
                };
            }
            return match into {
                Target::Sum(sum) | Target::Columns(sum, _) => Ok(sum),
                _ => panic!("a frozen matrix without rows"),
            };
        }
        // Each gives columns of the result.
        let (mut target, offset, added) = into.opened(|| {
            let mut dims = left.values.dims();
            (dims[D - 2], dims[D - 1]) = (left.view().shape[0], packed.rows());
            empty(device, dims)
        });
        for (rows, piece) in tiles {
            let columns = Columns { offset: offset + rows.start, width: rows.len() };
            let into = if added { Target::Columns(target, columns) } else { Target::Place(target, columns) };
            target = Self { left: left.clone(), right: operand(&rows, piece)?, alpha, into, by }.run(device)?;
        }
        Ok(target)
    }

    /// Rows, columns and depth of each product, and how many there are.
    fn sizes(left: &View, right: &View) -> (Sizes, usize) {
        let ([m, k], [depth, n]) = (left.shape, right.shape);
        assert!(k == depth && left.batches == right.batches, "a product of {m} x {k} by {depth} x {n}");
        (Sizes { m, n, k }, left.batches)
    }

    /// Shape of a new tensor for products of these sizes.
    fn dims(&self, Sizes { m, n, .. }: Sizes) -> [usize; D] {
        let mut dims = self.left.values.dims();
        (dims[D - 2], dims[D - 1]) = (m, n);
        dims
    }

    fn on_cpu(self, device: &Device) -> Result<Tensor<D>> {
        let (left, right) = (self.left.view(), self.right.view());
        let (sizes, batches) = Self::sizes(&left, &right);
        let dims = self.dims(sizes);
        let (target, offset, accumulate) = self.into.opened(|| empty(device, dims));
        let stride = target.dims()[D - 1];
        let (a, mut c) = (on_cpu(&self.left.values.into_tensor()), into_cpu(target));
        let (a, values) = (slice(&a), slice_mut(&mut c));
        let b = match self.right.values {
            Values::Tensor(tensor) => on_cpu(&tensor),
            Values::Packed(packed) => {
                assert!(self.right.columns.is_none(), "columns of a frozen matrix");
                let expand = |rows, columns, out: &mut [f32]| packed.expand(rows, columns, out);
                let (rows, columns, block) = (packed.rows(), packed.columns(), packed.block_elements());
                let right = Stored { expand: &expand, rows, columns, block, transposed: self.right.transposed };
                let (a, into) = (&a[left.offset..], &mut values[offset..]);
                matmul_stored(a, left.layout, &right, sizes.m, self.alpha, accumulate, into, stride);
                return Ok(from_flex(c));
            }
            Values::Piece(..) => panic!("a piece of a GPU's matrix on the CPU"),
        };
        let b = slice(&b);
        for g in 0..batches {
            let a = &a[g * left.batch + left.offset..];
            let b = &b[g * right.batch + right.offset..];
            let c = &mut values[g * sizes.m * stride + offset..];
            matmul(a, left.layout, b, right.layout, sizes, self.alpha, accumulate, c, stride);
        }
        Ok(from_flex(c))
    }

    fn in_wgsl(self, device: &Device) -> Result<Tensor<D>> {
        let (left, right) = (self.left.view(), self.right.view());
        let (sizes, batches) = Self::sizes(&left, &right);
        let dims = self.dims(sizes);
        let kernel = self.multiplier(device, sizes);
        let a = on_gpu(&self.left.values.into_tensor());
        let b = match self.right.values {
            Values::Piece(piece) => Right::Stored(piece),
            values => Right::Plain(on_gpu(&values.into_tensor())),
        };
        let (target, offset, accumulate) = self.into.opened(|| from_cube(empty_gpu(&a, dims)));
        let stride = target.dims()[D - 1];
        let target = into_gpu(target);
        let ((left_row, left_step), (right_step, right_column)) = (left.layout.strides(), right.layout.strides());
        let params = MatmulParams {
            rows: size(sizes.m),
            columns: size(sizes.n),
            inner: size(sizes.k),
            batches: size(batches),
            left_offset: size(left.offset),
            left_batch: size(left.batch),
            left_row: size(left_row),
            left_step: size(left_step),
            right_offset: size(right.offset),
            right_batch: size(right.batch),
            right_step: size(right_step),
            right_column: size(right_column),
            target_offset: size(offset),
            target_batch: size(sizes.m * stride),
            target_row: size(stride),
            accumulate: u32::from(accumulate),
            alpha: self.alpha,
        };
        let most = gpu_of(device).most_of_products(kernel.segments());
        for part in parts(params, most) {
            Self::launch(device, kernel, &a, &b, &target, part)?;
        }
        Ok(from_cube(target))
    }

    fn launch(
        device: &Device,
        kernel: Multiplier,
        a: &CubeTensor,
        b: &Right,
        target: &CubeTensor,
        params: MatmulParams,
    ) -> Result<()> {
        let operations = operations(&params);
        let groups =
            |kernel: &Kernel| u64::from(params.batches) * kernel.workgroups(params.rows.into(), params.columns.into());
        let in_single = |kernel: &TypedKernel<MatmulParams, MatmulBindings>| {
            let Right::Plain(b) = b else { panic!("{} was given a stored matrix", kernel.stem) };
            let tensors = MatmulBindings { left_values: a, right_values: b, target_values: target };
            gpu_of(device).run_counted(kernel, params, tensors, groups(kernel), operations)
        };
        match kernel {
            Multiplier::Software if in_vectors(&params) => in_single(&MATMUL_VECTORS)?,
            Multiplier::Software => in_single(&MATMUL)?,
            Multiplier::Tiled if in_vectors(&params) => in_single(&MATMUL_TILED_VECTORS)?,
            Multiplier::Tiled => in_single(&MATMUL_TILED)?,
            Multiplier::FewRows => match b {
                Right::Plain(_) => in_single(&MATMUL_FEW_ROWS)?,
                Right::Stored(piece) => {
                    let kernel =
                        piece.kernels().map(|kernels| &kernels.matmul_few_rows).expect("chosen for its format");
                    let tensors = MatmulStoredBindings {
                        left_values: Binding::from(a),
                        packed_words: piece.words(),
                        target_values: Binding::from(target),
                    };
                    gpu_of(device).run_counted(kernel, params, tensors, groups(kernel), operations)?;
                }
            },
            #[cfg(not(target_family = "wasm"))]
            Multiplier::Cooperative | Multiplier::Split => {
                halved::multiply(device, a, b, target, params, kernel == Multiplier::Split)?;
            }
            #[cfg(target_family = "wasm")]
            Multiplier::Cooperative | Multiplier::Split => panic!("a browser has no cooperative matrices"),
        }
        Ok(())
    }
}

/// Floating-point operations of a product.
fn operations(p: &MatmulParams) -> f64 {
    2.0 * f64::from(p.batches) * f64::from(p.rows) * f64::from(p.columns) * f64::from(p.inner)
}

/// A product as products of some of its rows, and where few rows are still too much of some of its columns, that have no more
/// than `most` operations each, as far as whole tiles do.
fn parts(whole: MatmulParams, most: f64) -> impl Iterator<Item = MatmulParams> {
    let of = |rows, columns| operations(&MatmulParams { rows, columns, ..whole });
    let rows = stretch(whole.rows, most / of(1, whole.columns));
    let columns = stretch(whole.columns, most / of(rows.min(whole.rows), 1));
    let starts = |length: u32, stretch: u32| (0..length).step_by(stretch as usize);
    starts(whole.rows, rows).flat_map(move |row| {
        starts(whole.columns, columns).map(move |column| MatmulParams {
            rows: rows.min(whole.rows - row),
            columns: columns.min(whole.columns - column),
            left_offset: whole.left_offset + row * whole.left_row,
            right_offset: whole.right_offset + column * whole.right_column,
            target_offset: whole.target_offset + row * whole.target_row + column,
            ..whole
        })
    })
}

/// Into how long stretches rows or columns are cut of which `fit` may be together: about equal ones, each of whole tiles.
fn stretch(length: u32, fit: f64) -> u32 {
    /// Whole tiles of every kernel.
    const TILES: u32 = 128;
    if f64::from(length) <= fit {
        return length.max(1);
    }
    let longest = (fit as u32 / TILES * TILES).max(TILES);
    length.div_ceil(length.div_ceil(longest)).next_multiple_of(TILES)
}

/// The right operand of a product on a GPU.
enum Right {
    Plain(CubeTensor),
    Stored(Piece),
}

/// Pieces that follow each other with their rows, from `start` on.
fn with_rows(start: usize, pieces: Vec<Piece>) -> impl Iterator<Item = (Range<usize>, Option<Piece>)> {
    let mut at = start;
    pieces.into_iter().map(move |piece| {
        at += piece.rows;
        (at - piece.rows..at, Some(piece))
    })
}

/// Whether both operands can be read four numbers at a time, as `matmul_vectors.wgsl` says.
fn in_vectors(p: &MatmulParams) -> bool {
    let fours = |sizes: &[u32]| sizes.iter().all(|size| size.is_multiple_of(4));
    let steps = match (p.left_step, p.left_row, p.right_step, p.right_column) {
        (1, row, 1, column) => [row, column, p.inner],
        (1, row, step, 1) => [row, step, p.inner],
        (left, 1, right, 1) => [left, right, 0],
        _ => return false,
    };
    fours(&steps) && fours(&[p.left_offset, p.left_batch, p.right_offset, p.right_batch])
}

/// [`HalfRowsParams::rests`] of an operand, where operands are split.
fn rests_of(split: bool, right: bool) -> u32 {
    match (split, right) {
        (false, _) => 0,
        (true, false) => rests::OF_LEFT,
        (true, true) => rests::OF_RIGHT,
    }
}

/// Products in half precision on tensor cores.
#[cfg(not(target_family = "wasm"))]
pub(super) mod halved {
    use burn_wgpu::CubeTensor;
    use temper_shaders::formats::HalfRowsStoredBindings;
    use temper_shaders::{
        HALF_ROWS, HALF_TERMS, HalfRowsBindings, HalfRowsParams, MATMUL_COOPERATIVE_8, MATMUL_COOPERATIVE_16,
        MatmulCooperativeBindings, MatmulCooperativeParams, MatmulParams, rests,
    };

    use super::super::launch::{Binding, size};
    use super::super::tensor::{empty_gpu, gpu_of};
    use super::{Right, rests_of};
    use crate::device::Device;
    use crate::error::{Error, Result};

    /// Rows of f16 and the exponents of their powers of two, as `half_rows.wgsl` makes them.
    pub(in super::super) struct Halves {
        pub(in super::super) halves: CubeTensor,
        pub(in super::super) exponents: CubeTensor,
    }

    /// `values` as so many rows of `inner` numbers each, one behind the other.
    ///
    /// # Errors
    /// Device errors.
    pub(in super::super) fn rows_of(device: &Device, values: &CubeTensor, rows: usize, inner: usize) -> Result<Halves> {
        let padded = size(inner.next_multiple_of(HALF_TERMS));
        let (rows, inner) = (size(rows), size(inner));
        let params =
            HalfRowsParams { rows, batches: 1, inner, padded, offset: 0, batch: 0, row: inner, step: 1, rests: 0 };
        halve(device, &Right::Plain(values.clone()), values, params)
    }

    /// The rows of an operand, in tensors beside `like`.
    fn halve(device: &Device, operand: &Right, like: &CubeTensor, params: HalfRowsParams) -> Result<Halves> {
        let all = params.batches as usize * params.rows as usize;
        let segments = if params.rests == 0 { 1 } else { rests::SEGMENTS };
        let halves = empty_gpu(like, [all * segments * params.padded as usize / 2]);
        let exponents = empty_gpu(like, [all]);
        let groups = HALF_ROWS.workgroups(all as u64, 1);
        match operand {
            Right::Plain(values) => {
                let bindings = HalfRowsBindings { values, halves: &halves, exponents: &exponents };
                gpu_of(device).run(&HALF_ROWS, params, bindings, groups)?;
            }
            Right::Stored(piece) => {
                let kernel = piece.kernels().map(|kernels| &kernels.half_rows).expect("chosen for its format");
                let bindings = HalfRowsStoredBindings {
                    packed_words: piece.words(),
                    halves: Binding::from(&halves),
                    exponents: Binding::from(&exponents),
                };
                gpu_of(device).run(kernel, params, bindings, groups)?;
            }
        }
        Ok(Halves { halves, exponents })
    }

    /// The rows of both operands in half precision, where they are `split` with what that leaves of each number, then their
    /// product.
    ///
    /// # Errors
    /// [`Error::Device`] where the device has no such matrices; device errors.
    pub(super) fn multiply(
        device: &Device,
        left: &CubeTensor,
        right: &Right,
        target: &CubeTensor,
        p: MatmulParams,
        split: bool,
    ) -> Result<()> {
        let Some(tile) = device.products().tile else {
            return Err(Error::Device { problem: format!("{} has no cooperative matrices", device.name()) });
        };
        let (batches, inner) = (p.batches, p.inner);
        let padded = size((inner as usize).next_multiple_of(HALF_TERMS));
        let rows = |rows, offset, batch, row, step, right| {
            let rests = rests_of(split, right);
            HalfRowsParams { rows, batches, inner, padded, offset, batch, row, step, rests }
        };
        let of_left = rows(p.rows, p.left_offset, p.left_batch, p.left_row, p.left_step, false);
        let of_right = rows(p.columns, p.right_offset, p.right_batch, p.right_column, p.right_step, true);
        let left_rows = halve(device, &Right::Plain(left.clone()), left, of_left)?;
        let right_rows = halve(device, right, left, of_right)?;
        let params = MatmulCooperativeParams {
            rows: p.rows,
            columns: p.columns,
            padded: if split { padded * rests::SEGMENTS as u32 } else { padded },
            batches: p.batches,
            target_offset: p.target_offset,
            target_batch: p.target_batch,
            target_row: p.target_row,
            accumulate: p.accumulate,
            alpha: p.alpha,
        };
        let bindings = MatmulCooperativeBindings {
            left_halves: &left_rows.halves,
            left_exponents: &left_rows.exponents,
            right_halves: &right_rows.halves,
            right_exponents: &right_rows.exponents,
            target_values: target,
        };
        let kernel = if tile == 16 { &MATMUL_COOPERATIVE_16 } else { &MATMUL_COOPERATIVE_8 };
        let groups = u64::from(p.batches) * kernel.workgroups(p.rows.into(), p.columns.into());
        let operations = 2.0 * f64::from(p.batches) * f64::from(p.rows) * f64::from(p.columns) * f64::from(p.inner);
        gpu_of(device).run_counted(kernel, params, bindings, groups, operations)
    }
}

/// The products of a small layer, forward and back, by one kernel.
fn layer(device: &Device, by: Multiplier, [tokens, outputs, inputs]: [usize; 3]) -> Result<Vec<Tensor<1>>> {
    let (a, b) = (matrix(device, 19, tokens, inputs), matrix(device, 20, outputs, inputs));
    let nt = Product::of(&a, b.transposed()).by(by).run(device)?;
    let nn = Product::of(&nt, &b).by(by).run(device)?;
    let tn = Product::of(nt.transposed(), &a).by(by).run(device)?;
    Ok(vec![flat(&nt), flat(&nn), flat(&tn)])
}

impl Product<2> {
    /// As [`Product::run`], where the left side has a few rows and the right one is a transposed matrix, as where texts are
    /// continued. On the CPU the matrix is then read once, in order, and a row's result does not depend on the rows beside
    /// it, but its bits are not those of [`Product::run`].
    ///
    /// # Errors
    /// Device errors.
    ///
    /// # Panics
    /// As [`Product::run`]; on the CPU where the left side is transposed or the right one is not, or has only some columns.
    pub fn run_in_few_rows(self, device: &Device) -> Result<Tensor<2>> {
        if !device.is_cpu() {
            return self.run(device);
        }
        let (left, right) = (self.left.view(), self.right.view());
        let (sizes, _) = Self::sizes(&left, &right);
        let dims = self.dims(sizes);
        assert!(!self.left.transposed && self.right.transposed && self.right.columns.is_none());
        if sizes.m == 0 || sizes.n == 0 || sizes.k == 0 {
            return self.run(device);
        }
        let (target, offset, accumulate) = self.into.opened(|| empty(device, dims));
        let stride = target.dims()[1];
        let (a, mut c) = (on_cpu(&self.left.values.into_tensor()), into_cpu(target));
        let a = &slice(&a)[left.offset..];
        let mut multiply = |segments: &[Segment]| {
            let into = &mut slice_mut(&mut c)[offset..];
            matmul_few_rows(
                a,
                left.layout.row_stride,
                segments,
                sizes.m,
                sizes.k,
                self.alpha,
                accumulate,
                into,
                stride,
            );
        };
        match self.right.values {
            Values::Tensor(tensor) => {
                let b = on_cpu(&tensor);
                multiply(&[Segment { rows: sizes.n, stored: RowsOf::Plain(slice(&b)) }]);
            }
            Values::Packed(packed) => multiply(&packed.segments()),
            Values::Piece(..) => panic!("a piece of a GPU's matrix on the CPU"),
        }
        Ok(from_flex(c))
    }
}

/// For the self-test: a few rows by a stored matrix.
///
/// # Errors
/// Device errors.
pub(crate) fn self_test(device: &Device, packed: &Packed) -> Result<Tensor<1>> {
    let x = matrix(device, 35, 3, packed.columns());
    let product = Product::of(&x, Operand::from(packed).transposed());
    Ok(flat(&product.by(Multiplier::FewRows).run(device)?))
}

/// The self-test. Only where all sizes are multiples of 4 can four numbers be read at a time.
pub(crate) const SELF_TEST: &[Case] = &[
    ("matmul", |d| layer(d, Multiplier::Software, [37, 45, 70])),
    ("matmul_vectors", |d| layer(d, Multiplier::Software, [20, 36, 44])),
    ("matmul_tiled", |d| layer(d, Multiplier::Tiled, [21, 34, 35])),
    ("matmul_tiled_vectors", |d| layer(d, Multiplier::Tiled, [20, 36, 44])),
    ("matmul_few_rows", |d| layer(d, Multiplier::FewRows, [9, 33, 35])),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows x inner` by the transpose of `columns x inner`, into some columns of a wider matrix.
    fn product(rows: u32, columns: u32, inner: u32) -> MatmulParams {
        MatmulParams {
            rows,
            columns,
            inner,
            batches: 1,
            left_offset: 8,
            left_batch: rows * inner,
            left_row: inner,
            left_step: 1,
            right_offset: 16,
            right_batch: columns * inner,
            right_step: 1,
            right_column: inner,
            target_offset: 24,
            target_batch: rows * (columns + 40),
            target_row: columns + 40,
            accumulate: 1,
            alpha: 0.5,
        }
    }

    #[test]
    fn a_product_that_is_short_enough_stays_whole() {
        for (rows, columns, inner) in [(1, 1, 1), (129, 1000, 64), (16_384, 25_600, 5_120), (3, 5, 0)] {
            let whole = product(rows, columns, inner);
            assert_eq!(parts(whole, operations(&whole)).collect::<Vec<_>>(), [whole]);
        }
        assert_eq!(parts(product(0, 5, 3), 1.0).count() + parts(product(5, 0, 3), 1.0).count(), 0);
    }

    #[test]
    fn a_long_product_is_cut_by_rows_and_one_of_few_rows_by_columns() {
        let long = product(16_384, 25_600, 5_120);
        let rows: Vec<u32> = parts(long, 0.5e12).map(|part| part.rows).collect();
        assert_eq!(rows, [[1_664; 9].as_slice(), &[1_408]].concat());
        assert!(parts(long, 0.5e12).all(|part| part.columns == 25_600 && operations(&part) <= 0.5e12));
        let head = product(256, 151_936, 5_120);
        let sizes: Vec<[u32; 2]> = parts(head, 1e11).map(|part| [part.rows, part.columns]).collect();
        let halves = [[128, 76_032], [128, 75_904]];
        assert_eq!(sizes, [halves, halves].concat());
    }

    #[test]
    fn the_parts_of_a_product_cover_it_once_and_lie_where_it_does() {
        let whole = product(300, 260, 7);
        let mut covered = vec![0; 300 * 260];
        for part in parts(whole, 1.0) {
            let (row, column) = ((part.left_offset - 8) / 7, (part.right_offset - 16) / 7);
            assert_eq!(part.target_offset, 24 + row * 300 + column);
            for (r, c) in (0..part.rows).flat_map(|r| (0..part.columns).map(move |c| (row + r, column + c))) {
                covered[(r * 260 + c) as usize] += 1;
            }
        }
        assert!(covered.iter().all(|&times| times == 1));
    }
}
