//! Where the time of a GPU goes: a timestamp before and after each kernel.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::message::messages;

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

messages! {
    camel_case;

    /// What one kernel took of a step's time on a GPU.
    #[derive(Clone, Debug, PartialEq, Serialize)]
    pub struct Share {
        /// Its name, or `(between)` for what no kernel of ours took: burn's kernels, and waiting.
        pub kernel: String,
        /// How often it ran.
        pub runs: usize,
        /// How long, in all.
        pub seconds: f64,
        /// Of the time from the first kernel's begin to the last one's end.
        pub percent: f64,
        /// Billions of floating-point operations a second, where they are counted.
        pub gflops: Option<f64>,
        /// Bytes of the buffers that it binds, in billions a second: more than it moves, where it reads a part of them.
        pub bound_gbytes_per_s: f64,
    }
}

/// Shares of a step, the largest first; `(between)` is the last one.
pub fn shares(times: &[KernelTime]) -> Vec<Share> {
    let begin = times.iter().map(|time| time.begin_s).fold(f64::INFINITY, f64::min);
    let end = times.iter().map(|time| time.end_s).fold(f64::NEG_INFINITY, f64::max);
    let whole = end - begin;
    let share = |kernel: &str, runs, seconds: f64, operations: f64, bytes: u64| Share {
        kernel: kernel.into(),
        runs,
        seconds,
        // A browser's clock may be too coarse to see anything.
        percent: if whole > 0.0 { 100.0 * seconds / whole } else { 0.0 },
        gflops: (operations > 0.0 && seconds > 0.0).then(|| operations / seconds / 1e9),
        bound_gbytes_per_s: if seconds > 0.0 { bytes as f64 / seconds / 1e9 } else { 0.0 },
    };
    let mut shares: Vec<Share> = Vec::new();
    let mut names: Vec<&str> = times.iter().map(|time| time.kernel).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let own: Vec<&KernelTime> = times.iter().filter(|time| time.kernel == name).collect();
        let seconds = own.iter().map(|time| time.end_s - time.begin_s).sum();
        let operations = own.iter().map(|time| time.operations).sum();
        shares.push(share(name, own.len(), seconds, operations, own.iter().map(|time| time.bytes).sum()));
    }
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let taken: f64 = shares.iter().map(|share| share.seconds).sum();
    if !shares.is_empty() {
        shares.push(share("(between)", 0, (whole - taken).max(0.0), 0.0, 0));
    }
    shares
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
    pub async fn read(self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Vec<KernelTime>> {
        let lost = |problem: String| Error::Lost { problem: format!("timestamps could not be read: {problem}") };
        let second = f64::from(queue.get_timestamp_period()) * 1e-9;
        let mut all = Vec::new();
        for Submission { kernels, times } in self.submissions {
            let mapped = Answer::default();
            let told = mapped.clone();
            times.slice(..).map_async(wgpu::MapMode::Read, move |result| told.give(result));
            // In a browser the page's own loop does it.
            #[cfg(not(target_family = "wasm"))]
            device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| lost(e.to_string()))?;
            #[cfg(target_family = "wasm")]
            let _ = device;
            mapped.await.map_err(|e| lost(e.to_string()))?;
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

/// What a callback will be given.
struct Answer<T>(Arc<Mutex<(Option<T>, Option<Waker>)>>);

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Answer<T> {
    fn give(&self, value: T) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = Some(value);
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(kernel: &'static str, begin_s: f64, end_s: f64, operations: f64) -> KernelTime {
        KernelTime { kernel, begin_s, end_s, operations, bytes: 1_000_000_000 }
    }

    #[test]
    fn shares_add_up_to_the_whole_and_the_largest_comes_first() {
        let times = [time("norm", 10.0, 11.0, 0.0), time("product", 11.0, 14.0, 6e9), time("norm", 15.0, 16.0, 0.0)];
        let shares = shares(&times);
        let of: Vec<_> = shares.iter().map(|s| (s.kernel.as_str(), s.runs, s.seconds.round())).collect();
        assert_eq!(of, [("product", 1, 3.0), ("norm", 2, 2.0), ("(between)", 0, 1.0)]);
        assert!((shares.iter().map(|share| share.percent).sum::<f64>() - 100.0).abs() < 1e-9);
        assert_eq!((shares[0].gflops, shares[1].gflops), (Some(2.0), None));
        assert!((shares[1].bound_gbytes_per_s - 1.0).abs() < 1e-9);
        assert!(super::shares(&[]).is_empty());
        // A clock that is too coarse to see anything gives no number that is none.
        let unseen = super::shares(&[time("norm", 1.0, 1.0, 5.0)]);
        assert!(
            unseen
                .iter()
                .all(|share| share.percent == 0.0 && share.bound_gbytes_per_s == 0.0 && share.gflops.is_none())
        );
    }

    #[test]
    fn an_answer_wakes_who_waits_for_it() {
        let answer = Answer::default();
        let told = answer.clone();
        let thread = std::thread::spawn(move || told.give(5));
        assert_eq!(pollster::block_on(answer), 5);
        thread.join().unwrap();
    }
}
