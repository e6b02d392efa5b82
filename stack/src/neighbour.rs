//! Who is on the link: the record of a neighbour (RFC 4861 §5.1, RFC 826).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Tag};
use crate::region::wheel::{Entry, Timed};
use crate::wire::ip::Ip;

/// A neighbour. A link is an index plus one, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Neighbour {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// Its address.
    pub ip: Ip,
    /// When it was confirmed last, in nanoseconds (RFC 4861 §7.3.1).
    pub confirmed: u64,
    /// Its link address.
    pub link: [u8; 6],
    /// RFC 4861 §7.3.2, as a byte; 0 is INCOMPLETE.
    pub state: u8,
    /// Solicitations that were not answered.
    pub probes: u8,
    /// The first packet that waits for its link address.
    pub pending_head: u32,
    /// The last one.
    pub pending_tail: u32,
    /// How many wait.
    pub pending_len: u16,
    /// It is a router (RFC 4861 §4.4).
    pub is_router: u8,
    /// The owner of the stack set it; it is never asked for.
    pub is_permanent: u8,
    /// When it is solicited again, or grows stale.
    pub entry: Entry,
}

impl Record for Neighbour {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Timed for Neighbour {
    fn entry(&mut self) -> &mut Entry {
        &mut self.entry
    }
}
