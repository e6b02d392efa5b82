//! A region that others use, seen by a tool: nothing of it is believed. [`Look`] maps it to be read only; [`Watched`] writes what a dump
//! wants.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use driver::sys::{self, Errno, Fd};
use stack::device::tap::Tap;
use stack::region::look;
use stack::region::slab::Handle;
use stack::region::{Layout, Refused as NotOurs};
use stack::tcp::tcb::Tcb;
use stack::udp::UdpSocket;

use crate::region::{Refused, Region};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// The file's bytes.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    length: usize,
}

/// A region that is looked at.
#[derive(Debug)]
pub struct Look {
    bytes: Mapped,
    layout: Layout,
}

impl Mapped {
    /// Copies bytes, word by word, while others write them. Records begin and end at words.
    fn copy(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?.next_multiple_of(WORD);
        if end > self.length || !offset.is_multiple_of(WORD) {
            return None;
        }
        let words = (offset..end).step_by(WORD).map(|at| {
            // SAFETY: the word is in the mapping, which begins at a page, and `at` is a multiple of its size; who writes it does so in
            // other mappings, and any value is one.
            unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }.load(Ordering::Relaxed)
        });
        let mut bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        bytes.truncate(len);
        Some(bytes)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping but `self`.
        unsafe { sys::munmap(self.base.as_ptr(), self.length) };
    }
}

impl Look {
    /// Maps the region in this file.
    ///
    /// # Errors
    /// What the file is not; what mmap(2) says.
    pub fn open(file: &Fd) -> Result<Self, Refused> {
        let no_memory = |errno| Refused::Memory { bytes: 0, errno };
        let length = sys::lseek(file.raw(), 0, libc::SEEK_END).map_err(no_memory)? as usize;
        let base = sys::mmap(Some(file), length, libc::PROT_READ, libc::MAP_SHARED).map_err(no_memory)?;
        let base = NonNull::new(base).ok_or(no_memory(Errno(libc::ENOMEM)))?;
        let bytes = Mapped { base, length };
        let header = bytes.copy(0, look::HEADER).unwrap_or_default();
        let layout = look::layout(&header).map_err(Refused::NotOurs)?;
        if layout.size > length {
            let (found, needed) = (length as u64, layout.size as u64);
            return Err(Refused::NotOurs(NotOurs::Size { found, needed }));
        }
        Ok(Self { bytes, layout })
    }

    /// The interface that the stack drives.
    #[must_use]
    pub fn interface(&self) -> Option<u32> {
        let place = look::place_of_ip(&self.layout);
        look::interface(&self.bytes.copy(place.offset, place.record)?)
    }

    /// A socket of TCP, if it is still there.
    #[must_use]
    pub fn socket(&self, socket: Handle) -> Option<Tcb> {
        let place = look::place_of_tcb(&self.layout, socket)?;
        look::tcb(&self.bytes.copy(place.offset, place.record)?, socket)
    }

    /// The same of UDP.
    #[must_use]
    pub fn datagrams(&self, socket: Handle) -> Option<UdpSocket> {
        let place = look::place_of_udp(&self.layout, socket)?;
        look::udp(&self.bytes.copy(place.offset, place.record)?, socket)
    }
}

/// A region whose packets a tool reads: it says in there that it wants them.
#[derive(Debug)]
pub struct Watched(Region);

impl Watched {
    /// Maps the region in this file, which may be written to.
    ///
    /// # Errors
    /// What the file is not; what mmap(2) says.
    pub fn open(file: &Fd) -> Result<Self, Refused> {
        Region::map(file, &Look::open(file)?.layout.limits).map(Self)
    }

    /// Where its packets are copied.
    #[must_use]
    pub fn tap(&self) -> Option<Tap<'_>> {
        self.0.shared().ok()?.tap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::memory;
    use stack::hash::Secret;
    use stack::region::Limits;

    #[test]
    fn a_region_in_use_is_looked_at() {
        let limits = Limits::SMALL;
        let file = memory(&limits).expect("memory");
        assert!(Look::open(&file).is_err(), "nobody has made it");
        let region = Region::map(&file, &limits).expect("mapped");
        // SAFETY: this thread alone uses it.
        let mut parts = unsafe { region.parts(|| Secret([1, 2])) }.expect("made");
        let socket = parts.tcp_socket(true, 0).expect("room");
        parts.ip.interface.number = 3;
        let look = Look::open(&file).expect("a region");
        assert_eq!(look.interface(), Some(3));
        assert!(look.socket(socket).is_some_and(|tcb| tcb.local_port == 0));
        assert!(look.socket(Handle { index: socket.index + 1, ..socket }).is_none());
    }
}
