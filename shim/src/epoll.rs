//! epoll over rings and kernel together.
//!
//! Every member keeps its kernel registration; the kernel reports whatever happens in the kernel. Beside it
//! a set keeps a short list of the members whose receiving direction is open (or holds bytes), and adds what
//! their rings know. Before a thread sleeps in the kernel on the set, it closes them all: from then on the
//! next message of each comes by the kernel. A direction is not opened while a thread sleeps on a set that
//! watches it. Cost grows with the open members, not with the watched ones.

use core::sync::atomic::{
    AtomicI32, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, SeqCst},
};

use driver::channel::Channel;
use libc::c_int;

use crate::fdtable::{self, Entry, Name};
use crate::lock::{Held, Lock};
use crate::rx::mark;
use crate::slot::{self, Socket};
use crate::{family, rx};
use members::Members;

mod carried;
mod control;
mod members;
mod park;
mod wait;

pub(crate) use carried::{carried, handed_over, uncarried};
pub(crate) use control::{control, is_outdated, reopen, signal};
pub(crate) use park::{never_again, tell_kernel, tell_kernel_of};
pub(crate) use wait::{Sleeping, Waiting, close_for_sleep, has_something, wait};

const SETS: usize = 4096;
/// Open members of one set; opening one more closes the one that was quiet longest.
const OPEN_MAX: usize = 512;
/// Scans after which a member that had nothing is closed.
const QUIET_SCANS: u32 = 4096;

/// One epoll set of this process.
#[derive(Debug)]
pub(crate) struct Set {
    generation: AtomicU32,
    descriptors: AtomicU32,
    owner: AtomicU32,
    /// Threads that sleep in the kernel on it (or on a set that holds it).
    sleeping: AtomicU32,
    /// The descriptor under which it was made (duplicates name the same kernel set).
    fd: AtomicI32,
    /// When the kernel was last asked, in ticks.
    asked: AtomicU64,
    inner: Lock<Inner>,
}

/// What the lock of a set guards.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    /// Followed sockets that are registered, by descriptor.
    members: Members,
    /// Those of the network stack.
    carried: carried::Members,
    open: Vec<Open>,
    /// Epoll sets inside this one.
    nested: Vec<Nested>,
    /// Sets that hold this one.
    outer: u32,
    /// A member was a socket of UDP that the stack might have later.
    awaits_stack: bool,
    /// A member was registered with EPOLLONESHOT.
    one_shots: bool,
    /// Where the next scan starts.
    next: usize,
    /// Members that are parked.
    parked: Vec<c_int>,
    /// The kernel's registrations must always be the true ones.
    never_park: bool,
    /// Members whose kernel registration also asks for EPOLLOUT, to wake a sleeper.
    loud: Vec<c_int>,
    /// The last scan filled the caller's whole room.
    was_full: bool,
}

/// A followed socket in a set.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: Name,
    events: u32,
    data: u64,
    /// EPOLLONESHOT: not reported again until re-armed.
    armed: bool,
    /// EPOLLET: position that was last reported.
    seen: u64,
    /// The kernel's registration asks for nothing ([`park`]).
    parked: bool,
    /// The program deleted it; the kernel still has it, parked.
    ghost: bool,
}

/// A member whose ring may have something.
#[derive(Clone, Copy, Debug)]
struct Open {
    fd: c_int,
    name: Name,
    channel: Channel,
    quiet: u32,
}

// SAFETY: the channels in it are shared memory handles, used under the set's lock.
unsafe impl Send for Inner {}

static ALL: [AtomicPtr<Set>; SETS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; SETS];

const NOT_SEEN: u64 = u64::MAX;

/// Follows a new epoll descriptor.
pub(crate) fn follow(fd: c_int) {
    for (index, entry) in ALL.iter().enumerate() {
        let set = entry.load(Acquire);
        let set = if set.is_null() {
            let fresh = Box::into_raw(Box::new(Set {
                generation: AtomicU32::new(0),
                descriptors: AtomicU32::new(0),
                owner: AtomicU32::new(0),
                sleeping: AtomicU32::new(0),
                fd: AtomicI32::new(-1),
                asked: AtomicU64::new(0),
                inner: Lock::new(Inner::default()),
            }));
            match entry.compare_exchange(core::ptr::null_mut(), fresh, SeqCst, Acquire) {
                Ok(_) => fresh,
                Err(other) => {
                    // SAFETY: `fresh` was not published.
                    drop(unsafe { Box::from_raw(fresh) });
                    other
                }
            }
        } else {
            set
        };
        // SAFETY: sets are never freed, only used again.
        let set = unsafe { &*set };
        if set.descriptors.compare_exchange(0, 1, SeqCst, Relaxed).is_err() {
            continue;
        }
        let generation = (set.generation.fetch_add(1, SeqCst) + 1) & 0xff_ffff;
        set.owner.store(family::pid(), SeqCst);
        set.sleeping.store(0, SeqCst);
        set.fd.store(fd, SeqCst);
        *set.lock() = Inner::default();
        let stale = fdtable::get(fd);
        if stale != Entry::None {
            slot::forget_descriptor(fd);
        }
        fdtable::set(fd, Entry::Set(Name { index: index as u32, generation }));
        return;
    }
}

fn at(name: Name) -> Option<&'static Set> {
    let set = ALL.get(name.index as usize)?.load(Acquire);
    // SAFETY: sets are never freed, only used again.
    let set = unsafe { set.as_ref()? };
    (set.generation.load(Acquire) & 0xff_ffff == name.generation).then_some(set)
}

/// The set whose number, as sockets know it, is one more than this.
fn at_index(index: u32) -> Option<&'static Set> {
    // SAFETY: sets are never freed.
    unsafe { ALL[index as usize % SETS].load(Acquire).as_ref() }
}

/// The set behind a descriptor, if this process may use its own view of it.
pub(crate) fn find(fd: c_int) -> Option<&'static Set> {
    let Entry::Set(name) = fdtable::get(fd) else { return None };
    let set = at(name)?;
    if set.owner.load(Relaxed) != family::pid() {
        used_by_child(set);
    }
    Some(set)
}

/// A set that was inherited over fork is used here: its members are the kernel's from now on, and what still lies
/// in their rings is looked at here. The memory of the set is this process's own copy.
#[cold]
fn used_by_child(set: &Set) {
    set.sleeping.store(0, SeqCst);
    let members: Vec<(c_int, Name)> =
        set.lock().members.iter().map(|(fd, member)| (fd, member.name)).collect();
    for (fd, name) in members {
        let socket = slot::by_name(fd, name);
        if !socket.is_current() {
            continue;
        }
        family::check_owner(&socket);
        let receive = socket.lock_receive();
        let Some(channel) = socket.channel(&receive).copied() else { continue };
        if channel.incoming().is_unread() && rx::comes_here(&channel) {
            set.lock().list(&socket, channel);
        }
    }
    set.owner.store(family::pid(), SeqCst);
}

pub(crate) fn duplicate(name: Name) {
    if let Some(set) = at(name) {
        // The descriptor by which registrations are made true may go before the set does.
        never_again(set, set.fd.load(Relaxed));
        set.descriptors.fetch_add(1, SeqCst);
    }
}

pub(crate) fn drop_descriptor(name: Name) {
    let Some(set) = at(name) else { return };
    if set.descriptors.load(SeqCst) == 1 {
        let index = name.index + 1;
        let mut inner = set.lock();
        for (fd, member) in core::mem::take(&mut inner.members).iter() {
            leave(&slot::by_name(fd, member.name), index);
        }
        let nested = core::mem::take(&mut inner.nested);
        *inner = Inner::default();
        drop(inner);
        for Nested { name, .. } in nested {
            if let Some(set) = at(name) {
                let mut inner = set.lock();
                inner.outer = inner.outer.saturating_sub(1);
            }
        }
        set.generation.fetch_add(1, SeqCst);
    }
    set.descriptors.fetch_sub(1, SeqCst);
}

fn leave(socket: &Socket, index: u32) {
    if socket.is_current() {
        for set in &socket.slot.sets {
            let _ = set.compare_exchange(index, 0, SeqCst, Relaxed);
        }
    }
}

/// The socket's last descriptor goes: no set may touch its channel any more.
pub(crate) fn leave_all(socket: &Socket) {
    for index in socket.slot.sets.iter().filter_map(|set| set.swap(0, SeqCst).checked_sub(1)) {
        let Some(set) = at_index(index) else { continue };
        let mut inner = set.lock();
        inner.carried.remove_socket(socket);
        let is_parked = inner.members.get(socket.fd).is_some_and(|member| member.parked);
        if is_parked && !socket.card.is_sole_holder(family::pid()) {
            park::forget(set, socket.fd);
        }
        if socket.slot.is_duplicated() {
            inner.members.remove_all(|member| member.name == socket.name);
        } else {
            inner.members.remove(socket.fd);
        }
        inner.open.retain(|open| open.name != socket.name);
    }
}

/// A set in another one, and its registration.
#[derive(Clone, Copy, Debug)]
struct Nested {
    fd: c_int,
    name: Name,
    events: u32,
    data: u64,
}

impl Open {
    /// Whether its ring bytes make it readable.
    #[inline]
    fn has_enough(&self) -> bool {
        mark::has_enough(&slot::by_name(self.fd, self.name), &self.channel)
    }
}

/// Locks every set, for fork. From then on the kernel's registrations are the true ones: the child has them too.
pub(crate) fn lock_all() {
    for set in all() {
        if set.descriptors.load(SeqCst) > 0 && set.owner.load(Relaxed) == family::pid() {
            never_again(set, set.fd.load(Relaxed));
        }
        core::mem::forget(set.lock());
    }
}

/// A set's descriptor goes to another process.
pub(crate) fn give_away(fd: c_int) {
    if let Some(set) = find(fd) {
        never_again(set, fd);
    }
}

/// Undoes [`lock_all`], in parent and child.
pub(crate) fn unlock_all() {
    for set in all() {
        // SAFETY: `lock_all` left it locked by this very thread, or by its image in the parent.
        unsafe { set.inner.unlock_forgotten() };
    }
}

fn all() -> impl Iterator<Item = &'static Set> {
    // SAFETY: sets are never freed.
    ALL.iter().map_while(|entry| unsafe { entry.load(Acquire).as_ref() })
}

impl Set {
    pub(crate) fn lock(&self) -> Held<'_, Inner> {
        self.inner.lock()
    }

    /// Whether rings filled the caller's room last time, so that the kernel must come first now.
    fn kernel_is_next(&self) -> bool {
        core::mem::take(&mut self.lock().was_full)
    }

    /// Whether any member's ring is looked at.
    fn is_open(&self) -> bool {
        !self.lock().open.is_empty()
    }
}
