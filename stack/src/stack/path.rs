//! The way out: from a destination to its next hop on the link, and what waits there.
//!
//! A connection keeps the index of its next hop's neighbour, and the version of all tables when it looked
//! ([`Tcb::route`](crate::tcp::tcb::Tcb::route)): while that is the same and the neighbour was confirmed lately, a segment
//! pays two comparisons. Everything else is out of line here.

use super::Stack;
use crate::device::{Device, Fragment, FrameIndex, Link, Outgoing};
use crate::error::Error;
use crate::frames::{Frames, link, linked};
use crate::ip::hop::{Hop, Via, unpack};
use crate::ip::neighbour::{Due, Heard, Resolution, State};
use crate::ip::path_mtu::V4_MIN;
use crate::ip::tables::Way;
use crate::stats::Counter;
use crate::time::Instant;
use crate::wire::ethernet::Address;
use crate::wire::ip::Ip;

/// [`Tcb::route`](crate::tcp::tcb::Tcb::route) where packets begin with IP's header: no neighbour is needed.
const DIRECT: u16 = u16::MAX;
/// Bytes of memory of the packets that wait for one neighbour (net.ipv4.neigh.default.unres_qlen_bytes): about a hundred of
/// Ethernet's size. What a burst loses beyond these is sent again by the transport.
const PENDING_BYTES: u32 = 212_992;
/// Neighbours whose timers are run at once.
const NEIGHBOURS: usize = 16;

impl<D: Device> Stack<'_, '_, D> {
    /// How packets to a socket's peer leave.
    #[inline]
    pub(super) fn hop_to_peer(&mut self, index: u32) -> Hop {
        match self.plain_hop(index) {
            Some(hop) => hop,
            None => self.find_hop_to_peer(index),
        }
    }

    /// The same, if it is known and nothing more is to be done for it, and packets have neither tags nor fragments.
    #[inline]
    pub(crate) fn plain_hop(&self, index: u32) -> Option<Hop> {
        let parts = &*self.parts;
        let tcb = parts.tcbs.get(index as usize)?;
        let interface = &parts.ip.interface;
        let is_rare = interface.vlan != 0 || tcb.path_mtu <= V4_MIN;
        if tcb.route_version != parts.ip.version() || is_rare {
            return None;
        }
        let destination = match parts.neighbours.get(usize::from(tcb.route).wrapping_sub(1)) {
            Some(neighbour) => neighbour.fresh_link(self.now)?,
            None if tcb.route == DIRECT => Address::default(),
            None => return None,
        };
        Some(Hop { source: interface.link, destination, ..Hop::default() })
    }

    #[cold]
    fn find_hop_to_peer(&mut self, index: u32) -> Hop {
        let Some(tcb) = self.parts.tcbs.get(index as usize) else { return Hop::default() };
        if !tcb.has_peer() {
            return Hop::default();
        }
        let (local, remote, route) = (tcb.local, tcb.remote, tcb.route);
        let may_fragment = tcb.path_mtu <= V4_MIN;
        let version = self.parts.ip.version();
        if tcb.route_version == version && route != 0 {
            // As before, but for the neighbour's state.
            let neighbour = self.parts.neighbours.get(usize::from(route) - 1);
            let known = neighbour.and_then(|neighbour| Some((u32::from(route) - 1, neighbour.link()?)));
            if let Some((neighbour, destination)) = known.filter(|_| route != DIRECT) {
                return Hop { destination, via: Via::Old(neighbour), may_fragment, ..self.hop() };
            } else if route == DIRECT {
                return Hop { may_fragment, ..self.hop() };
            }
        }
        let hop = match self.parts.is_ours(&local) {
            true => self.hop_towards(&remote),
            false => Hop { via: Via::Nowhere(Error::HostUnreachable), ..Hop::default() },
        };
        let is_direct = self.device.capabilities().link == Link::Ip;
        if let Some(tcb) = self.parts.tcbs.get_mut(index as usize) {
            tcb.route = match hop.via {
                Via::Link if is_direct => DIRECT,
                Via::Old(neighbour) => neighbour.saturating_add(1) as u16,
                _ => 0,
            };
            tcb.route_version = version;
            if let Via::Nowhere(error) = hop.via {
                // Packets are dropped, and the error is told when the connection is given up (inet_sk_rebuild_header).
                tcb.soft_error = error.code();
            }
        }
        hop
    }

    /// A hop that begins at our interface.
    fn hop(&self) -> Hop {
        let interface = &self.parts.ip.interface;
        Hop { source: interface.link, tag: interface.tag(), ..Hop::default() }
    }

    /// How packets to a destination leave, for whoever keeps nothing of it.
    pub(crate) fn hop_towards(&mut self, destination: &Ip) -> Hop {
        match self.way(destination) {
            Ok(way) => self.hop_of(&way),
            Err(error) => {
                self.count(Counter::NoRoute);
                Hop { via: Via::Nowhere(error), ..Hop::default() }
            }
        }
    }

    /// The route to a destination.
    ///
    /// # Errors
    /// Those of [`Parts::way`](crate::region::Parts::way).
    pub fn way(&mut self, destination: &Ip) -> Result<Way, Error> {
        self.parts.way(destination, self.device.capabilities().mtu, self.now)
    }

    /// Bytes of the largest datagram of our own link towards a destination.
    pub(crate) fn link_mtu(&mut self, destination: &Ip) -> u32 {
        let way = self.way(destination);
        way.map_or(self.device.capabilities().mtu, |way| way.link_mtu.into())
    }

    /// The hop of a way.
    pub(crate) fn hop_of(&mut self, way: &Way) -> Hop {
        let found = Hop {
            mtu: way.path.mtu,
            link_mtu: way.link_mtu,
            rto_min_ms: u16::try_from(way.route.rto_min_ms).unwrap_or(u16::MAX),
            may_fragment: way.path.may_fragment,
            ..self.hop()
        };
        if self.device.capabilities().link == Link::Ip {
            return found;
        }
        if let Some(destination) = Address::of_group(&way.next_hop) {
            return Hop { destination, ..found };
        }
        if way.route.kind() == crate::ip::route::Kind::Broadcast {
            return Hop { destination: Address::BROADCAST, ..found };
        }
        let hash = self.parts.address_hash(&way.next_hop);
        match self.parts.neighbour_cache(self.now).keep(&way.next_hop, hash) {
            Some((index, destination)) => Hop { destination, via: Via::Old(index), ..found },
            None => Hop { via: Via::Unresolved(way.next_hop), ..found },
        }
    }

    /// What follows once packets were sent by a hop: those that wait do so at their neighbour, and one that was confirmed
    /// long ago is looked after. `heard` is when the transport had a sign of the peer.
    #[inline]
    pub(crate) fn after(&mut self, hop: &mut Hop, heard: Option<Instant>) {
        if hop.waiting != 0 {
            self.wait(hop);
        }
        if let (Via::Old(index), true) = (hop.via, hop.is_used) {
            self.parts.neighbour_cache(self.now).used(index, heard, self.now);
        }
    }

    /// Packets wait for their next hop's link address.
    #[cold]
    fn wait(&mut self, hop: &mut Hop) {
        let Via::Unresolved(next_hop) = hop.via else { return };
        let mut frames =
            Frames { pool: self.parts.pool, records: self.parts.frames, states: self.shared.frames };
        hop.waiting = reversed(&mut frames, hop.waiting);
        for _ in 0..self.parts.frames.len() {
            let mut frames =
                Frames { pool: self.parts.pool, records: self.parts.frames, states: self.shared.frames };
            let Some(frame) = hop.take_waiting(&mut frames) else { break };
            let waiting = &mut self.parts.ip.waiting;
            if waiting.frames >= waiting.limit || !frames.own(frame, waiting, u32::MAX) {
                frames.discard(frame);
                self.count(Counter::NeighbourFailed);
                continue;
            }
            self.count(Counter::NeighbourPending);
            self.wait_for(&next_hop, frame);
        }
    }

    fn wait_for(&mut self, next_hop: &Ip, frame: FrameIndex) {
        let (hash, now) = (self.parts.address_hash(next_hop), self.now);
        match self.parts.neighbour_cache(now).resolve(next_hop, hash, frame.0, now) {
            Resolution::Link(address, _) => self.send_waiting(link(frame), address),
            Resolution::Waits { before, solicit } => {
                self.wait_behind(before.map(FrameIndex), frame);
                if solicit {
                    self.solicit(next_hop, None);
                }
            }
            Resolution::Full => self.drop_waiting(link(frame)),
        }
    }

    /// A packet waits behind those that do already, of which this is the latest. Beyond so many the oldest gives way.
    fn wait_behind(&mut self, before: Option<FrameIndex>, frame: FrameIndex) {
        let records = &mut *self.parts.frames;
        // The latest knows how many they are.
        let count = before.and_then(|before| records.get(before.0 as usize)).map_or(0, |record| record.mate);
        let count = count.saturating_add(1);
        if let Some(record) = records.get_mut(frame.0 as usize) {
            (record.next, record.mate) = (before.map_or(0, link), count);
        }
        let most = (PENDING_BYTES / u32::from(self.device.capabilities().frame_size).max(1)).max(1);
        if count <= most {
            return;
        }
        let mut last = frame;
        for _ in 1..most {
            let next = records.get(last.0 as usize).and_then(|record| linked(record.next));
            let Some(next) = next else { break };
            last = next;
        }
        let rest = records.get_mut(last.0 as usize);
        let rest = rest.map_or(0, |record| core::mem::take(&mut record.next));
        if let Some(record) = records.get_mut(frame.0 as usize) {
            record.mate = most;
        }
        self.drop_waiting(rest);
    }

    /// Sends the packets that waited for a link address, in the order of their coming.
    fn send_waiting(&mut self, list: u32, to: Address) {
        let mut at = reversed(&mut self.frames(), list);
        for _ in 0..self.parts.frames.len() {
            let Some(frame) = linked(at) else { break };
            let Some(record) = self.parts.frames.get(frame.0 as usize).copied() else { break };
            at = record.next;
            let begin = usize::from(record.offset);
            let place =
                self.device.bytes_mut(frame).and_then(|bytes| bytes.get_mut(begin..begin + to.0.len()));
            if let Some(place) = place {
                place.copy_from_slice(&to.0);
                let fragment = Fragment { frame, offset: record.offset, len: record.len };
                self.give(
                    frame,
                    &Outgoing { fragments: &[fragment], checksum: unpack(record.seq), gso_size: 0 },
                );
            }
            self.release_waiting(frame);
        }
    }

    /// Gives a packet of one frame to the device, if it may be; the frame is the caller's still if it has it in a queue.
    pub(super) fn give(&mut self, frame: FrameIndex, packet: &Outgoing<'_>) -> bool {
        if !self.frames().send(frame) {
            return false;
        }
        let is_taken = self.device.send(packet).is_ok();
        if !is_taken {
            self.frames().unsend(frame);
        }
        is_taken
    }

    fn release_waiting(&mut self, frame: FrameIndex) {
        let parts = &mut *self.parts;
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        frames.release(frame, &mut parts.ip.waiting);
    }

    /// Drops packets that waited for a neighbour who doesn't answer. Their sockets are told as by a router (arp_error_report).
    fn failed(&mut self, frame: Option<u32>) {
        let mut list = frame.map_or(0, |frame| frame.wrapping_add(1));
        for _ in 0..self.parts.frames.len() {
            let Some(frame) = linked(list) else { break };
            list = self.parts.frames.get(frame.0 as usize).map_or(0, |record| record.next);
            self.unreachable(frame);
            self.release_waiting(frame);
            self.count(Counter::NeighbourFailed);
        }
    }

    /// Drops packets that wait in a list.
    pub(super) fn drop_waiting(&mut self, mut list: u32) {
        for _ in 0..self.parts.frames.len() {
            let Some(frame) = linked(list) else { break };
            list = self.parts.frames.get(frame.0 as usize).map_or(0, |record| record.next);
            self.release_waiting(frame);
            self.count(Counter::NeighbourFailed);
        }
    }

    /// What a claim, or the owner's word, came to.
    pub(super) fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Ready(frame, address) => self.send_waiting(frame.wrapping_add(1), address),
            Heard::Verify(ip, address) => self.solicit(&ip, Some(address)),
        }
    }

    /// The owner says where a neighbour is ([`Parts::set_neighbour`](crate::region::Parts::set_neighbour)); what waited for
    /// it is sent, or dropped.
    pub fn set_neighbour(&mut self, ip: &Ip, address: Option<Address>, state: State) {
        match self.parts.set_neighbour(ip, address, state, self.now) {
            Ok(heard) => self.heard(heard),
            Err(frame) => self.failed(frame),
        }
    }

    /// The owner has removed a neighbour.
    pub fn remove_neighbour(&mut self, ip: &Ip) {
        let hash = self.parts.address_hash(ip);
        let frame = self.parts.neighbour_cache(self.now).remove(ip, hash);
        self.failed(frame);
    }

    /// Does what is due of IP; true if more may be.
    pub(super) fn run_ip_timers(&mut self) -> bool {
        let (now, until) = (self.now, self.parts.ip.paths_until);
        if until != 0 && until <= now.0 {
            self.run_path_timers();
        }
        if self.parts.ip.reassembly.next().is_some_and(|at| at <= now) {
            self.run_reassembly_timers();
        }
        if self.parts.ip.groups_due != 0 && self.parts.ip.groups_due <= now.0 {
            self.run_group_timers();
        }
        self.parts.wheels.neighbours.is_due(now) && self.run_neighbour_timers()
    }

    /// Neighbours are asked again, or given up.
    #[cold]
    fn run_neighbour_timers(&mut self) -> bool {
        let (mut due, mut count) = ([None; NEIGHBOURS], 0);
        let now = self.now;
        let more = self.parts.neighbour_cache(now).poll(now, NEIGHBOURS, |one| {
            if let Some(place) = due.get_mut(count) {
                (*place, count) = (Some(one), count + 1);
            }
        });
        for one in due.into_iter().flatten() {
            match one {
                Due::Solicit(ip, address) => self.solicit(&ip, address),
                Due::Failed(_, frame) => self.failed(frame),
            }
        }
        more
    }
}

/// The same list the other way round.
fn reversed(frames: &mut Frames<'_>, mut list: u32) -> u32 {
    let mut done = 0;
    for _ in 0..frames.len() {
        let Some(frame) = linked(list) else { break };
        let Some(record) = frames.record_mut(frame) else { break };
        list = core::mem::replace(&mut record.next, done);
        done = link(frame);
    }
    done
}
