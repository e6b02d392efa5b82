//! Ticks: the CPU's constant-rate counter, for waits that are shorter than a system call.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Reads the counter.
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc has no preconditions.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let value: u64;
        // SAFETY: the virtual counter is readable by user programs on Linux.
        unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack)) };
        value
    }
}

/// The measurement takes at least so long,
const MEASURED_NSEC: u64 = 200_000;
/// or a millisecond or so where the program's clock stands still (libfaketime).
const MEASURED_TICKS_MAX: u64 = 4_000_000;
const TICKS_PER_USEC_GUESSED: u64 = 2_000;
/// What a counter can run at, in ticks per microsecond: another result is a clock that jumped.
const PLAUSIBLE: core::ops::RangeInclusive<u64> = 10..=20_000;
/// The measurement's first half: ticks, and CLOCK_MONOTONIC at that moment; 0 before [`begin`].
static BEGAN: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Begins the measurement of [`ticks_per_usec`], which then need not wait for it; children of a fork inherit it.
pub fn begin() {
    let (counter, time) = both();
    BEGAN[1].store(time, Relaxed);
    BEGAN[0].store(counter, Relaxed);
}

/// Ticks in a microsecond, measured once, from [`begin`] to the first call, or for 200 µs if that was not long
/// enough.
#[must_use]
pub fn ticks_per_usec() -> u64 {
    static RATE: AtomicU64 = AtomicU64::new(0);
    let known = RATE.load(Relaxed);
    if known != 0 {
        return known;
    }
    let began = BEGAN.each_ref().map(|half| half.load(Relaxed));
    let since_begin = if began[0] == 0 { None } else { rate_between((began[0], began[1]), both()) };
    let rate = since_begin.unwrap_or_else(measured);
    RATE.store(rate, Relaxed);
    rate
}

/// The counter and the clock at the same moment: of three tries the one that nothing came between.
fn both() -> (u64, u64) {
    let tries = [(); 3].map(|()| {
        let (before, time, after) = (ticks(), monotonic_ns(), ticks());
        (after.wrapping_sub(before), before, time)
    });
    let best = tries.into_iter().min().unwrap_or_default();
    (best.1, best.2)
}

/// `None` if too little time lies between, or a clock has jumped.
fn rate_between(first: (u64, u64), last: (u64, u64)) -> Option<u64> {
    let (counted, elapsed) = (last.0.checked_sub(first.0)?, last.1.checked_sub(first.1)?);
    if elapsed < MEASURED_NSEC {
        return None;
    }
    let rate = u64::try_from(u128::from(counted) * 1000 / u128::from(elapsed)).ok()?;
    PLAUSIBLE.contains(&rate).then_some(rate)
}

fn measured() -> u64 {
    let first = both();
    loop {
        let last = both();
        if let Some(rate) = rate_between(first, last) {
            return rate;
        }
        if last.0.wrapping_sub(first.0) > MEASURED_TICKS_MAX {
            return TICKS_PER_USEC_GUESSED;
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanoseconds(libc::CLOCK_REALTIME)
}

#[inline]
fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; clock_gettime is not interposed by us and needs no errno here.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The CPU that the thread runs on.
#[inline]
#[must_use]
pub fn current_cpu() -> u32 {
    // SAFETY: no preconditions; glibc answers from its rseq area without a system call.
    unsafe { libc::sched_getcpu() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time_between_and_a_clock_that_did_not_jump() {
        assert_eq!(rate_between((1_000, 0), (2_001_000, 1_000_000)), Some(2_000));
        assert_eq!(rate_between((0, 0), (2_000, 1_000)), None, "too short");
        assert_eq!(rate_between((0, 5_000_000), (4_000_000, 1_000_000)), None, "back");
        assert_eq!(rate_between((0, 0), (4_000_000, u64::MAX)), None, "far ahead");
        assert!(PLAUSIBLE.contains(&measured()));
    }
}
