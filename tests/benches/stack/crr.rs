//! Connect, request, answer, close, with the client closing first; and bulk. Both ends in one thread.

use std::time::Instant as Clock;

use super::far::MESSAGE;
use super::pair::{Pair, Side};

/// Virtual time of one connection: those of the last minute, in TIME-WAIT, are six thousand, a fifth of the ports.
const EACH: u64 = 10_000_000;

/// So many connections one after the other, `at_once` of them at the same time.
pub(crate) fn connections<P: Pair>(pair: &mut P, count: usize, at_once: usize) {
    let mut buffer = [0; 2 * MESSAGE];
    for _ in 0..count.div_ceil(at_once) {
        let clients: Vec<_> = (0..at_once).map(|_| pair.connect()).collect();
        pair.exchange();
        for client in &clients {
            assert_eq!(pair.send(Side::Client, *client, &[1; MESSAGE]), MESSAGE);
        }
        pair.exchange();
        let servers: Vec<_> = (0..at_once).map(|_| pair.accept()).collect();
        for server in &servers {
            assert_eq!(pair.receive(Side::Server, *server, &mut buffer), Some(MESSAGE));
            assert_eq!(pair.send(Side::Server, *server, &[2; MESSAGE]), MESSAGE);
        }
        pair.exchange();
        for client in &clients {
            assert_eq!(pair.receive(Side::Client, *client, &mut buffer), Some(MESSAGE));
            pair.close(Side::Client, *client);
        }
        pair.exchange();
        for server in &servers {
            assert_eq!(pair.receive(Side::Server, *server, &mut buffer), Some(0));
            pair.close(Side::Server, *server);
        }
        pair.exchange();
        pair.advance(EACH * at_once as u64);
    }
}

/// Connections that are there and do nothing.
pub(crate) fn idle<P: Pair>(pair: &mut P, mut count: usize) {
    while count > 0 {
        let some = count.min(1000);
        for _ in 0..some {
            pair.connect();
        }
        pair.exchange();
        for _ in 0..some {
            pair.accept();
        }
        count -= some;
    }
}

/// Connections per second, without the carrying. Those of the first tenth are not counted.
pub(crate) fn connections_per_second<P: Pair>(pair: &mut P, count: usize, at_once: usize) -> f64 {
    connections(pair, count / 10, at_once);
    let (from, carried) = (Clock::now(), pair.carried());
    connections(pair, count, at_once);
    let took = from.elapsed() - (pair.carried() - carried);
    count as f64 / took.as_secs_f64()
}

/// Gigabits per second of one connection from client to server, in writes and reads of 64 KiB, without the carrying.
pub(crate) fn bulk<P: Pair>(pair: &mut P, bytes: usize) -> f64 {
    const WRITE: usize = 65_536;
    let client = pair.connect();
    pair.exchange();
    let server = pair.accept();
    let (text, mut buffer) = (vec![7; WRITE], vec![0; WRITE]);
    let (mut sent, mut got, mut begun) = (0, 0, None);
    while got < bytes {
        sent += pair.send(Side::Client, client, &text);
        pair.exchange();
        while let Some(len) = pair.receive(Side::Server, server, &mut buffer) {
            got += len;
        }
        pair.exchange();
        pair.advance(20_000);
        // Slow start, and pages that are touched for the first time, are before.
        if begun.is_none() && got > bytes / 5 {
            begun = Some((Clock::now(), pair.carried(), got));
        }
        assert!(sent >= got);
    }
    let (from, carried, first) = begun.expect("more than a fifth");
    let took = from.elapsed() - (pair.carried() - carried);
    (got - first) as f64 * 8.0 / took.as_secs_f64() / 1e9
}
