//! One line per process for test runs: how many of its connections could be, and were, accelerated.
//!
//! Written at the end of the process to the file named by `ACCEL_STATS_FILE`, one `write` per line:
//! `pid program candidates upgraded`, and then `reason=count` for each reason why others were not.
//!
//! A *candidate* is an end of a TCP connection that this process used, of which inet_diag knew the other end
//! in this network namespace, which neither the options of accel nor those of the socket forbid, and which has
//! carried at least one message (a send or receive call of this end that moved bytes). Whether the program at the
//! other end runs under accel is not asked: one that does not makes the share smaller. An *upgraded* one is a
//! candidate both of whose ends agreed to use rings. Each is counted once, at its end, also where several processes
//! of a family hold it; what a killed process held open is counted nowhere.
//!
//! One kind of end is no candidate, whether it had rings or not ([`Reason::Apart`]): the two ends never used the
//! connection at the same time. That is so if this one had sent all that it had to send, and received nothing, before
//! the other read or sent a byte, by the kernel's own count of unread bytes; or if this one only read what
//! another sent who had finished before. Where the kernel does not tell, the end is a candidate.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::io::Write;

use driver::cards::flag;
use driver::channel::{Channel, Side};
use driver::diag;
use driver::meeting::Tuple;
use driver::sys;
use rows::reasons::{REASONS, Reason};

use crate::config::config;
use crate::slot::Socket;
use crate::{close, family, meet, process};

static WRITTEN: AtomicBool = AtomicBool::new(false);
static CANDIDATES: AtomicU64 = AtomicU64::new(0);
static UPGRADED: AtomicU64 = AtomicU64::new(0);
/// Why ends were not upgraded; under [`Reason::Apart`], those that were no candidates.
static WHY: [AtomicU64; REASONS.len()] = [const { AtomicU64::new(0) }; REASONS.len()];

/// A child counts from its own beginning.
pub(crate) fn after_fork() {
    for counter in [&CANDIDATES, &UPGRADED].into_iter().chain(&WHY) {
        counter.store(0, Relaxed);
    }
    WRITTEN.store(false, Relaxed);
}

/// Whether to look closely: not in a process that may make few system calls.
fn are_wanted() -> bool {
    config().stats_file.is_some() && !process::is_forbidden()
}

/// The process takes the first step to rings.
pub(crate) fn first_use(socket: &Socket) {
    if are_wanted() && close::peer_sent_fin(socket.fd) {
        socket.card.set(flag::CAME_LATE, true);
    }
}

/// The program is about to shut the sending side down.
pub(crate) fn finishes_sending(socket: &Socket) {
    if are_wanted() && socket.card.has(flag::ELIGIBLE) && !peer_has_read(socket) {
        socket.card.set(flag::UNREAD_AT_END, true);
    }
}

/// The process is done with a socket; its channel, if it ever had one.
pub(crate) fn count(socket: &Socket, channel: Option<&Channel>) {
    let card = socket.card;
    let counts = are_wanted() && card.has(flag::ELIGIBLE) && card.carried_any();
    if !counts || card.flags.fetch_or(flag::COUNTED, SeqCst) & flag::COUNTED != 0 {
        return;
    }
    let agreed = channel.is_some_and(Channel::peer_committed);
    if were_apart(socket, agreed) {
        WHY[Reason::Apart as usize].fetch_add(1, Relaxed);
        return;
    }
    CANDIDATES.fetch_add(1, Relaxed);
    if agreed {
        UPGRADED.fetch_add(1, Relaxed);
    } else {
        WHY[Reason::from_number(card.reason()) as usize].fetch_add(1, Relaxed);
    }
}

/// Whether one end had finished before the other first used the connection.
fn were_apart(socket: &Socket, agreed: bool) -> bool {
    let counters = &socket.card.counters;
    let received = counters.kernel_receives.load(Relaxed) + counters.ring_receives.load(Relaxed);
    let sent = counters.kernel_sends.load(Relaxed) + counters.ring_sends.load(Relaxed);
    if received > 0 {
        return sent == 0 && socket.card.has(flag::CAME_LATE);
    }
    if socket.card.has(flag::UNREAD_AT_END) {
        return true;
    }
    // An acceptor's agreement is a data call of its program; a connector's comes before it connects.
    let both = agreed && socket.side() == Side::Connector;
    !both && !peer_has_read(socket)
}

/// Whether the other end has read any of what this one sent, by ring or kernel; also where the kernel does not tell.
fn peer_has_read(socket: &Socket) -> bool {
    /// linux/sockios.h: bytes that were not sent yet.
    const SIOCOUTQNSD: u64 = 0x894b;
    if socket.card.counters.ring_sends.load(Relaxed) > 0 {
        // Nobody but a reader opens a ring.
        return true;
    }
    let Ok(tuple) = Tuple::of_socket(socket.fd) else { return true };
    let Ok(peer) = diag::owner_of(tuple.family, &tuple.remote, &tuple.local) else { return true };
    let Some((_, sent)) = meet::kernel_counts(socket) else { return true };
    let Ok(unsent) = sys::ioctl_int(socket.fd, SIOCOUTQNSD) else { return true };
    u64::from(peer.unread) != sent - (unsent as u64).min(sent)
}

/// Appends the line, once.
pub(crate) fn write() {
    let Some(path) = config().stats_file else { return };
    if WRITTEN.swap(true, SeqCst) {
        return;
    }
    let mut program = [0u8; 32];
    let mut line = [0u8; LINE];
    let mut rest = &mut line[..];
    if write_line(&mut rest, program_name(&mut program)).is_err() {
        return;
    }
    let length = LINE - rest.len();
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOFOLLOW;
    if let Ok(file) = sys::open(path, flags, 0o600) {
        // SAFETY: the line is readable for its length.
        let _ = unsafe { sys::write(file.raw(), line.as_ptr().cast(), length) };
    }
}

/// Room for every reason with a large count.
const LINE: usize = 1024;

fn write_line(line: &mut &mut [u8], program: &str) -> std::io::Result<()> {
    let (candidates, upgraded) = (CANDIDATES.load(Relaxed), UPGRADED.load(Relaxed));
    write!(line, "{} {program} {candidates} {upgraded}", family::pid())?;
    for ((_, word, _), count) in REASONS.iter().zip(&WHY) {
        match count.load(Relaxed) {
            0 => {}
            count => write!(line, " {word}={count}")?,
        }
    }
    writeln!(line)
}

fn program_name(buffer: &mut [u8; 32]) -> &str {
    let Ok(file) = sys::open(c"/proc/self/comm", libc::O_RDONLY, 0) else { return "?" };
    // SAFETY: the buffer is writable for its length.
    let count = unsafe { sys::read(file.raw(), buffer.as_mut_ptr().cast(), buffer.len()) }.unwrap_or(0);
    core::str::from_utf8(&buffer[..count]).unwrap_or("?").trim_end()
}
