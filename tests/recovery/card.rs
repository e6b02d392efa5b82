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
/// Words of all of them.
pub(super) const WORDS: usize = 4 * RING;

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

    fn push(&self, piece: Fragment, sum: u16) -> bool {
        let end = self.word(1);
        if self.len() == ENTRIES {
            return false;
        }
        let entry = u64::from(piece.frame.0) << 32 | u64::from(piece.offset) << 16 | u64::from(piece.len);
        self.0[Self::place(end)].store(entry, SeqCst);
        self.0[Self::place(end) + 1].store(sum.into(), SeqCst);
        self.0[1].store(end + 1, SeqCst);
        true
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

    /// A packet arrives; lost if no frame is there for it.
    pub(super) fn deliver(&mut self, packet: &[u8]) {
        let Some((Fragment { frame, .. }, _)) = self.filled().pop() else { return };
        let begin = self.place(frame).expect("a frame").start + usize::from(HEADROOM);
        self.memory[begin..begin + packet.len()].copy_from_slice(packet);
        self.arrived().push(Fragment { frame, offset: HEADROOM, len: packet.len() as u16 }, 0);
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
            assert!(self.done().push(piece, 0));
            ring.0[0].store(at + 1, SeqCst);
        }
        ring.0[2].store(end, SeqCst);
        (seen.max(begin)..end).map(|at| self.piece(&ring.entry(at).0).expect("a piece").to_vec()).collect()
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
        Capabilities {
            link: Link::Ethernet,
            mtu: 1500,
            frame_size: SIZE,
            headroom_out: 0,
            fragments_max: 1,
            checksum_in: ChecksumIn::Verify,
            checksum_out: false,
            tso_bytes_max: 0,
            gro: false,
            timestamps: false,
        }
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let mut count = 0;
        for to in packets {
            let Some((fragment, _)) = self.arrived().pop() else { break };
            *to = Received { fragment, checksum: Checksum::Unchecked, ..Received::default() };
            count += 1;
        }
        count
    }

    fn fill_room(&self) -> usize {
        ENTRIES - self.filled().len()
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        let pushed = frames
            .iter()
            .take_while(|frame| self.filled().push(Fragment { frame: **frame, offset: 0, len: 0 }, 0));
        pushed.count()
    }

    fn transmit_room(&self) -> usize {
        ENTRIES - self.sending().len()
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        let [piece] = packet.fragments else { return Err(Refused::Unfit) };
        let sum = Sum::ZERO.bytes(self.piece(piece).ok_or(Refused::Unfit)?).fold();
        if self.sending().push(*piece, sum) { Ok(()) } else { Err(Refused::Full) }
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
