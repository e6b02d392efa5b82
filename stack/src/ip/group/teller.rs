//! When routers are told of groups, and in which words: IGMPv3 and MLDv2, with the older versions where such a router asks (RFC 3376 §5,
//! §7.2, RFC 3810 §6, §8.2; net/ipv4/igmp.c: igmpv3_send_cr, add_grec, igmp_heard_query, igmp_timer_expire).
//!
//! Changes of all groups are told together, and so are all groups when a router asks for them; a question for one group is answered by
//! itself. In the older versions everything is said of one group.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Group, Groups, Mark, Source, is_told};
use crate::time::{Duration, Instant};
use crate::udp::group::Filter;
use crate::wire::igmp::{Kind, Query, Report, Version, Word};
use crate::wire::ip::Ip;

/// Robustness Variable, if no router says another one (RFC 3376 §8.1, RFC 3810 §9.1).
pub(super) const ROBUSTNESS: u8 = 2;
/// Unsolicited Report Interval (RFC 3376 §8.11, RFC 3810 §9.11), and that of the older versions (RFC 2236 §8.10).
const UNSOLICITED: Duration = Duration::from_secs(1);
const UNSOLICITED_OLD: Duration = Duration::from_secs(10);
/// Query Interval and Query Response Interval (RFC 3376 §8.2, §8.3).
const QUERY: Duration = Duration::from_secs(125);
const RESPONSE: Duration = Duration::from_secs(10);

/// What is told when, of one version of IP. Zero bytes are of one that has heard nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Teller {
    /// When changes are told, in nanoseconds; 0 is never.
    changes_due: u64,
    /// When all groups are told, likewise.
    all_due: u64,
    /// Until when a router of IGMPv1 is there, and one of IGMPv2 or MLDv1.
    old_until: [u64; 2],
    /// How often routers ask, and how long they wait for answers, in nanoseconds, as they said last; 0 is the default.
    query: u64,
    response: u64,
    /// Reports of changes that are left.
    changes_left: u32,
    /// The routers' robustness variable, or 0.
    robustness: u32,
}

impl Teller {
    /// How often a change is told.
    pub(super) const fn robustness(&self) -> u8 {
        if self.robustness == 0 || self.robustness > 7 { ROBUSTNESS } else { self.robustness as u8 }
    }

    /// The words that all routers understand now.
    #[must_use]
    pub const fn version(&self, now: Instant) -> Version {
        if self.old_until[0] > now.0 {
            Version::V1
        } else if self.old_until[1] > now.0 {
            Version::V2
        } else {
            Version::V3
        }
    }

    /// Something has changed: it is told now, and again.
    pub(super) fn changed(&mut self, now: Instant) {
        (self.changes_due, self.changes_left) = (now.0.max(1), self.robustness().into());
    }

    /// Takes note of how a router speaks.
    fn hear(&mut self, query: &Query<'_>, now: Instant) {
        let is_newest = self.version(now) == Version::V3;
        let of = |said: u64, default: Duration| if said == 0 { default.0 } else { said };
        let old = match query.version {
            Version::V1 => &mut self.old_until[0],
            Version::V2 => &mut self.old_until[1],
            Version::V3 if !is_newest => return,
            Version::V3 => {
                // RFC 3376 §4.1.6, §4.1.7: what the most recent query says; 0 is the default.
                self.robustness = query.robustness.into();
                self.query = query.interval.0;
                let longest = of(self.query, QUERY).saturating_sub(Duration::from_secs(1).0);
                self.response = query.within.0.min(longest);
                return;
            }
        };
        // RFC 3376 §8.12: "This value MUST be ((the Robustness Variable) times (the Query Interval in the last Query received)) plus
        // (one Query Response Interval)."
        let robustness =
            if self.robustness == 0 { ROBUSTNESS.into() } else { u64::from(self.robustness & 7) };
        let present =
            of(self.query, QUERY).saturating_mul(robustness).saturating_add(of(self.response, RESPONSE));
        *old = now.0.saturating_add(present);
        // What was to be told in the newer words is not.
        (self.changes_due, self.changes_left) = (0, 0);
    }
}

/// A part of a length of time.
fn part(of: Duration, random: u32) -> Duration {
    Duration(((u128::from(of.0) * u128::from(random)) >> 32) as u64)
}

/// When something is due that is not any more now.
fn after(now: Instant, delay: Duration) -> u64 {
    (now + delay).0.max(now.0.saturating_add(1))
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// What has changed.
    Changes,
    /// Every group.
    All,
    /// This one.
    One(Ip),
}

/// How far a report has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    group: usize,
    /// Which of its records.
    record: usize,
    /// The source in it, by its link plus one; 0 is the record's beginning.
    source: u32,
}

/// Something to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// In the words of IGMPv3 or MLDv2: as many reports as [`Groups::write`] takes.
    Report(About),
    /// In those of an older version.
    Word(Word, Ip),
}

impl Groups<'_> {
    /// When something is to be told.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let tellers = self.tellers.iter().flat_map(|teller| [teller.changes_due, teller.all_due]);
        let groups = self.groups.iter().map(|group| group.due);
        groups.chain(tellers).filter(|due| *due != 0).min().map(Instant)
    }

    /// Takes one thing that is due, of one version of IP.
    pub fn take_due(&mut self, is_v4: bool, now: Instant, random: u32) -> Option<Due> {
        let is_due = |due: u64| due != 0 && due <= now.0;
        let teller = &mut self.tellers[usize::from(is_v4)];
        let version = teller.version(now);
        if version < Version::V3 {
            // Who speaks the older versions asks for each group.
            (teller.changes_due, teller.changes_left) = (0, 0);
        }
        if is_due(teller.changes_due) {
            teller.changes_left = teller.changes_left.saturating_sub(1);
            teller.changes_due = match teller.changes_left {
                0 => 0,
                _ => after(now, part(UNSOLICITED, random)),
            };
            return Some(Due::Report(About::Changes));
        }
        if is_due(teller.all_due) {
            teller.all_due = 0;
            return Some(Due::Report(About::All));
        }
        let group = self.groups.iter_mut().find(|group| is_due(group.due) && group.ip.is_v4() == is_v4)?;
        let ip = group.ip;
        group.unsolicited = group.unsolicited.saturating_sub(1);
        group.due = match group.unsolicited {
            0 => 0,
            _ => after(now, part(UNSOLICITED_OLD, random)),
        };
        if group.marks & Mark::LEAVES != 0 {
            *group = Group::default();
            return Some(Due::Word(Word::Leaves, ip));
        }
        group.marks |= Mark::REPORTER;
        Some(match version {
            Version::V1 => Due::Word(Word::ListensV1, ip),
            Version::V2 => Due::Word(Word::Listens, ip),
            Version::V3 => Due::Report(About::One(ip)),
        })
    }

    /// A router asks: it is answered within the time that it gives. RFC 3376 §5.2: "1. If there is a pending response to a previous
    /// General Query scheduled sooner than the selected delay, no additional response needs to be scheduled."
    pub fn asked(&mut self, query: &Query<'_>, is_v4: bool, now: Instant, mut random: impl FnMut() -> u32) {
        let before = self.tellers[usize::from(is_v4)].version(now);
        self.tellers[usize::from(is_v4)].hear(query, now);
        if query.version < Version::V3 {
            self.forget_changes(is_v4);
        } else if before == Version::V3 && query.group.is_none() {
            let at = (now + part(query.within, random())).0.max(1);
            let due = &mut self.tellers[usize::from(is_v4)].all_due;
            *due = if *due == 0 { at } else { (*due).min(at) };
            return;
        }
        let is_specific = query.has_sources() && before == Version::V3 && query.version == Version::V3;
        // RFC 3376 §7.2.1 has one of IGMPv1 near: its questions are for all, and it waits ten seconds.
        let (of, within) = if self.tellers[usize::from(is_v4)].version(now) == Version::V1 {
            (None, RESPONSE)
        } else {
            (query.group, query.within)
        };
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            let is_asked = group.users > 0 && group.ip.is_v4() == is_v4 && of.is_none_or(|of| of == group.ip);
            if is_asked && is_told(&group.ip) && self.answers(at, is_specific, query) {
                let due = (now + part(within, random())).0.max(1);
                let group = &mut self.groups[at];
                group.unsolicited = 0;
                group.due = if group.due == 0 { due } else { group.due.min(due) };
            }
        }
    }

    /// Whether a group has something to answer, for the sources that are asked for: a question for all of it that is pending says more
    /// (RFC 3376 §5.2 4, 5).
    fn answers(&mut self, at: usize, is_specific: bool, query: &Query<'_>) -> bool {
        let group = &mut self.groups[at];
        let is_pending = group.due != 0;
        let asks_some = is_specific && (!is_pending || group.marks & Mark::ASKED != 0);
        group.marks &= !Mark::ASKED;
        if !asks_some {
            return true;
        }
        let excludes = group.filter == Filter::Exclude as u8;
        let (mut asked, mut held) = (0, 0);
        for ip in query.sources() {
            asked += 1;
            self.for_sources(at, |group, source| {
                if source.ip == ip && group.holds(source) {
                    held += 1;
                    source.asked |= u8::from(!excludes);
                }
            });
        }
        if excludes {
            // All of them are kept out.
            return held < asked;
        }
        self.groups[at].marks |= if held > 0 || is_pending { Mark::ASKED } else { 0 };
        held > 0
    }

    /// What was to be told of changes, and of groups that were left, is not.
    fn forget_changes(&mut self, is_v4: bool) {
        for at in 0..self.groups.len() {
            if self.groups[at].ip.is_v4() == is_v4 {
                self.forget(at);
            }
        }
    }

    /// Somebody else has said in the older words that he listens to a group: RFC 2236 §3, "If the host receives another host's Report
    /// (version 1 or 2) while it has a timer running, it stops its timer for the specified group and does not send a Report".
    pub fn heard(&mut self, ip: &Ip) {
        if let Some(group) = self.groups.iter_mut().find(|group| group.ip == *ip && group.users > 0) {
            (group.due, group.unsolicited) = (0, 0);
            group.marks &= !Mark::REPORTER;
        }
    }

    /// Writes what a report is about from a place on; whether it has no room for all of it, and goes on from there in another one.
    pub fn write(&mut self, about: About, is_v4: bool, place: &mut Place, report: &mut Report<'_>) -> bool {
        while let Some(group) = self.groups.get(place.group).copied() {
            let is_it = match about {
                About::Changes => true,
                About::All => group.users > 0,
                About::One(ip) => group.users > 0 && group.ip == ip,
            };
            if is_it && group.ip.is_v4() == is_v4 && !group.is_free() && is_told(&group.ip) {
                let records = records(about, &group);
                while let Some(kind) = records.get(place.record).copied().flatten() {
                    if self.write_record(&group, kind, place, report) {
                        return true;
                    }
                    (place.record, place.source) = (place.record + 1, 0);
                }
                self.written(about, place.group);
            }
            *place = Place { group: place.group + 1, ..Place::default() };
        }
        false
    }

    /// Writes one record; whether it has no room for it.
    fn write_record(
        &mut self,
        group: &Group,
        kind: Kind,
        place: &mut Place,
        report: &mut Report<'_>,
    ) -> bool {
        // What is told of the filter says all of its sources.
        let is_silent = !kind.is_whole() && group.changes > 0;
        let mut link = group.sources;
        let mut begun = false;
        if place.source != 0 {
            link = place.source - 1;
        } else if kind.is_whole() {
            let mut count = 0;
            self.for_sources(place.group, |group, source| count += usize::from(is_in(kind, group, source)));
            let waits = kind.is_cut() && !report.is_empty() && !report.has_room(count);
            if waits || !report.begin(kind, &group.ip) {
                return !report.is_empty();
            }
            begun = true;
        }
        for _ in 0..self.sources.len() {
            let Some(source) = self.source(link) else { break };
            let (next, ip) = (source.next, source.ip);
            if is_in(kind, group, source) {
                let is_written = is_silent
                    || (begun || report.has_room(1) && report.begin(kind, &group.ip)) && report.add(&ip);
                if !is_written {
                    if begun && kind.is_cut() {
                        break;
                    }
                    place.source = link + 1;
                    return !report.is_empty();
                }
                begun |= !is_silent;
                if let Some(source) = self.source(link) {
                    source.asked = 0;
                    source.changes -= u8::from(!kind.is_whole());
                }
            }
            link = next;
        }
        false
    }

    /// All of a group was told.
    fn written(&mut self, about: About, at: usize) {
        let group = &mut self.groups[at];
        match about {
            About::Changes => {
                group.changes = group.changes.saturating_sub(1);
                let is_gone = group.users == 0;
                self.sweep(at, false);
                if is_gone && self.groups[at].is_free() {
                    self.groups[at] = Group::default();
                }
            }
            About::All => {}
            About::One(_) => group.marks &= !Mark::ASKED,
        }
    }
}

/// The records of a group, in Linux's order.
fn records(about: About, group: &Group) -> [Option<Kind>; 3] {
    let excludes = group.by_filter[Filter::Exclude as usize] > 0;
    if about != About::Changes {
        return [Some(if excludes { Kind::Excludes } else { Kind::Includes }), None, None];
    }
    let to = match (group.users, group.filter == Filter::Exclude as u8) {
        (0, _) | (_, false) => Kind::ToInclude,
        _ => Kind::ToExclude,
    };
    let sources = if excludes { [Kind::Block, Kind::Allow] } else { [Kind::Allow, Kind::Block] };
    [Some(sources[0]), Some(sources[1]), (group.changes > 0).then_some(to)]
}

/// Whether a source belongs into a record.
const fn is_in(kind: Kind, group: &Group, source: &Source) -> bool {
    let excludes = group.by_filter[Filter::Exclude as usize] > 0;
    let is_chosen = group.holds(source);
    match kind {
        Kind::Includes | Kind::Excludes => is_chosen && (group.marks & Mark::ASKED == 0 || source.asked != 0),
        Kind::ToInclude | Kind::ToExclude => is_chosen && group.users > 0,
        Kind::Allow => source.changes > 0 && is_chosen != excludes,
        Kind::Block => source.changes > 0 && is_chosen == excludes,
    }
}
