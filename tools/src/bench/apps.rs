//! Real programs, if they are installed: both ends on the kernel, then both under accel.
//!
//! Each run starts a fresh server with a configuration of its own, on a free port of 127.0.0.1.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::case::{Arm, Job, Metric, Sample};
use super::job::{Context, Failure, READY, Report, Worker, cpus, limit};
use super::side::Side;
use super::sock;
use super::spawn::Process;

/// Runs the application of the arm once.
pub(crate) fn run(arm: &Arm, context: &Context) -> Result<Sample, Failure> {
    match arm.job {
        Job::Redis { test, clients, pipeline } => redis(arm, context, test, clients, pipeline),
        Job::Memcached { clients } => memcached(arm, context, clients),
        Job::Nginx { workers } => nginx(arm, context, workers),
        _ => sockperf(arm, context),
    }
}

/// A figure that an application printed.
fn sample(figure: f64) -> Sample {
    Sample { figure, latency: None, ring: None, messages: None, loopback_packets: 0 }
}

/// The command of an installed program with the environment of `side`.
fn command(name: &str, context: &Context, side: Side) -> Result<Command, Failure> {
    let path = find(name).ok_or_else(|| Failure::Skipped(format!("{name} is not installed")))?;
    let mut command = Command::new(path);
    context.sides.apply(side, &mut command);
    Ok(command)
}

/// A program in PATH, or where packages put servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A TCP port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("bind: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| format!("port: {error}"))
}

/// Waits until a server that does not say when it is ready takes connections.
fn wait_for_port(server: &mut Process, port: u16) -> Result<(), String> {
    let deadline = Instant::now() + READY;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        server.check_alive()?;
        if Instant::now() > deadline || sock::interrupted() {
            return Err(format!("nobody listens on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Longest time of a load generator. Those with a fixed number of requests may be ten times slower than on
/// the kernel and still count as slow, not as stuck.
const LOAD: Duration = Duration::from_secs(45);

/// Runs a load generator to its end and returns what it printed.
fn output(name: &str, command: Command, cpus: &[usize]) -> Result<String, String> {
    Process::start_application(name, command, cpus)?.output(LOAD)
}

/// A folder for one server's files, removed with everything in it when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("accel-bench-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, content: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn redis(arm: &Arm, context: &Context, test: &str, clients: u32, pipeline: u32) -> Result<Sample, Failure> {
    let (client_cpus, server_cpus) = cpus(arm.place);
    let scratch = Scratch::new()?;
    let port = free_port()?;
    let mut server = command("redis-server", context, arm.server)?;
    let load = command("redis-benchmark", context, arm.client)?;
    let port_text = port.to_string();
    server.args(["--bind", "127.0.0.1", "--port", &port_text, "--daemonize", "no", "--appendonly", "no"]);
    server.args(["--save", "", "--dir"]).arg(scratch.path());
    let mut server = Process::start_application("redis-server", server, &server_cpus)?;
    server.line_with("eady to accept connections", READY)?;
    redis_store(context, arm.client, port)?;
    let value = redis_load(load, &client_cpus, port, test, clients, pipeline)?;
    server.check_alive()?;
    Ok(sample(value))
}

/// Puts the value there that GET reads.
fn redis_store(context: &Context, side: Side, port: u16) -> Result<(), Failure> {
    let mut store = command("redis-benchmark", context, side)?;
    store.args(["-h", "127.0.0.1", "-p"]).arg(port.to_string());
    store.args(["-t", "set", "-d", "64", "-n", "1", "-c", "1", "-q"]);
    output("redis-benchmark", store, &[])?;
    Ok(())
}

/// As many requests as take about half a second on the kernel: from the figures of usual machines.
fn redis_requests(clients: u32, pipeline: u32) -> u32 {
    match (clients, pipeline) {
        (1, _) => 10_000,
        (_, 1) => 50_000,
        _ => 500_000,
    }
}

fn redis_load(
    mut load: Command,
    cpus: &[usize],
    port: u16,
    test: &str,
    clients: u32,
    pipeline: u32,
) -> Result<f64, Failure> {
    let requests = redis_requests(clients, pipeline);
    load.args(["-h", "127.0.0.1", "-p"]).arg(port.to_string()).args(["-t", test, "-d", "64", "--csv"]);
    load.arg("-n").arg(requests.to_string()).arg("-c").arg(clients.to_string());
    load.arg("-P").arg(pipeline.to_string());
    let text = output("redis-benchmark", load, cpus)?;
    redis_figure(&text, test).ok_or_else(|| Failure::Failed(format!("redis-benchmark said {text:?}")))
}

/// The requests per second of one row of `redis-benchmark --csv`.
fn redis_figure(text: &str, test: &str) -> Option<f64> {
    let name = format!("\"{}\"", test.to_uppercase());
    let row = text.lines().find(|line| line.starts_with(&name))?;
    row.split(',').nth(1)?.trim_matches('"').parse().ok()
}

fn memcached(arm: &Arm, context: &Context, clients: u32) -> Result<Sample, Failure> {
    let (client_cpus, server_cpus) = cpus(arm.place);
    let port = free_port()?;
    let mut server = command("memcached", context, arm.server)?;
    server.args(["-l", "127.0.0.1", "-t", "1", "-U", "0", "-p"]).arg(port.to_string());
    if sock::is_root() {
        // It insists on being told a user then.
        server.args(["-u", "root"]);
    }
    let mut server = Process::start_application("memcached", server, &server_cpus)?;
    wait_for_port(&mut server, port)?;
    let ms = context.measure.as_millis();
    let words = [format!("port={port}"), format!("connections={clients}"), format!("ms={ms}")];
    let mut client = Worker::new("memcache-client", &words).start(context, arm.client, &client_cpus)?;
    let report = Report(client.json(limit(context))?);
    server.check_alive()?;
    Ok(report.sample(Metric::PerSecond("req"))?)
}

fn nginx_configuration(folder: &Path, port: u16, workers: u32) -> String {
    let folder = folder.display();
    // As root the workers must stay root: accel joins programs of one user only.
    let user = if sock::is_root() { "user root;" } else { "" };
    format!(
        "daemon off; {user} worker_processes {workers}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"
    )
}

fn nginx(arm: &Arm, context: &Context, workers: u32) -> Result<Sample, Failure> {
    let (client_cpus, server_cpus) = cpus(arm.place);
    let scratch = Scratch::new()?;
    let port = free_port()?;
    let mut server = command("nginx", context, arm.server)?;
    let mut load = command("wrk", context, arm.client)?;
    let www = scratch.path().join("www");
    std::fs::create_dir(&www).map_err(|error| format!("{}: {error}", www.display()))?;
    scratch.write("www/index.html", &"x".repeat(612))?;
    let file = scratch.write("nginx.conf", &nginx_configuration(scratch.path(), port, workers))?;
    server.arg("-c").arg(file).arg("-e").arg(scratch.path().join("error.log")).arg("-p").arg(scratch.path());
    let mut server = Process::start_application("nginx", server, &server_cpus)?;
    wait_for_port(&mut server, port)?;
    load.args(["-t", "1", "-c", "50", "-d", "1s"]).arg(format!("http://127.0.0.1:{port}/index.html"));
    let text = output("wrk", load, &client_cpus)?;
    server.check_alive()?;
    let figure = wrk_figure(&text).map_err(|why| format!("wrk: {why}: {text:?}"))?;
    Ok(sample(figure))
}

/// Requests per second, if every answer was a good one.
fn wrk_figure(text: &str) -> Result<f64, &'static str> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err("some requests failed");
    }
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    line.and_then(|value| value.trim().parse().ok()).ok_or("no Requests/sec")
}

fn sockperf(arm: &Arm, context: &Context) -> Result<Sample, Failure> {
    let (client_cpus, server_cpus) = cpus(arm.place);
    let port = free_port()?.to_string();
    let mut server = command("sockperf", context, arm.server)?;
    let mut load = command("sockperf", context, arm.client)?;
    let address = ["-i", "127.0.0.1", "-p", &port];
    server.args(["server", "--tcp"]).args(address);
    let mut server = Process::start_application("sockperf server", server, &server_cpus)?;
    server.line_with("[tid", READY)?;
    // Without a limit accel overruns its table of sequence numbers, and it gives up.
    load.args(["ping-pong", "--tcp"]).args(address).args(["-m", "64", "-t", "1", "--mps", "500000"]);
    let text = output("sockperf", load, &client_cpus)?;
    let figure = sockperf_figure(&text).ok_or_else(|| format!("sockperf said {text:?}"))?;
    Ok(sample(figure))
}

/// The median half round trip in nanoseconds, from the line `---> percentile 50.000 =   35.2`.
fn sockperf_figure(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("percentile 50.000"))?;
    let value: f64 = line.rsplit('=').next()?.trim().parse().ok()?;
    Some(value * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_rows_are_found_by_name() {
        let text =
            "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"1000.50\",\"0.1\"\n\"GET\",\"2000.00\",\"0.1\"\n";
        assert_eq!(redis_figure(text, "get"), Some(2000.0));
        assert_eq!(redis_figure(text, "set"), Some(1000.5));
        assert_eq!(redis_figure("", "set"), None);
    }

    #[test]
    fn wrk_must_not_have_failed_requests() {
        assert_eq!(wrk_figure("Requests/sec:  59012.34\n"), Ok(59012.34));
        assert!(wrk_figure("  Socket errors: connect 0\nRequests/sec: 5\n").is_err());
    }

    #[test]
    fn sockperf_median_is_in_microseconds() {
        assert_eq!(sockperf_figure("sockperf: ---> percentile 50.000 =   35.25\n"), Some(35_250.0));
    }
}
