//! Frames against naive models, and the world that the tests of the queues share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use zerocopy::FromZeros;

use super::blocks::Block;
use super::list::FrameList;
use super::pool::Limits;
use super::*;
use crate::device::Memory;
use crate::region::slab::Slab;

/// Bytes of a frame in tests.
pub(crate) const FRAME_SIZE: u16 = 2048;

/// The bytes of some frames.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn place(&self, frame: FrameIndex) -> Option<core::ops::Range<usize>> {
        let size = usize::from(FRAME_SIZE);
        let begin = (frame.0 as usize).checked_mul(size)?;
        (begin + size <= self.0.len()).then_some(begin..begin + size)
    }
}

impl Memory for Bytes {
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        self.0.get(self.place(frame)?)
    }

    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let place = self.place(frame)?;
        self.0.get_mut(place)
    }

    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let [from, to] = self.0.get_disjoint_mut([from, to]).ok()?;
        Some((from, to))
    }
}

/// A pool of frames and blocks, and one socket.
pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) records: Vec<FrameRecord>,
    pub(crate) states: Vec<AtomicU64>,
    pub(crate) slab: Slab,
    pub(crate) blocks: Vec<Block>,
    pub(crate) memory: Bytes,
    pub(crate) charge: Charge,
}

impl World {
    pub(crate) fn new(frames: usize, blocks: usize, limits: Limits) -> Self {
        Self {
            pool: Pool::new(limits),
            records: vec![FrameRecord::default(); frames],
            states: (0..frames).map(|_| AtomicU64::new(0)).collect(),
            slab: Slab::default(),
            blocks: vec![Block::new_zeroed(); blocks],
            memory: Bytes(vec![0; frames * usize::from(FRAME_SIZE)]),
            charge: Charge { frames: 0, limit: u32::MAX },
        }
    }

    /// Enough of everything.
    pub(crate) fn ample(frames: usize) -> Self {
        let limits = Limits { high: u32::MAX, pressure: u32::MAX, ..Limits::default() };
        Self::new(frames, 64, limits)
    }

    pub(crate) fn frames(&mut self) -> Frames<'_> {
        Frames { pool: &mut self.pool, records: &mut self.records, states: &self.states }
    }

    pub(crate) fn with<R>(&mut self, act: impl FnOnce(&mut Means<'_, '_, '_, Bytes>) -> R) -> R {
        let mut frames = Frames { pool: &mut self.pool, records: &mut self.records, states: &self.states };
        let mut blocks = Blocks { slab: &mut self.slab, blocks: &mut self.blocks };
        act(&mut Means {
            frames: &mut frames,
            blocks: &mut blocks,
            memory: &mut self.memory,
            charge: &mut self.charge,
            owner: 7,
        })
    }

    /// A frame as a device gives it, with this text at `offset`.
    pub(crate) fn arrived(&mut self, seq: u32, offset: u16, text: &[u8]) -> Option<FrameIndex> {
        let mut frames = self.frames();
        let frame = frames.take(Purpose::Fill)?;
        assert!(frames.fill(frame));
        let piece = Fragment { frame, offset: 0, len: offset + text.len() as u16 };
        assert!(frames.received(piece, FRAME_SIZE, Instant(7)));
        assert!(frames.set_text(frame, Seq(seq), offset, text.len() as u16));
        let bytes = self.memory.bytes_mut(frame).expect("a frame");
        bytes[usize::from(offset)..usize::from(offset) + text.len()].copy_from_slice(text);
        Some(frame)
    }
}

const FRAMES: u32 = 24;

fn limits() -> impl Strategy<Value = Limits> {
    (0u32..8, 0u32..5, 0u32..20).prop_map(|(fill_min, control_min, high)| Limits {
        fill_min,
        control_min,
        low: high / 2,
        pressure: high * 3 / 4,
        high,
    })
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Held {
    Moving,
    Socket,
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// The device is a set of frames whose completions come late and in any order; some of what it says is nonsense.
    #[test]
    fn what_the_device_has_is_neither_changed_nor_freed(
        limits in limits(), limit in 1u32..20,
        acts in proptest::collection::vec((0u8..11, any::<u32>()), 1..400),
    ) {
        let mut world = World::new(FRAMES as usize, 0, limits);
        let mut charge = Charge { frames: 0, limit };
        let mut frames = world.frames();
        let (mut fill, mut sending) = (BTreeSet::new(), BTreeSet::new());
        let mut held: BTreeMap<FrameIndex, Held> = BTreeMap::new();
        let starts_with_reserve = FRAMES >= limits.fill_min;
        for (act, which) in acts {
            let any = FrameIndex(which % (FRAMES + 2));
            let nth = |set: &BTreeSet<FrameIndex>| set.iter().nth(which as usize % set.len().max(1)).copied();
            let nth_held = |kind: Held, held: &BTreeMap<FrameIndex, Held>| {
                let all: Vec<FrameIndex> = held.iter().filter(|(_, held)| **held == kind).map(|(frame, _)| *frame).collect();
                all.get(which as usize % all.len().max(1)).copied()
            };
            match act {
                0 => if let Some(frame) = frames.take(Purpose::Fill) {
                    prop_assert!(!held.contains_key(&frame) && !fill.contains(&frame) && !sending.contains(&frame));
                    prop_assert!(frames.fill(frame));
                    fill.insert(frame);
                },
                1 => if let Some(frame) = frames.take(Purpose::Control) {
                    prop_assert!(!held.contains_key(&frame) && !fill.contains(&frame) && !sending.contains(&frame));
                    prop_assert!(frames.send(frame));
                    sending.insert(frame);
                },
                2 | 3 => if let Ok(frame) = frames.take_data(&mut charge, 1) {
                    prop_assert!(!held.contains_key(&frame) && !fill.contains(&frame) && !sending.contains(&frame));
                    held.insert(frame, Held::Socket);
                },
                // Of any frame, sent or not.
                4 => {
                    let may = held.get(&any) == Some(&Held::Socket) && !sending.contains(&any);
                    prop_assert_eq!(frames.send(any), may);
                    if may {
                        sending.insert(any);
                    }
                }
                5 | 6 => {
                    let frame = if act == 5 { any } else { nth(&sending).unwrap_or(any) };
                    let expected = match (sending.contains(&frame), held.contains_key(&frame)) {
                        (false, _) => Completed::Bad,
                        (true, true) => Completed::Kept,
                        (true, false) => Completed::Freed,
                    };
                    prop_assert_eq!(frames.completed(frame), expected);
                    sending.remove(&frame);
                }
                7 => {
                    let may = held.get(&any) == Some(&Held::Socket);
                    prop_assert_eq!(frames.release(any, &mut charge), may);
                    if may {
                        held.remove(&any);
                    }
                }
                8 => {
                    let frame = if which % 3 == 0 { any } else { nth(&fill).unwrap_or(any) };
                    let text = Fragment { frame, offset: (which >> 8) as u16 % 3000, len: 100 };
                    let may = fill.contains(&frame) && text.offset + text.len <= FRAME_SIZE;
                    prop_assert_eq!(frames.received(text, FRAME_SIZE, Instant(7)), may);
                    if may {
                        fill.remove(&frame);
                        held.insert(frame, Held::Moving);
                    }
                }
                9 => if let Some(frame) = nth_held(Held::Moving, &held)
                    && frames.keep(frame, &mut charge, 1).is_ok() {
                    held.insert(frame, Held::Socket);
                },
                _ => {
                    let frame = nth_held(Held::Moving, &held).unwrap_or(any);
                    let may = held.get(&frame) == Some(&Held::Moving);
                    prop_assert_eq!(frames.discard(frame), may);
                    if may {
                        held.remove(&frame);
                    }
                }
            }
            for frame in (0..FRAMES).map(FrameIndex) {
                let expected = match (fill.contains(&frame), sending.contains(&frame), held.get(&frame)) {
                    (true, ..) => State::Fill,
                    (_, true, None) => State::Tx,
                    (_, true, Some(_)) => State::TxSocket,
                    (_, _, Some(Held::Moving)) => State::Moving,
                    (_, _, Some(Held::Socket)) => State::Socket,
                    (_, _, None) => State::Free,
                };
                prop_assert_eq!(frames.state(frame), expected);
                prop_assert_eq!(frames.is_writable(frame), matches!(expected, State::Moving | State::Socket));
            }
            prop_assert_eq!(frames.check(), Ok(()));
            prop_assert_eq!(charge.frames as usize, held.values().filter(|held| **held == Held::Socket).count());
            prop_assert!(charge.frames <= limit);
            // Frames that are moving have yet to be kept or discarded.
            let moving = held.values().filter(|held| **held == Held::Moving).count();
            let reserve = frames.available() as usize + fill.len() + moving;
            prop_assert!(!starts_with_reserve || reserve >= limits.fill_min as usize, "nothing can arrive");
        }
        // A process dies here: what was moving is in doubt, all else is as it was.
        let (used, charged) = (frames.pool.used(), charge.frames);
        frames.rebuild(charged, u32::from(charged > 0));
        prop_assert_eq!(frames.check(), Ok(()));
        prop_assert_eq!(frames.pool.used(), used);
        frames.device_closed();
        prop_assert_eq!(frames.check(), Ok(()));
        for (frame, kind) in held {
            prop_assert_eq!(kind == Held::Socket, frames.state(frame) == State::Socket);
            prop_assert_eq!(kind == Held::Socket, frames.release(frame, &mut charge));
        }
        prop_assert_eq!((frames.pool.used(), charge.frames, frames.pool.charged()), (0, 0, 0));
    }

    #[test]
    fn a_list_is_a_sequence(acts in proptest::collection::vec((0u8..7, any::<u16>()), 1..200)) {
        let mut world = World::ample(32);
        let mut frames = world.frames();
        let mut charge = Charge { frames: 0, limit: 100 };
        let mut lists = [FrameList::default(); 2];
        let mut models: [VecDeque<(u32, FrameIndex)>; 2] = [VecDeque::new(), VecDeque::new()];
        for (act, which) in acts {
            let at = usize::from(which & 1);
            match act {
                // In any order of arrival, so that it is sorted.
                0..=2 => if let Ok(frame) = frames.take_data(&mut charge, 0) {
                    let seq = (u32::MAX - 40_000).wrapping_add(u32::from(which) * 100);
                    let record = frames.record_mut(frame).expect("a frame");
                    (record.seq, record.len) = (seq, which % 90);
                    frames.insert_in_order(&mut lists[at], frame);
                    let place = models[at].iter().position(|(other, _)| Seq(seq).lt(Seq(*other)));
                    let place = place.unwrap_or(models[at].len());
                    models[at].insert(place, (seq, frame));
                },
                3 => {
                    let popped = frames.pop_front(&mut lists[at]);
                    prop_assert_eq!(popped, models[at].pop_front().map(|(_, frame)| frame));
                    popped.inspect(|frame| { frames.release(*frame, &mut charge); });
                }
                4 => if !models[at].is_empty() {
                    let (_, frame) = models[at].remove(usize::from(which) % models[at].len()).expect("one");
                    frames.remove(&mut lists[at], frame);
                    frames.release(frame, &mut charge);
                },
                5 => if let Some(first) = models[at].len().checked_sub(1).map(|last| usize::from(which) % (last + 1)) {
                    // A part out of the middle, and back to the other list's end if it belongs there.
                    let count = 1 + usize::from(which / 8) % (models[at].len() - first);
                    let (from, to) = (models[at][first].1, models[at][first + count - 1].1);
                    let part = frames.cut(&mut lists[at], from, to);
                    let moved: Vec<(u32, FrameIndex)> = models[at].drain(first..first + count).collect();
                    prop_assert_eq!(frames.walk(&part).collect::<Vec<_>>(), moved.iter().map(|(_, frame)| *frame).collect::<Vec<_>>());
                    let other = 1 - at;
                    if models[other].back().is_none_or(|(last, _)| Seq(*last).le(Seq(moved[0].0))) {
                        frames.append(&mut lists[other], part);
                        models[other].extend(moved);
                    } else {
                        for (_, frame) in moved {
                            frames.release(frame, &mut charge);
                        }
                    }
                },
                _ => if let Some((_, frame)) = models[at].front().copied() {
                    let mut freed = Vec::new();
                    let bytes = u32::from(which) % 300;
                    frames.trim_list_front(&mut lists[at], bytes, |_, frame| freed.push(frame));
                    let whole = freed.len();
                    prop_assert_eq!(models[at].drain(..whole).map(|(_, frame)| frame).collect::<Vec<_>>(), freed.clone());
                    prop_assert!(bytes > 0 || freed.is_empty());
                    if let Some(front) = models[at].front_mut() {
                        front.0 = frames.record(front.1).expect("a frame").seq;
                    }
                    prop_assert!(freed.is_empty() || freed[0] == frame);
                    freed.iter().for_each(|frame| { frames.release(*frame, &mut charge); });
                },
            }
            for (list, model) in lists.iter().zip(&models) {
                let got: Vec<FrameIndex> = frames.walk(list).collect();
                prop_assert_eq!(got, model.iter().map(|(_, frame)| *frame).collect::<Vec<_>>());
                let bytes: u32 = model.iter().map(|(_, frame)| u32::from(frames.record(*frame).expect("a frame").len)).sum();
                prop_assert_eq!((list.frames() as usize, list.bytes()), (model.len(), bytes));
                prop_assert_eq!(list.last(), model.back().map(|(_, frame)| *frame));
            }
        }
    }

    #[test]
    fn nonsense_is_survived(
        words in proptest::collection::vec(any::<u64>(), 6), links in proptest::collection::vec(any::<[u32; 4]>(), 6),
        pool in any::<[u32; 4]>(), acts in proptest::collection::vec((0u8..12, 0u32..8), 0..60),
    ) {
        let mut world = World::new(6, 2, Limits::default());
        for ((record, word), links) in world.records.iter_mut().zip(&words).zip(links) {
            record.next = links[0] % 9;
            record.previous = links[1] % 9;
            record.side_next = links[2] % 9;
            record.side_previous = links[3] % 9;
            (record.mate, record.seq) = (links[0] % 7, links[1]);
            (record.offset, record.len, record.flags) = (links[2] as u16, links[3] as u16, *word as u16);
        }
        world.states = words.iter().map(|word| AtomicU64::new((word & !0xff) | (word % 9))).collect();
        (world.pool.free, world.pool.fresh, world.pool.used, world.pool.fill) = (pool[0] % 9, pool[1] % 9, pool[2], pool[3]);
        world.charge = Charge { frames: pool[0], limit: pool[1] };
        let mut list = FrameList::nonsense(pool[2] % 9, pool[3] % 9, pool[0], pool[1]);
        let mut charge = Charge { frames: pool[2], limit: pool[3] };
        let mut frames = world.frames();
        for (act, which) in acts {
            let frame = FrameIndex(which);
            match act {
                0 => { let _ = frames.take(Purpose::Fill); }
                1 => { let _ = frames.take_data(&mut charge, which); }
                2 => { let _ = frames.completed(frame); }
                3 => { frames.release(frame, &mut charge); }
                4 => { let _ = frames.received(Fragment { frame, offset: 9, len: 9 }, FRAME_SIZE, Instant(7)); }
                5 => frames.insert_in_order(&mut list, frame),
                6 => frames.remove(&mut list, frame),
                7 => { frames.cut(&mut list, frame, FrameIndex(which / 2)); }
                8 => frames.trim_list_front(&mut list, which * 1000, |_, _| {}),
                9 => { let _ = (frames.check(), frames.check_list(&list)); }
                10 => frames.rebuild(which, which),
                _ => { frames.pop_front(&mut list); }
            }
        }
        frames.device_closed();
    }
}

#[test]
fn a_name_is_of_one_use() {
    let mut world = World::ample(1);
    let mut frames = world.frames();
    let first = frames.take(Purpose::Control).expect("free");
    let name = frames.name(first).expect("a name");
    assert!(frames.discard(first));
    assert_eq!(frames.take(Purpose::Control), Some(first));
    assert_ne!(frames.name(first), Some(name));
}

#[test]
fn text_lies_in_what_was_received() {
    let mut world = World::ample(2);
    let frame = world.arrived(1, 54, b"hello").expect("a frame");
    let mut frames = world.frames();
    assert!(!frames.set_text(frame, Seq(1), 53, 5), "before it");
    assert!(!frames.set_text(frame, Seq(1), 54, 6), "behind it");
    assert!(frames.set_text(frame, Seq(2), 55, 4));
    assert_eq!(frames.text(frame), Some(Fragment { frame, offset: 55, len: 4 }));
}
