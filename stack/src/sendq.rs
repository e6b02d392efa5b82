//! The send queue of a connection: what was written and isn't acknowledged, in sequence order.
//!
//! ```text
//!   snd.una                    snd.nxt
//!   | frame | frame | frame |  | frame | frame |  | block | block |
//!     sent: one list by time,    unsent, in          unsent, far beyond
//!     one of what is lost        frames              the window
//! ```
//!
//! Each frame has at most one segment's text and room for headers before it, so that it can be sent, and sent again, by itself;
//! a device with TSO sends a run of them as one packet ([`SendQueue::run`]). The frame is the retransmission buffer: its text
//! doesn't move until it is acknowledged. Frames that the user still adds to aren't sent yet.
//!
//! What arrives of the peer's knowledge is marked in the frames' records ([`scoreboard`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::{Fragment, FrameIndex, Memory};
use crate::frames::blocks::BlockList;
use crate::frames::list::{FrameList, SideList};
use crate::frames::pool::{Charge, Purpose, Shortage};
use crate::frames::{FrameRecord, Frames, Means, link, linked};
use crate::seq::Seq;
use crate::time::Instant;
use crate::wire::checksum::Sum;

pub mod scoreboard;

#[cfg(test)]
mod tests;

/// Frames of one kind and the sequence numbers in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Count {
    /// How many frames.
    pub frames: u32,
    /// How many sequence numbers: bytes, and one for a FIN.
    pub octets: u32,
}

impl Count {
    fn add(&mut self, octets: u32) {
        self.frames = self.frames.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets);
    }

    fn subtract(&mut self, octets: u32) {
        self.frames = self.frames.wrapping_sub(1);
        self.octets = self.octets.wrapping_sub(octets);
    }
}

/// The queue. Zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SendQueue {
    /// The frames.
    list: FrameList,
    /// Data behind them.
    blocks: BlockList,
    /// The sequence number after the last frame.
    end: u32,
    /// The first frame that was never sent, plus one.
    unsent: u32,
    /// Where a SACK block ended last, plus one.
    hint: u32,
    /// Frames that are on their way, as far as one knows, by the time of their last transmission.
    flight: SideList,
    /// Frames that are to be sent again, in sequence order.
    again: SideList,
    /// Frames that were sent and aren't acknowledged.
    sent: Count,
    /// Of these, what the peer has (sacked_out).
    sacked: Count,
    /// What is taken for lost (lost_out).
    lost: Count,
    /// What was sent again and is on its way (retrans_out).
    retransmitted: Count,
}

/// The shape of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes before the text, for the headers and what the device wants there.
    pub headroom: u16,
    /// Most bytes of text in a frame: one segment's, and no more than the frame has room for.
    pub mss: u16,
}

/// What a copy function did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copied {
    /// Bytes written from the slice's start on; fewer than there was room for are the last.
    pub len: usize,
    /// Their sum, when it came for nothing ([`Sum::copy`]).
    pub sum: Option<Sum>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Bytes that are in the queue now.
    pub bytes: usize,
    /// Whether there was no memory for more.
    pub is_short: bool,
}

impl SendQueue {
    /// An empty queue whose first byte has this sequence number.
    #[must_use]
    pub fn new(first: Seq) -> Self {
        Self { end: first.0, ..Self::default() }
    }

    /// The frames, the oldest first.
    #[must_use]
    pub const fn list(&self) -> &FrameList {
        &self.list
    }

    /// The sequence number after the last frame: what is in blocks comes after it.
    #[must_use]
    pub const fn end(&self) -> Seq {
        Seq(self.end)
    }

    /// The blocks behind them.
    pub(crate) const fn blocks(&self) -> &BlockList {
        &self.blocks
    }

    /// Bytes in blocks.
    #[must_use]
    pub const fn bytes_in_blocks(&self) -> u32 {
        self.blocks.bytes()
    }

    /// Bytes of text in all of it, acknowledged by nobody.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.list.bytes().saturating_add(self.blocks.bytes())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty() && self.blocks.is_empty()
    }

    /// The first frame that was never sent.
    #[inline]
    #[must_use]
    pub const fn next_unsent(&self) -> Option<FrameIndex> {
        linked(self.unsent)
    }

    /// The first frame that is lost and wasn't sent again since.
    #[inline]
    #[must_use]
    pub const fn next_lost(&self) -> Option<FrameIndex> {
        self.again.first()
    }

    /// Adds up to `len` bytes at the end: to frames, as long as there are no more than `frames_max`, then to blocks.
    /// `copy` fills the slice that it is given.
    pub fn append<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        shape: Shape,
        len: usize,
        frames_max: u32,
        mut copy: impl FnMut(&mut [u8]) -> Copied,
    ) -> Appended {
        let mut bytes = 0;
        while bytes < len && self.blocks.is_empty() {
            let Ok((got, asked)) = self.put(means, shape, len - bytes, frames_max, &mut copy) else { break };
            bytes += got;
            if got < asked || asked == 0 {
                return Appended { bytes, is_short: false };
            }
        }
        if bytes < len {
            let mut is_ended = false;
            bytes += means.blocks.push(&mut self.blocks, len - bytes, |to| {
                let got = copy(to).len.min(to.len());
                is_ended = got < to.len();
                got
            });
            return Appended { bytes, is_short: bytes < len && !is_ended };
        }
        Appended { bytes, is_short: false }
    }

    /// Moves data from blocks to frames, as long as these are no more than `frames_max`. Whether any was moved.
    pub fn refill<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        shape: Shape,
        frames_max: u32,
    ) -> bool {
        let mut is_moved = false;
        while !self.blocks.is_empty() {
            let Means { frames, blocks, memory, charge, owner } = means;
            let (mut from, left) = (self.blocks, self.blocks.bytes() as usize);
            let mut copy = |to: &mut [u8]| {
                let mut done = Copied { len: 0, sum: Some(Sum::ZERO) };
                blocks.peek(&from, 0, |piece| {
                    let part = piece.len().min(to.len() - done.len);
                    done.sum = done.sum.map(|sum| sum.copy(&piece[..part], &mut to[done.len..]));
                    done.len += part;
                    part
                });
                blocks.consume(&mut from, done.len);
                done
            };
            let put =
                self.put_into(frames, &mut **memory, charge, *owner, shape, left, frames_max, &mut copy);
            self.blocks = from;
            match put {
                Ok((got, _)) if got > 0 => is_moved = true,
                _ => break,
            }
        }
        is_moved
    }

    /// Adds a frame that was sent as soon as it was filled. Nothing unsent may be in the queue, and the frame in no list.
    #[inline]
    pub fn push_sent(&mut self, frames: &mut Frames<'_>, frame: FrameIndex, now: Instant) {
        let Some(record) = frames.record_mut(frame) else { return };
        record.flags |= FrameRecord::SENT;
        record.sent_at = now.0;
        self.end = self.end.wrapping_add(record.seq_len());
        self.sent.add(record.seq_len());
        frames.push_back(&mut self.list, frame);
        self.push_flight(frames, frame);
    }

    /// See [`Self::put_into`].
    fn put<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        shape: Shape,
        len: usize,
        frames_max: u32,
        copy: &mut impl FnMut(&mut [u8]) -> Copied,
    ) -> Result<(usize, usize), Shortage> {
        let Means { frames, memory, charge, owner, .. } = means;
        self.put_into(frames, &mut **memory, charge, *owner, shape, len, frames_max, copy)
    }

    /// Adds bytes to the last frame or to a new one: how many, and how many were asked for.
    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of Means, of which refill lends one to the copy"
    )]
    fn put_into<M: Memory>(
        &mut self,
        frames: &mut Frames<'_>,
        memory: &mut M,
        charge: &mut Charge,
        owner: u32,
        shape: Shape,
        len: usize,
        frames_max: u32,
        copy: &mut impl FnMut(&mut [u8]) -> Copied,
    ) -> Result<(usize, usize), Shortage> {
        let (frame, is_new) = match self.open_tail(frames, shape) {
            Some(frame) => (frame, false),
            None if self.list.frames() >= frames_max => return Err(Shortage::Socket),
            None => (frames.take_data(charge, owner)?, true),
        };
        let Some(record) = frames.record_mut(frame) else { return Err(Shortage::Frames) };
        if is_new {
            (record.seq, record.offset) = (self.end, shape.headroom);
        }
        let begin = usize::from(record.offset) + usize::from(record.len);
        let asked = usize::from(shape.mss - record.len).min(len);
        let copied = memory
            .bytes_mut(frame)
            .and_then(|bytes| bytes.get_mut(begin..begin + asked))
            .map_or(Copied::default(), copy);
        let got = copied.len.min(asked);
        if got == 0 && is_new {
            frames.release(frame, charge);
            return Ok((0, asked));
        }
        add_sum(record, copied.sum.filter(|_| got == copied.len));
        if is_new {
            record.len = got as u16;
            frames.push_back(&mut self.list, frame);
            if self.unsent == 0 {
                self.unsent = link(frame);
            }
        } else {
            frames.grow(&mut self.list, frame, got as u16);
            // RFC 9293 §3.9.1.2 (SHLD-27): "collapse successive bits" (tcp_sendmsg_locked).
            if let Some(record) = frames.record_mut(frame) {
                record.flags &= !FrameRecord::PUSH;
            }
        }
        self.end = self.end.wrapping_add(got as u32);
        Ok((got, asked))
    }

    /// The last frame, if the user's bytes can still be added to it.
    fn open_tail(&self, frames: &Frames<'_>, shape: Shape) -> Option<FrameIndex> {
        let frame = self.list.last().filter(|_| self.unsent != 0)?;
        let record = frames.record(frame)?;
        let is_open = record.flags & (FrameRecord::SENT | FrameRecord::FIN) == 0;
        (is_open && record.len < shape.mss && frames.is_writable(frame)).then_some(frame)
    }

    /// The user's data ends here: the last frame's segment has PSH. In blocks the end isn't kept: what leaves as the last of all has it
    /// anyway.
    pub fn mark_push(&self, frames: &mut Frames<'_>) {
        let last = self.list.last().filter(|_| self.blocks.is_empty());
        if let Some(record) = last.and_then(|last| frames.record_mut(last)) {
            record.flags |= FrameRecord::PUSH;
        }
    }

    /// Adds the FIN: to the last frame if that wasn't sent, or else as a frame of its own, out of control's reserve. False if there
    /// is none, or data in blocks comes first: to be tried again.
    pub fn push_fin<M: Memory>(&mut self, means: &mut Means<'_, '_, '_, M>, shape: Shape) -> bool {
        if !self.blocks.is_empty() {
            return false;
        }
        let frames = &mut *means.frames;
        let last = self.list.last().filter(|_| self.unsent != 0);
        match last.and_then(|last| frames.record_mut(last)) {
            Some(record) if record.has(FrameRecord::FIN) => return true,
            Some(record) => record.flags |= FrameRecord::FIN,
            None => {
                let Some(frame) = frames.take(Purpose::Control) else { return false };
                if !frames.own(frame, means.charge, means.owner) {
                    return false;
                }
                if let Some(record) = frames.record_mut(frame) {
                    (record.seq, record.offset, record.flags) = (self.end, shape.headroom, FrameRecord::FIN);
                }
                frames.push_back(&mut self.list, frame);
                self.unsent = link(frame);
            }
        }
        self.end = self.end.wrapping_add(1);
        true
    }

    /// The text that goes into one packet with that of `first`, whose segments have as much as it has, but for the last, which may
    /// have less: of frames that are alike (never sent, or lost), that the device hasn't, and of which `may` says so, given
    /// the bytes before each. How many fragments were written, and bytes.
    pub fn run(
        frames: &Frames<'_>,
        first: FrameIndex,
        bytes_max: u32,
        fragments: &mut [Fragment],
        mut may: impl FnMut(&FrameRecord, u32) -> bool,
    ) -> (usize, u32) {
        let kind = |record: &FrameRecord| {
            record.flags
                & (FrameRecord::SENT
                    | FrameRecord::LOST
                    | FrameRecord::SACKED
                    | FrameRecord::RETRANSMITTED
                    | FrameRecord::FIN)
        };
        let (mut count, mut bytes, mut at) = (0, 0, Some(first));
        let (alike, size) = frames.record(first).map_or((0, 0), |record| (kind(record), record.len));
        while let (Some(frame), Some(fragment)) = (at, fragments.get_mut(count)) {
            let Some(record) = frames.record(frame) else { break };
            let len = u32::from(record.len);
            let fits = len > 0 && record.len <= size && bytes + len <= bytes_max;
            if !fits || kind(record) != alike || !frames.is_writable(frame) || !may(record, bytes) {
                break;
            }
            *fragment = Fragment { frame, offset: record.offset, len: record.len };
            (count, bytes) = (count + 1, bytes + len);
            if record.len != size || alike & FrameRecord::FIN != 0 {
                break;
            }
            at = frames.next(frame);
        }
        (count, bytes)
    }

    /// Leaves the first `at` bytes of text to a frame and moves the rest to a new one behind it: the MSS became smaller, or a
    /// window ends in it. The old frame's bytes stay as they are, so the device may have it.
    pub fn split<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        shape: Shape,
        frame: FrameIndex,
        at: u16,
    ) -> Option<FrameIndex> {
        let frames = &mut *means.frames;
        let old = *frames.record(frame)?;
        let rest = old.len.checked_sub(at).filter(|rest| *rest > 0 && at > 0)?;
        if old.has(FrameRecord::SACKED) {
            return None;
        }
        let new = frames.take(Purpose::Control)?;
        let begin = usize::from(old.offset) + usize::from(at);
        let headroom = usize::from(shape.headroom);
        let is_copied = means.memory.pair(frame, new).is_some_and(|(from, to)| {
            let from = from.get(begin..begin + usize::from(rest));
            let to = to.get_mut(headroom..headroom + usize::from(rest));
            from.zip(to).map(|(from, to)| to.copy_from_slice(from)).is_some()
        });
        if !is_copied || !frames.own(new, means.charge, means.owner) {
            frames.discard(new);
            return None;
        }
        let ends = FrameRecord::FIN | FrameRecord::PUSH;
        let record = frames.record_mut(new)?;
        *record = FrameRecord {
            seq: old.seq.wrapping_add(at.into()),
            offset: shape.headroom,
            len: rest,
            flags: old.flags & !FrameRecord::SUMMED,
            owner: record.owner,
            next: 0,
            previous: 0,
            side_next: 0,
            side_previous: 0,
            mate: 0,
            ..old
        };
        frames.insert_after(&mut self.list, Some(frame), new);
        frames.trim_back(&mut self.list, frame, rest);
        // The bytes were counted with the new frame and are dropped with the old one.
        if let Some(record) = frames.record_mut(frame) {
            record.flags &= !ends;
        }
        for count in self.counts(old.flags) {
            count.frames = count.frames.wrapping_add(1);
        }
        if old.has(FrameRecord::SENT) {
            frames.side_insert(self.side_of(old.flags), Some(frame), new);
        }
        Some(new)
    }

    /// Adds the text of the next frame to that of this one and frees it, as Linux does before it sends small segments again
    /// (`tcp_retrans_try_collapse`). False if they aren't alike, are too much for one segment, or the device has one.
    pub fn collapse<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        shape: Shape,
        frame: FrameIndex,
    ) -> bool {
        let frames = &mut *means.frames;
        let Some(next) = frames.next(frame) else { return false };
        let (Some(&first), Some(&second)) = (frames.record(frame), frames.record(next)) else { return false };
        let kind = FrameRecord::SENT | FrameRecord::LOST | FrameRecord::RETRANSMITTED;
        let begin = usize::from(first.offset) + usize::from(first.len);
        let is_alike = first.flags & kind == second.flags & kind
            && (first.flags | second.flags) & FrameRecord::SACKED == 0
            && !first.has(FrameRecord::FIN);
        if !is_alike
            || u32::from(first.len) + u32::from(second.len) > u32::from(shape.mss)
            || !frames.is_writable(frame)
            || !frames.is_writable(next)
        {
            return false;
        }
        let is_copied = means.memory.pair(next, frame).is_some_and(|(from, to)| {
            let from = from.get(second.offset.into()..usize::from(second.offset) + usize::from(second.len));
            let to = to.get_mut(begin..begin + usize::from(second.len));
            from.zip(to).map(|(from, to)| to.copy_from_slice(from)).is_some()
        });
        if !is_copied {
            return false;
        }
        for count in self.counts(first.flags) {
            count.frames = count.frames.wrapping_sub(1);
        }
        self.unlink(frames, next);
        frames.grow(&mut self.list, frame, second.len);
        if let Some(record) = frames.record_mut(frame) {
            let carried = FrameRecord::FIN | FrameRecord::PUSH | FrameRecord::EVER_RETRANSMITTED;
            record.flags = (record.flags | second.flags & carried) & !FrameRecord::SUMMED;
            record.retransmissions = record.retransmissions.max(second.retransmissions);
        }
        frames.release(next, means.charge);
        true
    }

    /// A copy of a frame's text in a frame that nobody has: for a retransmission that can't wait for the device to
    /// give back what it has. It is sent like a control packet and is free when that is complete.
    pub fn copy_of<M: Memory>(
        frames: &mut Frames<'_>,
        memory: &mut M,
        frame: FrameIndex,
    ) -> Option<FrameIndex> {
        let old = *frames.record(frame)?;
        let new = frames.take(Purpose::Control)?;
        let place = usize::from(old.offset)..usize::from(old.offset) + usize::from(old.len);
        let is_copied = memory.pair(frame, new).is_some_and(|(from, to)| {
            let pieces = from.get(place.clone()).zip(to.get_mut(place));
            pieces.map(|(from, to)| to.copy_from_slice(from)).is_some()
        });
        if !is_copied {
            frames.discard(new);
            return None;
        }
        let record = frames.record_mut(new)?;
        (record.seq, record.offset, record.len) = (old.seq, old.offset, old.len);
        (record.flags, record.mate) =
            (old.flags & (FrameRecord::SUMMED | FrameRecord::FIN | FrameRecord::PUSH), old.mate);
        Some(new)
    }

    /// Drops everything.
    pub fn clear<M>(&mut self, means: &mut Means<'_, '_, '_, M>) {
        for _ in 0..means.frames.len() {
            let Some(frame) = means.frames.pop_front(&mut self.list) else { break };
            means.frames.release(frame, means.charge);
        }
        means.blocks.clear(&mut self.blocks);
        *self = Self::new(self.end());
    }
}

/// The sum of a frame's text, if it is known.
#[must_use]
pub fn text_sum(record: &FrameRecord) -> Option<Sum> {
    record.has(FrameRecord::SUMMED).then(|| Sum::ZERO.word(record.mate as u16))
}

/// Adds the sum of bytes that are about to be added to a frame's text.
fn add_sum(record: &mut FrameRecord, sum: Option<Sum>) {
    if record.len == 0
        && let Some(sum) = sum
    {
        record.mate = sum.fold().into();
        record.flags |= FrameRecord::SUMMED;
        return;
    }
    let before = text_sum(record);
    record.flags &= !FrameRecord::SUMMED;
    if let (Some(before), Some(sum)) = (before, sum) {
        // Bytes at an odd place are in the other halves of the words (RFC 1071 §2 A).
        let word = if record.len % 2 == 1 { sum.fold().swap_bytes() } else { sum.fold() };
        record.mate = u32::from(before.word(word).fold());
        record.flags |= FrameRecord::SUMMED;
    }
}
