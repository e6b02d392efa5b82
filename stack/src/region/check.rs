//! Whether everything in a region agrees with everything else.

use core::fmt;

use super::slab::{Record, Slab};
use super::table::Table;
use super::wheel::Timed;
use super::{Parts, Shared};
use crate::demux::{Endpoints, Pairs};
use crate::frames::Frames;
use crate::process::bit;
use crate::settings;
use crate::tcp::tcb::{self, Left, Seldom, Standing, Tcb, Traffic};
use crate::time::Instant;
use crate::udp::{Mark, Membership, UdpSocket, queue};
use crate::wire::ip::Ip;

/// The first invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The part that it is about.
    pub part: &'static str,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.part, self.what)
    }
}

impl core::error::Error for Broken {}

/// Names the part of a check that failed.
trait Of<T> {
    fn of(self, part: &'static str) -> Result<T, Broken>;
}

impl<T> Of<T> for Result<T, &'static str> {
    fn of(self, part: &'static str) -> Result<T, Broken> {
        self.map_err(|what| Broken { part, what })
    }
}

fn holds(holds: bool, part: &'static str, what: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { part, what }) }
}

/// How many records were ever used: what is behind them need not even be looked at.
fn fresh<R>(records: &[R], slab: &Slab) -> usize {
    (slab.fresh() as usize).min(records.len())
}

/// Those records.
fn used<'a, R>(records: &'a [R], slab: &Slab) -> &'a [R] {
    &records[..fresh(records, slab)]
}

impl Parts<'_> {
    /// Looks at every slab, table, wheel and queue, without a change. The time goes with the records that were ever used, and
    /// with the places of the tables.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&mut self) -> Result<(), Broken> {
        self.check_slabs()?;
        self.check_tables()?;
        self.check_wheels()?;
        self.check_listeners()?;
        self.check_ip()?;
        self.check_sockets()?;
        self.check_holders()
    }

    /// The same for frames, whose states are in the shared part.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check_frames(&mut self, shared: &Shared<'_>) -> Result<(), Broken> {
        let frames = Frames { pool: self.pool, records: self.frames, states: shared.frames };
        frames.check().of("frames")?;
        for udp in used(self.udp_sockets, &self.slabs.udp_sockets).iter().filter(|udp| udp.tag.is_used()) {
            for list in [&udp.receive, &udp.errors, &udp.kept] {
                queue::check(&frames, list).of("udp_sockets")?;
            }
            let waiting = udp.receive.frames().saturating_add(udp.errors.frames());
            let is_charged = waiting == udp.receive_charge.frames;
            holds(is_charged, "udp_sockets", "a socket is not charged for the frames that wait to be read")?;
        }
        Ok(())
    }

    fn check_slabs(&mut self) -> Result<(), Broken> {
        macro_rules! slabs {
            ($($name:ident),+) => { $(self.slabs.$name.check(self.$name).of(stringify!($name))?;)+ };
        }
        slabs!(
            tcbs,
            listeners,
            syns,
            udp_sockets,
            memberships,
            bounds,
            settings,
            leases,
            destinations,
            processes,
            traffics,
            blocks,
            group_sources
        );
        Ok(())
    }

    fn check_tables(&mut self) -> Result<(), Broken> {
        let secret = self.header.secret;
        let found =
            Pairs::new(self.tcbs, self.tcp_places, secret).check(|tcb| tcb.is_in_table()).of("tcp_places")?;
        let peers = used(self.tcbs, &self.slabs.tcbs).iter().filter(|tcb| tcb.is_in_table()).count();
        holds(found as usize == peers, "tcp_places", "a connection is not in its table")?;

        let mut left = Left::default();
        for tcb in used(self.tcbs, &self.slabs.tcbs).iter().filter(|tcb| tcb.tag.is_used()) {
            left.moved(Standing::Used, tcb.standing());
        }
        holds(left == *self.left, "left", "connections that nobody uses are not counted as they are")?;

        let found =
            Pairs::new(self.syns, self.syn_places, secret).check(|syn| syn.tag.is_used()).of("syn_places")?;
        holds(found == self.slabs.syns.used(), "syn_places", "a SYN that waits is not in its table")?;

        let listeners = Endpoints::new(self.listeners, self.listener_places, secret);
        let found = listeners.check(|listener| listener.tag.is_used()).of("listener_places")?;
        holds(found == self.slabs.listeners.used(), "listener_places", "a listener is not in its table")?;

        let pairs = Pairs::new(self.udp_sockets, self.udp_pair_places, secret);
        let in_pairs =
            pairs.check(|udp| udp.tag.is_used() && udp.is(Mark::CONNECTED)).of("udp_pair_places")?;
        let endpoints = Endpoints::new(self.udp_sockets, self.udp_places, secret);
        let is_open = |udp: &UdpSocket| udp.tag.is_used() && !udp.is(Mark::CONNECTED) && udp.bound != 0;
        let in_endpoints = endpoints.check(is_open).of("udp_places")?;
        let sockets = used(self.udp_sockets, &self.slabs.udp_sockets);
        let bound = sockets.iter().filter(|udp| udp.tag.is_used() && udp.bound != 0).count();
        let found = in_pairs as usize + in_endpoints as usize;
        holds(found == bound, "udp_places", "a bound socket is in no table")?;

        let (records, slab) = (&*self.settings, &self.slabs.settings);
        let hash_of = |index: u32| {
            let record = records.get(index as usize).filter(|record| record.tag.is_used())?;
            Some(settings::hash(&secret, &record.values))
        };
        let found = Table::new(self.settings_places).check(hash_of).of("settings_places")?;
        holds(found == slab.used(), "settings_places", "settings are not in their table")
    }

    fn check_wheels(&mut self) -> Result<(), Broken> {
        fn idle<R: Record + Timed>(records: &mut [R]) -> bool {
            records.iter_mut().all(|record| record.tag().is_used() || record.entry().deadline().is_none())
        }
        macro_rules! wheels {
            ($($name:ident),+) => { $(
                let count = fresh(self.$name, &self.slabs.$name);
                let records = &mut self.$name[..count];
                self.wheels.$name.check(records).of(stringify!($name))?;
                holds(idle(records), stringify!($name), "a timer runs for a record that is not in use")?;
            )+ };
        }
        wheels!(tcbs, syns);
        Ok(())
    }

    fn check_ip(&mut self) -> Result<(), Broken> {
        let (count, secret) = (self.ip.addresses as usize, self.header.secret);
        holds(count <= self.addresses.len(), "addresses", "more addresses are counted than there are")?;
        self.routing().check().of("routes")?;
        self.wheels.neighbours.check(self.neighbours).of("neighbours")?;
        self.neighbour_cache(Instant(0)).check().of("neighbours")?;
        let hash_of = |ip: &Ip| secret.endpoint((ip, 0));
        self.known_destinations().check(hash_of).of("destinations")?;
        self.reassembly().check().of("datagrams")
    }

    fn check_listeners(&mut self) -> Result<(), Broken> {
        let mut syns = 0;
        for (index, listener) in used(self.listeners, &self.slabs.listeners).iter().enumerate() {
            if !listener.tag.is_used() {
                continue;
            }
            let socket =
                self.tcbs.get(listener.socket as usize).zip(self.seldoms.get(listener.socket as usize));
            let is_its = |(tcb, seldom): (&Tcb, &Seldom)| {
                tcb.tag.is_used() && !tcb.has_peer() && seldom.queue as usize == index + 1
            };
            holds(socket.is_some_and(is_its), "listeners", "a listener's socket does not know it")?;
            let accept = self.accept_queue(listener.accept_head, listener.accept_tail);
            holds(
                accept == Some(listener.accept_len),
                "listeners",
                "an accept queue is not as long as it says",
            )?;
            let waiting = self.syn_queue(index as u32, listener.syn_head, listener.syn_tail);
            holds(waiting == Some(listener.syn_len), "listeners", "a SYN queue is not as long as it says")?;
            holds(
                listener.syn_young <= listener.syn_len,
                "listeners",
                "a SYN queue has more young SYNs than SYNs",
            )?;
            syns += u64::from(listener.syn_len);
        }
        holds(syns == u64::from(self.slabs.syns.used()), "syns", "a SYN waits in no listener's queue")
    }

    /// How many sockets are in an accept queue, if it is a list of connections that ends with `tail`.
    fn accept_queue(&self, head: u32, tail: u32) -> Option<u32> {
        let (mut at, mut last, mut count) = (head, 0, 0);
        while at != 0 {
            let index = at.checked_sub(1)? as usize;
            // Those that were reset meanwhile are in no state to have a peer, and wait for accept(2) all the same.
            self.tcbs.get(index).filter(|tcb| tcb.tag.is_used() && count < self.slabs.tcbs.used())?;
            (last, at, count) = (at, self.seldoms.get(index)?.queue, count + 1);
        }
        (last == tail).then_some(count)
    }

    /// How many SYNs are in a listener's queue, if it is a list of its own that ends with `tail`.
    fn syn_queue(&self, listener: u32, head: u32, tail: u32) -> Option<u32> {
        let (mut at, mut last, mut count) = (head, 0, 0);
        while at != 0 {
            let syn = self.syns.get(at.checked_sub(1)? as usize)?;
            let is_its = syn.tag.is_used() && syn.listener == listener && syn.previous == last;
            (is_its && count < self.slabs.syns.used()).then_some(())?;
            (last, at, count) = (at, syn.next, count + 1);
        }
        (last == tail).then_some(count)
    }

    /// Where processes are attached, a socket is held by some of them; or it waits to be accepted, or its connection ends
    /// without anybody.
    fn check_holders(&self) -> Result<(), Broken> {
        let slots = used(self.processes, &self.slabs.processes).iter().enumerate();
        let slots = slots.filter(|(_, process)| process.tag.is_used());
        let known = slots.fold(0, |known, (slot, _)| known | bit(slot as u32));
        if known == 0 {
            return Ok(());
        }
        let tcp = used(self.tcbs, &self.slabs.tcbs).iter().zip(self.seldoms.iter());
        for (tcb, seldom) in tcp.filter(|(tcb, _)| tcb.tag.is_used()) {
            holds(seldom.holders & !known == 0, "tcbs", "a socket is held by nobody's slot")?;
            let is_kept = tcb.is(tcb::Mark::QUEUED) || tcb.flags.has(tcb::Flags::ORPHAN);
            holds((seldom.holders == 0) == is_kept, "tcbs", "a socket is held by nobody, or by too many")?;
        }
        let udp = used(self.udp_sockets, &self.slabs.udp_sockets).iter().filter(|udp| udp.tag.is_used());
        let mut udp = udp.map(|udp| udp.holders);
        holds(
            udp.all(|holders| holders != 0 && holders & !known == 0),
            "udp_sockets",
            "a socket is held by nobody, or by nobody's slot",
        )
    }

    fn check_traffics(&self) -> Result<(), Broken> {
        let (mut having, mut sending) = (0, 0);
        for (index, tcb) in used(self.tcbs, &self.slabs.tcbs).iter().enumerate() {
            let Some(at) = tcb.traffic.checked_sub(1).filter(|_| tcb.tag.is_used()) else { continue };
            let traffic = self.traffics.get(at as usize).filter(|traffic| traffic.tag.is_used());
            let is_its = traffic.is_some_and(|traffic| traffic.socket as usize == index);
            holds(is_its, "traffics", "a socket's queues are another one's")?;
            having += 1;
            sending += traffic.map_or(0, |traffic| u32::from(traffic.is_sending));
        }
        holds(sending == self.sending.queues, "sending", "queues that send are not as many as are counted")?;
        self.check_waiting()?;
        holds(having == self.slabs.traffics.used(), "traffics", "queues belong to no socket")?;
        let traffics = used(self.traffics, &self.slabs.traffics);
        let resting =
            traffics.iter().filter(|traffic| traffic.tag.is_used() && traffic.is_resting != 0).count();
        let (mut at, mut last, mut count) = (self.resting.oldest, 0, 0);
        while let Some(index) = at.checked_sub(1) {
            let traffic = self.traffics.get(index as usize).filter(|traffic| traffic.tag.is_used());
            let is_there = |traffic: &&Traffic| traffic.is_resting != 0 && traffic.older == last;
            let Some(traffic) = traffic.filter(is_there).filter(|_| count < resting) else {
                return Err(Broken { part: "traffics", what: "the list of queues that rest is none" });
            };
            (last, at, count) = (at, traffic.younger, count + 1);
        }
        let is_whole = count == resting && last == self.resting.youngest;
        holds(is_whole, "traffics", "queues that rest are not in the list of those")
    }

    /// The groups of sockets of UDP: each record is in the list of its socket.
    fn check_memberships(&self) -> Result<(), Broken> {
        let mut found = 0;
        for (index, udp) in used(self.udp_sockets, &self.slabs.udp_sockets).iter().enumerate() {
            let mut at = if udp.tag.is_used() { udp.memberships } else { 0 };
            while let Some(record) = at.checked_sub(1).map(|at| self.memberships.get(at as usize)) {
                let is_its =
                    |record: &&Membership| record.tag.is_used() && record.owner as usize == index + 1;
                let Some(record) = record.filter(is_its).filter(|_| found < self.slabs.memberships.used())
                else {
                    return Err(Broken {
                        part: "memberships",
                        what: "a socket is in a group that is another one's",
                    });
                };
                (at, found) = (record.next, found + 1);
            }
        }
        holds(found == self.slabs.memberships.used(), "memberships", "nobody is in a group that is in use")?;
        let sources = self.slabs.group_sources.used();
        crate::ip::group::check(self.groups, self.group_sources, sources).of("group_sources")
    }

    /// The sockets that wait for queues.
    fn check_waiting(&self) -> Result<(), Broken> {
        let waits = |(tcb, seldom): (&Tcb, &Seldom)| tcb.tag.is_used() && tcb.waits_for_queues(seldom.queue);
        // In an accept queue a link means something else.
        let all =
            used(self.tcbs, &self.slabs.tcbs).iter().zip(self.seldoms.iter()).filter(|both| waits(*both));
        let all = all.count();
        let (mut at, mut last, mut count) = (self.sending.first, 0, 0);
        while let Some(index) = at.checked_sub(1).filter(|_| count <= all) {
            let both = self.tcbs.get(index as usize).zip(self.seldoms.get(index as usize));
            let Some((_, seldom)) = both.filter(|both| waits(*both) && both.1.snd_up.0 == last) else {
                return Err(Broken {
                    part: "sending",
                    what: "the list of sockets that wait for queues is none",
                });
            };
            (last, count) = (at, count + 1);
            at = if seldom.queue == Seldom::LAST { 0 } else { seldom.queue };
        }
        let is_whole = count == all && last == self.sending.last;
        holds(is_whole, "sending", "a socket that waits for queues is not in their list")
    }

    fn check_sockets(&mut self) -> Result<(), Broken> {
        let counted = self.ports().check().of("bounds")?;
        let tcp = used(self.tcbs, &self.slabs.tcbs).iter().zip(self.seldoms.iter());
        let tcp = tcp.filter(|(tcb, _)| tcb.tag.is_used());
        let tcp = tcp.map(|(tcb, seldom)| (seldom.bound, tcb.local_port, 0, tcb.settings));
        let udp = used(self.udp_sockets, &self.slabs.udp_sockets).iter().filter(|udp| udp.tag.is_used());
        let udp = udp.map(|udp| (udp.bound, udp.local_port, 1, udp.settings));
        let (mut bound, mut set) = (0, 0u64);
        for (name, port, protocol, number) in tcp.chain(udp) {
            if let Some(index) = name.checked_sub(1) {
                let record = self.bounds.get(index as usize).filter(|record| record.tag.is_used());
                let is_it = record.is_some_and(|record| record.port == port && record.protocol == protocol);
                holds(is_it, "bounds", "a socket is bound to what is not there")?;
                bound += 1;
            } else {
                holds(port == 0, "bounds", "a socket has a port and is not bound")?;
            }
            if let Some(index) = usize::from(number).checked_sub(1) {
                let record = self.settings.get(index).filter(|record| record.tag.is_used());
                holds(record.is_some(), "settings", "a socket has settings that are not there")?;
                set += 1;
            }
        }
        self.check_traffics()?;
        self.check_memberships()?;
        holds(bound == counted, "bounds", "an address counts sockets that are not there")?;
        let records = used(self.settings, &self.slabs.settings).iter().filter(|record| record.tag.is_used());
        let users = records.fold(0u64, |users, record| users.saturating_add(record.users));
        holds(users == set, "settings", "settings count sockets that are not there")
    }
}
