//! The short way of a receive: one plain buffer, and bytes in the ring, now or while the thread spins.

use core::sync::atomic::Ordering::Relaxed;

use driver::cards::bump;
use driver::channel::Channel;
use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::switch::available;
use libc::c_int;

use super::{LOOK_USEC, drain, kernel_has_something, mark};
use crate::buffers::can_be_buffer;
use crate::config::config;
use crate::slot::{Pin, Socket};
use crate::spin::Watch;
use crate::{family, guard, spin};

/// So many waits in a row that were shorter than this are a stream.
const SHORT_USEC: u64 = 2;
const STREAM_WAITS: u32 = 32;
/// A pause must bring so many times what a look at once would have.
const WORTH_A_PAUSE: u64 = 4;

/// What the short way came to.
pub(crate) enum Quick {
    /// So many bytes.
    Done(usize),
    /// The open ring stayed empty while the thread spun.
    Spun,
    /// Nothing was done.
    No,
}

/// The common case, on its own because it must be short: one plain buffer, and enough bytes in the ring, now or
/// while the thread spins.
///
/// # Safety
/// The buffer is the caller's promise, as with recv(2).
#[inline]
pub(crate) unsafe fn quickly(socket: &Socket, buffer: *mut u8, length: usize, flags: c_int) -> Quick {
    if socket.slot.owner() != family::pid() || length == 0 || !can_be_buffer(buffer.cast(), length) {
        return Quick::No;
    }
    let held = socket.lock_receive();
    let Some(channel) = socket.plain_channel(&held) else { return Quick::No };
    // SAFETY: the caller's contract.
    match unsafe { take(socket, channel, buffer, length) } {
        Taken::Bytes(count) => {
            spin::record_ready();
            Quick::Done(count)
        }
        Taken::Nothing(head) if socket.may_block(flags) => {
            let channel = *channel;
            let pin = socket.pin();
            drop(held);
            // SAFETY: the caller's contract.
            unsafe { spin_and_take(socket, &channel, head, pin, buffer, length) }
        }
        Taken::Nothing(_) | Taken::No => Quick::No,
    }
}

enum Taken {
    Bytes(usize),
    /// The ring is open and empty at this position.
    Nothing(u64),
    No,
}

/// Takes ring bytes if they fill the buffer, or are all there can be. The receive lock is held.
///
/// # Safety
/// The buffer is writable for `length` bytes.
#[inline(always)]
unsafe fn take(socket: &Socket, channel: &Channel, buffer: *mut u8, length: usize) -> Taken {
    let incoming = channel.incoming();
    let Some(head) = incoming.head_to_take() else { return Taken::No };
    let word = incoming.word();
    let Ok(count) = available(word.position(), head, channel.capacity() as u64) else { return Taken::No };
    let count = count as usize;
    if !word.is_open() && (count < length || mark::is_marked(socket)) {
        return Taken::No;
    }
    if count == 0 {
        return Taken::Nothing(head);
    }
    let count = count.min(length);
    let taken = drain(socket, channel, head, count, |position, offset, length| {
        // SAFETY: the caller's contract; `available` bounded the count by the ring.
        unsafe { channel.incoming_ring().read(position, buffer.add(offset), length) }
    });
    if taken.count == 0 { Taken::No } else { Taken::Bytes(taken.count) }
}

/// Spins on the open, empty ring, and takes what comes.
///
/// # Safety
/// As [`quickly`].
#[inline(never)]
unsafe fn spin_and_take(
    socket: &Socket,
    channel: &Channel,
    head: u64,
    _pin: Pin,
    buffer: *mut u8,
    length: usize,
) -> Quick {
    let started = ticks();
    let timeout = u64::from(socket.slot.receive_timeout_us.load(Relaxed));
    match spin_for_bytes(socket, channel, head, timeout) {
        spin::End::Ready => {}
        spin::End::Expired => return Quick::Spun,
        spin::End::Signal => return Quick::No,
    }
    let pause = config().local_coalesce_nsec;
    if pause != 0 && streams(socket, started) {
        coalesce(socket, channel, head, pause);
    }
    let held = socket.lock_receive();
    let Some(channel) = socket.plain_channel(&held) else { return Quick::No };
    // SAFETY: the caller's contract.
    match unsafe { take(socket, channel, buffer, length) } {
        Taken::Bytes(count) => {
            // What is left in the ring came while this thread waited, as well.
            let came = channel.incoming().word().position().wrapping_sub(head);
            drop(held);
            spin::record_bytes(started, came);
            Quick::Done(count)
        }
        Taken::Nothing(_) | Taken::No => Quick::No,
    }
}

/// Whether this end only listens, to one who hardly ever lets it wait: then its looks cost the sender more than they
/// bring. Not for a reader that sends as well: somebody waits for its answers.
fn streams(socket: &Socket, started: u64) -> bool {
    let slot = &socket.slot;
    let sends = socket.card.counters.ring_sends.load(Relaxed);
    if slot.sends_seen.load(Relaxed) != sends {
        slot.sends_seen.store(sends, Relaxed);
        slot.short_waits.store(0, Relaxed);
        return false;
    }
    let was_short = ticks().wrapping_sub(started) < SHORT_USEC * ticks_per_usec();
    let waits = if was_short { slot.short_waits.load(Relaxed).saturating_add(1) } else { 0 };
    slot.short_waits.store(waits, Relaxed);
    waits >= STREAM_WAITS
}

/// Leaves the sender alone for a moment: while the reader does not look, the sender keeps the word's cache line
/// and its messages cost a third.
#[cold]
fn coalesce(socket: &Socket, channel: &Channel, head: u64, pause_nsec: u64) {
    let came = || channel.incoming().word().position().wrapping_sub(head);
    let (limit, start, before) = (pause_nsec * ticks_per_usec() / 1000, ticks(), came());
    while ticks().wrapping_sub(start) < limit && !guard::signals_pending() {
        core::hint::spin_loop();
    }
    if came() < before.saturating_mul(WORTH_A_PAUSE) {
        socket.slot.short_waits.store(0, Relaxed);
    }
}

/// Spins until the direction's word moves on from `seen`, or closes.
pub(super) fn spin_for_bytes(socket: &Socket, channel: &Channel, seen: u64, timeout_us: u64) -> spin::End {
    channel.publish_cpu(current_cpu());
    let mut budget = spin::budget(config().spin_recv);
    if timeout_us != 0 {
        budget = budget.min(timeout_us * ticks_per_usec());
    }
    let incoming = channel.incoming();
    let end = Watch {
        budget,
        peer_cpu: || channel.peer_cpu(),
        ready: || {
            let word = incoming.word();
            !word.is_open() || word.position() != seen
        },
        // A killed peer shows only in the kernel.
        look: || {
            let something = kernel_has_something(socket.fd);
            if something {
                incoming.close();
            }
            something
        },
        look_usec: LOOK_USEC,
    }
    .run();
    let counters = &socket.card.counters;
    if budget != 0 {
        bump(if end == spin::End::Ready { &counters.spins_won } else { &counters.spins_lost }, 1);
    }
    end
}
