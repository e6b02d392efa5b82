//! How many errors we send: to one host, and to all of them together.
//!
//! RFC 1812 §4.3.2.8 and RFC 4443 §2.4 (f): "in order to limit the bandwidth and forwarding costs incurred by originating
//! ICMPv6 error messages, an IPv6 node MUST limit the rate of ICMPv6 error messages it originates."
//!
//! Both buckets and their numbers are Linux's (icmpv4_xrlim_allow, inet_peer_xrlim_allow, icmp_global_allow). Echo
//! replies and "packet too big" pass unlimited, as with Linux's default of net.ipv4.icmp_ratemask.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::{Duration, Instant};

/// Between two errors to one host in the long run (net.ipv4.icmp_ratelimit, net.ipv6.icmp.ratelimit).
const INTERVAL: Duration = Duration::from_secs(1);
/// Errors to one host that may follow each other without a pause (XRLIM_BURST_FACTOR).
const BURST: u64 = 6;

/// Errors in a second, to whomever (net.ipv4.icmp_msgs_per_sec).
const PER_SECOND: u64 = 1000;
/// Errors without a pause, to whomever (net.ipv4.icmp_msgs_burst).
const GLOBAL_BURST: u64 = 50;
/// What a counter has to wait for: a fiftieth of a second.
const REFILL: Duration = Duration::from_millis(20);

/// One host's bucket. Zero bytes are a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// When it would have been empty, if it had been filled evenly since, plus one nanosecond; 0 is never used.
    empty_at: u64,
}

impl Bucket {
    /// Takes one error; false if there is none left.
    fn take(&mut self, now: Instant) -> bool {
        let full = now.0.saturating_sub(BURST * INTERVAL.0);
        // What never was used is full; a moment in the future, from nonsense, is taken for the present.
        let empty_at = self.empty_at.checked_sub(1).map_or(full, |empty_at| empty_at.clamp(full, now.0));
        let takes = self.empty_at == 0 || now.0 - empty_at >= INTERVAL.0;
        let empty_at = if takes { (empty_at + INTERVAL.0).min(now.0) } else { empty_at };
        self.empty_at = empty_at.saturating_add(1);
        takes
    }
}

/// The limit of all. Zero bytes are an empty bucket of long ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Global {
    /// When it was filled last.
    filled_at: u64,
    /// Errors that are in it.
    credit: u64,
}

impl Global {
    /// Takes one error, or up to two more by `random`: who counts what comes through would otherwise learn which of the
    /// ports that he tried in somebody else's name are open (CVE-2020-25705; icmp_global_allow has the same).
    fn take(&mut self, now: Instant, random: u32) -> bool {
        let since = Duration((now - Instant(self.filled_at)).0.min(1_000_000_000));
        let mut credit = self.credit.min(GLOBAL_BURST);
        if since >= REFILL {
            credit = (credit + PER_SECOND * since.0 / 1_000_000_000).min(GLOBAL_BURST);
            self.filled_at = now.0;
        } else if self.filled_at > now.0 {
            self.filled_at = now.0;
        }
        self.credit = credit.saturating_sub(1 + u64::from(random % 3));
        credit > 0
    }
}

/// The limits over borrowed buckets. Hosts whose hashes meet share one: the memory is bounded whatever addresses an
/// attacker makes up, and the hash is keyed, so that nobody else's bucket can be emptied by choice.
#[derive(Debug)]
pub struct Limits<'a> {
    /// Of all hosts together.
    pub global: &'a mut Global,
    /// Of each.
    pub buckets: &'a mut [Bucket],
}

impl Limits<'_> {
    /// Whether an error may be sent now to the host with this hash; then it is. With no buckets none may.
    pub fn allows(&mut self, host: u32, now: Instant, random: u32) -> bool {
        let count = self.buckets.len() as u64;
        if count == 0 {
            return false;
        }
        // As Linux, the common bucket is asked first, and pays for those that the host's then refuses.
        self.global.take(now, random)
            && self.buckets.get_mut((u64::from(host) % count) as usize).is_some_and(|bucket| bucket.take(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant(1_000_000_000_000);

    fn at(ms: u64) -> Instant {
        START + Duration::from_millis(ms)
    }

    #[test]
    fn a_host_gets_six_errors_at_once_and_then_one_each_second() {
        let mut bucket = Bucket::default();
        assert_eq!((0..10).filter(|_| bucket.take(at(0))).count(), 6);
        assert!(!bucket.take(at(999)));
        assert!(bucket.take(at(1000)) && !bucket.take(at(1001)));
        assert_eq!((0..10).filter(|_| bucket.take(at(60_000))).count(), 6, "and six again after a rest");
    }

    #[test]
    fn all_hosts_together_get_fifty_at_once_and_a_thousand_each_second() {
        let mut global = Global::default();
        assert_eq!((0..100).filter(|_| global.take(at(0), 0)).count(), 50);
        let sent = (1..=10_000u64)
            .filter(|tenth| global.take(START + Duration::from_micros(tenth * 100), 0))
            .count();
        assert!((980..=1000).contains(&sent), "{sent} in a second");
    }

    #[test]
    fn how_many_pass_can_not_be_counted() {
        let count = |random| {
            let mut global = Global::default();
            (0..100).filter(|_| global.take(at(0), random)).count()
        };
        assert_eq!([count(0), count(1), count(2)], [50, 25, 17]);
    }

    #[test]
    fn one_host_does_not_use_up_anothers() {
        let (mut global, mut buckets) = (Global::default(), [Bucket::default(); 8]);
        let mut limits = Limits { global: &mut global, buckets: &mut buckets };
        let first = (0..20).filter(|_| limits.allows(3, at(0), 0)).count();
        assert_eq!((first, limits.allows(4, at(0), 0)), (6, true));
        assert!(!Limits { global: &mut Global::default(), buckets: &mut [] }.allows(0, at(0), 0));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        /// Against counting by hand: in no stretch of time more than the burst and what came in since.
        #[test]
        fn no_stretch_of_time_has_more_than_the_bucket(gaps in proptest::collection::vec(0u64..3000, 1..100)) {
            let (mut bucket, mut now, mut sent) = (Bucket::default(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if bucket.take(at(now)) {
                    sent.push(now);
                }
            }
            for (from, first) in sent.iter().enumerate() {
                for (to, last) in sent.iter().enumerate().skip(from) {
                    prop_assert!(((to - from) as u64) < BURST + (last - first) / 1000);
                }
            }
        }

        #[test]
        fn nonsense_recovers(empty_at: u64, filled_at: u64, credit: u64, random: u32, now in 0u64..1 << 62) {
            let mut bucket = Bucket { empty_at };
            let mut global = Global { filled_at, credit };
            let _ = (bucket.take(Instant(now)), global.take(Instant(now), random));
            let later = Instant(now) + Duration::from_secs(10);
            prop_assert!(bucket.take(later) && global.take(later, random));
        }
    }
}
