//! What one thread can check: bounds, and the states that each rule refuses.

use super::*;

#[test]
fn a_new_direction_is_on_the_kernel() {
    let direction = Direction::new();
    assert!(direction.sendable().is_none());
    assert!(direction.reopen(0));
    assert!(direction.sendable().is_some());
}

#[test]
fn publishing_against_a_closed_word_fails() {
    let direction = Direction::new();
    assert!(direction.reopen(0));
    let word = direction.sendable().unwrap();
    assert_eq!(direction.close().position(), 0);
    assert!(!direction.publish(word, 8));
    assert_eq!(direction.word().position(), 0);
}

#[test]
fn announced_kernel_bytes_keep_it_closed_until_they_are_read() {
    let direction = Direction::new();
    direction.kernel_send_begins(10);
    assert!(!direction.reopen(0));
    direction.kernel_send_ends(10, 4);
    assert!(!direction.reopen(0));
    assert!(direction.reopen(4));
}

#[test]
fn revoked_is_for_good() {
    let direction = Direction::new();
    assert!(direction.reopen(0));
    direction.revoke();
    assert!(!direction.reopen(0));
    assert!(direction.sendable().is_none());
}

#[test]
fn impossible_positions_are_violations() {
    assert_eq!(available(10, 4, 8), Ok(6));
    assert_eq!(available(4, 10, 8), Err(Violation));
    assert_eq!(available(1, POSITION, 8), Ok(2), "positions wrap");
    assert_eq!(available(20, 4, 8), Err(Violation));
}

#[test]
fn positions_wrap_without_touching_the_flags() {
    let direction = Direction::new();
    direction.tail.0.store(CLOSED | (POSITION - 1), SeqCst);
    direction.head.0.store(POSITION - 1, SeqCst);
    assert!(direction.reopen(0));
    let word = direction.sendable().unwrap();
    assert!(direction.publish(word, 4));
    assert!(direction.word().is_open());
    assert_eq!(available(direction.word().position(), direction.head(), 16), Ok(4));
}
