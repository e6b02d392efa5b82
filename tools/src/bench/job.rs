//! Runs one arm once: starts its processes, takes their report, ends them.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::apps;
use super::case::{Arm, Job, Metric, Place, Sample};
use super::side::{Side, Sides};
use super::sock;
use super::spawn::Process;
use super::stats::Latency;

/// A server listens, or an application starts, within this time.
pub(crate) const READY: Duration = Duration::from_secs(10);
/// What connecting, warming up and calibrating may take besides the measurement.
const SLACK: Duration = Duration::from_secs(12);
/// How long the idle server is watched.
const IDLE: Duration = Duration::from_secs(2);

/// What all runs share.
pub(crate) struct Context {
    pub(crate) sides: Sides,
    /// How long one run measures.
    pub(crate) measure: Duration,
}

/// Why an arm gave no figure.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It cannot run on this machine: a missing program, a limit.
    Skipped(String),
    /// It went wrong.
    Failed(String),
}

impl Failure {
    /// Whether it is the machine's fault.
    pub(crate) fn is_skip(&self) -> bool {
        matches!(self, Self::Skipped(_))
    }

    /// The reason in words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Skipped(why) => format!("skipped: {why}"),
            Self::Failed(why) => format!("FAILED: {why}"),
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// Seconds that a run of the job takes, roughly: for the progress line.
pub(crate) fn estimate(job: &Job, measure: Duration) -> f64 {
    let measure = measure.as_secs_f64();
    match job {
        Job::Idle { .. } => IDLE.as_secs_f64() + 0.4,
        Job::Many { connections, .. } => measure + 0.3 + *connections as f64 * 60e-6,
        Job::Redis { .. } => 1.0,
        Job::Nginx { .. } | Job::Sockperf => 1.6,
        Job::Memcached { .. } => measure + 0.6,
        _ => measure + 0.3,
    }
}

/// Runs the arm once and takes the figure that `metric` speaks of.
pub(crate) fn run(arm: &Arm, metric: Metric, context: &Context) -> Result<Sample, Failure> {
    if let (Job::PingPong { client: "spin", .. }, Place::Cpus(client, server)) = (&arm.job, arm.place)
        && client == server
    {
        return Err(Failure::Skipped("two programs that spin need two processors".to_owned()));
    }
    let before = loopback_packets();
    let mut sample = match &arm.job {
        Job::Line => alone(arm, context, "line", &[])?.sample(metric)?,
        Job::Pair { transport, size } => {
            let words = [format!("transport={transport}"), format!("size={size}")];
            alone(arm, context, "pair", &words)?.sample(metric)?
        }
        Job::Passthrough { what } => {
            alone(arm, context, "passthrough", &[format!("what={what}")])?.sample(metric)?
        }
        Job::PingPong { server, client, size } => {
            let size = format!("size={size}");
            let server = Worker::new("echo-server", &[size.clone(), format!("mode={server}")]);
            let client = Worker::new("pingpong-client", &[size, format!("mode={client}")]);
            two_ends(arm, context, server, client, Teller::Client)?.sample(metric)?
        }
        Job::Stream { size } => {
            let size = [format!("size={size}")];
            let (server, client) = (Worker::new("sink-server", &size), Worker::new("stream-client", &size));
            two_ends(arm, context, server, client, Teller::Server)?.sample(metric)?
        }
        Job::Crr { exchanges } => {
            let words = [format!("exchanges={exchanges}")];
            let (server, client) = (Worker::new("crr-server", &[]), Worker::new("crr-client", &words));
            two_ends(arm, context, server, client, Teller::Client)?.sample(metric)?
        }
        Job::Many { connections, active } => {
            let (server, client) = crowd(*connections, *active, false)?;
            two_ends(arm, context, server, client, Teller::Client)?.sample(metric)?
        }
        Job::Idle { connections } => idle(arm, context, *connections)?,
        Job::Redis { .. } | Job::Memcached { .. } | Job::Nginx { .. } | Job::Sockperf => {
            apps::run(arm, context)?
        }
    };
    sample.loopback_packets = loopback_packets().saturating_sub(before);
    Ok(sample)
}

/// A role of the hidden command line and its arguments.
pub(crate) struct Worker {
    role: &'static str,
    words: Vec<String>,
}

impl Worker {
    /// The worker of that role.
    pub(crate) fn new(role: &'static str, words: &[String]) -> Self {
        Self { role, words: words.to_vec() }
    }

    fn with(mut self, word: String) -> Self {
        self.words.push(word);
        self
    }

    /// Starts it on `side`, tied to `cpus`.
    pub(crate) fn start(self, context: &Context, side: Side, cpus: &[usize]) -> Result<Process, String> {
        Process::start(self.role, self.command(context, side)?, cpus)
    }

    /// The command line, which is also what callgrind gets.
    pub(crate) fn command(self, context: &Context, side: Side) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| format!("current program: {error}"))?;
        let mut command = Command::new(program);
        let limit = (limit(context) + SLACK).as_secs();
        command.args(["bench", "worker", self.role]).args(self.words).arg(format!("limit={limit}"));
        context.sides.apply(side, &mut command);
        Ok(command)
    }
}

/// A worker's result line.
pub(crate) struct Report(pub(crate) Value);

impl Report {
    fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    /// The figure that the metric asks for, with what else the worker told.
    pub(crate) fn sample(&self, metric: Metric) -> Result<Sample, String> {
        let latency = self.0.get("latency").and_then(Latency::from_json);
        let figure = match metric {
            Metric::LatencyNs => latency.as_ref().map(|latency| latency.at(50.0)),
            Metric::CostNs => self.number("per_s").map(|rate| 1e9 / rate),
            Metric::BytesPerSecond => self.number("bytes_per_s"),
            Metric::PerSecond(_) => self.number("per_s").or_else(|| self.number("messages_per_s")),
            Metric::CpuMs => self.number("cpu_ms"),
        };
        Ok(Sample {
            figure: figure.ok_or_else(|| format!("the worker reported {}", self.0))?,
            latency,
            ring: self.number("ring"),
            messages: self.number("messages"),
            loopback_packets: 0,
        })
    }
}

/// Longest time that a run may take before it counts as stuck.
pub(crate) fn limit(context: &Context) -> Duration {
    context.measure * 4 + SLACK
}

fn milliseconds(context: &Context) -> String {
    format!("ms={}", context.measure.as_millis())
}

/// The processors of client and server; none: free.
pub(crate) fn cpus(place: Place) -> (Vec<usize>, Vec<usize>) {
    match place {
        Place::Cpus(client, server) => (vec![client], vec![server]),
        Place::Free => (Vec::new(), Vec::new()),
    }
}

/// A worker that needs no other. It gets both processors by name, to place its own halves.
fn alone(arm: &Arm, context: &Context, role: &'static str, words: &[String]) -> Result<Report, String> {
    let mut worker = Worker::new(role, words).with(milliseconds(context));
    let mut start_on = Vec::new();
    if let Place::Cpus(client, server) = arm.place {
        worker = worker.with(format!("client={client}")).with(format!("server={server}"));
        start_on = vec![client, server];
        if matches!(arm.job, Job::Passthrough { .. }) {
            start_on.truncate(1);
        }
    }
    let mut process = worker.start(context, arm.client, &start_on)?;
    process.json(limit(context)).map(Report)
}

/// The end that measures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Teller {
    Client,
    Server,
}

/// Server, then client; the report of one of them.
fn two_ends(
    arm: &Arm,
    context: &Context,
    server: Worker,
    client: Worker,
    teller: Teller,
) -> Result<Report, String> {
    let (client_cpus, server_cpus) = cpus(arm.place);
    let mut server = server.with(milliseconds(context)).start(context, arm.server, &server_cpus)?;
    let port = port(&mut server)?;
    let client = client.with(format!("port={port}")).with(milliseconds(context));
    let mut client = client.start(context, arm.client, &client_cpus)?;
    let (teller, other) = match teller {
        Teller::Client => (&mut client, &mut server),
        Teller::Server => (&mut server, &mut client),
    };
    teller.json(limit(context)).map(Report).map_err(|message| with_other_end(message, other))
}

/// Of two ends that fail together, the other may know why.
fn with_other_end(message: String, other: &mut Process) -> String {
    match other.check_alive() {
        Ok(()) => message,
        Err(why) => format!("{message}; {why}"),
    }
}

/// Waits for the server's first line.
fn port(server: &mut Process) -> Result<u64, String> {
    let ready = server.json(READY)?;
    ready.get("port").and_then(Value::as_u64).ok_or_else(|| format!("the server said {ready}"))
}

/// An epoll server and the client that holds many connections to it.
fn crowd(connections: usize, active: usize, idle: bool) -> Result<(Worker, Worker), Failure> {
    let files = connections + 64;
    sock::raise_open_files(files as u64).map_err(Failure::Skipped)?;
    let size = "size=64".to_owned();
    let server =
        Worker::new("echo-server", &[size.clone(), "mode=epoll".to_owned(), format!("files={files}")]);
    let words = [size, format!("connections={connections}"), format!("active={active}")];
    Ok((server, Worker::new("many-client", &words).with(format!("idle={}", u8::from(idle)))))
}

/// Processor time of a server whose clients have said all they had to say.
fn idle(arm: &Arm, context: &Context, connections: usize) -> Result<Sample, Failure> {
    let (server, client) = crowd(connections, connections, true)?;
    let (client_cpus, server_cpus) = cpus(arm.place);
    let mut server = server.start(context, arm.server, &server_cpus)?;
    let port = port(&mut server)?;
    let client = client.with(format!("port={port}")).with(milliseconds(context));
    let mut client = client.start(context, arm.client, &client_cpus)?;
    client.json(READY).map_err(|message| with_other_end(message, &mut server))?;
    let before = server.cpu_time().map_err(Failure::Skipped)?;
    let end = Instant::now() + IDLE;
    while Instant::now() < end {
        if sock::interrupted() {
            return Err(Failure::Failed("interrupted".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    server.check_alive()?;
    let used = server.cpu_time().map_err(Failure::Skipped)?.saturating_sub(before);
    let figure = used.as_secs_f64() * 1e3;
    Ok(Sample { figure, latency: None, ring: None, messages: None, loopback_packets: 0 })
}

/// Packets that the loopback interface has carried since boot.
fn loopback_packets() -> u64 {
    let read = std::fs::read_to_string("/sys/class/net/lo/statistics/tx_packets");
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
