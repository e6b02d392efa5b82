//! Neighbours: RTM_GETNEIGH of rtnetlink(7). The kernel resolves them; the stack is told.

use stack::wire::ip::Ip;

use super::{Message, Netlink, address, attribute, half, word};
use crate::sys;

/// Bytes of `struct ndmsg`.
const NDMSG: usize = 12;
// Kinds, attributes, states and flags (linux/rtnetlink.h, linux/neighbour.h).
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;
const NUD_PERMANENT: u16 = 0x80;
const NUD_PROBE: u16 = 0x10;
/// The kernel is to ask by itself: NTF_USE.
const NTF_USE: u8 = 1;

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface that it is behind.
    pub interface: u32,
    /// Its address.
    pub ip: Ip,
    /// Its link address, if it is known.
    pub link: Option<[u8; 6]>,
    /// Nobody answered.
    pub has_failed: bool,
    /// An administrator said so: it is never asked for.
    pub is_permanent: bool,
}

/// The neighbour in a message; one that is gone is one that nothing is known of. `None` for other messages.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<Neighbour> {
    let rest = body.get(NDMSG..).filter(|_| matches!(kind, RTM_NEWNEIGH | RTM_DELNEIGH))?;
    let state = half(body, 8)?;
    let is_known = kind == RTM_NEWNEIGH && state & (NUD_INCOMPLETE | NUD_FAILED) == 0;
    let link = attribute(rest, NDA_LLADDR).and_then(|link| link.try_into().ok());
    Some(Neighbour {
        interface: word(body, 4)?,
        ip: attribute(rest, NDA_DST).and_then(address)?,
        link: link.filter(|_| is_known),
        has_failed: kind == RTM_NEWNEIGH && state & NUD_FAILED != 0,
        is_permanent: state & NUD_PERMANENT != 0,
    })
}

/// All neighbours of this network namespace.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink) -> sys::Result<Vec<Neighbour>> {
    let mut found: Vec<Neighbour> = Vec::new();
    netlink.table(RTM_GETNEIGH, &[0; NDMSG], |kind, body| {
        if let Some(neighbour) = parse(kind, body) {
            found.retain(|known| (known.interface, known.ip) != (neighbour.interface, neighbour.ip));
            found.push(neighbour);
        }
    })?;
    Ok(found)
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
