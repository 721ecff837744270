//! Inputs that the conformance tests of the kernels and of the loss share: numbers that never change, rows that break
//! careless statistics, tensors on a device, and device memory that was dirtied before a kernel gets it.

use burn::tensor::{Tensor, TensorData};
use temper_engine::Device;

/// Numbers in -1 .. 1 that mean the same for ever: xorshift.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub fn vec(&mut self, length: usize, size: f32) -> Vec<f32> {
        (0..length).map(|_| size * self.number()).collect()
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> u32 {
        (((self.number() + 1.0) / 2.0 * end as f32) as usize).min(end - 1) as u32
    }
}

/// Rows of logits that break careless statistics, each with a name. The logit of column `columns / 2` is finite in all.
pub fn poisoned_rows(columns: usize, random: &mut Random) -> Vec<(&'static str, Vec<f32>)> {
    let middle = columns / 2;
    let mut one_hot = vec![-1e4; columns];
    one_hot[middle] = 1e4;
    let mut masked = random.vec(columns, 5.0);
    masked.iter_mut().step_by(2).for_each(|z| *z = f32::NEG_INFINITY);
    masked[middle] = 1.0;
    let mut few = vec![f32::NEG_INFINITY; columns];
    few[middle] = 0.5;
    few[columns - 1] = 1.5;
    let offset = |by: f32, random: &mut Random| random.vec(columns, 5.0).iter().map(|z| z + by).collect();
    vec![
        ("flat", vec![0.25; columns]),
        ("random", random.vec(columns, 8.0)),
        ("peaked", random.vec(columns, 60.0)),
        ("offset by 1e4", offset(1e4, random)),
        ("offset by -1e4", offset(-1e4, random)),
        ("denormals", random.vec(columns, 1e-40)),
        ("ties across the edge of the top K", (0..columns).map(|c| ((c * 7) % 9) as f32).collect()),
        ("rising", (0..columns).map(|c| c as f32 * 0.01).collect()),
        ("falling", (0..columns).map(|c| c as f32 * -0.01).collect()),
        ("one-hot", one_hot),
        ("half masked", masked),
        ("two left", few),
        ("one lane", (0..columns).map(|c| if c % 256 == 3 { 5.0 + c as f32 * 1e-3 } else { -3.0 }).collect()),
    ]
}

pub fn matrix(device: &Device, values: &[f32], shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device.burn())
}
