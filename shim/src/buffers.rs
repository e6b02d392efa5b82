//! The caller's buffers: one or several, taken in order.

use core::mem::MaybeUninit;

use driver::copy::Ring;
use libc::{c_void, iovec};

/// A caller's buffers, of which `done` bytes are used.
#[derive(Debug)]
pub(crate) struct Buffers<'a> {
    vector: &'a [iovec],
    /// Bytes asked for in all.
    total: usize,
    done: usize,
    /// A buffer lies where no buffer can be: the kernel's answer is EFAULT.
    faulty: bool,
    /// A buffer lies where no user address can be: EFAULT even where nothing is copied.
    wild: bool,
}

impl<'a> Buffers<'a> {
    /// The caller's vector; `None` if its lengths are not legal, so that the kernel may say so.
    ///
    /// # Safety
    /// `vector` must be readable; the buffers are the caller's promise, as with the system call.
    pub(crate) unsafe fn new(vector: &'a [iovec]) -> Option<Self> {
        let (mut total, mut faulty, mut wild) = (0usize, false, false);
        for buffer in vector {
            total = total.checked_add(buffer.iov_len)?;
            faulty |= buffer.iov_len != 0 && !can_be_buffer(buffer.iov_base, buffer.iov_len);
            wild |= buffer.iov_base as usize >= 1 << 47;
        }
        (isize::try_from(total).is_ok() && vector.len() <= 1024).then_some(Self {
            vector,
            total,
            done: 0,
            faulty,
            wild,
        })
    }

    /// Whether a copy would fault.
    #[inline]
    pub(crate) const fn is_faulty(&self) -> bool {
        self.faulty
    }

    /// Whether a buffer is no user address at all.
    pub(crate) const fn is_wild(&self) -> bool {
        self.wild
    }

    /// Bytes asked for in all.
    #[inline]
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// Bytes used so far.
    #[inline]
    pub(crate) const fn done(&self) -> usize {
        self.done
    }

    /// Bytes not used yet.
    #[inline]
    pub(crate) const fn left(&self) -> usize {
        self.total - self.done
    }

    /// Counts bytes that somebody else moved.
    #[inline]
    pub(crate) const fn advance(&mut self, count: usize) {
        self.done += count;
    }

    /// Takes back what was used beyond `done`.
    #[inline]
    pub(crate) const fn retreat(&mut self, done: usize) {
        self.done = done;
    }

    /// The same buffers, nothing used.
    pub(crate) const fn rewound(&self) -> Self {
        Self { vector: self.vector, total: self.total, done: 0, faulty: self.faulty, wild: self.wild }
    }

    /// Calls `f(pointer, length, moved before)` for the pieces that hold the next `count` bytes, which are then
    /// used; false, and none of them, if one fails.
    #[inline]
    fn pieces(&mut self, count: usize, mut f: impl FnMut(*mut u8, usize, usize) -> bool) -> bool {
        let (mut skip, mut moved) = (self.done, 0);
        for buffer in self.vector {
            if skip >= buffer.iov_len {
                skip -= buffer.iov_len;
                continue;
            }
            let piece = (buffer.iov_len - skip).min(count - moved);
            if !f(buffer.iov_base.cast::<u8>().wrapping_add(skip), piece, moved) {
                return false;
            }
            moved += piece;
            skip = 0;
            if moved == count {
                break;
            }
        }
        self.done += moved;
        true
    }

    /// Fills the next `count` bytes from the ring at `position`; false if a buffer is not mapped.
    ///
    /// # Safety
    /// The buffers are writable where they are mapped, and `count ≤ left()`, at most what is published in the ring.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn fill(&mut self, ring: Ring, position: u64, count: usize) -> bool {
        self.pieces(count, |at, length, moved| {
            // SAFETY: `pieces` stays inside the caller's buffers; the rest is the caller's contract.
            unsafe { ring.read(position + moved as u64, at, length) }
        })
    }

    /// Copies the next `count` bytes into the ring at `position`; false if a buffer is not mapped.
    ///
    /// # Safety
    /// The buffers are readable where they are mapped, and `count ≤ left()`, at most the room in the ring.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn pour(&mut self, ring: Ring, position: u64, count: usize) -> bool {
        self.pieces(count, |at, length, moved| {
            // SAFETY: as in `fill`.
            unsafe { ring.write(position + moved as u64, at, length) }
        })
    }

    /// The unused rest as a vector of its own.
    pub(crate) fn rest<'r>(&self, room: &'r mut Room) -> &'r mut [iovec] {
        let (mut skip, mut count) = (self.done, 0);
        for buffer in self.vector {
            if skip >= buffer.iov_len {
                skip -= buffer.iov_len;
                continue;
            }
            let Some(place) = room.0.get_mut(count) else { break };
            let base = buffer.iov_base.cast::<u8>().wrapping_add(skip).cast();
            place.write(iovec { iov_base: base, iov_len: buffer.iov_len - skip });
            count += 1;
            skip = 0;
        }
        // SAFETY: the first `count` entries were written just now.
        unsafe { core::slice::from_raw_parts_mut(room.0.as_mut_ptr().cast(), count) }
    }
}

/// Whether a pointer can be a buffer at all: NULL, the first pages and non-canonical addresses get
/// EFAULT, as from the kernel.
#[inline]
pub(crate) fn can_be_buffer(base: *mut c_void, length: usize) -> bool {
    let start = base as usize;
    start >= 65536 && start.checked_add(length).is_some_and(|end| end <= 1 << 47)
}

/// Whether a pointer to an argument can be one; otherwise the kernel is asked, and says EFAULT.
pub(crate) fn is_plausible<T>(pointer: *const T) -> bool {
    (65536..1 << 47).contains(&(pointer as usize))
}

/// The most that one call moves: MAX_RW_COUNT of linux/fs.h. recv and send shorten to it what is asked for.
pub(crate) const MOST: usize = 0x7fff_f000;

/// Room for a vector. Not cleared: most calls use one entry of it.
pub(crate) struct Room([MaybeUninit<iovec>; 64]);

impl Room {
    pub(crate) const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; 64])
    }
}
