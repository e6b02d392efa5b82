//! The table: level, number, name and kind of each option.

use crate::options::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, Kind, Row, Rule, SOL_SOCKET, row};
use crate::settings::Switch;
use crate::udp::group::Filter;

/// Options with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Error,
    PathMtu,
    PathMtuInfo,
    MulticastInterface,
    MulticastInterfaceV6,
    MulticastTtl,
    MulticastLoop,
    MulticastLoopV6,
    MulticastAll,
    MulticastAllV6,
    DontFragmentV6,
    Cork,
    /// Whether the group is joined.
    Group(bool),
    /// What the source is, and whether it is added.
    Source(Filter, bool),
}

use Kind::{Number, Switch as Switched};
use Rule::{Is, Own as Special};

/// The options that only a socket of UDP has, and those for which it has rules of its own.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row<Rule<Own>>] = &[
    row(SOL_SOCKET, 4, "SO_ERROR", Special(Own::Error)),
    row(IPPROTO_UDP, 1, "UDP_CORK", Special(Own::Cork)),
    row(IPPROTO_UDP, 101, "UDP_NO_CHECK6_TX", Is(Switched(Switch::NO_CHECKSUM_V6))),
    row(IPPROTO_UDP, 102, "UDP_NO_CHECK6_RX", Is(Switched(Switch::NO_CHECKSUM_V6_IN))),
    row(IPPROTO_UDP, 103, "UDP_SEGMENT", Is(Number(0, 65_535, |to, bytes| to.gso_size = bytes as u16, |view| view.values.gso_size.into()))),
    row(IPPROTO_UDP, 104, "UDP_GRO", Is(Switched(Switch::GRO))),
    row(IPPROTO_IP, 14, "IP_MTU", Special(Own::PathMtu)),
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
    row(IPPROTO_IPV6, 17, "IPV6_MULTICAST_IF", Special(Own::MulticastInterfaceV6)),
    row(IPPROTO_IPV6, 18, "IPV6_MULTICAST_HOPS", Is(Number(-1, 255, |to, hops| to.set_multicast_ttl(false, hops), |view| view.values.multicast_ttl(false).into()))),
    row(IPPROTO_IPV6, 19, "IPV6_MULTICAST_LOOP", Special(Own::MulticastLoopV6)),
    row(IPPROTO_IPV6, 20, "IPV6_ADD_MEMBERSHIP", Special(Own::Group(true))),
    row(IPPROTO_IPV6, 21, "IPV6_DROP_MEMBERSHIP", Special(Own::Group(false))),
    row(IPPROTO_IPV6, 24, "IPV6_MTU", Special(Own::PathMtu)),
    row(IPPROTO_IPV6, 29, "IPV6_MULTICAST_ALL", Special(Own::MulticastAllV6)),
    row(IPPROTO_IPV6, 51, "IPV6_RECVHOPLIMIT", Is(Switched(Switch::HOP_LIMIT_TOLD))),
    row(IPPROTO_IPV6, 61, "IPV6_PATHMTU", Special(Own::PathMtuInfo)),
    row(IPPROTO_IPV6, 62, "IPV6_DONTFRAG", Special(Own::DontFragmentV6)),
    row(IPPROTO_IPV6, 66, "IPV6_RECVTCLASS", Is(Switched(Switch::CLASS_TOLD))),
];
