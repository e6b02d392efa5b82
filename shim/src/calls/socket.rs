//! The life of a socket: socket, connect, listen, accept, shutdown, close, options.

use core::sync::atomic::Ordering::Relaxed;

use driver::cards::{Path, flag};
use driver::meeting::Address;
use driver::sys;
use rows::reasons::Reason;

use crate::buffers::is_plausible;
use crate::config::config;
use crate::errno;
use crate::fdtable::{self, Entry};
use crate::guard::Guard;
use crate::net::address::Read;
use crate::net::open::Accepted;
use crate::net::{self, attach, options};
use crate::process::in_vfork_child;
use crate::real::{self, types::*};
use crate::slot::{self, Socket};
use crate::{close, family, meet, nagle, rx};

/// # Safety
/// socket(2).
pub(crate) unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: the caller's contract.
    let fd = unsafe { real::socket(domain, kind, protocol) };
    if fd < 0 {
        return fd;
    }
    let stream = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_STREAM;
    let tcp = stream
        && matches!(domain, libc::AF_INET | libc::AF_INET6)
        && matches!(protocol, 0 | libc::IPPROTO_TCP);
    let is_nonblocking = kind & libc::SOCK_NONBLOCK != 0;
    if tcp && family::follows() && !in_vfork_child() {
        let _guard = Guard::enter();
        attach::start();
        errno::kept(|| slot::follow(fd, is_nonblocking, false));
    } else if is_udp(domain, kind, protocol) && may_carry_datagrams() {
        let _guard = Guard::enter();
        errno::kept(|| slot::follow_datagrams(fd, is_nonblocking));
    } else if fdtable::is_known(fd) && !in_vfork_child() {
        fdtable::forget_number(fd);
    }
    fd
}

fn is_udp(domain: c_int, kind: c_int, protocol: c_int) -> bool {
    kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) == libc::SOCK_DGRAM
        && matches!(domain, libc::AF_INET | libc::AF_INET6)
        && matches!(protocol, 0 | libc::IPPROTO_UDP)
}

/// Whether there is a stack for sockets of UDP: they have no other path than that and the kernel's.
fn may_carry_datagrams() -> bool {
    if config().interfaces.is_none() || !family::follows() || in_vfork_child() {
        return false;
    }
    let _guard = Guard::enter();
    attach::start();
    attach::is_on()
}

/// # Safety
/// bind(2).
pub(crate) unsafe fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's contract.
    let call = || unsafe { real::bind(fd, address, length) };
    let mut result = call();
    if result < 0 && errno::get() == libc::EADDRINUSE && attach::is_on() && !in_vfork_child() {
        let _guard = Guard::enter();
        // Whoever had it may have died just now, and the keeper doesn't know it yet.
        attach::interfaces().for_each(net::Interface::bury);
        result = call();
    }
    if result == 0
        && !in_vfork_child()
        && let Some(socket) = net::datagram::find(fd)
    {
        let _guard = Guard::enter();
        errno::kept(|| net::datagram::bound(&socket));
    }
    result
}

/// # Safety
/// connect(2).
pub(crate) unsafe fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    if let Some(socket) = net::datagram::find(fd).filter(|_| !in_vfork_child()) {
        // SAFETY: the caller's contract.
        let result = unsafe { real::connect(fd, address, length) };
        if result == 0 {
            let _guard = Guard::enter();
            errno::kept(|| net::datagram::connected(&socket));
        }
        return result;
    }
    // SAFETY: the caller's contract.
    let unspecific =
        length >= 2 && is_plausible(address) && unsafe { (*address).sa_family } == libc::AF_UNSPEC as u16;
    if let Some(socket) = slot::find(fd).filter(|socket| unspecific && socket.is_live()) {
        let _guard = Guard::enter();
        close::disconnect(&socket);
    }
    if !unspecific
        && !in_vfork_child()
        // SAFETY: the caller's contract.
        && let Some(result) = unsafe { connect_by_stack(fd, address, length) }
    {
        return result;
    }
    if config().local_after == 0 && !unspecific && !in_vfork_child() {
        // SAFETY: the caller's contract.
        errno::kept(|| unsafe { invite(fd, address, length) });
    }
    // SAFETY: the caller's contract.
    unsafe { real::connect(fd, address, length) }
}

/// connect(2) where the stack carries the socket, or is to.
///
/// # Safety
/// The address is the caller's promise for `length` bytes.
unsafe fn connect_by_stack(fd: c_int, address: *const sockaddr, length: socklen_t) -> Option<c_int> {
    let socket = slot::find(fd).filter(|socket| attach::is_on() || socket.is_in_stack())?;
    // SAFETY: the caller's contract.
    let Read::Name(remote) = (unsafe { net::address::read(address, length) }) else { return None };
    let _guard = Guard::enter();
    let outcome = errno::kept(|| net::open::connect(&socket, &remote))?;
    Some(super::result(outcome) as c_int)
}

/// Leaves memory for the listener, before the kernel connects.
///
/// # Safety
/// The address is the caller's promise for `length` bytes.
unsafe fn invite(fd: c_int, address: *const sockaddr, length: socklen_t) {
    let mut bytes = [0u8; 32];
    let length = (length as usize).min(size_of::<libc::sockaddr_in6>());
    let Some(socket) = slot::find(fd).filter(|_| is_plausible(address)) else { return };
    // SAFETY: the caller's contract; the copy is no longer than either side.
    unsafe { core::ptr::copy_nonoverlapping(address.cast::<u8>(), bytes.as_mut_ptr(), length) };
    let _guard = Guard::enter();
    if let Ok(remote) = Address::parse(&bytes, length) {
        meet::invite(&socket, remote);
    }
}

/// # Safety
/// listen(2).
pub(crate) unsafe fn listen(fd: c_int, backlog: c_int) -> c_int {
    if let Some(socket) = slot::find(fd).filter(|_| !in_vfork_child()) {
        let _guard = Guard::enter();
        errno::kept(|| net::open::before_listen(&socket));
    }
    // SAFETY: the caller's contract.
    let result = unsafe { real::listen(fd, backlog) };
    if result == 0
        && let Some(socket) = slot::find(fd)
    {
        let _guard = Guard::enter();
        if socket.is_live() {
            // It invited somebody whom it did not reach, and turns to listening.
            close::to_kernel_for_good(&socket, Reason::Finished);
        }
        socket.card.describe(fd, Path::Listener, Reason::None as u8);
        socket.card.set(flag::LISTENER, true);
        errno::kept(|| {
            net::open::listen(&socket, backlog);
            meet::open_mailbox(&socket);
        });
    }
    result
}

/// # Safety
/// accept(2).
pub(crate) unsafe fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's contract.
    if let Some(result) = unsafe { accept_by_stack(fd, address, length, 0) } {
        return result;
    }
    // SAFETY: the caller's contract.
    accepted(fd, unsafe { real::accept(fd, address, length) }, 0)
}

/// accept(2) on a listener of the stack's: `None` where the kernel has a connection for it.
///
/// # Safety
/// The caller's contract for both pointers.
unsafe fn accept_by_stack(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> Option<c_int> {
    let carried =
        slot::find(fd).filter(|socket| socket.is_in_stack() && !in_vfork_child())?.stack_listener()?;
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        return None;
    }
    let _guard = Guard::enter();
    match net::open::accept(&carried, flags) {
        Accepted::Kernel => None,
        Accepted::Failed(error) => Some(errno::fail(error.0)),
        Accepted::Stack(new, remote, is_v6) => {
            // SAFETY: the caller's contract.
            match unsafe { net::address::give(&remote, is_v6, address, length) } {
                Ok(()) => Some(new),
                Err(error) => {
                    // As Linux: the connection is gone (do_accept in net/socket.c).
                    // SAFETY: nobody else knows the number.
                    unsafe { close(new) };
                    Some(errno::fail(error))
                }
            }
        }
    }
}

/// # Safety
/// accept4(2).
pub(crate) unsafe fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    if let Some(result) = unsafe { accept_by_stack(fd, address, length, flags) } {
        return result;
    }
    // SAFETY: the caller's contract.
    accepted(fd, unsafe { real::accept4(fd, address, length, flags) }, flags)
}

fn accepted(listener: c_int, fd: c_int, flags: c_int) -> c_int {
    if fd < 0 || !family::follows() || in_vfork_child() {
        return fd;
    }
    errno::kept(|| {
        let _guard = Guard::enter();
        if is_tcp_listener(listener) {
            slot::follow(fd, flags & libc::SOCK_NONBLOCK != 0, true);
            if config().local_after == 0
                && let (Some(listener), Some(socket)) = (slot::find(listener), slot::find(fd))
            {
                meet::greet(&listener, &socket);
            }
        } else if fdtable::is_known(fd) {
            fdtable::forget_number(fd);
        }
    });
    fd
}

/// Listeners that were here when the program began, and are the stack's as well.
pub(crate) fn find_inherited() {
    /// Numbers that are looked at: a program gets its listeners in the lowest.
    const FIRST: c_int = 256;
    let mut deaf = (0..FIRST).filter(|fd| net::open::is_deaf(*fd)).peekable();
    if config().interfaces.is_none() || deaf.peek().is_none() || !family::follows() {
        return;
    }
    let _guard = Guard::enter();
    attach::start();
    for fd in deaf {
        if is_tcp_listener(fd)
            && let Some(socket) = slot::find(fd)
        {
            let flags = sys::fcntl(fd, libc::F_GETFL, 0).unwrap_or(0);
            socket.card.set(flag::NONBLOCK, flags as c_int & libc::O_NONBLOCK != 0);
            net::open::join_inherited(&socket);
        }
    }
}

/// A followed listener is TCP; one that came by exec or SCM_RIGHTS is asked once, and then followed too.
fn is_tcp_listener(fd: c_int) -> bool {
    if fdtable::is_known(fd) {
        return matches!(fdtable::get(fd), Entry::Socket(_));
    }
    let option = |name: c_int| {
        let mut value: c_int = 0;
        sys::getsockopt(fd, libc::SOL_SOCKET, name, &mut value).map_or(-1, |_| value)
    };
    let inet = matches!(option(libc::SO_DOMAIN), libc::AF_INET | libc::AF_INET6);
    if !inet || option(libc::SO_PROTOCOL) != libc::IPPROTO_TCP {
        return false;
    }
    slot::follow(fd, false, false);
    if let Some(socket) = slot::find(fd) {
        socket.card.describe(fd, Path::Listener, Reason::None as u8);
        socket.card.set(flag::LISTENER, true);
    }
    true
}

/// # Safety
/// shutdown(2).
pub(crate) unsafe fn shutdown(fd: c_int, how: c_int) -> c_int {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        return super::result(net::open::shutdown(&carried, how)) as c_int;
    }
    if let Some(socket) = net::datagram::find(fd) {
        // SAFETY: the caller's contract.
        let result = unsafe { real::shutdown(fd, how) };
        let _guard = Guard::enter();
        // Without a peer that is an error, and is done all the same.
        errno::kept(|| net::datagram::shut_down(&socket, how));
        return result;
    }
    let known_how = matches!(how, libc::SHUT_RD | libc::SHUT_WR | libc::SHUT_RDWR);
    if let Some(socket) = slot::find(fd).filter(|socket| known_how && !socket.card.has(flag::LISTENER)) {
        let _guard = Guard::enter();
        errno::kept(|| close::before_shutdown(&socket, how));
        // SAFETY: the caller's contract.
        return unsafe { real::shutdown(fd, how) };
    }
    // SAFETY: the caller's contract.
    unsafe { real::shutdown(fd, how) }
}

/// # Safety
/// close(2).
pub(crate) unsafe fn close(fd: c_int) -> c_int {
    if !fdtable::is_known(fd) || in_vfork_child() {
        // SAFETY: the caller's contract.
        return unsafe { real::close(fd) };
    }
    let _guard = Guard::enter();
    if fdtable::get(fd) == Entry::Internal {
        // The program never opened it.
        return errno::fail(libc::EBADF);
    }
    errno::kept(|| slot::closing_descriptor(fd));
    // SAFETY: the caller's contract.
    unsafe { real::close(fd) }
}

/// # Safety
/// getsockname(2).
pub(crate) unsafe fn getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        return super::result(unsafe { options::name(&carried, false, address, length) }) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { real::getsockname(fd, address, length) }
}

/// # Safety
/// getpeername(2).
pub(crate) unsafe fn getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        return super::result(unsafe { options::name(&carried, true, address, length) }) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { real::getpeername(fd, address, length) }
}

/// # Safety
/// getsockopt(2).
pub(crate) unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        if let Some(outcome) = unsafe { options::get(&carried, level, name, value, length) } {
            return super::result(outcome) as c_int;
        }
    }
    if let Some(socket) = slot::find(fd)
        .filter(|socket| socket.is_live() && level == libc::SOL_SOCKET && name == libc::SO_ERROR)
    {
        let _guard = Guard::enter();
        if let Some(error) = rx::take_stashed(&socket) {
            // SAFETY: the caller's contract.
            return unsafe { give_error(fd, error, value, length) };
        }
    }
    // SAFETY: the caller's contract.
    let result = unsafe { real::getsockopt(fd, level, name, value, length) };
    if result == 0
        && (level, name) == (libc::IPPROTO_TCP, libc::TCP_NODELAY)
        && let Some(own) = slot::find(fd).and_then(|socket| nagle::own_value(&socket))
        // SAFETY: the kernel has just written `*length` bytes there.
        && unsafe { *length } as usize >= size_of::<c_int>()
    {
        // SAFETY: as above.
        unsafe { value.cast::<c_int>().write_unaligned(own) };
    }
    if result == 0
        && (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT)
        && let Some(own) = slot::find(fd).and_then(|socket| rx::mark::own_value(&socket))
        // SAFETY: the kernel has just written `*length` bytes there.
        && unsafe { *length } as usize >= size_of::<c_int>()
    {
        // SAFETY: as above.
        unsafe { value.cast::<c_int>().write_unaligned(own) };
    }
    if result == 0
        && (level, name) == (libc::SOL_SOCKET, libc::SO_PEEK_OFF)
        && let Some(socket) = slot::find(fd).filter(Socket::is_live)
        // SAFETY: the kernel has just written `*length` bytes there.
        && unsafe { *length } as usize >= size_of::<c_int>()
    {
        let _guard = Guard::enter();
        let offset = value.cast::<c_int>();
        // SAFETY: as above.
        unsafe { offset.write_unaligned(offset.read_unaligned() + rx::peek_offset_in_ring(&socket)) };
    }
    if result == 0
        && (level, name) == (libc::IPPROTO_TCP, libc::TCP_INFO)
        && let Some(socket) = slot::find(fd).filter(Socket::is_live)
    {
        // SAFETY: the kernel has just written `*length` bytes there.
        unsafe { add_ring_counts(&socket, value.cast(), *length as usize) };
    }
    result
}

/// An error that the kernel has already given us goes to the program as SO_ERROR would.
///
/// # Safety
/// getsockopt(2).
unsafe fn give_error(fd: c_int, error: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int {
    // SAFETY: the caller's contract: the kernel checks the pointers.
    let result = unsafe { real::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, length) };
    // SAFETY: the call above succeeded with them.
    if result == 0 && unsafe { *length } as usize >= size_of::<c_int>() {
        // SAFETY: as above.
        unsafe { value.cast::<c_int>().write_unaligned(error) };
    }
    result
}

/// `tcpi_bytes_acked`, `_received` and `_sent` count what the rings carried as well (linux/tcp.h).
///
/// # Safety
/// `info` must be writable for `length` bytes.
unsafe fn add_ring_counts(socket: &Socket, info: *mut u8, length: usize) {
    let sent = socket.card.counters.ring_sent_bytes.load(Relaxed);
    let received = socket.card.counters.ring_received_bytes.load(Relaxed);
    for (offset, bytes) in [(120, sent), (128, received), (200, sent)] {
        if offset + 8 <= length {
            // SAFETY: inside `length` bytes.
            unsafe {
                let field = info.add(offset).cast::<u64>();
                field.write_unaligned(field.read_unaligned() + bytes);
            }
        }
    }
}

/// Options that only the kernel can honour.
const KERNEL_ONLY: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::IPPROTO_TCP, libc::TCP_ULP),
    (libc::IPPROTO_TCP, libc::TCP_REPAIR),
    (libc::IPPROTO_TCP, rx::TCP_INQ),
    (libc::IPPROTO_TCP, TCP_MD5SIG),
];
/// linux/tcp.h.
const TCP_MD5SIG: c_int = 14;

/// # Safety
/// setsockopt(2).
pub(crate) unsafe fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let Some(socket) = slot::find(fd) else {
        // SAFETY: the caller's contract.
        return unsafe { real::setsockopt(fd, level, name, value, length) };
    };
    if socket.is_datagram() {
        // SAFETY: the caller's contract.
        let result = unsafe { real::setsockopt(fd, level, name, value, length) };
        if result == 0 {
            let _guard = Guard::enter();
            // SAFETY: the caller's contract: the kernel has read it.
            errno::kept(|| unsafe { net::datagram::options::note(&socket, level, name, value, length) });
            if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVTIMEO) {
                errno::kept(|| note_timeout(&socket));
            }
        }
        return result;
    }
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        if let Some(outcome) = unsafe { options::set(&carried, level, name, value, length) } {
            return super::result(outcome) as c_int;
        }
        // SAFETY: the caller's contract.
        return unsafe { real::setsockopt(fd, level, name, value, length) };
    }
    if KERNEL_ONLY.contains(&(level, name)) {
        // Before the call: kTLS must find the stream where the kernel left it.
        errno::kept(|| super::send::kernel_for_good(fd, Reason::Option));
    }
    // SAFETY: the caller's contract.
    let result = unsafe { set_option(&socket, level, name, value, length) };
    if result == 0 && attach::is_on() {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract: the kernel has read it.
        errno::kept(|| unsafe { options::note(&socket, level, name, value, length) });
    }
    if result == 0 && GIVE_CONTROL.contains(&(level, name)) {
        socket.slot.controls.store(1, Relaxed);
    }
    if result == 0 && (level, name) == (libc::SOL_SOCKET, libc::SO_RCVTIMEO) {
        errno::kept(|| note_timeout(&socket));
    }
    if result == 0 && (level, name) == (libc::IPPROTO_TCP, libc::TCP_NODELAY) {
        nagle::was_set(&socket);
    }
    result
}

/// Options after which the kernel gives control messages.
const GIVE_CONTROL: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    (libc::IPPROTO_TCP, rx::TCP_INQ),
];

/// The kernel's setsockopt; of SO_PEEK_OFF it gets the part behind the ring's bytes.
///
/// # Safety
/// setsockopt(2).
unsafe fn set_option(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        return rx::mark::set(socket, || unsafe { real::setsockopt(socket.fd, level, name, value, length) });
    }
    let is_offset = (level, name) == (libc::SOL_SOCKET, libc::SO_PEEK_OFF) && socket.is_live();
    if is_offset && is_plausible(value) && length as usize >= size_of::<c_int>() {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        let offset = unsafe { value.cast::<c_int>().read_unaligned() };
        return rx::set_peek_offset(socket, offset, |offset| {
            // SAFETY: a live value.
            unsafe { real::setsockopt(socket.fd, level, name, (&raw const offset).cast(), length.min(4)) }
        });
    }
    // SAFETY: the caller's contract.
    unsafe { real::setsockopt(socket.fd, level, name, value, length) }
}

/// Remembers what the rings' code needs to know; as the kernel holds it now.
fn note_timeout(socket: &Socket) {
    let mut limit = timeval { tv_sec: 0, tv_usec: 0 };
    if sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &mut limit).is_ok() {
        let usec = limit.tv_sec.saturating_mul(1_000_000).saturating_add(limit.tv_usec);
        socket.slot.receive_timeout_us.store(usec.clamp(0, i64::from(u32::MAX)) as u32, Relaxed);
    }
}

/// Options that an accepted socket has from its listener, as far as the rings' code needs to know.
pub(crate) fn note_inherited(socket: &Socket) {
    note_timeout(socket);
    rx::mark::note(socket);
}
