//! A network card that costs next to nothing: its "DMA" is the harness's, outside of what is measured.
//!
//! What is sent waits as descriptors until the harness takes it, and is complete then; what arrives is copied into frames of the
//! fill ring. Nothing is checked and nothing is allocated: [`harness::sim`] is for that.

use std::collections::VecDeque;

use stack::device::{
    Capabilities, Checksum, ChecksumIn, Device, Fragment, FrameIndex, Link, Outgoing, Received, Refused,
};

/// Bytes before what arrives, as in AF_XDP.
const HEADROOM: usize = 256;
/// Bytes of a frame.
pub(crate) const FRAME: usize = 2048;
/// Entries of each ring.
const RING: usize = 4096;
/// Most fragments of a packet with segmentation offload.
pub(crate) const FRAGMENTS: usize = 48;

/// What a card can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// AF_XDP without metadata: checksums are the stack's.
    None,
    /// Checksums both ways, segmentation, joined segments (virtio with all of its features).
    All,
}

/// A descriptor of what was sent: a piece of a packet.
#[derive(Clone, Copy, Debug)]
struct Piece {
    fragment: Fragment,
    continues: bool,
    gso_size: u16,
}

/// The card.
pub(crate) struct Card {
    memory: &'static mut [u8],
    offload: Offload,
    link: Link,
    fill: VecDeque<FrameIndex>,
    arrived: VecDeque<Received>,
    sent: VecDeque<Piece>,
    done: VecDeque<FrameIndex>,
    /// Packets that found no frame.
    pub(crate) lost: u64,
}

impl Card {
    pub(crate) fn new(frames: u32, link: Link, offload: Offload) -> std::io::Result<Self> {
        let ring = || VecDeque::with_capacity(RING);
        let memory = super::sys::bytes(frames as usize * FRAME)?;
        let (arrived, sent) = (VecDeque::with_capacity(RING), VecDeque::with_capacity(RING));
        Ok(Self { memory, offload, link, fill: ring(), arrived, sent, done: ring(), lost: 0 })
    }

    /// A packet arrives.
    pub(crate) fn deliver(&mut self, packet: &[u8]) {
        let room = FRAME - HEADROOM;
        let count = packet.len().div_ceil(room);
        if self.fill.len() < count {
            self.lost += 1;
            return;
        }
        for (at, piece) in packet.chunks(room).enumerate() {
            let frame = self.fill.pop_front().unwrap_or_default();
            let begin = frame.0 as usize * FRAME + HEADROOM;
            self.memory[begin..begin + piece.len()].copy_from_slice(piece);
            self.arrived.push_back(Received {
                fragment: Fragment { frame, offset: HEADROOM as u16, len: piece.len() as u16 },
                continues: at + 1 < count,
                checksum: if self.offload == Offload::All { Checksum::Valid } else { Checksum::Unchecked },
                ..Received::default()
            });
        }
    }

    /// Whether something waits to be taken off the card.
    pub(crate) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// The oldest piece of a packet that was sent, whether the packet goes on, and its gso_size; it is complete now.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8], bool, u16) -> R) -> Option<R> {
        let Piece { fragment, continues, gso_size } = self.sent.pop_front()?;
        let begin = fragment.frame.0 as usize * FRAME + usize::from(fragment.offset);
        let result = look(&self.memory[begin..begin + usize::from(fragment.len)], continues, gso_size);
        self.done.push_back(fragment.frame);
        Some(result)
    }

    fn take_if<R>(&mut self, may: bool, look: impl FnOnce(&[u8], bool, u16) -> R) -> Option<R> {
        if may { self.take(look) } else { None }
    }

    /// Carries what was sent to another card, as far as that has frames for it, as a cable does that joins nothing, cuts nothing and
    /// can be told to pause; how many packets.
    pub(crate) fn carry(&mut self, to: &mut Self) -> usize {
        let (mut count, mut goes_on) = (0, false);
        while let Some(continues) =
            self.take_if(goes_on || to.fill.len() >= FRAGMENTS, |bytes, continues, gso_size| {
                to.take_over(bytes, goes_on, gso_size);
                continues
            })
        {
            count += usize::from(!continues);
            if !continues {
                to.end_packet();
            }
            goes_on = continues;
        }
        count
    }

    /// A piece of the other card's packet: headers and the text after them share a frame, if they fit.
    fn take_over(&mut self, bytes: &[u8], goes_on: bool, gso_size: u16) {
        let room = FRAME - HEADROOM;
        let checksum = if self.offload == Offload::All { Checksum::Valid } else { Checksum::Unchecked };
        if let Some(last) = self.arrived.back_mut().filter(|_| goes_on)
            && usize::from(last.fragment.len) + bytes.len() <= room
        {
            let at = last.fragment.frame.0 as usize * FRAME + HEADROOM + usize::from(last.fragment.len);
            last.fragment.len += bytes.len() as u16;
            self.memory[at..at + bytes.len()].copy_from_slice(bytes);
            return;
        }
        for (index, piece) in bytes.chunks(room).enumerate() {
            let Some(frame) = self.fill.pop_front() else {
                self.lost += 1;
                return;
            };
            let at = frame.0 as usize * FRAME + HEADROOM;
            self.memory[at..at + piece.len()].copy_from_slice(piece);
            self.arrived.push_back(Received {
                fragment: Fragment { frame, offset: HEADROOM as u16, len: piece.len() as u16 },
                continues: true,
                checksum,
                gso_size: if goes_on || index > 0 { 0 } else { gso_size },
                arrived: None,
            });
        }
    }

    fn end_packet(&mut self) {
        if let Some(last) = self.arrived.back_mut() {
            last.continues = false;
        }
    }

    fn place(&self, frame: FrameIndex) -> Option<std::ops::Range<usize>> {
        let begin = frame.0 as usize * FRAME;
        (begin < self.memory.len()).then_some(begin..begin + FRAME)
    }
}

harness::frames_in_memory!(Card);

impl Device for Card {
    fn capabilities(&self) -> Capabilities {
        let all = self.offload == Offload::All;
        Capabilities {
            link: self.link,
            mtu: 1500,
            frame_size: FRAME as u16,
            headroom_out: 0,
            fragments_max: if all { FRAGMENTS as u16 } else { 1 },
            checksum_in: if all { ChecksumIn::Partial } else { ChecksumIn::Verify },
            checksum_out: all,
            tso_bytes_max: if all { 65_000 } else { 0 },
            gro: all,
            timestamps: false,
        }
    }

    fn waiting(&self) -> usize {
        self.arrived.len()
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let mut count = 0;
        while let Some(first) = self.arrived.front() {
            let whole = 1 + if first.continues {
                self.arrived.iter().take_while(|piece| piece.continues).count()
            } else {
                0
            };
            let Some(to) = packets.get_mut(count..count + whole) else { break };
            for (to, piece) in to.iter_mut().zip(self.arrived.drain(..whole)) {
                *to = piece;
            }
            count += whole;
        }
        count
    }

    fn fill_room(&self) -> usize {
        RING - self.fill.len().min(RING)
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        self.fill.extend(frames);
        frames.len()
    }

    fn transmit_room(&self) -> usize {
        RING - self.sent.len().min(RING)
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        if packet.fragments.len() > FRAGMENTS || packet.fragments.is_empty() {
            return Err(Refused::Unfit);
        }
        if self.sent.len() >= RING {
            return Err(Refused::Full);
        }
        let count = packet.fragments.len();
        for (index, fragment) in packet.fragments.iter().enumerate() {
            let continues = index + 1 < count;
            self.sent.push_back(Piece { fragment: *fragment, continues, gso_size: packet.gso_size });
        }
        Ok(())
    }

    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let count = frames.len().min(self.done.len());
        for (to, frame) in frames.iter_mut().zip(self.done.drain(..count)) {
            *to = frame;
        }
        count
    }

    fn flush(&mut self) -> bool {
        self.has_sent()
    }
}
