//! Devices that allow little: wgpu itself refuses what outgrows a binding or a buffer, and results stay the same.

use burn::tensor::{Tensor, TensorData};
use temper_conformance::devices::{self, read};
use temper_engine::inside::device::Limits;
use temper_engine::inside::kernels::matmul::{AsOperand, Product};
use temper_engine::{Device, adapters};

const MIB: u64 = 1 << 20;

/// A further device on the adapter of the tests.
fn logical(limits: Limits) -> Device {
    let id = &adapters().first().expect("an adapter: run `cargo xtask test`, which installs one").id.clone();
    Device::logical(id, limits).expect("a logical device")
}

fn product(device: &Device) -> Vec<f32> {
    let numbers = |count: usize| (0..count).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<_>>();
    let tensor =
        |shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(numbers(shape[0] * shape[1]), shape), device.burn());
    let (a, b) = (tensor([17, 40]), tensor([23, 40]));
    read(&Product::of(&a, b.transposed()).run(device).expect("a product")).expect("its values")
}

#[test]
fn several_logical_devices_on_one_adapter_compute_side_by_side() {
    let (one, other) = (logical(Limits::default()), logical(Limits::of(2 * MIB)));
    assert!(other.max_binding_bytes() == 2 * MIB && one.max_binding_bytes() > 2 * MIB);
    let expected = product(&Device::cpu());
    for device in [&one, &other, &one, &devices::gpu()] {
        assert_eq!(product(device), expected, "{}", device.name());
    }
}
