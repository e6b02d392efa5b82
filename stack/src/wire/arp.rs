//! Address resolution of IPv4 on Ethernet (RFC 826).

use core::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet::{self, Address};
use super::ip::Ip;
use super::{Malformed, put};

/// Ethernet among the hardware types (RFC 826, "Definitions").
const ETHERNET: u16 = 1;

/// The packet (RFC 826, "Packet format") with addresses of six and four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    hardware_type: U16,
    protocol_type: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_hardware: Address,
    sender_protocol: [u8; 4],
    target_hardware: Address,
    target_protocol: [u8; 4],
}

/// What is asked or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has its address.
    Reply,
}

/// A packet. Both addresses of IP are ones of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// A question or its answer.
    pub operation: Operation,
    /// The sender's address on the link.
    pub sender_hardware: Address,
    /// The sender's address: 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    pub sender_protocol: Ip,
    /// The target's address on the link; without meaning in a request.
    pub target_hardware: Address,
    /// The address that is asked for.
    pub target_protocol: Ip,
}

/// A packet, and the padding behind it.
pub fn parse(bytes: &[u8]) -> Result<(Packet, &[u8]), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let types = (header.hardware_type.get(), header.protocol_type.get());
    if types != (ETHERNET, ethernet::IPV4) || (header.hardware_len, header.protocol_len) != (6, 4) {
        return Err(Malformed::ArpKind);
    }
    let operation = match header.operation.get() {
        1 => Operation::Request,
        2 => Operation::Reply,
        _ => return Err(Malformed::ArpOperation),
    };
    let packet = Packet {
        operation,
        sender_hardware: header.sender_hardware,
        sender_protocol: Ip::v4(header.sender_protocol),
        target_hardware: header.target_hardware,
        target_protocol: Ip::v4(header.target_protocol),
    };
    Ok((packet, rest))
}

impl Packet {
    /// Writes the packet; `None` also when an address isn't one of IPv4.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let header = Header {
            hardware_type: ETHERNET.into(),
            protocol_type: ethernet::IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: match self.operation {
                Operation::Request => 1.into(),
                Operation::Reply => 2.into(),
            },
            sender_hardware: self.sender_hardware,
            sender_protocol: self.sender_protocol.as_v4()?,
            target_hardware: self.target_hardware,
            target_protocol: self.target_protocol.as_v4()?,
        };
        put(header.as_bytes(), bytes)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Request => {
                write!(out, "ARP, Request who-has {} tell {}", self.target_protocol, self.sender_protocol)
            }
            Operation::Reply => {
                write!(out, "ARP, Reply {} is-at {}", self.sender_protocol, self.sender_hardware)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2];

    #[test]
    fn a_request_and_its_reply() {
        let (request, rest) = parse(&REQUEST).expect("a request");
        assert_eq!(request.to_string(), "ARP, Request who-has 192.0.2.2 tell 192.0.2.1");
        assert!(rest.is_empty());
        let reply = Packet {
            operation: Operation::Reply,
            sender_hardware: Address([2, 0, 0, 0, 0, 2]),
            sender_protocol: request.target_protocol,
            target_hardware: request.sender_hardware,
            target_protocol: request.sender_protocol,
        };
        assert_eq!(reply.to_string(), "ARP, Reply 192.0.2.2 is-at 02:00:00:00:00:02");
        assert_eq!(Packet { sender_protocol: Ip::UNSPECIFIED, ..reply }.emit(&mut [0; 28]), None);
    }

    #[test]
    fn rules() {
        let with = |at: usize, byte: u8| {
            let mut bytes = REQUEST;
            bytes[at] = byte;
            parse(&bytes).err()
        };
        assert_eq!(parse(&REQUEST[..27]), Err(Malformed::Truncated));
        for (at, byte) in [(1, 6), (2, 0x86), (4, 8), (5, 16)] {
            assert_eq!(with(at, byte), Some(Malformed::ArpKind));
        }
        assert_eq!(with(7, 0), Some(Malformed::ArpOperation));
        assert_eq!(with(7, 3), Some(Malformed::ArpOperation));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(
            reply in any::<bool>(), from in any::<([u8; 6], [u8; 4])>(), to in any::<([u8; 6], [u8; 4])>(), room in 20usize..60,
        ) {
            let packet = Packet {
                operation: if reply { Operation::Reply } else { Operation::Request },
                sender_hardware: Address(from.0),
                sender_protocol: Ip::v4(from.1),
                target_hardware: Address(to.0),
                target_protocol: Ip::v4(to.1),
            };
            let mut bytes = vec![0; room];
            prop_assert_eq!(packet.emit(&mut bytes), (room >= 28).then_some(28));
            if room >= 28 {
                prop_assert_eq!(parse(&bytes), Ok((packet, &bytes[28..])));
            }
        }
    }
}
