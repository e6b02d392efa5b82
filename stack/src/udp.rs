//! UDP (RFC 768): the record of a socket, and what of its life needs no datagram.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::demux::Link;
use crate::frames::list::FrameList;
use crate::frames::pool::Charge;
use crate::region::slab::{Record, Tag};
use crate::wire::ip::Ip;

pub mod calls;
mod cork;
pub(crate) mod draft;
pub mod errors;
pub mod group;
mod open;
pub mod options;
pub(crate) mod queue;
pub mod receive;
pub mod send;

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
    /// What its options have set ([`crate::settings`]).
    pub settings: u16,
    /// How it shares address and port ([`crate::demux`]).
    pub sharing: u8,
    /// As what it is counted at its port ([`crate::ports::Class`]).
    pub bound_as: u8,
    /// The others at the same address and port.
    pub link: Link,
    /// Datagrams dropped because the buffer was full (SO_RXQ_OVFL).
    pub drops: u32,
    /// SO_ERROR ([`crate::error::Error::code`]).
    pub error: u8,
    /// Directions that were shut down: bits of [`Shut`].
    pub shut: u8,
    /// Bits of [`Mark`].
    pub marks: u8,
    /// No meaning yet; zero.
    pub reserved: u8,

    // ---- the second line ----
    /// Datagrams that were not read ([`queue`]).
    pub receive: FrameList,
    /// Frames that wait to be read, errors with them (SO_RCVBUF).
    pub receive_charge: Charge,
    /// Frames that the device sends (SO_SNDBUF).
    pub send_charge: Charge,
    /// Of the table of routes when `route` was looked up.
    pub route_version: u32,
    /// The neighbour of the way to its peer, plus one; valid while `route_version` is the table's.
    pub route: u16,
    /// The path's MTU towards the peer, likewise.
    pub path_mtu: u16,
    /// When the datagram that was read last had arrived (SIOCGSTAMP), in nanoseconds.
    pub stamp: u64,
    /// Its address and port among those in use ([`crate::ports`]), plus one.
    pub bound: u32,
    /// The first multicast group it has joined, plus one.
    pub memberships: u32,
    /// The slots of the processes that have a descriptor of it.
    pub holders: u64,

    // ---- the third: what is seldom touched ----
    /// Errors for MSG_ERRQUEUE (IP_RECVERR), the oldest first: frames that begin with [`errors::Report`].
    pub errors: FrameList,
    /// The address of ours that multicast is sent from (IP_MULTICAST_IF), if one was chosen; else unspecified.
    pub multicast_from: Ip,
    /// Part of a datagram that goes on ([`cork`]).
    pub kept: FrameList,
    /// No meaning yet; zero.
    pub reserved_words: [u64; 2],
}

/// Bits of [`UdpSocket::shut`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut;

impl Shut {
    /// SHUT_RD.
    pub const READ: u8 = 1;
    /// SHUT_WR.
    pub const WRITE: u8 = 2;
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
    /// A sender found no room: it is told when there is some.
    pub const WANTS_ROOM: u8 = 16;
    /// Datagrams go on until it is switched off (UDP_CORK).
    pub const CORK: u8 = 32;
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
    /// A source that is let through, or kept out; unspecified in the record of the group itself.
    pub source: Ip,
    /// The next one of the same socket, plus one.
    pub next: u32,
    /// A [`group::Filter`]: 0 lets everything through but `source`, 1 nothing else.
    pub filter: u16,
    /// Of the group's own record, 1: it has, or had, sources, and their kind stays.
    pub had_sources: u16,
    /// The socket, plus one.
    pub owner: u32,
}

const _: () = assert!(size_of::<UdpSocket>() == 192 && core::mem::offset_of!(UdpSocket, receive) == 64);
const _: () = assert!(core::mem::offset_of!(UdpSocket, errors) == 128);

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
