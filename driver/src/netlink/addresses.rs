//! Addresses of interfaces: RTM_GETADDR of rtnetlink(7); and the labels by which IPv6 chooses between them: RTM_GETADDRLABEL.

use stack::wire::ip::Ip;

use super::{Netlink, Table, address, attribute, word};
use crate::sys;

/// Bytes of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
// Kinds and attributes (linux/rtnetlink.h, linux/if_addr.h).
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// It is not to be used yet, or not any more: IFA_F_TENTATIVE, IFA_F_DADFAILED, IFA_F_DEPRECATED; IFA_F_OPTIMISTIC, a tentative one
/// that may be used already, but after others (RFC 4429 §2.1).
const TENTATIVE: u32 = 0x40;
const FAILED: u32 = 0x08;
const DEPRECATED: u32 = 0x20;
const OPTIMISTIC: u32 = 0x04;
/// Of IPv4 IFA_F_SECONDARY, of IPv6 IFA_F_TEMPORARY.
const SECONDARY: u32 = 0x01;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: u32,
    /// The address.
    pub ip: Ip,
    /// An address of its subnet: itself, or the other end of a link with two.
    pub subnet: Ip,
    /// Bits of its subnet's prefix, of its own version.
    pub prefix_len: u8,
    /// How far it means something: 0 everywhere, 253 on the link, 254 on this host (RT_SCOPE_*).
    pub scope: u8,
    /// Duplicate address detection goes on, or has found another.
    pub is_tentative: bool,
    /// It serves what it served, but nothing new.
    pub is_deprecated: bool,
    /// Of IPv4: another one of the same subnet came first.
    pub is_secondary: bool,
    /// Of IPv6: made for privacy (RFC 8981).
    pub is_temporary: bool,
}

/// The address in a message, and whether it is there; `None` for other messages.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<(Address, bool)> {
    let rest = body.get(IFADDRMSG..).filter(|_| matches!(kind, RTM_NEWADDR | RTM_DELADDR))?;
    // Of a link with two ends IFA_ADDRESS is the other one's.
    let ip = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS)).and_then(address)?;
    let flags = attribute(rest, IFA_FLAGS).and_then(|flags| word(flags, 0)).unwrap_or(body[2].into());
    let has = |flag: u32| flags & flag != 0;
    let found = Address {
        interface: word(body, 4)?,
        ip,
        subnet: attribute(rest, IFA_ADDRESS).and_then(address).unwrap_or(ip),
        prefix_len: body[1],
        scope: body[3],
        is_tentative: has(FAILED) || has(TENTATIVE) && !has(OPTIMISTIC),
        is_deprecated: has(DEPRECATED | OPTIMISTIC),
        is_secondary: ip.is_v4() && has(SECONDARY),
        is_temporary: !ip.is_v4() && has(SECONDARY),
    };
    Some((found, kind == RTM_NEWADDR))
}

/// The addresses of this network namespace, in the kernel's order: the first `most`, and how many there are.
///
/// # Errors
/// What the kernel says.
pub fn table(netlink: &mut Netlink, most: usize) -> sys::Result<Table<Address>> {
    netlink.table(RTM_GETADDR, &[0; IFADDRMSG], most, |kind, body| {
        parse(kind, body).filter(|(_, is_there)| *is_there).map(|(address, _)| address)
    })
}

/// All addresses of this network namespace.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink) -> sys::Result<Vec<Address>> {
    Ok(table(netlink, usize::MAX)?.rows)
}

/// Bytes of `struct ifaddrlblmsg`.
const IFADDRLBLMSG: usize = 12;
// Kinds and attributes (linux/rtnetlink.h, linux/if_addrlabel.h).
const RTM_NEWADDRLABEL: u16 = 72;
const RTM_GETADDRLABEL: u16 = 74;
const IFAL_ADDRESS: u16 = 1;
const IFAL_LABEL: u16 = 2;

/// A row of the policy table of RFC 6724 §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// The first bits of addresses.
    pub prefix: [u8; 16],
    /// How many bits.
    pub prefix_len: u8,
    /// The interface that it is for; 0 is all.
    pub interface: u32,
    /// Their label.
    pub label: u32,
}

const fn label(prefix: u128, prefix_len: u8, label: u32) -> Label {
    Label { prefix: prefix.to_be_bytes(), prefix_len, interface: 0, label }
}

/// What a namespace begins with (ip6addrlbl_init_table), in the order of prefixes.
pub const LABELS: [Label; 10] = [
    label(0, 0, 1),
    label(0, 96, 3),
    label(1, 128, 0),
    label(0xffff << 32, 96, 4),
    label(0x2001 << 112, 32, 6),
    label(0x2001_0010 << 96, 28, 7),
    label(0x2002 << 112, 16, 2),
    label(0x3ffe << 112, 16, 12),
    label(0xfc00 << 112, 7, 5),
    label(0xfec0 << 112, 10, 11),
];

/// The labels of this network namespace, in the order of prefixes.
///
/// # Errors
/// EOPNOTSUPP where IPv6 is off; what the kernel says.
pub fn labels(netlink: &mut Netlink) -> sys::Result<Vec<Label>> {
    let mut body = [0; IFADDRLBLMSG];
    body[0] = libc::AF_INET6 as u8;
    let mut table = netlink.table(RTM_GETADDRLABEL, &body, usize::MAX, |kind, body| {
        let rest = body.get(IFADDRLBLMSG..).filter(|_| kind == RTM_NEWADDRLABEL)?;
        Some(Label {
            prefix: attribute(rest, IFAL_ADDRESS)?.try_into().ok()?,
            prefix_len: body[2],
            interface: word(body, 4)?,
            label: attribute(rest, IFAL_LABEL).and_then(|label| word(label, 0))?,
        })
    })?;
    table.rows.sort_unstable();
    Ok(table.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_that_a_namespace_begins_with() {
        let mut netlink = Netlink::open(0).expect("netlink");
        assert_eq!(labels(&mut netlink).as_deref(), Ok(&LABELS[..]));
    }

    #[test]
    fn loopback_has_its_address() {
        let mut netlink = Netlink::open(0).expect("netlink");
        let all = all(&mut netlink).expect("addresses");
        let one = all.iter().find(|address| address.ip == Ip::v4([127, 0, 0, 1])).expect("127.0.0.1");
        assert_eq!((one.prefix_len, one.is_tentative, one.is_deprecated), (8, false, false));
        assert_eq!((one.subnet, one.scope, one.is_secondary), (one.ip, 254, false));
    }
}
