//! Goodput of one connection over a wire that loses, and how several share a bottleneck: our stack beside Linux's CUBIC, over
//! the same wire, in the same run.
//!
//! ```text
//! cargo bench -p accel-tests --bench loss                   every row (root; about six minutes on a quiet machine)
//! cargo bench -p accel-tests --bench loss -- 1% burst       rows whose name has one of these words
//! cargo bench -p accel-tests --bench loss -- --virtual      our stack alone, in virtual time, without root
//! cargo bench -p accel-tests --bench loss -- --seed 7       other packets are lost (the seed is 1)
//! ```
//!
//! The wire is one, the simulation's `Path`: between two of the kernel's namespaces and between the kernel and us it runs in
//! real time, by a thread that reads packets from one TUN device and writes them to the other when they are due; between two of our
//! stacks it runs in virtual time. Where losses are by chance, several connections run side by side, each over a wire of its
//! own, and what is told is their mean: one alone would need minutes. Which packets of a wire are lost, by their number, is the
//! same for every pair of stacks.

use harness::sim::path::{Burst, Counts, Path};
use stack::time::Duration;

mod linux;
mod mixed;
mod simulated;

/// The rate of the wire, in bits per second.
const RATE: u64 = 1_000_000_000;
/// One way.
const DELAY: Duration = Duration::from_millis(10);
/// What the queue before the wire holds.
const QUEUE: Duration = Duration::from_millis(20);
/// How long data flows, how long where losses are rare, and how long until flows have had the time to share a bottleneck.
const LENGTH: Duration = Duration::from_secs(6);
const LENGTH_RARE: Duration = Duration::from_secs(25);
const LENGTH_SHARED: Duration = Duration::from_secs(20);

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    name: &'static str,
    /// From the sender to the receiver.
    path: Path,
    /// Connections.
    flows: usize,
    /// Each has a wire of its own.
    is_apart: bool,
    /// How long data flows.
    length: Duration,
}

impl Row {
    /// The way of the acknowledgments.
    pub(crate) fn back(&self) -> Path {
        Path { rate: self.path.rate, ..Path::delayed(self.path.delay) }
    }

    /// How many wires there are.
    pub(crate) fn wires(&self) -> usize {
        if self.is_apart { self.flows } else { 1 }
    }
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Bits per second that each connection's reader got.
    pub(crate) goodput: Vec<f64>,
    /// What happened to packets on the way there.
    pub(crate) counts: Counts,
}

impl Measured {
    fn mean(&self) -> f64 {
        self.goodput.iter().sum::<f64>() / self.goodput.len().max(1) as f64
    }

    /// Jain's index: 1 if all have the same, 1/n if one has everything. The mean of the runs, of so many connections each.
    fn jain(&self, flows: usize) -> f64 {
        let runs = self.goodput.chunks(flows).map(|run| {
            let (sum, squares) = run.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
            sum * sum / (squares * run.len() as f64)
        });
        runs.sum::<f64>() / (self.goodput.len() / flows).max(1) as f64
    }

    /// Another run.
    fn add(&mut self, other: &Self) {
        self.goodput.extend_from_slice(&other.goodput);
        self.counts = self.counts.and(&other.counts);
    }
}

fn rows(seed: u64) -> Vec<Row> {
    let wire = Path { overhead: 24, pattern: Some(seed), ..Path::limited(RATE, DELAY, QUEUE) };
    let lossy = |loss| Path { loss, ..wire };
    let row = |name, path, flows| Row { name, path, flows, is_apart: flows > 1, length: LENGTH };
    vec![
        row("no loss", wire, 1),
        Row { length: LENGTH_RARE, ..row("0.01% loss", lossy(0.0001), 4) },
        row("0.1% loss", lossy(0.001), 16),
        row("1% loss", lossy(0.01), 32),
        row("1% reordered by 2 ms", Path { reorder: 0.01, reorder_by: Duration::from_millis(2), ..wire }, 1),
        row(
            "bursts of 5, 0.1% lost",
            Path { burst: Some(Burst { enter: 0.00025, leave: 0.2, loss: 0.8 }), ..wire },
            16,
        ),
        Row {
            name: "8 flows, 200 Mbit/s",
            path: Path { overhead: 24, ..Path::limited(RATE / 5, DELAY, QUEUE) },
            flows: 8,
            is_apart: false,
            length: LENGTH_SHARED,
        },
    ]
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_virtual = words.iter().any(|word| word == "--virtual");
    words.retain(|word| word != "--virtual");
    let seed = words.iter().position(|word| word == "--seed").map_or(1, |at| {
        let seed = words.get(at + 1).and_then(|seed| seed.parse().ok()).expect("--seed has a number");
        words.drain(at..at + 2);
        seed
    });
    let chosen = |row: &Row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()));
    println!(
        "{} Mbit/s, {} ms of round trip, a queue of {} ms; {} s each, {} where losses are rare, {} where a wire is shared; seed {seed}; \
         goodput in Mbit/s",
        RATE / 1_000_000,
        2 * DELAY.as_millis(),
        QUEUE.as_millis(),
        LENGTH.as_millis() / 1000,
        LENGTH_RARE.as_millis() / 1000,
        LENGTH_SHARED.as_millis() / 1000
    );
    println!(
        "{:24} {:>14} {:>14} {:>14} {:>14} {:>8}",
        "", "Linux > Linux", "ours > Linux", "Linux > ours", "ours > ours", "ratio"
    );
    for row in rows(seed).into_iter().filter(chosen) {
        let simulated = simulated::run(&row);
        if is_virtual {
            tell(&row, &[None, None, None, Some(simulated)]);
            continue;
        }
        let linux = repeated(&row, linux::run);
        let to_linux = repeated(&row, |row| mixed::run(row, true));
        let from_linux = repeated(&row, |row| mixed::run(row, false));
        tell(&row, &[linux, to_linux, from_linux, Some(simulated)]);
    }
}

/// Runs in real time: how a bottleneck is shared is another thing each time.
fn repeated(row: &Row, run: impl Fn(&Row) -> Option<Measured>) -> Option<Measured> {
    let mut all = run(row)?;
    if row.flows > 1 && !row.is_apart {
        all.add(&run(row)?);
    }
    Some(all)
}

/// Prints a row; under it what tells how a bottleneck was shared.
fn tell(row: &Row, columns: &[Option<Measured>; 4]) {
    let each = |show: &dyn Fn(&Measured) -> String| {
        let shown = columns.iter().map(|column| column.as_ref().map_or("-".to_owned(), show));
        shown.map(|text| format!(" {text:>14}")).collect::<String>()
    };
    let ratio = match (&columns[0], &columns[3]) {
        (Some(linux), Some(ours)) => format!("{:.2}", ours.mean() / linux.mean()),
        _ => "-".to_owned(),
    };
    println!("{:24}{} {ratio:>8}", row.name, each(&|measured| format!("{:.1}", measured.mean() / 1e6)));
    if row.flows > 1 && !row.is_apart {
        println!("{:24}{}", "  Jain's index", each(&|measured| format!("{:.3}", measured.jain(row.flows))));
    }
    if row.path.loss > 0.0 {
        println!("{:24}{}", "  lost", each(&|measured| measured.counts.lost.to_string()));
    }
    if !row.is_apart {
        println!(
            "{:24}{}",
            "  longest queue, KB",
            each(&|measured| (measured.counts.queue_max / 1000).to_string())
        );
        println!("{:24}{}", "  lost at the queue", each(&|measured| measured.counts.overflowed.to_string()));
    }
}
