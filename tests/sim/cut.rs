//! What a device with offloads does to packets: it completes checksums, cuts text into segments, and joins segments.

use stack::device::{ChecksumRequest, Link};
use stack::wire::checksum::Sum;
use stack::wire::{ethernet, ipv4, ipv6, protocol, tcp, udp};

use super::port::Packet;

/// FIN and PSH are the last segment's, CWR the first's (RFC 3168 §6.1.2).
const LAST_ONLY: u8 = 0x09;
const FIRST_ONLY: u8 = 0x80;

/// Completes the checksum of a packet that asks for it.
pub(super) fn complete(packet: &mut Packet) {
    let Some(ChecksumRequest { start, offset }) = packet.checksum.take() else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let sum = packet.bytes.get(start..).map(|bytes| Sum::ZERO.bytes(bytes).checksum());
    if let (Some(sum), Some(field)) = (sum, packet.bytes.get_mut(at..at + 2)) {
        // UDP's zero means none (RFC 768); the two zeros of ones' complement are one for TCP.
        field.copy_from_slice(&if sum == 0 { 0xffffu16 } else { sum }.to_be_bytes());
    }
}

/// Where the headers of a packet are: IP, transport, text; and the transport.
struct Places {
    ip: usize,
    transport: usize,
    text: usize,
    protocol: u8,
}

fn places(bytes: &[u8], link: Link) -> Option<Places> {
    let ip = match link {
        Link::Ethernet => bytes.len() - ethernet::parse(bytes).ok()?.1.len(),
        Link::Ip => 0,
    };
    let datagram = bytes.get(ip..)?;
    // Headers by their own lengths: the whole may be longer than a length field says.
    let (transport, protocol) = match datagram.first()? >> 4 {
        4 => (ip + usize::from(datagram[0] & 15) * 4, *datagram.get(9)?),
        6 => (ip + 40, *datagram.get(6)?),
        _ => return None,
    };
    let text = match protocol {
        protocol::TCP => transport + usize::from(bytes.get(transport + 12)? >> 4) * 4,
        protocol::UDP => transport + 8,
        _ => return None,
    };
    (text <= bytes.len()).then_some(Places { ip, transport, text, protocol })
}

/// Cuts a packet into segments of its `gso_size`, each with headers of its own and a whole checksum. One that can't be cut is
/// passed on as it is.
pub(super) fn cut(packet: &Packet, link: Link, spare: &mut Vec<Vec<u8>>, mut each: impl FnMut(Packet)) {
    let size = usize::from(packet.gso_size);
    let Some(places) = places(&packet.bytes, link).filter(|_| size > 0) else {
        let mut whole = Packet { gso_size: 0, ..packet.clone() };
        complete(&mut whole);
        return each(whole);
    };
    let (headers, text) = packet.bytes.split_at(places.text);
    let count = text.len().div_ceil(size).max(1);
    for (number, piece) in text.chunks(size).enumerate() {
        let mut bytes = spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(piece);
        fix_headers(&mut bytes, &places, number, count, size, packet.bytes.len());
        let offset = if places.protocol == protocol::TCP { 16 } else { 6 };
        let checksum = Some(ChecksumRequest { start: places.transport as u16, offset });
        let mut segment = Packet { bytes, gso_size: 0, checksum };
        complete(&mut segment);
        each(segment);
    }
}

/// Makes the headers of the whole those of one segment, the pseudo-header's sum in the checksum field with them.
fn fix_headers(bytes: &mut [u8], places: &Places, number: usize, count: usize, size: usize, whole: usize) {
    let len = bytes.len();
    let Places { ip, transport, .. } = *places;
    let is_v4 = bytes[ip] >> 4 == 4;
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let put = |bytes: &mut [u8], at: usize, word: u16| {
        bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    };
    if is_v4 {
        put(bytes, ip + 2, (len - ip) as u16);
        let identification = word(bytes, ip + 4).wrapping_add(number as u16);
        put(bytes, ip + 4, identification);
        put(bytes, ip + 10, 0);
        let sum = Sum::ZERO.bytes(&bytes[ip..transport]).checksum();
        put(bytes, ip + 10, sum);
    } else {
        put(bytes, ip + 4, (len - ip - 40) as u16);
    }
    // The field holds the pseudo-header's sum with the whole's length: that length out, this one's in.
    let field = transport + if places.protocol == protocol::TCP { 16 } else { 6 };
    let (old, new) = ((whole - transport) as u32, (len - transport) as u32);
    let partial = Sum::ZERO.word(word(bytes, field)).word(!((old >> 16) as u16)).word(!(old as u16));
    put(bytes, field, partial.word((new >> 16) as u16).word(new as u16).fold());
    if places.protocol == protocol::TCP {
        let seq = &mut bytes[transport + 4..transport + 8];
        let next = u32::from_be_bytes([seq[0], seq[1], seq[2], seq[3]]).wrapping_add((number * size) as u32);
        seq.copy_from_slice(&next.to_be_bytes());
        let flags = &mut bytes[transport + 13];
        *flags &= !if number + 1 < count { LAST_ONLY } else { 0 };
        *flags &= !if number > 0 { FIRST_ONLY } else { 0 };
    } else {
        put(bytes, transport + 4, (len - transport) as u16);
    }
}

/// Adds the text of a segment to that of the one before it, as Linux's GRO does (`tcp_gro_receive`): both of one connection and
/// right, the same but for sequence number, PSH and FIN, the second following the first and not longer. False if they
/// aren't to be joined.
pub(super) fn join(held: &mut Packet, next: &Packet, link: Link) -> bool {
    let (Some(first), Some(second)) = (places(&held.bytes, link), places(&next.bytes, link)) else {
        return false;
    };
    let text = next.bytes.len() - second.text;
    let held_text = held.bytes.len() - first.text;
    let size = if held.gso_size > 0 { usize::from(held.gso_size) } else { held_text };
    let is_plain = held.checksum.is_none() && next.checksum.is_none() && next.gso_size == 0;
    let whole = held.bytes.len() - first.ip + text;
    if first.protocol != protocol::TCP || first.text != second.text || !is_plain || whole > 65_535 {
        return false;
    }
    // What was shorter than the first, or pushed, was the last.
    let tcp = first.transport;
    let is_open = held.bytes[tcp + 13] & LAST_ONLY == 0 && held_text.is_multiple_of(size.max(1));
    if text == 0 || text > size || !is_open || !is_valid(&held.bytes, link) || !is_valid(&next.bytes, link) {
        return false;
    }
    let seq =
        |bytes: &[u8]| u32::from_be_bytes([bytes[tcp + 4], bytes[tcp + 5], bytes[tcp + 6], bytes[tcp + 7]]);
    if seq(&next.bytes) != seq(&held.bytes).wrapping_add(held_text as u32) {
        return false;
    }
    let is_v4 = held.bytes[first.ip] >> 4 == 4;
    let differs = |at: usize| {
        let relative = at.wrapping_sub(first.ip);
        // Lengths, identification and sums, then what was looked at above.
        let is_free = match (at >= tcp, is_v4) {
            (true, _) => matches!(at - tcp, 4..8 | 13 | 16 | 17),
            (false, true) => matches!(relative, 2..6 | 10 | 11),
            (false, false) => matches!(relative, 4 | 5),
        };
        !is_free && held.bytes[at] != next.bytes[at]
    };
    let flags = (held.bytes[tcp + 13] ^ next.bytes[tcp + 13]) & !LAST_ONLY;
    if flags != 0 || (0..first.text).any(differs) {
        return false;
    }
    held.gso_size = size as u16;
    held.bytes[tcp + 13] |= next.bytes[tcp + 13];
    held.bytes.extend_from_slice(&next.bytes[second.text..]);
    set_lengths(&mut held.bytes, &first);
    true
}

/// Writes the length of a segment that grew into IP's header, and makes both checksums right again.
fn set_lengths(bytes: &mut [u8], places: &Places) {
    let Places { ip, transport, .. } = *places;
    let len = bytes.len();
    let put = |bytes: &mut [u8], at: usize, word: u16| {
        bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
    };
    if bytes[ip] >> 4 == 4 {
        put(bytes, ip + 2, (len - ip) as u16);
        put(bytes, ip + 10, 0);
        let sum = Sum::ZERO.bytes(&bytes[ip..transport]).checksum();
        put(bytes, ip + 10, sum);
    } else {
        put(bytes, ip + 4, (len - ip - 40) as u16);
    }
    let new_len = len - transport;
    put(bytes, transport + 16, 0);
    let addresses = if bytes[ip] >> 4 == 4 { &bytes[ip + 12..ip + 20] } else { &bytes[ip + 8..ip + 40] };
    let pseudo = Sum::ZERO
        .bytes(addresses)
        .word(protocol::TCP.into())
        .word((new_len >> 16) as u16)
        .word(new_len as u16);
    let sum = pseudo.bytes(&bytes[transport..]).checksum();
    put(bytes, transport + 16, sum);
}

/// Whether the transport checksum of a packet is right.
pub(super) fn is_valid(bytes: &[u8], link: Link) -> bool {
    let datagram = match link {
        Link::Ethernet => ethernet::parse(bytes).map(|(_, payload)| payload),
        Link::Ip => Ok(bytes),
    };
    let Ok(datagram) = datagram else { return false };
    let parsed = if datagram.first().is_some_and(|byte| byte >> 4 == 6) {
        ipv6::parse(datagram)
            .map(|(ip, rest)| (ip.header.source, ip.header.destination, ip.chain.protocol, rest))
    } else {
        ipv4::parse(datagram)
            .map(|(ip, rest)| (ip.header.source(), ip.header.destination(), ip.header.protocol, rest))
    };
    let Ok((from, to, protocol, payload)) = parsed else { return false };
    match protocol {
        protocol::TCP => tcp::verify(payload, &from, &to).is_ok(),
        protocol::UDP => udp::parse(payload, from.is_v4())
            .is_ok_and(|(header, data)| udp::verify(header, data, &from, &to).is_ok()),
        _ => false,
    }
}
