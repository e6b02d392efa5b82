//! Explicit congestion notification (RFC 3168): a router marks a packet instead of dropping it, the receiver echoes
//! it until the sender says that it has heard.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::tcp::Flags;

/// Both sides speak it.
const OK: u8 = 1;
/// The window was reduced: the next new data says CWR.
const QUEUE_CWR: u8 = 2;
/// A mark arrived: acknowledgments say ECE until CWR arrives.
const DEMAND_CWR: u8 = 4;

/// What one connection knows of it. Zero bytes are a connection without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ecn(u8);

/// What is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Text that was never sent before.
    NewText,
    /// A retransmission.
    Again,
    /// Nothing but an acknowledgment.
    PureAck,
    /// A probe of a closed window or of a silent peer.
    Probe,
}

/// What a received segment asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// It reports congestion: reduce the window, once for each window of data.
    pub reduce: bool,
    /// Acknowledge it at once: the sender waits for the echo, or its window is small now.
    pub acknowledge: bool,
}

impl Ecn {
    /// The bits of a SYN that asks for it (RFC 3168 §6.1.1).
    pub const SYN: Flags = Flags(Flags::ECE.0 | Flags::CWR.0);
    /// The bit of a SYN-ACK that agrees.
    pub const SYN_ACK: Flags = Flags::ECE;

    /// Whether both sides speak it.
    #[inline]
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.0 & OK != 0
    }

    /// A connection for which it was agreed.
    #[must_use]
    pub const fn agreed(on: bool) -> Self {
        Self(if on { OK } else { 0 })
    }

    /// Whether a SYN asks for it: both bits, and no AE, which asks for another kind (RFC 9768 §3.1.1).
    #[must_use]
    pub fn asks(syn: Flags) -> bool {
        syn.among(Self::SYN | Flags::AE) == Self::SYN
    }

    /// Whether a SYN-ACK agrees. One that repeats both bits comes from a peer that reflects what it doesn't know (RFC
    /// 3168 §6.1.1).
    #[must_use]
    pub fn agrees(syn_ack: Flags) -> bool {
        syn_ack.among(Self::SYN | Flags::AE) == Self::SYN_ACK
    }

    /// Whether the next new text says CWR: it is one segment's alone, whatever a device makes of a larger packet.
    #[inline]
    #[must_use]
    pub const fn owes_reduced(self) -> bool {
        self.0 & QUEUE_CWR != 0
    }

    /// Bits of a segment that is sent, and whether its packet says ECT.
    ///
    /// RFC 3168 §6.1.5: "the ECT codepoint […] MUST NOT be set in the IP header for retransmitted data packets";
    /// §6.1.4: "pure acknowledgement packets (e.g., packets that do not contain any accompanying data) MUST be sent
    /// with the not-ECT codepoint"; §6.1.6: "the TCP data sender MUST NOT set either an ECT codepoint or the CWR bit
    /// on window probe packets". A SYN has its own bits and no ECT (§6.1.1).
    #[inline]
    #[must_use]
    pub fn outgoing(&mut self, what: Outgoing) -> (Flags, bool) {
        let mut flags = Flags::default();
        if !self.is_on() {
            return (flags, false);
        }
        // §6.1.3: "that TCP receiver continues to set the ECN-Echo flag in all the ACK packets it sends (whether they
        // acknowledge CE data packets or non-CE data packets) until it receives a CWR packet".
        if self.0 & DEMAND_CWR != 0 {
            flags |= Flags::ECE;
        }
        let new = what == Outgoing::NewText;
        if new && self.0 & QUEUE_CWR != 0 {
            flags |= Flags::CWR;
            self.0 &= !QUEUE_CWR;
        }
        (flags, new)
    }

    /// A segment arrived; `marked` if its packet says CE.
    #[inline]
    pub fn incoming(&mut self, flags: Flags, marked: bool, has_text: bool) -> Received {
        let mut received = Received::default();
        if !self.is_on() {
            return received;
        }
        // CWR first: the same segment may have been marked after it was sent.
        if flags.has(Flags::CWR) {
            self.0 &= !DEMAND_CWR;
            received.acknowledge = has_text;
        }
        if marked && has_text {
            received.acknowledge |= self.0 & DEMAND_CWR == 0;
            self.0 |= DEMAND_CWR;
        }
        received.reduce = flags.has(Flags::ECE) && !flags.has(Flags::SYN);
        received
    }

    /// The window was reduced, for whatever reason: §6.1.2, "the TCP sender sets the CWR flag in the TCP header of
    /// the first new data packet sent after the window reduction".
    #[inline]
    pub fn on_reduced(&mut self) {
        if self.is_on() {
            self.0 |= QUEUE_CWR;
        }
    }

    /// The reduction was taken back.
    pub fn withdraw(&mut self) {
        self.0 &= !QUEUE_CWR;
    }
}
