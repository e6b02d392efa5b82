//! Our stack against the Linux kernel's, over a TUN or TAP device: each row as client and as server, over IPv4 and IPv6.
//!
//! The kernel's programs are threads with plain sockets of its namespace; ours is the test itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread;

use harness::sim::path::{Burst, Path};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::namespace::kernel_talks;
use harness::wire::ours::Ours;
use harness::wire::sys;
use harness::wire::world::{KERNEL, OURS, PORT, Recipe, Side, World, address};
use stack::error::Error;
use stack::events::{READABLE, WRITABLE};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::Duration;
use stack::wire::ip::Ip;

/// Runs a row over both versions, as client and as server; each in a world of its own, whose region must be whole at the end.
fn each(recipe: &Recipe, row: impl Fn(&mut World, Side)) {
    for side in Side::ALL {
        on(recipe, side, &row);
    }
}

/// Each version once, and once as client: for rows that take seconds.
fn two(recipe: &Recipe, row: impl Fn(&mut World, Side)) {
    on(recipe, Side::ALL[0], &row);
    on(recipe, Side::ALL[3], &row);
}

/// Runs a row once. A panic names the side by its backtrace's line alone, so it is printed before.
fn on(recipe: &Recipe, side: Side, row: impl Fn(&mut World, Side)) {
    let Some(mut world) = World::new(recipe) else { return };
    println!("{side:?}");
    row(&mut world, side);
    world.ours.host.check();
}

/// Both send at once, and both read what the other has sent.
fn talk(ours: &mut Ours, socket: Handle, stream: &TcpStream, len: usize) {
    let (there, back) = (text(1, len), text(2, len));
    let kernel = kernel_talks(stream, &back);
    let talked = ours.talk(socket, &there, true).expect("a talk");
    let got = ours.join(kernel);
    assert!(talked.got == back, "{} of {} came from the kernel", talked.got.len(), back.len());
    assert!(got == there, "{} of {} came to the kernel", got.len(), there.len());
    ours.close(socket);
}

/// Both send so much over a new connection.
fn bulk(len: usize) -> impl Fn(&mut World, Side) {
    move |world, side| {
        let (socket, stream) = world.pair(side);
        talk(&mut world.ours, socket, &stream, len);
    }
}

#[test]
fn bulk_both_ways() {
    each(&Recipe::default(), bulk(8 << 20));
}

#[test]
fn packets_of_every_size() {
    for mtu in [576, 1280, 1500, 9000, 65_535] {
        let frames = if mtu > 10_000 { 1024 } else { 8192 };
        let recipe = Recipe { mtu, frames, ..Recipe::default() };
        for side in Side::ALL.into_iter().filter(|side| mtu >= 1280 || !side.is_v6) {
            on(&recipe, side, |world, side| {
                let (socket, stream) = world.pair(side);
                let (mss, headers) =
                    (sys::tcp_info(stream.as_fd()).expect("TCP_INFO"), if side.is_v6 { 60 } else { 40 });
                assert_eq!(mss.tcpi_advmss, mtu - headers - 12, "{mtu}, with timestamps");
                talk(&mut world.ours, socket, &stream, 2 << 20);
            });
        }
    }
}

#[test]
fn ten_thousand_short_connections() {
    const COUNT: usize = 2_500;
    let recipe = Recipe { sockets: 16_384, ..Recipe::default() };
    let (request, answer) = (text(3, 100), text(4, 1000));
    on(&recipe, Side::ALL[0], |world, _| {
        for is_v6 in [false, true] {
            let listener = world.kernel_listener(is_v6, PORT);
            let answers = answer.clone();
            let kernel = thread::spawn(move || {
                for _ in 0..COUNT {
                    let mut stream = listener.accept().expect("a connection").0;
                    let mut request = [0; 100];
                    stream.read_exact(&mut request).expect("a request");
                    stream.write_all(&answers).expect("an answer");
                    // Ours closes first.
                    assert_eq!(stream.read(&mut request).expect("the end"), 0);
                }
            });
            let remote = if is_v6 { ip6(KERNEL) } else { ip(KERNEL) };
            for _ in 0..COUNT {
                let socket = world.ours.connect(remote, PORT, &Values::default()).expect("a connection");
                let done = world.ours.talk(socket, &request, false).expect("a request");
                assert_eq!(done.sent, 100);
                assert!(world.ours.read_exact(socket, 1000) == answer);
                world.ours.close(socket);
            }
            world.ours.join(kernel);
        }
    });
    on(&recipe, Side::ALL[0], |world, _| {
        for is_v6 in [false, true] {
            let listener = world.ours.listen(PORT, &Values::default());
            let (requests, at) = (request.clone(), SocketAddr::new(address(OURS, is_v6), PORT));
            let kernel = world.namespace.spawn(move || {
                for _ in 0..COUNT {
                    let mut stream = TcpStream::connect(at).expect("a connection");
                    stream.write_all(&requests).expect("a request");
                    let mut answer = [0; 1000];
                    stream.read_exact(&mut answer).expect("an answer");
                }
            });
            for _ in 0..COUNT {
                let socket = world.ours.accept(listener).expect("a connection");
                assert!(world.ours.read_exact(socket, 100) == request);
                world.ours.talk(socket, &answer, false).expect("an answer");
                // The kernel closes first.
                assert_eq!(world.ours.read(socket, &mut [0]), Ok(0), "the end");
                world.ours.close(socket);
            }
            world.ours.join(kernel);
            world.ours.close(listener);
        }
        world.ours.run_for(Duration::from_millis(10));
        assert_eq!(world.ours.host.held()[..3], [0, 0, 0], "sockets, queues, SYNs");
    });
}

#[test]
fn each_end_finishes_first_and_still_reads() {
    each(&Recipe::default(), |world, side| {
        let (socket, stream) = world.pair(side);
        let (there, back) = (text(5, 300_000), text(6, 500_000));
        let (mut kernel, sent) = (stream.try_clone().expect("a stream"), back.clone());
        let kernel = thread::spawn(move || {
            let mut got = Vec::new();
            kernel.read_to_end(&mut got).expect("the kernel receives");
            // Only now, when the other direction has ended.
            kernel.write_all(&sent).expect("the kernel sends");
            kernel.shutdown(Shutdown::Write).expect("the kernel has sent");
            got
        });
        let talked = world.ours.talk(socket, &there, true).expect("a talk");
        assert!(talked.got == back && world.ours.join(kernel) == there);
        world.ours.close(socket);

        let (socket, mut stream) = world.pair(side);
        let sent = back.clone();
        let kernel = thread::spawn(move || {
            stream.write_all(&sent).expect("the kernel sends");
            stream.shutdown(Shutdown::Write).expect("the kernel has sent");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("the kernel receives");
            got
        });
        assert!(world.ours.read_exact(socket, back.len()) == back);
        assert_eq!(world.ours.read(socket, &mut [0]), Ok(0), "the end");
        world.ours.talk(socket, &there, true).expect("the other direction");
        assert!(world.ours.join(kernel) == there);
        world.ours.close(socket);
    });
}

/// The kernel's linger of no time: its close is a reset.
fn set_abortive(stream: &TcpStream) {
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    sys::set_option_bytes(stream.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).expect("SO_LINGER");
}

#[test]
fn resets_both_ways() {
    each(&Recipe::default(), |world, side| {
        let (socket, stream) = world.pair(side);
        set_abortive(&stream);
        drop(stream);
        assert_eq!(world.ours.read(socket, &mut [0; 10]), Err(Error::ConnectionReset));
        world.ours.close(socket);

        world.values.options = Switch::LINGER;
        let (socket, mut stream) = world.pair(side);
        let reading = thread::spawn(move || stream.read(&mut [0; 10]).map_err(|error| error.kind()));
        world.ours.close(socket);
        assert_eq!(world.ours.join(reading), Err(ErrorKind::ConnectionReset));
        world.values.options = 0;

        // What is closed unread is reset by either.
        let (socket, mut stream) = world.pair(side);
        stream.write_all(b"unread").expect("the kernel sends");
        world.ours.wait_for(socket, READABLE);
        world.ours.close(socket);
        let reading = thread::spawn(move || stream.read(&mut [0; 10]).map_err(|error| error.kind()));
        assert_eq!(world.ours.join(reading), Err(ErrorKind::ConnectionReset));

        let (socket, stream) = world.pair(side);
        world.ours.talk(socket, b"unread", false).expect("ours sends");
        world.ours.run_for(Duration::from_millis(5));
        drop(stream);
        assert_eq!(world.ours.read(socket, &mut [0; 10]), Err(Error::ConnectionReset));
        world.ours.close(socket);
    });
}

#[test]
fn where_nobody_listens_each_refuses() {
    for side in Side::ALL {
        on(&Recipe::default(), side, |world, Side { is_v6, ours_connects }| {
            if ours_connects {
                let remote = if is_v6 { ip6(KERNEL) } else { ip(KERNEL) };
                let refused = world.ours.connect(remote, 9, &Values::default());
                assert_eq!(refused, Err(Error::ConnectionRefused));
            } else {
                let at = SocketAddr::new(address(OURS, is_v6), 9);
                let connecting =
                    world.namespace.spawn(move || TcpStream::connect(at).map_err(|error| error.kind()));
                let refused = world.ours.join(connecting).expect_err("nobody listens");
                assert_eq!(refused, ErrorKind::ConnectionRefused);
            }
        });
    }
}

#[test]
fn a_window_that_stays_closed_is_probed_and_opens_again() {
    two(&Recipe::default(), |world, side| {
        let (socket, mut stream) = world.pair(side);
        let (there, back) = (text(7, 8 << 20), text(8, 8 << 20));
        // The kernel reads nothing until its window was probed three times.
        let reading = stream.try_clone().expect("a stream");
        let (start, starts) = channel();
        let kernel = thread::spawn(move || {
            starts.recv().expect("the word to begin");
            let mut got = Vec::new();
            (&reading).read_to_end(&mut got).expect("the kernel receives");
            got
        });
        let mut sent = 0;
        while world.ours.host.counter(Counter::WindowProbes) < 3 {
            sent += world.ours.send(socket, &there[sent..]);
            world.ours.run_for(Duration::from_millis(10));
        }
        assert!(sent < there.len(), "the window was closed");
        start.send(()).expect("the kernel's program");
        world.ours.talk(socket, &there[sent..], false).expect("the rest");
        world.ours.with(|stack| stack.shutdown(socket, How::Write)).expect("ours has sent");
        assert!(world.ours.join(kernel) == there);
        // And we read nothing.
        let sent = back.clone();
        let kernel = thread::spawn(move || {
            stream.write_all(&sent).expect("the kernel sends");
            stream.shutdown(Shutdown::Write).expect("the kernel has sent");
            stream
        });
        while world.namespace.counter("TCPWinProbe") < 2 {
            world.ours.run_for(Duration::from_millis(10));
        }
        assert!(world.ours.talk(socket, &[], true).expect("the rest").got == back);
        world.ours.join(kernel);
        world.ours.close(socket);
    });
}

#[test]
fn each_keeps_the_other_alive() {
    two(&Recipe::default(), |world, side| {
        world.values = Values {
            options: Switch::KEEP_ALIVE,
            keep_idle_s: 1,
            keep_interval_s: 1,
            keep_count: 2,
            ..Values::default()
        };
        let (socket, stream) = world.pair(side);
        let set =
            |level, name, value| sys::set_option(stream.as_fd(), level, name, value).expect("an option");
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 2);
        world.ours.run_for(Duration::from_millis(4500));
        // Each other's probe puts the own one off.
        let probes =
            world.ours.host.counter(Counter::KeepaliveProbes) + world.namespace.counter("TCPKeepAlive");
        assert!(probes >= 3, "{probes} probes");
        talk(&mut world.ours, socket, &stream, 1000);
    });
}

#[test]
fn a_peer_that_is_gone_is_found_by_either() {
    let row = |world: &mut World, side: Side| {
        world.values = Values {
            options: Switch::KEEP_ALIVE,
            keep_idle_s: 1,
            keep_interval_s: 1,
            keep_count: 1,
            ..Values::default()
        };
        let (socket, stream) = world.pair(side);
        world.ours.there.line(0).path().loss = 1.0;
        world.ours.back.line(0).path().loss = 1.0;
        assert_eq!(world.ours.read(socket, &mut [0; 10]), Err(Error::TimedOut));
        world.ours.close(socket);
        let timeout = 500;
        sys::set_option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout)
            .expect("an option");
        let mut kernel = stream;
        kernel.write_all(b"into the void").expect("the kernel takes it");
        let reading = thread::spawn(move || kernel.read(&mut [0; 10]).map_err(|error| error.kind()));
        assert_eq!(world.ours.join(reading), Err(ErrorKind::TimedOut));
    };
    on(&Recipe::default(), Side::ALL[0], row);
}

#[test]
fn tiny_and_huge_windows() {
    // SO_RCVBUF of the kernel's, which doubles it, and of ours.
    for (kernel, ours, len) in
        [(1, 0, 60_000), (4_096, 4_096, 200_000), (0, 1, 60_000), (64 << 20, 8 << 20, 32 << 20)]
    {
        let recipe = Recipe { frames: 16_384, ..Recipe::default() };
        each(&recipe, |world, side| {
            world.kernel_buffer = (kernel != 0).then_some(kernel);
            if ours != 0 {
                world.values.options |= Switch::RECEIVE_BUFFER_LOCKED;
                world.values.receive_buffer = ours;
            }
            println!("kernel {kernel}, ours {ours}");
            bulk(len)(world, side);
        });
    }
}

/// Options of RFC 7323 and RFC 2018, ECN, as the kernel's namespace has them.
const OPTIONS: [&str; 4] =
    ["net/ipv4/tcp_timestamps", "net/ipv4/tcp_sack", "net/ipv4/tcp_window_scaling", "net/ipv4/tcp_ecn"];

#[test]
fn options_on_and_off() {
    // TCP_INFO's bits in the same order (TCPI_OPT_*).
    const BITS: [u8; 4] = [1, 2, 4, 8];
    for set in 0..16u8 {
        let sides = if set == 7 { &Side::ALL[..] } else { &Side::ALL[..2] };
        for side in sides.iter().copied() {
            // A path that loses makes each option do its work.
            let path = Path { loss: 0.005, ..Path::delayed(Duration::from_micros(200)) };
            on(&Recipe { path, seed: set.into(), ..Recipe::default() }, side, |world, side| {
                for (bit, name) in OPTIONS.iter().enumerate() {
                    world.namespace.set(name, if set >> bit & 1 == 1 { "1" } else { "0" });
                }
                println!("options {set:04b}");
                let (socket, stream) = world.pair(side);
                let info = sys::tcp_info(stream.as_fd()).expect("TCP_INFO");
                for (at, bit) in BITS.iter().enumerate() {
                    // ECN is for the client to ask for, and ours doesn't (tcp_ecn is 2).
                    let wanted = set >> at & 1 == 1 && (at < 3 || !side.ours_connects);
                    assert_eq!(info.tcpi_options & bit != 0, wanted, "{}", OPTIONS[at]);
                }
                talk(&mut world.ours, socket, &stream, 200_000);
            });
        }
    }
}

/// One connection of ours that begins with text, or of the kernel's; whether the text came with the SYN (TCPI_OPT_SYN_DATA), as the
/// end that took it says, and as the end that sent it does.
fn early(world: &mut World, side: Side) -> [bool; 2] {
    let (request, queue) = (text(9, 500), 5);
    let came = |info: u8| info & 32 != 0;
    if side.ours_connects {
        let listener = world.kernel_listener(side.is_v6, PORT);
        let _ = sys::set_option(listener.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue);
        let remote = if side.is_v6 { ip6(KERNEL) } else { ip(KERNEL) };
        let (socket, sent) = world.ours.with(|stack| {
            let socket = stack.parts.tcp_socket(side.is_v6, 0).expect("room");
            let sent = stack.send_fast_open(socket, &Ip::UNSPECIFIED, (&remote, PORT), &[&request]);
            (socket, sent.unwrap_or(0))
        });
        let kernel = thread::spawn(move || {
            let mut stream = listener.accept().expect("a connection").0;
            let mut got = vec![0; 500];
            stream.read_exact(&mut got).expect("a request");
            (got, sys::tcp_info(stream.as_fd()).expect("TCP_INFO").tcpi_options)
        });
        world.ours.wait_for(socket, WRITABLE);
        world.ours.talk(socket, &request[sent..], false).expect("the rest");
        let (got, options) = world.ours.join(kernel);
        assert!(got == request);
        let info = world.ours.with(|stack| stack.status(socket)).expect("TCP_INFO");
        world.ours.close(socket);
        return [came(options), came(info.options)];
    }
    let fast_open_queue = queue.unsigned_abs();
    let values = Values { options: Switch::REUSE_ADDRESS, fast_open_queue, ..Values::default() };
    let listener = world.ours.listen(PORT, &values);
    let (at, sent) = (SocketAddr::new(address(OURS, side.is_v6), PORT), request.clone());
    let kernel = world.namespace.spawn(move || {
        let socket = sys::stream_socket(at.is_ipv6()).expect("a socket of the kernel's");
        let _ = sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1);
        sys::connect(socket.as_fd(), at).expect("a connection of the kernel's");
        let mut stream = TcpStream::from(socket);
        stream.write_all(&sent).expect("the kernel sends");
        assert_eq!(stream.read(&mut [0; 10]).expect("the end"), 0);
        sys::tcp_info(stream.as_fd()).expect("TCP_INFO").tcpi_options
    });
    let socket = world.ours.accept(listener).expect("a connection");
    assert!(world.ours.read_exact(socket, 500) == request);
    let info = world.ours.with(|stack| stack.status(socket)).expect("TCP_INFO");
    world.ours.with(|stack| stack.shutdown(socket, How::Write)).expect("ours has sent");
    let options = world.ours.join(kernel);
    world.ours.close(socket);
    world.ours.close(listener);
    [came(info.options), came(options)]
}

#[test]
fn fast_open_with_what_the_kernel_allows() {
    for allowed in 0..4u8 {
        each(&Recipe::default(), |world, side| {
            println!("tcp_fastopen {allowed}");
            world.namespace.set("net/ipv4/tcp_fastopen", &allowed.to_string());
            assert!(world.ours.host.parts().host.set("tcp_fastopen", 3));
            // As server it must give cookies, as client ask for them.
            let needs = if side.ours_connects { 2 } else { 1 };
            let works = allowed & needs != 0;
            assert_eq!(early(world, side), [false; 2], "nobody has a cookie yet");
            for _ in 0..2 {
                assert_eq!(early(world, side), [works; 2]);
            }
        });
    }
}

#[test]
fn a_bad_wire_between_the_two() {
    let rows = [
        ("loss", Path { loss: 0.02, ..Path::delayed(Duration::from_millis(1)) }),
        (
            "reordering",
            Path {
                reorder: 0.05,
                reorder_by: Duration::from_millis(2),
                ..Path::delayed(Duration::from_millis(1))
            },
        ),
        ("duplicates", Path { duplicate: 0.1, ..Path::delayed(Duration::from_millis(1)) }),
        ("corruption", Path { corrupt: 0.01, ..Path::delayed(Duration::from_millis(1)) }),
        (
            "bursts of loss",
            Path {
                burst: Some(Burst { enter: 0.005, leave: 0.3, loss: 0.8 }),
                ..Path::delayed(Duration::from_millis(1))
            },
        ),
        ("a bottleneck", Path::limited(100_000_000, Duration::from_millis(1), Duration::from_millis(4))),
    ];
    for (seed, (name, path)) in rows.into_iter().enumerate() {
        each(&Recipe { path, seed: seed as u64, ..Recipe::default() }, |world, side| {
            println!("{name}");
            bulk(300_000)(world, side);
        });
    }
}
