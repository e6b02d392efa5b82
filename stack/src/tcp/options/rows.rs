//! The table: level, number, name and kind of each option.

use super::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, TCP_CORK, TCP_NODELAY, View};
use crate::error::Error;
use crate::settings::{Switch, Values};
use crate::tcp::state::State;
use crate::tcp::tcb::Mark;

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
    MaxPacingRate,
    NoDelay,
    Cork,
    QuickAck,
    PeekOffset,
    QueueTold,
    MaxSegment,
    Linger2,
    DeferAccept,
    WindowClamp,
    Info,
    Congestion,
    FastOpen,
    FastOpenConnect,
    FastOpenNoCookie,
    FastOpenKey,
    Clock,
    Tos,
    Ttl,
    FreeBind,
    V6Only,
}

/// An option.
#[derive(Clone, Copy)]
pub struct Row {
    /// SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP or IPPROTO_IPV6.
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

/// What the user has set, or the default for 0.
const fn or(value: u32, default: u32) -> i32 {
    (if value == 0 { default } else { value }) as i32
}

use Kind::{Number, Switch as Bit, Told};

const ANY: (i32, i32) = (i32::MIN, i32::MAX);

/// Every option of a socket of TCP.
pub const ROWS: &[Row] = &[
    row(SOL_SOCKET, 2, "SO_REUSEADDR", Bit(Switch::REUSE_ADDRESS)),
    row(SOL_SOCKET, 3, "SO_TYPE", Told(|_| Ok(1))),
    row(SOL_SOCKET, 4, "SO_ERROR", Kind::Own(Own::Error)),
    row(SOL_SOCKET, 5, "SO_DONTROUTE", Bit(Switch::DONT_ROUTE)),
    row(SOL_SOCKET, 6, "SO_BROADCAST", Bit(Switch::BROADCAST)),
    row(SOL_SOCKET, 7, "SO_SNDBUF", Kind::Own(Own::SendBuffer)),
    row(SOL_SOCKET, 8, "SO_RCVBUF", Kind::Own(Own::ReceiveBuffer)),
    row(SOL_SOCKET, 9, "SO_KEEPALIVE", Bit(Switch::KEEP_ALIVE)),
    row(SOL_SOCKET, 10, "SO_OOBINLINE", Bit(Switch::OOB_INLINE)),
    row(SOL_SOCKET, 11, "SO_NO_CHECK", Bit(Switch::NO_CHECKSUM)),
    row(SOL_SOCKET, 12, "SO_PRIORITY", Kind::Own(Own::Priority)),
    row(SOL_SOCKET, 13, "SO_LINGER", Kind::Own(Own::Linger)),
    row(SOL_SOCKET, 15, "SO_REUSEPORT", Bit(Switch::REUSE_PORT)),
    row(SOL_SOCKET, 18, "SO_RCVLOWAT", Kind::Own(Own::ReceiveLowWater)),
    row(SOL_SOCKET, 19, "SO_SNDLOWAT", Told(|_| Ok(1))),
    row(SOL_SOCKET, 20, "SO_RCVTIMEO", Kind::Own(Own::ReceiveTimeout)),
    row(SOL_SOCKET, 21, "SO_SNDTIMEO", Kind::Own(Own::SendTimeout)),
    row(SOL_SOCKET, 29, "SO_TIMESTAMP", Kind::Own(Own::Timestamp)),
    row(SOL_SOCKET, 30, "SO_ACCEPTCONN", Told(|view| Ok((view.tcb.state() == State::Listen).into()))),
    row(SOL_SOCKET, 32, "SO_SNDBUFFORCE", Kind::Own(Own::SendBufferForced)),
    row(SOL_SOCKET, 33, "SO_RCVBUFFORCE", Kind::Own(Own::ReceiveBufferForced)),
    row(SOL_SOCKET, 35, "SO_TIMESTAMPNS", Kind::Own(Own::TimestampNs)),
    row(
        SOL_SOCKET,
        36,
        "SO_MARK",
        Number(ANY.0, ANY.1, |to, mark| to.mark = mark as u32, |view| view.values.mark as i32),
    ),
    row(SOL_SOCKET, 38, "SO_PROTOCOL", Told(|_| Ok(IPPROTO_TCP))),
    row(SOL_SOCKET, 39, "SO_DOMAIN", Told(|view| Ok(if view.tcb.is(Mark::V6) { 10 } else { 2 }))),
    row(SOL_SOCKET, 40, "SO_RXQ_OVFL", Bit(Switch::DROPS_TOLD)),
    row(SOL_SOCKET, 42, "SO_PEEK_OFF", Kind::Own(Own::PeekOffset)),
    row(SOL_SOCKET, 47, "SO_MAX_PACING_RATE", Kind::Own(Own::MaxPacingRate)),
    row(IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY", Kind::Own(Own::NoDelay)),
    row(IPPROTO_TCP, 2, "TCP_MAXSEG", Kind::Own(Own::MaxSegment)),
    row(IPPROTO_TCP, TCP_CORK, "TCP_CORK", Kind::Own(Own::Cork)),
    row(
        IPPROTO_TCP,
        4,
        "TCP_KEEPIDLE",
        Number(
            1,
            32_767,
            |to, seconds| to.keep_idle_s = seconds as u16,
            |view| or(view.values.keep_idle_s.into(), view.host.tcp_keepalive_time),
        ),
    ),
    row(
        IPPROTO_TCP,
        5,
        "TCP_KEEPINTVL",
        Number(
            1,
            32_767,
            |to, seconds| to.keep_interval_s = seconds as u16,
            |view| or(view.values.keep_interval_s.into(), view.host.tcp_keepalive_intvl),
        ),
    ),
    row(
        IPPROTO_TCP,
        6,
        "TCP_KEEPCNT",
        Number(
            1,
            127,
            |to, count| to.keep_count = count as u8,
            |view| or(view.values.keep_count.into(), view.host.tcp_keepalive_probes),
        ),
    ),
    row(
        IPPROTO_TCP,
        7,
        "TCP_SYNCNT",
        Number(
            1,
            127,
            |to, count| to.syn_count = count as u8,
            |view| or(view.values.syn_count.into(), view.host.tcp_syn_retries),
        ),
    ),
    row(IPPROTO_TCP, 8, "TCP_LINGER2", Kind::Own(Own::Linger2)),
    row(IPPROTO_TCP, 9, "TCP_DEFER_ACCEPT", Kind::Own(Own::DeferAccept)),
    row(IPPROTO_TCP, 10, "TCP_WINDOW_CLAMP", Kind::Own(Own::WindowClamp)),
    row(IPPROTO_TCP, 11, "TCP_INFO", Kind::Own(Own::Info)),
    row(IPPROTO_TCP, 12, "TCP_QUICKACK", Kind::Own(Own::QuickAck)),
    row(IPPROTO_TCP, 13, "TCP_CONGESTION", Kind::Own(Own::Congestion)),
    row(
        IPPROTO_TCP,
        18,
        "TCP_USER_TIMEOUT",
        Number(
            0,
            i32::MAX,
            |to, ms| to.user_timeout_ms = ms as u32,
            |view| view.values.user_timeout_ms as i32,
        ),
    ),
    row(IPPROTO_TCP, 23, "TCP_FASTOPEN", Kind::Own(Own::FastOpen)),
    row(IPPROTO_TCP, 24, "TCP_TIMESTAMP", Kind::Own(Own::Clock)),
    row(
        IPPROTO_TCP,
        25,
        "TCP_NOTSENT_LOWAT",
        Number(
            ANY.0,
            ANY.1,
            |to, bytes| to.unsent_low_water = bytes as u32,
            |view| view.values.unsent_low_water as i32,
        ),
    ),
    row(IPPROTO_TCP, 30, "TCP_FASTOPEN_CONNECT", Kind::Own(Own::FastOpenConnect)),
    row(IPPROTO_TCP, 33, "TCP_FASTOPEN_KEY", Kind::Own(Own::FastOpenKey)),
    row(IPPROTO_TCP, 34, "TCP_FASTOPEN_NO_COOKIE", Kind::Own(Own::FastOpenNoCookie)),
    row(IPPROTO_TCP, 36, "TCP_INQ", Kind::Own(Own::QueueTold)),
    row(
        IPPROTO_TCP,
        44,
        "TCP_RTO_MAX_MS",
        Number(
            1000,
            120_000,
            |to, ms| to.rto_max_ms = ms as u32,
            |view| or(view.values.rto_max_ms, view.host.tcp_rto_max_ms),
        ),
    ),
    row(
        IPPROTO_TCP,
        45,
        "TCP_RTO_MIN_US",
        Number(
            1000,
            200_000,
            |to, us| to.rto_min_ms = (us as u32).div_ceil(1000) as u16,
            |view| match view.values.rto_min_ms {
                0 => view.host.tcp_rto_min_us as i32,
                ms => i32::from(ms) * 1000,
            },
        ),
    ),
    row(IPPROTO_IP, 1, "IP_TOS", Kind::Own(Own::Tos)),
    row(IPPROTO_IP, 2, "IP_TTL", Kind::Own(Own::Ttl)),
    row(IPPROTO_IP, 8, "IP_PKTINFO", Bit(Switch::PACKET_INFO)),
    row(
        IPPROTO_IP,
        10,
        "IP_MTU_DISCOVER",
        Number(
            0,
            5,
            |to, how| to.mtu_discover = how as u8 + 1,
            |view| or(view.values.mtu_discover.into(), 2) - 1,
        ),
    ),
    row(IPPROTO_IP, 11, "IP_RECVERR", Bit(Switch::ERRORS)),
    row(IPPROTO_IP, 12, "IP_RECVTTL", Bit(Switch::TTL_TOLD)),
    row(IPPROTO_IP, 13, "IP_RECVTOS", Bit(Switch::TOS_TOLD)),
    row(IPPROTO_IP, 14, "IP_MTU", Told(path_mtu)),
    row(IPPROTO_IP, 15, "IP_FREEBIND", Kind::Own(Own::FreeBind)),
    row(IPPROTO_IP, 24, "IP_BIND_ADDRESS_NO_PORT", Bit(Switch::NO_PORT)),
    row(
        IPPROTO_IPV6,
        16,
        "IPV6_UNICAST_HOPS",
        Number(-1, 255, |to, hops| to.set_hop_limit(hops), |view| view.values.hop_limit().into()),
    ),
    row(
        IPPROTO_IPV6,
        23,
        "IPV6_MTU_DISCOVER",
        Number(
            0,
            5,
            |to, how| to.mtu_discover_v6 = how as u8 + 1,
            |view| or(view.values.mtu_discover_v6.into(), 2) - 1,
        ),
    ),
    row(IPPROTO_IPV6, 24, "IPV6_MTU", Told(path_mtu)),
    row(IPPROTO_IPV6, 25, "IPV6_RECVERR", Bit(Switch::ERRORS_V6)),
    row(IPPROTO_IPV6, 26, "IPV6_V6ONLY", Kind::Own(Own::V6Only)),
    row(IPPROTO_IPV6, 49, "IPV6_RECVPKTINFO", Bit(Switch::PACKET_INFO_V6)),
    row(
        IPPROTO_IPV6,
        67,
        "IPV6_TCLASS",
        Number(
            -1,
            255,
            |to, class| to.traffic_class = class.max(0) as u8 & !3 | to.traffic_class & 3,
            |view| view.values.traffic_class.into(),
        ),
    ),
];

fn path_mtu(view: &View<'_>) -> Result<i32, Error> {
    if view.tcb.has_peer() { Ok(view.tcb.path_mtu.into()) } else { Err(Error::NotConnected) }
}
