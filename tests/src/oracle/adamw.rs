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
