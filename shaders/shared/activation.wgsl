// Which activation a gated MLP has; silu is 0.
const GELU_TANH: u32 = 1u;
// Farther from 0 the sigmoid of gelu is exactly 0 or 1 in f32, while its cube might overflow.
const FAR: f32 = 12.0;

// What the sigmoid is of in an activation x σ(v), and the slope of v by x: x itself for silu; for gelu by tanh
// 2 sqrt(2/π) (x + 0.044715 x³), since (1 + tanh u) / 2 = σ(2 u).
fn inside_sigmoid(x: f32, activation: u32) -> vec2<f32> {
    if (activation != GELU_TANH) {
        return vec2<f32>(x, 1.0);
    }
    let near = clamp(x, -FAR, FAR);
    let square = near * near;
    let slope = select(0.0, 1.5957692 + 0.21406445 * square, abs(x) < FAR);
    return vec2<f32>(near * (1.5957692 + 0.071354814 * square), slope);
}

