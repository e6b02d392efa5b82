//! Options of a socket of UDP (net/ipv4/udp.c, net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c): its own rows, and what it adds to
//! those that every socket has ([`crate::options`]).
//!
//! What control messages tell of a datagram is in [`super::receive::Datagram`], whatever of it was asked for. The interface of a
//! group is the stack's one: what names another one is refused, if the owner has told which one that is.

use super::calls::{receive_buffer, send_buffer};
use super::{Mark, UdpSocket};
use crate::device::Device;
use crate::error::Error;
use crate::options::bytes::{mtu_max, number, put, put_mtu_info, put_number, switched};
use crate::options::{self, Facts, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, Rule, SOCK_DGRAM, View, What};
use crate::region::slab::Handle;
use crate::settings::{Switch, Values};
use crate::stack::Stack;
use crate::wire::ip::Ip;

mod rows;

use rows::{Own, ROWS};

/// The names of all options of a socket of UDP.
pub fn names() -> impl Iterator<Item = What> {
    options::names(ROWS)
}

/// An address of IPv4 in a caller's bytes.
fn v4_at(bytes: &[u8], at: usize) -> Option<Ip> {
    bytes.get(at..)?.first_chunk::<4>().map(|address| Ip::v4(*address))
}

/// A number in a caller's bytes.
fn number_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk().map(|number| i32::from_ne_bytes(*number))
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
        let rule = options::rule(ROWS, level, name, udp.is(Mark::V6))?;
        let before = self.parts.udp_options(socket)?;
        let mut values = before;
        let facts = self.udp_facts(&udp, &before);
        match rule {
            Rule::Is(kind) => kind.set(&mut values, (&facts, self.parts.host), level, value)?,
            Rule::Own(Own::Cork) => return self.udp_set_cork(socket, number(level, value)? != 0),
            Rule::Own(Own::MulticastInterface) => return self.udp_set_interface(socket, value),
            Rule::Own(Own::MulticastInterfaceV6) => {
                let index = number(level, value)?;
                self.is_interface(index).ok_or(Error::NoDevice)?;
                values.multicast_interface = index.unsigned_abs();
            }
            Rule::Own(Own::Group(joins)) => return self.udp_set_group(socket, level, joins, value),
            Rule::Own(Own::Source(filter, adds)) => {
                let (group, of, source) = (v4_at(value, 0), v4_at(value, 4), v4_at(value, 8));
                let ((Some(group), Some(of), Some(source)), 12) = ((group, of, source), value.len()) else {
                    return Err(Error::Invalid);
                };
                self.is_own_interface(&of).ok_or(Error::NoDevice)?;
                return self.parts.udp_filter(socket, &group, &source, (filter, adds), self.now);
            }
            Rule::Own(own) => own.set(&udp, &mut values, level, value)?,
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
        options::is_level(level, IPPROTO_UDP, udp.is(Mark::V6))?;
        let rule = options::rule(ROWS, level, name, udp.is(Mark::V6))?;
        let values = self.parts.udp_options(socket)?;
        let own = match rule {
            Rule::Is(kind) => {
                let socket = self.udp_facts(&udp, &values);
                return Ok(kind.get(&View { values: &values, host: self.parts.host, socket }, level, to));
            }
            Rule::Own(own) => own,
        };
        let number = match own {
            Own::Error => self.udp_take_error(socket)?.map_or(0, Error::number),
            Own::PathMtu => self.udp_path_mtu(socket)?.into(),
            Own::PathMtuInfo => return put_mtu_info(self.udp_path_mtu(socket).ok(), to),
            own => return own.get(&udp, &values, level, to),
        };
        Ok(put_number(level, number, to))
    }

    /// What the options of a socket depend on besides their values.
    fn udp_facts(&self, udp: &UdpSocket, values: &Values) -> Facts {
        Facts {
            kind: SOCK_DGRAM,
            protocol: IPPROTO_UDP,
            is_v6: udp.is(Mark::V6),
            has_port: udp.local_port != 0,
            is_closed: false,
            listens: false,
            send_buffer: send_buffer(values, self.parts.host),
            receive_buffer: receive_buffer(values, self.parts.host),
            low_water_max: u32::MAX,
        }
    }

    /// Whether an address of IPv4 is our interface's, or leaves the choice to us.
    fn is_own_interface(&self, address: &Ip) -> Option<()> {
        (address.is_unspecified() || self.parts.is_ours(address)).then_some(())
    }

    /// Whether a number is our interface's, or leaves the choice to us.
    fn is_interface(&self, number: i32) -> Option<()> {
        self.parts.ip.interface.is_called(number).then_some(())
    }

    /// IP_MULTICAST_IF: an address, a `struct ip_mreq` or a `struct ip_mreqn`.
    fn udp_set_interface(&mut self, socket: Handle, value: &[u8]) -> Result<(), Error> {
        let address = v4_at(value, if value.len() < 8 { 0 } else { 4 }).ok_or(Error::Invalid)?;
        // Whoever names the interface may have any address for it.
        let found = match number_at(value, 8) {
            Some(index) if index != 0 => self.is_interface(index),
            _ => self.is_own_interface(&address),
        };
        found.ok_or(Error::AddressNotAvailable)?;
        self.parts.udp(socket)?.multicast_from = address;
        Ok(())
    }

    /// IP_ADD_MEMBERSHIP and IP_DROP_MEMBERSHIP with a `struct ip_mreq` or a `struct ip_mreqn`, IPV6_ADD_MEMBERSHIP and
    /// IPV6_DROP_MEMBERSHIP with a `struct ipv6_mreq`.
    fn udp_set_group(&mut self, socket: Handle, level: i32, joins: bool, value: &[u8]) -> Result<(), Error> {
        let (group, index) = match level {
            IPPROTO_IP if value.len() >= 8 => (v4_at(value, 0), number_at(value, 8).unwrap_or_default()),
            IPPROTO_IPV6 if value.len() >= 20 => {
                (value.first_chunk::<16>().map(|group| Ip(*group)), number_at(value, 16).unwrap_or_default())
            }
            _ => (None, 0),
        };
        let group = group.ok_or(Error::Invalid)?;
        if index != 0 {
            // Of another interface's groups the socket is in none.
            let no_device = if joins { Error::NoDevice } else { Error::AddressNotAvailable };
            self.is_interface(index).ok_or(no_device)?;
        } else if level == IPPROTO_IP {
            let of = v4_at(value, 4).ok_or(Error::Invalid)?;
            self.is_own_interface(&of).ok_or(Error::NoDevice)?;
        }
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
    fn set(self, udp: &UdpSocket, values: &mut Values, level: i32, bytes: &[u8]) -> Result<(), Error> {
        // Fewer bytes than a number has are 0 for this one.
        if self == Self::DontFragmentV6 {
            let is_on = bytes.len() >= 4 && number(level, bytes)? != 0;
            switched(values, Switch::DONT_FRAGMENT_V6, is_on);
            return Ok(());
        }
        if self == Self::PathMtuInfo {
            return Err(Error::NoSuchOption);
        }
        let value = number(level, bytes)?;
        let is_bit = (0..=1).contains(&value);
        match self {
            Self::MulticastTtl | Self::MulticastLoop if bytes.is_empty() => {
                return Err(Error::Invalid);
            }
            Self::MulticastTtl if (-1..=255).contains(&value) => values.set_multicast_ttl(true, value),
            Self::MulticastTtl => return Err(Error::Invalid),
            Self::MulticastLoop => switched(values, Switch::NO_MULTICAST_LOOP, value == 0),
            Self::MulticastAll if is_bit && !bytes.is_empty() => {
                switched(values, Switch::OTHER_MULTICAST_ALL, udp.is(Mark::V6) == (value != 0));
            }
            Self::MulticastLoopV6 if is_bit => switched(values, Switch::NO_MULTICAST_LOOP_V6, value == 0),
            Self::MulticastAll | Self::MulticastLoopV6 => return Err(Error::Invalid),
            Self::MulticastAllV6 => switched(values, Switch::NO_MULTICAST_ALL_V6, value == 0),
            Self::PathMtu if level == IPPROTO_IPV6 => values.mtu_max = mtu_max(value)?,
            _ => return Err(Error::NoSuchOption),
        }
        Ok(())
    }

    /// Reads what has rules of its own.
    fn get(self, udp: &UdpSocket, values: &Values, level: i32, to: &mut [u8]) -> Result<usize, Error> {
        let has = |bit: u32| i32::from(values.options & bit != 0);
        let number = match self {
            Self::MulticastInterface => {
                return Ok(put(&udp.multicast_from.as_v4().unwrap_or_default(), to));
            }
            Self::MulticastInterfaceV6 => values.multicast_interface as i32,
            Self::MulticastTtl => values.multicast_ttl(true).into(),
            Self::MulticastLoop => 1 - has(Switch::NO_MULTICAST_LOOP),
            Self::MulticastLoopV6 => 1 - has(Switch::NO_MULTICAST_LOOP_V6),
            Self::MulticastAll => udp.hears_all(values.options, true).into(),
            Self::MulticastAllV6 => udp.hears_all(values.options, false).into(),
            Self::DontFragmentV6 => has(Switch::DONT_FRAGMENT_V6),
            Self::Cork => udp.is(Mark::CORK).into(),
            Self::Error | Self::PathMtu | Self::PathMtuInfo | Self::Group(_) | Self::Source(..) => {
                return Err(Error::NoSuchOption);
            }
        };
        Ok(put_number(level, number, to))
    }
}
