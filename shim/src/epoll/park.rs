//! Changing interest without a system call.
//!
//! Event loops add and drop interest in writing all the time, each time by epoll_ctl. While both directions of a
//! connection are open the kernel has nothing to say about it but that it broke: bytes come by the ring, and it
//! is always writable. So such a member is *parked*: its kernel registration asks for nothing, and epoll_ctl
//! only changes our own note. A member that the program deleted stays in the kernel as a *ghost*, to be added
//! again for nothing. Before anything depends on the kernel's knowledge (a sleep, a closed direction, fork, an
//! outer set), the registration is made what the program asked for.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use driver::channel::Channel;
use driver::sys::{self, Errno};
use libc::{
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, c_int, epoll_event,
};

use super::wait::polled;
use super::{Inner, Member, NOT_SEEN, Set};
use crate::slot::Socket;
use crate::spin;

/// Registrations of another kind than plain level-triggered ones are always the kernel's as well.
const SPECIAL: u32 = (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | libc::EPOLLWAKEUP) as u32;

/// Data of a parked member's kernel registration: this, and its descriptor. The program's own data would not do: it
/// may be that of another member, too. No pointer and no small number looks like this.
const MARK: u64 = 0xacce_1a9d_0000_0000;

fn marked(fd: c_int) -> u64 {
    MARK | u64::from(fd as u32)
}

/// The parked member that such data names.
fn parked_fd(data: u64) -> Option<c_int> {
    (data >> 32 == MARK >> 32).then_some(data as u32 as c_int)
}

fn kernel(set_fd: c_int, operation: c_int, fd: c_int, events: u32, data: u64) -> sys::Result<()> {
    let mut event = epoll_event { events, u64: data };
    // SAFETY: the event is a local.
    unsafe { sys::epoll_ctl(set_fd, operation, fd, &raw mut event) }
}

/// Both directions are open: the rings say everything.
pub(super) fn is_open(channel: &Channel) -> bool {
    channel.incoming().word().is_open() && channel.outgoing().word().is_open()
}

/// Carries out an epoll_ctl on our own notes alone, if that is possible. The receive lock is held.
pub(super) fn control(
    set: &Set,
    set_fd: c_int,
    operation: c_int,
    socket: &Socket,
    channel: Option<&Channel>,
    event: Option<epoll_event>,
) -> Option<sys::Result<()>> {
    let mut inner = set.lock();
    let known = inner.members.get(socket.fd).copied().filter(|member| member.name == socket.name);
    let plain = event.is_none_or(|event| event.events & SPECIAL == 0);
    let may_park = plain
        && channel.is_some_and(is_open)
        && set.sleeping.load(SeqCst) == 0
        && inner.outer == 0
        && !inner.never_park
        && !socket.slot.is_duplicated();
    if !may_park {
        if known.is_some_and(|member| member.parked) {
            inner.unpark(set_fd, socket.fd);
        }
        return None;
    }
    let member = match known {
        Some(member) if member.parked => member,
        // To park costs a system call: only for a set whose thread does not sleep all the time.
        Some(member) if member.events & SPECIAL == 0 && spin::is_busy() && operation != EPOLL_CTL_ADD => {
            kernel(set_fd, EPOLL_CTL_MOD, socket.fd, 0, marked(socket.fd)).ok()?;
            inner.parked.push(socket.fd);
            Member { parked: true, ghost: false, ..member }
        }
        _ => return None,
    };
    let result = match (operation, member.ghost, event) {
        (EPOLL_CTL_ADD, false, _) => Err(Errno(libc::EEXIST)),
        (EPOLL_CTL_MOD | EPOLL_CTL_DEL, true, _) => Err(Errno(libc::ENOENT)),
        (EPOLL_CTL_DEL, false, _) => {
            inner.members.insert(socket.fd, Member { ghost: true, events: 0, ..member });
            return Some(Ok(()));
        }
        (EPOLL_CTL_ADD | EPOLL_CTL_MOD, _, Some(event)) => {
            let (events, data) = (event.events, event.u64);
            let noted = Member { ghost: false, events, data, armed: true, seen: NOT_SEEN, ..member };
            inner.members.insert(socket.fd, noted);
            if let Some(channel) = channel {
                inner.list_one(socket, socket.fd, *channel);
            }
            return Some(Ok(()));
        }
        _ => return None,
    };
    inner.members.insert(socket.fd, member);
    Some(result)
}

impl Inner {
    /// Makes the kernel's registration of one parked member what the program asked for.
    pub(super) fn unpark(&mut self, set_fd: c_int, fd: c_int) {
        self.parked.retain(|other| *other != fd);
        let Some(member) = self.members.get_mut(fd).filter(|member| member.parked) else { return };
        if member.ghost {
            self.members.remove(fd);
            self.open.retain(|open| open.fd != fd);
            let _ = kernel(set_fd, EPOLL_CTL_DEL, fd, 0, 0);
            return;
        }
        member.parked = false;
        let _ = kernel(set_fd, EPOLL_CTL_MOD, fd, member.events, member.data);
    }

    /// The same for all of them.
    pub(super) fn unpark_all(&mut self, set_fd: c_int) {
        while let Some(fd) = self.parked.last().copied() {
            self.unpark(set_fd, fd);
        }
    }

    /// The kernel was asked for nothing of parked members, and still reports errors: such a member gets its true
    /// registration and what it asks for; a ghost goes.
    pub(super) fn translate(&mut self, set_fd: c_int, events: &mut [epoll_event]) -> usize {
        let mut kept = 0;
        for index in 0..events.len() {
            let mut event = events[index];
            if let Some(fd) = parked_fd(event.u64) {
                self.unpark(set_fd, fd);
                // One of another kind was registered anew meanwhile: the kernel reports it itself.
                let plain = self.members.get(fd).filter(|member| member.events & SPECIAL == 0);
                let Some(member) = plain else { continue };
                event = epoll_event { events: polled(fd, member.events), u64: member.data };
            }
            if event.events != 0 {
                events[kept] = event;
                kept += 1;
            }
        }
        kept
    }
}

/// The kernel must know everything now.
pub(crate) fn tell_kernel(set: &Set, set_fd: c_int) {
    set.lock().unpark_all(set_fd);
}

/// The kernel must know everything from now on, for good: the set is shared with another process, or leaves.
pub(crate) fn never_again(set: &Set, set_fd: c_int) {
    let mut inner = set.lock();
    inner.unpark_all(set_fd);
    inner.never_park = true;
}

/// The same for one socket, in all its sets: its number may soon name something else, or its rings go.
pub(crate) fn tell_kernel_of(socket: &Socket) {
    for index in socket.slot.sets.iter().filter_map(|set| set.load(SeqCst).checked_sub(1)) {
        let Some(set) = super::at_index(index) else { continue };
        let mut inner = set.lock();
        let is_it = |fd: &c_int| inner.members.get(*fd).is_some_and(|member| member.name == socket.name);
        let parked: Vec<c_int> = inner.parked.iter().copied().filter(is_it).collect();
        for fd in parked {
            inner.unpark(set.fd.load(Relaxed), fd);
        }
    }
}

/// The socket is about to be closed while another process holds it: the kernel would keep what is parked.
pub(super) fn forget(set: &Set, fd: c_int) {
    let _ = kernel(set.fd.load(Relaxed), EPOLL_CTL_DEL, fd, 0, 0);
}
