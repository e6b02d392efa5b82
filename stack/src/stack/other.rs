//! Packets that are no plain segment for us: what is said on the link, ICMP, fragments, what is for somebody else.
//!
//! What a packet asks for is read into values of its own first ([`Seen`]), so that the handlers are free to send; they look at its
//! bytes again where they copy some.

use super::Stack;
use crate::device::{Checksum, Device, Fragment as Piece, FrameIndex, Link, Memory, Received};
use crate::ip::icmp::answer::Invoking;
use crate::stats::Counter;
use crate::time::Instant;
use crate::wire::ip::{Fragment, Ip};
use crate::wire::{Malformed, arp, ethernet, igmp, ipv4, ipv6, ndisc, protocol};

/// A datagram as it lies in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The frame.
    pub(super) frame: FrameIndex,
    /// Where IP's header begins in it.
    pub(super) begin: u16,
    /// Where the datagram ends, or its part in this frame.
    pub(super) end: u16,
    /// Bytes of its payload that are in other frames.
    pub(super) beyond: u16,
    /// Where its payload begins.
    pub(super) payload: u16,
    /// Who sent it.
    pub(super) source: Ip,
    /// Whom it is for.
    pub(super) destination: Ip,
    /// What the payload is.
    pub(super) protocol: u8,
    /// Hops that were left.
    pub(super) ttl: u8,
    /// Its ECN field.
    pub(super) ecn: u8,
    /// Its place, if it is a fragment.
    pub(super) fragment: Option<Fragment>,
    /// The link's frame was for us alone.
    pub(super) is_for_us: bool,
    /// What the device says of its transport checksum.
    pub(super) checksum: Checksum,
    /// Bytes of text in each of the segments that the device has joined in it; 0 if it didn't.
    pub(super) joined: u16,
    /// When it arrived.
    pub(super) arrived: Instant,
    /// It has options of IPv4.
    pub(super) has_options: bool,
    /// It has gone, or is to go, where its sender wants (RFC 791, LSRR and SSRR).
    pub(super) is_source_routed: bool,
}

impl Seen {
    /// Bytes of its payload in this frame.
    pub(super) const fn len(&self) -> u16 {
        self.end.saturating_sub(self.payload)
    }

    /// Whether it is a segment of TCP that came to us alone, in one datagram without options of IP.
    pub(super) const fn is_segment(&self) -> bool {
        let is_plain = !self.has_options && self.fragment.is_none();
        self.protocol == protocol::TCP && self.is_for_us && is_plain
    }

    /// The piece of the frame that is the payload, but for its first bytes.
    pub(super) const fn piece(&self, skipped: u16) -> Piece {
        let offset = self.payload.saturating_add(skipped);
        Piece { frame: self.frame, offset, len: self.end.saturating_sub(offset) }
    }

    /// A range of the frame's bytes.
    pub(super) fn bytes<'m, M: Memory>(&self, memory: &'m M, from: u16) -> &'m [u8] {
        let bytes = memory.bytes(self.frame).unwrap_or_default();
        bytes.get(usize::from(from)..usize::from(self.end)).unwrap_or_default()
    }
}

/// What a packet is.
pub(super) enum Kind {
    /// For somebody else.
    NotOurs,
    /// Nothing that we know.
    Unknown,
    /// ARP.
    Arp(arp::Packet),
    /// A datagram.
    Datagram(Seen),
}

/// Options that choose the way: loose and strict source route.
fn is_source_routed(mut options: &[u8]) -> bool {
    while let [kind @ 1..=255, after @ ..] = options {
        if matches!(kind, 131 | 137) {
            return true;
        }
        // They are well-formed, or the packet wouldn't have been parsed.
        let len = if *kind == 1 { 1 } else { usize::from(after.first().copied().unwrap_or(1).max(1)) };
        options = options.get(len..).unwrap_or_default();
    }
    false
}

impl<D: Device> Stack<'_, '_, D> {
    /// A packet that is not a segment for us. Its frames are the stack's now, and hang on the first.
    #[cold]
    pub(super) fn other(&mut self, kind: Result<Kind, Malformed>, packet: &[Received]) {
        let Some((first, rest)) = packet.split_first() else { return };
        let kept = match kind {
            Ok(Kind::NotOurs) => {
                self.count(Counter::NotOurs);
                false
            }
            Ok(Kind::Unknown) => {
                self.count(Counter::UnknownProtocol);
                false
            }
            Ok(Kind::Arp(packet)) => {
                self.arp(&packet);
                false
            }
            Ok(Kind::Datagram(seen)) => {
                let arrived = first.arrived.unwrap_or(self.now);
                let seen = Seen { checksum: first.checksum, joined: first.gso_size, arrived, ..seen };
                if rest.is_empty() { self.datagram(&seen) } else { self.datagram_of_frames(&seen, packet) }
            }
            Err(rule) => {
                self.shared.counters().malformed(rule);
                false
            }
        };
        if !kept {
            self.frames().discard_packet(first.fragment.frame);
        }
    }

    /// What a packet is, of which `beyond` bytes are in other frames.
    pub(super) fn kind(&self, piece: Piece, beyond: usize) -> Result<Kind, Malformed> {
        let (begin, end) = (usize::from(piece.offset), usize::from(piece.offset) + usize::from(piece.len));
        let bytes = self.device.bytes(piece.frame).and_then(|bytes| bytes.get(begin..end));
        let bytes = bytes.ok_or(Malformed::Truncated)?;
        if self.device.capabilities().link == Link::Ip {
            let is_v6 = bytes.first().is_some_and(|byte| byte >> 4 == 6);
            return Ok(Kind::Datagram(seen((bytes, beyond), is_v6, (piece.frame, piece.offset), true)?));
        }
        let (frame, payload) = ethernet::parse(bytes)?;
        let interface = &self.parts.ip.interface;
        let is_for_us = frame.destination == interface.link;
        if !is_for_us && !frame.destination.is_multicast() || !interface.takes(&frame.tags) {
            return Ok(Kind::NotOurs);
        }
        let at = piece.offset + (bytes.len() - payload.len()) as u16;
        match frame.ethertype {
            ethernet::ARP => Ok(Kind::Arp(arp::parse(payload)?.0)),
            ethernet::IPV4 => {
                Ok(Kind::Datagram(seen((payload, beyond), false, (piece.frame, at), is_for_us)?))
            }
            ethernet::IPV6 => {
                Ok(Kind::Datagram(seen((payload, beyond), true, (piece.frame, at), is_for_us)?))
            }
            _ => Ok(Kind::Unknown),
        }
    }

    /// Whether no host may send from an address, at least not to us: RFC 1122 §3.2.1.3, RFC 4291 §2.5.2, §2.7; one of our own
    /// is the land attack's (fib_validate_source).
    pub(super) fn is_martian(&self, source: &Ip) -> bool {
        let is_nobodys = match source.as_v4() {
            // This network, loopback, groups.
            Some([first, ..]) => matches!(first, 0 | 127 | 224..=239) || source.is_broadcast(),
            None => source.is_multicast() || source.is_loopback() || source.is_unspecified(),
        };
        is_nobodys || self.parts.is_ours(source) || self.parts.is_subnet_broadcast(source)
    }

    /// A datagram; true if its frame is kept.
    pub(super) fn datagram(&mut self, seen: &Seen) -> bool {
        if !self.is_welcome(seen) {
            return false;
        }
        if seen.fragment.is_some() {
            return self.fragment(seen);
        }
        // A segment behind options of IP.
        if seen.protocol == protocol::TCP && !self.is_for_many(&seen.destination) {
            return self.joined(seen);
        }
        self.payload(seen)
    }

    /// Whether a datagram is for us, and from somebody who may send it.
    pub(super) fn is_welcome(&self, seen: &Seen) -> bool {
        let destination = &seen.destination;
        let is_many = self.is_for_many(destination);
        // RFC 1112 §7.2: what is for a group that nobody here is in is discarded.
        let is_ours = match destination.is_multicast() {
            true => self.parts.listens_to(destination),
            false => is_many || self.parts.is_ours(destination),
        };
        // RFC 1122 §3.3.6: "A host SHOULD silently discard a datagram that is received via a link-layer broadcast (see
        // Section 2.4) but does not specify an IP multicast or broadcast destination address."
        let is_whole = seen.is_for_us || is_many;
        if !is_ours || !is_whole || seen.is_source_routed {
            self.count(Counter::NotOurs);
            return false;
        }
        // Who asks whether an address is taken has none yet (RFC 4862 §5.4.2).
        let kind = seen.bytes(&*self.device, seen.payload).first();
        let is_question = seen.protocol == protocol::ICMPV6
            && seen.source == Ip::UNSPECIFIED
            && kind == Some(&ndisc::NEIGHBOR_SOLICITATION);
        if self.is_martian(&seen.source) && !is_question {
            self.count(Counter::Martians);
            return false;
        }
        true
    }

    fn is_for_many(&self, destination: &Ip) -> bool {
        destination.is_multicast()
            || destination.is_broadcast()
            || self.parts.is_subnet_broadcast(destination)
    }

    /// A datagram that was put together; true if its frame is kept.
    pub(super) fn joined(&mut self, seen: &Seen) -> bool {
        let mut seen = *seen;
        if !seen.source.is_v4() {
            // What the first fragment began with may be an extension header.
            match ipv6::walk(seen.protocol, seen.bytes(&*self.device, seen.payload), false) {
                Ok((chain, rest)) => {
                    (seen.protocol, seen.payload) = (chain.protocol, seen.end - rest.len() as u16);
                }
                Err(rule) => {
                    self.shared.counters().malformed(rule);
                    return false;
                }
            }
        }
        if seen.protocol != protocol::TCP {
            return self.payload(&seen);
        }
        let seen = Seen { checksum: Checksum::Unchecked, ..seen };
        match self.segment_of(&seen, &[]) {
            // It may be somebody else's: steering tells nobody whose a fragment is.
            Ok(segment) if !self.parts.ip.interface.owns() && !self.is_taken(&segment) => {
                self.count(Counter::NotOurs);
                false
            }
            Ok(segment) => {
                if let Some(socket) = self.segment(segment) {
                    self.output(socket);
                }
                true
            }
            Err(rule) => {
                self.shared.counters().malformed(rule);
                false
            }
        }
    }

    /// What a whole datagram carries, but for a segment; true if its frame is kept.
    fn payload(&mut self, seen: &Seen) -> bool {
        match seen.protocol {
            protocol::UDP => return self.udp_arrived(seen),
            protocol::ICMP if seen.source.is_v4() => self.icmp(seen),
            protocol::ICMPV6 if !seen.source.is_v4() => self.icmp_v6(seen),
            igmp::IGMP if seen.source.is_v4() => self.listeners(seen),
            // To many, on the link or beyond: what is for us alone was seen before.
            protocol::TCP => self.count(Counter::NotOurs),
            _ => {
                self.count(Counter::UnknownProtocol);
                self.tell_unknown_protocol(seen);
            }
        }
        false
    }

    /// What an answer depends on.
    pub(super) fn invoking(&self, seen: &Seen) -> Invoking {
        let is_icmp = matches!(seen.protocol, protocol::ICMP | protocol::ICMPV6);
        let first = seen.bytes(&*self.device, seen.payload).first();
        Invoking {
            source: seen.source,
            destination: seen.destination,
            protocol: seen.protocol,
            icmp_kind: first.copied().filter(|_| is_icmp),
            is_later_fragment: seen.fragment.is_some_and(|fragment| fragment.offset != 0),
            is_for_us_on_the_link: seen.is_for_us,
            is_subnet_broadcast: self.parts.is_subnet_broadcast(&seen.destination),
        }
    }
}

/// Reads the datagram in these bytes and so many in other frames, which begin at `at` in their frame.
fn seen(
    (bytes, beyond): (&[u8], usize),
    is_v6: bool,
    (frame, at): (FrameIndex, u16),
    is_for_us: bool,
) -> Result<Seen, Malformed> {
    let place = |payload: &[u8]| {
        let begin = at + (payload.as_ptr() as usize - bytes.as_ptr() as usize) as u16;
        (begin, begin + payload.len() as u16)
    };
    if is_v6 {
        let (datagram, rest, beyond) = ipv6::parse_front(bytes, beyond)?;
        let (header, chain) = (datagram.header, datagram.chain);
        let (payload, end) = place(rest);
        return Ok(Seen {
            frame,
            begin: at,
            end,
            beyond: beyond as u16,
            payload,
            source: header.source,
            destination: header.destination,
            protocol: chain.protocol,
            ttl: header.hop_limit,
            ecn: header.ecn(),
            fragment: chain.fragment,
            is_for_us,
            checksum: Checksum::Unchecked,
            joined: 0,
            arrived: Instant(0),
            has_options: false,
            is_source_routed: false,
        });
    }
    let (datagram, rest, beyond) = ipv4::parse_front(bytes, beyond)?;
    let header = datagram.header;
    let (payload, end) = place(rest);
    Ok(Seen {
        frame,
        begin: at,
        end,
        beyond: beyond as u16,
        payload,
        source: header.source(),
        destination: header.destination(),
        protocol: header.protocol,
        ttl: header.ttl,
        ecn: header.ecn(),
        fragment: datagram.fragment(),
        is_for_us,
        checksum: Checksum::Unchecked,
        joined: 0,
        arrived: Instant(0),
        has_options: !datagram.options.is_empty(),
        is_source_routed: is_source_routed(datagram.options),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_route_is_found_among_other_options() {
        assert!(!is_source_routed(&[]) && !is_source_routed(&[1, 1, 7, 3, 4, 0]));
        assert!(is_source_routed(&[1, 7, 3, 4, 131, 3, 4]) && is_source_routed(&[137, 3, 4, 0]));
        // Behind the end of options there is nothing.
        assert!(!is_source_routed(&[0, 131, 3, 4]));
    }
}
