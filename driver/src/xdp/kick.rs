//! Who tells the kernel of what was sent: a system call of 2 µs and more, which is not made under the stack's lock. So this is apart from
//! the device, and any thread of a process may use it at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::socket::Waker;
use super::umem::{Mapping, Umem};
use crate::packet::queue::Queue;
use crate::packet::sender::{Drained, drain};
use crate::packet::{Frames, Socket};
use crate::sys::{self, Fd};

/// The second way out of an interface: packets that the kernel cuts.
#[derive(Debug)]
pub struct Packets {
    socket: Socket,
    file: Fd,
    pub(super) queue: Queue,
}

impl Packets {
    /// By this socket, with what waits for it in this memory ([`crate::packet::queue::memory`]): both may come from another process.
    ///
    /// # Errors
    /// EINVAL when the memory is too small; what mmap(2) says.
    pub fn new(socket: Socket, file: Fd) -> sys::Result<Self> {
        Queue::map(&file).map(|queue| Self { socket, file, queue })
    }

    /// Over the descriptors of [`Self::fds`], in another process.
    ///
    /// # Errors
    /// As above.
    pub fn adopt([socket, file]: [Fd; 2]) -> sys::Result<Self> {
        Self::new(Socket::adopt(socket), file)
    }

    /// The descriptors of the socket and of the memory, for other processes of the stack. Whoever gets them may send by any
    /// interface of the network namespace: see [`Socket`].
    #[must_use]
    pub const fn fds(&self) -> [&Fd; 2] {
        [self.socket.fd(), &self.file]
    }

    /// Packets that were lost before they were on the link.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost()
    }
}

/// What pays kicks.
#[derive(Debug)]
pub struct Kicker {
    ring: Waker,
    packets: Option<Packets>,
    memory: Arc<Mapping>,
    frame_size: u16,
    owes: AtomicBool,
}

impl Kicker {
    /// For what leaves by a ring and, if there is that, by a packet socket.
    pub(super) fn new(ring: Waker, packets: Option<Packets>, umem: &Umem) -> Self {
        let (memory, frame_size) = (umem.mapping(), umem.frame_size());
        Self { ring, packets, memory, frame_size, owes: AtomicBool::new(false) }
    }

    /// The second way out, if there is one.
    #[inline]
    #[must_use]
    pub const fn packets(&self) -> Option<&Packets> {
        self.packets.as_ref()
    }

    /// Something was sent that the kernel hasn't been told of.
    #[inline]
    pub(super) fn owe(&self) {
        self.owes.store(true, Ordering::Relaxed);
    }

    /// Whether a kick is owed.
    #[inline]
    #[must_use]
    pub fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    /// Pays the kick that [`stack::device::Device::flush`] said is owed. Whether the kernel wants to be asked again.
    pub fn kick(&self) -> bool {
        self.owes.store(false, Ordering::Relaxed);
        let mut wants = self.ring.kick();
        if let Some(Packets { socket, queue, .. }) = &self.packets
            && queue.is_busy()
        {
            let frames = Frames { memory: &self.memory, frame_size: self.frame_size };
            // What is in the ring was sent before: while something is queued here, nothing is added there.
            let before = || wants |= self.ring.kick();
            wants |= drain(queue, socket, frames, before) == Drained::Stopped;
        }
        if wants {
            self.owe();
        }
        wants
    }
}
