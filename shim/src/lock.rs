//! A lock for private state that fork can carry over: the child of a threaded program must be able to unlock
//! what its parent's forking thread locked. Holds are short, so waiters poll.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use driver::sys;

/// A value and its lock.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through the one guard that the word allows.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The held lock.
#[derive(Debug)]
pub(crate) struct Held<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    /// An unlocked value.
    pub(crate) const fn new(value: T) -> Self {
        Self { word: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Locks.
    #[inline]
    pub(crate) fn lock(&self) -> Held<'_, T> {
        if self.word.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            self.wait();
        }
        Held(self)
    }

    #[cold]
    fn wait(&self) {
        for round in 0u64.. {
            if self.word.load(Relaxed) == 0 && self.word.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
                return;
            }
            match round {
                0..100 => core::hint::spin_loop(),
                100..200 => sys::sched_yield(),
                _ => sys::nanosleep(20_000),
            }
        }
    }

    /// Gives a fork's child a value of its own: a thread of its parent may have held the lock, and is not here.
    ///
    /// # Safety
    /// The caller is the only thread of a process that was just forked.
    pub(crate) unsafe fn renew(&self, value: T) {
        // The old value may be half changed: it is neither dropped nor read.
        // SAFETY: nobody else is here.
        unsafe { self.value.get().write(value) };
        self.word.store(0, Release);
    }

    /// Unlocks what a forgotten guard left locked.
    ///
    /// # Safety
    /// The calling thread, or the thread of the parent that it is the image of, must hold the lock and use no
    /// reference from it any more.
    pub(crate) unsafe fn unlock_forgotten(&self) {
        self.word.store(0, Release);
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held for as long as the guard lives.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.word.store(0, Release);
    }
}
