//! The stack over AF_XDP, on a cable between two hosts: with the kernel at the far end, and with itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use driver::bpf::object::Attach;
use driver::steering::{Place, Protocol};
use driver::xdp::open::{Request, Way, open};
use driver::xdp::socket::Mode;
use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::namespace::{Namespace, joined, kernel_talks};
use harness::wire::sys::option_bytes;
use harness::wire::veth::{Cable, NAME};
use harness::wire::world::address;
use harness::wire::xsk::{Ended, Xsk};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::tcp::calls::How;

const PORT: u16 = 7000;
const FRAMES: u32 = 4096;

/// Connections of either version, opened by either side, to the kernel at the other end; both send and read all.
fn talk_to_kernel(cable: Cable, len: usize) {
    let Some([near, far]) = cable.lay() else { return };
    let mut ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    for is_v6 in [false, true] {
        for connects in [false, true] {
            println!("IPv6 {is_v6}, we connect {connects}");
            let (socket, stream) = pair(&mut ours, &far, is_v6, connects);
            let (there, back) = (text(1, len), text(2, len));
            let kernel = kernel_talks(&stream, &back);
            let talked = ours.talk(socket, &there, true).expect("a talk");
            let got = ours.join(kernel);
            assert!(talked.got == back, "{} of {} came from the kernel", talked.got.len(), back.len());
            assert!(got == there, "{} of {} came to the kernel", got.len(), there.len());
            ours.close(socket);
        }
    }
    ours.host.check();
    // The kernel found nothing wrong with what we put into its rings.
    for queue in ours.opened.device.queues() {
        let seen = queue.statistics().expect("its counts");
        assert_eq!((seen.rx_invalid, seen.tx_invalid), (0, 0));
    }
}

/// The kernel leaves checksums to a device that there isn't, and its segments go the short way all the same.
#[test]
fn what_the_kernel_says_is_expected() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let mut ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    let (socket, mut stream) = pair(&mut ours, &far, false, true);
    let mut buffer = [0; 64];
    for turn in 0..100 {
        stream.write_all(&[turn; 64]).expect("the kernel sends");
        assert_eq!(ours.read(socket, &mut buffer), Ok(64));
        assert_eq!((ours.send(socket, &buffer), buffer), (64, [turn; 64]));
        stream.read_exact(&mut buffer).expect("the kernel receives");
    }
    let (all, expected) =
        (ours.host.counter(Counter::SegmentsIn), ours.host.counter(Counter::HeaderPredicted));
    assert!(expected * 10 > all * 9, "{expected} of {all}");
}

/// The kernel cuts what is long: whole runs of segments leave as one packet, and what is short never overtakes them.
#[test]
fn long_and_short_packets_leave_in_their_order() {
    for (mtu, is_v6) in [(1500, false), (1500, true), (9000, false), (65_535, true)] {
        let Some([near, far]) = (Cable { mtu, ..Cable::default() }).lay() else { return };
        let mut ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
        let (socket, stream) = pair(&mut ours, &far, is_v6, true);
        let kernel = kernel_talks(&stream, &[]);
        let whole = text(10, 6 << 20);
        let mut left = &whole[..];
        for len in [150_000, 10, 3000, 1, 20_000, 500].into_iter().cycle() {
            let (now, later) = left.split_at(len.min(left.len()));
            let mut unsent = now;
            while !unsent.is_empty() {
                let sent = ours.send(socket, unsent);
                unsent = &unsent[sent..];
            }
            left = later;
            if left.is_empty() {
                break;
            }
        }
        ours.with(|stack| stack.shutdown(socket, How::Write)).expect("the end");
        assert!(ours.join(kernel) == whole);
        let [packets, segments] =
            [Counter::PacketsOut, Counter::SegmentsOut].map(|name| ours.host.counter(name));
        assert!(packets * 3 < segments, "MTU {mtu}: {segments} segments in {packets} packets");
        assert_eq!(out_of_order(&stream), 0, "MTU {mtu}");
        let lost = ours.opened.device.kicker().packets().map(|packets| packets.lost());
        assert_eq!(lost, Some(0));
        ours.close(socket);
        ours.host.check();
    }
}

/// Segments that the kernel found behind a gap: tcpi_rcv_ooopack (linux/tcp.h), which libc's tcp_info doesn't have.
fn out_of_order(stream: &TcpStream) -> u32 {
    let mut info = [0; 256];
    let len = option_bytes(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).expect("TCP_INFO");
    assert!(len >= 228, "a kernel that counts them");
    info[224..228].try_into().map(u32::from_ne_bytes).expect("four bytes")
}

/// A connection between our stack and the kernel's.
fn pair(ours: &mut Xsk, far: &Namespace, is_v6: bool, connects: bool) -> (Handle, TcpStream) {
    if connects {
        let at = SocketAddr::new(address(2, is_v6), PORT);
        let listener = far.inside(move || TcpListener::bind(at).expect("a listener of the kernel's"));
        let remote = if is_v6 { harness::sim::raw::ip6(2) } else { harness::sim::raw::ip(2) };
        let socket = ours.connect(remote, PORT, &Values::default()).expect("a connection");
        let accepting = std::thread::spawn(move || listener.accept().expect("a connection").0);
        return (socket, ours.join(accepting));
    }
    // A connection before it may be in TIME-WAIT.
    let listener = ours.listen(PORT, &Values { options: Switch::REUSE_ADDRESS, ..Values::default() });
    let at = SocketAddr::new(address(1, is_v6), PORT);
    let connecting = far.spawn(move || TcpStream::connect(at).expect("a connection of the kernel's"));
    let socket = ours.accept(listener).expect("a connection");
    ours.close(listener);
    (socket, ours.join(connecting))
}

#[test]
fn the_kernel_at_the_far_end() {
    talk_to_kernel(Cable::default(), 4 << 20);
}

#[test]
fn packets_of_every_size() {
    for mtu in [1280, 9000, 65_535] {
        talk_to_kernel(Cable { mtu, ..Cable::default() }, 4 << 20);
    }
}

/// The kernel spreads its connections over the queues: each has a socket.
#[test]
fn every_queue_is_served() {
    let cable = Cable { queues: 4, ..Cable::default() };
    let Some([near, far]) = cable.lay() else { return };
    let mut ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    assert_eq!(ours.opened.device.queues().len(), 4);
    for _ in 0..16 {
        let (socket, stream) = pair(&mut ours, &far, false, false);
        let kernel = kernel_talks(&stream, &text(3, 50_000));
        let talked = ours.talk(socket, b"here", true).expect("a talk");
        assert_eq!((talked.got.len(), ours.join(kernel)), (50_000, b"here".to_vec()));
        ours.close(socket);
    }
}

/// In the driver, where a device can do it, and behind it.
#[test]
fn native_mode() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let way = Way { attach: Attach::Native, mode: Mode::Copy };
    let mut ours = Xsk::new(&near, (1, 2), FRAMES, Some(way), PORT);
    assert_eq!(ours.opened.way, way);
    let (socket, stream) = pair(&mut ours, &far, false, true);
    let kernel = kernel_talks(&stream, &text(4, 1 << 20));
    let talked = ours.talk(socket, &text(5, 1 << 20), true).expect("a talk");
    assert!(talked.got == text(4, 1 << 20) && ours.join(kernel) == text(5, 1 << 20));
}

/// A port that nobody claimed, and one that is claimed but not wanted, are the kernel's; and all is when the interface is closed.
#[test]
fn the_kernel_keeps_what_is_its_own() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let ours = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    let echoes = |port: u16| {
        let at = SocketAddr::new(address(1, false), port);
        let listener = near.inside(move || TcpListener::bind(at).expect("a listener"));
        let stream = far.inside(move || TcpStream::connect(at).expect("a connection"));
        let (served, _) = listener.accept().expect("a connection");
        let (there, back) = (text(6, 100_000), text(7, 100_000));
        let [one, other] = [kernel_talks(&stream, &there), kernel_talks(&served, &back)];
        assert!(joined(other) == there && joined(one) == back);
    };
    echoes(PORT + 1);
    for slot in 0..2 {
        let place = Place { slot, protocol: Protocol::Tcp, port: PORT };
        ours.opened.requests.want(place, false);
    }
    echoes(PORT);
    drop(ours);
    echoes(PORT);
}

/// One sentence, and nothing is changed.
#[test]
fn an_interface_that_somebody_has_is_refused() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let mut first = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    let request = || open(&Request { name: NAME, owner: 1, frames: FRAMES, way: None });
    let said = near.inside(request).map(|_| ()).expect_err("it is taken").to_string();
    assert!(said.contains("another XDP program") && said.contains(NAME), "{said}");
    let (socket, stream) = pair(&mut first, &far, false, false);
    first.close(socket);
    drop(stream);
    drop(first);
    // Nothing stays behind.
    assert!(near.inside(request).is_ok());
}

/// Both ends are ours: neither kernel sees a segment.
#[test]
fn both_ends() {
    let Some([near, far]) = Cable::default().lay() else { return };
    let mut one = Xsk::new(&near, (1, 2), FRAMES, None, PORT);
    let mut other = Xsk::new(&far, (2, 1), FRAMES, None, PORT);
    let listener = other.listen(PORT, &Values::default());
    let ended = Ended::default();
    let there = ended.clone();
    let serving = std::thread::spawn(move || {
        let socket = other.accept(listener).expect("a connection");
        let talked = other.talk(socket, &text(8, 8 << 20), true).expect("a talk");
        other.part(socket, &there);
        other.host.check();
        talked.got
    });
    let remote = harness::sim::raw::ip(2);
    let socket = one.connect(remote, PORT, &Values::default()).expect("a connection");
    let talked = one.talk(socket, &text(9, 8 << 20), true).expect("a talk");
    one.part(socket, &ended);
    assert!(talked.got == text(8, 8 << 20) && joined(serving) == text(9, 8 << 20));
    one.host.check();
}
