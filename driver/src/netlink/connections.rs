//! TCP connections that the kernel has at a port: SOCK_DIAG_BY_FAMILY of sock_diag(7).

use stack::wire::ip::Ip;

use super::Netlink;
use crate::steering::{Connection, Protocol};
use crate::sys;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct inet_diag_req_v2`, and of what `struct inet_diag_msg` has before and in its `inet_diag_sockid`
/// (linux/inet_diag.h).
const REQUEST: usize = 56;
const BEFORE: usize = 4;
/// Every state but CLOSE and LISTEN (net/tcp_states.h): half-open and in TIME-WAIT, too.
const CONNECTED: u32 = 0x1ffe & !(1 << 7) & !(1 << 10);

/// The connection in an answer.
fn parse(body: &[u8]) -> Option<Connection> {
    let is_v6 = i32::from(*body.first()?) == libc::AF_INET6;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let ip = |at: usize| {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(if is_v6 { Ip(bytes) } else { Ip::v4([bytes[0], bytes[1], bytes[2], bytes[3]]) })
    };
    Some(Connection {
        local: (ip(BEFORE + 4)?, port(BEFORE)?),
        remote: (ip(BEFORE + 20)?, port(BEFORE + 2)?),
        protocol: Protocol::Tcp,
    })
}

/// The kernel's connections of this network namespace whose own end has this port. The socket is one to NETLINK_SOCK_DIAG.
///
/// # Errors
/// ENOENT where the kernel has no tcp_diag; what the kernel says.
pub fn at_port(netlink: &mut Netlink, port: u16) -> sys::Result<Vec<Connection>> {
    let mut found: Vec<Connection> = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0; REQUEST];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&CONNECTED.to_ne_bytes());
        request[8..10].copy_from_slice(&port.to_be_bytes());
        let table = netlink.table(SOCK_DIAG_BY_FAMILY, &request, usize::MAX, |_, body| {
            parse(body).filter(|connection| connection.local.1 == port)
        })?;
        for connection in table.rows {
            if !found.contains(&connection) {
                found.push(connection);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_are_found_by_their_own_port() {
        for (bind, ip) in [("127.0.0.1:0", Ip::v4([127, 0, 0, 1])), ("[::1]:0", Ip(1u128.to_be_bytes()))] {
            let listener = TcpListener::bind(bind).expect("a listener");
            let port = listener.local_addr().expect("its address").port();
            let mut netlink = Netlink::to(libc::NETLINK_SOCK_DIAG, 0).expect("sock_diag");
            assert_eq!(at_port(&mut netlink, port), Ok(Vec::new()), "a listener is no connection");
            let client =
                TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
            let from = client.local_addr().expect("its address").port();
            let expected = Connection { local: (ip, port), remote: (ip, from), protocol: Protocol::Tcp };
            assert_eq!(at_port(&mut netlink, port), Ok(vec![expected]));
        }
    }
}
