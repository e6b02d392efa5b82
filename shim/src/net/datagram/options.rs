//! Options and counts of sockets of UDP: the kernel's socket has them all, and the stack's those that concern what it does.

use driver::sys;
use libc::{c_int, c_void, socklen_t};
use rows::reasons::Reason;
use stack::udp;

use super::give_back;
use crate::net::Carried;
use crate::net::options::keep;
use crate::slot::Socket;

/// asm-generic/socket.h: what polls the device of the kernel's half, and where that runs.
const SO_BUSY_POLL: c_int = 46;
const SO_INCOMING_CPU: c_int = 49;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;

/// Options of what only the kernel's half does: timeouts, errors of ICMP, broadcast, multicast; and a mark of which its routes
/// may make something, as long as it is none.
const KERNELS: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
    (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, SO_BUSY_POLL),
    (libc::SOL_SOCKET, SO_INCOMING_CPU),
    (libc::SOL_SOCKET, SO_PREFER_BUSY_POLL),
    (libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_IF),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
    (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP),
    (libc::IPPROTO_IP, IP_MULTICAST_ALL),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP),
    (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP),
    (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP),
    (libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL),
];
/// linux/in.h and linux/in6.h.
const IP_MULTICAST_ALL: c_int = 49;
const IPV6_MULTICAST_ALL: c_int = 29;
/// IP_ADD_MEMBERSHIP to IP_MSFILTER, and MCAST_JOIN_GROUP to MCAST_MSFILTER, which either version of IP has.
const GROUPS: core::ops::RangeInclusive<c_int> = 35..=48;
const PROTOCOL_INDEPENDENT: core::ops::RangeInclusive<c_int> = 42..=48;

/// Options by which only the kernel can go: the stack knows their names, and no more.
const REFUSED: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
];

/// asm-generic/socket.h: which interface a socket is bound to.
const SO_BINDTOIFINDEX: c_int = 62;

fn is_device(level: c_int, name: c_int) -> bool {
    level == libc::SOL_SOCKET && [libc::SO_BINDTODEVICE, SO_BINDTOIFINDEX].contains(&name)
}

/// Whether the interface that a socket is bound to now is no other than the stack's; before it is decided, that is looked at then.
fn stays_at_device(socket: &Socket) -> bool {
    socket.datagrams().is_none_or(|carried| [0, carried.interface.index].contains(&device(socket.fd)))
}

/// The interface that a socket is bound to; 0 is none.
pub(super) fn device(fd: c_int) -> u32 {
    let mut value = 0;
    sys::getsockopt(fd, libc::SOL_SOCKET, SO_BINDTOIFINDEX, &mut value).map_or(0, |_| value)
}

fn is_kernels(level: c_int, name: c_int) -> bool {
    KERNELS.contains(&(level, name))
        || level == libc::IPPROTO_IP && GROUPS.contains(&name)
        || level == libc::IPPROTO_IPV6 && PROTOCOL_INDEPENDENT.contains(&name)
}

fn is_known(level: c_int, name: c_int) -> bool {
    !REFUSED.contains(&(level, name))
        && udp::options::names().any(|what| (what.level, what.number) == (level, name))
}

/// The kernel has taken an option: the stack's half gets it, too, now or when there is one; or there will be none.
///
/// # Safety
/// `value` is the caller's promise for `length` bytes: the kernel has read them.
pub(crate) unsafe fn note(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) {
    if is_kernels(level, name) || is_device(level, name) && stays_at_device(socket) {
        return;
    }
    // SAFETY: the caller's contract.
    let is_kept = is_known(level, name)
        && unsafe { keep(socket, level, name, value, length) && hand_on(socket, level, name, value, length) };
    if !is_kept {
        give_back(socket, Reason::Option);
    }
}

/// The stack's half gets an option, if there is one.
///
/// # Safety
/// As [`note`].
unsafe fn hand_on(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> bool {
    let Some(carried) = socket.datagrams() else { return true };
    let value = match length {
        0 => &[],
        // SAFETY: the caller's contract.
        _ => unsafe { core::slice::from_raw_parts(value.cast::<u8>(), length as usize) },
    };
    let handle = carried.handle;
    carried.with(|stack| stack.udp_set_option(handle, level, name, value)).is_ok()
}

/// What ioctl(2) tells (udp_ioctl in net/ipv4/udp.c): `None` is the kernel's to answer.
pub(crate) fn count(carried: &Carried, request: u64) -> Option<c_int> {
    let handle = carried.handle;
    match request {
        libc::FIONREAD => {
            let next = carried.with(|stack| {
                stack.poll();
                stack.udp_readable(handle).unwrap_or(0)
            });
            (next > 0).then_some(next as c_int)
        }
        libc::TIOCOUTQ => {
            let kernels = sys::ioctl_int(carried.socket.fd, request).ok()?;
            let unsent = carried.with(|stack| {
                stack.poll();
                stack.udp_unsent(handle).unwrap_or(0)
            });
            Some(kernels.saturating_add(unsent as c_int))
        }
        _ => None,
    }
}
