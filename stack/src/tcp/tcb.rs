//! The transmission control block (RFC 9293 §3.3.1): one for every socket of TCP, whatever its state.
//!
//! The first two cache lines are what an expected segment needs first: whose it is, where the windows are, the time
//! stamps, what is owed. The next four are the algorithms' state, which an acknowledgment moves; the last one is counters and
//! what is looked at now and then. What only a call, a loss or urgent data touches is beside it, in [`Seldom`]; the
//! queues, and what only data in flight needs, are a [`Traffic`] record, which an idle connection has not; what options
//! have set is shared by all sockets that have set the same ([`crate::settings`]).
//!
//! Names are RFC 9293's. A link is an index plus one, 0 is none; so zero bytes are a record that was never used.

use core::ops::{BitOr, BitOrAssign};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::challenge::Limit;
use super::chronograph::{Chronograph, Waited};
use super::congestion::Congestion;
use super::pacing::Pacing;
use super::rate::{Delivery, DeliveryRate};
use super::recovery::prr::Prr;
use super::recovery::rack::Rack;
use super::recovery::undo::Episode;
use super::rtt::Rtt;
use super::state::State;
use super::timers::Timers;
use super::timers::delayed_ack::DelayedAck;
use super::timestamps::Recent;
use super::window::autotune::Autotune;
use crate::frames::pool::Charge;
use crate::ip::path_mtu::probe::Search;
use crate::reassembly::Reassembly;
use crate::recvq::ReceiveQueue;
use crate::region::slab::{Record, Tag};
use crate::region::wheel::{Entry, Timed};
use crate::sendq::SendQueue;
use crate::seq::Seq;
use crate::wire::ip::Ip;

/// What was negotiated and what is owed: bits that a segment in either direction looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// Both sides send timestamps (RFC 7323 §3).
    pub const TIMESTAMPS: Self = Self(1 << 0);
    /// The peer takes SACK (RFC 2018 §2).
    pub const SACK: Self = Self(1 << 1);
    /// Windows are scaled (RFC 7323 §2).
    pub const SCALING: Self = Self(1 << 2);
    /// Both sides know ECN (RFC 3168 §6.1).
    pub const ECN: Self = Self(1 << 3);
    /// ECE is sent until the peer says CWR.
    pub const ECHO_CONGESTION: Self = Self(1 << 4);
    /// CWR goes with the next new data.
    pub const WINDOW_REDUCED: Self = Self(1 << 5);
    /// TCP_NODELAY.
    pub const NO_DELAY: Self = Self(1 << 6);
    /// TCP_CORK, or MSG_MORE with the last text.
    pub const CORK: Self = Self(1 << 7);
    /// Something arrived that is not acknowledged yet.
    pub const ACK_OWED: Self = Self(1 << 8);
    /// It is to be acknowledged at once (RFC 5681 §4.2).
    pub const ACK_NOW: Self = Self(1 << 9);
    /// A FIN follows the last octet of the send queue.
    pub const FIN_QUEUED: Self = Self(1 << 10);
    /// The reading side was shut down.
    pub const RECEIVE_SHUT: Self = Self(1 << 11);
    /// SND.UP is ahead of SND.UNA.
    pub const SEND_URGENT: Self = Self(1 << 12);
    /// RCV.UP is ahead of what was read.
    pub const RECEIVE_URGENT: Self = Self(1 << 13);
    /// No process holds the socket any more.
    pub const ORPHAN: Self = Self(1 << 14);
    /// The segment that is expected next may take the fast path.
    pub const PREDICTED: Self = Self(1 << 15);

    /// Whether all of these are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Without these.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The receive sequence space (RFC 9293 §3.3.1, figure 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rcv {
    /// RCV.NXT.
    pub nxt: Seq,
    /// RCV.WND: the right edge is RCV.NXT + RCV.WND, and never moves left.
    pub wnd: u32,
    /// Last.ACK.sent (RFC 7323 §4.3).
    pub last_ack_sent: Seq,
}

/// The send sequence space (RFC 9293 §3.3.1, figure 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Snd {
    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// SND.WND, scaled.
    pub wnd: u32,
    /// SND.WL1.
    pub wl1: Seq,
    /// SND.WL2.
    pub wl2: Seq,
}

/// The transmission control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Tcb {
    // ---- the first line: whose segment it is, and whether it is the expected one ----
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// Our address; unspecified until it is known.
    pub local: Ip,
    /// The peer's address; unspecified without one.
    pub remote: Ip,
    /// Our port, or 0.
    pub local_port: u16,
    /// The peer's port, or 0.
    pub remote_port: u16,
    /// RFC 9293 §3.3.2, as a byte.
    pub state: u8,
    /// Snd.Wind.Shift in the low four bits, Rcv.Wind.Shift in the high ones (RFC 7323 §2.3).
    pub shifts: u8,
    /// Octets of text that a segment may carry now, options excepted (Eff.snd.MSS of RFC 9293 §3.7.1).
    pub mss: u16,
    /// What was negotiated and what is owed.
    pub flags: Flags,
    /// The route, plus one; valid while `route_version` is the table's.
    pub route: u16,
    /// RCV.
    pub rcv: Rcv,

    // ---- the second line ----
    /// SND.
    pub snd: Snd,
    /// TS.Recent (RFC 7323 §4.3).
    pub recent: Recent,
    /// When what arrived is acknowledged.
    pub delayed_ack: DelayedAck,
    /// Its queues, plus one: 0 while they are empty.
    pub traffic: u32,
    /// Of the table of routes when `route` was looked up.
    pub route_version: u32,
    /// The largest window that the peer has offered: Max(SND.WND) (RFC 9293 §3.8.6.2.1).
    pub snd_wnd_max: u32,
    /// Segments sent (RFC 4898, SegsOut).
    pub segs_out: u32,
    /// Segments received.
    pub segs_in: u32,
    /// Segments that have arrived at the peer, as far as is known (RFC 9937, RFC 8985).
    pub delivered: u32,

    // ---- what an acknowledgment moves ----
    /// Deadlines.
    pub timers: Timers,
    /// When the next burst may leave.
    pub pacing: Pacing,
    /// Sequence numbers acknowledged: ISS is SND.UNA less these. TCP_INFO's `bytes_acked`.
    pub acked: u64,
    /// Round-trip time and timeout.
    pub rtt: Rtt,
    /// How fast the user reads.
    pub autotune: Autotune,
    /// Congestion control.
    pub congestion: Congestion,
    /// Of the segments sent, those with text.
    pub data_segs_out: u32,
    /// Of those received, with text.
    pub data_segs_in: u32,
    /// Milliseconds at which text was sent last.
    pub last_data_sent: u32,
    /// Milliseconds at which an acknowledgment arrived last.
    pub last_ack_received: u32,
    /// What was before the congestion window was reduced; and congestion that routers have told of.
    pub episode: Episode,
    /// How often it answers what it did not expect.
    pub challenges: Limit,
    /// Added to the clock of timestamps (RFC 7323 §7.1).
    pub ts_offset: u32,
    /// Sequence numbers received in order: IRS is RCV.NXT less these. TCP_INFO's `bytes_received`.
    pub received: u64,
    /// The earliest of its timers, in the wheel.
    pub entry: Entry,
    /// Segments sent again.
    pub total_retrans: u32,

    // ---- the last line ----
    /// Frames of the sending direction.
    pub send_charge: Charge,
    /// Frames of the receiving direction.
    pub receive_charge: Charge,
    /// SO_PEEK_OFF, plus one; 0 is switched off.
    pub peek_from: u32,
    /// How fast text is delivered.
    pub rate: DeliveryRate,
    /// How long it has waited, and for what.
    pub waited: Waited,
    /// The largest window that is offered now (rcv_ssthresh); 0 is the first one.
    pub offer: u32,
    /// Segments that arrived at the peer with congestion experienced.
    pub delivered_ce: u32,
    /// The MSS that we announced.
    pub advertised_mss: u16,
    /// The path's MTU, as far as is known.
    pub path_mtu: u16,
    /// The peer's MSS option, or the default (RFC 9293 §3.7.1).
    pub peer_mss: u16,
    /// Duplicates that the peer has told of (RFC 2883); stays at its largest value.
    pub dsack_dups: u16,
    /// Times that reordering was seen; stays at its largest value.
    pub reord_seen: u16,
    /// Segments that arrived behind a gap; stays at its largest value.
    pub rcv_ooopack: u16,
    /// What its options have set.
    pub settings: u16,
    /// SO_ERROR ([`crate::error::Error::code`]).
    pub error: u8,
    /// What ends the connection only if it ends anyway (RFC 1122 §4.2.3.9).
    pub soft_error: u8,
    /// Timeouts in a row.
    pub retransmits: u8,
    /// Unanswered probes of a closed window or of a silent peer.
    pub probes: u8,
    /// As what it is counted at its port ([`crate::ports::Class`]).
    pub bound_as: u8,
    /// Bits of [`Mark`].
    pub marks: u8,
}

/// What a socket has while there is text in one of its queues: a record apart, so that an idle connection costs none, and
/// the lines of those that are at work stay in the cache. See [`super::open::traffic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Traffic {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// Its socket.
    pub socket: u32,
    /// RACK.fack: the highest sequence number that was acknowledged, cumulatively or selectively (RFC 8985 §6.2).
    pub fack: Seq,
    /// What was written and isn't acknowledged.
    pub send: SendQueue,
    /// What arrived in order and isn't read.
    pub receive: ReceiveQueue,
    /// What arrived behind a gap.
    pub reassembly: Reassembly,
    /// How much may be sent in recovery.
    pub prr: Prr,
    /// Which segments are lost.
    pub rack: Rack,
    /// Behind the last segment that was sent with less than a full one's text (Linux's snd_sml).
    pub small: Seq,
    /// Milliseconds at which what now waits for its acknowledgment was sent first, plus one; 0 while no timeout has passed.
    pub stalled_since: u32,
    /// Without SACK: segments that duplicate acknowledgments have reported (RFC 6582).
    pub duplicates: u32,
    /// 1 while F-RTO waits for what comes back for new data (RFC 5682 §3.1, step 2 b).
    pub only_new: u16,
    /// 1 once the urgent octet, which is still in the queue, was read by itself.
    pub urgent_read: u8,
    /// 1 if what was written last is not to be pushed: more of it follows (MSG_MORE).
    pub unpushed: u8,
    /// 1 while it rests: its socket's queues are empty, and it may be taken away.
    pub is_resting: u16,
    /// 1 while it is counted among those whose sending queue has something in it.
    pub is_sending: u16,
    /// Of those that rest, the one before it, plus one.
    pub older: u32,
    /// The one behind it, plus one.
    pub younger: u32,
    /// Bytes that were in the send queue when a write found no memory for more, plus one; 0 if none did since. It is not
    /// writable before there are fewer.
    pub short: u32,
    /// What the path takes.
    pub search: Search,
    /// How fast text in flight arrives.
    pub delivery: Delivery,
    /// What is waited for.
    pub chronograph: Chronograph,
    /// The sequence number of the peer's FIN, if `has_fin`.
    pub fin: Seq,
    /// 1 once that has come, and text before it has not.
    pub has_fin: u32,
}

/// The records that rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Resting {
    /// The first one to be taken away, plus one.
    pub oldest: u32,
    /// The last one, plus one.
    pub youngest: u32,
}

/// Who sends, and who waits until it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sending {
    /// Queues with something to send, or to be acknowledged, in them.
    pub queues: u32,
    /// The socket that has waited longest for queues, plus one.
    pub first: u32,
    /// The last one, plus one.
    pub last: u32,
}

/// How many connections live on although nobody uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Left {
    /// Those whose program has closed them, up to TIME-WAIT.
    pub orphans: u32,
    /// Those in TIME-WAIT.
    pub time_waits: u32,
}

impl Left {
    /// A connection was one of the first kind before, or of none, and is one of the second now.
    pub const fn moved(&mut self, before: Standing, after: Standing) {
        match before {
            Standing::Used => {}
            Standing::Orphan => self.orphans = self.orphans.saturating_sub(1),
            Standing::TimeWait => self.time_waits = self.time_waits.saturating_sub(1),
        }
        match after {
            Standing::Used => {}
            Standing::Orphan => self.orphans = self.orphans.saturating_add(1),
            Standing::TimeWait => self.time_waits = self.time_waits.saturating_add(1),
        }
    }
}

/// As what a socket counts in [`Left`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As none of them.
    Used,
    /// Its program has closed it.
    Orphan,
    /// It is in TIME-WAIT.
    TimeWait,
}

/// Bits of [`Tcb::marks`]: of what kind the socket is, and what became of fast open (RFC 7413; TCP_INFO's options and
/// `fastopen_client_fail`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark;

impl Mark {
    /// A socket of IPv6, even if it speaks IPv4 now.
    pub const V6: u8 = 1;
    /// bind(2) has set the address.
    pub const ADDRESS_BOUND: u8 = 2;
    /// It waits in its listener's accept queue.
    pub const QUEUED: u8 = 4;
    /// The SYN carried data.
    pub const SYN_DATA: u8 = 8;
    /// It was acknowledged with the SYN, by the peer or by us.
    pub const SYN_DATA_ACKED: u8 = 16;
    /// The child of a SYN with data; its handshake goes on.
    pub const FAST_CHILD: u8 = 32;
    /// The SYN asked for a cookie. With the next one: it had to be sent again, without its data.
    pub const COOKIE_WANTED: u8 = 64;
    /// The SYN's data was not acknowledged with it.
    pub const FAST_OPEN_FAILED: u8 = 128;
    /// Everything about fast open.
    pub const FAST_OPEN: u8 = Self::SYN_DATA
        | Self::SYN_DATA_ACKED
        | Self::FAST_CHILD
        | Self::COOKIE_WANTED
        | Self::FAST_OPEN_FAILED;
}

/// What belongs to a socket of TCP and is touched by calls, losses and urgent data only: beside the block, under the
/// same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Seldom {
    /// The slots of the processes that have a descriptor of it.
    pub holders: u64,
    /// Octets sent again.
    pub bytes_retrans: u64,
    /// Its address and port among those in use ([`crate::ports`]), plus one.
    pub bound: u32,
    /// In LISTEN, its record of the listeners, plus one; while it waits to be accepted, the one behind it, plus one; while it
    /// waits for queues, the one behind it there, plus one, or [`Seldom::LAST`].
    pub queue: u32,
    /// SND.UP; while it waits for queues, and so has nothing to send, the one before it there, plus one.
    pub snd_up: Seq,
    /// RCV.UP; of a [`Mark::FAST_CHILD`], its listener's record, plus one.
    pub rcv_up: Seq,
}

impl Seldom {
    /// [`Seldom::queue`] of the last one that waits for queues.
    pub const LAST: u32 = u32::MAX;
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Tcb>() == 448 && align_of::<Tcb>() == 64);
    assert!(size_of::<Seldom>() == 32 && size_of::<Traffic>() == 320);
    // What the demultiplexer compares, and the receive window, share a line; the hot fields end with the second one.
    assert!(offset_of!(Tcb, snd) == 64 && offset_of!(Tcb, timers) == 128);
    // The algorithms' records lie in lines of their own.
    assert!(
        offset_of!(Tcb, rtt) == 192 && offset_of!(Tcb, congestion) == 256 && offset_of!(Tcb, episode) == 320
    );
};

impl Default for Tcb {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl Tcb {
    /// ISS.
    #[must_use]
    pub const fn iss(&self) -> Seq {
        Seq(self.snd.una.0.wrapping_sub(self.acked as u32))
    }

    /// IRS.
    #[must_use]
    pub const fn irs(&self) -> Seq {
        Seq(self.rcv.nxt.0.wrapping_sub(self.received as u32))
    }

    /// Snd.Wind.Shift.
    #[must_use]
    pub const fn snd_shift(&self) -> u8 {
        self.shifts & 0xf
    }

    /// Rcv.Wind.Shift.
    #[must_use]
    pub const fn rcv_shift(&self) -> u8 {
        self.shifts >> 4
    }

    /// Sets both shifts, of which none is above 14 (RFC 7323 §2.3).
    pub fn set_shifts(&mut self, snd: u8, rcv: u8) {
        self.shifts = snd.min(14) | rcv.min(14) << 4;
    }

    /// Whether it is in the list of those that wait for queues, as its [`Seldom::queue`] says.
    #[must_use]
    pub const fn waits_for_queues(&self, queue: u32) -> bool {
        queue != 0 && !self.is(Mark::QUEUED) && !matches!(self.state(), State::Listen)
    }

    /// Whether segments may find it by both of its ends: in every state but CLOSED and LISTEN.
    #[must_use]
    pub const fn has_peer(&self) -> bool {
        self.tag.is_used() && !matches!(self.state(), State::Closed | State::Listen)
    }

    /// As what it counts.
    #[inline]
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self.state() {
            State::TimeWait => Standing::TimeWait,
            State::Closed | State::Listen => Standing::Used,
            _ if self.flags.has(Flags::ORPHAN) => Standing::Orphan,
            _ => Standing::Used,
        }
    }

    /// RFC 9293 §3.3.2.
    #[inline]
    #[must_use]
    pub const fn state(&self) -> State {
        State::decode(self.state)
    }

    /// Whether it has this [`Mark`].
    #[must_use]
    pub const fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }
}

impl Record for Traffic {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for Tcb {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Timed for Tcb {
    fn entry(&mut self) -> &mut Entry {
        &mut self.entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sequence_numbers_are_told_by_what_went_since() {
        let mut tcb = Tcb::default();
        (tcb.snd.una, tcb.rcv.nxt) = (Seq(5), Seq(u32::MAX));
        (tcb.acked, tcb.received) = (10 + (7 << 32), 1);
        assert_eq!((tcb.iss(), tcb.irs()), (Seq(u32::MAX - 4), Seq(u32::MAX - 1)));
    }

    #[test]
    fn shifts_are_two_halves() {
        let mut tcb = Tcb::default();
        tcb.set_shifts(7, 200);
        assert_eq!((tcb.snd_shift(), tcb.rcv_shift()), (7, 14));
    }

    #[test]
    fn a_flag_is_a_bit_of_its_own() {
        let both = Flags::TIMESTAMPS | Flags::PREDICTED;
        assert!(both.has(Flags::PREDICTED) && !both.has(Flags::SACK | Flags::PREDICTED));
        assert_eq!(both.without(Flags::PREDICTED), Flags::TIMESTAMPS);
    }
}
