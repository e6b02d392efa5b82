//! Sockets: what the intent names, who holds what, the queues of listeners.

use super::{Lost, Operation};
use crate::error::Error;
use crate::events;
use crate::frames::pool::Charge;
use crate::ports::{Class, Protocol};
use crate::process::{self, bit};
use crate::region::{Parts, Shared};
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags, Mark, Seldom, Tcb};
use crate::udp::{self, UdpSocket};
use crate::wire::ip::Ip;

/// While queues are looked at: a child that is in one.
const REACHED: u64 = u64::MAX;
/// While queues are looked at: the link back of a SYN that is in none.
const UNREACHED: u32 = u32::MAX;

const fn wildcard(is_v6: bool) -> Ip {
    if is_v6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 }
}

/// Whether a record of TCP is somebody's.
pub(super) const fn is_kept(tcb: &Tcb, seldom: &Seldom) -> bool {
    let is_orphan = tcb.flags.has(Flags::ORPHAN) && tcb.has_peer();
    seldom.holders != 0 || tcb.is(Mark::QUEUED) || is_orphan || tcb.is_handed_over()
}

impl Parts<'_> {
    /// Closes a socket with an error. Its queues are nobody's.
    pub(super) fn lose(&mut self, index: u32, shared: &Shared<'_>, lost: &mut impl FnMut(&Lost)) {
        let pair = self.tcbs.get_mut(index as usize).zip(self.seldoms.get_mut(index as usize));
        let Some((tcb, seldom)) = pair else { return };
        if tcb.has_peer() {
            lost(&Lost {
                socket: tcb.tag.handle(index),
                local: (tcb.local, tcb.local_port),
                remote: (tcb.remote, tcb.remote_port),
                seq: tcb.snd.nxt,
                ack: tcb.rcv.nxt,
            });
        }
        let wildcard = wildcard(tcb.is(Mark::V6));
        let kept = if tcb.flags.has(Flags::ORPHAN) { Flags::ORPHAN } else { Flags::default() };
        *tcb = Tcb {
            tag: tcb.tag,
            local: wildcard,
            remote: wildcard,
            flags: kept | Flags::RECEIVE_SHUT | Flags::FIN_QUEUED,
            marks: tcb.marks & (Mark::V6 | Mark::QUEUED),
            settings: tcb.settings,
            error: Error::ConnectionReset.code(),
            ..Tcb::default()
        };
        let queue = if tcb.is(Mark::QUEUED) { seldom.queue } else { 0 };
        *seldom = Seldom { holders: seldom.holders, queue, ..Seldom::default() };
        if let Some(word) = shared.tcp_events.get(index as usize) {
            let over = events::READABLE | events::WRITABLE | events::READ_HUNG_UP;
            let _ = events::set(word, over | events::HUNG_UP | events::FAILED, true);
        }
    }

    /// The socket that was being changed.
    pub(super) fn lose_named(&mut self, shared: &Shared<'_>, lost: &mut impl FnMut(&Lost)) {
        let Some(index) = self.intent.socket.checked_sub(1) else { return };
        match self.intent.operation() {
            Operation::None | Operation::Accept => {}
            Operation::Tcp => {
                let tcb = self.tcbs.get(index as usize).filter(|tcb| tcb.tag.is_used());
                match tcb.map(Tcb::has_peer) {
                    Some(true) => self.lose(index, shared, lost),
                    Some(false) => self.rebind(index),
                    None => {}
                }
            }
            Operation::Udp => {
                let Some(udp) = self.udp_sockets.get_mut(index as usize) else { return };
                let marks = udp.marks & udp::Mark::V6;
                let any = wildcard(marks != 0);
                let of_it = self.memberships.iter_mut().filter(|record| record.owner == index + 1);
                of_it.for_each(|record| record.owner = 0);
                let limits =
                    [udp.send_charge, udp.receive_charge].map(|charge| Charge { frames: 0, ..charge });
                *udp = UdpSocket {
                    tag: udp.tag,
                    send_charge: limits[0],
                    receive_charge: limits[1],
                    local: any,
                    remote: any,
                    holders: udp.holders,
                    marks,
                    error: Error::ConnectionReset.code(),
                    ..UdpSocket::default()
                };
            }
        }
    }

    /// A socket without a peer may have been at bind(2) or listen(2): it has the address that it is counted at, if it is counted.
    fn rebind(&mut self, index: u32) {
        let pair = self.tcbs.get_mut(index as usize).zip(self.seldoms.get(index as usize));
        let Some((tcb, seldom)) = pair else { return };
        let bound = seldom.bound.checked_sub(1).and_then(|bound| self.bounds.get(bound as usize));
        let local = bound.map_or(wildcard(tcb.is(Mark::V6)), |bound| bound.local);
        let mark = if local.is_unspecified() { 0 } else { Mark::ADDRESS_BOUND };
        (tcb.local, tcb.marks) = (local, tcb.marks & !Mark::ADDRESS_BOUND | mark);
    }

    /// Bits of slots that no process has are cleared; if no process is attached, holders are the caller's own affair.
    pub(super) fn recover_holders(&mut self) {
        self.slabs.processes.rebuild(self.processes, |_, process| process.state() != process::State::Bad);
        let slots = self.processes.iter().enumerate().filter(|(_, process)| process.tag.is_used());
        let known = slots.fold(0, |known, (slot, _)| known | bit(slot as u32));
        for (tcb, seldom) in self.tcbs.iter().zip(&mut *self.seldoms).take(self.slabs.tcbs.fresh() as usize) {
            // What waits for accept(2) is held by nobody: one that was taken half is so again.
            match tcb.is(Mark::QUEUED) {
                true => seldom.holders = 0,
                false if known != 0 => seldom.holders &= known,
                false => {}
            }
        }
        if known != 0 {
            self.udp_sockets.iter_mut().for_each(|udp| udp.holders &= known);
        }
    }

    /// Each listener has the socket that has it, and its two queues; sockets in LISTEN without one are closed, and children and
    /// SYNs that are in no queue nobody's.
    pub(super) fn recover_listeners(&mut self) {
        for index in 0..self.slabs.tcbs.fresh() as usize {
            let (tcb, seldom) = (&mut self.tcbs[index], &mut self.seldoms[index]);
            if tcb.tag.is_used() && tcb.state() == State::Listen {
                let queue = seldom.queue.checked_sub(1).and_then(|at| self.listeners.get(at as usize));
                let is_its =
                    queue.is_some_and(|listener| listener.tag.is_used() && listener.socket as usize == index);
                if !is_its || seldom.holders == 0 {
                    (tcb.state, seldom.queue) = (State::Closed as u8, 0);
                }
            }
            let listens = tcb.state() == State::Listen;
            tcb.bound_as = tcb.bound_as & !Class::LISTEN | if listens { Class::LISTEN } else { 0 };
        }
        let (tcbs, seldoms) = (&*self.tcbs, &*self.seldoms);
        self.slabs.listeners.rebuild(self.listeners, |index, listener| {
            let socket = tcbs.get(listener.socket as usize).zip(seldoms.get(listener.socket as usize));
            socket.is_some_and(|(tcb, seldom)| {
                let listens = tcb.tag.is_used() && tcb.state() == State::Listen;
                listens && seldom.queue == index + 1 && tcb.local_port == listener.local_port
            })
        });
        self.recount_fast_opens();
        let fresh = self.slabs.syns.fresh() as usize;
        self.syns[..fresh].iter_mut().for_each(|syn| syn.previous = UNREACHED);
        for index in 0..self.slabs.listeners.fresh() {
            if self.listeners[index as usize].tag.is_used() {
                self.recover_accept_queue(index);
                self.recover_syn_queue(index);
            }
        }
        self.slabs.syns.rebuild(self.syns, |_, syn| syn.previous != UNREACHED);
        for (tcb, seldom) in
            self.tcbs.iter_mut().zip(&mut *self.seldoms).take(self.slabs.tcbs.fresh() as usize)
        {
            if tcb.is(Mark::QUEUED) {
                if seldom.holders != REACHED {
                    (tcb.marks, seldom.queue) = (tcb.marks & !Mark::QUEUED, 0);
                }
                seldom.holders = 0;
            }
        }
    }

    /// What can be reached from the first is the queue, but for a child whose making was not finished.
    fn recover_accept_queue(&mut self, index: u32) {
        let listener = &mut self.listeners[index as usize];
        // accept(2) had taken the first off: it is put back.
        let taken = self.intent.socket;
        let is_undone = self.intent.operation() == Operation::Accept
            && self.intent.other == index + 1
            && listener.accept_head != taken;
        if is_undone
            && let Some(at) = taken.checked_sub(1).map(|at| at as usize)
            && self.tcbs.get(at).is_some_and(|tcb| tcb.tag.is_used() && tcb.is(Mark::QUEUED))
        {
            self.seldoms[at].queue = listener.accept_head;
            listener.accept_head = taken;
        }
        let (mut at, mut last, mut len) = (listener.accept_head, 0u32, 0);
        while let Some(child) = at.checked_sub(1).map(|child| child as usize) {
            let tcb = self.tcbs.get(child).filter(|tcb| tcb.tag.is_used() && tcb.is(Mark::QUEUED));
            let Some(tcb) = tcb.filter(|_| self.seldoms[child].holders != REACHED) else {
                at = 0;
                break;
            };
            let next = self.seldoms[child].queue;
            let is_begun = tcb.state() != State::SynReceived || tcb.advertised_mss != 0;
            if is_begun {
                self.seldoms[child].holders = REACHED;
                (last, len) = (at, len + 1);
            } else {
                link(&mut listener.accept_head, self.seldoms, last, next);
            }
            at = next;
        }
        link(&mut listener.accept_head, self.seldoms, last, at);
        (listener.accept_tail, listener.accept_len) = (last, len);
    }

    /// Handshakes that go on although their text was taken. Those that were reset are forgiven.
    fn recount_fast_opens(&mut self) {
        for listener in self.listeners.iter_mut() {
            (listener.fast_open_len, listener.fast_open_resets) = (0, 0);
        }
        for (tcb, seldom) in self.tcbs.iter().zip(&*self.seldoms).take(self.slabs.tcbs.fresh() as usize) {
            let listener =
                seldom.rcv_up.0.checked_sub(1).filter(|_| tcb.tag.is_used() && tcb.is(Mark::FAST_CHILD));
            if let Some(listener) = listener.and_then(|index| self.listeners.get_mut(index as usize)) {
                listener.fast_open_len = listener.fast_open_len.saturating_add(1);
            }
        }
    }

    /// The same for SYNs.
    fn recover_syn_queue(&mut self, index: u32) {
        let listener = &mut self.listeners[index as usize];
        let (mut at, mut last, mut len, mut young) = (listener.syn_head, 0u32, 0, 0);
        while let Some(syn) = at.checked_sub(1).and_then(|at| self.syns.get_mut(at as usize)) {
            if !syn.tag.is_used() || syn.listener != index || syn.previous != UNREACHED {
                break;
            }
            syn.previous = last;
            (last, len, young) = (at, len + 1, young + u32::from(syn.retransmits == 0));
            at = syn.next;
        }
        match last.checked_sub(1).and_then(|last| self.syns.get_mut(last as usize)) {
            Some(last) => last.next = 0,
            None => listener.syn_head = 0,
        }
        (listener.syn_tail, listener.syn_len, listener.syn_young) = (last, len, young);
    }

    /// A socket whose port is not the one that it is counted at was being bound: it has none, and no connection.
    pub(super) fn lose_unbound(&mut self, shared: &Shared<'_>, lost: &mut impl FnMut(&Lost)) {
        for index in 0..self.slabs.tcbs.fresh() {
            let (tcb, seldom) = (&self.tcbs[index as usize], &self.seldoms[index as usize]);
            let is_bound = self.is_bound(seldom.bound, Protocol::Tcp, tcb.local_port);
            if tcb.tag.is_used() && !is_bound {
                self.lose(index, shared, lost);
            }
        }
        for index in 0..self.slabs.udp_sockets.fresh() as usize {
            let udp = &self.udp_sockets[index];
            if udp.tag.is_used() && !self.is_bound(udp.bound, Protocol::Udp, udp.local_port) {
                let udp = &mut self.udp_sockets[index];
                let any = wildcard(udp.is(udp::Mark::V6));
                (udp.local, udp.remote, udp.local_port, udp.remote_port) = (any, any, 0, 0);
                (udp.bound, udp.bound_as, udp.marks) = (0, 0, udp.marks & udp::Mark::V6);
            }
        }
    }

    fn is_bound(&self, bound: u32, protocol: Protocol, port: u16) -> bool {
        let Some(index) = bound.checked_sub(1) else { return port == 0 };
        let record = self.bounds.get(index as usize).filter(|record| record.tag.is_used());
        record.is_some_and(|record| record.port == port && port != 0 && record.protocol == protocol as u8)
    }

    /// Connections that nobody holds: their process has died while they were being made, or closed.
    pub(super) fn drop_unheld(&mut self, shared: &Shared<'_>, lost: &mut impl FnMut(&Lost)) {
        for index in 0..self.slabs.tcbs.fresh() {
            let (tcb, seldom) = (&self.tcbs[index as usize], &self.seldoms[index as usize]);
            if tcb.tag.is_used() && !is_kept(tcb, seldom) {
                self.lose(index, shared, lost);
            }
        }
    }

    /// Whether a listener has something to accept.
    pub(super) fn tell_queue(&self, shared: &Shared<'_>, index: u32) {
        let Some(listener) = self.listeners.get(index as usize).filter(|listener| listener.tag.is_used())
        else {
            return;
        };
        if let Some(word) = shared.tcp_events.get(listener.socket as usize) {
            let _ = events::set(word, if listener.accept_len > 0 { events::READABLE } else { 0 }, false);
        }
    }
}

/// Makes `next` what follows `last`, or the first; written only if it isn't, so that an interruption leaves the list a list.
fn link(head: &mut u32, seldoms: &mut [Seldom], last: u32, next: u32) {
    let place = match last.checked_sub(1).and_then(|last| seldoms.get_mut(last as usize)) {
        Some(seldom) => &mut seldom.queue,
        None => head,
    };
    if *place != next {
        *place = next;
    }
}
