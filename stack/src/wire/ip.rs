//! Addresses of either version in one type, and what fragments of either version tell.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first twelve bytes of an IPv4-mapped address (RFC 4291 §2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// An address of IPv6, or one of IPv4 in its IPv4-mapped form. Every bit pattern is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Ip(pub [u8; 16]);

impl Ip {
    /// `::`, IPv6's "any".
    pub const UNSPECIFIED: Self = Self([0; 16]);
    /// `0.0.0.0`, IPv4's "any".
    pub const UNSPECIFIED_V4: Self = Self::v4([0; 4]);
    /// `255.255.255.255`.
    pub const BROADCAST: Self = Self::v4([255; 4]);

    /// An address of IPv4.
    #[must_use]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The last four bytes: the address itself if it is one of IPv4.
    const fn last(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Whether this is an address of IPv4.
    #[inline]
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == MAPPED
    }

    /// The four bytes of an address of IPv4.
    #[inline]
    #[must_use]
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        self.is_v4().then(|| self.last())
    }

    /// `0.0.0.0` or `::`.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        *self == Self::UNSPECIFIED || *self == Self::UNSPECIFIED_V4
    }

    /// 127.0.0.0/8 (RFC 1122 §3.2.1.3 g) or `::1` (RFC 4291 §2.5.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.as_v4() {
            Some([first, ..]) => first == 127,
            None => self.0 == 1u128.to_be_bytes(),
        }
    }

    /// 224.0.0.0/4 (RFC 1112 §4) or ff00::/8 (RFC 4291 §2.7).
    #[must_use]
    pub fn is_multicast(&self) -> bool {
        match self.as_v4() {
            Some([first, ..]) => first & 0xf0 == 0xe0,
            None => self.0[0] == 0xff,
        }
    }

    /// The limited broadcast (RFC 919 §7). Broadcasts of a subnet are its route's to know.
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        *self == Self::BROADCAST
    }

    /// 169.254.0.0/16 (RFC 3927 §2.1) or fe80::/10 (RFC 4291 §2.5.6).
    #[must_use]
    pub fn is_link_local(&self) -> bool {
        match self.as_v4() {
            Some([a, b, ..]) => a == 169 && b == 254,
            None => self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80,
        }
    }

    /// The solicited-node multicast address of an IPv6 address (RFC 4291 §2.7.1).
    #[must_use]
    pub const fn solicited_node(&self) -> Self {
        let [_, b, c, d] = self.last();
        Self([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, b, c, d])
    }
}

impl Default for Ip {
    fn default() -> Self {
        Self::UNSPECIFIED
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_v4() {
            Some(octets) => fmt::Display::fmt(&Ipv4Addr::from(octets), out),
            None => fmt::Display::fmt(&Ipv6Addr::from(self.0), out),
        }
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Where a fragment belongs in its datagram (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Names the datagram, with its addresses (and the protocol in IPv4). 16 bits in IPv4.
    pub identification: u32,
    /// Of the first byte, in bytes: a multiple of eight.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
}

impl Fragment {
    /// Whether a payload of so many bytes can have this place.
    pub(super) const fn holds(&self, len: usize) -> bool {
        (!self.more || (len.is_multiple_of(8) && len > 0)) && self.offset as usize + len <= u16::MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ip {
        match text.parse::<Ipv4Addr>() {
            Ok(address) => Ip::v4(address.octets()),
            Err(_) => Ip(text.parse::<Ipv6Addr>().expect("an address").octets()),
        }
    }

    #[test]
    fn addresses_print_as_they_are_written() {
        for text in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1", "2001:db8::1", "::102:304"] {
            assert_eq!(ip(text).to_string(), text);
            assert_eq!(ip(text).is_v4(), text.contains('.'), "{text}");
        }
        assert_eq!(ip("192.0.2.1").as_v4(), Some([192, 0, 2, 1]));
        assert_eq!(ip("2001:db8::1").as_v4(), None);
        assert_eq!(format!("{:?} {}", ip("10.0.0.1"), Ip::default()), "10.0.0.1 ::");
    }

    /// Addresses, and which tests hold for them: unspecified, loopback, multicast, broadcast, link-local.
    #[test]
    fn addresses_have_their_scopes() {
        let scopes = [
            ("0.0.0.0", "u"),
            ("::", "u"),
            ("127.0.0.1", "l"),
            ("127.255.255.254", "l"),
            ("128.0.0.1", ""),
            ("::1", "l"),
            ("::2", ""),
            ("223.255.255.255", ""),
            ("224.0.0.1", "m"),
            ("239.255.255.255", "m"),
            ("240.0.0.1", ""),
            ("ff02::1", "m"),
            ("255.255.255.255", "b"),
            ("169.254.0.1", "k"),
            ("169.253.0.1", ""),
            ("fe80::1", "k"),
            ("febf::1", "k"),
            ("fec0::1", ""),
            ("2001:db8::1", ""),
        ];
        for (text, expected) in scopes {
            let ip = ip(text);
            let held = [
                (ip.is_unspecified(), 'u'),
                (ip.is_loopback(), 'l'),
                (ip.is_multicast(), 'm'),
                (ip.is_broadcast(), 'b'),
                (ip.is_link_local(), 'k'),
            ];
            let held: String = held.iter().filter(|(holds, _)| *holds).map(|(_, letter)| letter).collect();
            assert_eq!(held, expected, "{text}");
        }
    }

    /// The example of RFC 4291 §2.7.1.
    #[test]
    fn the_solicited_node_address_has_the_last_three_bytes() {
        assert_eq!(ip("4037::1:800:200e:8c6c").solicited_node(), ip("ff02::1:ff0e:8c6c"));
    }

    #[test]
    fn a_fragment_ends_within_65535_bytes() {
        let fragment = |offset, more| Fragment { identification: 1, offset, more };
        assert!(fragment(0, true).holds(8) && fragment(65_528, false).holds(7));
        assert!(!fragment(65_528, false).holds(8));
        assert!(!fragment(0, true).holds(12) && !fragment(0, true).holds(0));
        assert!(fragment(8, false).holds(12));
    }
}
