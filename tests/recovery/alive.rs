//! A region that was whole is the same after a recovery: both hosts recover after each of their polls, in the midst of
//! transfers over bad wires, and nobody notices.

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::{Host, Simulation};
use stack::stats::Counter;
use stack::time::{Duration, Instant};

/// A host that recovers from nothing, all the time.
struct Recovering(TcpHost);

impl Host for Recovering {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        let next = self.0.poll(now, port);
        assert_eq!(self.0.with(now, port, |stack| stack.recover()), Ok(0), "nothing is lost");
        self.0.check();
        next
    }
}

fn run(seed: u64, path: Path, len: usize, plan: Plan) {
    let (there, back) = (text(seed, len), text(seed + 1, len / 3));
    let remote = if seed.is_multiple_of(2) { ip(2) } else { ip6(2) };
    let client = TcpHost::new(1, &limits(1024)).opening(Instant(0), remote, there.clone());
    let server = TcpHost::server(2, &limits(1024), Plan { answer: back.clone(), ..plan });
    let mut network = Simulation::new(seed);
    let setup =
        |number| Setup { completion_lag: Duration::from_millis(seed % 3 * 20), ..Setup::plain(number) };
    let a = network.add(Recovering(client), setup(1));
    let b = network.add(Recovering(server), setup(2));
    network.wire(a, b, path, path);
    while ![a, b].into_iter().all(|node| network.look(node).0.is_done()) {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
    assert!(network.look(a).0.talks[0].got == back && network.look(b).0.talks[0].got == there);
    assert!(network.look(a).0.counter(Counter::Recovered) > 5);
    assert_eq!(network.look(a).0.counter(Counter::RecoveryLost), 0);
    network.run_for(Duration::from_secs(400));
    assert_eq!(network.host(a).0.held(), [0; 4], "sockets, queues, SYNs, frames");
    assert_eq!(network.host(b).0.held(), [1, 0, 0, 0], "but for the listener");
}

#[test]
fn a_recovery_without_a_death_changes_nothing() {
    let path = Path {
        loss: 0.02,
        duplicate: 0.02,
        reorder: 0.05,
        reorder_by: Duration::from_millis(4),
        ..Path::delayed(Duration::from_millis(5))
    };
    for seed in 0..6 {
        run(seed, path, 20_000, Plan::default());
    }
}

#[test]
fn nor_while_a_reader_sleeps_and_text_waits_in_blocks() {
    let plan = Plan { reads_from: Instant(3_000_000_000), ..Plan::default() };
    run(7, Path::delayed(Duration::from_millis(2)), 300_000, plan);
}
