//! The receive queue against a queue of bytes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::frames::pool::Limits;
use crate::frames::tests::World;

/// Up to `len` bytes from the `skip`th on, as a reader sees them that takes `most` at a time.
fn peek(queue: &ReceiveQueue, world: &mut World, skip: usize, len: usize, most: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let count = world.with(|means| {
        queue.peek(means, skip, len, |piece| {
            let part = piece.len().min(most);
            got.extend_from_slice(&piece[..part]);
            part
        })
    });
    assert_eq!(count, got.len());
    got
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn a_receive_queue_is_a_queue_of_bytes(
        high in 4u32..30, blocks in 0usize..6, limit in 1u32..40,
        acts in proptest::collection::vec((0u8..8, any::<u16>(), any::<u16>()), 1..150),
    ) {
        let limits = Limits { fill_min: 4, control_min: 2, low: high / 2, pressure: high * 3 / 4, high };
        let mut world = World::new(32, blocks, limits);
        world.charge.limit = limit;
        let (mut queue, mut model, mut seq) = (ReceiveQueue::default(), VecDeque::new(), 0u32);
        for (act, a, b) in acts {
            match act {
                0..=3 => {
                    let len = [a % 9, a % 600, a % 1400, 1400][usize::from(b % 4)];
                    let text: Vec<u8> = (0..len).map(|at| seq.wrapping_mul(7).wrapping_add(at.into()) as u8).collect();
                    let frame = world.arrived(seq, b % 200, &text).expect("the fill ring has a frame");
                    if world.with(|means| queue.push(means, frame)).is_ok() {
                        seq += u32::from(len);
                        model.extend(text);
                    }
                }
                4 => {
                    let (skip, len) = (usize::from(a) % (model.len() + 9), usize::from(b) % 5000);
                    let expected: Vec<u8> = model.iter().skip(skip).take(len).copied().collect();
                    prop_assert_eq!(peek(&queue, &mut world, skip, len, usize::MAX), expected);
                }
                5 => {
                    // A reader whose buffer has a hole: it takes some of one piece.
                    let got = peek(&queue, &mut world, 0, usize::MAX, 1 + usize::from(a % 300));
                    prop_assert!(got.len() <= model.len() && got.iter().eq(model.iter().take(got.len())));
                    prop_assert!(got.is_empty() == model.is_empty());
                }
                6 => {
                    let mut got = Vec::new();
                    let len = usize::from(a) % 6000;
                    let count = world.with(|means| queue.read(means, len, |piece| {
                        got.extend_from_slice(piece);
                        piece.len()
                    }));
                    prop_assert_eq!(count, len.min(model.len()));
                    prop_assert_eq!(got, model.drain(..count).collect::<Vec<u8>>());
                }
                _ => {
                    world.with(|means| queue.spill(means, u32::from(a % 5)));
                }
            }
            prop_assert_eq!(queue.bytes() as usize, model.len());
            prop_assert_eq!(world.frames().check_list(queue.list()), Ok(()));
            prop_assert_eq!(world.charge.frames, queue.list().frames());
            prop_assert!(world.frames().available() >= 4, "nothing can arrive");
        }
        world.with(|means| queue.clear(means));
        prop_assert_eq!((world.pool.used(), world.slab.used(), world.charge.frames), (0, 0, 0));
    }
}

#[test]
fn little_text_takes_no_frames() {
    let (mut world, mut queue) = (World::ample(16), ReceiveQueue::default());
    for seq in 0..1000 {
        let frame = world.arrived(seq, 66, &[1]).expect("a frame");
        assert_eq!(world.with(|means| queue.push(means, frame)), Ok(()));
    }
    assert_eq!((queue.bytes(), queue.list().frames()), (1000, 1));
}

#[test]
fn a_reader_that_is_away_costs_no_frames_but_blocks() {
    let limits = Limits { fill_min: 4, control_min: 2, low: 4, pressure: 6, high: 8 };
    let (mut world, mut queue) = (World::new(32, 32, limits), ReceiveQueue::default());
    for seq in 0..60 {
        let frame = world.arrived(seq * 1400, 66, &[seq as u8; 1400]).expect("a frame");
        assert_eq!(world.with(|means| queue.push(means, frame)), Ok(()), "{seq}");
        assert!(world.pool.charged() <= 8);
    }
    let got = peek(&queue, &mut world, 0, usize::MAX, usize::MAX);
    assert!((0..60u8).flat_map(|byte| [byte; 1400]).eq(got));
}
