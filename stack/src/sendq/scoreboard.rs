//! What the sender knows of the frames that it sent: which the peer has, which are lost, which were sent again.
//!
//! The flags mean what they mean in Linux (`tcp_input.c`, "state for tagging"). A frame that was sent is
//!
//! | flags | what | in the side list |
//! |---|---|---|
//! | none, or RETRANSMITTED with or without LOST | on its way | `flight`, by the time of its last transmission |
//! | LOST | to be sent again | `again`, in sequence order |
//! | SACKED | the peer has it | none: its side links join the ends of its run of SACKED frames |
//!
//! So RACK looks at the oldest of what is on its way and stops at the first that is too young (RFC 8985 §6.2), the next
//! retransmission is the first of `again`, and a SACK block steps over what is known already in one step for each
//! run. A block whose place is far from the last one's may need more steps than an acknowledgement is allowed:
//! then the rest of it waits for the next time that it is reported.

use super::{Count, SendQueue};
use crate::device::FrameIndex;
use crate::frames::list::SideList;
use crate::frames::{FrameRecord, Frames, Means, link, linked};
use crate::seq::Seq;
use crate::time::Instant;
use crate::wire::tcp::options::Block;

/// Steps along the queue that one acknowledgement may take for all its SACK blocks.
pub const STEPS_MAX: u32 = 512;

/// Steps from either end for a frame's place in the order of what is to be sent again. Beyond them the order gives way.
const ORDER_STEPS: u32 = 64;

/// What makes a sent frame another one than most.
const NOT_PLAIN: u16 = FrameRecord::SACKED | FrameRecord::LOST | FrameRecord::RETRANSMITTED;

/// What an acknowledgement did to the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Frames that are out of the queue.
    pub frames: u32,
    /// Sequence numbers that were acknowledged.
    pub octets: u32,
    /// Whether the FIN is among them.
    pub fin: bool,
}

impl SendQueue {
    /// Frames that were sent and aren't acknowledged (packets_out).
    #[must_use]
    pub const fn sent(&self) -> Count {
        self.sent
    }

    /// Of these, what the peer has (sacked_out).
    #[must_use]
    pub const fn sacked(&self) -> Count {
        self.sacked
    }

    /// Of these, what is taken for lost (lost_out).
    #[must_use]
    pub const fn lost(&self) -> Count {
        self.lost
    }

    /// What was sent again and is on its way (retrans_out).
    #[must_use]
    pub const fn retransmitted(&self) -> Count {
        self.retransmitted
    }

    /// Octets that are on their way: the pipe of RFC 6675 §4, as Linux counts it (`tcp_packets_in_flight`).
    #[inline]
    #[must_use]
    pub const fn pipe(&self) -> u32 {
        let left = self.sacked.octets.saturating_add(self.lost.octets);
        self.sent.octets.saturating_add(self.retransmitted.octets).saturating_sub(left)
    }

    /// The frame on its way whose last transmission is the longest ago.
    #[inline]
    #[must_use]
    pub const fn oldest(&self) -> Option<FrameIndex> {
        self.flight.first()
    }

    /// The frames on their way, by the time of their last transmission; the next of a frame is
    /// [`Frames::side_next`].
    #[must_use]
    pub const fn flight(&self) -> &SideList {
        &self.flight
    }

    /// The side list in which a sent frame with these flags is, if it isn't SACKED.
    pub(super) const fn side_of(&mut self, flags: u16) -> &mut SideList {
        let is_again = flags & FrameRecord::LOST != 0 && flags & FrameRecord::RETRANSMITTED == 0;
        if is_again { &mut self.again } else { &mut self.flight }
    }

    /// The counts in which a frame with these flags is.
    pub(super) fn counts(&mut self, flags: u16) -> impl Iterator<Item = &mut Count> {
        [
            (FrameRecord::SENT, &mut self.sent),
            (FrameRecord::SACKED, &mut self.sacked),
            (FrameRecord::LOST, &mut self.lost),
            (FrameRecord::RETRANSMITTED, &mut self.retransmitted),
        ]
        .into_iter()
        .filter_map(move |(flag, count)| (flags & flag != 0).then_some(count))
    }

    /// The first unsent frame is given to the device.
    pub fn mark_sent(&mut self, frames: &mut Frames<'_>, now: Instant) -> Option<FrameIndex> {
        let frame = linked(self.unsent)?;
        let record = frames.record_mut(frame)?;
        record.flags |= FrameRecord::SENT;
        record.sent_at = now.0;
        self.unsent = record.next;
        self.sent.add(record.seq_len());
        self.push_flight(frames, frame);
        Some(frame)
    }

    /// A frame is given to the device once more. False if it was never sent, or the peer has it.
    pub fn mark_retransmitted(&mut self, frames: &mut Frames<'_>, frame: FrameIndex, now: Instant) -> bool {
        let Some(record) = frames.record_mut(frame) else { return false };
        let before = record.flags;
        if before & (FrameRecord::SENT | FrameRecord::SACKED) != FrameRecord::SENT {
            return false;
        }
        record.flags |= FrameRecord::RETRANSMITTED | FrameRecord::EVER_RETRANSMITTED;
        record.retransmissions = record.retransmissions.saturating_add(1);
        record.sent_at = now.0;
        if before & FrameRecord::RETRANSMITTED == 0 {
            self.retransmitted.add(record.seq_len());
        }
        frames.side_remove(self.side_of(before), frame);
        self.push_flight(frames, frame);
        true
    }

    pub(super) fn push_flight(&mut self, frames: &mut Frames<'_>, frame: FrameIndex) {
        let last = self.flight.last();
        frames.side_insert(&mut self.flight, last, frame);
    }

    /// The last transmission of a frame is taken for lost. Whether that is news.
    pub fn mark_lost(&mut self, frames: &mut Frames<'_>, frame: FrameIndex) -> bool {
        let Some(record) = frames.record_mut(frame) else { return false };
        let (before, octets) = (record.flags, record.seq_len());
        if before & (FrameRecord::SENT | FrameRecord::SACKED) != FrameRecord::SENT
            || before & (FrameRecord::LOST | FrameRecord::RETRANSMITTED) == FrameRecord::LOST
        {
            return false;
        }
        record.flags = (before | FrameRecord::LOST) & !FrameRecord::RETRANSMITTED;
        if before & FrameRecord::RETRANSMITTED != 0 {
            self.retransmitted.subtract(octets);
        }
        if before & FrameRecord::LOST == 0 {
            self.lost.add(octets);
        }
        frames.side_remove(&mut self.flight, frame);
        self.insert_again(frames, frame);
        true
    }

    /// RACK_detect_loss (RFC 8985 §6.2 step 5): asks `is_lost` of the frames on their way, in the order of their last
    /// transmission, until it says `None`: nothing can be said of this one nor of what was sent later. How many are lost now.
    pub fn detect_lost(
        &mut self,
        frames: &mut Frames<'_>,
        mut is_lost: impl FnMut(&FrameRecord) -> Option<bool>,
    ) -> u32 {
        let (mut news, mut at) = (0, self.flight.first());
        for _ in 0..frames.len() {
            let Some(frame) = at else { break };
            let Some((record, verdict)) =
                frames.record(frame).and_then(|record| Some((record, is_lost(record)?)))
            else {
                break;
            };
            at = linked(record.side_next);
            if verdict {
                news += u32::from(self.mark_lost(frames, frame));
            }
        }
        news
    }

    /// The reduction was a mistake: nothing is lost (tcp_undo_cwnd_reduction). What waited to be sent again is on its way still, in
    /// the order of its last transmission.
    pub fn unmark_lost(&mut self, frames: &mut Frames<'_>) {
        let sent_at =
            |frames: &Frames<'_>, at: FrameIndex| frames.record(at).map_or(0, |record| record.sent_at);
        let (mut again, mut before) = (core::mem::take(&mut self.again).first(), None);
        for _ in 0..frames.len() {
            let Some(frame) = again else { break };
            again = frames.side_next(frame);
            let time = sent_at(frames, frame);
            // In sequence order they are mostly in this order, too: so each goes on from where the one before it went.
            before = before.filter(|at| sent_at(frames, *at) <= time);
            for _ in 0..frames.len() {
                let next = before.map_or(self.flight.first(), |at| frames.side_next(at));
                let Some(next) = next.filter(|at| sent_at(frames, *at) <= time) else { break };
                before = Some(next);
            }
            frames.side_insert(&mut self.flight, before, frame);
            before = Some(frame);
        }
        let mut at = self.flight.first();
        for _ in 0..frames.len() {
            let Some(record) = at.and_then(|frame| frames.record_mut(frame)) else { break };
            record.flags &= !FrameRecord::LOST;
            at = linked(record.side_next);
        }
        self.lost = Count::default();
    }

    /// Puts a lost frame into the order of what is to be sent again: near the end if it was just sent for the first
    /// time, near the front if it was lost once more.
    fn insert_again(&mut self, frames: &mut Frames<'_>, frame: FrameIndex) {
        let Some(seq) = frames.record(frame).map(FrameRecord::seq) else { return };
        let is_before = |at: FrameIndex| frames.record(at).is_none_or(|record| record.seq().lt(seq));
        let mut before = self.again.last();
        for _ in 0..ORDER_STEPS {
            match before {
                Some(at) if !is_before(at) => before = frames.side_previous(at),
                _ => return frames.side_insert(&mut self.again, before, frame),
            }
        }
        let mut before = None;
        for _ in 0..ORDER_STEPS {
            let next = before.map_or(self.again.first(), |at| frames.side_next(at));
            match next {
                Some(at) if is_before(at) => before = next,
                _ => break,
            }
        }
        frames.side_insert(&mut self.again, before, frame);
    }

    /// After a timeout: everything that was sent and that the peer hasn't is lost, as far as `is_old` says so of it. If the
    /// first frame is SACKED the peer has dropped what it had (RFC 2018 §8), and nothing that it reported counts.
    pub fn mark_all_lost(&mut self, frames: &mut Frames<'_>, mut is_old: impl FnMut(&FrameRecord) -> bool) {
        let first = self.list.first();
        let is_reneged = first
            .and_then(|first| frames.record(first))
            .is_some_and(|record| record.has(FrameRecord::SACKED));
        // All that is in it is met again, in the order of sequence.
        self.again = SideList::default();
        let mut at = first;
        for _ in 0..frames.len() {
            let Some(frame) = at.filter(|frame| link(*frame) != self.unsent) else { break };
            at = frames.next(frame);
            let Some(record) = frames.record_mut(frame) else { break };
            if is_reneged && record.has(FrameRecord::SACKED) {
                let kept = record.flags & !(FrameRecord::SACKED | FrameRecord::RETRANSMITTED);
                let (before, octets) = (record.flags, record.seq_len());
                (record.flags, record.side_next, record.side_previous) = (kept, 0, 0);
                self.sacked.subtract(octets);
                if before & FrameRecord::RETRANSMITTED != 0 {
                    self.retransmitted.subtract(octets);
                }
                self.push_flight(frames, frame);
            }
            let Some(record) = frames.record(frame) else { break };
            if record.flags & (FrameRecord::LOST | FrameRecord::RETRANSMITTED) == FrameRecord::LOST {
                let last = self.again.last();
                frames.side_insert(&mut self.again, last, frame);
            } else if is_reneged || is_old(record) {
                self.mark_lost(frames, frame);
            }
        }
    }

    /// The peer has a frame. Whether that is news.
    fn mark_sacked(&mut self, frames: &mut Frames<'_>, frame: FrameIndex) -> bool {
        let Some(record) = frames.record_mut(frame) else { return false };
        let (before, octets) = (record.flags, record.seq_len());
        if before & (FrameRecord::SENT | FrameRecord::SACKED) != FrameRecord::SENT {
            return false;
        }
        record.flags |= FrameRecord::SACKED;
        // What was sent again and isn't lost may be on its way still: it counts until it is acknowledged.
        if before & FrameRecord::LOST != 0 {
            record.flags &= !(FrameRecord::LOST | FrameRecord::RETRANSMITTED);
            self.lost.subtract(octets);
            if before & FrameRecord::RETRANSMITTED != 0 {
                self.retransmitted.subtract(octets);
            }
        }
        self.sacked.add(octets);
        frames.side_remove(self.side_of(before), frame);
        join_run(frames, frame);
        true
    }

    /// A SACK block (RFC 2018 §4): marks the frames that lie in it whole, and names each that the peer wasn't known to have as it
    /// was before. `steps` is what is left of [`STEPS_MAX`] for this acknowledgement. How many are new.
    ///
    /// A block that isn't inside of what was sent is the caller's to refuse (D-SACK, RFC 2883, or nonsense).
    pub fn sack(
        &mut self,
        frames: &mut Frames<'_>,
        block: Block,
        steps: &mut u32,
        mut newly: impl FnMut(&FrameRecord),
    ) -> u32 {
        let mut news = 0;
        let mut at = self.find_from(frames, block.left, steps);
        while let Some(frame) = at.filter(|frame| *steps > 0 && link(*frame) != self.unsent) {
            *steps -= 1;
            let Some(record) = frames.record(frame) else { break };
            if block.right.lt(record.end()) {
                break;
            }
            let mut last = frame;
            if record.has(FrameRecord::SACKED) {
                last = run_last(frames, frame);
            } else {
                let before = *record;
                if self.mark_sacked(frames, frame) {
                    newly(&before);
                    news += 1;
                    last = run_last(frames, frame);
                }
            }
            self.hint = link(last);
            at = frames.next(last);
        }
        news
    }

    /// The first frame that begins at this sequence number or after it, looked for from where the last block ended.
    /// `None` also when the steps are used up.
    fn find_from(&mut self, frames: &Frames<'_>, seq: Seq, steps: &mut u32) -> Option<FrameIndex> {
        let first = self.list.first()?;
        let begins_before = |at: FrameIndex| frames.record(at).is_some_and(|record| record.seq().lt(seq));
        if !begins_before(first) {
            return Some(first);
        }
        let mut at = linked(self.hint).unwrap_or(first);
        // Back to a frame that begins before it...
        while !begins_before(at) {
            *steps = steps.checked_sub(1)?;
            let head = if frames.record(at)?.has(FrameRecord::SACKED) { run_first(frames, at) } else { at };
            at = if head == at { frames.previous(at)? } else { head };
            self.hint = link(at);
        }
        // ...and on to the first that doesn't. A run that begins before it and ends after it is stepped into.
        loop {
            *steps = steps.checked_sub(1)?;
            self.hint = link(at);
            let last = if frames.record(at)?.has(FrameRecord::SACKED) { run_last(frames, at) } else { at };
            if last != at && seq.lt(frames.record(last)?.end()) {
                return Some(at);
            }
            at = frames.next(last)?;
            if !begins_before(at) {
                return Some(at);
            }
        }
    }

    /// The frame that has a sequence number, from the front: what a cumulative acknowledgement or a path MTU message names.
    #[must_use]
    pub fn find(&self, frames: &Frames<'_>, seq: Seq, steps_max: u32) -> Option<FrameIndex> {
        let mut at = self.list.first();
        for _ in 0..steps_max {
            let record = frames.record(at?)?;
            if seq.lt(record.seq()) {
                return None;
            }
            if seq.lt(record.end()) {
                return at;
            }
            at = linked(record.next);
        }
        None
    }

    /// SND.UNA moves to `una`: what lies before it is out of the queue, and free as soon as the device has sent it. `acknowledged`
    /// gets the record of each frame that is acknowledged whole, as it was.
    pub fn acknowledge<M>(
        &mut self,
        means: &mut Means<'_, '_, '_, M>,
        una: Seq,
        mut acknowledged: impl FnMut(&FrameRecord),
    ) -> Acknowledged {
        let mut done = Acknowledged::default();
        let frames = &mut *means.frames;
        for _ in 0..frames.len() {
            let Some(frame) = self.list.first().filter(|first| link(*first) != self.unsent) else { break };
            let Some(record) = frames.record(frame) else { break };
            if una.lt(record.end()) {
                let record = *record;
                let part = if record.seq().lt(una) { una - record.seq() } else { 0 };
                let part = part.min(record.len.into());
                if part > 0 {
                    done.octets += part;
                    frames.trim_front(&mut self.list, frame, part as u16);
                    self.counts(record.flags)
                        .for_each(|count| count.octets = count.octets.wrapping_sub(part));
                }
                break;
            }
            let octets = record.seq_len();
            done.frames += 1;
            done.octets = done.octets.saturating_add(octets);
            done.fin |= record.has(FrameRecord::FIN);
            acknowledged(record);
            let flags = record.flags;
            if flags & NOT_PLAIN == 0 && self.hint != link(frame) {
                // Sent once and on its way: the rule.
                self.sent.subtract(octets);
                frames.side_remove(&mut self.flight, frame);
                frames.pop_front(&mut self.list);
            } else {
                self.counts(flags).for_each(|count| count.subtract(octets));
                self.unlink(frames, frame);
            }
            frames.release(frame, means.charge);
        }
        done
    }

    /// Takes a frame out of all lists. It is the first of the queue, or isn't SACKED.
    pub(super) fn unlink(&mut self, frames: &mut Frames<'_>, frame: FrameIndex) {
        let Some(record) = frames.record(frame).copied() else { return };
        if record.has(FrameRecord::SACKED) {
            let (last, next) = (run_last(frames, frame), linked(record.next));
            if let Some(next) = next.filter(|_| last != frame) {
                join_ends(frames, next, last);
            }
        } else if record.has(FrameRecord::SENT) {
            frames.side_remove(self.side_of(record.flags), frame);
        }
        if self.hint == link(frame) {
            self.hint = 0;
        }
        if self.unsent == link(frame) {
            self.unsent = record.next;
        }
        frames.remove(&mut self.list, frame);
    }

    /// Whether counts and lists are what the flags say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, frames: &Frames<'_>) -> Result<(), &'static str> {
        frames.check_list(&self.list)?;
        let mut counted = Self::default();
        let (mut flight, mut again, mut unsent) = (0, 0, 0);
        for frame in frames.walk(&self.list) {
            let Some(record) = frames.record(frame) else { break };
            counted.counts(record.flags).for_each(|count| count.add(record.seq_len()));
            let bits = |flags| record.has(flags);
            match (bits(FrameRecord::SENT), bits(FrameRecord::SACKED)) {
                (false, _) if unsent == 0 => unsent = link(frame),
                (true, _) if unsent != 0 => return Err("a sent frame follows one that was never sent"),
                (false, _) | (true, true) => {}
                (true, false) if bits(FrameRecord::LOST) && !bits(FrameRecord::RETRANSMITTED) => again += 1,
                (true, false) => flight += 1,
            }
        }
        if unsent != self.unsent {
            return Err("the first unsent frame is another one");
        }
        let counts = |queue: &Self| [queue.sent, queue.sacked, queue.lost, queue.retransmitted];
        if counts(&counted) != counts(self) {
            return Err("the scoreboard's counts are not those of its frames");
        }
        self.check_runs(frames)?;
        if frames.side_walk(&self.flight).count() != flight || frames.side_walk(&self.again).count() != again
        {
            return Err("a frame is in the wrong list of the scoreboard");
        }
        Ok(())
    }
}

impl SendQueue {
    /// Whether the ends of each run of SACKED frames name each other, and nobody else names anybody.
    fn check_runs(&self, frames: &Frames<'_>) -> Result<(), &'static str> {
        let sacked =
            |frame: &FrameIndex| frames.record(*frame).is_some_and(|record| record.has(FrameRecord::SACKED));
        for frame in frames.walk(&self.list).filter(sacked) {
            let is_first = frames.previous(frame).filter(sacked).is_none();
            let last = is_first.then(|| frames.walk_from(Some(frame)).take_while(sacked).last()).flatten();
            let is_last = frames.next(frame).filter(sacked).is_none();
            let back = frames.side_previous(frame).filter(|_| is_last);
            if frames.side_next(frame) != last.filter(|last| *last != frame)
                || frames.side_previous(frame) != back
                || back.is_some_and(|first| frames.side_next(first) != Some(frame))
                || (is_last && !is_first && back.is_none())
            {
                return Err("the ends of a run of SACKED frames do not name each other");
            }
        }
        Ok(())
    }
}

/// The last frame of the run of SACKED frames of which this is the first; of another one, the frame itself or one behind it.
fn run_last(frames: &Frames<'_>, frame: FrameIndex) -> FrameIndex {
    frames.side_next(frame).unwrap_or(frame)
}

/// The first frame of the run of SACKED frames of which this is the last.
fn run_first(frames: &Frames<'_>, frame: FrameIndex) -> FrameIndex {
    frames.side_previous(frame).unwrap_or(frame)
}

/// Joins the two ends of a run.
fn join_ends(frames: &mut Frames<'_>, first: FrameIndex, last: FrameIndex) {
    if let Some(record) = frames.record_mut(first) {
        record.side_previous = 0;
        record.side_next = if first == last { 0 } else { link(last) };
    }
    if let Some(record) = frames.record_mut(last).filter(|_| first != last) {
        record.side_next = 0;
        record.side_previous = link(first);
    }
}

/// Makes a frame that was just SACKED a run, with the runs on its two sides.
fn join_run(frames: &mut Frames<'_>, frame: FrameIndex) {
    let is_sacked = |frames: &Frames<'_>, at: FrameIndex| {
        frames.record(at).is_some_and(|record| record.has(FrameRecord::SACKED))
    };
    let previous = frames.previous(frame).filter(|at| is_sacked(frames, *at));
    let next = frames.next(frame).filter(|at| is_sacked(frames, *at));
    let first = previous.map_or(frame, |at| run_first(frames, at));
    let last = next.map_or(frame, |at| run_last(frames, at));
    // Inside of a run nobody looks at these links, and they name frames that may be gone.
    for inner in [previous, Some(frame), next].into_iter().flatten() {
        if let Some(record) = frames.record_mut(inner) {
            (record.side_next, record.side_previous) = (0, 0);
        }
    }
    join_ends(frames, first, last);
}
