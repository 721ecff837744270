//! The devices that conformance tests run on.

use temper_engine::Device;

/// The CPU backend, and a Vulkan, Metal or DX12 device: hardware if there is one, else the software driver.
///
/// # Panics
/// Where no wgpu adapter exists at all: the WGSL path must never go untested in silence. `cargo xtask test` installs the
/// software driver.
pub fn all() -> Vec<Device> {
    vec![Device::cpu(), gpu()]
}

/// The wgpu device of [`all`].
///
/// # Panics
/// As [`all`].
pub fn gpu() -> Device {
    let adapters = temper_engine::device::adapters();
    let first = adapters.first().expect("no Vulkan, Metal or DX12 adapter: run `cargo xtask test`, which installs one");
    Device::choose(Some(&first.id)).expect("the first adapter opens").0
}
