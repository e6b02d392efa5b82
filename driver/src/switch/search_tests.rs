//! What the search proves of the protocol, and of each rule left out.

use super::*;

#[test]
fn one_sender_one_receiver() {
    PLAIN.holds();
    Setting { units: [5, 0], capacity: 2, ..PLAIN }.holds();
}

#[test]
fn several_units_at_once_and_partial_kernel_sends() {
    Setting { batch: 2, ..PLAIN }.holds();
    Setting { batch: 2, capacity: 2, ..PLAIN }.holds();
}

#[test]
fn a_kernel_that_fills_up() {
    Setting { kernel_room: 1, batch: 2, ..PLAIN }.holds();
    Setting { kernel_room: 1, batch: 2, units: [2, 2], ..PLAIN }.holds();
    Setting { kernel_room: 2, units: [2, 2], closes: 1, ..PLAIN }.holds();
}

/// A sender that looked only after the call could block in it, over a ring that was opened between its first
/// reading of the word and its announcement; or die in it. A spinning reader would not hear of its units.
#[test]
fn looking_after_the_call_is_too_late() {
    Setting { looks: Looks::After, ..PLAIN }.holds();
    Setting { looks: Looks::After, units: [2, 2], closes: 1, ..PLAIN }.holds();
    Setting { looks: Looks::After, kernel_room: 1, batch: 2, ..PLAIN }.breaks();
}

#[test]
fn two_sending_threads() {
    Setting { units: [2, 2], ..PLAIN }.holds();
    Setting { units: [2, 2], capacity: 2, ..PLAIN }.holds();
    Setting { units: [2, 1], capacity: 2, batch: 2, ..PLAIN }.holds();
}

#[test]
fn closed_and_revoked_at_any_moment() {
    Setting { closes: 2, ..PLAIN }.holds();
    Setting { revokes: true, ..PLAIN }.holds();
    Setting { closes: 1, revokes: true, capacity: 2, batch: 2, ..PLAIN }.holds();
    Setting { units: [2, 1], closes: 1, revokes: true, capacity: 2, ..PLAIN }.holds();
}

#[test]
fn the_sender_dies_at_any_moment() {
    Setting { sender_dies: true, closes: 1, ..PLAIN }.holds();
    Setting { sender_dies: true, capacity: 2, batch: 2, revokes: true, ..PLAIN }.holds();
    Setting { sender_dies: true, units: [2, 1], capacity: 2, ..PLAIN }.holds();
}

#[test]
fn the_receiver_dies_at_any_moment() {
    Setting { receiver_dies: true, closes: 1, ..PLAIN }.holds();
    Setting { receiver_dies: true, sender_dies: true, capacity: 2, batch: 2, ..PLAIN }.holds();
}

/// Rule 6: whoever gets the connection, at any moment, finds in the kernel all that was not read, in order. The
/// sender takes back against the receiver's copy and its swap, against a close or another thread's kernel send, and
/// before the end of the stream; a full ring makes it do so before each kernel send.
#[test]
fn given_away_at_any_moment() {
    Setting { gives_away: true, ..PLAIN }.holds();
    Setting { gives_away: true, capacity: 2, batch: 2, ..PLAIN }.holds();
    Setting { gives_away: true, units: [2, 1], capacity: 2, ..PLAIN }.holds();
    Setting { gives_away: true, closes: 1, capacity: 2, ..PLAIN }.holds();
}

/// What the kernel has no room for stays in the ring, and does not come behind what the kernel took instead.
#[test]
fn a_kernel_without_room_for_what_is_unread() {
    let setting = Setting { refuses: true, capacity: 2, ..PLAIN };
    setting.holds();
    Setting { units: [2, 1], ..setting }.holds();
    Setting { without: Some(Rule::NothingFollows), ..setting }.breaks();
}

/// The sender dies while it gives the kernel what it took back.
#[test]
fn the_rest_of_what_a_dead_sender_took_back_is_in_the_ring() {
    Setting { sender_dies: true, units: [3, 0], capacity: 2, batch: 2, ..PLAIN }.holds();
    let setting = Setting { sender_dies: true, capacity: 2, ..PLAIN };
    Setting { without: Some(Rule::Recover), ..setting }.breaks();
}

#[test]
fn no_rule_can_be_left_out() {
    for rule in [
        Rule::CompareKernelCount,
        Rule::PublishBySwap,
        Rule::SenderLooksAgain,
        Rule::RingFirst,
        Rule::OpenerLooksAgain,
        Rule::CloseBeforeSleep,
        Rule::TailOfClose,
        Rule::HeadAfterCopy,
    ] {
        Setting { without: Some(rule), ..PLAIN }.breaks();
    }
    // Only a sender that dies leaves units in the ring behind the end.
    Setting { sender_dies: true, without: Some(Rule::TailAfterEnd), ..PLAIN }.breaks();
    Setting { gives_away: true, without: Some(Rule::UnreadFirst), ..PLAIN }.breaks();
    for rule in [Rule::TakeBySwap, Rule::TakenBit] {
        Setting { capacity: 2, without: Some(rule), ..PLAIN }.breaks();
    }
    Setting { units: [2, 2], capacity: 2, without: Some(Rule::SenderLock), ..PLAIN }.breaks();
    Setting { units: [2, 2], without: Some(Rule::AnnounceFirst), ..PLAIN }.breaks();
    Setting { batch: 2, without: Some(Rule::CorrectCount), ..PLAIN }.breaks();
}

#[test]
fn spare_checks_save_work_only() {
    for spare in [Spare::EarlyClose, Spare::RingEmpty, Spare::FirstCount] {
        Setting { skipped: Some(spare), batch: 2, ..PLAIN }.holds();
        Setting { skipped: Some(spare), units: [2, 1], capacity: 2, ..PLAIN }.holds();
        Setting { skipped: Some(spare), kernel_room: 1, batch: 2, ..PLAIN }.holds();
    }
}
