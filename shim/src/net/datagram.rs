//! Sockets of UDP: the kernel's socket is the program's as before, and the stack has another one like it beside.
//!
//! The kernel's keeps the names, the port, the options, multicast and broadcast, errors of ICMP, fragments, and all that comes by other
//! interfaces; the stack's has what comes and goes by the interface to one address. Both have the same port, so a datagram may leave by
//! either, and what the stack can't send, for whatever reason, the kernel sends or refuses. What has arrived is read from both.
//!
//! | module | what |
//! |---|---|
//! | [`receive`], [`send`] | the data |
//! | [`control`] | control messages |
//! | [`options`] | options, and counts |
//!
//! It is decided at bind(2), at connect(2), and at the first datagram whose way leaves by the interface.

use core::sync::atomic::Ordering::SeqCst;

use driver::cards::Path;
use driver::steering::Protocol;
use driver::sys;
use libc::c_int;
use rows::reasons::Reason;
use stack::error::Error;
use stack::region::slab::Handle;
use stack::tcp::calls::How;
use stack::udp::Mark;
use stack::wire::ip::Ip;

use super::address::{self, Name};
use super::attach::{self, Interface};
use super::{Carried, DATAGRAMS, OPEN, REFUSED};
use crate::config::config;
use crate::lock::Lock;
use crate::slot::{self, Socket};
use crate::{epoll, family, fdtable, guard};

pub(crate) mod control;
pub(crate) mod options;
pub(crate) mod receive;
pub(crate) mod send;

/// Held while it is decided whose a socket is: threads may do so at one time.
static DECIDING: Lock<()> = Lock::new(());

/// Before fork: nothing is half decided in the child.
pub(super) fn lock_for_fork() {
    core::mem::forget(DECIDING.lock());
}

/// After it, in either process.
pub(super) fn unlock_after_fork() {
    // SAFETY: this thread, or its image in the parent, has locked it in `lock_for_fork`.
    unsafe { DECIDING.unlock_forgotten() };
}

/// The socket of UDP behind a descriptor, if the stack has it or may have it.
#[inline]
pub(crate) fn find(fd: c_int) -> Option<Socket> {
    slot::find(fd).filter(Socket::is_datagram)
}

/// The kernel has bound it.
pub(crate) fn bound(socket: &Socket) {
    let _deciding = DECIDING.lock();
    if let Some((local, is_v6)) = address::of_socket(socket.fd).filter(|(local, _)| local.port != 0) {
        take(socket, is_v6, &local, None);
    }
}

/// The kernel has connected it, or has dissolved that again.
pub(crate) fn connected(socket: &Socket) {
    let _deciding = DECIDING.lock();
    let Some((local, is_v6)) = address::of_socket(socket.fd) else { return };
    let peer = address::of_peer(socket.fd);
    if let Some(carried) = socket.datagrams() {
        if follow(&carried, &local, peer.as_ref()).is_ok() {
            return;
        }
        drop_half(&carried);
    }
    if local.port != 0 {
        take(socket, is_v6, &local, peer.as_ref());
    }
}

/// The stack's half becomes what the kernel's has become; the error says that it can't be that.
fn follow(carried: &Carried, local: &Name, peer: Option<&Name>) -> Result<(), Error> {
    let handle = carried.handle;
    let reaches = |peer: &Name| carried.interface.reaches(&local.ip, &peer.ip, peer.scope);
    if peer.is_some_and(|peer| !reaches(peer)) {
        return Err(Error::NetworkUnreachable);
    }
    carried.with(|stack| {
        if stack.parts.udp(handle)?.local_port != local.port {
            return Err(Error::AddressNotAvailable);
        }
        match peer {
            Some(peer) => stack.parts.udp_connect(handle, &local.ip, (&peer.ip, peer.port))?,
            None => stack.parts.udp_disconnect(handle)?,
        }
        let udp = stack.parts.udp(handle)?;
        (udp.route, udp.route_version) = (0, 0);
        Ok(())
    })
}

/// It sends its first datagram, by this interface: the kernel gives it a port, if it has none, and the stack takes that.
pub(super) fn first(socket: &Socket, to: &Name) -> Option<Carried> {
    let (local, _) = address::of_socket(socket.fd)?;
    let reaches = |interface: &&Interface| interface.reaches(&local.ip, &to.ip, to.scope);
    attach::interfaces().find(reaches)?;
    let _deciding = DECIDING.lock();
    if !socket.is_undecided() {
        // Another thread was first.
        return socket.datagrams();
    }
    let (mut local, is_v6) = address::of_socket(socket.fd)?;
    if local.port == 0 {
        let (bytes, length) = address::written(&Name { port: 0, ..local }, is_v6);
        sys::bind_raw(socket.fd, &bytes[..length]).ok()?;
        (local, _) = address::of_socket(socket.fd)?;
    }
    take(socket, is_v6, &local, None)
}

/// The stack gets a half of it, if its address is an interface's and the way to its peer, if it has one, leaves by that.
fn take(socket: &Socket, is_v6: bool, local: &Name, peer: Option<&Name>) -> Option<Carried> {
    if !socket.is_undecided() {
        return None;
    }
    if !config().carries(local.port, peer.map_or(local.port, |peer| peer.port)) {
        leave(socket, Reason::Port);
        return None;
    }
    let device = options::device(socket.fd);
    let is_its = |interface: &&Interface| {
        (device == 0 || device == interface.index)
            && match peer {
                Some(peer) => interface.reaches(&local.ip, &peer.ip, peer.scope),
                None => interface.has(&local.ip),
            }
    };
    let Some(interface) = attach::interfaces().find(is_its) else {
        socket.card.describe(socket.fd, Path::Kernel, Reason::OtherWay as u8);
        return None;
    };
    let made = make(socket, interface, is_v6, local, peer);
    let Ok(carried) = made else {
        // It would be refused again with each datagram.
        leave(socket, Reason::Refused);
        return None;
    };
    let handle = carried.handle;
    socket.card.describe(socket.fd, Path::Stack, Reason::None as u8);
    socket.set_carried(DATAGRAMS, interface, handle);
    epoll::carried(socket);
    // Who waits for the kernel's half alone looks again.
    attach::interfaces().for_each(|interface| interface.engine.ring_here());
    Some(carried)
}

/// A half like the kernel's.
fn make(
    socket: &Socket,
    interface: &'static Interface,
    is_v6: bool,
    local: &Name,
    peer: Option<&Name>,
) -> Result<Carried, Error> {
    let slot = interface.engine.process().index;
    let handle = interface.engine.with(guard::tid(), |stack| stack.udp_open(is_v6, slot))?;
    let carried = Carried { socket: *socket, interface, handle, is_udp: true };
    super::options::carry_over(&carried);
    let done = settle(&carried, local, peer);
    if done.is_err() {
        discard(&carried);
    }
    done.map(|()| carried)
}

/// The stack's half has the kernel's port, and then its packets.
fn settle(carried: &Carried, local: &Name, peer: Option<&Name>) -> Result<(), Error> {
    let Carried { interface, handle, .. } = *carried;
    let bind = || {
        carried.with(|stack| {
            stack.parts.udp_bind(handle, (&local.ip, local.port))?;
            match peer {
                Some(peer) => stack.parts.udp_connect(handle, &local.ip, (&peer.ip, peer.port)),
                None => Ok(()),
            }
        })
    };
    let mut done = bind();
    if done == Err(Error::AddressInUse) && interface.engine.bury(guard::tid()) != 0 {
        // The kernel knows already that who had it is dead.
        done = bind();
    }
    done?;
    let claimed = interface.claim(Protocol::Udp, local.ip, local.port, carried.socket.fd);
    claimed.map_err(|_| Error::AddressNotAvailable)
}

/// What its half of the port was claimed as: the address that it was bound to.
fn claimed(carried: &Carried) -> Option<(Ip, u16)> {
    let handle = carried.handle;
    let udp = carried.with(|stack| stack.parts.udp(handle).copied()).ok()?;
    let any = if udp.is(Mark::V6) { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 };
    Some((if udp.is(Mark::ADDRESS_BOUND) { udp.local } else { any }, udp.local_port))
}

/// This process gives up the stack's half.
fn discard(carried: &Carried) {
    let (handle, process) = (carried.handle, carried.interface.engine.process());
    let _ = carried.with(|stack| stack.udp_close_by(handle, process));
}

/// The last descriptor of this process is gone.
pub(super) fn closed(carried: &Carried) {
    carried.socket.slot.net.store(REFUSED, SeqCst);
    release(carried);
}

fn release(carried: &Carried) {
    let held = claimed(carried);
    discard(carried);
    if let Some((local, port)) = held {
        carried.interface.release(Protocol::Udp, local, port);
    }
}

/// The kernel's half goes where the stack's can't.
fn drop_half(carried: &Carried) {
    carried.socket.slot.net.store(OPEN, SeqCst);
    carried.socket.card.describe(carried.socket.fd, Path::Candidate, Reason::None as u8);
    epoll::uncarried(&carried.socket);
    release(carried);
}

/// The socket is the kernel's for good, in every process that has it. What waits in the stack to be read is lost, as datagrams may be.
pub(crate) fn give_back(socket: &Socket, reason: Reason) {
    if socket.is_datagram() {
        let _deciding = DECIDING.lock();
        leave(socket, reason);
    }
}

fn leave(socket: &Socket, reason: Reason) {
    if !socket.is_datagram() {
        return;
    }
    let carried = socket.datagrams();
    socket.slot.net.store(REFUSED, SeqCst);
    super::options::forget(socket);
    socket.card.describe(socket.fd, Path::Kernel, reason as u8);
    family::table().count_reason(reason as u8);
    if let Some(carried) = carried {
        epoll::uncarried(socket);
        if let Some((local, port)) = claimed(&carried) {
            carried.interface.pass(Protocol::Udp, local, port, socket.fd);
            carried.interface.release(Protocol::Udp, local, port);
        }
        let handle: Handle = carried.handle;
        let _ = carried.with(|stack| stack.udp_close(handle));
    }
    if !socket.slot.has_others() {
        fdtable::quieten(socket.fd);
    }
}

/// The kernel has shut it down.
pub(crate) fn shut_down(socket: &Socket, how: c_int) {
    let how = match how {
        libc::SHUT_RD => How::Read,
        libc::SHUT_WR => How::Write,
        libc::SHUT_RDWR => How::Both,
        _ => return,
    };
    let Some(carried) = socket.datagrams() else { return give_back(socket, Reason::Finished) };
    let handle = carried.handle;
    let _ = carried.with(|stack| stack.udp_shutdown(handle, how));
}
