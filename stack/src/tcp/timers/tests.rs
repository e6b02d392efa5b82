use proptest::prelude::*;
use zerocopy::FromBytes;

use super::delayed_ack::{DelayedAck, Unacknowledged};
use super::keepalive::{Action, Defaults, Keepalive};
use super::limits::*;
use super::*;
use crate::seq::Seq;
use crate::tcp::rtt::Bounds;
use crate::time::Duration;

const MSS: u16 = 1460;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn ms(length: u64) -> Duration {
    Duration::from_millis(length)
}

const RTO: Duration = Duration::from_millis(250);

// ---- The timers ----

#[test]
fn of_those_that_share_a_place_one_runs() {
    let mut timers = Timers::default();
    timers.arm(Timer::Rto, at(200));
    timers.arm(Timer::Tlp, at(20));
    assert_eq!((timers.at(Timer::Rto), timers.at(Timer::Tlp)), (None, Some(at(20))));
    timers.disarm(Timer::Rto);
    assert_eq!(timers.next(), Some(at(20)), "it did not run");
    timers.disarm(Timer::Tlp);
    assert_eq!(timers.next(), None);
}

#[test]
fn what_ends_a_connection_expires_before_what_sends() {
    let mut timers = Timers::default();
    for timer in [Timer::Pacing, Timer::DelayedAck, Timer::Rto, Timer::UserTimeout] {
        timers.arm(timer, at(5));
    }
    let order: Vec<Timer> = std::iter::from_fn(|| timers.expired(at(5))).collect();
    assert_eq!(order, [Timer::UserTimeout, Timer::Rto, Timer::DelayedAck, Timer::Pacing]);
    assert_eq!(timers.next(), None);
}

#[test]
fn a_deadline_at_the_beginning_of_time_is_one() {
    let mut timers = Timers::default();
    timers.arm(Timer::DelayedAck, Instant(0));
    assert_eq!(timers.expired(Instant(1)), Some(Timer::DelayedAck));
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn timers_are_a_list_in_which_places_are_shared(acts in proptest::collection::vec((0usize..10, any::<bool>(), 1u64..1000), 1..60), now in 1u64..1000) {
        let (mut timers, mut model): (Timers, Vec<(Timer, u64)>) = (Timers::default(), Vec::new());
        for (index, arms, deadline) in acts {
            let timer = Timer::ALL[index];
            if arms {
                timers.arm(timer, Instant(deadline));
                model.retain(|(other, _)| other.place() != timer.place());
                model.push((timer, deadline));
            } else {
                timers.disarm(timer);
                model.retain(|(other, _)| *other != timer);
            }
            prop_assert_eq!(timers.next(), model.iter().map(|(_, deadline)| Instant(*deadline)).min());
        }
        let mut due: Vec<Timer> = std::iter::from_fn(|| timers.expired(Instant(now))).collect();
        let mut expected: Vec<Timer> = model.iter().filter(|(_, deadline)| *deadline <= now).map(|(timer, _)| *timer).collect();
        due.sort_by_key(|timer| *timer as u8);
        expected.sort_by_key(|timer| *timer as u8);
        prop_assert_eq!(due, expected);
    }

    #[test]
    fn any_bytes_expire_and_end(bytes in any::<[u8; 48]>(), now: u64) {
        let mut timers = Timers::read_from_bytes(&bytes).expect("48 bytes");
        let mut expired = 0;
        while timers.expired(Instant(now)).is_some() {
            expired += 1;
        }
        prop_assert!(expired <= PLACES);
        prop_assert!(timers.next().is_none_or(|next| next.0 > now));
    }
}

// ---- Delayed acknowledgments ----

/// What was received after the last acknowledgment.
fn unacknowledged(bytes: u32) -> Unacknowledged {
    Unacknowledged { rcv_nxt: Seq(bytes), last_ack_sent: Seq(0), at_once: false }
}

/// A connection past its quick start, which receives a full segment each `gap`.
fn settled(gap: u64) -> DelayedAck {
    let mut ack = DelayedAck::default();
    for segment in 0..40 {
        ack.on_text(at(segment * gap), MSS, false, 60_000, || RTO);
        ack.on_ack_sent(1);
    }
    ack
}

#[test]
fn at_most_every_second_full_segment_is_left_without_an_acknowledgment() {
    let ack = settled(1);
    assert!(!ack.is_due(&unacknowledged(1460), || true));
    assert!(
        ack.is_due(&unacknowledged(1461), || true) && ack.is_due(&unacknowledged(2920), || true),
        "SHLD-19"
    );
}

#[test]
fn what_is_out_of_order_is_acknowledged_at_once() {
    assert!(
        settled(1).is_due(&Unacknowledged { at_once: true, ..unacknowledged(1) }, || true),
        "RFC 5681 §4.2"
    );
}

#[test]
fn a_connection_begins_with_quick_acknowledgments() {
    let mut ack = DelayedAck::default();
    ack.on_text(at(0), MSS, false, 60_000, || RTO);
    let mut quick = 0;
    while ack.is_due(&unacknowledged(10), || true) {
        ack.on_ack_sent(1);
        quick += 1;
    }
    assert_eq!(quick, 16, "half of a window of 41 segments, and no more than 16");
    ack.on_text(at(5_000), MSS, false, 6_000, || RTO);
    assert!(ack.is_due(&unacknowledged(10), || true), "its sender starts anew");
}

#[test]
fn an_answer_within_the_wait_makes_a_connection_interactive() {
    let mut ack = DelayedAck::default();
    ack.on_text(at(0), 100, true, 60_000, || RTO);
    assert!(ack.is_due(&unacknowledged(100), || true));
    ack.on_text_sent(at(1));
    assert!(!ack.is_due(&unacknowledged(100), || true), "the next answer carries it");
    ack.on_timeout(RTO);
    assert!(!ack.is_interactive(), "the user did not answer");
}

#[test]
fn a_small_segment_that_was_read_is_acknowledged_unless_an_answer_is_expected() {
    let mut ack = settled(1);
    assert!(!ack.is_due_when_read(), "nothing came");
    ack.on_text(at(50), MSS, false, 60_000, || RTO);
    assert!(!ack.is_due_when_read(), "a full one");
    ack.on_text(at(51), 100, true, 60_000, || RTO);
    assert!(ack.is_due_when_read());
    ack.on_text_sent(at(52));
    assert!(!ack.is_due_when_read(), "the next answer carries it");
    ack.on_text(at(53), 100, true, 60_000, || RTO);
    assert!(ack.is_due_when_read(), "a second one");
    ack.on_ack_sent(1);
    assert!(!ack.is_due_when_read());
}

#[test]
fn the_wait_is_between_40_and_200_ms() {
    let wait = |ack: &DelayedAck, srtt| {
        ack.deadline(at(10_000), srtt, None, false).expect("a deadline") - at(10_000)
    };
    assert_eq!(wait(&settled(1), Some(ms(1))), ms(40));
    // Segments 39 ms apart, then longer: the wait grows with the gaps.
    let mut slow = settled(1);
    for _ in 0..6 {
        slow.on_timeout(Duration::from_secs(2));
    }
    assert_eq!(wait(&slow, None), ms(200), "MUST-40");
    assert_eq!(wait(&slow, Some(ms(60))), ms(60), "no longer than a round trip");
    assert_eq!(wait(&slow, Some(ms(5))), ms(40));
}

#[test]
fn a_running_timer_is_not_put_off_and_not_waited_for_when_it_is_near() {
    let ack = settled(1);
    assert_eq!(ack.deadline(at(100), None, Some(at(120)), false), Some(at(120)));
    assert_eq!(ack.deadline(at(100), None, Some(at(300)), false), Some(at(140)));
    assert_eq!(ack.deadline(at(100), None, Some(at(110)), false), None, "a quarter of the wait");
}

#[test]
fn the_peers_segment_size_is_learned() {
    let mut ack = DelayedAck::default();
    assert_eq!(ack.rcv_mss(), 536);
    ack.on_text(at(0), MSS, false, 60_000, || RTO);
    assert_eq!(ack.rcv_mss(), MSS);
    ack.on_text(at(1), 1000, true, 60_000, || RTO);
    assert_eq!(ack.rcv_mss(), MSS, "the end of a message");
    ack.on_text(at(2), 1000, false, 60_000, || RTO);
    assert_eq!(ack.rcv_mss(), 1000, "twice the same: the path has changed");
    ack.on_text(at(3), 5, true, 60_000, || RTO);
    ack.on_text(at(4), 5, true, 60_000, || RTO);
    assert_eq!(ack.rcv_mss(), 1000, "small messages tell nothing");
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn the_delay_is_always_below_half_a_second(bytes in any::<[u8; 12]>(), now in 0u64..1 << 60, srtt: Option<u64>, segment: u16, wnd: u32, rto: u64, push: bool) {
        let mut ack = DelayedAck::read_from_bytes(&bytes).expect("12 bytes");
        ack.on_text(Instant(now), segment, push, wnd, || Duration(rto));
        ack.on_timeout(Duration(rto));
        ack.on_text_sent(Instant(now));
        ack.be_quick(wnd);
        ack.on_ack_sent(3);
        let at = ack.deadline(Instant(now), srtt.map(Duration), None, push).expect("a deadline");
        prop_assert!(at - Instant(now) <= delayed_ack::MAX && at - Instant(now) >= delayed_ack::MIN, "MUST-40");
    }
}

// ---- Keep-alive ----

const HOUR: u64 = 3_600_000;

#[test]
fn the_first_probe_is_sent_after_two_hours_of_silence() {
    let (mut keepalive, defaults) = (Keepalive::default(), Defaults::default());
    assert_eq!(keepalive.first(at(5), &defaults), at(2 * HOUR + 5), "MUST-28");
    let early = keepalive.on_timeout(at(HOUR), at(5), false, None, &defaults);
    assert_eq!(early, Action::Wait(at(2 * HOUR + 5)), "MUST-26");
    let due = keepalive.on_timeout(at(2 * HOUR + 5), at(5), false, None, &defaults);
    assert_eq!(due, Action::Probe(at(2 * HOUR + 5 + 75_000)));
}

#[test]
fn no_probe_is_sent_while_data_is_outstanding() {
    let action = Keepalive::default().on_timeout(at(9 * HOUR), at(0), true, None, &Defaults::default());
    assert_eq!(action, Action::Wait(at(11 * HOUR)), "MUST-26");
}

#[test]
fn a_connection_is_given_up_only_after_nine_probes_and_an_answer_sets_them_back() {
    let (mut keepalive, defaults) = (Keepalive::default(), Defaults::default());
    let mut time = at(2 * HOUR);
    for probe in 0..9 {
        let Action::Probe(next) = keepalive.on_timeout(time, at(0), false, None, &defaults) else {
            panic!("probe {probe}")
        };
        time = next;
    }
    let mut answered = keepalive;
    assert_eq!(keepalive.on_timeout(time, at(0), false, None, &defaults), Action::GiveUp);
    answered.on_received();
    assert!(matches!(answered.on_timeout(time, at(0), false, None, &defaults), Action::Probe(_)), "MUST-29");
}

#[test]
fn a_sockets_own_settings_and_user_timeout_come_first() {
    let mut keepalive = Keepalive { idle: 10, interval: 2, count: 1, sent: 0 };
    let defaults = Defaults::default();
    assert_eq!(keepalive.on_timeout(at(10_000), at(0), false, None, &defaults), Action::Probe(at(12_000)));
    let mut with_limit = keepalive;
    assert_eq!(keepalive.on_timeout(at(12_000), at(0), false, None, &defaults), Action::GiveUp);
    let limit = Some(ms(13_000));
    assert_eq!(with_limit.on_timeout(at(12_000), at(0), false, limit, &defaults), Action::Probe(at(14_000)));
    assert_eq!(with_limit.on_timeout(at(14_000), at(0), false, limit, &defaults), Action::GiveUp);
}

// ---- Limits ----

#[test]
fn data_is_given_up_after_fifteen_and_a_half_minutes() {
    let bounds = Bounds::default();
    assert_eq!(give_up_after(RETRIES_2, &bounds), ms(924_600), "as Linux");
    assert!(give_up_after(RETRIES_2, &bounds) >= Duration::from_secs(100), "SHLD-11");
    let from_a_second = Bounds { min: Duration::from_secs(1), ..bounds };
    assert_eq!(give_up_after(SYN_RETRIES, &from_a_second), Duration::from_secs(127));
    assert!(!is_given_up(at(924_599), at(0), RETRIES_2, None, &bounds));
    assert!(is_given_up(at(924_600), at(0), RETRIES_2, None, &bounds));
}

#[test]
fn the_users_timeout_decides_where_it_is_set() {
    let bounds = Bounds::default();
    assert!(is_given_up(at(5_000), at(0), RETRIES_2, Some(ms(5_000)), &bounds));
    assert!(!is_given_up(at(2_000_000), at(0), RETRIES_2, Some(ms(5_000_000)), &bounds));
    assert_eq!(clamped(ms(800), at(4_500), at(0), Some(ms(5_000))), ms(500));
    assert_eq!(clamped(ms(800), at(9_000), at(0), Some(ms(5_000))), ms(1));
    assert_eq!(clamped(ms(800), at(9_000), at(0), None), ms(800));
}

#[test]
fn an_advertised_user_timeout_stays_within_bounds() {
    assert_eq!(user_timeout(ms(1_000), ms(2_000)), Duration::from_secs(100), "RFC 5482 §3.1");
    assert_eq!(user_timeout(ms(1_000), ms(200_000)), ms(200_000));
    assert_eq!(user_timeout(ms(0), Duration(u64::MAX)), Duration::from_secs(86_400));
}

#[test]
fn a_closed_window_is_probed_after_a_timeout_and_then_half_as_often_each_time() {
    let bounds = Bounds::default();
    let waits: Vec<u64> = (0..12).map(|probes| persist(ms(300), probes, &bounds).as_millis()).collect();
    assert_eq!(waits[..4], [300, 600, 1200, 2400], "SHLD-29, SHLD-30");
    assert_eq!(waits[11], 120_000);
    assert_eq!(persist(ms(1), 0, &bounds), ms(200));
}
