//! The round-trip time and the retransmission timeout: RFC 6298 with Linux's bounds and Linux's deviation, which is
//! the largest of a window and not the latest (tcp_rtt_estimator in net/ipv4/tcp_input.c).
//!
//! Departures from RFC 6298, both Linux's: (2.4) rounds the timeout up to one second; here the *variation* is at
//! least [`Bounds::min`], 200 ms, so that a timeout is that much above the round-trip time. And when the round-trip
//! time falls, the deviation follows with an eighth of the usual gain, lest a path that got faster times out.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::micros;
use crate::seq::Seq;
use crate::time::{Duration, Instant};

mod minimum;

use minimum::Minimum;

/// The smallest variation that a timeout has (TCP_RTO_MIN): no timeout is shorter.
pub const RTO_MIN: Duration = Duration::from_millis(200);
/// The longest timeout (TCP_RTO_MAX).
pub const RTO_MAX: Duration = Duration::from_secs(120);

/// Between what the timeout stays; a host may set both (net.ipv4.tcp_rto_min_us, tcp_rto_max_ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// TCP_RTO_MIN.
    pub min: Duration,
    /// TCP_RTO_MAX. RFC 6298 (2.5): "A maximum value MAY be placed on RTO provided it is at least 60 seconds."
    pub max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { min: RTO_MIN, max: RTO_MAX }
    }
}

/// RFC 6298 (2.1): "Until a round-trip time (RTT) measurement has been made for a segment sent between the sender and
/// receiver, the sender SHOULD set RTO <- 1 second".
pub const INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 (5.7), after a SYN was lost.
pub const FALLBACK: Duration = Duration::from_secs(3);
/// Doublings after which a timeout is at its maximum whatever it was.
const BACKOFF_MAX: u8 = 20;
/// Longest round-trip time that is believed: 2²⁸ µs, four and a half minutes. Eight times as much is 31 bits.
const RTT_MAX: u32 = 1 << 28;

/// A SYN was lost (RFC 6298 (5.7)).
const SYN_LOST: u8 = 1;

/// What a connection knows of its path's delay. Zero bytes are one that knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rtt {
    /// SRTT, in eighths of a microsecond; 0 before the first measurement.
    srtt: u32,
    /// The mean deviation, in quarters of a microsecond.
    mdev: u32,
    /// The largest `mdev` of this round, at least the minimum.
    mdev_max: u32,
    /// K·RTTVAR with K = 4, in microseconds: `mdev_max`, smoothed over rounds.
    rttvar: u32,
    /// A round ends when this is acknowledged.
    rtt_seq: Seq,
    /// The smallest of the last five minutes.
    minimum: Minimum,
    /// Doublings of the timeout.
    backoff: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Rtt>() == 40);

/// What an acknowledgment tells about time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// When the newest segment that it acknowledges, cumulatively or selectively, was sent; `None` if any of them was
    /// sent twice.
    pub sent_at: Option<Instant>,
    /// It advances SND.UNA.
    pub advances: bool,
    /// Milliseconds between our clock of timestamps and the TSecr that it carries, if it does.
    pub since_tsecr_ms: Option<u32>,
}

/// The round-trip time that an acknowledgment measures, if it does.
///
/// RFC 6298 §3: "TCP MUST use Karn's algorithm for taking RTT samples. That is, RTT samples MUST NOT be made using
/// segments that were retransmitted (and thus for which it is ambiguous whether the reply was for the first instance
/// of the packet or a later instance)." Timestamps remove the ambiguity; RFC 7323 §4.1: "A TSecr value received in a
/// segment MAY be used to update the averaged RTT measurement only if the segment advances the left edge of the send
/// window". Our own clock is finer than the timestamp's and comes first, as in Linux (tcp_ack_update_rtt).
#[must_use]
pub fn measured(now: Instant, evidence: &Evidence) -> Option<Duration> {
    if let Some(sent_at) = evidence.sent_at {
        return Some(now - sent_at);
    }
    let ms = evidence.since_tsecr_ms.filter(|_| evidence.advances)?;
    // A difference beyond half the circle is an echo from the future.
    (ms <= u32::MAX / 2).then(|| Duration::from_millis(u64::from(ms.max(1))))
}

impl Rtt {
    /// Takes a measurement, of a moment at which SND.UNA and SND.NXT are these, and ends the backoff.
    pub fn sample(&mut self, rtt: Duration, snd_una: Seq, snd_nxt: Seq, bounds: &Bounds) {
        let rtt = micros(rtt).clamp(1, RTT_MAX);
        let min = micros(bounds.min);
        self.backoff = 0;
        if self.srtt == 0 {
            // RFC 6298 (2.2): "When the first RTT measurement R is made, the host MUST set SRTT <- R, RTTVAR <- R/2,
            // RTO <- SRTT + max (G, K*RTTVAR)".
            self.srtt = rtt << 3;
            self.mdev = rtt << 1;
            self.rttvar = self.mdev.max(min);
            self.mdev_max = self.rttvar;
            self.rtt_seq = snd_nxt;
            return;
        }
        // RFC 6298 (2.3): "When a subsequent RTT measurement R' is made, a host MUST set RTTVAR <- (1 - beta) *
        // RTTVAR + beta * |SRTT - R'|, SRTT <- (1 - alpha) * SRTT + alpha * R'" with alpha 1/8 and beta 1/4.
        let old = (self.srtt >> 3).min(RTT_MAX);
        let error = rtt.abs_diff(old);
        self.srtt = (self.srtt.saturating_sub(old) + rtt).max(1);
        let deviation = (self.mdev >> 2).min(RTT_MAX);
        self.mdev = match error.checked_sub(deviation) {
            None => self.mdev.saturating_sub(deviation - error),
            Some(more) if rtt < old => self.mdev.saturating_add(more >> 3),
            Some(more) => self.mdev.saturating_add(more),
        };
        self.mdev_max = self.mdev_max.max(self.mdev);
        self.rttvar = self.rttvar.max(self.mdev_max);
        if self.rtt_seq.lt(snd_una) {
            self.rttvar -= (self.rttvar - self.mdev_max) >> 2;
            self.rtt_seq = snd_nxt;
            self.mdev_max = min;
        }
    }

    /// Takes a measurement for the minimum of the last five minutes. One that may hold the peer's delayed
    /// acknowledgment counts only if it is smaller (tcp_update_rtt_min).
    pub fn sample_min(&mut self, now: Instant, rtt: Duration, maybe_delayed: bool) {
        let rtt = micros(rtt).max(1);
        if !maybe_delayed || self.minimum.value().is_none_or(|least| rtt < least) {
            self.minimum.update(now, rtt);
        }
    }

    /// RFC 6298 (5.5): "The host MUST set RTO <- RTO * 2 ("back off the timer")."
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(BACKOFF_MAX);
    }

    /// Doublings since the last measurement.
    #[must_use]
    pub const fn backoff(&self) -> u8 {
        self.backoff
    }

    /// The handshake is done and its SYN was sent more than once, so that it measured nothing. RFC 6298 (5.7): "If
    /// the timer expires awaiting the ACK of a SYN segment and the TCP implementation is using an RTO less than 3
    /// seconds, the RTO MUST be re-initialized to 3 seconds when data transmission begins (i.e., after the three-way
    /// handshake completes)."
    pub fn syn_was_lost(&mut self) {
        self.flags |= SYN_LOST;
        self.backoff = 0;
    }

    /// A doubling is taken back: a router says that there was no way meanwhile (RFC 6069 §3).
    pub fn revert(&mut self) {
        self.backoff = self.backoff.saturating_sub(1);
    }

    /// RTO without backoff.
    #[must_use]
    pub fn base(&self, bounds: &Bounds) -> Duration {
        let rto = match (self.srtt, self.flags & SYN_LOST) {
            (0, 0) => INITIAL,
            (0, _) => FALLBACK,
            (srtt, _) => Duration::from_micros(u64::from(srtt >> 3) + u64::from(self.rttvar)),
        };
        rto.max(bounds.min).min(bounds.max)
    }

    /// RTO: how long after it was sent, or the one before it was sent again, a segment is sent again.
    #[inline]
    #[must_use]
    pub fn rto(&self, bounds: &Bounds) -> Duration {
        backed_off(self.base(bounds), self.backoff, bounds.max)
    }

    /// SRTT.
    #[inline]
    #[must_use]
    pub const fn srtt(&self) -> Option<Duration> {
        if self.srtt == 0 { None } else { Some(Duration(self.srtt as u64 * 125)) }
    }

    /// RTTVAR: the mean deviation, in the sense of TCP_INFO's tcpi_rttvar.
    #[must_use]
    pub const fn rttvar(&self) -> Duration {
        Duration(self.mdev as u64 * 250)
    }

    /// The smallest measurement of the last five minutes.
    #[inline]
    #[must_use]
    pub fn min_rtt(&self) -> Option<Duration> {
        self.minimum.value().map(|least| Duration::from_micros(u64::from(least)))
    }
}

/// A length after so many doublings, at most `max`.
#[inline]
#[must_use]
pub fn backed_off(base: Duration, doublings: u8, max: Duration) -> Duration {
    let doublings = u32::from(doublings.min(BACKOFF_MAX));
    Duration(base.0.min(u64::MAX >> BACKOFF_MAX) << doublings).min(max)
}

#[cfg(test)]
mod tests;
