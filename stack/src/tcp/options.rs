//! Options of a socket of TCP, as getsockopt(2) and setsockopt(2) have them: numbers, bytes, bounds, errors and what is
//! read back are Linux's (net/core/sock.c, net/ipv4/tcp.c, net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c).
//!
//! [`ROWS`] has one row for each option. What most of them set is kept in [`Values`], which sockets share ([`crate::settings`]);
//! what a change does to a connection that is there is in [`apply`]. An option without a row is [`Error::NoSuchOption`]: whoever
//! asked may leave the socket to the kernel. What needs a right (SO_MARK, SO_SNDBUFFORCE) is the caller's to allow.

use super::congestion::Algorithm;
use super::connection::{Connection, frame_share, send_buffer};
use super::fast_open;
use super::info;
use super::state::State;
use super::tcb::{Flags, Mark, Tcb};
use crate::device::Device;
use crate::error::Error;
use crate::host::Host;
use crate::region::slab::Handle;
use crate::settings::{Switch, Values};
use crate::stack::Stack;

mod apply;
mod rows;

use rows::{Kind, Own};
pub use rows::{ROWS, Row};

/// Levels.
pub const SOL_SOCKET: i32 = 1;
/// Options of IPv4.
pub const IPPROTO_IP: i32 = 0;
/// Options of TCP.
pub const IPPROTO_TCP: i32 = 6;
/// Options of IPv6.
pub const IPPROTO_IPV6: i32 = 41;

/// TCP_NODELAY.
pub const TCP_NODELAY: i32 = 1;
/// TCP_CORK.
pub const TCP_CORK: i32 = 3;

/// Bytes of the smallest buffers, as they are read back (SOCK_MIN_SNDBUF, SOCK_MIN_RCVBUF).
pub(crate) const SEND_BUFFER_MIN: u32 = 4608;
pub(crate) const RECEIVE_BUFFER_MIN: u32 = 2304;
/// TCP_LINGER2's largest value, in seconds (TCP_FIN_TIMEOUT_MAX).
const LINGER2_MAX_S: i32 = 120;
/// Timeouts beyond this many seconds are none (MAX_SCHEDULE_TIMEOUT at a thousand ticks a second).
const TIMEOUT_MAX_S: i64 = i64::MAX / 1000 - 1;
/// Longest wait for a SYN-ACK's acknowledgment, in seconds (TCP_RTO_MAX).
const RTO_MAX_S: u32 = 120;
/// Bytes of a name of a congestion control (TCP_CA_NAME_MAX).
const NAME_MAX: usize = 16;

/// What an option's value is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'v> {
    pub(crate) tcb: &'v Tcb,
    pub(crate) values: &'v Values,
    pub(crate) host: &'v Host,
    /// Bytes that a frame counts for in a receive buffer.
    pub(crate) share: u32,
}

/// The row of an option, for a socket of this version.
fn row(level: i32, number: i32, is_v6: bool) -> Result<&'static Row, Error> {
    let found = ROWS.iter().find(|row| row.level == level && row.number == number);
    found.filter(|row| is_v6 || row.level != IPPROTO_IPV6).ok_or(Error::NoSuchOption)
}

/// A number from a caller's bytes: of IPv4's options one byte is enough.
pub(crate) fn number(level: i32, bytes: &[u8]) -> Result<i32, Error> {
    match (bytes.first_chunk(), level) {
        (Some(number), _) => Ok(i32::from_ne_bytes(*number)),
        (None, IPPROTO_IP) => Ok(bytes.first().map_or(0, |byte| i32::from(*byte))),
        (None, _) => Err(Error::Invalid),
    }
}

/// Copies as much as the caller has room for.
pub(crate) fn put(bytes: &[u8], to: &mut [u8]) -> usize {
    let len = bytes.len().min(to.len());
    to[..len].copy_from_slice(&bytes[..len]);
    len
}

/// A number to a caller's bytes.
pub(crate) fn put_number(level: i32, number: i32, to: &mut [u8]) -> usize {
    match u8::try_from(number) {
        Ok(byte) if level == IPPROTO_IP && to.len() < 4 => put(&[byte], to),
        _ => put(&number.to_ne_bytes(), to),
    }
}

/// TCP_DEFER_ACCEPT's seconds as retransmissions (secs_to_retrans).
fn retransmissions_in(seconds: i32) -> u8 {
    let (mut count, mut timeout, mut period) = (u8::from(seconds > 0), 1, 1);
    while u32::try_from(seconds).is_ok_and(|seconds| seconds > period) && count < u8::MAX {
        timeout = (2 * timeout).min(RTO_MAX_S);
        (count, period) = (count + 1, period + timeout);
    }
    count
}

/// The other way round (retrans_to_secs).
fn seconds_of(retransmissions: u8) -> i32 {
    let timeouts = (0..u32::from(retransmissions)).map(|doublings| RTO_MAX_S.min(1 << doublings.min(7)));
    timeouts.sum::<u32>() as i32
}

/// A `struct timeval` as microseconds; 0 is without limit.
pub(crate) fn microseconds(bytes: &[u8]) -> Result<u64, Error> {
    let (Some(seconds), Some(micros)) =
        (bytes.first_chunk(), bytes.get(8..).and_then(|rest| rest.first_chunk()))
    else {
        return Err(Error::Invalid);
    };
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    if !(0..1_000_000).contains(&micros) {
        return Err(Error::OutOfDomain);
    }
    // What is over already is the shortest that there is.
    Ok(match seconds {
        ..0 => 1,
        TIMEOUT_MAX_S.. => 0,
        _ => (seconds as u64).saturating_mul(1_000_000).saturating_add(micros as u64),
    })
}

pub(crate) fn timeval(micros: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(micros / 1_000_000).to_ne_bytes());
    bytes[8..].copy_from_slice(&(micros % 1_000_000).to_ne_bytes());
    bytes
}

pub(crate) fn switched(values: &mut Values, bit: u32, on: bool) {
    values.options = if on { values.options | bit } else { values.options & !bit };
}

impl<D: Device> Stack<'_, '_, D> {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `NoSuchOption`; `Invalid` for too few bytes or a number out of its bounds, and what else Linux says of some; `NoBuffers`
    /// when too many sockets have set different options.
    pub fn set_option(&mut self, socket: Handle, level: i32, name: i32, value: &[u8]) -> Result<(), Error> {
        let mut tcb = *self.parts.tcb(socket)?;
        let row = row(level, name, tcb.is(Mark::V6))?;
        let before = self.parts.tcp_options(socket)?;
        let mut values = before;
        match row.kind {
            Kind::Told(_) => {
                number(level, value)?;
                return Err(Error::NoSuchOption);
            }
            Kind::Switch(bit) => switched(&mut values, bit, number(level, value)? != 0),
            Kind::Number(least, most, set, _) => {
                let number = number(level, value)?;
                if !(least..=most).contains(&number) {
                    return Err(Error::Invalid);
                }
                set(&mut values, number);
            }
            Kind::Own(own) => own.set(&mut tcb, &mut values, self.parts.host, level, value)?,
        }
        let changed = self.parts.tcb(socket)?;
        (changed.flags, changed.delayed_ack) = (tcb.flags, tcb.delayed_ack);
        changed.peek_from = tcb.peek_from;
        if values != before {
            self.parts.set_tcp_options(socket, &values)?;
        }
        if tcb.has_peer() {
            let what = (level, name);
            self.work(socket, None, |connection| connection.apply(what, value))?;
        }
        Ok(())
    }

    /// getsockopt(2): how many bytes were written.
    ///
    /// # Errors
    /// `NoSuchOption`; `NotConnected` for what only a connection has.
    pub fn option(&mut self, socket: Handle, level: i32, name: i32, to: &mut [u8]) -> Result<usize, Error> {
        let tcb = *self.parts.tcb(socket)?;
        let is_level = match level {
            SOL_SOCKET | IPPROTO_TCP | IPPROTO_IP => true,
            _ => level == IPPROTO_IPV6 && tcb.is(Mark::V6),
        };
        if !is_level {
            // So Linux says of a level when it is asked, and otherwise when it is told.
            return Err(Error::NotSupported);
        }
        let row = row(level, name, tcb.is(Mark::V6))?;
        let values = self.parts.tcp_options(socket)?;
        if let Kind::Own(own) = row.kind {
            match own {
                Own::Error => {
                    let number = self.take_error(socket)?.map_or(0, Error::number);
                    return Ok(put_number(level, number, to));
                }
                Own::Info => return Ok(put(&info::bytes(&self.status(socket)?), to)),
                Own::Clock => {
                    let clock = super::timestamps::clock(self.now, tcb.ts_offset);
                    return Ok(put_number(level, clock as i32, to));
                }
                Own::FastOpenKey => {
                    // The one that follows from the secret is shown to nobody.
                    if values.options & Switch::FAST_OPEN_KEY == 0 && self.parts.fast_open.keys_len == 0 {
                        return Ok(0);
                    }
                    let keys = self.parts.fast_open_keys(&values);
                    let bytes = keys.as_slice().iter().map(fast_open::key_bytes);
                    let places = to.chunks_mut(fast_open::KEY_LEN);
                    return Ok(bytes.zip(places).map(|(key, place)| put(&key, place)).sum());
                }
                _ => {}
            }
        }
        let share = frame_share(&self.device.capabilities());
        let view = View { tcb: &tcb, values: &values, host: self.parts.host, share };
        match row.kind {
            Kind::Told(tell) => Ok(put_number(level, tell(&view)?, to)),
            Kind::Switch(bit) => Ok(put_number(level, (values.options & bit != 0).into(), to)),
            Kind::Number(_, _, _, get) => Ok(put_number(level, get(&view), to)),
            Kind::Own(own) => own.get(&view, level, to),
        }
    }
}

impl Own {
    /// Sets what has rules of its own.
    fn set(
        self,
        tcb: &mut Tcb,
        values: &mut Values,
        host: &Host,
        level: i32,
        bytes: &[u8],
    ) -> Result<(), Error> {
        match self {
            Self::Linger => {
                let (on, rest) = bytes.split_first_chunk().ok_or(Error::Invalid)?;
                let seconds = rest.first_chunk().ok_or(Error::Invalid)?;
                let on = i32::from_ne_bytes(*on) != 0;
                switched(values, Switch::LINGER, on);
                if on {
                    values.linger_s = u32::from_ne_bytes(*seconds);
                }
                return Ok(());
            }
            Self::ReceiveTimeout => {
                values.receive_timeout_us = microseconds(bytes)?;
                return Ok(());
            }
            Self::SendTimeout => {
                values.send_timeout_us = microseconds(bytes)?;
                return Ok(());
            }
            Self::Congestion => {
                let name = bytes.get(..bytes.len().min(NAME_MAX - 1)).unwrap_or_default();
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if bytes.is_empty() {
                    return Err(Error::Invalid);
                }
                values.congestion = Algorithm::named(name).ok_or(Error::NotFound)? as u8;
                return Ok(());
            }
            Self::FastOpenKey => {
                let (keys, rest) = bytes.as_chunks();
                let [first, second] = match keys {
                    [one] => [fast_open::key(one), [0; 2]],
                    [one, two] => [fast_open::key(one), fast_open::key(two)],
                    _ => return Err(Error::Invalid),
                };
                if !rest.is_empty() {
                    return Err(Error::Invalid);
                }
                values.fast_open_keys = [first[0], first[1], second[0], second[1]];
                switched(values, Switch::FAST_OPEN_KEY, true);
                switched(values, Switch::FAST_OPEN_BACKUP, keys.len() == 2);
                return Ok(());
            }
            _ => {}
        }
        let value = number(level, bytes)?;
        let is_idle = matches!(tcb.state(), State::Closed | State::Listen);
        match self {
            Self::SendBuffer => {
                values.send_buffer = (value as u32).min(host.wmem_max).max(SEND_BUFFER_MIN / 2);
                values.options |= Switch::SEND_BUFFER_LOCKED;
            }
            Self::SendBufferForced => {
                values.send_buffer = value.max(0).unsigned_abs().clamp(SEND_BUFFER_MIN / 2, 1 << 30);
                values.options |= Switch::SEND_BUFFER_LOCKED;
            }
            Self::ReceiveBuffer => {
                values.receive_buffer = (value as u32).min(host.rmem_max).max(RECEIVE_BUFFER_MIN / 2);
                values.options |= Switch::RECEIVE_BUFFER_LOCKED;
            }
            Self::ReceiveBufferForced => {
                values.receive_buffer = value.max(0).unsigned_abs().clamp(RECEIVE_BUFFER_MIN / 2, 1 << 30);
                values.options |= Switch::RECEIVE_BUFFER_LOCKED;
            }
            Self::Priority if (0..=6).contains(&value) => values.priority = value.unsigned_abs(),
            Self::Priority | Self::Clock => return Err(Error::NotPermitted),
            Self::ReceiveLowWater => {
                let is_locked = values.options & Switch::RECEIVE_BUFFER_LOCKED != 0;
                let most = if is_locked { values.receive_buffer } else { host.tcp_rmem_max / 2 };
                let value = u32::try_from(value).unwrap_or(i32::MAX as u32);
                values.receive_low_water = value.min(most);
            }
            Self::Timestamp | Self::TimestampNs => {
                switched(values, Switch::TIMESTAMP | Switch::TIMESTAMP_NS, false);
                let bit = if self == Self::Timestamp { Switch::TIMESTAMP } else { Switch::TIMESTAMP_NS };
                switched(values, bit, value != 0);
            }
            Self::MaxPacingRate => {
                values.max_pacing_rate = match bytes.first_chunk() {
                    Some(rate) => u64::from_ne_bytes(*rate),
                    None => u64::from(value as u32),
                };
                let is_none = values.max_pacing_rate == u64::MAX || bytes.len() < 8 && value == -1;
                values.max_pacing_rate = if is_none { 0 } else { values.max_pacing_rate };
            }
            Self::NoDelay | Self::Cork => {
                let flag = if self == Self::NoDelay { Flags::NO_DELAY } else { Flags::CORK };
                tcb.flags = tcb.flags.without(flag);
                if value != 0 {
                    tcb.flags |= flag;
                }
            }
            Self::MaxSegment if value == 0 || (88..=32_767).contains(&value) => values.mss = value as u16,
            Self::MaxSegment => return Err(Error::Invalid),
            Self::Linger2 => values.linger2_s = if value < 0 { -1 } else { value.min(LINGER2_MAX_S) },
            Self::DeferAccept => values.defer_accept = retransmissions_in(value),
            Self::WindowClamp if value == 0 && tcb.state() != State::Closed => return Err(Error::Invalid),
            Self::WindowClamp if value == 0 => values.window_clamp = 0,
            Self::WindowClamp => {
                values.window_clamp = value.max(RECEIVE_BUFFER_MIN as i32 / 2).unsigned_abs();
            }
            Self::FastOpen if value >= 0 && is_idle => {
                values.fast_open_queue = value.unsigned_abs().min(host.somaxconn);
            }
            Self::FastOpen => return Err(Error::Invalid),
            Self::FastOpenConnect => {
                if !(0..=1).contains(&value) {
                    return Err(Error::Invalid);
                }
                if host.tcp_fastopen & 1 == 0 {
                    return Err(Error::NotSupported);
                }
                if tcb.state() != State::Closed {
                    return Err(Error::Invalid);
                }
                switched(values, Switch::FAST_OPEN_CONNECT, value != 0);
            }
            Self::FastOpenNoCookie => {
                if !(0..=1).contains(&value) || !is_idle {
                    return Err(Error::Invalid);
                }
                switched(values, Switch::FAST_OPEN_NO_COOKIE, value != 0);
            }
            Self::Tos => {
                // ECN's bits are TCP's own; the priority follows (rt_tos2priority).
                values.tos = value as u8 & !3 | values.tos & 3;
                values.priority = [0, 2, 6, 4][usize::from(values.tos & 0x1e) >> 3];
            }
            Self::V6Only if tcb.local_port != 0 => return Err(Error::Invalid),
            Self::V6Only => switched(values, Switch::V6_ONLY, value != 0),
            Self::PeekOffset => tcb.peek_from = u32::try_from(value).map_or(0, |from| from.saturating_add(1)),
            Self::QueueTold if !(0..=1).contains(&value) => return Err(Error::Invalid),
            Self::QueueTold => switched(values, Switch::QUEUE_TOLD, value != 0),
            // What else it does to a connection is [`apply`]'s.
            Self::QuickAck if value == 0 => tcb.delayed_ack.be_interactive(),
            Self::QuickAck => tcb.delayed_ack.end_interactive(),
            Self::Ttl if bytes.is_empty() || value == 0 || !(-1..=255).contains(&value) => {
                return Err(Error::Invalid);
            }
            Self::Ttl => values.ttl = value.max(0) as u8,
            Self::FreeBind if bytes.is_empty() => return Err(Error::Invalid),
            Self::FreeBind => switched(values, Switch::FREE_BIND, value != 0),
            _ => return Err(Error::NoSuchOption),
        }
        Ok(())
    }

    /// Reads what has rules of its own.
    fn get(self, view: &View<'_>, level: i32, to: &mut [u8]) -> Result<usize, Error> {
        let View { tcb, values, host, share } = *view;
        let has = |bit: u32| i32::from(values.options & bit != 0);
        let number = match self {
            Self::Linger => {
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&has(Switch::LINGER).to_ne_bytes());
                bytes[4..].copy_from_slice(&values.linger_s.to_ne_bytes());
                return Ok(put(&bytes, to));
            }
            Self::ReceiveTimeout => return Ok(put(&timeval(values.receive_timeout_us), to)),
            Self::SendTimeout => return Ok(put(&timeval(values.send_timeout_us), to)),
            Self::Congestion => {
                let mut name = [0; NAME_MAX];
                put(Algorithm::from_byte(values.congestion).name().as_bytes(), &mut name);
                return Ok(put(&name, to));
            }
            Self::MaxPacingRate => {
                let rate = values.max_pacing_rate.wrapping_sub(1).saturating_add(1);
                let rate = if values.max_pacing_rate == 0 { u64::MAX } else { rate };
                if to.len() >= 8 {
                    return Ok(put(&rate.to_ne_bytes(), to));
                }
                u32::try_from(rate).unwrap_or(u32::MAX) as i32
            }
            Self::SendBuffer | Self::SendBufferForced => match values.send_buffer {
                0 if !tcb.has_peer() => host.tcp_wmem_default as i32,
                _ => send_buffer(tcb, values).saturating_mul(2) as i32,
            },
            Self::ReceiveBuffer | Self::ReceiveBufferForced => match values.receive_buffer {
                0 if !tcb.has_peer() => host.tcp_rmem_default as i32,
                0 => tcb.receive_charge.limit.saturating_mul(share).saturating_mul(2) as i32,
                bytes => bytes.saturating_mul(2) as i32,
            },
            Self::Priority => values.priority as i32,
            Self::ReceiveLowWater => values.receive_low_water.max(1) as i32,
            Self::Timestamp => has(Switch::TIMESTAMP),
            Self::TimestampNs => has(Switch::TIMESTAMP_NS),
            Self::NoDelay => tcb.flags.has(Flags::NO_DELAY).into(),
            Self::Cork => tcb.flags.has(Flags::CORK).into(),
            Self::MaxSegment => match tcb.state() {
                State::Closed | State::Listen if values.mss != 0 => values.mss.into(),
                _ if tcb.mss == 0 => 536,
                _ => tcb.mss.into(),
            },
            Self::Linger2 if values.linger2_s == 0 => host.tcp_fin_timeout as i32,
            Self::Linger2 => values.linger2_s,
            Self::DeferAccept => seconds_of(values.defer_accept),
            Self::WindowClamp => values.window_clamp as i32,
            Self::FastOpen => values.fast_open_queue as i32,
            Self::FastOpenConnect => has(Switch::FAST_OPEN_CONNECT),
            Self::FastOpenNoCookie => has(Switch::FAST_OPEN_NO_COOKIE),
            Self::Tos => values.tos.into(),
            Self::Ttl if values.ttl == 0 => 64,
            Self::Ttl => values.ttl.into(),
            Self::FreeBind => has(Switch::FREE_BIND),
            Self::V6Only => has(Switch::V6_ONLY),
            Self::PeekOffset => tcb.peek_from.wrapping_sub(1) as i32,
            Self::QueueTold => has(Switch::QUEUE_TOLD),
            Self::QuickAck => (!tcb.delayed_ack.is_interactive()).into(),
            Self::Error | Self::Info | Self::Clock | Self::FastOpenKey => return Err(Error::NoSuchOption),
        };
        Ok(put_number(level, number, to))
    }
}
