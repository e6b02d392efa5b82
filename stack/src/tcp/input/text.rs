//! "Seventh, process the segment text".

use core::ops::ControlFlow::{self, Break, Continue};

use super::{Flags, Segment, Stop, Tcbits};
use crate::device::{Device, FrameIndex};
use crate::error::Error;
use crate::frames::linked;
use crate::reassembly::Dropped;
use crate::stats::Counter;
use crate::tcp::connection::{Connection, RECEIVE_FRAMES_MAX, bounds, means};
use crate::tcp::window;
use crate::time::Duration;

/// Frames that text behind a gap gives back when text in order has none (tcp_prune_ofo_queue).
const PRUNED: u32 = 8;

/// Bytes of the smallest segment that lets the window grow (tcp_event_data_recv).
const GROWS_OFFER: u16 = 128;
/// Segments that are offered at most when what was offered found no room (tcp_clamp_window).
const OFFER_CLAMPED: u32 = 2;

impl<D: Device> Connection<'_, D> {
    /// "Seventh, process the segment text".
    pub(super) fn seventh_process_text(&mut self, seg: &mut Segment) -> ControlFlow<Stop> {
        let Some(frame) = seg.frame.filter(|_| seg.text > 0 && self.tcb.state().may_receive()) else {
            return Continue(());
        };
        if self.tcb.flags.has(Tcbits::ORPHAN) {
            // RFC 9293 §3.6.1 (SHLD-3): data that nobody will read: "it SHOULD send a RST to show that data was lost".
            self.count(Counter::OrphansAborted);
            self.fail(Error::ConnectionReset);
            return Break(Stop::Reset);
        }
        self.take_text_in(seg, frame)
    }

    /// The text of a SYN.
    pub(super) fn take_text_of_syn(&mut self, seg: &mut Segment) -> ControlFlow<Stop> {
        let Some(frame) = seg.frame.filter(|_| seg.text > 0) else { return Continue(()) };
        self.take_text_in(seg, frame)
    }

    fn take_text_in(&mut self, seg: &mut Segment, frame: FrameIndex) -> ControlFlow<Stop> {
        // A socket without queues gets none while all of them are in use.
        if !self.traffic.tag.is_used() {
            return Break(Stop::Drop);
        }
        seg.frame = None;
        let Some(frame) = self.frames.lay_out(frame, seg.seq, seg.offset, seg.text) else {
            return Break(Stop::Drop);
        };
        let segments = seg.count(self.tcb.advertised_mss);
        self.tcb.data_segs_in = self.tcb.data_segs_in.wrapping_add(segments);
        if seg.seq == self.tcb.rcv.nxt { self.in_order(seg, frame) } else { self.behind_a_gap(seg, frame) }
    }

    fn in_order(&mut self, seg: &Segment, frame: FrameIndex) -> ControlFlow<Stop> {
        let charge = self.tcb.receive_charge;
        if charge.frames >= charge.limit && !self.traffic.reassembly.is_empty() {
            self.traffic.reassembly.prune(&mut means!(self, receive_charge), PRUNED);
        }
        let stamps = seg.options.timestamps.filter(|_| self.tcb.flags.has(Tcbits::TIMESTAMPS));
        let stamps = stamps.map(|stamps| (stamps.tsval, stamps.tsecr));
        let before = self.tcb.receive_charge.frames;
        let kept = self.push(frame);
        if kept < seg.text {
            self.no_room();
        }
        if kept == 0 {
            return Break(Stop::Drop);
        }
        let size = seg.size(self.tcb.advertised_mss);
        self.taken((kept, size), before, seg.is(Flags::PSH) && kept == seg.text, stamps);
        if !self.traffic.reassembly.is_empty() {
            let nxt = self.tcb.rcv.nxt;
            let (list, next) = self.traffic.reassembly.take_in_order(&mut means!(self, receive_charge), nxt);
            self.traffic.receive.append(&mut self.frames, list);
            self.advance(next - nxt);
            // RFC 5681 §4.2: "a TCP receiver SHOULD send an immediate ACK when the incoming segment fills in all or part of a
            // gap in the sequence space."
            self.owe_ack(true);
        }
        Continue(())
    }

    /// Text that follows what was received: into the queue, or dropped if there is no memory for it. Whether it was kept.
    #[inline]
    pub(in crate::tcp) fn take_in_order(
        &mut self,
        frame: FrameIndex,
        len: u16,
        push: bool,
        stamps: Option<(u32, u32)>,
    ) -> bool {
        let before = self.tcb.receive_charge.frames;
        if self.traffic.receive.push(&mut means!(self, receive_charge), frame).is_err() {
            self.no_room();
            return false;
        }
        self.taken((len, len), before, push, stamps);
        true
    }

    /// A packet's text into the queue, frame by frame, as far as there is memory for it; how many bytes.
    fn push(&mut self, first: FrameIndex) -> u16 {
        let (mut at, mut kept) = (Some(first), 0);
        for _ in 0..self.frames.len() {
            let Some((frame, record)) = at.and_then(|frame| Some((frame, self.frames.record(frame)?))) else {
                break;
            };
            let len = record.len;
            at = linked(record.next);
            if self.traffic.receive.push(&mut means!(self, receive_charge), frame).is_err() {
                at.inspect(|rest| self.frames.discard_packet(*rest));
                break;
            }
            kept += len;
        }
        kept
    }

    /// Text was dropped for want of memory. Told at once, the peer learns that the window is smaller than it was.
    fn no_room(&mut self) {
        self.count(Counter::FramesShort);
        self.clamp_offer();
        self.owe_ack(true);
    }

    /// So much text is in the queue, which had so many frames before, of segments of this size.
    #[inline]
    fn taken(&mut self, (len, size): (u16, u16), before: u32, push: bool, stamps: Option<(u32, u32)>) {
        self.advance(len.into());
        let (wnd, rtt) = (self.tcb.rcv.wnd, self.tcb.rtt);
        let (values, host, route) = (self.values, self.host, self.tcb.timers.rto_min_ms);
        let rto = || rtt.rto(&bounds(values, host, route));
        self.tcb.delayed_ack.on_text(self.now, size, push, wnd, rto);
        self.measure_reader(size, stamps);
        if len >= GROWS_OFFER {
            self.grow_offer(len, self.tcb.receive_charge.frames.saturating_sub(before));
        }
        self.owe_ack(false);
        self.arrived = true;
    }

    /// Text that has taken so many frames lets more be offered, unless memory is short (tcp_grow_window).
    fn grow_offer(&mut self, len: u16, frames: u32) {
        let (space, share, mss) = (self.space(), self.frame_share(), self.tcb.advertised_mss);
        if space.offer_max < space.full && !self.frames.pool.is_under_pressure() {
            let (charge, most) = (frames.saturating_mul(2 * share), RECEIVE_FRAMES_MAX.saturating_mul(share));
            self.tcb.offer = window::grown_offer(&space, len.into(), charge, mss, most).max(1);
        }
    }

    /// Text found no room in spite of its having been offered (tcp_clamp_window).
    fn clamp_offer(&mut self) {
        self.tcb.offer = (OFFER_CLAMPED * u32::from(self.tcb.advertised_mss)).max(1);
    }

    /// RCV.NXT moves, and the right edge of the window does not.
    fn advance(&mut self, octets: u32) {
        let rcv = &mut self.tcb.rcv;
        rcv.nxt = rcv.nxt + octets;
        rcv.wnd = rcv.wnd.saturating_sub(octets);
        self.tcb.received = self.tcb.received.wrapping_add(octets.into());
    }

    fn behind_a_gap(&mut self, seg: &Segment, frame: FrameIndex) -> ControlFlow<Stop> {
        let segments = seg.count(self.tcb.advertised_mss) as u16;
        self.tcb.rcv_ooopack = self.tcb.rcv_ooopack.saturating_add(segments);
        let kept = self.insert(frame);
        self.count(match kept {
            Ok(()) => Counter::OutOfOrder,
            Err(Dropped::Duplicate) => Counter::Duplicates,
            Err(Dropped::Runs | Dropped::Memory(_)) => Counter::OutOfOrderDropped,
        });
        if matches!(kept, Err(Dropped::Memory(_))) {
            self.clamp_offer();
        }
        // RFC 5681 §4.2: "Out-of-order data segments SHOULD be acknowledged immediately".
        let wnd = self.tcb.rcv.wnd;
        self.tcb.delayed_ack.be_quick(wnd);
        self.owe_ack(true);
        Continue(())
    }

    /// A packet's text into the out-of-order queue, frame by frame: kept if any of it is. The first frame that there is no
    /// memory for ends it.
    fn insert(&mut self, first: FrameIndex) -> Result<(), Dropped> {
        let (mut at, mut kept) = (Some(first), Err(Dropped::Duplicate));
        for _ in 0..self.frames.len() {
            let Some(frame) = at else { break };
            at = self.frames.next(frame);
            match self.traffic.reassembly.insert(&mut means!(self, receive_charge), frame) {
                Ok(()) => kept = Ok(()),
                Err(Dropped::Duplicate) => {}
                Err(dropped) => {
                    at.inspect(|rest| self.frames.discard_packet(*rest));
                    return Err(dropped);
                }
            }
        }
        kept
    }

    /// How long a round trip is for a receiver (tcp_rcv_rtt_measure).
    fn measure_reader(&mut self, len: u16, stamps: Option<(u32, u32)>) {
        match stamps {
            Some((_, tsecr)) if tsecr != 0 && len >= self.tcb.delayed_ack.rcv_mss() => {
                let ms = self.tsval().wrapping_sub(tsecr);
                if ms <= u32::MAX / 2 {
                    self.tcb.autotune.sample(Duration::from_millis(u64::from(ms.max(1))));
                }
            }
            Some(_) => {}
            None => {
                let rcv = self.tcb.rcv;
                self.tcb.autotune.on_text(self.now, rcv.nxt, rcv.wnd);
            }
        }
    }
}
