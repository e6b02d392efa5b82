//! Devices that cut and join: packets of several frames in, and out of them. What a device does to segments changes nothing of the
//! bytes that arrive, of the rules of acknowledging, and of what no link is asked to carry.

use harness::sim::craft;
use harness::sim::forge::Forged;
use harness::sim::line::line;
use harness::sim::path::Path;
use harness::sim::port::{Port, Setup};
use harness::sim::random::Random;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::{PATIENCE, PORT, Plan, TcpHost, limits, text};
use harness::sim::trace::{Record, What};
use harness::sim::{Host, Node, Simulation};
use stack::device::Link;
use stack::region::layout::Header;
use stack::seq::Seq;
use stack::settings::Values;
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;
use stack::wire::{icmp, protocol};

const BASE: Path = Path::delayed(Duration::from_millis(5));

/// A bad path of each kind.
fn bad(seed: u64) -> Path {
    let jitter = Duration::from_millis(1);
    match seed % 4 {
        0 => Path { loss: 0.03, ..BASE },
        1 => Path { reorder: 0.1, reorder_by: Duration::from_millis(3), duplicate: 0.05, jitter, ..BASE },
        2 => Path { corrupt: 0.02, loss: 0.01, ..BASE },
        _ => Path {
            loss: 0.02,
            duplicate: 0.02,
            reorder: 0.05,
            reorder_by: Duration::from_millis(4),
            jitter,
            ..BASE
        },
    }
}

/// A device with frames and rings enough that nothing is lost for want of them.
fn ample(setup: Setup) -> Setup {
    Setup { frames: 4096, ring: 2048, ..setup }
}

/// A client that sends `there` and a server that answers with `back`, with these devices.
fn pair(seed: u64, setups: [Setup; 2], path: Path, texts: [&[u8]; 2]) -> (Simulation<TcpHost>, [Node; 2]) {
    let remote = if seed.is_multiple_of(2) { ip(2) } else { ip6(2) };
    let plan = Plan { answer: texts[1].to_vec(), ..Plan::default() };
    let mut client =
        TcpHost::new(1, &limits(4096)).knowing(&[2]).opening(Instant(0), remote, texts[0].to_vec());
    let mut server = TcpHost::server(2, &limits(4096), plan).knowing(&[1]);
    (client.checks, server.checks) = (true, true);
    let mut network = Simulation::new(seed);
    let nodes = [network.add(client, setups[0]), network.add(server, setups[1])];
    network.wire(nodes[0], nodes[1], path, path);
    (network, nodes)
}

/// Runs until both have closed, and the bytes are those that were sent; nothing is left once TIME-WAIT has passed.
fn run(network: &mut Simulation<TcpHost>, nodes: [Node; 2], texts: [&[u8]; 2]) {
    while !nodes.into_iter().all(|node| network.look(node).is_done()) {
        assert!(network.step(), "nothing will ever happen, and somebody waits");
        assert!(network.now() < Instant(PATIENCE.0), "it does not end");
    }
    let got = |node: usize| &network.look(nodes[node]).talks[0].got[..];
    assert!(got(1) == texts[0], "{} of {} arrived", got(1).len(), texts[0].len());
    assert!(got(0) == texts[1], "{} of {} came back", got(0).len(), texts[1].len());
    network.run_for(Duration::from_secs(400));
    for (node, listeners) in nodes.into_iter().zip([0, 1]) {
        network.host(node);
        network.run_for(Duration::from_millis(1));
        let host = network.host(node);
        host.check();
        assert_eq!(host.held(), [listeners, 0, 0, 0], "sockets, queues, SYNs, frames");
    }
}

fn counters(network: &Simulation<TcpHost>, nodes: [Node; 2], counter: Counter) -> [u64; 2] {
    nodes.map(|node| network.look(node).counter(counter))
}

/// Everything that a client and a server send and get.
fn journal(seed: u64, setups: [Setup; 2], path: Path, texts: [&[u8]; 2]) -> Vec<Record> {
    let (mut network, nodes) = pair(seed, setups, path, texts);
    network.keep_journal();
    run(&mut network, nodes, texts);
    network.journal()
}

/// Whether these are the same packets, byte for byte and at the same times; the first that isn't is shown.
fn assert_same_packets(seed: u64, one: &[Record], other: &[Record]) {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    let lines = |journal: &[Record]| {
        let from = differs.unwrap_or_default().saturating_sub(4);
        let line = |it: &Record| format!("{} host {} {:?} {}", it.0, it.1, it.2, line(&it.3, Link::Ethernet));
        journal.iter().skip(from).take(7).map(line).collect::<Vec<_>>().join("\n")
    };
    assert!(one == other, "seed {seed}\n{}\n\n{}", lines(one), lines(other));
}

#[test]
fn a_segment_in_several_frames_is_as_one_in_one() {
    // 600 bytes of each frame are the device's room: a full segment comes in three of them.
    for seed in 0..24 {
        let texts = [&text(seed, 30_000)[..], &text(seed + 100, 20_000)];
        let path = if seed % 3 == 0 { BASE } else { bad(seed) };
        let one = [1, 2].map(|number| ample(Setup { gro: true, ..Setup::plain(number) }));
        let several = one.map(|setup| Setup { headroom: 2048 - 600, ..setup });
        let (one, several) = (journal(seed, one, path, texts), journal(seed, several, path, texts));
        // What is offered depends on the memory that text takes.
        let seen = |journal: &[Record]| journal.iter().map(without_window).collect::<Vec<_>>();
        let (one, several) = (seen(&one), seen(&several));
        let differs = one.iter().zip(&several).position(|(one, other)| one != other);
        assert!(one == several, "seed {seed}: {:?}", differs.map(|at| (&one[at], &several[at])));
    }
}

/// A packet as a line, but for the window that it offers.
fn without_window(record: &Record) -> String {
    let words = line(&record.3, Link::Ethernet);
    let kept = match words.split_once(" win ") {
        Some((before, after)) => {
            [before, after.trim_start_matches(|byte: char| byte.is_ascii_digit())].concat()
        }
        None => words,
    };
    format!("{} host {} {:?} {kept}", record.0, record.1, record.2)
}

#[test]
fn what_a_device_joins_is_acknowledged_as_often_as_linux_does() {
    let sent = text(1, 1 << 20);
    let joins = |number| Setup {
        gro: true,
        marks_checksums: true,
        moderation: Duration(100_000),
        ..ample(Setup::plain(number))
    };
    // At 1 Gbit/s there are eight segments in 100 µs.
    let path = Path { rate: 1_000_000_000, ..Path::delayed(Duration::from_millis(1)) };
    let (mut network, nodes) = pair(2, [Setup::plain(1), joins(2)].map(ample), path, [&sent, &[]]);
    run(&mut network, nodes, [&sent, &[]]);
    let received = network.port(nodes[1]).counters.received;
    let segments = (sent.len() as u64).div_ceil(1448);
    assert!(received < segments / 3, "{received} packets of {segments} segments");
    let [sender, receiver] = counters(&network, nodes, Counter::SegmentsOut);
    assert!(sender >= segments && receiver <= received + 4, "{receiver} for {received} packets");
    // No packet of two segments and more waits for another one.
    assert!(receiver * 2 > received, "{receiver} for {received} packets");
    assert_eq!(counters(&network, nodes, Counter::SegmentsRetransmitted), [0, 0]);
    assert_eq!(counters(&network, nodes, Counter::DelayedAcks)[1], 0);
}

#[test]
fn what_is_joined_is_put_in_order() {
    for seed in 0..40 {
        let texts = [&text(seed, 150_000)[..], &text(seed + 100, 60_000)];
        let moderation = Duration(if seed % 2 == 0 { 200_000 } else { 2_000_000 });
        let joins = |number| {
            let plain =
                Setup { gro: true, moderation, marks_checksums: seed % 3 == 0, ..Setup::plain(number) };
            ample(Setup { headroom: [256, 1500, 1900][seed as usize % 3], ..plain })
        };
        let path = Path { rate: 200_000_000, ..bad(seed) };
        let (mut network, nodes) = pair(seed, [joins(1), joins(2)], path, texts);
        run(&mut network, nodes, texts);
    }
}

/// A device that cuts, and joins nothing.
fn cuts(number: u8) -> Setup {
    ample(Setup { fragments_max: 64, checksum_out: true, tso_bytes_max: 65_000, ..Setup::plain(number) })
}

/// The same, where it completes checksums of what it cuts only: AF_XDP beside a packet socket.
fn only_cuts(number: u8) -> Setup {
    Setup { checksum_out: false, ..cuts(number) }
}

/// What goes from link to host is one of Ethernet's packets at most.
fn narrow(path: Path) -> Path {
    Path { bytes_max: 1514, ..path }
}

/// What both hosts got of TCP, and when, but for PSH.
fn segments(journal: &[Record]) -> Vec<(u64, usize, Forged)> {
    let got = journal.iter().filter(|record| record.2 == What::Got);
    let parsed = got.filter_map(|record| Some((record.0, record.1, Forged::parse(&record.3)?)));
    let plain = |it: Forged| Forged { flags: Flags(it.flags.0 & !Flags::PSH.0), ..it };
    parsed.map(|(at, node, segment)| (at, node, plain(segment))).collect()
}

/// Whether these are the same segments, one by one; the first that isn't is shown.
fn assert_same(seed: u64, plainly: &[(u64, usize, Forged)], by_device: &[(u64, usize, Forged)]) {
    let name = |it: &(u64, usize, Forged)| format!("{it:?}");
    let differs = plainly.iter().zip(by_device).position(|(one, other)| name(one) != name(other));
    if let Some(at) =
        differs.or((plainly.len() != by_device.len()).then_some(plainly.len().min(by_device.len())))
    {
        let show = |all: &[(u64, usize, Forged)]| {
            let short = |it: &(u64, usize, Forged)| {
                let Forged { seq, ack, flags, window, text, .. } = &it.2;
                format!("{} {} {flags} {seq}+{} ack {ack} win {window}", it.0, it.1, text.len())
            };
            all.iter().skip(at.saturating_sub(5)).take(9).map(short).collect::<Vec<_>>().join("\n")
        };
        panic!("seed {seed}, segment {at}\n{}\n\n{}", show(plainly), show(by_device));
    }
}

/// RFC 9293 §3.9.1.2: a sender "MUST set the PSH bit in the last buffered segment (i.e., when there is no more queued data to be
/// sent) (MUST-61)".
fn assert_last_is_pushed(journal: &[Record]) {
    for node in [0, 1] {
        let got = journal.iter().filter(|record| record.2 == What::Got && record.1 == node);
        let parsed: Vec<Forged> = got.filter_map(|record| Forged::parse(&record.3)).collect();
        let end = |it: &Forged| Seq(it.seq) + it.text.len() as u32;
        let texts = parsed.iter().filter(|it| !it.text.is_empty());
        let last = texts.reduce(|last, it| if end(last).lt(end(it)) { it } else { last }).expect("text");
        assert!(last.flags.has(Flags::PSH), "{} has no PSH", last.seq);
    }
}

#[test]
fn on_the_wire_nothing_tells_that_a_device_cuts() {
    let mut packets = [0; 3];
    for seed in 0..32 {
        let texts = [&text(seed, 200_000)[..], &text(seed + 100, 50_000)];
        let path = narrow(if seed % 5 == 0 { BASE } else { bad(seed + seed / 4) });
        let devices = [|number| ample(Setup::plain(number)), cuts, only_cuts];
        let mut all = devices.iter().zip(&mut packets).map(|(device, packets)| {
            let (mut network, nodes) = pair(seed, [device(1), device(2)], path, texts);
            for node in nodes {
                // No run waits for a longer one.
                assert!(network.host(node).parts().host.set("tcp_tso_win_divisor", 255));
            }
            network.keep_journal();
            run(&mut network, nodes, texts);
            *packets += network.port(nodes[0]).counters.sent;
            // RFC 9293 §3.7.1 (MUST-16): no segment is larger than what the path takes.
            assert_eq!(nodes.map(|node| network.counts(node).0.too_large), [0, 0]);
            let journal = network.journal();
            assert_last_is_pushed(&journal);
            segments(&journal)
        });
        let plainly = all.next().expect("the first");
        for by_device in all {
            assert_same(seed, &plainly, &by_device);
        }
    }
    assert!(packets[1] * 2 < packets[0] && packets[2] == packets[1], "{packets:?}");
}

/// A run that would be short waits for the next acknowledgment if that is due at once, and then fewer are needed; nobody waits for
/// longer, with or without loss (tcp_tso_should_defer).
#[test]
fn short_runs_wait_for_the_next_acknowledgment_and_no_longer() {
    let good = Path { rate: 1_000_000_000, ..Path::delayed(Duration::from_millis(1)) };
    for (seed, path) in [(1, good), (2, Path { loss: 0.01, ..good }), (3, Path { reorder: 0.02, ..good })] {
        let texts = [&text(seed, 3_000_000)[..], &[]];
        let [(waiting, took), (hasty, least)] =
            [stack::host::Host::DEFAULT.tcp_tso_win_divisor, 255].map(|divisor| {
                let (mut network, nodes) = pair(seed, [cuts(1), cuts(2)], narrow(path), texts);
                assert!(network.host(nodes[0]).parts().host.set("tcp_tso_win_divisor", divisor));
                while network.look(nodes[1]).talks.first().is_none_or(|talk| talk.got != texts[0]) {
                    assert!(network.step() && network.now() < Instant(1_000_000_000), "somebody waits");
                }
                let names = [Counter::Timeouts, Counter::TailLossProbes];
                assert_eq!(names.map(|name| counters(&network, nodes, name)[0]), [0, 0], "seed {seed}");
                (network.port(nodes[0]).counters.sent, network.now() - Instant(0))
            });
        let is_lossy = path.loss > 0.0;
        assert!(waiting * 2 < hasty || is_lossy, "seed {seed}: {waiting} packets instead of {hasty}");
        let most = if is_lossy { least.0 * 3 / 2 } else { least.0 * 21 / 20 };
        assert!(took.0 < most, "seed {seed}: {took:?} instead of {least:?}");
    }
}

#[test]
fn after_a_pause_the_window_is_as_small_with_a_device_that_cuts() {
    let mut all = [cuts, |number| ample(Setup::plain(number))].map(|device| {
        let plan = Plan { stays: true, ..Plan::default() };
        let mut client =
            TcpHost::new(1, &limits(4096)).knowing(&[2]).opening(Instant(0), ip(2), text(1, 400_000));
        client.plan = plan.clone();
        let server = TcpHost::server(2, &limits(4096), plan).knowing(&[1]);
        let mut network = Simulation::new(3);
        let nodes = [network.add(client, device(1)), network.add(server, device(2))];
        network.wire(nodes[0], nodes[1], narrow(BASE), narrow(BASE));
        network.run_for(Duration::from_secs(3));
        network.keep_journal();
        let now = network.now();
        let (host, port) = network.host_and_port(nodes[0]);
        let socket = host.talks[0].socket.expect("open");
        let sent = host.with(now, port, |stack| stack.send(socket, &[&text(2, 100_000)], false));
        assert_eq!(sent, Ok(100_000));
        network.run_for(Duration::from_millis(6));
        segments(&network.journal())
    });
    // RFC 5681 §4.1: no more than the initial window, though it was far larger.
    assert_eq!(all[1].len(), 10);
    let [by_device, plainly] = &mut all;
    assert_same(0, plainly, by_device);
}

#[test]
fn with_offloads_the_short_way_and_the_long_one_send_the_same_packets() {
    let mut all_predicted = [0; 2];
    for seed in 0..24 {
        let (write, read) = [(64, 64), (700, 4000), (20_000, 16_384), (1448, 333)][seed as usize % 4];
        let sent = text(seed, (100 * write).min(60_000));
        let setup = |number| {
            let all = Setup { moderation: Duration(seed % 3 * 40_000), ..Setup::offloads(number) };
            // 4 KiB have room for two segments that were joined: in one frame.
            ample(Setup {
                frame_size: [2048, 4096][seed as usize % 2],
                marks_checksums: seed % 5 != 0,
                ..all
            })
        };
        let path = Path { is_whole: seed % 7 == 0, ..if seed % 4 == 0 { bad(seed) } else { BASE } };
        let mut all = [false, true].map(|is_long| {
            let (mut network, nodes) = pair(seed, [setup(1), setup(2)], path, [&sent, &[]]);
            for (node, echoes) in nodes.into_iter().zip([false, true]) {
                let host = network.host(node);
                (host.plan.write, host.plan.read) = (write, read);
                (host.plan.echoes, host.plan.in_turn) = (echoes, !echoes);
                if is_long {
                    host.parts().header.modes |= Header::LONG_WAY;
                }
            }
            network.keep_journal();
            run(&mut network, nodes, [&sent, &sent]);
            let predicted = counters(&network, nodes, Counter::HeaderPredicted);
            all_predicted[usize::from(is_long)] += predicted[0] + predicted[1];
            network.journal()
        });
        let [short, long] = &mut all;
        assert_same_packets(seed, short, long);
    }
    assert!(all_predicted[0] > 300 && all_predicted[1] == 0, "{all_predicted:?}");
}

#[test]
fn a_run_may_be_lost_cut_short_and_sent_again() {
    for seed in 0..48 {
        let texts = [&text(seed, 300_000)[..], &text(seed + 100, 120_000)];
        let completion_lag = Duration::from_millis(if seed % 3 == 0 { 30 } else { 0 });
        let offloads = |number| {
            let all =
                Setup { completion_lag, moderation: Duration(seed % 2 * 50_000), ..Setup::offloads(number) };
            // A ring that is full is met in the middle of runs.
            ample(Setup { fragments_max: [64, 5, 2][seed as usize % 3], ..all })
        };
        let setups = [offloads(1), offloads(2)]
            .map(|setup| Setup { ring: if seed % 4 == 3 { 96 } else { 2048 }, ..setup });
        let path = Path { is_whole: seed % 2 == 1, ..bad(seed / 2) };
        let (mut network, nodes) = pair(seed, setups, path, texts);
        run(&mut network, nodes, texts);
        let [sent, _] = counters(&network, nodes, Counter::SegmentsOut);
        assert!(network.port(nodes[0]).counters.sent < sent, "something left in runs");
    }
}

#[test]
fn a_transfer_with_every_offload_takes_few_packets() {
    let sent = text(5, 4 << 20);
    let path = Path { is_whole: true, rate: 10_000_000_000, ..Path::delayed(Duration::from_millis(1)) };
    let (mut network, nodes) =
        pair(6, [Setup::offloads(1), Setup::offloads(2)].map(ample), path, [&sent, &[]]);
    run(&mut network, nodes, [&sent, &[]]);
    let ports = nodes.map(|node| network.port(node).counters);
    let segments = (sent.len() as u64).div_ceil(1448);
    assert!(ports[1].received < segments / 12, "{} packets of {segments} segments", ports[1].received);
    assert!(ports[1].sent < ports[1].received + 10, "{} acknowledgments", ports[1].sent);
    assert_eq!((ports[1].too_long, ports[1].ring_full, ports[1].fill_empty), (0, 0, 0));
    assert_eq!(counters(&network, nodes, Counter::SegmentsRetransmitted), [0, 0]);
    assert!(counters(&network, nodes, Counter::SegmentsOut)[0] >= segments);
}

#[test]
fn a_run_is_a_millisecond_of_the_pace() {
    // 10 MB/s are 9,765 bytes in 2⁻¹⁰ s: six segments.
    let sent = text(9, 3_000_000);
    let (mut network, nodes) = pair(10, [cuts(1), cuts(2)], narrow(BASE), [&sent, &[]]);
    let rate = 10_000_000;
    network.host(nodes[0]).values = Values { max_pacing_rate: rate, ..Values::default() };
    network.keep_journal();
    while network.look(nodes[1]).talks.first().is_none_or(|talk| talk.got.len() < sent.len()) {
        assert!(network.step());
    }
    let took = network.now() - Instant(0);
    let ideal = sent.len() as u64 * 1_000_000_000 / rate;
    // Slow start is paced below it.
    assert!(took.0 > ideal && took.0 < ideal * 13 / 10, "{took:?} for {ideal} ns");
    let journal = network.journal();
    let lengths = journal.iter().filter(|it| it.2 == What::Sent && it.1 == 0).map(|it| it.3.len());
    let (count, longest) = lengths.fold((0, 0), |(count, longest), len| (count + 1, len.max(longest)));
    assert_eq!(longest, 66 + 6 * 1448);
    assert!(count * 1448 * 4 < sent.len(), "{count} packets");
}

/// A host that listens, its device, and a peer that the test is.
struct Alone {
    host: TcpHost,
    port: Port,
    now: Instant,
}

impl Alone {
    fn new(setup: Setup) -> Self {
        let plan = Plan { stays: true, ..Plan::default() };
        let host = TcpHost::server(1, &limits(1024), plan).knowing(&[2, craft::STRANGER]);
        let mut alone = Self { host, port: Port::spare(setup), now: Instant(1_000_000_000) };
        alone.poll();
        alone
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        self.host.poll(self.now, &mut self.port);
        self.port.depart(self.now)
    }

    fn segment(flags: Flags, seq: u32, ack: u32, text: &[u8]) -> Forged {
        let ends = ((ip(2), 5000), (ip(1), PORT));
        let (link, text, options) = ((2, 1), text.to_vec(), Options::default());
        Forged { link, ends, seq, ack, flags, window: 60_000, urgent: 0, options, text }
    }

    /// Opens a connection whose peer's next number is 101; the host's next.
    fn open(&mut self) -> u32 {
        let syn = Self::segment(Flags::SYN, 100, 0, &[]);
        self.port.arrive(self.now, &syn.bytes());
        let answer = self.poll().iter().find_map(|bytes| Forged::parse(bytes)).expect("an answer");
        self.port.arrive(self.now, &Self::segment(Flags::ACK, 101, answer.seq + 1, &[]).bytes());
        self.poll();
        answer.seq + 1
    }
}

const JOINING: Setup = Setup { gro: true, ..Setup::plain(1) };

#[test]
fn text_is_taken_however_a_device_cuts_it() {
    // Old, new and overlapping text, in order and behind gaps, in any fragments, empty ones among them.
    let mut begun = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut alone = Alone::new(JOINING);
        let ack = alone.open();
        let all = text(seed, 12_000);
        for _ in 0..60 {
            let from = random.below(12_000) as usize * usize::from(random.happens(0.9));
            let end = (from + random.below(6000) as usize).min(all.len());
            let bytes = Alone::segment(Flags::ACK, 101 + from as u32, ack, &all[from..end]).bytes();
            // The headers, and more of the first.
            let mut lengths = vec![54 + random.below(800) as usize];
            lengths.extend((0..random.below(9)).map(|_| random.below(1500) as usize));
            let rest = bytes.len().saturating_sub(lengths.iter().sum());
            lengths.extend((0..rest / 1700).map(|_| 1700));
            assert!(alone.port.arrive_cut(alone.now, &bytes, &lengths));
            alone.poll();
            alone.host.check();
            alone.now = alone.now + Duration::from_millis(1);
        }
        let got = &alone.host.talks[0].got;
        begun += usize::from(!got.is_empty());
        assert!(all.starts_with(got), "seed {seed}");
        // The whole again, which fills every gap.
        for (number, piece) in all.chunks(4000).enumerate() {
            let seq = 101 + 4000 * number as u32;
            let bytes = Alone::segment(Flags::ACK, seq, ack, piece).bytes();
            assert!(alone.port.arrive_cut(alone.now, &bytes, &[1000, 1500]));
            alone.poll();
        }
        assert!(alone.host.talks[0].got == all, "seed {seed}: {}", alone.host.talks[0].got.len());
    }
    assert!(begun > 200, "{begun} had something in order");
}

#[test]
fn a_fin_and_an_end_are_those_of_the_last_fragment() {
    let mut alone = Alone::new(JOINING);
    let ack = alone.open();
    let sent = text(7, 5000);
    let bytes = Alone::segment(Flags::ACK | Flags::PSH | Flags::FIN, 101, ack, &sent).bytes();
    assert!(alone.port.arrive_cut(alone.now, &bytes, &[60, 1700, 0, 1600]));
    let answers: Vec<Forged> = alone.poll().iter().filter_map(|bytes| Forged::parse(bytes)).collect();
    assert!(alone.host.talks[0].got == sent && alone.host.talks[0].is_ended);
    assert_eq!(answers.last().expect("an acknowledgment").ack, 101 + 5000 + 1);
}

#[test]
fn a_hostile_device_costs_its_packet_and_nothing_else() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let mut alone = Alone::new(JOINING);
        let ack = alone.open();
        let all = text(seed, 3000);
        for round in 0..20 {
            let end = 101 + 150 * round;
            let bytes = Alone::segment(Flags::ACK, end, ack, &all[150 * round as usize..][..150]).bytes();
            let lengths: Vec<usize> = (0..random.below(5)).map(|_| random.below(90) as usize).collect();
            alone.port.arrive_cut(alone.now, &bytes, &lengths);
            let entries = alone.port.entries();
            for _ in 0..random.below(4) {
                let (at, other) = (random.below(entries.len() as u64), random.below(entries.len() as u64));
                let other = entries[other as usize];
                let entry = &mut entries[at as usize];
                match random.below(8) {
                    0 => entry.continues = !entry.continues,
                    1 => entry.fragment.frame.0 = random.below(1100) as u32,
                    2 => entry.fragment.frame = other.fragment.frame,
                    3 => entry.fragment.len = random.next() as u16,
                    4 => entry.fragment.offset = random.next() as u16,
                    5 => entry.gso_size = random.next() as u16,
                    6 => entry.fragment.len = 0,
                    _ => {
                        let copies = random.below(70) as usize;
                        let copy = stack::device::Received { continues: true, ..*entry };
                        (0..copies).for_each(|_| entries.push_front(copy));
                    }
                }
            }
            alone.poll();
            let frames_and_words = alone.host.frame_states();
            assert!(!frames_and_words.contains(&stack::frames::state::State::Moving), "a frame is nobody's");
            alone.host.check();
        }
        // What arrived is right, and the rest of it is still welcome.
        for (number, piece) in all.chunks(1000).enumerate() {
            let bytes = Alone::segment(Flags::ACK, 101 + 1000 * number as u32, ack, piece).bytes();
            alone.port.arrive_cut(alone.now, &bytes, &[]);
            alone.poll();
        }
        assert!(alone.host.talks[0].got == all, "seed {seed}");
    }
}

#[test]
fn a_broken_packet_is_counted() {
    let mut alone = Alone::new(JOINING);
    let ack = alone.open();
    let bytes = Alone::segment(Flags::ACK, 101, ack, &[1; 900]).bytes();
    // Its headers are in two fragments.
    alone.port.arrive_cut(alone.now, &bytes, &[40, 500]);
    alone.poll();
    assert_eq!(alone.host.talks[0].got.len(), 0);
    // It goes on where nothing follows.
    alone.port.arrive_cut(alone.now, &bytes, &[200, 500]);
    alone.port.entries().back_mut().expect("an entry").continues = true;
    let before = alone.host.counter(Counter::Corrupt);
    alone.poll();
    assert_eq!((alone.host.counter(Counter::Corrupt) - before, alone.host.talks[0].got.len()), (1, 0));
    // And right, in spite of all.
    alone.port.arrive_cut(alone.now, &bytes, &[200, 500]);
    alone.poll();
    assert_eq!(alone.host.talks[0].got.len(), 900);
}

#[test]
fn an_echo_of_several_frames_is_answered_whole() {
    let mut alone = Alone::new(Setup { mtu: 9000, ..JOINING });
    let data = text(8, 4000);
    let mut message = vec![0; icmp::HEADER_LEN + data.len()];
    let request = icmp::Message::EchoRequest { identifier: 7, sequence: 9 };
    request.emit(&data, &mut message).expect("room");
    let bytes = craft::packet(1, ip(craft::STRANGER), ip(1), protocol::ICMP, &message);
    assert!(alone.port.arrive_cut(alone.now, &bytes, &[1500, 1500]));
    let answers = alone.poll();
    let payloads: Vec<&[u8]> = answers.iter().map(|bytes| &bytes[34..]).collect();
    let whole = payloads.concat();
    assert_eq!((whole[0], whole.len()), (0, 4008), "an echo reply in {} packets", answers.len());
    assert!(whole[8..] == data);
    assert_eq!(alone.host.counter(Counter::IcmpIn), 1);
}

#[test]
fn a_datagram_of_several_frames_reaches_its_socket_whole() {
    let mut alone = Alone::new(Setup { mtu: 9000, ..JOINING });
    let now = alone.now;
    let socket = alone.host.with(now, &mut alone.port, |stack| {
        let socket = stack.udp_open(false, 0).expect("room");
        stack.parts.udp_bind(socket, (&Ip::UNSPECIFIED_V4, 53)).expect("a free port");
        socket
    });
    for (seed, len) in [(1, 5000), (2, 8900), (3, 1700), (4, 20_000)] {
        let data = text(seed, len);
        let datagram = craft::udp((ip(craft::STRANGER), 1000), (ip(1), 53), &data);
        let mut bytes = craft::packet(1, ip(craft::STRANGER), ip(1), protocol::UDP, &datagram);
        // What is behind the datagram is no part of it.
        bytes.extend_from_slice(&[0xee; 7]);
        let lengths: Vec<usize> = std::iter::once(60).chain((0..len / 1500).map(|_| 1500)).collect();
        for is_right in [true, false] {
            if !is_right {
                *bytes.iter_mut().nth_back(20).expect("a byte") ^= 1;
            }
            assert!(alone.port.arrive_cut(now, &bytes, &lengths));
            alone.poll();
            alone.host.check();
            let mut buffer = vec![0; 66_000];
            let got =
                alone.host.with(now, &mut alone.port, |stack| stack.udp_receive(socket, &mut [&mut buffer]));
            match got {
                Ok(Some(got)) => assert!(is_right && got.len == len && buffer[..len] == data, "{len}"),
                other => assert!(!is_right, "{len}: {other:?}"),
            }
        }
        alone.poll();
        alone.host.check();
        assert_eq!(alone.host.held(), [1, 0, 0, 0], "sockets, queues, SYNs, frames");
    }
}
