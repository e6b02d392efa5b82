//! The send queue and its scoreboard against a list of segments.

use proptest::prelude::*;

use super::*;
use crate::frames::Completed;
use crate::frames::pool::Limits;
use crate::frames::state::State;
use crate::frames::tests::World;
use crate::time::Instant;
use crate::wire::tcp::options::Block;

const SHAPE: Shape = Shape { headroom: 128, mss: 100 };

/// One segment as the model has it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Segment {
    seq: u32,
    text: Vec<u8>,
    fin: bool,
    sent: bool,
    sacked: bool,
    lost: bool,
    retransmitted: bool,
    /// When it was sent last; 0 is never.
    at: u64,
}

impl Segment {
    fn octets(&self) -> u32 {
        self.text.len() as u32 + u32::from(self.fin)
    }

    fn end(&self) -> Seq {
        Seq(self.seq) + self.octets()
    }
}

/// Appends these bytes.
fn append(queue: &mut SendQueue, world: &mut World, text: &[u8], frames_max: u32) -> Appended {
    let mut rest = text;
    world.with(|means| {
        queue.append(means, SHAPE, text.len(), frames_max, |to| {
            let (now, later) = rest.split_at(to.len());
            rest = later;
            Copied { len: now.len(), sum: Some(Sum::ZERO.copy(now, to)) }
        })
    })
}

/// The segments of the queue.
fn segments(queue: &SendQueue, world: &mut World) -> Vec<Segment> {
    world.with(|means| {
        let of = |frame: FrameIndex| {
            let record = means.frames.record(frame).expect("a frame");
            let begin = usize::from(record.offset);
            let text =
                means.memory.bytes(frame).expect("a frame")[begin..begin + usize::from(record.len)].to_vec();
            if let Some(sum) = text_sum(record) {
                assert_eq!(
                    sum.fold() % 0xffff,
                    Sum::ZERO.bytes(&text).fold() % 0xffff,
                    "the sum of {text:?}"
                );
            }
            Segment {
                seq: record.seq,
                fin: record.has(FrameRecord::FIN),
                sent: record.has(FrameRecord::SENT),
                sacked: record.has(FrameRecord::SACKED),
                lost: record.has(FrameRecord::LOST),
                retransmitted: record.has(FrameRecord::RETRANSMITTED),
                at: record.sent_at,
                text,
            }
        };
        means.frames.walk(queue.list()).map(of).collect()
    })
}

/// Takes frames out of the device's hands, those for which `is_done` says so.
fn complete(world: &mut World, mut is_done: impl FnMut(u32) -> bool) {
    let mut frames = world.frames();
    for frame in (0..frames.len()).map(FrameIndex) {
        if frames.state(frame).is_devices() && is_done(frame.0) {
            assert_ne!(frames.completed(frame), Completed::Bad);
        }
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn the_scoreboard_is_a_list_of_segments(
        first in any::<u32>(),
        acts in proptest::collection::vec((0u8..15, any::<u16>(), any::<u16>()), 1..160),
    ) {
        let mut world = World::ample(64);
        let mut queue = SendQueue::new(Seq(first));
        let mut model: Vec<Segment> = Vec::new();
        let (mut next, mut byte, mut now) = (first, 0u8, 0u64);
        let mut is_finished = false;
        for (act, a, b) in acts {
            now += u64::from(b % 3) + 1;
            let place = if model.is_empty() { 0 } else { usize::from(a) % model.len() };
            let frame_at = |world: &mut World, queue: &SendQueue| world.frames().walk(queue.list()).nth(place);
            let is_writable = |world: &mut World, frame: Option<FrameIndex>| {
                frame.is_some_and(|frame| world.frames().is_writable(frame))
            };
            match act {
                0 | 1 if !is_finished => {
                    let text: Vec<u8> = (0..a % 350).map(|at| byte.wrapping_add(at as u8)).collect();
                    byte = byte.wrapping_add(text.len() as u8).wrapping_mul(5);
                    let done = append(&mut queue, &mut world, &text, 64);
                    prop_assume!(done.bytes == text.len() && queue.bytes_in_blocks() == 0);
                    let mut rest = &text[..];
                    if let Some(tail) = model.last_mut().filter(|tail| !tail.sent && !tail.fin && tail.text.len() < 100) {
                        let part = rest.len().min(100 - tail.text.len());
                        tail.text.extend_from_slice(&rest[..part]);
                        rest = &rest[part..];
                        next = next.wrapping_add(part as u32);
                    }
                    for text in rest.chunks(100) {
                        model.push(Segment { seq: next, text: text.to_vec(), ..Segment::default() });
                        next = next.wrapping_add(text.len() as u32);
                    }
                }
                2 if !is_finished && a % 4 == 0 => {
                    prop_assert!(world.with(|means| queue.push_fin(means, SHAPE)));
                    match model.last_mut().filter(|tail| !tail.sent) {
                        Some(tail) => tail.fin = true,
                        None => model.push(Segment { seq: next, fin: true, ..Segment::default() }),
                    }
                    next = next.wrapping_add(1);
                    is_finished = true;
                }
                3..=5 => {
                    // The next unsent one, and the device has it until it is complete.
                    let frame = queue.mark_sent(&mut world.frames(), Instant(now));
                    let segment = model.iter_mut().find(|segment| !segment.sent);
                    prop_assert_eq!(frame.is_some(), segment.is_some());
                    if let (Some(frame), Some(segment)) = (frame, segment) {
                        (segment.sent, segment.at) = (true, now);
                        prop_assert!(world.frames().send(frame));
                    }
                }
                6 => complete(&mut world, |frame| a & (1 << (frame % 16)) != 0),
                7 | 8 => {
                    let left = Seq(first) + u32::from(a) % (next.wrapping_sub(first) + 200);
                    let block = Block { left, right: left + u32::from(b) % 600 };
                    let (mut steps, mut news) = (u32::MAX, Vec::new());
                    queue.sack(&mut world.frames(), block, &mut steps, |record| news.push(record.seq));
                    let mut expected = Vec::new();
                    for segment in model.iter_mut().filter(|segment| segment.sent && !segment.sacked) {
                        if block.left.le(Seq(segment.seq)) && segment.end().le(block.right) {
                            expected.push(segment.seq);
                            segment.sacked = true;
                            segment.retransmitted &= !segment.lost;
                            segment.lost = false;
                        }
                    }
                    prop_assert_eq!(news, expected);
                }
                9 => if let Some(frame) = frame_at(&mut world, &queue) {
                    let news = queue.mark_lost(&mut world.frames(), frame);
                    let segment = &mut model[place];
                    prop_assert_eq!(news, segment.sent && !segment.sacked && (!segment.lost || segment.retransmitted));
                    if news {
                        (segment.lost, segment.retransmitted) = (true, false);
                    }
                },
                10 => {
                    // The next lost one, or any that may be.
                    let lost = model.iter().position(|segment| segment.lost && !segment.retransmitted);
                    let next_lost = queue.next_lost();
                    let by_seq = next_lost.map(|frame| world.records[frame.0 as usize].seq);
                    prop_assert_eq!(by_seq, lost.map(|at| model[at].seq));
                    let frame = if a % 3 > 0 { next_lost } else { frame_at(&mut world, &queue) };
                    let at = if a % 3 > 0 { lost } else { Some(place) };
                    if let (Some(frame), Some(at)) = (frame, at) && is_writable(&mut world, Some(frame)) {
                        let segment = &mut model[at];
                        let may = segment.sent && !segment.sacked;
                        prop_assert_eq!(queue.mark_retransmitted(&mut world.frames(), frame, Instant(now)), may);
                        if may {
                            (segment.retransmitted, segment.at) = (true, now);
                            prop_assert!(world.frames().send(frame));
                        }
                    }
                }
                11 => {
                    let una = Seq(first) + u32::from(a) % (next.wrapping_sub(first) + 1);
                    let sent_end = model.iter().rev().find(|segment| segment.sent).map(Segment::end);
                    if sent_end.is_some_and(|end| una.le(end)) {
                        let done = world.with(|means| queue.acknowledge(means, una, |_| {}));
                        let whole = model.iter().take_while(|segment| segment.sent && segment.end().le(una)).count();
                        let gone: Vec<Segment> = model.drain(..whole).collect();
                        prop_assert_eq!((done.frames as usize, done.fin), (whole, gone.iter().any(|segment| segment.fin)));
                        if let Some(front) = model.first_mut().filter(|front| Seq(front.seq).lt(una)) {
                            let part = (una - Seq(front.seq)).min(front.text.len() as u32);
                            front.text.drain(..part as usize);
                            front.seq = front.seq.wrapping_add(part);
                        }
                    }
                }
                12 if a % 5 == 0 => {
                    let is_reneged = model.first().is_some_and(|front| front.sacked);
                    let cut = now.saturating_sub(u64::from(b % 20));
                    queue.mark_all_lost(&mut world.frames(), |record| record.sent_at <= cut);
                    for segment in model.iter_mut().filter(|segment| segment.sent) {
                        if is_reneged && segment.sacked {
                            (segment.sacked, segment.retransmitted) = (false, false);
                        }
                        if !segment.sacked && (is_reneged || segment.at <= cut) {
                            (segment.lost, segment.retransmitted) = (true, false);
                        }
                    }
                }
                13 if b % 2 == 0 => if let Some(frame) = frame_at(&mut world, &queue) {
                    let at = 1 + b % 99;
                    let new = world.with(|means| queue.split(means, SHAPE, frame, at));
                    let old = model[place].clone();
                    let may = !old.sacked && usize::from(at) < old.text.len();
                    prop_assert!(new.is_some() == may || world.frames().available() == 0);
                    if new.is_some() {
                        let (front, back) = old.text.split_at(at.into());
                        model[place] = Segment { text: front.to_vec(), fin: false, ..old.clone() };
                        let seq = old.seq.wrapping_add(at.into());
                        model.insert(place + 1, Segment { seq, text: back.to_vec(), ..old });
                    }
                },
                13 => if let Some(frame) = frame_at(&mut world, &queue) {
                    let after = world.frames().next(frame);
                    let writable = is_writable(&mut world, Some(frame)) && is_writable(&mut world, after);
                    let merged = world.with(|means| queue.collapse(means, SHAPE, frame));
                    let may = writable && model.get(place..place + 2).is_some_and(|pair| {
                        let kind = |segment: &Segment| (segment.sent, segment.lost, segment.retransmitted);
                        kind(&pair[0]) == kind(&pair[1]) && !pair[0].sacked && !pair[1].sacked && !pair[0].fin
                            && pair[0].text.len() + pair[1].text.len() <= 100
                    });
                    prop_assert_eq!(merged, may);
                    if merged {
                        let next = model.remove(place + 1);
                        model[place].text.extend_from_slice(&next.text);
                        model[place].fin = next.fin;
                    }
                },
                14 if a % 3 == 0 => {
                    queue.unmark_lost(&mut world.frames());
                    model.iter_mut().for_each(|segment| segment.lost = false);
                }
                _ => {}
            }
            prop_assert_eq!(segments(&queue, &mut world), model.clone());
            prop_assert_eq!(queue.check(&world.frames()), Ok(()));
            prop_assert_eq!(queue.end(), Seq(next));
            let frames = world.frames();
            let octets = |is: fn(&Segment) -> bool| model.iter().filter(|segment| is(segment)).map(Segment::octets).sum::<u32>();
            let pipe = octets(|segment| segment.sent) + octets(|segment| segment.retransmitted);
            prop_assert_eq!(queue.pipe(), pipe - octets(|segment| segment.sacked) - octets(|segment| segment.lost));
            // What is on its way, by time.
            let times: Vec<u64> = frames.side_walk(queue.flight()).filter_map(|frame| frames.record(frame)).map(|record| record.sent_at).collect();
            prop_assert!(times.is_sorted(), "{times:?}");
        }
        // The device gives back what it has in its own time; nothing is left then.
        world.with(|means| queue.clear(means));
        complete(&mut world, |_| true);
        prop_assert_eq!((world.pool.used(), world.charge.frames), (0, 0), "a frame leaked");
    }

    #[test]
    fn bytes_come_out_as_they_went_in(
        writes in proptest::collection::vec((0usize..3000, 0u32..8, any::<bool>()), 1..30),
        limits in (8u32..30).prop_map(|high| Limits { fill_min: 2, control_min: 2, low: high / 2, pressure: high * 3 / 4, high }),
    ) {
        let mut world = World::new(40, 8, limits);
        let mut queue = SendQueue::new(Seq(0));
        let (mut written, mut sent) = (Vec::new(), Vec::new());
        for (len, frames_max, drains) in writes {
            let text: Vec<u8> = (written.len()..written.len() + len).map(|at| (at * 7 % 251) as u8).collect();
            let done = append(&mut queue, &mut world, &text, frames_max);
            prop_assert_eq!(done.is_short, done.bytes < len);
            written.extend_from_slice(&text[..done.bytes]);
            prop_assert_eq!(queue.bytes() as usize, written.len() - sent.len());
            if drains {
                for segment in segments(&queue, &mut world) {
                    sent.extend_from_slice(&segment.text);
                }
                while queue.mark_sent(&mut world.frames(), Instant(1)).is_some() {}
                let end = queue.end();
                world.with(|means| queue.acknowledge(means, end, |_| {}));
                world.with(|means| queue.refill(means, SHAPE, frames_max));
                prop_assert!(queue.list().frames() <= frames_max.max(1));
            }
        }
        while !queue.is_empty() {
            for segment in segments(&queue, &mut world) {
                sent.extend_from_slice(&segment.text);
            }
            while queue.mark_sent(&mut world.frames(), Instant(1)).is_some() {}
            let end = queue.end();
            world.with(|means| queue.acknowledge(means, end, |_| {}));
            world.with(|means| queue.refill(means, SHAPE, 5));
        }
        prop_assert_eq!(sent, written);
        prop_assert_eq!((world.pool.used(), world.slab.used()), (0, 0));
    }

    #[test]
    fn nonsense_is_survived(
        bytes in any::<[u32; 16]>(), links in proptest::collection::vec(any::<[u32; 4]>(), 8),
        flags in any::<[u16; 8]>(), acts in proptest::collection::vec((0u8..10, 0u32..10), 0..40),
    ) {
        let mut world = World::ample(8);
        for ((record, links), flags) in world.records.iter_mut().zip(&links).zip(flags) {
            (record.next, record.previous, record.side_next, record.side_previous) =
                (links[0] % 11, links[1] % 11, links[2] % 11, links[3] % 11);
            (record.flags, record.len, record.offset) = (flags, links[0] as u16, links[1] as u16 >> 4);
            (record.seq, record.mate) = (links[2] >> 16, links[3] % 9);
        }
        for (state, links) in world.states.iter_mut().zip(&links) {
            *state.get_mut() = u64::from(links[0] % 8);
        }
        let mut queue = SendQueue::new(Seq(bytes[0] >> 16));
        queue.list = FrameList::nonsense(bytes[1] % 11, bytes[2] % 11, bytes[3], bytes[4]);
        (queue.unsent, queue.hint) = (bytes[5] % 11, bytes[6] % 11);
        queue.flight = SideList { head: bytes[7] % 11, tail: bytes[8] % 11 };
        queue.again = SideList { head: bytes[9] % 11, tail: bytes[10] % 11 };
        queue.sent = Count { frames: bytes[11], octets: bytes[12] };
        for (act, which) in acts {
            let frame = FrameIndex(which);
            let mut steps = 100;
            world.with(|means| match act {
                0 => drop(queue.append(means, SHAPE, 300, 5, |to| Copied { len: to.len(), sum: None })),
                1 => drop(queue.mark_sent(means.frames, Instant(1))),
                2 => drop(queue.mark_lost(means.frames, frame)),
                3 => drop(queue.mark_retransmitted(means.frames, frame, Instant(2))),
                4 => drop(queue.sack(means.frames, Block { left: Seq(which << 8), right: Seq(which << 12) }, &mut steps, |_| {})),
                5 => queue.mark_all_lost(means.frames, |_| true),
                6 => drop(queue.acknowledge(means, Seq(which << 12), |_| {})),
                7 => drop(queue.split(means, SHAPE, frame, 3)),
                8 => drop(queue.collapse(means, SHAPE, frame)),
                _ => drop((queue.check(means.frames), queue.push_fin(means, SHAPE))),
            });
        }
        world.with(|means| queue.clear(means));
    }
}

/// A queue of so many segments, all of them sent.
fn sent(world: &mut World, count: u32) -> SendQueue {
    let mut queue = SendQueue::new(Seq(0));
    append(&mut queue, world, &vec![1; count as usize * 100], u32::MAX);
    while queue.mark_sent(&mut world.frames(), Instant(1)).is_some() {}
    queue
}

#[test]
fn a_block_that_grows_costs_its_growth() {
    let mut world = World::ample(5000);
    let mut queue = sent(&mut world, 5000);
    for end in 2..=5000 {
        let (mut steps, block) = (8, Block { left: Seq(100), right: Seq(end * 100) });
        assert_eq!(queue.sack(&mut world.frames(), block, &mut steps, |_| {}), 1, "{end}");
    }
}

#[test]
fn losses_are_looked_for_from_the_oldest_transmission_on() {
    let mut world = World::ample(16);
    let mut queue = SendQueue::new(Seq(0));
    append(&mut queue, &mut world, &[1; 600], 16);
    for now in 1..=6 {
        queue.mark_sent(&mut world.frames(), Instant(now));
    }
    // The first is sent again after all others, so it is the last to be asked of.
    let first = queue.list().first().expect("six of them");
    assert!(queue.mark_lost(&mut world.frames(), first));
    assert!(queue.mark_retransmitted(&mut world.frames(), first, Instant(7)));
    let mut asked = Vec::new();
    let lost = queue.detect_lost(&mut world.frames(), |record| {
        asked.push(record.seq);
        (record.sent_at < 6).then_some(record.sent_at != 3)
    });
    assert_eq!((lost, asked), (3, vec![100, 200, 300, 400, 500]));
    let mut again = Vec::new();
    while let Some(frame) = queue.next_lost() {
        again.push(world.records[frame.0 as usize].seq);
        assert!(queue.mark_retransmitted(&mut world.frames(), frame, Instant(8)));
    }
    assert_eq!(again, [100, 300, 400]);
    assert_eq!(queue.check(&world.frames()), Ok(()));
}

#[test]
fn a_block_that_is_far_away_is_reached_in_the_end() {
    let mut world = World::ample(5000);
    let mut queue = sent(&mut world, 5000);
    let block = Block { left: Seq(400_000), right: Seq(400_100) };
    let mut acks = 0;
    while queue.sacked().frames == 0 {
        let mut steps = scoreboard::STEPS_MAX;
        queue.sack(&mut world.frames(), block, &mut steps, |_| {});
        acks += 1;
    }
    assert_eq!(acks, 4000 / scoreboard::STEPS_MAX + 1);
}

#[test]
fn a_run_is_whole_segments_of_one_kind_that_the_device_has_not() {
    let mut world = World::ample(16);
    let mut queue = SendQueue::new(Seq(0));
    append(&mut queue, &mut world, &[1; 750], 16);
    let frames: Vec<FrameIndex> = world.frames().walk(queue.list()).collect();
    let mut out = [Fragment::default(); 16];
    let run = |world: &mut World, first: usize, most, out: &mut [Fragment]| {
        SendQueue::run(&world.frames(), frames[first], most, out, |_, _| true)
    };
    assert_eq!(run(&mut world, 0, 65_000, &mut out), (8, 750));
    assert_eq!(out[0], Fragment { frame: frames[0], offset: 128, len: 100 });
    assert_eq!(run(&mut world, 0, 250, &mut out), (2, 200), "bytes");
    assert_eq!(run(&mut world, 0, 65_000, &mut out[..3]), (3, 300), "fragments");
    assert_eq!(run(&mut world, 7, 65_000, &mut out), (1, 50), "what is short is the last");
    let may = |_: &FrameRecord, before| before < 400;
    assert_eq!(SendQueue::run(&world.frames(), frames[0], 65_000, &mut out, may), (4, 400), "a window");
    for _ in 0..2 {
        queue.mark_sent(&mut world.frames(), Instant(1));
    }
    assert_eq!(run(&mut world, 0, 65_000, &mut out), (2, 200), "another kind");
    assert!(world.frames().send(frames[5]));
    assert_eq!(run(&mut world, 2, 65_000, &mut out), (3, 300), "the device's");
    assert_eq!(run(&mut world, 5, 65_000, &mut out), (0, 0));
}

#[test]
fn a_frame_that_the_device_has_is_sent_again_as_a_copy() {
    let mut world = World::ample(4);
    let mut queue = SendQueue::new(Seq(9));
    append(&mut queue, &mut world, b"hello", 4);
    let frame = queue.mark_sent(&mut world.frames(), Instant(1)).expect("unsent");
    assert!(world.frames().send(frame));
    assert!(!world.frames().send(frame), "it is on its way");
    let copy = world.with(|means| SendQueue::copy_of(means.frames, means.memory, frame)).expect("a copy");
    assert_eq!(&world.memory.bytes(copy).expect("a frame")[128..133], b"hello");
    assert!(world.frames().send(copy));
    assert_eq!(world.frames().completed(copy), Completed::Freed);
    // Acknowledged before it is complete: still the device's.
    world.with(|means| queue.acknowledge(means, Seq(14), |_| {}));
    assert_eq!((world.frames().state(frame), queue.is_empty()), (State::Tx, true));
    assert_eq!(world.frames().completed(frame), Completed::Freed);
    assert_eq!(world.pool.used(), 0);
}
