//! Options of a socket of UDP, as getsockopt(2) and setsockopt(2) have them: numbers, bytes, bounds, errors and what is read back are
//! Linux's (net/core/sock.c, net/ipv4/udp.c, net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c), as TCP's are
//! ([`crate::tcp::options`]).
//!
//! What control messages tell of a datagram is in [`super::receive::Datagram`], whatever of it was asked for. The interface of a
//! group is the stack's one: what names another one is the caller's to keep away.

use super::calls::{receive_buffer, send_buffer};
use super::{Mark, UdpSocket};
use crate::device::Device;
use crate::error::Error;
use crate::host::Host;
use crate::region::slab::Handle;
use crate::settings::{Switch, Values};
use crate::stack::Stack;
use crate::tcp::options::{
    IPPROTO_IP, IPPROTO_IPV6, RECEIVE_BUFFER_MIN, SEND_BUFFER_MIN, SOL_SOCKET, microseconds, number, put,
    put_number, switched, timeval,
};
use crate::wire::ip::Ip;

mod rows;

use rows::{Kind, Own};
pub use rows::{ROWS, Row};

/// Options of UDP.
pub const IPPROTO_UDP: i32 = 17;

/// What an option's value is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'v> {
    pub(crate) udp: &'v UdpSocket,
    pub(crate) values: &'v Values,
    pub(crate) host: &'v Host,
}

/// The row of an option, for a socket of this version.
fn row(level: i32, number: i32, is_v6: bool) -> Result<&'static Row, Error> {
    let found = ROWS.iter().find(|row| row.level == level && row.number == number);
    found.filter(|row| is_v6 || row.level != IPPROTO_IPV6).ok_or(Error::NoSuchOption)
}

/// An address of IPv4 in a caller's bytes.
fn v4_at(bytes: &[u8], at: usize) -> Option<Ip> {
    bytes.get(at..)?.first_chunk::<4>().map(|address| Ip::v4(*address))
}

impl<D: Device> Stack<'_, '_, D> {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `NoSuchOption`; `Invalid` for too few bytes or a number out of its bounds, and what else Linux says of some; `NoBuffers`
    /// when too many sockets have set different options.
    pub fn udp_set_option(
        &mut self,
        socket: Handle,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Error> {
        let udp = *self.parts.udp(socket)?;
        let row = row(level, name, udp.is(Mark::V6))?;
        let before = self.parts.udp_options(socket)?;
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
            Kind::Own(Own::MulticastInterface) => return self.udp_set_interface(socket, value),
            Kind::Own(Own::Group(joins)) => return self.udp_set_group(socket, level, joins, value),
            Kind::Own(Own::Source(filter, adds)) => {
                let (group, of, source) = (v4_at(value, 0), v4_at(value, 4), v4_at(value, 8));
                let ((Some(group), Some(of), Some(source)), 12) = ((group, of, source), value.len()) else {
                    return Err(Error::Invalid);
                };
                self.is_own_interface(&of).ok_or(Error::NoDevice)?;
                return self.parts.udp_filter(socket, &group, &source, (filter, adds), self.now);
            }
            Kind::Own(own) => own.set(&udp, &mut values, self.parts.host, level, value)?,
        }
        if values != before {
            self.parts.set_udp_options(socket, &values)?;
        }
        let gone = before.options & !values.options;
        if gone & (Switch::ERRORS | Switch::ERRORS_V6) != 0 {
            self.udp_forget_errors(socket)?;
        }
        // A larger buffer may be one that can be written to.
        self.udp_tell(socket.index, false);
        Ok(())
    }

    /// getsockopt(2): how many bytes were written.
    ///
    /// # Errors
    /// `NoSuchOption`; `NotConnected` for what only a socket with a peer has.
    pub fn udp_option(
        &mut self,
        socket: Handle,
        level: i32,
        name: i32,
        to: &mut [u8],
    ) -> Result<usize, Error> {
        let udp = *self.parts.udp(socket)?;
        let is_level = match level {
            SOL_SOCKET | IPPROTO_UDP | IPPROTO_IP => true,
            _ => level == IPPROTO_IPV6 && udp.is(Mark::V6),
        };
        if !is_level {
            // So Linux says of a level when it is asked, and otherwise when it is told.
            return Err(Error::NotSupported);
        }
        let row = row(level, name, udp.is(Mark::V6))?;
        let values = self.parts.udp_options(socket)?;
        match row.kind {
            Kind::Own(Own::Error) => {
                let number = self.udp_take_error(socket)?.map_or(0, Error::number);
                return Ok(put_number(level, number, to));
            }
            Kind::Own(Own::PathMtu) => {
                let mtu = self.udp_path_mtu(socket)?;
                return Ok(put_number(level, mtu.into(), to));
            }
            _ => {}
        }
        let view = View { udp: &udp, values: &values, host: self.parts.host };
        match row.kind {
            Kind::Told(tell) => Ok(put_number(level, tell(&view)?, to)),
            Kind::Switch(bit) => Ok(put_number(level, (values.options & bit != 0).into(), to)),
            Kind::Number(_, _, _, get) => Ok(put_number(level, get(&view), to)),
            Kind::Own(own) => own.get(&view, level, to),
        }
    }

    /// Whether an address of IPv4 is our interface's, or leaves the choice to us.
    fn is_own_interface(&self, address: &Ip) -> Option<()> {
        (address.is_unspecified() || self.parts.is_ours(address)).then_some(())
    }

    /// IP_MULTICAST_IF: an address, a `struct ip_mreq` or a `struct ip_mreqn`.
    fn udp_set_interface(&mut self, socket: Handle, value: &[u8]) -> Result<(), Error> {
        let address = v4_at(value, if value.len() < 8 { 0 } else { 4 }).ok_or(Error::Invalid)?;
        self.is_own_interface(&address).ok_or(Error::AddressNotAvailable)?;
        self.parts.udp(socket)?.multicast_from = address;
        Ok(())
    }

    /// IP_ADD_MEMBERSHIP and IP_DROP_MEMBERSHIP with a `struct ip_mreq` or a `struct ip_mreqn`, IPV6_ADD_MEMBERSHIP and
    /// IPV6_DROP_MEMBERSHIP with a `struct ipv6_mreq`.
    fn udp_set_group(&mut self, socket: Handle, level: i32, joins: bool, value: &[u8]) -> Result<(), Error> {
        let group = match level {
            IPPROTO_IP if value.len() >= 8 => {
                let of = v4_at(value, 4).ok_or(Error::Invalid)?;
                self.is_own_interface(&of).ok_or(Error::NoDevice)?;
                v4_at(value, 0)
            }
            IPPROTO_IPV6 if value.len() >= 20 => value.first_chunk::<16>().map(|group| Ip(*group)),
            _ => None,
        };
        let group = group.ok_or(Error::Invalid)?;
        if joins {
            self.parts.udp_join_group(socket, &group, self.now)
        } else {
            self.parts.udp_leave_group(socket, &group, self.now)
        }
    }

    /// IP_RECVERR was switched off: what was queued is lost.
    fn udp_forget_errors(&mut self, socket: Handle) -> Result<(), Error> {
        let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::Corrupt)?;
        let mut errors = core::mem::take(&mut udp.errors);
        super::queue::clear(&mut frames, &mut errors, &mut udp.receive_charge);
        Ok(())
    }
}

impl Own {
    /// Sets what has rules of its own.
    fn set(
        self,
        udp: &UdpSocket,
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
            _ => {}
        }
        let value = number(level, bytes)?;
        let is_bit = (0..=1).contains(&value);
        match self {
            Self::SendBuffer => {
                values.send_buffer = (value as u32).min(host.wmem_max).max(SEND_BUFFER_MIN / 2);
            }
            Self::SendBufferForced => {
                values.send_buffer = value.max(0).unsigned_abs().clamp(SEND_BUFFER_MIN / 2, 1 << 30);
            }
            Self::ReceiveBuffer => {
                values.receive_buffer = (value as u32).min(host.rmem_max).max(RECEIVE_BUFFER_MIN / 2);
            }
            Self::ReceiveBufferForced => {
                values.receive_buffer = value.max(0).unsigned_abs().clamp(RECEIVE_BUFFER_MIN / 2, 1 << 30);
            }
            Self::Priority if (0..=6).contains(&value) => values.priority = value.unsigned_abs(),
            Self::Priority => return Err(Error::NotPermitted),
            Self::ReceiveLowWater => {
                values.receive_low_water = u32::try_from(value).unwrap_or(i32::MAX as u32);
            }
            Self::Timestamp | Self::TimestampNs => {
                switched(values, Switch::TIMESTAMP | Switch::TIMESTAMP_NS, false);
                let bit = if self == Self::Timestamp { Switch::TIMESTAMP } else { Switch::TIMESTAMP_NS };
                switched(values, bit, value != 0);
            }
            Self::Tos => {
                // The priority follows (rt_tos2priority).
                values.tos = value as u8;
                values.priority = [0, 2, 6, 4][usize::from(values.tos & 0x1e) >> 3];
            }
            Self::Ttl if bytes.is_empty() || value == 0 || !(-1..=255).contains(&value) => {
                return Err(Error::Invalid);
            }
            Self::Ttl => values.ttl = value.max(0) as u8,
            Self::FreeBind | Self::MulticastTtl | Self::MulticastLoop if bytes.is_empty() => {
                return Err(Error::Invalid);
            }
            Self::FreeBind => switched(values, Switch::FREE_BIND, value != 0),
            Self::MulticastTtl if (-1..=255).contains(&value) => values.set_multicast_ttl(true, value),
            Self::MulticastTtl => return Err(Error::Invalid),
            Self::MulticastLoop => switched(values, Switch::NO_MULTICAST_LOOP, value == 0),
            Self::MulticastAll if is_bit && !bytes.is_empty() => {
                switched(values, Switch::OTHER_MULTICAST_ALL, udp.is(Mark::V6) == (value != 0));
            }
            Self::MulticastLoopV6 if is_bit => switched(values, Switch::NO_MULTICAST_LOOP_V6, value == 0),
            Self::MulticastAll | Self::MulticastLoopV6 => return Err(Error::Invalid),
            Self::MulticastAllV6 => switched(values, Switch::NO_MULTICAST_ALL_V6, value == 0),
            Self::V6Only if udp.local_port != 0 => return Err(Error::Invalid),
            Self::V6Only => switched(values, Switch::V6_ONLY, value != 0),
            _ => return Err(Error::NoSuchOption),
        }
        Ok(())
    }

    /// Reads what has rules of its own.
    fn get(self, view: &View<'_>, level: i32, to: &mut [u8]) -> Result<usize, Error> {
        let View { udp, values, host } = *view;
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
            Self::MulticastInterface => {
                return Ok(put(&udp.multicast_from.as_v4().unwrap_or_default(), to));
            }
            Self::SendBuffer | Self::SendBufferForced => send_buffer(values, host) as i32,
            Self::ReceiveBuffer | Self::ReceiveBufferForced => receive_buffer(values, host) as i32,
            Self::Priority => values.priority as i32,
            Self::ReceiveLowWater => values.receive_low_water.max(1) as i32,
            Self::Timestamp => has(Switch::TIMESTAMP),
            Self::TimestampNs => has(Switch::TIMESTAMP_NS),
            Self::Tos => values.tos.into(),
            Self::Ttl if values.ttl == 0 => crate::stack::parcel::TTL.into(),
            Self::Ttl => values.ttl.into(),
            Self::FreeBind => has(Switch::FREE_BIND),
            Self::MulticastTtl => values.multicast_ttl(true).into(),
            Self::MulticastLoop => 1 - has(Switch::NO_MULTICAST_LOOP),
            Self::MulticastLoopV6 => 1 - has(Switch::NO_MULTICAST_LOOP_V6),
            Self::MulticastAll => udp.hears_all(values.options, true).into(),
            Self::MulticastAllV6 => udp.hears_all(values.options, false).into(),
            Self::V6Only => has(Switch::V6_ONLY),
            Self::Error | Self::PathMtu | Self::Group(_) | Self::Source(..) => {
                return Err(Error::NoSuchOption);
            }
        };
        Ok(put_number(level, number, to))
    }
}
