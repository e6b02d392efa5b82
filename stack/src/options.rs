//! Options of sockets, as getsockopt(2) and setsockopt(2) have them: numbers, bytes, bounds, errors and what is read back are
//! Linux's (net/core/sock.c, net/ipv4/ip_sockglue.c, net/ipv6/ipv6_sockglue.c).
//!
//! An option is a [`Row`]: level, number, name, and the [`Rule`] by which it is set and read. What the sockets of TCP and UDP have in
//! common is in [`common`]; their own rows, and those that differ, are beside them ([`crate::tcp::options`],
//! [`crate::udp::options`]). An option without a row is [`Error::NoSuchOption`]: [`left`] says whether the socket is left to the
//! kernel for it.
//! What needs a right (SO_MARK, SO_SNDBUFFORCE) is the caller's to allow.

use crate::error::Error;
use crate::host::Host;
use crate::settings::Values;

pub(crate) mod bytes;
pub(crate) mod common;
pub mod left;

use bytes::{microseconds, number, put, put_number, switched, timeval};
use common::Common;

/// Options of every socket.
pub const SOL_SOCKET: i32 = 1;
/// Options of IPv4.
pub const IPPROTO_IP: i32 = 0;
/// Options of TCP.
pub const IPPROTO_TCP: i32 = 6;
/// Options of UDP.
pub const IPPROTO_UDP: i32 = 17;
/// Options of IPv6.
pub const IPPROTO_IPV6: i32 = 41;

/// What kind of value an option has.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A bit of [`Values::options`]: 0, or anything else.
    Switch(u32),
    /// The same, for which only 0 and 1 may be said.
    Strict(u32),
    /// A number within bounds, how it is kept and how it is read back.
    Number(i32, i32, fn(&mut Values, i32), fn(&View<'_>) -> i32),
    /// A `struct timeval`, kept in microseconds.
    Time(fn(&mut Values) -> &mut u64),
    /// What can only be read.
    Told(fn(&View<'_>) -> i32),
    /// One with rules of its own, the same for every socket.
    Common(Common),
}

/// By which rule an option is set and read.
#[derive(Clone, Copy)]
pub(crate) enum Rule<O> {
    /// By what it is.
    Is(Kind),
    /// By rules of the protocol's own.
    Own(O),
}

/// An option.
#[derive(Clone, Copy)]
pub(crate) struct Row<R> {
    pub(crate) what: What,
    pub(crate) rule: R,
}

/// How an option is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    /// SOL_SOCKET, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IP or IPPROTO_IPV6.
    pub level: i32,
    /// Its number there.
    pub number: i32,
    /// Its name.
    pub name: &'static str,
}

pub(crate) const fn row<R>(level: i32, number: i32, name: &'static str, rule: R) -> Row<R> {
    Row { what: What { level, number, name }, rule }
}

/// What is to be known of a socket to set or read its options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// SOCK_STREAM or SOCK_DGRAM.
    pub(crate) kind: i32,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub(crate) protocol: i32,
    /// Whether it is one of IPv6.
    pub(crate) is_v6: bool,
    /// Whether it has a port.
    pub(crate) has_port: bool,
    /// Whether it has never had a peer, or has none any more.
    pub(crate) is_closed: bool,
    /// Whether it listens.
    pub(crate) listens: bool,
    /// SO_SNDBUF and SO_RCVBUF, in bytes, as they are read back.
    pub(crate) send_buffer: u32,
    pub(crate) receive_buffer: u32,
    /// SO_RCVLOWAT's largest value, in bytes.
    pub(crate) low_water_max: u32,
}

/// SOCK_STREAM, whose bits of ECN are TCP's own.
pub(crate) const SOCK_STREAM: i32 = 1;
/// SOCK_DGRAM.
pub(crate) const SOCK_DGRAM: i32 = 2;

/// What an option's value is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'v> {
    pub(crate) values: &'v Values,
    pub(crate) host: &'v Host,
    pub(crate) socket: Facts,
}

/// The rule of an option, for a socket of this version, by the protocol's own rows or by the common ones.
pub(crate) fn rule<O: Copy>(
    own: &[Row<Rule<O>>],
    level: i32,
    number: i32,
    is_v6: bool,
) -> Result<Rule<O>, Error> {
    let is_it = |what: &What| what.level == level && what.number == number;
    let own = own.iter().find(|row| is_it(&row.what)).map(|row| row.rule);
    let common = || common::ROWS.iter().find(|row| is_it(&row.what)).map(|row| Rule::Is(row.rule));
    let found = own.or_else(common).filter(|_| is_v6 || level != IPPROTO_IPV6);
    found.ok_or(Error::NoSuchOption)
}

/// Whether a socket has options at this level. What has none is `NoSuchOption` when it is told, as Linux says, and `NotSupported`
/// when it is asked.
pub(crate) fn is_level(level: i32, protocol: i32, is_v6: bool) -> Result<(), Error> {
    let is_one = [SOL_SOCKET, IPPROTO_IP, protocol].contains(&level) || level == IPPROTO_IPV6 && is_v6;
    if is_one { Ok(()) } else { Err(Error::NotSupported) }
}

/// The names of a protocol's options and of the common ones.
pub(crate) fn names<O>(own: &'static [Row<Rule<O>>]) -> impl Iterator<Item = What> {
    own.iter().map(|row| row.what).chain(common::ROWS.iter().map(|row| row.what))
}

impl Kind {
    /// Sets an option in a copy of a socket's values.
    pub(crate) fn set(
        self,
        values: &mut Values,
        (socket, host): (&Facts, &Host),
        level: i32,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let number = number(level, bytes)?;
        match self {
            Self::Common(common) => return common.set(values, (socket, host), number, bytes),
            Self::Time(field) => *field(values) = microseconds(bytes)?,
            Self::Switch(bit) => switched(values, bit, number != 0),
            Self::Strict(bit) if (0..=1).contains(&number) => switched(values, bit, number != 0),
            Self::Number(least, most, set, _) if (least..=most).contains(&number) => set(values, number),
            Self::Strict(_) | Self::Number(..) => return Err(Error::Invalid),
            Self::Told(_) => return Err(Error::NoSuchOption),
        }
        Ok(())
    }

    /// Reads one: how many bytes were written.
    pub(crate) fn get(self, view: &View<'_>, level: i32, to: &mut [u8]) -> usize {
        let number = match self {
            Self::Switch(bit) | Self::Strict(bit) => (view.values.options & bit != 0).into(),
            Self::Number(_, _, _, get) => get(view),
            Self::Told(tell) => tell(view),
            Self::Time(field) => return put(&timeval(*field(&mut view.values.clone())), to),
            Self::Common(common) => return common.get(view, level, to),
        };
        put_number(level, number, to)
    }
}
