//! When to acknowledge: at once, or after a while in which something else may carry it (RFC 9293 §3.8.6.3, RFC 5681
//! §4.2), as Linux (tcp_event_data_recv, tcp_send_delayed_ack and __tcp_ack_snd_check in net/ipv4).
//!
//! The wait, `ato`, follows the gaps between segments. A connection that begins, or whose sender began anew, is
//! *quick*: so many acknowledgments go at once, for slow start's sake. One in which the user answers what it reads is
//! *interactive*: the answer carries the acknowledgment.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// Smallest wait (TCP_ATO_MIN, TCP_DELACK_MIN).
pub const MIN: Duration = Duration::from_millis(40);
/// Largest wait (TCP_DELACK_MAX). RFC 9293 §3.8.6.3: "the delay MUST be less than 0.5 seconds (MUST-40)".
pub const MAX: Duration = Duration::from_millis(200);
/// Acknowledgments of a quick start (TCP_MAX_QUICKACKS).
const QUICK_MAX: u8 = 16;
/// Bytes that a segment is thought to carry at least, before any came: RFC 9293 §3.7.1's default for IPv4
/// (TCP_MIN_RCVMSS).
const RCV_MSS_INITIAL: u16 = 536;

/// Bytes that the smallest of full segments carries (TCP_MIN_MSS): what is smaller tells nothing of the peer's.
const FULL_MIN: u16 = 88;

/// Bit of [`DelayedAck::marks`]: the user has answered what it read (TCP_PINGPONG_THRESH is one answer).
const INTERACTIVE: u8 = 1 << 0;
/// A segment that was not full is not acknowledged (ICSK_ACK_PUSHED).
const PUSHED: u8 = 1 << 1;
/// A second one is not (ICSK_ACK_PUSHED2).
const PUSHED_AGAIN: u8 = 1 << 2;

/// The receiver's side of acknowledging. Zero bytes are a connection that has received nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DelayedAck {
    /// When text came last, in milliseconds.
    received: u32,
    /// The wait, in milliseconds; 0 before the first text.
    ato: u16,
    /// What the peer's segments carry, in bytes.
    rcv_mss: u16,
    /// What the last segment that was smaller carried.
    last_len: u16,
    /// Acknowledgments that go at once.
    quick: u8,
    /// Whether the user answers what it reads, and whether segments came that were not full.
    marks: u8,
}

/// What is received and not yet acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// RCV.NXT.
    pub rcv_nxt: Seq,
    /// RCV.NXT of the last segment that was sent.
    pub last_ack_sent: Seq,
    /// Something is out of order, fills a hole or asks for an answer.
    pub at_once: bool,
}

/// The kernel's clock, at a thousand ticks a second.
const TICK: Duration = Duration::from_millis(1);

fn clock(now: Instant) -> u32 {
    (now.0 / 1_000_000) as u32
}

impl DelayedAck {
    /// RCV.MSS, our guess at what the peer's full segments carry.
    #[inline]
    #[must_use]
    pub const fn rcv_mss(&self) -> u16 {
        if self.rcv_mss == 0 { RCV_MSS_INITIAL } else { self.rcv_mss }
    }

    /// The connection is there: as if text had come now.
    pub fn begin(&mut self, now: Instant) {
        self.received = clock(now);
    }

    /// The wait (TCP_INFO's tcpi_ato).
    #[must_use]
    pub const fn ato(&self) -> Duration {
        Duration::from_millis(self.ato as u64)
    }

    /// When text came last, in milliseconds.
    #[must_use]
    pub const fn received_ms(&self) -> u32 {
        self.received
    }

    /// Text arrived in order, `len` bytes in segments of `segment` bytes; `push` if its sender had no more.
    #[inline]
    pub fn on_text(
        &mut self,
        now: Instant,
        segment: u16,
        push: bool,
        rcv_wnd: u32,
        rto: impl FnOnce() -> Duration,
    ) {
        self.measure(segment, push);
        let now = clock(now);
        let min = MIN.as_millis() as u16;
        if self.ato == 0 {
            self.ato = min;
            self.start_quick(rcv_wnd);
        } else {
            let gap = now.wrapping_sub(self.received);
            if gap <= u32::from(min / 2) {
                self.ato = self.ato / 2 + min / 2;
            } else {
                let rto = rto().as_millis().min(u64::from(u16::MAX)) as u16;
                if gap < u32::from(self.ato) {
                    self.ato = (self.ato / 2).saturating_add(gap as u16).min(rto);
                } else if gap > u32::from(rto) {
                    // The sender starts anew.
                    self.start_quick(rcv_wnd);
                }
            }
        }
        self.received = now;
    }

    /// Adapts RCV.MSS (tcp_measure_rcv_mss): it grows at once, and shrinks when two segments in a row carried the
    /// same, unless they were the last of what their sender had.
    #[inline]
    fn measure(&mut self, len: u16, push: bool) {
        if len >= self.rcv_mss() {
            self.rcv_mss = len;
            self.last_len = 0;
            return;
        }
        if len >= RCV_MSS_INITIAL || !push && len >= FULL_MIN {
            if len == self.last_len {
                self.rcv_mss = len;
                return;
            }
            self.last_len = len;
        }
        self.marks |= if self.marks & PUSHED != 0 { PUSHED_AGAIN } else { PUSHED };
    }

    /// Half of the segments that fit the window, at least two, go at once (tcp_incr_quickack).
    fn start_quick(&mut self, rcv_wnd: u32) {
        let half = (rcv_wnd / (2 * u32::from(self.rcv_mss()))).clamp(2, u32::from(QUICK_MAX)) as u8;
        self.quick = self.quick.max(half);
    }

    /// Something was wrong: acknowledge at once for a while.
    pub fn be_quick(&mut self, rcv_wnd: u32) {
        self.start_quick(rcv_wnd);
        self.end_interactive();
        self.ato = MIN.as_millis() as u16;
    }

    /// The user wants acknowledgments not to wait for answers (TCP_QUICKACK).
    pub fn end_interactive(&mut self) {
        self.marks &= !INTERACTIVE;
    }

    /// The user wants acknowledgments to wait (TCP_QUICKACK of 0).
    pub fn be_interactive(&mut self) {
        self.marks |= INTERACTIVE;
    }

    /// Text was sent: if it follows what was received within the wait, it is an answer.
    #[inline]
    pub fn on_text_sent(&mut self, now: Instant) {
        if self.ato != 0 && clock(now).wrapping_sub(self.received) < u32::from(self.ato) {
            self.be_interactive();
        }
    }

    /// An acknowledgment of this many segments was sent.
    #[inline]
    pub fn on_ack_sent(&mut self, segments: u8) {
        if self.quick != 0 && segments >= self.quick {
            // The quick start is over.
            self.ato = MIN.as_millis() as u16;
        }
        self.quick = self.quick.saturating_sub(segments);
        self.marks &= !(PUSHED | PUSHED_AGAIN);
    }

    /// Whether the user answers what it reads.
    #[inline]
    #[must_use]
    pub const fn is_interactive(&self) -> bool {
        self.marks & INTERACTIVE != 0
    }

    /// Whether what was received is acknowledged when the user has read all of it (__tcp_cleanup_rbuf): its sender may wait for that with
    /// the next small segment, and no answer is expected.
    #[inline]
    #[must_use]
    pub const fn is_due_when_read(&self) -> bool {
        self.marks & PUSHED_AGAIN != 0 || self.marks & (PUSHED | INTERACTIVE) == PUSHED
    }

    /// Whether what was received is acknowledged at once.
    ///
    /// RFC 9293 §3.8.6.3: "An ACK SHOULD be generated for at least every second full-sized segment or 2*RMSS bytes of
    /// new data (SHLD-19)".
    /// `window_opens` is asked last: whether the right edge could move now.
    #[inline]
    #[must_use]
    pub fn is_due(&self, received: &Unacknowledged, window_opens: impl FnOnce() -> bool) -> bool {
        let more_than_one = received.rcv_nxt - received.last_ack_sent > u32::from(self.rcv_mss());
        received.at_once || self.quick != 0 && !self.is_interactive() || more_than_one && window_opens()
    }

    /// When to acknowledge, if not at once, and if nothing carries it before; `running` is the timer as it runs.
    /// `None`: it is so near its end that it isn't worth waiting.
    #[must_use]
    pub fn deadline(
        &self,
        now: Instant,
        srtt: Option<Duration>,
        running: Option<Instant>,
        push: bool,
    ) -> Option<Instant> {
        if self.ato == 0 && running.is_none() {
            // No text has told yet how long a wait is worth its while: the next tick (tcp_send_delayed_ack).
            return Some(now + TICK);
        }
        let mut ato = Duration::from_millis(u64::from(self.ato)).max(MIN);
        if ato > MIN {
            let half_second = Duration::from_millis(500);
            let most = if self.is_interactive() || push { MAX } else { half_second };
            ato = ato.min(srtt.map_or(most, |srtt| srtt.max(MIN).min(most)));
        }
        let ato = ato.min(MAX);
        let at = now + ato;
        match running {
            Some(running) if running <= now + Duration(ato.0 / 4) => None,
            Some(running) => Some(running.min(at)),
            None => Some(at),
        }
    }

    /// The timer has expired: nothing carried the acknowledgment (tcp_delack_timer_handler). The wait was too short,
    /// or the user doesn't answer any more.
    pub fn on_timeout(&mut self, rto: Duration) {
        if self.is_interactive() {
            self.end_interactive();
            self.ato = MIN.as_millis() as u16;
        } else {
            let rto = rto.as_millis().min(u64::from(u16::MAX)) as u16;
            self.ato = self.ato.saturating_mul(2).min(rto);
        }
    }
}
