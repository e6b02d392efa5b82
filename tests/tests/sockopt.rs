//! Options of sockets, held against the kernel's: the same numbers and bytes are given to a socket of the kernel and to one of
//! the stack; both must say the same, and read back the same.

use Protocol::{Tcp, Udp};
use harness::sim::port::Setup;
use harness::sim::tcp::{TcpHost, limits};
use harness::sim::{Node, Simulation};
use stack::host::HOST;
use stack::options::What;
use stack::options::left::{LEFT, Verdict, left};
use stack::region::slab::Handle;
use stack::settings::Timestamping;
use stack::tcp::info::Info;

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// All options of its sockets.
    fn names(self) -> Vec<What> {
        match self {
            Tcp => stack::tcp::options::names().collect(),
            Udp => stack::udp::options::names().collect(),
        }
    }

    /// Its options whose values are compared with the kernel's by number.
    fn compared(self) -> Vec<What> {
        self.names().into_iter().filter(|what| !APART.contains(&what.name)).collect()
    }
}

/// A fresh socket of the kernel.
struct Socket(i32);

impl Socket {
    fn new(protocol: Protocol, is_v6: bool) -> Self {
        let domain = if is_v6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = if protocol == Tcp { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
        // SAFETY: plain numbers.
        let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        let socket = Self(fd);
        if protocol == Tcp {
            // Whatever this machine's default is.
            assert_eq!(socket.set(libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic"), 0);
        }
        socket
    }

    fn set(&self, level: i32, name: i32, value: &[u8]) -> i32 {
        // SAFETY: the kernel reads so many bytes of the slice.
        let done =
            unsafe { libc::setsockopt(self.0, level, name, value.as_ptr().cast(), value.len() as u32) };
        if done == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
    }

    fn get(&self, level: i32, name: i32, room: usize) -> Result<Vec<u8>, i32> {
        let (mut bytes, mut len) = (vec![0; room], room as u32);
        // SAFETY: the kernel writes at most so many bytes to the vector, and their number to `len`.
        let done = unsafe { libc::getsockopt(self.0, level, name, bytes.as_mut_ptr().cast(), &raw mut len) };
        bytes.truncate(len as usize);
        if done == 0 { Ok(bytes) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this socket's.
        unsafe { libc::close(self.0) };
    }
}

/// A host with the values that this machine's administrator has set.
fn host() -> TcpHost {
    let mut host = TcpHost::new(1, &limits(1024));
    // As the loopback's is.
    host.parts().ip.interface.number = 1;
    let read = |path: String, at: usize| {
        let text = std::fs::read_to_string(path).ok()?;
        text.split_whitespace().nth(at)?.parse().ok()
    };
    for (name, ..) in HOST {
        let (file, at) = match *name {
            "somaxconn" | "rmem_max" | "wmem_max" | "rmem_default" | "wmem_default" => {
                (format!("core/{name}"), 0)
            }
            "tcp_rmem_default" => ("ipv4/tcp_rmem".into(), 1),
            "tcp_rmem_max" => ("ipv4/tcp_rmem".into(), 2),
            "tcp_wmem_default" => ("ipv4/tcp_wmem".into(), 1),
            _ => (format!("ipv4/{name}"), 0),
        };
        if let Some(value) = read(format!("/proc/sys/net/{file}"), at) {
            assert!(host.parts().host.set(name, value), "{name} = {value}");
        }
    }
    host
}

/// The same socket of the stack.
struct Ours {
    network: Simulation<TcpHost>,
    node: Node,
    protocol: Protocol,
    socket: Handle,
}

fn open(host: &mut TcpHost, protocol: Protocol, is_v6: bool) -> Handle {
    let mut parts = host.parts();
    let socket = match protocol {
        Tcp => parts.tcp_socket(is_v6, 0),
        Udp => parts.udp_socket(is_v6, 0),
    };
    socket.expect("room")
}

impl Ours {
    fn new(protocol: Protocol, is_v6: bool) -> Self {
        let mut network = Simulation::new(1);
        let node = network.add(host(), Setup::plain(1));
        let socket = open(network.host(node), protocol, is_v6);
        Self { network, node, protocol, socket }
    }

    fn set(&mut self, level: i32, name: i32, value: &[u8]) -> i32 {
        let (now, socket, protocol) = (self.network.now(), self.socket, self.protocol);
        let (host, port) = self.network.host_and_port(self.node);
        let done = host.with(now, port, |stack| match protocol {
            Tcp => stack.set_option(socket, level, name, value),
            Udp => stack.udp_set_option(socket, level, name, value),
        });
        done.map_or_else(|error| error.number(), |()| 0)
    }

    fn get(&mut self, level: i32, name: i32, room: usize) -> Result<Vec<u8>, i32> {
        let (now, socket, protocol) = (self.network.now(), self.socket, self.protocol);
        let (host, port) = self.network.host_and_port(self.node);
        let mut bytes = vec![0; room];
        let done = host.with(now, port, |stack| match protocol {
            Tcp => stack.option(socket, level, name, &mut bytes),
            Udp => stack.udp_option(socket, level, name, &mut bytes),
        });
        bytes.truncate(done.map_err(|error| error.number())?);
        Ok(bytes)
    }

    /// Everything is free again for the next socket.
    fn renew(&mut self, is_v6: bool) {
        let host = self.network.host(self.node);
        let done = match self.protocol {
            Tcp => host.parts().tcp_release(self.socket),
            Udp => host.parts().udp_release(self.socket),
        };
        done.expect("a socket");
        self.socket = open(host, self.protocol, is_v6);
    }
}

/// What only some may set, what the kernel changes by itself, what has no number for a value; times that the kernel counts in its own ticks.
const APART: &[&str] = &[
    "SO_MARK",
    "SO_SNDBUFFORCE",
    "SO_RCVBUFFORCE",
    "SO_PRIORITY",
    "TCP_INFO",
    "TCP_TIMESTAMP",
    "TCP_RTO_MAX_MS",
    "TCP_RTO_MIN_US",
    "IP_MULTICAST_IF",
    "IP_ADD_MEMBERSHIP",
    "IP_DROP_MEMBERSHIP",
    "IP_UNBLOCK_SOURCE",
    "IP_BLOCK_SOURCE",
    "IP_ADD_SOURCE_MEMBERSHIP",
    "IP_DROP_SOURCE_MEMBERSHIP",
    "IPV6_ADD_MEMBERSHIP",
    "IPV6_DROP_MEMBERSHIP",
];

/// Whether a number is one that is kept otherwise here: a rate of 0 is none for the kernel too, but it tells it as 0; an offset
/// that is negative is none, whatever it is.
fn differs(name: &str, value: i32) -> bool {
    if name == "SO_TIMESTAMPING" {
        // Times of sending are left to the kernel's sockets.
        let flags = value as u32;
        return flags & !Timestamping::ALL == 0 && flags & Timestamping::SENT != 0;
    }
    if name == "IPV6_MULTICAST_IF" {
        // The kernel may have more interfaces than its loopback, which has this number.
        return (2..=256).contains(&value);
    }
    name == "SO_MAX_PACING_RATE" && value == 0 || name == "SO_PEEK_OFF" && value < -1
}

/// Values on both sides of every bound.
const VALUES: &[i32] = &[
    0,
    1,
    -1,
    2,
    3,
    4,
    5,
    6,
    7,
    16,
    64,
    87,
    88,
    100,
    119,
    120,
    121,
    126,
    127,
    128,
    184,
    254,
    255,
    256,
    536,
    1151,
    1152,
    2303,
    2304,
    4607,
    4608,
    9000,
    32_767,
    32_768,
    65_535,
    65_536,
    212_992,
    1 << 20,
    1 << 22,
    5 << 20,
    1 << 28,
    i32::MAX,
    i32::MIN,
];

#[test]
fn numbers_are_taken_and_read_back_as_the_kernel_has_them() {
    let mut compared = 0;
    for (protocol, is_v6) in [(Tcp, false), (Tcp, true), (Udp, false), (Udp, true)] {
        let mut ours = Ours::new(protocol, is_v6);
        for what in protocol.compared() {
            for value in VALUES.iter().filter(|value| !differs(what.name, **value)) {
                let at = format!("{} of {protocol:?}, {value}, IPv6 {is_v6}", what.name);
                let theirs = Socket::new(protocol, is_v6);
                let bytes = value.to_ne_bytes();
                let said = ours.set(what.level, what.number, &bytes);
                assert_eq!(theirs.set(what.level, what.number, &bytes), said, "setsockopt: {at}");
                let read = ours.get(what.level, what.number, 4);
                assert_eq!(theirs.get(what.level, what.number, 4), read, "getsockopt: {at}");
                compared += 1;
                ours.renew(is_v6);
            }
        }
    }
    assert!(compared > 8000, "{compared}");
}

#[test]
fn short_and_long_values_are_taken_as_the_kernel_takes_them() {
    let bytes = [1, 0, 0, 0, 3, 0, 0, 0, 0x40, 0x1f, 0, 0, 0, 0, 0, 0];
    for protocol in [Tcp, Udp] {
        for (what, len) in
            protocol.compared().into_iter().flat_map(|what| [0, 1, 2, 3, 8, 16].map(|len| (what, len)))
        {
            let at = format!("{} of {protocol:?}, {len} bytes", what.name);
            let (mut ours, theirs) = (Ours::new(protocol, true), Socket::new(protocol, true));
            let said = ours.set(what.level, what.number, &bytes[..len]);
            assert_eq!(theirs.set(what.level, what.number, &bytes[..len]), said, "setsockopt: {at}");
            for room in [0, 1, 3, 8, 16, 24] {
                let read = ours.get(what.level, what.number, room);
                assert_eq!(theirs.get(what.level, what.number, room), read, "getsockopt: {at} into {room}");
            }
        }
    }
}

#[test]
fn times_and_names_are_the_kernels() {
    let time = |seconds: i64, micros: i64| [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat();
    let linger = |on: i32, seconds: i32| [on.to_ne_bytes(), seconds.to_ne_bytes()].concat();
    let (socket, tcp) = (libc::SOL_SOCKET, libc::IPPROTO_TCP);
    let cases: Vec<(i32, i32, Vec<u8>)> = vec![
        (socket, libc::SO_RCVTIMEO, time(1, 500_000)),
        (socket, libc::SO_RCVTIMEO, time(0, 0)),
        (socket, libc::SO_SNDTIMEO, time(3600, 0)),
        (socket, libc::SO_SNDTIMEO, time(0, 1_000_000)),
        (socket, libc::SO_SNDTIMEO, time(0, -1)),
        (socket, libc::SO_SNDTIMEO, time(i64::MAX, 0)),
        (socket, libc::SO_LINGER, linger(1, 5)),
        (socket, libc::SO_LINGER, linger(0, 5)),
        (socket, libc::SO_LINGER, linger(1, 0)),
        (socket, libc::SO_MAX_PACING_RATE, 5_000_000_000u64.to_ne_bytes().to_vec()),
        (socket, libc::SO_MAX_PACING_RATE, u64::MAX.to_ne_bytes().to_vec()),
        (tcp, libc::TCP_CONGESTION, b"reno".to_vec()),
        (tcp, libc::TCP_CONGESTION, b"cubic\0".to_vec()),
        (tcp, libc::TCP_CONGESTION, b"reno\0rubbish".to_vec()),
        (tcp, libc::TCP_CONGESTION, b"nothing".to_vec()),
        (tcp, libc::TCP_CONGESTION, Vec::new()),
        (tcp, 999, vec![0; 4]),
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, vec![0; 4]),
        (77, 1, vec![0; 4]),
    ];
    for (level, name, value) in cases {
        let (mut ours, theirs) = (Ours::new(Tcp, false), Socket::new(Tcp, false));
        let said = (theirs.set(level, name, &value), ours.set(level, name, &value));
        assert_eq!(said.0, said.1, "{level} {name} {value:?}");
        for room in [4, 8, 16, 20] {
            let (kernel, stack) = (theirs.get(level, name, room), ours.get(level, name, room));
            assert_eq!(kernel, stack, "{level} {name} {value:?} into {room}");
        }
    }
}

/// What is neither here nor in the table of options that are left to the kernel is nothing to the kernel, and nothing is in both.
#[test]
fn what_the_kernel_has_and_we_have_not_is_known() {
    // Those that the stack has in part.
    const BOTH: [&str; 1] = ["SO_TIMESTAMPING"];
    // Tables of firewalls are set by numbers from here on (IPT_SO_SET_REPLACE), and of UDP's level by those of others.
    let levels = [(libc::SOL_SOCKET, 90), (libc::IPPROTO_IP, 64), (libc::IPPROTO_IPV6, 99)];
    let mut asked = 0;
    for (protocol, number) in [(Tcp, libc::IPPROTO_TCP), (Udp, libc::IPPROTO_UDP)] {
        let ours = protocol.names();
        let is_ours = |level, name| ours.iter().any(|what| (what.level, what.number) == (level, name));
        for (level, end) in levels.into_iter().chain([(number, 120)]) {
            for name in (0..end).filter(|name| level != libc::IPPROTO_IPV6 || ![64, 65].contains(name)) {
                let said = Socket::new(protocol, true).set(level, name, &1i32.to_ne_bytes());
                let is_known = ![libc::ENOPROTOOPT, libc::EOPNOTSUPP].contains(&said);
                let left = left(number, level, name);
                let at = format!("{name} of level {level} of {protocol:?}: the kernel says {said}");
                assert!(!is_known || is_ours(level, name) || left.is_some(), "no row: {at}");
                let is_both = left.is_some_and(|left| BOTH.contains(&left.what.name));
                assert!(!is_ours(level, name) || left.is_none() || is_both, "two rows: {at}");
                asked += usize::from(is_known);
            }
        }
    }
    assert!(asked > 180, "{asked}");
    assert_eq!(
        left(libc::IPPROTO_TCP, libc::IPPROTO_TCP, 19).map(|left| left.verdict),
        Some(Verdict::Kernel)
    );
    assert_eq!(left(libc::IPPROTO_UDP, libc::IPPROTO_TCP, 19).map(|left| left.verdict), None);
    assert!(LEFT.iter().all(|left| left.is_of(libc::IPPROTO_TCP) || left.is_of(libc::IPPROTO_UDP)));
}

/// The numbers of the table are those of the C library's headers.
#[test]
fn the_structure_of_tcp_info_is_the_kernels() {
    let theirs = Socket::new(Tcp, false);
    let bytes = theirs.get(libc::IPPROTO_TCP, libc::TCP_INFO, 512).expect("a socket");
    assert!(bytes.len() >= size_of::<Info>() || bytes.len() >= 232, "{} bytes", bytes.len());
    let mut ours = Ours::new(Tcp, false);
    let mine = ours.get(libc::IPPROTO_TCP, libc::TCP_INFO, 512).expect("a socket");
    assert_eq!(mine.len(), size_of::<Info>());
    // Of a socket that is closed: its state, and what it would begin with.
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"));
    for (name, at) in
        [("state", 0), ("rto", 8), ("snd_mss", 16), ("unacked", 24), ("reordering", 88), ("min_rtt", 148)]
    {
        assert_eq!(word(&bytes, at), word(&mine, at), "tcpi_{name}");
    }
    assert_eq!(ours.get(libc::IPPROTO_TCP, libc::TCP_INFO, 10).map(|bytes| bytes.len()), Ok(10));
}

/// What has an address for a value: the kernel's interface is its loopback, ours is 10.0.0.1.
#[test]
fn groups_are_joined_and_left_as_in_the_kernel() {
    let (ours_at, theirs_at, nobodys) = ([10, 0, 0, 1], [127, 0, 0, 1], [203, 0, 113, 9]);
    // Option, group, interface (1 is the own one, 2 one that there isn't), source.
    let steps: &[(i32, [u8; 4], u8, Option<u8>)] = &[
        (36, [239, 1, 2, 3], 1, None),
        (35, [10, 1, 2, 3], 1, None),
        (35, [239, 1, 2, 3], 2, None),
        (35, [239, 1, 2, 3], 1, None),
        (35, [239, 1, 2, 3], 1, None),
        (37, [239, 1, 2, 3], 1, Some(1)),
        (38, [239, 1, 2, 3], 1, Some(1)),
        (38, [239, 1, 2, 3], 1, Some(1)),
        (39, [239, 1, 2, 3], 1, Some(2)),
        (37, [239, 1, 2, 3], 1, Some(1)),
        (39, [239, 1, 2, 3], 1, Some(2)),
        (36, [239, 1, 2, 3], 1, None),
        (39, [239, 1, 2, 4], 1, Some(1)),
        (39, [239, 1, 2, 4], 1, Some(2)),
        (39, [239, 1, 2, 4], 1, Some(2)),
        (35, [239, 1, 2, 4], 1, None),
        (38, [239, 1, 2, 4], 1, Some(2)),
        (40, [239, 1, 2, 4], 1, Some(3)),
        (40, [239, 1, 2, 4], 1, Some(2)),
        (40, [239, 1, 2, 4], 1, Some(1)),
        (40, [239, 1, 2, 4], 1, Some(1)),
        (36, [239, 1, 2, 4], 1, None),
        (32, [0; 4], 1, None),
        (32, [0; 4], 2, None),
    ];
    let (mut ours, theirs) = (Ours::new(Udp, false), Socket::new(Udp, false));
    for (at, (name, group, interface, source)) in steps.iter().enumerate() {
        let value = |own: [u8; 4]| {
            let interface = if *interface == 1 { own } else { nobodys };
            let source = source.map(|last| [198, 51, 100, last]);
            match (name, source) {
                (32, _) => interface.to_vec(),
                (_, Some(source)) => [*group, interface, source].concat(),
                (_, None) => [*group, interface].concat(),
            }
        };
        let said = (theirs.set(0, *name, &value(theirs_at)), ours.set(0, *name, &value(ours_at)));
        assert_eq!(said.0, said.1, "step {at}: {name} {group:?} {source:?}");
    }
    for number in 0..25 {
        let value = |own: [u8; 4]| [[239, 7, 7, number], own].concat();
        let said = (theirs.set(0, 35, &value(theirs_at)), ours.set(0, 35, &value(ours_at)));
        assert_eq!(said.0, said.1, "group {number}");
    }
}
