//! A buffer of our own on a GPU, exactly as large as what lies in it: for weights, which stay as long as the model does. The
//! pages of burn's pool are for what comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::Recorder;

/// Words on a device, made by [`super::launch::Gpu::upload`].
pub struct Own {
    buffer: wgpu::Buffer,
    /// Bytes of all of them on the device.
    held: Arc<AtomicU64>,
    recorder: Arc<Recorder>,
}

impl Own {
    /// Puts a buffer on the device's books.
    pub(super) fn new(buffer: wgpu::Buffer, held: Arc<AtomicU64>, recorder: Arc<Recorder>) -> Self {
        held.fetch_add(buffer.size(), Ordering::Relaxed);
        Self { buffer, held, recorder }
    }

    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.recorder.forget(&self.buffer);
        self.held.fetch_sub(self.buffer.size(), Ordering::Relaxed);
    }
}
