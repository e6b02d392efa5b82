//! Neighbours: RTM_GETNEIGH of rtnetlink(7). The kernel resolves them; the stack is told.

use stack::wire::ip::Ip;

use super::{Message, Netlink, Table, address, attribute, half, word};
use crate::sys;

/// Bytes of `struct ndmsg`.
const NDMSG: usize = 12;
// Kinds, attributes, states and flags (linux/rtnetlink.h, linux/neighbour.h).
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PROBE: u16 = 0x10;
/// The kernel is to ask by itself: NTF_USE.
const NTF_USE: u8 = 1;
/// It is answered for, and is no neighbour: NTF_PROXY.
const NTF_PROXY: u8 = 8;

/// What the kernel knows of a neighbour: `ndm_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing: NUD_NONE, or it is gone.
    Gone,
    /// It is being asked for.
    Incomplete,
    /// It was there lately.
    Reachable,
    /// It was there some time ago.
    Stale,
    /// The same, and something was sent to it.
    Delay,
    /// The same, and it is being asked whether it is there still.
    Probe,
    /// Nobody answered.
    Failed,
    /// An administrator or the kind of link says so, and it is never asked for: NUD_PERMANENT, NUD_NOARP.
    Permanent,
}

impl State {
    const fn of(number: u16) -> Self {
        match number {
            0x01 => Self::Incomplete,
            0x02 => Self::Reachable,
            0x04 => Self::Stale,
            0x08 => Self::Delay,
            0x10 => Self::Probe,
            0x20 => Self::Failed,
            0x40 | 0x80 => Self::Permanent,
            _ => Self::Gone,
        }
    }

    /// Packets are sent to its link address: NUD_VALID.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::Permanent)
    }
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub interface: u32,
    /// Its address.
    pub ip: Ip,
    /// What is known of it.
    pub state: State,
    /// Its link address, if packets are sent there.
    pub link: Option<[u8; 6]>,
}

/// The neighbour in a message; `None` for other messages.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<Neighbour> {
    let rest = body.get(NDMSG..).filter(|_| matches!(kind, RTM_NEWNEIGH | RTM_DELNEIGH))?;
    // Of a bridge's table, which comes in the same messages, the family is another.
    let is_ip = matches!(i32::from(body[0]), libc::AF_INET | libc::AF_INET6);
    if !is_ip || body[10] & NTF_PROXY != 0 {
        return None;
    }
    let state = if kind == RTM_NEWNEIGH { State::of(half(body, 8)?) } else { State::Gone };
    let link = attribute(rest, NDA_LLADDR).and_then(|link| link.try_into().ok());
    Some(Neighbour {
        interface: word(body, 4)?,
        ip: attribute(rest, NDA_DST).and_then(address)?,
        state,
        link: link.filter(|_| state.is_valid()),
    })
}

/// The neighbours of this network namespace for which `is_wanted` says so: the first `most`, and how many there are.
///
/// # Errors
/// What the kernel says.
pub fn table(
    netlink: &mut Netlink,
    most: usize,
    is_wanted: impl Fn(&Neighbour) -> bool,
) -> sys::Result<Table<Neighbour>> {
    netlink.table(RTM_GETNEIGH, &[0; NDMSG], most, |kind, body| parse(kind, body).filter(&is_wanted))
}

/// All neighbours of this network namespace.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink) -> sys::Result<Vec<Neighbour>> {
    Ok(table(netlink, usize::MAX, |_| true)?.rows)
}

/// Has the kernel ask for a neighbour; its answer comes as a change (RTMGRP_NEIGH).
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; what the kernel says of it.
pub fn resolve(netlink: &mut Netlink, interface: u32, ip: &Ip) -> sys::Result<()> {
    let v4 = ip.as_v4();
    let family = if v4.is_some() { libc::AF_INET } else { libc::AF_INET6 };
    let mut body = [0; NDMSG];
    body[0] = family as u8;
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    body[8..10].copy_from_slice(&NUD_PROBE.to_ne_bytes());
    body[10] = NTF_USE;
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    let message = Message::new(RTM_NEWNEIGH, flags, &body);
    let message = match v4 {
        Some(v4) => message.with(NDA_DST, &v4),
        None => message.with(NDA_DST, &ip.0),
    };
    netlink.ask(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_no_other_is() {
        let mut body = [0; NDMSG];
        (body[0], body[4], body[8]) = (libc::AF_INET as u8, 3, 4);
        let bytes = |body: &[u8]| {
            let message = Message::new(RTM_NEWNEIGH, 0, body).with(NDA_DST, &[192, 0, 2, 1]);
            message.with(NDA_LLADDR, &[2, 0, 0, 0, 0, 1]).body().to_vec()
        };
        let ip = Ip::v4([192, 0, 2, 1]);
        let stale = Neighbour { interface: 3, ip, state: State::Stale, link: Some([2, 0, 0, 0, 0, 1]) };
        assert_eq!(parse(RTM_NEWNEIGH, &bytes(&body)), Some(stale));
        let gone = Neighbour { state: State::Gone, link: None, ..stale };
        assert_eq!(parse(RTM_DELNEIGH, &bytes(&body)), Some(gone));
        assert_eq!(parse(RTM_GETNEIGH, &bytes(&body)), None);
        body[10] = NTF_PROXY;
        assert_eq!(parse(RTM_NEWNEIGH, &bytes(&body)), None, "whom somebody answers for");
        (body[0], body[10]) = (libc::AF_BRIDGE as u8, 0);
        assert_eq!(parse(RTM_NEWNEIGH, &bytes(&body)), None, "a bridge's");
    }
}
