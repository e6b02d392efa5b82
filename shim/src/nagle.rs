//! Nagle's algorithm and a connection that is now in its rings, now on the kernel.
//!
//! When requests go by the kernel and replies by the ring, no reply carries the acknowledgement: the peer's
//! kernel delays it, and Nagle holds the next small request for 40 ms. So the kernel's TCP_NODELAY is on while
//! the receiving direction is open. Where it stays closed Linux's own rule returns: a stream of small sends on
//! the kernel lives by being put together. The program always sees the value that it set.

use core::sync::atomic::Ordering::SeqCst;

use driver::channel::Channel;
use driver::sys;
use libc::c_int;

use crate::slot::Socket;

/// The program's own value.
const OWN: u8 = 1;
/// The connection has rings.
const RINGS: u8 = 2;
/// The kernel's value is 1, whatever the program's.
const FORCED: u8 = 4;

fn set(fd: c_int, value: c_int) {
    let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &value);
}

/// The kernel's value, as OWN.
fn current(fd: c_int) -> u8 {
    let mut value: c_int = 0;
    let _ = sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &mut value);
    if value != 0 { OWN } else { 0 }
}

/// The connection gets its rings, both directions closed.
pub(crate) fn rings_came(socket: &Socket) {
    socket.slot.nodelay.store(RINGS | current(socket.fd), SeqCst);
}

/// The receiving direction was opened, or what the kernel holds back must go.
pub(crate) fn force(socket: &Socket) {
    let nodelay = &socket.slot.nodelay;
    if nodelay.load(SeqCst) & FORCED == 0 && nodelay.fetch_or(FORCED, SeqCst) & OWN == 0 {
        set(socket.fd, 1);
    }
}

/// What goes by the kernel now must go at once.
pub(crate) fn push(socket: &Socket) {
    if socket.slot.nodelay.load(SeqCst) & RINGS != 0 {
        force(socket);
    }
}

/// Several sends in a row went by the kernel.
pub(crate) fn streams(socket: &Socket, channel: &Channel) {
    let nodelay = &socket.slot.nodelay;
    if nodelay.load(SeqCst) != RINGS | FORCED || channel.incoming().word().is_open() {
        return;
    }
    set(socket.fd, 0);
    nodelay.fetch_and(!FORCED, SeqCst);
    // Another thread may have opened before it could see that: one of the two looks finds it.
    if channel.incoming().word().is_open() {
        force(socket);
    }
}

/// The connection leaves its rings for good.
pub(crate) fn restore(socket: &Socket) {
    if socket.slot.nodelay.swap(0, SeqCst) == RINGS | FORCED {
        set(socket.fd, 0);
    }
}

/// The program set the option, and the kernel took it: keep the kernel's on all the same.
pub(crate) fn was_set(socket: &Socket) {
    let state = socket.slot.nodelay.load(SeqCst);
    if state & RINGS == 0 {
        return;
    }
    socket.slot.nodelay.store(state & !OWN | current(socket.fd), SeqCst);
    if state & FORCED != 0 {
        set(socket.fd, 1);
    }
}

/// The program's own value, where the connection has rings.
pub(crate) fn own_value(socket: &Socket) -> Option<c_int> {
    let state = socket.slot.nodelay.load(SeqCst);
    (state & RINGS != 0).then_some(c_int::from(state & OWN))
}
