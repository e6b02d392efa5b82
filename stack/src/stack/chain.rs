//! Packets of several frames: what is larger than a frame, or was joined by the device ([`crate::device::Capabilities::gro`]).
//!
//! The headers are in the first frame, or the packet is lost. A segment's frames go to its connection as they are, and the text
//! in them is copied once, to the reader; any other datagram goes the way of one that came in fragments.

use super::Stack;
use super::fragments::Pieces;
use super::other::Seen;
use crate::device::{Device, Fragment, Received};
use crate::frames::Frames;
use crate::ip::reassembly::Whole;
use crate::region::slab::Handle;
use crate::stats::Counter;
use crate::wire::checksum::Sum;

impl<D: Device> Stack<'_, '_, D> {
    /// The entries of a packet of several frames, or of a broken one: bit n of `believed` says whether the stack has the frame of
    /// the nth. Which socket it was for, as [`Self::packet`] says.
    pub(super) fn chain(&mut self, entries: &[Received], believed: u64) -> Option<Handle> {
        let frames = || entries.iter().map(|entry| entry.fragment.frame);
        let is_ours = |at: usize| believed.checked_shr(at as u32).is_some_and(|bits| bits & 1 == 1);
        let is_whole = entries.last().is_some_and(|last| !last.continues);
        if !is_whole || !(0..entries.len()).all(is_ours) {
            for (_, frame) in frames().enumerate().filter(|(at, _)| is_ours(*at)) {
                self.discard(frame);
            }
            self.count(Counter::Corrupt);
            return None;
        }
        self.count(Counter::PacketsIn);
        self.frames().hang(frames());
        self.packet(entries)
    }

    /// The sum with the bytes of these entries, of which so many count.
    pub(super) fn sum_beyond(&self, sum: Sum, rest: &[Received], bytes: usize) -> Sum {
        let mut left = bytes;
        rest.iter().fold(sum, |sum, entry| {
            let piece = Fragment { len: usize::from(entry.fragment.len).min(left) as u16, ..entry.fragment };
            left -= usize::from(piece.len);
            self.sum_of(sum, &[piece])
        })
    }

    /// A datagram of several frames that is no plain segment; false: its frames are free already, or are to be freed.
    pub(super) fn datagram_of_frames(&mut self, seen: &Seen, packet: &[Received]) -> bool {
        if !self.is_welcome(seen) {
            return false;
        }
        // A fragment that is larger than a frame would be one of a larger link than any that needs fragments.
        if seen.fragment.is_some() {
            self.count(Counter::ReassemblyDropped);
            return false;
        }
        let (mut pieces, mut left) = (Pieces::new(), seen.beyond);
        pieces.push(seen.piece(0));
        for entry in packet.iter().skip(1) {
            let piece = Fragment { len: entry.fragment.len.min(left), ..entry.fragment };
            left -= piece.len;
            pieces.push(piece);
        }
        let parts = &mut *self.parts;
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        for piece in pieces.as_slice() {
            frames.own(piece.frame, &mut parts.ip.fragments, u32::MAX);
        }
        let Seen { source, destination, protocol, ecn, .. } = *seen;
        let whole = Whole { source, destination, protocol, len: seen.len() + seen.beyond, ecn };
        self.whole(&whole, seen, &pieces);
        self.release_pieces(&pieces);
        true
    }
}
