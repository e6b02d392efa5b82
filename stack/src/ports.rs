//! Which addresses and ports are in use, who may share them, and which port a socket gets that asks for none.
//!
//! Sockets that are bound to the same address and port are one [`Bound`] record, which counts them by what they
//! allow: whether a new one may join is decided without looking at any socket, however many share a server's port.
//! The records of one port are a list; of these there are as many as we have addresses, and the wildcards.
//!
//! The rules are Linux's (`inet_bind_conflict`, `inet_rcv_saddr_equal`, `__inet_hash_connect`, `udp_lib_lport_inuse`).
//! Linux has shortcuts before its rules, which let a socket with SO_REUSEPORT join some that don't share by it when another
//! one there does; here the rule holds for all. Sockets of a region have one owner, and one network. The search for a
//! port is RFC 6056's, within the ports that the owner of the stack has leased from the kernel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::demux::End;
use crate::error::Error;
use crate::hash::{Purpose, Secret};
use crate::region::slab::{Handle, Record, Slab, Tag};
use crate::region::table::{Place, Table};
use crate::settings::Switch;
use crate::wire::ip::Ip;

mod ephemeral;
#[cfg(test)]
mod tests;

/// Whose ports: TCP's and UDP's are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
}

impl Protocol {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Tcp),
            1 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// As what a socket is counted: bits that its record keeps, so that it leaves as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Class(pub u8);

impl Class {
    /// SO_REUSEADDR.
    pub const REUSE_ADDRESS: u8 = 1;
    /// SO_REUSEPORT.
    pub const REUSE_PORT: u8 = 2;
    /// In LISTEN.
    pub const LISTEN: u8 = 4;
    /// It, or its listener, has called bind: connect does not choose such a port for others.
    pub const EXPLICIT: u8 = 8;

    /// Of a socket with these options.
    #[must_use]
    pub const fn of(options: u32) -> Self {
        let address = if options & Switch::REUSE_ADDRESS != 0 { Self::REUSE_ADDRESS } else { 0 };
        Self(address | if options & Switch::REUSE_PORT != 0 { Self::REUSE_PORT } else { 0 })
    }

    const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// It does not share by SO_REUSEADDR: a listener shares with nobody so.
    const fn is_strict(self) -> bool {
        !self.has(Self::REUSE_ADDRESS) || self.has(Self::LISTEN)
    }

    const fn is_alone(self) -> bool {
        !self.has(Self::REUSE_PORT)
    }
}

/// An address and port that sockets are bound to. Links are an index plus one, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bound {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The address: `::`, `0.0.0.0` or a single one.
    pub local: Ip,
    /// The port.
    pub port: u16,
    /// A [`Protocol`].
    pub protocol: u8,
    /// 1: `::` without IPv4 (IPV6_V6ONLY).
    pub v6_only: u8,
    /// The next record of the same port.
    next: u32,
    /// The previous one.
    previous: u32,
    /// Sockets.
    sockets: u32,
    /// Of those, the ones that don't share by SO_REUSEADDR, or listen.
    strict: u32,
    /// The ones without SO_REUSEPORT.
    alone: u32,
    /// The ones that are both.
    neither: u32,
}

impl Record for Bound {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Bound {
    /// Sockets that are bound here.
    #[must_use]
    pub const fn sockets(&self) -> u32 {
        self.sockets
    }

    fn count(&mut self, class: Class, by: impl Fn(u32) -> u32) {
        let (strict, alone) = (class.is_strict(), class.is_alone());
        for (counter, counts) in [
            (&mut self.sockets, true),
            (&mut self.strict, strict),
            (&mut self.alone, alone),
            (&mut self.neither, strict && alone),
        ] {
            *counter = if counts { by(*counter) } else { *counter };
        }
    }

    /// How many of its sockets a new one of this class can't share with. Two share if both have SO_REUSEADDR and the one that
    /// is there doesn't listen, or if both have SO_REUSEPORT (and one owner: all of a region have).
    const fn conflicts(&self, class: Class) -> u32 {
        match (class.has(Class::REUSE_ADDRESS), class.has(Class::REUSE_PORT)) {
            (false, false) => self.sockets,
            (true, false) => self.strict,
            (false, true) => self.alone,
            (true, true) => self.neither,
        }
    }
}

/// Whether two addresses have a packet in common.
fn overlap(a: (&Ip, bool), b: (&Ip, bool)) -> bool {
    let wildcard = |(any, v6_only): (&Ip, bool), other: &Ip| {
        (*any == Ip::UNSPECIFIED && !(v6_only && other.is_v4()))
            || (*any == Ip::UNSPECIFIED_V4 && other.is_v4())
    };
    a.0 == b.0 || wildcard(a, b.0) || wildcard(b, a.0)
}

/// What is known about one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    /// The first record.
    first: u32,
    /// Sockets that have called bind, or whose listener has.
    explicit: u32,
}

const PORTS: usize = 1 << 16;

/// Ports of which nothing is known.
static EMPTY: [Head; 512] = [Head { first: 0, explicit: 0 }; 512];

/// Every port of both protocols, and the state of the search. Zero bytes are: nothing in use.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Heads {
    heads: [[Head; PORTS]; 2],
    /// RFC 6056 §3.3.4's table, as large as Linux's (`table_perturb`): a small one tells hosts apart.
    counters: [u16; ephemeral::COUNTERS],
    /// Random numbers drawn.
    draws: u64,
}

/// Those of which something is known, with their numbers. Whole pieces without any are passed over.
fn in_use(heads: &[Head]) -> impl Iterator<Item = (usize, &Head)> {
    let pieces = heads.chunks(EMPTY.len()).zip((0..).step_by(EMPTY.len()));
    let known = pieces.filter(|(piece, _)| piece.as_bytes() != EMPTY.as_bytes());
    let numbered = known.flat_map(|(piece, first)| piece.iter().zip(first..));
    numbered.map(|(head, port)| (port, head)).filter(|(_, head)| **head != Head::default())
}

impl core::fmt::Debug for Heads {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Heads").field("draws", &self.draws).finish_non_exhaustive()
    }
}

/// Ports that are ours to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lease {
    /// Whether, and for which time, the record is in use.
    pub tag: Tag,
    /// The first port.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// A bit for each [`Protocol`].
    pub protocols: u8,
    /// 1: for sockets that ask for any port.
    pub is_ephemeral: u8,
    /// No meaning yet; zero.
    pub reserved: u16,
}

impl Record for Lease {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// A socket's wish.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address and port.
    pub local: End<'a>,
    /// `::` without IPv4.
    pub v6_only: bool,
    /// How the socket shares.
    pub class: Class,
}

/// The parts of the region that hold all this.
#[derive(Debug)]
pub struct Ports<'a> {
    /// By port.
    pub heads: &'a mut Heads,
    /// The slab of records.
    pub slab: &'a mut Slab,
    /// Records.
    pub bounds: &'a mut [Bound],
    /// Records by address and port.
    pub places: &'a mut [Place],
    /// Leased ports: the records that were ever used.
    pub leases: &'a [Lease],
    /// The region's secret.
    pub secret: Secret,
}

/// The hash of a record.
fn hash(secret: &Secret, local: End<'_>, protocol: Protocol, v6_only: bool) -> u32 {
    // Of two records with the same address and port at most four differ in the rest.
    secret.endpoint(local) ^ ((protocol as u32) << 1 | u32::from(v6_only))
}

impl Ports<'_> {
    fn head(&mut self, protocol: Protocol, port: u16) -> &mut Head {
        &mut self.heads.heads[protocol as usize][usize::from(port)]
    }

    /// The record of just this address and port.
    fn find(&mut self, protocol: Protocol, local: End<'_>, v6_only: bool) -> Option<u32> {
        let bounds = &*self.bounds;
        Table::new(self.places).find(hash(&self.secret, local, protocol, v6_only), |index| {
            bounds.get(index as usize).is_some_and(|bound| {
                (&bound.local, bound.port) == local
                    && bound.protocol == protocol as u8
                    && bound.v6_only == u8::from(v6_only)
            })
        })
    }

    /// Whether a socket of this class may not have this address and port beside those that are there.
    #[must_use]
    pub fn conflicts(&self, wish: &Wish<'_>) -> bool {
        let mut at = self.heads.heads[wish.protocol as usize][usize::from(wish.local.1)].first;
        for _ in 0..self.bounds.len() {
            let Some(bound) = at.checked_sub(1).and_then(|index| self.bounds.get(index as usize)) else {
                break;
            };
            let there = (&bound.local, bound.v6_only != 0);
            if bound.conflicts(wish.class) > 0 && overlap((wish.local.0, wish.v6_only), there) {
                return true;
            }
            at = bound.next;
        }
        false
    }

    /// Whether a socket has this port at all, and just this address or one of its own under it.
    #[must_use]
    pub fn is_used(&self, protocol: Protocol, port: u16) -> bool {
        self.heads.heads[protocol as usize][usize::from(port)].first != 0
    }

    /// bind(2) with a port: the record that the socket is now counted in.
    ///
    /// # Errors
    /// `AddressInUse` by sockets that don't share; `NoBuffers` at the limit of records.
    pub fn bind(&mut self, wish: &Wish<'_>) -> Result<u32, Error> {
        if self.conflicts(wish) { Err(Error::AddressInUse) } else { self.join(wish) }
    }

    /// Counts one more socket, without a question: the child of a listener, a connection whose port was searched.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of records.
    pub fn join(&mut self, wish: &Wish<'_>) -> Result<u32, Error> {
        let Wish { protocol, local, v6_only, class } = *wish;
        // Of a single address there is no other half.
        let v6_only = v6_only && *local.0 == Ip::UNSPECIFIED;
        let index = match self.find(protocol, local, v6_only) {
            Some(index) => index,
            None => self.open(protocol, local, v6_only).ok_or(Error::NoBuffers)?,
        };
        let bound = self.bounds.get_mut(index as usize).ok_or(Error::Corrupt)?;
        bound.count(class, |count| count.saturating_add(1));
        let head = self.head(protocol, local.1);
        head.explicit = head.explicit.saturating_add(u32::from(class.has(Class::EXPLICIT)));
        Ok(index)
    }

    /// A new record, the first of its port's.
    fn open(&mut self, protocol: Protocol, local: End<'_>, v6_only: bool) -> Option<u32> {
        let Handle { index, generation } = self.slab.take(self.bounds)?;
        let hash = hash(&self.secret, local, protocol, v6_only);
        if !Table::new(self.places).insert(hash, index) {
            self.slab.give(self.bounds, Handle { index, generation });
            return None;
        }
        let next = core::mem::replace(&mut self.head(protocol, local.1).first, index + 1);
        if let Some(next) = neighbour(self.bounds, next) {
            next.previous = index + 1;
        }
        let bound = self.bounds.get_mut(index as usize)?;
        *bound = Bound {
            tag: bound.tag,
            local: *local.0,
            port: local.1,
            protocol: protocol as u8,
            v6_only: v6_only.into(),
            next,
            ..Bound::default()
        };
        Some(index)
    }

    /// One socket less at this record, which had come as `class`.
    pub fn leave(&mut self, index: u32, class: Class) {
        let Some(bound) = self.bounds.get_mut(index as usize).filter(|bound| bound.tag.is_used()) else {
            return;
        };
        bound.count(class, |count| count.saturating_sub(1));
        let copy = *bound;
        let Some(protocol) = Protocol::of(copy.protocol) else { return };
        let head = self.head(protocol, copy.port);
        head.explicit = head.explicit.saturating_sub(u32::from(class.has(Class::EXPLICIT)));
        if copy.sockets > 0 {
            return;
        }
        match neighbour(self.bounds, copy.previous) {
            Some(previous) => previous.next = copy.next,
            None => self.head(protocol, copy.port).first = copy.next,
        }
        if let Some(next) = neighbour(self.bounds, copy.next) {
            next.previous = copy.previous;
        }
        let hash = hash(&self.secret, (&copy.local, copy.port), protocol, copy.v6_only != 0);
        Table::new(self.places).remove(hash, index);
        self.slab.give(self.bounds, copy.tag.handle(index));
    }

    /// The socket's class changes: an option that was set late, or listen(2), which asks once more for the port.
    ///
    /// # Errors
    /// `AddressInUse` if `asks` and others don't share with the new class; then nothing has changed.
    pub fn change(&mut self, index: u32, from: Class, to: Class, asks: bool) -> Result<(), Error> {
        let bound = self.bounds.get_mut(index as usize).filter(|bound| bound.tag.is_used());
        let bound = bound.ok_or(Error::Corrupt)?;
        bound.count(from, |count| count.saturating_sub(1));
        let copy = *bound;
        let protocol = Protocol::of(copy.protocol).ok_or(Error::Corrupt)?;
        let local = (&copy.local, copy.port);
        let refused =
            asks && self.conflicts(&Wish { protocol, local, v6_only: copy.v6_only != 0, class: to });
        let class = if refused { from } else { to };
        if let Some(bound) = self.bounds.get_mut(index as usize) {
            bound.count(class, |count| count.saturating_add(1));
        }
        let head = self.head(protocol, copy.port);
        let explicit = u32::from(from.has(Class::EXPLICIT));
        head.explicit =
            head.explicit.saturating_sub(explicit).saturating_add(u32::from(class.has(Class::EXPLICIT)));
        if refused { Err(Error::AddressInUse) } else { Ok(()) }
    }

    /// Begins to count anew: nobody is at any address or port.
    pub(crate) fn begin_recount(&mut self) {
        // Most of them were never written, and stay so.
        for heads in self.heads.heads.as_flattened_mut().chunks_mut(EMPTY.len()) {
            if heads.as_bytes() != EMPTY.as_bytes() {
                heads.fill(Head::default());
            }
        }
        for bound in &mut *self.bounds {
            (bound.sockets, bound.strict, bound.alone, bound.neither) = (0, 0, 0, 0);
        }
    }

    /// Counts a socket that says it is bound here, as this class; false if it can't be.
    pub(crate) fn recount(&mut self, index: u32, protocol: Protocol, port: u16, class: Class) -> bool {
        let bound = self.bounds.get_mut(index as usize).filter(|bound| bound.tag.is_used());
        let is_it = |bound: &&mut Bound| bound.protocol == protocol as u8 && bound.port == port && port != 0;
        let Some(bound) = bound.filter(is_it) else { return false };
        bound.count(class, |count| count.saturating_add(1));
        let head = self.head(protocol, port);
        head.explicit = head.explicit.saturating_add(u32::from(class.has(Class::EXPLICIT)));
        true
    }

    /// Lists the records at which sockets were counted; the others are free.
    pub(crate) fn end_recount(&mut self) {
        let Self { slab, bounds, .. } = self;
        slab.rebuild(bounds, |_, bound| bound.sockets > 0 && Protocol::of(bound.protocol).is_some());
        Table::new(self.places).clear();
        for index in 0..self.bounds.len() as u32 {
            let copy = self.bounds[index as usize];
            let Some(protocol) = Protocol::of(copy.protocol).filter(|_| copy.tag.is_used()) else { continue };
            let next = core::mem::replace(&mut self.head(protocol, copy.port).first, index + 1);
            if let Some(next) = neighbour(self.bounds, next) {
                next.previous = index + 1;
            }
            let bound = &mut self.bounds[index as usize];
            (bound.next, bound.previous) = (next, 0);
            let hash = hash(&self.secret, (&copy.local, copy.port), protocol, copy.v6_only != 0);
            let _ = Table::new(self.places).insert(hash, index);
        }
    }

    /// How many sockets are bound, if every record is in the list of its port and in the table.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&mut self) -> Result<u64, &'static str> {
        let (secret, bounds) = (self.secret, &*self.bounds);
        let known = |index: u32| {
            let bound = bounds.get(index as usize).filter(|bound| bound.tag.is_used())?;
            let protocol = Protocol::of(bound.protocol)?;
            Some(hash(&secret, (&bound.local, bound.port), protocol, bound.v6_only != 0))
        };
        if Table::new(self.places).check(known)? != self.slab.used() {
            return Err("an address in use is not in its table");
        }
        let (mut records, mut sockets) = (0, 0);
        for (protocol, heads) in self.heads.heads.iter().enumerate() {
            for (port, head) in in_use(heads) {
                let (mut at, mut previous, mut here) = (head.first, 0, 0);
                while at != 0 {
                    let bound = at.checked_sub(1).and_then(|index| bounds.get(index as usize));
                    let Some(bound) = bound.filter(|bound| bound.tag.is_used()) else {
                        return Err("a port's list names an address that is not in use");
                    };
                    let is_here = usize::from(bound.port) == port
                        && usize::from(bound.protocol) == protocol
                        && bound.previous == previous;
                    if !is_here || bound.sockets == 0 {
                        return Err("a port's list runs through an address that is not its own");
                    }
                    if bound.neither > bound.strict.min(bound.alone)
                        || bound.strict.max(bound.alone) > bound.sockets
                    {
                        return Err("an address counts more sockets of a kind than it has");
                    }
                    here += u64::from(bound.sockets);
                    (records, previous, at) = (records + 1, at, bound.next);
                }
                if u64::from(head.explicit) > here {
                    return Err("a port counts more sockets of a kind than it has");
                }
                sockets += here;
            }
        }
        if records == self.slab.used() {
            Ok(sockets)
        } else {
            Err("an address in use is not in its port's list")
        }
    }
}

fn neighbour(bounds: &mut [Bound], name: u32) -> Option<&mut Bound> {
    bounds.get_mut(name.checked_sub(1)? as usize)
}
