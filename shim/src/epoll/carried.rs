//! Members of a set that the network stack has. The kernel knows nothing of them: their readiness is the event words', and the log
//! of changes tells which of them to look at.

use driver::clock::{monotonic_ns, ticks, ticks_per_usec};
use driver::sys::{self, Errno};
use engine::bells::Sleeper;
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI,
    EPOLLRDHUP, c_int, epoll_event, pollfd, sigset_t,
};

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::wait::{self, Sleeping, Waiting, close_for_sleep};
use super::{Inner, Set, at_index};
use crate::calls::wait::to_timespec;
use crate::guard::{self, Interrupt};
use crate::net::{self, Carried, attach, ready};
use crate::slot::Socket;
use crate::{jump, real, spin};

/// What an arrival is an edge of; and room to send.
const COMES: u32 =
    (EPOLLIN | EPOLLPRI | EPOLLRDHUP | libc::EPOLLRDNORM | libc::EPOLLERR | libc::EPOLLHUP) as u32;
const OPENS: u32 = (EPOLLOUT | libc::EPOLLWRNORM) as u32;
/// Microseconds for which the kernel's part isn't asked again while the stack has something.
const ASK_USEC: u64 = 5;

/// How deep sets may lie in each other (EP_MAX_NESTS in fs/eventpoll.c).
const NESTED_MAX: u32 = 4;

/// A member.
#[derive(Clone, Copy, Debug)]
struct Member {
    fd: c_int,
    carried: Carried,
    events: u32,
    data: u64,
    /// EPOLLONESHOT: not reported again until re-armed.
    armed: bool,
    /// EPOLLET: the edges that were reported: arrivals, openings.
    seen: Option<(u32, u32)>,
    /// It is on the list of those that are looked at.
    listed: bool,
}

/// The members, and which of them may have something.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// Where the member of a descriptor, and of a record of the stack, is in `all`, plus one.
    by_fd: Vec<u32>,
    by_record: Vec<u32>,
    /// A socket is in the set under two numbers: every change is everybody's.
    has_doubles: bool,
    /// How many of them are of UDP.
    datagrams: usize,
    /// Descriptors that are looked at.
    listed: Vec<c_int>,
    /// One-shot members of UDP that were reported, and what they are called: the kernel still has them.
    fired: Vec<(c_int, u64)>,
    /// Up to where each interface's log was read.
    places: [u64; 8],
}

fn place_in(places: &[u32], index: usize) -> Option<usize> {
    (*places.get(index)? as usize).checked_sub(1)
}

fn note(places: &mut Vec<u32>, index: usize, place: Option<usize>) {
    if places.len() <= index {
        places.resize(index + 1, 0);
    }
    places[index] = place.map_or(0, |place| place as u32 + 1);
}

/// The number under which a socket's changes are noted: those of UDP have records of their own.
const fn record_of_change(index: u32, is_udp: bool) -> usize {
    (index as usize) << 1 | is_udp as usize
}

const fn record_of(carried: &Carried) -> usize {
    record_of_change(carried.handle.index, carried.is_udp)
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn place(&self, fd: c_int) -> Option<usize> {
        place_in(&self.by_fd, usize::try_from(fd).ok()?)
    }

    /// epoll_ctl(2).
    pub(super) fn control(
        &mut self,
        operation: c_int,
        fd: c_int,
        carried: &Carried,
        event: Option<epoll_event>,
    ) -> sys::Result<()> {
        let known = self.place(fd).filter(|place| self.all[*place].carried.handle == carried.handle);
        match (operation, known, event) {
            (EPOLL_CTL_ADD, Some(_), _) => Err(Errno(libc::EEXIST)),
            (EPOLL_CTL_MOD | EPOLL_CTL_DEL, None, _) => Err(Errno(libc::ENOENT)),
            (EPOLL_CTL_DEL, Some(_), _) => {
                self.remove(fd);
                Ok(())
            }
            (EPOLL_CTL_ADD | EPOLL_CTL_MOD, _, Some(event)) => {
                self.put(fd, carried, event);
                Ok(())
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// Adds a member, or changes what is asked of it; it is looked at next time.
    pub(super) fn put(&mut self, fd: c_int, carried: &Carried, event: epoll_event) {
        let (events, data) = (event.events, event.u64);
        let member = Member { fd, carried: *carried, events, data, armed: true, seen: None, listed: true };
        let record = record_of(carried);
        self.datagrams += usize::from(member.carried.is_udp);
        if let Some(place) = self.place(fd) {
            let was_listed = self.all[place].listed;
            self.datagrams -= usize::from(self.all[place].carried.is_udp);
            self.all[place] = member;
            if !was_listed {
                self.listed.push(fd);
            }
            return note(&mut self.by_record, record, Some(place));
        }
        if self.all.is_empty() {
            for interface in attach::interfaces() {
                self.places[interface.number as usize % 8] = interface.engine.shared().log_end();
            }
        }
        self.has_doubles |= place_in(&self.by_record, record).is_some();
        let place = self.all.len();
        self.all.push(member);
        self.listed.push(fd);
        note(&mut self.by_fd, fd as usize, Some(place));
        note(&mut self.by_record, record, Some(place));
    }

    pub(super) fn remove(&mut self, fd: c_int) {
        let Some(place) = self.place(fd) else { return };
        let gone = self.all.swap_remove(place);
        self.datagrams -= usize::from(gone.carried.is_udp);
        note(&mut self.by_fd, fd as usize, None);
        note(&mut self.by_record, record_of(&gone.carried), None);
        if let Some(moved) = self.all.get(place) {
            let (fd, record) = (moved.fd as usize, record_of(&moved.carried));
            note(&mut self.by_fd, fd, Some(place));
            note(&mut self.by_record, record, Some(place));
        }
        if gone.listed {
            self.listed.retain(|listed| *listed != fd);
        }
    }

    /// The socket is gone, under all of its numbers.
    pub(super) fn remove_socket(&mut self, socket: &Socket) {
        let its = self.all.iter().filter(|member| member.carried.socket.name == socket.name);
        for fd in its.map(|member| member.fd).collect::<Vec<_>>() {
            self.remove(fd);
        }
    }

    /// Reads what has changed since the last look.
    fn gather(&mut self) {
        let Self { all, by_record, listed, places, has_doubles, .. } = self;
        let mut list = |member: &mut Member| {
            if !member.listed {
                member.listed = true;
                listed.push(member.fd);
            }
        };
        for interface in attach::interfaces() {
            let (number, shared) = (interface.number, interface.engine.shared());
            let Some(place) = places.get_mut(number as usize) else { continue };
            let end = shared.log_end();
            if *place == end {
                continue;
            }
            let mut any = false;
            let read = shared.log_since(*place, |changed| {
                any = true;
                let record = record_of_change(changed.socket, changed.is_udp);
                let found = place_in(by_record, record).and_then(|place| all.get_mut(place));
                if let Some(member) = found.filter(|member| member.carried.interface.number == number) {
                    list(member);
                }
            });
            if read.is_err() || *has_doubles && any {
                all.iter_mut().for_each(&mut list);
            }
            *place = read.unwrap_or(end);
        }
    }

    /// Whether a listed member has something to report.
    fn has_something(&mut self) -> bool {
        if self.gone().is_some() {
            return true;
        }
        let Self { all, by_fd, listed, .. } = self;
        listed.iter().any(|fd| {
            place_in(by_fd, *fd as usize)
                .and_then(|place| all.get(place))
                .is_some_and(|member| member.due() != 0)
        })
    }

    /// A listed member that the kernel has by now.
    fn gone(&mut self) -> Option<Carried> {
        self.gather();
        let Self { all, by_fd, listed, .. } = self;
        let member = |fd: &c_int| place_in(by_fd, *fd as usize).and_then(|place| all.get(place));
        let is_gone = |member: &&Member| member.carried.events().is_at_kernels();
        listed.iter().filter_map(member).find(is_gone).map(|member| member.carried)
    }

    /// Reports what is ready, as much as there is room for.
    fn report(&mut self, events: &mut [epoll_event]) -> usize {
        self.gather();
        let listed = core::mem::take(&mut self.listed);
        let (mut count, mut looked, mut again) = (0, 0, Vec::new());
        while let Some(fd) = listed.get(looked).copied().filter(|_| count < events.len()) {
            looked += 1;
            let Some(place) = self.place(fd) else { continue };
            let member = &mut self.all[place];
            let due = member.due();
            if due == 0 {
                member.listed = false;
                continue;
            }
            events[count] = epoll_event { events: due, u64: member.data };
            count += 1;
            member.reported();
            if !member.armed && member.carried.is_udp {
                self.fired.push((fd, member.data));
            }
            if member.listed {
                again.push(fd);
            }
        }
        // Who found no room comes first next time.
        self.listed = listed;
        self.listed.drain(..looked);
        self.listed.append(&mut again);
        count
    }
}

impl Members {
    /// The kernel has reported something under this name: if that is a one-shot member of UDP, the stack's half is told, too.
    pub(super) fn reported_by_kernel(&mut self, data: u64) {
        let one_shot = EPOLLONESHOT as u32;
        let is_it = |member: &&mut Member| member.data == data && member.events & one_shot != 0;
        self.all.iter_mut().filter(is_it).for_each(|member| member.armed = false);
    }

    /// Of a member of UDP that both halves report one event is made: the first `own` are the stack's, and `found` are the kernel's, from
    /// `begin` on. How many of those remain.
    fn join(&self, events: &mut [epoll_event], own: usize, begin: usize, found: usize) -> usize {
        if self.datagrams == 0 {
            return found;
        }
        let mut left = found;
        let mut at = 0;
        while at < left {
            let event = events[begin + at];
            let name = event.u64;
            let is_udp = || self.all.iter().any(|member| member.carried.is_udp && member.data == name);
            match events[..own].iter_mut().find(|first| { first.u64 } == name) {
                Some(first) if is_udp() => {
                    first.events |= event.events;
                    left -= 1;
                    events[begin + at] = events[begin + left];
                }
                _ => at += 1,
            }
        }
        left
    }
}

/// The kernel has a connection from now on: the sets that it is in leave it to the kernel's registration.
pub(crate) fn handed_over(socket: &Socket) {
    for index in socket.slot.sets.iter().filter_map(|set| set.load(SeqCst).checked_sub(1)) {
        let Some(set) = at_index(index) else { continue };
        let mut inner = set.lock();
        let is_its = |member: &&Member| member.carried.socket.name == socket.name;
        let its: Vec<Member> = inner.carried.all.iter().filter(is_its).copied().collect();
        for member in its {
            inner.carried.remove(member.fd);
            // EPOLLONESHOT that was reported waits to be asked again.
            let events = if member.armed { member.events } else { 0 };
            let mut event = epoll_event { events, u64: member.data };
            let set_fd = set.fd.load(Relaxed);
            // SAFETY: the event is a local.
            let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_ADD, member.fd, &raw mut event) };
        }
        drop(inner);
        wake(set);
    }
}

impl Member {
    /// The bits that are to be reported now.
    fn due(&self) -> u32 {
        if !self.armed {
            return 0;
        }
        let events = self.carried.events();
        let bits = ready::bits_of(&self.carried, self.events);
        let is_edge = self.events & EPOLLET as u32 != 0;
        match self.seen.filter(|_| is_edge) {
            Some((arrivals, openings)) => {
                let comes = bits & COMES != 0 && events.arrivals != arrivals;
                let opens = bits & OPENS != 0 && events.openings != openings;
                if comes || opens { bits } else { 0 }
            }
            None => bits,
        }
    }

    /// It was reported: is it to be looked at again without a change?
    fn reported(&mut self) {
        let events = self.carried.events();
        self.seen = Some((events.arrivals, events.openings));
        if self.events & EPOLLONESHOT as u32 != 0 {
            self.armed = false;
        }
        self.listed = self.armed && self.events & EPOLLET as u32 == 0;
    }
}

impl Set {
    /// Whether the stack has some of its members, or of those of sets inside it.
    pub(crate) fn has_carried(&self) -> bool {
        attach::is_on() && self.has_carried_within(NESTED_MAX)
    }

    fn has_carried_within(&self, depth: u32) -> bool {
        let inner = self.lock();
        if !inner.carried.is_empty() || inner.awaits_stack {
            return true;
        }
        drop(inner);
        depth > 0 && self.inside().iter().any(|(_, set)| set.has_carried_within(depth - 1))
    }

    /// Whether one of those is ready.
    pub(crate) fn carries_something(&self) -> bool {
        self.carries_something_within(NESTED_MAX)
    }

    fn carries_something_within(&self, depth: u32) -> bool {
        self.lock().carried.has_something()
            || depth > 0 && self.inside().iter().any(|(_, set)| set.carries_something_within(depth - 1))
    }

    /// The sets inside this one, each with its registration.
    fn inside(&self) -> Vec<(epoll_event, &'static Self)> {
        let nested = self.lock().nested.clone();
        let registered = |nested: &super::Nested| epoll_event { events: nested.events, u64: nested.data };
        nested.iter().filter_map(|nested| Some((registered(nested), super::at(nested.name)?))).collect()
    }

    /// Reports the sets inside it in which the stack has something.
    fn report_inside(&self, events: &mut [epoll_event]) -> usize {
        let mut count = 0;
        for (registered, set) in self.inside() {
            let bits = { registered.events } & (EPOLLIN | libc::EPOLLRDNORM) as u32;
            let Some(to) = events.get_mut(count).filter(|_| bits != 0) else { continue };
            if set.carries_something() {
                *to = epoll_event { events: bits, u64: registered.u64 };
                count += 1;
            }
        }
        count
    }
}

/// The stack has a socket from now on that may be in sets already: they learn of it.
pub(crate) fn carried(socket: &Socket) {
    let Some(carried) = socket.waitable() else { return };
    let is_connection = socket.connection().is_some();
    for index in socket.slot.sets.iter().filter_map(|set| set.load(SeqCst).checked_sub(1)) {
        let Some(set) = at_index(index) else { continue };
        let mut inner = set.lock();
        let its: Vec<(c_int, epoll_event)> = inner
            .members
            .iter()
            .filter(|(_, member)| member.name == socket.name)
            .map(|(fd, member)| (fd, epoll_event { events: member.events, u64: member.data }))
            .collect();
        for (fd, event) in its {
            inner.carried.put(fd, &carried, event);
            let set_fd = set.fd.load(Relaxed);
            if is_connection {
                inner.members.remove(fd);
                // SAFETY: no event is needed.
                let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_DEL, fd, core::ptr::null_mut()) };
            } else if carried.is_udp {
                ask_kernel(set_fd, fd, asked_of_kernel(event));
            }
        }
        drop(inner);
        wake(set);
    }
}

/// The stack has the socket no more, and the kernel alone tells of it.
pub(crate) fn uncarried(socket: &Socket) {
    for index in socket.slot.sets.iter().filter_map(|set| set.load(SeqCst).checked_sub(1)) {
        let Some(set) = at_index(index) else { continue };
        let mut inner = set.lock();
        inner.carried.remove_socket(socket);
        for (fd, member) in inner.members.iter().filter(|(_, member)| member.name == socket.name) {
            let event = epoll_event { events: member.events, u64: member.data };
            ask_kernel(set.fd.load(Relaxed), fd, event);
        }
    }
}

/// What the kernel is to report of its half of a socket of UDP.
pub(super) const fn asked_of_kernel(event: epoll_event) -> epoll_event {
    epoll_event { events: ready::asked_of_kernel(event.events), u64: event.u64 }
}

fn ask_kernel(set_fd: c_int, fd: c_int, mut event: epoll_event) {
    // SAFETY: the event is a local.
    let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &raw mut event) };
}

/// epoll_ctl(2) on a descriptor that the stack has: `None` if the kernel is to register it, too.
pub(super) fn control(
    set: &Set,
    operation: c_int,
    fd: c_int,
    event: Option<epoll_event>,
) -> Option<sys::Result<()>> {
    let carried = net::waitable(fd)?;
    let done = set.lock().carried.control(operation, fd, &carried, event);
    if done.is_ok() && operation != EPOLL_CTL_DEL {
        super::control::join(&carried.socket, super::control::number(set));
        wake(set);
    }
    carried.socket.connection().map(|_| done)
}

/// Who sleeps on the set looks again.
fn wake(set: &Set) {
    if set.sleeping.load(SeqCst) > 0 {
        for interface in attach::interfaces() {
            interface.engine.ring_here();
        }
    }
}

/// epoll_wait(2) on a set of which the stack has some members.
pub(super) fn wait(set: &'static Set, mut call: Waiting<'_>, mask: Option<&sigset_t>) -> sys::Result<usize> {
    let started = ticks();
    let until = call.timeout_ns.map(|timeout| monotonic_ns().saturating_add(timeout));
    loop {
        ready::poll_all();
        let count = look(set, &mut call, started)?;
        if count > 0 {
            net::events_given().set(count as u64);
            spin::record(started);
            return Ok(count);
        }
        if until.is_some_and(|until| monotonic_ns() >= until) {
            return Ok(0);
        }
        match spin(set, &call, until) {
            spin::End::Ready => continue,
            // epoll_wait is never restarted: signal(7).
            spin::End::Signal if guard::take_interrupt() != Interrupt::None => {
                return Err(Errno(libc::EINTR));
            }
            spin::End::Signal => continue,
            spin::End::Expired => sleep(set, call.fd, until, mask)?,
        }
    }
}

/// What the stack has, and what rings and kernel have, where that is due.
fn look(set: &'static Set, call: &mut Waiting<'_>, started: u64) -> sys::Result<usize> {
    while let Some(gone) = { set.lock().carried.gone() } {
        if !net::handover::is_over(&gone) {
            break;
        }
    }
    let own = {
        let mut inner = set.lock();
        let own = inner.carried.report(call.events);
        inner.disarm_other_halves(call.fd);
        own
    };
    let count = own + set.report_inside(&mut call.events[own..]);
    let asked = ticks().wrapping_sub(set.asked.load(Relaxed));
    let room = &mut call.events[count..];
    if room.is_empty() || count > 0 && asked < ASK_USEC * ticks_per_usec() {
        return Ok(count);
    }
    let mut rest = Waiting { fd: call.fd, events: room, timeout_ns: Some(0), may_spin: false, mask: None };
    let found = rest.look(set, started)?.unwrap_or(0);
    let both = if own == 0 { found } else { set.lock().carried.join(call.events, own, count, found) };
    Ok(count + both)
}

impl Inner {
    /// What the stack's half of a one-shot member has told, the kernel's is not to tell again.
    fn disarm_other_halves(&mut self, set_fd: c_int) {
        for (fd, data) in core::mem::take(&mut self.carried.fired) {
            wait::disarm(set_fd, fd, data);
        }
    }
}

fn spin(set: &'static Set, call: &Waiting<'_>, until: Option<u64>) -> spin::End {
    spin::Watch {
        budget: spin::budget_until(call.may_spin, until),
        peer_cpu: || None,
        ready: || {
            ready::poll_all();
            set.carries_something() || wait::has_something(set)
        },
        look: || wait::kernel_is_ready(call.fd),
        look_usec: ASK_USEC,
    }
    .run()
}

/// Sleeps until something may be ready: the caller looks.
fn sleep(set: &'static Set, fd: c_int, until: Option<u64>, mask: Option<&sigset_t>) -> sys::Result<()> {
    let mut sleeping = Some(Sleeping::enter(set));
    // Said first, looked afterwards: whoever brings something from now on rings.
    let mut sleepers = ready::fall_asleep();
    let deadline = ready::poll_all();
    if close_for_sleep(set) || set.carries_something() {
        return Ok(());
    }
    spin::record_sleep();
    let left = ready::left_until(until, deadline, !sleepers.is_empty());
    let mut fds = vec![pollfd { fd, events: libc::POLLIN, revents: 0 }];
    fds.extend(sleepers.iter().flat_map(Sleeper::fds));
    let left = left.map(to_timespec);
    let left = left.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let mask = mask.map_or(core::ptr::null(), core::ptr::from_ref);
    let mut undo = || drop((sleeping.take(), core::mem::take(&mut sleepers)));
    let slept = jump::holding(&mut undo, || {
        guard::outside_unless_interrupted(|| {
            // SAFETY: a live array; the mask is the caller's.
            let count = unsafe { real::ppoll(fds.as_mut_ptr(), fds.len() as _, left, mask) };
            usize::try_from(count).map_err(|_| Errno(crate::errno::get()))
        })
    });
    slept.map_err(|_| Errno(libc::EINTR))?.map(drop)
}
