//! IP under whole stacks: who is on the link, where packets go, and what is told of it.

use harness::sim::any::Any;
use harness::sim::craft::{self, address};
use harness::sim::port::{Port, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::stranger::{BASE, SETTLED, client, got, raw, send, server, three};
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Host, Node, Simulation};
use stack::device::Link;
use stack::error::Error;
use stack::ip::Interface;
use stack::ip::neighbour::State;
use stack::ip::route::{Route, V4_BITS};
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::checksum::Sum;
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::Ip;
use stack::wire::{arp, icmp, icmpv6, igmp, ipv4, protocol};

const MS: u64 = 1_000_000;

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
fn a_burst_waits_for_a_neighbour_as_far_as_linux_lets_it() {
    // Echo requests of 50,000 bytes, from somebody who is not known; the answers go in fragments.
    let request = |sequence| {
        let mut message = vec![0; icmp::HEADER_LEN + 50_000];
        let request = icmp::Message::EchoRequest { identifier: 1, sequence };
        request.emit(&text(sequence.into(), 50_000), &mut message).expect("room");
        craft::packet(1, ip(craft::STRANGER), ip(1), protocol::ICMP, &message)
    };
    for (requests, kept) in [(1, 34), (3, 102), (4, 104)] {
        let mut host = TcpHost::new(1, &limits(4096));
        let setup = Setup { gro: true, frames: 4096, ring: 1024, ..Setup::plain(1) };
        let (mut port, mut now) = (Port::spare(setup), Instant(1_000 * MS));
        host.poll(now, &mut port);
        port.depart(now);
        for sequence in 0..requests {
            assert!(port.arrive(now, &request(sequence)));
            host.poll(now, &mut port);
            host.check();
        }
        let question = port.depart(now);
        assert_eq!(question.len(), 1, "who is there?");
        let waiting = host.counter(Counter::NeighbourPending) - host.counter(Counter::NeighbourFailed);
        assert_eq!((host.counter(Counter::NeighbourPending), waiting), (34 * u64::from(requests), kept));
        now = now + Duration::from_millis(3);
        let reply = arp::Packet {
            operation: arp::Operation::Reply,
            sender_hardware: address(craft::STRANGER),
            sender_protocol: ip(craft::STRANGER),
            target_hardware: address(1),
            target_protocol: ip(1),
        };
        let mut bytes = [0; 64];
        let len = reply.emit(&mut bytes).expect("room");
        port.arrive(now, &craft::frame(address(1), [None; 2], ethernet::ARP, &bytes[..len]));
        host.poll(now, &mut port);
        let sent = port.depart(now);
        assert_eq!(sent.len() as u64, kept);
        assert!(sent.iter().all(|bytes| bytes[..6] == address(craft::STRANGER).0), "to where it is");
        // In the order of their coming, the latest last: it is the end of the last answer.
        let places = sent.iter().map(|bytes| {
            let (datagram, _) = ipv4::parse(&bytes[14..]).expect("a datagram");
            let fragment = datagram.fragment().expect("a fragment");
            (datagram.header.identification.get(), fragment.offset)
        });
        let places: Vec<_> = places.collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(places.last().map(|place| place.1), Some(33 * 1480));
        host.poll(now, &mut port);
        host.check();
        assert_eq!(host.held()[3], 0, "frames");
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
    let asked = |data: &[u8], ttl: u8, has_alert: bool| {
        let query = craft::icmp_v6(link_local, all_nodes, &other, data);
        let (next, alert) =
            if has_alert { (0, igmp::alert(protocol::ICMPV6)) } else { (protocol::ICMPV6, [0; 8]) };
        let query = [if has_alert { &alert[..] } else { &[] }, &query].concat();
        let mut bytes = craft::datagram(link_local, all_nodes, next, None, &query);
        bytes[7] = ttl;
        craft::frame(Address::of_group(&all_nodes).expect("a group"), [None; 2], ethernet::IPV6, &bytes)
    };
    let to_all = Address([1, 0, 0x5e, 0, 0, 1]);
    let not_near = [asked(&[0; 20], 64, true), asked(&[0; 20], 1, false)];
    send(&mut network, stranger, not_near);
    send(&mut network, stranger, [craft::frame(to_all, [None; 2], ethernet::IPV4, &v3)]);
    network.run_for(Duration::from_secs(11));
    let kept = network.host(stranger).raw().got.clone();
    assert_eq!(reports(&mut network, stranger, groups[0]), [(igmp::V3_ROUTERS, 0x22, 2)]);
    network.host(stranger).raw().got = kept;
    assert!(reports(&mut network, stranger, groups[1]).is_empty(), "from afar");
    send(&mut network, stranger, [asked(&[0; 20], 1, true)]);
    network.run_for(Duration::from_secs(11));
    assert_eq!(reports(&mut network, stranger, groups[1]), [(igmp::MLD_ROUTERS, 143, 2)]);
    // A router of MLDv1 is told in its own words.
    send(&mut network, stranger, [asked(&[0; 16], 1, true)]);
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
    assert_eq!((done.len(), done[0].0, done[0].1), (1, igmp::MLD_ALL_ROUTERS, 132));
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
