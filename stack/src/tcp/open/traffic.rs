//! Who has a [`Traffic`] record, and for how long.
//!
//! A socket gets one with the first text in a queue, and most give it back as soon as their queues are empty: the next
//! one gets the same record, which is in the cache. A connection that has met loss or reordering keeps what it has learned
//! about its path: its record rests, until all others are in use and it is the oldest that does.

use crate::error::Error;
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::sendq::SendQueue;
use crate::tcp::tcb::Traffic;

impl Parts<'_> {
    /// The queues of a socket, which it has from now on.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` when so many sockets have something in their queues that none is left.
    pub fn tcp_traffic(&mut self, socket: Handle) -> Result<&mut Traffic, Error> {
        let index = match self.tcb(socket)?.traffic.checked_sub(1) {
            Some(index) => index,
            None => self.begin_traffic(socket)?,
        };
        if self.traffic_of(index, socket)?.is_resting != 0 {
            self.wake(index)?;
        }
        self.traffic_of(index, socket)
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
        if !traffic.send.is_empty() || !traffic.receive.is_empty() || !traffic.reassembly.is_empty() {
            return Ok(false);
        }
        if !has_learned {
            self.tcp_end_traffic(socket)?;
        } else if traffic.is_resting == 0 {
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
        self.slabs.traffics.give(self.traffics, traffic.tag.handle(index));
        Ok(())
    }
}
