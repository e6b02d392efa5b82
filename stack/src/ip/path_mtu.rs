//! What the path to a destination takes: what routers tell (RFC 1191, RFC 8201), for ten minutes. The search that needs
//! no router is in [`probe`].
//!
//! Who writes "packet too big" may be lying, and the check of RFC 5927 ([`super::icmp::is_about_what_is_in_flight`]) is the
//! caller's. Even a message that passes it only ever lowers, never under a floor, and is forgotten.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::{Duration, Instant};
use crate::wire::ip::Ip;

pub mod probe;

#[cfg(test)]
mod tests;

/// How long what was told is believed (net.ipv4.route.mtu_expires, net.ipv6.route.mtu_expires). RFC 1191 §3: "an attempt
/// to detect an increase […] MUST NOT be done less than 5 minutes after a Datagram Too Big message has been received",
/// "We recommend setting these timers at twice their minimum values (10 minutes and 2 minutes, respectively)"; RFC 8201 §4
/// has the same numbers.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// The least that is believed of IPv4 (net.ipv4.route.min_pmtu). What is smaller, and the 0 of routers older than RFC 1191,
/// becomes this, and routers may fragment. RFC 1191 §3: "A host MUST never reduce its estimate of the Path MTU
/// below 68 octets": the departure upwards is Linux's, against who asks for tiny segments (RFC 5927 §7).
pub const V4_MIN: u16 = 552;
/// The least that IPv6's links take (RFC 8200 §5).
pub const V6_MIN: u16 = 1280;

/// Places that one hash has.
const WAYS: usize = 4;

/// A message that says what the next link takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooBig {
    /// Fragmentation needed and DF set (RFC 1191 §4).
    V4 {
        /// The next link's, or 0 if the router doesn't say.
        mtu: u32,
    },
    /// Packet too big (RFC 4443 §3.2).
    V6 {
        /// The next link's.
        mtu: u32,
    },
}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Bytes of the largest datagram.
    pub mtu: u16,
    /// The path takes less than we go down to: datagrams go without DF (ip_dont_fragment: a locked MTU). Never in IPv6.
    pub may_fragment: bool,
}

impl Known {
    /// What is known after a message, if it changes anything.
    ///
    /// RFC 1191 §3: "A host MUST not increase its estimate of the Path MTU in response to the contents of a Datagram
    /// Too Big message." RFC 8201 §4: "If a node receives a Packet Too Big message reporting a next-hop MTU that is
    /// less than the IPv6 minimum link MTU, it must discard it. A node must not reduce its estimate of the Path MTU
    /// below the IPv6 minimum link MTU on receipt of a Packet Too Big message."
    #[must_use]
    pub fn after(self, message: TooBig) -> Option<Self> {
        let told = match message {
            TooBig::V6 { mtu } if mtu < V6_MIN.into() => return None,
            TooBig::V4 { mtu } if mtu < V4_MIN.into() => {
                let floor = Self { mtu: self.mtu.min(V4_MIN), may_fragment: true };
                return (floor != self).then_some(floor);
            }
            TooBig::V4 { mtu } | TooBig::V6 { mtu } => mtu,
        };
        let lower = u16::try_from(told).ok().filter(|told| *told < self.mtu)?;
        Some(Self { mtu: lower, ..self })
    }
}

/// One destination's. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Path {
    /// When it is forgotten, in nanoseconds; 0 is a free place.
    until: u64,
    ip: Ip,
    mtu: u16,
    may_fragment: u16,
    padding: u32,
}

/// Paths over borrowed places. Those of one hash share four; the one that is forgotten soonest gives way, so that what an
/// attacker can fill is bounded, and what he displaces is learned again.
#[derive(Debug)]
pub struct Cache<'a>(&'a mut [Path]);

impl<'a> Cache<'a> {
    /// The cache in these places.
    #[must_use]
    pub fn new(places: &'a mut [Path]) -> Self {
        Self(places)
    }

    fn set(&mut self, hash: u32) -> &mut [Path] {
        let sets = (self.0.len() / WAYS) as u64;
        let first = u64::from(hash).checked_rem(sets).unwrap_or(0) as usize * WAYS;
        let end = (first + WAYS).min(self.0.len());
        &mut self.0[first..end]
    }

    /// What is known of the path to `ip`, whose hash is keyed by the region's secret. `route` is what the route's own link
    /// takes: nothing larger is.
    #[must_use]
    pub fn known(&mut self, ip: &Ip, hash: u32, route: u16, now: Instant) -> Known {
        let found = self.set(hash).iter().find(|path| path.until > now.0 && path.ip == *ip);
        match found {
            // No more than ten minutes: a place full of nonsense can't hold for ever either.
            Some(path) if path.until <= (now + LIFETIME).0 => Known {
                mtu: path.mtu.min(route).max(floor(ip).min(route)),
                may_fragment: path.may_fragment & 1 == 1 && ip.is_v4(),
            },
            _ => Known { mtu: route, may_fragment: false },
        }
    }

    /// Takes note of a message that was found to be about what we have sent; what is known then, if it changed anything.
    /// The sockets of that destination are told by the caller.
    pub fn hear(&mut self, ip: &Ip, hash: u32, route: u16, message: TooBig, now: Instant) -> Option<Known> {
        if matches!(message, TooBig::V4 { .. }) != ip.is_v4() {
            return None;
        }
        let known = self.known(ip, hash, route, now).after(message)?;
        let path = Path {
            until: (now + LIFETIME).0,
            ip: *ip,
            mtu: known.mtu,
            may_fragment: known.may_fragment.into(),
            padding: 0,
        };
        let set = self.set(hash);
        let place = match set.iter().position(|place| place.ip == *ip) {
            Some(place) => place,
            None => (0..set.len()).min_by_key(|at| set[*at].until)?,
        };
        set[place] = path;
        Some(known)
    }

    /// When the next of them is forgotten, after this moment.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.0.iter().map(|path| path.until).filter(|until| *until > now.0).min().map(Instant)
    }

    /// Forgets what is known of a path: its route has changed.
    pub fn forget(&mut self, ip: &Ip, hash: u32) {
        self.set(hash).iter_mut().filter(|path| path.ip == *ip).for_each(|path| *path = Path::default());
    }
}

fn floor(ip: &Ip) -> u16 {
    if ip.is_v4() { V4_MIN } else { V6_MIN }
}
