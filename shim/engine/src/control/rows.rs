//! From the kernel's routes to the stack's: of each prefix one row, in one table, so that the longest prefix that matches is what the
//! kernel would take. What can't be said exactly is [`Kind::Elsewhere`]: its destinations stay the kernel's.
//!
//! The kernel asks its tables in turn: the first that has any route to a destination decides. So a route is hidden by one of an
//! earlier table to the same or to more destinations. Of IPv4 the local and the main table are one as long as nobody has ever
//! changed a rule (fib_trie_table's alias), and two afterwards, which nobody can see from outside: what depends on that is
//! left to the kernel.

use driver::netlink::addresses::Address;
use driver::netlink::routes::{Kind as Kernel, Route as Found};
use stack::ip::route::source::{self, flag};
use stack::ip::route::{Kind, Route, V4_BITS, masked};
use stack::wire::ip::Ip;

use super::tables::{ORDER, Tables};

/// RT_SCOPE_HOST: the widest scope that an address has for a choice, whatever its own is (inet_select_addr).
const SCOPE_HOST: u8 = 254;
/// Destinations that are never our own interface's, or not by a row of a table: this host, groups, everybody. And link-local ones
/// that no route of the interface is for.
const OUTSIDE: [(Ip, u8); 5] = [
    (Ip::UNSPECIFIED_V4, V4_BITS + 32),
    (Ip::v4([224, 0, 0, 0]), V4_BITS + 4),
    (Ip::BROADCAST, V4_BITS + 32),
    (Ip::UNSPECIFIED, 128),
    (Ip([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 10),
];

/// The addresses of our interface, as a stack has them: at most so many.
pub(crate) fn addresses(tables: &Tables, most: usize) -> Vec<source::Address> {
    let flags = |address: &Address| {
        let bits = [
            (address.is_tentative, flag::TENTATIVE),
            (address.is_deprecated, flag::DEPRECATED),
            (address.is_secondary, flag::SECONDARY),
            (address.is_temporary, flag::TEMPORARY),
        ];
        bits.into_iter().filter(|bit| bit.0).fold(0, |flags, bit| flags | bit.1)
    };
    let all = tables.addresses.iter().filter(|address| is_hosts(&address.ip));
    all.take(most)
        .map(|address| source::Address {
            ip: address.ip,
            prefix_len: bits(&address.ip, address.prefix_len),
            flags: flags(address),
            ..source::Address::default()
        })
        .collect()
}

/// An address that a host can have.
fn is_hosts(ip: &Ip) -> bool {
    !(ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified())
}

/// Bits of a prefix, of 128.
const fn bits_of(is_v4: bool, prefix_len: u8) -> u8 {
    if is_v4 {
        V4_BITS + if prefix_len > 32 { 32 } else { prefix_len }
    } else if prefix_len > 128 {
        128
    } else {
        prefix_len
    }
}

fn bits(ip: &Ip, prefix_len: u8) -> u8 {
    bits_of(ip.is_v4(), prefix_len)
}

/// What the routes to one prefix come to.
struct Group {
    row: Route,
    /// Which table it is of: an index of [`ORDER`].
    rank: usize,
}

impl Group {
    fn covers(&self, other: &Self) -> bool {
        self.row.prefix_len <= other.row.prefix_len
            && masked(&other.row.destination, self.row.prefix_len) == self.row.destination
    }
}

fn elsewhere(destination: Ip, prefix_len: u8) -> Route {
    Route { destination, prefix_len, kind: Kind::Elsewhere as u8, ..Route::default() }
}

/// The rows of one version, in the stack's order. `ours` are the addresses that the stack has.
pub(crate) fn rows(tables: &Tables, is_v6: bool, ours: &[source::Address]) -> Vec<Route> {
    let mut routes: Vec<&Found> = tables.families[usize::from(is_v6)].routes.iter().collect();
    routes.retain(|route| is_of_the_link(tables, route));
    let rank = |route: &Found| ORDER.iter().position(|table| *table == route.table).unwrap_or(ORDER.len());
    let prefix = |route: &Found| {
        let prefix_len = bits(&route.destination, route.prefix_len);
        (masked(&route.destination, prefix_len), prefix_len)
    };
    // By prefix in the order of a walk through the tree of them, then as the kernel looks at them.
    routes.sort_by_key(|route| (prefix(route).0.0, prefix(route).1, rank(route), route.priority));
    let mut groups: Vec<Group> = routes
        .chunk_by(|one, other| prefix(one) == prefix(other))
        .map(|group| {
            let (first, rank) = (prefix(group[0]), rank(group[0]));
            let of_table = group.iter().take_while(|route| route.table == group[0].table);
            let same: Vec<&Found> = of_table.copied().collect();
            Group { row: row(tables, ours, first, &same), rank }
        })
        .collect();
    let outside = OUTSIDE.iter().filter(|(ip, _)| ip.is_v4() != is_v6);
    groups.extend(outside.map(|(ip, len)| Group { row: elsewhere(*ip, *len), rank: 0 }));
    // Of the same prefix what isn't to be ours comes first, and is the one that stays.
    groups.sort_by_key(|group| (group.row.destination.0, group.row.prefix_len, group.rank));
    groups.dedup_by_key(|group| (group.row.destination.0, group.row.prefix_len));
    let mut rows = visible(groups, is_v6);
    rows.sort_by(Route::compare);
    rows
}

/// Leaves out what no lookup finds, and what says no more than the next shorter prefix.
fn visible(groups: Vec<Group>, is_v6: bool) -> Vec<Route> {
    let mut rows = Vec::new();
    // Prefixes that cover where the walk is: each with the least rank up to there, and whether lookups end elsewhere there.
    let mut above: Vec<(Group, usize, bool)> = Vec::new();
    for mut group in groups {
        while above.last().is_some_and(|(shorter, ..)| !shorter.covers(&group)) {
            above.pop();
        }
        let (least, was_elsewhere) = above.last().map_or((usize::MAX, true), |(_, least, is)| (*least, *is));
        // Link-local destinations are those of the interface that is named beside them.
        let is_hidden = least < group.rank && !(is_v6 && group.row.destination.is_link_local());
        let is_unsure = !is_v6 && group.rank == 1;
        if is_hidden && !is_unsure {
            continue;
        }
        if is_hidden {
            group.row = elsewhere(group.row.destination, group.row.prefix_len);
        }
        let is_elsewhere = group.row.kind() == Kind::Elsewhere;
        if !(is_elsewhere && was_elsewhere) {
            rows.push(group.row);
        }
        let least = least.min(group.rank);
        above.push((group, least, is_elsewhere));
    }
    rows
}

/// A link-local destination is of the interface that is named with it, so what other interfaces have to say of it is left out.
fn is_of_the_link(tables: &Tables, route: &Found) -> bool {
    let is_v6_local = !route.destination.is_v4() && route.destination.is_link_local();
    !(is_v6_local && route.prefix_len >= 10) || route.interface == tables.interface
}

/// What the routes of one table to a prefix come to.
fn row(
    tables: &Tables,
    ours: &[source::Address],
    (destination, prefix_len): (Ip, u8),
    same: &[&Found],
) -> Route {
    let none = elsewhere(destination, prefix_len);
    let Some(first) = same.first() else { return none };
    let is_sure = same.iter().all(|route| !route.is_odd && !route.is_dead && route.kind != Kernel::Throw);
    // Between several of the same metric it is by neighbours that the kernel chooses (fib_select_default, find_rr_leaf).
    let has_rival = same.iter().skip(1).any(|route| route.priority == first.priority);
    if !is_sure || has_rival {
        return none;
    }
    let kind = match first.kind {
        Kernel::Unicast if first.interface == tables.interface => Kind::Unicast,
        Kernel::Broadcast if first.interface == tables.interface => Kind::Broadcast,
        Kernel::Unreachable => Kind::Unreachable,
        Kernel::Prohibit => Kind::Prohibit,
        Kernel::Blackhole => Kind::Blackhole,
        _ => return none,
    };
    let bare =
        Route { destination, prefix_len, metric: first.priority, kind: kind as u8, ..Route::default() };
    if !matches!(kind, Kind::Unicast | Kind::Broadcast) {
        return bare;
    }
    let Some(source) = source(tables, first).filter(|ip| ip.is_unspecified() || has(ours, ip)) else {
        return none;
    };
    let gateway = first.gateway.unwrap_or(Ip::UNSPECIFIED);
    with_hints(Route { source, gateway, ..bare }, tables, first)
}

/// What a route of the kernel's says besides.
pub(crate) fn with_hints(route: Route, tables: &Tables, found: &Found) -> Route {
    let inet6 = tables.link.as_ref().and_then(|link| link.inet6).filter(|_| !route.destination.is_v4());
    let least = |one: u32, other: u32| {
        if one == 0 {
            other
        } else if other == 0 {
            one
        } else {
            one.min(other)
        }
    };
    let small = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    let hop_limit =
        if found.hop_limit == 0 { inet6.map_or(0, |inet6| inet6.hop_limit.into()) } else { found.hop_limit };
    Route {
        mtu: least(found.mtu, inet6.map_or(0, |inet6| inet6.mtu)),
        window: found.window,
        rto_min_ms: found.rto_min_ms,
        advertised_mss: small(found.advertised_mss),
        initial_cwnd: small(found.initial_cwnd),
        initial_rwnd: small(found.initial_rwnd),
        hop_limit: u8::try_from(hop_limit).unwrap_or(u8::MAX),
        mtu_is_locked: found.mtu_is_locked.into(),
        ..route
    }
}

/// Whether the stack can send from an address.
pub(crate) fn has(ours: &[source::Address], ip: &Ip) -> bool {
    ours.iter().any(|address| address.ip == *ip && address.flags & flag::TENTATIVE == 0)
}

/// The address that packets by a route come from: the route's, what the kernel chooses of IPv4, or the unspecified one where
/// the stack chooses by the destination; `None` where it is another interface's.
fn source(tables: &Tables, route: &Found) -> Option<Ip> {
    if route.source.is_some() {
        return route.source;
    }
    if route.destination.is_v4() {
        return select(tables, route);
    }
    let is_ours = tables.addresses.iter().any(|address| {
        !address.ip.is_v4() && address.scope == 0 && !address.is_tentative && !address.is_deprecated
    });
    // Rules 1 to 3 of RFC 6724 §5 come before rule 5, the interface: only equals are left to that.
    (is_ours || !tables.has_other_v6 || is_link_locals(route)).then_some(Ip::UNSPECIFIED)
}

fn is_link_locals(route: &Found) -> bool {
    route.destination.is_link_local() && route.prefix_len >= 10
}

/// Of IPv4: the first address on the gateway's subnet, else the first of all, of those that mean something as far away as the
/// route's destination is (inet_select_addr, fib_result_prefsrc).
fn select(tables: &Tables, route: &Found) -> Option<Ip> {
    let is_candidate = |address: &&Address| {
        address.ip.is_v4() && !address.is_secondary && address.scope.min(SCOPE_HOST) <= route.scope
    };
    let mut candidates = tables.addresses.iter().filter(is_candidate);
    let is_on_link = |address: &&Address| {
        let prefix_len = bits_of(true, address.prefix_len);
        route
            .gateway
            .is_none_or(|gateway| masked(&gateway, prefix_len) == masked(&address.subnet, prefix_len))
    };
    let first = candidates.clone().next();
    candidates.find(is_on_link).or(first).map(|address| address.ip)
}
