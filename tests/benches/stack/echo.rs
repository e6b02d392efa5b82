//! Request and answer of 64 B on connections that are there: a data segment arrives, the program reads it, writes as much, and a
//! segment leaves. One connection is drawn for each echo.

use std::time::{Duration, Instant as Clock};

use harness::sim::random::Random;

use super::far::{ACK, FIN, MESSAGE, NEAR, PSH, Packet, Peer, SYN, Seen, far_end};
use super::server::{Ours, Server};

/// Between two echoes, in nanoseconds of virtual time.
const STEP: u64 = 1_000;

/// Connections, and their far ends.
pub(crate) struct Echo<S> {
    pub(crate) server: S,
    peers: Vec<Peer>,
    random: Random,
    packet: Packet,
    /// The far ends' clock, in nanoseconds.
    now: u64,
    /// The answer is acknowledged by the next request; else by a segment of its own, outside of what is measured.
    piggybacks: bool,
}

impl<S: Server> Echo<S> {
    /// No connection yet.
    pub(crate) fn new(server: S, connections: u32, piggybacks: bool) -> Self {
        let (random, packet, peers) =
            (Random::new(7), Packet::new(), Vec::with_capacity(connections as usize));
        Self { server, peers, random, packet, now: 1 << 30, piggybacks }
    }

    /// So many connections, each by a handshake; a first echo ends the time of quick acknowledgments.
    pub(crate) fn opened(server: S, connections: u32, piggybacks: bool) -> Self {
        let mut echo = Self::new(server, connections, piggybacks);
        for index in 0..connections as usize {
            echo.handshake(index);
            echo.one(index);
        }
        echo
    }

    /// The next connection, which has this number.
    pub(crate) fn handshake(&mut self, index: usize) {
        self.peers.push(Peer { seq: 1000, ..Peer::default() });
        self.deliver(index, SYN, &[]);
        self.server.poll();
        let seen = self.wait();
        assert_eq!((seen.flags, seen.ack, seen.to), (SYN | ACK, 1001, far_end(index as u32)));
        seen.taken_by(&mut self.peers[index]);
        self.deliver(index, ACK, &[]);
        self.server.poll();
        assert_eq!(self.server.accept(), index);
    }

    /// One echo on a connection that is drawn; what it took in nanoseconds.
    pub(crate) fn once(&mut self) -> u64 {
        let index = self.random.below(self.peers.len() as u64) as usize;
        self.one(index)
    }

    /// One echo on this connection; what it took in nanoseconds.
    pub(crate) fn one(&mut self, index: usize) -> u64 {
        self.now += STEP;
        self.server.advance(STEP);
        self.deliver(index, PSH | ACK, &[index as u8; MESSAGE]);
        let from = Clock::now();
        let got = self.server.echo(index);
        let took = from.elapsed().as_nanos() as u64;
        assert_eq!(got, MESSAGE);
        self.take_answer(index);
        if !self.piggybacks {
            self.deliver(index, ACK, &[]);
            self.server.poll();
        }
        took
    }

    /// A segment of this connection's far end arrives.
    fn deliver(&mut self, index: usize, flags: u8, text: &[u8]) {
        let (peer, ends) = (&mut self.peers[index], [far_end(index as u32), NEAR]);
        self.packet.segment(ends, peer, flags, (self.now / 1_000_000) as u32, text);
        self.server.deliver(&self.packet);
        let one = u32::from(flags & (SYN | FIN) != 0);
        peer.seq = peer.seq.wrapping_add(text.len() as u32 + one);
    }

    /// The answer; at the start of a connection an acknowledgment may precede it (Linux's quick ones).
    fn take_answer(&mut self, index: usize) {
        let mut text = 0;
        while text < MESSAGE {
            let seen = self.wait();
            let peer = &mut self.peers[index];
            assert_eq!((seen.to, seen.ack), (far_end(index as u32), peer.seq), "{seen:?}");
            seen.taken_by(peer);
            text += seen.text;
        }
        assert_eq!(text, MESSAGE);
    }

    /// A segment that must come: at once, but the kernel now and then leaves its work for a thread.
    fn wait(&mut self) -> Seen {
        let from = Clock::now();
        loop {
            match self.server.take() {
                Some(seen) => return seen,
                None => assert!(from.elapsed().as_secs() < 5, "no answer"),
            }
        }
    }
}

impl Echo<Ours> {
    /// Echoes on so many connections whose requests arrive together; what each of them took in nanoseconds.
    pub(crate) fn burst(&mut self, count: usize) -> u64 {
        self.now += STEP * count as u64;
        self.server.advance(STEP * count as u64);
        // Neighbours are as far from each other as any: they were drawn.
        let mut drawn: Vec<usize> =
            (0..count).map(|_| self.random.below(self.peers.len() as u64) as usize).collect();
        drawn.sort_unstable();
        drawn.dedup();
        for index in &drawn {
            self.deliver(*index, PSH | ACK, &[*index as u8; MESSAGE]);
        }
        let from = Clock::now();
        self.server.poll();
        for index in &drawn {
            assert_eq!(self.server.answer(*index), MESSAGE);
        }
        let took = from.elapsed().as_nanos() as u64;
        for index in &drawn {
            self.take_answer(*index);
        }
        for index in &drawn {
            self.deliver(*index, ACK, &[]);
        }
        self.server.machine.run();
        took / drawn.len() as u64
    }

    /// Ends a connection; the far end closes first or we do.
    pub(crate) fn close(&mut self, index: usize, far_first: bool) {
        let socket = self.server.sockets[index];
        if far_first {
            self.deliver(index, FIN | ACK, &[]);
            self.server.poll();
            assert_eq!(self.server.machine.stack().receive(socket, &mut [&mut [0]]), Ok(0));
        }
        self.server.machine.stack().close(socket).expect("a socket");
        let peer = &mut self.peers[index];
        while let Some(seen) = self.server.take() {
            seen.taken_by(peer);
        }
        self.deliver(index, if far_first { ACK } else { FIN | ACK }, &[]);
        self.server.poll();
        while self.server.take().is_some() {}
    }
}

/// Nanoseconds of echoes, in order, without the clock's own.
pub(crate) struct Samples {
    sorted: Vec<u64>,
    /// Echoes that were made, those to warm up among them.
    pub(crate) all: usize,
}

impl Samples {
    /// What this part of the echoes took at most.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let index = (self.sorted.len() as f64 * part) as usize;
        self.sorted.get(index).map_or(f64::NAN, |ns| *ns as f64)
    }
}

/// So many echoes, or as many as there is time for, after a tenth of them to warm up.
pub(crate) fn samples(mut once: impl FnMut() -> u64, count: usize, longest: Duration) -> Samples {
    let warm_up = count / 10;
    for _ in 0..warm_up {
        once();
    }
    let (clock, from) = (clock_cost(), Clock::now());
    let mut sorted = Vec::with_capacity(count);
    while sorted.len() < count && from.elapsed() < longest {
        sorted.push(once().saturating_sub(clock));
    }
    sorted.sort_unstable();
    Samples { all: warm_up + sorted.len(), sorted }
}

/// What two looks at the clock take, in nanoseconds.
pub(crate) fn clock_cost() -> u64 {
    let mut took: Vec<u64> = (0..10_001).map(|_| Clock::now().elapsed().as_nanos() as u64).collect();
    took.sort_unstable();
    took[took.len() / 2]
}
