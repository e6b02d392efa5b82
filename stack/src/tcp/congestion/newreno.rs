//! NewReno (RFC 5681, RFC 6582).

use super::Congestion;

/// RFC 5681 §3.1, equation 4: "ssthresh = max (FlightSize / 2, 2*SMSS)". cwnd stands for FlightSize, because a window
/// that isn't used does not grow (tcp_reno_ssthresh).
pub(super) const fn ssthresh(cwnd: u32) -> u32 {
    cwnd / 2
}

impl Congestion {
    /// RFC 5681 §3.1, equation 3: "cwnd += SMSS*SMSS/cwnd" for each segment: one segment in a round trip.
    #[inline]
    pub(super) fn newreno(&self, segments: u32) -> u64 {
        (u64::from(segments) << 32) / u64::from(self.cwnd())
    }
}
