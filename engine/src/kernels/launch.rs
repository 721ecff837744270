//! Runs a WGSL kernel as our own compute pass on burn's wgpu device and queue.
//!
//! burn's own kernels may be compiled to WGSL, SPIR-V or MSL; ours are WGSL always and go through wgpu itself, so both
//! live on one queue. What is launched is recorded first ([`super::record`]).

#[cfg(not(target_family = "wasm"))]
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device as BurnDevice;
use burn::tensor::wgpu::WgpuSetup;
use burn_wgpu::{AutoCompiler, CubeTensor};
use cubecl::wgpu::WgpuServer;
use temper_shaders::{InOrder, Kernel, Storage, TypedKernel, Uniform, WORKGROUP_SIZE};

#[cfg(not(target_family = "wasm"))]
use super::gone::{caught, heard};
#[cfg(not(target_family = "wasm"))]
use super::kept::Kept;
use super::own::Own;
use super::profile::KernelTime;
use super::record::{Launch, Pipeline, Range, Recorder, most_of_products};
use crate::error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
use crate::host::Shelf;

/// What one product may take for itself, where a binding could be larger: an expanded matrix, logits.
/// Tiles of this size keep any card busy; more of them cost one launch each.
const TILE_BYTES: u64 = 256 << 20;

/// How often tiles may be halved after the device ran out of memory.
const HALVINGS: u32 = 4;

/// A wgpu device shared with burn, with the pipelines compiled so far. Cheap to clone.
#[derive(Clone)]
pub struct Gpu {
    setup: Arc<WgpuSetup>,
    pipelines: Pipelines,
    software: bool,
    max_binding_bytes: u64,
    books: Arc<Books>,
    recorder: Arc<Recorder>,
    /// For tests: most operations of one dispatch, in place of what the device's pace says.
    cut: Option<f64>,
    #[cfg(not(target_family = "wasm"))]
    kept: Option<Arc<Kept>>,
}

/// By stem and whether they are for software.
type Pipelines = Arc<Mutex<HashMap<(&'static str, bool), Arc<Pipeline>>>>;

/// What is known of a device's memory; all clones share it.
#[derive(Default)]
struct Books {
    /// Bytes in buffers of our own.
    own: Arc<AtomicU64>,
    /// The first allocation that was refused since somebody asked.
    refused: Mutex<Option<Refused>>,
    /// How often tiles were halved.
    halvings: AtomicU32,
    /// The most that was held, of what was told to it.
    most: AtomicU64,
    /// For tests: so many allocations and launches of ours succeed, and so many after them fail.
    failing: Mutex<(u32, u32)>,
}

/// An allocation for which there was no memory.
struct Refused {
    what: String,
    /// Bytes; nothing where burn's pool asked, which does not tell.
    asked: Option<u64>,
}

/// What a kernel binds.
#[derive(Clone, Copy)]
pub enum Binding<'a> {
    /// A contiguous tensor of burn's pool.
    Pool(&'a CubeTensor),
    /// A buffer of our own.
    Own(&'a Own),
}

impl<'a> From<&'a CubeTensor> for Binding<'a> {
    fn from(tensor: &'a CubeTensor) -> Self {
        Self::Pool(tensor)
    }
}

impl<'a> From<&'a Own> for Binding<'a> {
    fn from(own: &'a Own) -> Self {
        Self::Own(own)
    }
}

impl Gpu {
    /// Takes the handles that burn's runtime was initialised with. `software` where a processor plays the GPU.
    pub fn new(burn: &BurnDevice, setup: WgpuSetup, software: bool) -> Self {
        let limits = setup.device.limits();
        let books = Arc::new(Books::default());
        let recorder = Recorder::of(burn, &setup.device, &setup.queue);
        #[cfg(not(target_family = "wasm"))]
        watch(&setup, &books, &recorder);
        Self {
            recorder,
            setup: Arc::new(setup),
            pipelines: Pipelines::default(),
            software,
            // A tensor is one buffer, and bound as a whole.
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            books,
            cut: None,
            #[cfg(not(target_family = "wasm"))]
            kept: None,
        }
    }

    /// The same device with what earlier runs left for it.
    #[cfg(not(target_family = "wasm"))]
    pub fn with_shelf(self, shelf: Arc<dyn Shelf>) -> Self {
        let kept = Kept::of(&self.setup.device, &self.setup.adapter.get_info(), shelf);
        // Nothing that was compiled without.
        Self { kept: Some(Arc::new(kept)), pipelines: Pipelines::default(), ..self }
    }

    /// What earlier runs left for it, where its host keeps anything.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_deref()
    }

    /// Makes submissions as long as suits a device of so many floating-point operations a second.
    #[cfg(not(target_family = "wasm"))]
    pub fn pace(&self, operations_per_second: f64) {
        self.recorder.pace(operations_per_second);
    }

    /// Most floating-point operations that one dispatch should have: drivers end what takes seconds, and what has more is
    /// launched in parts. No more than a quarter of a second of wide products, as far as the device's pace is known.
    pub fn most_of_dispatch(&self) -> f64 {
        self.most_of_products(1)
    }

    /// The same of products that are made out of so many.
    pub fn most_of_products(&self, segments: usize) -> f64 {
        most_of_products(self.cut.or_else(|| self.recorder.most_of_dispatch()), segments)
    }

    /// The same device, with at most so many in each part: for tests.
    pub fn cutting(&self, operations: f64) -> Self {
        Self { cut: Some(operations), ..self.clone() }
    }

    /// Whether a kernel may bind so many arrays.
    #[cfg(not(target_family = "wasm"))]
    pub fn binds(&self, arrays: usize) -> bool {
        self.setup.device.limits().max_storage_buffers_per_shader_stage as usize >= arrays
    }

    /// Whether kernels are launched as suits software: row kernels narrow, matrix products our own.
    pub fn software(&self) -> bool {
        self.software
    }

    /// The same device, treated as software or as hardware.
    pub fn treated_as_software(&self, software: bool) -> Self {
        Self { software, ..self.clone() }
    }

    /// What the driver says of the card.
    pub fn adapter(&self) -> &wgpu::Adapter {
        &self.setup.adapter
    }

    /// What the device was opened with, which may be less than its adapter has.
    pub fn device_features(&self) -> wgpu::Features {
        self.setup.device.features()
    }

    /// Bytes that one storage binding may hold.
    pub fn max_binding_bytes(&self) -> u64 {
        self.max_binding_bytes
    }

    /// Bytes that scratch of one product may hold: at most a binding, and less once the device ran out of memory
    /// ([`Gpu::halve_tiles`]).
    pub fn tile_bytes(&self) -> u64 {
        tile_bytes(self.max_binding_bytes, self.books.halvings.load(Ordering::Relaxed))
    }

    /// Makes tiles half as large from now on; false where they are as small as they get.
    pub fn halve_tiles(&self) -> bool {
        let halve = |halvings| (halvings < HALVINGS).then_some(halvings + 1);
        self.books.halvings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, halve).is_ok()
    }

    /// Bytes in buffers of our own.
    pub fn own_bytes(&self) -> u64 {
        self.books.own.load(Ordering::Relaxed)
    }

    /// What is wrong with the device's memory, where an allocation was refused since this was asked last.
    pub fn take_refusal(&self) -> Option<Error> {
        let refused = self.books.refused.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(self.out_of_memory(&refused))
    }

    /// Why something failed, where the device is lost or has no memory.
    pub fn cause(&self) -> Option<Error> {
        self.recorder.gone.error().or_else(|| self.take_refusal())
    }

    /// Waits until everything that this thread submitted is done. burn's own waiting would never end where the device is
    /// lost meanwhile.
    ///
    /// # Errors
    /// [`Error::Lost`].
    #[cfg(not(target_family = "wasm"))]
    pub fn finish(&self, burn: &BurnDevice) -> Result<()> {
        self.submit();
        let flushed = caught(|| burn.flush()).and_then(|flushed| flushed.map_err(|e| e.to_string()));
        let done = flushed.and_then(|()| self.poll());
        let lost = |problem| {
            let name = self.setup.adapter.get_info().name;
            Error::Lost { problem: format!("the work of {name} could not be waited for: {problem}") }
        };
        pollster::block_on(self.recorder.answer(std::future::ready(done.map_err(lost))))
    }

    /// Waits for what was submitted. Of a lost device wgpu panics here.
    #[cfg(not(target_family = "wasm"))]
    fn poll(&self) -> std::result::Result<(), String> {
        let polled = caught(|| self.setup.device.poll(wgpu::PollType::wait_indefinitely()));
        polled.and_then(|polled| polled.map(|_| ()).map_err(|e| e.to_string()))
    }

    /// Loses the device, as its driver might: for tests.
    #[cfg(not(target_family = "wasm"))]
    pub fn lose(&self) {
        self.submit();
        self.setup.device.destroy();
        // Which tells who listens.
        let _ = self.poll();
    }

    /// The most of all that were told to it.
    pub fn most(&self, held: u64) -> u64 {
        self.books.most.fetch_max(held, Ordering::Relaxed).max(held)
    }

    /// Lets so many allocations and launches of ours fail after so many that succeed: for tests.
    pub fn fail_after(&self, succeed: u32, fail: u32) {
        *self.books.failing.lock().unwrap_or_else(PoisonError::into_inner) = (succeed, fail);
    }

    /// True where a test wants this allocation to fail.
    fn fails(&self) -> bool {
        let mut failing = self.books.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let (succeed, fail) = &mut *failing;
        if *succeed > 0 {
            *succeed -= 1;
            return false;
        }
        let fails = *fail > 0;
        *fail = fail.saturating_sub(1);
        fails
    }

    fn out_of_memory(&self, refused: &Refused) -> Error {
        Error::OutOfMemory {
            device: self.setup.adapter.get_info().name,
            what: refused.what.clone(),
            asked: refused.asked,
            own: self.own_bytes(),
            advice:
                "use fewer tokens a batch ([run] batch_tokens, [data] cutoff_length), [run] recompute = \"always\", or \
                     [run] device_memory, so that blocks stay in their file"
                    .into(),
        }
    }

    /// A buffer of exactly `descriptor.size` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; in a browser, which tells later, it is found when results are read. [`Error::Lost`].
    fn buffer(&self, what: &str, descriptor: &wgpu::BufferDescriptor) -> Result<wgpu::Buffer> {
        self.recorder.gone.check()?;
        let refused = || self.out_of_memory(&Refused { what: what.into(), asked: Some(descriptor.size) });
        if self.fails() {
            return Err(refused());
        }
        #[cfg(target_family = "wasm")]
        return Ok(self.setup.device.create_buffer(descriptor));
        #[cfg(not(target_family = "wasm"))]
        {
            let scope = self.setup.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let buffer = self.setup.device.create_buffer(descriptor);
            match pollster::block_on(scope.pop()) {
                Some(_) => Err(refused()),
                None => Ok(buffer),
            }
        }
    }

    /// Puts bytes into a buffer of their own as little-endian words, the last one padded with zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Limit`], [`Error::Lost`].
    pub fn upload(&self, what: &str, bytes: &[u8]) -> Result<Own> {
        /// What the driver holds of it on its way at once.
        const PIECE: usize = 16 << 20;
        // What is recorded may be all that keeps weights on the device whose place these take.
        self.submit();
        let size = (bytes.len() as u64).next_multiple_of(4).max(4);
        if size > self.max_binding_bytes {
            return Err(self.too_large(what.into(), size));
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: Some("weights"), size, usage, mapped_at_creation: false };
        let buffer = self.buffer(what, &descriptor)?;
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            let write = || self.write(&buffer, (index * PIECE) as u64, piece);
            #[cfg(target_family = "wasm")]
            write();
            #[cfg(not(target_family = "wasm"))]
            {
                let lost = |problem| {
                    let problem = format!("{what} could not be brought to the device: {problem}");
                    self.cause().unwrap_or(Error::Lost { problem })
                };
                heard(&self.setup.device, write).map_err(lost)?;
                // What is on its way lies in memory of the driver until it has arrived.
                if piece.len() == PIECE {
                    self.poll().map_err(lost)?;
                }
            }
        }
        Ok(Own::new(buffer, self.books.own.clone(), self.recorder.clone()))
    }

    /// Writes words to a buffer and submits it.
    fn write(&self, buffer: &wgpu::Buffer, at: u64, bytes: &[u8]) {
        let whole = bytes.len() / 4 * 4;
        if whole > 0 {
            self.setup.queue.write_buffer(buffer, at, &bytes[..whole]);
        }
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.setup.queue.write_buffer(buffer, at + whole as u64, &last);
        }
        self.setup.queue.submit([]);
        self.recorder.count_submission();
    }

    /// Copies `bytes` of a buffer of our own, from `offset` on, into a tensor, from its byte `start` on.
    ///
    /// # Errors
    /// [`Error::Kernel`] where burn's queue fails.
    pub fn copy(&self, source: &Own, offset: u64, target: &CubeTensor, start: u64, bytes: u64) -> Result<()> {
        let ranges = self.ranges("copy", &["target"], &[target.into()])?;
        self.recorder.follow(target);
        let copied = self.recorder.copy(source.buffer(), offset, &ranges[0], start, bytes);
        copied.map_err(|problem| self.failed("copy", problem))
    }

    /// Submits what is recorded: before burn computes with it or writes where it reads.
    pub fn submit(&self) {
        self.recorder.submit();
    }

    /// Takes the time of each kernel until [`Gpu::end_profile`].
    ///
    /// # Errors
    /// [`Error::Device`] for a device without timestamps.
    pub fn begin_profile(&self) -> Result<()> {
        self.recorder.begin_profile(&self.setup.adapter.get_info().name)
    }

    /// Times of all kernels since [`Gpu::begin_profile`], in order.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn end_profile(&self) -> Result<Vec<KernelTime>> {
        self.recorder.end_profile().await
    }

    /// Submits every kernel by itself, as if nothing were recorded, or many together again: for comparisons.
    pub fn submit_each(&self, each: bool) {
        self.recorder.submit_each(each);
    }

    /// Lets go of what launches bound.
    pub fn forget_bound(&self) {
        self.recorder.forget_all();
    }

    /// Bind groups that launches made so far, and how many are kept.
    pub fn bind_groups(&self) -> (u64, usize) {
        self.recorder.bind_groups()
    }

    /// Submissions of ours so far.
    pub fn submissions(&self) -> u64 {
        self.recorder.submissions()
    }

    /// Runs `kernel` over `groups` workgroups, spread over two axes where one is too short.
    ///
    /// All tensors must be contiguous.
    ///
    /// # Errors
    /// [`Error::Limit`] where a binding is larger than the device allows, [`Error::Kernel`] where burn's queue fails,
    /// [`Error::OutOfMemory`].
    pub fn run<'a, P: Uniform, B: Storage, T: Into<Binding<'a>>>(
        &self,
        kernel: &TypedKernel<P, B>,
        params: P,
        tensors: B::Of<T>,
        groups: u64,
    ) -> Result<()> {
        self.run_counted(kernel, params, tensors, groups, 0.0)
    }

    /// As [`Gpu::run`], for a kernel of so many floating-point operations: large ones are not submitted together, and a profile
    /// tells how many a second there were. No more than [`Gpu::most_of_dispatch`] where it can be cut.
    ///
    /// # Errors
    /// As [`Gpu::run`].
    pub fn run_counted<'a, P: Uniform, B: Storage, T: Into<Binding<'a>>>(
        &self,
        kernel: &TypedKernel<P, B>,
        params: P,
        tensors: B::Of<T>,
        groups: u64,
        operations: f64,
    ) -> Result<()> {
        let bindings: Vec<Binding> = tensors.in_order().into_iter().map(Into::into).collect();
        self.dispatch(kernel, bytemuck::bytes_of(&params), &bindings, groups, operations)
    }

    /// The bytes are those of the uniform's struct, the tensors in the order of the kernel's bindings.
    fn dispatch(
        &self,
        kernel: &Kernel,
        params: &[u8],
        bindings: &[Binding],
        groups: u64,
        operations: f64,
    ) -> Result<()> {
        if groups == 0 {
            return Ok(());
        }
        if self.fails() {
            return Err(self.out_of_memory(&Refused {
                what: format!("the parameters of kernel {}", kernel.stem),
                asked: Some(kernel.params_size() as u64),
            }));
        }
        let ranges = self.ranges(kernel.stem, kernel.bindings, bindings)?;
        for ((binding, name), range) in bindings.iter().zip(kernel.bindings).zip(&ranges) {
            if range.size > self.max_binding_bytes {
                return Err(self.too_large(format!("binding {name} of kernel {}", kernel.stem), range.size));
            }
            if let Binding::Pool(tensor) = binding {
                self.recorder.follow(tensor);
            }
        }
        let workgroups = temper_shaders::fold_workgroups(groups).ok_or_else(|| Error::Kernel {
            name: kernel.stem.into(),
            message: format!("{groups} workgroups are more than a dispatch can hold"),
        })?;
        let pipeline = &self.pipeline(kernel)?;
        let launch = Launch { stem: kernel.stem, pipeline, params, ranges: &ranges, workgroups, operations };
        self.recorder.launch(&launch).map_err(|problem| self.failed(kernel.stem, problem))
    }

    /// Where what is bound lies. burn's queue is a thread of its own, and to wait for it costs more than all else of a launch: it
    /// is asked once for all tensors.
    fn ranges(&self, stem: &str, names: &[&str], bindings: &[Binding]) -> Result<Vec<Range>> {
        self.recorder.gone.check()?;
        let pool = |binding: &Binding| match *binding {
            Binding::Pool(tensor) => Some((tensor.client.clone(), tensor.handle.clone())),
            Binding::Own(_) => None,
        };
        let tensors: Vec<_> = bindings.iter().filter_map(pool).collect();
        let mut found = match tensors.first().map(|(client, _)| client.clone()) {
            None => Vec::new(),
            Some(queue) => {
                let each = tensors.into_iter();
                let ask = move || {
                    each.map(|(client, handle)| client.get_resource::<WgpuServer<AutoCompiler>>(handle))
                        .collect::<Vec<_>>()
                };
                queue.exclusive(ask).map_err(|e| self.failed(stem, e.to_string()))?
            }
        }
        .into_iter();
        let range = |(binding, name): (&Binding, &&str)| match binding {
            Binding::Own(own) => Ok(Range { buffer: own.buffer().clone(), offset: 0, size: own.bytes() }),
            Binding::Pool(_) => {
                let resource = found.next().expect("a place for each tensor");
                let resource = resource.map_err(|e| self.failed(stem, format!("binding {name}: {e}")))?;
                let resource = resource.resource();
                Ok(Range { buffer: resource.buffer.clone(), offset: resource.offset, size: resource.size })
            }
        };
        bindings.iter().zip(names).map(range).collect()
    }

    /// What burn's queue or the device says of a kernel; a loss or lack of memory where that is the cause.
    fn failed(&self, stem: &str, message: String) -> Error {
        self.cause().unwrap_or_else(|| Error::Kernel { name: stem.into(), message })
    }

    fn too_large(&self, what: String, needed: u64) -> Error {
        Error::Limit {
            what,
            needed,
            allowed: self.max_binding_bytes,
            adapter: self.setup.adapter.get_info().name,
            advice: "use fewer tokens a batch ([run] batch_tokens, [data] cutoff_length)".into(),
        }
    }

    fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        let key = (kernel.stem, self.software);
        if let Some(pipeline) = pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.compile(kernel)?);
        pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// A kernel as the driver has it. What a browser's refuses it tells its console, and later.
    ///
    /// # Errors
    /// [`Error::Kernel`] where the driver or its compiler refuses it.
    fn compile(&self, kernel: &Kernel) -> Result<Pipeline> {
        let narrow = if self.software { kernel.narrow_size() } else { None };
        let constants: Vec<(&str, f64)> =
            narrow.iter().map(|&invocations| (WORKGROUP_SIZE, f64::from(invocations))).collect();
        let device = &self.setup.device;
        #[cfg(not(target_family = "wasm"))]
        let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal].map(|f| device.push_error_scope(f));
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.stem),
            source: wgpu::ShaderSource::Wgsl(kernel.source.into()),
        });
        let bindings = self.recorder.layout(kernel.bindings.len());
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.stem),
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.stem),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // No kernel reads what it did not write. Drivers clear slowly, or (AMD's own for Vulkan, wgpu issue 4591) without
                // waiting before the kernel begins; but Metal may load a word for all invocations one by one unless it is
                // cleared (wgpu issue 4500).
                zero_initialize_workgroup_memory: self.setup.adapter.get_info().backend == wgpu::Backend::Metal,
            },
            #[cfg(not(target_family = "wasm"))]
            cache: self.kept().and_then(Kept::cache),
            #[cfg(target_family = "wasm")]
            cache: None,
        });
        #[cfg(not(target_family = "wasm"))]
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(Error::Kernel {
                    name: kernel.stem.into(),
                    message: format!("the driver refuses it: {error}"),
                });
            }
        }
        Ok(Pipeline { compute, bindings })
    }
}

/// [`Gpu::tile_bytes`] of a device with such bindings whose tiles were halved so often.
pub(crate) fn tile_bytes(max_binding_bytes: u64, halvings: u32) -> u64 {
    max_binding_bytes.min(TILE_BYTES) >> halvings
}

/// Notes where burn's pool gets no memory, and when the device is lost, in place of cubecl's own watch.
///
/// What comes here is burn's alone: of what this crate asks for it hears by itself ([`heard`]). cubecl's handler panics on
/// the thread of its queue, which it catches there: the tensor is then known to be void, and whoever reads it is told. So
/// does this one, without a message on stderr, since the error that is told in the end is ours; of a device that is lost
/// nothing more is told, as there.
#[cfg(not(target_family = "wasm"))]
fn watch(setup: &WgpuSetup, books: &Arc<Books>, recorder: &Recorder) {
    let (name, gone) = (setup.adapter.get_info().name, recorder.gone.clone());
    setup.device.set_device_lost_callback(move |_, why| gone.tell(&name, &why));
    let (books, gone) = (books.clone(), recorder.gone.clone());
    setup.device.on_uncaptured_error(Arc::new(move |error| {
        if gone.error().is_some() {
            return;
        }
        let said: Box<dyn Any + Send> = match error {
            wgpu::Error::OutOfMemory { .. } => {
                let refused = Refused { what: "a tensor".into(), asked: None };
                books.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refused);
                Box::new("the device is out of memory")
            }
            other => Box::new(format!("wgpu error: {other}")),
        };
        std::panic::resume_unwind(said);
    }));
}

/// A size or an index as a field of a uniform.
///
/// # Panics
/// Past 2^32: sizes come from tensors that fit one binding, which is less.
pub fn size(value: usize) -> u32 {
    u32::try_from(value).expect("a kernel size above 2^32")
}
