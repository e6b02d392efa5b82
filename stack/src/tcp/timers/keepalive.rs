//! Keep-alive: whether a peer that is silent still lives (RFC 9293 §3.8.4, RFC 1122 §4.2.3.6), as Linux
//! (tcp_keepalive_timer).
//!
//! "keep-alives […] MUST default to off (MUST-25)": a socket has a timer only after SO_KEEPALIVE.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::{Duration, Instant};

/// Silence before the first probe. "This interval MUST be configurable (MUST-27) and MUST default to no less than two
/// hours (MUST-28)."
pub const IDLE: Duration = Duration::from_secs(7200);
/// Between probes (net.ipv4.tcp_keepalive_intvl).
pub const INTERVAL: Duration = Duration::from_secs(75);
/// Probes without an answer before the peer is given up (net.ipv4.tcp_keepalive_probes).
pub const PROBES: u8 = 9;

/// The defaults of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Probes without an answer.
    pub probes: u8,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { idle: IDLE, interval: INTERVAL, probes: PROBES }
    }
}

/// One socket's settings and what it has sent. Zero bytes are the host's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Keepalive {
    /// TCP_KEEPIDLE in seconds; 0 is the default.
    pub idle: u16,
    /// TCP_KEEPINTVL in seconds; 0 is the default.
    pub interval: u16,
    /// TCP_KEEPCNT; 0 is the default.
    pub count: u8,
    /// Probes since something was received.
    pub sent: u8,
}

/// What to do when the timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing yet: look again then.
    Wait(Instant),
    /// Send a probe, and look again then.
    Probe(Instant),
    /// Reset the connection: ETIMEDOUT.
    GiveUp,
}

impl Keepalive {
    fn length(seconds: u16, default: Duration) -> Duration {
        if seconds == 0 { default } else { Duration::from_secs(u64::from(seconds)) }
    }

    /// Something was received, of whatever kind.
    #[inline]
    pub fn on_received(&mut self) {
        self.sent = 0;
    }

    /// When to look, of a connection that was heard of at `received`.
    #[must_use]
    pub fn first(&self, received: Instant, defaults: &Defaults) -> Instant {
        received + Self::length(self.idle, defaults.idle)
    }

    /// The timer has expired. `busy`: data is sent or waits to be sent, which its own timers see to; `user_timeout`
    /// is TCP_USER_TIMEOUT, if it is set, which then decides when to give up.
    ///
    /// "Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment packets
    /// have been received for the connection within an interval (MUST-26)." "it MUST NOT interpret failure to respond
    /// to any specific probe as a dead connection (MUST-29)": as many as [`PROBES`] must fail.
    pub fn on_timeout(
        &mut self,
        now: Instant,
        received: Instant,
        busy: bool,
        user_timeout: Option<Duration>,
        defaults: &Defaults,
    ) -> Action {
        let idle = Self::length(self.idle, defaults.idle);
        if busy {
            return Action::Wait(now + idle);
        }
        let silence = now - received;
        if silence < idle {
            return Action::Wait(received + idle);
        }
        let count = if self.count == 0 { defaults.probes } else { self.count };
        let is_over = match user_timeout {
            Some(limit) => silence >= limit && self.sent > 0,
            None => self.sent >= count,
        };
        if is_over {
            return Action::GiveUp;
        }
        self.sent = self.sent.saturating_add(1);
        Action::Probe(now + Self::length(self.interval, defaults.interval))
    }
}
