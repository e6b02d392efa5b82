//! One line per process for test runs: how many of its connections could be, and were, accelerated.
//!
//! Written at the end of the process to the file named by `ACCEL_STATS_FILE`, one `write` per line:
//! `pid program candidates upgraded`.
//!
//! A *candidate* is an end of a TCP connection that this process used, of which inet_diag knew the other end
//! in this network namespace, which neither the options of accel nor those of the socket forbid, and which has
//! carried at least one message (a send or receive call of this end that moved bytes). Whether the program at the
//! other end runs under accel is not asked: one that does not makes the share smaller. An *upgraded* one is a
//! candidate both of whose ends agreed to use rings. Each is counted once, at its end, also where several processes
//! of a family hold it; what a killed process held open is counted nowhere.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::io::Write;

use driver::cards::flag;
use driver::channel::Channel;
use driver::sys;

use crate::config::config;
use crate::family;
use crate::slot::Socket;

static WRITTEN: AtomicBool = AtomicBool::new(false);
static CANDIDATES: AtomicU64 = AtomicU64::new(0);
static UPGRADED: AtomicU64 = AtomicU64::new(0);

/// A child counts from its own beginning.
pub(crate) fn after_fork() {
    CANDIDATES.store(0, Relaxed);
    UPGRADED.store(0, Relaxed);
    WRITTEN.store(false, Relaxed);
}

/// The process is done with a socket; its channel, if it ever had one.
pub(crate) fn count(socket: &Socket, channel: Option<&Channel>) {
    let card = socket.card;
    let counts = card.has(flag::ELIGIBLE) && card.carried_any();
    if !counts || card.flags.fetch_or(flag::COUNTED, SeqCst) & flag::COUNTED != 0 {
        return;
    }
    CANDIDATES.fetch_add(1, Relaxed);
    if channel.is_some_and(Channel::peer_committed) {
        UPGRADED.fetch_add(1, Relaxed);
    }
}

/// Appends the line, once.
pub(crate) fn write() {
    let Some(path) = config().stats_file else { return };
    if WRITTEN.swap(true, SeqCst) {
        return;
    }
    let (candidates, upgraded) = (CANDIDATES.load(Relaxed), UPGRADED.load(Relaxed));
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
