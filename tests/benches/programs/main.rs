//! Programs on the network path beside the kernel's, on one cable between two hosts: what an operator gets.
//!
//! ```text
//! cargo build --release --workspace && cargo bench -p accel-tests --bench programs [-- words]
//! ```
//! Words select rows. Each figure is the median of rounds that take turns with the others. `kernel` is both ends on the kernel, `far kernel`
//! the near end under accel, `both` both ends under accel. It needs the rights of root.

use std::process::{Child, Command, Stdio};

use harness::wire::namespace::Namespace;
use harness::wire::veth::{Cable, NAME};

mod crowd;
mod load;
mod role;

/// Rounds of each row.
const ROUNDS: usize = 5;

/// Which ends run under accel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Kernel,
    Near,
    Both,
}

const ENDS: [Ends; 3] = [Ends::Kernel, Ends::Near, Ends::Both];

/// A measurement: larger is better, or smaller.
#[derive(Clone, Copy, Debug)]
struct Figure {
    value: f64,
    /// The 99th percentile of a latency, in its unit.
    p99: Option<f64>,
    /// Processor time of the server for a request, in microseconds.
    cpu_us: Option<f64>,
}

/// A row of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// A small figure is a good one.
    is_latency: bool,
    target: &'static str,
    run: fn([&Namespace; 2], Ends) -> Option<Figure>,
}

const ROWS: &[Row] = &[
    Row {
        name: "ping-pong",
        unit: "µs",
        is_latency: true,
        target: "both 12×, far kernel 3×",
        run: load::ping_pong,
    },
    Row {
        name: "spinning ping-pong",
        unit: "µs",
        is_latency: true,
        target: "both 1.9×, far kernel 1.2×",
        run: load::spinning,
    },
    Row {
        name: "udp ping-pong",
        unit: "µs",
        is_latency: true,
        target: "both: 1.15 times the raw round trip of the bench net",
        run: load::udp_ping_pong,
    },
    Row {
        name: "redis",
        unit: "k/s",
        is_latency: false,
        target: "both 1.7×, far kernel 1.2×; CPU 0.6×",
        run: load::redis,
    },
    Row {
        name: "nginx",
        unit: "k/s",
        is_latency: false,
        target: "both 1.7×, far kernel 1.2×; CPU 0.6×",
        run: load::nginx,
    },
    Row { name: "connect", unit: "k/s", is_latency: false, target: "1.5×", run: load::connects },
    Row { name: "bulk in", unit: "Gbit/s", is_latency: false, target: "1×", run: load::bulk_in },
    Row { name: "bulk out", unit: "Gbit/s", is_latency: false, target: "1×", run: load::bulk_out },
    Row { name: "crowd of 100", unit: "k/s", is_latency: false, target: "", run: crowd::few },
    Row {
        name: "crowd of 50,000",
        unit: "k/s",
        is_latency: false,
        target: "1/1.3 of a crowd of 100",
        run: crowd::many,
    },
];

/// A program has a core for itself, and spins on it.
const ALONE: &[&str] = &["-p", "latency"];

/// Starts a command in a host, under accel with these options if it is to be.
fn start(
    host: &Namespace,
    is_carried: bool,
    options: &[&str],
    mut command: Vec<String>,
    output: Stdio,
) -> Child {
    if is_carried {
        let prefix = [load::accel(), "-o".to_owned(), format!("interfaces={NAME}")];
        let options = options.iter().map(|option| (*option).to_owned());
        command = prefix.into_iter().chain(options).chain(command).collect();
    }
    let mut started = Command::new(&command[0]);
    started.args(&command[1..]).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    host.inside(move || started.spawn()).expect("a program that is installed")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    if let Ok(role) = std::env::var(role::VARIABLE) {
        return role::run(&role);
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let Some([near, far]) = Cable::default().lay() else { return };
    println!("| row | kernel | far kernel | | both | | target |\n|---|---|---|---|---|---|---|");
    for row in ROWS
        .iter()
        .filter(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str())))
    {
        measure(row, [&near, &far]);
    }
}

/// Runs the rounds of a row, and prints it.
fn measure(row: &Row, hosts: [&Namespace; 2]) {
    let mut figures: [Vec<Figure>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (ends, figures) in ENDS.iter().zip(&mut figures) {
            figures.extend((row.run)(hosts, *ends));
        }
    }
    if figures[0].is_empty() {
        return println!("SKIP {}: its program is not installed, or says nothing", row.name);
    }
    let of = |ends: usize, part: fn(&Figure) -> Option<f64>| {
        let values: Vec<f64> = figures[ends].iter().filter_map(part).collect();
        (!values.is_empty()).then(|| median(values))
    };
    let value = |ends| of(ends, |figure| Some(figure.value)).unwrap_or(f64::NAN);
    let cell = |ends: usize| {
        if figures[ends].is_empty() {
            return "not measured".to_owned();
        }
        let p99 = of(ends, |figure| figure.p99).map_or_else(String::new, |p99| format!(" (p99 {p99:.1})"));
        let cpu =
            of(ends, |figure| figure.cpu_us).map_or_else(String::new, |cpu| format!(", {cpu:.1} µs CPU"));
        format!("{:.1} {}{p99}{cpu}", value(ends), row.unit)
    };
    let ratio = |ends| if row.is_latency { value(0) / value(ends) } else { value(ends) / value(0) };
    println!(
        "| {} | {} | {} | {:.2}× | {} | {:.2}× | {} |",
        row.name,
        cell(0),
        cell(1),
        ratio(1),
        cell(2),
        ratio(2),
        row.target
    );
}
