//! The processes that share the region, and which sockets each of them holds.
//!
//! A process has a slot, and a socket a word with a bit for each slot whose process has a descriptor of it. Sharing follows descent:
//! a child gets the bits of its parent before fork returns, and a socket that is sent to another process (SCM_RIGHTS) is held by a
//! slot of the message's own while it is under way. Who gives up the last bit closes the socket ([`holders`]).
//!
//! | event | what is called |
//! |---|---|
//! | a program starts | [`Parts::attach_process`] |
//! | before fork; after it, in either process | [`Parts::fork_process`]; [`Parts::name_process`] |
//! | exec | nothing: number and start time stay, and [`Parts::find_process`] finds the slot again |
//! | a socket is sent; received | [`Parts::expect_process`] with [`Parts::share_socket`]; [`Parts::take_over`] |
//! | close, exit, death | [`crate::stack::Stack::close_by`], [`crate::stack::Stack::end_process`] |
//!
//! A slot without a process (its fork failed, its message was dropped) is ended as one whose process has died.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::demux::End;
use crate::error::Error;
use crate::region::Parts;
use crate::region::slab::{Handle, Record, Tag, find};
use crate::tcp;

pub mod holders;
#[cfg(test)]
mod tests;

/// Most processes of one region: a socket's holders are the bits of one word.
pub const PROCESSES_MAX: u32 = u64::BITS;

coded! {
    /// What a slot is for.
    pub enum State: u32 else Bad {
        /// Bytes that nobody wrote.
        Bad = 0,
        /// Its process isn't known yet: a child before fork, or whoever gets a message.
        Expected = 1,
        /// Its process is attached.
        Attached = 2,
        /// Its process has ended, and some of its sockets are still to be closed.
        Ending = 3,
    }
}

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot (/proc/PID/stat): a number that is used again names another one.
    pub started: u64,
    /// Its user.
    pub uid: u32,
}

/// A process that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Process {
    /// Whether, and for which time, the slot is in use.
    pub tag: Tag,
    /// [`Identity::started`].
    pub started: u64,
    /// [`Identity::pid`]; 0 while it is expected.
    pub pid: u32,
    /// [`Identity::uid`].
    pub uid: u32,
    /// The slot of the process that forked it, or sends the message, plus one.
    pub parent: u32,
    /// A [`State`].
    pub state: u32,
    /// While it ends: the first record that was not looked at yet, of TCP's and then of UDP's.
    pub(crate) next: u32,
    /// Its descriptor of the region's memory, plus one; 0 if nobody knows. One that has called exec has it no more.
    pub memory: u32,
}

impl Process {
    /// What the slot is for.
    #[must_use]
    pub const fn state(&self) -> State {
        State::decode(self.state)
    }

    /// Its process, if it has one.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let is_known = matches!(self.state(), State::Attached | State::Ending) && self.pid != 0;
        is_known.then_some(Identity { pid: self.pid, started: self.started, uid: self.uid })
    }
}

impl Record for Process {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// The bit of a slot in a word of holders; none for a slot that there can't be.
pub(crate) fn bit(slot: u32) -> u64 {
    1u64.checked_shl(slot).unwrap_or(0)
}

impl Parts<'_> {
    /// The record of a process.
    ///
    /// # Errors
    /// `BadHandle` if the name is old.
    pub fn process(&mut self, process: Handle) -> Result<&mut Process, Error> {
        find(self.processes, process).ok_or(Error::BadHandle)
    }

    fn take_slot(&mut self, state: State, parent: u32) -> Result<Handle, Error> {
        let handle = self.slabs.processes.take(self.processes).ok_or(Error::NoBuffers)?;
        let process = self.process(handle)?;
        *process = Process { tag: process.tag, parent, state: state as u32, ..Process::default() };
        Ok(handle)
    }

    /// A slot for a process that starts to use the region; the one that it has, if it was here before it called exec.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of processes; `Invalid` for number 0.
    pub fn attach_process(&mut self, who: &Identity) -> Result<Handle, Error> {
        if who.pid == 0 {
            return Err(Error::Invalid);
        }
        if let Some(known) = self.find_process(who.pid, who.started) {
            return Ok(known);
        }
        let handle = self.take_slot(State::Expected, 0)?;
        self.name_process(handle, who)?;
        Ok(handle)
    }

    /// The slot of a process that is attached.
    #[must_use]
    pub fn find_process(&self, pid: u32, started: u64) -> Option<Handle> {
        let mut slots = self.processes.iter().enumerate();
        slots.find_map(|(index, process)| {
            let is_it = process.tag.is_used() && process.state() == State::Attached;
            (is_it && (process.pid, process.started) == (pid, started))
                .then(|| process.tag.handle(index as u32))
        })
    }

    /// A slot for a process that isn't known yet and holds nothing: of a message in which `parent` will send sockets.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` at the limit of processes.
    pub fn expect_process(&mut self, parent: Handle) -> Result<Handle, Error> {
        self.process(parent)?;
        self.take_slot(State::Expected, parent.index.wrapping_add(1))
    }

    /// The child's slot, made before fork: it holds every socket that its parent holds, so that whoever closes first, none is
    /// closed for both. If fork fails it is ended as a process that has died.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` at the limit of processes.
    pub fn fork_process(&mut self, parent: Handle) -> Result<Handle, Error> {
        let child = self.expect_process(parent)?;
        self.process(child)?.memory = self.process(parent)?.memory;
        let (from, to) = (bit(parent.index), bit(child.index));
        for holders in self.all_holders() {
            if *holders & from != 0 {
                *holders |= to;
            }
        }
        Ok(child)
    }

    /// The word of holders of every socket that is in use.
    fn all_holders(&mut self) -> impl Iterator<Item = &mut u64> {
        let tcp = self.tcbs.iter().zip(&mut *self.seldoms).take(self.slabs.tcbs.fresh() as usize);
        let tcp = tcp.filter(|(tcb, _)| tcb.tag.is_used()).map(|(_, seldom)| &mut seldom.holders);
        let udp = self.udp_sockets.iter_mut().take(self.slabs.udp_sockets.fresh() as usize);
        tcp.chain(udp.filter(|udp| udp.tag.is_used()).map(|udp| &mut udp.holders))
    }

    /// An expected process is there: the child says who it is, or its parent does, whichever comes first.
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` for number 0; `AddressInUse` if another process has the slot.
    pub fn name_process(&mut self, expected: Handle, who: &Identity) -> Result<(), Error> {
        let process = self.process(expected)?;
        match process.state() {
            _ if who.pid == 0 => Err(Error::Invalid),
            State::Expected => {
                (process.pid, process.started, process.uid) = (who.pid, who.started, who.uid);
                process.state = State::Attached as u32;
                Ok(())
            }
            State::Attached if (process.pid, process.started) == (who.pid, who.started) => Ok(()),
            _ => Err(Error::AddressInUse),
        }
    }

    /// A socket of TCP that `from` holds is held by `to`, too.
    ///
    /// # Errors
    /// `BadHandle` if one of the names is old, or `from` doesn't hold the socket.
    pub fn share_socket(&mut self, socket: Handle, from: Handle, to: Handle) -> Result<(), Error> {
        self.tcb(socket)?;
        let seldom = self.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?;
        share(self.processes, &mut seldom.holders, from, to)
    }

    /// The same for a socket of UDP.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn share_udp_socket(&mut self, socket: Handle, from: Handle, to: Handle) -> Result<(), Error> {
        let udp = find(self.udp_sockets, socket).ok_or(Error::BadHandle)?;
        share(self.processes, &mut udp.holders, from, to)
    }

    /// The message has arrived: what its slot holds, `process` holds, and the slot is free.
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` if the slot is a process's.
    pub fn take_over(&mut self, message: Handle, process: Handle) -> Result<(), Error> {
        self.process(process)?;
        if self.process(message)?.state() != State::Expected || message == process {
            return Err(Error::Invalid);
        }
        let (from, to) = (bit(message.index), bit(process.index));
        for holders in self.all_holders() {
            if *holders & from != 0 {
                *holders = *holders & !from | to;
            }
        }
        self.slabs.processes.give(self.processes, message);
        Ok(())
    }

    /// The only listener at this place is held by `process`, too: it has the same descriptor, from a program that ran before it.
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` where none or several listen, or nobody holds it.
    pub fn join_listener(&mut self, local: End<'_>, process: Handle) -> Result<Handle, Error> {
        self.process(process)?;
        let fresh = self.slabs.tcbs.fresh() as usize;
        let all = self.tcbs.iter().zip(0u32..).take(fresh);
        let mut its = all.filter(|(tcb, _)| {
            let listens = tcb.tag.is_used() && tcb.state() == tcp::state::State::Listen;
            listens && (&tcb.local, tcb.local_port) == local
        });
        let (Some((tcb, index)), None) = (its.next(), its.next()) else { return Err(Error::Invalid) };
        let listener = tcb.tag.handle(index);
        let seldom = self.seldoms.get_mut(index as usize).ok_or(Error::Corrupt)?;
        if seldom.holders == 0 {
            return Err(Error::Invalid);
        }
        seldom.holders |= bit(process.index);
        Ok(listener)
    }

    /// Nobody holds a socket of TCP any more.
    pub(crate) fn forget_holders(&mut self, socket: Handle) -> Result<(), Error> {
        self.tcb(socket)?;
        self.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?.holders = 0;
        Ok(())
    }

    /// The slots of the processes that hold a socket of TCP.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn holders(&mut self, socket: Handle) -> Result<u64, Error> {
        self.tcb(socket)?;
        self.seldoms.get(socket.index as usize).map(|seldom| seldom.holders).ok_or(Error::Corrupt)
    }
}

fn share(processes: &mut [Process], holders: &mut u64, from: Handle, to: Handle) -> Result<(), Error> {
    for process in [from, to] {
        find(processes, process).ok_or(Error::BadHandle)?;
    }
    if *holders & bit(from.index) == 0 {
        return Err(Error::BadHandle);
    }
    *holders |= bit(to.index);
    Ok(())
}
