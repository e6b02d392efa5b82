//! The receive buffer grows with what the user reads in a round trip: "dynamic right-sizing" as Linux has it
//! (tcp_rcv_space_adjust, tcp_rcv_rtt_update).
//!
//! What was read in the last round trip must fit twice, to live through a loss; and as a sender may double its window
//! each round, and what we offer now is for the round after this one, growth is met with as much again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::micros;
use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// What is known of the receiver's rounds. Zero bytes are the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Autotune {
    /// The round-trip time that the receiver sees, in eighths of a microsecond; 0 is unknown.
    rtt: u32,
    /// A window's worth is received when RCV.NXT reaches this.
    rtt_seq: Seq,
    /// Microseconds at which that window began, plus one; 0 is none.
    rtt_began: u32,
    /// Bytes that the user read in the last round.
    copied: u32,
    /// The first byte that was unread when this round began.
    seq: Seq,
    /// Microseconds at which this round began.
    began: u32,
}

/// Longest round trip that is believed: 2²⁸ µs.
const RTT_MAX: u32 = 1 << 28;

fn clock(now: Instant) -> u32 {
    (now.0 / 1_000) as u32
}

impl Autotune {
    /// A connection that begins; the buffer grows when more than so many bytes are read in a round.
    #[must_use]
    pub fn new(now: Instant, rcv_nxt: Seq, first_round: u32) -> Self {
        Self { copied: first_round, seq: rcv_nxt, began: clock(now), ..Self::default() }
    }

    /// A full segment arrived that echoes what we sent so long ago: the average of such is the round trip.
    pub fn sample(&mut self, rtt: Duration) {
        let rtt = micros(rtt).clamp(1, RTT_MAX);
        self.rtt = if self.rtt == 0 { rtt << 3 } else { self.rtt - (self.rtt >> 3) + rtt };
    }

    /// Text arrived up to `rcv_nxt` on a connection without timestamps: what fills a window took at least a round
    /// trip, and the smallest such time counts.
    pub fn on_text(&mut self, now: Instant, rcv_nxt: Seq, rcv_wnd: u32) {
        let now = clock(now);
        if self.rtt_began != 0 {
            if rcv_nxt.lt(self.rtt_seq) {
                return;
            }
            let took = now.wrapping_sub(self.rtt_began - 1).clamp(1, RTT_MAX);
            if self.rtt == 0 || took < self.rtt >> 3 {
                self.rtt = took << 3;
            }
        }
        self.rtt_seq = rcv_nxt + rcv_wnd;
        self.rtt_began = now.wrapping_add(1).max(1);
    }

    /// The user has read up to `copied_seq`. Bytes that the receive window should be able to reach from now on, if a
    /// round has ended in which more was read than in the one before.
    pub fn on_read(&mut self, now: Instant, copied_seq: Seq, mss: u16) -> Option<u32> {
        let now = clock(now);
        if self.rtt == 0 || now.wrapping_sub(self.began) < self.rtt >> 3 {
            return None;
        }
        let copied = copied_seq - self.seq;
        (self.seq, self.began) = (copied_seq, now);
        if copied <= self.copied {
            return None;
        }
        let before = u64::from(self.copied.max(1));
        self.copied = copied;
        let wnd = 2 * u64::from(copied) + 16 * u64::from(mss);
        let grown = wnd.saturating_mul(u64::from(copied) - before.min(u64::from(copied))) / before;
        Some(u32::try_from(wnd.saturating_add(2 * grown)).unwrap_or(u32::MAX))
    }

    /// Bytes that the user read in the last round, as tcpi_rcv_space has it.
    #[must_use]
    pub const fn copied(&self) -> u32 {
        self.copied
    }

    /// The round-trip time that the receiver sees, as tcpi_rcv_rtt has it.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        (self.rtt != 0).then(|| Duration(u64::from(self.rtt) * 125))
    }
}
