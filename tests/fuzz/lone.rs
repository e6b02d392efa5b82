//! A host alone: the test is its peers and its wire, and says what comes, byte for byte.

use harness::sim::Host;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::ip;
use harness::sim::tcp::{PORT, Plan, TcpHost, limits};
use stack::region::slab::Handle;
use stack::seq::Seq;
use stack::stack::Stack;
use stack::stats::Counter;
use stack::tcp::state::State;
use stack::tcp::tcb::Tcb;
use stack::time::{Duration, Instant};
use stack::wire::checksum::{Sum, pseudo};
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::Ip;
use stack::wire::tcp::options::Options;
use stack::wire::{ipv4, ipv6, protocol, tcp};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;
pub(super) const URG: u8 = 32;

/// A segment as it is to stand on the wire, right or wrong.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) source: (Ip, u16),
    pub(super) destination: (Ip, u16),
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    /// Any bytes; they are padded to whole words.
    pub(super) options: Vec<u8>,
    pub(super) text: Vec<u8>,
    /// The header's length in words, if it isn't what it should be.
    pub(super) words: Option<u8>,
    /// Added to the right checksum.
    pub(super) error: u16,
}

impl Segment {
    /// The packet.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4).min(40), 0);
        let words = self.words.unwrap_or(5 + options.len() as u8 / 4);
        let mut segment = Vec::new();
        segment.extend_from_slice(&self.source.1.to_be_bytes());
        segment.extend_from_slice(&self.destination.1.to_be_bytes());
        segment.extend_from_slice(&self.seq.to_be_bytes());
        segment.extend_from_slice(&self.ack.to_be_bytes());
        segment.extend_from_slice(&[words << 4, self.flags]);
        segment.extend_from_slice(&self.window.to_be_bytes());
        segment.extend_from_slice(&[0, 0]);
        segment.extend_from_slice(&self.urgent.to_be_bytes());
        segment.extend_from_slice(&options);
        segment.extend_from_slice(&self.text);
        let sum = pseudo(&self.source.0, &self.destination.0, protocol::TCP, segment.len() as u32);
        let sum = sum.bytes(&segment).checksum().wrapping_add(self.error);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet(&self.source.0, &self.destination.0, protocol::TCP, &segment)
    }
}

/// A packet to the host, from whoever.
pub(super) fn packet(source: &Ip, destination: &Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + 40 + payload.len()];
    let link = Address([2, 0, 0, 0, 0, 2]);
    let ethertype = if source.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let frame = ethernet::Frame { destination: US, source: link, tags: [None; 2], ethertype };
    let at = frame.emit(&mut bytes).expect("room");
    let rest = &mut bytes[at..];
    let at = at
        + if source.is_v4() {
            ipv4::Header::new(source, destination, protocol, 64)
                .and_then(|head| head.emit(payload.len(), rest))
        } else {
            ipv6::Header::new(source, destination, protocol, 64)
                .and_then(|head| head.emit(payload.len(), rest))
        }
        .expect("room");
    bytes.truncate(at);
    bytes.extend_from_slice(payload);
    bytes
}

/// The host's address on the link.
pub(super) const US: Address = Address([2, 0, 0, 0, 0, 1]);
/// Its address, and a peer's.
pub(super) const OURS: Ip = ip(1);
pub(super) const THEIRS: Ip = ip(2);

/// What the host has sent.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) to: (Ip, u16),
    pub(super) from: u16,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Options,
    pub(super) text: Vec<u8>,
}

impl Answer {
    /// The segment in a packet of the host's, whose every checksum must be right.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let (frame, rest) = ethernet::parse(bytes).expect("a frame");
        let (source, destination, payload) = match frame.ethertype {
            ethernet::IPV4 => {
                let (datagram, payload) = ipv4::parse(rest).expect("a datagram");
                (datagram.header.source(), datagram.header.destination(), payload)
            }
            ethernet::IPV6 => {
                let (datagram, payload) = ipv6::parse(rest).expect("a datagram");
                (datagram.header.source, datagram.header.destination, payload)
            }
            _ => return None,
        };
        tcp::verify(payload, &source, &destination).ok()?;
        let (segment, text) = tcp::parse(payload).ok()?;
        let head = segment.header;
        Some(Self {
            to: (destination, head.destination.get()),
            from: head.source.get(),
            seq: head.seq().0,
            ack: head.ack().0,
            flags: head.flags().0 as u8,
            window: head.window.get(),
            options: Options::parse(segment.options),
            text: text.to_vec(),
        })
    }

    /// Whether it has these control bits of SYN, FIN, RST and ACK, and no others.
    pub(super) fn is(&self, flags: u8) -> bool {
        self.flags & (SYN | FIN | RST | ACK) == flags
    }
}

/// The host, its device, and the time.
pub(super) struct Lone {
    pub(super) host: TcpHost,
    pub(super) port: Port,
    pub(super) now: Instant,
}

/// One of its connections, as the peer sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) port: u16,
    /// The next sequence number of ours (SND.NXT), and of the host's (RCV.NXT).
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// The host's socket.
    pub(super) socket: Handle,
}

impl Lone {
    /// A host that listens, accepts and does nothing else.
    pub(super) fn new() -> Self {
        let plan = Plan { stays: true, reads_from: Instant(u64::MAX), ..Plan::default() };
        let host = TcpHost::server(1, &limits(1024), plan).knowing(&[2]);
        let mut lone = Self { host, port: Port::spare(Setup::plain(1)), now: Instant(1_000_000_000) };
        lone.poll();
        lone
    }

    /// The host's turn; what it sends.
    pub(super) fn poll(&mut self) -> Vec<Vec<u8>> {
        self.port.depart(self.now);
        self.host.poll(self.now, &mut self.port);
        self.port.depart(self.now)
    }

    /// A packet comes; what the host sends.
    pub(super) fn hears_bytes(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.port.arrive(self.now, bytes);
        self.poll()
    }

    /// The same for segments.
    pub(super) fn hears(&mut self, segment: &Segment) -> Vec<Answer> {
        self.hears_bytes(&segment.bytes()).iter().filter_map(|bytes| Answer::of(bytes)).collect()
    }

    /// Time passes.
    pub(super) fn wait(&mut self, length: Duration) -> Vec<Answer> {
        let (end, mut all) = (self.now + length, Vec::new());
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(50));
            all.extend(self.poll().iter().filter_map(|bytes| Answer::of(bytes)));
        }
        all
    }

    /// A call.
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        self.host.with(self.now, &mut self.port, act)
    }

    pub(super) fn counter(&self, counter: Counter) -> u64 {
        self.host.counter(counter)
    }

    pub(super) fn tcb(&mut self, peer: &Peer) -> Tcb {
        self.with(|stack| stack.parts.tcb(peer.socket).copied()).unwrap_or_default()
    }

    pub(super) fn state(&mut self, peer: &Peer) -> Option<State> {
        self.with(|stack| stack.state(peer.socket)).ok()
    }

    /// A connection of a peer's port to the host, with these options in its SYN.
    pub(super) fn open(&mut self, port: u16, options: &[u8]) -> Peer {
        let seq = 1000 * u32::from(port);
        let before = self.host.talks.len();
        let mut peer = Peer { port, seq: seq + 1, ack: 0, socket: Handle { index: 0, generation: 0 } };
        let syn = Segment { seq, flags: SYN, options: options.to_vec(), ..peer.segment() };
        let answers = self.hears(&syn);
        let [answer] = &answers[..] else { panic!("{answers:?} to a SYN") };
        assert!(answer.is(SYN | ACK) && answer.ack == seq + 1, "{answer:?}");
        peer.ack = answer.seq + 1;
        let stamps = answer.options.timestamps.map(|stamps| timestamps(20, stamps.tsval));
        let last = Segment { options: stamps.unwrap_or_default(), ..peer.segment() };
        self.hears(&last);
        assert_eq!(self.host.talks.len(), before + 1, "it was accepted");
        peer.socket = self.host.talks[before].socket.expect("open");
        peer
    }
}

/// The timestamps option.
pub(super) fn timestamps(tsval: u32, tsecr: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &tsval.to_be_bytes(), &tsecr.to_be_bytes()].concat()
}

impl Peer {
    /// An acknowledgment of all that came, without text.
    pub(super) fn segment(&self) -> Segment {
        Segment {
            source: (THEIRS, self.port),
            destination: (OURS, PORT),
            seq: self.seq,
            ack: self.ack,
            flags: ACK,
            window: 60_000,
            urgent: 0,
            options: Vec::new(),
            text: Vec::new(),
            words: None,
            error: 0,
        }
    }

    /// Text, and the peer counts it as sent.
    pub(super) fn says(&mut self, text: &[u8]) -> Segment {
        let segment = Segment { text: text.to_vec(), flags: ACK | PSH, ..self.segment() };
        self.seq = self.seq.wrapping_add(text.len() as u32);
        segment
    }

    /// FIN, likewise.
    pub(super) fn ends(&mut self) -> Segment {
        let segment = Segment { flags: ACK | FIN, ..self.segment() };
        self.seq = self.seq.wrapping_add(1);
        segment
    }

    /// Takes what the host sent.
    pub(super) fn takes(&mut self, answers: &[Answer]) {
        for answer in answers.iter().filter(|answer| answer.to.1 == self.port) {
            let end = answer.seq.wrapping_add(answer.text.len() as u32);
            let end = end.wrapping_add(u32::from(answer.flags & FIN != 0));
            if Seq(self.ack).lt(Seq(end)) {
                self.ack = end;
            }
        }
    }
}

/// The right checksum of nothing in particular: for bytes that a target writes anew.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    Sum::ZERO.bytes(bytes).checksum()
}
