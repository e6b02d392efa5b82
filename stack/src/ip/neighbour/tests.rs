use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const THEM: Ip = Ip::v4([192, 0, 2, 2]);
const LINK: Address = Address([2, 0, 0, 0, 0, 2]);
const OTHER: Address = Address([2, 0, 0, 0, 0, 9]);
const START: Instant = Instant(1_000_000_000_000);
const ANSWER: Kind = Kind::Answer { solicited: true, overrides: true, router: None };
const UNASKED: Kind = Kind::Answer { solicited: false, overrides: true, router: None };
const ASK: Resolution = Resolution::Waits { before: None, solicit: true };

fn at(ms: u64) -> Instant {
    START + Duration::from_millis(ms)
}

fn claim(kind: Kind, link: Address) -> Claim {
    Claim { ip: THEM, link: Some(link), kind }
}

struct World {
    state: Neighbours,
    records: Vec<Neighbour>,
    places: Vec<Place>,
    wheel: Wheel,
}

impl World {
    fn new(records: usize) -> Self {
        Self {
            state: Neighbours::default(),
            records: vec![Neighbour::default(); records],
            places: vec![Place::default(); Table::places_for(records as u32)],
            wheel: Wheel::default(),
        }
    }

    fn cache(&mut self) -> Cache<'_> {
        let settings = Settings::default();
        Cache::new(&mut self.state, &mut self.records, &mut self.places, &mut self.wheel, settings)
    }

    /// With one that has just answered.
    fn reachable() -> Self {
        let mut world = Self::new(4);
        assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
        assert_eq!(world.cache().hear(&claim(ANSWER, LINK), 1, at(0)), Heard::Ready(7, LINK));
        world
    }

    fn poll(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        assert!(!self.cache().poll(now, 100, |one| due.push(one)));
        assert_eq!(self.cache().check(), Ok(()));
        due
    }

    fn is(&mut self) -> (State, Option<Address>) {
        let mut cache = self.cache();
        let found = cache.find(&THEM, 1).expect("an entry");
        (found.state(), found.link())
    }

    fn sends(&mut self, now: Instant) -> Option<Address> {
        match self.cache().resolve(&THEM, 1, 9, now) {
            Resolution::Link(link, _) => Some(link),
            _ => None,
        }
    }
}

#[test]
fn one_packet_waits_the_latest_and_goes_when_the_answer_comes() {
    let mut world = World::new(4);
    assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
    assert_eq!(world.is(), (State::Incomplete, None));
    let second = world.cache().resolve(&THEM, 1, 8, at(1));
    assert_eq!(second, Resolution::Waits { before: Some(7), solicit: false });
    assert_eq!(world.cache().hear(&claim(ANSWER, LINK), 1, at(2)), Heard::Ready(8, LINK));
    assert_eq!((world.is(), world.sends(at(3))), ((State::Reachable, Some(LINK)), Some(LINK)));
}

#[test]
fn who_does_not_answer_three_questions_has_failed_and_is_asked_anew() {
    let mut world = World::new(4);
    assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
    assert_eq!(world.poll(at(900)), []);
    assert_eq!(world.poll(at(1002)), [Due::Solicit(THEM, None)]);
    assert_eq!(world.poll(at(2005)), [Due::Solicit(THEM, None)]);
    assert_eq!(world.poll(at(3010)), [Due::Failed(THEM, Some(7))]);
    assert_eq!((world.is(), world.cache().deadline()), ((State::Failed, None), None));
    assert_eq!(world.cache().hear(&claim(ANSWER, LINK), 1, at(3100)), Heard::Nothing, "too late");
    assert_eq!(world.cache().resolve(&THEM, 1, 8, at(3200)), ASK);
}

#[test]
fn an_entry_that_is_old_is_used_then_probed_then_fails() {
    let mut world = World::reachable();
    assert_eq!(world.sends(at(29_999)), Some(LINK));
    assert_eq!(world.is().0, State::Reachable);
    assert_eq!(world.sends(at(30_000)), Some(LINK));
    assert_eq!(world.is().0, State::Delay);
    assert_eq!(world.poll(at(34_900)), []);
    assert_eq!(world.poll(at(35_002)), [Due::Solicit(THEM, Some(LINK))]);
    assert_eq!((world.is().0, world.sends(at(35_003))), (State::Probe, Some(LINK)));
    assert_eq!(world.poll(at(36_005)), [Due::Solicit(THEM, Some(LINK))]);
    assert_eq!(world.poll(at(37_010)), [Due::Solicit(THEM, Some(LINK))]);
    assert_eq!(world.poll(at(38_015)), [Due::Failed(THEM, None)]);
}

#[test]
fn who_is_fed_uses_what_is_said_and_tells_of_what_was_stale() {
    let mut world = World::new(4);
    let settings = Settings { is_fed: true, ..Settings::default() };
    let World { state, records, places, wheel } = &mut world;
    let mut cache = Cache::new(state, records, places, wheel, settings);
    for (state, is_told) in [(State::Reachable, false), (State::Stale, true), (State::Delay, false)] {
        assert_eq!(cache.set(&THEM, 1, Some(LINK), state, at(0)), Ok(Heard::Nothing));
        let (index, link) = cache.keep(&THEM, 1).expect("its link address");
        let asks = cache.state.asks();
        cache.used(index, None, at(1));
        cache.used(index, Some(at(2)), at(2));
        let record = cache.find(&THEM, 1).expect("an entry");
        assert_eq!((link, record.is_unconfirmed(), record.link()), (LINK, is_told, Some(LINK)), "{state:?}");
        assert_eq!(cache.state.asks() != asks, is_told);
        cache.told(&THEM, 1);
        assert!(!cache.find(&THEM, 1).expect("an entry").is_unconfirmed());
    }
    assert_eq!(cache.set(&THEM, 1, Some(LINK), State::Probe, at(10)), Ok(Heard::Nothing));
    assert!(!cache.poll(at(100_000), 100, |due| panic!("its own clock runs: {due:?}")));
    let asks = cache.state.asks();
    assert_eq!(cache.resolve(&Ip::v4([192, 0, 2, 3]), 2, 7, at(100_000)), ASK);
    assert_ne!(cache.state.asks(), asks, "whom nothing is known of");
}

#[test]
fn nobody_is_probed_to_whom_nothing_is_sent() {
    let mut world = World::reachable();
    assert_eq!((world.poll(at(3_600_000)), world.is().0), (vec![], State::Reachable));
    assert_eq!(world.sends(at(3_600_001)), Some(LINK));
    assert_eq!(world.is().0, State::Delay);
}

#[test]
fn progress_above_saves_the_probe() {
    let mut world = World::reachable();
    let Resolution::Link(_, handle) = world.cache().resolve(&THEM, 1, 9, at(30_000)) else { panic!("known") };
    assert_eq!(world.is().0, State::Delay);
    world.cache().confirm(handle, &THEM, at(31_000));
    assert_eq!((world.is().0, world.poll(at(40_000))), (State::Reachable, vec![]));
    assert_eq!(world.cache().resolve_known(handle, &THEM, at(41_000)), Some(LINK));
    assert_eq!(world.cache().resolve_known(handle, &Ip::UNSPECIFIED, at(41_000)), None);
}

#[test]
fn an_answer_to_a_probe_confirms() {
    let mut world = World::reachable();
    assert_eq!(world.sends(at(30_000)), Some(LINK));
    assert_eq!(world.poll(at(35_002)), [Due::Solicit(THEM, Some(LINK))]);
    let silent = Claim { link: None, ..claim(ANSWER, LINK) };
    assert_eq!(world.cache().hear(&silent, 1, at(35_100)), Heard::Nothing);
    assert_eq!(world.is(), (State::Reachable, Some(LINK)));
    assert_eq!(world.poll(at(60_000)), []);
}

#[test]
fn an_answer_that_nobody_asked_for_makes_no_entry() {
    let mut world = World::new(4);
    for kind in [ANSWER, UNASKED] {
        assert_eq!(world.cache().hear(&claim(kind, LINK), 1, at(0)), Heard::Nothing);
    }
    assert_eq!(world.state.slab.used(), 0);
}

#[test]
fn a_link_address_that_is_known_changes_only_by_an_answer_to_a_question() {
    for kind in [ANSWER, UNASKED, Kind::Question] {
        let mut world = World::reachable();
        assert_eq!(world.cache().hear(&claim(kind, OTHER), 1, at(500)), Heard::Nothing, "just confirmed");
        assert_eq!(world.is(), (State::Reachable, Some(LINK)));
        assert_eq!(world.cache().hear(&claim(kind, OTHER), 1, at(5000)), Heard::Verify(THEM, LINK));
        assert_eq!(world.is(), (State::Probe, Some(LINK)), "it is asked, not believed");
        assert_eq!(world.cache().hear(&claim(UNASKED, OTHER), 1, at(5001)), Heard::Nothing, "once");
        assert_eq!(world.cache().hear(&claim(ANSWER, LINK), 1, at(5002)), Heard::Nothing);
        assert_eq!(world.is(), (State::Reachable, Some(LINK)), "it is still there");
    }
}

#[test]
fn after_a_failover_the_new_one_is_found_within_four_seconds() {
    let mut world = World::reachable();
    assert_eq!(world.cache().hear(&claim(UNASKED, OTHER), 1, at(5000)), Heard::Verify(THEM, LINK));
    let mut due = Vec::new();
    for ms in [6002, 7005, 8010] {
        due.extend(world.poll(at(ms)));
    }
    assert_eq!(due.last(), Some(&Due::Failed(THEM, None)));
    assert_eq!(world.cache().resolve(&THEM, 1, 3, at(8100)), ASK);
    assert_eq!(world.cache().hear(&claim(ANSWER, OTHER), 1, at(8101)), Heard::Ready(3, OTHER));
}

#[test]
fn an_answer_that_does_not_override_changes_nothing_even_when_asked() {
    let mut world = World::reachable();
    assert_eq!(world.cache().hear(&claim(UNASKED, OTHER), 1, at(5000)), Heard::Verify(THEM, LINK));
    let timid = Kind::Answer { solicited: true, overrides: false, router: None };
    assert_eq!(world.cache().hear(&claim(timid, OTHER), 1, at(5001)), Heard::Nothing);
    assert_eq!(world.is(), (State::Probe, Some(LINK)));
    assert_eq!(world.cache().hear(&claim(ANSWER, OTHER), 1, at(5002)), Heard::Nothing);
    assert_eq!(world.is(), (State::Reachable, Some(OTHER)));
}

#[test]
fn an_unsolicited_answer_while_we_ask_is_taken_as_stale() {
    let mut world = World::new(4);
    assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
    let router = Kind::Answer { solicited: false, overrides: false, router: Some(true) };
    let silent = Claim { link: None, ..claim(router, LINK) };
    assert_eq!(world.cache().hear(&silent, 1, at(1)), Heard::Nothing, "without a link address");
    assert_eq!(world.cache().hear(&claim(router, LINK), 1, at(1)), Heard::Ready(7, LINK));
    assert_eq!(world.is().0, State::Stale);
    assert!(world.cache().find(&THEM, 1).expect("an entry").is_router());
}

#[test]
fn groups_and_nothing_are_no_link_addresses() {
    let mut world = World::new(4);
    assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
    for link in [Address::BROADCAST, Address([1, 0, 0x5e, 0, 0, 1]), Address::default()] {
        assert_eq!(world.cache().hear(&claim(ANSWER, link), 1, at(1)), Heard::Nothing);
    }
    assert_eq!(world.is().0, State::Incomplete);
}

#[test]
fn who_asks_us_is_known_and_a_flood_of_questions_displaces_nobody_we_talk_to() {
    let mut world = World::reachable();
    let ask = |world: &mut World, last: u8| {
        let claim = Claim { ip: Ip::v4([10, 0, 0, last]), link: Some(OTHER), kind: Kind::Question };
        assert_eq!(world.cache().hear(&claim, 100 + u32::from(last), at(10)), Heard::Nothing);
    };
    (0..50).for_each(|last| ask(&mut world, last));
    assert_eq!((world.is(), world.state.slab.used()), ((State::Reachable, Some(LINK)), 4));
    // Ours take the places of strangers, until all are ours.
    for last in 0..3 {
        let ip = Ip::v4([192, 0, 2, 100 + last]);
        assert_eq!(world.cache().resolve(&ip, 200 + u32::from(last), 1, at(20)), ASK);
    }
    assert_eq!(world.is(), (State::Reachable, Some(LINK)), "the least missed went first");
    ask(&mut world, 60);
    assert_eq!(world.cache().find(&Ip::v4([10, 0, 0, 60]), 160), None);
    assert_eq!(world.cache().check(), Ok(()));
}

#[test]
fn whom_we_talk_to_stays_though_nobody_knows_whether_he_is_there() {
    let mut world = World::new(2);
    assert_eq!(world.cache().resolve(&THEM, 1, 7, at(0)), ASK);
    assert_eq!(world.cache().hear(&claim(UNASKED, LINK), 1, at(1)), Heard::Ready(7, LINK));
    for last in 0..5 {
        let claim = Claim { ip: Ip::v4([10, 0, 0, last]), link: Some(OTHER), kind: Kind::Question };
        assert_eq!(world.cache().hear(&claim, 100 + u32::from(last), at(10)), Heard::Nothing);
    }
    assert_eq!(world.is(), (State::Stale, Some(LINK)));
    assert_eq!(world.cache().resolve(&Ip::v4([192, 0, 2, 3]), 5, 1, at(20)), ASK);
    assert_eq!(world.is(), (State::Stale, Some(LINK)), "strangers go first for ours too");
}

#[test]
fn a_stranger_who_changes_costs_us_no_question() {
    let mut world = World::new(4);
    assert_eq!(world.cache().hear(&claim(Kind::Question, LINK), 1, at(0)), Heard::Nothing);
    assert_eq!(world.is(), (State::Stale, Some(LINK)));
    assert_eq!(world.cache().hear(&claim(Kind::Question, OTHER), 1, at(2000)), Heard::Nothing);
    assert_eq!((world.is(), world.poll(at(9000))), ((State::Stale, Some(OTHER)), vec![]));
}

#[test]
fn when_all_wait_for_answers_there_is_no_room() {
    let mut world = World::new(2);
    for last in 0..2 {
        assert_eq!(world.cache().resolve(&Ip::v4([192, 0, 2, last]), last.into(), 1, at(0)), ASK);
    }
    assert_eq!(world.cache().resolve(&THEM, 9, 1, at(1)), Resolution::Full);
}

#[test]
fn the_owner_is_believed() {
    let mut world = World::reachable();
    let mut set = |link, state, ms| world.cache().set(&THEM, 1, link, state, at(ms));
    assert_eq!(set(Some(OTHER), State::Permanent, 10), Ok(Heard::Nothing));
    assert_eq!(world.is(), (State::Permanent, Some(OTHER)));
    assert_eq!(world.cache().hear(&claim(ANSWER, LINK), 1, at(90_000)), Heard::Nothing);
    assert_eq!((world.sends(at(90_001)), world.poll(at(200_000))), (Some(OTHER), vec![]));
    assert_eq!(world.cache().set(&THEM, 1, None, State::Failed, at(200_001)), Err(None));
    assert_eq!(world.cache().resolve(&THEM, 1, 5, at(200_002)), ASK);
    assert_eq!(world.cache().set(&THEM, 1, None, State::Incomplete, at(200_002)), Ok(Heard::Nothing));
    let ready = world.cache().set(&THEM, 1, Some(LINK), State::Reachable, at(200_003));
    assert_eq!(ready, Ok(Heard::Ready(5, LINK)));
    assert_eq!(world.cache().remove(&THEM, 1), None);
    assert_eq!((world.state.slab.used(), world.cache().check()), (0, Ok(())));
    assert_eq!(world.cache().resolve(&THEM, 1, 6, at(200_004)), ASK);
    assert_eq!(world.cache().remove(&THEM, 1), Some(6));
}

#[test]
fn the_reachable_time_is_between_a_half_and_one_and_a_half() {
    let base = Duration::from_secs(30);
    assert_eq!(reachable_time(base, 0), Duration::from_secs(15));
    assert_eq!(reachable_time(base, 1 << 31), base);
    assert!(reachable_time(base, u32::MAX) < Duration::from_secs(45));
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// Every frame that goes in comes out once: sent, dropped, failed or removed. Nothing is sent to a link address that nobody claimed.
    #[test]
    fn no_frame_is_lost_and_none_comes_twice(acts in proptest::collection::vec((0u8..7, 0u8..6, 0u64..4000, 0u8..3), 0..200)) {
        let (mut world, mut now, mut held) = (World::new(4), 0, BTreeSet::new());
        for (frame, (act, last, ms, link)) in acts.into_iter().enumerate() {
            now += ms;
            let (ip, hash, frame) = (Ip::v4([192, 0, 2, last]), u32::from(last % 2), frame as u32);
            let link = Address([2, 0, 0, 0, last, link]);
            let kinds = [ANSWER, UNASKED, Kind::Question];
            let mut out = Vec::new();
            match act {
                0 | 1 => match world.cache().resolve(&ip, hash, frame, at(now)) {
                    Resolution::Link(to, _) => prop_assert_eq!(to.0[4], last),
                    Resolution::Waits { before, .. } => {
                        held.insert(frame);
                        out.extend(before);
                    }
                    Resolution::Full => {}
                },
                2..=4 => {
                    let claim = Claim { ip, link: Some(link), kind: kinds[usize::from(act) - 2] };
                    if let Heard::Ready(frame, to) = world.cache().hear(&claim, hash, at(now)) {
                        prop_assert_eq!(to, link);
                        out.push(frame);
                    }
                }
                5 => out.extend(world.cache().remove(&ip, hash)),
                _ => {}
            }
            for due in world.poll(at(now)) {
                if let Due::Failed(_, Some(frame)) = due {
                    out.push(frame);
                }
            }
            for frame in out {
                prop_assert!(held.remove(&frame), "{} comes out and isn't in", frame);
            }
            prop_assert_eq!(world.records.iter().filter(|record| record.tag.is_used() && record.pending != 0).count(), held.len());
            prop_assert_eq!(world.cache().check(), Ok(()));
        }
        for later in 1..6 {
            for due in world.poll(at(now + later * 2000)) {
                if let Due::Failed(_, Some(frame)) = due {
                    prop_assert!(held.remove(&frame));
                }
            }
        }
        prop_assert!(held.is_empty(), "what waits, waits three seconds");
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 2000), small: bool, now: u64) {
        let bytes: Vec<u8> = if small { bytes.iter().enumerate().map(|(at, byte)| if at % 4 == 0 { byte % 5 } else { 0 }).collect() } else { bytes };
        fn read<T: FromBytes>(rest: &mut &[u8]) -> T {
            let (value, behind) = T::read_from_prefix(rest).expect("enough");
            *rest = behind;
            value
        }
        let (mut rest, mut world) = (&bytes[..], World::new(4));
        world.state = read(&mut rest);
        world.records.fill_with(|| read(&mut rest));
        world.places.fill_with(|| read(&mut rest));
        world.wheel = read(&mut rest);
        let ips: Vec<Ip> = world.records.iter().map(|record| record.ip).chain([THEM]).collect();
        for (hash, ip) in (0u32..).zip(ips) {
            let hash = world.records.get(hash as usize).map_or(hash, |record| record.hash);
            let mut cache = world.cache();
            if let Resolution::Link(_, handle) = cache.resolve(&ip, hash, 1, Instant(now)) {
                let _ = cache.resolve_known(handle, &ip, Instant(now));
                cache.confirm(handle, &ip, Instant(now));
            }
            for kind in [ANSWER, UNASKED, Kind::Question] {
                let _ = cache.hear(&Claim { ip, link: Some(OTHER), kind }, hash, Instant(now));
            }
            let _ = cache.poll(Instant(now), 50, |_| ());
            let _ = (cache.check(), cache.deadline(), cache.set(&ip, hash, Some(LINK), State::Probe, Instant(now)), cache.remove(&ip, hash));
        }
    }
}
