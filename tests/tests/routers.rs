//! What routers and attackers say to whole stacks below TCP: rows W7, W17, W18, W23 and W24 of the list of attacks, each a test that names
//! its row.

use harness::sim::craft::{self, address};
use harness::sim::raw::{ip, ip6};
use harness::sim::stranger::{
    BASE, Either, SETTLED, client, error_about, got, needed, send, server, tcb, three, too_big,
};
use harness::sim::tcp::{Plan, text};
use stack::error::Error;
use stack::ip::Interface;
use stack::stats::Counter;
use stack::tcp::state::State as Phase;
use stack::tcp::tcb::Tcb;
use stack::time::{Duration, Instant};
use stack::wire::checksum::Sum;
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::{Fragment, Ip};
use stack::wire::tcp::Flags;
use stack::wire::{icmp, icmpv6, protocol};

const MS: u64 = 1_000_000;

/// W18: connect fails fast, with Linux's errno, and only if the segment is ours.
#[test]
fn an_error_about_a_syn_ends_it_at_once() {
    use icmp::Unreachable as V4;
    use icmpv6::Unreachable as V6;
    let v4 = |why| Either::V4(icmp::Message::Unreachable(why));
    let v6 = |why| Either::V6(icmpv6::Message::Unreachable(why));
    let rows = [
        (ip(2), v4(V4::Net), Error::NetworkUnreachable),
        (ip(2), v4(V4::Host), Error::HostUnreachable),
        (ip(2), v4(V4::Protocol), Error::ProtocolUnreachable),
        (ip(2), v4(V4::Port), Error::ConnectionRefused),
        (ip(2), v4(V4::HostUnknown), Error::HostDown),
        (ip(2), v4(V4::CommunicationProhibited), Error::HostUnreachable),
        (ip(2), Either::V4(icmp::Message::TimeExceeded { code: 0 }), Error::HostUnreachable),
        (ip6(2), v6(V6::NoRoute), Error::NetworkUnreachable),
        (ip6(2), v6(V6::Prohibited), Error::Forbidden),
        (ip6(2), v6(V6::Address), Error::HostUnreachable),
        (ip6(2), v6(V6::Port), Error::ConnectionRefused),
    ];
    for (seed, (remote, message, error)) in (30..).zip(rows) {
        // The server is deaf: its SYN-ACK would come first.
        let client = client().knowing(&[2]).opening(Instant(0), remote, Vec::new());
        let (mut network, a, b, stranger) = three(seed, client, server(Plan::default()), BASE);
        network.paths(b).0.loss = 1.0;
        network.run_for(Duration::from_millis(20));
        let tcb = tcb(&mut network, a);
        assert_eq!(tcb.state(), Phase::SynSent);
        for wrong in [tcb.snd.una.0.wrapping_sub(1), tcb.snd.nxt.0 + 1, 0] {
            send(&mut network, stranger, [error_about(&tcb, wrong, message)]);
        }
        assert_eq!(network.look(a).look().talks[0].error, None, "not in flight");
        assert_eq!(network.look(a).look().counter(Counter::IcmpDoubtful), 3);
        send(&mut network, stranger, [error_about(&tcb, tcb.snd.una.0, message)]);
        assert_eq!(network.look(a).look().talks[0].error, Some(error));
    }
}

/// W18: what is established goes on; the error is told if the connection is given up anyway.
#[test]
fn an_error_about_an_established_connection_is_only_remembered() {
    let (request, hard) = (text(40, 400_000), icmp::Message::Unreachable(icmp::Unreachable::Port));
    let mut client = client().knowing(&[2]).opening(Instant(0), ip(2), request.clone());
    client.values.user_timeout_ms = 5000;
    let (mut network, a, b, stranger) = three(40, client, server(Plan::default()), BASE);
    network.run_for(Duration::from_millis(40));
    let before = tcb(&mut network, a);
    assert!(before.state().is_synchronized());
    send(&mut network, stranger, [error_about(&before, before.snd.una.0, Either::V4(hard))]);
    let after = tcb(&mut network, a);
    assert_eq!((after.state(), after.soft_error), (before.state(), Error::ConnectionRefused.code()));
    network.paths(b).0.loss = 1.0;
    network.run_for(Duration::from_secs(20));
    assert_eq!(network.look(a).look().talks[0].error, Some(Error::ConnectionRefused));
    assert_eq!(network.host(a).stack().held()[..2], [0, 0]);
}

/// W17: a real router's word is believed, what was lost is sent again in shorter segments, and no timeout is needed.
#[test]
fn a_path_that_is_narrower_is_told_of_and_taken() {
    for (seed, remote, mtu, message) in
        [(50, ip(2), 1400, needed(1400)), (51, ip6(2), 1300, too_big(1300)), (52, ip(2), 700, needed(700))]
    {
        let request = text(seed, 300_000);
        let client = client().knowing(&[2, 3]).opening(Instant(0), remote, request.clone());
        let (mut network, a, b, stranger) = three(seed, client, server(Plan::default()), BASE);
        network.paths(a).0.bytes_max = mtu + 14;
        while network.counts(a).0.too_large == 0 {
            network.run_for(Duration::from_millis(1));
        }
        let before = tcb(&mut network, a);
        send(&mut network, stranger, [error_about(&before, before.snd.una.0, message)]);
        let after = tcb(&mut network, a);
        assert_eq!((usize::from(after.path_mtu), before.path_mtu), (mtu, 1500));
        network.run_for(Duration::from_secs(5));
        assert!(network.look(b).look().talks[0].got == request);
        let host = network.look(a).look();
        assert_eq!((host.counter(Counter::PathMtuLowered), host.counter(Counter::Timeouts)), (1, 0));
        // Ten were too long, and they alone went again.
        assert!(network.counts(a).0.too_large <= 10, "{:?}", network.counts(a).0);
    }
}

/// W17: what is told of segments that are not in flight, or under what any path takes, is not believed, and nothing is for ever.
#[test]
fn a_path_is_not_made_narrow_by_strangers_nor_for_ever() {
    let mut client = client().knowing(&[2, 3]).opening(Instant(0), ip(2), text(53, 300_000));
    client.plan.stays = true;
    client.opens.push((Instant(MS), ip6(2), text(54, 300_000)));
    let stays = Plan { stays: true, ..Plan::default() };
    let (mut network, a, b, stranger) = three(53, client, server(stays), BASE);
    network.run_for(Duration::from_millis(35));
    let all: Vec<Tcb> =
        network.host(a).stack().parts().tcbs.iter().filter(|tcb| tcb.has_peer()).copied().collect();
    let [v4, v6] = all[..] else { panic!("two connections") };
    let (una, nxt) = (v4.snd.una.0, v4.snd.nxt.0);
    assert!(nxt.wrapping_sub(una) > 10_000, "in flight");
    let forged = (1..200u32).flat_map(|n| {
        [
            (&v4, una.wrapping_sub(n), needed(600)),
            (&v4, nxt + n, needed(600)),
            (&v6, v6.snd.nxt.0 + n, too_big(1280)),
        ]
    });
    let forged: Vec<_> = forged.map(|(tcb, seq, message)| error_about(tcb, seq, message)).collect();
    for burst in forged.chunks(40) {
        send(&mut network, stranger, burst.to_vec());
    }
    send(&mut network, stranger, [error_about(&v6, v6.snd.nxt.0, too_big(1279))]);
    assert_eq!(network.look(a).look().counter(Counter::PathMtuLowered), 0);
    assert!(network.look(a).look().counter(Counter::IcmpDoubtful) > 500);
    // Of what is in flight: 0 and 68 are taken for 552, and routers may cut what is sent then.
    let v4 = tcb(&mut network, a);
    assert_ne!(v4.snd.una, v4.snd.nxt);
    send(
        &mut network,
        stranger,
        [error_about(&v4, v4.snd.nxt.0, needed(0)), error_about(&v4, v4.snd.nxt.0, needed(68))],
    );
    let narrow = tcb(&mut network, a);
    assert_eq!((narrow.path_mtu, network.look(a).look().counter(Counter::PathMtuLowered)), (552, 1));
    network.run_for(Duration::from_secs(5));
    assert!(network.look(b).look().talks[0].got == text(53, 300_000), "all the same");
    assert!(network.look(b).look().talks[1].got == text(54, 300_000));
    // Ten minutes later it is forgotten.
    network.run_for(Duration::from_secs(601));
    let host = network.host(a).stack();
    host.talks[0].text.extend(text(55, 30_000));
    network.run_for(Duration::from_secs(1));
    assert_eq!(tcb(&mut network, a).path_mtu, 1500);
    assert_eq!(network.look(b).look().talks[0].got.len(), 330_000);
}

/// W23: foreign tags, source routes and chains of extension headers are dropped, and never taken for something else.
#[test]
fn what_is_wrapped_in_something_foreign_is_dropped() {
    let (mut network, _, b, stranger) = three(60, client(), server(Plan::default()), BASE);
    network.run_for(SETTLED);
    let before = network.port(b).counters.sent;
    let syn = |from, to| craft::segment((from, 1000), (to, 80), 7, Flags::SYN);
    let v4 = craft::datagram(ip(3), ip(2), protocol::TCP, None, &syn(ip(3), ip(2)));
    let tag = |tpid, vlan| Some(ethernet::Tag { tpid, control: vlan });
    let tagged = |tags| craft::frame(address(2), tags, ethernet::IPV4, &v4);
    let mut routed = v4.clone();
    // Two words more of header: a loose source route by way of somebody.
    routed[0] = 0x47;
    routed.splice(20..20, [131, 7, 4, 10, 0, 0, 9, 0]);
    let total = routed.len() as u16;
    routed[2..4].copy_from_slice(&total.to_be_bytes());
    routed[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&routed[..28]).checksum();
    routed[10..12].copy_from_slice(&sum.to_be_bytes());
    // Sixty hop-by-hop headers.
    let chain: Vec<u8> =
        std::iter::repeat_n([0, 0, 1, 4, 0, 0, 0, 0], 60).flatten().chain(syn(ip6(3), ip6(2))).collect();
    let chain = craft::datagram(ip6(3), ip6(2), 0, None, &chain);
    let packets = [
        tagged([tag(ethernet::C_TAG, 7), None]),
        tagged([tag(ethernet::S_TAG, 7), tag(ethernet::C_TAG, 8)]),
        tagged([tag(ethernet::S_TAG, 0), None]),
        craft::frame(address(2), [None; 2], 0x8847, &v4),
        craft::frame(address(2), [None; 2], ethernet::IPV4, &routed),
        craft::frame(address(2), [None; 2], ethernet::IPV6, &chain),
    ];
    send(&mut network, stranger, packets);
    let host = network.look(b).look();
    assert_eq!((host.counter(Counter::SegmentsIn), network.port(b).counters.sent), (0, before));
    // The same SYN by itself is taken, and so is one with a priority.
    send(&mut network, stranger, [tagged([None; 2]), tagged([tag(ethernet::C_TAG, 5 << 13), None])]);
    assert_eq!(network.look(b).look().counter(Counter::SegmentsIn), 2);
}

/// W24: nobody's source, our own, and what went to many on the link.
#[test]
fn what_comes_from_where_no_host_is_gets_no_answer() {
    let mut parts = server(Plan::default());
    let (subnet, zero) = (Ip::v4([10, 0, 0, 255]), Ip::v4([0, 0, 0, 9]));
    let sources = [
        ip(2),
        ip6(2),
        subnet,
        zero,
        Ip::BROADCAST,
        Ip::v4([127, 0, 0, 1]),
        Ip::v4([224, 0, 0, 1]),
        Ip(*b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
        Ip(1u128.to_be_bytes()),
        Ip::UNSPECIFIED,
    ];
    parts.checks = true;
    let (mut network, _, b, stranger) = three(61, client(), parts, BASE);
    network.run_for(SETTLED);
    let before = network.port(b).counters.sent;
    for source in sources {
        let to = if source.is_v4() { ip(2) } else { ip6(2) };
        let syn = craft::segment((source, 80), (to, 80), 7, Flags::SYN);
        let ping = match source.is_v4() {
            true => craft::icmp(&icmp::Message::EchoRequest { identifier: 1, sequence: 1 }, &[]),
            false => {
                craft::icmp_v6(source, to, &icmpv6::Message::EchoRequest { identifier: 1, sequence: 1 }, &[])
            }
        };
        let icmp = if source.is_v4() { protocol::ICMP } else { protocol::ICMPV6 };
        let packets =
            [craft::packet(2, source, to, protocol::TCP, &syn), craft::packet(2, source, to, icmp, &ping)];
        send(&mut network, stranger, packets);
    }
    let martians = network.look(b).look().counter(Counter::Martians);
    assert_eq!(martians, 2 * sources.len() as u64);
    // A good source, but to loopback, in both versions (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
    for (from, to) in [(ip(3), Ip::v4([127, 0, 0, 1])), (ip6(3), Ip(1u128.to_be_bytes()))] {
        let syn = craft::segment((from, 1000), (to, 80), 7, Flags::SYN);
        let before = network.look(b).look().counter(Counter::NotOurs);
        send(&mut network, stranger, [craft::packet(2, from, to, protocol::TCP, &syn)]);
        assert_eq!(network.look(b).look().counter(Counter::NotOurs), before + 1, "{to}");
    }
    // And the other way: what a program sends to loopback never reaches the wire by this stack.
    for to in [Ip::v4([127, 0, 0, 1]), Ip(1u128.to_be_bytes())] {
        let now = network.now();
        let (host, port) = network.host_and_port(b);
        let refused = host.stack().with(now, port, |stack| {
            let socket = stack.parts.tcp_socket(!to.is_v4(), 0).expect("room");
            let refused = stack.connect(socket, &Ip::UNSPECIFIED, (&to, 80));
            stack.close(socket).expect("a socket");
            refused
        });
        assert_eq!(refused, Err(Error::NetworkUnreachable), "{to}");
    }
    // A good source, but to everybody on the link.
    let syn = craft::segment((ip(3), 1000), (ip(2), 80), 7, Flags::SYN);
    let datagram = craft::datagram(ip(3), ip(2), protocol::TCP, None, &syn);
    for to in [Address::BROADCAST, Address([1, 0, 0x5e, 0, 0, 1])] {
        send(&mut network, stranger, [craft::frame(to, [None; 2], ethernet::IPV4, &datagram)]);
    }
    assert_eq!(network.port(b).counters.sent, before);
}

/// The fragments of a payload, `each` bytes in one.
fn fragments(ends: (Ip, Ip), protocol: u8, name: u32, payload: &[u8], each: usize) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(each);
    let piece = |(at, bytes): (usize, &[u8])| {
        let place = Fragment { identification: name, offset: (at * each) as u16, more: at + 1 < count };
        let datagram = craft::datagram(ends.0, ends.1, protocol, Some(place), bytes);
        craft::frame(address(2), [None; 2], craft::ethertype(&ends.0), &datagram)
    };
    payload.chunks(each).enumerate().map(piece).collect()
}

/// W7: fragments in any order are a datagram, and its answer goes in fragments too.
#[test]
fn fragments_are_put_together_and_made() {
    let (mut network, _, b, stranger) = three(64, client(), server(Plan::default()).knowing(&[3]), BASE);
    // A SYN in three pieces.
    for (seed, from, to) in [(1, ip(3), ip(2)), (2, ip6(3), ip6(2))] {
        let mut pieces = fragments(
            (from, to),
            protocol::TCP,
            seed,
            &craft::segment((from, 1000), (to, 80), 7, Flags::SYN),
            8,
        );
        pieces.reverse();
        send(&mut network, stranger, pieces);
        assert_eq!(network.look(b).look().counter(Counter::SegmentsIn), u64::from(seed));
    }
    network.run_for(Duration::from_millis(20));
    assert_eq!(got(&mut network, stranger, protocol::TCP).len(), 2, "SYN,ACK");
    // A long ping.
    let data = text(64, 5000);
    let request = craft::icmp(&icmp::Message::EchoRequest { identifier: 7, sequence: 9 }, &data);
    let mut pieces = fragments((ip(3), ip(2)), protocol::ICMP, 9, &request, 1480);
    pieces.swap(0, 2);
    send(&mut network, stranger, pieces);
    network.run_for(Duration::from_millis(20));
    let replies = got(&mut network, stranger, protocol::ICMP);
    let mut whole = vec![0; request.len()];
    for (_, place, bytes) in &replies {
        let at = usize::from(place.expect("a fragment").offset);
        whole[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let (message, echoed) = icmp::parse(&whole).expect("ICMP");
    assert_eq!(message, icmp::Message::EchoReply { identifier: 7, sequence: 9 });
    assert!(echoed == data && replies.len() == 4);
    let host = network.look(b).look();
    assert_eq!((host.counter(Counter::Reassembled), host.counter(Counter::FragmentsOut)), (3, 4));
}

/// Nobody says whose a fragment is, so with addresses that the kernel has too it may be the kernel's, who answers.
#[test]
fn a_segment_in_pieces_that_nobody_takes_may_be_another_ones() {
    let (mut network, _, b, stranger) = three(66, client(), server(Plan::default()).knowing(&[3]), BASE);
    for (name, owns) in [(1, true), (2, false)] {
        let flags = if owns { Interface::OWNS } else { 0 };
        network.host(b).stack().parts().ip.interface.flags = flags;
        for (name, port) in [(name, 80), (name + 10, 81)] {
            let ends = ((ip(3), 1000 + name as u16), (ip(2), port));
            let syn = craft::segment(ends.0, ends.1, 7, Flags::SYN);
            send(&mut network, stranger, fragments((ip(3), ip(2)), protocol::TCP, name, &syn, 8));
        }
        network.run_for(Duration::from_millis(20));
        let answers = got(&mut network, stranger, protocol::TCP);
        let is_reset = |(_, _, bytes): &(Ip, Option<Fragment>, Vec<u8>)| bytes[13] & 4 != 0;
        let resets = answers.iter().filter(|answer| is_reset(answer)).count();
        assert_eq!((answers.len() - resets, resets), (1, usize::from(owns)), "the listener's, and nobody's");
    }
    network.host(b).stack().check();
}

/// W7: floods have a budget, overlaps end a datagram, what never completes is given up and told of.
#[test]
fn floods_of_fragments_cost_what_they_may() {
    let request = text(65, 60_000);
    let client = client().knowing(&[2]).opening(Instant(MS), ip(2), request.clone());
    let mut busy = server(Plan::default()).knowing(&[1, 3]);
    busy.checks = false;
    let (mut network, a, b, stranger) = three(65, client, busy, BASE);
    let limit = network.host(b).stack().parts().ip.fragments.limit;
    for burst in 0..40 {
        let pieces = (0..50u32).map(|n| {
            let from = Ip::v4([10, 0, (n % 7) as u8, 10 + (n % 100) as u8]);
            let place = Fragment { identification: burst * 50 + n, offset: 8, more: true };
            let datagram = craft::datagram(from, ip(2), protocol::UDP, Some(place), &[n as u8; 1400]);
            craft::frame(address(2), [None; 2], ethernet::IPV4, &datagram)
        });
        send(&mut network, stranger, pieces);
        let host = network.host(b).stack();
        host.check();
        assert!(host.parts().ip.fragments.frames <= limit.min(64));
    }
    network.run_for(Duration::from_secs(5));
    assert!(network.look(b).look().talks[0].got == request, "others don't notice");
    let _ = a;
    // An overlap, of which no part may come back.
    let udp = craft::udp((ip6(3), 500), (ip6(2), 7), &[7; 72]);
    let place = |offset, more| Some(Fragment { identification: 77, offset, more });
    let piece = |place, bytes: &[u8]| {
        let datagram = craft::datagram(ip6(3), ip6(2), protocol::UDP, place, bytes);
        craft::frame(address(2), [None; 2], ethernet::IPV6, &datagram)
    };
    let before = network.look(b).look().counter(Counter::Reassembled);
    let overlapping = [piece(place(0, true), &udp[..40]), piece(place(32, true), &udp[32..64])];
    send(&mut network, stranger, overlapping);
    send(&mut network, stranger, [piece(place(64, false), &udp[64..])]);
    assert_eq!(network.look(b).look().counter(Counter::Reassembled), before, "RFC 5722");
    // A first piece without the rest.
    network.run_for(Duration::from_secs(70));
    got(&mut network, stranger, protocol::ICMPV6);
    send(&mut network, stranger, [piece(place(0, true), &udp[..40])]);
    network.run_for(Duration::from_secs(61));
    let told = got(&mut network, stranger, protocol::ICMPV6);
    let told = told.iter().filter_map(|(from, _, bytes)| Some(icmpv6::parse(bytes, from, &ip6(3)).ok()?.0));
    assert_eq!(told.filter(|message| *message == icmpv6::Message::TimeExceeded { code: 1 }).count(), 1);
    // What was told is complete.
    network.host(b);
    network.run_for(Duration::from_millis(1));
    let host = network.host(b).stack();
    host.check();
    assert_eq!((host.parts().ip.fragments.frames, host.held()[3]), (0, 0), "nothing is left");
}
