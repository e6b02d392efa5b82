use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const US: Ip = Ip::v4([192, 0, 2, 1]);
const THEM: Ip = Ip::v4([198, 51, 100, 1]);
const US6: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
const THEM6: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");
const NOW: Instant = Instant(1_000_000_000);

/// Records of a reassembly, and the frames that it gave back.
struct World {
    state: State,
    datagrams: Vec<Datagram>,
    pieces: Vec<Piece>,
    places: Vec<Place>,
    limits: Limits,
    freed: Vec<u32>,
}

impl World {
    fn new(datagrams: usize, pieces: usize, per_source: u32) -> Self {
        Self {
            state: State::default(),
            datagrams: vec![Datagram::default(); datagrams],
            pieces: vec![Piece::default(); pieces],
            places: vec![Place::default(); Table::places_for(datagrams as u32)],
            limits: Limits { per_source },
            freed: Vec::new(),
        }
    }

    fn all(&mut self) -> Reassembly<'_> {
        Reassembly::new(&mut self.state, &mut self.datagrams, &mut self.pieces, &mut self.places, self.limits)
    }

    fn receive_at(&mut self, arrived: &Arrived, now: Instant) -> Outcome {
        let mut freed = core::mem::take(&mut self.freed);
        let outcome = self.all().receive(arrived, now, &mut |frame| freed.push(frame));
        assert_eq!(self.all().check(), Ok(()));
        self.freed = freed;
        outcome
    }

    fn receive(&mut self, arrived: &Arrived) -> Outcome {
        self.receive_at(arrived, NOW)
    }

    fn expire(&mut self, now: Instant) -> Vec<Expired> {
        let (mut expired, mut freed) = (Vec::new(), core::mem::take(&mut self.freed));
        while self.all().expire(now, &mut |one| expired.push(*one), &mut |frame| freed.push(frame)).is_some()
        {
        }
        self.freed = freed;
        expired
    }
}

/// A fragment at bytes `start..end` of datagram `id`; its frame is 1000·id + start.
fn piece(id: u32, start: u16, end: u16, more: bool) -> Arrived {
    Arrived {
        source: THEM,
        destination: US,
        protocol: 17,
        fragment: Fragment { identification: id, offset: start, more },
        len: end - start,
        header_len: 20,
        ecn: 0,
        hash: id,
        frame: id * 1000 + u32::from(start),
        offset: 34,
    }
}

fn v6(arrived: Arrived) -> Arrived {
    Arrived { source: THEM6, destination: US6, header_len: 0, ..arrived }
}

#[test]
fn fragments_in_any_order_are_a_datagram() {
    let all = [piece(1, 0, 16, true), piece(1, 16, 24, true), piece(1, 24, 29, false)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = World::new(4, 8, 4);
        assert_eq!(world.receive(&all[order[0]]), Outcome::Kept);
        assert_eq!(world.receive(&all[order[1]]), Outcome::Kept);
        let Outcome::Whole(handle) = world.receive(&all[order[2]]) else { panic!("{order:?}") };
        let mut frames = Vec::new();
        let whole = world.all().take(handle, |piece| frames.push((piece.frame, piece.offset, piece.len)));
        let expected = Whole { source: THEM, destination: US, protocol: 17, len: 29, ecn: 0 };
        assert_eq!((whole, frames), (Some(expected), vec![(1000, 34, 16), (1016, 34, 8), (1024, 34, 5)]));
        assert_eq!((world.all().used(), world.freed.is_empty()), ((0, 0), true));
        assert_eq!(world.all().take(handle, |_| panic!("taken twice")), None);
    }
}

#[test]
fn an_overlap_ends_the_datagram_in_either_version() {
    for make in [|arrived| arrived, v6] {
        for (start, end, more) in [(0, 24, true), (8, 24, true), (8, 16, true), (8, 20, false)] {
            let mut world = World::new(4, 8, 4);
            assert_eq!(world.receive(&make(piece(1, 0, 16, true))), Outcome::Kept);
            let outcome = world.receive(&make(piece(1, start, end, more)));
            assert_eq!(outcome, Outcome::Refused(Why::Overlap), "{start}..{end}");
            assert_eq!((world.all().used(), world.freed.as_slice()), ((0, 0), &[1000][..]));
            assert!(world.expire(NOW + V6_TIMEOUT).is_empty(), "and no error is sent");
        }
    }
}

#[test]
fn a_duplicate_is_dropped_by_itself() {
    let mut world = World::new(4, 8, 4);
    assert_eq!(world.receive(&piece(1, 16, 32, true)), Outcome::Kept);
    assert_eq!(world.receive(&piece(1, 16, 32, true)), Outcome::Refused(Why::Duplicate));
    assert_eq!((world.all().used(), world.freed.is_empty()), ((1, 1), true));
}

#[test]
fn an_atomic_fragment_has_nothing_to_do_with_others() {
    let mut world = World::new(4, 8, 4);
    assert_eq!(world.receive(&v6(piece(1, 8, 16, true))), Outcome::Kept);
    assert_eq!(world.receive(&v6(piece(1, 0, 16, false))), Outcome::Atomic);
    assert_eq!(world.all().used(), (1, 1));
}

#[test]
fn fragments_that_disagree_about_the_end_end_the_datagram() {
    let cases = [
        [piece(1, 16, 24, false), piece(1, 24, 32, true)],
        [piece(1, 16, 24, false), piece(1, 32, 40, false)],
        [piece(1, 16, 24, true), piece(1, 8, 12, false)],
        [piece(1, 0, 8, true), piece(1, 8, 8, false)],
    ];
    for [first, second] in cases {
        let mut world = World::new(4, 8, 4);
        assert_eq!(world.receive(&first), Outcome::Kept);
        assert_eq!(world.receive(&second), Outcome::Refused(Why::End), "{second:?}");
        assert_eq!(world.all().used(), (0, 0));
    }
}

#[test]
fn no_datagram_is_longer_than_65535_bytes_with_its_header() {
    let mut world = World::new(4, 8, 4);
    assert_eq!(world.receive(&piece(1, 65_504, 65_516, false)), Outcome::Refused(Why::TooLong));
    assert_eq!(world.receive(&piece(1, 65_504, 65_515, false)), Outcome::Kept);
    assert_eq!(world.receive(&v6(piece(1, 65_504, 65_535, false))), Outcome::Kept);
    assert_eq!(world.all().used(), (2, 2));
}

#[test]
fn a_datagram_is_in_few_pieces() {
    let mut world = World::new(4, 200, 4);
    for at in 0..PIECES_MAX {
        assert_eq!(world.receive(&piece(1, at * 16, at * 16 + 8, true)), Outcome::Kept);
    }
    assert_eq!(world.receive(&piece(1, 8, 16, true)), Outcome::Refused(Why::TooMany));
    assert_eq!((world.all().used(), world.freed.len()), ((0, 0), usize::from(PIECES_MAX)));
}

#[test]
fn congestion_that_one_fragment_met_the_datagram_met() {
    let ecn_of = |first: u8, second: u8| {
        let mut world = World::new(4, 8, 4);
        assert_eq!(world.receive(&Arrived { ecn: first, ..piece(1, 0, 8, true) }), Outcome::Kept);
        match world.receive(&Arrived { ecn: second, ..piece(1, 8, 9, false) }) {
            Outcome::Whole(handle) => world.all().take(handle, |_| ()).map(|whole| whole.ecn),
            outcome => {
                assert_eq!(outcome, Outcome::Refused(Why::Ecn));
                None
            }
        }
    };
    assert_eq!(
        [ecn_of(2, 3), ecn_of(3, 1), ecn_of(2, 2), ecn_of(1, 1)],
        [Some(3), Some(3), Some(2), Some(1)]
    );
    assert_eq!([ecn_of(0, 0), ecn_of(0, 3), ecn_of(2, 0)], [Some(0), None, None]);
}

#[test]
fn ipv4_waits_thirty_seconds_and_ipv6_sixty_from_the_first_to_arrive() {
    let mut world = World::new(4, 8, 4);
    assert_eq!(world.receive(&v6(piece(1, 8, 16, true))), Outcome::Kept);
    assert_eq!(world.receive(&piece(2, 0, 16, true)), Outcome::Kept);
    assert_eq!(world.receive_at(&piece(2, 16, 24, true), NOW + Duration::from_secs(29)), Outcome::Kept);
    assert_eq!(world.all().next(), Some(NOW + V4_TIMEOUT));
    assert!(world.expire(Instant((NOW + V4_TIMEOUT).0 - 1)).is_empty());
    let first = Expired { source: THEM, destination: US, first: Some((2000, 34)) };
    assert_eq!(world.expire(NOW + V4_TIMEOUT), [first], "fragment zero is here: the sender is told");
    assert_eq!(world.freed, [2000, 2016]);
    let second = Expired { source: THEM6, destination: US6, first: None };
    assert!(world.expire(Instant((NOW + V6_TIMEOUT).0 - 1)).is_empty());
    assert_eq!(world.expire(NOW + V6_TIMEOUT), [second], "it is not here: nobody is told");
    assert_eq!((world.all().used(), world.all().next()), ((0, 0), None));
}

#[test]
fn a_flood_of_one_source_displaces_its_own() {
    let mut world = World::new(8, 32, 2);
    assert_eq!(world.receive(&v6(piece(1, 0, 8, true))), Outcome::Kept);
    for id in 2..20 {
        assert_eq!(world.receive(&piece(id, 0, 8, true)), Outcome::Kept);
    }
    assert_eq!(world.all().used(), (3, 3));
    assert_eq!(world.freed, (2..18).map(|id| id * 1000).collect::<Vec<_>>());
}

#[test]
fn a_flood_of_many_sources_displaces_the_oldest() {
    let mut world = World::new(4, 32, 4);
    for id in 0..10u8 {
        let arrived = Arrived { source: Ip::v4([10, 0, 0, id]), ..piece(id.into(), 0, 8, true) };
        assert_eq!(world.receive(&arrived), Outcome::Kept);
    }
    assert_eq!(
        (world.all().used(), world.freed.as_slice()),
        ((4, 4), &[0, 1000, 2000, 3000, 4000, 5000][..])
    );
}

#[test]
fn when_pieces_are_short_the_oldest_other_datagram_gives_way() {
    let mut world = World::new(4, 3, 4);
    assert_eq!(world.receive(&piece(1, 0, 8, true)), Outcome::Kept);
    assert_eq!(world.receive(&piece(2, 0, 8, true)), Outcome::Kept);
    assert_eq!(world.receive(&piece(1, 8, 16, true)), Outcome::Kept);
    assert_eq!(world.receive(&piece(1, 16, 24, true)), Outcome::Kept);
    assert_eq!((world.all().used(), world.freed.as_slice()), ((1, 3), &[2000][..]));
    assert_eq!(world.receive(&piece(1, 24, 32, true)), Outcome::Refused(Why::Full));
    assert_eq!(world.all().used(), (1, 3));
}

#[test]
fn protocols_of_ipv4_number_their_datagrams_apart() {
    let mut world = World::new(4, 8, 4);
    assert_eq!(world.receive(&piece(1, 0, 8, true)), Outcome::Kept);
    assert_eq!(world.receive(&Arrived { protocol: 6, ..piece(1, 8, 9, false) }), Outcome::Kept);
    assert_eq!(world.all().used(), (2, 2));
    assert_eq!(world.receive(&v6(piece(1, 0, 8, true))), Outcome::Kept);
    let last = Arrived { protocol: 6, ..v6(piece(1, 8, 9, false)) };
    let Outcome::Whole(handle) = world.receive(&last) else { panic!("whole") };
    assert_eq!(world.all().take(handle, |_| ()).map(|whole| whole.protocol), Some(17), "the first one's");
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// Against sets of bytes: what is whole has every byte once; frames are given back or taken, once each.
    #[test]
    fn what_comes_out_is_what_went_in(
        acts in proptest::collection::vec((0u32..3, 0u16..6, 1u16..4, any::<bool>(), any::<bool>()), 0..80),
    ) {
        let mut world = World::new(2, 6, 2);
        let (mut held, mut next) = (BTreeSet::new(), 0);
        for (id, start, len, more, is_v6) in acts {
            next += 1;
            let arrived = Arrived { frame: next, ..piece(id, start * 8, (start + len) * 8, more) };
            let arrived = if is_v6 { v6(arrived) } else { arrived };
            let outcome = world.receive(&arrived);
            for frame in world.freed.drain(..) {
                prop_assert!(held.remove(&frame), "{} is given back and isn't held", frame);
            }
            match outcome {
                Outcome::Kept | Outcome::Whole(_) => held.insert(next),
                _ => false,
            };
            if let Outcome::Whole(handle) = outcome {
                let (mut end, mut taken) = (0, Vec::new());
                let whole = world.all().take(handle, |piece| taken.push(*piece)).expect("whole");
                for piece in &taken {
                    prop_assert_eq!(piece.start, end);
                    end += piece.len;
                    prop_assert!(held.remove(&piece.frame));
                }
                prop_assert_eq!(end, whole.len);
            }
            prop_assert_eq!(world.all().check(), Ok(()));
            prop_assert_eq!(world.all().used().1 as usize, held.len());
        }
        world.expire(NOW + V6_TIMEOUT);
        for frame in world.freed.drain(..) {
            prop_assert!(held.remove(&frame));
        }
        prop_assert!(held.is_empty() && world.state.datagrams.used() == 0);
    }

    /// A datagram cut at any places, shuffled, with duplicates, always comes out.
    #[test]
    fn any_cut_in_any_order_is_put_together(
        cuts in proptest::collection::btree_set(1u16..200, 1..40), order in any::<[u32; 41]>(), tail in 1u16..9, again in 0usize..40,
    ) {
        let mut world = World::new(2, 64, 2);
        let starts: Vec<u16> = core::iter::once(0).chain(cuts).map(|cut| cut * 8).collect();
        let end = |at: usize| starts.get(at + 1).copied().unwrap_or(starts[at] + tail);
        let mut pieces: Vec<Arrived> =
            (0..starts.len()).map(|at| piece(1, starts[at], end(at), at + 1 < starts.len())).collect();
        let total = end(starts.len() - 1);
        pieces.sort_by_key(|piece| order[pieces_index(&starts, piece.fragment.offset)]);
        let last = pieces.pop().expect("at least two");
        for arrived in &pieces {
            prop_assert_eq!(world.receive(arrived), Outcome::Kept);
        }
        prop_assert_eq!(world.receive(&pieces[again % pieces.len()]), Outcome::Refused(Why::Duplicate));
        let Outcome::Whole(handle) = world.receive(&last) else { return Err(TestCaseError::fail("not whole")) };
        prop_assert_eq!(world.all().take(handle, |_| ()).map(|whole| whole.len), Some(total));
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 1200), small: bool, ids in any::<[u32; 8]>()) {
        // Small numbers are names that lead somewhere.
        let bytes: Vec<u8> = if small { bytes.iter().enumerate().map(|(at, byte)| if at % 4 == 0 { byte % 5 } else { 0 }).collect() } else { bytes };
        let mut rest = &bytes[..];
        let mut world = World::new(4, 8, 2);
        fn read<T: FromBytes>(rest: &mut &[u8]) -> T {
            let (value, behind) = T::read_from_prefix(rest).expect("enough");
            *rest = behind;
            value
        }
        world.state = read(&mut rest);
        world.datagrams.fill_with(|| read(&mut rest));
        world.pieces.fill_with(|| read(&mut rest));
        world.places.fill_with(|| read(&mut rest));
        let _ = (world.all().check(), world.all().next());
        for (at, id) in ids.into_iter().enumerate() {
            let mut freed = 0;
            let arrived = Arrived { hash: id, ..piece(id % 4, at as u16 * 8, at as u16 * 8 + 8, at < 7) };
            let outcome = world.all().receive(&arrived, Instant(id.into()), &mut |_| freed += 1);
            if let Outcome::Whole(handle) = outcome {
                let _ = world.all().take(handle, |_| ());
            }
            let mut rounds = 0;
            while world.all().expire(Instant(u64::MAX), &mut |_| (), &mut |_| freed += 1).is_some() {
                rounds += 1;
                prop_assert!(rounds <= 8);
            }
            prop_assert!(freed <= 5 * 8);
        }
    }
}

fn pieces_index(starts: &[u16], start: u16) -> usize {
    starts.iter().position(|at| *at == start).expect("a start")
}
