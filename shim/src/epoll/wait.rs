//! epoll_wait: rings first, the kernel beside them, then spinning, then sleep in the kernel.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::sys::{self, Errno};
use libc::{
    EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDNORM, EPOLLWRNORM, c_int, epoll_event,
    pollfd,
};

use super::control::{without_outdated, without_outdated_sets};
use super::{Inner, QUIET_SCANS, Set, at};
use crate::guard::{self, Interrupt};
use crate::{jump, rx, spin, unread};

/// While rings keep a thread busy, the kernel is asked this often all the same.
const ASK_USEC: u64 = 5;
/// While a thread spins, the kernel is asked this often.
const ASK_SPINNING_USEC: u64 = 5;
/// Looks at the kernel while spinning after which it is told every registration.
const LOOKS_UNTIL_TRUE: u32 = 200;
pub(super) const READ: u32 = (EPOLLIN | EPOLLRDNORM) as u32;
const WRITE: u32 = (EPOLLOUT | EPOLLWRNORM) as u32;

/// One epoll_wait call.
pub(crate) struct Waiting<'a> {
    pub(crate) fd: c_int,
    pub(crate) events: &'a mut [epoll_event],
    /// Nanoseconds; `None` waits for ever.
    pub(crate) timeout_ns: Option<u64>,
    pub(crate) may_spin: bool,
    /// The call's signal mask, if it has one.
    pub(crate) mask: Option<&'a libc::sigset_t>,
}

/// Waits. `sleep` is the program's own blocking call with the time that is left (in nanoseconds).
pub(crate) fn wait(
    set: &'static Set,
    mut call: Waiting<'_>,
    sleep: impl Fn(&mut [epoll_event], Option<u64>) -> sys::Result<usize>,
) -> sys::Result<usize> {
    if set.has_carried() {
        let mask = call.mask;
        return super::carried::wait(set, call, mask);
    }
    let started = ticks();
    loop {
        if let Some(count) = call.look(set, started)? {
            return Ok(count);
        }
        let left = call.left(started);
        if left == Some(0) {
            return Ok(0);
        }
        match call.spin(set, left) {
            spin::End::Ready => continue,
            spin::End::Signal => {
                // epoll_wait is never restarted: signal(7).
                if guard::take_interrupt() != Interrupt::None {
                    return Err(Errno(libc::EINTR));
                }
                continue;
            }
            spin::End::Expired => {}
        }
        let left = call.left(started);
        if left == Some(0) {
            continue;
        }
        let mut sleeper = Some(Sleeping::enter(set));
        if close_for_sleep(set) {
            drop(sleeper);
            continue;
        }
        let slice = unread::bounded(left);
        spin::record_sleep();
        let body = || guard::outside_unless_interrupted(|| sleep(call.events, slice));
        let slept = jump::holding(&mut || drop(sleeper.take()), body);
        drop(sleeper);
        let count = slept.map_err(|_| Errno(libc::EINTR))??;
        spin::record(started);
        let count = call.filtered(set, count);
        if count == 0 && call.left(started) != Some(0) {
            continue;
        }
        return Ok(count);
    }
}

/// Counts a thread that sleeps on the set. Also on unwinding.
pub(crate) struct Sleeping(&'static Set);

impl Sleeping {
    pub(crate) fn enter(set: &'static Set) -> Self {
        set.sleeping.fetch_add(1, SeqCst);
        let mut inner = set.lock();
        inner.unpark_all(set.fd.load(Relaxed));
        for nested in &inner.nested {
            if let Some(inside) = at(nested.name) {
                inside.sleeping.fetch_add(1, SeqCst);
            }
        }
        drop(inner);
        Self(set)
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        let inner = self.0.lock();
        for nested in &inner.nested {
            if let Some(inside) = at(nested.name) {
                let _ = inside.sleeping.fetch_update(SeqCst, Relaxed, |count| count.checked_sub(1));
            }
        }
        drop(inner);
        self.0.sleeping.fetch_sub(1, SeqCst);
    }
}

/// Closes every open member of the set; true if one holds bytes that may be reported.
pub(crate) fn close_for_sleep(set: &Set) -> bool {
    let mut inner = set.lock();
    let mut something = false;
    let Inner { members, open, .. } = &mut *inner;
    open.retain(|member| {
        let incoming = member.channel.incoming();
        let word = incoming.close();
        member.channel.publish_cpu(current_cpu());
        let unread = word.position() != incoming.head() && rx::comes_here(&member.channel);
        // Sleeping::enter has made every registration true, so the kernel reports who is writable.
        let wanted = members.get(member.fd).is_some_and(|registered| {
            let edge = registered.events & EPOLLET as u32 != 0;
            registered.armed && registered.events & READ != 0 && !(edge && registered.seen == word.position())
        });
        something |= unread && wanted && member.has_enough();
        unread
    });
    something
}

/// Whether a poll on the set's descriptor would find it readable through a ring.
pub(crate) fn has_something(set: &Set) -> bool {
    let inner = set.lock();
    inner.open.iter().any(|open| {
        let incoming = open.channel.incoming();
        let tail = incoming.word().position();
        open.has_enough()
            && inner.members.get(open.fd).is_some_and(|member| {
                member.armed
                    && member.events & READ != 0
                    && !(member.events & EPOLLET as u32 != 0 && member.seen == tail)
            })
    })
}

impl Waiting<'_> {
    /// Nanoseconds that are left of the timeout.
    fn left(&self, started: u64) -> Option<u64> {
        let limit = self.timeout_ns?;
        let passed = u128::from(ticks().wrapping_sub(started)) * 1000 / u128::from(ticks_per_usec());
        Some(limit.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// Rings, and the kernel where it is due. `None`: nothing anywhere.
    pub(super) fn look(&mut self, set: &Set, started: u64) -> sys::Result<Option<usize>> {
        let fd = self.fd;
        if set.kernel_is_next() {
            // The rings filled the whole room last time: it is the kernel's turn.
            // SAFETY: the events are a live slice of this length.
            let found =
                unsafe { sys::epoll_wait(fd, self.events.as_mut_ptr(), self.events.len() as c_int, 0) }?;
            let found = brought(fd, set, &mut self.events[..found], true);
            if found > 0 {
                return Ok(Some(found));
            }
        }
        let count = scan(fd, &mut set.lock(), self.events);
        if count > 0 {
            spin::record_ready();
            let now = ticks();
            if count < self.events.len()
                && now.wrapping_sub(set.asked.load(Relaxed)) > ASK_USEC * ticks_per_usec()
            {
                set.asked.store(now, Relaxed);
                return Ok(Some(self.add_kernel_events(set, count)));
            }
            return Ok(Some(count));
        }
        // A caller that will wait asks while it spins; one that only looks asks now.
        let now = ticks();
        let recently = now.wrapping_sub(set.asked.load(Relaxed)) < ASK_SPINNING_USEC * ticks_per_usec();
        if recently && self.timeout_ns != Some(0) && set.is_open() {
            return Ok(None);
        }
        set.asked.store(now, Relaxed);
        // SAFETY: the events are a live slice of this length.
        let found = unsafe { sys::epoll_wait(fd, self.events.as_mut_ptr(), self.events.len() as c_int, 0) }?;
        if found == 0 {
            return Ok(None);
        }
        let found = brought(fd, set, &mut self.events[..found], true);
        if found == 0 {
            return Ok(None);
        }
        spin::record(started);
        Ok(Some(found))
    }

    /// Adds what the kernel has to the `count` events from rings; one entry per registration.
    fn add_kernel_events(&mut self, set: &Set, count: usize) -> usize {
        let (ours, room) = self.events.split_at_mut(count);
        // SAFETY: the rest is a live slice of this length.
        let found =
            unsafe { sys::epoll_wait(self.fd, room.as_mut_ptr(), room.len() as c_int, 0) }.unwrap_or(0);
        let found = brought(self.fd, set, &mut room[..found], true);
        let mut kept = 0;
        for index in 0..found {
            let event = room[index];
            let data = event.u64;
            match ours.iter_mut().find(|other| { other.u64 } == data) {
                Some(other) => other.events |= event.events,
                None => {
                    room[kept] = event;
                    kept += 1;
                }
            }
        }
        count + kept
    }

    /// Spins on the open members' words.
    fn spin(&self, set: &Set, left_ns: Option<u64>) -> spin::End {
        let peer = {
            let inner = set.lock();
            let Some(first) = inner.open.iter().min_by_key(|open| open.quiet) else {
                return spin::End::Expired;
            };
            first.channel.publish_cpu(current_cpu());
            first.channel
        };
        let mut budget = spin::budget(self.may_spin);
        if let Some(left) = left_ns {
            budget = budget.min((u128::from(left) * u128::from(ticks_per_usec()) / 1000) as u64);
        }
        let mut looks = 0u32;
        spin::Watch {
            budget,
            peer_cpu: || peer.peer_cpu(),
            ready: || moved(&set.lock()),
            look: || {
                looks += 1;
                if looks.is_multiple_of(LOOKS_UNTIL_TRUE) {
                    // A killed peer shows only in the kernel, and only if that knows what is asked.
                    set.lock().unpark_all(self.fd);
                }
                kernel_is_ready(self.fd)
            },
            look_usec: ASK_SPINNING_USEC,
        }
        .run()
    }

    /// Events that the kernel gave after a sleep; those of a member that was only made loud to wake us, and
    /// has nothing that its registration asks for, go.
    fn filtered(&mut self, set: &Set, count: usize) -> usize {
        let count = brought(self.fd, set, &mut self.events[..count], false);
        let extra = scan(self.fd, &mut set.lock(), &mut self.events[count..]);
        count + extra
    }
}

impl Inner {
    /// The kernel reported these: one-shot members among them are not reported again until re-armed, and what
    /// parked members bring is put right. Gives how many remain.
    fn reported(&mut self, set_fd: c_int, events: &mut [epoll_event]) -> usize {
        let count = self.translate(set_fd, events);
        if !self.one_shots {
            return count;
        }
        events[..count].iter().for_each(|event| self.carried.reported_by_kernel(event.u64));
        for event in &events[..count] {
            for member in self.members.iter_mut() {
                if member.events & EPOLLONESHOT as u32 != 0 && member.data == { event.u64 } {
                    member.armed = false;
                }
            }
        }
        count
    }

    /// Puts the registrations right that were made loud to wake a sleeper, and takes out what only that brought.
    /// They stay loud for others that sleep on the set, and for an outer set while ring bytes wait.
    pub(super) fn hush(&mut self, set_fd: c_int, events: &mut [epoll_event], others_sleep: bool) -> usize {
        let mut count = events.len();
        for fd in core::mem::take(&mut self.loud) {
            let Some(member) = self.members.get(fd).copied() else { continue };
            if others_sleep || self.outer > 0 && self.is_unread(fd) {
                self.loud.push(fd);
            } else {
                let mut event = epoll_event { events: member.events, u64: member.data };
                // SAFETY: the event is a local.
                let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &raw mut event) };
            }
            let mut index = 0;
            while index < count {
                let reported = events[index];
                if { reported.u64 } == member.data {
                    let asked = member.events | (libc::EPOLLERR | libc::EPOLLHUP) as u32;
                    events[index].events = reported.events & asked;
                    if reported.events & asked == 0 {
                        count -= 1;
                        events[index] = events[count];
                        continue;
                    }
                }
                index += 1;
            }
        }
        count
    }
}

/// What remains of events that the kernel gave. `at_once`: without a sleep, so that others may still have to be woken.
fn brought(set_fd: c_int, set: &Set, events: &mut [epoll_event], at_once: bool) -> usize {
    let mut inner = set.lock();
    let others_sleep = at_once && set.sleeping.load(SeqCst) > 0;
    let count = inner.hush(set_fd, events, others_sleep);
    let count = inner.reported(set_fd, &mut events[..count]);
    let (lowered, nested) = (inner.lowered(), inner.nested.clone());
    drop(inner);
    let count = without_outdated(set, set_fd, lowered, &mut events[..count]);
    without_outdated_sets(set_fd, &nested, &mut events[..count])
}

/// Whether the kernel would report anything, without taking edges: a poll on the set itself.
pub(super) fn kernel_is_ready(fd: c_int) -> bool {
    let mut poll = pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { sys::poll(&raw mut poll, 1, 0) }.is_ok_and(|count| count > 0)
}

/// Whether any open member has unread bytes that were not reported yet, or was closed by its peer.
fn moved(inner: &Inner) -> bool {
    inner.open.iter().any(|open| {
        let incoming = open.channel.incoming();
        let (head, word) = (incoming.head(), incoming.word());
        if !word.is_open() && word.position() == head {
            // Its peer closed: the kernel has something, and must be told to report it.
            return !inner.parked.is_empty();
        }
        word.position() != head
            && (word.is_open() || open.has_enough())
            && inner.members.get(open.fd).is_some_and(|member| {
                let edge = member.events & EPOLLET as u32 != 0;
                member.armed && member.events & READ != 0 && !(edge && member.seen == word.position())
            })
    })
}

/// Reports members whose rings hold bytes; drops from the list those that are closed and empty.
fn scan(set_fd: c_int, inner: &mut Inner, events: &mut [epoll_event]) -> usize {
    let (mut count, mut index) = (0, 0);
    let mut unpark = Vec::new();
    let Inner { members, open, next, was_full, .. } = inner;
    let length = open.len();
    if length == 0 || events.is_empty() {
        return 0;
    }
    *next %= length;
    open.rotate_left(*next);
    *next = 0;
    while index < open.len() && count < events.len() {
        let member = &mut open[index];
        let incoming = member.channel.incoming();
        let (head, word) = (incoming.head(), incoming.word());
        let unread = word.position() != head && (word.is_open() || rx::comes_here(&member.channel));
        if let Some(registered) = members.get(member.fd).filter(|registered| registered.parked) {
            if registered.ghost {
                if word.is_closed() {
                    unpark.push(member.fd);
                }
                index += 1;
                continue;
            }
            if !super::park::is_open(&member.channel) {
                unpark.push(member.fd);
            } else if registered.events & WRITE != 0 {
                let holds = if unread { READ | WRITE } else { WRITE };
                events[count] = epoll_event { events: registered.events & holds, u64: registered.data };
                count += 1;
                index += 1;
                member.quiet = if unread { 0 } else { member.quiet + 1 };
                if member.quiet.is_multiple_of(QUIET_SCANS) && !unread {
                    // A killed peer shows only in the kernel, and only if that knows what is asked.
                    unpark.push(member.fd);
                }
                continue;
            }
        }
        if !unread {
            member.quiet += 1;
            let done = word.is_closed()
                || member.quiet > QUIET_SCANS && {
                    let word = incoming.close();
                    word.position() == incoming.head()
                };
            if done {
                // From now on only the kernel tells of it.
                if members.get(member.fd).is_some_and(|registered| registered.parked) {
                    unpark.push(member.fd);
                }
                open.swap_remove(index);
            } else {
                index += 1;
            }
            continue;
        }
        index += 1;
        member.quiet = 0;
        if word.is_closed() && !member.has_enough() {
            continue;
        }
        let Some(registered) = members.get_mut(member.fd) else { continue };
        let edge = registered.events & EPOLLET as u32 != 0;
        if !registered.armed || registered.events & READ == 0 || edge && registered.seen == word.position() {
            continue;
        }
        registered.seen = word.position();
        events[count] =
            epoll_event { events: mask(member.fd, registered.events, &member.channel), u64: registered.data };
        count += 1;
        if registered.events & EPOLLONESHOT as u32 != 0 {
            registered.armed = false;
            disarm(set_fd, member.fd, registered.data);
        }
    }
    if count == events.len() {
        *next = index;
        *was_full = true;
    }
    for fd in unpark {
        inner.unpark(set_fd, fd);
    }
    count
}

/// What a member with unread ring bytes reports, as the kernel would: everything that holds.
fn mask(fd: c_int, wanted: u32, channel: &driver::channel::Channel) -> u32 {
    let closing = !channel.incoming().word().is_open();
    let writes = wanted & WRITE != 0;
    if !closing && (!writes || channel.outgoing().word().is_open()) {
        return wanted & (READ | WRITE);
    }
    wanted & READ | polled(fd, wanted)
}

/// What the kernel says of a descriptor for this registration.
pub(super) fn polled(fd: c_int, wanted: u32) -> u32 {
    let mut poll = pollfd { fd, events: (wanted & 0xffff) as i16, revents: 0 };
    // SAFETY: one entry.
    let _ = unsafe { sys::poll(&raw mut poll, 1, 0) };
    u32::from(poll.revents as u16)
}

/// A one-shot member was reported from its ring: the kernel must not report it as well.
pub(super) fn disarm(set_fd: c_int, fd: c_int, data: u64) {
    let mut event = epoll_event { events: EPOLLONESHOT as u32, u64: data };
    // SAFETY: the event is a local.
    let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &raw mut event) };
}
