//! A host without a stack, which sends what a test makes up and keeps what it gets: an attacker, or a peer that is driven by
//! hand.

use stack::time::Instant;
use stack::wire::checksum::Sum;
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::Ip;
use stack::wire::tcp::options::Options;
use stack::wire::tcp::{self, Flags, Header};
use stack::wire::{ipv4, ipv6, protocol};

use super::Host;
use super::port::Port;
use super::raw::{Raw, Send};
use super::tcp::TcpHost;

/// A segment, made up.
#[derive(Clone, Debug)]
pub struct Forged {
    /// The numbers of the hosts on the link: who sends, and who gets it.
    pub link: (u8, u8),
    /// The ends that it names.
    pub ends: ((Ip, u16), (Ip, u16)),
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Text.
    pub text: Vec<u8>,
}

impl Forged {
    /// Its packet, with right checksums.
    ///
    /// # Panics
    /// If its ends are of different versions.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let ((source, source_port), (destination, destination_port)) = self.ends;
        let len = tcp::HEADER_LEN + self.options.len() + self.text.len();
        let mut bytes = vec![0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + len];
        let address = |number| Address([2, 0, 0, 0, 0, number]);
        let ethertype = if source.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let frame = ethernet::Frame {
            destination: address(self.link.1),
            source: address(self.link.0),
            tags: [None; 2],
            ethertype,
        };
        let mut at = frame.emit(&mut bytes).expect("room");
        at += match ipv4::Header::new(&source, &destination, protocol::TCP, 64) {
            Some(header) => header.emit(len, &mut bytes[at..]),
            None => ipv6::Header::new(&source, &destination, protocol::TCP, 64)
                .expect("one version")
                .emit(len, &mut bytes[at..]),
        }
        .expect("room");
        let header = Header {
            source: source_port.into(),
            destination: destination_port.into(),
            sequence: self.seq.into(),
            acknowledgment: self.ack.into(),
            window: self.window.into(),
            urgent: self.urgent.into(),
            ..Header::default()
        };
        let end = at + header.emit(self.flags, &self.options, &mut bytes[at..]).expect("room");
        let sum = Sum::ZERO.bytes(&self.text);
        tcp::fill_checksum(&mut bytes[at..end], &source, &destination, sum, self.text.len())
            .expect("a header");
        bytes.truncate(end);
        bytes.extend_from_slice(&self.text);
        bytes
    }

    /// A segment as it was heard; `None` if the packet carries none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (frame, rest) = ethernet::parse(bytes).ok()?;
        let (source, destination, rest) = match frame.ethertype {
            ethernet::IPV4 => {
                let (datagram, rest) = ipv4::parse(rest).ok()?;
                (datagram.header.source(), datagram.header.destination(), rest)
            }
            _ => {
                let (datagram, rest) = ipv6::parse(rest).ok()?;
                (datagram.header.source, datagram.header.destination, rest)
            }
        };
        tcp::verify(rest, &source, &destination).ok()?;
        let (segment, text) = tcp::parse(rest).ok()?;
        let header = segment.header;
        Some(Self {
            link: (frame.source.0[5], frame.destination.0[5]),
            ends: ((source, header.source.get()), (destination, header.destination.get())),
            seq: header.sequence.get(),
            ack: header.acknowledgment.get(),
            flags: header.flags(),
            window: header.window.get(),
            urgent: header.urgent.get(),
            options: Options::parse(segment.options),
            text: text.to_vec(),
        })
    }
}

/// What a forger sends of itself: the numbered packet and its time, as long as there is one.
pub type Flood = Box<dyn FnMut(u64) -> Option<(u64, Vec<u8>)>>;

/// The host.
pub struct Forger {
    raw: Raw,
    flood: Option<(u64, Flood)>,
}

impl Forger {
    /// One that keeps what it gets.
    #[must_use]
    pub fn new() -> Self {
        let mut raw = Raw::new(1024);
        raw.keeps_bytes = true;
        Self { raw, flood: None }
    }

    /// One that sends all of this, and forgets what it gets.
    #[must_use]
    pub fn flooding(flood: Flood) -> Self {
        Self { raw: Raw::new(1024), flood: Some((0, flood)) }
    }

    /// Sends this at once.
    pub fn send(&mut self, now: Instant, segment: &Forged) {
        let bytes = segment.bytes();
        self.raw.plan.push_back(Send { at: now.0, bytes, checksum: None, gso_size: 0 });
    }

    /// What it got since it was asked last.
    pub fn heard(&mut self) -> Vec<Forged> {
        self.raw.got.drain(..).filter_map(|got| Forged::parse(&got.bytes)).collect()
    }
}

impl Default for Forger {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for Forger {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        while self.raw.plan.len() < 32
            && let Some((number, flood)) = &mut self.flood
        {
            match flood(*number) {
                Some((at, bytes)) => {
                    *number += 1;
                    self.raw.plan.push_back(Send { at, bytes, checksum: None, gso_size: 0 });
                }
                None => self.flood = None,
            }
        }
        if !self.raw.keeps_bytes {
            self.raw.got.clear();
        }
        self.raw.poll(now, port)
    }
}

/// Either kind of host, for networks that have both.
pub enum Machine {
    /// One with a stack.
    Tcp(Box<TcpHost>),
    /// One without.
    Forger(Box<Forger>),
}

impl Machine {
    /// The host with a stack.
    ///
    /// # Panics
    /// If it is none.
    pub fn tcp(&mut self) -> &mut TcpHost {
        match self {
            Self::Tcp(host) => host,
            Self::Forger(_) => panic!("it has no stack"),
        }
    }

    /// The same, to look at.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn look(&self) -> &TcpHost {
        match self {
            Self::Tcp(host) => host,
            Self::Forger(_) => panic!("it has no stack"),
        }
    }

    /// The forger.
    ///
    /// # Panics
    /// If it is none.
    pub fn forger(&mut self) -> &mut Forger {
        match self {
            Self::Forger(host) => host,
            Self::Tcp(_) => panic!("it has a stack"),
        }
    }
}

impl Host for Machine {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        match self {
            Self::Tcp(host) => host.poll(now, port),
            Self::Forger(host) => host.poll(now, port),
        }
    }
}
