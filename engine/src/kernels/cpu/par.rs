//! Data parallelism with fixed boundaries: rayon where there are threads, a plain loop in the browser.
//!
//! Every helper hands out work by index, and what a task computes depends on its index alone. So the result is the
//! same whether one thread or sixty-four ran the tasks.

#[cfg(not(target_arch = "wasm32"))]
use rayon::prelude::*;

/// Elements that one task of a cheap element-wise kernel handles: enough to hide the cost of handing it over (about a
/// microsecond), small enough to stay in a core's own cache.
pub const ELEMENTS: usize = 16 * 1024;

/// Threads that tasks are shared among.
pub fn threads() -> usize {
    #[cfg(not(target_arch = "wasm32"))]
    return rayon::current_num_threads();
    #[cfg(target_arch = "wasm32")]
    return 1;
}

/// Makes the calling thread one of so many that share tasks. From elsewhere each task of a step would be handed over, by a thread
/// that sleeps until another has woken up and done it. To be called once, before anything is shared, by the thread that computes;
/// without it, or later, results are the same.
#[cfg(not(target_arch = "wasm32"))]
pub fn compute_on_this_thread(threads: usize) {
    // Alone it would wait for a thread that reads ahead, and that one for what it shares.
    if threads > 1 {
        // What fails is that there are threads already.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    }
}

/// Rows per task, so that one task handles about [`ELEMENTS`] elements.
pub fn rows_per_task(width: usize) -> usize {
    (ELEMENTS / width.max(1)).max(1)
}

/// Runs `task(0) .. task(count - 1)`, in any order.
pub fn tasks(count: usize, task: impl Fn(usize) + Sync + Send) {
    #[cfg(not(target_arch = "wasm32"))]
    if count > 1 {
        return (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
    (0..count).for_each(task);
}

/// Cuts `data` every `length` elements and runs `task(index, piece)` on each piece; the last one may be shorter.
pub fn pieces<T: Send>(data: &mut [T], length: usize, task: impl Fn(usize, &mut [T]) + Sync + Send) {
    let length = length.max(1);
    #[cfg(not(target_arch = "wasm32"))]
    if data.len() > length {
        return data.par_chunks_mut(length).with_max_len(1).enumerate().for_each(|(index, piece)| task(index, piece));
    }
    data.chunks_mut(length).enumerate().for_each(|(index, piece)| task(index, piece));
}

/// Cuts two arrays into the same number of pieces, of `length_a` and `length_b` elements.
pub fn pieces2<A: Send, B: Send>(
    a: &mut [A],
    length_a: usize,
    b: &mut [B],
    length_b: usize,
    task: impl Fn(usize, &mut [A], &mut [B]) + Sync + Send,
) {
    let (length_a, length_b) = (length_a.max(1), length_b.max(1));
    assert_eq!(a.len().div_ceil(length_a), b.len().div_ceil(length_b), "arrays must have equally many pieces");
    #[cfg(not(target_arch = "wasm32"))]
    if a.len() > length_a {
        return a
            .par_chunks_mut(length_a)
            .with_max_len(1)
            .zip(b.par_chunks_mut(length_b).with_max_len(1))
            .enumerate()
            .for_each(|(index, (a, b))| task(index, a, b));
    }
    a.chunks_mut(length_a).zip(b.chunks_mut(length_b)).enumerate().for_each(|(index, (a, b))| task(index, a, b));
}

/// Does work of many short parallel pieces on one of the threads that share them: from elsewhere each piece would wait for a
/// thread to wake up.
pub fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    #[cfg(not(target_arch = "wasm32"))]
    return rayon::scope(|_| work());
    #[cfg(target_arch = "wasm32")]
    work()
}

/// Maps `0..count` to values, kept in order.
pub fn map<T: Send>(count: usize, task: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    #[cfg(not(target_arch = "wasm32"))]
    if count > 1 {
        return (0..count).into_par_iter().with_max_len(1).map(task).collect();
    }
    (0..count).map(task).collect()
}

/// A mutable array that several tasks write at places that do not overlap, where slices cannot say so (columns of a
/// row-major matrix).
#[derive(Clone, Copy)]
pub struct Shared<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: a `Shared` only hands out memory through the unsafe methods below, whose callers promise disjoint places.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Takes the array for as long as the tasks run.
    pub fn new(data: &mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), length: data.len() }
    }

    /// Elements `start .. start + length`.
    ///
    /// # Safety
    /// The array outlives the use, and no two live slices overlap.
    #[allow(clippy::mut_from_ref)] // the caller's promise stands in for the borrow checker
    pub unsafe fn slice<'a>(&self, start: usize, length: usize) -> &'a mut [T] {
        assert!(start <= self.length && length <= self.length - start, "slice outside the shared array");
        // SAFETY: inside the array, checked above; disjoint and alive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }

    /// Pointer to element `start`.
    ///
    /// # Safety
    /// As for [`Shared::slice`].
    pub unsafe fn pointer(&self, start: usize) -> *mut T {
        assert!(start <= self.length, "pointer outside the shared array");
        // SAFETY: inside or one past the array.
        unsafe { self.start.add(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_visited_once_with_its_own_index() {
        let mut data = vec![0usize; 1003];
        pieces(&mut data, 10, |index, piece| piece.iter_mut().for_each(|x| *x += index + 1));
        assert!(data.iter().enumerate().all(|(i, &x)| x == i / 10 + 1));
        let mut other = vec![0usize; 101];
        pieces2(&mut data, 10, &mut other, 1, |index, piece, one| {
            assert!(piece.len() == 10 || index == 100);
            one[0] = index;
        });
        assert!(other.iter().enumerate().all(|(i, &x)| x == i));
        assert_eq!(map(5, |i| i * i), [0, 1, 4, 9, 16]);
    }
}
