//! A plan becomes a packet: the headers are written, the device takes the frame, and the connection knows that it was sent.

use super::header::{Head, Written};
use super::{Plan, Text, Why};
use crate::device::{Device, Fragment, FrameIndex, Outgoing};
use crate::frames::pool::Purpose;
use crate::frames::state::State as Place;
use crate::frames::{FrameRecord, Frames};
use crate::ip::hop::Hop;
use crate::sendq::{SendQueue, text_sum};
use crate::settings::Values;
use crate::stats::Counter;
use crate::tcp::congestion::initial_window;
use crate::tcp::connection::{Connection, clock_ms, means};
use crate::tcp::recovery::ecn::{self, Ecn};
use crate::tcp::recovery::undo::CaState;
use crate::tcp::state::State;
use crate::tcp::tcb::Flags as Tcbits;
use crate::tcp::timers::Timer;
use crate::tcp::{pacing, window};
use crate::time::Duration;
use crate::wire::ip::Ip;
use crate::wire::tcp::options::{Blocks, Cookie, Options};
use crate::wire::tcp::{Flags, Header};

/// Time to live, if the user sets none (net.ipv4.ip_default_ttl).
const TTL: u8 = 64;
/// ECT(0) (RFC 3168 §5).
const ECT_0: u8 = 2;

/// Time to live and type of service of what a socket sends towards this address.
pub(crate) fn hops(values: &Values, remote: &Ip) -> (u8, u8) {
    if remote.is_v4() {
        (if values.ttl == 0 { TTL } else { values.ttl }, values.tos & !3)
    } else {
        (values.hop_limit(), values.traffic_class & !3)
    }
}

/// Gives a packet whose text is in `frame` to the device. The frame is a control packet's, free once it is complete, or a
/// queue's. What can't go yet waits, and counts as sent. False if the device has no room, or the frame is not one that may be sent.
pub(crate) fn transmit<D: Device>(
    frames: &mut Frames<'_>,
    device: &mut D,
    frame: FrameIndex,
    head: &Head,
    hop: &mut Hop,
) -> bool {
    if !hop.is_open() {
        hold(frames, device, frame, head, hop);
        return true;
    }
    let capabilities = device.capabilities();
    let Some(record) = frames.record(frame).copied() else { return false };
    let place = (record.offset, record.len);
    let written = device
        .bytes_mut(frame)
        .and_then(|bytes| head.write(bytes, place, text_sum(&record), hop, &capabilities));
    hop.is_used = true;
    written.is_some_and(|written| give(frames, device, frame, &written, record.len))
}

/// Gives a frame whose headers are written, and whose text has `len` bytes, to the device.
#[inline]
pub(crate) fn give<D: Device>(
    frames: &mut Frames<'_>,
    device: &mut D,
    frame: FrameIndex,
    written: &Written,
    len: u16,
) -> bool {
    if !frames.send(frame) {
        return false;
    }
    let fragment = Fragment { frame, offset: written.offset, len: written.len + len };
    let packet = Outgoing { fragments: &[fragment], checksum: written.checksum, gso_size: 0 };
    let is_taken = device.send(&packet).is_ok();
    if !is_taken {
        frames.unsend(frame);
    }
    is_taken
}

/// Keeps a packet that has no link address to go to yet, or drops it where there is no way. Of a queue's frame a copy
/// waits: if there is none, the packet is lost, and the transport sends it again.
#[cold]
fn hold<D: Device>(frames: &mut Frames<'_>, device: &mut D, frame: FrameIndex, head: &Head, hop: &mut Hop) {
    let is_queued = frames.state(frame) != Place::Moving;
    let copy = if is_queued { SendQueue::copy_of(frames, device, frame) } else { Some(frame) };
    let Some(copy) = copy else { return };
    let capabilities = device.capabilities();
    let record = frames.record(copy).copied().unwrap_or_default();
    let place = (record.offset, record.len);
    let written = device.bytes_mut(copy).and_then(|bytes| head.write(bytes, place, None, hop, &capabilities));
    match written {
        Some(written) => hop.hold(frames, copy, (written.offset, written.len + record.len), written.checksum),
        None => {
            frames.discard(copy);
        }
    }
}

/// A control packet: headers alone. False if there is no frame for it, or no room in the ring.
pub(crate) fn transmit_control<D: Device>(
    frames: &mut Frames<'_>,
    device: &mut D,
    head: &Head,
    hop: &mut Hop,
    headroom: u16,
) -> bool {
    let Some(frame) = frames.take(Purpose::Control) else { return false };
    if let Some(record) = frames.record_mut(frame) {
        record.offset = headroom;
    }
    // A frame that the device did not take is free already, or still moving.
    transmit(frames, device, frame, head, hop) || {
        frames.discard(frame);
        false
    }
}

/// Bytes per second at which a connection is paced, or would be.
pub(crate) fn pacing_rate<D: Device>(connection: &Connection<'_, D>) -> u64 {
    let (tcb, max) = (&*connection.tcb, connection.values.max_pacing_rate);
    pacing::rate(&pacing::Path {
        mss: tcb.mss,
        cwnd: tcb.congestion.cwnd(),
        packets_out: connection.board().packets_out,
        ssthresh: tcb.congestion.ssthresh(),
        srtt: tcb.rtt.srtt(),
        max: if max == 0 { u64::MAX } else { max },
    })
}

impl<D: Device> Connection<'_, D> {
    /// Does what the plan says; false if it could not be done now.
    pub(crate) fn emit(&mut self, plan: &Plan) -> bool {
        match plan.text {
            Text::None => self.emit_ack(plan),
            Text::New(frame, len) => {
                if self.traffic.send.sent().frames == 0 {
                    self.restart();
                }
                self.emit_run(plan, frame) || self.emit_new(plan, frame, len)
            }
            Text::Again(frame) => self.emit_run(plan, frame) || self.emit_again(plan, frame),
        }
    }

    /// Text that was never sent, or the FIN.
    fn emit_new(&mut self, plan: &Plan, frame: FrameIndex, len: u16) -> bool {
        let Some(record) = self.frames.record(frame).copied() else { return false };
        if len < record.len {
            let shape = self.shape();
            if self.traffic.send.split(&mut means!(self, send_charge), shape, frame, len).is_none() {
                return false;
            }
        }
        let Some(record) = self.frames.record(frame).copied() else { return false };
        let head = self.head_of(
            plan,
            &record,
            if record.len > 0 { ecn::Outgoing::NewText } else { ecn::Outgoing::PureAck },
        );
        if !transmit(&mut self.frames, &mut *self.device, frame, &head, &mut self.hop) {
            return false;
        }
        self.sent_new(1, &record, record.len);
        self.sent(head.flags.has(Flags::ACK));
        true
    }

    /// The first of what was unsent is on its way: so many frames, which all together are this one, and the last of which has so
    /// much text.
    pub(super) fn sent_new(&mut self, segments: u16, all: &FrameRecord, last: u16) {
        self.note_text_sent(segments, (all.len, last), all.seq_len());
        self.pace(all.len);
        self.count_in_recovery(segments);
    }

    /// The first unsent frames have left, with so much text in all and in the last of them, of so many sequence numbers.
    fn note_text_sent(&mut self, segments: u16, (text, last): (u16, u16), seq_len: u32) {
        if self.traffic.send.sent().frames == 0 {
            self.traffic.delivery.begin(self.now);
        }
        for _ in 0..segments {
            let frame = self.traffic.send.mark_sent(&mut self.frames, self.now);
            self.stamp(frame);
        }
        self.tcb.snd.nxt = self.tcb.snd.nxt + seq_len;
        if text > 0 {
            self.tcb.data_segs_out = self.tcb.data_segs_out.wrapping_add(segments.into());
            self.tcb.last_data_sent = clock_ms(self.now);
            self.tcb.delayed_ack.on_text_sent(self.now);
            if last < self.shape().mss {
                self.traffic.small = self.tcb.snd.nxt;
            }
        }
    }

    /// What is known of deliveries, for the sample that this frame will give.
    #[inline]
    pub(super) fn stamp(&mut self, frame: Option<FrameIndex>) {
        if let Some(record) = frame.and_then(|frame| self.frames.record_mut(frame)) {
            self.traffic.delivery.stamp(record, self.tcb.delivered);
        }
    }

    /// Text that was sent before.
    fn emit_again(&mut self, plan: &Plan, frame: FrameIndex) -> bool {
        let shape = self.shape();
        let is_long = self.frames.record(frame).is_some_and(|record| record.len > shape.mss);
        if is_long
            && self.traffic.send.split(&mut means!(self, send_charge), shape, frame, shape.mss).is_none()
        {
            return false;
        }
        let Some(record) = self.frames.record(frame).copied() else { return false };
        let head = self.head_of(plan, &record, ecn::Outgoing::Again);
        // What the device still has is copied: it may neither be changed nor given twice.
        let is_sent = if self.frames.is_writable(frame) {
            transmit(&mut self.frames, &mut *self.device, frame, &head, &mut self.hop)
        } else {
            match SendQueue::copy_of(&mut self.frames, &mut *self.device, frame) {
                Some(copy) => {
                    transmit(&mut self.frames, &mut *self.device, copy, &head, &mut self.hop) || {
                        self.frames.discard(copy);
                        false
                    }
                }
                None => false,
            }
        };
        if !is_sent || !self.traffic.send.mark_retransmitted(&mut self.frames, frame, self.now) {
            return false;
        }
        self.stamp(Some(frame));
        self.sent_again(1, record.len);
        self.sent(head.flags.has(Flags::ACK));
        true
    }

    /// So many segments, with so many bytes of text, were sent once more.
    pub(super) fn sent_again(&mut self, segments: u16, bytes: u16) {
        let tsval = self.tsval();
        self.tcb.episode.on_retransmit(segments, tsval);
        self.traffic.search.inconclusive();
        self.tcb.last_data_sent = clock_ms(self.now);
        self.tcb.total_retrans = self.tcb.total_retrans.wrapping_add(segments.into());
        self.seldom.bytes_retrans += u64::from(bytes);
        self.stats.add(Counter::SegmentsRetransmitted, segments.into());
        self.pace(bytes);
        self.count_in_recovery(segments);
    }

    fn emit_ack(&mut self, plan: &Plan) -> bool {
        let head = self.head_of(
            plan,
            &FrameRecord { seq: plan.seq.0, ..FrameRecord::default() },
            ecn::Outgoing::PureAck,
        );
        let is_sent = self.control(&head);
        if is_sent {
            self.sent(head.flags.has(Flags::ACK));
        }
        is_sent
    }

    /// A segment without text that is sent at once, out of the order of plans: a probe, with a sequence number that the
    /// peer has (RFC 9293 §3.8.4, §3.8.6.1), or a challenge.
    pub(crate) fn emit_bare(&mut self, why: Why, seq: crate::seq::Seq) -> bool {
        self.emit_ack(&Plan { why, seq, text: Text::None })
    }

    /// A SYN or SYN,ACK of a connection that has a block.
    pub(crate) fn emit_syn(&mut self, flags: Flags, fast_open: Option<Cookie>) -> bool {
        let head = self.syn_head(flags, fast_open);
        let is_sent = self.control(&head);
        if is_sent {
            self.sent(head.flags.has(Flags::ACK));
        }
        is_sent
    }

    /// A SYN with the text in the first frame of the queue (RFC 7413 §4.2.1).
    pub(crate) fn emit_syn_with_text(&mut self, fast_open: Option<Cookie>) -> bool {
        let Some(frame) = self.traffic.send.next_unsent() else { return false };
        let Some(len) = self.frames.record(frame).map(|record| record.len) else { return false };
        let head = self.syn_head(Flags::SYN, fast_open);
        let is_sent = transmit(&mut self.frames, &mut *self.device, frame, &head, &mut self.hop);
        if is_sent {
            self.note_text_sent(1, (len, len), len.into());
            self.sent(false);
        }
        is_sent
    }

    fn syn_head(&self, flags: Flags, fast_open: Option<Cookie>) -> Head {
        let is_answer = flags.has(Flags::ACK);
        let had = self.tcb.flags;
        let may = |bit| had.has(bit);
        let options = Options {
            mss: Some(self.tcb.advertised_mss),
            window_scale: may(Tcbits::SCALING).then_some(self.tcb.rcv_shift()),
            sack_permitted: may(Tcbits::SACK),
            timestamps: may(Tcbits::TIMESTAMPS).then(|| crate::wire::tcp::options::Timestamps {
                tsval: self.tsval(),
                tsecr: self.tcb.recent.echo(),
            }),
            fast_open,
            ..Options::default()
        };
        let (ttl, tos) = hops(self.values, &self.tcb.remote);
        let header = Header {
            sequence: self.tcb.iss().0.into(),
            acknowledgment: (if is_answer { self.tcb.rcv.nxt.0 } else { 0 }).into(),
            window: (self.tcb.rcv.wnd.min(window::UNSCALED_MAX) as u16).into(),
            ..self.ports()
        };
        let flags = match is_answer {
            true if self.tcb.episode.ecn.is_on() => flags | Ecn::SYN_ACK,
            // Who drops a SYN that asks for it gets one that doesn't (RFC 3168 §6.1.1.1; net.ipv4.tcp_ecn_fallback).
            false if had.has(Tcbits::ECN) && self.tcb.retransmits == 0 => flags | Ecn::SYN,
            _ => flags,
        };
        Head { local: self.tcb.local, remote: self.tcb.remote, header, flags, options, ttl, tos }
    }

    /// RST: `<SEQ=SND.NXT><CTL=RST>` with an acknowledgment of what was received, as Linux (tcp_send_active_reset).
    pub(crate) fn emit_reset(&mut self) {
        let (ttl, tos) = hops(self.values, &self.tcb.remote);
        let header = Header {
            sequence: self.tcb.snd.nxt.0.into(),
            acknowledgment: self.tcb.rcv.nxt.0.into(),
            ..self.ports()
        };
        let flags = Flags::RST | Flags::ACK;
        let options = self.options();
        let head = Head { local: self.tcb.local, remote: self.tcb.remote, header, flags, options, ttl, tos };
        if self.control(&head) {
            self.count(Counter::ResetsOut);
        }
    }

    fn control(&mut self, head: &Head) -> bool {
        let headroom = self.shape().headroom;
        transmit_control(&mut self.frames, &mut *self.device, head, &mut self.hop, headroom)
    }

    fn ports(&self) -> Header {
        Header {
            source: self.tcb.local_port.into(),
            destination: self.tcb.remote_port.into(),
            ..Header::default()
        }
    }

    /// The headers of a segment in a synchronized state.
    pub(super) fn head_of(&mut self, plan: &Plan, record: &FrameRecord, what: ecn::Outgoing) -> Head {
        let what = if plan.why == Why::Probe { ecn::Outgoing::Probe } else { what };
        let (marks, is_ect) = self.tcb.episode.ecn.outgoing(what);
        let mut flags = Flags::ACK | marks;
        if record.has(FrameRecord::FIN) {
            flags |= Flags::FIN;
        }
        // The last that there is, too: the peer's user waits for no more (RFC 9293 §3.9.1.2). A departure from MUST-61: as in Linux not
        // while the user has said that more follows.
        let (send, unpushed) = (&self.traffic.send, self.traffic.unpushed);
        let is_last = unpushed == 0 && record.end() == send.end() && send.bytes_in_blocks() == 0;
        if record.len > 0 && (record.has(FrameRecord::PUSH) || is_last) {
            flags |= Flags::PSH;
        }
        let mut options = self.options();
        if self.tcb.flags.has(Tcbits::SACK) {
            options.sack = self.blocks_for(&options, record.len);
        }
        let urgent = self.urgent_pointer(record.seq());
        if urgent.is_some() {
            flags |= Flags::URG;
        }
        let window = self.advertise();
        let (ttl, tos) = hops(self.values, &self.tcb.remote);
        let header = Header {
            sequence: record.seq.into(),
            acknowledgment: self.tcb.rcv.nxt.0.into(),
            window: window.into(),
            urgent: urgent.unwrap_or(0).into(),
            ..self.ports()
        };
        let tos = if is_ect { tos | ECT_0 } else { tos };
        Head { local: self.tcb.local, remote: self.tcb.remote, header, flags, options, ttl, tos }
    }

    /// SEG.WND of a segment that is sent now: RCV.WND may have grown.
    #[inline]
    pub(in crate::tcp) fn advertise(&mut self) -> u16 {
        let (nxt, wnd) = (self.tcb.rcv.nxt, self.tcb.rcv.wnd);
        let advertised = window::advertise(&self.space(), nxt, nxt + wnd, wnd);
        self.tcb.rcv.wnd = advertised.wnd;
        advertised.field
    }

    /// What SACK reports, as far as text leaves room in the segment: RFC 9293 §3.7.1 (MUST-16).
    fn blocks_for(&mut self, options: &Options, text: u16) -> Blocks {
        let reassembly = &mut self.traffic.reassembly;
        if reassembly.is_empty() && !reassembly.has_duplicate() {
            return Blocks::default();
        }
        let room = usize::from(self.tcb.mss.saturating_sub(text)).saturating_sub(4) / 8;
        let mut blocks = reassembly.sack_blocks(&self.frames, options.blocks_max().min(room));
        if self.traffic.has_fin != 0 {
            blocks.lengthen(self.traffic.fin);
        }
        blocks
    }

    /// A segment was sent that acknowledges everything received.
    #[inline]
    pub(in crate::tcp) fn sent(&mut self, has_ack: bool) {
        self.sent_as(1, has_ack);
    }

    /// The same of a packet that the device makes so many segments of.
    #[inline]
    pub(super) fn sent_as(&mut self, segments: u16, has_ack: bool) {
        self.tcb.segs_out = self.tcb.segs_out.wrapping_add(segments.into());
        self.stats.add(Counter::SegmentsOut, segments.into());
        self.count(Counter::PacketsOut);
        if has_ack {
            self.tcb.rcv.last_ack_sent = self.tcb.rcv.nxt;
            self.tcb.flags = self.tcb.flags.without(Tcbits::ACK_OWED).without(Tcbits::ACK_NOW);
            self.tcb.timers.disarm(Timer::DelayedAck);
            self.tcb.delayed_ack.on_ack_sent(1);
        }
    }

    /// PRR counts what is sent while the window is reduced.
    fn count_in_recovery(&mut self, segments: u16) {
        if self.tcb.episode.state() >= CaState::Cwr {
            self.traffic.prr.on_sent(segments.into());
        }
    }

    /// The next burst waits for its time, if SO_MAX_PACING_RATE says so; else nothing is paced, as in Linux without BBR.
    fn pace(&mut self, text: u16) {
        let max = self.values.max_pacing_rate;
        if max == 0 {
            return;
        }
        let rate = pacing_rate(self);
        self.tcb.pacing.on_sent(self.now, text.into(), rate);
    }

    /// Nothing was in flight: the window is one of the past (RFC 5681 §4.1).
    #[inline]
    pub(in crate::tcp) fn restart(&mut self) {
        self.traffic.fack = self.tcb.snd.una;
        let idle = Duration::from_millis(clock_ms(self.now).wrapping_sub(self.tcb.last_data_sent).into());
        if idle.0 == 0 {
            return;
        }
        let (rto, window) = (self.rto(), initial_window(self.tcb.mss, false));
        self.tcb.congestion.on_restart(idle, rto, window);
    }

    /// Congestion control learns how far its window is used.
    pub(crate) fn note_sent(&mut self) {
        if self.traffic.send.sent().frames == 0 || self.tcb.state() == State::SynSent {
            return;
        }
        let (limited, packets_out) = (self.is_cwnd_full(), self.traffic.send.sent().frames);
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        if self.tcb.congestion.is_underused(self.now, una, nxt, packets_out, limited, self.bounds().min) {
            let (rto, window) = (self.rto(), initial_window(self.tcb.mss, false));
            self.tcb.congestion.on_underused(self.now, rto, window);
        }
    }
}
