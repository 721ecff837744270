//! The devices that conformance tests run on.

use burn::tensor::Tensor;
use temper_engine::inside::kernels::tensor;
use temper_engine::{Device, Result, wait};

/// The CPU backend, and a Vulkan, Metal or DX12 device: hardware if there is one, else the software driver, once with its
/// own kernels and once with those of hardware.
///
/// # Panics
/// Where no wgpu adapter exists at all: the WGSL path must never go untested in silence. `cargo xtask test` installs the
/// software driver.
pub fn all() -> Vec<Device> {
    vec![Device::cpu(), gpu().treated_as_software(true), gpu().treated_as_software(false)]
}

/// The wgpu device of [`all`].
///
/// # Panics
/// As [`all`].
pub fn gpu() -> Device {
    let adapters = temper_engine::adapters();
    let first = adapters.first().expect("no Vulkan, Metal or DX12 adapter: run `cargo xtask test`, which installs one");
    Device::choose(Some(&first.id)).expect("the first adapter opens").0
}

/// Host copy of a tensor's values.
///
/// # Errors
/// Device errors.
pub fn read<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    wait(tensor::read(tensor))
}
