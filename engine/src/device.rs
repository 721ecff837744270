//! The devices that there are, and what each allows; `crate::choosing` says which one is taken.

#[cfg(not(target_family = "wasm"))]
use std::collections::BTreeMap;
#[cfg(not(target_family = "wasm"))]
use std::sync::{Arc, Mutex, OnceLock};

use burn::tensor::Device as BurnDevice;
#[cfg(not(target_family = "wasm"))]
use burn::tensor::{
    DeviceKind,
    wgpu::{MemoryConfiguration, WgpuBackend, WgpuSetup},
};

#[cfg(not(target_family = "wasm"))]
use crate::digest::Digest;
use crate::error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
use crate::host::Shelf;
#[cfg(not(target_family = "wasm"))]
use crate::kernels::kept::{self, Kept};
use crate::kernels::launch::Gpu;
use crate::kernels::multiplier::{Choice, Class, Compute, Products};
use crate::kernels::profile::KernelTime;

/// A device on which tensors live and kernels run. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    /// burn's name of the device.
    pub(crate) burn: BurnDevice,
    gpu: Option<Gpu>,
    products: Products,
    name: String,
}

/// What a wgpu adapter is and allows, as `temper devices` lists it.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterReport {
    /// The name to give to `--device`: backend and index within it, such as `vulkan:0`.
    pub id: String,
    /// The adapter's own name.
    pub name: String,
    /// Graphics API.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: String,
    /// Driver name and version.
    pub driver: String,
    /// Bytes that one storage binding may hold.
    pub max_binding_bytes: u64,
    /// Bytes that one buffer may hold.
    pub max_buffer_bytes: u64,
    /// Bytes that its driver would still give to this process; `None` where it does not tell.
    pub free_bytes: Option<u64>,
    /// Bytes of the host's that an integrated GPU shares and that are not in `free_bytes`, since no buffer is put into them,
    /// where these are more than what it has of its own.
    pub uncounted_bytes: Option<u64>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether WGSL's `f16` is available.
    pub f16: bool,
    /// Of its driver and this engine ([`kept::version`]).
    #[serde(skip)]
    pub(crate) version: Digest,
    #[serde(skip)]
    card: Card,
    #[serde(skip)]
    selector: (DeviceKind, WgpuBackend),
    /// Where the graphics API lists it.
    #[serde(skip)]
    place: (wgpu::Backends, usize),
}

/// What a driver says of the card itself.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    /// Its maker's number and its own; zeros where the graphics API has none (Metal).
    pub make: (u32, u32),
    /// Where it is plugged in; empty where nobody says.
    pub bus: String,
}

/// Adapters that were opened, with their ids: burn refuses a second initialisation of one, so they are kept for the process's life.
#[cfg(not(target_family = "wasm"))]
static OPENED: Mutex<Vec<(String, Device)>> = Mutex::new(Vec::new());

/// See [`keep_on`].
#[cfg(not(target_family = "wasm"))]
static SHELF: OnceLock<Arc<dyn Shelf>> = OnceLock::new();

/// Lets every device that this process opens from now on begin with what earlier ones left on a shelf. The first one stays.
#[cfg(not(target_family = "wasm"))]
pub fn keep_on(shelf: Arc<dyn Shelf>) {
    let _ = SHELF.set(shelf);
}

/// That shelf; without one, what is left in memory for as long as the process.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn shelf() -> &'static dyn Shelf {
    static IN_MEMORY: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    match SHELF.get() {
        Some(shelf) => &**shelf,
        None => &IN_MEMORY,
    }
}

/// Leaves on the shelf what was compiled for the devices that were opened.
#[cfg(not(target_family = "wasm"))]
pub fn leave_compiled() {
    let opened = OPENED.lock().unwrap_or_else(|e| e.into_inner());
    opened.iter().filter_map(|(_, device)| device.kept()).for_each(Kept::leave);
}

/// What a logical device may use of its adapter; everything the adapter has where a field is `None`.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes of one storage binding.
    pub binding_bytes: Option<u64>,
    /// Bytes of one buffer.
    pub buffer_bytes: Option<u64>,
}

#[cfg(not(target_family = "wasm"))]
impl Limits {
    /// The same bytes for bindings and buffers.
    pub fn of(bytes: u64) -> Self {
        Self { binding_bytes: Some(bytes), buffer_bytes: Some(bytes) }
    }
}

#[cfg(not(target_family = "wasm"))]
impl AdapterReport {
    /// True where no processor plays it.
    pub(crate) fn is_hardware(&self) -> bool {
        self.kind != "software"
    }

    /// Its place in the order in which adapters would be chosen: the lower, the sooner.
    pub(crate) fn rank(&self) -> u8 {
        match self.kind.as_str() {
            "discrete" => 0,
            "integrated" => 1,
            "virtual" | "other" => 2,
            _ => 3,
        }
    }

    /// Whether another adapter is the same card by another driver. One graphics API tells cards of one make apart by where
    /// they are plugged in, else a driver lists each once; another one lists the same cards again.
    pub(crate) fn is_same_card(&self, other: &Self) -> bool {
        let alike = match (self.card.make, other.card.make) {
            ((0, 0), _) | (_, (0, 0)) => self.name == other.name,
            (make, of_other) => make == of_other,
        };
        let apart = match (self.card.bus.as_str(), other.card.bus.as_str()) {
            ("", _) | (_, "") => self.driver == other.driver,
            (bus, of_other) => bus != of_other,
        };
        alike && (self.backend != other.backend || !apart)
    }

    /// One that is not there: for tests.
    #[cfg(test)]
    pub(crate) fn made_up(id: &str, kind: &str, name: &str, driver: &str, card: Card) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            backend: id.split(':').next().unwrap_or_default().into(),
            kind: kind.into(),
            driver: driver.into(),
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            free_bytes: None,
            uncounted_bytes: None,
            workgroup_bytes: 0,
            f16: false,
            version: Digest::default(),
            card,
            selector: (DeviceKind::DefaultDevice, WgpuBackend::Vulkan),
            place: (wgpu::Backends::VULKAN, 0),
        }
    }
}

impl Device {
    /// The CPU backend.
    pub fn cpu() -> Self {
        Self::new(BurnDevice::flex(), None, "CPU".into())
    }

    fn new(burn: BurnDevice, gpu: Option<Gpu>, name: String) -> Self {
        let products = Products::of(gpu.as_ref());
        Self { burn, gpu, products, name }
    }

    /// The device of this adapter: one for the process's life.
    ///
    /// # Errors
    /// [`Error::Device`] where the driver refuses.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn open(adapter: &AdapterReport) -> Result<Self> {
        let mut opened = OPENED.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((_, device)) = opened.iter().find(|(id, _)| *id == adapter.id) {
            return Ok(device.clone());
        }
        let (kind, api) = adapter.selector.clone();
        let (burn, setup) = BurnDevice::wgpu_options()
            .device_kind(kind)
            .graphics_api(api)
            .init_with_setup()
            .map_err(|e| Error::Device { problem: format!("{} could not be opened: {e}", adapter.name) })?;
        let gpu = Gpu::new(&burn, setup, !adapter.is_hardware());
        let gpu = match SHELF.get() {
            Some(shelf) => gpu.with_shelf(shelf.clone()),
            None => gpu,
        };
        let name = format!("{} ({})", adapter.name, adapter.id);
        let device = Self::new(burn, Some(gpu), name);
        opened.push((adapter.id.clone(), device.clone()));
        Ok(device)
    }

    /// A further device of its own on the adapter with this id, with its own queue and memory pools, which wgpu itself holds to
    /// `limits`. Each call opens another one.
    ///
    /// # Errors
    /// [`Error::Device`] where there is no such adapter, or the driver refuses.
    #[cfg(not(target_family = "wasm"))]
    pub fn logical(id: &str, limits: Limits) -> Result<Self> {
        let refused = |problem: String| Error::Device { problem };
        let reports = adapters();
        let report = reports.iter().find(|report| report.id == id);
        let report = report.ok_or_else(|| refused(format!("there is no adapter {id:?}")))?;
        let (backends, index) = report.place;
        let instance = instance(backends);
        let adapter = pollster::block_on(instance.enumerate_adapters(backends)).into_iter().nth(index);
        let adapter = adapter.ok_or_else(|| refused(format!("the adapter {id:?} is gone")))?;
        let most = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("a logical device"),
            // As burn asks for, without what is experimental.
            required_features: adapter
                .features()
                .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask()),
            required_limits: wgpu::Limits {
                max_storage_buffer_binding_size: limits.binding_bytes.unwrap_or(most.max_storage_buffer_binding_size),
                max_buffer_size: limits.buffer_bytes.unwrap_or(most.max_buffer_size),
                ..most
            },
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| refused(format!("{} could not be opened once more: {e}", report.name)))?;
        let backend = adapter.get_info().backend;
        let setup = WgpuSetup { instance, adapter, device, queue, backend };
        // burn's pool of small tensors has pages of 8 MiB, unless each page is one allocation's.
        let memory = match limits.buffer_bytes {
            Some(bytes) if bytes < 8 << 20 => MemoryConfiguration::ExclusivePages,
            _ => MemoryConfiguration::default(),
        };
        let burn = BurnDevice::wgpu_options()
            .setup(setup.clone())
            .memory_config(memory)
            .init()
            .map_err(|e| refused(format!("{} could not be opened once more: {e}", report.name)))?;
        let gpu = Gpu::new(&burn, setup, !report.is_hardware());
        Ok(Self::new(burn, Some(gpu), format!("{} ({id})", report.name)))
    }

    /// The browser's WebGPU device. `software` where the page knows that it is no hardware (`isFallbackAdapter`).
    ///
    /// # Errors
    /// [`Error::Device`] where the browser offers none.
    #[cfg(target_family = "wasm")]
    pub async fn browser(software: bool) -> Result<Self> {
        let (burn, setup) = BurnDevice::wgpu_options()
            .init_with_setup_async()
            .await
            .map_err(|e| Error::Device { problem: format!("WebGPU is not available: {e}") })?;
        let info = setup.adapter.get_info();
        let words = [info.name.as_str(), info.driver.as_str(), info.driver_info.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let name = if words.is_empty() { "WebGPU".into() } else { format!("WebGPU ({})", words.join(", ")) };
        let gpu = Gpu::new(&burn, setup, software);
        Ok(Self::new(burn, Some(gpu), name))
    }

    /// The same device, with kernels launched as suits software or hardware: for tests and comparisons.
    pub fn treated_as_software(&self, software: bool) -> Self {
        let gpu = self.gpu.as_ref().map(|gpu| gpu.treated_as_software(software));
        Self { gpu, products: Products { choice: None, ..self.products }, ..self.clone() }
    }

    /// The same device, with at most so many floating-point operations in a dispatch of what can be cut: for tests.
    #[doc(hidden)]
    pub fn cutting(&self, operations: f64) -> Self {
        let gpu = self.gpu.as_ref().map(|gpu| gpu.cutting(operations));
        Self { gpu, ..self.clone() }
    }

    /// True where a processor plays the GPU.
    pub fn is_software(&self) -> bool {
        self.gpu.as_ref().is_some_and(Gpu::software)
    }

    /// What earlier runs left for it.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.gpu.as_ref().and_then(Gpu::kept)
    }

    /// The same device with what earlier runs left on a shelf: for tests.
    #[doc(hidden)]
    #[cfg(not(target_family = "wasm"))]
    pub fn with_shelf(&self, shelf: Arc<dyn Shelf>) -> Self {
        Self { gpu: self.gpu.clone().map(|gpu| gpu.with_shelf(shelf)), ..self.clone() }
    }

    /// Leaves what was compiled on its shelf: for tests.
    #[doc(hidden)]
    #[cfg(not(target_family = "wasm"))]
    pub fn leave_compiled(&self) {
        self.kept().into_iter().for_each(Kept::leave);
    }

    /// What it knows of products.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn products(&self) -> &Products {
        &self.products
    }

    /// The same device with something else settled for products.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn with_products(&self, products: Products) -> Self {
        Self { products, ..self.clone() }
    }

    /// Which kernel multiplies what on it, where it is a GPU.
    pub fn choice(&self) -> Choice {
        self.products.choice.unwrap_or(Choice::unmeasured(self.is_software()))
    }

    /// The precision that its products were settled for.
    pub fn compute(&self) -> Compute {
        self.products.compute
    }

    /// Whether its wide products are in half precision on tensor cores.
    pub fn halves(&self) -> bool {
        self.segments() > 0
    }

    /// How many products of halves on tensor cores are one of its wide ones: none where they are in single precision.
    pub fn segments(&self) -> usize {
        if self.is_cpu() { 0 } else { self.choice().for_class(Class::Wide).segments() }
    }

    /// In what its wide products are, in a few words.
    pub fn precision(&self) -> &'static str {
        match self.segments() {
            0 => "in single precision",
            1 => "in half precision on tensor cores",
            _ => "of two halves a number on tensor cores",
        }
    }

    /// Whether its attention is, too.
    pub fn halves_attention(&self) -> bool {
        self.products.attention
    }

    /// Whether it has cooperative matrices with f16 operands and f32 sums.
    pub fn has_cooperative_matrices(&self) -> bool {
        self.products.tile.is_some()
    }

    /// Name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The GPU launch layer, or `None` on the CPU backend.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// burn's handle, for what burn makes or computes itself: what is recorded is submitted before.
    pub fn burn(&self) -> &BurnDevice {
        self.submit();
        &self.burn
    }

    /// As [`Device::burn`], for memory that nobody writes before our kernels do.
    pub(crate) fn burn_for_memory(&self) -> &BurnDevice {
        &self.burn
    }

    /// Submits what is recorded, on a GPU: before burn computes with tensors that kernels of ours wrote.
    pub fn submit(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.submit();
        }
    }

    /// Submits every kernel by itself, as if nothing were recorded, or many together again: for comparisons.
    #[doc(hidden)]
    pub fn submit_each(&self, each: bool) {
        if let Some(gpu) = &self.gpu {
            gpu.submit_each(each);
        }
    }

    /// Submissions of ours to a GPU so far.
    pub fn submissions(&self) -> u64 {
        self.gpu.as_ref().map_or(0, Gpu::submissions)
    }

    /// Bind groups that launches on a GPU made so far, and how many of them are kept for launches that bind the same.
    #[doc(hidden)]
    pub fn bind_groups(&self) -> (u64, usize) {
        self.gpu.as_ref().map_or((0, 0), Gpu::bind_groups)
    }

    /// True on the CPU backend.
    pub fn is_cpu(&self) -> bool {
        self.gpu.is_none()
    }

    /// Bytes that one tensor may hold where a kernel binds it whole.
    pub fn max_binding_bytes(&self) -> u64 {
        self.gpu.as_ref().map_or(u64::MAX, |g| g.max_binding_bytes())
    }

    /// Waits until everything submitted is done.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn sync(&self) -> Result<()> {
        #[cfg(not(target_family = "wasm"))]
        if let Some(gpu) = &self.gpu {
            return gpu.finish(&self.burn);
        }
        self.burn().sync().map_err(|e| Error::Lost { problem: format!("{} was lost: {e:?}", self.name) })
    }

    /// Bytes that scratch of one product may hold ([`Gpu::tile_bytes`]).
    pub(crate) fn tile_bytes(&self) -> u64 {
        self.gpu.as_ref().map_or(u64::MAX, Gpu::tile_bytes)
    }

    /// Bytes that the device holds: its memory pools, where the backend tells, and buffers of our own.
    pub fn reserved_bytes(&self) -> Option<u64> {
        let own = self.gpu.as_ref().map_or(0, Gpu::own_bytes);
        let all = self.burn.memory_pool_usage().map(|usage| usage.bytes_reserved + own)?;
        if let Some(gpu) = &self.gpu {
            gpu.most(all);
        }
        Some(all)
    }

    /// Most that it held when somebody asked ([`Device::reserved_bytes`]).
    pub fn peak_bytes(&self) -> Option<u64> {
        let now = self.reserved_bytes()?;
        Some(self.gpu.as_ref().map_or(now, |gpu| gpu.most(now)))
    }

    /// Bytes that the driver would still give; `None` on the CPU, and where it does not tell.
    #[cfg(not(target_family = "wasm"))]
    pub fn free_bytes(&self) -> Option<u64> {
        self.gpu.as_ref().and_then(|gpu| crate::driver::told(gpu.adapter())).map(|told| told.free)
    }

    /// True where the device's memory is the host's: on the CPU, and where a processor plays the GPU or shares its memory
    /// with one.
    pub fn shares_memory(&self) -> bool {
        let kind = self.gpu.as_ref().map(|gpu| gpu.adapter().get_info().device_type);
        !matches!(kind, Some(wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other))
    }

    /// Takes the time of each kernel that this thread launches from now on, but for burn's.
    ///
    /// # Errors
    /// [`Error::Device`] on the CPU and on a GPU without timestamps.
    pub fn begin_profile(&self) -> Result<()> {
        let on_cpu = || Error::Device {
            problem: "kernels are timed on GPUs; choose one (for the command with --device)".into(),
        };
        self.gpu.as_ref().ok_or_else(on_cpu)?.begin_profile()
    }

    /// Times of the kernels since [`Device::begin_profile`], in order.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn end_profile(&self) -> Result<Vec<KernelTime>> {
        match &self.gpu {
            Some(gpu) => gpu.end_profile().await,
            None => Ok(Vec::new()),
        }
    }

    /// The cause of an error where that is a device that is lost or memory that it did not have; the error itself
    /// elsewhere.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.gpu.as_ref().and_then(Gpu::cause).unwrap_or(error)
    }

    /// Makes room after the device ran out of memory: what is unused goes back to the driver, and tiles are half as large from
    /// now on. False where that was done as often as it helps.
    pub(crate) fn make_room(&self) -> bool {
        let Some(gpu) = &self.gpu else { return false };
        self.release_unused();
        gpu.take_refusal();
        gpu.halve_tiles()
    }

    /// Gives memory that nothing uses back to the driver.
    pub fn release_unused(&self) {
        self.gpu.iter().for_each(Gpu::forget_bound);
        self.burn().memory_cleanup();
    }

    /// Loses the GPU, as its driver might: for tests.
    #[doc(hidden)]
    #[cfg(not(target_family = "wasm"))]
    pub fn lose(&self) {
        self.gpu.iter().for_each(Gpu::lose);
    }

    /// Lets so many allocations of ours fail after so many that succeed: for tests.
    #[doc(hidden)]
    pub fn fail_after(&self, succeed: u32, fail: u32) {
        if let Some(gpu) = &self.gpu {
            gpu.fail_after(succeed, fail);
        }
    }
}

#[cfg(not(target_family = "wasm"))]
fn instance(backends: wgpu::Backends) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    wgpu::Instance::new(descriptor)
}

/// Every wgpu adapter of the machine, hardware first in the order in which they would be chosen.
#[cfg(not(target_family = "wasm"))]
pub fn adapters() -> Vec<AdapterReport> {
    let apis = [
        (wgpu::Backends::VULKAN, WgpuBackend::Vulkan, "vulkan"),
        (wgpu::Backends::METAL, WgpuBackend::Metal, "metal"),
        (wgpu::Backends::DX12, WgpuBackend::Dx12, "dx12"),
    ];
    let mut reports = Vec::new();
    for (backends, api, label) in apis {
        let instance = instance(backends);
        let mut counts = [0usize; 3];
        // A future only for the browser's sake: it is ready at once on native targets.
        let found = pollster::block_on(instance.enumerate_adapters(backends));
        for (index, adapter) in found.iter().enumerate() {
            let info = adapter.get_info();
            let limits = adapter.limits();
            let memory = crate::driver::told(adapter);
            let mut nth = |slot: usize| {
                counts[slot] += 1;
                counts[slot] - 1
            };
            let (kind, name) = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => (DeviceKind::DiscreteGpu(nth(0)), "discrete"),
                wgpu::DeviceType::IntegratedGpu => (DeviceKind::IntegratedGpu(nth(1)), "integrated"),
                wgpu::DeviceType::VirtualGpu => (DeviceKind::VirtualGpu(nth(2)), "virtual"),
                wgpu::DeviceType::Cpu => (DeviceKind::Cpu, "software"),
                // burn has no selector for these; its default takes the best adapter of the graphics API.
                wgpu::DeviceType::Other => (DeviceKind::DefaultDevice, "other"),
            };
            reports.push(AdapterReport {
                id: format!("{label}:{index}"),
                name: info.name.clone(),
                backend: label.into(),
                kind: name.into(),
                driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
                max_binding_bytes: limits.max_storage_buffer_binding_size,
                max_buffer_bytes: limits.max_buffer_size,
                free_bytes: memory.map(|told| told.free),
                uncounted_bytes: memory.and_then(|told| told.beside),
                workgroup_bytes: limits.max_compute_workgroup_storage_size,
                f16: adapter.features().contains(wgpu::Features::SHADER_F16),
                version: kept::version(&info),
                card: Card { make: (info.vendor, info.device), bus: info.device_pci_bus_id.clone() },
                selector: (kind, api),
                place: (backends, index),
            });
        }
    }
    reports.sort_by_key(AdapterReport::rank);
    reports
}
