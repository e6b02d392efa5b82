//! What the stack knows between two calls, as plain bytes without pointers.
//!
//! A region has three parts, borrowed apart because several parties touch them. The *locked* part ([`Parts`]) is one
//! slice of bytes, whose owner holds the stack's lock: sockets, queues, tables, timers. The *shared* part ([`Shared`])
//! is words that anybody may read and write at any time: the lock, events, states of frames, counters. The *frames*
//! are the device's memory, and never inside of a slice of ours.
//!
//! There is no pointer in it and no address: copied to another place it is the same stack. Records name each other by
//! index; every index is looked at before it is used, every walk along a list ends after as many steps as the list can
//! have members, so bytes that no stack has written make a call fail and do nothing worse. Zero bytes are an empty
//! region; what was never used was never touched.

pub mod check;
pub mod layout;
pub mod limits;
pub mod look;
pub mod shared;
pub mod slab;
pub mod table;
pub mod views;
pub mod wheel;

pub use layout::{Header, Layout, Parts};
pub use limits::{Limits, Refused};
pub use shared::Shared;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;
