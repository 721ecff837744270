//! AdamW as torch.optim.AdamW defines it.

/// One step's constants.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Factor on the gradient.
    pub gradient_scale: f64,
    /// Step, from 1.
    pub step: i32,
}

/// Parameter, first and second moment after the step.
pub fn adamw(p: f64, g: f64, m: f64, v: f64, s: &Settings) -> (f64, f64, f64) {
    let g = g * s.gradient_scale;
    let p = p - s.learning_rate * s.weight_decay * p;
    let m = s.beta1 * m + (1.0 - s.beta1) * g;
    let v = s.beta2 * v + (1.0 - s.beta2) * g * g;
    let m_hat = m / (1.0 - s.beta1.powi(s.step));
    let v_hat = v / (1.0 - s.beta2.powi(s.step));
    (p - s.learning_rate * m_hat / (v_hat.sqrt() + s.epsilon), m, v)
}

/// The bf16 below a number and the one above it, in magnitude; both the number itself where that is a bf16.
pub fn bf16_around(x: f64) -> [f64; 2] {
    if x == 0.0 {
        return [0.0, 0.0];
    }
    // 8 bits of mantissa with the leading one: the distance is 2^-7 of the power of two below.
    let distance = 2f64.powi(x.abs().log2().floor() as i32 - 7);
    let below = (x / distance).trunc() * distance;
    [below, if below == x { x } else { below + distance.copysign(x) }]
}

/// Numbers that codes of 8 bits stand for, ascending, as shares of a block's largest: 0, and floats with so many bits of
/// mantissa up to 1, of which there are `codes` with 0.
pub fn code_values(mantissa: u32, codes: usize) -> Vec<f64> {
    let per_power = 2usize.pow(mantissa);
    let mut values: Vec<f64> = (0..codes - 1)
        .map(|down| {
            if down == 0 {
                return 1.0;
            }
            let (power, step) = ((down - 1) / per_power + 1, (down - 1) % per_power + 1);
            // Below 1 the distance is that of the numbers from a half to 1.
            2f64.powi(-(power as i32)) * (2.0 - step as f64 / per_power as f64)
        })
        .collect();
    values.push(0.0);
    values.reverse();
    values
}

/// The values below and above a share, the same where it is one.
pub fn around(values: &[f64], share: f64) -> [f64; 2] {
    let above = values.iter().position(|&value| value >= share).unwrap_or(values.len() - 1);
    if values[above] == share { [share, share] } else { [values[above.saturating_sub(1)], values[above]] }
}
