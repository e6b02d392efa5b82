//! From a packet to its connection: link, IP, TCP, and whose it is.

use super::Stack;
use super::other::{Kind, Seen};
use crate::device::{Checksum, ChecksumIn, Device, Received};
use crate::frames::Frames;
use crate::recover::Lost;
use crate::region::slab::Handle;
use crate::stats::Counter;
use crate::tcp::connection::HEADROOM;
use crate::tcp::open::traffic::Want;
use crate::tcp::output::emit::{hops, transmit_control};
use crate::tcp::output::header::Head;
use crate::tcp::segment::Segment;
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags as Tcbits, Tcb};
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ip::Ip;
use crate::wire::tcp::options::Options;
use crate::wire::tcp::{self, Flags, Header};
use crate::wire::{Malformed, protocol};

/// Congestion experienced (RFC 3168 §5).
const CE: u8 = 3;

/// Verifies the checksum of a segment of `len` bytes, of which `payload` are in the packet's first frame, unless the device did, or
/// the sender left it to a device that there isn't. `sum_beyond` adds what is in other frames.
fn verify(
    (source, destination): (&Ip, &Ip),
    (payload, len): (&[u8], usize),
    said: Checksum,
    device: ChecksumIn,
    sum_beyond: impl FnOnce(Sum) -> Sum,
) -> Result<(), Malformed> {
    if said != Checksum::Unchecked {
        return Ok(());
    }
    let pseudo = pseudo(source, destination, protocol::TCP, len as u32);
    let (segment, _) = tcp::parse(payload)?;
    // First what costs nothing: what was left out is 64 KiB as a rule.
    let is_partial = device == ChecksumIn::Partial && segment.header.checksum.get() == pseudo.fold();
    if is_partial || sum_beyond(pseudo.bytes(payload)).holds() { Ok(()) } else { Err(Malformed::Checksum) }
}

impl<D: Device> Stack<'_, '_, D> {
    /// A packet, whose frames are the stack's now and hang on the first. Which socket it was for, if that has something to send
    /// now.
    pub(super) fn packet(&mut self, packet: &[Received]) -> Option<Handle> {
        let (first, rest) = packet.split_first()?;
        let beyond = rest.iter().map(|entry| usize::from(entry.fragment.len)).sum();
        let kind = self.kind(first.fragment, beyond);
        let seen = match kind {
            Ok(Kind::Datagram(seen)) if seen.is_segment() => Seen { checksum: first.checksum, ..seen },
            kind => {
                self.other(kind, packet);
                return None;
            }
        };
        match self.segment_of(&seen, packet) {
            Ok(segment) => self.segment(segment),
            Err(rule) => {
                self.shared.counters().malformed(rule);
                self.frames().discard_packet(first.fragment.frame);
                None
            }
        }
    }

    /// The segment of a datagram, whose packet has these frames.
    pub(super) fn segment_of(&self, seen: &Seen, packet: &[Received]) -> Result<Segment, Malformed> {
        let payload = seen.bytes(&*self.device, seen.payload);
        let (source, destination, beyond) = (seen.source, seen.destination, usize::from(seen.beyond));
        let (rest, len) = (packet.get(1..).unwrap_or_default(), payload.len() + beyond);
        let device = self.device.capabilities().checksum_in;
        verify((&source, &destination), (payload, len), seen.checksum, device, |sum| {
            self.sum_beyond(sum, rest, beyond)
        })?;
        let (parsed, text) = tcp::parse(payload)?;
        Ok(Segment {
            text: (text.len() + beyond) as u16,
            // What is behind the datagram is the link's padding: text ends where that does.
            offset: u32::from(seen.end) - text.len() as u32,
            frame: Some(seen.frame),
            joined: packet.first().map_or(0, |first| first.gso_size),
            marked: seen.ecn == CE,
            ..Segment::of(parsed.header, Options::parse(parsed.options), destination, source)
        })
    }

    /// Whose segment it is: a connection's, a SYN's that waits, a listener's, nobody's.
    pub(super) fn segment(&mut self, seg: Segment) -> Option<Handle> {
        let found = self.parts.connections().find((&seg.local.0, seg.local.1), (&seg.remote.0, seg.remote.1));
        self.segment_for(seg, found)
    }

    /// The same, if it is known which connection's it is.
    pub(super) fn segment_for(&mut self, mut seg: Segment, found: Option<u32>) -> Option<Handle> {
        self.count(Counter::SegmentsIn);
        if seg.options.signed {
            // Who signs expects a key to be known, and answers that are signed (tcp_inbound_hash).
            self.count(Counter::Signed);
            return self.drop_segment(&seg);
        }
        let (local, remote) = ((&seg.local.0, seg.local.1), (&seg.remote.0, seg.remote.1));
        if let Some(index) = found {
            let tcb = self.parts.tcbs.get(index as usize)?;
            let (socket, version) = (tcb.tag.handle(index), tcb.route_version);
            if version != self.parts.ip.version() && !self.parts.is_ours(local.0) {
                self.count(Counter::NotOurs);
                return self.drop_segment(&seg);
            }
            if tcb.is_handed_over() {
                // Its peer sends it again, to whom it is the business of by then.
                self.count(Counter::HandedOver);
                return self.drop_segment(&seg);
            }
            if !self.gives_way(socket, &seg) {
                return self.connection_segment(socket, &mut seg);
            }
        } else if let Some(index) = self.parts.waiting().find(local, remote) {
            return self.waiting_segment(index, &mut seg);
        }
        // RFC 9293 §3.9.2.3 (MUST-63): "An incoming SYN with an invalid source address MUST be ignored either by TCP or by the IP
        // layer"; (MUST-57): "A TCP implementation MUST silently discard an incoming SYN segment that is addressed to a broadcast
        // or multicast address". What a connection is with was looked at when that began.
        if self.is_martian(remote.0) || !self.parts.is_ours(local.0) {
            self.count(if self.is_martian(remote.0) { Counter::Martians } else { Counter::NotOurs });
            return self.drop_segment(&seg);
        }
        let hash = self.parts.header.secret.tuple(local, remote);
        if let Some(listener) = self.parts.listening().find(local, hash) {
            return self.listener_segment(listener, &mut seg);
        }
        self.count(Counter::NoConnection);
        self.reset(&seg);
        self.drop_segment(&seg)
    }

    /// Whether somebody here would take a segment.
    pub(super) fn is_taken(&mut self, seg: &Segment) -> bool {
        let (local, remote) = ((&seg.local.0, seg.local.1), (&seg.remote.0, seg.remote.1));
        let hash = self.parts.header.secret.tuple(local, remote);
        self.parts.connections().find(local, remote).is_some()
            || self.parts.waiting().find(local, remote).is_some()
            || self.parts.listening().find(local, hash).is_some()
    }

    pub(super) fn drop_segment(&mut self, seg: &Segment) -> Option<Handle> {
        if let Some(frame) = seg.frame {
            self.frames().discard_packet(frame);
        }
        None
    }

    /// The steps for a connection. It is asked for its output when the burst is over, or now if it answers what came out of order,
    /// since each of those has an acknowledgment of its own.
    pub(super) fn connection_segment(&mut self, socket: Handle, seg: &mut Segment) -> Option<Handle> {
        let is_early = |tcb: &mut Tcb| tcb.rcv.nxt.lt(seg.seq);
        let is_early_fin = seg.is(Flags::FIN) && self.parts.tcb(socket).is_ok_and(is_early);
        let queues = (seg.text > 0 || is_early_fin).then_some(Want::Reception);
        let has_queues = queues.is_some_and(|want| self.parts.tcp_traffic(socket, want).is_ok());
        let closes = self.parts.tcb(socket).is_ok_and(|tcb| tcb.flags.has(Tcbits::FIN_QUEUED));
        if closes {
            let _ = self.parts.tcp_traffic(socket, Want::Sending);
        }
        if queues.is_some() && !has_queues {
            // The peer sends its text again; what it acknowledges counts now.
            self.count(Counter::FramesShort);
            self.drop_segment(seg);
            seg.frame = None;
            seg.trim_back(seg.len());
        }
        let asks =
            seg.is(Flags::SYN | Flags::ACK) && self.parts.tcb(socket).is_ok_and(|tcb| tcb.asks_fast_open());
        let done = self.work(socket, queues.filter(|_| has_queues), |connection| {
            let stop = connection.segment_arrives(seg);
            let answers = connection.tcb.flags.has(Tcbits::ACK_NOW) && stop.is_none();
            if answers {
                connection.output();
            }
            (stop, !answers && connection.settle())
        });
        if asks {
            self.note_fast_open(socket, seg);
        }
        match done {
            Ok((stop, wants_output)) => {
                if stop.is_some() {
                    self.reset(seg);
                }
                wants_output.then_some(socket)
            }
            Err(_) => {
                self.count(Counter::Corrupt);
                self.drop_segment(seg)
            }
        }
    }

    /// Whether a connection in TIME-WAIT makes room for the new one that this SYN asks for: RFC 9293 §3.6.1 (MAY-2), RFC 6191.
    fn gives_way(&mut self, socket: Handle, seg: &Segment) -> bool {
        if seg.flags.among(Flags::SYN | Flags::ACK | Flags::RST) != Flags::SYN {
            return false;
        }
        let Ok(tcb) = self.parts.tcb(socket) else { return false };
        let tsval = seg.options.timestamps.map(|stamps| stamps.tsval);
        let allowed =
            tcb.state() == State::TimeWait && tcb.recent.allows_new_connection(seg.seq, tcb.rcv.nxt, tsval);
        if allowed {
            self.count(Counter::TimeWaitsReused);
            let _ = self.work(socket, None, |connection| connection.end());
        }
        allowed
    }

    /// CLOSED (RFC 9293 §3.10.7.1): "If the ACK bit is off, sequence number zero is used, <SEQ=0><ACK=SEG.SEQ+SEG.LEN>
    /// <CTL=RST,ACK>. If the ACK bit is on, <SEQ=SEG.ACK><CTL=RST>".
    pub(super) fn reset(&mut self, seg: &Segment) {
        if seg.is(Flags::RST) {
            return;
        }
        let header =
            Header { source: seg.local.1.into(), destination: seg.remote.1.into(), ..Header::default() };
        let (header, flags) = if seg.is(Flags::ACK) {
            (Header { sequence: seg.ack.0.into(), ..header }, Flags::RST)
        } else {
            (Header { acknowledgment: seg.end().0.into(), ..header }, Flags::RST | Flags::ACK)
        };
        if self.control(seg, header, flags, Options::default()) {
            self.count(Counter::ResetsOut);
        }
    }

    /// The peer of a connection that was lost learns of it: the next segment of its own would tell it, too, if it sent one.
    pub(crate) fn reset_lost(&mut self, lost: &Lost) {
        let header = Header {
            source: lost.local.1.into(),
            destination: lost.remote.1.into(),
            sequence: lost.seq.0.into(),
            acknowledgment: lost.ack.0.into(),
            ..Header::default()
        };
        let (ttl, tos) = hops(&crate::settings::Values::default(), &lost.remote.0);
        let flags = Flags::RST | Flags::ACK;
        let (local, remote, options) = (lost.local.0, lost.remote.0, Options::default());
        if self.send_control(&Head { local, remote, header, flags, options, ttl, tos }) {
            self.count(Counter::ResetsOut);
        }
    }

    /// Sends a segment without text in reply to one, for whoever has no block.
    pub(super) fn control(&mut self, seg: &Segment, header: Header, flags: Flags, options: Options) -> bool {
        let (ttl, tos) = hops(&crate::settings::Values::default(), &seg.remote.0);
        let head = Head { local: seg.local.0, remote: seg.remote.0, header, flags, options, ttl, tos };
        self.send_control(&head)
    }

    pub(super) fn send_control(&mut self, head: &Head) -> bool {
        let headroom = HEADROOM + self.device.capabilities().headroom_out;
        let mut hop = self.hop_towards(&head.remote);
        let parts = &mut *self.parts;
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        let is_sent = transmit_control(&mut frames, self.device, head, &mut hop, headroom);
        self.after(&mut hop, None);
        if is_sent {
            self.count(Counter::SegmentsOut);
            self.count(Counter::PacketsOut);
        }
        is_sent
    }
}
