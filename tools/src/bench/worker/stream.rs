//! One direction, as fast as it goes.
//!
//! A batch is an 8-byte count, that many messages, and the receiver's 8-byte answer when it has read and
//! checked them all. The sender's clock runs from the first message to the answer, so bytes that only sit
//! in a buffer do not count as carried.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Channel, Outcome, Params, WARM_UP, again, called, pattern, report, report_port, ring_share};
use crate::bench::sock;

/// `size=BYTES`: receives batches until the other end closes.
pub(super) fn server(params: &Params) -> Outcome<()> {
    let size: usize = params.get("size")?;
    let (listener, port) = called("listen", sock::listen_tcp())?;
    report_port(port)?;
    let connection = called("accept", sock::accept(&listener))?;
    let channel = Channel::socket(&connection);
    let mut buffer = vec![0; size.max(64 << 10)];
    let mut count = [0; 8];
    while channel.recv_full(&mut count)? {
        let total = u64::from_le_bytes(count) * size as u64;
        let mut position = 0;
        while position < total {
            let room = buffer.len().min((total - position) as usize);
            match sock::recv(connection.as_raw_fd(), &mut buffer[..room]) {
                Ok(0) => return Err("recv: end of the stream inside a batch".to_owned()),
                Ok(received) => {
                    pattern::verify_piece(&buffer[..received], position, size)?;
                    position += received as u64;
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(format!("recv: {error}")),
            }
        }
        channel.send_all(&count)?;
    }
    Ok(())
}

/// `port=N size=BYTES ms=N`.
pub(super) fn client(params: &Params) -> Outcome<()> {
    let size: usize = params.get("size")?;
    let duration = params.duration()?;
    let connection = called("connect", sock::connect_tcp(params.get("port")?))?;
    let message = vec![0; size];
    let mut sender = Sender { channel: Channel::socket(&connection), message, bytes: 0, answers: 0 };
    let (count, elapsed) = sender.run(duration)?;
    let seconds = elapsed.as_secs_f64();
    report(&json!({
        "bytes_per_s": (count * size as u64) as f64 / seconds,
        "messages_per_s": count as f64 / seconds,
        "messages": count,
        "ring": ring_share(&connection, sender.bytes, sender.answers),
    }))
}

struct Sender {
    channel: Channel,
    message: Vec<u8>,
    bytes: u64,
    answers: u64,
}

impl Sender {
    /// Batches for `duration`, after a first one that does not count: the messages, and their time.
    ///
    /// A batch is to last about a tenth of the whole, so that the answers to the batches weigh nothing and
    /// a rate that changes (small writes have two gaits in the kernel) changes the time by little.
    fn run(&mut self, duration: Duration) -> Outcome<(u64, Duration)> {
        let least = ((64 << 20) / self.message.len() as u64).clamp(16, WARM_UP);
        let wanted = duration.as_secs_f64() / 10.0;
        let mut count = least;
        let mut last = self.batch(count)?;
        let (mut messages, mut elapsed) = (0, Duration::ZERO);
        while elapsed < duration {
            let scale = (wanted / last.as_secs_f64()).clamp(0.25, 4.0);
            count = ((count as f64 * scale) as u64).max(16);
            last = self.batch(count)?;
            messages += count;
            elapsed += last;
        }
        Ok((messages, elapsed))
    }

    fn batch(&mut self, count: u64) -> Outcome<Duration> {
        let header = count.to_le_bytes();
        let start = Instant::now();
        self.channel.send_all(&header)?;
        for number in 0..count {
            pattern::stamp(&mut self.message, number);
            self.channel.send_all(&self.message)?;
        }
        let mut answer = [0; 8];
        if !self.channel.recv_full(&mut answer)? || answer != header {
            return Err("the receiver did not confirm the batch".to_owned());
        }
        self.bytes += 8 + count * self.message.len() as u64;
        self.answers += 8;
        Ok(start.elapsed())
    }
}
