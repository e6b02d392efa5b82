//! What was learned about one destination and outlives its connections: the cookie of fast open (RFC 7413 §4.1.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Tag};
use crate::wire::ip::Ip;

/// One destination's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Destination {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The destination.
    pub ip: Ip,
    /// Its cookie of fast open.
    pub cookie: [u8; 16],
    /// The peer's MSS of that cookie.
    pub mss: u16,
    /// Bytes of the cookie; 0 is none.
    pub cookie_len: u8,
    /// Times in a row that a SYN with data got no answer.
    pub fast_open_failures: u8,
    /// The next destination in the order of use, plus one: the least recent gives way.
    pub next: u32,
    /// The previous one.
    pub previous: u32,
    /// Seconds at which fast open is tried again.
    pub fast_open_again_at: u32,
}

impl Record for Destination {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}
