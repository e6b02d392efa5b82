//! Packets of several frames, from their arrival until a queue has them: all are moving, and each hangs on the one before it
//! ([`FrameRecord::next`]).

use super::{FrameRecord, Frames, link, linked};
use crate::device::FrameIndex;
use crate::seq::Seq;

impl Frames<'_> {
    /// Hangs the frames of a packet on its first, each on the one before it. All of them were received just now.
    pub(crate) fn hang(&mut self, packet: impl Iterator<Item = FrameIndex>) {
        let mut before: Option<FrameIndex> = None;
        for frame in packet {
            if let Some(record) = before.and_then(|before| self.record_mut(before)) {
                record.next = link(frame);
            }
            before = Some(frame);
        }
    }

    /// As [`Frames::set_text`] for a packet of several frames: its text begins `offset` bytes behind the start of the first
    /// frame, as [`crate::tcp::segment::Segment::offset`] counts them. What has none of it is free; of the others the first,
    /// on which the rest hang. `None` if the text isn't in the packet: then all are free.
    pub(crate) fn lay_out(
        &mut self,
        first: FrameIndex,
        seq: Seq,
        offset: u32,
        text: u16,
    ) -> Option<FrameIndex> {
        if self.record(first)?.next == 0 && text > 0 {
            let is_set = u16::try_from(offset).is_ok_and(|offset| self.set_text(first, seq, offset, text));
            if !is_set {
                self.discard(first);
            }
            return is_set.then_some(first);
        }
        // What lies before the first frame is behind all of them.
        let mut skip = offset.wrapping_sub(self.record(first)?.offset.into());
        let (mut at, mut head, mut last) = (Some(first), None, None);
        let (mut seq, mut left) = (seq, text);
        for _ in 0..self.len() {
            let Some(frame) = at else { break };
            let FrameRecord { offset, len, next, .. } = *self.record(frame)?;
            at = linked(next);
            let begin = skip.min(len.into()) as u16;
            let piece = (len - begin).min(left);
            skip -= u32::from(begin);
            if piece == 0 {
                self.discard(frame);
                continue;
            }
            if let Some(record) = self.record_mut(frame) {
                (record.seq, record.offset, record.len, record.next) = (seq.0, offset + begin, piece, 0);
            }
            (seq, left) = (seq + u32::from(piece), left - piece);
            if let Some(record) = last.and_then(|last| self.record_mut(last)) {
                record.next = link(frame);
            }
            (head, last) = (head.or(Some(frame)), Some(frame));
        }
        if left > 0 {
            head.inspect(|head| self.discard_packet(*head));
            return None;
        }
        head
    }

    /// Frees the frames of a packet, which are moving.
    pub(crate) fn discard_packet(&mut self, first: FrameIndex) {
        let mut at = Some(first);
        for _ in 0..self.len() {
            let Some(frame) = at else { break };
            at = self.next(frame);
            if !self.discard(frame) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::World;

    /// Where the text of a packet of four frames of 1, 10, 0 and 5 bytes ends up, of which so many bytes count from a place on.
    fn laid_out(offset: u32, text: u16) -> Option<Vec<(u32, u16, u16)>> {
        let mut world = World::ample(8);
        let packet: Vec<FrameIndex> =
            [1, 10, 0, 5].map(|len| world.arrived(0, 0, &vec![7; len]).expect("room")).to_vec();
        let mut frames = world.frames();
        frames.hang(packet.iter().copied());
        let first = frames.lay_out(packet[0], Seq(100), offset, text);
        let pieces = first.map(|first| {
            let laid: Vec<FrameIndex> = frames.walk_from(Some(first)).collect();
            let piece = |frame: &FrameIndex| {
                let record = frames.record(*frame).expect("a record");
                (record.seq, record.offset, record.len)
            };
            let pieces = laid.iter().map(piece).collect();
            frames.discard_packet(first);
            pieces
        });
        assert_eq!(world.pool.used(), 0, "every frame is free again");
        pieces
    }

    #[test]
    fn text_lies_where_its_frames_are() {
        assert_eq!(laid_out(0, 16), Some(vec![(100, 0, 1), (101, 0, 10), (111, 0, 5)]));
        assert_eq!(laid_out(3, 9), Some(vec![(100, 2, 8), (108, 0, 1)]), "without its first and last bytes");
        assert_eq!(laid_out(12, 4), Some(vec![(100, 1, 4)]));
        assert_eq!(laid_out(1, 10), Some(vec![(100, 0, 10)]));
        assert_eq!(laid_out(12, 5), None, "there are four");
        assert_eq!(laid_out(40_000, 1), None);
    }
}
