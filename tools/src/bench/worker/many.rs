//! Many connections, some of them busy: a closed loop over epoll, as a load generator does.
//!
//! Each busy connection has one request on its way at any time. With `idle=1` the worker stops after the
//! warm-up and holds its connections open, so that the parent can see what idleness costs.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Channel, Outcome, Params, WARM_UP, again, called, pattern, report, ring_share};
use crate::bench::sock::{self, Epoll};
use crate::bench::stats::Latency;

struct Busy {
    fd: OwnedFd,
    message: Vec<u8>,
    filled: usize,
    number: u64,
    sent_at: Instant,
}

/// `port=N connections=N active=N size=BYTES ms=N idle=0|1`.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let connections: usize = params.get("connections")?;
    sock::raise_open_files(connections as u64 + 64)?;
    let mut load = Load::open(params, connections)?;
    if params.get::<u8>("idle")? == 1 {
        load.run(Duration::from_secs(5), WARM_UP)?;
        report(&json!({ "idle": true }))?;
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
    load.run(Duration::from_secs(2), WARM_UP)?;
    load.latency = Latency::new();
    let elapsed = load.run(params.duration()?, u64::MAX)?;
    let requests = load.latency.count();
    let first = &load.busy[0];
    let bytes = first.number * first.message.len() as u64;
    report(&json!({
        "per_s": requests as f64 / elapsed.as_secs_f64(),
        "latency": load.latency.to_json(),
        "messages": requests,
        "ring": ring_share(&first.fd, bytes, bytes),
    }))?;
    load.end()
}

struct Load {
    epoll: Epoll,
    busy: Vec<Busy>,
    quiet: Vec<OwnedFd>,
    latency: Latency,
}

impl Load {
    /// Connects them all; the busy ones are spread evenly over the quiet ones.
    fn open(params: &Params, connections: usize) -> Outcome<Self> {
        let port = params.get("port")?;
        let size: usize = params.get("size")?;
        let active: usize = params.get::<usize>("active")?.clamp(1, connections);
        let epoll = called("epoll_create1", Epoll::new())?;
        let (mut busy, mut quiet) = (Vec::new(), Vec::new());
        for index in 0..connections {
            let fd = called("connect", sock::connect_tcp(port))?;
            called("TCP_NODELAY", sock::set_nodelay(&fd))?;
            called("O_NONBLOCK", sock::set_nonblocking(&fd))?;
            let is_busy = index * active / connections != (index + 1) * active / connections;
            let token = if is_busy { busy.len() as u64 } else { u64::MAX };
            called("epoll_ctl", epoll.add(&fd, token))?;
            match is_busy {
                true => busy.push(Busy {
                    fd,
                    message: vec![0; size],
                    filled: 0,
                    number: 0,
                    sent_at: Instant::now(),
                }),
                false => quiet.push(fd),
            }
        }
        Ok(Self { epoll, busy, quiet, latency: Latency::new() })
    }

    /// Requests on all busy connections, until the time or the number is reached and all are answered.
    fn run(&mut self, duration: Duration, most: u64) -> Outcome<Duration> {
        let begin = Instant::now();
        let mut started = self.busy.len() as u64;
        let mut waiting = self.busy.len();
        for busy in &mut self.busy {
            busy.send()?;
        }
        while waiting > 0 {
            let count = match self.epoll.wait(-1) {
                Ok(count) => count,
                Err(error) if again(&error) => 0,
                Err(error) => return Err(format!("epoll_wait: {error}")),
            };
            for index in 0..count {
                let Some(busy) = self.busy.get_mut(self.epoll.token(index) as usize) else {
                    return Err("a quiet connection became readable".to_owned());
                };
                if !busy.receive()? {
                    continue;
                }
                let now = Instant::now();
                self.latency.record(now.duration_since(busy.sent_at).as_nanos() as u64);
                if now.duration_since(begin) < duration && started < most {
                    busy.send()?;
                    started += 1;
                } else {
                    waiting -= 1;
                }
            }
        }
        Ok(begin.elapsed())
    }
}

impl Load {
    /// Resets the connections: thousands in TIME-WAIT would slow the runs that follow.
    fn end(self) -> Outcome<()> {
        let busy = self.busy.iter().map(|busy| &busy.fd);
        for fd in self.quiet.iter().chain(busy) {
            called("SO_LINGER", sock::set_reset_on_close(fd))?;
        }
        Ok(())
    }
}

impl Busy {
    fn send(&mut self) -> Outcome<()> {
        pattern::stamp(&mut self.message, self.number);
        self.sent_at = Instant::now();
        Channel::socket(&self.fd).send_all(&self.message)?;
        self.message.fill(0);
        self.filled = 0;
        Ok(())
    }

    /// One `recv`; true when the answer is whole and right.
    fn receive(&mut self) -> Outcome<bool> {
        match sock::recv(self.fd.as_raw_fd(), &mut self.message[self.filled..]) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(count) => self.filled += count,
            Err(error) if again(&error) => return Ok(false),
            Err(error) => return Err(format!("recv: {error}")),
        }
        let whole = self.filled == self.message.len();
        if whole {
            pattern::verify(&self.message, self.number)?;
            self.number += 1;
        }
        Ok(whole)
    }
}
