//! A connection leaves this stack, or comes to it, between two segments: to Linux and from it by TCP_REPAIR, or to another stack.
//!
//! A [`Snapshot`] says what TCP_REPAIR can say (linux/tcp.h, net/ipv4/tcp.c), in its words; beside it go the bytes that were received
//! and not read, and those that were written and not acknowledged. What it doesn't say is learned anew: the round-trip time, the
//! congestion window, what arrived behind a gap (RFC 2018 §8 allows to forget that), when the peer's last timestamp came.
//!
//! | Linux | here |
//! |---|---|
//! | TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ | [`Snapshot::receive_seq`], [`Snapshot::send_seq`]: of the first byte in each queue |
//! | send(2), recv(2) with MSG_PEEK in repair mode | the bytes beside the snapshot; of those to be sent the first [`Snapshot::in_flight`] were |
//! | TCP_REPAIR_OPTIONS | [`Snapshot::peer_mss`], [`Snapshot::shifts`], [`Snapshot::sack`], [`Snapshot::timestamps`] |
//! | TCP_REPAIR_WINDOW | [`Snapshot::window`] |
//! | TCP_TIMESTAMP | [`Snapshot::tsval`], by [`to_tcp_timestamp`] and [`from_tcp_timestamp`] |
//! | shutdown(2) after the last byte | [`Snapshot::is_finished`] |
//!
//! A socket of Linux's that is told of no shifts keeps the one that it would have offered: without scaling they are said to be 0 and 0.
//!
//! While it is under way nobody may answer the peer: a segment that finds no connection is reset. So the steering of its packets
//! changes first, and what comes meanwhile is lost, as on any wire.

use crate::demux::End;
use crate::device::Device;
use crate::error::Error;
use crate::ip::hop::Hop;
use crate::ports::{Class, Protocol, Wish};
use crate::recover::Operation;
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::sendq::{Copied, SendQueue, Shape};
use crate::seq::Seq;
use crate::stack::Stack;
use crate::tcp::congestion::{Algorithm, Congestion, initial_window};
use crate::tcp::connection::{Connection, means};
use crate::tcp::isn;
use crate::tcp::open::traffic::Want;
use crate::tcp::recovery::ecn::Ecn;
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags, Rcv, Snd, Tcb};
use crate::tcp::timestamps::Recent;
use crate::tcp::window::autotune::Autotune;
use crate::wire::checksum::Sum;
use crate::wire::ip::Ip;

/// Linux's `struct tcp_repair_window`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// SND.WL1.
    pub snd_wl1: Seq,
    /// SND.WND.
    pub snd_wnd: u32,
    /// Max(SND.WND).
    pub max_window: u32,
    /// The window that was announced last, from `rcv_wup` on.
    pub rcv_wnd: u32,
    /// RCV.NXT when it was announced.
    pub rcv_wup: Seq,
}

/// TCP_TIMESTAMP for this TSval. Its lowest bit says whether the clock is one of microseconds (Linux since 6.7), which ours is not; so
/// that TSval never goes back, it is one more where it was odd.
#[must_use]
pub const fn to_tcp_timestamp(tsval: u32) -> u32 {
    tsval.wrapping_add(tsval & 1)
}

/// TSval for this TCP_TIMESTAMP of a clock of milliseconds: its lowest bit was cleared, and is taken for set.
#[must_use]
pub const fn from_tcp_timestamp(value: u32) -> u32 {
    value | 1
}

/// A connection between two segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Our end.
    pub local: (Ip, u16),
    /// The peer's.
    pub remote: (Ip, u16),
    /// RCV.NXT: the next octet that is expected, behind the peer's FIN if that came.
    pub rcv_nxt: Seq,
    /// Bytes that were received in order and not read.
    pub unread: u32,
    /// The peer's FIN came.
    pub has_ended: bool,
    /// SND.UNA.
    pub snd_una: Seq,
    /// Bytes that were sent and not acknowledged.
    pub in_flight: u32,
    /// Bytes that were written and not sent.
    pub unsent: u32,
    /// The user has shut the sending direction down: a FIN follows the last byte, sent or not.
    pub is_finished: bool,
    /// That FIN was sent, too, behind all text: SND.NXT is behind it.
    pub is_fin_sent: bool,
    /// The peer's MSS option.
    pub peer_mss: u16,
    /// Snd.Wind.Shift and Rcv.Wind.Shift, if windows are scaled (RFC 7323 §2).
    pub shifts: Option<(u8, u8)>,
    /// The peer takes SACK.
    pub sack: bool,
    /// TS.Recent, if both sides send timestamps.
    pub timestamps: Option<u32>,
    /// TSval now.
    pub tsval: u32,
    /// Both sides know ECN: TCP_REPAIR doesn't keep it.
    pub ecn: bool,
    /// TCP_REPAIR_WINDOW.
    pub window: Window,
}

impl Snapshot {
    /// TCP_QUEUE_SEQ of TCP_RECV_QUEUE: of the first byte that was not read.
    #[must_use]
    pub fn receive_seq(&self) -> Seq {
        Seq(self.rcv_nxt.0.wrapping_sub(self.unread).wrapping_sub(self.has_ended.into()))
    }

    /// TCP_QUEUE_SEQ of TCP_SEND_QUEUE: of the first byte that isn't acknowledged.
    #[must_use]
    pub const fn send_seq(&self) -> Seq {
        self.snd_una
    }

    /// RFC 9293 §3.3.2: the state that follows from which FINs are there.
    #[must_use]
    pub const fn state(&self) -> State {
        match (self.has_ended, self.is_finished) {
            (false, false) => State::Established,
            (false, true) => State::FinWait1,
            (true, false) => State::CloseWait,
            (true, true) => State::LastAck,
        }
    }

    /// The values that it was made of at another time of day of the same clock: TSval goes on.
    #[must_use]
    pub const fn later(self, milliseconds: u32) -> Self {
        Self { tsval: self.tsval.wrapping_add(milliseconds), ..self }
    }

    /// Whether it makes sense, as Linux's tcp_repair_set_window asks.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let window = &self.window;
        let edge = self.rcv_nxt + window.rcv_wnd;
        window.snd_wl1.le(edge)
            && window.rcv_wup.le(self.rcv_nxt)
            && self.rcv_nxt - window.rcv_wup <= window.rcv_wnd
            && window.max_window >= window.snd_wnd
            && (!self.is_fin_sent || self.is_finished && self.unsent == 0)
            && self.shifts.is_none_or(|(snd, rcv)| snd <= 14 && rcv <= 14)
            && self.local.0.is_v4() == self.remote.0.is_v4()
            && self.local.1 != 0
            && self.remote.1 != 0
    }
}

impl<D: Device> Connection<'_, D> {
    fn snapshot(&self) -> Result<Snapshot, Error> {
        let tcb = &*self.tcb;
        let state = tcb.state();
        let has = |flag| tcb.flags.has(flag);
        // What is left of the others drains where it is; urgent data has no place in TCP_REPAIR.
        let can = matches!(state, State::Established | State::CloseWait | State::FinWait1 | State::LastAck);
        if !can || has(Flags::SEND_URGENT) || has(Flags::RECEIVE_URGENT) {
            return Err(Error::NotSupported);
        }
        let (rcv, snd, text) = (tcb.rcv, tcb.snd, self.traffic.send.bytes());
        let (edge, announced) = (rcv.nxt + rcv.wnd, rcv.last_ack_sent);
        Ok(Snapshot {
            local: (tcb.local, tcb.local_port),
            remote: (tcb.remote, tcb.remote_port),
            rcv_nxt: rcv.nxt,
            unread: self.traffic.receive.bytes(),
            has_ended: state.has_received_fin(),
            snd_una: snd.una,
            // The FIN may be among what was sent.
            in_flight: (snd.nxt - snd.una).min(text),
            unsent: text.saturating_sub(snd.nxt - snd.una),
            is_finished: has(Flags::FIN_QUEUED),
            is_fin_sent: snd.nxt - snd.una > text,
            peer_mss: tcb.peer_mss,
            shifts: has(Flags::SCALING).then(|| (tcb.snd_shift(), tcb.rcv_shift())),
            sack: has(Flags::SACK),
            timestamps: has(Flags::TIMESTAMPS).then(|| tcb.recent.echo()),
            tsval: self.tsval(),
            ecn: tcb.episode.ecn.is_on(),
            window: Window {
                snd_wl1: snd.wl1,
                snd_wnd: snd.wnd,
                max_window: tcb.snd_wnd_max,
                rcv_wnd: edge - announced,
                rcv_wup: announced,
            },
        })
    }

    /// Hands out what was not read, and what was written and isn't acknowledged, both in order and in pieces.
    fn hand_out(&mut self, mut unread: impl FnMut(&[u8]), mut text: impl FnMut(&[u8])) {
        let len = self.traffic.receive.bytes() as usize;
        self.traffic.receive.peek(&means!(self, receive_charge), 0, len, |piece| {
            unread(piece);
            piece.len()
        });
        for frame in self.frames.walk(self.traffic.send.list()) {
            let Some(piece) = self.frames.text(frame) else { continue };
            let begin = usize::from(piece.offset);
            let bytes = self.device.bytes(frame);
            if let Some(bytes) = bytes.and_then(|bytes| bytes.get(begin..begin + usize::from(piece.len))) {
                text(bytes);
            }
        }
        self.blocks.peek(self.traffic.send.blocks(), 0, |piece| {
            text(piece);
            piece.len()
        });
    }

    /// Becomes what the snapshot says, with these bytes in its queues; false if there is no memory for them.
    pub(crate) fn become_it(&mut self, it: &Snapshot, unread: &[&[u8]], text: &[&[u8]]) -> bool {
        self.begin(isn::timestamp_offset(&self.secret.0, &self.tuple()));
        let window = &it.window;
        let tcb = &mut *self.tcb;
        let mut flags = Flags(tcb.flags.0 & (Flags::NO_DELAY.0 | Flags::CORK.0));
        for (on, flag) in [
            (it.timestamps.is_some(), Flags::TIMESTAMPS),
            (it.sack, Flags::SACK),
            (it.shifts.is_some(), Flags::SCALING),
            (it.ecn, Flags::ECN),
            (it.is_finished, Flags::FIN_QUEUED),
        ] {
            if on {
                flags |= flag;
            }
        }
        tcb.flags = flags;
        let (snd, rcv) = it.shifts.unwrap_or((0, 0));
        tcb.set_shifts(snd, rcv);
        let nxt = it.snd_una + (it.in_flight + u32::from(it.is_fin_sent));
        tcb.snd = Snd { una: it.snd_una, nxt, wnd: window.snd_wnd, wl1: window.snd_wl1, wl2: it.snd_una };
        let wnd = (window.rcv_wup + window.rcv_wnd) - it.rcv_nxt;
        tcb.rcv = Rcv { nxt: it.rcv_nxt, wnd, last_ack_sent: window.rcv_wup };
        tcb.snd_wnd_max = window.max_window;
        // What was acknowledged elsewhere may yet be acknowledged again, late.
        tcb.acked = window.max_window.into();
        tcb.peer_mss = it.peer_mss;
        tcb.ts_offset = it.tsval.wrapping_sub(crate::tcp::timestamps::clock(self.now, 0));
        tcb.recent = it.timestamps.map_or(Recent::default(), |recent| Recent::new(self.now, recent));
        tcb.episode.ecn = Ecn::agreed(it.ecn);
        self.set_mss();
        let first = initial_window(self.tcb.mss, false);
        self.tcb.congestion = Congestion::new(Algorithm::decode(self.values.congestion), first);
        self.tcb.autotune = Autotune::new(self.now, it.rcv_nxt, wnd);
        self.traffic.fack = it.snd_una;
        self.traffic.send = SendQueue::new(it.snd_una);
        self.tcb.state = it.state() as u8;
        if !self.take_unread(it, unread) || !self.take_text(it, text) {
            return false;
        }
        // What was received is acknowledged as far as the peer was told; the rest it is told now.
        if window.rcv_wup != it.rcv_nxt {
            self.owe_ack(true);
        }
        self.begin_keepalive();
        self.arrived = true;
        self.output();
        true
    }

    fn take_unread(&mut self, it: &Snapshot, unread: &[&[u8]]) -> bool {
        let mut seq = it.receive_seq();
        for piece in unread {
            if !self.traffic.receive.restore(&mut means!(self, receive_charge), seq, piece) {
                return false;
            }
            seq = seq + piece.len() as u32;
        }
        true
    }

    /// What was in flight is in frames and counts as sent now; the rest is as written.
    fn take_text(&mut self, it: &Snapshot, text: &[&[u8]]) -> bool {
        let shape = self.shape();
        let mut sent = it.in_flight as usize;
        for piece in text {
            let (before, after) = piece.split_at(sent.min(piece.len()));
            sent -= before.len();
            if !self.append(shape, before, u32::MAX) {
                return false;
            }
            while !before.is_empty() && self.traffic.send.mark_sent(&mut self.frames, self.now).is_some() {}
            if !self.append(shape, after, self.send_frames_max()) {
                return false;
            }
        }
        if it.is_fin_sent {
            let is_there = self.traffic.send.push_fin(&mut means!(self, send_charge), shape);
            if !is_there || self.traffic.send.mark_sent(&mut self.frames, self.now).is_none() {
                return false;
            }
        }
        sent == 0 && self.tcb.snd.una + self.traffic.send.sent().octets == self.tcb.snd.nxt
    }
}

impl<D: Device> Connection<'_, D> {
    /// Adds text to the send queue; false if there is no memory for all of it.
    fn append(&mut self, shape: Shape, text: &[u8], frames_max: u32) -> bool {
        let mut left = text;
        let means = &mut means!(self, send_charge);
        let done = self.traffic.send.append(means, shape, text.len(), frames_max, |to| {
            let (now, later) = left.split_at(to.len().min(left.len()));
            let sum = Sum::ZERO.copy(now, to);
            left = later;
            Copied { len: now.len(), sum: Some(sum) }
        });
        done.bytes == text.len()
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// What a connection is now; the bytes that were received and not read go to `unread`, those that were written and aren't
    /// acknowledged to `text`. Nothing changes: [`Self::abandon`] is next.
    ///
    /// # Errors
    /// `BadHandle`; `NotSupported` in another state than ESTABLISHED, CLOSE-WAIT, FIN-WAIT-1 and LAST-ACK, and with urgent data.
    pub fn export(
        &mut self,
        socket: Handle,
        unread: impl FnMut(&[u8]),
        text: impl FnMut(&[u8]),
    ) -> Result<Snapshot, Error> {
        self.parts.tcb(socket)?;
        let mut spare = None;
        let mut connection = self.connection(socket, &mut spare, Hop::default())?;
        let snapshot = connection.snapshot()?;
        connection.hand_out(unread, text);
        Ok(snapshot)
    }

    /// The connection goes on elsewhere: its record and all that is in its queues are given back without a word to the peer.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn abandon(&mut self, socket: Handle) -> Result<(), Error> {
        self.parts.forget_holders(socket)?;
        self.work(socket, None, |connection| {
            connection.tcb.flags |= Flags::ORPHAN;
            connection.drop_received();
            connection.end();
        })
    }

    /// A connection comes from elsewhere: a socket in CLOSED, whose options are set, becomes it.
    ///
    /// # Errors
    /// `Invalid` if the socket has a port or a connection, or the snapshot contradicts itself; `AddressNotAvailable` if its
    /// address is not ours; `AddressInUse` if there is such a connection; `NoBuffers`. The socket is as before then.
    pub fn import(
        &mut self,
        socket: Handle,
        it: &Snapshot,
        unread: &[&[u8]],
        text: &[&[u8]],
    ) -> Result<(), Error> {
        let len = |pieces: &[&[u8]]| pieces.iter().map(|piece| piece.len()).sum::<usize>();
        let expected = it.in_flight as usize + it.unsent as usize;
        if !it.is_whole() || len(unread) != it.unread as usize || len(text) != expected {
            return Err(Error::Invalid);
        }
        self.parts.under(Operation::Tcp, socket, |parts| parts.adopt(socket, it))?;
        let has_queues = it.unread != 0 || expected != 0 || it.is_finished;
        let done = self.work(socket, has_queues.then_some(Want::Sending), |connection| {
            let is_it = connection.become_it(it, unread, text);
            if !is_it {
                connection.drop_received();
                connection.end();
            }
            is_it
        });
        match done {
            Ok(true) => Ok(()),
            done => {
                // Nothing was said to anybody: it is a socket in CLOSED again.
                if self.parts.tcb(socket)?.has_peer() {
                    self.parts.tcp_disconnect(socket)?;
                }
                let tcb = self.parts.tcb(socket)?;
                (tcb.error, tcb.flags) = (0, Flags::default());
                Err(done.err().unwrap_or(Error::NoBuffers))
            }
        }
    }
}

impl Parts<'_> {
    /// The socket has this connection's ends, and segments find it.
    fn adopt(&mut self, socket: Handle, it: &Snapshot) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        if tcb.state() != State::Closed || tcb.local_port != 0 {
            return Err(Error::Invalid);
        }
        let (local, remote): (End<'_>, End<'_>) = ((&it.local.0, it.local.1), (&it.remote.0, it.remote.1));
        if !self.is_ours(local.0) {
            return Err(Error::AddressNotAvailable);
        }
        if self.connections().find(local, remote).is_some() {
            return Err(Error::AddressInUse);
        }
        let class = Class::of(self.tcp_options(socket)?.options);
        let bound = self.ports().join(&Wish { protocol: Protocol::Tcp, local, v6_only: false, class })?;
        self.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?.bound = bound.wrapping_add(1);
        *self.tcb(socket)? = Tcb {
            local: it.local.0,
            local_port: it.local.1,
            remote: it.remote.0,
            remote_port: it.remote.1,
            state: it.state() as u8,
            bound_as: class.0,
            ..tcb
        };
        if self.connections().insert(socket.index) {
            return Ok(());
        }
        *self.tcb(socket)? = tcb;
        self.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?.bound = 0;
        self.ports().leave(bound, class);
        Err(Error::NoBuffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IT: Snapshot = Snapshot {
        local: (Ip::v4([192, 0, 2, 1]), 80),
        remote: (Ip::v4([198, 51, 100, 7]), 5000),
        rcv_nxt: Seq(1000),
        unread: 10,
        has_ended: false,
        snd_una: Seq(u32::MAX),
        in_flight: 5,
        unsent: 7,
        is_finished: false,
        is_fin_sent: false,
        peer_mss: 1460,
        shifts: Some((7, 7)),
        sack: true,
        timestamps: Some(3),
        tsval: u32::MAX,
        ecn: false,
        window: Window {
            snd_wl1: Seq(990),
            snd_wnd: 5000,
            max_window: 6000,
            rcv_wnd: 4000,
            rcv_wup: Seq(900),
        },
    };

    #[test]
    fn sequence_numbers_are_those_of_the_first_bytes() {
        assert_eq!((IT.receive_seq(), IT.send_seq()), (Seq(990), Seq(u32::MAX)));
        let ended = Snapshot { has_ended: true, ..IT };
        assert_eq!(ended.receive_seq(), Seq(989), "its FIN is no byte");
        assert_eq!(IT.later(3).tsval, 2);
        assert_eq!([4, 5, u32::MAX].map(to_tcp_timestamp), [4, 6, 0]);
        assert_eq!([4, 6].map(from_tcp_timestamp), [5, 7], "never before what was sent last");
    }

    #[test]
    fn the_state_is_which_fins_are_there() {
        let state = |has_ended, is_finished| Snapshot { has_ended, is_finished, ..IT }.state();
        assert_eq!([state(false, false), state(false, true)], [State::Established, State::FinWait1]);
        assert_eq!([state(true, false), state(true, true)], [State::CloseWait, State::LastAck]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let with = |change: &dyn Fn(&mut Snapshot)| {
            let mut it = IT;
            change(&mut it);
            it.is_whole()
        };
        assert!(with(&|_| {}));
        assert!(!with(&|it| it.window.snd_wl1 = Seq(6000)), "tcp_repair_set_window: beyond the window");
        assert!(!with(&|it| it.window.rcv_wup = Seq(1001)), "tcp_repair_set_window: announced in the future");
        assert!(!with(&|it| it.window.max_window = 4999), "tcp_repair_set_window: less than there is");
        assert!(!with(&|it| it.window.rcv_wnd = 99), "more came than was announced");
        assert!(!with(&|it| it.shifts = Some((15, 0))), "RFC 7323 §2.3");
        assert!(!with(&|it| (it.is_finished, it.is_fin_sent) = (true, true)), "its text was not sent");
        assert!(!with(&|it| it.local.1 = 0));
        assert!(!with(&|it| it.local.0 = Ip::UNSPECIFIED));
    }
}
