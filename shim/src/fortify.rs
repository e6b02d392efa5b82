//! The `__*_chk` forms that `-D_FORTIFY_SOURCE` makes of calls whose buffer size the compiler knows.
//!
//! A call that fits is the plain call. One that does not goes to libc's own, which prints
//! `*** buffer overflow detected ***` and aborts.

use crate::{calls, real, real::types::*};

/// `read` into a buffer of `room` bytes.
///
/// # Safety
/// That of `read`.
pub(crate) unsafe fn read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t {
    if length > room {
        // SAFETY: the caller's contract; libc ends the program.
        return unsafe { real::__read_chk(fd, buffer, length, room) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { calls::read(fd, buffer, length) }
}

/// `recv` into a buffer of `room` bytes.
///
/// # Safety
/// That of `recv`.
pub(crate) unsafe fn recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if length > room {
        // SAFETY: the caller's contract; libc ends the program.
        return unsafe { real::__recv_chk(fd, buffer, length, room, flags) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { calls::recv(fd, buffer, length, flags) }
}

/// `recvfrom` into a buffer of `room` bytes.
///
/// # Safety
/// That of `recvfrom`.
pub(crate) unsafe fn recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    if length > room {
        // SAFETY: the caller's contract; libc ends the program.
        return unsafe { real::__recvfrom_chk(fd, buffer, length, room, flags, address, address_length) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { calls::recvfrom(fd, buffer, length, flags, address, address_length) }
}

/// Whether an array of `room` bytes holds `count` entries; libc's own test.
fn holds(room: size_t, count: nfds_t) -> bool {
    room / size_of::<pollfd>() >= count as usize
}

/// `poll` of an array of `room` bytes.
///
/// # Safety
/// That of `poll`.
pub(crate) unsafe fn poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int {
    if !holds(room, count) {
        // SAFETY: the caller's contract; libc ends the program.
        return unsafe { real::__poll_chk(fds, count, timeout, room) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { calls::poll(fds, count, timeout) }
}

/// `ppoll` of an array of `room` bytes.
///
/// # Safety
/// That of `ppoll`.
pub(crate) unsafe fn ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if !holds(room, count) {
        // SAFETY: the caller's contract; libc ends the program.
        return unsafe { real::__ppoll_chk(fds, count, timeout, mask, room) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { calls::ppoll(fds, count, timeout, mask) }
}
