//! The memory of frames: what AF_XDP calls UMEM, a range of a memfd that every process of a stack maps.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::sync::Arc;

use stack::device::{FrameIndex, Memory};

use crate::sys::{self, Errno, Fd};

/// The smallest and the largest frame that AF_XDP takes, in bytes (xdp_umem_reg); a power of two.
const FRAME_MIN: u16 = 2048;
const FRAME_MAX: u16 = 4096;
/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;
/// What the memory is called in /proc/PID/maps.
const NAME: &core::ffi::CStr = c"accel-frames";

/// All of a file in this process's memory. It lends no bytes: those are the frames' to lend, or another process's.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its mapping and never touches what is in it but for whole words, atomically.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file.
    ///
    /// # Errors
    /// EINVAL for an empty one; what mmap(2) says.
    pub fn new(file: &Fd) -> sys::Result<Self> {
        // All of the file, which is whole pages of whatever size it has: what lies behind its end could be mapped, but not touched.
        let length = sys::lseek(file.raw(), 0, libc::SEEK_END)? as usize;
        let base = NonNull::new(sys::mmap_shared(file, length, 0)?).ok_or(Errno(libc::ENOMEM))?;
        Ok(Self { base, length })
    }

    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Bytes of it.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// A word of it, counted from its beginning.
    ///
    /// # Panics
    /// When it has no such word.
    #[inline]
    #[must_use]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.length / size_of::<AtomicU64>(), "a word of the mapping");
        // SAFETY: the word is in the mapping, which begins at a page's beginning and lives as long as `self`; who writes words does so
        // atomically, in this process and in others.
        unsafe { self.base.cast::<AtomicU64>().add(at).as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping but `self`.
        unsafe { sys::munmap(self.base.as_ptr(), self.length) };
    }
}

/// The frames, mapped.
#[derive(Debug)]
pub struct Umem {
    mapping: Arc<Mapping>,
    base: NonNull<u8>,
    frames: u32,
    frame_size: u16,
}

// SAFETY: it lends bytes only as `&self` and `&mut self` allow, and who else has the mapping doesn't touch them.
unsafe impl Send for Umem {}

/// Memory for so many frames of so many bytes: of large pages if the machine has them.
///
/// # Errors
/// ENOMEM, or what memfd_create(2) says.
pub fn memory(frames: u32, frame_size: u16) -> sys::Result<Fd> {
    let length = frames as usize * usize::from(frame_size);
    let whole = length.next_multiple_of(LARGE_PAGE);
    // Large pages are reserved by a mapping, not by the file's length: without it whoever touches one that isn't there dies.
    let is_there = |file: &Fd| {
        // SAFETY: it was mapped just now, and nobody has seen it.
        sys::mmap_shared(file, whole, 0).map(|at| unsafe { sys::munmap(at, whole) }).is_ok()
    };
    let large = sys::memfd_create(NAME, libc::MFD_CLOEXEC | libc::MFD_HUGETLB | libc::MFD_HUGE_2MB)
        .and_then(|file| sys::ftruncate(&file, whole).map(|()| file));
    if let Some(file) = large.ok().filter(is_there) {
        return Ok(file);
    }
    let file = sys::memfd_create(NAME, libc::MFD_CLOEXEC)?;
    sys::ftruncate(&file, length)?;
    Ok(file)
}

impl Umem {
    /// Maps so many frames of so many bytes, which begin at the file's beginning.
    ///
    /// # Errors
    /// EINVAL for frames that AF_XDP doesn't take, or that the file has no room for; what mmap(2) says.
    pub fn map(file: &Fd, frames: u32, frame_size: u16) -> sys::Result<Self> {
        let is_frame = frame_size.is_power_of_two() && (FRAME_MIN..=FRAME_MAX).contains(&frame_size);
        let needed = frames as usize * usize::from(frame_size);
        let length = sys::lseek(file.raw(), 0, libc::SEEK_END)? as usize;
        if !is_frame || needed == 0 || length < needed {
            return Err(Errno(libc::EINVAL));
        }
        let mapping = Arc::new(Mapping::new(file)?);
        let base = mapping.base;
        Ok(Self { mapping, base, frames, frame_size })
    }

    /// The memory itself, for the kernel to read frames that are being sent.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }

    /// Where it begins, for XDP_UMEM_REG.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn length(&self) -> u64 {
        u64::from(self.frames) * u64::from(self.frame_size)
    }

    /// Bytes of a frame.
    #[must_use]
    pub const fn frame_size(&self) -> u16 {
        self.frame_size
    }

    /// The first byte of a frame.
    #[inline]
    fn place(&self, frame: FrameIndex) -> Option<NonNull<u8>> {
        // SAFETY: a frame with a smaller number than there are is in the mapping.
        (frame.0 < self.frames)
            .then(|| unsafe { self.base.add(frame.0 as usize * usize::from(self.frame_size)) })
    }
}

impl Memory for Umem {
    #[inline]
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        let place = self.place(frame)?;
        // SAFETY: the frame is in the mapping. Who asks for its bytes has it, or the device only reads it ([`Memory`]): the stack's state
        // words say so, under the stack's lock, whichever process works. Any bytes are bytes.
        Some(unsafe { core::slice::from_raw_parts(place.as_ptr(), self.frame_size.into()) })
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let place = self.place(frame)?;
        // SAFETY: as above; and nobody else has a reference to it while `self` is borrowed.
        Some(unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), self.frame_size.into()) })
    }

    #[inline]
    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        let (source, target) = (self.place(from)?, self.place(to)?);
        if from == to {
            return None;
        }
        let size = usize::from(self.frame_size);
        // SAFETY: as above; two frames with different numbers don't overlap.
        Some(unsafe {
            (
                core::slice::from_raw_parts(source.as_ptr(), size),
                core::slice::from_raw_parts_mut(target.as_ptr(), size),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_apart_and_shared_with_other_mappings() {
        let file = memory(8, 2048).expect("memory");
        let (mut one, other) =
            (Umem::map(&file, 8, 2048).expect("frames"), Umem::map(&file, 8, 2048).expect("the same"));
        one.bytes_mut(FrameIndex(3)).expect("a frame").fill(7);
        assert!(other.bytes(FrameIndex(3)).expect("a frame").iter().all(|byte| *byte == 7));
        for neighbour in [2, 4] {
            assert!(other.bytes(FrameIndex(neighbour)).expect("a frame").iter().all(|byte| *byte == 0));
        }
        let (from, to) = one.pair(FrameIndex(3), FrameIndex(7)).expect("two frames");
        to.copy_from_slice(from);
        assert_eq!(other.bytes(FrameIndex(7)).map(|bytes| bytes[2047]), Some(7));
        assert!(one.bytes(FrameIndex(8)).is_none() && one.pair(FrameIndex(1), FrameIndex(1)).is_none());
    }

    #[test]
    fn what_no_umem_is_is_refused() {
        let file = memory(8, 2048).expect("memory");
        for (frames, size) in [(0, 2048), (1 << 20, 2048), (8, 1024), (8, 3000)] {
            assert!(Umem::map(&file, frames, size).is_err(), "{frames} {size}");
        }
    }
}
