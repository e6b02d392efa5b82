//! send(2) and its kin on a connection of the stack.

use libc::{MSG_MORE, MSG_NOSIGNAL, MSG_OOB, c_int, iovec, off_t};
use stack::error::Error;
use stack::events;

use super::wait::{Timeout, Wait};
use super::{Carried, failure, handover};
use crate::buffers::Buffers;
use crate::config::config;
use crate::slot::Outcome;
use driver::sys::{self, Errno};

/// Pieces of a vector that need no memory of their own.
pub(super) const FEW: usize = 8;
/// Bytes of a file that are read at once.
const FILE_PIECE: usize = 64 << 10;

/// Sends the vector.
///
/// # Safety
/// The buffers are the caller's promise, as with the system call.
pub(crate) unsafe fn send(carried: &Carried, vector: &[iovec], flags: c_int) -> Outcome {
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(vector) }) else { return failure(Error::Invalid) };
    if buffers.is_faulty() {
        return Outcome::Fail(Errno(libc::EFAULT));
    }
    let mut few: [&[u8]; FEW] = [&[]; FEW];
    let mut many = Vec::new();
    // SAFETY: the caller's contract.
    let text = unsafe { pieces(vector, &mut few, &mut many) };
    send_slices(carried, text, buffers.total(), flags)
}

fn send_slices(carried: &Carried, text: &mut [&[u8]], total: usize, flags: c_int) -> Outcome {
    let is_blocking = carried.socket.may_block(flags);
    let (mut done, mut wait, mut begin) = (0, None, 0);
    loop {
        match once(carried, &text[begin..], flags) {
            Ok(count) => {
                done += count;
                if done >= total {
                    return Outcome::Value(done);
                }
                begin += advance(&mut text[begin..], count);
            }
            Err(Error::WouldBlock) => {}
            Err(Error::BadHandle) if handover::is_over(carried) => {
                return match done {
                    0 => Outcome::Kernel,
                    _ => Outcome::Value(done + through_kernel(carried, &text[begin..], flags)),
                };
            }
            Err(Error::BadHandle) if carried.is_there() => continue,
            Err(_) if done > 0 => return Outcome::Value(done),
            Err(error) => return failed(error, flags),
        }
        if !is_blocking {
            return if done > 0 { Outcome::Value(done) } else { failure(Error::WouldBlock) };
        }
        let wait = wait.get_or_insert_with(|| Wait::of(carried, Timeout::Send, config().spin_send));
        if let Err(error) = wait.until(carried, events::WRITABLE | events::FAILED | events::HUNG_UP) {
            return if done > 0 { Outcome::Value(done) } else { Outcome::Fail(error) };
        }
    }
}

/// The rest of what a call was to send, of which the stack has taken a part before the kernel got the connection: how much of it went.
fn through_kernel(carried: &Carried, text: &[&[u8]], flags: c_int) -> usize {
    let mut done = 0;
    for piece in text {
        let mut left = *piece;
        while !left.is_empty() {
            // SAFETY: the piece is readable for its length.
            match unsafe { sys::send(carried.socket.fd, left.as_ptr().cast(), left.len(), flags) } {
                Ok(sent) => (left, done) = (&left[sent..], done + sent),
                Err(_) => return done,
            }
        }
    }
    done
}

/// One try; where there is no room, what has arrived may make some.
fn once(carried: &Carried, text: &[&[u8]], flags: c_int) -> Result<usize, Error> {
    let (handle, more) = (carried.handle, flags & MSG_MORE != 0);
    carried.with(|stack| {
        let mut put = || match flags & MSG_OOB {
            0 => stack.send(handle, text, more),
            _ => stack.send_urgent(handle, text),
        };
        match put() {
            Err(Error::WouldBlock) => {}
            done => return done,
        }
        stack.poll();
        match flags & MSG_OOB {
            0 => stack.send(handle, text, more),
            _ => stack.send_urgent(handle, text),
        }
    })
}

/// A connection that takes no more raises SIGPIPE, unless the call forbids it (sk_stream_error).
fn failed(error: Error, flags: c_int) -> Outcome {
    if error == Error::BrokenPipe && flags & MSG_NOSIGNAL == 0 {
        // SAFETY: no preconditions. A handler waits until this thread has left accel.
        unsafe { libc::raise(libc::SIGPIPE) };
    }
    failure(error)
}

/// Drops `count` bytes from the front; how many slices are used up.
fn advance(text: &mut [&[u8]], mut count: usize) -> usize {
    let mut used = 0;
    for piece in text {
        if count < piece.len() {
            *piece = &piece[count..];
            break;
        }
        count -= piece.len();
        used += 1;
    }
    used
}

/// The vector's buffers.
///
/// # Safety
/// The buffers are the caller's promise.
pub(super) unsafe fn pieces<'b>(
    vector: &[iovec],
    few: &'b mut [&'static [u8]; FEW],
    many: &'b mut Vec<&'static [u8]>,
) -> &'b mut [&'static [u8]] {
    let piece = |entry: &iovec| match entry.iov_len {
        0 => &[][..],
        // SAFETY: the caller's contract.
        len => unsafe { core::slice::from_raw_parts(entry.iov_base.cast::<u8>(), len) },
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

/// sendfile(2): a file is read piece by piece. `at` is the program's position, if it has one of its own.
///
/// # Errors
/// Those of read(2) before the first byte; then those of send(2).
pub(crate) fn send_file(carried: &Carried, source: c_int, at: &mut Option<off_t>, count: usize) -> Outcome {
    let mut room = vec![0u8; count.min(FILE_PIECE)];
    let mut done = 0;
    while done < count {
        let length = room.len().min(count - done);
        let read = match at {
            // SAFETY: the room is writable for so many bytes.
            Some(at) => unsafe { sys::pread(source, room.as_mut_ptr().cast(), length, *at) },
            // SAFETY: as above.
            None => unsafe { sys::read(source, room.as_mut_ptr().cast(), length) },
        };
        let read = match read {
            Ok(0) => break,
            Ok(read) => read,
            Err(_) if done > 0 => break,
            Err(error) => return Outcome::Fail(error),
        };
        let more = if done + read < count { MSG_MORE } else { 0 };
        let sent = match send_slices(carried, &mut [&room[..read]], read, more) {
            Outcome::Value(sent) => sent,
            outcome if done == 0 => {
                step_back(source, at, read, 0);
                return outcome;
            }
            _ => 0,
        };
        step_back(source, at, read, sent);
        done += sent;
        if sent < read {
            break;
        }
    }
    Outcome::Value(done)
}

/// `read` bytes were read, of which `sent` were sent: the position is behind those.
fn step_back(source: c_int, at: &mut Option<off_t>, read: usize, sent: usize) {
    match at {
        Some(at) => *at += sent as off_t,
        None if sent < read => drop(sys::lseek(source, sent as i64 - read as i64, libc::SEEK_CUR)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_dropped() {
        let mut text: [&[u8]; 4] = [b"ab", b"", b"cde", b"f"];
        assert_eq!(advance(&mut text, 4), 2);
        assert_eq!(text[2..], [&b"e"[..], b"f"]);
        assert_eq!(advance(&mut text[2..], 2), 2);
    }
}
