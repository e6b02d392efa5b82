//! Marks in the messages, cheap enough for every one: a broken transport must not yield a fast figure.
//!
//! A message carries marks at its first byte, at every 4096th and at its last. A mark depends on the number
//! of the message and on its place, so lost, repeated, reordered and misplaced data do not match.

use super::Outcome;

const STEP: usize = 4096;

/// The mark of message `number` at `offset`.
fn mark(number: u64, offset: usize) -> u8 {
    let word = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (word.wrapping_add((offset as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93)) >> 56) as u8
}

/// Where a message of `size` bytes carries marks.
fn places(size: usize) -> impl Iterator<Item = usize> {
    let last = size - 1;
    (0..size).step_by(STEP).chain((!last.is_multiple_of(STEP)).then_some(last))
}

/// Writes the marks of message `number`.
pub(super) fn stamp(message: &mut [u8], number: u64) {
    for place in places(message.len()) {
        message[place] = mark(number, place);
    }
}

/// Checks the marks of message `number`.
pub(super) fn verify(message: &[u8], number: u64) -> Outcome<()> {
    match places(message.len()).find(|&place| message[place] != mark(number, place)) {
        None => Ok(()),
        Some(place) => Err(format!("DATA CORRUPTED: message {number}, byte {place}")),
    }
}

/// Checks a piece of a stream of messages of `size` bytes; `position` is that of its first byte.
pub(super) fn verify_piece(piece: &[u8], position: u64, size: usize) -> Outcome<()> {
    let end = position + piece.len() as u64;
    let mut number = position / size as u64;
    while number * (size as u64) < end {
        let start = number * size as u64;
        for place in places(size) {
            let at = start + place as u64;
            if at >= position && at < end && piece[(at - position) as usize] != mark(number, place) {
                return Err(format!("DATA CORRUPTED: message {number}, byte {place}"));
            }
        }
        number += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(size: usize, count: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for number in 0..count {
            let mut message = vec![0; size];
            stamp(&mut message, number);
            verify(&message, number).expect("its own marks");
            all.extend(message);
        }
        all
    }

    #[test]
    fn every_cut_of_a_stream_verifies() {
        for size in [1, 2, 64, 4096, 4097, 10_000] {
            let all = stream(size, 5);
            for cut in [0, 1, size / 2, size, all.len() - 1] {
                verify_piece(&all[..cut], 0, size).expect("first piece");
                verify_piece(&all[cut..], cut as u64, size).expect("second piece");
            }
        }
    }

    #[test]
    fn a_lost_message_and_a_shifted_stream_are_seen() {
        let all = stream(64, 20);
        assert!(verify_piece(&all[64..], 0, 64).is_err());
        assert!(verify_piece(&all[1..], 0, 64).is_err());
        assert!(verify(&all[..64], 1).is_err());
    }
}
