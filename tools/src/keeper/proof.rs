//! Whether who asks for a port has a right to it: a socket of its own that the kernel has bound there.
//!
//! The kernel has decided then: who may bind ports below 1024, and that nobody else has the port. The keeper holds the socket as
//! long as the claim, so it stays decided.

use driver::keeper::message::{Port, Reason};
use driver::steering::Protocol;
use driver::sys::{self, Errno, Fd};
use stack::wire::ip::Ip;

use super::claims::{Cover, No};

/// The network namespace that a socket is in, as a number that is never used again (Linux 5.14).
const SO_NETNS_COOKIE: i32 = 71;
/// The interface that a socket is bound to; 0 is none (Linux 5.0).
const SO_BINDTOIFINDEX: i32 = 62;
// TCP's states that a socket without a connection is in (net/tcp_states.h).
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

fn option<T: Copy>(socket: &Fd, level: i32, name: i32, mut value: T) -> sys::Result<T> {
    sys::getsockopt(socket.raw(), level, name, &mut value).map(|_| value)
}

/// The network namespace of a socket.
pub(super) fn namespace(socket: &Fd) -> sys::Result<u64> {
    option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE, 0u64)
}

/// Where a socket is bound: address and port.
fn name(socket: &Fd) -> sys::Result<(Ip, u16)> {
    let mut bytes = [0u8; 28];
    sys::socket_name(socket.raw(), false, &mut bytes)?;
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
        libc::AF_INET => Ok((Ip::v4([bytes[4], bytes[5], bytes[6], bytes[7]]), port)),
        libc::AF_INET6 => {
            let mut ip = [0; 16];
            ip.copy_from_slice(&bytes[8..24]);
            Ok((Ip(ip), port))
        }
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}

/// Which addresses a socket's bind is for, if it is a bind to that port in this network namespace, and not to another interface.
pub(super) fn check(socket: &Fd, port: &Port, interface: u32, netns: u64) -> Result<Cover, No> {
    let number = match port.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    let no_socket = |_: Errno| (Reason::NoSocket, 0);
    if option(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0).map_err(no_socket)? != number {
        return Err((Reason::NoSocket, 0));
    }
    let kernel = |Errno(errno): Errno| (Reason::Kernel, errno as u32);
    let device = option(socket, libc::SOL_SOCKET, SO_BINDTOIFINDEX, 0u32).map_err(kernel)?;
    if namespace(socket).map_err(kernel)? != netns || (device != 0 && device != interface) {
        return Err((Reason::OtherNetwork, 0));
    }
    if name(socket).map_err(no_socket)? != (port.local, port.number) {
        return Err((Reason::NotBound, 0));
    }
    if port.protocol == Protocol::Tcp {
        check_alone(socket)?;
    }
    if port.local == Ip::UNSPECIFIED {
        let is_only = option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0).map_err(kernel)? != 0;
        return Ok(if is_only { Cover::V6 } else { Cover::Both });
    }
    Ok(if port.local == Ip::UNSPECIFIED_V4 { Cover::V4 } else { Cover::One(port.local) })
}

/// It is a TCP socket of this network namespace that has no connection and does not listen: one that can become a connection.
pub(super) fn check_fresh(socket: &Fd, netns: u64) -> Result<(), No> {
    let no_socket = |_: Errno| (Reason::NoSocket, 0);
    let kernel = |Errno(errno): Errno| (Reason::Kernel, errno as u32);
    if option(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL, 0).map_err(no_socket)? != libc::IPPROTO_TCP {
        return Err((Reason::NoSocket, 0));
    }
    if namespace(socket).map_err(kernel)? != netns {
        return Err((Reason::OtherNetwork, 0));
    }
    match option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, [0u8; 8]).map_err(kernel)?[0] {
        TCP_CLOSE => Ok(()),
        _ => Err((Reason::NoSocket, 0)),
    }
}

/// What is the same for all descriptors of a socket, and of no other one (SO_COOKIE).
pub(super) fn cookie(socket: &Fd) -> Option<u64> {
    option(socket, libc::SOL_SOCKET, libc::SO_COOKIE, 0u64).ok()
}

/// Nobody else can bind this TCP socket's port: it listens, or was bound without SO_REUSEADDR. A connection's port is not its own:
/// others may have connections from there.
fn check_alone(socket: &Fd) -> Result<(), No> {
    let kernel = |Errno(errno): Errno| (Reason::Kernel, errno as u32);
    let state = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, [0u8; 8]).map_err(kernel)?[0];
    let shares = option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0).map_err(kernel)? != 0;
    match state {
        TCP_LISTEN => Ok(()),
        TCP_CLOSE if !shares => Ok(()),
        TCP_CLOSE => Err((Reason::Shared, 0)),
        _ => Err((Reason::NotBound, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsRawFd, IntoRawFd};

    fn port(protocol: Protocol, local: Ip, number: u16) -> Port {
        Port { protocol, local, number }
    }

    /// A socket that is bound and does not listen.
    fn bound(shares: bool) -> (Fd, u16) {
        let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        sys::setsockopt(socket.raw(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &i32::from(shares)).unwrap();
        let mut address = [0; 16];
        address[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        address[4..8].copy_from_slice(&[127, 0, 0, 1]);
        sys::bind(&socket, &address).unwrap();
        let number = name(&socket).unwrap().1;
        (socket, number)
    }

    #[test]
    fn a_bind_says_which_addresses_it_is_for() {
        let loopback = Ip::v4([127, 0, 0, 1]);
        for (text, local, cover) in [
            ("0.0.0.0:0", Ip::UNSPECIFIED_V4, Cover::V4),
            ("[::]:0", Ip::UNSPECIFIED, Cover::Both),
            ("127.0.0.1:0", loopback, Cover::One(loopback)),
            ("[::ffff:127.0.0.1]:0", loopback, Cover::One(loopback)),
        ] {
            let listener = TcpListener::bind(text).unwrap();
            let number = listener.local_addr().unwrap().port();
            let socket = Fd::own(listener.into_raw_fd());
            let netns = namespace(&socket).unwrap();
            assert_eq!(check(&socket, &port(Protocol::Tcp, local, number), 1, netns), Ok(cover), "{text}");
            let refused = |port: Port| check(&socket, &port, 1, netns).unwrap_err().0;
            assert_eq!(refused(port(Protocol::Tcp, local, number ^ 1)), Reason::NotBound);
            assert_eq!(refused(port(Protocol::Tcp, Ip::v4([127, 0, 0, 2]), number)), Reason::NotBound);
            assert_eq!(refused(port(Protocol::Udp, local, number)), Reason::NoSocket);
            let elsewhere = check(&socket, &port(Protocol::Tcp, local, number), 1, netns + 1);
            assert_eq!(elsewhere, Err((Reason::OtherNetwork, 0)));
        }
    }

    #[test]
    fn who_shares_a_port_does_not_claim_it() {
        let loopback = Ip::v4([127, 0, 0, 1]);
        let (alone, number) = bound(false);
        let netns = namespace(&alone).unwrap();
        assert!(check(&alone, &port(Protocol::Tcp, loopback, number), 1, netns).is_ok());
        let (shared, number) = bound(true);
        let claim = |socket: &Fd| check(socket, &port(Protocol::Tcp, loopback, number), 1, netns);
        assert_eq!(claim(&shared), Err((Reason::Shared, 0)));
        sys::listen(&shared, 1).unwrap();
        assert_eq!(claim(&shared), Ok(Cover::One(loopback)));
        // A connection's own port.
        let client = TcpStream::connect(("127.0.0.1", number)).unwrap();
        let number = client.local_addr().unwrap().port();
        let client = Fd::own(client.into_raw_fd());
        let claimed = check(&client, &port(Protocol::Tcp, loopback, number), 1, netns);
        assert_eq!(claimed, Err((Reason::NotBound, 0)));
    }

    #[test]
    fn other_things_are_no_sockets() {
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = datagrams.local_addr().unwrap().port();
        let loopback = Ip::v4([127, 0, 0, 1]);
        let datagrams = Fd::own(datagrams.into_raw_fd());
        let netns = namespace(&datagrams).unwrap();
        assert!(check(&datagrams, &port(Protocol::Udp, loopback, number), 1, netns).is_ok());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(file.as_raw_fd() >= 0);
        let file = Fd::own(file.into_raw_fd());
        let refused = check(&file, &port(Protocol::Udp, loopback, number), 1, netns);
        assert_eq!(refused, Err((Reason::NoSocket, 0)));
    }
}
