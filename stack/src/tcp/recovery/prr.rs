//! Proportional rate reduction (RFC 9937): while loss is repaired, as much is sent for what is delivered as brings
//! the flight to ssthresh when the episode ends. Counted in segments.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One episode. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prr {
    /// RecoverFS: what was in flight when it began.
    recover_fs: u32,
    /// prr_delivered: what has been delivered since.
    delivered: u32,
    /// prr_out: what has been sent since.
    out: u32,
}

impl Prr {
    /// An episode begins with so much in flight: [`super::scoreboard::Scoreboard::recover_fs`].
    #[must_use]
    pub fn new(recover_fs: u32) -> Self {
        Self { recover_fs: recover_fs.max(1), ..Self::default() }
    }

    /// cwnd after an acknowledgment that delivers so much. `safe_ack`: SND.UNA advances and nothing more is lost.
    ///
    /// RFC 9937 §6: above ssthresh, "sndcnt = CEIL(prr_delivered * ssthresh / RecoverFS) - prr_out"; below it, losses
    /// were many: what was delivered is sent again (conservative reduction bound), and one segment more for a SafeACK
    /// (slow start reduction bound). The first acknowledgment sends at least one segment, the fast retransmit.
    #[inline]
    #[must_use]
    pub fn on_ack(&mut self, delivered: u32, pipe: u32, ssthresh: u32, safe_ack: bool) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let sndcnt = if pipe > ssthresh {
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            let share = share.div_ceil(u64::from(self.recover_fs.max(1)));
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(self.out)
        } else {
            let bound = self.delivered.saturating_sub(self.out).max(delivered);
            bound.saturating_add(u32::from(safe_ack)).min(ssthresh - pipe)
        };
        let sndcnt = if self.out == 0 { sndcnt.max(1) } else { sndcnt };
        pipe.saturating_add(sndcnt)
    }

    /// So many segments were sent, new or again.
    #[inline]
    pub fn on_sent(&mut self, segments: u32) {
        self.out = self.out.saturating_add(segments);
    }
}
