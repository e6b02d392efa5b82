//! How long a thread spins before it sleeps.
//!
//! Waking a sleeping thread costs tens of microseconds; a spinning one sees a message in a tenth. So a thread
//! spins where its recent waits were short, as long as nobody else wants its core: a gap between two looks at
//! the clock means that the scheduler took the core away. On the peer's own core spinning only keeps the peer
//! from answering: there the thread yields instead.

use core::cell::Cell;

use driver::clock::{current_cpu, monotonic_ns, ticks, ticks_per_usec};
use driver::sys;

use crate::config::{Spin, config};
use crate::{cores, guard};

/// A gap of this long between two looks means that another task ran here.
const GAP_USEC: u64 = 500;
/// Looks at shared memory between two looks at the clock.
const LOOKS_PER_TICK: u32 = 16;
/// A spinning thread yields this often.
const YIELD_USEC: u64 = 20;
/// After a gap a thread does not spin for this long.
const CONTENDED_USEC: u64 = 2_000;
/// It is so many times as long where more threads want to run than there are cores, and at most.
const CROWDED_FACTOR: u64 = 8;
const FACTOR_MAX: u64 = 256;
/// A peer that works moves at least so many bytes in a microsecond, also one that looks at all of them. Where so many
/// move while another has the core for a whole time slice, the slice is not lost either.
const PEER_BYTES_PER_USEC: u64 = 128;
/// Yields before a thread that shares its peer's core sleeps.
const YIELDS_MAX: u32 = 8;
/// Longest recent wait, on average, that still counts as busy when the profile never spins.
const BUSY_USEC: u64 = 30;

/// The share of waits that sleep: all of them, and so few that opening pays without spinning.
const SLEEPS_ALL: u64 = 1 << 16;
const SLEEPS_FEW: u64 = SLEEPS_ALL / 16;

/// How a spin ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What was waited for is there.
    Ready,
    /// Time is up: sleep.
    Expired,
    /// A signal's handler wants to run.
    Signal,
}

/// What the thread knows of its waits, in its spare per-thread cells.
struct Memory;

impl Memory {
    /// Average of the recent waits, in ticks.
    fn average() -> &'static Cell<u64> {
        &guard::thread().spare[0]
    }

    /// Times CONTENDED_USEC that the last contention counted for.
    fn contention() -> &'static Cell<u64> {
        &guard::thread().spare[2]
    }

    /// Which share of the recent waits slept, of SLEEPS_ALL.
    fn sleeps() -> &'static Cell<u64> {
        &guard::thread().spare[3]
    }

    /// No spinning before this tick.
    fn contended_until() -> &'static Cell<u64> {
        &guard::thread().spare[1]
    }
}

fn limit_usec() -> u64 {
    match config().spin {
        Spin::Never => BUSY_USEC,
        Spin::Adapt | Spin::Hard => config().spin_usec,
    }
}

/// Whether the thread's recent waits were short, and it will see what comes next while it is awake: then
/// directions are opened for it.
#[inline]
pub(crate) fn is_busy() -> bool {
    if config().spin == Spin::Hard {
        return true;
    }
    let will_spin = || config().spin == Spin::Adapt && !is_contended(ticks());
    is_short(limit_usec()) && (Memory::sleeps().get() < SLEEPS_FEW || will_spin())
}

/// Notes that a wait ended in a sleep.
pub(crate) fn record_sleep() {
    let sleeps = Memory::sleeps();
    sleeps.set(sleeps.get() + (SLEEPS_ALL - sleeps.get()) / 8);
}

/// Notes how long a wait took. A long one counts as four times the limit, so a few short ones make up for it.
pub(crate) fn record(started: u64) {
    let waited = ticks().saturating_sub(started);
    let limit = config().spin_usec * ticks_per_usec();
    let average = Memory::average();
    let old = average.get();
    average.set(old - old / 4 + waited.min(4 * limit) / 4);
}

/// Notes that something was ready without waiting.
#[inline]
pub(crate) fn record_ready() {
    let average = Memory::average();
    let old = average.get();
    average.set(old - old / 4);
    let sleeps = Memory::sleeps();
    sleeps.set(sleeps.get() - sleeps.get() / 64);
}

/// Longest time that this thread may spin now, in ticks; 0 is not at all.
pub(crate) fn budget(allowed: bool) -> u64 {
    let config = config();
    let most = config.spin_usec.saturating_mul(ticks_per_usec());
    match config.spin {
        _ if !allowed => 0,
        Spin::Never => 0,
        Spin::Hard => most,
        Spin::Adapt if is_busy() && !is_contended(ticks()) => most,
        Spin::Adapt => 0,
    }
}

/// The budget of a wait that ends at a moment of CLOCK_MONOTONIC, in nanoseconds.
pub(crate) fn budget_until(allowed: bool, until: Option<u64>) -> u64 {
    let budget = budget(allowed);
    let Some(until) = until else { return budget };
    let left = until.saturating_sub(monotonic_ns());
    budget.min((u128::from(left) * u128::from(ticks_per_usec()) / 1000) as u64)
}

/// What a spinning thread waits for.
pub(crate) struct Watch<P, R, L> {
    /// Longest time, in ticks.
    pub(crate) budget: u64,
    /// Where the peer last was.
    pub(crate) peer_cpu: P,
    /// The cheap look, at shared memory: again and again.
    pub(crate) ready: R,
    /// The dear look, at the kernel: every so many microseconds.
    pub(crate) look: L,
    pub(crate) look_usec: u64,
}

impl<P: Fn() -> Option<u32>, R: FnMut() -> bool, L: FnMut() -> bool> Watch<P, R, L> {
    /// Spins until something is ready or the time is up.
    pub(crate) fn run(mut self) -> End {
        if (self.peer_cpu)() == Some(current_cpu()) {
            return self.by_yielding();
        }
        if self.budget == 0 {
            return End::Expired;
        }
        let per_usec = ticks_per_usec();
        let start = ticks();
        // Where more threads want to run than there are cores, the next one gets this core at once.
        let yields_after = if cores::are_free(start) { YIELD_USEC * per_usec } else { 0 };
        let (mut last, mut yielded, mut looked) = (start, start, start);
        loop {
            for _ in 0..LOOKS_PER_TICK {
                if (self.ready)() {
                    return End::Ready;
                }
            }
            core::hint::spin_loop();
            if guard::signals_pending() {
                return End::Signal;
            }
            let now = ticks();
            if now.wrapping_sub(start) >= self.budget {
                return End::Expired;
            }
            if now.wrapping_sub(last) > GAP_USEC * per_usec && config().spin == Spin::Adapt {
                note_contention(now);
                return if (self.ready)() { End::Ready } else { End::Expired };
            }
            last = now;
            if now.wrapping_sub(looked) > self.look_usec * per_usec {
                looked = now;
                if (self.look)() {
                    return End::Ready;
                }
            }
            // The peer may have been woken on this very core, where it cannot run, and so cannot tell: let it.
            if now.wrapping_sub(yielded) > yields_after {
                yielded = now;
                if (self.peer_cpu)() == Some(current_cpu()) {
                    return self.by_yielding();
                }
                sys::sched_yield();
                last = ticks();
            }
        }
    }

    /// The peer needs this very core: give it away, a few times; not while others want it as well, who would
    /// keep it for a whole time slice.
    fn by_yielding(&mut self) -> End {
        let mut last = ticks();
        if !may_yield() {
            return End::Expired;
        }
        for _ in 0..YIELDS_MAX {
            if (self.ready)() {
                return End::Ready;
            }
            if guard::signals_pending() {
                return End::Signal;
            }
            sys::sched_yield();
            let now = ticks();
            if now.wrapping_sub(last) > GAP_USEC * ticks_per_usec() {
                note_contention(now);
                break;
            }
            last = now;
        }
        if (self.ready)() { End::Ready } else { End::Expired }
    }
}

/// Whether the scheduler lately gave this thread's core to another for long.
fn is_contended(now: u64) -> bool {
    now < Memory::contended_until().get()
}

/// Whether a wait for a peer on this very core should yield it: in every profile, because that costs less than
/// the sleep.
pub(crate) fn may_yield() -> bool {
    // While this thread waits its peer works, on the same core: the wait may be longer than one that burns time.
    is_short(config().spin_usec) && !is_contended(ticks())
}

fn is_short(limit_usec: u64) -> bool {
    Memory::average().get() <= limit_usec * ticks_per_usec()
}

/// After a wait by yielding: whether whoever ran meanwhile was the peer, because it moved as many bytes as takes that
/// long. Then it was no contention.
pub(crate) fn was_the_peer(started: u64, bytes: u64) -> bool {
    let usec = ticks().saturating_sub(started) / ticks_per_usec();
    let worked = bytes / PEER_BYTES_PER_USEC >= usec;
    if worked && usec >= GAP_USEC {
        Memory::contended_until().set(0);
        Memory::contention().set(0);
    }
    worked
}

/// Notes how long a wait took that brought so many bytes. While the peer worked on this very core a wait says
/// nothing against yielding to it.
pub(crate) fn record_bytes(started: u64, bytes: u64) {
    if was_the_peer(started, bytes) {
        record_ready();
    } else {
        record(started);
    }
}

/// Somebody else ran on this core: no spinning for a while, longer each time it happens again soon. Every try
/// costs a whole time slice where the core is wanted by one who never yields it.
fn note_contention(now: u64) {
    let (until, factor) = (Memory::contended_until(), Memory::contention());
    let last = factor.get() * CONTENDED_USEC * ticks_per_usec();
    let again = factor.get() != 0 && now.wrapping_sub(until.get()) < 4 * last;
    let first = if cores::are_free(now) { 1 } else { CROWDED_FACTOR };
    factor.set(if again { (factor.get() * 2).clamp(first, FACTOR_MAX) } else { first });
    until.set(now + factor.get() * CONTENDED_USEC * ticks_per_usec());
}
