//! What is sent next, as one question: [`Connection::next_segment`] looks and changes nothing, [`emit`] does what it says.
//!
//! In this order: what is lost and not sent again since; new text, which Nagle's algorithm, the windows of both sides and
//! the pace allow; a FIN; and when nothing has carried it, an acknowledgment. A device that cuts gets what may follow the next
//! segment in the same packet ([`run`]).

use core::fmt;

use self::run::Held;
use super::chronograph::Cause;
use super::connection::{Connection, clock_ms, means};
use super::state::State;
use super::tcb::{Flags as Tcbits, Mark};
use super::timers::Timer;
use super::timers::delayed_ack::Unacknowledged;
use super::window::needs_update;
use super::window::send::{self, Sender};
use crate::device::{Device, FrameIndex};
use crate::frames::FrameRecord;
use crate::seq::Seq;
use crate::time::Instant;

pub(crate) mod emit;
pub(crate) mod header;
pub(crate) mod plain;
mod run;

/// Why a segment is sent: what a trace prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Text was lost.
    Lost,
    /// Nothing came back for two round trips (RFC 8985 §7.3).
    TailProbe,
    /// The same with more than a usual segment's, for what the path takes (RFC 4821 §7.4).
    PathProbe,
    /// The user gave text, and there is room for it.
    Text,
    /// The user has finished.
    Finish,
    /// What arrived is to be acknowledged at once.
    AckNow,
    /// Enough arrived for an acknowledgment.
    AckDue,
    /// A closed window, or a silent peer, is probed.
    Probe,
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Lost => "lost",
            Self::TailProbe => "tail probe",
            Self::PathProbe => "path probe",
            Self::Text => "text",
            Self::Finish => "finish",
            Self::AckNow => "ack at once",
            Self::AckDue => "ack",
            Self::Probe => "probe",
        })
    }
}

/// The text of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// None.
    None,
    /// So many bytes of a frame that was never sent.
    New(FrameIndex, u16),
    /// A frame that was sent before.
    Again(FrameIndex),
}

/// A segment that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Why.
    pub(crate) why: Why,
    /// SEG.SEQ.
    pub(crate) seq: Seq,
    /// What it carries.
    pub(crate) text: Text,
}

impl<D: Device> Connection<'_, D> {
    /// The next segment of a connection, if it is the time for one.
    pub(crate) fn next_segment(&self) -> Option<Plan> {
        let state = self.tcb.state();
        let waits_for_syn = state == State::SynReceived && !self.tcb.is(Mark::FAST_CHILD);
        if self.is_over || waits_for_syn || matches!(state, State::Closed | State::Listen | State::SynSent) {
            return None;
        }
        self.next_again().or_else(|| self.next_text()).or_else(|| self.next_ack())
    }

    /// What is lost and not sent again since, while the congestion window has room.
    fn next_again(&self) -> Option<Plan> {
        let frame = self.traffic.send.next_lost().filter(|_| self.traffic.only_new == 0)?;
        let record = self.frames.record(frame)?;
        // A window that was shrunk is not overrun, but for its first segment (tcp_retransmit_skb).
        let is_inside =
            record.seq() == self.tcb.snd.una || record.end().le(self.tcb.snd.una + self.tcb.snd.wnd);
        let may = self.board().pipe() < self.tcb.congestion.cwnd() && is_inside;
        may.then(|| Plan { why: Why::Lost, seq: record.seq(), text: Text::Again(frame) })
    }

    /// Text that was never sent, or a FIN.
    fn next_text(&self) -> Option<Plan> {
        let frame = self.traffic.send.next_unsent().filter(|_| !self.traffic.search.waits())?;
        if self.board().pipe() >= self.tcb.congestion.cwnd() || self.tcb.pacing.next_send(self.now).is_some()
        {
            return None;
        }
        if self.held().is_some() {
            return None;
        }
        self.text_of(frame, Why::Text)
    }

    /// As much of the first unsent frame as may leave, whatever the congestion window says.
    pub(crate) fn text_of(&self, frame: FrameIndex, why: Why) -> Option<Plan> {
        let record = self.frames.record(frame)?;
        let seq = self.tcb.snd.nxt;
        if record.len == 0 {
            // A FIN alone is its own probe of a closed window: a peer that doesn't take it answers all the same.
            return record.has(FrameRecord::FIN).then_some(Plan {
                why: Why::Finish,
                seq,
                text: Text::New(frame, 0),
            });
        }
        let len = send::next_len(&self.sender())?.min(record.len.into()) as u16;
        Some(Plan { why, seq, text: Text::New(frame, len) })
    }

    /// Bytes of text that were never sent.
    pub(crate) fn unsent(&self) -> u32 {
        let queue = &self.traffic.send;
        let last = queue.list().last().filter(|_| queue.next_unsent().is_some());
        let fin =
            last.and_then(|last| self.frames.record(last)).is_some_and(|record| record.has(FrameRecord::FIN));
        let in_frames = (queue.end() - self.tcb.snd.nxt).saturating_sub(fin.into());
        in_frames.saturating_add(queue.bytes_in_blocks())
    }

    /// What the rules of window and Nagle depend on.
    pub(crate) fn sender(&self) -> Sender {
        let tcb = &*self.tcb;
        let is_urgent = tcb.flags.has(Tcbits::SEND_URGENT);
        Sender {
            una: tcb.snd.una,
            nxt: tcb.snd.nxt,
            wnd: tcb.snd.wnd,
            max_wnd: tcb.snd_wnd_max,
            mss: self.shape().mss,
            queued: self.unsent(),
            small: self.traffic.small,
            // Urgent data waits for nothing (tcp_nagle_test).
            nodelay: tcb.flags.has(Tcbits::NO_DELAY) || is_urgent,
            cork: tcb.flags.has(Tcbits::CORK) && !is_urgent,
            fin: tcb.flags.has(Tcbits::FIN_QUEUED),
            overridden: self.overridden,
        }
    }

    /// An acknowledgment that nothing has carried.
    fn next_ack(&self) -> Option<Plan> {
        let (tcb, flags) = (&*self.tcb, self.tcb.flags);
        let why = if flags.has(Tcbits::ACK_NOW) {
            Why::AckNow
        } else if self.is_ack_due() {
            Why::AckDue
        } else {
            return None;
        };
        Some(Plan { why, seq: tcb.snd.nxt, text: Text::None })
    }

    /// Whether what arrived is to be acknowledged although nothing carries it.
    #[inline]
    pub(crate) fn is_ack_due(&self) -> bool {
        let flags = self.tcb.flags;
        flags.has(Tcbits::ACK_NOW) || flags.has(Tcbits::ACK_OWED) && self.is_owed_ack_due()
    }

    #[inline]
    fn is_owed_ack_due(&self) -> bool {
        let rcv = &self.tcb.rcv;
        let received = Unacknowledged {
            rcv_nxt: rcv.nxt,
            last_ack_sent: rcv.last_ack_sent,
            at_once: !self.traffic.reassembly.is_empty(),
        };
        self.tcb.delayed_ack.is_due(&received, || self.space().free >= rcv.wnd)
    }

    /// Sends what may be sent now, and arms the timers for what may not yet.
    pub(crate) fn output(&mut self) {
        if self.is_over {
            return;
        }
        let (mut is_stopped, before) = (false, self.tcb.segs_out);
        self.prepare();
        self.search_path();
        // Each turn sends a frame or an acknowledgment: there are no more of either.
        for _ in 0..=self.frames.len() {
            self.prepare();
            let Some(plan) = self.next_segment() else { break };
            if !self.emit(&plan) {
                is_stopped = true;
                break;
            }
        }
        self.overridden = false;
        if self.tcb.segs_out != before || self.is_cwnd_full() {
            self.note_sent();
        }
        self.after_output(is_stopped);
    }

    /// Whether it should be asked for output; if not, its timers are as [`Self::output`] leaves them.
    pub(crate) fn settle(&mut self) -> bool {
        let queue = &self.traffic.send;
        let wants = queue.next_unsent().is_some()
            || queue.next_lost().is_some()
            || queue.bytes_in_blocks() != 0
            || self.is_ack_due()
            || self.lacks_fin();
        if !wants && !self.is_over {
            self.after_output(false);
        }
        wants && !self.is_over
    }

    /// Moves text from blocks to frames, and adds the FIN behind the last of it.
    fn prepare(&mut self) {
        let frames_max = self.send_frames_max();
        let shape = self.shape();
        let queue = &mut self.traffic.send;
        if queue.bytes_in_blocks() != 0 {
            queue.refill(&mut means!(self, send_charge), shape, frames_max);
        }
        if self.lacks_fin() {
            self.traffic.send.push_fin(&mut means!(self, send_charge), shape);
        }
    }

    /// Frames that one connection fills ahead of its window; the rest of what is written waits in blocks.
    pub(crate) fn send_frames_max(&self) -> u32 {
        self.tcb.congestion.cwnd().saturating_mul(2).max(16)
    }

    /// Whether the last frame of the queue has the FIN.
    pub(crate) fn is_fin_queued(&self) -> bool {
        let last = self.traffic.send.list().last().and_then(|last| self.frames.record(last));
        last.is_some_and(|record| record.has(FrameRecord::FIN))
    }

    /// Whether the user has finished, and the FIN is in no queue yet, nor was it acknowledged.
    fn lacks_fin(&self) -> bool {
        // In these states it is not acknowledged: what was sent of it is in the queue.
        let waits = matches!(self.tcb.state(), State::FinWait1 | State::Closing | State::LastAck);
        let has_queues = self.traffic.tag.is_used() && self.traffic.is_resting == 0;
        waits && self.tcb.flags.has(Tcbits::FIN_QUEUED) && has_queues && !self.is_fin_queued()
    }

    /// Whether the user has finished, and there is no queue for the FIN: it waits for one.
    pub(crate) fn lacks_queues(&self) -> bool {
        let waits = matches!(self.tcb.state(), State::FinWait1 | State::Closing | State::LastAck);
        waits && (!self.traffic.tag.is_used() || self.traffic.is_resting != 0)
    }

    /// Whether something waits for memory, and nothing is in flight whose acknowledgment would give it.
    fn is_starved(&self) -> bool {
        let queue = &self.traffic.send;
        let is_quiet = queue.sent().frames == 0 && queue.next_unsent().is_none();
        is_quiet && (queue.bytes_in_blocks() != 0 || self.lacks_fin())
    }

    /// Whether there is more to send, and cwnd is in the way.
    pub(in crate::tcp) fn is_cwnd_full(&self) -> bool {
        self.traffic.send.next_unsent().is_some()
            && (self.board().pipe() >= self.tcb.congestion.cwnd() || self.held() == Some(Held::Path))
    }

    /// What is waited for now: text that the window doesn't let go, room for the user's, or acknowledgments.
    fn note_cause(&mut self) {
        let queue = &self.traffic.send;
        let first = queue.next_unsent().and_then(|first| self.frames.record(first));
        let (chronograph, board) = (&self.traffic.chronograph, self.board());
        let is_open = board.pipe() < self.tcb.congestion.cwnd();
        // Who waits for room does so by poll(2) mostly, which nobody tells us of.
        let lacks_room = !self.may_write();
        let edge = self.tcb.snd.una + self.tcb.snd.wnd;
        let cause = match first {
            _ if queue.is_empty() => Cause::None,
            _ if chronograph.is(Cause::Buffer) && lacks_room => Cause::Buffer,
            None if lacks_room && is_open => Cause::Buffer,
            Some(first) if is_open => {
                let len = first.len.min(self.shape().mss);
                let is_beyond = edge.lt(self.tcb.snd.nxt + u32::from(len));
                if is_beyond || self.held() == Some(Held::Window) { Cause::Window } else { Cause::Path }
            }
            _ => Cause::Path,
        };
        let ms = clock_ms(self.now);
        self.traffic.chronograph.set(cause, ms, &mut self.tcb.waited);
    }

    /// The timers for what could not be sent, and for what was.
    fn after_output(&mut self, is_stopped: bool) {
        self.note_cause();
        if is_stopped || self.is_starved() {
            // The ring is full or no frame is left: in a tick completions have made room.
            self.tcb.timers.arm(Timer::Pacing, self.now + crate::time::Duration::from_millis(1));
        } else if let Some(at) =
            self.tcb.pacing.next_send(self.now).filter(|_| self.traffic.send.next_unsent().is_some())
        {
            self.tcb.timers.arm(Timer::Pacing, at);
        }
        if send::needs_probe(&self.sender()) && self.tcb.state().may_retransmit() {
            if self.tcb.timers.at(Timer::Persist).is_none() {
                self.arm_persist();
            }
        } else {
            self.tcb.timers.disarm(Timer::Persist);
            self.arm_if_idle();
        }
        self.arm_delayed_ack();
    }

    /// An acknowledgment is owed, and may wait for something that carries it.
    pub(in crate::tcp) fn arm_delayed_ack(&mut self) {
        if !self.tcb.flags.has(Tcbits::ACK_OWED) || self.tcb.timers.at(Timer::DelayedAck).is_some() {
            return;
        }
        if let Some(at) = self.tcb.delayed_ack.deadline(self.now, self.tcb.rtt.srtt(), None, false) {
            self.tcb.timers.arm(Timer::DelayedAck, at);
            self.note_armed(at);
        }
    }

    /// A timer was armed that the wheel may have to know of.
    #[inline]
    pub(in crate::tcp) fn note_armed(&mut self, at: Instant) {
        self.armed = Some(self.armed.map_or(at, |armed| armed.min(at)));
    }

    /// Reading has made room: whether the peer is to be told at once.
    pub(crate) fn needs_window_update(&self) -> bool {
        let rcv = &self.tcb.rcv;
        let may = matches!(self.tcb.state(), State::Established | State::FinWait1 | State::FinWait2);
        may && needs_update(&self.space(), rcv.nxt, rcv.nxt + rcv.wnd, rcv.wnd)
    }
}
