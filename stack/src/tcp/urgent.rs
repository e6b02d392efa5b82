//! Urgent data (RFC 9293 §3.8.5, RFC 6093), as Linux delivers it: one octet, the last that the pointer covers, out of line by
//! MSG_OOB, or in line with SO_OOBINLINE; what is before it is read first, and a read stops there (tcp_check_urg,
//! tcp_recv_urg, tcp_recvmsg_locked).
//!
//! The octet stays in the receive queue until a read passes it, so that nothing of it is kept twice; it can be had once all
//! before it has arrived. RCV.UP and SND.UP are in the cold record ([`super::tcb::Seldom`]), and count while their flags say so.

use super::connection::{Connection, means};
use super::segment::Segment;
use super::state::State;
use super::tcb::Flags;
use crate::device::Device;
use crate::error::Error;
use crate::events;
use crate::ip::hop::Hop;
use crate::region::slab::Handle;
use crate::seq::Seq;
use crate::settings::Switch;
use crate::stack::Stack;

impl<D: Device> Connection<'_, D> {
    fn is_inline(&self) -> bool {
        self.values.options & Switch::OOB_INLINE != 0
    }

    /// The first octet that is unread.
    fn copied(&self) -> Seq {
        let fin = u32::from(self.tcb.state().has_received_fin());
        Seq(self.tcb.rcv.nxt.0.wrapping_sub(fin).wrapping_sub(self.traffic.receive.bytes()))
    }

    /// How many unread octets are before the urgent one; `None` if there is none.
    fn before_urgent(&self) -> Option<u32> {
        let up = self.seldom.rcv_up;
        let copied = self.copied();
        (self.tcb.flags.has(Flags::RECEIVE_URGENT) && copied.le(up)).then(|| up - copied)
    }

    /// "Sixth, check the URG bit": "RCV.UP <- max(RCV.UP,SEG.UP), and signal the user that the remote side has urgent data if the
    /// urgent pointer (RCV.UP) is in advance of the data consumed."
    ///
    /// RFC 9293 §3.8.5 (MUST-32): "A TCP implementation MUST inform the application layer asynchronously whenever it receives
    /// an Urgent pointer and there was previously no pending urgent data, or whenever the Urgent pointer advances in the data
    /// stream": readiness has a bit for it, and each is an arrival.
    pub(super) fn sixth_check_urg(&mut self, seg: &Segment) {
        let is_wanted = self.tcb.state().may_receive() && !self.tcb.flags.has(Flags::ORPHAN);
        let Some(up) = seg.urgent.filter(|up| is_wanted && self.tcb.rcv.nxt.le(*up)) else { return };
        let has_one = self.tcb.flags.has(Flags::RECEIVE_URGENT);
        if has_one && !self.seldom.rcv_up.lt(up) {
            return;
        }
        // An urgent octet that was the next to be read has had its time.
        if has_one && !self.is_inline() && self.before_urgent() == Some(0) {
            self.traffic.receive.consume(&mut means!(self, receive_charge), 1);
        }
        self.seldom.rcv_up = up;
        self.tcb.flags |= Flags::RECEIVE_URGENT;
        self.traffic.urgent_read = 0;
        self.arrived = true;
    }

    /// Bits of readiness.
    pub(super) fn urgent_ready(&self) -> u64 {
        if !self.tcb.flags.has(Flags::RECEIVE_URGENT) {
            return 0;
        }
        let is_there = self.before_urgent().is_some_and(|before| before < self.traffic.receive.bytes());
        events::URGENT_AHEAD | if is_there && self.traffic.urgent_read == 0 { events::URGENT } else { 0 }
    }

    /// Unread octets that an ordinary read would find: the urgent one, if it is next and out of line, is none of them.
    pub(super) fn readable_bytes(&self) -> u32 {
        let hidden = !self.is_inline() && self.before_urgent() == Some(0);
        self.traffic.receive.bytes().saturating_sub(hidden.into())
    }

    /// Where an ordinary read begins, counted from the first unread octet, and how many octets it may take.
    pub(super) fn read_limits(&self) -> (usize, usize) {
        match self.before_urgent() {
            None => (0, usize::MAX),
            Some(0) if self.is_inline() => (0, usize::MAX),
            Some(0) => (1, usize::MAX),
            Some(before) => (0, before as usize),
        }
    }

    /// Steps over an urgent octet that an ordinary read has come to.
    pub(super) fn step_over_urgent(&mut self) {
        if self.read_limits().0 != 0 {
            self.traffic.receive.consume(&mut means!(self, receive_charge), 1);
        }
        self.end_urgent();
    }

    /// What was read may have passed the urgent octet.
    pub(super) fn end_urgent(&mut self) {
        if self.tcb.flags.has(Flags::RECEIVE_URGENT) && self.before_urgent().is_none() {
            self.tcb.flags = self.tcb.flags.without(Flags::RECEIVE_URGENT);
            self.traffic.urgent_read = 0;
        }
    }

    /// The urgent octet (MSG_OOB).
    fn receive_urgent(&mut self, to: &mut [u8], peek: bool) -> Result<usize, Error> {
        let state = self.tcb.state();
        let has_one = self.tcb.flags.has(Flags::RECEIVE_URGENT) && self.traffic.urgent_read == 0;
        if self.is_inline() || !has_one {
            return Err(Error::Invalid);
        }
        let before = self.before_urgent().unwrap_or(0) as usize;
        let mut octet = None;
        self.traffic.receive.peek(&means!(self, receive_charge), before, 1, |text| {
            octet = text.first().copied();
            1
        });
        match octet {
            Some(octet) => {
                self.traffic.urgent_read = u8::from(!peek);
                if let Some(first) = to.first_mut() {
                    *first = octet;
                }
                Ok(to.len().min(1))
            }
            None if state == State::Closed || self.tcb.flags.has(Flags::RECEIVE_SHUT) => Ok(0),
            None => Err(Error::WouldBlock),
        }
    }

    /// The text that was just queued is urgent, up to its end: SND.UP is behind it (tcp_mark_urg).
    pub(super) fn mark_urgent(&mut self) {
        self.seldom.snd_up = self.tcb.snd.nxt + self.unsent();
        self.tcb.flags |= Flags::SEND_URGENT;
    }

    /// SND.UNA has moved.
    pub(super) fn urgent_acknowledged(&mut self) {
        if self.tcb.flags.has(Flags::SEND_URGENT) && !self.tcb.snd.una.lt(self.seldom.snd_up) {
            self.tcb.flags = self.tcb.flags.without(Flags::SEND_URGENT);
            self.seldom.snd_up = Seq(0);
        }
    }

    /// The urgent pointer of a segment at this place, if it has one: RFC 9293 §3.8.5 (MUST-30), "the urgent pointer […] points
    /// to the sequence number of the octet following the urgent data", as Linux has it too.
    pub(super) fn urgent_pointer(&self, seq: Seq) -> Option<u16> {
        let up = self.seldom.snd_up;
        let is_ahead = self.tcb.flags.has(Flags::SEND_URGENT) && seq.lt(up);
        is_ahead.then(|| u16::try_from(up - seq).unwrap_or(u16::MAX))
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// recv(2) with MSG_OOB: the urgent octet.
    ///
    /// # Errors
    /// `Invalid` if there is none, it was read, or it is in line; `WouldBlock` if it is announced and has not arrived.
    pub fn receive_urgent(&mut self, socket: Handle, to: &mut [u8], peek: bool) -> Result<usize, Error> {
        self.work(socket, None, |connection| connection.receive_urgent(to, peek))?
    }

    /// SIOCATMARK: whether the next octet to be read is the urgent one.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn is_at_mark(&mut self, socket: Handle) -> Result<bool, Error> {
        let mut spare = None;
        Ok(self.connection(socket, &mut spare, Hop::default())?.before_urgent() == Some(0))
    }
}
