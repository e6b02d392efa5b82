//! A listener's record and its two queues: SYNs that wait for their acknowledgment, connections that wait for accept(2).

use crate::demux::Sharing;
use crate::error::Error;
use crate::ports::{Class, Protocol, Wish};
use crate::recover::{Operation, fence};
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::tcp::listener::{Listener, SynEntry};
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags, Mark, Seldom, Tcb};

impl Parts<'_> {
    /// The record of a socket that listens.
    fn listener_of(&mut self, socket: Handle) -> Result<u32, Error> {
        if self.tcb(socket)?.state() != State::Listen {
            return Err(Error::Invalid);
        }
        self.seldom(socket.index)?.queue.checked_sub(1).ok_or(Error::Corrupt)
    }

    fn listener(&mut self, index: u32) -> Result<&mut Listener, Error> {
        self.listeners.get_mut(index as usize).filter(|listener| listener.tag.is_used()).ok_or(Error::Corrupt)
    }

    /// A record for a socket that begins to listen, in the table.
    pub(super) fn open_listener(&mut self, socket: Handle, backlog: u32) -> Result<u32, Error> {
        let (tcb, options) = (*self.tcb(socket)?, self.tcp_options(socket)?);
        let handle = self.slabs.listeners.take(self.listeners).ok_or(Error::NoBuffers)?;
        let listener = self.listener(handle.index)?;
        *listener = Listener {
            tag: listener.tag,
            local: tcb.local,
            local_port: tcb.local_port,
            sharing: Sharing::of(tcb.is(Mark::V6), options.options),
            socket: socket.index,
            backlog,
            ..Listener::default()
        };
        if !self.listening().insert(handle.index) {
            self.slabs.listeners.give(self.listeners, handle);
            return Err(Error::NoBuffers);
        }
        Ok(handle.index)
    }

    /// The socket listens no more: its SYNs are forgotten, as Linux forgets them without a word.
    ///
    /// # Errors
    /// `Invalid` while connections wait in the accept queue.
    pub(super) fn close_listener(&mut self, socket: Handle) -> Result<(), Error> {
        let index = self.listener_of(socket)?;
        if self.listener(index)?.accept_head != 0 {
            return Err(Error::Invalid);
        }
        for _ in 0..self.syns.len() {
            let Some(syn) = self.listener(index)?.syn_head.checked_sub(1) else { break };
            self.tcp_forget_syn(syn)?;
        }
        self.listening().remove(index);
        let handle = self.listener(index)?.tag.handle(index);
        self.slabs.listeners.give(self.listeners, handle);
        self.seldom(socket.index)?.queue = 0;
        let tcb = self.tcb(socket)?;
        let (from, to) = (Class(tcb.bound_as), Class(tcb.bound_as & !Class::LISTEN));
        (tcb.state, tcb.bound_as) = (State::Closed as u8, to.0);
        match self.seldom(socket.index)?.bound.checked_sub(1) {
            Some(bound) => self.ports().change(bound, from, to, false),
            None => Err(Error::Corrupt),
        }
    }

    /// Keeps a SYN that is answered, as the youngest of its listener's. What `syn` says of records and links is not used.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of SYNs; `AddressInUse` if one from the same peer waits already.
    pub fn tcp_keep_syn(&mut self, listener: u32, syn: &SynEntry) -> Result<Handle, Error> {
        let (local, remote) = ((&syn.local, syn.local_port), (&syn.remote, syn.remote_port));
        if self.waiting().find(local, remote).is_some() {
            return Err(Error::AddressInUse);
        }
        let previous = self.listener(listener)?.syn_tail;
        let handle = self.slabs.syns.take(self.syns).ok_or(Error::NoBuffers)?;
        let tag = self.syns.get(handle.index as usize).ok_or(Error::Corrupt)?.tag;
        let entry = SynEntry { tag, listener, previous, next: 0, entry: Default::default(), ..*syn };
        *self.syns.get_mut(handle.index as usize).ok_or(Error::Corrupt)? = entry;
        if !self.waiting().insert(handle.index) {
            self.slabs.syns.give(self.syns, handle);
            return Err(Error::NoBuffers);
        }
        let name = handle.index.wrapping_add(1);
        // From here on a recovery finds it.
        fence();
        let before = previous.checked_sub(1).and_then(|index| self.syns.get_mut(index as usize));
        let is_first = before.map(|before| before.next = name).is_none();
        let listener = self.listener(listener)?;
        listener.syn_tail = name;
        listener.syn_head = if is_first { name } else { listener.syn_head };
        listener.syn_len = listener.syn_len.saturating_add(1);
        listener.syn_young = listener.syn_young.saturating_add(1);
        Ok(handle)
    }

    /// Forgets a SYN: it is acknowledged, reset, or too old.
    ///
    /// # Errors
    /// `BadHandle` if there is none.
    pub fn tcp_forget_syn(&mut self, index: u32) -> Result<SynEntry, Error> {
        let syn = self.syns.get(index as usize).filter(|syn| syn.tag.is_used());
        let syn = *syn.ok_or(Error::BadHandle)?;
        self.waiting().remove(index);
        self.wheels.syns.disarm(self.syns, index);
        let record = |name: u32| name.checked_sub(1).map(|index| index as usize);
        match record(syn.previous).and_then(|index| self.syns.get_mut(index)) {
            Some(previous) => previous.next = syn.next,
            None => self.listener(syn.listener)?.syn_head = syn.next,
        }
        match record(syn.next).and_then(|index| self.syns.get_mut(index)) {
            Some(next) => next.previous = syn.previous,
            None => self.listener(syn.listener)?.syn_tail = syn.previous,
        }
        let listener = self.listener(syn.listener)?;
        listener.syn_len = listener.syn_len.saturating_sub(1);
        listener.syn_young = listener.syn_young.saturating_sub(u32::from(syn.retransmits == 0));
        self.slabs.syns.give(self.syns, syn.tag.handle(index));
        Ok(syn)
    }

    /// A socket for a handshake that a listener has, in SYN-RECEIVED, with the listener's options, at the listener's
    /// port, in the accept queue's last place.
    ///
    /// # Errors
    /// `NoBuffers` at a limit; `AddressInUse` if the connection exists.
    pub fn tcp_child(&mut self, listener: u32, syn: &SynEntry) -> Result<Handle, Error> {
        let (local, remote) = ((&syn.local, syn.local_port), (&syn.remote, syn.remote_port));
        if self.connections().find(local, remote).is_some() {
            return Err(Error::AddressInUse);
        }
        let parent = self.listener(listener)?.socket;
        let parent = *self.tcbs.get(parent as usize).ok_or(Error::Corrupt)?;
        let class = Class(parent.bound_as & !Class::LISTEN);
        let child = self.tcp_socket(parent.is(Mark::V6), u64::BITS)?;
        // It is named until its first work is done: no segment has opened it yet.
        self.intent.begin(Operation::Tcp, child.index);
        let wish = Wish { protocol: Protocol::Tcp, local, v6_only: false, class };
        let Ok(bound) = self.ports().join(&wish) else {
            self.slabs.tcbs.give(self.tcbs, child);
            self.intent.end();
            return Err(Error::NoBuffers);
        };
        let tcb = self.tcb(child)?;
        *tcb = Tcb {
            local: syn.local,
            local_port: syn.local_port,
            remote: syn.remote,
            remote_port: syn.remote_port,
            state: State::SynReceived as u8,
            marks: tcb.marks | Mark::QUEUED,
            bound_as: class.0,
            flags: Flags(parent.flags.0 & (Flags::NO_DELAY.0 | Flags::CORK.0)),
            ..*tcb
        };
        if !self.connections().insert(child.index) {
            self.ports().leave(bound, class);
            self.slabs.tcbs.give(self.tcbs, child);
            self.intent.end();
            return Err(Error::NoBuffers);
        }
        self.options().share(parent.settings);
        self.tcb(child)?.settings = parent.settings;
        *self.seldom(child.index)? = Seldom { bound: bound.wrapping_add(1), ..Seldom::default() };
        let name = child.index.wrapping_add(1);
        fence();
        let tail = core::mem::replace(&mut self.listener(listener)?.accept_tail, name);
        match tail.checked_sub(1) {
            Some(tail) => self.seldom(tail)?.queue = name,
            None => self.listener(listener)?.accept_head = name,
        }
        let listener = self.listener(listener)?;
        listener.accept_len = listener.accept_len.saturating_add(1);
        Ok(child)
    }

    /// accept(2): takes the oldest connection off the queue, for the process in slot `holder`.
    ///
    /// # Errors
    /// `Invalid` if the socket doesn't listen; `WouldBlock` if none waits.
    pub fn tcp_accept(&mut self, socket: Handle, holder: u32) -> Result<Handle, Error> {
        let index = self.listener_of(socket)?;
        let first = self.listener(index)?.accept_head.checked_sub(1).ok_or(Error::WouldBlock)?;
        let tcb = self.tcbs.get_mut(first as usize).ok_or(Error::Corrupt)?;
        let accepted = tcb.tag.handle(first);
        self.intent.other = index.wrapping_add(1);
        self.intent.begin(Operation::Accept, first);
        let seldom = self.seldoms.get_mut(first as usize).ok_or(Error::Corrupt)?;
        let next = seldom.queue;
        seldom.holders = 1u64.checked_shl(holder).unwrap_or(0);
        let listener = self.listener(index)?;
        listener.accept_head = next;
        listener.accept_len = listener.accept_len.saturating_sub(1);
        if next == 0 {
            listener.accept_tail = 0;
        }
        fence();
        self.seldom(first)?.queue = 0;
        self.tcbs.get_mut(first as usize).ok_or(Error::Corrupt)?.marks &= !Mark::QUEUED;
        self.intent.end();
        Ok(accepted)
    }
}
