//! The short way of segments that are expected (header prediction) beside the long one, in a flood of segments that are nearly so: both
//! hosts say the same and read the same, and neither keeps more than it may.

use harness::sim::forge::Forged;
use harness::sim::hand::{Bench, listening, syn};
use harness::sim::random::Random;
use harness::sim::raw::ip;
use harness::sim::tcp::{PORT, Plan, text};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::time::Instant;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::{Options, Timestamps};

/// One segment in so many is not what it should be, by seed: in the last ones nearly all of the others go the short way.
const RARELY: [u64; 4] = [3, 10, 50, 200];
/// The first timestamp of the peer.
const STAMP: u32 = 1_000_000;
/// Segments of one flood.
const SEGMENTS: usize = if cfg!(debug_assertions) { 2_000 } else { 20_000 };

/// One of the two hosts, and what it has said and read.
struct Side {
    bench: Bench,
    socket: Handle,
    said: Vec<String>,
    read: Vec<u8>,
    /// The timestamp that it has sent last.
    tsecr: u32,
}

impl Side {
    fn new(seed: u64, values: &Values) -> (Self, u32, u32) {
        let plan = Plan { stays: true, reads_from: Instant(u64::MAX), ..Plan::default() };
        let mut bench = Bench::new(seed, listening(values, plan));
        let stamped =
            |options, tsecr| Options { timestamps: Some(Timestamps { tsval: STAMP, tsecr }), ..options };
        let heard = bench.send(Flags::SYN, 100, 0, stamped(syn(), 0), &[]);
        let (ack, theirs) = (heard[0].seq.wrapping_add(1), heard[0].options.timestamps.expect("timestamps"));
        bench.send(Flags::ACK, 101, ack, stamped(Options::default(), theirs.tsval), &[]);
        let socket = bench.host().talks[0].socket.expect("accepted");
        (Self { bench, socket, said: Vec::new(), read: Vec::new(), tsecr: theirs.tsval }, 101, ack)
    }

    fn hears(&mut self, segment: &Forged) {
        for heard in self.bench.give(segment) {
            self.tsecr = heard.options.timestamps.map_or(self.tsecr, |stamps| stamps.tsval);
            self.said.push(format!(
                "{:?} {} {} {} {}",
                heard.flags,
                heard.seq,
                heard.ack,
                heard.window,
                heard.text.len()
            ));
        }
    }

    fn reads(&mut self) {
        let (socket, mut buffer) = (self.socket, vec![0; 4096]);
        while let Ok(len @ 1..) = self.bench.with(|stack| stack.receive(socket, &mut [&mut buffer])) {
            self.read.extend_from_slice(&buffer[..len]);
        }
    }

    fn sends(&mut self, text: &[u8]) {
        let socket = self.socket;
        let sent = self.bench.with(|stack| stack.send(socket, &[text], false));
        self.said.push(format!("{sent:?}"));
    }
}

/// What an attacker makes of the segment that is expected: it stays within what does not end the connection.
fn spoil(random: &mut Random, segment: &mut Forged, stream: &[u8], at: usize) {
    let some = random.next();
    match random.below(10) {
        0 => segment.ack = segment.ack.wrapping_add(some as u32),
        1 => segment.ack = segment.ack.wrapping_sub(1 + some as u32 % 70_000),
        2 => segment.window = some as u16,
        3 => (segment.urgent, segment.flags) = (some as u16 % 100, segment.flags | Flags::URG),
        4 => segment.flags = Flags(some as u16 & 0xff & !(Flags::SYN.0 | Flags::RST.0 | Flags::FIN.0)),
        // Text that came before, and some of what comes next.
        5 => {
            let back = (some as usize % 500).min(at);
            segment.seq = segment.seq.wrapping_sub(back as u32);
            segment.text = stream[at - back..at + segment.text.len()].to_vec();
        }
        // A hole before it.
        6 => {
            let gap = 1 + some as usize % 100;
            segment.seq = segment.seq.wrapping_add(gap as u32);
            segment.text = stream[at + gap..at + gap + segment.text.len()].to_vec();
        }
        // Far outside of the window, with any of the bits.
        7 => {
            segment.seq = segment.seq.wrapping_add(0x4000_0000 + some as u32 % 0x4000_0000);
            segment.flags = Flags((some >> 40) as u16 & 0xff);
        }
        8 => segment.options = Options::default(),
        _ => {
            // Of the past: one of the future would let nothing of the present in any more (RFC 7323 §5).
            let now = segment.options.timestamps.map_or(0, |stamps| stamps.tsval);
            let stamps = Timestamps { tsval: now.wrapping_sub(some as u32 >> 1), tsecr: (some >> 32) as u32 };
            segment.options = Options { timestamps: Some(stamps), ..Options::default() };
        }
    }
}

#[test]
fn a_flood_of_nearly_expected_segments_meets_the_same_on_both_ways() {
    for seed in 0..RARELY.len() as u64 {
        // Urgent text stays in the stream.
        let usual = Values { options: Switch::OOB_INLINE, ..Values::default() };
        let (mut short, seq, ack) = Side::new(seed, &usual);
        // A socket that wants to be told of two bytes and more: its segments go the long way, and its calls are what they are.
        let (mut long, ..) = Side::new(seed, &Values { receive_low_water: 2, ..usual });
        let (mut random, stream) = (Random::new(seed + 77), text(seed, 64 * SEGMENTS + 100_000));
        let (mut at, mut acked) = (0, ack);
        for step in 0..SEGMENTS {
            let len = random.below(60) as usize;
            let stamps = Timestamps { tsval: STAMP + step as u32, tsecr: short.tsecr };
            let mut segment = Forged {
                link: (2, 1),
                ends: ((ip(2), 5000), (ip(1), PORT)),
                seq: seq.wrapping_add(at as u32),
                ack: acked,
                flags: Flags::ACK,
                window: 20_000,
                urgent: 0,
                options: Options { timestamps: Some(stamps), ..Options::default() },
                text: stream[at..at + len].to_vec(),
            };
            if random.below(RARELY[seed as usize]) == 0 {
                spoil(&mut random, &mut segment, &stream, at);
            } else {
                at += len;
            }
            for side in [&mut short, &mut long] {
                side.hears(&segment);
                side.reads();
            }
            if step % 7 == 0 {
                for side in [&mut short, &mut long] {
                    side.sends(b"some of its own");
                }
                // What was said last tells what the peer would have.
                let socket = short.socket;
                acked = short
                    .bench
                    .with(|stack| stack.parts.tcb(socket).map(|tcb| tcb.snd.nxt.0))
                    .expect("it lives");
            }
            let first = short.said.iter().zip(&long.said).find(|(short, long)| short != long);
            assert!(
                first.is_none() && short.said.len() == long.said.len(),
                "seed {seed}, {step}: {segment:?}: {first:?}"
            );
            short.said.clear();
            long.said.clear();
            let held = short.bench.host().held();
            assert!(held[0] == 2 && held[3] <= 600, "seed {seed}, {step}: {held:?}");
        }
        assert!(short.read == long.read && stream.starts_with(&short.read), "seed {seed}");
        assert!(short.read.len() >= at, "seed {seed}: {} of {at}", short.read.len());
        let ways = [&mut short, &mut long].map(|side| side.bench.host().counter(Counter::HeaderPredicted));
        let least = if RARELY[seed as usize] > 10 { SEGMENTS as u64 / 10 } else { 1 };
        assert!(ways[0] > least && ways[1] == 0, "seed {seed}: {ways:?}");
        for side in [&mut short, &mut long] {
            side.bench.host().check();
        }
    }
}
