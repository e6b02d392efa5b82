//! Tail loss probe (RFC 8985 §7): when nothing comes back for two round trips, one segment is sent so that something
//! does, and RACK can tell what was lost, before a retransmission timeout has to.

use super::rack::{Rack, TLP, TLP_RETRANS};
use crate::seq::Seq;
use crate::time::{Duration, Instant};

/// RFC 8985 §7.2: PTO before anything was measured.
const INITIAL: Duration = Duration::from_secs(1);
/// TLP.max_ack_delay: how long a peer may wait with the acknowledgment of a single segment; the smallest
/// retransmission timeout, as in Linux (tcp_schedule_loss_probe).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Two ticks of the clock by which probes are sent (TCP_TIMEOUT_MIN).
const GRANULARITY: Duration = Duration::from_millis(2);

/// When the probe is due, if nothing is acknowledged until then (TLP_calc_PTO): `rto_at` is when the retransmission
/// timer would expire.
///
/// RFC 8985 §7.2: "PTO = 2 * SRTT", with room for a delayed acknowledgment if a single segment is in flight, and
/// never after the retransmission timeout.
#[must_use]
pub fn pto(now: Instant, srtt: Option<Duration>, packets_out: u32, rto_at: Instant) -> Instant {
    let length = match srtt {
        None => INITIAL,
        Some(srtt) => {
            let room = if packets_out == 1 { MAX_ACK_DELAY } else { GRANULARITY };
            Duration(srtt.0.saturating_mul(2).saturating_add(room.0))
        }
    };
    (now + length).min(rto_at)
}

/// What decides whether a probe may be scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Both sides permit SACK.
    pub sack: bool,
    /// Neither recovering nor after a reduction: RFC 8985 §7.2 schedules no probe in recovery.
    pub open: bool,
    /// Segments that are not acknowledged.
    pub packets_out: u32,
    /// Of them, those that were reported by SACK: RACK has something to go by already.
    pub sacked_out: u32,
}

/// What the acknowledgment of a probe means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no probe, or it is not acknowledged.
    Pending,
    /// Nothing was lost.
    Arrived,
    /// The probe was a retransmission and has repaired a single loss, which nothing else will tell of: congestion
    /// control must respond.
    Repaired,
}

/// An acknowledgment, as [`Rack::on_tlp_ack`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// SEG.ACK.
    pub ack: Seq,
    /// It has a DSACK block that ends at TLP.end_seq: both copies arrived.
    pub dsack_of_probe: bool,
    /// It repeats SND.UNA, has no text, no SACK option, and no other window.
    pub plain_duplicate: bool,
}

impl Rack {
    /// Whether a probe should be scheduled.
    #[must_use]
    pub fn may_probe(&self, flight: &Flight) -> bool {
        let idle = self.flags & TLP == 0;
        idle && flight.sack && flight.open && flight.packets_out != 0 && flight.sacked_out == 0
    }

    /// A probe was sent: new data, or the last segment again. RFC 8985 §7.3: "TLP.end_seq = SND.NXT". One at a time:
    /// a second one would not be told from the first.
    pub fn on_tlp_sent(&mut self, snd_nxt: Seq, is_retrans: bool) {
        self.tlp_end_seq = snd_nxt;
        self.flags = self.flags & !TLP_RETRANS | TLP | if is_retrans { TLP_RETRANS } else { 0 };
    }

    /// TLP.end_seq, while a probe is in flight.
    #[must_use]
    pub fn tlp_end_seq(&self) -> Option<Seq> {
        (self.flags & TLP != 0).then_some(self.tlp_end_seq)
    }

    /// Recovery or a timeout begins: it tells more than the probe.
    pub fn forget_tlp(&mut self) {
        self.flags &= !(TLP | TLP_RETRANS);
    }

    /// TLP_process_ack (RFC 8985 §7.4.2).
    #[inline]
    pub fn on_tlp_ack(&mut self, ack: &Ack) -> Outcome {
        let Some(end_seq) = self.tlp_end_seq() else { return Outcome::Pending };
        if ack.ack.lt(end_seq) {
            return Outcome::Pending;
        }
        let is_retrans = self.flags & TLP_RETRANS != 0;
        let outcome = if !is_retrans || ack.dsack_of_probe {
            Outcome::Arrived
        } else if end_seq.lt(ack.ack) {
            // New data is acknowledged, and nobody has seen the probe twice.
            Outcome::Repaired
        } else if ack.plain_duplicate {
            Outcome::Arrived
        } else {
            return Outcome::Pending;
        };
        self.forget_tlp();
        outcome
    }
}
