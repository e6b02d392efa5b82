//! One line per process for test runs: how many of its connections could be, and were, accelerated.
//!
//! Written at the end of the process to the file named by `ACCEL_STATS_FILE`, one `write` per line:
//! `pid program candidates upgraded`.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::io::Write;

use driver::sys;

use crate::config::config;
use crate::family;

static WRITTEN: AtomicBool = AtomicBool::new(false);
/// What the family had counted before this process began.
static BEFORE: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// A child counts from its own beginning.
pub(crate) fn after_fork() {
    let (candidates, upgraded) = family::table().totals();
    BEFORE[0].store(candidates, Relaxed);
    BEFORE[1].store(upgraded, Relaxed);
    WRITTEN.store(false, Relaxed);
}

/// Appends the line, once.
pub(crate) fn write() {
    let Some(path) = config().stats_file else { return };
    if WRITTEN.swap(true, SeqCst) {
        return;
    }
    let (candidates, upgraded) = family::table().totals();
    let candidates = candidates.saturating_sub(BEFORE[0].load(Relaxed));
    let upgraded = upgraded.saturating_sub(BEFORE[1].load(Relaxed));
    let mut program = [0u8; 32];
    let mut line = [0u8; 128];
    let mut rest = &mut line[..];
    let name = program_name(&mut program);
    if writeln!(rest, "{} {name} {candidates} {upgraded}", family::pid()).is_err() {
        return;
    }
    let length = 128 - rest.len();
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOFOLLOW;
    if let Ok(file) = sys::open(path, flags, 0o600) {
        // SAFETY: the line is readable for its length.
        let _ = unsafe { sys::write(file.raw(), line.as_ptr().cast(), length) };
    }
}

fn program_name(buffer: &mut [u8; 32]) -> &str {
    let Ok(file) = sys::open(c"/proc/self/comm", libc::O_RDONLY, 0) else { return "?" };
    // SAFETY: the buffer is writable for its length.
    let count = unsafe { sys::read(file.raw(), buffer.as_mut_ptr().cast(), buffer.len()) }.unwrap_or(0);
    core::str::from_utf8(&buffer[..count]).unwrap_or("?").trim_end()
}
