//! Who is on the link, and whether they are still there: the cache of ARP (RFC 826) and of neighbor discovery (RFC 4861
//! §7.2, §7.3), with the latest packet for each neighbour that waits for its link address. What packets of [`arp`] and [`ndisc`]
//! claim comes to [`Cache::hear`], what the owner of the stack knows (netlink's neighbours) to [`Cache::set`].
//!
//! "Solicit" in an answer means to whoever resolves for us: a packet on a link of our own, a request to the kernel where
//! that has the link.
//!
//! # Who may change an entry
//!
//! On a link anybody may claim anything. A link address that is known is replaced only by an answer to a question of
//! ours, or by the owner. A claim that nobody asked for and that differs (gratuitous ARP, an unsolicited advertisement, a
//! question from another link address) is not believed: it makes us ask whom we know, at once. If that one is gone,
//! as after a failover, the entry fails within three seconds and the next packet asks everybody. A departure from
//! RFC 4861 §7.2.5 and RFC 826, which take what the last one says. Redirects are not read at all.
//!
//! A question from a stranger makes an entry only where one is free or of no use: who floods us with questions
//! displaces nobody whom we talk to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;
use crate::region::slab::{self, Handle, Record, Slab, Tag};
use crate::region::table::{Place, Table};
use crate::region::wheel::{Entry, Timed, Wheel};
use crate::time::{Duration, Instant};
use crate::wire::ethernet::Address;
use crate::wire::ip::Ip;

pub mod arp;
mod fed;
pub mod ndisc;

#[cfg(test)]
mod tests;

/// Records that are looked at for one to give way.
const SCAN: usize = 64;
/// A confirmation is good for so long whatever ReachableTime is drawn: MIN_RANDOM_FACTOR times 30 s.
const FRESH: Duration = Duration::from_secs(15);
/// A claim sooner than this after the last change or confirmation is ignored (net.ipv4.neigh.*.locktime).
const LOCK: Duration = Duration::from_secs(1);

coded! {
    /// RFC 4861 §7.3.2.
    pub enum State: u8 else Failed {
        /// "Address resolution is being performed on the entry."
        Incomplete = 0,
        /// "Positive confirmation was received within the last ReachableTime milliseconds".
        Reachable = 1,
        /// "More than ReachableTime milliseconds have elapsed […] no action takes place until a packet is sent."
        Stale = 2,
        /// "a packet was sent within the last DELAY_FIRST_PROBE_TIME seconds": somebody may yet confirm.
        Delay = 3,
        /// "A reachability confirmation is actively sought by retransmitting Neighbor Solicitations".
        Probe = 4,
        /// It did not answer (Linux's NUD_FAILED): RFC 4861's deleted entry, with its record kept.
        Failed = 5,
        /// The owner says so and nobody else (NUD_PERMANENT, NUD_NOARP).
        Permanent = 6,
    }
}

impl State {
    /// Whether packets are sent to its link address.
    const fn has_link(self) -> bool {
        !matches!(self, Self::Incomplete | Self::Failed)
    }
}

/// RFC 4861 §10's constants, which are Linux's defaults of net.ipv4.neigh and net.ipv6.neigh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// ReachableTime: drawn by [`reachable_time`], anew every few hours.
    pub reachable: Duration,
    /// RetransTimer.
    pub retrans: Duration,
    /// DELAY_FIRST_PROBE_TIME.
    pub delay: Duration,
    /// MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT.
    pub solicitations: u8,
    /// Somebody else (the kernel) sees to it that neighbours are there: what he says is used as it is, and never probed.
    pub is_fed: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reachable: Duration::from_secs(30),
            retrans: Duration::from_secs(1),
            delay: Duration::from_secs(5),
            solicitations: 3,
            is_fed: false,
        }
    }
}

/// RFC 4861 §6.3.2: ReachableTime "should be a uniformly distributed random value between MIN_RANDOM_FACTOR and
/// MAX_RANDOM_FACTOR times BaseReachableTime milliseconds": a half and one and a half of it.
#[must_use]
pub fn reachable_time(base: Duration, random: u32) -> Duration {
    let spread = (u128::from(base.0) * u128::from(random)) >> 32;
    Duration((base.0 / 2).saturating_add(spread as u64))
}

/// A neighbour. Zero bytes are a record that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Neighbour {
    tag: Tag,
    ip: Ip,
    /// When it was confirmed last, or its link address changed, in nanoseconds.
    confirmed: u64,
    /// When something is to be done, in nanoseconds; the entry in the wheel may be earlier.
    due: u64,
    entry: Entry,
    /// Of its address, under the region's secret.
    hash: u32,
    /// The frame of the packet that waits for its link address, plus one.
    pending: u32,
    link: Address,
    /// A [`State`].
    state: u8,
    /// Solicitations that it didn't answer. Where somebody else feeds the cache, and has said that it is stale: not 0 if something was
    /// sent to it since.
    probes: u8,
    /// Not 0: it is a router (RFC 4861 §4.4).
    is_router: u8,
    /// Not 0: we have sent to it.
    is_ours: u8,
    padding: [u8; 2],
}

impl Record for Neighbour {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Timed for Neighbour {
    fn entry(&mut self) -> &mut Entry {
        &mut self.entry
    }
}

impl Neighbour {
    /// Its address.
    #[must_use]
    pub const fn ip(&self) -> Ip {
        self.ip
    }

    /// Whether the record is one.
    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.tag.is_used()
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        State::decode(self.state)
    }

    /// Its link address, if packets are sent to it.
    #[must_use]
    pub fn link(&self) -> Option<Address> {
        self.state().has_link().then_some(self.link)
    }

    /// Its link address, if it is known to be there: then nothing further is to be done for a packet to it.
    #[inline]
    #[must_use]
    pub fn fresh_link(&self, now: Instant) -> Option<Address> {
        let is_fresh = self.state == State::Permanent as u8
            || self.state == State::Reachable as u8 && now.0.wrapping_sub(self.confirmed) < FRESH.0;
        is_fresh.then_some(self.link)
    }

    /// Whether it is a router.
    #[must_use]
    pub const fn is_router(&self) -> bool {
        self.is_router != 0
    }

    fn pending(&mut self) -> Option<u32> {
        core::mem::take(&mut self.pending).checked_sub(1)
    }

    fn confirm(&mut self, now: Instant) {
        // Whoever feeds the cache is to hear of it all the same: he doesn't know.
        let probes = if self.is_unconfirmed() { self.probes } else { 0 };
        (self.state, self.confirmed, self.probes) = (State::Reachable as u8, now.0, probes);
    }

    /// What gives way first; `None` never does.
    fn rank(&self) -> Option<u8> {
        match (self.state(), self.is_ours != 0) {
            _ if !self.tag.is_used() => None,
            (State::Failed, _) => Some(0),
            (State::Stale, false) => Some(1),
            (State::Stale, true) => Some(2),
            (State::Reachable | State::Delay | State::Probe, _) => Some(3),
            (State::Incomplete | State::Permanent, _) => None,
        }
    }
}

/// State beside the records. Zero bytes are that of an empty cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Neighbours {
    slab: Slab,
    /// Where the next look for a record that gives way begins.
    hand: u32,
    /// Of the records that we had sent to, how many are another neighbour's now.
    removed: u32,
    /// How often somebody was to be asked for.
    asks: u32,
}

impl Neighbours {
    /// Another one each time that a record that somebody may have kept the index of has gone.
    #[inline]
    #[must_use]
    pub const fn removed(&self) -> u32 {
        self.removed
    }

    /// Another one each time that a neighbour is to be asked for, or after: who asks looks when it has changed.
    #[must_use]
    pub const fn asks(&self) -> u32 {
        self.asks
    }

    /// How many neighbours there are.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.slab.used()
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// There. The handle is for [`Cache::resolve_known`] and [`Cache::confirm`].
    Link(Address, Handle),
    /// It waits.
    Waits {
        /// The frame of the packet that waited before it, which is the caller's: to be dropped, or to wait behind this one
        /// in a list of his. RFC 4861 §7.2.2: "When a queue overflows, the new arrival SHOULD replace the oldest entry."
        /// RFC 1122 §2.3.2.2 saves "at least one (the latest) packet".
        before: Option<u32>,
        /// Everybody is to be asked now.
        solicit: bool,
    },
    /// There is no record for it: the packet's frame is the caller's still.
    Full,
}

/// What a claim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The claimant asks for one of our addresses, and tells its own.
    Question,
    /// An answer or an announcement.
    Answer {
        /// It is to a question of ours, as far as its form goes.
        solicited: bool,
        /// It takes the place of another link address (RFC 4861 §4.4; always in ARP).
        overrides: bool,
        /// Whether it is a router, if it says.
        router: Option<bool>,
    },
}

/// What a packet says of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The neighbour.
    pub ip: Ip,
    /// Its link address, if it is told.
    pub link: Option<Address>,
    /// How.
    pub kind: Kind,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing to do.
    Nothing,
    /// The packet in this frame goes to this link address.
    Ready(u32, Address),
    /// The neighbour is to be asked at the link address that is known: somebody claims another.
    Verify(Ip, Address),
}

/// What a timer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask for it: at its link address, or everybody.
    Solicit(Ip, Option<Address>),
    /// It doesn't answer; the packet in this frame, if any, is dropped. RFC 4861 §7.2.2: "the sender MUST return ICMP
    /// destination unreachable indications with code 3 (Address Unreachable) for each packet queued": to the socket, as
    /// EHOSTUNREACH.
    Failed(Ip, Option<u32>),
}

/// The cache over borrowed records.
#[derive(Debug)]
pub struct Cache<'a> {
    state: &'a mut Neighbours,
    records: &'a mut [Neighbour],
    places: &'a mut [Place],
    wheel: &'a mut Wheel,
    settings: Settings,
}

impl<'a> Cache<'a> {
    /// Over these records; `places` are [`Table::places_for`] them.
    #[must_use]
    pub fn new(
        state: &'a mut Neighbours,
        records: &'a mut [Neighbour],
        places: &'a mut [Place],
        wheel: &'a mut Wheel,
        settings: Settings,
    ) -> Self {
        Self { state, records, places, wheel, settings }
    }

    /// Where a packet in this frame goes, by its next hop's address and that address's hash.
    pub fn resolve(&mut self, ip: &Ip, hash: u32, frame: u32, now: Instant) -> Resolution {
        let Some(index) = self.index(ip, hash).or_else(|| self.create(ip, hash, 3)) else {
            return Resolution::Full;
        };
        let handle = Handle { index, generation: self.records[index as usize].tag.generation };
        if let Some(link) = self.send_to(index, now) {
            return Resolution::Link(link, handle);
        }
        let record = &mut self.records[index as usize];
        let solicit = record.state() != State::Incomplete || record.probes == 0;
        self.state.asks = self.state.asks.wrapping_add(solicit.into());
        record.is_ours = 1;
        let before = record.pending();
        record.pending = frame.wrapping_add(1);
        if solicit {
            (record.state, record.probes) = (State::Incomplete as u8, 1);
            self.arm(index, now + self.settings.retrans);
        }
        Resolution::Waits { before, solicit }
    }

    /// The same with what an earlier [`Resolution::Link`] gave: no search. `None` says to [`Cache::resolve`].
    #[inline]
    pub fn resolve_known(&mut self, handle: Handle, ip: &Ip, now: Instant) -> Option<Address> {
        if slab::find(self.records, handle)?.ip != *ip {
            return None;
        }
        self.send_to(handle.index, now)
    }

    /// Where a neighbour is whom a caller will send to, by its index: good as long as [`Neighbours::removed`] is the same.
    pub fn keep(&mut self, ip: &Ip, hash: u32) -> Option<(u32, Address)> {
        let index = self.index(ip, hash)?;
        let record = self.records.get_mut(index as usize)?;
        let link = record.link()?;
        record.is_ours = 1;
        Some((index, link))
    }

    /// A packet has been sent to the neighbour of this index. `heard` is when the transport had a sign that packets to it
    /// arrive.
    ///
    /// RFC 4861 §7.3.1: "Positive confirmation can be gathered in two ways: hints from upper-layer protocols that
    /// indicate a connection is making 'forward progress'".
    ///
    /// Where somebody else feeds the cache he doesn't see what is sent, so he is to be told that he shall look after one which
    /// he takes for stale: he would forget it after a while.
    pub fn used(&mut self, index: u32, heard: Option<Instant>, now: Instant) {
        let is_fed = self.settings.is_fed;
        let Some(record) = self.records.get_mut(index as usize) else { return };
        let is_news = is_fed && record.state() == State::Stale && record.probes == 0;
        let is_newer = heard.filter(|heard| heard.0 > record.confirmed && *heard <= now);
        if let Some(heard) =
            is_newer.filter(|_| record.state().has_link() && record.state() != State::Permanent)
        {
            record.confirm(heard);
        }
        let _ = self.send_to(index, now);
        if is_news && let Some(record) = self.records.get_mut(index as usize) {
            (record.probes, self.state.asks) = (1, self.state.asks.wrapping_add(1));
        }
    }

    /// The link address to send to. RFC 4861 §7.3.3: "The first time a node sends a packet to a neighbor whose entry is STALE,
    /// the sender changes the state to DELAY and sets a timer to expire in DELAY_FIRST_PROBE_TIME seconds."
    fn send_to(&mut self, index: u32, now: Instant) -> Option<Address> {
        let record = self.records.get_mut(index as usize)?;
        let link = record.link()?;
        record.is_ours = 1;
        let is_old = now - Instant(record.confirmed) >= self.settings.reachable && !self.settings.is_fed;
        let is_stale = record.state() == State::Stale && !self.settings.is_fed;
        if is_stale || record.state() == State::Reachable && is_old {
            record.state = State::Delay as u8;
            self.arm(index, now + self.settings.delay);
        }
        Some(link)
    }

    /// The transport above has got through: TCP's new acknowledgment of what was sent this way.
    ///
    /// RFC 4861 §7.3.1: "Positive confirmation can be gathered in two ways: hints from upper-layer protocols that
    /// indicate a connection is making 'forward progress'".
    #[inline]
    pub fn confirm(&mut self, handle: Handle, ip: &Ip, now: Instant) {
        if let Some(record) = slab::find(self.records, handle)
            && record.ip == *ip
            && record.state().has_link()
            && record.state() != State::Permanent
        {
            record.confirm(now);
        }
    }

    /// A packet claims something.
    pub fn hear(&mut self, claim: &Claim, hash: u32, now: Instant) -> Heard {
        if claim.link.is_some_and(|link| link.is_multicast() || link == Address::default()) {
            return Heard::Nothing;
        }
        let index = match (self.index(&claim.ip, hash), claim.kind) {
            (Some(index), _) => index,
            // RFC 4861 §7.2.5: "If no entry exists, the advertisement SHOULD be silently discarded."
            (None, Kind::Answer { .. }) => return Heard::Nothing,
            (None, Kind::Question) if claim.link.is_none() => return Heard::Nothing,
            (None, Kind::Question) => match self.create(&claim.ip, hash, 1) {
                Some(index) => index,
                None => return Heard::Nothing,
            },
        };
        let record = &mut self.records[index as usize];
        match (record.state(), claim.kind) {
            (State::Permanent, _) | (State::Failed, Kind::Answer { .. }) => Heard::Nothing,
            (State::Incomplete | State::Failed, kind) => Self::learn(record, claim.link, kind, now),
            (_, Kind::Question) => self.compare(index, claim.link, now),
            (state, Kind::Answer { solicited, overrides, router }) => {
                let is_same = claim.link.is_none_or(|link| link == record.link);
                let is_asked = state == State::Probe && solicited;
                if !(is_same || is_asked && overrides) {
                    return self.compare(index, claim.link, now);
                }
                // Only who was asked confirms: an answer that nobody waits for is as good as its sender.
                if is_asked {
                    record.link = claim.link.unwrap_or(record.link);
                    record.confirm(now);
                }
                if let Some(router) = router {
                    record.is_router = router.into();
                }
                Heard::Nothing
            }
        }
    }

    /// RFC 4861 §7.2.5: "it records the link-layer address […] If the advertisement's Solicited flag is set, the state of the
    /// entry is set to REACHABLE; otherwise, it is set to STALE. […] It sends any packets queued for the neighbor". Without a link
    /// address it is discarded.
    fn learn(record: &mut Neighbour, link: Option<Address>, kind: Kind, now: Instant) -> Heard {
        let Some(link) = link else { return Heard::Nothing };
        record.link = link;
        record.confirm(now);
        match kind {
            Kind::Answer { solicited: true, router, .. } => record.is_router = router.unwrap_or(false).into(),
            Kind::Answer { router, .. } => {
                (record.state, record.is_router) = (State::Stale as u8, router.unwrap_or(false).into());
            }
            Kind::Question => record.state = State::Stale as u8,
        }
        record.pending().map_or(Heard::Nothing, |frame| Heard::Ready(frame, link))
    }

    /// A claim that nobody asked for: if it differs, whom we know is asked.
    fn compare(&mut self, index: u32, link: Option<Address>, now: Instant) -> Heard {
        let record = &mut self.records[index as usize];
        let is_same = link.is_none_or(|link| link == record.link);
        if is_same || record.state() == State::Probe || now - Instant(record.confirmed) < LOCK {
            return Heard::Nothing;
        }
        if record.is_ours == 0 {
            // Nobody depends on it, and nobody can make us send more than he does.
            (record.link, record.state) = (link.unwrap_or(record.link), State::Stale as u8);
            return Heard::Nothing;
        }
        (record.state, record.probes) = (State::Probe as u8, 1);
        let heard = Heard::Verify(record.ip, record.link);
        self.arm(index, now + self.settings.retrans);
        heard
    }

    /// The owner says how it is, and is believed. Without a link address the neighbour has failed; that it is being asked
    /// for (NUD_INCOMPLETE) is no news.
    ///
    /// # Errors
    /// The frame of the packet that waited, if any: it is dropped.
    pub fn set(
        &mut self,
        ip: &Ip,
        hash: u32,
        link: Option<Address>,
        state: State,
        now: Instant,
    ) -> Result<Heard, Option<u32>> {
        if state == State::Incomplete {
            return Ok(Heard::Nothing);
        }
        let Some(index) = self.index(ip, hash).or_else(|| self.create(ip, hash, 3)) else {
            return Ok(Heard::Nothing);
        };
        let record = &mut self.records[index as usize];
        let Some(link) = link.filter(|_| state.has_link()) else {
            (record.state, record.probes) = (State::Failed as u8, 0);
            return Err(record.pending());
        };
        (record.link, record.state, record.confirmed, record.probes) = (link, state as u8, now.0, 0);
        let pending = record.pending();
        // Its own clock runs for what it is in the middle of.
        match state {
            // The clock of who feeds it runs.
            _ if self.settings.is_fed => {}
            State::Delay => self.arm(index, now + self.settings.delay),
            State::Probe => self.arm(index, now + self.settings.retrans),
            _ => {}
        }
        Ok(pending.map_or(Heard::Nothing, |frame| Heard::Ready(frame, link)))
    }

    /// Somebody died at work here: the records are made a cache again, of which no packet waits for any, and who keeps an index
    /// looks it up anew.
    pub(crate) fn rebuild(&mut self) {
        let Neighbours { slab, removed, asks, .. } = &mut *self.state;
        (*removed, *asks) = (removed.wrapping_add(1), asks.wrapping_add(1));
        slab.rebuild(self.records, |_, _| true);
        let records = &mut self.records[..slab.fresh() as usize];
        self.wheel.rebuild(records, |record, was| was.filter(|_| record.is_used()));
        let mut table = Table::new(self.places);
        table.clear();
        for (index, record) in records.iter_mut().enumerate() {
            record.pending = 0;
            if record.is_used() && !table.insert(record.hash, index as u32) {
                record.state = State::Failed as u8;
            }
        }
    }

    /// The owner has removed it. The frame of the packet that waited comes back.
    pub fn remove(&mut self, ip: &Ip, hash: u32) -> Option<u32> {
        let index = self.index(ip, hash)?;
        let pending = self.records[index as usize].pending();
        self.delete(index);
        pending
    }

    /// The neighbour of an address.
    #[must_use]
    pub fn find(&mut self, ip: &Ip, hash: u32) -> Option<&Neighbour> {
        let index = self.index(ip, hash)?;
        self.records.get(index as usize)
    }

    /// A moment before which there is nothing to do.
    #[must_use]
    pub fn deadline(&mut self) -> Option<Instant> {
        self.wheel.deadline()
    }

    /// Does what is due, at most `most` entries; true if more may be.
    pub fn poll(&mut self, now: Instant, most: usize, mut act: impl FnMut(Due)) -> bool {
        let (settings, asks) = (self.settings, &mut self.state.asks);
        self.wheel.advance(self.records, now, most, |wheel, records, index| {
            let Some(record) = records.get_mut(index as usize) else { return };
            let waits = match record.state() {
                State::Incomplete => true,
                State::Delay | State::Probe => !settings.is_fed,
                _ => false,
            };
            if !record.tag.is_used() || !waits {
                return;
            }
            if now.0 >= record.due {
                let due = expire(record, now, &settings);
                *asks = asks.wrapping_add(matches!(due, Due::Solicit(..)).into());
                act(due);
            }
            if record.state() != State::Failed {
                let due = Instant(record.due);
                wheel.arm(records, index, due);
            }
        })
    }

    fn arm(&mut self, index: u32, due: Instant) {
        if let Some(record) = self.records.get_mut(index as usize) {
            record.due = due.0;
            self.wheel.arm(self.records, index, due);
        }
    }

    fn index(&mut self, ip: &Ip, hash: u32) -> Option<u32> {
        let records = &*self.records;
        let is_it = |index: u32| {
            records.get(index as usize).is_some_and(|record| record.ip == *ip && record.tag.is_used())
        };
        Table::new(self.places).find(hash, is_it)
    }

    /// A new entry without a link address; one of at most this rank gives way if it must.
    fn create(&mut self, ip: &Ip, hash: u32, rank: u8) -> Option<u32> {
        let handle = match self.state.slab.take(self.records) {
            Some(handle) => handle,
            None => {
                let victim = self.victim(rank)?;
                self.delete(victim);
                self.state.slab.take(self.records)?
            }
        };
        // A place of nonsense may still be in the wheel.
        self.wheel.disarm(self.records, handle.index);
        let record = self.records.get_mut(handle.index as usize)?;
        *record = Neighbour { tag: record.tag, ip: *ip, hash, ..Neighbour::default() };
        if !Table::new(self.places).insert(hash, handle.index) {
            self.state.slab.give(self.records, handle);
            return None;
        }
        Some(handle.index)
    }

    /// Of the next few records the one that is missed least.
    fn victim(&mut self, rank: u8) -> Option<u32> {
        let len = self.records.len();
        let first = (self.state.hand as usize).checked_rem(len)?;
        self.state.hand = ((first + SCAN) % len) as u32;
        let ranked = (first..first + SCAN.min(len)).filter_map(|at| {
            let at = at % len;
            Some((self.records[at].rank().filter(|found| *found <= rank)?, at))
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, at)| at as u32)
    }

    fn delete(&mut self, index: u32) {
        let Some(record) = self.records.get(index as usize).copied() else { return };
        self.wheel.disarm(self.records, index);
        Table::new(self.places).remove(record.hash, index);
        if record.is_ours != 0 {
            self.state.removed = self.state.removed.wrapping_add(1);
        }
        self.state.slab.give(self.records, Handle { index, generation: record.tag.generation });
    }

    /// Whether every record in use is found, and no other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&mut self) -> Result<(), &'static str> {
        self.state.slab.check(self.records)?;
        for at in 0..self.records.len() {
            let record = self.records[at];
            if record.tag.is_used() && self.index(&record.ip, record.hash) != Some(at as u32) {
                return Err("a neighbour isn't found by its address");
            }
            if record.tag.is_used() && record.pending != 0 && record.state() != State::Incomplete {
                return Err("a packet waits for a neighbour that is known");
            }
        }
        Ok(())
    }
}

/// A deadline has come. RFC 4861 §7.2.2: "the sender SHOULD retransmit Neighbor Solicitation messages approximately
/// every RetransTimer milliseconds"; "If no Neighbor Advertisement is received after MAX_MULTICAST_SOLICIT
/// solicitations, address resolution has failed." §7.3.3: "If no response is received after waiting RetransTimer
/// milliseconds after sending the MAX_UNICAST_SOLICIT solicitations, retransmissions cease and the entry SHOULD be
/// deleted."
fn expire(record: &mut Neighbour, now: Instant, settings: &Settings) -> Due {
    if record.state() == State::Delay {
        (record.state, record.probes) = (State::Probe as u8, 0);
    }
    if record.probes >= settings.solicitations {
        (record.state, record.probes) = (State::Failed as u8, 0);
        return Due::Failed(record.ip, record.pending());
    }
    record.probes = record.probes.saturating_add(1);
    record.due = (now + settings.retrans).0;
    Due::Solicit(record.ip, record.link())
}
