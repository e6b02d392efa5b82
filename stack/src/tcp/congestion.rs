//! The congestion window. What every algorithm shares is here: slow start, the response to a timeout, the validation
//! of a window that isn't used; what tells `newreno` from `cubic` is how the window grows in congestion avoidance
//! and how far it is cut.
//!
//! Windows are whole segments with a fraction of 32 bits; there is no floating point. While loss is being repaired,
//! the window is set by [`super::recovery::prr`] and not grown here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::seq::Seq;
use crate::tcp::rtt::RTO_MIN;
use crate::time::{Duration, Instant};

mod cubic;
mod hystart;
mod newreno;

coded! {
    /// The algorithms, by their names in TCP_CONGESTION.
    #[derive(Default)]
    pub enum Algorithm: u8 else Cubic {
        /// CUBIC (RFC 9438), the default.
        #[default]
        Cubic = 0,
        /// NewReno (RFC 5681, RFC 6582).
        NewReno = 1,
    }
}

impl Algorithm {
    /// Its name, as Linux's module of the same algorithm has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::NewReno => "reno",
        }
    }

    /// The algorithm of that name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().as_bytes() == name)
    }
}

/// The largest window: with segments of 1 KiB it is the largest that RFC 7323 can advertise.
pub const CWND_MAX: u32 = 1 << 20;
/// ssthresh before the first loss. RFC 5681 §3.1: "The initial value of ssthresh SHOULD be set arbitrarily high".
pub const SSTHRESH_INITIAL: u32 = 0x7fff_ffff;
/// RFC 5681 §3.1, equation 4: ssthresh is at least two segments.
const SSTHRESH_MIN: u32 = 2;

const _: () = assert!(size_of::<Congestion>() == 48);

/// The state of congestion control. Zero bytes are none: see [`Congestion::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Congestion {
    /// cwnd, in segments.
    cwnd: u32,
    /// ssthresh, in segments.
    ssthresh: u32,
    /// Of the next segment of cwnd, in 2⁻³².
    fraction: u32,
    /// Most segments in flight of this window of data.
    max_packets_out: u32,
    /// This window of data ends here.
    usage_seq: Seq,
    /// Most segments in flight since cwnd was last filled.
    used: u32,
    /// CUBIC: W_max, in segments; 0 before the first loss.
    w_max: u32,
    /// CUBIC's epoch in congestion avoidance, HyStart's round in slow start.
    phase: [u32; 4],
    /// When cwnd was last filled, in units of 2²⁴ ns. They come round in 18 minutes.
    filled: u16,
    /// Below, what follows; in the two high bits an [`Algorithm`].
    flags: u8,
    /// HyStart: measurements in this round.
    samples: u8,
}

/// The window was full when data was last sent.
const CWND_LIMITED: u8 = 1;
/// `phase` is an epoch of CUBIC.
const EPOCH: u8 = 2;
/// `phase` is a round of HyStart.
const ROUND: u8 = 4;
/// HyStart has found where to leave slow start.
const FOUND: u8 = 8;
/// CUBIC: `w_max` was lowered by fast convergence.
const CONVERGED: u8 = 16;
/// CUBIC: no loss has told a window yet.
const PROBING: u8 = 32;
/// Where the algorithm is.
const ALGORITHM_BITS: u32 = 6;

/// Nanoseconds of a unit of `filled`, as a power of two.
const FILLED_BITS: u32 = 24;

/// What an acknowledgment tells congestion control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The time.
    pub now: Instant,
    /// Segments that it acknowledges, cumulatively or selectively, and that were not acknowledged before.
    pub segments: u32,
    /// The round-trip time that it measures.
    pub rtt: Option<Duration>,
    /// The smallest of the last minutes.
    pub min_rtt: Option<Duration>,
    /// SND.UNA after it.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// Bytes per second at which the connection is paced, or would be; see [`super::pacing::rate`].
    pub pacing_rate: u64,
    /// Whether what is sent is spread at that rate.
    pub is_paced: bool,
}

/// IW, the window after the handshake, in segments of this size.
///
/// RFC 6928 §2: min (10*MSS, max (2*MSS, 14600)) bytes. RFC 5681 §3.1: "if the SYN or SYN/ACK is lost, the initial
/// window used by a sender after a correctly transmitted SYN MUST be one segment consisting of at most SMSS bytes."
#[must_use]
pub const fn initial_window(mss: u16, syn_was_lost: bool) -> u32 {
    let segments = 14_600 / if mss == 0 { 1 } else { mss as u32 };
    match segments {
        _ if syn_was_lost => 1,
        0..=2 => 2,
        3..10 => segments,
        _ => 10,
    }
}

impl Congestion {
    /// A connection that begins with this window.
    #[must_use]
    pub const fn new(algorithm: Algorithm, cwnd: u32) -> Self {
        Self {
            cwnd,
            ssthresh: SSTHRESH_INITIAL,
            fraction: 0,
            max_packets_out: 0,
            usage_seq: Seq(0),
            used: 0,
            w_max: 0,
            phase: [0; 4],
            filled: 0,
            flags: (algorithm as u8) << ALGORITHM_BITS,
            samples: 0,
        }
    }

    /// The algorithm.
    #[inline]
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        Algorithm::decode(self.flags >> ALGORITHM_BITS)
    }

    /// Another algorithm goes on from the same window (TCP_CONGESTION).
    pub fn set_algorithm(&mut self, algorithm: Algorithm) {
        self.forget();
        self.flags = self.flags & CWND_LIMITED | (algorithm as u8) << ALGORITHM_BITS;
    }

    /// cwnd, in segments.
    #[inline]
    #[must_use]
    pub fn cwnd(&self) -> u32 {
        self.cwnd.clamp(1, CWND_MAX)
    }

    /// ssthresh, in segments.
    #[inline]
    #[must_use]
    pub const fn ssthresh(&self) -> u32 {
        self.ssthresh
    }

    /// RFC 5681 §3.1: "The slow start algorithm is used when cwnd < ssthresh".
    #[inline]
    #[must_use]
    pub fn in_slow_start(&self) -> bool {
        self.cwnd() < self.ssthresh
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn put(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// Takes the window that recovery allows (RFC 9937), or that a path's memory tells.
    pub fn set_cwnd(&mut self, cwnd: u32) {
        self.cwnd = cwnd.clamp(1, CWND_MAX);
        self.fraction = 0;
    }

    /// An acknowledgment, unless [`super::recovery::prr`] has the window: not in fast recovery, but while a timeout
    /// is repaired.
    ///
    /// A window that isn't used does not grow (RFC 7661 §4.1, Linux's tcp_is_cwnd_limited): its size would say
    /// nothing of the path.
    #[inline]
    pub fn on_ack(&mut self, acked: &Acked) {
        if let (Algorithm::Cubic, Some(rtt)) = (self.algorithm(), acked.rtt)
            && self.in_slow_start()
            && !self.has(FOUND)
        {
            self.hystart(acked, rtt);
        }
        if acked.segments != 0 && self.is_cwnd_limited() {
            let left = self.slow_start(acked.segments);
            if left != 0 {
                let growth = match self.algorithm() {
                    Algorithm::Cubic => self.cubic(acked, left),
                    Algorithm::NewReno => self.newreno(left),
                };
                self.grow(growth);
            }
        }
    }

    /// Grows by what was acknowledged, up to ssthresh; returns what is left for congestion avoidance.
    ///
    /// RFC 5681 §3.1: "During slow start, a TCP increments cwnd by at most SMSS bytes for each ACK received that
    /// cumulatively acknowledges new data." Counted in whole segments that were acknowledged (RFC 3465 without its
    /// limit, as Linux), so an ACK of a part of a segment gains nothing.
    fn slow_start(&mut self, segments: u32) -> u32 {
        let cwnd = self.cwnd();
        let room = self.ssthresh.saturating_sub(cwnd);
        let grown = segments.min(room);
        self.cwnd = cwnd.saturating_add(grown).min(CWND_MAX);
        segments - grown
    }

    /// Adds segments in 2⁻³².
    #[inline]
    fn grow(&mut self, growth: u64) {
        let sum = growth.saturating_add(u64::from(self.fraction));
        self.fraction = sum as u32;
        let whole = u32::try_from(sum >> 32).unwrap_or(u32::MAX);
        self.cwnd = self.cwnd().saturating_add(whole).min(CWND_MAX);
    }

    /// Loss or ECE (RFC 5681 §3.1 equation 4, RFC 9438 §4.6): the new ssthresh, to which [`super::recovery::prr`]
    /// brings cwnd. Once for each window of data, which the caller sees to.
    pub fn on_congestion(&mut self) {
        let cwnd = self.cwnd();
        let ssthresh = match self.algorithm() {
            Algorithm::Cubic => self.cubic_ssthresh(cwnd),
            Algorithm::NewReno => newreno::ssthresh(cwnd),
        };
        self.ssthresh = ssthresh.max(SSTHRESH_MIN);
    }

    /// Recovery has ended: cwnd is ssthresh (RFC 6582 §3.2 step 3, RFC 9937 §6).
    pub fn on_recovered(&mut self) {
        self.set_cwnd(self.ssthresh.min(CWND_MAX));
    }

    /// The retransmission timer has expired with so much left in flight, which is none when all of it is taken for
    /// lost. `first` if this is the first time since progress was made.
    ///
    /// RFC 5681 §3.1: "upon a timeout […] cwnd MUST be set to no more than the loss window, LW, which equals 1
    /// full-sized segment (regardless of the value of IW)", and ssthresh is "held constant" when a retransmission
    /// times out again.
    pub fn on_timeout(&mut self, pipe: u32, first: bool) {
        if first {
            self.on_congestion();
        }
        self.set_cwnd(pipe.saturating_add(1));
        self.forget();
    }

    /// The reduction was wrong (RFC 4015, RFC 5682): what was before it is again, unless more was reached since.
    pub fn undo(&mut self, prior_cwnd: u32, prior_ssthresh: u32) {
        self.cwnd = self.cwnd().max(prior_cwnd.min(CWND_MAX));
        self.ssthresh = self.ssthresh.max(prior_ssthresh);
        // CUBIC goes on from the window that it has again.
        self.put(EPOCH, false);
    }

    /// Forgets what the algorithm knows of the path.
    fn forget(&mut self) {
        self.w_max = 0;
        self.samples = 0;
        self.flags &= CWND_LIMITED | u8::MAX << ALGORITHM_BITS;
    }

    /// Whether the window is what limits the sender. In slow start it may be half used: it doubles in a round trip
    /// (tcp_is_cwnd_limited).
    #[inline]
    #[must_use]
    pub fn is_cwnd_limited(&self) -> bool {
        self.has(CWND_LIMITED) || self.in_slow_start() && self.cwnd() < self.max_packets_out.saturating_mul(2)
    }

    /// Data was sent: `packets_out` segments are not acknowledged, and `limited` if the window kept more from being
    /// sent. An application that has not filled its window for a retransmission timeout loses half of what it doesn't
    /// use (tcp_cwnd_validate, RFC 2861).
    #[inline]
    pub fn on_sent(&mut self, now: Instant, sent: &Sent) {
        if self.is_underused(now, sent.una, sent.nxt, sent.packets_out, sent.limited, RTO_MIN) {
            self.on_underused(now, sent.rto, sent.initial_window);
        }
    }

    /// The first half of [`Self::on_sent`], which is all of it as a rule; true if the second one is needed.
    #[inline]
    pub(crate) fn is_underused(
        &mut self,
        now: Instant,
        una: Seq,
        nxt: Seq,
        packets_out: u32,
        limited: bool,
        rto_min: Duration,
    ) -> bool {
        if self.usage_seq.le(una) || limited || !self.has(CWND_LIMITED) && packets_out > self.max_packets_out
        {
            self.put(CWND_LIMITED, limited);
            self.max_packets_out = packets_out;
            self.usage_seq = nxt;
        }
        let stamp = (now.0 >> FILLED_BITS) as u16;
        if self.is_cwnd_limited() {
            self.used = 0;
            self.filled = stamp;
            return false;
        }
        self.used = self.used.max(packets_out);
        // No timeout is shorter than this, so nothing is to be asked before.
        u64::from(stamp.wrapping_sub(self.filled)) > rto_min.0 >> FILLED_BITS
    }

    /// The window has not been full for a while: if that is as long as a timeout, half of what isn't used goes.
    #[cold]
    pub(crate) fn on_underused(&mut self, now: Instant, rto: Duration, initial_window: u32) {
        let stamp = (now.0 >> FILLED_BITS) as u16;
        // Whole units that have passed: less than the true time.
        let units = u64::from(stamp.wrapping_sub(self.filled)).saturating_sub(1);
        if units << FILLED_BITS >= rto.0 && units != 0 {
            let used = self.used.max(initial_window);
            if used < self.cwnd() {
                self.ssthresh = self.remembered_ssthresh();
                self.set_cwnd(used.midpoint(self.cwnd()));
            }
            self.used = 0;
            self.filled = stamp;
        }
    }

    /// Nothing was in flight for `idle`, and now something is sent.
    ///
    /// RFC 5681 §4.1: "a TCP SHOULD set cwnd to no more than RW before beginning transmission if the TCP has not sent
    /// data in an interval exceeding the retransmission timeout." As Linux (tcp_cwnd_restart), a half is taken for
    /// each timeout that has passed, down to IW. CUBIC's curve stands still meanwhile (RFC 9438 §5.8).
    pub fn on_restart(&mut self, idle: Duration, rto: Duration, initial_window: u32) {
        if self.has(EPOCH) {
            self.cubic_idle(idle);
        }
        let halves = idle.0 / rto.0.max(1);
        if halves == 0 {
            return;
        }
        let floor = initial_window.min(self.cwnd());
        self.ssthresh = self.remembered_ssthresh();
        self.set_cwnd((self.cwnd() >> halves.min(31)).max(floor));
        self.used = 0;
    }

    /// ssthresh for a window that is given up without loss: three quarters of it are safe (tcp_current_ssthresh).
    fn remembered_ssthresh(&self) -> u32 {
        let cwnd = self.cwnd();
        self.ssthresh.max((cwnd >> 1) + (cwnd >> 2))
    }
}

/// What was sent, for [`Congestion::on_sent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// Segments that are not acknowledged cumulatively.
    pub packets_out: u32,
    /// There was more to send, and cwnd was in the way.
    pub limited: bool,
    /// RTO.
    pub rto: Duration,
    /// IW.
    pub initial_window: u32,
}

#[cfg(test)]
mod tests;
