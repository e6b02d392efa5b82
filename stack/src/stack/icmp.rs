//! ICMP and ICMPv6 joined to everything else: echoes are answered, errors reach the sockets that they are about, and who
//! sends to a closed port is told.

use zerocopy::IntoBytes;

use super::Stack;
use super::other::Seen;
use super::parcel::Parcel;
use crate::device::{Device, Fragment, FrameIndex, Memory};
use crate::ip::icmp::answer::{echo, echo_v6, may_send_error, quoted_len, tells_closed_port};
use crate::ip::icmp::{Meaning, meaning, meaning_v6};
use crate::ip::path_mtu::TooBig;
use crate::stats::Counter;
use crate::wire::checksum::Sum;
use crate::wire::icmp::{HEADER_LEN, Message, Unreachable, parse, quoted};
use crate::wire::ip::Ip;
use crate::wire::{icmpv6, igmp, ipv6, ndisc, protocol, udp};

/// A message of either version.
#[derive(Clone, Copy, Debug)]
pub(super) enum Either {
    /// ICMP.
    V4(Message),
    /// ICMPv6.
    V6(icmpv6::Message),
}

/// A packet of ours that an error is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// Our end.
    pub(super) local: (Ip, u16),
    /// The other.
    pub(super) remote: (Ip, u16),
    /// What it carried.
    pub(super) protocol: u8,
    /// SEG.SEQ of a segment.
    pub(super) sequence: u32,
    /// Bytes of what is quoted before a datagram's data.
    pub(super) headers: u16,
}

/// What an error says of itself (`struct sock_extended_err`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Its type.
    pub(super) kind: u8,
    /// Its code.
    pub(super) code: u8,
    /// What the path takes, or what it points at.
    pub(super) info: u32,
    /// Who sent it.
    pub(super) offender: Ip,
    /// What it quotes of a datagram's data.
    pub(super) quoted: Fragment,
}

impl Told {
    /// Of a message that begins so, and quotes behind its header.
    fn new(seen: &Seen, head: [u8; HEADER_LEN], about: Option<&About>) -> Self {
        let [kind, code, _, _, word @ ..] = head;
        let word = u32::from_be_bytes(word);
        let info = match (seen.source.is_v4(), kind, code) {
            (false, ..) => word,
            // Fragmentation needed; parameter problem.
            (true, 3, 4) => word & 0xffff,
            (true, 12, _) => word >> 24,
            _ => 0,
        };
        let skipped = HEADER_LEN as u16 + about.map_or(0, |about| about.headers);
        let quoted = seen.piece(skipped.min(seen.len()));
        Self { kind, code, info, offender: seen.source, quoted }
    }
}

/// The packet of ours that these bytes are the beginning of, if they are enough to tell.
pub(super) fn about(bytes: &[u8], is_v4: bool) -> Option<About> {
    let quoted = quoted(bytes, is_v4).ok()?;
    let (local, remote, sequence) = quoted.ports_and_sequence()?;
    let protocol = quoted.protocol;
    let headers = (quoted.transport.as_ptr() as usize - bytes.as_ptr() as usize + udp::HEADER_LEN) as u16;
    Some(About {
        headers,
        local: (quoted.source, local),
        remote: (quoted.destination, remote),
        protocol,
        sequence,
    })
}

/// Copies from one frame to another.
pub(super) fn copy<M: Memory>(
    memory: &mut M,
    from: (FrameIndex, usize),
    to: (FrameIndex, usize),
    len: usize,
) -> bool {
    let pieces = memory
        .pair(from.0, to.0)
        .and_then(|(source, target)| source.get(from.1..from.1 + len).zip(target.get_mut(to.1..to.1 + len)));
    pieces.map(|(source, target)| target.copy_from_slice(source)).is_some()
}

/// Copies `len` bytes of what lies in these pieces, from an offset on.
fn copy_range<M: Memory>(
    memory: &mut M,
    pieces: &[Fragment],
    mut offset: usize,
    (frame, mut place): (FrameIndex, usize),
    mut len: usize,
) -> bool {
    for piece in pieces {
        let all = usize::from(piece.len);
        let now = all.saturating_sub(offset).min(len);
        let from = (piece.frame, usize::from(piece.offset) + offset.min(all));
        if now > 0 && !copy(memory, from, (frame, place), now) {
            return false;
        }
        (place, len, offset) = (place + now, len - now, offset.saturating_sub(all));
    }
    len == 0
}

impl<D: Device> Stack<'_, '_, D> {
    /// A message of ICMP.
    pub(super) fn icmp(&mut self, seen: &Seen) {
        self.count(Counter::IcmpIn);
        let bytes = seen.bytes(&*self.device, seen.payload);
        let (message, data) = match parse(bytes) {
            Ok((message, data)) => (message, data),
            Err(rule) => return self.shared.counters().malformed(rule),
        };
        if let Some(meaning) = meaning(&message) {
            let about = about(data, true);
            let told = Told::new(seen, bytes.first_chunk().copied().unwrap_or_default(), about.as_ref());
            return self.error_arrived(about, &meaning, &told);
        }
        self.answer_echo(seen, Either::V4(message), &[seen.piece(HEADER_LEN as u16)]);
    }

    /// A message of ICMPv6.
    pub(super) fn icmp_v6(&mut self, seen: &Seen) {
        self.count(Counter::IcmpIn);
        let (source, destination) = (seen.source, seen.destination);
        let bytes = seen.bytes(&*self.device, seen.payload);
        if bytes.first().is_some_and(|kind| (133..=137).contains(kind)) {
            return match ndisc::parse(bytes, &source, &destination, seen.ttl) {
                Ok((message, options)) => self.discovery(&message, &options, &source),
                Err(rule) => self.shared.counters().malformed(rule),
            };
        }
        let (message, data) = match icmpv6::parse(bytes, &source, &destination) {
            Ok((message, data)) => (message, data),
            Err(rule) => return self.shared.counters().malformed(rule),
        };
        if let Some(meaning) = meaning_v6(&message) {
            let about = about(data, false);
            let told = Told::new(seen, bytes.first_chunk().copied().unwrap_or_default(), about.as_ref());
            return self.error_arrived(about, &meaning, &told);
        }
        if igmp::is_v6(bytes) {
            return self.listeners(seen);
        }
        self.answer_echo(seen, Either::V6(message), &[seen.piece(HEADER_LEN as u16)]);
    }

    /// Answers an echo request with these data, where the addresses are ours alone.
    pub(super) fn answer_echo(&mut self, seen: &Seen, message: Either, data: &[Fragment]) {
        if !self.parts.ip.interface.owns() {
            return;
        }
        let about = self.invoking(seen);
        let reply = match message {
            Either::V4(message) => echo(&message, &about).map(|(reply, from)| (Either::V4(reply), from)),
            Either::V6(message) => {
                let ours = self.way(&seen.source).ok().map(|way| way.source);
                echo_v6(&message, &about, ours).map(|(reply, from)| (Either::V6(reply), from))
            }
        };
        if let Some((reply, from)) = reply {
            self.send_icmp(reply, (&from, &seen.source), data);
        }
    }

    /// Sends a message with these data.
    fn send_icmp(&mut self, message: Either, (local, remote): (&Ip, &Ip), data: &[Fragment]) {
        let protocol = if local.is_v4() { protocol::ICMP } else { protocol::ICMPV6 };
        let len: usize = data.iter().map(|piece| usize::from(piece.len)).sum();
        let Ok(way) = self.way(remote) else { return self.count(Counter::NoRoute) };
        let mut hop = self.hop_of(&way);
        // The header's checksum is over everything, so it comes first.
        let sum = self.sum_of(Sum::ZERO, data);
        let header = match message {
            Either::V4(message) => message.header(sum),
            Either::V6(message) => message.header(local, remote, sum, len as u32),
        };
        let parcel = Parcel::new(*local, *remote, protocol);
        let by = (&mut hop, way.path.mtu);
        let sent = self.send_parcel(&parcel, by, HEADER_LEN + len, |device, to, place, offset, len| {
            // The header is in the first piece: pieces are larger than it.
            let skipped = HEADER_LEN.saturating_sub(offset).min(len);
            let head = device.bytes_mut(to).and_then(|bytes| bytes.get_mut(place..place + skipped));
            let Some(head) = head else { return false };
            head.copy_from_slice(&header.as_bytes()[..skipped]);
            copy_range(device, data, offset + skipped - HEADER_LEN, (to, place + skipped), len - skipped)
        });
        self.after(&mut hop, None);
        if sent.is_ok() {
            self.count(Counter::IcmpOut);
        }
    }

    /// Tells the sender of a datagram what is wrong with it, as often as errors may be sent.
    pub(super) fn send_error(&mut self, seen: &Seen, message: Either) {
        if !self.parts.ip.interface.owns() || !may_send_error(&self.invoking(seen)) {
            return;
        }
        if !self.parts.may_send_error_to(&seen.source, self.now) {
            return self.count(Counter::IcmpLimited);
        }
        let is_v4 = seen.source.is_v4();
        let mtu = self.link_mtu(&seen.source) as usize;
        let len = quoted_len(is_v4, usize::from(seen.end - seen.begin), mtu) as u16;
        let quoted = Fragment { frame: seen.frame, offset: seen.begin, len };
        self.send_icmp(message, (&seen.destination, &seen.source), &[quoted]);
    }

    /// Nobody has the port that a datagram is for.
    pub(super) fn tell_closed_port(&mut self, seen: &Seen) {
        if tells_closed_port(&self.invoking(seen)) {
            let message = match seen.source.is_v4() {
                true => Either::V4(Message::Unreachable(Unreachable::Port)),
                false => Either::V6(icmpv6::Message::Unreachable(icmpv6::Unreachable::Port)),
            };
            self.send_error(seen, message);
        }
    }

    /// Nobody speaks what a datagram carries. RFC 1122 §3.2.2.1: "A host SHOULD generate Destination Unreachable messages with
    /// code: 2 (Protocol Unreachable), when the designated transport protocol is not supported"; RFC 8200 §4: "it should
    /// discard the packet and send an ICMP Parameter Problem message to the source of the packet, with an ICMP Code value of
    /// 1 ("unrecognized Next Header type encountered") and the ICMP Pointer field containing the offset of the
    /// unrecognized value within the original packet".
    pub(super) fn tell_unknown_protocol(&mut self, seen: &Seen) {
        let headers = seen.payload - seen.begin;
        let message = match seen.source.is_v4() {
            true => Either::V4(Message::Unreachable(Unreachable::Protocol)),
            // Behind extension headers the value is in the last of them, whose place isn't kept.
            false if usize::from(headers) != ipv6::HEADER_LEN => return,
            false => Either::V6(icmpv6::Message::ParameterProblem { code: 1, pointer: 6 }),
        };
        self.send_error(seen, message);
    }

    /// A fragment's datagram was given up, of which this is the first piece.
    pub(super) fn tell_time_exceeded(&mut self, seen: &Seen) {
        // Code 1: fragment reassembly time exceeded (RFC 792, RFC 4443 §3.3).
        let message = match seen.source.is_v4() {
            true => Either::V4(Message::TimeExceeded { code: 1 }),
            false => Either::V6(icmpv6::Message::TimeExceeded { code: 1 }),
        };
        self.send_error(seen, message);
    }

    /// An error about something that we have sent, or seem to have.
    pub(super) fn error_arrived(&mut self, about: Option<About>, meaning: &Meaning, told: &Told) {
        let Some(about) = about else { return self.count(Counter::IcmpDoubtful) };
        let is_believed = match about.protocol {
            protocol::TCP => self.error_for_segment(&about, meaning),
            protocol::UDP => self.error_for_datagram(&about, meaning, told),
            _ => false,
        };
        if !is_believed {
            self.count(Counter::IcmpDoubtful);
        }
    }

    /// What a router told of a path is kept for every socket; what is known of it then, in bytes, if that is news.
    pub(super) fn hear_path_mtu(&mut self, remote: &Ip, too_big: TooBig) -> Option<u16> {
        let way = self.way(remote).ok().filter(|way| way.route.mtu_is_locked == 0)?;
        let (hash, now) = (self.parts.address_hash(remote), self.now);
        let known = self.parts.known_paths().hear(remote, hash, way.link_mtu, too_big, now)?;
        self.count(Counter::PathMtuLowered);
        let until = (now + crate::ip::path_mtu::LIFETIME).0;
        let state = &mut self.parts.ip;
        state.paths_until = if state.paths_until == 0 { until } else { state.paths_until.min(until) };
        // Other sockets of that destination look again.
        self.parts.routing().touch();
        Some(known.mtu)
    }

    /// What was told of a path is forgotten in time: sockets look again then.
    #[cold]
    pub(super) fn run_path_timers(&mut self) {
        let until = self.parts.ip.paths_until;
        if until != 0 && until <= self.now.0 {
            self.parts.ip.paths_until = self.parts.known_paths().next(self.now).map_or(0, |next| next.0);
            self.parts.routing().touch();
        }
    }

    /// A packet of ours that waited for a neighbour who doesn't answer: its socket is told.
    pub(super) fn unreachable(&mut self, frame: FrameIndex) {
        let Some(record) = self.parts.frames.get(frame.0 as usize).copied() else { return };
        let bytes = self.device.bytes(frame).unwrap_or_default();
        let begin = usize::from(record.offset);
        let packet = bytes.get(begin..begin + usize::from(record.len)).unwrap_or_default();
        let Ok((_, datagram)) = crate::wire::ethernet::parse(packet) else { return };
        let is_v4 = datagram.first().is_some_and(|byte| byte >> 4 == 4);
        let about = about(datagram, is_v4);
        let meaning = match is_v4 {
            true => meaning(&Message::Unreachable(Unreachable::Host)),
            false => meaning_v6(&icmpv6::Message::Unreachable(icmpv6::Unreachable::Address)),
        };
        if let (Some(about), Some(meaning)) = (about, meaning) {
            // As from ourselves: ipv4_link_failure, ip6_link_failure.
            let (kind, code) = if is_v4 { (3, 1) } else { (1, 3) };
            let at = (datagram.as_ptr() as usize - bytes.as_ptr() as usize) as u16 + about.headers;
            let end = record.offset.saturating_add(record.len);
            let quoted = Fragment { frame, offset: at.min(end), len: end.saturating_sub(at) };
            let told = Told { kind, code, info: 0, offender: about.local.0, quoted };
            self.error_arrived(Some(about), &meaning, &told);
        }
    }
}
