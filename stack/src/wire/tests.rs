//! What holds for every format: no bytes whatever make a parser panic or reach outside of them; and every rule
//! is one that some packet breaks.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::ethernet::{ARP, Frame, IPV4, IPV6};
use super::ip::Ip;
use super::*;

/// A part is inside the whole: by place, not by content.
fn within(part: &[u8], whole: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

/// Takes bytes as every format in turn, prints what comes out, and follows a frame to its end. Tells the rules
/// that were broken.
fn swallow(bytes: &[u8], met: &mut BTreeSet<Malformed>) {
    let six = (Ip([0x20; 16]), Ip([0x21; 16]));
    frame(bytes, met);
    network(IPV4, bytes, met);
    network(IPV6, bytes, met);
    network(ARP, bytes, met);
    for number in [protocol::ICMP, protocol::TCP, protocol::UDP] {
        transport(number, bytes, &Ip::BROADCAST, &Ip::UNSPECIFIED_V4, 64, met);
        transport(number, bytes, &six.0, &six.1, 64, met);
    }
    transport(protocol::ICMPV6, bytes, &six.0, &six.1, 255, met);
    neighbor(bytes, &six.0, &six.1, 255, met);
    quoted(bytes, true, bytes, met);
    quoted(bytes, false, bytes, met);
    for first in [false, true] {
        for next_header in [0, 43, 44, 60] {
            if let Some((_, payload)) = kept(ipv6::walk(next_header, bytes, first), met) {
                assert!(within(payload, bytes));
            }
        }
    }
}

fn kept<T>(result: Result<T, Malformed>, met: &mut BTreeSet<Malformed>) -> Option<T> {
    result.map_err(|rule| met.insert(rule)).ok()
}

fn frame(bytes: &[u8], met: &mut BTreeSet<Malformed>) {
    if let Some((frame, payload)) = kept(ethernet::parse(bytes), met) {
        assert!(within(payload, bytes) && !frame.to_string().is_empty());
        network(frame.ethertype, payload, met);
    }
}

fn network(ethertype: u16, bytes: &[u8], met: &mut BTreeSet<Malformed>) {
    match ethertype {
        IPV4 => {
            if let Some((datagram, payload)) = kept(ipv4::parse(bytes), met) {
                let header = datagram.header;
                assert!(within(payload, bytes) && within(datagram.options, bytes));
                assert!(!datagram.to_string().is_empty());
                transport(header.protocol, payload, &header.source(), &header.destination(), header.ttl, met);
            }
        }
        IPV6 => {
            if let Some((datagram, payload)) = kept(ipv6::parse(bytes), met) {
                let header = datagram.header;
                assert!(within(payload, bytes) && !datagram.to_string().is_empty());
                let (from, to) = (&header.source, &header.destination);
                transport(datagram.chain.protocol, payload, from, to, header.hop_limit, met);
            }
        }
        ARP => {
            if let Some((packet, rest)) = kept(arp::parse(bytes), met) {
                assert!(within(rest, bytes) && !packet.to_string().is_empty());
            }
        }
        _ => {}
    }
}

fn transport(number: u8, bytes: &[u8], from: &Ip, to: &Ip, hops: u8, met: &mut BTreeSet<Malformed>) {
    match number {
        protocol::TCP => {
            kept(tcp::verify(bytes, from, to), met);
            if let Some((segment, text)) = kept(tcp::parse(bytes), met) {
                assert!(within(text, bytes) && within(segment.options, bytes));
                assert!(!segment.to_string().is_empty() && segment.text_len == text.len());
                met.extend(tcp::options::Options::parse(segment.options).stopped);
            }
        }
        protocol::UDP => {
            if let Some((header, data)) = kept(udp::parse(bytes, from.is_v4()), met) {
                assert!(within(data, bytes) && !header.to_string().is_empty());
                kept(udp::verify(header, data, from, to), met);
            }
        }
        protocol::ICMP => {
            if let Some((message, payload)) = kept(icmp::parse(bytes), met) {
                assert!(within(payload, bytes) && !message.to_string().is_empty());
                if matches!(message, icmp::Message::Unreachable(_) | icmp::Message::TimeExceeded { .. }) {
                    quoted(payload, true, bytes, met);
                }
            }
        }
        protocol::ICMPV6 => {
            if let Some((message, payload)) = kept(icmpv6::parse(bytes, from, to), met) {
                assert!(within(payload, bytes) && !message.to_string().is_empty());
                match message {
                    icmpv6::Message::Other { kind: 133..=136, .. } => neighbor(bytes, from, to, hops, met),
                    icmpv6::Message::PacketTooBig { .. } => quoted(payload, false, bytes, met),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn neighbor(bytes: &[u8], from: &Ip, to: &Ip, hops: u8, met: &mut BTreeSet<Malformed>) {
    if let Some((message, _)) = kept(ndisc::parse(bytes, from, to, hops), met) {
        assert!(!message.to_string().is_empty());
    }
}

fn quoted(payload: &[u8], is_v4: bool, bytes: &[u8], met: &mut BTreeSet<Malformed>) {
    if let Some(about) = kept(icmp::quoted(payload, is_v4), met) {
        assert!(about.transport.is_empty() || within(about.transport, bytes));
    }
}

/// Whole frames, each right in all its layers.
fn frames() -> Vec<Vec<u8>> {
    let (four, six) = ((Ip::v4([10, 0, 0, 1]), Ip::v4([10, 0, 0, 2])), (Ip([0xfe; 16]), Ip([0x20; 16])));
    let mut six = six;
    (six.0.0[1], six.1.0[15]) = (0x80, 9);
    let mut made = Vec::new();
    for (from, to) in [four, six] {
        let options = tcp::options::Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(tcp::options::Timestamps { tsval: 1, tsecr: 2 }),
            ..Default::default()
        };
        let mut bytes = [0; 100];
        let len = tcp::Header::default().emit(tcp::Flags::SYN, &options, &mut bytes).expect("room");
        tcp::fill_checksum(&mut bytes[..len], &from, &to, checksum::Sum::ZERO, 0).expect("a header");
        made.push(datagram(&from, &to, protocol::TCP, &bytes[..len]));
        let sum = checksum::Sum::ZERO.bytes(b"abc");
        let len = udp::Header::emit((&from, 1), (&to, 2), 3, Some(sum), &mut bytes).expect("room");
        bytes[len..len + 3].copy_from_slice(b"abc");
        made.push(datagram(&from, &to, protocol::UDP, &bytes[..len + 3]));
    }
    let mut bytes = [0; 300];
    let echo =
        icmp::Message::EchoRequest { identifier: 1, sequence: 2 }.emit(b"abc", &mut bytes).expect("room");
    made.push(datagram(&four.0, &four.1, protocol::ICMP, &bytes[..echo]));
    let error = icmpv6::Message::PacketTooBig { mtu: 1280 };
    let len = error.emit(&six.0, &six.1, &made[2][14..], &mut bytes).expect("room");
    made.push(datagram(&six.0, &six.1, protocol::ICMPV6, &bytes[..len]));
    let options = ndisc::Options {
        source_link: Some(ethernet::Address([2; 6])),
        mtu: Some(1500),
        ..Default::default()
    };
    let message = ndisc::Message::NeighborSolicitation { target: six.1 };
    let len = message.emit(&options, &six.0, &six.1, &mut bytes).expect("room");
    made.push(datagram(&six.0, &six.1, protocol::ICMPV6, &bytes[..len]));
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_hardware: ethernet::Address([2; 6]),
        sender_protocol: four.0,
        target_hardware: ethernet::Address([0; 6]),
        target_protocol: four.1,
    };
    let len = packet.emit(&mut bytes).expect("room");
    made.push(link(ARP, &bytes[..len]));
    made
}

fn datagram(from: &Ip, to: &Ip, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 40];
    let (len, ethertype) = if let Some(header) = ipv4::Header::new(from, to, number, 64) {
        (header.emit(payload.len(), &mut bytes), IPV4)
    } else {
        let header = ipv6::Header::new(from, to, number, 255).expect("of IPv6");
        (header.emit(payload.len(), &mut bytes), IPV6)
    };
    link(ethertype, &[&bytes[..len.expect("room")], payload].concat())
}

fn link(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let address = ethernet::Address([2; 6]);
    let frame = Frame { destination: address, source: address, tags: [None; 2], ethertype };
    let mut bytes = [0; 22];
    let len = frame.emit(&mut bytes).expect("room");
    [&bytes[..len], payload].concat()
}

#[test]
fn whole_frames_break_no_rule() {
    for bytes in frames() {
        let mut met = BTreeSet::new();
        frame(&bytes, &mut met);
        assert!(met.is_empty(), "{met:?}: {bytes:x?}");
    }
}

/// One flipped or cut byte at a time, in every place and to every value: all but a few rules are met.
#[test]
fn every_neighbour_of_a_frame_is_survived() {
    let mut met = BTreeSet::new();
    for whole in frames() {
        for at in 0..whole.len() {
            frame(&whole[..at], &mut met);
            let mut bytes = whole.clone();
            for value in 0..=255 {
                bytes[at] = value;
                frame(&bytes, &mut met);
            }
        }
    }
    for rule in [Malformed::Truncated, Malformed::EtherType, Malformed::Checksum, Malformed::HeaderChecksum] {
        assert!(met.contains(&rule), "{rule}");
    }
}

#[test]
fn the_rules_are_numbered_and_named() {
    let names: BTreeSet<String> = Malformed::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), Malformed::ALL.len());
    for (index, rule) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(rule as usize, index, "{rule}");
    }
    assert_eq!(Malformed::NeighborOption as usize + 1, Malformed::ALL.len());
}

/// Each rule is named in a test of its format, beside the packet that breaks it.
#[test]
fn every_rule_is_met_by_a_test() {
    let texts = [
        include_str!("ethernet.rs"),
        include_str!("arp.rs"),
        include_str!("ipv4.rs"),
        include_str!("ipv6/tests.rs"),
        include_str!("icmp.rs"),
        include_str!("ndisc/tests.rs"),
        include_str!("udp.rs"),
        include_str!("tcp/tests.rs"),
    ];
    // The tests are the end of a file, or all of it.
    let tests: Vec<&str> =
        texts.iter().map(|text| text.split_once("mod tests {").map_or(*text, |(_, tests)| tests)).collect();
    for rule in Malformed::ALL {
        let name = format!("Malformed::{rule:?}");
        let ends = |rest: &str| !rest.starts_with(|letter: char| letter.is_alphanumeric());
        let met = tests.iter().any(|text| text.split(&name).skip(1).any(ends));
        assert!(met, "no test meets {name}");
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn random_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        swallow(&bytes, &mut BTreeSet::new());
    }

    #[test]
    fn mutated_frames_are_survived(which in any::<usize>(), changes in proptest::collection::vec(any::<(usize, u8)>(), 0..6), cut in 0usize..40) {
        let frames = frames();
        let mut bytes = frames[which % frames.len()].clone();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let len = bytes.len().saturating_sub(cut.saturating_sub(20));
        let mut met = BTreeSet::new();
        frame(&bytes[..len], &mut met);
        // Without the checksums of the layers around it, each layer sees the change.
        for start in [14, 34, 54] {
            swallow(bytes[..len].get(start..).unwrap_or_default(), &mut met);
        }
    }
}
