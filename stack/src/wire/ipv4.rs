//! IPv4 (RFC 791). Options are bounded and skipped; none is ever sent.

use core::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::ip::{Fragment, Ip};
use super::{Malformed, protocol, put};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = size_of::<Header>();

/// Version 4, five words: the header of almost every datagram.
const PLAIN: u8 = 0x45;
/// Don't fragment, among [`Header::flags_fragment`].
pub const DF: u16 = 0x4000;
/// More fragments.
pub const MF: u16 = 0x2000;
/// The fragment's offset, in units of eight bytes.
const OFFSET: u16 = 0x1fff;

/// The header (RFC 791 §3.1). With the fields as they are, it serves as a template of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version, and the header's length in words.
    pub version_ihl: u8,
    /// Differentiated services (6 bits) and ECN (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Bytes of the datagram, header and payload.
    pub total_length: U16,
    /// Names the datagram among fragments.
    pub identification: U16,
    /// [`DF`], [`MF`] and the fragment's offset.
    pub flags_fragment: U16,
    /// Hops that are left.
    pub ttl: u8,
    /// What the payload is: [`protocol`].
    pub protocol: u8,
    /// Over the header alone.
    pub checksum: U16,
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

/// A datagram's header and options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The fixed header.
    pub header: &'a Header,
    /// The options, well-formed one after the other; empty as a rule.
    pub options: &'a [u8],
}

/// A datagram and its payload, which ends where the total length says.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(Datagram<'_>, &[u8]), Malformed> {
    parse_front(bytes, 0).map(|(datagram, payload, _)| (datagram, payload))
}

/// The same of a packet of which `beyond` more bytes lie elsewhere: how much of the payload is here, and how many bytes of
/// it are there.
#[inline]
pub fn parse_front(bytes: &[u8], beyond: usize) -> Result<(Datagram<'_>, &[u8], usize), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let sum = Sum::ZERO.bytes(header.as_bytes());
    let (datagram, sum) = if header.version_ihl == PLAIN {
        (Datagram { header, options: &rest[..0] }, sum)
    } else {
        let datagram = with_options(header, rest)?;
        (datagram, sum.bytes(datagram.options))
    };
    let header_len = HEADER_LEN + datagram.options.len();
    let total = usize::from(header.total_length.get());
    let here = total.min(bytes.len());
    let payload =
        bytes.get(header_len..here).filter(|_| total - here <= beyond).ok_or(Malformed::TotalLength)?;
    if !sum.holds() {
        return Err(Malformed::HeaderChecksum);
    }
    if datagram.header.flags_fragment.get() & (MF | OFFSET) != 0
        && datagram.fragment().is_some_and(|fragment| !fragment.holds(total - header_len))
    {
        return Err(Malformed::Fragment);
    }
    Ok((datagram, payload, total - here))
}

/// The start of a datagram as ICMP quotes it: its lengths and checksum are those of a whole that isn't here.
pub(super) fn parse_quoted(bytes: &[u8]) -> Result<(Datagram<'_>, &[u8]), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let datagram = with_options(header, rest)?;
    let end = usize::from(header.total_length.get()).min(bytes.len());
    let payload = bytes.get(HEADER_LEN + datagram.options.len()..end).ok_or(Malformed::TotalLength)?;
    Ok((datagram, payload))
}

#[cold]
fn with_options<'a>(header: &'a Header, rest: &'a [u8]) -> Result<Datagram<'a>, Malformed> {
    if header.version_ihl >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let options = (usize::from(header.version_ihl & 0x0f) * 4)
        .checked_sub(HEADER_LEN)
        .and_then(|len| rest.get(..len))
        .ok_or(Malformed::HeaderLength)?;
    let mut left = options;
    // End of options is 0, no operation 1; every other has a length, which counts its kind and itself.
    while let [kind @ 1..=255, after @ ..] = left {
        left = match (kind, after.first()) {
            (1, _) => after,
            (_, Some(&len @ 2..=255)) => left.get(usize::from(len)..).ok_or(Malformed::Ipv4Option)?,
            _ => return Err(Malformed::Ipv4Option),
        };
    }
    Ok(Datagram { header, options })
}

impl Header {
    /// A header without options, and with don't fragment set as path MTU discovery wants it (RFC 1191 §3).
    /// `None` when an address isn't one of IPv4. Its length and checksum are [`Header::emit`]'s.
    #[must_use]
    pub fn new(source: &Ip, destination: &Ip, protocol: u8, ttl: u8) -> Option<Self> {
        Some(Self {
            version_ihl: PLAIN,
            tos: 0,
            total_length: 0.into(),
            identification: 0.into(),
            flags_fragment: DF.into(),
            ttl,
            protocol,
            checksum: 0.into(),
            source: source.as_v4()?,
            destination: destination.as_v4()?,
        })
    }

    /// The same of a datagram that may be fragmented on its way, or is a fragment.
    #[must_use]
    pub const fn fragment(self, place: Option<Fragment>, identification: u16) -> Self {
        let flags = match place {
            Some(Fragment { offset, more, .. }) => offset >> 3 | if more { MF } else { 0 },
            None => 0,
        };
        let flags_fragment = U16::from_bytes(flags.to_be_bytes());
        Self { identification: U16::from_bytes(identification.to_be_bytes()), flags_fragment, ..self }
    }

    /// Sender.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> Ip {
        Ip::v4(self.source)
    }

    /// Receiver.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> Ip {
        Ip::v4(self.destination)
    }

    /// The ECN field (RFC 3168 §5).
    #[must_use]
    pub const fn ecn(&self) -> u8 {
        self.tos & 3
    }

    /// Writes the header without options, with the length of `payload_len` bytes behind it and its checksum.
    /// `None` also when the length doesn't fit.
    #[inline]
    #[must_use]
    pub fn emit(&self, payload_len: usize, bytes: &mut [u8]) -> Option<usize> {
        let total = u16::try_from(payload_len.checked_add(HEADER_LEN)?).ok()?;
        let mut header = Self { version_ihl: PLAIN, total_length: total.into(), checksum: 0.into(), ..*self };
        header.checksum = Sum::ZERO.bytes(header.as_bytes()).checksum().into();
        put(header.as_bytes(), bytes)
    }
}

/// Bytes of a header with the router alert option (RFC 2113 §2.1).
pub const ALERT_LEN: usize = HEADER_LEN + 4;

impl Header {
    /// [`Header::emit`] with the router alert option behind it: routers look at what passes them.
    #[must_use]
    pub fn emit_alert(&self, payload_len: usize, bytes: &mut [u8]) -> Option<usize> {
        let total = u16::try_from(payload_len.checked_add(ALERT_LEN)?).ok()?;
        let option = [148, 4, 0, 0];
        let mut header = Self { version_ihl: 0x46, total_length: total.into(), checksum: 0.into(), ..*self };
        header.checksum = Sum::ZERO.bytes(header.as_bytes()).bytes(&option).checksum().into();
        let len = put(header.as_bytes(), bytes)?;
        Some(len + put(&option, bytes.get_mut(len..)?)?)
    }
}

impl Datagram<'_> {
    /// Its place, if it is a fragment.
    #[inline]
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        let field = self.header.flags_fragment.get();
        let identification = self.header.identification.get().into();
        (field & (MF | OFFSET) != 0).then_some(Fragment {
            identification,
            offset: (field & OFFSET) << 3,
            more: field & MF != 0,
        })
    }
}

impl fmt::Display for Datagram<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header;
        write!(out, "IP {} > {}: ", header.source(), header.destination())?;
        match protocol::name(header.protocol) {
            Some(name) => out.write_str(name)?,
            None => write!(out, "ip-proto-{}", header.protocol)?,
        }
        if let Some(fragment) = self.fragment() {
            let more = if fragment.more { "+" } else { "none" };
            write!(out, ", id {}, offset {}, flags [{more}]", fragment.identification, fragment.offset)?;
        }
        let header_len = HEADER_LEN + self.options.len();
        write!(out, ", length {}", usize::from(header.total_length.get()).saturating_sub(header_len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header whose sum was made by hand: 0x4500+0x0073+0x4000+0x4011+0xc0a8+0x0001+0xc0a8+0x00c7 = 0x2479c,
    /// 0x479e, complement 0xb861.
    const KNOWN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0,
        0xa8, 0x00, 0xc7,
    ];

    fn with_sum(mut bytes: Vec<u8>) -> Vec<u8> {
        let header_len = usize::from(bytes[0] & 0x0f) * 4;
        bytes[10..12].fill(0);
        let sum = Sum::ZERO.bytes(&bytes[..header_len.min(bytes.len())]).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn known(padding: usize) -> Vec<u8> {
        [&KNOWN[..], &vec![7; 0x73 - 20 + padding]].concat()
    }

    #[test]
    fn a_known_datagram() {
        let bytes = known(9);
        let (datagram, payload) = parse(&bytes).expect("the datagram");
        assert_eq!(datagram.to_string(), "IP 192.168.0.1 > 192.168.0.199: UDP, length 95");
        assert_eq!(payload, [7; 95]);
        let mut out = [0; 20];
        let header =
            Header::new(&datagram.header.source(), &datagram.header.destination(), 17, 64).expect("of IPv4");
        assert_eq!(header.emit(95, &mut out), Some(20));
        assert_eq!(out, KNOWN);
        assert_eq!(header.emit(65_516, &mut out), None);
        assert_eq!(Header::new(&Ip::UNSPECIFIED, &Ip::BROADCAST, 6, 64), None);
    }

    /// A header of six words with four bytes of options, and a payload of two bytes.
    fn optional(options: [u8; 4]) -> Vec<u8> {
        let mut bytes = known(0)[..20].to_vec();
        (bytes[0], bytes[3]) = (0x46, 26);
        bytes.extend_from_slice(&options);
        with_sum([&bytes[..], &[1, 2]].concat())
    }

    #[test]
    fn options_are_skipped() {
        for options in [[1, 1, 1, 1], [1, 0x94, 2, 0], [0, 9, 9, 9], [0x94, 4, 0, 0], [1, 1, 0x94, 2]] {
            let bytes = optional(options);
            let (datagram, payload) = parse(&bytes).expect("a datagram");
            assert_eq!((datagram.options, payload), (&options[..], &[1, 2][..]));
        }
    }

    #[test]
    fn fragments_have_places() {
        let mut bytes = known(0);
        bytes[4..8].copy_from_slice(&[0x12, 0x34, 0x00, 0xb9]);
        let bytes = with_sum(bytes);
        let (datagram, _) = parse(&bytes).expect("a fragment");
        let expected = Fragment { identification: 0x1234, offset: 1480, more: false };
        assert_eq!(datagram.fragment(), Some(expected));
        assert!(datagram.to_string().ends_with("UDP, id 4660, offset 1480, flags [none], length 95"));
    }

    #[test]
    fn rules() {
        let with = |at: usize, byte: u8| {
            let mut bytes = known(0);
            bytes[at] = byte;
            parse(&with_sum(bytes)).err()
        };
        assert_eq!(parse(&KNOWN[..19]).err(), Some(Malformed::Truncated));
        assert_eq!(with(0, 0x65), Some(Malformed::Version));
        assert_eq!(with(0, 0x44), Some(Malformed::HeaderLength));
        assert_eq!(parse(&with_sum(optional([1; 4])[..23].to_vec())).err(), Some(Malformed::HeaderLength));
        assert_eq!(with(3, 19), Some(Malformed::TotalLength));
        assert_eq!(with(3, 0x74), Some(Malformed::TotalLength));
        assert_eq!(with(3, 20), None);
        let mut bytes = known(0);
        bytes[8] = 63;
        assert_eq!(parse(&bytes).err(), Some(Malformed::HeaderChecksum));
        for options in [[0x94, 0, 0, 0], [0x94, 1, 0, 0], [0x94, 5, 0, 0], [1, 1, 1, 0x94]] {
            assert_eq!(parse(&optional(options)).err(), Some(Malformed::Ipv4Option), "{options:?}");
        }
        // More follow, but 95 bytes are no multiple of eight; and a last one beyond the largest datagram.
        assert_eq!(with(6, 0x20), Some(Malformed::Fragment));
        let mut bytes = known(0);
        bytes[6..8].copy_from_slice(&[0x1f, 0xff]);
        assert_eq!(parse(&with_sum(bytes)).err(), Some(Malformed::Fragment));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(
            source in any::<[u8; 4]>(), destination in any::<[u8; 4]>(), protocol in any::<u8>(), tos in any::<u8>(), ttl in any::<u8>(),
            id in any::<u16>(), payload in proptest::collection::vec(any::<u8>(), 0..64), padding in 0usize..10,
        ) {
            let mut header = Header::new(&Ip::v4(source), &Ip::v4(destination), protocol, ttl).expect("of IPv4");
            (header.tos, header.identification) = (tos, id.into());
            let mut bytes = [0; HEADER_LEN];
            prop_assert_eq!(header.emit(payload.len(), &mut bytes[..19]), None);
            prop_assert_eq!(header.emit(payload.len(), &mut bytes), Some(HEADER_LEN));
            let whole = [&bytes[..], &payload, &vec![0; padding]].concat();
            let (datagram, read) = parse(&whole).expect("what was written");
            prop_assert_eq!(read, &payload[..]);
            prop_assert_eq!(datagram.fragment(), None);
            prop_assert_eq!(datagram.header.ecn(), tos & 3);
            let (length, checksum) = (datagram.header.total_length, datagram.header.checksum);
            prop_assert_eq!(*datagram.header, Header { total_length: length, checksum, ..header });
        }
    }
}
