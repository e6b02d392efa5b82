//! UDP (RFC 768).

use core::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{Sum, pseudo};
use super::ip::Ip;
use super::{Malformed, protocol, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();

/// The header (RFC 768, "Format").
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Bytes of header and data.
    pub length: U16,
    /// 0: none was made.
    pub checksum: U16,
}

/// A header and its data; bytes of the IP datagram behind the length are none of it. `is_v4` as its addresses are:
/// IPv6 knows no datagram without a checksum.
#[inline]
pub fn parse(bytes: &[u8], is_v4: bool) -> Result<(&Header, &[u8]), Malformed> {
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let data = bytes.get(HEADER_LEN..usize::from(header.length.get())).ok_or(Malformed::UdpLength)?;
    if header.checksum.get() == 0 && !is_v4 {
        return Err(Malformed::ChecksumMissing);
    }
    Ok((header, data))
}

/// Verifies the checksum of what [`parse`] has given; one that wasn't made holds.
#[inline]
pub fn verify(header: &Header, data: &[u8], source: &Ip, destination: &Ip) -> Result<(), Malformed> {
    let sum = pseudo(source, destination, protocol::UDP, header.length.get().into());
    let holds = header.checksum.get() == 0 || header.add_to(sum).bytes(data).holds();
    if holds { Ok(()) } else { Err(Malformed::Checksum) }
}

impl Header {
    /// A sum with the header's words.
    #[inline]
    const fn add_to(&self, sum: Sum) -> Sum {
        let sum = sum.word(self.source.get()).word(self.destination.get());
        sum.word(self.length.get()).word(self.checksum.get())
    }

    /// Writes the header of `len` bytes of data, with the checksum if their sum is given. `None` also when the
    /// length doesn't fit.
    #[must_use]
    pub fn emit(
        source: (&Ip, u16),
        destination: (&Ip, u16),
        len: usize,
        data: Option<Sum>,
        bytes: &mut [u8],
    ) -> Option<usize> {
        let length = u16::try_from(len.checked_add(HEADER_LEN)?).ok()?;
        let mut header = Self {
            source: source.1.into(),
            destination: destination.1.into(),
            length: length.into(),
            checksum: 0.into(),
        };
        if let Some(data) = data {
            let sum = pseudo(source.0, destination.0, protocol::UDP, length.into());
            // A zero would mean that there is none (RFC 768, "Fields").
            header.checksum = match header.add_to(sum).and(data).checksum() {
                0 => 0xffff.into(),
                sum => sum.into(),
            };
        }
        put(header.as_bytes(), bytes)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = usize::from(self.length.get()).saturating_sub(HEADER_LEN);
        write!(out, "{} > {}: UDP, length {length}", self.source, self.destination)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: Ip = Ip::v4([192, 0, 2, 1]);
    const TO: Ip = Ip::v4([192, 0, 2, 2]);

    /// By hand: 0xc000+0x0201+0xc000+0x0202+0x0011+0x000b (pseudo-header) + 0x0035+0x1234+0x000b + 0x6162+0x6300
    /// = 0x25af5, 0x5af7, complement 0xa508.
    const KNOWN: [u8; 11] = [0, 0x35, 0x12, 0x34, 0, 11, 0xa5, 0x08, b'a', b'b', b'c'];

    #[test]
    fn a_known_datagram() {
        let (header, data) = parse(&KNOWN, true).expect("a datagram");
        assert_eq!((header.to_string().as_str(), data), ("53 > 4660: UDP, length 3", &b"abc"[..]));
        assert_eq!(verify(header, data, &FROM, &TO), Ok(()));
        let mut bytes = KNOWN;
        bytes[6..8].fill(0);
        let (header, data) = parse(&bytes, true).expect("no checksum, over IPv4");
        assert_eq!(verify(header, data, &FROM, &TO), Ok(()));
        // Bytes of IP that aren't UDP's.
        let long = [&KNOWN[..], b"rest"].concat();
        assert_eq!(parse(&long, true).map(|(_, data)| data), Ok(&b"abc"[..]));
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_ones() {
        let mut bytes = [0; 10];
        let without = Header::emit((&FROM, 53), (&TO, 0x1234), 2, Some(Sum::ZERO), &mut bytes);
        assert_eq!(without, Some(8));
        let data = [bytes[6], bytes[7]];
        let sum = Some(Sum::ZERO.bytes(&data));
        assert_eq!(Header::emit((&FROM, 53), (&TO, 0x1234), 2, sum, &mut bytes), Some(8));
        assert_eq!(bytes[6..8], [0xff, 0xff]);
        bytes[8..].copy_from_slice(&data);
        let (header, data) = parse(&bytes, true).expect("a datagram");
        assert_eq!(verify(header, data, &FROM, &TO), Ok(()));
    }

    #[test]
    fn rules() {
        let with = |at: usize, byte: u8| {
            let mut bytes = KNOWN;
            bytes[at] = byte;
            parse(&bytes, true).and_then(|(header, data)| verify(header, data, &FROM, &TO)).err()
        };
        assert_eq!(parse(&KNOWN[..7], true), Err(Malformed::Truncated));
        assert_eq!(with(5, 7), Some(Malformed::UdpLength));
        assert_eq!(with(5, 12), Some(Malformed::UdpLength));
        assert_eq!(with(8, b'b'), Some(Malformed::Checksum));
        let mut bytes = KNOWN;
        bytes[6..8].fill(0);
        assert_eq!(parse(&bytes, false), Err(Malformed::ChecksumMissing));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(
            v4 in any::<bool>(), hosts in any::<[u8; 32]>(), ports in any::<(u16, u16)>(), data in proptest::collection::vec(any::<u8>(), 0..90), flip in any::<usize>(),
        ) {
            let ip = |bytes: &[u8]| {
                let bytes: [u8; 16] = bytes.try_into().expect("sixteen");
                if v4 { Ip::v4([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { Ip(bytes) }
            };
            let (from, to) = (ip(&hosts[..16]), ip(&hosts[16..]));
            let mut bytes = vec![0; HEADER_LEN];
            let emit = |bytes: &mut [u8]| Header::emit((&from, ports.0), (&to, ports.1), data.len(), Some(Sum::ZERO.bytes(&data)), bytes);
            prop_assert_eq!(emit(&mut bytes[..7]), None);
            prop_assert_eq!(emit(&mut bytes), Some(HEADER_LEN));
            bytes.extend_from_slice(&data);
            let (header, read) = parse(&bytes, v4).expect("what was written");
            prop_assert_eq!((header.source.get(), header.destination.get(), read), (ports.0, ports.1, &data[..]));
            prop_assert_eq!(verify(header, read, &from, &to), Ok(()));
            // A flipped bit in ports or data is noticed.
            let bit = flip % (8 * (4 + data.len()));
            let at = if bit / 8 < 4 { bit / 8 } else { bit / 8 + 4 };
            bytes[at] ^= 1 << (bit % 8);
            let (header, read) = parse(&bytes, v4).expect("the same lengths");
            prop_assert_eq!(verify(header, read, &from, &to), Err(Malformed::Checksum));
        }
    }
}
