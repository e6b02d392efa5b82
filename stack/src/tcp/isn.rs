//! Numbers that nobody outside can guess: initial sequence numbers, timestamp offsets, and SYN cookies ([`cookie`]).
//!
//! All three are keyed hashes of the connection's addresses and ports (SipHash-2-4, [`mod@siphash`]): halves of one, or with a
//! word of its own in front, so that one says nothing about another.

use crate::seq::Seq;
use crate::time::Instant;
use crate::wire::ip::Ip;

pub mod cookie;
pub mod siphash;

use siphash::{Key, siphash};

/// Both ends of a connection, as this host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// This host's address.
    pub local: Ip,
    /// The other's.
    pub remote: Ip,
    /// This host's port.
    pub local_port: u16,
    /// The other's.
    pub remote_port: u16,
}

/// What a hash is for.
#[derive(Clone, Copy)]
enum Use {
    /// The initial sequence number in its low half, the timestamps' offset in the high one.
    Beginning = 1,
    Cookie = 3,
    CookieOfMinute = 4,
}

/// The hash of a connection for one use; `extra` is another word of input.
fn hash(key: &Key, of: Use, tuple: &Tuple, extra: u64) -> u64 {
    let mut message = [0; 48];
    message[..4].copy_from_slice(&(of as u32).to_le_bytes());
    message[4..20].copy_from_slice(&tuple.local.0);
    message[20..36].copy_from_slice(&tuple.remote.0);
    message[36..38].copy_from_slice(&tuple.local_port.to_le_bytes());
    message[38..40].copy_from_slice(&tuple.remote_port.to_le_bytes());
    message[40..].copy_from_slice(&extra.to_le_bytes());
    siphash(key, &message)
}

/// Nanoseconds of a step of the clock of sequence numbers, as a power of two.
const ISN_TICK_BITS: u32 = 6;

/// ISS of a new connection.
///
/// RFC 9293 §3.4.1: "A TCP implementation MUST use the above type of 'clock' for clock-driven selection of initial
/// sequence numbers (MUST-8), and SHOULD generate its initial sequence numbers with the expression: ISN = M +
/// F(localip, localport, remoteip, remoteport, secretkey)"; "F() MUST NOT be computable from the outside (MUST-9)".
///
/// M steps each 64 ns, not each 4 µs, as in Linux (seq_scale in net/core/secure_seq.c): it comes round in 274 s,
/// which is more than two minutes of MSL, and stays ahead of a connection that sends 15 MB/s.
#[must_use]
pub fn initial_sequence(key: &Key, tuple: &Tuple, now: Instant) -> Seq {
    beginning(key, tuple, now).0
}

/// Both numbers that a connection begins with: ISS, and what is added to its timestamps.
#[must_use]
pub fn beginning(key: &Key, tuple: &Tuple, now: Instant) -> (Seq, u32) {
    let hash = hash(key, Use::Beginning, tuple, 0);
    (Seq(hash as u32) + (now.0 >> ISN_TICK_BITS) as u32, (hash >> 32) as u32)
}

/// What is added to the clock of timestamps for this connection, so that they tell nothing of how long the host is up
/// nor of other connections (RFC 7323 §7.1). The same for the same connection, so that a later one's timestamps
/// follow an earlier one's and TIME-WAIT can be reused (RFC 6191).
#[must_use]
pub fn timestamp_offset(key: &Key, tuple: &Tuple) -> u32 {
    beginning(key, tuple, Instant(0)).1
}

#[cfg(test)]
mod tests;
