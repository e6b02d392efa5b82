//! From a hash to a record, in one look at one cache line: open addressing with linear probing, where a removal
//! moves later entries back, so that no tombstones are left and a table that was once full is as fast as a new one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One place of the table. Zero bytes are an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Place {
    /// The record's whole hash: nearly every other record on the way is passed by without a look at it.
    hash: u32,
    /// The record's index, plus one; 0 is empty.
    record: u32,
}

/// A table over borrowed places, whose number is a power of two. At most three quarters should be in use.
#[derive(Debug)]
pub struct Table<'a>(&'a mut [Place]);

impl<'a> Table<'a> {
    /// The table in these places. A number that is no power of two is cut down to one.
    #[must_use]
    pub fn new(places: &'a mut [Place]) -> Self {
        let length = if places.is_empty() { 0 } else { 1 << places.len().ilog2() };
        Self(&mut places[..length])
    }

    /// Places for so many records.
    #[must_use]
    pub const fn places_for(records: u32) -> usize {
        (records as usize * 4 / 3 + 1).next_power_of_two()
    }

    fn mask(&self) -> usize {
        self.0.len().wrapping_sub(1)
    }

    /// The record with this hash for which `is_it` says yes.
    pub fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.mask();
        for step in 0..self.0.len() {
            let place = self.0[(hash as usize + step) & mask];
            let record = place.record.checked_sub(1)?;
            if place.hash == hash && is_it(record) {
                return Some(record);
            }
        }
        None
    }

    /// The first record with this hash, which may not be the right one: for whoever wants its lines before he needs them.
    #[inline]
    #[must_use]
    pub fn candidate(&self, hash: u32) -> Option<u32> {
        let place = self.0.get(hash as usize & self.mask())?;
        place.record.checked_sub(1).filter(|_| place.hash == hash)
    }

    /// Adds a record, which must not be there; false if the table is full.
    #[must_use]
    pub fn insert(&mut self, hash: u32, record: u32) -> bool {
        let mask = self.mask();
        for step in 0..self.0.len() {
            let place = &mut self.0[(hash as usize + step) & mask];
            if place.record == 0 {
                *place = Place { hash, record: record.wrapping_add(1) };
                return true;
            }
        }
        false
    }

    /// Takes a record out; false if it is not there.
    pub fn remove(&mut self, hash: u32, record: u32) -> bool {
        let mask = self.mask();
        let Some(mut hole) = (0..self.0.len())
            .map(|step| (hash as usize + step) & mask)
            .take_while(|at| self.0[*at].record != 0)
            .find(|at| self.0[*at] == Place { hash, record: record.wrapping_add(1) })
        else {
            return false;
        };
        // Everything up to the next empty place that the hole keeps from where it belongs moves back by one hole.
        let mut at = hole;
        for _ in 1..self.0.len() {
            at = (at + 1) & mask;
            let place = self.0[at];
            if place.record == 0 {
                break;
            }
            let from_home = at.wrapping_sub(place.hash as usize) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.0[hole] = place;
                hole = at;
            }
        }
        self.0[hole] = Place::default();
        true
    }

    /// Takes every record out.
    pub(crate) fn clear(&mut self) {
        for place in self.0.iter_mut().filter(|place| **place != Place::default()) {
            *place = Place::default();
        }
    }

    /// How many places are in use, if each holds a record with the hash that `hash_of` knows for it, and is where a
    /// search for that hash comes by.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, mut hash_of: impl FnMut(u32) -> Option<u32>) -> Result<u32, &'static str> {
        let (length, mask) = (self.0.len(), self.mask());
        // From an empty place on, if there is one: a search that began before it would have ended there.
        let empty = self.0.iter().position(|place| place.record == 0);
        let (mut used, mut run) = (0, if empty.is_some() { 0 } else { length });
        for step in 0..length {
            let at = (empty.unwrap_or(0) + step) & mask;
            let place = self.0[at];
            let Some(record) = place.record.checked_sub(1) else {
                run = 0;
                continue;
            };
            if hash_of(record) != Some(place.hash) {
                return Err("a table names a record that does not belong there");
            }
            run += 1;
            if at.wrapping_sub(place.hash as usize) & mask >= run {
                return Err("a table hides a record from those who look for it");
            }
            used += 1;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        /// Few hashes, so that most of them collide.
        #[test]
        fn a_table_is_a_map(acts in proptest::collection::vec((0u8..3, 0u32..12, 0u32..40), 0..300)) {
            let mut places = vec![Place::default(); Table::places_for(24)];
            let mut table = Table::new(&mut places);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (act, hash, record) in acts {
                // A record has one hash.
                let hash = hash.wrapping_mul(0x1f) ^ (record % 3);
                match act {
                    0 if model.len() < 24 && !model.contains_key(&record) => {
                        prop_assert!(table.insert(hash, record));
                        model.insert(record, hash);
                    }
                    1 => {
                        let there = model.get(&record) == Some(&hash);
                        prop_assert_eq!(table.remove(hash, record), there);
                        if there {
                            model.remove(&record);
                        }
                    }
                    _ => {}
                }
                let known = |record| model.get(&record).copied();
                prop_assert_eq!(table.check(known), Ok(model.len() as u32));
                for (record, hash) in &model {
                    prop_assert!(table.candidate(*hash).is_none_or(|found| model.get(&found) == Some(hash)));
                    prop_assert_eq!(table.find(*hash, |found| found == *record), Some(*record));
                }
            }
            for (record, hash) in model {
                prop_assert!(table.remove(hash, record));
            }
            prop_assert!(places.iter().all(|place| *place == Place::default()));
        }

        /// What a naive search over the whole table says, the check says.
        #[test]
        fn a_check_finds_what_a_search_misses(bytes in proptest::collection::vec((0u32..20, 0u32..6), 8)) {
            let mut places: Vec<Place> = bytes.iter().map(|(hash, record)| Place { hash: *hash, record: *record }).collect();
            let copy = places.clone();
            let table = Table::new(&mut places);
            let used = copy.iter().filter(|place| place.record != 0);
            let found = used.clone().all(|place| table.find(place.hash, |record| record + 1 == place.record).is_some());
            let hash_of = |record| copy.iter().find(|place| place.record == record + 1).map(|place| place.hash);
            let single = used.clone().all(|place| hash_of(place.record - 1) == Some(place.hash));
            // A record that is there twice may be found in its other place: only the check asks for more.
            if !(found && single) {
                prop_assert!(table.check(hash_of).is_err());
            }
            let twice = used.clone().any(|place| used.clone().filter(|other| other.record == place.record).count() > 1);
            if found && single && !twice {
                prop_assert_eq!(table.check(hash_of), Ok(used.count() as u32));
            }
        }

        #[test]
        fn nonsense_is_survived(bytes in proptest::collection::vec(any::<(u32, u32)>(), 0..40), hash in any::<u32>()) {
            let mut places: Vec<Place> = bytes.into_iter().map(|(hash, record)| Place { hash, record }).collect();
            let mut table = Table::new(&mut places);
            let _ = table.check(Some);
            let _ = table.find(hash, |_| false);
            let _ = table.insert(hash, hash);
            let _ = table.remove(hash, hash);
        }
    }
}
