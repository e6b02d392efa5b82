//! Which RST, SYN and ACK of a synchronized connection are acceptable, against those who send blindly (RFC 5961), and
//! how often the others are answered.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::seq::Seq;
use crate::time::Instant;

/// What to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It means what it says.
    Accept,
    /// Answer with a challenge ACK, if the rate allows, and drop it.
    Challenge,
    /// Drop it without an answer.
    Drop,
}

/// What of the receiving side a reset is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// RCV.NXT.
    pub nxt: Seq,
    /// RCV.WND.
    pub wnd: u32,
    /// Right edge of the highest block that was reported by SACK, if there is one: a peer that aborts behind a loss
    /// sends its RST there.
    pub sacked: Option<Seq>,
    /// The peer's FIN has arrived: some count it out again in an RST that follows.
    pub fin: bool,
}

/// A segment with RST.
///
/// RFC 5961 §3.2: "1) If the RST bit is set and the sequence number is outside the current receive window, silently
/// drop the segment. 2) If the RST bit is set and the sequence number exactly matches the next expected sequence
/// number (RCV.NXT), then TCP MUST reset the connection. 3) If the RST bit is set and the sequence number does not
/// exactly match the next expected sequence value, yet is within the current receive window, TCP MUST send an
/// acknowledgment (challenge ACK)".
///
/// As Linux, two further places are exact matches: behind what was reported by SACK (tcp_validate_incoming), and one
/// before RCV.NXT once FIN has arrived (tcp_reset_check).
#[must_use]
pub fn rst(seq: Seq, receiver: &Receiver) -> Verdict {
    let exact =
        seq == receiver.nxt || receiver.sacked == Some(seq) || receiver.fin && seq + 1 == receiver.nxt;
    if exact {
        Verdict::Accept
    } else if receiver.nxt.le(seq) && seq.lt(receiver.nxt + receiver.wnd) {
        Verdict::Challenge
    } else {
        Verdict::Drop
    }
}

/// A segment with SYN in a synchronized state.
///
/// RFC 5961 §4.2: "If the SYN bit is set, irrespective of the sequence number, TCP MUST send an ACK (also referred to
/// as challenge ACK) to the remote peer". It answers `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`; a peer that has restarted
/// resets what it doesn't know.
#[must_use]
pub const fn syn() -> Verdict {
    Verdict::Challenge
}

/// What an acknowledgment number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// SND.UNA < SEG.ACK ≤ SND.NXT.
    New,
    /// SEG.ACK = SND.UNA.
    Same,
    /// Before SND.UNA, and not too far: its text counts, its acknowledgment does not.
    Old,
    /// So old, or of what was never sent, that the segment is dropped and answered with a challenge ACK.
    Unacceptable,
}

/// An acknowledgment number in a synchronized state; `max_wnd` is MAX.SND.WND, the largest window that the peer ever
/// offered.
///
/// RFC 5961 §5.2: "The ACK value is considered acceptable only if it is in the range of ((SND.UNA - MAX.SND.WND) <=
/// SEG.ACK <= SND.NXT). All incoming segments whose ACK value doesn't satisfy the above condition MUST be discarded
/// and an ACK sent back."
#[inline]
#[must_use]
pub fn ack(ack: Seq, snd_una: Seq, snd_nxt: Seq, max_wnd: u32) -> Ack {
    if ack == snd_una {
        Ack::Same
    } else if snd_una.lt(ack) {
        if ack.le(snd_nxt) { Ack::New } else { Ack::Unacceptable }
    } else if snd_una - ack <= max_wnd {
        Ack::Old
    } else {
        Ack::Unacceptable
    }
}

/// Milliseconds between two answers of one connection to segments without text (net.ipv4.tcp_invalid_ratelimit).
const CONNECTION_MS: u32 = 500;

/// One connection's limit. RFC 5961 §7 asks for throttling; a limit that connections share must not be observed
/// through one of them (CVE-2016-5696), so the first one is the connection's own. Zero bytes are one that has not
/// answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limit {
    /// Milliseconds at which it answered last, plus one; 0 is never.
    answered: u32,
}

impl Limit {
    /// Whether it may answer now; then it has. What has text and no SYN is always answered, as a retransmission must
    /// be (tcp_oow_rate_limited).
    pub fn allows(&mut self, now: Instant, has_text: bool) -> bool {
        let ms = ((now.0 / 1_000_000) as u32).wrapping_add(1).max(1);
        if !has_text && self.answered != 0 && ms.wrapping_sub(self.answered) < CONNECTION_MS {
            return false;
        }
        self.answered = ms;
        true
    }
}

/// The whole stack's limit in each second, drawn anew for each. Zero bytes are one of a second long past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Budget {
    /// Seconds, plus one.
    second: u32,
    /// What is left of it.
    left: u32,
}

impl Budget {
    /// Takes one of about `limit` for this second; exactly how many there are is drawn from `random`, between a half
    /// and one and a half of it, so that counting them tells nothing (tcp_send_challenge_ack).
    pub fn take(&mut self, now: Instant, limit: u32, random: u32) -> bool {
        let second = ((now.0 / 1_000_000_000) as u32).wrapping_add(1);
        if second != self.second {
            let half = limit.div_ceil(2);
            self.second = second;
            self.left = half.saturating_add(random % limit.max(1));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECEIVER: Receiver = Receiver { nxt: Seq(1000), wnd: 500, sacked: None, fin: false };
    const MS: u64 = 1_000_000;

    #[test]
    fn a_reset_at_rcv_nxt_resets() {
        assert_eq!(rst(Seq(1000), &RECEIVER), Verdict::Accept);
        assert_eq!(
            rst(Seq(1000), &Receiver { wnd: 0, ..RECEIVER }),
            Verdict::Accept,
            "with a closed window too"
        );
    }

    #[test]
    fn a_reset_elsewhere_in_the_window_is_challenged_and_outside_it_dropped() {
        assert_eq!(rst(Seq(1001), &RECEIVER), Verdict::Challenge);
        assert_eq!(rst(Seq(1499), &RECEIVER), Verdict::Challenge);
        assert_eq!(rst(Seq(1500), &RECEIVER), Verdict::Drop);
        assert_eq!(rst(Seq(999), &RECEIVER), Verdict::Drop);
    }

    #[test]
    fn a_reset_behind_reported_blocks_or_in_place_of_the_fin_resets() {
        assert_eq!(rst(Seq(1200), &Receiver { sacked: Some(Seq(1200)), ..RECEIVER }), Verdict::Accept);
        assert_eq!(rst(Seq(1201), &Receiver { sacked: Some(Seq(1200)), ..RECEIVER }), Verdict::Challenge);
        assert_eq!(rst(Seq(999), &Receiver { fin: true, ..RECEIVER }), Verdict::Accept);
    }

    #[test]
    fn a_syn_is_challenged_wherever_it_is() {
        assert_eq!(syn(), Verdict::Challenge);
    }

    #[test]
    fn an_acknowledgment_of_what_was_never_sent_is_unacceptable() {
        let (una, nxt) = (Seq(u32::MAX - 10), Seq(10));
        assert_eq!(ack(nxt, una, nxt, 100), Ack::New);
        assert_eq!(ack(Seq(11), una, nxt, 100), Ack::Unacceptable);
        assert_eq!(ack(una, una, nxt, 100), Ack::Same);
    }

    #[test]
    fn an_acknowledgment_is_old_within_the_largest_window_and_unacceptable_beyond() {
        assert_eq!(ack(Seq(900), Seq(1000), Seq(1000), 100), Ack::Old);
        assert_eq!(ack(Seq(899), Seq(1000), Seq(1000), 100), Ack::Unacceptable);
    }

    #[test]
    fn a_connection_answers_twice_a_second_and_text_always() {
        let mut limit = Limit::default();
        assert!(limit.allows(Instant(0), false), "the first");
        assert!(!limit.allows(Instant(499 * MS), false));
        assert!(limit.allows(Instant(499 * MS), true));
        assert!(!limit.allows(Instant(998 * MS), false));
        assert!(limit.allows(Instant(999 * MS), false));
    }

    #[test]
    fn one_connections_answers_do_not_use_up_anothers() {
        let (mut one, mut other) = (Limit::default(), Limit::default());
        for ms in 0..10_000 {
            one.allows(Instant(ms * MS), false);
        }
        assert!(other.allows(Instant(10_000 * MS), false), "CVE-2016-5696");
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn the_budget_of_a_second_is_between_a_half_and_one_and_a_half(limit in 1u32..1000, random: u32) {
            let mut budget = Budget::default();
            let got = (0..3000).filter(|_| budget.take(Instant(0), limit, random)).count() as u32;
            prop_assert!(got >= limit.div_ceil(2) && got < limit.div_ceil(2) + limit);
            prop_assert!(budget.take(Instant(1_000 * MS), limit, random), "the next second");
        }

        #[test]
        fn of_all_numbers_a_blind_sender_can_choose_those_that_reset_are_one(seq: u32, nxt: u32, wnd: u32) {
            let receiver = Receiver { nxt: Seq(nxt), wnd, sacked: None, fin: false };
            prop_assert_eq!(rst(Seq(seq), &receiver) == Verdict::Accept, seq == nxt);
        }
    }
}
