use std::collections::HashSet;

use proptest::prelude::*;

use super::cookie::Kept;
use super::*;
use crate::testing::steps;

const KEY: Key = [0x1234_5678_9abc_def0, 42];
const MINUTE: u64 = 60_000_000_000;

fn tuple(remote_port: u16) -> Tuple {
    Tuple { local: Ip::v4([192, 0, 2, 1]), remote: Ip::v4([192, 0, 2, 9]), local_port: 80, remote_port }
}

fn tuple_v6(remote_port: u16) -> Tuple {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    Tuple { local: Ip(address), remote: Ip(address), local_port: 80, remote_port }
}

#[test]
fn one_connections_sequence_numbers_follow_a_clock() {
    let at = |now| initial_sequence(&KEY, &tuple(7), Instant(now));
    assert_eq!(at(64_000) - at(0), 1000, "64 ns a step");
    assert!(at(1_000_000_000).lt(at(100_000_000_000)), "a later incarnation begins further on");
}

#[test]
fn other_connections_and_other_secrets_are_elsewhere() {
    let now = Instant(5 << 40);
    let (ports, different) = (steps(10_000) as u16, steps(10_000) as usize * 999 / 1000);
    let numbers: HashSet<u32> = (0..ports).map(|port| initial_sequence(&KEY, &tuple(port), now).0).collect();
    assert!(numbers.len() >= different, "{} of {ports} are different", numbers.len());
    let differences: HashSet<u32> = (0..ports)
        .map(|port| initial_sequence(&KEY, &tuple(port + 1), now) - initial_sequence(&KEY, &tuple(port), now))
        .collect();
    assert!(differences.len() >= different, "no line from one port to the next");
    assert_ne!(initial_sequence(&KEY, &tuple(1), now), initial_sequence(&[1, 2], &tuple(1), now));
}

#[test]
fn the_offset_of_timestamps_is_a_connections_own_and_no_sequence_number() {
    assert_eq!(timestamp_offset(&KEY, &tuple(1)), timestamp_offset(&KEY, &tuple(1)));
    assert_ne!(timestamp_offset(&KEY, &tuple(1)), timestamp_offset(&KEY, &tuple(2)));
    assert_ne!(timestamp_offset(&KEY, &tuple(1)), initial_sequence(&KEY, &tuple(1), Instant(0)).0);
}

#[test]
fn a_cookie_keeps_the_nearest_smaller_size() {
    for (offered, kept) in [(100, 536), (536, 536), (1299, 536), (1300, 1300), (1459, 1440), (9000, 1460)] {
        let (cookie, mss) = cookie::make(&KEY, &tuple(5), Seq(99), offered, Instant(0));
        assert_eq!(mss, kept);
        assert_eq!(cookie::check(&KEY, &tuple(5), Seq(99), cookie, Instant(0)), Some(kept));
    }
    let (cookie, mss) = cookie::make(&KEY, &tuple_v6(5), Seq(99), 8960, Instant(0));
    assert_eq!((mss, cookie::check(&KEY, &tuple_v6(5), Seq(99), cookie, Instant(0))), (8940, Some(8940)));
}

#[test]
fn a_cookie_is_good_for_two_minutes() {
    let start = Instant(1000 * MINUTE + 1);
    let (cookie, _) = cookie::make(&KEY, &tuple(5), Seq(99), 1460, start);
    let after =
        |minutes: u64| cookie::check(&KEY, &tuple(5), Seq(99), cookie, Instant(start.0 + minutes * MINUTE));
    assert_eq!((after(0), after(1), after(2), after(256)), (Some(1460), Some(1460), None, None));
}

#[test]
fn a_cookie_of_another_connection_or_of_nobody_is_refused() {
    let (cookie, _) = cookie::make(&KEY, &tuple(5), Seq(99), 1460, Instant(0));
    let check = |key: &Key, port, isn, cookie| cookie::check(key, &tuple(port), isn, cookie, Instant(0));
    assert_eq!(check(&KEY, 5, Seq(99), cookie), Some(1460));
    assert_eq!(check(&KEY, 6, Seq(99), cookie), None);
    assert_eq!(check(&KEY, 5, Seq(100), cookie), None);
    assert_eq!(check(&[3, 4], 5, Seq(99), cookie), None);
    // A guess succeeds with four sizes and two minutes out of 2³².
    let lucky =
        (0..steps(1_000_000)).filter(|guess| check(&KEY, 5, Seq(99), Seq(guess * 4021)).is_some()).count();
    assert!(lucky <= 1, "{lucky} of a million guesses");
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn a_timestamp_keeps_what_was_offered_and_is_never_ahead_of_the_clock(
        clock in 64u32.., shift in proptest::option::of(0u8..15), sack: bool, ecn: bool,
    ) {
        let kept = Kept { wnd_shift: shift, sack, ecn };
        let stamp = cookie::timestamp(clock, &kept);
        prop_assert_eq!(cookie::kept(stamp), kept);
        prop_assert!(stamp <= clock && clock - stamp < 64);
    }
}
