//! Every CPU kernel against its f64 oracle, at sizes around each tile edge, with poisoned inputs and outputs that were
//! filled with a sentinel, so that "wrote nothing" and "wrote zero" differ.

use temper_conformance::compare::{close, same_bits};
use temper_conformance::oracle::gated_mlp::{GELU_TANH, SILU};
use temper_conformance::oracle::{self, wide};
use temper_engine::inside::kernels::Activation;
use temper_engine::inside::kernels::attention::Shape;
use temper_engine::inside::kernels::cpu;
use temper_engine::inside::kernels::cpu::gate::kind;
use temper_engine::inside::kernels::cpu::matmul::{Layout, Sizes, matmul, matmul_by_gemm, matmul_serial};
use temper_engine::inside::weights::WeightFormat;
use temper_shaders::{
    AdamwParams, CopyColumnsParams, DropoutParams, GateParams, LossGradientParams, MAX_TOP_K, NO_LABEL, RmsNormParams,
    RotaryParams, RowStatsParams, STATS_WIDTH, stat,
};

/// What outputs hold before a kernel runs: no result is ever this.
const SENTINEL: f32 = -7.77e33;

/// Numbers in -1 .. 1 that mean the same for ever: xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn vec(&mut self, length: usize, size: f32) -> Vec<f32> {
        (0..length).map(|_| size * self.next()).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (128.0 * self.next() + 128.0) as u8).collect()
    }
}

fn sentinels(length: usize) -> Vec<f32> {
    vec![SENTINEL; length]
}

/// Runs `work` on pools of one, two and three threads and demands the same bits from each.
fn same_on_any_number_of_threads(name: &str, work: impl Fn() -> Vec<f32> + Send + Sync) {
    let on = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&work);
    let one = on(1);
    same_bits(&format!("{name} on 2 threads"), &on(2), &one).unwrap();
    same_bits(&format!("{name} on 3 threads"), &on(3), &one).unwrap();
}

// Matrix products.

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
fn products_of_every_layout_equal_the_oracle_around_every_tile_edge() {
    let mut random = Random::new(1);
    let sizes = [
        (1, 1, 1),
        (1, 48, 7),
        (3, 15, 2),
        (7, 16, 5),
        (8, 17, 16),
        (9, 47, 17),
        (16, 48, 31),
        (17, 49, 33),
        (24, 96, 12),
        (25, 97, 40),
        (5, 200, 64),
        (33, 193, 70),
        (40, 385, 129),
        (12, 50, 511),
        (26, 20, 512),
        (13, 30, 513),
        (9, 33, 1030),
        (64, 300, 100),
    ];
    for (m, n, k) in sizes {
        let (a, b, before) = (random.vec(m * k, 1.0), random.vec(k * n, 1.0), random.vec(m * n, 1.0));
        for (name, a_transposed, b_transposed) in [("nt", false, true), ("nn", false, false), ("tn", true, false)] {
            let product = oracle::matmul::matmul(&a, a_transposed, &b, b_transposed, m, n, k);
            for (alpha, accumulate) in [(1.0, false), (-0.5, false), (2.0, true)] {
                let mut c = if accumulate { before.clone() } else { sentinels(m * n) };
                let sizes = Sizes { m, n, k };
                match name {
                    "nt" => nt(&a, &b, sizes, alpha, accumulate, &mut c),
                    "nn" => nn(&a, &b, sizes, alpha, accumulate, &mut c),
                    _ => tn(&a, &b, sizes, alpha, accumulate, &mut c),
                }
                let start = |i: usize| if accumulate { f64::from(before[i]) } else { 0.0 };
                let want: Vec<f64> = (0..m * n).map(|i| start(i) + f64::from(alpha) * product[i]).collect();
                close(&format!("{name} {m} x {n} x {k}"), &c, &want, 1e-5 * (k as f64).sqrt(), 1e-5).unwrap();
            }
        }
    }
}

#[test]
fn a_product_of_depth_zero_is_zero_or_leaves_what_it_is_added_to() {
    let sizes = Sizes { m: 3, n: 5, k: 0 };
    let mut c = sentinels(15);
    nt(&[], &[], sizes, 1.0, true, &mut c);
    assert_eq!(c, sentinels(15));
    nt(&[], &[], sizes, 1.0, false, &mut c);
    assert_eq!(c, vec![0.0; 15]);
}

#[test]
fn strided_products_read_and_write_only_their_own_columns() {
    let mut random = Random::new(2);
    for (m, n, k) in [(5, 7, 9), (20, 64, 64), (70, 50, 33)] {
        let (a_stride, b_stride, c_stride) = (k + 3, n + 5, n + 2);
        // Whatever lies between the rows is NaN: reading it would show.
        let strided = |rows: usize, width: usize, stride: usize, random: &mut Random| {
            let mut x = vec![f32::NAN; rows * stride];
            for row in x.chunks_mut(stride) {
                row[..width].copy_from_slice(&random.vec(width, 1.0));
            }
            x
        };
        let (a, b) = (strided(m, k, a_stride, &mut random), strided(k, n, b_stride, &mut random));
        let dense = |x: &[f32], width: usize, stride: usize| -> Vec<f32> {
            x.chunks(stride).flat_map(|row| row[..width].to_vec()).collect()
        };
        let want = oracle::matmul::matmul(&dense(&a, k, a_stride), false, &dense(&b, n, b_stride), false, m, n, k);
        for run in [matmul_serial, matmul, matmul_by_gemm] {
            let mut c = sentinels(m * c_stride);
            let (a_layout, b_layout) = (Layout::rows(a_stride), Layout::rows(b_stride));
            run(&a, a_layout, &b, b_layout, Sizes { m, n, k }, 1.0, false, &mut c, c_stride);
            close("strided", &dense(&c, n, c_stride), &want, 1e-4, 1e-5).unwrap();
            assert!(c.chunks(c_stride).all(|row| row[n..].iter().all(|&x| x == SENTINEL)), "columns between rows");
        }
    }
}

#[test]
fn products_have_the_same_bits_on_any_number_of_threads() {
    let mut random = Random::new(3);
    for (m, n, k) in [(65, 500, 600), (200, 40, 128), (16, 576, 300)] {
        let (a, b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
        let sizes = Sizes { m, n, k };
        same_on_any_number_of_threads("nt", || {
            let mut c = sentinels(m * n);
            nt(&a, &b, sizes, 1.0, false, &mut c);
            c
        });
        let mut serial = sentinels(m * n);
        matmul_serial(&a, Layout::rows(k), &b, Layout::transposed(k), sizes, 1.0, false, &mut serial, n);
        let mut shared = sentinels(m * n);
        nt(&a, &b, sizes, 1.0, false, &mut shared);
        same_bits("serial", &serial, &shared).unwrap();
    }
}

#[test]
fn a_nan_in_one_row_of_a_product_stays_in_that_row() {
    let mut random = Random::new(4);
    let (m, n, k) = (20, 70, 30);
    let (mut a, b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
    a[11 * k + 3] = f32::NAN;
    let mut c = sentinels(m * n);
    nt(&a, &b, Sizes { m, n, k }, 1.0, false, &mut c);
    for (r, row) in c.chunks(n).enumerate() {
        assert!(row.iter().all(|x| x.is_nan() == (r == 11)), "row {r}");
    }
}

// The loss head.

fn row_stats(
    logits: &[f32],
    columns: usize,
    column_start: usize,
    labels: &[u32],
    top_k: usize,
    first: bool,
    top: &mut [f32],
    stats: &mut [f32],
) {
    let params = RowStatsParams {
        rows: labels.len() as u32,
        cols: columns as u32,
        column_start: column_start as u32,
        top_k: top_k as u32,
        first: u32::from(first),
    };
    cpu::row_stats(&params, logits, labels, top, stats);
}

fn loss_gradient(
    logits: &mut [f32],
    columns: usize,
    column_start: usize,
    labels: &[u32],
    weight: &[f32],
    stats: &[f32],
) {
    let params =
        LossGradientParams { rows: labels.len() as u32, cols: columns as u32, column_start: column_start as u32 };
    cpu::loss_gradient(&params, logits, labels, weight, stats);
}

/// Rows that break careless statistics, each with a name.
fn poisoned_rows(columns: usize, random: &mut Random) -> Vec<(&'static str, Vec<f32>)> {
    let mut rows: Vec<(&'static str, Vec<f32>)> = vec![
        ("flat", vec![0.25; columns]),
        ("random", random.vec(columns, 8.0)),
        ("peaked", random.vec(columns, 60.0)),
        ("offset by 1e4", random.vec(columns, 5.0).iter().map(|z| z + 1e4).collect()),
        ("offset by -1e4", random.vec(columns, 5.0).iter().map(|z| z - 1e4).collect()),
        ("denormals", random.vec(columns, 1e-40)),
        ("ties across the top K's edge", (0..columns).map(|c| ((c * 7) % 9) as f32).collect()),
        ("rising", (0..columns).map(|c| c as f32 * 0.01).collect()),
        ("falling", (0..columns).map(|c| c as f32 * -0.01).collect()),
    ];
    let mut one_hot = vec![-1e4; columns];
    one_hot[columns / 2] = 1e4;
    rows.push(("one-hot", one_hot));
    let mut masked = random.vec(columns, 5.0);
    masked.iter_mut().step_by(2).for_each(|z| *z = f32::NEG_INFINITY);
    masked[columns / 2] = 1.0;
    rows.push(("half masked", masked));
    let mut few = vec![f32::NEG_INFINITY; columns];
    few[columns / 2] = 0.5;
    few[columns - 1] = 1.5;
    rows.push(("two left", few));
    // All large values in one class of columns.
    rows.push(("one class", (0..columns).map(|c| if c % 256 == 3 { 5.0 + c as f32 * 1e-3 } else { -3.0 }).collect()));
    rows
}

fn assert_stats(name: &str, stats: &[f32], top: &[f32], want: &oracle::row_stats::RowStats, top_k: usize) {
    let fields = [want.max, want.sum, want.u, want.sum_sq, want.label_logit, want.nonfinite as f64, want.count as f64];
    close(&format!("{name}: statistics"), &stats[..7], &fields, 2e-5, 2e-5).unwrap();
    close(&format!("{name}: entropy"), &stats[7..], &[want.entropy_top_k], 1e-6, 1e-5).unwrap();
    assert!(stats[7] >= 0.0 && f64::from(stats[7]) <= (top_k as f64).ln() + 1e-6, "{name}: entropy {}", stats[7]);
    let kept: Vec<f64> = want.top.clone();
    close(&format!("{name}: top"), &top[..kept.len()], &kept, 0.0, 0.0).unwrap();
    assert!(top[kept.len()..].iter().all(|&z| z == f32::MIN), "{name}: unused slots");
}

#[test]
fn row_statistics_equal_the_oracle_for_every_poisoned_row_and_every_k() {
    let mut random = Random::new(5);
    for columns in [64, 65, 100, 255, 256, 257, 1000, 1024, 5000] {
        for top_k in [1, 2, 20, 63, 64] {
            let rows = poisoned_rows(columns, &mut random);
            let logits: Vec<f32> = rows.iter().flat_map(|(_, row)| row.clone()).collect();
            let labels = vec![(columns / 2) as u32; rows.len()];
            let (mut top, mut stats) = (sentinels(rows.len() * MAX_TOP_K), sentinels(rows.len() * STATS_WIDTH));
            row_stats(&logits, columns, 0, &labels, top_k, true, &mut top, &mut stats);
            for (r, (name, row)) in rows.iter().enumerate() {
                let want = oracle::row_stats::row_stats(row, Some(columns / 2), top_k);
                let name = format!("{name}, {columns} columns, K {top_k}");
                assert_stats(&name, &stats[8 * r..8 * r + 8], &top[64 * r..64 * r + 64], &want, top_k);
            }
        }
    }
}

#[test]
fn statistics_of_rows_shorter_than_k_are_those_of_the_whole_row() {
    let mut random = Random::new(6);
    for columns in [1, 2, 5, 19, 20, 21] {
        let row = random.vec(columns, 4.0);
        let (mut top, mut stats) = (sentinels(MAX_TOP_K), sentinels(STATS_WIDTH));
        row_stats(&row, columns, 0, &[0], 20, true, &mut top, &mut stats);
        assert_stats("short", &stats, &top, &oracle::row_stats::row_stats(&row, Some(0), 20), 20);
        if columns <= 20 {
            let full = stats[stat::SUM].ln() - stats[stat::SUM_SHIFTED] / stats[stat::SUM];
            assert!((full - stats[stat::ENTROPY_TOP_K]).abs() < 1e-5, "K >= V is the full entropy");
        }
    }
}

#[test]
fn vocabulary_tiles_merge_to_the_statistics_of_the_whole_row() {
    let mut random = Random::new(7);
    let columns = 3000;
    for cuts in [vec![1500], vec![1, 2999], vec![5, 300, 301, 2000]] {
        for (name, row) in poisoned_rows(columns, &mut random) {
            for label in [0, 1499, 1500, 2999] {
                if !row[label].is_finite() {
                    continue;
                }
                let (mut top, mut stats) = (sentinels(MAX_TOP_K), sentinels(STATS_WIDTH));
                let edges: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([columns]).collect();
                for (tile, edge) in edges.windows(2).enumerate() {
                    let part = &row[edge[0]..edge[1]];
                    let labels = [label as u32];
                    row_stats(part, part.len(), edge[0], &labels, 20, tile == 0, &mut top, &mut stats);
                }
                let want = oracle::row_stats::row_stats(&row, Some(label), 20);
                assert_stats(&format!("{name} cut at {cuts:?}"), &stats, &top, &want, 20);
            }
        }
    }
}

#[test]
fn nan_and_positive_infinity_are_counted_wherever_they_are_and_never_hang_the_selection() {
    let mut random = Random::new(8);
    for columns in [70, 256, 1025] {
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, columns / 2, columns - 1] {
                let mut row = random.vec(columns, 3.0);
                row[at] = bad;
                for label in [None, Some(at), Some((at + 1) % columns)] {
                    let (mut top, mut stats) = (sentinels(MAX_TOP_K), sentinels(STATS_WIDTH));
                    let labels = [label.map_or(NO_LABEL, |label| label as u32)];
                    row_stats(&row, columns, 0, &labels, 20, true, &mut top, &mut stats);
                    let want = oracle::row_stats::row_stats(&row, label, 20);
                    assert_eq!(stats[stat::NONFINITE], want.nonfinite as f32);
                    // Everything but the label's logit describes the finite ones.
                    close("sums", &stats[..4], &[want.max, want.sum, want.u, want.sum_sq], 1e-5, 1e-5).unwrap();
                    close("entropy", &stats[7..], &[want.entropy_top_k], 1e-6, 1e-5).unwrap();
                }
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let row = vec![bad; columns];
            let (mut top, mut stats) = (sentinels(MAX_TOP_K), sentinels(STATS_WIDTH));
            row_stats(&row, columns, 0, &[NO_LABEL], 20, true, &mut top, &mut stats);
            let count = if bad == f32::NEG_INFINITY { 0.0 } else { columns as f32 };
            assert_eq!(stats, [f32::MIN, 0.0, 0.0, 0.0, 0.0, count, 20.0, 0.0]);
        }
    }
    // A masked label is an error that must show.
    let (mut top, mut stats) = (sentinels(MAX_TOP_K), sentinels(STATS_WIDTH));
    row_stats(&[1.0, f32::NEG_INFINITY, 2.0], 3, 0, &[1], 20, true, &mut top, &mut stats);
    assert_eq!(stats[stat::NONFINITE], 1.0);
}

#[test]
fn every_gate_equals_its_definition_on_every_poisoned_row() {
    let mut random = Random::new(9);
    let columns = 300;
    let rows = poisoned_rows(columns, &mut random);
    let logits: Vec<f32> = rows.iter().flat_map(|(_, row)| row.clone()).collect();
    let labels = vec![(columns / 2) as u32; rows.len()];
    let (mut top, mut stats) = (sentinels(rows.len() * MAX_TOP_K), sentinels(rows.len() * STATS_WIDTH));
    row_stats(&logits, columns, 0, &labels, 20, true, &mut top, &mut stats);
    for params in oracle::gate::examples() {
        let mut weight = sentinels(rows.len());
        cpu::gate(&params, &stats, &mut weight);
        let wide = oracle::gate::Gate::from(&params);
        let want: Vec<f64> = rows
            .iter()
            .map(|(_, row)| oracle::gate::gate(&wide, &oracle::row_stats::row_stats(row, Some(columns / 2), 20)))
            .collect();
        // A square root near 0 magnifies the entropy's own error.
        let absolute = if params.exponent < 1.0 { 2e-4 } else { 2e-6 };
        close(&format!("gate {}", params.kind), &weight, &want, absolute, 3e-5).unwrap();
    }
}

#[test]
fn exponent_zero_is_bit_for_bit_sft_and_exponent_one_bit_for_bit_linear() {
    let mut stats = vec![0.0; 3 * STATS_WIDTH];
    for (row, entropy) in stats.chunks_mut(STATS_WIDTH).zip([0.0, 1e-30, 2.3]) {
        row[stat::SUM] = 1.5;
        row[stat::ENTROPY_TOP_K] = entropy;
    }
    let run = |kind, exponent| {
        let mut weight = sentinels(3);
        let (normalizer, scale) = (20f32.ln(), 0.01);
        let params = GateParams { rows: 0, kind, exponent, normalizer, a: 0.0, b: 0.0, threshold: 0.0, scale };
        cpu::gate(&params, &stats, &mut weight);
        weight
    };
    same_bits("exponent 0", &run(kind::POWER, 0.0), &run(kind::SFT, 1.0)).unwrap();
    same_bits("exponent 1", &run(kind::POWER, 1.0), &run(kind::LINEAR, 1.0)).unwrap();
    assert_eq!(run(kind::POWER, 2.0)[0], 0.0);
}

#[test]
fn the_gradient_over_the_logits_equals_the_oracle_and_rows_of_weight_zero_are_exactly_zero() {
    let mut random = Random::new(10);
    for columns in [1, 15, 16, 17, 300, 1023] {
        let rows = poisoned_rows(columns.max(8), &mut random);
        let columns = columns.max(8);
        let mut logits: Vec<f32> = rows.iter().flat_map(|(_, row)| row.clone()).collect();
        logits.extend(vec![f32::NAN; columns]);
        let count = rows.len() + 1;
        let mut labels = vec![(columns / 2) as u32; count];
        labels[1] = NO_LABEL;
        let mut weight: Vec<f32> = (0..count).map(|r| 0.01 * (r + 1) as f32).collect();
        weight[count - 1] = 0.0;
        let (mut top, mut stats) = (sentinels(count * MAX_TOP_K), sentinels(count * STATS_WIDTH));
        row_stats(&logits, columns, 0, &labels, 20, true, &mut top, &mut stats);
        // In two vocabulary tiles as well as in one.
        let cut = columns / 2;
        let tile = |from: usize, to: usize| {
            let mut part: Vec<f32> = logits.chunks(columns).flat_map(|row| row[from..to].to_vec()).collect();
            loss_gradient(&mut part, to - from, from, &labels, &weight, &stats);
            part
        };
        let (whole, left, right) = (tile(0, columns), tile(0, cut), tile(cut, columns));
        for r in 0..count {
            let row = &whole[r * columns..(r + 1) * columns];
            let joined =
                [&left[r * cut..(r + 1) * cut], &right[r * (columns - cut)..(r + 1) * (columns - cut)]].concat();
            same_bits("tiles", &joined, row).unwrap();
            if r == count - 1 {
                assert_eq!(row, vec![0.0; columns], "weight 0 over NaN");
                continue;
            }
            let label = (r != 1).then_some(columns / 2);
            let want = oracle::loss_gradient::loss_gradient(&rows[r].1, label, f64::from(weight[r]));
            close(rows[r].0, row, &want, 1e-7, 2e-5).unwrap();
        }
    }
}

#[test]
fn statistics_and_gradient_have_the_same_bits_on_any_number_of_threads() {
    let mut random = Random::new(11);
    let (rows, columns) = (37, 5003);
    let logits = random.vec(rows * columns, 6.0);
    let labels: Vec<u32> = (0..rows as u32).collect();
    same_on_any_number_of_threads("head", || {
        let (mut top, mut stats) = (sentinels(rows * MAX_TOP_K), sentinels(rows * STATS_WIDTH));
        row_stats(&logits, columns, 0, &labels, 20, true, &mut top, &mut stats);
        let mut gradient = logits.clone();
        loss_gradient(&mut gradient, columns, 0, &labels, &vec![0.5; rows], &stats);
        [top, stats, gradient].concat()
    });
}

// Norm, rotary, gated MLP.

#[test]
fn the_norm_and_its_gradients_equal_the_oracle() {
    let mut random = Random::new(12);
    for (rows, width) in [(1, 1), (3, 15), (5, 16), (33, 17), (70, 64), (40, 576), (2, 20_000)] {
        for size in [1.0, 1e-6, 1e4] {
            let (x, scale, dy) =
                (random.vec(rows * width, size), random.vec(width, 1.0), random.vec(rows * width, 1.0));
            let (mut y, mut inverse) = (sentinels(rows * width), sentinels(rows));
            let params = RmsNormParams { rows: rows as u32, width: width as u32, epsilon: 1e-5 };
            cpu::rms_norm(&params, &x, &scale, &mut y, &mut inverse);
            let (wx, ws, wdy) = (wide(&x), wide(&scale), wide(&dy));
            let epsilon = f64::from(1e-5f32);
            let (want, want_inverse) = oracle::rms_norm::rms_norm(&wx, &ws, epsilon);
            close("rms_norm", &y, &want, 1e-6, 1e-5).unwrap();
            close("inverse", &inverse, &want_inverse, 0.0, 1e-5).unwrap();
            if width > 1000 {
                continue; // the oracle's gradient is quadratic in the width
            }
            let (want_dx, want_dscale) = oracle::rms_norm::rms_norm_backward(&wx, &ws, epsilon, &wdy);
            // The two terms of dx can cancel: the error is relative to them, not to their difference.
            let largest = want_inverse.iter().fold(0.0f64, |m, r| m.max(*r));
            let mut dx = sentinels(rows * width);
            cpu::rms_norm_backward(&x, &scale, &inverse, &dy, &mut dx);
            close("rms_norm_backward", &dx, &want_dx, 3e-6 * largest, 1e-5).unwrap();
            let mut dscale = sentinels(width);
            cpu::rms_norm_scale_gradient(&x, &inverse, &dy, &mut dscale);
            close("scale gradient", &dscale, &want_dscale, 1e-5 * rows as f64, 1e-5).unwrap();
        }
    }
}

#[test]
fn rotary_rotates_only_its_heads_and_its_inverse_undoes_it() {
    let mut random = Random::new(13);
    for (heads, head_dim, rotary_dim) in [(1, 2, 2), (3, 16, 16), (4, 16, 8), (2, 64, 64), (2, 10, 6)] {
        for interleaved in [false, true] {
            let (tail, positions) = (3, [4u32, 0, 1, 9, 2]);
            let stride = heads * head_dim + tail;
            let angles: Vec<f32> = random.vec(10 * rotary_dim / 2, 3.0);
            let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
            let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
            let x = random.vec(positions.len() * stride, 1.0);
            for inverse in [false, true] {
                let params = RotaryParams {
                    tokens: positions.len() as u32,
                    heads: heads as u32,
                    head_dim: head_dim as u32,
                    rotary_dim: rotary_dim as u32,
                    interleaved: u32::from(interleaved),
                    inverse: u32::from(inverse),
                    row_stride: stride as u32,
                };
                let mut y = x.clone();
                cpu::rotary(&params, &mut y, &cos, &sin, &positions);
                let mut want = wide(&x);
                let (c, s) = (wide(&cos), wide(&sin));
                oracle::rotary::rotary(
                    &mut want,
                    stride,
                    heads,
                    head_dim,
                    rotary_dim,
                    interleaved,
                    inverse,
                    &c,
                    &s,
                    &positions,
                );
                close("rotary", &y, &want, 1e-6, 1e-6).unwrap();
                let back = RotaryParams { inverse: u32::from(!inverse), ..params };
                cpu::rotary(&back, &mut y, &cos, &sin, &positions);
                close("there and back", &y, &wide(&x), 1e-5, 1e-5).unwrap();
            }
        }
    }
}

#[test]
fn the_gated_mlp_and_its_gradient_equal_the_oracle_even_far_out() {
    let mut random = Random::new(14);
    for (rows, width) in [(1, 1), (3, 15), (2, 16), (5, 17), (20, 1536)] {
        for size in [1.0, 4.0, 30.0, 300.0] {
            let (gate_up, dy) = (random.vec(2 * rows * width, size), random.vec(rows * width, 1.0));
            for (activation, exact) in [(Activation::Silu, SILU), (Activation::GeluTanh, GELU_TANH)] {
                let what = format!("{activation:?} of {size}");
                let mut y = sentinels(rows * width);
                cpu::gated_mlp(activation, &gate_up, width, &mut y);
                let x = wide(&gate_up);
                close(&what, &y, &oracle::gated_mlp::gated_mlp(exact, &x, width), 1e-6, 1e-5).unwrap();
                let want = oracle::gated_mlp::gated_mlp_backward(exact, &x, width, &wide(&dy));
                let mut gradient = gate_up.clone();
                cpu::gated_mlp_backward(activation, &mut gradient, width, &dy);
                close(&format!("gradient, {what}"), &gradient, &want, 1e-5 * f64::from(size), 1e-5).unwrap();
            }
        }
    }
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let edges = [-1e30_f32, 1e30, 0.0, 1.0, 1.0, 1.0];
        let mut y = sentinels(3);
        cpu::gated_mlp(activation, &edges, 3, &mut y);
        assert_eq!(y, [0.0, 1e30, 0.0], "{activation:?}");
        let mut gradient = edges;
        cpu::gated_mlp_backward(activation, &mut gradient, 3, &[1.0; 3]);
        assert_eq!(gradient, [0.0, 1.0, 0.5, 0.0, 1e30, 0.0], "{activation:?}");
        // What is no number stays where it is.
        let spoiled = [f32::NAN, 2.0, 1.0, 1.0];
        let mut y = sentinels(2);
        cpu::gated_mlp(activation, &spoiled, 2, &mut y);
        assert!(y[0].is_nan() && y[1].is_finite(), "{activation:?}: {y:?}");
        let mut gradient = spoiled;
        cpu::gated_mlp_backward(activation, &mut gradient, 2, &[1.0; 2]);
        assert_eq!(gradient.map(f32::is_nan), [true, false, true, false], "{activation:?}");
    }
}

// Attention.

/// Document starts of documents of the given lengths.
fn documents(lengths: &[usize]) -> Vec<u32> {
    let mut starts = Vec::new();
    for &length in lengths {
        let start = starts.len() as u32;
        starts.resize(starts.len() + length, start);
    }
    starts
}

/// First tokens that are seen where each token sees the last `window` ones of its document alone.
fn within(window: usize, starts: Vec<u32>) -> Vec<u32> {
    starts.into_iter().enumerate().map(|(t, start)| start.max((t + 1).saturating_sub(window) as u32)).collect()
}

#[test]
fn attention_and_its_gradient_equal_the_full_softmax_of_every_document() {
    let mut random = Random::new(15);
    let cases: [(usize, usize, usize, &[usize]); 8] = [
        (1, 1, 4, &[1]),
        (4, 2, 16, &[17]),
        (9, 3, 8, &[63, 1, 2]),
        (2, 1, 20, &[64, 65]),
        (4, 4, 16, &[30, 100, 7]),
        (6, 2, 48, &[129]),
        (2, 2, 8, &[257, 3, 300]),
        (3, 1, 64, &[1, 1, 1, 70, 1]),
    ];
    for (heads, kv_heads, head_dim, lengths) in cases {
        attention_equals_the_oracle(&mut random, Shape { heads, kv_heads, head_dim }, &documents(lengths));
    }
}

#[test]
fn attention_within_a_window_and_its_gradient_equal_the_full_softmax_of_what_is_seen() {
    let mut random = Random::new(19);
    // Windows of one token, and those that begin and end within blocks of 64 queries and 256 keys and at their edges.
    let cases: [(usize, usize, usize, &[usize], usize); 7] = [
        (1, 1, 4, &[5], 1),
        (4, 2, 16, &[30, 1, 33], 8),
        (2, 1, 20, &[257, 2], 64),
        (3, 1, 16, &[200, 70], 65),
        (2, 2, 8, &[600, 3, 300], 257),
        (6, 2, 48, &[129], 128),
        (2, 1, 8, &[40, 100], 1000),
    ];
    for (heads, kv_heads, head_dim, lengths, window) in cases {
        let starts = within(window, documents(lengths));
        attention_equals_the_oracle(&mut random, Shape { heads, kv_heads, head_dim }, &starts);
    }
}

fn attention_equals_the_oracle(random: &mut Random, shape: Shape, starts: &[u32]) {
    let Shape { heads, kv_heads, head_dim } = shape;
    let tokens = starts.len();
    let qkv = random.vec(tokens * shape.width(), 2.0);
    let dout = random.vec(tokens * heads * head_dim, 1.0);
    let wide_shape = oracle::attention::Shape { tokens, heads, kv_heads, head_dim, scale: f64::from(shape.scale()) };
    let (want, want_lse) = oracle::attention::attention(&wide_shape, &wide(&qkv), starts);
    let (mut out, mut lse) = (sentinels(want.len()), sentinels(want_lse.len()));
    cpu::attention(shape, &qkv, starts, &mut out, &mut lse);
    let name = format!("{shape:?}, {starts:?}");
    close(&name, &out, &want, 3e-6, 3e-5).unwrap();
    close(&format!("{name}: lse"), &lse, &want_lse, 1e-5, 1e-5).unwrap();
    let want = oracle::attention::attention_backward(&wide_shape, &wide(&qkv), starts, &wide(&dout));
    let mut gradient = sentinels(qkv.len());
    cpu::attention_backward(shape, &qkv, starts, &out, &lse, &dout, &mut gradient);
    close(&format!("{name}: gradient"), &gradient, &want, 2e-5, 1e-4).unwrap();
}

#[test]
fn no_token_sees_another_document_not_even_its_nan() {
    let mut random = Random::new(16);
    let (heads, kv_heads, head_dim) = (4, 2, 16);
    let starts = documents(&[40, 50, 60]);
    let tokens = starts.len();
    let shape = Shape { heads, kv_heads, head_dim };
    let clean = random.vec(tokens * shape.width(), 1.0);
    let run = |qkv: &[f32]| {
        let (mut out, mut lse) = (sentinels(tokens * heads * head_dim), sentinels(heads * tokens));
        cpu::attention(shape, qkv, &starts, &mut out, &mut lse);
        out
    };
    // Changing the middle document leaves the others bit for bit alone.
    let row = heads * head_dim;
    let mut changed = clean.clone();
    changed[40 * shape.width()..90 * shape.width()].iter_mut().for_each(|x| *x *= 3.0);
    let (a, b) = (run(&clean), run(&changed));
    same_bits("first document", &a[..40 * row], &b[..40 * row]).unwrap();
    same_bits("third document", &a[90 * row..], &b[90 * row..]).unwrap();
    assert!(a[40 * row..90 * row].iter().zip(&b[40 * row..90 * row]).all(|(a, b)| a != b));
    // Nor does a number that is none get out of its document, or to what comes before it, so that an error names its row.
    for bad in [f32::NAN, f32::INFINITY] {
        let mut changed = clean.clone();
        changed[60 * shape.width()..61 * shape.width()].fill(bad);
        let b = run(&changed);
        for (what, tokens) in [("first document", 0..40), ("what comes before", 40..60), ("third document", 90..150)] {
            let part = tokens.start * row..tokens.end * row;
            let wanted = wide(&a[part.clone()]);
            close(&format!("{what} beside {bad}"), &b[part], &wanted, 1e-6, 1e-5).unwrap();
        }
        assert!(b[60 * row..90 * row].iter().all(|value| value.is_nan()), "and the rest of its document has it");
    }
}

#[test]
fn attention_has_the_same_bits_on_any_number_of_threads() {
    let mut random = Random::new(17);
    for (heads, kv_heads) in [(6, 1), (9, 3), (8, 8)] {
        let head_dim = 16;
        let starts = documents(&[200, 130]);
        let tokens = starts.len();
        let shape = Shape { heads, kv_heads, head_dim };
        let (qkv, dout) = (random.vec(tokens * shape.width(), 1.0), random.vec(tokens * heads * head_dim, 1.0));
        same_on_any_number_of_threads("attention", || {
            let (mut out, mut lse) = (sentinels(tokens * heads * head_dim), sentinels(heads * tokens));
            cpu::attention(shape, &qkv, &starts, &mut out, &mut lse);
            let mut gradient = sentinels(qkv.len());
            cpu::attention_backward(shape, &qkv, &starts, &out, &lse, &dout, &mut gradient);
            [out, lse, gradient].concat()
        });
    }
}

// Stored weights.

#[test]
fn every_stored_format_expands_to_what_its_layout_says() {
    let mut random = Random::new(18);
    for format in WeightFormat::ALL {
        for blocks in [1, 2, 7, 600] {
            let stored = oracle::dequantize::moderate(format, random.bytes(blocks * format.block_bytes()));
            let mut out = sentinels(blocks * format.block_elements());
            format.expand(&stored, &mut out);
            // Every step but the last one is exact in f32, so the result is the definition's, rounded once.
            let definition = oracle::dequantize::definition(format);
            let want: Vec<f32> = (0..out.len()).map(|i| definition(&stored, i) as f32).collect();
            same_bits(format.name(), &out, &want).unwrap();
            same_bits(format.name(), &format.to_f32(&stored), &want).unwrap();
        }
        same_on_any_number_of_threads(format.name(), || format.to_f32(&vec![0x35; 3000 * format.block_bytes()]));
    }
}

#[test]
fn every_f16_and_bf16_bit_pattern_converts_exactly() {
    let stored: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut out = sentinels(65_536);
    WeightFormat::F16.expand(&stored, &mut out);
    for (i, &got) in out.iter().enumerate() {
        let want = oracle::dequantize::stored_f16(&stored, i);
        assert!(
            f64::from(got) == want && got.is_sign_negative() == want.is_sign_negative()
                || want.is_nan() && got.is_nan()
        );
    }
    WeightFormat::Bf16.expand(&stored, &mut out);
    for (i, &got) in out.iter().enumerate() {
        assert_eq!(got.to_bits(), (i as u32) << 16);
    }
}

#[test]
fn blocks_of_a_real_file_expand_to_the_golden_values() {
    let bytes = temper_conformance::golden::bytes("smollm2/dequant.safetensors");
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, format) in [
        ("blk.0.attn_k.weight", WeightFormat::Q4_1),
        ("blk.0.attn_v.weight", WeightFormat::Q4_1),
        ("token_embd.rows0_16", WeightFormat::Q8_0),
    ] {
        let stored = file.tensor(&format!("{name}.raw")).unwrap();
        let want = file.tensor(&format!("{name}.f32")).unwrap();
        let want: Vec<f32> = want.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let mut out = sentinels(want.len());
        format.expand(stored.data(), &mut out);
        same_bits(name, &out, &want).unwrap();
    }
}

// Optimiser and the rest.

#[test]
fn five_adamw_steps_equal_the_definition() {
    let mut random = Random::new(19);
    for count in [1, 17, 40_000] {
        let (mut p, mut m, mut v) = (random.vec(count, 1.0), vec![0.0; count], vec![0.0; count]);
        let mut want: Vec<(f64, f64, f64)> = p.iter().map(|&p| (f64::from(p), 0.0, 0.0)).collect();
        for step in 1..=5 {
            let gradient = random.vec(count, 0.1);
            let params = AdamwParams {
                count: count as u32,
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                bias1: 1.0 - 0.9f32.powi(step),
                bias2: (1.0 - 0.999f64.powi(step)) as f32,
                gradient_scale: 0.5,
            };
            cpu::adamw(&params, &mut p, &gradient, &mut m, &mut v);
            let settings = oracle::adamw::Settings {
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
                gradient_scale: 0.5,
                step,
            };
            for ((p, m, v), &g) in want.iter_mut().zip(&gradient) {
                (*p, *m, *v) = oracle::adamw::adamw(*p, f64::from(g), *m, *v, &settings);
            }
        }
        let column = |pick: fn(&(f64, f64, f64)) -> f64| want.iter().map(pick).collect::<Vec<_>>();
        close("parameter", &p, &column(|x| x.0), 2e-6, 1e-6).unwrap();
        close("first moment", &m, &column(|x| x.1), 1e-8, 1e-5).unwrap();
        close("second moment", &v, &column(|x| x.2), 1e-12, 2e-4).unwrap();
    }
}

#[test]
fn the_dropout_mask_is_the_shaders_and_a_dropped_nan_is_gone() {
    let count = 40_003;
    let (seed, keep) = (0x0123_4567_89ab_cdef_u64, 0.75);
    let mut random = Random::new(20);
    let mut x = random.vec(count, 1.0);
    let uniform = |i: usize| temper_shaders::dropout_uniform(seed as u32, (seed >> 32) as u32, i as u32);
    let dropped = (0..count).find(|&i| uniform(i) >= keep).unwrap();
    x[dropped] = f32::NAN;
    let mut y = sentinels(count);
    let params = DropoutParams {
        count: count as u32,
        seed_low: seed as u32,
        seed_high: (seed >> 32) as u32,
        keep_probability: keep,
    };
    cpu::dropout(&params, &x, &mut y);
    for i in 0..count {
        assert_eq!(y[i], if uniform(i) < keep { x[i] / keep } else { 0.0 }, "element {i}");
    }
    cpu::dropout(&DropoutParams { keep_probability: 1.0, ..params }, &x, &mut y);
    same_bits("keep everything", &y, &x).unwrap();
}

#[test]
fn small_helpers_do_what_they_say() {
    let mut random = Random::new(21);
    let (rows, width) = (700, 33);
    let (x, bias) = (random.vec(rows * width, 1.0), random.vec(width, 1.0));
    let mut y = x.clone();
    cpu::add_bias(&mut y, &bias);
    assert!((0..x.len()).all(|i| y[i] == x[i] + bias[i % width]));
    let want: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    assert!((cpu::sum_squares(&x) - want).abs() < 1e-5 * want);
    assert!(cpu::sum_squares(&[1.0, f32::NAN]).is_nan());
    assert_eq!(cpu::sum_squares(&[]), 0.0);
    for accumulate in [false, true] {
        let mut target = sentinels(rows * 40);
        let params = CopyColumnsParams {
            rows: rows as u32,
            source_stride: width as u32,
            source_offset: 2,
            target_stride: 40,
            target_offset: 5,
            width: 30,
            accumulate: u32::from(accumulate),
        };
        cpu::copy_columns(&params, &x, &mut target);
        for r in 0..rows {
            for c in 0..40 {
                let before = if accumulate { SENTINEL } else { 0.0 };
                let want = if (5..35).contains(&c) { before + x[r * width + c - 3] } else { SENTINEL };
                assert_eq!(target[r * 40 + c], want);
            }
        }
    }
}
