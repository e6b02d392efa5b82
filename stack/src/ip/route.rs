//! Where packets go: the longest prefix that matches, in a table that its owner keeps current. Which of our addresses they
//! come from is in [`source`].
//!
//! Routes lie in the order in which they are tried: longer prefixes first, then by address, then by metric. So a lookup is a
//! binary search for each length that occurs (a bitmap says which those are), and the routes of IPv4 are those of
//! the IPv4-mapped addresses, with prefixes of 96 to 128 bits.
//!
//! A socket keeps the index that [`Routes::find`] gave together with [`Table::version`]: while the version is the table's,
//! the index is right. That is one comparison for each packet.

use core::cmp::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::wire::ip::Ip;

pub mod source;

#[cfg(test)]
mod tests;

/// Bits that IPv4's prefixes have in front.
pub const V4_BITS: u8 = 96;
const BITS_MAX: u8 = 128;

coded! {
    /// What a route does (rtnetlink's RTN_ types).
    pub enum Kind: u8 else Unreachable {
        /// Out on our link, to the gateway or to the destination itself.
        Unicast = 0,
        /// One of our own addresses.
        Local = 1,
        /// To all on the link: a subnet's broadcast address.
        Broadcast = 2,
        /// There is a way, but not on our link: the kernel's.
        Elsewhere = 3,
        /// No way: EHOSTUNREACH.
        Unreachable = 4,
        /// Forbidden: EACCES.
        Prohibit = 5,
        /// Dropped silently: EINVAL to who asks.
        Blackhole = 6,
    }
}

/// A route. Zero in a hint is "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route {
    /// The destinations it is for: their first [`Route::prefix_len`] bits; the rest is zero.
    pub destination: Ip,
    /// The next hop; unspecified when the destination is on the link.
    pub gateway: Ip,
    /// The address to send from (RTA_PREFSRC); unspecified when [`source`] chooses.
    pub source: Ip,
    /// Of routes for the same destinations, the lowest wins.
    pub metric: u32,
    /// Bytes of the largest datagram (RTAX_MTU).
    pub mtu: u32,
    /// Most bytes of the window that we advertise (RTAX_WINDOW).
    pub window: u32,
    /// The least that the retransmission timeout is, in ms (RTAX_RTO_MIN).
    pub rto_min_ms: u32,
    /// The MSS that we advertise (RTAX_ADVMSS).
    pub advertised_mss: u16,
    /// The first congestion window, in segments (RTAX_INITCWND).
    pub initial_cwnd: u16,
    /// The first window that we advertise, in segments (RTAX_INITRWND).
    pub initial_rwnd: u16,
    /// Of [`Route::destination`], of 128: IPv4's have [`V4_BITS`] more.
    pub prefix_len: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// For what is sent (RTAX_HOPLIMIT).
    pub hop_limit: u8,
    /// Not 0: the MTU isn't changed by what routers say (RTAX_LOCK).
    pub mtu_is_locked: u8,
    /// No meaning; zero.
    pub reserved: u16,
}

impl Route {
    /// Its kind; an unknown one leads nowhere.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind::decode(self.kind)
    }

    /// Whom a packet for `destination` is given to on the link.
    ///
    /// RFC 1122 §3.3.1: "If the destination is on a connected network, the datagram is sent directly to the
    /// destination host; otherwise, it has to be routed to a gateway on a connected network."
    #[must_use]
    pub fn next_hop(&self, destination: &Ip) -> Ip {
        if self.gateway.is_unspecified() { *destination } else { self.gateway }
    }

    /// The order in which routes are tried: longer prefixes first, then addresses, then metrics.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.order(other.prefix_len, &other.destination, other.metric)
    }

    /// No bits behind the prefix, and gateway and source of the same version.
    fn is_sound(&self) -> bool {
        let same_version = |ip: &Ip| ip.is_unspecified() || ip.is_v4() == self.destination.is_v4();
        self.prefix_len <= BITS_MAX
            && masked(&self.destination, self.prefix_len) == self.destination
            && same_version(&self.source)
            && same_version(&self.gateway)
    }

    fn order(&self, prefix_len: u8, destination: &Ip, metric: u32) -> Ordering {
        let lengths = prefix_len.cmp(&self.prefix_len);
        lengths.then(self.destination.0.cmp(&destination.0)).then(self.metric.cmp(&metric))
    }
}

/// The first bits of an address, with zeros behind.
#[must_use]
pub fn masked(ip: &Ip, prefix_len: u8) -> Ip {
    let mask = u128::MAX.checked_shl(u32::from(BITS_MAX.saturating_sub(prefix_len))).unwrap_or(0);
    Ip((u128::from_be_bytes(ip.0) & mask).to_be_bytes())
}

/// The table's own state. Zero bytes are an empty table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Table {
    /// Which lengths of prefixes occur: bit n of word n / 64.
    lengths: [u64; 3],
    /// Routes.
    len: u32,
    /// Which state of the table this is.
    version: u32,
}

impl Table {
    /// Another one for each change, and never 0: a socket whose version is 0 has not looked yet.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }
}

/// Why a route was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room.
    Full,
    /// Bits behind the prefix, more than 128 of them, or a gateway or source of the other version.
    Nonsense,
}

/// The table over borrowed records.
#[derive(Debug)]
pub struct Routes<'a> {
    table: &'a mut Table,
    records: &'a mut [Route],
}

impl<'a> Routes<'a> {
    /// The table in these records.
    #[must_use]
    pub fn new(table: &'a mut Table, records: &'a mut [Route]) -> Self {
        Self { table, records }
    }

    fn len(&self) -> usize {
        (self.table.len as usize).min(self.records.len())
    }

    /// The routes, in order.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.records[..self.len()]
    }

    /// The table's state.
    #[must_use]
    pub const fn table(&self) -> &Table {
        self.table
    }

    /// The index of the best route to a destination: the longest prefix, then the lowest metric.
    ///
    /// RFC 1812 §5.2.4.3 (2): "Longest Match".
    #[must_use]
    pub fn find(&self, destination: &Ip) -> Option<u32> {
        let shortest = u32::from(if destination.is_v4() { V4_BITS } else { 0 });
        for word in (0..self.table.lengths.len() as u32).rev() {
            let mut lengths = *self.table.lengths.get(word as usize)?;
            while lengths != 0 {
                let bit = lengths.ilog2();
                lengths &= !(1 << bit);
                let length = word * u64::BITS + bit;
                if length < shortest || length > u32::from(BITS_MAX) {
                    continue;
                }
                let (length, prefix) = (length as u8, masked(destination, length as u8));
                let at = self.position(length, &prefix, 0);
                let is_it = |route: &&Route| route.prefix_len == length && route.destination == prefix;
                if self.all().get(at).filter(is_it).is_some() {
                    return Some(at as u32);
                }
            }
        }
        None
    }

    /// The route of an index, if the version that the index is from is the table's.
    #[inline]
    #[must_use]
    pub fn cached(&self, index: u32, version: u32) -> Option<&Route> {
        if version == self.table.version { self.all().get(index as usize) } else { None }
    }

    fn has(&self, length: u8) -> bool {
        self.table.lengths.get(usize::from(length) / 64).is_some_and(|word| word >> (length % 64) & 1 == 1)
    }

    fn set_has(&mut self, length: u8, has: bool) {
        if let Some(word) = self.table.lengths.get_mut(usize::from(length) / 64) {
            *word = *word & !(1 << (length % 64)) | u64::from(has) << (length % 64);
        }
    }

    /// Where a route of this order is or would be.
    fn position(&self, prefix_len: u8, destination: &Ip, metric: u32) -> usize {
        self.all().partition_point(|route| route.order(prefix_len, destination, metric).is_lt())
    }

    fn is_at(&self, at: usize, route: &Route) -> bool {
        let order = |found: &Route| found.order(route.prefix_len, &route.destination, route.metric);
        self.all().get(at).is_some_and(|found| order(found).is_eq())
    }

    fn changed(&mut self) {
        self.table.version = self.table.version.wrapping_add(1).max(1);
    }

    /// Adds a route, or replaces the one of the same destinations and metric.
    ///
    /// # Errors
    /// The table is as it was.
    pub fn insert(&mut self, route: &Route) -> Result<(), Refused> {
        if !route.is_sound() {
            return Err(Refused::Nonsense);
        }
        let at = self.position(route.prefix_len, &route.destination, route.metric);
        if !self.is_at(at, route) {
            let len = self.len();
            if len == self.records.len() {
                return Err(Refused::Full);
            }
            self.records.copy_within(at..len, at + 1);
            self.table.len = len as u32 + 1;
            self.set_has(route.prefix_len, true);
        }
        self.records[at] = *route;
        self.changed();
        Ok(())
    }

    /// Takes out the route of these destinations and this metric; false if there is none.
    pub fn remove(&mut self, route: &Route) -> bool {
        let at = self.position(route.prefix_len, &route.destination, route.metric);
        if !self.is_at(at, route) {
            return false;
        }
        let len = self.len();
        self.records.copy_within(at + 1..len, at);
        self.table.len = len as u32 - 1;
        // Those of one length lie together.
        let beside = [at.checked_sub(1), Some(at)].into_iter().flatten();
        let mut others = beside.filter_map(|at| self.all().get(at));
        if !others.any(|other| other.prefix_len == route.prefix_len) {
            self.set_has(route.prefix_len, false);
        }
        self.changed();
        true
    }

    /// Makes these the routes: at once, so that no lookup finds a part of them. False if they were that already, and nothing is
    /// changed then.
    ///
    /// # Errors
    /// Too many, one that makes no sense, or out of order: the table is as it was.
    pub fn replace(&mut self, routes: &[Route]) -> Result<bool, Refused> {
        if routes.len() > self.records.len() {
            return Err(Refused::Full);
        }
        let sorted = routes.windows(2).all(|pair| pair[0].compare(&pair[1]).is_lt());
        if !sorted || !routes.iter().all(Route::is_sound) {
            return Err(Refused::Nonsense);
        }
        let lengths = routes.iter().fold([0; 3], |mut lengths: [u64; 3], route| {
            lengths[usize::from(route.prefix_len) / 64] |= 1 << (route.prefix_len % 64);
            lengths
        });
        if self.all() == routes && self.table.lengths == lengths {
            return Ok(false);
        }
        for (place, route) in self.records.iter_mut().zip(routes) {
            if place != route {
                *place = *route;
            }
        }
        (self.table.len, self.table.lengths) = (routes.len() as u32, lengths);
        self.changed();
        Ok(true)
    }

    /// Empties the table: its owner has lost messages and reads everything again.
    pub fn clear(&mut self) {
        (self.table.len, self.table.lengths) = (0, [0; 3]);
        self.changed();
    }

    /// Takes note of what isn't in the table but in what sockets keep of a lookup: addresses that came or went, the link's
    /// MTU. Every socket looks again.
    pub fn touch(&mut self) {
        self.changed();
    }

    /// Whether lookups find what is there.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.table.len as usize > self.records.len() {
            return Err("a table of routes counts more than it has");
        }
        let sorted = self
            .all()
            .windows(2)
            .all(|pair| pair[0].order(pair[1].prefix_len, &pair[1].destination, pair[1].metric).is_lt());
        let masks = self.all().iter().all(|route| {
            route.prefix_len <= BITS_MAX && masked(&route.destination, route.prefix_len) == route.destination
        });
        let occurs = |length| self.all().iter().any(|route| route.prefix_len == length);
        match (sorted, masks, (0..=BITS_MAX).all(|length| self.has(length) == occurs(length))) {
            (false, _, _) => Err("routes are out of order"),
            (_, false, _) => Err("a route has bits behind its prefix"),
            (_, _, false) => Err("a table of routes has another set of lengths than its routes"),
            _ => Ok(()),
        }
    }
}
