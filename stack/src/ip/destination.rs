//! What was learned about one destination and outlives its connections: the cookie of fast open, and that it does not work
//! there (RFC 7413 §4.1.3).
//!
//! There are as many records as the limits allow; the one that was used longest ago gives way. Everything in them may be
//! forgotten: it is asked for again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Slab, Tag};
use crate::region::table::{Place, Table};
use crate::time::Instant;
use crate::wire::ip::Ip;
use crate::wire::tcp::options::Cookie;

#[cfg(test)]
mod tests;

/// One destination's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Destination {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The destination.
    pub ip: Ip,
    /// Its cookie of fast open.
    pub cookie: [u8; 16],
    /// The peer's MSS of that cookie.
    pub mss: u16,
    /// Bytes of the cookie; 0 is none.
    pub cookie_len: u8,
    /// Times in a row that a SYN with data got no answer, or its data none.
    pub fast_open_failures: u8,
    /// The next destination in the order of use, plus one: the least recent gives way.
    pub next: u32,
    /// The previous one.
    pub previous: u32,
    /// Seconds at which fast open is tried again.
    pub fast_open_again_at: u32,
}

impl Record for Destination {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// Failures that are put down to chance.
const FAILURES_BY_CHANCE: u8 = 1;
/// Seconds for which nothing is tried after the first failure that isn't, half of it; it doubles with each.
const PAUSE_S: u32 = 60;
/// Doublings of that.
const DOUBLINGS_MAX: u8 = 6;

const fn seconds(now: Instant) -> u32 {
    (now.0 / 1_000_000_000) as u32
}

impl Destination {
    /// Its cookie.
    #[must_use]
    pub fn cookie(&self) -> Option<Cookie> {
        let bytes = self.cookie.get(..usize::from(self.cookie_len))?;
        Cookie::new(bytes, false).filter(|cookie| !cookie.as_slice().is_empty())
    }

    /// A cookie was given, by a peer with this MSS.
    pub fn set_cookie(&mut self, cookie: &Cookie, mss: u16) {
        let bytes = cookie.as_slice();
        self.cookie = [0; 16];
        self.cookie[..bytes.len()].copy_from_slice(bytes);
        (self.cookie_len, self.mss) = (bytes.len() as u8, mss);
    }

    /// Whether fast open has failed so often that it isn't tried now.
    ///
    /// RFC 7413 §4.1.3.1: "The client MUST cache negative responses from the server in order to avoid potential connection
    /// failures. Negative responses include the server not acknowledging the data in the SYN, ICMP error messages, and (most
    /// importantly) no response (SYN-ACK) from the server at all, i.e., connection timeout."
    #[must_use]
    pub const fn is_avoided(&self, now: Instant) -> bool {
        self.fast_open_failures > FAILURES_BY_CHANCE
            && self.fast_open_again_at.wrapping_sub(seconds(now)).cast_signed() > 0
    }

    /// It has failed once more.
    pub fn note_failure(&mut self, now: Instant) {
        self.fast_open_failures = self.fast_open_failures.saturating_add(1);
        let pause = PAUSE_S << self.fast_open_failures.min(DOUBLINGS_MAX);
        self.fast_open_again_at = seconds(now).wrapping_add(pause);
    }
}

/// The order of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Order {
    /// The one that was used last, plus one.
    pub newest: u32,
    /// The one that was used longest ago.
    pub oldest: u32,
}

/// The destinations over borrowed records. Hashes are keyed by the region's secret.
#[derive(Debug)]
pub struct Destinations<'a> {
    /// Their slab.
    pub slab: &'a mut Slab,
    /// Their records.
    pub records: &'a mut [Destination],
    /// Their table.
    pub places: &'a mut [Place],
    /// Which gives way.
    pub order: &'a mut Order,
}

impl Destinations<'_> {
    fn find(&mut self, ip: &Ip, hash: u32) -> Option<u32> {
        let records = &*self.records;
        Table::new(self.places)
            .find(hash, |index| records.get(index as usize).is_some_and(|record| record.ip == *ip))
    }

    /// What is known of one.
    #[must_use]
    pub fn of(&mut self, ip: &Ip, hash: u32) -> Option<Destination> {
        let index = self.find(ip, hash)?;
        self.records.get(index as usize).copied()
    }

    /// Changes what is known of one, which is the newest then.
    pub fn change(
        &mut self,
        ip: &Ip,
        hash: u32,
        hash_of: impl Fn(&Ip) -> u32,
        change: impl FnOnce(&mut Destination),
    ) {
        let known = self.find(ip, hash).inspect(|known| self.unlink(*known));
        let Some(index) = known.or_else(|| self.make(ip, hash, hash_of)) else { return };
        self.push(index);
        if let Some(record) = self.records.get_mut(index as usize) {
            change(record);
        }
    }

    /// A record for one that is not known, the oldest one's if none is free.
    fn make(&mut self, ip: &Ip, hash: u32, hash_of: impl Fn(&Ip) -> u32) -> Option<u32> {
        let handle = match self.slab.take(self.records) {
            Some(handle) => handle,
            None => {
                let oldest = self.order.oldest.checked_sub(1)?;
                let old = *self.records.get(oldest as usize)?;
                self.unlink(oldest);
                Table::new(self.places).remove(hash_of(&old.ip), oldest);
                self.slab.give(self.records, old.tag.handle(oldest));
                self.slab.take(self.records)?
            }
        };
        if !Table::new(self.places).insert(hash, handle.index) {
            self.slab.give(self.records, handle);
            return None;
        }
        let record = self.records.get_mut(handle.index as usize)?;
        *record = Destination { tag: record.tag, ip: *ip, ..Destination::default() };
        Some(handle.index)
    }

    fn record(&mut self, name: u32) -> Option<&mut Destination> {
        self.records.get_mut(name.checked_sub(1)? as usize)
    }

    fn unlink(&mut self, index: u32) {
        let Some(Destination { next, previous, .. }) = self.records.get(index as usize).copied() else {
            return;
        };
        match self.record(previous) {
            Some(record) => record.next = next,
            None => self.order.newest = next,
        }
        match self.record(next) {
            Some(record) => record.previous = previous,
            None => self.order.oldest = previous,
        }
    }

    fn push(&mut self, index: u32) {
        let name = index.wrapping_add(1);
        let next = core::mem::replace(&mut self.order.newest, name);
        match self.record(next) {
            Some(record) => record.previous = name,
            None => self.order.oldest = name,
        }
        if let Some(record) = self.record(name) {
            (record.next, record.previous) = (next, 0);
        }
    }

    /// Forgets all of them.
    pub(crate) fn forget(&mut self) {
        self.slab.rebuild(self.records, |_, _| false);
        Table::new(self.places).clear();
        *self.order = Order::default();
    }

    /// Looks at table and order.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(&mut self, hash_of: impl Fn(&Ip) -> u32) -> Result<(), &'static str> {
        let records = &*self.records;
        let found = Table::new(self.places).check(|index| {
            let record = records.get(index as usize).filter(|record| record.tag.is_used())?;
            Some(hash_of(&record.ip))
        })?;
        let (mut at, mut previous, mut count) = (self.order.newest, 0, 0);
        while let Some(record) = at.checked_sub(1).and_then(|at| records.get(at as usize)) {
            if record.previous != previous || count == self.slab.used() {
                return Err("the order of destinations is no list");
            }
            (previous, at, count) = (at, record.next, count + 1);
        }
        let is_whole =
            at == 0 && self.order.oldest == previous && count == self.slab.used() && found == count;
        if is_whole { Ok(()) } else { Err("a destination is in no order, or in no table") }
    }
}
