//! Recovery: which frames somebody has a list of. What nobody claims is free, or as soon as the device has sent it.

use super::list::FrameList;
use super::state::{self, State};
use super::{FrameRecord, Frames};
use crate::device::FrameIndex;

impl Frames<'_> {
    /// Frames that were ever used, even if the count of them was not written any more.
    fn reach(&self) -> u32 {
        let fresh = self.pool.fresh.min(self.len());
        let beyond =
            self.states.iter().skip(fresh as usize).take_while(|word| state::load(word) != (State::Free, 0));
        (fresh as usize + beyond.count()).min(self.len() as usize) as u32
    }

    /// Begins to look for owners: no frame has one.
    pub(crate) fn begin_claims(&mut self) {
        self.pool.fresh = self.reach();
        let fresh = self.pool.fresh as usize;
        self.records[..fresh].iter_mut().for_each(|record| record.claimed = 0);
    }

    /// The frames of a list have an owner, if it is a list of frames that are this socket's and no other list's.
    pub(crate) fn claim(&mut self, list: &FrameList, owner: u32) -> bool {
        let (mut at, mut claimed) = (list.first(), 0);
        while let Some(frame) = at {
            let is_kept = matches!(self.state(frame), State::Socket | State::TxSocket);
            let is_fresh = frame.0 < self.pool.fresh && is_kept;
            let is_free = |record: &&mut FrameRecord| {
                is_fresh && record.claimed == 0 && record.owner == owner.wrapping_add(1)
            };
            let Some(record) = self.record_mut(frame).filter(is_free) else { break };
            (record.claimed, claimed) = (1, claimed + 1);
            at = super::linked(record.next);
        }
        let is_one = at.is_none() && self.check_list(list).is_ok();
        if !is_one {
            self.unclaim(list, claimed);
        }
        is_one
    }

    /// The first frames of a list have no owner after all.
    pub(crate) fn unclaim(&mut self, list: &FrameList, claimed: u32) {
        let mut at = list.first();
        for _ in 0..claimed {
            let Some(record) = at.and_then(|frame| self.record_mut(frame)) else { return };
            record.claimed = 0;
            at = super::linked(record.next);
        }
    }

    /// Frames of sockets that nobody has claimed are free, or will be when the device has sent them.
    pub(crate) fn end_claims(&mut self) {
        for index in 0..self.pool.fresh.min(self.len()) as usize {
            let record = &mut self.records[index];
            if core::mem::take(&mut record.claimed) != 0 {
                continue;
            }
            let to = match state::load(&self.states[index]).0 {
                State::Socket => State::Free,
                State::TxSocket | State::TxDatagram => State::Tx,
                _ => continue,
            };
            record.owner = 0;
            state::force(&self.states[index], to);
        }
    }

    /// A frame was about to be given to the device for reception when a process died: whether the device has it, nobody knows.
    pub(crate) fn doubt(&self, frame: FrameIndex) {
        if matches!(self.state(frame), State::Fill | State::Moving) {
            state::force(&self.states[frame.0 as usize], State::Quarantined);
        }
    }
}

const _: () = assert!(core::mem::offset_of!(FrameRecord, claimed) == 63);
