//! IP under whole stacks: who is on the link, where packets go, what routers and attackers say. Rows W7, W17, W18, W23 and W24
//! of the conformance notes are named where they are tested.

use harness::sim::any::Any;
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::{Raw, ip, ip6};
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::device::Link;
use stack::ip::Interface;
use stack::ip::neighbour::State;
use stack::ip::route::{Route, V4_BITS};
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ethernet::{self, Address};
use stack::wire::ip::Ip;
use stack::wire::{arp, ipv4};

const MS: u64 = 1_000_000;
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

const fn address(number: u8) -> Address {
    Address([2, 0, 0, 0, 0, number])
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
        assert_eq!(network.port(b).counters.sent, 0);
        let _ = a;
    }
}

#[test]
fn what_is_not_on_the_link_goes_to_the_gateway() {
    let far = Ip::v4([198, 51, 100, 7]);
    let mut client = client().opening(Instant(MS), far, Vec::new());
    let gateway =
        Route { destination: Ip::UNSPECIFIED_V4, prefix_len: V4_BITS, gateway: ip(2), ..Route::default() };
    client.parts().add_route(&gateway).expect("room");
    let (mut network, a, b) = pair(9, client, raw(), Setup::plain);
    network.run_for(Duration::from_millis(50));
    // It asks for the gateway, and for nobody else.
    let asked = network.host(b).raw().got[0].bytes.clone();
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
