//! Connections of the stack's that the kernel gets: they go where accel can't follow, to another program or under a filter of system
//! calls. The descriptor stays the same: the placeholder behind it becomes the connection, for everybody who has it.
//!
//! The keeper has the right to do it. What it doesn't do, or the kernel can't, stays with the stack.

use driver::sys::{self, Fd};
use libc::c_int;
use rows::reasons::Reason;
use stack::export::Snapshot;
use stack::region::slab::Handle;

use super::{Carried, address};
use crate::slot::Socket;
use crate::{epoll, guard};

/// How long a connection that another thread or process hands over is waited for: longer than the keeper is.
const TURNS: u32 = 60_000;
const TURN_NS: u64 = 50_000;

/// Options that the stack has kept, and the kernel's socket is to have.
const OPTIONS: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_TCP, libc::TCP_CONGESTION),
];

/// Bytes of the longest of them: the name of a congestion control.
const LONGEST: usize = 16;

/// The kernel gets the connection, if this is one of the stack's; false if it isn't, or is so no longer.
pub(crate) fn to_kernel(socket: &Socket, reason: Reason) -> bool {
    let Some(carried) = socket.connection() else { return false };
    if hand_over(&carried) {
        settle(&carried, reason);
    } else {
        let _ = is_over(&carried);
    }
    true
}

/// A connection that is under way: what it was, the name of what is left, and the bytes of its queues.
struct Parcel {
    it: Snapshot,
    left: Handle,
    unread: Vec<u8>,
    text: Vec<u8>,
}

fn hand_over(carried: &Carried) -> bool {
    let Carried { socket, interface, handle, .. } = *carried;
    let bound = address::of_socket(socket.fd).map(|(local, _)| local).filter(|local| local.port != 0);
    copy_options(carried);
    let (mut unread, mut text) = (Vec::new(), Vec::new());
    let begun = carried.with(|stack| {
        stack.poll();
        stack.begin_handover(
            handle,
            |piece| unread.extend_from_slice(piece),
            |piece| text.extend_from_slice(piece),
        )
    });
    let Ok((it, left)) = begun else { return false };
    let parcel = Parcel { it, left, unread, text };
    let is_done =
        memory(&parcel).is_ok_and(|bytes| interface.hand_over(&parcel.it, socket.fd, &bytes).is_ok());
    end(carried, &parcel, is_done);
    if let Some(local) = bound.filter(|_| is_done) {
        interface.leave(local.ip, local.port);
    }
    is_done
}

fn end(carried: &Carried, parcel: &Parcel, is_done: bool) {
    let process = carried.interface.engine.process();
    carried.with(|stack| {
        // What came to the stack until now finds no connection here, and no answer.
        stack.poll();
        if is_done {
            let _ = stack.end_handover(parcel.left, process);
        } else {
            let _ = stack.cancel_handover(parcel.left, &parcel.it, &[&parcel.unread], &[&parcel.text]);
        }
    });
}

/// The bytes of the queues, for the keeper to read.
fn memory(parcel: &Parcel) -> sys::Result<Fd> {
    let file = sys::memfd_create(c"accel-handover", libc::MFD_CLOEXEC)?;
    for mut left in [&parcel.unread[..], &parcel.text] {
        while !left.is_empty() {
            // SAFETY: the bytes are readable for their length.
            left = &left[unsafe { sys::write(file.raw(), left.as_ptr().cast(), left.len()) }?..];
        }
    }
    Ok(file)
}

/// The placeholder gets what was set on the connection alone.
fn copy_options(carried: &Carried) {
    for (level, name) in OPTIONS {
        let (mut ours, mut kernels) = ([0u8; LONGEST], [0u8; LONGEST]);
        let handle = carried.handle;
        let len = carried.with(|stack| stack.option(handle, *level, *name, &mut ours));
        let known = sys::getsockopt(carried.socket.fd, *level, *name, &mut kernels);
        if len.is_ok() && known.is_ok() && ours != kernels {
            let _ = set(carried.socket.fd, *level, *name, ours, len.unwrap_or_default());
        }
    }
}

fn set(fd: c_int, level: c_int, name: c_int, value: [u8; LONGEST], len: usize) -> sys::Result<()> {
    match (value.first_chunk::<4>(), value.first_chunk::<8>(), len) {
        (Some(number), _, 4) => sys::setsockopt(fd, level, name, number),
        (_, Some(pair), 8) => sys::setsockopt(fd, level, name, pair),
        _ => sys::setsockopt(fd, level, name, &value),
    }
}

/// Somebody hands the connection over, or has: whether the kernel has it. It is waited for.
#[cold]
pub(crate) fn is_over(carried: &Carried) -> bool {
    let process = carried.interface.engine.process();
    for turn in 0.. {
        let Some(now) = carried.socket.connection().filter(|now| now.handle == carried.handle) else {
            return true;
        };
        if !now.is_gone() {
            return false;
        }
        // One that dies in the midst of it leaves nothing that anybody could wait for.
        if now.events().is_at_kernels() || turn == TURNS {
            break;
        }
        sys::nanosleep(TURN_NS);
    }
    let handle = carried.handle;
    carried.with(|stack| stack.leave_handed_over(handle, process));
    settle(carried, Reason::GivenAway);
    true
}

/// The slot says from now on that the kernel has it, and epoll sets look there.
fn settle(carried: &Carried, reason: Reason) {
    let socket = &carried.socket;
    if socket.set_kernels() {
        epoll::handed_over(socket);
        socket.settle(reason);
    }
}

impl Carried {
    /// Whether the stack has it under this name.
    pub(super) fn is_there(&self) -> bool {
        let handle = self.handle;
        self.interface.engine.with(guard::tid(), |stack| stack.state(handle)).is_ok()
    }
}
