//! A network in virtual time: any number of hosts, one seed, and everything that can happen to a packet.
//!
//! A [`Host`] is whatever polls a device; here its device is a [`Port`]. Ports are joined by a segment of two or more: what one
//! sends passes its path *up*, is forwarded by its Ethernet destination, and passes the path *down* of each port that
//! it is for. So two hosts with a path each way are a wire, and many with a slow path down to one of them are a bottleneck
//! that they share. A [`path::Path`] loses, delays, reorders, duplicates, corrupts, limits the rate and has a finite queue.
//!
//! Nothing here reads a clock, and all chance comes from the seed: a run is its seed. When a test fails, the seed and the
//! last packets are printed, as lines that read beside a capture; [`Simulation::tap`] writes a pcapng for Wireshark.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use stack::time::{Duration, Instant};
use stack::wire::ethernet;

pub mod any;
pub mod craft;
pub mod cut;
pub mod forge;
pub mod hand;
pub mod line;
pub mod memory;
pub mod moved;
pub mod path;
pub mod port;
pub mod random;
pub mod raw;
pub mod stranger;
pub mod tap;
pub mod tcp;
pub mod trace;
pub mod udp;

use path::{Path, Way};
use port::{Packet, Port, Setup};
use random::Random;
use tap::Tap;
use trace::{Trace, What};

/// Something that polls a device.
pub trait Host {
    /// The time is `now`: packets arrived, frames are complete, or the deadline that the host named has come. When it wants to be
    /// polled next if nothing happens before; what it has flushed is on its way.
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant>;
}

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub usize);

/// A host and its port.
struct Place<H> {
    host: H,
    port: Port,
    /// Its segment, once it is joined to one.
    segment: Option<usize>,
    up: Way,
    down: Way,
    /// The earliest poll that is among the events, in ns.
    planned: u64,
    /// Whether it is to be polled now.
    is_due: bool,
}

/// What is to happen.
enum Event {
    /// A packet has passed the path up and is in the middle of its segment.
    Middle { from: usize, packet: Packet },
    /// A packet has passed the path down.
    Arrival { to: usize, packet: Packet },
    /// A host named this time, or a frame is complete.
    Poll { node: usize },
}

/// The network.
pub struct Simulation<H> {
    now: u64,
    seed: u64,
    random: Random,
    places: Vec<Place<H>>,
    segments: Vec<Vec<usize>>,
    /// When, in which order of making, and what. The order makes equal times deterministic.
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<Event>>,
    unused: Vec<u32>,
    made: u64,
    happened: u64,
    due: Vec<usize>,
    trace: Trace,
    tap: Option<Tap>,
}

impl<H: Host> Simulation<H> {
    /// A network without hosts, at time 0.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: 0,
            seed,
            random: Random::new(seed),
            places: Vec::new(),
            segments: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            unused: Vec::new(),
            made: 0,
            happened: 0,
            due: Vec::new(),
            trace: Trace::default(),
            tap: None,
        }
    }

    /// Keeps every packet from now on, for [`Self::journal`].
    pub fn keep_journal(&mut self) {
        self.trace.keep_all();
    }

    /// Every packet since then and what happened to it, in order.
    pub fn journal(&mut self) -> Vec<trace::Record> {
        self.trace.journal()
    }

    /// Adds a host with a port of this kind.
    pub fn add(&mut self, host: H, setup: Setup) -> Node {
        let seed = self.random.next();
        let (up, down) = (Way::new(Path::IDEAL), Way::new(Path::IDEAL));
        let port = Port::new(setup, seed);
        self.places.push(Place { host, port, segment: None, up, down, planned: u64::MAX, is_due: false });
        let node = self.places.len() - 1;
        self.make_due(node);
        Node(node)
    }

    /// Joins hosts to one segment; for each the path of what it sends and of what it gets.
    pub fn join(&mut self, members: &[(Node, Path, Path)]) {
        let segment = self.segments.len();
        self.segments.push(members.iter().map(|(Node(node), ..)| *node).collect());
        for (Node(node), up, down) in members {
            let place = &mut self.places[*node];
            assert!(place.segment.is_none(), "host {node} is on a segment");
            (place.segment, place.up, place.down) = (Some(segment), Way::new(*up), Way::new(*down));
        }
    }

    /// Joins two hosts by a wire: the path from the first to the second, and the one back.
    pub fn wire(&mut self, a: Node, b: Node, there: Path, back: Path) {
        self.join(&[(a, there, Path::IDEAL), (b, back, Path::IDEAL)]);
    }

    /// The paths of a host may change while it runs: a link that goes down is one that loses everything.
    pub fn paths(&mut self, Node(node): Node) -> (&mut Path, &mut Path) {
        let place = &mut self.places[node];
        (&mut place.up.path, &mut place.down.path)
    }

    /// Writes every packet that a host sends or gets to this tap.
    pub fn tap(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        Instant(self.now)
    }

    /// Packets that arrived, were forwarded, and polls at a time that was named.
    #[must_use]
    pub const fn happened(&self) -> u64 {
        self.happened
    }

    /// Chance, for whoever drives the hosts: from the same seed.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A host. It is polled before time goes on, since whoever has it may have changed something.
    pub fn host(&mut self, Node(node): Node) -> &mut H {
        self.make_due(node);
        &mut self.places[node].host
    }

    /// A host, to look at: it isn't polled for it.
    #[must_use]
    pub fn look(&self, Node(node): Node) -> &H {
        &self.places[node].host
    }

    /// A host and its port, likewise.
    pub fn host_and_port(&mut self, Node(node): Node) -> (&mut H, &mut Port) {
        self.make_due(node);
        let place = &mut self.places[node];
        (&mut place.host, &mut place.port)
    }

    /// A host's port, to look at.
    #[must_use]
    pub fn port(&self, Node(node): Node) -> &Port {
        &self.places[node].port
    }

    /// What a host's path up, or down, did to packets.
    #[must_use]
    pub fn counts(&self, Node(node): Node) -> (path::Counts, path::Counts) {
        (self.places[node].up.counts, self.places[node].down.counts)
    }

    /// Polls whoever is to be polled, and then lets the next thing happen; false if nothing is left that could.
    pub fn step(&mut self) -> bool {
        while let Some(node) = self.due.pop() {
            self.poll(node);
        }
        let Some(Reverse((at, ..))) = self.queue.peek().copied() else { return false };
        self.now = self.now.max(at);
        // All that happens at the same time, so that a host sees a burst as one.
        while let Some(Reverse((next, _, index))) = self.queue.peek().copied().filter(|next| next.0.0 <= at) {
            self.queue.pop();
            debug_assert!(next <= self.now);
            let Some(event) = self.events[index as usize].take() else { continue };
            self.unused.push(index);
            self.happen(event);
        }
        true
    }

    /// Lets time pass up to this moment, or until nothing is left that could happen. False in the latter case.
    pub fn run_until(&mut self, end: Instant) -> bool {
        loop {
            while let Some(node) = self.due.pop() {
                self.poll(node);
            }
            match self.queue.peek() {
                Some(Reverse((at, ..))) if *at <= end.0 => self.step(),
                next => {
                    let is_left = next.is_some();
                    self.now = self.now.max(end.0);
                    return is_left;
                }
            };
        }
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, length: Duration) -> bool {
        self.run_until(self.now() + length)
    }

    fn make_due(&mut self, node: usize) {
        let place = &mut self.places[node];
        if !place.is_due {
            place.is_due = true;
            self.due.push(node);
        }
    }

    fn plan(&mut self, at: u64, event: Event) {
        let index = match self.unused.pop() {
            Some(index) => index,
            None => {
                self.events.push(None);
                self.events.len() as u32 - 1
            }
        };
        self.events[index as usize] = Some(event);
        self.made += 1;
        self.queue.push(Reverse((at, self.made, index)));
    }

    fn happen(&mut self, event: Event) {
        self.happened += 1;
        match event {
            Event::Middle { from, packet } => self.forward(from, packet),
            Event::Arrival { to, packet } => self.arrive(to, packet),
            Event::Poll { node } => {
                if self.places[node].planned <= self.now {
                    self.places[node].planned = u64::MAX;
                    self.make_due(node);
                }
            }
        }
    }

    fn poll(&mut self, node: usize) {
        if let Some(packet) = self.places[node].port.joining.take() {
            self.deliver(node, packet);
        }
        let place = &mut self.places[node];
        place.is_due = false;
        place.port.now = Instant(self.now);
        let wanted = place.host.poll(Instant(self.now), &mut place.port);
        let wanted = [wanted, place.port.next_completion()].into_iter().flatten().min();
        if let Some(at) = wanted {
            self.wake(node, at.0.max(self.now));
        }
        while let Some(packet) = self.places[node].port.take_sent() {
            self.note(node, What::Sent, &packet);
            self.send(node, packet);
        }
    }

    fn note(&mut self, node: usize, what: What, packet: &Packet) {
        let link = self.places[node].port.setup().link;
        self.trace.note(self.now, node, what, link, &packet.bytes);
        if let Some(tap) = self.tap.as_mut().filter(|_| matches!(what, What::Sent | What::Got)) {
            tap.write(self.now, node, link, what == What::Sent, &packet.bytes);
        }
    }

    /// A packet leaves a host: whole, if its path is one that carries what was not cut.
    fn send(&mut self, from: usize, packet: Packet) {
        if packet.gso_size > 0 && !self.places[from].up.path.is_whole {
            let link = self.places[from].port.setup().link;
            let mut spare = std::mem::take(&mut self.places[from].port.spare);
            cut::cut(&packet, link, &mut spare, |segment| self.pass(from, true, segment));
            spare.push(packet.bytes);
            self.places[from].port.spare = spare;
        } else {
            self.pass(from, true, packet);
        }
    }

    /// A packet enters a path.
    fn pass(&mut self, node: usize, is_up: bool, mut packet: Packet) {
        let place = &mut self.places[node];
        let way = if is_up { &mut place.up } else { &mut place.down };
        let link = place.port.setup().link;
        let fate = way.fate(self.now, packet.bytes.len(), &mut self.random);
        if let Some(bit) = fate.flipped {
            cut::complete(&mut packet);
            let place = bit as usize / 8 % packet.bytes.len().max(1);
            if let Some(byte) = packet.bytes.get_mut(place) {
                *byte ^= 1 << (bit % 8);
            }
            self.trace.note(self.now, node, What::Corrupted, link, &packet.bytes);
        }
        if let Some(lost) = fate.lost {
            self.trace.note(self.now, node, What::Dropped(lost), link, &packet.bytes);
            self.places[node].port.spare.push(packet.bytes);
            return;
        }
        if let Some(at) = fate.again {
            self.trace.note(self.now, node, What::Duplicated, link, &packet.bytes);
            let copy = packet.clone();
            self.move_on(node, is_up, at, copy);
        }
        self.move_on(node, is_up, fate.at, packet);
    }

    /// A packet leaves a path at this time.
    fn move_on(&mut self, node: usize, is_up: bool, at: u64, packet: Packet) {
        match (is_up, at > self.now) {
            (true, true) => self.plan(at, Event::Middle { from: node, packet }),
            (true, false) => self.forward(node, packet),
            // An arrival is always an event of its own: the host is polled after it, and not while it polls.
            (false, _) => self.plan(at, Event::Arrival { to: node, packet }),
        }
    }

    /// A packet is in the middle of its segment: on to whom it is for.
    fn forward(&mut self, from: usize, packet: Packet) {
        let Some(segment) = self.places[from].segment else { return };
        let members = std::mem::take(&mut self.segments[segment]);
        let destination = match ethernet::parse(&packet.bytes) {
            Ok((frame, _)) if members.len() > 2 => Some(frame.destination),
            _ => None,
        };
        let known = destination.filter(|address| !address.is_multicast());
        let known = known.and_then(|address| {
            members.iter().find(|node| self.places[**node].port.setup().address == address).copied()
        });
        match known {
            Some(to) => self.pass(to, false, packet),
            None => {
                let mut others = members.iter().copied().filter(|node| *node != from).peekable();
                let mut packet = Some(packet);
                while let Some(to) = others.next() {
                    let copy = if others.peek().is_some() { packet.clone() } else { packet.take() };
                    if let Some(copy) = copy {
                        self.pass(to, false, copy);
                    }
                }
            }
        }
        self.segments[segment] = members;
    }

    /// A packet is at a host's port.
    fn arrive(&mut self, to: usize, mut packet: Packet) {
        let setup = *self.places[to].port.setup();
        if packet.gso_size > 0 && !setup.gro {
            let mut spare = std::mem::take(&mut self.places[to].port.spare);
            cut::cut(&packet, setup.link, &mut spare, |segment| self.deliver(to, segment));
            spare.push(packet.bytes);
            self.places[to].port.spare = spare;
        } else {
            if packet.checksum.is_some() && !setup.takes_partial {
                cut::complete(&mut packet);
            }
            self.deliver_joined(to, packet);
        }
        if setup.moderation.0 > 0 {
            self.wake(to, self.now + setup.moderation.0);
        } else {
            self.make_due(to);
        }
    }

    /// Holds a packet until the next one of its connection joins it, another one comes, or the host is polled.
    fn deliver_joined(&mut self, to: usize, packet: Packet) {
        let port = &mut self.places[to].port;
        if !port.setup().gro {
            return self.deliver(to, packet);
        }
        let link = port.setup().link;
        if let Some(held) = &mut port.joining
            && cut::join(held, &packet, link)
        {
            port.spare.push(packet.bytes);
            return;
        }
        if let Some(held) = port.joining.replace(packet) {
            self.deliver(to, held);
        }
    }

    /// Polls a host at this time, if it isn't polled before.
    fn wake(&mut self, node: usize, at: u64) {
        if at < self.places[node].planned {
            self.places[node].planned = at;
            self.plan(at, Event::Poll { node });
        }
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        self.places[to].port.now = Instant(self.now);
        let is_taken = self.places[to].port.deliver(&packet);
        self.note(to, if is_taken { What::Got } else { What::Dropped(path::Lost::Ring) }, &packet);
        self.places[to].port.spare.push(packet.bytes);
    }
}

impl<H> Simulation<H> {
    /// What is printed when a test fails: the seed, and what was on the wire.
    #[must_use]
    pub fn report(&self) -> String {
        let head = format!("seed {}, at {} ns, the last packets:", self.seed, self.now);
        std::iter::once(head).chain(self.trace.lines()).collect::<Vec<String>>().join("\n")
    }
}

impl<H> Drop for Simulation<H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}
