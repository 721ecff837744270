//! What a graphics driver tells of its memory.

/// Bytes that a GPU's driver would still give to this process. `None` where it does not tell, and where a processor plays the
/// GPU: its memory is the host's, whatever it says (Mesa's has a heap of 2 GiB, and gives more).
///
/// Vulkan: of the largest heap on the device, the budget of `VK_EXT_memory_budget` less what this process has of it, or the
/// heap's size without that extension. Metal: `recommendedMaxWorkingSetSize` less what is allocated. DX12: the adapter's
/// dedicated video memory.
pub fn free_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        return None;
    }
    told(adapter)
}

fn told(adapter: &wgpu::Adapter) -> Option<u64> {
    #[cfg(any(target_os = "linux", windows))]
    if let Some(bytes) = vulkan(adapter) {
        return Some(bytes);
    }
    #[cfg(windows)]
    if let Some(bytes) = dx12(adapter) {
        return Some(bytes);
    }
    #[cfg(target_os = "macos")]
    if let Some(bytes) = metal(adapter) {
        return Some(bytes);
    }
    let _ = adapter;
    None
}

#[cfg(any(target_os = "linux", windows))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    use ash::vk;

    // SAFETY: the physical device is only asked, while `adapter` keeps it and its instance alive.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance();
    if instance.instance_api_version() < vk::API_VERSION_1_1 {
        return None;
    }
    let (instance, device) = (instance.raw_instance(), adapter.raw_physical_device());
    // SAFETY: as above.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.ok()?;
    let tells = extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(vk::EXT_MEMORY_BUDGET_NAME));
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut asked = vk::PhysicalDeviceMemoryProperties2::default();
    if tells {
        asked = asked.push_next(&mut budget);
    }
    // SAFETY: as above; the function is one of Vulkan 1.1, and the device has the extension of what is chained.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut asked) };
    let heaps = asked.memory_properties;
    let local = |(_, heap): &(usize, &vk::MemoryHeap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let heaps = heaps.memory_heaps[..heaps.memory_heap_count as usize].iter().enumerate().filter(local);
    let free = |(index, heap): (usize, &vk::MemoryHeap)| match tells {
        true => budget.heap_budget[index].saturating_sub(budget.heap_usage[index]),
        false => heap.size,
    };
    heaps.map(free).max().filter(|bytes| *bytes > 0)
}

#[cfg(windows)]
fn dx12(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the DXGI adapter is only asked, while `adapter` keeps it alive.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // SAFETY: as above.
    let described = unsafe { adapter.raw_adapter().GetDesc2() }.ok()?;
    // Nothing of its own where it shares the host's memory.
    Some(described.DedicatedVideoMemory as u64).filter(|bytes| *bytes > 0)
}

#[cfg(target_os = "macos")]
fn metal(adapter: &wgpu::Adapter) -> Option<u64> {
    use objc2_metal::MTLDevice;

    // SAFETY: the Metal device is only asked, while `adapter` keeps it alive.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = adapter.raw_device();
    let free = device.recommendedMaxWorkingSetSize().saturating_sub(device.currentAllocatedSize() as u64);
    Some(free).filter(|bytes| *bytes > 0)
}

#[cfg(all(test, any(target_os = "linux", windows)))]
mod tests {
    use super::*;

    #[test]
    fn a_vulkan_driver_tells_of_its_largest_heap_and_software_has_none_of_its_own() {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let found = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::VULKAN));
        for adapter in found {
            let bytes = told(&adapter).expect("Vulkan tells");
            assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
            let software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
            assert_eq!(free_bytes(&adapter).is_none(), software);
        }
    }
}
