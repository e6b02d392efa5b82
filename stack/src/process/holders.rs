//! Who gives a socket up: a process that closes it or ends; the last one closes the connection, as Linux does.

use super::{State, bit};
use crate::device::Device;
use crate::error::Error;
use crate::region::slab::{Handle, find};
use crate::stack::Stack;

/// Records that are looked at in one call for the sockets of a process that ends: no longer than the lock may be held.
const LOOKED_AT: usize = 4096;

impl<D: Device> Stack<'_, '_, D> {
    /// close(2) of a process's last descriptor of this socket; whether the connection is closed by it: others may hold it.
    ///
    /// # Errors
    /// `BadHandle` if a name is old or the process doesn't hold the socket.
    pub fn close_by(&mut self, socket: Handle, process: Handle) -> Result<bool, Error> {
        self.parts.process(process)?;
        self.parts.tcb(socket)?;
        let seldom = self.parts.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?;
        let is_last = give_up(&mut seldom.holders, process.index)?;
        // Of one that the kernel has there is nothing to close here.
        if is_last && !self.parts.tcb(socket)?.is_handed_over() {
            self.close(socket)?;
        }
        Ok(is_last)
    }

    /// The same for a socket of UDP.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_close_by(&mut self, socket: Handle, process: Handle) -> Result<bool, Error> {
        self.parts.process(process)?;
        let udp = find(self.parts.udp_sockets, socket).ok_or(Error::BadHandle)?;
        let is_last = give_up(&mut udp.holders, process.index)?;
        if is_last {
            self.udp_close(socket)?;
        }
        Ok(is_last)
    }

    /// A process has ended, however it did: its bits are cleared, and what it was the last to hold is closed as by close(2) — a FIN
    /// after what waits to be sent, or a reset if something was not read (Linux: exit_files, tcp_close). At most `most` sockets are
    /// closed in one call; true if more are left. When none is, the slot is free.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn end_process(&mut self, process: Handle, most: usize) -> Result<bool, Error> {
        let record = self.parts.process(process)?;
        if record.state() != State::Ending {
            (record.state, record.next) = (State::Ending as u32, 0);
        }
        let (begin, tcp) = (record.next as usize, self.parts.slabs.tcbs.fresh() as usize);
        let tcp = tcp.min(self.parts.tcbs.len());
        let all = tcp + (self.parts.slabs.udp_sockets.fresh() as usize).min(self.parts.udp_sockets.len());
        let (mut at, mut closed) = (begin, 0);
        while at < all && at - begin < LOOKED_AT && closed < most.max(1) {
            closed += usize::from(match at.checked_sub(tcp) {
                None => self.give_up_tcp(at as u32, process),
                Some(at) => self.give_up_udp(at as u32, process),
            });
            at += 1;
        }
        self.parts.process(process)?.next = at as u32;
        if at < all {
            return Ok(true);
        }
        self.parts.slabs.processes.give(self.parts.processes, process);
        Ok(false)
    }

    fn give_up_tcp(&mut self, index: u32, process: Handle) -> bool {
        let Some(tcb) = self.parts.tcbs.get(index as usize).filter(|tcb| tcb.tag.is_used()) else {
            return false;
        };
        let socket = tcb.tag.handle(index);
        self.close_by(socket, process).unwrap_or(false)
    }

    fn give_up_udp(&mut self, index: u32, process: Handle) -> bool {
        let Some(udp) = self.parts.udp_sockets.get(index as usize).filter(|udp| udp.tag.is_used()) else {
            return false;
        };
        let socket = udp.tag.handle(index);
        self.udp_close_by(socket, process).unwrap_or(false)
    }
}

/// Clears the bit of a slot; whether it was the last.
fn give_up(holders: &mut u64, slot: u32) -> Result<bool, Error> {
    if *holders & bit(slot) == 0 {
        return Err(Error::BadHandle);
    }
    *holders &= !bit(slot);
    Ok(*holders == 0)
}
