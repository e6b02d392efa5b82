//! Loss: how it is seen, what is sent while it is repaired, and how a reduction that was wrong is taken back.
//!
//! [`rack`] tells which segments are lost, [`tlp`] makes the tail of a flight tell, [`scoreboard`] counts what is in
//! flight. When something is lost an [`undo::Episode`] begins, the congestion window's new goal is ssthresh, and
//! [`prr`] brings it there; after a timeout [`frto`] looks whether it was spurious. The episode ends when everything
//! that was sent before it is acknowledged. Congestion that routers report, [`ecn`], begins one in which nothing is
//! lost.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod ecn;
pub mod frto;
pub mod prr;
pub mod rack;
pub mod scoreboard;
pub mod tlp;
pub mod undo;

/// RFC 8985 §6.2, RFC 5681 §3.2: segments that were delivered behind a hole, after which it is a loss.
pub const DUP_THRESH: u32 = 3;

/// What a connection keeps for loss recovery, beside the [`scoreboard::Scoreboard`]. Zero bytes are one that has lost
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recovery {
    /// Which segments are lost.
    pub rack: rack::Rack,
    /// How much may be sent meanwhile.
    pub prr: prr::Prr,
    /// What was before.
    pub episode: undo::Episode,
}

const _: () = assert!(size_of::<Recovery>() == 64);

#[cfg(test)]
mod tests;
