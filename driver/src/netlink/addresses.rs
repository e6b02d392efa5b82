//! Addresses of interfaces: RTM_GETADDR of rtnetlink(7).

use stack::wire::ip::Ip;

use super::{Netlink, address, attribute, word};
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
/// It is not to be used yet, or not any more: IFA_F_TENTATIVE, IFA_F_DADFAILED, IFA_F_DEPRECATED.
const TENTATIVE: u32 = 0x40;
const FAILED: u32 = 0x08;
const DEPRECATED: u32 = 0x20;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: u32,
    /// The address.
    pub ip: Ip,
    /// Bits of its subnet's prefix, of its own version.
    pub prefix_len: u8,
    /// Duplicate address detection goes on, or has found another.
    pub is_tentative: bool,
    /// It serves what it served, but nothing new.
    pub is_deprecated: bool,
}

/// The address in a message, and whether it is there; `None` for other messages.
#[must_use]
pub fn parse(kind: u16, body: &[u8]) -> Option<(Address, bool)> {
    let rest = body.get(IFADDRMSG..).filter(|_| matches!(kind, RTM_NEWADDR | RTM_DELADDR))?;
    // Of a link with two ends IFA_ADDRESS is the other one's.
    let ip = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS)).and_then(address)?;
    let flags = attribute(rest, IFA_FLAGS).and_then(|flags| word(flags, 0)).unwrap_or(body[2].into());
    let found = Address {
        interface: word(body, 4)?,
        ip,
        prefix_len: body[1],
        is_tentative: flags & (TENTATIVE | FAILED) != 0,
        is_deprecated: flags & DEPRECATED != 0,
    };
    Some((found, kind == RTM_NEWADDR))
}

/// All addresses of this network namespace.
///
/// # Errors
/// What the kernel says.
pub fn all(netlink: &mut Netlink) -> sys::Result<Vec<Address>> {
    let mut found: Vec<Address> = Vec::new();
    netlink.table(RTM_GETADDR, &[0; IFADDRMSG], |kind, body| {
        if let Some((address, true)) = parse(kind, body) {
            found.retain(|known| (known.interface, known.ip) != (address.interface, address.ip));
            found.push(address);
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_address() {
        let mut netlink = Netlink::open(0).expect("netlink");
        let all = all(&mut netlink).expect("addresses");
        let one = all.iter().find(|address| address.ip == Ip::v4([127, 0, 0, 1])).expect("127.0.0.1");
        assert_eq!((one.prefix_len, one.is_tentative, one.is_deprecated), (8, false, false));
    }
}
