//! Each table against a list that is searched from its beginning, and on nonsense.

use proptest::prelude::*;

use super::*;

const SECRET: Secret = Secret([3, 4]);

fn address(which: u8) -> Ip {
    match which % 6 {
        0 => Ip::UNSPECIFIED,
        1 => Ip::UNSPECIFIED_V4,
        2 => Ip::v4([192, 0, 2, 1]),
        3 => Ip::v4([192, 0, 2, 2]),
        4 => Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        _ => Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// Few ends, so that connections differ in one of the four parts.
    #[test]
    fn connections_are_a_map(acts in proptest::collection::vec((any::<bool>(), 0u8..6, 0u8..6, 0u16..2, 0u16..3, 0usize..16), 0..200)) {
        let mut tcbs = vec![Tcb::default(); 16];
        let mut places = vec![Place::default(); Table::places_for(16)];
        let mut model: Vec<(u8, u8, u16, u16, u32)> = Vec::new();
        for (adds, ours, theirs, port, remote_port, at) in acts {
            let there = model.iter().position(|row| (row.0, row.1, row.2, row.3) == (ours, theirs, port, remote_port));
            if adds && there.is_none() && !model.iter().any(|row| row.4 as usize == at) {
                (tcbs[at].local, tcbs[at].remote) = (address(ours), address(theirs));
                (tcbs[at].local_port, tcbs[at].remote_port) = (port, remote_port);
                prop_assert!(Pairs::new(&tcbs, &mut places, SECRET).insert(at as u32));
                model.push((ours, theirs, port, remote_port, at as u32));
            } else if !adds && let Some(there) = there {
                let row = model.swap_remove(there);
                prop_assert!(Pairs::new(&tcbs, &mut places, SECRET).remove(row.4));
            }
            let pairs = Pairs::new(&tcbs, &mut places, SECRET);
            for (ours, theirs, port, remote_port) in combinations(6, 6, 2, 3) {
                let expected = model.iter().find(|row| (row.0, row.1, row.2, row.3) == (ours, theirs, port, remote_port));
                let found = pairs.find((&address(ours), port), (&address(theirs), remote_port));
                prop_assert_eq!(found, expected.map(|row| row.4));
            }
            prop_assert_eq!(pairs.check(|_| true), Ok(model.len() as u32));
        }
    }

    #[test]
    fn listeners_are_found_as_a_search_finds_them(
        acts in proptest::collection::vec((any::<bool>(), 0u8..6, 0u16..2, 0u8..8, 0usize..12), 0..120),
        hash in any::<u32>(),
    ) {
        let mut records = vec![Listener::default(); 12];
        let mut places = vec![Place::default(); Table::places_for(12)];
        let mut model: Vec<u32> = Vec::new();
        for (adds, which, port, sharing, at) in acts {
            let mut endpoints = Endpoints::new(&mut records, &mut places, SECRET);
            let there = model.iter().position(|index| *index as usize == at);
            match there {
                None if adds => {
                    let record = &mut endpoints.records[at];
                    (record.local, record.local_port, record.sharing) = (address(which), port, sharing);
                    let is_v4_address = record.local.is_v4();
                    if is_v4_address {
                        record.sharing &= !Sharing::V6_ONLY;
                    } else {
                        record.sharing |= Sharing::V6;
                    }
                    prop_assert!(endpoints.insert(at as u32));
                    // The newest of those that aren't a group gets everything.
                    let is_group = records[at].sharing & Sharing::REUSE_PORT != 0;
                    if is_group { model.push(at as u32) } else { model.insert(0, at as u32) }
                }
                Some(there) if !adds => {
                    prop_assert!(endpoints.remove(at as u32));
                    forget(&mut model, there, &records);
                }
                _ => prop_assert_eq!(endpoints.remove(at as u32), there.is_some_and(|there| {
                    forget(&mut model, there, endpoints.records);
                    true
                })),
            }
            let endpoints = Endpoints::new(&mut records, &mut places, SECRET);
            prop_assert_eq!(endpoints.check(|_| true), Ok(model.len() as u32));
            for which in 1..6 {
                for port in 0..2 {
                    let local = address(which);
                    let found = endpoints.find((&local, port), hash);
                    let expected = search(&model, endpoints.records, (&local, port), hash);
                    match found {
                        Some(found) => prop_assert!(expected.contains(&found), "{found} of {expected:?} to {local}"),
                        None => prop_assert_eq!(expected, []),
                    }
                    let mut all = Vec::new();
                    endpoints.for_all((&local, port), |index| all.push(index));
                    all.sort_unstable();
                    let mut expected: Vec<u32> = model.iter().copied().filter(|index| takes(&endpoints.records[*index as usize], (&local, port))).collect();
                    expected.sort_unstable();
                    if !local.is_unspecified() {
                        prop_assert_eq!(all, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 8 * size_of::<Listener>()), small in any::<bool>(), slots in proptest::collection::vec((any::<u32>(), 0u32..10), 16), index in any::<u32>()) {
        let mut records = vec![Listener::default(); 8];
        records.as_mut_slice().as_mut_bytes().copy_from_slice(&bytes);
        let mut places = vec![Place::default(); 16];
        for (place, (hash, record)) in places.iter_mut().zip(slots) {
            *place = Place::read_from_bytes([hash, record].as_bytes()).expect("eight bytes");
        }
        if small {
            // All at one address, so that lists are followed; their links are what they are.
            for (at, record) in records.iter_mut().enumerate() {
                (record.local, record.local_port, record.sharing) = (address(2), 1, (at as u8 & 1) * Sharing::REUSE_PORT);
                record.link.next %= 10;
            }
            let hash = SECRET.endpoint((&address(2), 1));
            let record = places[0];
            places[hash as usize % 16] = Place::read_from_bytes([hash, 1 + record.as_bytes()[0] as u32 % 8].as_bytes()).expect("eight bytes");
        }
        let tcbs = vec![Tcb::default(); 4];
        let pairs = Pairs::new(&tcbs, &mut places, SECRET);
        let _ = pairs.find((&address(2), 1), (&address(3), 1));
        let _ = pairs.check(|_| true);
        let mut endpoints = Endpoints::new(&mut records, &mut places, SECRET);
        let _ = endpoints.check(|_| true);
        for index in [index, index % 8, (index >> 3) % 8] {
            let _ = endpoints.find((&address(2), 1), index);
            endpoints.for_all((&address(2), 1), |_| {});
            let _ = endpoints.remove(index);
            let _ = endpoints.insert(index);
        }
    }
}

fn combinations(a: u8, b: u8, c: u16, d: u16) -> impl Iterator<Item = (u8, u8, u16, u16)> {
    (0..a).flat_map(move |a| {
        (0..b).flat_map(move |b| (0..c).flat_map(move |c| (0..d).map(move |d| (a, b, c, d))))
    })
}

/// The list in the order of Linux's: the last of a group comes to the place of the one that leaves.
fn forget(model: &mut Vec<u32>, there: usize, records: &[Listener]) {
    let gone = &records[model[there] as usize];
    let same = |index: &u32| {
        let record = &records[*index as usize];
        record.local() == gone.local() && record.sharing() == gone.sharing()
    };
    let last = model.iter().rposition(same).expect("itself");
    if gone.sharing & Sharing::REUSE_PORT != 0 && last != there {
        model[there] = model.remove(last);
    } else {
        model.remove(there);
    }
}

fn takes(record: &Listener, (address, port): End<'_>) -> bool {
    let is_v4 = address.is_v4();
    let fits = record.local == *address
        || record.local == Ip::UNSPECIFIED
        || (is_v4 && record.local == Ip::UNSPECIFIED_V4);
    record.local_port == port && fits && !(is_v4 && record.sharing & Sharing::V6_ONLY != 0)
}

/// Linux's rule: the specific address before the wildcards, of these the packet's own version first; at one
/// address a socket of the packet's version first; then the group's choice.
fn search(model: &[u32], records: &[Listener], local: End<'_>, hash: u32) -> Vec<u32> {
    let is_v4 = local.0.is_v4();
    let score = |record: &Listener| {
        let address = match () {
            () if record.local == *local.0 => 4,
            () if record.local == Ip::UNSPECIFIED_V4 || !is_v4 => 2,
            () => 0,
        };
        address + u8::from(is_v4 == (record.sharing & Sharing::V6 == 0))
    };
    let fitting = || model.iter().copied().filter(|index| takes(&records[*index as usize], local));
    let Some(best) = fitting().map(|index| score(&records[index as usize])).max() else { return Vec::new() };
    // Ways of sharing that are as good as each other have a list each; bind allows no two of them (see the ports).
    let mut lists: Vec<Vec<u32>> = Vec::new();
    for index in fitting().filter(|index| score(&records[*index as usize]) == best) {
        let sharing = records[index as usize].sharing;
        match lists.iter_mut().find(|list| records[list[0] as usize].sharing == sharing) {
            Some(list) => list.push(index),
            None => lists.push(vec![index]),
        }
    }
    let choose = |list: &Vec<u32>| match records[list[0] as usize].sharing & Sharing::REUSE_PORT {
        0 => list[0],
        _ => list[((u64::from(hash) * list.len() as u64) >> 32) as usize],
    };
    lists.iter().map(choose).collect()
}
