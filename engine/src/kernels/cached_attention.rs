//! Keys and values of a block's sequences, kept so that a further token needs only its own, and attention over them.

use burn::tensor::Tensor;
use temper_shaders::{
    APPEND_KEYS, AppendKeysBindings, AppendKeysParams, CACHED_ATTENTION, CachedAttentionBindings, CachedAttentionParams,
};

use super::attention::{Piece, SHARE, Shape, pieces};
use super::cpu;
use super::launch::size;
use super::sample::{Case, matrix};
use super::tensor::{
    Indices, empty_gpu, flat, from_cube, from_flex, from_vec, gpu_of, into_cpu, into_gpu, on_cpu, on_gpu, slice,
    slice_mut,
};
use crate::device::Device;
use crate::error::{Error, Result};

/// How a cache holds numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Half precision, two numbers a word: on GPUs.
    F16,
}

impl Precision {
    /// As a device holds them unless asked otherwise: hardware GPUs in half precision, which halves what decoding reads.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() || device.is_software() { Self::F32 } else { Self::F16 }
    }

    /// Words that so many numbers take.
    fn words(self, numbers: usize) -> usize {
        match self {
            Self::F32 => numbers,
            Self::F16 => numbers / 2,
        }
    }
}

/// Where new tokens stand in a cache.
pub struct Places(Indices);

impl Places {
    /// For each token the first row of its sequence and how many rows from there on it sees, its own as the last.
    pub fn new(device: &Device, places: impl IntoIterator<Item = [u32; 2]>) -> Self {
        Self(Indices::new(device, places.into_iter().flatten().collect()))
    }
}

/// Keys and values of one block: so many rows for each sequence, each a token's key heads and then its value heads.
pub struct KeyValues {
    /// `[sequences * rows, words]`; taken while it is written.
    values: Option<Tensor<2>>,
    sequences: usize,
    rows: usize,
    shape: Shape,
    precision: Precision,
}

impl KeyValues {
    /// Of so many sequences, without a row.
    pub fn new(sequences: usize, shape: Shape, precision: Precision) -> Self {
        Self { values: None, sequences, rows: 0, shape, precision }
    }

    /// Rows of each sequence.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of a row.
    pub fn row_bytes(shape: Shape, precision: Precision) -> u64 {
        precision.words(2 * shape.kv_heads * shape.head_dim) as u64 * 4
    }

    /// Refuses more rows than a binding holds.
    ///
    /// # Errors
    /// [`Error::Limit`].
    ///
    /// # Panics
    /// For half precision on the CPU.
    pub fn check(device: &Device, shape: Shape, precision: Precision, sequences: usize, rows: usize) -> Result<()> {
        assert!(precision == Precision::F32 || !device.is_cpu(), "the CPU holds single precision");
        let each = Self::row_bytes(shape, precision).saturating_mul(sequences as u64);
        let (needed, allowed) = (each.saturating_mul(rows as u64), device.max_binding_bytes());
        if needed <= allowed {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("keys and values of a block for {sequences} texts of {rows} tokens"),
            needed,
            allowed,
            adapter: device.name().into(),
            advice: format!(
                "at most {} tokens of each fit; ask for shorter texts, or for fewer at once",
                allowed / each.max(1)
            ),
        })
    }

    /// Makes room for `rows` rows of each sequence; what was there stays.
    ///
    /// # Errors
    /// [`Error::Limit`] where they outgrow a binding.
    pub fn grow(&mut self, device: &Device, rows: usize) -> Result<()> {
        Self::check(device, self.shape, self.precision, self.sequences, rows)?;
        if rows <= self.rows {
            return Ok(());
        }
        let words = self.precision.words(2 * self.shape.kv_heads * self.shape.head_dim);
        let more = Tensor::<3>::zeros([self.sequences, rows - self.rows, words], device.burn());
        let grown = match self.values.take() {
            Some(values) => Tensor::cat(vec![values.reshape([self.sequences, self.rows, words]), more], 1),
            None => more,
        };
        self.values = Some(grown.reshape([self.sequences * rows, words]));
        self.rows = rows;
        Ok(())
    }

    /// Takes keys and values of new tokens out of `qkv [tokens, (heads + 2 kv_heads) * head_dim]`.
    ///
    /// # Errors
    /// Device errors.
    pub fn append(&mut self, device: &Device, qkv: &Tensor<2>, places: &Places) -> Result<()> {
        let [rows, stride] = qkv.dims();
        let Shape { heads, kv_heads, head_dim } = self.shape;
        let params = AppendKeysParams {
            rows: size(rows),
            width: size(2 * kv_heads * head_dim),
            source_stride: size(stride),
            source_offset: size(heads * head_dim),
            halves: u32::from(self.precision == Precision::F16),
        };
        let values = self.values.take().expect("a cache is grown before it is written");
        if device.is_cpu() {
            let (source, mut values) = (on_cpu(qkv), into_cpu(values));
            cpu::append_keys(&params, slice(&source), places.0.host(), slice_mut(&mut values));
            self.values = Some(from_flex(values));
            return Ok(());
        }
        let (source, values) = (on_gpu(qkv), into_gpu(values));
        let tensors = AppendKeysBindings { source_values: &source, places: places.0.gpu(), key_values: &values };
        let words = self.precision.words(2 * kv_heads * head_dim);
        gpu_of(device).run(&APPEND_KEYS, params, tensors, APPEND_KEYS.workgroups(rows as u64, words as u64))?;
        self.values = Some(from_cube(values));
        Ok(())
    }

    /// Attention of the query heads of `qkv` over what they see, `[tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// Device errors.
    pub fn attend(&self, device: &Device, qkv: &Tensor<2>, places: &Places) -> Result<Tensor<2>> {
        let [rows, stride] = qkv.dims();
        let Shape { heads, kv_heads, head_dim } = self.shape;
        let params = CachedAttentionParams {
            rows: size(rows),
            heads: size(heads),
            kv_heads: size(kv_heads),
            head_dim: size(head_dim),
            stride: size(stride),
            first_group: 0,
            halves: u32::from(self.precision == Precision::F16),
            scale: self.shape.scale(),
        };
        let values = self.values.as_ref().expect("a cache is grown before it is read");
        if device.is_cpu() {
            let (qkv, values) = (on_cpu(qkv), on_cpu(values));
            let mut out = vec![0.0; rows * heads * head_dim];
            cpu::cached_attention(&params, slice(&qkv), places.0.host(), slice(&values), &mut out);
            return Ok(from_vec(out, [rows, heads * head_dim]));
        }
        let (qkv, values) = (on_gpu(qkv), on_gpu(values));
        let out = empty_gpu(&qkv, [rows, heads * head_dim]);
        let tensors = CachedAttentionBindings { qkv: &qkv, places: places.0.gpu(), key_values: &values, out: &out };
        let gpu = gpu_of(device);
        for Piece { first, groups, operations } in pieces(self.operations(places), SHARE * gpu.most_of_dispatch()) {
            let params = CachedAttentionParams { first_group: size(first as usize), ..params };
            gpu.run_counted(&CACHED_ATTENTION, params, tensors, groups, operations)?;
        }
        Ok(from_cube(out))
    }

    /// Floating-point operations of attention, of each query head of each new token.
    fn operations(&self, places: &Places) -> impl Iterator<Item = f64> {
        let Shape { heads, head_dim, .. } = self.shape;
        let of_row = move |place: &[u32]| std::iter::repeat_n(4.0 * f64::from(place[1]) * head_dim as f64, heads);
        places.0.host().chunks(2).flat_map(of_row)
    }
}

/// The self-test: two sequences, one of six tokens and one of three.
pub(crate) const SELF_TEST: &[Case] =
    &[("append_keys", |d| Ok(vec![flat(&sample(d)?.0)])), ("cached_attention", |d| Ok(vec![flat(&sample(d)?.1)]))];

/// Keys and values in f32 and what attention makes of them.
fn sample(device: &Device) -> Result<(Tensor<2>, Tensor<2>)> {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 16 };
    let mut cache = KeyValues::new(2, shape, Precision::F32);
    cache.grow(device, 6)?;
    let qkv = matrix(device, 9, 9, (4 + 2 * 2) * 16);
    let places = (1..=6).map(|keys| [0, keys]).chain((1..=3).map(|keys| [6, keys]));
    let places = Places::new(device, places);
    cache.append(device, &qkv, &places)?;
    let out = cache.attend(device, &qkv, &places)?;
    Ok((cache.values.expect("it was grown"), out))
}
