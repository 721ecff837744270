//! Kernels are recorded and submitted many at a time: a submission costs the driver far more than a kernel's record does.
//!
//! burn records and submits on its own, on the same queue, and queue order is all the synchronisation there is. Two rules keep
//! it: what burn has recorded is submitted before what is recorded here, and whatever burn computes, uploads or reads after
//! that finds it submitted. Both hold within a thread, since burn has a stream for each; a tensor that goes to another thread has to be
//! submitted before. The second is kept where burn is handed something: [`Device::burn`](crate::device::Device::burn),
//! [`Device::submit`](crate::device::Device::submit) and the functions of [`tensor`](super::tensor) that read or copy.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};

use burn::tensor::Device as BurnDevice;
use burn_wgpu::CubeTensor;
use cubecl::client::Client;

use super::gone::{Gone, caught, heard};
use super::profile::{KernelTime, Profile, Recorded};
use crate::error::{Error, Result as EngineResult};

/// Bytes of the uniform buffer that each kernel has: no kernel's parameters are longer, and any device binds at multiples of it.
const SLOT: usize = 256;

/// Most kernels of one submission.
const KERNELS: usize = 128;

/// Most floating-point operations of one submission, as far as they are told, where nobody knows how fast the device is: a card of
/// half a TFLOP/s is done with it in a second, before a driver takes it for hung.
const OPERATIONS: f64 = 0.5e12;

/// And seconds of one where somebody knows: systems end what takes two, and other programs draw on the same card.
#[cfg(not(target_family = "wasm"))]
const SECONDS: f64 = 0.25;
/// A device so slow has other troubles than submissions.
#[cfg(not(target_family = "wasm"))]
const LEAST_OPERATIONS: f64 = 1e9;

/// So many submissions later what was bound is let go of: it keeps its buffers' memory.
const UNUSED: u64 = 128;

/// A pipeline and the layout of what it binds.
pub(super) struct Pipeline {
    pub compute: wgpu::ComputePipeline,
    pub bindings: wgpu::BindGroupLayout,
}

/// Where bytes that are bound lie.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Range {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub size: u64,
}

/// A kernel's place in a recording.
pub(super) struct Launch<'a> {
    pub stem: &'static str,
    pub pipeline: &'a Pipeline,
    /// Bytes of the uniform's struct.
    pub params: &'a [u8],
    pub ranges: &'a [Range],
    pub workgroups: [u32; 3],
    /// Floating-point operations, where they are known.
    pub operations: f64,
}

/// What is recorded for one device.
pub(super) struct Recorder {
    /// burn's name of the device, which tells devices apart.
    burn: BurnDevice,
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Whether the device is lost.
    pub gone: Arc<Gone>,
    uniforms: wgpu::Buffer,
    layouts: Mutex<HashMap<usize, wgpu::BindGroupLayout>>,
    groups: Mutex<Groups>,
    /// Of each thread.
    pending: Mutex<HashMap<ThreadId, Pending>>,
    submissions: AtomicU64,
    /// Whether each kernel is submitted by itself.
    each: AtomicBool,
    /// Most operations of one submission, as the bits of an f64.
    most: AtomicU64,
    /// Most of one dispatch, likewise; 0 while no pace is known.
    most_of_dispatch: AtomicU64,
}

/// What launches bind. A step binds what the step before did, as far as burn's pool gives its tensors the same places.
#[derive(Default)]
struct Groups {
    /// With the submission that used it last. The layout is that of so many buffers.
    known: HashMap<Vec<Range>, (wgpu::BindGroup, u64)>,
    made: u64,
    /// At which submission the unused were let go of.
    swept: u64,
}

/// Recorded by one thread and not yet submitted.
#[derive(Default)]
struct Pending {
    encoder: Option<wgpu::CommandEncoder>,
    /// Open as long as kernel follows kernel.
    pass: Option<wgpu::ComputePass<'static>>,
    params: Vec<u8>,
    operations: f64,
    /// burn's queue, once a tensor of its pool is bound.
    burn: Option<Client>,
    /// What burn's queue or the device said where nobody could be told.
    failed: Option<String>,
    profile: Option<Profile>,
}

/// The recorders of all devices, for whoever has a tensor and not its device.
static ALL: Mutex<Vec<Weak<Recorder>>> = Mutex::new(Vec::new());

/// Submits what this thread has recorded on any device.
pub fn submit_all() {
    let recorders: Vec<Arc<Recorder>> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
    recorders.iter().for_each(|recorder| recorder.submit());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// The recorder of a device: one, however often the device is opened, since its work has one order.
    pub fn of(burn: &BurnDevice, device: &wgpu::Device, queue: &wgpu::Queue) -> Arc<Self> {
        let mut all = lock(&ALL);
        all.retain(|known| known.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade).find(|known| known.burn == *burn);
        known.unwrap_or_else(|| {
            let recorder = Arc::new(Self::new(burn.clone(), device.clone(), queue.clone()));
            all.push(Arc::downgrade(&recorder));
            recorder
        })
    }

    /// The recorder of a device that is open.
    pub fn known(burn: &BurnDevice) -> Option<Arc<Self>> {
        lock(&ALL).iter().filter_map(Weak::upgrade).find(|known| known.burn == *burn)
    }

    fn new(burn: BurnDevice, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let uniforms = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters of kernels"),
            size: (SLOT * KERNELS) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self {
            burn,
            device,
            queue,
            gone: Arc::default(),
            uniforms,
            layouts: Mutex::default(),
            groups: Mutex::default(),
            pending: Mutex::default(),
            submissions: AtomicU64::new(0),
            each: AtomicBool::new(false),
            most: AtomicU64::new(OPERATIONS.to_bits()),
            most_of_dispatch: AtomicU64::new(0),
        }
    }

    /// Submissions so far.
    pub fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// One more, made by others.
    pub fn count_submission(&self) {
        self.submissions.fetch_add(1, Ordering::Relaxed);
    }

    /// Submits every kernel by itself, or many together again.
    pub fn submit_each(&self, each: bool) {
        self.each.store(each, Ordering::Relaxed);
    }

    /// Layout of a uniform at a moving place and so many storage buffers.
    pub fn layout(&self, buffers: usize) -> wgpu::BindGroupLayout {
        let make = || {
            let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding {
                        0 => wgpu::BufferBindingType::Uniform,
                        _ => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: binding == 0,
                    min_binding_size: None,
                },
                count: None,
            };
            let entries: Vec<_> = (0..=buffers).map(entry).collect();
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        };
        lock(&self.layouts).entry(buffers).or_insert_with(make).clone()
    }

    /// Notes that a tensor of burn's pool is used, so that what burn has recorded goes first.
    pub fn follow(&self, tensor: &CubeTensor) {
        self.pending(|pending| {
            pending.burn.get_or_insert_with(|| {
                // A pool that knows how much the device holds moves tensors when that is nearly full, and would not wait for what
                // is recorded. Without `--features vulkan` or `metal` burn's does not know.
                if tensor.client.properties().memory.max_memory().is_some() {
                    self.submit_each(true);
                }
                tensor.client.clone()
            });
        });
    }

    /// Records a kernel.
    ///
    /// # Errors
    /// What burn's queue said, or the device.
    pub fn launch(&self, launch: &Launch) -> Result<(), String> {
        self.pending(|pending| {
            self.make_room(pending, launch.operations)?;
            heard(&self.device, || self.record(pending, launch))?;
            if self.each.load(Ordering::Relaxed) {
                self.submit_pending(pending);
            }
            Ok(())
        })
    }

    fn record(&self, pending: &mut Pending, launch: &Launch) {
        let offset = pending.params.len();
        debug_assert!(launch.params.len() <= SLOT, "{}: {} bytes of parameters", launch.stem, launch.params.len());
        pending.params.extend_from_slice(launch.params);
        pending.params.resize(offset + SLOT, 0);
        pending.operations += launch.operations;

        let group = self.group(launch);
        pending.time(&self.device, launch);
        let pass = pending.pass(&self.device);
        pass.set_pipeline(&launch.pipeline.compute);
        pass.set_bind_group(0, &group, &[offset as u32]);
        let [x, y, z] = launch.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }

    /// What a launch binds: what it bound the last time, where that was the same.
    fn group(&self, launch: &Launch) -> wgpu::BindGroup {
        let (mut groups, now) = (lock(&self.groups), self.submissions());
        if let Some((group, used)) = groups.known.get_mut(launch.ranges) {
            *used = now;
            return group.clone();
        }
        let buffer = |buffer, offset, size| wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) };
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(buffer(&self.uniforms, 0, SLOT as u64)),
        }];
        for (index, range) in launch.ranges.iter().enumerate() {
            let bound = buffer(&range.buffer, range.offset, range.size.next_multiple_of(4));
            entries.push(wgpu::BindGroupEntry {
                binding: index as u32 + 1,
                resource: wgpu::BindingResource::Buffer(bound),
            });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(launch.stem),
            layout: &launch.pipeline.bindings,
            entries: &entries,
        });
        groups.made += 1;
        if now >= groups.swept + UNUSED {
            groups.swept = now;
            groups.known.retain(|_, (_, used)| *used + UNUSED >= now);
        }
        groups.known.insert(launch.ranges.to_vec(), (group.clone(), now));
        group
    }

    /// Lets go of what binds a buffer, so that its memory is free once the queue is done with it.
    pub fn forget(&self, buffer: &wgpu::Buffer) {
        lock(&self.groups).known.retain(|ranges, _| ranges.iter().all(|range| range.buffer != *buffer));
    }

    /// Lets go of everything that is bound.
    pub fn forget_all(&self) {
        lock(&self.groups).known.clear();
    }

    /// Bind groups that were made so far, and how many are kept.
    pub fn bind_groups(&self) -> (u64, usize) {
        let groups = lock(&self.groups);
        (groups.made, groups.known.len())
    }

    /// Records a copy of bytes.
    ///
    /// # Errors
    /// What burn's queue said, or the device.
    pub fn copy(
        &self,
        source: &wgpu::Buffer,
        offset: u64,
        target: &Range,
        start: u64,
        bytes: u64,
    ) -> Result<(), String> {
        self.pending(|pending| {
            self.make_room(pending, 0.0)?;
            heard(&self.device, || {
                let encoder = pending.encoder(&self.device);
                encoder.copy_buffer_to_buffer(source, offset, &target.buffer, target.offset + start, bytes);
            })
        })
    }

    /// Submits what this thread has recorded.
    pub fn submit(&self) {
        self.pending(|pending| self.submit_pending(pending));
    }

    /// What comes of asking the device for something, once all is submitted.
    ///
    /// # Errors
    /// [`Error::Lost`], also where what is read is void since a submission of this thread failed; those of `asked`.
    pub async fn answer<T>(&self, asked: impl Future<Output = EngineResult<T>>) -> EngineResult<T> {
        let answer = self.gone.wait_for(asked).await;
        let failed = self.pending(|pending| pending.failed.take());
        match (answer, failed) {
            (Ok(_), Some(problem)) => Err(Error::Lost { problem: format!("a submission failed: {problem}") }),
            (answer, _) => answer,
        }
    }

    /// Takes the time of each kernel from now on.
    ///
    /// # Errors
    /// [`Error::Device`] for a device without timestamps.
    pub fn begin_profile(&self, name: &str) -> EngineResult<()> {
        let problem = || Error::Device { problem: format!("{name} takes no timestamps, so it cannot be profiled") };
        self.pending(|pending| {
            self.submit_pending(pending);
            pending.profile = Profile::new(&self.device, KERNELS);
            pending.profile.is_some().then_some(()).ok_or_else(problem)
        })
    }

    /// Times of all kernels since [`Recorder::begin_profile`].
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub async fn end_profile(&self) -> EngineResult<Vec<KernelTime>> {
        let profile = self.pending(|pending| {
            self.submit_pending(pending);
            pending.profile.take()
        });
        match profile {
            Some(profile) => profile.read(&self.device, &self.queue).await,
            None => Ok(Vec::new()),
        }
    }

    /// What this thread has recorded.
    fn pending<T>(&self, work: impl FnOnce(&mut Pending) -> T) -> T {
        let (mut all, own) = (lock(&self.pending), thread::current().id());
        let done = work(all.entry(own).or_default());
        // Threads come and go.
        all.retain(|thread, pending| *thread == own || pending.holds_something());
        done
    }

    fn most_operations(&self) -> f64 {
        f64::from_bits(self.most.load(Ordering::Relaxed))
    }

    /// Most operations that one dispatch should have at the device's pace, where that is known: a submission is no shorter than
    /// its longest kernel.
    pub fn most_of_dispatch(&self) -> Option<f64> {
        Some(f64::from_bits(self.most_of_dispatch.load(Ordering::Relaxed))).filter(|most| *most > 0.0)
    }

    /// Makes submissions that take a quarter of a second on a device of so many operations a second, but no longer ones than of
    /// one of which nothing is known. A dispatch may take all of it: between the parts of a shorter one a fast card would idle.
    #[cfg(not(target_family = "wasm"))]
    pub fn pace(&self, operations_per_second: f64) {
        self.most.store(most_at(operations_per_second).to_bits(), Ordering::Relaxed);
        self.most_of_dispatch.store(most_of_dispatch_at(operations_per_second).to_bits(), Ordering::Relaxed);
    }

    /// Submits what is pending where one more kernel of so many operations is too much for one submission.
    fn make_room(&self, pending: &mut Pending, operations: f64) -> Result<(), String> {
        let full = pending.params.len() == SLOT * KERNELS;
        if full || pending.operations > 0.0 && pending.operations + operations > self.most_operations() {
            self.submit_pending(pending);
        }
        pending.failed.take().map_or(Ok(()), Err)
    }

    fn submit_pending(&self, pending: &mut Pending) {
        if pending.encoder.is_none() {
            return;
        }
        if let Err(problem) = heard(&self.device, || self.hand_over(pending)) {
            pending.failed = Some(problem);
        }
        self.count_submission();
        pending.params.clear();
        pending.operations = 0.0;
    }

    fn hand_over(&self, pending: &mut Pending) {
        pending.pass = None;
        if let (Some(profile), Some(encoder)) = (&mut pending.profile, &mut pending.encoder) {
            profile.close(&self.device, encoder);
        }
        if let Some(burn) = pending.burn.take()
            && let Err(problem) = caught(|| burn.flush()).and_then(|flushed| flushed.map_err(|e| e.to_string()))
        {
            pending.failed = Some(problem);
        }
        if !pending.params.is_empty() {
            // Written before anything of this submission runs, and after everything of those before.
            self.queue.write_buffer(&self.uniforms, 0, &pending.params);
        }
        self.queue.submit(pending.encoder.take().map(wgpu::CommandEncoder::finish));
    }
}

impl Pending {
    fn holds_something(&self) -> bool {
        self.encoder.is_some() || self.failed.is_some() || self.profile.is_some()
    }

    /// For commands between passes.
    fn encoder(&mut self, device: &wgpu::Device) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("kernels") };
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&descriptor))
    }

    /// Opens a pass of its own for a kernel whose time is taken.
    fn time(&mut self, device: &wgpu::Device, launch: &Launch) {
        let Some(mut profile) = self.profile.take() else { return };
        let bytes = launch.ranges.iter().map(|range| range.size).sum();
        let timestamp_writes =
            Some(profile.writes(Recorded { kernel: launch.stem, operations: launch.operations, bytes }));
        let descriptor = wgpu::ComputePassDescriptor { label: Some(launch.stem), timestamp_writes };
        self.pass = Some(self.encoder(device).begin_compute_pass(&descriptor).forget_lifetime());
        self.profile = Some(profile);
    }

    fn pass(&mut self, device: &wgpu::Device) -> &mut wgpu::ComputePass<'static> {
        if self.pass.is_none() {
            let descriptor = wgpu::ComputePassDescriptor { label: Some("kernels"), timestamp_writes: None };
            self.pass = Some(self.encoder(device).begin_compute_pass(&descriptor).forget_lifetime());
        }
        self.pass.as_mut().expect("just opened")
    }
}

/// Most operations of one dispatch of products out of so many each ([`segments`](super::multiplier::Multiplier::segments)). A
/// pace counts whole ones, by the kernel that makes them: only where none is known are there as many times fewer.
pub(super) fn most_of_products(at_pace: Option<f64>, segments: usize) -> f64 {
    at_pace.unwrap_or(OPERATIONS / segments.max(1) as f64)
}

/// Most operations of one submission at a pace.
#[cfg(not(target_family = "wasm"))]
fn most_at(operations_per_second: f64) -> f64 {
    most_of_dispatch_at(operations_per_second).min(OPERATIONS)
}

/// Most operations of one dispatch at a pace.
#[cfg(not(target_family = "wasm"))]
fn most_of_dispatch_at(operations_per_second: f64) -> f64 {
    (operations_per_second * SECONDS).max(LEAST_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_device_gets_submissions_of_a_quarter_of_a_second_and_a_fast_one_those_of_before() {
        assert_eq!(most_at(1e11), 2.5e10);
        assert_eq!(most_at(5e13), OPERATIONS);
        assert_eq!(most_at(1.0), LEAST_OPERATIONS);
    }

    #[test]
    fn a_dispatch_may_take_a_quarter_of_a_second_on_any_device() {
        assert_eq!(most_of_dispatch_at(1e11), 2.5e10);
        assert_eq!(most_of_dispatch_at(5e13), 1.25e13);
        assert_eq!(most_of_dispatch_at(1.0), LEAST_OPERATIONS);
    }

    #[test]
    fn a_product_out_of_several_is_cut_shorter_only_while_nobody_knows_how_fast_it_is() {
        let most = |at_pace| [0, 1, 3].map(|segments| most_of_products(at_pace, segments));
        assert_eq!(most(None), [OPERATIONS, OPERATIONS, OPERATIONS / 3.0]);
        assert_eq!(most(Some(2.5e10)), [2.5e10; 3]);
    }
}
