//! Neighbor discovery: router and neighbor solicitations and advertisements (RFC 4861 §4). Redirects aren't read.

use core::fmt;

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{Sum, pseudo};
use super::ethernet::Address;
use super::icmp::{self, HEADER_LEN, Header};
use super::ip::Ip;
use super::{Malformed, icmpv6, protocol, put};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// A neighbor solicitation (§4.3).
pub const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;

/// What a message must be sent and come with: no router has forwarded it.
pub const HOP_LIMIT: u8 = 255;
/// Prefixes of one advertisement that are kept.
pub const PREFIXES_MAX: usize = 4;

const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks for router advertisements (§4.1).
    RouterSolicitation,
    /// What a router tells about its link and itself (§4.2); zero is "unspecified".
    RouterAdvertisement {
        /// For what the host sends.
        hop_limit: u8,
        /// Bit 7: addresses from DHCPv6; bit 6: other configuration from it; the rest as it came.
        flags: u8,
        /// How long it is a default router; 0 is not at all.
        lifetime_s: u16,
        /// How long a neighbor counts as reachable.
        reachable_ms: u32,
        /// Between two solicitations.
        retrans_ms: u32,
    },
    /// Asks for a neighbor's address on the link, or whether it is still there (§4.3).
    NeighborSolicitation {
        /// The neighbor.
        target: Ip,
    },
    /// Tells it (§4.4).
    NeighborAdvertisement {
        /// Whom it is about.
        target: Ip,
        /// The sender is a router.
        router: bool,
        /// In answer to a solicitation.
        solicited: bool,
        /// It takes the place of what was known.
        overrides: bool,
    },
}

/// A prefix of the link (§4.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Its bits, and others to be ignored.
    pub prefix: Ip,
    /// How many bits count: up to 128.
    pub len: u8,
    /// Bit 7: it is on the link; bit 6: addresses may be made from it (RFC 4862).
    pub flags: u8,
    /// How long it is valid; all ones is for ever.
    pub valid_s: u32,
    /// How long addresses made from it are preferred; all ones is for ever.
    pub preferred_s: u32,
}

/// The options of a message (§4.6); unknown ones are skipped, and the last of a kind counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The sender's address on the link.
    pub source_link: Option<Address>,
    /// The target's.
    pub target_link: Option<Address>,
    /// The link's MTU.
    pub mtu: Option<u32>,
    /// The first [`PREFIXES_MAX`] prefixes.
    pub prefixes: [Option<Prefix>; PREFIXES_MAX],
}

/// A prefix option (§4.6.2).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PrefixOption {
    kind: u8,
    length: u8,
    len: u8,
    flags: u8,
    valid: U32,
    preferred: U32,
    reserved: U32,
    prefix: Ip,
}

/// The timers of a router advertisement (§4.2).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Timers {
    reachable: U32,
    retrans: U32,
}

/// A message that came between these addresses with this hop limit, and its options. It has met every rule of
/// §6.1 and §7.1.
pub fn parse(
    bytes: &[u8],
    source: &Ip,
    destination: &Ip,
    hop_limit: u8,
) -> Result<(Message, Options), Malformed> {
    if hop_limit != HOP_LIMIT {
        return Err(Malformed::HopLimit);
    }
    let (header, rest) = icmpv6::parse_header(bytes, source, destination)?;
    if header.code != 0 {
        return Err(Malformed::NeighborCode);
    }
    let (message, rest) = fixed(header, rest)?;
    let options = Options::parse(rest)?;
    if between(&message, &options, source, destination) {
        Ok((message, options))
    } else {
        Err(Malformed::NeighborAddress)
    }
}

fn fixed<'a>(header: &Header, rest: &'a [u8]) -> Result<(Message, &'a [u8]), Malformed> {
    let word = header.word.get();
    let target = || Ip::read_from_prefix(rest).map_err(|_| Malformed::Truncated);
    Ok(match header.kind {
        ROUTER_SOLICITATION => (Message::RouterSolicitation, rest),
        ROUTER_ADVERTISEMENT => {
            let (timers, rest) = Timers::ref_from_prefix(rest).map_err(|_| Malformed::Truncated)?;
            let message = Message::RouterAdvertisement {
                hop_limit: (word >> 24) as u8,
                flags: (word >> 16) as u8,
                lifetime_s: word as u16,
                reachable_ms: timers.reachable.get(),
                retrans_ms: timers.retrans.get(),
            };
            (message, rest)
        }
        NEIGHBOR_SOLICITATION => {
            let (target, rest) = target()?;
            (Message::NeighborSolicitation { target }, rest)
        }
        NEIGHBOR_ADVERTISEMENT => {
            let (target, rest) = target()?;
            let [router, solicited, overrides] = [31, 30, 29].map(|bit| word >> bit & 1 == 1);
            (Message::NeighborAdvertisement { target, router, solicited, overrides }, rest)
        }
        _ => return Err(Malformed::NeighborCode),
    })
}

/// Whether a message can be between these addresses (§6.1.1, §6.1.2, §7.1.1, §7.1.2).
fn between(message: &Message, options: &Options, source: &Ip, destination: &Ip) -> bool {
    // Who has no address yet doesn't tell where it is reached.
    let anonymous = source.is_unspecified();
    let tells_too_much = anonymous && options.source_link.is_some();
    match *message {
        Message::RouterSolicitation => !tells_too_much,
        Message::RouterAdvertisement { .. } => source.is_link_local(),
        Message::NeighborSolicitation { target } => {
            !target.is_multicast()
                && !tells_too_much
                && (!anonymous || *destination == destination.solicited_node())
        }
        Message::NeighborAdvertisement { target, solicited, .. } => {
            !(target.is_multicast() || solicited && destination.is_multicast())
        }
    }
}

impl Options {
    fn parse(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut options = Self::default();
        let mut prefixes = options.prefixes.iter_mut();
        while let [kind, words, ..] = *bytes {
            let (option, rest) = bytes
                .split_at_checked(usize::from(words) * 8)
                .filter(|_| words > 0)
                .ok_or(Malformed::NeighborOption)?;
            match (kind, option) {
                (SOURCE_LINK, [_, _, a, b, c, d, e, f]) => {
                    options.source_link = Some(Address([*a, *b, *c, *d, *e, *f]));
                }
                (TARGET_LINK, [_, _, a, b, c, d, e, f]) => {
                    options.target_link = Some(Address([*a, *b, *c, *d, *e, *f]));
                }
                (MTU, [_, _, _, _, a, b, c, d]) => options.mtu = Some(u32::from_be_bytes([*a, *b, *c, *d])),
                (PREFIX, option) => {
                    let prefix = Prefix::parse(option)?;
                    if let Some(place) = prefixes.next() {
                        *place = Some(prefix);
                    }
                }
                (SOURCE_LINK | TARGET_LINK | MTU, _) => return Err(Malformed::NeighborOption),
                _ => {}
            }
            bytes = rest;
        }
        if bytes.is_empty() { Ok(options) } else { Err(Malformed::NeighborOption) }
    }

    fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut len = 0;
        for (kind, link) in [(SOURCE_LINK, self.source_link), (TARGET_LINK, self.target_link)] {
            if let Some(Address([a, b, c, d, e, f])) = link {
                len += put(&[kind, 1, a, b, c, d, e, f], &mut bytes[len..])?;
            }
        }
        if let Some(mtu) = self.mtu {
            let [a, b, c, d] = mtu.to_be_bytes();
            len += put(&[MTU, 1, 0, 0, a, b, c, d], &mut bytes[len..])?;
        }
        for prefix in self.prefixes.iter().flatten() {
            let option = PrefixOption {
                kind: PREFIX,
                length: 4,
                len: prefix.len,
                flags: prefix.flags,
                valid: prefix.valid_s.into(),
                preferred: prefix.preferred_s.into(),
                reserved: 0.into(),
                prefix: prefix.prefix,
            };
            len += put(option.as_bytes(), &mut bytes[len..])?;
        }
        Some(len)
    }
}

impl Prefix {
    fn parse(option: &[u8]) -> Result<Self, Malformed> {
        match PrefixOption::ref_from_bytes(option) {
            Ok(option) if option.len <= 128 => Ok(Self {
                prefix: option.prefix,
                len: option.len,
                flags: option.flags,
                valid_s: option.valid.get(),
                preferred_s: option.preferred.get(),
            }),
            _ => Err(Malformed::NeighborOption),
        }
    }
}

impl Message {
    /// Writes the message between these addresses, its options and its checksum. It is to go out with
    /// [`HOP_LIMIT`].
    #[must_use]
    pub fn emit(&self, options: &Options, source: &Ip, destination: &Ip, bytes: &mut [u8]) -> Option<usize> {
        let body = bytes.get_mut(HEADER_LEN..)?;
        let (kind, word, fixed) = match *self {
            Self::RouterSolicitation => (ROUTER_SOLICITATION, 0, 0),
            Self::RouterAdvertisement { hop_limit, flags, lifetime_s, reachable_ms, retrans_ms } => {
                let timers = Timers { reachable: reachable_ms.into(), retrans: retrans_ms.into() };
                let word = u32::from_be_bytes([hop_limit, flags, 0, 0]) | u32::from(lifetime_s);
                (ROUTER_ADVERTISEMENT, word, put(timers.as_bytes(), body)?)
            }
            Self::NeighborSolicitation { target } => (NEIGHBOR_SOLICITATION, 0, put(&target.0, body)?),
            Self::NeighborAdvertisement { target, router, solicited, overrides } => {
                let word = u32::from(router) << 31 | u32::from(solicited) << 30 | u32::from(overrides) << 29;
                (NEIGHBOR_ADVERTISEMENT, word, put(&target.0, body)?)
            }
        };
        let len = fixed + options.emit(&mut body[fixed..])?;
        let sum = pseudo(source, destination, protocol::ICMPV6, (HEADER_LEN + len) as u32)
            .and(Sum::ZERO.bytes(&body[..len]));
        let header = Header { kind, code: 0, checksum: 0.into(), word: word.into() };
        icmp::emit(header, sum, &[], bytes)?;
        Some(HEADER_LEN + len)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouterSolicitation => out.write_str("ICMP6, router solicitation"),
            Self::RouterAdvertisement { hop_limit, flags, lifetime_s, reachable_ms, retrans_ms } => write!(
                out,
                "ICMP6, router advertisement, hop limit {hop_limit}, Flags [0x{flags:02x}], router lifetime \
                 {lifetime_s}s, reachable time {reachable_ms}ms, retrans timer {retrans_ms}ms"
            ),
            Self::NeighborSolicitation { target } => {
                write!(out, "ICMP6, neighbor solicitation, who has {target}")
            }
            Self::NeighborAdvertisement { target, router, solicited, overrides } => {
                write!(out, "ICMP6, neighbor advertisement, tgt is {target}, Flags [")?;
                let flags = [(router, "router"), (solicited, "solicited"), (overrides, "override")];
                let mut set = flags.iter().filter(|(set, _)| **set).map(|(_, name)| *name);
                out.write_str(set.next().unwrap_or("none"))?;
                set.try_for_each(|name| write!(out, ", {name}"))?;
                out.write_str("]")
            }
        }
    }
}

#[cfg(test)]
mod tests;
