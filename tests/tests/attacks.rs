//! Those who mean harm, over whole stacks: each test is a row of the list of attacks, and its name says what holds. Memory and
//! work are looked at by counts, never by clocks.

use harness::sim::forge::{Flood, Forged, Forger, Machine};
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{PORT, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::ip::route::{Route, V4_BITS};
use stack::region::Limits;
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::{Options, Timestamps};

const MS: u64 = 1_000_000;

fn tcp(host: TcpHost) -> Machine {
    Machine::Tcp(Box::new(host))
}

/// A server, 1, and whoever else is on its segment, from 2 on.
fn network(seed: u64, server: TcpHost, others: Vec<Machine>) -> (Simulation<Machine>, Node, Vec<Node>) {
    let mut network = Simulation::new(seed);
    let server = network.add(tcp(server), Setup::plain(1));
    let mut number = 1;
    let others: Vec<Node> = others
        .into_iter()
        .map(|machine| {
            number += 1;
            network.add(machine, Setup::plain(number))
        })
        .collect();
    let path = Path::delayed(Duration::from_millis(1));
    let all: Vec<_> = [server].iter().chain(&others).map(|node| (*node, path, path)).collect();
    network.join(&all);
    (network, server, others)
}

fn server(plan: Plan) -> TcpHost {
    TcpHost::server(1, &limits(1024), plan).knowing(&[2])
}

/// SYNs from addresses that nobody has, one each microsecond.
fn spoofed(count: u64) -> Flood {
    Box::new(move |number| {
        let hash = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let source = Ip::v4([172, 16 | hash[0] & 15, hash[1], hash[2]]);
        let port = u16::from_be_bytes([hash[3], hash[4]]) | 1024;
        let stamps = Timestamps { tsval: number as u32 | 1, tsecr: 0 };
        let options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(stamps),
            ..Options::default()
        };
        let segment = Forged {
            link: (3, 1),
            ends: ((source, port), (ip(1), PORT)),
            seq: u32::from_be_bytes([hash[5], hash[6], hash[7], hash[0]]),
            ack: 0,
            flags: Flags::SYN,
            window: 64_240,
            urgent: 0,
            options,
            text: Vec::new(),
        };
        (number < count).then(|| (number * 1000, segment.bytes()))
    })
}

/// W15.
#[test]
fn a_million_spoofed_syns_keep_nobody_out() {
    // What is a second and more of attack takes a while without optimization.
    let count: u64 = if cfg!(debug_assertions) { 40_000 } else { 1_000_000 };
    let every = 10 * MS;
    let (request, answer) = (text(1, 3000), text(2, 3000));
    // Each of its connections waits in TIME-WAIT.
    let many = Limits { tcp_sockets: 256, bounds: 256, ..limits(1024) };
    let mut client = TcpHost::new(2, &many).knowing(&[1]);
    let real = count * 1000 / every;
    for number in 0..real {
        client = client.opening(Instant(number * every), ip(1), request.clone());
    }
    let mut server = server(Plan { answer: answer.clone(), ..Plan::default() });
    // What answers the attack goes the way to everywhere.
    let everywhere =
        Route { destination: Ip::UNSPECIFIED_V4, prefix_len: V4_BITS, gateway: ip(2), ..Route::default() };
    server.parts().add_route(&everywhere).expect("room");
    let (mut network, server, others) =
        network(15, server, vec![tcp(client), Machine::Forger(Box::new(Forger::flooding(spoofed(count))))]);
    let mut held = [0; 4];
    while network.now() < Instant(count * 1000 + 500 * MS) {
        network.run_for(Duration::from_millis(1));
        let now = network.host(server).tcp().held();
        held = std::array::from_fn(|at| held[at].max(now[at]));
    }
    let client = network.look(others[0]).look();
    assert_eq!(client.talks.len() as u64, real);
    assert!(client.talks.iter().all(|talk| talk.got == answer && talk.error.is_none()), "all are served");
    assert_eq!(client.counter(Counter::SegmentsRetransmitted), 0, "and at once");
    let server = network.look(server).look();
    assert!(server.talks.iter().all(|talk| talk.got == request));
    let [sockets, queues, syns, frames] = held;
    assert!(syns <= 9, "{syns} SYNs were kept, and the backlog is 8");
    assert!(sockets <= 64 && queues <= 4 && frames <= 64, "{held:?}");
    assert!(server.counter(Counter::SynCookiesSent) > count * 99 / 100);
    let good = server.counter(Counter::SynCookiesGood);
    assert!(
        good + 9 >= real && good <= real,
        "{good} of {real}: but for the first they found the queue full"
    );
}

/// W15: what a cookie brings back is what was agreed upon, and works.
#[test]
fn a_connection_by_cookie_has_the_options_that_were_asked_for() {
    let (request, answer) = (text(3, 300_000), text(4, 300_000));
    let client = TcpHost::new(2, &limits(1024)).knowing(&[1]).opening(Instant(MS), ip(1), request.clone());
    let mut server = server(Plan { answer: answer.clone(), ..Plan::default() });
    assert!(server.parts().host.set("tcp_syncookies", 2));
    let (mut network, server, others) = network(16, server, vec![tcp(client)]);
    network.run_for(Duration::from_millis(10));
    let tcbs = [server, others[0]].map(|node| {
        let parts = network.host(node).tcp().parts();
        *parts.tcbs.iter().find(|tcb| tcb.tag.is_used() && tcb.has_peer()).expect("a connection")
    });
    assert_eq!(tcbs[0].flags.0 & 0xf, tcbs[1].flags.0 & 0xf, "timestamps, SACK, scaling");
    assert_eq!(tcbs[0].flags.0 & 7, 7);
    assert_eq!(tcbs[0].snd_shift(), tcbs[1].rcv_shift());
    assert_eq!(tcbs[0].rcv_shift(), tcbs[1].snd_shift());
    assert_eq!((tcbs[0].peer_mss, tcbs[1].peer_mss), (1460, 1460));
    network.run_for(Duration::from_secs(5));
    assert!(network.look(server).look().talks[0].got == request);
    assert!(network.look(others[0]).look().talks[0].got == answer);
    assert_eq!(network.look(server).look().counter(Counter::SynCookiesGood), 1);
}

/// W15: without cookies lately, an acknowledgment of nothing is reset without a hash; with them, a wrong one is.
#[test]
fn a_cookie_that_was_never_sent_is_reset() {
    let mut server = server(Plan::default());
    assert!(server.parts().host.set("tcp_syncookies", 2));
    let (mut network, server, others) = network(17, server, vec![Machine::Forger(Box::default())]);
    let ack = Forged {
        link: (2, 1),
        ends: ((ip(2), 5000), (ip(1), PORT)),
        seq: 100,
        ack: 777,
        flags: Flags::ACK,
        window: 1000,
        urgent: 0,
        options: Options::default(),
        text: Vec::new(),
    };
    let syn = Forged { flags: Flags::SYN, seq: 1000, ..ack.clone() };
    let mut bad = Vec::new();
    for segment in [&ack, &syn, &ack] {
        let now = network.now();
        network.host(others[0]).forger().send(now, segment);
        network.run_for(Duration::from_millis(10));
        let heard = network.host(others[0]).forger().heard();
        assert_eq!(heard.len(), 1);
        bad.push((
            heard[0].flags.has(Flags::RST),
            network.look(server).look().counter(Counter::SynCookiesBad),
        ));
    }
    assert_eq!(bad, [(true, 0), (false, 0), (true, 1)]);
    network.host(server);
    network.run_for(Duration::from_millis(1));
    assert_eq!(network.host(server).tcp().held(), [1, 0, 0, 0], "the listener");
}

/// W16.
#[test]
fn who_is_not_accepted_is_held_back_and_served_later() {
    let (request, answer) = (text(5, 100), text(6, 2000));
    let mut client = TcpHost::new(2, &limits(1024)).knowing(&[1]);
    for _ in 0..20 {
        client = client.opening(Instant(MS), ip(1), request.clone());
    }
    let plan = Plan { answer: answer.clone(), accepts_from: Instant(5000 * MS), ..Plan::default() };
    let mut host = server(plan);
    // With cookies more handshakes would be done than can wait, and their FINs reset, as in Linux.
    assert!(host.parts().host.set("tcp_syncookies", 0));
    let (mut network, server, others) = network(18, host, vec![tcp(client)]);
    network.run_for(Duration::from_secs(4));
    let host = network.host(server).tcp();
    host.check();
    let [sockets, _, syns, _] = host.held();
    assert_eq!(sockets, 1 + 9, "the backlog is 8, and one more may wait");
    assert!(syns <= 9, "{syns} SYNs");
    assert!(host.counter(Counter::AcceptQueueFull) > 0 && host.counter(Counter::ResetsOut) == 0);
    network.run_for(Duration::from_secs(200));
    let client = network.look(others[0]).look();
    assert!(client.talks.iter().all(|talk| talk.got == answer && talk.error.is_none()));
    network.run_for(Duration::from_secs(100));
    for (node, left) in [(server, 1), (others[0], 0)] {
        let host = network.host(node).tcp();
        host.check();
        assert_eq!(host.held(), [left, 0, 0, 0], "nothing is left");
    }
}

/// W16, with net.ipv4.tcp_abort_on_overflow.
#[test]
fn who_is_not_accepted_is_reset_if_the_administrator_wants_that() {
    let mut client = TcpHost::new(2, &limits(1024)).knowing(&[1]);
    for number in 0..20 {
        client = client.opening(Instant(MS + number), ip(1), text(5, 100));
    }
    let plan = Plan { accepts_from: Instant(60_000 * MS), ..Plan::default() };
    let mut host = server(plan);
    assert!(host.parts().host.set("tcp_abort_on_overflow", 1));
    let (mut network, server, others) = network(19, host, vec![tcp(client)]);
    network.run_for(Duration::from_secs(5));
    let failed = network.look(others[0]).look().talks.iter().filter(|talk| talk.error.is_some()).count();
    assert!(failed >= 1, "{failed} were reset");
    assert_eq!(network.host(server).tcp().held()[0], 10);
}

/// How long a client's transfer takes beside so many attackers, each of whom fills its window with single octets, every second one, in no
/// order (CVE-2018-5390); and the server's host.
fn beside_tiny_holes(attackers: u32) -> (Duration, Box<TcpHost>) {
    let request = text(20, 4_000_000);
    let client =
        TcpHost::new(2, &limits(1024)).knowing(&[1]).opening(Instant(50 * MS), ip(1), request.clone());
    let (mut network, server, others) = network(
        20,
        server(Plan { stays: true, ..Plan::default() }).knowing(&[3]),
        vec![tcp(client), Machine::Forger(Box::default())],
    );
    // A hundred megabits: what a fast sender alone needs a third of a second for.
    network.paths(others[0]).0.rate = 100_000_000;
    let segment = |port: u32, flags, seq: u32, ack, text: &[u8]| Forged {
        link: (3, 1),
        ends: ((ip(3), port as u16), (ip(1), PORT)),
        seq,
        ack,
        flags,
        window: 1000,
        urgent: 0,
        options: Options {
            mss: Some(1460),
            sack_permitted: true,
            window_scale: Some(7),
            ..Options::default()
        },
        text: text.to_vec(),
    };
    let mut acks = Vec::new();
    for port in 5000..5000 + attackers {
        let now = network.now();
        network.host(others[1]).forger().send(now, &segment(port, Flags::SYN, 99, 0, &[]));
        network.run_for(Duration::from_millis(5));
        let ack = network.host(others[1]).forger().heard()[0].seq.wrapping_add(1);
        network.host(others[1]).forger().send(now, &segment(port, Flags::ACK, 100, ack, &[]));
        acks.push(ack);
    }
    network.run_until(Instant(50 * MS));
    let mut sent = 0u32;
    while network.look(server).look().talks.last().is_none_or(|talk| talk.got.len() < request.len()) {
        // Twenty of each in a millisecond, each at another place of a window of 60 KB.
        for (port, ack) in (5000..).zip(&acks) {
            for _ in 0..20 {
                let place = 2 * (sent.wrapping_mul(7919) % 30_000) + 1;
                let now = network.now();
                let hole = Forged {
                    options: Options::default(),
                    ..segment(port, Flags::ACK, 100 + place, *ack, b"x")
                };
                network.host(others[1]).forger().send(now, &hole);
                sent += 1;
            }
        }
        network.run_for(Duration::from_millis(1));
        assert!(network.now() < Instant(60_000 * MS), "the client is kept out");
        network.host(others[1]).forger().heard();
    }
    let took = network.now() - Instant(50 * MS);
    let host = network.host(server).tcp();
    assert!(host.talks.iter().any(|talk| talk.got == request));
    host.check();
    (took, Box::new(std::mem::replace(host, TcpHost::new(9, &limits(64)))))
}

/// W6.
#[test]
fn single_octets_with_holes_between_them_cost_what_they_may() {
    let (alone, _) = beside_tiny_holes(0);
    let (beside, mut host) = beside_tiny_holes(4);
    assert!(beside.0 * 9 <= alone.0 * 10, "{beside:?}, and {alone:?} alone: less than nine tenths");
    // Each arrival is compared with runs, of which there are no more than this; each is a frame.
    let parts = host.parts();
    let runs: Vec<u32> =
        parts.traffics.iter().filter(|it| it.tag.is_used()).map(|it| it.reassembly.runs()).collect();
    assert!(runs.iter().all(|runs| *runs <= stack::reassembly::RUNS_MAX), "{runs:?}");
    let frames: u32 = parts.tcbs.iter().map(|tcb| tcb.receive_charge.frames).sum();
    assert!(frames <= 700, "{frames} of 1024 frames");
    assert!(host.counter(Counter::OutOfOrderDropped) > 0, "the limits were met");
}
