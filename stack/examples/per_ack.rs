//! What TCP's algorithms cost for each acknowledgment, to be counted in instructions:
//!
//! ```text
//! cargo build --release -p accel-stack --example per_ack
//! for n in 1000 101000; do valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/per_ack cubic $n; done
//! ```
//!
//! The difference of the two counts, divided by 100,000, is one acknowledgment's. The first argument says which work:
//! `none` is the loop alone, `rtt`, `cubic`, `newreno` and `rack` are one part each, `all` is everything with CUBIC.

use std::hint::black_box;

use stack::seq::Seq;
use stack::tcp::congestion::{Acked, Algorithm, Congestion, Sent};
use stack::tcp::recovery::rack::{Segment, Surroundings};
use stack::tcp::recovery::scoreboard::Scoreboard;
use stack::tcp::recovery::{Recovery, tlp};
use stack::tcp::rtt::{self, Bounds, Evidence, Rtt};
use stack::time::{Duration, Instant};

/// A connection in congestion avoidance.
struct Connection {
    rtt: Rtt,
    congestion: Congestion,
    recovery: Recovery,
    board: Scoreboard,
}

/// Which parts are done.
#[derive(Clone, Copy)]
struct Parts {
    rtt: bool,
    congestion: bool,
    rack: bool,
}

/// An acknowledgment of one segment that was sent once.
#[inline(never)]
fn on_ack(connection: &mut Connection, parts: Parts, now: Instant, sent_at: Instant, una: Seq, nxt: Seq) {
    let bounds = Bounds::default();
    let segment = Segment { sent_at, end: una, retransmitted: false };
    let evidence = Evidence { sent_at: Some(sent_at), advances: true, since_tsecr_ms: Some(1) };
    let sample = rtt::measured(now, &evidence);
    if parts.rtt
        && let Some(sample) = sample
    {
        connection.rtt.sample_min(now, sample, false);
        connection.rtt.sample(sample, una, nxt, &bounds);
        black_box(connection.rtt.rto(&bounds));
    }
    let min_rtt = connection.rtt.min_rtt();
    if parts.rack {
        let rack = &mut connection.recovery.rack;
        rack.update(now, &segment, min_rtt, false);
        connection.board.fack = rack.detect_reordering(&segment, connection.board.fack);
        rack.on_ack(false, una, nxt);
        let around = Surroundings {
            in_recovery: connection.recovery.episode.in_recovery(),
            sacked_out: connection.board.sacked_out,
            min_rtt,
            srtt: connection.rtt.srtt(),
        };
        let next = Segment { sent_at: now, end: una + 1460, retransmitted: false };
        black_box(rack.judge(now, &next, rack.reo_wnd(&around)));
        black_box(rack.on_tlp_ack(&tlp::Ack { ack: una, dsack_of_probe: false, plain_duplicate: false }));
    }
    if parts.congestion {
        connection.congestion.on_ack(&Acked {
            now,
            segments: 1,
            rtt: sample,
            min_rtt,
            una,
            nxt,
            pacing_rate: 0,
            is_paced: false,
        });
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().unwrap_or_default();
    let count: u32 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let is = |names: &[&str]| names.contains(&work.as_str());
    let parts = Parts {
        rtt: is(&["rtt", "all"]),
        congestion: is(&["cubic", "newreno", "all"]),
        rack: is(&["rack", "all"]),
    };
    let algorithm = if work == "newreno" { Algorithm::NewReno } else { Algorithm::Cubic };
    let mut connection = Connection {
        rtt: Rtt::default(),
        congestion: Congestion::new(algorithm, 1000),
        recovery: Recovery::default(),
        board: Scoreboard::default(),
    };
    let limited = Sent {
        una: Seq(0),
        nxt: Seq(1),
        packets_out: 1000,
        limited: true,
        rto: Duration::from_secs(1),
        initial_window: 10,
    };
    connection.congestion.on_sent(Instant(0), &limited);
    connection.congestion.on_congestion();
    connection.congestion.on_recovered();
    for ack in 0..count {
        // A segment each 12 µs, and a round trip of 10 ms with some noise.
        let now = Instant(1_000_000_000 + u64::from(ack) * 12_000);
        let sent_at = Instant(now.0 - 10_000_000 - u64::from(ack % 7) * 30_000);
        let una = Seq(ack.wrapping_mul(1460));
        on_ack(black_box(&mut connection), parts, now, sent_at, una, una + 800 * 1460);
    }
    black_box(&connection.congestion);
}
