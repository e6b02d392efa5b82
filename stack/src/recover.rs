//! What is done when the holder of the lock has died.
//!
//! Before an operation changes what only one socket's record and queues say, it writes the socket's name into the region's [`Intent`],
//! and takes it out when it is done. All else in a region follows from the records: free lists, tables, timer wheels, counts, the
//! order of queues. So after a death [`Parts::recover`] loses at most what the intent names, and makes the rest anew:
//!
//! 1. the socket that was being changed is closed with an error, and its peer reset; an accept(2) that had begun is undone;
//! 2. records that nobody holds are free: a socket that was being made, a child that no queue has;
//! 3. the frames of each queue are claimed; those that nobody claims are free, or will be when the device has sent them; those
//!    that were moving are put aside until the device is closed (its rings may name them);
//! 4. free lists, tables, wheels and counts are made from what is left.
//!
//! Frames are lost until the device is closed if the process that died had taken them from a ring and not looked at them, or was
//! giving those of a packet to a ring: for each death at most as many as are taken at once and as a packet has, and no frame that
//! the device has is ever taken for free.
//!
//! It may itself be interrupted at any point and begun again. What it reads it doesn't trust: a record that makes no sense is lost, and
//! the work is bounded by the number of records and frames.
//!
//! # Order of stores
//!
//! What a queue of several sockets leads to is complete before a link to it is written ([`fence`]), and a link is one store. A death
//! stops a processor between two instructions, so only the compiler could put stores in another order: a fence for the compiler is
//! enough, and costs nothing.

use core::sync::atomic::{Ordering, compiler_fence};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::demux::End;
use crate::device::Device;
use crate::error::Error;
use crate::region::slab::Handle;
use crate::region::{Parts, Shared};
use crate::seq::Seq;
use crate::stack::Stack;
use crate::stats::Counter;
use crate::wire::ip::Ip;

mod ip;
mod queues;
mod sockets;
mod tables;
#[cfg(test)]
mod tests;

coded! {
    /// What kind of thing an [`Intent`] names.
    pub enum Operation: u32 else None {
        /// Nothing was begun.
        None = 0,
        /// A socket of TCP is changed.
        Tcp = 1,
        /// A connection is taken off its listener's queue.
        Accept = 2,
        /// A socket of UDP is changed.
        Udp = 3,
    }
}

/// What the holder of the lock is about to change: written before the first store of an operation and cleared after its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Intent {
    /// An [`Operation`].
    pub operation: u32,
    /// The socket, plus one.
    pub socket: u32,
    /// The listener whose queue it is taken from, plus one.
    pub other: u32,
    /// The frame that is on its way into the fill ring, plus one.
    pub frame: u32,
}

impl Intent {
    /// What it says.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        Operation::decode(self.operation)
    }

    /// This socket is about to be changed. Nothing may be named already.
    #[inline]
    pub(crate) fn begin(&mut self, operation: Operation, socket: u32) {
        self.socket = socket.wrapping_add(1);
        fence();
        self.operation = operation as u32;
        fence();
    }

    /// It is whole again.
    #[inline]
    pub(crate) fn end(&mut self) {
        fence();
        self.operation = Operation::None as u32;
    }
}

/// Stores before it are not moved behind stores after it.
#[inline]
pub(crate) fn fence() {
    compiler_fence(Ordering::SeqCst);
}

/// A connection that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its socket, or what that was.
    pub socket: Handle,
    /// Our end.
    pub local: (Ip, u16),
    /// The peer's.
    pub remote: (Ip, u16),
    /// SND.NXT, as far as is known.
    pub seq: Seq,
    /// RCV.NXT, as far as is known.
    pub ack: Seq,
}

impl Lost {
    /// Our end.
    #[must_use]
    pub const fn local(&self) -> End<'_> {
        (&self.local.0, self.local.1)
    }
}

impl Parts<'_> {
    /// Does something to a socket that is named meanwhile, unless somebody has named it already.
    pub(crate) fn under<R>(
        &mut self,
        operation: Operation,
        socket: Handle,
        act: impl FnOnce(&mut Self) -> R,
    ) -> R {
        if self.intent.operation != Operation::None as u32 {
            return act(self);
        }
        self.intent.begin(operation, socket.index);
        let done = act(self);
        self.intent.end();
        done
    }

    /// Makes the region whole after the holder of its lock has died; `lost` is told of each connection that was lost. The sockets of
    /// the process that died are still its own: [`Stack::end_process`] is next.
    pub fn recover(&mut self, shared: &Shared<'_>, mut lost: impl FnMut(&Lost)) {
        self.reach_all();
        self.lose_named(shared, &mut lost);
        self.recover_holders();
        self.recover_listeners();
        self.lose_unbound(shared, &mut lost);
        self.drop_unheld(shared, &mut lost);
        self.recover_queues(shared, &mut lost);
        self.recover_datagrams(shared);
        self.recover_slabs();
        self.recover_tables();
        self.recover_ip();
        self.recover_groups();
        self.recover_sending();
        self.recover_frames(shared);
        for index in 0..self.slabs.listeners.fresh() {
            self.tell_queue(shared, index);
        }
        shared.note_all();
        fence();
        *self.intent = Intent::default();
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// [`Parts::recover`], with a reset for the peer of each connection that was lost; how many those were.
    ///
    /// # Errors
    /// `Corrupt` if an invariant doesn't hold even so: the region is to be given up.
    pub fn recover(&mut self) -> Result<u32, Error> {
        let (mut resets, mut count) = ([None; 32], 0);
        self.parts.recover(self.shared, |lost| {
            if let Some(place) = resets.get_mut(count) {
                *place = Some(*lost);
            }
            count += 1;
        });
        self.count(Counter::Recovered);
        self.shared.counters().add(Counter::RecoveryLost, count as u64);
        let is_whole = self.parts.check().and_then(|()| self.parts.check_frames(self.shared));
        is_whole.map_err(|_| Error::Corrupt)?;
        for lost in resets.into_iter().flatten() {
            self.reset_lost(&lost);
        }
        Ok(count as u32)
    }
}
