//! Copies between private buffers and ring memory that the peer may write at the same time.
//!
//! No reference to ring bytes is ever made: only raw pointers, read or written once. What is read may be
//! torn if the peer cheats; it is then the peer's own data that is wrong. Plain copies: stores around the
//! cache were half as fast when both ends are awake (`examples/ring_bench.rs`).

use crate::fault::copy;

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

    /// Copies `count` bytes into the ring at `position`; false if the source is not mapped.
    ///
    /// # Safety
    /// `source` must be readable for `count` bytes where it is mapped, and `count` at most the capacity.
    #[inline]
    #[must_use]
    pub unsafe fn write(self, position: u64, source: *const u8, count: usize) -> bool {
        let (offset, first) = self.split(position, count);
        // SAFETY: offset + first ≤ capacity by `split`; the rest fits before `offset` as count ≤ capacity.
        unsafe {
            copy(source, self.base.add(offset), first)
                && (first == count || copy(source.add(first), self.base, count - first))
        }
    }

    /// Makes the line at `position` ours to write, ahead of the next message: its bytes were last read by the
    /// peer, and fetching them would hold up the send.
    #[inline]
    pub fn claim(self, position: u64) {
        let line = self.base.wrapping_add(position as usize & (self.capacity - 1));
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch changes no memory, and never faults.
        unsafe {
            core::arch::asm!("prefetchw [{line}]", line = in(reg) line, options(nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("prfm pstl1keep, [{line}]", line = in(reg) line, options(nostack, preserves_flags));
        }
    }

    /// Copies `count` bytes out of the ring from `position`; false if the target is not mapped.
    ///
    /// # Safety
    /// `target` must be writable for `count` bytes where it is mapped, and `count` at most the capacity.
    #[inline]
    #[must_use]
    pub unsafe fn read(self, position: u64, target: *mut u8, count: usize) -> bool {
        let (offset, first) = self.split(position, count);
        // SAFETY: as in `write`.
        unsafe {
            copy(self.base.add(offset), target, first)
                && (first == count || copy(self.base, target.add(first), count - first))
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

#[cfg(test)]
mod tests;
