//! Records by number: taken, given back, and named so that an old name is noticed.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// No record.
pub const NONE: u32 = u32::MAX;

/// The name of a record that is in use: its index, and which use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handle {
    /// Position in its slab.
    pub index: u32,
    /// Odd; another one for each use of that position.
    pub generation: u32,
}

/// What a record of a slab keeps for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tag {
    /// Odd while the record is in use.
    pub generation: u32,
    /// The next free record, plus one; 0 is the last.
    next_free: u32,
}

impl Tag {
    /// Whether the record is in use.
    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.generation & 1 == 1
    }

    /// The name of the record at `index`, whose tag this is.
    #[must_use]
    pub const fn handle(&self, index: u32) -> Handle {
        Handle { index, generation: self.generation }
    }
}

/// A record that can live in a slab.
pub trait Record {
    /// Its tag.
    fn tag(&mut self) -> &mut Tag;
}

/// The slab's own state. Zero bytes are an empty slab: records beyond `fresh` were never used and need not even
/// be touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slab {
    /// The first free record that was used before, plus one; 0 is none.
    free: u32,
    /// Records from here on were never used.
    fresh: u32,
    /// Records in use.
    used: u32,
    padding: u32,
}

impl Slab {
    /// Records in use.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Records that were ever used: nothing is to be found behind them.
    #[must_use]
    pub const fn fresh(&self) -> u32 {
        self.fresh
    }

    /// Takes a free record, the most recently freed first: its lines are in the cache. Its other bytes are as its
    /// last user left them. `None` when all are in use.
    #[must_use]
    pub fn take<R: Record>(&mut self, records: &mut [R]) -> Option<Handle> {
        let index = match self.free.checked_sub(1) {
            Some(index) => {
                self.free = records.get_mut(index as usize)?.tag().next_free;
                index
            }
            None => {
                let index = self.fresh;
                records.get(index as usize)?;
                self.fresh += 1;
                index
            }
        };
        let tag = records.get_mut(index as usize)?.tag();
        *tag = Tag { generation: tag.generation.wrapping_add(1) | 1, next_free: 0 };
        self.used = self.used.saturating_add(1);
        Some(Handle { index, generation: tag.generation })
    }

    /// Gives a record back; false if the name is old.
    pub fn give<R: Record>(&mut self, records: &mut [R], handle: Handle) -> bool {
        let Some(record) = records.get_mut(handle.index as usize) else { return false };
        let tag = record.tag();
        if !tag.is_used() || tag.generation != handle.generation {
            return false;
        }
        *tag = Tag { generation: tag.generation.wrapping_add(1), next_free: self.free };
        self.free = handle.index + 1;
        self.used = self.used.saturating_sub(1);
        true
    }

    /// Counts the records that were ever used: one that was taken is known by its tag, even if the count was not written any more.
    pub(crate) fn reach<R: Record>(&mut self, records: &mut [R]) {
        let fresh = (self.fresh as usize).min(records.len());
        let beyond = records[fresh..].iter_mut().position(|record| record.tag().generation == 0);
        self.fresh = beyond.map_or(records.len(), |beyond| fresh + beyond) as u32;
    }

    /// Makes the list and the counts again from the tags: of the records in use those stay that `keeps`.
    pub(crate) fn rebuild<R: Record>(
        &mut self,
        records: &mut [R],
        mut keeps: impl FnMut(u32, &mut R) -> bool,
    ) {
        self.reach(records);
        let fresh = self.fresh as usize;
        *self = Self { fresh: self.fresh, ..Self::default() };
        for (index, record) in records[..fresh].iter_mut().enumerate().rev() {
            let generation = record.tag().generation;
            if record.tag().is_used() && keeps(index as u32, record) {
                *record.tag() = Tag { generation, next_free: 0 };
                self.used += 1;
            } else {
                let next_free = core::mem::replace(&mut self.free, index as u32 + 1);
                *record.tag() = Tag { generation: generation.wrapping_add(generation & 1), next_free };
            }
        }
    }

    /// Whether the free list is one: every member free, none twice, as many as the counts say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check<R: Record>(&self, records: &mut [R]) -> Result<(), &'static str> {
        if self.fresh as usize > records.len() {
            return Err("a slab counts more records than it has");
        }
        let (mut at, mut free) = (self.free, 0u32);
        while let Some(index) = at.checked_sub(1) {
            if index >= self.fresh || free >= self.fresh {
                return Err("a free list leaves its slab or runs in a circle");
            }
            let tag = records[index as usize].tag();
            if tag.is_used() {
                return Err("a record in use is on the free list");
            }
            (at, free) = (tag.next_free, free + 1);
        }
        if u64::from(free) + u64::from(self.used) == u64::from(self.fresh) {
            Ok(())
        } else {
            Err("a slab's counts do not add up")
        }
    }
}

/// The record of a name, while it is in use.
#[must_use]
pub fn find<R: Record>(records: &mut [R], handle: Handle) -> Option<&mut R> {
    let record = records.get_mut(handle.index as usize)?;
    (record.tag().generation == handle.generation && handle.generation & 1 == 1).then_some(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Default)]
    struct Plain(Tag);

    impl Record for Plain {
        fn tag(&mut self) -> &mut Tag {
            &mut self.0
        }
    }

    #[test]
    fn an_old_name_finds_nothing() {
        let (mut slab, mut records) = (Slab::default(), vec![Plain::default(); 2]);
        let first = slab.take(&mut records).expect("free");
        assert!(slab.give(&mut records, first));
        let second = slab.take(&mut records).expect("free");
        assert_eq!(first.index, second.index, "the most recently freed first");
        assert!(find(&mut records, first).is_none() && find(&mut records, second).is_some());
        assert!(!slab.give(&mut records, first), "given back twice");
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn a_slab_is_a_set_of_names(acts in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..200)) {
            let (mut slab, mut records, mut held) = (Slab::default(), vec![Plain::default(); 16], Vec::new());
            for (takes, which) in acts {
                if takes {
                    match slab.take(&mut records) {
                        Some(handle) => held.push(handle),
                        None => prop_assert_eq!(held.len(), 16),
                    }
                } else if !held.is_empty() {
                    let handle = held.swap_remove(which as usize % held.len());
                    prop_assert!(slab.give(&mut records, handle));
                }
                prop_assert_eq!(slab.used() as usize, held.len());
                prop_assert_eq!(slab.check(&mut records), Ok(()));
                prop_assert!(held.iter().all(|handle| find(&mut records, *handle).is_some()));
            }
        }

        #[test]
        fn nonsense_is_survived(bytes in any::<[u32; 4]>(), tags in any::<[(u32, u32); 8]>()) {
            let mut slab = Slab { free: bytes[0], fresh: bytes[1], used: bytes[2], padding: bytes[3] };
            let tag = |(generation, next_free)| Plain(Tag { generation, next_free });
            let mut records = tags.map(tag);
            let _ = slab.check(&mut records);
            for _ in 0..20 {
                if let Some(handle) = slab.take(&mut records) {
                    let _ = slab.give(&mut records, handle);
                }
            }
        }
    }
}
