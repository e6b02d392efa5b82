//! The receive queue of a connection: text that arrived in order and wasn't read.
//!
//! ```text
//!   the oldest                          the latest, up to rcv.nxt
//!   | block | block | frame | frame | frame |
//! ```
//!
//! A frame that arrived is the buffer: its text is copied once, to the reader. Little text is copied to the end of the last frame instead,
//! so that a frame is not held for it (what `tcp_try_coalesce` and `tcp_collapse` are for). When the socket may have no more
//! frames, the oldest text moves to blocks and its frames are free.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::{FrameIndex, Memory};
use crate::frames::blocks::BlockList;
use crate::frames::list::FrameList;
use crate::frames::pool::Shortage;
use crate::frames::{FrameRecord, Frames, Means};
use crate::seq::Seq;
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// Text up to this many bytes is copied to the end of the last frame if there is room: cheaper than a frame.
pub const COPY_MAX: u16 = 512;

/// Frames that are moved to blocks at once: no longer than the lock may be held.
const SPILL_MAX: u32 = 32;

/// The queue. Zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReceiveQueue {
    /// The latest text.
    list: FrameList,
    /// What came before it.
    blocks: BlockList,
}

impl ReceiveQueue {
    /// Bytes that can be read.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.list.bytes().saturating_add(self.blocks.bytes())
    }

    /// Whether there is nothing to read.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The frames, behind what is in blocks.
    #[must_use]
    pub const fn list(&self) -> &FrameList {
        &self.list
    }

    /// The blocks before them.
    pub(crate) const fn blocks(&self) -> &BlockList {
        &self.blocks
    }

    /// Bytes in blocks.
    #[must_use]
    pub const fn bytes_in_blocks(&self) -> u32 {
        self.blocks.bytes()
    }

    /// Adds the text of a frame that was received, the next in order. The frame is the queue's or free afterwards.
    ///
    /// # Errors
    /// Why there is no memory for it: the frame is free, and the text lost.
    pub fn push<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        frame: FrameIndex,
    ) -> Result<(), Shortage> {
        let Some(len) = means.frames.record(frame).map(|record| record.len) else {
            return Err(Shortage::Frames);
        };
        if len == 0 || (len <= COPY_MAX && append_text(means, &mut self.list, frame)) {
            means.frames.discard(frame);
            return Ok(());
        }
        let kept = match means.frames.keep(frame, means.charge, means.owner) {
            Err(shortage) => self.push_short(means, frame, shortage),
            Ok(()) => {
                means.frames.push_back(&mut self.list, frame);
                Ok(())
            }
        };
        if kept.is_err() {
            means.frames.discard(frame);
        }
        kept
    }

    /// Adds text that another stack had received, the next in order; false if there are not frames enough.
    pub fn restore<M: Memory>(&mut self, means: &mut Means<'_, '_, '_, M>, seq: Seq, text: &[u8]) -> bool {
        let (mut seq, mut left) = (seq, text);
        while !left.is_empty() {
            let Ok(frame) = means.frames.take_data(means.charge, means.owner) else { return false };
            let room = means.memory.bytes_mut(frame);
            let len = room.map_or(0, |room| {
                let len = left.len().min(room.len()).min(u16::MAX.into());
                room[..len].copy_from_slice(&left[..len]);
                len
            });
            let Some(record) = means.frames.record_mut(frame).filter(|_| len > 0) else {
                means.frames.release(frame, means.charge);
                return false;
            };
            (record.seq, record.offset, record.len) = (seq.0, 0, len as u16);
            means.frames.push_back(&mut self.list, frame);
            (seq, left) = (seq + len as u32, &left[len..]);
        }
        true
    }

    /// Adds the text of a frame that the socket may not have.
    #[cold]
    fn push_short<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        frame: FrameIndex,
        shortage: Shortage,
    ) -> Result<(), Shortage> {
        self.spill(means, SPILL_MAX);
        if !self.list.is_empty() {
            means.frames.keep(frame, means.charge, means.owner)?;
            means.frames.push_back(&mut self.list, frame);
            return Ok(());
        }
        let record = means.frames.record(frame).copied().unwrap_or_default();
        let Some(mut text) = bytes_of(&*means.memory, frame, &record) else { return Err(shortage) };
        if means.blocks.room_bytes(&self.blocks) < text.len() {
            return Err(shortage);
        }
        means.blocks.push(&mut self.blocks, text.len(), |to| {
            let (now, later) = text.split_at(to.len());
            to.copy_from_slice(now);
            text = later;
            now.len()
        });
        means.frames.discard(frame);
        Ok(())
    }

    /// Adds frames that are the socket's already: what [`crate::reassembly`] kept until it was in order.
    pub fn append(&mut self, frames: &mut Frames<'_>, list: FrameList) {
        frames.append(&mut self.list, list);
    }

    /// Moves the oldest frames' text to blocks, of at most so many frames; how many are free now.
    pub fn spill<M: Memory>(&mut self, means: &mut Means<'_, '_, '_, M>, frames_max: u32) -> u32 {
        let Means { frames, blocks, memory, charge, .. } = means;
        blocks.spill(&mut self.blocks, frames, &mut self.list, &**memory, charge, frames_max)
    }

    /// The bytes from the `skip`th on (SO_PEEK_OFF, MSG_PEEK), in pieces and at most `len`; `take` says how many it took,
    /// and fewer than it was given end it. How many were taken. They stay in the queue.
    pub fn peek<M: Memory>(
        &self,
        means: &Means<'_, '_, '_, M>,
        skip: usize,
        len: usize,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> usize {
        let in_blocks = self.blocks.bytes() as usize;
        let mut left = len;
        let mut piece_of = |piece: &[u8]| {
            let part = piece.len().min(left);
            let got = if part == 0 { 0 } else { take(&piece[..part]).min(part) };
            left -= got;
            got
        };
        let mut done = 0;
        if skip < in_blocks && len > 0 {
            done = means.blocks.peek(&self.blocks, skip, &mut piece_of);
            if done < len.min(in_blocks - skip) {
                return done;
            }
        }
        let mut skip = skip.saturating_sub(in_blocks);
        for frame in means.frames.walk(&self.list) {
            let Some(text) =
                means.frames.record(frame).and_then(|record| bytes_of(&*means.memory, frame, record))
            else {
                break;
            };
            if skip >= text.len() {
                skip -= text.len();
                continue;
            }
            if done >= len {
                break;
            }
            let piece = &text[skip..];
            skip = 0;
            let got = piece_of(piece);
            done += got;
            if got < piece.len() {
                break;
            }
        }
        done
    }

    /// When the last of the next `len` bytes arrived, or of those of them of which that is known: what has been in blocks has no
    /// time any more.
    #[must_use]
    pub fn arrived(&self, frames: &Frames<'_>, len: usize) -> Option<Instant> {
        let mut left = len.checked_sub(self.blocks.bytes() as usize).filter(|left| *left > 0)?;
        let mut arrived = None;
        for record in frames.walk(&self.list).map_while(|frame| frames.record(frame)) {
            arrived = Some(Instant(record.sent_at)).filter(|at| at.0 != 0).or(arrived);
            left = left.saturating_sub(record.len.into());
            if left == 0 {
                break;
            }
        }
        arrived
    }

    /// Drops bytes from the front; how many.
    pub fn consume<M>(&mut self, means: &mut Means<'_, '_, '_, M>, len: usize) -> usize {
        let from_blocks = means.blocks.consume(&mut self.blocks, len);
        let from_frames = (len - from_blocks).min(self.list.bytes() as usize);
        let charge = &mut *means.charge;
        means.frames.trim_list_front(&mut self.list, from_frames as u32, |frames, frame| {
            frames.release(frame, charge);
        });
        from_blocks + from_frames
    }

    /// Hands out up to `len` bytes and drops them; how many.
    pub fn read<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        len: usize,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> usize {
        let mut done = 0;
        if !self.blocks.is_empty() {
            done = self.peek(means, 0, len.min(self.blocks.bytes() as usize), &mut take);
            self.consume(means, done);
            if !self.blocks.is_empty() {
                return done;
            }
        }
        // One step for each frame: what most reads find is one.
        while done < len {
            let Some(first) = self.list.first() else { break };
            let Some(text) =
                means.frames.record(first).and_then(|record| bytes_of(&*means.memory, first, record))
            else {
                break;
            };
            let asked = text.len().min(len - done);
            let is_whole = asked == text.len();
            let got = take(&text[..asked]).min(asked);
            done += got;
            if got < asked || !is_whole {
                means.frames.trim_front(&mut self.list, first, got as u16);
                break;
            }
            means.frames.pop_front(&mut self.list);
            means.frames.release(first, means.charge);
        }
        done
    }

    /// Drops everything.
    pub fn clear<M>(&mut self, means: &mut Means<'_, '_, '_, M>) {
        means.blocks.clear(&mut self.blocks);
        for _ in 0..means.frames.len() {
            let Some(frame) = means.frames.pop_front(&mut self.list) else { break };
            means.frames.release(frame, means.charge);
        }
        *self = Self::default();
    }
}

/// The text of a frame.
fn bytes_of<'m, M: Memory>(memory: &'m M, frame: FrameIndex, record: &FrameRecord) -> Option<&'m [u8]> {
    let begin = usize::from(record.offset);
    memory.bytes(frame)?.get(begin..begin + usize::from(record.len))
}

/// Copies the text of a frame to the end of the last frame of a list, if that has room and the device hasn't it. Their sequence
/// numbers must follow each other.
pub(crate) fn append_text<M: Memory>(
    means: &mut Means<'_, '_, '_, M>,
    list: &mut FrameList,
    frame: FrameIndex,
) -> bool {
    list.last().is_some_and(|last| append_to(means, list, last, frame))
}

/// As [`append_text`], for any frame of the list.
pub(crate) fn append_to<M: Memory>(
    means: &mut Means<'_, '_, '_, M>,
    list: &mut FrameList,
    last: FrameIndex,
    frame: FrameIndex,
) -> bool {
    let (Some(to), Some(from)) = (means.frames.record(last), means.frames.record(frame)) else {
        return false;
    };
    let end = usize::from(to.offset) + usize::from(to.len);
    let (begin, len) = (usize::from(from.offset), usize::from(from.len));
    let is_copied = means.frames.is_writable(last)
        && means.memory.pair(frame, last).is_some_and(|(from, to)| {
            let pieces = from.get(begin..begin + len).zip(to.get_mut(end..end + len));
            pieces.map(|(from, to)| to.copy_from_slice(from)).is_some()
        });
    if is_copied {
        // Of what is together the latest arrival is told (tcp_try_coalesce).
        let arrived = from.sent_at;
        means.frames.grow(list, last, len as u16);
        if let Some(record) = means.frames.record_mut(last) {
            record.sent_at = arrived;
        }
    }
    is_copied
}
