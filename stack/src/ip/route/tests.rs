use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Ip {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ip::v4(address.octets()),
        Err(_) => Ip(text.parse::<Ipv6Addr>().expect("an address").octets()),
    }
}

fn route(text: &str, metric: u32) -> Route {
    let (text, len) = text.split_once('/').expect("a prefix");
    let destination = ip(text);
    let len: u8 = len.parse().expect("a length");
    Route {
        destination,
        prefix_len: len + if destination.is_v4() { 96 } else { 0 },
        metric,
        ..Route::default()
    }
}

/// Runs `test` on a table of these routes.
fn with(routes: &[Route], test: impl FnOnce(&mut Routes<'_>)) {
    let (mut table, mut records) = (Table::default(), vec![Route::default(); 16]);
    let mut all = Routes::new(&mut table, &mut records);
    for route in routes {
        assert_eq!(all.insert(route), Ok(()));
    }
    test(&mut all);
    assert_eq!(all.check(), Ok(()));
}

fn found(routes: &Routes<'_>, destination: &str) -> Option<Route> {
    routes.find(&ip(destination)).map(|at| routes.all()[at as usize])
}

#[test]
fn all_routes_are_replaced_at_once_or_not_at_all() {
    let old = [route("192.0.2.0/24", 5), route("0.0.0.0/0", 1)];
    let new =
        [route("192.0.2.0/24", 7), route("192.0.2.0/24", 9), route("2001:db8::/32", 1), route("::/0", 0)];
    with(&old, |routes| {
        let before = routes.table().version();
        assert_eq!(routes.replace(&old), Ok(false));
        assert_eq!(routes.table().version(), before, "nobody looks again for nothing");
        assert_eq!(routes.replace(&new), Ok(true));
        assert_eq!((routes.all(), routes.check()), (&new[..], Ok(())));
        assert!(routes.table().version() != before && found(routes, "8.8.8.8").is_none());
        let swapped = [new[1], new[0]];
        assert_eq!(routes.replace(&swapped), Err(Refused::Nonsense), "out of order");
        let bits = [Route { prefix_len: 96, ..new[1] }];
        assert_eq!(routes.replace(&bits), Err(Refused::Nonsense), "bits behind the prefix");
        assert_eq!(routes.replace(&[new[0]; 17]), Err(Refused::Full));
        assert_eq!(routes.all(), &new[..]);
        assert_eq!(routes.replace(&[]), Ok(true));
        assert!(routes.all().is_empty());
    });
}

#[test]
fn the_longest_prefix_wins_and_then_the_lowest_metric() {
    let all = [
        route("0.0.0.0/0", 100),
        route("192.0.2.0/24", 200),
        route("192.0.2.0/24", 50),
        route("192.0.2.128/25", 900),
        route("::/0", 1),
        route("2001:db8::/32", 1),
    ];
    with(&all, |routes| {
        assert_eq!(found(routes, "192.0.2.1"), Some(all[2]));
        assert_eq!(found(routes, "192.0.2.200"), Some(all[3]));
        assert_eq!(found(routes, "8.8.8.8"), Some(all[0]));
        assert_eq!(found(routes, "2001:db8::1"), Some(all[5]));
        assert_eq!(found(routes, "2001:db9::1"), Some(all[4]));
        assert!(routes.remove(&all[2]) && !routes.remove(&all[2]));
        assert_eq!(found(routes, "192.0.2.1"), Some(all[1]));
    });
}

#[test]
fn no_route_of_one_version_is_for_the_other() {
    with(&[route("::/0", 1)], |routes| assert_eq!(found(routes, "192.0.2.1"), None));
    with(&[route("0.0.0.0/0", 1)], |routes| assert_eq!(found(routes, "2001:db8::1"), None));
}

#[test]
fn what_a_socket_keeps_is_good_until_the_table_changes() {
    with(&[route("0.0.0.0/0", 1)], |routes| {
        let version = routes.table().version();
        let at = routes.find(&ip("192.0.2.1")).expect("the default");
        assert!(version != 0 && routes.cached(at, version).is_some());
        assert!(routes.cached(at, 0).is_none(), "never looked up");
        assert_eq!(routes.insert(&route("192.0.2.0/24", 1)), Ok(()));
        assert!(routes.cached(at, version).is_none());
        let version = routes.table().version();
        routes.touch();
        assert!(routes.cached(at, version).is_none());
    });
}

#[test]
fn the_version_is_never_that_of_who_has_not_looked() {
    let (mut table, mut records) = (Table { version: u32::MAX, ..Table::default() }, [Route::default(); 1]);
    let mut routes = Routes::new(&mut table, &mut records);
    routes.touch();
    assert_eq!(routes.table().version(), 1);
}

#[test]
fn on_the_link_the_next_hop_is_the_destination() {
    let gateway = ip("192.0.2.254");
    let far = Route { gateway, ..route("0.0.0.0/0", 1) };
    let to = ip("198.51.100.1");
    assert_eq!((far.next_hop(&to), route("0.0.0.0/0", 1).next_hop(&to)), (gateway, to));
}

#[test]
fn nonsense_is_refused_and_a_full_table_says_so() {
    let (mut table, mut records) = (Table::default(), [Route::default(); 1]);
    let mut routes = Routes::new(&mut table, &mut records);
    let good = route("192.0.2.0/24", 1);
    for bad in [
        route("192.0.2.1/24", 1),
        Route { prefix_len: 129, ..good },
        Route { gateway: ip("2001:db8::1"), ..good },
        Route { source: ip("2001:db8::1"), ..good },
    ] {
        assert_eq!(routes.insert(&bad), Err(Refused::Nonsense), "{bad:?}");
    }
    assert_eq!((routes.insert(&good), routes.insert(&good)), (Ok(()), Ok(())), "the second replaces");
    assert_eq!(routes.insert(&route("192.0.2.0/25", 1)), Err(Refused::Full));
    assert_eq!(routes.table().version(), 2);
}

#[test]
fn kinds_decode_and_the_unknown_leads_nowhere() {
    let kinds = [Kind::Unicast, Kind::Local, Kind::Broadcast, Kind::Elsewhere];
    for kind in kinds.into_iter().chain([Kind::Unreachable, Kind::Prohibit, Kind::Blackhole]) {
        assert_eq!(Route { kind: kind as u8, ..Route::default() }.kind(), kind);
    }
    assert_eq!(Route { kind: 200, ..Route::default() }.kind(), Kind::Unreachable);
}

/// Prefixes of few bits that differ, of both versions.
fn any_route() -> impl Strategy<Value = Route> {
    (any::<bool>(), 0u8..4, 0u8..=8, 0u32..3).prop_map(|(v6, bits, len, metric)| {
        let base = if v6 { Ip([bits << 6 | 0x15; 16]) } else { Ip::v4([bits << 6 | 0x15; 4]) };
        let prefix_len = len * 4 + if v6 { 0 } else { 96 };
        Route { destination: masked(&base, prefix_len), prefix_len, metric, ..Route::default() }
    })
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn a_lookup_finds_what_a_look_at_all_finds(acts in proptest::collection::vec((any::<bool>(), any_route()), 0..60)) {
        let (mut table, mut records) = (Table::default(), vec![Route::default(); 12]);
        let mut routes = Routes::new(&mut table, &mut records);
        let mut model: Vec<Route> = Vec::new();
        for (adds, route) in acts {
            let same = |other: &Route| (other.destination, other.prefix_len, other.metric) == (route.destination, route.prefix_len, route.metric);
            let version = routes.table().version();
            let there = model.iter().any(same);
            let changes = if adds {
                let fits = there || model.len() < 12;
                prop_assert_eq!(routes.insert(&route), if fits { Ok(()) } else { Err(Refused::Full) });
                if !there && fits {
                    model.push(route);
                }
                fits
            } else {
                prop_assert_eq!(routes.remove(&route), there);
                model.retain(|other| !same(other));
                there
            };
            prop_assert_eq!(routes.table().version() != version, changes);
            prop_assert_eq!(routes.check(), Ok(()));
            for bits in (0..=255u8).step_by(11) {
                for destination in [Ip([bits; 16]), Ip::v4([bits; 4])] {
                    let matching = model.iter().filter(|route| {
                        let least = if destination.is_v4() { 96 } else { 0 };
                        route.prefix_len >= least && masked(&destination, route.prefix_len) == route.destination
                    });
                    let best = matching.min_by_key(|route| (128 - route.prefix_len, route.metric));
                    let found = routes.find(&destination).map(|at| &routes.all()[at as usize]);
                    prop_assert_eq!(found, best);
                }
            }
        }
    }

    #[test]
    fn nonsense_is_survived(
        bytes in proptest::collection::vec(any::<u8>(), size_of::<Route>() * 5), lengths: [u64; 3], len: u32, version: u32, to: [u8; 16], last: [u8; 4],
    ) {
        let mut table = Table { lengths, len, version };
        let read = |bytes: &[u8]| Route::read_from_bytes(bytes).expect("any bytes");
        let mut records: Vec<Route> = bytes.chunks_exact(size_of::<Route>()).map(read).collect();
        let some = records[0];
        let mut routes = Routes::new(&mut table, &mut records);
        let _ = (routes.find(&Ip(to)), routes.find(&Ip::v4(last)), routes.cached(len, version).map(Route::kind), routes.check());
        let _ = (routes.remove(&some), routes.insert(&route("192.0.2.0/24", 1)), routes.insert(&some));
        routes.clear();
        prop_assert_eq!(routes.check(), Ok(()));
    }
}
