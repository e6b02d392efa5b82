//! Pictures of what the table says, as plain SVG.

use std::fmt::Write;

use super::callgrind::{Count, STAGES};
use super::table::{Line, figure};

const INK: &str = "#22262a";
const FAINT: &str = "#d9dde1";
const OURS: &str = "#d1495b";
const PEER: &str = "#4e6a85";
const SHADES: [&str; 6] = ["#4e6a85", "#8fa9c2", "#d1495b", "#6b7f6a", "#9a8fb0", "#e58a2d"];

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="20" y="28" font-size="15" fill="{INK}">{title}</text>
"##
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{INK}">{content}</text>"#);
}

fn bar(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
    );
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((a, b), (c, d)) = (from, to);
    let _ = writeln!(svg, r#"<line x1="{a:.1}" y1="{b:.1}" x2="{c:.1}" y2="{d:.1}" stroke="{colour}"/>"#);
}

/// Where the instructions of an echo are: one bar, cut at the stages.
pub(crate) fn stages(count: &Count) -> String {
    let mut svg = open(760.0, 170.0, &format!("echo of 64 B: {:.0} instructions by stage", count.stack));
    let mut x = 20.0;
    for (at, (stage, colour)) in STAGES.iter().zip(SHADES).enumerate() {
        let share = count.stages.get(stage).copied().unwrap_or(0.0);
        let width = share / count.stack * 720.0;
        bar(&mut svg, (x, 50.0), (width, 40.0), colour);
        let left = 20.0 + at as f64 * 122.0;
        bar(&mut svg, (left, 112.0), (12.0, 12.0), colour);
        text(&mut svg, left + 18.0, 122.0, "start", stage);
        text(&mut svg, left + 18.0, 140.0, "start", &format!("{share:.0}"));
        x += width;
    }
    svg + "</svg>\n"
}

/// Time of an echo over the number of sockets, ours and smoltcp's, both scales logarithmic.
pub(crate) fn by_sockets(points: &[(u32, f64, f64)]) -> String {
    let (left, right, top, bottom) = (80.0, 560.0, 50.0, 350.0);
    let mut svg = open(760.0, 400.0, "echo of 64 B, median, by sockets of the host");
    let x = |sockets: u32| left + f64::from(sockets).log10() / 4.0 * (right - left);
    let y = |ns: f64| bottom - (ns.log10() - 1.0) / 6.0 * (bottom - top);
    for decade in 1..=7 {
        let ns = 10f64.powi(decade);
        rule(&mut svg, (left, y(ns)), (right, y(ns)), FAINT);
        text(&mut svg, left - 8.0, y(ns) + 4.0, "end", &figure(super::table::Unit::Nanoseconds, ns));
    }
    for (sockets, _, _) in points {
        rule(&mut svg, (x(*sockets), top), (x(*sockets), bottom), FAINT);
        text(&mut svg, x(*sockets), bottom + 18.0, "middle", &sockets.to_string());
    }
    for (name, colour, of, at) in [("ours", OURS, 0, 70.0), ("smoltcp 0.14", PEER, 1, 100.0)] {
        let value = |point: &(u32, f64, f64)| if of == 0 { point.1 } else { point.2 };
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(value(point)))).collect();
        let path = path.join(" ");
        let _ =
            writeln!(svg, r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        for point in points {
            let (cx, cy) = (x(point.0), y(value(point)));
            let _ = writeln!(svg, r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3" fill="{colour}"/>"#);
        }
        bar(&mut svg, (right + 20.0, at - 6.0), (14.0, 4.0), colour);
        text(&mut svg, right + 40.0, at, "start", name);
    }
    svg + "</svg>\n"
}

/// How much better than the peer each line is: bars over a logarithmic scale, with a mark at what is asked.
pub(crate) fn ratios(lines: &[Line]) -> Option<String> {
    let lines: Vec<_> = lines
        .iter()
        .filter_map(|line| match line.target {
            super::table::Target::Better(times) => Some((line, line.ratio()?, times)),
            _ => None,
        })
        .filter(|(_, ratio, _)| ratio.is_finite())
        .collect();
    let most = lines.iter().map(|(_, ratio, times)| ratio.max(*times)).fold(f64::NAN, f64::max);
    if !most.is_finite() {
        return None;
    }
    let (left, right) = (380.0, 700.0);
    let height = 80.0 + lines.len() as f64 * 26.0;
    let mut svg = open(820.0, height, "times better than the peer; the line is what is asked");
    // From a tenth on: what is slower than its peer has a bar, too.
    let x = |ratio: f64| left + (ratio.max(0.1).log10() + 1.0) / (most.log10() + 1.0) * (right - left);
    for (at, (line, ratio, times)) in lines.iter().enumerate() {
        let y = 50.0 + at as f64 * 26.0;
        text(&mut svg, left - 8.0, y + 13.0, "end", &format!("{}: {}", line.row, line.what));
        let colour = if ratio >= times { OURS } else { PEER };
        bar(&mut svg, (left, y), (x(*ratio) - left, 16.0), colour);
        rule(&mut svg, (x(*times), y - 3.0), (x(*times), y + 19.0), INK);
        text(&mut svg, x(ratio.max(*times)) + 6.0, y + 13.0, "start", &format!("{ratio:.1}"));
    }
    Some(svg + "</svg>\n")
}
