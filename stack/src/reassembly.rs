//! The out-of-order queue of a connection: text that arrived beyond rcv.nxt, kept until the gap before it is filled
//! (RFC 9293 §3.10.7.4), and what the peer is told about it by SACK (RFC 2018, RFC 2883).
//!
//! The frames are one list in sequence order without overlaps. Frames that follow each other without a gap are a *run*; the
//! first frame of each is in a second list and knows the last. An arrival is compared with runs: there are at
//! most [`RUNS_MAX`], so the work for one segment is bounded however many there are (CVE-2018-5390), and looked for
//! first where the last ones were and at the end.
//!
//! Overlaps are resolved as Linux does (`tcp_data_queue_ofo`): what is there covers the arrival, and the arrival is dropped;
//! the arrival covers what is there, and replaces it; and else the one that begins earlier wins. So text that
//! the reader was given, or that is before rcv.nxt, never changes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::{FrameIndex, Memory};
use crate::frames::list::{FrameList, SideList};
use crate::frames::pool::Shortage;
use crate::frames::{Frames, Means, link, linked};
use crate::recvq::{COPY_MAX, append_to};
use crate::seq::Seq;
use crate::wire::tcp::options::{Block, Blocks};

#[cfg(test)]
mod tests;

/// Runs that one connection may have.
pub const RUNS_MAX: u32 = 256;

/// Why an arrival was not taken. It is free, and the peer sends it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its text is there already; a D-SACK says so.
    Duplicate,
    /// It would be one run too many.
    Runs,
    /// The socket may not have its frame.
    Memory(Shortage),
}

/// The queue. Zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Reassembly {
    /// All frames, in sequence order.
    list: FrameList,
    /// The first frames of the runs, in sequence order.
    runs: SideList,
    /// How many runs there are.
    runs_count: u32,
    /// The runs that grew last, the latest first: their first frames, plus one.
    recent: [u32; 4],
    /// What arrived twice: the D-SACK block of the next acknowledgement, if it isn't empty.
    duplicate_left: u32,
    /// Its end.
    duplicate_right: u32,
}

impl Reassembly {
    /// Whether nothing waits for a gap to be filled.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All frames, in sequence order.
    #[must_use]
    pub const fn list(&self) -> &FrameList {
        &self.list
    }

    /// How many runs there are.
    #[must_use]
    pub const fn runs(&self) -> u32 {
        self.runs_count
    }

    /// What a run covers.
    fn range(frames: &Frames<'_>, head: FrameIndex) -> Option<Block> {
        let record = frames.record(head)?;
        let last = frames.record(linked(record.mate)?)?;
        Some(Block { left: record.seq(), right: last.end() })
    }

    /// The last run that begins at or before `seq`; `None` if all begin after it.
    fn run_before(&self, frames: &Frames<'_>, seq: Seq) -> Option<FrameIndex> {
        let begins_after = |head: FrameIndex| frames.record(head).is_some_and(|record| seq.lt(record.seq()));
        let last = self.runs.last()?;
        if !begins_after(last) {
            return Some(last);
        }
        let mut at = linked(self.recent[0]).unwrap_or(last);
        for _ in 0..=RUNS_MAX {
            match begins_after(at) {
                true => at = frames.side_previous(at)?,
                false => match frames.side_next(at) {
                    Some(next) if !begins_after(next) => at = next,
                    _ => return Some(at),
                },
            }
        }
        None
    }

    /// Adds the text of a frame that was received; all of it is beyond rcv.nxt and in the window. The frame is the queue's or free
    /// afterwards.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn insert<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        frame: FrameIndex,
    ) -> Result<(), Dropped> {
        let done = self.place(means, frame);
        if done.is_err() {
            means.frames.discard(frame);
        }
        done
    }

    fn place<M: Memory>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        frame: FrameIndex,
    ) -> Result<(), Dropped> {
        let Some(record) = means.frames.record(frame) else { return Err(Dropped::Duplicate) };
        let new = Block { left: record.seq(), right: record.seq() + u32::from(record.len) };
        let before = self.run_before(means.frames, new.left);
        let old = before.and_then(|head| Self::range(means.frames, head));
        if new.left == new.right || old.is_some_and(|old| new.right.le(old.right)) {
            self.note_duplicate(new);
            before.inspect(|head| self.touch(*head));
            return Err(Dropped::Duplicate);
        }
        // Whether it begins with the run and is longer, begins inside of it, or behind it.
        let is_replaced = old.is_some_and(|old| old.left == new.left);
        let overlap = old.map_or(0, |old| if new.left.lt(old.right) { old.right - new.left } else { 0 });
        let joins = !is_replaced && old.is_some_and(|old| new.left.le(old.right));
        let next = before.map_or(self.runs.first(), |head| means.frames.side_next(head));
        let meets_next =
            next.and_then(|head| means.frames.record(head)).is_some_and(|record| record.seq().le(new.right));
        if !joins && !is_replaced && !meets_next && self.runs_count >= RUNS_MAX {
            return Err(Dropped::Runs);
        }
        if let Some(record) = means.frames.record_mut(frame).filter(|_| joins) {
            record.seq = record.seq.wrapping_add(overlap);
            record.offset = record.offset.saturating_add(overlap as u16);
            record.len = record.len.saturating_sub(overlap as u16);
        }
        let last = before.filter(|_| joins).and_then(|head| Self::last_of(means.frames, head));
        let is_small = means.frames.record(frame).is_some_and(|record| record.len <= COPY_MAX);
        let is_copied = is_small && last.is_some_and(|last| append_to(means, &mut self.list, last, frame));
        if is_copied {
            means.frames.discard(frame);
        } else {
            means.frames.keep(frame, means.charge, means.owner).map_err(Dropped::Memory)?;
        }
        if overlap > 0 {
            self.note_duplicate(Block { left: new.left, right: new.left + overlap });
        }
        let before = match before {
            Some(head) if is_replaced => {
                let previous = means.frames.side_previous(head);
                self.drop_run(means, head);
                previous
            }
            other => other,
        };
        self.give_way(means, before, new.right);
        let head = match before.filter(|_| joins) {
            Some(head) => head,
            None => frame,
        };
        if !is_copied {
            let after = before.and_then(|head| Self::last_of(means.frames, head));
            means.frames.insert_after(&mut self.list, after, frame);
            if let Some(record) = means.frames.record_mut(head) {
                record.mate = link(frame);
            }
            if head == frame {
                means.frames.side_insert(&mut self.runs, before, frame);
                self.runs_count += 1;
            }
        }
        self.join_next(means.frames, head);
        self.touch(head);
        Ok(())
    }

    fn last_of(frames: &Frames<'_>, head: FrameIndex) -> Option<FrameIndex> {
        linked(frames.record(head)?.mate)
    }

    /// What lies behind the run `before` and before `right` gives way to an arrival that begins earlier.
    fn give_way<M>(&mut self, means: &mut Means<'_, '_, '_, M>, before: Option<FrameIndex>, right: Seq) {
        for _ in 0..=RUNS_MAX {
            let next = before.map_or(self.runs.first(), |head| means.frames.side_next(head));
            let Some((head, old)) = next.and_then(|head| Some((head, Self::range(means.frames, head)?)))
            else {
                return;
            };
            if right.le(old.left) {
                return;
            }
            if old.right.le(right) {
                self.note_duplicate(old);
                self.drop_run(means, head);
            } else {
                self.note_duplicate(Block { left: old.left, right });
                self.trim_run(means, head, right - old.left);
                return;
            }
        }
    }

    /// Drops a whole run.
    fn drop_run<M>(&mut self, means: &mut Means<'_, '_, '_, M>, head: FrameIndex) {
        let mut list = self.take_run(means.frames, head);
        while let Some(frame) = means.frames.pop_front(&mut list) {
            means.frames.release(frame, means.charge);
        }
    }

    /// Takes a whole run out.
    fn take_run(&mut self, frames: &mut Frames<'_>, head: FrameIndex) -> FrameList {
        let last = Self::last_of(frames, head).unwrap_or(head);
        self.forget(head);
        frames.side_remove(&mut self.runs, head);
        self.runs_count = self.runs_count.saturating_sub(1);
        frames.cut(&mut self.list, head, last)
    }

    /// Drops bytes, fewer than it has, from the front of a run: what is left joins what comes before it.
    fn trim_run<M>(&mut self, means: &mut Means<'_, '_, '_, M>, head: FrameIndex, mut bytes: u32) {
        let frames = &mut *means.frames;
        let mut head = head;
        for _ in 0..frames.len() {
            let Some(record) = frames.record(head).copied() else { return };
            if bytes < u32::from(record.len) {
                frames.trim_front(&mut self.list, head, bytes as u16);
                return;
            }
            let Some(next) = linked(record.next).filter(|_| record.mate != link(head)) else { return };
            bytes -= u32::from(record.len);
            frames.side_insert(&mut self.runs, Some(head), next);
            frames.side_remove(&mut self.runs, head);
            if let Some(next) = frames.record_mut(next) {
                next.mate = record.mate;
            }
            self.forget(head);
            frames.remove(&mut self.list, head);
            frames.release(head, means.charge);
            head = next;
        }
    }

    /// Makes one run of this and the next one, if there is no gap between them.
    fn join_next(&mut self, frames: &mut Frames<'_>, head: FrameIndex) {
        let Some(next) = frames.side_next(head) else { return };
        let ends = (Self::range(frames, head), Self::range(frames, next));
        if let (Some(first), Some(second)) = ends
            && first.right == second.left
        {
            let mate = frames.record(next).map_or(0, |record| record.mate);
            frames.side_remove(&mut self.runs, next);
            self.runs_count = self.runs_count.saturating_sub(1);
            self.forget(next);
            if let Some(record) = frames.record_mut(head) {
                record.mate = mate;
            }
        }
    }

    /// After rcv.nxt moved to `next`: what is in order now, for the receive queue, and the rcv.nxt behind it. What lay before
    /// `next` arrived twice and is dropped.
    pub fn take_in_order<M>(&mut self, means: &mut Means<'_, '_, '_, M>, next: Seq) -> (FrameList, Seq) {
        let (mut list, mut next) = (FrameList::default(), next);
        for _ in 0..=RUNS_MAX {
            let Some(head) = self.runs.first() else { break };
            let Some(old) = Self::range(means.frames, head) else { break };
            if next.lt(old.left) {
                break;
            }
            if old.right.le(next) {
                self.note_duplicate(old);
                self.drop_run(means, head);
                continue;
            }
            if old.left.lt(next) {
                self.note_duplicate(Block { left: old.left, right: next });
                self.trim_run(means, head, next - old.left);
            }
            let Some(head) = self.runs.first() else { break };
            let part = self.take_run(means.frames, head);
            means.frames.append(&mut list, part);
            next = old.right;
        }
        (list, next)
    }

    /// Text arrived that is there already. RFC 2883 §4: one block, in the next acknowledgement; more of them are one if they touch
    /// it, and else the first is reported (`tcp_dsack_extend`).
    pub fn note_duplicate(&mut self, block: Block) {
        let (left, right) = (Seq(self.duplicate_left), Seq(self.duplicate_right));
        if block.left == block.right {
            return;
        }
        if left == right {
            (self.duplicate_left, self.duplicate_right) = (block.left.0, block.right.0);
        } else if block.left.le(right) && left.le(block.right) {
            self.duplicate_left = if block.left.lt(left) { block.left.0 } else { left.0 };
            self.duplicate_right = if right.lt(block.right) { block.right.0 } else { right.0 };
        }
    }

    /// Whether the next acknowledgement reports a duplicate.
    #[must_use]
    pub const fn has_duplicate(&self) -> bool {
        self.duplicate_left != self.duplicate_right
    }

    /// The blocks for an acknowledgement, at most so many: the duplicate, once (RFC 2883 §4); the run that grew last, and the ones
    /// before it in that order (RFC 2018 §4); then others, from the front.
    #[must_use]
    pub fn sack_blocks(&mut self, frames: &Frames<'_>, blocks_max: usize) -> Blocks {
        let mut blocks = Blocks::default();
        let duplicate = Block { left: Seq(self.duplicate_left), right: Seq(self.duplicate_right) };
        if blocks_max > 0 && duplicate.left != duplicate.right {
            blocks.push(duplicate);
            (self.duplicate_left, self.duplicate_right) = (0, 0);
        }
        let others = frames.side_walk(&self.runs).take(2 * self.recent.len());
        let others = others.filter(|head| !self.recent.contains(&link(*head)));
        for head in self.recent.into_iter().map_while(linked).chain(others) {
            if blocks.as_slice().len() >= blocks_max {
                break;
            }
            let Some(range) = Self::range(frames, head) else { break };
            blocks.push(range);
        }
        blocks
    }

    /// Drops the runs that are the furthest from rcv.nxt until so many frames are free: RFC 2018 §8 allows it, and Linux does it
    /// when a socket is out of memory (`tcp_prune_ofo_queue`). How many are free now.
    pub fn prune<M>(&mut self, means: &mut Means<'_, '_, '_, M>, frames_min: u32) -> u32 {
        let before = self.list.frames();
        for _ in 0..RUNS_MAX {
            let Some(last) =
                self.runs.last().filter(|_| before.wrapping_sub(self.list.frames()) < frames_min)
            else {
                break;
            };
            self.drop_run(means, last);
        }
        before.wrapping_sub(self.list.frames())
    }

    /// Drops everything.
    pub fn clear<M>(&mut self, means: &mut Means<'_, '_, '_, M>) {
        for _ in 0..means.frames.len() {
            let Some(frame) = means.frames.pop_front(&mut self.list) else { break };
            means.frames.release(frame, means.charge);
        }
        *self = Self::default();
    }

    /// A run grew: it is reported first.
    fn touch(&mut self, head: FrameIndex) {
        let mut moved = link(head);
        for place in &mut self.recent {
            core::mem::swap(place, &mut moved);
            if moved == link(head) || moved == 0 {
                break;
            }
        }
    }

    /// A run is gone, or about to be a part of another one.
    fn forget(&mut self, head: FrameIndex) {
        if let Some(at) = self.recent.iter().position(|recent| *recent == link(head)) {
            self.recent.copy_within(at + 1.., at);
            self.recent[3] = 0;
        }
    }

    /// Whether the runs are what the frames say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, frames: &Frames<'_>) -> Result<(), &'static str> {
        frames.check_list(&self.list)?;
        let (mut runs, mut head, mut end): (u32, Option<FrameIndex>, Option<Seq>) = (0, None, None);
        let mut heads = frames.side_walk(&self.runs);
        for frame in frames.walk(&self.list) {
            let Some(record) = frames.record(frame) else { break };
            if end != Some(record.seq()) {
                runs += 1;
                head = heads.next();
                if head != Some(frame) {
                    return Err("a run of out-of-order frames begins elsewhere");
                }
            }
            end = Some(record.end());
            let mate = head.and_then(|head| frames.record(head)).map_or(0, |record| record.mate);
            let is_last = linked(record.next)
                .is_none_or(|next| frames.record(next).is_none_or(|next| next.seq() != record.end()));
            if is_last != (mate == link(frame)) {
                return Err("a run of out-of-order frames ends elsewhere");
            }
        }
        if runs != self.runs_count || heads.next().is_some() || runs > RUNS_MAX {
            return Err("the count of out-of-order runs is wrong");
        }
        let is_run = |recent: &u32| frames.side_walk(&self.runs).any(|head| link(head) == *recent);
        if !self.recent.iter().filter(|recent| **recent != 0).all(is_run) {
            return Err("a run that was reported is gone");
        }
        Ok(())
    }
}
