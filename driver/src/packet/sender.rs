//! Who sends what is queued for the packet socket: one thread of all processes at a time, so that packets leave in their order. Who finds
//! it busy goes on, since the one that sends looks again before it ends.
//!
//! Nobody holds the stack's lock for it: a packet of 64 KiB takes the kernel 10 µs.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::queue::{Outcome, Queue};
use super::{Frames, Socket};
use crate::sys::{self, Errno};

/// The sender's role, until it is dropped.
struct Role<'a>(&'a AtomicU64);

impl<'a> Role<'a> {
    /// `None` while another thread has it that still lives.
    fn take(word: &'a AtomicU64) -> Option<Self> {
        // What was queued is seen by whoever still has it: see [`drain`].
        fence(Ordering::SeqCst);
        let own = sys::gettid() as u64;
        let taken = |from| {
            word.compare_exchange(from, own, Ordering::Acquire, Ordering::Relaxed).err().map_or(Ok(()), Err)
        };
        let Err(holder) = taken(0) else { return Some(Self(word)) };
        // A number that is used again looks alive: then its packets wait until that thread ends, too.
        let is_gone = holder == own || !sys::is_alive(holder as i32);
        // Not `then_some`: a role that was made and isn't ours would be given back when it is dropped.
        (is_gone && taken(holder).is_ok()).then(|| Self(word))
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// What became of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// It is empty, or another thread sees to it.
    All,
    /// The kernel's buffer is full: to be tried again.
    Stopped,
}

/// Sends what is queued, each packet after what `before` sends: what went another way before it.
pub(crate) fn drain(queue: &Queue, socket: &Socket, frames: Frames<'_>, mut before: impl FnMut()) -> Drained {
    while queue.is_busy() {
        let Some(role) = Role::take(queue.sender()) else { return Drained::All };
        while let Some(next) = queue.next() {
            before();
            match socket.send(&next.header, frames, &next.pieces[..next.count]) {
                Err(Errno(libc::EAGAIN | libc::EINTR)) => return Drained::Stopped,
                Ok(_) => queue.pass(&next, Outcome::Sent),
                // It knows no such header: the stack is to cut by itself.
                Err(Errno(libc::EINVAL)) if next.is_cut() => queue.pass(&next, Outcome::Refused),
                // A link that is down loses packets, and so does a device whose queue is full (ENOBUFS).
                Err(_) => queue.pass(&next, Outcome::Lost),
            }
        }
        drop(role);
        // Who queued something and found the role taken has left it to us: either he sees that it is free, or we see what he queued.
        fence(Ordering::SeqCst);
    }
    Drained::All
}

#[cfg(test)]
mod tests;
