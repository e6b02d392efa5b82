//! SEGMENT ARRIVES (RFC 9293 §3.10.7) for a connection that has a block: SYN-SENT in [`syn_sent`], the other states by the
//! eight steps of §3.10.7.4, in the standard's order and words. What arrives for nobody and for listeners is the stack's
//! own business ([`crate::stack`]).
//!
//! A step never sends: it says [`Stop`], or leaves marks for the output that follows.

use core::ops::ControlFlow::{self, Break, Continue};

use super::challenge::{self, Receiver, Verdict};
use super::connection::{Connection, clock_ms, means};
use super::segment::Segment;
use super::state::{Event, State};
use super::tcb::{Flags as Tcbits, Mark};
use super::timers::Timer;
use super::timers::limits;
use crate::device::Device;
use crate::error::Error;
use crate::seq::Seq;
use crate::stats::Counter;
use crate::wire::tcp::Flags;
use crate::wire::tcp::options::Block;

mod ack;
mod syn_sent;
mod text;

/// Why no further step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// "drop the segment".
    Drop,
    /// "send an acknowledgment in reply".
    Ack,
    /// The same, as rarely as challenges are sent (RFC 5961 §7).
    Challenge,
    /// The same, but always if it has text, which may be a retransmission (tcp_oow_rate_limited).
    Duplicate,
    /// A reset that answers just this segment.
    Reset,
}

impl<D: Device> Connection<'_, D> {
    /// The segment arrives; what it asks for beyond the connection itself, [`Stop::Reset`], is returned.
    pub(crate) fn segment_arrives(&mut self, seg: &mut Segment) -> Option<Stop> {
        let count = if seg.text == 0 { 1 } else { seg.count(self.tcb.advertised_mss) };
        self.tcb.segs_in = self.tcb.segs_in.wrapping_add(count);
        let stop = match self.tcb.state() {
            State::SynSent => self.syn_sent(seg),
            State::Closed | State::Listen => Break(Stop::Drop),
            _ => self.steps(seg),
        };
        if let Some(frame) = seg.frame.take() {
            self.frames.discard_packet(frame);
        }
        match stop {
            Break(Stop::Ack) => self.owe_ack(true),
            Break(Stop::Challenge) => self.challenge(false),
            Break(Stop::Duplicate) => self.challenge(seg.text > 0 && !seg.is(Flags::SYN)),
            Break(Stop::Reset) => return Some(Stop::Reset),
            Break(Stop::Drop) | Continue(()) => {}
        }
        None
    }

    fn challenge(&mut self, has_text: bool) {
        if self.tcb.challenges.allows(self.now, has_text) {
            self.count(Counter::ChallengeAcks);
            self.owe_ack(true);
        } else {
            self.count(Counter::ChallengesLimited);
        }
    }

    /// RFC 9293 §3.10.7.4: "Otherwise".
    fn steps(&mut self, seg: &mut Segment) -> ControlFlow<Stop> {
        self.syn_again(seg)?;
        self.first_check_timestamp(seg)?;
        self.first_check_sequence_number(seg)?;
        self.second_check_rst(seg)?;
        // Third, security and compartment: not implemented (RFC 9293 appendix A.1 is not in scope).
        self.fourth_check_syn(seg)?;
        self.note_timestamp(seg);
        self.fifth_check_ack(seg)?;
        self.sixth_check_urg(seg);
        self.seventh_process_text(seg)?;
        self.eighth_check_fin(seg)
    }

    /// The SYN with text that has opened it comes again: our answer was lost (tcp_check_req).
    fn syn_again(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        let is_ours = self.tcb.is(Mark::FAST_CHILD) && seg.seq == self.tcb.irs();
        if is_ours && seg.is(Flags::SYN) && !seg.is(Flags::ACK) && !seg.is(Flags::RST) {
            self.emit_syn(Flags::SYN | Flags::ACK, None);
            return Break(Stop::Drop);
        }
        Continue(())
    }

    /// RFC 7323 §5.3, R1, which comes before the other steps: "send an acknowledgment in reply […] and drop the segment".
    fn first_check_timestamp(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        if !self.tcb.flags.has(Tcbits::TIMESTAMPS) {
            return Continue(());
        }
        // RFC 7323 §3.2 would have a segment without the option dropped. Linux takes it (tcp_validate_incoming looks at timestamps only
        // where there are any), and so connections live whose peers or middle boxes stop sending it.
        let Some(stamps) = seg.options.timestamps else { return Continue(()) };
        if self.tcb.recent.is_acceptable(self.now, stamps.tsval, seg.is(Flags::RST)) {
            return Continue(());
        }
        self.count(Counter::PawsDropped);
        let snd = &self.tcb.snd;
        let repeats = seg.len() == 0
            && seg.seq == self.tcb.rcv.nxt
            && seg.ack == snd.una
            && self.window_of(seg) == snd.wnd;
        if self.tcb.recent.is_disordered_ack(stamps.tsval, repeats, self.rto()) {
            return Break(Stop::Drop);
        }
        self.note_duplicate(seg);
        Break(Stop::Duplicate)
    }

    /// "First, check sequence number": the RFC's table, row for row.
    fn first_check_sequence_number(&mut self, seg: &mut Segment) -> ControlFlow<Stop> {
        let rcv = self.tcb.rcv;
        // RFC 9293 figure 7, line 6: the SYN that we know, now with an acknowledgment of ours. It is what an empty segment at RCV.NXT
        // would be (Linux since 6.11: tcp_validate_incoming).
        let crosses = self.tcb.state() == State::SynReceived && seg.is(Flags::SYN) && seg.is(Flags::ACK);
        if crosses && seg.len() == 1 && seg.end() == rcv.nxt && seg.ack == self.tcb.snd.nxt {
            if self.tcb.flags.has(Tcbits::SACK) {
                // Its sequence number came before (tcp_send_dupack).
                self.traffic.reassembly.note_duplicate(Block { left: seg.seq, right: rcv.nxt });
            }
            seg.trim_front(1);
            self.owe_ack(true);
            return Continue(());
        }
        let edge = rcv.nxt + rcv.wnd;
        let in_window = |seq: Seq| rcv.nxt.le(seq) && seq.lt(edge);
        let acceptable = match (seg.len(), rcv.wnd) {
            (0, 0) => seg.seq == rcv.nxt,
            // The right edge itself too: RFC 9293's allowance for a peer whose window was probed (tcp_sequence).
            (0, _) => in_window(seg.seq) || seg.seq == edge,
            (_, 0) => false,
            (n, _) => in_window(seg.seq) || in_window(seg.seq + (n - 1)),
        };
        if acceptable {
            self.trim(seg);
            return Continue(());
        }
        // "If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set)".
        self.count(Counter::Unacceptable);
        if seg.is(Flags::RST) {
            return match self.reset_verdict(seg) {
                Verdict::Accept => Continue(()),
                _ => Break(Stop::Drop),
            };
        }
        // "If the RCV.WND is zero, no segments will be acceptable, but special allowance should be made to accept valid ACKs,
        // URGs, and RSTs" (§3.10.7.4).
        if rcv.wnd == 0 && seg.seq == rcv.nxt && !seg.is(Flags::SYN) {
            seg.trim_back(seg.len());
            self.owe_ack(true);
            return Continue(());
        }
        self.note_duplicate(seg);
        // A retransmission in TIME-WAIT restarts it (§3.10.7.4, eighth).
        if self.tcb.state() == State::TimeWait && seg.is(Flags::FIN) {
            self.tcb.timers.arm(Timer::TimeWait, self.now + limits::TIME_WAIT);
        }
        // What only repeats old text still acknowledges (tcp_validate_incoming drops it; its ACK is in a later one, too).
        Break(Stop::Duplicate)
    }

    /// "segments with higher beginning sequence numbers SHOULD be held for later processing (SHLD-31)"; what lies outside of
    /// the window is cut off: "any portion of the segment that lies outside the window (including SYN and FIN)".
    fn trim(&mut self, seg: &mut Segment) {
        let rcv = self.tcb.rcv;
        if seg.seq.lt(rcv.nxt) {
            let before = (rcv.nxt - seg.seq).min(seg.len());
            let text = before.saturating_sub(seg.is(Flags::SYN).into()).min(seg.text.into());
            if text > 0 && self.tcb.flags.has(Tcbits::SACK) {
                self.traffic.reassembly.note_duplicate(Block { left: seg.seq, right: seg.seq + text });
                self.owe_ack(true);
            }
            seg.trim_front(before);
        }
        let edge = rcv.nxt + rcv.wnd;
        if edge.lt(seg.end()) {
            seg.trim_back((seg.end() - edge).min(seg.len()));
        }
    }

    /// Text that arrived before is reported by D-SACK (RFC 2883 §4).
    fn note_duplicate(&mut self, seg: &Segment) {
        let (end, nxt) = (seg.seq + u32::from(seg.text), self.tcb.rcv.nxt);
        if seg.text > 0 && seg.seq.lt(nxt) && self.tcb.flags.has(Tcbits::SACK) {
            self.count(Counter::Duplicates);
            let right = if nxt.lt(end) { nxt } else { end };
            self.traffic.reassembly.note_duplicate(Block { left: seg.seq, right });
        }
    }

    fn reset_verdict(&self, seg: &Segment) -> Verdict {
        let last = self.traffic.reassembly.list().last().and_then(|last| self.frames.record(last));
        let receiver = Receiver {
            nxt: self.tcb.rcv.nxt,
            wnd: self.tcb.rcv.wnd,
            sacked: last.filter(|_| self.tcb.flags.has(Tcbits::SACK)).map(|record| record.end()),
            fin: self.tcb.state().has_received_fin(),
        };
        challenge::rst(seg.seq, &receiver)
    }

    /// "Second, check the RST bit".
    fn second_check_rst(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        if !seg.is(Flags::RST) {
            return Continue(());
        }
        match self.reset_verdict(seg) {
            // RFC 1337 §3: an RST doesn't end TIME-WAIT.
            Verdict::Accept if self.tcb.state() == State::TimeWait => Break(Stop::Drop),
            Verdict::Accept => {
                // RFC 9293 has an active open refused in SYN-RECEIVED; Linux has it reset, as any other (tcp_reset).
                let error = match self.tcb.state() {
                    State::CloseWait => Error::BrokenPipe,
                    _ => Error::ConnectionReset,
                };
                self.count(Counter::EstablishedResets);
                self.fail(error);
                Break(Stop::Drop)
            }
            Verdict::Challenge => Break(Stop::Challenge),
            Verdict::Drop => Break(Stop::Drop),
        }
    }

    /// "Fourth, check the SYN bit".
    fn fourth_check_syn(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        if !seg.is(Flags::SYN) {
            return Continue(());
        }
        if self.tcb.state() == State::SynReceived && seg.seq + 1 == self.tcb.rcv.nxt {
            // Our answer was lost, or theirs crossed ours: the timer sends it again.
            return Break(Stop::Drop);
        }
        Break(match challenge::syn() {
            Verdict::Challenge => Stop::Challenge,
            _ => Stop::Drop,
        })
    }

    /// R3 of RFC 7323 §5.3.
    fn note_timestamp(&mut self, seg: &Segment) {
        if let Some(stamps) = seg.options.timestamps.filter(|_| self.tcb.flags.has(Tcbits::TIMESTAMPS)) {
            let last_ack_sent = self.tcb.rcv.last_ack_sent;
            self.tcb.recent.update(self.now, stamps.tsval, seg.seq, last_ack_sent);
        }
        self.tcb.last_ack_received = clock_ms(self.now);
    }

    /// "Eighth, check the FIN bit".
    fn eighth_check_fin(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        let nxt = self.tcb.rcv.nxt;
        let is_next = seg.is(Flags::FIN) && seg.end() == nxt + 1;
        let was_kept = self.traffic.has_fin != 0 && self.traffic.fin == nxt;
        if self.tcb.state().has_received_fin() {
            return Continue(());
        }
        if is_next || was_kept {
            self.receive_fin();
            if !is_next {
                // The gap is filled: RFC 5681 §4.2.
                self.owe_ack(true);
            }
        } else if seg.is(Flags::FIN) && nxt.lt(seg.end()) {
            self.keep_fin(seg);
        }
        Continue(())
    }

    /// A FIN behind a gap is kept as the text before it is (SHLD-31; tcp_data_queue_ofo).
    fn keep_fin(&mut self, seg: &Segment) {
        if self.traffic.has_fin == 0 {
            (self.traffic.fin, self.traffic.has_fin) = (Seq(seg.end().0.wrapping_sub(1)), 1);
        }
        self.owe_ack(true);
    }

    /// The peer's FIN is in order: "advance RCV.NXT over the FIN, and send an acknowledgment for the FIN".
    pub(super) fn receive_fin(&mut self) {
        self.tcb.rcv.nxt = self.tcb.rcv.nxt + 1;
        self.tcb.rcv.wnd = self.tcb.rcv.wnd.saturating_sub(1);
        self.tcb.received += 1;
        let is_first = matches!(self.tcb.state(), State::SynReceived | State::Established);
        if is_first {
            // The user's answer, or its own FIN, carries the acknowledgment if it comes soon (tcp_fin).
            self.tcb.delayed_ack.be_interactive();
        }
        self.owe_ack(!is_first);
        self.traffic.reassembly.clear(&mut means!(self, receive_charge));
        self.traffic.has_fin = 0;
        self.arrived = true;
        self.enter(Event::RcvFin);
    }
}
