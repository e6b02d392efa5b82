//! Readiness of sockets that the stack has, as poll(2) tells it; and poll and select over any mix of descriptors.

use driver::clock::{monotonic_ns, ticks};
use driver::sys::{self, Errno};
use engine::bells::{Sleeper, Who};
use libc::{
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLRDNORM, EPOLLWRBAND, EPOLLWRNORM,
    c_int, pollfd, sigset_t,
};
use stack::events::{self, Events};

use super::{Carried, attach, waitable};
use crate::calls::wait::to_timespec;
use crate::epoll::{self, Set};
use crate::guard::{self, Interrupt};
use crate::poll::Poll;
use crate::slot::{self, Pin};
use crate::{fdtable, jump, real, spin};

/// What poll(2) and epoll(7) call each bit of an event word (tcp_poll in net/ipv4/tcp.c).
const BITS: &[(u64, c_int)] = &[
    (events::READABLE, EPOLLIN | EPOLLRDNORM),
    (events::WRITABLE, EPOLLOUT | EPOLLWRNORM),
    (events::FAILED, EPOLLERR),
    (events::HUNG_UP, EPOLLHUP),
    (events::READ_HUNG_UP, EPOLLRDHUP),
    (events::URGENT, EPOLLPRI),
];
/// What is told unasked.
const ALWAYS: u32 = (EPOLLERR | EPOLLHUP) as u32;
/// Between two looks at the kernel while a thread spins.
const LOOK_USEC: u64 = 5;
/// Without descriptors for a real sleep it is cut short, in nanoseconds.
const SHORT: u64 = 1_000_000;

/// The bits of poll(2) for what is ready, as far as they are asked for.
pub(crate) fn bits(events: Events, asked: u32) -> u32 {
    let all =
        BITS.iter().filter(|(bit, _)| events.ready & bit != 0).fold(0, |all, (_, bits)| all | *bits as u32);
    all & (asked | ALWAYS)
}

/// What of a carried socket is ready: of UDP's, errors are the kernel's to tell, and bits that TCP doesn't have go with room
/// (datagram_poll in net/core/datagram.c).
pub(crate) fn bits_of(carried: &Carried, asked: u32) -> u32 {
    let mut events = carried.events();
    if !carried.is_udp {
        return bits(events, asked);
    }
    events.ready &= !events::FAILED;
    let band = if events.ready & events::WRITABLE != 0 { EPOLLWRBAND as u32 & asked } else { 0 };
    bits(events, asked) | band
}

/// What the kernel is asked of its half of such a socket: it has room always.
pub(crate) const fn asked_of_kernel(asked: u32) -> u32 {
    asked & !((EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND) as u32)
}

/// Whether any of the descriptors is, or holds, one of the stack's.
pub(crate) fn concerns(mut fds: impl Iterator<Item = c_int>) -> bool {
    attach::is_on()
        && fds.any(|fd| {
            fdtable::is_active(fd)
                && (slot::find(fd).is_some_and(|socket| socket.is_in_stack())
                    || epoll::find(fd).is_some_and(Set::has_carried))
        })
}

/// Every stack takes what has arrived; when one of them wants to be asked again, in nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn poll_all() -> Option<u64> {
    let deadlines = attach::interfaces().filter_map(|interface| interface.engine.poll(guard::tid()));
    deadlines.map(|deadline| deadline.0).min()
}

/// This thread is asleep for every stack from now on; none where descriptors are short.
pub(crate) fn fall_asleep() -> Vec<Sleeper<'static>> {
    attach::interfaces()
        .filter_map(|interface| interface.engine.fall_asleep(guard::tid(), Who::Caller).ok())
        .collect()
}

/// The earlier of two moments, and what is left until then.
pub(crate) fn left_until(until: Option<u64>, deadline: Option<u64>, has_sleepers: bool) -> Option<u64> {
    let now = monotonic_ns();
    let short = (!has_sleepers).then_some(now + SHORT);
    [until, deadline, short].into_iter().flatten().min().map(|moment| moment.saturating_sub(now))
}

/// A descriptor in the array that the stack answers for.
struct Mine {
    index: usize,
    what: What,
}

enum What {
    Socket(Carried, #[allow(dead_code)] Pin), // keeps the slot alive
    Set(&'static Set),
}

impl Mine {
    fn bits(&self, asked: i16) -> i16 {
        let asked = u32::from(asked as u16);
        let found = match &self.what {
            What::Socket(carried, _) if carried.is_gone() => 0,
            What::Socket(carried, _) => bits_of(carried, asked),
            What::Set(set) if set.carries_something() => asked & (EPOLLIN | EPOLLRDNORM) as u32,
            What::Set(_) => 0,
        };
        found as u16 as i16
    }
}

/// One call of poll, ppoll, select or pselect.
struct Call<'a> {
    fds: &'a mut [pollfd],
    mine: Vec<Mine>,
    /// The array as the kernel and the rings get it: without the placeholders of connections.
    rest: Vec<pollfd>,
    /// A socket of UDP is among them that the stack may have by the end of a sleep.
    may_change: bool,
    until: Option<u64>,
    mask: Option<&'a sigset_t>,
}

/// poll(2) over an array in which something is the stack's.
///
/// # Errors
/// As the system call.
pub(crate) fn poll(
    fds: &mut [pollfd],
    timeout_ns: Option<u64>,
    may_spin: bool,
    mask: Option<&sigset_t>,
) -> sys::Result<usize> {
    let started = ticks();
    let mut call = Call::new(fds, timeout_ns, mask);
    loop {
        poll_all();
        if call.has_gone() {
            call.look_up();
        }
        let count = call.answer()?;
        if count > 0 {
            super::events_given().set(count as u64);
            spin::record(started);
            return Ok(count);
        }
        if call.until.is_some_and(|until| monotonic_ns() >= until) {
            return Ok(0);
        }
        match call.spin(may_spin && mask.is_none()) {
            spin::End::Ready => continue,
            // poll and select are never restarted: signal(7).
            spin::End::Signal if guard::take_interrupt() != Interrupt::None => {
                return Err(Errno(libc::EINTR));
            }
            spin::End::Signal => continue,
            spin::End::Expired => {}
        }
        call.sleep()?;
        if call.may_change {
            call.look_up();
        }
    }
}

impl<'a> Call<'a> {
    fn new(fds: &'a mut [pollfd], timeout_ns: Option<u64>, mask: Option<&'a sigset_t>) -> Self {
        let until = timeout_ns.map(|timeout| monotonic_ns().saturating_add(timeout));
        let mut call = Self { fds, mine: Vec::new(), rest: Vec::new(), may_change: false, until, mask };
        call.look_up();
        call
    }

    /// Finds out whose the descriptors are.
    fn look_up(&mut self) {
        let Self { fds, mine, rest, may_change, .. } = self;
        (*rest, *may_change) = (fds.to_vec(), false);
        mine.clear();
        for (index, entry) in rest.iter_mut().enumerate() {
            if let Some(carried) = waitable(entry.fd) {
                if carried.is_udp {
                    entry.events = asked_of_kernel(u32::from(entry.events as u16)) as u16 as i16;
                } else if carried.socket.connection().is_some() {
                    entry.fd = -1;
                }
                mine.push(Mine { index, what: What::Socket(carried, carried.socket.pin()) });
            } else if let Some(set) = epoll::find(entry.fd).filter(|set| set.has_carried()) {
                mine.push(Mine { index, what: What::Set(set) });
            } else {
                *may_change |= slot::find(entry.fd).is_some_and(|socket| socket.is_undecided());
            }
        }
    }

    /// The kernel has one of them by now.
    fn has_gone(&self) -> bool {
        self.mine.iter().any(|mine| match &mine.what {
            What::Socket(carried, _) => carried.events().is_at_kernels(),
            What::Set(_) => false,
        })
    }

    fn has_mine(&self) -> bool {
        self.has_gone() || self.mine.iter().any(|mine| mine.bits(self.fds[mine.index].events) != 0)
    }

    /// Fills the array with what is ready now.
    fn answer(&mut self) -> sys::Result<usize> {
        let mut rest = self.rest.clone();
        Poll::new(&mut rest, Some(0), false, false).wait(|list, _| {
            // SAFETY: a live slice.
            unsafe { sys::poll(list.as_mut_ptr(), list.len(), 0) }
        })?;
        self.take(&rest);
        Ok(self.fds.iter().filter(|entry| entry.revents != 0).count())
    }

    fn take(&mut self, rest: &[pollfd]) {
        for (entry, found) in self.fds.iter_mut().zip(rest) {
            entry.revents = found.revents;
        }
        for mine in &self.mine {
            let entry = &mut self.fds[mine.index];
            entry.revents |= mine.bits(entry.events);
        }
    }

    fn spin(&mut self, may_spin: bool) -> spin::End {
        let mut rest = self.rest.clone();
        spin::Watch {
            budget: spin::budget_until(may_spin, self.until),
            peer_cpu: || None,
            ready: || {
                poll_all();
                self.has_mine()
            },
            // SAFETY: a live slice.
            look: || unsafe { sys::poll(rest.as_mut_ptr(), rest.len(), 0) }.is_ok_and(|count| count > 0),
            look_usec: LOOK_USEC,
        }
        .run()
    }

    /// Sleeps until something may be ready: the caller looks.
    fn sleep(&mut self) -> sys::Result<()> {
        // Said first, looked afterwards: whoever brings something from now on rings.
        let mut sleepers = fall_asleep();
        let deadline = poll_all();
        if self.has_mine() {
            return Ok(());
        }
        spin::record_sleep();
        let mut all = self.rest.clone();
        all.extend(sleepers.iter().flat_map(Sleeper::fds));
        let left = left_until(self.until, deadline, !sleepers.is_empty());
        let mask = self.mask.map_or(core::ptr::null(), core::ptr::from_ref);
        let mut call = Poll::new(&mut all, left, false, !mask.is_null());
        let slept = jump::holding(&mut || drop(core::mem::take(&mut sleepers)), || {
            call.wait(|list, left| {
                let left = left.map(to_timespec);
                let left = left.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
                // SAFETY: a live slice; the mask is the caller's.
                let count = unsafe { real::ppoll(list.as_mut_ptr(), list.len() as _, left, mask) };
                usize::try_from(count).map_err(|_| Errno(crate::errno::get()))
            })
        });
        slept.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_tcp_poll() {
        let events = |ready| Events { ready, arrivals: 0, openings: 0 };
        let asked = (EPOLLIN | EPOLLOUT | EPOLLRDHUP) as u32;
        assert_eq!(bits(events(events::READABLE), asked), EPOLLIN as u32);
        assert_eq!(bits(events(events::WRITABLE | events::FAILED), EPOLLIN as u32), EPOLLERR as u32);
        let ended = events::READABLE | events::READ_HUNG_UP | events::HUNG_UP;
        assert_eq!(bits(events(ended), asked), (EPOLLIN | EPOLLRDHUP | EPOLLHUP) as u32);
        assert_eq!(bits(events(0), asked), 0);
    }
}
