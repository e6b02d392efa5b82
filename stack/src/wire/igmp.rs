//! Who listens to which group, and to whom in it: IGMP (RFC 1112, RFC 2236, RFC 3376) and multicast listener discovery (RFC 2710,
//! RFC 3810), as far as a host needs it: queries and the older reports are read, reports written.

use super::checksum::{Sum, pseudo};
use super::ip::Ip;
use super::{Malformed, protocol};
use crate::time::Duration;

#[cfg(test)]
mod tests;

/// IP's number of IGMP.
pub const IGMP: u8 = 2;
/// Where reports of IGMPv3 go (RFC 3376 §4.2.14).
pub const V3_ROUTERS: Ip = Ip::v4([224, 0, 0, 22]);
/// Where a group is left in IGMPv2 (RFC 2236 §3).
pub const ALL_ROUTERS: Ip = Ip::v4([224, 0, 0, 2]);
/// Where reports of MLDv2 go (RFC 3810 §5.2.14).
pub const MLD_ROUTERS: Ip = Ip([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16]);
/// Where a group is left in MLDv1 (RFC 2710 §4).
pub const MLD_ALL_ROUTERS: Ip = Ip([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

/// Types of ICMPv6 (RFC 3810 §5, RFC 2710 §3.1).
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_V2: u8 = 143;
/// Types of IGMP (RFC 3376 §4, RFC 2236 §2.1).
const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE_V2: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

/// Bytes of a report before its records (RFC 3376 §4.2, RFC 3810 §5.2).
const HEADER_LEN: usize = 8;
/// How long who speaks IGMPv1 waits for answers (RFC 3376 §4.1.1, RFC 1112 appendix I).
const V1_RESPONSE: Duration = Duration::from_secs(10);

/// Which words a router understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// IGMPv1.
    V1,
    /// IGMPv2, MLDv1.
    V2,
    /// IGMPv3, MLDv2.
    V3,
}

/// A question of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'p> {
    /// The group; `None` for all.
    pub group: Option<Ip>,
    /// The answer comes within it.
    pub within: Duration,
    /// How the router speaks.
    pub version: Version,
    /// Its robustness variable (QRV); 0 if it doesn't say.
    pub robustness: u8,
    /// How often it asks (QQIC); 0 if it doesn't say.
    pub interval: Duration,
    /// The sources that it asks for, of the group; all of them if it is empty.
    sources: &'p [u8],
}

impl Query<'_> {
    /// A question of this version for all of a group, or for all groups.
    #[must_use]
    pub const fn new(group: Option<Ip>, within: Duration, version: Version) -> Self {
        Query { group, within, version, robustness: 0, interval: Duration(0), sources: &[] }
    }

    /// Whether it is for some sources only.
    #[must_use]
    pub const fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// The sources that it asks for.
    pub fn sources(&self) -> impl Iterator<Item = Ip> {
        let is_v4 = self.group.is_some_and(|group| group.is_v4());
        let of = move |bytes: &[u8]| match bytes.first_chunk::<16>() {
            Some(v6) if !is_v4 => Ip(*v6),
            _ => Ip::v4(bytes.first_chunk().copied().unwrap_or_default()),
        };
        self.sources.chunks_exact(if is_v4 { 4 } else { 16 }).map(of)
    }
}

/// What others say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'p> {
    /// A router asks.
    Query(Query<'p>),
    /// Somebody else listens to a group, in the words of the older versions.
    Report(Ip),
}

/// A code of maximum response time or query interval: from 128 (IGMP) or 32,768 (MLD) on a float of this many bits of mantissa.
const fn code(code: u32, mantissa: u32) -> u64 {
    if code < 1 << (mantissa + 3) {
        return code as u64;
    }
    let exponent = code >> mantissa & 7;
    ((code & ((1 << mantissa) - 1) | 1 << mantissa) as u64) << (exponent + 3)
}

/// What stands behind a query's group in the newer versions: QRV, QQIC, and the sources, of so many bytes each. `None` for one that says
/// more than it has, or asks for sources of every group.
fn newer(rest: &[u8], each: usize, is_general: bool) -> Option<(u8, Duration, &[u8])> {
    let (head, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let sources = rest.get(..count * each)?;
    let interval = Duration::from_secs(code(head[1].into(), 4));
    (count == 0 || !is_general).then_some((head[0] & 7, interval, sources))
}

/// A message of IGMP, if it is one for hosts.
///
/// # Errors
/// Too short, or its checksum is wrong.
pub fn parse(bytes: &[u8]) -> Result<Option<Message<'_>>, Malformed> {
    let (head, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
    let [kind, within, _, _, a, b, c, d] = *head;
    if !Sum::ZERO.bytes(bytes).holds() {
        return Err(Malformed::Checksum);
    }
    let group = Ip::v4([a, b, c, d]);
    match kind {
        QUERY => {}
        REPORT_V1 | REPORT_V2 => return Ok(Some(Message::Report(group))),
        _ => return Ok(None),
    }
    let group = (!group.is_unspecified()).then_some(group);
    // In tenths of a second.
    let tenths = |tenths: u64| Duration::from_millis(tenths * 100);
    // RFC 3376 §7.1: "IGMPv1 Query: length = 8 octets AND Max Resp Code field is zero. IGMPv2 Query: length = 8 octets AND Max Resp
    // Code field is non-zero. IGMPv3 Query: length >= 12 octets. Query messages that do not match any of the above conditions
    // (e.g., a Query of length 10 octets) MUST be silently ignored."
    let query = match (rest.len(), within) {
        (0, 0) => Query::new(None, V1_RESPONSE, Version::V1),
        (0, _) => Query::new(group, tenths(within.into()), Version::V2),
        _ => {
            let Some((robustness, interval, sources)) = newer(rest, 4, group.is_none()) else {
                return Ok(None);
            };
            let within = tenths(code(within.into(), 4));
            Query { robustness, interval, sources, ..Query::new(group, within, Version::V3) }
        }
    };
    Ok(Some(Message::Query(query)))
}

/// Whether a message of ICMPv6 is one of multicast listener discovery, by its type.
#[must_use]
pub fn is_v6(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(MLD_QUERY | MLD_REPORT | MLD_DONE | MLD_REPORT_V2)))
}

/// A message of multicast listener discovery, if it is one for hosts. The checksum, the hop limit and the router alert are the caller's to
/// look at.
#[must_use]
pub fn parse_v6(bytes: &[u8]) -> Option<Message<'_>> {
    let (head, rest) = bytes.split_first_chunk::<24>()?;
    let group = Ip(*head.last_chunk()?);
    match head[0] {
        MLD_QUERY => {}
        MLD_REPORT => return Some(Message::Report(group)),
        _ => return None,
    }
    let group = (!group.is_unspecified()).then_some(group);
    let within = u32::from(u16::from_be_bytes([head[4], head[5]]));
    // RFC 3810 §8.1: "MLDv1 Query: length = 24 octets; MLDv2 Query: length >= 28 octets. Query messages that do not match any of the
    // above conditions (e.g., a Query of length 26 octets) MUST be silently ignored."
    if rest.is_empty() {
        return Some(Message::Query(Query::new(group, Duration::from_millis(within.into()), Version::V2)));
    }
    let (robustness, interval, sources) = newer(rest, 16, group.is_none())?;
    let within = Duration::from_millis(code(within, 12));
    Some(Message::Query(Query { robustness, interval, sources, ..Query::new(group, within, Version::V3) }))
}

/// What a record says of a group (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// We listen to these sources (MODE_IS_INCLUDE).
    Includes = 1,
    /// We listen to all but these (MODE_IS_EXCLUDE).
    Excludes = 2,
    /// From now on to these alone (CHANGE_TO_INCLUDE_MODE): without any, the group is left.
    ToInclude = 3,
    /// From now on to all but these (CHANGE_TO_EXCLUDE_MODE): without any, the group is joined.
    ToExclude = 4,
    /// To these as well (ALLOW_NEW_SOURCES).
    Allow = 5,
    /// To these no longer (BLOCK_OLD_SOURCES).
    Block = 6,
}

impl Kind {
    /// Whether it says something without sources.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        !matches!(self, Self::Allow | Self::Block)
    }

    /// RFC 3376 §4.2.16: "If its Type is MODE_IS_EXCLUDE or CHANGE_TO_EXCLUDE_MODE, a single Group Record is sent, containing as many
    /// source addresses as can fit in the message, and the remaining source addresses are not reported"; others are continued.
    #[must_use]
    pub const fn is_cut(self) -> bool {
        matches!(self, Self::Excludes | Self::ToExclude)
    }
}

/// A report of IGMPv3 or MLDv2 that is being written.
#[derive(Debug)]
pub struct Report<'b> {
    bytes: &'b mut [u8],
    len: usize,
    records: u16,
    /// Where the record begins that sources are added to.
    open: usize,
    is_v4: bool,
}

impl<'b> Report<'b> {
    /// One without records, no longer than these bytes.
    #[must_use]
    pub fn new(bytes: &'b mut [u8], is_v4: bool) -> Self {
        Self { bytes, len: HEADER_LEN, records: 0, open: 0, is_v4 }
    }

    /// Whether it says nothing yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    const fn address_len(&self) -> usize {
        if self.is_v4 { 4 } else { 16 }
    }

    /// Whether there is room for a record of so many sources.
    #[must_use]
    pub fn has_room(&self, sources: usize) -> bool {
        self.len + 4 + self.address_len() * (1 + sources) <= self.bytes.len()
    }

    fn put(&mut self, ip: &Ip) -> bool {
        let address = if self.is_v4 { &ip.0[12..] } else { &ip.0[..] };
        let place = self.bytes.get_mut(self.len..self.len + address.len());
        self.len += place.as_ref().map_or(0, |place| place.len());
        place.map(|place| place.copy_from_slice(address)).is_some()
    }

    /// Begins a record; false if it has no room.
    pub fn begin(&mut self, kind: Kind, group: &Ip) -> bool {
        let Some(head) = self.bytes.get_mut(self.len..self.len + 4).filter(|_| self.is_v4 == group.is_v4())
        else {
            return false;
        };
        head.copy_from_slice(&[kind as u8, 0, 0, 0]);
        let begin = self.len;
        self.len += 4;
        if !self.put(group) {
            self.len = begin;
            return false;
        }
        (self.open, self.records) = (begin, self.records + 1);
        true
    }

    /// Adds a source to the record that was begun last; false if it has no room.
    pub fn add(&mut self, source: &Ip) -> bool {
        let count = self.open + 2;
        if self.records == 0 || !self.put(source) {
            return false;
        }
        if let Some([high, low]) = self.bytes.get_mut(count..count + 2) {
            [*high, *low] = (u16::from_be_bytes([*high, *low]) + 1).to_be_bytes();
        }
        true
    }

    /// Writes what stands before the records, for this sender; how long the report is.
    #[must_use]
    pub fn finish(self, from: &Ip) -> usize {
        let kind = if self.is_v4 { REPORT_V3 } else { MLD_REPORT_V2 };
        let [high, low] = self.records.to_be_bytes();
        let to = if self.is_v4 { V3_ROUTERS } else { MLD_ROUTERS };
        let Some(message) = self.bytes.get_mut(..self.len) else { return 0 };
        message[..HEADER_LEN].copy_from_slice(&[kind, 0, 0, 0, 0, 0, high, low]);
        seal(message, from, &to);
        self.len
    }
}

/// Writes the checksum of a message.
fn seal(message: &mut [u8], from: &Ip, to: &Ip) {
    let start = match to.is_v4() {
        true => Sum::ZERO,
        false => pseudo(from, to, protocol::ICMPV6, message.len() as u32),
    };
    let sum = start.bytes(message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// What a host says in the older versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It listens to the group, in IGMPv1.
    ListensV1,
    /// In IGMPv2 or MLDv1.
    Listens,
    /// It doesn't any more.
    Leaves,
}

impl Word {
    /// Whom it is for.
    #[must_use]
    pub const fn destination(self, group: &Ip, is_v4: bool) -> Ip {
        match self {
            Self::Leaves if is_v4 => ALL_ROUTERS,
            Self::Leaves => MLD_ALL_ROUTERS,
            _ => *group,
        }
    }

    /// Writes the message about a group; how long it is.
    #[must_use]
    pub fn emit(self, group: &Ip, from: &Ip, bytes: &mut [u8]) -> Option<usize> {
        let mut message = [0; 24];
        let len = match group.as_v4() {
            Some(group) => {
                message[0] = match self {
                    Self::ListensV1 => REPORT_V1,
                    Self::Listens => REPORT_V2,
                    Self::Leaves => LEAVE_V2,
                };
                message[4..8].copy_from_slice(&group);
                8
            }
            None => {
                message[0] = if self == Self::Leaves { MLD_DONE } else { MLD_REPORT };
                message[8..24].copy_from_slice(&group.0);
                24
            }
        };
        seal(&mut message[..len], from, &self.destination(group, group.is_v4()));
        bytes.get_mut(..len)?.copy_from_slice(&message[..len]);
        Some(len)
    }
}

/// A header of hop-by-hop options that has router alert for multicast listener discovery (RFC 2711 §2.1, value 0), and padding.
#[must_use]
pub const fn alert(next: u8) -> [u8; 8] {
    [next, 0, 5, 2, 0, 0, 1, 0]
}

/// Whether a datagram of IPv6 has such an alert: `headers` are its own and all that follow it.
///
/// RFC 3810 §6.2: "the node checks [...] if the Router Alert option is present in the Hop-by-Hop Options header of the IPv6 packet. If any
/// of these checks fails, the packet is dropped."
#[must_use]
pub fn has_alert(headers: &[u8]) -> bool {
    let Some((fixed, rest)) = headers.split_first_chunk::<{ super::ipv6::HEADER_LEN }>() else {
        return false;
    };
    let len = rest.get(1).map_or(0, |units| (usize::from(*units) + 1) * 8);
    let mut options = rest.get(2..len).filter(|_| fixed[6] == 0).unwrap_or_default();
    while let [kind, after @ ..] = options {
        let len = match (kind, after.first()) {
            (0, _) => 1,
            (5, Some(2)) if after.get(1..3) == Some(&[0, 0]) => return true,
            (_, Some(len)) => usize::from(*len) + 2,
            _ => return false,
        };
        options = options.get(len..).unwrap_or_default();
    }
    false
}
