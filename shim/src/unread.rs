//! Sockets on which bytes of ours may lie unread in the ring.
//!
//! A peer may give its end to another program (exec, SCM_RIGHTS, stdio) with bytes unread; then nobody but us can
//! bring them to the new holder, through the kernel. So a thread that is about to sleep, in whatever call, asks
//! here first: what was given up is sent again, and while something lies unread it sleeps in slices.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use libc::c_int;

use crate::fdtable::Name;
use crate::lock::Lock;
use crate::slot::{self, Socket};
use crate::{close, family};

/// Longest slice of such a sleep.
pub(crate) const SLICE_NS: u64 = 16_000_000;

static LIST: Lock<Vec<(c_int, Name)>> = Lock::new(Vec::new());

/// Bytes went into the socket's ring.
#[inline]
pub(crate) fn note(socket: &Socket) {
    if socket.slot.listed.load(Relaxed) == 0 {
        list(socket);
    }
}

#[cold]
fn list(socket: &Socket) {
    if socket.slot.listed.swap(1, SeqCst) == 0 {
        LIST.lock().push((socket.fd, socket.name));
    }
}

/// Sends again what was given up; whether bytes of ours still lie unread anywhere.
pub(crate) fn any() -> bool {
    let listed = core::mem::take(&mut *LIST.lock());
    let mut some = false;
    for (fd, name) in listed {
        let socket = slot::by_name(fd, name);
        if !socket.is_current() {
            continue;
        }
        // Cleared before the look: what is sent meanwhile is listed anew.
        socket.slot.listed.store(0, SeqCst);
        if socket.slot.owner() == family::pid() && close::still_unread(&socket) {
            some = true;
            note(&socket);
        }
    }
    some
}

/// The longest that a thread may sleep that would sleep for `left` (`None`: for ever).
pub(crate) fn bounded(left: Option<u64>) -> Option<u64> {
    if any() { Some(left.unwrap_or(u64::MAX).min(SLICE_NS)) } else { left }
}

/// Before fork: no other thread may hold the list; the child gets it unlocked.
pub(crate) fn lock_for_fork() {
    core::mem::forget(LIST.lock());
}

/// After fork, on both sides.
pub(crate) fn unlock_after_fork() {
    // SAFETY: `lock_for_fork` left it locked by this very thread, or by its image in the parent.
    unsafe { LIST.unlock_forgotten() };
}
