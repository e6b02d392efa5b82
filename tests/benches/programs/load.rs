//! The rows: a server at the near end, its load at the far one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use harness::wire::namespace::Namespace;

use super::{ALONE, Ends, Figure, role, start};

pub(crate) const NEAR: &str = "10.0.0.1";
/// Requests of redis's row, and seconds of nginx's.
const REQUESTS: u32 = 200_000;
const SECONDS: u32 = 2;

/// The command that is measured.
pub(crate) fn accel() -> String {
    let path = std::env::var_os("ACCEL_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/accel"), PathBuf::from);
    let path =
        path.canonicalize().expect("build it first: cargo build --release --workspace, or set ACCEL_BIN");
    path.to_string_lossy().into_owned()
}

/// A server that ends with this.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: takes numbers; the child was not waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}

/// Ticks of the processor that a process and its children that live have used.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let of = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    // utime and stime, the 14th and 15th field.
    of(11)
        + of(12)
        + children.split_whitespace().filter_map(|child| child.parse().ok()).map(ticks).sum::<u64>()
}

fn microseconds(ticks: u64) -> f64 {
    // SAFETY: takes a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    ticks as f64 * 1e6 / per_second
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// This program, in a role.
pub(crate) fn own(role: &str) -> Vec<String> {
    let this = std::env::current_exe().expect("this program").to_string_lossy().into_owned();
    vec!["env".to_owned(), format!("{}={role}", role::VARIABLE), this]
}

/// What the far end says.
fn load(hosts: [&Namespace; 2], ends: Ends, command: Vec<String>) -> String {
    load_by(hosts, ends, ALONE, command)
}

pub(crate) fn load_by(hosts: [&Namespace; 2], ends: Ends, options: &[&str], command: Vec<String>) -> String {
    let mut child = start(hosts[1], ends == Ends::Both, options, command, Stdio::piped());
    let mut said = String::new();
    let _ = child.stdout.take().expect("its output").read_to_string(&mut said);
    let _ = child.wait();
    said
}

fn near(hosts: [&Namespace; 2], ends: Ends, command: Vec<String>) -> Server {
    near_by(hosts, ends, ALONE, command)
}

pub(crate) fn near_by(hosts: [&Namespace; 2], ends: Ends, options: &[&str], command: Vec<String>) -> Server {
    Server(start(hosts[0], ends != Ends::Kernel, options, command, Stdio::null()))
}

pub(crate) fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

pub(crate) fn ping_pong(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    trips(hosts, ends, ["echo", "ping"], 7001)
}

pub(crate) fn spinning(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    trips(hosts, ends, ["spin-echo", "spin-ping"], 7010)
}

pub(crate) fn udp_ping_pong(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    trips(hosts, ends, ["mirror", "toss"], 7006)
}

/// Round trips between these two roles.
fn trips(hosts: [&Namespace; 2], ends: Ends, roles: [&str; 2], port: u16) -> Option<Figure> {
    let _server = near(hosts, ends, own(&format!("{} {port}", roles[0])));
    let said = numbers(&load(hosts, ends, own(&format!("{} {NEAR} {port}", roles[1]))));
    let [p50, p99] = said[..] else { return None };
    Some(Figure { value: p50 / 1000.0, p99: Some(p99 / 1000.0), cpu_us: None })
}

pub(crate) fn connects(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    // The client closes first. What it keeps for a minute of each connection would use up its ports, and what was measured then would be
    // the search for a free one.
    hosts[1].set("net/ipv4/tcp_max_tw_buckets", "0");
    let _server = near(hosts, ends, own("echo 7002"));
    let client = own(&format!("connects {NEAR} 7002"));
    let options = [ALONE, &["-o", "client_ports=4096"]].concat();
    let said = numbers(&load_by(hosts, ends, &options, client));
    Some(Figure { value: said.first()? / 1000.0, p99: None, cpu_us: None })
}

fn bulk(hosts: [&Namespace; 2], ends: Ends, server: &str, client: &str) -> Option<Figure> {
    let _server = near(hosts, ends, own(server));
    let said = numbers(&load(hosts, ends, own(client)));
    Some(Figure { value: *said.first()?, p99: None, cpu_us: None })
}

pub(crate) fn bulk_in(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    bulk(hosts, ends, "sink 7003", &format!("flood {NEAR} 7003"))
}

pub(crate) fn bulk_out(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    bulk(hosts, ends, "source 7006", &format!("drain {NEAR} 7006"))
}

pub(crate) fn redis(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    let server =
        near(hosts, ends, words("redis-server --port 7004 --bind 0.0.0.0 --protected-mode no --save"));
    // It answers when it has started.
    let answers = || load(hosts, Ends::Kernel, words(&format!("redis-cli -h {NEAR} -p 7004 ping")));
    (0..200).find(|_| answers().contains("PONG"))?;
    let before = ticks(server.0.id());
    let command = format!("redis-benchmark -h {NEAR} -p 7004 -t get -c 50 -n {REQUESTS} --csv");
    let said = load(hosts, ends, words(&command));
    let used = microseconds(ticks(server.0.id()) - before);
    let row = said.lines().find(|line| line.starts_with("\"GET\""))?;
    let fields: Vec<f64> = row.split(',').filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let cpu_us = Some(used / f64::from(REQUESTS));
    // Requests a second; milliseconds: average, least, p50, p95, p99, most.
    Some(Figure { value: fields.first()? / 1000.0, p99: None, cpu_us })
}

/// Behind the line that says where its number is: a file that it removes at its end.
const NGINX: &str = "daemon off; worker_processes 1; error_log /dev/null; user root;
events { worker_connections 1024; }
http { access_log off; server { listen 7005; return 200 \"hello\\n\"; } }
";

pub(crate) fn nginx(hosts: [&Namespace; 2], ends: Ends) -> Option<Figure> {
    let file = std::env::temp_dir().join(format!("accel-bench-{}.conf", std::process::id()));
    fs::write(&file, format!("pid {};\n{NGINX}", file.with_extension("pid").display())).ok()?;
    let server = near(hosts, ends, vec!["nginx".into(), "-c".into(), file.to_string_lossy().into_owned()]);
    let answers = || load(hosts, Ends::Kernel, words(&format!("curl -s -m 1 http://{NEAR}:7005/")));
    let is_there = (0..200).any(|_| answers().contains("hello"));
    let _ = fs::remove_file(&file);
    if !is_there {
        return None;
    }
    let before = ticks(server.0.id());
    let said = load(hosts, ends, words(&format!("wrk -t 1 -c 50 -d {SECONDS} http://{NEAR}:7005/")));
    let used = microseconds(ticks(server.0.id()) - before);
    let value_of = |name: &str| {
        let line = said.lines().find(|line| line.contains(name))?;
        numbers(&line.replace(name, "")).first().copied()
    };
    let (rate, all) = (value_of("Requests/sec:")?, value_of(" requests in")?);
    Some(Figure { value: rate / 1000.0, p99: None, cpu_us: Some(used / all) })
}
