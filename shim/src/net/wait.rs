//! Waiting for one socket of the stack: spin while that pays, then sleep until the device, or whoever runs it, tells.

use driver::clock::{monotonic_ns, ticks};
use driver::sys::{self, Errno};
use engine::bells::{Sleeper, Who};
use libc::{c_int, pollfd};
use stack::events::Events;

use super::Carried;
use super::ready::left_until;
use crate::guard::{self, Interrupt};
use crate::{jump, spin};

/// Microseconds between two looks at the kernel's part, if nobody says otherwise.
const LOOK_USEC: u64 = 5;
/// Most descriptors that end a sleep: the bell, the queues, one of the kernel's.
const FDS: usize = 1 + 64 + 1;

/// One call that waits.
#[derive(Debug)]
pub(crate) struct Wait {
    /// When it is over, in nanoseconds of CLOCK_MONOTONIC.
    until: Option<u64>,
    may_spin: bool,
    /// The kernel has a part in it: the descriptor of a listener, or of a socket of UDP.
    also: Option<c_int>,
    /// Microseconds between two looks at that while it spins.
    look_usec: u64,
}

/// The two timeouts of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timeout {
    Receive = libc::SO_RCVTIMEO as isize,
    Send = libc::SO_SNDTIMEO as isize,
}

impl Wait {
    /// A wait with the timeout that was set for the socket.
    pub(crate) fn of(carried: &Carried, timeout: Timeout, may_spin: bool) -> Self {
        let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
        let known = sys::getsockopt(carried.socket.fd, libc::SOL_SOCKET, timeout as c_int, &mut limit);
        let usec = limit.tv_sec.saturating_mul(1_000_000).saturating_add(limit.tv_usec);
        Self::limited(if known.is_ok() { usec.max(0) as u64 } else { 0 }, may_spin)
    }

    /// A wait of at most so many microseconds; 0 is no limit.
    pub(crate) fn limited(usec: u64, may_spin: bool) -> Self {
        let until = (usec > 0).then(|| monotonic_ns().saturating_add(usec.saturating_mul(1000)));
        Self { until, may_spin, also: None, look_usec: LOOK_USEC }
    }

    /// It ends when this descriptor is readable, too.
    pub(crate) const fn or_readable(self, fd: c_int) -> Self {
        Self { also: Some(fd), ..self }
    }

    /// The kernel's part is looked at so often, in microseconds, while it spins: each look is a system call.
    pub(crate) const fn looking_each(self, look_usec: u64) -> Self {
        Self { look_usec, ..self }
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| monotonic_ns() >= until)
    }

    /// Waits until some of `mask` is ready on the socket, or the kernel has something.
    ///
    /// # Errors
    /// EAGAIN when the time is over, EINTR.
    pub(crate) fn until(&self, carried: &Carried, mask: u64) -> sys::Result<()> {
        self.wait(carried, |events| events.ready & mask != 0 || events.is_at_kernels())
    }

    /// Waits until something arrives that wasn't there when so many arrivals were counted.
    ///
    /// # Errors
    /// As [`Wait::until`].
    pub(crate) fn for_arrival(&self, carried: &Carried, arrivals: u32) -> sys::Result<()> {
        self.wait(carried, |events| events.arrivals != arrivals)
    }

    /// Waits until this holds of what is ready, or the kernel has something. It is asked again when a bell of this process has rung.
    ///
    /// # Errors
    /// As [`Wait::until`].
    pub(crate) fn while_not(&self, carried: &Carried, is_enough: impl Fn(u64) -> bool) -> sys::Result<()> {
        self.wait(carried, |events| is_enough(events.ready))
    }

    fn wait(&self, carried: &Carried, is_enough: impl Fn(Events) -> bool) -> sys::Result<()> {
        // It waits for one thing: whatever it does next is waited for, too.
        super::events_given().set(1);
        let started = ticks();
        let is_ready = |carried: &Carried| is_enough(carried.events());
        loop {
            if self.spins(carried, &is_enough)? {
                spin::record(started);
                return Ok(());
            }
            if self.is_over() {
                return Err(Errno(libc::EAGAIN));
            }
            // Said first, looked afterwards: whoever brings something from now on rings.
            let sleeper = carried.interface.engine.fall_asleep(guard::tid(), Who::Caller);
            let deadline = carried.interface.engine.poll(guard::tid());
            if is_ready(carried) {
                return Ok(());
            }
            spin::record_sleep();
            if self.sleeps(sleeper.ok(), deadline.map(|deadline| deadline.0))? {
                return Ok(());
            }
            carried.interface.engine.poll(guard::tid());
            if is_ready(carried) {
                spin::record(started);
                return Ok(());
            }
        }
    }

    /// Spins for a while: whether it is ready.
    fn spins(&self, carried: &Carried, is_enough: impl Fn(Events) -> bool) -> sys::Result<bool> {
        let end = spin::Watch {
            budget: spin::budget_until(self.may_spin, self.until),
            peer_cpu: || None,
            ready: || is_enough(carried.poll()),
            look: || self.also.is_some_and(is_readable),
            look_usec: self.look_usec,
        }
        .run();
        match end {
            spin::End::Ready => Ok(true),
            spin::End::Expired => Ok(false),
            spin::End::Signal => self.interrupted(guard::take_interrupt()).map(|()| false),
        }
    }

    /// What handlers that ran mean: a call with a timeout fails whatever SA_RESTART says (signal(7)).
    fn interrupted(&self, interrupt: Interrupt) -> sys::Result<()> {
        match interrupt {
            Interrupt::Eintr => Err(Errno(libc::EINTR)),
            Interrupt::Restart if self.until.is_some() => Err(Errno(libc::EINTR)),
            Interrupt::Restart | Interrupt::None => Ok(()),
        }
    }

    /// Sleeps; whether the kernel's part is ready.
    fn sleeps(&self, sleeper: Option<Sleeper<'_>>, deadline: Option<u64>) -> sys::Result<bool> {
        let mut fds = [pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; FDS];
        let mut count = 1;
        fds[0].fd = self.also.unwrap_or(-1);
        if let Some(sleeper) = &sleeper {
            for (to, entry) in fds[1..].iter_mut().zip(sleeper.fds()) {
                *to = entry;
                count += 1;
            }
        }
        let left = left_until(self.until, deadline, sleeper.is_some());
        let mut sleeper = sleeper;
        let before = guard::runs();
        let slept = jump::holding(&mut || drop(sleeper.take()), || {
            guard::outside_unless_interrupted(|| sys::wait_for(&mut fds[..count], left))
        });
        drop(sleeper);
        match slept {
            Err(interrupt) => self.interrupted(interrupt).map(|()| false),
            Ok(Err(Errno(libc::EINTR))) => self.interrupted(guard::since(before)).map(|()| false),
            Ok(_) => Ok(fds[0].revents != 0),
        }
    }
}

/// Whether the kernel has something on this descriptor.
pub(crate) fn is_readable(fd: c_int) -> bool {
    let mut fds = [pollfd { fd, events: libc::POLLIN, revents: 0 }];
    sys::wait_for(&mut fds, Some(0)).is_ok_and(|count| count > 0)
}
