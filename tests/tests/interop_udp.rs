//! UDP of our stack against the Linux kernel's, over a TUN device, in both versions.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;

use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::ours::Ours;
use harness::wire::sys;
use harness::wire::tun::NAME;
use harness::wire::world::{KERNEL, OURS, PORT, Recipe, World, address};
use stack::error::Error;
use stack::events::FAILED;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::time::Duration;
use stack::udp::receive::Datagram;
use stack::udp::send::Sending;
use stack::wire::ip::Ip;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 9, 8, 7);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0x9, 0x87);

/// Runs a row over both versions, each in a world of its own, whose region must be whole at the end.
fn each(row: impl Fn(&mut World, bool)) {
    for is_v6 in [false, true] {
        let Some(mut world) = World::new(&Recipe::default()) else { return };
        println!("IPv6: {is_v6}");
        row(&mut world, is_v6);
        world.ours.host.check();
    }
}

fn kernel_ip(is_v6: bool) -> Ip {
    if is_v6 { ip6(KERNEL) } else { ip(KERNEL) }
}

/// A socket of the kernel's at a port of its address, which waits for ten seconds at most.
fn kernel_socket(world: &World, is_v6: bool, port: u16) -> UdpSocket {
    let at = SocketAddr::new(address(KERNEL, is_v6), port);
    let socket = world.namespace.inside(move || UdpSocket::bind(at)).expect("a socket of the kernel's");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a socket");
    socket
}

/// A socket of ours, at a port of any address or none.
fn open(ours: &mut Ours, is_v6: bool, port: u16) -> Handle {
    ours.with(|stack| {
        let socket = stack.udp_open(is_v6, 0).expect("room");
        let any = if is_v6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 };
        if port != 0 {
            stack.parts.udp_bind(socket, (&any, port)).expect("a free port");
        }
        socket
    })
}

fn send_to(ours: &mut Ours, socket: Handle, to: (Ip, u16), data: &[u8]) -> Result<usize, Error> {
    let how = Sending { to: Some(to), ..Sending::default() };
    ours.wait("sending", |stack| stack.udp_send(socket, &[data], &how))
}

fn receive(ours: &mut Ours, socket: Handle) -> Result<(Datagram, Vec<u8>), Error> {
    let mut buffer = vec![0; 66_000];
    let got =
        ours.wait("a datagram", |stack| stack.udp_receive(socket, &mut [&mut buffer]))?.expect("no end");
    buffer.truncate(got.copied);
    Ok((got, buffer))
}

/// From none to the largest: with fragments, and without.
const SIZES: [usize; 12] = [0, 1, 7, 100, 1452, 1453, 1472, 1473, 2960, 9000, 30_000, 65_507];

#[test]
fn the_kernel_echoes_what_we_send() {
    each(|world, is_v6| {
        let kernel = kernel_socket(world, is_v6, PORT);
        let echo = thread::spawn(move || {
            let mut buffer = vec![0; 66_000];
            for _ in SIZES {
                let (len, from) = kernel.recv_from(&mut buffer).expect("a datagram");
                kernel.send_to(&buffer[..len], from).expect("the kernel sends");
            }
        });
        let socket = open(&mut world.ours, is_v6, 0);
        for (at, size) in SIZES.into_iter().enumerate() {
            let data = text(at as u64, size);
            assert_eq!(send_to(&mut world.ours, socket, (kernel_ip(is_v6), PORT), &data), Ok(size), "{size}");
            let (got, bytes) = receive(&mut world.ours, socket).expect("the echo");
            assert!(bytes == data && got.source == (kernel_ip(is_v6), PORT), "{size}");
            assert_eq!((got.ttl, got.tos), (64, 0));
        }
        world.ours.join(echo);
        world.ours.with(|stack| stack.udp_close(socket)).expect("a socket");
    });
}

#[test]
fn we_echo_what_the_kernel_sends() {
    each(|world, is_v6| {
        let socket = open(&mut world.ours, is_v6, PORT);
        let (kernel, to) = (kernel_socket(world, is_v6, 0), SocketAddr::new(address(OURS, is_v6), PORT));
        let asks = thread::spawn(move || {
            let mut buffer = vec![0; 66_000];
            for (at, size) in SIZES.into_iter().enumerate() {
                let data = text(at as u64, size);
                assert_eq!(kernel.send_to(&data, to).expect("the kernel sends"), size);
                let (len, from) =
                    kernel.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{size}: {error}"));
                assert!(buffer[..len] == data && from == to, "{size}");
            }
        });
        for size in SIZES {
            let (got, bytes) = receive(&mut world.ours, socket).expect("a datagram");
            assert_eq!(bytes.len(), size);
            assert_eq!(send_to(&mut world.ours, socket, got.source, &bytes), Ok(size));
        }
        world.ours.join(asks);
    });
}

#[test]
fn a_closed_port_refuses_both_ways() {
    each(|world, is_v6| {
        let socket = open(&mut world.ours, is_v6, 0);
        let remote = kernel_ip(is_v6);
        world.ours.with(|stack| stack.udp_connect(socket, (&remote, 9))).expect("a way");
        let sent = world.ours.with(|stack| stack.udp_send(socket, &[b"hello"], &Sending::default()));
        assert_eq!(sent, Ok(5));
        assert_eq!(receive(&mut world.ours, socket).map(|_| ()), Err(Error::ConnectionRefused));
        let kernel = kernel_socket(world, is_v6, 0);
        let to = SocketAddr::new(address(OURS, is_v6), 9);
        let refused = thread::spawn(move || {
            kernel.connect(to).expect("a way");
            kernel.send(b"hello").expect("the kernel sends");
            kernel.recv(&mut [0; 10]).map_err(|error| error.kind())
        });
        assert_eq!(world.ours.join(refused), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn the_queue_of_errors_has_what_the_kernel_says() {
    each(|world, is_v6| {
        let socket = open(&mut world.ours, is_v6, 0);
        let options = if is_v6 { Switch::ERRORS_V6 } else { Switch::ERRORS };
        let values = Values { options, ..Values::default() };
        world.ours.with(|stack| stack.parts.set_udp_options(socket, &values)).expect("room");
        let data = text(1, 4000);
        send_to(&mut world.ours, socket, (kernel_ip(is_v6), 9), &data).expect("a way");
        let mut quoted = vec![0; 2000];
        let read = world.ours.wait("an error", |stack| {
            assert!(stack.udp_events(socket).ready & FAILED != 0 || stack.parts.udp(socket)?.error == 0);
            stack.udp_receive_error(socket, &mut [&mut quoted])
        });
        let read = read.expect("an error");
        let (origin, kind, code) = if is_v6 { (3, 1, 4) } else { (2, 3, 3) };
        assert_eq!((read.report.origin, read.report.kind, read.report.code), (origin, kind, code));
        assert_eq!((read.report.offender, read.report.destination), (kernel_ip(is_v6), kernel_ip(is_v6)));
        assert!(read.copied > 400 && quoted[..read.copied] == data[..read.copied], "{}", read.copied);
    });
}

#[test]
fn the_kernel_cuts_and_joins_segments_as_we_do() {
    const SEGMENT: i32 = 103;
    const GRO: i32 = 104;
    each(|world, is_v6| {
        let socket = open(&mut world.ours, is_v6, PORT);
        let values = Values { options: Switch::GRO, ..Values::default() };
        world.ours.with(|stack| stack.parts.set_udp_options(socket, &values)).expect("room");
        let kernel = kernel_socket(world, is_v6, PORT);
        for (name, value) in [(SEGMENT, 1000), (GRO, 1)] {
            sys::set_option(kernel.as_fd(), libc::IPPROTO_UDP, name, value).expect("an option");
        }
        let (data, to) = (text(3, 12_345), SocketAddr::new(address(OURS, is_v6), PORT));
        assert_eq!(kernel.send_to(&data, to).expect("the kernel sends"), 12_345);
        let (mut all, mut calls) = (Vec::new(), 0);
        while all.len() < data.len() {
            let (got, bytes) = receive(&mut world.ours, socket).expect("segments");
            assert!(got.segment == 1000 || bytes.len() <= 1000);
            all.extend(bytes);
            calls += 1;
        }
        assert!(all == data && calls <= 13, "{calls}");
        let how = Sending { to: Some((kernel_ip(is_v6), PORT)), segment: Some(1000), ..Sending::default() };
        assert_eq!(world.ours.with(|stack| stack.udp_send(socket, &[&data], &how)), Ok(12_345));
        let expected = data.clone();
        let reads = thread::spawn(move || {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 66_000]);
            while all.len() < expected.len() {
                let len = kernel.recv(&mut buffer).expect("segments");
                all.extend_from_slice(&buffer[..len]);
            }
            all == expected
        });
        assert!(world.ours.join(reads));
    });
}

#[test]
fn groups_are_heard_on_both_sides() {
    each(|world, is_v6| {
        let socket = open(&mut world.ours, is_v6, PORT);
        let group = if is_v6 { Ip(GROUP6.octets()) } else { Ip::v4(GROUP.octets()) };
        let source = world.ours.address(is_v6);
        world.ours.with(|stack| {
            stack.parts.udp_join_group(socket, &group, stack.now).expect("room");
            // Without a route for groups the interface is chosen.
            stack.parts.udp(socket).expect("a socket").multicast_from = source;
        });
        world.ours.run_for(Duration::from_millis(20));
        let any = if is_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let at = SocketAddr::new(any, PORT);
        let kernel = world.namespace.inside(move || {
            let kernel = UdpSocket::bind(at).expect("a socket of the kernel's");
            let index = sys::interface_index(NAME).expect("an interface");
            (kernel, index)
        });
        let (kernel, index) = kernel;
        let joined = if is_v6 {
            let chosen = index.cast_signed();
            sys::set_option(kernel.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, chosen)
                .expect("an interface");
            kernel.join_multicast_v6(&GROUP6, index)
        } else {
            let own = Ipv4Addr::new(10, 0, 0, KERNEL);
            let bytes = own.octets();
            sys::set_option_bytes(kernel.as_fd(), libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &bytes)
                .expect("an interface");
            kernel.join_multicast_v4(&GROUP, &own)
        };
        joined.expect("a group");
        kernel.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a socket");
        let to =
            if is_v6 { SocketAddr::new(GROUP6.into(), PORT) } else { SocketAddr::new(GROUP.into(), PORT) };
        kernel.send_to(b"from the kernel", to).expect("the kernel sends");
        let (got, bytes) = receive(&mut world.ours, socket).expect("a datagram");
        assert_eq!((got.source, got.destination, got.ttl), ((kernel_ip(is_v6), PORT), group, 1));
        assert_eq!(bytes, b"from the kernel");
        send_to(&mut world.ours, socket, (group, PORT), b"from us").expect("a way");
        let (_, own) = receive(&mut world.ours, socket).expect("our own");
        assert_eq!(own, b"from us");
        let reads = thread::spawn(move || {
            let mut got = Vec::new();
            for _ in 0..2 {
                let mut buffer = [0; 100];
                let (len, _) = kernel.recv_from(&mut buffer).expect("a datagram");
                got.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
            got
        });
        assert_eq!(world.ours.join(reads), ["from the kernel", "from us"]);
    });
}
