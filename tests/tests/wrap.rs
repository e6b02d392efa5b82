//! W22 of the list of attacks: sequence numbers that go round, at the start of a connection and in a long transfer, octet for octet.

use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::raw::ip;
use harness::sim::tcp::{Plan, TcpHost, limits, text};
use harness::sim::{Host, Node, Simulation};
use stack::error::Error;
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};

/// What is sent, over and over: a length that no power of two divides, so that no octet stands twice at the same place of a window.
const PATTERN: usize = 65_521;

/// A host whose program sends or reads so much of the pattern.
struct Long {
    host: TcpHost,
    pattern: Vec<u8>,
    left: u64,
    done: u64,
    is_over: bool,
}

impl Long {
    fn new(host: TcpHost, left: u64) -> Self {
        let mut pattern = text(22, PATTERN);
        pattern.extend_from_within(..);
        Self { host, pattern, left, done: 0, is_over: false }
    }

    fn piece(&self, len: usize) -> std::ops::Range<usize> {
        let begin = (self.done % PATTERN as u64) as usize;
        begin..begin + len.min(PATTERN)
    }

    /// Its program's turn; whether it did anything.
    fn act(&mut self, now: Instant, port: &mut Port) -> bool {
        let Some(socket) = self.host.talks.first().and_then(|talk| talk.socket).filter(|_| !self.is_over)
        else {
            return false;
        };
        if self.left > 0 {
            let range = self.piece(self.left.min(50_000) as usize);
            let pattern = &self.pattern;
            return match self.host.with(now, port, |stack| stack.send(socket, &[&pattern[range]], false)) {
                Ok(sent) => {
                    (self.done, self.left) = (self.done + sent as u64, self.left - sent as u64);
                    if self.left == 0 {
                        self.host.with(now, port, |stack| stack.shutdown(socket, How::Write)).expect("open");
                        self.is_over = true;
                    }
                    true
                }
                Err(Error::WouldBlock | Error::NotConnected) => false,
                Err(error) => panic!("{error:?}"),
            };
        }
        let mut buffer = vec![0; 50_000];
        match self.host.with(now, port, |stack| stack.receive(socket, &mut [&mut buffer])) {
            Ok(len) => {
                assert!(buffer[..len] == self.pattern[self.piece(len)], "after {} octets", self.done);
                (self.done, self.is_over) = (self.done + len as u64, len == 0);
                true
            }
            Err(Error::WouldBlock | Error::NotConnected) => false,
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl Host for Long {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        loop {
            let wanted = self.host.poll(now, port);
            if !self.act(now, port) {
                return wanted;
            }
        }
    }
}

/// A transfer of so much that begins at this time; the client's and the server's ISS.
fn run(at: Instant, len: u64, path: Path) -> ([u32; 2], Simulation<Long>, [Node; 2]) {
    let stays = Plan { stays: true, reads_from: Instant(u64::MAX), ..Plan::default() };
    let mut client = TcpHost::new(1, &limits(2048)).knowing(&[2]).opening(at, ip(2), Vec::new());
    client.plan = stays.clone();
    let server = TcpHost::server(2, &limits(2048), stays).knowing(&[1]);
    let mut network = Simulation::new(22);
    let setup = |number| Setup { frames: 2048, ring: 1024, ..Setup::plain(number) };
    let a = network.add(Long::new(client, len), setup(1));
    let b = network.add(Long::new(server, 0), setup(2));
    network.wire(a, b, path, path);
    network.run_until(at + Duration::from_millis(5));
    let iss = [a, b].map(|node| {
        let parts = network.host(node).host.parts();
        parts.tcbs.iter().find(|tcb| tcb.has_peer()).expect("a connection").iss().0
    });
    while !network.look(b).is_over {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
    }
    assert_eq!(network.look(b).done, len);
    for node in [a, b] {
        network.host(node).host.check();
    }
    (iss, network, [a, b])
}

/// A wire of many gigabits and a short way, so that a window is a good part of a megabyte.
const PATH: Path = Path { rate: 40_000_000_000, ..Path::delayed(Duration::from_micros(50)) };

#[test]
fn w22_both_ends_begin_just_before_zero() {
    // A connection's first number is a hash, and a clock of 64 ns (RFC 6528): the time of its beginning chooses it.
    let begin = Instant(1_000_000_000);
    for end in 0..2 {
        let (iss, ..) = run(begin, 10_000, PATH);
        let later = u64::from(0xffff_ff00u32.wrapping_sub(iss[end])) * 64;
        let (again, network, nodes) = run(Instant(begin.0 + later), 3_000_000, PATH);
        // Its clock has other ticks than the simulation's.
        assert!(again[end] >= 0xffff_f000, "{:#x}", again[end]);
        for node in nodes {
            assert_eq!(network.look(node).host.counter(Counter::SegmentsRetransmitted), 0);
        }
        let bad = Path {
            loss: 0.01,
            duplicate: 0.01,
            reorder: 0.02,
            reorder_by: Duration::from_micros(40),
            ..PATH
        };
        run(Instant(begin.0 + later), 3_000_000, bad);
    }
}

#[test]
fn w22_more_than_four_gibibytes() {
    // Without optimization it would take minutes: there the numbers go round once, from a beginning near their end.
    let len: u64 = if cfg!(debug_assertions) { 40 << 20 } else { (4 << 30) + (100 << 20) };
    let begin = Instant(1_000_000_000);
    let (iss, ..) = run(begin, 10_000, PATH);
    let later = u64::from((0u32.wrapping_sub(20 << 20)).wrapping_sub(iss[0])) * 64;
    let (again, network, nodes) = run(Instant(begin.0 + later), len, PATH);
    assert!(u64::from(again[0]) + len > 1 << 32, "it goes round");
    assert_eq!(network.look(nodes[0]).host.counter(Counter::SegmentsRetransmitted), 0);
}
