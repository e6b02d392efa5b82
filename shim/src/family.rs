//! The process as a whole: start, fork, exec, exit, and when accel must keep still.
//!
//! Parent and children share the table of cards. The rings of a connection belong to the process that
//! upgraded it; the first *use* by another member of the family takes them to the kernel for good. A child
//! that only closes, exits or runs another program changes nothing.

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use driver::cards::{Path, Table, expected_child, flag};
use driver::channel::Channel;
use driver::sys;
use libc::c_int;
use rows::reasons::Reason;

use crate::config::config;
use crate::fdtable::{self, Entry};
use crate::slot::{self, Socket};
use crate::{cgroup, close, epoll, guard, meet, net, statistics, unread};

/// Where our own few descriptors go: above what programs use, below what makes the kernel's table huge.
const FLOOR_MAX: u64 = 4096;
const FLOOR_ROOM: u64 = 128;

struct Shared(UnsafeCell<MaybeUninit<Table>>);

// SAFETY: written once before STARTED says so, then only read.
unsafe impl Sync for Shared {}

static TABLE: Shared = Shared(UnsafeCell::new(MaybeUninit::uninit()));
static STARTED: AtomicU8 = AtomicU8::new(NO);
const NO: u8 = 0;
const STARTING: u8 = 1;
const YES: u8 = 2;
const NEVER: u8 = 3;
/// How a thread waits for the one that makes the tables.
const STARTING_NAPS: u32 = 10_000;
const STARTING_NAP_NSEC: u64 = 20_000;

static PID: AtomicU32 = AtomicU32::new(0);
/// Set while a forking thread holds every lock: another one may make the tables in the middle of a fork.
static LOCKED_FOR_FORK: AtomicBool = AtomicBool::new(false);
static INERT: AtomicBool = AtomicBool::new(false);
/// Bytes held in rings.
static MEMORY: AtomicU64 = AtomicU64::new(0);

/// Whether sockets are followed in this process; starts the tables at the first question.
pub(crate) fn follows() -> bool {
    match STARTED.load(Acquire) {
        YES => !is_inert(),
        NO | STARTING => crate::errno::kept(start),
        _ => false,
    }
}

#[cold]
fn start() -> bool {
    if !config().accel {
        return false;
    }
    // A handler on this thread would wait for itself.
    let _guard = guard::Guard::enter();
    if STARTED.compare_exchange(NO, STARTING, SeqCst, Relaxed).is_err() {
        return another_starts();
    }
    PID.store(sys::getpid() as u32, SeqCst);
    let started = fdtable::start() && slot::start() && make_table();
    STARTED.store(if started { YES } else { NEVER }, Release);
    started
}

/// Another thread makes the tables, which takes it a few system calls: what this one opens meanwhile shall be
/// followed as well. The wait is bounded: a child of a fork that nobody saw has no such thread.
fn another_starts() -> bool {
    for _ in 0..STARTING_NAPS {
        if STARTED.load(Acquire) != STARTING {
            break;
        }
        sys::nanosleep(STARTING_NAP_NSEC);
    }
    STARTED.load(Acquire) == YES && !is_inert()
}

fn make_table() -> bool {
    let Ok((table, file)) = Table::create(number_floor()) else { return false };
    if let Some(file) = file {
        // It stays open so that `accel explain` finds it; the program cannot close it by accident.
        fdtable::set(file.raw(), Entry::Internal);
        let _ = file.into_raw();
    }
    // SAFETY: STARTED is STARTING: this thread alone is here, and nobody reads before YES.
    unsafe { (*TABLE.0.get()).write(table) };
    true
}

/// The family's cards. Only for sockets that are followed.
#[inline]
pub(crate) fn table() -> Table {
    // SAFETY: sockets are followed only after `start` wrote the table.
    unsafe { (*TABLE.0.get()).assume_init() }
}

/// This process.
#[inline]
pub(crate) fn pid() -> u32 {
    PID.load(Relaxed)
}

/// Lowest number for descriptors of our own.
pub(crate) fn number_floor() -> c_int {
    let limit = sys::descriptor_limits().0.min(FLOOR_MAX);
    limit.saturating_sub(FLOOR_ROOM).max(64) as c_int
}

/// Whether accel keeps still: no new upgrade is begun.
pub(crate) fn is_inert() -> bool {
    INERT.load(Relaxed)
}

/// No upgrade from now on: the system forbids what it needs, or is about to. What has rings keeps them: they
/// need no system call that the program itself does not make.
pub(crate) fn go_inert(reason: Reason) {
    if !INERT.swap(true, SeqCst) && STARTED.load(Acquire) == YES {
        table().count_reason(reason as u8);
        meet::drop_all_pending();
    }
}

/// The process will use sockets past libc (io_uring): whatever it has goes to the kernel, and nothing is upgraded
/// any more, for epoll sets may be changed that way as well.
pub(crate) fn bypassed() {
    go_inert(Reason::GivenAway);
    leave_all(Reason::GivenAway, close::give_away);
}

/// A child is about to share our descriptors and not our memory: what it opens and closes does not come past us,
/// and what we open and close does not come past it. The kernel has everything, and no number means anything here.
pub(crate) fn descriptors_shared() {
    bypassed();
    if STARTED.load(Acquire) != YES {
        return;
    }
    let _guard = guard::Guard::enter();
    fdtable::for_each(|fd, entry| {
        epoll::give_away(fd);
        if matches!(entry, Entry::Socket(_)) {
            fdtable::forget_number(fd);
        }
    });
}

/// Every socket of this process goes to the kernel for good; what lies in a ring stays readable.
pub(crate) fn all_to_kernel(reason: Reason) {
    leave_all(reason, close::to_kernel_for_good);
}

fn leave_all(reason: Reason, leave: fn(&Socket, Reason)) {
    if STARTED.load(Acquire) != YES {
        return;
    }
    let _guard = guard::Guard::enter();
    fdtable::for_each(|fd, entry| {
        let Entry::Socket(name) = entry else { return };
        let socket = slot::by_name(fd, name);
        if socket.slot.owner() == pid() && !socket.card.has(flag::LISTENER) {
            leave(&socket, reason);
        }
    });
}

/// The process entered another network namespace: pending names lie in the old one.
pub(crate) fn namespace_changed() {
    if STARTED.load(Acquire) == YES {
        let _guard = guard::Guard::enter();
        meet::drop_all_pending();
    }
}

/// Takes a channel's memory from the allowance.
pub(crate) fn reserve_memory(ring_bytes: usize) -> bool {
    let bytes = Channel::mapped_bytes(ring_bytes) as u64;
    let most = config().local_memory.min(cgroup::allowance());
    if MEMORY.fetch_add(bytes, SeqCst) + bytes <= most {
        return true;
    }
    MEMORY.fetch_sub(bytes, SeqCst);
    false
}

/// Gives it back.
pub(crate) fn return_memory(ring_bytes: usize) {
    let bytes = Channel::mapped_bytes(ring_bytes) as u64;
    let _ = MEMORY.fetch_update(SeqCst, Relaxed, |held| Some(held.saturating_sub(bytes)));
}

/// A data call is about to use the socket: if its rings belong to another member of the family, they are
/// closed for good; what lies in them stays readable, by whoever comes first.
#[inline]
pub(crate) fn check_owner(socket: &Socket) {
    if socket.slot.owner() != pid() {
        first_use(socket);
    }
}

#[cold]
fn first_use(socket: &Socket) {
    let both = socket.lock_both();
    if !socket.is_current() || socket.slot.owner() == pid() {
        return;
    }
    let parts = socket.parts(&both);
    // The parent goes on with what it is giving.
    parts.sending.taken_back = None;
    if socket.is_live()
        && let Some(channel) = parts.channel.as_ref()
    {
        close::leave_sending(socket, channel, parts.sending);
        channel.share();
        channel.incoming().revoke();
        socket.card.describe(socket.fd, Path::Kernel, Reason::UsedByChild as u8);
        table().count_reason(Reason::UsedByChild as u8);
    }
    socket.card.set(flag::FOREIGN_USE, true);
    socket.slot.adopt();
}

/// Before fork, in the parent: nothing may be pending, and no table half changed.
pub(crate) fn fork_prepare() {
    if STARTED.load(Acquire) == YES {
        let _guard = guard::Guard::enter();
        meet::drop_all_pending();
        net::fork::prepare();
        epoll::lock_all();
        unread::lock_for_fork();
        meet::lock_for_fork();
        LOCKED_FOR_FORK.store(true, SeqCst);
        expect_child();
    }
}

/// After fork, in the parent.
pub(crate) fn fork_parent() {
    if LOCKED_FOR_FORK.swap(false, SeqCst) {
        net::fork::unlock();
        meet::unlock_after_fork();
        unread::unlock_after_fork();
        epoll::unlock_all();
    }
}

/// Before fork: the child will hold every description, from the moment at which it exists.
fn expect_child() {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    let child = expected_child(pid(), FORKS.fetch_add(1, Relaxed));
    expected().set(u64::from(child));
    for_each_socket(|socket| socket.card.join(child));
}

/// The child that this thread's fork is about to make.
fn expected() -> &'static Cell<u64> {
    &guard::thread().spare[4]
}

/// After fork, in the parent, where that knows the child; `None`: there is none. Where the child was faster, and perhaps
/// has closed a socket again, nothing is left to be done.
pub(crate) fn fork_parent_of(child: Option<u32>) {
    if STARTED.load(Acquire) != YES {
        return;
    }
    let _guard = guard::Guard::enter();
    match child {
        Some(child) => net::fork::made(child),
        None => net::fork::failed(),
    }
    let expected = expected().replace(0) as u32;
    if expected != 0 {
        for_each_socket(|socket| {
            socket.card.name_holder(expected, child.unwrap_or(0));
        });
    }
}

fn for_each_socket(mut act: impl FnMut(Socket)) {
    fdtable::for_each(|fd, entry| {
        if let Entry::Socket(name) = entry {
            act(slot::by_name(fd, name));
        }
    });
}

/// After fork, in the child: it holds every description that its descriptors name.
pub(crate) fn fork_child() {
    LOCKED_FOR_FORK.store(false, SeqCst);
    // The thread that made the tables is not here.
    let _ = STARTED.compare_exchange(STARTING, NO, SeqCst, Relaxed);
    if STARTED.load(Acquire) != YES {
        return;
    }
    meet::unlock_after_fork();
    meet::leave_to_parent();
    unread::unlock_after_fork();
    epoll::unlock_all();
    let pid = sys::getpid() as u32;
    PID.store(pid, SeqCst);
    statistics::after_fork();
    net::fork::child();
    let expected = expected().replace(0) as u32;
    for_each_socket(|socket| {
        let named = expected != 0 && socket.card.name_holder(expected, pid);
        if !named && !socket.card.holds(pid) {
            socket.card.join(pid);
        }
    });
}

/// Before exec: what survives into the new program is given to the kernel. 0 to 2, systemd's descriptors, and
/// what nobody else holds count as handed over; the rest are leaks and are left alone.
pub(crate) fn exec_prepare() {
    if STARTED.load(Acquire) != YES || crate::process::in_other_process() {
        return;
    }
    let _guard = guard::Guard::enter();
    fdtable::for_each(|fd, entry| {
        epoll::give_away(fd);
        let Entry::Socket(name) = entry else { return };
        let closes =
            sys::fcntl(fd, libc::F_GETFD, 0).is_ok_and(|flags| flags as c_int & libc::FD_CLOEXEC != 0);
        let socket = slot::by_name(fd, name);
        if !closes && (fd <= 2 || socket.card.is_sole_holder(pid()) || socket.slot.owner() == pid()) {
            close::give_away(&socket, Reason::GivenAway);
        }
    });
    statistics::write();
}

/// The exec failed: what was given away stays on the kernel, the rest goes on.
pub(crate) fn exec_failed() {}

/// The socket behind a descriptor goes where accel cannot follow.
pub(crate) fn give_away(fd: c_int, reason: Reason) {
    epoll::give_away(fd);
    if let Some(socket) = slot::find(fd) {
        let _guard = guard::Guard::enter();
        close::give_away(&socket, reason);
    }
}

/// The process ends: nobody will read what is put into its rings from here on.
pub(crate) fn exiting() {
    if STARTED.load(Acquire) != YES || crate::process::in_other_process() {
        return;
    }
    let _guard = guard::Guard::enter();
    fdtable::for_each(|fd, entry| {
        let Entry::Socket(name) = entry else { return };
        let socket = slot::by_name(fd, name);
        if socket.slot.owner() == pid() {
            close::before_exit(&socket);
        }
    });
    net::fork::ended();
    statistics::write();
}
