//! Our stack against one that others wrote: smoltcp 0.14, in virtual time, as client and as server, over both versions of IP.
//!
//! What both programs read is what was sent; nobody is stuck, and nothing is left behind in our region. smoltcp's sockets differ by
//! seed: window, timestamps, congestion control, delayed acknowledgments, Nagle.

#[path = "smoltcp/host.rs"]
mod host;

use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use host::{Either, Kind, SmolHost};
use stack::device::Link;
use stack::error::Error;
use stack::region::Limits;
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

const MS: u64 = 1_000_000;
const BASE: Path = Path::delayed(Duration::from_millis(5));

/// Many enough for every test here.
fn room() -> Limits {
    Limits { tcp_sockets: 300, traffics: 300, syns: 300, bounds: 300, ..limits(2048) }
}

/// Two hosts on a wire of IP packets.
fn network(seed: u64, hosts: [Either; 2], paths: [Path; 2]) -> (Simulation<Either>, [Node; 2]) {
    let mut network = Simulation::new(seed);
    let setup = |number| Setup { link: Link::Ip, frames: 2048, ..Setup::plain(number) };
    let [one, two] = hosts;
    let nodes = [network.add(one, setup(1)), network.add(two, setup(2))];
    network.wire(nodes[0], nodes[1], paths[0], paths[1]);
    (network, nodes)
}

/// Runs until both programs have had so many connections and ended them.
fn run(network: &mut Simulation<Either>, nodes: [Node; 2], connections: usize) {
    while !nodes.into_iter().all(|node| network.look(node).is_done(connections)) {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
}

/// Lets TIME-WAIT pass; then our host holds nothing but its listener.
fn settle(network: &mut Simulation<Either>, ours: Node) {
    network.run_for(Duration::from_secs(400));
    // What was sent last, a report of its groups perhaps, is complete with the next poll.
    network.host(ours);
    network.run_for(Duration::from_millis(1));
    let host = network.host(ours).ours();
    host.check();
    let listeners = u32::from(host.listener.is_some());
    assert_eq!(host.held(), [listeners, 0, 0, 0], "sockets, queues, SYNs, frames");
}

fn remote(seed: u64) -> Ip {
    if seed.is_multiple_of(2) { ip(2) } else { ip6(2) }
}

/// Text both ways at once, with one of us as client; returns our host's counter. A short one has every invariant looked at.
fn both_ways(seed: u64, path: Path, len: usize, we_connect: bool, counter: Counter) -> u64 {
    let (there, back) = (text(seed, len), text(seed ^ 1 << 40, len / 2 + 1));
    let kind = Kind::of(seed);
    let hosts = if we_connect {
        let client = TcpHost::new(1, &room()).opening(Instant(MS), remote(seed), there.clone());
        let mut server = SmolHost::new(2, seed, kind, 1);
        server.answer = back.clone();
        [Either::Ours(Box::new(client)), Either::Smol(Box::new(server))]
    } else {
        let client = SmolHost::new(1, seed, kind, 0).opening(Instant(MS), remote(seed), there.clone());
        let plan = Plan { answer: back.clone(), ..Plan::default() };
        [Either::Smol(Box::new(client)), Either::Ours(Box::new(TcpHost::server(2, &room(), plan)))]
    };
    let (mut network, nodes) = network(seed, hosts, [path, path]);
    network.host(nodes[usize::from(!we_connect)]).ours().checks = len < 5_000;
    run(&mut network, nodes, 1);
    let [client, server] = nodes.map(|node| network.look(node).got().concat());
    assert!(server == there, "seed {seed}: {} of {} bytes arrived", server.len(), there.len());
    assert!(client == back, "seed {seed}: {} of {} bytes came back", client.len(), back.len());
    let ours = nodes[usize::from(!we_connect)];
    let count = network.host(ours).ours().counter(counter);
    settle(&mut network, ours);
    count
}

#[test]
fn without_loss_every_byte_is_sent_once() {
    for seed in 0..24 {
        for we_connect in [true, false] {
            let again = both_ways(seed, BASE, 300_000, we_connect, Counter::SegmentsRetransmitted);
            assert_eq!(again, 0, "seed {seed}, connecting {we_connect}");
        }
    }
}

#[test]
fn a_message_and_its_answer_in_all_kinds() {
    for seed in 0..60 {
        for we_connect in [true, false] {
            both_ways(seed, BASE, 1 + seed as usize * 37, we_connect, Counter::SegmentsOut);
        }
    }
}

#[test]
fn loss_is_repaired_in_both_directions() {
    let mut again = 0;
    for seed in 100..124 {
        for we_connect in [true, false] {
            let path = Path { loss: 0.02, ..BASE };
            again += both_ways(seed, path, 60_000, we_connect, Counter::SegmentsRetransmitted);
        }
    }
    assert!(again > 24, "{again} segments were sent again");
}

#[test]
fn what_is_reordered_doubled_and_corrupted_is_put_right() {
    let path = Path {
        reorder: 0.05,
        reorder_by: Duration::from_millis(3),
        duplicate: 0.05,
        corrupt: 0.01,
        jitter: Duration::from_millis(1),
        ..BASE
    };
    for seed in 200..224 {
        for we_connect in [true, false] {
            both_ways(seed, path, 60_000, we_connect, Counter::SegmentsOut);
        }
    }
}

#[test]
fn after_our_end_the_peer_still_sends() {
    // The client's few bytes and its FIN are there long before the answer is sent: half of the connection goes on.
    for (seed, we_connect) in [(1, true), (2, true), (1, false), (2, false)] {
        let (there, back) = (text(seed, 10), text(seed + 50, 400_000));
        let kind = Kind { buffer: 20_000, ..Kind::of(seed) };
        let hosts = if we_connect {
            let client = TcpHost::new(1, &room()).opening(Instant(0), remote(seed), there.clone());
            let mut server = SmolHost::new(2, seed, kind, 1);
            server.answer = back.clone();
            [Either::Ours(Box::new(client)), Either::Smol(Box::new(server))]
        } else {
            let client = SmolHost::new(1, seed, kind, 0).opening(Instant(0), remote(seed), there.clone());
            let plan = Plan { answer: back.clone(), ..Plan::default() };
            [Either::Smol(Box::new(client)), Either::Ours(Box::new(TcpHost::server(2, &room(), plan)))]
        };
        let (mut network, nodes) = network(seed, hosts, [BASE, BASE]);
        run(&mut network, nodes, 1);
        let [client, server] = nodes.map(|node| network.look(node).got().concat());
        assert!(client == back && server == there, "seed {seed}: {} bytes", client.len());
        settle(&mut network, nodes[usize::from(!we_connect)]);
    }
}

#[test]
fn a_reader_that_sleeps_closes_the_window() {
    for we_connect in [true, false] {
        let (there, sleeps) = (text(5, 400_000), Instant(10_000 * MS));
        let kind = Kind { buffer: 30_000, ..Kind::of(4) };
        let hosts = if we_connect {
            let client = TcpHost::new(1, &room()).opening(Instant(0), ip(2), there.clone());
            let mut server = SmolHost::new(2, 5, kind, 1);
            server.reads_from = sleeps;
            [Either::Ours(Box::new(client)), Either::Smol(Box::new(server))]
        } else {
            let client = SmolHost::new(1, 5, kind, 0).opening(Instant(0), ip(2), there.clone());
            let plan = Plan { reads_from: sleeps, ..Plan::default() };
            [Either::Smol(Box::new(client)), Either::Ours(Box::new(TcpHost::server(2, &room(), plan)))]
        };
        let (mut network, nodes) = network(5, hosts, [BASE, BASE]);
        run(&mut network, nodes, 1);
        assert!(network.look(nodes[1]).got().concat() == there);
        if we_connect {
            assert!(network.host(nodes[0]).ours().counter(Counter::WindowProbes) > 3, "closed for 10 s");
        }
        settle(&mut network, nodes[usize::from(!we_connect)]);
    }
}

#[test]
fn many_connections_at_once_are_kept_apart() {
    const COUNT: usize = 200;
    for we_connect in [true, false] {
        let kind = Kind { buffer: 4_000, ..Kind::of(2) };
        let opens = |number: usize| {
            let at = Instant(number as u64 * MS / 3);
            (at, remote(number as u64), text(number as u64, 500 + number * 40))
        };
        let back = text(999, 3_000);
        let hosts = if we_connect {
            let mut client = TcpHost::new(1, &room());
            client.opens = (0..COUNT).map(opens).collect();
            let mut server = SmolHost::new(2, 7, kind, COUNT);
            server.answer = back.clone();
            [Either::Ours(Box::new(client)), Either::Smol(Box::new(server))]
        } else {
            let mut client = SmolHost::new(1, 7, kind, 0);
            client.opens = (0..COUNT).map(opens).collect();
            let plan = Plan { answer: back.clone(), ..Plan::default() };
            let mut server = TcpHost::server(2, &room(), plan);
            // More arrive within a round trip than the plan's backlog takes.
            let listener = server.listener.expect("a server");
            assert_eq!(server.parts().tcp_listen(listener, COUNT as u32), Ok(()));
            [Either::Smol(Box::new(client)), Either::Ours(Box::new(server))]
        };
        let (mut network, nodes) = network(7, hosts, [BASE, BASE]);
        run(&mut network, nodes, COUNT);
        let sent: Vec<Vec<u8>> = (0..COUNT).map(|number| opens(number).2).collect();
        let mut got: Vec<&[u8]> = network.look(nodes[1]).got();
        got.sort_unstable();
        let mut sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        sent.sort_unstable();
        assert!(got == sent, "each connection's bytes");
        assert!(network.look(nodes[0]).got().iter().all(|got| *got == back));
        settle(&mut network, nodes[usize::from(!we_connect)]);
    }
}

#[test]
fn a_reset_ends_a_connection() {
    // As Linux tells it (tcp_reset): a connection whose peer has sent its FIN before can only break while it sends.
    for (answer, error) in [(text(1, 1 << 20), Error::ConnectionReset), (Vec::new(), Error::BrokenPipe)] {
        let client = TcpHost::new(1, &room()).opening(Instant(0), ip(2), text(8, 300_000));
        let mut server = SmolHost::new(2, 8, Kind::of(8), 1);
        (server.aborts_after, server.answer) = (50_000, answer);
        let hosts = [Either::Ours(Box::new(client)), Either::Smol(Box::new(server))];
        let (mut network, nodes) = network(8, hosts, [BASE, BASE]);
        network.run_for(Duration::from_secs(5));
        assert_eq!(network.host(nodes[0]).ours().talks[0].error, Some(error));
        settle(&mut network, nodes[0]);
    }
}

#[test]
fn our_reset_ends_the_peers_connection() {
    let client = SmolHost::new(1, 9, Kind::of(9), 0).opening(Instant(0), ip(2), text(9, 50_000));
    let plan = Plan { closes_unread: true, ..Plan::default() };
    let hosts = [Either::Smol(Box::new(client)), Either::Ours(Box::new(TcpHost::server(2, &room(), plan)))];
    let (mut network, nodes) = network(9, hosts, [BASE, BASE]);
    network.run_for(Duration::from_secs(5));
    let Either::Smol(smol) = network.look(nodes[0]) else { panic!("the client") };
    assert!(smol.talks[0].is_reset, "RFC 2525 §2.17");
    settle(&mut network, nodes[1]);
}
