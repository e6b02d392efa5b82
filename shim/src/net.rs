//! The network path: sockets whose packets leave by an interface that accel drives are carried by our own stack, in this process.
//!
//! The program's descriptor stays a kernel socket, the *placeholder*: it keeps the number, the options and an explicit bind. What the
//! connection is stands in the stack's region; the slot knows its handle there.
//!
//! | module | what |
//! |---|---|
//! | [`attach`] | which interfaces there are for this process, and their stacks |
//! | [`open`] | connect, listen, accept, close: where the path of a socket is decided |
//! | [`handover`] | connections that the kernel gets, since they go where accel can't follow |
//! | [`receive`], [`send`] | the data |
//! | [`datagram`] | all of that for UDP |
//! | [`wait`] | waiting for one socket |
//! | [`ready`] | readiness as poll(2) tells it, and poll and select over any mix |
//! | [`options`] | options and names |
//! | [`address`] | addresses of the program's and of the stack's |

use core::cell::Cell;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use engine::engine::Kick;
use libc::c_int;
use stack::error::Error;
use stack::events::Events;
use stack::region::slab::Handle;
use stack::stack::Stack;

use crate::guard;
use crate::slot::{self, Outcome, Slot, Socket};
use driver::sys::Errno;
use driver::xdp::device::AfXdp;

pub(crate) mod address;
pub(crate) mod attach;
mod control;
pub(crate) mod datagram;
pub(crate) mod fork;
pub(crate) mod handover;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod ready;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod wait;

pub(crate) use attach::Interface;

/// What of a socket the stack has, in the slot's `net` word.
const NONE: u32 = 0;
/// The connection is the stack's.
const CONNECTION: u32 = 1;
/// It listens in the stack as well as in the kernel.
const LISTENER: u32 = 2;
/// Nothing, and never: an option is set that only the kernel knows.
const REFUSED: u32 = 3;
/// A socket of UDP that the stack has beside the kernel.
const DATAGRAMS: u32 = 4;
/// One that it may have.
const OPEN: u32 = 5;
const KIND: u32 = 0xff;
const INTERFACE_SHIFT: u32 = 8;
const INTERFACE: u32 = 0xff;
/// Its port was claimed for it: a connection's that was bound before, or a listener's.
const CLAIMED: u32 = 1 << 16;

/// A socket, or a half of one, that the stack has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    pub(crate) socket: Socket,
    pub(crate) interface: &'static Interface,
    pub(crate) handle: Handle,
    /// It is one of UDP, and the handle names one of those.
    pub(crate) is_udp: bool,
}

fn packed(handle: Handle) -> u64 {
    u64::from(handle.generation) << 32 | u64::from(handle.index)
}

impl Slot {
    /// The stack is to have nothing of it.
    pub(crate) fn refuse_stack(&self) {
        let _ = self.net.compare_exchange(NONE, REFUSED, SeqCst, Relaxed);
    }

    /// It is a socket of UDP that the stack may have.
    pub(crate) fn await_stack(&self) {
        self.net.store(OPEN, SeqCst);
    }

    /// What the stack has of it, if anything.
    #[inline]
    fn carried(&'static self, socket: &Socket, kind: u32) -> Option<Carried> {
        let word = self.net.load(Relaxed);
        if word & KIND != kind {
            return None;
        }
        let interface = attach::interface(word >> INTERFACE_SHIFT & INTERFACE)?;
        let handle = self.handle.load(Relaxed);
        let handle = Handle { index: handle as u32, generation: (handle >> 32) as u32 };
        Some(Carried { socket: *socket, interface, handle, is_udp: kind == DATAGRAMS })
    }
}

impl Socket {
    /// The connection in the stack, if this is one.
    #[inline]
    pub(crate) fn connection(&self) -> Option<Carried> {
        if self.slot.net.load(Relaxed) == NONE { None } else { self.slot.carried(self, CONNECTION) }
    }

    /// The listener in the stack beside the kernel's, if there is one.
    pub(crate) fn stack_listener(&self) -> Option<Carried> {
        if self.slot.net.load(Relaxed) == NONE { None } else { self.slot.carried(self, LISTENER) }
    }

    /// The stack's half of a socket of UDP.
    #[inline]
    pub(crate) fn datagrams(&self) -> Option<Carried> {
        self.slot.carried(self, DATAGRAMS)
    }

    /// Whether it is a socket of UDP that the stack has, or may have.
    #[inline]
    pub(crate) fn is_datagram(&self) -> bool {
        matches!(self.slot.net.load(Relaxed) & KIND, DATAGRAMS | OPEN)
    }

    /// Whether it is one of which nothing is decided yet.
    pub(crate) fn is_undecided(&self) -> bool {
        self.slot.net.load(Relaxed) & KIND == OPEN
    }

    /// What of it the stack can tell readiness of.
    #[inline]
    pub(crate) fn waitable(&self) -> Option<Carried> {
        self.connection().or_else(|| self.stack_listener()).or_else(|| self.datagrams())
    }

    /// Whether the stack has anything of it, or may have.
    #[inline]
    pub(crate) fn is_in_stack(&self) -> bool {
        !matches!(self.slot.net.load(Relaxed) & KIND, NONE | REFUSED)
    }

    /// Whether a port was claimed for it.
    fn has_claim(&self) -> bool {
        self.slot.net.load(Relaxed) & CLAIMED != 0
    }

    /// Whether the stack may have it.
    fn may_be_carried(&self) -> bool {
        self.slot.net.load(Relaxed) == NONE
    }

    /// The kernel has it from now on; false if another thread has said so before.
    fn set_kernels(&self) -> bool {
        let word = self.slot.net.load(SeqCst);
        word & KIND == CONNECTION && self.slot.net.compare_exchange(word, REFUSED, SeqCst, Relaxed).is_ok()
    }

    fn set_carried(&self, kind: u32, interface: &Interface, handle: Handle) {
        self.card.describe_in_stack(interface.index, packed(handle));
        self.slot.handle.store(packed(handle), SeqCst);
        self.slot.net.store(kind | interface.number << INTERFACE_SHIFT, SeqCst);
    }
}

/// The connection behind a descriptor that the stack carries.
#[inline]
pub(crate) fn find(fd: c_int) -> Option<Carried> {
    slot::find(fd)?.connection()?.unless_gone()
}

/// How many things the thread's last wait gave it to do.
#[inline]
pub(crate) fn events_given() -> &'static Cell<u64> {
    &guard::thread().spare[5]
}

/// What of this descriptor the stack can tell readiness of.
#[inline]
pub(crate) fn waitable(fd: c_int) -> Option<Carried> {
    slot::find(fd)?.waitable()?.unless_gone()
}

/// The errno of an error of the stack's.
pub(crate) fn failure(error: Error) -> Outcome {
    Outcome::Fail(Errno(error.number()))
}

impl Carried {
    /// The same, unless somebody has given it to the kernel.
    #[inline]
    fn unless_gone(self) -> Option<Self> {
        if self.is_gone() && handover::is_over(&self) { None } else { Some(self) }
    }

    /// Somebody gives it to the kernel, or has.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.events().ready & stack::events::GONE != 0
    }

    /// Does something with the stack. What it sends, the device is told at once, unless the thread's last wait gave it several things
    /// to do: then with the next wait.
    #[inline]
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Stack<'_, 'static, AfXdp>) -> R) -> R {
        let kick = if events_given().get() > 1 { Kick::Soon } else { Kick::Now };
        self.with_kick(kick, act)
    }

    /// The same, with a choice of when the device is told.
    #[inline]
    pub(crate) fn with_kick<R>(
        &self,
        kick: Kick,
        act: impl FnOnce(&mut Stack<'_, 'static, AfXdp>) -> R,
    ) -> R {
        self.interface.serve();
        self.interface.engine.with_kick(guard::tid(), kick, act)
    }

    /// What is ready, as far as the stack knows without a look at the device.
    #[inline]
    pub(crate) fn events(&self) -> Events {
        let shared = self.interface.engine.shared();
        let words = if self.is_udp { shared.udp_events } else { shared.tcp_events };
        match words.get(self.handle.index as usize) {
            Some(word) => stack::events::load(word),
            None => Events { ready: 0, arrivals: 0, openings: 0 },
        }
    }

    /// The same after a look at the device.
    pub(crate) fn poll(&self) -> Events {
        self.interface.engine.poll(guard::tid());
        self.events()
    }
}
