//! What routers hear of joins, leaves and changes of filters, in the words of each version, and when they ask.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::teller::{About, Due, Place};
use super::*;
use crate::time::Duration;
use crate::wire::checksum::Sum;
use crate::wire::igmp::{self, Kind, Message, Query, Report, Word};

const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
const OTHER: Ip = Ip::v4([239, 1, 2, 4]);
const NOW: Instant = Instant(1_000_000_000);
const HALF: u32 = 1 << 31;

fn later(ms: u64) -> Instant {
    NOW + Duration::from_millis(ms)
}

fn source(number: u8) -> Ip {
    Ip::v4([198, 51, 100, number])
}

/// A record as a router reads it.
type Heard = (u8, Ip, BTreeSet<u8>);

#[derive(Default)]
struct World {
    groups: Vec<Group>,
    sources: Vec<Source>,
    slab: Slab,
    tellers: [Teller; 2],
}

impl World {
    fn new(groups: usize, sources: usize) -> Self {
        let (groups, sources) = (vec![Group::default(); groups], vec![Source::default(); sources]);
        Self { groups, sources, ..Self::default() }
    }

    fn all(&mut self) -> Groups<'_> {
        let Self { groups, sources, slab, tellers } = self;
        Groups { groups, sources, slab, tellers }
    }

    /// What one who listens to all but some, or to some alone, has chosen anew.
    fn choose(&mut self, ip: &Ip, filter: Filter, sources: &[u8], more: bool, now: Instant) {
        let mut all = self.all();
        all.begin(ip);
        sources.iter().for_each(|number| assert!(all.count(ip, filter, Some(&source(*number)), more)));
        all.end(ip, now);
    }

    /// The records of a report, in messages of so many bytes at most.
    fn write(&mut self, about: About, room: usize) -> Vec<Heard> {
        let (mut place, mut heard) = (Place::default(), Vec::new());
        loop {
            let mut bytes = vec![0; room];
            let mut report = Report::new(&mut bytes, true);
            let more = self.all().write(about, true, &mut place, &mut report);
            let is_empty = report.is_empty();
            let len = report.finish(&source(1));
            assert!(!(more && is_empty), "nothing, and again");
            if !is_empty {
                heard.extend(read(&bytes[..len]));
            }
            if !more {
                return heard;
            }
        }
    }

    /// What is told at this time, in the newest version.
    fn told(&mut self, now: Instant) -> Vec<Heard> {
        match self.all().take_due(true, now, HALF) {
            Some(Due::Report(about)) => self.write(about, 1000),
            Some(due) => panic!("{due:?}"),
            None => Vec::new(),
        }
    }

    fn ask(&mut self, query: &Query<'_>, now: Instant) {
        self.all().asked(query, true, now, || HALF);
    }
}

/// The records of a message of IGMPv3.
fn read(bytes: &[u8]) -> Vec<Heard> {
    assert!(bytes[0] == 0x22 && Sum::ZERO.bytes(bytes).holds());
    let (mut records, mut left) = (Vec::new(), &bytes[8..]);
    while let [kind, _, high, low, a, b, c, d, rest @ ..] = left {
        let (sources, rest) = rest.split_at(4 * usize::from(u16::from_be_bytes([*high, *low])));
        records.push((*kind, Ip::v4([*a, *b, *c, *d]), sources.chunks(4).map(|source| source[3]).collect()));
        left = rest;
    }
    assert_eq!(records.len(), usize::from(bytes[7]));
    records
}

fn record(kind: Kind, ip: Ip, sources: &[u8]) -> Heard {
    (kind as u8, ip, sources.iter().copied().collect())
}

#[test]
fn a_change_is_told_twice_and_only_the_first_and_last_listener_make_one() {
    let mut world = World::new(2, 4);
    assert!(world.all().join(&GROUP, Filter::Exclude, NOW) && world.all().join(&GROUP, Filter::Exclude, NOW));
    assert!(listens(&world.groups, &GROUP) && world.all().next() == Some(NOW));
    for (at, next) in [(0, Some(later(500))), (500, None)] {
        assert_eq!(world.told(later(at)), [record(Kind::ToExclude, GROUP, &[])]);
        assert_eq!((world.told(later(at)), world.all().next()), (vec![], next));
    }
    let leave = |world: &mut World| world.all().leave(&GROUP, Filter::Exclude, NOW);
    assert!(leave(&mut world) && world.all().next().is_none());
    assert!(leave(&mut world) && !leave(&mut world) && !listens(&world.groups, &GROUP));
    for at in [0, 500] {
        assert_eq!(world.told(later(at)), [record(Kind::ToInclude, GROUP, &[])]);
    }
    assert_eq!((world.all().next(), world.groups), (None, vec![Group::default(); 2]));
}

/// RFC 3376 §5.1's table, row for row.
#[test]
fn each_change_of_a_filter_has_its_records() {
    let mut world = World::new(2, 8);
    assert!(world.all().join(&GROUP, Filter::Include, NOW));
    world.choose(&GROUP, Filter::Include, &[1, 2], true, NOW);
    for at in [0, 500] {
        assert_eq!(world.told(later(at)), [record(Kind::Allow, GROUP, &[1, 2])]);
    }
    // INCLUDE (A) to INCLUDE (B): ALLOW (B-A), BLOCK (A-B).
    let now = later(1000);
    let mut all = world.all();
    all.begin(&GROUP);
    all.count(&GROUP, Filter::Include, Some(&source(3)), true);
    all.count(&GROUP, Filter::Include, Some(&source(1)), false);
    all.end(&GROUP, now);
    for at in [1000, 1500] {
        let expected = [record(Kind::Allow, GROUP, &[3]), record(Kind::Block, GROUP, &[1])];
        assert_eq!(world.told(later(at)), expected);
    }
    // INCLUDE (A) to EXCLUDE (B): TO_EX (B). Who listens to source 2 lets it through for all.
    assert!(world.all().join(&GROUP, Filter::Exclude, later(2000)));
    world.choose(&GROUP, Filter::Exclude, &[2, 9], true, later(2000));
    assert_eq!(world.told(later(2000)), [record(Kind::ToExclude, GROUP, &[9])]);
    // EXCLUDE (A) to EXCLUDE (B): ALLOW (A-B), BLOCK (B-A), while the other change is told once more: that says all.
    world.choose(&GROUP, Filter::Exclude, &[8], true, later(2100));
    assert_eq!(world.told(later(2100)), [record(Kind::ToExclude, GROUP, &[8, 9])]);
    assert_eq!(world.told(later(2600)), [record(Kind::Block, GROUP, &[8])]);
    world.choose(&GROUP, Filter::Exclude, &[9], false, later(3000));
    world.choose(&GROUP, Filter::Exclude, &[7], true, later(3000));
    for at in [3000, 3500] {
        assert_eq!(
            world.told(later(at)),
            [record(Kind::Block, GROUP, &[7]), record(Kind::Allow, GROUP, &[9])]
        );
    }
    // EXCLUDE (A) to INCLUDE (B): TO_IN (B).
    let mut all = world.all();
    all.begin(&GROUP);
    for number in [2, 7, 8] {
        all.count(&GROUP, Filter::Exclude, Some(&source(number)), false);
    }
    all.leave_begun(&GROUP, Filter::Exclude, later(4000));
    for at in [4000, 4500] {
        assert_eq!(world.told(later(at)), [record(Kind::ToInclude, GROUP, &[2, 3])]);
    }
    // And who lets none through any more is told as a change of sources.
    let mut all = world.all();
    all.begin(&GROUP);
    for number in [2, 3] {
        all.count(&GROUP, Filter::Include, Some(&source(number)), false);
    }
    all.leave_begun(&GROUP, Filter::Include, later(5000));
    for at in [5000, 5500] {
        assert_eq!(world.told(later(at)), [record(Kind::Block, GROUP, &[2, 3])]);
    }
    assert_eq!((world.all().next(), world.slab.used(), world.groups), (None, 0, vec![Group::default(); 2]));
}

#[test]
fn a_question_is_answered_within_its_time_and_all_systems_never_told() {
    let mut world = World::new(3, 4);
    assert!(world.all().join(&ALL_SYSTEMS, Filter::Exclude, NOW) && world.all().next().is_none());
    assert!(world.all().join(&GROUP, Filter::Exclude, NOW) && world.all().join(&OTHER, Filter::Include, NOW));
    assert!(!world.all().join(&ALL_NODES, Filter::Exclude, NOW), "full");
    world.choose(&OTHER, Filter::Include, &[1, 2, 3], true, NOW);
    world.choose(&GROUP, Filter::Exclude, &[5], true, NOW);
    assert_eq!((world.told(later(0)).len(), world.told(later(500)).len()), (2, 2));
    let general = Query::new(None, Duration::from_secs(10), Version::V3);
    world.ask(&general, NOW);
    assert_eq!(world.all().next(), Some(later(5000)));
    // One that wants it later changes nothing; one for a group is answered by itself.
    world.ask(&Query::new(None, Duration::from_secs(20), Version::V3), NOW);
    world.ask(&Query::new(Some(GROUP), Duration::from_secs(1), Version::V3), NOW);
    world.all().asked(&general, false, NOW, || 0);
    assert_eq!(world.all().take_due(false, NOW, 0), Some(Due::Report(About::All)), "IPv6 is asked apart");
    assert_eq!(world.all().next(), Some(later(500)));
    assert_eq!(world.told(later(500)), [record(Kind::Excludes, GROUP, &[5])]);
    let all = [record(Kind::Excludes, GROUP, &[5]), record(Kind::Includes, OTHER, &[1, 2, 3])];
    assert_eq!(world.told(later(5000)), all);
    assert_eq!(world.all().next(), None);
}

/// RFC 3376 §5.2, §6.2 of its table: of some sources those are told that are let through.
#[test]
fn a_question_for_sources_is_answered_for_these() {
    let asked = |group: Ip, sources: &[u8]| {
        let mut bytes = vec![0x11, 10, 0, 0];
        bytes.extend_from_slice(&group.as_v4().expect("IPv4"));
        bytes.extend_from_slice(&[2, 125, 0, sources.len() as u8]);
        sources.iter().for_each(|number| bytes.extend_from_slice(&[198, 51, 100, *number]));
        let sum = Sum::ZERO.bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let mut world = World::new(2, 8);
    assert!(world.all().join(&GROUP, Filter::Exclude, NOW) && world.all().join(&OTHER, Filter::Include, NOW));
    world.choose(&OTHER, Filter::Include, &[1, 2, 3], true, NOW);
    world.choose(&GROUP, Filter::Exclude, &[5, 6], true, NOW);
    for at in [0, 500] {
        assert_eq!(world.told(later(at)).len(), 2);
    }
    let rows: [(Ip, &[u8], Option<Heard>); 6] = [
        (OTHER, &[2, 3, 4], Some(record(Kind::Includes, OTHER, &[2, 3]))),
        (OTHER, &[4, 5], None),
        (GROUP, &[5], None),
        (GROUP, &[6, 5], None),
        (GROUP, &[5, 7], Some(record(Kind::Excludes, GROUP, &[5, 6]))),
        (Ip::v4([239, 9, 9, 9]), &[1], None),
    ];
    for (at, (group, sources, expected)) in rows.into_iter().enumerate() {
        let (bytes, now) = (asked(group, sources), later(10_000 * (at as u64 + 1)));
        let Ok(Some(Message::Query(query))) = igmp::parse(&bytes) else { panic!("a query") };
        world.ask(&query, now);
        assert_eq!(world.all().next(), expected.as_ref().map(|_| now + Duration::from_millis(500)));
        let heard = world.told(now + Duration::from_millis(500));
        assert_eq!(heard, expected.into_iter().collect::<Vec<_>>(), "{group} {sources:?}");
    }
    // Sources of two questions are told together; a question for all of the group takes both in.
    let now = later(100_000);
    for sources in [[1], [3]] {
        let bytes = asked(OTHER, &sources);
        let Ok(Some(Message::Query(query))) = igmp::parse(&bytes) else { panic!("a query") };
        world.ask(&query, now);
    }
    assert_eq!(world.told(later(100_500)), [record(Kind::Includes, OTHER, &[1, 3])]);
    for bytes in [asked(OTHER, &[1]), asked(OTHER, &[]), asked(OTHER, &[2])] {
        let Ok(Some(Message::Query(query))) = igmp::parse(&bytes) else { panic!("a query") };
        world.ask(&query, later(200_000));
    }
    assert_eq!(world.told(later(200_500)), [record(Kind::Includes, OTHER, &[1, 2, 3])]);
}

#[test]
fn older_routers_are_told_in_their_words_as_long_as_they_are_there() {
    let mut world = World::new(2, 4);
    let mut v3 = Query::new(None, Duration::from_secs(4), Version::V3);
    v3.robustness = 3;
    world.ask(&v3, NOW);
    assert_eq!(world.told(later(2000)), [], "nobody listens");
    assert!(world.all().join(&GROUP, Filter::Exclude, NOW));
    world.ask(&Query::new(Some(OTHER), Duration::from_secs(2), Version::V2), NOW);
    // What was to be told of the change is for who speaks IGMPv3; and he is told again when somebody asks.
    assert_eq!(world.all().next(), None);
    assert!(world.all().join(&OTHER, Filter::Exclude, NOW));
    for (at, next) in [(0, Some(later(5000))), (5000, Some(later(10_000))), (10_000, None)] {
        assert_eq!(world.all().take_due(true, later(at), HALF), Some(Due::Word(Word::Listens, OTHER)));
        assert_eq!(world.all().next(), next, "as often as the robustness of routers says");
    }
    // RFC 2236 §3: who wasn't the last to report leaves without a word.
    assert!(world.all().leave(&GROUP, Filter::Exclude, NOW) && world.all().next().is_none());
    world.all().heard(&OTHER);
    assert!(world.all().leave(&OTHER, Filter::Exclude, NOW) && world.all().next().is_none());
    assert!(world.all().join(&OTHER, Filter::Exclude, later(20_000)));
    let due = world.all().take_due(true, later(20_000), HALF);
    assert_eq!(due, Some(Due::Word(Word::Listens, OTHER)));
    assert!(world.all().leave(&OTHER, Filter::Exclude, later(20_000)));
    let due = world.all().take_due(true, later(20_000), HALF);
    assert_eq!((due, world.all().next()), (Some(Due::Word(Word::Leaves, OTHER)), None));
    // One of IGMPv1 asks for all, and nobody leaves.
    assert!(world.all().join(&GROUP, Filter::Exclude, later(20_000)));
    world.ask(&Query::new(None, Duration::from_secs(10), Version::V1), later(20_000));
    let due = world.all().take_due(true, later(25_000), HALF);
    assert_eq!(due, Some(Due::Word(Word::ListensV1, GROUP)));
    assert!(world.all().leave(&GROUP, Filter::Exclude, later(25_000)) && world.all().next().is_none());
    // RFC 3376 §8.12: three times 125 s, and the four seconds that answers had.
    let until = 20_000 + 3 * 125_000 + 4000;
    let teller = world.tellers[1];
    assert_eq!((teller.version(later(until - 1)), teller.version(later(until))), (Version::V1, Version::V3));
    assert!(world.all().join(&GROUP, Filter::Exclude, later(until)));
    assert_eq!(world.told(later(until)), [record(Kind::ToExclude, GROUP, &[])]);
}

#[test]
fn who_comes_back_while_its_leaving_is_told_changes_its_filter() {
    let mut world = World::new(1, 4);
    assert!(
        world.all().join(&GROUP, Filter::Exclude, NOW) && world.all().leave(&GROUP, Filter::Exclude, NOW)
    );
    assert!(world.all().join(&GROUP, Filter::Include, NOW));
    world.choose(&GROUP, Filter::Include, &[4], true, NOW);
    for at in [0, 500] {
        assert_eq!(world.told(later(at)), [record(Kind::ToInclude, GROUP, &[4])]);
    }
    assert!(world.told(later(1000)).is_empty());
}

#[test]
fn counting_anew_changes_nothing_but_what_has_changed() {
    let mut world = World::new(2, 4);
    assert!(world.all().join(&GROUP, Filter::Include, NOW) && world.all().join(&OTHER, Filter::Exclude, NOW));
    world.choose(&GROUP, Filter::Include, &[1, 2], true, NOW);
    for at in [0, 500] {
        assert_eq!(world.told(later(at)).len(), 2);
    }
    let users = |ip: &Ip| if *ip == GROUP { [0, 1] } else { [1, 0] };
    let before = (world.groups.clone(), world.sources.clone());
    world.all().mend();
    world.all().recount(users, |_, _| [0, 1]);
    assert!(world.all().next().is_none() && world.groups == before.0);
    assert_eq!(world.sources.iter().map(|source| source.by_filter).max(), Some([0, 1]));
    // Who had chosen a source is dead, and who listened to all of the other group.
    world
        .all()
        .recount(|ip| if *ip == GROUP { [0, 1] } else { [0, 0] }, |_, ip| [0, u32::from(*ip == source(1))]);
    let expected = [record(Kind::Block, GROUP, &[2]), record(Kind::ToInclude, OTHER, &[])];
    assert_eq!(world.told(later(1000)), expected);
    // A list that has lost a member is made anew, and told whole.
    world.groups[0].sources = 0;
    world.all().mend();
    world.all().know(&GROUP, &source(1));
    world.all().recount(users, |_, _| [0, 1]);
    assert_eq!(check(&world.groups, &world.sources, world.slab.used()), Ok(()));
    assert_eq!(world.write(About::All, 1000), [record(Kind::Includes, GROUP, &[1])]);
}

#[test]
fn a_report_that_is_too_long_goes_in_several_and_what_excludes_is_cut() {
    let mut world = World::new(2, 40);
    assert!(world.all().join(&GROUP, Filter::Include, NOW) && world.all().join(&OTHER, Filter::Exclude, NOW));
    let numbers: Vec<u8> = (1..=15).collect();
    world.choose(&GROUP, Filter::Include, &numbers, true, NOW);
    world.choose(&OTHER, Filter::Exclude, &numbers, true, NOW);
    for at in [0, 500] {
        assert_eq!(world.all().take_due(true, later(at), HALF), Some(Due::Report(About::Changes)));
        // Room for seven sources of one record.
        let heard = world.write(About::Changes, 8 + 8 + 7 * 4);
        let of = |kind: Kind| heard.iter().filter(move |record| record.0 == kind as u8);
        let allowed: Vec<u8> = of(Kind::Allow).flat_map(|record| record.2.iter().copied()).collect();
        assert_eq!((of(Kind::Allow).count(), allowed.len()), (3, 15));
        assert_eq!(of(Kind::ToExclude).map(|record| record.2.len()).collect::<Vec<_>>(), [7]);
    }
    assert_eq!(world.write(About::All, 1000).len(), 2);
}

/// What one listener has chosen.
type Listener = (bool, BTreeSet<u8>);

/// What a router knows of a group (RFC 3376 §6.4): all but these, or these alone.
fn learn(known: &mut Listener, heard: &Heard) {
    let sources = heard.2.clone();
    match heard.0 {
        1 | 3 => *known = (false, sources),
        2 | 4 => *known = (true, sources),
        5 if known.0 => known.1 = &known.1 - &sources,
        5 => known.1.extend(sources),
        _ if known.0 => known.1.extend(sources),
        _ => known.1 = &known.1 - &sources,
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]

    /// However listeners come, change and go, a router that hears any of the two reports of each change knows what the interface wants.
    #[test]
    fn a_router_knows_what_all_want_together(
        acts in proptest::collection::vec((0usize..3, 0u8..4, 0u8..4, 0u8..3), 1..40), misses: bool,
    ) {
        let mut world = World::new(1, 16);
        let mut listeners: [Option<Listener>; 3] = Default::default();
        let mut known: Listener = (false, BTreeSet::new());
        let mut now = NOW;
        for (which, act, number, wait) in acts {
            let filter = |excludes: bool| if excludes { Filter::Exclude } else { Filter::Include };
            let listener = &mut listeners[which];
            match (act, listener.as_mut()) {
                (0 | 1, None) => {
                    prop_assert!(world.all().join(&GROUP, filter(act == 0), now));
                    *listener = Some((act == 0, BTreeSet::new()));
                }
                (0, Some((excludes, sources))) => {
                    let mut all = world.all();
                    all.begin(&GROUP);
                    for number in sources.iter() {
                        all.count(&GROUP, filter(*excludes), Some(&source(*number)), false);
                    }
                    all.leave_begun(&GROUP, filter(*excludes), now);
                    *listener = None;
                }
                (_, Some((excludes, sources))) => {
                    let adds = sources.insert(number) || !sources.remove(&number);
                    world.choose(&GROUP, filter(*excludes), &[number], adds, now);
                }
                _ => {}
            }
            // One report of each change arrives: the first or the second.
            if wait > 0 || misses {
                for round in 0..2 {
                    let heard = world.told(now);
                    if (round == 1) == misses {
                        heard.iter().for_each(|heard| learn(&mut known, heard));
                    }
                    now = now + Duration::from_secs(1);
                }
                prop_assert_eq!(world.all().next(), None);
                let all: Vec<&Listener> = listeners.iter().flatten().collect();
                let out: Vec<&BTreeSet<u8>> = all.iter().filter(|all| all.0).map(|all| &all.1).collect();
                let through: BTreeSet<u8> = all.iter().filter(|all| !all.0).flat_map(|all| all.1.clone()).collect();
                let expected = match out.split_first() {
                    None => (false, through),
                    Some((first, rest)) => {
                        let out = rest.iter().fold((*first).clone(), |all, next| &all & next);
                        (true, &out - &through)
                    }
                };
                prop_assert_eq!(&known, &expected);
            }
            prop_assert_eq!(check(&world.groups, &world.sources, world.slab.used()), Ok(()));
        }
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 4 * size_of::<Group>() + 8 * size_of::<Source>()), due in any::<[u64; 14]>()) {
        let (groups, sources) = bytes.split_at(4 * size_of::<Group>());
        let mut world = World {
            groups: groups.chunks(size_of::<Group>()).map(|bytes| Group::read_from_bytes(bytes).expect("any")).collect(),
            sources: sources.chunks(size_of::<Source>()).map(|bytes| Source::read_from_bytes(bytes).expect("any")).collect(),
            tellers: zerocopy::transmute!(due),
            ..World::default()
        };
        let group = world.groups[0].ip;
        for ip in [group, GROUP] {
            world.all().join(&ip, Filter::Include, NOW);
            world.choose(&ip, Filter::Include, &[], true, NOW);
            world.all().count(&ip, Filter::Exclude, Some(&source(1)), false);
            world.ask(&Query::new(Some(ip), Duration(u64::MAX), Version::V2), NOW);
            world.all().leave(&ip, Filter::Exclude, NOW);
        }
        for _ in 0..300 {
            for is_v4 in [true, false] {
                let _ = world.all().take_due(is_v4, Instant(u64::MAX), u32::MAX);
            }
        }
        let mut place = Place::default();
        for room in 0..60 {
            let mut bytes = vec![0; room];
            world.all().write(About::Changes, true, &mut place, &mut Report::new(&mut bytes, true));
        }
        let _ = check(&world.groups, &world.sources, world.slab.used());
        world.all().mend();
        prop_assert_eq!(check(&world.groups, &world.sources, world.slab.used()), Ok(()));
        world.all().know(&group, &source(1));
        world.all().recount(|_| [1, 1], |_, _| [1, 0]);
    }
}
