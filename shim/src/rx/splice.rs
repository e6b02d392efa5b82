//! splice from a socket that has rings: ring bytes first, by writes to the pipe, then what the kernel has.

use driver::switch::available;
use driver::sys::{self, Errno};
use libc::{c_int, c_uint};

use super::{Sleeper, await_coming, close_incoming, comes_here, mark, options, waiting_in_ring};
use crate::slot::{Outcome, Socket};
use crate::{close, family, guard, jump};

/// Moves up to `most` bytes to the pipe: those of the ring, and in the same call what the kernel has behind them,
/// as the one queue of Linux would give. `call(most, flags)` is the kernel's own splice.
pub(crate) fn to_pipe(
    socket: &Socket,
    pipe: c_int,
    most: usize,
    flags: c_uint,
    call: impl Fn(usize, c_uint) -> isize,
) -> Outcome {
    close_incoming(socket, None);
    let done = loop {
        match ring_to_pipe(socket, pipe, most) {
            Err(Outcome::Fail(Errno(libc::EAGAIN))) if may_wait(pipe, flags) => {
                if let Err(error) = wait_for_room(pipe) {
                    return Outcome::Fail(error);
                }
            }
            Err(outcome) => return outcome,
            Ok(done) => break done,
        }
    };
    if done == 0 {
        if is_coming(socket) {
            await_coming(socket.fd);
        }
        return counted(socket, || call(most, flags));
    }
    let in_kernel = || sys::ioctl_int(socket.fd, libc::FIONREAD).unwrap_or(0);
    if done == most || waiting_in_ring(socket) > 0 || in_kernel() == 0 {
        return Outcome::Value(done);
    }
    // The pipe may be full by now: what went counts, and the rest stays.
    match counted(socket, || call(most - done, flags | libc::SPLICE_F_NONBLOCK)) {
        Outcome::Value(more) => Outcome::Value(done + more),
        _ => Outcome::Value(done),
    }
}

/// Writes ring bytes to a pipe, as far as both go without waiting.
fn ring_to_pipe(socket: &Socket, pipe: c_int, most: usize) -> Result<usize, Outcome> {
    family::check_owner(socket);
    let held = socket.lock_receive();
    let Some(channel) = socket.channel(&held).copied() else { return Ok(0) };
    let incoming = channel.incoming();
    incoming.forget_holder();
    let mut done = 0;
    while done < most {
        let head = incoming.head();
        let Ok(count) = available(incoming.word().position(), head, channel.capacity() as u64) else {
            return Err(close::violation(socket, &channel));
        };
        let (at, length) = channel.incoming_ring().piece(head, (count as usize).min(most - done));
        if length == 0 || !incoming.hold(head) {
            break;
        }
        // SAFETY: `piece` lies inside the mapped ring; the kernel copies the bytes.
        let result = unsafe { write(pipe, at, length) };
        incoming.let_go(head + result.unwrap_or(0) as u64);
        match result {
            Ok(written) => {
                options::consumed(socket, &held, written);
                done += written;
                if written < length {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(error) => return Err(Outcome::Fail(error)),
        }
    }
    Ok(done)
}

/// A write to the pipe that does not wait: a program that reads the pipe itself would never come to it.
///
/// # Safety
/// `at` is readable for `length` bytes.
unsafe fn write(pipe: c_int, at: *const u8, length: usize) -> sys::Result<usize> {
    // SAFETY: the caller's contract.
    match unsafe { sys::write_nowait(pipe, at.cast(), length) } {
        Err(Errno(libc::EOPNOTSUPP)) if room(pipe, 0) == Ok(true) => {
            // SAFETY: as above. A writable pipe takes PIPE_BUF bytes at once: pipe(7).
            unsafe { sys::write(pipe, at.cast(), length.min(libc::PIPE_BUF)) }
        }
        Err(Errno(libc::EOPNOTSUPP)) => Err(Errno(libc::EAGAIN)),
        result => result,
    }
}

/// Whether the pipe has room, or gets it within `timeout_ms` (-1: for ever).
fn room(pipe: c_int, timeout_ms: c_int) -> sys::Result<bool> {
    let mut poll = libc::pollfd { fd: pipe, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry.
    unsafe { sys::poll(&raw mut poll, 1, timeout_ms) }.map(|count| count > 0)
}

/// Whether the kernel would splice to it: it must be a pipe.
pub(crate) fn is_pipe(fd: c_int) -> bool {
    sys::fcntl(fd, libc::F_GETPIPE_SZ, 0).is_ok()
}

/// Whether splice waits for a full pipe: wait_for_space in fs/splice.c.
fn may_wait(pipe: c_int, flags: c_uint) -> bool {
    let status = sys::fcntl(pipe, libc::F_GETFL, 0).unwrap_or(0);
    flags & libc::SPLICE_F_NONBLOCK == 0 && status & libc::O_NONBLOCK as usize == 0
}

fn wait_for_room(pipe: c_int) -> sys::Result<()> {
    guard::outside_unless_interrupted(|| room(pipe, -1)).unwrap_or(Err(Errno(libc::EINTR))).map(drop)
}

/// Whether the peer is just giving the kernel what lay in the ring.
fn is_coming(socket: &Socket) -> bool {
    let held = socket.lock_receive();
    socket.channel(&held).is_some_and(|channel| channel.incoming().is_taken_back() && comes_here(channel))
}

/// Runs a kernel call that takes bytes from the socket, and counts them. The direction is closed.
fn counted(socket: &Socket, call: impl FnOnce() -> isize) -> Outcome {
    let mut sleeper = {
        let _held = socket.lock_receive();
        Some(Sleeper::enter(socket))
    };
    close_incoming(socket, None);
    let result = jump::holding(&mut || drop(sleeper.take()), || guard::outside(call));
    let error = Errno(crate::errno::get());
    let held = socket.lock_receive();
    drop(sleeper);
    let Ok(count) = usize::try_from(result) else { return Outcome::Fail(error) };
    if let Some(channel) = socket.channel(&held).filter(|_| count > 0) {
        // SAFETY: the receive lock is held.
        let receiving = unsafe { socket.receiving(&held) };
        receiving.kread += count as u64;
        channel.incoming().kernel_was_read(receiving.kread, channel.capacity() as u64);
        mark::settle(socket, &held);
    }
    Outcome::Value(count)
}
