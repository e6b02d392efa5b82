//! select and pselect, as a poll over the same descriptors.

use driver::clock::monotonic_ns;
use driver::sys::{self, Errno};
use libc::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND, POLLWRNORM,
    c_int, fd_set, pollfd, sigset_t,
};

use crate::buffers::is_plausible;
use crate::net::ready;
use crate::poll::{Poll, concerns_us};
use crate::{jump, real};

/// What each of the three sets asks for, and which results count for it (fs/select.c: POLLIN_SET and so on).
const ASKED: [i16; 3] = [POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM, POLLPRI];
const GIVEN: [i16; 3] = [
    POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR,
    POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR,
    POLLPRI,
];

/// One call: its descriptors as a poll array, and the sets to write the answer to.
pub(crate) struct Select {
    fds: Vec<pollfd>,
    sets: [*mut fd_set; 3],
}

/// The descriptors of the three sets as a poll array, if any of them has rings.
///
/// # Safety
/// Each set is null or readable for `count` bits.
pub(crate) unsafe fn sets_of(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
) -> Option<Vec<pollfd>> {
    let sets = [read, write, except];
    let in_any = |fd: c_int| {
        sets.iter().any(|set| {
            // SAFETY: the caller's contract, for fd < count.
            unsafe { has(*set, fd) }
        })
    };
    if sets.iter().any(|set| !set.is_null() && !is_plausible(*set)) {
        return None;
    }
    let all = || (0..count).filter(|fd| in_any(*fd));
    if count <= 0 || !concerns_us(all()) && !ready::concerns(all()) {
        return None;
    }
    let mut fds = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, asked) in sets.iter().zip(ASKED) {
            // SAFETY: as above.
            if unsafe { has(*set, fd) } {
                events |= asked;
            }
        }
        if events != 0 {
            fds.push(pollfd { fd, events, revents: 0 });
        }
    }
    Some(fds)
}

/// Whether bit `fd` is set. Not `FD_ISSET`: programs pass sets larger than FD_SETSIZE.
///
/// # Safety
/// `set` is null or readable for `fd + 1` bits.
unsafe fn has(set: *mut fd_set, fd: c_int) -> bool {
    if set.is_null() {
        return false;
    }
    // SAFETY: the caller's contract.
    unsafe { set.cast::<u64>().add(fd as usize / 64).read_unaligned() >> (fd as usize % 64) & 1 != 0 }
}

/// Clears bit `fd`.
///
/// # Safety
/// As [`has`], and writable.
unsafe fn clear(set: *mut fd_set, fd: c_int) {
    // SAFETY: the caller's contract.
    unsafe {
        let word = set.cast::<u64>().add(fd as usize / 64);
        word.write_unaligned(word.read_unaligned() & !(1 << (fd as usize % 64)));
    }
}

impl Select {
    pub(crate) const fn new(fds: Vec<pollfd>, sets: [*mut fd_set; 3]) -> Self {
        Self { fds, sets }
    }

    /// Waits, and writes the answer into the sets. Also gives the nanoseconds that are left.
    pub(crate) fn wait(
        &mut self,
        timeout_ns: Option<u64>,
        may_spin: bool,
        mask: Option<&sigset_t>,
    ) -> (sys::Result<usize>, Option<u64>) {
        let mut fds = core::mem::take(&mut self.fds);
        if ready::concerns(fds.iter().map(|entry| entry.fd)) {
            let started = monotonic_ns();
            let outcome = ready::poll(&mut fds, timeout_ns, may_spin, mask);
            let left = timeout_ns.map(|limit| limit.saturating_sub(monotonic_ns() - started));
            return (outcome.and_then(|_| self.answer(&fds)), left);
        }
        let array = &raw mut fds;
        let mut call = Poll::new(&mut fds, timeout_ns, may_spin, mask.is_some());
        let mut wait = || {
            call.wait(|list, left| {
                let left = left.map(|ns| libc::timespec {
                    tv_sec: (ns / 1_000_000_000) as i64,
                    tv_nsec: (ns % 1_000_000_000) as i64,
                });
                let pointer = left.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
                let mask = mask.map_or(core::ptr::null(), core::ptr::from_ref);
                // SAFETY: the array is a live slice; the mask is the caller's.
                let result =
                    unsafe { real::ppoll(list.as_mut_ptr(), list.len() as libc::nfds_t, pointer, mask) };
                usize::try_from(result).map_err(|_| Errno(crate::errno::get()))
            })
        };
        // SAFETY: after a jump nobody uses the array, or the call that borrows it, again.
        let outcome = jump::holding(&mut || drop(unsafe { core::mem::take(&mut *array) }), &mut wait);
        let left = call.left();
        drop(call);
        (outcome.and_then(|_| self.answer(&fds)), left)
    }

    fn answer(&self, fds: &[pollfd]) -> sys::Result<usize> {
        if fds.iter().any(|entry| entry.revents & POLLNVAL != 0) {
            return Err(Errno(libc::EBADF));
        }
        let mut bits = 0;
        for entry in fds {
            for ((set, asked), given) in self.sets.iter().zip(ASKED).zip(GIVEN) {
                if set.is_null() || entry.events & asked == 0 {
                    continue;
                }
                if entry.revents & given != 0 {
                    bits += 1;
                } else {
                    // SAFETY: the bit was read from this set.
                    unsafe { clear(*set, entry.fd) };
                }
            }
        }
        Ok(bits)
    }
}
