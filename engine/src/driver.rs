//! What a graphics driver tells of its memory.

/// What a driver tells of its memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// Bytes that it would still give to this process.
    pub free: u64,
    /// Bytes of the host's that an integrated GPU shares and no buffer is put into, where these are more than what it has of
    /// its own.
    pub beside: Option<u64>,
}

/// What a GPU's driver would still give to this process. `None` where it does not tell, and where a processor plays the
/// GPU: its memory is the host's, whatever it says (Mesa's has a heap of 2 GiB, and gives more).
///
/// Vulkan: of the heap that wgpu takes buffers from, the budget of `VK_EXT_memory_budget` less what this process has of it,
/// or the heap's size without that extension. Metal: `recommendedMaxWorkingSetSize` less what is allocated. DX12: what the
/// system lets this process have of the adapter's local memory, which is the host's where it shares that, less what it has
/// of it.
pub fn told(adapter: &wgpu::Adapter) -> Option<Told> {
    let kind = adapter.get_info().device_type;
    if kind == wgpu::DeviceType::Cpu {
        return None;
    }
    let told = any_told(adapter)?;
    Some(Told { beside: told.beside.filter(|_| kind == wgpu::DeviceType::IntegratedGpu), ..told })
}

fn any_told(adapter: &wgpu::Adapter) -> Option<Told> {
    #[cfg(any(target_os = "linux", windows))]
    if let Some(told) = vulkan(adapter) {
        return Some(told);
    }
    #[cfg(windows)]
    if let Some(free) = dx12(adapter) {
        return Some(Told { free, beside: None });
    }
    #[cfg(target_os = "macos")]
    if let Some(free) = metal(adapter) {
        return Some(Told { free, beside: None });
    }
    let _ = adapter;
    None
}

#[cfg(any(target_os = "linux", windows))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<Told> {
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
    let memory = asked.memory_properties;
    let heap = counted(memory.memory_types_as_slice())?;
    let heaps = memory.memory_heaps_as_slice();
    let free = match tells {
        true => budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]),
        false => heaps[heap].size,
    };
    Some(Told { free, beside: beside(heaps, heap) }).filter(|told| told.free > 0)
}

/// The heap that wgpu takes a GPU's buffers from: that of the first kind of memory on the device. It never turns to another
/// one, so what an integrated GPU shares with the host does not count where it has memory of its own besides.
#[cfg(any(target_os = "linux", windows))]
fn counted(kinds: &[ash::vk::MemoryType]) -> Option<usize> {
    let local = |kind: &&ash::vk::MemoryType| kind.property_flags.contains(ash::vk::MemoryPropertyFlags::DEVICE_LOCAL);
    kinds.iter().find(local).map(|kind| kind.heap_index as usize)
}

/// Bytes of the largest other heap, where it is larger than the one that counts.
#[cfg(any(target_os = "linux", windows))]
fn beside(heaps: &[ash::vk::MemoryHeap], counted: usize) -> Option<u64> {
    let others = heaps.iter().enumerate().filter(|(index, _)| *index != counted);
    others.map(|(_, heap)| heap.size).max().filter(|size| *size > heaps[counted].size)
}

#[cfg(windows)]
fn dx12(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the DXGI adapter is only asked, while `adapter` keeps it alive.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // The default is the local group.
    let local = adapter.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    Some(local.Budget.saturating_sub(local.CurrentUsage)).filter(|bytes| *bytes > 0)
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

    use ash::vk::{MemoryHeap, MemoryHeapFlags, MemoryPropertyFlags, MemoryType};

    #[test]
    fn a_vulkan_driver_tells_of_the_heap_of_buffers_and_software_has_none_of_its_own() {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let found = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::VULKAN));
        for adapter in found {
            let bytes = any_told(&adapter).expect("Vulkan tells").free;
            assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
            let software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
            assert_eq!(told(&adapter).is_none(), software);
        }
    }

    #[test]
    fn of_a_small_heap_of_its_own_and_a_large_shared_one_the_own_one_counts_and_the_other_is_told() {
        let (local, visible) = (MemoryPropertyFlags::DEVICE_LOCAL, MemoryPropertyFlags::HOST_VISIBLE);
        let kind = |property_flags, heap_index| MemoryType { property_flags, heap_index };
        let heap = |mib: u64| MemoryHeap { size: mib << 20, flags: MemoryHeapFlags::empty() };
        // An integrated GPU: the host's memory is the first heap.
        let kinds = [kind(visible, 0), kind(local, 1), kind(local | visible, 2)];
        let heaps = [heap(16_000), heap(512), heap(256)];
        assert_eq!(counted(&kinds), Some(1));
        assert_eq!(beside(&heaps, 1), Some(16_000 << 20));
        // A card with a window into its memory, and one that shares everything.
        assert_eq!(beside(&[heap(24_000), heap(256), heap(16_000)], 0), None);
        assert_eq!(counted(&[kind(local | visible, 0)]), Some(0));
        assert_eq!(beside(&[heap(8_000)], 0), None);
        assert_eq!(counted(&[kind(visible, 0)]), None);
    }
}
