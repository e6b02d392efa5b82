//! TCP (RFC 9293). Its algorithms are plain data and pure functions: time and numbers are arguments; they know no sockets, no frames
//! and no lists, so every rule can be tried by itself. The records of the region hold their state.
//!
//! | file | what | from |
//! |---|---|---|
//! | [`state`] | the eleven states and their arrows | RFC 9293 §3.3.2 |
//! | [`rtt`] | round-trip time, retransmission timeout | RFC 6298, RFC 7323 §4 |
//! | [`isn`] | initial sequence numbers, timestamp offsets, SYN cookies | RFC 6528, RFC 7323 §7.1, RFC 4987 |
//! | [`window`] | window scale, the advertised window, its tuning, silly windows, Nagle | RFC 9293 §3.7.4, §3.8.6, RFC 7323 §2 |
//! | [`fast_open`] | text in SYNs, and the cookies for it | RFC 7413 |
//! | [`timestamps`] | TS.Recent, PAWS, reuse of TIME-WAIT | RFC 7323 §4–5, RFC 6191 |
//! | [`challenge`] | which RST, SYN and ACK are acceptable | RFC 5961 |
//! | [`congestion`] | cwnd and ssthresh: NewReno, CUBIC, HyStart | RFC 5681, 6582, 6928, 7661, 9438 |
//! | [`pacing`] | the rate of sending | Linux |
//! | [`rate`] | how fast text is delivered | draft-ietf-ccwg-bbr |
//! | [`chronograph`] | what a sender waits for | Linux |
//! | [`recovery`] | loss: RACK-TLP, PRR, F-RTO, undo, ECN, pipe | RFC 8985, 9937, 5682, 4015, 3708, 3168, 6675 |
//! | [`timers`] | the timers, delayed ACK, keep-alive, user timeout, persist | RFC 9293 §3.8, RFC 5482 |
//! | [`tcb`], [`listener`] | the records: sockets, their queues, what waits for a connection | RFC 9293 §3.3.1 |
//! | [`open`] | a socket's life without segments | RFC 9293 §3.9.1 |
//! | `input` | SEGMENT ARRIVES | RFC 9293 §3.10.7 |
//! | [`output`] | what is sent next, and why | RFC 9293 §3.7, §3.8 |
//! | `loss` | what an acknowledgment means for what is in flight | RFC 8985, 9937, 5682 |
//! | `search` | what the path takes | RFC 4821, 8899 |
//! | `timer` | what an expired timer does | RFC 9293 §3.10.8 |
//! | `calls` | what the user asks for | RFC 9293 §3.10.1–6 |
//! | `orphans` | who lives on without a program | Linux |
//! | `urgent` | one octet out of line | RFC 9293 §3.8.5, RFC 6093 |
//! | [`options`], [`info`] | what sockets are told, and tell | Linux |
//!
//! Windows are counted in segments of the sender's MSS, as Linux counts them: a frame of the send queue is one. Where
//! Linux departs from an RFC, and we with it, the function says so.

pub mod calls;
pub mod challenge;
pub mod chronograph;
pub mod congestion;
pub(crate) mod connection;
pub mod fast_open;
pub mod info;
pub(crate) mod input;
pub mod isn;
pub mod listener;
mod loss;
pub mod open;
pub mod options;
mod orphans;
pub mod output;
pub mod pacing;
pub(crate) mod predicted;
pub mod rate;
pub mod recovery;
pub mod rtt;
pub mod saved_syn;
mod search;
pub(crate) mod segment;
pub mod state;
pub mod tcb;
mod timer;
pub mod timers;
pub mod timestamps;
mod urgent;
pub mod window;

use crate::time::Duration;

/// Microseconds in 32 bits: what is longer than 71 minutes counts as that.
#[inline]
#[must_use]
pub const fn micros(length: Duration) -> u32 {
    let micros = length.as_micros();
    if micros > u32::MAX as u64 { u32::MAX } else { micros as u32 }
}

#[cfg(test)]
mod tests;
