//! What a device finds of earlier runs and leaves to later ones: kernels as its driver compiled them, and what was measured of it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::host::Shelf;

/// Bytes of the digest before what is compiled.
const DIGEST: usize = 16;

/// What lies on the shelf while something is tried that may end the process, and once it has not.
const TRYING: &[u8] = b"trying";
const TRIED: &[u8] = b"tried";

/// Why something was not tried.
#[derive(Debug, PartialEq)]
pub(crate) enum Untried {
    /// An earlier process did not survive it: under which name that one left word of it.
    Ended(String),
    /// Another process has been at it for longer than is waited.
    Busy,
}

/// A device's place on a shelf.
pub(crate) struct Kept {
    shelf: Arc<dyn Shelf>,
    /// Of the driver and of this engine: what another one left is of no use.
    version: Digest,
    compiled: Option<Compiled>,
}

/// Kernels as the driver compiled them.
struct Compiled {
    cache: wgpu::PipelineCache,
    name: String,
    /// What of them lies on the shelf.
    there: Mutex<Option<Digest>>,
}

impl Kept {
    /// What `shelf` has for a device. Compiled kernels only where the driver hands them out.
    pub(crate) fn of(device: &wgpu::Device, adapter: &wgpu::AdapterInfo, shelf: Arc<dyn Shelf>) -> Self {
        let version = version(adapter);
        let name = wgpu::util::pipeline_cache_key(adapter);
        let name = name.filter(|_| device.features().contains(wgpu::Features::PIPELINE_CACHE));
        let compiled = name.map(|name| {
            let name = format!("{name}-{version}");
            let data = shelf.take(&name).and_then(whole);
            let descriptor =
                wgpu::PipelineCacheDescriptor { label: Some("kernels"), data: data.as_deref(), fallback: true };
            // SAFETY: the data is what `get_data` gave, of a device with this name: its digest says that nothing happened to it.
            // wgpu and the driver look at its head besides, and take none of another card or driver.
            let cache = unsafe { device.create_pipeline_cache(&descriptor) };
            Compiled { cache, name, there: Mutex::new(data.as_deref().map(Digest::of)) }
        });
        Self { shelf, version, compiled }
    }

    /// Where pipelines look first.
    pub(crate) fn cache(&self) -> Option<&wgpu::PipelineCache> {
        self.compiled.as_ref().map(|compiled| &compiled.cache)
    }

    /// Leaves what was compiled for the next run, unless it lies there already.
    pub(crate) fn leave(&self) {
        let Some(Compiled { cache, name, there }) = &self.compiled else { return };
        let Some(data) = cache.get_data() else { return };
        let (digest, mut there) = (Digest::of(&data), there.lock().unwrap_or_else(PoisonError::into_inner));
        if *there != Some(digest) {
            self.shelf.leave(name, &[digest.to_string().as_bytes(), &data].concat());
            *there = Some(digest);
        }
    }

    /// What an earlier run measured, under its name.
    pub(crate) fn measured(&self, name: &str) -> Option<String> {
        String::from_utf8(self.shelf.take(&self.versioned(name))?).ok()
    }

    /// Leaves that to later runs.
    pub(crate) fn leave_measured(&self, name: &str, text: &str) {
        self.shelf.leave(&self.versioned(name), text.as_bytes());
    }

    /// Does something that this driver may not survive, unless an earlier process did not survive it. Of several processes
    /// that begin at once one does it first.
    ///
    /// # Errors
    /// Why nothing is done. Inside are those of `work`.
    pub(crate) fn attempt<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<Result<T>, Untried> {
        attempt(&*self.shelf, self.versioned(name), work)
    }

    fn versioned(&self, name: &str) -> String {
        versioned(name, self.version)
    }
}

/// Of an adapter's driver and of this engine.
pub(crate) fn version(adapter: &wgpu::AdapterInfo) -> Digest {
    let engine = env!("CARGO_PKG_VERSION");
    Digest::of([engine, &adapter.name, &adapter.driver, &adapter.driver_info].join("\n").as_bytes())
}

/// What is kept of that version under a name.
pub(crate) fn versioned(name: &str, version: Digest) -> String {
    format!("{name}-{version}")
}

fn attempt<T>(shelf: &dyn Shelf, name: String, work: impl FnOnce() -> Result<T>) -> Result<Result<T>, Untried> {
    // Never written again: nobody waits for anybody from then on.
    let tried = || shelf.take(&name).as_deref() == Some(TRIED);
    if tried() {
        return Ok(work());
    }
    let held = shelf.hold(&name).ok_or(Untried::Busy)?;
    // Another process may have been at it until now.
    if tried() {
        drop(held);
        return Ok(work());
    }
    // Whoever left that has ended: the name would be held.
    if shelf.take(&name).as_deref() == Some(TRYING) {
        return Err(Untried::Ended(name));
    }
    shelf.leave(&name, TRYING);
    let done = work();
    // Losing the device is no better than a crash.
    if !matches!(done, Err(Error::Lost { .. })) {
        shelf.leave(&name, TRIED);
    }
    Ok(done)
}

/// What follows its own digest; none where that is another one's.
fn whole(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let digest = String::from_utf8(bytes.get(..DIGEST)?.to_vec()).ok()?;
    bytes.drain(..DIGEST);
    (Digest::of(&bytes).to_string() == digest).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;

    type Things = Mutex<BTreeMap<String, Vec<u8>>>;

    #[test]
    fn what_a_process_did_not_come_back_from_is_not_tried_again_until_its_word_is_gone() {
        let (things, mut tried) = (Things::default(), 0);
        let mut once = |things: &Things| {
            attempt(things, "it".into(), || {
                tried += 1;
                Ok(tried)
            })
        };
        // It came back, and comes back.
        assert_eq!(once(&things).unwrap().unwrap(), 1);
        assert_eq!(once(&things).unwrap().unwrap(), 2);
        // As a process leaves it that ends meanwhile.
        let things = Things::default();
        let ended = || attempt::<()>(&things, "it".into(), || resume_unwind(Box::new("ended")));
        assert!(catch_unwind(AssertUnwindSafe(ended)).is_err());
        let untried = Untried::Ended("it".into());
        assert_eq!(once(&things).unwrap_err(), untried);
        things.lock().unwrap().clear();
        assert_eq!(once(&things).unwrap().unwrap(), 3);
        // An error that is told is no crash; a device that is lost is.
        let things = Things::default();
        let refused = || Err::<(), _>(Error::Device { problem: String::new() });
        assert!(attempt(&things, "it".into(), refused).unwrap().is_err());
        assert_eq!(once(&things).unwrap().unwrap(), 4);
        let things = Things::default();
        let lost = || Err::<(), _>(Error::Lost { problem: String::new() });
        assert!(attempt(&things, "it".into(), lost).unwrap().is_err());
        assert_eq!(once(&things).unwrap_err(), untried);
    }

    /// A shelf where another process tries something, and how it leaves that; nothing where it never ends.
    struct Shared {
        things: Things,
        left: Option<&'static [u8]>,
    }

    impl Shelf for Shared {
        fn take(&self, name: &str) -> Option<Vec<u8>> {
            self.things.take(name)
        }

        fn leave(&self, name: &str, bytes: &[u8]) {
            self.things.leave(name, bytes);
        }

        fn hold(&self, name: &str) -> Option<Box<dyn Any>> {
            self.leave(name, self.left?);
            Some(Box::new(()))
        }
    }

    #[test]
    fn what_another_process_is_trying_is_no_crash_before_that_one_ends() {
        let beside = |left: Option<&'static [u8]>| {
            let shelf = Shared { things: Things::default(), left };
            shelf.leave("it", TRYING);
            (attempt(&shelf, "it".into(), || Ok(())).map(|done| done.unwrap()), shelf.take("it").unwrap())
        };
        assert_eq!(beside(Some(TRIED)), (Ok(()), TRIED.to_vec()));
        // Stopped as asked.
        assert_eq!(beside(Some(&b""[..])), (Ok(()), TRIED.to_vec()));
        assert_eq!(beside(Some(TRYING)), (Err(Untried::Ended("it".into())), TRYING.to_vec()));
        assert_eq!(beside(None), (Err(Untried::Busy), TRYING.to_vec()));
    }

    #[test]
    fn what_was_damaged_is_not_taken() {
        let data = b"compiled".to_vec();
        let left = [Digest::of(&data).to_string().as_bytes(), &data].concat();
        assert_eq!(whole(left.clone()), Some(data));
        assert_eq!(whole(left[..left.len() - 1].to_vec()), None);
        for at in [0, DIGEST, left.len() - 1] {
            let mut left = left.clone();
            left[at] ^= 1;
            assert_eq!(whole(left), None, "byte {at}");
        }
        assert_eq!(whole(b"short".to_vec()), None);
    }
}
