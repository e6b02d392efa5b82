//! Every parser: what it returns lies inside of what it was given, prints, and where it can be written again reads the same.

use harness::sim::random::Random;
use stack::wire::ip::Ip;
use stack::wire::tcp::options::Options;
use stack::wire::{arp, ethernet, icmp, icmpv6, ipv4, ipv6, ndisc, protocol, tcp, udp};

use super::lone::{OURS, THEIRS, checksum};
use super::{Target, as_it_is};

const OURS_V6: Ip = harness::sim::raw::ip6(1);
const THEIRS_V6: Ip = harness::sim::raw::ip6(2);

/// Whether a piece is a part of the whole.
fn assert_inside(whole: &[u8], piece: &[u8]) {
    let (whole, piece) = (whole.as_ptr_range(), piece.as_ptr_range());
    assert!(whole.start <= piece.start && piece.end <= whole.end, "outside of the input");
}

fn run_ethernet(bytes: &[u8]) {
    let Ok((frame, payload)) = ethernet::parse(bytes) else { return };
    assert_inside(bytes, payload);
    let _ = (frame.to_string(), frame.destination.is_multicast());
    let mut again = [0; 64];
    let len = frame.emit(&mut again).expect("room");
    assert_eq!(ethernet::parse(&again[..len]).map(|(frame, _)| frame), Ok(frame));
}

fn run_arp(bytes: &[u8]) {
    let Ok((packet, rest)) = arp::parse(bytes) else { return };
    assert_inside(bytes, rest);
    let _ = packet.to_string();
    let mut again = [0; 64];
    let len = packet.emit(&mut again).expect("room");
    assert_eq!(arp::parse(&again[..len]).map(|(packet, _)| packet.to_string()), Ok(packet.to_string()));
}

fn run_ipv4(bytes: &[u8]) {
    let Ok((datagram, payload)) = ipv4::parse(bytes) else { return };
    assert_inside(bytes, payload);
    let _ = (datagram.header.source(), datagram.header.destination(), datagram.header.ecn());
    if let Some(fragment) = datagram.fragment() {
        let _ = format!("{fragment:?}");
    }
}

fn run_ipv6(bytes: &[u8]) {
    let Ok((datagram, payload)) = ipv6::parse(bytes) else { return };
    assert_inside(bytes, payload);
    let _ = (datagram.header.ecn(), datagram.header.flow_label(), datagram.chain.protocol);
    for first in [false, true] {
        let _ = ipv6::walk(bytes[0], &bytes[1..], first);
    }
}

fn run_tcp(bytes: &[u8]) {
    let Ok((segment, text)) = tcp::parse(bytes) else { return };
    assert_inside(bytes, text);
    assert_inside(bytes, segment.options);
    let _ = (segment.to_string(), segment.len(), segment.only_timestamps());
    let _ = tcp::verify(bytes, &OURS, &THEIRS);
    run_options(segment.options);
}

fn run_options(bytes: &[u8]) {
    let options = Options::parse(bytes);
    let mut again = [0; 80];
    if options.len() <= 40
        && let Some(len) = options.emit(&mut again)
    {
        assert!(len <= 40 && len % 4 == 0, "{len}");
        let whole = Options { stopped: None, signed: false, ..options };
        assert_eq!(Options::parse(&again[..len]), whole, "what is written is read");
    }
    assert!(options.window_scale.is_none_or(|shift| shift <= 14), "RFC 7323 §2.3");
    assert!(options.sack.as_slice().len() <= 4);
}

fn run_udp(bytes: &[u8]) {
    for is_v4 in [true, false] {
        let Ok((header, data)) = udp::parse(bytes, is_v4) else { continue };
        assert_inside(bytes, data);
        let _ = udp::verify(header, data, &OURS, &THEIRS);
    }
}

fn run_icmp(bytes: &[u8]) {
    if let Ok((message, payload)) = icmp::parse(bytes) {
        assert_inside(bytes, payload);
        let _ = format!("{message:?}");
    }
    for is_v4 in [true, false] {
        if let Ok(quoted) = icmp::quoted(bytes, is_v4) {
            let _ = quoted.ports_and_sequence();
        }
    }
}

fn run_icmpv6(bytes: &[u8]) {
    if let Ok((message, payload)) = icmpv6::parse(bytes, &THEIRS_V6, &OURS_V6) {
        assert_inside(bytes, payload);
        let _ = format!("{message:?}");
    }
}

fn run_ndisc(bytes: &[u8]) {
    if let Ok(parsed) = ndisc::parse(bytes, &THEIRS_V6, &OURS_V6, 255) {
        let _ = format!("{parsed:?}");
    }
}

/// IPv4's header gets its right checksum.
fn mend_ipv4(bytes: &mut [u8], _: &mut Random) {
    let len = usize::from(bytes.first().map_or(0, |first| first & 0xf)) * 4;
    if len >= 20 && bytes.len() >= len {
        bytes[10..12].fill(0);
        let sum = checksum(&bytes[..len]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// ICMP's message gets its right checksum.
fn mend_icmp(bytes: &mut [u8], _: &mut Random) {
    if bytes.len() >= 4 {
        bytes[2..4].fill(0);
        let sum = checksum(bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The same with IPv6's pseudo-header.
fn mend_icmpv6(bytes: &mut [u8], _: &mut Random) {
    if bytes.len() >= 4 {
        bytes[2..4].fill(0);
        let sum = stack::wire::checksum::pseudo(&THEIRS_V6, &OURS_V6, protocol::ICMPV6, bytes.len() as u32);
        let sum = sum.bytes(bytes).checksum();
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// All of them.
pub(crate) const TARGETS: [Target; 10] = [
    Target { name: "ethernet", run: run_ethernet, mend: as_it_is },
    Target { name: "arp", run: run_arp, mend: as_it_is },
    Target { name: "ipv4", run: run_ipv4, mend: mend_ipv4 },
    Target { name: "ipv6", run: run_ipv6, mend: as_it_is },
    Target { name: "tcp", run: run_tcp, mend: as_it_is },
    Target { name: "options", run: run_options, mend: as_it_is },
    Target { name: "udp", run: run_udp, mend: as_it_is },
    Target { name: "icmp", run: run_icmp, mend: mend_icmp },
    Target { name: "icmpv6", run: run_icmpv6, mend: mend_icmpv6 },
    Target { name: "ndisc", run: run_ndisc, mend: mend_icmpv6 },
];
