//! HyStart: slow start ends when the queue of the path begins to grow, before it overflows (Ha and Rhee, "Taming the
//! Elephants", 2011), with the thresholds that Linux has (hystart_update in net/ipv4/tcp_cubic.c).
//!
//! Two signs. *Acknowledgment train*: acknowledgments that come closely one after the other for as long as half of
//! the smallest round trip: what is in flight fills the path in one direction. *Delay*: the smallest round trip of
//! this round is an eighth above the smallest ever.

use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use super::{Acked, Algorithm, Congestion, EPOCH, FOUND, ROUND};
use crate::seq::Seq;
use crate::tcp::micros;
use crate::time::Duration;

/// Below this window there is too little to see (hystart_low_window).
const CWND_MIN: u32 = 16;
/// Measurements in a round before its delay counts (HYSTART_MIN_SAMPLES).
const SAMPLES_MIN: u8 = 8;
/// Between which an eighth of the delay counts, in microseconds (HYSTART_DELAY_MIN, HYSTART_DELAY_MAX).
const DELAY_US: [u32; 2] = [4_000, 16_000];
/// Longest gap in a train, in microseconds (hystart_ack_delta_us).
const GAP_US: u32 = 2_000;
/// Most that aggregation is thought to add to a train, in microseconds.
const AGGREGATION_MAX_US: u64 = 1_000;
/// Bytes of the largest aggregate (GSO_MAX_SIZE).
const AGGREGATE: u64 = 65_536;

/// A round trip's worth of acknowledgments, in [`Congestion`]'s `phase`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Round {
    /// When it began, in microseconds.
    start: u32,
    /// It ends when this is acknowledged.
    end_seq: Seq,
    /// The last acknowledgment of the train, in microseconds.
    last_ack: u32,
    /// The smallest round trip in it, in microseconds.
    rtt: u32,
}

impl Congestion {
    /// Whether [`Acked::pacing_rate`] is looked at: it costs a division.
    #[inline]
    #[must_use]
    pub fn watches_rate(&self) -> bool {
        self.in_slow_start()
            && self.cwnd() >= CWND_MIN
            && !self.has(FOUND)
            && self.algorithm() == Algorithm::Cubic
    }

    /// One acknowledgment in slow start.
    pub(super) fn hystart(&mut self, acked: &Acked, rtt: Duration) {
        if self.cwnd() < CWND_MIN {
            return;
        }
        let now = (acked.now.0 / 1_000) as u32;
        let rtt = micros(rtt).max(1);
        let min_rtt = acked.min_rtt.map_or(rtt, micros).max(1);
        let mut round: Round = transmute!(self.phase);
        if !self.has(ROUND) || round.end_seq.lt(acked.una) {
            round = Round { start: now, end_seq: acked.nxt, last_ack: now, rtt: u32::MAX };
            self.samples = 0;
            self.put(ROUND, true);
            self.put(EPOCH, false);
        }
        let mut found = false;
        if now.wrapping_sub(round.last_ack) <= GAP_US {
            round.last_ack = now;
            let threshold = min_rtt.saturating_add(aggregation(acked.pacing_rate));
            // What is paced comes spread over half of a round trip anyway.
            let threshold = if acked.is_paced { threshold } else { threshold / 2 };
            found = now.wrapping_sub(round.start) > threshold;
        }
        round.rtt = round.rtt.min(rtt);
        if self.samples < SAMPLES_MIN {
            self.samples += 1;
        } else {
            found |= round.rtt > min_rtt.saturating_add((min_rtt >> 3).clamp(DELAY_US[0], DELAY_US[1]));
        }
        self.phase = transmute!(round);
        if found {
            self.put(FOUND, true);
            self.ssthresh = self.cwnd();
        }
    }
}

/// Microseconds that four aggregates take at this rate.
fn aggregation(pacing_rate: u64) -> u32 {
    match (4 * AGGREGATE * 1_000_000).checked_div(pacing_rate) {
        Some(micros) => micros.min(AGGREGATION_MAX_US) as u32,
        None => 0,
    }
}
