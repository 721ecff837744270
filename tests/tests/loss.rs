//! The loss on the CPU backend and on WGSL: PyTorch's goldens, the readable definitions, finite differences, every
//! awkward input that the method's notes list, and the chunked head.

mod common;

use common::{Random, matrix, poisoned_rows};
use temper_conformance::compare::{close, same_bits};
use temper_conformance::devices::{self, read};
use temper_conformance::golden::{self, Tensors, json};
use temper_conformance::oracle::wide_entropy::{of_largest, of_share};
use temper_conformance::oracle::{self, matmul::matmul, row_stats::row_stats};
use temper_engine::configuration::ObjectiveSection;
use temper_engine::events::RowStats;
use temper_engine::inside::config::Choice;
use temper_engine::inside::kernels;
use temper_engine::inside::kernels::Indices;
use temper_engine::inside::kernels::row_stats::from_fields;
use temper_engine::inside::kernels::statistics::Selection;
use temper_engine::inside::loss::head::Known;
use temper_engine::inside::loss::objective::eaft::GateShape;
use temper_engine::inside::loss::objective::{BatchStats, Method, flow};
use temper_engine::inside::loss::plan::{HeadLimits, head_plan};
use temper_engine::inside::loss::ready::Evaluated;
use temper_engine::inside::loss::{head, ready};
use temper_engine::inside::model::parameter::Parameter;
use temper_engine::inside::model::vocabulary::{Tile, VocabularyMatrix};
use temper_engine::{Device, Error, Objective, Result, wait};

fn try_objective(method: &str, settings: &[(&str, &str)]) -> Result<Objective, Error> {
    let settings: Vec<_> = settings.iter().map(|(k, v)| (format!("objective.{k}"), v.to_string())).collect();
    ObjectiveSection::from_overrides(method, &settings).and_then(|section| Objective::from_section(&section))
}

fn objective(method: &str, settings: &[(&str, &str)]) -> Objective {
    try_objective(method, settings).expect("a valid objective")
}

/// Every method that logits alone suffice for, with its defaults, and every gate and normaliser, with a name for messages.
fn every_objective() -> Vec<(String, Objective)> {
    let further: [(&str, &[(&str, &str)]); 15] = [
        ("sft", &[("scale", "0.3")]),
        ("sft", &[("scale", "gate_mean")]),
        ("eaft", &[("top_k", "full")]),
        ("eaft", &[("top_k", "adaptive"), ("mass", "0.8")]),
        ("eaft", &[("top_k", "70"), ("gate", "power")]),
        ("masked_sft", &[("top_k", "adaptive"), ("entropy_percentile", "50"), ("probability_percentile", "50")]),
        ("eaft", &[("normalizer", "const_3")]),
        ("eaft", &[("normalizer", "none"), ("top_k", "64")]),
        ("eaft", &[("gate", "power"), ("exponent", "0")]),
        ("eaft", &[("gate", "power"), ("exponent", "0.5")]),
        ("eaft", &[("gate", "power"), ("exponent", "3"), ("top_k", "2")]),
        ("eaft", &[("gate", "sigmoid")]),
        ("eaft", &[("gate", "hard"), ("percentile", "40")]),
        ("masked_sft", &[("entropy_percentile", "50"), ("probability_percentile", "50")]),
        ("talr", &[("tau", "0.5"), ("w_min", "0.2")]),
    ];
    let all = Method::ALL.iter().map(|(name, _)| (*name, &[][..])).chain(further);
    let all = all.map(|(method, set)| (format!("{method} {set:?}"), objective(method, set)));
    all.filter(|(_, objective)| !objective.needs_untouched()).collect()
}

/// Those, and shuffled gates, whose weights are not the rows' own.
fn every_objective_of_logits() -> Vec<(String, Objective)> {
    let shuffled = objective("eaft", &[("gates", "shuffled")]);
    every_objective().into_iter().chain([("shuffled".to_string(), shuffled)]).collect()
}

/// `row_stats` of `logits` on a device, read back.
fn statistics(device: &Device, logits: &[f32], labels: &[u32], top_k: impl Into<Selection>) -> Vec<RowStats> {
    fields(device, logits, labels, top_k).1
}

fn fields(
    device: &Device,
    logits: &[f32],
    labels: &[u32],
    top_k: impl Into<Selection>,
) -> (burn::tensor::Tensor<2>, Vec<RowStats>) {
    let tensor = matrix(device, logits, [labels.len(), logits.len() / labels.len()]);
    let labels = Indices::new(device, labels.to_vec());
    let fields = kernels::statistics::of_tiles(device, &[&tensor], &labels, top_k).unwrap().fields;
    let host = read(&fields).unwrap();
    (fields, host.chunks_exact(temper_shaders::STATS_WIDTH).map(|f| from_fields(f).expect("finite")).collect())
}

/// The same from the definitions in f64.
fn exact_statistics(row: &[f32], label: usize, selection: Selection) -> RowStats {
    let s = row_stats(row, Some(label), 0);
    let (entropy, count) = match selection {
        Selection::Top(k) => of_largest(row, k),
        Selection::Full => of_largest(row, 0),
        Selection::Share(share) => of_share(row, f64::from(share - Selection::SLACK)),
    };
    RowStats {
        ce: (s.sum.ln() + (s.max - s.label_logit)) as f32,
        entropy_top_k: entropy as f32,
        entropy_tokens: count as u32,
        entropy_full: (s.sum.ln() - s.u / s.sum).max(0.0) as f32,
        collision: (s.sum_sq / (s.sum * s.sum)) as f32,
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    oracle::wide(values)
}

// PyTorch's goldens.

/// A stored case: logits, labels as the loss takes them (shifted where the file's are not), width.
struct Case {
    name: String,
    logits: Vec<f32>,
    labels: Vec<i64>,
    vocab: usize,
    top_k: usize,
    /// Factor from a mean over the scored rows to the case's own denominator.
    scale: f64,
    json: serde_json::Value,
}

impl Case {
    fn number(&self, key: &str) -> f64 {
        self.json[key].as_f64().unwrap_or_else(|| panic!("{} has no {key}", self.name))
    }
}

fn cases(tensors: &Tensors) -> Vec<Case> {
    let file = json("eaft_loss.json");
    let all = file["cases"].as_array().unwrap();
    assert_eq!(all.len(), 24);
    all.iter()
        .map(|json| {
            let text = |key: &str| json[key].as_str().unwrap().to_string();
            let size = |key: &str| json[key].as_u64().unwrap() as usize;
            let name = text("name");
            let stored = if name.starts_with("batched_shift") { "batched_shift" } else { &name };
            let mut labels = tensors.ints(&format!("{stored}.labels")).to_vec();
            if let Some(width) = json["t"].as_u64() {
                // Position t is scored against label t + 1; the last of each sequence is not scored.
                for row in labels.chunks_mut(width as usize) {
                    row.rotate_left(1);
                    *row.last_mut().unwrap() = file["ignore_index"].as_i64().unwrap();
                }
            }
            let valid = labels.iter().filter(|&&label| label != -100).count();
            assert_eq!(valid, size("valid"), "{name}");
            Case {
                logits: tensors.f32s(&format!("{}.logits", text("logits"))),
                labels,
                vocab: size("v"),
                top_k: size("k"),
                // The loss divides by the scored rows; `denom` is the token count of a larger accumulated batch.
                scale: json["denom"].as_f64().map_or(1.0, |denominator| valid as f64 / denominator),
                json: json.clone(),
                name,
            }
        })
        .collect()
}

fn evaluate(
    device: &Device,
    logits: Vec<f32>,
    labels: &[i64],
    vocab: usize,
    objective: &Objective,
) -> Result<Evaluated> {
    wait(ready::evaluate(device, logits, labels, vocab, objective))
}

fn run(device: &Device, case: &Case, objective: &Objective) -> Evaluated {
    evaluate(device, case.logits.clone(), &case.labels, case.vocab, objective).unwrap()
}

#[test]
fn loss_gate_and_gradient_of_every_golden_case_equal_pytorch() {
    let tensors = golden::eaft_loss();
    for case in cases(&tensors).iter().filter(|case| case.top_k >= 2) {
        let (top_k, exponent) = (case.top_k.to_string(), case.number("alpha").to_string());
        let settings = [("top_k", &*top_k), ("gate", "power"), ("exponent", &exponent), ("normalizer", "const_3")];
        let objective = objective("eaft", &settings);
        for device in devices::all() {
            let what = format!("{} on {}", case.name, device.name());
            let got = run(&device, case, &objective);
            let loss = case.number("loss");
            close(&format!("{what}: loss"), &[(f64::from(got.loss) * case.scale) as f32], &[loss], 1e-7, 2e-6).unwrap();
            // f32 torch is off by up to 1e-3 of the largest gradient where exponents below 1 or large offsets hurt it;
            // two millionths are met here everywhere.
            let gradient: Vec<f32> = got.gradient.iter().map(|&g| (f64::from(g) * case.scale) as f32).collect();
            let want = tensors.floats(&format!("{}.grad", case.name));
            let largest = want.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            close(&format!("{what}: gradient"), &gradient, want, 2e-6 * largest, 2e-6).unwrap();
            if case.json["t"].is_u64() {
                continue; // no values per row are stored
            }
            for (part, got) in [("ce", &got.ce), ("entropy", &got.entropy), ("weight", &got.weight)] {
                let want = tensors.floats(&format!("{}.{part}", case.name));
                close(&format!("{what}: {part}"), got, want, 2e-6, 2e-6).unwrap();
            }
        }
    }
}

#[test]
fn the_other_losses_of_every_golden_case_equal_pytorch() {
    let tensors = golden::eaft_loss();
    let mut compared = 0;
    for case in cases(&tensors).iter().filter(|case| case.top_k >= 2) {
        let (top_k, exponent) = (case.top_k.to_string(), case.number("alpha").to_string());
        let eaft = |normalizer| {
            let settings = [("top_k", &*top_k), ("gate", "power"), ("exponent", &exponent), ("normalizer", normalizer)];
            objective("eaft", &settings)
        };
        for (key, objective) in [
            ("loss_sft", objective("sft", &[])),
            ("loss_dft", objective("dft", &[])),
            ("loss_norm_ln_k", eaft("ln_k")),
            ("loss_norm_none", eaft("none")),
        ] {
            if !case.json[key].is_f64() {
                continue; // the shifted cases store plain cross entropy alone
            }
            compared += 1;
            for device in devices::all() {
                let got = (f64::from(run(&device, case, &objective).loss) * case.scale) as f32;
                close(&format!("{} {key} on {}", case.name, device.name()), &[got], &[case.number(key)], 1e-7, 4e-6)
                    .unwrap();
            }
        }
    }
    assert_eq!(compared, 86, "stored losses");
}

#[test]
fn k_of_one_is_refused_and_the_row_statistics_have_its_entropy() {
    let tensors = golden::eaft_loss();
    let cases = cases(&tensors);
    let case = cases.iter().find(|case| case.top_k == 1).expect("a case of K = 1");
    let error = try_objective("eaft", &[("top_k", "1")]).unwrap_err().to_string();
    assert!(error.contains("top_k") && error.contains("use 2 or more"), "{error}");
    let labels: Vec<u32> = case.labels.iter().map(|&label| label as u32).collect();
    for device in devices::all() {
        let rows = statistics(&device, &case.logits, &labels, 1);
        assert!(rows.len() > 3 && rows.iter().all(|row| row.entropy_top_k == 0.0), "{}", device.name());
        let ce: Vec<f32> = rows.iter().map(|row| row.ce).collect();
        close(&case.name, &ce, tensors.floats(&format!("{}.ce", case.name)), 2e-6, 2e-6).unwrap();
    }
}

#[test]
fn a_k_of_the_vocabulary_and_the_whole_vocabulary_are_the_full_entropy_over_ln_v() {
    let (logits, labels, columns) = varied_rows();
    for device in devices::all() {
        let of = |top_k: &str| {
            let objective = objective("eaft", &[("top_k", top_k)]);
            let (fields, rows) = fields(&device, &logits, &labels, head::top_k(&objective));
            let params = objective.gate_params(&objective.without_batch(columns));
            (read(&kernels::gate::weights(&device, &fields, &params, 1.0).unwrap()).unwrap(), rows)
        };
        let (full, rows) = of("full");
        let want: Vec<f64> = logits.chunks(columns).map(|row| of_largest(row, 0).0 / (columns as f64).ln()).collect();
        close(device.name(), &full, &want, 1e-6, 1e-5).unwrap();
        assert!(rows.iter().all(|row| row.entropy_tokens as usize == columns));
        for same in [columns, columns + 1, 1 << 30] {
            same_bits("K = V", &of(&same.to_string()).0, &full).unwrap();
        }
        // One token less is the sweeps' own way to nearly the same.
        let less: Vec<f64> =
            logits.chunks(columns).map(|row| of_largest(row, columns - 1).0 / (columns as f64 - 1.0).ln()).collect();
        close(device.name(), &of(&(columns - 1).to_string()).0, &less, 1e-6, 1e-5).unwrap();
    }
}

#[test]
fn shuffled_gates_are_those_of_eaft_on_other_rows_and_so_are_the_gradients() {
    let (logits, labels, columns) = varied_rows();
    let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
    for device in devices::all() {
        let run = |objective| evaluate(&device, logits.clone(), &labels, columns, &objective).unwrap();
        let (own, mixed) = (run(objective("eaft", &[])), run(objective("eaft", &[("gates", "shuffled")])));
        let sorted = |weights: &[f32]| {
            let mut weights = weights.to_vec();
            weights.sort_by(f32::total_cmp);
            weights
        };
        same_bits("gates", &sorted(&own.weight), &sorted(&mixed.weight)).unwrap();
        assert!(own.weight.iter().zip(&mixed.weight).filter(|(a, b)| a != b).count() > labels.len() / 2);
        let sum: f64 = mixed.weight.iter().zip(&mixed.ce).map(|(&w, &ce)| f64::from(w) * f64::from(ce)).sum();
        close("loss", &[mixed.loss], &[sum / labels.len() as f64], 0.0, 1e-6).unwrap();
    }
}

#[test]
fn what_needs_the_untouched_model_is_refused_where_there_are_logits_of_one_model() {
    for method in ["sft_kl", "asft", "flow"] {
        let objective = objective(method, &[]);
        let Err(error) = evaluate(&Device::cpu(), vec![0.0; 6], &[0, 1], 3, &objective) else { panic!("{method}") };
        assert!(error.is_bad_input() && error.to_string().contains(method), "{error}");
    }
    for (method, set) in [("sft_kl", &[][..]), ("asft", &[]), ("flow", &[]), ("eaft", &[("gates", "shuffled")])] {
        let device = Device::cpu();
        let mut head = vocabulary(&device, &[0.0; 12], 4, &[3]);
        let (objective, x) = (objective(method, set), matrix(&device, &[0.0; 8], [2, 4]));
        let batch = objective.without_batch(3);
        let result = head::gradient(&device, &mut head, &x, &[1, 2], &objective, &batch, 0.5);
        let Err(error) = result else { panic!("{method} trained something else") };
        assert!(error.to_string().contains("which only a run has"), "{error}");
    }
}

// Definitions.

/// 64 rows over 90 tokens, from flat to one-hot and with equal rows, so that thresholds fall on ties as well.
fn varied_rows() -> (Vec<f32>, Vec<u32>, usize) {
    let (mut random, columns) = (Random::new(31), 90);
    let mut logits = Vec::new();
    let mut labels = Vec::new();
    for (_, row) in poisoned_rows(columns, &mut random) {
        logits.extend(row);
        labels.push(columns as u32 / 2);
    }
    while labels.len() < 64 {
        let size = [0.0, 0.3, 1.0, 3.0, 10.0, 40.0][labels.len() % 6];
        let row = random.vec(columns, size);
        let best = (0..columns).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
        labels.push(if labels.len() % 3 == 0 { best } else { random.below(columns) });
        logits.extend(row);
    }
    (logits, labels, columns)
}

#[test]
fn exponent_zero_is_bit_for_bit_sft() {
    let (logits, labels, columns) = varied_rows();
    let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
    for device in devices::all() {
        let sft = evaluate(&device, logits.clone(), &labels, columns, &objective("sft", &[])).unwrap();
        for normalizer in ["ln_k", "const_3", "none"] {
            let settings = [("gate", "power"), ("exponent", "0"), ("normalizer", normalizer)];
            let eaft = evaluate(&device, logits.clone(), &labels, columns, &objective("eaft", &settings)).unwrap();
            same_bits("loss", &[eaft.loss], &[sft.loss]).unwrap();
            same_bits("weight", &eaft.weight, &sft.weight).unwrap();
            same_bits("gradient", &eaft.gradient, &sft.gradient).unwrap();
        }
    }
}

#[test]
fn the_devices_gate_equals_the_readable_definition_for_every_objective() {
    let (logits, labels, columns) = varied_rows();
    let sequences: Vec<u32> = (0..labels.len() as u32).map(|row| row / 9).collect();
    for device in devices::all() {
        for (name, objective) in every_objective() {
            let (fields, rows) = fields(&device, &logits, &labels, head::top_k(&objective));
            // Percentiles of 15 and 50 % put the threshold on one of the rows, where a device must not round it away.
            let batch = objective.batch(&rows, &sequences, columns).unwrap();
            let reciprocal = 1.0 / 37.0;
            let got = kernels::gate::weights(&device, &fields, &objective.gate_params(&batch), reciprocal).unwrap();
            let want: Vec<f64> =
                rows.iter().map(|row| f64::from(objective.weight(row, &batch)) * f64::from(reciprocal)).collect();
            let yes_or_no = match objective {
                Objective::MaskedSft(_) | Objective::Profit(_) => true,
                Objective::Eaft(eaft) => eaft.gate == GateShape::Hard,
                _ => false,
            };
            if yes_or_no {
                let dropped = want.iter().filter(|&&w| w == 0.0).count();
                assert!(dropped > 0 && dropped < rows.len(), "{name} drops {dropped} rows");
            }
            // WGSL allows exp and pow a few units in the last place for every unit of their argument.
            let relative = if yes_or_no { 1e-7 } else { 2e-5 };
            close(&format!("{name} on {}", device.name()), &read(&got).unwrap(), &want, 1e-9, relative).unwrap();
        }
    }
}

#[test]
fn the_row_that_is_the_percentile_is_dropped_on_every_device() {
    // Each percentile in turn puts the threshold on another row.
    let (logits, labels, columns) = varied_rows();
    let sequences = vec![0; labels.len()];
    for device in devices::all() {
        let (fields, rows) = fields(&device, &logits, &labels, 20);
        for percent in (1..=100).step_by(3) {
            let percent = percent.to_string();
            for objective in [
                objective("eaft", &[("gate", "hard"), ("percentile", &percent)]),
                objective("masked_sft", &[("entropy_percentile", &percent), ("probability_percentile", "100")]),
                objective("masked_sft", &[("entropy_percentile", "100"), ("probability_percentile", &percent)]),
            ] {
                let batch = objective.batch(&rows, &sequences, columns).unwrap();
                let got = read(&kernels::gate::weights(&device, &fields, &objective.gate_params(&batch), 1.0).unwrap());
                let want: Vec<f32> = rows.iter().map(|row| objective.weight(row, &batch)).collect();
                let what = format!("{objective:?} on {}", device.name());
                same_bits(&what, &got.unwrap(), &want).unwrap();
                let least = (percent.parse::<usize>().unwrap() * rows.len()).div_ceil(100);
                assert!(want.iter().filter(|&&w| w == 0.0).count() >= least, "{what}");
            }
        }
    }
}

/// Cross entropy in f64.
fn cross_entropy(z: &[f64], label: usize) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z.iter().map(|z| (z - max).exp()).sum::<f64>().ln() + max - z[label]
}

#[test]
fn the_gradient_is_the_slope_of_the_loss_with_the_gate_held_constant() {
    let (mut random, rows, columns) = (Random::new(32), 6, 40);
    let logits = random.vec(rows * columns, 3.0);
    let labels: Vec<i64> = (0..rows).map(|_| i64::from(random.below(columns))).collect();
    for device in devices::all() {
        for (name, objective) in every_objective_of_logits() {
            let what = format!("{name} on {}", device.name());
            let got = evaluate(&device, logits.clone(), &labels, columns, &objective).unwrap();
            let (mut loss, mut slopes) = (0.0, Vec::new());
            for r in 0..rows {
                let row = &logits[r * columns..][..columns];
                let label = labels[r] as usize;
                // DEFT's exponent is detached as the other objectives' weights are.
                let stats = row_stats(row, Some(label), 20);
                let a = stats.sum_sq / (stats.sum * stats.sum);
                let weight = f64::from(got.weight[r]);
                let value = |z: &[f64]| match objective {
                    Objective::Deft(_) => (1.0 - (-a * cross_entropy(z, label)).exp()) / a,
                    _ => weight * cross_entropy(z, label),
                };
                let mut z = wide(row);
                loss += value(&z) / rows as f64;
                for column in 0..columns {
                    let (middle, step) = (z[column], 1e-4);
                    z[column] = middle + step;
                    let above = value(&z);
                    z[column] = middle - step;
                    let below = value(&z);
                    z[column] = middle;
                    slopes.push((above - below) / (2.0 * step) / rows as f64);
                }
            }
            close(&format!("{what}: loss"), &[got.loss], &[loss], 1e-7, 1e-5).unwrap();
            close(&format!("{what}: gradient"), &got.gradient, &slopes, 1e-7, 1e-5).unwrap();
        }
    }
}

// Awkward input.

#[test]
fn a_batch_without_scored_rows_has_loss_zero_and_gradient_exactly_zero_whatever_it_holds() {
    for device in devices::all() {
        for (name, objective) in every_objective_of_logits() {
            let logits = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, 1.0, 2.0];
            let got = evaluate(&device, logits, &[-100, -100], 3, &objective).unwrap();
            same_bits(&name, &[got.loss], &[0.0]).unwrap();
            same_bits(&name, &got.gradient, &[0.0; 6]).unwrap();
            same_bits(&name, &[got.ce, got.entropy, got.weight].concat(), &[0.0; 6]).unwrap();
        }
    }
    let nothing = evaluate(&Device::cpu(), Vec::new(), &[], 3, &objective("eaft", &[])).unwrap();
    assert!(nothing.loss == 0.0 && nothing.gradient.is_empty());
}

#[test]
fn ignored_rows_change_no_statistic_and_no_denominator() {
    let (mut random, columns) = (Random::new(33), 50);
    let (first, second) = (random.vec(columns, 4.0), random.vec(columns, 9.0));
    let with = [vec![f32::NAN; columns], first.clone(), vec![f32::INFINITY; columns], second.clone()].concat();
    let without = [first, second].concat();
    for device in devices::all() {
        for (name, objective) in every_objective_of_logits() {
            let a = evaluate(&device, with.clone(), &[-100, 7, -100, 49], columns, &objective).unwrap();
            let b = evaluate(&device, without.clone(), &[7, 49], columns, &objective).unwrap();
            same_bits(&name, &[a.loss], &[b.loss]).unwrap();
            let zeros = vec![0.0; columns];
            let spread = [&zeros, &b.gradient[..columns], &zeros, &b.gradient[columns..]].concat();
            same_bits(&name, &a.gradient, &spread).unwrap();
            assert_eq!(a.weight, [0.0, b.weight[0], 0.0, b.weight[1]], "{name}");
        }
    }
}

#[test]
fn a_label_outside_the_vocabulary_is_an_error_with_row_and_both_numbers() {
    for device in devices::all() {
        for label in [-1, -101, 31, 32, i64::MAX] {
            let result = evaluate(&device, vec![0.0; 93], &[-100, 30, label], 31, &objective("eaft", &[]));
            let Err(error) = result else { panic!("label {label} was accepted") };
            assert!(matches!(error, Error::Label { row: 2, label: l, vocab: 31 } if l == label), "{error}");
            let message = error.to_string();
            assert!(message.contains("row 2") && message.contains(&label.to_string()) && message.contains("31"));
        }
        let head = vocabulary(&device, &[0.0; 31 * 4], 4, &[31]);
        let hidden = matrix(&device, &[0.0; 8], [2, 4]);
        let error = wait(head::statistics(&device, &head, &hidden, &[30, 31], 20)).unwrap_err();
        assert!(matches!(error, Error::Label { row: 1, label: 31, vocab: 31 }), "{error}");
    }
}

#[test]
fn logits_of_the_wrong_length_are_an_error_with_both_sizes() {
    let result = evaluate(&Device::cpu(), vec![0.0; 7], &[0, 1], 4, &objective("sft", &[]));
    let Err(error) = result else { panic!("seven logits for two rows of four were accepted") };
    assert!(error.to_string().contains("[2, 4]") && error.to_string().contains('7'), "{error}");
}

#[test]
fn nan_and_plus_infinity_anywhere_in_a_scored_row_are_an_error_that_names_the_row_as_given() {
    let columns = 300;
    for device in devices::all() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            for at in [0, 150, 255, 256, 299] {
                let mut logits = Random::new(34).vec(4 * columns, 3.0);
                logits[3 * columns + at] = bad;
                for objective in [objective("sft", &[]), objective("eaft", &[]), objective("masked_sft", &[])] {
                    let result = evaluate(&device, logits.clone(), &[1, -100, 150, 150], columns, &objective);
                    let Err(error) = result else { panic!("{bad} at {at} was accepted on {}", device.name()) };
                    assert!(matches!(error, Error::NonFinite { row: 3, .. }), "{error}");
                    assert!(error.to_string().contains("logits") && error.to_string().contains("row 3"), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_label_whose_own_logit_is_minus_infinity_is_an_error_that_names_the_row() {
    for device in devices::all() {
        let mut logits = Random::new(35).vec(3 * 40, 3.0);
        logits[40 + 7] = f32::NEG_INFINITY;
        for (name, objective) in every_objective() {
            let result = evaluate(&device, logits.clone(), &[0, 7, 2], 40, &objective);
            assert!(matches!(result, Err(Error::NonFinite { row: 1, .. })), "{name} on {}", device.name());
        }
    }
}

#[test]
fn masked_columns_count_for_nothing_and_get_no_gradient() {
    // The same row with and without 500 columns of minus infinity.
    let mut random = Random::new(36);
    for kept in [5, 20, 100] {
        let short = random.vec(kept, 4.0);
        let mut long = vec![f32::NEG_INFINITY; kept + 500];
        (0..kept).for_each(|c| long[c * 3] = short[c]);
        for device in devices::all() {
            // With fewer than K finite logits the divisor stays ln K, so the shorter row, whose K is clamped, is not
            // comparable there: a constant divisor is.
            for settings in [&[("normalizer", "const_3")][..], &[("normalizer", "none")]] {
                let objective = objective("eaft", settings);
                let a = evaluate(&device, short.clone(), &[2], kept, &objective).unwrap();
                let b = evaluate(&device, long.clone(), &[6], kept + 500, &objective).unwrap();
                close("loss", &[b.loss], &[f64::from(a.loss)], 1e-6, 1e-5).unwrap();
                close("weight", &b.weight, &wide(&a.weight), 1e-6, 1e-5).unwrap();
                let mut want = vec![0.0; kept + 500];
                (0..kept).for_each(|c| want[c * 3] = f64::from(a.gradient[c]));
                close("gradient", &b.gradient, &want, 1e-7, 1e-5).unwrap();
                assert!((0..kept + 500).all(|c| long[c].is_finite() || b.gradient[c] == 0.0));
            }
            let by_ln_k = evaluate(&device, long.clone(), &[6], kept + 500, &objective("eaft", &[])).unwrap();
            let entropy = row_stats(&long, Some(6), 20).entropy_top_k;
            close("gate over ln 20", &by_ln_k.weight, &[entropy / 20f64.ln()], 1e-6, 1e-5).unwrap();
        }
    }
}

#[test]
fn a_vocabulary_smaller_than_k_uses_all_of_it_and_divides_by_its_logarithm() {
    let mut random = Random::new(37);
    for columns in [2, 5, 19, 20] {
        let row = random.vec(columns, 3.0);
        let stats = row_stats(&row, Some(1), 20);
        let full = stats.sum.ln() - stats.u / stats.sum;
        for device in devices::all() {
            let got = evaluate(&device, row.clone(), &[1], columns, &objective("eaft", &[])).unwrap();
            close("K >= V is the full entropy over ln V", &got.weight, &[full / (columns as f64).ln()], 1e-6, 1e-5)
                .unwrap();
        }
    }
    // One token: entropy 0 and ln 1 = 0, and yet no 0 / 0.
    for device in devices::all() {
        let got = evaluate(&device, vec![3.0], &[0], 1, &objective("eaft", &[])).unwrap();
        assert_eq!((got.loss, got.weight[0], got.gradient[0]), (0.0, 0.0, 0.0));
    }
}

#[test]
fn ties_at_the_edge_of_the_top_k_give_the_same_gate_in_any_order() {
    let mut random = Random::new(38);
    let columns = 600;
    // Ten values above, and hundreds of equal ones of which ten are chosen.
    let mut row: Vec<f32> = (0..columns).map(|c| if c < 10 { 2.0 + c as f32 * 0.1 } else { 1.0 }).collect();
    row[columns - 1] = -4.0;
    let want = row_stats(&row, Some(0), 20).entropy_top_k / 20f64.ln();
    for device in devices::all() {
        for _ in 0..4 {
            for i in (1..columns).rev() {
                row.swap(i, random.below(i + 1) as usize);
            }
            let got = evaluate(&device, row.clone(), &[3], columns, &objective("eaft", &[])).unwrap();
            close(device.name(), &got.weight, &[want], 1e-6, 1e-6).unwrap();
        }
    }
}

#[test]
fn a_uniform_row_has_gate_one_and_with_llama_factorys_divisor_at_most_0_99858() {
    for device in devices::all() {
        for columns in [20, 64, 1000, 1025] {
            for offset in [0.0, 1e4, -1e4, 1e-40] {
                let weight = |normalizer| {
                    let objective = objective("eaft", &[("normalizer", normalizer)]);
                    evaluate(&device, vec![offset; columns], &[3], columns, &objective).unwrap().weight[0]
                };
                close("ln_k", &[weight("ln_k")], &[1.0], 1e-6, 0.0).unwrap();
                close("const_3", &[weight("const_3")], &[0.998_577_4], 1e-6, 0.0).unwrap();
                close("none", &[weight("none")], &[20f64.ln()], 3e-6, 0.0).unwrap();
            }
        }
    }
}

#[test]
fn a_one_hot_row_has_gate_and_gradient_exactly_zero_and_keeps_its_weight_under_exponent_zero() {
    let columns = 257;
    let mut row = vec![-1e4; columns];
    row[200] = 1e4;
    for device in devices::all() {
        for label in [200, 3] {
            let eaft = evaluate(&device, row.clone(), &[label], columns, &objective("eaft", &[])).unwrap();
            same_bits("gate", &eaft.weight, &[0.0]).unwrap();
            assert!(eaft.gradient.iter().all(|&g| g == 0.0));
            let settings = [("gate", "power"), ("exponent", "0")];
            let plain = evaluate(&device, row.clone(), &[label], columns, &objective("eaft", &settings)).unwrap();
            assert_eq!(plain.weight, [1.0]);
        }
    }
}

#[test]
fn exponents_that_are_negative_or_not_a_number_are_refused() {
    for exponent in ["-1", "nan", "inf"] {
        let error = try_objective("eaft", &[("gate", "power"), ("exponent", exponent)]).unwrap_err().to_string();
        assert!(error.contains("exponent"), "{error}");
    }
}

#[test]
fn talr_with_certain_rows_divides_by_its_smallest_temperature_and_keeps_its_floor() {
    // All cross entropies are 0, and with them the median: tau is its floor, not 0 / 0.
    let columns = 64;
    let mut certain = vec![0.0; columns];
    certain[5] = 200.0;
    let logits = [certain.clone(), certain.clone(), certain].concat();
    for device in devices::all() {
        let got = evaluate(&device, logits.clone(), &[5, 5, 6], columns, &objective("talr", &[])).unwrap();
        let Objective::Talr(talr) = objective("talr", &[]) else { panic!() };
        assert_eq!(got.weight, [1.0, 1.0, talr.w_min as f32]);
    }
}

#[test]
fn a_selection_that_drops_every_row_has_loss_and_gradient_zero() {
    let logits = Random::new(39).vec(5 * 70, 3.0);
    for device in devices::all() {
        let objective = objective("eaft", &[("gate", "hard"), ("percentile", "100")]);
        let got = evaluate(&device, logits.clone(), &[1, 2, 3, 4, 5], 70, &objective).unwrap();
        assert!(got.loss == 0.0 && got.gradient.iter().all(|&g| g == 0.0) && got.weight == [0.0; 5]);
    }
}

// The chunked head.

/// A trained vocabulary matrix `[rows, width]` cut behind each of `ends`.
fn vocabulary(device: &Device, weight: &[f32], width: usize, ends: &[usize]) -> VocabularyMatrix {
    let starts = [0].iter().chain(ends);
    let tile = |(&start, &end): (&usize, &usize)| {
        let value = matrix(device, &weight[start * width..end * width], [end - start, width]);
        Tile { start, weight: Parameter::new("head", value, true).into() }
    };
    VocabularyMatrix::new(starts.zip(ends).map(tile).collect())
}

/// Gradient of the head's own weight over all tiles.
fn weight_gradient(head: &VocabularyMatrix) -> Vec<f32> {
    let parameters = head.tiles().iter().filter_map(|tile| tile.weight.parameter());
    parameters.flat_map(|weight| read(weight.gradient.as_ref().expect("trained")).unwrap()).collect()
}

/// What the head must make of `hidden` and `weight`, in f64: gates over the token count, `dhidden`, weight gradient.
struct ExactHead {
    weights: Vec<f64>,
    dhidden: Vec<f64>,
    dweight: Vec<f64>,
}

impl ExactHead {
    fn new(hidden: &[f32], weight: &[f32], labels: &[u32], objective: &Objective, sequences: &[u32], n: usize) -> Self {
        let width = hidden.len() / labels.len();
        let vocab = weight.len() / width;
        let logits = matmul(hidden, false, weight, true, labels.len(), vocab, width);
        let logits: Vec<f32> = logits.iter().map(|&z| z as f32).collect();
        let rows: Vec<_> = logits.chunks(vocab).zip(labels).collect();
        let stats: Vec<RowStats> =
            rows.iter().map(|(row, y)| exact_statistics(row, **y as usize, head::top_k(objective))).collect();
        let batch = objective.batch(&stats, sequences, vocab).unwrap();
        let weights: Vec<f64> = stats.iter().map(|s| f64::from(objective.weight(s, &batch)) / n as f64).collect();
        let (mut dhidden, mut dweight) = (vec![0.0; hidden.len()], vec![0.0; weight.len()]);
        for (r, (row, y)) in rows.into_iter().enumerate() {
            let gradient = oracle::loss_gradient::loss_gradient(row, Some(*y as usize), weights[r]);
            for (v, g) in gradient.into_iter().enumerate() {
                for i in 0..width {
                    dhidden[r * width + i] += g * f64::from(weight[v * width + i]);
                    dweight[v * width + i] += g * f64::from(hidden[r * width + i]);
                }
            }
        }
        Self { weights, dhidden, dweight }
    }
}

fn close_to_largest(what: &str, got: &[f32], want: &[f64], share: f64) {
    let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    close(what, got, want, share * largest, share).unwrap();
}

/// The batch statistics that a step would give to the head.
fn batch_of(
    device: &Device,
    head: &VocabularyMatrix,
    hidden: &burn::tensor::Tensor<2>,
    labels: &[u32],
    sequences: &[u32],
    objective: &Objective,
) -> BatchStats {
    if !objective.needs_batch() {
        return objective.without_batch(head.rows());
    }
    let rows = wait(head::statistics(device, head, hidden, labels, head::top_k(objective))).unwrap();
    objective.batch(&rows, sequences, head.rows()).unwrap()
}

#[test]
fn the_head_in_one_or_several_vocabulary_tiles_equals_the_definition_for_every_objective() {
    let (mut random, rows, vocab, width) = (Random::new(40), 23, 300, 16);
    let (hidden, weight) = (random.vec(rows * width, 1.5), random.vec(vocab * width, 1.5));
    let labels: Vec<u32> = (0..rows).map(|_| random.below(vocab)).collect();
    let sequences: Vec<u32> = (0..rows as u32).map(|row| row / 5).collect();
    for (name, objective) in every_objective() {
        let want = ExactHead::new(&hidden, &weight, &labels, &objective, &sequences, rows);
        for device in devices::all() {
            let x = matrix(&device, &hidden, [rows, width]);
            for ends in [&[300][..], &[1, 150, 300]] {
                let what = format!("{name}, tiles {ends:?}, on {}", device.name());
                let mut head = vocabulary(&device, &weight, width, ends);
                let batch = batch_of(&device, &head, &x, &labels, &sequences, &objective);
                let (output, dhidden) =
                    head::gradient(&device, &mut head, &x, &labels, &objective, &batch, 1.0 / rows as f32).unwrap();
                close(&format!("{what}: weights"), &wait(output.rows()).unwrap().1, &want.weights, 1e-8, 5e-5).unwrap();
                close_to_largest(&format!("{what}: dhidden"), &read(&dhidden).unwrap(), &want.dhidden, 2e-5);
                close_to_largest(&format!("{what}: weight"), &weight_gradient(&head), &want.dweight, 2e-5);
            }
        }
    }
}

#[test]
fn the_head_in_several_chunks_equals_the_definition() {
    let (mut random, rows, vocab, width) = (Random::new(41), 600, 1500, 8);
    let plan = head_plan(rows, width, vocab, HeadLimits::new(u64::MAX, u64::MAX)).unwrap();
    assert!(plan.rows_per_chunk * 2 < rows, "more rows are needed for three chunks: {plan:?}");
    let (hidden, weight) = (random.vec(rows * width, 2.0), random.vec(vocab * width, 2.0));
    let labels: Vec<u32> = (0..rows).map(|_| random.below(vocab)).collect();
    let objective = objective("eaft", &[]);
    let want = ExactHead::new(&hidden, &weight, &labels, &objective, &vec![0; rows], rows);
    for device in devices::all() {
        let x = matrix(&device, &hidden, [rows, width]);
        let mut head = vocabulary(&device, &weight, width, &[700, vocab]);
        let batch = objective.without_batch(vocab);
        let (output, dhidden) =
            head::gradient(&device, &mut head, &x, &labels, &objective, &batch, 1.0 / rows as f32).unwrap();
        assert_eq!(wait(output.rows()).unwrap().0.len(), rows);
        close(device.name(), &wait(output.rows()).unwrap().1, &want.weights, 1e-8, 5e-5).unwrap();
        close_to_largest(device.name(), &read(&dhidden).unwrap(), &want.dhidden, 2e-5);
        close_to_largest(device.name(), &weight_gradient(&head), &want.dweight, 2e-5);
        // The error of a row in the last chunk still names the row of the batch.
        let mut broken = hidden.clone();
        broken[(rows - 2) * width] = f32::NAN;
        let error =
            wait(head::statistics(&device, &head, &matrix(&device, &broken, [rows, width]), &labels, 20)).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row, .. } if row == rows - 2), "{error}");
    }
}

#[test]
fn two_micro_batches_sum_to_one_batch() {
    let (mut random, rows, vocab, width) = (Random::new(42), 20, 120, 8);
    let (hidden, weight) = (random.vec(rows * width, 2.0), random.vec(vocab * width, 1.0));
    let labels: Vec<u32> = (0..rows).map(|_| random.below(vocab)).collect();
    let sequences: Vec<u32> = (0..rows as u32).map(|row| row / 4).collect();
    for device in devices::all() {
        for (name, objective) in every_objective() {
            let what = format!("{name} on {}", device.name());
            let x = matrix(&device, &hidden, [rows, width]);
            let mut head = vocabulary(&device, &weight, width, &[50, vocab]);
            let batch = batch_of(&device, &head, &x, &labels, &sequences, &objective);
            let reciprocal = 1.0 / rows as f32;
            let (_, one) = head::gradient(&device, &mut head, &x, &labels, &objective, &batch, reciprocal).unwrap();
            let mut split = vocabulary(&device, &weight, width, &[50, vocab]);
            let mut dhidden = Vec::new();
            for (from, to) in [(0, 7), (7, rows)] {
                let x = matrix(&device, &hidden[from * width..to * width], [to - from, width]);
                let labels = &labels[from..to];
                // One over the tokens of the whole batch, not of the micro-batch: the only division there is.
                let (_, part) =
                    head::gradient(&device, &mut split, &x, labels, &objective, &batch, reciprocal).unwrap();
                dhidden.extend(read(&part).unwrap());
            }
            close_to_largest(&what, &dhidden, &wide(&read(&one).unwrap()), 1e-6);
            close_to_largest(&what, &weight_gradient(&split), &wide(&weight_gradient(&head)), 2e-6);
        }
    }
}

/// A row's part of a loss with a divergence, its weight held constant, and the gradient by finite differences.
fn slopes(row: &[f64], of: &dyn Fn(&[f64]) -> f64) -> Vec<f64> {
    let (mut z, step) = (row.to_vec(), 1e-4);
    let mut slopes = Vec::new();
    for column in 0..z.len() {
        let middle = z[column];
        z[column] = middle + step;
        let above = of(&z);
        z[column] = middle - step;
        let below = of(&z);
        z[column] = middle;
        slopes.push((above - below) / (2.0 * step));
    }
    slopes
}

#[test]
fn with_a_divergence_from_the_untouched_model_the_gradient_is_the_slope_of_the_loss() {
    // More rows than one chunk has, of which two models share the logits.
    let (mut random, rows, vocab, width) = (Random::new(44), 150, 110, 8);
    let (hidden, weight) = (random.vec(rows * width, 1.5), random.vec(vocab * width, 1.5));
    let (other_hidden, other_weight) = (random.vec(rows * width, 1.5), random.vec(vocab * width, 1.5));
    let labels: Vec<u32> = (0..rows).map(|_| random.below(vocab)).collect();
    let logits = matmul(&hidden, false, &weight, true, rows, vocab, width);
    let others = matmul(&other_hidden, false, &other_weight, true, rows, vocab, width);
    for (method, kl, beta) in [("sft_kl", "forward", 0.5), ("sft_kl", "reverse", 0.5), ("asft", "reverse", 0.1)] {
        let objective = objective(method, &[("kl", kl)]);
        let (mut want, mut kls, mut dweight) = (Vec::new(), Vec::new(), vec![0.0; vocab * width]);
        for (r, &label) in labels.iter().enumerate() {
            let (row, other) = (&logits[r * vocab..][..vocab], &others[r * vocab..][..vocab]);
            let label = label as usize;
            let p = oracle::reference::log_softmax(row)[label].exp();
            let gate = if method == "asft" { p } else { 1.0 };
            let loss = |z: &[f64]| oracle::reference::loss(z, other, label, gate, beta, kl == "reverse");
            let slopes = slopes(row, &loss);
            let exact = oracle::reference::gradient(row, other, label, gate, beta, kl == "reverse");
            assert!(slopes.iter().zip(&exact).all(|(a, b)| (a - b).abs() <= 1e-6), "the oracle's own gradient");
            for i in 0..width {
                want.push((0..vocab).map(|v| slopes[v] * f64::from(weight[v * width + i]) / rows as f64).sum());
                for v in 0..vocab {
                    dweight[v * width + i] += slopes[v] * f64::from(hidden[r * width + i]) / rows as f64;
                }
            }
            kls.push(oracle::reference::divergence(row, other, kl == "reverse"));
        }
        for device in devices::all() {
            for ends in [&[110][..], &[1, 50, 110]] {
                let what = format!("{method}, {kl}, tiles {ends:?}, on {}", device.name());
                let mut head = vocabulary(&device, &weight, width, ends);
                let untouched = vocabulary(&device, &other_weight, width, ends);
                let (x, y) = (matrix(&device, &hidden, [rows, width]), matrix(&device, &other_hidden, [rows, width]));
                let known = Known { weights: None, untouched: Some((&untouched, &y)) };
                let (batch, reciprocal) = (objective.without_batch(vocab), 1.0 / rows as f32);
                let (output, dhidden) =
                    head::gradient_of_known(&device, &mut head, &x, &labels, &objective, &batch, known, reciprocal)
                        .unwrap();
                close_to_largest(&what, &read(&dhidden).unwrap(), &want, 2e-5);
                close_to_largest(&what, &weight_gradient(&head), &dweight, 2e-5);
                let read = output.on_device().iter().map(|part| read(part).unwrap()).collect::<Vec<_>>();
                close(&what, &output.rows_of(&read).unwrap().divergences, &kls, 1e-6, 1e-5).unwrap();
                wait(output.check(&device)).unwrap();
            }
        }
    }
}

#[test]
fn losses_that_ask_the_untouched_model_and_their_gradients_equal_pytorch() {
    let golden = Tensors::read("divergence.safetensors");
    let labels: Vec<u32> = golden.ints("labels").iter().map(|label| *label as u32).collect();
    let ([rows, width], [vocab, _]) = (golden.shape("hidden"), golden.shape("weight")) else { panic!("two matrices") };
    let (rows, width, vocab) = (*rows, *width, *vocab);
    let weights = flow::weights(&golden.floats("flow.losses").iter().map(|loss| Some(*loss)).collect::<Vec<_>>());
    close("weights of samples", &weights, golden.floats("flow.weights"), 1e-9, 1e-6).unwrap();
    let weights: Vec<f32> = golden.ints("samples").iter().map(|sample| weights[*sample as usize]).collect();
    for (name, method, kl) in [
        ("sft_kl.forward", "sft_kl", "forward"),
        ("sft_kl.reverse", "sft_kl", "reverse"),
        ("asft.forward", "asft", "forward"),
        ("asft.reverse", "asft", "reverse"),
        ("flow", "flow", ""),
    ] {
        let set = [("kl", kl)];
        let objective = objective(method, if kl.is_empty() { &[] } else { &set });
        for device in devices::all() {
            let what = format!("{name} on {}", device.name());
            let mut head = vocabulary(&device, &golden.f32s("weight"), width, &[1, 40, vocab]);
            let untouched = vocabulary(&device, &golden.f32s("untouched.weight"), width, &[1, 40, vocab]);
            let x = matrix(&device, &golden.f32s("hidden"), [rows, width]);
            let y = matrix(&device, &golden.f32s("untouched.hidden"), [rows, width]);
            let known = match method {
                "flow" => Known { weights: Some(&weights), untouched: None },
                _ => Known { weights: None, untouched: Some((&untouched, &y)) },
            };
            let (batch, reciprocal) = (objective.without_batch(vocab), 1.0 / rows as f32);
            let (output, dhidden) =
                head::gradient_of_known(&device, &mut head, &x, &labels, &objective, &batch, known, reciprocal)
                    .unwrap();
            close_to_largest(&what, &read(&dhidden).unwrap(), golden.floats(&format!("{name}.dhidden")), 1e-5);
            close_to_largest(&what, &weight_gradient(&head), golden.floats(&format!("{name}.dweight")), 1e-5);
            let read = output.on_device().iter().map(|part| read(part).unwrap()).collect::<Vec<_>>();
            let found = output.rows_of(&read).unwrap();
            if method != "flow" {
                let want = golden.floats(&format!("{name}.divergence"));
                close(&what, &found.divergences, want, 1e-6, 1e-5).unwrap();
            }
        }
    }
}

#[test]
fn a_token_that_the_untouched_model_is_sure_of_and_the_model_excludes_costs_a_divergence_that_is_large_and_finite() {
    let (weight, labels) = ([0.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0, 0]);
    let objective = objective("sft_kl", &[]);
    for device in devices::all() {
        let mut head = vocabulary(&device, &weight, 2, &[3]);
        let untouched = vocabulary(&device, &weight, 2, &[3]);
        let (x, y) = ([0.0, 0.0, 0.0, -1e38], [0.0, 0.0, 0.0, 1e38]);
        let (x, y) = (matrix(&device, &x, [2, 2]), matrix(&device, &y, [2, 2]));
        let known = Known { weights: None, untouched: Some((&untouched, &y)) };
        let batch = objective.without_batch(3);
        let of = head::gradient_of_known(&device, &mut head, &x, &labels, &objective, &batch, known, 0.5);
        let (output, dhidden) = of.unwrap();
        let parts = output.on_device().iter().map(|part| read(part).unwrap()).collect::<Vec<_>>();
        let kls = output.rows_of(&parts).unwrap().divergences;
        assert!(kls[0].abs() < 1e-6 && (kls[1] / 1e38 - 1.0).abs() < 1e-5, "{kls:?} on {}", device.name());
        assert!(read(&dhidden).unwrap().iter().all(|g| g.is_finite()), "{}", device.name());
        wait(output.check(&device)).unwrap();
    }
}

#[test]
fn as_many_labels_as_rows_are_demanded_with_both_numbers() {
    let device = Device::cpu();
    let head = vocabulary(&device, &[0.0; 12], 4, &[3]);
    let error = wait(head::statistics(&device, &head, &matrix(&device, &[0.0; 8], [2, 4]), &[1], 20)).unwrap_err();
    assert!(error.to_string().contains("[2]") && error.to_string().contains("[1]"), "{error}");
}

#[test]
fn a_row_of_weight_0_and_an_infinite_label_logit_or_loss_is_found_without_reading_the_rows() {
    // DFT weighs a label of probability 0 with 0: neither the gradient nor its norm shows that its loss is not finite.
    let (rows, vocab, width) = (3, 8, 4);
    let mut random = Random::new(43);
    let (mut hidden, mut weight) = (random.vec(rows * width, 1.0), random.vec(vocab * width, 1.0));
    [&mut hidden, &mut weight].into_iter().flat_map(|x| x.chunks_exact_mut(width)).for_each(|row| row[0] = 0.0);
    let labels = [2, 5, 3];
    let objective = objective("dft", &[]);
    for device in devices::all() {
        let head = |hidden: &[f32], weight: &[f32]| {
            let mut head = vocabulary(&device, weight, width, &[5, vocab]);
            let x = matrix(&device, hidden, [rows, width]);
            let batch = objective.without_batch(vocab);
            head::gradient(&device, &mut head, &x, &labels, &objective, &batch, 1.0 / rows as f32).unwrap()
        };
        wait(head(&hidden, &weight).0.check(&device)).unwrap();
        // The label's logit is minus infinity; it and another are finite, but not their difference, which is the loss.
        for (of_row, of_label, of_other) in [(1e20, -1e30, 0.0), (1.0, -2e38, 2e38)] {
            (hidden[width], weight[5 * width], weight[width]) = (of_row, of_label, of_other);
            let (output, dhidden) = head(&hidden, &weight);
            assert!(read(&dhidden).unwrap().iter().all(|g| g.is_finite()), "on {}", device.name());
            for error in [wait(output.check(&device)), wait(output.rows()).map(|_| ())] {
                let error = error.unwrap_err();
                assert!(matches!(error, Error::NonFinite { row: 1, .. }), "{error} on {}", device.name());
            }
        }
        // Large, but no larger than that their differences are numbers.
        (hidden[width], weight[5 * width], weight[width]) = (1.0, -1e37, 1e37);
        wait(head(&hidden, &weight).0.check(&device)).unwrap();
        (hidden[width], weight[5 * width], weight[width]) = (0.0, 0.0, 0.0);
    }
}
