//! UDP (RFC 768): the record of a socket, and what of its life needs no datagram.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::demux::Link;
use crate::region::slab::{Record, Tag};
use crate::wire::ip::Ip;

mod open;

/// A socket of UDP. A link is an index plus one, 0 is none; zero bytes are a record that was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct UdpSocket {
    // ---- the first line: whose datagram it is, and where it goes ----
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// Our address; unspecified for all of them.
    pub local: Ip,
    /// The peer's address; unspecified without one.
    pub remote: Ip,
    /// Our port, or 0.
    pub local_port: u16,
    /// The peer's port, or 0.
    pub remote_port: u16,
    /// How it shares address and port ([`crate::demux`]).
    pub sharing: u8,
    /// As what it is counted at its port ([`crate::ports::Class`]).
    pub bound_as: u8,
    /// What its options have set ([`crate::settings`]).
    pub settings: u16,
    /// The first frame that was not read.
    pub receive_head: u32,
    /// The last one.
    pub receive_tail: u32,
    /// The others at the same address and port.
    pub link: Link,

    // ---- the second line ----
    /// The slots of the processes that have a descriptor of it.
    pub holders: u64,
    /// When the datagram that was read last had arrived (SIOCGSTAMP), in nanoseconds.
    pub stamp: u64,
    /// Its address and port among those in use ([`crate::ports`]), plus one.
    pub bound: u32,
    /// Of the table of routes when `route` was looked up.
    pub route_version: u32,
    /// SO_SNDBUF, in bytes.
    pub send_buffer: u32,
    /// SO_RCVBUF, in bytes.
    pub receive_buffer: u32,
    /// Frames that wait to be read.
    pub receive_frames: u16,
    /// Frames that wait to be sent, or for their completion.
    pub send_frames: u16,
    /// The route to its peer, plus one; valid while `route_version` is the table's.
    pub route: u16,
    /// The path's MTU towards the peer, as far as is known.
    pub path_mtu: u16,
    /// Datagrams dropped because the buffer was full (SO_RXQ_OVFL).
    pub drops: u32,
    /// The first multicast group it has joined.
    pub memberships: u32,
    /// Which of our addresses multicast is sent from (IP_MULTICAST_IF), plus one.
    pub multicast_from: u32,
    /// The first error for MSG_ERRQUEUE: a frame that quotes the datagram (IP_RECVERR).
    pub errors_head: u32,
    /// The last one.
    pub errors_tail: u32,
    /// SO_ERROR ([`crate::error::Error::code`]).
    pub error: u8,
    /// Directions that were shut down: 1 receiving, 2 sending.
    pub shut: u8,
    /// Bits of [`Mark`].
    pub marks: u8,
    /// No meaning yet; zero.
    pub reserved: u8,
}

/// Bits of [`UdpSocket::marks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark;

impl Mark {
    /// A socket of IPv6, even if it speaks IPv4 now.
    pub const V6: u8 = 1;
    /// bind(2) has set the address.
    pub const ADDRESS_BOUND: u8 = 2;
    /// bind(2) has set the port.
    pub const PORT_BOUND: u8 = 4;
    /// It has a peer.
    pub const CONNECTED: u8 = 8;
}

impl UdpSocket {
    /// Whether it has this [`Mark`].
    #[must_use]
    pub const fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }
}

/// A multicast group that a socket has joined (RFC 3376 §3.1, RFC 3810 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Membership {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The group.
    pub group: Ip,
    /// A source that is let through, or kept out; unspecified for all.
    pub source: Ip,
    /// The next one of the same socket, plus one.
    pub next: u32,
    /// 0 lets everything through but `source`, 1 nothing else.
    pub includes: u32,
}

const _: () = assert!(size_of::<UdpSocket>() == 128 && core::mem::offset_of!(UdpSocket, holders) == 64);

impl Record for Membership {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for UdpSocket {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}
