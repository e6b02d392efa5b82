//! Who listens to which group: IGMP (RFC 2236, RFC 3376) and multicast listener discovery (RFC 2710, RFC 3810), as far as a
//! host needs it that has no source filters on the wire: queries are read, reports written.

use super::checksum::{Sum, pseudo};
use super::ip::Ip;
use super::{Malformed, protocol};
use crate::time::Duration;

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
const REPORT_V2: u8 = 0x16;
const LEAVE_V2: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

/// A question of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The group; `None` for all.
    pub group: Option<Ip>,
    /// The answer comes within it.
    pub within: Duration,
    /// The router speaks IGMPv2 or MLDv1, or less.
    pub is_old: bool,
}

/// What a report says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// We listen to it, as we were asked (MODE_IS_EXCLUDE).
    Listens,
    /// We begin to (CHANGE_TO_EXCLUDE_MODE).
    Joins,
    /// We don't any more (CHANGE_TO_INCLUDE_MODE).
    Leaves,
}

impl Report {
    /// The type of a group record (RFC 3376 §4.2.12, RFC 3810 §5.2.12); it has no sources.
    const fn record(self) -> u8 {
        match self {
            Self::Listens => 2,
            Self::Leaves => 3,
            Self::Joins => 4,
        }
    }
}

/// A code of maximum response time: from 128 (IGMP) or 32,768 (MLD) on a float of this many bits of mantissa.
const fn code(code: u32, mantissa: u32) -> u64 {
    if code < 1 << (mantissa + 3) {
        return code as u64;
    }
    let exponent = code >> mantissa & 7;
    ((code & ((1 << mantissa) - 1) | 1 << mantissa) as u64) << (exponent + 3)
}

/// A query of IGMP, if it is one.
///
/// # Errors
/// Too short, or its checksum is wrong.
pub fn parse(bytes: &[u8]) -> Result<Option<Query>, Malformed> {
    let [kind, within, _, _, a, b, c, d] = *bytes.first_chunk().ok_or(Malformed::Truncated)?;
    if !Sum::ZERO.bytes(bytes).holds() {
        return Err(Malformed::Checksum);
    }
    let (group, is_old) = (Ip::v4([a, b, c, d]), bytes.len() < 12);
    // In tenths of a second; RFC 2236 §4: a version 1 router says 0 and means ten seconds.
    let tenths = if is_old && within == 0 { 100 } else { code(within.into(), 4) };
    let within = Duration::from_millis(tenths * 100);
    let group = (!group.is_unspecified()).then_some(group);
    Ok((kind == QUERY).then_some(Query { group, within, is_old }))
}

/// A query of multicast listener discovery, if it is one. The checksum and the hop limit are the caller's to look at.
#[must_use]
pub fn parse_v6(bytes: &[u8]) -> Option<Query> {
    let head: &[u8; 24] = bytes.first_chunk()?;
    let group = Ip(*head.last_chunk()?);
    let within = Duration::from_millis(code(u32::from(u16::from_be_bytes([head[4], head[5]])), 12));
    let group = (!group.is_unspecified()).then_some(group);
    (head[0] == MLD_QUERY).then_some(Query { group, within, is_old: bytes.len() < 28 })
}

/// Whom a report is for.
#[must_use]
pub fn destination(group: &Ip, report: Report, is_old: bool) -> Ip {
    match (group.is_v4(), is_old, report) {
        (true, false, _) => V3_ROUTERS,
        (true, true, Report::Leaves) => ALL_ROUTERS,
        (false, false, _) => MLD_ROUTERS,
        (false, true, Report::Leaves) => MLD_ALL_ROUTERS,
        (_, true, _) => *group,
    }
}

/// Writes the report of one group, from and to these addresses; how long it is.
#[must_use]
pub fn emit(group: &Ip, report: Report, is_old: bool, ends: (&Ip, &Ip), bytes: &mut [u8]) -> Option<usize> {
    let mut message = [0; 28];
    let is_leave = report == Report::Leaves;
    let len = match (group.as_v4(), is_old) {
        (Some(group), true) => {
            message[0] = if is_leave { LEAVE_V2 } else { REPORT_V2 };
            message[4..8].copy_from_slice(&group);
            8
        }
        (Some(group), false) => {
            (message[0], message[7], message[8]) = (REPORT_V3, 1, report.record());
            message[12..16].copy_from_slice(&group);
            16
        }
        (None, true) => {
            message[0] = if is_leave { MLD_DONE } else { MLD_REPORT };
            message[8..24].copy_from_slice(&group.0);
            24
        }
        (None, false) => {
            (message[0], message[7], message[8]) = (MLD_REPORT_V2, 1, report.record());
            message[12..28].copy_from_slice(&group.0);
            28
        }
    };
    let start = match group.is_v4() {
        true => Sum::ZERO,
        false => pseudo(ends.0, ends.1, protocol::ICMPV6, len as u32),
    };
    let sum = start.bytes(&message[..len]).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes.get_mut(..len)?.copy_from_slice(&message[..len]);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
    const GROUP6: Ip = Ip(*b"\xff\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x63");

    #[test]
    fn what_is_written_is_what_the_standards_draw() {
        let mut bytes = [0; 32];
        let ends = (&Ip::UNSPECIFIED, &MLD_ROUTERS);
        let len = emit(&GROUP, Report::Joins, false, ends, &mut bytes).expect("room");
        assert!(Sum::ZERO.bytes(&bytes[..len]).holds());
        assert_eq!((len, bytes[0], &bytes[4..16]), (16, 0x22, &[0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3][..]));
        let len = emit(&GROUP, Report::Leaves, true, ends, &mut bytes).expect("room");
        assert_eq!((len, bytes[0], &bytes[4..8]), (8, 0x17, &[239, 1, 2, 3][..]));
        let len = emit(&GROUP6, Report::Listens, false, ends, &mut bytes).expect("room");
        assert_eq!((len, bytes[0], &bytes[4..12]), (28, 143, &[0, 0, 0, 1, 2, 0, 0, 0][..]));
        assert!(pseudo(ends.0, ends.1, protocol::ICMPV6, 28).bytes(&bytes[..28]).holds());
        assert_eq!(emit(&GROUP6, Report::Listens, false, ends, &mut bytes[..27]), None);
    }

    #[test]
    fn queries_tell_group_time_and_version() {
        let sealed = |mut bytes: Vec<u8>| {
            let sum = Sum::ZERO.bytes(&bytes).checksum();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        let v2 = sealed(vec![0x11, 50, 0, 0, 239, 1, 2, 3]);
        let five = Duration::from_secs(5);
        assert_eq!(parse(&v2), Ok(Some(Query { group: Some(GROUP), within: five, is_old: true })));
        let v1 = sealed(vec![0x11, 0, 0, 0, 0, 0, 0, 0]);
        let ten = Duration::from_secs(10);
        assert_eq!(parse(&v1), Ok(Some(Query { group: None, within: ten, is_old: true })));
        // 0x9a: a mantissa of 10 and an exponent of 1 are (10 + 16) << 4 tenths (RFC 3376 §4.1.1).
        let v3 = sealed(vec![0x11, 0x9a, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]);
        let long = Duration::from_millis((26 << 4) * 100);
        assert_eq!(parse(&v3), Ok(Some(Query { group: None, within: long, is_old: false })));
        assert_eq!(parse(&v2[..7]), Err(Malformed::Truncated));
        let mut wrong = v2.clone();
        wrong[7] ^= 1;
        assert_eq!(parse(&wrong), Err(Malformed::Checksum));
        assert_eq!(parse(&sealed(vec![0x16, 0, 0, 0, 239, 1, 2, 3])), Ok(None));

        let mut query = vec![130, 0, 0, 0, 0x27, 0x10, 0, 0];
        query.extend_from_slice(&GROUP6.0);
        assert_eq!(parse_v6(&query), Some(Query { group: Some(GROUP6), within: ten, is_old: true }));
        query.extend_from_slice(&[0; 4]);
        assert_eq!(parse_v6(&query).map(|query| query.is_old), Some(false));
        query[0] = 131;
        assert_eq!(parse_v6(&query), None);
    }
}
