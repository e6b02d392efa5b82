//! Thousands of small networks made up by chance: a server and up to three clients on one segment, each behind a path of its own, with
//! devices, options and programs of their own. What is read is what was sent, nobody is stuck, and nothing is left behind.
//!
//! `SEEDS=100000 cargo test --release -p accel-tests --test seeds` makes up more of them, `SEED=7` begins with another one.
//! A seed that fails is printed by the simulation with its last packets.

use harness::sim::path::{Burst, Path};
use harness::sim::port::Setup;
use harness::sim::random::Random;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::settings::{Switch, Values};
use stack::time::{Duration, Instant};

const MS: u64 = 1_000_000;
/// Networks of one run of the tests.
const SEEDS: u64 = 3000;
/// Of so many networks one has all of its invariants looked at after each poll.
const CHECKED: u64 = 16;
/// The server's number, and host.
const SERVER: u8 = 1;

/// A wire like those of the world: most are good, some do everything.
fn path(random: &mut Random) -> Path {
    let base = Path::delayed(Duration(random.below(20 * MS)));
    match random.below(6) {
        0 | 1 => base,
        2 => Path { loss: 0.05, ..base },
        3 => {
            Path { reorder: 0.1, reorder_by: Duration(3 * MS), jitter: Duration(MS), duplicate: 0.05, ..base }
        }
        4 => Path { burst: Some(Burst { enter: 0.02, leave: 0.6, loss: 0.6 }), corrupt: 0.01, ..base },
        _ => Path::limited(10_000_000, base.delay, Duration(20 * MS)),
    }
}

fn setup(number: u8, random: &mut Random) -> Setup {
    let setup = if random.happens(0.3) { Setup::offloads(number) } else { Setup::plain(number) };
    let completion_lag = if random.happens(0.2) { Duration(random.below(30 * MS)) } else { Duration(0) };
    Setup { frames: 1024, completion_lag, ..setup }
}

/// Lengths as programs have them: nothing, a request, a page, a file.
fn length(random: &mut Random) -> usize {
    let most = [1, 200, 3_000, 20_000][random.below(4) as usize];
    random.below(most) as usize
}

fn values(random: &mut Random) -> Values {
    let receive_buffer = if random.happens(0.1) { 4096 + random.below(20_000) as u32 } else { 0 };
    let options = if receive_buffer == 0 { 0 } else { Switch::RECEIVE_BUFFER_LOCKED };
    let mss = if random.happens(0.1) { 100 + random.below(1000) as u16 } else { 0 };
    Values { receive_buffer, options, mss, ..Values::default() }
}

fn plan(random: &mut Random) -> Plan {
    Plan {
        write: 1 + random.below(9000) as usize,
        read: 1 + random.below(9000) as usize,
        no_delay: random.happens(0.5),
        reads_from: Instant(if random.happens(0.1) { 500 * MS } else { 0 }),
        ..Plan::default()
    }
}

/// A client with up to three connections, and what each of them sends.
fn client(number: u8, random: &mut Random) -> (TcpHost, Vec<Vec<u8>>) {
    let remote = if random.happens(0.5) { ip(SERVER) } else { ip6(SERVER) };
    let mut host = TcpHost::new(number, &limits(1024)).knowing(&[SERVER]);
    (host.plan, host.values) = (plan(random), values(random));
    let mut texts = Vec::new();
    for _ in 0..=random.below(3) {
        let text = text(random.next(), length(random));
        host = host.opening(Instant(random.below(50 * MS)), remote, text.clone());
        texts.push(text);
    }
    (host, texts)
}

fn network(seed: u64) {
    let random = &mut Random::new(seed);
    let clients = 2..=SERVER + 1 + random.below(3) as u8;
    let neighbours: Vec<u8> = clients.clone().collect();
    let answer = text(seed, length(random));
    let mut server = TcpHost::server(SERVER, &limits(1024), Plan { answer: answer.clone(), ..plan(random) })
        .knowing(&neighbours);
    (server.values, server.checks) = (values(random), seed.is_multiple_of(CHECKED));
    let mut network = Simulation::new(seed);
    let server = network.add(server, setup(SERVER, random));
    let (mut nodes, mut sent) = (vec![server], Vec::new());
    for number in clients {
        let (mut host, texts) = client(number, random);
        host.checks = seed.is_multiple_of(CHECKED);
        nodes.push(network.add(host, setup(number, random)));
        sent.extend(texts);
    }
    let members: Vec<(Node, Path, Path)> =
        nodes.iter().map(|node| (*node, path(random), path(random))).collect();
    network.join(&members);
    while !nodes.iter().all(|node| network.look(*node).is_done())
        || network.look(server).talks.len() < sent.len()
    {
        assert!(network.step(), "seed {seed}: nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "seed {seed}: it does not end");
    }
    let mut got: Vec<Vec<u8>> = network.look(server).talks.iter().map(|talk| talk.got.clone()).collect();
    got.sort();
    sent.sort();
    assert!(got == sent, "seed {seed}: what arrived is not what was sent");
    for node in &nodes[1..] {
        let answered =
            network.look(*node).talks.iter().all(|talk| talk.got == answer && talk.error.is_none());
        assert!(answered, "seed {seed}: what came back is not the answer");
    }
    network.run_for(Duration::from_secs(400));
    for (at, node) in nodes.into_iter().enumerate() {
        // It looks once more for what its device has completed since.
        network.host(node);
        network.run_for(Duration::from_millis(1));
        let host = network.host(node);
        host.check();
        assert_eq!(host.held(), [u32::from(at == 0), 0, 0, 0], "seed {seed}: sockets, queues, SYNs, frames");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn networks_of_chance() {
    let first = number("SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(SEEDS);
    for seed in first..first + count {
        network(seed);
    }
    println!("{count} networks from seed {first} on");
}
