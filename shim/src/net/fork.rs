//! fork: the child has a slot of its own in every stack, and holds what its parent holds. One for which there is no slot, or that is in
//! another PID namespace, has no part in the stack: who has its lock, and who lives, is known by numbers of processes.

use std::cell::Cell;

use stack::region::slab::Handle;

use super::attach::INTERFACES;
use super::{attach, datagram, options};
use crate::{guard, process};

/// The slots that the child of this thread's fork gets.
struct Expected(Cell<[Option<Handle>; INTERFACES]>);

// SAFETY: it is used between the two ends of a fork, by the thread that holds every lock meanwhile; the child has its own.
unsafe impl Sync for Expected {}

static EXPECTED: Expected = Expected(Cell::new([None; INTERFACES]));

/// Before fork, in the parent.
pub(crate) fn prepare() {
    datagram::lock_for_fork();
    let mut expected = [None; INTERFACES];
    let is_elsewhere = attach::is_on() && process::child_is_elsewhere();
    for interface in attach::interfaces().filter(|_| !is_elsewhere) {
        expected[interface.number as usize % INTERFACES] = interface.engine.expect_child(guard::tid()).ok();
    }
    EXPECTED.0.set(expected);
    options::lock_for_fork();
}

/// After it, in the parent.
pub(crate) fn unlock() {
    options::unlock_after_fork();
    datagram::unlock_after_fork();
}

/// After a fork, in the parent, before that goes on: it may end at once, and the child has its ports.
pub(crate) fn made(child: u32) {
    for interface in attach::interfaces() {
        interface.forked(child);
    }
}

/// After a fork that made no child.
pub(crate) fn failed() {
    let expected = EXPECTED.0.take();
    for interface in attach::interfaces() {
        if let Some(slot) = expected[interface.number as usize % INTERFACES] {
            interface.engine.end_process(guard::tid(), slot);
        }
    }
}

/// In the child.
pub(crate) fn child() {
    unlock();
    let expected = EXPECTED.0.take();
    for interface in attach::interfaces() {
        match expected[interface.number as usize % INTERFACES] {
            Some(slot) => {
                interface.engine.be_child(guard::tid(), slot);
                interface.after_fork();
            }
            None => attach::leave(interface),
        }
    }
}

/// The process ends: what it alone holds is closed.
pub(crate) fn ended() {
    for interface in attach::interfaces() {
        interface.engine.end_process(guard::tid(), interface.engine.process());
    }
}
