//! What steering passes to the kernel and is a stack's all the same: errors of ICMP, which quote what the stack has sent, and fragments, of
//! which all but the first have no ports. A packet socket sees them once the XDP program has let them pass, and a filter of the kernel's
//! leaves out everything else.
//!
//! Who has the rights keeps the socket: it can send by any interface. What it reads goes to whoever drives the stack, which looks
//! at it as at anything that comes from a wire.

use crate::sys::{self, Errno, Fd};

/// Bytes of the longest packet that is read.
pub const BYTES: usize = 65_535;
/// ETH_P_ALL.
const ALL: u16 = 3;
/// linux/if_packet.h; libc has no name for it (Linux 4.20).
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// `struct sockaddr_ll`: family, protocol, interface, and what only answers have.
const NAME: usize = 20;

/// `struct sock_filter`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Step {
    code: u16,
    then: u8,
    or_else: u8,
    value: u32,
}

/// `struct sock_fprog`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Program {
    len: u16,
    steps: *const Step,
}

// Instructions of linux/bpf_common.h: loads of a byte or two at a place, the length of IPv4's header into X, a byte behind that, and
// jumps.
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HEADER_LEN: u16 = 0xb1;
const LOAD_BYTE_BEHIND: u16 = 0x50;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_PKTTYPE: whom it is for; PACKET_HOST is 0.
const PACKET_TYPE: u32 = 0xffff_f004;

/// Where the filter takes a packet, and where it doesn't.
const TAKEN: u8 = 21;
const NOT: u8 = 22;

const fn step(code: u16, value: u32) -> Step {
    Step { code, then: 0, or_else: 0, value }
}

/// A jump from step `at`: to these steps, where 0 is the next.
const fn jump(at: u8, code: u16, value: u32, then: u8, or_else: u8) -> Step {
    const fn distance(at: u8, to: u8) -> u8 {
        if to == 0 { 0 } else { to - at - 1 }
    }
    Step { code, then: distance(at, then), or_else: distance(at, or_else), value }
}

/// Packets for this host that are fragments, or errors of ICMP (RFC 792: types 3, 11, 12; RFC 4443: 1 to 4).
const FILTER: [Step; 23] = [
    step(LOAD_BYTE, PACKET_TYPE),
    jump(1, IF_EQUAL, 0, 0, NOT),
    step(LOAD_BYTE, 0),
    step(AND, 0xf0),
    jump(4, IF_EQUAL, 0x40, 0, 14),
    // IPv4: an offset, or more to come.
    step(LOAD_HALF, 6),
    jump(6, IF_ANY_BIT, 0x3fff, TAKEN, 0),
    step(LOAD_BYTE, 9),
    jump(8, IF_EQUAL, libc::IPPROTO_ICMP as u32, 0, NOT),
    step(LOAD_HEADER_LEN, 0),
    step(LOAD_BYTE_BEHIND, 0),
    jump(11, IF_EQUAL, 3, TAKEN, 0),
    jump(12, IF_EQUAL, 11, TAKEN, 0),
    jump(13, IF_EQUAL, 12, TAKEN, NOT),
    jump(14, IF_EQUAL, 0x60, 0, NOT),
    // IPv6: the next header, behind which an error begins.
    step(LOAD_BYTE, 6),
    jump(16, IF_EQUAL, libc::IPPROTO_FRAGMENT as u32, TAKEN, 0),
    jump(17, IF_EQUAL, libc::IPPROTO_ICMPV6 as u32, 0, NOT),
    step(LOAD_BYTE, 40),
    jump(19, IF_AT_LEAST, 1, 0, NOT),
    jump(20, IF_GREATER, 4, NOT, TAKEN),
    step(RETURN, BYTES as u32),
    step(RETURN, 0),
];

/// The socket.
#[derive(Debug)]
pub struct Passed(Fd);

impl Passed {
    /// For what comes in by the interface with this number.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW; what the kernel says of it.
    pub fn open(interface: u32) -> sys::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Nothing comes before the filter is there and the socket is bound.
        let fd = sys::socket(libc::AF_PACKET, kind, 0)?;
        let program = Program { len: FILTER.len() as u16, steps: FILTER.as_ptr() };
        sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1i32)?;
        // What this host sends costs nothing more then: it is not copied for the filter to leave it out.
        let _ = sys::setsockopt(fd.raw(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32);
        let mut name = [0; NAME];
        name[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
        name[2..4].copy_from_slice(&ALL.to_be_bytes());
        name[4..8].copy_from_slice(&interface.to_ne_bytes());
        sys::bind(&fd, &name)?;
        Ok(Self(fd))
    }

    /// Readable when there is something.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        &self.0
    }

    /// The next packet, from IP's header on: its length, or `None` when there is none now.
    ///
    /// # Errors
    /// ENETDOWN when the interface was switched off; it goes on when it is on again.
    pub fn next(&self, to: &mut [u8]) -> sys::Result<Option<usize>> {
        next(&self.0, to)
    }
}

/// The next message of a socket of either end, which doesn't wait.
///
/// # Errors
/// What recv(2) says.
pub fn next(fd: &Fd, to: &mut [u8]) -> sys::Result<Option<usize>> {
    // SAFETY: the buffer is writable for its length.
    match unsafe { sys::recv(fd.raw(), to.as_mut_ptr().cast(), to.len(), libc::MSG_DONTWAIT) } {
        Err(Errno(libc::EAGAIN)) => Ok(None),
        len => len.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a packet.
    fn takes(packet: &[u8], packet_type: u32) -> bool {
        let (mut a, mut x, mut at) = (0u32, 0usize, 0usize);
        let byte = |place: usize| packet.get(place).copied().map(u32::from);
        loop {
            let Step { code, then, or_else, value } = FILTER[at];
            let place = value as usize;
            let loaded = match code {
                LOAD_BYTE if value == PACKET_TYPE => Some(packet_type),
                LOAD_BYTE => byte(place),
                LOAD_HALF => byte(place).zip(byte(place + 1)).map(|(high, low)| high << 8 | low),
                LOAD_BYTE_BEHIND => byte(place + x),
                LOAD_HEADER_LEN => byte(place).inspect(|first| x = (*first as usize & 15) * 4).map(|_| a),
                AND => Some(a & value),
                RETURN => return value != 0,
                _ => {
                    let holds = match code {
                        IF_EQUAL => a == value,
                        IF_GREATER => a > value,
                        IF_AT_LEAST => a >= value,
                        _ => a & value != 0,
                    };
                    at += usize::from(if holds { then } else { or_else });
                    Some(a)
                }
            };
            // A load beyond the end ends the filter, which takes nothing then.
            let Some(loaded) = loaded else { return false };
            (a, at) = (loaded, at + 1);
        }
    }

    fn v4(protocol: u8, fragment: u16, kind: u8) -> [u8; 28] {
        let mut packet = [0; 28];
        (packet[0], packet[9], packet[20]) = (0x45, protocol, kind);
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet
    }

    fn v6(next: u8, kind: u8) -> [u8; 48] {
        let mut packet = [0; 48];
        (packet[0], packet[6], packet[40]) = (0x60, next, kind);
        packet
    }

    #[test]
    fn errors_and_fragments_are_taken_and_nothing_else_is() {
        for kind in 0..=255 {
            assert_eq!(takes(&v4(1, 0, kind), 0), matches!(kind, 3 | 11 | 12), "ICMP {kind}");
            assert_eq!(takes(&v4(1, 0x4000, kind), 0), matches!(kind, 3 | 11 | 12), "not to be cut");
            assert_eq!(takes(&v6(58, kind), 0), matches!(kind, 1..=4), "ICMPv6 {kind}");
        }
        for protocol in [1, 6, 17] {
            assert!(takes(&v4(protocol, 0x2000, 0), 0) && takes(&v4(protocol, 185, 0), 0));
            assert!(!takes(&v4(protocol, 0, 0), 0) && !takes(&v4(protocol, 0x4000, 0), 0));
        }
        assert!(takes(&v6(44, 0), 0) && !takes(&v6(6, 1), 0) && !takes(&v6(17, 1), 0));
        assert!(!takes(&v4(6, 0x2000, 0), 4), "what this host sends");
        for len in 0..20 {
            assert!(!takes(&v4(1, 0, 3)[..len], 0) && !takes(&v6(58, 1)[..len.min(40)], 0));
        }
        assert!(!takes(&[0x15; 64], 0));
    }
}
