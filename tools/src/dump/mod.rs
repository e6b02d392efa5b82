//! `accel dump`: the packets of our stack, as tcpdump shows the kernel's, which never sees these.
//!
//! | module | what |
//! |---|---|
//! | [`source`] | which stacks there are, and their packets |
//! | [`packet`] | what a packet is, and the line that is printed of it |
//! | [`filter`] | which packets are wanted |
//! | [`capture`] | pcapng |

mod capture;
mod filter;
mod packet;
mod source;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver::clock::monotonic_ns;

use crate::launch::say;
use crate::refusal::Refusal;
use crate::sys;
use capture::Capture;
use filter::Filter;
use packet::Packet;
use source::{Source, Taken};

/// Between two looks at the rings.
const LOOK_MS: u32 = 5;
/// What is wanted for longer than this was wanted by a dump that was killed.
const WANTED: Duration = Duration::from_secs(2);
/// Looks between two at whether anybody is left whose packets these are.
const LOOKS: u32 = 100;
/// Bytes of the largest packet.
const BYTES_MAX: usize = 1 << 17;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// One process's packets.
    pub pid: Option<i32>,
    /// Those of one interface.
    pub interface: Option<String>,
    /// Where to: `-` is standard output. Lines of text without it.
    pub file: Option<String>,
    /// Bytes of each packet.
    pub snap: u32,
    /// How many packets.
    pub count: Option<u64>,
    /// Words of the filter.
    pub filter: Vec<String>,
}

/// Where packets go.
enum Sink {
    Lines(BufWriter<std::io::Stdout>),
    File(Capture),
}

/// Shows packets until a signal, so many, or the end of all programs whose packets these are.
pub(crate) fn run(request: &Request) -> Result<ExitCode, Refusal> {
    let filter = Filter::parse(&request.filter)?;
    let sources = source::find(request.pid, request.interface.as_deref())?;
    let sink = sink(request, &sources)?;
    sys::hold_signals();
    want(&sources, request.snap);
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    say(&format!("accel: packets on {}; end it by ^C.", names.join(", ")));
    Dump { request, filter, sources, sink, shown: 0, lost: 0 }.run()
}

fn sink(request: &Request, sources: &[Source]) -> Result<Sink, Refusal> {
    let Some(name) = &request.file else { return Ok(Sink::Lines(BufWriter::new(std::io::stdout()))) };
    let to: Box<dyn Write> = if name == "-" {
        if std::io::stdout().is_terminal() {
            return Err(Refusal::usage("-w -: standard output is a terminal; write `-w FILE`, or pipe it."));
        }
        Box::new(std::io::stdout())
    } else {
        let file = File::create(name);
        Box::new(BufWriter::new(file.map_err(|error| Refusal::with(1, format!("-w {name}: {error}.")))?))
    };
    Capture::new(to, sources.iter().map(|source| source.name.as_str()), request.snap)
        .map(Sink::File)
        .map_err(|error| unwritten(&error))
}

fn unwritten(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::with(1, format!("the packets could not be written: {error}."))
}

/// What CLOCK_REALTIME is ahead of the clock of the packets.
fn ahead() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(monotonic_ns()))
}

/// A dump under way.
struct Dump<'r> {
    request: &'r Request,
    filter: Filter,
    sources: Vec<Source>,
    sink: Sink,
    shown: u64,
    lost: u64,
}

impl Dump<'_> {
    fn run(mut self) -> Result<ExitCode, Refusal> {
        let most = self.request.count.unwrap_or(u64::MAX);
        let mut is_over = false;
        for turn in 0u32.. {
            want(&self.sources, self.request.snap);
            // What came until the end is shown, too.
            let is_last = is_over || turn % LOOKS == LOOKS - 1 && !self.sources.iter().any(Source::is_alive);
            self.look(most)?;
            self.flush()?;
            if is_last || self.shown >= most {
                break;
            }
            is_over = sys::wait_signal(LOOK_MS).is_some_and(|(signal, _)| signal != libc::SIGCHLD);
        }
        let lost = if self.lost == 0 {
            String::new()
        } else {
            format!("; {} times packets came faster than they were read, and some are missing", self.lost)
        };
        say(&format!("accel: {} packets{lost}.", self.shown));
        Ok(ExitCode::SUCCESS)
    }

    /// Shows what has come.
    fn look(&mut self, most: u64) -> Result<(), Refusal> {
        let (ahead, mut bytes) = (ahead(), vec![0; BYTES_MAX]);
        for at in 0..self.sources.len() {
            self.sources[at].begin_look();
            while self.shown < most {
                match self.sources[at].take(&mut bytes) {
                    Taken::Nothing => break,
                    Taken::Lost => self.lost += 1,
                    Taken::Packet(seen) => {
                        let captured = &bytes[..seen.captured as usize];
                        let packet = Packet::of(captured, seen.is_sent);
                        if self.filter.holds(&packet) && self.sources[at].is_wanted(&packet) {
                            let when = ahead + Duration::from_nanos(seen.at);
                            self.show(at, when, seen.len, captured, &packet)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn show(
        &mut self,
        source: usize,
        when: Duration,
        len: u32,
        bytes: &[u8],
        packet: &Packet,
    ) -> Result<(), Refusal> {
        self.shown += 1;
        match &mut self.sink {
            Sink::Lines(to) => writeln!(to, "{} {} {packet}", time(when), self.sources[source].name)
                .map_err(|error| unwritten(&error)),
            Sink::File(capture) => capture
                .write(source as u32, when, len, bytes, packet.is_sent)
                .map_err(|error| unwritten(&error)),
        }
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        match &mut self.sink {
            Sink::Lines(to) => to.flush(),
            Sink::File(capture) => capture.flush(),
        }
        .map_err(|error| unwritten(&error))
    }
}

/// Wants packets for a while.
fn want(sources: &[Source], snap: u32) {
    let until = monotonic_ns() + WANTED.as_nanos() as u64;
    sources.iter().for_each(|source| source.want(until, snap));
}

/// The time of day, of UTC.
fn time(when: Duration) -> String {
    let day = when.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:09}", day / 3600, day / 60 % 60, day % 60, when.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_day() {
        assert_eq!(time(Duration::new(86_400 * 20_000 + 3_661, 7)), "01:01:01.000000007");
    }
}
