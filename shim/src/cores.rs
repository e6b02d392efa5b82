//! Whether a core is free: no more threads want to run than there are cores.
//!
//! The fourth field of `/proc/loadavg` counts the runnable threads of the machine. It is read at most every
//! two milliseconds (about 5 µs each time), by whoever thinks of spinning.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use driver::clock::ticks_per_usec;
use driver::sys;

const SAMPLE_USEC: u64 = 2_000;
/// A thread that runs for a moment is no reason to stop: so many samples in a row are.
const CROWDED_SAMPLES: u32 = 4;

static SAMPLED_AT: AtomicU64 = AtomicU64::new(0);
/// Samples in a row that found more threads than cores.
static CROWDED: AtomicU32 = AtomicU32::new(0);
static CORES: AtomicU32 = AtomicU32::new(0);

/// Whether the last samples (one is taken now if they are old) found enough cores.
pub(crate) fn are_free(now: u64) -> bool {
    let sampled = SAMPLED_AT.load(Relaxed);
    let old = now.wrapping_sub(sampled) > SAMPLE_USEC * ticks_per_usec();
    if old && SAMPLED_AT.compare_exchange(sampled, now, Relaxed, Relaxed).is_ok() {
        // Without /proc there is only the gap detection of the spinning loop.
        let crowded = runnable().is_some_and(|threads| threads > cores());
        CROWDED.store(if crowded { CROWDED.load(Relaxed).saturating_add(1) } else { 0 }, Relaxed);
    }
    CROWDED.load(Relaxed) < CROWDED_SAMPLES
}

/// Cores of the machine, whose threads are counted: not those that this thread is pinned to.
fn cores() -> u32 {
    let known = CORES.load(Relaxed);
    if known != 0 {
        return known;
    }
    let mut text = [0u8; 256];
    let count = contents(c"/sys/devices/system/cpu/online", &mut text).and_then(cpus_in).unwrap_or(u32::MAX);
    CORES.store(count, Relaxed);
    count
}

/// Runnable threads of the machine.
fn runnable() -> Option<u32> {
    let mut text = [0u8; 64];
    contents(c"/proc/loadavg", &mut text).and_then(running_in)
}

/// What a short file of the kernel's says.
pub(crate) fn contents<'a>(path: &CStr, text: &'a mut [u8]) -> Option<&'a str> {
    let file = sys::open(path, libc::O_RDONLY, 0).ok()?;
    // SAFETY: the buffer is writable for its length.
    let count = unsafe { sys::read(file.raw(), text.as_mut_ptr().cast(), text.len()).ok()? };
    core::str::from_utf8(&text[..count]).ok()
}

/// `0.20 0.18 0.12 1/80 11206` has one.
fn running_in(text: &str) -> Option<u32> {
    text.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

/// `0-3,8,10-11` are seven.
fn cpus_in(text: &str) -> Option<u32> {
    text.trim_end().split(',').try_fold(0, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        Some(count + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runnable_threads_are_the_fourth_field() {
        assert_eq!(running_in("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(running_in("nonsense"), None);
        assert!(runnable().is_some_and(|threads| threads >= 1));
    }

    #[test]
    fn ranges_of_cpus_are_counted() {
        assert_eq!(cpus_in("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpus_in("0\n"), Some(1));
        assert_eq!(cpus_in("3-1\n"), None);
        assert_eq!(cpus_in(""), None);
    }
}
