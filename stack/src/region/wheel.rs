//! Deadlines of very many records: a hierarchical wheel of intrusive lists.
//!
//! A record has at most one entry, for its earliest deadline. Entries are lazy: a deadline that moves later leaves
//! the entry where it is, and the record is asked again when it fires; only one that moves earlier is put in anew.
//! So an acknowledgement that pushes the retransmission timer away touches nothing here.
//!
//! Four levels of 64 slots, of 2²⁰ ns (about a millisecond) and 64 times as much each: up to 4.8 hours; what is
//! further away waits in the last slot and is put in again. An entry never fires early, and late by less than a slot
//! of the lowest level.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Instant;

const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Nanoseconds of a slot of the lowest level, as a power of two.
const TICK_BITS: u32 = 20;

/// A record's entry. Zero bytes are one that is in no list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Entry {
    /// When it fires, in nanoseconds; two words, so that an entry needs no more than their alignment.
    deadline: [u32; 2],
    /// Neighbours in the list, plus one; 0 is none.
    next: u32,
    previous: u32,
    /// Level and slot, plus one; 0 is no list.
    place: u32,
}

impl Entry {
    fn new(deadline: u64, next: u32, place: u32) -> Self {
        Self { deadline: [deadline as u32, (deadline >> 32) as u32], next, previous: 0, place }
    }

    fn nanoseconds(&self) -> u64 {
        u64::from(self.deadline[0]) | u64::from(self.deadline[1]) << 32
    }

    /// When it fires, if it does.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (self.place != 0).then_some(Instant(self.nanoseconds()))
    }
}

/// A record that has an entry.
pub trait Timed {
    /// Its entry.
    fn entry(&mut self) -> &mut Entry;
}

/// The lists. Zero bytes are an empty wheel.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wheel {
    /// Ticks up to which everything has fired.
    now: u64,
    /// Nothing is due before this tick; zero if that is to be looked up. So a poll that comes too early is one comparison.
    soonest: u64,
    /// Which slots of a level have entries.
    occupied: [u64; LEVELS],
    /// The first entry of each slot, plus one.
    heads: [[u32; SLOTS]; LEVELS],
}

impl Default for Wheel {
    fn default() -> Self {
        Self { now: 0, soonest: 0, occupied: [0; LEVELS], heads: [[0; SLOTS]; LEVELS] }
    }
}

/// The first tick that begins at or after this moment.
const fn tick_of(at: u64) -> u64 {
    (at >> TICK_BITS) + (at & ((1 << TICK_BITS) - 1) != 0) as u64
}

/// When a tick begins, in nanoseconds; the largest number is never.
#[inline]
pub const fn due(tick: u64) -> u64 {
    if tick >> (u64::BITS - TICK_BITS) == 0 { tick << TICK_BITS } else { u64::MAX }
}

impl Wheel {
    /// Puts the record's entry in, or makes an existing one fire at `deadline` at the latest.
    #[inline]
    pub fn arm<R: Timed>(&mut self, records: &mut [R], index: u32, deadline: Instant) {
        let Some(record) = records.get_mut(index as usize) else { return };
        let entry = *record.entry();
        if entry.place != 0 {
            if entry.nanoseconds() <= deadline.0 {
                return;
            }
            self.disarm(records, index);
        }
        self.insert(records, index, deadline.0);
    }

    fn insert<R: Timed>(&mut self, records: &mut [R], index: u32, deadline: u64) {
        let tick = tick_of(deadline).max(self.now.saturating_add(1));
        let (level, slot, due) = self.place_of(tick);
        self.soonest = self.soonest.min(due);
        let head = self.heads[level][slot];
        if let Some(first) = neighbour(records, head) {
            first.previous = index.wrapping_add(1);
        }
        let place = (level * SLOTS + slot) as u32 + 1;
        if let Some(record) = records.get_mut(index as usize) {
            *record.entry() = Entry::new(deadline, head, place);
            self.heads[level][slot] = index + 1;
            self.occupied[level] |= 1 << slot;
        }
    }

    /// The lowest level whose current round reaches `tick`, the slot there, and the tick at which that comes up.
    fn place_of(&self, tick: u64) -> (usize, usize, u64) {
        for level in 0..LEVELS {
            let shift = level as u32 * SLOT_BITS;
            let at = tick >> shift;
            if at.saturating_sub(self.now >> shift) < SLOTS as u64 {
                return (level, at as usize % SLOTS, at << shift);
            }
        }
        let shift = (LEVELS as u32 - 1) * SLOT_BITS;
        let at = (self.now >> shift).saturating_add(SLOTS as u64 - 1);
        (LEVELS - 1, at as usize % SLOTS, at << shift)
    }

    /// Takes the record's entry out, if it has one.
    pub fn disarm<R: Timed>(&mut self, records: &mut [R], index: u32) {
        let Some(record) = records.get_mut(index as usize) else { return };
        let entry = core::mem::take(record.entry());
        let Some(place) = entry.place.checked_sub(1) else { return };
        let (level, slot) = (place as usize / SLOTS % LEVELS, place as usize % SLOTS);
        if let Some(next) = neighbour(records, entry.next) {
            next.previous = entry.previous;
        }
        match neighbour(records, entry.previous) {
            Some(previous) => previous.next = entry.next,
            None => self.heads[level][slot] = entry.next,
        }
        if self.heads[level][slot] == 0 {
            self.occupied[level] &= !(1 << slot);
            self.soonest = 0;
        }
    }

    /// A moment before which nothing fires, and at which something may; `None` when there is no entry.
    #[inline]
    pub fn deadline(&mut self) -> Option<Instant> {
        let at = due(self.soonest());
        (at != u64::MAX).then_some(Instant(at))
    }

    /// Its tick; the largest number is never.
    #[inline]
    pub fn soonest(&mut self) -> u64 {
        if self.soonest == 0 {
            self.soonest = self.next_tick();
        }
        self.soonest
    }

    /// Time goes on, and nothing is due: what is armed from now on lies in slots that are near.
    #[inline]
    pub fn pass(&mut self, now: Instant) {
        self.now = self.now.max(now.0 >> TICK_BITS);
    }

    /// The first tick at which a slot comes up that has entries.
    fn next_tick(&self) -> u64 {
        let firsts = (0..LEVELS).filter_map(|level| {
            let shift = level as u32 * SLOT_BITS;
            let here = self.now >> shift;
            let occupied = self.occupied[level].rotate_right((here % SLOTS as u64) as u32);
            // The slot of the present moment comes round last: what is in it was put there for the next round.
            let distance = match (occupied & !1).trailing_zeros() {
                64 if occupied & 1 == 0 => return None,
                64 => 64,
                distance => u64::from(distance),
            };
            Some(here.saturating_add(distance).saturating_mul(1 << shift))
        });
        firsts.min().unwrap_or(u64::MAX)
    }

    /// Whether [`Self::advance`] has something to do; else it is done.
    #[inline]
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = due(self.soonest()) <= now.0;
        if !is_due {
            self.pass(now);
        }
        is_due
    }

    /// Takes out what is due at `now`, at most `most` entries, and calls `fire(records, index)` for each. The callee may arm
    /// it again. True if more may be due: call again.
    pub fn advance<R: Timed>(
        &mut self,
        records: &mut [R],
        now: Instant,
        most: usize,
        mut fire: impl FnMut(&mut Self, &mut [R], u32),
    ) -> bool {
        let target = now.0 >> TICK_BITS;
        // Each entry is moved down or fired, so the work is bounded by the entries; a list of nonsense by `most`.
        let mut left = most;
        loop {
            let due = self.next_tick();
            self.soonest = due;
            if due > target {
                break;
            }
            // Before the slot's entries move down: they belong to slots after this one.
            self.now = self.now.max(due);
            for level in (0..LEVELS).rev() {
                let shift = level as u32 * SLOT_BITS;
                if due & ((1 << shift) - 1) != 0 {
                    continue;
                }
                let slot = (due >> shift) as usize % SLOTS;
                while let Some(index) = self.heads[level][slot].checked_sub(1) {
                    if left == 0 {
                        // The slot comes up once more.
                        self.now = due.saturating_sub(1);
                        self.soonest = 0;
                        return true;
                    }
                    left -= 1;
                    if !self.take_first(records, level, slot, index, due, &mut fire) {
                        self.heads[level][slot] = 0;
                        break;
                    }
                }
                self.occupied[level] &= !(1 << slot);
            }
        }
        self.now = self.now.max(target);
        false
    }

    /// Fires the first entry of a slot, or puts it lower. False if it is no entry of that slot.
    fn take_first<R: Timed>(
        &mut self,
        records: &mut [R],
        level: usize,
        slot: usize,
        index: u32,
        due: u64,
        fire: &mut impl FnMut(&mut Self, &mut [R], u32),
    ) -> bool {
        let Some(entry) = records.get_mut(index as usize).map(|record| *record.entry()) else { return false };
        if entry.place != (level * SLOTS + slot) as u32 + 1 || entry.previous != 0 {
            return false;
        }
        self.disarm(records, index);
        if tick_of(entry.nanoseconds()) <= due {
            fire(self, records, index);
        } else {
            self.insert(records, index, entry.nanoseconds());
        }
        true
    }

    /// Makes the lists again. `deadline` is told what a record's entry says, and says when it is to fire, if it is.
    pub(crate) fn rebuild<R: Timed>(
        &mut self,
        records: &mut [R],
        mut deadline: impl FnMut(&R, Option<Instant>) -> Option<Instant>,
    ) {
        *self = Self { now: self.now, ..Self::default() };
        for index in 0..records.len() {
            let was = core::mem::take(records[index].entry()).deadline();
            if let Some(at) = deadline(&records[index], was) {
                self.insert(records, index as u32, at.0);
            }
        }
    }

    /// Whether every list is one that only its own entries are in, and every entry in one.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check<R: Timed>(&self, records: &mut [R]) -> Result<(), &'static str> {
        if self.soonest > self.next_tick() {
            return Err("a wheel takes an entry for later than it is");
        }
        let mut listed = 0;
        for (at, head) in self.heads.as_flattened().iter().enumerate() {
            if (self.occupied[at / SLOTS] >> (at % SLOTS) & 1 == 1) != (*head != 0) {
                return Err("a wheel's slot is marked as what it is not");
            }
            let (mut name, mut previous) = (*head, 0);
            while name != 0 {
                let Some(entry) = neighbour(records, name) else {
                    return Err("a wheel's list leaves the slab");
                };
                // One that were met again would have another predecessor, or be of another slot.
                if entry.place as usize != at + 1 || entry.previous != previous {
                    return Err("a wheel's list runs through an entry that is not its own");
                }
                (previous, name, listed) = (name, entry.next, listed + 1);
            }
        }
        let armed = records.iter_mut().map(Timed::entry).filter(|entry| entry.place != 0).count();
        if armed == listed { Ok(()) } else { Err("an armed entry is in no list of its wheel") }
    }
}

fn neighbour<R: Timed>(records: &mut [R], name: u32) -> Option<&mut Entry> {
    records.get_mut(name.checked_sub(1)? as usize).map(Timed::entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Timed for Entry {
        fn entry(&mut self) -> &mut Entry {
            self
        }
    }

    const TICK: u64 = 1 << TICK_BITS;

    fn fired(wheel: &mut Wheel, records: &mut [Entry], now: u64) -> Vec<u32> {
        let mut all = Vec::new();
        while wheel.advance(records, Instant(now), 3, |_, _, index| all.push(index)) {}
        all.sort_unstable();
        all
    }

    #[test]
    fn a_later_deadline_leaves_the_entry_and_an_earlier_one_moves_it() {
        let (mut wheel, mut records) = (Wheel::default(), vec![Entry::default(); 1]);
        wheel.arm(&mut records, 0, Instant(50 * TICK));
        wheel.arm(&mut records, 0, Instant(90 * TICK));
        assert_eq!(records[0].deadline(), Some(Instant(50 * TICK)));
        wheel.arm(&mut records, 0, Instant(7 * TICK));
        assert_eq!(wheel.deadline(), Some(Instant(7 * TICK)));
        assert_eq!(fired(&mut wheel, &mut records, 7 * TICK), [0]);
        assert_eq!((wheel.deadline(), records[0].deadline()), (None, None));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn a_wheel_is_a_sorted_list(acts in proptest::collection::vec((0u8..4, 0u32..20, 0u64..60_000_000_000_000), 1..120)) {
            let (mut wheel, mut records) = (Wheel::default(), vec![Entry::default(); 20]);
            let (mut model, mut now): (Vec<Option<u64>>, u64) = (vec![None; 20], 0);
            for (act, index, length) in acts {
                // From microseconds to hours.
                let length = length >> (length % 40);
                let at = &mut model[index as usize];
                match act {
                    0 | 1 => {
                        wheel.arm(&mut records, index, Instant(now + length));
                        *at = Some(at.map_or(now + length, |old| old.min(now + length)));
                    }
                    2 => {
                        wheel.disarm(&mut records, index);
                        *at = None;
                    }
                    _ => {
                        now += length;
                        let got = fired(&mut wheel, &mut records, now);
                        for (index, deadline) in model.iter_mut().enumerate() {
                            let has = got.contains(&(index as u32));
                            if let Some(due) = *deadline {
                                prop_assert!(!has || due <= now, "{index} fires {} early", due - now);
                                prop_assert!(has || due + 2 * TICK > now, "{index} is late by {}", now - due);
                            } else {
                                prop_assert!(!has);
                            }
                            if has {
                                *deadline = None;
                            }
                        }
                    }
                }
                prop_assert_eq!(wheel.check(&mut records), Ok(()));
                let first = model.iter().flatten().min();
                prop_assert_eq!(wheel.deadline().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.deadline(), first) {
                    prop_assert!(next.0 <= (first + TICK).max(now + 2 * TICK), "next {} after {first}", next.0);
                }
            }
        }

        #[test]
        fn nonsense_is_survived(words in proptest::collection::vec(any::<(u64, u32, u32, u32)>(), 1..8), heads in proptest::collection::vec(0u32..12, 256), now in any::<u64>()) {
            let entry = |(deadline, next, previous, place): (u64, u32, u32, u32)| Entry { previous: previous % 12, ..Entry::new(deadline, next % 12, place % 300) };
            let mut records: Vec<Entry> = words.into_iter().map(entry).collect();
            let mut wheel = Wheel { now: now >> 30, soonest: now >> 17, occupied: [now; LEVELS], heads: [[0; SLOTS]; LEVELS] };
            for (at, head) in heads.into_iter().enumerate() {
                wheel.heads[at / SLOTS][at % SLOTS] = head;
            }
            let _ = wheel.check(&mut records);
            for round in 0..50 {
                wheel.advance(&mut records, Instant((now >> 10) + round * TICK), 100, |_, _, _| {});
                let index = round as u32 % 8;
                wheel.arm(&mut records, index, Instant(now >> 9));
                wheel.disarm(&mut records, index);
            }
        }
    }
}
