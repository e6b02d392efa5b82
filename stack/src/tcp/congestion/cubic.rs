//! CUBIC (RFC 9438): the window is a cubic function of the time since the last reduction, W_cubic(t) = C·(t − K)³ +
//! W_max, flat where loss was met last and faster the further it is from there.
//!
//! The arithmetic is in integers: time in units of 2¹⁸ ns (a quarter of a millisecond), windows in 2⁻¹⁰ segments,
//! growth in 2⁻³². As in Linux (net/ipv4/tcp_cubic.c), growth per acknowledgment is at least a hundredth of
//! NewReno's, and 5 % in a round trip while no loss has been met.

use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use super::{Acked, CONVERGED, Congestion, EPOCH, PROBING, ROUND};
use crate::time::Duration;

/// Nanoseconds of a unit of time, as a power of two.
const UNIT_BITS: u32 = 18;
/// The longest distance from K that is told apart: 275 s, where C·t³ is 2²³ segments. Its cube has 60 bits.
const DISTANCE_MAX: u64 = 1 << 20;
/// Units³ in which W_cubic grows by 2⁻¹⁰ segments: 1/(1024·C·(2¹⁸ ns)³) with C = 0.4 segments/s³ (RFC 9438 §5.1).
const CUBE_PER_1024TH: u64 = 135_525_272;
/// Units³ in which it grows by a segment.
const CUBE_PER_SEGMENT: u64 = 138_777_878_078;
/// β_cubic (RFC 9438 §4.6: "the parameter β_cubic SHOULD be set to 0.7"), in 1024ths.
const BETA: u64 = 717;
/// α_cubic = 3·(1 − β)/(1 + β) (RFC 9438 §4.3, figure 4), in 2⁻³².
const ALPHA: u64 = ((3 * (1024 - BETA)) << 32) / (1024 + BETA);
/// α_cubic once W_est has reached the window of the last loss (RFC 9438 §4.3).
const ALPHA_BEYOND: u64 = 1 << 32;
/// One segment in the fixed point of growth.
const ONE: u64 = 1 << 32;

/// The time since the last reduction, in [`Congestion`]'s `phase`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Epoch {
    /// When it began, in units.
    start: u32,
    /// K, in units.
    k: u32,
    /// W_est, segments in 2⁻³², low word first.
    w_est: [u32; 2],
}

impl Epoch {
    fn w_est(self) -> u64 {
        u64::from(self.w_est[0]) | u64::from(self.w_est[1]) << 32
    }
}

const fn units(nanoseconds: u64) -> u32 {
    (nanoseconds >> UNIT_BITS) as u32
}

/// ∛x, rounded down.
fn cube_root(x: u64) -> u64 {
    // Digit by digit in base 2; 2⁶⁴ has a root below 2²².
    (0..22).rev().fold(0u64, |root, bit| {
        let next = root | 1 << bit;
        match next.checked_pow(3) {
            Some(cube) if cube <= x => next,
            _ => root,
        }
    })
}

/// K, in units: the time from the beginning of the epoch to W_max (RFC 9438 §4.2, figure 2).
fn k(w_max: u32, cwnd_epoch: u32) -> u32 {
    let segments = u64::from(w_max.saturating_sub(cwnd_epoch).min(super::CWND_MAX));
    cube_root(segments * CUBE_PER_SEGMENT) as u32
}

/// W_cubic, in 2⁻¹⁰ segments (RFC 9438 §4.2, figure 1), `t` units after the epoch began.
fn w_cubic(t: u64, k: u32, w_max: u32) -> u64 {
    let distance = t.abs_diff(u64::from(k)).min(DISTANCE_MAX);
    let delta = distance.pow(3) / CUBE_PER_1024TH;
    let origin = u64::from(w_max) << 10;
    if t < u64::from(k) { origin.saturating_sub(delta) } else { origin + delta }
}

impl Congestion {
    /// Growth of the window for so many segments in congestion avoidance, in 2⁻³².
    #[inline]
    pub(super) fn cubic(&mut self, acked: &Acked, segments: u32) -> u64 {
        let cwnd = self.cwnd();
        let mut epoch: Epoch = if self.has(EPOCH) { transmute!(self.phase) } else { self.begin_epoch(acked) };
        let elapsed = units(acked.now.0).wrapping_sub(epoch.start);
        // RFC 9438 §4.2: the window that there should be one round trip from now, W_cubic(t + RTT).
        let t = u64::from(elapsed) + u64::from(units(acked.min_rtt.map_or(0, |rtt| rtt.0)));
        let target = w_cubic(t, epoch.k, self.w_max);
        // cwnd in 2⁻¹⁰, below 2³¹; what is divided by it has the same factor.
        let here = u64::from(cwnd) << 10 | u64::from(self.fraction >> 22);
        let per_cwnd = |growth: u64| growth.saturating_mul(1 << 10) / here;

        let mut growth = match target.checked_sub(here) {
            // RFC 9438 §4.4 and §4.5: "cwnd MUST be incremented by (target - cwnd) / cwnd for each received new ACK".
            // The bound keeps it within 64 bits; there is a tighter one below.
            Some(more) if more != 0 => (more.min(here) << 32) / here,
            _ => per_cwnd(ONE / 100),
        };
        if self.has(PROBING) {
            growth = growth.max(ONE / 20);
        }

        // RFC 9438 §4.3, figure 5: W_est += α_cubic · segments_acked / cwnd.
        let alpha = if epoch.w_est() < self.cwnd_prior() << 32 { ALPHA } else { ALPHA_BEYOND };
        let w_est = epoch.w_est().saturating_add(per_cwnd(alpha.saturating_mul(u64::from(segments))));
        epoch.w_est = [w_est as u32, (w_est >> 32) as u32];
        self.phase = transmute!(epoch);
        // Where NewReno would be faster, its window is reached within a round trip.
        let whole = u64::from(cwnd) << 32;
        let reno = w_est.saturating_sub(whole | u64::from(self.fraction)).min(whole);
        growth = growth.max(per_cwnd(reno));

        // RFC 9438 §4.2: the target is at most 1.5·cwnd.
        growth.min(ONE / 2).saturating_mul(u64::from(segments))
    }

    /// The first acknowledgment in congestion avoidance after a reduction or slow start.
    fn begin_epoch(&mut self, acked: &Acked) -> Epoch {
        let cwnd = self.cwnd();
        if self.w_max <= cwnd {
            // No loss yet, or the window is beyond where it was: the curve begins at its flat part (RFC 9438 §4.8).
            self.put(PROBING, self.w_max == 0);
            self.w_max = cwnd;
            self.put(CONVERGED, false);
        }
        self.put(EPOCH, true);
        self.put(ROUND, false);
        Epoch { start: units(acked.now.0), k: k(self.w_max, cwnd), w_est: [self.fraction, cwnd] }
    }

    /// cwnd_prior: the window at the last reduction, before fast convergence.
    fn cwnd_prior(&self) -> u64 {
        let w_max = u64::from(self.w_max);
        if self.has(CONVERGED) { w_max * 2048 / (1024 + BETA) } else { w_max }
    }

    /// RFC 9438 §4.6: ssthresh = cwnd · β_cubic, and §4.7, fast convergence: a flow whose window was cut before it
    /// reached W_max again gives room to others, W_max = cwnd · (1 + β_cubic)/2.
    pub(super) fn cubic_ssthresh(&mut self, cwnd: u32) -> u32 {
        let converges = cwnd < self.w_max;
        let w_max = if converges { u64::from(cwnd) * (1024 + BETA) / 2048 } else { u64::from(cwnd) };
        self.w_max = w_max as u32;
        self.put(CONVERGED, converges);
        self.put(EPOCH, false);
        self.put(PROBING, false);
        (u64::from(cwnd) * BETA / 1024) as u32
    }

    /// Nothing was sent for so long: the epoch begins that much later.
    pub(super) fn cubic_idle(&mut self, idle: Duration) {
        let mut epoch: Epoch = transmute!(self.phase);
        epoch.start = epoch.start.wrapping_add(units(idle.0));
        self.phase = transmute!(epoch);
    }
}

#[cfg(test)]
mod tests;
