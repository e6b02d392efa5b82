//! The kernel's view of sockets: /proc/PID/fd for the numbers, /proc/PID/net for what they are.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the kernel says of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// `tcp`, `tcp6`, `udp`, `unix`, …
    pub protocol: &'static str,
    /// Own address, for Internet sockets.
    pub local: Option<SocketAddr>,
    /// The peer's address, for connected Internet sockets.
    pub remote: Option<SocketAddr>,
    /// The TCP state, e.g. `FIN-WAIT-1`.
    pub state: &'static str,
}

impl Socket {
    /// Whether it is a TCP socket.
    pub(crate) fn is_tcp(&self) -> bool {
        self.protocol.starts_with("tcp")
    }
}

/// Sockets by inode number.
pub(crate) type Table = HashMap<u64, Socket>;

const STATES: [&str; 13] = [
    "",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECEIVED",
];

/// The sockets of a process: descriptor number and inode, in order of the numbers.
pub(crate) fn descriptors(pid: i32) -> io::Result<Vec<(i32, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(entry) = entry else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let inode = fs::read_link(entry.path()).ok().and_then(|link| socket_inode(&link.to_string_lossy()));
        found.extend(number.zip(inode));
    }
    found.sort_unstable();
    Ok(found)
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Every socket in the network namespace of a process.
pub(crate) fn table(pid: i32) -> Table {
    let mut table = Table::new();
    for (protocol, address_length) in
        [("tcp", 8), ("tcp6", 32), ("udp", 8), ("udp6", 32), ("raw", 8), ("raw6", 32)]
    {
        let text = read(pid, protocol);
        table.extend(text.lines().skip(1).filter_map(|line| internet(protocol, address_length, line)));
    }
    for (protocol, column) in [("unix", 6), ("netlink", 9), ("packet", 8)] {
        let text = read(pid, protocol);
        let inodes =
            text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(column)?.parse().ok());
        table.extend(inodes.map(|inode| (inode, Socket { protocol, local: None, remote: None, state: "" })));
    }
    table
}

fn read(pid: i32, protocol: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/net/{protocol}")).unwrap_or_default()
}

/// `sl local remote state tx:rx timer retransmits uid timeout inode …`
fn internet(protocol: &'static str, address_length: usize, line: &str) -> Option<(u64, Socket)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let inode = fields.get(9)?.parse().ok()?;
    let local = address(fields.get(1)?, address_length)?;
    let remote = address(fields.get(2)?, address_length)?;
    let number = usize::from_str_radix(fields.get(3)?, 16).ok()?;
    let state = if protocol.starts_with("tcp") { STATES.get(number).copied().unwrap_or("") } else { "" };
    let remote = (remote.port() != 0).then_some(remote);
    Some((inode, Socket { protocol, local: Some(local), remote, state }))
}

/// Hexadecimal words in host order, a colon, the port.
fn address(text: &str, address_length: usize) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    if address.len() != address_length || !address.is_ascii() {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for start in (0..address_length).step_by(8) {
        bytes.extend(u32::from_str_radix(&address[start..start + 8], 16).ok()?.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    fn find(fd: i32) -> Socket {
        let pid = i32::try_from(std::process::id()).unwrap();
        let inode = descriptors(pid).unwrap().into_iter().find(|(number, _)| *number == fd).unwrap().1;
        table(pid)[&inode].clone()
    }

    #[test]
    fn own_sockets_are_found_with_addresses_and_states() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let found = find(client.as_raw_fd());
            assert_eq!(found.local, Some(client.local_addr().unwrap()));
            assert_eq!(found.remote, Some(listener.local_addr().unwrap()));
            assert_eq!((found.state, found.is_tcp()), ("ESTABLISHED", true));
            let found = find(listener.as_raw_fd());
            assert_eq!((found.state, found.remote), ("LISTEN", None));
        }
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(find(datagrams.as_raw_fd()).protocol, "udp");
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(find(end.as_raw_fd()).protocol, "unix");
    }

    #[test]
    fn damaged_lines_are_skipped() {
        assert_eq!(internet("tcp", 8, ""), None);
        assert_eq!(internet("tcp", 8, "0: 0100007F 0:0 01 0 0 0 0 0 5"), None);
        assert_eq!(address("0100007F:zz", 8), None);
        assert_eq!(address("äää7F:00", 8), None);
        assert_eq!(socket_inode("pipe:[3]"), None);
        assert_eq!(socket_inode("socket:[3]"), Some(3));
    }
}
