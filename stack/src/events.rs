//! Readiness of a socket: one word in the shared part, which the lock's holder writes and anybody reads.
//!
//! | bits | what |
//! |---|---|
//! | 0–6 | what is ready now: [`READABLE`], [`WRITABLE`], [`FAILED`], [`HUNG_UP`], [`READ_HUNG_UP`], [`URGENT`], [`URGENT_AHEAD`] |
//! | 7 | [`GONE`] |
//! | 8–35 | how often something arrived: EPOLLIN's edges |
//! | 36–63 | how often it became possible to send: EPOLLOUT's edges |
//!
//! A waiter keeps the counts that it has seen. They come round after 2²⁸ edges, which nobody sleeps through.

use core::sync::atomic::{AtomicU64, Ordering};

pub mod log;

/// Text, the peer's FIN, a connection to accept, or an error can be taken.
pub const READABLE: u64 = 1;
/// There is room to send.
pub const WRITABLE: u64 = 1 << 1;
/// An error waits.
pub const FAILED: u64 = 1 << 2;
/// Both directions have ended.
pub const HUNG_UP: u64 = 1 << 3;
/// The peer sends no more.
pub const READ_HUNG_UP: u64 = 1 << 4;
/// Urgent data waits.
pub const URGENT: u64 = 1 << 5;

/// Urgent data is announced, and was not passed by a read: SIGURG when it appears, and with each arrival meanwhile.
pub const URGENT_AHEAD: u64 = 1 << 6;

/// The connection is about to be the kernel's ([`crate::handover`]), and is it when [`Events::is_at_kernels`]: whoever holds it looks there.
pub const GONE: u64 = 1 << 7;

const STATE: u64 = 0xff;
const IN_SHIFT: u32 = 8;
const OUT_SHIFT: u32 = 36;
const COUNT: u64 = (1 << 28) - 1;

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// What is ready.
    pub ready: u64,
    /// Edges of reading.
    pub arrivals: u32,
    /// Edges of writing.
    pub openings: u32,
}

impl Events {
    /// The kernel has the connection: what is ready is its to say.
    #[must_use]
    pub const fn is_at_kernels(&self) -> bool {
        self.ready & (GONE | READABLE) == GONE | READABLE
    }
}

/// Reads a word.
#[must_use]
pub fn load(word: &AtomicU64) -> Events {
    let word = word.load(Ordering::Acquire);
    let count = |shift: u32| ((word >> shift) & COUNT) as u32;
    Events { ready: word & STATE, arrivals: count(IN_SHIFT), openings: count(OUT_SHIFT) }
}

/// Sets what is ready. `arrived` says that something came that a reader hasn't seen, even if it was readable before
/// (EPOLLET tells each arrival); becoming writable is an edge by itself. Whether a waiter is to look at it.
#[must_use]
pub(crate) fn set(word: &AtomicU64, ready: u64, arrived: bool) -> bool {
    let old = word.load(Ordering::Relaxed);
    let count = |shift: u32, by: bool| ((old >> shift).wrapping_add(by.into()) & COUNT) << shift;
    let opens = ready & !old & WRITABLE != 0;
    let arrivals = count(IN_SHIFT, arrived || ready & !old & (READABLE | FAILED | HUNG_UP) != 0);
    word.store(ready & STATE | arrivals | count(OUT_SHIFT, opens), Ordering::Release);
    arrived || ready & !old & STATE != 0
}

/// Something came that a reader hasn't seen, and nothing stopped being ready; `writable` is asked if there was no room to send.
/// Whether a waiter is to look at it.
#[inline]
#[must_use]
pub(crate) fn add(word: &AtomicU64, arrived: bool, writable: impl FnOnce() -> bool) -> bool {
    let old = word.load(Ordering::Relaxed);
    if old & WRITABLE == 0 && writable() {
        return set(word, old & STATE | WRITABLE | if arrived { READABLE } else { 0 }, arrived);
    }
    if arrived {
        let arrivals = (old >> IN_SHIFT).wrapping_add(1) & COUNT;
        word.store(old & !(COUNT << IN_SHIFT) | arrivals << IN_SHIFT | READABLE, Ordering::Release);
    }
    arrived
}

/// There is nothing to read any more.
#[inline]
pub(crate) fn end_readable(word: &AtomicU64) {
    word.store(word.load(Ordering::Relaxed) & !READABLE, Ordering::Release);
}

/// Another socket has the word from now on: nothing is ready, and its counts go on.
pub(crate) fn clear(word: &AtomicU64) {
    word.store(word.load(Ordering::Relaxed) & !STATE, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_arrival_is_an_edge_and_each_opening_one() {
        let word = AtomicU64::new(0);
        let _ = set(&word, WRITABLE, false);
        let _ = set(&word, WRITABLE | READABLE, true);
        let _ = set(&word, WRITABLE | READABLE, true);
        assert_eq!(load(&word), Events { ready: WRITABLE | READABLE, arrivals: 2, openings: 1 });
        let _ = set(&word, 0, false);
        let _ = set(&word, WRITABLE, false);
        assert_eq!(load(&word), Events { ready: WRITABLE, arrivals: 2, openings: 2 });
        clear(&word);
        assert_eq!(load(&word), Events { ready: 0, arrivals: 2, openings: 2 });
    }

    #[test]
    fn counts_come_round_without_touching_each_other() {
        let word = AtomicU64::new(!STATE);
        let _ = set(&word, WRITABLE, true);
        assert_eq!(load(&word), Events { ready: WRITABLE, arrivals: 0, openings: 0 });
    }
}
