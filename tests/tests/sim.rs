//! The simulated wire does what it was asked to, and nothing else: measured with numbered datagrams (`../sim/raw.rs`).
//!
//! ```text
//! cargo test --release -p accel-tests --test sim -- --nocapture events      how many events a second it makes
//! ```

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::rc::Rc;

use harness::sim::path::{Burst, Path};
use harness::sim::port::Setup;
use harness::sim::random::Random;
use harness::sim::raw::{self, Raw, Send, TCP_HEADERS, UDP_HEADERS};
use harness::sim::tap::Tap;
use harness::sim::{Node, Simulation};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use stack::device::{Device, Fragment, FrameIndex, Link, Memory, Outgoing, Refused};
use stack::time::{Duration, Instant};

const MS: u64 = 1_000_000;

/// Two hosts and a wire between them; the first has this plan.
fn pair(seed: u64, sender: Raw, there: Path) -> (Simulation<Raw>, Node, Node) {
    pair_of(seed, sender, there, [Setup::plain(1), Setup::plain(2)])
}

fn pair_of(seed: u64, sender: Raw, there: Path, setups: [Setup; 2]) -> (Simulation<Raw>, Node, Node) {
    let mut network = Simulation::new(seed);
    let frames = setups[1].frames;
    let (a, b) = (network.add(sender, setups[0]), network.add(Raw::new(frames), setups[1]));
    network.wire(a, b, there, Path::IDEAL);
    (network, a, b)
}

fn sender() -> Raw {
    Raw::new(1024)
}

/// Lets everything happen, and looks whether each frame is where it belongs.
fn finish(network: &mut Simulation<Raw>, nodes: &[Node]) {
    while network.step() {}
    // What was completed since they were polled last.
    for node in nodes {
        network.host(*node);
    }
    while network.step() {}
    for node in nodes {
        let (filled, sending) = network.port(*node).held();
        assert_eq!(sending, 0, "a completion is missing");
        let frames = network.host(*node).frames();
        assert_eq!(frames.check(), Ok(()));
        assert_eq!(
            (frames.pool.used(), frames.pool.filled()),
            (filled as u32, filled as u32),
            "a frame leaked"
        );
        assert_eq!(frames.pool.charged(), 0);
    }
}

#[test]
fn a_delay_is_exact() {
    let there = Path::delayed(Duration::from_millis(5));
    let (mut network, a, b) = pair(1, sender().sending(1, 2, 100, 64, 7, MS), there);
    finish(&mut network, &[a, b]);
    let host = network.host(b);
    assert_eq!(host.numbers(), (0..100).collect::<Vec<u32>>());
    assert!(host.got.iter().zip(0..).all(|(got, number)| got.at == 7 + number * MS + 5 * MS));
}

#[test]
fn jitter_is_between_nothing_and_what_was_asked() {
    let there = Path { jitter: Duration(1000), ..Path::delayed(Duration(5000)) };
    let (mut network, a, b) = pair(2, sender().sending(1, 2, 2000, 64, 0, 2000), there);
    finish(&mut network, &[a, b]);
    let late: Vec<u64> =
        network.host(b).got.iter().zip(0..).map(|(got, number)| got.at - number * 2000 - 5000).collect();
    assert!(late.iter().all(|late| *late <= 1000));
    let mean = late.iter().sum::<u64>() / late.len() as u64;
    assert!((450..550).contains(&mean), "{mean}");
}

#[test]
fn a_rate_is_exact() {
    // 1 Gbit/s, and a packet of 1514 bytes with its 24 of overhead every 10 µs: it takes 12.304 µs.
    let there = Path { rate: 1_000_000_000, overhead: 24, ..Path::IDEAL };
    let plan = sender().sending(1, 2, 500, 1514 - UDP_HEADERS, 0, 10_000);
    let (mut network, a, b) = pair(3, plan, there);
    finish(&mut network, &[a, b]);
    let got = &network.host(b).got;
    assert_eq!(got.len(), 500);
    assert!(got.iter().zip(1..).all(|(got, number)| got.at == number * 12_304));
}

#[test]
fn a_queue_holds_what_it_should() {
    // Ten packets of 1250 bytes are 1 ms at 100 Mbit/s.
    let there = Path::limited(100_000_000, Duration(0), Duration::from_millis(1));
    assert_eq!(there.queue, 12_500);
    let (mut network, a, b) = pair(4, sender().sending(1, 2, 100, 1250 - UDP_HEADERS, 0, 0), there);
    finish(&mut network, &[a, b]);
    assert_eq!(network.host(b).numbers(), (0..10).collect::<Vec<u32>>());
    let (up, _) = network.counts(a);
    assert_eq!((up.packets, up.overflowed, up.queue_max), (100, 90, 12_500));
}

/// How many of `count` packets arrive over a path.
fn survivors(seed: u64, count: u32, there: Path) -> (Vec<u32>, harness::sim::path::Counts) {
    let (mut network, a, b) = pair(seed, sender().sending(1, 2, count, 18, 0, 1000), there);
    finish(&mut network, &[a, b]);
    let numbers = network.host(b).numbers();
    (numbers, network.counts(a).0)
}

#[test]
fn losses_are_as_frequent_as_asked() {
    for (seed, loss) in [(5, 0.001), (6, 0.01), (7, 0.1), (8, 0.5)] {
        let count = 40_000;
        let (numbers, counts) = survivors(seed, count, Path { loss, ..Path::IDEAL });
        let lost = f64::from(count) - numbers.len() as f64;
        let deviation = (f64::from(count) * loss * (1.0 - loss)).sqrt();
        assert!((lost - f64::from(count) * loss).abs() < 5.0 * deviation, "{lost} of {count} at {loss}");
        assert_eq!(counts.lost as f64, lost);
    }
}

#[test]
fn bursts_are_as_frequent_and_as_long_as_asked() {
    let burst = Burst { enter: 0.01, leave: 0.25, loss: 1.0 };
    let (numbers, _) = survivors(9, 80_000, Path { burst: Some(burst), ..Path::IDEAL });
    let gaps: Vec<u32> =
        numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|gap| *gap > 0).collect();
    let lost = gaps.iter().sum::<u32>();
    let length = f64::from(lost) / gaps.len() as f64;
    assert!((length - 4.0).abs() < 0.5, "bursts of {length}");
    // In the bad state enter / (enter + leave) of the time.
    let fraction = f64::from(lost) / 80_000.0;
    assert!((fraction - 0.01 / 0.26).abs() < 0.006, "{fraction}");
}

#[test]
fn packets_arrive_twice_late_and_broken_as_often_as_asked() {
    let there = Path {
        duplicate: 0.1,
        corrupt: 0.05,
        reorder: 0.2,
        reorder_by: Duration(10_500),
        ..Path::delayed(Duration(100))
    };
    let mut plan = sender().sending(1, 2, 20_000, 100, 0, 1000);
    plan.keeps_bytes = true;
    let (mut network, a, b) = pair(10, plan, there);
    network.host(b).keeps_bytes = true;
    finish(&mut network, &[a, b]);
    let (up, _) = network.counts(a);
    for (count, fraction) in [(up.duplicated, 0.1), (up.corrupted, 0.05), (up.reordered, 0.2)] {
        let expected = 20_000.0 * fraction;
        assert!((count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{count}, not {expected}");
    }
    let host = network.host(b);
    assert_eq!(host.got.len() as u64, 20_000 + up.duplicated);
    // A flipped bit is one bit, and the checksums find it, but in the link's addresses and IP's type of service.
    let mut late = 0;
    for got in &host.got {
        let number = got.at.saturating_sub(100) / 1000;
        let (number, is_late) = if got.at % 1000 == 100 { (number, false) } else { (number - 10, true) };
        late += u64::from(is_late);
        let sent = raw::datagram(1, 2, number as u32, 100);
        let flipped: u32 = sent.iter().zip(&got.bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!(flipped <= 1 && sent.len() == got.bytes.len());
        assert!(flipped == 1 || got.number == Some(number as u32));
        let is_seen = sent[ETHERNET..] != got.bytes[ETHERNET..];
        assert!(!is_seen || got.number.is_none(), "a broken datagram was taken");
    }
    assert!(late >= up.reordered);
}

const ETHERNET: usize = 14;

/// All that happened, as one number.
fn digest(seed: u64) -> (u64, u64) {
    let there = Path {
        loss: 0.05,
        duplicate: 0.05,
        corrupt: 0.05,
        reorder: 0.1,
        reorder_by: Duration(777),
        jitter: Duration(500),
        ..Path::limited(100_000_000, Duration(9000), Duration::from_millis(2))
    };
    let lag = Setup { completion_lag: Duration(50_000), ..Setup::plain(1) };
    let plan = sender().sending(1, 2, 3000, 300, 0, 20_000);
    let (mut network, a, b) = pair_of(seed, plan, there, [lag, Setup::plain(2)]);
    network.host(b).echoes = 1000;
    finish(&mut network, &[a, b]);
    let mut hasher = DefaultHasher::new();
    for node in [a, b] {
        network.host(node).got.hash(&mut hasher);
    }
    network.report().hash(&mut hasher);
    (hasher.finish(), network.happened())
}

#[test]
fn a_run_is_its_seed() {
    assert_eq!(digest(11), digest(11));
    assert_ne!(digest(11), digest(12));
}

#[test]
fn a_segment_forwards_to_whom_a_packet_is_for() {
    let mut network = Simulation::new(13);
    let mut nodes = Vec::new();
    for number in 1..=4 {
        let mut host = sender();
        if number == 1 {
            host = host.sending(1, 3, 5, 64, 0, 10).sending(1, 255, 2, 64, 1000, 10);
        }
        nodes.push(network.add(host, Setup::plain(number)));
    }
    let members: Vec<(Node, Path, Path)> =
        nodes.iter().map(|node| (*node, Path::delayed(Duration(3)), Path::delayed(Duration(4)))).collect();
    network.join(&members);
    finish(&mut network, &nodes);
    let counts: Vec<usize> = nodes.iter().map(|node| network.host(*node).got.len()).collect();
    assert_eq!(counts, [0, 2, 7, 2]);
    assert_eq!(network.host(nodes[2]).got[0].at, 7);
}

#[test]
fn many_share_a_bottleneck() {
    let mut network = Simulation::new(14);
    let sink = network.add(sender(), Setup::plain(100));
    let bottleneck = Path::limited(10_000_000, Duration(0), Duration::from_millis(10));
    let mut members = vec![(sink, Path::IDEAL, bottleneck)];
    for number in 1..=8 {
        // Each alone would fill it.
        let node =
            network.add(sender().sending(number, 100, 800, 1250 - UDP_HEADERS, 0, MS), Setup::plain(number));
        members.push((node, Path::delayed(Duration(u64::from(number))), Path::IDEAL));
    }
    network.join(&members);
    network.run_until(Instant(800 * MS));
    // One packet a millisecond is what it carries, and ten wait in it.
    let (_, down) = network.counts(sink);
    assert_eq!(network.host(sink).got.len(), 799);
    assert_eq!((down.packets - down.overflowed, down.queue_max), (800 + 9, 12_500));
}

#[test]
fn a_full_ring_and_late_completions_hold_the_sender_back_and_lose_nothing() {
    let setup = Setup { ring: 8, completion_lag: Duration(MS), ..Setup::plain(1) };
    let (mut network, a, b) =
        pair_of(15, sender().sending(1, 2, 500, 200, 0, 0), Path::IDEAL, [setup, Setup::plain(2)]);
    finish(&mut network, &[a, b]);
    assert_eq!(network.host(b).numbers(), (0..500).collect::<Vec<u32>>());
    assert!(network.port(a).counters.refused > 0, "the ring was never full");
}

#[test]
fn a_receiver_without_frames_or_room_loses_packets_and_counts_them() {
    let setup = Setup { ring: 16, ..Setup::plain(2) };
    let (mut network, a, b) =
        pair_of(16, sender().sending(1, 2, 100, 200, 0, 0), Path::IDEAL, [Setup::plain(1), setup]);
    finish(&mut network, &[a, b]);
    let counters = network.port(b).counters;
    assert_eq!(network.host(b).numbers(), (0..16).collect::<Vec<u32>>());
    assert_eq!((counters.received, counters.ring_full + counters.fill_empty), (16, 84));
}

#[test]
fn a_packet_larger_than_a_frame_arrives_in_several() {
    let jumbo = |number| Setup { mtu: 9000, fragments_max: 8, ..Setup::plain(number) };
    let mut plan = sender().sending(1, 2, 3, 8900, 0, 1000);
    plan.keeps_bytes = true;
    let (mut network, a, b) = pair_of(17, plan, Path::IDEAL, [jumbo(1), jumbo(2)]);
    finish(&mut network, &[a, b]);
    let host = network.host(b);
    assert_eq!(host.numbers(), [0, 1, 2]);
    // 1792 bytes of a frame of 2048 are the packet's, as AF_XDP has it.
    assert!(host.got.iter().all(|got| got.fragments == (8900 + UDP_HEADERS).div_ceil(1792)));
}

/// A text of 4000 bytes, sent as one packet that the device is to cut into segments of 1448.
fn one_super_packet(seed: u64, is_whole: bool, to: Setup) -> (Vec<u8>, Vec<raw::Got>) {
    let text: Vec<u8> = (0..4000u32).map(|at| (at * 7) as u8).collect();
    let (bytes, checksum) = raw::segment(1, 2, u32::MAX - 100, &text);
    let mut host = sender();
    host.plan.push_back(Send { at: 0, bytes, checksum: Some(checksum), gso_size: 1448 });
    let there = Path { is_whole, ..Path::delayed(Duration(10)) };
    let (mut network, a, b) = pair_of(seed, host, there, [Setup::offloads(1), to]);
    network.host(b).keeps_bytes = true;
    finish(&mut network, &[a, b]);
    (text, std::mem::take(&mut network.host(b).got))
}

#[test]
fn a_device_cuts_text_into_segments_that_are_right() {
    use stack::wire::{ethernet, ipv4, tcp};
    let marks = Setup { marks_checksums: true, ..Setup::plain(2) };
    let not_joined = Setup { gro: false, ..Setup::offloads(2) };
    for (is_whole, to) in [(false, marks), (true, marks), (false, not_joined)] {
        let (text, got) = one_super_packet(18, is_whole, to);
        let mut all = Vec::new();
        for (number, got) in got.iter().enumerate() {
            let (ip, rest) = ipv4::parse(ethernet::parse(&got.bytes).expect("Ethernet").1).expect("IPv4");
            assert_eq!(tcp::verify(rest, &ip.header.source(), &ip.header.destination()), Ok(()));
            let (segment, piece) = tcp::parse(rest).expect("TCP");
            assert_eq!(segment.header.sequence.get(), (u32::MAX - 100).wrapping_add(number as u32 * 1448));
            let flags = [".W", ".", "P."][number];
            assert_eq!((segment.header.flags().to_string().as_str(), got.marked), (flags, Some(true)));
            all.extend_from_slice(piece);
        }
        assert_eq!((all, got.len()), (text, 3));
    }
}

#[test]
fn text_of_any_length_is_cut_in_both_versions() {
    use stack::wire::{ethernet, ipv4, ipv6, tcp};
    let mut random = Random::new(26);
    for round in 0..200 {
        let text: Vec<u8> = (0..1 + random.below(20_000)).map(|_| random.next() as u8).collect();
        let size = 10 + random.below(1430) as u16;
        let ends = if round % 2 == 0 { [raw::ip(1), raw::ip(2)] } else { [raw::ip6(1), raw::ip6(2)] };
        let (bytes, checksum) = raw::segment_between((1, ends[0]), (2, ends[1]), random.next() as u32, &text);
        let mut host = sender();
        host.plan.push_back(Send { at: 0, bytes, checksum: Some(checksum), gso_size: size });
        let to = Setup { gro: false, frames: 4096, ring: 4096, ..Setup::offloads(2) };
        let (mut network, a, b) = pair_of(round, host, Path::IDEAL, [Setup::offloads(1), to]);
        network.host(b).keeps_bytes = true;
        finish(&mut network, &[a, b]);
        let mut all = Vec::new();
        for got in &network.host(b).got {
            let (frame, rest) = ethernet::parse(&got.bytes).expect("Ethernet");
            let rest = match frame.ethertype {
                ethernet::IPV4 => ipv4::parse(rest).expect("IPv4").1,
                _ => ipv6::parse(rest).expect("IPv6").1,
            };
            assert_eq!(tcp::verify(rest, &ends[0], &ends[1]), Ok(()));
            let (_, piece) = tcp::parse(rest).expect("TCP");
            assert!(piece.len() == usize::from(size) || all.len() + piece.len() == text.len());
            all.extend_from_slice(piece);
        }
        assert_eq!(all, text);
    }
}

#[test]
fn a_path_that_is_whole_carries_what_was_not_cut() {
    let (text, got) = one_super_packet(19, true, Setup::offloads(2));
    assert_eq!((got.len(), got[0].gso_size, got[0].marked), (1, 1448, Some(false)));
    assert_eq!(got[0].bytes[TCP_HEADERS..], text);
}

#[test]
fn a_device_joins_segments_that_follow_each_other() {
    use stack::wire::{ethernet, ipv4, tcp};
    // At 1 Gbit/s a segment takes 12 µs: polled 100 µs after the first, the host sees them joined,
    // but for the first, whose CWR the others haven't.
    let text: Vec<u8> = (0..4000u32).map(|at| (at * 7) as u8).collect();
    let (bytes, checksum) = raw::segment(1, 2, u32::MAX - 100, &text);
    let super_packet = |at| Send { at, bytes: bytes.clone(), checksum: Some(checksum), gso_size: 1448 };
    let joins = |moderation| Setup { takes_partial: false, moderation, ..Setup::offloads(2) };
    for (moderation, expected) in
        [(Duration(100_000), vec![1448, 2552]), (Duration(0), vec![1448, 1448, 1104])]
    {
        let mut host = sender();
        host.plan.push_back(super_packet(0));
        let there = Path { rate: 1_000_000_000, ..Path::IDEAL };
        let (mut network, a, b) = pair_of(24, host, there, [Setup::offloads(1), joins(moderation)]);
        network.host(b).keeps_bytes = true;
        finish(&mut network, &[a, b]);
        let mut all = Vec::new();
        let mut lengths = Vec::new();
        for got in &network.host(b).got {
            assert_eq!(got.marked, Some(true));
            let (_, rest) = ipv4::parse(ethernet::parse(&got.bytes).expect("Ethernet").1).expect("IPv4");
            let (segment, piece) = tcp::parse(rest).expect("TCP");
            assert_eq!(segment.header.sequence.get(), (u32::MAX - 100).wrapping_add(all.len() as u32));
            assert_eq!(got.gso_size, if piece.len() > 1448 { 1448 } else { 0 });
            all.extend_from_slice(piece);
            lengths.push(piece.len());
        }
        assert_eq!((lengths, all), (expected, text.clone()));
    }
    // What was pushed is the last, and a gap ends it too.
    for (is_pushed, expected) in [(true, vec![100; 4]), (false, vec![200, 200])] {
        let mut host = sender();
        for seq in [0, 100, 300, 400] {
            let (mut bytes, checksum) = raw::segment(1, 2, seq, &[1; 100]);
            bytes[TCP_HEADERS - 7] &= if is_pushed { 0x7f } else { 0x77 };
            host.plan.push_back(Send { at: 0, bytes, checksum: Some(checksum), gso_size: 0 });
        }
        let setups = [Setup::offloads(1), joins(Duration(1000))];
        let (mut network, a, b) = pair_of(25, host, Path::IDEAL, setups);
        network.host(b).keeps_bytes = true;
        finish(&mut network, &[a, b]);
        let lengths: Vec<usize> =
            network.host(b).got.iter().map(|got| got.bytes.len() - TCP_HEADERS).collect();
        assert_eq!(lengths, expected);
    }
}

/// What a test can read again after it gave it away.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_tap_has_both_ends_of_every_packet_to_the_nanosecond() {
    let file = Shared::default();
    let there = Path { loss: 0.5, ..Path::delayed(Duration(1_000_000_007)) };
    let (mut network, a, b) = pair(20, sender().sending(1, 2, 40, 64, 3, 1000), there);
    network.tap(Tap::new(Box::new(file.clone())));
    finish(&mut network, &[a, b]);
    let got: Vec<u64> = network.host(b).got.iter().map(|got| got.at).collect();
    let bytes = file.0.borrow().clone();
    let mut reader = PcapNgReader::new(&bytes[..]).expect("a capture");
    let mut times = [Vec::new(), Vec::new()];
    let mut names = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.expect("a block").0 {
            Block::EnhancedPacket(packet) => {
                let flags = EnhancedPacketOption::Flags(2 - packet.interface_id);
                assert_eq!(packet.options, [flags], "the first sends, the second gets");
                let number = times[packet.interface_id as usize].len() as u32;
                if packet.interface_id == 0 {
                    assert_eq!(packet.data, raw::datagram(1, 2, number, 64));
                }
                times[packet.interface_id as usize].push(packet.timestamp.as_nanos() as u64);
            }
            Block::InterfaceDescription(interface) => names.push(format!("{:?}", interface.options[0])),
            _ => {}
        }
    }
    assert_eq!(times[0], (0..40).map(|number| 3 + number * 1000).collect::<Vec<u64>>());
    assert_eq!(times[1], got);
    assert!(names.len() == 2 && names[0].contains("host0") && names[1].contains("host1"));
}

#[test]
fn a_failure_prints_its_seed_and_what_was_on_the_wire() {
    let there = Path { loss: 0.3, ..Path::delayed(Duration(1500)) };
    let (mut network, a, b) = pair(21, sender().sending(1, 2, 4, 64, 0, MS), there);
    finish(&mut network, &[a, b]);
    let report = network.report();
    let (head, lines) = report.split_once('\n').expect("lines");
    assert!(head.starts_with("seed 21, at "));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], "0.000000000 host 0 sends      IP 10.0.0.1.1000 > 10.0.0.2.2000: UDP, length 64");
    let lost = lines.iter().filter(|line| line.contains(" lost ")).count();
    let gets = lines.iter().filter(|line| line.contains(" gets ")).count();
    assert_eq!((lines.len(), lost + gets), (8, 4));
    assert_eq!(gets, network.host(b).got.len());
    assert!(lines.iter().all(|line| !line.contains(" gets ") || line.contains("1500 host 1")));
}

#[test]
fn a_segment_is_printed_as_a_script_has_it() {
    let (bytes, _) = raw::segment(1, 2, 7, b"hello");
    let line = harness::sim::line::line(&bytes, Link::Ethernet);
    assert_eq!(line, "IP 10.0.0.1.1000 > 10.0.0.2.2000: P.W 7:12(5) ack 0 win 500");
    assert_eq!(harness::sim::line::line(&bytes[..50], Link::Ethernet), "[bad IPv4 total length], length 36");
}

/// A port alone.
fn port() -> (Simulation<Raw>, Node) {
    let mut network = Simulation::new(22);
    let node = network.add(Raw::new(4), Setup { frames: 4, fragments_max: 2, ..Setup::plain(1) });
    (network, node)
}

const PIECE: Fragment = Fragment { frame: FrameIndex(1), offset: 100, len: 60 };

fn outgoing(fragments: &[Fragment]) -> Outgoing<'_> {
    Outgoing { fragments, checksum: None, gso_size: 0 }
}

#[test]
#[should_panic(expected = "frame 1 is sent while the device has it")]
fn a_frame_that_is_being_sent_is_not_sent_again() {
    let (mut network, node) = port();
    let (_, port) = network.host_and_port(node);
    assert_eq!(port.send(&outgoing(&[PIECE])), Ok(()));
    let _ = port.send(&outgoing(&[PIECE]));
}

#[test]
#[should_panic(expected = "frame 1 was changed while it was being sent")]
fn a_frame_that_is_being_sent_is_not_changed() {
    let (mut network, node) = port();
    let (_, port) = network.host_and_port(node);
    assert_eq!(port.send(&outgoing(&[PIECE])), Ok(()));
    port.bytes_mut(FrameIndex(1)).expect("a frame")[159] = 1;
    port.completions(&mut [FrameIndex(0)]);
}

#[test]
#[should_panic(expected = "frame 2 is filled while the device has it")]
fn a_frame_is_filled_once() {
    let (mut network, node) = port();
    let (_, port) = network.host_and_port(node);
    assert_eq!(port.fill(&[FrameIndex(2)]), 1);
    port.fill(&[FrameIndex(2)]);
}

#[test]
fn what_never_fits_is_refused() {
    let (mut network, node) = port();
    let (_, port) = network.host_and_port(node);
    let piece = |frame, offset, len| Fragment { frame: FrameIndex(frame), offset, len };
    let unfit: [&[Fragment]; 5] = [
        &[],
        &[piece(4, 0, 60)],
        &[piece(0, 2000, 60)],
        &[piece(0, 0, 60), piece(1, 0, 60), piece(2, 0, 60)],
        &[piece(0, 0, 1000), piece(1, 0, 1000)],
    ];
    for fragments in unfit {
        assert_eq!(port.send(&outgoing(fragments)), Err(Refused::Unfit), "{fragments:?}");
    }
    let cut = Outgoing { gso_size: 1000, ..outgoing(&[PIECE]) };
    assert_eq!(port.send(&cut), Err(Refused::Unfit), "it can't cut");
    assert_eq!(port.send(&outgoing(&[PIECE])), Ok(()));
}

/// Two hosts that send back what they get, over a wire on which everything happens.
#[test]
fn events_are_made_by_the_million() {
    let echoes = if cfg!(debug_assertions) { 10_000 } else { 1_000_000 };
    let plan = sender().sending(1, 2, 64, 64, 0, 100);
    let there = Path { jitter: Duration(700), ..Path::delayed(Duration(10_000)) };
    let (mut network, a, b) = pair(23, plan, there);
    for node in [a, b] {
        network.host(node).echoes = echoes;
    }
    let begun = std::time::Instant::now();
    finish(&mut network, &[a, b]);
    let seconds = begun.elapsed().as_secs_f64();
    let packets = network.port(a).counters.received + network.port(b).counters.received;
    let happened = network.happened();
    assert!(packets >= 2 * echoes && happened >= packets);
    println!(
        "{happened} events, {packets} packets of 106 bytes: {:.2} million events a second, {:.2} million packets",
        happened as f64 / seconds / 1e6,
        packets as f64 / seconds / 1e6
    );
}
