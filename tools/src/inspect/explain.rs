//! `accel explain`: each socket of a process, its path, and why it is not accelerated.

use super::process::{self, Presence};
use super::view::{self, Reading, Row, Tables};
use crate::help::wrap;
use crate::refusal::Refusal;
use driver::cards::{Counts, HeaderView};
use rows::options::Id;
use rows::reasons::Reason;
use std::process::ExitCode;

/// Explains a running process.
pub(crate) fn run(pid: i32) -> Result<ExitCode, Refusal> {
    process::check(pid)?;
    let reading = view::read(pid, &mut Tables::default()).map_err(|error| {
        Refusal::with(1, format!("process {pid} could not be read: {error}; try again as its user or root."))
    })?;
    let presence = if reading.header.is_some() { Presence::Loaded } else { process::presence(pid) };
    print!("{}", text(&reading, &presence, process::variable(pid, Id::Profile.row().name).as_deref()));
    Ok(ExitCode::SUCCESS)
}

/// The whole explanation.
pub(crate) fn text(reading: &Reading, presence: &Presence, profile: Option<&str>) -> String {
    let Reading { pid, name, .. } = reading;
    let mut text = match presence {
        Presence::Absent(why) => wrap(&format!("{name} ({pid}) does not run under accel: {why}"), 0),
        Presence::Loaded if reading.header.is_none() => {
            format!("{name} ({pid}) runs under accel and has published no socket yet.\n")
        }
        Presence::Loaded => {
            let profile = profile.filter(|profile| !profile.is_empty());
            let profile = profile.map_or_else(String::new, |profile| format!(", profile {profile}"));
            format!("{name} ({pid}) runs under accel{profile}.\n")
        }
    };
    text += &rows(&reading.rows, presence == &Presence::Loaded);
    if let Some(header) = &reading.header {
        text += &totals(header);
    }
    text
}

/// A paragraph for each socket.
pub(crate) fn rows(rows: &[Row], is_under_accel: bool) -> String {
    if rows.is_empty() {
        return "It has no sockets open.\n".to_owned();
    }
    let accelerated = rows.iter().filter(|row| row.is_accelerated()).count();
    let mut text = format!(
        "{} of its {} open sockets {} accelerated.\n\n",
        accelerated,
        rows.len(),
        if accelerated == 1 { "is" } else { "are" }
    );
    for row in rows {
        text += &paragraph(row, is_under_accel);
    }
    text
}

/// One socket: number, path, addresses; then the reason; then the counters.
pub(crate) fn paragraph(row: &Row, is_under_accel: bool) -> String {
    const INDENT: usize = 18;
    let mut text = format!("  fd {:<4} {:<9} {}\n", row.fd, row.path(), row.connection());
    let is_followed = is_under_accel || row.card.is_some();
    if let Some(why) = row.why().filter(|_| is_followed) {
        text += &wrap(&why, INDENT);
    }
    if let Some(carried) = row.carried.as_ref().filter(|_| row.is_accelerated()) {
        text += &wrap(&carried.detail, INDENT);
    }
    if let Some(counts) = row.card.map(|card| counts(&card.counts)).filter(|counts| !counts.is_empty()) {
        text += &wrap(&counts, INDENT);
    }
    text
}

/// The counters that are not zero, in words.
pub(crate) fn counts(counts: &Counts) -> String {
    let mut parts = Vec::new();
    if counts.ring_sends + counts.ring_receives > 0 {
        parts.push(format!(
            "ring: {} sends ({}), {} receives ({})",
            counts.ring_sends,
            bytes(counts.ring_sent_bytes),
            counts.ring_receives,
            bytes(counts.ring_received_bytes)
        ));
    }
    if counts.kernel_sends + counts.kernel_receives > 0 {
        parts.push(format!("kernel: {} sends, {} receives", counts.kernel_sends, counts.kernel_receives));
    }
    if counts.spins_won + counts.spins_lost > 0 {
        parts.push(format!("spins: {} won, {} lost", counts.spins_won, counts.spins_lost));
    }
    if counts.opened > 0 {
        parts.push(format!(
            "opened {} times, closed {} times to sleep and {} times full",
            counts.opened, counts.closed_to_sleep, counts.closed_full
        ));
    }
    parts.join("; ")
}

/// What the family did since it started.
pub(crate) fn totals(header: &HeaderView) -> String {
    let mut text = format!(
        "\nSince its start, {} of {} possible connections were accelerated.\n",
        header.upgraded, header.candidates
    );
    for (number, count) in header.reasons.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let reason = Reason::from_number(u8::try_from(number).unwrap_or(u8::MAX));
        text +=
            &format!("  {count:>8}  {}\n", wrap(&format!("{}: {}", reason.word(), reason.doc()), 12).trim());
    }
    let closed = counts(&header.closed);
    if !closed.is_empty() {
        text += &wrap(&format!("Sockets that are closed: {closed}."), 0);
    }
    text
}

/// A number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{card, table};
    use super::*;
    use driver::cards::Path;

    fn reading(header: Option<HeaderView>) -> Reading {
        let cards = [card(5, 7, Path::Local, Reason::None), card(6, 7, Path::Kernel, Reason::PeerPlain)];
        let cards = if header.is_some() { &cards[..] } else { &[] };
        let rows = view::join(7, cards, &[(3, 101), (5, 100), (6, 102)], &table());
        Reading { pid: 7, name: "redis-server".into(), header, rows }
    }

    #[test]
    fn every_socket_has_a_path_or_a_reason() {
        let mut reasons = vec![0; 64];
        reasons[Reason::PeerPlain as usize] = 2;
        let header = HeaderView { pid: 7, candidates: 3, upgraded: 1, reasons, closed: Counts::default() };
        let text = text(&reading(Some(header)), &Presence::Loaded, Some("latency"));
        for part in [
            "redis-server (7) runs under accel, profile latency.\n1 of its 3 open sockets is accelerated.\n",
            "  fd 5    local     tcp 127.0.0.1:80 -> 127.0.0.1:4711 ESTABLISHED\n\
             \x20                 ring: 3 sends (3.0 kB)",
            "  fd 6    kernel    tcp 127.0.0.1:80 -> 127.0.0.1:4711 CLOSE-WAIT\n\
             \x20                 peer-not-under-accel: ",
            "  fd 3    kernel    udp",
            "1 of 3 possible connections were accelerated.",
            "         2  peer-not-under-accel: ",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_process_without_accel_is_told_so_and_its_sockets_are_listed_without_reasons() {
        let text = text(&reading(None), &Presence::Absent("it was not started with accel.".into()), None);
        assert!(text.starts_with("redis-server (7) does not run under accel: it was not started"), "{text}");
        assert!(text.contains("  fd 6    kernel "));
        assert!(!text.contains("not-followed"));
    }

    #[test]
    fn bytes_are_rounded() {
        for (count, expected) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (u64::MAX, "18446744.1 TB")]
        {
            assert_eq!(bytes(count), expected);
        }
    }
}
