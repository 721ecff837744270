//! The CPU kernels at every instruction-set level that this machine can pretend to have. A binary of its own with one
//! test, because the limit holds for the whole process.

use temper_conformance::compare::{close, same_bits};
use temper_conformance::oracle::gated_mlp::{GELU_TANH, SILU};
use temper_conformance::oracle::{self, wide};
use temper_conformance::skip::skip;
use temper_engine::inside::kernels::Activation;
use temper_engine::inside::kernels::attention::Shape;
use temper_engine::inside::kernels::cpu;
use temper_engine::inside::kernels::cpu::matmul::{
    Blocks, Layout, PIECE, RowsOf, Segment, Sizes, matmul, matmul_few_rows,
};
use temper_engine::inside::kernels::cpu::simd::{Level, level, limit_level};
use temper_engine::inside::weights::WeightFormat;
use temper_shaders::{LossGradientParams, MAX_TOP_K, RowStatsParams, STATS_WIDTH};

fn numbers(length: usize, seed: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

fn nt(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    let (left, right) = (Layout::rows(sizes.k), Layout::transposed(sizes.k));
    matmul(a, left, b, right, sizes, alpha, accumulate, c, sizes.n);
}

fn nn(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    let (left, right) = (Layout::rows(sizes.k), Layout::rows(sizes.n));
    matmul(a, left, b, right, sizes, alpha, accumulate, c, sizes.n);
}

fn tn(a: &[f32], b: &[f32], sizes: Sizes, alpha: f32, accumulate: bool, c: &mut [f32]) {
    let (left, right) = (Layout::transposed(sizes.m), Layout::rows(sizes.n));
    matmul(a, left, b, right, sizes, alpha, accumulate, c, sizes.n);
}

#[test]
fn every_level_computes_what_the_oracle_says() {
    for limit in [Level::Baseline, Level::Avx2, Level::Avx512] {
        limit_level(limit);
        assert!(level() <= limit);
        if level() < limit {
            let test = every_level_computes_what_the_oracle_says;
            skip(test, "instructions", &format!("in part: this machine has no {limit:?}"));
            continue;
        }
        let name = |what: &str| format!("{what} at {:?}", level());

        for (m, n, k) in [(1, 1, 1), (5, 25, 9), (33, 49, 600), (20, 200, 64)] {
            let (a, b, sizes) = (numbers(m * k, 1), numbers(n * k, 2), Sizes { m, n, k });
            for (a_transposed, b_transposed) in [(false, true), (false, false), (true, false)] {
                let mut c = vec![f32::NAN; m * n];
                match (a_transposed, b_transposed) {
                    (false, true) => nt(&a, &b, sizes, 1.0, false, &mut c),
                    (false, false) => nn(&a, &b, sizes, 1.0, false, &mut c),
                    _ => tn(&a, &b, sizes, 1.0, false, &mut c),
                }
                let want = oracle::matmul::matmul(&a, a_transposed, &b, b_transposed, m, n, k);
                close(&name("matmul"), &c, &want, 2e-6 * k as f64, 1e-5).unwrap();
            }
        }

        for (m, n, k) in [(1, 40, 64), (5, 7, 33), (9, 20, 2100)] {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let mut c = vec![f32::NAN; m * n];
            let rows = Segment { rows: n, stored: RowsOf::Plain(&b) };
            matmul_few_rows(&a, k, &[rows], m, k, 1.0, false, &mut c, n);
            let want = oracle::matmul::matmul(&a, false, &b, true, m, n, k);
            close(&name("a product of few rows"), &c, &want, 2e-6 * k as f64, 1e-5).unwrap();
        }

        // As blocks come, and expanded before.
        for (format, kind) in
            [(WeightFormat::Q4_0, Blocks::Q4_0), (WeightFormat::Q4_1, Blocks::Q4_1), (WeightFormat::Q8_0, Blocks::Q8_0)]
        {
            for (m, n, k) in [(1, 9, 32), (3, 33, 576), (8, 7, 2048), (11, 5, 2080)] {
                let length = format.bytes_for(n * k).unwrap();
                let bytes = (0..length).map(|i| (i * 7919 % 251) as u8).collect();
                let bytes = oracle::dequantize::moderate(format, bytes);
                let (a, plain) = (numbers(m * k, 5), format.to_f32(&bytes));
                let product = |stored| {
                    let mut c = vec![f32::NAN; m * n];
                    matmul_few_rows(&a, k, &[Segment { rows: n, stored }], m, k, 1.0, false, &mut c, n);
                    c
                };
                let piece_bytes = format.bytes_for(PIECE).unwrap();
                let blocks = |kind| RowsOf::Blocks { kind, bytes: &bytes, expand: format.expander(), piece_bytes };
                let (found, expanded) = (product(blocks(kind)), product(blocks(Blocks::Other)));
                same_bits(&name(format.name()), &found, &expanded).unwrap();
                let want = oracle::matmul::matmul(&a, false, &plain, true, m, n, k);
                let largest = want.iter().fold(1.0f64, |most, z| most.max(z.abs()));
                close(&name(format.name()), &found, &want, 1e-5 * largest, 1e-5).unwrap();
            }
        }

        let columns = 1111;
        let mut row: Vec<f32> = numbers(columns, 3).iter().map(|x| x * 9.0).collect();
        row[17] = f32::NEG_INFINITY;
        let (mut top, mut stats) = (vec![f32::NAN; MAX_TOP_K], vec![f32::NAN; STATS_WIDTH]);
        let params = RowStatsParams { rows: 1, cols: columns as u32, column_start: 0, top_k: 20, first: 1 };
        cpu::row_stats(&params, &row, &[5], &mut top, &mut stats);
        let want = oracle::row_stats::row_stats(&row, Some(5), 20);
        let fields =
            [want.max, want.sum, want.u, want.sum_sq, want.label_logit, 0.0, want.count as f64, want.entropy_top_k];
        close(&name("row_stats"), &stats, &fields, 2e-5, 1e-5).unwrap();
        let want = oracle::loss_gradient::loss_gradient(&row, Some(5), 0.5);
        let params = LossGradientParams { rows: 1, cols: columns as u32, column_start: 0 };
        cpu::loss_gradient(&params, &mut row, &[5], &[0.5], &stats);
        close(&name("loss_gradient"), &row, &want, 1e-7, 1e-5).unwrap();

        let (heads, kv_heads, head_dim, tokens) = (4, 2, 24, 70);
        let shape = Shape { heads, kv_heads, head_dim };
        let plain = oracle::attention::Shape { tokens, heads, kv_heads, head_dim, scale: f64::from(shape.scale()) };
        let (qkv, dout) = (numbers(tokens * shape.width(), 4), numbers(tokens * heads * head_dim, 5));
        let starts: Vec<u32> = (0..tokens as u32).map(|t| if t < 30 { 0 } else { 30 }).collect();
        let (mut out, mut lse) = (vec![f32::NAN; dout.len()], vec![f32::NAN; heads * tokens]);
        cpu::attention(shape, &qkv, &starts, &mut out, &mut lse);
        let (want, want_lse) = oracle::attention::attention(&plain, &wide(&qkv), &starts);
        close(&name("attention"), &out, &want, 3e-6, 1e-5).unwrap();
        close(&name("attention's log-sum-exp"), &lse, &want_lse, 1e-5, 1e-5).unwrap();
        let mut gradient = vec![f32::NAN; qkv.len()];
        cpu::attention_backward(shape, &qkv, &starts, &out, &lse, &dout, &mut gradient);
        let want = oracle::attention::attention_backward(&plain, &wide(&qkv), &starts, &wide(&dout));
        close(&name("attention_backward"), &gradient, &want, 2e-5, 1e-4).unwrap();

        let gate_up = numbers(2 * 333, 6);
        for (activation, exact) in [(Activation::Silu, SILU), (Activation::GeluTanh, GELU_TANH)] {
            let mut y = vec![f32::NAN; 333];
            cpu::gated_mlp(activation, &gate_up, 333, &mut y);
            let want = oracle::gated_mlp::gated_mlp(exact, &wide(&gate_up), 333);
            close(&name("gated_mlp"), &y, &want, 1e-6, 1e-5).unwrap();
        }

        for format in WeightFormat::ALL {
            let bytes = (0..3 * format.block_bytes()).map(|i| (i * 7919 % 251) as u8).collect();
            let stored = oracle::dequantize::moderate(format, bytes);
            let definition = oracle::dequantize::definition(format);
            let want: Vec<f32> = (0..3 * format.block_elements()).map(|i| definition(&stored, i) as f32).collect();
            same_bits(&name(format.name()), &format.to_f32(&stored), &want).unwrap();
        }
    }
}
