//! What a receiver offers: it grows with text that fills its buffers, and not with text that only costs memory.

use harness::sim::forge::Forged;
use harness::sim::hand::{Bench, connected};
use stack::region::slab::Handle;
use stack::settings::Values;
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
