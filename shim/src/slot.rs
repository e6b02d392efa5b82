//! What this process knows of each socket that it follows: those of TCP, and of UDP where the stack may have them.
//!
//! A socket is an open file description. Its [`Card`] is shared with the processes that inherit it over fork
//! and holds the two locks; its [`Slot`], of the same index, is private. Which lock guards what:
//!
//! | what | guarded by |
//! |---|---|
//! | `channel`, `meeting`, `retired`, `state` | both locks to change, either to read |
//! | `Receiving` | the receive lock |
//! | `Sending` | the send lock |
//!
//! No lock is held across a call that can block; a thread that waits keeps the slot alive by a pin.

use core::cell::UnsafeCell;
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use driver::cards::{CARDS_MAX, Card, Held, Path, flag};
use driver::channel::{Channel, Side};
use driver::sys::{self, Errno};
use libc::c_int;
use rows::reasons::Reason;

use crate::fdtable::{self, Entry, Name};
use crate::meet::Meeting;
use crate::{epoll, family, guard};

/// Epoll sets that one socket can be in and still be opened.
pub(crate) const SETS_MAX: usize = 4;
const GENERATION: u32 = 0xff_ffff;

/// Where the socket is. The numbers order the life: it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// On the kernel, may be upgraded.
    Candidate = 0,
    /// Has rings.
    Live = 1,
    /// Has rings that nobody fills any more, and an option under which what lies there is not read the short way.
    Leaving = 2,
    /// On the kernel for good.
    Kernel = 3,
    /// Not used.
    Free = 4,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    /// Bytes read from the kernel since the connection began.
    pub(crate) kread: u64,
    /// An error that the kernel reported while ring bytes were still unread.
    pub(crate) stashed: Option<i32>,
    /// The kernel said that the peer will send no more.
    pub(crate) ended: bool,
    /// When the kernel was last looked at by a non-blocking reader, in ticks.
    pub(crate) looked: u64,
}

/// The sending half.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// The receiver's position when we last looked, and when that was: to notice a dead peer.
    pub(crate) head_seen: u64,
    pub(crate) head_seen_at: u64,
    /// Sends that may go the short way before the reader is looked at again.
    pub(crate) quick_left: u32,
    /// Send calls in a row that found the direction closed.
    pub(crate) kernel_streak: u32,
    /// Waits in a row for a reader that did not open.
    pub(crate) waits_lost: u32,
    /// What was taken back from the ring and is not in the kernel yet: position and bytes.
    pub(crate) taken_back: Option<(u64, u64)>,
}

/// One socket, as this process sees it.
#[derive(Debug)]
pub(crate) struct Slot {
    generation: AtomicU32,
    state: AtomicU8,
    /// Descriptors of this process that name it.
    descriptors: AtomicU32,
    /// A second descriptor named it at some time.
    duplicated: AtomicU8,
    /// Threads that wait on it without a lock.
    pins: AtomicU32,
    /// The process that may use the rings.
    owner: AtomicU32,
    /// Calls that moved bytes while it was on the kernel.
    pub(crate) messages: AtomicU32,
    /// Messages before which the meeting has nothing to do: until then no lock is taken for it.
    pub(crate) next_step: AtomicU32,
    /// When the first of them was, in ticks.
    pub(crate) first_at: AtomicU64,
    /// SO_RCVTIMEO in microseconds; 0 is none.
    pub(crate) receive_timeout_us: AtomicU32,
    /// Ring sends when a receive last waited: whether this end only listens.
    pub(crate) sends_seen: AtomicU64,
    /// Waits in a row that were short, of an end that only listens ([`crate::rx`]).
    pub(crate) short_waits: AtomicU32,
    /// It is on the list of [`crate::unread`].
    pub(crate) listed: AtomicU8,
    /// Its memory lies in a listener's mailbox, and the acceptor has not been seen ([`crate::meet::attend`]).
    pub(crate) invited: AtomicU8,
    /// TCP_NODELAY, the program's and the kernel's: the bits of [`crate::nagle`].
    pub(crate) nodelay: AtomicU8,
    /// SO_PEEK_OFF as far as it lies in the ring, plus one; 0 when it is not set. Under the receive lock.
    pub(crate) peek_offset: AtomicU32,
    /// The kernel gives control messages with what it receives.
    pub(crate) controls: AtomicU8,
    /// SO_RCVLOWAT as the program set it; 0 if it did not.
    pub(crate) low_water: AtomicU32,
    /// The kernel's, while it is lower because ring bytes count as well ([`crate::rx::mark`]); 0 if it is not. Under
    /// the receive lock.
    pub(crate) kernel_low_water: AtomicU32,
    /// Epoll sets that watch it (index plus one; 0 is none).
    pub(crate) sets: [AtomicU32; SETS_MAX],
    /// It is in more sets than that.
    pub(crate) crowded_sets: AtomicU8,
    /// What the stack has of it: the words of [`crate::net`].
    pub(crate) net: AtomicU32,
    /// Under which handle.
    pub(crate) handle: AtomicU64,
    /// When the kernel was last asked for an error of a socket of UDP ([`crate::net::datagram`]), in ticks.
    pub(crate) error_asked: AtomicU64,
    /// Datagrams in a row that the stack had.
    pub(crate) from_stack: AtomicU32,
    channel: UnsafeCell<Option<Channel>>,
    meeting: UnsafeCell<Option<Box<Meeting>>>,
    /// A channel that was given up before it carried anything: calls without a lock may still count on it.
    retired: UnsafeCell<Option<Channel>>,
    receiving: UnsafeCell<Receiving>,
    sending: UnsafeCell<Sending>,
}

// SAFETY: the cells are used under the locks named at the top of this file; the rest is atomics.
unsafe impl Sync for Slot {}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(core::ptr::null_mut());

/// Maps the slots: zero bytes are free ones. False if there is no memory.
pub(crate) fn start() -> bool {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let Ok(base) = sys::mmap(None, CARDS_MAX * size_of::<Slot>(), protection, kind) else { return false };
    SLOTS.store(base.cast(), Release);
    true
}

#[inline]
fn at(index: u32) -> &'static Slot {
    // SAFETY: `start` mapped CARDS_MAX slots for good before any entry names one; the atomics are valid as
    // zeros, and `reset` writes the cells before an entry makes them reachable (a zero `Option<Box>` is None).
    unsafe { &*SLOTS.load(Acquire).add(index as usize % CARDS_MAX) }
}

/// A followed socket, looked up by a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    pub(crate) fd: c_int,
    pub(crate) name: Name,
    pub(crate) slot: &'static Slot,
    pub(crate) card: &'static Card,
}

/// The followed socket behind a descriptor.
#[inline]
pub(crate) fn find(fd: c_int) -> Option<Socket> {
    match fdtable::get(fd) {
        Entry::Socket(name) => Some(by_name(fd, name)),
        _ => None,
    }
}

/// The socket that an entry named.
#[inline]
pub(crate) fn by_name(fd: c_int, name: Name) -> Socket {
    Socket { fd, name, slot: at(name.index), card: family::table().card(name.index) }
}

/// The socket with this card, whatever its generation is now.
pub(crate) fn by_index(index: u32) -> Socket {
    let generation = at(index).generation.load(SeqCst) & GENERATION;
    by_name(-1, Name { index, generation })
}

/// Follows a new TCP socket. It stays on the kernel, unfollowed, if the table is full.
pub(crate) fn follow(fd: c_int, nonblocking: bool, accepted: bool) {
    if let Some(socket) = enter(fd, nonblocking) {
        socket.card.set(flag::ACCEPTED, accepted);
    }
}

/// Follows a new socket of UDP: no rings for it, but the stack may have it.
pub(crate) fn follow_datagrams(fd: c_int, nonblocking: bool) {
    if let Some(socket) = enter(fd, nonblocking) {
        socket.slot.state.store(State::Kernel as u8, SeqCst);
        socket.slot.await_stack();
    }
}

fn enter(fd: c_int, nonblocking: bool) -> Option<Socket> {
    let pid = family::pid();
    let table = family::table();
    let Some(index) = table.take(pid) else {
        table.count_reason(Reason::Tables as u8);
        return None;
    };
    let (slot, card) = (at(index), table.card(index));
    card.set(flag::NONBLOCK, nonblocking);
    let generation = slot.generation.load(Relaxed);
    slot.reset(pid);
    card.describe(fd, Path::Candidate, Reason::None as u8);
    let stale = fdtable::take(fd);
    let name = Name { index, generation: generation & GENERATION };
    if !fdtable::set(fd, Entry::Socket(name)) {
        slot.state.store(State::Free as u8, SeqCst);
        table.leave(card, pid);
        return None;
    }
    drop_entry(fd, stale, false);
    Some(by_name(fd, name))
}

/// Another descriptor of this process names the same thing.
pub(crate) fn duplicate(from: c_int, to: c_int) {
    let entry = fdtable::get(from);
    match entry {
        Entry::Socket(name) => {
            at(name.index).duplicated.store(1, SeqCst);
            at(name.index).descriptors.fetch_add(1, SeqCst);
            epoll::tell_kernel_of(&by_name(from, name));
        }
        Entry::Set(name) => epoll::duplicate(name),
        Entry::Internal | Entry::None => return,
    }
    let quiet = !fdtable::is_active(from);
    if !fdtable::set(to, entry) {
        drop_entry(to, entry, false);
    } else if quiet {
        fdtable::quieten(to);
    }
}

/// A descriptor number no longer means what its entry says, and nobody told us: drop the entry, touch nothing.
pub(crate) fn forget_descriptor(fd: c_int) {
    let entry = fdtable::take(fd);
    drop_entry(fd, entry, false);
}

/// A descriptor is about to be closed by the program.
pub(crate) fn closing_descriptor(fd: c_int) {
    let entry = fdtable::take(fd);
    drop_entry(fd, entry, true);
}

fn drop_entry(fd: c_int, entry: Entry, closing: bool) {
    match entry {
        Entry::Socket(name) => {
            let socket = by_name(fd, name);
            if socket.slot.descriptors.fetch_sub(1, SeqCst) == 1 {
                crate::close::last_descriptor(&socket, closing);
            }
        }
        Entry::Set(name) => epoll::drop_descriptor(name),
        Entry::Internal | Entry::None => {}
    }
}

/// Both locks of a socket.
#[derive(Debug)]
pub(crate) struct Both {
    _receive: Held,
    _send: Held,
}

impl Slot {
    fn reset(&self, pid: u32) {
        self.descriptors.store(1, Relaxed);
        self.duplicated.store(0, Relaxed);
        self.pins.store(0, Relaxed);
        self.owner.store(pid, Relaxed);
        self.messages.store(0, Relaxed);
        self.next_step.store(0, Relaxed);
        self.receive_timeout_us.store(0, Relaxed);
        self.low_water.store(0, Relaxed);
        self.kernel_low_water.store(0, Relaxed);
        self.peek_offset.store(0, Relaxed);
        self.controls.store(0, Relaxed);
        self.nodelay.store(0, Relaxed);
        self.sends_seen.store(0, Relaxed);
        self.short_waits.store(0, Relaxed);
        self.invited.store(0, Relaxed);
        self.listed.store(0, Relaxed);
        self.net.store(0, Relaxed);
        self.error_asked.store(0, Relaxed);
        self.from_stack.store(0, Relaxed);
        self.crowded_sets.store(0, Relaxed);
        for set in &self.sets {
            set.store(0, Relaxed);
        }
        // SAFETY: the slot is free and the card was just taken: nobody else uses either.
        unsafe {
            *self.channel.get() = None;
            *self.meeting.get() = None;
            *self.retired.get() = None;
            *self.receiving.get() = Receiving::default();
            *self.sending.get() = Sending::default();
        }
        self.state.store(State::Candidate as u8, SeqCst);
    }

    /// Where the socket is.
    #[inline]
    pub(crate) fn state(&self) -> State {
        match self.state.load(Acquire) {
            0 => State::Candidate,
            1 => State::Live,
            2 => State::Leaving,
            3 => State::Kernel,
            _ => State::Free,
        }
    }

    /// Whether more than one descriptor of this process names it (or did: a number may have moved).
    pub(crate) fn is_duplicated(&self) -> bool {
        self.duplicated.load(Relaxed) != 0
    }

    /// The process that may use the rings.
    #[inline]
    pub(crate) fn owner(&self) -> u32 {
        self.owner.load(Relaxed)
    }

    /// Whether a second descriptor of this process names it now.
    pub(crate) fn has_others(&self) -> bool {
        self.descriptors.load(SeqCst) > 1
    }

    /// Whether no thread waits on it without a lock.
    pub(crate) fn is_unpinned(&self) -> bool {
        self.pins.load(SeqCst) == 0
    }

    /// From now on the rings belong to this process (which makes them, or has revoked them).
    pub(crate) fn adopt(&self) {
        self.owner.store(family::pid(), SeqCst);
    }
}

impl Socket {
    /// Whether the slot still belongs to the socket that the descriptor named when it was looked up.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.slot.generation.load(Acquire) & GENERATION == self.name.generation
    }

    /// Whether a descriptor of this process still names it. A pin keeps the slot, not the descriptor, whose number may
    /// be another file's by now.
    pub(crate) fn is_named(&self) -> bool {
        self.is_current() && self.slot.descriptors.load(SeqCst) != 0
    }

    #[inline]
    fn tid() -> u32 {
        guard::tid() as u32
    }

    /// Locks the receiving half.
    #[inline]
    pub(crate) fn lock_receive(&self) -> Held {
        self.card.lock_receive(Self::tid())
    }

    /// Locks the sending half.
    #[inline]
    pub(crate) fn lock_send(&self) -> Held {
        self.card.lock_send(Self::tid())
    }

    /// Locks both halves.
    pub(crate) fn lock_both(&self) -> Both {
        let tid = Self::tid();
        Both { _receive: self.card.lock_receive(tid), _send: self.card.lock_send(tid) }
    }

    /// Whether data calls go through the rings' code.
    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.slot.state(), State::Live | State::Leaving)
    }

    /// The channel, while `_held` keeps it mapped.
    #[inline]
    pub(crate) fn channel<'a>(&self, held: &'a Held) -> Option<&'a Channel> {
        self.is_live().then(|| self.channel_of(held)).flatten()
    }

    /// The channel of a socket that needs no more care than its bytes: for the short ways.
    #[inline]
    pub(crate) fn plain_channel<'a>(&self, held: &'a Held) -> Option<&'a Channel> {
        if self.slot.state() == State::Live { self.channel_of(held) } else { None }
    }

    #[inline]
    fn channel_of<'a>(&self, _held: &'a Held) -> Option<&'a Channel> {
        if !self.is_current() {
            return None;
        }
        // SAFETY: a lock of the socket is held, so nobody replaces the channel meanwhile.
        unsafe { (*self.slot.channel.get()).as_ref() }
    }

    /// The receiving half, under the receive lock.
    ///
    /// # Safety
    /// `held` must be the receive lock, and only one reference may live at a time.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn receiving<'a>(&self, _held: &'a Held) -> &'a mut Receiving {
        // SAFETY: the caller holds the lock that guards it.
        unsafe { &mut *self.slot.receiving.get() }
    }

    /// The sending half, under the send lock.
    ///
    /// # Safety
    /// `held` must be the send lock, and only one reference may live at a time.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn sending<'a>(&self, _held: &'a Held) -> &'a mut Sending {
        // SAFETY: the caller holds the lock that guards it.
        unsafe { &mut *self.slot.sending.get() }
    }

    /// Everything, under both locks.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn parts<'a>(&self, _both: &'a Both) -> Parts<'a> {
        // SAFETY: both locks are held, and `Parts` borrows them.
        unsafe {
            Parts {
                channel: &mut *self.slot.channel.get(),
                meeting: &mut *self.slot.meeting.get(),
                retired: &mut *self.slot.retired.get(),
                receiving: &mut *self.slot.receiving.get(),
                sending: &mut *self.slot.sending.get(),
            }
        }
    }

    /// The rings are in use from now on. Both locks are held.
    pub(crate) fn become_live(&self, _both: &Both) {
        self.slot.state.store(State::Live as u8, SeqCst);
        self.card.describe(self.fd, Path::Local, Reason::None as u8);
        crate::signals::catch_faults();
    }

    /// Nobody fills the rings any more. Both locks are held.
    pub(crate) fn begin_to_leave(&self, _both: &Both) {
        self.slot.state.store(State::Leaving as u8, SeqCst);
    }

    /// The rings are not used any more; the channel stays mapped until the slot is freed. Both locks are held.
    pub(crate) fn leave_rings(&self, _both: &Both, reason: Reason) {
        self.slot.state.store(State::Kernel as u8, SeqCst);
        self.card.describe(self.fd, Path::Kernel, reason as u8);
        family::table().count_reason(reason as u8);
        crate::nagle::restore(self);
        crate::rx::mark::restore(self);
    }

    /// The commit failed: on the kernel as before. Both locks are held.
    pub(crate) fn back_to_candidate(&self, _both: &Both) {
        self.slot.state.store(State::Candidate as u8, SeqCst);
    }

    /// On the kernel for good, for this reason; for a socket that has no rings in use.
    pub(crate) fn settle(&self, reason: Reason) {
        let both = self.lock_both();
        if !self.is_current() || self.slot.state() != State::Candidate {
            return;
        }
        *self.parts(&both).meeting = None;
        self.slot.state.store(State::Kernel as u8, SeqCst);
        self.card.describe(self.fd, Path::Kernel, reason as u8);
        family::table().count_reason(reason as u8);
        if self.slot.descriptors.load(SeqCst) == 1 {
            fdtable::quieten(self.fd);
        }
    }

    /// Keeps the slot and its channel alive without a lock.
    pub(crate) fn pin(&self) -> Pin {
        self.slot.pins.fetch_add(1, SeqCst);
        Pin(*self)
    }

    /// Whether recv and send on it may block, given the call's flags.
    #[inline]
    pub(crate) fn may_block(&self, flags: c_int) -> bool {
        flags & libc::MSG_DONTWAIT == 0 && !self.card.has(flag::NONBLOCK)
    }

    /// Which end of the connection it is.
    pub(crate) fn side(&self) -> Side {
        if self.card.has(flag::ACCEPTED) { Side::Acceptor } else { Side::Connector }
    }

    /// Frees the slot if nothing of this process uses it any more.
    pub(crate) fn free_if_unused(&self) {
        let both = self.lock_both();
        let unused = self.is_current()
            && self.slot.descriptors.load(SeqCst) == 0
            && self.slot.pins.load(SeqCst) == 0
            && self.slot.state() != State::Free;
        if !unused {
            return;
        }
        self.slot.state.store(State::Free as u8, SeqCst);
        self.slot.generation.fetch_add(1, SeqCst);
        let parts = self.parts(&both);
        *parts.meeting = None;
        for channel in [parts.channel.take(), parts.retired.take()].into_iter().flatten() {
            family::return_memory(channel.capacity());
            // SAFETY: no descriptor, no pin, both locks held, and no epoll set lists it any more.
            unsafe { channel.unmap() };
        }
        drop(both);
        family::table().leave(self.card, family::pid());
    }
}

/// The parts of a slot, borrowed under both locks.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) channel: &'a mut Option<Channel>,
    pub(crate) meeting: &'a mut Option<Box<Meeting>>,
    pub(crate) retired: &'a mut Option<Channel>,
    pub(crate) receiving: &'a mut Receiving,
    pub(crate) sending: &'a mut Sending,
}

/// A slot that stays.
#[derive(Debug)]
pub(crate) struct Pin(Socket);

impl Drop for Pin {
    fn drop(&mut self) {
        if self.0.slot.pins.fetch_sub(1, SeqCst) == 1 && self.0.slot.descriptors.load(SeqCst) == 0 {
            self.0.free_if_unused();
        }
    }
}

/// What a call on a followed socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done: the value to return.
    Value(usize),
    /// Failed.
    Fail(Errno),
    /// Nothing was done: let the kernel do the very same call.
    Kernel,
}
