//! A small load generator for memcached: `get` of one 64-byte value over N connections, one request each.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Channel, Outcome, Params, again, called, report};
use crate::bench::sock::{self, Epoll};
use crate::bench::stats::Latency;

const REQUEST: &[u8] = b"get accel-bench-key\r\n";
const HEAD: &str = "VALUE accel-bench-key 0 64\r\n";

struct Connection {
    fd: OwnedFd,
    reply: Vec<u8>,
    filled: usize,
    sent_at: Instant,
}

/// `port=N connections=N ms=N`.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let port = params.get("port")?;
    let expected = format!("{HEAD}{}\r\nEND\r\n", "v".repeat(64)).into_bytes();
    store(port)?;
    let mut epoll = called("epoll_create1", Epoll::new())?;
    let mut connections = Vec::new();
    for index in 0..params.get::<u64>("connections")? {
        let fd = called("connect", sock::connect_tcp(port))?;
        called("TCP_NODELAY", sock::set_nodelay(&fd))?;
        called("O_NONBLOCK", sock::set_nonblocking(&fd))?;
        called("epoll_ctl", epoll.add(&fd, index))?;
        let reply = vec![0; expected.len()];
        connections.push(Connection { fd, reply, filled: 0, sent_at: Instant::now() });
    }
    run(&mut epoll, &mut connections, &expected, Duration::from_millis(300))?;
    let (latency, elapsed) = run(&mut epoll, &mut connections, &expected, params.duration()?)?;
    report(&json!({
        "per_s": latency.count() as f64 / elapsed.as_secs_f64(),
        "latency": latency.to_json(),
        "messages": latency.count(),
    }))
}

/// Puts the value there.
fn store(port: u16) -> Outcome<()> {
    let fd = called("connect", sock::connect_tcp(port))?;
    let channel = Channel::socket(&fd);
    channel.send_all(format!("set accel-bench-key 0 0 64\r\n{}\r\n", "v".repeat(64)).as_bytes())?;
    let mut answer = [0; 8];
    channel.recv_full(&mut answer)?;
    if &answer == b"STORED\r\n" { Ok(()) } else { Err("memcached did not store the value".to_owned()) }
}

/// Requests for `duration`; every request is answered before it returns.
fn run(
    epoll: &mut Epoll,
    connections: &mut [Connection],
    expected: &[u8],
    duration: Duration,
) -> Outcome<(Latency, Duration)> {
    let mut latency = Latency::new();
    let begin = Instant::now();
    for connection in connections.iter_mut() {
        connection.ask()?;
    }
    let mut waiting = connections.len();
    while waiting > 0 {
        let count = match epoll.wait(-1) {
            Ok(count) => count,
            Err(error) if again(&error) => 0,
            Err(error) => return Err(format!("epoll_wait: {error}")),
        };
        for index in 0..count {
            let connection = &mut connections[epoll.token(index) as usize];
            if !connection.receive(expected)? {
                continue;
            }
            let now = Instant::now();
            latency.record(now.duration_since(connection.sent_at).as_nanos() as u64);
            if now.duration_since(begin) < duration {
                connection.ask()?;
            } else {
                waiting -= 1;
            }
        }
    }
    Ok((latency, begin.elapsed()))
}

impl Connection {
    fn ask(&mut self) -> Outcome<()> {
        self.filled = 0;
        self.sent_at = Instant::now();
        Channel::socket(&self.fd).send_all(REQUEST)
    }

    fn receive(&mut self, expected: &[u8]) -> Outcome<bool> {
        match sock::recv(self.fd.as_raw_fd(), &mut self.reply[self.filled..]) {
            Ok(0) => return Err("memcached closed the connection".to_owned()),
            Ok(count) => self.filled += count,
            Err(error) if again(&error) => return Ok(false),
            Err(error) => return Err(format!("recv: {error}")),
        }
        if self.filled < self.reply.len() {
            return Ok(false);
        }
        if self.reply == expected { Ok(true) } else { Err("DATA CORRUPTED: not the stored value".to_owned()) }
    }
}
