//! IPv6 and its extension headers (RFC 8200). Of the latter only fragment headers are sent.

use core::fmt;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ip::{Fragment, Ip};
use super::{Malformed, protocol, put};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = size_of::<Extension>();

/// Extension headers that a datagram may have: each kind once, and one more set of destination options.
const EXTENSIONS_MAX: usize = 5;
/// Bytes of extension headers that a datagram may have.
const EXTENSION_BYTES_MAX: usize = 512;
/// Options that one extension header may have beside padding, as Linux has it (RFC 8504 §5.3).
const OPTIONS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// A fragment header (RFC 8200 §4.5).
pub const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The header (RFC 8200 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Bytes behind this header.
    pub payload_length: U16,
    /// What those are: an extension header, or a [`protocol`].
    pub next_header: u8,
    /// Hops that are left.
    pub hop_limit: u8,
    /// Sender; never an IPv4-mapped address once it is parsed.
    pub source: Ip,
    /// Receiver; never an IPv4-mapped address once it is parsed.
    pub destination: Ip,
}

/// The first two bytes of each extension header, and the next two.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Extension {
    next_header: u8,
    /// In units of eight bytes, the first not counted; reserved in a fragment header.
    length: u8,
    /// A routing header's type, or a fragment's offset with its flag in the last bit.
    word: U16,
    /// A fragment's identification.
    identification: U32,
}

/// What a chain of extension headers comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What the payload is. For a fragment: what the fragmentable part starts with, which may be another
    /// extension header (then [`walk`] goes on once the datagram is whole).
    pub protocol: u8,
    /// The payload's place, if it is a fragment. An atomic fragment is none (RFC 6946).
    pub fragment: Option<Fragment>,
}

/// A datagram's header and what its extension headers come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The fixed header.
    pub header: &'a Header,
    /// What follows.
    pub chain: Chain,
}

/// A datagram and its payload, which begins behind the extension headers and ends where the payload length says.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(Datagram<'_>, &[u8]), Malformed> {
    parse_front(bytes, 0).map(|(datagram, payload, _)| (datagram, payload))
}

/// The same of a packet of which `beyond` more bytes lie elsewhere: how much of the payload is here, and how many bytes of
/// it are there. The extension headers are all here, and it is no fragment.
#[inline]
pub fn parse_front(bytes: &[u8], beyond: usize) -> Result<(Datagram<'_>, &[u8], usize), Malformed> {
    let (header, rest) = parse_header(bytes)?;
    let total = usize::from(header.payload_length.get());
    let here = total.min(rest.len());
    let payload = rest.get(..here).filter(|_| total - here <= beyond).ok_or(Malformed::PayloadLength)?;
    if header.source.is_v4() || header.destination.is_v4() {
        return Err(Malformed::MappedAddress);
    }
    if matches!(header.next_header, protocol::TCP | protocol::UDP) {
        return Ok((
            Datagram { header, chain: Chain { protocol: header.next_header, fragment: None } },
            payload,
            total - here,
        ));
    }
    let (chain, payload) = walk(header.next_header, payload, true)?;
    if chain.fragment.is_some() && total > here {
        return Err(Malformed::Fragment);
    }
    Ok((Datagram { header, chain }, payload, total - here))
}

#[inline]
fn parse_header(bytes: &[u8]) -> Result<(&Header, &[u8]), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    if header.version_class_flow.get() >> 28 != 6 {
        return Err(Malformed::Version);
    }
    Ok((header, rest))
}

/// The start of a datagram as ICMPv6 quotes it: its length is that of a whole that isn't here.
pub(super) fn parse_quoted(bytes: &[u8]) -> Result<(Datagram<'_>, &[u8]), Malformed> {
    let (header, rest) = parse_header(bytes)?;
    let (chain, payload) = extensions(header.next_header, rest, true, false)?;
    Ok((Datagram { header, chain }, payload))
}

/// Goes along the extension headers in front of a payload, and no further than a fragment header whose datagram
/// isn't whole. `first` when they follow the IPv6 header, where alone hop-by-hop options may stand.
pub fn walk(next_header: u8, bytes: &[u8], first: bool) -> Result<(Chain, &[u8]), Malformed> {
    extensions(next_header, bytes, first, true)
}

/// [`walk`]; a fragment is measured unless it isn't `whole`.
fn extensions(next_header: u8, bytes: &[u8], first: bool, whole: bool) -> Result<(Chain, &[u8]), Malformed> {
    let (mut protocol, mut rest, mut fragmented) = (next_header, bytes, !first);
    for index in 0.. {
        let known = matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS);
        if !known {
            break;
        }
        let (extension, _) = Extension::ref_from_prefix(rest).map_err(|_| Malformed::ExtensionLength)?;
        let len = if protocol == FRAGMENT { 8 } else { (usize::from(extension.length) + 1) * 8 };
        let (header, behind) = rest.split_at_checked(len).ok_or(Malformed::ExtensionLength)?;
        if index == EXTENSIONS_MAX || bytes.len() - behind.len() > EXTENSION_BYTES_MAX {
            return Err(Malformed::ExtensionLimit);
        }
        match protocol {
            HOP_BY_HOP if index > 0 || !first => return Err(Malformed::ExtensionOrder),
            FRAGMENT if fragmented => return Err(Malformed::ExtensionOrder),
            HOP_BY_HOP | DESTINATION_OPTIONS => options(&header[2..])?,
            // Its segments left are the low byte of the word.
            ROUTING if extension.word.get() as u8 != 0 => return Err(Malformed::SegmentsLeft),
            FRAGMENT => {
                fragmented = true;
                let chain = Chain { protocol: extension.next_header, fragment: fragment(extension) };
                match chain.fragment {
                    Some(fragment) if whole && !fragment.holds(behind.len()) => {
                        return Err(Malformed::Fragment);
                    }
                    Some(_) => return Ok((chain, behind)),
                    None => {}
                }
            }
            _ => {}
        }
        (protocol, rest) = (extension.next_header, behind);
    }
    Ok((Chain { protocol, fragment: None }, rest))
}

fn fragment(header: &Extension) -> Option<Fragment> {
    let word = header.word.get();
    // Between the offset and the flag are two reserved bits (RFC 8200 §4.5).
    let (offset, more) = (word & !7, word & 1 == 1);
    let identification = header.identification.get();
    (offset != 0 || more).then_some(Fragment { identification, offset, more })
}

/// Passes over options that may be passed over (RFC 8200 §4.2).
fn options(mut bytes: &[u8]) -> Result<(), Malformed> {
    let mut count = 0;
    while let [kind, after @ ..] = bytes {
        // Pad1 is one byte; every other option has a length, which counts what is behind it. 1 is PadN.
        bytes = match (*kind, after) {
            (0, _) => after,
            (_, [len, data @ ..]) => data.get(usize::from(*len)..).ok_or(Malformed::Ipv6Option)?,
            _ => return Err(Malformed::Ipv6Option),
        };
        count += usize::from(*kind > 1);
        if kind >> 6 != 0 {
            return Err(Malformed::OptionUnrecognized);
        } else if count > OPTIONS_MAX {
            return Err(Malformed::ExtensionLimit);
        }
    }
    Ok(())
}

/// Writes a fragment header before a piece of a datagram whose payload is this `protocol`.
#[must_use]
pub fn emit_fragment(protocol: u8, place: Fragment, bytes: &mut [u8]) -> Option<usize> {
    let header = Extension {
        next_header: protocol,
        length: 0,
        word: (place.offset & !7 | u16::from(place.more)).into(),
        identification: place.identification.into(),
    };
    put(header.as_bytes(), bytes)
}

impl Header {
    /// A header; its length is [`Header::emit`]'s. `None` when an address is one of IPv4.
    #[must_use]
    pub fn new(source: &Ip, destination: &Ip, next_header: u8, hop_limit: u8) -> Option<Self> {
        (!source.is_v4() && !destination.is_v4()).then(|| Self {
            version_class_flow: (6 << 28).into(),
            payload_length: 0.into(),
            next_header,
            hop_limit,
            source: *source,
            destination: *destination,
        })
    }

    /// The traffic class: differentiated services (6 bits) and ECN.
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// The ECN field (RFC 3168 §5).
    #[must_use]
    pub const fn ecn(&self) -> u8 {
        self.traffic_class() & 3
    }

    /// The flow label (RFC 6437).
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0x000f_ffff
    }

    /// With this traffic class and flow label, of which the low 20 bits count.
    #[must_use]
    pub fn with_flow(self, traffic_class: u8, flow_label: u32) -> Self {
        let word = (6 << 28) | (u32::from(traffic_class) << 20) | (flow_label & 0x000f_ffff);
        Self { version_class_flow: word.into(), ..self }
    }

    /// Writes the header with the length of `payload_len` bytes behind it. `None` also when that doesn't fit.
    #[inline]
    #[must_use]
    pub fn emit(&self, payload_len: usize, bytes: &mut [u8]) -> Option<usize> {
        let length = u16::try_from(payload_len).ok()?;
        put(Self { payload_length: length.into(), ..*self }.as_bytes(), bytes)
    }
}

impl fmt::Display for Datagram<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header;
        write!(out, "IP6 {} > {}: ", header.source, header.destination)?;
        if let Some(fragment) = self.chain.fragment {
            let more = if fragment.more { "+" } else { "none" };
            write!(out, "frag (0x{:08x}:{}, {more}) ", fragment.identification, fragment.offset)?;
        }
        match protocol::name(self.chain.protocol) {
            Some(name) => out.write_str(name)?,
            None => write!(out, "ip-proto-{}", self.chain.protocol)?,
        }
        write!(out, ", length {}", header.payload_length)
    }
}

#[cfg(test)]
mod tests;
