//! Runs: frames of the send queue that leave as one packet, which the device cuts into segments again (TSO). What follows a segment
//! goes with it if it would have been the next one anyway, so that on the wire nothing tells whether a device does it, but
//! for the time: each frame is a segment in the counts, and to loss recovery.
//!
//! RFC 9293 §3.9.1.2: of what is cut only the last segment has PSH, so those within a run are collapsed (SHLD-27).

use super::emit::pacing_rate;
use super::{Plan, Text, Why};
use crate::device::{Device, Fragment, FrameIndex, Outgoing};
use crate::frames::FrameRecord;
use crate::sendq::SendQueue;
use crate::tcp::connection::{Connection, HEADROOM};
use crate::tcp::pacing;
use crate::tcp::recovery::ecn;
use crate::tcp::tcb::Flags as Tcbits;
use crate::tcp::window::send::{self, Sender};
use crate::wire::tcp::Flags;

/// Most frames of one packet: 64 KiB in segments of a usual size, or what Linux lets a packet have of fragments.
const FRAMES_MAX: usize = 64;
/// Most text of one packet: with its headers it is as long as a length field can say (RFC 791 §3.1).
const BYTES_MAX: u32 = (u16::MAX - HEADROOM) as u32;

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
        let device = self.capabilities();
        if is_alone || !is_plain || !device.checksum_out {
            return None;
        }
        let window = self.tcb.congestion.cwnd().saturating_sub(self.board().pipe()) as usize;
        let fragments_max = usize::from(device.fragments_max).min(self.device.transmit_room());
        let count_max = FRAMES_MAX.min(fragments_max).min(window);
        let most = device.tso_bytes_max.min(BYTES_MAX);
        let bytes_max = pacing::burst(pacing_rate(self), record.len, self.tcb.rtt.min_rtt(), most).min(most);
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
        let capabilities = self.capabilities();
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
