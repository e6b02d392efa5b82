//! Options of a socket of TCP (net/ipv4/tcp.c): its own rows, and what it adds to those that every socket has
//! ([`crate::options`]).
//!
//! What most of them set is kept in [`Values`], which sockets share ([`crate::settings`]); what a change does to a connection that
//! is there is in [`apply`].

use super::congestion::Algorithm;
use super::connection::{Connection, frame_share, send_buffer};
use super::fast_open;
use super::info;
use super::saved_syn::Name;
use super::state::State;
use super::tcb::{Flags, Mark, Tcb};
use crate::device::Device;
use crate::error::Error;
use crate::host::Host;
use crate::options::bytes::{mtu_max, number, put, put_mtu_info, put_number, switched};
use crate::options::common::RECEIVE_BUFFER_MIN;
use crate::options::{self, Facts, IPPROTO_IPV6, IPPROTO_TCP, Rule, SOCK_STREAM, SOL_SOCKET, View, What};
use crate::region::slab::Handle;
use crate::settings::{Switch, Values};
use crate::stack::Stack;

mod apply;
mod rows;

use rows::{Own, ROWS};

/// The names of all options of a socket of TCP.
pub fn names() -> impl Iterator<Item = What> {
    options::names(ROWS)
}

/// TCP_NODELAY.
pub const TCP_NODELAY: i32 = 1;
/// TCP_CORK.
pub const TCP_CORK: i32 = 3;

/// TCP_LINGER2's largest value, in seconds (TCP_FIN_TIMEOUT_MAX).
const LINGER2_MAX_S: i32 = 120;
/// Longest wait for a SYN-ACK's acknowledgment, in seconds (TCP_RTO_MAX).
const RTO_MAX_S: u32 = 120;
/// Bytes of a name of a congestion control (TCP_CA_NAME_MAX).
const NAME_MAX: usize = 16;

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

impl<D: Device> Stack<'_, '_, D> {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `NoSuchOption`; `Invalid` for too few bytes or a number out of its bounds, and what else Linux says of some; `NoBuffers`
    /// when too many sockets have set different options.
    pub fn set_option(&mut self, socket: Handle, level: i32, name: i32, value: &[u8]) -> Result<(), Error> {
        let mut tcb = *self.parts.tcb(socket)?;
        let rule = options::rule(ROWS, level, name, tcb.is(Mark::V6))?;
        let before = self.parts.tcp_options(socket)?;
        let mut values = before;
        let facts = self.tcp_facts(&tcb, &before);
        match rule {
            Rule::Is(kind) => kind.set(&mut values, (&facts, self.parts.host), level, value)?,
            Rule::Own(own) => own.set(&mut tcb, &mut values, self.parts.host, level, value)?,
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
        options::is_level(level, IPPROTO_TCP, tcb.is(Mark::V6))?;
        let rule = options::rule(ROWS, level, name, tcb.is(Mark::V6))?;
        let values = self.parts.tcp_options(socket)?;
        let facts = self.tcp_facts(&tcb, &values);
        let view = View { values: &values, host: self.parts.host, socket: facts };
        let own = match rule {
            Rule::Is(kind) => return Ok(kind.get(&view, level, to)),
            Rule::Own(own) => own,
        };
        let number = match own {
            Own::Error => self.take_error(socket)?.map_or(0, Error::number),
            Own::Clock => super::timestamps::clock(self.now, tcb.ts_offset) as i32,
            Own::Info => return Ok(put(&info::bytes(&self.status(socket)?), to)),
            Own::SavedSyn => {
                let Some(saved) = self.parts.saved_syn(&Name::of_connection(&tcb)) else { return Ok(0) };
                if to.len() < saved.headers().len() {
                    return Err(Error::Invalid);
                }
                let len = put(saved.headers(), to);
                saved.forget();
                return Ok(len);
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
            own => return own.get(&tcb, &view, level, to),
        };
        Ok(put_number(level, number, to))
    }

    /// What the options of a socket depend on besides their values.
    fn tcp_facts(&self, tcb: &Tcb, values: &Values) -> Facts {
        let host = &*self.parts.host;
        let is_locked = values.options & Switch::RECEIVE_BUFFER_LOCKED != 0;
        let frame = frame_share(&self.device.capabilities());
        Facts {
            kind: SOCK_STREAM,
            protocol: IPPROTO_TCP,
            is_v6: tcb.is(Mark::V6),
            has_port: tcb.local_port != 0,
            is_closed: matches!(tcb.state(), State::Closed | State::Listen),
            listens: tcb.state() == State::Listen,
            send_buffer: match values.send_buffer {
                0 if !tcb.has_peer() => host.tcp_wmem_default,
                0 => send_buffer(tcb, values).saturating_mul(2),
                bytes => bytes.saturating_mul(2),
            },
            receive_buffer: match values.receive_buffer {
                0 if !tcb.has_peer() => host.tcp_rmem_default,
                0 => tcb.receive_charge.limit.saturating_mul(frame).saturating_mul(2),
                bytes => bytes.saturating_mul(2),
            },
            low_water_max: if is_locked { values.receive_buffer } else { host.tcp_rmem_max / 2 },
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
            Self::PathMtuInfo => return Err(Error::NoSuchOption),
            _ => {}
        }
        let value = number(level, bytes)?;
        let is_idle = matches!(tcb.state(), State::Closed | State::Listen);
        match self {
            Self::Clock => return Err(Error::NotPermitted),
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
            Self::PeekOffset => tcb.peek_from = u32::try_from(value).map_or(0, |from| from.saturating_add(1)),
            // What else it does to a connection is [`apply`]'s.
            Self::QuickAck if value == 0 => tcb.delayed_ack.be_interactive(),
            Self::QuickAck => tcb.delayed_ack.end_interactive(),
            // No segment is larger than the path takes, and none is cut.
            Self::PathMtu if level == IPPROTO_IPV6 => _ = mtu_max(value)?,
            _ => return Err(Error::NoSuchOption),
        }
        Ok(())
    }

    /// Reads what has rules of its own.
    fn get(self, tcb: &Tcb, view: &View<'_>, level: i32, to: &mut [u8]) -> Result<usize, Error> {
        let View { values, host, .. } = view;
        let has = |bit: u32| i32::from(values.options & bit != 0);
        let number = match self {
            Self::Congestion => {
                let mut name = [0; NAME_MAX];
                put(Algorithm::decode(values.congestion).name().as_bytes(), &mut name);
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
            Self::PeekOffset => tcb.peek_from.wrapping_sub(1) as i32,
            Self::QuickAck => (!tcb.delayed_ack.is_interactive()).into(),
            Self::PathMtu if !tcb.has_peer() => return Err(Error::NotConnected),
            Self::PathMtu => tcb.path_mtu.into(),
            Self::PathMtuInfo => return put_mtu_info(tcb.has_peer().then_some(tcb.path_mtu), to),
            Self::SavedSyn | Self::Error | Self::Info | Self::Clock | Self::FastOpenKey => {
                return Err(Error::NoSuchOption);
            }
        };
        Ok(put_number(level, number, to))
    }
}
