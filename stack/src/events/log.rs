//! Which sockets' words have changed, in the order in which they did: a log that comes round.
//!
//! Whoever waits for many sockets keeps a place in it, and looks at those that were noted since instead of at all of them; so
//! a wait costs what is ready, not what is watched. Who fell behind by the whole log looks at all. The lock's holder alone writes.

use core::sync::atomic::Ordering;

use crate::region::Shared;

/// Entries: a reader that looks once in a burst of this many misses nothing.
pub const ENTRIES: usize = 4096;
/// An entry of a socket of UDP.
const UDP: u64 = 1 << 32;

/// A socket whose word has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The index of its record.
    pub socket: u32,
    /// It is one of UDP.
    pub is_udp: bool,
}

/// There is more than the log holds: any socket may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl Shared<'_> {
    #[inline]
    fn note(&self, entry: u64) {
        let Some(count) = self.changed.first() else { return };
        let at = count.load(Ordering::Relaxed);
        // The same socket again, before anybody else: whoever has not read that far yet finds it there.
        if let Some(place) = self.changes.get(at as usize % ENTRIES) {
            place.store(entry, Ordering::Release);
        }
        count.store(at.wrapping_add(1), Ordering::Release);
    }

    /// Something came to a socket of TCP.
    #[inline]
    pub(crate) fn note_tcp(&self, socket: u32) {
        self.note(socket.into());
    }

    /// Something came to a socket of UDP.
    #[inline]
    pub(crate) fn note_udp(&self, socket: u32) {
        self.note(u64::from(socket) | UDP);
    }

    /// Anything may have come to anybody: every reader falls behind.
    pub(crate) fn note_all(&self) {
        if let Some(count) = self.changed.first() {
            count.store(self.log_end().wrapping_add(ENTRIES as u64 + 1), Ordering::Release);
        }
    }

    /// How many entries were ever written: the place behind the last one.
    #[inline]
    #[must_use]
    pub fn log_end(&self) -> u64 {
        self.changed.first().map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Calls `see` for what was noted from this place on; gives the place behind it.
    ///
    /// # Errors
    /// [`Overrun`] if some of it is written over already; what is noted from now on begins at [`Shared::log_end`], which is to be
    /// asked before all sockets are looked at.
    pub fn log_since(&self, place: u64, mut see: impl FnMut(Changed)) -> Result<u64, Overrun> {
        let end = self.log_end();
        if end.wrapping_sub(place) > ENTRIES as u64 {
            return Err(Overrun);
        }
        let mut at = place;
        while at != end {
            let entry =
                self.changes.get(at as usize % ENTRIES).map_or(0, |entry| entry.load(Ordering::Acquire));
            see(Changed { socket: entry as u32, is_udp: entry & UDP != 0 });
            at = at.wrapping_add(1);
        }
        // Were some of them written over meanwhile?
        if self.log_end().wrapping_sub(place) > ENTRIES as u64 { Err(Overrun) } else { Ok(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::memory::{Memory, TINY};

    #[test]
    fn a_reader_sees_each_change_once_and_in_order() {
        let memory = Memory::new(&TINY);
        let shared = memory.shared();
        let mut place = shared.log_end();
        for round in 0..3000u32 {
            shared.note_tcp(round);
            shared.note_udp(round + 7);
            if round % 100 == 99 {
                let mut seen = Vec::new();
                place = shared.log_since(place, |changed| seen.push(changed)).expect("no overrun");
                assert_eq!(seen.len(), 200);
                assert_eq!(seen[0], Changed { socket: round - 99, is_udp: false });
                assert_eq!(seen[199], Changed { socket: round + 7, is_udp: true });
            }
        }
        assert_eq!(shared.log_since(place, |_| panic!("nothing")), Ok(place));
    }

    #[test]
    fn who_fell_behind_is_told() {
        let memory = Memory::new(&TINY);
        let shared = memory.shared();
        let place = shared.log_end();
        for round in 0..ENTRIES as u32 {
            shared.note_tcp(round);
        }
        assert!(shared.log_since(place, |_| ()).is_ok());
        shared.note_tcp(0);
        assert_eq!(shared.log_since(place, |_| ()), Err(Overrun));
        assert!(shared.log_since(shared.log_end(), |_| panic!("nothing")).is_ok());
    }
}
