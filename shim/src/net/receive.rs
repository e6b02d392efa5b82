//! recv(2) and its kin on a connection of the stack.

use libc::{MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, c_int, iovec};
use stack::error::Error;
use stack::events;

use super::wait::{Timeout, Wait};
use super::{Carried, failure, handover};
use crate::buffers::Buffers;
use crate::config::config;
use crate::slot::Outcome;
use driver::sys::Errno;

/// Pieces of a vector that need no memory of their own.
pub(super) const FEW: usize = 8;

/// Receives into the vector.
///
/// # Safety
/// The buffers are the caller's promise, as with the system call.
pub(crate) unsafe fn receive(carried: &Carried, vector: &[iovec], flags: c_int) -> Outcome {
    if flags & MSG_ERRQUEUE != 0 {
        return failure(Error::WouldBlock);
    }
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(vector) }) else { return failure(Error::Invalid) };
    if buffers.is_faulty() && flags & MSG_TRUNC == 0 {
        return Outcome::Fail(Errno(libc::EFAULT));
    }
    let (total, mut done) = (buffers.total(), 0);
    let is_blocking = carried.socket.may_block(flags);
    let wants_all = flags & MSG_WAITALL != 0 && is_blocking;
    let mut wait = None;
    loop {
        // SAFETY: the caller's contract.
        let result = unsafe { once(carried, vector, done, flags) };
        match result {
            Ok(0) => return Outcome::Value(done),
            Ok(count) => {
                done += count;
                if done >= total || !wants_all || flags & MSG_OOB != 0 {
                    return Outcome::Value(done);
                }
            }
            Err(Error::WouldBlock) if is_blocking && flags & MSG_OOB == 0 => {}
            Err(_) if done > 0 => return Outcome::Value(done),
            Err(Error::BadHandle) if handover::is_over(carried) => return Outcome::Kernel,
            Err(Error::BadHandle) if carried.is_there() => continue,
            Err(error) => return failure(error),
        }
        let wait = wait.get_or_insert_with(|| Wait::of(carried, Timeout::Receive, config().spin_recv));
        // With text peeked at, the next that arrives is waited for: the rest stays readable.
        let seen = (flags & MSG_PEEK != 0 && done > 0).then(|| carried.events().arrivals);
        let waited = match seen {
            Some(arrivals) => wait.for_arrival(carried, arrivals),
            None => wait.until(carried, events::READABLE | events::FAILED | events::HUNG_UP),
        };
        if let Err(error) = waited {
            return if done > 0 { Outcome::Value(done) } else { Outcome::Fail(error) };
        }
    }
}

/// One try, behind the first `done` bytes of the vector.
///
/// # Safety
/// The buffers are the caller's promise.
unsafe fn once(carried: &Carried, vector: &[iovec], done: usize, flags: c_int) -> Result<usize, Error> {
    let (handle, is_known) = (carried.handle, carried.events().ready & events::READABLE != 0);
    let mut few: [&mut [u8]; FEW] = [(); FEW].map(|()| &mut [][..]);
    let mut many = Vec::new();
    // SAFETY: the caller's contract.
    let to = unsafe { pieces(vector, done, &mut few, &mut many) };
    carried.with(|stack| {
        if !is_known {
            stack.poll();
        }
        if flags & MSG_OOB != 0 {
            let first = to.iter_mut().find(|piece| !piece.is_empty());
            return stack.receive_urgent(
                handle,
                first.map_or(&mut [], |piece| &mut **piece),
                flags & MSG_PEEK != 0,
            );
        }
        if flags & MSG_PEEK != 0 {
            return stack.peek(handle, done, to);
        }
        if flags & MSG_TRUNC != 0 {
            return stack.discard_text(handle, to.iter().map(|piece| piece.len()).sum());
        }
        stack.receive(handle, to)
    })
}

/// The vector's buffers behind the first `skip` bytes.
///
/// # Safety
/// The buffers are the caller's promise, and nobody else's meanwhile.
pub(super) unsafe fn pieces<'b>(
    vector: &[iovec],
    mut skip: usize,
    few: &'b mut [&'static mut [u8]; FEW],
    many: &'b mut Vec<&'static mut [u8]>,
) -> &'b mut [&'static mut [u8]] {
    let mut piece = |entry: &iovec| {
        let begin = skip.min(entry.iov_len);
        skip -= begin;
        if entry.iov_len == begin {
            return &mut [][..];
        }
        // SAFETY: the caller's contract; empty pieces name no memory.
        unsafe {
            core::slice::from_raw_parts_mut(entry.iov_base.cast::<u8>().add(begin), entry.iov_len - begin)
        }
    };
    if vector.len() <= FEW {
        for (to, entry) in few.iter_mut().zip(vector) {
            *to = piece(entry);
        }
        return &mut few[..vector.len()];
    }
    many.extend(vector.iter().map(piece));
    many
}

/// Bytes that FIONREAD tells.
pub(crate) fn unread(carried: &Carried) -> c_int {
    let handle = carried.handle;
    carried.with(|stack| {
        stack.poll();
        stack.unread(handle).unwrap_or(0) as c_int
    })
}
