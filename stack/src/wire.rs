//! The formats on the wire: Ethernet, ARP, IPv4, IPv6, ICMP, ICMPv6, UDP and TCP.
//!
//! Each format has a `Header` that is the standard's diagram, field for field, in network byte order; a `parse`
//! that gives a view (or a small plain struct) and the payload; and an `emit` that writes into a slice and gives
//! the bytes written, or `None` when there is no room. A length that a packet tells is compared with the bytes
//! that are there before it is used, so a payload never reaches outside of the input: not into the padding of
//! an Ethernet frame either. What parses has met every rule of its format that needs no knowledge of the host;
//! what it broke otherwise is a [`Malformed`].
//!
//! Checksums: IPv4's header and ICMP are verified by `parse`, for no device does that; UDP and TCP by `verify`, which
//! the caller leaves out when the device has done it.
//!
//! `Display` prints as tcpdump does, TCP as packetdrill does, so that a trace reads beside a capture or a script.

use core::fmt;

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmpv6;
pub mod igmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod ndisc;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;

/// IP's numbers of the protocols that the stack speaks (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows (RFC 8200 §4.7).
    pub const NO_NEXT_HEADER: u8 = 59;

    /// The name in a trace, if the stack knows one.
    pub(super) const fn name(number: u8) -> Option<&'static str> {
        Some(match number {
            ICMP => "ICMP",
            TCP => "TCP",
            UDP => "UDP",
            ICMPV6 => "ICMP6",
            NO_NEXT_HEADER => "no next header",
            _ => return None,
        })
    }
}

/// The rule that a packet broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Malformed {
    /// The bytes end inside the format's fixed header (the header's diagram: RFC 791 §3.1, RFC 8200 §3,
    /// RFC 9293 §3.1, RFC 768, RFC 792, RFC 4443 §2.1, RFC 4861 §4, RFC 826; IEEE 802.3 §3.1.1).
    Truncated,
    /// More than two VLAN tags, or a tag inside a tag that isn't a service tag and a customer tag or two of the
    /// latter (IEEE 802.1Q §9).
    Tags,
    /// Ethernet's type is a length: below 0x0600 (IEEE 802.3 §3.2.6; RFC 1122 §2.3.3 makes those optional).
    EtherType,
    /// ARP for something else than IPv4 on Ethernet: its types and lengths (RFC 826, "Packet Reception").
    ArpKind,
    /// ARP's operation is neither a request nor a reply (RFC 826, "Definitions").
    ArpOperation,
    /// IP's version isn't the one that Ethernet's type said (RFC 791 §3.1, RFC 1122 §3.2.1.1, RFC 8200 §3).
    Version,
    /// IPv4's header length is under five words or beyond the datagram (RFC 791 §3.1, "IHL").
    HeaderLength,
    /// IPv4's total length is under its header's or beyond the frame (RFC 791 §3.1, "Total Length").
    TotalLength,
    /// IPv4's header checksum is wrong (RFC 791 §3.1, RFC 1122 §3.2.1.2).
    HeaderChecksum,
    /// An option of IPv4 is shorter than its own two bytes or reaches beyond the header (RFC 791 §3.1, "Options").
    Ipv4Option,
    /// A fragment reaches beyond 65 535 bytes, or isn't the last and no multiple of eight bytes
    /// (RFC 791 §3.2, RFC 8200 §4.5).
    Fragment,
    /// IPv6's payload length is beyond the frame (RFC 8200 §3).
    PayloadLength,
    /// An IPv4-mapped address in an IPv6 header: such addresses stand for IPv4 inside a host and never on the wire
    /// (RFC 4291 §2.5.5.2, RFC 4942 §2.2).
    MappedAddress,
    /// An extension header reaches beyond the datagram (RFC 8200 §4).
    ExtensionLength,
    /// More extension headers, bytes of them or options in one than a host needs to take (RFC 8504 §5.3).
    ExtensionLimit,
    /// Hop-by-hop options that aren't first, or a second fragment header (RFC 8200 §4.1).
    ExtensionOrder,
    /// An option of an extension header reaches beyond it (RFC 8200 §4.2).
    Ipv6Option,
    /// An option that we don't know and that says to discard the packet then (RFC 8200 §4.2).
    OptionUnrecognized,
    /// A routing header that has segments left: we're not its last destination (RFC 8200 §4.4, RFC 5095 §3).
    SegmentsLeft,
    /// The checksum of ICMP, UDP or TCP is wrong (RFC 792, RFC 4443 §2.3, RFC 768, RFC 9293 §3.1).
    Checksum,
    /// UDP over IPv6 without a checksum (RFC 8200 §8.1).
    ChecksumMissing,
    /// UDP's length is under its header's or beyond the datagram (RFC 768, "Length").
    UdpLength,
    /// TCP's data offset is under five words or beyond the segment (RFC 9293 §3.1, "DOffset").
    DataOffset,
    /// An option of TCP is shorter than its own two bytes or reaches beyond the header (RFC 9293 §3.2). This ends
    /// the options and is no reason to discard the segment: see [`tcp::options::Options::stopped`].
    TcpOption,
    /// A neighbor discovery message that a router has forwarded: its hop limit isn't 255
    /// (RFC 4861 §6.1.1, §6.1.2, §7.1.1, §7.1.2).
    HopLimit,
    /// A neighbor discovery message whose type isn't one of the four or whose code isn't 0 (RFC 4861 §6.1.1, §6.1.2, §7.1.1, §7.1.2).
    NeighborCode,
    /// A neighbor discovery message between addresses that it can't be between, or about a multicast address
    /// (RFC 4861 §6.1.1, §6.1.2, §7.1.1, §7.1.2).
    NeighborAddress,
    /// An option of neighbor discovery of length 0, beyond the message, or too short for its kind
    /// (RFC 4861 §4.6, §6.1.1).
    NeighborOption,
}

impl Malformed {
    /// Every rule, in the order of their declaration: an index of counters.
    pub const ALL: [Self; 28] = [
        Self::Truncated,
        Self::Tags,
        Self::EtherType,
        Self::ArpKind,
        Self::ArpOperation,
        Self::Version,
        Self::HeaderLength,
        Self::TotalLength,
        Self::HeaderChecksum,
        Self::Ipv4Option,
        Self::Fragment,
        Self::PayloadLength,
        Self::MappedAddress,
        Self::ExtensionLength,
        Self::ExtensionLimit,
        Self::ExtensionOrder,
        Self::Ipv6Option,
        Self::OptionUnrecognized,
        Self::SegmentsLeft,
        Self::Checksum,
        Self::ChecksumMissing,
        Self::UdpLength,
        Self::DataOffset,
        Self::TcpOption,
        Self::HopLimit,
        Self::NeighborCode,
        Self::NeighborAddress,
        Self::NeighborOption,
    ];
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Truncated => "truncated header",
            Self::Tags => "too many VLAN tags",
            Self::EtherType => "a length for an Ethernet type",
            Self::ArpKind => "ARP not of IPv4 on Ethernet",
            Self::ArpOperation => "unknown ARP operation",
            Self::Version => "wrong IP version",
            Self::HeaderLength => "bad IPv4 header length",
            Self::TotalLength => "bad IPv4 total length",
            Self::HeaderChecksum => "bad IPv4 header checksum",
            Self::Ipv4Option => "bad IPv4 option",
            Self::Fragment => "bad fragment",
            Self::PayloadLength => "bad IPv6 payload length",
            Self::MappedAddress => "IPv4-mapped address on the wire",
            Self::ExtensionLength => "bad extension header length",
            Self::ExtensionLimit => "too many extension headers",
            Self::ExtensionOrder => "extension headers out of order",
            Self::Ipv6Option => "bad IPv6 option",
            Self::OptionUnrecognized => "unrecognized IPv6 option",
            Self::SegmentsLeft => "routing header with segments left",
            Self::Checksum => "bad checksum",
            Self::ChecksumMissing => "no UDP checksum over IPv6",
            Self::UdpLength => "bad UDP length",
            Self::DataOffset => "bad TCP data offset",
            Self::TcpOption => "bad TCP option",
            Self::HopLimit => "neighbor discovery from afar",
            Self::NeighborCode => "bad neighbor discovery code",
            Self::NeighborAddress => "bad neighbor discovery address",
            Self::NeighborOption => "bad neighbor discovery option",
        })
    }
}

/// Writes a header's bytes at the start of a slice, if there is room.
fn put(header: &[u8], bytes: &mut [u8]) -> Option<usize> {
    bytes.get_mut(..header.len())?.copy_from_slice(header);
    Some(header.len())
}
