//! The CPU kernels at every instruction-set level that this machine can pretend to have. A binary of its own with one
//! test, because the limit holds for the whole process.

use temper_conformance::compare::{close, same_bits};
use temper_conformance::oracle::{self, wide};
use temper_engine::kernels::cpu::matmul::Sizes;
use temper_engine::kernels::cpu::simd::{Level, level, limit_level};
use temper_engine::kernels::cpu::{self, STAT_FIELDS, TOP_SLOTS};
use temper_engine::weights::WeightFormat;

fn numbers(length: usize, seed: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
}

#[test]
fn every_level_computes_what_the_oracle_says() {
    for limit in [Level::Baseline, Level::Avx2, Level::Avx512] {
        limit_level(limit);
        assert!(level() <= limit);
        let name = |what: &str| format!("{what} at {:?}", level());

        for (m, n, k) in [(1, 1, 1), (5, 25, 9), (33, 49, 600), (20, 200, 64)] {
            let (a, b, sizes) = (numbers(m * k, 1), numbers(n * k, 2), Sizes { m, n, k });
            for (a_transposed, b_transposed) in [(false, true), (false, false), (true, false)] {
                let mut c = vec![f32::NAN; m * n];
                match (a_transposed, b_transposed) {
                    (false, true) => cpu::matmul_nt(&a, &b, sizes, 1.0, false, &mut c),
                    (false, false) => cpu::matmul_nn(&a, &b, sizes, 1.0, false, &mut c),
                    _ => cpu::matmul_tn(&a, &b, sizes, 1.0, false, &mut c),
                }
                let want = oracle::matmul::matmul(&a, a_transposed, &b, b_transposed, m, n, k);
                close(&name("matmul"), &c, &want, 2e-6 * k as f64, 1e-5).unwrap();
            }
        }

        let columns = 1111;
        let mut row: Vec<f32> = numbers(columns, 3).iter().map(|x| x * 9.0).collect();
        row[17] = f32::NEG_INFINITY;
        let (mut top, mut stats) = (vec![f32::NAN; TOP_SLOTS], vec![f32::NAN; STAT_FIELDS]);
        cpu::row_stats(&row, columns, 0, &[5], 20, true, &mut top, &mut stats);
        let want = oracle::row_stats::row_stats(&row, Some(5), 20);
        let fields = [want.max, want.sum, want.u, want.sum_sq, want.label_logit, 0.0, want.lse, want.entropy_top_k];
        close(&name("row_stats"), &stats, &fields, 2e-5, 1e-5).unwrap();
        let want = oracle::loss_gradient::loss_gradient(&row, Some(5), 0.5);
        cpu::loss_gradient(&mut row, columns, 0, &[5], &[0.5], &stats);
        close(&name("loss_gradient"), &row, &want, 1e-7, 1e-5).unwrap();

        let (heads, kv_heads, head_dim, tokens) = (4, 2, 24, 70);
        let shape = cpu::AttentionShape { tokens, heads, kv_heads, head_dim, scale: 0.2 };
        let plain = oracle::attention::Shape { tokens, heads, kv_heads, head_dim, scale: f64::from(0.2f32) };
        let (qkv, dout) = (numbers(tokens * shape.width(), 4), numbers(tokens * heads * head_dim, 5));
        let starts: Vec<u32> = (0..tokens as u32).map(|t| if t < 30 { 0 } else { 30 }).collect();
        let (mut out, mut lse) = (vec![f32::NAN; dout.len()], vec![f32::NAN; heads * tokens]);
        cpu::attention(&shape, &qkv, &starts, &mut out, &mut lse);
        let (want, want_lse) = oracle::attention::attention(&plain, &wide(&qkv), &starts);
        close(&name("attention"), &out, &want, 3e-6, 1e-5).unwrap();
        close(&name("attention's log-sum-exp"), &lse, &want_lse, 1e-5, 1e-5).unwrap();
        let mut gradient = vec![f32::NAN; qkv.len()];
        cpu::attention_backward(&shape, &qkv, &starts, &out, &lse, &dout, &mut gradient);
        let want = oracle::attention::attention_backward(&plain, &wide(&qkv), &starts, &wide(&dout));
        close(&name("attention_backward"), &gradient, &want, 2e-5, 1e-4).unwrap();

        let gate_up = numbers(2 * 333, 6);
        let mut y = vec![f32::NAN; 333];
        cpu::gated_mlp(&gate_up, 333, &mut y);
        close(&name("gated_mlp"), &y, &oracle::gated_mlp::gated_mlp(&wide(&gate_up), 333), 1e-6, 1e-5).unwrap();

        for format in WeightFormat::ALL {
            let bytes = (0..3 * format.block_bytes()).map(|i| (i * 7919 % 251) as u8).collect();
            let stored = oracle::dequantize::moderate(format, bytes);
            let definition = oracle::dequantize::definition(format);
            let want: Vec<f32> = (0..3 * format.block_elements()).map(|i| definition(&stored, i) as f32).collect();
            same_bits(&name(format.name()), &format.to_f32(&stored), &want).unwrap();
        }
    }
}
