//! The atomic word that loom sees.
//!
//! loom 0.7 remembers one access per object, the last, when it looks for the accesses that a store may have
//! to be tried before. A load, and then by another thread a load and a compare-and-swap, is therefore tried
//! in one order only: the second load hides the first (`model::litmus` fails without this file). Here each
//! access first takes a turn, a relaxed addition, which synchronises nothing but conflicts with every other.
//!
//! And loom does not take an atomic's first value for a SeqCst store, so it is stored again.

use loom::sync::atomic::{AtomicU64 as Loom, Ordering};

#[derive(Debug)]
pub(super) struct AtomicU64 {
    turn: Loom,
    word: Loom,
}

impl AtomicU64 {
    pub(super) fn new(value: u64) -> Self {
        let word = Loom::new(value);
        word.store(value, Ordering::SeqCst);
        Self { turn: Loom::new(0), word }
    }

    fn turn(&self) -> &Loom {
        self.turn.fetch_add(1, Ordering::Relaxed);
        &self.word
    }

    pub(super) fn load(&self, order: Ordering) -> u64 {
        self.turn().load(order)
    }

    pub(super) fn store(&self, value: u64, order: Ordering) {
        self.turn().store(value, order);
    }

    pub(super) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.turn().fetch_or(bits, order)
    }

    pub(super) fn fetch_add(&self, count: u64, order: Ordering) -> u64 {
        self.turn().fetch_add(count, order)
    }

    pub(super) fn fetch_sub(&self, count: u64, order: Ordering) -> u64 {
        self.turn().fetch_sub(count, order)
    }

    pub(super) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        yes: Ordering,
        no: Ordering,
    ) -> Result<u64, u64> {
        self.turn().compare_exchange(old, new, yes, no)
    }
}
