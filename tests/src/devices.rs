//! The devices that conformance tests run on.

use burn::tensor::Tensor;
use temper_engine::host::Clock;
use temper_engine::inside::kernels::tensor;
use temper_engine::products::Multiplier;
use temper_engine::{Device, Result, wait};

use crate::skip::skip;

/// The CPU backend, and a Vulkan, Metal or DX12 device: hardware if there is one, else the software driver, once with its
/// own kernels and once with those of hardware.
///
/// # Panics
/// Where no wgpu adapter exists at all: the WGSL path must never go untested in silence. `cargo xtask test` installs the
/// software driver.
pub fn all() -> Vec<Device> {
    vec![Device::cpu(), gpu().treated_as_software(true), gpu().treated_as_software(false)]
}

/// Every way to multiply in single precision: the CPU's, and each kernel of ours on the wgpu device. For those on tensor
/// cores there is [`with_matrices`].
pub fn multipliers() -> Vec<(Device, Option<Multiplier>)> {
    let gpu = gpu();
    let there = |multiplier: &Multiplier| multiplier.segments() == 0;
    let on_gpu = Multiplier::ALL.into_iter().filter(there).map(|multiplier| (gpu.clone(), Some(multiplier)));
    [(Device::cpu(), None)].into_iter().chain(on_gpu).collect()
}

/// The wgpu device of [`all`], where it has cooperative matrices; else `test` is left out.
pub fn with_matrices<T: Fn()>(test: T) -> Option<Device> {
    let gpu = gpu();
    if !gpu.has_cooperative_matrices() {
        let reason = format!("{} has no cooperative matrices (`cargo xtask cooperative` makes a driver)", gpu.name());
        skip(test, "cooperative", &reason);
        return None;
    }
    Some(gpu)
}

/// A clock for software adapters, of which nothing is timed.
pub struct NoClock;

impl Clock for NoClock {
    fn seconds(&self) -> f64 {
        panic!("a software adapter was timed")
    }
}

/// The wgpu device of [`all`].
///
/// # Panics
/// As [`all`].
pub fn gpu() -> Device {
    let adapters = temper_engine::adapters();
    let first = adapters.first().expect("no Vulkan, Metal or DX12 adapter: run `cargo xtask test`, which installs one");
    Device::choose(Some(&first.id), &NoClock).expect("the first adapter opens").0
}

/// Host copy of a tensor's values.
///
/// # Errors
/// Device errors.
pub fn read<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    wait(tensor::read(tensor))
}
