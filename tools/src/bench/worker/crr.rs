//! Connect, request, response, close: netperf's TCP_CRR, and the same with a few requests more.

use std::time::Instant;

use serde_json::json;

use super::{Channel, Outcome, Params, called, pattern, report, report_port};
use crate::bench::sock;
use crate::bench::stats::Latency;

const SIZE: usize = 64;
/// Connections before the measurement; every one is new, so there is little to warm.
const WARM_UP: u64 = 200;
/// Each leaves a port in TIME-WAIT for a minute, and there are about 28,000.
const MOST: u64 = 12_000;

/// Answers the requests of one connection after the other, until it is killed.
pub(super) fn server() -> Outcome<()> {
    let (listener, port) = called("listen", sock::listen_tcp())?;
    report_port(port)?;
    let mut message = [0; SIZE];
    loop {
        let connection = called("accept", sock::accept(&listener))?;
        let channel = Channel::socket(&connection);
        while channel.recv_full(&mut message)? {
            channel.send_all(&message)?;
        }
    }
}

/// `port=N ms=N exchanges=N`.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let (port, exchanges) = (params.get("port")?, params.get("exchanges")?);
    let duration = params.duration()?;
    for number in 0..WARM_UP {
        transaction(port, number, exchanges)?;
    }
    let mut latency = Latency::new();
    let begin = Instant::now();
    let mut last = begin;
    while last.duration_since(begin) < duration && latency.count() < MOST {
        transaction(port, latency.count(), exchanges)?;
        let now = Instant::now();
        latency.record(now.duration_since(last).as_nanos() as u64);
        last = now;
    }
    let rate = latency.count() as f64 / last.duration_since(begin).as_secs_f64();
    report(&json!({ "per_s": rate, "latency": latency.to_json(), "messages": latency.count() }))
}

fn transaction(port: u16, number: u64, exchanges: u64) -> Outcome<()> {
    let connection = called("connect", sock::connect_tcp(port))?;
    let channel = Channel::socket(&connection);
    let mut message = [0; SIZE];
    for exchange in 0..exchanges {
        let stamp = number * exchanges + exchange;
        pattern::stamp(&mut message, stamp);
        channel.send_all(&message)?;
        message.fill(0);
        if !channel.recv_full(&mut message)? {
            return Err("closed without an answer".to_owned());
        }
        pattern::verify(&message, stamp)?;
    }
    Ok(())
}
