//! A device that carries IP packets: what is given to it arrives at the next poll, what the stack sends is taken out with the
//! time at which it left. Frames are complete at once.

use std::collections::VecDeque;

use stack::device::{
    Capabilities, ChecksumIn, Device, Fragment, FrameIndex, Link as Kind, Memory, Outgoing, Received, Refused,
};
use stack::time::Instant;

/// Entries of each ring.
const RING: usize = 4096;

/// A packet that has left, and when.
pub type Sent = (Instant, Vec<u8>);

/// The device.
#[derive(Debug)]
pub struct Link {
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The time, for what is sent.
    pub now: Instant,
    frame_size: u16,
    memory: Vec<u8>,
    fill: VecDeque<FrameIndex>,
    received: VecDeque<Received>,
    complete: VecDeque<FrameIndex>,
    sent: VecDeque<Sent>,
}

impl Link {
    /// A device with so many frames of so many bytes.
    #[must_use]
    pub fn new(frames: u32, frame_size: u16, mtu: u32) -> Self {
        Self {
            mtu,
            now: Instant(0),
            frame_size,
            memory: vec![0; frames as usize * usize::from(frame_size)],
            fill: VecDeque::new(),
            received: VecDeque::new(),
            complete: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// A packet arrives; false if it is too long or no frame is there for it.
    pub fn deliver(&mut self, packet: &[u8]) -> bool {
        let size = usize::from(self.frame_size);
        let needed = packet.len().div_ceil(size).max(1);
        if packet.is_empty() || self.fill.len() < needed {
            return false;
        }
        for (at, piece) in packet.chunks(size).enumerate() {
            let Some(frame) = self.fill.pop_front() else { return false };
            if let Some(bytes) = self.bytes_mut(frame) {
                bytes[..piece.len()].copy_from_slice(piece);
            }
            let fragment = Fragment { frame, offset: 0, len: piece.len() as u16 };
            let continues = at + 1 < needed;
            let arrived = Some(self.now);
            self.received.push_back(Received { fragment, continues, arrived, ..Received::default() });
        }
        true
    }

    /// Whether packets wait for the stack.
    #[must_use]
    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// The next packet that has left.
    pub fn take_sent(&mut self) -> Option<Sent> {
        self.sent.pop_front()
    }

    /// Puts back what was taken.
    pub fn put_back(&mut self, sent: Sent) {
        self.sent.push_front(sent);
    }

    fn place(&self, frame: FrameIndex) -> std::ops::Range<usize> {
        let size = usize::from(self.frame_size);
        let begin = frame.0 as usize * size;
        begin..begin + size
    }
}

impl Memory for Link {
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        self.memory.get(self.place(frame))
    }

    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let place = self.place(frame);
        self.memory.get_mut(place)
    }

    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        let (from, to) = (self.place(from), self.place(to));
        let [from, to] = self.memory.get_disjoint_mut([from, to]).ok()?;
        Some((from, to))
    }
}

impl Device for Link {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link: Kind::Ip,
            mtu: self.mtu,
            frame_size: self.frame_size,
            headroom_out: 0,
            fragments_max: 1,
            checksum_in: ChecksumIn::Verify,
            checksum_out: false,
            tso_bytes_max: 0,
            // As a tun device of Linux it takes whatever is written to it as one packet.
            gro: true,
            timestamps: true,
        }
    }

    fn waiting(&self) -> usize {
        self.received.len()
    }

    fn receive(&mut self, packets: &mut [Received]) -> usize {
        let mut count = 0;
        while let Some(last) = self.received.iter().position(|entry| !entry.continues) {
            if count + last + 1 > packets.len() {
                break;
            }
            for (to, entry) in packets[count..].iter_mut().zip(self.received.drain(..=last)) {
                *to = entry;
                count += 1;
            }
        }
        count
    }

    fn fill_room(&self) -> usize {
        RING - self.fill.len().min(RING)
    }

    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        let count = frames.len().min(self.fill_room());
        self.fill.extend(&frames[..count]);
        count
    }

    fn transmit_room(&self) -> usize {
        RING - self.complete.len().min(RING)
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        let [Fragment { frame, offset, len }] = *packet.fragments else { return Err(Refused::Unfit) };
        let begin = usize::from(offset);
        let bytes = self.bytes(frame).and_then(|bytes| bytes.get(begin..begin + usize::from(len)));
        let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(Refused::Unfit)?.to_vec();
        self.sent.push_back((self.now, bytes));
        self.complete.push_back(frame);
        Ok(())
    }

    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let count = frames.len().min(self.complete.len());
        for (to, frame) in frames.iter_mut().zip(self.complete.drain(..count)) {
            *to = frame;
        }
        count
    }

    fn flush(&mut self) -> bool {
        false
    }
}
