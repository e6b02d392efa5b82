//! Ethernet frames (IEEE 802.3) with up to two VLAN tags (IEEE 802.1Q; 802.1ad when there are two). IP in them is
//! RFC 894 and RFC 2464; the frame check sequence is the device's.

use core::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ip::Ip;
use super::{Malformed, put};

/// IPv4's type (RFC 894).
pub const IPV4: u16 = 0x0800;
/// ARP's type (RFC 826).
pub const ARP: u16 = 0x0806;
/// IPv6's type (RFC 2464 §3).
pub const IPV6: u16 = 0x86dd;
/// A customer VLAN tag (IEEE 802.1Q §9.6).
pub const C_TAG: u16 = 0x8100;
/// A service VLAN tag (IEEE 802.1Q §9.6, once 802.1ad).
pub const S_TAG: u16 = 0x88a8;

/// Types start here; what is below is a length (IEEE 802.3 §3.2.6).
const TYPE_MIN: u16 = 0x0600;

/// An address on the link.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Address(pub [u8; 6]);

impl Address {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether it names a group (IEEE 802 §8.2.2); the broadcast does too.
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Where a multicast (RFC 1112 §6.4, RFC 2464 §7) or broadcast goes; `None` for other addresses.
    #[must_use]
    pub fn of_group(ip: &Ip) -> Option<Self> {
        if ip.is_broadcast() {
            return Some(Self::BROADCAST);
        }
        let [.., c, d, e, f] = ip.0;
        match (ip.is_multicast(), ip.is_v4()) {
            (false, _) => None,
            (true, true) => Some(Self([0x01, 0x00, 0x5e, d & 0x7f, e, f])),
            (true, false) => Some(Self([0x33, 0x33, c, d, e, f])),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The header (IEEE 802.3 §3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Whom it is for.
    pub destination: Address,
    /// Who sent it.
    pub source: Address,
    /// What it carries, or that a tag follows.
    pub ethertype: U16,
}

/// A tag's content and the type behind it (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TagHeader {
    control: U16,
    ethertype: U16,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its own type: [`C_TAG`] or [`S_TAG`].
    pub tpid: u16,
    /// Priority (3 bits), drop eligibility (1), VLAN identifier (12).
    pub control: u16,
}

impl Tag {
    /// The VLAN's number.
    #[must_use]
    pub const fn vlan(&self) -> u16 {
        self.control & 0x0fff
    }

    /// Its priority code point.
    #[must_use]
    pub const fn priority(&self) -> u8 {
        (self.control >> 13) as u8
    }
}

/// What stands before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whom it is for.
    pub destination: Address,
    /// Who sent it.
    pub source: Address,
    /// The tags, the outer one first.
    pub tags: [Option<Tag>; 2],
    /// What it carries.
    pub ethertype: u16,
}

/// Bytes of a header without tags.
pub const HEADER_LEN: usize = size_of::<Header>();

const fn is_tag(ethertype: u16) -> bool {
    ethertype == C_TAG || ethertype == S_TAG
}

/// A frame's header and what it carries, its padding with it.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(Frame, &[u8]), Malformed> {
    let (header, mut payload) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let mut frame = Frame {
        destination: header.destination,
        source: header.source,
        tags: [None; 2],
        ethertype: header.ethertype.get(),
    };
    if is_tag(frame.ethertype) {
        payload = tags(&mut frame, payload)?;
    }
    if frame.ethertype < TYPE_MIN {
        return Err(Malformed::EtherType);
    }
    Ok((frame, payload))
}

#[cold]
fn tags<'a>(frame: &mut Frame, mut payload: &'a [u8]) -> Result<&'a [u8], Malformed> {
    for index in 0..2 {
        let (tag, rest) = TagHeader::ref_from_prefix(payload).map_err(|_| Malformed::Truncated)?;
        frame.tags[index] = Some(Tag { tpid: frame.ethertype, control: tag.control.get() });
        frame.ethertype = tag.ethertype.get();
        payload = rest;
        // A service tag is the outer one.
        if !is_tag(frame.ethertype) {
            return Ok(payload);
        } else if frame.ethertype == S_TAG {
            break;
        }
    }
    Err(Malformed::Tags)
}

impl Frame {
    /// Writes the header and its tags.
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut types = [0; 3];
        let mut count = 0;
        for tag in self.tags.iter().flatten() {
            types[count] = tag.tpid;
            count += 1;
        }
        types[count] = self.ethertype;
        let (destination, source) = (self.destination, self.source);
        let header = Header { destination, source, ethertype: types[0].into() };
        let mut len = put(header.as_bytes(), bytes)?;
        for (tag, next) in self.tags.iter().flatten().zip(&types[1..]) {
            let tag = TagHeader { control: tag.control.into(), ethertype: (*next).into() };
            len += put(tag.as_bytes(), &mut bytes[len..])?;
        }
        Some(len)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} > {}", self.source, self.destination)?;
        for tag in self.tags.iter().flatten() {
            write!(out, ", vlan {}, p {}", tag.vlan(), tag.priority())?;
        }
        match self.ethertype {
            IPV4 => out.write_str(", ethertype IPv4"),
            IPV6 => out.write_str(", ethertype IPv6"),
            ARP => out.write_str(", ethertype ARP"),
            other => write!(out, ", ethertype 0x{other:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: [u8; 12] = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];

    fn bytes(rest: &[u8]) -> Vec<u8> {
        [&HEAD[..], rest].concat()
    }

    #[test]
    fn frames_with_and_without_tags() {
        let known: [(&[u8], &str); 3] = [
            (&[0x08, 0x00], "02:00:00:00:00:02 > 02:00:00:00:00:01, ethertype IPv4"),
            (
                &[0x81, 0x00, 0x60, 0x05, 0x08, 0x06],
                "02:00:00:00:00:02 > 02:00:00:00:00:01, vlan 5, p 3, ethertype ARP",
            ),
            (
                &[0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0x00, 0xc8, 0x86, 0xdd],
                "02:00:00:00:00:02 > 02:00:00:00:00:01, vlan 100, p 0, vlan 200, p 0, ethertype IPv6",
            ),
        ];
        for (rest, text) in known {
            let whole = bytes(&[rest, b"payload"].concat());
            let (frame, payload) = parse(&whole).expect(text);
            assert_eq!((frame.to_string().as_str(), payload), (text, &b"payload"[..]));
        }
    }

    #[test]
    fn rules() {
        let broken: [(&[u8], Malformed); 6] = [
            (&[0x08], Malformed::Truncated),
            (&[0x81, 0x00, 0x00, 0x01], Malformed::Truncated),
            (&[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 0x08, 0], Malformed::Tags),
            (&[0x81, 0, 0, 1, 0x88, 0xa8, 0, 2, 0x08, 0], Malformed::Tags),
            (&[0x05, 0xff], Malformed::EtherType),
            (&[0x81, 0, 0, 1, 0x00, 0x20], Malformed::EtherType),
        ];
        for (rest, rule) in broken {
            assert_eq!(parse(&bytes(rest)), Err(rule), "{rest:x?}");
        }
    }

    #[test]
    fn groups_have_addresses() {
        let group = |ip: Ip| Address::of_group(&ip).map(|address| address.to_string());
        assert_eq!(group(Ip::v4([239, 129, 2, 3])).as_deref(), Some("01:00:5e:01:02:03"));
        assert_eq!(group(Ip::BROADCAST).as_deref(), Some("ff:ff:ff:ff:ff:ff"));
        assert_eq!(group(Ip::v4([10, 0, 0, 1])), None);
        let node = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x01\x02\x03").solicited_node();
        assert_eq!(group(node).as_deref(), Some("33:33:ff:01:02:03"));
        assert!(Address::BROADCAST.is_multicast() && !Address([2, 0, 0, 0, 0, 1]).is_multicast());
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(
            destination in any::<[u8; 6]>(), source in any::<[u8; 6]>(), ethertype in TYPE_MIN..0x8000,
            outer in proptest::option::of((any::<bool>(), any::<u16>())), inner in proptest::option::of(any::<u16>()), room in 0usize..40,
        ) {
            let mut tags = [None; 2];
            if let Some((service, control)) = outer {
                tags[0] = Some(Tag { tpid: if service { S_TAG } else { C_TAG }, control });
                tags[1] = inner.map(|control| Tag { tpid: C_TAG, control });
            }
            let frame = Frame { destination: Address(destination), source: Address(source), tags, ethertype };
            let mut bytes = vec![0; room];
            let len = HEADER_LEN + 4 * tags.iter().flatten().count();
            prop_assert_eq!(frame.emit(&mut bytes), (room >= len).then_some(len));
            if room >= len {
                prop_assert_eq!(parse(&bytes), Ok((frame, &bytes[len..])));
            }
        }
    }
}
