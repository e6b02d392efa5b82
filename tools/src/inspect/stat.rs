//! `accel stat`: the counters of each socket, as a table or as JSON.

use super::view::{self, Reading, Row, Tables};
use super::{explain, process};
use crate::refusal::Refusal;
use driver::cards::{COUNTERS, Counts, HeaderView, flag};
use rows::reasons::Reason;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// One process, or all.
    pub pid: Option<i32>,
    /// JSON instead of a table.
    pub is_json: bool,
    /// Seconds between readings; one reading if `None`.
    pub interval: Option<u32>,
}

/// Shows the counters until it is done or interrupted.
pub(crate) fn run(request: Request) -> Result<ExitCode, Refusal> {
    if let Some(pid) = request.pid {
        process::check(pid)?;
    }
    loop {
        let readings = read(request.pid)?;
        show(&readings, request);
        let Some(interval) = request.interval else { return Ok(ExitCode::SUCCESS) };
        std::thread::sleep(Duration::from_secs(interval.into()));
    }
}

fn read(pid: Option<i32>) -> Result<Vec<Reading>, Refusal> {
    let mut tables = Tables::default();
    let Some(pid) = pid else {
        // Processes end while they are read, and some belong to others: they are left out.
        let has_cards = |pid: &i32| matches!(view::open(*pid), Ok(Some(_)));
        return Ok(process::all()
            .into_iter()
            .filter(has_cards)
            .filter_map(|pid| view::read(pid, &mut tables).ok())
            .collect());
    };
    match view::read(pid, &mut tables) {
        Ok(reading) if reading.header.is_some() => Ok(vec![reading]),
        Ok(reading) => Err(Refusal::with(
            1,
            format!("{} ({pid}) publishes no counters; `accel explain {pid}` says why.", reading.name),
        )),
        Err(error) => {
            Err(Refusal::with(1, format!("process {pid} could not be read: {error}; is it still running?")))
        }
    }
}

fn show(readings: &[Reading], request: Request) {
    let mut out = std::io::stdout().lock();
    let text = if request.is_json {
        format!("{}\n", to_json(readings))
    } else {
        let clear = if request.interval.is_some() && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        format!("{clear}{}", to_text(readings))
    };
    // A reader that went away ends this by SIGPIPE.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The readings as a table.
pub(crate) fn to_text(readings: &[Reading]) -> String {
    if readings.is_empty() {
        return "No process that this user may see runs under accel and has a TCP socket.\n".to_owned();
    }
    let mut text = String::new();
    for reading in readings {
        let Some(header) = &reading.header else { continue };
        text += &format!(
            "{} ({}): {} of {} candidates accelerated since its start\n",
            reading.name, reading.pid, header.upgraded, header.candidates
        );
        text += &format!(
            "{:>5} {:<9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}  {}\n",
            "fd",
            "path",
            "r.sends",
            "r.bytes",
            "r.recvs",
            "r.bytes",
            "k.sends",
            "k.recvs",
            "sp.won",
            "sp.lost",
            "socket"
        );
        for row in reading.rows.iter().filter(|row| row.card.is_some()) {
            text += &line(row);
        }
        let closed = explain::counts(&header.closed);
        if !closed.is_empty() {
            text += &format!("closed: {closed}\n");
        }
        text.push('\n');
    }
    text
}

fn line(row: &Row) -> String {
    let counts = row.card.map(|card| card.counts).unwrap_or_default();
    let reason =
        if row.reason() == Reason::None.word() { String::new() } else { format!(" ({})", row.reason()) };
    format!(
        "{:>5} {:<9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8}  {}{reason}\n",
        row.fd,
        row.path(),
        counts.ring_sends,
        explain::bytes(counts.ring_sent_bytes),
        counts.ring_receives,
        explain::bytes(counts.ring_received_bytes),
        counts.kernel_sends,
        counts.kernel_receives,
        counts.spins_won,
        counts.spins_lost,
        row.connection()
    )
}

/// The readings as one JSON value.
pub(crate) fn to_json(readings: &[Reading]) -> Value {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    json!({
        "time_ms": u64::try_from(time).unwrap_or(0),
        "processes": readings.iter().map(process_json).collect::<Vec<_>>(),
    })
}

fn process_json(reading: &Reading) -> Value {
    let mut value = json!({
        "pid": reading.pid,
        "name": reading.name,
        "sockets": reading.rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    if let Some(header) = &reading.header {
        value["family"] = family_json(header);
    }
    value
}

fn family_json(header: &HeaderView) -> Value {
    let reasons: Map<String, Value> = header
        .reasons
        .iter()
        .enumerate()
        .filter(|&(_, &count)| count > 0)
        .map(|(number, &count)| {
            let reason = Reason::from_number(u8::try_from(number).unwrap_or(u8::MAX));
            (reason.word().to_owned(), count.into())
        })
        .collect();
    json!({
        "pid": header.pid,
        "candidates": header.candidates,
        "upgraded": header.upgraded,
        "reasons": reasons,
        "closed": counts_json(&header.closed),
    })
}

fn row_json(row: &Row) -> Value {
    let mut value = json!({ "fd": row.fd, "path": row.path(), "reason": row.reason() });
    if let Some(socket) = &row.socket {
        value["protocol"] = socket.protocol.into();
        value["local"] = socket.local.map(|address| address.to_string()).into();
        value["remote"] = socket.remote.map(|address| address.to_string()).into();
        if !socket.state.is_empty() {
            value["state"] = socket.state.into();
        }
    }
    if let Some(card) = &row.card {
        value["nonblocking"] = (card.flags & flag::NONBLOCK != 0).into();
        value["accepted"] = (card.flags & flag::ACCEPTED != 0).into();
        value["holders"] = card.holders.iter().copied().filter(|&pid| pid != 0).collect::<Vec<_>>().into();
        value["counters"] = counts_json(&card.counts);
    }
    value
}

fn counts_json(counts: &Counts) -> Value {
    COUNTERS
        .iter()
        .zip(counts.values())
        .map(|((name, _), value)| ((*name).to_owned(), Value::from(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{card, table};
    use super::*;
    use driver::cards::Path;

    fn reading() -> Reading {
        let cards = [card(5, 7, Path::Local, Reason::None), card(6, 7, Path::Kernel, Reason::PeerUser)];
        let mut reasons = vec![0; 64];
        reasons[Reason::PeerUser as usize] = 1;
        Reading {
            pid: 7,
            name: "server".into(),
            header: Some(HeaderView {
                pid: 7,
                candidates: 2,
                upgraded: 1,
                reasons,
                closed: Counts::default(),
            }),
            rows: view::join(7, &cards, &[(3, 101), (5, 100), (6, 102)], &table()),
        }
    }

    #[test]
    fn json_has_every_counter_under_its_name() {
        let value = to_json(&[reading()]);
        let sockets = &value["processes"][0]["sockets"];
        assert_eq!(sockets[1]["path"], "local");
        assert_eq!(sockets[1]["local"], "127.0.0.1:80");
        assert_eq!(sockets[1]["counters"]["ring_sent_bytes"], 3000);
        assert_eq!(sockets[1]["counters"].as_object().unwrap().len(), COUNTERS.len());
        assert_eq!(sockets[2]["reason"], "peer-user");
        assert_eq!(sockets[0]["counters"], Value::Null, "a UDP socket has no card");
        assert_eq!(value["processes"][0]["family"]["reasons"]["peer-user"], 1);
    }

    #[test]
    fn the_table_has_a_line_for_each_followed_socket() {
        let text = to_text(&[reading()]);
        assert_eq!(text.lines().filter(|line| line.contains("tcp 127.0.0.1:80")).count(), 2);
        assert!(text.contains("(peer-user)"));
        assert!(text.starts_with("server (7): 1 of 2 candidates accelerated"));
        assert!(to_text(&[]).contains("No process"));
    }
}
