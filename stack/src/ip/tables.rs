//! The tables of IP in a region: what their owner feeds, and what a packet asks.
//!
//! The owner of the stack says which addresses, routes and neighbours there are, as netlink tells it; a socket looks again
//! after each change. On an interface of its own ([`super::Interface::OWNS`]) the stack finds its neighbours itself.

use super::Interface;
use super::group::{self, Groups};
use super::neighbour::{Cache, Heard, Neighbour, Settings, State, reachable_time};
use super::path_mtu::{Cache as Paths, Known};
use super::reassembly::{Limits, Reassembly};
use super::route::source::{self, Address};
use super::route::{Kind, Route, Routes, masked};
use super::state::LastWay;
use crate::error::Error;
use crate::region::Parts;
use crate::time::{Duration, Instant};
use crate::udp::group::Filter;
use crate::wire::ethernet;
use crate::wire::ip::Ip;

/// How long a drawn ReachableTime is used. RFC 4861 §6.3.2: "A new random value should be calculated when BaseReachableTime
/// changes (due to Router Advertisements) or at least every few hours even if no Router Advertisements are received."
const DRAW: u64 = Duration::from_secs(7200).0;
/// Datagrams in fragments that one source may have waiting.
pub(crate) const PER_SOURCE: u32 = 16;

/// How a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Whom packets are given to on the link.
    pub next_hop: Ip,
    /// The address of ours that they come from.
    pub source: Ip,
    /// Bytes of the largest datagram on our own link.
    pub link_mtu: u16,
    /// What the path takes, as far as is known.
    pub path: Known,
    /// The route, with its hints.
    pub route: Route,
}

/// The error of a lookup that leads nowhere (fib_props in Linux).
fn refusal(kind: Kind) -> Option<Error> {
    match kind {
        Kind::Unicast | Kind::Broadcast => None,
        // On our own link there is no way; the kernel may have one.
        Kind::Local | Kind::Elsewhere => Some(Error::NetworkUnreachable),
        Kind::Unreachable => Some(Error::HostUnreachable),
        Kind::Prohibit => Some(Error::Forbidden),
        Kind::Blackhole => Some(Error::Invalid),
    }
}

impl Parts<'_> {
    /// Our addresses, in the order in which they came.
    #[inline]
    #[must_use]
    pub fn our_addresses(&self) -> &[Address] {
        self.addresses.get(..self.ip.addresses as usize).unwrap_or_default()
    }

    /// Whether an address is one of ours.
    #[inline]
    #[must_use]
    pub fn is_ours(&self, address: &Ip) -> bool {
        self.our_addresses().iter().any(|ours| ours.ip == *address)
    }

    /// Whether an address is the broadcast of a subnet that we are on.
    #[must_use]
    pub fn is_subnet_broadcast(&self, address: &Ip) -> bool {
        // A broadcast has two host bits at least, all ones; three of four other addresses end so quickly.
        address.0[15] & 3 == 3 && self.our_addresses().iter().any(|ours| ours.broadcast() == Some(*address))
    }

    /// Says how the stack is on its link.
    pub fn set_interface(&mut self, interface: &Interface) {
        self.ip.interface = *interface;
        self.routing().touch();
    }

    /// Adds an address of ours, or changes its prefix and flags.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of addresses; `Invalid` for one that no host has.
    pub fn add_address(&mut self, address: &Address) -> Result<(), Error> {
        let ip = &address.ip;
        if ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified() || address.prefix_len > 128 {
            return Err(Error::Invalid);
        }
        let known = self.our_addresses().iter().position(|ours| ours.ip == *ip);
        let at = known.unwrap_or(self.our_addresses().len());
        *self.addresses.get_mut(at).ok_or(Error::NoBuffers)? = *address;
        self.ip.addresses = self.ip.addresses.max(at as u32 + 1);
        self.routing().touch();
        if known.is_none() && !ip.is_v4() {
            // RFC 4861 §7.2.1: "When a multicast-capable interface becomes enabled, the node MUST join the all-nodes multicast
            // address on that interface, as well as the solicited-node multicast address corresponding to each of the IP
            // addresses assigned to the interface."
            self.join_group(&ip.solicited_node(), Instant(0))?;
        }
        Ok(())
    }

    /// Makes these our addresses, as many as there is room for, in this order, which is theirs when one is chosen. They are ones
    /// that a host can have, and differ. How many were taken.
    pub fn set_addresses(&mut self, addresses: &[Address]) -> usize {
        let len = addresses.len().min(self.addresses.len());
        let addresses = &addresses[..len];
        if self.our_addresses() == addresses {
            return len;
        }
        let is_among = |all: &[Address], ip: &Ip| all.iter().any(|address| address.ip == *ip);
        for at in 0..self.our_addresses().len() {
            let ip = self.addresses[at].ip;
            if !ip.is_v4() && !is_among(addresses, &ip) {
                self.leave_group(&ip.solicited_node(), Instant(0));
            }
        }
        for address in addresses.iter().filter(|address| !address.ip.is_v4()) {
            if !self.is_ours(&address.ip) {
                // Without room for its group packets to the address alone are ours: its owner answers who asks for it.
                let _ = self.join_group(&address.ip.solicited_node(), Instant(0));
            }
        }
        self.addresses[..len].copy_from_slice(addresses);
        self.ip.addresses = len as u32;
        self.routing().touch();
        len
    }

    /// Adds an address of ours, and the route to its subnet that comes with it (fib_add_ifaddr in Linux).
    ///
    /// # Errors
    /// Those of both.
    pub fn join_subnet(&mut self, ip: &Ip, prefix_len: u8) -> Result<(), Error> {
        self.add_address(&Address { ip: *ip, prefix_len, ..Address::default() })?;
        let destination = masked(ip, prefix_len);
        self.add_route(&Route { destination, prefix_len, ..Route::default() })
    }

    /// Removes an address of ours: its connections hear nothing any more. False if it was none.
    pub fn remove_address(&mut self, ip: &Ip) -> bool {
        let len = self.our_addresses().len();
        let Some(at) = self.our_addresses().iter().position(|ours| ours.ip == *ip) else { return false };
        self.addresses.copy_within(at + 1..len, at);
        self.ip.addresses = len as u32 - 1;
        self.routing().touch();
        if !ip.is_v4() {
            self.leave_group(&ip.solicited_node(), Instant(0));
        }
        true
    }

    /// One more listens to a group: packets to it are ours, and routers are told if the addresses are ours alone.
    ///
    /// # Errors
    /// `Invalid` if it is none; `NoBuffers` at the limit of groups.
    pub fn join_group(&mut self, group: &Ip, now: Instant) -> Result<(), Error> {
        if !group.is_multicast() {
            return Err(Error::Invalid);
        }
        self.join_group_by(group, Filter::Exclude, now)
    }

    /// The same of who listens to some of its sources, which follow, or to all.
    pub(crate) fn join_group_by(&mut self, group: &Ip, filter: Filter, now: Instant) -> Result<(), Error> {
        let joined = self.with_groups(|groups| groups.join(group, filter, now));
        if joined { Ok(()) } else { Err(Error::NoBuffers) }
    }

    /// Does something with the groups; what is due then is noted.
    pub(crate) fn with_groups<R>(&mut self, act: impl FnOnce(&mut Groups<'_>) -> R) -> R {
        let (sources, slab) = (&mut *self.group_sources, &mut self.slabs.group_sources);
        let mut groups = Groups { groups: self.groups, sources, slab, tellers: &mut self.ip.tellers };
        let result = act(&mut groups);
        self.ip.groups_due = groups.next().map_or(0, |due| due.0);
        result
    }

    /// One less listens to a group; false if nobody did.
    pub fn leave_group(&mut self, group: &Ip, now: Instant) -> bool {
        self.with_groups(|groups| groups.leave(group, Filter::Exclude, now))
    }

    /// Whether packets to a group are ours.
    #[must_use]
    pub fn listens_to(&self, group: &Ip) -> bool {
        *group == group::ALL_NODES || *group == group::ALL_SYSTEMS || group::listens(self.groups, group)
    }

    /// Adds a route, or replaces the one of the same destinations and metric.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of routes; `Invalid` for one that makes no sense.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        self.routing().insert(route).map_err(|refused| match refused {
            super::route::Refused::Full => Error::NoBuffers,
            super::route::Refused::Nonsense => Error::Invalid,
        })
    }

    /// Removes the route of these destinations and this metric; false if there is none.
    pub fn remove_route(&mut self, route: &Route) -> bool {
        self.routing().remove(route)
    }

    /// Says where a neighbour is, and in which state. What waited for it, if anything, is [`crate::stack::Stack`]'s to send or
    /// drop: see [`Cache::set`].
    ///
    /// # Errors
    /// The packet that waited is dropped.
    pub fn set_neighbour(
        &mut self,
        ip: &Ip,
        link: Option<ethernet::Address>,
        state: State,
        now: Instant,
    ) -> Result<Heard, Option<u32>> {
        let hash = self.address_hash(ip);
        self.neighbour_cache(now).set(ip, hash, link, state, now)
    }

    /// The routes.
    pub fn routing(&mut self) -> Routes<'_> {
        Routes::new(&mut self.ip.table, self.routes)
    }

    /// The neighbours.
    pub fn neighbour_cache(&mut self, now: Instant) -> Cache<'_> {
        let default = Settings::default();
        let random = self.header.secret.words(&[REACHABLE, now.0 / DRAW]);
        let reachable = reachable_time(default.reachable, random);
        let settings = Settings { reachable, is_fed: !self.ip.interface.owns(), ..default };
        let state = &mut self.ip.neighbours;
        Cache::new(state, self.neighbours, self.neighbour_places, &mut self.wheels.neighbours, settings)
    }

    /// What is known of paths.
    pub fn known_paths(&mut self) -> Paths<'_> {
        Paths::new(self.paths)
    }

    /// Datagrams in fragments.
    pub fn reassembly(&mut self) -> Reassembly<'_> {
        let limits = Limits { per_source: PER_SOURCE };
        let state = &mut self.ip.reassembly;
        Reassembly::new(state, self.datagrams, self.pieces, self.datagram_places, limits)
    }

    /// Neighbours that packets wait for: where the addresses are the owner's, he is to find them.
    pub fn wanted(&self) -> impl Iterator<Item = Ip> {
        let incomplete =
            |neighbour: &&Neighbour| neighbour.is_used() && neighbour.state() == State::Incomplete;
        self.neighbours.iter().filter(incomplete).map(Neighbour::ip)
    }

    /// Neighbours that the owner takes for stale, and that something was sent to since: he is to see whether they are there, and
    /// [`Cache::told`] notes that he was told.
    pub fn unconfirmed(&self) -> impl Iterator<Item = Ip> {
        self.neighbours.iter().filter(|neighbour| neighbour.is_unconfirmed()).map(Neighbour::ip)
    }

    /// The hash of an address in these tables.
    #[inline]
    #[must_use]
    pub fn address_hash(&self, ip: &Ip) -> u32 {
        self.header.secret.endpoint((ip, 0))
    }

    /// A number that nobody predicts.
    pub(crate) fn draw(&mut self) -> u32 {
        self.ip.drawn = self.ip.drawn.wrapping_add(1);
        self.header.secret.words(&[DRAWN, self.ip.drawn.into()])
    }

    /// Whether an error may be sent to a host now; then it is ([`super::icmp::limit`]).
    pub(crate) fn may_send_error_to(&mut self, host: &Ip, now: Instant) -> bool {
        let (hash, random) = (self.address_hash(host), self.draw());
        super::icmp::limit::Limits { global: &mut self.ip.errors, buckets: self.buckets }
            .allows(hash, now, random)
    }

    /// How a destination is reached from an interface whose datagrams are at most `mtu` bytes.
    ///
    /// # Errors
    /// `NetworkUnreachable` without a route, or what the route says; `AddressNotAvailable` when none of our addresses will
    /// do.
    pub fn way(&mut self, destination: &Ip, mtu: u32, now: Instant) -> Result<Way, Error> {
        let (last, version) = (&self.ip.last_way, self.ip.version());
        if last.version != version || last.device_mtu != mtu || last.destination != *destination {
            self.ip.last_way = self.find_way(destination, mtu)?;
        }
        let LastWay { next_hop, source, route, hash, link_mtu, .. } = self.ip.last_way;
        let link_mtu = u16::try_from(link_mtu).unwrap_or(u16::MAX);
        let path = match route.mtu_is_locked {
            0 => self.known_paths().known(destination, hash, link_mtu, now),
            _ => Known { mtu: link_mtu, may_fragment: destination.is_v4() },
        };
        Ok(Way { next_hop, source, link_mtu, path, route })
    }

    fn find_way(&mut self, destination: &Ip, device_mtu: u32) -> Result<LastWay, Error> {
        let index = self.routing().find(destination).ok_or(Error::NetworkUnreachable)?;
        let route = *self.routes.get(index as usize).ok_or(Error::Corrupt)?;
        if let Some(error) = refusal(route.kind()) {
            return Err(error);
        }
        if self.is_ours(destination) {
            return Err(Error::NetworkUnreachable);
        }
        let next_hop = route.next_hop(destination);
        let source = if route.source.is_unspecified() {
            let prefers_public = self.ip.interface.flags & Interface::PREFERS_TEMPORARY == 0;
            source::choose(self.our_addresses(), destination, &next_hop, prefers_public)
        } else {
            Some(route.source)
        };
        let source = source.ok_or(Error::AddressNotAvailable)?;
        let of = |limit: u32| if limit == 0 { u32::MAX } else { limit };
        let link_mtu = device_mtu.min(of(route.mtu)).min(of(self.ip.interface.mtu));
        let (version, hash) = (self.ip.version(), self.address_hash(destination));
        let destination = *destination;
        Ok(LastWay {
            destination,
            next_hop,
            source,
            route,
            version,
            device_mtu,
            hash,
            link_mtu,
            neighbour: 0,
        })
    }
}

/// What hashes are made for.
const REACHABLE: u64 = 0x7265_6163;
const DRAWN: u64 = 0x6472_6177;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::route::V4_BITS;
    use crate::region::memory::{Memory, TINY};

    const OURS: Ip = Ip::v4([192, 0, 2, 1]);
    const THEM: Ip = Ip::v4([192, 0, 2, 2]);
    const FAR: Ip = Ip::v4([198, 51, 100, 7]);
    const NOW: Instant = Instant(1_000_000_000);

    fn address(ip: Ip) -> Address {
        Address { ip, prefix_len: V4_BITS + 24, ..Address::default() }
    }

    fn subnet() -> Route {
        Route { destination: Ip::v4([192, 0, 2, 0]), prefix_len: V4_BITS + 24, ..Route::default() }
    }

    #[test]
    fn what_the_owner_feeds_is_what_a_packet_finds() {
        let mut memory = Memory::new(&TINY);
        let mut parts = memory.parts();
        assert_eq!(parts.way(&THEM, 1500, NOW), Err(Error::NetworkUnreachable));
        assert_eq!((parts.add_route(&subnet()), parts.add_address(&address(OURS))), (Ok(()), Ok(())));
        let way = parts.way(&THEM, 1500, NOW).expect("a way");
        assert_eq!((way.next_hop, way.source, way.link_mtu, way.path.mtu), (THEM, OURS, 1500, 1500));
        let prefix = V4_BITS;
        let default = Route {
            destination: Ip::UNSPECIFIED_V4,
            gateway: THEM,
            mtu: 1400,
            prefix_len: prefix,
            ..subnet()
        };
        assert_eq!(parts.add_route(&default), Ok(()));
        let way = parts.way(&FAR, 1500, NOW).expect("a way");
        assert_eq!((way.next_hop, way.source, way.link_mtu), (THEM, OURS, 1400));
        assert!(parts.remove_route(&default) && !parts.remove_route(&default));
        assert_eq!(parts.way(&FAR, 1500, NOW), Err(Error::NetworkUnreachable));
        assert_eq!(parts.way(&OURS, 1500, NOW), Err(Error::NetworkUnreachable), "that is the kernel's");
    }

    #[test]
    fn a_route_says_why_it_leads_nowhere() {
        let rows = [
            (Kind::Elsewhere, Error::NetworkUnreachable),
            (Kind::Unreachable, Error::HostUnreachable),
            (Kind::Prohibit, Error::Forbidden),
            (Kind::Blackhole, Error::Invalid),
        ];
        let mut memory = Memory::new(&TINY);
        let mut parts = memory.parts();
        for (kind, error) in rows {
            parts.add_route(&Route { kind: kind as u8, ..subnet() }).expect("room");
            assert_eq!(parts.way(&THEM, 1500, NOW), Err(error));
        }
    }

    #[test]
    fn all_addresses_are_replaced_in_their_order() {
        let mut memory = Memory::new(&TINY);
        let mut parts = memory.parts();
        let v6 = |last| {
            let mut ip = Ip([0xfd; 16]);
            ip.0[15] = last;
            Address { ip, prefix_len: 64, ..Address::default() }
        };
        let most = parts.addresses.len();
        assert_eq!(parts.set_addresses(&[v6(1), address(OURS)]), 2);
        let version = parts.ip.version();
        assert_eq!(parts.set_addresses(&[v6(1), address(OURS)]), 2);
        assert_eq!(parts.ip.version(), version, "nothing has changed");
        assert_eq!(parts.set_addresses(&[address(THEM), address(OURS)]), 2);
        assert_ne!(parts.ip.version(), version);
        assert_eq!(parts.our_addresses(), [address(THEM), address(OURS)]);
        assert!(!parts.listens_to(&v6(1).ip.solicited_node()));
        let many: Vec<Address> = (0..=most as u8).map(v6).collect();
        assert_eq!((parts.set_addresses(&many), parts.our_addresses()), (most, &many[..most]));
        assert!(parts.listens_to(&v6(0).ip.solicited_node()));
        assert_eq!((parts.set_addresses(&[]), parts.our_addresses().len()), (0, 0));
    }

    #[test]
    fn addresses_come_and_go_and_every_socket_looks_again() {
        let mut memory = Memory::new(&TINY);
        let mut parts = memory.parts();
        let before = parts.ip.version();
        for ip in [OURS, FAR] {
            assert_eq!(parts.add_address(&address(ip)), Ok(()));
        }
        assert_eq!(parts.add_address(&address(THEM)), Err(Error::NoBuffers));
        assert_eq!(parts.add_address(&address(Ip::BROADCAST)), Err(Error::Invalid));
        assert!(parts.is_ours(&OURS) && parts.is_subnet_broadcast(&Ip::v4([192, 0, 2, 255])));
        let changed = parts.ip.version();
        assert!(parts.remove_address(&OURS) && !parts.remove_address(&OURS));
        assert!(!parts.is_ours(&OURS) && parts.is_ours(&FAR));
        assert!(before != changed && changed != parts.ip.version());
    }
}
