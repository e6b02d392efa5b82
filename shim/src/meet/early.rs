//! The early meeting, for `ACCEL_LOCAL_AFTER=0`: rings from the first byte on.
//!
//! A listener has a mailbox ([`driver::meeting::Mailbox`]). Before a connector connects it leaves memory there, under
//! its socket's cookie, and is live from then on: nothing has been sent, so there is nothing to count, and no
//! thread is inside the kernel. Both directions stay closed until the acceptor has come. The acceptor takes the
//! memory out when it accepts, and commits before its first data call, however much was sent until then. Where he
//! finds none (another process got the mailbox, or nobody has one), both meet by the door as always: a connector that
//! finds the door open takes its invitation back.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use driver::cards::{Path, flag};
use driver::channel::Channel;
use driver::clock::monotonic_ns;
use driver::meeting::{Address, Mailbox, Tuple, invite as leave_memory};
use libc::c_int;
use rows::reasons::Reason;

use super::{Meeting, Stage, check_options, discard, drop_stage, make_offer};
use crate::config::config;
use crate::fdtable::{self, Entry, Name};
use crate::lock::Lock;
use crate::slot::{Both, Socket, State};
use crate::{family, nagle};

/// Calls of a connector after which it takes its invitation back: more than the kernel keeps for an acceptor that
/// has not read yet.
const CALLS_UNTIL: u32 = 1 << 16;

/// The listeners of this process, each with its mailbox; `None` is one that could not be had.
static MAILBOXES: Lock<Vec<(Name, Option<Mailbox>)>> = Lock::new(Vec::new());

/// Whether this process meets early. Only among programs of one user: when the memory is left, inet_diag cannot
/// tell yet who holds the other end of the TCP connection.
pub(crate) fn is_on() -> bool {
    let config = config();
    config.local_after == 0 && config.local && !config.any_peer && !family::is_inert()
}

/// A socket listens, or its listener is used here: connectors may leave memory for it, if it is ours alone.
pub(crate) fn open_mailbox(listener: &Socket) {
    if !is_on() || !listener.card.is_sole_holder(family::pid()) {
        return;
    }
    let mut all = MAILBOXES.lock();
    if all.iter().any(|(name, _)| *name == listener.name) {
        return;
    }
    let mailbox = Address::of_socket(listener.fd)
        .and_then(|address| Mailbox::open(&address, family::number_floor()))
        .ok();
    if let Some(mailbox) = &mailbox {
        fdtable::set(mailbox.number(), Entry::Internal);
    }
    all.push((listener.name, mailbox));
}

/// The listener's last descriptor goes.
pub(crate) fn close_mailbox(listener: &Socket) {
    if !listener.card.has(flag::LISTENER) {
        return;
    }
    MAILBOXES.lock().retain(|(name, mailbox)| {
        if *name == listener.name
            && let Some(mailbox) = mailbox
        {
            fdtable::take(mailbox.number());
        }
        *name != listener.name
    });
}

/// The program takes the number of a mailbox.
pub(super) fn lose_descriptor(fd: c_int) {
    for (_, mailbox) in MAILBOXES.lock().iter_mut() {
        if mailbox.as_ref().is_some_and(|mailbox| mailbox.number() == fd)
            && let Some(mailbox) = mailbox.take()
        {
            mailbox.lose();
        }
    }
}

/// Before fork: no other thread may hold the list.
pub(crate) fn lock_for_fork() {
    core::mem::forget(MAILBOXES.lock());
}

/// After fork, on both sides.
pub(crate) fn unlock_after_fork() {
    // SAFETY: `lock_for_fork` left it locked by this very thread, or by its image in the parent.
    unsafe { MAILBOXES.unlock_forgotten() };
}

/// In a forked child: the mailboxes are the parent's. Nothing is freed, for another thread of the parent may have
/// held the allocator's lock.
pub(crate) fn leave_to_parent() {
    let all = core::mem::take(&mut *MAILBOXES.lock());
    for mailbox in all.iter().filter_map(|(_, mailbox)| mailbox.as_ref()) {
        fdtable::take(mailbox.number());
        driver::sys::close(mailbox.number());
    }
    core::mem::forget(all);
}

/// Before `connect`: leaves memory for whoever accepts, if the address is that of a listener under accel.
pub(crate) fn invite(socket: &Socket, remote: Address) {
    if !is_on() || !config().carries_to(remote.port()) || socket.slot.state() != State::Candidate {
        return;
    }
    let both = socket.lock_both();
    let fresh = socket.is_current()
        && socket.slot.state() == State::Candidate
        && socket.parts(&both).meeting.is_none()
        && !socket.card.has(flag::ACCEPTED | flag::LISTENER)
        && socket.card.in_kernel.load(SeqCst) == 0
        && socket.card.is_sole_holder(family::pid());
    if !fresh || check_options(socket).is_err() || !family::reserve_memory(config().local_ring) {
        return;
    }
    let Ok(channel) = leave_memory(socket.fd, remote, config().local_ring) else {
        family::return_memory(config().local_ring);
        return;
    };
    // Nothing was sent or read: the counts are those that new memory has.
    channel.commit();
    socket.slot.adopt();
    *socket.parts(&both).channel = Some(channel);
    socket.slot.invited.store(1, SeqCst);
    socket.become_live(&both);
    socket.card.describe(socket.fd, Path::Meeting, Reason::None as u8);
    family::table().count_candidate(socket.card);
}

/// A data call of a connector that has not seen its acceptor yet.
#[cold]
pub(crate) fn attend(socket: &Socket) {
    if socket.slot.owner() != family::pid() {
        // Inherited: whoever uses it takes it to the kernel.
        return;
    }
    let both = socket.lock_both();
    let channel = *socket.parts(&both).channel;
    let Some(channel) = channel.filter(|_| socket.is_current() && socket.is_live()) else { return };
    if channel.peer_committed() {
        join(socket);
        return;
    }
    let calls = socket.slot.messages.fetch_add(1, Relaxed);
    let is_time = calls > 1 && calls.is_power_of_two();
    if calls > CALLS_UNTIL || is_time && family::is_inert() {
        take_back(socket, &both, &channel);
    } else if is_time {
        knock(socket, &both, &channel);
    }
}

/// Whoever found no invitation opens a door: then the meeting goes on there.
fn knock(socket: &Socket, both: &Both, channel: &Channel) {
    let Ok(tuple) = Tuple::of_socket(socket.fd) else { return };
    let mut meeting = Meeting::new(tuple, Stage::Idle);
    if !is_quiet(socket) || !meeting.reserve(config().local_ring) {
        return;
    }
    match make_offer(socket, &mut meeting) {
        Ok(false) => {}
        Ok(true) if take_back(socket, both, channel) => {
            meeting.since_ns = monotonic_ns();
            meeting.since_messages = socket.slot.messages.load(Relaxed);
            *socket.parts(both).meeting = Some(Box::new(meeting));
        }
        Ok(true) => drop_stage(socket, &mut meeting),
        // The steps of a candidate come to the same, and say why.
        Err(_) => {
            take_back(socket, both, channel);
        }
    }
}

/// Whether no thread is in the middle of something.
fn is_quiet(socket: &Socket) -> bool {
    socket.slot.is_unpinned() && socket.card.sleepers.load(SeqCst) == 0
}

/// The acceptor has come. The receive lock is held.
pub(crate) fn join(socket: &Socket) {
    if socket.slot.invited.swap(0, SeqCst) != 0 {
        nagle::rings_came(socket);
        socket.card.describe(socket.fd, Path::Local, Reason::None as u8);
        family::table().count_upgraded();
    }
}

/// Nobody came: a candidate again, if no thread is in the middle of something.
fn take_back(socket: &Socket, both: &Both, channel: &Channel) -> bool {
    if !is_quiet(socket) || !channel.withdraw() {
        return false;
    }
    socket.slot.invited.store(0, SeqCst);
    let parts = socket.parts(both);
    *parts.retired = parts.channel.take();
    socket.back_to_candidate(both);
    true
}

/// A connection was accepted: takes what its connector left.
pub(crate) fn greet(listener: &Socket, accepted: &Socket) {
    if !is_on() {
        return;
    }
    open_mailbox(listener);
    let Ok(tuple) = Tuple::of_socket(accepted.fd) else { return };
    if !config().carries(tuple.local.port, tuple.remote.port) {
        return;
    }
    let found = MAILBOXES.lock().iter_mut().find_map(|(name, mailbox)| match mailbox {
        Some(mailbox) if *name == listener.name => mailbox.take(&tuple),
        _ => None,
    });
    let Some(channel) = found else { return };
    let mut meeting = Meeting::new(tuple, Stage::Invited(channel));
    if !meeting.reserve(channel.capacity()) {
        discard(channel);
        return;
    }
    let both = accepted.lock_both();
    *accepted.parts(&both).meeting = Some(Box::new(meeting));
    accepted.card.describe(accepted.fd, Path::Meeting, Reason::None as u8);
}
