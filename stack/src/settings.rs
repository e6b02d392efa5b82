//! What options have set, shared by all sockets that have set the same.
//!
//! Most sockets of a program have the same options, or those of their listener; so a socket has only a number of 16
//! bits, and its options cost nothing. Number 0 is what a new socket has. A change is made on a copy: [`intern`]
//! finds the record that has just these values, or takes a free one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::hash::Secret;
use crate::region::slab::{Record, Slab, Tag};
use crate::region::table::{Place, Table};

/// Bits of [`Values::options`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch;

coded! {
    /// What IP_MTU_DISCOVER and IPV6_MTU_DISCOVER say.
    pub enum Discovery: u8 else Want {
        /// IP_PMTUDISC_DONT: routers may fragment.
        Dont = 0,
        /// IP_PMTUDISC_WANT: they may not, unless the path is known to take less than we go down to.
        Want = 1,
        /// IP_PMTUDISC_DO: they may not.
        Do = 2,
        /// IP_PMTUDISC_PROBE.
        Probe = 3,
        /// IP_PMTUDISC_INTERFACE: what they say of the path isn't believed.
        Interface = 4,
        /// IP_PMTUDISC_OMIT: the same.
        Omit = 5,
    }
}

impl Switch {
    /// SO_REUSEADDR.
    pub const REUSE_ADDRESS: u32 = 1 << 0;
    /// SO_REUSEPORT.
    pub const REUSE_PORT: u32 = 1 << 1;
    /// IPV6_V6ONLY.
    pub const V6_ONLY: u32 = 1 << 2;
    /// SO_KEEPALIVE.
    pub const KEEP_ALIVE: u32 = 1 << 3;
    /// SO_OOBINLINE.
    pub const OOB_INLINE: u32 = 1 << 4;
    /// SO_BROADCAST.
    pub const BROADCAST: u32 = 1 << 5;
    /// SO_LINGER, for `linger_s`.
    pub const LINGER: u32 = 1 << 6;
    /// SO_DONTROUTE.
    pub const DONT_ROUTE: u32 = 1 << 7;
    /// SO_TIMESTAMP.
    pub const TIMESTAMP: u32 = 1 << 8;
    /// SO_TIMESTAMPNS.
    pub const TIMESTAMP_NS: u32 = 1 << 9;
    /// SO_SNDBUF was set: no tuning.
    pub const SEND_BUFFER_LOCKED: u32 = 1 << 10;
    /// SO_RCVBUF was set: no tuning.
    pub const RECEIVE_BUFFER_LOCKED: u32 = 1 << 11;
    /// IP_FREEBIND.
    pub const FREE_BIND: u32 = 1 << 12;
    /// IP_RECVERR.
    pub const ERRORS: u32 = 1 << 13;
    /// IPV6_RECVERR.
    pub const ERRORS_V6: u32 = 1 << 14;
    /// IP_PKTINFO.
    pub const PACKET_INFO: u32 = 1 << 15;
    /// IPV6_RECVPKTINFO.
    pub const PACKET_INFO_V6: u32 = 1 << 16;
    /// IP_RECVTTL.
    pub const TTL_TOLD: u32 = 1 << 17;
    /// IP_RECVTOS.
    pub const TOS_TOLD: u32 = 1 << 18;
    /// TCP_FASTOPEN_CONNECT.
    pub const FAST_OPEN_CONNECT: u32 = 1 << 19;
    /// TCP_FASTOPEN_NO_COOKIE.
    pub const FAST_OPEN_NO_COOKIE: u32 = 1 << 20;
    /// TCP_INQ.
    pub const QUEUE_TOLD: u32 = 1 << 21;
    /// UDP_GRO.
    pub const GRO: u32 = 1 << 22;
    /// SO_NO_CHECK.
    pub const NO_CHECKSUM: u32 = 1 << 23;
    /// IP_MULTICAST_LOOP was switched off.
    pub const NO_MULTICAST_LOOP: u32 = 1 << 24;
    /// SO_RXQ_OVFL.
    pub const DROPS_TOLD: u32 = 1 << 25;
    /// IP_BIND_ADDRESS_NO_PORT.
    pub const NO_PORT: u32 = 1 << 26;
    /// TCP_FASTOPEN_KEY: the first key.
    pub const FAST_OPEN_KEY: u32 = 1 << 27;
    /// The second one.
    pub const FAST_OPEN_BACKUP: u32 = 1 << 28;
    /// IPV6_RECVHOPLIMIT.
    pub const HOP_LIMIT_TOLD: u32 = 1 << 29;
    /// UDP_NO_CHECK6_RX.
    pub const NO_CHECKSUM_V6_IN: u32 = 1 << 30;
    /// IPV6_DONTFRAG.
    pub const DONT_FRAGMENT_V6: u32 = 1 << 31;

    // UDP's own have bits that only TCP's sockets have otherwise.
    /// UDP_NO_CHECK6_TX.
    pub const NO_CHECKSUM_V6: u32 = Self::FAST_OPEN_KEY;
    /// IPV6_MULTICAST_LOOP was switched off.
    pub const NO_MULTICAST_LOOP_V6: u32 = Self::FAST_OPEN_CONNECT;
    /// IP_MULTICAST_ALL is other than a new socket has it, which is on for those of IPv4 and off for those of IPv6.
    pub const OTHER_MULTICAST_ALL: u32 = Self::FAST_OPEN_NO_COOKIE;
    /// IPV6_MULTICAST_ALL was switched off.
    pub const NO_MULTICAST_ALL_V6: u32 = Self::FAST_OPEN_BACKUP;
    /// IPV6_RECVTCLASS.
    pub const CLASS_TOLD: u32 = Self::QUEUE_TOLD;
}

/// Bits of [`Values::timestamping`] (SOF_TIMESTAMPING_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamping;

impl Timestamping {
    /// RX_SOFTWARE: arrivals get a time.
    pub const ARRIVED: u32 = 1 << 3;
    /// SOFTWARE: times that software took are told.
    pub const SOFTWARE: u32 = 1 << 4;
    /// OPT_ID: what was sent is told with its number.
    pub const ID: u32 = 1 << 7;
    /// OPT_TSONLY: without its text.
    pub const TIME_ONLY: u32 = 1 << 11;
    /// OPT_STATS.
    pub const STATS: u32 = 1 << 12;
    /// BIND_PHC.
    pub const BIND_CLOCK: u32 = 1 << 15;
    /// OPT_ID_TCP: numbers begin with what is written, and not with what is acknowledged.
    pub const ID_TCP: u32 = 1 << 16;
    /// TX_SOFTWARE, TX_SCHED, TX_ACK and TX_COMPLETION.
    pub const SENT: u32 = 1 << 1 | 1 << 8 | 1 << 9 | 1 << 18;
    /// All that Linux has.
    pub const ALL: u32 = (1 << 19) - 1;
}

/// The values themselves; 0 is always what a new socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Values {
    /// SO_MAX_PACING_RATE, in bytes per second.
    pub max_pacing_rate: u64,
    /// SO_RCVTIMEO, in microseconds.
    pub receive_timeout_us: u64,
    /// SO_SNDTIMEO, in microseconds.
    pub send_timeout_us: u64,
    /// TCP_FASTOPEN_KEY: two keys of two words.
    pub fast_open_keys: [u64; 4],
    /// Bits of [`Switch`].
    pub options: u32,
    /// TCP_USER_TIMEOUT, in milliseconds (RFC 5482).
    pub user_timeout_ms: u32,
    /// SO_LINGER's time, in seconds.
    pub linger_s: u32,
    /// TCP_LINGER2, in seconds; negative aborts at once.
    pub linger2_s: i32,
    /// SO_RCVLOWAT, in bytes.
    pub receive_low_water: u32,
    /// TCP_NOTSENT_LOWAT, in bytes.
    pub unsent_low_water: u32,
    /// TCP_WINDOW_CLAMP, in bytes.
    pub window_clamp: u32,
    /// SO_SNDBUF, in bytes, if it was set.
    pub send_buffer: u32,
    /// SO_RCVBUF, in bytes, if it was set.
    pub receive_buffer: u32,
    /// SO_PRIORITY.
    pub priority: u32,
    /// SO_MARK.
    pub mark: u32,
    /// TCP_FASTOPEN: children of SYNs with data that may wait for the end of their handshake.
    pub fast_open_queue: u32,
    /// TCP_RTO_MAX_MS, in milliseconds.
    pub rto_max_ms: u32,
    /// SO_TIMESTAMPING: bits of [`Timestamping`].
    pub timestamping: u32,
    /// IPV6_MULTICAST_IF.
    pub multicast_interface: u32,
    /// TCP_KEEPIDLE, in seconds.
    pub keep_idle_s: u16,
    /// TCP_KEEPINTVL, in seconds.
    pub keep_interval_s: u16,
    /// TCP_MAXSEG.
    pub mss: u16,
    /// TCP_RTO_MIN_US, in milliseconds.
    pub rto_min_ms: u16,
    /// UDP_SEGMENT, in bytes.
    pub gso_size: u16,
    /// IPV6_MTU: bytes of the largest datagram or fragment of IPv6, whatever the path takes; 0 is what the path takes.
    pub mtu_max: u16,
    /// TCP_KEEPCNT.
    pub keep_count: u8,
    /// TCP_SYNCNT.
    pub syn_count: u8,
    /// TCP_DEFER_ACCEPT, in retransmissions.
    pub defer_accept: u8,
    /// IP_TTL.
    pub ttl: u8,
    /// IPV6_UNICAST_HOPS, in the form of [`Values::set_hop_limit`].
    pub hop_limit: u8,
    /// IP_TOS.
    pub tos: u8,
    /// IPV6_TCLASS.
    pub traffic_class: u8,
    /// IP_MULTICAST_TTL, in the form of [`Values::multicast_ttl`].
    pub multicast_ttl: u8,
    /// IP_MTU_DISCOVER, plus one.
    pub mtu_discover: u8,
    /// IPV6_MTU_DISCOVER, plus one.
    pub mtu_discover_v6: u8,
    /// TCP_CONGESTION, as a number.
    pub congestion: u8,
    /// TCP_SAVE_SYN.
    pub save_syn: u8,
    /// IPV6_MULTICAST_HOPS, as [`Values::multicast_ttl`] has it.
    pub multicast_hops: u8,
    /// SO_BUSY_POLL and others that change nothing here are kept by the shim; zero.
    pub reserved: [u8; 3],
}

/// What a new socket has.
static NEW: Values = zerocopy::transmute!([0u8; size_of::<Values>()]);

/// Hop limit, if the user sets none (net.ipv6.conf.default.hop_limit).
const HOP_LIMIT: u8 = 64;

impl Values {
    /// Whether a read tells when its text or datagram arrived (SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING).
    #[must_use]
    pub const fn tells_arrival(&self) -> bool {
        let both = Timestamping::ARRIVED | Timestamping::SOFTWARE;
        self.options & (Switch::TIMESTAMP | Switch::TIMESTAMP_NS) != 0 || self.timestamping & both == both
    }

    /// IP_MTU_DISCOVER, or IPV6_MTU_DISCOVER.
    #[must_use]
    pub const fn discovery(&self, is_v4: bool) -> Discovery {
        Discovery::decode(if is_v4 { self.mtu_discover } else { self.mtu_discover_v6 }.wrapping_sub(1))
    }

    /// IPV6_UNICAST_HOPS.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit ^ HOP_LIMIT
    }

    /// Sets it; what is negative is the default.
    pub fn set_hop_limit(&mut self, hops: i32) {
        self.hop_limit = u8::try_from(hops).unwrap_or(HOP_LIMIT) ^ HOP_LIMIT;
    }
}

/// Hops of multicast, if the user sets none: as far as the link goes.
const MULTICAST_HOPS: u8 = 1;

impl Values {
    /// IP_MULTICAST_TTL, or IPV6_MULTICAST_HOPS.
    #[must_use]
    pub const fn multicast_ttl(&self, is_v4: bool) -> u8 {
        MULTICAST_HOPS ^ if is_v4 { self.multicast_ttl } else { self.multicast_hops }
    }

    /// Sets it; what is negative is the default.
    pub fn set_multicast_ttl(&mut self, is_v4: bool, hops: i32) {
        let hops = u8::try_from(hops).unwrap_or(MULTICAST_HOPS) ^ MULTICAST_HOPS;
        if is_v4 { self.multicast_ttl = hops } else { self.multicast_hops = hops }
    }
}

/// A record of the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The values.
    pub values: Values,
    /// How many sockets have this number.
    pub users: u64,
}

impl Record for Settings {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// The records and the table that finds them by their values.
#[derive(Debug)]
pub struct Interner<'a> {
    /// Their slab.
    pub slab: &'a mut Slab,
    /// Their records.
    pub records: &'a mut [Settings],
    /// Their table.
    pub places: &'a mut [Place],
    /// What it hashes with.
    pub secret: Secret,
}

/// The hash of some values.
#[must_use]
pub fn hash(secret: &Secret, values: &Values) -> u32 {
    let bytes = values.as_bytes().chunks_exact(8);
    let mut words = [0; size_of::<Values>() / 8];
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    secret.words(&words)
}

/// The values of a number among these records, without a copy; those of a new socket if it is nobody's.
#[inline]
#[must_use]
pub fn of(records: &[Settings], number: u16) -> &Values {
    let record = usize::from(number).checked_sub(1).and_then(|index| records.get(index));
    record.map_or(&NEW, |record| &record.values)
}

impl Interner<'_> {
    /// The values of a number; those of a new socket if it is nobody's.
    #[must_use]
    pub fn of(&self, number: u16) -> Values {
        *of(self.records, number)
    }

    /// The number of these values, for one more socket; `None` when there are too many different ones.
    #[must_use]
    pub fn intern(&mut self, values: &Values) -> Option<u16> {
        if *values == Values::default() {
            return Some(0);
        }
        let hash = hash(&self.secret, values);
        let records = &*self.records;
        let same = |index: u32| records.get(index as usize).is_some_and(|record| record.values == *values);
        if let Some(index) = Table::new(self.places).find(hash, same) {
            let number = u16::try_from(index + 1).ok()?;
            self.share(number);
            return Some(number);
        }
        let handle = self.slab.take(self.records)?;
        let number = u16::try_from(handle.index + 1).ok();
        if number.is_none() || !Table::new(self.places).insert(hash, handle.index) {
            self.slab.give(self.records, handle);
            return None;
        }
        let record = self.records.get_mut(handle.index as usize)?;
        (record.values, record.users) = (*values, 1);
        number
    }

    /// One more socket has this number: the child of a listener.
    pub fn share(&mut self, number: u16) {
        let record = usize::from(number).checked_sub(1).and_then(|index| self.records.get_mut(index));
        if let Some(record) = record {
            record.users = record.users.saturating_add(1);
        }
    }

    /// Begins to count anew: nobody has any number.
    pub(crate) fn begin_recount(&mut self) {
        self.records.iter_mut().for_each(|record| record.users = 0);
    }

    /// Whether a socket may have this number; then it is counted.
    pub(crate) fn recount(&mut self, number: u16) -> bool {
        let record = usize::from(number).checked_sub(1).and_then(|index| self.records.get(index));
        let is_one = record.is_some_and(|record| record.tag.is_used());
        if is_one {
            self.share(number);
        }
        is_one
    }

    /// The numbers that nobody has are free.
    pub(crate) fn end_recount(&mut self) {
        self.slab.rebuild(self.records, |_, record| record.users > 0);
        Table::new(self.places).clear();
        for (index, record) in self.records.iter().enumerate().filter(|(_, record)| record.tag.is_used()) {
            let _ = Table::new(self.places).insert(hash(&self.secret, &record.values), index as u32);
        }
    }

    /// One socket less has this number.
    pub fn release(&mut self, number: u16) {
        let Some(index) = usize::from(number).checked_sub(1) else { return };
        let Some(record) = self.records.get_mut(index) else { return };
        record.users = record.users.saturating_sub(1);
        if record.users == 0 {
            let (hash, handle) = (hash(&self.secret, &record.values), record.tag.handle(index as u32));
            Table::new(self.places).remove(hash, index as u32);
            self.slab.give(self.records, handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Memory(Slab, Vec<Settings>, Vec<Place>);

    impl Memory {
        fn new(count: usize) -> Self {
            let places = vec![Place::default(); Table::places_for(count as u32)];
            Self(Slab::default(), vec![Settings::default(); count], places)
        }

        fn interner(&mut self) -> Interner<'_> {
            let Self(slab, records, places) = self;
            Interner { slab, records, places, secret: Secret([1, 2]) }
        }
    }

    fn values(which: u8) -> Values {
        Values { options: u32::from(which & 3), mss: u16::from(which >> 2), ..Values::default() }
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn sockets_have_what_they_have_set(acts in proptest::collection::vec((any::<bool>(), 0u8..12, any::<u16>()), 0..200)) {
            let mut memory = Memory::new(6);
            let mut sockets: Vec<(u16, Values)> = Vec::new();
            for (sets, which, at) in acts {
                let mut interner = memory.interner();
                if sets {
                    let number = interner.intern(&values(which));
                    let others = sockets.iter().filter(|socket| socket.0 != 0).map(|socket| socket.0);
                    let different = others.collect::<std::collections::BTreeSet<_>>().len();
                    match number {
                        Some(number) => sockets.push((number, values(which))),
                        None => prop_assert_eq!(different, 6),
                    }
                } else if !sockets.is_empty() {
                    let (number, _) = sockets.swap_remove(at as usize % sockets.len());
                    interner.release(number);
                }
                for (number, values) in &sockets {
                    prop_assert_eq!(interner.of(*number), *values);
                    prop_assert!(sockets.iter().all(|other| (other.1 == *values) == (other.0 == *number)));
                }
            }
            for (number, _) in sockets {
                memory.interner().release(number);
            }
            prop_assert_eq!(memory.0.used(), 0);
            prop_assert!(memory.2.iter().all(|place| *place == Place::default()));
        }

        #[test]
        fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 1600), which in any::<u16>()) {
            let mut memory = Memory::new(4);
            let (slab, rest) = bytes.split_at(size_of::<Slab>());
            memory.0 = Slab::read_from_bytes(slab).expect("a slab");
            let (records, rest) = rest.split_at(4 * size_of::<Settings>());
            memory.1.as_mut_slice().as_mut_bytes().copy_from_slice(records);
            let length = memory.2.len() * 8;
            memory.2.as_mut_slice().as_mut_bytes().copy_from_slice(&rest[..length]);
            let mut interner = memory.interner();
            for number in [which, which % 6, 1] {
                let _ = interner.of(number);
                let _ = interner.intern(&values(number as u8));
                interner.release(number);
            }
        }
    }
}
