//! The table: level, number, name and kind of each option.

use super::{TCP_CORK, TCP_NODELAY};
use crate::options::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, Kind, Row, Rule, SOL_SOCKET, View, row};
use crate::settings::Switch;

/// Options with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Error,
    PathMtu,
    PathMtuInfo,
    SavedSyn,
    MaxPacingRate,
    NoDelay,
    Cork,
    QuickAck,
    PeekOffset,
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
}

/// What the user has set, or the default for 0.
fn or(value: impl Into<u32>, default: u32) -> i32 {
    match value.into() {
        0 => default as i32,
        value => value as i32,
    }
}

use Kind::{Number, Strict, Switch as Switched};
use Rule::{Is, Own as Special};

/// MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL, in seconds.
const KEEP_MAX_S: i32 = 32_767;
/// MAX_TCP_KEEPCNT and MAX_TCP_SYNCNT.
const COUNT_MAX: i32 = 127;

/// The options that only a socket of TCP has, and those for which it has rules of its own.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row<Rule<Own>>] = &[
    row(SOL_SOCKET, 4, "SO_ERROR", Special(Own::Error)),
    row(SOL_SOCKET, 42, "SO_PEEK_OFF", Special(Own::PeekOffset)),
    row(SOL_SOCKET, 47, "SO_MAX_PACING_RATE", Special(Own::MaxPacingRate)),
    row(IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY", Special(Own::NoDelay)),
    row(IPPROTO_TCP, 2, "TCP_MAXSEG", Special(Own::MaxSegment)),
    row(IPPROTO_TCP, TCP_CORK, "TCP_CORK", Special(Own::Cork)),
    row(IPPROTO_TCP, 4, "TCP_KEEPIDLE", Is(Number(1, KEEP_MAX_S, |to, seconds| to.keep_idle_s = seconds as u16, |view| or(view.values.keep_idle_s, view.host.tcp_keepalive_time)))),
    row(IPPROTO_TCP, 5, "TCP_KEEPINTVL", Is(Number(1, KEEP_MAX_S, |to, seconds| to.keep_interval_s = seconds as u16, |view| or(view.values.keep_interval_s, view.host.tcp_keepalive_intvl)))),
    row(IPPROTO_TCP, 6, "TCP_KEEPCNT", Is(Number(1, COUNT_MAX, |to, count| to.keep_count = count as u8, |view| or(view.values.keep_count, view.host.tcp_keepalive_probes)))),
    row(IPPROTO_TCP, 7, "TCP_SYNCNT", Is(Number(1, COUNT_MAX, |to, count| to.syn_count = count as u8, |view| or(view.values.syn_count, view.host.tcp_syn_retries)))),
    row(IPPROTO_TCP, 8, "TCP_LINGER2", Special(Own::Linger2)),
    row(IPPROTO_TCP, 9, "TCP_DEFER_ACCEPT", Special(Own::DeferAccept)),
    row(IPPROTO_TCP, 10, "TCP_WINDOW_CLAMP", Special(Own::WindowClamp)),
    row(IPPROTO_TCP, 11, "TCP_INFO", Special(Own::Info)),
    row(IPPROTO_TCP, 12, "TCP_QUICKACK", Special(Own::QuickAck)),
    row(IPPROTO_TCP, 13, "TCP_CONGESTION", Special(Own::Congestion)),
    row(IPPROTO_TCP, 18, "TCP_USER_TIMEOUT", Is(Number(0, i32::MAX, |to, ms| to.user_timeout_ms = ms as u32, |view| view.values.user_timeout_ms as i32))),
    row(IPPROTO_TCP, 23, "TCP_FASTOPEN", Special(Own::FastOpen)),
    row(IPPROTO_TCP, 24, "TCP_TIMESTAMP", Special(Own::Clock)),
    row(IPPROTO_TCP, 25, "TCP_NOTSENT_LOWAT", Is(Number(i32::MIN, i32::MAX, |to, bytes| to.unsent_low_water = bytes as u32, |view| view.values.unsent_low_water as i32))),
    row(IPPROTO_TCP, 27, "TCP_SAVE_SYN", Is(Number(0, 2, |to, how| to.save_syn = how as u8, |view| view.values.save_syn.into()))),
    row(IPPROTO_TCP, 28, "TCP_SAVED_SYN", Special(Own::SavedSyn)),
    row(IPPROTO_TCP, 30, "TCP_FASTOPEN_CONNECT", Special(Own::FastOpenConnect)),
    row(IPPROTO_TCP, 33, "TCP_FASTOPEN_KEY", Special(Own::FastOpenKey)),
    row(IPPROTO_TCP, 34, "TCP_FASTOPEN_NO_COOKIE", Special(Own::FastOpenNoCookie)),
    row(IPPROTO_TCP, 36, "TCP_INQ", Is(Strict(Switch::QUEUE_TOLD))),
    row(IPPROTO_TCP, 44, "TCP_RTO_MAX_MS", Is(Number(1000, 120_000, |to, ms| to.rto_max_ms = ms as u32, |view| or(view.values.rto_max_ms, view.host.tcp_rto_max_ms)))),
    row(IPPROTO_TCP, 45, "TCP_RTO_MIN_US", Is(Number(1000, 200_000, |to, us| to.rto_min_ms = (us as u32).div_ceil(1000) as u16, rto_min))),
    row(IPPROTO_IP, 14, "IP_MTU", Special(Own::PathMtu)),
    row(IPPROTO_IP, 24, "IP_BIND_ADDRESS_NO_PORT", Is(Switched(Switch::NO_PORT))),
    row(IPPROTO_IPV6, 24, "IPV6_MTU", Special(Own::PathMtu)),
    row(IPPROTO_IPV6, 61, "IPV6_PATHMTU", Special(Own::PathMtuInfo)),
];

/// TCP_RTO_MIN_US, which is kept in milliseconds.
fn rto_min(view: &View<'_>) -> i32 {
    match view.values.rto_min_ms {
        0 => view.host.tcp_rto_min_us as i32,
        ms => i32::from(ms) * 1000,
    }
}
