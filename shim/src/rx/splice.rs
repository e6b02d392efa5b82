//! splice from a socket that has rings: ring bytes first, by write(2) to the pipe, then the kernel's own call.

use driver::switch::available;
use driver::sys;
use libc::c_int;

use super::{Sleeper, close_incoming, mark, options};
use crate::slot::{Outcome, Socket};
use crate::{close, family, guard, jump};

/// Writes ring bytes to a pipe, for splice; `None` when the ring is empty.
pub(crate) fn ring_to_pipe(socket: &Socket, pipe: c_int, most: usize) -> Option<Outcome> {
    family::check_owner(socket);
    let held = socket.lock_receive();
    let channel = *socket.channel(&held)?;
    let incoming = channel.incoming();
    let head = incoming.head();
    let Ok(count) = available(incoming.word().position(), head, channel.capacity() as u64) else {
        return Some(close::violation(socket, &channel));
    };
    let (at, length) = channel.incoming_ring().piece(head, (count as usize).min(most));
    if length == 0 {
        return None;
    }
    // SAFETY: `piece` lies inside the mapped ring; the kernel copies the bytes.
    match unsafe { sys::write(pipe, at.cast(), length) } {
        Ok(written) => {
            incoming.set_head(head + written as u64);
            options::consumed(socket, &held, written);
            Some(Outcome::Value(written))
        }
        Err(error) => Some(Outcome::Fail(error)),
    }
}

/// Runs a kernel call that takes bytes from the socket, and counts them. The direction is closed.
pub(crate) fn counted(socket: &Socket, call: impl FnOnce() -> isize) -> isize {
    let mut sleeper = {
        let _held = socket.lock_receive();
        Some(Sleeper::enter(socket))
    };
    close_incoming(socket, None);
    let result = jump::holding(&mut || drop(sleeper.take()), || guard::outside(call));
    let held = socket.lock_receive();
    drop(sleeper);
    if socket.channel(&held).is_some() && result > 0 {
        // SAFETY: the receive lock is held.
        unsafe { socket.receiving(&held) }.kread += result as u64;
        mark::settle(socket, &held);
    }
    result
}
