//! Counters: one row each, with its name and meaning; storage in the shared part.
//!
//! Only the holder of the stack's lock counts, so an addition is a load and a store; anybody may read. A counter
//! that a limit or an attack moves is how tests see that memory and work stay bounded.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::wire::Malformed;

macro_rules! counters {
    ($($name:ident $word:literal $doc:literal;)+) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $(#[doc = $doc] $name,)+ }

        /// Name and meaning of each counter, in the order of [`Counter`].
        pub const COUNTERS: &[(&str, &str)] = &[$(($word, $doc)),+];
    };
}

counters! {
    // IP
    PacketsIn "ip_packets_in" "Packets of IPv4 and IPv6 that the device gave us.";
    PacketsOut "ip_packets_out" "Packets of IPv4 and IPv6 that were given to the device.";
    NotOurs "ip_not_ours" "Packets for an address that is not one of ours.";
    Martians "ip_martians" "Packets from an address that no host may send from (RFC 1122 §3.2.1.3).";
    UnknownProtocol "ip_unknown_protocol" "Packets of a protocol that the stack does not speak.";
    NoRoute "ip_no_route" "Packets that were not sent because no route leads there.";
    FragmentsIn "ip_fragments_in" "Fragments received.";
    Reassembled "ip_reassembled" "Datagrams put together again.";
    ReassemblyDropped "ip_reassembly_dropped" "Fragments dropped: overlaps, the limit, or the rest came too late.";
    FragmentsOut "ip_fragments_out" "Fragments sent.";
    NeighbourPending "neighbour_pending" "Packets that waited for a neighbour's link address.";
    NeighbourFailed "neighbour_failed" "Packets dropped because a neighbour did not answer.";
    // ICMP
    IcmpIn "icmp_in" "Messages of ICMP and ICMPv6 received.";
    IcmpOut "icmp_out" "Messages of ICMP and ICMPv6 sent.";
    IcmpLimited "icmp_limited" "Messages that were not sent because of their rate (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).";
    IcmpDoubtful "icmp_doubtful" "Errors dropped because the packet they quote is not in flight (RFC 5927 §4).";
    PathMtuLowered "path_mtu_lowered" "Times that a path's MTU was lowered, by a message (RFC 1191, RFC 8201) or because large segments vanish.";
    PathMtuProbed "path_mtu_probed" "Probes of a path's MTU (RFC 4821, RFC 8899).";
    PathMtuRaised "path_mtu_raised" "Probes of a path's MTU that arrived.";
    // TCP: connections
    ActiveOpens "tcp_active_opens" "Calls of connect that sent a SYN.";
    PassiveOpens "tcp_passive_opens" "Connections that listeners established.";
    AttemptsFailed "tcp_attempts_failed" "Handshakes that ended in a reset or a timeout.";
    EstablishedResets "tcp_established_resets" "Established connections that ended in a reset.";
    SynQueueFull "tcp_syn_queue_full" "SYNs that found their listener's queue, or the limit of entries, full.";
    SynCookiesSent "tcp_syn_cookies_sent" "SYNs answered with a cookie (RFC 4987 §3.6).";
    SynCookiesGood "tcp_syn_cookies_good" "Cookies that came back right.";
    SynCookiesBad "tcp_syn_cookies_bad" "Acknowledgements without a connection that were no cookie of ours.";
    AcceptQueueFull "tcp_accept_queue_full" "Handshakes held back because the accept queue was full.";
    FastOpenIn "tcp_fast_open_in" "SYNs whose data was taken (RFC 7413).";
    FastOpenOut "tcp_fast_open_out" "SYNs sent with data (RFC 7413).";
    FastOpenUnanswered "tcp_fast_open_unanswered" "SYNs with data of which only the SYN was acknowledged.";
    FastOpenCookiesIn "tcp_fast_open_cookies_in" "Cookies of fast open that clients asked for.";
    FastOpenCookiesBad "tcp_fast_open_cookies_bad" "Cookies of fast open that were none of ours.";
    FastOpenFull "tcp_fast_open_full" "SYNs whose data was left because too many such handshakes were going on.";
    FastOpenBlackHoles "tcp_fast_open_black_holes" "Times that fast open was left alone because SYNs with data seemed to be swallowed.";
    TimeWaits "tcp_time_waits" "Connections that entered TIME-WAIT.";
    TimeWaitsReused "tcp_time_waits_reused" "TIME-WAITs that a new connection took over (RFC 6191).";
    TimeWaitsKilled "tcp_time_waits_killed" "TIME-WAITs that ended early because their number is limited.";
    OrphansAborted "tcp_orphans_aborted" "Closed sockets reset early: out of memory, or data came after close.";
    // TCP: segments
    SegmentsIn "tcp_segments_in" "Segments received.";
    SegmentsOut "tcp_segments_out" "Segments sent, without retransmissions.";
    SegmentsRetransmitted "tcp_segments_retransmitted" "Segments sent again.";
    ResetsOut "tcp_resets_out" "Resets sent.";
    NoConnection "tcp_no_connection" "Segments for which there is no connection and no listener.";
    HandedOver "tcp_handed_over" "Segments dropped because the kernel has their connection by now, or is about to have it.";
    HeaderPredicted "tcp_header_predicted" "Segments that took the fast path.";
    Signed "tcp_signed" "Signed segments (RFC 2385, RFC 5925): dropped, for nobody here has a key.";
    Unacceptable "tcp_unacceptable" "Segments outside of the window (RFC 9293 §3.10.7.4, first).";
    PawsDropped "tcp_paws_dropped" "Segments with a timestamp of the past (RFC 7323 §5).";
    ChallengeAcks "tcp_challenge_acks" "Challenge acknowledgements sent (RFC 5961).";
    ChallengesLimited "tcp_challenges_limited" "Challenge acknowledgements not sent because of their rate (RFC 5961 §10).";
    AcksOfNothing "tcp_acks_of_nothing" "Acknowledgements of what was never sent, or of long ago (RFC 5961 §5).";
    OutOfOrder "tcp_out_of_order" "Segments kept until the gap before them is filled.";
    OutOfOrderDropped "tcp_out_of_order_dropped" "Segments behind a gap dropped: the socket's or the stack's limit.";
    Duplicates "tcp_duplicates" "Segments whose whole text had arrived before.";
    DelayedAcks "tcp_delayed_acks" "Acknowledgements sent by their timer (RFC 1122 §4.2.3.2).";
    // TCP: loss
    FastRecoveries "tcp_fast_recoveries" "Recoveries entered without a timeout (RFC 5681 §3.2, RFC 8985 §6).";
    TailLossProbes "tcp_tail_loss_probes" "Probes for a lost tail (RFC 8985 §7).";
    Timeouts "tcp_timeouts" "Retransmission timers that fired (RFC 6298 §5).";
    SpuriousRecoveries "tcp_spurious_recoveries" "Recoveries undone: nothing had been lost (RFC 5682, RFC 2883).";
    SackReneged "tcp_sack_reneged" "Receivers that dropped what they had acknowledged selectively (RFC 2018 §8).";
    WindowProbes "tcp_window_probes" "Probes of a closed window (RFC 9293 §3.8.6.1).";
    KeepaliveProbes "tcp_keepalive_probes" "Keep-alive probes (RFC 9293 §3.8.4).";
    TimedOut "tcp_timed_out" "Connections given up because nothing was acknowledged.";
    CongestionMarks "tcp_congestion_marks" "Segments that arrived with congestion experienced (RFC 3168).";
    // UDP
    DatagramsIn "udp_datagrams_in" "Datagrams that sockets got.";
    DatagramsOut "udp_datagrams_out" "Datagrams sent.";
    NoSocket "udp_no_socket" "Datagrams for a port that nobody has.";
    ReceiveFull "udp_receive_full" "Datagrams dropped because the socket's receive buffer was full.";
    // Memory
    SocketsFull "sockets_full" "Sockets refused because the region's limit is reached.";
    FramesShort "frames_short" "Times that no frame was left beyond the reserves.";
    PressureEntered "pressure_entered" "Times that memory became scarce and windows were held.";
    // The region itself
    Corrupt "corrupt" "Times that a record, a list or a table was found broken and the work on it given up.";
    Recovered "recovered" "Times that the lock was taken over from a process that died holding it.";
    RecoveryLost "recovery_lost" "Connections that were lost with such a process, as it was changing them.";
}

/// How many words of the shared part: a counter each, then one for each rule that a packet may break.
pub const WORDS: usize = COUNTERS.len() + Malformed::ALL.len();

/// The counters of one stack.
#[derive(Clone, Copy, Debug)]
pub struct Stats<'a>(&'a [AtomicU64]);

impl<'a> Stats<'a> {
    /// The counters in these [`WORDS`] words. What has no word is not counted.
    #[must_use]
    pub const fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    fn bump(self, index: usize, by: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    /// Counts `by` more. Only under the stack's lock.
    #[inline]
    pub fn add(self, counter: Counter, by: u64) {
        self.bump(counter as usize, by);
    }

    /// Counts a packet that broke a rule of its format. Only under the stack's lock.
    #[inline]
    pub fn malformed(self, rule: Malformed) {
        self.bump(COUNTERS.len() + rule as usize, 1);
    }

    /// A counter's value.
    #[must_use]
    pub fn of(self, counter: Counter) -> u64 {
        self.0.get(counter as usize).map_or(0, |word| word.load(Relaxed))
    }

    /// The names of the counters that are not 0.
    pub fn moved(self) -> impl Iterator<Item = &'static str> + 'a {
        let rows = COUNTERS.iter().zip(self.0);
        rows.filter(|(_, word)| word.load(Relaxed) != 0).map(|(row, _)| row.0)
    }

    /// How many packets broke this rule.
    #[must_use]
    pub fn of_malformed(self, rule: Malformed) -> u64 {
        self.0.get(COUNTERS.len() + rule as usize).map_or(0, |word| word.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_counter_has_a_word_of_its_own() {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let stats = Stats::new(&words);
        stats.add(Counter::PacketsIn, 2);
        stats.add(Counter::Recovered, 3);
        for rule in Malformed::ALL {
            stats.malformed(rule);
        }
        assert_eq!((stats.of(Counter::PacketsIn), stats.of(Counter::Recovered)), (2, 3));
        assert_eq!(Counter::RecoveryLost as usize, COUNTERS.len() - 1);
        assert!(Malformed::ALL.iter().all(|rule| stats.of_malformed(*rule) == 1));
        let sum: u64 = words.iter().map(|word| word.load(Relaxed)).sum();
        assert_eq!(sum, 5 + Malformed::ALL.len() as u64);
    }

    #[test]
    fn names_are_plain_and_single() {
        let names: BTreeSet<&str> = COUNTERS.iter().map(|row| row.0).collect();
        assert_eq!(names.len(), COUNTERS.len());
        for (name, doc) in COUNTERS {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(doc.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn too_few_words_count_nothing() {
        Stats::new(&[]).add(Counter::Corrupt, 1);
        assert_eq!(Stats::new(&[]).of(Counter::Corrupt), 0);
    }
}
