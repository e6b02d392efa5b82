use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const THEM: Ip = Ip::v4([198, 51, 100, 1]);
const THEM6: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");
const NOW: Instant = Instant(1_000_000_000);
const ETHERNET: Known = Known { mtu: 1500, may_fragment: false };

fn minutes(count: u64) -> Instant {
    NOW + Duration::from_secs(count * 60)
}

#[test]
fn a_message_never_raises() {
    for mtu in [1500, 1501, 9000, 65_536, u32::MAX] {
        assert_eq!(ETHERNET.after(TooBig::V4 { mtu }), None, "{mtu}");
        assert_eq!(ETHERNET.after(TooBig::V6 { mtu }), None, "{mtu}");
    }
    assert_eq!(ETHERNET.after(TooBig::V4 { mtu: 1499 }), Some(Known { mtu: 1499, may_fragment: false }));
}

#[test]
fn ipv6_never_goes_below_its_minimum_link_mtu() {
    assert_eq!(ETHERNET.after(TooBig::V6 { mtu: 1279 }), None, "it must discard it");
    assert_eq!(ETHERNET.after(TooBig::V6 { mtu: 1280 }), Some(Known { mtu: 1280, may_fragment: false }));
}

#[test]
fn ipv4_stops_at_552_and_lets_routers_fragment() {
    let floor = Known { mtu: 552, may_fragment: true };
    for mtu in [0, 67, 68, 551] {
        assert_eq!(ETHERNET.after(TooBig::V4 { mtu }), Some(floor), "{mtu}");
    }
    assert_eq!(ETHERNET.after(TooBig::V4 { mtu: 552 }), Some(Known { mtu: 552, may_fragment: false }));
    assert_eq!(floor.after(TooBig::V4 { mtu: 0 }), None, "nothing new");
    let small = Known { mtu: 296, may_fragment: false };
    assert_eq!(small.after(TooBig::V4 { mtu: 100 }), Some(Known { mtu: 296, may_fragment: true }));
}

#[test]
fn what_was_told_is_forgotten_after_ten_minutes() {
    let mut places = [Path::default(); 8];
    let mut cache = Cache::new(&mut places);
    let told = cache.hear(&THEM, 5, 1500, TooBig::V4 { mtu: 1400 }, NOW);
    assert_eq!(told, Some(Known { mtu: 1400, may_fragment: false }));
    assert_eq!(cache.known(&THEM, 5, 1500, minutes(9)).mtu, 1400);
    assert_eq!(cache.known(&THEM, 5, 1300, minutes(9)).mtu, 1300, "the link's own counts too");
    assert_eq!(cache.known(&THEM, 5, 1500, minutes(10)), ETHERNET);
    let again = cache.hear(&THEM, 5, 1500, TooBig::V4 { mtu: 1450 }, minutes(11));
    assert_eq!(
        again,
        Some(Known { mtu: 1450, may_fragment: false }),
        "larger than the one that is forgotten"
    );
}

#[test]
fn a_message_is_of_the_version_that_it_is_about() {
    let mut places = [Path::default(); 4];
    let mut cache = Cache::new(&mut places);
    assert_eq!(cache.hear(&THEM6, 1, 1500, TooBig::V4 { mtu: 600 }, NOW), None);
    assert_eq!(cache.hear(&THEM, 1, 1500, TooBig::V6 { mtu: 1300 }, NOW), None);
}

#[test]
fn a_flood_displaces_what_is_forgotten_soonest() {
    let mut places = [Path::default(); 4];
    let mut cache = Cache::new(&mut places);
    for last in 0..5 {
        let ip = Ip::v4([192, 0, 2, last]);
        assert!(cache.hear(&ip, 0, 1500, TooBig::V4 { mtu: 1400 }, minutes(last.into())).is_some());
    }
    let mtu = |cache: &mut Cache<'_>, last| cache.known(&Ip::v4([192, 0, 2, last]), 0, 1500, minutes(5)).mtu;
    assert_eq!([0, 1, 2, 3, 4].map(|last| mtu(&mut cache, last)), [1500, 1400, 1400, 1400, 1400]);
    cache.forget(&Ip::v4([192, 0, 2, 1]), 0);
    assert_eq!(mtu(&mut cache, 1), 1500);
}

#[test]
fn nothing_is_believed_for_longer_than_ten_minutes_and_ipv6_is_never_fragmented() {
    let place = Path { until: u64::MAX, ip: THEM6, mtu: 1400, may_fragment: 1, padding: 0 };
    let mut places = [place; 4];
    assert_eq!(Cache::new(&mut places).known(&THEM6, 0, 1500, NOW), ETHERNET);
    places[0].until = minutes(1).0;
    let known = Cache::new(&mut places).known(&THEM6, 0, 1500, NOW);
    assert_eq!(known, Known { mtu: 1400, may_fragment: false });
}

#[test]
fn a_cache_without_places_knows_nothing() {
    let mut cache = Cache::new(&mut []);
    assert_eq!(cache.hear(&THEM, 7, 1500, TooBig::V4 { mtu: 1400 }, NOW), None);
    assert_eq!(cache.known(&THEM, 7, 1500, NOW), ETHERNET);
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// Few destinations, so that nothing is displaced.
    #[test]
    fn a_cache_is_a_map_that_forgets(acts in proptest::collection::vec((0u8..4, 0u32..2000, 0u64..400), 0..100)) {
        let mut places = [Path::default(); 4];
        let mut cache = Cache::new(&mut places);
        let mut model: BTreeMap<u8, (Instant, Known)> = BTreeMap::new();
        let mut now = NOW;
        for (last, mtu, seconds) in acts {
            now = now + Duration::from_secs(seconds);
            model.retain(|_, (until, _)| *until > now);
            let ip = Ip::v4([192, 0, 2, last]);
            let before = model.get(&last).map_or(ETHERNET, |(_, known)| *known);
            let after = before.after(TooBig::V4 { mtu });
            prop_assert_eq!(cache.hear(&ip, 9, 1500, TooBig::V4 { mtu }, now), after);
            if let Some(known) = after {
                model.insert(last, (now + LIFETIME, known));
            }
            for last in 0..4 {
                let expected = model.get(&last).map_or(ETHERNET, |(_, known)| *known);
                prop_assert_eq!(cache.known(&Ip::v4([192, 0, 2, last]), 9, 1500, now), expected);
            }
        }
    }

    #[test]
    fn whatever_is_told_the_estimate_stays_within_floor_and_route(
        words in proptest::collection::vec((any::<u64>(), any::<u16>(), any::<u16>()), 0..9), mtu: u32, hash: u32, now: u64, v6: bool,
    ) {
        let ip = if v6 { THEM6 } else { THEM };
        let place = |(until, mtu, may_fragment)| Path { until, ip, mtu, may_fragment, padding: 0 };
        let mut places: Vec<Path> = words.into_iter().map(place).collect();
        let mut cache = Cache::new(&mut places);
        let message = if v6 { TooBig::V6 { mtu } } else { TooBig::V4 { mtu } };
        let _ = cache.hear(&ip, hash, 1500, message, Instant(now));
        let known = cache.known(&ip, hash, 1500, Instant(now));
        prop_assert!((floor(&ip)..=1500).contains(&known.mtu), "{:?}", known);
        prop_assert!(!(v6 && known.may_fragment));
    }
}
