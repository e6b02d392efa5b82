//! The states of a connection and the arrows between them (RFC 9293 §3.3.2, figure 5). All of it is drawn in
//! `state/figure5.md`, which a test writes. What the whole stack does in each state with every segment, call and timer is in
//! `state/events.txt`, and as a picture in `state/events.svg`: `tests/tests/states.rs` writes both, and compares them with Linux.

use core::fmt;

use crate::coded::coded;
use crate::wire::tcp::Flags;

coded! {
    /// The eleven states. A record has one as a byte: see [`State::decode`].
    #[derive(Default)]
    pub enum State: u8 else Closed {
        /// No connection.
        #[default]
        Closed = 0,
        /// Waits for a connection request from any remote TCP.
        Listen = 1,
        /// Has sent a request and waits for a matching one.
        SynSent = 2,
        /// Has received and sent a request and waits for the acknowledgment of its own.
        SynReceived = 3,
        /// Data goes both ways.
        Established = 4,
        /// Has sent FIN; waits for its acknowledgment or for the other's FIN.
        FinWait1 = 5,
        /// Its FIN is acknowledged; waits for the other's FIN.
        FinWait2 = 6,
        /// The other has finished; waits for the local user to close.
        CloseWait = 7,
        /// Both have sent FIN; waits for the acknowledgment of its own.
        Closing = 8,
        /// The other had finished first; waits for the acknowledgment of its own FIN.
        LastAck = 9,
        /// Waits until old segments of the connection are gone.
        TimeWait = 10,
    }
}

/// What moves a connection from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The user listens.
    PassiveOpen,
    /// The user connects; a SYN is sent.
    ActiveOpen,
    /// A SYN without ACK arrived.
    RcvSyn,
    /// A SYN that acknowledges ours arrived.
    RcvSynAck,
    /// Our SYN was acknowledged.
    RcvAckOfSyn,
    /// The user sends no more: a FIN follows the data.
    Close,
    /// The other's FIN arrived, in order.
    RcvFin,
    /// Our FIN was acknowledged.
    RcvAckOfFin,
    /// An acceptable RST arrived.
    RcvRst,
    /// 2 MSL have passed in TIME-WAIT, or its limit in an abandoned FIN-WAIT-2.
    Timeout,
    /// The user aborts, or a connection is given up.
    Abort,
}

use State::*;

impl State {
    /// Where the event leads from here; `None` means that it does not move this state.
    ///
    /// A SYN in the queue of a listener is no connection yet, so nothing returns to LISTEN (figure 5, note 1). What
    /// acknowledges our FIN and has a FIN of its own is two events (note 2). An RST does not end TIME-WAIT: RFC 1337
    /// §3, fix (F1).
    #[must_use]
    pub fn on(self, event: Event) -> Option<Self> {
        use Event::{
            Abort, ActiveOpen, Close, PassiveOpen, RcvAckOfFin, RcvAckOfSyn, RcvFin, RcvRst, RcvSyn,
            RcvSynAck, Timeout,
        };
        Some(match (self, event) {
            (Closed, PassiveOpen) => Listen,
            (Closed | Listen, ActiveOpen) => SynSent,
            (Listen | SynSent, RcvSyn) => SynReceived,
            (SynSent, RcvSynAck) | (SynReceived, RcvAckOfSyn) => Established,

            (Listen | SynSent, Close) => Closed,
            (SynReceived | Established, Close) => FinWait1,
            (CloseWait, Close) => LastAck,

            (SynReceived | Established, RcvFin) => CloseWait,
            (FinWait1, RcvFin) => Closing,
            (FinWait2, RcvFin) => TimeWait,

            (FinWait1, RcvAckOfFin) => FinWait2,
            (Closing, RcvAckOfFin) => TimeWait,
            (LastAck, RcvAckOfFin) => Closed,

            (Closed | Listen | TimeWait, RcvRst) => return None,
            (_, RcvRst) => Closed,

            (FinWait2 | TimeWait, Timeout) => Closed,
            (Closed, Abort) => return None,
            (_, Abort) => Closed,
            _ => return None,
        })
    }

    /// Both sides have each other's sequence numbers (RFC 9293 §3.5).
    #[inline]
    #[must_use]
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, Closed | Listen | SynSent | SynReceived)
    }

    /// The user may still give data to be sent; before ESTABLISHED it waits (RFC 9293 §3.10.2).
    #[inline]
    #[must_use]
    pub const fn may_queue(self) -> bool {
        matches!(self, SynSent | SynReceived | Established | CloseWait)
    }

    /// New data may leave now.
    #[inline]
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(self, Established | CloseWait)
    }

    /// Unacknowledged data or a FIN may have to be sent again.
    #[inline]
    #[must_use]
    pub const fn may_retransmit(self) -> bool {
        matches!(self, Established | FinWait1 | CloseWait | Closing | LastAck)
    }

    /// The text of segments is for the user (RFC 9293 §3.10.7.4, seventh).
    #[inline]
    #[must_use]
    pub const fn may_receive(self) -> bool {
        matches!(self, Established | FinWait1 | FinWait2)
    }

    /// The other has sent everything: its FIN has arrived.
    #[inline]
    #[must_use]
    pub const fn has_received_fin(self) -> bool {
        matches!(self, CloseWait | Closing | LastAck | TimeWait)
    }

    /// The user has closed its direction: a FIN was sent or follows the data.
    #[inline]
    #[must_use]
    pub const fn has_closed(self) -> bool {
        matches!(self, FinWait1 | FinWait2 | Closing | LastAck | TimeWait)
    }

    /// The control bits of what is sent in this state when all data has been sent before it.
    #[must_use]
    pub fn flags(self) -> Flags {
        match self {
            Closed | Listen => Flags::RST | Flags::ACK,
            SynSent => Flags::SYN,
            SynReceived => Flags::SYN | Flags::ACK,
            Established | CloseWait | FinWait2 | TimeWait => Flags::ACK,
            FinWait1 | Closing | LastAck => Flags::FIN | Flags::ACK,
        }
    }

    /// Linux's number of the state, as in TCP_INFO (include/net/tcp_states.h).
    #[must_use]
    pub const fn as_linux(self) -> u8 {
        match self {
            Established => 1,
            SynSent => 2,
            SynReceived => 3,
            FinWait1 => 4,
            FinWait2 => 5,
            TimeWait => 6,
            Closed => 7,
            CloseWait => 8,
            LastAck => 9,
            Listen => 10,
            Closing => 11,
        }
    }
}

impl fmt::Display for State {
    /// The name in the standard, as `ss` and captures are read beside it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Closed => "CLOSED",
            Listen => "LISTEN",
            SynSent => "SYN-SENT",
            SynReceived => "SYN-RECEIVED",
            Established => "ESTABLISHED",
            FinWait1 => "FIN-WAIT-1",
            FinWait2 => "FIN-WAIT-2",
            CloseWait => "CLOSE-WAIT",
            Closing => "CLOSING",
            LastAck => "LAST-ACK",
            TimeWait => "TIME-WAIT",
        })
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 11] = [
        Self::PassiveOpen,
        Self::ActiveOpen,
        Self::RcvSyn,
        Self::RcvSynAck,
        Self::RcvAckOfSyn,
        Self::Close,
        Self::RcvFin,
        Self::RcvAckOfFin,
        Self::RcvRst,
        Self::Timeout,
        Self::Abort,
    ];
}

impl fmt::Display for Event {
    /// As figure 5 labels its arrows.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::PassiveOpen => "passive OPEN",
            Self::ActiveOpen => "active OPEN",
            Self::RcvSyn => "rcv SYN",
            Self::RcvSynAck => "rcv SYN,ACK",
            Self::RcvAckOfSyn => "rcv ACK of SYN",
            Self::Close => "CLOSE",
            Self::RcvFin => "rcv FIN",
            Self::RcvAckOfFin => "rcv ACK of FIN",
            Self::RcvRst => "rcv RST",
            Self::Timeout => "timeout",
            Self::Abort => "ABORT",
        })
    }
}

#[cfg(test)]
mod tests;
