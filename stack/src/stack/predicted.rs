//! The short way of a segment from the device to its connection: one look at the headers as they almost always are, and at the
//! connection. Whatever is different takes the long way ([`super::ingress`]), from the beginning and with nothing changed. A datagram
//! of UDP with such headers goes to [`super::udp`].

use super::Stack;
use crate::device::{Checksum, ChecksumIn, Device, FrameIndex, Link, Received};
use crate::events;
use crate::ip::hop::Hop;
use crate::recover::Operation;
use crate::region::slab::Handle;
use crate::seq::Seq;
use crate::stats::Counter;
use crate::tcp::open::traffic::Want;
use crate::tcp::predicted::Expected;
use crate::tcp::segment::Segment;
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ip::Ip;
use crate::wire::protocol;
use crate::wire::tcp::Flags;
use crate::wire::tcp::options::{Options, Timestamps};

/// Bytes of the headers that the short way knows.
const ETHERNET: usize = 14;
const V4: usize = 20;
const V6: usize = 40;
/// TCP's header with timestamps alone, as RFC 7323 appendix A recommends: two bytes of padding, kind 8, length 10.
const TCP: usize = 32;
const STAMPS: u32 = 0x0101_080a;
/// Data offset of eight words, and ACK (RFC 9293 §3.1).
const OFFSET_ACK: u16 = 8 << 12 | Flags::ACK.0;
/// Bits that may be set besides; with the last one it is not what is expected.
const PUSH: u16 = Flags::PSH.0;
const FIN: u16 = Flags::FIN.0;
/// Congestion experienced (RFC 3168 §5).
const CE: u8 = 3;

/// A packet of one frame whose link's and IP's headers are the usual ones.
pub(super) struct Usual<'p> {
    pub(super) source: Ip,
    pub(super) destination: Ip,
    /// What the payload is.
    protocol: u8,
    /// Where IP's header begins in the frame.
    pub(super) begin: u16,
    /// Where the payload begins there.
    pub(super) at: u16,
    pub(super) payload: &'p [u8],
}

/// A segment whose headers are as expected.
struct Plain {
    local: (Ip, u16),
    remote: (Ip, u16),
    seg: Expected,
    /// It has a FIN.
    fin: bool,
}

/// What the short way made of a packet.
pub(super) enum Prediction {
    /// It was taken: which connection wants to be asked for output.
    Taken(Option<Handle>),
    /// It is a segment with usual headers that does or is something else, and whose it is.
    Other(Segment, Option<u32>),
    /// Its headers are not the usual ones.
    Unusual,
}

impl Plain {
    /// The same for the long way.
    #[cold]
    fn segment(&self, frame: FrameIndex) -> Segment {
        let seg = &self.seg;
        let (tsval, tsecr) = seg.stamps;
        let mut flags = Flags::ACK;
        if seg.push {
            flags |= Flags::PSH;
        }
        if self.fin {
            flags |= Flags::FIN;
        }
        Segment {
            local: self.local,
            remote: self.remote,
            seq: seg.seq,
            ack: seg.ack,
            window: seg.window,
            flags,
            options: Options { timestamps: Some(Timestamps { tsval, tsecr }), ..Options::default() },
            text: seg.text,
            offset: seg.offset.into(),
            frame: Some(frame),
            joined: 0,
            urgent: None,
            marked: false,
        }
    }
}

const fn word16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The addresses of a packet of IPv4 without options and fragments, and what is in it.
#[inline]
fn in_v4(packet: &[u8]) -> Option<(Ip, Ip, u8, &[u8])> {
    let head: &[u8; V4] = packet.first_chunk()?;
    let total = usize::from(word16(head, 2));
    let is_plain = head[0] == 0x45 && head[1] & 3 != CE
        // No fragment: neither more to come nor an offset.
        && word16(head, 6) & 0x3fff == 0;
    let (words, _) = head.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    if !is_plain || !Sum::of(sum).holds() {
        return None;
    }
    let [.., a, b, c, d, e, f, g, h] = *head;
    Some((Ip::v4([a, b, c, d]), Ip::v4([e, f, g, h]), head[9], packet.get(V4..total)?))
}

/// The same of IPv6: extension headers are its payload.
#[inline]
fn in_v6(packet: &[u8]) -> Option<(Ip, Ip, u8, &[u8])> {
    let head: &[u8; V6] = packet.first_chunk()?;
    let is_plain = head[0] >> 4 == 6 && head[1] >> 4 & 3 != CE;
    if !is_plain {
        return None;
    }
    let (source, destination) = head[8..].split_first_chunk::<16>()?;
    let payload = packet.get(V6..V6 + usize::from(word16(head, 4)))?;
    Some((Ip(*source), Ip(destination.try_into().ok()?), head[6], payload))
}

impl<D: Device> Stack<'_, '_, D> {
    /// A packet that is one frame, up to its payload, if its headers are the usual ones.
    #[inline]
    fn usual(&self, packet: &Received) -> Option<Usual<'_>> {
        let piece = packet.fragment;
        let begin = usize::from(piece.offset);
        let bytes = self.device.bytes(piece.frame)?.get(begin..begin + usize::from(piece.len))?;
        let (is_v6, ip) = match self.device.capabilities().link {
            Link::Ethernet => {
                let (head, rest) = bytes.split_first_chunk::<ETHERNET>()?;
                let [a, b, c, d, e, f, ..] = *head;
                if u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) != self.parts.ip.interface.plain() {
                    return None;
                }
                match [head[12], head[13]] {
                    [0x08, 0x00] => (false, rest),
                    [0x86, 0xdd] => (true, rest),
                    _ => return None,
                }
            }
            Link::Ip => (*bytes.first()? >> 4 == 6, bytes),
        };
        let (source, destination, protocol, payload) = if is_v6 { in_v6(ip)? } else { in_v4(ip)? };
        let begin = piece.offset + (bytes.len() - ip.len()) as u16;
        let at = begin + if is_v6 { V6 } else { V4 } as u16;
        Some(Usual { source, destination, protocol, begin, at, payload })
    }

    /// The segment in such a packet, if it looks as expected, too.
    #[inline]
    fn plain(usual: &Usual<'_>, said: Checksum, device: ChecksumIn) -> Option<Plain> {
        let Usual { source, destination, payload: segment, .. } = usual;
        let head: &[u8; TCP] = segment.first_chunk()?;
        let bits = word16(head, 12);
        if bits & !(PUSH | FIN) != OFFSET_ACK || word32(head, 20) != STAMPS {
            return None;
        }
        let sum = pseudo(source, destination, protocol::TCP, segment.len() as u32);
        let is_partial = device == ChecksumIn::Partial && sum.fold() == word16(head, 16);
        if said == Checksum::Unchecked && !is_partial && !sum.bytes(segment).holds() {
            return None;
        }
        Some(Plain {
            local: (*destination, word16(head, 2)),
            remote: (*source, word16(head, 0)),
            seg: Expected {
                seq: Seq(word32(head, 4)),
                ack: Seq(word32(head, 8)),
                window: word16(head, 14),
                push: bits & PUSH != 0,
                stamps: (word32(head, 24), word32(head, 28)),
                offset: usual.at + TCP as u16,
                text: (segment.len() - TCP) as u16,
            },
            fin: bits & FIN != 0,
        })
    }

    /// Takes a packet, if it is what its connection expects next.
    #[inline]
    pub(super) fn predicted(&mut self, packet: &Received) -> Prediction {
        // What a device has joined counts as several segments.
        let most = self.device.capabilities().mtu + ETHERNET as u32;
        if packet.gso_size != 0 || u32::from(packet.fragment.len) > most {
            return Prediction::Unusual;
        }
        let Some(usual) = self.usual(packet) else { return Prediction::Unusual };
        if usual.protocol == protocol::UDP {
            let plain = super::udp::plain(&usual, packet);
            let is_taken = plain.is_some_and(|datagram| self.udp_plain(&datagram));
            return if is_taken { Prediction::Taken(None) } else { Prediction::Unusual };
        }
        let device = self.device.capabilities().checksum_in;
        let plain = Some(usual).filter(|usual| usual.protocol == protocol::TCP);
        let Some(plain) = plain.and_then(|usual| Self::plain(&usual, packet.checksum, device)) else {
            return Prediction::Unusual;
        };
        let found =
            self.parts.connections().find((&plain.local.0, plain.local.1), (&plain.remote.0, plain.remote.1));
        match found.filter(|_| !plain.fin).and_then(|index| self.expected(&plain, packet, index)) {
            Some(socket) => Prediction::Taken(socket),
            None => Prediction::Other(plain.segment(packet.fragment.frame), found),
        }
    }

    /// The same, once its connection is found; `None` if it expects something else, and nothing was done.
    #[inline]
    fn expected(&mut self, plain: &Plain, packet: &Received, index: u32) -> Option<Option<Handle>> {
        // Its line is asked for together with the connection's.
        let word = self.shared.tcp_events.get(index as usize)?;
        core::hint::black_box(word.load(core::sync::atomic::Ordering::Relaxed));
        let socket = self.parts.tcbs.get(index as usize)?.tag.handle(index);
        let seg = &plain.seg;
        let tcb = self.parts.tcbs.get(index as usize)?;
        // Where addresses or routes have changed it is looked at again whether the address is ours.
        if !seg.is_expected(tcb, self.now) || tcb.route_version != self.parts.ip.version() {
            return None;
        }
        if seg.text > 0 && !self.parts.tcp_has_queues(tcb.traffic, Want::Reception) {
            self.parts.tcp_traffic(socket, Want::Reception).ok()?;
        }
        self.count(Counter::SegmentsIn);
        self.count(Counter::HeaderPredicted);
        let mut spare = None;
        self.parts.intent.begin(Operation::Tcp, index);
        let shared = self.shared;
        let mut connection = self.connection(socket, &mut spare, Hop::default()).ok()?;
        let wants_output = connection.expected_arrives(seg, packet.fragment.frame);
        if events::add(word, connection.arrived, || connection.may_write()) {
            shared.note_tcp(index);
        }
        let armed = connection.armed;
        if !wants_output {
            self.arm_wheel_at(index, armed);
            // With text it rests once that is read, unless somebody waits for what it need not have.
            if seg.text == 0 || self.parts.sending.first != 0 {
                self.parts.tcp_rest(socket).ok()?;
            }
        }
        self.parts.intent.end();
        Some(wants_output.then_some(socket))
    }
}
