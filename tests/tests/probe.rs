//! The self-test that the page runs before it trusts a device. `TEMPER_BLESS=1 cargo test -p temper-conformance --test probe`
//! writes its stored answers anew, from the CPU kernels that the other tests hold against f64 oracles.

use std::collections::BTreeSet;

use temper_conformance::{devices, golden};
use temper_engine::inside::probe;
use temper_engine::{Device, wait};

/// What burn computes, and no shader of ours has the name of.
const OF_BURN: [&str; 1] = ["gather_rows"];

/// The file of what only cooperative kernels read, which no browser has; those have a self-test of their own.
const FOR_THOSE: &str = "half_rows";

#[test]
fn every_device_passes_the_self_test() {
    let path = golden::repository("engine/src/probe.safetensors");
    if std::env::var_os("TEMPER_BLESS").is_some() {
        std::fs::write(path, wait(probe::answers(&Device::cpu())).unwrap()).unwrap();
        return;
    }
    let answers = std::fs::read(path).unwrap();
    for device in devices::all() {
        let report = wait(probe::run(&device, &answers)).unwrap();
        let failed: Vec<_> = report.checks.iter().filter(|check| !check.passed).collect();
        assert!(report.passed && failed.is_empty(), "{}: {failed:#?}", device.name());
    }
}

#[test]
fn the_self_test_covers_every_shader() {
    let probed: BTreeSet<&str> = probe::kernels().collect();
    let everywhere =
        temper_shaders::KERNELS.iter().filter(|kernel| !kernel.is_cooperative() && kernel.file != FOR_THOSE);
    let shaders: BTreeSet<&str> = everywhere.map(|kernel| kernel.stem).collect();
    let missing: Vec<_> = shaders.difference(&probed).copied().collect();
    assert!(missing.is_empty(), "shaders without a case: {missing:?}");
    let extra: Vec<_> = probed.difference(&shaders).copied().collect();
    assert_eq!(extra, OF_BURN, "cases without a shader");
}

#[test]
fn a_wrong_a_missing_and_a_nan_answer_fail_the_self_test() {
    let want = [1.0, -2.0, 0.5];
    assert!(probe::compare(&want, &want).1.is_empty());
    assert!(probe::compare(&[1.0001, -2.0, 0.5], &want).1.is_empty(), "rounding passes");
    for wrong in [[1.01, -2.0, 0.5], [f32::NAN, -2.0, 0.5], [1.0, f32::INFINITY, 0.5], [0.0, 0.0, 0.0]] {
        let (_, message) = probe::compare(&wrong, &want);
        assert!(!message.is_empty(), "{wrong:?} passed");
    }
    assert!(!probe::compare(&want[..2], &want).1.is_empty());
}
