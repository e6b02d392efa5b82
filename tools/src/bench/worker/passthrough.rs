//! Calls that accel does not carry: what does being asked cost?

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use serde_json::json;

use super::{Outcome, Params, called, report};
use crate::bench::sock;
use crate::bench::stats::Latency;

/// Calls per reading of the clock.
const BATCH: u64 = 200;

/// `what=read-zero|write-null|pread-file|pwrite-file|udp-self ms=N`: nanoseconds per call (udp-self: per send and recv).
pub(super) fn run(params: &Params) -> Outcome<()> {
    let what: String = params.get("what")?;
    let mut bytes = [7; 64];
    match what.as_str() {
        "read-zero" => {
            let fd = OwnedFd::from(called("/dev/zero", File::open("/dev/zero"))?);
            measure(params, || called("read", sock::read(fd.as_raw_fd(), &mut bytes)))
        }
        "write-null" => {
            let null = called("/dev/null", OpenOptions::new().write(true).open("/dev/null"))?;
            let fd = OwnedFd::from(null);
            measure(params, || called("write", sock::write(fd.as_raw_fd(), &bytes)))
        }
        "pread-file" => {
            let fd = small_file()?;
            measure(params, || called("pread", sock::pread(fd.as_raw_fd(), &mut bytes)))
        }
        "pwrite-file" => {
            let fd = small_file()?;
            measure(params, || called("pwrite", sock::pwrite(fd.as_raw_fd(), &bytes)))
        }
        "udp-self" => {
            let fd = called("socket", sock::udp_to_self())?;
            measure(params, || {
                called("send", sock::send(fd.as_raw_fd(), &bytes))?;
                called("recv", sock::recv(fd.as_raw_fd(), &mut bytes))
            })
        }
        _ => Err(format!("what={what} is unknown")),
    }
}

/// A file of 64 bytes that has no name any more.
fn small_file() -> Outcome<OwnedFd> {
    let path = std::env::temp_dir().join(format!("accel-bench-{}", std::process::id()));
    let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = called("temporary file", opened)?;
    called("unlink", std::fs::remove_file(&path))?;
    called("pwrite", sock::pwrite(file.as_raw_fd(), &[7; 64]))?;
    Ok(OwnedFd::from(file))
}

fn measure(params: &Params, mut call: impl FnMut() -> Outcome<usize>) -> Outcome<()> {
    let duration = params.duration()?;
    let mut batch = || {
        let start = Instant::now();
        for _ in 0..BATCH {
            if call()? != 64 {
                return Err("a call moved fewer than 64 bytes".to_owned());
            }
        }
        Ok((start.elapsed().as_nanos() as u64).div_ceil(BATCH))
    };
    for _ in 0..50 {
        batch()?;
    }
    let mut latency = Latency::new();
    let begin = Instant::now();
    while begin.elapsed() < duration {
        latency.record(batch()?);
    }
    report(&json!({ "latency": latency.to_json(), "messages": latency.count() * BATCH }))
}
