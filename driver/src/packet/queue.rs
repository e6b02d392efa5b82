//! Packets that wait to be sent by a packet socket: a ring of words, in memory that every process of a stack maps.
//!
//! A packet is a word that says how it is cut, and one for each of its pieces. Three positions, which only grow, say how far it has come:
//!
//! | position | moved by | what is before it |
//! |---|---|---|
//! | `taken` | who has the stack's lock | is the stack's again |
//! | `sent` | the sender ([`super::sender`]) | was copied by the kernel |
//! | `queued` | who has the stack's lock | is to be sent |
//!
//! A sender that dies after the kernel took a packet and before it said so leaves it to the next, who sends it once more: nothing is lost.
//! Whatever another process writes here, what is read is bounded by the ring.

use core::sync::atomic::{AtomicU64, Ordering};

use stack::device::{Fragment, FrameIndex};

use super::{Cut, Header, PIECES};
use crate::sys::{self, Errno, Fd};
use crate::xdp::umem::Mapping;

/// Words of the ring: a power of two.
const WORDS: u64 = 8192;
/// Where the positions and the sender's word are, each in a cache line of its own, in words.
const QUEUED: usize = 0;
const TAKEN: usize = 8;
const SENT: usize = 16;
const SENDER: usize = 24;
const LOST: usize = 32;
const REFUSED: usize = 40;
/// Where the ring begins.
const RING: usize = 64;
/// Bytes of all.
const LENGTH: usize = (RING + WORDS as usize) * 8;
/// The word is a packet's first.
const FIRST: u64 = 1 << 63;
/// What the memory is called in /proc/PID/maps.
const NAME: &core::ffi::CStr = c"accel-packets";

/// The queue, mapped.
#[derive(Debug)]
pub struct Queue(Mapping);

/// The packet that is to be sent next.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) header: Header,
    pub(super) pieces: [Fragment; PIECES],
    pub(super) count: usize,
}

impl Next {
    /// Whether the kernel makes several segments of it.
    pub(super) const fn is_cut(&self) -> bool {
        self.header.gso_size != 0
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The kernel has it.
    Sent,
    /// It is lost, as packets are.
    Lost,
    /// The kernel doesn't take such packets.
    Refused,
}

/// Memory for a queue, which is empty: all bytes are zero.
///
/// # Errors
/// What memfd_create(2) says.
pub fn memory() -> sys::Result<Fd> {
    let file = sys::memfd_create(NAME, libc::MFD_CLOEXEC)?;
    sys::ftruncate(&file, LENGTH)?;
    Ok(file)
}

const fn word_of(piece: &Fragment) -> u64 {
    (piece.frame.0 as u64) << 32 | (piece.offset as u64) << 16 | piece.len as u64
}

const fn piece_of(word: u64) -> Fragment {
    Fragment { frame: FrameIndex((word >> 32) as u32), offset: (word >> 16) as u16, len: word as u16 }
}

/// FIRST, how it is cut (3 bits), pieces (7), bytes of headers (9), the checksum's start (8) and offset (8), segment size (16).
const fn first_of(header: &Header, count: usize) -> u64 {
    FIRST
        | (header.kind as u64) << 48
        | (count as u64 & 0x7f) << 41
        | (header.head_len as u64 & 0x1ff) << 32
        | (header.csum_start as u64 & 0xff) << 24
        | (header.csum_offset as u64 & 0xff) << 16
        | header.gso_size as u64
}

const fn header_of(word: u64) -> (Header, usize) {
    let cut = match (word >> 48) & 7 {
        1 => Cut::TcpV4,
        4 => Cut::TcpV6,
        5 => Cut::Udp,
        _ => Cut::None,
    };
    let (count, head_len) = ((word >> 41) as usize & 0x7f, (word >> 32) as u16 & 0x1ff);
    let at = ((word >> 24) as u16 & 0xff, (word >> 16) as u16 & 0xff);
    let header = match cut {
        Cut::None => Header::whole(head_len),
        cut => Header::cut(cut, word as u16, head_len, at),
    };
    (header, count)
}

impl Queue {
    /// Maps a queue.
    ///
    /// # Errors
    /// EINVAL when the file is too short; what mmap(2) says.
    pub fn map(file: &Fd) -> sys::Result<Self> {
        Mapping::new(file)
            .and_then(|all| if all.length() < LENGTH { Err(Errno(libc::EINVAL)) } else { Ok(Self(all)) })
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        self.0.word(at.min(LENGTH / 8 - 1))
    }

    #[inline]
    fn entry(&self, position: u64) -> &AtomicU64 {
        self.word(RING + (position & (WORDS - 1)) as usize)
    }

    #[inline]
    fn between(&self, from: usize, to: usize) -> u64 {
        // Acquire: what the other side wrote before it moved its position.
        let to = self.word(to).load(Ordering::Acquire);
        to.wrapping_sub(self.word(from).load(Ordering::Acquire)).min(WORDS)
    }

    /// Pieces that there is room for, if they are one packet's.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        (WORDS - self.between(TAKEN, QUEUED)).saturating_sub(1) as usize
    }

    /// Whether something isn't sent yet.
    #[inline]
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.between(SENT, QUEUED) != 0
    }

    /// Packets that were lost before they were on the link.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.word(LOST).load(Ordering::Relaxed)
    }

    /// Whether the kernel has refused to cut a packet: then it cuts none.
    #[inline]
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.word(REFUSED).load(Ordering::Relaxed) != 0
    }

    /// Adds a packet; false if there is no room. Under the stack's lock.
    #[inline]
    pub(crate) fn push(&self, header: &Header, pieces: &[Fragment]) -> bool {
        if pieces.len() > self.room().min(PIECES) {
            return false;
        }
        let at = self.word(QUEUED).load(Ordering::Relaxed);
        self.entry(at).store(first_of(header, pieces.len()), Ordering::Relaxed);
        for (to, piece) in (1..).zip(pieces) {
            self.entry(at.wrapping_add(to)).store(word_of(piece), Ordering::Relaxed);
        }
        self.word(QUEUED).store(at.wrapping_add(1 + pieces.len() as u64), Ordering::Release);
        true
    }

    /// Takes the names of frames whose bytes were sent; how many they are. Under the stack's lock.
    pub(crate) fn completions(&self, frames: &mut [FrameIndex]) -> usize {
        let (all, begin) = (self.between(TAKEN, SENT), self.word(TAKEN).load(Ordering::Relaxed));
        let (mut at, mut count) = (0, 0);
        while at < all {
            let word = self.entry(begin.wrapping_add(at)).load(Ordering::Relaxed);
            if word & FIRST == 0 {
                let Some(to) = frames.get_mut(count) else { break };
                (*to, count) = (piece_of(word).frame, count + 1);
            }
            at += 1;
        }
        if at != 0 {
            self.word(TAKEN).store(begin.wrapping_add(at), Ordering::Release);
        }
        count
    }

    /// The packet that is to be sent next. Only the sender asks.
    pub(super) fn next(&self) -> Option<Next> {
        let left = self.between(SENT, QUEUED);
        if left == 0 {
            return None;
        }
        let at = self.word(SENT).load(Ordering::Relaxed);
        let (header, count) = header_of(self.entry(at).load(Ordering::Relaxed));
        let count = count.min(left as usize - 1).min(PIECES);
        let mut pieces = [Fragment::default(); PIECES];
        for (from, to) in (1..).zip(&mut pieces[..count]) {
            *to = piece_of(self.entry(at.wrapping_add(from)).load(Ordering::Relaxed));
        }
        Some(Next { header, pieces, count })
    }

    /// The kernel has copied it, or doesn't want it. Only the sender says so.
    pub(super) fn pass(&self, next: &Next, outcome: Outcome) {
        match outcome {
            Outcome::Sent => {}
            Outcome::Lost => drop(self.word(LOST).fetch_add(1, Ordering::Relaxed)),
            Outcome::Refused => self.word(REFUSED).store(1, Ordering::Relaxed),
        }
        let at = self.word(SENT).load(Ordering::Relaxed);
        self.word(SENT).store(at.wrapping_add(1 + next.count as u64), Ordering::Release);
    }

    /// Who sends: a thread's number, or 0.
    pub(super) fn sender(&self) -> &AtomicU64 {
        self.word(SENDER)
    }
}

#[cfg(test)]
mod tests;
