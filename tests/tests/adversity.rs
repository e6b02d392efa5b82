//! Networks and programs that behave badly, in virtual time: the rows F30 to F34 of the project's list of faults. Each test says in
//! its name what must hold, and names its row.

use harness::sim::path::{Burst, Path};
use harness::sim::port::Setup;
use harness::sim::raw::ip;
use harness::sim::tcp::{PATIENCE, Plan, TcpHost, limits, text};
use harness::sim::{Node, Simulation};
use stack::error::Error;
use stack::events::WRITABLE;
use stack::region::slab::Handle;
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A time when nobody reads yet.
const NEVER: Instant = Instant(u64::MAX);

/// A client that sends this text, a server that answers with nothing, and the path each way.
fn sending(seed: u64, text: Vec<u8>, plan: Plan, path: Path) -> (Simulation<TcpHost>, Node, Node) {
    let client = TcpHost::new(1, &limits(4096)).knowing(&[2]).opening(Instant(0), ip(2), text);
    let server = TcpHost::server(2, &limits(4096), plan).knowing(&[1]);
    let mut network = Simulation::new(seed);
    let setup = |number| Setup { frames: 4096, ring: 2048, ..Setup::plain(number) };
    let (a, b) = (network.add(client, setup(1)), network.add(server, setup(2)));
    network.wire(a, b, path, path);
    (network, a, b)
}

/// Runs until both programs are done; when that was.
fn run(network: &mut Simulation<TcpHost>, nodes: [Node; 2]) -> Duration {
    while !nodes.into_iter().all(|node| network.look(node).is_done()) {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
    network.now() - Instant(0)
}

/// Loses everything both ways, or nothing.
fn set_down(network: &mut Simulation<TcpHost>, node: Node, is_down: bool) {
    let (up, down) = network.paths(node);
    up.loss = if is_down { 1.0 } else { 0.0 };
    down.loss = up.loss;
}

/// Does something with the only connection of a host.
fn with<R>(
    network: &mut Simulation<TcpHost>,
    node: Node,
    act: impl FnOnce(&mut stack::stack::Stack<'_, '_, harness::sim::port::Port>, Handle) -> R,
) -> Option<R> {
    let now = network.now();
    let (host, port) = network.host_and_port(node);
    let socket = host.talks.first()?.socket?;
    Some(host.with(now, port, |stack| act(stack, socket)))
}

#[test]
fn f30_what_arrives_is_what_was_sent_at_any_loss() {
    let base = Path { rate: 100_000_000, ..Path::delayed(ms(10)) };
    let lossy = |loss| Path { loss, ..base };
    let rows = [
        ("0.1% loss", lossy(0.001), 2_000_000),
        ("1% loss", lossy(0.01), 1_000_000),
        ("5% loss", lossy(0.05), 300_000),
        ("30% loss", lossy(0.3), 60_000),
        ("reordering", Path { reorder: 0.2, reorder_by: ms(8), ..base }, 500_000),
        ("duplicates", Path { duplicate: 0.3, ..base }, 500_000),
        ("a flipped bit", Path { corrupt: 0.02, ..base }, 500_000),
        ("jitter", Path { jitter: ms(30), ..base }, 300_000),
    ];
    for (name, path, len) in rows {
        for seed in 0..6 {
            let sent = text(seed, len);
            let (mut network, a, b) = sending(seed, sent.clone(), Plan::default(), path);
            run(&mut network, [a, b]);
            let server = network.look(b);
            // At 30 % a handshake may need more tries than there are, or one end be given up: then it is told.
            if let Some(error) = network.look(a).talks[0].error {
                assert!(path.loss >= 0.3 && error == Error::TimedOut, "{name}, seed {seed}: {error:?}");
                continue;
            }
            assert!(server.talks[0].got == sent, "{name}, seed {seed}");
            let client = network.look(a);
            let [again, timeouts] =
                [Counter::SegmentsRetransmitted, Counter::Timeouts].map(|c| client.counter(c));
            let segments = (len / 1448) as u64;
            // What was sent again is what was lost, and not much more.
            let lost = network.counts(a).0;
            let missing = lost.lost + lost.corrupted;
            let is_mixed = path.jitter.0 > 0 || path.reorder > 0.0;
            let most = if is_mixed { segments / 4 } else { missing * 3 / 2 + 20 };
            assert!(again <= most, "{name}, seed {seed}: {again} of {segments} again, {missing} lost");
            assert!(timeouts <= missing + 2, "{name}, seed {seed}: {timeouts} timeouts, {missing} lost");
        }
    }
}

#[test]
fn f30_blackouts_cost_a_timeout_each() {
    let path = Path::limited(100_000_000, ms(10), ms(20));
    let sent = text(1, 30 << 20);
    let (mut network, a, b) = sending(1, sent.clone(), Plan::default(), path);
    let mut outages = 0;
    while !network.look(b).is_done() {
        network.run_for(ms(500));
        set_down(&mut network, a, true);
        network.run_for(ms(100));
        set_down(&mut network, a, false);
        outages += 1;
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
    assert!(network.look(b).talks[0].got == sent);
    let timeouts = network.look(a).counter(Counter::Timeouts);
    assert!(timeouts <= 2 * outages, "{timeouts} timeouts in {outages} outages");
}

#[test]
fn f30_a_window_that_was_cut_by_mistake_is_given_back_whole() {
    // Only acknowledgments are lost: nothing has to be sent again, and the timeout was one too many (F-RTO).
    let path = Path { rate: 1_000_000_000, ..Path::delayed(ms(10)) };
    let (mut network, a, _) = sending(9, text(9, 64 << 20), Plan::default(), path);
    network.run_for(ms(105));
    network.paths(a).1.loss = 1.0;
    network.run_for(ms(15));
    let before = network.host(a).parts().tcbs[0].congestion.cwnd();
    network.run_for(ms(200));
    network.paths(a).1.loss = 0.0;
    while network.look(a).counter(Counter::SpuriousRecoveries) == 0 {
        assert!(network.step(), "nothing will ever happen");
    }
    network.run_until(network.now());
    assert!(network.look(a).counter(Counter::Timeouts) >= 1);
    let after = network.host(a).parts().tcbs[0].congestion.cwnd();
    assert!(after >= before, "{before} segments before, {after} after");
}

#[test]
fn f30_a_link_that_comes_back_is_used_again_within_the_time_that_it_was_away() {
    let path = Path { rate: 10_000_000, ..Path::delayed(ms(5)) };
    let (mut network, a, b) = sending(2, text(2, 100 << 20), Plan::default(), path);
    for away in [300, 1_000, 5_000, 30_000] {
        network.run_for(ms(2_000));
        set_down(&mut network, a, true);
        network.run_for(ms(away));
        set_down(&mut network, a, false);
        let before = network.look(b).talks[0].got.len();
        // Timeouts double: the next is no further away than all before it together, and the first is 200 ms.
        network.run_for(ms(away + 450));
        let after = network.look(b).talks[0].got.len();
        assert!(after > before, "away for {away} ms");
    }
}

#[test]
fn f30_a_peer_that_is_gone_for_ever_is_given_up_as_linux_does() {
    let (mut network, a, _) = sending(3, text(3, 1 << 20), Plan::default(), Path::delayed(ms(5)));
    network.run_for(ms(30));
    set_down(&mut network, a, true);
    // RFC 9293 §3.8.3: at least 100 s; Linux's fifteen retries are 924.6 s.
    network.run_for(Duration::from_secs(900));
    assert_eq!(network.look(a).talks[0].error, None);
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.look(a).talks[0].error, Some(Error::TimedOut));
    assert_eq!(network.host(a).held()[..2], [0, 0], "sockets, queues");
}

#[test]
fn f31_on_a_path_of_microseconds_nothing_stalls_for_longer_than_the_smallest_timeout() {
    for delay_us in [1, 5, 20] {
        for seed in 0..8 {
            let burst = Some(Burst { enter: 0.002, leave: 0.4, loss: 1.0 });
            let path = Path { burst, rate: 10_000_000_000, ..Path::delayed(Duration::from_micros(delay_us)) };
            let sent = text(seed, 4 << 20);
            let (mut network, a, b) = sending(seed, sent.clone(), Plan::default(), path);
            let (mut got, mut moved, mut longest) = (0, network.now(), Duration(0));
            while !network.look(b).is_done() {
                assert!(network.step(), "nothing will ever happen");
                let now = network.look(b).talks.first().map_or(0, |talk| talk.got.len());
                if now > got {
                    longest = longest.max(network.now() - moved);
                    (got, moved) = (now, network.now());
                }
            }
            assert!(network.look(b).talks[0].got == sent);
            // A retransmission may be lost in the same burst: then the second timeout is twice as long.
            let timeouts = network.look(a).counter(Counter::Timeouts);
            let most = if timeouts > 0 { ms(650) } else { ms(210) };
            assert!(longest < most, "{delay_us} us, seed {seed}: {longest:?} with {timeouts} timeouts");
        }
    }
}

#[test]
fn f32_a_window_that_is_closed_for_ten_minutes_is_probed_and_opens_at_once() {
    let sent = text(4, 8 << 20);
    let plan = Plan { reads_from: Instant(0) + Duration::from_secs(600), ..Plan::default() };
    let (mut network, a, b) = sending(4, sent.clone(), plan, Path::delayed(ms(5)));
    network.run_for(Duration::from_secs(599));
    assert_eq!(network.look(a).talks[0].error, None, "a peer that answers lives (RFC 9293 MUST-37)");
    let probes = network.look(a).counter(Counter::WindowProbes);
    // 200 ms, doubled up to two minutes: ten, and one for each two minutes that are left.
    assert!((10..=16).contains(&probes), "{probes} probes");
    let took = run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == sent);
    assert!(took < Duration::from_secs(602), "{took:?}: the window is told, and not found by a probe");
    assert!(network.look(a).counter(Counter::WindowProbes) <= probes + 1);
}

#[test]
fn f32_a_window_update_that_is_lost_costs_one_probe() {
    let sent = text(5, 8 << 20);
    let plan = Plan { reads_from: Instant(0) + Duration::from_secs(100), ..Plan::default() };
    let (mut network, a, b) = sending(5, sent.clone(), plan, Path::delayed(ms(5)));
    network.run_for(Duration::from_secs(99));
    network.paths(b).0.loss = 1.0;
    network.run_for(Duration::from_secs(3));
    network.paths(b).0.loss = 0.0;
    let before = network.look(a).counter(Counter::WindowProbes);
    // The interval has doubled to 51.2 s at most.
    let took = run(&mut network, [a, b]);
    assert!(network.look(b).talks[0].got == sent);
    assert!(took < Duration::from_secs(160), "{took:?}");
    assert!(network.look(a).counter(Counter::WindowProbes) <= before + 1);
}

#[test]
fn f32_a_reader_of_one_byte_a_second_is_served_without_silly_segments() {
    let sent = text(6, 2 << 20);
    let plan = Plan { reads_from: NEVER, ..Plan::default() };
    let (mut network, a, b) = sending(6, sent.clone(), plan, Path::delayed(ms(5)));
    network.run_for(Duration::from_secs(1));
    let before = network.look(a).counter(Counter::SegmentsOut);
    let mut got = Vec::new();
    for _ in 0..300 {
        network.run_for(Duration::from_secs(1));
        let mut byte = [0];
        let read = with(&mut network, b, |stack, socket| stack.receive(socket, &mut [&mut byte]));
        assert_eq!(read, Some(Ok(1)));
        got.push(byte[0]);
    }
    assert_eq!(network.look(a).talks[0].error, None);
    // Probes, but no segment of a byte for each byte that was read.
    let segments = network.look(a).counter(Counter::SegmentsOut) - before;
    assert!(segments <= 16, "{segments} segments");
    // And then it reads all.
    let start = network.now();
    network.host(b).plan.reads_from = start;
    run(&mut network, [a, b]);
    got.extend_from_slice(&network.look(b).talks[0].got);
    assert!(got == sent);
    assert!(network.now() - start < Duration::from_secs(1), "{:?}", network.now() - start);
}

/// A writer that sleeps until it is told: after a write that had no room it waits for an edge (EPOLLET), and for nothing else.
struct Writer {
    text: Vec<u8>,
    sent: usize,
    /// Edges that it has seen, and whether it waits for the next.
    seen: u32,
    waits: bool,
    is_finished: bool,
    edges: u32,
}

impl Writer {
    fn new(text: Vec<u8>) -> Self {
        Self { text, sent: 0, seen: 0, waits: false, is_finished: false, edges: 0 }
    }

    fn act(&mut self, network: &mut Simulation<TcpHost>, node: Node) {
        let events = with(network, node, |stack, socket| stack.events(socket));
        let Some(events) = events.filter(|events| events.ready & WRITABLE != 0) else { return };
        if self.is_finished || self.waits && events.openings == self.seen {
            return;
        }
        self.edges += u32::from(self.waits);
        with(network, node, |stack, socket| {
            while self.sent < self.text.len() {
                let end = (self.sent + 10_000).min(self.text.len());
                // What the word says after this write is what the next edge is counted from.
                match stack.send(socket, &[&self.text[self.sent..end]], false) {
                    Ok(sent) => self.sent += sent,
                    Err(Error::WouldBlock) => {
                        (self.waits, self.seen) = (true, stack.events(socket).openings);
                        return;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            self.is_finished = true;
            stack.shutdown(socket, How::Write).expect("a connection");
        });
    }
}

/// A client whose program is a [`Writer`].
fn writing(seed: u64, path: Path, blocks: u32) -> (Simulation<TcpHost>, Node, Node) {
    let limits = |frames| stack::region::Limits { blocks, ..limits(frames) };
    let mut client = TcpHost::new(1, &limits(2048)).knowing(&[2]).opening(Instant(0), ip(2), Vec::new());
    client.plan.stays = true;
    let server = TcpHost::server(2, &limits(2048), Plan::default()).knowing(&[1]);
    let mut network = Simulation::new(seed);
    let setup = |number| Setup { frames: 2048, ring: 1024, ..Setup::plain(number) };
    let (a, b) = (network.add(client, setup(1)), network.add(server, setup(2)));
    network.wire(a, b, path, path);
    (network, a, b)
}

#[test]
fn f33_a_writer_that_waits_is_told_when_the_buffer_shrinks_under_it() {
    let path = Path { rate: 200_000_000, ..Path::delayed(ms(5)) };
    for (seed, blocks) in [(1, 256), (2, 8), (3, 0)] {
        let (mut network, a, b) = writing(seed, path, blocks);
        let sent = text(seed, 12 << 20);
        let mut writer = Writer::new(sent.clone());
        let mut next_outage = Instant(0) + ms(120);
        // After an outage the window is one segment, and the buffer twice of that at least.
        while !network.look(b).talks.first().is_some_and(|talk| talk.is_ended) {
            assert!(network.step(), "blocks {blocks}: nothing will ever happen, and the writer waits");
            assert!(
                network.now() < Instant(PATIENCE.0),
                "blocks {blocks}: {} of {}",
                writer.sent,
                sent.len()
            );
            let is_down = network.now() >= next_outage && network.now() < next_outage + ms(250);
            if network.now() >= next_outage + ms(250) {
                next_outage = network.now() + ms(200);
            }
            set_down(&mut network, a, is_down);
            writer.act(&mut network, a);
        }
        assert!(network.look(b).talks[0].got == sent, "blocks {blocks}");
        assert!(writer.edges > 10, "{} edges: it had to wait", writer.edges);
    }
}

/// What one exchange takes at the most beyond the round trip: `count` times the client writes a request in pieces, and the server
/// answers each with one byte once it has the whole.
fn exchanges(pieces: &[usize], no_delay: bool, count: usize) -> Duration {
    let rtt = ms(2);
    let path = Path::delayed(Duration(rtt.0 / 2));
    let plan = Plan { reads_from: NEVER, stays: true, ..Plan::default() };
    let (mut network, a, b) = sending(7, Vec::new(), plan.clone(), path);
    network.host(a).plan = plan;
    network.run_for(ms(100));
    with(&mut network, a, |stack, socket| stack.set_delay(socket, no_delay, false))
        .expect("a connection")
        .expect("room");
    let size: usize = pieces.iter().sum();
    let mut longest = Duration(0);
    for _ in 0..count {
        let start = network.now();
        for piece in pieces {
            let bytes = vec![7; *piece];
            assert_eq!(
                with(&mut network, a, |stack, socket| stack.send(socket, &[&bytes], false)),
                Some(Ok(*piece))
            );
        }
        let (mut got, mut is_answered) = (0, false);
        let mut buffer = vec![0; size];
        while !is_answered {
            assert!(network.step(), "nothing will ever happen");
            // Whom something has come for takes it before time goes on.
            network.run_until(network.now());
            if let Some(Ok(len)) =
                with(&mut network, b, |stack, socket| stack.receive(socket, &mut [&mut buffer]))
            {
                got += len;
                if got == size {
                    let sent = with(&mut network, b, |stack, socket| stack.send(socket, &[b"."], false));
                    assert_eq!(sent, Some(Ok(1)));
                }
            }
            is_answered = with(&mut network, a, |stack, socket| stack.receive(socket, &mut [&mut [0; 10]]))
                == Some(Ok(1));
        }
        longest = longest.max(network.now() - start);
    }
    Duration(longest.0.saturating_sub(rtt.0))
}

#[test]
fn f34_nagle_and_delayed_acknowledgments_meet_only_where_they_do_in_linux() {
    // One write, whatever its size: nothing is waited for.
    for size in [1, 536, 1447, 1448, 1449, 2897, 10_000] {
        let extra = exchanges(&[size], false, 20);
        assert!(extra < ms(5), "{size}: {extra:?}");
    }
    // Two small ones, and then a read: the second waits for the acknowledgment of the first, which waits for an answer: 40 ms.
    let extra = exchanges(&[100, 100], false, 20);
    // The wheel adds a part of that, as Linux's jiffies do.
    assert!(extra <= ms(45), "{extra:?}");
    // Not with TCP_NODELAY.
    for pieces in [&[100, 100][..], &[1, 1, 1, 1], &[1448, 1], &[3000, 10]] {
        let extra = exchanges(pieces, true, 20);
        assert!(extra < ms(5), "{pieces:?}: {extra:?}");
    }
    // Whole segments and a rest: Minshall's form of Nagle's algorithm lets the rest go (tcp_minshall_check).
    for pieces in [&[1448, 1][..], &[1448, 1448, 500]] {
        let extra = exchanges(pieces, false, 20);
        assert!(extra < ms(5), "{pieces:?}: {extra:?}");
    }
}

#[test]
fn f34_odd_writes_and_reads_make_no_silly_segments() {
    for (write, read) in [(1, 16_384), (7, 3), (1_447, 1), (1_449, 100), (2_897, 5_000)] {
        let sent = text(8, 120_000);
        let plan = Plan { read: read.max(2), ..Plan::default() };
        let (mut network, a, b) = sending(8, sent.clone(), plan, Path::delayed(ms(2)));
        network.host(a).plan.write = write;
        let took = run(&mut network, [a, b]);
        assert!(network.look(b).talks[0].got == sent);
        let segments = network.look(a).counter(Counter::SegmentsOut);
        let full = sent.len().div_ceil(1448) as u64;
        // Whole ones, one that a write began with, and those of handshake and end.
        assert!(
            segments <= full + full / 10 + 6,
            "write {write}, read {read}: {segments} segments for {full}"
        );
        assert!(took < ms(200), "write {write}, read {read}: {took:?}");
    }
}
