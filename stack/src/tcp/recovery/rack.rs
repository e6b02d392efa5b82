//! RACK (RFC 8985 §6): a segment is lost when one that was sent sufficiently later has been delivered.

use zerocopy::native_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DUP_THRESH;
use crate::seq::Seq;
use crate::tcp::micros;
use crate::time::{Duration, Instant};

/// Recoveries for which a larger reordering window lasts (RFC 8985 §6.2 step 4).
const PERSIST: u8 = 16;

/// `xmit_ts` and `end_seq` are set: something was delivered.
const DELIVERED: u8 = 1;
/// RACK.reordering_seen.
const REORDERING_SEEN: u8 = 2;
/// RACK.dsack_round is set.
const DSACK_ROUND: u8 = 4;
/// TLP.end_seq is set.
pub(super) const TLP: u8 = 8;
/// TLP.is_retrans.
pub(super) const TLP_RETRANS: u8 = 16;

/// RACK's and TLP's state. Zero bytes are the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rack {
    /// RACK.xmit_ts, in nanoseconds: when the most recently sent segment of those that were delivered was sent.
    /// Without alignment, lest the record grow by a hole.
    xmit_ts: U64,
    /// RACK.end_seq: its end.
    end_seq: Seq,
    /// RACK.rtt, in microseconds.
    rtt: u32,
    /// RACK.dsack_round: DSACKs count again when this is acknowledged.
    dsack_round: Seq,
    /// TLP.end_seq: SND.NXT when the probe was sent.
    pub(super) tlp_end_seq: Seq,
    /// RACK.reo_wnd_mult, less one.
    reo_wnd_mult: u8,
    /// RACK.reo_wnd_persist.
    reo_wnd_persist: u8,
    pub(super) flags: u8,
    spare: u8,
}

/// A segment of the send queue, as RACK sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Segment.xmit_ts: when it was sent last.
    pub sent_at: Instant,
    /// Segment.end_seq: the sequence number behind it.
    pub end: Seq,
    /// Segment.retransmitted.
    pub retransmitted: bool,
}

/// What RACK thinks of a segment that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgment {
    /// Segment.lost.
    Lost,
    /// It will be, if it isn't acknowledged within this time.
    LostIn(Duration),
    /// Nothing that was sent after it has been delivered, so nothing can be said of it nor of what was sent later.
    TooEarly,
}

/// What the reordering window depends on, besides RACK's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// In fast recovery or repairing after a timeout.
    pub in_recovery: bool,
    /// RACK.segs_sacked.
    pub sacked_out: u32,
    /// RACK.min_RTT.
    pub min_rtt: Option<Duration>,
    /// SRTT.
    pub srtt: Option<Duration>,
}

impl Rack {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// RACK_sent_after: `a` was sent after `b`; what left at the same moment is told apart by its sequence numbers.
    #[inline]
    fn sent_after(a: Instant, a_end: Seq, b: Instant, b_end: Seq) -> bool {
        a > b || a == b && b_end.lt(a_end)
    }

    /// RACK_update, for each segment that an acknowledgment newly acknowledges, cumulatively or selectively (RFC 8985
    /// §6.2 step 2). `echo_precedes`: the acknowledgment's TSecr is of a time before the segment was sent.
    ///
    /// Of a segment that was sent again, it may be the first transmission that is acknowledged: so it is if the echo
    /// is older, or if the acknowledgment came faster than the path is.
    #[inline]
    pub fn update(
        &mut self,
        now: Instant,
        segment: &Segment,
        min_rtt: Option<Duration>,
        echo_precedes: bool,
    ) {
        let rtt = now - segment.sent_at;
        if segment.retransmitted && (echo_precedes || min_rtt.is_some_and(|least| rtt < least)) {
            return;
        }
        self.rtt = micros(rtt);
        let xmit_ts = Instant(self.xmit_ts.get());
        if !self.has(DELIVERED) || Self::sent_after(segment.sent_at, segment.end, xmit_ts, self.end_seq) {
            self.xmit_ts = segment.sent_at.0.into();
            self.end_seq = segment.end;
            self.flags |= DELIVERED;
        }
    }

    /// RACK_detect_reordering, for the same segments (RFC 8985 §6.2 step 3); returns the new RACK.fack. A segment
    /// below it that was sent once has come later than one that was sent after it.
    #[inline]
    pub fn detect_reordering(&mut self, segment: &Segment, fack: Seq) -> Seq {
        if fack.lt(segment.end) {
            return segment.end;
        }
        if segment.end.lt(fack) && !segment.retransmitted {
            self.flags |= REORDERING_SEEN;
        }
        fack
    }

    /// RACK.reordering_seen.
    #[must_use]
    pub fn reordering_seen(&self) -> bool {
        self.has(REORDERING_SEEN)
    }

    /// An acknowledgment has a DSACK option or not: each round that sees one widens the reordering window by a
    /// quarter of the smallest round trip (RACK_update_reo_wnd in RFC 8985 §6.2 step 4).
    pub fn on_ack(&mut self, dsack: bool, snd_una: Seq, snd_nxt: Seq) {
        if self.has(DSACK_ROUND) && self.dsack_round.le(snd_una) {
            self.flags &= !DSACK_ROUND;
        }
        if dsack && !self.has(DSACK_ROUND) {
            self.flags |= DSACK_ROUND;
            self.dsack_round = snd_nxt;
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = PERSIST;
        }
    }

    /// Recovery has ended. After sixteen without a DSACK the reordering window is as at first.
    pub fn on_recovered(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_mult = 0;
        }
    }

    /// RACK.reo_wnd: how much later than expected a segment may come. None while no reordering was seen and loss is
    /// already sure; else a multiple of a quarter of the smallest round trip, at most a round trip.
    #[must_use]
    pub fn reo_wnd(&self, around: &Surroundings) -> Duration {
        if !self.has(REORDERING_SEEN) && (around.in_recovery || around.sacked_out >= DUP_THRESH) {
            return Duration(0);
        }
        let quarter = around.min_rtt.map_or(0, |rtt| rtt.0 / 4);
        let wnd = quarter.saturating_mul(u64::from(self.reo_wnd_mult) + 1);
        Duration(wnd).min(around.srtt.unwrap_or_default())
    }

    /// RACK_detect_loss for one segment that is neither acknowledged nor lost already (RFC 8985 §6.2 step 5). The
    /// reordering timer is set to the longest [`Judgment::LostIn`].
    #[inline]
    #[must_use]
    pub fn judge(&self, now: Instant, segment: &Segment, reo_wnd: Duration) -> Judgment {
        let xmit_ts = Instant(self.xmit_ts.get());
        if !self.has(DELIVERED) || !Self::sent_after(xmit_ts, self.end_seq, segment.sent_at, segment.end) {
            return Judgment::TooEarly;
        }
        let due = segment.sent_at + Duration(u64::from(self.rtt) * 1_000) + reo_wnd;
        if due <= now { Judgment::Lost } else { Judgment::LostIn(due - now) }
    }
}
