//! Text: the list of cases, the table of results, and figures with units.

use std::fmt::Write;

use super::case::{Case, Check, Metric, Results, Target};
use super::job::Context;
use super::plan::Setting;
use super::stats;

/// Figures of one case, by arm.
type Arms = [Results];

/// Nanoseconds with a unit, to three digits.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{} µs", three(n / 1e3)),
        n if n < 1e9 => format!("{} ms", three(n / 1e6)),
        n => format!("{} s", three(n / 1e9)),
    }
}

/// A number to three digits.
fn three(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// A number with k, M or G.
fn scaled(value: f64) -> String {
    match value {
        v if v < 1e3 => format!("{} ", three(v)),
        v if v < 1e6 => format!("{} k", three(v / 1e3)),
        v if v < 1e9 => format!("{} M", three(v / 1e6)),
        v => format!("{} G", three(v / 1e9)),
    }
}

/// A figure as the metric wants it.
pub(crate) fn figure(metric: Metric, value: f64) -> String {
    match metric {
        Metric::LatencyNs | Metric::CostNs => time(value),
        Metric::CpuMs => format!("{value:.1} ms"),
        Metric::BytesPerSecond => format!("{}B/s", scaled(value)),
        Metric::PerSecond(what) => format!("{} {what}/s", scaled(value).trim_end()),
    }
}

/// A figure without what it counts, for ranges.
fn bare(metric: Metric, value: f64) -> String {
    match metric {
        Metric::LatencyNs | Metric::CostNs => time(value),
        Metric::CpuMs => format!("{value:.1}"),
        Metric::BytesPerSecond | Metric::PerSecond(_) => scaled(value).trim_end().to_owned(),
    }
}

/// `1m 5s`.
pub(crate) fn seconds(value: f64) -> String {
    let whole = value.round() as u64;
    if whole < 60 { format!("{whole}s") } else { format!("{}m {}s", whole / 60, whole % 60) }
}

/// The cases, what they compare, and the targets.
pub(crate) fn list(cases: &[Case]) -> String {
    let mut rows = vec![["case", "group", "what", "target"].map(str::to_owned).to_vec()];
    for case in cases {
        let quick = if case.quick { " (quick)" } else { "" };
        rows.push(vec![
            case.name.clone(),
            format!("{}{quick}", case.group),
            case.what.clone(),
            targets(case),
        ]);
    }
    columns(&rows)
}

fn targets(case: &Case) -> String {
    let one = |check: &Check| {
        format!(
            "{} / {}: {}",
            case.arms[check.subject].name,
            case.arms[check.baseline].name,
            target(case.metric, check.target)
        )
    };
    let judged = case.checks.iter().filter(|check| check.target != Target::Shown);
    judged.map(one).collect::<Vec<_>>().join("; ")
}

fn target(metric: Metric, target: Target) -> String {
    match target {
        Target::TimesBetter(least) => format!(">= {least}x"),
        Target::AtMostTimes(most) => format!("<= {most}x"),
        Target::AtMostMore(most) => format!("<= +{}", figure(metric, most)),
        Target::Shown => "-".to_owned(),
    }
}

/// What is said before the measurement.
pub(crate) fn heading(cases: &[Case], rounds: u32, setting: &Setting, context: &Context) -> String {
    let (client, server) = setting.cpus;
    let library =
        context.sides.library.as_ref().map_or("none (--null)".to_owned(), |p| p.display().to_string());
    let one_core = if client == server { "; only one processor: both ends share it" } else { "" };
    format!(
        "accel bench: {} cases, {rounds} rounds of {} ms; client on processor {client}, server on {server}{one_core}; library {library}",
        cases.len(),
        context.measure.as_millis(),
    )
}

/// The final table: one row per check, with both figures.
pub(crate) fn results(cases: &[Case], results: &[Vec<Results>]) -> String {
    let heads = ["case", "subject", "figure", "ring", "against", "figure", "ratio", "target", "met"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (case, arms) in cases.iter().zip(results).filter(|(case, _)| case.group != "grid") {
        rows.extend(case.checks.iter().map(|check| row(case, arms, check)));
    }
    let mut text = String::from("\n");
    without_repeats(&mut rows);
    if rows.len() > 1 {
        text.push_str(&columns(&rows));
    }
    text.push_str(&grids(cases, results));
    text.push_str(&problems(cases, results));
    text.push_str(&summary(cases, results));
    text
}

fn row(case: &Case, arms: &Arms, check: &Check) -> Vec<String> {
    let (baseline, subject) = (&arms[check.baseline], &arms[check.subject]);
    let (ratio, met) = match (baseline.figure(), subject.figure()) {
        (Some(b), Some(s)) => {
            let (ratio, met) = check.judge(case.metric, b, s);
            (
                ratio_text(case.metric, check.target, ratio, s - b),
                met.map_or("-", |met| if met { "yes" } else { "NO" }),
            )
        }
        _ => ("-".to_owned(), "-"),
    };
    vec![
        case.name.clone(),
        case.arms[check.subject].name.clone(),
        cell(case.metric, subject),
        subject.ring().map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
        case.arms[check.baseline].name.clone(),
        cell(case.metric, baseline),
        ratio,
        target(case.metric, check.target),
        met.to_owned(),
    ]
}

fn ratio_text(metric: Metric, target: Target, ratio: f64, difference: f64) -> String {
    match target {
        Target::AtMostMore(_) if difference < 0.0 => format!("-{}", figure(metric, -difference)),
        Target::AtMostMore(_) => format!("+{}", figure(metric, difference)),
        _ if ratio.is_finite() => format!("{}x", three(ratio)),
        _ => "-".to_owned(),
    }
}

/// A figure, with its 99th percentile where there is one, else with the least and greatest of the rounds.
fn cell(metric: Metric, results: &Results) -> String {
    match (results.figure(), &results.failure) {
        (Some(value), _) if metric == Metric::LatencyNs => match results.percentile(99.0) {
            Some(p99) => format!("{} (p99 {})", time(value), time(p99)),
            None => time(value),
        },
        (Some(value), _) if results.samples.len() > 1 => {
            let (least, most) = stats::range(&results.figures());
            format!("{} [{}..{}]", figure(metric, value), bare(metric, least), bare(metric, most))
        }
        (Some(value), _) => figure(metric, value),
        (None, Some(failure)) if failure.is_skip() => "skipped".to_owned(),
        (None, Some(_)) => "FAILED".to_owned(),
        (None, None) => "not run".to_owned(),
    }
}

/// Text in columns as wide as their widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Empties the cells that repeat the row above: the case, and the arm of accel with its figures.
fn without_repeats(rows: &mut [Vec<String>]) {
    const LEFT: usize = 4;
    for index in (1..rows.len()).rev() {
        let (above, row) = rows.split_at_mut(index);
        let (above, row) = (&above[index - 1], &mut row[0]);
        let same = if row[..LEFT] == above[..LEFT] { LEFT } else { usize::from(row[0] == above[0]) };
        row[..same].iter_mut().for_each(String::clear);
    }
}

/// The core-to-core grids, one per transport.
fn grids(cases: &[Case], results: &[Vec<Results>]) -> String {
    let Some(grid) = Grid::of(cases, results) else { return String::new() };
    let mut text =
        format!("\ncore to core, {} B round trip, blocking, p50 in µs (row: client, column: server)\n", 64);
    for (transport, name) in grid.transports.iter().enumerate() {
        let _ = writeln!(text, "{name}");
        let head: String = grid.cpus.iter().map(|cpu| format!("{cpu:>8}")).collect();
        let _ = writeln!(text, "      {head}");
        for &client in &grid.cpus {
            let cell = |&server: &usize| match grid.at(transport, client, server) {
                Some(ns) => format!("{:>8}", three(ns / 1e3)),
                None => format!("{:>8}", "-"),
            };
            let line: String = grid.cpus.iter().map(cell).collect();
            let _ = writeln!(text, "{client:>6}{line}");
        }
    }
    text
}

/// The cases of the group `grid`, by transport and processors.
pub(crate) struct Grid {
    pub(crate) transports: Vec<String>,
    pub(crate) cpus: Vec<usize>,
    cells: Vec<(usize, usize, usize, f64)>,
}

impl Grid {
    /// `None` if the grid was not measured.
    pub(crate) fn of(cases: &[Case], results: &[Vec<Results>]) -> Option<Self> {
        let of_grid = || cases.iter().zip(results).filter(|(case, _)| case.group == "grid");
        let (first, _) = of_grid().next()?;
        let transports = first.arms.iter().map(|arm| arm.name.clone()).collect();
        let (mut cpus, mut cells) = (Vec::new(), Vec::new());
        for (case, arms) in of_grid() {
            let super::case::Place::Cpus(client, server) = case.arms[0].place else { continue };
            cpus.extend([client, server]);
            let figures = arms.iter().enumerate().filter_map(|(t, arm)| Some((t, arm.figure()?)));
            cells.extend(figures.map(|(transport, ns)| (transport, client, server, ns)));
        }
        cpus.sort_unstable();
        cpus.dedup();
        Some(Self { transports, cpus, cells })
    }

    /// The median round trip in nanoseconds.
    pub(crate) fn at(&self, transport: usize, client: usize, server: usize) -> Option<f64> {
        let is = |cell: &&(usize, usize, usize, f64)| (cell.0, cell.1, cell.2) == (transport, client, server);
        self.cells.iter().find(is).map(|cell| cell.3)
    }
}

/// What was skipped or failed, and why.
fn problems(cases: &[Case], results: &[Vec<Results>]) -> String {
    let mut text = String::new();
    for (case, arms) in cases.iter().zip(results) {
        for (arm, result) in case.arms.iter().zip(arms) {
            if let Some(failure) = &result.failure {
                let _ = writeln!(text, "{}: {}: {}", case.name, arm.name, failure.text());
            }
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// How many targets were judged, and how many of them missed.
fn judged(cases: &[Case], results: &[Vec<Results>]) -> (usize, usize) {
    let mut verdicts = Vec::new();
    for (case, arms) in cases.iter().zip(results) {
        for check in &case.checks {
            if let (Some(b), Some(s)) = (arms[check.baseline].figure(), arms[check.subject].figure()) {
                verdicts.extend(check.judge(case.metric, b, s).1);
            }
        }
    }
    (verdicts.len(), verdicts.iter().filter(|met| !**met).count())
}

/// How many targets were missed.
pub(crate) fn missed(cases: &[Case], results: &[Vec<Results>]) -> usize {
    judged(cases, results).1
}

fn summary(cases: &[Case], results: &[Vec<Results>]) -> String {
    let (all, missed) = judged(cases, results);
    let spread = results.iter().flatten().filter(|result| result.samples.len() > 1).map(|result| {
        let (least, most) = stats::range(&result.figures());
        most / least
    });
    let spreads: Vec<f64> = spread.filter(|ratio| ratio.is_finite()).collect();
    let noise = match spreads.is_empty() {
        true => String::new(),
        false => {
            format!(" Noise: greatest over least round of an arm, median {:.2}.", stats::median(&spreads))
        }
    };
    format!(
        "\n{} of {all} targets met. Figures are medians of the rounds, after a warm-up of {} messages. Ring: share of the\n\
         bytes that did not go through the kernel's TCP.{noise}\n",
        all - missed,
        super::worker::WARM_UP,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!(time(380.0), "380 ns");
        assert_eq!(time(8_812.0), "8.81 µs");
        assert_eq!(figure(Metric::BytesPerSecond, 2.5e9), "2.50 GB/s");
        assert_eq!(figure(Metric::PerSecond("req"), 61_234.0), "61.2 k req/s");
        assert_eq!(figure(Metric::PerSecond("req"), 12.0), "12.0 req/s");
        assert_eq!(seconds(65.2), "1m 5s");
    }
}
