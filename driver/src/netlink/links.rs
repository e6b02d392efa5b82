//! Interfaces as the kernel has them: RTM_GETLINK of rtnetlink(7).

use super::{Message, Netlink, attribute, word};
use crate::sys::{self, Errno};

/// Bytes of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
// Attributes (linux/if_link.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_INET6_CONF: u16 = 2;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
/// Places in IPv6's settings of an interface (DEVCONF_* in linux/ipv6.h).
const FORWARDING: usize = 0;
const HOP_LIMIT: usize = 1;
const MTU6: usize = 2;
const USE_TEMPADDR: usize = 10;

/// IPv6's settings of an interface (net.ipv6.conf).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inet6 {
    /// It is a router's: no route is given up because of its gateway.
    pub forwards: bool,
    /// Of what is sent, as a router may have told.
    pub hop_limit: u8,
    /// Largest IPv6 packet, as a router may have told.
    pub mtu: u32,
    /// Temporary addresses come first (use_tempaddr).
    pub prefers_temporary: bool,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What makes it, if it isn't hardware: "veth", "tun", "bridge", "bond", "vlan" …
    pub kind: String,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Its address; none where the link has no addresses (TUN).
    pub address: Option<[u8; 6]>,
    /// IFF_UP, IFF_LOOPBACK, IFF_LOWER_UP …
    pub flags: u32,
    /// What it was made with; fewer may be in use.
    pub rx_queues: u32,
    /// The interface that it is a port of, a bridge or a bond; 0 is none.
    pub master: u32,
    /// The interface that it is over, as a VLAN's is; 0 is none, and a veth's is its peer.
    pub lower: u32,
    /// An XDP program is attached.
    pub has_xdp: bool,
    /// IPv6's settings, unless it is off.
    pub inet6: Option<Inet6>,
}

impl Link {
    /// It is switched on: IFF_UP.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }
}

/// IPv6's settings in IFLA_AF_SPEC: numbers of 32 bits, one for each place.
fn inet6(families: &[u8]) -> Option<Inet6> {
    let settings = attribute(attribute(families, libc::AF_INET6 as u16)?, IFLA_INET6_CONF)?;
    let setting = |at: usize| word(settings, at * size_of::<u32>());
    Some(Inet6 {
        forwards: setting(FORWARDING)? != 0,
        hop_limit: u8::try_from(setting(HOP_LIMIT)?).unwrap_or_default(),
        mtu: setting(MTU6)?,
        // -1 is never.
        prefers_temporary: setting(USE_TEMPADDR)?.cast_signed() >= 2,
    })
}

/// An `ifinfomsg` with nothing but the interface.
#[must_use]
pub fn ifinfomsg(index: u32) -> [u8; IFINFOMSG] {
    let mut body = [0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

/// The link in a message, if it is one of a link that there is.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<Link> {
    let rest = body.get(IFINFOMSG..).filter(|_| kind == RTM_NEWLINK)?;
    let text = |bytes: &[u8]| {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    let number = |kind| attribute(rest, kind).and_then(|value| word(value, 0));
    let information = attribute(rest, IFLA_LINKINFO).unwrap_or_default();
    let xdp = attribute(rest, IFLA_XDP).and_then(|nested| attribute(nested, IFLA_XDP_ATTACHED));
    Some(Link {
        index: word(body, 4)?,
        name: attribute(rest, IFLA_IFNAME).map(text)?,
        kind: attribute(information, IFLA_INFO_KIND).map(text).unwrap_or_default(),
        mtu: number(IFLA_MTU)?,
        address: attribute(rest, IFLA_ADDRESS).and_then(|address| address.try_into().ok()),
        flags: word(body, 8)?,
        rx_queues: number(IFLA_NUM_RX_QUEUES).unwrap_or(1),
        master: number(IFLA_MASTER).unwrap_or_default(),
        lower: number(IFLA_LINK).unwrap_or_default(),
        has_xdp: xdp.is_some_and(|attached| attached.first().is_some_and(|how| *how != 0)),
        inet6: attribute(rest, IFLA_AF_SPEC).and_then(inet6),
    })
}

/// The interface with this name.
///
/// # Errors
/// ENODEV when there is none.
pub fn named(netlink: &mut Netlink, name: &str) -> sys::Result<Link> {
    let mut found = None;
    let text = [name.as_bytes(), &[0]].concat();
    let message = Message::new(RTM_GETLINK, 0, &ifinfomsg(0)).with(IFLA_IFNAME, &text);
    netlink.get(message, |kind, body| found = parse(kind, body).or_else(|| found.take()))?;
    found.ok_or(Errno(libc::ENODEV))
}

/// The interface with this number.
///
/// # Errors
/// ENODEV when there is none.
pub fn numbered(netlink: &mut Netlink, index: u32) -> sys::Result<Link> {
    let mut found = None;
    let message = Message::new(RTM_GETLINK, 0, &ifinfomsg(index));
    netlink.get(message, |kind, body| found = parse(kind, body).or_else(|| found.take()))?;
    found.ok_or(Errno(libc::ENODEV))
}

/// All interfaces.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink) -> sys::Result<Vec<Link>> {
    Ok(netlink.table(RTM_GETLINK, &ifinfomsg(0), usize::MAX, parse)?.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let mut netlink = Netlink::open(0).expect("netlink");
        let link = named(&mut netlink, "lo").expect("loopback");
        assert_eq!((link.name.as_str(), link.kind.as_str()), ("lo", ""));
        assert!(link.flags & libc::IFF_LOOPBACK as u32 != 0 && link.mtu >= 1500 && !link.has_xdp);
        assert_eq!(numbered(&mut netlink, link.index), Ok(link.clone()));
        assert_eq!(all(&mut netlink).expect("links").iter().find(|one| one.name == "lo"), Some(&link));
        assert_eq!(named(&mut netlink, "none-such"), Err(Errno(libc::ENODEV)));
    }

    #[test]
    fn a_message_that_ends_early_is_none() {
        for len in 0..IFINFOMSG {
            assert_eq!(parse(RTM_NEWLINK, &ifinfomsg(1)[..len]), None);
        }
        assert_eq!(crate::netlink::half(&[1], 0), None);
    }
}
