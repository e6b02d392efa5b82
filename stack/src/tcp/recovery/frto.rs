//! F-RTO (RFC 5682): after a timeout, whether the first acknowledgments show that nothing was lost but the path got
//! slower.
//!
//! The segment that timed out is sent again; if the next acknowledgments advance, or report, what was *not* sent
//! again, the timeout was spurious. The form with SACK (§3.1), as Linux (tcp_process_loss).

use super::undo::{CaState, Episode, FRTO};
use crate::seq::Seq;

/// What an acknowledgment shows while [`CaState::Loss`] lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// SND.UNA after it.
    pub una: Seq,
    /// SND.NXT.
    pub nxt: Seq,
    /// It advances SND.UNA.
    pub advances: bool,
    /// It acknowledges or reports data that was sent before the timeout and never sent again.
    pub originals: bool,
    /// It reports something new by SACK, or is a duplicate.
    pub reports: bool,
    /// There is new data, and the peer's window has room for it.
    pub can_send_new: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The timeout was spurious: undo the reduction.
    Spurious,
    /// Send up to two new segments instead of retransmitting, and look again (§3.1 step 2 b).
    SendNew,
    /// Everything from before the timeout is acknowledged.
    Recovered,
    /// Retransmit what is lost.
    Retransmit,
}

impl Episode {
    /// A timeout begins: `eligible` if nothing was being repaired, or if it is the same segment that times out again
    /// (RFC 5682 §3.1 step 1, §3.2).
    pub fn begin_frto(&mut self, eligible: bool) {
        self.state = self.state & !FRTO | if eligible { FRTO } else { 0 };
    }

    /// One acknowledgment after a timeout.
    pub fn frto(&mut self, ack: &Ack) -> Verdict {
        let recovered = self.is_recovered(ack.una);
        if self.state & FRTO != 0 && self.state() == CaState::Loss {
            // Step 3 b: data that was sent before the timeout and never again has arrived.
            if ack.originals {
                self.state &= !FRTO;
                return Verdict::Spurious;
            }
            if self.high_seq.lt(ack.nxt) {
                // Step 3 a: new data was sent, and what comes back is a duplicate: the loss is real.
                if ack.reports {
                    self.state &= !FRTO;
                }
            } else if ack.advances && !recovered {
                // Step 2 b. What is acknowledged later than this is new data.
                self.high_seq = ack.nxt;
                if ack.can_send_new {
                    return Verdict::SendNew;
                }
                self.state &= !FRTO;
            }
        }
        if recovered { Verdict::Recovered } else { Verdict::Retransmit }
    }
}
