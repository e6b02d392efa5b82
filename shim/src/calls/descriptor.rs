//! Descriptors: dup and its kin, fcntl, ioctl, close_range, sockatmark.

use driver::cards::flag;
use driver::sys;
use rows::reasons::Reason;

use crate::buffers::is_plausible;
use crate::errno;
use crate::fdtable::{self, Entry};
use crate::guard::Guard;
use crate::process::in_vfork_child;
use crate::real::{self, types::*};
use crate::slot::{self, Socket};
use crate::{net, rx, tx};

/// # Safety
/// dup(2).
pub(crate) unsafe fn dup(fd: c_int) -> c_int {
    // SAFETY: the caller's contract.
    duplicated(fd, unsafe { real::dup(fd) })
}

/// Notes that `new` now names what `fd` names.
fn duplicated(fd: c_int, new: c_int) -> c_int {
    if new >= 0 && new != fd && (fdtable::is_known(fd) || fdtable::is_known(new)) && !in_vfork_child() {
        let _guard = Guard::enter();
        errno::kept(|| {
            slot::forget_descriptor(new);
            slot::duplicate(fd, new);
        });
    }
    new
}

/// # Safety
/// dup2(2).
pub(crate) unsafe fn dup2(fd: c_int, target: c_int) -> c_int {
    // SAFETY: the caller's contract.
    onto(fd, target, || unsafe { real::dup2(fd, target) })
}

/// # Safety
/// dup3(2).
pub(crate) unsafe fn dup3(fd: c_int, target: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    onto(fd, target, || unsafe { real::dup3(fd, target, flags) })
}

/// A duplicate over `target`, which closes what was there, if it succeeds.
fn onto(fd: c_int, target: c_int, call: impl FnOnce() -> c_int) -> c_int {
    let concerns_us = fdtable::is_known(fd) || fdtable::is_known(target);
    if !concerns_us || fd == target {
        return call();
    }
    if in_vfork_child() {
        if target <= 2 {
            // The child of vfork is about to run a program on it; our memory is the parent's.
            errno::kept(|| crate::family::give_away(fd, Reason::GivenAway));
        }
        return call();
    }
    let _guard = Guard::enter();
    if fdtable::get(target) == Entry::Internal {
        move_away(target);
    }
    // Only a legal source closes the target.
    if fdtable::is_known(target) && sys::fcntl(fd, libc::F_GETFD, 0).is_ok() {
        errno::kept(|| slot::closing_descriptor(target));
    }
    let new = call();
    if new >= 0 {
        errno::kept(|| slot::duplicate(fd, new));
    }
    new
}

/// The program wants a number that we use: a descriptor of ours is only a means, so it goes.
fn move_away(fd: c_int) {
    crate::meet::lose_descriptor(fd);
    fdtable::take(fd);
}

/// # Safety
/// fcntl(2).
pub(crate) unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    if !fdtable::is_known(fd) {
        // SAFETY: the caller's contract.
        return unsafe { real::fcntl(fd, command, argument) };
    }
    if command == libc::F_SETOWN || command == F_SETOWN_EX || command == F_SETSIG {
        errno::kept(|| super::send::kernel_for_good(fd, Reason::Signals));
    }
    if command == libc::F_SETFL && argument as c_int & libc::O_ASYNC != 0 {
        errno::kept(|| super::send::kernel_for_good(fd, Reason::Signals));
    }
    let listener = slot::find(fd).and_then(|socket| socket.stack_listener());
    // The kernel's part of a listener never waits: what the program set is ours to know.
    let given = match command {
        libc::F_SETFL if listener.is_some() => argument | libc::O_NONBLOCK as usize,
        _ => argument,
    };
    // SAFETY: the caller's contract.
    let result = unsafe { real::fcntl(fd, command, given) };
    if command == libc::F_GETFL
        && result >= 0
        && listener.is_some_and(|listener| !listener.socket.card.has(flag::NONBLOCK))
    {
        return result & !libc::O_NONBLOCK;
    }
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => return duplicated(fd, result),
        libc::F_SETFL if result >= 0 => note_blocking(fd, argument as c_int & libc::O_NONBLOCK != 0),
        _ => {}
    }
    result
}

/// fcntl(2), linux/fcntl.h.
const F_SETOWN_EX: c_int = 15;
const F_SETSIG: c_int = 10;

fn note_blocking(fd: c_int, nonblocking: bool) {
    if let Some(socket) = slot::find(fd) {
        socket.card.set(flag::NONBLOCK, nonblocking);
    }
}

/// # Safety
/// ioctl(2).
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    if request == libc::FIOASYNC as c_ulong {
        errno::kept(|| super::send::kernel_for_good(fd, Reason::Signals));
    }
    if let Some(carried) = net::find(fd).filter(|_| is_plausible(argument as *const c_int)) {
        let _guard = Guard::enter();
        if let Some(count) = net::options::count(&carried, request) {
            // SAFETY: the caller's contract.
            unsafe { (argument as *mut c_int).write_unaligned(count) };
            return 0;
        }
    }
    let datagrams = net::datagram::find(fd).and_then(|socket| socket.datagrams());
    if let Some(carried) = datagrams.filter(|_| is_plausible(argument as *const c_int)) {
        let _guard = Guard::enter();
        if let Some(count) = net::datagram::options::count(&carried, request) {
            // SAFETY: the caller's contract.
            unsafe { (argument as *mut c_int).write_unaligned(count) };
            return 0;
        }
    }
    let listener = slot::find(fd).and_then(|socket| socket.stack_listener());
    if let Some(listener) = listener.filter(|_| request == FIONBIO && is_plausible(argument as *const c_int))
    {
        // The kernel's part of it never waits.
        // SAFETY: the caller's contract.
        let nonblocking = unsafe { (argument as *const c_int).read_unaligned() } != 0;
        listener.socket.card.set(flag::NONBLOCK, nonblocking);
        return 0;
    }
    // SAFETY: the caller's contract.
    let result = unsafe { real::ioctl(fd, request, argument) };
    let Some(socket) = slot::find(fd).filter(|_| result == 0 && is_plausible(argument as *const c_int))
    else {
        return result;
    };
    let value = argument as *mut c_int;
    match request {
        FIONBIO => {
            // SAFETY: the kernel has just read it.
            note_blocking(fd, unsafe { value.read_unaligned() } != 0);
        }
        // SAFETY: the kernel has just written it.
        FIONREAD => unsafe { set(value, &socket, rx::waiting) },
        // SAFETY: as above.
        SIOCOUTQ => unsafe { add(value, &socket, tx::unread_by_peer) },
        SIOCATMARK if socket.is_live() && waiting(&socket) => {
            // Ring bytes come before everything that the kernel holds.
            // SAFETY: as above.
            unsafe { value.write_unaligned(0) };
        }
        _ => {}
    }
    result
}

const FIONBIO: u64 = libc::FIONBIO;
const FIONREAD: u64 = libc::FIONREAD;
const SIOCOUTQ: u64 = libc::TIOCOUTQ;
/// linux/sockios.h.
pub(crate) const SIOCATMARK: u64 = 0x8905;

/// # Safety
/// `value` must be valid.
unsafe fn add(value: *mut c_int, socket: &Socket, count: impl FnOnce(&Socket) -> usize) {
    if socket.is_live() {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        unsafe { value.write_unaligned(value.read_unaligned().saturating_add(count(socket) as c_int)) };
    }
}

/// # Safety
/// `value` must be valid.
unsafe fn set(value: *mut c_int, socket: &Socket, count: impl FnOnce(&Socket) -> Option<c_int>) {
    if socket.is_live() {
        let _guard = Guard::enter();
        if let Some(count) = count(socket) {
            // SAFETY: the caller's contract.
            unsafe { value.write_unaligned(count) };
        }
    }
}

fn waiting(socket: &Socket) -> bool {
    let _guard = Guard::enter();
    rx::waiting_in_ring(socket) > 0
}

/// # Safety
/// sockatmark(3).
pub(crate) unsafe fn sockatmark(fd: c_int) -> c_int {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        return net::options::count(&carried, SIOCATMARK).unwrap_or(0);
    }
    if slot::find(fd).is_some_and(|socket| socket.is_live() && waiting(&socket)) {
        return 0;
    }
    // SAFETY: the caller's contract.
    unsafe { real::sockatmark(fd) }
}

/// # Safety
/// close_range(2).
pub(crate) unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let closes = flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0;
    if !closes || first > last || in_vfork_child() {
        // SAFETY: the caller's contract.
        return unsafe { real::close_range(first, last, flags) };
    }
    let kept = errno::kept(|| drop_range(first, last));
    // SAFETY: as above, for the pieces between the descriptors that stay.
    pieces(first, last, &kept, |from, to| unsafe { real::close_range(from, to, flags) })
}

/// Drops the entries in a range; gives our own descriptors there, sorted.
fn drop_range(first: c_uint, last: c_uint) -> Vec<c_uint> {
    let _guard = Guard::enter();
    let mut kept = Vec::new();
    fdtable::for_each(|fd, entry| {
        if !(first..=last).contains(&(fd as c_uint)) {
            return;
        }
        if entry == Entry::Internal {
            kept.push(fd as c_uint);
        } else {
            slot::closing_descriptor(fd);
        }
    });
    kept
}

fn pieces(
    first: c_uint,
    last: c_uint,
    kept: &[c_uint],
    mut close: impl FnMut(c_uint, c_uint) -> c_int,
) -> c_int {
    let mut from = first;
    for &own in kept {
        if own > from && close(from, own - 1) < 0 {
            return -1;
        }
        from = own + 1;
    }
    if from <= last { close(from, last) } else { 0 }
}

/// # Safety
/// closefrom(3).
pub(crate) unsafe fn closefrom(first: c_int) {
    // SAFETY: the caller's contract.
    unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
}
