//! The one-word protocol: how one direction of a connection moves between its ring and the kernel.
//!
//! One word per direction, `tail`: a 62-bit position with the bits CLOSED and REVOKED. CLOSED means that the
//! direction is on the kernel: the state at the start and of every idle connection. Data is its own bell:
//! there is no other signal. Five rules keep the bytes in order and nobody asleep for ever:
//!
//! 1. The sender uses the ring only while the word is open and `ksent == k`; it publishes by compare-and-swap.
//! 2. The sender adds to `ksent` before it sends by the kernel, then reads the word again, and closes it if it
//!    was opened meanwhile.
//! 3. Either side closes alone, by `fetch_or`. Nobody adds to a closed ring, so ring bytes come before kernel
//!    bytes.
//! 4. Only the receiver opens: ring empty, all `ksent` bytes read; it stores `k`, opens, reads `ksent` again
//!    and closes if that moved.
//! 5. Before a receiver sleeps it closes, and reads the tail in the same step; the next message then comes by
//!    the kernel, which wakes it.
//!
//! Dropping any one of them loses order or a wake-up: `search` has an exhaustive search for one sender and one
//! receiver, and the loom models for threads, revocation and death. All operations on these words are
//! sequentially consistent where two words are compared (rules 1, 2, 4).
//!
//! The peer may write anything here at any time. Nothing that is read from these words is used as an index
//! before [`available`] or [`Sending::room`] has bounded it.

#[cfg(not(loom))]
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
#[cfg(loom)]
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
#[cfg(loom)]
use word::AtomicU64;

/// The direction is on the kernel.
pub const CLOSED: u64 = 1 << 63;
/// The direction will never be opened again.
pub const REVOKED: u64 = 1 << 62;
/// The bits of the position.
pub const POSITION: u64 = REVOKED - 1;

/// The words of one direction, each group on its writer's own cache line.
#[repr(C)]
#[derive(Debug)]
pub struct Direction {
    /// Position after the last published byte, with CLOSED and REVOKED. Sender publishes; both close.
    tail: Line,
    /// Position after the last byte that the receiver took. Written by the receiver.
    head: Line,
    /// Bytes that the receiver had read from the kernel when it last opened. Written by the receiver, rarely.
    k: Line,
    /// Bytes that the sender has given, or is just giving, to the kernel. Written by the sender.
    ksent: Line,
    /// Bytes that the receiver has read from the kernel: only tells a sender whether waiting for the ring to be
    /// opened is worth while. Written by the receiver.
    kread: Line,
}

/// One word on a pair of cache lines of its own (adjacent lines are fetched together).
#[repr(C, align(128))]
#[derive(Debug)]
struct Line(AtomicU64);

/// The peer wrote something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation;

/// A reading of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u64);

impl Word {
    /// The position in it.
    #[inline]
    #[must_use]
    pub const fn position(self) -> u64 {
        self.0 & POSITION
    }

    /// Whether senders must use the kernel.
    #[inline]
    #[must_use]
    pub const fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// Whether it is closed for good.
    #[inline]
    #[must_use]
    pub const fn is_revoked(self) -> bool {
        self.0 & REVOKED != 0
    }

    /// An open word, `count` bytes later.
    #[inline]
    #[must_use]
    pub const fn after(self, count: u64) -> Self {
        Self((self.0 + count) & POSITION)
    }

    /// Neither closed nor revoked.
    #[inline]
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.0 & (CLOSED | REVOKED) == 0
    }
}

/// Bytes between two positions, if they can be in a ring of `capacity` bytes.
#[inline]
pub const fn available(tail: u64, head: u64, capacity: u64) -> Result<u64, Violation> {
    let bytes = tail.wrapping_sub(head) & POSITION;
    if bytes <= capacity { Ok(bytes) } else { Err(Violation) }
}

impl Direction {
    /// A direction on the kernel, nothing sent or read yet.
    #[must_use]
    #[cfg_attr(loom, allow(clippy::missing_const_for_fn))]
    pub fn new() -> Self {
        Self {
            tail: Line::new(CLOSED),
            head: Line::new(0),
            k: Line::new(0),
            ksent: Line::new(0),
            kread: Line::new(0),
        }
    }

    /// Reads the word; what it covers is readable after this.
    #[inline]
    pub fn word(&self) -> Word {
        Word(self.tail.0.load(Acquire))
    }

    /// Closes the direction and tells what the word was: all bytes published before are covered by it.
    pub fn close(&self) -> Word {
        Word(self.tail.0.fetch_or(CLOSED, SeqCst))
    }

    /// Closes it for good.
    pub fn revoke(&self) -> Word {
        Word(self.tail.0.fetch_or(CLOSED | REVOKED, SeqCst))
    }

    // ---- the sender's side ----

    /// Whether the ring may be used now (rule 1), and the word to publish against.
    #[inline]
    pub fn sendable(&self) -> Option<Word> {
        let word = Word(self.tail.0.load(SeqCst));
        if !word.is_open() {
            return None;
        }
        if self.ksent.0.load(Relaxed) != self.k.0.load(SeqCst) {
            // Bytes of ours are still in the kernel: what we added here would overtake them.
            self.close();
            return None;
        }
        Some(word)
    }

    /// Free bytes of the ring as seen from `word`.
    #[inline]
    pub fn room(&self, word: Word, capacity: u64) -> Result<u64, Violation> {
        let used = available(word.position(), self.head.0.load(Acquire) & POSITION, capacity)?;
        Ok(capacity - used)
    }

    /// Publishes `count` bytes that were copied behind `word`; false if somebody closed meanwhile, and then
    /// the copy counts for nothing.
    #[inline]
    pub fn publish(&self, word: Word, count: u64) -> bool {
        self.tail.0.compare_exchange(word.0, word.after(count).0, SeqCst, Relaxed).is_ok()
    }

    /// Rule 2: announces `count` bytes before they are given to the kernel, and closes if the receiver opened
    /// meanwhile. Looking only after the call would be too late: a sender that blocks in a full kernel, or is
    /// killed there, would leave a spinning reader on an open, empty ring.
    pub fn kernel_send_begins(&self, count: u64) {
        self.ksent.0.fetch_add(count, SeqCst);
        if Word(self.tail.0.load(SeqCst)).is_open() {
            self.close();
        }
    }

    /// Takes back the announcement of bytes that did not go.
    pub fn kernel_send_ends(&self, announced: u64, sent: u64) {
        if sent < announced {
            self.ksent.0.fetch_sub(announced - sent, SeqCst);
        }
    }

    /// The sender's count of kernel bytes, set once when both ends agree to use the memory.
    pub fn set_kernel_sent(&self, bytes: u64) {
        self.ksent.0.store(bytes, SeqCst);
    }

    /// Bytes given to the kernel, with those being given.
    #[must_use]
    pub fn kernel_sent(&self) -> u64 {
        self.ksent.0.load(Relaxed)
    }

    /// What the receiver last said it has read from the kernel.
    #[must_use]
    pub fn kernel_read(&self) -> u64 {
        self.kread.0.load(Relaxed)
    }

    /// Whether the receiver has taken every published byte.
    #[must_use]
    pub fn is_consumed(&self) -> bool {
        self.head.0.load(Acquire) & POSITION == self.word().position()
    }

    // ---- the receiver's side ----

    /// The receiver's own position.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head.0.load(Relaxed) & POSITION
    }

    /// Gives ring space back: everything before `position` has been taken.
    #[inline]
    pub fn set_head(&self, position: u64) {
        self.head.0.store(position & POSITION, Release);
    }

    /// Rule 4: opens the direction if the ring is empty and every kernel byte has been read (`kread`).
    ///
    /// The caller holds the receive lock and knows that no other thread of its process sleeps on the socket.
    pub fn reopen(&self, kread: u64) -> bool {
        let word = self.word();
        if !word.is_closed() || word.is_revoked() || word.position() != self.head() {
            return false;
        }
        if self.ksent.0.load(SeqCst) != kread {
            return false;
        }
        self.k.0.store(kread, SeqCst);
        let opened = word.0 & POSITION;
        if self.tail.0.compare_exchange(word.0, opened, SeqCst, Relaxed).is_err() {
            return false;
        }
        if self.ksent.0.load(SeqCst) != kread {
            self.close();
            return false;
        }
        true
    }

    /// Tells the sender how far the kernel's bytes have been read.
    pub fn publish_kernel_read(&self, bytes: u64) {
        self.kread.0.store(bytes, Relaxed);
    }

    /// Whether every byte that the sender gave to the kernel has been read.
    pub fn kernel_is_drained(&self, kread: u64) -> bool {
        self.ksent.0.load(SeqCst) == kread
    }
}

impl Default for Direction {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
}

#[cfg(all(test, not(loom)))]
mod search;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;

#[cfg(loom)]
mod word;
