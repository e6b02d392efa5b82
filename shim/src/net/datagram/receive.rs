//! recvmsg(2) and its kin on a socket of UDP: what the stack has, and what the kernel has.

use core::sync::atomic::Ordering::Relaxed;

use driver::sys::{self, Errno};
use libc::{MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, c_int, iovec, msghdr};
use rows::reasons::Reason;
use stack::error::Error;
use stack::events;
use stack::region::slab::Handle;
use stack::udp::Mark;
use stack::udp::receive::Datagram;

use super::control::Told;
use super::give_back;
use crate::buffers::Buffers;
use crate::cmsg::Room;
use crate::config::config;
use crate::net::address::{self, Name};
use crate::net::receive::{FEW, pieces};
use crate::net::wait::Wait;
use crate::net::{Carried, attach};
use crate::slot::{Outcome, Socket};

/// Datagrams of the stack's after which the kernel's come first, once.
const TURN: u32 = 32;
/// Microseconds between two looks at the kernel's half of who spins: while that gives something, and while the stack does.
const LOOK_USEC: u64 = 5;
const LOOK_LATER_USEC: u64 = 20;
/// What the stack knows no socket by.
const NOBODY: Handle = Handle { index: u32::MAX, generation: 0 };

/// Receives a datagram, and fills in the message as recvmsg(2) does; [`Outcome::Kernel`] where this process has no part in any stack,
/// and the kernel is to wait.
///
/// Who waits asks the kernel only if that had the last one, or has something: a question costs a system call.
///
/// # Safety
/// The message and its buffers are the caller's promise, as with the system call.
pub(crate) unsafe fn receive(socket: &Socket, message: &mut msghdr, flags: c_int) -> Outcome {
    let is_blocking = socket.may_block(flags) && flags & MSG_ERRQUEUE == 0;
    let in_a_row = &socket.slot.from_stack;
    let mut wait = None;
    loop {
        let carried = socket.datagrams().filter(|_| flags & MSG_ERRQUEUE == 0);
        let from_stack = |message: &mut msghdr| {
            // SAFETY: the caller's contract.
            carried.as_ref().map_or(Had::Nothing, |carried| unsafe { by_stack(carried, message, flags) })
        };
        let is_kernels_turn = in_a_row.load(Relaxed) >= TURN;
        let mut had = if is_kernels_turn { Had::Nothing } else { from_stack(message) };
        if let Had::Done(outcome) = had {
            return outcome;
        }
        if !is_blocking || wait.is_some() || is_kernels_turn || in_a_row.load(Relaxed) == 0 {
            // SAFETY: the caller's contract.
            match unsafe { sys::recvmsg(socket.fd, message, flags | MSG_DONTWAIT) } {
                Ok(count) => {
                    in_a_row.store(0, Relaxed);
                    return Outcome::Value(count);
                }
                Err(Errno(libc::EAGAIN)) => {}
                Err(error) => return Outcome::Fail(error),
            }
        }
        if is_kernels_turn {
            in_a_row.store(1, Relaxed);
            had = from_stack(message);
        }
        match had {
            Had::Done(outcome) => return outcome,
            // Only who waits is told of the end (__skb_recv_udp).
            Had::Ended if is_blocking => return end(message, flags),
            Had::Ended | Had::Nothing => {}
        }
        if !is_blocking {
            return Outcome::Fail(Errno(libc::EAGAIN));
        }
        match waited(socket, carried, &mut wait) {
            Some(Ok(())) => {}
            Some(Err(error)) => return Outcome::Fail(error),
            None => return Outcome::Kernel,
        }
    }
}

/// Waits until either half has something, or it is decided that there is another one.
fn waited(socket: &Socket, carried: Option<Carried>, wait: &mut Option<Wait>) -> Option<sys::Result<()>> {
    let before = socket.slot.net.load(Relaxed);
    let nobody = |interface| Carried { socket: *socket, interface, handle: NOBODY, is_udp: true };
    let carried = carried.or_else(|| attach::interfaces().next().map(nobody))?;
    let wait = wait.get_or_insert_with(|| {
        let usec = socket.slot.receive_timeout_us.load(Relaxed);
        let look = if socket.slot.from_stack.load(Relaxed) == 0 { LOOK_USEC } else { LOOK_LATER_USEC };
        Wait::limited(usec.into(), config().spin_recv).or_readable(socket.fd).looking_each(look)
    });
    Some(wait.while_not(&carried, |ready| {
        ready & (events::READABLE | events::HUNG_UP) != 0 || socket.slot.net.load(Relaxed) != before
    }))
}

/// What the stack's half had.
enum Had {
    Nothing,
    /// shutdown(2) was called.
    Ended,
    Done(Outcome),
}

/// Nothing comes any more.
fn end(message: &mut msghdr, flags: c_int) -> Outcome {
    (message.msg_namelen, message.msg_controllen) = (0, 0);
    message.msg_flags = flags & MSG_CMSG_CLOEXEC;
    Outcome::Value(0)
}

/// What the stack has.
///
/// # Safety
/// The message and its buffers are the caller's promise.
unsafe fn by_stack(carried: &Carried, message: &mut msghdr, flags: c_int) -> Had {
    let list: &[iovec] = match message.msg_iovlen {
        0 => &[],
        // SAFETY: the caller's contract.
        count => unsafe { core::slice::from_raw_parts(message.msg_iov, count) },
    };
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(list) }) else { return Had::Nothing };
    if buffers.is_faulty() {
        return Had::Done(Outcome::Fail(Errno(libc::EFAULT)));
    }
    // SAFETY: the caller's contract.
    let once = || unsafe { once(carried, list, flags & MSG_PEEK != 0) };
    let had = match once() {
        // Errors are the kernel's to tell, and what waits behind this one is read: it is gone now.
        Err(error) if error != Error::WouldBlock && error != Error::BadHandle => once(),
        had => had,
    };
    match had {
        Ok(Some(told)) => {
            let turn = &carried.socket.slot.from_stack;
            turn.store(turn.load(Relaxed) + 1, Relaxed);
            // SAFETY: the caller's contract.
            Had::Done(unsafe { give(&told, message, flags) })
        }
        Err(Error::BadHandle) => {
            // Another process has given it back.
            give_back(&carried.socket, Reason::GivenAway);
            Had::Nothing
        }
        Ok(None) => Had::Ended,
        Err(_) => Had::Nothing,
    }
}

/// # Safety
/// The buffers are the caller's promise.
unsafe fn once(carried: &Carried, list: &[iovec], peeks: bool) -> Result<Option<Told>, Error> {
    let (handle, is_known) = (carried.handle, carried.events().ready & events::READABLE != 0);
    let mut few: [&mut [u8]; FEW] = [(); FEW].map(|()| &mut [][..]);
    let mut many = Vec::new();
    // SAFETY: the caller's contract.
    let to = unsafe { pieces(list, 0, &mut few, &mut many) };
    carried.with(|stack| {
        if !is_known {
            stack.poll();
        }
        let got = if peeks { stack.udp_peek(handle, 0, to) } else { stack.udp_receive(handle, to) };
        let Some(datagram) = got? else { return Ok(None) };
        let options = stack.parts.udp_options(handle)?.options;
        let is_v6 = stack.parts.udp(handle)?.is(Mark::V6);
        Ok(Some(Told { datagram, options, is_v6, interface: carried.interface.index }))
    })
}

/// Fills in the message, as ___sys_recvmsg in net/socket.c.
///
/// # Safety
/// The message is the caller's promise.
unsafe fn give(told: &Told, message: &mut msghdr, flags: c_int) -> Outcome {
    let Datagram { source: (ip, port), copied, len, .. } = told.datagram;
    let name = Name::of(told.interface, ip, port);
    let to = message.msg_name.cast();
    // SAFETY: the caller's contract.
    if let Err(error) = unsafe { address::give(&name, told.is_v6, to, &raw mut message.msg_namelen) } {
        return Outcome::Fail(Errno(error));
    }
    // SAFETY: the caller's contract.
    let mut room = unsafe { Room::new(message.msg_control, message.msg_controllen) };
    told.put(&mut room);
    let (given, more) = room.given();
    let cut = if copied < len { MSG_TRUNC } else { 0 };
    message.msg_controllen = given;
    message.msg_flags = flags & MSG_CMSG_CLOEXEC | more | cut;
    Outcome::Value(if flags & MSG_TRUNC != 0 { len } else { copied })
}
