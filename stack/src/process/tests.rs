//! Slots, and the bits of holders.

use super::*;
use crate::region::memory::{Memory, TINY};

const fn who(pid: u32) -> Identity {
    Identity { pid, started: 100 + pid as u64, uid: 1000 }
}

#[test]
fn a_process_keeps_its_slot_over_exec_and_a_number_used_again_gets_another() {
    let mut memory = Memory::new(&TINY);
    let mut parts = memory.parts();
    let first = parts.attach_process(&who(7)).expect("room");
    assert_eq!(parts.attach_process(&who(7)), Ok(first), "after exec");
    let again = parts.attach_process(&Identity { started: 999, ..who(7) }).expect("room");
    assert_ne!(first.index, again.index);
    assert_eq!(parts.find_process(7, 999), Some(again));
    assert_eq!(parts.attach_process(&who(0)), Err(Error::Invalid));
    assert_eq!(parts.process(first).expect("there").identity(), Some(who(7)));
    let _ = (parts.attach_process(&who(8)).expect("room"), parts.attach_process(&who(9)).expect("room"));
    assert_eq!(parts.attach_process(&who(10)), Err(Error::NoBuffers), "the limit is four");
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn a_child_holds_what_its_parent_holds_before_it_is_there() {
    let mut memory = Memory::new(&TINY);
    let mut parts = memory.parts();
    let parent = parts.attach_process(&who(7)).expect("room");
    let stranger = parts.attach_process(&who(8)).expect("room");
    let shared = parts.tcp_socket(false, parent.index).expect("room");
    let other = parts.tcp_socket(false, stranger.index).expect("room");
    let datagrams = parts.udp_socket(false, parent.index).expect("room");
    let child = parts.fork_process(parent).expect("room");
    let both = bit(parent.index) | bit(child.index);
    assert_eq!(parts.holders(shared), Ok(both));
    assert_eq!(parts.holders(other), Ok(bit(stranger.index)));
    assert_eq!(parts.udp_sockets[datagrams.index as usize].holders, both);
    assert_eq!(parts.process(child).expect("there").identity(), None);
    // Both may say who it is; nobody else.
    assert_eq!((parts.name_process(child, &who(9)), parts.name_process(child, &who(9))), (Ok(()), Ok(())));
    assert_eq!(parts.name_process(child, &who(10)), Err(Error::AddressInUse));
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn a_message_holds_the_sockets_in_it_until_it_arrives() {
    let mut memory = Memory::new(&TINY);
    let mut parts = memory.parts();
    let [sender, receiver] = [7, 8].map(|pid| parts.attach_process(&who(pid)).expect("room"));
    let socket = parts.tcp_socket(false, sender.index).expect("room");
    let message = parts.expect_process(sender).expect("room");
    assert_eq!(parts.share_socket(socket, receiver, message), Err(Error::BadHandle), "not its own");
    assert_eq!(parts.share_socket(socket, sender, message), Ok(()));
    assert_eq!(parts.take_over(message, receiver), Ok(()));
    assert_eq!(parts.holders(socket), Ok(bit(sender.index) | bit(receiver.index)));
    assert_eq!(parts.take_over(message, receiver), Err(Error::BadHandle), "once");
    assert_eq!(parts.take_over(sender, receiver), Err(Error::Invalid), "a process is no message");
    assert_eq!((parts.slabs.processes.used(), parts.check()), (2, Ok(())));
}

#[test]
fn a_bit_without_a_process_is_found() {
    let mut memory = Memory::new(&TINY);
    let mut parts = memory.parts();
    let process = parts.attach_process(&who(7)).expect("room");
    let socket = parts.tcp_socket(false, process.index + 1).expect("room");
    assert_eq!(parts.check().map_err(|broken| broken.part), Err("tcbs"));
    parts.forget_holders(socket).expect("there");
    assert_eq!(parts.check().map_err(|broken| broken.part), Err("tcbs"), "nobody holds it");
    assert_eq!((parts.tcp_release(socket), parts.check()), (Ok(()), Ok(())));
}
