//! SEGMENT ARRIVES in SYN-SENT (RFC 9293 §3.10.7.3).

use core::ops::ControlFlow::{self, Break, Continue};

use super::{Flags, Segment, Stop, Tcbits};
use crate::device::Device;
use crate::error::Error;
use crate::stats::Counter;
use crate::tcp::connection::{Connection, peer_mss};
use crate::tcp::recovery::ecn::Ecn;
use crate::tcp::state::Event;
use crate::tcp::tcb::Rcv;
use crate::tcp::timestamps::Recent;

impl<D: Device> Connection<'_, D> {
    pub(super) fn syn_sent(&mut self, seg: &mut Segment) -> ControlFlow<Stop> {
        if self.tcb.is_deferred() {
            // No SYN was sent yet: what comes is for a connection before it.
            return Break(Stop::Drop);
        }
        let (iss, nxt) = (self.tcb.iss(), self.tcb.snd.nxt);
        // "First, check the ACK bit": "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so
        // drop the segment and return)".
        let acknowledges = seg.is(Flags::ACK);
        if acknowledges && (seg.ack.le(iss) || nxt.lt(seg.ack)) {
            return Break(if seg.is(Flags::RST) { Stop::Drop } else { Stop::Reset });
        }
        // "Second, check the RST bit": "If the ACK was acceptable, then signal to the user "error: connection reset"".
        if seg.is(Flags::RST) {
            if acknowledges {
                self.count(Counter::AttemptsFailed);
                self.fail(Error::ConnectionRefused);
            }
            return Break(Stop::Drop);
        }
        // "Third, check the security": not implemented. "Fourth, check the SYN bit".
        if !seg.is(Flags::SYN) {
            return Break(Stop::Drop);
        }
        self.take_syn(seg);
        let is_agreed = acknowledges && self.tcb.flags.has(Tcbits::ECN) && Ecn::agrees(seg.flags);
        self.tcb.episode.ecn = Ecn::agreed(is_agreed);
        if !is_agreed {
            self.tcb.flags = self.tcb.flags.without(Tcbits::ECN);
        }
        if acknowledges {
            self.established(seg);
            self.text_of_syn_answered(seg);
            // "If SND.UNA > ISS (our SYN has been ACKed), change the connection state to ESTABLISHED, form an ACK segment".
            self.owe_ack(true);
            // "If there are other controls or text in the segment, then continue processing at the sixth step".
            seg.trim_front(1);
            self.seventh_process_text(seg)?;
            return self.eighth_check_fin(seg);
        }
        // "Otherwise, enter SYN-RECEIVED, form a SYN,ACK segment" — both have opened.
        self.enter(Event::RcvSyn);
        self.tcb.retransmits = 0;
        self.emit_syn(Flags::SYN | Flags::ACK, None);
        self.arm_syn();
        Continue(())
    }

    /// "RCV.NXT is set to SEG.SEQ+1, IRS is set to SEG.SEQ", and what the peer's options allow.
    fn take_syn(&mut self, seg: &Segment) {
        let (options, tcb) = (&seg.options, &mut *self.tcb);
        tcb.rcv = Rcv { nxt: seg.seq + 1, last_ack_sent: seg.seq + 1, ..tcb.rcv };
        tcb.received = 1;
        tcb.peer_mss = peer_mss(options.mss, &tcb.remote);
        match options.window_scale {
            Some(shift) if tcb.flags.has(Tcbits::SCALING) => tcb.set_shifts(shift, tcb.rcv_shift()),
            _ => {
                tcb.flags = tcb.flags.without(Tcbits::SCALING);
                tcb.set_shifts(0, 0);
            }
        }
        if !options.sack_permitted {
            tcb.flags = tcb.flags.without(Tcbits::SACK);
        }
        match options.timestamps {
            Some(stamps) if tcb.flags.has(Tcbits::TIMESTAMPS) => {
                tcb.recent = Recent::new(self.now, stamps.tsval);
            }
            _ => tcb.flags = tcb.flags.without(Tcbits::TIMESTAMPS),
        }
    }
}
