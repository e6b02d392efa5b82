//! SYN cookies (RFC 4987 §3.6): a listener whose queue is full answers with a sequence number that holds what it
//! would have to remember, and remembers nothing.
//!
//! As Linux's (net/ipv4/syncookies.c): hash + their ISN + minutes·2²⁴ + (hash of that minute + index of an MSS) mod
//! 2²⁴; their ISN is in the second hash too, so that its neighbours are no cookies of another size. Window scale,
//! SACK and ECN stand in the six low bits of the SYN-ACK's timestamp, which the peer echoes; without timestamps the
//! connection goes without them.

use super::siphash::Key;
use super::{Tuple, Use, hash};
use crate::seq::Seq;
use crate::time::Instant;

/// What a SYN offered, as far as a cookie can keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kept {
    /// The peer's window scale, if it offered one.
    pub wnd_shift: Option<u8>,
    /// SACK is permitted.
    pub sack: bool,
    /// Both sides speak ECN.
    pub ecn: bool,
}

/// Bits of the cookie below the minutes.
const COOKIE_BITS: u32 = 24;
const COOKIE_MASK: u32 = (1 << COOKIE_BITS) - 1;
/// Nanoseconds in which the minutes count one (TCP_SYNCOOKIE_PERIOD).
const PERIOD: u64 = 60_000_000_000;
/// Periods for which a cookie is good (MAX_SYNCOOKIE_AGE).
const AGE_MAX: u32 = 2;
/// Maximum segment sizes that a cookie can name: from "An Analysis of TCP Maximum Segment Sizes" (Alcock and Nelson,
/// 2011).
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
/// The same for IPv6: the usual MTUs less 60 bytes of headers.
const MSS_V6: [u16; 4] = [1220, 1420, 1440, 8940];

/// Low bits of the timestamp: `| ECN | SACK | window scale, 4 bits |`.
const TS_BITS: u32 = 6;
const TS_MASK: u32 = (1 << TS_BITS) - 1;
const TS_WND_SHIFT: u32 = 0xf;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;

fn sizes(tuple: &Tuple) -> &'static [u16; 4] {
    if tuple.remote.is_v4() { &MSS_V4 } else { &MSS_V6 }
}

const fn minute(now: Instant) -> u32 {
    (now.0 / PERIOD) as u32
}

fn of_minute(key: &Key, tuple: &Tuple, their_isn: Seq, count: u32) -> u32 {
    hash(key, Use::CookieOfMinute, tuple, u64::from(count) << 32 | u64::from(their_isn.0)) as u32
}

/// ISS of a SYN-ACK that answers a SYN with this sequence number and MSS, and the MSS that the cookie keeps: the
/// largest of its table that isn't larger, or the table's smallest.
#[must_use]
pub fn make(key: &Key, tuple: &Tuple, their_isn: Seq, mss: u16, now: Instant) -> (Seq, u16) {
    let table = sizes(tuple);
    let index = table.iter().rposition(|size| *size <= mss).unwrap_or(0);
    let count = minute(now);
    let of_minute = of_minute(key, tuple, their_isn, count).wrapping_add(index as u32);
    let cookie = (hash(key, Use::Cookie, tuple, 0) as u32)
        .wrapping_add(their_isn.0)
        .wrapping_add(count << COOKIE_BITS)
        .wrapping_add(of_minute & COOKIE_MASK);
    (Seq(cookie), table[index])
}

/// The MSS of a cookie that comes back: `their_isn` is SEG.SEQ − 1 and `cookie` SEG.ACK − 1 of the handshake's third
/// segment. `None` when it isn't one of ours, or older than two minutes.
#[must_use]
pub fn check(key: &Key, tuple: &Tuple, their_isn: Seq, cookie: Seq, now: Instant) -> Option<u16> {
    let bare = cookie.0.wrapping_sub(hash(key, Use::Cookie, tuple, 0) as u32).wrapping_sub(their_isn.0);
    let count = minute(now);
    let age = count.wrapping_sub(bare >> COOKIE_BITS) & (u32::MAX >> COOKIE_BITS);
    if age >= AGE_MAX {
        return None;
    }
    let index = bare.wrapping_sub(of_minute(key, tuple, their_isn, count.wrapping_sub(age))) & COOKIE_MASK;
    sizes(tuple).get(index as usize).copied()
}

/// TSval of a SYN-ACK with a cookie: the clock without the connection's offset, with its low bits replaced, and never
/// ahead of the clock, because what is sent later has the clock itself.
#[must_use]
pub fn timestamp(clock: u32, kept: &Kept) -> u32 {
    let mut bits = kept.wnd_shift.map_or(TS_WND_SHIFT, |shift| u32::from(shift.min(14)));
    if kept.sack {
        bits |= TS_SACK;
    }
    if kept.ecn {
        bits |= TS_ECN;
    }
    let stamp = clock & !TS_MASK | bits;
    if stamp > clock { stamp.wrapping_sub(1 << TS_BITS) } else { stamp }
}

/// What the echo of such a TSval keeps, without the connection's offset.
#[must_use]
pub fn kept(tsecr: u32) -> Kept {
    let shift = tsecr & TS_WND_SHIFT;
    Kept {
        wnd_shift: (shift != TS_WND_SHIFT).then_some(shift.min(14) as u8),
        sack: tsecr & TS_SACK != 0,
        ecn: tsecr & TS_ECN != 0,
    }
}
