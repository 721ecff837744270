//! AdamW (Loshchilov and Hutter 2019) as PyTorch computes it, on f32 or on what takes fewer bits, and the sum of squares
//! that clipping needs.

use temper_shaders::compact::{BLOCK, FIRST_BASE, FIRST_LEAST, SECOND_BASE, SECOND_LEAST};
use temper_shaders::{AdamwCompactParams, AdamwParams, mix_bits, random_bits};

use super::par;
use super::simd::{sum_lanes, vectorised};

/// `g' = scale g; p *= 1 - lr wd; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2;
/// p -= lr / bias1 * m / (sqrt(v) / sqrt(bias2) + epsilon)`, all in place.
pub fn adamw(params: &AdamwParams, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    assert!(gradient.len() == parameter.len() && first.len() == parameter.len() && second.len() == parameter.len());
    let gradient_pieces = |index: usize, length: usize| &gradient[index * par::ELEMENTS..][..length];
    let second = par::Shared::new(second);
    par::pieces2(parameter, par::ELEMENTS, first, par::ELEMENTS, |index, parameter, first| {
        // SAFETY: each task takes its own piece.
        let second = unsafe { second.slice(index * par::ELEMENTS, parameter.len()) };
        step(parameter, gradient_pieces(index, first.len()), first, second, params);
    });
}

/// Weights as [`adamw_compact`] takes them; halves are little-endian bytes.
pub enum WeightsMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// bf16, rounded by chance.
    Bf16(&'a mut [u8]),
    /// bf16, and the lower halves of single precision.
    Split(&'a mut [u8], &'a mut [u8]),
}

/// Moments as [`adamw_compact`] takes them: the first and the second.
pub enum MomentsMut<'a> {
    /// Single precision.
    F32([&'a mut [f32]; 2]),
    /// Codes, and a scale for each block of [`BLOCK`] elements.
    Coded([&'a mut [u8]; 2], [&'a mut [f32]; 2]),
}

/// The step of [`adamw`] on weights in bf16, on moments in 8 bits, or on both, block by block: each is made f32, stepped, and
/// stored again as the header of `adamw_compact.wgsl` says. How weights and moments are held is read from the slices.
pub fn adamw_compact(params: &AdamwCompactParams, weights: WeightsMut, gradient: &[f32], moments: MomentsMut) {
    let count = gradient.len();
    let weights = match weights {
        WeightsMut::F32(values) => SharedWeights::F32(shared(values, count)),
        WeightsMut::Bf16(upper) => SharedWeights::Bf16(shared(upper, 2 * count)),
        WeightsMut::Split(upper, lower) => SharedWeights::Split(shared(upper, 2 * count), shared(lower, 2 * count)),
    };
    let moments = match moments {
        MomentsMut::F32(both) => SharedMoments::F32(both.map(|values| shared(values, count))),
        MomentsMut::Coded(codes, scales) => SharedMoments::Coded(
            codes.map(|codes| shared(codes, count)),
            scales.map(|scales| shared(scales, count.div_ceil(BLOCK))),
        ),
    };
    let plain = params.plain();
    const TOGETHER: usize = par::ELEMENTS / BLOCK;
    let blocks = count.div_ceil(BLOCK);
    par::tasks(blocks.div_ceil(TOGETHER), |task| {
        for block in task * TOGETHER..((task + 1) * TOGETHER).min(blocks) {
            let (start, length) = (block * BLOCK, BLOCK.min(count - block * BLOCK));
            let (mut p, mut m, mut v) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
            let (p, m, v) = (&mut p[..length], &mut m[..length], &mut v[..length]);
            let mut random = [0; BLOCK];
            let random = &mut random[..length];
            draw(params.seed_low, params.seed_high, start as u32, random);
            // SAFETY: each block is taken by one task, once.
            unsafe {
                weights.read(start, p);
                moments.read(start, m, v);
                step(p, &gradient[start..start + length], m, v, &plain);
                weights.write(start, p, random);
                moments.write(start, m, v, random);
            }
        }
    });
}

fn shared<T>(data: &mut [T], length: usize) -> par::Shared<T> {
    assert_eq!(data.len(), length, "one for each element");
    par::Shared::new(data)
}

enum SharedWeights {
    F32(par::Shared<f32>),
    Bf16(par::Shared<u8>),
    Split(par::Shared<u8>, par::Shared<u8>),
}

impl SharedWeights {
    /// # Safety
    /// As [`par::Shared::slice`] at these elements.
    unsafe fn read(&self, start: usize, out: &mut [f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(values) => out.copy_from_slice(values.slice(start, out.len())),
                Self::Bf16(upper) => read_bf16(upper.slice(2 * start, 2 * out.len()), out),
                Self::Split(upper, lower) => {
                    let length = 2 * out.len();
                    read_split(upper.slice(2 * start, length), lower.slice(2 * start, length), out);
                }
            }
        }
    }

    /// # Safety
    /// As [`par::Shared::slice`] at these elements.
    unsafe fn write(&self, start: usize, values: &[f32], random: &[u32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(all) => all.slice(start, values.len()).copy_from_slice(values),
                Self::Bf16(upper) => write_bf16(values, random, upper.slice(2 * start, 2 * values.len())),
                Self::Split(upper, lower) => {
                    let length = 2 * values.len();
                    split(values, upper.slice(2 * start, length), lower.slice(2 * start, length));
                }
            }
        }
    }
}

enum SharedMoments {
    F32([par::Shared<f32>; 2]),
    Coded([par::Shared<u8>; 2], [par::Shared<f32>; 2]),
}

impl SharedMoments {
    /// # Safety
    /// As [`par::Shared::slice`] at these elements and their block.
    unsafe fn read(&self, start: usize, m: &mut [f32], v: &mut [f32]) {
        let length = m.len();
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32([first, second]) => {
                    m.copy_from_slice(first.slice(start, length));
                    v.copy_from_slice(second.slice(start, length));
                }
                Self::Coded([first, second], [first_scale, second_scale]) => {
                    first_values(first.slice(start, length), first_scale.slice(start / BLOCK, 1)[0], m);
                    second_values(second.slice(start, length), second_scale.slice(start / BLOCK, 1)[0], v);
                }
            }
        }
    }

    /// # Safety
    /// As [`par::Shared::slice`] at these elements and their block.
    unsafe fn write(&self, start: usize, m: &[f32], v: &mut [f32], random: &mut [u32]) {
        let length = m.len();
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32([first, second]) => {
                    first.slice(start, length).copy_from_slice(m);
                    second.slice(start, length).copy_from_slice(v);
                }
                Self::Coded([first, second], [first_scale, second_scale]) => {
                    random.iter_mut().for_each(|random| *random = mix_bits(*random));
                    let scale = &mut first_scale.slice(start / BLOCK, 1)[0];
                    first_codes(m, random, scale, first.slice(start, length));
                    let scale = &mut second_scale.slice(start / BLOCK, 1)[0];
                    second_codes(v, random, scale, second.slice(start, length));
                }
            }
        }
    }
}

/// The f32 of a bf16 and the lower half beside it.
#[inline(always)]
fn whole(upper: [u8; 2], lower: [u8; 2]) -> f32 {
    let (upper, lower) = (u32::from(u16::from_le_bytes(upper)) << 16, i16::from_le_bytes(lower));
    f32::from_bits(upper.wrapping_add_signed(lower.into()))
}

/// Sum of squares, as gradient clipping needs it. Pieces of fixed size are summed in f32 lanes of at most 1024 terms and
/// combined in f64.
pub fn sum_squares(x: &[f32]) -> f64 {
    let parts = par::map(x.len().div_ceil(par::ELEMENTS), |index| {
        let start = index * par::ELEMENTS;
        sum_squares_piece(&x[start..x.len().min(start + par::ELEMENTS)])
    });
    parts.iter().sum()
}

const EXPONENT: u32 = 0x7f80_0000;

vectorised! {
    fn step<FMA>(parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], params: &AdamwParams) {
        let decay = 1.0 - params.learning_rate * params.weight_decay;
        let rate = params.learning_rate / params.bias1;
        let root = params.bias2.sqrt();
        let AdamwParams { beta1, beta2, epsilon, gradient_scale, .. } = *params;
        for ((p, g), (m, v)) in parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)) {
            let g = g * gradient_scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = *p * decay - rate * (*m / (v.sqrt() / root + epsilon));
        }
    }

    fn draw<FMA>(seed_low: u32, seed_high: u32, start: u32, out: &mut [u32]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = random_bits(seed_low, seed_high, start.wrapping_add(i as u32));
        }
    }

    fn read_bf16<FMA>(upper: &[u8], out: &mut [f32]) {
        for (upper, out) in upper.as_chunks::<2>().0.iter().zip(out) {
            *out = whole(*upper, [0, 0]);
        }
    }

    /// Single precision out of its two halves, as little-endian bytes.
    pub fn read_split<FMA>(upper: &[u8], lower: &[u8], out: &mut [f32]) {
        for ((upper, lower), out) in upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0).zip(out) {
            *out = whole(*upper, *lower);
        }
    }

    fn write_bf16<FMA>(values: &[f32], random: &[u32], upper: &mut [u8]) {
        for ((value, random), upper) in values.iter().zip(random).zip(upper.as_chunks_mut::<2>().0) {
            let bits = value.to_bits();
            let rounded = if bits & EXPONENT == EXPONENT { bits } else { bits.wrapping_add(random >> 16) };
            *upper = ((rounded >> 16) as u16).to_le_bytes();
        }
    }

    /// Cuts single precision into bf16, rounded to nearest, and what is to be added to its bits.
    pub fn split<FMA>(values: &[f32], upper: &mut [u8], lower: &mut [u8]) {
        for ((value, upper), lower) in values.iter().zip(upper.as_chunks_mut::<2>().0).zip(lower.as_chunks_mut::<2>().0) {
            let bits = value.to_bits();
            let finite = bits & EXPONENT != EXPONENT;
            let rounded = if finite { bits.wrapping_add(0x8000) } else { bits };
            *upper = ((rounded >> 16) as u16).to_le_bytes();
            *lower = (if finite { bits as u16 } else { 0 }).to_le_bytes();
        }
    }

    /// First moments out of their codes.
    pub fn first_values<FMA>(codes: &[u8], scale: f32, out: &mut [f32]) {
        for (&code, out) in codes.iter().zip(out) {
            let (size, sign) = (u32::from(code & 0x7f), u32::from(code & 0x80) << 24);
            let share = if size == 0 { 0 } else { (size + FIRST_BASE) << 20 };
            *out = f32::from_bits(share | sign) * scale;
        }
    }

    /// Second moments out of the codes of their roots.
    pub fn second_values<FMA>(codes: &[u8], scale: f32, out: &mut [f32]) {
        for (&code, out) in codes.iter().zip(out) {
            let code = u32::from(code);
            let root = f32::from_bits(if code == 0 { 0 } else { (code + SECOND_BASE) << 19 }) * scale;
            *out = root * root;
        }
    }

    fn first_codes<FMA>(values: &[f32], random: &[u32], scale: &mut f32, codes: &mut [u8]) {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for ((value, random), code) in values.iter().zip(random).zip(codes) {
            let random = random >> 16;
            let size = if largest > 0.0 { value.abs() / largest } else { 0.0 };
            let above = ((size.max(FIRST_LEAST).to_bits().wrapping_add(random << 4)) >> 20) - FIRST_BASE;
            let below = u32::from(random as i32 as f32 * (1.0 / 65536.0) * FIRST_LEAST < size);
            let size = if size < FIRST_LEAST { below } else { above.min(0x7f) };
            *code = (size | value.to_bits() >> 24 & 0x80) as u8;
        }
        *scale = largest;
    }

    fn second_codes<FMA>(values: &mut [f32], random: &[u32], scale: &mut f32, codes: &mut [u8]) {
        let mut largest = 0.0f32;
        for value in values.iter_mut() {
            *value = value.sqrt();
            largest = largest.max(*value);
        }
        for ((root, random), code) in values.iter().zip(random).zip(codes) {
            let size = if largest > 0.0 { root / largest } else { 0.0 };
            let above = ((size.max(SECOND_LEAST).to_bits().wrapping_add((random & 0xffff) << 3)) >> 19) - SECOND_BASE;
            *code = if size < SECOND_LEAST { u32::from(size > 0.0) } else { above.min(0xff) } as u8;
        }
        *scale = largest;
    }

    fn sum_squares_piece<FMA>(x: &[f32]) -> f64 {
        let mut total = 0.0f64;
        for part in x.chunks(1024) {
            let mut lanes = [0.0f32; 16];
            let (whole, rest) = part.as_chunks::<16>();
            for chunk in whole {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x * x;
                }
            }
            for (lane, x) in lanes.iter_mut().zip(rest) {
                *lane += x * x;
            }
            total += f64::from(sum_lanes(&lanes));
        }
        total
    }
}
