//! SO_RCVLOWAT above one byte: the mark from which on a socket is readable, and for which a blocking receive waits
//! (`sock_rcvlowat` in include/net/sock.h, `tcp_poll` and `tcp_recvmsg_locked` in net/ipv4/tcp.c).
//!
//! While a mark is set the direction stays on the kernel, which counts to it. Bytes that lay in the ring before count
//! as well: while they are unread, the kernel's own mark is lower by as many. If their sender takes them back, the
//! kernel counts them too, and its mark must be the program's again: it may have answered by the lower one before the
//! receiver knew ([`was_outdated`]).

use core::sync::atomic::Ordering::Relaxed;

use driver::cards::Held;
use driver::channel::Channel;
use driver::sys;
use libc::c_int;

use super::comes_here;
use super::options::waiting_in;
use crate::slot::Socket;
use crate::{epoll, process};

/// Whether the program set a mark that must be counted to.
#[inline]
pub(crate) fn is_marked(socket: &Socket) -> bool {
    socket.slot.low_water.load(Relaxed) > 1
}

/// Whether ring bytes alone make the socket readable, or those that are on their way from there to the kernel. An open
/// direction has no mark.
#[inline]
pub(crate) fn has_enough(socket: &Socket, channel: &Channel) -> bool {
    let incoming = channel.incoming();
    let (head, word) = (incoming.head(), incoming.word());
    word.position() != head && (word.is_open() || reaches(socket, channel))
}

fn reaches(socket: &Socket, channel: &Channel) -> bool {
    let mark = u64::from(socket.slot.low_water.load(Relaxed));
    comes_here(channel) && (mark <= 1 || channel.incoming().unread(channel.capacity() as u64) >= mark)
}

/// Whether ring bytes wait that are too few.
pub(crate) fn has_too_little(socket: &Socket, channel: &Channel) -> bool {
    is_marked(socket) && channel.incoming().is_unread() && !has_enough(socket, channel)
}

/// Makes the kernel's mark what the ring's bytes leave of the program's. The receive lock is held.
pub(crate) fn settle(socket: &Socket, held: &Held) {
    if is_marked(socket) {
        let waiting = socket.channel(held).and_then(waiting_in).unwrap_or(0);
        let mark = socket.slot.low_water.load(Relaxed);
        move_to(socket, mark.saturating_sub(u32::try_from(waiting).unwrap_or(u32::MAX)).max(1));
    }
}

#[cold]
fn move_to(socket: &Socket, wanted: u32) {
    let (own, lowered) = (socket.slot.low_water.load(Relaxed), socket.slot.kernel_low_water.load(Relaxed));
    let now = if lowered == 0 { own } else { lowered };
    if wanted == now || process::is_forbidden() {
        return;
    }
    // A mark that is reached as it is set is an edge for epoll (tcp_set_rcvlowat), and nothing has come: while both
    // are reached they are the same.
    let has = || sys::ioctl_int(socket.fd, libc::FIONREAD).unwrap_or(0);
    if wanted > now && i64::from(has()) >= i64::from(wanted) {
        return;
    }
    let value = c_int::try_from(wanted).unwrap_or(c_int::MAX);
    if sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &value).is_ok() {
        socket.slot.kernel_low_water.store(if wanted == own { 0 } else { wanted }, Relaxed);
    }
}

/// Whether the kernel's mark is lower than the program's.
pub(crate) fn is_lowered(socket: &Socket) -> bool {
    socket.slot.kernel_low_water.load(Relaxed) != 0
}

/// Whether the kernel may have called the socket readable by a mark that left room for ring bytes which are its own
/// now. If so the mark is right from here on, and the kernel must be asked again.
pub(crate) fn was_outdated(socket: &Socket) -> bool {
    if !is_lowered(socket) {
        return false;
    }
    let held = socket.lock_receive();
    let now = || socket.slot.kernel_low_water.load(Relaxed);
    let before = now();
    if !socket.is_current() {
        return false;
    }
    settle(socket, &held);
    before != 0 && (now() == 0 || now() > before)
}

/// The socket's rings go, or the socket does: the kernel has to count to the program's own mark.
pub(crate) fn restore(socket: &Socket) {
    if socket.slot.kernel_low_water.swap(0, Relaxed) != 0 {
        let own = socket.slot.low_water.load(Relaxed) as c_int;
        let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &own);
    }
}

/// The program's own mark, where the kernel's differs.
pub(crate) fn own_value(socket: &Socket) -> Option<c_int> {
    let lowered = socket.slot.kernel_low_water.load(Relaxed) != 0;
    lowered.then(|| socket.slot.low_water.load(Relaxed) as c_int)
}

/// The program sets its mark: `set` is the kernel's call.
pub(crate) fn set(socket: &Socket, set: impl FnOnce() -> c_int) -> c_int {
    let held = socket.lock_receive();
    let result = set();
    if result == 0 {
        crate::errno::kept(|| {
            note(socket);
            socket.slot.kernel_low_water.store(0, Relaxed);
            if let Some(channel) = socket.channel(&held) {
                was_set(socket, &held, channel);
            }
        });
    }
    result
}

/// Remembers the mark as the kernel holds it; an accepted socket has its listener's.
pub(crate) fn note(socket: &Socket) {
    let mut bytes: c_int = 1;
    let _ = sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &mut bytes);
    socket.slot.low_water.store(bytes.max(1) as u32, Relaxed);
}

/// A mark was set while the connection has rings. Whoever waits for it must hear of it if it is reached: of kernel
/// bytes the kernel tells, as the mark is lowered.
fn was_set(socket: &Socket, held: &Held, channel: &Channel) {
    if is_marked(socket) {
        channel.incoming().close();
    }
    settle(socket, held);
    if has_enough(socket, channel) && sys::ioctl_int(socket.fd, libc::FIONREAD) == Ok(0) {
        epoll::signal(socket, channel);
    }
}
