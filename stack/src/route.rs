//! Where packets go: routes, and the addresses that are ours. The owner of the stack keeps both current.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Tag};
use crate::wire::ip::Ip;

/// A route. IPv4's have their prefix counted in the IPv4-mapped form: 96 more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The destinations it is for.
    pub destination: Ip,
    /// The next hop; unspecified when the destination itself is on the link.
    pub gateway: Ip,
    /// The address to send from; unspecified when the interface's is chosen.
    pub source: Ip,
    /// Of routes as specific as each other, the lowest wins.
    pub metric: u32,
    /// MTU of that way; 0 is the interface's.
    pub mtu: u16,
    /// Leading bits of `destination` that must agree, of 128.
    pub prefix_len: u8,
    /// 0 a way; other values say why there is none (unreachable, prohibit, blackhole), as an
    /// [`crate::error::Error::code`].
    pub refusal: u8,
}

/// One of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The address.
    pub ip: Ip,
    /// Leading bits that its subnet shares, of 128; IPv4's have 96 more.
    pub prefix_len: u8,
    /// Bits of [`AddressFlag`].
    pub flags: u8,
    /// No meaning yet; zero.
    pub reserved: u16,
}

/// Bits of [`Address::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFlag;

impl AddressFlag {
    /// Not used for new connections unless asked for (RFC 4862 §5.5.4, RFC 6724 §5 rule 3).
    pub const DEPRECATED: u8 = 1;
    /// Duplicate address detection goes on (RFC 4862 §5.4).
    pub const TENTATIVE: u8 = 2;
}

/// What was learned about one destination, for every socket that talks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Destination {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The destination.
    pub ip: Ip,
    /// When the path's MTU is forgotten, in nanoseconds (RFC 1191 §6.3, RFC 8201 §4).
    pub mtu_until: u64,
    /// Its cookie of fast open (RFC 7413 §4.1.3).
    pub cookie: [u8; 16],
    /// The path's MTU; 0 is the route's.
    pub path_mtu: u16,
    /// Between what a search for a larger one looks (RFC 4821 §7.2): known to pass.
    pub probe_low: u16,
    /// Known not to.
    pub probe_high: u16,
    /// The peer's MSS of that cookie.
    pub mss: u16,
    /// Bytes of the cookie; 0 is none.
    pub cookie_len: u8,
    /// Times in a row that a SYN with data got no answer.
    pub fast_open_failures: u8,
    /// No meaning yet; zero.
    pub reserved: u16,
    /// The next destination in the order of use, plus one: the least recent gives way.
    pub next: u32,
    /// The previous one.
    pub previous: u32,
    /// Seconds at which fast open is tried again.
    pub fast_open_again_at: u32,
}

impl Record for Route {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for Address {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for Destination {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}
