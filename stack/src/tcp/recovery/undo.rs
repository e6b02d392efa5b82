//! An episode of reduction, and whether it was a mistake: by timestamps (Eifel, RFC 3522 and RFC 4015) or by DSACK
//! (RFC 3708), as Linux (tcp_try_undo_recovery and its like in net/ipv4/tcp_input.c).
//!
//! It was a mistake if what was sent again had not been lost: an acknowledgment echoes a time before the first
//! retransmission, or every retransmission has come back as a duplicate. Then the window is given back.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ecn::Ecn;
use crate::coded::coded;
use crate::seq::Seq;

coded! {
    /// Linux's icsk_ca_state, as in TCP_INFO.
    #[derive(PartialOrd, Ord, Default)]
    pub enum CaState: u8 else Open {
        /// Nothing is wrong.
        #[default]
        Open = 0,
        /// Something came out of order; loss isn't sure.
        Disorder = 1,
        /// The window is being reduced without loss: a router has reported congestion.
        Cwr = 2,
        /// Fast recovery.
        Recovery = 3,
        /// After a retransmission timeout.
        Loss = 4,
    }
}

/// `undo_retrans` before anything was sent again.
const NOTHING: u16 = u16::MAX;
/// What `state` has beside a [`CaState`]: [`super::frto`] is at work.
pub(super) const FRTO: u8 = 0x80;
/// There is something to undo: `undo_marker` and the prior values are set.
const UNDO: u8 = 0x40;
/// `retrans_stamp` is set.
const STAMPED: u8 = 0x20;
const STATE: u8 = 0x0f;

/// An episode of reduction and what was before it. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Episode {
    /// RecoveryPoint (RFC 6675), recover (RFC 6582): SND.NXT when it began.
    pub(super) high_seq: Seq,
    /// SND.UNA when it began.
    undo_marker: Seq,
    /// cwnd before it, in segments.
    prior_cwnd: u32,
    /// ssthresh before it, in segments.
    prior_ssthresh: u32,
    /// TSval of the first retransmission.
    retrans_stamp: u32,
    /// Retransmissions that have not come back as duplicates.
    undo_retrans: u16,
    pub(super) state: u8,
    /// Explicit congestion notification; here because there is room.
    pub ecn: Ecn,
}

/// Windows before an episode, in segments, to be given back by [`crate::tcp::congestion::Congestion::undo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prior {
    /// cwnd.
    pub cwnd: u32,
    /// ssthresh.
    pub ssthresh: u32,
}

impl Episode {
    /// The state.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> CaState {
        CaState::decode(self.state & STATE)
    }

    /// Changes between [`CaState::Open`] and [`CaState::Disorder`], which are no episodes.
    #[inline]
    pub fn set_state(&mut self, state: CaState) {
        self.state = self.state & !(STATE | FRTO) | state as u8;
    }

    /// Whether lost data is being sent again.
    #[inline]
    #[must_use]
    pub const fn in_recovery(&self) -> bool {
        matches!(self.state(), CaState::Recovery | CaState::Loss)
    }

    /// Whether the window may be reduced now: once for each window of data (RFC 5681 §3.2, RFC 3168 §6.1.2), unless
    /// it is a timeout of something that was not yet sent again (tcp_enter_loss). `retransmits` counts timeouts since
    /// there was progress.
    #[must_use]
    pub fn may_reduce(&self, to: CaState, snd_una: Seq, retransmits: u8) -> bool {
        self.state() <= CaState::Disorder
            || self.high_seq.le(snd_una)
            || to == CaState::Loss && self.state() == CaState::Loss && retransmits == 0
    }

    /// The window is about to be reduced: what is before it is kept. `retrans_out` retransmissions of an earlier
    /// episode may yet come back as duplicates.
    pub fn begin(&mut self, to: CaState, snd_una: Seq, snd_nxt: Seq, prior: Prior, retrans_out: u32) {
        self.high_seq = snd_nxt;
        self.undo_marker = snd_una;
        self.prior_cwnd = prior.cwnd;
        self.prior_ssthresh = prior.ssthresh;
        self.undo_retrans = match retrans_out {
            0 => NOTHING,
            some => some.min(u32::from(NOTHING) - 1) as u16,
        };
        self.state = to as u8 | if to == CaState::Cwr { 0 } else { UNDO };
    }

    /// Another cause for the same reduction, as when a timeout follows fast recovery: only the state changes, and
    /// what must be acknowledged.
    pub fn continue_as(&mut self, to: CaState, snd_nxt: Seq) {
        self.high_seq = snd_nxt;
        self.set_state(to);
    }

    /// What was too large for the path is sent again: as after a timeout, but the window was not reduced, and there is nothing
    /// to give back (tcp_simple_retransmit).
    pub fn repair(&mut self, snd_nxt: Seq) {
        self.continue_as(CaState::Loss, snd_nxt);
        self.state &= !UNDO;
    }

    /// So many segments were sent again, with this TSval.
    #[inline]
    pub fn on_retransmit(&mut self, segments: u16, tsval: u32) {
        if self.state & STAMPED == 0 {
            self.state |= STAMPED;
            self.retrans_stamp = tsval;
        }
        let before = if self.undo_retrans == NOTHING { 0 } else { self.undo_retrans };
        self.undo_retrans = before.saturating_add(segments).min(NOTHING - 1);
    }

    /// A DSACK block that ends here reports so many segments: retransmissions of this episode that were not needed.
    pub fn on_dsack(&mut self, segments: u16, end: Seq, snd_una: Seq) {
        let of_this = self.undo_marker.lt(end) && end.le(snd_una);
        if self.state & UNDO != 0 && of_this && self.undo_retrans != NOTHING {
            self.undo_retrans = self.undo_retrans.saturating_sub(segments);
        }
    }

    /// RecoveryPoint: SND.NXT when the episode began.
    #[inline]
    #[must_use]
    pub const fn recovery_point(&self) -> Seq {
        self.high_seq
    }

    /// Everything that was sent before the episode is acknowledged (RFC 6582 §3.2 step 3, a full acknowledgment).
    #[inline]
    #[must_use]
    pub fn is_recovered(&self, snd_una: Seq) -> bool {
        self.high_seq.le(snd_una)
    }

    /// Whether the reduction was a mistake. `tsecr` is what the acknowledgment echoes, if the connection has
    /// timestamps.
    ///
    /// RFC 3522 §3.2: "if the value of the Timestamp Echo Reply field of the acceptable ACK's Timestamps option is
    /// smaller than the value of RetransmitTS", the original arrived.
    #[must_use]
    pub fn may_undo(&self, tsecr: Option<u32>) -> bool {
        let delayed = tsecr.is_some_and(|tsecr| {
            self.state & STAMPED == 0 || tsecr != 0 && Seq(tsecr).lt(Seq(self.retrans_stamp))
        });
        self.dsack_undoes() || self.state & UNDO != 0 && delayed
    }

    /// Whether every retransmission has come back as a duplicate. They may do so when the episode has ended, and that
    /// is not too late (tcp_try_undo_dsack).
    #[inline]
    #[must_use]
    pub const fn dsack_undoes(&self) -> bool {
        self.state & UNDO != 0 && self.undo_retrans == 0
    }

    /// Gives back what was before; there is nothing to undo afterwards.
    #[must_use]
    pub fn undo(&mut self) -> Prior {
        self.state &= !UNDO;
        self.ecn.withdraw();
        Prior { cwnd: self.prior_cwnd, ssthresh: self.prior_ssthresh }
    }

    /// The episode ends; what was before it is kept for [`Self::dsack_undoes`].
    pub fn end(&mut self) {
        self.set_state(CaState::Open);
    }
}
