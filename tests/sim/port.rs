//! A host's device: frames, four rings, and a watch over who has which frame.
//!
//! What the contract of [`stack::device`] forbids ends the test here: a frame that is sent or filled while the device has it, a
//! frame that changes while it is being sent. Completions come late and in any order, if the test wants it so.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use stack::device::{
    Capabilities, Checksum, ChecksumIn, ChecksumRequest, Device, Fragment, FrameIndex, Link, Memory,
    Outgoing, Received, Refused,
};
use stack::time::{Duration, Instant};
use stack::wire::checksum::Sum;
use stack::wire::ethernet::Address;

use super::cut;
use super::random::Random;

/// What kind of device a port is.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Its address on the link.
    pub address: Address,
    /// What packets begin with.
    pub link: Link,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Frames in its memory.
    pub frames: u32,
    /// Bytes of a frame.
    pub frame_size: u16,
    /// Bytes that it leaves free before what it receives (AF_XDP: 256).
    pub headroom: u16,
    /// Entries of each of its rings.
    pub ring: usize,
    /// Most fragments of a packet that it sends.
    pub fragments_max: u16,
    /// Whether it completes checksums of what is sent.
    pub checksum_out: bool,
    /// Whether it takes packets whose checksum was left to a device, as they are.
    pub takes_partial: bool,
    /// Whether it says which checksums are good or were left out (virtio), or nothing (AF_XDP).
    pub marks_checksums: bool,
    /// Largest text that it cuts into segments; 0 if it doesn't.
    pub tso_bytes_max: u32,
    /// Whether it takes packets that were not cut, and joins segments that arrive between two polls.
    pub gro: bool,
    /// How long after an arrival the host is polled: a card's interrupt moderation.
    pub moderation: Duration,
    /// How late completions may be: evenly distributed, and so in any order.
    pub completion_lag: Duration,
}

impl Setup {
    /// AF_XDP in copy mode over a network card without offloads, for the host with this number.
    #[must_use]
    pub const fn plain(number: u8) -> Self {
        Self {
            address: Address([2, 0, 0, 0, 0, number]),
            link: Link::Ethernet,
            mtu: 1500,
            frames: 1024,
            frame_size: 2048,
            headroom: 256,
            ring: 256,
            fragments_max: 1,
            checksum_out: false,
            takes_partial: false,
            marks_checksums: false,
            tso_bytes_max: 0,
            gro: false,
            moderation: Duration(0),
            completion_lag: Duration(0),
        }
    }

    /// A packet socket with PACKET_VNET_HDR over a veth: every offload.
    #[must_use]
    pub const fn offloads(number: u8) -> Self {
        Self {
            fragments_max: 64,
            checksum_out: true,
            takes_partial: true,
            marks_checksums: true,
            tso_bytes_max: 65_000,
            gro: true,
            ..Self::plain(number)
        }
    }
}

/// A packet on the wire.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Bytes of text of each segment that it stands for; 0 if it is one.
    pub gso_size: u16,
    /// Where its checksum is to be completed, if nobody did.
    pub checksum: Option<ChecksumRequest>,
}

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Stack,
    Fill,
    Sending,
}

/// What a port counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that found no room in the ring.
    pub ring_full: u64,
    /// Packets that found too few frames in the fill ring.
    pub fill_empty: u64,
    /// Packets that the stack gave too small a slice for.
    pub too_long: u64,
    /// Packets that were refused because the ring was full.
    pub refused: u64,
}

/// A piece that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sending {
    /// When it is complete, in ns.
    until: u64,
    frame: FrameIndex,
    offset: u16,
    len: u16,
    /// The sum of its bytes.
    sum: u16,
}

/// A host's device.
pub struct Port {
    setup: Setup,
    random: Random,
    /// The time, as the simulation sets it before it polls.
    pub(crate) now: Instant,
    memory: Vec<u8>,
    holders: Vec<Holder>,
    fill: VecDeque<FrameIndex>,
    received: VecDeque<Received>,
    /// Given to the device and not flushed.
    staged: VecDeque<Packet>,
    /// On the way out.
    sent: VecDeque<Packet>,
    /// What is being sent, the next completion first.
    sending: BinaryHeap<Reverse<Sending>>,
    /// What may yet be joined with what follows it.
    pub(super) joining: Option<Packet>,
    /// Byte buffers that nobody uses.
    pub(crate) spare: Vec<Vec<u8>>,
    /// What happened to it.
    pub counters: Counters,
}

impl Port {
    pub(crate) fn new(setup: Setup, seed: u64) -> Self {
        Self {
            setup,
            random: Random::new(seed),
            now: Instant(0),
            memory: vec![0; setup.frames as usize * usize::from(setup.frame_size)],
            holders: vec![Holder::Stack; setup.frames as usize],
            fill: VecDeque::new(),
            received: VecDeque::new(),
            staged: VecDeque::new(),
            sent: VecDeque::new(),
            sending: BinaryHeap::new(),
            joining: None,
            spare: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// A port of this kind in the place of another one: what that one had is lost.
    #[must_use]
    pub fn spare(setup: Setup) -> Self {
        Self::new(setup, 0)
    }

    /// A packet arrives, where the test itself is the wire; false if there is no room for it.
    pub fn arrive(&mut self, now: Instant, bytes: &[u8]) -> bool {
        self.now = now;
        self.deliver(&Packet { bytes: bytes.to_vec(), ..Packet::default() })
    }

    /// The same in fragments of these lengths, and one of what is left.
    pub fn arrive_cut(&mut self, now: Instant, bytes: &[u8], lengths: &[usize]) -> bool {
        self.now = now;
        let (mut pieces, mut left) = (Vec::new(), bytes);
        for len in lengths {
            let (piece, rest) = left.split_at((*len).min(left.len()));
            (left, _) = (rest, pieces.push(piece));
        }
        pieces.push(left);
        self.deliver_pieces(&Packet { bytes: bytes.to_vec(), ..Packet::default() }, &pieces)
    }

    /// What has arrived and wasn't taken yet: a hostile device says anything of it.
    pub const fn entries(&mut self) -> &mut VecDeque<Received> {
        &mut self.received
    }

    /// What was sent since the last call.
    pub fn depart(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.now = now;
        std::iter::from_fn(|| self.sent.pop_front()).map(|packet| packet.bytes).collect()
    }

    /// What kind of device it is.
    #[must_use]
    pub const fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Frames that the device has: to receive into or with what it received, and being sent.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let count = |kind| self.holders.iter().filter(|holder| **holder == kind).count();
        (count(Holder::Fill), count(Holder::Sending))
    }

    pub(crate) fn take_sent(&mut self) -> Option<Packet> {
        self.sent.pop_front()
    }

    pub(crate) fn next_completion(&self) -> Option<Instant> {
        let Reverse(next) = self.sending.peek()?;
        (next.until > self.now.0).then_some(Instant(next.until))
    }

    fn place(&self, frame: FrameIndex) -> Option<std::ops::Range<usize>> {
        let size = usize::from(self.setup.frame_size);
        (frame.0 < self.setup.frames).then(|| frame.0 as usize * size..(frame.0 as usize + 1) * size)
    }

    fn piece(&self, fragment: &Fragment) -> Option<&[u8]> {
        let begin = usize::from(fragment.offset);
        self.bytes(fragment.frame)?.get(begin..begin + usize::from(fragment.len))
    }

    /// A packet arrives; false if there is no room for it.
    pub fn deliver(&mut self, packet: &Packet) -> bool {
        let room = usize::from(self.setup.frame_size - self.setup.headroom);
        let pieces: Vec<&[u8]> = packet.bytes.chunks(room).collect();
        self.deliver_pieces(packet, &pieces)
    }

    fn deliver_pieces(&mut self, packet: &Packet, pieces: &[&[u8]]) -> bool {
        let count = pieces.len();
        if self.received.len() + count > self.setup.ring {
            self.counters.ring_full += 1;
            return false;
        }
        if self.fill.len() < count {
            self.counters.fill_empty += 1;
            return false;
        }
        let checksum = match (self.setup.marks_checksums, packet.checksum) {
            (false, _) => Checksum::Unchecked,
            (true, Some(_)) => Checksum::Partial,
            (true, None) if cut::is_valid(&packet.bytes, self.setup.link) => Checksum::Valid,
            (true, None) => Checksum::Unchecked,
        };
        for (at, piece) in pieces.iter().enumerate() {
            let Some(frame) = self.fill.pop_front() else { break };
            let (offset, len) = (self.setup.headroom, piece.len() as u16);
            if let Some(place) = self.place(frame) {
                let begin = place.start + usize::from(offset);
                self.memory[begin..begin + piece.len()].copy_from_slice(piece);
            }
            self.received.push_back(Received {
                fragment: Fragment { frame, offset, len },
                continues: at + 1 < count,
                checksum,
                gso_size: packet.gso_size,
                arrived: Some(self.now),
            });
        }
        self.counters.received += 1;
        true
    }
}

crate::frames_in_memory!(Port);

impl Device for Port {
    fn capabilities(&self) -> Capabilities {
        let setup = &self.setup;
        Capabilities {
            link: setup.link,
            mtu: setup.mtu,
            frame_size: setup.frame_size,
            headroom_out: 0,
            fragments_max: setup.fragments_max,
            checksum_in: if setup.takes_partial { ChecksumIn::Partial } else { ChecksumIn::Verify },
            checksum_out: setup.checksum_out,
            tso_bytes_max: setup.tso_bytes_max,
            gro: setup.gro,
            timestamps: true,
        }
    }

    fn waiting(&self) -> usize {
        self.received.len()
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let mut count = 0;
        while !self.received.is_empty() {
            let len = self.received.iter().take_while(|entry| entry.continues).count() + 1;
            let len = len.min(self.received.len());
            if len > packets.len() {
                for entry in self.received.drain(..len) {
                    self.fill.push_back(entry.fragment.frame);
                }
                self.counters.too_long += 1;
            } else if count + len > packets.len() {
                break;
            } else {
                for (to, entry) in packets[count..].iter_mut().zip(self.received.drain(..len)) {
                    // A hostile device names what it hasn't.
                    if let Some(holder) = self.holders.get_mut(entry.fragment.frame.0 as usize) {
                        *holder = Holder::Stack;
                    }
                    *to = entry;
                }
                count += len;
            }
        }
        count
    }

    fn fill_room(&self) -> usize {
        self.setup.ring - self.fill.len().min(self.setup.ring)
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        let count = frames.len().min(self.fill_room());
        for frame in &frames[..count] {
            let holder = &mut self.holders[frame.0 as usize];
            assert_eq!(*holder, Holder::Stack, "frame {} is filled while the device has it", frame.0);
            *holder = Holder::Fill;
            self.fill.push_back(*frame);
        }
        count
    }

    fn transmit_room(&self) -> usize {
        self.setup.ring - self.sending.len().min(self.setup.ring)
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        let setup = &self.setup;
        let is_bounded = packet.fragments.len() <= usize::from(setup.fragments_max) && !packet.is_empty();
        let can_cut = packet.gso_size == 0 || (setup.tso_bytes_max > 0 && packet.checksum.is_some());
        // A link's header may come on top of either.
        let most = if packet.gso_size == 0 { setup.mtu } else { setup.tso_bytes_max + 120 } as usize + 22;
        let can_sum = packet.checksum.is_none() || setup.checksum_out || packet.gso_size != 0;
        if !is_bounded || !can_cut || !can_sum || packet.len() > most {
            return Err(Refused::Unfit);
        }
        if packet.fragments.iter().any(|fragment| self.piece(fragment).is_none()) {
            return Err(Refused::Unfit);
        }
        if packet.fragments.len() > self.transmit_room() {
            self.counters.refused += 1;
            return Err(Refused::Full);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        for fragment in packet.fragments {
            let holder = &mut self.holders[fragment.frame.0 as usize];
            assert_eq!(*holder, Holder::Stack, "frame {} is sent while the device has it", fragment.frame.0);
            *holder = Holder::Sending;
            let piece = self.piece(fragment).unwrap_or_default();
            bytes.extend_from_slice(piece);
            let sum = Sum::ZERO.bytes(piece).fold();
            let until = self.now.0 + self.random.below(self.setup.completion_lag.0 + 1);
            let Fragment { frame, offset, len } = *fragment;
            self.sending.push(Reverse(Sending { until, frame, offset, len, sum }));
        }
        self.staged.push_back(Packet { bytes, gso_size: packet.gso_size, checksum: packet.checksum });
        Ok(())
    }

    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let mut count = 0;
        for to in frames {
            let next = self.sending.peek().filter(|next| next.0.until <= self.now.0);
            let Some(Reverse(Sending { frame, offset, len, sum, .. })) = next.copied() else { break };
            self.sending.pop();
            let now = self.piece(&Fragment { frame, offset, len }).map(|piece| Sum::ZERO.bytes(piece).fold());
            assert_eq!(now, Some(sum), "frame {} was changed while it was being sent", frame.0);
            self.holders[frame.0 as usize] = Holder::Stack;
            (*to, count) = (frame, count + 1);
        }
        count
    }

    fn flush(&mut self) -> bool {
        let is_owed = !self.staged.is_empty();
        self.counters.sent += self.staged.len() as u64;
        self.sent.append(&mut self.staged);
        is_owed
    }
}
