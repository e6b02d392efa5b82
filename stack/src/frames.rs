//! The frames of a device as the stack keeps them: a record for each, lists of them, and who may have how many.
//!
//! | part | in | what |
//! |---|---|---|
//! | [`FrameRecord`] | locked part | where its text is, its place in lists, what is known of its sending: one cache line |
//! | [`state`] | shared part | where the frame is: one word |
//! | [`pool`] | locked part | how many are free, the reserves, the pressure |
//! | [`blocks`] | locked part | pageable memory, for data that frames are too scarce for |
//! | the bytes | the device's memory | lent through [`crate::device::Memory`] |
//!
//! [`Frames`] sees the first three together and makes every change. A change of state comes before the frame is
//! passed on, and an entry of the device's rings is believed only if [`Frames::received`] or [`Frames::completed`]
//! says so.
//!
//! # Life of a frame
//!
//! Reception: [`Frames::take`] for the fill ring, [`Frames::fill`]; when it comes back [`Frames::received`]; then
//! either [`Frames::keep`] puts it into a socket's hands, or [`Frames::discard`] (what it held was
//! copied, or was nobody's).
//!
//! Sending of data: [`Frames::take_data`], into a queue, [`Frames::send`]; then in either order [`Frames::completed`] and
//! [`Frames::release`], and the second of them frees it. In between it can't be sent again and its bytes can't be changed:
//! [`Frames::is_writable`].
//!
//! Sending of control: [`Frames::take`], [`Frames::send`], and the completion frees it.
//!
//! # Invariant
//!
//! Between two operations the free frames and those in the fill ring are together at least [`pool::Limits::fill_min`]: whatever
//! sockets do, something can arrive.

use core::sync::atomic::AtomicU64;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::device::{Fragment, FrameIndex};
use crate::region::slab::Handle;
use crate::seq::Seq;
use crate::time::Instant;
use blocks::Blocks;
use pool::{Charge, Pool, Purpose, Shortage};
use state::State;

pub mod blocks;
mod claims;
pub mod list;
mod packet;
pub mod pool;
pub mod state;

#[cfg(test)]
pub(crate) mod tests;

/// What is known of one frame. Zero bytes are one that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameRecord {
    /// When it was last given to the device, in ns; of one that was received, when it arrived.
    pub sent_at: u64,
    /// For a sample of the delivery rate (draft-ietf-ccwg-bbr §4.1.2.2, P.delivered_time), in ns.
    pub delivered_at: u64,
    /// Likewise, P.first_sent_time, in ns.
    pub first_sent_at: u64,
    /// Likewise, P.delivered, in bytes modulo 2³².
    pub delivered: u32,
    /// The sequence number of its first byte of text.
    pub seq: u32,
    /// The next frame of its list, plus one. Of a free one: the next free.
    pub(crate) next: u32,
    /// The one before it, plus one.
    pub(crate) previous: u32,
    /// The next one, plus one, of a second list: by time of sending, or from run to run ([`crate::reassembly`]).
    pub(crate) side_next: u32,
    /// The one before it there, plus one.
    pub(crate) side_previous: u32,
    /// Of the first frame of a run: the last one, plus one. Of a frame to be sent: the sum of its text, if [`FrameRecord::SUMMED`].
    /// Of the latest packet that waits for a neighbour: how many do.
    pub(crate) mate: u32,
    /// The socket that is charged for it: its index, plus one; 0 is none.
    pub owner: u32,
    /// Where its text begins in the frame.
    pub offset: u16,
    /// Bytes of text.
    pub len: u16,
    /// What is known of its sending: the constants below.
    pub flags: u16,
    /// How often it was sent again.
    pub retransmissions: u8,
    /// While a recovery looks for owners: 1 if it has one.
    pub(crate) claimed: u8,
}

const _: () = assert!(size_of::<FrameRecord>() == 64);

impl FrameRecord {
    /// It was sent at least once.
    pub const SENT: u16 = 1;
    /// The peer has it (RFC 2018): Linux's TCPCB_SACKED_ACKED.
    pub const SACKED: u16 = 1 << 1;
    /// It is taken for lost: TCPCB_LOST.
    pub const LOST: u16 = 1 << 2;
    /// It was sent again, and that is on its way: TCPCB_SACKED_RETRANS.
    pub const RETRANSMITTED: u16 = 1 << 3;
    /// It was sent again once: no round-trip time is taken from it (Karn's algorithm, RFC 6298 §3). TCPCB_EVER_RETRANS.
    pub const EVER_RETRANSMITTED: u16 = 1 << 4;
    /// A FIN follows its text.
    pub const FIN: u16 = 1 << 5;
    /// The user's data ends here: PSH.
    pub const PUSH: u16 = 1 << 6;
    /// The sum of its text is known.
    pub const SUMMED: u16 = 1 << 7;
    /// It was sent when the application had no more (the rate's sample is one of the application's).
    pub const APP_LIMITED: u16 = 1 << 8;

    /// Its text came from the device.
    pub const RECEIVED: u16 = 1 << 9;
    /// The datagram goes on in the next frame of its list.
    pub const MORE: u16 = 1 << 10;

    /// Whether it has all of these flags.
    #[inline]
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number of its first byte.
    #[inline]
    #[must_use]
    pub const fn seq(&self) -> Seq {
        Seq(self.seq)
    }

    /// Sequence numbers that it takes: its text, and the FIN's.
    #[inline]
    #[must_use]
    pub const fn seq_len(&self) -> u32 {
        self.len as u32 + self.has(Self::FIN) as u32
    }

    /// The sequence number after it.
    #[inline]
    #[must_use]
    pub fn end(&self) -> Seq {
        self.seq() + self.seq_len()
    }
}

/// What became of a frame whose completion came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// It is free.
    Freed,
    /// A queue has it still, and may change it or send it again.
    Kept,
    /// It was a datagram, and its socket is still charged for it: [`Frames::end_datagram`].
    Datagram,
    /// It was not being sent: the entry is to be passed by and counted.
    Bad,
}

/// All frames of a stack: their records, their words and the pool.
#[derive(Debug)]
pub struct Frames<'a> {
    /// How many, and for whom.
    pub pool: &'a mut Pool,
    /// A record for each.
    pub records: &'a mut [FrameRecord],
    /// A word for each.
    pub states: &'a [AtomicU64],
}

/// What the queues of a socket work with.
#[derive(Debug)]
pub struct Means<'m, 'f, 'b, M> {
    /// All frames.
    pub frames: &'m mut Frames<'f>,
    /// All blocks.
    pub blocks: &'m mut Blocks<'b>,
    /// The bytes of frames.
    pub memory: &'m mut M,
    /// What this direction of the socket has.
    pub charge: &'m mut Charge,
    /// The socket's index.
    pub owner: u32,
}

/// A link of a list to a frame.
pub(crate) const fn link(frame: FrameIndex) -> u32 {
    frame.0.wrapping_add(1)
}

/// The frame of a link.
pub(crate) const fn linked(link: u32) -> Option<FrameIndex> {
    match link.checked_sub(1) {
        Some(index) => Some(FrameIndex(index)),
        None => None,
    }
}

impl Frames<'_> {
    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.records.len().min(self.states.len()).try_into().unwrap_or(u32::MAX - 1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames that are free, the reserves with them.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.len().saturating_sub(self.pool.used)
    }

    /// The record of a frame.
    #[inline]
    #[must_use]
    pub fn record(&self, frame: FrameIndex) -> Option<&FrameRecord> {
        self.records.get(frame.0 as usize)
    }

    /// The record of a frame, to be changed.
    #[inline]
    #[must_use]
    pub fn record_mut(&mut self, frame: FrameIndex) -> Option<&mut FrameRecord> {
        self.records.get_mut(frame.0 as usize)
    }

    /// Where a frame is.
    #[inline]
    #[must_use]
    pub fn state(&self, frame: FrameIndex) -> State {
        self.states.get(frame.0 as usize).map_or(State::Bad, |word| state::load(word).0)
    }

    /// Whether a queue of ours has it and the device hasn't: only then its bytes may be changed.
    #[inline]
    #[must_use]
    pub fn is_writable(&self, frame: FrameIndex) -> bool {
        matches!(self.state(frame), State::Socket | State::Moving)
    }

    /// The frame's name for this use of it.
    #[must_use]
    pub fn name(&self, frame: FrameIndex) -> Option<Handle> {
        let (_, generation) = state::load(self.states.get(frame.0 as usize)?);
        Some(Handle { index: frame.0, generation })
    }

    /// The piece of the frame that is its text.
    #[inline]
    #[must_use]
    pub fn text(&self, frame: FrameIndex) -> Option<Fragment> {
        let record = self.record(frame)?;
        Some(Fragment { frame, offset: record.offset, len: record.len })
    }

    /// Says which bytes of a frame are its text, once what stands before them was read; false if it is no part of
    /// what it was.
    pub fn set_text(&mut self, frame: FrameIndex, seq: Seq, offset: u16, len: u16) -> bool {
        let Some(record) = self.record_mut(frame) else { return false };
        let end = u32::from(record.offset) + u32::from(record.len);
        if offset < record.offset || u32::from(offset) + u32::from(len) > end {
            return false;
        }
        (record.seq, record.offset, record.len) = (seq.0, offset, len);
        true
    }

    #[inline]
    fn change(&self, frame: FrameIndex, from: State, to: State) -> bool {
        self.states.get(frame.0 as usize).is_some_and(|word| state::change(word, from, to))
    }

    /// A free frame, the most recently freed first, its record empty; in state [`State::Moving`].
    fn take_any(&mut self) -> Option<FrameIndex> {
        let frame = match linked(self.pool.free) {
            Some(frame) => {
                self.pool.free = self.record(frame)?.next;
                frame
            }
            None => {
                let frame = FrameIndex(self.pool.fresh);
                self.record(frame)?;
                self.pool.fresh = self.pool.fresh.wrapping_add(1);
                frame
            }
        };
        if !self.change(frame, State::Free, State::Moving) {
            return None;
        }
        *self.record_mut(frame)? = FrameRecord::default();
        self.pool.used = self.pool.used.wrapping_add(1);
        Some(frame)
    }

    /// Puts a frame, whose state says already that it is free, on the free list.
    fn give(&mut self, frame: FrameIndex) {
        let free = self.pool.free;
        if let Some(record) = self.record_mut(frame) {
            record.next = free;
            self.pool.free = link(frame);
            self.pool.used = self.pool.used.wrapping_sub(1);
        }
    }

    /// A frame for the stack itself.
    #[must_use]
    pub fn take(&mut self, purpose: Purpose) -> Option<FrameIndex> {
        if self.pool.may_take(purpose, self.available()) { self.take_any() } else { None }
    }

    /// A frame for data that a socket sends; it is the socket's, and charged to it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take_data(&mut self, charge: &mut Charge, owner: u32) -> Result<FrameIndex, Shortage> {
        let after = self.available().checked_sub(1).ok_or(Shortage::Frames)?;
        self.pool.may_charge(*charge, after)?;
        let frame = self.take_any().ok_or(Shortage::Frames)?;
        self.own(frame, charge, owner);
        Ok(frame)
    }

    /// Makes a frame that is moving a socket's, for whom it is charged without regard to limits: a control packet that has to be
    /// acknowledged (FIN) out of control's reserve.
    pub(crate) fn own(&mut self, frame: FrameIndex, charge: &mut Charge, owner: u32) -> bool {
        if !self.change(frame, State::Moving, State::Socket) {
            return false;
        }
        self.pool.charge(charge);
        if let Some(record) = self.record_mut(frame) {
            record.owner = owner.wrapping_add(1);
        }
        true
    }

    /// A frame that was taken for the fill ring is now in it: to be called before the device sees it. False if it
    /// is not for the fill ring.
    pub fn fill(&mut self, frame: FrameIndex) -> bool {
        let done = self.change(frame, State::Moving, State::Fill);
        self.pool.fill = self.pool.fill.wrapping_add(u32::from(done));
        done
    }

    /// The device gave a frame back with `text` in it, or says so: false if the frame was not in the fill ring, or
    /// the piece is not in the frame. What is not believed is not looked at.
    #[must_use]
    pub fn received(&mut self, text: Fragment, frame_size: u16, arrived: Instant) -> bool {
        if text.offset.checked_add(text.len).is_none_or(|end| end > frame_size)
            || !self.change(text.frame, State::Fill, State::Moving)
        {
            return false;
        }
        self.pool.fill = self.pool.fill.wrapping_sub(1);
        if let Some(record) = self.record_mut(text.frame) {
            *record = FrameRecord {
                sent_at: arrived.0,
                offset: text.offset,
                len: text.len,
                flags: FrameRecord::RECEIVED,
                ..FrameRecord::default()
            };
        }
        true
    }

    /// Makes a frame that was received a socket's, and charges it.
    ///
    /// # Errors
    /// Why the socket can't have it: the frame is still moving, and its text is to be copied or lost.
    pub fn keep(&mut self, frame: FrameIndex, charge: &mut Charge, owner: u32) -> Result<(), Shortage> {
        self.pool.may_charge(*charge, self.available())?;
        if self.own(frame, charge, owner) { Ok(()) } else { Err(Shortage::Frames) }
    }

    /// Frees a frame that is moving.
    pub fn discard(&mut self, frame: FrameIndex) -> bool {
        let done = self.change(frame, State::Moving, State::Free);
        if done {
            self.give(frame);
        }
        done
    }

    /// A frame is about to be given to the device to be sent: to be called before the device sees it. False if it may
    /// not be: the device has it still, or it was received and nobody was charged for it, so that the fill ring would miss it.
    #[must_use]
    pub fn send(&mut self, frame: FrameIndex) -> bool {
        let is_control = self.record(frame).is_some_and(|record| !record.has(FrameRecord::RECEIVED));
        self.change(frame, State::Socket, State::TxSocket)
            || (is_control && self.change(frame, State::Moving, State::Tx))
    }

    /// The device refused what [`Frames::send`] announced: a queue has its frame back, a control packet's is free.
    pub fn unsend(&mut self, frame: FrameIndex) -> Completed {
        self.completed(frame)
    }

    /// The device has sent a frame, or says so.
    #[must_use]
    pub fn completed(&mut self, frame: FrameIndex) -> Completed {
        if self.change(frame, State::TxSocket, State::Socket) {
            Completed::Kept
        } else if self.change(frame, State::Tx, State::Free) {
            self.give(frame);
            Completed::Freed
        } else if self.state(frame) == State::TxDatagram {
            Completed::Datagram
        } else {
            Completed::Bad
        }
    }

    /// A frame for a datagram of a socket, which is charged for it when it is sent; in state [`State::Moving`]. A datagram has as
    /// many as it needs, so it is for its first one that the socket's limit is asked: with [`Charge::limit`] as it is.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take_for_datagram(&mut self, charge: Charge) -> Result<FrameIndex, Shortage> {
        let after = self.available().checked_sub(1).ok_or(Shortage::Frames)?;
        self.pool.may_charge(charge, after)?;
        self.take_any().ok_or(Shortage::Frames)
    }

    /// A frame with a datagram is about to be given to the device: the socket with this name is charged until the completion. False
    /// if the frame isn't moving.
    #[must_use]
    pub fn send_datagram(&mut self, frame: FrameIndex, charge: &mut Charge, socket: Handle) -> bool {
        if !self.change(frame, State::Moving, State::TxDatagram) {
            return false;
        }
        self.pool.charge(charge);
        if let Some(record) = self.record_mut(frame) {
            (record.owner, record.seq) = (socket.index.wrapping_add(1), socket.generation);
        }
        true
    }

    /// Whose datagram a frame is that the device sends.
    pub(crate) fn datagram_of(&self, frame: FrameIndex) -> Option<Handle> {
        let record = self.record(frame)?;
        Some(Handle { index: record.owner.checked_sub(1)?, generation: record.seq })
    }

    /// The device has sent a datagram's frame, or refused it: it is free, and nobody is charged for it. False if it was none.
    pub fn end_datagram(&mut self, frame: FrameIndex, charge: &mut Charge) -> bool {
        let done = self.change(frame, State::TxDatagram, State::Free);
        if done {
            self.pool.uncharge(charge);
            if let Some(record) = self.record_mut(frame) {
                record.owner = 0;
            }
            self.give(frame);
        }
        done
    }

    /// Frames that are free beyond the reserves.
    #[inline]
    pub(crate) fn spare(&self) -> u32 {
        self.pool.beyond_reserves(self.available())
    }

    /// Whether a direction of a socket may have one more frame, which isn't free now.
    ///
    /// # Errors
    /// Why not.
    #[inline]
    pub(crate) fn may_keep(&self, charge: Charge) -> Result<(), Shortage> {
        self.pool.may_charge(charge, self.available())
    }

    /// A frame that somebody is charged for is another one's from now on.
    pub(crate) fn hand_over(
        &mut self,
        frame: FrameIndex,
        (from, to): (&mut Charge, &mut Charge),
        owner: u32,
    ) -> bool {
        if self.state(frame) != State::Socket {
            return false;
        }
        self.pool.uncharge(from);
        self.pool.charge(to);
        if let Some(record) = self.record_mut(frame) {
            record.owner = owner.wrapping_add(1);
        }
        true
    }

    /// A queue needs a frame no longer: it must be out of the queue. While the device still sends it, it is free
    /// only after its completion. False if no queue had it.
    pub fn release(&mut self, frame: FrameIndex, charge: &mut Charge) -> bool {
        let free = self.change(frame, State::Socket, State::Free);
        if !free && !self.change(frame, State::TxSocket, State::Tx) {
            return false;
        }
        self.pool.uncharge(charge);
        if let Some(record) = self.record_mut(frame) {
            record.owner = 0;
        }
        if free {
            self.give(frame);
        }
        true
    }
}

/// Recovery after a process died, and the consistency check.
impl Frames<'_> {
    /// Makes the free list and the counts again from the words, and puts aside the frames that were moving: a ring of the
    /// device may still name them. Frames beyond the last that was ever used are not looked at; `charged` is what
    /// the sockets' charges add up to, and `holders` how many of them are not zero.
    pub fn rebuild(&mut self, charged: u32, holders: u32) {
        let limits = self.pool.limits;
        let fresh = self.pool.fresh.min(self.len());
        *self.pool = Pool::rebuilt(limits, charged, holders);
        self.pool.fresh = fresh;
        self.pool.used = fresh;
        for index in (0..fresh).rev() {
            let frame = FrameIndex(index);
            match self.state(frame) {
                State::Free => self.give(frame),
                State::Fill => self.pool.fill += 1,
                State::Moving | State::Bad => {
                    state::force(&self.states[index as usize], State::Quarantined);
                    self.pool.quarantined += 1;
                }
                State::Quarantined => self.pool.quarantined += 1,
                State::Socket | State::Tx | State::TxSocket | State::TxDatagram => {}
            }
        }
    }

    /// The device was closed, and nothing of the frames is in its hands any more: what it received into, sent for nobody or may
    /// have had is free, and what a queue has may be sent again.
    pub fn device_closed(&mut self) {
        for index in 0..self.pool.fresh.min(self.len()) {
            let frame = FrameIndex(index);
            match self.state(frame) {
                State::Fill | State::Tx | State::Quarantined => {
                    state::force(&self.states[index as usize], State::Free);
                    self.give(frame);
                }
                State::TxSocket => state::force(&self.states[index as usize], State::Socket),
                // Its socket is charged for it: the caller ends it as complete.
                State::TxDatagram | State::Free | State::Moving | State::Socket | State::Bad => {}
            }
        }
        (self.pool.fill, self.pool.quarantined) = (0, 0);
    }

    /// Whether the free list and the counts are what the words say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.pool.fresh > self.len() {
            return Err("the pool counts more frames than there are");
        }
        let (mut at, mut free) = (self.pool.free, 0u32);
        while let Some(frame) = linked(at) {
            if frame.0 >= self.pool.fresh || free >= self.pool.fresh {
                return Err("the list of free frames leaves the pool or runs in a circle");
            }
            if self.state(frame) != State::Free {
                return Err("a frame in use is on the free list");
            }
            (at, free) = (self.record(frame).map_or(0, |record| record.next), free + 1);
        }
        if free.checked_add(self.pool.used) != Some(self.pool.fresh) {
            return Err("free and used frames do not add up");
        }
        let all = || (0..self.pool.fresh).map(|index| self.state(FrameIndex(index)));
        let count = |state: State| all().filter(|found| *found == state).count();
        if count(State::Free) != free as usize {
            return Err("a free frame is not on the free list");
        }
        if count(State::Fill) != self.pool.fill as usize {
            return Err("the pool's count of filled frames is wrong");
        }
        if count(State::Quarantined) != self.pool.quarantined as usize || count(State::Bad) != 0 {
            return Err("a frame has no state, or is put aside without being counted");
        }
        let charged = [State::Socket, State::TxSocket, State::TxDatagram];
        if charged.map(count).into_iter().sum::<usize>() != self.pool.charged as usize {
            return Err("the frames of sockets are not those that are charged");
        }
        Ok(())
    }
}
