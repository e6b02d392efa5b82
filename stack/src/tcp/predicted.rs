//! Header prediction: what almost every segment and every call on an established connection is, done in a straight line.
//!
//! A connection is *predictable* ([`Flags::PREDICTED`]) as long as nothing about it is rare: ESTABLISHED, nothing lost, nothing
//! behind a gap, nothing in blocks, nothing owed but an acknowledgment. That is found out once, after each work that
//! takes the long way, so that here it is one bit. What these functions do is what the steps in [`super::input`], [`super::loss`] and
//! [`super::output`] do in such a state, no more and no less: a property test runs the same packets and calls both ways.

use super::connection::{Connection, SEND_BYTES_MIN, clock_ms, means};
use super::open::traffic::Want;
use super::output::emit::{give, hops};
use super::output::header::Written;
use super::output::plain::Plain;
use super::rate::Newest;
use super::recovery::rack::Segment as Sent;
use super::recovery::tlp::{self, Flight};
use super::recovery::undo::CaState;
use super::rtt::{Bounds, RTO_MIN};
use super::state::State;
use super::tcb::{Flags, Tcb};
use super::timers::Timer;
use crate::device::{Device, FrameIndex};
use crate::error::Error;
use crate::events;
use crate::frames::FrameRecord;
use crate::frames::pool::Purpose;
use crate::ip::hop::Hop;
use crate::recover::Operation;
use crate::region::slab::Handle;
use crate::sendq::Shape;
use crate::seq::Seq;
use crate::settings::Discovery;
use crate::stack::Stack;
use crate::time::Instant;
use crate::wire::checksum::Sum;
use crate::wire::tcp::Flags as Bits;

/// What no predictable connection has: each of them asks for a step of its own.
const RARE: Flags = Flags(
    Flags::ECN.0
        | Flags::ECHO_CONGESTION.0
        | Flags::WINDOW_REDUCED.0
        | Flags::CORK.0
        | Flags::ACK_NOW.0
        | Flags::FIN_QUEUED.0
        | Flags::RECEIVE_SHUT.0
        | Flags::SEND_URGENT.0
        | Flags::RECEIVE_URGENT.0
        | Flags::ORPHAN.0,
);

/// A segment as it is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// SEG.SEQ.
    pub(crate) seq: Seq,
    /// SEG.ACK.
    pub(crate) ack: Seq,
    /// SEG.WND, not scaled.
    pub(crate) window: u16,
    /// PSH.
    pub(crate) push: bool,
    /// TSval and TSecr.
    pub(crate) stamps: (u32, u32),
    /// Where its text begins in the frame.
    pub(crate) offset: u16,
    /// Bytes of text.
    pub(crate) text: u16,
}

impl Expected {
    /// Whether it is the next segment of this connection and brings no news but text and an acknowledgment of what was sent.
    #[inline]
    pub(crate) fn is_expected(&self, tcb: &Tcb, now: Instant) -> bool {
        let (flight, acked) = (tcb.snd.nxt - tcb.snd.una, self.ack - tcb.snd.una);
        tcb.flags.has(Flags::PREDICTED)
            && self.seq == tcb.rcv.nxt
            && u32::from(self.text) <= tcb.rcv.wnd
            && acked <= flight
            // An acknowledgment alone that acknowledges nothing is a duplicate, or tells of the window.
            && (acked != 0 || self.text != 0)
            && tcb.recent.is_acceptable(now, self.stamps.0, false)
    }
}

impl<D: Device> Connection<'_, D> {
    /// Whether the next segment and the next calls may go the short way.
    pub(crate) fn is_predictable(&self) -> bool {
        let (tcb, traffic) = (&*self.tcb, &*self.traffic);
        let send = &traffic.send;
        tcb.state() == State::Established
            && tcb.flags.0 & RARE.0 == 0
            && tcb.flags.has(Flags::SACK | Flags::TIMESTAMPS)
            && tcb.error == 0
            && tcb.episode.state() == CaState::Open
            && send.lost().frames | send.sacked().frames | send.retransmitted().frames == 0
            && traffic.reassembly.is_empty()
            && !traffic.reassembly.has_duplicate()
            && traffic.rack.tlp_end_seq().is_none()
            && traffic.only_new == 0
            && !traffic.search.is_busy()
            && traffic.has_fin == 0
            && tcb.peek_from == 0
            && self.values.max_pacing_rate == 0
            && self.bounds() == Bounds::default()
            && matches!(self.values.discovery(true), Discovery::Want | Discovery::Do)
            && self.values.receive_low_water <= 1
            && self.values.unsent_low_water == 0
    }

    /// Takes such a segment, and its text out of the frame. Whether it should be asked for output.
    #[inline]
    pub(crate) fn expected_arrives(&mut self, seg: &Expected, frame: FrameIndex) -> bool {
        let tcb = &mut *self.tcb;
        tcb.segs_in = tcb.segs_in.wrapping_add(1);
        tcb.recent.update(self.now, seg.stamps.0, seg.seq, tcb.rcv.last_ack_sent);
        tcb.last_ack_received = clock_ms(self.now);
        tcb.probes = 0;
        let wnd = super::window::unscaled(seg.window, tcb.snd_shift(), false);
        self.update_window(seg.seq, seg.ack, wnd);
        if self.tcb.snd.una != seg.ack {
            self.expected_ack(seg.ack);
        } else {
            self.traffic.rack.on_ack(false, self.tcb.snd.una, self.tcb.snd.nxt);
        }
        let is_taken =
            if seg.text == 0 { self.frames.discard(frame) } else { self.expected_text(seg, frame) };
        let wants_output = self.has_unsent() || !is_taken || seg.text != 0 && self.is_ack_due();
        if !wants_output {
            self.arm_delayed_ack();
        }
        wants_output
    }

    /// Whether something waits to be sent.
    #[inline]
    fn has_unsent(&self) -> bool {
        let send = &self.traffic.send;
        send.next_unsent().is_some() || send.bytes_in_blocks() != 0
    }

    /// What [`super::loss`] does for an acknowledgment of segments of which none was lost, reported or sent twice.
    fn expected_ack(&mut self, ack: Seq) {
        let (mut newest, mut stamp, mut acked) = (None, None, 0);
        self.traffic.send.acknowledge(&mut means!(self, send_charge), ack, |record| {
            newest = Some((Instant(record.sent_at), record.end()));
            // None was sent twice: the last is the newest.
            if record.delivered_at != 0 && record.end() == ack {
                stamp = Newest::newer(None, record);
            }
            acked += 1;
        });
        let (una, nxt) = (ack, self.tcb.snd.nxt);
        self.tcb.acked = self.tcb.acked.wrapping_add((una - self.tcb.snd.una).into());
        self.tcb.snd.una = una;
        (self.tcb.retransmits, self.traffic.stalled_since) = (0, 0);
        let mut rtt = None;
        if let Some((sent_at, end)) = newest {
            let min_rtt = self.tcb.rtt.min_rtt();
            let sent = Sent { sent_at, end, retransmitted: false };
            self.traffic.rack.update(self.now, &sent, min_rtt, false);
            self.traffic.fack = self.traffic.rack.detect_reordering(&sent, self.traffic.fack);
            let sample = self.now - sent_at;
            self.tcb.rtt.sample_min(self.now, sample, acked == 1);
            self.tcb.rtt.sample(sample, una, nxt, &Bounds::default());
            rtt = Some(sample);
        }
        self.tcb.delivered = self.tcb.delivered.wrapping_add(acked);
        // What went the short way has no stamp: it was less than the path takes.
        match stamp {
            None => self.traffic.delivery.note(self.now),
            stamp => self.sample_rate(stamp),
        }
        self.traffic.rack.on_ack(false, una, nxt);
        if self.tcb.congestion.is_cwnd_limited() || self.tcb.congestion.watches_rate() {
            self.grow_window(acked, rtt);
        }
        if self.traffic.send.sent().frames == 0 {
            for timer in [Timer::Rto, Timer::Tlp, Timer::Reorder] {
                self.tcb.timers.disarm(timer);
            }
            if !self.has_unsent() {
                let ms = clock_ms(self.now);
                self.traffic.chronograph.end(ms, &mut self.tcb.waited);
            }
        } else if acked != 0 {
            self.arm_probe();
        }
    }

    /// [`Self::arm`], when nothing is lost: a probe comes before the timeout.
    #[inline]
    fn arm_probe(&mut self) {
        let flight =
            Flight { sack: true, open: true, packets_out: self.traffic.send.sent().frames, sacked_out: 0 };
        debug_assert!(
            self.traffic.rack.may_probe(&flight),
            "a connection with a probe in flight is not predictable"
        );
        let rto_at = self.now + self.rto();
        let at = tlp::pto(self.now, self.tcb.rtt.srtt(), flight.packets_out, rto_at);
        self.tcb.timers.arm(Timer::Tlp, at);
        self.note_armed(at);
    }

    /// The text is the next in order. Whether it was kept.
    #[inline]
    fn expected_text(&mut self, seg: &Expected, frame: FrameIndex) -> bool {
        if !self.frames.set_text(frame, seg.seq, seg.offset, seg.text) {
            self.frames.discard(frame);
            return false;
        }
        self.tcb.data_segs_in = self.tcb.data_segs_in.wrapping_add(1);
        self.take_in_order(frame, seg.text, seg.push, Some(seg.stamps))
    }
}

/// The calls.
impl<D: Device> Connection<'_, D> {
    /// Sends text that is one segment and may leave now; false if that isn't so, and nothing was done.
    #[inline]
    fn send_at_once(&mut self, text: &[&[u8]], len: usize) -> bool {
        let shape = self.shape();
        let (tcb, queue) = (&*self.tcb, &self.traffic.send);
        let flight = tcb.snd.nxt - tcb.snd.una;
        let is_full = len == usize::from(shape.mss);
        let small_in_flight = tcb.snd.una.lt(self.traffic.small) && self.traffic.small.le(tcb.snd.nxt);
        let may = len != 0
            && len <= shape.mss.into()
            && !self.has_unsent()
            && (is_full || flight == 0 || tcb.flags.has(Flags::NO_DELAY) || !small_in_flight)
            && flight as usize + len <= tcb.snd.wnd as usize
            && queue.sent().frames < tcb.congestion.cwnd()
            // Far from where the buffer's end is told to the user.
            && self.values.send_buffer == 0
            && flight as usize + len < ALWAYS_WRITABLE;
        may && self.emit_at_once(text, len as u16, shape)
    }

    fn emit_at_once(&mut self, text: &[&[u8]], len: u16, shape: Shape) -> bool {
        let Ok(frame) = self.frames.take_data(&mut self.tcb.send_charge, self.index) else { return false };
        let is_sent = self.fill_and_transmit(frame, text, len, shape);
        if !is_sent {
            self.frames.release(frame, &mut self.tcb.send_charge);
            return false;
        }
        if self.traffic.send.sent().frames == 0 {
            self.traffic.chronograph.begin(clock_ms(self.now));
            self.traffic.delivery.begin(self.now);
            self.restart();
        }
        self.traffic.send.push_sent(&mut self.frames, frame, self.now);
        let tcb = &mut *self.tcb;
        tcb.snd.nxt = tcb.snd.nxt + u32::from(len);
        tcb.data_segs_out = tcb.data_segs_out.wrapping_add(1);
        tcb.last_data_sent = clock_ms(self.now);
        tcb.delayed_ack.on_text_sent(self.now);
        if len < shape.mss {
            self.traffic.small = tcb.snd.nxt;
        }
        self.sent(true);
        let (una, nxt, sent) = (self.tcb.snd.una, self.tcb.snd.nxt, self.traffic.send.sent().frames);
        if self.tcb.congestion.is_underused(self.now, una, nxt, sent, false, RTO_MIN) {
            self.note_sent();
        }
        let (tlp, place) = (Timer::Tlp, &self.tcb.timers);
        if place.at(tlp).is_none() && place.at(Timer::Rto).is_none() && place.at(Timer::Reorder).is_none() {
            self.arm_probe();
        }
        true
    }

    /// Sends an acknowledgment alone.
    fn acknowledge_at_once(&mut self) -> bool {
        let Some(frame) = self.frames.take(Purpose::Control) else { return false };
        let begin = self.shape().headroom.into();
        let is_sent = self
            .write_plain(frame, begin, Bits::ACK, (0, 0))
            .is_some_and(|written| give(&mut self.frames, self.device, frame, &written, 0));
        if is_sent {
            self.sent(true);
        } else {
            self.frames.discard(frame);
        }
        is_sent
    }

    /// Writes the headers before text that begins there and has this sum and length.
    #[inline]
    fn write_plain(
        &mut self,
        frame: FrameIndex,
        begin: usize,
        flags: Bits,
        text: (u16, u16),
    ) -> Option<Written> {
        let (window, capabilities) = (self.advertise(), self.capabilities());
        let (ttl, tos) = hops(self.values, &self.tcb.remote);
        let head = Plain {
            local: (&self.tcb.local, self.tcb.local_port),
            remote: (&self.tcb.remote, self.tcb.remote_port),
            seq: self.tcb.snd.nxt,
            ack: self.tcb.rcv.nxt,
            flags,
            window,
            stamps: (self.tsval(), self.tcb.recent.echo()),
            ttl,
            tos,
            text,
        };
        self.device.bytes_mut(frame).and_then(|bytes| head.write(bytes, begin, &self.hop, &capabilities))
    }

    /// Copies the text into the frame, writes the headers before it and gives it to the device.
    fn fill_and_transmit(&mut self, frame: FrameIndex, text: &[&[u8]], len: u16, shape: Shape) -> bool {
        let begin = usize::from(shape.headroom);
        let Some(to) =
            self.device.bytes_mut(frame).and_then(|bytes| bytes.get_mut(begin..begin + usize::from(len)))
        else {
            return false;
        };
        let (mut sum, mut at) = (Sum::ZERO, 0);
        for piece in text {
            sum = sum.copy(piece, &mut to[at..]);
            at += piece.len();
        }
        let sum = sum.fold();
        let Some(record) = self.frames.record_mut(frame) else { return false };
        (record.seq, record.offset, record.len) = (self.tcb.snd.nxt.0, shape.headroom, len);
        (record.flags, record.mate) = (FrameRecord::PUSH | FrameRecord::SUMMED, sum.into());
        let Some(written) = self.write_plain(frame, begin, Bits::ACK | Bits::PSH, (sum, len)) else {
            return false;
        };
        give(&mut self.frames, self.device, frame, &written, len)
    }
}

/// Bytes that leave a third of the smallest send buffer free.
const ALWAYS_WRITABLE: usize = (SEND_BYTES_MIN - SEND_BYTES_MIN / 3) as usize;

impl<D: Device> Stack<'_, '_, D> {
    /// A connection whose calls may take the short way.
    #[inline]
    fn predictable(&mut self, socket: Handle) -> Result<bool, Error> {
        Ok(self.parts.tcb(socket)?.flags.has(Flags::PREDICTED))
    }

    /// send(2), if all of it is one segment that may leave now.
    #[inline]
    pub(super) fn predicted_send(
        &mut self,
        socket: Handle,
        text: &[&[u8]],
        more: bool,
    ) -> Result<Option<usize>, Error> {
        let Tcb { flags, traffic, .. } = *self.parts.tcb(socket)?;
        if more || !flags.has(Flags::PREDICTED) {
            return Ok(None);
        }
        let len = text.iter().map(|piece| piece.len()).sum();
        if !self.parts.tcp_has_queues(traffic, Want::Sending)
            && self.parts.tcp_traffic(socket, Want::Sending).is_err()
        {
            return Ok(None);
        }
        let Some(hop) = self.plain_hop(socket.index) else { return Ok(None) };
        self.parts.intent.begin(Operation::Tcp, socket.index);
        let mut spare = None;
        let mut connection = self.connection(socket, &mut spare, hop)?;
        let is_sent = connection.send_at_once(text, len);
        if is_sent {
            let armed = connection.armed;
            self.arm_wheel_at(socket.index, armed);
        }
        self.parts.intent.end();
        Ok(is_sent.then_some(len))
    }

    /// What a connection sends after a burst, or when its user has read: mostly an acknowledgment and nothing else.
    pub(crate) fn predicted_output(&mut self, socket: Handle) {
        if !matches!(self.acknowledged_at_once(socket), Ok(true)) {
            self.output(socket);
        }
    }

    fn acknowledged_at_once(&mut self, socket: Handle) -> Result<bool, Error> {
        let Some(hop) = self.plain_hop(socket.index).filter(|_| self.sending_is_quiet()) else {
            return Ok(false);
        };
        if !self.predictable(socket)? {
            return Ok(false);
        }
        self.parts.intent.begin(Operation::Tcp, socket.index);
        let mut spare = None;
        let mut connection = self.connection(socket, &mut spare, hop)?;
        let is_sent = !connection.has_unsent() && connection.is_ack_due() && connection.acknowledge_at_once();
        if is_sent && connection.traffic.receive.is_empty() {
            self.parts.tcp_rest(socket)?;
        }
        self.parts.intent.end();
        Ok(is_sent)
    }

    /// Whether nobody waits for queues.
    const fn sending_is_quiet(&self) -> bool {
        self.parts.sending.first == 0
    }

    /// recv(2), if there is something to read and it has no consequence that the peer is to be told.
    #[inline]
    pub(super) fn predicted_receive(
        &mut self,
        socket: Handle,
        to: &mut [&mut [u8]],
    ) -> Result<Option<usize>, Error> {
        let Tcb { flags, traffic, .. } = self.parts.tcb(socket)?;
        if !flags.has(Flags::PREDICTED) {
            return Ok(None);
        }
        let traffic = traffic.checked_sub(1).and_then(|index| self.parts.traffics.get(index as usize));
        // Who spins asks again and again.
        if traffic.is_none_or(|traffic| traffic.receive.is_empty()) {
            let is_asked = to.iter().any(|piece| !piece.is_empty());
            return if is_asked { Err(Error::WouldBlock) } else { Ok(None) };
        }
        self.parts.intent.begin(Operation::Tcp, socket.index);
        let mut spare = None;
        let mut connection = self.connection(socket, &mut spare, Hop::default())?;
        let done = connection.read(to, usize::MAX);
        if done == 0 {
            self.parts.intent.end();
            return Ok(None);
        }
        connection.note_reading();
        let (is_empty, is_due) = (connection.traffic.receive.is_empty(), connection.is_ack_due());
        // An answer brings the acknowledgment, and needs the queues.
        let is_quiet = !connection.tcb.flags.has(Flags::ACK_OWED);
        if is_empty && let Some(word) = self.shared.tcp_events.get(socket.index as usize) {
            events::end_readable(word);
        }
        if is_due {
            self.predicted_output(socket);
        } else if is_empty && is_quiet {
            self.parts.tcp_rest(socket)?;
        }
        self.parts.intent.end();
        Ok(Some(done))
    }
}
