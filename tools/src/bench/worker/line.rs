//! The floor: two threads bounce one cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Outcome, Params, called, report};
use crate::bench::sock;
use crate::bench::stats::Latency;

#[repr(align(128))]
struct Line(AtomicU64);

/// Round trips per reading of the clock.
const BATCH: u64 = 200;
const END: u64 = u64::MAX;

/// `client=CPU server=CPU ms=N`: odd values are the client's, even ones the server's answers.
pub(super) fn run(params: &Params) -> Outcome<()> {
    let (client, server): (usize, usize) = (params.get("client")?, params.get("server")?);
    let duration = params.duration()?;
    let line = Line(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let pinned = called("pin", sock::pin(server));
            answer(&line);
            pinned
        });
        let pinned = called("pin", sock::pin(client));
        let latency = ask(&line, duration);
        line.0.store(END, Ordering::Release);
        answering.join().map_err(|_| "the other thread failed".to_owned())??;
        pinned?;
        report(&json!({ "latency": latency.to_json(), "messages": latency.count() * BATCH }))
    })
}

fn ask(line: &Line, duration: Duration) -> Latency {
    let mut latency = Latency::new();
    let mut value = 0;
    let begin = Instant::now();
    while begin.elapsed() < duration || latency.count() < 10 {
        let start = Instant::now();
        for _ in 0..BATCH {
            line.0.store(value + 1, Ordering::Release);
            value += 2;
            while line.0.load(Ordering::Acquire) != value {}
        }
        latency.record((start.elapsed().as_nanos() as u64).div_ceil(BATCH));
    }
    latency
}

fn answer(line: &Line) {
    let mut value = 1;
    loop {
        match line.0.load(Ordering::Acquire) {
            END => return,
            seen if seen == value => {
                line.0.store(value + 1, Ordering::Release);
                value += 2;
            }
            _ => {}
        }
    }
}
