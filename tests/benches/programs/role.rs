//! The bench's own programs: this one again, started with a role in its environment. Plain sockets of the standard library.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use harness::wire::sys::pin;

use super::crowd;

/// Names the role.
pub(crate) const VARIABLE: &str = "ACCEL_BENCH_ROLE";
/// Round trips of a latency row, and those before them.
const TURNS: usize = 50_000;
const WARM: usize = 2_000;
/// Connections of the connection row.
const CONNECTIONS: usize = 3_000;
/// Bytes of the bulk rows, and of a call.
const BULK: usize = 1 << 30;
const BLOCK: usize = 1 << 18;

/// `echo PORT`, `ping HOST PORT` (and both with `spin-` before it: sockets that don't block are asked again and again), `mirror PORT`, `toss HOST PORT`, `connects HOST PORT`, `sink PORT`, `flood HOST PORT`, `source PORT`,
/// `drain HOST PORT`, `crowd PORT`, `visit HOST PORT CONNECTIONS ACTIVE`, `guests HOST PORT CONNECTIONS ACTIVE`.
pub(crate) fn run(role: &str) {
    let words: Vec<&str> = role.split(' ').collect();
    let port = |at: usize| words[at].parse::<u16>().expect("a port");
    let number = |at: usize| words[at].parse::<usize>().expect("a number");
    match words[0] {
        "echo" => echo(port(1), false),
        "spin-echo" => echo(port(1), true),
        "sink" => sink(port(1)),
        "source" => source(port(1)),
        "crowd" => crowd::crowd(port(1)),
        "visit" => crowd::visit(words[1], port(2), number(3), number(4)),
        "guests" => crowd::guests(words[1], port(2), number(3), number(4)),
        "drain" => drain(words[1], port(2)),
        "ping" => ping(words[1], port(2), false),
        "spin-ping" => ping(words[1], port(2), true),
        "mirror" => mirror(port(1)),
        "toss" => toss(words[1], port(2)),
        "connects" => connects(words[1], port(2)),
        _ => flood(words[1], port(2)),
    }
}

/// Gives each piece back, on one core.
fn echo(port: u16, spins: bool) {
    pin(0);
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port");
    let mut buffer = [0; 65_536];
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_nonblocking(spins).expect("an option");
        while let Ok(count @ 1..) = read(&mut stream, &mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    }
}

/// What comes next, also if the socket doesn't block.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

fn sink(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        read_all(&mut stream);
        let _ = stream.write_all(b".");
    }
}

fn read_all(stream: &mut TcpStream) -> usize {
    let (mut buffer, mut all) = (vec![0; BLOCK], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        all += count;
    }
    all
}

fn source(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port");
    let buffer = vec![7; BLOCK];
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        // Begins when it is told to.
        let _ = stream.read_exact(&mut [0]);
        let _ = (0..BULK / BLOCK).try_for_each(|_| stream.write_all(&buffer));
    }
}

/// Connects as soon as somebody listens.
fn connect(host: &str, port: u16) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect((host, port)) {
            stream.set_nodelay(true).expect("an option");
            return stream;
        }
        std::thread::yield_now();
    }
}

/// Sends pieces to and fro, on another core.
fn ping(host: &str, port: u16, spins: bool) {
    pin(1);
    let mut stream = connect(host, port);
    stream.set_nonblocking(spins).expect("an option");
    let mut buffer = [0; 64];
    time(|| {
        stream.write_all(&buffer).expect("sent");
        let mut got = 0;
        while got < buffer.len() {
            got += read(&mut stream, &mut buffer[got..]).expect("received");
        }
    });
}

/// Says median and 99th percentile of so many turns, in nanoseconds.
fn time(mut turn: impl FnMut()) {
    (0..WARM).for_each(|_| turn());
    let mut times: Vec<u128> = (0..TURNS)
        .map(|_| {
            let begun = Instant::now();
            turn();
            begun.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    println!("{} {}", times[TURNS / 2], times[TURNS * 99 / 100]);
}

/// Gives each datagram back, on one core.
fn mirror(port: u16) {
    pin(0);
    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a port");
    let mut buffer = [0; 65_536];
    loop {
        let (count, who) = socket.recv_from(&mut buffer).expect("a datagram");
        socket.send_to(&buffer[..count], who).expect("sent");
    }
}

/// Sends datagrams to and fro, on another core.
fn toss(host: &str, port: u16) {
    pin(1);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
    socket.connect((host, port)).expect("an address");
    let mut buffer = [0; 64];
    // Until somebody answers.
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("an option");
    while socket.send(&buffer).and_then(|_| socket.recv(&mut buffer)).is_err() {}
    while socket.recv(&mut buffer).is_ok() {}
    socket.set_read_timeout(None).expect("an option");
    time(|| {
        socket.send(&buffer).expect("sent");
        socket.recv(&mut buffer).expect("received");
    });
}

fn connects(host: &str, port: u16) {
    pin(1);
    let mut byte = [7];
    drop(connect(host, port));
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = connect(host, port);
        stream.write_all(&byte).expect("sent");
        stream.read_exact(&mut byte).expect("received");
    }
    println!("{}", CONNECTIONS as f64 / begun.elapsed().as_secs_f64());
}

fn flood(host: &str, port: u16) {
    let mut stream = connect(host, port);
    let buffer = vec![7; BLOCK];
    let begun = Instant::now();
    for _ in 0..BULK / BLOCK {
        stream.write_all(&buffer).expect("sent");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    stream.read_exact(&mut [0]).expect("all was read");
    print_rate(begun);
}

fn drain(host: &str, port: u16) {
    let mut stream = connect(host, port);
    let begun = Instant::now();
    stream.write_all(b".").expect("sent");
    assert_eq!(read_all(&mut stream), BULK, "all was read");
    print_rate(begun);
}

/// Gbit/s.
fn print_rate(begun: Instant) {
    println!("{}", BULK as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9);
}
