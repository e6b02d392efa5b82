//! `--svg`: percentile curves, figures by message size, and the core-to-core grid, as plain SVG.

use std::fmt::Write;

use super::case::{Case, Job, Metric, Results};
use super::plan;
use super::side::Side;
use super::stats::Latency;
use super::table::{self, Grid};

const KERNEL: [&str; 4] = ["#4e6a85", "#8fa9c2", "#6b7f6a", "#9a8fb0"];
const ACCEL: [&str; 3] = ["#d1495b", "#e58a2d", "#b5671d"];
const INK: &str = "#22262a";
const FAINT: &str = "#d9dde1";

/// A line in a chart: points in the chart's own units.
struct Series {
    name: String,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// File name and content of each picture that the results allow.
pub(crate) fn pictures(cases: &[Case], results: &[Vec<Results>]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (case, arms) in cases.iter().zip(results) {
        if case.metric == Metric::LatencyNs && !matches!(case.group, "grid" | "passthrough" | "apps") {
            all.extend(percentiles(case, arms).map(|svg| (format!("percentiles-{}.svg", case.name), svg)));
        }
    }
    all.extend(by_size(cases, results));
    all.extend(Grid::of(cases, results).map(|grid| ("grid.svg".to_owned(), heat_map(&grid))));
    all
}

/// The colour of the `index`th arm of a case.
fn colour(case: &Case, index: usize) -> &'static str {
    let is_accel = |arm: &super::case::Arm| matches!(arm.client, Side::Accel(_));
    let accel = is_accel(&case.arms[index]);
    let before = case.arms[..index].iter().filter(|arm| is_accel(arm) == accel).count();
    if accel { ACCEL[before % ACCEL.len()] } else { KERNEL[before % KERNEL.len()] }
}

/// From p50 to p99.99; equal steps for each further nine.
fn percentiles(case: &Case, arms: &[Results]) -> Option<String> {
    const LAST: f64 = 4.0;
    let mut series = Vec::new();
    for (index, result) in arms.iter().enumerate() {
        let is_floor = matches!(case.arms[index].job, Job::Line);
        let Some(latency) = result.merged().filter(|_| !is_floor) else { continue };
        let points = curve(&latency, LAST);
        series.push(Series { name: case.arms[index].name.clone(), colour: colour(case, index), points });
    }
    let ticks = [(0.301, "p50"), (1.0, "p90"), (2.0, "p99"), (3.0, "p99.9"), (LAST, "p99.99")];
    let ticks = ticks.map(|(at, name)| (at, name.to_owned()));
    Chart { title: &case.what, unit: table::time, ticks: &ticks, dots: false }.draw(&series)
}

/// Points at nines from 0.3 (p50) on, as far as there are samples to tell.
fn curve(latency: &Latency, last: f64) -> Vec<(f64, f64)> {
    let nines = (0..).map(|step| 0.301 + f64::from(step) * 0.05).take_while(|&nines| nines <= last + 1e-9);
    let known = nines.take_while(|nines| 10f64.powf(*nines) <= latency.count() as f64);
    known.map(|nines| (nines, latency.at(100.0 * (1.0 - 10f64.powf(-nines))))).collect()
}

/// Latency and throughput over message size: one picture per family of cases.
fn by_size(cases: &[Case], results: &[Vec<Results>]) -> Vec<(String, String)> {
    let family =
        |case: &Case| case.name.rsplit_once('-').map_or(case.name.clone(), |(family, _)| family.to_owned());
    let sized = |case: &Case| match case.job_size() {
        Some(size) if matches!(case.group, "latency" | "throughput") => Some(size),
        _ => None,
    };
    let mut families: Vec<String> = cases.iter().filter(|case| sized(case).is_some()).map(family).collect();
    families.dedup();
    let mut all = Vec::new();
    for name in families {
        let members: Vec<_> = cases
            .iter()
            .zip(results)
            .filter(|(case, _)| family(case) == name && sized(case).is_some())
            .collect();
        all.extend(size_chart(&name, &members).map(|svg| (format!("{name}.svg"), svg)));
    }
    all
}

fn size_chart(name: &str, members: &[(&Case, &Vec<Results>)]) -> Option<String> {
    let (first, _) = members.first()?;
    let size = |case: &Case| case.job_size().map_or(0.0, |size| (size as f64).log2());
    let mut series = Vec::new();
    for index in 0..first.arms.len() {
        let point = |(case, arms): &(&Case, &Vec<Results>)| Some((size(case), arms[index].figure()?));
        let points = members.iter().filter_map(point).collect();
        series.push(Series { name: first.arms[index].name.clone(), colour: colour(first, index), points });
    }
    let label = |case: &Case| (size(case), case.job_size().map(plan::size_name).unwrap_or_default());
    let ticks: Vec<_> = members.iter().map(|(case, _)| label(case)).collect();
    let (title, unit): (_, fn(f64) -> String) = match first.metric {
        Metric::BytesPerSecond => {
            ("bytes per second by size of the writes", |v| table::figure(Metric::BytesPerSecond, v))
        }
        _ => ("round trip (p50) by size of the messages", table::time),
    };
    Chart { title: &format!("{name}: {title}"), unit, ticks: &ticks, dots: true }.draw(&series)
}

/// Lines over labelled positions, with a logarithmic vertical axis.
struct Chart<'a> {
    title: &'a str,
    unit: fn(f64) -> String,
    ticks: &'a [(f64, String)],
    dots: bool,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 350.0;

impl Chart<'_> {
    /// `None` if there is nothing to draw.
    fn draw(&self, series: &[Series]) -> Option<String> {
        let values = || series.iter().flat_map(|line| &line.points).map(|point| point.1).filter(|v| *v > 0.0);
        let low = values().fold(f64::INFINITY, f64::min).log10();
        let high = values().fold(0.0, f64::max).log10();
        let (left, right) = (self.ticks.first()?.0, self.ticks.last()?.0);
        if !low.is_finite() || left >= right {
            return None;
        }
        let (low, high) = ((low - 0.05).floor(), (high + 0.05).ceil());
        let x = |at: f64| LEFT + (at - left) / (right - left) * (RIGHT - LEFT);
        let y = |value: f64| BOTTOM - (value.log10() - low) / (high - low) * (BOTTOM - TOP);
        let mut svg = open(WIDTH, HEIGHT, self.title);
        self.axes(&mut svg, &x, &y, (low as i32, high as i32));
        for line in series {
            let path: Vec<String> =
                line.points.iter().map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value))).collect();
            let _ = writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>"#,
                path.join(" "),
                line.colour
            );
            for &(at, value) in line.points.iter().filter(|_| self.dots) {
                let _ = writeln!(
                    svg,
                    r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{}"/>"#,
                    x(at),
                    y(value),
                    line.colour
                );
            }
        }
        self.legend(&mut svg, series);
        svg.push_str("</svg>\n");
        Some(svg)
    }

    fn axes(&self, svg: &mut String, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64, decades: (i32, i32)) {
        for decade in decades.0..=decades.1 {
            let value = 10f64.powi(decade);
            let _ = writeln!(
                svg,
                r#"<line x1="{LEFT}" y1="{0:.1}" x2="{RIGHT}" y2="{0:.1}" stroke="{FAINT}"/>"#,
                y(value)
            );
            text(svg, LEFT - 8.0, y(value) + 4.0, "end", &(self.unit)(value));
        }
        for (at, name) in self.ticks {
            let _ = writeln!(
                svg,
                r#"<line x1="{0:.1}" y1="{TOP}" x2="{0:.1}" y2="{BOTTOM}" stroke="{FAINT}"/>"#,
                x(*at)
            );
            text(svg, x(*at), BOTTOM + 18.0, "middle", name);
        }
    }

    /// Names with the figure at the first tick, beside the lines.
    fn legend(&self, svg: &mut String, series: &[Series]) {
        for (index, line) in series.iter().enumerate() {
            let y = TOP + 14.0 + index as f64 * 36.0;
            let _ = writeln!(
                svg,
                r#"<rect x="{}" y="{}" width="14" height="4" fill="{}"/>"#,
                RIGHT + 16.0,
                y - 6.0,
                line.colour
            );
            text(svg, RIGHT + 36.0, y, "start", &line.name);
            let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else { continue };
            let span = format!("{} to {}", (self.unit)(first.1), (self.unit)(last.1));
            text(svg, RIGHT + 36.0, y + 15.0, "start", &span);
        }
    }
}

/// One square per pair of processors and transport; darker is slower, on one scale for all.
fn heat_map(grid: &Grid) -> String {
    const CELL: f64 = 64.0;
    const MARGIN: f64 = 60.0;
    let side = grid.cpus.len() as f64 * CELL;
    let each = side.max(150.0) + MARGIN;
    let width = MARGIN + each * grid.transports.len() as f64;
    let mut svg = open(width.max(520.0), side + 150.0, "core to core: 64 B round trip, p50 in µs");
    let pairs = || grid.cpus.iter().flat_map(|&a| grid.cpus.iter().map(move |&b| (a, b)));
    let values =
        || (0..grid.transports.len()).flat_map(|t| pairs().filter_map(move |(a, b)| grid.at(t, a, b)));
    let low = values().fold(f64::INFINITY, f64::min).ln();
    let high = values().fold(0.0, f64::max).ln();
    for (transport, name) in grid.transports.iter().enumerate() {
        let left = MARGIN + transport as f64 * each;
        text(&mut svg, left, 66.0, "start", name);
        for (row, &client) in grid.cpus.iter().enumerate() {
            let y = 100.0 + row as f64 * CELL;
            text(&mut svg, left - 8.0, y + CELL / 2.0 + 4.0, "end", &client.to_string());
            for (column, &server) in grid.cpus.iter().enumerate() {
                let x = left + column as f64 * CELL;
                if row == 0 {
                    text(&mut svg, x + CELL / 2.0, 90.0, "middle", &server.to_string());
                }
                let heat = grid
                    .at(transport, client, server)
                    .map(|ns| (ns, (ns.ln() - low) / (high - low).max(1e-9)));
                square(&mut svg, (x, y, CELL), heat);
            }
        }
    }
    text(&mut svg, MARGIN, side + 130.0, "start", "row: client's processor, column: server's");
    svg.push_str("</svg>\n");
    svg
}

/// `heat`: nanoseconds, and their place from 0 (fast) to 1 (slow).
fn square(svg: &mut String, (x, y, size): (f64, f64, f64), heat: Option<(f64, f64)>) {
    let (fill, ink, label) = match heat {
        None => ("#ffffff".to_owned(), INK, "-".to_owned()),
        Some((ns, place)) => {
            let mix = |from: f64, to: f64| (from + (to - from) * place).round() as u8;
            let fill = format!("#{:02x}{:02x}{:02x}", mix(253.0, 122.0), mix(241.0, 26.0), mix(214.0, 52.0));
            (fill, if place > 0.55 { "#ffffff" } else { INK }, format!("{:.2}", ns / 1e3))
        }
    };
    let _ = writeln!(
        svg,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{0:.1}" height="{0:.1}" fill="{fill}"/>"#,
        size - 2.0
    );
    let (x, y) = (x + size / 2.0 - 1.0, y + size / 2.0 + 4.0);
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" fill="{ink}">{label}</text>"#);
}

fn open(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
"##
    );
    let _ = writeln!(svg, r#"<text x="20" y="28" font-size="15" fill="{INK}">{}</text>"#, escape(title));
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{INK}">{}</text>"#,
        escape(content)
    );
}

fn escape(content: &str) -> String {
    content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_the_samples_end() {
        let mut latency = Latency::new();
        (0..1000).for_each(|_| latency.record(500));
        let points = curve(&latency, 4.0);
        assert!(points.last().is_some_and(|point| point.0 <= 3.0 + 1e-6 && point.0 > 2.9));
    }

    #[test]
    fn text_is_escaped_and_empty_charts_are_not_drawn() {
        assert_eq!(escape("a<b & c"), "a&lt;b &amp; c");
        let ticks = [(0.0, "a".to_owned()), (1.0, "b".to_owned())];
        assert!(Chart { title: "", unit: table::time, ticks: &ticks, dots: true }.draw(&[]).is_none());
    }
}
