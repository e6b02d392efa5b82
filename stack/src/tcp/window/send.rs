//! When the sender sends: Nagle's algorithm and the avoidance of silly windows, as one question.

use crate::seq::Seq;

/// What the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// SND.WND.
    pub wnd: u32,
    /// Max(SND.WND): the largest window that the peer has offered.
    pub max_wnd: u32,
    /// Eff.snd.MSS: text of a full segment.
    pub mss: u16,
    /// D: bytes that the user has given and that were not sent yet.
    pub queued: u32,
    /// End of the last segment that was sent with less than a full one's text (snd_sml).
    pub small: Seq,
    /// TCP_NODELAY. RFC 9293 §3.7.4: "there MUST be a way for an application to disable the Nagle algorithm on an
    /// individual connection (MUST-17)".
    pub nodelay: bool,
    /// TCP_CORK or MSG_MORE: only full segments.
    pub cork: bool,
    /// A FIN follows: there will be no more to wait for.
    pub fin: bool,
    /// The override timeout has expired: see [`super::super::timers::Timer::Persist`].
    pub overridden: bool,
}

/// Bytes of text for the next segment of new data; `None` when it is not the time to send one.
///
/// RFC 9293 §3.8.6.2.1: "A TCP implementation MUST include a SWS avoidance algorithm in the sender (MUST-38)", whose
/// four cases are the four here, and §3.7.4: "A TCP implementation SHOULD implement the Nagle algorithm to coalesce
/// short segments (SHLD-7)", in Minshall's form as Linux has it: what waits for an acknowledgment is only a *small*
/// segment behind a small one, so a request of two and a half segments leaves at once (tcp_minshall_check).
#[inline]
#[must_use]
pub fn next_len(sender: &Sender) -> Option<u32> {
    let (d, mss) = (sender.queued, u32::from(sender.mss).max(1));
    let flight_size = sender.nxt - sender.una;
    // U, the usable window. RFC 9293 §3.8.6: "a sending TCP peer MUST be robust against window shrinking, which may
    // cause the "usable window" (see Section 3.8.6.2.1) to become negative (MUST-34)."
    let u = sender.wnd.checked_sub(flight_size).filter(|u| *u != 0)?;
    let len = d.min(u).min(mss);
    if len == 0 {
        return None;
    }
    // (1) "if a maximum-sized segment can be sent, i.e., if: min(D,U) >= Eff.snd.MSS"
    if len == mss {
        return Some(len);
    }
    // (4) "or if the override timeout occurs."
    if sender.overridden {
        return Some(len);
    }
    if !(sender.fin && len == d) && nagle_waits(sender) {
        return None;
    }
    // (2) "[SND.NXT = SND.UNA and] PUSHed and D <= U (the bracketed condition is imposed by the Nagle algorithm)";
    // (3) "or if at least a fraction Fs of the maximum window can be sent, i.e., if: [SND.NXT = SND.UNA and] min(D,U)
    // >= Fs * Max(SND.WND)", with Fs = 1/2.
    (d <= u || len >= sender.max_wnd.div_ceil(2)).then_some(len)
}

/// Whether a segment that is not full waits for more.
#[inline]
fn nagle_waits(sender: &Sender) -> bool {
    let small_in_flight = sender.una.lt(sender.small) && sender.small.le(sender.nxt);
    sender.cork || !sender.nodelay && sender.una != sender.nxt && small_in_flight
}

/// Whether new data waits and nothing is in flight whose acknowledgment could let it go: then the persist timer runs
/// (RFC 9293 §3.8.6.1). When it expires, what fits is sent, [`Sender::overridden`], or a closed window is probed.
/// What is corked waits no longer than that either: tcp(7) promises a ceiling of 200 ms.
#[must_use]
pub fn needs_probe(sender: &Sender) -> bool {
    sender.una == sender.nxt && sender.queued != 0 && next_len(sender).is_none()
}
