//! TCP between whole stacks over a simulated wire: connections open, carry text and end, over wires that lose, delay, reorder,
//! duplicate and corrupt. What both programs read is what was sent, nobody is stuck, and nothing is left behind.

use harness::sim::line::line;
use harness::sim::path::{Burst, Path};
use harness::sim::port::Setup;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::trace::Record;
use harness::sim::{Node, Simulation};
use stack::device::Link;
use stack::error::Error;
use stack::region::Limits;
use stack::region::layout::Header;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::time::{Duration, Instant};

const MS: u64 = 1_000_000;

/// A client and a server, and the wire between them.
fn pair(
    seed: u64,
    client: TcpHost,
    server: TcpHost,
    there: Path,
    back: Path,
) -> (Simulation<TcpHost>, Node, Node) {
    let mut network = Simulation::new(seed);
    let client = network.add(client, Setup::plain(1));
    let server = network.add(server, Setup::plain(2));
    network.wire(client, server, there, back);
    (network, client, server)
}

/// Both know each other: on a wire that loses, who is asked for may be given up.
fn client() -> TcpHost {
    TcpHost::new(1, &limits(1024)).knowing(&[2])
}

fn server(plan: Plan) -> TcpHost {
    TcpHost::server(2, &limits(1024), plan).knowing(&[1])
}

/// Runs until both programs are done; when that was.
fn run(network: &mut Simulation<TcpHost>, nodes: [Node; 2]) -> Duration {
    while !nodes.into_iter().all(|node| network.look(node).is_done()) {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
    network.now() - Instant(0)
}

/// Lets TIME-WAIT pass; then nothing is held but the listener.
fn settle(network: &mut Simulation<TcpHost>, nodes: [Node; 2]) {
    network.run_for(Duration::from_secs(400));
    for node in nodes {
        let listeners = u32::from(network.host(node).listener.is_some());
        network.run_for(Duration::from_millis(1));
        let host = network.host(node);
        host.check();
        assert_eq!(host.held(), [listeners, 0, 0, 0], "sockets, queues, SYNs, frames");
    }
}

#[test]
fn a_request_and_its_answer_over_both_versions() {
    for (seed, remote) in [(1, ip(2)), (2, ip6(2))] {
        let (request, answer) = (text(seed, 100), text(seed + 10, 5000));
        let mut client = client().opening(Instant(MS), remote, request.clone());
        let mut server = server(Plan { answer: answer.clone(), ..Plan::default() });
        (client.checks, server.checks) = (true, true);
        let path = Path::delayed(Duration::from_millis(5));
        let (mut network, a, b) = pair(seed, client, server, path, path);
        run(&mut network, [a, b]);
        assert!(network.look(a).talks[0].got == answer && network.look(b).talks[0].got == request);
        assert_eq!(network.look(a).counter(Counter::SegmentsRetransmitted), 0);
        assert_eq!(network.look(b).counter(Counter::PassiveOpens), 1);
        settle(&mut network, [a, b]);
    }
}

#[test]
fn a_megabyte_each_way_without_loss_is_sent_once() {
    let (there, back) = (text(3, 1 << 20), text(4, 1 << 20));
    let client = client().opening(Instant(0), ip(2), there.clone());
    let server = server(Plan { answer: back.clone(), ..Plan::default() });
    // With a rate: a window that arrived at one moment would be more than a card's ring has room for.
    let path = Path { rate: 1_000_000_000, ..Path::delayed(Duration::from_millis(2)) };
    let (mut network, a, b) = pair(3, client, server, path, path);
    run(&mut network, [a, b]);
    assert!(network.look(a).talks[0].got == back && network.look(b).talks[0].got == there);
    for node in [a, b] {
        assert_eq!(network.look(node).counter(Counter::SegmentsRetransmitted), 0);
    }
    settle(&mut network, [a, b]);
}

#[test]
fn where_nobody_listens_a_connection_is_refused() {
    let client = client().opening(Instant(0), ip(2), Vec::new());
    let path = Path::delayed(Duration::from_millis(1));
    let (mut network, a, b) = pair(4, client, TcpHost::new(2, &limits(1024)), path, path);
    network.run_for(Duration::from_secs(1));
    assert_eq!(network.look(a).talks[0].error, Some(Error::ConnectionRefused));
    assert_eq!(network.look(b).counter(Counter::NoConnection), 1);
    settle(&mut network, [a, b]);
}

#[test]
fn a_host_that_does_not_answer_is_given_up_after_127_seconds() {
    let client = client().opening(Instant(0), ip(2), Vec::new());
    let lost = Path { loss: 1.0, ..Path::IDEAL };
    let (mut network, a, b) = pair(5, client, server(Plan::default()), lost, lost);
    network.run_for(Duration::from_secs(126));
    assert_eq!(network.look(a).talks[0].error, None);
    network.run_for(Duration::from_secs(2));
    assert_eq!(network.look(a).talks[0].error, Some(Error::TimedOut));
    assert_eq!(network.look(a).counter(Counter::SegmentsRetransmitted), 6);
    settle(&mut network, [a, b]);
}

#[test]
fn a_reader_that_sleeps_closes_the_window_and_nothing_is_lost() {
    let sent = text(6, 600_000);
    let client = client().opening(Instant(0), ip(2), sent.clone());
    let mut server = server(Plan { reads_from: Instant(20_000 * MS), ..Plan::default() });
    server.checks = true;
    let path = Path::delayed(Duration::from_millis(3));
    let (mut network, a, b) = pair(6, client, server, path, path);
    run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == sent);
    assert!(network.look(a).counter(Counter::WindowProbes) > 3, "the window was closed for 20 s");
    settle(&mut network, [a, b]);
}

#[test]
fn what_is_closed_unread_is_reset() {
    let client = client().opening(Instant(0), ip(2), text(7, 5000));
    let plan = Plan { closes_unread: true, ..Plan::default() };
    let path = Path::delayed(Duration::from_millis(3));
    let (mut network, a, b) = pair(7, client, server(plan), path, path);
    network.run_for(Duration::from_secs(2));
    assert_eq!(network.look(b).counter(Counter::ResetsOut), 1, "RFC 2525 §2.17");
    assert_eq!(network.host(b).held()[..2], [1, 0], "but for the listener nothing is left");
    assert_eq!(network.look(a).talks[0].error, Some(Error::ConnectionReset));
    settle(&mut network, [a, b]);
}

#[test]
fn keep_alive_finds_a_peer_that_is_gone() {
    let mut client = client().opening(Instant(0), ip(2), Vec::new());
    client.values = Values {
        options: Switch::KEEP_ALIVE,
        keep_idle_s: 10,
        keep_interval_s: 5,
        keep_count: 3,
        ..Values::default()
    };
    client.plan.stays = true;
    let stays = Plan { stays: true, ..Plan::default() };
    let path = Path::delayed(Duration::from_millis(1));
    let (mut network, a, b) = pair(8, client, server(stays), path, path);
    network.run_for(Duration::from_secs(100));
    assert_eq!(network.look(a).talks[0].error, None, "a peer that answers lives");
    assert!(network.look(a).counter(Counter::KeepaliveProbes) >= 9);
    network.paths(a).0.loss = 1.0;
    network.run_for(Duration::from_secs(30));
    assert_eq!(network.look(a).talks[0].error, Some(Error::TimedOut));
    assert_eq!((network.look(a).counter(Counter::TimedOut), network.look(b).talks[0].error), (1, None));
}

/// A transfer both ways over a bad path; what went wrong is told with the last packets by the simulation itself.
///
/// Every third host's device completes what it sends late and in any order.
fn bad_path(seed: u64, path: Path, len: usize, checks: bool) {
    let (there, back) = (text(seed, len), text(seed ^ 1 << 40, len / 2));
    let remote = if seed.is_multiple_of(2) { ip(2) } else { ip6(2) };
    let mut client = client().opening(Instant(0), remote, there.clone());
    let mut server = server(Plan { answer: back.clone(), ..Plan::default() });
    (client.checks, server.checks) = (checks, checks);
    let mut network = Simulation::new(seed);
    let completion_lag = if seed.is_multiple_of(3) { Duration::from_millis(30) } else { Duration(0) };
    let a = network.add(client, Setup { completion_lag, ..Setup::plain(1) });
    let b = network.add(server, Setup { completion_lag, ..Setup::plain(2) });
    network.wire(a, b, path, path);
    run(&mut network, [a, b]);
    let (client_got, server_got) =
        (network.look(a).talks[0].got.clone(), network.look(b).talks[0].got.clone());
    assert!(client_got == back, "seed {seed}: {} of {} came back", client_got.len(), back.len());
    assert!(server_got == there, "seed {seed}: {} of {} arrived", server_got.len(), there.len());
    settle(&mut network, [a, b]);
}

const BASE: Path = Path::delayed(Duration::from_millis(5));

#[test]
fn loss_is_repaired() {
    for seed in 0..20 {
        bad_path(100 + seed, Path { loss: 0.03, ..BASE }, 200_000, false);
    }
}

#[test]
fn losses_in_bursts_are_repaired() {
    let burst = Some(Burst { enter: 0.01, leave: 0.3, loss: 0.8 });
    for seed in 0..20 {
        bad_path(200 + seed, Path { burst, ..BASE }, 150_000, false);
    }
}

#[test]
fn what_is_reordered_and_doubled_is_put_in_order() {
    let path = Path {
        reorder: 0.1,
        reorder_by: Duration::from_millis(3),
        duplicate: 0.05,
        jitter: Duration::from_millis(1),
        ..BASE
    };
    for seed in 0..20 {
        bad_path(300 + seed, path, 200_000, false);
    }
}

#[test]
fn what_is_corrupted_is_dropped_and_sent_again() {
    for seed in 0..20 {
        bad_path(400 + seed, Path { corrupt: 0.02, ..BASE }, 150_000, false);
    }
}

#[test]
fn everything_at_once_with_every_invariant_looked_at() {
    let path = Path {
        loss: 0.02,
        corrupt: 0.01,
        duplicate: 0.02,
        reorder: 0.05,
        reorder_by: Duration::from_millis(4),
        jitter: Duration::from_millis(2),
        ..BASE
    };
    for seed in 0..12 {
        bad_path(500 + seed, path, 20_000, true);
    }
}

#[test]
fn what_is_not_acknowledged_is_given_up_after_the_users_own_time() {
    let mut client = client().opening(Instant(0), ip(2), text(9, 100_000));
    client.values = Values { user_timeout_ms: 5000, ..Values::default() };
    let (mut network, a, b) = pair(9, client, server(Plan::default()), BASE, BASE);
    network.run_for(Duration::from_millis(12));
    network.paths(a).0.loss = 1.0;
    network.run_for(Duration::from_secs(4));
    assert_eq!(network.look(a).talks[0].error, None);
    network.run_for(Duration::from_secs(4));
    assert_eq!(network.look(a).talks[0].error, Some(Error::TimedOut), "RFC 5482");
    assert_eq!(network.host(a).held()[..2], [0, 0]);
    let _ = b;
}

#[test]
fn small_writes_leave_together_unless_they_are_in_a_hurry() {
    // A hundred bytes in writes of ten: the first leaves at once, the others wait for its acknowledgment.
    let mut client = client().opening(Instant(0), ip(2), text(10, 100));
    client.plan.write = 10;
    let (mut network, a, b) = pair(10, client, server(Plan::default()), BASE, BASE);
    run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == text(10, 100));
    // SYN, ACK, two segments of text, one of which has the FIN, and the ACK of the peer's FIN, or a few of those.
    let sent = network.look(a).counter(Counter::SegmentsOut);
    assert!(sent <= 7, "{sent} segments");
    settle(&mut network, [a, b]);
}

#[test]
fn the_receive_window_keeps_up_with_slow_start() {
    // Ten segments, and twice as many in each round of 20 ms: nine rounds for 4 MiB, and those of handshake and end.
    let sent = text(12, 4 << 20);
    let client = TcpHost::new(1, &limits(16_384)).knowing(&[2]).opening(Instant(0), ip(2), sent.clone());
    let server = TcpHost::server(2, &limits(16_384), Plan::default()).knowing(&[1]);
    let path = Path::delayed(Duration::from_millis(10));
    let mut network = Simulation::new(12);
    let a = network.add(client, Setup { frames: 16_384, ring: 8192, ..Setup::plain(1) });
    let b = network.add(server, Setup { frames: 16_384, ring: 8192, ..Setup::plain(2) });
    network.wire(a, b, path, path);
    let took = run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == sent);
    assert!(took < Duration::from_millis(13 * 20), "{took:?}");
}

#[test]
fn a_bottleneck_is_filled() {
    // 100 Mbit/s and 20 ms of round trip are 250 KB in flight; the queue takes as much.
    let there = Path::limited(100_000_000, Duration::from_millis(10), Duration::from_millis(20));
    let sent = text(11, 8 << 20);
    let client = client().opening(Instant(0), ip(2), sent.clone());
    let (mut network, a, b) =
        pair(11, client, server(Plan::default()), there, Path::delayed(Duration::from_millis(10)));
    let took = run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == sent);
    let ideal = sent.len() as u64 * 8 * 10;
    assert!(took.0 < ideal * 3 / 2, "{took:?} for {ideal} ns on the wire: {:?}", network.counts(a).0);
    assert_eq!(network.look(a).counter(Counter::Timeouts), 0);
    settle(&mut network, [a, b]);
}

/// Everything that two hosts send each other in a run, each of which goes the long way if it should.
fn journal(seed: u64, path: Path, len: usize, plan: &Plan, long: [bool; 2]) -> Vec<Record> {
    let there = text(seed, len);
    let remote = if seed.is_multiple_of(2) { ip(2) } else { ip6(2) };
    let mut client = client().opening(Instant(0), remote, there.clone());
    client.plan = Plan { in_turn: plan.echoes, echoes: false, ..plan.clone() };
    let mut server = server(plan.clone());
    for (host, long) in [(&mut client, long[0]), (&mut server, long[1])] {
        if long {
            host.parts().header.modes |= Header::LONG_WAY;
        }
        host.checks = true;
    }
    let mut network = Simulation::new(seed);
    network.keep_journal();
    let a = network.add(client, Setup::plain(1));
    let b = network.add(server, Setup::plain(2));
    network.wire(a, b, path, path);
    run(&mut network, [a, b]);
    let predicted = [a, b].map(|node| network.look(node).counter(Counter::HeaderPredicted));
    for (count, long) in predicted.into_iter().zip(long) {
        assert!(if long { count == 0 } else { count > 3 || !plan.echoes }, "seed {seed}: {predicted:?}");
    }
    assert!(network.look(b).talks[0].got == there && (!plan.echoes || network.look(a).talks[0].got == there));
    settle(&mut network, [a, b]);
    network.journal()
}

#[test]
fn the_short_way_and_the_long_one_send_the_same_packets() {
    let mixed = Path { loss: 0.01, reorder: 0.03, reorder_by: Duration::from_millis(2), ..BASE };
    for seed in 600..640 {
        let path = if seed % 4 == 0 { mixed } else { BASE };
        // Small writes and reads are what the short way is for; large ones fill windows and buffers.
        let (write, read) = [(64, 64), (700, 4000), (20_000, 16_384), (1448, 333)][seed as usize % 4];
        let plan = Plan { write, read, no_delay: seed % 3 == 0, echoes: seed % 8 < 6, ..Plan::default() };
        let len = (100 * write).min(30_000);
        let short = journal(seed, path, len, &plan, [false; 2]);
        let long = journal(seed, path, len, &plan, [true; 2]);
        let differs = short.iter().zip(&long).position(|(short, long)| short != long);
        if let Some(at) = differs.or((short.len() != long.len()).then_some(short.len().min(long.len()))) {
            let lines = |journal: &[Record]| {
                let from = at.saturating_sub(6);
                let line = |record: &Record| {
                    format!(
                        "{} host {} {:?} {}",
                        record.0,
                        record.1,
                        record.2,
                        line(&record.3, Link::Ethernet)
                    )
                };
                journal.iter().skip(from).take(9).map(line).collect::<Vec<_>>().join("\n")
            };
            panic!("seed {seed}: packet {at} differs\nshort:\n{}\nlong:\n{}", lines(&short), lines(&long));
        }
    }
}

/// Ten connections at once, each with text both ways, between hosts with queues for so many of them.
fn few_queues(seed: u64, traffics: u32, path: Path) {
    let limits = Limits { traffics, ..limits(1024) };
    let (there, back) = (text(seed, 60_000), text(seed + 50, 60_000));
    let mut client = TcpHost::new(1, &limits);
    for _ in 0..10 {
        client = client.opening(Instant(0), ip(2), there.clone());
    }
    let mut server = TcpHost::server(2, &limits, Plan { answer: back.clone(), ..Plan::default() });
    (client.checks, server.checks) = (true, true);
    let (mut network, a, b) = pair(seed, client, server, path, path);
    let took = run(&mut network, [a, b]);
    for at in 0..10 {
        assert!(network.look(a).talks[at].got == back && network.look(b).talks[at].got == there, "{at}");
    }
    assert!(took < Duration::from_secs(60), "{took:?}");
    settle(&mut network, [a, b]);
}

#[test]
fn with_queues_for_three_of_ten_connections_all_of_them_end() {
    few_queues(12, 3, BASE);
    few_queues(13, 2, BASE);
    for seed in 14..18 {
        few_queues(seed, 3, Path { loss: 0.03, ..BASE });
    }
}
