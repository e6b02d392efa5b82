//! Runs: frames of the send queue that leave as one packet, which the device cuts into segments again (TSO). What follows a segment
//! goes with it if it would have been the next one anyway, so that on the wire nothing tells whether a device does it, but
//! for the time: each frame is a segment in the counts, and to loss recovery.
//!
//! RFC 9293 §3.9.1.2: of what is cut only the last segment has PSH, so those within a run are collapsed (SHLD-27).

use super::emit::pacing_rate;
use super::{Plan, Text, Why};
use crate::device::{Capabilities, Device, Fragment, FrameIndex, Outgoing};
use crate::frames::FrameRecord;
use crate::sendq::SendQueue;
use crate::tcp::connection::{Connection, HEADROOM};
use crate::tcp::pacing;
use crate::tcp::recovery::ecn;
use crate::tcp::recovery::undo::CaState;
use crate::tcp::tcb::Flags as Tcbits;
use crate::tcp::window::send::{self, Sender};
use crate::wire::tcp::Flags;

/// Most frames of one packet: 64 KiB in segments of a usual size, or what Linux lets a packet have of fragments.
const FRAMES_MAX: usize = 64;
/// Most text of one packet: with its headers it is as long as a length field can say (RFC 791 §3.1).
const BYTES_MAX: u32 = (u16::MAX - HEADROOM) as u32;

/// A run waits only if the last segment was sent so lately, and the next acknowledgment comes so soon, in nanoseconds.
const HELD_MAX: u64 = 1_000_000;
/// Segments that leave in any case, where the host names no part of the window (tcp_max_tso_deferred_mss).
const HELD_SEGMENTS: u32 = 3;

/// What lets a run wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) enum Held {
    /// The congestion window.
    Path,
    /// The peer's.
    Window,
    /// The user may write more.
    User,
}

/// What leaves as one packet.
struct Run {
    fragments: [Fragment; FRAMES_MAX],
    count: usize,
    bytes: u16,
}

impl<D: Device> Connection<'_, D> {
    /// Sends the segment of a plan and those that may follow it as one packet. False if it is to leave by itself: nothing was
    /// done.
    #[inline]
    pub(super) fn emit_run(&mut self, plan: &Plan, first: FrameIndex) -> bool {
        self.capabilities().tso_bytes_max != 0
            && matches!(plan.why, Why::Text | Why::Lost)
            && self.run(plan, first).is_some_and(|mut run| self.transmit_run(plan, &mut run))
    }

    /// Whether text waits although a part of it may leave: its run would be short, and the next acknowledgment, which lets a
    /// longer one go, is due at once (tcp_tso_should_defer). Something is in flight then, and timers run for it.
    pub(in crate::tcp) fn held(&self) -> Option<Held> {
        let unsent = if self.capabilities().tso_bytes_max == 0 { 0 } else { self.unsent() };
        let mss = self.shape().mss;
        if unsent <= mss.into() || self.tcb.episode.state() >= CaState::Recovery {
            return None;
        }
        let (send, board, cwnd) = (&self.traffic.send, self.board(), self.tcb.congestion.cwnd());
        let sent_at = |frame: Option<FrameIndex>| Some(self.frames.record(frame?)?.sent_at);
        let first = sent_at(send.list().first()).filter(|_| board.packets_out != 0)?;
        if self.now.0.saturating_sub(sent_at(send.flight().last())?) > HELD_MAX {
            return None;
        }
        let in_flight = self.tcb.snd.nxt - self.tcb.snd.una;
        let by_window = self.tcb.snd.wnd.saturating_sub(in_flight);
        let by_path = cwnd.saturating_sub(board.pipe()).saturating_mul(mss.into());
        let limit = by_window.min(by_path);
        let window = self.tcb.snd.wnd.min(cwnd.saturating_mul(mss.into()));
        let srtt = self.tcb.rtt.srtt()?.0;
        let acknowledged_in = (first + srtt).saturating_sub(self.now.0);
        let leaves = match self.host.tcp_tso_win_divisor {
            0 => limit > HELD_SEGMENTS * u32::from(mss),
            divisor => limit >= window / divisor,
        };
        if leaves || acknowledged_in > (srtt / 2).min(HELD_MAX) {
            return None;
        }
        let run = self.run_max(mss);
        let len = unsent.min(run);
        if limit >= run {
            None
        } else if by_path < by_window && by_path <= len {
            Some(Held::Path)
        } else if by_path >= by_window && by_window <= len {
            Some(Held::Window)
        } else {
            (!self.tcb.flags.has(Tcbits::FIN_QUEUED)).then_some(Held::User)
        }
    }

    /// Most bytes of a run of segments of this size (tcp_tso_autosize).
    fn run_max(&self, mss: u16) -> u32 {
        let most = self.capabilities().tso_bytes_max.min(BYTES_MAX);
        pacing::burst(pacing_rate(self), mss, self.tcb.rtt.min_rtt(), most, self.host.tcp_min_tso_segs)
            .min(most)
    }

    /// The frames that leave with this one, if there are any.
    fn run(&self, plan: &Plan, first: FrameIndex) -> Option<Run> {
        let record = self.frames.record(first)?;
        let is_whole = match plan.text {
            Text::New(_, len) => len == record.len,
            // What is longer than a segment is cut first.
            _ => record.len <= self.shape().mss,
        };
        let is_alone = record.next == 0 || !is_whole;
        // A pointer to urgent data, CWR, and the names of fragments are each segment's own; what waits for a neighbour is a copy.
        let is_plain = !self.tcb.flags.has(Tcbits::SEND_URGENT)
            && !self.tcb.episode.ecn.owes_reduced()
            && self.hop.is_open()
            && !self.hop.may_fragment;
        if is_alone || !is_plain {
            return None;
        }
        let window = self.tcb.congestion.cwnd().saturating_sub(self.board().pipe()) as usize;
        let fragments_max = usize::from(self.capabilities().fragments_max).min(self.device.transmit_room());
        let count_max = FRAMES_MAX.min(fragments_max).min(window);
        let bytes_max = self.run_max(record.len);
        let mut run = Run { fragments: [Fragment::default(); FRAMES_MAX], count: 0, bytes: 0 };
        let (to, sender) = (run.fragments.get_mut(..count_max)?, self.sender());
        let edge = self.tcb.snd.una + self.tcb.snd.wnd;
        // The last segment is not full: it may have room to report what arrived behind a gap.
        let reports = !self.traffic.reassembly.is_empty() || self.traffic.reassembly.has_duplicate();
        let (count, bytes) = SendQueue::run(&self.frames, first, bytes_max, to, |next, before| {
            let leaves = match plan.text {
                Text::New(..) => sends_whole(&sender, next.len, before),
                _ => before == 0 || next.end().le(edge),
            };
            leaves && (next.len == record.len || !reports)
        });
        (run.count, run.bytes) = (count, bytes as u16);
        (count > 1).then_some(run)
    }

    fn transmit_run(&mut self, plan: &Plan, run: &mut Run) -> bool {
        let (count, fragments) = (run.count as u16, &mut run.fragments[..run.count]);
        let [head, .., tail] = fragments else { return false };
        let (head, tail) = (self.frames.record(head.frame).copied(), self.frames.record(tail.frame).copied());
        let (Some(first), Some(last)) = (head, tail) else { return false };
        let is_new = matches!(plan.text, Text::New(..));
        // One segment with the text of all, as the device is to see it.
        let all = FrameRecord { len: run.bytes, flags: last.flags, ..first };
        let what = if is_new { ecn::Outgoing::NewText } else { ecn::Outgoing::Again };
        let head = self.head_of(plan, &all, what);
        // Who cuts sums each segment, whatever else he does.
        let capabilities = Capabilities { checksum_out: true, ..self.capabilities() };
        let written = self
            .device
            .bytes_mut(fragments[0].frame)
            .and_then(|bytes| head.write(bytes, (first.offset, all.len), None, &self.hop, &capabilities));
        let Some(written) = written else { return false };
        let ready = fragments.iter().take_while(|fragment| self.frames.send(fragment.frame)).count();
        fragments[0] = Fragment { offset: written.offset, len: written.len + first.len, ..fragments[0] };
        let packet = Outgoing { fragments, checksum: written.checksum, gso_size: first.len };
        if ready < fragments.len() || self.device.send(&packet).is_err() {
            for fragment in &fragments[..ready] {
                self.frames.unsend(fragment.frame);
            }
            return false;
        }
        self.hop.is_used = true;
        if is_new {
            self.sent_new(count, &all, last.len);
        } else {
            for fragment in fragments.iter() {
                self.traffic.send.mark_retransmitted(&mut self.frames, fragment.frame, self.now);
                self.stamp(Some(fragment.frame));
            }
            self.sent_again(count, all.len);
        }
        self.sent_as(count, head.flags.has(Flags::ACK));
        true
    }
}

/// Whether a frame's whole text would be the next segment, once so many bytes before it were sent.
fn sends_whole(sender: &Sender, len: u16, before: u32) -> bool {
    let queued = sender.queued.saturating_sub(before);
    let next = send::next_len(&Sender { nxt: sender.nxt + before, queued, ..*sender });
    next.is_some_and(|next| next >= len.into())
}
