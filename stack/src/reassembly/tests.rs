//! The out-of-order queue against a map from sequence numbers to bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::frames::pool::Limits;
use crate::frames::tests::World;

/// What is known of each sequence number beyond rcv.nxt, counted from the first.
#[derive(Debug, Default)]
struct Model {
    bytes: BTreeMap<u32, u8>,
    /// One number of the run that grew last.
    grown: Option<u32>,
}

impl Model {
    /// Stretches of neighbours.
    fn runs(&self) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for at in self.bytes.keys() {
            match runs.last_mut() {
                Some((_, end)) if *end == *at => *end += 1,
                _ => runs.push((*at, at + 1)),
            }
        }
        runs
    }

    /// Adds text as Linux does: one that begins earlier wins, and one that covers the other. What of it was there.
    fn insert(&mut self, seq: u32, text: &[u8]) -> Vec<(u32, u32)> {
        let end = seq + text.len() as u32;
        let mut duplicates = Vec::new();
        let mut wins_from = seq;
        for (left, right) in self.runs() {
            if right <= seq || end <= left {
                continue;
            }
            duplicates.push((left.max(seq), right.min(end)));
            let covered = left <= seq && end <= right;
            let covers = seq <= left && right <= end && !covered;
            if covered || (left < seq && !covers) {
                wins_from = right.min(end);
            }
        }
        for (at, byte) in (seq..end).zip(text).filter(|(at, _)| *at >= wins_from) {
            self.bytes.insert(at, *byte);
        }
        self.grown = Some(seq);
        duplicates
    }

    /// The run that grew last.
    fn recent(&self) -> Option<(u32, u32)> {
        let grown = self.grown?;
        self.runs().into_iter().find(|(left, right)| (*left..*right).contains(&grown))
    }
}

/// Byte number `at` of the `which`th version of a stream.
fn byte(at: u32, which: u8) -> u8 {
    (at.wrapping_mul(31) as u8) ^ which
}

fn text_of(world: &mut World, list: &FrameList) -> Vec<u8> {
    world.with(|means| {
        let text = |frame| {
            let record = means.frames.record(frame).expect("a frame");
            let begin = usize::from(record.offset);
            means.memory.bytes(frame).expect("a frame")[begin..begin + usize::from(record.len)].to_vec()
        };
        means.frames.walk(list).flat_map(text).collect()
    })
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn reassembly_is_a_map_of_bytes(
        first in any::<u32>(),
        acts in proptest::collection::vec((0u8..8, 1u32..2500, 0u16..1400, any::<u8>()), 1..80),
    ) {
        let mut world = World::ample(256);
        let (mut queue, mut model, mut next) = (Reassembly::default(), Model::default(), 0u32);
        for (act, a, len, version) in acts {
            let len = if version % 8 == 0 { len } else { len % 120 };
            if act < 7 {
                let seq = next + a;
                let text: Vec<u8> = (seq..seq + u32::from(len)).map(|at| byte(at, version)).collect();
                let frame = world.arrived(first.wrapping_add(seq), u16::from(version), &text).expect("a frame");
                let done = world.with(|means| queue.insert(means, frame));
                if text.is_empty() {
                    prop_assert_eq!(done, Err(Dropped::Duplicate));
                    continue;
                }
                let before = model.bytes.len();
                let duplicates = model.insert(seq, &text);
                let is_whole = duplicates == [(seq, seq + u32::from(len))] && model.bytes.len() == before;
                prop_assert_eq!(done, if is_whole { Err(Dropped::Duplicate) } else { Ok(()) });
                prop_assert_eq!(queue.has_duplicate(), !duplicates.is_empty());
                let blocks = queue.sack_blocks(&world.frames(), 4);
                let relative = |block: &Block| (block.left.0.wrapping_sub(first), block.right.0.wrapping_sub(first));
                let mut blocks: Vec<(u32, u32)> = blocks.as_slice().iter().map(relative).collect();
                if !duplicates.is_empty() {
                    prop_assert_eq!(blocks.remove(0), duplicates[0]);
                }
                // The one with this segment comes first; all are runs, and as many as there is room for.
                let runs = model.runs();
                prop_assert_eq!(blocks.first().copied(), model.recent());
                prop_assert!(blocks.iter().all(|block| runs.contains(block)), "{blocks:?} {runs:?}");
                prop_assert_eq!(blocks.len(), runs.len().min(4 - usize::from(!duplicates.is_empty())));
            } else {
                // The gap is filled up to here.
                next += a % 900;
                let (list, after) = world.with(|means| queue.take_in_order(means, Seq(first.wrapping_add(next))));
                model.bytes = model.bytes.split_off(&next);
                let mut expected = Vec::new();
                while let Some(byte) = model.bytes.remove(&next) {
                    expected.push(byte);
                    next += 1;
                }
                prop_assert_eq!(after.0.wrapping_sub(first), next);
                prop_assert_eq!(text_of(&mut world, &list), expected);
                let mut list = list;
                world.with(|means| while let Some(frame) = means.frames.pop_front(&mut list) {
                    means.frames.release(frame, means.charge);
                });
                let _ = queue.sack_blocks(&world.frames(), 4);
            }
            prop_assert_eq!(queue.check(&world.frames()), Ok(()));
            prop_assert_eq!(queue.runs() as usize, model.runs().len());
            let list = *queue.list();
            let expected: Vec<u8> = model.bytes.values().copied().collect();
            prop_assert_eq!(text_of(&mut world, &list), expected);
            prop_assert_eq!(world.charge.frames, list.frames());
        }
        let frames = queue.list().frames();
        let pruned = world.with(|means| queue.prune(means, frames / 2));
        prop_assert!(pruned >= frames / 2);
        prop_assert_eq!(queue.check(&world.frames()), Ok(()));
        world.with(|means| queue.clear(means));
        prop_assert_eq!((world.pool.used(), world.charge.frames), (0, 0));
    }

    #[test]
    fn nonsense_is_survived(
        ends in any::<[u32; 12]>(), links in proptest::collection::vec(any::<[u32; 4]>(), 8),
        acts in proptest::collection::vec((0u8..7, 0u32..12), 0..40),
    ) {
        let mut world = World::ample(8);
        for (record, links) in world.records.iter_mut().zip(&links) {
            (record.next, record.previous, record.side_next, record.side_previous) =
                (links[0] % 11, links[1] % 11, links[2] % 11, links[3] % 11);
            (record.flags, record.len, record.offset) = (links[3] as u16, links[0] as u16 >> 5, links[1] as u16 >> 4);
            (record.seq, record.mate) = (links[2] >> 18, links[3] % 9);
        }
        for (state, links) in world.states.iter_mut().zip(&links) {
            *state.get_mut() = u64::from(links[0] % 8);
        }
        let mut queue = Reassembly {
            list: FrameList::nonsense(ends[0] % 11, ends[1] % 11, ends[2], ends[3]),
            runs: SideList { head: ends[4] % 11, tail: ends[5] % 11 },
            runs_count: ends[6],
            recent: [ends[7] % 11, ends[8] % 11, ends[9] % 11, ends[10] % 11],
            duplicate_left: ends[11],
            duplicate_right: ends[0],
        };
        for (act, which) in acts {
            world.with(|means| match act {
                0..=2 => drop(queue.insert(means, FrameIndex(which))),
                3 => drop(queue.take_in_order(means, Seq(which << 11))),
                4 => drop(queue.prune(means, which)),
                5 => drop(queue.sack_blocks(means.frames, 4)),
                _ => drop(queue.check(means.frames)),
            });
        }
        world.with(|means| queue.clear(means));
    }
}

/// Inserts `text` at `seq`.
fn insert(queue: &mut Reassembly, world: &mut World, seq: u32, text: &[u8]) -> Result<(), Dropped> {
    let frame = world.arrived(seq, 66, text).expect("a frame");
    world.with(|means| queue.insert(means, frame))
}

#[test]
fn overlaps_are_resolved_as_linux_does() {
    // What is there, what arrives, what is there then.
    type Text = (u32, &'static [u8]);
    let known: [(&[Text], Text, &[u8]); 7] = [
        (&[(10, b"aaaa")], (11, b"bb"), b"aaaa"),
        (&[(10, b"aaaa")], (10, b"bbbb"), b"aaaa"),
        (&[(10, b"aaaa")], (12, b"bbbb"), b"aaaabb"),
        (&[(10, b"aaaa")], (8, b"bbbb"), b"bbbbaa"),
        (&[(10, b"aaaa")], (8, b"bbbbbbbb"), b"bbbbbbbb"),
        (&[(10, b"aaaa")], (10, b"bbbbbb"), b"bbbbbb"),
        (&[(10, b"aa"), (14, b"cc"), (18, b"dd")], (11, b"bbbbbbbb"), b"aabbbbbbbd"),
    ];
    for (there, (seq, text), expected) in known {
        let (mut queue, mut world) = (Reassembly::default(), World::ample(8));
        for (seq, text) in there {
            assert_eq!(insert(&mut queue, &mut world, *seq, text), Ok(()));
        }
        let _ = insert(&mut queue, &mut world, seq, text);
        let list = *queue.list();
        assert_eq!(text_of(&mut world, &list), expected, "{there:?} {text:?}");
    }
}

/// `left..right` of each block.
fn blocks(queue: &mut Reassembly, world: &mut World) -> Vec<(u32, u32)> {
    let blocks = queue.sack_blocks(&world.frames(), 4);
    blocks.as_slice().iter().map(|block| (block.left.0, block.right.0)).collect()
}

//= https://www.rfc-editor.org/rfc/rfc2018#section-4
//# The first SACK block (i.e., the one immediately following the
//# kind and length fields in the option) MUST specify the contiguous
//# block of data containing the segment which triggered this ACK,
//# unless that segment advanced the Acknowledgment Number field in
//# the header.
#[test]
fn the_first_block_has_the_segment_that_arrived() {
    let (mut queue, mut world) = (Reassembly::default(), World::ample(16));
    for seq in [200, 400, 600, 800, 1000] {
        assert_eq!(insert(&mut queue, &mut world, seq, &[0; 100]), Ok(()));
    }
    assert_eq!(blocks(&mut queue, &mut world), [(1000, 1100), (800, 900), (600, 700), (400, 500)]);
    assert_eq!(insert(&mut queue, &mut world, 300, &[0; 50]), Ok(()));
    assert_eq!(blocks(&mut queue, &mut world), [(200, 350), (1000, 1100), (800, 900), (600, 700)]);
    // The gap between two of them.
    assert_eq!(insert(&mut queue, &mut world, 700, &[0; 100]), Ok(()));
    assert_eq!(blocks(&mut queue, &mut world), [(600, 900), (200, 350), (1000, 1100), (400, 500)]);
}

//= https://www.rfc-editor.org/rfc/rfc2883#section-4
//# (1) A D-SACK block is only used to report a duplicate contiguous
//# sequence of data received by the receiver in the most recent packet.
//#
//# (2) Each duplicate contiguous sequence of data received is reported
//# in at most one D-SACK block.
#[test]
fn a_duplicate_is_reported_once_and_before_the_run_that_has_it() {
    let (mut queue, mut world) = (Reassembly::default(), World::ample(16));
    for seq in [200, 300, 600] {
        assert_eq!(insert(&mut queue, &mut world, seq, &[0; 100]), Ok(()));
    }
    assert_eq!(insert(&mut queue, &mut world, 300, &[0; 100]), Err(Dropped::Duplicate));
    assert_eq!(blocks(&mut queue, &mut world), [(300, 400), (200, 400), (600, 700)]);
    assert_eq!(blocks(&mut queue, &mut world), [(200, 400), (600, 700)]);
    // Below rcv.nxt, by whoever finds it.
    queue.note_duplicate(Block { left: Seq(50), right: Seq(90) });
    assert_eq!(blocks(&mut queue, &mut world)[0], (50, 90));
}

#[test]
fn the_runs_of_one_connection_are_bounded() {
    let (mut queue, mut world) = (Reassembly::default(), World::ample(1000));
    let count = (0..2000).filter(|at| insert(&mut queue, &mut world, at * 2, &[1]).is_ok()).count();
    assert_eq!((count as u32, queue.runs()), (RUNS_MAX, RUNS_MAX));
    // What joins a run is still taken.
    assert_eq!(insert(&mut queue, &mut world, 1, &[1]), Ok(()));
    assert_eq!(queue.runs(), RUNS_MAX - 1);
    assert_eq!(insert(&mut queue, &mut world, 9001, &[1]), Ok(()));
    assert_eq!(insert(&mut queue, &mut world, 9003, &[1]), Err(Dropped::Runs));
}

#[test]
fn a_socket_without_frames_keeps_what_it_has() {
    let limits = Limits { fill_min: 2, control_min: 1, low: 2, pressure: 3, high: 4 };
    let (mut queue, mut world) = (Reassembly::default(), World::new(16, 0, limits));
    let taken: Vec<bool> =
        (0..8).map(|at| insert(&mut queue, &mut world, at * 2000, &[0; 1000]).is_ok()).collect();
    assert_eq!(taken, [true, true, true, true, false, false, false, false]);
    assert_eq!(queue.check(&world.frames()), Ok(()));
    assert_eq!(world.charge.frames, 4);
}
