//! Socket addresses as programs write them, and as the stack has them.

use libc::{c_int, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};
use stack::wire::ip::Ip;

use crate::buffers::is_plausible;

/// An address and a port, and how a socket of which family names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) ip: Ip,
    pub(crate) port: u16,
    /// The interface that a link-local address of IPv6 is on (sin6_scope_id); 0 is none.
    pub(crate) scope: u32,
}

impl Name {
    /// An address on this interface.
    pub(crate) fn of(interface: u32, ip: Ip, port: u16) -> Self {
        let scope = if ip.is_link_local() && !ip.is_v4() { interface } else { 0 };
        Self { ip, port, scope }
    }
}

/// What an address of a program's comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// One of IPv4 or IPv6.
    Name(Name),
    /// Something else, or something wrong: the kernel is to say.
    Other,
}

/// Reads a program's address.
///
/// # Safety
/// `address` is null, or the caller's promise for `length` bytes.
pub(crate) unsafe fn read(address: *const sockaddr, length: socklen_t) -> Read {
    if !is_plausible(address) || (length as usize) < size_of::<sockaddr_in>() {
        return Read::Other;
    }
    // SAFETY: the caller's contract, for at least sixteen bytes.
    let family = c_int::from(unsafe { (&raw const (*address).sa_family).read_unaligned() });
    if family == libc::AF_INET {
        // SAFETY: as above.
        let name = unsafe { address.cast::<sockaddr_in>().read_unaligned() };
        let ip = Ip::v4(name.sin_addr.s_addr.to_ne_bytes());
        return Read::Name(Name { ip, port: u16::from_be(name.sin_port), scope: 0 });
    }
    // The scope came later (RFC 2133): without it an address has 24 bytes.
    if family != libc::AF_INET6 || (length as usize) < size_of::<sockaddr_in6>() {
        return Read::Other;
    }
    // SAFETY: the caller's contract, for at least so many bytes.
    let name = unsafe { address.cast::<sockaddr_in6>().read_unaligned() };
    let (ip, port) = (Ip(name.sin6_addr.s6_addr), u16::from_be(name.sin6_port));
    Read::Name(Name { ip, port, scope: name.sin6_scope_id })
}

/// An address for a socket of IPv4 or IPv6, and its length.
pub(crate) fn written(name: &Name, is_v6: bool) -> ([u8; size_of::<sockaddr_in6>()], usize) {
    let mut bytes = [0; size_of::<sockaddr_in6>()];
    bytes[2..4].copy_from_slice(&name.port.to_be_bytes());
    if is_v6 {
        bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        bytes[8..24].copy_from_slice(&name.ip.0);
        bytes[24..].copy_from_slice(&name.scope.to_ne_bytes());
        return (bytes, size_of::<sockaddr_in6>());
    }
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[4..8].copy_from_slice(&name.ip.as_v4().unwrap_or_default());
    (bytes, size_of::<sockaddr_in>())
}

/// Gives a program an address, as move_addr_to_user in net/socket.c: as much as there is room for, and the whole length.
///
/// # Safety
/// Both pointers are null or the caller's promise.
pub(crate) unsafe fn give(
    name: &Name,
    is_v6: bool,
    to: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<(), c_int> {
    if to.is_null() {
        return Ok(());
    }
    if !is_plausible(length) {
        return Err(libc::EFAULT);
    }
    let (bytes, len) = written(name, is_v6);
    // SAFETY: the caller's contract.
    unsafe {
        let room = length.read_unaligned();
        if (room as c_int) < 0 {
            return Err(libc::EINVAL);
        }
        let count = len.min(room as usize);
        if count > 0 && !is_plausible(to) {
            return Err(libc::EFAULT);
        }
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), count);
        length.write_unaligned(len as socklen_t);
    }
    Ok(())
}

/// The name that the kernel knows for a socket of IPv4 or IPv6, and whether it is of IPv6.
pub(crate) fn of_socket(fd: c_int) -> Option<(Name, bool)> {
    known(fd, false)
}

/// Its peer's.
pub(crate) fn of_peer(fd: c_int) -> Option<Name> {
    known(fd, true).map(|(name, _)| name)
}

fn known(fd: c_int, is_peer: bool) -> Option<(Name, bool)> {
    let mut bytes = [0u8; size_of::<sockaddr_in6>()];
    let len = driver::sys::socket_name(fd, is_peer, &mut bytes).ok()?;
    // SAFETY: the kernel has written so many bytes there.
    match unsafe { read(bytes.as_ptr().cast(), len as socklen_t) } {
        Read::Name(name) => {
            Some((name, c_int::from(u16::from_ne_bytes([bytes[0], bytes[1]])) == libc::AF_INET6))
        }
        Read::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (ip, is_v6) in
            [(Ip::v4([192, 0, 2, 7]), false), (Ip::v4([192, 0, 2, 7]), true), (Ip([9; 16]), true)]
        {
            let name = Name { ip, port: 4711, scope: 0 };
            let (bytes, len) = written(&name, is_v6);
            // SAFETY: a live array.
            let got = unsafe { read(bytes.as_ptr().cast(), len as socklen_t) };
            assert_eq!(got, Read::Name(name));
            // SAFETY: as above.
            assert_eq!(unsafe { read(bytes.as_ptr().cast(), 8) }, Read::Other);
        }
    }

    #[test]
    fn as_much_is_given_as_there_is_room_for() {
        let name = Name { ip: Ip::v4([192, 0, 2, 7]), port: 4711, scope: 0 };
        let (mut room, mut length) = ([0xffu8; 16], 6);
        // SAFETY: live values.
        let given = unsafe { give(&name, false, room.as_mut_ptr().cast(), &raw mut length) };
        assert_eq!((given, length, room[4], room[5], room[6]), (Ok(()), 16, 192, 0, 0xff));
        let mut negative = u32::MAX;
        // SAFETY: live values.
        let refused = unsafe { give(&name, false, room.as_mut_ptr().cast(), &raw mut negative) };
        assert_eq!(refused, Err(libc::EINVAL));
    }
}
