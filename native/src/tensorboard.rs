//! TensorBoard's event files, beside `metrics.jsonl`: the same numbers for those who look there.
//!
//! ```text
//! file    = record*
//! record  = length: u64, masked CRC-32C of it: u32, event, masked CRC-32C of that: u32      (little-endian)
//! event   = protobuf { 1: wall_time double, 2: step int64, 3: file_version string | 5: summary }
//! summary = protobuf { 1: value { 1: tag string, 2: simple_value float } }*
//! ```
//!
//! Source: TensorFlow's `lib/io/record_writer`, `util/event.proto` and `framework/summary.proto`. A file is only written: what it
//! holds comes from the metrics, and a run that is resumed writes it anew from those that are kept.

use temper_engine::Evaluation;
use temper_engine::events::{Evaluated, StepMetrics};

/// Name of the file; TensorBoard looks for `tfevents`, and takes the folder's name for the run's.
pub const EVENTS: &str = "events.out.tfevents.temper";

/// What begins a file, at this moment in seconds since 1970.
pub fn head(wall_time: f64) -> Vec<u8> {
    let mut event = time(wall_time);
    bytes(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// A logged step of a run that began at this moment.
pub fn step(begin: f64, metrics: &StepMetrics) -> Vec<u8> {
    let m = metrics;
    let scalars = [
        ("train/loss", Some(m.loss)),
        ("train/cross_entropy", Some(m.cross_entropy)),
        ("train/gate_mean", Some(m.gate_mean)),
        ("train/gate_below_0_1", Some(m.gate_below_0_1)),
        ("train/conflict_share", Some(m.conflict_share)),
        ("train/conflict_share_quantile", Some(m.conflict_share_quantile)),
        ("train/sure_cross_entropy", m.sure_cross_entropy),
        ("train/open_cross_entropy", m.open_cross_entropy),
        ("train/learning_rate", Some(m.learning_rate)),
        ("train/gradient_norm", Some(m.gradient_norm)),
        ("train/tokens_per_second", Some(m.tokens_per_second)),
        ("train/peak_device_bytes", Some(m.peak_device_bytes as f64)),
    ];
    scalars_at(begin + m.seconds, m.step, &scalars)
}

/// An evaluation at this moment; nothing where nothing was measured.
pub fn evaluated(wall_time: f64, at: &Evaluated) -> Vec<u8> {
    let loss = |set: Option<Evaluation>| set.map(|set| set.loss);
    let scalars = [
        ("eval/target_loss", loss(at.target)),
        ("eval/general_loss", loss(at.general)),
        ("eval/wrong_loss", loss(at.wrong)),
    ];
    scalars_at(wall_time, at.step, &scalars)
}

fn scalars_at(wall_time: f64, step: u64, scalars: &[(&str, Option<f64>)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        if let Some(value) = value {
            let mut one = Vec::new();
            bytes(&mut one, 1, tag.as_bytes());
            key(&mut one, 2, 5);
            one.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &one);
        }
    }
    if summary.is_empty() {
        return Vec::new();
    }
    let mut event = time(wall_time);
    key(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    record(&event)
}

fn time(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    key(&mut event, 1, 1);
    event.extend(wall_time.to_le_bytes());
    event
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), event, &masked(event)].concat()
}

/// A checksum that stays different from its own data's where files hold checksums.
fn masked(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A field's number and kind: 0 varint, 1 of 64 bits, 2 bytes, 5 of 32 bits.
fn key(out: &mut Vec<u8>, field: u8, kind: u8) {
    out.push(field << 3 | kind);
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    key(out, field, 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use temper_engine::events::Phase;

    use super::*;

    /// Of the same numbers as `tests/golden/tensorboard/read.py` prints with TensorBoard's own reader.
    #[test]
    fn the_file_is_the_one_that_tensorboard_read() {
        let metrics = |step: u64| StepMetrics {
            step,
            tokens: 1000,
            loss: 2.5 / step as f64,
            cross_entropy: 3.0 / step as f64,
            gate_mean: 0.625,
            gate_below_0_1: 0.125,
            conflict_share: 0.01,
            conflict_share_quantile: 0.02,
            sure_cross_entropy: Some(0.25),
            open_cross_entropy: (step > 1).then_some(4.0),
            learning_rate: 1e-4,
            gradient_norm: if step == 300 { f64::INFINITY } else { 1.5 },
            tokens_per_second: 1234.0,
            peak_device_bytes: 5_000_000_000,
            seconds: step as f64,
        };
        let set = |loss: f64| Some(Evaluation { loss, perplexity: loss.exp(), tokens: 10 });
        let at = |phase, step, target, wrong| Evaluated { phase, step, target, general: set(3.5), wrong };
        let begin = 1.7e9;
        let file = [
            head(begin),
            evaluated(begin, &at(Phase::Before, 0, set(4.0), None)),
            step(begin, &metrics(1)),
            step(begin, &metrics(300)),
            evaluated(begin + 300.0, &at(Phase::After, 300, set(2.0), set(6.0))),
            evaluated(
                begin + 300.0,
                &Evaluated { phase: Phase::After, step: 300, target: None, general: None, wrong: None },
            ),
        ]
        .concat();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/tensorboard/", "events.out.tfevents.temper");
        if std::env::var_os("TEMPER_BLESS").is_some() {
            std::fs::write(golden, &file).unwrap();
        }
        assert!(std::fs::read(golden).unwrap() == file, "bless it, and run read.py beside it");
    }
}
