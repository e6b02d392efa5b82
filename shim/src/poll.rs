//! poll, ppoll, select, pselect over any mix of followed and other descriptors.
//!
//! As with epoll: rings first, the kernel beside them, then spinning, then every covered direction is closed
//! and the thread sleeps in the kernel's own call.

use core::mem::take;

use driver::channel::Channel;
use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::sys::{self, Errno};
use libc::{POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, c_int, pollfd};

use crate::epoll::{self, Set};
use crate::fdtable;
use crate::guard::{self, Interrupt};
use crate::rx::{Sleeper, mark};
use crate::slot::{self, Pin, Socket};
use crate::{family, jump, spin, unread};

const READ: i16 = POLLIN | POLLRDNORM;
const WRITE: i16 = POLLOUT | POLLWRNORM;
/// Followed sockets in one call that are looked at; further ones are closed and left to the kernel.
const WATCHED_MAX: usize = 512;
/// While a thread spins, the kernel is asked this often.
const ASK_SPINNING_USEC: u64 = 5;

/// A followed socket in the array, kept alive for the call.
struct Watched {
    index: usize,
    socket: Socket,
    channel: Channel,
    /// Bytes lay in the ring when the array was last filled.
    unread: bool,
    _pin: Pin,
}

/// One call.
pub(crate) struct Poll<'a> {
    fds: &'a mut [pollfd],
    watched: Vec<Watched>,
    /// Epoll sets in the array, with their places.
    sets: Vec<(usize, &'static Set)>,
    timeout_ns: Option<u64>,
    may_spin: bool,
    /// The call has a signal mask: it must reach the kernel, where the signals that it lets in are delivered.
    masked: bool,
    started: u64,
}

/// Whether any of the descriptors has rings, or is a set that may hold such: otherwise libc alone answers.
pub(crate) fn concerns_us(mut fds: impl Iterator<Item = c_int>) -> bool {
    fds.any(|fd| {
        fdtable::is_active(fd)
            && (epoll::find(fd).is_some() || slot::find(fd).is_some_and(|socket| socket.is_live()))
    })
}

impl<'a> Poll<'a> {
    /// Looks the descriptors up.
    pub(crate) fn new(fds: &'a mut [pollfd], timeout_ns: Option<u64>, may_spin: bool, masked: bool) -> Self {
        let (mut watched, mut sets) = (Vec::new(), Vec::new());
        for (index, fd) in fds.iter().map(|entry| entry.fd).enumerate() {
            if let Some(set) = epoll::find(fd) {
                epoll::tell_kernel(set, fd);
                sets.push((index, set));
            } else if let Some(socket) = slot::find(fd).filter(Socket::is_live) {
                family::check_owner(&socket);
                let held = socket.lock_receive();
                if let Some(channel) = socket.channel(&held).copied() {
                    mark::settle(&socket, &held);
                    let pin = socket.pin();
                    if watched.len() < WATCHED_MAX
                        || channel.incoming().close().position() != channel.incoming().head()
                    {
                        watched.push(Watched { index, socket, channel, unread: false, _pin: pin });
                    }
                }
            }
        }
        Self { fds, watched, sets, timeout_ns, may_spin, masked, started: ticks() }
    }

    /// Waits. `sleep` is the program's own blocking call with the nanoseconds that are left; it fills the
    /// array. The result is what poll(2) returns.
    pub(crate) fn wait(
        &mut self,
        sleep: impl Fn(&mut [pollfd], Option<u64>) -> sys::Result<usize>,
    ) -> sys::Result<usize> {
        if self.masked && (self.is_readable() || self.timeout_ns == Some(0)) {
            let watched = &mut self.watched;
            let body = || guard::outside(|| sleep(self.fds, Some(0)));
            let result = jump::holding(&mut || drop(take(watched)), body);
            let count = self.answer(false)?;
            if count > 0 {
                return Ok(count);
            }
            result?;
            if self.timeout_ns == Some(0) {
                return Ok(0);
            }
            // The sender has taken the bytes back, for the kernel.
        }
        loop {
            if self.is_readable() {
                let count = self.answer(false)?;
                // The sender may have taken the bytes back, for the kernel.
                if count > 0 {
                    spin::record_ready();
                    return Ok(count);
                }
            }
            let left = self.left();
            if left == Some(0) {
                return self.answer(false);
            }
            match self.spin(left) {
                spin::End::Ready => {
                    spin::record(self.started);
                    // The kernel's own events may have ended it, and may be gone again: then go on.
                    let by_kernel = !self.is_readable();
                    let count = self.answer(by_kernel)?;
                    if count > 0 {
                        return Ok(count);
                    }
                    continue;
                }
                spin::End::Signal => {
                    // poll and select are never restarted: signal(7).
                    let watched = &mut self.watched;
                    let taken = jump::holding(&mut || drop(take(watched)), guard::take_interrupt);
                    if taken != Interrupt::None {
                        return Err(Errno(libc::EINTR));
                    }
                    continue;
                }
                spin::End::Expired => {}
            }
            if let Some(result) = self.sleep(&sleep) {
                return result;
            }
        }
    }

    fn sleep(
        &mut self,
        sleep: &impl Fn(&mut [pollfd], Option<u64>) -> sys::Result<usize>,
    ) -> Option<sys::Result<usize>> {
        let left = self.left();
        let mut sleepers: Vec<Sleeper> = self.watched.iter().map(Watched::close_for_sleep).collect();
        let mut in_sets: Vec<epoll::Sleeping> =
            self.sets.iter().map(|(_, set)| epoll::Sleeping::enter(set)).collect();
        let sets_have = self.sets.iter().fold(false, |has, (_, set)| has | epoll::close_for_sleep(set));
        if sets_have || self.is_readable() {
            return None;
        }
        spin::record_sleep();
        let mut slice = unread::bounded(left);
        if self.watched.iter().any(|one| mark::has_too_little(&one.socket, &one.channel)) {
            // Another thread may lower the mark: then the ring's bytes are enough, and nothing wakes this one.
            slice = Some(slice.unwrap_or(u64::MAX).min(unread::SLICE_NS));
        }
        let watched = &mut self.watched;
        let mut undo = || drop((take(&mut in_sets), take(&mut sleepers), take(watched)));
        let body = || guard::outside_unless_interrupted(|| sleep(self.fds, slice));
        let slept = jump::holding(&mut undo, body);
        drop(in_sets);
        drop(sleepers);
        spin::record(self.started);
        match slept {
            Err(_) => Some(Err(Errno(libc::EINTR))),
            Ok(Ok(0)) if self.left() != Some(0) => None,
            // By a mark, perhaps, that another thread has put right since: ask again.
            Ok(Ok(1..))
                if self.watched.iter().any(|one| mark::is_marked(&one.socket)) || self.is_outdated() =>
            {
                self.answer(true)
                    .map_or_else(|error| Some(Err(error)), |count| (count > 0).then_some(Ok(count)))
            }
            Ok(result) => Some(result),
        }
    }

    /// Nanoseconds that are left of the timeout.
    pub(crate) fn left(&self) -> Option<u64> {
        let limit = self.timeout_ns?;
        let passed = u128::from(ticks().wrapping_sub(self.started)) * 1000 / u128::from(ticks_per_usec());
        Some(limit.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// Whether some ring makes a descriptor readable that was asked about.
    fn is_readable(&self) -> bool {
        self.watched.iter().any(|one| self.fds[one.index].events & READ != 0 && one.has_bytes())
            || self
                .sets
                .iter()
                .any(|(index, set)| self.fds[*index].events & READ != 0 && epoll::has_something(set))
    }

    /// Whether the kernel may have answered by a mark that was too low.
    fn is_outdated(&self) -> bool {
        self.watched.iter().any(|one| mark::was_outdated(&one.socket))
            || self.sets.iter().any(|(_, set)| epoll::is_outdated(set))
    }

    /// Fills the array without waiting, as poll with a timeout of 0 would. `by_kernel`: the kernel is known to have
    /// something, be it the end of a peer that was killed, and is asked even where rings should tell all.
    fn answer(&mut self, by_kernel: bool) -> sys::Result<usize> {
        // Rings first: bytes may go from there to the kernel meanwhile.
        self.watched.iter_mut().for_each(|one| one.unread = one.has_bytes());
        if by_kernel
            || self.fds.len() != self.watched.len()
            || !self.watched.iter().all(|one| one.says_all(self.fds[one.index].events))
        {
            loop {
                // SAFETY: a live slice.
                let count = unsafe { sys::poll(self.fds.as_mut_ptr(), self.fds.len(), 0) }?;
                if count == 0 || !self.is_outdated() {
                    break;
                }
            }
        } else {
            self.fds.iter_mut().for_each(|entry| entry.revents = 0);
        }
        for one in &self.watched {
            let entry = &mut self.fds[one.index];
            if one.unread {
                entry.revents |= entry.events & READ;
            }
            if one.channel.outgoing().word().is_open() {
                entry.revents |= entry.events & WRITE;
            }
        }
        for (index, set) in &self.sets {
            let entry = &mut self.fds[*index];
            if entry.events & READ != 0 && epoll::has_something(set) {
                entry.revents |= entry.events & READ;
            }
        }
        Ok(self.fds.iter().filter(|entry| entry.revents != 0).count())
    }

    fn spin(&mut self, left_ns: Option<u64>) -> spin::End {
        let cpu = current_cpu();
        self.watched.iter().for_each(|one| one.channel.publish_cpu(cpu));
        let open = self.watched.iter().any(|one| one.channel.incoming().word().is_open());
        if !open && self.sets.is_empty() {
            return spin::End::Expired;
        }
        let mut budget = spin::budget(self.may_spin);
        if let Some(left) = left_ns {
            budget = budget.min((u128::from(left) * u128::from(ticks_per_usec()) / 1000) as u64);
        }
        let peer = self.watched.first().map(|one| one.channel);
        let (fds, count) = (self.fds.as_mut_ptr(), self.fds.len());
        spin::Watch {
            budget,
            peer_cpu: || peer.and_then(|channel| channel.peer_cpu()),
            ready: || self.is_readable(),
            // SAFETY: a live slice; `is_readable` reads only what the kernel does not write.
            look: || unsafe { sys::poll(fds, count, 0) }.is_ok_and(|count| count > 0),
            look_usec: ASK_SPINNING_USEC,
        }
        .run()
    }
}

impl Watched {
    fn has_bytes(&self) -> bool {
        mark::has_enough(&self.socket, &self.channel)
    }

    /// Whether the rings alone tell everything that is asked: open both ways, nothing but reading and writing.
    fn says_all(&self, events: i16) -> bool {
        events & !(READ | WRITE) == 0
            && self.channel.incoming().word().is_open()
            && (events & WRITE == 0 || self.channel.outgoing().word().is_open())
    }

    fn close_for_sleep(&self) -> Sleeper {
        let _held = self.socket.lock_receive();
        let sleeper = Sleeper::enter(&self.socket);
        self.channel.incoming().close();
        sleeper
    }
}
