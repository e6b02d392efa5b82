//! Every counter of the stack is counted somewhere, and moved by something that happens in a test of whole stacks: what a table documents
//! and nobody moves is a promise.
//!
//! ```text
//! STACK_COUNTERS=file cargo test -p accel-tests                                   notes what moves
//! STACK_COUNTERS=file cargo test -p accel-tests --test counters -- --ignored      what did not, once all have run
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harness::script::run::{How, run_then};
use harness::script::{scripts, suite};
use harness::sim::moved::FILE;
use harness::sim::path::Path as Wire;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::recover::Operation;
use stack::region::Limits;
use stack::stats::{COUNTERS, Counter};
use stack::time::{Duration, Instant};

/// Every file with code of the stack that isn't a test.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

/// The names of the rows as the code has them, in the order of the table.
fn variants(table: &str) -> Vec<&str> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(" \""));
    let known = |word: &str| COUNTERS.iter().any(|row| row.0 == word);
    rows.filter(|(_, rest)| rest.split('"').next().is_some_and(known)).map(|(name, _)| name).collect()
}

#[test]
fn every_counter_is_counted_by_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/src");
    let table = fs::read_to_string(root.join("stats.rs")).expect("the table");
    let names = variants(&table);
    assert_eq!(names.len(), COUNTERS.len(), "rows of the table");
    let mut text = String::new();
    for path in sources(&root).iter().filter(|path| !path.ends_with("src/stats.rs")) {
        let all = fs::read_to_string(path).expect("a source");
        text += all.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    }
    let uses: BTreeSet<&str> = text
        .split("Counter::")
        .skip(1)
        .map(|rest| &rest[..rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len())])
        .collect();
    let dead: Vec<_> = names.into_iter().filter(|name| !uses.contains(name)).collect();
    assert!(dead.is_empty(), "nothing counts {dead:?}");
}

#[test]
#[ignore = "for when all other tests have run and noted what moved"]
fn every_counter_was_moved_by_a_test() {
    let file = std::env::var_os(FILE).unwrap_or_else(|| panic!("{FILE} names the file"));
    let noted = fs::read_to_string(&file).expect("what all tests have noted");
    let mut moved: BTreeSet<String> = noted.lines().map(str::to_owned).collect();
    // Scripts run on a host of their own.
    for path in scripts(&suite()) {
        let text = fs::read_to_string(&path).expect("a script");
        for (is_v6, other) in [(false, "ipv6"), (true, "ipv4")] {
            if !text.contains(&format!("--ip_version={other}")) {
                let names = run_then(&text, How { is_v6, ends_quiet: false }, |host| host.moved());
                moved.extend(names.expect("a script that passes").into_iter().map(str::to_owned));
            }
        }
    }
    let still: Vec<_> = COUNTERS.iter().map(|row| row.0).filter(|name| !moved.contains(*name)).collect();
    assert!(still.is_empty(), "no test has moved {still:?}");
}

/// A server with these limits that reads nothing, and a client with so many connections to it that each send this much.
fn crowd(limits_there: Limits, connections: usize, len: usize) -> (Simulation<TcpHost>, Node) {
    let mut client = TcpHost::new(1, &limits(1024)).knowing(&[2]);
    for number in 0..connections {
        client = client.opening(Instant(number as u64 * 1_000_000), ip(2), text(1, len));
    }
    let plan = Plan { reads_from: Instant(u64::MAX), stays: true, ..Plan::default() };
    let server = TcpHost::server(2, &limits_there, plan).knowing(&[1]);
    let mut network = Simulation::new(1);
    let frames = Setup { frames: limits_there.frames, ..Setup::plain(2) };
    let (a, b) = (network.add(client, Setup::plain(1)), network.add(server, frames));
    let wire = Wire::delayed(Duration::from_millis(1));
    network.wire(a, b, wire, wire);
    network.run_for(Duration::from_secs(5));
    network.host(b).check();
    (network, b)
}

#[test]
fn a_connection_for_which_there_is_no_record_is_counted() {
    let few = Limits { tcp_sockets: 4, traffics: 4, bounds: 4, ..limits(1024) };
    let (network, server) = crowd(few, 8, 100);
    assert!(network.look(server).counter(Counter::SocketsFull) > 0);
}

#[test]
fn pressure_is_counted_when_it_begins() {
    let (network, server) = crowd(limits(256), 8, 100_000);
    let entered = network.look(server).counter(Counter::PressureEntered);
    assert!((1..=8).contains(&entered), "{entered} times, with thousands of packets and eight connections");
}

#[test]
fn a_connection_that_is_lost_with_its_process_is_counted() {
    let (mut network, server) = crowd(limits(1024), 2, 100);
    let now = network.now();
    let (host, port) = network.host_and_port(server);
    let socket = host.talks[0].socket.expect("a connection");
    host.with(now, port, |stack| {
        // As a death in the midst of one of its segments leaves it.
        stack.parts.intent.operation = Operation::Tcp as u32;
        stack.parts.intent.socket = socket.index + 1;
        assert_eq!(stack.recover(), Ok(1));
    });
    assert_eq!((host.counter(Counter::Recovered), host.counter(Counter::RecoveryLost)), (1, 1));
}
