//! Entropy of more of the largest logits than the row statistics select: of any K, or of as many as carry a share of the
//! probability. In a fixed number of sweeps over the tiles, with 72 bytes a row beside them.

use burn::tensor::Tensor;
use temper_shaders::{WIDE_ENTROPY, WIDE_ENTROPY_STATE, WideEntropyBindings, WideEntropyParams};

use super::cpu;
use super::launch::size;
use super::row_stats;
use super::sample::{self, Case};
use super::tensor::{
    empty_gpu, flat, from_cube, from_flex, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice, slice_mut,
};
use crate::device::Device;
use crate::error::Result;

/// How far the digit of each sweep lies from a key's end; the last sweep sums up.
const SHIFTS: [u32; 9] = [28, 24, 20, 16, 12, 8, 4, 0, 32];

/// What is selected.
#[derive(Debug, Clone, Copy)]
pub enum Wide {
    /// The K largest logits.
    Top(usize),
    /// The fewest largest ones that together have this share of the probability.
    Share(f32),
}

/// Writes entropy and count of `selected` over those in `fields [rows, 8]`, which are the statistics of all `tiles`.
///
/// # Errors
/// Device errors.
pub fn of_tiles(device: &Device, tiles: &[&Tensor<2>], fields: Tensor<2>, selected: Wide) -> Result<Tensor<2>> {
    let rows = fields.dims()[0];
    let (top_k, share) = match selected {
        Wide::Top(k) => (k.max(1), 0.0),
        Wide::Share(share) => (0, share),
    };
    let params =
        WideEntropyParams { rows: size(rows), cols: 0, shift: 0, first: 0, last: 0, top_k: size(top_k), share };
    if device.is_cpu() {
        let mut fields = into_cpu(fields);
        let tiles: Vec<_> = tiles.iter().map(|tile| on_cpu(tile)).collect();
        let slices: Vec<&[f32]> = tiles.iter().map(slice).collect();
        cpu::wide_entropy(&params, &slices, slice_mut(&mut fields));
        return Ok(from_flex(fields));
    }
    let fields = into_gpu(fields);
    let state = empty_gpu(&fields, [rows, WIDE_ENTROPY_STATE]);
    for shift in SHIFTS {
        for (index, tile) in tiles.iter().enumerate() {
            let (first, last) = (u32::from(index == 0), u32::from(index + 1 == tiles.len()));
            let params = WideEntropyParams { cols: size(tile.dims()[1]), shift, first, last, ..params };
            let logits = on_gpu(tile);
            let tensors = WideEntropyBindings { logits: &logits, state: &state, stats: &fields };
            gpu_of(device).run(&WIDE_ENTROPY, params, tensors, rows as u64)?;
        }
    }
    Ok(from_cube(fields))
}

/// The self-test.
pub(crate) const SELF_TEST: &[Case] = &[("wide_entropy", |d| {
    let (logits, labels) = (sample::logits(d), sample::labels(d));
    let of = |selected| {
        let fields = row_stats::accumulate(d, &logits, 0, &labels, 1, None)?.fields;
        Ok(flat(&of_tiles(d, &[&logits], fields, selected)?))
    };
    [Wide::Top(100), Wide::Share(0.9 - 1e-5)].into_iter().map(of).collect()
})];
