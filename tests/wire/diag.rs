//! The state of one of the kernel's sockets, also of one that no program has any more: asked of inet_diag(7) by its four-tuple,
//! in one message each way, where /proc/net/tcp is a walk over the kernel's whole table.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use stack::tcp::state::State;

use super::sys;

/// linux/netlink.h: a request; an answer that is an error; bytes of each message's header.
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
/// linux/sock_diag.h, linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NETLINK_SOCK_DIAG: i32 = 4;
/// Bytes of a request: the header, four bytes and a mask of states, and an inet_diag_sockid.
const REQUEST: usize = HEADER + 8 + 48;

/// A socket that asks about those of the namespace in which it was made.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// One of the calling thread's namespace.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel has no sock_diag.
    pub fn new() -> io::Result<Self> {
        sys::netlink_socket(NETLINK_SOCK_DIAG).map(Self)
    }

    /// The state of the TCP socket that a segment between these two would find: a connection, or else a listener. CLOSED if there is none.
    ///
    /// # Errors
    /// Those of the kernel, but for ENOENT.
    pub fn state(&self, local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<State> {
        sys::send(self.0.as_fd(), &request(local, remote), 0)?;
        let mut answer = [0; 4096];
        let len = sys::receive(self.0.as_fd(), &mut answer, 0)?;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        if len > HEADER + 4 && kind == NLMSG_ERROR {
            let at = |index: usize| answer[HEADER + index];
            return match -i32::from_ne_bytes([at(0), at(1), at(2), at(3)]) {
                libc::ENOENT => Ok(State::Closed),
                error => Err(io::Error::from_raw_os_error(error)),
            };
        }
        // inet_diag_msg: the family, then the state.
        let state = answer[HEADER + 1];
        let known = State::ALL.into_iter().find(|one| one.as_linux() == state);
        known.filter(|_| len > HEADER + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// An inet_diag_req_v2 in its message (linux/inet_diag.h).
fn request(local: SocketAddrV4, remote: SocketAddrV4) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(REQUEST);
    bytes.extend((REQUEST as u32).to_ne_bytes());
    bytes.extend([SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes());
    bytes.extend([local.port(), remote.port()].map(u16::to_be_bytes).concat());
    let address = |ip: &Ipv4Addr| [&ip.octets()[..], &[0; 12]].concat();
    bytes.extend([address(local.ip()), address(remote.ip())].concat());
    // Any interface, and whatever its cookie is.
    bytes.extend([0; 4]);
    bytes.extend([0xff; 8]);
    bytes
}
