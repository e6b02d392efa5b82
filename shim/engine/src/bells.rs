//! Doorbells: how a process is told, while its threads sleep, that another one has taken packets for its sockets.
//!
//! Each process slot of the region has an eventfd. Nobody ever reads it: each thread that sleeps has an epoll set of its own in which
//! the bell is edge-triggered, so that every ring reaches every sleeper, and a ring before the sleep ends it at once. A thread that
//! falls asleep counts itself in its process's shared word *before* it looks at its sockets for the last time.

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use driver::sys::{self, Fd};
use libc::{EPOLL_CTL_ADD, EPOLLET, EPOLLIN, c_int, epoll_event, pollfd};

use crate::engine::Engine;

/// Sets that are kept for the next sleeper.
const KEPT: usize = 32;
/// No descriptor.
const NONE: c_int = -1;

/// The doorbells of all slots, and sets of those who sleep here.
#[derive(Debug)]
pub struct Bells {
    all: Vec<Fd>,
    kept: [AtomicI32; KEPT],
}

impl Bells {
    pub(crate) fn new(all: Vec<Fd>) -> Self {
        Self { all, kept: [const { AtomicI32::new(NONE) }; KEPT] }
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = c_int> {
        self.all.iter().map(Fd::raw)
    }

    /// Rings the bells of these slots.
    pub(crate) fn ring(&self, slots: u64) {
        let one = 1u64;
        for (slot, bell) in self.all.iter().enumerate().take(64) {
            if slots >> slot & 1 == 1 {
                // SAFETY: eight bytes that live as long as the call.
                let _ = unsafe { sys::write(bell.raw(), (&raw const one).cast(), size_of::<u64>()) };
            }
        }
    }

    /// In a child the sets are those of its parent's bell.
    pub(crate) fn after_fork(&self) {
        for kept in &self.kept {
            let fd = kept.swap(NONE, Ordering::Relaxed);
            if fd != NONE {
                sys::close(fd);
            }
        }
    }

    /// A set in which the bell of this slot wakes.
    fn set(&self, slot: u32) -> sys::Result<c_int> {
        for kept in &self.kept {
            let fd = kept.swap(NONE, Ordering::Acquire);
            if fd != NONE {
                return Ok(fd);
            }
        }
        let bell = self.all.get(slot as usize).ok_or(sys::Errno(libc::EBADF))?;
        let floor = sys::descriptor_limits().0.min(4096).saturating_sub(128).max(64) as c_int;
        let set = sys::raise_number(sys::epoll_create()?, floor);
        let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 0 };
        // SAFETY: the event is a local.
        unsafe { sys::epoll_ctl(set.raw(), EPOLL_CTL_ADD, bell.raw(), &raw mut event) }?;
        Ok(set.into_raw())
    }

    fn keep(&self, set: c_int) {
        for kept in &self.kept {
            if kept.compare_exchange(NONE, set, Ordering::Release, Ordering::Relaxed).is_ok() {
                return;
            }
        }
        sys::close(set);
    }
}

/// A thread that sleeps, or is about to: from now on it is rung for.
#[derive(Debug)]
pub struct Sleeper<'e> {
    engine: &'e Engine,
    /// In which the bell of its process's slot wakes; who only serves has none, and isn't rung for.
    bell: Option<(c_int, u32)>,
    /// It waits for the device, for all others, under this name.
    leads: Option<u64>,
}

/// Who sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A thread of a program: what arrives may be for it, so it had better wait for the device itself.
    Caller,
    /// A thread that only serves: it gives way to a caller.
    Service,
}

/// A leader that only serves, in the leader's word beside its number.
const SERVES: u64 = 1 << 32;

impl Engine {
    /// Says that this thread falls asleep: after this it looks at its sockets once more, and then waits for what [`Sleeper::fds`] names.
    ///
    /// # Errors
    /// What the kernel says when there are no descriptors left: then it must not sleep for long.
    pub fn fall_asleep(&self, thread: i32, who: Who) -> sys::Result<Sleeper<'_>> {
        let slot = self.process().index;
        let bell = match who {
            Who::Caller => Some((self.bells().set(slot)?, slot)),
            Who::Service => None,
        };
        if let Some(count) = self.sleepers(bell) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let named = u64::from(thread as u32) | if who == Who::Service { SERVES } else { 0 };
        let lead = |leader: u64| (leader == 0 || who == Who::Caller && leader & SERVES != 0).then_some(named);
        let word = self.shared().leader.first();
        let leads =
            word.is_some_and(|word| word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, lead).is_ok());
        Ok(Sleeper { engine: self, bell, leads: leads.then_some(named) })
    }

    /// How many threads of a process are rung for.
    fn sleepers(&self, bell: Option<(c_int, u32)>) -> Option<&AtomicU64> {
        bell.and_then(|(_, slot)| self.shared().processes.get(slot as usize))
    }

    /// The thread that waits for the device, if one does and lives, and whether it only serves.
    #[must_use]
    pub fn leader(&self) -> Option<(i32, Who)> {
        let word = self.shared().leader.first()?;
        let leader = word.load(Ordering::Relaxed);
        if leader == 0 {
            return None;
        }
        let thread = leader as u32 as i32;
        if sys::is_alive(thread) {
            return Some((thread, if leader & SERVES != 0 { Who::Service } else { Who::Caller }));
        }
        let _ = word.compare_exchange(leader, 0, Ordering::SeqCst, Ordering::Relaxed);
        None
    }
}

impl Sleeper<'_> {
    /// What ends the sleep.
    pub fn fds(&self) -> impl Iterator<Item = pollfd> {
        let entry = |fd| pollfd { fd, events: libc::POLLIN, revents: 0 };
        let queues = if self.leads.is_some() { self.engine.queues() } else { &[] };
        self.bell.map(|(set, _)| set).into_iter().chain(queues.iter().copied()).map(entry)
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let (Some(named), Some(leader)) = (self.leads, self.engine.shared().leader.first()) {
            // Unless a caller has taken it over.
            let _ = leader.compare_exchange(named, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        if let Some(count) = self.engine.sleepers(self.bell) {
            count.fetch_sub(1, Ordering::SeqCst);
        }
        let Some((set, _)) = self.bell else { return };
        // The ring that woke it is used up: the next sleeper with this set waits for another one.
        let mut event = epoll_event { events: 0, u64: 0 };
        // SAFETY: one event.
        let _ = unsafe { sys::epoll_wait(set, &raw mut event, 1, 0) };
        self.engine.bells().keep(set);
    }
}
