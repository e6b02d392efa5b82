//! Our stack over AF_XDP beside the kernel's, on one cable between two hosts, in one run.
//!
//! ```text
//! cargo bench -p accel-tests --bench net                   64 bytes to and fro (root; about a minute on a quiet machine)
//! cargo bench -p accel-tests --bench net -- stack          peers whose name has one of these words
//! cargo bench -p accel-tests --bench net -- bulk           bytes one way, by packet size, instead; or `bulk 1500 "stack to kernel"`
//! ```
//!
//! Each end is a thread on a core of its own, in a network namespace of its own. Peers take turns for several rounds; the median of
//! the rounds' medians is shown, and likewise of their 99th percentiles.
//!
//! | peer | what goes to and fro |
//! |---|---|
//! | raw | a frame through AF_XDP rings: nothing can be faster on this cable |
//! | stack | 64 bytes over a TCP connection of our stack |
//! | kernel spinning, blocking | the same over one of the kernel's, with sockets that never or always wait |

use std::process::ExitCode;

use harness::wire::veth::Cable;

mod bulk;
mod frames;
mod kernel;
mod ours;
mod raw;

use bulk::End;
use frames::Way;

/// Bytes of a message.
pub(crate) const MESSAGE: usize = 64;
/// Round trips of a round, and how many of them only warm up.
pub(crate) const TRIPS: usize = 20_000;
const WARM: usize = 2_000;
/// Rounds.
const ROUNDS: usize = 5;

/// Round-trip times in nanoseconds: their median and 99th percentile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trips {
    median: u64,
    p99: u64,
}

impl Trips {
    /// Of times in the order of their happening.
    pub(crate) fn of(mut times: Vec<u64>) -> Self {
        times.drain(..WARM.min(times.len() / 2));
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        Self { median: at(50), p99: at(99) }
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A way to send a message to and fro.
type Peer = (&'static str, fn() -> Option<Trips>);

/// What all others are compared with.
const RAW: &str = "raw frames";

/// What is said where nothing can be measured.
const NO_RIGHTS: &str = "skipped: network namespaces and AF_XDP need the rights of root";

const PEERS: &[Peer] = &[
    (RAW, || raw::trips(Cable::default())),
    ("stack", || ours::trips(Cable::default())),
    ("kernel, spinning", || kernel::trips(Cable::default(), true)),
    ("kernel, blocking", || kernel::trips(Cable::default(), false)),
    ("stack, far end kernel spinning", || ours::trips_to_kernel(Cable::default(), true)),
    ("stack, far end kernel blocking", || ours::trips_to_kernel(Cable::default(), false)),
];

/// A way to carry bytes in one direction: its name, and what it reaches in Gbit/s.
type Carrier = (&'static str, fn(Cable) -> Option<f64>);

/// The first two are what the others are compared with.
const CARRIERS: &[Carrier] = &[
    ("frames by AF_XDP's ring", |cable| frames::rate(cable, Way::Ring)),
    ("64 KiB by the packet socket", |cable| frames::rate(cable, Way::Socket)),
    ("stack to stack", |cable| bulk::rate(cable, [End::Ours, End::Ours])),
    ("stack to kernel", |cable| bulk::rate(cable, [End::Ours, End::Kernel])),
    ("kernel to stack", |cable| bulk::rate(cable, [End::Kernel, End::Ours])),
    ("kernel to kernel, cubic", |cable| bulk::rate(cable, [End::Kernel; 2])),
];

/// What a transfer in one direction reaches: the median of rounds in which they take turns.
fn print_bulk(words: &[String]) -> Option<()> {
    for mtu in [1500, 9000, 65_535] {
        if words.iter().any(|word| word.parse::<u32>().is_ok_and(|only| only != mtu)) {
            continue;
        }
        let is_asked = |name: &str| words.iter().any(|word| name.contains(word.as_str()));
        let some = CARRIERS[2..].iter().any(|(name, _)| is_asked(name));
        let carriers: Vec<&Carrier> = CARRIERS[..2]
            .iter()
            .chain(CARRIERS[2..].iter().filter(|(name, _)| !some || is_asked(name)))
            .collect();
        let mut rounds = vec![Vec::new(); carriers.len()];
        for _ in 0..ROUNDS {
            for (rates, (_, rate)) in rounds.iter_mut().zip(&carriers) {
                rates.push((rate(Cable { mtu, queues: 1 })? * 1e3) as u64);
            }
        }
        let rates: Vec<u64> = rounds.into_iter().map(median).collect();
        let (ring, best) = (rates[0] as f64, rates[0].max(rates[1]) as f64);
        println!("{:40} {:>12} {:>10} {:>10}", format!("MTU {mtu}"), "Gbit/s", "of ring", "of best raw");
        for ((name, _), rate) in carriers.iter().zip(rates) {
            let rate = rate as f64;
            println!("{name:40} {:>12.2} {:>10.2} {:>10.2}", rate / 1e3, rate / ring, rate / best);
        }
    }
    Some(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if words.iter().any(|word| word == "bulk") {
        if print_bulk(&words).is_none() {
            println!("{NO_RIGHTS}");
        }
        return ExitCode::SUCCESS;
    }
    // The first is what all others are compared with.
    let is_asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let peers: Vec<&Peer> = PEERS.iter().filter(|(name, _)| *name == RAW || is_asked(name)).collect();
    let mut rounds: Vec<Vec<Trips>> = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        for (times, (_, trips)) in rounds.iter_mut().zip(&peers) {
            let Some(trips) = trips() else {
                println!("{NO_RIGHTS}");
                return ExitCode::SUCCESS;
            };
            times.push(trips);
        }
    }
    println!("{:32} {:>10} {:>10} {:>8}", "64 B to and fro", "median", "p99", "of raw");
    let raw = median(rounds[0].iter().map(|trips| trips.median).collect());
    for (times, (name, _)) in rounds.iter().zip(&peers) {
        let half = median(times.iter().map(|trips| trips.median).collect());
        let p99 = median(times.iter().map(|trips| trips.p99).collect());
        println!("{name:32} {half:>7} ns {p99:>7} ns {:>8.2}", half as f64 / raw as f64);
    }
    ExitCode::SUCCESS
}
