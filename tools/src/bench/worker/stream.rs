//! One direction, as fast as it goes.
//!
//! The sender never stops. The receiver checks what it reads and measures a piece out of the middle: from
//! the first bytes after the warm-up until the time is over, by its own clock. So only bytes that were
//! delivered count, and neither Nagle's algorithm nor a delayed acknowledgement can hold up an end.

use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Channel, Outcome, Params, WARM_UP, again, called, pattern, report, report_port, ring_share};
use crate::bench::sock;

/// Bytes after which the warm-up ends even if messages are missing: large ones need fewer.
const WARM_UP_BYTES: u64 = 64 << 20;

/// `size=BYTES ms=N`: receives from one connection and reports the rate.
pub(super) fn server(params: &Params) -> Outcome<()> {
    let size: usize = params.get("size")?;
    let duration = params.duration()?;
    let (listener, port) = called("listen", sock::listen_tcp())?;
    report_port(port)?;
    let connection = called("accept", sock::accept(&listener))?;
    let mut receiver =
        Receiver { fd: connection.as_raw_fd(), buffer: vec![0; size.max(64 << 10)], size, position: 0 };
    let warm = WARM_UP_BYTES.min(WARM_UP * size as u64);
    while receiver.position < warm {
        receiver.take()?;
    }
    let (begin, before) = (Instant::now(), receiver.position);
    let mut elapsed = Duration::ZERO;
    while elapsed < duration {
        receiver.take()?;
        elapsed = begin.elapsed();
    }
    let bytes = (receiver.position - before) as f64;
    let messages = bytes / size as f64;
    report(&json!({
        "bytes_per_s": bytes / elapsed.as_secs_f64(),
        "messages_per_s": messages / elapsed.as_secs_f64(),
        "messages": messages,
        "ring": ring_share(&connection, 0, receiver.position),
    }))
}

struct Receiver {
    fd: i32,
    buffer: Vec<u8>,
    size: usize,
    position: u64,
}

impl Receiver {
    /// One `recv`, checked.
    fn take(&mut self) -> Outcome<()> {
        match sock::recv(self.fd, &mut self.buffer) {
            Ok(0) => Err("recv: the sender closed the connection".to_owned()),
            Ok(count) => {
                pattern::verify_piece(&self.buffer[..count], self.position, self.size)?;
                self.position += count as u64;
                Ok(())
            }
            Err(error) if again(&error) => Ok(()),
            Err(error) => Err(format!("recv: {error}")),
        }
    }
}

/// `port=N size=BYTES`: sends until the receiver has had enough and closes.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let connection = called("connect", sock::connect_tcp(params.get("port")?))?;
    let channel = Channel::socket(&connection);
    let mut message = vec![0; params.get("size")?];
    let mut number = 0;
    loop {
        pattern::stamp(&mut message, number);
        match channel.send_whole(&message) {
            Ok(()) => number += 1,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            Err(error) => return Err(format!("send: {error}")),
        }
    }
}
