//! Options under which the kernel tells a receiver more than bytes, while ring bytes are still to be read: SO_PEEK_OFF,
//! and what comes as control messages (TCP_INQ, timestamps).
//!
//! Such an option takes the connection to the kernel for good, but what lies in the ring then is read first. A peek's
//! offset is kept in two parts: the part inside the ring here, the rest in the kernel, which counts from its own
//! first byte. Together they are what Linux would have (sk_peek_offset_fwd and _bwd in include/net/sock.h).

use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;

use driver::cards::Held;
use driver::channel::Channel;
use driver::switch::available;
use driver::sys;
use libc::{c_int, c_void, msghdr};

use super::{comes_here, mark};
use crate::cmsg::Room;
use crate::slot::Socket;

/// linux/tcp.h: the option, and the type of its control message.
pub(crate) const TCP_INQ: c_int = 36;

/// Room for control messages in the program's own message.
pub(crate) struct Control {
    at: *mut c_void,
    length: usize,
    /// `msg_controllen` and `msg_flags` as the kernel left them.
    given: Cell<Option<(usize, c_int)>>,
}

impl Control {
    /// The room in `message`, for a socket on which the kernel gives control messages.
    pub(crate) fn of(socket: &Socket, message: &msghdr) -> Option<Self> {
        let wanted = socket.is_live() && socket.slot.controls.load(Relaxed) != 0;
        let (at, length) = (message.msg_control, message.msg_controllen);
        wanted.then(|| Self { at, length, given: Cell::new(None) })
    }

    /// Offers the room to the kernel.
    pub(super) fn offer(&self, message: &mut msghdr) {
        (message.msg_control, message.msg_controllen) = (self.at, self.length);
    }

    /// The kernel has filled it.
    pub(super) fn take(&self, message: &msghdr) {
        self.given.set(Some((message.msg_controllen, message.msg_flags)));
    }

    /// What the program's message says afterwards: `msg_controllen` and the flags. Of ring bytes only TCP_INQ tells
    /// anything: how many more can be read (put_cmsg in net/core/scm.c).
    ///
    /// # Safety
    /// The room is writable.
    pub(crate) unsafe fn answer(&self, socket: &Socket) -> (usize, c_int) {
        if let Some(given) = self.given.get() {
            return given;
        }
        let mut on: c_int = 0;
        let asked = sys::getsockopt(socket.fd, libc::IPPROTO_TCP, TCP_INQ, &mut on);
        if asked.is_err() || on == 0 {
            return (0, 0);
        }
        let left = waiting(socket).unwrap_or(0);
        // SAFETY: the caller's contract.
        let mut room = unsafe { Room::new(self.at, self.length) };
        room.put(libc::IPPROTO_TCP, TCP_INQ, &left.to_ne_bytes());
        room.given()
    }
}

/// Where in the ring a peek begins, counted from its first unread byte.
pub(super) fn peek_from(socket: &Socket, _held: &Held) -> u64 {
    u64::from(socket.slot.peek_offset.load(Relaxed).saturating_sub(1))
}

/// The sender took the ring's bytes back, for the kernel: what was to be skipped of them, the kernel skips.
pub(super) fn settle(socket: &Socket, held: &Held, channel: &Channel) {
    let skipped = peek_from(socket, held) as c_int;
    if skipped == 0 || waiting_in(channel) != Some(0) {
        return;
    }
    let mut offset: c_int = -1;
    let asked = sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &mut offset);
    if asked.is_ok() && offset >= 0 {
        let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &(offset + skipped));
    }
    socket.slot.peek_offset.store(1, Relaxed);
}

/// A peek gave so many bytes, those in the ring first; the kernel has counted its own.
pub(super) fn peeked(socket: &Socket, count: usize) {
    if socket.slot.peek_offset.load(Relaxed) != 0 {
        let held = socket.lock_receive();
        let waiting = socket.channel(&held).and_then(waiting_in).unwrap_or(0);
        let now = (peek_from(socket, &held) + count as u64).min(waiting);
        socket.slot.peek_offset.store(now as u32 + 1, Relaxed);
    }
}

/// So many ring bytes are gone.
pub(super) fn consumed(socket: &Socket, held: &Held, count: usize) {
    if socket.slot.peek_offset.load(Relaxed) != 0 {
        let now = peek_from(socket, held).saturating_sub(count as u64);
        socket.slot.peek_offset.store(now as u32 + 1, Relaxed);
    }
    mark::settle(socket, held);
}

/// The program sets SO_PEEK_OFF; the direction is closed for good. `set` gives the kernel its part.
pub(crate) fn set_peek_offset(socket: &Socket, offset: c_int, set: impl FnOnce(c_int) -> c_int) -> c_int {
    let held = socket.lock_receive();
    let waiting = socket.channel(&held).and_then(waiting_in).unwrap_or(0);
    let in_ring = (offset.max(0) as u64).min(waiting) as c_int;
    let result = set(offset - in_ring);
    if result == 0 {
        let noted = if offset < 0 { 0 } else { in_ring as u32 + 1 };
        socket.slot.peek_offset.store(noted, Relaxed);
    }
    result
}

/// The part of SO_PEEK_OFF that the kernel does not know of.
pub(crate) fn peek_offset_in_ring(socket: &Socket) -> c_int {
    let held = socket.lock_receive();
    peek_from(socket, &held) as c_int
}

/// Bytes that wait for the program, in ring and kernel together; `None` for a socket without rings.
pub(crate) fn waiting(socket: &Socket) -> Option<c_int> {
    let held = socket.lock_receive();
    let channel = socket.channel(&held)?;
    // SAFETY: the receive lock is held.
    let kread = unsafe { socket.receiving(&held) }.kread;
    let ring = waiting_in(channel).unwrap_or(0) as c_int;
    let kernel = sys::ioctl_int(socket.fd, libc::FIONREAD).unwrap_or(0);
    // Taken back bytes are the kernel's first ones, or will be.
    match channel.incoming().coming(kread, channel.capacity() as u64).filter(|_| comes_here(channel)) {
        Some(coming) => Some(kernel.max(coming as c_int)),
        None => Some(ring + kernel),
    }
}

/// Unread ring bytes that come by the ring; `None` if the peer cheats.
pub(super) fn waiting_in(channel: &Channel) -> Option<u64> {
    let incoming = channel.incoming();
    let head = incoming.head();
    let unread = available(incoming.word().position(), head, channel.capacity() as u64).ok();
    if incoming.is_taken_back() { Some(0) } else { unread }
}
