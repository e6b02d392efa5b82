//! The search for what a path takes where no router says it (RFC 4821, RFC 8899; net.ipv4.tcp_mtu_probing), between whole stacks.

use harness::sim::any::Any;
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::stats::Counter;
use stack::tcp::tcb::Tcb;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

/// Bytes of Ethernet's header.
const LINK: usize = 14;

/// A client with these settings of its host, which sends so much to a server behind a path that takes datagrams of `mtu` bytes.
fn network(
    seed: u64,
    remote: Ip,
    mtu: usize,
    settings: &[(&str, u32)],
    sent: &[u8],
) -> (Simulation<Any>, Node, Node) {
    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), remote, sent.to_vec());
    client.plan.stays = true;
    for (name, value) in settings {
        assert!(client.parts().host.set(name, *value), "{name}");
    }
    let server = TcpHost::server(2, &limits(1024), Plan::default()).knowing(&[1]);
    let mut network = Simulation::new(seed);
    let (a, b) = (network.add(client.into(), Setup::plain(1)), network.add(server.into(), Setup::plain(2)));
    let path = Path { rate: 100_000_000, ..Path::delayed(Duration::from_millis(5)) };
    network.wire(a, b, path, path);
    network.paths(a).0.bytes_max = mtu + LINK;
    (network, a, b)
}

/// Runs until the server has it all, but not longer than this.
fn run(network: &mut Simulation<Any>, b: Node, sent: &[u8], most: Duration) {
    while network.look(b).look().talks.first().is_none_or(|talk| talk.got != sent) {
        assert!(network.now() < Instant(most.0), "it does not get through");
        network.run_for(Duration::from_millis(50));
    }
}

fn tcb(network: &mut Simulation<Any>, node: Node) -> Tcb {
    let host = network.host(node).stack();
    let socket = host.talks[0].socket.expect("open");
    *host.parts().tcb(socket).expect("a socket")
}

fn counters<const N: usize>(network: &mut Simulation<Any>, node: Node, names: [Counter; N]) -> [u64; N] {
    names.map(|name| network.look(node).look().counter(name))
}

/// What the datagrams of a connection's full segments have.
fn datagram(tcb: &Tcb) -> usize {
    usize::from(tcb.mss) + 12 + if tcb.remote.is_v4() { 40 } else { 60 }
}

/// After R1 smaller segments are tried (RFC 4821 §7.7), and then larger ones, until what passes is known to a few bytes; then
/// nothing is lost any more, and routers were not believed to have said anything.
#[test]
fn a_black_hole_is_found_and_the_path_searched() {
    for (seed, remote, mtu) in
        [(56, ip(2), 1200), (57, ip6(2), 1300), (58, ip(2), 600), (59, ip6(2), 1420), (60, ip(2), 1492)]
    {
        let sent = text(seed, 500_000);
        let (mut network, a, b) = network(seed, remote, mtu, &[("tcp_mtu_probing", 1)], &sent);
        run(&mut network, b, &sent, Duration::from_secs(60));
        let after = tcb(&mut network, a);
        let [lowered, probed, raised] = counters(
            &mut network,
            a,
            [Counter::PathMtuLowered, Counter::PathMtuProbed, Counter::PathMtuRaised],
        );
        assert_eq!(lowered, if mtu < 1000 { 2 } else { 1 }, "at {mtu}");
        assert!(probed > 0 && raised <= probed && probed <= 16, "{raised} of {probed} arrived at {mtu}");
        let found = datagram(&after);
        assert!(found <= mtu && mtu - found <= 16, "{found} of {mtu}");
        assert_eq!(after.path_mtu, 1500);
        // It is over: more text is no reason for more probes, and none of it is lost.
        let more = text(seed + 100, 200_000);
        let lost = network.counts(a).0.too_large;
        network.host(a).stack().talks[0].text.extend_from_slice(&more);
        run(&mut network, b, &[sent, more].concat(), Duration::from_secs(70));
        assert_eq!(network.counts(a).0.too_large, lost, "at {mtu}");
    }
}

/// Searched from the beginning: from 1024 octets, or IPv6's least, to what the device has. A probe that is lost costs no window.
#[test]
fn a_search_from_the_beginning_costs_no_window() {
    for (seed, remote, mtu) in
        [(1, ip(2), 1500), (2, ip6(2), 1500), (3, ip(2), 1400), (4, ip6(2), 1380), (5, ip(2), 1100)]
    {
        let sent = text(seed, 500_000);
        let (mut network, a, b) = network(seed, remote, mtu, &[("tcp_mtu_probing", 2)], &sent);
        run(&mut network, b, &sent, Duration::from_secs(20));
        let after = tcb(&mut network, a);
        let found = datagram(&after);
        assert!(found <= mtu && mtu - found <= 16, "{found} of {mtu}");
        let names =
            [Counter::PathMtuProbed, Counter::PathMtuRaised, Counter::Timeouts, Counter::FastRecoveries];
        let [probed, raised, timeouts, recoveries] = counters(&mut network, a, names);
        let lost = network.counts(a).0.too_large;
        assert_eq!((timeouts, recoveries, probed - raised), (0, 0, lost), "at {mtu}");
        assert!(after.congestion.cwnd() > 40, "{}", after.congestion.cwnd());
        assert!(raised > 0 || mtu < 1140);
    }
}

#[test]
fn nothing_is_searched_unless_it_is_asked_for() {
    let sent = text(7, 300_000);
    let (mut network, a, b) = network(7, ip(2), 1500, &[], &sent);
    run(&mut network, b, &sent, Duration::from_secs(20));
    assert_eq!(tcb(&mut network, a).mss, 1448);
    assert_eq!(counters(&mut network, a, [Counter::PathMtuProbed, Counter::PathMtuLowered]), [0, 0]);
    let (mut network, a, b) = self::network(8, ip(2), 1200, &[], &sent);
    network.run_for(Duration::from_secs(60));
    assert!(network.look(b).look().talks[0].got.is_empty());
    assert_eq!(tcb(&mut network, a).mss, 1448);
}

/// Paths change: after tcp_probe_interval a path that has become wider is found to be.
#[test]
fn a_path_that_becomes_wider_is_found_in_time() {
    let sent = text(9, 500_000);
    let settings = [
        ("tcp_mtu_probing", 2),
        ("tcp_probe_interval", 30),
        ("tcp_base_mss", 900),
        ("tcp_probe_threshold", 20),
    ];
    let (mut network, a, b) = network(9, ip(2), 1200, &settings, &sent);
    run(&mut network, b, &sent, Duration::from_secs(20));
    let first = datagram(&tcb(&mut network, a));
    assert!((1200 - 40..=1200).contains(&first), "{first}");
    network.paths(a).0.bytes_max = 0;
    let mut all = sent;
    for (turn, most) in [(1, 25), (2, 45), (3, 60)] {
        let more = text(9 + turn, 300_000);
        network.run_for(Duration::from_secs(if turn == 2 { 31 } else { 1 }));
        network.host(a).stack().talks[0].text.extend_from_slice(&more);
        all.extend_from_slice(&more);
        run(&mut network, b, &all, Duration::from_secs(most));
        let found = datagram(&tcb(&mut network, a));
        assert_eq!(found > 1450, turn > 1, "{found} in turn {turn}");
    }
}
