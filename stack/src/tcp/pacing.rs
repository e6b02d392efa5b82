//! The rate at which a connection may send, from its window and its round-trip time, and when the next burst is due
//! (tcp_update_pacing_rate, tcp_update_skb_after_send and tcp_tso_autosize in net/ipv4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::{Duration, Instant};

/// Percent of cwnd/SRTT in slow start (net.ipv4.tcp_pacing_ss_ratio): the window doubles while it is sent.
const SLOW_START_PERCENT: u64 = 200;
/// Percent in congestion avoidance (net.ipv4.tcp_pacing_ca_ratio): room to probe for more.
const AVOIDANCE_PERCENT: u64 = 120;
/// A burst is what the rate sends in 2⁻¹⁰ s (sk_pacing_shift).
const BURST_SHIFT: u32 = 10;
/// With a round trip of below 2⁹ µs bursts may be larger (net.ipv4.tcp_tso_rtt_log).
const BURST_RTT_BITS: u32 = 9;

/// What the rate depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Text of a full segment.
    pub mss: u16,
    /// cwnd, in segments.
    pub cwnd: u32,
    /// Segments in flight or lost.
    pub packets_out: u32,
    /// ssthresh, in segments.
    pub ssthresh: u32,
    /// SRTT.
    pub srtt: Option<Duration>,
    /// SO_MAX_PACING_RATE, in bytes per second.
    pub max: u64,
}

/// Bytes per second.
///
/// The factor of slow start holds while cwnd is below half of ssthresh, so that a window that has nearly arrived is
/// not overrun. Before the first measurement a round trip of one millisecond is assumed.
#[must_use]
pub fn rate(path: &Path) -> u64 {
    let srtt = path.srtt.unwrap_or(Duration::from_millis(1)).0.max(1_000);
    let percent = if path.cwnd < path.ssthresh / 2 { SLOW_START_PERCENT } else { AVOIDANCE_PERCENT };
    let window = u64::from(path.cwnd.max(path.packets_out)) * u64::from(path.mss) * percent / 100;
    // A window is below 2⁵⁰ bytes, and the product of it with a billion needs more than 64 bits.
    let rate = u128::from(window) * 1_000_000_000 / u128::from(srtt);
    u64::try_from(rate).unwrap_or(u64::MAX).min(path.max)
}

/// Bytes of one burst at this rate, in whole segments: about a millisecond's worth, more on a short path, at most
/// `most`; and `least` segments (net.ipv4.tcp_min_tso_segs).
#[must_use]
pub fn burst(rate: u64, mss: u16, min_rtt: Option<Duration>, most: u32, least: u32) -> u32 {
    let mss = u32::from(mss.max(1));
    let near = min_rtt.map_or(0, |rtt| {
        let shift = (rtt.as_micros() >> BURST_RTT_BITS).min(31) as u32;
        u64::from(most >> shift)
    });
    let bytes = (rate >> BURST_SHIFT).saturating_add(near).min(u64::from(most)) as u32;
    (bytes / mss).max(least.clamp(1, 255)) * mss
}

/// When the next segment may leave. Zero bytes are: now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pacing {
    /// Nanoseconds.
    next: Instant,
}

impl Pacing {
    /// So many bytes have left. Time that was lost by being late, for up to half of what these bytes take, is given
    /// back, lest a coarse timer lower the rate.
    pub fn on_sent(&mut self, now: Instant, bytes: u32, rate: u64) {
        if rate == 0 {
            return;
        }
        let takes = u64::from(bytes) * 1_000_000_000 / rate;
        let late = (now - self.next).0;
        let begins = self.next.max(now);
        self.next = begins + Duration(takes - late.min(takes / 2));
    }

    /// When the next may leave; `None` when it may now.
    #[inline]
    #[must_use]
    pub fn next_send(&self, now: Instant) -> Option<Instant> {
        (self.next > now).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: Path = Path {
        mss: 1000,
        cwnd: 10,
        packets_out: 0,
        ssthresh: u32::MAX,
        srtt: Some(Duration::from_millis(10)),
        max: u64::MAX,
    };

    #[test]
    fn slow_start_sends_two_windows_in_a_round_trip_and_avoidance_a_fifth_more_than_one() {
        assert_eq!(rate(&PATH), 2_000_000);
        assert_eq!(rate(&Path { ssthresh: 21, ..PATH }), 1_200_000, "half of ssthresh is reached");
        assert_eq!(rate(&Path { ssthresh: 22, ..PATH }), 2_000_000);
        assert_eq!(rate(&Path { packets_out: 20, ..PATH }), 4_000_000);
        assert_eq!(rate(&Path { max: 7, ..PATH }), 7);
    }

    #[test]
    fn a_burst_is_a_millisecond_and_more_on_a_short_path() {
        assert_eq!(burst(1_024_000_000, 1000, None, 65_536, 2), 65_000);
        assert_eq!(burst(10_240_000, 1000, Some(Duration::from_millis(50)), 65_536, 2), 10_000);
        assert_eq!(burst(1_000, 1000, Some(Duration::from_millis(50)), 65_536, 2), 2_000, "two segments");
        assert_eq!(burst(1_000, 1000, Some(Duration::from_micros(30)), 65_536, 2), 65_000);
    }

    #[test]
    fn sending_late_is_made_up_for_by_half() {
        let mut pacing = Pacing::default();
        let start = Instant(1_000_000_000);
        assert_eq!(pacing.next_send(start), None);
        pacing.on_sent(start, 1000, 1_000_000);
        assert_eq!(pacing.next_send(start), Some(start + Duration(500_000)), "a start is as late as can be");
        // Now exactly on time.
        pacing.on_sent(start + Duration(500_000), 1000, 1_000_000);
        assert_eq!(pacing.next_send(start), Some(start + Duration(1_500_000)));
        // A tenth of a millisecond late.
        pacing.on_sent(start + Duration(1_600_000), 1000, 1_000_000);
        assert_eq!(pacing.next_send(start), Some(start + Duration(2_500_000)));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn over_time_the_rate_is_kept(rate in 10_000u64..1_000_000_000, bytes in 1u32..60_000) {
            let (mut pacing, mut now, mut sent) = (Pacing::default(), Instant(1 << 40), 0u64);
            let start = now;
            for _ in 0..200 {
                if let Some(next) = pacing.next_send(now) {
                    now = next;
                }
                pacing.on_sent(now, bytes, rate);
                sent += u64::from(bytes);
            }
            let expected = u128::from((now - start).0) * u128::from(rate) / 1_000_000_000;
            // The first burst is free, and each one rounds by a nanosecond.
            prop_assert!(u128::from(sent) <= expected + 2 * u128::from(bytes) + 200 * u128::from(rate) / 1_000_000_000 + 1);
        }

        #[test]
        fn no_number_overflows(mss: u16, cwnd: u32, packets_out: u32, ssthresh: u32, srtt: u64, max: u64, now: u64, next: u64) {
            let rate = rate(&Path { mss, cwnd, packets_out, ssthresh, srtt: Some(Duration(srtt)), max });
            let _ = burst(rate, mss, Some(Duration(srtt)), cwnd, packets_out);
            Pacing { next: Instant(next) }.on_sent(Instant(now), packets_out, rate);
        }
    }
}
