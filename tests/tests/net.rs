//! IP under whole stacks: who is on the link, where packets go, what routers and attackers say. Rows W7, W17, W18, W23 and W24
//! of the conformance notes are named where they are tested.

use harness::sim::any::Any;
use harness::sim::craft::{self, address};
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::{Raw, ip, ip6};
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::device::Link;
use stack::error::Error;
use stack::ip::Interface;
use stack::ip::neighbour::State;
use stack::ip::route::{Route, V4_BITS};
use stack::stats::Counter;
use stack::tcp::state::State as Phase;
use stack::tcp::tcb::Tcb;
use stack::time::{Duration, Instant};
use stack::wire::checksum::Sum;
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::{Fragment, Ip};
use stack::wire::tcp::Flags;
use stack::wire::{arp, icmp, icmpv6, igmp, ipv4, protocol};

const MS: u64 = 1_000_000;
/// By then routers were told of every group that a host is in.
const SETTLED: Duration = Duration::from_secs(3);
const BASE: Path = Path::delayed(Duration::from_millis(5));

fn client() -> TcpHost {
    let mut host = TcpHost::new(1, &limits(1024));
    host.checks = true;
    host
}

fn server(plan: Plan) -> TcpHost {
    let mut host = TcpHost::server(2, &limits(1024), plan);
    host.checks = true;
    host
}

/// A host that keeps what it gets and answers nothing by itself.
fn raw() -> Raw {
    let mut host = Raw::new(1024);
    host.keeps_bytes = true;
    host
}

/// Two hosts and a wire.
fn pair(
    seed: u64,
    a: impl Into<Any>,
    b: impl Into<Any>,
    setup: impl Fn(u8) -> Setup,
) -> (Simulation<Any>, Node, Node) {
    let mut network = Simulation::new(seed);
    let (a, b) = (network.add(a.into(), setup(1)), network.add(b.into(), setup(2)));
    network.wire(a, b, BASE, BASE);
    (network, a, b)
}

/// A request and its answer went through.
fn talked(network: &mut Simulation<Any>, [a, b]: [Node; 2], request: &[u8], answer: &[u8]) {
    network.run_for(Duration::from_secs(10));
    let (client, server) = (network.look(a).look(), network.look(b).look());
    assert_eq!((client.talks[0].error, client.talks[0].got == answer), (None, true));
    assert!(server.talks[0].got == request);
    network.run_for(Duration::from_secs(400));
    for node in [a, b] {
        let host = network.host(node).stack();
        host.check();
        assert_eq!(host.held()[1..], [0, 0, 0], "queues, SYNs, frames");
    }
}

#[test]
fn the_first_packet_waits_until_the_neighbour_has_answered() {
    for (seed, remote) in [(1, ip(2)), (2, ip6(2))] {
        let (request, answer) = (text(seed, 3000), text(seed + 10, 50_000));
        let client = client().opening(Instant(MS), remote, request.clone());
        let plan = Plan { answer: answer.clone(), ..Plan::default() };
        let (mut network, a, b) = pair(seed, client, server(plan), Setup::plain);
        talked(&mut network, [a, b], &request, &answer);
        let client = network.look(a).look();
        assert_eq!(client.counter(Counter::NeighbourPending), 1, "the SYN");
        assert_eq!(client.counter(Counter::SegmentsRetransmitted), 0);
        // Who was asked knows who asked.
        assert_eq!(network.look(b).look().counter(Counter::NeighbourPending), 0);
    }
}

#[test]
fn on_an_interface_of_the_owner_nobody_is_asked() {
    let interface = |number| Interface { link: address(number), ..Interface::default() };
    let request = text(3, 3000);
    let client = client().on(interface(1)).knowing(&[2]).opening(Instant(MS), ip(2), request.clone());
    let server = server(Plan::default()).on(interface(2)).knowing(&[1]);
    let (mut network, a, b) = pair(3, client, server, Setup::plain);
    talked(&mut network, [a, b], &request, &[]);
    let sent: Vec<u64> = [a, b].map(|node| network.port(node).counters.sent).into();
    let segments: Vec<u64> =
        [a, b].map(|node| network.look(node).look().counter(Counter::SegmentsOut)).into();
    assert_eq!(sent, segments, "segments and nothing else");
}

#[test]
fn the_owner_is_told_whom_packets_wait_for_and_his_word_sends_them() {
    let interface = |number| Interface { link: address(number), ..Interface::default() };
    let request = text(4, 3000);
    let client = client().on(interface(1)).opening(Instant(MS), ip(2), request.clone());
    let server = server(Plan::default()).on(interface(2)).knowing(&[1]);
    let (mut network, a, b) = pair(4, client, server, Setup::plain);
    network.run_for(Duration::from_millis(100));
    assert_eq!(network.port(a).counters.sent, 0);
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    assert_eq!(host.stack().parts().wanted().collect::<Vec<_>>(), [ip(2)]);
    host.stack().with(now, port, |stack| stack.set_neighbour(&ip(2), Some(address(2)), State::Reachable));
    talked(&mut network, [a, b], &request, &[]);
    assert_eq!(network.look(a).look().counter(Counter::SegmentsRetransmitted), 0);
}

#[test]
fn where_packets_begin_with_ip_there_are_no_neighbours() {
    for (seed, remote) in [(5, ip(2)), (6, ip6(2))] {
        let request = text(seed, 3000);
        let client = client().opening(Instant(MS), remote, request.clone());
        let setup = |number| Setup { link: Link::Ip, ..Setup::plain(number) };
        let (mut network, a, b) = pair(seed, client, server(Plan::default()), setup);
        talked(&mut network, [a, b], &request, &[]);
        assert_eq!(network.look(a).look().counter(Counter::NeighbourPending), 0);
    }
}

/// W23.
#[test]
fn hosts_of_one_vlan_talk_and_those_of_others_hear_nothing() {
    let vlan = |number, vlan| Interface {
        link: address(number),
        vlan: Interface::TAGGED | vlan,
        flags: Interface::OWNS,
        ..Interface::default()
    };
    let request = text(7, 30_000);
    let both = client().on(vlan(1, 7)).opening(Instant(MS), ip(2), request.clone());
    let (mut network, a, b) = pair(7, both, server(Plan::default()).on(vlan(2, 7)), Setup::plain);
    talked(&mut network, [a, b], &request, &[]);
    for other in [vlan(2, 8), Interface { link: address(2), flags: Interface::OWNS, ..Interface::default() }]
    {
        let one = client().on(vlan(1, 7)).opening(Instant(MS), ip(2), request.clone());
        let (mut network, a, b) = pair(8, one, server(Plan::default()).on(other), Setup::plain);
        network.run_for(Duration::from_secs(2));
        assert!(network.look(b).look().counter(Counter::NotOurs) >= 2, "questions");
        assert_eq!(network.port(b).counters.sent, 2, "its own groups");
        let _ = a;
    }
}

#[test]
fn what_is_not_on_the_link_goes_to_the_gateway() {
    let far = Ip::v4([198, 51, 100, 7]);
    let mut client = client().opening(Instant(SETTLED.0), far, Vec::new());
    let gateway =
        Route { destination: Ip::UNSPECIFIED_V4, prefix_len: V4_BITS, gateway: ip(2), ..Route::default() };
    client.parts().add_route(&gateway).expect("room");
    let (mut network, a, b) = pair(9, client, raw(), Setup::plain);
    network.run_for(SETTLED);
    network.run_for(Duration::from_millis(50));
    // It asks for the gateway, and for nobody else.
    let is_arp =
        |bytes: &[u8]| ethernet::parse(bytes).is_ok_and(|(frame, _)| frame.ethertype == ethernet::ARP);
    let got = network.host(b).raw().got.clone();
    let asked = got.into_iter().map(|got| got.bytes).find(|bytes| is_arp(bytes)).expect("a question");
    let (frame, payload) = ethernet::parse(&asked).expect("a frame");
    let question = arp::parse(payload).expect("ARP").0;
    assert_eq!((frame.destination, question.target_protocol), (Address::BROADCAST, ip(2)));
    let reply = arp::Packet {
        operation: arp::Operation::Reply,
        sender_hardware: address(2),
        sender_protocol: ip(2),
        target_hardware: address(1),
        target_protocol: ip(1),
    };
    let head = ethernet::Frame {
        destination: address(1),
        source: address(2),
        tags: [None; 2],
        ethertype: ethernet::ARP,
    };
    let mut bytes = vec![0; 60];
    let at = head.emit(&mut bytes).expect("room");
    reply.emit(&mut bytes[at..]).expect("room");
    network.host(b).raw().now(bytes);
    network.run_for(Duration::from_millis(50));
    let got = network.host(b).raw().got.last().expect("the SYN").bytes.clone();
    let (frame, payload) = ethernet::parse(&got).expect("a frame");
    assert_eq!(frame.destination, address(2));
    assert_eq!(ipv4::parse(payload).expect("IPv4").0.header.destination(), far);
    // The route goes, and so does everything that was kept of it.
    assert!(network.host(a).stack().parts().remove_route(&gateway));
    let sent = network.port(a).counters.sent;
    network.run_for(Duration::from_secs(8));
    assert_eq!(network.port(a).counters.sent, sent, "there is no way");
    assert!(network.look(a).look().counter(Counter::NoRoute) > 0);
}

/// Two hosts with stacks and a stranger on one segment.
fn three(seed: u64, a: TcpHost, b: TcpHost, path: Path) -> (Simulation<Any>, Node, Node, Node) {
    let mut network = Simulation::new(seed);
    let a = network.add(a.into(), Setup::plain(1));
    let b = network.add(b.into(), Setup::plain(2));
    let stranger = network.add(raw().into(), Setup::plain(3));
    network.join(&[(a, path, Path::IDEAL), (b, path, Path::IDEAL), (stranger, Path::IDEAL, Path::IDEAL)]);
    (network, a, b, stranger)
}

/// The first connection of a host.
fn tcb(network: &mut Simulation<Any>, node: Node) -> Tcb {
    let parts = network.host(node).stack().parts();
    *parts.tcbs.iter().find(|tcb| tcb.has_peer()).expect("a connection")
}

/// The stranger sends these, and a moment passes.
fn send(network: &mut Simulation<Any>, stranger: Node, packets: impl IntoIterator<Item = Vec<u8>>) {
    for packet in packets {
        network.host(stranger).raw().now(packet);
    }
    network.run_for(Duration(100_000));
}

/// An error of the router 3 to the host 1 about its segment with this sequence number.
fn error_about(tcb: &Tcb, seq: u32, message: Either) -> Vec<u8> {
    let quoted = craft::quoted((tcb.local, tcb.local_port), (tcb.remote, tcb.remote_port), seq);
    match message {
        Either::V4(message) => {
            let data = craft::icmp(&message, &quoted[..28]);
            craft::packet(1, ip(3), tcb.local, protocol::ICMP, &data)
        }
        Either::V6(message) => {
            let data = craft::icmp_v6(ip6(3), tcb.local, &message, &quoted);
            craft::packet(1, ip6(3), tcb.local, protocol::ICMPV6, &data)
        }
    }
}

#[derive(Clone, Copy)]
enum Either {
    V4(icmp::Message),
    V6(icmpv6::Message),
}

const fn needed(mtu: u16) -> Either {
    Either::V4(icmp::Message::Unreachable(icmp::Unreachable::FragmentationNeeded { mtu }))
}

const fn too_big(mtu: u32) -> Either {
    Either::V6(icmpv6::Message::PacketTooBig { mtu })
}

#[test]
fn who_is_not_on_the_link_is_unreachable_after_three_seconds() {
    for (seed, remote) in [(20, ip(9)), (21, ip6(9))] {
        let client = client().opening(Instant(0), remote, Vec::new());
        let (mut network, a, _) = pair(seed, client, server(Plan::default()), Setup::plain);
        network.run_for(Duration::from_millis(2900));
        assert_eq!(network.look(a).look().talks[0].error, None);
        network.run_for(Duration::from_millis(200));
        assert_eq!(network.look(a).look().talks[0].error, Some(Error::HostUnreachable));
        let host = network.host(a).stack();
        host.check();
        assert_eq!(host.held(), [0; 4], "sockets, queues, SYNs, frames");
    }
}

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

/// A path that takes less than the link and says nothing: smaller segments are tried after R1 (RFC 4821 §7.7).
#[test]
fn a_black_hole_is_found() {
    for (seed, remote, mtu, found) in
        [(56, ip(2), 1200, 1076), (57, ip6(2), 1300, 1280), (58, ip(2), 600, 564)]
    {
        let request = text(seed, 100_000);
        let mut client = client().knowing(&[2]).opening(Instant(0), remote, request.clone());
        client.parts().ip.finds_black_holes = 1;
        let (mut network, a, b) = pair(seed, client, server(Plan::default()), Setup::plain);
        network.paths(a).0.bytes_max = mtu + 14;
        while network.look(b).look().talks.first().is_none_or(|talk| talk.got != request) {
            assert!(network.now() < Instant(30_000 * MS), "it never gets through");
            network.run_for(Duration::from_millis(50));
        }
        let now = network.now();
        let way = network.host(a).stack().parts().way(&remote, 1500, now).expect("a way");
        assert_eq!(way.path.mtu, found);
        let tried = network.look(a).look().counter(Counter::PathMtuProbed);
        assert_eq!(tried, if found > 1000 { 1 } else { 2 });
        // The next connection begins with what was found.
        let (at, bytes) = (network.now(), network.counts(a).0.too_large);
        network.host(a).stack().opens.push((at, remote, request.clone()));
        network.run_for(Duration::from_millis(500));
        assert!(network.look(b).look().talks[1].got == request);
        assert_eq!(network.counts(a).0.too_large, bytes);
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
    // A good source, but to everybody on the link.
    let syn = craft::segment((ip(3), 1000), (ip(2), 80), 7, Flags::SYN);
    let datagram = craft::datagram(ip(3), ip(2), protocol::TCP, None, &syn);
    for to in [Address::BROADCAST, Address([1, 0, 0x5e, 0, 0, 1])] {
        send(&mut network, stranger, [craft::frame(to, [None; 2], ethernet::IPV4, &datagram)]);
    }
    assert_eq!(network.port(b).counters.sent, before);
}

/// What the stranger got of this protocol.
fn got(network: &mut Simulation<Any>, stranger: Node, wanted: u8) -> Vec<(Ip, Option<Fragment>, Vec<u8>)> {
    let got = std::mem::take(&mut network.host(stranger).raw().got);
    let opened = got.iter().filter_map(|got| craft::opened(&got.bytes));
    opened.filter(|packet| packet.0 == wanted).map(|(_, from, _, place, data)| (from, place, data)).collect()
}

#[test]
fn an_echo_is_answered_by_who_owns_the_address_alone() {
    let knows = server(Plan::default()).knowing(&[3]);
    let (mut network, _, b, stranger) = three(62, client(), knows, BASE);
    network.run_for(SETTLED);
    network.host(stranger).raw().got.clear();
    let data = text(62, 900);
    let request = icmp::Message::EchoRequest { identifier: 7, sequence: 9 };
    let request6 = icmpv6::Message::EchoRequest { identifier: 7, sequence: 9 };
    let ping = craft::packet(2, ip(3), ip(2), protocol::ICMP, &craft::icmp(&request, &data));
    let ping6 =
        craft::packet(2, ip6(3), ip6(2), protocol::ICMPV6, &craft::icmp_v6(ip6(3), ip6(2), &request6, &data));
    send(&mut network, stranger, [ping.clone(), ping6]);
    network.run_for(Duration::from_millis(20));
    let kept = network.host(stranger).raw().got.clone();
    let (from, _, reply) = got(&mut network, stranger, protocol::ICMP).pop().expect("a reply");
    let (message, echoed) = icmp::parse(&reply).expect("ICMP");
    assert_eq!((from, message), (ip(2), icmp::Message::EchoReply { identifier: 7, sequence: 9 }));
    assert!(echoed == data);
    network.host(stranger).raw().got = kept;
    let (from, _, reply) = got(&mut network, stranger, protocol::ICMPV6).pop().expect("a reply");
    let (message, echoed) = icmpv6::parse(&reply, &ip6(2), &ip6(3)).expect("ICMPv6");
    assert_eq!((from, message), (ip6(2), icmpv6::Message::EchoReply { identifier: 7, sequence: 9 }));
    assert!(echoed == data);
    let kernels = Interface { link: address(2), ..Interface::default() };
    network.host(b).stack().parts().set_interface(&kernels);
    let sent = network.port(b).counters.sent;
    send(&mut network, stranger, [ping]);
    assert_eq!(network.port(b).counters.sent, sent, "the kernel answers");
}

#[test]
fn a_closed_port_is_told_of_and_not_too_often() {
    let (mut network, _, b, stranger) = three(63, client(), server(Plan::default()).knowing(&[3]), BASE);
    // A host's bucket is full six seconds after the beginning of time.
    network.run_for(Duration::from_secs(10));
    let datagram = craft::udp((ip(3), 500), (ip(2), 7), b"hello");
    let packet = craft::packet(2, ip(3), ip(2), protocol::UDP, &datagram);
    for _ in 0..5 {
        send(&mut network, stranger, std::iter::repeat_n(packet.clone(), 20));
    }
    network.run_for(Duration::from_millis(20));
    let answers = got(&mut network, stranger, protocol::ICMP);
    assert_eq!(answers.len(), 6, "and then one each second");
    let (message, quoted) = icmp::parse(&answers[0].2).expect("ICMP");
    assert_eq!(message, icmp::Message::Unreachable(icmp::Unreachable::Port));
    let quoted = icmp::quoted(quoted, true).expect("what was sent");
    assert_eq!(quoted.ports_and_sequence().map(|found| (found.0, found.1)), Some((500, 7)));
    let host = network.look(b).look();
    assert_eq!((host.counter(Counter::NoSocket), host.counter(Counter::IcmpLimited)), (100, 94));
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

/// What the stranger got of reports about a group: protocol, destination, type, and the record's type in the newer versions.
fn reports(network: &mut Simulation<Any>, stranger: Node, group: Ip) -> Vec<(Ip, u8, u8)> {
    let got = std::mem::take(&mut network.host(stranger).raw().got);
    let about = |bytes: &[u8]| match group.as_v4() {
        Some(group) => bytes.windows(4).any(|found| found == group),
        None => bytes.windows(16).any(|found| found == group.0),
    };
    let opened = got.iter().filter_map(|got| craft::opened(&got.bytes));
    let is_it = |packet: &craft::Opened| {
        let is_report =
            packet.0 == igmp::IGMP || packet.0 == protocol::ICMPV6 && matches!(packet.4[0], 131 | 132 | 143);
        is_report && about(&packet.4)
    };
    opened
        .filter(is_it)
        .map(|(_, _, to, _, bytes)| (to, bytes[0], bytes.get(8).copied().unwrap_or(0)))
        .collect()
}

#[test]
fn routers_are_told_of_groups_and_others_are_not_listened_to() {
    let (mut network, _, b, stranger) = three(70, client(), server(Plan::default()).knowing(&[3]), BASE);
    network.run_for(Duration::from_secs(5));
    // Its solicited-node group was told of when it began.
    let all = reports(&mut network, stranger, ip6(2).solicited_node());
    assert_eq!(all, [(igmp::MLD_ROUTERS, 143, 4); 2]);
    let groups = [Ip::v4([239, 1, 2, 3]), Ip(*b"\xff\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x63")];
    let rows = [(igmp::V3_ROUTERS, 0x22), (igmp::MLD_ROUTERS, 143)];
    let link_local = Ip(*b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x03");
    for (group, (to, kind)) in groups.into_iter().zip(rows) {
        let now = network.now();
        network.host(b).stack().parts().join_group(&group, now).expect("room");
        network.run_for(Duration::from_secs(5));
        assert_eq!(reports(&mut network, stranger, group), [(to, kind, 4); 2], "joins");
    }
    // A router asks for all, and is answered once for each within ten seconds.
    let mut v3 = vec![0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    let sum = Sum::ZERO.bytes(&v3).checksum();
    v3[2..4].copy_from_slice(&sum.to_be_bytes());
    let v3 = craft::datagram(ip(3), Ip::v4([224, 0, 0, 1]), igmp::IGMP, None, &v3);
    let all_nodes = Ip(*b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
    let other = icmpv6::Message::Other { kind: 130, code: 0, word: 10_000 << 16 };
    let asked = |data: &[u8], ttl: u8| {
        let query = craft::icmp_v6(link_local, all_nodes, &other, data);
        let mut bytes = craft::datagram(link_local, all_nodes, protocol::ICMPV6, None, &query);
        bytes[7] = ttl;
        craft::frame(Address::of_group(&all_nodes).expect("a group"), [None; 2], ethernet::IPV6, &bytes)
    };
    let to_all = Address([1, 0, 0x5e, 0, 0, 1]);
    send(&mut network, stranger, [asked(&[0; 20], 64), craft::frame(to_all, [None; 2], ethernet::IPV4, &v3)]);
    network.run_for(Duration::from_secs(11));
    let kept = network.host(stranger).raw().got.clone();
    assert_eq!(reports(&mut network, stranger, groups[0]), [(igmp::V3_ROUTERS, 0x22, 2)]);
    network.host(stranger).raw().got = kept;
    assert!(reports(&mut network, stranger, groups[1]).is_empty(), "from afar");
    send(&mut network, stranger, [asked(&[0; 20], 1)]);
    network.run_for(Duration::from_secs(11));
    assert_eq!(reports(&mut network, stranger, groups[1]), [(igmp::MLD_ROUTERS, 143, 2)]);
    // A router of MLDv1 is told in its own words.
    send(&mut network, stranger, [asked(&[0; 16], 1)]);
    network.run_for(Duration::from_secs(11));
    assert_eq!(reports(&mut network, stranger, groups[1])[0].0, groups[1]);
    let now = network.now();
    for group in groups {
        assert!(network.host(b).stack().parts().leave_group(&group, now));
    }
    network.run_for(Duration::from_secs(5));
    let kept = network.host(stranger).raw().got.clone();
    assert_eq!(reports(&mut network, stranger, groups[0]), [(igmp::V3_ROUTERS, 0x22, 3); 2], "leaves");
    network.host(stranger).raw().got = kept;
    let done = reports(&mut network, stranger, groups[1]);
    assert_eq!((done.len(), done[0].0, done[0].1), (2, igmp::MLD_ALL_ROUTERS, 132));
    // And what is for the group is nobody's now.
    let request = icmpv6::Message::EchoRequest { identifier: 7, sequence: 9 };
    let ping = craft::icmp_v6(ip6(3), groups[1], &request, &[]);
    let ping = craft::datagram(ip6(3), groups[1], protocol::ICMPV6, None, &ping);
    let before = network.look(b).look().counter(Counter::NotOurs);
    send(
        &mut network,
        stranger,
        [craft::frame(Address::of_group(&groups[1]).expect("a group"), [None; 2], ethernet::IPV6, &ping)],
    );
    assert_eq!(network.look(b).look().counter(Counter::NotOurs), before + 1);
    network.host(b).stack().check();
}
