//! sendmsg(2) and its kin on a socket of UDP: by the stack where the way leaves by its interface, else by the kernel.

use core::sync::atomic::Ordering::Relaxed;

use driver::clock::{ticks, ticks_per_usec};
use driver::sys::{self, Errno};
use driver::xdp::device::AfXdp;
use engine::control::decide::{Decision, decide};
use engine::engine::Kick;
use libc::{MSG_CONFIRM, MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, c_int, iovec, msghdr};
use rows::reasons::Reason;
use stack::error::Error;
use stack::events;
use stack::ip::route::Kind;
use stack::stack::Stack;
use stack::udp::send::Sending;

use super::{control, first, give_back};
use crate::buffers::Buffers;
use crate::config::config;
use crate::net::address::{self, Name, Read};
use crate::net::send::{FEW, pieces};
use crate::net::wait::{Timeout, Wait};
use crate::net::{Carried, failure};
use crate::slot::{Outcome, Socket};

/// Flags that the stack knows.
const KNOWN: c_int = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE | MSG_CONFIRM;
/// Microseconds after which the kernel is asked again whether an error waits: no error takes less to come back.
const ERROR_USEC: u64 = 20;

/// Sends a datagram; [`Outcome::Kernel`] leaves it to the kernel's socket, which also knows what is wrong with it.
///
/// # Safety
/// The message and its buffers are the caller's promise, as with the system call.
pub(crate) unsafe fn send(socket: &Socket, message: &msghdr, flags: c_int, kick: Kick) -> Outcome {
    let to = match message.msg_name.is_null() {
        true => None,
        // SAFETY: the caller's contract.
        false => match unsafe { address::read(message.msg_name.cast(), message.msg_namelen) } {
            Read::Name(to) if to.port != 0 => Some(to),
            _ => return Outcome::Kernel,
        },
    };
    let decided = socket.datagrams().or_else(|| first(socket, to.as_ref()?));
    let Some(carried) = decided.filter(|_| flags & !KNOWN == 0) else { return Outcome::Kernel };
    // SAFETY: the caller's contract.
    let Some(mut how) = (unsafe { control::read(message, carried.interface.index) }) else {
        return Outcome::Kernel;
    };
    how.more = flags & MSG_MORE != 0;
    let list: &[iovec] = match message.msg_iovlen {
        0 => &[],
        // SAFETY: the caller's contract.
        count => unsafe { core::slice::from_raw_parts(message.msg_iov, count) },
    };
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(list) }).filter(|buffers| !buffers.is_faulty()) else {
        return Outcome::Kernel;
    };
    if buffers.total() > usize::from(u16::MAX) {
        return Outcome::Kernel;
    }
    if let Some(error) = waiting_error(socket) {
        return Outcome::Fail(error);
    }
    let mut few: [&[u8]; FEW] = [&[]; FEW];
    let mut many = Vec::new();
    // SAFETY: the caller's contract.
    let text = unsafe { pieces(list, &mut few, &mut many) };
    put(&Call { carried, to, how, kick }, text, socket.may_block(flags))
}

/// An error of ICMP is the kernel socket's, and the next datagram fails by it (sock_alloc_send_pskb).
fn waiting_error(socket: &Socket) -> Option<Errno> {
    let (now, asked) = (ticks(), &socket.slot.error_asked);
    if now.wrapping_sub(asked.load(Relaxed)) < ERROR_USEC * ticks_per_usec() {
        return None;
    }
    asked.store(now, Relaxed);
    let mut error = 0;
    let known = sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_ERROR, &mut error);
    known.ok().filter(|_| error != 0).map(|_| Errno(error))
}

/// One call.
struct Call {
    carried: Carried,
    to: Option<Name>,
    how: Sending,
    kick: Kick,
}

/// What one try came to.
enum Tried {
    Sent(usize),
    /// Its way doesn't leave by the interface.
    Elsewhere,
    /// The kernel is to be asked for the way.
    Ask,
}

fn put(call: &Call, text: &[&[u8]], is_blocking: bool) -> Outcome {
    let Call { carried, to, .. } = call;
    let (mut wait, mut is_asked) = (None, false);
    loop {
        match once(call, text, is_asked) {
            Ok(Tried::Sent(count)) => return Outcome::Value(count),
            Ok(Tried::Ask) if !is_asked && to.is_some_and(|to| reaches(carried, &to)) => {
                is_asked = true;
                continue;
            }
            Ok(_) => return Outcome::Kernel,
            Err(Error::WouldBlock) if is_blocking => {}
            Err(Error::WouldBlock) => return failure(Error::WouldBlock),
            Err(Error::BadHandle) => {
                // Another process has given it back.
                give_back(&carried.socket, Reason::GivenAway);
                return Outcome::Kernel;
            }
            // The kernel finds a way, or says by which error there is none.
            Err(_) => return Outcome::Kernel,
        }
        let wait = wait.get_or_insert_with(|| Wait::of(carried, Timeout::Send, config().spin_send));
        if let Err(error) = wait.until(carried, events::WRITABLE | events::HUNG_UP) {
            return Outcome::Fail(error);
        }
    }
}

fn reaches(carried: &Carried, to: &Name) -> bool {
    let local = address::of_socket(carried.socket.fd);
    local.is_some_and(|(local, _)| carried.interface.reaches(&local.ip, &to.ip, to.scope))
}

/// One try; where there is no room, what the device has sent may make some.
fn once(call: &Call, text: &[&[u8]], is_asked: bool) -> Result<Tried, Error> {
    let Call { carried, to, how, kick } = call;
    let (handle, interface) = (carried.handle, carried.interface.index);
    carried.with_kick(*kick, |stack| {
        // What a corked datagram began with says where all of it goes.
        if let Some(to) = to
            && !is_asked
            && stack.parts.udp(handle)?.kept.is_empty()
            && let Some(other) = other_way(stack, interface, to)
        {
            return Ok(other);
        }
        let how = Sending { to: to.map(|to| (to.ip, to.port)), ..*how };
        let sent = match stack.udp_send(handle, text, &how) {
            Err(Error::WouldBlock) => {
                stack.poll();
                stack.udp_send(handle, text, &how)
            }
            done => done,
        };
        sent.map(Tried::Sent)
    })
}

/// Where the way of a datagram doesn't leave by the interface, as far as the stack knows.
fn other_way(stack: &mut Stack<'_, 'static, AfXdp>, interface: u32, to: &Name) -> Option<Tried> {
    match decide(stack, interface, &to.ip, to.scope) {
        Decision::Ours(_) => None,
        // What the kernel has once told of it is among the routes.
        Decision::Ask(_) => match stack.way(&to.ip) {
            Ok(way) if way.route.kind() != Kind::Broadcast => None,
            _ => Some(Tried::Ask),
        },
        Decision::Kernel(_) => Some(Tried::Elsewhere),
    }
}
