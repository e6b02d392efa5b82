//! Groups that are listened to, with the sources that are let through or kept out: what each socket wants comes to what the interface
//! wants (RFC 3376 §3.2, RFC 3810 §4.2), and every change of that is told to routers, as Linux tells it (net/ipv4/igmp.c:
//! ip_mc_add_src, ip_mc_del_src, igmp_group_added; net/ipv6/mcast.c). What is said and when is [`teller`]'s.
//!
//! RFC 3376 §5.1: "To cover the possibility of the State-Change Report being missed by one or more multicast routers, it is
//! retransmitted [Robustness Variable] - 1 more times". A source that is in no filter any more, and a group that nobody listens to, stay
//! for so long.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{Record, Slab, Tag};
use crate::time::Instant;
use crate::udp::group::Filter;
use crate::wire::igmp::Version;
use crate::wire::ip::Ip;

pub mod teller;
#[cfg(test)]
mod tests;

use teller::ROBUSTNESS;
pub use teller::Teller;

/// One group. Zero bytes are a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group {
    /// When something is said of it alone, in nanoseconds; 0 is never.
    due: u64,
    /// The group.
    ip: Ip,
    /// How many listen to it.
    users: u32,
    /// Of these, how many to all but some sources, by [`Filter`].
    by_filter: [u32; 2],
    /// Its first source, plus one.
    sources: u32,
    /// A [`Filter`]: the interface's.
    filter: u8,
    /// Reports of a change of the filter that are left.
    changes: u8,
    /// Reports in the older versions that nobody has asked for and that are left.
    unsolicited: u8,
    /// Bits of [`Mark`].
    marks: u8,
    padding: u32,
}

/// Bits of [`Group::marks`].
struct Mark;

impl Mark {
    /// A router has asked for some of its sources only: those that are marked.
    const ASKED: u8 = 1;
    /// We were the last to say that somebody listens (the older versions).
    const REPORTER: u8 = 2;
    /// It was left, which is to be said in the older versions.
    const LEAVES: u8 = 4;
}

/// A source of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Source {
    /// Whether, and for which time, the record is in use.
    tag: Tag,
    /// The source.
    ip: Ip,
    /// How many keep it out, and how many let it through, by [`Filter`].
    by_filter: [u32; 2],
    /// The next one of the group, plus one.
    next: u32,
    /// Reports of its coming or going that are left.
    changes: u8,
    /// Not 0: it was in the interface's filter.
    was_in: u8,
    /// Not 0: a router has asked for it.
    asked: u8,
    padding: u8,
}

impl Record for Source {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// All nodes on the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ip = Ip([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// All systems on the subnet (RFC 1112 §4).
pub const ALL_SYSTEMS: Ip = Ip::v4([224, 0, 0, 1]);

/// Whether routers are told of a group at all: RFC 3376 §4 excepts all-systems, RFC 3810 §6 all-nodes and the scopes of an
/// interface or of nothing.
fn is_told(ip: &Ip) -> bool {
    match ip.as_v4() {
        Some(v4) => v4 != [224, 0, 0, 1],
        None => ip.0[1] & 15 > 1 && *ip != ALL_NODES,
    }
}

impl Group {
    /// Whether a source is in the interface's filter. RFC 3376 §3.2: one is kept out if all who keep some out agree, and nobody lets it
    /// through.
    const fn holds(&self, source: &Source) -> bool {
        let [out, through] = source.by_filter;
        match self.by_filter[Filter::Exclude as usize] {
            0 => through != 0,
            excluding => out == excluding && through == 0,
        }
    }

    const fn is_free(&self) -> bool {
        self.users == 0 && self.changes == 0 && self.sources == 0 && self.marks & Mark::LEAVES == 0
    }
}

/// Whether a group is listened to.
#[must_use]
pub fn listens(groups: &[Group], ip: &Ip) -> bool {
    groups.iter().any(|group| group.users > 0 && group.ip == *ip)
}

/// The groups over borrowed records.
#[derive(Debug)]
pub struct Groups<'a> {
    /// Groups.
    pub groups: &'a mut [Group],
    /// Their sources.
    pub sources: &'a mut [Source],
    /// The sources' slab.
    pub slab: &'a mut Slab,
    /// What is told when, of IPv6 and of IPv4.
    pub tellers: &'a mut [Teller; 2],
}

impl Groups<'_> {
    fn teller(&mut self, ip: &Ip) -> &mut Teller {
        &mut self.tellers[usize::from(ip.is_v4())]
    }

    fn at(&self, ip: &Ip) -> Option<usize> {
        self.groups.iter().position(|group| group.ip == *ip && !group.is_free())
    }

    /// A source of a group by its link, and the next link.
    fn source(&mut self, link: u32) -> Option<&mut Source> {
        self.sources.get_mut(link.checked_sub(1)? as usize)
    }

    /// Calls `each` for every source of a group.
    fn for_sources(&mut self, at: usize, mut each: impl FnMut(&Group, &mut Source)) {
        let Some(group) = self.groups.get(at) else { return };
        let mut link = group.sources;
        for _ in 0..self.sources.len() {
            let Some(source) = link.checked_sub(1).and_then(|index| self.sources.get_mut(index as usize))
            else {
                return;
            };
            link = source.next;
            each(group, source);
        }
    }

    /// The record of a source of a group, a new one if it has none.
    fn source_of(&mut self, at: usize, ip: &Ip) -> Option<&mut Source> {
        let first = self.groups.get(at)?.sources;
        let mut link = first;
        for _ in 0..self.sources.len() {
            match self.source(link) {
                Some(source) if source.ip == *ip => return self.source(link),
                Some(source) => link = source.next,
                None => break,
            }
        }
        let handle = self.slab.take(self.sources)?;
        self.groups.get_mut(at)?.sources = handle.index + 1;
        let source = self.sources.get_mut(handle.index as usize)?;
        *source = Source { tag: source.tag, ip: *ip, next: first, ..Source::default() };
        Some(source)
    }

    /// Frees the sources of a group of which nothing is to be said and whom nobody has chosen: all of them if `all`.
    fn sweep(&mut self, at: usize, all: bool) {
        let Some(mut link) = self.groups.get(at).map(|group| group.sources) else { return };
        let mut before = 0;
        for _ in 0..self.sources.len() {
            let Some(source) = self.source(link) else { break };
            let (next, is_idle) = (source.next, source.by_filter == [0; 2] && source.changes == 0);
            if all || is_idle {
                let handle = source.tag.handle(link - 1);
                match self.source(before) {
                    Some(before) => before.next = next,
                    None => self.groups[at].sources = next,
                }
                self.slab.give(self.sources, handle);
            } else {
                before = link;
            }
            link = next;
        }
    }

    /// One more listens to a group, to all but some sources or to some alone; false if there is no room. Its sources follow
    /// ([`Groups::begin`]).
    pub fn join(&mut self, ip: &Ip, filter: Filter, now: Instant) -> bool {
        let free = || self.groups.iter().position(Group::is_free);
        let Some(at) = self.at(ip).or_else(free) else { return false };
        if self.groups[at].users > 0 {
            self.begin(ip);
            self.count(ip, filter, None, true);
            self.groups[at].users = self.groups[at].users.saturating_add(1);
            self.end(ip, now);
            return true;
        }
        let before = self.groups[at];
        if before.is_free() {
            self.groups[at] = Group { ip: *ip, ..Group::default() };
        }
        let group = &mut self.groups[at];
        (group.users, group.filter, group.marks) = (1, filter as u8, 0);
        group.by_filter = [0; 2];
        group.by_filter[filter as usize] = 1;
        if !is_told(ip) {
            return true;
        }
        // Who left it for good while that is being told changes its filter; and RFC 3376 §5.1 has none for who begins with no source.
        let was_left = before.changes > 0;
        self.tell_joined(at, filter == Filter::Exclude || was_left, now);
        true
    }

    fn tell_joined(&mut self, at: usize, changes: bool, now: Instant) {
        let Some(ip) = self.groups.get(at).map(|group| group.ip) else { return };
        let (version, robustness) = (self.teller(&ip).version(now), self.teller(&ip).robustness());
        let group = &mut self.groups[at];
        if version < Version::V3 {
            (group.changes, group.unsolicited, group.due) = (0, robustness, now.0.max(1));
            return;
        }
        if changes {
            group.changes = robustness;
        }
        self.teller(&ip).changed(now);
    }

    /// One less listens to it, by this filter, and its sources were taken back; false if nobody did.
    pub fn leave(&mut self, ip: &Ip, filter: Filter, now: Instant) -> bool {
        let Some(at) = self.at(ip).filter(|at| self.groups[*at].users > 0) else { return false };
        self.begin(ip);
        self.leave_counted(at, filter, now);
        true
    }

    /// The same between [`Groups::begin`] and what would be [`Groups::end`].
    pub fn leave_begun(&mut self, ip: &Ip, filter: Filter, now: Instant) {
        if let Some(at) = self.at(ip).filter(|at| self.groups[*at].users > 0) {
            self.leave_counted(at, filter, now);
        }
    }

    fn leave_counted(&mut self, at: usize, filter: Filter, now: Instant) {
        let ip = self.groups[at].ip;
        self.count(&ip, filter, None, false);
        self.end(&ip, now);
        self.groups[at].users -= 1;
        if self.groups[at].users == 0 {
            self.left(at, now);
        }
    }

    /// Nobody listens to a group any more.
    fn left(&mut self, at: usize, now: Instant) {
        let ip = self.groups[at].ip;
        let (version, robustness) = (self.teller(&ip).version(now), self.teller(&ip).robustness());
        let group = &mut self.groups[at];
        // Who isn't known to listen to some sources alone yet is known to listen to all.
        let was_all = group.filter == Filter::Exclude as u8 || group.changes > 0;
        let was_reporter = group.marks & Mark::REPORTER != 0;
        (group.due, group.unsolicited, group.changes, group.marks) = (0, 0, 0, 0);
        match version {
            _ if !is_told(&ip) => {}
            Version::V3 => {
                // From some sources to none is told of these: RFC 3376 §5.1, INCLUDE (A) to INCLUDE (B).
                group.changes = if was_all { robustness } else { 0 };
                self.sweep(at, was_all);
                self.teller(&ip).changed(now);
                return;
            }
            // RFC 2236 §3: "When a host leaves a multicast group, if it was the last host to reply to a Query with a Membership
            // Report for that group, it SHOULD send a Leave Group message".
            Version::V2 if was_reporter => (group.marks, group.due) = (Mark::LEAVES, now.0.max(1)),
            _ => {}
        }
        self.sweep(at, true);
    }

    /// Before the filter of a group changes: which sources are in it.
    pub fn begin(&mut self, ip: &Ip) {
        if let Some(at) = self.at(ip) {
            self.for_sources(at, |group, source| source.was_in = u8::from(group.holds(source)));
        }
    }

    /// One more, or one less, of those who listen by this filter has a source in it; without a source it is one listener. False without
    /// room for the source.
    pub fn count(&mut self, ip: &Ip, filter: Filter, source: Option<&Ip>, more: bool) -> bool {
        let step =
            |count: &mut u32| *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        let Some(at) = self.at(ip) else { return false };
        match source {
            None => step(&mut self.groups[at].by_filter[filter as usize]),
            Some(source) => match self.source_of(at, source) {
                Some(source) => step(&mut source.by_filter[filter as usize]),
                None => return false,
            },
        }
        true
    }

    /// After the filter of a group has changed: what is to be told of that.
    pub fn end(&mut self, ip: &Ip, now: Instant) {
        let Some(at) = self.at(ip) else { return };
        let robustness = self.teller(ip).robustness();
        let group = &mut self.groups[at];
        let filter = match group.by_filter {
            [0, 0] => group.filter,
            [0, _] => Filter::Include as u8,
            _ => Filter::Exclude as u8,
        };
        // RFC 3376 §5.1: a change of the filter's kind tells all of its sources, and what was to be told of single ones with them.
        let is_other = filter != group.filter;
        group.filter = filter;
        group.changes = if is_other { robustness } else { group.changes };
        let mut has_changed = is_other;
        self.for_sources(at, |group, source| {
            let was_in = source.was_in != 0;
            if is_other {
                source.changes = 0;
            } else if group.holds(source) != was_in {
                (source.changes, has_changed) = (robustness, true);
            }
        });
        self.sweep(at, false);
        if !is_told(ip) {
            self.forget(at);
        } else if has_changed && self.teller(ip).version(now) == Version::V3 {
            self.teller(ip).changed(now);
        }
    }

    /// Nothing is left to be told of a group's changes.
    fn forget(&mut self, at: usize) {
        self.groups[at].changes = 0;
        self.for_sources(at, |_, source| source.changes = 0);
        self.sweep(at, false);
    }

    /// After a death: where sources are in no list, or in a wrong one, none is known, and all are told anew.
    pub(crate) fn mend(&mut self) {
        if check(self.groups, self.sources, self.slab.used()).is_ok() {
            return;
        }
        self.slab.rebuild(self.sources, |_, _| false);
        for group in self.groups.iter_mut() {
            let is_known = group.users > 0 && is_told(&group.ip);
            (group.sources, group.changes) = (0, if is_known { ROBUSTNESS } else { 0 });
        }
    }

    /// A source that somebody has chosen is known.
    pub(crate) fn know(&mut self, ip: &Ip, source: &Ip) {
        if let Some(at) = self.at(ip).filter(|at| self.groups[*at].users > 0) {
            let _ = self.source_of(at, source);
        }
    }

    /// Counts anew who listens to each group that somebody listened to, by [`Filter`], and who has chosen its sources; what has changed by
    /// that is told.
    pub(crate) fn recount(
        &mut self,
        users: impl Fn(&Ip) -> [u32; 2],
        choices: impl Fn(&Ip, &Ip) -> [u32; 2],
    ) {
        let now = Instant(0);
        for at in 0..self.groups.len() {
            let ip = self.groups[at].ip;
            if self.groups[at].users == 0 {
                continue;
            }
            self.begin(&ip);
            let group = &mut self.groups[at];
            group.by_filter = users(&ip);
            group.users = group.by_filter[0].saturating_add(group.by_filter[1]);
            self.for_sources(at, |_, source| source.by_filter = choices(&ip, &source.ip));
            self.end(&ip, now);
            if self.groups[at].users == 0 {
                self.left(at, now);
            }
        }
    }
}

/// Whether each of so many sources in use is one of one group.
///
/// # Errors
/// That it isn't so.
pub(crate) fn check(groups: &[Group], sources: &[Source], used: u32) -> Result<(), &'static str> {
    let mut found = 0;
    for group in groups {
        let mut link = group.sources;
        while let Some(index) = link.checked_sub(1) {
            let source = sources.get(index as usize).filter(|source| source.tag.is_used());
            let Some(source) = source.filter(|_| found < used) else {
                return Err("a group has a source that is another one's");
            };
            (link, found) = (source.next, found + 1);
        }
    }
    if found == used { Ok(()) } else { Err("a source is in no group") }
}
