//! Where the time of a GPU goes: a timestamp before and after each kernel.

use std::sync::mpsc::channel;

use crate::error::{Error, Result};

/// One run of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// Its name.
    pub kernel: &'static str,
    /// Seconds since the device's clock began, when it began and when it was done.
    pub begin_s: f64,
    /// As above.
    pub end_s: f64,
    /// Floating-point operations, where they are known; else 0.
    pub operations: f64,
    /// Bytes of the buffers that it binds: at most those are read or written once, and often fewer.
    pub bytes: u64,
}

/// What is known of a kernel when it is recorded.
pub(super) struct Recorded {
    pub kernel: &'static str,
    pub operations: f64,
    pub bytes: u64,
}

/// Kernels of one submission and the buffer that their timestamps are read from.
struct Submission {
    kernels: Vec<Recorded>,
    times: wgpu::Buffer,
}

/// Timestamps of submissions. Each kernel has a compute pass of its own meanwhile.
pub(super) struct Profile {
    set: wgpu::QuerySet,
    recorded: Vec<Recorded>,
    submissions: Vec<Submission>,
}

impl Profile {
    /// For submissions of at most `kernels`; nothing on a device without timestamps.
    pub fn new(device: &wgpu::Device, kernels: usize) -> Option<Self> {
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let set = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * kernels as u32,
        });
        Some(Self { set, recorded: Vec::new(), submissions: Vec::new() })
    }

    /// Where the pass of the next kernel writes its timestamps.
    pub fn writes(&mut self, kernel: Recorded) -> wgpu::ComputePassTimestampWrites<'_> {
        let at = 2 * self.recorded.len() as u32;
        self.recorded.push(kernel);
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        }
    }

    /// Ends a submission: its timestamps go where they can be read.
    pub fn close(&mut self, device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder) {
        if self.recorded.is_empty() {
            return;
        }
        let count = 2 * self.recorded.len() as u32;
        let size = u64::from(count) * wgpu::QUERY_SIZE as u64;
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let resolved = buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let times = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        encoder.resolve_query_set(&self.set, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &times, 0, size);
        self.submissions.push(Submission { kernels: std::mem::take(&mut self.recorded), times });
    }

    /// Times of everything that was submitted, in order.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn read(self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Vec<KernelTime>> {
        let lost = |problem: String| Error::Lost { problem: format!("timestamps could not be read: {problem}") };
        let second = f64::from(queue.get_timestamp_period()) * 1e-9;
        let mut all = Vec::new();
        for Submission { kernels, times } in self.submissions {
            let (sender, receiver) = channel();
            times.slice(..).map_async(wgpu::MapMode::Read, move |result| drop(sender.send(result)));
            device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| lost(e.to_string()))?;
            receiver.recv().map_err(|e| lost(e.to_string()))?.map_err(|e| lost(e.to_string()))?;
            let view = times.slice(..).get_mapped_range().map_err(|e| lost(e.to_string()))?;
            let stamps: Vec<f64> =
                view.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as f64 * second).collect();
            for (kernel, stamps) in kernels.into_iter().zip(stamps.as_chunks::<2>().0) {
                let Recorded { kernel, operations, bytes } = kernel;
                all.push(KernelTime { kernel, begin_s: stamps[0], end_s: stamps[1], operations, bytes });
            }
        }
        Ok(all)
    }
}
