//! What a connection does in every state with every event: driven through the real stack, printed as a table and as a picture beside
//! `stack/src/tcp/state.rs`, and asked of the kernel, too.
//!
//! `ACCEL_BLESS=1 cargo test -p accel-tests --test states` writes both anew.

use std::fmt::Write as _;
use std::fs;
use std::net::Shutdown;
use std::path::{Path, PathBuf};

use harness::wire::hand::{Call, Hand, Ours, Subject, ask_kernel, errno};
use stack::tcp::state::State;
use stack::wire::tcp::Flags;

const FIN: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);
const SYN_ACK: Flags = Flags(Flags::SYN.0 | Flags::ACK.0);
const RST_ACK: Flags = Flags(Flags::RST.0 | Flags::ACK.0);

/// Where a row of the table begins: a state, and how it is come to where there are two ways.
const FROM: [(&str, State); 12] = [
    ("CLOSED", State::Closed),
    ("LISTEN", State::Listen),
    ("SYN-SENT", State::SynSent),
    ("SYN-RECEIVED, of a listener", State::SynReceived),
    ("SYN-RECEIVED, both opened", State::SynReceived),
    ("ESTABLISHED", State::Established),
    ("FIN-WAIT-1", State::FinWait1),
    ("FIN-WAIT-2", State::FinWait2),
    ("CLOSE-WAIT", State::CloseWait),
    ("CLOSING", State::Closing),
    ("LAST-ACK", State::LastAck),
    ("TIME-WAIT", State::TimeWait),
];

/// Brings a connection there; what is not yet acknowledged of what it has sent.
fn come_to(hand: &mut Hand<'_>, from: usize) -> u32 {
    let call = |hand: &mut Hand<'_>, call| hand.call(call).ok();
    match FROM[from].0 {
        "CLOSED" => {
            call(hand, Call::Socket);
        }
        "LISTEN" => {
            call(hand, Call::Listen);
        }
        "SYN-SENT" => {
            call(hand, Call::Connect);
        }
        "SYN-RECEIVED, of a listener" => {
            call(hand, Call::Listen);
            hand.says(Flags::SYN, &[]);
        }
        "SYN-RECEIVED, both opened" => {
            call(hand, Call::Connect);
            hand.says(Flags::SYN, &[]);
        }
        _ => hand.opens(),
    }
    let finishes = Call::Shut(Shutdown::Write);
    match FROM[from].1 {
        State::FinWait1 => {
            call(hand, finishes);
        }
        State::FinWait2 => {
            call(hand, finishes);
            hand.acks();
        }
        State::CloseWait => {
            hand.says(FIN, &[]);
        }
        State::Closing => {
            call(hand, finishes);
            let crossing = hand.segment(FIN, 1, 1, &[]);
            hand.gives(&crossing);
            hand.seq += 1;
        }
        State::LastAck => {
            hand.says(FIN, &[]);
            call(hand, finishes);
        }
        State::TimeWait => {
            call(hand, finishes);
            hand.acks();
            hand.says(FIN, &[]);
        }
        _ => {}
    }
    // The acknowledgment of a FIN may be put off.
    if FROM[from].1 == State::CloseWait {
        hand.wait(60);
    }
    assert_eq!(hand.state(), FROM[from].1, "{}", hand.lines.join("\n"));
    u32::from(matches!(
        FROM[from].1,
        State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
    ))
}

/// What happens to it.
#[derive(Clone, Copy)]
enum Event {
    /// A segment: its control bits, its sequence number counted from RCV.NXT, its acknowledgment number counted from SND.UNA (or, if it
    /// acknowledges all, from SND.NXT), bytes of text.
    Segment(Flags, i32, i32, bool, usize),
    /// A call.
    Does(Call),
    /// So many milliseconds in which nothing comes.
    Passes(u64),
}

use Event::{Does, Passes, Segment};

/// Far outside of any window.
const FAR: i32 = 1 << 30;

/// The rows of each state.
const EVENTS: [(&str, Event); 33] = [
    ("SYN", Segment(Flags::SYN, 0, 0, false, 0)),
    ("SYN far beyond", Segment(Flags::SYN, FAR, 0, false, 0)),
    ("SYN,ACK", Segment(SYN_ACK, 0, 0, true, 0)),
    ("SYN,ACK of nothing", Segment(SYN_ACK, 0, 1, true, 0)),
    ("ACK of all", Segment(Flags::ACK, 0, 0, true, 0)),
    ("ACK again", Segment(Flags::ACK, 0, 0, false, 0)),
    ("ACK of nothing", Segment(Flags::ACK, 0, 1, true, 0)),
    ("text", Segment(Flags::ACK, 0, 0, false, 10)),
    ("text, ACK of all", Segment(Flags::ACK, 0, 0, true, 10)),
    ("text behind a gap", Segment(Flags::ACK, 10, 0, false, 10)),
    ("text of before", Segment(Flags::ACK, -10, 0, false, 10)),
    ("text far beyond", Segment(Flags::ACK, FAR, 0, false, 10)),
    ("text without ACK", Segment(Flags(0), 0, 0, false, 10)),
    ("FIN", Segment(FIN, 0, 0, false, 0)),
    ("FIN, ACK of all", Segment(FIN, 0, 0, true, 0)),
    ("FIN with text", Segment(FIN, 0, 0, false, 10)),
    ("RST", Segment(Flags::RST, 0, 0, false, 0)),
    ("RST,ACK of all", Segment(RST_ACK, 0, 0, true, 0)),
    ("RST in the window", Segment(Flags::RST, 5, 0, false, 0)),
    ("RST far beyond", Segment(Flags::RST, FAR, 0, false, 0)),
    ("listen", Does(Call::Listen)),
    ("connect", Does(Call::Connect)),
    ("accept", Does(Call::Accept)),
    ("send", Does(Call::Send(10))),
    ("receive", Does(Call::Receive(10))),
    ("shutdown, writing", Does(Call::Shut(Shutdown::Write))),
    ("shutdown, reading", Does(Call::Shut(Shutdown::Read))),
    ("shutdown, both", Does(Call::Shut(Shutdown::Both))),
    ("close", Does(Call::Close)),
    ("close, no linger", Does(Call::Abort)),
    ("2 s pass", Passes(2_000)),
    ("61 s pass", Passes(61_000)),
    ("20 min pass", Passes(1_200_000)),
];

/// What an event does in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cell {
    next: State,
    /// What is sent, the same lines counted.
    sent: Vec<(String, usize)>,
    /// What the call returned; and the error that waits, if there is one.
    result: String,
}

impl Cell {
    fn line(&self) -> String {
        let mut line = format!("{:<14}", self.next.to_string());
        for (sent, count) in &self.sent {
            let times = if *count > 1 { format!(" \u{d7}{count}") } else { String::new() };
            let _ = write!(line, " {sent}{times};");
        }
        if !self.result.is_empty() {
            let _ = write!(line, " {}", self.result);
        }
        line.trim_end().trim_end_matches(';').to_owned()
    }
}

fn cell(subject: &mut dyn Subject, from: usize, event: Event) -> Cell {
    let mut hand = Hand::new(subject);
    let pending = come_to(&mut hand, from);
    let first = hand.lines.len();
    let (mut result, is_call) = (String::new(), matches!(event, Does(_)));
    match event {
        Segment(flags, seq, ack, all, len) => {
            let ack = hand.ack.wrapping_sub(if all { 0 } else { pending }).wrapping_add_signed(ack);
            let segment = hand.segment(flags, hand.seq.wrapping_add_signed(seq), ack, &vec![7; len]);
            hand.gives(&segment);
        }
        Does(call) => result = hand.call(call).map_or_else(errno, |value| format!("= {value}")),
        Passes(ms) => drop(hand.wait(ms)),
    }
    let mut sent: Vec<(String, usize)> = Vec::new();
    for line in hand.lines[first..].iter().filter_map(|line| line.strip_prefix("> ")) {
        match sent.iter_mut().find(|(same, _)| same == line) {
            Some((_, count)) => *count += 1,
            None => sent.push((line.to_owned(), 1)),
        }
    }
    let next = hand.state();
    if !is_call
        && let Ok(error) = hand.call(Call::Error)
        && error != 0
    {
        result = errno(error as i32);
    }
    Cell { next, sent, result }
}

/// Where the kernel does otherwise: the state, how the event's name begins, and why ours does not.
const DEPARTURES: [(&str, &[&str], &str); 8] = [
    (
        "LISTEN",
        &["shutdown"],
        "the kernel's listener becomes a closed socket, which may listen again; ours is closed by close(2)",
    ),
    (
        "SYN-SENT",
        &["shutdown, reading"],
        "the kernel gives the handshake up, as for the other direction; here it goes on, and reads end",
    ),
    (
        "SYN-RECEIVED, of a listener",
        &["SYN", "text of before", "text far", "RST in", "shutdown"],
        "what is wrong is answered by the SYN,ACK again, not by a reset that would end the handshake; a blind RST is dropped",
    ),
    (
        "SYN-RECEIVED, of a listener",
        &["close"],
        "the handshake ends with its listener; the kernel forgets it when its timer fires",
    ),
    (
        "SYN-RECEIVED, both opened",
        &["SYN", "text of before", "text far", "RST in", "close"],
        "the SYN,ACK is sent again by its timer, and a FIN goes behind its acknowledgment",
    ),
    (
        "SYN-RECEIVED, both opened",
        &["ACK again", "text", "FIN"],
        "an acknowledgment that isn't one of our SYN is reset (RFC 9293 §3.10.7.4, fifth); the kernel takes it for one",
    ),
    (
        "TIME-WAIT",
        &["text", "ACK of nothing", "SYN far", "RST in"],
        "text is ignored (RFC 9293 §3.10.7.4, seventh), challenges are as elsewhere, a new connection's first number is the clock's",
    ),
    (
        "TIME-WAIT",
        &["RST"],
        "RFC 1337 §3: a reset does not end it; in the kernel net.ipv4.tcp_rfc1337 says so",
    ),
];

fn ours() -> Vec<Vec<Cell>> {
    let row = |from| EVENTS.iter().map(|(_, event)| cell(&mut Ours::new(), from, *event)).collect();
    (0..FROM.len()).map(row).collect()
}

fn table(cells: &[Vec<Cell>]) -> String {
    let mut text = String::from(TITLE);
    for ((from, _), cells) in FROM.iter().zip(cells) {
        let _ = write!(text, "\n{from}\n");
        for ((event, _), cell) in EVENTS.iter().zip(cells) {
            let _ = writeln!(text, "    {event:<20} {}", cell.line());
        }
    }
    text
}

const TITLE: &str = "\
Every state and every event: the next state; what is sent, as packetdrill writes it; what the call returns, or the error that waits.
The peer's sequence numbers and ours count from each SYN. Written by `ACCEL_BLESS=1 cargo test -p accel-tests --test states`.
";

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../stack/src/tcp/state").join(name)
}

#[test]
fn every_state_and_every_event() {
    let cells = ours();
    for (name, fresh) in [("events.txt", table(&cells)), ("events.svg", picture(&cells))] {
        let path = kept(name);
        if std::env::var_os("ACCEL_BLESS").is_some_and(|value| value == "1") {
            fs::write(&path, fresh).expect("it can be written");
            continue;
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == fresh, "{} is not what the stack does: ACCEL_BLESS=1 writes it anew", path.display());
    }
}

#[test]
fn every_state_and_every_event_as_in_linux() {
    let mut wrong = Vec::new();
    for (from, (name, _)) in FROM.iter().enumerate() {
        for (what, event) in EVENTS.iter().filter(|row| !matches!(row.1, Passes(_))) {
            let ours = cell(&mut Ours::new(), from, *event);
            let Some(theirs) = ask_kernel(|kernel| cell(kernel, from, *event)) else { return };
            let is_known = DEPARTURES
                .iter()
                .any(|row| row.0 == *name && row.1.iter().any(|begin| what.starts_with(begin)));
            if ours != theirs && !is_known {
                wrong.push(format!(
                    "{name}, {what}:\n    ours  {}\n    Linux {}",
                    ours.line(),
                    theirs.line()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the colours of the picture mean.
const COLOURS: [(&str, &str); 4] = [
    ("#f4f4f4", "nothing is sent, the state stays"),
    ("#e3edf8", "an answer, the state stays"),
    ("#d8efd9", "another state"),
    ("#f6d9d5", "CLOSED"),
];

/// The control bits of a line in packetdrill's letters, by their names.
fn bits(letters: &str) -> String {
    let names = [('S', "SYN"), ('F', "FIN"), ('R', "RST"), ('.', "ACK")];
    let named = names.iter().filter(|(letter, _)| letters.contains(*letter)).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(",")
}

/// The table as a picture: states from left to right, events from top to bottom in three groups; the colour tells whether the state changes.
fn picture(cells: &[Vec<Cell>]) -> String {
    const WIDTH: usize = 132;
    const HEIGHT: usize = 30;
    const LEFT: usize = 132;
    const TOP: usize = 44;
    // Between segments, calls and times.
    const GAP: usize = 10;
    let group = |row: usize| match EVENTS[row].1 {
        Segment(..) => 0,
        Does(_) => 1,
        Passes(_) => 2,
    };
    let top = |row: usize| TOP + row * HEIGHT + group(row) * GAP;
    let (width, end) = (LEFT + WIDTH * FROM.len() + 8, top(EVENTS.len() - 1) + HEIGHT);
    let height = end + 34;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"monospace\" font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let say = |x: usize, y: usize, weight: &str, text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        format!("<text x=\"{x}\" y=\"{y}\" font-weight=\"{weight}\">{text}</text>\n")
    };
    let fill = |x: usize, y: usize, w: usize, h: usize, colour: &str| {
        format!("<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{colour}\"/>\n")
    };
    for (column, (name, _)) in FROM.iter().enumerate() {
        let (first, second) = name.split_once(", ").unwrap_or((name, ""));
        let x = LEFT + column * WIDTH + 4;
        svg += &say(x, if second.is_empty() { 34 } else { 22 }, "bold", first);
        if !second.is_empty() {
            svg += &say(x, 34, "normal", second);
        }
    }
    for (row, (event, _)) in EVENTS.iter().enumerate() {
        let y = top(row);
        svg += &say(6, y + 18, "bold", event);
        for (column, (cells, (_, from))) in cells.iter().zip(FROM).enumerate() {
            let (cell, x) = (&cells[row], LEFT + column * WIDTH);
            let colour = match (cell.next == from, cell.next) {
                (true, _) if cell.sent.is_empty() => COLOURS[0].0,
                (true, _) => COLOURS[1].0,
                (false, State::Closed) => COLOURS[3].0,
                (false, _) => COLOURS[2].0,
            };
            svg += &fill(x, y, WIDTH - 2, HEIGHT - 2, colour);
            let sent = cell.sent.first().map(|sent| bits(sent.0.split(' ').next().unwrap_or("")));
            let sent = sent.map_or_else(String::new, |sent| format!("> {sent}"));
            let between = if sent.is_empty() || cell.result.is_empty() { "" } else { "; " };
            let what = format!("{sent}{between}{}", cell.result);
            let is_same = cell.next == from;
            if !is_same {
                let at = if what.is_empty() { 18 } else { 12 };
                svg += &say(x + 4, y + at, "bold", &format!("\u{2192} {}", cell.next));
            }
            if !what.is_empty() {
                svg += &say(x + 4, y + if is_same { 18 } else { 24 }, "normal", &what);
            }
        }
    }
    let mut x = LEFT;
    for (colour, meaning) in COLOURS {
        svg += &fill(x, end + 10, 12, 12, colour);
        svg += &say(x + 18, end + 20, "normal", meaning);
        x += 2 * WIDTH;
    }
    svg += &say(x, end + 20, "normal", "> what is sent first; = what the call returns, or an error");
    svg + "</svg>\n"
}
