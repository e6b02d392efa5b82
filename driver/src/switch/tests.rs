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

#[test]
fn what_a_dead_reader_held_is_to_be_had_again() {
    let direction = Direction::new();
    assert!(direction.reopen(0));
    let word = direction.sendable().unwrap();
    assert!(direction.publish(word, 5));
    assert!(direction.hold(0));
    direction.close();
    assert_eq!(direction.take_back(8), None);
    assert_eq!(direction.head_to_take(), None);
    direction.forget_holder();
    assert_eq!(direction.head_to_take(), Some(0));
    assert_eq!(direction.take_back(8), Some((0, 5)));
    direction.forget_holder();
    assert!(direction.is_taken_back());
}

#[test]
fn each_byte_has_one_taker() {
    let direction = Direction::new();
    assert!(direction.reopen(0));
    let word = direction.sendable().unwrap();
    assert!(direction.publish(word, 6));
    assert!(direction.take(0, 2));
    direction.close();
    assert!(direction.hold(2));
    assert_eq!(direction.take_back(8), None, "the receiver holds it");
    direction.let_go(3);
    assert_eq!(direction.take_back(8), Some((3, 3)));
    assert!(!direction.take(3, 1));
    assert!(!direction.hold(3));
    assert!(direction.is_unread());
    assert_eq!(direction.coming(0, 8), Some(3));
    direction.kernel_send_begins(3);
    assert!(!direction.reopen(0));
    direction.kernel_was_read(2, 8);
    assert!(direction.is_unread());
    direction.kernel_was_read(3, 8);
    assert!(!direction.is_unread());
    assert_eq!(direction.coming(0, 8), None);
    assert!(direction.reopen(3));
}

#[test]
fn what_a_dead_sender_took_back_is_counted_from_where_it_began() {
    let direction = Direction::new();
    direction.set_kernel_sent(7);
    assert!(direction.reopen(7));
    let word = direction.sendable().unwrap();
    assert!(direction.publish(word, 6));
    direction.close();
    assert!(direction.nothing_follows());
    assert_eq!(direction.take_back(8), Some((0, 6)));
    direction.kernel_send_begins(6);
    assert!(!direction.nothing_follows());
    assert_eq!(direction.coming(9, 8), Some(4), "two were read from the kernel");
    assert!(direction.recover(9, 8));
    assert_eq!(direction.head(), 2);
    assert!(direction.take(2, 4));
    assert!(!direction.recover(9, 8));
}
