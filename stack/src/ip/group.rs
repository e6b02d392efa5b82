//! Groups that are listened to, and when routers are told: IGMPv3 and MLDv2 without source filters, with the older versions
//! where such a router asks (RFC 3376 §7.2, RFC 3810 §8.2).
//!
//! RFC 3376 §5.1: "To cover the possibility of the State-Change Report being missed by one or more multicast routers, it is
//! retransmitted [Robustness Variable] - 1 more times".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::{Duration, Instant};
use crate::wire::igmp::{Query, Report};
use crate::wire::ip::Ip;

/// Robustness Variable (RFC 3376 §8.1, RFC 3810 §9.1).
const ROBUSTNESS: u8 = 2;
/// Unsolicited Report Interval (RFC 3376 §8.11, RFC 3810 §9.11).
const UNSOLICITED: Duration = Duration::from_secs(1);
/// Older Version Querier Present Timeout with the default intervals: 2 · 125 s + 10 s (RFC 3376 §8.12, RFC 3810 §9.12).
pub const OLD_ROUTER: Duration = Duration::from_secs(260);

/// One group. Zero bytes are a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group {
    /// When a report is sent, in nanoseconds; 0 is never.
    due: u64,
    /// The group.
    ip: Ip,
    /// How many listen to it.
    users: u32,
    /// Reports of a change that are left.
    changes: u8,
    padding: [u8; 3],
}

/// Whether routers are told of a group at all: RFC 3376 §4 excepts all-systems, RFC 3810 §6 all-nodes and the scopes of an
/// interface or of nothing.
fn is_told(ip: &Ip) -> bool {
    match ip.as_v4() {
        Some(v4) => v4 != [224, 0, 0, 1],
        None => ip.0[1] & 15 > 1 && *ip != ALL_NODES,
    }
}

/// All nodes on the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ip = Ip([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// All systems on the subnet (RFC 1112 §4).
pub const ALL_SYSTEMS: Ip = Ip::v4([224, 0, 0, 1]);

/// A part of a length of time.
fn part(of: Duration, random: u32) -> Duration {
    Duration(((u128::from(of.0) * u128::from(random)) >> 32) as u64)
}

/// Whether a group is listened to.
#[must_use]
pub fn listens(groups: &[Group], ip: &Ip) -> bool {
    groups.iter().any(|group| group.users > 0 && group.ip == *ip)
}

/// One more listens to a group; false if there is no room.
pub fn join(groups: &mut [Group], ip: &Ip, now: Instant) -> bool {
    let known = groups.iter().position(|group| group.ip == *ip && (group.users > 0 || group.changes > 0));
    let free = || groups.iter().position(|group| group.users == 0 && group.changes == 0);
    let Some(group) = known.or_else(free).and_then(|at| groups.get_mut(at)) else { return false };
    if group.users > 0 {
        group.users = group.users.saturating_add(1);
        return true;
    }
    let (changes, due) = if is_told(ip) { (ROBUSTNESS, now.0.max(1)) } else { (0, 0) };
    *group = Group { due, ip: *ip, users: 1, changes, ..Group::default() };
    true
}

/// One less listens to it; false if nobody did.
pub fn leave(groups: &mut [Group], ip: &Ip, now: Instant) -> bool {
    let Some(group) = groups.iter_mut().find(|group| group.users > 0 && group.ip == *ip) else {
        return false;
    };
    group.users -= 1;
    if group.users == 0 {
        (group.changes, group.due) = if is_told(ip) { (ROBUSTNESS, now.0.max(1)) } else { (0, 0) };
    }
    true
}

/// Counts anew how many listen to each group that somebody listened to.
pub(crate) fn recount(groups: &mut [Group], mut users: impl FnMut(&Ip) -> u32) {
    for group in groups.iter_mut().filter(|group| group.users > 0) {
        group.users = users(&group.ip);
    }
}

/// A router asks: each group that it asks for is reported within the time that it gives. RFC 3810 §6.2: "If there is a pending
/// response to a previous General Query scheduled sooner than the selected delay, no additional response needs to be
/// scheduled." Each group has a timer of its own here, as in IGMPv2.
pub fn asked(
    groups: &mut [Group],
    query: &Query,
    is_v4: bool,
    now: Instant,
    mut random: impl FnMut() -> u32,
) {
    for group in groups.iter_mut().filter(|group| group.users > 0 && group.ip.is_v4() == is_v4) {
        if query.group.is_none_or(|of| of == group.ip) && is_told(&group.ip) {
            let at = (now + part(query.within, random())).0.max(1);
            group.due = if group.due == 0 { at } else { group.due.min(at) };
        }
    }
}

/// When a report is due.
#[must_use]
pub fn next(groups: &[Group]) -> Option<Instant> {
    groups.iter().map(|group| group.due).filter(|due| *due != 0).min().map(Instant)
}

/// Takes one report that is due.
pub fn report(groups: &mut [Group], now: Instant, random: u32) -> Option<(Ip, Report)> {
    let group = groups.iter_mut().find(|group| group.due != 0 && group.due <= now.0)?;
    let report = match (group.users, group.changes) {
        (0, _) => Report::Leaves,
        (_, 0) => Report::Listens,
        _ => Report::Joins,
    };
    group.changes = group.changes.saturating_sub(1);
    group.due = if group.changes > 0 { (now + part(UNSOLICITED, random)).0.max(1) } else { 0 };
    Some((group.ip, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
    const NOW: Instant = Instant(1_000_000_000);
    const HALF: u32 = 1 << 31;

    fn later(ms: u64) -> Instant {
        NOW + Duration::from_millis(ms)
    }

    #[test]
    fn a_change_is_told_twice_and_only_the_first_and_last_listener_make_one() {
        let mut groups = [Group::default(); 2];
        assert!(join(&mut groups, &GROUP, NOW) && join(&mut groups, &GROUP, NOW));
        assert!(listens(&groups, &GROUP) && next(&groups) == Some(NOW));
        assert_eq!(report(&mut groups, NOW, HALF), Some((GROUP, Report::Joins)));
        assert_eq!((report(&mut groups, NOW, HALF), next(&groups)), (None, Some(later(500))));
        assert_eq!(report(&mut groups, later(500), HALF), Some((GROUP, Report::Joins)));
        assert_eq!(next(&groups), None);
        assert!(leave(&mut groups, &GROUP, NOW) && next(&groups).is_none());
        assert!(leave(&mut groups, &GROUP, NOW) && !leave(&mut groups, &GROUP, NOW));
        assert!(!listens(&groups, &GROUP));
        for ms in [0, 500] {
            assert_eq!(report(&mut groups, later(ms), HALF), Some((GROUP, Report::Leaves)));
        }
        assert_eq!((next(&groups), groups[0].users), (None, 0));
    }

    #[test]
    fn a_question_is_answered_within_its_time_and_all_systems_never_told() {
        let mut groups = [Group::default(); 2];
        assert!(join(&mut groups, &ALL_SYSTEMS, NOW) && next(&groups).is_none());
        assert!(join(&mut groups, &GROUP, NOW) && !join(&mut groups, &ALL_NODES, NOW), "full");
        while report(&mut groups, later(10_000), 0).is_some() {}
        let query = Query { group: None, within: Duration::from_secs(10), is_old: false };
        asked(&mut groups, &query, true, NOW, || HALF);
        assert_eq!(next(&groups), Some(later(5000)));
        let sooner = Query { group: Some(GROUP), within: Duration::from_secs(1), is_old: false };
        asked(&mut groups, &sooner, true, NOW, || HALF);
        assert_eq!(next(&groups), Some(later(500)));
        asked(&mut groups, &query, false, NOW, || 0);
        assert_eq!(report(&mut groups, later(500), 0), Some((GROUP, Report::Listens)));
        assert_eq!(next(&groups), None);
    }

    #[test]
    fn nonsense_is_survived() {
        let group = Group { due: u64::MAX, ip: GROUP, users: u32::MAX, changes: 255, padding: [1; 3] };
        let mut groups = [group; 3];
        assert!(join(&mut groups, &GROUP, NOW));
        asked(
            &mut groups,
            &Query { group: None, within: Duration(u64::MAX), is_old: true },
            true,
            NOW,
            || u32::MAX,
        );
        for _ in 0..2000 {
            let _ = report(&mut groups, Instant(u64::MAX), u32::MAX);
        }
    }
}
