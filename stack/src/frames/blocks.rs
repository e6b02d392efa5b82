//! Pageable memory of the region for data that frames are too scarce for: what a program has written far beyond the congestion
//! window, and what it doesn't read while the pool is under pressure. A queue's blocks are a list; bytes go in at its end
//! and come out at its front, so that a queue that is partly frames and partly blocks keeps its order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{FrameRecord, Frames, list::FrameList, pool::Charge};
use crate::device::Memory;
use crate::region::slab::{Handle, Record, Slab, Tag};

/// Bytes of data in a block.
pub const BLOCK_BYTES: usize = 4080;

/// While a recovery looks for owners: the bit of [`Block::begin`] that says it has one.
const CLAIMED: u16 = 1 << 15;

/// One block: a page with its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Block {
    tag: Tag,
    /// The next block of its list, plus one; 0 is none.
    next: u32,
    /// Where its data begins.
    begin: u16,
    /// Where its data ends.
    end: u16,
    bytes: [u8; BLOCK_BYTES],
}

const _: () = assert!(size_of::<Block>() == 4096);

impl Record for Block {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Block {
    fn data(&self) -> &[u8] {
        self.bytes.get(usize::from(self.begin)..usize::from(self.end)).unwrap_or_default()
    }
}

/// The blocks of one queue. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockList {
    /// The first block, plus one.
    head: u32,
    /// The last block, plus one.
    tail: u32,
    /// Bytes of data in all of them.
    bytes: u32,
}

impl BlockList {
    /// Bytes of data.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// All blocks of a stack.
#[derive(Debug)]
pub struct Blocks<'a> {
    /// Which are in use.
    pub slab: &'a mut Slab,
    /// The blocks.
    pub blocks: &'a mut [Block],
}

impl Blocks<'_> {
    fn get(&self, link: u32) -> Option<&Block> {
        self.blocks.get(link.checked_sub(1)? as usize)
    }

    fn get_mut(&mut self, link: u32) -> Option<&mut Block> {
        self.blocks.get_mut(link.checked_sub(1)? as usize)
    }

    /// Room for one more byte at the end of the list: the last block if it has some, or else a new one.
    fn room(&mut self, list: &mut BlockList) -> Option<&mut Block> {
        let full =
            list.head == 0 || self.get(list.tail).is_none_or(|tail| usize::from(tail.end) >= BLOCK_BYTES);
        if full {
            let Handle { index, .. } = self.slab.take(self.blocks)?;
            let block = self.blocks.get_mut(index as usize)?;
            (block.next, block.begin, block.end) = (0, 0, 0);
            let (is_first, tail) = (list.head == 0, list.tail);
            match self.get_mut(tail) {
                Some(tail) if !is_first => tail.next = index + 1,
                _ => list.head = index + 1,
            }
            list.tail = index + 1;
        }
        self.get_mut(list.tail)
    }

    /// Adds up to `len` bytes at the end. `copy` fills the slice that it is given from its start and says how many bytes it had;
    /// fewer than asked for end it. How many were added: fewer than `len` also when blocks ran out.
    pub fn push(
        &mut self,
        list: &mut BlockList,
        len: usize,
        mut copy: impl FnMut(&mut [u8]) -> usize,
    ) -> usize {
        let mut done = 0;
        while done < len {
            let Some(block) = self.room(list) else { break };
            let begin = usize::from(block.end).min(BLOCK_BYTES);
            let want = (BLOCK_BYTES - begin).min(len - done);
            let got = copy(&mut block.bytes[begin..begin + want]).min(want);
            block.end = (begin + got) as u16;
            list.bytes = list.bytes.saturating_add(got as u32);
            done += got;
            if got < want {
                break;
            }
        }
        self.drop_empty(list);
        done
    }

    /// The list's bytes from the `skip`th on, in pieces; `take` says how many it took, and fewer than it was given
    /// end it. How many were taken. They stay in the list.
    pub fn peek(&self, list: &BlockList, mut skip: usize, mut take: impl FnMut(&[u8]) -> usize) -> usize {
        let (mut at, mut done) = (list.head, 0);
        for _ in 0..self.blocks.len() {
            let Some(block) = self.get(at).filter(|_| !list.is_empty()) else { break };
            let data = block.data();
            if skip >= data.len() {
                skip -= data.len();
            } else {
                let piece = &data[skip..];
                skip = 0;
                let got = take(piece).min(piece.len());
                done += got;
                if got < piece.len() {
                    break;
                }
            }
            if at == list.tail {
                break;
            }
            at = block.next;
        }
        done
    }

    /// Drops bytes from the front; how many.
    pub fn consume(&mut self, list: &mut BlockList, len: usize) -> usize {
        let mut left = len.min(list.bytes as usize);
        let dropped = left;
        for _ in 0..=self.blocks.len() {
            let Some(block) = self.get_mut(list.head).filter(|_| left > 0) else { break };
            let data = block.data().len();
            let part = data.min(left);
            block.begin = block.begin.saturating_add(part as u16);
            left -= part;
            list.bytes = list.bytes.saturating_sub(part as u32);
            if part == data {
                self.drop_first(list);
            }
        }
        self.drop_empty(list);
        dropped - left
    }

    /// Gives all blocks back.
    pub fn clear(&mut self, list: &mut BlockList) {
        self.consume(list, list.bytes as usize);
        *list = BlockList::default();
    }

    /// Gives the first block back.
    fn drop_first(&mut self, list: &mut BlockList) {
        let head = list.head;
        let Some(block) = self.get_mut(head) else { return };
        let (next, generation) = (block.next, block.tag.generation);
        self.slab.give(self.blocks, Handle { index: head - 1, generation });
        if next == 0 || head == list.tail {
            *list = BlockList::default();
        } else {
            list.head = next;
        }
    }

    /// Begins to look for owners: no block has one.
    pub(crate) fn begin_claims(&mut self) {
        let fresh = (self.slab.fresh() as usize).min(self.blocks.len());
        self.blocks[..fresh].iter_mut().for_each(|block| block.begin &= !CLAIMED);
    }

    /// The blocks of a list have an owner, if it is a list of blocks that no other one has and its bytes are what it says.
    pub(crate) fn claim(&mut self, list: &BlockList) -> bool {
        let (mut at, mut last, mut claimed, mut bytes) = (list.head, 0, 0, 0u64);
        while let Some(block) = self.get_mut(at) {
            let is_free = block.tag.is_used() && block.begin & CLAIMED == 0;
            if !is_free || block.begin > block.end || usize::from(block.end) > BLOCK_BYTES {
                break;
            }
            bytes += u64::from(block.end - block.begin);
            (block.begin, claimed) = (block.begin | CLAIMED, claimed + 1);
            let next = if at == list.tail { 0 } else { block.next };
            last = core::mem::replace(&mut at, next);
        }
        let is_one = at == 0 && last == list.tail && bytes == u64::from(list.bytes);
        if !is_one {
            self.unclaim(list, claimed);
        }
        is_one
    }

    /// The first blocks of a list have no owner after all.
    pub(crate) fn unclaim(&mut self, list: &BlockList, claimed: u32) {
        let mut at = list.head;
        for _ in 0..claimed.min(self.blocks.len() as u32) {
            let Some(block) = self.get_mut(at) else { return };
            block.begin &= !CLAIMED;
            at = if at == list.tail { 0 } else { block.next };
        }
    }

    /// Blocks without an owner are free.
    pub(crate) fn end_claims(&mut self) {
        self.slab.rebuild(self.blocks, |_, block| block.begin & CLAIMED != 0);
        self.begin_claims();
    }

    /// Gives back the blocks of a list without bytes: one for which nothing could be copied.
    fn drop_empty(&mut self, list: &mut BlockList) {
        for _ in 0..self.blocks.len() {
            if list.bytes != 0 || self.get(list.head).is_none() {
                return;
            }
            self.drop_first(list);
        }
    }

    /// Moves the text of the first frames of a list to the end of a block list, and releases them; at most `frames_max` frames,
    /// and only whole ones. How many frames were released.
    pub fn spill<M: Memory>(
        &mut self,
        list: &mut BlockList,
        frames: &mut Frames<'_>,
        from: &mut FrameList,
        memory: &M,
        charge: &mut Charge,
        frames_max: u32,
    ) -> u32 {
        for done in 0..frames_max {
            let Some(frame) = from.first() else { return done };
            let Some(FrameRecord { offset, len, .. }) = frames.record(frame).copied() else { return done };
            let begin = usize::from(offset);
            let Some(text) = memory.bytes(frame).and_then(|bytes| bytes.get(begin..begin + usize::from(len)))
            else {
                return done;
            };
            if self.room_bytes(list) < text.len() {
                return done;
            }
            let mut rest = text;
            self.push(list, text.len(), |to| {
                let (now, later) = rest.split_at(to.len());
                to.copy_from_slice(now);
                rest = later;
                now.len()
            });
            frames.remove(from, frame);
            frames.release(frame, charge);
        }
        frames_max
    }

    /// Bytes that surely fit at the end of a list.
    #[must_use]
    pub fn room_bytes(&self, list: &BlockList) -> usize {
        let tail = self
            .get(list.tail)
            .filter(|_| !list.is_empty())
            .map_or(0, |tail| BLOCK_BYTES.saturating_sub(tail.end.into()));
        let free = self.blocks.len().saturating_sub(self.slab.used() as usize);
        tail + free * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    fn all(blocks: &Blocks<'_>, list: &BlockList, skip: usize, len: usize) -> Vec<u8> {
        let mut got = Vec::new();
        blocks.peek(list, skip, |piece| {
            let part = piece.len().min(len - got.len());
            got.extend_from_slice(&piece[..part]);
            part
        });
        got
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn a_list_of_blocks_is_a_queue_of_bytes(acts in proptest::collection::vec((0u8..4, 0usize..9000, any::<u8>()), 1..60)) {
            let (mut slab, mut memory) = (Slab::default(), vec![Block::new_zeroed(); 7]);
            let mut blocks = Blocks { slab: &mut slab, blocks: &mut memory };
            let mut lists = [BlockList::default(); 2];
            let mut models = [VecDeque::new(), VecDeque::new()];
            for (act, len, byte) in acts {
                let which = usize::from(byte & 1);
                let (list, model) = (&mut lists[which], &mut models[which]);
                match act {
                    0 | 1 => {
                        let (mut next, mut left) = (byte, if byte & 2 == 0 { len } else { len / 2 });
                        let room = blocks.room_bytes(list);
                        let pushed = blocks.push(list, len, |to| {
                            let part = to.len().min(left);
                            for to in &mut to[..part] {
                                *to = next;
                                model.push_back(next);
                                next = next.wrapping_add(1);
                            }
                            left -= part;
                            part
                        });
                        let source = if byte & 2 == 0 { len } else { len / 2 };
                        prop_assert_eq!(pushed, source.min(room));
                    }
                    2 => {
                        prop_assert_eq!(blocks.consume(list, len), len.min(model.len()));
                        model.drain(..len.min(model.len()));
                    }
                    _ => {
                        let expected: Vec<u8> = model.iter().skip(len / 3).take(len).copied().collect();
                        prop_assert_eq!(all(&blocks, list, len / 3, len), expected);
                    }
                }
                prop_assert_eq!(list.bytes() as usize, model.len());
                prop_assert_eq!(blocks.slab.check(blocks.blocks), Ok(()));
            }
            for list in &mut lists {
                blocks.clear(list);
            }
            prop_assert_eq!(blocks.slab.used(), 0, "a block leaked");
        }

        #[test]
        fn nonsense_is_survived(heads in any::<[(u32, u16, u16); 4]>(), lists in any::<[(u32, u32, u32); 2]>()) {
            let mut slab = Slab::default();
            let mut memory = vec![Block::new_zeroed(); 4];
            for (block, (next, begin, end)) in memory.iter_mut().zip(heads) {
                (block.next, block.begin, block.end) = (next % 6, begin, end);
            }
            let mut blocks = Blocks { slab: &mut slab, blocks: &mut memory };
            for (head, tail, bytes) in lists {
                let mut list = BlockList { head: head % 6, tail: tail % 6, bytes };
                blocks.peek(&list, 3, <[u8]>::len);
                blocks.push(&mut list, 10_000, |to| to.len());
                blocks.consume(&mut list, 7000);
                blocks.clear(&mut list);
            }
        }
    }
}
