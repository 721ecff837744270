//! Rows that the tests of all objectives share, and the gate kernel's CPU twin on them.

use super::rule::{BatchStats, GateParams, Rule};
use temper_shaders::{STATS_WIDTH, stat};

use crate::kernels::cpu;
use crate::kernels::row_stats::RowStats;

/// f64 statistics of a row of logits, straight from the definitions, as the reference for what producers deliver.
pub fn row(logits: &[f64], label: usize, top_k: usize) -> RowStats {
    let softmax = |z: &[f64]| -> Vec<f64> {
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|v| (v - max).exp()).sum();
        z.iter().map(|v| (v - max).exp() / sum).collect()
    };
    let entropy = |p: &[f64]| -> f64 { p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum() };
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let full = softmax(logits);
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.truncate(top_k);
    RowStats {
        ce: (max - logits[label] + logits.iter().map(|v| (v - max).exp()).sum::<f64>().ln()) as f32,
        entropy_top_k: entropy(&softmax(&sorted)) as f32,
        entropy_tokens: sorted.len() as u32,
        entropy_full: entropy(&full) as f32,
        collision: full.iter().map(|p| p * p).sum::<f64>() as f32,
    }
}

/// A row given by what the weights read.
pub fn plain(ce: f32, entropy: f32) -> RowStats {
    RowStats { ce, entropy_top_k: entropy, entropy_tokens: 20, entropy_full: entropy, collision: 0.5 }
}

/// The scalars of these rows, over a vocabulary of 50.
pub fn gathered(rule: &dyn Rule, rows: &[RowStats], sequences: &[u32]) -> BatchStats {
    let mut batch = BatchStats::neutral(50);
    rule.fix(&mut batch);
    rule.gather(rows, sequences, &mut batch);
    batch
}

/// 60 varied rows over a vocabulary of 50, in six sequences.
pub fn sample() -> (Vec<RowStats>, Vec<u32>) {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let rows = (0..60)
        .map(|i| {
            let scale = 1.0 + f64::from(i % 12);
            let logits: Vec<f64> = (0..50).map(|_| (next() - 0.5) * 2.0 * scale).collect();
            row(&logits, (next() * 50.0) as usize, 20)
        })
        .collect();
    (rows, (0..60).map(|i| i / 10).collect())
}

/// Weights of these rows by the gate kernel's CPU twin.
pub fn twin(params: &GateParams, rows: &[RowStats]) -> Vec<f32> {
    // Fields of a row whose largest logit is 0 and whose sum of exponentials is 1 are the statistics themselves.
    let fields: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            let mut fields = [0.0; STATS_WIDTH];
            fields[stat::SUM] = 1.0;
            fields[stat::SUM_SHIFTED] = -row.entropy_full;
            fields[stat::SUM_SQUARED] = row.collision;
            fields[stat::LABEL_LOGIT] = -row.ce;
            fields[stat::COUNT] = row.entropy_tokens as f32;
            fields[stat::ENTROPY_TOP_K] = row.entropy_top_k;
            fields
        })
        .collect();
    let mut weights = vec![0.0; rows.len()];
    cpu::gate(params, &fields, &mut weights);
    weights
}

/// Equal within a share of the larger one, or of 1.
pub fn close(a: f32, b: f32, tolerance: f32) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}
