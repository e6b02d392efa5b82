//! Linux to Linux: two namespaces with a bridge between them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time;

use harness::wire::bridge::Bridge;
use harness::wire::line::Lines;
use harness::wire::sys;
use harness::wire::world::{PORT, address};

use crate::{Measured, Row};

/// Bytes that were read of each connection.
pub(crate) type Counters = Arc<Vec<AtomicU64>>;

pub(crate) fn counters(flows: usize) -> Counters {
    Arc::new((0..flows).map(|_| AtomicU64::new(0)).collect())
}

/// What was read since the counters were these, in bits per second.
pub(crate) fn rates(counters: &Counters, before: &[u64], took: time::Duration) -> Vec<f64> {
    let now = counters.iter().map(|counter| counter.load(Ordering::Relaxed));
    now.zip(before).map(|(now, before)| (now - before) as f64 * 8.0 / took.as_secs_f64()).collect()
}

/// Reads until the end, and counts.
pub(crate) fn read_all(mut stream: TcpStream, counters: Counters, flow: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 18];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            counters[flow].fetch_add(len as u64, Ordering::Relaxed);
        }
    })
}

/// Writes until it is told to stop, or the connection ends.
pub(crate) fn write_all(mut stream: TcpStream, stops: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        let text = vec![0x5a; 1 << 16];
        while !stops.load(Ordering::Relaxed) && stream.write_all(&text).is_ok() {}
        // What is still to be sent is of no interest.
        let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        let _ = sys::set_option_bytes(stream.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    })
}

/// The kernel's connection to a port, with CUBIC.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let socket = sys::stream_socket(false).expect("a socket");
    sys::set_option_bytes(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic").expect("CUBIC");
    sys::connect(socket.as_fd(), to).expect("a connection");
    socket.into()
}

pub(crate) fn run(row: &Row) -> Option<Measured> {
    let lines = [Lines::new(row.path, 1, PORT, row.wires()), Lines::new(row.back(), 2, PORT, row.wires())];
    let bridge = match Bridge::new(1500, lines) {
        Ok(bridge) => bridge,
        Err(error) => {
            println!("SKIP Linux: a network namespace: {error}");
            return None;
        }
    };
    let (counters, stops) = (counters(row.flows), Arc::new(AtomicBool::new(false)));
    let to = |flow: usize| SocketAddr::new(address(2, false), PORT + flow as u16);
    let listeners: Vec<_> = (0..row.flows)
        .map(|flow| {
            bridge.namespaces[1].inside(move || std::net::TcpListener::bind(to(flow)).expect("a port"))
        })
        .collect();
    let connecting: Vec<_> =
        (0..row.flows).map(|flow| bridge.namespaces[0].spawn(move || connect(to(flow)))).collect();
    let readers: Vec<_> = listeners
        .iter()
        .enumerate()
        .map(|(flow, listener)| {
            read_all(listener.accept().expect("a connection").0, Arc::clone(&counters), flow)
        })
        .collect();
    let streams: Vec<_> = connecting.into_iter().map(|thread| thread.join().expect("a connection")).collect();
    let start = time::Instant::now();
    let writers: Vec<_> = streams.into_iter().map(|stream| write_all(stream, Arc::clone(&stops))).collect();
    thread::sleep(time::Duration::from_nanos(row.length.0));
    let goodput = rates(&counters, &vec![0; row.flows], start.elapsed());
    stops.store(true, Ordering::Relaxed);
    for thread in writers.into_iter().chain(readers) {
        thread.join().expect("a program of the kernel's");
    }
    let [there, _] = bridge.end();
    Some(Measured { goodput, counts: there })
}
