//! Causal grouped-query attention within documents, with the full softmax of every query.

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens of the packed stream.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f64,
}

impl Shape {
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Start of token `t`'s query head, and of its key and value head, in `qkv`.
    fn places(&self, t: usize, head: usize) -> (usize, usize, usize) {
        let kv = head / (self.heads / self.kv_heads);
        let row = t * self.width();
        let place = |n: usize| row + n * self.head_dim;
        (place(head), place(self.heads + kv), place(self.heads + self.kv_heads + kv))
    }

    /// Probabilities of token `t`'s keys `start ..= t`, and the log-sum-exp of the scores.
    fn probabilities(&self, qkv: &[f64], start: usize, t: usize, head: usize) -> (Vec<f64>, f64) {
        let (q, ..) = self.places(t, head);
        let mut scores = Vec::new();
        for s in start..=t {
            let (_, k, _) = self.places(s, head);
            let mut dot = 0.0;
            for i in 0..self.head_dim {
                dot += qkv[q + i] * qkv[k + i];
            }
            scores.push(self.scale * dot);
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        (scores.iter().map(|s| (s - max).exp() / sum).collect(), max + sum.ln())
    }
}

/// `out [tokens, heads head_dim]` and `lse [heads, tokens]`.
pub fn attention(shape: &Shape, qkv: &[f64], document_start: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let Shape { tokens, heads, head_dim, .. } = *shape;
    let (mut out, mut all_lse) = (vec![0.0; tokens * heads * head_dim], vec![0.0; heads * tokens]);
    for t in 0..tokens {
        for head in 0..heads {
            let start = document_start[t] as usize;
            let (p, lse) = shape.probabilities(qkv, start, t, head);
            all_lse[head * tokens + t] = lse;
            for (s, p) in (start..=t).zip(p) {
                let (.., v) = shape.places(s, head);
                for i in 0..head_dim {
                    out[(t * heads + head) * head_dim + i] += p * qkv[v + i];
                }
            }
        }
    }
    (out, all_lse)
}

/// Gradient by `qkv`.
pub fn attention_backward(shape: &Shape, qkv: &[f64], document_start: &[u32], dout: &[f64]) -> Vec<f64> {
    let Shape { tokens, heads, head_dim, scale, .. } = *shape;
    let mut gradient = vec![0.0; qkv.len()];
    for t in 0..tokens {
        for head in 0..heads {
            let start = document_start[t] as usize;
            let (p, _) = shape.probabilities(qkv, start, t, head);
            let dout = &dout[(t * heads + head) * head_dim..][..head_dim];
            // dp_s = dout . v_s, then through the softmax: ds = p (dp - sum p dp).
            let mut dp = Vec::new();
            for s in start..=t {
                let (.., v) = shape.places(s, head);
                dp.push((0..head_dim).map(|i| dout[i] * qkv[v + i]).sum::<f64>());
            }
            let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for (n, s) in (start..=t).enumerate() {
                let (q, ..) = shape.places(t, head);
                let (_, k, v) = shape.places(s, head);
                let ds = p[n] * (dp[n] - mean);
                for i in 0..head_dim {
                    gradient[v + i] += p[n] * dout[i];
                    gradient[q + i] += scale * ds * qkv[k + i];
                    gradient[k + i] += scale * ds * qkv[q + i];
                }
            }
        }
    }
    gradient
}
