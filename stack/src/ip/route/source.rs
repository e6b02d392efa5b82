//! Which of our addresses a packet comes from: RFC 6724 §5 for IPv6, RFC 1122 §3.3.4.3 for IPv4 as Linux has it
//! (ipv6_get_saddr_eval, inet_select_addr).
//!
//! Addresses are those of one interface. So rules 5 (prefer outgoing interface) and 5.5 (the prefix that the next hop
//! advertised) choose nothing; rule 4 is for mobile nodes, which we aren't.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::masked;
use crate::wire::ip::Ip;

/// One of our addresses. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address {
    /// The address.
    pub ip: Ip,
    /// Leading bits that its subnet shares, of 128; IPv4's have 96 more.
    pub prefix_len: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// No meaning; zero.
    pub reserved: [u8; 2],
}

/// Bits of [`Address::flags`].
pub mod flag {
    /// Not for new connections if there is another (IFA_F_DEPRECATED, RFC 4862 §5.5.4).
    pub const DEPRECATED: u8 = 1;
    /// Not to be used yet: duplicate address detection goes on or has failed (IFA_F_TENTATIVE, IFA_F_DADFAILED).
    pub const TENTATIVE: u8 = 2;
    /// Made for privacy (IFA_F_TEMPORARY, RFC 8981).
    pub const TEMPORARY: u8 = 4;
    /// Of IPv4: another one of the same subnet came first (IFA_F_SECONDARY).
    pub const SECONDARY: u8 = 8;
}

impl Address {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// RFC 6724 §4: "multicast addresses and the unspecified address MUST NOT be included in a candidate set"; RFC
    /// 4862 §5.4: a tentative one isn't ours yet.
    fn is_candidate(&self) -> bool {
        !(self.ip.is_unspecified() || self.ip.is_multicast() || self.has(flag::TENTATIVE))
    }

    /// Whether another address is on its subnet.
    #[must_use]
    pub fn is_on_link(&self, other: &Ip) -> bool {
        self.ip.is_v4() == other.is_v4()
            && masked(other, self.prefix_len) == masked(&self.ip, self.prefix_len)
    }

    /// The subnet's broadcast address (RFC 922 §7): of IPv4, with more than one host bit.
    #[must_use]
    pub fn broadcast(&self) -> Option<Ip> {
        let hosts =
            self.ip.as_v4().and(128u8.checked_sub(self.prefix_len)).filter(|bits| (2..=32).contains(bits))?;
        let all_ones = u128::from_be_bytes(self.ip.0) | ((1 << hosts) - 1);
        Some(Ip(all_ones.to_be_bytes()))
    }
}

/// A scope's number (RFC 6724 §3.1, RFC 4291 §2.7).
fn scope(ip: &Ip) -> u8 {
    match ip.0 {
        [0xff, flags_scope, ..] => flags_scope & 15,
        [0xfe, second, ..] if second & 0xc0 == 0xc0 => 5,
        // The loopback address has link-local scope too (RFC 6724 §3.4).
        _ if ip.is_link_local() || ip.is_loopback() => 2,
        _ => 14,
    }
}

/// The policy table (RFC 6724 §2.1): prefix, its length, label. Precedences are for choosing destinations, which programs
/// do.
#[rustfmt::skip]
const POLICY: &[(Ip, u8, u8)] = &[
    (Ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 128, 0),
    (Ip::UNSPECIFIED_V4, 96, 4),
    (Ip([0; 16]), 96, 3),
    (prefix([0x20, 0x01, 0, 0]), 32, 5),
    (prefix([0x20, 0x02, 0, 0]), 16, 2),
    (prefix([0x3f, 0xfe, 0, 0]), 16, 12),
    (prefix([0xfe, 0xc0, 0, 0]), 10, 11),
    (prefix([0xfc, 0x00, 0, 0]), 7, 13),
    (Ip([0; 16]), 0, 1),
];

const fn prefix([a, b, c, d]: [u8; 4]) -> Ip {
    Ip([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// The label of the longest prefix in the policy table; its rows are in that order.
fn label(ip: &Ip) -> u8 {
    let row = POLICY.iter().find(|(prefix, len, _)| masked(ip, *len) == *prefix);
    row.map_or(1, |(_, _, label)| *label)
}

/// CommonPrefixLen (RFC 6724 §2.2): "up to the length of S's prefix".
fn common(source: &Address, destination: &Ip) -> u8 {
    let differing = u128::from_be_bytes(source.ip.0) ^ u128::from_be_bytes(destination.0);
    (differing.leading_zeros() as u8).min(source.prefix_len)
}

/// The source address of a packet to `destination` by way of `next_hop`, for a socket that isn't bound and a route without
/// a hint. `prefers_public` is IPV6_PREFER_SRC_PUBLIC, or net.ipv6.conf.*.use_tempaddr ≤ 1.
#[must_use]
pub fn choose(addresses: &[Address], destination: &Ip, next_hop: &Ip, prefers_public: bool) -> Option<Ip> {
    let of_version = addresses
        .iter()
        .filter(|address| address.is_candidate() && address.ip.is_v4() == destination.is_v4());
    let chosen = if destination.is_v4() {
        choose_v4(of_version, next_hop)
    } else {
        // The first of equals: reduce keeps what it has.
        of_version.reduce(
            |best, other| if is_better(other, best, destination, prefers_public) { other } else { best },
        )
    };
    chosen.map(|address| address.ip)
}

/// RFC 1122 §3.3.4.3: the first address on the next hop's subnet, else the first of all (inet_select_addr).
fn choose_v4<'a>(addresses: impl Iterator<Item = &'a Address>, next_hop: &Ip) -> Option<&'a Address> {
    let mut first = None;
    for address in addresses.filter(|address| !address.has(flag::SECONDARY)) {
        if address.is_on_link(next_hop) {
            return Some(address);
        }
        first = first.or(Some(address));
    }
    first
}

/// RFC 6724 §5: whether SA is preferred to SB. Rules that don't decide fall through to the next.
fn is_better(sa: &Address, sb: &Address, destination: &Ip, prefers_public: bool) -> bool {
    // "Rule 1: Prefer same address."
    let same = |s: &Address| s.ip == *destination;
    // "Rule 2: Prefer appropriate scope. If Scope(SA) < Scope(SB): If Scope(SA) < Scope(D), then prefer SB and otherwise
    // prefer SA."
    let (scope_a, scope_b, scope_d) = (scope(&sa.ip), scope(&sb.ip), scope(destination));
    // "Rule 3: Avoid deprecated addresses."
    let current = |s: &Address| !s.has(flag::DEPRECATED);
    // "Rule 6: Prefer matching label."
    let labelled = |s: &Address| label(&s.ip) == label(destination);
    // "Rule 7: Prefer temporary addresses", or the reverse.
    let private = |s: &Address| s.has(flag::TEMPORARY) != prefers_public;
    if same(sa) != same(sb) {
        same(sa)
    } else if scope_a < scope_b {
        scope_a >= scope_d
    } else if scope_b < scope_a {
        scope_b < scope_d
    } else if current(sa) != current(sb) {
        current(sa)
    } else if labelled(sa) != labelled(sb) {
        labelled(sa)
    } else if private(sa) != private(sb) {
        private(sa)
    } else {
        // "Rule 8: Use longest matching prefix."
        common(sa, destination) > common(sb, destination)
    }
}

#[cfg(test)]
mod tests;
