use driver::netlink::addresses::{self, Address};
use driver::netlink::links::{self, Link};
use driver::netlink::neighbours;
use driver::netlink::routes::{self, Kind as Kernel, Route as Found};
use stack::ip::route::{Kind, Route, Routes, Table, V4_BITS};
use stack::wire::ip::Ip;

use super::rows;
use super::tables::{Changed, Tables};

const OURS: u32 = 2;
const OTHER: u32 = 3;

const fn ip(last: [u8; 4]) -> Ip {
    Ip::v4(last)
}

fn found(destination: Ip, prefix_len: u8, interface: u32) -> Found {
    Found {
        destination,
        prefix_len,
        table: 254,
        priority: 0,
        kind: Kernel::Unicast,
        scope: 253,
        interface,
        gateway: None,
        source: None,
        mtu: 0,
        mtu_is_locked: false,
        rto_min_ms: 0,
        window: 0,
        advertised_mss: 0,
        initial_cwnd: 0,
        initial_rwnd: 0,
        hop_limit: 0,
        is_dead: false,
        is_odd: false,
    }
}

fn address(ip: Ip, prefix_len: u8) -> Address {
    Address {
        interface: OURS,
        ip,
        subnet: ip,
        prefix_len,
        scope: 0,
        is_tentative: false,
        is_deprecated: false,
        is_secondary: false,
        is_temporary: false,
    }
}

fn tables(routes: &[Found]) -> Tables {
    let mut tables = Tables::new(OURS);
    tables.link = Some(Link { index: OURS, mtu: 1500, ..Link::default() });
    tables.addresses = vec![address(ip([10, 0, 0, 1]), 24), address(ip([10, 9, 0, 1]), 24)];
    tables.families[0].routes = routes.to_vec();
    tables
}

fn rows_of(tables: &Tables) -> Vec<Route> {
    rows::rows(tables, false, &rows::addresses(tables, 16))
}

/// What a lookup ends at, by kind and source.
fn way(rows: &[Route], destination: Ip) -> Option<(Kind, Ip)> {
    let (mut table, mut records) = (Table::default(), vec![Route::default(); 64]);
    let mut all = Routes::new(&mut table, &mut records);
    assert_eq!(all.replace(rows), Ok(!rows.is_empty()));
    let at = all.find(&destination)?;
    let route = all.all()[at as usize];
    Some((route.kind(), route.source))
}

const FAR: Ip = ip([192, 0, 2, 7]);

#[test]
fn what_lies_beside_other_interfaces_needs_no_row_of_its_own() {
    let rows = rows_of(&tables(&[
        found(ip([0; 4]), 0, OTHER),
        found(ip([192, 0, 2, 0]), 24, OTHER),
        found(ip([10, 0, 0, 0]), 24, OURS),
    ]));
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(way(&rows, FAR), None);
    let mixed = rows_of(&tables(&[
        found(ip([0; 4]), 0, OURS),
        found(ip([192, 0, 0, 0]), 8, OTHER),
        found(ip([192, 0, 2, 0]), 24, OTHER),
        found(ip([192, 0, 2, 7]), 32, OURS),
    ]));
    assert_eq!(way(&mixed, FAR).map(|way| way.0), Some(Kind::Unicast));
    assert_eq!(way(&mixed, ip([192, 0, 2, 8])).map(|way| way.0), Some(Kind::Elsewhere));
    assert_eq!(
        mixed.iter().filter(|row| row.kind() == Kind::Elsewhere).count(),
        4,
        "three are groups and nobody"
    );
}

#[test]
fn an_earlier_table_hides_a_later_one() {
    let with = |table, prefix_len| {
        let route = Found { table, ..found(ip([192, 0, 2, 0]), 24, OURS) };
        let cover = Found { kind: Kernel::Local, table: 255, ..found(ip([192, 0, 2, 0]), prefix_len, 1) };
        way(&rows_of(&tables(&[cover, route])), FAR).map(|way| way.0)
    };
    assert_eq!(with(254, 24), None, "the local table is asked first");
    assert_eq!(with(254, 16), None, "whether it is depends on what nobody sees");
    assert_eq!(with(253, 16), None);
    let default = Found { table: 253, ..found(ip([192, 0, 2, 0]), 24, OURS) };
    let main = found(ip([192, 0, 0, 0]), 16, OURS);
    let rows = rows_of(&tables(&[default, Found { mtu: 1400, ..main }]));
    assert_eq!(rows.iter().map(|row| (row.prefix_len, row.mtu)).collect::<Vec<_>>(), [(V4_BITS + 16, 1400)]);
}

#[test]
fn what_cannot_be_said_is_left_to_the_kernel() {
    let plain = found(ip([192, 0, 2, 0]), 24, OURS);
    let one = |route: Found| way(&rows_of(&tables(&[found(ip([0; 4]), 0, OURS), route])), FAR);
    assert_eq!(one(plain), Some((Kind::Unicast, ip([10, 0, 0, 1]))));
    let elsewhere = |route: Found| one(route).map(|way| way.0) == Some(Kind::Elsewhere);
    assert!(elsewhere(Found { is_odd: true, ..plain }));
    assert!(elsewhere(Found { is_dead: true, ..plain }));
    assert!(elsewhere(Found { kind: Kernel::Throw, ..plain }));
    assert!(elsewhere(Found { source: Some(ip([10, 5, 5, 5])), ..plain }), "another interface's address");
    assert_eq!(one(Found { kind: Kernel::Prohibit, ..plain }).map(|way| way.0), Some(Kind::Prohibit));
    let rival = Found { gateway: Some(ip([10, 0, 0, 9])), ..plain };
    let both = [plain, rival, found(ip([0; 4]), 0, OURS)];
    assert_eq!(way(&rows_of(&tables(&both)), FAR).map(|way| way.0), Some(Kind::Elsewhere));
    let worse = [plain, Found { priority: 7, ..rival }];
    assert_eq!(way(&rows_of(&tables(&worse)), FAR).map(|way| way.0), Some(Kind::Unicast));
}

#[test]
fn the_source_is_the_first_on_the_gateways_subnet_whose_scope_reaches() {
    let by = |gateway, scope| Found { gateway: Some(ip(gateway)), scope, ..found(ip([0; 4]), 0, OURS) };
    let source = |tables: &Tables| way(&rows_of(tables), FAR);
    assert_eq!(source(&tables(&[by([10, 9, 0, 9], 0)])), Some((Kind::Unicast, ip([10, 9, 0, 1]))));
    assert_eq!(source(&tables(&[by([10, 7, 0, 9], 0)])), Some((Kind::Unicast, ip([10, 0, 0, 1]))));
    let mut narrow = tables(&[by([10, 9, 0, 9], 0)]);
    narrow.addresses[1].scope = 253;
    assert_eq!(source(&narrow), Some((Kind::Unicast, ip([10, 0, 0, 1]))));
    narrow.families[0].routes[0].scope = 253;
    assert_eq!(source(&narrow), Some((Kind::Unicast, ip([10, 9, 0, 1]))));
    narrow.addresses.clear();
    assert_eq!(source(&narrow), None, "the kernel takes another interface's");
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A message of chance: attributes that mostly fit, with values of chance.
    fn message(&mut self, head: usize) -> Vec<u8> {
        let mut body: Vec<u8> = (0..head).map(|_| self.next() as u8).collect();
        if let Some(family) = body.first_mut() {
            *family =
                [libc::AF_INET as u8, libc::AF_INET6 as u8, self.next() as u8][(self.next() % 3) as usize];
        }
        for _ in 0..self.next() % 8 {
            let len = [0, 1, 4, 6, 8, 16][(self.next() % 6) as usize];
            let told = if self.next().is_multiple_of(8) { self.next() as u16 } else { 4 + len as u16 };
            body.extend(told.to_ne_bytes());
            body.extend(((self.next() % 32) as u16).to_ne_bytes());
            body.extend((0..len).map(|_| if self.next().is_multiple_of(3) { self.next() as u8 } else { 0 }));
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.truncate(body.len() - (self.next() % 4) as usize * usize::from(self.next().is_multiple_of(8)));
        body
    }
}

/// Whatever a message says, it becomes rows that a table takes, or nothing.
#[test]
fn messages_of_chance_become_tables_that_hold() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut tables = tables(&[]);
        for _ in 0..64 {
            let kind = 16 + (random.next() % 20) as u16;
            let _ = Changed::of(kind);
            let (route, other) = (random.message(12), random.message(12));
            if let Some((mut route, true)) = routes::parse(kind, &route) {
                let is_v6 = usize::from(!route.destination.is_v4());
                (route.table, route.is_odd) = (253 + u32::from(random.next() as u8 % 3), false);
                route.interface = if random.next().is_multiple_of(4) { OTHER } else { OURS };
                tables.families[is_v6].routes.push(route);
            }
            let _ = neighbours::parse(kind, &other);
            if let Some((address, _)) = addresses::parse(kind, &random.message(8)) {
                tables.addresses.push(address);
            }
            let _ = links::parse(kind, &random.message(16));
        }
        let ours = rows::addresses(&tables, 16);
        assert!(ours.len() <= 16);
        for is_v6 in [false, true] {
            let rows = rows::rows(&tables, is_v6, &ours);
            let (mut table, mut records) = (Table::default(), vec![Route::default(); rows.len()]);
            let mut all = Routes::new(&mut table, &mut records);
            assert_eq!(all.replace(&rows), Ok(!rows.is_empty()), "seed {seed}: {rows:?}");
            assert_eq!(all.check(), Ok(()), "seed {seed}");
        }
    }
}
