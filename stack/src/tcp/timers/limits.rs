//! How long is tried before a connection is given up, and how often a closed window is probed (RFC 9293 §3.8.3,
//! §3.8.6.1, RFC 5482).

use super::super::rtt::{Bounds, backed_off};
use crate::time::{Duration, Instant};

/// R1 (RFC 9293 §3.8.3): retransmissions after which the path is doubted (net.ipv4.tcp_retries1).
pub const RETRIES_1: u8 = 3;
/// R2: retransmissions after which the connection is given up (net.ipv4.tcp_retries2): fifteen and a half minutes at
/// the least. "The value of R2 SHOULD correspond to at least 100 seconds (SHLD-11)."
pub const RETRIES_2: u8 = 15;
/// Retransmissions of a SYN (net.ipv4.tcp_syn_retries): 127 s, as in Linux. A departure from "R2 for a SYN segment
/// MUST be set large enough to provide retransmission of the segment for at least 3 minutes (MUST-23)": programs
/// expect connect to fail when it does under the kernel.
pub const SYN_RETRIES: u8 = 6;
/// Retransmissions for a socket that its program has closed (tcp_orphan_retries).
pub const ORPHAN_RETRIES: u8 = 8;

/// TIME-WAIT, as Linux (TCP_TIMEWAIT_LEN): 2 MSL with an MSL of half a minute. RFC 9293 §3.6.1: "it MUST linger in
/// the TIME-WAIT state for a time 2xMSL (Maximum Segment Lifetime) (MUST-13)", whose MSL is two minutes. A departure:
/// ports come back when they do under the kernel.
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// FIN-WAIT-2 of a socket that its program has closed (net.ipv4.tcp_fin_timeout).
pub const FIN_WAIT_2: Duration = Duration::from_secs(60);

/// How long so many retransmissions take, from the first transmission to the end of the last one's wait, if each wait
/// doubles from the smallest that there is (tcp_model_timeout). A connection whose round trips are longer isn't given
/// up earlier for fewer retransmissions, nor one with short ones later.
#[must_use]
pub fn give_up_after(retries: u8, bounds: &Bounds) -> Duration {
    (0..=retries).fold(Duration(0), |sum, doublings| {
        Duration(sum.0.saturating_add(backed_off(bounds.min, doublings, bounds.max).0))
    })
}

/// Whether data that was first sent at `since` is given up: by TCP_USER_TIMEOUT if it is set, else by R2.
#[must_use]
pub fn is_given_up(
    now: Instant,
    since: Instant,
    retries: u8,
    user_timeout: Option<Duration>,
    bounds: &Bounds,
) -> bool {
    now - since >= user_timeout.unwrap_or_else(|| give_up_after(retries, bounds))
}

/// A retransmission timeout that isn't longer than what is left of TCP_USER_TIMEOUT (tcp_clamp_rto_to_user_timeout).
#[must_use]
pub fn clamped(rto: Duration, now: Instant, since: Instant, user_timeout: Option<Duration>) -> Duration {
    match user_timeout {
        // A tick at least: what is over is found out by the timer.
        Some(limit) => {
            rto.min(Duration(limit.0.saturating_sub((now - since).0)).max(Duration::from_millis(1)))
        }
        None => rto,
    }
}

/// The range in which a user timeout that a peer advertises is taken: RFC 5482 §3.1, "USER_TIMEOUT = min(U_LIMIT,
/// max(ADV_UTO, REMOTE_UTO, L_LIMIT))", with L_LIMIT 100 s, which is R2's least, and U_LIMIT a day.
#[must_use]
pub fn user_timeout(advertised: Duration, remote: Duration) -> Duration {
    advertised.max(remote).max(Duration::from_secs(100)).min(Duration::from_secs(86_400))
}

/// How long to wait for the next probe of a closed window, after so many.
///
/// RFC 9293 §3.8.6.1: "The transmitting host SHOULD send the first zero-window probe when a zero window has existed
/// for the retransmission timeout period (SHLD-29) (Section 3.8.1), and SHOULD increase exponentially the interval
/// between successive probes (SHLD-30)." "As long as the receiving TCP peer continues to send acknowledgments in
/// response to the probe segments, the sending TCP peer MUST allow the connection to stay open (MUST-37)": an
/// acknowledgment sets the count of those without an answer back, not this one.
#[must_use]
pub fn persist(rto: Duration, probes: u8, bounds: &Bounds) -> Duration {
    backed_off(rto.max(bounds.min), probes, bounds.max)
}
