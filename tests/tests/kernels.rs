//! Every tensor-level kernel on the CPU backend and on WGSL against its f64 oracle: sizes around every tile edge,
//! poisoned inputs, and device memory that holds NaN before a kernel gets it, so that a missing write shows.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use burn::tensor::{Tensor, TensorData};
use common::{Random, matrix, poisoned_rows};
use temper_conformance::compare::{close, same_bits};
use temper_conformance::devices::read;
use temper_conformance::golden::GoldenFolder;
use temper_conformance::oracle::gated_mlp::{GELU_TANH, SILU};
use temper_conformance::oracle::{self, matmul::matmul, wide};
use temper_conformance::{devices, models};
use temper_engine::host::{Clock, Shelf};
use temper_engine::inside::kernels;
use temper_engine::inside::kernels::adamw::{AdamwCompactParams, AdamwParams};
use temper_engine::inside::kernels::attention;
use temper_engine::inside::kernels::cached_attention::{KeyValues, Places, Precision};
use temper_engine::inside::kernels::compact::Bf16;
use temper_engine::inside::kernels::cpu::gate::kind;
use temper_engine::inside::kernels::gate::GateParams;
use temper_engine::inside::kernels::matmul::{self, AsOperand, Product};
use temper_engine::inside::kernels::reference::{self, Direction, OfReference, Pulled};
use temper_engine::inside::kernels::row_stats::Statistics;
use temper_engine::inside::kernels::statistics::Selection;
use temper_engine::inside::kernels::tensor::{empty_gpu, from_cube, on_gpu};
use temper_engine::inside::kernels::{
    Activation, Columns, Indices, Moments, Packed, Rows, Weights, elementwise, top_tokens,
};
use temper_engine::inside::model::open;
use temper_engine::inside::probe;
use temper_engine::inside::weights::{RawTensor, WeightFormat};
use temper_engine::products::{Class, Compute, Multiplier, calibrate};
use temper_engine::{Device, Result, wait};

fn vector(device: &Device, values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device.burn())
}

/// Fills device memory of these sizes with NaN and frees it: the pool hands it out again, uninitialised, for the next
/// outputs of the same sizes.
fn soil(device: &Device, lengths: &[usize]) {
    if !device.is_cpu() {
        let dirty: Vec<_> = lengths.iter().map(|&length| vector(device, &vec![f32::NAN; length])).collect();
        device.sync().unwrap();
        drop(dirty);
    }
}

#[test]
fn memory_that_a_kernel_gets_for_its_output_was_soiled_before() {
    let device = devices::gpu();
    for length in [1, 64, 1025, 70_000] {
        let like = vector(&device, &[0.0]);
        soil(&device, &[length]);
        let fresh: Tensor<1> = from_cube(empty_gpu(&on_gpu(&like), [length]));
        assert!(read(&fresh).unwrap().iter().all(|x| x.is_nan()), "{length} elements");
    }
}

// Matrix products.

/// Sizes `(m, n, k)` around the tile edges of the CPU's products.
const CPU_SIZES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (65, 63, 64),
    (2, 257, 255),
    (1, 1025, 33),
    (256, 65, 2),
    (63, 1, 1023),
    (64, 64, 64),
    (255, 31, 65),
    (17, 256, 1024),
    (1, 2, 1025),
    (1023, 3, 5),
    (130, 129, 128),
];

/// And around those of a GPU's kernels: tiles of 64 x 128, 128 x 64 and 8 x 32, of 8 and 16 times 8, of 16 and 32 terms, and
/// what can be read four numbers at a time.
const GPU_SIZES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 33, 31),
    (7, 32, 33),
    (8, 31, 32),
    (9, 1, 65),
    (16, 64, 16),
    (63, 129, 15),
    (64, 128, 16),
    (65, 127, 17),
    (127, 65, 33),
    (128, 64, 32),
    (129, 63, 31),
    (4, 4, 4),
    (68, 132, 20),
    (60, 124, 36),
    (132, 68, 64),
];

fn product_sizes(device: &Device) -> &'static [(usize, usize, usize)] {
    if device.is_cpu() { &CPU_SIZES } else { &GPU_SIZES }
}

/// By one kernel, or as the device does.
fn by<const D: usize>(product: Product<D>, multiplier: Option<Multiplier>) -> Product<D> {
    match multiplier {
        Some(multiplier) => product.by(multiplier),
        None => product,
    }
}

fn called(device: &Device, multiplier: Option<Multiplier>) -> String {
    format!("{} by {}", device.name(), multiplier.map_or("its own", Multiplier::name))
}

/// Every product of these sizes in the three layouts of training, new, times a factor and added to something, which may differ
/// from its oracle's by so much.
fn every_layout(
    device: &Device,
    multiplier: Option<Multiplier>,
    (m, n, k): (usize, usize, usize),
    random: &mut Random,
    absolute: f64,
) {
    let (a, b, before) = (random.vec(m * k, 1.0), random.vec(k * n, 1.0), random.vec(m * n, 1.0));
    let check = |name: &str, product: Product<2>, want: &[f64]| {
        let what = |name: &str| format!("{name} {m} x {n} x {k} on {}", called(device, multiplier));
        soil(device, &[m * n]);
        let got = by(product, multiplier).run(device).unwrap();
        assert_eq!(got.dims(), [m, n], "{}", what(name));
        close(&what(name), &read(&got).unwrap(), want, absolute, 1e-5).unwrap();
    };
    let sum = || matrix(device, &before, [m, n]);
    let added = |product: &[f64], alpha: f64| -> Vec<f64> {
        product.iter().zip(&before).map(|(product, before)| alpha * product + f64::from(*before)).collect()
    };

    let want = matmul(&a, false, &b, true, m, n, k);
    let (x, y) = (matrix(device, &a, [m, k]), matrix(device, &b, [n, k]));
    check("nt", Product::of(&x, y.transposed()), &want);
    check("nt, added", Product::of(&x, y.transposed()).times(-0.75).added_to(sum()), &added(&want, -0.75));

    let want = matmul(&a, false, &b, false, m, n, k);
    let y = matrix(device, &b, [k, n]);
    check("nn", Product::of(&x, &y), &want);
    check("nn, added", Product::of(&x, &y).added_to(sum()), &added(&want, 1.0));

    let want = matmul(&a, true, &b, false, m, n, k);
    let x = matrix(device, &a, [k, m]);
    check("tn", Product::of(x.transposed(), &y).added_to(None::<Tensor<2>>), &want);
    check("tn, added", Product::of(x.transposed(), &y).times(2.5).added_to(Some(sum())), &added(&want, 2.5));

    let want = matmul(&a, true, &b, true, m, n, k);
    let y = matrix(device, &b, [n, k]);
    check("tt", Product::of(x.transposed(), y.transposed()), &want);
}

#[test]
fn products_of_every_layout_equal_the_oracle() {
    let mut random = Random::new(1);
    for (device, multiplier) in devices::multipliers() {
        for &sizes in product_sizes(&device) {
            let tolerance = 2e-6 * (sizes.2 as f64).sqrt().max(2.0);
            every_layout(&device, multiplier, sizes, &mut random, 3.0 * tolerance);
        }
    }
}

/// Products with a range of a wider matrix's columns, beside which there is NaN: reading or writing it would show.
fn columns_alone(device: &Device, multiplier: Option<Multiplier>, random: &mut Random, absolute: f64) {
    let alpha = 1.75;
    for (m, total, k, columns) in [
        (33, 70, 9, Columns { offset: 0, width: 1 }),
        (33, 70, 9, Columns { offset: 5, width: 64 }),
        (33, 70, 9, Columns { offset: 69, width: 1 }),
        // What can be read four numbers at a time, with columns that end within four.
        (36, 72, 12, Columns { offset: 4, width: 64 }),
        (40, 80, 8, Columns { offset: 8, width: 68 }),
        (129, 140, 36, Columns { offset: 4, width: 129 }),
    ] {
        let Columns { offset, width } = columns;
        let inside = |i: usize| (offset..offset + width).contains(&(i % total));
        let what = format!("{columns:?} of {total} on {}", called(device, multiplier));
        let poison = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().enumerate().map(|(i, v)| if inside(i) { v } else { f32::NAN }).collect()
        };
        let cut = |values: &[f32]| -> Vec<f32> { (0..m * total).filter(|&i| inside(i)).map(|i| values[i]).collect() };
        let near = |name: &str, got: &[f32], want: &[f64]| {
            close(&format!("{name} {what}"), got, want, absolute, 1e-5).unwrap();
        };

        let (a, b) = (random.vec(m * k, 1.0), random.vec(width * k, 1.0));
        let y = poison(random.vec(m * total, 1.0));
        let product = matmul(&a, false, &b, true, m, width, k);
        let (x, w) = (matrix(device, &a, [m, k]), matrix(device, &b, [width, k]));
        let target = matrix(device, &y, [m, total]);
        let sum = Product::of(&x, w.transposed()).times(alpha).added_to_columns(target, columns);
        let got = by(sum, multiplier).run(device).unwrap();
        let got = read(&got).unwrap();
        let want: Vec<f64> = cut(&y).iter().zip(product).map(|(y, p)| f64::from(*y) + f64::from(alpha) * p).collect();
        near("added to", &cut(&got), &want);
        assert!((0..m * total).all(|i| inside(i) || got[i].is_nan()), "{what}: wrote beside its columns");

        let dy = poison(random.vec(m * total, 1.0));
        let (dense, x) = (cut(&dy), matrix(device, &dy, [m, total]));
        let b = random.vec(width * k, 1.0);
        let y = matrix(device, &b, [width, k]);
        let got = by(Product::of(x.columns(columns), &y).times(alpha), multiplier).run(device).unwrap();
        let scaled = |values: Vec<f64>| values.iter().map(|v| v * f64::from(alpha)).collect::<Vec<_>>();
        near("of", &read(&got).unwrap(), &scaled(matmul(&dense, false, &b, false, m, k, width)));

        let b = random.vec(m * k, 1.0);
        let y = matrix(device, &b, [m, k]);
        let got = by(Product::of(x.columns(columns).transposed(), &y).times(alpha), multiplier).run(device).unwrap();
        near("of the transpose of", &read(&got).unwrap(), &scaled(matmul(&dense, true, &b, false, width, k, m)));

        let got = by(Product::of(y.transposed(), x.columns(columns)).times(alpha), multiplier).run(device).unwrap();
        near("by", &read(&got).unwrap(), &scaled(matmul(&b, true, &dense, false, k, width, m)));
    }
}

#[test]
fn products_on_a_column_range_touch_no_other_column() {
    let mut random = Random::new(2);
    for (device, multiplier) in devices::multipliers() {
        columns_alone(&device, multiplier, &mut random, 4e-5);
    }
}

/// Products of every layout and a batch whose last dispatches have less than a tile, of so many operations each.
fn products_in_parts(device: &Device, multiplier: Option<Multiplier>, most: f64) {
    let mut random = Random::new(51);
    for (m, n, k) in [(300, 260, 36), (131, 270, 35)] {
        let (a, b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
        let sum = random.vec(m * n, 1.0);
        let [x, xt] = [[m, k], [k, m]].map(|shape| matrix(device, &a, shape));
        let [y, yt] = [[n, k], [k, n]].map(|shape| matrix(device, &b, shape));
        let products: [&dyn Fn() -> Product<2>; 4] = [
            &|| Product::of(&x, y.transposed()),
            &|| Product::of(&x, &yt).added_to(matrix(device, &sum, [m, n])),
            &|| Product::of(xt.transposed(), &yt).times(0.5),
            &|| Product::of(xt.transposed(), y.transposed()),
        ];
        for (layout, product) in products.into_iter().enumerate() {
            let run = |device: &Device| {
                soil(device, &[m * n]);
                read(&by(product(), multiplier).run(device).unwrap()).unwrap()
            };
            let what = format!("layout {layout} of {m} x {n} x {k} on {}", called(device, multiplier));
            same_bits(&what, &run(&device.cutting(most)), &run(device)).unwrap();
        }
    }
    let cube = |values: Vec<f32>, shape: [usize; 3]| -> Tensor<3> {
        Tensor::from_data(TensorData::new(values, shape), device.burn())
    };
    let (x, y) = (cube(random.vec(2 * 140 * 9, 1.0), [2, 140, 9]), cube(random.vec(2 * 150 * 9, 1.0), [2, 150, 9]));
    let batch = |device: &Device| read(&by(Product::of(&x, y.transposed()), multiplier).run(device).unwrap()).unwrap();
    same_bits(&called(device, multiplier), &batch(&device.cutting(most)), &batch(device)).unwrap();
}

#[test]
fn a_product_that_is_long_for_one_dispatch_is_launched_in_parts_with_the_same_bits() {
    for (device, multiplier) in devices::multipliers() {
        // Cut by rows and columns, and by rows alone.
        for most in [1.0, 4e6] {
            products_in_parts(&device, multiplier, most);
        }
    }
    // Of its own: other tests submit too.
    let device = Device::logical(&temper_engine::adapters()[0].id, Default::default()).unwrap();
    device.submit_each(true);
    let x = matrix(&device, &vec![1.0; 300 * 4], [300, 4]);
    let submissions = |device: &Device| {
        let before = device.submissions();
        Product::of(&x, x.transposed()).by(Multiplier::Tiled).run(device).unwrap();
        device.submissions() - before
    };
    assert_eq!([submissions(&device), submissions(&device.cutting(1.0))], [1, 9], "three by three");
}

fn each_of_a_batch(device: &Device, multiplier: Option<Multiplier>, random: &mut Random, absolute: f64) {
    for (batches, m, n, k) in [(3, 33, 20, 9), (2, 36, 20, 8), (3, 5, 70, 40)] {
        let (a, b) = (random.vec(batches * m * k, 1.0), random.vec(batches * k * n, 1.0));
        let cube = |values: &[f32], shape: [usize; 3]| -> Tensor<3> {
            Tensor::from_data(TensorData::new(values.to_vec(), shape), device.burn())
        };
        for (a_transposed, b_transposed) in [(false, true), (false, false), (true, false)] {
            let x = cube(&a, if a_transposed { [batches, k, m] } else { [batches, m, k] });
            let y = cube(&b, if b_transposed { [batches, n, k] } else { [batches, k, n] });
            let left = if a_transposed { x.transposed() } else { (&x).into() };
            let right = if b_transposed { y.transposed() } else { (&y).into() };
            let got = by(Product::of(left, right), multiplier).run(device).unwrap();
            assert_eq!(got.dims(), [batches, m, n]);
            let want: Vec<f64> = a
                .chunks(m * k)
                .zip(b.chunks(k * n))
                .flat_map(|(a, b)| matmul(a, a_transposed, b, b_transposed, m, n, k))
                .collect();
            close(&called(device, multiplier), &read(&got).unwrap(), &want, absolute, 1e-5).unwrap();
        }
    }
}

#[test]
fn a_batch_of_products_is_each_of_its_products() {
    let mut random = Random::new(25);
    for (device, multiplier) in devices::multipliers() {
        each_of_a_batch(&device, multiplier, &mut random, 2e-5);
    }
}

#[test]
fn a_product_that_nobody_ordered_a_kernel_for_gets_one_that_its_device_has() {
    let mut random = Random::new(31);
    for device in devices::all() {
        for sizes in [(1, 40, 33), (20, 20, 33), (40, 130, 33), (40, 130, 7)] {
            every_layout(&device, None, sizes, &mut random, 4e-5);
        }
    }
}

// Products in half precision, on a driver that has cooperative matrices.

/// The kernels on tensor cores: of halves, and of two halves a number.
const HALVING: [Multiplier; 2] = [Multiplier::Cooperative, Multiplier::Split];

#[test]
fn half_precision_products_of_every_layout_are_within_its_rounding_of_the_oracle() {
    let Some(device) =
        devices::with_matrices(half_precision_products_of_every_layout_are_within_its_rounding_of_the_oracle)
    else {
        return;
    };
    let mut random = Random::new(27);
    for sizes in GPU_SIZES {
        // Both operands are rounded to 11 bits: each term by 2^-11 at most, by half of that on average.
        let tolerance = 6e-4 * (sizes.2 as f64).sqrt();
        every_layout(&device, Some(Multiplier::Cooperative), sizes, &mut random, 2.5 * tolerance);
    }
    columns_alone(&device, Some(Multiplier::Cooperative), &mut random, 2e-2);
    each_of_a_batch(&device, Some(Multiplier::Cooperative), &mut random, 1e-2);
}

#[test]
fn half_precision_products_of_two_halves_a_number_are_as_near_the_oracle_as_those_in_single_precision() {
    let test = half_precision_products_of_two_halves_a_number_are_as_near_the_oracle_as_those_in_single_precision;
    let Some(device) = devices::with_matrices(test) else { return };
    let (mut random, split) = (Random::new(39), Some(Multiplier::Split));
    for sizes in GPU_SIZES {
        every_layout(&device, split, sizes, &mut random, 6e-6 * (sizes.2 as f64).sqrt().max(2.0));
    }
    columns_alone(&device, split, &mut random, 4e-5);
    each_of_a_batch(&device, split, &mut random, 2e-5);
}

#[test]
fn a_half_precision_product_is_the_one_of_its_rounded_operands_even_with_outliers() {
    let test = a_half_precision_product_is_the_one_of_its_rounded_operands_even_with_outliers;
    let Some(device) = devices::with_matrices(test) else { return };
    let mut random = Random::new(28);
    for (m, n, k) in [(70, 130, 100), (129, 64, 33), (16, 16, 16), (1, 200, 4)] {
        let (mut a, mut b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
        // Channels like those of Qwen2, rows that are tiny, huge or nothing.
        a.iter_mut().skip(k / 2).step_by(k).for_each(|x| *x *= 1e6);
        a[..k].iter_mut().for_each(|x| *x *= 1e-30);
        if m > 3 {
            a[k..2 * k].fill(0.0);
            a[2 * k..3 * k].iter_mut().for_each(|x| *x *= 1e30);
            b[..k].iter_mut().for_each(|x| *x *= 1e-36);
        }
        let (exact_a, rests_a) = oracle::matmul::split(&wide(&a), k);
        let (exact_b, rests_b) = oracle::matmul::split(&wide(&b), k);
        let (x, y) = (matrix(&device, &a, [m, k]), matrix(&device, &b, [n, k]));
        for multiplier in HALVING {
            let got = read(&Product::of(&x, y.transposed()).by(multiplier).run(&device).unwrap()).unwrap();
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let term = |p: usize| {
                    let (a, b) = (i * k + p, j * k + p);
                    let halves = exact_a[a] * exact_b[b];
                    let rests = exact_a[a] * rests_b[b] + rests_a[a] * exact_b[b];
                    if multiplier == Multiplier::Split { halves + rests } else { halves }
                };
                let (want, size): (f64, f64) = ((0..k).map(term).sum(), (0..k).map(|p| term(p).abs()).sum());
                let difference = (f64::from(got[i * n + j]) - want).abs();
                // Sums are single precision, and what is below its range is 0.
                let what = format!("{m} x {n} x {k} by {}, {i}, {j}", multiplier.name());
                assert!(difference <= 2e-6 * size + 1e-37, "{what}: {}, {want}", got[i * n + j]);
            }
        }
    }
}

#[test]
fn a_half_precision_product_with_a_frozen_matrix_is_that_with_what_it_holds_to_the_bit() {
    let test = a_half_precision_product_with_a_frozen_matrix_is_that_with_what_it_holds_to_the_bit;
    let Some(device) = devices::with_matrices(test) else { return };
    let mut random = Random::new(34);
    for format in WeightFormat::ALL {
        let (m, outputs, columns) = (37, 70, format.block_elements().max(32));
        let length = format.bytes_for(outputs * columns).unwrap();
        let bytes = match format {
            WeightFormat::F32 => random.vec(outputs * columns, 1.0).iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => oracle::dequantize::moderate(format, (0..length).map(|_| random.below(256) as u8).collect()),
        };
        let raw = RawTensor { name: String::new(), shape: vec![outputs, columns], format, bytes };
        let dense = matrix(&device, &raw.to_f32(), [outputs, columns]);
        let packed = Packed::new(&device, vec![raw], columns, Rows::Whole).unwrap();
        let frozen = || matmul::Operand::from(&packed);
        let x = matrix(&device, &random.vec(m * columns, 1.0), [m, columns]);
        let dy = matrix(&device, &random.vec(m * outputs, 1.0), [m, outputs]);
        for multiplier in HALVING {
            let what = format!("{format:?} by {}", multiplier.name());
            let halved =
                |left: &Tensor<2>, right| read(&Product::of(left, right).by(multiplier).run(&device).unwrap()).unwrap();
            same_bits(&what, &halved(&x, frozen().transposed()), &halved(&x, dense.transposed())).unwrap();
            same_bits(&what, &halved(&dy, frozen()), &halved(&dy, (&dense).into())).unwrap();
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_in_half_precision_and_nothing_else_becomes_it() {
    let test = what_is_not_finite_stays_so_in_half_precision_and_nothing_else_becomes_it;
    let Some(device) = devices::with_matrices(test) else { return };
    let (m, n, k) = (40, 50, 60);
    for (bad, multiplier) in
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().flat_map(|bad| HALVING.map(|by| (bad, by)))
    {
        let mut random = Random::new(29);
        let (mut a, mut b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
        a[7 * k + 33] = bad;
        b[11 * k + 59] = bad;
        let (x, y) = (matrix(&device, &a, [m, k]), matrix(&device, &b, [n, k]));
        let got = read(&Product::of(&x, y.transposed()).by(multiplier).run(&device).unwrap()).unwrap();
        for (at, value) in got.iter().enumerate() {
            let touched = at / n == 7 || at % n == 11;
            assert_eq!(value.is_finite(), !touched, "{bad}: row {}, column {} is {value}", at / n, at % n);
        }
    }
}

#[test]
fn a_half_precision_product_is_one_of_operands_rounded_to_eleven_bits_row_by_row() {
    let test = a_half_precision_product_is_one_of_operands_rounded_to_eleven_bits_row_by_row;
    let Some(device) = devices::with_matrices(test) else { return };
    let mut random = Random::new(38);
    let (m, n, k) = (70, 50, 96);
    // Rows of very different sizes.
    let mut rows =
        |count: usize| -> Vec<f32> { (0..count).flat_map(|i| random.vec(k, 10f32.powi(i as i32 % 9 - 4))).collect() };
    let (a, b) = (rows(m), rows(n));
    let both = |device: &Device, multiplier: Multiplier| {
        let (a, b) = (matrix(device, &a, [m, k]), matrix(device, &b, [n, k]));
        let gradient = |y: &Tensor<2>| Product::of(y.transposed(), &a);
        let by = |product: Product<2>| match device.is_cpu() {
            true => product.run(device).unwrap(),
            false => product.by(multiplier).run(device).unwrap(),
        };
        let y = by(Product::of(&a, b.transposed()).times(0.5));
        [read(&y).unwrap(), read(&by(gradient(&y))).unwrap()].concat()
    };
    for multiplier in HALVING {
        let rounding = Device::cpu().halving_wide(multiplier);
        let single = both(&Device::cpu(), multiplier);
        let (halves, rounded) = (both(&device, multiplier), both(&rounding, multiplier));
        let scale = |row: &[f32]| row.iter().fold(0f32, |most, x| most.max(x.abs()));
        let far = |other: &[f32]| {
            let rows = halves.chunks(n).zip(other.chunks(n)).take(m);
            rows.map(|(a, b)| a.iter().zip(b).fold(0f32, |far, (a, b)| far.max((a - b).abs())) / scale(b))
                .fold(0f32, f32::max)
        };
        assert!(far(&rounded) < 2e-6, "{}", far(&rounded));
        match multiplier {
            Multiplier::Split => assert!(far(&single) < 2e-6, "{}: one half a number", far(&single)),
            _ => assert!(far(&single) > 2e-5, "{}: nothing was rounded", far(&single)),
        }
        let (halves, rounded) = (&halves[m * n..], &rounded[m * n..]);
        let wide: Vec<f64> = rounded.iter().map(|&x| f64::from(x)).collect();
        assert!(temper_conformance::compare::cosine(halves, &wide) > 1.0 - 1e-7);
    }
}

#[test]
fn on_the_cpu_operands_of_two_halves_a_number_give_nearly_single_precision_where_one_half_does_not() {
    let mut random = Random::new(40);
    let (m, n, k) = (70, 50, 96);
    let (a, b) = (random.vec(m * k, 1.0), random.vec(n * k, 1.0));
    let (x, y) = (matrix(&Device::cpu(), &a, [m, k]), matrix(&Device::cpu(), &b, [n, k]));
    let want = matmul(&a, false, &b, true, m, n, k);
    let far = |multiplier| {
        let got = read(&Product::of(&x, y.transposed()).run(&Device::cpu().halving_wide(multiplier)).unwrap()).unwrap();
        got.iter().zip(&want).fold(0f64, |far, (got, want)| far.max((f64::from(*got) - want).abs()))
    };
    let [halves, split] = HALVING.map(far);
    assert!(split < 1e-5 && halves > 1e-4, "{split} {halves}");
}

#[test]
fn a_device_settled_for_half_precision_multiplies_so_but_for_logits_and_thin_sides() {
    let test = a_device_settled_for_half_precision_multiplies_so_but_for_logits_and_thin_sides;
    let Some(device) = devices::with_matrices(test) else { return };
    let (settled, said) = device.computing(Compute::F16, &devices::NoClock).unwrap();
    assert_eq!(said, Vec::<String>::new(), "the driver computes right");
    let mut random = Random::new(30);
    let (a, b) = (random.vec(64 * 96, 1.0), random.vec(64 * 96, 1.0));
    let (x, y) = (matrix(&device, &a, [64, 96]), matrix(&device, &b, [64, 96]));
    let bits = |product: Product<2>, device: &Device| read(&product.run(device).unwrap()).unwrap();
    let product = || Product::of(&x, y.transposed());
    let halved = bits(product().by(Multiplier::Cooperative), &device);
    let single = bits(product().by(Multiplier::Software), &device);
    assert_ne!(halved, single);
    same_bits("settled", &bits(product(), &settled), &halved).unwrap();
    same_bits("exactly", &bits(product().exactly(), &settled), &single).unwrap();
    same_bits("not settled", &bits(product(), &device.treated_as_software(true)), &single).unwrap();
    let thin = matrix(&device, &random.vec(16 * 96, 1.0), [16, 96]);
    let side = || Product::of(&x, thin.transposed());
    same_bits("thin", &bits(side(), &settled), &bits(side().by(Multiplier::Software), &device)).unwrap();
    // And attention, which is in half precision where products are and the device lists 16 x 16 x 16.
    let (shape, starts) =
        (attention::Shape { heads: 2, kv_heads: 1, head_dim: 24 }, Indices::new(&device, vec![0; 64]));
    let attend = |device: &Device| read(&attention::forward(device, &x, shape, &starts).unwrap().0).unwrap();
    let by = |kind| read(&attention::forward_by(&device, kind, &x, shape, &starts).unwrap().0).unwrap();
    assert_ne!(by(attention::Kind::Matrices), by(attention::Kind::Vectors));
    same_bits("attention", &attend(&settled.halving_attention()), &by(attention::Kind::Matrices)).unwrap();
    let listed = if settled.halves_attention() { attention::Kind::Matrices } else { attention::Kind::Vectors };
    same_bits("attention where the size is listed", &attend(&settled), &by(listed)).unwrap();
    same_bits("attention, not settled", &attend(&device), &by(attention::Kind::Vectors)).unwrap();
}

#[test]
fn half_precision_of_two_halves_a_number_is_settled_for_products_and_no_gradient_of_attention() {
    let test = half_precision_of_two_halves_a_number_is_settled_for_products_and_no_gradient_of_attention;
    let Some(device) = devices::with_matrices(test) else { return };
    let (settled, said) = device.computing(Compute::Split, &devices::NoClock).unwrap();
    assert_eq!(said, Vec::<String>::new(), "the driver computes right");
    assert_eq!((settled.compute(), settled.segments()), (Compute::Split, 3));
    let mut random = Random::new(41);
    let (a, b) = (random.vec(64 * 96, 1.0), random.vec(64 * 96, 1.0));
    let (x, y) = (matrix(&device, &a, [64, 96]), matrix(&device, &b, [64, 96]));
    let bits = |product: Product<2>, device: &Device| read(&product.run(device).unwrap()).unwrap();
    let product = || Product::of(&x, y.transposed());
    same_bits("settled", &bits(product(), &settled), &bits(product().by(Multiplier::Split), &device)).unwrap();
    same_bits("exactly", &bits(product().exactly(), &settled), &bits(product().by(Multiplier::Software), &device))
        .unwrap();
    let (shape, starts) =
        (attention::Shape { heads: 2, kv_heads: 1, head_dim: 24 }, Indices::new(&device, vec![0; 64]));
    let dout = matrix(&device, &random.vec(64 * 48, 1.0), [64, 48]);
    let (out, lse) = attention::forward_by(&device, attention::Kind::Matrices, &x, shape, &starts).unwrap();
    let (own, _) = attention::forward(&settled.halving_attention(), &x, shape, &starts).unwrap();
    same_bits("attention", &read(&own).unwrap(), &read(&out).unwrap()).unwrap();
    let vectors = attention::Kind::Vectors;
    let back = attention::backward_by(&device, vectors, &x, &out, &lse, &dout, shape, &starts).unwrap();
    let own = attention::backward(&settled.halving_attention(), &x, &out, &lse, &dout, shape, &starts).unwrap();
    same_bits("attention, back", &read(&own).unwrap(), &read(&back).unwrap()).unwrap();
}

#[test]
fn a_device_without_cooperative_matrices_refuses_half_precision_and_says_why() {
    let plain = Device::logical(&temper_engine::adapters()[0].id, Default::default()).unwrap();
    for device in [Device::cpu(), plain] {
        assert!(!device.has_cooperative_matrices());
        for compute in [Compute::F16, Compute::Split] {
            let error = device.computing(compute, &devices::NoClock).err().expect("it has none");
            let (text, said) = (error.to_string(), format!("[run] compute = \"{compute}\""));
            assert!(error.is_bad_input() && text.contains(&said) && text.contains(device.name()), "{text}");
        }
        for compute in [Compute::Auto, Compute::F32] {
            let device = device.treated_as_software(true);
            let (settled, said) = device.computing(compute, &devices::NoClock).unwrap();
            assert!(said.is_empty() && settled.compute() == compute && settled.choice() == device.choice());
        }
    }
}

/// A clock that runs fast, so many seconds whenever somebody looks: everything is tried as often as it must be.
struct Fast {
    step: f64,
    now: std::cell::Cell<f64>,
}

impl Fast {
    fn by(step: f64) -> Self {
        Self { step, now: std::cell::Cell::new(0.0) }
    }
}

/// There is time for everything.
impl Default for Fast {
    fn default() -> Self {
        Self::by(0.02)
    }
}

impl Clock for Fast {
    fn seconds(&self) -> f64 {
        self.now.set(self.now.get() + self.step);
        self.now.get()
    }
}

#[test]
fn every_kernel_passes_its_own_test_and_a_calibration_takes_only_what_it_has_timed() {
    use temper_engine::inside::kernels::calibration::self_test;
    let device = devices::gpu();
    for multiplier in [Multiplier::Tiled, Multiplier::Software, Multiplier::FewRows] {
        assert_eq!(self_test(&device, multiplier).unwrap(), None, "{}", multiplier.name());
    }
    let found = calibrate(&device.treated_as_software(false), Compute::F32, &Fast::default()).unwrap();
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    assert!(!found.cut_off);
    for class in Class::ALL {
        assert!(found.timed.iter().any(|t| t.class == class), "{class:?}");
    }
    for t in &found.timed {
        assert!(t.seconds > 0.0 && t.gflops() > 0.0 && t.multiplier.segments() == 0, "{t:?}");
        let taken = found.choice.for_class(t.class);
        assert!(found.timed.iter().any(|other| other.class == t.class && other.multiplier == taken), "{t:?}");
    }
}

/// A shelf in memory.
type Things = Mutex<BTreeMap<String, Vec<u8>>>;

#[test]
fn what_a_run_measured_and_compiled_serves_the_next_one_and_what_was_damaged_is_compiled_again() {
    let things = Arc::new(Things::default());
    let device = || devices::gpu().treated_as_software(false).with_shelf(things.clone());
    let names = || things.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut random = Random::new(36);
    let (a, b) = (random.vec(40 * 50, 1.0), random.vec(60 * 50, 1.0));
    let multiply = |device: &Device| {
        let (a, b) = (matrix(device, &a, [40, 50]), matrix(device, &b, [60, 50]));
        read(&Product::of(&a, b.transposed()).by(Multiplier::Tiled).run(device).unwrap()).unwrap()
    };

    let first = device();
    let (settled, said) = first.computing(Compute::F32, &Fast::default()).unwrap();
    assert!(said.is_empty(), "{said:?}");
    let product = multiply(&settled);
    first.leave_compiled();
    let measured = names().into_iter().find(|name| name.starts_with("products-f32-")).expect("what was measured");
    // Another choice than any that was measured, as it would be found there; no clock runs.
    let odd = "tiled tiled software software";
    things.leave(&measured, odd.as_bytes());
    let (again, said) = device().computing(Compute::F32, &devices::NoClock).unwrap();
    assert!(said.is_empty(), "{said:?}");
    let kernels = Class::ALL.map(|class| again.choice().for_class(class).name()).join(" ");
    assert_eq!(kernels, odd);
    same_bits("with what was compiled", &multiply(&again), &product).unwrap();

    let Some(compiled) = names().into_iter().find(|name| name.starts_with("wgpu_pipeline_cache")) else {
        // Such a thing is Vulkan's.
        assert!(!device().name().contains("vulkan"), "{}", device().name());
        return;
    };
    for damage in [0, 20] {
        let mut bytes = things.take(&compiled).unwrap();
        bytes[damage] ^= 1;
        things.leave(&compiled, &bytes);
        let device = device();
        same_bits("after damage", &multiply(&device), &product).unwrap();
        device.leave_compiled();
        assert_ne!(things.take(&compiled).unwrap(), bytes, "it was left anew");
    }
}

#[test]
fn a_calibration_without_time_for_all_begins_with_wide_products_and_is_said_and_not_kept() {
    let hurried = || Fast::by(0.1);
    let device = devices::gpu().treated_as_software(false);
    let found = calibrate(&device, Compute::F32, &hurried()).unwrap();
    assert!(found.cut_off && found.timed[0].class == Class::Wide, "{:?}", found.timed);
    assert!(found.timed.iter().all(|t| t.class != Class::Thin), "{:?}", found.timed);
    let things = Arc::new(Things::default());
    let (_, said) = device.with_shelf(things.clone()).computing(Compute::F32, &hurried()).unwrap();
    assert!(said.len() == 1 && said[0].contains("the next run measures again"), "{said:?}");
    assert!(!things.lock().unwrap().keys().any(|name| name.starts_with("products-")));
}

#[test]
fn half_precision_that_a_process_did_not_survive_is_left_alone_until_its_word_is_removed() {
    use temper_engine::inside::kernels::calibration::self_test;
    let test = half_precision_that_a_process_did_not_survive_is_left_alone_until_its_word_is_removed;
    let Some(device) = devices::with_matrices(test) else { return };
    let things = Arc::new(Things::default());
    let device = device.treated_as_software(false).with_shelf(things.clone());
    let tried = || self_test(&device, Multiplier::Cooperative).unwrap();
    assert_eq!(tried(), None);
    let name = things.lock().unwrap().keys().find(|name| name.starts_with("cooperative-")).cloned().unwrap();
    things.leave(&name, b"trying");
    let problem = tried().expect("somebody did not come back");
    assert!(problem.contains(&name) && problem.contains("TEMPER_CACHE"), "{problem}");
    let error = device.computing(Compute::F16, &Fast::default()).err().expect("they cannot be had");
    assert!(error.is_bad_input() && error.to_string().contains(&name), "{error}");
    things.lock().unwrap().remove(&name);
    assert_eq!(tried(), None);
}

#[test]
fn every_kernel_of_a_card_is_tried_once_and_what_is_noted_of_it_is_believed() {
    let things = Arc::new(Things::default());
    // Software is not tried: the tests run on it.
    probe::prove(&devices::gpu().with_shelf(things.clone())).unwrap();
    assert!(things.lock().unwrap().is_empty());
    let device = devices::gpu().treated_as_software(false).with_shelf(things.clone());
    probe::prove(&device).unwrap();
    let names: Vec<String> = things.lock().unwrap().keys().cloned().collect();
    let name = names.iter().find(|name| name.starts_with("self-test-")).expect("it is noted");
    assert_eq!(things.take(name).as_deref(), Some(b"right".as_slice()));
    // With nothing to be tried no driver is asked, and what somebody else wrote there is not believed.
    probe::prove(&device).unwrap();
    things.leave(name, b"perhaps");
    probe::prove(&device).unwrap();
    assert_eq!(things.take(name).as_deref(), Some(b"right".as_slice()));
}

#[test]
fn what_binds_weights_is_let_go_of_with_them_and_so_is_everything_on_request() {
    // Of its own: other tests launch too.
    let device = Device::logical(&temper_engine::adapters()[0].id, Default::default()).unwrap();
    let mut random = Random::new(37);
    let x = matrix(&device, &random.vec(40 * 64, 1.0), [40, 64]);
    // Halves of 1, which a kernel expands.
    let bytes = [0, 0x3c].repeat(60 * 64);
    let raw = RawTensor { name: String::new(), shape: vec![60, 64], format: WeightFormat::F16, bytes };
    let packed = Packed::new(&device, vec![raw], 64, Rows::Whole).unwrap();
    let held = || device.bind_groups().1;
    let multiply = |packed: &Packed| {
        read(&Product::of(&x, matmul::Operand::from(packed).transposed()).run(&device).unwrap()).unwrap()
    };
    let product = multiply(&packed);
    let with_weights = held();
    same_bits("bound once more", &multiply(&packed), &product).unwrap();
    drop(packed);
    assert!(held() < with_weights, "{} of {with_weights} are held", held());
    device.release_unused();
    assert_eq!(held(), 0);
}

// Row statistics, gate and gradient.

/// Widths around the edges of subgroups, workgroups and column tiles.
const WIDTHS: [usize; 11] = [1, 2, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025];

fn flat(rows: &[(&'static str, Vec<f32>)]) -> Vec<f32> {
    rows.iter().flat_map(|(_, row)| row.clone()).collect()
}

/// Columns `from .. to` of a matrix.
fn cut(values: &[f32], columns: usize, from: usize, to: usize) -> Vec<f32> {
    values.chunks(columns).flat_map(|row| row[from..to].to_vec()).collect()
}

/// Statistics of `logits [labels, columns]`, cut into vocabulary tiles behind each of `ends`.
fn statistics(device: &Device, logits: &[f32], labels: &[u32], top_k: usize, ends: &[usize]) -> Statistics {
    let rows = labels.len();
    let columns = logits.len() / rows;
    let indices = Indices::new(device, labels.to_vec());
    let mut statistics = None;
    for (&start, &end) in [0].iter().chain(ends).zip(ends) {
        let tile = matrix(device, &cut(logits, columns, start, end), [rows, end - start]);
        soil(device, &[rows * 64, rows * 8]);
        let next = kernels::row_stats::accumulate(device, &tile, start, &indices, top_k, statistics).unwrap();
        statistics = Some(next);
    }
    statistics.expect("at least one tile")
}

fn assert_fields(what: &str, got: &[f32], want: &oracle::row_stats::RowStats, top_k: usize) {
    let (max, sum, nonfinite) = (want.max.max(f64::from(f32::MIN)), want.sum, want.nonfinite as f64);
    close(
        &format!("{what}: max, label and counts"),
        &[got[0], got[4], got[5], got[6]],
        &[max, want.label_logit, nonfinite, want.count as f64],
        0.0,
        0.0,
    )
    .unwrap();
    close(&format!("{what}: sums"), &got[1..4], &[sum, want.u, want.sum_sq], 1e-6, 1e-5).unwrap();
    // Peaked rows keep their digits: the tolerance is mostly relative.
    close(&format!("{what}: entropy"), &got[7..], &[want.entropy_top_k], 2e-7, 1e-5).unwrap();
    let bound = (top_k as f32).ln() * (1.0 + 1e-6);
    assert!(got[7] >= 0.0 && got[7].is_sign_positive() && got[7] <= bound, "{what}: entropy {}", got[7]);
}

#[test]
fn row_statistics_of_every_poisoned_row_equal_the_oracle_at_every_width_and_k() {
    let mut random = Random::new(3);
    for columns in WIDTHS {
        let rows = poisoned_rows(columns, &mut random);
        let (logits, labels) = (flat(&rows), vec![columns as u32 / 2; rows.len()]);
        for top_k in [1, 2, 20, 63, 64] {
            for device in devices::all() {
                let fields = read(&statistics(&device, &logits, &labels, top_k, &[columns]).fields).unwrap();
                assert_eq!(fields.len(), 8 * rows.len());
                for ((name, row), got) in rows.iter().zip(fields.chunks(8)) {
                    let want = oracle::row_stats::row_stats(row, Some(columns / 2), top_k);
                    let what = format!("{name}, {columns} columns, K {top_k}, {}", device.name());
                    assert_fields(&what, got, &want, top_k);
                    let Some(row) = kernels::row_stats::from_fields(got) else { panic!("{what}: not finite") };
                    let (log, ce) = (want.sum.ln(), want.sum.ln() + (want.max - want.label_logit));
                    let exact = [ce, log - want.u / want.sum, want.sum_sq / (want.sum * want.sum)];
                    close(&what, &[row.ce, row.entropy_full, row.collision], &exact, 5e-6, 1e-5).unwrap();
                }
            }
        }
    }
}

#[test]
fn one_two_or_three_vocabulary_tiles_give_the_statistics_of_the_whole_row() {
    let (mut random, columns) = (Random::new(4), 1300);
    let rows = poisoned_rows(columns, &mut random);
    for ends in [&[1300][..], &[1, 1300], &[650, 1300], &[1024, 1300], &[1, 257, 1300], &[5, 1299, 1300]] {
        // The label's tile is the first, a middle and the last one; the middle column is finite in every row.
        for label in [650, 0, 1299] {
            let kept: Vec<_> = rows.iter().filter(|(_, row)| row[label].is_finite()).cloned().collect();
            for device in devices::all() {
                let labels = vec![label as u32; kept.len()];
                let fields = read(&statistics(&device, &flat(&kept), &labels, 20, ends).fields).unwrap();
                assert_eq!(fields.len(), 8 * kept.len());
                for ((name, row), got) in kept.iter().zip(fields.chunks(8)) {
                    let want = oracle::row_stats::row_stats(row, Some(label), 20);
                    assert_fields(&format!("{name}, tiles {ends:?}, {}", device.name()), got, &want, 20);
                }
            }
        }
    }
}

#[test]
fn a_tile_of_nothing_but_masked_columns_changes_nothing_wherever_it_comes() {
    let mut random = Random::new(5);
    let (masked, row) = (vec![f32::NEG_INFINITY; 300], random.vec(300, 4.0));
    let want = oracle::row_stats::row_stats(&row, Some(7), 20);
    for device in devices::all() {
        for place in 0..3 {
            let mut parts = [&masked, &masked, &masked];
            parts[place] = &row;
            let logits: Vec<f32> = parts.into_iter().flatten().copied().collect();
            let label = (place * 300 + 7) as u32;
            let fields = read(&statistics(&device, &logits, &[label], 20, &[300, 600, 900]).fields).unwrap();
            assert_fields(&format!("tile {place} on {}", device.name()), &fields, &want, 20);
        }
    }
}

#[test]
fn nan_and_infinity_are_counted_in_every_lane_and_never_hang_the_selection() {
    let (mut random, columns) = (Random::new(6), 600);
    for device in devices::all() {
        let mut rows = Vec::new();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in [0, 255, 256, 599] {
                let mut row = random.vec(columns, 3.0);
                row[at] = bad;
                rows.push(("one", row));
            }
            rows.push(("all", vec![bad; columns]));
        }
        rows.push(("masked label", vec![f32::NEG_INFINITY; columns]));
        let labels = vec![3; rows.len()];
        let fields = read(&statistics(&device, &flat(&rows), &labels, 20, &[columns]).fields).unwrap();
        assert_eq!(fields.len(), 8 * rows.len());
        for (index, ((name, row), got)) in rows.iter().zip(fields.chunks(8)).enumerate() {
            let want = oracle::row_stats::row_stats(row, Some(3), 20);
            let what = format!("row {index}, {name}, on {}", device.name());
            assert_eq!(got[5], want.nonfinite as f32, "{what}");
            assert!(kernels::row_stats::from_fields(got).is_none(), "{what} passed as finite");
            if *name == "one" {
                // Sums and entropy are those of the finite ones.
                assert_fields(&what, got, &want, 20);
            }
        }
    }
}

/// Statistics of a selection of `logits [labels, columns]`, cut into vocabulary tiles behind each of `ends`.
fn selected(device: &Device, logits: &[f32], labels: &[u32], selection: Selection, ends: &[usize]) -> Vec<f32> {
    let (rows, columns) = (labels.len(), logits.len() / labels.len());
    let starts = [0].iter().chain(ends);
    let tile =
        |(&start, &end): (&usize, &usize)| matrix(device, &cut(logits, columns, start, end), [rows, end - start]);
    let tiles: Vec<_> = starts.zip(ends).map(tile).collect();
    soil(device, &[rows * 64, rows * 8, rows * 18]);
    let indices = Indices::new(device, labels.to_vec());
    let statistics = kernels::statistics::of_tiles(device, &tiles.iter().collect::<Vec<_>>(), &indices, selection);
    read(&statistics.unwrap().fields).unwrap()
}

#[test]
fn entropy_of_any_k_equals_the_oracle_for_every_poisoned_row_in_any_tiles() {
    let mut random = Random::new(46);
    for columns in [65, 100, 255, 257, 1300] {
        let rows = poisoned_rows(columns, &mut random);
        let (logits, labels) = (flat(&rows), vec![columns as u32 / 2; rows.len()]);
        for top_k in [65, 66, columns / 2, columns - 1, columns].into_iter().filter(|&k| k > 64) {
            for ends in [&[columns][..], &[1, 40, columns]] {
                for device in devices::all() {
                    let fields = selected(&device, &logits, &labels, Selection::Top(top_k), ends);
                    assert_eq!(fields.len(), 8 * rows.len());
                    for ((name, row), got) in rows.iter().zip(fields.chunks(8)) {
                        let (entropy, count) = oracle::wide_entropy::of_largest(row, top_k);
                        let what = format!("{name}, K {top_k} of {columns}, tiles {ends:?}, {}", device.name());
                        close(&what, &got[7..], &[entropy], 1e-6, 1e-5).unwrap();
                        // Of all, the masked ones count as well.
                        let count = if top_k >= columns { columns } else { count };
                        assert_eq!(got[6], count as f32, "{what}");
                        assert!(got[7] >= 0.0 && got[7].is_sign_positive(), "{what}: {}", got[7]);
                    }
                }
            }
        }
    }
}

#[test]
fn entropy_over_a_share_is_that_of_the_fewest_tokens_that_carry_it() {
    let mut random = Random::new(47);
    for columns in [2, 65, 257, 1300] {
        let rows = poisoned_rows(columns, &mut random);
        let (logits, labels) = (flat(&rows), vec![columns as u32 / 2; rows.len()]);
        for share in [0.05f32, 0.5, 0.95, 0.9999] {
            for ends in [&[columns][..], &[1, columns]] {
                for device in devices::all() {
                    let fields = selected(&device, &logits, &labels, Selection::Share(share), ends);
                    for ((name, row), got) in rows.iter().zip(fields.chunks(8)) {
                        let what = format!("{name}, {share} of {columns}, tiles {ends:?}, {}", device.name());
                        let all = oracle::row_stats::row_stats(row, None, 0);
                        let count = got[6] as usize;
                        assert!(count >= 1 && got[6].fract() == 0.0 && count <= all.top.len(), "{what}: {}", got[6]);
                        let carried =
                            |count: usize| all.top[..count].iter().map(|z| (z - all.max).exp()).sum::<f64>() / all.sum;
                        let (share, slack) = (f64::from(share), f64::from(Selection::SLACK));
                        assert!(carried(count) >= share - 1.5 * slack, "{what}: {count} carry {}", carried(count));
                        let fewer = carried(count - 1);
                        assert!(fewer < share - 0.5 * slack, "{what}: {} carry {fewer} already", count - 1);
                        let (entropy, _) = oracle::wide_entropy::of_largest(row, count);
                        close(&what, &got[7..], &[entropy], 1e-6, 1e-5).unwrap();
                    }
                }
            }
        }
    }
    assert_eq!(oracle::wide_entropy::of_share(&[0.0; 100], 0.95 - 1e-5).1, 95, "the oracle's own count");
}

#[test]
fn a_selection_neither_hangs_nor_counts_what_is_not_finite() {
    let (mut random, columns) = (Random::new(48), 300);
    for device in devices::all() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = random.vec(columns, 3.0);
            row[7] = bad;
            for row in [row, vec![bad; columns], vec![f32::NEG_INFINITY; columns]] {
                for selection in [Selection::Top(100), Selection::Share(0.9), Selection::Full] {
                    let fields = selected(&device, &row, &[3], selection, &[columns]);
                    assert!(kernels::row_stats::from_fields(&fields).is_none(), "{selection:?} on {}", device.name());
                }
            }
        }
    }
}

#[test]
fn divergence_and_its_gradient_equal_the_oracle_at_every_width_in_both_directions() {
    let mut random = Random::new(49);
    for columns in [1, 64, 65, 257, 1025, 1300] {
        let rows: Vec<_> =
            poisoned_rows(columns, &mut random).into_iter().filter(|(name, _)| *name != "one-hot").collect();
        // What is masked is masked in both; elsewhere they differ, a little or a lot.
        let other: Vec<f32> = rows
            .iter()
            .enumerate()
            .flat_map(|(r, (_, row))| {
                let noise = random.vec(columns, [0.0, 0.01, 1.0, 5.0][r % 4]);
                row.iter().zip(noise).map(|(z, noise)| z + noise).collect::<Vec<_>>()
            })
            .collect();
        let (logits, n) = (flat(&rows), rows.len());
        let labels = vec![columns as u32 / 2; n];
        let weight: Vec<f32> = (0..n).map(|r| [0.25, 0.0, 1.5][r % 3]).collect();
        for (direction, reverse) in [(Direction::Forward, false), (Direction::Reverse, true)] {
            let exact = |r: usize| {
                let row = |all: &[f32]| wide(&all[r * columns..(r + 1) * columns]);
                let (z, q, label) = (row(&logits), row(&other), columns / 2);
                let kl = oracle::reference::divergence(&z, &q, reverse);
                (kl, oracle::reference::gradient(&z, &q, label, f64::from(weight[r]), 0.5, reverse))
            };
            let (kls, gradients): (Vec<f64>, Vec<Vec<f64>>) = (0..n).map(exact).unzip();
            for ends in
                [vec![columns], vec![1, columns]].into_iter().filter(|ends| ends[0] < columns || ends.len() == 1)
            {
                for device in devices::all() {
                    let what = format!("{direction}, {columns} columns, tiles {ends:?}, {}", device.name());
                    let indices = Indices::new(&device, labels.clone());
                    let tiles = |all: &[f32]| -> Vec<Tensor<2>> {
                        let starts = [0].iter().chain(&ends);
                        starts
                            .zip(&ends)
                            .map(|(&a, &b)| matrix(&device, &cut(all, columns, a, b), [n, b - a]))
                            .collect()
                    };
                    let statistics = |tiles: &[Tensor<2>]| {
                        let tiles: Vec<_> = tiles.iter().collect();
                        kernels::statistics::of_tiles(&device, &tiles, &indices, 1).unwrap()
                    };
                    let (own, reference) = (tiles(&logits), tiles(&other));
                    let (stats, reference_stats) = (statistics(&own), statistics(&reference));
                    soil(&device, &[n, n * columns]);
                    let beside = OfReference { tiles: &reference, statistics: &reference_stats };
                    let divergence = reference::divergence(&device, &own, &stats, &beside, direction).unwrap();
                    close(&what, &read(&divergence).unwrap(), &kls, 3e-6, 3e-5).unwrap();
                    let pulled = Pulled {
                        labels: &indices,
                        weight: &vector(&device, &weight),
                        statistics: &stats,
                        reference: &reference_stats,
                        divergence: &divergence,
                        direction,
                        beta: 0.5,
                    };
                    let mut start = 0;
                    for (tile, other) in own.into_iter().zip(&reference) {
                        let width = tile.dims()[1];
                        let got = reference::over_logits(&device, tile, other, start, &pulled).unwrap();
                        let want: Vec<f64> =
                            gradients.iter().flat_map(|row| row[start..start + width].to_vec()).collect();
                        close(&format!("{what}: gradient"), &read(&got).unwrap(), &want, 3e-6, 3e-5).unwrap();
                        start += width;
                    }
                }
            }
        }
    }
}

#[test]
fn rows_whose_large_values_all_lie_in_a_few_lanes_keep_their_top_k() {
    // More candidates above the first bound than the selection holds, with ties and without.
    let columns = 256 * 90;
    let ties: Vec<f32> = (0..columns).map(|c| if c % 256 < 19 { 7.0 } else { -1.0 }).collect();
    let rising: Vec<f32> = (0..columns).map(|c| if c % 256 < 19 { c as f32 * 1e-3 } else { -1e3 }).collect();
    let rows = [("ties", ties), ("rising", rising)];
    for device in devices::all() {
        for top_k in [2, 20, 64] {
            let fields = read(&statistics(&device, &flat(&rows), &[0, 0], top_k, &[columns]).fields).unwrap();
            for ((name, row), got) in rows.iter().zip(fields.chunks(8)) {
                let want = oracle::row_stats::row_stats(row, Some(0), top_k);
                close(&format!("{name}, K {top_k}, {}", device.name()), &got[7..], &[want.entropy_top_k], 1e-6, 1e-5)
                    .unwrap();
            }
        }
    }
}

#[test]
fn every_kind_of_gate_equals_its_definition_on_every_poisoned_row() {
    let mut random = Random::new(7);
    let tested: BTreeSet<u32> = oracle::gate::examples().iter().map(|gate| gate.kind).collect();
    assert_eq!(tested, kind::ALL.iter().map(|(_, number)| *number).collect());
    for (columns, repeats) in [(300, 1), (40, 20)] {
        // 13 and 260 rows: within one workgroup and beyond it.
        let rows: Vec<_> = (0..repeats).flat_map(|_| poisoned_rows(columns, &mut random)).collect();
        let (label, reciprocal) = (columns / 2, 1.0 / 7.0);
        for device in devices::all() {
            let labels = vec![label as u32; rows.len()];
            let fields = statistics(&device, &flat(&rows), &labels, 20, &[columns]).fields;
            for params in oracle::gate::examples() {
                soil(&device, &[rows.len()]);
                let got = read(&kernels::gate::weights(&device, &fields, &params, reciprocal).unwrap()).unwrap();
                let exact = oracle::gate::Gate::from(&params);
                let exact = oracle::gate::Gate { scale: exact.scale * f64::from(reciprocal), ..exact };
                let want: Vec<f64> = rows
                    .iter()
                    .map(|(_, row)| oracle::gate::gate(&exact, &oracle::row_stats::row_stats(row, Some(label), 20)))
                    .collect();
                let what = format!("gate {} ^ {} on {}", params.kind, params.exponent, device.name());
                close(&what, &got, &want, 1e-7, 2e-5).unwrap();
            }
        }
    }
}

#[test]
fn the_kinds_of_gate_have_the_names_and_numbers_of_the_shader() {
    let module = naga::front::wgsl::parse_str(temper_shaders::GATE.source).unwrap();
    let in_shader: BTreeSet<(String, u32)> = module
        .constants
        .iter()
        .filter_map(|(_, constant)| {
            let name = constant.name.as_deref()?.strip_prefix("KIND_")?.to_owned();
            match module.global_expressions[constant.init] {
                naga::Expression::Literal(naga::Literal::U32(number)) => Some((name, number)),
                ref other => panic!("KIND_{name} is {other:?}"),
            }
        })
        .collect();
    assert_eq!(in_shader, kind::ALL.iter().map(|(name, number)| (name.to_string(), *number)).collect());
}

#[test]
fn a_gate_that_is_not_in_the_table_is_not_a_number_rather_than_sft() {
    for device in devices::all() {
        let fields = statistics(&device, &[1.0, 2.0, 3.0], &[1], 2, &[3]).fields;
        let params = GateParams { kind: kind::ALL.len() as u32, ..oracle::gate::examples()[0] };
        assert!(read(&kernels::gate::weights(&device, &fields, &params, 1.0).unwrap()).unwrap()[0].is_nan());
    }
}

#[test]
fn the_gradient_over_the_logits_equals_the_oracle_in_any_tiles_and_is_exactly_zero_for_weight_zero() {
    let mut random = Random::new(8);
    for columns in WIDTHS {
        let mut rows = poisoned_rows(columns, &mut random);
        rows.push(("weight 0 over NaN", vec![f32::NAN; columns]));
        rows.push(("no label", random.vec(columns, 3.0)));
        let (count, middle) = (rows.len(), columns / 2);
        let mut labels = vec![middle as u32; count];
        labels[count - 1] = u32::MAX;
        let mut weight: Vec<f32> = (0..count).map(|r| 0.01 * (r + 1) as f32).collect();
        weight[count - 2] = 0.0;
        for device in devices::all() {
            let fields = statistics(&device, &flat(&rows), &labels, 20, &[columns]).fields;
            let (indices, weights) = (Indices::new(&device, labels.clone()), vector(&device, &weight));
            let tile = |from: usize, to: usize| {
                let part = matrix(&device, &cut(&flat(&rows), columns, from, to), [count, to - from]);
                let over = kernels::loss_gradient::over_logits(&device, part, from, &indices, &weights, &fields);
                read(&over.unwrap()).unwrap()
            };
            let whole = tile(0, columns);
            for (r, (name, row)) in rows.iter().enumerate() {
                let label = (r != count - 1).then_some(middle);
                let want = oracle::loss_gradient::loss_gradient(row, label, f64::from(weight[r]));
                let what = format!("{name}, {columns} columns, {}", device.name());
                close(&what, &whole[r * columns..][..columns], &want, 1e-7, 2e-5).unwrap();
            }
            same_bits("weight 0", &whole[(count - 2) * columns..][..columns], &vec![0.0; columns]).unwrap();
            if columns > 1 {
                let (left, right) = (tile(0, middle), tile(middle, columns));
                same_bits("left tile", &left, &cut(&whole, columns, 0, middle)).unwrap();
                same_bits("right tile", &right, &cut(&whole, columns, middle, columns)).unwrap();
            }
        }
    }
}

// Norm, rotary, gated MLP.

#[test]
fn the_norm_and_its_gradients_equal_the_oracle_at_every_width() {
    let mut random = Random::new(9);
    for (index, width) in WIDTHS.into_iter().enumerate() {
        let (rows, epsilon) = ([1, 3, 33][index % 3], 1e-5f32);
        let size = [1.0, 1e-6, 1e4][index / 3 % 3];
        let mut x = random.vec(rows * width, size);
        if rows > 1 {
            x[..width].fill(0.0); // a row of zeros has the inverse of epsilon's root
            x[width..2 * width].fill(1e-41);
        }
        let (scale, dy) = (random.vec(width, 1.0), random.vec(rows * width, 1.0));
        let (wx, ws, wdy) = (wide(&x), wide(&scale), wide(&dy));
        let (want_y, want_inverse) = oracle::rms_norm::rms_norm(&wx, &ws, f64::from(epsilon));
        let (want_dx, want_dscale) = oracle::rms_norm::rms_norm_backward(&wx, &ws, f64::from(epsilon), &wdy);
        let largest = want_inverse.iter().fold(0.0f64, |m, r| m.max(*r));
        for device in devices::all() {
            let what = |name: &str| format!("{name}, {rows} x {width} of {size}, {}", device.name());
            let (x, dy) = (matrix(&device, &x, [rows, width]), matrix(&device, &dy, [rows, width]));
            let scale = vector(&device, &scale);
            soil(&device, &[rows * width, rows, rows * width, width]);
            let (y, inverse) = kernels::rms_norm::forward(&device, &x, &scale, epsilon).unwrap();
            close(&what("y"), &read(&y).unwrap(), &want_y, 1e-6, 1e-5).unwrap();
            close(&what("inverse"), &read(&inverse).unwrap(), &want_inverse, 0.0, 1e-5).unwrap();
            // The two terms of dx may cancel: the error is relative to them, not to their difference.
            let dx = kernels::rms_norm::backward(&device, &x, &scale, &inverse, &dy).unwrap();
            close(&what("dx"), &read(&dx).unwrap(), &want_dx, 3e-6 * largest, 1e-5).unwrap();
            let dscale = kernels::rms_norm::scale_gradient(&device, &x, &inverse, &dy).unwrap();
            close(&what("dscale"), &read(&dscale).unwrap(), &want_dscale, 3e-6 * rows as f64, 1e-5).unwrap();
        }
    }
}

#[test]
fn a_nan_in_one_row_of_the_norm_stays_in_that_row() {
    let (rows, width) = (5, 300);
    let mut values = Random::new(10).vec(rows * width, 1.0);
    values[3 * width + 299] = f32::NAN;
    for device in devices::all() {
        let x = matrix(&device, &values, [rows, width]);
        let scale = vector(&device, &vec![1.0; width]);
        let (y, inverse) = kernels::rms_norm::forward(&device, &x, &scale, 1e-5).unwrap();
        let dx = kernels::rms_norm::backward(&device, &x, &scale, &inverse, &x).unwrap();
        for result in [read(&y).unwrap(), read(&dx).unwrap()] {
            for (r, row) in result.chunks(width).enumerate() {
                assert!(row.iter().all(|v| v.is_nan() == (r == 3)), "row {r} on {}", device.name());
            }
        }
    }
}

#[test]
fn rotary_turns_only_its_heads_in_both_pairings_and_its_inverse_turns_back() {
    let mut random = Random::new(11);
    let mut arch = open::open_folder(&GoldenFolder::new(&format!("tiny/{}", models::TINY[0]))).unwrap().architecture;
    let positions = [4u32, 0, 1, 299, 2, 3, 3];
    for (heads, head_dim, rotary_dim) in [(1, 2, 2), (3, 16, 16), (4, 16, 8), (2, 64, 64), (2, 130, 126)] {
        for interleaved in [false, true] {
            (arch.rope.rotary_dim, arch.rope.interleaved) = (rotary_dim, interleaved);
            let (cos, sin) = arch.rope_tables(300);
            // The last three columns belong to nobody's head.
            let width = heads * head_dim + 3;
            let x = random.vec(positions.len() * width, 2.0);
            for device in devices::all() {
                let rotary = arch.rotary(&device, 300);
                let indices = Indices::new(&device, positions.to_vec());
                for inverse in [false, true] {
                    let turn = |x, inverse| {
                        kernels::rotary::rotate(&device, x, heads, head_dim, &rotary, &indices, inverse).unwrap()
                    };
                    let got = turn(matrix(&device, &x, [positions.len(), width]), inverse);
                    let (mut want, c, s) = (wide(&x), wide(&cos), wide(&sin));
                    oracle::rotary::rotary(
                        &mut want,
                        width,
                        heads,
                        head_dim,
                        rotary_dim,
                        interleaved,
                        inverse,
                        &c,
                        &s,
                        &positions,
                    );
                    let what = format!("{heads} x {head_dim}, {rotary_dim} turned, {interleaved}, {}", device.name());
                    close(&what, &read(&got).unwrap(), &want, 1e-6, 1e-6).unwrap();
                    close(&what, &read(&turn(got, !inverse)).unwrap(), &wide(&x), 2e-6, 2e-6).unwrap();
                }
            }
        }
    }
}

#[test]
fn where_scores_have_a_factor_of_their_own_rotated_queries_and_keys_have_it() {
    let mut arch = open::open_folder(&GoldenFolder::new(&format!("tiny/{}", models::TINY[0]))).unwrap().architecture;
    let head_dim = arch.head_dim;
    // A key that is the query, so that their product is that of the vector with itself.
    let x = Random::new(20).vec(head_dim, 1.0).repeat(2);
    let plain: f64 = wide(&x[..head_dim]).iter().map(|x| x * x).sum();
    for (device, scale) in devices::all().into_iter().flat_map(|d| [None, Some(0.07)].map(|scale| (d.clone(), scale))) {
        arch.attention_scale = scale;
        let (rotary, positions) = (arch.rotary(&device, 8), Indices::new(&device, vec![5]));
        let x = matrix(&device, &x, [1, 2 * head_dim]);
        let turned = kernels::rotary::rotate(&device, x, 2, head_dim, &rotary, &positions, false).unwrap();
        let turned = wide(&read(&turned).unwrap());
        // Attention divides it by the root of the head's width.
        let usual = 1.0 / (head_dim as f64).sqrt();
        let found = usual * turned[..head_dim].iter().zip(&turned[head_dim..]).map(|(q, k)| q * k).sum::<f64>();
        let want = plain * scale.unwrap_or(usual);
        assert!((found - want).abs() < 1e-5 * want, "{found} and {want}: {scale:?} on {}", device.name());
    }
}

#[test]
fn a_kernel_that_writes_in_place_leaves_other_owners_of_its_input_alone() {
    for device in devices::all() {
        let values = Random::new(12).vec(4 * 10, 1.0);
        let x = matrix(&device, &values, [4, 10]);
        let sum = elementwise::add_bias(&device, x.clone(), &vector(&device, &[1.0; 10])).unwrap();
        let dy = matrix(&device, &[1.0; 20], [4, 5]);
        let gradient = kernels::gated_mlp::backward(&device, x.clone(), &dy, Activation::Silu).unwrap();
        assert!(read(&sum).unwrap() != values && read(&gradient).unwrap() != values);
        same_bits(device.name(), &read(&x).unwrap(), &values).unwrap();
    }
}

const ACTIVATIONS: [(Activation, oracle::gated_mlp::Activation); 2] =
    [(Activation::Silu, SILU), (Activation::GeluTanh, GELU_TANH)];

#[test]
fn the_gated_mlp_and_its_gradient_equal_the_oracle_even_far_out() {
    let mut random = Random::new(13);
    for (index, width) in WIDTHS.into_iter().enumerate() {
        let (rows, size) = ([1, 3, 20][index % 3], [1.0, 30.0, 300.0, 1e4][index % 4]);
        let (gate_up, dy) = (random.vec(2 * rows * width, size), random.vec(rows * width, 1.0));
        let all = devices::all().into_iter().flat_map(|d| ACTIVATIONS.map(|activation| (d.clone(), activation)));
        for (device, (activation, exact)) in all {
            let what = format!("{activation:?}, {rows} x {width} of {size}, {}", device.name());
            let want = oracle::gated_mlp::gated_mlp(exact, &wide(&gate_up), width);
            let x = matrix(&device, &gate_up, [rows, 2 * width]);
            soil(&device, &[rows * width]);
            let y = kernels::gated_mlp::forward(&device, &x, activation).unwrap();
            close(&what, &read(&y).unwrap(), &want, 1e-6, 1e-5).unwrap();
            let want = oracle::gated_mlp::gated_mlp_backward(exact, &wide(&gate_up), width, &wide(&dy));
            let dy = matrix(&device, &dy, [rows, width]);
            let gradient = kernels::gated_mlp::backward(&device, x, &dy, activation).unwrap();
            // The slope of up * act crosses zero: relative to the size of up.
            let absolute = 2e-6 * f64::from(size).max(1.0);
            close(&format!("gradient {what}"), &read(&gradient).unwrap(), &want, absolute, 1e-5).unwrap();
        }
    }
    for (device, (activation, _)) in devices::all().iter().flat_map(|d| ACTIVATIONS.map(|activation| (d, activation))) {
        let what = format!("{activation:?}, {}", device.name());
        let x = matrix(device, &[-1e30, 1e30, 0.0, 1.0, 1.0, 1.0], [1, 6]);
        let y = kernels::gated_mlp::forward(device, &x, activation).unwrap();
        assert_eq!(read(&y).unwrap(), [0.0, 1e30, 0.0], "{what}");
        let dy = matrix(device, &[1.0; 3], [1, 3]);
        let gradient = kernels::gated_mlp::backward(device, x, &dy, activation).unwrap();
        assert_eq!(read(&gradient).unwrap(), [0.0, 1.0, 0.5, 0.0, 1e30, 0.0], "{what}");
        // What is no number stays so, and where it is.
        let x = matrix(device, &[f32::NAN, 2.0, 1.0, 1.0], [1, 4]);
        let y = read(&kernels::gated_mlp::forward(device, &x, activation).unwrap()).unwrap();
        let dy = matrix(device, &[1.0; 2], [1, 2]);
        let gradient = read(&kernels::gated_mlp::backward(device, x, &dy, activation).unwrap()).unwrap();
        let is_nan = |values: &[f32]| values.iter().map(|value| value.is_nan()).collect::<Vec<_>>();
        assert_eq!((is_nan(&y), is_nan(&gradient)), (vec![true, false], vec![true, false, true, false]), "{what}");
    }
}

#[test]
fn the_gradient_of_the_gated_mlp_is_the_slope_of_its_output() {
    let (rows, width, step) = (3, 70, 1.0 / 64.0);
    let mut random = Random::new(18);
    let (gate_up, along) = (random.vec(2 * rows * width, 3.0), random.vec(2 * rows * width, 1.0));
    let dy = random.vec(rows * width, 1.0);
    for (device, (activation, _)) in devices::all().iter().flat_map(|d| ACTIVATIONS.map(|activation| (d, activation))) {
        let loss = |by: f32| {
            let moved: Vec<f32> = gate_up.iter().zip(&along).map(|(x, along)| x + by * along).collect();
            let y = kernels::gated_mlp::forward(device, &matrix(device, &moved, [rows, 2 * width]), activation);
            let y = read(&y.unwrap()).unwrap();
            y.iter().zip(&dy).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum::<f64>()
        };
        // Of third order in the step, by Richardson's extrapolation.
        let slope = |by: f32| (loss(by) - loss(-by)) / (2.0 * f64::from(by));
        let want = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
        let x = matrix(device, &gate_up, [rows, 2 * width]);
        let gradient = kernels::gated_mlp::backward(device, x, &matrix(device, &dy, [rows, width]), activation);
        let gradient = read(&gradient.unwrap()).unwrap();
        let got: f64 = gradient.iter().zip(&along).map(|(g, along)| f64::from(*g) * f64::from(*along)).sum();
        assert!((got - want).abs() <= 1e-4 * want.abs() + 2e-3, "{got} and {want}: {activation:?}, {}", device.name());
    }
}

// Attention.

/// Document starts of documents of the given lengths.
fn documents(lengths: &[usize]) -> Vec<u32> {
    let mut starts = Vec::new();
    for &length in lengths {
        starts.resize(starts.len() + length, starts.len() as u32);
    }
    starts
}

/// First tokens that are seen where each token sees the last `window` ones of its document alone.
fn within(window: usize, starts: Vec<u32>) -> Vec<u32> {
    starts.into_iter().enumerate().map(|(t, start)| start.max((t + 1).saturating_sub(window) as u32)).collect()
}

#[test]
fn attention_and_its_gradient_equal_the_full_softmax_of_every_packed_document() {
    let mut random = Random::new(14);
    // Heads as wide as real ones, and others; documents that begin and end within tiles of 64 tokens and at their edges.
    let cases: [(usize, usize, usize, &[usize]); 15] = [
        (1, 1, 4, &[1]),
        (4, 2, 16, &[30, 1, 33]),
        (6, 2, 8, &[63, 1, 1, 64]),
        (3, 1, 16, &[257, 2]),
        (4, 4, 16, &[17, 100, 7]),
        (2, 1, 64, &[63]),
        (2, 2, 64, &[64]),
        (4, 1, 64, &[65]),
        (9, 3, 64, &[31, 1, 32, 63, 1, 33]),
        (2, 1, 20, &[32, 1]),
        (2, 2, 80, &[31, 97]),
        (2, 1, 96, &[127, 2]),
        (4, 2, 128, &[129, 64]),
        (2, 1, 256, &[64, 65]),
        (1, 1, 300, &[40, 33]),
    ];
    for (heads, kv_heads, head_dim, lengths) in cases {
        let shape = attention::Shape { heads, kv_heads, head_dim };
        attention_equals_the_oracle(&mut random, shape, documents(lengths), None);
    }
}

#[test]
fn attention_within_a_window_and_its_gradient_equal_the_full_softmax_of_what_is_seen() {
    let mut random = Random::new(19);
    // Windows of one token, and those that begin and end within tiles of 64 tokens and at their edges.
    let cases: [(usize, usize, usize, &[usize], usize); 7] = [
        (1, 1, 4, &[5], 1),
        (4, 2, 16, &[30, 1, 33], 8),
        (2, 1, 20, &[257, 2], 64),
        (3, 1, 16, &[200, 70], 65),
        (2, 1, 256, &[64, 130], 63),
        (4, 2, 136, &[129], 128),
        (2, 1, 8, &[40, 100], 1000),
    ];
    for (heads, kv_heads, head_dim, lengths, window) in cases {
        let shape = attention::Shape { heads, kv_heads, head_dim };
        for kind in [attention::Kind::Tiles, attention::Kind::Vectors] {
            attention_equals_the_oracle(&mut random, shape, within(window, documents(lengths)), Some(kind));
        }
    }
}

/// Compares on every device, with the kernels that are best there or with these; also in pieces.
fn attention_equals_the_oracle(
    random: &mut Random,
    shape: attention::Shape,
    starts: Vec<u32>,
    kind: Option<attention::Kind>,
) {
    let attention::Shape { heads, kv_heads, head_dim } = shape;
    let tokens = starts.len();
    let (width, out_width) = (shape.width(), heads * head_dim);
    let (qkv, dout) = (random.vec(tokens * width, 2.0), random.vec(tokens * out_width, 1.0));
    let scale = 1.0 / (head_dim as f64).sqrt();
    let exact = oracle::attention::Shape { tokens, heads, kv_heads, head_dim, scale };
    let (want, want_lse) = oracle::attention::attention(&exact, &wide(&qkv), &starts);
    let want_gradient = oracle::attention::attention_backward(&exact, &wide(&qkv), &starts, &wide(&dout));
    for device in devices::all() {
        let what = format!("{shape:?}, {starts:?}, {kind:?}, {}", device.name());
        let (x, dy) = (matrix(&device, &qkv, [tokens, width]), matrix(&device, &dout, [tokens, out_width]));
        let starts = Indices::new(&device, starts.clone());
        let forward = |device: &Device| match kind {
            None => attention::forward(device, &x, shape, &starts).unwrap(),
            Some(kind) => attention::forward_by(device, kind, &x, shape, &starts).unwrap(),
        };
        soil(&device, &[tokens * out_width, heads * tokens]);
        let (out, lse) = forward(&device);
        let found = read(&out).unwrap();
        close(&what, &found, &want, 3e-6, 3e-5).unwrap();
        close(&format!("log-sum-exp, {what}"), &read(&lse).unwrap(), &want_lse, 1e-5, 1e-5).unwrap();
        let backward = |device: &Device| match kind {
            None => attention::backward(device, &x, &out, &lse, &dy, shape, &starts).unwrap(),
            Some(kind) => attention::backward_by(device, kind, &x, &out, &lse, &dy, shape, &starts).unwrap(),
        };
        soil(&device, &[tokens * width, heads * tokens]);
        let gradient = read(&backward(&device)).unwrap();
        close(&format!("gradient, {what}"), &gradient, &want_gradient, 2e-5, 1e-4).unwrap();
        if kind.is_some() {
            let device = device.cutting(1e6);
            same_bits(&format!("in pieces, {what}"), &read(&forward(&device).0).unwrap(), &found).unwrap();
            let pieces = read(&backward(&device)).unwrap();
            same_bits(&format!("gradient in pieces, {what}"), &pieces, &gradient).unwrap();
        }
    }
}

/// Attention and its gradient, and into how many submissions they went, where each launch is one.
fn attend_by(device: &Device, kind: attention::Kind) -> ([Vec<f32>; 3], u64) {
    let shape = attention::Shape { heads: 4, kv_heads: 2, head_dim: 136 };
    // They end within tiles and at their edges.
    let starts = documents(&[30, 1, 97, 64, 70]);
    let tokens = starts.len();
    let (width, out_width) = (shape.width(), shape.heads * shape.head_dim);
    let mut random = Random::new(52);
    let (qkv, dout) = (random.vec(tokens * width, 2.0), random.vec(tokens * out_width, 1.0));
    let (x, dy) = (matrix(device, &qkv, [tokens, width]), matrix(device, &dout, [tokens, out_width]));
    let starts = Indices::new(device, starts);
    soil(device, &[tokens * out_width, shape.heads * tokens, tokens * width]);
    let before = device.submissions();
    let (out, lse) = attention::forward_by(device, kind, &x, shape, &starts).unwrap();
    let gradient = attention::backward_by(device, kind, &x, &out, &lse, &dy, shape, &starts).unwrap();
    let submissions = device.submissions() - before;
    ([read(&out).unwrap(), read(&lse).unwrap(), read(&gradient).unwrap()], submissions)
}

#[test]
fn attention_that_is_long_for_one_dispatch_is_launched_in_pieces_with_the_same_bits() {
    // Of its own: other tests submit too.
    let device = Device::logical(&temper_engine::adapters()[0].id, Default::default()).unwrap();
    device.submit_each(true);
    // Five tiles of two parts for each head; 66 blocks of four tokens for each, 16 in a workgroup.
    for (kind, workgroups) in [(attention::Kind::Tiles, 40 + 40 + 20), (attention::Kind::Vectors, 17 + 17 + 9)] {
        let (whole, at_once) = attend_by(&device, kind);
        assert_eq!(at_once, 3, "{kind:?}");
        for (most, fewest) in [(1.0, workgroups), (2e7, 6)] {
            let (pieces, launches) = attend_by(&device.cutting(most), kind);
            for (name, (piece, whole)) in ["out", "lse", "gradient"].iter().zip(pieces.iter().zip(&whole)) {
                same_bits(&format!("{name}, {kind:?}"), piece, whole).unwrap();
            }
            assert!((fewest..=workgroups).contains(&launches), "{kind:?}: {launches} of {most} operations");
        }
    }
}

#[test]
fn half_precision_in_pieces_has_the_same_bits_as_at_once() {
    let test = half_precision_in_pieces_has_the_same_bits_as_at_once;
    let Some(device) = devices::with_matrices(test) else { return };
    for most in [1.0, 2e7] {
        products_in_parts(&device, Some(Multiplier::Cooperative), most);
        products_in_parts(&device, Some(Multiplier::Split), most);
        let attend = |device: &Device| attend_by(device, attention::Kind::Matrices).0;
        for (pieces, whole) in attend(&device.cutting(most)).iter().zip(&attend(&device)) {
            same_bits("attention", pieces, whole).unwrap();
        }
    }
}

#[test]
fn half_precision_attention_is_that_of_the_oracle_and_its_gradient_within_the_rounding_of_halves() {
    let test = half_precision_attention_is_that_of_the_oracle_and_its_gradient_within_the_rounding_of_halves;
    let Some(device) = devices::with_matrices(test) else { return };
    assert_eq!(
        kernels::calibration::attention_computes_wrong(&device).unwrap(),
        None,
        "the self-test of a right driver"
    );
    let mut random = Random::new(24);
    // Heads of all widths that are tiled otherwise; documents at the edges of tiles of 64 tokens, and across them; windows.
    const ALL: usize = usize::MAX;
    let cases: [(usize, usize, usize, &[usize], usize); 9] = [
        (1, 1, 4, &[1], ALL),
        (4, 2, 16, &[30, 1, 33], ALL),
        (4, 1, 64, &[65, 64], ALL),
        (2, 2, 80, &[31, 97], ALL),
        (2, 1, 96, &[127, 2], ALL),
        (4, 2, 128, &[129, 64], ALL),
        (2, 1, 256, &[64, 65], ALL),
        (4, 2, 16, &[30, 1, 33], 8),
        (2, 1, 64, &[200, 70], 65),
    ];
    for (heads, kv_heads, head_dim, lengths, window) in cases {
        let starts = within(window, documents(lengths));
        let tokens = starts.len();
        let (width, out_width) = ((heads + 2 * kv_heads) * head_dim, heads * head_dim);
        let shape = attention::Shape { heads, kv_heads, head_dim };
        // Gradients as small as those of long batches, and rows whose halves would overflow.
        let (qkv, mut dout) = (random.vec(tokens * width, 2.0), random.vec(tokens * out_width, 1e-6));
        dout[..out_width].iter_mut().for_each(|x| *x *= 1e12);
        let scale = 1.0 / (head_dim as f64).sqrt();
        let exact = oracle::attention::Shape { tokens, heads, kv_heads, head_dim, scale };
        let (want, want_lse) = oracle::attention::attention(&exact, &wide(&qkv), &starts);
        let want_gradient = oracle::attention::attention_backward(&exact, &wide(&qkv), &starts, &wide(&dout));
        let what = format!("{heads} heads over {kv_heads} of {head_dim}, {lengths:?}, {window}");
        let (x, dy) = (matrix(&device, &qkv, [tokens, width]), matrix(&device, &dout, [tokens, out_width]));
        let starts = Indices::new(&device, starts.clone());
        soil(&device, &[tokens * out_width, heads * tokens]);
        let kind = attention::Kind::Matrices;
        let (out, lse) = attention::forward_by(&device, kind, &x, shape, &starts).unwrap();
        // What the gates are made of is nearly that of single precision.
        close(&what, &read(&out).unwrap(), &want, 1e-5, 1e-5).unwrap();
        close(&format!("log-sum-exp, {what}"), &read(&lse).unwrap(), &want_lse, 1e-5, 1e-5).unwrap();
        soil(&device, &[tokens * width, heads * tokens]);
        let gradient = attention::backward_by(&device, kind, &x, &out, &lse, &dy, shape, &starts).unwrap();
        let gradient = read(&gradient).unwrap();
        for t in 0..tokens {
            let row = t * width..(t + 1) * width;
            // Keys and values of the first document have the large row's gradients, queries their own.
            let size = want_gradient[row.clone()].iter().fold(1e-9f64, |most, x| most.max(x.abs()));
            close(
                &format!("gradient of token {t}, {what}"),
                &gradient[row.clone()],
                &want_gradient[row],
                4e-3 * size,
                0.0,
            )
            .unwrap();
        }
    }
}

#[test]
fn in_half_precision_too_no_token_sees_another_document_or_its_own_future_not_even_their_nan() {
    let test = in_half_precision_too_no_token_sees_another_document_or_its_own_future_not_even_their_nan;
    let Some(device) = devices::with_matrices(test) else { return };
    let (heads, kv_heads, head_dim) = (2, 1, 40);
    let (width, out_width) = ((heads + 2 * kv_heads) * head_dim, heads * head_dim);
    let shape = attention::Shape { heads, kv_heads, head_dim };
    let starts = documents(&[20, 60, 50]);
    let tokens = starts.len();
    let mut random = Random::new(25);
    let (clean, dout) = (random.vec(tokens * width, 1.0), random.vec(tokens * out_width, 1.0));
    let run = |qkv: &[f32], dout: &[f32]| {
        let starts = Indices::new(&device, starts.clone());
        let (qkv, dout) = (matrix(&device, qkv, [tokens, width]), matrix(&device, dout, [tokens, out_width]));
        let (out, lse) = attention::forward_by(&device, attention::Kind::Matrices, &qkv, shape, &starts).unwrap();
        let kind = attention::Kind::Matrices;
        let gradient = attention::backward_by(&device, kind, &qkv, &out, &lse, &dout, shape, &starts).unwrap();
        (read(&out).unwrap(), read(&gradient).unwrap())
    };
    let (out, gradient) = run(&clean, &dout);
    for bad in [f32::NAN, f32::INFINITY] {
        // One token of the middle document, all of it or only its value.
        for columns in [0..width, width - head_dim..width] {
            let mut qkv = clean.clone();
            qkv[40 * width..41 * width][columns.clone()].fill(bad);
            let (spoiled, spoiled_gradient) = run(&qkv, &dout);
            for part in [0..40, 80..tokens] {
                let out_part = part.start * out_width..part.end * out_width;
                same_bits("output", &spoiled[out_part.clone()], &out[out_part]).unwrap();
            }
            for part in [0..20, 80..tokens] {
                let part = part.start * width..part.end * width;
                same_bits("gradient", &spoiled_gradient[part.clone()], &gradient[part]).unwrap();
            }
            let lost = spoiled[40 * out_width..80 * out_width].iter().all(|value| value.is_nan());
            assert!(lost, "the rest of its document has {bad} in {columns:?}");
        }
        // Gradients of one token stay in its document.
        let mut spoiled = dout.clone();
        spoiled[50 * out_width..51 * out_width].fill(bad);
        let (_, spoiled) = run(&clean, &spoiled);
        for part in [0..20, 80..tokens] {
            let part = part.start * width..part.end * width;
            same_bits("gradient", &spoiled[part.clone()], &gradient[part]).unwrap();
        }
        assert!(spoiled[20 * width..51 * width].iter().any(|value| value.is_nan()));
    }
}

#[test]
fn the_gradient_of_attention_is_the_slope_of_its_output() {
    let (heads, kv_heads, head_dim, step) = (4, 2, 16, 1.0 / 64.0);
    let starts = documents(&[41, 1, 30]);
    let tokens = starts.len();
    let (width, out_width) = ((heads + 2 * kv_heads) * head_dim, heads * head_dim);
    let shape = attention::Shape { heads, kv_heads, head_dim };
    let mut random = Random::new(17);
    let [qkv, along] = [1.0, 1.0].map(|size| random.vec(tokens * width, size));
    let dout = random.vec(tokens * out_width, 1.0);
    for device in devices::all() {
        let starts = Indices::new(&device, starts.clone());
        let forward = |by: f32| {
            let moved: Vec<f32> = qkv.iter().zip(&along).map(|(x, along)| x + by * along).collect();
            let x = matrix(&device, &moved, [tokens, width]);
            let (out, lse) = attention::forward(&device, &x, shape, &starts).unwrap();
            (x, out, lse)
        };
        let loss = |by: f32| {
            let out = read(&forward(by).1).unwrap();
            out.iter().zip(&dout).map(|(out, d)| f64::from(*out) * f64::from(*d)).sum::<f64>()
        };
        // Of third order in the step, by Richardson's extrapolation.
        let slope = |by: f32| (loss(by) - loss(-by)) / (2.0 * f64::from(by));
        let want = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
        let (x, out, lse) = forward(0.0);
        let dy = matrix(&device, &dout, [tokens, out_width]);
        let gradient = attention::backward(&device, &x, &out, &lse, &dy, shape, &starts).unwrap();
        let gradient = read(&gradient).unwrap();
        let got: f64 = gradient.iter().zip(&along).map(|(g, along)| f64::from(*g) * f64::from(*along)).sum();
        assert!(want.abs() > 1.0, "a slope to compare with: {want}");
        assert!((got - want).abs() <= 1e-4 * want.abs() + 1e-3, "{got} and {want} on {}", device.name());
    }
}

#[test]
fn scores_beyond_the_range_of_the_exponential_give_exact_attention() {
    // Scores are whole multiples of 2^38: each query looks at the last key of its document alone, or at the first.
    let (heads, head_dim, tokens) = (1, 16, 70);
    let shape = attention::Shape { heads, kv_heads: 1, head_dim };
    let starts = documents(&[50, 20]);
    for (sign, of_last) in [(1.0, true), (-1.0, false)] {
        let mut qkv = vec![0.0; tokens * 3 * head_dim];
        for t in 0..tokens {
            let row = &mut qkv[t * 3 * head_dim..][..3 * head_dim];
            row[0] = 2.0_f32.powi(40);
            row[head_dim] = sign * (t + 1) as f32;
            row[2 * head_dim..].fill(t as f32);
        }
        let seen = |t: usize| if of_last { t } else { starts[t] as usize };
        for device in devices::all() {
            let x = matrix(&device, &qkv, [tokens, 3 * head_dim]);
            let indices = Indices::new(&device, starts.clone());
            let (out, lse) = attention::forward(&device, &x, shape, &indices).unwrap();
            let dy = matrix(&device, &vec![1.0; tokens * head_dim], [tokens, head_dim]);
            let gradient = attention::backward(&device, &x, &out, &lse, &dy, shape, &indices).unwrap();
            let (out, lse, gradient) = (read(&out).unwrap(), read(&lse).unwrap(), read(&gradient).unwrap());
            let mut looked_at = vec![0.0; tokens];
            for t in 0..tokens {
                assert_eq!(out[t * head_dim..][..head_dim], [seen(t) as f32; 16], "token {t} on {}", device.name());
                assert_eq!(lse[t], sign * 2.0_f32.powi(38) * (seen(t) + 1) as f32, "token {t} on {}", device.name());
                looked_at[seen(t)] += 1.0;
            }
            for t in 0..tokens {
                let want = [[0.0; 16], [0.0; 16], [looked_at[t]; 16]].concat();
                assert_eq!(gradient[t * 3 * head_dim..][..3 * head_dim], want, "token {t} on {}", device.name());
            }
        }
    }
}

#[test]
fn no_token_sees_another_document_or_its_own_future_not_even_their_nan() {
    let (heads, kv_heads, head_dim) = (4, 2, 16);
    let (width, out_width) = ((heads + 2 * kv_heads) * head_dim, heads * head_dim);
    let shape = attention::Shape { heads, kv_heads, head_dim };
    let starts = documents(&[20, 30, 50]);
    let tokens = starts.len();
    let clean = Random::new(15).vec(tokens * width, 1.0);
    let changed = |tokens: std::ops::Range<usize>, change: &dyn Fn(f32) -> f32| {
        let mut qkv = clean.clone();
        qkv[tokens.start * width..tokens.end * width].iter_mut().for_each(|x| *x = change(*x));
        qkv
    };
    for device in devices::all() {
        let starts = Indices::new(&device, starts.clone());
        let run = |qkv: &[f32]| {
            let qkv = matrix(&device, qkv, [tokens, width]);
            read(&attention::forward(&device, &qkv, shape, &starts).unwrap().0).unwrap()
        };
        // The second half of the middle document.
        let (a, b) = (run(&clean), run(&changed(35..50, &|x| 50.0 - 3.0 * x)));
        same_bits("before", &a[..35 * out_width], &b[..35 * out_width]).unwrap();
        same_bits("after", &a[50 * out_width..], &b[50 * out_width..]).unwrap();
        assert_ne!(a[35 * out_width..50 * out_width], b[35 * out_width..50 * out_width]);
        // Nor does a number that is none get anywhere else, so that an error names its row.
        for bad in [f32::NAN, f32::INFINITY] {
            let b = run(&changed(40..41, &|_| bad));
            for part in [0..40 * out_width, 50 * out_width..tokens * out_width] {
                let what = format!("beside {bad} on {}", device.name());
                close(&what, &b[part.clone()], &wide(&a[part]), 1e-6, 1e-5).unwrap();
            }
            let has_it = b[40 * out_width..50 * out_width].iter().all(|value| value.is_nan());
            assert!(has_it, "the rest of its document has {bad} on {}", device.name());
        }
    }
}

#[test]
fn attention_over_a_cache_equals_the_full_softmax_of_what_each_token_sees() {
    let mut random = Random::new(31);
    // Heads, key heads, head size, and for each sequence what the cache holds already and how many tokens are new.
    type Sequences = &'static [(usize, usize)];
    let cases: [(usize, usize, usize, Sequences); 4] = [
        (1, 1, 4, &[(0, 1)]),
        (4, 2, 16, &[(3, 1), (0, 5), (254, 3)]),
        (6, 2, 64, &[(255, 1), (256, 1), (511, 2)]),
        (3, 3, 10, &[(600, 1), (7, 9)]),
    ];
    for (heads, kv_heads, head_dim, sequences) in cases {
        let shape = attention::Shape { heads, kv_heads, head_dim };
        let (width, scale) = ((heads + 2 * kv_heads) * head_dim, 1.0 / (head_dim as f64).sqrt());
        let rows = sequences.iter().map(|(before, new)| before + new).max().unwrap();
        let texts: Vec<Vec<f32>> =
            sequences.iter().map(|(before, new)| random.vec((before + new) * width, 2.0)).collect();
        for device in devices::all() {
            for precision in [Precision::F32, Precision::F16] {
                if precision == Precision::F16 && device.is_cpu() {
                    continue;
                }
                let mut cache = KeyValues::new(sequences.len(), shape, precision);
                // Grown under what it holds: rows of another sequence move.
                let smaller = sequences.iter().map(|(before, _)| *before).max().unwrap();
                let take = |cache: &mut KeyValues, rows: usize, from: &dyn Fn(usize) -> (usize, usize)| {
                    let (mut qkv, mut places) = (Vec::new(), Vec::new());
                    for (at, text) in texts.iter().enumerate() {
                        let (start, end) = from(at);
                        qkv.extend_from_slice(&text[start * width..end * width]);
                        places.extend((start..end).map(|t| [(at * rows) as u32, t as u32 + 1]));
                    }
                    if places.is_empty() {
                        return None;
                    }
                    let qkv = matrix(&device, &qkv, [places.len(), width]);
                    let places = Places::new(&device, places);
                    cache.grow(&device, rows).unwrap();
                    cache.append(&device, &qkv, &places).unwrap();
                    Some((qkv, places))
                };
                take(&mut cache, smaller, &|at| (0, sequences[at].0));
                let all = |at: usize| (sequences[at].0, sequences[at].0 + sequences[at].1);
                let (qkv, places) = take(&mut cache, rows, &all).expect("new tokens");
                soil(&device, &[qkv.dims()[0] * heads * head_dim]);
                let found = read(&cache.attend(&device, &qkv, &places).unwrap()).unwrap();
                let pieces = read(&cache.attend(&device.cutting(1e5), &qkv, &places).unwrap()).unwrap();
                same_bits("in pieces", &pieces, &found).unwrap();
                let mut want = Vec::new();
                for (text, (before, new)) in texts.iter().zip(sequences) {
                    let half = |x: f32| match precision {
                        Precision::F32 => f64::from(x),
                        Precision::F16 => oracle::cached_attention::through_half(x),
                    };
                    let head = |t: usize, n: usize| &text[t * width + n * head_dim..][..head_dim];
                    for t in *before..before + new {
                        for h in 0..heads {
                            let kv = h / (heads / kv_heads);
                            let of = |n: usize| -> Vec<Vec<f64>> {
                                (0..=t).map(|s| head(s, n).iter().map(|&x| half(x)).collect()).collect()
                            };
                            let (keys, values) = (of(heads + kv), of(heads + kv_heads + kv));
                            want.extend(oracle::cached_attention::attend(&wide(head(t, h)), &keys, &values, scale));
                        }
                    }
                }
                let what = format!("{heads} heads over {kv_heads}, {sequences:?}, {precision:?}, {}", device.name());
                close(&what, &found, &want, 3e-6, 3e-5).unwrap();
            }
        }
    }
}

#[test]
fn within_a_window_a_cache_is_read_from_where_the_window_begins() {
    let (heads, kv_heads, head_dim, tokens, window) = (4, 2, 16, 300, 7);
    let shape = attention::Shape { heads, kv_heads, head_dim };
    let width = shape.width();
    let text = Random::new(33).vec(tokens * width, 2.0);
    let head = |t: usize, n: usize| wide(&text[t * width + n * head_dim..][..head_dim]);
    let mut want = Vec::new();
    for (t, h) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
        let of = |n: usize| ((t + 1).saturating_sub(window)..=t).map(|s| head(s, n)).collect::<Vec<_>>();
        let kv = h / (heads / kv_heads);
        let (keys, values) = (of(heads + kv), of(heads + kv_heads + kv));
        want.extend(oracle::cached_attention::attend(&head(t, h), &keys, &values, 0.25));
    }
    for device in devices::all() {
        let mut cache = KeyValues::new(2, shape, Precision::F32);
        cache.grow(&device, tokens).unwrap();
        // Of the second sequence. Its own row is the last that a token sees, and the one that it is put into.
        let place = |t: usize| [tokens + (t + 1).saturating_sub(window), (t + 1).min(window)].map(|x| x as u32);
        let places = Places::new(&device, (0..tokens).map(place));
        let qkv = matrix(&device, &text, [tokens, width]);
        cache.append(&device, &qkv, &places).unwrap();
        let found = read(&cache.attend(&device, &qkv, &places).unwrap()).unwrap();
        close(device.name(), &found, &want, 3e-6, 3e-5).unwrap();
    }
}

#[test]
fn rows_of_a_cache_that_nobody_sees_may_hold_anything() {
    let shape = attention::Shape { heads: 4, kv_heads: 2, head_dim: 16 };
    let mut random = Random::new(32);
    let text = random.vec(10 * 128, 1.0);
    for device in devices::all() {
        let attended = |poison: bool| {
            let mut cache = KeyValues::new(3, shape, Precision::F32);
            cache.grow(&device, 12).unwrap();
            if poison {
                // The other sequences, and the rows behind the one that is looked at.
                let everywhere = (0..36).map(|row| [row, 1]).collect::<Vec<_>>();
                let nan = matrix(&device, &vec![f32::NAN; 36 * 128], [36, 128]);
                cache.append(&device, &nan, &Places::new(&device, everywhere)).unwrap();
            }
            let places = Places::new(&device, (1..=10).map(|keys| [12, keys]));
            let qkv = matrix(&device, &text, [10, 128]);
            cache.append(&device, &qkv, &places).unwrap();
            read(&cache.attend(&device, &qkv, &places).unwrap()).unwrap()
        };
        same_bits(device.name(), &attended(true), &attended(false)).unwrap();
    }
}

#[test]
fn the_most_likely_tokens_of_each_row_are_found_in_order_over_several_tiles() {
    let mut random = Random::new(34);
    for columns in [1, 63, 257, 3000] {
        let columns = columns.max(2);
        // As many equal logits as these have are not counted on a GPU.
        let counted = |(name, _): &(&str, _)| columns < 3000 || !["flat", "one-hot", "one lane"].contains(name);
        let (names, rows): (Vec<_>, Vec<_>) = poisoned_rows(columns, &mut random).into_iter().filter(counted).unzip();
        for device in devices::all() {
            for cuts in [vec![columns], vec![1, columns - 1]] {
                let mut start = 0;
                let tiles: Vec<Tensor<2>> = cuts
                    .iter()
                    .map(|&width| {
                        let part: Vec<f32> = rows.iter().flat_map(|row| row[start..start + width].to_vec()).collect();
                        start += width;
                        matrix(&device, &part, [rows.len(), width])
                    })
                    .collect();
                for top_k in [1, 20, 64] {
                    let what = format!("{columns} columns in {cuts:?}, top {top_k} on {}", device.name());
                    soil(&device, &[rows.len() * 64]);
                    let top_tokens::Found::Top(found) = wait(top_tokens::top_tokens(&device, &tiles, top_k)).unwrap()
                    else {
                        panic!("{what}");
                    };
                    assert_eq!(found.len(), rows.len(), "{what}");
                    for ((name, row), found) in names.iter().zip(&rows).zip(found) {
                        let want = oracle::top_tokens::top_tokens(&wide(row), top_k);
                        let tokens: Vec<usize> = found.iter().map(|&(token, _)| token as usize).collect();
                        assert_eq!(tokens, want, "{name}: {what}");
                        assert!(found.iter().all(|&(token, value)| value == row[token as usize]), "{name}: {what}");
                    }
                }
            }
        }
    }
    for device in devices::all() {
        let mut logits = random.vec(3 * 500, 1.0);
        logits[2 * 500 + 7] = f32::NAN;
        let found = wait(top_tokens::top_tokens(&device, &[matrix(&device, &logits, [3, 500])], 5)).unwrap();
        assert!(matches!(found, top_tokens::Found::NonFinite(2)), "on {}", device.name());
        let flat = matrix(&device, &[0.5; 3000], [1, 3000]);
        let found = wait(top_tokens::top_tokens(&device, &[flat], 5)).unwrap();
        match found {
            top_tokens::Found::Top(found) => {
                assert!(device.is_cpu());
                assert_eq!(found, [(0..5).map(|token| (token, 0.5)).collect::<Vec<_>>()]);
            }
            ties => assert!(!device.is_cpu() && matches!(ties, top_tokens::Found::Ties), "on {}", device.name()),
        }
    }
}

// Stored weights.

#[test]
fn random_blocks_of_every_format_expand_to_what_their_layout_says() {
    let mut random = Random::new(16);
    let mut tested = 0;
    // All but f32, which is never packed.
    for format in WeightFormat::ALL.into_iter().filter(|format| format.kernels().is_some()) {
        tested += 1;
        // Fused parts of 1, 3 and 10 rows: odd numbers of blocks, and bytes that end within a word where they can.
        let columns = if format.block_elements() == 1 { 97 } else { 3 * format.block_elements() };
        let parts = [1, 3, 10].map(|rows: usize| {
            let length = format.bytes_for_shape(&[rows, columns]).unwrap();
            oracle::dequantize::moderate(format, (0..length).map(|_| random.below(256) as u8).collect())
        });
        let definition = oracle::dequantize::definition(format);
        let part = |bytes: &Vec<u8>| {
            let count = bytes.len() / format.block_bytes() * format.block_elements();
            (0..count).map(|i| f64::from(definition(bytes, i) as f32)).collect::<Vec<_>>()
        };
        let want: Vec<f64> = parts.iter().flat_map(part).collect();
        for device in devices::all() {
            let raw = |bytes: &Vec<u8>| {
                let rows = bytes.len() / format.block_bytes() * format.block_elements() / columns;
                let (name, shape, bytes) = (String::new(), vec![rows, columns], bytes.clone());
                RawTensor { name, shape, format, bytes }
            };
            let packed = Packed::new(&device, parts.iter().map(raw).collect(), columns, Rows::ByIndex).unwrap();
            soil(&device, &[columns, 3 * columns, 10 * columns]);
            let dense = packed.dense(&device).unwrap();
            assert_eq!(dense.dims(), [14, columns]);
            // Every step but the last one is exact in f32, whether or not it is fused, so nothing may differ.
            let what = format!("{format:?} on {}", device.name());
            close(&what, &read(&dense).unwrap(), &want, 0.0, 0.0).unwrap();
            let rows = [107, 99, 100, 113, 114, 107];
            let gathered = packed.gather(&device, &rows, 100);
            let want = oracle::elementwise::gather_rows(&want, columns, &rows, 100);
            close(&format!("rows of {what}"), &read(&gathered).unwrap(), &want, 0.0, 0.0).unwrap();
        }
    }
    assert_eq!(tested, WeightFormat::ALL.len() - 1);
}

#[test]
fn every_f16_and_bf16_bit_pattern_converts_exactly() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for format in [WeightFormat::F16, WeightFormat::Bf16] {
        let definition = oracle::dequantize::definition(format);
        for device in devices::all() {
            let raw = RawTensor { name: String::new(), shape: vec![256, 256], format, bytes: bytes.clone() };
            let dense = Packed::new(&device, vec![raw], 256, Rows::Whole).unwrap().dense(&device).unwrap();
            for (i, got) in read(&dense).unwrap().into_iter().enumerate() {
                let want = definition(&bytes, i) as f32;
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{format:?} {i:#06x} on {}: {got:e}, want {want:e}", device.name());
            }
        }
    }
}

/// A matrix of three tensors of different formats, and what they are in f32.
fn stacked(device: &Device, rows: [usize; 3], columns: usize, random: &mut Random) -> (Packed, Vec<f32>) {
    let formats = match columns % 256 {
        0 => [WeightFormat::Q4K, WeightFormat::Q6K, WeightFormat::Q8_0],
        _ => [WeightFormat::Q4_0, WeightFormat::Bf16, WeightFormat::Q8_0],
    };
    let raws: Vec<RawTensor> = rows
        .into_iter()
        .zip(formats)
        .map(|(rows, format)| {
            let length = format.bytes_for(rows * columns).unwrap();
            let bytes = oracle::dequantize::moderate(format, (0..length).map(|_| random.below(256) as u8).collect());
            RawTensor { name: String::new(), shape: vec![rows, columns], format, bytes }
        })
        .collect();
    let dense = raws.iter().flat_map(RawTensor::to_f32).collect();
    (Packed::new(device, raws, columns, Rows::Whole).unwrap(), dense)
}

#[test]
fn a_product_with_a_frozen_matrix_is_the_product_with_what_it_holds_to_the_bit() {
    let mut random = Random::new(26);
    for device in devices::all() {
        // Sums longer than one part, more outputs than one rectangle, few and many rows.
        let shapes: &[([usize; 3], usize, usize)] = match device.is_cpu() {
            true => &[([3, 5, 1], 32, 1), ([100, 1, 40], 96, 7), ([700, 300, 300], 768, 33), ([60, 50, 9], 1312, 70)],
            false => &[([3, 5, 1], 32, 1), ([100, 1, 40], 256, 7)],
        };
        for &(rows, columns, m) in shapes {
            let outputs = rows.iter().sum();
            let (packed, dense) = stacked(&device, rows, columns, &mut random);
            let dense = matrix(&device, &dense, [outputs, columns]);
            let (x, dy) = (random.vec(m * columns, 1.0), random.vec(m * outputs, 1.0));
            let (x, dy) = (matrix(&device, &x, [m, columns]), matrix(&device, &dy, [m, outputs]));
            let what = format!("{outputs} x {columns}, {m} rows on {}", device.name());
            let y = |right| read(&Product::of(&x, right).times(0.5).run(&device).unwrap()).unwrap();
            let frozen = matmul::Operand::from(&packed);
            same_bits(&what, &y(frozen.clone().transposed()), &y(dense.transposed())).unwrap();
            let dx = |right| read(&Product::of(&dy, right).added_to(x.clone()).run(&device).unwrap()).unwrap();
            same_bits(&what, &dx(frozen), &dx(matmul::Operand::from(&dense))).unwrap();
        }
    }
}

#[test]
fn products_of_few_rows_equal_the_oracle_and_do_not_depend_on_the_rows_beside_them() {
    let mut random = Random::new(33);
    let mut packed_formats = BTreeSet::new();
    for device in devices::all() {
        for format in WeightFormat::ALL {
            // Rows of a single block, and of more than one piece.
            let block = format.block_elements();
            let sizes = [(5, block), (150, block * 256usize.div_ceil(block)), (33, 2048 + block.max(32))];
            let all = device.is_cpu() || format == WeightFormat::Q4_1;
            for (outputs, columns) in sizes.into_iter().take(if all { 3 } else { 1 }) {
                let length = format.bytes_for(outputs * columns).unwrap();
                let bytes = (0..length).map(|_| random.below(256) as u8).collect();
                let bytes = match format {
                    WeightFormat::F32 => {
                        random.vec(outputs * columns, 1.0).iter().flat_map(|x| x.to_le_bytes()).collect()
                    }
                    _ => oracle::dequantize::moderate(format, bytes),
                };
                let raw = RawTensor { name: String::new(), shape: vec![outputs, columns], format, bytes };
                let dense = raw.to_f32();
                let packed = Packed::new(&device, vec![raw], columns, Rows::Whole).unwrap();
                let x = random.vec(17 * columns, 1.0);
                let alone = |row: usize, right: matmul::Operand<2>| {
                    let x = matrix(&device, &x[row * columns..][..columns], [1, columns]);
                    read(&Product::of(&x, right).times(0.5).run_in_few_rows(&device).unwrap()).unwrap()
                };
                for m in if device.is_cpu() { vec![1, 2, 4, 5, 8, 9, 17] } else { vec![1, 3, 8] } {
                    let what = format!("{m} x {columns} by {outputs} in {format:?} on {}", device.name());
                    let left = matrix(&device, &x[..m * columns], [m, columns]);
                    let product = |right| Product::of(&left, right).times(0.5);
                    let frozen = || matmul::Operand::from(&packed).transposed();
                    let plain = matrix(&device, &dense, [outputs, columns]);
                    let want: Vec<f64> = matmul(&x[..m * columns], false, &dense, true, m, outputs, columns)
                        .iter()
                        .map(|z| 0.5 * z)
                        .collect();
                    let largest = want.iter().fold(1.0f64, |most, z| most.max(z.abs()));
                    for right in [frozen(), plain.transposed()] {
                        let found = read(&product(right.clone()).run_in_few_rows(&device).unwrap()).unwrap();
                        close(&what, &found, &want, 4e-6 * largest, 1e-5).unwrap();
                        if device.is_cpu() {
                            same_bits(&what, &found[(m - 1) * outputs..], &alone(m - 1, right)).unwrap();
                        }
                    }
                    let wider = matrix(&device, &vec![1.0; m * (outputs + 7)], [m, outputs + 7]);
                    let columns = Columns { offset: 4, width: outputs };
                    let added = product(frozen()).added_to_columns(wider, columns).run_in_few_rows(&device).unwrap();
                    let added = read(&added).unwrap();
                    let want: Vec<f64> = (0..m)
                        .flat_map(|row| {
                            let part = want[row * outputs..][..outputs].iter().map(|z| 1.0 + z);
                            [1.0; 4].into_iter().chain(part).chain([1.0; 3]).collect::<Vec<f64>>()
                        })
                        .collect();
                    close(&format!("added, {what}"), &added, &want, 4e-6 * largest, 1e-5).unwrap();
                }
                packed_formats.insert(format.name());
            }
        }
    }
    assert_eq!(packed_formats.len(), WeightFormat::ALL.len());
}

// Optimiser.

#[test]
fn five_adamw_steps_equal_the_definition() {
    use kernels::adamw::step;
    let mut random = Random::new(17);
    for shape in [[1, 1], [1, 255], [1, 257], [5, 1025]] {
        let count = shape[0] * shape[1];
        let start = random.vec(count, 1.0);
        let gradients: Vec<Vec<f32>> = (0..5).map(|_| random.vec(count, 0.1)).collect();
        let mut want: Vec<(f64, f64, f64)> = start.iter().map(|&p| (f64::from(p), 0.0, 0.0)).collect();
        let on: Vec<Device> = devices::all();
        let zeros = |device: &Device| matrix(device, &vec![0.0; count], shape);
        let mut states: Vec<_> = on.iter().map(|d| (matrix(d, &start, shape), zeros(d), zeros(d))).collect();
        for (gradient, t) in gradients.iter().zip(1..) {
            for ((p, m, v), &g) in want.iter_mut().zip(gradient) {
                (*p, *m, *v) = oracle::adamw::adamw(*p, f64::from(g), *m, *v, &exact(t));
            }
            let params = params(t);
            for (device, state) in on.iter().zip(&mut states) {
                let (p, m, v) = state.clone();
                *state = step(device, p, &matrix(device, gradient, shape), m, v, &params).unwrap();
            }
        }
        let column = |pick: fn(&(f64, f64, f64)) -> f64| want.iter().map(pick).collect::<Vec<_>>();
        for (device, (p, m, v)) in on.iter().zip(&states) {
            close(device.name(), &read(p).unwrap(), &column(|x| x.0), 2e-6, 1e-6).unwrap();
            close(device.name(), &read(m).unwrap(), &column(|x| x.1), 1e-8, 1e-5).unwrap();
            close(device.name(), &read(v).unwrap(), &column(|x| x.2), 1e-12, 2e-4).unwrap();
        }
    }
}

// The optimiser on fewer bits.

/// Weights and moments as they are held: all kinds but the one that `step` is for.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// None: f32; else whether the lower halves are kept.
    bf16: Option<bool>,
    coded: bool,
}

const KINDS: [Kind; 5] = [
    Kind { bf16: None, coded: true },
    Kind { bf16: Some(false), coded: false },
    Kind { bf16: Some(false), coded: true },
    Kind { bf16: Some(true), coded: false },
    Kind { bf16: Some(true), coded: true },
];

impl Kind {
    fn weights(self, device: &Device, values: &[f32], shape: [usize; 2]) -> Weights {
        match self.bf16 {
            None => matrix(device, values, shape).into(),
            Some(split) => {
                let raw = RawTensor::from_f32("w", shape.to_vec(), values);
                Weights::bf16(device, vec![raw], shape[1], split).unwrap()
            }
        }
    }
}

/// What a step is made of: with the lower halves in single precision.
fn stepped(weights: &Weights) -> Vec<f32> {
    match weights {
        Weights::Bf16(Bf16 { upper, lower: Some(lower), .. }) => {
            let (upper, lower) = (wait(upper.read()).unwrap(), wait(lower.read()).unwrap());
            let mut values = vec![0.0; upper.len() / 2];
            kernels::cpu::read_split(&upper, &lower, &mut values);
            values
        }
        weights => wait(weights.read()).unwrap(),
    }
}

/// The parameters of step `t`.
fn params(t: i32) -> AdamwParams {
    AdamwParams {
        count: 0,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
        bias1: (1.0 - 0.9f64.powi(t)) as f32,
        bias2: (1.0 - 0.999f64.powi(t)) as f32,
        gradient_scale: 0.5,
    }
}

/// The same for the oracle.
fn exact(t: i32) -> oracle::adamw::Settings {
    oracle::adamw::Settings {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.01,
        gradient_scale: 0.5,
        step: t,
    }
}

/// Passes where every number is one of the two around what was wanted, which itself is known as well as [`close`] would ask:
/// what f32 makes of it may tip which two these are.
fn is_around(
    what: &str,
    got: &[f32],
    want: &[f64],
    (absolute, relative): (f64, f64),
    around: &dyn Fn(usize, f64) -> [f64; 2],
) {
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        let own = absolute + relative * want.abs();
        let near = [want - own, want, want + own].map(|want| around(at, want));
        let fits = near.iter().flatten().any(|&v| (f64::from(got) - v).abs() <= relative * v.abs());
        assert!(fits, "{what}: element {at} is {got:e}, wanted one around {want:e}: {near:?}");
    }
}

#[test]
fn adamw_steps_on_fewer_bits_round_what_the_definition_gives_to_a_neighbour() {
    let (first_values, second_values) = (oracle::adamw::code_values(3, 128), oracle::adamw::code_values(4, 256));
    let mut random = Random::new(31);
    for shape in [[1, 1], [1, 3], [1, 257], [5, 1025]] {
        let count = shape[0] * shape[1];
        let start = random.vec(count, 1.0);
        // Blocks whose gradients differ by a million from one element to another, and one of zeros.
        let gradients: Vec<Vec<f32>> = (0..4)
            .map(|_| {
                let values = random.vec(count, 0.1);
                let scaled = values.iter().enumerate().map(|(i, v)| match i {
                    512..768 => 0.0,
                    i => v * 10f32.powi(-((i % 7) as i32)),
                });
                scaled.collect()
            })
            .collect();
        for device in devices::all() {
            for kind in KINDS {
                let what = format!("{kind:?} on {}", device.name());
                let mut weights = kind.weights(&device, &start, shape);
                let mut moments = Moments::zeros(&device, shape, kind.coded);
                for (gradient, t) in gradients.iter().zip(1..) {
                    // From what is stored, so that one step's rounding is seen alone.
                    let (p, [m, v]) = (stepped(&weights), wait(moments.read()).unwrap());
                    let want: Vec<(f64, f64, f64)> = (0..count)
                        .map(|i| {
                            let [p, g, m, v] = [p[i], gradient[i], m[i], v[i]].map(f64::from);
                            oracle::adamw::adamw(p, g, m, v, &exact(t))
                        })
                        .collect();
                    let column = |pick: fn(&(f64, f64, f64)) -> f64| want.iter().map(pick).collect::<Vec<_>>();
                    let (wanted, wanted_m) = (column(|x| x.0), column(|x| x.1));
                    let roots = column(|x| x.2.sqrt());
                    let g = matrix(&device, gradient, shape);
                    (weights, moments) =
                        kernels::adamw::step_compact(&device, weights, &g, moments, &params(t).compact(7)).unwrap();
                    let (p, [m, v]) = (stepped(&weights), wait(moments.read()).unwrap());
                    match kind.bf16 {
                        Some(false) => {
                            is_around(&what, &p, &wanted, (2e-6, 1e-6), &|_, x| oracle::adamw::bf16_around(x))
                        }
                        _ => close(&what, &p, &wanted, 2e-6, 1e-6).unwrap(),
                    }
                    if !kind.coded {
                        close(&what, &m, &wanted_m, 1e-8, 1e-5).unwrap();
                        close(&what, &v, &column(|x| x.2), 1e-12, 2e-4).unwrap();
                        continue;
                    }
                    let largest = |of: &[f64], at: usize| {
                        of[at / 256 * 256..].iter().take(256).fold(0.0, |most: f64, x| most.max(x.abs()))
                    };
                    is_around(&what, &m, &wanted_m, (0.0, 1e-5), &|at, x| {
                        let scale = largest(&wanted_m, at).max(f64::MIN_POSITIVE);
                        oracle::adamw::around(&first_values, x.abs() / scale).map(|share| share.copysign(x) * scale)
                    });
                    let stored: Vec<f32> = v.iter().map(|v| v.sqrt()).collect();
                    is_around(&what, &stored, &roots, (0.0, 1e-4), &|at, x| {
                        let scale = largest(&roots, at).max(f64::MIN_POSITIVE);
                        oracle::adamw::around(&second_values, x / scale).map(|share| share * scale)
                    });
                    assert!(
                        stored.iter().zip(&roots).all(|(s, want)| (*s > 0.0) == (*want > 0.0)),
                        "{what}: 0 divides"
                    );
                }
            }
        }
    }
}

#[test]
fn what_chance_rounds_is_the_same_on_every_device_and_for_every_seed_another() {
    let (shape, mut random) = ([4, 1000], Random::new(32));
    let (start, gradient) = (random.vec(4000, 1.0), random.vec(4000, 0.1));
    for kind in KINDS {
        let step = |device: &Device, seed| {
            let (weights, zeros) = (kind.weights(device, &start, shape), Moments::zeros(device, shape, kind.coded));
            let g = matrix(device, &gradient, shape);
            let (weights, moments) =
                kernels::adamw::step_compact(device, weights, &g, zeros, &params(1).compact(seed)).unwrap();
            let [m, v] = wait(moments.read()).unwrap();
            [wait(weights.read()).unwrap(), m, v]
        };
        let want = step(&Device::cpu(), 1);
        let others = [step(&Device::cpu(), 2), step(&Device::cpu(), 1 << 32 | 1)];
        for device in devices::all() {
            let got = step(&device, 1);
            for (which, (got, want)) in got.iter().zip(&want).enumerate() {
                // A device's own last bit tips a number in thousands.
                let other = got.iter().zip(want).filter(|(a, b)| (**a - **b).abs() > 1e-5 * b.abs()).count();
                assert!(other <= 4, "{kind:?} on {}: {other} of 4000 of number {which}", device.name());
            }
        }
        let by_chance = [kind.bf16 == Some(false), kind.coded, kind.coded];
        for other in &others {
            for (which, chance) in by_chance.into_iter().enumerate() {
                let differ = other[which].iter().zip(&want[which]).filter(|(a, b)| a != b).count();
                assert_eq!(differ > 500, chance, "{kind:?}: {differ} of number {which}");
            }
        }
    }
}

/// Steps of a thousandth of the distance between two bf16.
#[test]
fn steps_that_are_too_small_for_bf16_add_up_all_the_same() {
    let count = 4096;
    let gradient = vec![1.0; count];
    let moved = |split: bool, device: &Device| {
        let mut weights = Kind { bf16: Some(split), coded: false }.weights(device, &vec![1.0; count], [1, count]);
        let mut moments = Moments::zeros(device, [1, count], false);
        let g = matrix(device, &gradient, [1, count]);
        for t in 1..=200 {
            let params = AdamwCompactParams {
                learning_rate: 2f32.powi(-8) / 1000.0,
                weight_decay: 0.0,
                ..params(t).compact(100 + t as u64)
            };
            (weights, moments) = kernels::adamw::step_compact(device, weights, &g, moments, &params).unwrap();
        }
        1.0 - stepped(&weights).iter().map(|&w| f64::from(w)).sum::<f64>() / count as f64
    };
    let want = 200.0 * 2f64.powi(-8) / 1000.0;
    for device in devices::all() {
        let (stochastic, split) = (moved(false, &device), moved(true, &device));
        // The mean of 4096 numbers, each of which moved by 0.2 of a distance on average: its deviation is 3 %.
        assert!((stochastic / want - 1.0).abs() < 0.12, "{stochastic} instead of {want} on {}", device.name());
        assert!((split / want - 1.0).abs() < 1e-2, "{split} instead of {want} on {}", device.name());
    }
}

/// A second moment changes by a thousandth in a step, and two codes are 3 to 6 % apart: rounded to nearest it would stay.
#[test]
fn a_second_moment_in_8_bits_follows_gradients_that_become_smaller_beside_others_that_do_not() {
    let count = 256;
    let steps = 3000;
    let run = |coded: bool| {
        let device = Device::cpu();
        let (mut weights, mut moments): (Weights, _) =
            (matrix(&device, &vec![0.0; count], [1, count]).into(), Moments::zeros(&device, [1, count], coded));
        for t in 1..=steps {
            // Signs alternate, so that first moments stay small.
            let of = |i: usize| if i.is_multiple_of(2) || t < steps / 3 { 1.0 } else { 0.1 };
            let gradient: Vec<f32> = (0..count).map(|i| if t % 2 == 0 { of(i) } else { -of(i) }).collect();
            let g = matrix(&device, &gradient, [1, count]);
            let params = params(t).compact(t as u64);
            (weights, moments) = match (weights, moments) {
                (Weights::F32(p), Moments::F32(m, v)) => {
                    let (p, m, v) = kernels::adamw::step(&device, p, &g, m, v, &params.plain()).unwrap();
                    (Weights::F32(p), Moments::F32(m, v))
                }
                (weights, moments) => kernels::adamw::step_compact(&device, weights, &g, moments, &params).unwrap(),
            };
        }
        let [_, v] = wait(moments.read()).unwrap();
        let mean = |odd: usize| v.iter().skip(odd).step_by(2).map(|&v| f64::from(v)).sum::<f64>() / (count / 2) as f64;
        [mean(0), mean(1)]
    };
    let (want, got) = (run(false), run(true));
    for (got, want) in got.into_iter().zip(want) {
        assert!((got / want - 1.0).abs() < 0.1, "{got} instead of {want}");
    }
}

fn norm(device: &Device, tensors: &[&Tensor<2>]) -> Result<f64> {
    Ok(wait(kernels::adamw::sum_squares(device, tensors)?.read())?.sqrt())
}

#[test]
fn the_global_norm_is_taken_over_all_tensors_and_shows_a_nan() {
    let mut random = Random::new(18);
    let shapes = [[1, 1], [1, 255], [1, 257], [16, 1024], [1, 16_385], [65, 1023]];
    let values: Vec<Vec<f32>> = shapes.iter().map(|[rows, columns]| random.vec(rows * columns, 0.3)).collect();
    for device in devices::all() {
        assert_eq!(norm(&device, &[]).unwrap(), 0.0);
        let mut tensors: Vec<_> = shapes.iter().zip(&values).map(|(&shape, v)| matrix(&device, v, shape)).collect();
        for count in 1..=shapes.len() {
            soil(&device, &[64; 6]);
            let got = norm(&device, &tensors[..count].iter().collect::<Vec<_>>()).unwrap();
            let want = values[..count].iter().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            assert!((got - want).abs() <= 1e-6 * want, "{got}, want {want}, {count} tensors on {}", device.name());
        }
        let mut poisoned = values[5].clone();
        *poisoned.last_mut().unwrap() = f32::NAN;
        tensors[5] = matrix(&device, &poisoned, shapes[5]);
        assert!(norm(&device, &tensors.iter().collect::<Vec<_>>()).unwrap().is_nan());
    }
}

// The rest.

#[test]
fn dropout_drops_the_same_elements_on_every_device_and_in_the_backward_pass() {
    let (mut random, shape, keep) = (Random::new(19), [67, 301], 0.75);
    let count = shape[0] * shape[1];
    let seed = 0x0123_4567_89ab_cdef_u64;
    let kept: Vec<bool> = (0..count as u32)
        .map(|i| temper_shaders::dropout_uniform(seed as u32, (seed >> 32) as u32, i) < keep)
        .collect();
    let mut x = random.vec(count, 1.0);
    // What a dropped element holds cannot matter.
    x.iter_mut().zip(&kept).filter(|(_, kept)| !**kept).for_each(|(x, _)| *x = f32::NAN);
    let want = oracle::elementwise::dropout(&wide(&x), &kept, f64::from(keep));
    for device in devices::all() {
        soil(&device, &[count]);
        let y = read(&elementwise::dropout(&device, &matrix(&device, &x, shape), seed, keep).unwrap()).unwrap();
        // A division on a GPU may be off by an ulp or two.
        close(device.name(), &y, &want, 0.0, 3e-7).unwrap();
        assert!(y.iter().zip(&kept).all(|(y, &kept)| kept || y.to_bits() == 0), "{}", device.name());
        // The function is linear, so the backward pass is the function itself on the gradient, with the same mask.
        let dy = elementwise::dropout(&device, &matrix(&device, &vec![1.0; count], shape), seed, keep).unwrap();
        assert!(read(&dy).unwrap().iter().zip(&kept).all(|(dy, &kept)| (*dy != 0.0) == kept));
        let all = elementwise::dropout(&device, &matrix(&device, &x, shape), seed, 1.0).unwrap();
        same_bits("keep everything", &read(&all).unwrap(), &x).unwrap();
    }
}

#[test]
fn dropout_keeps_the_mean_and_each_seed_drops_other_elements() {
    let count = 100_000;
    for device in devices::all() {
        let ones = matrix(&device, &vec![1.0; count], [1, count]);
        let run = |seed| read(&elementwise::dropout(&device, &ones, seed, 0.9).unwrap()).unwrap();
        let one = run(1);
        for other in [run(2), run(1 << 32 | 1)] {
            let mean = other.iter().map(|&y| f64::from(y)).sum::<f64>() / count as f64;
            // Five standard deviations of the mean of 100,000.
            assert!((mean - 1.0).abs() < 5.0 * (0.1f64 / 0.9 / count as f64).sqrt(), "{mean}");
            // Independent masks of keep probability 0.9 agree on 82 % of their elements.
            let agreeing = one.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((81_000..83_000).contains(&agreeing), "{agreeing}");
        }
        same_bits("the same seed", &run(1), &one).unwrap();
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let mut random = Random::new(20);
    for width in WIDTHS {
        let (x, bias) = (random.vec(7 * width, 1.0), random.vec(width, 1.0));
        // An f64 sum of two f32, rounded, is their f32 sum.
        let want = oracle::elementwise::add_bias(&wide(&x), &wide(&bias));
        let want: Vec<f32> = want.iter().map(|&x| x as f32).collect();
        for device in devices::all() {
            let y = elementwise::add_bias(&device, matrix(&device, &x, [7, width]), &vector(&device, &bias)).unwrap();
            same_bits(device.name(), &read(&y).unwrap(), &want).unwrap();
        }
    }
}

#[test]
fn column_ranges_are_taken_set_and_added_without_touching_their_neighbours() {
    let mut random = Random::new(21);
    let (rows, total) = (9, 70);
    for device in devices::all() {
        for (offset, width) in [(0, 70), (0, 1), (69, 1), (5, 64), (3, 63)] {
            let columns = Columns { offset, width };
            let what = format!("{columns:?} on {}", device.name());
            let (whole, part) = (random.vec(rows * total, 1.0), random.vec(rows * width, 1.0));
            let x = matrix(&device, &whole, [rows, total]);
            soil(&device, &[rows * width]);
            let taken = elementwise::columns(&device, &x, columns).unwrap();
            same_bits(&what, &read(&taken).unwrap(), &cut(&whole, total, offset, offset + width)).unwrap();
            let values = matrix(&device, &part, [rows, width]);
            // Setting overwrites, whatever was there; nothing else changes, NaN included.
            let nan = matrix(&device, &vec![f32::NAN; rows * total], [rows, total]);
            let set = read(&elementwise::set_columns(&device, nan, columns, &values).unwrap()).unwrap();
            let added = read(&elementwise::add_columns(&device, x.clone(), columns, &values).unwrap()).unwrap();
            for i in 0..rows * total {
                match (i % total).checked_sub(offset).filter(|&c| c < width) {
                    Some(c) => {
                        let value = part[i / total * width + c];
                        assert_eq!((set[i], added[i]), (value, whole[i] + value), "{what}, element {i}");
                    }
                    None => assert!(set[i].is_nan() && added[i] == whole[i], "{what}, element {i}"),
                }
            }
            same_bits("the source", &read(&x).unwrap(), &whole).unwrap();
        }
    }
}

#[test]
fn rows_are_gathered_by_index_and_rows_outside_the_tile_are_zero() {
    let mut random = Random::new(22);
    for (rows, width) in [(1, 1), (64, 65), (257, 3)] {
        let values = random.vec(rows * width, 1.0);
        // A tile that starts at token 100; indices before, in (twice), and behind it.
        let inside = [100, 100 + rows as u32 - 1, 100];
        let around = [99, 100, 100 + rows as u32, 0, 100 + rows as u32 / 2];
        for device in devices::all() {
            for indices in [&inside[..], &around] {
                let matrix = matrix(&device, &values, [rows, width]);
                let got = read(&elementwise::gather_rows(&device, &matrix, indices, 100).unwrap()).unwrap();
                let want = oracle::elementwise::gather_rows(&wide(&values), width, indices, 100);
                close(device.name(), &got, &want, 0.0, 0.0).unwrap();
            }
        }
    }
}

#[test]
fn rows_are_added_where_their_index_says_also_twice_and_those_outside_are_left_out() {
    let (mut random, rows, width) = (Random::new(23), 40, 33);
    let (before, values) = (random.vec(rows * width, 1.0), random.vec(6 * width, 1.0));
    for device in devices::all() {
        for indices in [[10u32, 49, 10, 30, 10, 31], [9, 10, 50, 49, 0, 49]] {
            let sum = matrix(&device, &before, [rows, width]);
            let values_on = matrix(&device, &values, [6, width]);
            let got = elementwise::scatter_add_rows(&device, sum, &indices, 10, &values_on).unwrap();
            let mut want = wide(&before);
            oracle::elementwise::scatter_add_rows(&mut want, width, &indices, 10, &wide(&values));
            close(device.name(), &read(&got).unwrap(), &want, 1e-6, 1e-6).unwrap();
        }
    }
}

// Launches larger than one axis.

#[test]
fn a_dispatch_of_more_than_65535_workgroups_reaches_every_row() {
    // One workgroup a row for both kernels; 65,537 is prime, so folding over two axes starts idle ones too.
    let (mut random, rows, width) = (Random::new(24), 65_537, 3);
    let x = random.vec(rows * width, 1.0);
    let scale = [0.5, 1.0, -2.0];
    let (want_y, want_inverse) = oracle::rms_norm::rms_norm(&wide(&x), &wide(&scale), f64::from(1e-5f32));
    let labels: Vec<u32> = (0..rows as u32).map(|row| row % 3).collect();
    let (mut fields, mut want) = (Vec::with_capacity(rows * 8), Vec::with_capacity(rows * width));
    for (row, &label) in x.chunks(width).zip(&labels) {
        let s = oracle::row_stats::row_stats(row, Some(label as usize), 2);
        fields.extend(
            [s.max, s.sum, s.u, s.sum_sq, s.label_logit, 0.0, s.count as f64, s.entropy_top_k].map(|v| v as f32),
        );
        want.extend(oracle::loss_gradient::loss_gradient(row, Some(label as usize), 0.25));
    }
    for device in devices::all() {
        let logits = matrix(&device, &x, [rows, width]);
        soil(&device, &[rows * width, rows]);
        let (y, inverse) = kernels::rms_norm::forward(&device, &logits, &vector(&device, &scale), 1e-5).unwrap();
        close(device.name(), &read(&y).unwrap(), &want_y, 1e-6, 1e-5).unwrap();
        close(device.name(), &read(&inverse).unwrap(), &want_inverse, 0.0, 1e-5).unwrap();
        let (indices, weight) = (Indices::new(&device, labels.clone()), vector(&device, &vec![0.25; rows]));
        let fields = matrix(&device, &fields, [rows, 8]);
        let over = kernels::loss_gradient::over_logits(&device, logits, 0, &indices, &weight, &fields).unwrap();
        close(device.name(), &read(&over).unwrap(), &want, 1e-7, 2e-5).unwrap();
    }
}

#[test]
fn a_dispatch_of_more_than_65535_workgroups_of_elements_reaches_every_element() {
    // 65,536 workgroups of 256 elements and one element more.
    let count = 65_536 * 256 + 1;
    let device = devices::gpu();
    let x = matrix(&device, &vec![1.0; count], [1, count]);
    let y = read(&elementwise::dropout(&device, &x, 0, 1.0).unwrap()).unwrap();
    assert!(y.len() == count && y.iter().all(|&y| y == 1.0));
}
