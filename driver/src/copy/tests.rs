//! Rings against the naive model: a position is an index into an endless array, taken modulo the capacity.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// Bytes around the ring that nothing may touch.
const FENCE: usize = 64;
const CAPACITY: usize = 4 * 4096;

/// A ring in the middle of a fenced buffer. The offset shifts it against the alignment of stores.
struct Fenced {
    bytes: Vec<u8>,
    shift: usize,
}

impl Fenced {
    fn new(shift: usize) -> Self {
        Self { bytes: (0..CAPACITY + 2 * FENCE).map(|i| i as u8).collect(), shift }
    }

    fn ring(&mut self) -> Ring {
        // SAFETY: CAPACITY bytes behind the fence belong to the buffer, which outlives each use below.
        unsafe { Ring::new(self.bytes.as_mut_ptr().add(FENCE / 2 + self.shift), CAPACITY) }
    }

    fn inside(&self) -> core::ops::Range<usize> {
        FENCE / 2 + self.shift..FENCE / 2 + self.shift + CAPACITY
    }
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// Lengths on both sides of every branch: empty, small, around the streaming threshold, the whole ring.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0..130usize, 4096usize - 70..4096 + 70, 0..=CAPACITY, Just(CAPACITY),]
}

/// Positions near the ring's end, and near the end of positions themselves.
fn positions() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (CAPACITY as u64 - 200)..(CAPACITY as u64 + 200),
        (crate::switch::POSITION - 200)..=crate::switch::POSITION,
    ]
}

proptest! {
    #[test]
    fn writing_equals_the_naive_model(position in positions(), length in lengths(), shift in 0..32usize, seed: u8) {
        let mut fenced = Fenced::new(shift);
        let mut expected = fenced.bytes.clone();
        let source = pattern(length, seed);
        for (i, &byte) in source.iter().enumerate() {
            expected[FENCE / 2 + shift + (position.wrapping_add(i as u64) % CAPACITY as u64) as usize] = byte;
        }
        // SAFETY: the source is that long, and no longer than the ring.
        prop_assert!(unsafe { fenced.ring().write(position, source.as_ptr(), length) }, "mapped memory");
        prop_assert!(fenced.bytes == expected);
    }

    #[test]
    fn reading_equals_the_naive_model(position in positions(), length in lengths(), shift in 0..32usize) {
        let mut fenced = Fenced::new(shift);
        let inside = fenced.bytes[fenced.inside()].to_vec();
        let mut target = pattern(length + 1, 9);
        let last = target[length];
        // SAFETY: the target has room for `length`, which is no longer than the ring.
        prop_assert!(unsafe { fenced.ring().read(position, target.as_mut_ptr(), length) }, "mapped memory");
        let expected: Vec<u8> =
            (0..length).map(|i| inside[(position.wrapping_add(i as u64) % CAPACITY as u64) as usize]).collect();
        prop_assert!(target[..length] == expected);
        prop_assert_eq!(target[length], last);
    }

    /// Scattered buffers, one behind the other as `writev` and `readv` have them, in turns with the reader.
    #[test]
    fn streams_of_scattered_buffers(
        start in positions(),
        steps in prop::collection::vec((prop::collection::vec(lengths(), 0..5), prop::collection::vec(lengths(), 0..5)), 1..8),
    ) {
        let mut fenced = Fenced::new(0);
        let ring = fenced.ring();
        let (mut tail, mut head) = (start, start);
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for (writes, reads) in steps {
            for length in writes {
                let length = length.min(CAPACITY - tail.wrapping_sub(head) as usize);
                let source = pattern(length, sent.len() as u8);
                // SAFETY: as long as the source, and no longer than the free part.
                prop_assert!(unsafe { ring.write(tail, source.as_ptr(), length) }, "mapped memory");
                tail = tail.wrapping_add(length as u64);
                sent.extend(source);
            }
            for length in reads {
                let length = length.min(tail.wrapping_sub(head) as usize);
                let mut target = vec![0; length];
                // SAFETY: as long as the target, and no longer than the filled part.
                prop_assert!(unsafe { ring.read(head, target.as_mut_ptr(), length) }, "mapped memory");
                head = head.wrapping_add(length as u64);
                received.extend(target);
            }
        }
        prop_assert!(received == sent[..received.len()]);
    }

    #[test]
    fn pieces_cover_a_range_in_two(position in positions(), length in lengths()) {
        let mut fenced = Fenced::new(0);
        let inside = fenced.inside();
        let base = fenced.bytes.as_ptr().wrapping_add(inside.start);
        let ring = fenced.ring();
        let (at, first) = ring.piece(position, length);
        let (rest_at, rest) = ring.piece(position.wrapping_add(first as u64), length - first);
        prop_assert_eq!(at.cast_const(), base.wrapping_add((position % CAPACITY as u64) as usize));
        prop_assert_eq!(first + rest, length);
        prop_assert!(rest == 0 || rest_at.cast_const() == base);
        prop_assert!(at as usize + first <= base as usize + CAPACITY);
    }
}
