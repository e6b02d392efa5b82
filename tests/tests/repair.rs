//! A connection moves from our stack into a socket of the kernel's, and from a socket into our stack, by TCP_REPAIR, in the midst of a talk
//! with another kernel: what both ends read is what was written, and the peer is told nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::namespace::Namespace;
use harness::wire::repair::{self, Parcel};
use harness::wire::sys;
use harness::wire::tun::{Interface, Tun};
use harness::wire::world::{KERNEL, OURS, PORT, Recipe, Side, World, address};
use stack::device::Link;
use stack::region::slab::Handle;
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::Duration;

/// What is not read when the connection moves.
const UNREAD: usize = 5_000;
/// What is written and not acknowledged: more than a first window, so that some of it is not sent.
const WRITTEN: usize = 60_000;

/// A namespace with our address, whose interface takes our place on the wire.
fn elsewhere() -> (Namespace, Tun) {
    let namespace = Namespace::new().expect("a second namespace");
    let tun = Tun::new(&namespace, Interface { number: OURS, link: Link::Ip, mtu: 1500 });
    (namespace, tun)
}

fn export(world: &mut World, socket: Handle) -> Parcel {
    let (mut unread, mut text) = (Vec::new(), Vec::new());
    let it = world.ours.with(|stack| {
        let it = stack.export(
            socket,
            |piece| unread.extend_from_slice(piece),
            |piece| text.extend_from_slice(piece),
        );
        stack.abandon(socket).expect("it was exported");
        it
    });
    Parcel { it: it.expect("an established connection"), unread, text }
}

/// The peer's program reads `len` bytes, and writes all of this meanwhile; then both directions end.
fn peer(stream: TcpStream, writes: Vec<u8>, ends: bool) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut reading = stream.try_clone().expect("a stream");
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            reading.read_to_end(&mut got).expect("the peer reads");
            got
        });
        let mut writing = stream;
        writing.write_all(&writes).expect("the peer writes");
        if ends {
            writing.shutdown(Shutdown::Write).expect("the peer has written");
        }
        reader.join().expect("the reader")
    })
}

/// The peer has written what will not be read, and what we write is lost.
fn midst(world: &mut World, stream: &TcpStream, lost: bool) -> Vec<u8> {
    let early = text(1, UNREAD);
    (&*stream).write_all(&early).expect("the peer writes");
    world.ours.run_for(Duration::from_millis(20));
    if lost {
        world.ours.there.line(0).path().loss = 1.0;
    }
    early
}

/// The repaired socket has what its peer has.
fn is_alike(peer: &TcpStream, moved: &TcpStream) {
    let (theirs, its) = (sys::tcp_info(peer.as_fd()), sys::tcp_info(moved.as_fd()));
    let (theirs, its) = (theirs.expect("TCP_INFO"), its.expect("TCP_INFO"));
    assert_eq!(its.tcpi_options & 3, theirs.tcpi_options & 3, "timestamps, SACK");
    let turned = its.tcpi_snd_rcv_wscale.rotate_left(4);
    assert_eq!(turned, theirs.tcpi_snd_rcv_wscale);
}

/// The peer was told nothing that contradicts what it knew.
fn is_unnoticed(world: &World) {
    assert_eq!(world.namespace.counter("PAWSEstab"), 0, "its timestamps go on");
    assert_eq!(world.namespace.counter("EstabResets"), 0);
}

/// Sysctls of the peer's namespace, one for each row, so that what was negotiated differs.
const ROWS: [&str; 4] = ["", "net/ipv4/tcp_timestamps", "net/ipv4/tcp_sack", "net/ipv4/tcp_window_scaling"];

/// All of them at once: each is a namespace of its own, and waits for timeouts of the kernel's nearly all of its time.
fn worlds(act: impl Fn(&mut World, Side) + Sync) {
    let one = |side: Side, row: &str| {
        let Some(mut world) = World::new(&Recipe::default()) else { return };
        if !row.is_empty() {
            world.namespace.set(row, "0");
        }
        println!("{side:?} {row}");
        act(&mut world, side);
        world.ours.host.check();
    };
    thread::scope(|scope| {
        for side in Side::ALL {
            for row in ROWS {
                scope.spawn(move || one(side, row));
            }
        }
    });
}

#[test]
fn from_our_stack_into_a_socket_of_the_kernels() {
    for finished in [false, true] {
        worlds(|world, side| {
            let (socket, stream) = world.pair(side);
            let early = midst(world, &stream, true);
            let (written, later) = (text(2, WRITTEN), text(3, 300_000));
            assert_eq!(world.ours.send(socket, &written), WRITTEN);
            if finished {
                world.ours.with(|stack| stack.shutdown(socket, How::Write)).expect("open");
            }
            let parcel = export(world, socket);
            assert_eq!((&parcel.unread, &parcel.text), (&early, &written));
            let it = parcel.it;
            assert!(it.in_flight > 10_000 && it.unsent > 10_000, "{it:?}");
            let (namespace, tun) = elsewhere();
            world.ours.give_wire(Some(tun));
            world.ours.there.line(0).path().loss = 0.0;
            let kept = parcel.clone();
            let moved = namespace.inside(move || repair::put(&kept)).expect("TCP_REPAIR");
            is_alike(&stream, &moved);
            // It goes on: what was lost comes again, what was not sent is sent, and more in both directions.
            let more = if finished { Vec::new() } else { text(4, 200_000) };
            let theirs = peer(stream.try_clone().expect("a stream"), later.clone(), true);
            let ours = peer(moved.try_clone().expect("a stream"), more.clone(), !finished);
            let got = world.ours.join(ours);
            assert!(got == [early, later].concat(), "{} bytes came to the repaired socket", got.len());
            let got = world.ours.join(theirs);
            assert!(got == [written, more].concat(), "{} bytes came from it", got.len());
            is_unnoticed(world);
            world.ours.give_wire(None);
        });
    }
}

/// The connection that waits at a listener of the kernel's; the last packet of its handshake may be on its way.
fn accepted(world: &mut World, listener: TcpListener) -> TcpStream {
    let accepting = thread::spawn(move || listener.accept().expect("a connection").0);
    world.ours.join(accepting)
}

#[test]
fn from_a_socket_of_the_kernels_into_our_stack() {
    worlds(|world, side| {
        let (namespace, tun) = elsewhere();
        world.ours.give_wire(Some(tun));
        let Side { is_v6, ours_connects } = side;
        let (moving, stream) = if ours_connects {
            let listener = world.kernel_listener(is_v6, PORT);
            let at = SocketAddr::new(address(KERNEL, is_v6), PORT);
            let connecting = namespace.spawn(move || TcpStream::connect(at).expect("a connection"));
            let moving = world.ours.join(connecting);
            (moving, accepted(world, listener))
        } else {
            let at = SocketAddr::new(address(OURS, is_v6), PORT);
            let listener = namespace.inside(move || TcpListener::bind(at).expect("a listener"));
            let connecting = world.namespace.spawn(move || TcpStream::connect(at).expect("a connection"));
            let stream = world.ours.join(connecting);
            (accepted(world, listener), stream)
        };
        let early = midst(world, &stream, true);
        let (written, later) = (text(2, WRITTEN), text(3, 300_000));
        moving.set_nonblocking(true).expect("O_NONBLOCK");
        let mut taken = 0;
        while let Ok(sent) = (&moving).write(&written[taken..]) {
            taken += sent;
            if taken == written.len() {
                break;
            }
        }
        world.ours.run_for(Duration::from_millis(5));
        let parcel = repair::take(moving).expect("TCP_REPAIR");
        assert!(parcel.unread == early && parcel.text == written[..taken]);
        let it = parcel.it;
        assert!(it.in_flight > 10_000 && it.unsent > 10_000, "{it:?}");
        // The wire is ours from here on.
        world.ours.give_wire(None);
        world.ours.there.line(0).path().loss = 0.0;
        let socket = world.ours.with(|stack| {
            let socket = stack.parts.tcp_socket(is_v6, 0).expect("room");
            stack.import(socket, &it, &[&parcel.unread], &[&parcel.text]).expect("it is whole");
            socket
        });
        let theirs = peer(stream.try_clone().expect("a stream"), later.clone(), true);
        let more = [&written[taken..], &text(4, 200_000)].concat();
        let talked = world.ours.talk(socket, &more, true).expect("a talk");
        assert!(talked.got == [early, later].concat(), "{} bytes came to our stack", talked.got.len());
        let got = world.ours.join(theirs);
        assert!(got == [&written[..taken], &more].concat(), "{} bytes came from it", got.len());
        assert_eq!(world.ours.host.counter(Counter::ResetsOut), 0);
        is_unnoticed(world);
        world.ours.close(socket);
    });
}
