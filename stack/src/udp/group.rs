//! Multicast groups of sockets (net/ipv4/igmp.c: ip_mc_join_group, ip_mc_source, ip_mc_sf_allow; net/ipv6/mcast.c).
//!
//! A socket's memberships are a list. A group has one record without a source, which says whether its sources are those that are let
//! through or those that are kept out, and one for each of these.

use super::{Mark, Membership, UdpSocket};
use crate::device::Device;
use crate::error::Error;
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::settings::{self, Switch};
use crate::stack::Stack;
use crate::time::Instant;
use crate::wire::ip::Ip;

#[cfg(test)]
mod tests;

/// Most groups of one socket (net.ipv4.igmp_max_memberships).
const GROUPS_MAX: usize = 20;
/// Most sources of one of its groups (net.ipv4.igmp_max_msf).
const SOURCES_MAX: usize = 10;

/// What sources of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Filter {
    /// All are let through but these (MCAST_EXCLUDE).
    Exclude = 0,
    /// None but these (MCAST_INCLUDE).
    Include = 1,
}

impl Membership {
    /// Whether it is the one that stands for the group.
    pub(crate) fn is_group(&self) -> bool {
        self.source.is_unspecified()
    }

    /// What the sources are.
    pub(crate) const fn filter(&self) -> Filter {
        if self.filter == Filter::Include as u16 { Filter::Include } else { Filter::Exclude }
    }
}

impl UdpSocket {
    /// Whether it gets what is sent to groups that it isn't in and others here are (IP_MULTICAST_ALL, IPV6_MULTICAST_ALL). A socket of
    /// IPv6 has the first switched off, since inet6_create doesn't switch it on.
    pub(crate) const fn hears_all(&self, options: u32, is_v4: bool) -> bool {
        match is_v4 {
            true => self.is(Mark::V6) == (options & Switch::OTHER_MULTICAST_ALL != 0),
            false => options & Switch::NO_MULTICAST_ALL_V6 == 0,
        }
    }
}

impl Parts<'_> {
    /// The memberships of a socket.
    fn udp_memberships(&self, index: u32) -> impl Iterator<Item = (u32, &Membership)> {
        let first = self.udp_sockets.get(index as usize).map_or(0, |udp| udp.memberships);
        let at = |link: u32| {
            let index = link.checked_sub(1)?;
            Some((index, self.memberships.get(index as usize).filter(|record| record.tag.is_used())?))
        };
        core::iter::successors(at(first), move |(_, record)| at(record.next)).take(self.memberships.len())
    }

    fn udp_group(&self, index: u32, group: &Ip) -> Option<(u32, &Membership)> {
        self.udp_memberships(index).find(|(_, record)| record.group == *group && record.is_group())
    }

    fn udp_source(&self, index: u32, group: &Ip, source: &Ip) -> Option<u32> {
        let mut all = self.udp_memberships(index);
        all.find(|(_, record)| record.group == *group && record.source == *source).map(|(at, _)| at)
    }

    /// How many sources of a group it has chosen.
    fn udp_sources(&self, index: u32, group: &Ip) -> usize {
        self.udp_memberships(index).filter(|(_, record)| record.group == *group && !record.is_group()).count()
    }

    /// Whether a socket gets what a source sends to a group (ip_mc_sf_allow, inet6_mc_check). Broadcasts it gets.
    #[must_use]
    pub fn udp_hears(&self, index: u32, group: &Ip, source: &Ip) -> bool {
        if !group.is_multicast() {
            return true;
        }
        let Some((_, member)) = self.udp_group(index, group) else {
            let Some(udp) = self.udp_sockets.get(index as usize) else { return false };
            return udp.hears_all(settings::of(self.settings, udp.settings).options, group.is_v4());
        };
        let is_listed = self.udp_source(index, group, source).is_some();
        (member.filter == Filter::Include as u16) == is_listed
    }

    fn udp_add(&mut self, socket: Handle, new: &Membership) -> Result<(), Error> {
        let next = self.udp(socket)?.memberships;
        let handle = self.slabs.memberships.take(self.memberships).ok_or(Error::NoBuffers)?;
        let record = self.memberships.get_mut(handle.index as usize).ok_or(Error::Corrupt)?;
        *record = Membership { tag: record.tag, next, owner: socket.index.wrapping_add(1), ..*new };
        crate::recover::fence();
        self.udp(socket)?.memberships = handle.index + 1;
        Ok(())
    }

    fn udp_remove(&mut self, socket: Handle, at: u32) -> Result<(), Error> {
        let before = self.udp_memberships(socket.index).find(|(_, record)| record.next == at + 1);
        let before = before.map(|(index, _)| index);
        let record = *self.memberships.get(at as usize).ok_or(Error::Corrupt)?;
        match before.and_then(|before| self.memberships.get_mut(before as usize)) {
            Some(before) => before.next = record.next,
            None => self.udp(socket)?.memberships = record.next,
        }
        self.slabs.memberships.give(self.memberships, record.tag.handle(at));
        Ok(())
    }

    /// IP_ADD_MEMBERSHIP, IPV6_JOIN_GROUP: the socket gets what is sent to a group.
    ///
    /// # Errors
    /// `Invalid` if it is none; `AddressInUse` if the socket is in it; `NoBuffers` at the limit of groups.
    pub fn udp_join_group(&mut self, socket: Handle, group: &Ip, now: Instant) -> Result<(), Error> {
        self.udp_join_as(socket, group, Filter::Exclude, now)
    }

    fn udp_join_as(&mut self, socket: Handle, group: &Ip, filter: Filter, now: Instant) -> Result<(), Error> {
        self.udp(socket)?;
        if !group.is_multicast() {
            return Err(Error::Invalid);
        }
        if self.udp_group(socket.index, group).is_some() {
            return Err(Error::AddressInUse);
        }
        if self.udp_memberships(socket.index).filter(|(_, record)| record.is_group()).count() >= GROUPS_MAX {
            return Err(Error::NoBuffers);
        }
        self.udp_add(socket, &Membership { group: *group, filter: filter as u16, ..Membership::default() })?;
        let joined = self.join_group_by(group, filter, now);
        if joined.is_err()
            && let Some((at, _)) = self.udp_group(socket.index, group)
        {
            self.udp_remove(socket, at)?;
        }
        joined
    }

    /// IP_DROP_MEMBERSHIP, IPV6_LEAVE_GROUP.
    ///
    /// # Errors
    /// `AddressNotAvailable` if the socket isn't in it.
    pub fn udp_leave_group(&mut self, socket: Handle, group: &Ip, now: Instant) -> Result<(), Error> {
        self.udp(socket)?;
        let (at, member) = self.udp_group(socket.index, group).ok_or(Error::AddressNotAvailable)?;
        let filter = member.filter();
        self.with_groups(|groups| groups.begin(group));
        self.udp_remove(socket, at)?;
        for _ in 0..self.memberships.len() {
            let mut sources = self.udp_memberships(socket.index);
            let Some((at, record)) = sources.find(|(_, record)| record.group == *group) else { break };
            let source = record.source;
            drop(sources);
            self.udp_remove(socket, at)?;
            self.with_groups(|groups| groups.count(group, filter, Some(&source), false));
        }
        self.with_groups(|groups| groups.leave_begun(group, filter, now));
        Ok(())
    }

    /// IP_ADD_SOURCE_MEMBERSHIP and IP_DROP_SOURCE_MEMBERSHIP with [`Filter::Include`], IP_BLOCK_SOURCE and IP_UNBLOCK_SOURCE with
    /// [`Filter::Exclude`]: a source is added to those of a group, or taken away.
    ///
    /// # Errors
    /// `Invalid` if the socket isn't in the group, or its other sources are of the other kind; `AddressNotAvailable` if the
    /// source is there already, or isn't; `NoBuffers` at the limit of sources.
    pub fn udp_filter(
        &mut self,
        socket: Handle,
        group: &Ip,
        source: &Ip,
        (filter, adds): (Filter, bool),
        now: Instant,
    ) -> Result<(), Error> {
        self.udp(socket)?;
        if source.is_unspecified() || source.is_v4() != group.is_v4() {
            return Err(Error::Invalid);
        }
        if filter == Filter::Include && adds {
            match self.udp_join_as(socket, group, filter, now) {
                Ok(()) | Err(Error::AddressInUse) => {}
                refused => return refused,
            }
        }
        let (at, member) = self.udp_group(socket.index, group).ok_or(Error::Invalid)?;
        let (is_fixed, sources) = (member.had_sources != 0, self.udp_sources(socket.index, group));
        if is_fixed && member.filter != filter as u16 {
            return Err(Error::Invalid);
        }
        let known = self.udp_source(socket.index, group, source);
        match (known, adds) {
            (Some(_), true) | (None, false) => return Err(Error::AddressNotAvailable),
            (None, true) if sources >= SOURCES_MAX => return Err(Error::NoBuffers),
            _ => {}
        }
        let before = member.filter();
        if let Some(member) = self.memberships.get_mut(at as usize) {
            (member.filter, member.had_sources) = (filter as u16, 1);
        }
        if before != filter {
            self.with_groups(|groups| {
                groups.begin(group);
                groups.count(group, filter, None, true);
                groups.count(group, before, None, false);
                groups.end(group, now);
            });
        }
        match known {
            // Nobody is let through any more: that is none of the group's.
            Some(_) if filter == Filter::Include && sources == 1 => {
                return self.udp_leave_group(socket, group, now);
            }
            Some(known) => self.udp_remove(socket, known)?,
            None => {
                let (group, source, filter) = (*group, *source, filter as u16);
                self.udp_add(socket, &Membership { group, source, filter, ..Membership::default() })?;
            }
        }
        self.with_groups(|groups| {
            groups.begin(group);
            // Without room routers aren't told (ip_mc_source), and the socket has what it asked for.
            groups.count(group, filter, Some(source), adds);
            groups.end(group, now);
        });
        Ok(())
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// A socket that is closed is in no group.
    pub(crate) fn udp_leave_groups(&mut self, socket: Handle) -> Result<(), Error> {
        for _ in 0..self.parts.memberships.len() {
            let mut all = self.parts.udp_memberships(socket.index);
            let Some(group) = all.find(|(_, record)| record.is_group()).map(|(_, record)| record.group)
            else {
                break;
            };
            drop(all);
            self.parts.udp_leave_group(socket, &group, self.now)?;
        }
        Ok(())
    }
}
