//! What the rings alone can do, without the library above them: the floor of latency and the ceiling of
//! throughput on this machine, beside the raw cache line and the kernel's TCP loopback in the same run.
//!
//! `cargo run --release -p accel-driver --example ring_bench -- [core core [rounds]]`
//!
//! Cells are measured in turn, round after round, and each number is the median of its rounds, with the best
//! round behind it: virtual cores move, and other programs come and go.

use std::collections::BTreeMap;
use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Instant;

use driver::channel::Channel;
use driver::clock::{ticks, ticks_per_usec};
use driver::switch::available;

const TRIPS: usize = 20_000;
const MESSAGE: usize = 64;
const READ: usize = 64 << 10;
const RINGS: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Bytes of a write, and of a whole measurement.
const WRITES: [(usize, usize); 5] =
    [(64, 2 << 20), (1500, 16 << 20), (4096, 32 << 20), (16 << 10, 48 << 20), (64 << 10, 64 << 20)];

/// How bytes get into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Copying {
    Plain,
    /// Plain, and `head` is read only when the room that was seen last is used up.
    PlainLazyHead,
    /// Around the cache.
    Streaming,
}

const COPYINGS: [Copying; 3] = [Copying::Plain, Copying::PlainLazyHead, Copying::Streaming];

/// The two ends of one channel, as two processes would map them.
struct Ends {
    connector: Channel,
    acceptor: Channel,
}

// SAFETY: channels are handles on memory that is never unmapped here and holds only atomics and ring bytes;
// each side below is used by one thread at a time.
unsafe impl Sync for Ends {}

impl Ends {
    fn new(capacity: usize) -> Self {
        let (connector, file) = Channel::create(capacity).expect("memory for a channel");
        let acceptor = Channel::attach(&file).expect("the channel that was just made");
        let (there, back) = (acceptor.incoming(), connector.incoming());
        assert!(there.reopen(0) && back.reopen(0));
        Self { connector, acceptor }
    }
}

fn main() {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let cores = match arguments[..] {
        [a, b, ..] => [a, b],
        _ => [0, 1],
    };
    let rounds = arguments.get(2).copied().unwrap_or(15);
    pin(cores[0]);
    latency(cores, rounds);
    bulk(cores, rounds);
}

// ---- latency ----

fn latency(cores: [usize; 2], rounds: usize) {
    let mut cells: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
    let ends = Ends::new(64 << 10);
    for _ in 0..rounds {
        cells.entry("cache line").or_default().push(line_trips(cores));
        cells.entry("ring, 64 B").or_default().push(ring_trips(&ends, cores));
        cells.entry("kernel, 64 B, spinning").or_default().push(kernel_trips(cores));
    }
    println!("{:<26} {:>9} {:>9}   round trip in µs, {rounds} rounds of {TRIPS}", "", "p50", "p99");
    for (name, values) in cells {
        let [p50, p99] = [0, 1].map(|i| median(values.iter().map(|pair| pair[i])));
        println!("{name:<26} {p50:>9.3} {p99:>9.3}");
    }
}

/// Times `trip` again and again: p50 and p99 in microseconds.
fn percentiles(mut trip: impl FnMut()) -> [f64; 2] {
    let mut times = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let start = ticks();
        trip();
        times.push(ticks() - start);
    }
    times.sort_unstable();
    [TRIPS / 2, TRIPS * 99 / 100].map(|i| times[i] as f64 / ticks_per_usec() as f64)
}

#[repr(align(128))]
struct Line(AtomicU64);

fn line_trips(cores: [usize; 2]) -> [f64; 2] {
    let lines = [Line(AtomicU64::new(0)), Line(AtomicU64::new(0))];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores[1]);
            for i in 1..=TRIPS as u64 {
                while lines[0].0.load(Acquire) != i {
                    spin_loop();
                }
                lines[1].0.store(i, Release);
            }
        });
        let mut i = 0;
        percentiles(|| {
            i += 1;
            lines[0].0.store(i, Release);
            while lines[1].0.load(Acquire) != i {
                spin_loop();
            }
        })
    })
}

fn ring_trips(ends: &Ends, cores: [usize; 2]) -> [f64; 2] {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores[1]);
            let mut buffer = [0; MESSAGE];
            for _ in 0..TRIPS {
                receive(&ends.acceptor, &mut buffer);
                black_box(&mut buffer);
                send(&ends.acceptor, &buffer, Copying::Plain, &mut 0);
            }
        });
        let mut buffer = [7; MESSAGE];
        percentiles(|| {
            send(&ends.connector, &buffer, Copying::Plain, &mut 0);
            receive(&ends.connector, &mut buffer);
            black_box(&mut buffer);
        })
    })
}

fn kernel_trips(cores: [usize; 2]) -> [f64; 2] {
    let (mut near, mut far) = tcp_pair();
    for stream in [&near, &far] {
        stream.set_nonblocking(true).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores[1]);
            let mut buffer = [0; MESSAGE];
            for _ in 0..TRIPS {
                spin_read(&mut far, &mut buffer);
                far.write_all(&buffer).expect("room for one message");
            }
        });
        let mut buffer = [7; MESSAGE];
        percentiles(|| {
            near.write_all(&buffer).expect("room for one message");
            spin_read(&mut near, &mut buffer);
        })
    })
}

fn spin_read(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut got = 0;
    while got < buffer.len() {
        match stream.read(&mut buffer[got..]) {
            Ok(count) => got += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

// ---- bulk ----

fn bulk(cores: [usize; 2], rounds: usize) {
    let ends = RINGS.map(Ends::new);
    let mut rings: BTreeMap<(usize, usize, Copying), Vec<f64>> = BTreeMap::new();
    let mut kernel: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        for (write, total) in WRITES {
            let rate = kernel_bulk(write, total / 4, cores);
            let mut cells = Vec::new();
            for ends in &ends {
                for copying in COPYINGS {
                    cells.push((
                        (write, ends.connector.capacity(), copying),
                        ring_bulk(ends, write, total, copying, cores),
                    ));
                }
            }
            // The first round touches the memory.
            if round > 0 {
                kernel.entry(write).or_default().push(rate);
                for (cell, rate) in cells {
                    rings.entry(cell).or_default().push(rate);
                }
            }
        }
    }
    print!("\n{:<10} {:<14}", "write", "copy");
    for title in ["64K", "256K", "1M", "4M", "kernel"] {
        print!(" {title:>13}");
    }
    println!("   GB/s: median/best of {rounds} rounds");
    for (write, _) in WRITES {
        for copying in COPYINGS {
            print!("{write:<10} {:<14}", format!("{copying:?}"));
            for values in
                RINGS.iter().map(|&capacity| &rings[&(write, capacity, copying)]).chain([&kernel[&write]])
            {
                let best = values.iter().copied().fold(0.0, f64::max);
                print!(" {:>13}", format!("{:.2}/{best:.2}", median(values.iter().copied())));
            }
            println!();
        }
    }
    println!("\nStreaming ÷ Plain, PlainLazyHead ÷ Plain: medians of the rounds' own ratios");
    for (write, _) in WRITES {
        print!("{write:<10} {:<14}", "");
        for capacity in RINGS {
            let ratios = [Copying::Streaming, Copying::PlainLazyHead].map(|copying| {
                let pairs =
                    rings[&(write, capacity, copying)].iter().zip(&rings[&(write, capacity, Copying::Plain)]);
                median(pairs.map(|(rate, plain)| rate / plain))
            });
            print!(" {:>13}", format!("{:.2}, {:.2}", ratios[0], ratios[1]));
        }
        println!();
    }
}

fn ring_bulk(ends: &Ends, write: usize, total: usize, copying: Copying, cores: [usize; 2]) -> f64 {
    let total = total / write * write;
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pin(cores[1]);
            let mut buffer = vec![0; READ];
            barrier.wait();
            let mut got = 0;
            while got < total {
                got += receive_some(&ends.acceptor, &mut buffer);
                // Else the copy is dead code.
                black_box(&mut buffer);
            }
            Instant::now()
        });
        let source = vec![7; write];
        let mut room = 0;
        barrier.wait();
        let start = Instant::now();
        for _ in 0..total / write {
            send(&ends.connector, black_box(&source), copying, &mut room);
        }
        let end = receiver.join().expect("the receiver");
        total as f64 / (end - start).as_secs_f64() / 1e9
    })
}

fn kernel_bulk(write: usize, total: usize, cores: [usize; 2]) -> f64 {
    let total = total / write * write;
    let (mut near, mut far) = tcp_pair();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            pin(cores[1]);
            let mut buffer = vec![0; READ];
            let mut got = 0;
            while got < total {
                got += far.read(&mut buffer).expect("bytes");
            }
            Instant::now()
        });
        let source = vec![7; write];
        let start = Instant::now();
        for _ in 0..total / write {
            near.write_all(&source).expect("a connection");
        }
        let end = receiver.join().expect("the receiver");
        total as f64 / (end - start).as_secs_f64() / 1e9
    })
}

// ---- the fast paths, as the library has them ----

/// Sends all of `bytes`; `room` is what was free when `head` was last read.
#[inline]
fn send(channel: &Channel, bytes: &[u8], copying: Copying, room: &mut u64) {
    let (direction, ring, capacity) =
        (channel.outgoing(), channel.outgoing_ring(), channel.capacity() as u64);
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = direction.sendable().expect("nobody closes here");
        if copying != Copying::PlainLazyHead || *room < rest.len() as u64 {
            *room = direction.room(word, capacity).expect("an honest peer");
        }
        let count = rest.len().min(*room as usize);
        if count == 0 {
            spin_loop();
            continue;
        }
        let (now, later) = rest.split_at(count);
        let (place, first) = ring.piece(word.position(), count);
        let (start, _) = ring.piece(0, capacity as usize);
        // SAFETY: `count` bytes are free behind the word's position: `first` up to the ring's end, the rest
        // from its start.
        unsafe {
            copy(now.as_ptr(), place, first, copying);
            copy(now.as_ptr().add(first), start, count - first, copying);
        }
        assert!(direction.publish(word, count as u64), "nobody closes here");
        *room -= count as u64;
        rest = later;
    }
}

/// Receives exactly `buffer`.
#[inline]
fn receive(channel: &Channel, buffer: &mut [u8]) {
    let mut got = 0;
    while got < buffer.len() {
        got += receive_some(channel, &mut buffer[got..]);
    }
}

/// Receives what there is, at least one byte.
#[inline]
fn receive_some(channel: &Channel, buffer: &mut [u8]) -> usize {
    let (direction, ring) = (channel.incoming(), channel.incoming_ring());
    let head = direction.head();
    loop {
        let there =
            available(direction.word().position(), head, channel.capacity() as u64).expect("an honest peer");
        if there > 0 {
            let count = buffer.len().min(there as usize);
            // SAFETY: the buffer has room, and `count` is at most what the ring holds.
            assert!(unsafe { ring.read(head, buffer.as_mut_ptr(), count) });
            assert!(direction.take(head, count as u64), "nobody takes back here");
            return count;
        }
        spin_loop();
    }
}

/// # Safety
/// Both ranges must be valid for `count` bytes.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, count: usize, copying: Copying) {
    if count > 0 && copying == Copying::Streaming {
        // SAFETY: the caller's contract.
        unsafe { stream(from, to, count) };
    } else {
        // SAFETY: the caller's contract.
        unsafe { core::ptr::copy_nonoverlapping(from, to, count) };
    }
}

/// # Safety
/// Both ranges must be valid for `count` bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(mut from: *const u8, mut to: *mut u8, count: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let head = to.align_offset(64).min(count);
    let blocks = (count - head) / 64;
    // SAFETY: every access is inside the two ranges, and the stores are aligned behind `head`.
    unsafe {
        core::ptr::copy_nonoverlapping(from, to, head);
        (from, to) = (from.add(head), to.add(head));
        for _ in 0..blocks {
            let values: [__m128i; 4] = core::array::from_fn(|i| _mm_loadu_si128(from.add(16 * i).cast()));
            for (i, value) in values.into_iter().enumerate() {
                _mm_stream_si128(to.add(16 * i).cast(), value);
            }
            (from, to) = (from.add(64), to.add(64));
        }
        core::ptr::copy_nonoverlapping(from, to, count - head - 64 * blocks);
        _mm_sfence();
    }
}

/// # Safety
/// Both ranges must be valid for `count` bytes.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's contract.
    unsafe { core::ptr::copy_nonoverlapping(from, to, count) };
}

// ---- helpers ----

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (far, _) = listener.accept().expect("a connection");
    (near, far)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Keeps the calling thread on one core.
fn pin(core: usize) {
    // SAFETY: all-zero bytes are an empty set, and the call only reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "no core {core}");
}
