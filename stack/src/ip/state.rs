//! What the IP layer has once: its interface, and the state of its tables. The tables' records are rows of the region.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::coded::coded;

use super::group::Teller;
use super::icmp::limit;
use super::neighbour::{Neighbours, arp};
use super::{reassembly, route};
use crate::frames::pool::Charge;
use crate::wire::ethernet::{Address, C_TAG, Tag};
use crate::wire::ip::Ip;

/// How the stack is on its link. Zero bytes are an interface without a tag whose addresses are the owner's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Interface {
    /// Its address on the link; without meaning where packets begin with IP's header.
    pub link: Address,
    /// The tag of its packets: [`Interface::TAGGED`] and the VLAN's number, or 0 for none.
    pub vlan: u16,
    /// Bytes of its largest datagram; 0 is the device's.
    pub mtu: u32,
    /// Bits of [`Interface`].
    pub flags: u32,
    /// Its number on this host (if_nametoindex(3)); 0 if nobody has told it.
    pub number: u32,
}

impl Interface {
    /// Of [`Interface::vlan`]: packets have a tag (IEEE 802.1Q).
    pub const TAGGED: u16 = 1 << 15;
    /// Of [`Interface::flags`]: nobody else answers for the addresses. Questions of ARP and neighbor discovery, echo
    /// requests and closed ports are answered, who is on the link is asked for, and groups are joined. Without it the
    /// owner (the kernel, whose addresses these are) does all of it, and keeps the tables current.
    pub const OWNS: u32 = 1;
    /// Of [`Interface::flags`]: of our addresses of IPv6 temporary ones come first (net.ipv6.conf.*.use_tempaddr above 1).
    pub const PREFERS_TEMPORARY: u32 = 2;

    /// Whether the addresses are ours alone.
    #[must_use]
    pub const fn owns(&self) -> bool {
        self.flags & Self::OWNS != 0
    }

    /// Whether a user means it by this number: by its own, or by 0, which leaves the choice to us. As long as its own isn't known, every
    /// number is taken for it.
    #[must_use]
    pub const fn is_called(&self, number: i32) -> bool {
        number == 0 || number > 0 && (self.number == 0 || self.number == number as u32)
    }

    /// The tag of what is sent.
    #[must_use]
    pub const fn tag(&self) -> Option<Tag> {
        if self.vlan & Self::TAGGED == 0 {
            return None;
        }
        Some(Tag { tpid: C_TAG, control: self.vlan & 0x0fff })
    }

    /// The first bytes of a packet for this interface alone, as a number; larger than six bytes make if it has tags.
    #[inline]
    #[must_use]
    pub const fn plain(&self) -> u64 {
        let [a, b, c, d, e, f] = self.link.0;
        let [g, h] = self.vlan.to_le_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Whether a packet with these tags is for this interface: one with its tag, or one without where it has none. A tag
    /// of VLAN 0 tells a priority and nothing else (IEEE 802.1Q §6.9.1).
    #[must_use]
    pub fn takes(&self, tags: &[Option<Tag>; 2]) -> bool {
        let [outer, inner] = tags;
        let vlan = outer.map_or(0, |tag| tag.vlan());
        let ours = self.tag().map_or(0, |tag| tag.vlan());
        inner.is_none() && vlan == ours && outer.is_none_or(|tag| tag.tpid == C_TAG)
    }
}

coded! {
    /// What the routes of a version of IP are worth, where they are the owner's.
    pub enum Policy: u8 else Unknown {
        /// Nobody has fed them yet.
        Unknown = 0,
        /// They are all that decides: what they say is so.
        Mirrored = 1,
        /// Other rules than the usual ones choose between tables of routes, so the owner is to be asked for each destination.
        Rules = 2,
        /// There are more routes than a region has place for: likewise.
        Routes = 3,
        /// Source addresses are chosen by labels of an administrator's (RFC 6724 §2.1): likewise.
        Labels = 4,
    }
}

/// The way that was looked up last: one handler asks for the same several times, and often the next does, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LastWay {
    /// To whom.
    pub destination: Ip,
    /// Whom packets are given to on the link.
    pub next_hop: Ip,
    /// The address of ours that they come from.
    pub source: Ip,
    /// The route, with its hints.
    pub route: route::Route,
    /// [`State::version`] when it was looked up.
    pub version: u32,
    /// Bytes of the device's largest datagram; 0 when nothing was looked up yet.
    pub device_mtu: u32,
    /// [`crate::region::Parts::address_hash`] of the destination.
    pub hash: u32,
    /// Bytes of the largest datagram on our own link.
    pub link_mtu: u32,
    /// The neighbour of the next hop, plus one, if a datagram went there ([`crate::udp::send`]).
    pub neighbour: u32,
}

/// What there is once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    /// The routes' own state.
    pub table: route::Table,
    /// How the stack is on its link.
    pub interface: Interface,
    /// How many addresses are ours.
    pub addresses: u32,
    /// The neighbours' own state.
    pub neighbours: Neighbours,
    /// Names the next datagram that goes in fragments.
    pub identification: u32,
    /// Counts the numbers that were drawn.
    pub drawn: u32,
    /// What the routes of IPv4, and those of IPv6, are worth: a [`Policy`].
    pub policies: [u8; 2],
    /// Another one after each change of the owner's routes and rules, while he is asked for each destination.
    pub epoch: u16,
    /// When the first path's MTU is forgotten, in nanoseconds; 0 is never.
    pub paths_until: u64,
    /// When the first report of a group is due, in nanoseconds; 0 is never.
    pub groups_due: u64,
    /// What routers are told of groups of IPv6 and of IPv4, and when.
    pub tellers: [Teller; 2],
    /// The fragments' own state.
    pub reassembly: reassembly::State,
    /// How many errors may be sent to whomever.
    pub errors: limit::Global,
    /// When one of our addresses was defended.
    pub defence: arp::Defence,
    /// Frames of packets that wait for a neighbour.
    pub waiting: Charge,
    /// Frames of fragments that wait for each other.
    pub fragments: Charge,
    /// The way that was looked up last.
    pub last_way: LastWay,
    /// Frames of datagrams that the device sends and whose sockets are closed.
    pub sent: Charge,
}

impl State {
    /// Of all that a socket keeps of a lookup: while it is the same, what it keeps is right.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u32 {
        // Both only ever grow, so the sum is another one after each change of either.
        self.table.version().wrapping_add(self.neighbours.removed())
    }

    /// What the routes to a destination are worth.
    #[must_use]
    pub fn policy(&self, destination: &Ip) -> Policy {
        Policy::decode(self.policies[usize::from(!destination.is_v4())])
    }

    /// When something of it is to be done next, but for neighbours, in nanoseconds; the largest number is never.
    #[inline]
    #[must_use]
    pub fn due(&self) -> u64 {
        let of = |due: u64| if due == 0 { u64::MAX } else { due };
        let fragments = self.reassembly.next().map_or(u64::MAX, |at| at.0);
        fragments.min(of(self.paths_until)).min(of(self.groups_due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::S_TAG;

    #[test]
    fn an_interface_takes_its_own_vlan_and_no_other() {
        let tagged = |tpid, control| Some(Tag { tpid, control });
        let plain = Interface::default();
        let vlan = Interface { vlan: Interface::TAGGED | 7, ..plain };
        assert_eq!((plain.tag(), vlan.tag()), (None, tagged(C_TAG, 7)));
        assert!(plain.takes(&[None, None]) && !vlan.takes(&[None, None]));
        // With priority 5, which is nobody's business here.
        assert!(vlan.takes(&[tagged(C_TAG, 5 << 13 | 7), None]) && !plain.takes(&[tagged(C_TAG, 7), None]));
        assert!(plain.takes(&[tagged(C_TAG, 5 << 13), None]), "a priority alone");
        for tags in [[tagged(C_TAG, 8), None], [tagged(S_TAG, 7), None], [tagged(S_TAG, 7), tagged(C_TAG, 7)]]
        {
            assert!(!vlan.takes(&tags) && !plain.takes(&tags), "{tags:?}");
        }
    }
}
