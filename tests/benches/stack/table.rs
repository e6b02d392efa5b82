//! The table: our figure, the peer's, the target, and whether it is met.

use std::fmt::Write;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Instructions,
    Nanoseconds,
    Bytes,
    GiB,
    PerSecond,
    Gbit,
    Percent,
    Count,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// So many times less than the peer's, or more of it, as the unit wants: that much better.
    Better(f64),
    /// No more than so many times the other figure.
    AtMostTimes(f64),
    /// The other figure, give or take this part of it.
    Within(f64),
    /// Nothing: it is shown.
    Shown,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) ours: f64,
    pub(crate) peer: Option<(&'static str, f64)>,
    pub(crate) target: Target,
}

impl Line {
    /// Ours over the peer's, or the other way round, so that more is better.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer?;
        let more_is_better = matches!(self.unit, Unit::PerSecond | Unit::Gbit | Unit::Percent);
        Some(if more_is_better { self.ours / peer } else { peer / self.ours })
    }

    /// Whether the target is met; `None` without one.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        match self.target {
            Target::AtMost(most) => Some(self.ours <= most),
            Target::AtLeast(least) => Some(self.ours >= least),
            Target::Better(times) => Some(ratio >= times),
            Target::AtMostTimes(times) => Some(1.0 / ratio <= times),
            Target::Within(part) => Some((1.0 / ratio - 1.0).abs() <= part),
            Target::Shown => None,
        }
    }

    fn cells(&self) -> Vec<String> {
        let peer =
            self.peer.map_or(String::new(), |(name, value)| format!("{name} {}", figure(self.unit, value)));
        let ratio = match (self.target, self.ratio()) {
            (Target::AtMostTimes(_) | Target::Within(_), Some(ratio)) => format!("{:.2}x", 1.0 / ratio),
            (_, Some(ratio)) => format!("{ratio:.1}x"),
            _ => String::new(),
        };
        let target = match self.target {
            Target::AtMost(most) => format!("<= {}", figure(self.unit, most)),
            Target::AtLeast(least) => format!(">= {}", figure(self.unit, least)),
            Target::Better(times) => format!(">= {times}x better"),
            Target::AtMostTimes(times) => format!("<= {times}x"),
            Target::Within(part) => format!("within {:.0} %", part * 100.0),
            Target::Shown => String::new(),
        };
        let met = self.is_met().map_or("", |met| if met { "yes" } else { "NO" });
        vec![
            self.row.to_owned(),
            self.what.clone(),
            figure(self.unit, self.ours),
            peer,
            ratio,
            target,
            met.to_owned(),
        ]
    }
}

/// A figure with its unit.
pub(crate) fn figure(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Instructions | Unit::Count => grouped(value),
        Unit::Nanoseconds if value >= 10_000.0 => format!("{:.1} µs", value / 1e3),
        Unit::Nanoseconds => format!("{value:.0} ns"),
        Unit::Bytes => format!("{} B", grouped(value)),
        Unit::GiB => format!("{:.2} GiB", value / f64::from(1 << 30)),
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Gbit => format!("{value:.2} Gbit/s"),
        Unit::Percent => format!("{value:.1} %"),
    }
}

/// Digits in groups of three.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The lines in columns.
pub(crate) fn text(lines: &[Line]) -> String {
    let heads = ["row", "what", "ours", "peer", "ratio", "target", "met"].map(str::to_owned).to_vec();
    let mut rows = vec![heads];
    rows.extend(lines.iter().map(Line::cells));
    for at in (2..rows.len()).rev() {
        if rows[at][0] == rows[at - 1][0] {
            rows[at][0].clear();
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let judged: Vec<bool> = lines.iter().filter_map(Line::is_met).collect();
    let met = judged.iter().filter(|met| **met).count();
    let _ = writeln!(text, "\n{met} of {} targets met.", judged.len());
    text
}
