//! Who has a [`Traffic`] record, and for how long.
//!
//! A socket gets one with the first text in a queue, and most give it back as soon as their queues are empty: the next
//! one gets the same record, which is in the cache. A connection that has met loss or reordering keeps what it has learned
//! about its path: its record rests, until all others are in use and it is the oldest that does.
//!
//! A part of the records is out of reach for what a user sends, as a part of the frames is: if two hosts had text on its way
//! in all of their queues, neither could take in what frees the other's. Who finds no queue to send from waits in a list, and
//! is woken when one comes free.

use crate::error::Error;
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::sendq::SendQueue;
use crate::seq::Seq;
use crate::tcp::tcb::{Mark, Seldom, Traffic};

/// What queues are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Text that has arrived.
    Reception,
    /// Text of the user, or its end.
    Sending,
}

/// Of so many records, those that only reception gets: a quarter.
const fn reserve(traffics: u32) -> u32 {
    let quarter = traffics / 4;
    if quarter == 0 && traffics > 1 { 1 } else { quarter }
}

impl Parts<'_> {
    /// The queues of a socket, which it has from now on.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` when so many sockets have something in their queues that none is left.
    pub fn tcp_traffic(&mut self, socket: Handle, want: Want) -> Result<&mut Traffic, Error> {
        let index = self.tcb(socket)?.traffic.checked_sub(1);
        if want == Want::Sending && self.is_closed_to_senders() {
            let own = index.and_then(|index| self.traffics.get(index as usize));
            if own.is_none_or(|own| own.is_sending == 0) {
                return Err(Error::NoBuffers);
            }
        }
        let index = match index {
            Some(index) => index,
            None => self.begin_traffic(socket)?,
        };
        let traffic = self.traffic_of(index, socket)?;
        let begins = want == Want::Sending && traffic.is_sending == 0;
        // What is not sent after all is found out when the socket rests.
        traffic.is_sending |= u16::from(begins);
        let is_resting = traffic.is_resting != 0;
        self.sending.queues = self.sending.queues.wrapping_add(begins.into());
        if is_resting {
            self.wake(index)?;
        }
        self.traffic_of(index, socket)
    }

    /// Whether it has queues for this already.
    #[inline]
    pub(crate) fn tcp_has_queues(&self, traffic: u32, want: Want) -> bool {
        let traffic = traffic.checked_sub(1).and_then(|index| self.traffics.get(index as usize));
        traffic.is_some_and(|traffic| {
            traffic.is_resting == 0 && (want == Want::Reception || traffic.is_sending != 0)
        })
    }

    /// A record for a socket that has none.
    fn begin_traffic(&mut self, socket: Handle) -> Result<u32, Error> {
        let handle = match self.slabs.traffics.take(self.traffics) {
            Some(handle) => handle,
            None => self.take_from_the_oldest()?,
        };
        let send = SendQueue::new(self.tcb(socket)?.snd.nxt);
        let traffic = self.traffics.get_mut(handle.index as usize).ok_or(Error::Corrupt)?;
        *traffic = Traffic { tag: traffic.tag, socket: socket.index, send, ..Traffic::default() };
        self.tcb(socket)?.traffic = handle.index.wrapping_add(1);
        Ok(handle.index)
    }

    fn traffic_of(&mut self, index: u32, socket: Handle) -> Result<&mut Traffic, Error> {
        let traffic = self.traffics.get_mut(index as usize);
        traffic
            .filter(|traffic| traffic.tag.is_used() && traffic.socket == socket.index)
            .ok_or(Error::Corrupt)
    }

    /// Lets the record rest, or gives it back, if the queues are empty; false if they aren't.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn tcp_rest(&mut self, socket: Handle) -> Result<bool, Error> {
        let tcb = self.tcb(socket)?;
        let Some(index) = tcb.traffic.checked_sub(1) else { return Ok(true) };
        let has_learned = tcb.total_retrans != 0 || tcb.reord_seen != 0;
        let traffic = self.traffic_of(index, socket)?;
        let has_learned = has_learned || traffic.search.is_on();
        let is_sending = u16::from(!traffic.send.is_empty());
        let was_sending = core::mem::replace(&mut traffic.is_sending, is_sending);
        let was_resting = traffic.is_resting != 0;
        let has_received =
            !traffic.receive.is_empty() || !traffic.reassembly.is_empty() || traffic.has_fin != 0;
        let rests = is_sending == 0 && !has_received;
        let queues = self.sending.queues.wrapping_sub(was_sending.into());
        self.sending.queues = queues.wrapping_add(is_sending.into());
        if !rests {
            return Ok(false);
        }
        if !has_learned {
            self.tcp_end_traffic(socket)?;
        } else if !was_resting {
            let youngest = core::mem::replace(&mut self.resting.youngest, index.wrapping_add(1));
            match youngest.checked_sub(1).and_then(|index| self.traffics.get_mut(index as usize)) {
                Some(older) => older.younger = index.wrapping_add(1),
                None => self.resting.oldest = index.wrapping_add(1),
            }
            let traffic = self.traffic_of(index, socket)?;
            (traffic.is_resting, traffic.older, traffic.younger) = (1, youngest, 0);
        }
        Ok(true)
    }

    /// The record is out of the list of those that rest.
    fn wake(&mut self, index: u32) -> Result<(), Error> {
        let traffic = self.traffics.get_mut(index as usize).ok_or(Error::Corrupt)?;
        let (older, younger) = (traffic.older, traffic.younger);
        (traffic.is_resting, traffic.older, traffic.younger) = (0, 0, 0);
        let record = |name: u32| name.checked_sub(1).map(|index| index as usize);
        match record(older).and_then(|index| self.traffics.get_mut(index)) {
            Some(older) => older.younger = younger,
            None => self.resting.oldest = younger,
        }
        match record(younger).and_then(|index| self.traffics.get_mut(index)) {
            Some(younger) => younger.older = older,
            None => self.resting.youngest = older,
        }
        Ok(())
    }

    /// Takes the record of the connection that has rested longest.
    fn take_from_the_oldest(&mut self) -> Result<Handle, Error> {
        let index = self.resting.oldest.checked_sub(1).ok_or(Error::NoBuffers)?;
        let traffic = *self.traffics.get(index as usize).ok_or(Error::Corrupt)?;
        let tcb = self.tcbs.get_mut(traffic.socket as usize).ok_or(Error::Corrupt)?;
        if tcb.traffic != index.wrapping_add(1) {
            return Err(Error::Corrupt);
        }
        tcb.traffic = 0;
        self.wake(index)?;
        Ok(traffic.tag.handle(index))
    }

    /// The socket has no record any more. What is in it is lost.
    pub(super) fn tcp_end_traffic(&mut self, socket: Handle) -> Result<(), Error> {
        let Some(index) = core::mem::take(&mut self.tcb(socket)?.traffic).checked_sub(1) else {
            return Ok(());
        };
        let traffic = *self.traffic_of(index, socket)?;
        if traffic.is_resting != 0 {
            self.wake(index)?;
        }
        self.sending.queues = self.sending.queues.wrapping_sub(traffic.is_sending.into());
        self.slabs.traffics.give(self.traffics, traffic.tag.handle(index));
        Ok(())
    }
    /// How many more sockets may have something in their sending queues, as far as that is known without a walk: 1 stands
    /// for as many as rest.
    #[must_use]
    pub fn free_to_send(&self) -> u32 {
        let traffics = self.traffics.len() as u32;
        let free = traffics.saturating_sub(self.slabs.traffics.used()).max((self.resting.oldest != 0).into());
        (traffics - reserve(traffics)).saturating_sub(self.sending.queues).min(free)
    }

    /// Whether all queues but the reserve have something to send in them.
    fn is_closed_to_senders(&self) -> bool {
        let traffics = self.traffics.len() as u32;
        self.sending.queues >= traffics - reserve(traffics)
    }

    /// The socket waits until it may send, behind all others that do, if it does not yet.
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` if it has nobody to send to.
    pub(crate) fn tcp_wait(&mut self, socket: Handle) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        // Others have no text to send, and the link may be another list's.
        if !tcb.has_peer() || tcb.is(Mark::QUEUED) {
            return Err(Error::Invalid);
        }
        if self.seldom(socket.index)?.queue != 0 {
            return Ok(());
        }
        let name = socket.index.wrapping_add(1);
        let last = core::mem::replace(&mut self.sending.last, name);
        let seldom = self.seldom(socket.index)?;
        (seldom.queue, seldom.snd_up) = (Seldom::LAST, Seq(last));
        match last.checked_sub(1) {
            Some(before) => self.seldom(before)?.queue = name,
            None => self.sending.first = name,
        }
        Ok(())
    }

    /// The socket waits no longer, if it did.
    ///
    /// # Errors
    /// `BadHandle`.
    pub(crate) fn tcp_stop_waiting(&mut self, socket: Handle) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        let seldom = self.seldom(socket.index)?;
        if !tcb.waits_for_queues(seldom.queue) {
            return Ok(());
        }
        let next = core::mem::take(&mut seldom.queue);
        let next = if next == Seldom::LAST { 0 } else { next };
        let before = core::mem::take(&mut seldom.snd_up).0;
        match before.checked_sub(1) {
            Some(before) => self.seldom(before)?.queue = if next == 0 { Seldom::LAST } else { next },
            None => self.sending.first = next,
        }
        match next.checked_sub(1) {
            Some(next) => self.seldom(next)?.snd_up = Seq(before),
            None => self.sending.last = before,
        }
        Ok(())
    }

    /// Who has waited longest, if there are queues now: it waits no longer.
    pub(crate) fn tcp_next_to_send(&mut self) -> Option<Handle> {
        let first = self.sending.first.checked_sub(1).filter(|_| self.free_to_send() != 0)?;
        let socket = self.tcbs.get(first as usize)?.tag.handle(first);
        self.tcp_stop_waiting(socket).ok()?;
        // A list that is broken ends here, rather than be walked forever.
        let is_out = self.sending.first.checked_sub(1) != Some(first);
        if !is_out {
            self.sending.first = 0;
        }
        is_out.then_some(socket)
    }
}
