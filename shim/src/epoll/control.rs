//! Membership: epoll_ctl, and opening the direction of a member.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use driver::channel::Channel;
use driver::sys;
use libc::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLONESHOT, EPOLLOUT, c_int, epoll_event};

use super::wait::{READ, polled};
use super::{ALL, Held, Inner, Member, NOT_SEEN, Nested, OPEN_MAX, Open, SETS, Set, at, park};
use crate::fdtable::{self, Entry};
use crate::rx::mark;
use crate::slot::{self, Socket};
use crate::{family, rx};

/// `epoll_ctl(2)` on a followed set: the kernel's registration first, then our own note of it.
pub(crate) fn control(
    set_fd: c_int,
    set: &'static Set,
    operation: c_int,
    fd: c_int,
    event: Option<epoll_event>,
) -> sys::Result<()> {
    if let Some(socket) = slot::find(fd).filter(Socket::is_live) {
        let receive = socket.lock_receive();
        if let Some(done) = park::control(set, set_fd, operation, &socket, socket.channel(&receive), event) {
            return done;
        }
    }
    if let Some(done) = super::carried::control(set, operation, fd, event) {
        return done;
    }
    let mut kernel_event = event.unwrap_or(epoll_event { events: 0, u64: 0 });
    if slot::find(fd).is_some_and(|socket| socket.datagrams().is_some()) {
        kernel_event = super::carried::asked_of_kernel(kernel_event);
    }
    let pointer = if event.is_some() { &raw mut kernel_event } else { core::ptr::null_mut() };
    // SAFETY: the event is a local.
    unsafe { sys::epoll_ctl(set_fd, operation, fd, pointer) }?;
    match fdtable::get(fd) {
        Entry::Socket(name) => {
            let socket = slot::by_name(fd, name);
            family::check_owner(&socket);
            note_socket(set_fd, set, operation, &socket, event);
        }
        Entry::Set(name) => note_nested(set, operation, fd, name, event),
        Entry::Internal | Entry::None => {}
    }
    Ok(())
}

fn note_socket(
    set_fd: c_int,
    set: &'static Set,
    operation: c_int,
    socket: &Socket,
    event: Option<epoll_event>,
) {
    // The receive lock keeps the channel mapped, and comes before the set's lock everywhere.
    let receive = socket.lock_receive();
    let mut inner = set.lock();
    if operation == EPOLL_CTL_DEL {
        inner.members.remove(socket.fd);
        inner.open.retain(|open| open.fd != socket.fd);
        let elsewhere =
            socket.slot.is_duplicated() && inner.members.iter().any(|(_, member)| member.name == socket.name);
        drop(inner);
        if !elsewhere {
            super::leave(socket, number(set));
        }
        return;
    }
    let Some(event) = event else { return };
    let member = Member {
        name: socket.name,
        events: event.events,
        data: event.u64,
        armed: true,
        seen: NOT_SEEN,
        parked: false,
        ghost: false,
    };
    inner.awaits_stack |= socket.is_undecided();
    inner.one_shots |= event.events & EPOLLONESHOT as u32 != 0;
    inner.members.insert(socket.fd, member);
    inner.open.retain(|open| open.fd != socket.fd);
    if operation == EPOLL_CTL_ADD || operation == EPOLL_CTL_MOD {
        join(socket, number(set));
    }
    let Some(channel) = socket.channel(&receive).copied() else { return };
    let incoming = channel.incoming();
    if set.sleeping.load(SeqCst) > 0 || inner.outer > 0 {
        let unread = incoming.close().position() != incoming.head() && rx::comes_here(&channel);
        if !unread {
            return;
        }
        inner.list(socket, channel);
        if inner.is_unread(socket.fd) {
            inner.loud.push(socket.fd);
            drop(inner);
            wake_sleepers(set_fd, socket.fd, event);
        }
        return;
    }
    if incoming.word().is_open() || incoming.is_unread() && rx::comes_here(&channel) {
        inner.list(socket, channel);
    }
}

/// A thread sleeps in the kernel on the set while ring bytes of a new member wait: make the kernel report
/// the member once (it is writable), and the woken thread looks at the rings.
fn wake_sleepers(set_fd: c_int, fd: c_int, event: epoll_event) {
    let mut louder = epoll_event { events: event.events | EPOLLOUT as u32, u64: event.u64 };
    // SAFETY: the events are locals.
    let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &raw mut louder) };
}

/// Ring bytes wait in a set that was just put into another, or those of one socket have become enough: the kernel must
/// find the set ready.
fn raise_unread(set: &Set, set_fd: c_int, only: Option<fdtable::Name>) {
    let mut inner = set.lock();
    let of_these = |open: &&Open| only.is_none_or(|name| open.name == name);
    let open: Vec<c_int> = inner.open.iter().filter(of_these).map(|open| open.fd).collect();
    for fd in open {
        let Some(member) = inner.members.get(fd).copied().filter(|member| member.armed) else { continue };
        if member.events & READ != 0 && inner.is_unread(fd) {
            inner.loud.push(fd);
            wake_sleepers(set_fd, fd, epoll_event { events: member.events, u64: member.data });
        }
    }
}

/// Ring bytes have become enough by a lower mark: an edge for who has seen them, a wake-up for who sleeps. The receive
/// lock is held.
pub(crate) fn signal(socket: &Socket, channel: &Channel) {
    for index in socket.slot.sets.iter().filter_map(|set| set.load(SeqCst).checked_sub(1)) {
        let Some(set) = super::at_index(index) else { continue };
        let mut inner = set.lock();
        for member in inner.members.iter_mut().filter(|member| member.name == socket.name) {
            member.seen = NOT_SEEN;
        }
        inner.list(socket, *channel);
        let is_waited_for = set.sleeping.load(SeqCst) > 0 || inner.outer > 0;
        drop(inner);
        if is_waited_for {
            raise_unread(set, set.fd.load(Relaxed), Some(socket.name));
        }
    }
}

/// Whether the kernel may have called the set readable by such a mark.
pub(crate) fn is_outdated(set: &Set) -> bool {
    let lowered = set.lock().lowered();
    lowered.iter().any(mark::was_outdated)
}

/// Takes out of the kernel's events what only such a mark brought, of these members. The kernel is asked for it again, as
/// it thinks that it has reported it. Gives how many remain.
pub(super) fn without_outdated(
    set: &Set,
    set_fd: c_int,
    lowered: Vec<Socket>,
    events: &mut [epoll_event],
) -> usize {
    let mut count = events.len();
    for socket in lowered {
        if !mark::was_outdated(&socket) {
            continue;
        }
        let mut inner = set.lock();
        let Some(member) = inner.members.get_mut(socket.fd) else { continue };
        let asked = epoll_event { events: member.events, u64: member.data };
        let left = without(set_fd, socket.fd, asked, &mut events[..count]);
        member.armed |= left < count;
        count = left;
    }
    count
}

/// The same of sets in this one.
pub(super) fn without_outdated_sets(set_fd: c_int, nested: &[Nested], events: &mut [epoll_event]) -> usize {
    let mut count = events.len();
    for one in nested {
        let Some(inside) = at(one.name).filter(|inside| is_outdated(inside)) else { continue };
        // It may be loud for bytes that it had enough of before the mark.
        inside.lock().hush(one.fd, &mut [], false);
        let asked = epoll_event { events: one.events, u64: one.data };
        count = without(set_fd, one.fd, asked, &mut events[..count]);
    }
    count
}

/// Leaves of a member's event what holds now; if that is nothing the event goes, and the member is registered anew.
fn without(set_fd: c_int, fd: c_int, mut asked: epoll_event, events: &mut [epoll_event]) -> usize {
    let count = events.len();
    let Some(index) = events.iter().position(|event| { event.u64 } == { asked.u64 }) else { return count };
    events[index].events &= polled(fd, asked.events);
    if events[index].events != 0 {
        return count;
    }
    events[index] = events[count - 1];
    // SAFETY: the event is a local.
    let _ = unsafe { sys::epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &raw mut asked) };
    count - 1
}

fn note_nested(set: &Set, operation: c_int, fd: c_int, name: fdtable::Name, event: Option<epoll_event>) {
    let Some(inside) = at(name) else { return };
    let (events, data) = event.map_or((0, 0), |event| (event.events, event.u64));
    let noted = Nested { fd, name, events, data };
    match operation {
        EPOLL_CTL_ADD => {
            set.lock().nested.push(noted);
            let mut inner = inside.lock();
            inner.outer += 1;
            inner.unpark_all(fd);
            drop(inner);
            // The kernel tells the outer set of the inner one's members only while they are on the kernel.
            if super::close_for_sleep(inside) {
                raise_unread(inside, fd, None);
            }
        }
        EPOLL_CTL_DEL => {
            set.lock().nested.retain(|other| other.fd != fd);
            let mut inner = inside.lock();
            inner.outer = inner.outer.saturating_sub(1);
        }
        EPOLL_CTL_MOD => {
            set.lock().nested.iter_mut().filter(|other| other.fd == fd).for_each(|other| *other = noted);
        }
        _ => {}
    }
}

/// The number under which sockets know the set.
pub(super) fn number(set: &Set) -> u32 {
    let position = ALL.iter().position(|entry| core::ptr::eq(entry.load(Acquire), set));
    position.map_or(0, |index| index as u32 + 1)
}

pub(super) fn join(socket: &Socket, number: u32) {
    if socket.slot.sets.iter().any(|set| set.load(SeqCst) == number) {
        return;
    }
    if !socket.slot.sets.iter().any(|set| set.compare_exchange(0, number, SeqCst, Relaxed).is_ok()) {
        socket.slot.crowded_sets.store(1, SeqCst);
    }
}

impl Inner {
    /// Puts a member on the list of those whose rings are looked at; the longest quiet one may have to go.
    pub(super) fn list(&mut self, socket: &Socket, channel: Channel) {
        let is_it = |member: &Member| member.name == socket.name;
        if !socket.slot.is_duplicated() && self.members.get(socket.fd).is_some_and(is_it) {
            return self.list_one(socket, socket.fd, channel);
        }
        let all: Vec<c_int> =
            self.members.iter().filter(|(_, member)| is_it(member)).map(|(fd, _)| fd).collect();
        for fd in all {
            self.list_one(socket, fd, channel);
        }
    }

    pub(super) fn list_one(&mut self, socket: &Socket, fd: c_int, channel: Channel) {
        if !self.open.iter().any(|open| open.fd == fd) {
            self.open.push(Open { fd, name: socket.name, channel, quiet: 0 });
        }
    }

    /// Listed members whose mark the kernel may hold too low.
    pub(super) fn lowered(&self) -> Vec<Socket> {
        let closed = self.open.iter().filter(|open| open.channel.incoming().word().is_closed());
        closed.map(|open| slot::by_name(open.fd, open.name)).filter(mark::is_lowered).collect()
    }

    /// Whether ring bytes of a listed member wait that make it readable.
    pub(super) fn is_unread(&self, fd: c_int) -> bool {
        self.open.iter().any(|open| open.fd == fd && open.has_enough())
    }

    /// Whether one more member may be opened; the one that was quiet longest may have to go for it.
    fn has_room(&mut self, set_fd: c_int) -> bool {
        if self.open.len() < OPEN_MAX {
            return true;
        }
        let Some((index, _)) = self.open.iter().enumerate().max_by_key(|(_, member)| member.quiet) else {
            return true;
        };
        let incoming = self.open[index].channel.incoming();
        if self.open[index].quiet == 0 || incoming.close().position() != incoming.head() {
            return false;
        }
        let fd = self.open.swap_remove(index).fd;
        self.unpark(set_fd, fd);
        true
    }
}

/// Opens a socket's receiving direction, if no thread sleeps in a wait that covers it, and lists it in the
/// sets that watch it. The receive lock is held.
pub(crate) fn reopen(socket: &Socket, channel: &Channel, kread: u64) -> bool {
    if socket.card.sleepers.load(SeqCst) != 0 || socket.slot.crowded_sets.load(Relaxed) != 0 {
        return false;
    }
    let mut held: [Option<Held<'static, Inner>>; slot::SETS_MAX] = [const { None }; slot::SETS_MAX];
    let mut numbers: [u32; slot::SETS_MAX] = core::array::from_fn(|at| socket.slot.sets[at].load(SeqCst));
    numbers.sort_unstable();
    for (place, number) in numbers.into_iter().filter(|number| *number != 0).enumerate() {
        let set = ALL[(number - 1) as usize % SETS].load(Acquire);
        // SAFETY: sets are never freed.
        let Some(set) = (unsafe { set.as_ref() }) else { return false };
        let mut inner = set.lock();
        if set.sleeping.load(SeqCst) != 0 || inner.outer != 0 || !inner.has_room(set.fd.load(Relaxed)) {
            return false;
        }
        held[place] = Some(inner);
    }
    if !channel.incoming().reopen(kread) {
        return false;
    }
    for inner in held.iter_mut().flatten() {
        inner.list(socket, *channel);
    }
    // A sleeper that came between the first look and the opening has counted itself before it closes.
    if socket.card.sleepers.load(SeqCst) != 0 {
        channel.incoming().close();
        return false;
    }
    true
}
