//! Nagle's algorithm and a connection that is now in its rings, now on the kernel.
//!
//! When requests go by the kernel and replies by the ring, no reply carries the acknowledgement: the peer's
//! kernel delays it, and Nagle holds the next small request for 40 ms. So the kernel's TCP_NODELAY is on while a
//! connection has rings; the program keeps seeing the value that it set.

use core::sync::atomic::Ordering::Relaxed;

use driver::sys;
use libc::c_int;

use crate::slot::Socket;

const OWN: u8 = 1;
const FORCED: u8 = 2;

fn set(fd: c_int, value: c_int) {
    let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &value);
}

/// The connection gets its rings.
pub(crate) fn switch_off(socket: &Socket) {
    let mut own: c_int = 0;
    let _ = sys::getsockopt(socket.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &mut own);
    socket.slot.nodelay.store(FORCED | u8::from(own != 0), Relaxed);
    set(socket.fd, 1);
}

/// The connection leaves its rings for good.
pub(crate) fn restore(socket: &Socket) {
    if socket.slot.nodelay.swap(0, Relaxed) == FORCED {
        set(socket.fd, 0);
    }
}

/// The program set the option, and the kernel took it: keep the kernel's on all the same.
pub(crate) fn was_set(socket: &Socket) {
    if socket.slot.nodelay.load(Relaxed) & FORCED != 0 {
        switch_off(socket);
    }
}

/// The program's own value, where the kernel's differs.
pub(crate) fn own_value(socket: &Socket) -> Option<c_int> {
    let value = socket.slot.nodelay.load(Relaxed);
    (value & FORCED != 0).then_some(c_int::from(value & OWN))
}
