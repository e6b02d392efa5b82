//! What a receiver offers: it grows with text that fills its buffers, and not with text that only costs memory; and how fast the
//! sender finds its text delivered.

use harness::sim::Simulation;
use harness::sim::forge::Forged;
use harness::sim::hand::{Bench, connected};
use harness::sim::path::Path;
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::time::{Duration, Instant};
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;

const SHIFT: u32 = 4;
const FULL: usize = 1448;

/// The right edges that were offered, which never move left.
struct Edge(Option<u32>);

impl Edge {
    /// The window that these segments offer at last.
    fn look(&mut self, heard: &[Forged]) -> u32 {
        let mut wnd = 0;
        for segment in heard {
            wnd = u32::from(segment.window) << SHIFT;
            let edge = segment.ack.wrapping_add(wnd);
            let moved = edge.wrapping_sub(self.0.unwrap_or(edge)).cast_signed();
            assert!(moved >= 0, "the edge moves left by {}", -moved);
            self.0 = Some(edge);
        }
        wnd
    }
}

fn read_all(bench: &mut Bench, socket: Handle) {
    let mut bytes = vec![0; 1 << 20];
    while bench.with(|stack| stack.receive(socket, &mut [&mut bytes])).is_ok_and(|len| len > 0) {}
}

fn offered(bench: &mut Bench, socket: Handle) -> u32 {
    bench.with(|stack| stack.status(socket)).expect("a connection").rcv_ssthresh
}

#[test]
fn single_octets_take_little_memory_and_open_no_window() {
    let (mut bench, socket, mut seq, ack) = connected(1, &Values::default());
    let (mut edge, before) = (Edge(None), offered(&mut bench, socket));
    for round in 0..4000u32 {
        let heard = bench.send(Flags::ACK | Flags::PSH, seq, ack, Options::default(), b"x");
        edge.look(&heard);
        seq += 1;
        if round % 500 == 0 {
            assert!(bench.host().held()[3] <= 8, "{} frames for {round} octets", bench.host().held()[3]);
        }
    }
    assert_eq!(offered(&mut bench, socket), before);
    read_all(&mut bench, socket);
    // With a gap before each of them every one needs a frame, of which there are only so many.
    for at in 0..2000u32 {
        let heard = bench.send(Flags::ACK, seq + 1 + 2 * at, ack, Options::default(), b"x");
        edge.look(&heard);
    }
    assert!(bench.host().held()[3] <= 70, "{} frames behind gaps", bench.host().held()[3]);
    assert!(offered(&mut bench, socket) <= before);
}

#[test]
fn full_segments_open_the_window_as_far_as_their_reader_is_fast() {
    let (mut bench, socket, mut seq, ack) = connected(2, &Values::default());
    let (mut edge, text) = (Edge(None), vec![7; FULL]);
    let mut windows = Vec::new();
    for round in 0..600 {
        let heard = bench.send(Flags::ACK, seq, ack, Options::default(), &text);
        seq += FULL as u32;
        if !heard.is_empty() {
            windows.push(edge.look(&heard));
        }
        if round % 40 == 0 {
            read_all(&mut bench, socket);
        }
    }
    let (first, largest) = (windows[0], windows.iter().max().copied().unwrap_or(0));
    assert!(first <= 1 << 16, "{first}");
    assert!(largest > 1 << 17, "{largest}");
}

#[test]
fn what_finds_no_room_closes_the_window_until_text_arrives_in_order() {
    let (mut bench, socket, seq, ack) = connected(3, &Values::default());
    let text = vec![7; 300];
    // A hole, and then as many frames as there may be with gaps between them.
    for at in 0..150u32 {
        bench.send(Flags::ACK, seq + 10 + 400 * at, ack, Options::default(), &text);
    }
    let clamped = offered(&mut bench, socket);
    assert_eq!(clamped, 2 * 1460, "two segments (tcp_clamp_window)");
    bench.send(Flags::ACK, seq, ack, Options::default(), &vec![7; 310]);
    assert!(offered(&mut bench, socket) > clamped);
}

#[test]
fn the_delivery_rate_is_the_bottlenecks() {
    for (mbits, seed) in [(20, 4), (100, 5)] {
        let client =
            TcpHost::new(1, &limits(4096)).knowing(&[2]).opening(Instant(0), ip(2), text(1, 16 << 20));
        let server = TcpHost::server(2, &limits(4096), Plan::default()).knowing(&[1]);
        let mut network = Simulation::new(seed);
        let setup = |number| Setup { frames: 4096, ring: 2048, ..Setup::plain(number) };
        let (a, b) = (network.add(client, setup(1)), network.add(server, setup(2)));
        let there = Path::limited(mbits * 1_000_000, Duration::from_millis(10), Duration::from_millis(20));
        network.wire(a, b, there, Path::delayed(Duration::from_millis(10)));
        network.run_for(Duration::from_secs(1));
        let now = network.now();
        let (host, port) = network.host_and_port(a);
        let socket = host.talks[0].socket.expect("a connection");
        let info = host.with(now, port, |stack| stack.status(socket)).expect("a connection");
        // Text of 1448 bytes in frames of 1514; a reduction of the window may leave the path idle for a moment.
        let wanted = mbits * 125_000 * 1448 / 1514;
        assert!(
            (wanted * 8 / 10..=wanted * 101 / 100).contains(&info.delivery_rate),
            "{} of {wanted} bytes per second, bits {:x}",
            info.delivery_rate,
            info.bits
        );
        assert_eq!(info.bits & 1, 0, "the path limits it, not the application");
    }
}
