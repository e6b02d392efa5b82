//! Packets as routers, strangers and attackers write them, whole Ethernet frames from the host 3.

use stack::wire::checksum::Sum;
use stack::wire::ethernet::{self, Address, Tag};
use stack::wire::ip::{Fragment, Ip};
use stack::wire::tcp::options::Options;
use stack::wire::tcp::{self, Flags, Header};
use stack::wire::{icmp, icmpv6, ipv4, ipv6, protocol, udp};

/// Their address on the link.
pub const STRANGER: u8 = 3;

/// The address on the link of the host with this number.
#[must_use]
pub const fn address(number: u8) -> Address {
    Address([2, 0, 0, 0, 0, number])
}

/// A frame to this address with these tags.
#[must_use]
pub fn frame(to: Address, tags: [Option<Tag>; 2], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let head = ethernet::Frame { destination: to, source: address(STRANGER), tags, ethertype };
    let mut bytes = vec![0; 22 + payload.len()];
    let len = head.emit(&mut bytes).expect("room");
    bytes.truncate(len);
    bytes.extend_from_slice(payload);
    bytes
}

/// A datagram, or a fragment of one.
#[must_use]
pub fn datagram(from: Ip, to: Ip, protocol: u8, place: Option<Fragment>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 48];
    let len = if from.is_v4() {
        let header = ipv4::Header::new(&from, &to, protocol, 64).expect("IPv4");
        let name = place.map_or(0, |place| place.identification as u16);
        let header = if place.is_some() { header.fragment(place, name) } else { header };
        header.emit(payload.len(), &mut bytes).expect("room")
    } else {
        let next = if place.is_some() { ipv6::FRAGMENT } else { protocol };
        let added = place.map_or(0, |place| {
            ipv6::emit_fragment(protocol, place, &mut bytes[ipv6::HEADER_LEN..]).expect("room")
        });
        let header = ipv6::Header::new(&from, &to, next, 64).expect("IPv6");
        header.emit(payload.len() + added, &mut bytes).expect("room") + added
    };
    bytes.truncate(len);
    bytes.extend_from_slice(payload);
    bytes
}

/// The same in a frame to the host `host`.
#[must_use]
pub fn packet(host: u8, from: Ip, to: Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
    frame(address(host), [None; 2], ethertype(&from), &datagram(from, to, protocol, None, payload))
}

/// The link's type of what comes from this address.
#[must_use]
pub fn ethertype(ip: &Ip) -> u16 {
    if ip.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 }
}

/// A segment without text.
#[must_use]
pub fn segment(from: (Ip, u16), to: (Ip, u16), seq: u32, flags: Flags) -> Vec<u8> {
    let header = Header {
        source: from.1.into(),
        destination: to.1.into(),
        sequence: seq.into(),
        window: 65_000.into(),
        ..Header::default()
    };
    let mut bytes = vec![0; tcp::HEADER_LEN];
    header.emit(flags, &Options::default(), &mut bytes).expect("room");
    tcp::fill_checksum(&mut bytes, &from.0, &to.0, Sum::ZERO, 0).expect("a header");
    bytes
}

/// A datagram of UDP.
#[must_use]
pub fn udp(from: (Ip, u16), to: (Ip, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; udp::HEADER_LEN];
    let sum = Some(Sum::ZERO.bytes(data));
    udp::Header::emit((&from.0, from.1), (&to.0, to.1), data.len(), sum, &mut bytes).expect("room");
    bytes.extend_from_slice(data);
    bytes
}

/// A message of ICMP.
#[must_use]
pub fn icmp(message: &icmp::Message, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; icmp::HEADER_LEN + data.len()];
    message.emit(data, &mut bytes).expect("room");
    bytes
}

/// A message of ICMPv6.
#[must_use]
pub fn icmp_v6(from: Ip, to: Ip, message: &icmpv6::Message, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; icmp::HEADER_LEN + data.len()];
    message.emit(&from, &to, data, &mut bytes).expect("room");
    bytes
}

/// What an error quotes of a segment with this sequence number: its first bytes.
#[must_use]
pub fn quoted(from: (Ip, u16), to: (Ip, u16), seq: u32) -> Vec<u8> {
    datagram(from.0, to.0, protocol::TCP, None, &segment(from, to, seq, Flags::ACK))
}

/// What a frame carries of IP: protocol, addresses, its place if it is a fragment, payload.
pub type Opened = (u8, Ip, Ip, Option<Fragment>, Vec<u8>);

/// The datagram in a frame.
#[must_use]
pub fn opened(bytes: &[u8]) -> Option<Opened> {
    let (frame, rest) = ethernet::parse(bytes).ok()?;
    match frame.ethertype {
        ethernet::IPV4 => {
            let (datagram, payload) = ipv4::parse(rest).ok()?;
            let header = datagram.header;
            let ends = (header.source(), header.destination());
            Some((header.protocol, ends.0, ends.1, datagram.fragment(), payload.to_vec()))
        }
        ethernet::IPV6 => {
            let (datagram, payload) = ipv6::parse(rest).ok()?;
            let (header, chain) = (datagram.header, datagram.chain);
            Some((chain.protocol, header.source, header.destination, chain.fragment, payload.to_vec()))
        }
        _ => None,
    }
}
