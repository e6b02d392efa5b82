//! "Fifth, check the ACK field", and what it moves: the send queue, SND.WND, the states that wait for our FIN's.

use core::ops::ControlFlow::{self, Break, Continue};

use super::{Flags, Segment, Stop, Tcbits};
use crate::device::Device;
use crate::sendq::SendQueue;
use crate::seq::Seq;
use crate::stats::Counter;
use crate::tcp::challenge::{self, Ack};
use crate::tcp::congestion::{Algorithm, Congestion, initial_window};
use crate::tcp::connection::Connection;
use crate::tcp::recovery::undo::CaState;
use crate::tcp::state::{Event, State};
use crate::tcp::tcb::Mark;
use crate::tcp::timers::{Timer, limits};
use crate::tcp::window;
use crate::tcp::window::autotune::Autotune;
use crate::time::Duration;

/// Segments that a peer sends in its first round (TCP_INIT_CWND, RFC 6928 §2).
const SEGMENTS_FIRST: u32 = 10;

impl<D: Device> Connection<'_, D> {
    /// SEG.WND, scaled.
    pub(super) fn window_of(&self, seg: &Segment) -> u32 {
        window::unscaled(seg.window, self.tcb.snd_shift(), seg.is(Flags::SYN))
    }

    /// "Fifth, check the ACK field".
    pub(super) fn fifth_check_ack(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        // "if the ACK bit is off, drop the segment and return".
        if !seg.is(Flags::ACK) {
            return Break(Stop::Drop);
        }
        if self.tcb.state() == State::SynReceived {
            self.syn_received_ack(seg)?;
        }
        let snd = &self.tcb.snd;
        // Nobody has seen what is before ISS (tcp_ack).
        let max_wnd = u64::from(self.tcb.snd_wnd_max).min(self.tcb.acked) as u32;
        match challenge::ack(seg.ack, snd.una, snd.nxt, max_wnd) {
            Ack::Unacceptable => {
                self.count(Counter::AcksOfNothing);
                return Break(Stop::Challenge);
            }
            // "If the ACK is a duplicate (SEG.ACK =< SND.UNA), it can be ignored." Its text is not, and neither is what it reports
            // beyond SND.UNA: it was sent before one that came faster (tcp_ack, old_ack).
            Ack::Old => {
                if self.tcb.flags.has(Tcbits::SACK) && !seg.options.sack.as_slice().is_empty() {
                    self.on_ack(seg, false);
                }
                return Continue(());
            }
            Ack::New | Ack::Same => {}
        }
        self.tcb.probes = 0;
        self.hear_routers(seg);
        let before = self.tcb.snd.wnd;
        self.update_window(seg.seq, seg.ack, self.window_of(seg));
        let fin = self.on_ack(seg, self.tcb.snd.wnd == before);
        match self.tcb.state() {
            State::FinWait1 | State::Closing | State::LastAck if fin => {
                self.enter(Event::RcvAckOfFin);
                if self.is_over { Break(Stop::Drop) } else { Continue(()) }
            }
            // "The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it, and restart
            // the 2 MSL timeout."
            State::TimeWait if seg.is(Flags::FIN) => {
                self.tcb.timers.arm(Timer::TimeWait, self.now + limits::TIME_WAIT);
                Break(Stop::Ack)
            }
            _ => Continue(()),
        }
    }

    /// SYN-RECEIVED: "If SND.UNA < SEG.ACK =< SND.NXT, then enter ESTABLISHED state and continue processing"; "If the segment
    /// acknowledgment is not acceptable, form a reset segment".
    fn syn_received_ack(&mut self, seg: &Segment) -> ControlFlow<Stop> {
        let snd = &self.tcb.snd;
        if !(snd.una.lt(seg.ack) && seg.ack.le(snd.nxt)) {
            return Break(Stop::Reset);
        }
        self.established(seg);
        Continue(())
    }

    /// Our SYN is acknowledged: the connection is there.
    pub(super) fn established(&mut self, seg: &Segment) {
        let tcb = &mut *self.tcb;
        tcb.snd.una = tcb.snd.una + 1;
        tcb.acked += 1;
        let wnd = window::unscaled(seg.window, tcb.snd_shift(), seg.is(Flags::SYN));
        (tcb.snd.wnd, tcb.snd.wl1, tcb.snd.wl2) = (wnd, seg.seq, seg.ack);
        tcb.snd_wnd_max = wnd.max(tcb.snd_wnd_max);
        let was_lost = tcb.retransmits > 0;
        let sent_at = tcb.timers.at(Timer::Rto).filter(|_| !was_lost);
        tcb.timers.disarm(Timer::Rto);
        tcb.retransmits = 0;
        let transfers = self.tcb.is(Mark::FAST_CHILD);
        if transfers {
            self.tcb.marks &= !Mark::FAST_CHILD;
            self.seldom.rcv_up = Seq(0);
        }
        if !transfers || was_lost {
            self.begin_congestion(was_lost);
        }
        if !transfers {
            self.begin_reception();
        }
        // Text of the SYN that is acknowledged with it is measured like other text.
        if !(self.tcb.is(Mark::SYN_DATA) && self.tcb.snd.una.lt(seg.ack)) {
            self.first_round_trip(seg, sent_at, was_lost);
        }
        self.traffic.fack = self.tcb.snd.una;
        self.arrived = true;
        let is_active = self.tcb.state() == State::SynSent;
        self.enter(if is_active { Event::RcvSynAck } else { Event::RcvAckOfSyn });
        if self.tcb.flags.has(Tcbits::FIN_QUEUED) {
            self.enter(Event::Close);
        }
    }

    /// The MSS is known, and with it the first window (tcp_init_transfer).
    fn begin_congestion(&mut self, was_lost: bool) {
        self.set_mss();
        let algorithm = Algorithm::decode(self.values.congestion);
        self.tcb.congestion = Congestion::new(algorithm, initial_window(self.tcb.mss, was_lost));
    }

    /// What is received is measured from now on.
    fn begin_reception(&mut self) {
        // The first round is compared with what a sender begins with, and not with our window: that is what it fills if it is
        // held up by it (tcp_init_buffer_space).
        let first = self.tcb.rcv.wnd.min(SEGMENTS_FIRST * u32::from(self.tcb.advertised_mss));
        self.tcb.autotune = Autotune::new(self.now, self.tcb.rcv.nxt, first);
        self.tcb.delayed_ack.begin(self.now);
    }

    /// A SYN is believed because of its cookie: its text is taken, and ours may follow the SYN-ACK (RFC 7413 §4.2.2;
    /// tcp_fastopen_create_child). A FIN isn't taken: it comes again.
    pub(crate) fn begin_fast_child(&mut self, seg: &mut Segment, listener: u32) {
        self.tcb.marks |= Mark::FAST_CHILD;
        self.seldom.rcv_up = Seq(listener.wrapping_add(1));
        (self.tcb.snd.wnd, self.tcb.snd_wnd_max) = (seg.window.into(), seg.window.into());
        self.begin_congestion(false);
        self.begin_reception();
        self.traffic.send = SendQueue::new(self.tcb.snd.nxt);
        self.traffic.fack = self.tcb.snd.una;
        seg.trim_front(1);
        let beyond = u32::from(seg.text).saturating_sub(self.tcb.rcv.wnd);
        seg.trim_back(beyond + u32::from(seg.is(Flags::FIN)));
        let before = self.tcb.rcv.nxt;
        let _ = self.take_text_of_syn(seg);
        if self.tcb.rcv.nxt != before {
            self.tcb.marks |= Mark::SYN_DATA_ACKED;
        }
    }

    /// Our SYN carried text, and is acknowledged: so is the text, or it is sent again at once, and that is no sign of congestion
    /// (RFC 7413 §4.2.2; tcp_rcv_fastopen_synack).
    pub(super) fn text_of_syn_answered(&mut self, seg: &Segment) {
        if !self.tcb.is(Mark::SYN_DATA) {
            return;
        }
        if self.tcb.snd.una.lt(seg.ack) {
            self.on_ack(seg, false);
        }
        if self.traffic.send.sent().frames == 0 {
            self.tcb.marks |= Mark::SYN_DATA_ACKED;
            return;
        }
        self.count(Counter::FastOpenUnanswered);
        self.tcb.marks |= Mark::FAST_OPEN_FAILED;
        if self.tcb.total_retrans > 0 {
            self.tcb.marks |= Mark::COOKIE_WANTED;
        }
        self.traffic.send.mark_all_lost(&mut self.frames, |_| true);
        self.tcb.episode.continue_as(CaState::Loss, self.tcb.snd.nxt);
    }

    /// The handshake's round trip, by our timer, which ran since the SYN, or by timestamps.
    fn first_round_trip(&mut self, seg: &Segment, expires: Option<crate::time::Instant>, was_lost: bool) {
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        let by_timer = expires.map(|at| Duration(self.rto().0.saturating_sub((at - self.now).0)));
        let echo = seg
            .options
            .timestamps
            .filter(|stamps| self.tcb.flags.has(Tcbits::TIMESTAMPS) && stamps.tsecr != 0);
        let since =
            echo.map(|stamps| self.tsval().wrapping_sub(stamps.tsecr)).filter(|ms| *ms <= u32::MAX / 2);
        let rtt =
            by_timer.filter(|rtt| rtt.0 > 0).or(since.map(|ms| Duration::from_millis(u64::from(ms.max(1)))));
        match rtt {
            Some(rtt) => {
                self.tcb.rtt.sample_min(self.now, rtt, false);
                self.tcb.rtt.sample(rtt, una, nxt, &self.bounds());
            }
            None if was_lost => self.tcb.rtt.syn_was_lost(),
            None => {}
        }
    }

    /// "If SND.UNA =< SEG.ACK =< SND.NXT, the send window should be updated. If (SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and
    /// SND.WL2 =< SEG.ACK)), set SND.WND <- SEG.WND, set SND.WL1 <- SEG.SEQ, and set SND.WL2 <- SEG.ACK."
    #[inline]
    pub(in crate::tcp) fn update_window(&mut self, seq: Seq, ack: Seq, wnd: u32) {
        let snd = &mut self.tcb.snd;
        if snd.wl1.lt(seq) || snd.wl1 == seq && snd.wl2.le(ack) {
            (snd.wnd, snd.wl1, snd.wl2) = (wnd, seq, ack);
            self.tcb.snd_wnd_max = self.tcb.snd_wnd_max.max(wnd);
        }
    }

    /// What routers told (RFC 3168 §6.1).
    fn hear_routers(&mut self, seg: &Segment) {
        let received = self.tcb.episode.ecn.incoming(seg.flags, seg.marked, seg.text > 0);
        if received.acknowledge {
            self.owe_ack(true);
        }
        if received.reduce {
            self.on_congestion_echo();
        }
        if seg.marked {
            self.count(Counter::CongestionMarks);
        }
    }
}
