//! What a dump sees of a device: copies of packets in a ring of words that tools read while the stack works.
//!
//! The device writes, under the stack's lock, so there is one writer at a time; readers take no lock, and are not waited for. While nobody
//! reads, a packet costs the load of one word. A reader says until when it wants packets, and says so again and again: of one that was
//! killed nothing is left.
//!
//! ```text
//! head   until  snap  begun  written            until when packets are wanted, in nanoseconds; bytes of each; positions, in words
//! ring   time  lengths  bytes…  time  lengths  bytes…
//! ```
//! `begun` says what may be overwritten already, `written` what is complete. A writer that dies in between has written nothing, and the
//! next one writes there.

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Words of the head.
pub const HEAD: usize = 4;
/// Of the head: until when, how many bytes of each packet, and the two positions.
const UNTIL: usize = 0;
const SNAP: usize = 1;
const BEGUN: usize = 2;
const WRITTEN: usize = 3;
/// Words of a record before its bytes.
const RECORD: u64 = 2;
/// The bit of a record's lengths that says that the packet was sent.
const SENT: u64 = 1 << 63;
const WORD: usize = size_of::<u64>();

/// The words of a region that are for this.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    head: &'a [AtomicU64; HEAD],
    ring: &'a [AtomicU64],
}

/// A packet, of which the first bytes were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, in nanoseconds of the device's clock.
    pub at: u64,
    /// Whether it was sent; otherwise it was received.
    pub is_sent: bool,
    /// Bytes that it had.
    pub len: u32,
    /// Bytes of it that were copied.
    pub captured: u32,
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Nothing,
    /// A packet.
    Packet(Seen),
    /// Packets were overwritten before they were read: reading goes on with the next one.
    Lost,
}

impl<'a> Tap<'a> {
    /// Over these words; `None` where a region has none.
    #[must_use]
    pub fn new(head: &'a [AtomicU64], ring: &'a [AtomicU64]) -> Option<Self> {
        let head = head.first_chunk()?;
        (!ring.is_empty()).then_some(Self { head, ring })
    }

    fn word(&self, position: u64) -> &'a AtomicU64 {
        // It isn't empty, and the remainder is below its length.
        &self.ring[(position % self.ring.len() as u64) as usize]
    }

    /// Whether somebody wants packets, or wanted some not long ago.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.head[UNTIL].load(Ordering::Relaxed) != 0
    }

    /// Copies a packet for those who want it. Only the device does, under the stack's lock.
    pub fn record<'p>(&self, now: u64, is_sent: bool, pieces: impl Iterator<Item = &'p [u8]> + Clone) {
        let until = self.head[UNTIL].load(Ordering::Relaxed);
        if now > until {
            let _ = self.head[UNTIL].compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return;
        }
        let len = pieces.clone().map(<[u8]>::len).sum::<usize>();
        let most = self.head[SNAP].load(Ordering::Relaxed).min(self.ring.len() as u64 / 2 * WORD as u64);
        let captured = len.min(most as usize);
        let at = self.head[WRITTEN].load(Ordering::Relaxed);
        let words = RECORD + captured.div_ceil(WORD) as u64;
        self.head[BEGUN].store(at.wrapping_add(words), Ordering::Relaxed);
        fence(Ordering::Release);
        let lengths = captured as u64 | (len as u64 & 0x7fff_ffff) << 32 | if is_sent { SENT } else { 0 };
        self.word(at).store(now, Ordering::Relaxed);
        self.word(at.wrapping_add(1)).store(lengths, Ordering::Relaxed);
        let mut to = at.wrapping_add(RECORD);
        let mut bytes = pieces.flatten().take(captured);
        while let Some(first) = bytes.next() {
            let mut word = [0; WORD];
            word[0] = *first;
            word[1..].iter_mut().zip(bytes.by_ref()).for_each(|(to, byte)| *to = *byte);
            self.word(to).store(u64::from_ne_bytes(word), Ordering::Relaxed);
            to = to.wrapping_add(1);
        }
        self.head[WRITTEN].store(at.wrapping_add(words), Ordering::Release);
    }

    /// Wants packets until then, in nanoseconds of the device's clock, and so many bytes of each. The largest wish of all readers counts.
    pub fn want(&self, until: u64, snap: u32) {
        self.head[SNAP].fetch_max(snap.into(), Ordering::Relaxed);
        self.head[UNTIL].fetch_max(until, Ordering::Relaxed);
    }

    /// Where what is recorded from now on begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.head[WRITTEN].load(Ordering::Acquire)
    }

    /// The packet at this position, its bytes into `to` as far as there is room; the position is then the next one's. Nothing of what
    /// is read is believed.
    pub fn read(&self, position: &mut u64, to: &mut [u8]) -> Next {
        let (at, end) = (*position, self.end());
        let there = end.wrapping_sub(at);
        if there == 0 {
            return Next::Nothing;
        }
        let found = self.copy(at, there, to);
        fence(Ordering::Acquire);
        let begun = self.head[BEGUN].load(Ordering::Relaxed);
        let is_whole = begun.wrapping_sub(at) <= self.ring.len() as u64;
        match found.filter(|_| is_whole) {
            Some((seen, words)) => {
                *position = at.wrapping_add(words);
                Next::Packet(seen)
            }
            None => {
                *position = self.end();
                Next::Lost
            }
        }
    }

    /// A record, and its words; none if it can't be one.
    fn copy(&self, at: u64, there: u64, to: &mut [u8]) -> Option<(Seen, u64)> {
        if !(RECORD..=self.ring.len() as u64).contains(&there) {
            return None;
        }
        let load = |position: u64| self.word(position).load(Ordering::Relaxed);
        let lengths = load(at.wrapping_add(1));
        let (captured, len) = (lengths as u32, (lengths >> 32) as u32 & 0x7fff_ffff);
        let words = RECORD + u64::from(captured).div_ceil(WORD as u64);
        if words > there {
            return None;
        }
        let captured = captured.min(to.len() as u32);
        for (chunk, position) in to[..captured as usize].chunks_mut(WORD).zip(at.wrapping_add(RECORD)..) {
            let word = load(position).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Some((Seen { at: load(at), is_sent: lengths & SENT != 0, len, captured }, words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<const N: usize>() -> [AtomicU64; N] {
        [const { AtomicU64::new(0) }; N]
    }

    #[test]
    fn packets_are_read_as_they_were_recorded() {
        let (head, ring) = (words::<HEAD>(), words::<64>());
        let tap = Tap::new(&head, &ring).expect("words");
        let (mut at, mut to) = (tap.end(), [0; 100]);
        assert!(!tap.is_on());
        tap.record(5, true, [&b"nobody wants it"[..]].into_iter());
        assert_eq!(tap.read(&mut at, &mut to), Next::Nothing);
        tap.want(1000, 20);
        for round in 0..40u64 {
            let bytes: Vec<u8> = (0..round as u8).collect();
            let (one, other) = bytes.split_at(bytes.len() / 3);
            tap.record(round, round % 2 == 0, [one, other].into_iter());
            let captured = (round as u32).min(20);
            let seen = Seen { at: round, is_sent: round % 2 == 0, len: round as u32, captured };
            assert_eq!(tap.read(&mut at, &mut to), Next::Packet(seen));
            assert_eq!(to[..captured as usize], bytes[..captured as usize]);
            assert_eq!(tap.read(&mut at, &mut to), Next::Nothing);
        }
        tap.record(1001, true, [&b"too late"[..]].into_iter());
        assert!(!tap.is_on() && tap.read(&mut at, &mut to) == Next::Nothing);
    }

    #[test]
    fn who_is_too_slow_is_told_and_goes_on() {
        let (head, ring) = (words::<HEAD>(), words::<16>());
        let tap = Tap::new(&head, &ring).expect("words");
        tap.want(u64::MAX, 1000);
        let (mut at, mut to) = (tap.end(), [0; 100]);
        for _ in 0..5 {
            tap.record(1, false, [&[7; 16][..]].into_iter());
        }
        assert_eq!(tap.read(&mut at, &mut to), Next::Lost);
        assert_eq!(tap.read(&mut at, &mut to), Next::Nothing);
        // No packet takes more than half of the ring.
        tap.record(2, false, [&[8; 500][..]].into_iter());
        let seen = Seen { at: 2, is_sent: false, len: 500, captured: 64 };
        assert_eq!(tap.read(&mut at, &mut to), Next::Packet(seen));
        assert_eq!(to[..64], [8; 64]);
    }

    #[test]
    fn a_ring_with_any_words_is_read_without_harm() {
        let (head, ring) = (words::<HEAD>(), words::<16>());
        let tap = Tap::new(&head, &ring).expect("words");
        let mut random = 1u64;
        for _ in 0..10_000 {
            for word in head.iter().chain(&ring) {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.store(random >> (random & 63), Ordering::Relaxed);
            }
            let (mut at, mut to) = (random >> 7, [0; 64]);
            let _ = tap.read(&mut at, &mut to);
            tap.record(random >> 20, true, [&[1; 33][..]].into_iter());
        }
        assert!(Tap::new(&head, &[]).is_none() && Tap::new(&head[..3], &ring).is_none());
    }
}
