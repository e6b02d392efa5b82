//! How long timeouts are: the host says, then the socket, then the route.

use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::error::Error;
use stack::ip::route::{Route, V4_BITS};
use stack::region::Limits;
use stack::settings::Values;
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

/// A client that has sent a little over a path of 10 ms; its timeout in microseconds.
fn client(values: &Values, route_ms: u32, host: &[(&str, u32)]) -> (Simulation<TcpHost>, Node, u32) {
    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), ip(2), text(1, 5000));
    client.plan = Plan { write: 50, stays: true, ..Plan::default() };
    client.values = *values;
    for (name, value) in host {
        assert!(client.parts().host.set(name, *value));
    }
    let destination = Ip::v4([10, 0, 0, 0]);
    let route = Route { destination, prefix_len: V4_BITS + 24, rto_min_ms: route_ms, ..Route::default() };
    client.parts().add_route(&route).expect("room");
    let mut network = Simulation::new(1);
    let plan = Plan { stays: true, echoes: true, ..Plan::default() };
    let server = TcpHost::server(2, &limits(1024), plan).knowing(&[1]);
    let (a, b) = (network.add(client, Setup::plain(1)), network.add(server, Setup::plain(2)));
    let path = Path::delayed(Duration::from_millis(5));
    network.wire(a, b, path, path);
    network.run_for(Duration::from_secs(1));
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    let socket = host.talks[0].socket.expect("a connection");
    let rto = host.with(now, port, |stack| stack.status(socket)).expect("a connection").rto;
    (network, a, rto)
}

#[test]
fn the_least_is_the_routes_or_the_sockets_or_the_hosts() {
    let own = |rto_min_ms| Values { rto_min_ms, ..Values::default() };
    let rows = [
        (own(0), 0, 200_000, 210),
        (own(0), 0, 40_000, 50),
        (own(20), 0, 40_000, 30),
        (own(20), 70, 40_000, 80),
        (own(0), 500, 200_000, 510),
    ];
    for (values, route, host, wanted) in rows {
        let (network, a, rto) = client(&values, route, &[("tcp_rto_min_us", host)]);
        // The measurements jitter by less than a millisecond here.
        assert!((wanted * 1000..wanted * 1000 + 2000).contains(&rto), "{rto} µs, not {wanted} ms");
        assert_eq!(network.look(a).counter(Counter::SegmentsRetransmitted), 0);
        let is_usual = route == 0 && host == 200_000 && values.rto_min_ms == 0;
        assert_eq!(network.look(a).counter(Counter::HeaderPredicted) > 0, is_usual);
    }
}

#[test]
fn a_loss_is_repaired_as_fast_as_the_socket_asks() {
    for (rto_min_ms, wanted) in [(20, 62), (0, 422)] {
        let (mut network, a, _) = client(&Values { rto_min_ms, ..Values::default() }, 0, &[]);
        let now = network.now();
        network.paths(a).0.loss = 1.0;
        let (host, port) = network.host_and_port(a);
        let socket = host.talks[0].socket.expect("a connection");
        host.with(now, port, |stack| {
            stack.send(socket, &[b"x"], false).expect("room");
            stack.poll();
        });
        network.run_for(Duration(0));
        // A tail loss probe comes first, and the timeout counts from there.
        network.run_for(Duration::from_millis(wanted - 10));
        assert_eq!(network.look(a).counter(Counter::Timeouts), 0, "before {wanted} ms");
        network.run_for(Duration::from_millis(20));
        assert_eq!(network.look(a).counter(Counter::Timeouts), 1, "after {wanted} ms");
    }
}

#[test]
fn the_longest_bounds_a_connect_that_nobody_answers() {
    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]).opening(Instant(0), ip(2), Vec::new());
    client.values = Values { rto_max_ms: 2000, ..Values::default() };
    let mut network = Simulation::new(2);
    let (a, b) =
        (network.add(client, Setup::plain(1)), network.add(TcpHost::new(2, &limits(64)), Setup::plain(2)));
    let lost = Path { loss: 1.0, ..Path::IDEAL };
    network.wire(a, b, lost, lost);
    // 1 s, and then 2 s each time: six retransmissions, and the last one's wait.
    network.run_for(Duration::from_millis(12_900));
    assert_eq!(network.look(a).talks[0].error, None);
    network.run_for(Duration::from_millis(200));
    assert_eq!(network.look(a).talks[0].error, Some(Error::TimedOut));
    assert_eq!(network.look(a).counter(Counter::SegmentsRetransmitted), 6);
}

/// A process that was stopped finds acknowledgments and expired timers at once. As a poll reads so many packets and moves so many timers down
/// the wheel, the acknowledgments are read before the timers that miss them have come to its lowest level.
#[test]
fn who_was_away_reads_before_timers_run() {
    const TALKS: usize = 100;
    let room = Limits { tcp_sockets: 300, traffics: 300, syns: 300, bounds: 300, ..limits(2048) };
    let mut client = TcpHost::new(1, &room).knowing(&[2]);
    client.plan.stays = true;
    for at in 0..TALKS as u64 {
        client = client.opening(Instant(at * 1_000_000), ip(2), text(at, 10));
    }
    let plan = Plan { stays: true, echoes: true, ..Plan::default() };
    let server = TcpHost::server(2, &room, plan).knowing(&[1]);
    let mut network = Simulation::new(3);
    let (a, b) = (network.add(client, Setup::plain(1)), network.add(server, Setup::plain(2)));
    let path = Path::delayed(Duration::from_millis(5));
    network.wire(a, b, path, path);
    network.run_for(Duration::from_secs(1));
    let now = network.now();
    let (host, port) = network.host_and_port(a);
    let sockets: Vec<_> = host.talks.iter().filter_map(|talk| talk.socket).collect();
    assert_eq!(sockets.len(), TALKS);
    host.with(now, port, |stack| {
        for socket in sockets {
            stack.send(socket, &[b"x"], false).expect("room");
        }
        stack.poll();
    });
    host.plan.stopped_until = now + Duration::from_millis(700);
    network.run_for(Duration::from_secs(1));
    let client = network.look(a);
    assert!(client.talks.iter().all(|talk| talk.got.len() == 11), "every answer was read");
    let counters = [Counter::Timeouts, Counter::SegmentsRetransmitted, Counter::TailLossProbes];
    assert_eq!(counters.map(|counter| client.counter(counter)), [0; 3]);
}
