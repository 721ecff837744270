//! What a model has made of the tokens of some sequences: keys and values of every block, so that a further token costs a pass
//! of one token and not of all before it.
//!
//! A pass takes new tokens of any of the sequences, many of one (a prompt) or one of each (a step); their keys and values lie
//! in the cache afterwards. What a sequence gives does not depend on those beside it.

use burn::tensor::Tensor;

use super::block::{CachedBlock, attention_shape};
use super::{Forward, Keep, Model};
use crate::data::MicroBatch;
use crate::device::Device;
use crate::error::Result;
use crate::kernels;
use crate::kernels::attention::Shape;
use crate::kernels::cached_attention::{KeyValues, Places, Precision};
use crate::kernels::cpu::par;
use crate::kernels::launch::size;
use crate::model::architecture::Architecture;
use crate::model::block::Activations;

/// Most tokens of a sequence that go through the model at once; more would only take more memory.
const PIECE: usize = 512;
/// The same on hardware GPUs, where memory allows it: a prompt's first piece has training's attention, which is faster there
/// than that over a cache.
const LARGE_PIECE: usize = 4096;
/// Tokens of a sequence up to which a pass is one of a few rows: then the matrices, which are read once, take most of the time.
const FEW: usize = 8;
/// Rows of a sequence to begin with.
const ROWS: usize = 64;

/// Keys and values of some sequences.
pub struct Cache {
    /// One a block.
    blocks: Vec<KeyValues>,
    /// Tokens that are held of each sequence.
    lengths: Vec<usize>,
    capacity: usize,
}

impl Cache {
    /// For so many sequences of at most `capacity` tokens. Nothing is allocated before it is needed.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] where so much does not fit a device.
    pub fn new(model: &Model, sequences: usize, capacity: usize) -> Result<Self> {
        Self::with_precision(model, sequences, capacity, Precision::of)
    }

    /// As [`Cache::new`], with numbers held as `precision` says of each device.
    ///
    /// # Errors
    /// As [`Cache::new`].
    pub fn with_precision(
        model: &Model,
        sequences: usize,
        capacity: usize,
        precision: impl Fn(&Device) -> Precision,
    ) -> Result<Self> {
        let shape = attention_shape(&model.arch);
        let block = |index: usize| {
            let device = model.placement().of_block(index);
            let precision = precision(device);
            KeyValues::check(device, shape, precision, sequences, capacity)?;
            Ok(KeyValues::new(sequences, shape, precision))
        };
        let blocks = (0..model.blocks.len()).map(block).collect::<Result<_>>()?;
        Ok(Self { blocks, lengths: vec![0; sequences], capacity })
    }

    /// Bytes that a full cache in single precision takes.
    pub fn bytes(arch: &Architecture, sequences: usize, capacity: usize) -> u64 {
        let row = KeyValues::row_bytes(attention_shape(arch), Precision::F32);
        row.saturating_mul(arch.layers as u64).saturating_mul(sequences as u64).saturating_mul(capacity as u64)
    }

    /// Tokens that a device can hold of each of so many sequences.
    pub fn most_tokens(model: &Model, sequences: usize) -> usize {
        let shape: Shape = attention_shape(&model.arch);
        let stages = model.placement().stages().iter();
        let most = stages.map(|stage| {
            let row = KeyValues::row_bytes(shape, Precision::of(&stage.device)).saturating_mul(sequences as u64);
            (stage.device.max_binding_bytes() / row.max(1)).min(usize::MAX as u64) as usize
        });
        most.min().unwrap_or(0)
    }

    /// Tokens that are held of a sequence.
    pub fn length(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Tokens that may be held of each sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all but the first `length` tokens of a sequence.
    pub fn truncate(&mut self, sequence: usize, length: usize) {
        self.lengths[sequence] = self.lengths[sequence].min(length);
    }
}

/// Tokens of some sequences on their way through the blocks.
pub(super) struct Step<'a> {
    cache: &'a mut Cache,
    /// One for each stage.
    places: Vec<Places>,
    /// The same for blocks with a window, where a sequence outgrows it.
    within: Option<Vec<Places>>,
    fresh: bool,
    few: bool,
}

impl Step<'_> {
    /// What a block of this stage needs, which has a window or none.
    pub(super) fn of_block(&mut self, index: usize, stage: usize, window: Option<usize>) -> CachedBlock<'_> {
        let places = window.and(self.within.as_ref()).unwrap_or(&self.places);
        CachedBlock {
            key_values: (&mut self.cache.blocks[index]).into(),
            places: &places[stage],
            fresh: self.fresh,
            few: self.few,
        }
    }
}

/// The last `most` of the rows that a token sees, its own as the last; all of them where these are fewer.
fn last_of([first, count]: [u32; 2], most: u32) -> [u32; 2] {
    let seen = count.min(most);
    [first + count - seen, seen]
}

impl Model {
    /// Takes new tokens of some sequences, each named once and with at least one token, into the cache. Gives the final-norm
    /// output of the last token of each, `[sequences, hidden]`.
    ///
    /// # Errors
    /// As [`Model::forward`]; nothing new is held then.
    ///
    /// # Panics
    /// Where a sequence outgrows the cache's capacity.
    pub fn extend(&mut self, cache: &mut Cache, new: &[(usize, &[u32])]) -> Result<Tensor<2>> {
        let longest = new.iter().map(|(sequence, tokens)| cache.lengths[*sequence] + tokens.len()).max().unwrap_or(0);
        assert!(longest <= cache.capacity, "{longest} tokens in a cache of {}", cache.capacity);
        let rows = cache.blocks.first().map_or(0, KeyValues::rows);
        let rows = if longest <= rows { rows } else { longest.max(2 * rows).max(ROWS).min(cache.capacity) };
        let mut batch = MicroBatch::default();
        let (mut places, mut last) = (Vec::new(), Vec::with_capacity(new.len()));
        for &(sequence, tokens) in new {
            let (start, before) = (batch.tokens.len() as u32, cache.lengths[sequence] as u32);
            let count = tokens.len() as u32;
            batch.tokens.extend_from_slice(tokens);
            batch.positions.extend(before..before + count);
            batch.document_start.extend(std::iter::repeat_n(start, tokens.len()));
            places.extend((1..=count).map(|nth| [size(sequence * rows), before + nth]));
            last.push(start + count - 1);
        }
        let mut forward = self.enter(&batch, None)?;
        for (index, block) in cache.blocks.iter_mut().enumerate() {
            block.grow(self.placement.of_block(index), rows)?;
        }
        let of_stages = |places: &[[u32; 2]]| {
            let stages = self.placement.stages().iter();
            stages.map(|stage| Places::new(&stage.device, places.iter().copied())).collect::<Vec<_>>()
        };
        let window = self.arch.window.as_ref().map(|window| window.tokens).filter(|&tokens| tokens < longest);
        let within = window.map(|tokens| places.iter().map(|&place| last_of(place, size(tokens))).collect::<Vec<_>>());
        let mut step = Step {
            places: of_stages(&places),
            within: within.map(|places| of_stages(&places)),
            fresh: new.iter().all(|(sequence, tokens)| cache.lengths[*sequence] == 0 && tokens.len() > 1),
            few: new.iter().all(|(_, tokens)| tokens.len() <= FEW),
            cache,
        };
        let forwards = std::slice::from_mut(&mut forward);
        let on_cpu = self.placement.stages().iter().all(|stage| stage.device.is_cpu());
        let mut pass = || self.through_blocks(forwards, Keep::Nothing, Some(&mut step), &|| false);
        // A GPU's queue belongs to the thread that it is used from.
        if on_cpu { par::inside(pass) } else { pass() }?;
        for (sequence, tokens) in new {
            step.cache.lengths[*sequence] += tokens.len();
        }
        let Forward { output, .. } = forward;
        let output = kernels::elementwise::gather_rows(self.placement.last(), &output, &last, 0)?;
        Ok(self.norm(&output)?.0)
    }

    /// As [`Model::extend`] of one sequence by tokens of any number, in pieces. `stop` is asked before each; none where it says
    /// so, and what came before is held.
    ///
    /// # Errors
    /// As [`Model::extend`].
    ///
    /// # Panics
    /// As [`Model::extend`], and where there is no token.
    pub fn read(
        &mut self,
        cache: &mut Cache,
        sequence: usize,
        tokens: &[u32],
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Tensor<2>>> {
        let mut hidden = None;
        for tokens in tokens.chunks(self.piece()) {
            if stop() {
                return Ok(None);
            }
            hidden = Some(self.extend(cache, &[(sequence, tokens)])?);
        }
        Ok(Some(hidden.expect("a token at least")))
    }

    /// Tokens of a sequence that go through the model at once: as many on every run, since a cache in half precision rounds
    /// what later pieces see.
    fn piece(&self) -> usize {
        let widest = Activations::widest_bytes_per_token(&self.arch) as u64;
        let of_device = |device: &Device| {
            let most = match device.is_cpu() || device.is_software() {
                true => PIECE,
                false => large_piece(device.tile_bytes(), widest),
            };
            most.min(Activations::most_tokens(&self.arch, device))
        };
        let stages = self.placement.stages().iter();
        stages.map(|stage| of_device(&stage.device)).min().unwrap_or(PIECE).max(1)
    }

    /// Logits of rows that [`Model::extend`] gave, `[rows, tile]` a tile of the vocabulary.
    ///
    /// # Errors
    /// Device errors.
    pub fn logits_of(&self, hidden: &Tensor<2>) -> Result<Vec<Tensor<2>>> {
        self.head().logits_of_few(self.placement.last(), hidden)
    }

    /// As [`Model::logits_of`], `[vocab]` a row on the host.
    ///
    /// # Errors
    /// Device errors; [`crate::Error::NonFinite`] naming the row, and the weight that it comes from.
    pub async fn rows_of_logits(&self, hidden: &Tensor<2>) -> Result<Vec<Vec<f32>>> {
        self.read_logits(&self.logits_of(hidden)?).await
    }

    /// What [`Model::logits_of`] gave, `[vocab]` a row on the host.
    ///
    /// # Errors
    /// As [`Model::rows_of_logits`].
    pub async fn read_logits(&self, tiles: &[Tensor<2>]) -> Result<Vec<Vec<f32>>> {
        let all = self.logits_on_host(tiles).await?;
        Ok(all.chunks_exact(self.arch.vocab).map(<[f32]>::to_vec).collect())
    }
}

/// Tokens whose widest activation takes no more than a product may for itself.
fn large_piece(tile_bytes: u64, widest_bytes_per_token: u64) -> usize {
    (tile_bytes / widest_bytes_per_token.max(1)).clamp(PIECE as u64, LARGE_PIECE as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_window_the_last_rows_are_seen_and_the_own_row_stays_the_last() {
        assert_eq!(last_of([10, 3], 5), [10, 3]);
        assert_eq!(last_of([10, 5], 5), [10, 5]);
        assert_eq!(last_of([10, 7], 5), [12, 5]);
    }

    #[test]
    fn a_piece_of_a_prompt_is_as_large_as_a_tile_allows() {
        // 135 million parameters, 8 billion, and a device with little.
        assert_eq!(large_piece(256 << 20, 12 << 10), LARGE_PIECE);
        assert_eq!(large_piece(256 << 20, 112 << 10), 2340);
        assert_eq!(large_piece(16 << 20, 112 << 10), PIECE);
    }
}
