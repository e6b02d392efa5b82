//! Where the path of a socket is decided: connect by the route, listen by the address; and how what the stack has of it ends.

use core::sync::atomic::Ordering::SeqCst;

use driver::cards::Path;
use driver::steering::Protocol;
use driver::sys::{self, Errno};
use libc::c_int;
use rows::reasons::Reason;
use stack::error::Error;
use stack::events;
use stack::region::slab::Handle;
use stack::tcp::calls::How;
use stack::tcp::tcb::Mark;
use stack::wire::ip::Ip;

use super::address::{self, Name};
use super::attach::{self, Interface};
use super::wait::{Timeout, Wait, is_readable};
use super::{CLAIMED, CONNECTION, Carried, KIND, LISTENER, NONE, datagram, failure, handover, options};
use crate::config::config;
use crate::slot::{self, Outcome, Socket, State};
use crate::{epoll, errno, family, real};

/// What connect(2) comes to on a followed socket: `None` leaves it to the kernel.
pub(crate) fn connect(socket: &Socket, remote: &Name) -> Option<Outcome> {
    if let Some(carried) = socket.connection() {
        return Some(again(&carried, remote));
    }
    if !attach::is_on() || !socket.may_be_carried() || socket.slot.state() != State::Candidate {
        return None;
    }
    let (local, is_v6) = address::of_socket(socket.fd)?;
    if !may_carry(remote, is_v6) {
        return None;
    }
    let interface =
        attach::interfaces().find(|interface| interface.reaches(&local.ip, &remote.ip, remote.scope))?;
    let handle = make(interface, socket, is_v6, Some(&local)).ok()?;
    let carried = Carried { socket: *socket, interface, handle, is_udp: false };
    let outcome = carried.with(|stack| {
        stack.poll();
        stack.connect(handle, &unmapped(&local.ip), (&remote.ip, remote.port))
    });
    if let Err(Error::NetworkUnreachable | Error::AddressNotAvailable | Error::NoBuffers) = outcome {
        // It changed meanwhile, or ports are used up: the kernel may still have a way.
        discard(&carried);
        return None;
    }
    enter(&carried, if local.port == 0 { CONNECTION } else { CONNECTION | CLAIMED });
    Some(connected(&carried, outcome))
}

fn may_carry(remote: &Name, is_v6: bool) -> bool {
    let ip = &remote.ip;
    let is_legal = remote.port != 0 && (is_v6 || ip.is_v4());
    let is_host = !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback());
    is_legal && is_host && config().carries(remote.port, remote.port)
}

/// `::` and an unspecified address of IPv4 mean the same to a connect.
fn unmapped(ip: &Ip) -> Ip {
    if ip.is_unspecified() { Ip::UNSPECIFIED } else { *ip }
}

/// connect(2) once more.
fn again(carried: &Carried, remote: &Name) -> Outcome {
    let handle = carried.handle;
    let outcome = carried.with(|stack| {
        stack.poll();
        stack.connect(handle, &Ip::UNSPECIFIED, (&remote.ip, remote.port))
    });
    connected(carried, outcome)
}

/// Waits for the end of a handshake, if the socket waits.
fn connected(carried: &Carried, outcome: Result<(), Error>) -> Outcome {
    match outcome {
        Ok(()) => return Outcome::Value(0),
        Err(Error::InProgress | Error::Already) if carried.socket.may_block(0) => {}
        Err(error) => return failure(error),
    }
    let wait = Wait::of(carried, Timeout::Send, config().spin_recv);
    match wait.until(carried, events::WRITABLE | events::FAILED | events::HUNG_UP) {
        Ok(()) => {}
        // connect(2): it goes on.
        Err(Errno(libc::EAGAIN)) => return failure(Error::InProgress),
        Err(error) => return Outcome::Fail(error),
    }
    let handle = carried.handle;
    match carried.with(|stack| stack.take_error(handle)) {
        Ok(Some(error)) | Err(error) => failure(error),
        Ok(None) => Outcome::Value(0),
    }
}

/// A socket of the stack like this one: with its options, and bound as it is.
fn make(
    interface: &'static Interface,
    socket: &Socket,
    is_v6: bool,
    local: Option<&Name>,
) -> Result<Handle, Error> {
    let engine = interface.engine;
    let thread = crate::guard::tid();
    let slot = engine.process().index;
    let handle = engine.with(thread, |stack| stack.parts.tcp_socket(is_v6, slot))?;
    let carried = Carried { socket: *socket, interface, handle, is_udp: false };
    options::carry_over(&carried);
    let bound = local.filter(|local| local.port != 0 || !local.ip.is_unspecified());
    let done = bound.map_or(Ok(()), |local| bind(interface, socket, handle, local));
    if done.is_err() {
        discard(&carried);
    }
    done.map(|()| handle)
}

/// The stack's socket is bound as the kernel's is.
fn bind(interface: &'static Interface, socket: &Socket, handle: Handle, local: &Name) -> Result<(), Error> {
    let thread = crate::guard::tid();
    let bind =
        || interface.engine.with(thread, |stack| stack.parts.tcp_bind(handle, (&local.ip, local.port)));
    if local.port == 0 {
        return bind();
    }
    let claimed = interface.claim(Protocol::Tcp, local.ip, local.port, socket.fd);
    claimed.map_err(|_| Error::AddressNotAvailable)?;
    let mut done = bind();
    if done == Err(Error::AddressInUse) && interface.engine.bury(thread) != 0 {
        // The kernel knows already that who had it is dead.
        done = bind();
    }
    if done.is_err() {
        interface.release(Protocol::Tcp, local.ip, local.port);
    }
    done
}

/// This process gives up a socket of the stack; whether it was the last that had it.
fn discard(carried: &Carried) -> bool {
    let (handle, process) = (carried.handle, carried.interface.engine.process());
    carried.with(|stack| stack.close_by(handle, process)) == Ok(true)
}

/// The slot says from now on what the stack has of the socket.
fn enter(carried: &Carried, kind: u32) {
    let socket = &carried.socket;
    if kind & KIND == CONNECTION {
        socket.card.describe(socket.fd, Path::Stack, Reason::None as u8);
        let table = family::table();
        table.count_candidate(socket.card);
        table.count_upgraded();
    }
    socket.set_carried(kind, carried.interface, carried.handle);
    epoll::carried(socket);
}

/// listen(2) is about to be called: where the stack will listen, too, the kernel's listener must not answer what comes in by the interface.
/// The kernel listens first, so that its own right to the port is beyond doubt; a SYN that comes in between is lost.
pub(crate) fn before_listen(socket: &Socket) {
    if let Some((_, _, interface)) = listens_at(socket) {
        deafen(socket.fd, interface.index);
    }
}

/// Where the stack is to listen: the address, whether the socket is of IPv6, the interface.
fn listens_at(socket: &Socket) -> Option<(Name, bool, &'static Interface)> {
    if !attach::is_on() || !socket.may_be_carried() || socket.slot.state() != State::Candidate {
        return None;
    }
    let (local, is_v6) = address::of_socket(socket.fd)?;
    if local.port == 0 || local.ip.is_loopback() || !config().carries(local.port, local.port) {
        return None;
    }
    let interface = attach::interfaces().find(|interface| interface.has(&local.ip))?;
    Some((local, is_v6, interface))
}

/// listen(2) was called: the stack listens where the address is an interface's, or any. The kernel's listener stays for everybody else.
pub(crate) fn listen(socket: &Socket, backlog: c_int) {
    if let Some(carried) = socket.stack_listener() {
        let handle = carried.handle;
        let _ = carried.with(|stack| stack.listen(handle, backlog.max(0) as u32));
        return;
    }
    let Some((local, is_v6, interface)) = listens_at(socket) else { return };
    let Ok(handle) = make(interface, socket, is_v6, Some(&local)) else { return };
    let carried = Carried { socket: *socket, interface, handle, is_udp: false };
    if carried.with(|stack| stack.listen(handle, backlog.max(0) as u32)).is_err() {
        interface.release(Protocol::Tcp, local.ip, local.port);
        discard(&carried);
        return;
    }
    // Whether the program waits is ours to know: the kernel's listener never does.
    let flags = sys::fcntl(socket.fd, libc::F_GETFL, 0).unwrap_or(0);
    let _ = sys::fcntl(socket.fd, libc::F_SETFL, flags | libc::O_NONBLOCK as usize);
    enter(&carried, LISTENER | CLAIMED);
}

/// A listener that was here when the program began. If the program before it, or another one that has the same descriptor, listens in
/// the stack beside it, this one does as well: it accepts from the same queue.
pub(crate) fn join_inherited(socket: &Socket) {
    let Some((local, _, interface)) = listens_at(socket) else { return };
    if interface.claim(Protocol::Tcp, local.ip, local.port, socket.fd).is_err() {
        return;
    }
    let process = interface.engine.process();
    let thread = crate::guard::tid();
    let joined =
        interface.engine.with(thread, |stack| stack.parts.join_listener((&local.ip, local.port), process));
    match joined {
        Ok(handle) => {
            enter(&Carried { socket: *socket, interface, handle, is_udp: false }, LISTENER | CLAIMED)
        }
        Err(_) => interface.release(Protocol::Tcp, local.ip, local.port),
    }
}

/// Whether the kernel's listener is one that [`deafen`] has made so.
pub(crate) fn is_deaf(fd: c_int) -> bool {
    /// asm-generic/socket.h: how many statements a filter has.
    const SO_GET_FILTER: c_int = libc::SO_ATTACH_FILTER;
    let mut program = [libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; STATEMENTS];
    let known = sys::getsockopt(fd, libc::SOL_SOCKET, SO_GET_FILTER, &mut program);
    let first = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    known == Ok(STATEMENTS) && program[0].k == first
}

/// Statements of the filter of a listener that is deaf.
const STATEMENTS: usize = 4;

/// The kernel's listener drops what came in by this interface: a packet that the stack missed meets silence, not a reset.
fn deafen(fd: c_int, interface: u32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program: [_; STATEMENTS] = [
        statement(
            libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
            0,
            0,
            (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32,
        ),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, interface),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let _ = sys::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter);
}

/// A connection that a listener gave: its peer, and the stack's part of it if it is the stack's.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection of the stack's, with its descriptor.
    Stack(c_int, Name, bool),
    /// The kernel has one: the caller takes it.
    Kernel,
    /// None.
    Failed(Errno),
}

/// accept(2) on a listener that both listen at.
pub(crate) fn accept(carried: &Carried, flags: c_int) -> Accepted {
    let listener = &carried.socket;
    let (handle, slot) = (carried.handle, carried.interface.engine.process().index);
    let mut wait = None;
    loop {
        let is_known = carried.events().ready & events::READABLE != 0;
        let accepted = carried.with(|stack| {
            if !is_known {
                stack.poll();
            }
            let child = stack.accept(handle, slot)?;
            let is_v6 = stack.parts.tcb(handle)?.is(Mark::V6);
            let tcb = stack.parts.tcb(child)?;
            Ok((child, Name::of(carried.interface.index, tcb.remote, tcb.remote_port), is_v6))
        });
        match accepted {
            Ok((child, remote, is_v6)) => return take_in(carried, child, (remote, is_v6), flags),
            Err(Error::WouldBlock) => {}
            Err(error) => return Accepted::Failed(Errno(error.number())),
        }
        if is_readable(listener.fd) {
            return Accepted::Kernel;
        }
        if !listener.may_block(0) {
            return Accepted::Failed(Errno(libc::EAGAIN));
        }
        let wait = wait.get_or_insert_with(|| {
            Wait::of(carried, Timeout::Receive, config().spin_recv).or_readable(listener.fd)
        });
        if let Err(error) = wait.until(carried, events::READABLE) {
            return Accepted::Failed(error);
        }
    }
}

/// An accepted connection gets a descriptor. `from`: its peer, and whether the listener is of IPv6.
fn take_in(listener: &Carried, handle: Handle, from: (Name, bool), flags: c_int) -> Accepted {
    let (remote, is_v6) = from;
    let domain = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | flags & (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    // SAFETY: no pointers.
    let fd = unsafe { real::socket(domain, kind, 0) };
    if fd < 0 {
        // EMFILE and its like: the connection waited for nothing, and is reset.
        let error = Errno(errno::get());
        discard(&Carried { handle, ..*listener });
        return Accepted::Failed(error);
    }
    slot::follow(fd, flags & libc::SOCK_NONBLOCK != 0, true);
    let Some(socket) = slot::find(fd) else {
        sys::close(fd);
        discard(&Carried { handle, ..*listener });
        return Accepted::Failed(Errno(libc::ENFILE));
    };
    enter(&Carried { socket, interface: listener.interface, handle, is_udp: false }, CONNECTION);
    Accepted::Stack(fd, remote, is_v6)
}

/// shutdown(2) of a connection.
pub(crate) fn shutdown(carried: &Carried, how: c_int) -> Outcome {
    let how = match how {
        libc::SHUT_RD => How::Read,
        libc::SHUT_WR => How::Write,
        libc::SHUT_RDWR => How::Both,
        _ => return failure(Error::Invalid),
    };
    let handle = carried.handle;
    match carried.with(|stack| stack.shutdown(handle, how)) {
        Ok(()) => Outcome::Value(0),
        Err(error) => failure(error),
    }
}

/// The last descriptor of this process is gone: the stack closes the connection when no other process holds it. `closing`: the number
/// still names the placeholder.
pub(crate) fn closed(socket: &Socket, closing: bool) {
    options::forget(socket);
    if let Some(carried) = socket.datagrams() {
        return datagram::closed(&carried);
    }
    let Some(carried) = socket.connection().or_else(|| socket.stack_listener()) else { return };
    let is_listener = socket.stack_listener().is_some();
    if !is_listener && handover::is_over(&carried) {
        return;
    }
    let has_claim = socket.has_claim();
    socket.slot.net.store(NONE, SeqCst);
    let is_last = discard(&carried);
    if !closing || !has_claim {
        return;
    }
    let Some((local, _)) = address::of_socket(socket.fd).filter(|(local, _)| local.port != 0) else { return };
    if is_listener && is_last {
        // The keeper has the kernel's listener, too, and must not be found listening while connections go on.
        let _ = sys::shutdown(socket.fd, libc::SHUT_RDWR);
    }
    carried.interface.leave(local.ip, local.port);
}
