//! Who has which port of which address, and what the XDP program knows of it.
//!
//! A claim is for one address or for every one of a version, also those that the interface gets later. A port stays claimed as long
//! as one process holds it; the same process may hold it several times.

use std::collections::{BTreeMap, BTreeSet};

use driver::keeper::message::{Claimed, Port, Reason};
use driver::steering::{Claim, LOCALS, Place, Protocol, Steering};
use driver::sys::{self, Fd};
use stack::wire::ip::Ip;

/// Every slot of an address.
const ALL: u32 = (1 << LOCALS) - 1;
/// Claims that one keeper has at most, each with a descriptor.
pub(super) const CLAIMS_MAX: usize = 4096;

/// Why something is refused, and the number that belongs to it.
pub(super) type No = (Reason, u32);

/// Where claims are entered.
pub(super) trait Table {
    /// As [`Steering::set_local`].
    fn set_local(&self, address: &Ip, slot: u32) -> sys::Result<()>;
    /// As [`Steering::remove_local`].
    fn remove_local(&self, address: &Ip) -> sys::Result<()>;
    /// As [`Steering::claim`].
    fn claim(&self, place: Place, claim: Option<Claim>);
}

impl Table for Steering {
    fn set_local(&self, address: &Ip, slot: u32) -> sys::Result<()> {
        Self::set_local(self, address, slot)
    }

    fn remove_local(&self, address: &Ip) -> sys::Result<()> {
        Self::remove_local(self, address)
    }

    fn claim(&self, place: Place, claim: Option<Claim>) {
        // Every place that is entered here has a slot.
        let _ = Self::claim(self, place, claim);
    }
}

/// Which addresses a claim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Every address of IPv4.
    V4,
    /// Every address of IPv6.
    V6,
    /// Every address.
    Both,
    /// One.
    One(Ip),
}

impl Cover {
    fn holds(self, ip: &Ip) -> bool {
        match self {
            Self::V4 => ip.is_v4(),
            Self::V6 => !ip.is_v4(),
            Self::Both => true,
            Self::One(one) => one == *ip,
        }
    }

    /// Whether this is what a request means that brings no socket.
    fn is_named(self, local: &Ip) -> bool {
        match self {
            Self::V4 => *local == Ip::UNSPECIFIED_V4,
            Self::V6 | Self::Both => *local == Ip::UNSPECIFIED,
            Self::One(one) => one == *local,
        }
    }
}

/// A process that holds a claim, and the socket that is its right to it.
#[derive(Debug)]
struct Holder {
    pid: i32,
    socket: Option<Fd>,
}

#[derive(Debug)]
struct Held {
    cover: Cover,
    holders: Vec<Holder>,
}

impl Held {
    /// A holder goes. If only its socket holds the port in the kernel, another one has that from now on.
    fn remove(&mut self, at: usize) {
        let gone = self.holders.remove(at);
        if self.holders.iter().all(|holder| holder.socket.is_none())
            && let Some(heir) = self.holders.first_mut()
        {
            heir.socket = gone.socket;
        }
    }
}

impl Held {
    /// Only connections are left at the port: a program may listen there again, as it may in the kernel.
    fn retire(&self, half: i32) {
        if self.holders.iter().all(|holder| holder.pid == half) {
            for socket in self.holders.iter().filter_map(|holder| holder.socket.as_ref()) {
                let _ = sys::shutdown(socket.raw(), libc::SHUT_RDWR);
            }
        }
    }
}

/// A slot's address. It keeps the slot when it goes, for as long as it is claimed: it may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    ip: Ip,
    is_there: bool,
}

/// All claims on an interface.
#[derive(Debug)]
pub(super) struct Claims {
    owner: u32,
    slots: [Option<Slot>; LOCALS as usize],
    held: BTreeMap<(u8, u16), Vec<Held>>,
    leased: Vec<(u16, u16)>,
    mixed: BTreeSet<u16>,
    /// The keeper's other half: what it alone holds has no program any more.
    pub(super) half: i32,
}

impl Claims {
    /// None, of this owner; but for these ports of every address, which are leased to it.
    pub(super) fn new(owner: u32, leased: Vec<(u16, u16)>) -> Self {
        Self {
            owner,
            slots: [None; LOCALS as usize],
            held: BTreeMap::new(),
            leased,
            mixed: BTreeSet::new(),
            half: 0,
        }
    }

    /// The interface has an address. False if there is no slot for it: it stays the kernel's.
    pub(super) fn add_address(&mut self, table: &impl Table, ip: Ip) -> bool {
        let known = |slot: &Option<Slot>| slot.is_some_and(|slot| slot.ip == ip);
        let found = self.slots.iter().position(known).or_else(|| self.free_slot());
        let Some(at) = found else { return false };
        let is_new = !known(&self.slots[at]);
        self.slots[at] = Some(Slot { ip, is_there: true });
        if is_new {
            self.fill(table, at);
        }
        // Its ports are entered before packets to it are looked at.
        table.set_local(&ip, at as u32).is_ok()
    }

    /// A slot that nobody has, or else one whose address is gone and not claimed.
    fn free_slot(&self) -> Option<usize> {
        let is_claimed = |ip: Ip| self.held.values().flatten().any(|held| held.cover == Cover::One(ip));
        let is_old = |slot: &Option<Slot>| slot.is_some_and(|slot| !slot.is_there && !is_claimed(slot.ip));
        self.slots.iter().position(Option::is_none).or_else(|| self.slots.iter().position(is_old))
    }

    /// The interface no longer has an address: packets to it are the kernel's.
    pub(super) fn remove_address(&mut self, table: &impl Table, ip: &Ip) {
        if let Some(slot) = self.slots.iter_mut().flatten().find(|slot| slot.ip == *ip) {
            slot.is_there = false;
            let _ = table.remove_local(ip);
        }
    }

    /// The addresses that the interface has.
    pub(super) fn addresses(&self) -> Vec<Ip> {
        self.slots.iter().flatten().filter(|slot| slot.is_there).map(|slot| slot.ip).collect()
    }

    /// Enters all that is known of a slot's ports.
    fn fill(&self, table: &impl Table, slot: usize) {
        for port in 1..=u16::MAX {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                self.enter(table, slot, protocol, port);
            }
        }
    }

    /// Whether a port of an address is the owner's.
    pub(super) fn has(&self, protocol: Protocol, ip: &Ip, port: u16) -> bool {
        let is_leased = |(first, count): &(u16, u16)| (*first..=first + (count - 1)).contains(&port);
        let held = self.held.get(&(protocol as u8, port));
        self.leased.iter().any(is_leased)
            || held.is_some_and(|held| held.iter().any(|held| held.cover.holds(ip)))
    }

    fn enter(&self, table: &impl Table, slot: usize, protocol: Protocol, port: u16) {
        let Some(Slot { ip, .. }) = self.slots[slot] else { return };
        let is_ours = self.has(protocol, &ip, port);
        let mixed = protocol == Protocol::Tcp && self.mixed.contains(&port);
        let place = Place { slot: slot as u32, protocol, port };
        table.claim(place, is_ours.then_some(Claim { owner: self.owner, mixed }));
    }

    fn enter_all(&self, table: &impl Table, protocol: Protocol, port: u16) {
        for slot in 0..self.slots.len() {
            self.enter(table, slot, protocol, port);
        }
    }

    fn claimed(&self, cover: Cover) -> Result<Claimed, No> {
        let Cover::One(ip) = cover else { return Ok(Claimed { slots: ALL }) };
        let is_it = |slot: &Option<Slot>| slot.is_some_and(|slot| slot.ip == ip && slot.is_there);
        let at = self.slots.iter().position(is_it).ok_or((Reason::Address, 0))?;
        Ok(Claimed { slots: 1 << at })
    }

    /// A socket that was the right to a port is a connection from now on: whoever has that alone is to end it.
    pub(super) fn let_go(&mut self, port: u16, is_it: impl Fn(&Fd) -> bool) {
        for held in self.held.get_mut(&(Protocol::Tcp as u8, port)).into_iter().flatten() {
            for holder in &mut held.holders {
                holder.socket.take_if(|socket| is_it(socket));
            }
        }
    }

    /// A process claims a port with a socket that was found to be bound so.
    pub(super) fn claim(
        &mut self,
        table: &impl Table,
        pid: i32,
        port: &Port,
        cover: Cover,
        socket: Fd,
    ) -> Result<Claimed, No> {
        let claimed = self.claimed(cover)?;
        if self.held.values().flatten().map(|held| held.holders.len()).sum::<usize>() >= CLAIMS_MAX {
            return Err((Reason::Full, CLAIMS_MAX as u32));
        }
        let all = self.held.entry((port.protocol as u8, port.number)).or_default();
        let holder = Holder { pid, socket: Some(socket) };
        match all.iter_mut().find(|held| held.cover == cover) {
            Some(held) => held.holders.push(holder),
            None => all.push(Held { cover, holders: vec![holder] }),
        }
        self.enter_all(table, port.protocol, port.number);
        Ok(claimed)
    }

    /// Another process holds what one has claimed.
    pub(super) fn join(&mut self, pid: i32, port: &Port) -> Result<Claimed, No> {
        let held = self.held.get_mut(&(port.protocol as u8, port.number));
        let held = held.and_then(|held| held.iter_mut().find(|held| held.cover.is_named(&port.local)));
        let held = held.ok_or((Reason::Unclaimed, 0))?;
        held.holders.push(Holder { pid, socket: None });
        let cover = held.cover;
        self.claimed(cover)
    }

    /// A child of a process that has claims holds them as often as its parent, since it has the same descriptors.
    pub(super) fn inherit(&mut self, parent: i32, child: i32) {
        for held in self.held.values_mut().flatten() {
            let count = held.holders.iter().filter(|holder| holder.pid == parent).count();
            held.holders.extend((0..count).map(|_| Holder { pid: child, socket: None }));
        }
    }

    /// A process no longer needs a port, as often as it claimed it.
    pub(super) fn release(&mut self, table: &impl Table, pid: i32, port: &Port) -> Result<(), No> {
        let held = self.held.get_mut(&(port.protocol as u8, port.number));
        let held = held.and_then(|held| {
            held.iter_mut().find_map(|held| {
                let at = held.holders.iter().position(|holder| holder.pid == pid)?;
                held.cover.is_named(&port.local).then_some((held, at))
            })
        });
        let (held, at) = held.ok_or((Reason::Unclaimed, 0))?;
        held.remove(at);
        held.retire(self.half);
        self.drop_empty(table);
        Ok(())
    }

    /// A process has ended: what nobody else holds is free.
    pub(super) fn end(&mut self, table: &impl Table, pid: i32) {
        for held in self.held.values_mut().flatten() {
            while let Some(at) = held.holders.iter().position(|holder| holder.pid == pid) {
                held.remove(at);
            }
            held.retire(self.half);
        }
        self.drop_empty(table);
    }

    fn drop_empty(&mut self, table: &impl Table) {
        let mut changed = Vec::new();
        for (key, all) in &mut self.held {
            let before = all.len();
            all.retain(|held| !held.holders.is_empty());
            if all.len() != before {
                changed.push(*key);
            }
        }
        self.held.retain(|_, all| !all.is_empty());
        for (protocol, port) in changed {
            let protocol = if protocol == Protocol::Tcp as u8 { Protocol::Tcp } else { Protocol::Udp };
            if !self.held.contains_key(&(protocol as u8, port)) {
                self.mixed.remove(&port);
            }
            self.enter_all(table, protocol, port);
        }
    }

    /// The kernel has connections at a port of TCP, or none any more.
    pub(super) fn set_mixed(&mut self, table: &impl Table, port: u16, is_mixed: bool) {
        let changed = if is_mixed { self.mixed.insert(port) } else { self.mixed.remove(&port) };
        if changed {
            self.enter_all(table, Protocol::Tcp, port);
        }
    }
}

#[cfg(test)]
mod tests;
