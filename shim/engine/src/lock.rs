//! The lock of a stack: one word in the region, which any of its processes takes.
//!
//! | bits | what |
//! |---|---|
//! | 0–31 | 0 free, 1 held, 2 held and somebody sleeps for it (a futex) |
//! | 32–63 | the thread that holds it |
//!
//! glibc owns the list of robust futexes, so the kernel tells nobody when a holder dies: who waits looks whether it lives. A holder
//! that is only stopped keeps the lock. Nobody makes a system call while he holds it, so waits are short.

use core::sync::atomic::{AtomicU64, Ordering};

use driver::sys;

const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;
const HOLDER_SHIFT: u32 = 32;
/// Looks at a lock that is held before a waiter sleeps: about as long as a burst of packets takes.
const LOOKS: u32 = 400;
/// How long a waiter sleeps before it looks whether the holder lives.
const SLEEP_NS: u64 = 5_000_000;

/// The lock.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a>(&'a AtomicU64);

/// How the lock came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was free, or was given back.
    Free,
    /// Its holder has died with it: what it was doing is half done.
    FromTheDead,
}

const fn state(word: u64) -> u32 {
    word as u32
}

const fn held_by(thread: i32, state: u32) -> u64 {
    (thread as u32 as u64) << HOLDER_SHIFT | state as u64
}

impl<'a> Lock<'a> {
    /// The lock in this word; zero is free.
    #[must_use]
    pub const fn new(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    /// Takes the lock for this thread, which doesn't have it.
    #[inline]
    pub fn take(&self, thread: i32) -> Taken {
        match self.0.compare_exchange(0, held_by(thread, HELD), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Taken::Free,
            Err(_) => self.wait(thread),
        }
    }

    /// Takes it if it is free.
    #[inline]
    #[must_use]
    pub fn try_take(&self, thread: i32) -> bool {
        self.0.compare_exchange(0, held_by(thread, HELD), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, thread: i32) -> Taken {
        for _ in 0..LOOKS {
            if state(self.0.load(Ordering::Relaxed)) == 0 && self.try_take(thread) {
                return Taken::Free;
            }
            core::hint::spin_loop();
        }
        // From here on others may sleep, too: whoever gets it so says that somebody does.
        let ours = held_by(thread, WAITED_FOR);
        loop {
            let word = self.0.load(Ordering::Relaxed);
            if state(word) == 0 {
                if self.0.compare_exchange(word, ours, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return Taken::Free;
                }
                continue;
            }
            let asleep = word & !u64::from(u32::MAX) | u64::from(WAITED_FOR);
            if word != asleep
                && self.0.compare_exchange(word, asleep, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            if sys::futex_wait(self.0, WAITED_FOR, SLEEP_NS) || self.0.load(Ordering::Relaxed) != asleep {
                continue;
            }
            let holder = (word >> HOLDER_SHIFT) as i32;
            if !sys::is_alive(holder)
                && self.0.compare_exchange(asleep, ours, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return Taken::FromTheDead;
            }
        }
    }

    /// Gives it back.
    #[inline]
    pub fn give(&self) {
        if state(self.0.swap(0, Ordering::Release)) == WAITED_FOR {
            sys::futex_wake(self.0, 1);
        }
    }

    /// The thread that has it.
    #[must_use]
    pub fn holder(&self) -> Option<i32> {
        let word = self.0.load(Ordering::Relaxed);
        (state(word) != 0).then_some((word >> HOLDER_SHIFT) as i32)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_at_a_time() {
        let (word, sum) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|_| {
            let (word, sum) = (Arc::clone(&word), Arc::clone(&sum));
            std::thread::spawn(move || {
                let (lock, thread) = (Lock::new(&word), sys::gettid());
                for _ in 0..20_000 {
                    assert_eq!(lock.take(thread), Taken::Free);
                    assert_eq!(lock.holder(), Some(thread));
                    let seen = sum.load(Ordering::Relaxed);
                    sum.store(seen + 1, Ordering::Relaxed);
                    lock.give();
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.join().expect("a thread");
        }
        assert_eq!((sum.load(Ordering::Relaxed), word.load(Ordering::Relaxed)), (80_000, 0));
    }

    #[test]
    fn a_dead_holder_is_found() {
        let word = Arc::new(AtomicU64::new(0));
        let dead = Arc::clone(&word);
        // A thread that ends is a holder that ends: its number names nobody.
        let holder = std::thread::spawn(move || {
            assert_eq!(Lock::new(&dead).take(sys::gettid()), Taken::Free);
            sys::gettid()
        });
        let holder = holder.join().expect("it ends");
        let lock = Lock::new(&word);
        assert_eq!(lock.holder(), Some(holder));
        assert!(!lock.try_take(sys::gettid()));
        assert_eq!(lock.take(sys::gettid()), Taken::FromTheDead);
        assert_eq!(lock.holder(), Some(sys::gettid()));
        lock.give();
        assert_eq!(lock.holder(), None);
    }
}
