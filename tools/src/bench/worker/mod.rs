//! The programs that are measured: hidden subcommands of `accel`, each a process of its own.
//!
//! `accel bench worker ROLE KEY=VALUE …` does one thing with plain libc calls and reports lines of JSON on
//! standard output. A server's first line is `{"port": N}`: it is listening. The end that measures
//! tells its result in its last line. The same code runs with and without libaccel.so; it does not know which.

mod crr;
mod echo;
mod line;
mod many;
mod memcache;
mod passthrough;
mod pattern;
mod pingpong;
mod selfloop;
mod stream;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::sock;

/// Messages before the measurement, so that the connection has found its path.
pub(crate) const WARM_UP: u64 = 2_000;
/// The warm-up ends after this time even if messages are missing.
const WARM_UP_LONGEST: Duration = Duration::from_secs(2);

/// What goes wrong in a worker: told to the parent on standard error.
pub(crate) type Outcome<T> = Result<T, String>;

/// The `KEY=VALUE` arguments of a worker.
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    fn parse(words: &[String]) -> Outcome<Self> {
        let pair = |word: &String| {
            let (key, value) = word.split_once('=').ok_or(format!("{word}: expected KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        words.iter().map(pair).collect::<Outcome<_>>().map(Self)
    }

    /// The value of `key`, which must be there.
    pub(crate) fn get<T: FromStr>(&self, key: &str) -> Outcome<T> {
        let text = self.0.get(key).ok_or(format!("worker: {key}= is missing"))?;
        text.parse().map_err(|_| format!("worker: {key}={text} cannot be read"))
    }

    /// How long to measure.
    fn duration(&self) -> Outcome<Duration> {
        self.get("ms").map(Duration::from_millis)
    }
}

/// Runs the worker that the hidden command line names.
pub(crate) fn run(role: &str, words: &[String]) -> ExitCode {
    let outcome = Params::parse(words).and_then(|params| {
        sock::alarm(params.get("limit").unwrap_or(60));
        dispatch(role, &params)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{role}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(role: &str, params: &Params) -> Outcome<()> {
    match role {
        "echo-server" => echo::server(params),
        "pingpong-client" => pingpong::client(params),
        "pair" => pingpong::pair(params),
        "sink-server" => stream::server(params),
        "stream-client" => stream::client(params),
        "crr-server" => crr::server(),
        "crr-client" => crr::client(params),
        "many-client" => many::client(params),
        "memcache-client" => memcache::client(params),
        "passthrough" => passthrough::run(params),
        "selfloop" => selfloop::run(params),
        "line" => line::run(params),
        _ => Err("no such worker".to_owned()),
    }
}

/// Tells the parent something: one line of JSON.
fn report(value: &Value) -> Outcome<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

/// Tells the parent that the server listens.
fn report_port(port: u16) -> Outcome<()> {
    report(&json!({ "port": port }))
}

/// Puts the name of a call before its error.
fn called<T>(call: &str, result: io::Result<T>) -> Outcome<T> {
    result.map_err(|error| format!("{call}: {error}"))
}

/// One end of a byte stream, and the calls that serve it.
#[derive(Clone, Copy)]
struct Channel {
    input: RawFd,
    output: RawFd,
    is_socket: bool,
}

impl Channel {
    /// A connected socket: `send` and `recv`.
    fn socket(fd: &OwnedFd) -> Self {
        Self { input: fd.as_raw_fd(), output: fd.as_raw_fd(), is_socket: true }
    }

    /// A pair of pipes: `read` and `write`.
    fn pipes(input: &OwnedFd, output: &OwnedFd) -> Self {
        Self { input: input.as_raw_fd(), output: output.as_raw_fd(), is_socket: false }
    }

    /// Sends all of `bytes`; tries again at once where the descriptor is non-blocking and full.
    fn send_all(self, bytes: &[u8]) -> Outcome<()> {
        called("send", self.send_whole(bytes))
    }

    /// As [`Channel::send_all`], with the error as it came.
    fn send_whole(self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match self.is_socket {
                true => sock::send(self.output, bytes),
                false => sock::write(self.output, bytes),
            };
            match sent {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `bytes`, spinning where the descriptor is non-blocking; false at a clean end of the stream.
    fn recv_full(self, bytes: &mut [u8]) -> Outcome<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            let room = &mut bytes[filled..];
            let received = match self.is_socket {
                true => sock::recv(self.input, room),
                false => sock::read(self.input, room),
            };
            match received {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err("recv: end of the stream inside a message".to_owned()),
                Ok(count) => filled += count,
                Err(error) if again(&error) => {}
                Err(error) => return Err(format!("recv: {error}")),
            }
        }
        Ok(true)
    }
}

/// Whether the call is simply to be made again.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Share of a connection's bytes (0 to 1) that did not travel through the kernel's TCP; `None` if unknown.
fn ring_share(fd: &OwnedFd, sent: u64, received: u64) -> Option<f64> {
    let (kernel_sent, kernel_received) = sock::kernel_tcp_bytes(fd.as_raw_fd())?;
    let all = sent + received;
    let by_kernel = kernel_sent + kernel_received;
    (all > 0).then(|| 1.0 - (by_kernel as f64 / all as f64).min(1.0))
}

/// Repeats `step` for the warm-up: [`WARM_UP`] times or two seconds.
fn warm_up(mut step: impl FnMut() -> Outcome<()>) -> Outcome<u64> {
    let start = Instant::now();
    for done in 0..WARM_UP {
        step()?;
        if start.elapsed() > WARM_UP_LONGEST {
            return Ok(done + 1);
        }
    }
    Ok(WARM_UP)
}
