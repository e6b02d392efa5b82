//! The rows: what is measured for each, beside which peer, and what is asked.

use std::process::Command;

use super::callgrind::{self, Count, STAGES};
use super::report::Figures;
use super::table::{Line, Target, Unit};
use super::{pictures, sockets};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds in which measurement and peer take turns.
    pub(crate) rounds: usize,
    /// Part of the full numbers of echoes, connections and bytes.
    pub(crate) part: f64,
}

impl Effort {
    fn of(&self, full: u32) -> u32 {
        (f64::from(full) * self.part) as u32
    }
}

/// What a row gives.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) lines: Vec<Line>,
    pub(crate) skipped: Vec<String>,
    pub(crate) pictures: Vec<(String, String)>,
}

/// A row: its name, what it is, and how it is measured.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) run: fn(&Effort, &mut Outcome),
}

/// Every row.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "echo",
        doc: "64 B on an established connection: instructions by stage, time, Linux's own path",
        run: echo,
    },
    Row {
        name: "connections",
        doc: "the same, drawn from 1, 1,000 and 1,000,000 connections",
        run: connections,
    },
    Row {
        name: "udp",
        doc: "64 B in a datagram and back: instructions, time, Linux's own path",
        run: datagrams,
    },
    Row { name: "idle", doc: "bytes of region for an idle connection", run: idle },
    Row {
        name: "sockets",
        doc: "10,000,000 connections in one region: made, used, closed",
        run: ten_million,
    },
    Row { name: "crr", doc: "connect, request, answer, close: both ends in one thread", run: crr },
    Row {
        name: "bulk",
        doc: "one connection's bytes, both ends in one thread, without and with offloads",
        run: bulk,
    },
    Row { name: "flood", doc: "1,000,000 spoofed SYNs a second beside 100 clients", run: flood },
    Row {
        name: "smoltcp",
        doc: "echo, crr and bulk beside smoltcp 0.14, with 1, 100 and 10,000 sockets",
        run: smoltcp,
    },
];

/// Runs a part in a process of its own.
fn part(name: &str, numbers: &[u32]) -> Result<Figures, String> {
    let exe = std::env::current_exe().map_err(|error| format!("the bench's own path: {error}"))?;
    let output = Command::new(exe).args(arguments(name, numbers)).output();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    let figures = Figures::read(&String::from_utf8_lossy(&output.stdout));
    let error = || format!("{name} {numbers:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    figures.filter(|_| output.status.success()).ok_or_else(error)
}

fn arguments(name: &str, numbers: &[u32]) -> Vec<String> {
    ["--part".to_owned(), name.to_owned()].into_iter().chain(numbers.iter().map(u32::to_string)).collect()
}

/// The medians of several parts' figures, which take turns.
fn medians<const N: usize>(
    effort: &Effort,
    parts: [(&str, &[u32]); N],
    names: &[&str],
) -> Result<[Figures; N], String> {
    let mut rounds: [Vec<Figures>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..effort.rounds {
        for (figures, (name, numbers)) in rounds.iter_mut().zip(parts) {
            figures.push(part(name, numbers)?);
        }
    }
    Ok(rounds.map(|rounds| {
        let mut figures = Figures::default();
        for name in names {
            let mut values: Vec<f64> = rounds.iter().map(|round| round.of(name)).collect();
            values.sort_unstable_by(f64::total_cmp);
            figures.put(name, values[values.len() / 2]);
        }
        figures
    }))
}

impl Outcome {
    fn line(
        &mut self,
        row: &'static str,
        what: impl Into<String>,
        (unit, ours): (Unit, f64),
        target: Target,
    ) {
        self.lines.push(Line { row, what: what.into(), unit, ours, peer: None, target });
    }

    fn beside(
        &mut self,
        row: &'static str,
        what: impl Into<String>,
        (unit, ours): (Unit, f64),
        peer: (&'static str, f64),
        target: Target,
    ) {
        self.lines.push(Line { row, what: what.into(), unit, ours, peer: Some(peer), target });
    }

    fn skip(&mut self, row: &str, why: &str) {
        self.skipped.push(format!("SKIP {row}: {why}"));
    }
}

const TIMES: &[&str] = &["median", "p99"];

fn echo(effort: &Effort, out: &mut Outcome) {
    let row = "echo";
    if callgrind::is_there() {
        // Two looks at the clock for each echo are outside of what is counted.
        match callgrind::stages(&arguments("echo", &[1, 1, 2000])[1..]) {
            Ok(count) => instructions(&count, out),
            Err(error) => out.skip(row, &error),
        }
    } else {
        out.skip(row, "valgrind is not installed; it counts instructions");
    }
    let echoes = effort.of(300_000);
    let times = medians(effort, [("echo", &[1, 1, echoes]), ("echo-kernel", &[echoes])], TIMES);
    let (target, what) = (Target::Better(10.0), "time, median (Linux: write to TUN, read, write)");
    match times {
        Ok([ours, linux]) => {
            let [(a, b), (c, d)] = ["median", "p99"].map(|name| (ours.of(name), linux.of(name)));
            out.beside(row, what, (Unit::Nanoseconds, a), ("Linux", b), target);
            out.beside(row, "time, p99", (Unit::Nanoseconds, c), ("Linux", d), Target::Shown);
        }
        Err(error) => {
            out.skip(row, &format!("beside the kernel: {error}"));
            if let Ok([ours]) = medians(effort, [("echo", &[1, 1, echoes])], TIMES) {
                out.line(row, "time, median", (Unit::Nanoseconds, ours.of("median")), Target::Shown);
                out.line(row, "time, p99", (Unit::Nanoseconds, ours.of("p99")), Target::Shown);
            }
        }
    }
    if let Ok(call) = part("call", &[]) {
        let three = 3.0 * call.of("ns");
        out.line(
            row,
            "of Linux's time, entering the kernel three times",
            (Unit::Nanoseconds, three),
            Target::Shown,
        );
    }
}

fn datagrams(effort: &Effort, out: &mut Outcome) {
    let row = "udp";
    if callgrind::is_there() {
        match callgrind::total(&arguments("udp", &[2000])[1..], "*echo_datagram*") {
            Ok(count) => {
                out.line(row, "instructions", (Unit::Instructions, count.stack), Target::Shown);
            }
            Err(error) => out.skip(row, &error),
        }
    } else {
        out.skip(row, "valgrind is not installed; it counts instructions");
    }
    let echoes = effort.of(300_000);
    match medians(effort, [("udp", &[echoes]), ("udp-kernel", &[echoes])], TIMES) {
        Ok([ours, linux]) => {
            let [(a, b), (c, d)] = ["median", "p99"].map(|name| (ours.of(name), linux.of(name)));
            let what = "time, median (Linux: write to TUN, recvfrom, sendto)";
            out.beside(row, what, (Unit::Nanoseconds, a), ("Linux", b), Target::Better(4.0));
            out.beside(row, "time, p99", (Unit::Nanoseconds, c), ("Linux", d), Target::Shown);
        }
        Err(error) => out.skip(row, &format!("beside the kernel: {error}")),
    }
}

fn instructions(count: &Count, out: &mut Outcome) {
    let row = "echo";
    out.line(row, "instructions", (Unit::Instructions, count.stack), Target::AtMost(1000.0));
    for stage in STAGES {
        let share = count.stages.get(stage).copied().unwrap_or(0.0);
        out.line(row, format!("  {stage}"), (Unit::Instructions, share), Target::Shown);
    }
    let what = "not counted: the bench's card and calls";
    out.line(row, what, (Unit::Instructions, count.bench), Target::Shown);
    out.pictures.push(("echo-stages.svg".to_owned(), pictures::stages(count)));
}

fn connections(effort: &Effort, out: &mut Outcome) {
    let row = "connections";
    let counts = [(1, "one"), (1_000, "1,000"), (1_000_000, "1,000,000")];
    if callgrind::is_there() {
        let mut first = f64::NAN;
        for (count, name) in counts {
            match callgrind::total(&arguments("echo", &[count, 0, 3000])[1..], "*server::measured*") {
                Ok(found) if count == 1 => {
                    first = found.stack;
                    let what = "instructions with one, acknowledged by a segment of its own";
                    out.line(row, what, (Unit::Instructions, first), Target::Shown);
                }
                Ok(found) => {
                    let (what, ours) =
                        (format!("instructions with {name}"), (Unit::Instructions, found.stack));
                    out.beside(row, what, ours, ("one", first), Target::Within(0.05));
                }
                Err(error) => out.skip(row, &error),
            }
        }
    } else {
        out.skip(row, "valgrind is not installed; it counts instructions");
    }
    let echoes = effort.of(300_000);
    let numbers = counts.map(|(count, _)| [count, 0, echoes]);
    let parts = [("echo", &numbers[0][..]), ("echo", &numbers[1]), ("echo", &numbers[2])];
    match medians(effort, parts, TIMES) {
        Ok(times) => {
            let one = times[0].of("median");
            out.line(row, "time with one, median", (Unit::Nanoseconds, one), Target::Shown);
            for (times, (_, name)) in times[1..].iter().zip(&counts[1..]) {
                let (what, ours) =
                    (format!("time with {name}, median"), (Unit::Nanoseconds, times.of("median")));
                out.beside(row, what, ours, ("one", one), Target::AtMostTimes(3.0));
                let (what, ours) = (format!("time with {name}, p99"), (Unit::Nanoseconds, times.of("p99")));
                out.line(row, what, ours, Target::Shown);
            }
        }
        Err(error) => out.skip(row, &error),
    }
    match medians(effort, [("reads", &[1_000_000])], &["ns"]) {
        Ok([ours]) => {
            let what = "of that, the machine's own: one read in as much memory";
            out.line(row, what, (Unit::Nanoseconds, ours.of("ns")), Target::Shown);
        }
        Err(error) => out.skip(row, &error),
    }
    // Requests of a busy host come together: what one of them waits for in memory, all do at the same time.
    match medians(effort, [("echo-burst", &[1_000_000, 8, echoes])], TIMES) {
        Ok([ours]) => {
            let what = "time with 1,000,000 in bursts of eight, each";
            out.line(row, what, (Unit::Nanoseconds, ours.of("median")), Target::Shown);
        }
        Err(error) => out.skip(row, &error),
    }
}

fn idle(_: &Effort, out: &mut Outcome) {
    for (count, name) in [(1_000_000, "1,000,000"), (10_000_000, "10,000,000")] {
        let bytes = sockets::bytes_per_connection(count) as f64;
        out.line(
            "idle",
            format!("region, with room for {name}"),
            (Unit::Bytes, bytes),
            Target::AtMost(512.0),
        );
    }
}

fn ten_million(effort: &Effort, out: &mut Outcome) {
    let (row, count) = ("sockets", effort.of(10_000_000));
    // The far ends' own state, and room for others on the machine.
    let (needed, there) = (sockets::bytes(count) as u64 + (3 << 30), sockets::available());
    if there < needed {
        let why = format!("{} of {} MiB are available", there >> 20, needed >> 20);
        return out.skip(row, &why);
    }
    match part("life", &[count]) {
        Ok(figures) => {
            let most = Target::AtMost(8.0 * f64::from(1 << 30));
            let what = format!("region, words and frames of {count}");
            out.line(row, what, (Unit::GiB, figures.of("bytes")), most);
            out.line(row, "resident, with the far ends", (Unit::GiB, figures.of("resident")), Target::Shown);
            for name in ["handshakes", "echoes", "closes", "ends"] {
                let what = if name == "ends" { "ends of TIME-WAIT" } else { name };
                out.line(row, what, (Unit::PerSecond, figures.of(name)), Target::Shown);
            }
        }
        Err(error) => out.skip(row, &error),
    }
}

fn crr(effort: &Effort, out: &mut Outcome) {
    for (at_once, name) in [(1, "one by one"), (16, "sixteen at once")] {
        match medians(effort, [("crr", &[0, effort.of(200_000), at_once])], &["per_second"]) {
            Ok([ours]) => {
                let (what, target) = (format!("connections, {name}"), Target::AtLeast(500_000.0));
                out.line("crr", what, (Unit::PerSecond, ours.of("per_second")), target);
            }
            Err(error) => out.skip("crr", &error),
        }
    }
}

fn bulk(effort: &Effort, out: &mut Outcome) {
    for (offloads, name, least) in
        [(0, "checksums and segments by the stacks", 10.0), (1, "TSO, GRO, checksums", 30.0)]
    {
        let megabytes = effort.of(4_000);
        match medians(effort, [("bulk", &[0, megabytes, offloads])], &["gbit_per_second"]) {
            Ok([ours]) => {
                out.line("bulk", name, (Unit::Gbit, ours.of("gbit_per_second")), Target::AtLeast(least));
            }
            Err(error) => out.skip("bulk", &error),
        }
    }
}

fn flood(effort: &Effort, out: &mut Outcome) {
    let (row, ms) = ("flood", effort.of(3_000));
    match part("flood", &[ms]) {
        Ok(figures) => {
            let served = figures.of("served") / figures.of("clients") * 100.0;
            out.line(row, "clients served", (Unit::Percent, served), Target::AtLeast(100.0));
            out.line(
                row,
                "a SYN's share of the time",
                (Unit::Nanoseconds, figures.of("ns_per_syn")),
                Target::AtMost(1000.0),
            );
            out.line(row, "SYNs kept at most", (Unit::Count, figures.of("syns_max")), Target::Shown);
            out.line(row, "frames used at most", (Unit::Count, figures.of("frames_max")), Target::Shown);
        }
        Err(error) => out.skip(row, &error),
    }
}

/// How much better than smoltcp, with so many sockets.
const SOCKETS: [(u32, &str, f64); 3] =
    [(1, "1 socket", 2.0), (100, "100 sockets", 1.0), (10_000, "10,000 sockets", 400.0)];

fn smoltcp(effort: &Effort, out: &mut Outcome) {
    let row = "smoltcp";
    let mut points = Vec::new();
    for (count, name, times) in SOCKETS {
        let (ours, theirs) = ([count, effort.of(200_000)], [count, effort.of(200_000 / count.min(200))]);
        match medians(effort, [("echo-ip", &ours), ("echo-smoltcp", &theirs)], TIMES) {
            Ok([ours, theirs]) => {
                let (ours, theirs) = (ours.of("median"), theirs.of("median"));
                points.push((count, ours, theirs));
                let what = format!("echo, {name}");
                out.beside(row, what, (Unit::Nanoseconds, ours), ("smoltcp", theirs), Target::Better(times));
            }
            Err(error) => out.skip(row, &error),
        }
    }
    out.pictures.push(("echo-by-sockets.svg".to_owned(), pictures::by_sockets(&points)));
    for (count, name, times) in SOCKETS {
        let (ours, theirs) = ([count - 1, effort.of(100_000), 1], [count - 1, effort.of(100_000 / count), 1]);
        match medians(effort, [("crr", &ours), ("crr-smoltcp", &theirs)], &["per_second"]) {
            Ok([ours, theirs]) => {
                let (ours, theirs) = (ours.of("per_second"), theirs.of("per_second"));
                let what = format!("connect, request, close, {name}");
                out.beside(row, what, (Unit::PerSecond, ours), ("smoltcp", theirs), Target::Better(times));
            }
            Err(error) => out.skip(row, &error),
        }
    }
    for (count, name, times) in SOCKETS {
        let (ours, theirs) =
            ([count - 1, effort.of(2_000), 0], [count - 1, effort.of(2_000).div_ceil(count).max(8)]);
        match medians(effort, [("bulk", &ours), ("bulk-smoltcp", &theirs)], &["gbit_per_second"]) {
            Ok([ours, theirs]) => {
                let (ours, theirs) = (ours.of("gbit_per_second"), theirs.of("gbit_per_second"));
                let what = format!("bulk, {name}");
                out.beside(row, what, (Unit::Gbit, ours), ("smoltcp", theirs), Target::Better(times));
            }
            Err(error) => out.skip(row, &error),
        }
    }
}
