//! Whose packet it is.
//!
//! [`Pairs`]: a record for both ends of a connection, found in one look at a table: connections of TCP, SYNs that
//! wait, connected sockets of UDP. [`Endpoints`]: sockets that take what comes to an address and port: listeners, and
//! sockets of UDP. The specific address is asked before the wildcard, and for IPv4 at last a socket of IPv6 that
//! listens at `::` and isn't IPV6_V6ONLY. Sockets that share address and port by SO_REUSEPORT are a group, of which
//! the hash of the connection chooses one, so that a connection stays with its socket.
//!
//! Order and choice are Linux's (`__inet_lookup_listener`, `reuseport_select_sock`, `udp4_lib_lookup`).

use core::hint;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash::Secret;
use crate::region::layout::LINE;
use crate::region::table::{Place, Table};
use crate::settings::Switch;
use crate::tcp::listener::{Listener, SynEntry};
use crate::tcp::tcb::Tcb;
use crate::udp::UdpSocket;
use crate::wire::ip::Ip;

#[cfg(test)]
mod tests;

/// An end of a connection.
pub type End<'a> = (&'a Ip, u16);

/// A record that belongs to both ends.
pub trait Pair {
    /// Our end.
    fn local(&self) -> End<'_>;
    /// The other's.
    fn remote(&self) -> End<'_>;
    /// Reads a byte of each of its lines: of very many records none is in the cache, and what is asked for together arrives together.
    fn touch(&self);
}

macro_rules! pairs {
    ($($record:ty),+) => { $(
        impl Pair for $record {
            #[inline]
            fn touch(&self) {
                let bytes = self.as_bytes();
                let lines = (0..size_of::<Self>()).step_by(LINE);
                hint::black_box(lines.fold(0, |all, line| all ^ bytes[line]));
            }
            #[inline]
            fn local(&self) -> End<'_> {
                (&self.local, self.local_port)
            }
            #[inline]
            fn remote(&self) -> End<'_> {
                (&self.remote, self.remote_port)
            }
        }
    )+ };
}

pairs!(Tcb, SynEntry, UdpSocket);

/// The table of records by both of their ends.
#[derive(Debug)]
pub struct Pairs<'a, R> {
    records: &'a [R],
    table: Table<'a>,
    secret: Secret,
}

impl<'a, R: Pair> Pairs<'a, R> {
    /// The table in these places.
    #[inline]
    #[must_use]
    pub fn new(records: &'a [R], places: &'a mut [Place], secret: Secret) -> Self {
        Self { records, table: Table::new(places), secret }
    }

    /// The record of a packet to `local` from `remote`.
    #[inline]
    #[must_use]
    pub fn find(&self, local: End<'_>, remote: End<'_>) -> Option<u32> {
        self.find_hashed(self.secret.tuple(local, remote), local, remote)
    }

    /// The same for whoever has the hash of both.
    #[inline]
    #[must_use]
    pub fn find_hashed(&self, hash: u32, local: End<'_>, remote: End<'_>) -> Option<u32> {
        self.table.find(hash, |index| {
            // The ports are most likely to differ.
            self.records.get(index as usize).is_some_and(|record| {
                record.touch();
                let (our, their) = (record.local(), record.remote());
                (their.1, our.1) == (remote.1, local.1) && their.0 == remote.0 && our.0 == local.0
            })
        })
    }

    /// A record that was found.
    #[must_use]
    pub fn record(&self, index: u32) -> Option<&R> {
        self.records.get(index as usize)
    }

    /// Reads the place where a packet's record is looked up; its hash.
    #[inline]
    pub fn look_ahead(&self, local: End<'_>, remote: End<'_>) -> u32 {
        let hash = self.secret.tuple(local, remote);
        hint::black_box(self.table.candidate(hash));
        hash
    }

    /// Reads the record that a hash is probably of; which it is.
    #[inline]
    pub fn touch(&self, hash: u32) -> Option<u32> {
        let index = self.table.candidate(hash)?;
        self.records.get(index as usize)?.touch();
        Some(index)
    }

    fn hash_of(&self, index: u32) -> Option<u32> {
        let record = self.records.get(index as usize)?;
        Some(self.secret.tuple(record.local(), record.remote()))
    }

    /// Adds a record, whose ends are set and which isn't in the table; false if the table is full.
    #[must_use]
    pub fn insert(&mut self, index: u32) -> bool {
        self.hash_of(index).is_some_and(|hash| self.table.insert(hash, index))
    }

    /// Takes a record out, before its ends change; false if it isn't there.
    pub fn remove(&mut self, index: u32) -> bool {
        self.hash_of(index).is_some_and(|hash| self.table.remove(hash, index))
    }

    /// Puts those that belong into a table that is made anew.
    pub(crate) fn rebuild(&mut self, belongs: impl Fn(&R) -> bool) {
        self.table.clear();
        for (index, record) in self.records.iter().enumerate() {
            if belongs(record) && self.find(record.local(), record.remote()).is_none() {
                let _ = self.insert(index as u32);
            }
        }
    }

    /// How many records are in the table, if all of them are where they belong and `belongs` there.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, belongs: impl Fn(&R) -> bool) -> Result<u32, &'static str> {
        let known = |index: u32| self.records.get(index as usize).is_some_and(&belongs);
        self.table.check(|index| known(index).then(|| self.hash_of(index)).flatten())
    }
}

/// How a socket shares its address and port; bits of its record's `sharing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing;

impl Sharing {
    /// A socket of IPv6.
    pub const V6: u8 = 1;
    /// IPV6_V6ONLY.
    pub const V6_ONLY: u8 = 2;
    /// SO_REUSEPORT: one of a group.
    pub const REUSE_PORT: u8 = 4;

    /// Of a socket with these options.
    #[must_use]
    pub const fn of(is_v6: bool, options: u32) -> u8 {
        let v6 = if is_v6 { Self::V6 } else { 0 };
        let v6_only = if is_v6 && options & Switch::V6_ONLY != 0 { Self::V6_ONLY } else { 0 };
        v6 | v6_only | if options & Switch::REUSE_PORT != 0 { Self::REUSE_PORT } else { 0 }
    }
}

/// Membership in the list of those that have the same address and port and share them in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Link {
    /// The next member, plus one; 0 is none.
    next: u32,
    /// In the first member: how many there are.
    count: u32,
}

/// A socket at an address and port.
pub trait Endpoint {
    /// Address and port.
    fn local(&self) -> End<'_>;
    /// Bits of [`Sharing`].
    fn sharing(&self) -> u8;
    /// Its membership.
    fn link(&self) -> Link;
    /// The same.
    fn link_mut(&mut self) -> &mut Link;
}

macro_rules! endpoints {
    ($($record:ty),+) => { $(
        impl Endpoint for $record {
            fn local(&self) -> End<'_> {
                (&self.local, self.local_port)
            }
            fn sharing(&self) -> u8 {
                self.sharing
            }
            fn link(&self) -> Link {
                self.link
            }
            fn link_mut(&mut self) -> &mut Link {
                &mut self.link
            }
        }
    )+ };
}

endpoints!(Listener, UdpSocket);

/// The table of sockets by address and port. A table entry is the first member of a list.
#[derive(Debug)]
pub struct Endpoints<'a, R> {
    records: &'a mut [R],
    table: Table<'a>,
    secret: Secret,
}

impl<'a, R: Endpoint> Endpoints<'a, R> {
    /// The table in these places.
    #[must_use]
    pub fn new(records: &'a mut [R], places: &'a mut [Place], secret: Secret) -> Self {
        Self { records, table: Table::new(places), secret }
    }

    fn link(&self, index: u32) -> Option<Link> {
        self.records.get(index as usize).map(Endpoint::link)
    }

    fn set_link(&mut self, index: u32, change: impl FnOnce(&mut Link)) {
        if let Some(record) = self.records.get_mut(index as usize) {
            change(record.link_mut());
        }
    }

    /// The first member of the list that shares `local` in just this way.
    fn group(&self, local: End<'_>, sharing: u8) -> Option<u32> {
        self.table.find(self.secret.endpoint(local), |index| {
            let record = self.records.get(index as usize);
            record.is_some_and(|record| record.local() == local && record.sharing() == sharing)
        })
    }

    /// The best list at exactly this address for a packet of the given version: a socket of IPv4 before one of IPv6.
    fn best(&self, address: &Ip, port: u16, is_v4: bool) -> Option<u32> {
        let mut best = None;
        self.table.find(self.secret.endpoint((address, port)), |index| {
            let Some(record) = self.records.get(index as usize) else { return false };
            let sharing = record.sharing();
            if record.local() != (address, port) || (is_v4 && sharing & Sharing::V6_ONLY != 0) {
                return false;
            }
            // Nothing is better than a socket of the packet's own version.
            let is_best = is_v4 == (sharing & Sharing::V6 == 0);
            if best.is_none() || is_best {
                best = Some(index);
            }
            is_best
        });
        best
    }

    /// The socket for a packet to `local`; `hash` is the connection's, for groups.
    #[must_use]
    pub fn find(&self, local: End<'_>, hash: u32) -> Option<u32> {
        let (address, port) = local;
        let is_v4 = address.is_v4();
        let wildcard = if is_v4 { Ip::UNSPECIFIED_V4 } else { Ip::UNSPECIFIED };
        let first = self.best(address, port, is_v4).or_else(|| self.best(&wildcard, port, is_v4));
        let dual = || self.best(&Ip::UNSPECIFIED, port, true).filter(|_| is_v4);
        self.choose(first.or_else(dual)?, hash)
    }

    /// Of a group the member that the hash says (`reciprocal_scale`), else the first.
    fn choose(&self, first: u32, hash: u32) -> Option<u32> {
        let record = self.records.get(first as usize)?;
        if record.sharing() & Sharing::REUSE_PORT == 0 {
            return Some(first);
        }
        let count = u64::from(record.link().count).min(self.records.len() as u64);
        let steps = (u64::from(hash) * count) >> 32;
        (0..steps).try_fold(first, |at, _| self.link(at)?.next.checked_sub(1))
    }

    /// Calls `each` for every socket at this address and port or at the wildcards: a packet to a multicast group or a
    /// broadcast goes to all of them.
    pub fn for_all(&self, (address, port): End<'_>, mut each: impl FnMut(u32)) {
        let is_v4 = address.is_v4();
        let wildcards = if is_v4 { [Ip::UNSPECIFIED_V4, Ip::UNSPECIFIED] } else { [Ip::UNSPECIFIED; 2] };
        let addresses = [*address, wildcards[0], wildcards[1]];
        let mut left = self.records.len();
        for address in &addresses[..if is_v4 { 3 } else { 2 }] {
            self.table.find(self.secret.endpoint((address, port)), |index| {
                let Some(record) = self.records.get(index as usize) else { return false };
                if record.local() != (address, port) || (is_v4 && record.sharing() & Sharing::V6_ONLY != 0) {
                    return false;
                }
                let mut at = Some(index);
                while let Some(index) = at
                    && left > 0
                {
                    each(index);
                    left -= 1;
                    at = self.link(index).and_then(|link| link.next.checked_sub(1));
                }
                false
            });
        }
    }

    fn hash_of(&self, index: u32) -> Option<u32> {
        self.records.get(index as usize).map(|record| self.secret.endpoint(record.local()))
    }

    /// Adds a socket, whose address, port and sharing are set and which isn't in the table: behind the others of a group,
    /// and before those that it shares with by SO_REUSEADDR only, for among them the newest gets everything. False if the
    /// table is full.
    #[must_use]
    pub fn insert(&mut self, index: u32) -> bool {
        let Some(hash) = self.hash_of(index) else { return false };
        let (local, sharing) = {
            let record = &self.records[index as usize];
            let (address, port) = record.local();
            ((*address, port), record.sharing())
        };
        let Some(first) = self.group((&local.0, local.1), sharing) else {
            self.set_link(index, |link| *link = Link { next: 0, count: 1 });
            return self.table.insert(hash, index);
        };
        let count = self.link(first).map_or(0, |link| link.count).saturating_add(1);
        if sharing & Sharing::REUSE_PORT != 0 {
            let Some(last) = self.last(first) else { return false };
            self.set_link(index, |link| *link = Link::default());
            self.set_link(last, |link| link.next = index.wrapping_add(1));
            self.set_link(first, |link| link.count = count);
            return true;
        }
        self.set_link(index, |link| *link = Link { next: first.wrapping_add(1), count });
        self.table.remove(hash, first) && self.table.insert(hash, index)
    }

    /// The last member of a list; `None` if it has no end.
    fn last(&self, first: u32) -> Option<u32> {
        let mut at = first;
        for _ in 0..self.records.len() {
            match self.link(at)?.next.checked_sub(1) {
                Some(next) => at = next,
                None => return Some(at),
            }
        }
        None
    }

    /// The member before this one.
    fn before(&self, first: u32, index: u32) -> Option<u32> {
        let mut at = first;
        for _ in 0..self.records.len() {
            let next = self.link(at)?.next.checked_sub(1)?;
            if next == index {
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// Takes a socket out, before its address, port and sharing change; false if it isn't there. In a group the
    /// last member takes its place (`reuseport_detach_sock`), so that most connections stay with their sockets.
    pub fn remove(&mut self, index: u32) -> bool {
        let Some(hash) = self.hash_of(index) else { return false };
        let record = &self.records[index as usize];
        let is_group = record.sharing() & Sharing::REUSE_PORT != 0;
        let Some(first) = self.group(record.local(), record.sharing()) else { return false };
        let before = self.before(first, index);
        if first != index && before.is_none() {
            return false;
        }
        let count = self.link(first).map_or(0, |link| link.count).saturating_sub(1);
        let successor = if is_group { self.move_last_behind(first, index) } else { self.next(index) };
        let Some(first) = before.map(|_| first).or(successor) else {
            return self.table.remove(hash, index);
        };
        if let Some(before) = before {
            self.set_link(before, |link| link.next = successor.map_or(0, |index| index.wrapping_add(1)));
        } else if !self.table.remove(hash, index) || !self.table.insert(hash, first) {
            return false;
        }
        self.set_link(first, |link| link.count = count);
        true
    }

    fn next(&self, index: u32) -> Option<u32> {
        self.link(index)?.next.checked_sub(1)
    }

    /// Makes the last member the one behind `index`, unless that is the last itself; which one is behind it then.
    fn move_last_behind(&mut self, first: u32, index: u32) -> Option<u32> {
        let last = self.last(first).filter(|last| *last != index)?;
        let next = self.next(index)?;
        if next != last {
            let before = self.before(next, last)?;
            self.set_link(before, |link| link.next = 0);
            self.set_link(last, |link| link.next = next.wrapping_add(1));
        }
        Some(last)
    }

    /// Puts those that belong into lists that are made anew.
    pub(crate) fn rebuild(&mut self, belongs: impl Fn(&R) -> bool) {
        self.table.clear();
        for index in 0..self.records.len() {
            if belongs(&self.records[index]) {
                let _ = self.insert(index as u32);
            }
        }
    }

    /// How many sockets are in the lists, if each is in one that it belongs to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, belongs: impl Fn(&R) -> bool) -> Result<u32, &'static str> {
        let mut members = 0u64;
        let most = self.records.len() as u64;
        let mut wrong = None;
        self.table
            .check(|first| {
                let record = self.records.get(first as usize).filter(|record| belongs(record))?;
                let (mut at, mut count) = (Some(first), 0);
                while let Some(index) = at {
                    let member = self.records.get(index as usize);
                    let is_one = |member: &&R| belongs(member) && member.local() == record.local();
                    let Some(member) = member.filter(is_one).filter(|_| members + count < most) else {
                        wrong = Some("a list of sockets at one address has a member that is not there");
                        return None;
                    };
                    if member.sharing() != record.sharing() {
                        wrong = Some("sockets that share an address differently are in one list");
                        return None;
                    }
                    (at, count) = (member.link().next.checked_sub(1), count + 1);
                }
                if count != u64::from(record.link().count) {
                    wrong = Some("a list of sockets at one address is not as long as it says");
                    return None;
                }
                members += count;
                Some(self.secret.endpoint(record.local()))
            })
            .map_err(|what| wrong.unwrap_or(what))?;
        Ok(members as u32)
    }
}
