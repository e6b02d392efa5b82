//! The options that the sockets of TCP and UDP have in common.

use super::bytes::{put, put_number, switched};
use super::{Facts, IPPROTO_IP, IPPROTO_IPV6, Kind, Row, SOCK_STREAM, SOL_SOCKET, View, row};
use crate::error::Error;
use crate::host::Host;
use crate::settings::{Switch, Timestamping, Values};

/// Bytes of the smallest buffers, as they are read back (SOCK_MIN_SNDBUF, SOCK_MIN_RCVBUF).
pub(crate) const SEND_BUFFER_MIN: u32 = 4608;
pub(crate) const RECEIVE_BUFFER_MIN: u32 = 2304;
/// What SO_SNDBUFFORCE and SO_RCVBUFFORCE can set at most, in bytes: it is read back doubled.
const BUFFER_MAX: u32 = 1 << 30;
/// What SO_PRIORITY may be without CAP_NET_ADMIN.
const PRIORITY_MAX: i32 = 6;
/// IP_PMTUDISC_WANT, which a new socket has (net.ipv4.ip_no_pmtu_disc).
const WANT: u8 = 1;

/// Common options with rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Common {
    SendBuffer,
    SendBufferForced,
    ReceiveBuffer,
    ReceiveBufferForced,
    Priority,
    Linger,
    ReceiveLowWater,
    Timestamp,
    TimestampNs,
    Timestamping,
    Tos,
    Ttl,
    FreeBind,
    TrafficClass,
    V6Only,
}

use Kind::{Common as Special, Number, Switch as Switched, Time, Told};

/// IP_MTU_DISCOVER's or IPV6_MTU_DISCOVER's value, which is kept plus one.
const fn discovery(kept: u8) -> i32 {
    (if kept == 0 { WANT } else { kept - 1 }) as i32
}

/// Every one of them.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row<Kind>] = &[
    row(SOL_SOCKET, 2, "SO_REUSEADDR", Switched(Switch::REUSE_ADDRESS)),
    row(SOL_SOCKET, 3, "SO_TYPE", Told(|view| view.socket.kind)),
    row(SOL_SOCKET, 5, "SO_DONTROUTE", Switched(Switch::DONT_ROUTE)),
    row(SOL_SOCKET, 6, "SO_BROADCAST", Switched(Switch::BROADCAST)),
    row(SOL_SOCKET, 7, "SO_SNDBUF", Special(Common::SendBuffer)),
    row(SOL_SOCKET, 8, "SO_RCVBUF", Special(Common::ReceiveBuffer)),
    row(SOL_SOCKET, 9, "SO_KEEPALIVE", Switched(Switch::KEEP_ALIVE)),
    row(SOL_SOCKET, 10, "SO_OOBINLINE", Switched(Switch::OOB_INLINE)),
    row(SOL_SOCKET, 11, "SO_NO_CHECK", Switched(Switch::NO_CHECKSUM)),
    row(SOL_SOCKET, 12, "SO_PRIORITY", Special(Common::Priority)),
    row(SOL_SOCKET, 13, "SO_LINGER", Special(Common::Linger)),
    row(SOL_SOCKET, 15, "SO_REUSEPORT", Switched(Switch::REUSE_PORT)),
    row(SOL_SOCKET, 18, "SO_RCVLOWAT", Special(Common::ReceiveLowWater)),
    row(SOL_SOCKET, 19, "SO_SNDLOWAT", Told(|_| 1)),
    row(SOL_SOCKET, 20, "SO_RCVTIMEO", Time(|values| &mut values.receive_timeout_us)),
    row(SOL_SOCKET, 21, "SO_SNDTIMEO", Time(|values| &mut values.send_timeout_us)),
    row(SOL_SOCKET, 29, "SO_TIMESTAMP", Special(Common::Timestamp)),
    row(SOL_SOCKET, 30, "SO_ACCEPTCONN", Told(|view| view.socket.listens.into())),
    row(SOL_SOCKET, 32, "SO_SNDBUFFORCE", Special(Common::SendBufferForced)),
    row(SOL_SOCKET, 33, "SO_RCVBUFFORCE", Special(Common::ReceiveBufferForced)),
    row(SOL_SOCKET, 35, "SO_TIMESTAMPNS", Special(Common::TimestampNs)),
    row(SOL_SOCKET, 36, "SO_MARK", Number(i32::MIN, i32::MAX, |to, mark| to.mark = mark as u32, |view| view.values.mark as i32)),
    row(SOL_SOCKET, 37, "SO_TIMESTAMPING", Special(Common::Timestamping)),
    row(SOL_SOCKET, 38, "SO_PROTOCOL", Told(|view| view.socket.protocol)),
    row(SOL_SOCKET, 39, "SO_DOMAIN", Told(|view| if view.socket.is_v6 { 10 } else { 2 })),
    row(SOL_SOCKET, 40, "SO_RXQ_OVFL", Switched(Switch::DROPS_TOLD)),
    // The same again where a long has 64 bits.
    row(SOL_SOCKET, 66, "SO_RCVTIMEO_NEW", Time(|values| &mut values.receive_timeout_us)),
    row(SOL_SOCKET, 67, "SO_SNDTIMEO_NEW", Time(|values| &mut values.send_timeout_us)),
    row(IPPROTO_IP, 1, "IP_TOS", Special(Common::Tos)),
    row(IPPROTO_IP, 2, "IP_TTL", Special(Common::Ttl)),
    row(IPPROTO_IP, 8, "IP_PKTINFO", Switched(Switch::PACKET_INFO)),
    row(IPPROTO_IP, 10, "IP_MTU_DISCOVER", Number(0, 5, |to, how| to.mtu_discover = how as u8 + 1, |view| discovery(view.values.mtu_discover))),
    row(IPPROTO_IP, 11, "IP_RECVERR", Switched(Switch::ERRORS)),
    row(IPPROTO_IP, 12, "IP_RECVTTL", Switched(Switch::TTL_TOLD)),
    row(IPPROTO_IP, 13, "IP_RECVTOS", Switched(Switch::TOS_TOLD)),
    row(IPPROTO_IP, 15, "IP_FREEBIND", Special(Common::FreeBind)),
    row(IPPROTO_IPV6, 16, "IPV6_UNICAST_HOPS", Number(-1, 255, |to, hops| to.set_hop_limit(hops), |view| view.values.hop_limit().into())),
    row(IPPROTO_IPV6, 23, "IPV6_MTU_DISCOVER", Number(0, 5, |to, how| to.mtu_discover_v6 = how as u8 + 1, |view| discovery(view.values.mtu_discover_v6))),
    row(IPPROTO_IPV6, 25, "IPV6_RECVERR", Switched(Switch::ERRORS_V6)),
    row(IPPROTO_IPV6, 26, "IPV6_V6ONLY", Special(Common::V6Only)),
    row(IPPROTO_IPV6, 49, "IPV6_RECVPKTINFO", Switched(Switch::PACKET_INFO_V6)),
    row(IPPROTO_IPV6, 67, "IPV6_TCLASS", Special(Common::TrafficClass)),
    // The same bit as IPv4's.
    row(IPPROTO_IPV6, 78, "IPV6_FREEBIND", Switched(Switch::FREE_BIND)),
];

/// A class of service: of a stream's, ECN's bits are TCP's own (__ip_sock_set_tos).
fn class(before: u8, class: u8, socket: &Facts) -> u8 {
    if socket.kind == SOCK_STREAM { class & !3 | before & 3 } else { class }
}

impl Common {
    pub(super) fn set(
        self,
        values: &mut Values,
        (socket, host): (&Facts, &Host),
        value: i32,
        bytes: &[u8],
    ) -> Result<(), Error> {
        match self {
            Self::SendBuffer | Self::SendBufferForced => {
                let wanted =
                    if self == Self::SendBuffer { (value as u32).min(host.wmem_max) } else { forced(value) };
                values.send_buffer = wanted.max(SEND_BUFFER_MIN / 2);
                values.options |= Switch::SEND_BUFFER_LOCKED;
            }
            Self::ReceiveBuffer | Self::ReceiveBufferForced => {
                let wanted = if self == Self::ReceiveBuffer {
                    (value as u32).min(host.rmem_max)
                } else {
                    forced(value)
                };
                values.receive_buffer = wanted.max(RECEIVE_BUFFER_MIN / 2);
                values.options |= Switch::RECEIVE_BUFFER_LOCKED;
            }
            Self::Priority if (0..=PRIORITY_MAX).contains(&value) => values.priority = value.unsigned_abs(),
            Self::Priority => return Err(Error::NotPermitted),
            Self::ReceiveLowWater => {
                let value = u32::try_from(value).unwrap_or(i32::MAX as u32);
                values.receive_low_water = value.min(socket.low_water_max);
            }
            Self::Timestamp | Self::TimestampNs => {
                switched(values, Switch::TIMESTAMP | Switch::TIMESTAMP_NS, false);
                let bit = if self == Self::Timestamp { Switch::TIMESTAMP } else { Switch::TIMESTAMP_NS };
                switched(values, bit, value != 0);
            }
            Self::Timestamping => values.timestamping = timestamping(value as u32, socket)?,
            Self::Tos => {
                // The priority follows (rt_tos2priority).
                values.tos = class(values.tos, value as u8, socket);
                values.priority = [0, 2, 6, 4][usize::from(values.tos & 0x1e) >> 3];
            }
            Self::TrafficClass if (-1..=255).contains(&value) => {
                values.traffic_class = class(values.traffic_class, value.max(0) as u8, socket);
            }
            Self::TrafficClass => return Err(Error::Invalid),
            Self::Ttl if bytes.is_empty() || value == 0 || !(-1..=255).contains(&value) => {
                return Err(Error::Invalid);
            }
            Self::Ttl => values.ttl = value.max(0) as u8,
            Self::FreeBind if bytes.is_empty() => return Err(Error::Invalid),
            Self::FreeBind => switched(values, Switch::FREE_BIND, value != 0),
            Self::V6Only if socket.has_port => return Err(Error::Invalid),
            Self::V6Only => switched(values, Switch::V6_ONLY, value != 0),
            Self::Linger => return set_linger(values, bytes),
        }
        Ok(())
    }

    pub(super) fn get(self, view: &View<'_>, level: i32, to: &mut [u8]) -> usize {
        let View { socket, values, .. } = view;
        let has = |bit: u32| i32::from(values.options & bit != 0);
        let number = match self {
            Self::Linger => {
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&has(Switch::LINGER).to_ne_bytes());
                bytes[4..].copy_from_slice(&values.linger_s.to_ne_bytes());
                return put(&bytes, to);
            }
            Self::SendBuffer | Self::SendBufferForced => socket.send_buffer as i32,
            Self::ReceiveBuffer | Self::ReceiveBufferForced => socket.receive_buffer as i32,
            Self::Priority => values.priority as i32,
            Self::ReceiveLowWater => values.receive_low_water.max(1) as i32,
            Self::Timestamp => has(Switch::TIMESTAMP),
            Self::TimestampNs => has(Switch::TIMESTAMP_NS),
            Self::Timestamping => {
                // A `struct so_timestamping`: it is bound to no device's clock.
                return put([values.timestamping.to_ne_bytes(), [0; 4]].as_flattened(), to);
            }
            Self::Tos => values.tos.into(),
            Self::Ttl if values.ttl == 0 => crate::stack::parcel::TTL.into(),
            Self::Ttl => values.ttl.into(),
            Self::FreeBind => has(Switch::FREE_BIND),
            Self::TrafficClass => values.traffic_class.into(),
            Self::V6Only => has(Switch::V6_ONLY),
        };
        put_number(level, number, to)
    }
}

/// A `struct linger`.
fn set_linger(values: &mut Values, bytes: &[u8]) -> Result<(), Error> {
    let (on, rest) = bytes.split_first_chunk().ok_or(Error::Invalid)?;
    let seconds = rest.first_chunk().ok_or(Error::Invalid)?;
    let on = i32::from_ne_bytes(*on) != 0;
    switched(values, Switch::LINGER, on);
    if on {
        values.linger_s = u32::from_ne_bytes(*seconds);
    }
    Ok(())
}

/// SO_TIMESTAMPING (sock_set_timestamping). Times of arrival are told; those of sending are left to the kernel's sockets.
fn timestamping(flags: u32, socket: &Facts) -> Result<u32, Error> {
    let has = |bit: u32| flags & bit != 0;
    let numbers_nothing = has(Timestamping::ID) && socket.is_closed;
    if has(!Timestamping::ALL)
        || has(Timestamping::ID_TCP) && !has(Timestamping::ID)
        || numbers_nothing
        || has(Timestamping::STATS) && !has(Timestamping::TIME_ONLY)
    {
        return Err(Error::Invalid);
    }
    if has(Timestamping::BIND_CLOCK) {
        // The socket is bound to no device.
        return Err(Error::NotSupported);
    }
    if has(Timestamping::SENT) { Err(Error::NoSuchOption) } else { Ok(flags) }
}

/// What SO_SNDBUFFORCE and SO_RCVBUFFORCE set.
fn forced(value: i32) -> u32 {
    value.max(0).unsigned_abs().min(BUFFER_MAX)
}
