//! inet_diag: what the kernel knows of the TCP socket at the other end of a connection (sock_diag(7)).
//!
//! An exact query costs about 4 µs and needs no rights. The answer is the kernel's, so it cannot be forged:
//! that the other end exists in this network namespace at all, which user owns it, and its cookie.

use crate::sys::{self, Errno};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const TCP_ESTABLISHED_AND_CLOSING: u32 = (1 << 1) | (1 << 4) | (1 << 5) | (1 << 8);

/// `struct inet_diag_sockid` (linux/inet_diag.h); ports and addresses in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct SockId {
    sport: [u8; 2],
    dport: [u8; 2],
    src: [u8; 16],
    dst: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SockId,
}

/// `struct nlmsghdr` and `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SockId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

const _: () = assert!(size_of::<Request>() == 72 && size_of::<Answer>() == 88);

/// One end of a connection: address and port, IPv4 as IPv4-mapped when the socket is an IPv6 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// 4 bytes used for IPv4 (the rest zero), 16 for IPv6; network order.
    pub address: [u8; 16],
    /// Host order.
    pub port: u16,
}

/// What the kernel says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User that owns the socket, as seen from this user namespace.
    pub uid: u32,
    /// The socket's cookie (SO_COOKIE).
    pub cookie: u64,
    /// Its TCP state (1 is ESTABLISHED).
    pub state: u8,
    /// Bytes that arrived and that nobody has read; a FIN that arrived is one more.
    pub unread: u32,
}

/// Asks for the TCP socket of this network namespace whose own end is `local` and whose peer is `remote`.
///
/// # Errors
/// `ENOENT` when there is none here; others when the kernel lacks or forbids inet_diag.
pub fn owner_of(family: u8, local: &Endpoint, remote: &Endpoint) -> sys::Result<Owner> {
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)?;
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: NLM_F_REQUEST,
        sequence: 1,
        port: 0,
        family,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: 0,
        pad: 0,
        states: TCP_ESTABLISHED_AND_CLOSING,
        id: SockId {
            sport: local.port.to_be_bytes(),
            dport: remote.port.to_be_bytes(),
            src: local.address,
            dst: remote.address,
            interface: 0,
            cookie: [u32::MAX; 2],
        },
    };
    // SAFETY: `request` is a plain struct of this size.
    unsafe { sys::send(socket.raw(), (&raw const request).cast(), size_of::<Request>(), 0)? };
    let mut buffer = [0u64; 128];
    // SAFETY: the buffer is writable for its size.
    let count = unsafe {
        sys::recv(socket.raw(), buffer.as_mut_ptr().cast(), size_of_val(&buffer), libc::MSG_DONTWAIT)?
    };
    read_answer(&buffer, count)
}

fn read_answer(buffer: &[u64; 128], count: usize) -> sys::Result<Owner> {
    // SAFETY: the buffer is larger than an Answer, 8-byte aligned, and any bytes are a valid one.
    let answer: Answer = unsafe { buffer.as_ptr().cast::<Answer>().read() };
    if count >= 20 && answer.kind == libc::NLMSG_ERROR as u16 {
        // nlmsgerr: the (negative) error number follows the header.
        let error = (buffer[2] & 0xffff_ffff) as u32 as i32;
        return Err(Errno(-error));
    }
    if count < size_of::<Answer>() || answer.kind != SOCK_DIAG_BY_FAMILY {
        return Err(Errno(libc::EPROTO));
    }
    let [low, high] = answer.id.cookie;
    Ok(Owner {
        uid: answer.uid,
        cookie: u64::from(low) | u64::from(high) << 32,
        state: answer.state,
        unread: answer.receive_queue,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn endpoint(address: SocketAddr) -> Endpoint {
        let mut bytes = [0; 16];
        match address {
            SocketAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.ip().octets()),
            SocketAddr::V6(v6) => bytes = v6.ip().octets(),
        }
        Endpoint { address: bytes, port: address.port() }
    }

    #[test]
    fn the_other_end_of_a_loopback_connection_is_found_with_its_cookie() {
        for (bind, family) in [("127.0.0.1:0", libc::AF_INET), ("[::1]:0", libc::AF_INET6)] {
            let listener = TcpListener::bind(bind).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let local = endpoint(client.local_addr().unwrap());
            let remote = endpoint(client.peer_addr().unwrap());
            let owner = owner_of(family as u8, &remote, &local).unwrap();
            let mut cookie = 0u64;
            sys::getsockopt(server.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie).unwrap();
            assert_eq!(owner, Owner { uid: sys::geteuid(), cookie, state: 1, unread: 0 });
            (&client).write_all(b"12345").unwrap();
            assert_eq!(owner_of(family as u8, &remote, &local).unwrap().unread, 5);
        }
    }

    #[test]
    fn a_connection_that_does_not_exist_is_enoent() {
        let nobody = Endpoint { address: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], port: 1 };
        assert_eq!(owner_of(libc::AF_INET as u8, &nobody, &nobody), Err(Errno(libc::ENOENT)));
    }
}
