//! A matrix with a row per token of the vocabulary: the embedding, the head, or both at once where they are tied.
//!
//! Cut into tiles of rows so that each fits one binding of the device; the CPU backend has a single tile.

use burn::tensor::Tensor;

use super::parameter::Parameter;
use super::weight::Weight;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kernels;
use crate::kernels::matmul::Product;

/// Rows `start ..` of the matrix.
#[derive(Clone)]
pub struct Tile {
    /// First token of the tile.
    pub start: usize,
    /// `[tokens of the tile, hidden]`.
    pub weight: Weight,
}

/// `[vocabulary, hidden]`.
#[derive(Clone)]
pub struct VocabularyMatrix {
    tiles: Vec<Tile>,
    rows: usize,
}

impl VocabularyMatrix {
    /// From tiles in order, each starting where the one before ends.
    pub fn new(tiles: Vec<Tile>) -> Self {
        let rows = tiles.iter().map(|t| t.weight.dims()[0]).sum();
        Self { tiles, rows }
    }

    /// Vocabulary size.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The tiles, in order.
    pub fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    /// The tiles, in order.
    pub fn tiles_mut(&mut self) -> &mut [Tile] {
        &mut self.tiles
    }

    /// The tiles that are parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.tiles.iter().filter_map(|tile| tile.weight.parameter())
    }

    /// Rows of `tokens`, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Device errors.
    pub fn gather(&self, device: &Device, tokens: &[u32]) -> Result<Tensor<2>> {
        let mut sum: Option<Tensor<2>> = None;
        for tile in &self.tiles {
            let rows = tile.weight.gather(device, tokens, tile.start)?;
            sum = Some(match sum {
                Some(sum) => kernels::elementwise::add(device, &sum, rows)?,
                None => rows,
            });
        }
        Ok(sum.expect("a matrix has at least one tile"))
    }

    /// Adds `dy [tokens, hidden]` to the gradient of the rows of `tokens`, where the matrix is trained.
    ///
    /// # Errors
    /// Device errors.
    pub fn add_row_gradients(&mut self, device: &Device, tokens: &[u32], dy: &Tensor<2>) -> Result<()> {
        for Tile { start, weight } in &mut self.tiles {
            let Some(weight) = weight.trained_mut() else { continue };
            let gradient = match weight.gradient.take() {
                Some(sum) => sum,
                None => Tensor::zeros(weight.value.dims(), device.burn()),
            };
            weight.gradient = Some(kernels::elementwise::scatter_add_rows(device, gradient, tokens, *start, dy)?);
        }
        Ok(())
    }

    /// Logits of `hidden [rows, hidden]`, a tensor `[rows, tile]` a tile.
    ///
    /// # Errors
    /// Device errors.
    pub fn logits(&self, device: &Device, hidden: &Tensor<2>) -> Result<Vec<Tensor<2>>> {
        let logits = |tile: &Tile| Product::of(hidden, tile.weight.operand().transposed()).exactly().run(device);
        self.tiles.iter().map(logits).collect()
    }

    /// As [`VocabularyMatrix::logits`] of the few rows with which texts are continued ([`Product::run_in_few_rows`]).
    ///
    /// # Errors
    /// Device errors.
    pub fn logits_of_few(&self, device: &Device, hidden: &Tensor<2>) -> Result<Vec<Tensor<2>>> {
        let logits = |tile: &Tile| Product::of(hidden, tile.weight.operand().transposed()).run_in_few_rows(device);
        self.tiles.iter().map(logits).collect()
    }
}

/// Vocabulary entries per tile so that a tile of the head weight `[columns, hidden]` fits one binding.
///
/// # Errors
/// [`Error::Limit`] where not even one row of the weight fits.
pub fn columns_per_tile(hidden: usize, vocab: usize, max_binding_bytes: u64) -> Result<usize> {
    let row = hidden as u64 * 4;
    let columns = (max_binding_bytes / row.max(1)).min(vocab as u64) as usize;
    if columns == 0 {
        return Err(Error::Limit {
            what: format!("one row of the head, {hidden} wide,"),
            needed: row,
            allowed: max_binding_bytes,
            adapter: "this device".into(),
            advice: "choose another device with --device".into(),
        });
    }
    Ok(columns.div_ceil(vocab.div_ceil(columns)).max(vocab.div_ceil(vocab.div_ceil(columns))))
}
