//! One way of the wire in real time: what the simulation's path decides about a packet, and the packets that wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::sim::path::{Counts, Path, Way};
use crate::sim::random::Random;
use stack::time::Instant;
use stack::wire::checksum::Sum;

/// The line.
#[derive(Debug)]
pub struct Line {
    way: Way,
    random: Random,
    /// When a packet arrives, its number, and where it is.
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    packets: Vec<Vec<u8>>,
    unused: Vec<usize>,
    put: u64,
    /// Of packets whose sender knows ECN, each so-manieth is marked with congestion experienced; 0 marks none.
    pub marks_each: u64,
    /// Packets whose sender knows ECN.
    capable: u64,
}

/// Marks an IP packet with congestion experienced (RFC 3168 §5), if its sender knows what that means.
fn mark(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[1] |= 0x30;
        return;
    }
    packet[1] |= 3;
    let len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&packet[..len]).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Whether an IP packet says ECT(0) or ECT(1).
fn is_capable(packet: &[u8]) -> bool {
    let bits = match packet.first().map(|byte| byte >> 4) {
        Some(6) => packet.get(1).map(|byte| byte >> 4 & 3),
        _ => packet.get(1).map(|byte| byte & 3),
    };
    matches!(bits, Some(1 | 2))
}

impl Line {
    /// A line with this path, whose chance comes from the seed.
    #[must_use]
    pub fn new(path: Path, seed: u64) -> Self {
        let (way, random) = (Way::new(path), Random::new(seed));
        Self {
            way,
            random,
            queue: BinaryHeap::new(),
            packets: Vec::new(),
            unused: Vec::new(),
            put: 0,
            marks_each: 0,
            capable: 0,
        }
    }

    /// What happened to packets.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.way.counts
    }

    /// What happens to packets from now on.
    pub const fn path(&mut self) -> &mut Path {
        &mut self.way.path
    }

    /// A packet enters.
    pub fn put(&mut self, now: Instant, packet: &[u8]) {
        let fate = self.way.fate(now.0, packet.len(), &mut self.random);
        if fate.lost.is_some() {
            return;
        }
        self.wait(fate.at, packet, fate.flipped);
        if let Some(at) = fate.again {
            self.wait(at, packet, fate.flipped);
        }
    }

    fn wait(&mut self, at: u64, packet: &[u8], flipped: Option<u64>) {
        let place = self.unused.pop().unwrap_or_else(|| {
            self.packets.push(Vec::new());
            self.packets.len() - 1
        });
        let kept = &mut self.packets[place];
        kept.clear();
        kept.extend_from_slice(packet);
        if let Some(bit) = flipped {
            let byte = bit as usize / 8 % packet.len().max(1);
            kept.iter_mut().skip(byte).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
        }
        if self.marks_each != 0 && is_capable(kept) {
            self.capable += 1;
            if self.capable.is_multiple_of(self.marks_each) {
                mark(kept);
            }
        }
        self.put += 1;
        self.queue.push(Reverse((at, self.put, place)));
    }

    /// The next packet that has arrived.
    pub fn take(&mut self, now: Instant) -> Option<&[u8]> {
        let Reverse((at, _, place)) = *self.queue.peek()?;
        if at > now.0 {
            return None;
        }
        self.queue.pop();
        self.unused.push(place);
        self.packets.get(place).map(Vec::as_slice)
    }

    /// When the next one arrives.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|next| Instant(next.0.0))
    }
}

/// One way of as many wires as there are flows, which have nothing to do with each other: a flow is known by the port of its
/// listener, from `first` on. One wire is everybody's.
#[derive(Debug)]
pub struct Lines {
    first: u16,
    lines: Vec<Line>,
}

impl Lines {
    /// Wires with the same path, each with chance of its own.
    #[must_use]
    pub fn new(path: Path, seed: u64, first: u16, count: usize) -> Self {
        let line = |index| Line::new(path.of_wire(index), seed.wrapping_add(index as u64 * 0x1_0000));
        Self { first, lines: (0..count).map(line).collect() }
    }

    /// The line of this number.
    pub fn line(&mut self, index: usize) -> &mut Line {
        &mut self.lines[index]
    }

    /// What happened to packets of all wires.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lines.iter().fold(Counts::default(), |all, line| all.and(&line.counts()))
    }

    /// A packet of IP enters.
    pub fn put(&mut self, now: Instant, packet: &[u8]) {
        let index = if self.lines.len() > 1 { self.index(packet) } else { 0 };
        self.lines[index].put(now, packet);
    }

    /// The line of a packet of IPv4 without options.
    fn index(&self, packet: &[u8]) -> usize {
        let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let index = |at| Some(usize::from(port(at)?.checked_sub(self.first)?));
        let known = |at| index(at).filter(|index| *index < self.lines.len());
        known(20).or_else(|| known(22)).unwrap_or(0)
    }

    /// A packet that has arrived.
    pub fn take(&mut self, now: Instant) -> Option<&[u8]> {
        let line = self.lines.iter_mut().find(|line| line.next().is_some_and(|at| at <= now))?;
        line.take(now)
    }

    /// When the next one arrives.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.lines.iter().filter_map(Line::next).min()
    }
}
