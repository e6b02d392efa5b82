//! A host that sends numbered datagrams at set times and notes what it gets: enough to measure a wire, with the stack's own
//! frames, so that every frame's life is checked from both sides.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use stack::device::{
    Checksum, ChecksumRequest, Device, Fragment, FrameIndex, Memory, Outgoing, Received, Refused,
};
use stack::frames::pool::{Limits, Pool, Purpose};
use stack::frames::{Completed, FrameRecord, Frames};
use stack::seq::Seq;
use stack::time::Instant;
use stack::wire::checksum::{Sum, pseudo};
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::Ip;
use stack::wire::{ipv4, ipv6, protocol, tcp, udp};

use super::Host;
use super::port::Port;

/// Bytes before the text of a TCP segment without options.
pub const TCP_HEADERS: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + tcp::HEADER_LEN;
/// Bytes before a datagram's data.
pub const UDP_HEADERS: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + udp::HEADER_LEN;

/// The address of the host with this number.
#[must_use]
pub const fn ip(number: u8) -> Ip {
    Ip::v4([10, 0, 0, number])
}

/// The address of IPv6 of the host with this number.
#[must_use]
pub const fn ip6(number: u8) -> Ip {
    Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

/// Writes the headers of the link and of IP before `len` bytes; how many they are.
fn head(from: u8, to: Address, ends: [&Ip; 2], protocol: u8, len: usize, bytes: &mut [u8]) -> Option<usize> {
    let source = Address([2, 0, 0, 0, 0, from]);
    let ethertype = if ends[0].is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let at = ethernet::Frame { destination: to, source, tags: [None; 2], ethertype }.emit(bytes)?;
    let rest = bytes.get_mut(at..)?;
    Some(match ethertype {
        ethernet::IPV4 => at + ipv4::Header::new(ends[0], ends[1], protocol, 64)?.emit(len, rest)?,
        _ => at + ipv6::Header::new(ends[0], ends[1], protocol, 64)?.emit(len, rest)?,
    })
}

/// A datagram to the host `to`, or to everybody, with this number at the start of its data.
#[must_use]
pub fn datagram(from: u8, to: u8, number: u32, data_len: usize) -> Vec<u8> {
    let address = if to == 255 { Address::BROADCAST } else { Address([2, 0, 0, 0, 0, to]) };
    let mut bytes = vec![0; UDP_HEADERS + data_len.max(4)];
    let ends = [&ip(from), &ip(to)];
    let at = head(from, address, ends, protocol::UDP, udp::HEADER_LEN + data_len.max(4), &mut bytes);
    let at = at.expect("room for the headers");
    let (header, data) = bytes[at..].split_at_mut(udp::HEADER_LEN);
    data[..4].copy_from_slice(&number.to_be_bytes());
    let sum = Sum::ZERO.bytes(data);
    let (source, destination) = (ip(from), ip(to));
    let written = udp::Header::emit((&source, 1000), (&destination, 2000), data.len(), Some(sum), header);
    assert_eq!(written, Some(udp::HEADER_LEN));
    bytes
}

/// A segment from `from` to `to`, each a host's number and address, whose text the device is to cut: the pseudo-header's sum is in
/// its checksum field.
#[must_use]
pub fn segment_between(from: (u8, Ip), to: (u8, Ip), seq: u32, text: &[u8]) -> (Vec<u8>, ChecksumRequest) {
    let mut bytes = vec![0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN];
    let len = tcp::HEADER_LEN + text.len();
    let address = Address([2, 0, 0, 0, 0, to.0]);
    let at = head(from.0, address, [&from.1, &to.1], protocol::TCP, len, &mut bytes);
    let at = at.expect("room for the headers");
    let header = tcp::Header {
        source: 1000.into(),
        destination: 2000.into(),
        sequence: seq.into(),
        window: 500.into(),
        ..tcp::Header::default()
    };
    let flags = tcp::Flags(tcp::Flags::ACK.0 | tcp::Flags::PSH.0 | tcp::Flags::CWR.0);
    let none = tcp::options::Options::default();
    header.emit(flags, &none, &mut bytes[at..]).expect("room for the header");
    let sum = pseudo(&from.1, &to.1, protocol::TCP, len as u32).fold();
    bytes[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
    bytes.truncate(at + tcp::HEADER_LEN);
    bytes.extend_from_slice(text);
    (bytes, ChecksumRequest { start: at as u16, offset: 16 })
}

/// The same between two hosts' addresses of IPv4.
#[must_use]
pub fn segment(from: u8, to: u8, seq: u32, text: &[u8]) -> (Vec<u8>, ChecksumRequest) {
    segment_between((from, ip(from)), (to, ip(to)), seq, text)
}

/// Something to send.
#[derive(Clone, Debug)]
pub struct Send {
    /// When, in ns.
    pub at: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is left to the device.
    pub checksum: Option<ChecksumRequest>,
    /// Bytes of text in each of its segments; 0 if it isn't cut.
    pub gso_size: u16,
}

/// Something that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Got {
    /// When, in ns.
    pub at: u64,
    /// The number of a datagram whose checksum is right.
    pub number: Option<u32>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Fragments in which it arrived.
    pub fragments: usize,
    /// Whether the device said that its checksum is good (true) or left out (false).
    pub marked: Option<bool>,
    /// Bytes of text in each of its segments.
    pub gso_size: u16,
}

/// The host.
pub struct Raw {
    pool: Pool,
    records: Vec<FrameRecord>,
    states: Vec<AtomicU64>,
    /// What it will send, in the order of time.
    pub plan: VecDeque<Send>,
    /// What it got.
    pub got: Vec<Got>,
    /// Whether it keeps the bytes of what it got.
    pub keeps_bytes: bool,
    /// How many packets it sends back, each to whoever sent it.
    pub echoes: u64,
    pieces: Vec<Fragment>,
}

impl Raw {
    /// A host for a port with so many frames.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        Self {
            pool: Pool::new(Limits::of(frames)),
            records: vec![FrameRecord::default(); frames as usize],
            states: (0..frames).map(|_| AtomicU64::new(0)).collect(),
            plan: VecDeque::new(),
            got: Vec::new(),
            keeps_bytes: false,
            echoes: 0,
            pieces: Vec::new(),
        }
    }

    /// Plans `count` datagrams to the host `to`, numbered from 0, the first at `from_ns` and then every `every_ns`.
    #[must_use]
    pub fn sending(
        mut self,
        me: u8,
        to: u8,
        count: u32,
        data_len: usize,
        from_ns: u64,
        every_ns: u64,
    ) -> Self {
        let one = |number: u32| Send {
            at: from_ns + u64::from(number) * every_ns,
            bytes: datagram(me, to, number, data_len),
            checksum: None,
            gso_size: 0,
        };
        self.plan.extend((0..count).map(one));
        self
    }

    /// Sends this packet as soon as it is polled.
    pub fn now(&mut self, bytes: Vec<u8>) {
        self.plan.push_front(Send { at: 0, bytes, checksum: None, gso_size: 0 });
    }

    /// Its frames.
    pub fn frames(&mut self) -> Frames<'_> {
        Frames { pool: &mut self.pool, records: &mut self.records, states: &self.states }
    }

    /// The numbers that arrived, in order.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.got.iter().filter_map(|got| got.number).collect()
    }

    fn take_completions(&mut self, port: &mut Port) {
        let mut done = [FrameIndex(0); 32];
        loop {
            let count = port.completions(&mut done);
            for frame in &done[..count] {
                assert_ne!(self.frames().completed(*frame), Completed::Bad, "a frame that was not sent");
            }
            if count == 0 {
                return;
            }
        }
    }

    fn take_received(&mut self, now: Instant, port: &mut Port) {
        let mut burst = [Received::default(); 64];
        loop {
            let count = port.receive(&mut burst);
            if count == 0 {
                return;
            }
            let mut bytes = Vec::new();
            let mut fragments = 0;
            for entry in &burst[..count] {
                let size = port.capabilities().frame_size;
                assert!(self.frames().received(entry.fragment, size, now), "a frame that was not filled");
                let Fragment { frame, offset, len } = entry.fragment;
                let begin = usize::from(offset);
                bytes
                    .extend_from_slice(&port.bytes(frame).expect("a frame")[begin..begin + usize::from(len)]);
                assert!(self.frames().discard(frame));
                fragments += 1;
                if !entry.continues {
                    self.note(now, entry, &bytes, fragments);
                    if self.echoes > 0 {
                        self.echo(now, &mut bytes);
                    }
                    bytes.clear();
                    fragments = 0;
                }
            }
        }
    }

    fn note(&mut self, now: Instant, entry: &Received, bytes: &[u8], fragments: usize) {
        let number = number(bytes);
        let marked = match entry.checksum {
            Checksum::Unchecked => None,
            Checksum::Valid => Some(true),
            Checksum::Partial => Some(false),
        };
        let kept = if self.keeps_bytes { bytes.to_vec() } else { Vec::new() };
        self.got.push(Got { at: now.0, number, bytes: kept, fragments, marked, gso_size: entry.gso_size });
    }

    /// Sends a packet back: its addresses change places, which leaves all sums as they are.
    fn echo(&mut self, now: Instant, bytes: &mut Vec<u8>) {
        self.echoes -= 1;
        for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
            for at in 0..len {
                bytes.swap(a + at, b + at);
            }
        }
        let bytes = std::mem::take(bytes);
        self.plan.push_front(Send { at: now.0, bytes, checksum: None, gso_size: 0 });
    }

    /// Sends one packet; false if the ring is full.
    fn send(&mut self, port: &mut Port, what: &Send) -> bool {
        let size = usize::from(port.capabilities().frame_size);
        self.pieces.clear();
        let mut is_taken = true;
        for (at, piece) in what.bytes.chunks(size).enumerate() {
            let mut frames =
                Frames { pool: &mut self.pool, records: &mut self.records, states: &self.states };
            let Some(frame) = frames.take(Purpose::Control) else {
                is_taken = false;
                break;
            };
            let record = frames.record_mut(frame).expect("a record");
            (record.seq, record.len) = (Seq((at * size) as u32).0, piece.len() as u16);
            port.bytes_mut(frame).expect("a frame")[..piece.len()].copy_from_slice(piece);
            self.pieces.push(Fragment { frame, offset: 0, len: piece.len() as u16 });
        }
        let pieces = std::mem::take(&mut self.pieces);
        let outgoing = Outgoing { fragments: &pieces, checksum: what.checksum, gso_size: what.gso_size };
        if is_taken {
            assert!(pieces.iter().all(|piece| self.frames().send(piece.frame)));
            match port.send(&outgoing) {
                Ok(()) => {}
                Err(Refused::Full) => {
                    is_taken = false;
                    for piece in &pieces {
                        self.frames().unsend(piece.frame);
                    }
                }
                Err(Refused::Unfit) => panic!("{outgoing:?} doesn't fit {:?}", port.capabilities()),
            }
        } else {
            for piece in &pieces {
                self.frames().discard(piece.frame);
            }
        }
        self.pieces = pieces;
        is_taken
    }

    fn fill(&mut self, port: &mut Port) {
        for _ in 0..port.fill_room() {
            let mut frames = self.frames();
            let Some(frame) = frames.take(Purpose::Fill) else { return };
            assert!(frames.fill(frame));
            assert_eq!(port.fill(&[frame]), 1);
        }
    }
}

/// The number of a datagram, if all of it is right.
fn number(bytes: &[u8]) -> Option<u32> {
    let (_, rest) = ethernet::parse(bytes).ok()?;
    let (ip, rest) = ipv4::parse(rest).ok()?;
    let (header, data) = udp::parse(rest, true).ok()?;
    udp::verify(header, data, &ip.header.source(), &ip.header.destination()).ok()?;
    data.first_chunk().map(|number| u32::from_be_bytes(*number))
}

impl Host for Raw {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        self.take_completions(port);
        self.take_received(now, port);
        let mut is_full = false;
        while let Some(next) = self.plan.front().filter(|next| next.at <= now.0).cloned() {
            if !self.send(port, &next) {
                is_full = true;
                break;
            }
            self.plan.pop_front();
        }
        self.fill(port);
        port.flush();
        // When the ring is full the next completion wakes us.
        self.plan.front().filter(|_| !is_full).map(|next| Instant(next.at))
    }
}
