//! Statistics of rows over all tiles of their vocabulary, with the entropy of any selection of tokens.

use burn::tensor::Tensor;
use temper_shaders::MAX_TOP_K;

use super::row_stats::{self, Statistics};
use super::tensor::Indices;
use super::wide_entropy::{self, Wide};
use crate::device::Device;
use crate::error::Result;

/// Which tokens of a row its entropy is of. Their probabilities are divided by their sum first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Selection {
    /// The K most probable ones; all where the vocabulary has no more.
    Top(usize),
    /// All.
    Full,
    /// The fewest most probable ones that together have this share of the probability, less [`Selection::SLACK`].
    Share(f32),
}

impl Selection {
    /// What a share may lack, so that rounding does not decide where probabilities add up to just the share.
    pub const SLACK: f32 = 1e-5;

    /// The K with which row statistics are accumulated (0: of all), and what the sweeps behind them select, where the entropy
    /// has to be made in such.
    fn of_rows(self, vocab: usize) -> (usize, Option<Wide>) {
        match self {
            Self::Top(k) if k <= MAX_TOP_K => (k, None),
            Self::Top(k) if k < vocab => (1, Some(Wide::Top(k))),
            Self::Top(_) | Self::Full => (0, None),
            Self::Share(share) => (1, Some(Wide::Share(share - Self::SLACK))),
        }
    }

    /// True where the entropy is made in sweeps of its own.
    pub fn is_wide(self, vocab: usize) -> bool {
        self.of_rows(vocab).1.is_some()
    }
}

impl From<usize> for Selection {
    fn from(k: usize) -> Self {
        Self::Top(k)
    }
}

/// Statistics of rows whose logits lie in `tiles`, each `[rows, columns]` behind the one before.
///
/// # Errors
/// Device errors.
///
/// # Panics
/// Without a tile.
pub fn of_tiles(
    device: &Device,
    tiles: &[&Tensor<2>],
    labels: &Indices,
    selection: impl Into<Selection>,
) -> Result<Statistics> {
    let selection = selection.into();
    let vocab = tiles.iter().map(|tile| tile.dims()[1]).sum();
    let (top_k, wide) = selection.of_rows(vocab);
    let (mut statistics, mut start): (Option<Statistics>, usize) = (None, 0);
    for tile in tiles {
        statistics = Some(row_stats::accumulate(device, tile, start, labels, top_k, statistics)?);
        start += tile.dims()[1];
    }
    let mut statistics = statistics.expect("a row has at least one tile");
    if let Some(wide) = wide {
        statistics.fields = wide_entropy::of_tiles(device, tiles, statistics.fields, wide)?;
    }
    Ok(statistics)
}
