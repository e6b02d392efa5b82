//! What strangers may send: rows W1–W3, W5, W10–W14 and W20 of the list of attacks, each a test that names its row.

#![forbid(unsafe_code)]

#[path = "../fuzz/lone.rs"]
mod lone;

use std::collections::{BTreeSet, VecDeque};

use harness::sim::random::Random;
use harness::sim::raw::ip;
use harness::sim::tcp::PORT;
use lone::{ACK, Answer, FIN, Lone, OURS, PSH, Peer, RST, SYN, Segment, THEIRS, URG, packet, timestamps};
use stack::error::Error;
use stack::hash::Secret;
use stack::seq::Seq;
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::tcp::isn::{Tuple, initial_sequence};
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::{Malformed, protocol};

/// MSS 1460, window scale 4, SACK permitted, timestamps of 1.
fn usual() -> Vec<u8> {
    [&[2, 4, 5, 180, 3, 3, 4, 4, 2][..], &[1][..], &timestamps(1, 0)[2..]].concat()
}

/// A connection goes on: what is said arrives, and is acknowledged.
fn works(lone: &mut Lone, peer: &mut Peer) {
    let before = lone.with(|stack| stack.parts.tcb(peer.socket).map(|tcb| tcb.rcv.nxt.0));
    let said = peer.says(b"are you there?");
    lone.hears(&said);
    let after = lone.with(|stack| stack.parts.tcb(peer.socket).map(|tcb| tcb.rcv.nxt.0));
    assert_eq!(after.ok(), before.ok().map(|nxt| nxt.wrapping_add(14)));
}

/// Everything is as it must be, and no frame is held but by these queues.
fn whole(lone: &mut Lone, queues: u32) {
    lone.host.check();
    assert!(lone.host.held()[1] <= queues, "{:?}", lone.host.held());
}

fn malformed(lone: &mut Lone) -> u64 {
    lone.with(|stack| {
        let counters = stack.shared.counters();
        Malformed::ALL.iter().map(|rule| counters.of_malformed(*rule)).sum()
    })
}

#[test]
fn w1_every_length_of_nonsense_is_dropped_and_counted() {
    let mut lone = Lone::new();
    let mut peer = lone.open(5000, &[]);
    let good = peer.segment().bytes();
    let mut random = Random::new(1);
    let mut sent = 0;
    for len in 0..=1514 {
        // All of it nonsense; and nonsense behind headers that are right up to some byte.
        let nonsense: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let mut half = nonsense.clone();
        let right = (random.below(60) as usize).min(len).min(good.len());
        half[..right].copy_from_slice(&good[..right]);
        let mut flipped = good.clone();
        flipped.resize(len.max(1), 0);
        let at = random.below(flipped.len() as u64) as usize;
        flipped[at] ^= 1 << random.below(8);
        for bytes in [nonsense, half, flipped] {
            lone.hears_bytes(&bytes);
            // A packet without bytes is none.
            sent += u64::from(!bytes.is_empty());
        }
        if len % 64 == 0 {
            whole(&mut lone, 1);
        }
    }
    assert_eq!(lone.counter(Counter::PacketsIn), sent + 2, "each was looked at");
    let broken = malformed(&mut lone);
    assert!(broken > sent / 5, "{broken} of {sent} break a rule");
    // Some change the link's padding only, and some are frames for others: those are passed by without a count.
    let others = [Counter::UnknownProtocol, Counter::NotOurs, Counter::SegmentsIn];
    let looked_at = broken + others.map(|counter| lone.counter(counter)).iter().sum::<u64>();
    assert!(looked_at > sent / 2, "{looked_at} of {sent}");
    works(&mut lone, &mut peer);
    assert_eq!(lone.host.talks.len(), 1, "none of it made a connection");
}

#[test]
fn w2_lengths_that_lie_are_dropped_by_their_rule() {
    let mut lone = Lone::new();
    let mut peer = lone.open(5000, &[]);
    let text = peer.segment();
    let good = Segment { text: b"twelve bytes".to_vec(), ..text }.bytes();
    // The IPv4 header begins at 14, TCP's at 34.
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        // Its own checksum is right: only the length is wrong.
        bytes[24..26].copy_from_slice(&[0, 0]);
        let header = usize::from(bytes[14] & 0xf) * 4;
        let sum = lone::checksum(&bytes[14..14 + header.clamp(20, bytes.len() - 14)]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let total = |len: u16| with(&move |bytes| bytes[16..18].copy_from_slice(&len.to_be_bytes()));
    let cases = [
        ("total length beyond the frame", Malformed::TotalLength, total(1000)),
        ("total length under the header", Malformed::TotalLength, total(19)),
        ("IHL of four words", Malformed::HeaderLength, with(&|bytes| bytes[14] = 0x44)),
        (
            "IHL beyond the datagram",
            Malformed::HeaderLength,
            with(&|bytes| {
                bytes[14] = 0x4f;
                bytes[16..18].copy_from_slice(&50u16.to_be_bytes());
            }),
        ),
        ("no room for TCP's header", Malformed::Truncated, total(30)),
        ("data offset of four words", Malformed::DataOffset, with(&|bytes| bytes[46] = 0x40)),
        ("data offset beyond the segment", Malformed::DataOffset, with(&|bytes| bytes[46] = 0xf0)),
        ("version 6 in a frame of IPv4", Malformed::Version, with(&|bytes| bytes[14] = 0x65)),
    ];
    for (what, rule, bytes) in cases {
        let before = lone.with(|stack| stack.shared.counters().of_malformed(rule));
        let delivered = lone.counter(Counter::SegmentsIn);
        assert_eq!(lone.hears_bytes(&bytes).len(), 0, "{what}: no answer");
        let after = lone.with(|stack| stack.shared.counters().of_malformed(rule));
        // A data offset is looked at after the checksum, which covers it.
        let by_sum = lone.with(|stack| stack.shared.counters().of_malformed(Malformed::Checksum));
        assert!(after == before + 1 || by_sum > 0, "{what}");
        assert_eq!(lone.counter(Counter::SegmentsIn), delivered, "{what}: nothing is delivered");
    }
    for words in [0, 1, 4, 12, 15] {
        let before = malformed(&mut lone);
        let lies = Segment { words: Some(words), ..peer.segment() };
        assert_eq!((lone.hears(&lies).len(), malformed(&mut lone)), (0, before + 1), "{words} words");
    }
    works(&mut lone, &mut peer);
    whole(&mut lone, 1);
}

#[test]
fn w3_options_end_in_bounded_steps_and_the_connection_works() {
    let nops = vec![1; 40];
    let cases: [(&str, Vec<u8>); 10] = [
        ("length 0", vec![3, 0, 4, 1]),
        ("length 1", vec![2, 1, 5, 180]),
        ("beyond the header", vec![1, 1, 8, 10]),
        ("an unknown one beyond the header", vec![254, 255, 0, 0]),
        ("forty NOPs", nops),
        ("MSS twice", vec![2, 4, 5, 180, 2, 4, 0, 100]),
        ("window scale twice", vec![3, 3, 4, 3, 3, 9, 1, 1]),
        ("timestamps twice", [timestamps(7, 0), timestamps(9, 0)].concat()),
        ("window scale of 255", vec![3, 3, 255, 1]),
        ("SACK permitted of length 10", vec![4, 10, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (what, options) in cases {
        let mut lone = Lone::new();
        let mut peer = lone.open(5000, &options);
        let tcb = lone.tcb(&peer);
        assert!(tcb.snd_shift() <= 14, "{what}: RFC 7323 §2.3: a larger shift counts as 14");
        if what.contains("255") {
            assert_eq!(tcb.snd_shift(), 14);
        }
        if tcb.flags.has(stack::tcp::tcb::Flags::TIMESTAMPS) {
            let said = Segment { options: timestamps(30, 0), ..peer.says(b"with stamps") };
            assert_eq!(lone.hears(&said).len(), 1, "{what}");
        } else {
            works(&mut lone, &mut peer);
        }
        // On an established connection, too: they are passed by, or the segment is dropped.
        for options in
            [vec![3, 0, 4, 1], vec![5, 0], vec![5, 2, 5, 9, 0], vec![8, 10], vec![1; 40], vec![255; 40]]
        {
            lone.hears(&Segment { options, ..peer.segment() });
        }
        whole(&mut lone, 1);
    }
}

#[test]
fn w5_a_tiny_mss_has_a_floor_and_tiny_sacked_segments_cost_little() {
    for mss in [0u16, 1, 48] {
        let mut lone = Lone::new();
        let [high, low] = mss.to_be_bytes();
        let mut peer = lone.open(5000, &[2, 4, high, low, 4, 2]);
        let text = vec![0x61; 4000];
        let sent = lone.with(|stack| stack.send(peer.socket, &[&text], false)).expect("room");
        assert_eq!(sent, 4000);
        let (mut got, first) = (Vec::new(), peer.ack);
        let mut answers: VecDeque<Answer> =
            lone.poll().iter().filter_map(|bytes| Answer::of(bytes)).collect();
        let (mut segments, mut rounds) = (0, 0);
        while got.len() < text.len() {
            rounds += 1;
            assert!(rounds < 1000, "it does not end");
            let Some(answer) = answers.pop_front() else {
                answers.extend(lone.hears(&peer.segment()));
                if answers.is_empty() {
                    answers.extend(lone.wait(Duration::from_millis(400)));
                }
                continue;
            };
            if answer.text.is_empty() {
                continue;
            }
            segments += 1;
            let (left, right) = (answer.seq, answer.seq + answer.text.len() as u32);
            let floor = right == first + 4000 || answer.text.len() >= 36;
            assert!(floor, "tcp_min_snd_mss of 48, less options: {}", answer.text.len());
            // Every second segment is reported by SACK alone, as if those before it were lost.
            if segments % 2 == 1 && left != peer.ack {
                let block = [&[1, 1, 5, 10][..], &left.to_be_bytes(), &right.to_be_bytes()].concat();
                answers.extend(lone.hears(&Segment { options: block, ..peer.segment() }));
            } else if left == peer.ack {
                got.extend_from_slice(&answer.text);
                peer.takes(std::slice::from_ref(&answer));
            }
            whole(&mut lone, 1);
        }
        assert!(got == text);
        assert!(segments < 800, "{segments} segments for 4000 bytes");
    }
}

/// The states that a peer can bring a connection to, with a connection in each.
fn in_state(lone: &mut Lone, port: u16, state: State) -> Peer {
    let mut peer = lone.open(port, &[]);
    let socket = peer.socket;
    let finish = |lone: &mut Lone| lone.with(|stack| stack.shutdown(socket, How::Write)).expect("open");
    match state {
        State::Established => {}
        State::FinWait1 => finish(lone),
        State::FinWait2 | State::TimeWait => {
            finish(lone);
            peer.ack = peer.ack.wrapping_add(1);
            lone.poll();
            lone.hears(&peer.segment());
            if state == State::TimeWait {
                let end = peer.ends();
                lone.hears(&end);
            }
        }
        State::CloseWait | State::LastAck => {
            let end = peer.ends();
            lone.hears(&end);
            if state == State::LastAck {
                finish(lone);
            }
        }
        State::Closing => {
            finish(lone);
            lone.poll();
            let end = peer.ends();
            lone.hears(&end);
        }
        _ => panic!("{state:?}"),
    }
    assert_eq!(lone.state(&peer), Some(state));
    lone.poll();
    peer
}

const SYNCHRONIZED: [State; 7] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

/// RFC 5961 §3.2: outside of the window it is dropped; in it but not at RCV.NXT it is answered with a challenge; exact it resets. RFC
/// 1337 §3: in TIME-WAIT it does nothing.
#[test]
fn w10_a_blind_reset_meets_a_challenge() {
    for state in SYNCHRONIZED {
        let mut lone = Lone::new();
        let peer = in_state(&mut lone, 5000, state);
        let wnd = lone.tcb(&peer).rcv.wnd;
        let reset = |seq: u32| Segment { seq, flags: RST, ..peer.segment() };
        for outside in
            [peer.seq.wrapping_sub(2), peer.seq.wrapping_add(wnd + 1), peer.seq.wrapping_add(1 << 31)]
        {
            assert_eq!(lone.hears(&reset(outside)).len(), 0, "{state:?}: outside");
            assert_eq!(lone.state(&peer), Some(state));
        }
        lone.wait(Duration::from_millis(600));
        for inside in [1, wnd / 2, wnd - 1].into_iter().filter(|inside| *inside > 0 && *inside < wnd) {
            lone.wait(Duration::from_millis(600));
            let answers = lone.hears(&reset(peer.seq.wrapping_add(inside)));
            assert!(
                answers.iter().all(|answer| answer.is(ACK) || answer.is(ACK | FIN)),
                "{state:?}: {answers:?}"
            );
            assert_eq!(lone.state(&peer), Some(state), "{state:?}: a challenge and no more");
        }
        lone.hears(&reset(peer.seq));
        let after = lone.state(&peer);
        if state == State::TimeWait {
            assert_eq!(after, Some(state), "RFC 1337");
        } else {
            assert!(matches!(after, None | Some(State::Closed)), "{state:?}: exact: {after:?}");
        }
        // What it has learned of a lossy path may rest.
        whole(&mut lone, 1);
    }
}

#[test]
fn w10_a_reset_in_the_handshake_must_be_exact() {
    let mut lone = Lone::new();
    let peer = Peer { port: 5000, seq: 101, ack: 0, socket: lone.host.listener.expect("it listens") };
    let syn = Segment { seq: 100, flags: SYN, ..peer.segment() };
    lone.hears(&syn);
    assert_eq!(lone.host.held()[2], 1, "it waits");
    for seq in [102, 5000, 100, 99] {
        lone.hears(&Segment { seq, flags: RST, ..peer.segment() });
        assert_eq!(lone.host.held()[2], 1, "{seq} is not the next");
    }
    lone.hears(&Segment { seq: 101, flags: RST, ..peer.segment() });
    assert_eq!(lone.host.held()[2], 0);
    // And in SYN-SENT only with an acknowledgment of our SYN.
    let socket = lone.with(|stack| {
        let socket = stack.parts.tcp_socket(false, 0).expect("room");
        assert_eq!(stack.connect(socket, &OURS, (&THEIRS, 7000)), Err(Error::InProgress));
        socket
    });
    let syn = lone.poll().iter().find_map(|bytes| Answer::of(bytes)).expect("a SYN");
    let reset = |flags, ack| Segment {
        source: (THEIRS, 7000),
        destination: (OURS, syn.from),
        seq: 0,
        ack,
        flags,
        ..peer.segment()
    };
    for (flags, ack) in [(RST, 0), (RST | ACK, syn.seq), (RST | ACK, syn.seq.wrapping_add(2))] {
        lone.hears(&reset(flags, ack));
        assert_eq!(lone.with(|stack| stack.state(socket)), Ok(State::SynSent), "{flags:#x} {ack}");
    }
    lone.hears(&reset(RST | ACK, syn.seq.wrapping_add(1)));
    assert_eq!(lone.with(|stack| stack.take_error(socket)), Ok(Some(Error::ConnectionRefused)));
}

/// RFC 5961 §4.2: "If the SYN bit is set, irrespective of the sequence number, TCP endpoints MUST send an ACK (also referred to as
/// challenge ACK) to the remote peer".
#[test]
fn w11_a_blind_syn_meets_a_challenge() {
    for state in SYNCHRONIZED {
        let mut lone = Lone::new();
        let peer = in_state(&mut lone, 5000, state);
        let wnd = lone.tcb(&peer).rcv.wnd;
        // In TIME-WAIT a sequence number beyond the last makes a new connection (RFC 9293 §3.6.1); an old one doesn't.
        let seqs: &[u32] = if state == State::TimeWait { &[0, 1 << 31] } else { &[0, 1, wnd / 2, 1 << 31] };
        for offset in seqs {
            lone.wait(Duration::from_millis(600));
            let seq = if *offset == 0 { peer.seq.wrapping_sub(5) } else { peer.seq.wrapping_add(*offset) };
            let answers = lone.hears(&Segment { seq, flags: SYN, ..peer.segment() });
            assert_eq!(lone.state(&peer), Some(state), "{state:?} {offset}");
            let challenges =
                answers.iter().filter(|answer| answer.flags & (ACK | RST) == ACK && answer.ack == peer.seq);
            assert_eq!(challenges.count(), answers.len(), "{state:?} {offset}: {answers:?}");
            assert!(!answers.is_empty(), "{state:?} {offset}: it is told that we are there");
        }
    }
    let mut lone = Lone::new();
    let peer = in_state(&mut lone, 5000, State::TimeWait);
    let answers = lone.hears(&Segment { seq: peer.seq.wrapping_add(1000), flags: SYN, ..peer.segment() });
    assert!(answers.iter().any(|answer| answer.is(SYN | ACK)), "a new connection: {answers:?}");
    assert_eq!(lone.counter(Counter::TimeWaitsReused), 1);
}

/// CVE-2016-5696: how many challenges one connection is sent must not depend on what was provoked on another one.
#[test]
fn w12_challenges_of_one_connection_tell_nothing_of_another() {
    let probed = |others: u32| {
        let mut lone = Lone::new();
        let (victim, spy) = (lone.open(5000, &[]), lone.open(5001, &[]));
        let provoke = |lone: &mut Lone, peer: &Peer, offset| {
            let reset = Segment { seq: peer.seq.wrapping_add(10 + offset), flags: RST, ..peer.segment() };
            lone.hears(&reset).len()
        };
        let _ = (0..others).map(|at| provoke(&mut lone, &victim, at)).sum::<usize>();
        (0..200).map(|at| provoke(&mut lone, &spy, at)).sum::<usize>()
    };
    let counts = [0, 1, 50, 99, 100, 101, 1000].map(probed);
    assert!(counts.iter().all(|count| *count == counts[0] && *count >= 1), "{counts:?}");
    assert!(counts[0] < 200, "RFC 5961 §7: they are limited");
}

/// RFC 6528: another tuple, or another start of the program, and the number has nothing to do with the last one; the same tuple's grows
/// with the clock of 4 µs (here Linux's of 64 ns).
#[test]
fn w13_initial_sequence_numbers_have_no_structure() {
    let tuple =
        |port: u16, remote: u8| Tuple { local: OURS, remote: ip(remote), local_port: port, remote_port: 80 };
    let (now, secrets) = (Instant(1 << 40), [Secret([1, 2]), Secret([3, 4])]);
    let mut differences = BTreeSet::new();
    let mut all = BTreeSet::new();
    let mut bits = [0u32; 32];
    for at in 0..50_000u32 {
        let tuple = tuple(at as u16, (at >> 16) as u8 + (at % 100) as u8);
        let [first, second] = secrets.map(|secret| initial_sequence(&secret.0, &tuple, now).0);
        differences.insert(first.wrapping_sub(second));
        all.insert(first);
        (0..32).for_each(|bit| bits[bit] += first >> bit & 1);
    }
    assert!(all.len() > 49_900 && differences.len() > 49_900, "{} {}", all.len(), differences.len());
    assert!(bits.iter().all(|ones| (24_000..26_000).contains(ones)), "{bits:?}");
    // One tuple: strictly with the clock.
    let at = |ns: u64| initial_sequence(&secrets[0].0, &tuple(1, 1), Instant((1 << 40) + ns));
    for step in 1..1000u64 {
        let (before, after) = (at((step - 1) * 4000), at(step * 4000));
        assert!(before.lt(after) && after - before < 1000, "{before:?} {after:?}");
    }
}

/// RFC 6056 §3.3.4; CVE-2022-1012: ports are not in a row, differ by destination, and are none that is taken or not leased.
#[test]
fn w14_ports_are_not_told_by_those_before_them() {
    let mut lone = Lone::new();
    let mut ports = Vec::new();
    for at in 0..40 {
        let remote = ip(3 + at % 2);
        let port = lone.with(|stack| {
            let socket = stack.parts.tcp_socket(false, 0).expect("room");
            stack.parts.tcp_connect(socket, &OURS, (&remote, 80), stack.now).expect("a port");
            stack.parts.tcb(socket).expect("there").local_port
        });
        ports.push((remote, port));
    }
    assert!(ports.iter().all(|(_, port)| (40_000..41_000).contains(port)), "only leased ones");
    let distinct: BTreeSet<_> = ports.iter().map(|(remote, port)| (remote.0, *port)).collect();
    assert_eq!(distinct.len(), ports.len(), "no tuple twice");
    let to =
        |remote| ports.iter().filter(|(ip, _)| *ip == remote).map(|(_, port)| *port).collect::<Vec<u16>>();
    for ports in [to(ip(3)), to(ip(4))] {
        let steps: BTreeSet<u16> = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 1, "always the same step: {ports:?}");
    }
    let offsets: BTreeSet<u16> =
        to(ip(3)).iter().zip(to(ip(4))).map(|(first, second)| first.wrapping_sub(second)).collect();
    assert!(offsets.len() > 2, "one destination's ports tell another's: {offsets:?}");
    // Two hosts that differ in their secret only.
    let first = |secret: u64| {
        let mut lone = Lone::new();
        lone.with(|stack| {
            stack.parts.header.secret = Secret([secret, 7]);
            let socket = stack.parts.tcp_socket(false, 0).expect("room");
            stack.parts.tcp_connect(socket, &OURS, (&ip(9), 80), stack.now).expect("a port");
            stack.parts.tcb(socket).expect("there").local_port
        })
    };
    let firsts: BTreeSet<u16> = (0..8).map(|secret| first(1 + 2 * secret)).collect();
    assert!(firsts.len() >= 6, "{firsts:?}");
}

#[test]
fn w20_wrong_checksums_are_dropped_and_partial_ones_only_where_the_device_says_so() {
    let mut lone = Lone::new();
    let mut peer = lone.open(5000, &usual_without_stamps());
    for error in [1, 2, 0x0100, 0x8000, 0x7fff] {
        let before = lone.with(|stack| stack.shared.counters().of_malformed(Malformed::Checksum));
        let wrong = Segment { error, text: b"corrupted".to_vec(), ..peer.segment() };
        assert_eq!(lone.hears(&wrong).len(), 0);
        let after = lone.with(|stack| stack.shared.counters().of_malformed(Malformed::Checksum));
        assert_eq!(after, before + 1);
    }
    // The pseudo-header's sum alone, as a kernel leaves it to a device that there isn't: this one gives no such word.
    let mut partial = Segment { text: b"left to a device".to_vec(), ..peer.segment() }.bytes();
    let len = (partial.len() - 34) as u32;
    let sum = stack::wire::checksum::pseudo(&THEIRS, &OURS, protocol::TCP, len).fold();
    partial[50..52].copy_from_slice(&sum.to_be_bytes());
    let received = lone.tcb(&peer).rcv.nxt;
    assert_eq!(lone.hears_bytes(&partial).len(), 0);
    assert_eq!(lone.tcb(&peer).rcv.nxt, received, "nothing of it was taken");
    // IPv4's own.
    let mut bytes = peer.segment().bytes();
    bytes[24] ^= 1;
    assert_eq!(lone.hears_bytes(&bytes).len(), 0);
    let by_header = lone.with(|stack| stack.shared.counters().of_malformed(Malformed::HeaderChecksum));
    assert_eq!(by_header, 1);
    works(&mut lone, &mut peer);
    // What is no TCP at all is nobody's here, and answered by nobody.
    let before = lone.counter(Counter::SegmentsIn);
    lone.hears_bytes(&packet(&THEIRS, &OURS, 99, b"another protocol"));
    assert_eq!(lone.counter(Counter::SegmentsIn), before);
    whole(&mut lone, 1);
}

fn usual_without_stamps() -> Vec<u8> {
    vec![2, 4, 5, 180, 3, 3, 4, 4, 2]
}

/// What the helpers above say of a segment is what stands on the wire.
#[test]
fn the_hostile_peer_can_also_be_a_good_one() {
    let mut lone = Lone::new();
    let mut peer = lone.open(5000, &usual());
    let stamps = timestamps(30, 0);
    let said = Segment { options: stamps, ..peer.says(b"hello") };
    let answers = lone.hears(&said);
    assert!(answers.iter().all(|answer| answer.is(ACK) && answer.ack == peer.seq && answer.window > 0));
    assert_eq!(answers.len(), 1, "the first of a connection is acknowledged at once (quickack)");
    let mut got = [0; 10];
    assert_eq!(lone.with(|stack| stack.receive(peer.socket, &mut [&mut got])), Ok(5));
    assert_eq!(lone.with(|stack| stack.send(peer.socket, &[b"good day"], false)), Ok(8));
    let answers: Vec<Answer> = lone.poll().iter().filter_map(|bytes| Answer::of(bytes)).collect();
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&answer.text[..], answer.to, answer.from), (&b"good day"[..], (THEIRS, 5000), PORT));
    assert!(answer.flags & PSH != 0 && answer.flags & URG == 0 && Seq(answer.seq) == Seq(peer.ack));
}
