//! How fast text is delivered, as TCP_INFO tells it: the segments that arrived at the peer while the first one of a round trip was
//! on its way and its acknowledgment came back (draft-ietf-ccwg-bbr §4.1.2; tcp_rate_gen samples each acknowledgment, this one in each
//! round trip).
//!
//! Looked at when text is sent. A round in which the application had no more to send tells only that the path takes at
//! least so much.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::seq::Seq;

/// Bytes per second in a unit of the kept rate, as a power of two: 31 bits of it reach 274 GB/s.
const UNIT_BITS: u32 = 7;

/// The last sample, and the round that goes on. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeliveryRate {
    /// A round ends when this is acknowledged.
    end: Seq,
    /// Microseconds at which it began, doubled, and one if the application had no more to send; 0 is no round.
    began: u32,
    /// Segments that had arrived then.
    delivered: u32,
    /// The sample in units, doubled, and one if the application was what limited it.
    sample: u32,
}

/// The sender, when it has sent what it may.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Microseconds of the clock.
    pub now_us: u32,
    /// Those of the last acknowledgment.
    pub heard_us: u32,
    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// Segments that have arrived.
    pub delivered: u32,
    /// Bytes of a segment.
    pub mss: u16,
    /// The smallest round trip, in microseconds.
    pub min_rtt_us: u32,
    /// There is no more to send, and room for it.
    pub is_app_limited: bool,
}

impl DeliveryRate {
    /// Ends a round that is acknowledged, and begins the next.
    pub fn on_sent(&mut self, sender: &Sender) {
        if self.began != 0 && self.end.le(sender.una) {
            self.finish(sender);
        }
        if self.began == 0 && sender.una != sender.nxt {
            self.end = sender.nxt;
            self.began = (sender.now_us << 1 | u32::from(sender.is_app_limited)).max(2);
            self.delivered = sender.delivered;
        }
    }

    fn finish(&mut self, sender: &Sender) {
        let took = (sender.heard_us << 1).wrapping_sub(self.began & !1) >> 1;
        let limited = self.began & 1;
        self.began = 0;
        // Less than a round trip is an acknowledgment of something older, or the clock's own grain (tcp_rate_gen).
        if took == 0 || took < sender.min_rtt_us || took > u32::MAX >> 2 {
            return;
        }
        let bytes = u64::from(sender.delivered.wrapping_sub(self.delivered)) * u64::from(sender.mss);
        let rate = bytes.saturating_mul(1_000_000) / u64::from(took);
        if limited == 0 || rate >= self.bytes_per_second() {
            let units = (rate >> UNIT_BITS).min(u64::from(u32::MAX >> 1)) as u32;
            self.sample = units << 1 | limited;
        }
    }

    /// The rate; 0 before the first sample.
    #[must_use]
    pub const fn bytes_per_second(&self) -> u64 {
        (self.sample as u64 >> 1) << UNIT_BITS
    }

    /// Whether the application was what limited it.
    #[must_use]
    pub const fn is_app_limited(&self) -> bool {
        self.sample & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Sender = Sender {
        now_us: u32::MAX - 4_000,
        heard_us: 0,
        una: Seq(0),
        nxt: Seq(10_000),
        delivered: 5,
        mss: 1000,
        min_rtt_us: 9_000,
        is_app_limited: false,
    };

    fn after(us: u32, una: u32, delivered: u32) -> Sender {
        let now_us = START.now_us.wrapping_add(us);
        Sender { now_us, heard_us: now_us, una: Seq(una), nxt: Seq(una + 10_000), delivered, ..START }
    }

    #[test]
    fn a_sample_is_what_arrived_in_a_round_trip() {
        let mut rate = DeliveryRate::default();
        rate.on_sent(&START);
        rate.on_sent(&after(10_000, 9_999, 14));
        assert_eq!(rate.bytes_per_second(), 0, "the round goes on");
        rate.on_sent(&after(10_000, 10_000, 15));
        // Ten segments of a thousand bytes in ten milliseconds, across the wrap of the clock.
        assert_eq!((rate.bytes_per_second(), rate.is_app_limited()), (1_000_000 >> 7 << 7, false));
        rate.on_sent(&after(30_000, 20_000, 35));
        assert_eq!(rate.bytes_per_second(), 1_000_000 >> 7 << 7, "twenty in twenty");
    }

    #[test]
    fn what_the_application_limits_only_raises_the_rate() {
        let mut rate = DeliveryRate::default();
        rate.on_sent(&START);
        rate.on_sent(&Sender { is_app_limited: true, ..after(10_000, 10_000, 15) });
        let before = rate.bytes_per_second();
        rate.on_sent(&Sender { is_app_limited: true, ..after(20_000, 20_000, 17) });
        assert_eq!((rate.bytes_per_second(), rate.is_app_limited()), (before, false), "two segments");
        rate.on_sent(&after(30_000, 30_000, 57));
        assert_eq!((rate.bytes_per_second(), rate.is_app_limited()), (4_000_000 >> 7 << 7, true), "forty");
    }

    #[test]
    fn what_came_back_faster_than_the_path_is_no_sample() {
        let mut rate = DeliveryRate::default();
        rate.on_sent(&START);
        rate.on_sent(&after(8_999, 10_000, 15));
        assert_eq!(rate.bytes_per_second(), 0);
    }

    #[cfg(not(miri))]
    proptest! {
        #[test]
        fn no_number_overflows(words in any::<[u32; 4]>(), now: u32, heard: u32, una: u32, nxt: u32, delivered: u32, mss: u16, limited: bool) {
            let [end, began, before, sample] = words;
            let mut rate = DeliveryRate { end: Seq(end), began, delivered: before, sample };
            rate.on_sent(&Sender {
                now_us: now, heard_us: heard, una: Seq(una), nxt: Seq(nxt), delivered, mss, min_rtt_us: 0, is_app_limited: limited,
            });
            let _ = rate.bytes_per_second();
        }
    }
}
