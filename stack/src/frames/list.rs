//! Lists of frames, in order and linked both ways through their records; every walk is bounded by the number of frames.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FrameRecord, Frames, link, linked};
use crate::device::FrameIndex;
use crate::seq::Seq;

/// The two ends of a list. Zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameList {
    /// The first frame, plus one; 0 is none.
    pub(crate) head: u32,
    /// The last frame, plus one.
    pub(crate) tail: u32,
    /// How many they are.
    frames: u32,
    /// Bytes of text in them.
    bytes: u32,
}

impl FrameList {
    /// The first frame.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> Option<FrameIndex> {
        linked(self.head)
    }

    /// The last frame.
    #[inline]
    #[must_use]
    pub const fn last(&self) -> Option<FrameIndex> {
        linked(self.tail)
    }

    /// How many frames it has.
    #[inline]
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes of text in it.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether it has no frame.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == 0
    }
}

#[cfg(test)]
impl FrameList {
    /// What bytes that nobody wrote may say.
    pub(crate) const fn nonsense(head: u32, tail: u32, frames: u32, bytes: u32) -> Self {
        Self { head, tail, frames, bytes }
    }
}

/// The two ends of a list by the side links: frames in a second order, while they are in a list by the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SideList {
    pub(crate) head: u32,
    pub(crate) tail: u32,
}

impl SideList {
    /// The first frame.
    #[inline]
    #[must_use]
    pub const fn first(&self) -> Option<FrameIndex> {
        linked(self.head)
    }

    /// The last frame.
    #[inline]
    #[must_use]
    pub const fn last(&self) -> Option<FrameIndex> {
        linked(self.tail)
    }
}

/// Lists by the first links.
impl Frames<'_> {
    /// The frame after this one in its list.
    #[inline]
    #[must_use]
    pub fn next(&self, frame: FrameIndex) -> Option<FrameIndex> {
        linked(self.record(frame)?.next)
    }

    /// The frame before this one in its list.
    #[inline]
    #[must_use]
    pub fn previous(&self, frame: FrameIndex) -> Option<FrameIndex> {
        linked(self.record(frame)?.previous)
    }

    /// The frames of a list in order, at most as many as there are.
    pub fn walk(&self, list: &FrameList) -> impl Iterator<Item = FrameIndex> {
        self.walk_from(list.first())
    }

    /// The frames from one on.
    pub fn walk_from(&self, first: Option<FrameIndex>) -> impl Iterator<Item = FrameIndex> {
        core::iter::successors(first, |frame| self.next(*frame)).take(self.len() as usize)
    }

    /// Adds a frame at the end. It must be in no list.
    #[inline]
    pub fn push_back(&mut self, list: &mut FrameList, frame: FrameIndex) {
        let Some(record) = self.record_mut(frame) else { return };
        (record.next, record.previous) = (0, list.tail);
        list.bytes = list.bytes.wrapping_add(record.len.into());
        list.frames = list.frames.wrapping_add(1);
        match list.last().and_then(|last| self.record_mut(last)) {
            Some(last) => last.next = link(frame),
            None => list.head = link(frame),
        }
        list.tail = link(frame);
    }

    /// Adds a frame behind another one of the list, or at the front.
    pub fn insert_after(&mut self, list: &mut FrameList, before: Option<FrameIndex>, frame: FrameIndex) {
        let next = match before {
            Some(before) => self.record(before).map_or(0, |record| record.next),
            None => list.head,
        };
        let Some(record) = self.record_mut(frame) else { return };
        record.next = next;
        record.previous = before.map_or(0, link);
        let len = u32::from(record.len);
        match before.and_then(|before| self.record_mut(before)) {
            Some(record) => record.next = link(frame),
            None => list.head = link(frame),
        }
        match linked(next).and_then(|next| self.record_mut(next)) {
            Some(record) => record.previous = link(frame),
            None => list.tail = link(frame),
        }
        list.frames = list.frames.wrapping_add(1);
        list.bytes = list.bytes.wrapping_add(len);
    }

    /// Takes a frame out of the list that it is in.
    pub fn remove(&mut self, list: &mut FrameList, frame: FrameIndex) {
        let Some(record) = self.record_mut(frame) else { return };
        let FrameRecord { next, previous, len, .. } = *record;
        (record.next, record.previous) = (0, 0);
        match linked(previous).and_then(|previous| self.record_mut(previous)) {
            Some(record) => record.next = next,
            None => list.head = next,
        }
        match linked(next).and_then(|next| self.record_mut(next)) {
            Some(record) => record.previous = previous,
            None => list.tail = previous,
        }
        list.frames = list.frames.wrapping_sub(1);
        list.bytes = list.bytes.wrapping_sub(u32::from(len));
        if list.frames == 0 {
            *list = FrameList::default();
        }
    }

    /// Takes the first frame out.
    #[inline]
    pub fn pop_front(&mut self, list: &mut FrameList) -> Option<FrameIndex> {
        let frame = list.first()?;
        let FrameRecord { next, len, .. } = *self.record(frame)?;
        match linked(next).and_then(|next| self.record_mut(next)).filter(|_| list.frames > 1) {
            Some(record) => {
                record.previous = 0;
                list.head = next;
                list.frames -= 1;
                list.bytes = list.bytes.wrapping_sub(len.into());
            }
            None => *list = FrameList::default(),
        }
        Some(frame)
    }

    /// Adds all frames of another list at the end.
    pub fn append(&mut self, list: &mut FrameList, more: FrameList) {
        let Some(first) = more.first() else { return };
        if list.is_empty() {
            *list = more;
            return;
        }
        if let Some(record) = list.last().and_then(|last| self.record_mut(last)) {
            record.next = link(first);
        }
        if let Some(record) = self.record_mut(first) {
            record.previous = list.tail;
        }
        list.tail = more.tail;
        list.frames = list.frames.wrapping_add(more.frames);
        list.bytes = list.bytes.wrapping_add(more.bytes);
    }

    /// Takes the frames from `first` to `last`, which are neighbours in this order, out of the list. Counts every
    /// one of them.
    pub(crate) fn cut(&mut self, list: &mut FrameList, first: FrameIndex, last: FrameIndex) -> FrameList {
        let mut part = FrameList { head: link(first), tail: link(last), ..FrameList::default() };
        let steps = self.walk_from(Some(first)).position(|frame| frame == last);
        for frame in self.walk_from(Some(first)).take(steps.map_or(0, |steps| steps + 1)) {
            part.frames += 1;
            part.bytes = part.bytes.saturating_add(self.record(frame).map_or(0, |record| record.len.into()));
        }
        let previous = self.record(first).map_or(0, |record| record.previous);
        let next = self.record(last).map_or(0, |record| record.next);
        match linked(previous).and_then(|previous| self.record_mut(previous)) {
            Some(record) => record.next = next,
            None => list.head = next,
        }
        match linked(next).and_then(|next| self.record_mut(next)) {
            Some(record) => record.previous = previous,
            None => list.tail = previous,
        }
        if let Some(record) = self.record_mut(first) {
            record.previous = 0;
        }
        if let Some(record) = self.record_mut(last) {
            record.next = 0;
        }
        list.frames = list.frames.wrapping_sub(part.frames);
        list.bytes = list.bytes.wrapping_sub(part.bytes);
        part
    }

    /// Adds a frame where its sequence number belongs, looking from the end: what arrives is mostly the latest.
    pub fn insert_in_order(&mut self, list: &mut FrameList, frame: FrameIndex) {
        let Some(seq) = self.record(frame).map(FrameRecord::seq) else { return };
        let mut before = list.last();
        for _ in 0..self.len() {
            match before.and_then(|at| self.record(at)) {
                Some(record) if seq.lt(record.seq()) => before = linked(record.previous),
                _ => break,
            }
        }
        self.insert_after(list, before, frame);
    }

    /// Drops text from the front of a frame that is in a list: its bytes stay where they are.
    pub fn trim_front(&mut self, list: &mut FrameList, frame: FrameIndex, bytes: u16) {
        let Some(record) = self.record_mut(frame) else { return };
        let bytes = bytes.min(record.len);
        record.offset = record.offset.saturating_add(bytes);
        record.len -= bytes;
        record.seq = record.seq.wrapping_add(bytes.into());
        record.flags &= !FrameRecord::SUMMED;
        list.bytes = list.bytes.wrapping_sub(bytes.into());
    }

    /// Drops text from the end of a frame that is in a list.
    pub fn trim_back(&mut self, list: &mut FrameList, frame: FrameIndex, bytes: u16) {
        let Some(record) = self.record_mut(frame) else { return };
        let bytes = bytes.min(record.len);
        record.len -= bytes;
        record.flags &= !FrameRecord::SUMMED;
        list.bytes = list.bytes.wrapping_sub(bytes.into());
    }

    /// Counts text that was added behind that of a frame in a list.
    pub(crate) fn grow(&mut self, list: &mut FrameList, frame: FrameIndex, bytes: u16) {
        let Some(record) = self.record_mut(frame) else { return };
        let old = record.len;
        record.len = old.saturating_add(bytes);
        list.bytes = list.bytes.wrapping_add(u32::from(record.len - old));
    }

    /// Drops text from the front of a list; `free` gets the frames that have none left.
    pub(crate) fn trim_list_front(
        &mut self,
        list: &mut FrameList,
        mut bytes: u32,
        mut free: impl FnMut(&mut Self, FrameIndex),
    ) {
        for _ in 0..self.len() {
            if bytes == 0 {
                return;
            }
            let Some((first, len)) =
                list.first().and_then(|first| Some((first, u32::from(self.record(first)?.len))))
            else {
                return;
            };
            if bytes < len {
                self.trim_front(list, first, bytes as u16);
                return;
            }
            self.remove(list, first);
            free(self, first);
            bytes -= len;
        }
    }

    /// Whether a list is one: linked both ways, in sequence order, as many frames and bytes as it says.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check_list(&self, list: &FrameList) -> Result<(), &'static str> {
        let (mut at, mut previous, mut frames, mut bytes) = (list.head, 0, 0u32, 0u64);
        let mut end: Option<Seq> = None;
        while let Some(frame) = linked(at) {
            let Some(record) = self.record(frame).filter(|_| frames < self.len()) else {
                return Err("a list of frames leaves the frames or runs in a circle");
            };
            if record.previous != previous {
                return Err("a list of frames is linked one way only");
            }
            if end.is_some_and(|end| record.seq().lt(end)) {
                return Err("a list of frames is not in sequence order");
            }
            end = Some(record.end());
            (frames, bytes) = (frames + 1, bytes + u64::from(record.len));
            (previous, at) = (at, record.next);
        }
        if previous != list.tail || frames != list.frames || bytes != u64::from(list.bytes) {
            return Err("a list of frames has another end or length than it says");
        }
        Ok(())
    }
}

/// Lists by the side links.
impl Frames<'_> {
    /// The frame after this one by the side links.
    #[inline]
    #[must_use]
    pub fn side_next(&self, frame: FrameIndex) -> Option<FrameIndex> {
        linked(self.record(frame)?.side_next)
    }

    /// The frame before this one by the side links.
    #[inline]
    #[must_use]
    pub fn side_previous(&self, frame: FrameIndex) -> Option<FrameIndex> {
        linked(self.record(frame)?.side_previous)
    }

    /// The frames of a list in order, at most as many as there are.
    pub fn side_walk(&self, list: &SideList) -> impl Iterator<Item = FrameIndex> {
        core::iter::successors(list.first(), |frame| self.side_next(*frame)).take(self.len() as usize)
    }

    /// Adds a frame behind another one of the list, or at the front.
    pub(crate) fn side_insert(&mut self, list: &mut SideList, before: Option<FrameIndex>, frame: FrameIndex) {
        let next = match before {
            Some(before) => self.record(before).map_or(0, |record| record.side_next),
            None => list.head,
        };
        let Some(record) = self.record_mut(frame) else { return };
        record.side_next = next;
        record.side_previous = before.map_or(0, link);
        match before.and_then(|before| self.record_mut(before)) {
            Some(record) => record.side_next = link(frame),
            None => list.head = link(frame),
        }
        match linked(next).and_then(|next| self.record_mut(next)) {
            Some(record) => record.side_previous = link(frame),
            None => list.tail = link(frame),
        }
    }

    /// Takes a frame out of the list that it is in.
    pub(crate) fn side_remove(&mut self, list: &mut SideList, frame: FrameIndex) {
        let Some(record) = self.record_mut(frame) else { return };
        let (next, previous) = (record.side_next, record.side_previous);
        (record.side_next, record.side_previous) = (0, 0);
        match linked(previous).and_then(|previous| self.record_mut(previous)) {
            Some(record) => record.side_next = next,
            None => list.head = next,
        }
        match linked(next).and_then(|next| self.record_mut(next)) {
            Some(record) => record.side_previous = previous,
            None => list.tail = previous,
        }
    }
}
