use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

const MS: u64 = 1_000_000;

fn acked(segments: u32) -> Acked {
    Acked {
        now: Instant(0),
        segments,
        rtt: None,
        min_rtt: None,
        una: Seq(0),
        nxt: Seq(0),
        pacing_rate: 0,
        is_paced: false,
    }
}

fn sent(packets_out: u32, limited: bool) -> Sent {
    Sent {
        una: Seq(0),
        nxt: Seq(1),
        packets_out,
        limited,
        rto: Duration::from_millis(200),
        initial_window: 10,
    }
}

/// A connection whose window is full.
fn full(algorithm: Algorithm, cwnd: u32) -> Congestion {
    let mut congestion = Congestion::new(algorithm, cwnd);
    congestion.on_sent(Instant(0), &sent(cwnd, true));
    congestion
}

#[test]
fn the_initial_window_is_ten_segments_or_fewer_large_ones() {
    let sizes: Vec<u32> = [536, 1460, 1461, 4000, 8948, 65_000].map(|mss| initial_window(mss, false)).into();
    assert_eq!(sizes, [10, 10, 9, 3, 2, 2], "RFC 6928 §2");
}

#[test]
fn after_a_lost_syn_the_initial_window_is_one_segment() {
    assert_eq!(initial_window(1460, true), 1);
}

#[test]
fn slow_start_grows_by_what_is_acknowledged_and_stops_at_ssthresh() {
    for algorithm in Algorithm::ALL {
        let mut congestion = full(algorithm, 10);
        congestion.on_ack(&acked(4));
        assert_eq!(congestion.cwnd(), 14);
        congestion.ssthresh = 16;
        congestion.on_ack(&acked(10));
        assert_eq!(congestion.cwnd(), 16, "{algorithm:?}: what is left over is congestion avoidance's");
    }
}

#[test]
fn newreno_grows_by_one_segment_in_a_round_trip() {
    let mut congestion = full(Algorithm::NewReno, 20);
    congestion.ssthresh = 10;
    for expected in 21..60 {
        for _ in 0..congestion.cwnd() {
            congestion.on_ack(&acked(1));
        }
        // cwnd grows within the round, so that it may miss the last of it.
        assert!((expected - 1..=expected).contains(&congestion.cwnd()), "{expected}: {}", congestion.cwnd());
    }
}

#[test]
fn newreno_halves_and_never_goes_below_two() {
    let mut congestion = full(Algorithm::NewReno, 21);
    congestion.on_congestion();
    assert_eq!(congestion.ssthresh(), 10);
    congestion.on_recovered();
    assert_eq!(congestion.cwnd(), 10, "RFC 6582 §3.2 step 3");
    congestion.set_cwnd(1);
    congestion.on_congestion();
    assert_eq!(congestion.ssthresh(), 2, "RFC 5681 equation 4");
}

#[test]
fn a_timeout_leaves_one_segment() {
    for algorithm in Algorithm::ALL {
        let mut congestion = full(algorithm, 100);
        congestion.on_timeout(0, true);
        let ssthresh = congestion.ssthresh();
        assert!(congestion.cwnd() == 1 && (50..=70).contains(&ssthresh), "{algorithm:?}: {ssthresh}");
        congestion.on_timeout(0, false);
        assert_eq!(congestion.ssthresh(), ssthresh, "the same segment once more");
        assert_eq!(congestion.algorithm(), algorithm);
    }
}

#[test]
fn an_undone_reduction_gives_the_window_back() {
    let mut congestion = full(Algorithm::Cubic, 100);
    congestion.on_timeout(0, true);
    congestion.undo(100, SSTHRESH_INITIAL);
    assert_eq!((congestion.cwnd(), congestion.ssthresh()), (100, SSTHRESH_INITIAL));
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut congestion = Congestion::new(Algorithm::Cubic, 100);
    congestion.ssthresh = 50;
    congestion.on_sent(Instant(0), &sent(10, false));
    for _ in 0..1000 {
        congestion.on_ack(&acked(10));
    }
    assert_eq!(congestion.cwnd(), 100, "RFC 7661");
}

#[test]
fn in_slow_start_a_half_used_window_grows() {
    let mut congestion = Congestion::new(Algorithm::Cubic, 10);
    congestion.on_sent(Instant(0), &sent(6, false));
    congestion.on_ack(&acked(6));
    assert_eq!(congestion.cwnd(), 16, "more than half of ten was in flight");
    congestion.on_ack(&acked(6));
    assert_eq!(congestion.cwnd(), 16, "and not more than half of sixteen");
}

#[test]
fn an_application_that_uses_little_loses_half_of_the_rest() {
    let mut congestion = full(Algorithm::Cubic, 100);
    let next = Sent { una: Seq(1), nxt: Seq(2), ..sent(20, false) };
    congestion.on_sent(Instant(150 * MS), &next);
    assert_eq!(congestion.cwnd(), 100, "not yet a timeout");
    congestion.on_sent(Instant(300 * MS), &next);
    assert_eq!(congestion.cwnd(), 60, "half of what is between 20 and 100");
    assert!(congestion.ssthresh() >= 75, "RFC 2861: the way back is slow start");
}

#[test]
fn each_timeout_of_silence_halves_the_window_down_to_the_initial_one() {
    let rto = Duration::from_millis(200);
    let idle = |ms| {
        let mut congestion = full(Algorithm::NewReno, 100);
        congestion.on_restart(Duration::from_millis(ms), rto, 10);
        congestion.cwnd()
    };
    assert_eq!((idle(199), idle(250), idle(450), idle(60_000)), (100, 50, 25, 10), "RFC 5681 §4.1");
    let mut small = full(Algorithm::NewReno, 4);
    small.on_restart(Duration::from_secs(60), rto, 10);
    assert_eq!(small.cwnd(), 4, "nothing grows by waiting");
}

/// Slow start over a path of 40 ms: each round doubles the window. Returns the window at which HyStart ends it.
fn hystart(gap_us: u64, delay_us: impl Fn(u32) -> u64) -> Option<u32> {
    let (mut congestion, mut now, mut nxt) = (full(Algorithm::Cubic, 16), 0, 16);
    for round in 0..6u32 {
        let (cwnd, end) = (congestion.cwnd(), nxt);
        for segment in 0..cwnd {
            let rtt = Duration::from_micros(40_000 + delay_us(round));
            let una = Seq(end + segment - cwnd + 1);
            nxt += 2;
            let ack = Acked {
                now: Instant(now),
                rtt: Some(rtt),
                min_rtt: Some(Duration::from_millis(40)),
                una,
                nxt: Seq(nxt),
                ..acked(1)
            };
            congestion.on_ack(&ack);
            now += gap_us * 1_000;
            if congestion.ssthresh() != SSTHRESH_INITIAL {
                return Some(congestion.ssthresh());
            }
        }
        now += 40 * MS;
    }
    None
}

#[test]
fn slow_start_ends_when_the_round_trip_grows_by_an_eighth() {
    assert_eq!(hystart(10, |_| 0), None, "a path without a queue");
    assert_eq!(hystart(10, |_| 3_900), None, "below an eighth");
    assert!(hystart(10, |round| u64::from(round) * 2_600).is_some_and(|cwnd| cwnd < 200));
}

#[test]
fn slow_start_ends_when_acknowledgments_come_in_a_train_of_half_a_round_trip() {
    // A gap of 0.5 ms: 40 acknowledgments are 20 ms.
    assert!(hystart(500, |_| 0).is_some_and(|cwnd| (40..=128).contains(&cwnd)));
    assert_eq!(hystart(2_500, |_| 0), None, "with gaps it is no train");
}

#[test]
fn an_algorithm_is_found_by_its_name() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::named(algorithm.name().as_bytes()), Some(algorithm));
        assert_eq!(Algorithm::decode(algorithm as u8), algorithm);
    }
    assert_eq!(Algorithm::named(b"bbr"), None);
    assert_eq!(Algorithm::decode(200), Algorithm::Cubic);
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn any_bytes_are_survived(bytes in any::<[u8; 48]>(), numbers in any::<[u64; 6]>(), segments: u32, una: u32) {
        let mut congestion = Congestion::read_from_bytes(&bytes).expect("48 bytes");
        let [now, rtt, min_rtt, rate, idle, rto] = numbers;
        let ack = Acked {
            now: Instant(now), segments, rtt: Some(Duration(rtt)), min_rtt: Some(Duration(min_rtt)), una: Seq(una), nxt: Seq(una ^ 77),
            pacing_rate: rate, is_paced: rate % 2 == 0,
        };
        for step in 0..8u32 {
            congestion.on_ack(&ack);
            congestion.on_sent(Instant(now), &Sent { rto: Duration(rto), initial_window: una, ..sent(segments, step % 2 == 0) });
            match step {
                3 => congestion.on_restart(Duration(idle), Duration(rto), segments),
                4 => congestion.on_congestion(),
                5 => congestion.undo(segments, una),
                6 => congestion.on_timeout(segments, true),
                7 => congestion.on_recovered(),
                _ => {}
            }
            prop_assert!((1..=CWND_MAX).contains(&congestion.cwnd()));
        }
    }

    #[test]
    fn no_acknowledgment_grows_the_window_by_more_than_it_acknowledges(
        cwnd in 1u32..100_000, ssthresh in 1u32..100_000, segments in 0u32..1000, loss: bool, newreno: bool, now in 0u64..1 << 50,
    ) {
        let algorithm = if newreno { Algorithm::NewReno } else { Algorithm::Cubic };
        let mut congestion = full(algorithm, cwnd);
        if loss {
            congestion.on_congestion();
            congestion.on_recovered();
        }
        congestion.ssthresh = ssthresh;
        congestion.on_ack(&acked(1));
        let before = congestion.cwnd();
        congestion.on_ack(&Acked { now: Instant(now), ..acked(segments) });
        prop_assert!(congestion.cwnd() - before <= segments + 1, "{before} to {}", congestion.cwnd());
    }
}
