//! The processes that share the region, and what the one that holds the lock is about to do.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Tag};

/// Most processes of one region: a socket's holders are the bits of one word.
pub const PROCESSES_MAX: u32 = u64::BITS;

/// A process that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Process {
    /// Whether, and for which time, the slot is in use.
    pub tag: Tag,
    /// When it started, in clock ticks since boot (/proc/PID/stat): a number that is used again names another one.
    pub started: u64,
    /// Its number.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Sockets of TCP and UDP that it holds.
    pub sockets: u32,
    /// The slot of the process that forked it, plus one.
    pub parent: u32,
}

/// What the holder of the lock does at present, written before its first store and cleared after its last: what a
/// recovery has to look at when the holder has died (`operation` 0: nothing was begun).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Intent {
    /// Which operation; 0 is none.
    pub operation: u32,
    /// The process's slot.
    pub process: u32,
    /// The socket, plus one; its kind belongs to the operation.
    pub socket: u32,
    /// A second socket, plus one: the listener of a child.
    pub other: u32,
    /// The frame that moves, plus one.
    pub frame: u32,
    /// How far it has come, as the operation counts.
    pub step: u32,
}

impl Record for Process {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}
