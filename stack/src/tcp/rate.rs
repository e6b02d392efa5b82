//! How fast text is delivered, as TCP_INFO tells it: each acknowledgment gives a sample, what has arrived at the peer since the newest
//! of the segments that it tells of was sent (draft-ietf-ccwg-bbr §4.1; Linux's net/ipv4/tcp_rate.c).
//!
//! What was known when a segment was sent lies in its frame's record. A sample during which the application had no more to
//! send tells only that the path takes at least so much.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::frames::FrameRecord;
use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// Bytes per second in a unit of the kept rate, as a power of two: 31 bits of it reach 274 GB/s.
const UNIT_BITS: u32 = 7;
/// Units per second of a byte in a nanosecond.
const UNITS: u64 = 1_000_000_000 >> UNIT_BITS;

/// The rate that was kept. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DeliveryRate {
    /// In units, doubled, and one if the application was what limited it.
    sample: u32,
}

/// What the samples of text in flight begin with. Zero bytes are nothing in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Delivery {
    /// When segments arrived at the peer last, as far as is known, in ns (C.delivered_time).
    delivered_at: u64,
    /// When the segment was sent that arrived last, in ns (C.first_send_time).
    first_sent_at: u64,
    /// Segments that will have arrived when what the application had is through; 0 if it has more (C.app_limited).
    app_limited: u32,
    /// Not used.
    spare: u32,
}

/// The newest of the segments that an acknowledgment tells of, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest {
    sent_at: u64,
    end: Seq,
    delivered_at: u64,
    first_sent_at: u64,
    delivered: u32,
    is_app_limited: bool,
}

/// So many segments arrived in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Segments.
    pub segments: u32,
    /// The time.
    pub took: Duration,
    /// The application had no more to send.
    pub is_app_limited: bool,
}

impl Newest {
    /// The newer one of this record and what was found before: what was sent later, or at the same time and behind it
    /// (tcp_rate_skb_delivered). A record that [`Delivery::stamp`] has not written tells nothing.
    #[inline]
    pub fn newer(before: Option<Self>, record: &FrameRecord) -> Option<Self> {
        let is_newer = before.is_none_or(|before| {
            before.sent_at < record.sent_at || before.sent_at == record.sent_at && before.end.lt(record.end())
        });
        if record.delivered_at == 0 || !is_newer {
            return before;
        }
        Some(Self {
            sent_at: record.sent_at,
            end: record.end(),
            delivered_at: record.delivered_at,
            first_sent_at: record.first_sent_at,
            delivered: record.delivered,
            is_app_limited: record.has(FrameRecord::APP_LIMITED),
        })
    }
}

impl Delivery {
    /// Nothing is in flight: what is sent now arrives in the time from now on (tcp_rate_skb_sent).
    #[inline]
    pub const fn begin(&mut self, now: Instant) {
        (self.delivered_at, self.first_sent_at) = (now.0, now.0);
    }

    /// Writes what is known into the record of a segment that is being sent.
    #[inline]
    pub const fn stamp(&self, record: &mut FrameRecord, delivered: u32) {
        (record.delivered_at, record.first_sent_at) = (self.delivered_at, self.first_sent_at);
        record.delivered = delivered;
        record.flags &= !FrameRecord::APP_LIMITED;
        if self.app_limited != 0 {
            record.flags |= FrameRecord::APP_LIMITED;
        }
    }

    /// The application has no more to send than is in flight (tcp_rate_check_app_limited).
    pub const fn note_app_limited(&mut self, delivered: u32, in_flight: u32) {
        let through = delivered.wrapping_add(in_flight);
        self.app_limited = if through == 0 { 1 } else { through };
    }

    /// The same of segments without a stamp, which give no sample.
    #[inline]
    pub const fn note(&mut self, now: Instant) {
        self.delivered_at = now.0;
    }

    /// Segments arrived, `delivered` in all: the sample that this gives (tcp_rate_gen). It is of the phase of sending or that of
    /// acknowledgment, whichever took longer: acknowledgments may come in bursts.
    #[inline]
    pub fn on_delivered(&mut self, now: Instant, delivered: u32, newest: Option<Newest>) -> Option<Sample> {
        if self.app_limited != 0 && Seq(self.app_limited).lt(Seq(delivered)) {
            self.app_limited = 0;
        }
        self.delivered_at = now.0;
        let newest = newest?;
        self.first_sent_at = newest.sent_at;
        let sending = newest.sent_at.saturating_sub(newest.first_sent_at);
        let acknowledging = now.0.saturating_sub(newest.delivered_at);
        Some(Sample {
            segments: delivered.wrapping_sub(newest.delivered),
            took: Duration(sending.max(acknowledging)),
            is_app_limited: newest.is_app_limited,
        })
    }
}

impl DeliveryRate {
    /// Keeps a sample of segments of this size, unless it is one of the application's that is lower than what is known. Less than
    /// a round trip is an acknowledgment of something older, or the clock's own grain (tcp_rate_gen).
    #[inline]
    pub fn take(&mut self, sample: &Sample, mss: u16, min_rtt: Option<Duration>) {
        let (took, bytes) = (sample.took.0, u64::from(sample.segments) * u64::from(mss));
        if took == 0 || min_rtt.is_some_and(|min| took < min.0) {
            return;
        }
        // More than two terabytes, or eight seconds at the highest rate, count as that.
        let units = bytes.saturating_mul(UNITS);
        if !sample.is_app_limited || units >= u64::from(self.sample >> 1).saturating_mul(took) {
            let units = (units / took).min(u64::from(u32::MAX >> 1)) as u32;
            self.sample = units << 1 | u32::from(sample.is_app_limited);
        }
    }

    /// The same with the sample that each segment gives which is acknowledged by itself: one in a round trip. What goes the short way
    /// ([`super::predicted`]) leaves it to the smallest round trip to keep the best of them.
    #[must_use]
    pub fn with_single(mut self, mss: u16, min_rtt: Option<Duration>) -> Self {
        if let Some(took) = min_rtt {
            self.take(&Sample { segments: 1, took, is_app_limited: true }, mss, None);
        }
        self
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

    const MS: u64 = 1_000_000;
    const RTT: Option<Duration> = Some(Duration::from_millis(9));

    /// So many segments of 1000 bytes, which leave one after the other each millisecond from `at` ms on.
    fn flight(delivery: &Delivery, at: u64, first: u32, count: u32, delivered: u32) -> Vec<FrameRecord> {
        let sent = |number: u32| {
            let (seq, sent_at) = ((first + number) * 1000, (at + u64::from(number)) * MS);
            let mut record = FrameRecord { seq, len: 1000, sent_at, ..FrameRecord::default() };
            delivery.stamp(&mut record, delivered);
            record
        };
        (0..count).map(sent).collect()
    }

    fn kept(rate: &DeliveryRate) -> u64 {
        rate.bytes_per_second()
    }

    #[test]
    fn each_acknowledgment_gives_a_sample_of_a_round_trip() {
        let (mut delivery, mut rate) = (Delivery::default(), DeliveryRate::default());
        delivery.begin(Instant(100 * MS));
        let sent = flight(&delivery, 100, 0, 10, 0);
        for (arrived, record) in (1..).zip(&sent) {
            let now = Instant((109 + u64::from(arrived)) * MS);
            let sample = delivery.on_delivered(now, arrived, Newest::newer(None, record)).expect("a sample");
            assert_eq!(
                (sample.segments, sample.took),
                (arrived, Duration::from_millis(9 + u64::from(arrived)))
            );
            rate.take(&sample, 1000, RTT);
        }
        // Ten segments in nineteen milliseconds.
        assert_eq!(kept(&rate), (10_000_000 / 19) >> 7 << 7);
    }

    #[test]
    fn acknowledgments_in_a_burst_make_no_path_faster_than_its_sender() {
        let mut delivery = Delivery::default();
        delivery.begin(Instant(100 * MS));
        let first = flight(&delivery, 100, 0, 1, 0)[0];
        delivery.on_delivered(Instant(110 * MS), 1, Newest::newer(None, &first));
        // Thirty leave in as many milliseconds, and all are acknowledged at once.
        let sent = flight(&delivery, 110, 1, 30, 1);
        let newest = sent.iter().fold(None, Newest::newer);
        let sample = delivery.on_delivered(Instant(141 * MS), 31, newest).expect("a sample");
        assert_eq!(
            (sample.segments, sample.took),
            (30, Duration::from_millis(39)),
            "since the first was sent"
        );
        // What is told of in another order is no other sample.
        assert_eq!(sent.iter().rev().fold(None, Newest::newer), newest);
    }

    #[test]
    fn what_the_application_limits_only_raises_the_rate() {
        let sample =
            |segments, is_app_limited| Sample { segments, took: Duration::from_millis(10), is_app_limited };
        let mut rate = DeliveryRate::default();
        rate.take(&sample(10, false), 1000, RTT);
        rate.take(&sample(9, true), 1000, RTT);
        assert_eq!((kept(&rate), rate.is_app_limited()), (1_000_000 >> 7 << 7, false));
        rate.take(&sample(40, true), 1000, RTT);
        assert_eq!((kept(&rate), rate.is_app_limited()), (4_000_000 >> 7 << 7, true));
        rate.take(&sample(1, false), 1000, RTT);
        assert_eq!((kept(&rate), rate.is_app_limited()), (100_000 >> 7 << 7, false));
        rate.take(&Sample { took: Duration::from_millis(8), ..sample(100, false) }, 1000, RTT);
        assert_eq!(kept(&rate), 100_000 >> 7 << 7, "faster than the path");
        let single = rate.with_single(1000, RTT);
        assert_eq!((kept(&single), single.is_app_limited()), (111_111 >> 7 << 7, true));
        assert_eq!(rate.with_single(800, RTT), rate, "lower than what is known");
        assert_eq!(rate.with_single(1000, None), rate);
    }

    #[test]
    fn the_application_is_forgiven_once_what_it_had_is_through() {
        let mut delivery = Delivery::default();
        delivery.note_app_limited(5, 3);
        let is_marked = |delivery: &Delivery| flight(delivery, 0, 0, 1, 0)[0].has(FrameRecord::APP_LIMITED);
        delivery.on_delivered(Instant(1), 8, None);
        assert!(is_marked(&delivery));
        delivery.on_delivered(Instant(2), 9, None);
        assert!(!is_marked(&delivery));
        delivery.note_app_limited(u32::MAX, 1);
        assert!(is_marked(&delivery), "0 would be none");
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn no_number_overflows(words in any::<[u64; 4]>(), counts in any::<[u32; 4]>(), mss: u16, sample: u32, limited: bool) {
            let [delivered_at, first_sent_at, sent_at, now] = words;
            let [delivered, before, app_limited, seq] = counts;
            let mut delivery = Delivery { delivered_at, first_sent_at, app_limited, spare: 0 };
            let mut record = FrameRecord { sent_at, seq, delivered: before, ..FrameRecord::default() };
            delivery.stamp(&mut record, before);
            let mut rate = DeliveryRate { sample };
            if let Some(sample) = delivery.on_delivered(Instant(now), delivered, Newest::newer(None, &record)) {
                rate.take(&Sample { is_app_limited: limited, ..sample }, mss, None);
            }
            let _ = rate.bytes_per_second();
        }
    }
}
