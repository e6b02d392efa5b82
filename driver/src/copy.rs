//! Copies between private buffers and ring memory that the peer may write at the same time.
//!
//! No reference to ring bytes is ever made: only raw pointers, read or written once. What is read may be
//! torn if the peer cheats; it is then the peer's own data that is wrong.

use core::ptr;

/// Writes from this many bytes on go around the cache: dirty lines that move from core to core are the
/// slowest way of passing bulk data (2–7 GB/s against 10–14).
pub const STREAMING_FROM: usize = 4096;

/// Bytes of one direction: a power of two of shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    base: *mut u8,
    capacity: usize,
}

impl Ring {
    /// A ring over mapped memory.
    ///
    /// # Safety
    /// `base` must stay mapped readable and writable for `capacity` bytes, a power of two, while it is used.
    #[must_use]
    pub const unsafe fn new(base: *mut u8, capacity: usize) -> Self {
        Self { base, capacity }
    }

    /// Its size in bytes.
    #[inline]
    #[must_use]
    pub const fn capacity(self) -> usize {
        self.capacity
    }

    /// Splits a range at the ring's end: offset and length of the first part; the rest starts at 0.
    #[inline]
    fn split(self, position: u64, count: usize) -> (usize, usize) {
        let offset = position as usize & (self.capacity - 1);
        (offset, count.min(self.capacity - offset))
    }

    /// Copies `count` bytes into the ring at `position`.
    ///
    /// # Safety
    /// `source` must be readable for `count` bytes, and `count` at most the capacity.
    #[inline]
    pub unsafe fn write(self, position: u64, source: *const u8, count: usize) {
        let (offset, first) = self.split(position, count);
        // SAFETY: offset + first ≤ capacity by `split`; the rest fits before `offset` as count ≤ capacity.
        unsafe {
            into_ring(self.base.add(offset), source, first);
            if first < count {
                into_ring(self.base, source.add(first), count - first);
            }
        }
    }

    /// Copies `count` bytes out of the ring from `position`.
    ///
    /// # Safety
    /// `target` must be writable for `count` bytes, and `count` at most the capacity.
    #[inline]
    pub unsafe fn read(self, position: u64, target: *mut u8, count: usize) {
        let (offset, first) = self.split(position, count);
        // SAFETY: as in `write`.
        unsafe {
            ptr::copy_nonoverlapping(self.base.add(offset), target, first);
            if first < count {
                ptr::copy_nonoverlapping(self.base, target.add(first), count - first);
            }
        }
    }

    /// The contiguous piece of the ring that starts at `position`, at most `count` bytes: for system calls
    /// that read or write ring memory directly.
    #[must_use]
    pub fn piece(self, position: u64, count: usize) -> (*mut u8, usize) {
        let (offset, first) = self.split(position, count);
        (self.base.wrapping_add(offset), first)
    }
}

/// Copies into ring memory, around the cache when it is much.
///
/// # Safety
/// Both ranges must be valid for `count` bytes and not overlap.
#[inline]
unsafe fn into_ring(target: *mut u8, source: *const u8, count: usize) {
    if count >= STREAMING_FROM {
        // SAFETY: the caller's contract.
        unsafe { stream(target, source, count) };
    } else {
        // SAFETY: the caller's contract.
        unsafe { ptr::copy_nonoverlapping(source, target, count) };
    }
}

/// Copies with non-temporal stores; they are globally visible before it returns.
///
/// # Safety
/// Both ranges must be valid for `count` bytes and not overlap.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
unsafe fn stream(target: *mut u8, source: *const u8, count: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let head = target.align_offset(16).min(count);
    let blocks = (count - head) / 64;
    // SAFETY: every access lies inside the two ranges; stores are 16-byte aligned after `head`.
    unsafe {
        ptr::copy_nonoverlapping(source, target, head);
        let (mut to, mut from) = (target.add(head), source.add(head));
        for _ in 0..blocks {
            let values: [__m128i; 4] = core::array::from_fn(|i| _mm_loadu_si128(from.add(16 * i).cast()));
            for (i, value) in values.into_iter().enumerate() {
                _mm_stream_si128(to.add(16 * i).cast(), value);
            }
            to = to.add(64);
            from = from.add(64);
        }
        ptr::copy_nonoverlapping(from, to, count - head - 64 * blocks);
        _mm_sfence();
    }
}

/// Plain copy where the architecture has no streaming stores that pay.
///
/// # Safety
/// Both ranges must be valid for `count` bytes and not overlap.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(target: *mut u8, source: *const u8, count: usize) {
    // SAFETY: the caller's contract.
    unsafe { ptr::copy_nonoverlapping(source, target, count) };
}

#[cfg(test)]
mod tests;
