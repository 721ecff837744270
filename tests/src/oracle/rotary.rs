//! Rotary position embedding.

/// Rotates the leading heads of `x [tokens, stride]`, as complex numbers: pair i is multiplied by
/// cos + sin * sqrt(-1) of the token's position (its conjugate with `inverse`).
pub fn rotary(
    x: &mut [f64],
    stride: usize,
    heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    interleaved: bool,
    inverse: bool,
    cos: &[f64],
    sin: &[f64],
    positions: &[u32],
) {
    let half = rotary_dim / 2;
    for (t, &position) in positions.iter().enumerate() {
        for h in 0..heads {
            for i in 0..half {
                let start = t * stride + h * head_dim;
                let (at, other) =
                    if interleaved { (start + 2 * i, start + 2 * i + 1) } else { (start + i, start + i + half) };
                let c = cos[position as usize * half + i];
                let s = if inverse { -sin[position as usize * half + i] } else { sin[position as usize * half + i] };
                let (a, b) = (x[at], x[other]);
                x[at] = a * c - b * s;
                x[other] = a * s + b * c;
            }
        }
    }
}
