//! What a socket in LISTEN has: its queues, and the SYNs that wait in one of them.
//!
//! A link is an index plus one, 0 is none.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::demux::Link;
use crate::region::slab::{Record, Tag};
use crate::region::wheel::{Entry, Timed};
use crate::seq::Seq;
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
    /// TCP_DEFER_ACCEPT, in retransmissions of the SYN-ACK.
    pub defer: u8,
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
    /// Children of a fast open whose handshake goes on (RFC 7413 §5.1).
    pub fast_open_len: u32,
    /// How many there may be (TCP_FASTOPEN); 0 is none.
    pub fast_open_max: u32,
    /// Seconds at which a cookie was sent last: cookies are believed only for a while after that.
    pub cookies_sent_at: u32,
    /// Milliseconds until which the accept queue was full: Linux drops SYNs meanwhile.
    pub full_until: u32,
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
    /// What was negotiated: the low byte of [`super::tcb::Flags`].
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
