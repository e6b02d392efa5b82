//! What a socket in LISTEN has: its queues, and the SYNs that wait in one of them.
//!
//! A link is an index plus one, 0 is none.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::demux::Link;
use crate::region::slab::{Record, Tag};
use crate::region::wheel::{Entry, Timed};
use crate::seq::Seq;
use crate::time::Instant;
use crate::wire::ip::Ip;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The address it listens at: `::`, `0.0.0.0` or one of ours.
    pub local: Ip,
    /// The port.
    pub local_port: u16,
    /// How it shares that ([`crate::demux`]).
    pub sharing: u8,
    /// No meaning yet; zero.
    pub padding: u8,
    /// Its socket's block.
    pub socket: u32,
    /// The others at the same address and port.
    pub link: Link,
    /// The first of the established connections that wait for accept(2).
    pub accept_head: u32,
    /// The last one.
    pub accept_tail: u32,
    /// How many.
    pub accept_len: u32,
    /// How many may wait (listen(2)).
    pub backlog: u32,
    /// The oldest SYN.
    pub syn_head: u32,
    /// The youngest.
    pub syn_tail: u32,
    /// How many SYNs wait.
    pub syn_len: u32,
    /// Of those, never retransmitted.
    pub syn_young: u32,
    /// Children of a fast open whose handshake goes on, and those of [`Self::fast_open_resets`].
    pub fast_open_len: u32,
    /// Of them, those that were reset.
    pub fast_open_resets: u32,
    /// Seconds at which the last one was.
    pub fast_open_reset_at: u32,
    /// Seconds at which a cookie was sent last, plus one; 0 is never. Cookies are believed only for a while after that.
    pub cookies_sent_at: u32,
}

/// A SYN that was answered and not acknowledged yet (SYN-RECEIVED of a passive open, RFC 9293 §3.10.7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SynEntry {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// Our address.
    pub local: Ip,
    /// The peer's address.
    pub remote: Ip,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// IRS.
    pub irs: Seq,
    /// ISS.
    pub iss: Seq,
    /// TS.Recent (RFC 7323 §4.3).
    pub ts_recent: u32,
    /// The peer's MSS option, or the default (RFC 9293 §3.7.1).
    pub peer_mss: u16,
    /// RCV.WND that was announced; SYNs' windows aren't scaled.
    pub rcv_wnd: u16,
    /// Both shifts, as in [`super::tcb::Tcb`].
    pub shifts: u8,
    /// What was negotiated: the low four bits of [`super::tcb::Flags`], and [`SynEntry::ACKED`].
    pub flags: u8,
    /// SYN-ACKs sent again.
    pub retransmits: u8,
    /// Type of service, or traffic class, that the SYN came with.
    pub tos: u8,
    /// Its listener.
    pub listener: u32,
    /// The next younger one of that listener.
    pub next: u32,
    /// The next older one.
    pub previous: u32,
    /// When the SYN-ACK goes again.
    pub entry: Entry,
}

/// Seconds for which the child of a fast open that was reset counts as one whose handshake goes on: whoever sends SYNs with text
/// from the addresses of others may make those reset it (RFC 7413 §5.1; tcp_fastopen_queue_check).
const RESETS_S: u32 = 60;
/// Seconds after the last cookie for which one is believed (TCP_SYNCOOKIE_VALID).
const COOKIES_S: u32 = 120;

const fn stamp(now: Instant) -> u32 {
    ((now.0 / 1_000_000_000) as u32).wrapping_add(1)
}

impl Listener {
    /// A cookie is sent.
    pub fn note_cookie(&mut self, now: Instant) {
        self.cookies_sent_at = stamp(now).max(1);
    }

    /// Whether one was sent lately: else no acknowledgment is one, and nobody can guess.
    #[must_use]
    pub fn expects_cookies(&self, now: Instant) -> bool {
        self.cookies_sent_at != 0 && stamp(now).wrapping_sub(self.cookies_sent_at) <= COOKIES_S
    }

    /// Whether one more handshake may begin with text, if there may be so many. RFC 7413 §4.2: "If this variable goes over a preset
    /// system limit, the server MUST disable TFO for all new connection requests until PendingFastOpenRequests drops below the
    /// system limit." (tcp_fastopen_queue_check)
    pub fn may_fast_open(&mut self, most: u32, now: Instant) -> bool {
        if stamp(now).wrapping_sub(self.fast_open_reset_at) >= RESETS_S {
            let resets = core::mem::take(&mut self.fast_open_resets);
            self.fast_open_len = self.fast_open_len.saturating_sub(resets);
        }
        self.fast_open_len < most
    }

    /// A handshake that began with text has ended, or the peer has reset it (reqsk_fastopen_remove).
    pub fn end_fast_open(&mut self, is_reset: bool, now: Instant) {
        if is_reset {
            self.fast_open_resets = self.fast_open_resets.saturating_add(1);
            self.fast_open_reset_at = stamp(now);
        } else {
            self.fast_open_len = self.fast_open_len.saturating_sub(1);
        }
    }

    /// Whether no further connection may wait for accept(2): as in Linux, one more than the backlog may.
    #[must_use]
    pub const fn is_accept_full(&self) -> bool {
        self.accept_len > self.backlog
    }

    /// Whether no further SYN may wait.
    #[must_use]
    pub const fn is_syn_full(&self) -> bool {
        self.syn_len > self.backlog
    }
}

impl SynEntry {
    /// Of `flags`: its handshake was done, and there was no room for it, or no text yet (TCP_DEFER_ACCEPT).
    pub const ACKED: u8 = 1 << 4;
    /// Of `flags`: what [`super::tcb::Flags`] means.
    pub const NEGOTIATED: u8 = 0xf;
}

const _: () = assert!(size_of::<SynEntry>() <= 96 && size_of::<Listener>() == 88);

impl Record for Listener {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for SynEntry {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Timed for SynEntry {
    fn entry(&mut self) -> &mut Entry {
        &mut self.entry
    }
}
