//! A device whose rings and frames lie in shared memory, as AF_XDP's do: what a process that died has given to it or taken from it
//! is what the next one finds. An entry is complete before the ring's end moves behind it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use stack::device::{
    Capabilities, Checksum, ChecksumIn, Device, Fragment, FrameIndex, Link, Memory, Outgoing, Received,
    Refused,
};
use stack::wire::checksum::Sum;

/// Frames.
pub(super) const FRAMES: u32 = 256;
/// Bytes of each.
pub(super) const SIZE: u16 = 2048;
/// Bytes before what it receives.
const HEADROOM: u16 = 256;
/// Entries of a ring.
const ENTRIES: usize = 256;
/// Words of a ring: where it begins, where it ends, up to where it was looked at, its entries.
const RING: usize = 8 + 2 * ENTRIES;
/// Words of all of them, and whether it has offloads.
pub(super) const WORDS: usize = 4 * RING + 8;
/// Most fragments of a packet with offloads.
pub(super) const FRAGMENTS: u16 = 12;
/// Of an entry's second word: its packet goes on.
const CONTINUES: u64 = 1 << 16;

/// A ring.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a>(&'a [AtomicU64]);

impl Ring<'_> {
    fn word(&self, at: usize) -> u64 {
        self.0[at].load(SeqCst)
    }

    /// Entries in it.
    pub(super) fn len(&self) -> usize {
        (self.word(1) - self.word(0)) as usize
    }

    fn place(at: u64) -> usize {
        8 + 2 * (at as usize % ENTRIES)
    }

    /// The entries of a packet, which are there all at once.
    fn push(&self, pieces: &[(Fragment, u16)]) -> bool {
        let end = self.word(1);
        if self.len() + pieces.len() > ENTRIES {
            return false;
        }
        for (at, (piece, sum)) in pieces.iter().enumerate() {
            let entry = u64::from(piece.frame.0) << 32 | u64::from(piece.offset) << 16 | u64::from(piece.len);
            let continues = if at + 1 < pieces.len() { CONTINUES } else { 0 };
            let place = Self::place(end + at as u64);
            self.0[place].store(entry, SeqCst);
            self.0[place + 1].store(u64::from(*sum) | continues, SeqCst);
        }
        self.0[1].store(end + pieces.len() as u64, SeqCst);
        true
    }

    /// Entries of the packet that begins with this one.
    fn packet(&self, at: u64) -> u64 {
        let goes_on = |at: &u64| self.word(Self::place(*at) + 1) & CONTINUES != 0;
        1 + (at..self.word(1)).take_while(goes_on).count() as u64
    }

    fn entry(&self, at: u64) -> (Fragment, u16) {
        let entry = self.word(Self::place(at));
        let frame = FrameIndex((entry >> 32) as u32);
        let piece = Fragment { frame, offset: (entry >> 16) as u16, len: entry as u16 };
        (piece, self.word(Self::place(at) + 1) as u16)
    }

    fn pop(&self) -> Option<(Fragment, u16)> {
        let begin = self.word(0);
        (self.len() > 0).then(|| {
            let entry = self.entry(begin);
            self.0[0].store(begin + 1, SeqCst);
            entry
        })
    }

    /// Whether one of its packets has several entries.
    pub(super) fn has_joined(&self) -> bool {
        (self.word(0)..self.word(1)).any(|at| self.packet(at) > 1)
    }

    /// Its frames.
    pub(super) fn frames(&self) -> Vec<FrameIndex> {
        (self.word(0)..self.word(1)).map(|at| self.entry(at).0.frame).collect()
    }
}

/// The device.
pub(super) struct Card<'a> {
    words: &'a [AtomicU64],
    memory: &'a mut [u8],
    looks: Cell<u64>,
}

impl<'a> Card<'a> {
    /// The device in this memory.
    pub(super) fn new(words: &'a [AtomicU64], memory: &'a mut [u8]) -> Self {
        Self { words, memory, looks: Cell::new(0) }
    }

    /// How often somebody has asked for a frame's bytes.
    pub(super) fn looks(&self) -> u64 {
        self.looks.get()
    }

    fn ring(&self, which: usize) -> Ring<'a> {
        Ring(&self.words[which * RING..(which + 1) * RING])
    }

    /// Frames to receive into.
    pub(super) fn filled(&self) -> Ring<'a> {
        self.ring(0)
    }

    /// Frames with what was received.
    pub(super) fn arrived(&self) -> Ring<'a> {
        self.ring(1)
    }

    /// Frames that are being sent.
    pub(super) fn sending(&self) -> Ring<'a> {
        self.ring(2)
    }

    /// Frames that were sent.
    pub(super) fn done(&self) -> Ring<'a> {
        self.ring(3)
    }

    fn place(&self, frame: FrameIndex) -> Option<std::ops::Range<usize>> {
        let size = usize::from(SIZE);
        (frame.0 < FRAMES).then(|| frame.0 as usize * size..(frame.0 as usize + 1) * size)
    }

    fn piece(&self, piece: &Fragment) -> Option<&[u8]> {
        let begin = usize::from(piece.offset);
        self.bytes(piece.frame)?.get(begin..begin + usize::from(piece.len))
    }

    /// From now on it takes checksums, cuts and joins.
    pub(super) fn offload(&mut self) {
        self.words[4 * RING].store(1, SeqCst);
    }

    /// Whether it does.
    pub(super) fn has_offloads(&self) -> bool {
        self.words[4 * RING].load(SeqCst) != 0
    }

    /// A packet arrives; lost if there are no frames for it.
    pub(super) fn deliver(&mut self, packet: &[u8]) {
        let room = usize::from(SIZE - HEADROOM);
        if self.filled().len() < packet.len().div_ceil(room) {
            return;
        }
        let mut pieces = Vec::new();
        for bytes in packet.chunks(room) {
            let (Fragment { frame, .. }, _) = self.filled().pop().expect("a frame");
            let begin = self.place(frame).expect("a frame").start + usize::from(HEADROOM);
            self.memory[begin..begin + bytes.len()].copy_from_slice(bytes);
            pieces.push((Fragment { frame, offset: HEADROOM, len: bytes.len() as u16 }, 0));
        }
        self.arrived().push(&pieces);
    }

    /// Completes what was sent at the last call, and sends what was given to it since.
    ///
    /// # Panics
    /// If a frame was changed while it was being sent.
    pub(super) fn transmit(&mut self) -> Vec<Vec<u8>> {
        let ring = self.sending();
        let (begin, end, seen) = (ring.word(0), ring.word(1), ring.word(2));
        for at in begin..seen {
            let (piece, sum) = ring.entry(at);
            let now = Sum::ZERO.bytes(self.piece(&piece).expect("a piece")).fold();
            assert_eq!(now, sum, "frame {} was changed while it was being sent", piece.frame.0);
            assert!(self.done().push(&[(piece, 0)]));
            ring.0[0].store(at + 1, SeqCst);
        }
        ring.0[2].store(end, SeqCst);
        let (mut at, mut packets) = (seen.max(begin), Vec::new());
        while at < end {
            let next = (at + ring.packet(at)).min(end);
            let pieces = (at..next).flat_map(|at| self.piece(&ring.entry(at).0).expect("a piece"));
            packets.push(pieces.copied().collect());
            at = next;
        }
        packets
    }
}

impl Memory for Card<'_> {
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        self.looks.set(self.looks.get() + 1);
        self.memory.get(self.place(frame)?)
    }

    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let place = self.place(frame)?;
        self.memory.get_mut(place)
    }

    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let [from, to] = self.memory.get_disjoint_mut([from, to]).ok()?;
        Some((from, to))
    }
}

impl Device for Card<'_> {
    fn capabilities(&self) -> Capabilities {
        let all = self.has_offloads();
        Capabilities {
            link: Link::Ethernet,
            mtu: 1500,
            frame_size: SIZE,
            headroom_out: 0,
            fragments_max: if all { FRAGMENTS } else { 1 },
            // What was left to a device stays undone: the wire carries packets as they are.
            checksum_in: if all { ChecksumIn::Partial } else { ChecksumIn::Verify },
            checksum_out: all,
            tso_bytes_max: if all { 65_000 } else { 0 },
            gro: all,
            timestamps: false,
        }
    }

    fn waiting(&self) -> usize {
        self.arrived().len()
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let (ring, mut count) = (self.arrived(), 0);
        while ring.len() > 0 && count + ring.packet(ring.word(0)) as usize <= packets.len() {
            for left in (0..ring.packet(ring.word(0))).rev() {
                let Some((fragment, _)) = ring.pop() else { break };
                packets[count] = Received {
                    fragment,
                    continues: left > 0,
                    checksum: Checksum::Unchecked,
                    ..Received::default()
                };
                count += 1;
            }
        }
        count
    }

    fn fill_room(&self) -> usize {
        ENTRIES - self.filled().len()
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        let entry = |frame: &FrameIndex| (Fragment { frame: *frame, offset: 0, len: 0 }, 0);
        frames.iter().take_while(|frame| self.filled().push(&[entry(frame)])).count()
    }

    fn transmit_room(&self) -> usize {
        ENTRIES - self.sending().len()
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        let none = (Fragment::default(), 0);
        let mut entries = [none; FRAGMENTS as usize];
        let most = usize::from(self.capabilities().fragments_max);
        let entries = entries.get_mut(..packet.fragments.len().min(most + 1)).ok_or(Refused::Unfit)?;
        if entries.is_empty() || entries.len() > most {
            return Err(Refused::Unfit);
        }
        for (entry, piece) in entries.iter_mut().zip(packet.fragments) {
            let bytes = self.piece(piece).ok_or(Refused::Unfit)?;
            *entry = (*piece, Sum::ZERO.bytes(bytes).fold());
        }
        if self.sending().push(entries) { Ok(()) } else { Err(Refused::Full) }
    }

    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let mut count = 0;
        for to in frames {
            let Some((piece, _)) = self.done().pop() else { break };
            *to = piece.frame;
            count += 1;
        }
        count
    }

    fn flush(&mut self) -> bool {
        self.sending().len() > 0
    }
}
