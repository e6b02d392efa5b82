//! What is in flight, counted in segments, and pipe (RFC 6675 §4).
//!
//! Which segments were reported by SACK, are lost or were sent again stands in the records of the send queue; here
//! are their numbers. A connection without SACK counts duplicate acknowledgments as segments that were reported (RFC
//! 6582, tcp_add_reno_sack).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DUP_THRESH;
use super::undo::CaState;
use crate::seq::Seq;

/// Counts over the segments between SND.UNA and SND.NXT. Zero bytes are an empty queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scoreboard {
    /// Segments that are not acknowledged cumulatively.
    pub packets_out: u32,
    /// Of them, those that were reported by SACK.
    pub sacked_out: u32,
    /// Of them, those that are taken for lost, whether they were sent again or not.
    pub lost_out: u32,
    /// Retransmissions that are not acknowledged.
    pub retrans_out: u32,
    /// RACK.fack: the highest sequence number that was acknowledged, cumulatively or selectively.
    pub fack: Seq,
}

impl Scoreboard {
    /// Segments that are in the network, for all we know.
    ///
    /// RFC 6675 §4, SetPipe: what is neither reported nor lost counts once, and what was sent again counts (again).
    #[inline]
    #[must_use]
    pub const fn pipe(&self) -> u32 {
        let left = self.sacked_out.saturating_add(self.lost_out);
        self.packets_out.saturating_sub(left).saturating_add(self.retrans_out)
    }

    /// RecoverFS: segments that were in flight when recovery began, for [`super::prr`]; after the acknowledgment that
    /// began it was counted.
    ///
    /// RFC 9937 §6: SND.NXT − SND.UNA, without what was reported before, with what this acknowledgment takes away.
    #[must_use]
    pub const fn recover_fs(&self, newly_acked: u32, newly_sacked: u32) -> u32 {
        let before = self.sacked_out.saturating_sub(newly_sacked);
        self.packets_out.saturating_sub(before).saturating_add(newly_acked)
    }

    /// A duplicate acknowledgment on a connection without SACK: one more segment has left the network.
    pub fn on_duplicate(&mut self) {
        let most = self.packets_out.saturating_sub(self.lost_out);
        self.sacked_out = self.sacked_out.saturating_add(1).min(most);
    }

    /// Whether an acknowledgment on a connection without SACK makes the first segment a lost one: the third duplicate
    /// (RFC 6582 §3.2 step 2), or in fast recovery a partial acknowledgment (step 3), which shows the next hole.
    #[must_use]
    pub const fn is_first_lost(&self, state: CaState, advances: bool) -> bool {
        match state {
            CaState::Open | CaState::Disorder | CaState::Cwr => self.sacked_out >= DUP_THRESH,
            CaState::Recovery => advances,
            CaState::Loss => false,
        }
    }

    /// An acknowledgment of so many segments on a connection without SACK: one filled the hole, and the others were
    /// those that the duplicates reported.
    pub fn on_partial(&mut self, acked: u32) {
        self.sacked_out = self.sacked_out.saturating_sub(acked.saturating_sub(1)).min(self.packets_out);
    }

    /// # Errors
    /// The first count that cannot be.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.sacked_out.saturating_add(self.lost_out) > self.packets_out {
            Err("more segments are reported or lost than were sent")
        } else if self.retrans_out > self.packets_out {
            Err("more retransmissions are in flight than segments")
        } else {
            Ok(())
        }
    }
}
