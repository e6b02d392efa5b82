//! Errors of ICMP and fragments: steering leaves them to the kernel, since they don't say in one place whose they are. What is the programs'
//! is given to them here, each packet as a message; whichever of them follows the kernel takes it.
//!
//! A program gets what any program of its user might get. An error says whose packet it is about; fragments, of which all but the first
//! say nothing, are for root's programs alone. Those of a datagram the kernel puts together for the program's own socket of UDP, which has
//! its port there, too: a stack that got them as well would deliver it twice.

use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;

use driver::passed::{BYTES, Passed};
use driver::steering::Protocol;
use driver::sys::{self, Errno, Fd};
use stack::wire::ip::Ip;
use stack::wire::{icmp, protocol};

use super::claims::Claims;

/// Packets that are carried before somebody else is looked after.
const BATCH: usize = 256;
/// Bytes that wait until a program takes them; what comes then is lost, as packets are.
const ROOM: i32 = 1 << 20;
/// Bytes of an IPv6 header, and of the part of a message of ICMP before what it quotes.
const V6_HEADER: usize = 40;
const MESSAGE: usize = 8;

/// Where they come, and where they go.
#[derive(Debug)]
pub(super) struct Relay {
    passed: Passed,
    near: Fd,
    far: Fd,
    /// Programs of root's, who may see everything.
    sees_all: bool,
    buffer: Vec<u8>,
}

fn owned(end: UnixDatagram) -> Fd {
    Fd::own(OwnedFd::from(end).into_raw_fd())
}

impl Relay {
    /// For what comes in by an interface that programs of this user drive.
    ///
    /// # Errors
    /// What the kernel says of the sockets.
    pub(super) fn open(interface: u32, user: u32) -> sys::Result<Self> {
        let passed = Passed::open(interface)?;
        let pair = UnixDatagram::pair().and_then(|pair| {
            // Nobody sends the other way.
            pair.0.shutdown(std::net::Shutdown::Read).map(|()| pair)
        });
        let pair = pair.map_err(|error| Errno(error.raw_os_error().unwrap_or_default()));
        let (near, far) = pair.map(|(near, far)| (owned(near), owned(far)))?;
        sys::setsockopt(near.raw(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &ROOM)?;
        Ok(Self { passed, near, far, sees_all: user == 0, buffer: vec![0; BYTES] })
    }

    /// Readable when there is something to [`Self::carry`].
    pub(super) const fn fd(&self) -> &Fd {
        self.passed.fd()
    }

    /// The programs' end.
    pub(super) const fn far_end(&self) -> &Fd {
        &self.far
    }

    /// Carries what is there.
    pub(super) fn carry(&mut self, claims: &Claims) {
        for _ in 0..BATCH {
            let Ok(Some(len)) = self.passed.next(&mut self.buffer) else { return };
            let packet = &self.buffer[..len.min(BYTES)];
            if is_part_of_datagram(packet) {
                continue;
            }
            if self.sees_all
                || about(packet).is_some_and(|(protocol, ip, port)| claims.has(protocol, &ip, port))
            {
                let _ = sys::send_with(&self.near, packet, &[], libc::MSG_DONTWAIT);
            }
        }
    }
}

/// Whether it is a fragment of UDP (RFC 791 §3.1; RFC 8200 §4.5, where the header of a fragment says what it is of).
fn is_part_of_datagram(packet: &[u8]) -> bool {
    let byte = |at: usize| packet.get(at).copied().unwrap_or_default();
    match byte(0) >> 4 {
        4 => u16::from_be_bytes([byte(6), byte(7)]) & 0x3fff != 0 && byte(9) == protocol::UDP,
        _ => i32::from(byte(6)) == libc::IPPROTO_FRAGMENT && byte(V6_HEADER) == protocol::UDP,
    }
}

/// Whose packet an error is about: its protocol, address and port here. `None` for a fragment.
fn about(packet: &[u8]) -> Option<(Protocol, Ip, u16)> {
    let is_v4 = packet.first()? >> 4 == 4;
    let (is_fragment, is_error, headers) = match is_v4 {
        true => (
            u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0,
            *packet.get(9)? == protocol::ICMP,
            usize::from(packet[0] & 15) * 4,
        ),
        false => (false, *packet.get(6)? == protocol::ICMPV6, V6_HEADER),
    };
    if is_fragment || !is_error {
        return None;
    }
    let quoted = icmp::quoted(packet.get(headers + MESSAGE..)?, is_v4).ok()?;
    let (port, ..) = quoted.ports_and_sequence()?;
    let protocol = match quoted.protocol {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        _ => return None,
    };
    Some((protocol, quoted.source, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error about a segment or a datagram from port 40,000 of 10.0.0.1.
    fn error(carried: u8, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0; 20 + 8 + 20 + 8];
        (packet[0], packet[9], packet[20], packet[21]) = (0x45, protocol::ICMP, 3, 3);
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        (packet[28], packet[31], packet[37]) = (0x45, 28, carried);
        packet[40..48].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[48..50].copy_from_slice(&40_000u16.to_be_bytes());
        packet
    }

    #[test]
    fn an_error_says_whose_packet_it_is_about() {
        let ip = Ip::v4([10, 0, 0, 1]);
        assert_eq!(about(&error(protocol::TCP, 0)), Some((Protocol::Tcp, ip, 40_000)));
        assert_eq!(about(&error(protocol::UDP, 0x4000)), Some((Protocol::Udp, ip, 40_000)));
        assert_eq!(about(&error(protocol::ICMP, 0)), None);
        assert_eq!(about(&error(protocol::TCP, 0x2000)), None, "a fragment");
        let mut part = error(protocol::TCP, 0x2000);
        assert!(!is_part_of_datagram(&part));
        part[9] = protocol::UDP;
        assert!(is_part_of_datagram(&part));
        (part[6], part[7]) = (0x40, 0);
        assert!(!is_part_of_datagram(&part), "don't fragment, and whole");
        let mut v6 = vec![0; 48];
        (v6[0], v6[6], v6[40]) = (0x60, libc::IPPROTO_FRAGMENT as u8, protocol::UDP);
        assert!(is_part_of_datagram(&v6) && !is_part_of_datagram(&v6[..40]));
        for len in 0..52 {
            assert_eq!(about(&error(protocol::TCP, 0)[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn an_error_is_for_who_has_the_port() {
        let claims = Claims::new(1, vec![(40_000, 8)]);
        let ip = Ip::v4([10, 0, 0, 1]);
        assert!(claims.has(Protocol::Tcp, &ip, 40_007) && claims.has(Protocol::Udp, &ip, 40_000));
        assert!(!claims.has(Protocol::Tcp, &ip, 40_008));
    }
}
