//! Routes: RTM_GETROUTE of rtnetlink(7), and the rules that choose between tables of them.

use stack::wire::ip::Ip;

use super::{Netlink, address, attribute, attributes, half, word};
use crate::sys;

/// Bytes of `struct rtmsg` and `struct fib_rule_hdr`, which begin alike.
const RTMSG: usize = 12;
// Kinds and attributes (linux/rtnetlink.h, linux/fib_rules.h).
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTAX_LOCK: u16 = 1;
const RTAX_MTU: u16 = 2;
const RTAX_RTO_MIN: u16 = 13;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
/// Attributes that don't narrow what a rule is for.
const FRA_PLAIN: [u16; 4] = [FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN];
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
/// The route was found in a cache of exceptions, and is no row: RTM_F_CLONED.
const CLONED: u32 = 0x200;

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
    /// It depends on what the stack doesn't know: several next hops, an encapsulation, a source, a type of service.
    pub is_odd: bool,
}

/// The route in a message, and whether it is there; `None` for other messages, and for what is no row of a table.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<(Route, bool)> {
    let rest = body.get(RTMSG..).filter(|_| matches!(kind, RTM_NEWROUTE | RTM_DELROUTE))?;
    if word(body, 8)? & CLONED != 0 {
        return None;
    }
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
    let route = Route {
        destination: attribute(rest, RTA_DST).and_then(address).unwrap_or(any),
        prefix_len: body[1],
        table: number(RTA_TABLE).unwrap_or(body[4].into()),
        priority: number(RTA_PRIORITY).unwrap_or_default(),
        kind: Kind::of(body[7]),
        interface: number(RTA_OIF).unwrap_or_default(),
        gateway: attribute(rest, RTA_GATEWAY).and_then(address).or(via),
        source: attribute(rest, RTA_PREFSRC).and_then(address),
        mtu: metric(RTAX_MTU),
        mtu_is_locked: metric(RTAX_LOCK) & 1 << RTAX_MTU != 0,
        rto_min_ms: metric(RTAX_RTO_MIN),
        is_odd: body[2] != 0 || body[3] != 0 || has(RTA_MULTIPATH) || has(RTA_ENCAP) || has(RTA_VIA),
    };
    Some((route, kind == RTM_NEWROUTE))
}

/// All routes of a family, of all tables.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink, family: u8) -> sys::Result<Vec<Route>> {
    let mut body = [0; RTMSG];
    body[0] = family;
    let mut found: Vec<Route> = Vec::new();
    netlink.table(RTM_GETROUTE, &body, |kind, body| {
        if let Some((route, true)) = parse(kind, body)
            && !found.contains(&route)
        {
            found.push(route);
        }
    })?;
    Ok(found)
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

/// The rules of a family, in their order.
///
/// # Errors
/// What the kernel says.
pub fn rules(netlink: &mut Netlink, family: u8) -> sys::Result<Vec<Rule>> {
    const FR_ACT_TO_TBL: u8 = 1;
    let mut body = [0; RTMSG];
    body[0] = family;
    let mut found: Vec<Rule> = Vec::new();
    netlink.table(RTM_GETRULE, &body, |kind, body| {
        let Some(rest) = body.get(RTMSG..).filter(|_| kind == RTM_NEWRULE) else { return };
        let number = |kind| attribute(rest, kind).and_then(|value| word(value, 0));
        // FRA_SUPPRESS_PREFIXLEN is told of every rule; -1 is none.
        let suppresses = number(FRA_SUPPRESS_PREFIXLEN).is_some_and(|len| len != u32::MAX);
        let narrows = attributes(rest).any(|(kind, _)| !FRA_PLAIN.contains(&kind));
        let is_plain = half(body, 1) == Some(0) && body[3] == 0 && body[7] == FR_ACT_TO_TBL;
        let rule = Rule {
            priority: number(FRA_PRIORITY).unwrap_or_default(),
            table: number(FRA_TABLE).unwrap_or(body[4].into()),
            is_plain: is_plain && !narrows && !suppresses,
        };
        if !found.contains(&rule) {
            found.push(rule);
        }
    })?;
    found.sort_by_key(|rule| rule.priority);
    Ok(found)
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
        let rules = rules(&mut netlink, libc::AF_INET as u8).expect("rules");
        assert_eq!(rules.first(), Some(&Rule { priority: 0, table: LOCAL, is_plain: true }));
        assert!(rules.iter().any(|rule| rule.table == MAIN && rule.is_plain));
    }
}
