//! Control messages of datagrams: what a program says with one that it sends, and what it is told with one that it gets.

use driver::clock::{monotonic_ns, realtime_ns};
use libc::{c_int, msghdr};
use stack::settings::Switch;
use stack::udp::receive::Datagram;
use stack::udp::send::Sending;
use stack::wire::ip::Ip;

use crate::buffers::is_plausible;
use crate::cmsg::Room;

/// linux/udp.h.
const UDP_SEGMENT: c_int = 103;
const UDP_GRO: c_int = 104;

/// What a program is told with a datagram: the options of its socket say which of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) datagram: Datagram,
    /// Bits of [`Switch`].
    pub(super) options: u32,
    /// The socket is one of IPv6.
    pub(super) is_v6: bool,
    /// The interface's number in the kernel.
    pub(super) interface: u32,
}

impl Told {
    /// In Linux's order: sock_recv_cmsgs, udp_cmsg_recv, ip_cmsg_recv_offset, and ip6_datagram_recv_ctl for sockets of IPv6.
    pub(super) fn put(&self, room: &mut Room) {
        let has = |switch: u32| self.options & switch != 0;
        let Datagram { destination, arrived, drops, segment, .. } = &self.datagram;
        if has(Switch::TIMESTAMP | Switch::TIMESTAMP_NS) {
            put_time(room, arrived.0, has(Switch::TIMESTAMP_NS));
        }
        if has(Switch::DROPS_TOLD) && *drops != 0 {
            room.put(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &drops.to_ne_bytes());
        }
        if has(Switch::GRO) && *segment != 0 {
            room.put(libc::SOL_UDP, UDP_GRO, &c_int::from(*segment).to_ne_bytes());
        }
        if self.is_v6 && has(Switch::PACKET_INFO_V6) {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&destination.0);
            info[16..].copy_from_slice(&self.interface.to_ne_bytes());
            room.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        match destination.as_v4() {
            Some(address) => self.put_v4(room, address),
            None => self.put_v6(room),
        }
    }

    fn put_v4(&self, room: &mut Room, address: [u8; 4]) {
        let has = |switch: u32| self.options & switch != 0;
        if has(Switch::PACKET_INFO) {
            // The address of ours that it came to is the one that it was for.
            let info = [self.interface.to_ne_bytes(), address, address];
            room.put(libc::IPPROTO_IP, libc::IP_PKTINFO, info.as_flattened());
        }
        if has(Switch::TTL_TOLD) {
            room.put(libc::IPPROTO_IP, libc::IP_TTL, &c_int::from(self.datagram.ttl).to_ne_bytes());
        }
        if has(Switch::TOS_TOLD) {
            room.put(libc::IPPROTO_IP, libc::IP_TOS, &[self.datagram.tos]);
        }
    }

    fn put_v6(&self, room: &mut Room) {
        let has = |switch: u32| self.options & switch != 0;
        if has(Switch::HOP_LIMIT_TOLD) {
            let hops = c_int::from(self.datagram.ttl).to_ne_bytes();
            room.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops);
        }
        if has(Switch::CLASS_TOLD) {
            let class = c_int::from(self.datagram.tos).to_ne_bytes();
            room.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
        }
    }
}

/// The time of day at which it arrived: SO_TIMESTAMPNS, or SO_TIMESTAMP.
fn put_time(room: &mut Room, arrived: u64, in_ns: bool) {
    let then = realtime_ns().saturating_sub(monotonic_ns().saturating_sub(arrived));
    let (seconds, rest) = (then / 1_000_000_000, then % 1_000_000_000);
    let (kind, rest) = if in_ns { (libc::SCM_TIMESTAMPNS, rest) } else { (libc::SCM_TIMESTAMP, rest / 1000) };
    room.put(libc::SOL_SOCKET, kind, [seconds, rest].map(u64::to_ne_bytes).as_flattened());
}

/// Reads what goes with a datagram; `None` if there is something that the stack doesn't know, or something wrong.
///
/// # Safety
/// The room for control messages is the caller's promise.
pub(super) unsafe fn read(message: &msghdr, interface: u32) -> Option<Sending> {
    let mut how = Sending::default();
    if message.msg_controllen == 0 {
        return Some(how);
    }
    if !is_plausible(message.msg_control) || message.msg_controllen > LONGEST {
        return None;
    }
    // SAFETY: the caller's contract.
    let mut left =
        unsafe { core::slice::from_raw_parts(message.msg_control.cast::<u8>(), message.msg_controllen) };
    while let Some(header) = left.first_chunk::<HEADER>() {
        let (length, [level, kind]) = parsed(header);
        let value = left.get(HEADER..length)?;
        take(&mut how, (level, kind), value, interface)?;
        left = left.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    Some(how)
}

/// Most bytes of control messages that are read here.
const LONGEST: usize = 1024;
/// Bytes of a `struct cmsghdr`.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Length, level and type.
fn parsed(header: &[u8; HEADER]) -> (usize, [c_int; 2]) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *header;
    let [i, j, k, l, m, n, o, p] = rest;
    let length = usize::from_ne_bytes([a, b, c, d, e, f, g, h]);
    (length, [c_int::from_ne_bytes([i, j, k, l]), c_int::from_ne_bytes([m, n, o, p])])
}

fn take(how: &mut Sending, what: (c_int, c_int), value: &[u8], interface: u32) -> Option<()> {
    let number = || value.try_into().ok().map(c_int::from_ne_bytes);
    let octet = || u8::try_from(number()?).ok();
    match what {
        (libc::SOL_UDP, UDP_SEGMENT) => how.segment = Some(u16::from_ne_bytes(value.try_into().ok()?)),
        (libc::IPPROTO_IP, libc::IP_TTL) => how.ttl = Some(octet().filter(|ttl| *ttl != 0)?),
        (libc::IPPROTO_IP, libc::IP_TOS) => {
            how.tos = Some(if let [tos] = value { *tos } else { octet()? });
        }
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => how.ttl = Some(octet()?),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => how.tos = Some(octet()?),
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let info: &[u8; 12] = value.try_into().ok()?;
            let [a, b, c, d, source @ ..] = *info;
            may_leave_by(u32::from_ne_bytes([a, b, c, d]), interface)?;
            how.source = source.first_chunk().map(|source| Ip::v4(*source));
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let info: &[u8; 20] = value.try_into().ok()?;
            let (source, named) = info.split_first_chunk::<16>()?;
            may_leave_by(u32::from_ne_bytes(named.try_into().ok()?), interface)?;
            how.source = Some(Ip(*source));
        }
        _ => return None,
    }
    how.source = how.source.filter(|source| !source.is_unspecified());
    Some(())
}

/// An interface that a program names is ours, or it names none.
fn may_leave_by(named: u32, interface: u32) -> Option<()> {
    (named == 0 || named == interface).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(messages: &[(c_int, c_int, &[u8])]) -> Option<Sending> {
        let mut bytes = [0u64; 32];
        // SAFETY: a live array.
        let mut room = unsafe { Room::new(bytes.as_mut_ptr().cast(), 256) };
        messages.iter().for_each(|(level, kind, value)| room.put(*level, *kind, value));
        // SAFETY: zeros are a message.
        let mut message: msghdr = unsafe { core::mem::zeroed() };
        (message.msg_control, message.msg_controllen) = (bytes.as_mut_ptr().cast(), room.given().0);
        // SAFETY: a live array.
        unsafe { read(&message, 7) }
    }

    #[test]
    fn what_the_stack_knows_is_read_and_the_rest_is_the_kernels() {
        let info = [7u32.to_ne_bytes(), [192, 0, 2, 1], [0; 4]];
        let all: [(c_int, c_int, &[u8]); 4] = [
            (libc::SOL_UDP, UDP_SEGMENT, &1000u16.to_ne_bytes()),
            (libc::IPPROTO_IP, libc::IP_TTL, &9i32.to_ne_bytes()),
            (libc::IPPROTO_IP, libc::IP_TOS, &[0x10]),
            (libc::IPPROTO_IP, libc::IP_PKTINFO, info.as_flattened()),
        ];
        let how = written(&all).expect("all of it");
        assert_eq!((how.segment, how.ttl, how.tos), (Some(1000), Some(9), Some(0x10)));
        assert_eq!(how.source, Some(Ip::v4([192, 0, 2, 1])));
        let elsewhere = [8u32.to_ne_bytes(), [0; 4], [0; 4]];
        assert_eq!(written(&[(libc::IPPROTO_IP, libc::IP_PKTINFO, elsewhere.as_flattened())]), None);
        assert_eq!(written(&[(libc::IPPROTO_IP, libc::IP_TTL, &300i32.to_ne_bytes())]), None);
        assert_eq!(written(&[(libc::IPPROTO_IP, libc::IP_RETOPTS, &[1, 2])]), None);
        assert_eq!(written(&[]), Some(Sending::default()));
    }
}
