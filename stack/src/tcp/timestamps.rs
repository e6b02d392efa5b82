//! Timestamps (RFC 7323): TS.Recent, protection against wrapped sequence numbers (PAWS), and what they allow in
//! TIME-WAIT.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// TSval now: milliseconds, plus the connection's offset ([`super::isn::timestamp_offset`]). RFC 7323 §5.4: a tick is
/// between 1 ms and 1 s.
#[inline]
#[must_use]
pub const fn clock(now: Instant, offset: u32) -> u32 {
    ((now.0 / 1_000_000) as u32).wrapping_add(offset)
}

/// RFC 7323 §5.5: a TS.Recent that is older than 24 days is no longer valid, since the other's clock may have gone
/// half round.
const VALID_S: u32 = 24 * 24 * 60 * 60;

/// TS.Recent and when it was taken. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recent {
    /// TS.Recent.
    ts_recent: u32,
    /// Seconds at which it was taken, plus one; 0 is never.
    taken: u32,
}

/// `a < b` on the circle of timestamps.
#[inline]
const fn before(a: u32, b: u32) -> bool {
    Seq(a).lt(Seq(b))
}

/// Seconds, plus one.
const fn stamp(now: Instant) -> u32 {
    ((now.0 / 1_000_000_000) as u32).wrapping_add(1)
}

impl Recent {
    /// What a SYN brought.
    #[must_use]
    pub const fn new(now: Instant, tsval: u32) -> Self {
        Self { ts_recent: tsval, taken: stamp(now) }
    }

    /// TSecr of what is sent now; 0 when nothing was received yet.
    #[inline]
    #[must_use]
    pub const fn echo(&self) -> u32 {
        self.ts_recent
    }

    /// Whether there is one.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.taken != 0
    }

    #[inline]
    fn is_valid(&self, now: Instant) -> bool {
        self.taken != 0 && stamp(now).wrapping_sub(self.taken) <= VALID_S
    }

    /// PAWS, RFC 7323 §5.3, R1: "If there is a Timestamps option in the arriving segment, SEG.TSval < TS.Recent,
    /// TS.Recent is valid (see later discussion), and if the RST bit is not set, then treat the arriving segment as
    /// not acceptable".
    ///
    /// A TS.Recent of 0 rejects nothing: some send 0 in a SYN and a clock afterwards (tcp_paws_check).
    #[inline]
    #[must_use]
    pub fn is_acceptable(&self, now: Instant, tsval: u32, rst: bool) -> bool {
        rst || self.ts_recent == 0 || !before(tsval, self.ts_recent) || !self.is_valid(now)
    }

    /// Whether a segment that PAWS rejects is but a reordered duplicate acknowledgment, so that it needs no answer:
    /// it has no text, is at RCV.NXT, repeats SND.UNA and the window, and its timestamp is behind by less than a
    /// retransmission timeout (tcp_disordered_ack).
    #[must_use]
    pub fn is_disordered_ack(&self, tsval: u32, repeats: bool, rto: Duration) -> bool {
        repeats && u64::from(self.ts_recent.wrapping_sub(tsval)) <= rto.as_millis()
    }

    /// R3 of RFC 7323 §5.3: "If an arriving segment satisfies SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent
    /// (see Section 4.3), then record its timestamp in TS.Recent." So the echo is that of the earliest segment that
    /// is not yet acknowledged, and the sender measures delayed acknowledgments in (§4.3). One that was accepted
    /// because TS.Recent is not valid any more is recorded too.
    #[inline]
    pub fn update(&mut self, now: Instant, tsval: u32, seq: Seq, last_ack_sent: Seq) {
        if seq.le(last_ack_sent) && self.is_acceptable(now, tsval, false) {
            *self = Self::new(now, tsval);
        }
    }

    /// Whether a SYN opens a new connection in place of one in TIME-WAIT.
    ///
    /// RFC 9293 §3.6.1 (MAY-2): if its sequence number is beyond the last that the old connection used; RFC 6191 §2:
    /// or its timestamp is later than the old connection's last, whatever the sequence number.
    #[must_use]
    pub fn allows_new_connection(&self, seq: Seq, rcv_nxt: Seq, tsval: Option<u32>) -> bool {
        match tsval {
            Some(tsval) if self.taken != 0 && tsval != self.ts_recent => before(self.ts_recent, tsval),
            _ => rcv_nxt.lt(seq),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 86_400 * SECOND;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * SECOND)
    }

    #[test]
    fn the_clock_counts_milliseconds_and_wraps() {
        assert_eq!(clock(Instant(5_999_999), 0), 5);
        assert_eq!(clock(Instant(1_000_000), u32::MAX), 0);
    }

    #[test]
    fn an_older_timestamp_is_not_acceptable_unless_it_resets() {
        let recent = Recent::new(at(10), 1000);
        assert!(!recent.is_acceptable(at(11), 999, false));
        assert!(recent.is_acceptable(at(11), 999, true), "RFC 7323 §5.3: PAWS is not for RST");
        assert!(recent.is_acceptable(at(11), 1000, false) && recent.is_acceptable(at(11), 1001, false));
    }

    #[test]
    fn order_holds_across_the_wrap_of_the_clock() {
        let recent = Recent::new(at(10), u32::MAX - 5);
        assert!(recent.is_acceptable(at(11), 3, false));
        assert!(!recent.is_acceptable(at(11), u32::MAX - 6, false));
    }

    #[test]
    fn after_24_days_an_older_timestamp_is_acceptable_and_taken() {
        let mut recent = Recent::new(Instant(DAY), 1000);
        let (inside, outside) = (Instant(25 * DAY), Instant(25 * DAY + 2 * SECOND));
        assert!(!recent.is_acceptable(inside, 999, false));
        assert!(recent.is_acceptable(outside, 999, false));
        recent.update(outside, 999, Seq(0), Seq(0));
        assert_eq!(recent.echo(), 999);
    }

    #[test]
    fn the_echo_is_that_of_the_earliest_segment_not_yet_acknowledged() {
        let mut recent = Recent::new(at(0), 1);
        recent.update(at(1), 5, Seq(100), Seq(100));
        recent.update(at(1), 9, Seq(200), Seq(100));
        assert_eq!(recent.echo(), 5, "a segment beyond Last.ACK.sent does not count");
        recent.update(at(1), 4, Seq(100), Seq(200));
        assert_eq!(recent.echo(), 5, "nor an older timestamp");
    }

    #[test]
    fn before_a_timestamp_was_received_the_echo_is_zero_and_nothing_is_rejected() {
        let recent = Recent::default();
        assert_eq!(recent.echo(), 0);
        assert!(recent.is_acceptable(at(1), u32::MAX, false));
        assert!(Recent::new(at(1), 0).is_acceptable(at(1), u32::MAX, false));
    }

    #[test]
    fn a_reordered_acknowledgment_is_known_by_being_late_by_less_than_a_timeout() {
        let recent = Recent::new(at(0), 1000);
        let rto = Duration::from_millis(200);
        assert!(recent.is_disordered_ack(900, true, rto));
        assert!(!recent.is_disordered_ack(700, true, rto) && !recent.is_disordered_ack(900, false, rto));
    }

    #[test]
    fn time_wait_gives_way_to_a_later_timestamp_or_else_to_a_later_sequence_number() {
        let recent = Recent::new(at(0), 1000);
        assert!(recent.allows_new_connection(Seq(5), Seq(9), Some(1001)), "RFC 6191");
        assert!(!recent.allows_new_connection(Seq(50), Seq(9), Some(999)));
        assert!(recent.allows_new_connection(Seq(10), Seq(9), Some(1000)));
        assert!(recent.allows_new_connection(Seq(10), Seq(9), None));
        assert!(!recent.allows_new_connection(Seq(9), Seq(9), None));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn a_peer_whose_clock_runs_is_never_rejected(steps in proptest::collection::vec(0u32..1 << 30, 1..50)) {
            let (mut recent, mut tsval, mut now) = (Recent::new(at(0), 1), 1u32, 0);
            for step in steps {
                tsval = tsval.wrapping_add(step);
                now += u64::from(step) * 1_000_000;
                prop_assert!(recent.is_acceptable(Instant(now), tsval, false));
                recent.update(Instant(now), tsval, Seq(7), Seq(7));
                prop_assert_eq!(recent.echo(), tsval);
            }
        }
    }
}
