use proptest::prelude::*;
use zerocopy::FromBytes;

use super::*;

const MS: u64 = 1_000_000;

fn ms(length: u64) -> Duration {
    Duration::from_millis(length)
}

/// After so many measurements of one length each, a round apiece.
fn measured_often(rtt: &mut Rtt, length: Duration, times: u32) {
    for round in 0..times {
        rtt.sample(length, Seq(round * 2 + 2), Seq(round * 2 + 3), &Bounds::default());
    }
}

#[test]
fn before_the_first_measurement_the_timeout_is_one_second() {
    assert_eq!(Rtt::default().rto(&Bounds::default()), Duration::from_secs(1));
}

#[test]
fn the_first_measurement_sets_srtt_to_r_and_the_timeout_to_three_r() {
    let mut rtt = Rtt::default();
    rtt.sample(ms(400), Seq(0), Seq(1), &Bounds::default());
    assert_eq!(rtt.srtt(), Some(ms(400)));
    assert_eq!(rtt.rttvar(), ms(200));
    assert_eq!(rtt.rto(&Bounds::default()), ms(1200));
}

#[test]
fn later_measurements_move_srtt_by_an_eighth() {
    let mut rtt = Rtt::default();
    rtt.sample(ms(100), Seq(0), Seq(1), &Bounds::default());
    rtt.sample(ms(180), Seq(0), Seq(1), &Bounds::default());
    assert_eq!(rtt.srtt(), Some(ms(110)));
    // mdev: 50 ms + (80 − 50)/4.
    assert_eq!(rtt.rttvar(), Duration::from_micros(57_500));
}

#[test]
fn the_timeout_is_at_least_the_round_trip_and_200_ms() {
    let mut rtt = Rtt::default();
    measured_often(&mut rtt, Duration::from_micros(50), 100);
    assert_eq!(rtt.rto(&Bounds::default()), Duration::from_micros(200_050));
    let finer = Bounds { min: ms(5), ..Bounds::default() };
    let mut rtt = Rtt::default();
    rtt.sample(Duration::from_micros(50), Seq(0), Seq(1), &finer);
    assert_eq!(rtt.rto(&finer), Duration::from_micros(5_050));
}

#[test]
fn the_deviation_of_one_window_is_forgotten_slowly() {
    let mut rtt = Rtt::default();
    measured_often(&mut rtt, ms(100), 30);
    rtt.sample(ms(900), Seq(61), Seq(200), &Bounds::default());
    let jittery = rtt.rto(&Bounds::default());
    assert!(jittery > ms(900), "{jittery:?} covers the measurement that was just made");
    measured_often(&mut rtt, ms(100), 4);
    assert!(rtt.rto(&Bounds::default()) > ms(300), "four rounds later some of it is left");
    measured_often(&mut rtt, ms(100), 60);
    assert!(rtt.rto(&Bounds::default()) < ms(310));
}

#[test]
fn the_largest_deviation_of_a_round_lasts_for_the_round() {
    let (mut rtt, bounds) = (Rtt::default(), Bounds::default());
    measured_often(&mut rtt, ms(100), 30);
    rtt.sample(ms(900), Seq(61), Seq(1000), &bounds);
    let variation = |rtt: &Rtt| rtt.rto(&bounds).0 - rtt.srtt().expect("measured").0;
    let before = variation(&rtt);
    for acked in 100..=1000 {
        rtt.sample(ms(100), Seq(acked), Seq(2000), &bounds);
    }
    assert!(
        variation(&rtt).abs_diff(before) < 2_000,
        "a small window has many measurements in a round, a large one more"
    );
    rtt.sample(ms(100), Seq(1001), Seq(2000), &bounds);
    assert_eq!(variation(&rtt) / 1_000_000, before / 1_000_000, "the round's own largest counts in full");
    rtt.sample(ms(100), Seq(2001), Seq(3000), &bounds);
    assert!(variation(&rtt) < before);
}

#[test]
fn a_faster_path_does_not_raise_the_timeout() {
    let mut rtt = Rtt::default();
    measured_often(&mut rtt, ms(500), 60);
    let before = rtt.rto(&Bounds::default());
    rtt.sample(ms(20), Seq(10_000), Seq(10_001), &Bounds::default());
    assert!(rtt.rto(&Bounds::default()) <= before);
}

#[test]
fn each_timeout_doubles_the_next_up_to_the_maximum_and_a_measurement_ends_that() {
    let (mut rtt, bounds) = (Rtt::default(), Bounds::default());
    rtt.sample(ms(100), Seq(0), Seq(1), &bounds);
    let base = rtt.rto(&bounds);
    for doublings in 1..=60u32 {
        rtt.back_off();
        let expected = base.0.checked_shl(doublings.min(20)).expect("within 64 bits").min(bounds.max.0);
        assert_eq!(rtt.rto(&bounds).0, expected);
    }
    rtt.sample(ms(100), Seq(0), Seq(1), &bounds);
    assert!(rtt.rto(&bounds) <= base);
}

#[test]
fn after_a_lost_syn_the_timeout_is_three_seconds_until_something_is_measured() {
    let (mut rtt, bounds) = (Rtt::default(), Bounds::default());
    rtt.back_off();
    rtt.back_off();
    rtt.syn_was_lost();
    assert_eq!(rtt.rto(&bounds), Duration::from_secs(3));
    rtt.sample(ms(10), Seq(0), Seq(1), &bounds);
    assert_eq!(rtt.rto(&bounds), ms(210));
}

#[test]
fn what_was_sent_twice_measures_nothing_without_timestamps() {
    let now = Instant(700 * MS);
    let evidence = |sent_at, advances, since_tsecr_ms| Evidence { sent_at, advances, since_tsecr_ms };
    assert_eq!(measured(now, &evidence(Some(Instant(600 * MS)), true, None)), Some(ms(100)));
    assert_eq!(measured(now, &evidence(None, true, None)), None, "Karn");
    assert_eq!(measured(now, &evidence(None, true, Some(30))), Some(ms(30)));
    assert_eq!(measured(now, &evidence(None, true, Some(0))), Some(ms(1)), "less than a tick");
}

#[test]
fn a_timestamp_measures_only_if_the_left_edge_advances() {
    let evidence = Evidence { advances: false, since_tsecr_ms: Some(30), ..Evidence::default() };
    assert_eq!(measured(Instant(0), &evidence), None, "RFC 7323 §4.1");
    let future = Evidence { advances: true, since_tsecr_ms: Some(u32::MAX), ..Evidence::default() };
    assert_eq!(measured(Instant(0), &future), None);
}

#[test]
fn a_delayed_acknowledgment_does_not_replace_the_minimum() {
    let mut rtt = Rtt::default();
    rtt.sample_min(Instant(0), ms(10), false);
    rtt.sample_min(Instant(400_000 * MS), ms(50), true);
    assert_eq!(rtt.min_rtt(), Some(ms(10)));
    rtt.sample_min(Instant(400_000 * MS), ms(50), false);
    assert_eq!(rtt.min_rtt(), Some(ms(50)));
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn srtt_stays_between_the_smallest_and_the_largest_measurement(
        lengths in proptest::collection::vec(1u64..10_000_000, 1..100),
    ) {
        let mut rtt = Rtt::default();
        for (round, length) in lengths.iter().enumerate() {
            rtt.sample(Duration::from_micros(*length), Seq(round as u32), Seq(round as u32 + 7), &Bounds::default());
            let srtt = rtt.srtt().expect("measured").as_micros();
            // Each step rounds by less than a microsecond.
            prop_assert!(srtt + 1 >= *lengths[..=round].iter().min().expect("one"));
            prop_assert!(srtt <= *lengths[..=round].iter().max().expect("one"));
        }
    }

    #[test]
    fn any_bytes_give_a_timeout_within_its_bounds(bytes in any::<[u8; 40]>(), lengths in any::<[u64; 4]>(), una in any::<u32>(), now in any::<u64>()) {
        let (mut rtt, bounds) = (Rtt::read_from_bytes(&bytes).expect("40 bytes"), Bounds::default());
        for length in lengths {
            rtt.sample(Duration(length), Seq(una), Seq(una ^ 9), &bounds);
            rtt.sample_min(Instant(now), Duration(length), length % 2 == 0);
            rtt.back_off();
            prop_assert!(rtt.rto(&bounds) >= bounds.min && rtt.rto(&bounds) <= bounds.max);
            prop_assert!(rtt.srtt().is_some() && rtt.min_rtt().is_some());
        }
    }
}
