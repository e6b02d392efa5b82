//! Routes: RTM_GETROUTE of rtnetlink(7), the rules that choose between tables of them, and what the kernel itself makes of both
//! for one packet ([`lookup`]).

use stack::wire::ip::Ip;

use super::{Message, Netlink, Table, address, attribute, attributes, half, word};
use crate::sys::{self, Errno};

/// Bytes of `struct rtmsg` and `struct fib_rule_hdr`, which begin alike.
const RTMSG: usize = 12;
// Kinds and attributes (linux/rtnetlink.h, linux/fib_rules.h).
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_UID: u16 = 25;
const RTA_NH_ID: u16 = 30;
const RTAX_LOCK: u16 = 1;
const RTAX_MTU: u16 = 2;
const RTAX_WINDOW: u16 = 3;
const RTAX_ADVMSS: u16 = 8;
const RTAX_HOPLIMIT: u16 = 10;
const RTAX_INITCWND: u16 = 11;
const RTAX_RTO_MIN: u16 = 13;
const RTAX_INITRWND: u16 = 14;
/// The metrics that a [`Route`] has.
const METRICS: [u16; 8] = [
    RTAX_LOCK,
    RTAX_MTU,
    RTAX_WINDOW,
    RTAX_ADVMSS,
    RTAX_HOPLIMIT,
    RTAX_INITCWND,
    RTAX_RTO_MIN,
    RTAX_INITRWND,
];
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
/// Attributes that don't narrow what a rule is for.
const FRA_PLAIN: [u16; 4] = [FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN];
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
/// The route was found in a cache of exceptions, and is no row: RTM_F_CLONED.
const CLONED: u32 = 0x200;
/// Its next hop can't be reached now: RTNH_F_DEAD.
const DEAD: u32 = 1;
/// What a rule is for is all others: FIB_RULE_INVERT.
const INVERT: u32 = 2;

/// What becomes of a packet: `rtm_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes there.
    Unicast,
    /// It is this host's.
    Local,
    /// It goes to all on the link.
    Broadcast,
    /// It goes to a group.
    Multicast,
    /// It is dropped in silence.
    Blackhole,
    /// Nobody is there: EHOSTUNREACH.
    Unreachable,
    /// It may not go there: EACCES.
    Prohibit,
    /// Another table decides.
    Throw,
    /// Another one, by its number.
    Other(u8),
}

impl Kind {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            3 => Self::Broadcast,
            5 => Self::Multicast,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            other => Self::Other(other),
        }
    }
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is for; unspecified in the family's own form for all.
    pub destination: Ip,
    /// Bits of that, of its own version.
    pub prefix_len: u8,
    /// The table that it is in: 254 is the main one, 255 the local one.
    pub table: u32,
    /// Of two routes to the same the one with the smaller number.
    pub priority: u32,
    /// What becomes of a packet.
    pub kind: Kind,
    /// How far away its destination is: 0 anywhere, 253 on the link, 254 on this host (RT_SCOPE_*; of IPv4).
    pub scope: u8,
    /// The interface that it leaves by; 0 is none.
    pub interface: u32,
    /// Who it is sent to, if not to its destination.
    pub gateway: Option<Ip>,
    /// The address that it comes from, if nobody says otherwise.
    pub source: Option<Ip>,
    /// The path's MTU, or 0; and whether routers' words don't count.
    pub mtu: u32,
    /// Likewise.
    pub mtu_is_locked: bool,
    /// The smallest retransmission timeout, in milliseconds, or 0.
    pub rto_min_ms: u32,
    /// Most bytes of the window that is advertised, or 0.
    pub window: u32,
    /// The MSS that is advertised, or 0.
    pub advertised_mss: u32,
    /// The first congestion window and the first window that is advertised, in segments, or 0.
    pub initial_cwnd: u32,
    /// The latter.
    pub initial_rwnd: u32,
    /// For what is sent, or 0.
    pub hop_limit: u32,
    /// It is there, and isn't used as long as its link is as it is.
    pub is_dead: bool,
    /// It depends on what a stack doesn't know: several next hops or an object of them, an encapsulation, a source, a type of
    /// service, a metric that isn't here.
    pub is_odd: bool,
}

impl Route {
    /// The routes beside which it is one of several: same table and same destinations.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        (self.table, self.prefix_len, self.destination) == (other.table, other.prefix_len, other.destination)
            && self.destination.is_v4() == other.destination.is_v4()
    }
}

/// The route in a message, and whether it is there; `None` for other messages, and for what is no row of a table.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<(Route, bool)> {
    let rest = body.get(RTMSG..).filter(|_| matches!(kind, RTM_NEWROUTE | RTM_DELROUTE))?;
    if word(body, 8)? & CLONED != 0 {
        return None;
    }
    let route = read(body, rest)?;
    // Of what is looked up they are the packet's own.
    let is_odd = route.is_odd || body[2] != 0 || body[3] != 0;
    Some((Route { is_odd, ..route }, kind == RTM_NEWROUTE))
}

/// The route in an `rtmsg` and its attributes.
fn read(body: &[u8], rest: &[u8]) -> Option<Route> {
    let any = match i32::from(body[0]) {
        libc::AF_INET => Ip::UNSPECIFIED_V4,
        libc::AF_INET6 => Ip::UNSPECIFIED,
        _ => return None,
    };
    let number = |kind| attribute(rest, kind).and_then(|value| word(value, 0));
    let metrics = attribute(rest, RTA_METRICS).unwrap_or_default();
    let metric = |kind| attribute(metrics, kind).and_then(|value| word(value, 0)).unwrap_or_default();
    let has = |kind| attribute(rest, kind).is_some();
    // RTA_VIA is a gateway of another family: its number, and the address.
    let via = attribute(rest, RTA_VIA).and_then(|via| address(via.get(2..)?));
    let is_strange = attributes(metrics).any(|(kind, _)| !METRICS.contains(&kind));
    let depends = [RTA_MULTIPATH, RTA_ENCAP, RTA_VIA, RTA_NH_ID].into_iter().any(has);
    Some(Route {
        destination: attribute(rest, RTA_DST).and_then(address).unwrap_or(any),
        prefix_len: body[1],
        table: number(RTA_TABLE).unwrap_or(body[4].into()),
        priority: number(RTA_PRIORITY).unwrap_or_default(),
        kind: Kind::of(body[7]),
        scope: body[6],
        interface: number(RTA_OIF).unwrap_or_default(),
        gateway: attribute(rest, RTA_GATEWAY).and_then(address).or(via),
        source: attribute(rest, RTA_PREFSRC).and_then(address),
        mtu: metric(RTAX_MTU),
        mtu_is_locked: metric(RTAX_LOCK) & 1 << RTAX_MTU != 0,
        rto_min_ms: metric(RTAX_RTO_MIN),
        window: metric(RTAX_WINDOW),
        advertised_mss: metric(RTAX_ADVMSS),
        initial_cwnd: metric(RTAX_INITCWND),
        initial_rwnd: metric(RTAX_INITRWND),
        hop_limit: metric(RTAX_HOPLIMIT),
        is_dead: word(body, 8)? & DEAD != 0,
        is_odd: depends || is_strange,
    })
}

/// The routes of a family for which `is_wanted` says so, in the kernel's order: the first `most`, and how many there are.
///
/// # Errors
/// What the kernel says.
pub fn table(
    netlink: &mut Netlink,
    family: u8,
    most: usize,
    is_wanted: impl Fn(&Route) -> bool,
) -> sys::Result<Table<Route>> {
    let mut body = [0; RTMSG];
    body[0] = family;
    netlink.table(RTM_GETROUTE, &body, most, |kind, body| {
        let (route, is_there) = parse(kind, body)?;
        (is_there && is_wanted(&route)).then_some(route)
    })
}

/// All routes of a family, of all tables.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink, family: u8) -> sys::Result<Vec<Route>> {
    Ok(table(netlink, family, usize::MAX, |_| true)?.rows)
}

/// What decides where a packet goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// Whom it is for.
    pub destination: Ip,
    /// Where it comes from, if that is said already.
    pub source: Option<Ip>,
    /// The interface that its socket is bound to; 0 is none.
    pub interface: u32,
    /// Its socket's mark.
    pub mark: u32,
    /// Whose socket it is.
    pub uid: u32,
}

/// The route that the kernel would take, with all that it chose: also the source address.
///
/// # Errors
/// ENETUNREACH without one, and what a route says that leads nowhere.
pub fn lookup(netlink: &mut Netlink, question: &Question) -> sys::Result<Route> {
    let v4 = question.destination.as_v4();
    let mut body = [0; RTMSG];
    let family = if v4.is_some() { libc::AF_INET } else { libc::AF_INET6 };
    (body[0], body[1]) = (family as u8, if v4.is_some() { 32 } else { 128 });
    let mut message = Message::new(RTM_GETROUTE, 0, &body);
    let mut addresses = vec![(RTA_DST, question.destination)];
    if let Some(source) = question.source {
        addresses.push((RTA_SRC, source));
    }
    for (kind, ip) in addresses {
        message = match ip.as_v4() {
            Some(v4) => message.with(kind, &v4),
            None => message.with(kind, &ip.0),
        };
    }
    for (kind, number) in [(RTA_OIF, question.interface), (RTA_MARK, question.mark)] {
        if number != 0 {
            message = message.with(kind, &number.to_ne_bytes());
        }
    }
    let mut found = None;
    netlink.get(message.with(RTA_UID, &question.uid.to_ne_bytes()), |kind, body| {
        let rest = body.get(RTMSG..).filter(|_| kind == RTM_NEWROUTE);
        found = rest.and_then(|rest| read(body, rest)).or(found);
    })?;
    // What was said already isn't said again.
    let found = found.ok_or(Errno(libc::ENETUNREACH))?;
    Ok(Route { source: question.source.or(found.source), ..found })
}

/// A rule: which table is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The smaller number is asked first.
    pub priority: u32,
    /// The table.
    pub table: u32,
    /// It is for all packets, and does nothing but look there.
    pub is_plain: bool,
}

/// Reads a rule of these; `None` for other messages.
fn parse_rule(kind: u16, body: &[u8]) -> Option<Rule> {
    const FR_ACT_TO_TBL: u8 = 1;
    let rest = body.get(RTMSG..).filter(|_| kind == RTM_NEWRULE)?;
    let number = |kind| attribute(rest, kind).and_then(|value| word(value, 0));
    // FRA_SUPPRESS_PREFIXLEN is told of every rule; -1 is none.
    let suppresses = number(FRA_SUPPRESS_PREFIXLEN).is_some_and(|len| len != u32::MAX);
    let narrows = attributes(rest).any(|(kind, _)| !FRA_PLAIN.contains(&kind));
    let is_for_all = half(body, 1) == Some(0) && body[3] == 0 && word(body, 8)? & INVERT == 0;
    Some(Rule {
        priority: number(FRA_PRIORITY).unwrap_or_default(),
        table: number(FRA_TABLE).unwrap_or(body[4].into()),
        is_plain: is_for_all && body[7] == FR_ACT_TO_TBL && !narrows && !suppresses,
    })
}

/// The rules of a family in their order: the first `most`, and how many there are.
///
/// # Errors
/// What the kernel says.
pub fn rule_table(netlink: &mut Netlink, family: u8, most: usize) -> sys::Result<Table<Rule>> {
    let mut body = [0; RTMSG];
    body[0] = family;
    let mut table = netlink.table(RTM_GETRULE, &body, most, parse_rule)?;
    table.rows.sort_by_key(|rule| rule.priority);
    Ok(table)
}

/// All rules of a family, in their order.
///
/// # Errors
/// What the kernel says.
pub fn rules(netlink: &mut Netlink, family: u8) -> sys::Result<Vec<Rule>> {
    Ok(rule_table(netlink, family, usize::MAX)?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Message;

    const MAIN: u32 = 254;
    const LOCAL: u32 = 255;

    #[test]
    fn a_message_is_read() {
        let mut body = [0; RTMSG];
        (body[0], body[1], body[4], body[7]) = (libc::AF_INET as u8, 24, MAIN as u8, 1);
        let message = Message::new(RTM_NEWROUTE, 0, &body)
            .with(RTA_DST, &[192, 0, 2, 0])
            .with(RTA_GATEWAY, &[198, 51, 100, 1])
            .with(RTA_OIF, &7u32.to_ne_bytes())
            .with_nested(RTA_METRICS, |metrics| {
                metrics
                    .with(RTAX_LOCK, &(1u32 << RTAX_MTU).to_ne_bytes())
                    .with(RTAX_MTU, &1400u32.to_ne_bytes())
            });
        let bytes = message.body();
        let (route, is_there) = parse(RTM_NEWROUTE, bytes).expect("a route");
        assert!(is_there && route.mtu_is_locked && !route.is_odd);
        assert_eq!((route.destination, route.prefix_len), (Ip::v4([192, 0, 2, 0]), 24));
        assert_eq!((route.gateway, route.interface, route.mtu), (Some(Ip::v4([198, 51, 100, 1])), 7, 1400));
        assert_eq!((route.table, route.kind), (MAIN, Kind::Unicast));
        assert_eq!(parse(RTM_DELROUTE, bytes).map(|(_, is_there)| is_there), Some(false));
        assert_eq!(parse(RTM_NEWRULE, bytes), None);
        for len in 0..RTMSG {
            assert_eq!(parse(RTM_NEWROUTE, &bytes[..len]), None);
        }
    }

    #[test]
    fn this_hosts_own_routes_and_rules_are_there() {
        let mut netlink = Netlink::open(0).expect("netlink");
        let routes = all(&mut netlink, libc::AF_INET as u8).expect("routes");
        let own = routes.iter().find(|route| route.destination == Ip::v4([127, 0, 0, 1])).expect("own");
        assert_eq!((own.kind, own.table, own.prefix_len, own.is_odd), (Kind::Local, LOCAL, 32, false));
        let question = Question { destination: own.destination, ..Question::default() };
        let found = lookup(&mut netlink, &question).expect("a way to itself");
        assert_eq!((found.kind, found.interface), (Kind::Local, own.interface));
        let rules = rules(&mut netlink, libc::AF_INET as u8).expect("rules");
        assert_eq!(rules.first(), Some(&Rule { priority: 0, table: LOCAL, is_plain: true }));
        assert!(rules.iter().any(|rule| rule.table == MAIN && rule.is_plain));
    }
}
