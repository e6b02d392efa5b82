//! The table: level, number, name and kind of each option.

use super::{IPPROTO_UDP, View};
use crate::error::Error;
use crate::settings::{Switch, Values};
use crate::tcp::options::{IPPROTO_IP, IPPROTO_IPV6, SOL_SOCKET};
use crate::udp::Mark;
use crate::udp::group::Filter;

/// What kind of value an option has.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A bit of [`Values::options`]: 0, or anything else.
    Switch(u32),
    /// A number within bounds, how it is kept and how it is read back.
    Number(i32, i32, fn(&mut Values, i32), fn(&View<'_>) -> i32),
    /// What can only be read.
    Told(fn(&View<'_>) -> Result<i32, Error>),
    /// One with rules of its own.
    Own(Own),
}

/// Options with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Error,
    SendBuffer,
    SendBufferForced,
    ReceiveBuffer,
    ReceiveBufferForced,
    Priority,
    Linger,
    ReceiveLowWater,
    ReceiveTimeout,
    SendTimeout,
    Timestamp,
    TimestampNs,
    Tos,
    Ttl,
    FreeBind,
    V6Only,
    PathMtu,
    MulticastInterface,
    MulticastTtl,
    MulticastLoop,
    MulticastLoopV6,
    MulticastAll,
    MulticastAllV6,
    /// Whether the group is joined.
    Group(bool),
    /// What the source is, and whether it is added.
    Source(Filter, bool),
}

/// An option.
#[derive(Clone, Copy)]
pub struct Row {
    /// SOL_SOCKET, IPPROTO_UDP, IPPROTO_IP or IPPROTO_IPV6.
    pub level: i32,
    /// Its number there.
    pub number: i32,
    /// Its name.
    pub name: &'static str,
    pub(crate) kind: Kind,
}

const fn row(level: i32, number: i32, name: &'static str, kind: Kind) -> Row {
    Row { level, number, name, kind }
}

/// What the user has set, plus one, or the default for 0.
const fn or(value: u8, default: i32) -> i32 {
    if value == 0 { default } else { value as i32 - 1 }
}

use Kind::{Number, Own as Special, Switch as Bit, Told};

/// IP_PMTUDISC_WANT.
const WANT: i32 = 1;

/// Every option of a socket of UDP.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row(SOL_SOCKET, 2, "SO_REUSEADDR", Bit(Switch::REUSE_ADDRESS)),
    row(SOL_SOCKET, 3, "SO_TYPE", Told(|_| Ok(2))),
    row(SOL_SOCKET, 4, "SO_ERROR", Special(Own::Error)),
    row(SOL_SOCKET, 5, "SO_DONTROUTE", Bit(Switch::DONT_ROUTE)),
    row(SOL_SOCKET, 6, "SO_BROADCAST", Bit(Switch::BROADCAST)),
    row(SOL_SOCKET, 7, "SO_SNDBUF", Special(Own::SendBuffer)),
    row(SOL_SOCKET, 8, "SO_RCVBUF", Special(Own::ReceiveBuffer)),
    row(SOL_SOCKET, 9, "SO_KEEPALIVE", Bit(Switch::KEEP_ALIVE)),
    row(SOL_SOCKET, 10, "SO_OOBINLINE", Bit(Switch::OOB_INLINE)),
    row(SOL_SOCKET, 11, "SO_NO_CHECK", Bit(Switch::NO_CHECKSUM)),
    row(SOL_SOCKET, 12, "SO_PRIORITY", Special(Own::Priority)),
    row(SOL_SOCKET, 13, "SO_LINGER", Special(Own::Linger)),
    row(SOL_SOCKET, 15, "SO_REUSEPORT", Bit(Switch::REUSE_PORT)),
    row(SOL_SOCKET, 18, "SO_RCVLOWAT", Special(Own::ReceiveLowWater)),
    row(SOL_SOCKET, 19, "SO_SNDLOWAT", Told(|_| Ok(1))),
    row(SOL_SOCKET, 20, "SO_RCVTIMEO", Special(Own::ReceiveTimeout)),
    row(SOL_SOCKET, 21, "SO_SNDTIMEO", Special(Own::SendTimeout)),
    row(SOL_SOCKET, 29, "SO_TIMESTAMP", Special(Own::Timestamp)),
    row(SOL_SOCKET, 30, "SO_ACCEPTCONN", Told(|_| Ok(0))),
    row(SOL_SOCKET, 32, "SO_SNDBUFFORCE", Special(Own::SendBufferForced)),
    row(SOL_SOCKET, 33, "SO_RCVBUFFORCE", Special(Own::ReceiveBufferForced)),
    row(SOL_SOCKET, 35, "SO_TIMESTAMPNS", Special(Own::TimestampNs)),
    row(SOL_SOCKET, 36, "SO_MARK", Number(i32::MIN, i32::MAX, |to, mark| to.mark = mark as u32, |view| view.values.mark as i32)),
    row(SOL_SOCKET, 38, "SO_PROTOCOL", Told(|_| Ok(IPPROTO_UDP))),
    row(SOL_SOCKET, 39, "SO_DOMAIN", Told(|view| Ok(if view.udp.is(Mark::V6) { 10 } else { 2 }))),
    row(SOL_SOCKET, 40, "SO_RXQ_OVFL", Bit(Switch::DROPS_TOLD)),
    row(IPPROTO_UDP, 101, "UDP_NO_CHECK6_TX", Bit(Switch::NO_CHECKSUM_V6)),
    row(IPPROTO_UDP, 103, "UDP_SEGMENT", Number(0, 65_535, |to, bytes| to.gso_size = bytes as u16, |view| view.values.gso_size.into())),
    row(IPPROTO_UDP, 104, "UDP_GRO", Bit(Switch::GRO)),
    row(IPPROTO_IP, 1, "IP_TOS", Special(Own::Tos)),
    row(IPPROTO_IP, 2, "IP_TTL", Special(Own::Ttl)),
    row(IPPROTO_IP, 8, "IP_PKTINFO", Bit(Switch::PACKET_INFO)),
    row(IPPROTO_IP, 10, "IP_MTU_DISCOVER", Number(0, 5, |to, how| to.mtu_discover = how as u8 + 1, |view| or(view.values.mtu_discover, WANT))),
    row(IPPROTO_IP, 11, "IP_RECVERR", Bit(Switch::ERRORS)),
    row(IPPROTO_IP, 12, "IP_RECVTTL", Bit(Switch::TTL_TOLD)),
    row(IPPROTO_IP, 13, "IP_RECVTOS", Bit(Switch::TOS_TOLD)),
    row(IPPROTO_IP, 14, "IP_MTU", Special(Own::PathMtu)),
    row(IPPROTO_IP, 15, "IP_FREEBIND", Special(Own::FreeBind)),
    row(IPPROTO_IP, 32, "IP_MULTICAST_IF", Special(Own::MulticastInterface)),
    row(IPPROTO_IP, 33, "IP_MULTICAST_TTL", Special(Own::MulticastTtl)),
    row(IPPROTO_IP, 34, "IP_MULTICAST_LOOP", Special(Own::MulticastLoop)),
    row(IPPROTO_IP, 35, "IP_ADD_MEMBERSHIP", Special(Own::Group(true))),
    row(IPPROTO_IP, 36, "IP_DROP_MEMBERSHIP", Special(Own::Group(false))),
    row(IPPROTO_IP, 37, "IP_UNBLOCK_SOURCE", Special(Own::Source(Filter::Exclude, false))),
    row(IPPROTO_IP, 38, "IP_BLOCK_SOURCE", Special(Own::Source(Filter::Exclude, true))),
    row(IPPROTO_IP, 39, "IP_ADD_SOURCE_MEMBERSHIP", Special(Own::Source(Filter::Include, true))),
    row(IPPROTO_IP, 40, "IP_DROP_SOURCE_MEMBERSHIP", Special(Own::Source(Filter::Include, false))),
    row(IPPROTO_IP, 49, "IP_MULTICAST_ALL", Special(Own::MulticastAll)),
    row(IPPROTO_IPV6, 16, "IPV6_UNICAST_HOPS", Number(-1, 255, |to, hops| to.set_hop_limit(hops), |view| view.values.hop_limit().into())),
    row(IPPROTO_IPV6, 18, "IPV6_MULTICAST_HOPS", Number(-1, 255, |to, hops| to.set_multicast_ttl(false, hops), |view| view.values.multicast_ttl(false).into())),
    row(IPPROTO_IPV6, 19, "IPV6_MULTICAST_LOOP", Special(Own::MulticastLoopV6)),
    row(IPPROTO_IPV6, 20, "IPV6_ADD_MEMBERSHIP", Special(Own::Group(true))),
    row(IPPROTO_IPV6, 21, "IPV6_DROP_MEMBERSHIP", Special(Own::Group(false))),
    row(IPPROTO_IPV6, 23, "IPV6_MTU_DISCOVER", Number(0, 5, |to, how| to.mtu_discover_v6 = how as u8 + 1, |view| or(view.values.mtu_discover_v6, WANT))),
    row(IPPROTO_IPV6, 24, "IPV6_MTU", Special(Own::PathMtu)),
    row(IPPROTO_IPV6, 25, "IPV6_RECVERR", Bit(Switch::ERRORS_V6)),
    row(IPPROTO_IPV6, 26, "IPV6_V6ONLY", Special(Own::V6Only)),
    row(IPPROTO_IPV6, 29, "IPV6_MULTICAST_ALL", Special(Own::MulticastAllV6)),
    row(IPPROTO_IPV6, 49, "IPV6_RECVPKTINFO", Bit(Switch::PACKET_INFO_V6)),
    row(IPPROTO_IPV6, 51, "IPV6_RECVHOPLIMIT", Bit(Switch::HOP_LIMIT_TOLD)),
    row(IPPROTO_IPV6, 66, "IPV6_RECVTCLASS", Bit(Switch::CLASS_TOLD)),
    row(IPPROTO_IPV6, 67, "IPV6_TCLASS", Number(-1, 255, |to, class| to.traffic_class = class.max(0) as u8, |view| view.values.traffic_class.into())),
];
