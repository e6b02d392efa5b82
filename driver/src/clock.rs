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

/// How long the measurement takes.
const MEASURED_NSEC: u64 = 200_000;
/// And where the program's clock stands still (libfaketime): a millisecond or so.
const MEASURED_TICKS_MAX: u64 = 4_000_000;
const TICKS_PER_USEC_GUESSED: u64 = 2_000;

/// Ticks in a microsecond, measured once (takes up to 200 µs the first time).
#[must_use]
pub fn ticks_per_usec() -> u64 {
    static RATE: AtomicU64 = AtomicU64::new(0);
    let known = RATE.load(Relaxed);
    if known != 0 {
        return known;
    }
    let (time, counter) = (monotonic_ns(), ticks());
    let (mut elapsed, mut counted) = (0, 0);
    while elapsed < MEASURED_NSEC && counted < MEASURED_TICKS_MAX {
        core::hint::spin_loop();
        (elapsed, counted) = (monotonic_ns().saturating_sub(time), ticks() - counter);
    }
    let runs = elapsed >= MEASURED_NSEC / 100;
    let rate = if runs { (counted * 1000 / elapsed).max(1) } else { TICKS_PER_USEC_GUESSED };
    RATE.store(rate, Relaxed);
    rate
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; clock_gettime is not interposed by us and needs no errno here.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The CPU that the thread runs on.
#[inline]
#[must_use]
pub fn current_cpu() -> u32 {
    // SAFETY: no preconditions; glibc answers from its rseq area without a system call.
    unsafe { libc::sched_getcpu() as u32 }
}
