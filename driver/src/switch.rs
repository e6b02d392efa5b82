//! The one-word protocol: how one direction of a connection moves between its ring and the kernel.
//!
//! One word per direction, `tail`: a 62-bit position with the bits CLOSED and REVOKED. CLOSED means that the
//! direction is on the kernel: the state at the start and of every idle connection. Data is its own bell:
//! there is no other signal. Six rules keep the bytes in order and nobody asleep for ever:
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
//! 6. Before the sender gives bytes to the kernel, and before it ends the stream, it takes back what lies unread
//!    in the ring and gives the kernel that first, if it has room and nothing went there since the ring was
//!    opened. The receiver moves `head` by compare-and-swap, so that each byte has one taker. What is unread is
//!    then in order in one place, where a program that knows nothing of rings finds it too.
//!
//! Dropping any one of them loses order, bytes or a wake-up: `search` has an exhaustive search for one sender and one
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
/// In `head`: the sender took back what lies from there on, and it comes by the kernel. The receiver clears it when it
/// has read that.
const TAKEN: u64 = 1 << 63;
/// In `head`: the receiver hands bytes on, and does not know yet how many will go.
const HELD: u64 = 1 << 62;

/// The words of one direction, each group on its writer's own cache line.
#[repr(C)]
#[derive(Debug)]
pub struct Direction {
    /// Position after the last published byte, with CLOSED and REVOKED. Sender publishes; both close.
    tail: Line,
    /// Position after the last byte that somebody took, with TAKEN and HELD. The receiver takes; the sender takes
    /// back (rule 6).
    head: Line,
    /// Bytes that the receiver had read from the kernel when it last opened. Written by the receiver, rarely.
    k: Line,
    /// Bytes that the sender has given, or is just giving, to the kernel. Written by the sender.
    ksent: Line,
    /// Bytes that the receiver has read from the kernel: only tells a sender whether waiting for the ring to be
    /// opened is worth while. Written by the receiver.
    kread: Line,
    /// Bytes that the sender had given to the kernel when it last took back what was unread. Written by the
    /// sender.
    base: Line,
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
            base: Line::new(0),
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

    /// Rule 6: takes back what is unread: from this position on, so many bytes. The receiver gets none of them
    /// from the ring any more. `None`: there is nothing, or the receiver holds it.
    ///
    /// The caller holds the send lock and has closed the direction, so nothing is added meanwhile; and it is not
    /// opened either, because the ring is not empty.
    pub fn take_back(&self, capacity: u64) -> Option<(u64, u64)> {
        let tail = self.word().position();
        let mut head = self.head.0.load(Acquire);
        if head & TAKEN == 0 {
            // The receiver counts from here if it finds the bytes taken.
            self.base.0.store(self.ksent.0.load(Relaxed), SeqCst);
        }
        loop {
            let bytes = available(tail, head & POSITION, capacity).ok()?;
            if bytes == 0 || head & (TAKEN | HELD) != 0 {
                return None;
            }
            match self.head.0.compare_exchange(head, head | TAKEN, SeqCst, Acquire) {
                Ok(_) => return Some((head, bytes)),
                Err(moved) => head = moved,
            }
        }
    }

    /// Whether nothing went by the kernel since the ring was opened: only then may what is unread go there and
    /// still be in order. (What the kernel refused before must not come behind what it took later.)
    pub fn nothing_follows(&self) -> bool {
        self.ksent.0.load(Relaxed) == self.k.0.load(SeqCst)
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

    /// The receiver's own position. It is read before the word: the sender may move it, up to a word that it has
    /// published before, and a word that was read first may be older than that.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head.0.load(Acquire) & POSITION
    }

    /// The same, if what lies from there on is the receiver's to take. A copy of what comes by the kernel would write
    /// into the caller's buffer what the call does not return.
    #[inline]
    pub fn head_to_take(&self) -> Option<u64> {
        let head = self.head.0.load(Acquire);
        (head & (TAKEN | HELD) == 0).then_some(head)
    }

    /// Whether bytes lie unread, or were taken back and not read from the kernel yet. (Between the sender's call and
    /// the receiver's queue they are nowhere to be seen, but what was readable stays so.)
    #[inline]
    #[must_use]
    pub fn is_unread(&self) -> bool {
        let head = self.head();
        self.word().position() != head
    }

    /// Takes `count` bytes that were copied out at `head`, and gives their space back; false if the sender took
    /// them back meanwhile, and then the copy counts for nothing. The caller holds the receive lock.
    #[inline]
    #[must_use]
    pub fn take(&self, head: u64, count: u64) -> bool {
        self.head.0.compare_exchange(head, (head + count) & POSITION, Release, Relaxed).is_ok()
    }

    /// Whether the sender took back what is unread, and nobody here has read all of it from the kernel.
    pub fn is_taken_back(&self) -> bool {
        self.head.0.load(Acquire) & TAKEN != 0
    }

    /// Keeps the sender from taking back, while bytes from `head` on go where only the result tells how many
    /// went. [`Self::let_go`] ends it. False if the sender was first.
    #[must_use]
    pub fn hold(&self, head: u64) -> bool {
        self.head.0.compare_exchange(head, head | HELD, SeqCst, Relaxed).is_ok()
    }

    /// Everything before `position` went.
    pub fn let_go(&self, position: u64) {
        self.head.0.store(position & POSITION, Release);
    }

    /// The caller holds the receive lock, so who else holds bytes died while it did: they are to be had again.
    pub fn forget_holder(&self) {
        let head = self.head.0.load(Acquire);
        if head & (TAKEN | HELD) == HELD {
            self.let_go(head);
        }
    }

    /// Bytes that were taken back and are still to be read from the kernel, of which `kread` were read. `None`: nothing
    /// was taken back.
    pub fn coming(&self, kread: u64, capacity: u64) -> Option<u64> {
        let head = self.head.0.load(Acquire);
        if head & TAKEN == 0 {
            return None;
        }
        let unread = available(self.word().position(), head & POSITION, capacity).ok()?;
        let read = kread.saturating_sub(self.base.0.load(SeqCst));
        Some(unread.saturating_sub(read))
    }

    /// Bytes that lie unread in the ring, or were taken back and not read from the kernel yet, as far as the receiver
    /// has published that.
    #[must_use]
    pub fn unread(&self, capacity: u64) -> u64 {
        let kread = self.kread.0.load(Relaxed);
        self.coming(kread, capacity).unwrap_or_else(|| {
            let head = self.head();
            available(self.word().position(), head, capacity).unwrap_or(0)
        })
    }

    /// So many kernel bytes have been read, which the sender is told. The caller holds the receive lock.
    pub fn kernel_was_read(&self, kread: u64, capacity: u64) {
        self.kread.0.store(kread, Relaxed);
        if self.coming(kread, capacity) == Some(0) {
            self.head.0.store(self.word().position(), Release);
        }
    }

    /// The stream has ended, after `kread` kernel bytes, and its sender died while it gave the kernel what it had
    /// taken back: what it did not get to is the receiver's again. False if that is not so.
    pub fn recover(&self, kread: u64, capacity: u64) -> bool {
        let Some(left) = self.coming(kread, capacity) else { return false };
        self.head.0.store(self.word().position().wrapping_sub(left) & POSITION, Release);
        true
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
