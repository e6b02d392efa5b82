//! UDP to many at once, and what goes with datagrams: groups and broadcasts, sockets that share a port, segments that are cut and joined,
//! options and control messages, what paths take.

use harness::sim::craft;
use harness::sim::path::Path;
use harness::sim::port::{Packet, Setup};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::text;
use harness::sim::udp::{BASE, MS, Net, address, host};
use stack::device::ChecksumRequest;
use stack::error::Error;
use stack::events::READABLE;
use stack::ip::route::{Route, V4_BITS};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stats::Counter;
use stack::time::Duration;
use stack::udp::group::Filter;
use stack::udp::send::Sending;
use stack::wire::checksum::pseudo;
use stack::wire::ip::Ip;
use stack::wire::{protocol, udp};

const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
const GROUP6: Ip = Ip([0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34]);

fn group(is_v6: bool) -> Ip {
    if is_v6 { GROUP6 } else { GROUP }
}

fn any(is_v6: bool) -> Ip {
    if is_v6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 }
}

/// Hosts with a route for IPv4's groups, as the kernel's routes of an interface don't have one.
fn with_groups(seed: u64) -> Net {
    let hosts = [1, 2].map(|number| {
        let mut host = host(number);
        let destination = Ip::v4([224, 0, 0, 0]);
        let route = Route { destination, prefix_len: V4_BITS + 4, ..Route::default() };
        host.parts().add_route(&route).expect("room");
        host
    });
    Net::with_setup(seed, BASE, hosts, Setup::plain)
}

fn reusing(net: &mut Net, host: usize, is_v6: bool, port: u16) -> Handle {
    let socket = net.socket(host, is_v6);
    net.set(host, socket, &Values { options: Switch::REUSE_ADDRESS, ..Values::default() });
    net.on(host, |stack| stack.parts.udp_bind(socket, (&any(is_v6), port))).expect("a shared port");
    socket
}

fn join(net: &mut Net, host: usize, socket: Handle, group: &Ip) -> Result<(), Error> {
    net.on(host, |stack| stack.parts.udp_join_group(socket, group, stack.now))
}

#[test]
fn what_is_sent_to_a_group_each_of_its_members_gets() {
    for (seed, is_v6) in [(1, false), (2, true)] {
        for size in [0, 10, 1400, 4000, 20_000] {
            let mut net = with_groups(seed);
            let sender = net.socket(0, is_v6);
            let here = reusing(&mut net, 0, is_v6, 5353);
            let members = [(); 3].map(|()| reusing(&mut net, 1, is_v6, 5353));
            let elsewhere = reusing(&mut net, 1, is_v6, 5354);
            for (host, socket) in [(0, here), (1, members[0]), (1, members[1]), (1, members[2])] {
                join(&mut net, host, socket, &group(is_v6)).expect("room");
            }
            // Routers are told, and who isn't a member has nothing against groups that others are in.
            let data = text(seed, size);
            assert_eq!(net.send_to(0, sender, (group(is_v6), 5353), &data), Ok(size));
            net.run();
            for (host, socket) in [(0, here), (1, members[0]), (1, members[1]), (1, members[2])] {
                let (got, bytes) = net.receive(host, socket).expect("a datagram");
                assert!(bytes == data, "{size}");
                assert_eq!((got.source.0, got.destination, got.ttl), (address(1, is_v6), group(is_v6), 1));
                assert_eq!(net.receive(host, socket), Err(Error::WouldBlock), "once");
            }
            assert_eq!(net.ready(1, elsewhere) & READABLE, 0, "another port");
            // A group that nobody is in is not listened to.
            for member in members {
                net.on(1, |stack| stack.parts.udp_leave_group(member, &group(is_v6), stack.now))
                    .expect("a member");
            }
            assert_eq!(net.send_to(0, sender, (group(is_v6), 5353), &data), Ok(size));
            net.run();
            assert_eq!(net.ready(1, members[0]) & READABLE, 0);
            let all =
                [(0, sender), (0, here), (1, elsewhere), (1, members[0]), (1, members[1]), (1, members[2])];
            net.end(&all);
        }
    }
}

#[test]
fn a_sender_hears_itself_unless_it_says_so() {
    for (seed, is_v6) in [(3, false), (4, true)] {
        let mut net = with_groups(seed);
        let socket = reusing(&mut net, 0, is_v6, 5353);
        join(&mut net, 0, socket, &group(is_v6)).expect("room");
        net.send_to(0, socket, (group(is_v6), 5353), b"to all").expect("a way");
        let (got, bytes) = net.receive(0, socket).expect("at once");
        assert_eq!((got.source, &bytes[..]), ((address(1, is_v6), 5353), &b"to all"[..]));
        let off = if is_v6 { Switch::NO_MULTICAST_LOOP_V6 } else { Switch::NO_MULTICAST_LOOP };
        net.set(0, socket, &Values { options: off, ..Values::default() });
        net.send_to(0, socket, (group(is_v6), 5353), b"to all others").expect("a way");
        assert_eq!(net.receive(0, socket), Err(Error::WouldBlock));
        net.end(&[(0, socket)]);
    }
}

#[test]
fn a_member_chooses_whom_it_hears() {
    for (seed, is_v6) in [(5, false), (6, true)] {
        let mut net = with_groups(seed);
        let sender = net.socket(0, is_v6);
        let sockets = [(); 5].map(|()| reusing(&mut net, 1, is_v6, 5353));
        let [all, without, only, never, stranger] = sockets;
        let (source, other) = (address(1, is_v6), address(77, is_v6));
        let group = group(is_v6);
        for socket in [all, without] {
            join(&mut net, 1, socket, &group).expect("room");
        }
        let off = if is_v6 { Switch::NO_MULTICAST_ALL_V6 } else { Switch::OTHER_MULTICAST_ALL };
        net.set(1, stranger, &Values { options: Switch::REUSE_ADDRESS | off, ..Values::default() });
        let filters = [
            (without, source, Filter::Exclude),
            (only, source, Filter::Include),
            (never, other, Filter::Include),
            (all, other, Filter::Exclude),
        ];
        for (socket, source, filter) in filters {
            let done =
                net.on(1, |stack| stack.parts.udp_filter(socket, &group, &source, (filter, true), stack.now));
            done.expect("room");
        }
        net.send_to(0, sender, (group, 5353), b"hello").expect("a way");
        net.run();
        let heard = sockets.map(|socket| net.ready(1, socket) & READABLE != 0);
        assert_eq!(heard, [true, false, true, false, false]);
        // The last source that was let through takes the membership with it.
        let (gone, now) = ((Filter::Include, false), net.network.now());
        let done = net.on(1, |stack| stack.parts.udp_filter(only, &group, &source, gone, now));
        assert_eq!(done, Ok(()));
        let done = net.on(1, |stack| stack.parts.udp_leave_group(only, &group, now));
        assert_eq!(done, Err(Error::AddressNotAvailable));
        let mut held = vec![(0, sender)];
        held.extend(sockets.map(|socket| (1, socket)));
        net.end(&held);
    }
}

#[test]
fn a_broadcast_is_allowed_first_and_then_heard_by_all() {
    for to in [Ip::BROADCAST, Ip::v4([10, 0, 0, 255])] {
        let mut hosts = [host(1), host(2)];
        let everywhere = Route { destination: any(false), prefix_len: V4_BITS, ..Route::default() };
        hosts[0].parts().add_route(&everywhere).expect("room");
        let mut net = Net::with_setup(7, BASE, hosts, Setup::plain);
        let (sender, here) = (net.socket(0, false), net.bound(0, false, 67));
        let listeners = [(); 2].map(|()| reusing(&mut net, 1, false, 67));
        assert_eq!(net.send_to(0, sender, (to, 67), b"hello"), Err(Error::Forbidden));
        assert_eq!(net.on(0, |stack| stack.udp_connect(sender, (&to, 67))), Err(Error::Forbidden));
        net.set(0, sender, &Values { options: Switch::BROADCAST, ..Values::default() });
        assert_eq!(net.send_to(0, sender, (to, 67), b"hello"), Ok(5));
        net.run();
        for (host, socket) in [(0, here), (1, listeners[0]), (1, listeners[1])] {
            let (got, bytes) = net.receive(host, socket).expect("a datagram");
            assert_eq!((got.destination, &bytes[..]), (to, &b"hello"[..]));
        }
        // Nobody is told that a port is closed.
        assert_eq!(net.send_to(0, sender, (to, 68), b"hello"), Ok(5));
        net.run();
        assert_eq!(net.counter(1, Counter::IcmpOut), net.counter(0, Counter::IcmpOut));
        net.end(&[(0, sender), (0, here), (1, listeners[0]), (1, listeners[1])]);
    }
}

#[test]
fn a_group_that_shares_a_port_divides_senders_among_its_sockets() {
    let mut net = Net::new(8);
    let sockets = [(); 4].map(|()| {
        let socket = net.socket(1, false);
        net.set(1, socket, &Values { options: Switch::REUSE_PORT, ..Values::default() });
        net.on(1, |stack| stack.parts.udp_bind(socket, (&any(false), 53))).expect("a shared port");
        socket
    });
    let mut held: Vec<(usize, Handle)> = sockets.map(|socket| (1, socket)).into();
    let mut counts = [0; 4];
    for sender in 0..40u8 {
        let client = net.bound(0, false, 1000 + u16::from(sender));
        for _ in 0..2 {
            net.send_to(0, client, (ip(2), 53), &[sender]).expect("a way");
        }
        net.run();
        // Both of one sender come to the same socket.
        let mut got = sockets.map(|socket| [0; 2].map(|_| net.receive(1, socket).is_ok()));
        let at = got.iter().position(|got| *got == [true; 2]).expect("both");
        got[at] = [false; 2];
        assert_eq!(got, [[false; 2]; 4]);
        counts[at] += 1;
        held.push((0, client));
    }
    assert!(counts.iter().all(|count| (3..=20).contains(count)), "{counts:?}");
    net.end(&held);
}

#[test]
fn a_specific_address_comes_before_any_and_ipv4_before_both() {
    let mut net = Net::new(9);
    let sender = net.socket(0, false);
    let bind = |net: &mut Net, is_v6: bool, at: Ip| {
        let socket = net.socket(1, is_v6);
        net.set(1, socket, &Values { options: Switch::REUSE_ADDRESS, ..Values::default() });
        net.on(1, |stack| stack.parts.udp_bind(socket, (&at, 53))).expect("a shared port");
        socket
    };
    let both = bind(&mut net, true, Ip::UNSPECIFIED);
    let v4 = bind(&mut net, false, any(false));
    let here = bind(&mut net, false, ip(2));
    for socket in [here, v4, both] {
        net.send_to(0, sender, (ip(2), 53), b"hello").expect("a way");
        net.run();
        assert!(net.receive(1, socket).is_ok());
        net.on(1, |stack| stack.udp_close(socket)).expect("a socket");
    }
    net.end(&[(0, sender)]);
}

#[test]
fn what_a_control_message_says_goes_with_its_datagram() {
    for (seed, is_v6) in [(10, false), (11, true)] {
        let mut net = Net::new(seed);
        let second = address(9, is_v6);
        let prefix = if is_v6 { 64 } else { V4_BITS + 24 };
        let now = net.network.now();
        let (sender, receiver) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        net.on(0, |stack| stack.parts.join_subnet(&second, prefix)).expect("room");
        let mut values = Values { tos: 0xb9, traffic_class: 0xb9, ttl: 7, ..Values::default() };
        values.set_hop_limit(7);
        net.set(0, sender, &values);
        let to = Some((address(2, is_v6), 53));
        let plain = Sending { to, ..Sending::default() };
        let told = Sending { source: Some(second), ttl: Some(3), tos: Some(0x10), ..plain };
        for how in [plain, told] {
            net.on(0, |stack| stack.udp_send(sender, &[b"hello"], &how)).expect("a way");
        }
        net.run();
        let (first, next) =
            (net.receive(1, receiver).expect("one").0, net.receive(1, receiver).expect("two").0);
        assert_eq!((first.source.0, first.ttl, first.tos), (address(1, is_v6), 7, 0xb9));
        assert_eq!((next.source.0, next.ttl, next.tos), (second, 3, 0x10));
        assert!(first.arrived > now && first.destination == address(2, is_v6));
        let strange = Sending { source: Some(address(55, is_v6)), ..plain };
        let sent = net.on(0, |stack| stack.udp_send(sender, &[b"hello"], &strange));
        assert_eq!(sent, Err(Error::Invalid));
        net.end(&[(0, sender), (1, receiver)]);
    }
}

#[test]
fn one_call_sends_many_and_one_reads_them() {
    for (seed, is_v6) in [(12, false), (13, true)] {
        let mut net = Net::new(seed);
        let (sender, receiver) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        let (data, to) = (text(seed, 10_500), Some((address(2, is_v6), 53)));
        let how = Sending { to, segment: Some(1000), ..Sending::default() };
        assert_eq!(net.on(0, |stack| stack.udp_send(sender, &[&data], &how)), Ok(10_500));
        assert_eq!(net.counter(0, Counter::DatagramsOut), 11);
        net.run();
        for chunk in data.chunks(1000) {
            assert!(net.receive(1, receiver).expect("a datagram").1 == chunk);
        }
        // UDP_GRO: what follows each other is read at once, and says how long each was.
        net.set(1, receiver, &Values { options: Switch::GRO, gso_size: 1000, ..Values::default() });
        let (there, here) = (Some(1000), net.bound(0, is_v6, 77));
        net.on(0, |stack| stack.udp_send(sender, &[&data], &Sending { segment: there, ..how }))
            .expect("room");
        net.send_to(0, here, (address(2, is_v6), 53), &data[..1000]).expect("room");
        net.send_to(0, sender, (address(2, is_v6), 53), &data[..1000]).expect("room");
        net.run();
        let (got, bytes) = net.receive(1, receiver).expect("all of them");
        assert!(bytes == data && got.segment == 1000);
        for _ in 0..2 {
            let (got, bytes) = net.receive(1, receiver).expect("one of somebody else, and one after it");
            assert!((got.segment, &bytes[..]) == (0, &data[..1000]));
        }
        for (size, error) in [(1473, Error::MessageSize), (50, Error::Invalid)] {
            let how = Sending { segment: Some(size), ..how };
            assert_eq!(net.on(0, |stack| stack.udp_send(sender, &[&data], &how)), Err(error), "{size}");
        }
        net.end(&[(0, sender), (0, here), (1, receiver)]);
    }
}

/// Datagrams of so many bytes each that a device has joined: one packet, whose headers are the first one's with the lengths of all, and
/// whose checksum was never made (virtio's VIRTIO_NET_HDR_GSO_UDP_L4).
fn joined(to: Ip, data: &[u8], gso_size: u16) -> Packet {
    let from = address(1, !to.is_v4());
    let mut bytes = craft::packet(2, from, to, protocol::UDP, &craft::udp((from, 1000), (to, 53), data));
    let start = bytes.len() - data.len() - udp::HEADER_LEN;
    let sum = pseudo(&from, &to, protocol::UDP, (udp::HEADER_LEN + data.len()) as u32).fold();
    bytes[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    let checksum = Some(ChecksumRequest { start: start as u16, offset: 6 });
    Packet { bytes, gso_size, checksum }
}

/// Linux's udp_queue_rcv_skb: who didn't ask for UDP_GRO reads what was sent.
#[test]
fn what_a_device_has_joined_is_read_as_it_was_sent() {
    for (seed, is_v6, is_group) in
        [(32, false, false), (33, true, false), (34, false, true), (35, true, true)]
    {
        let mut net = Net::with_setup(seed, BASE, [host(1), host(2)], Setup::offloads);
        let to = if is_group { group(is_v6) } else { address(2, is_v6) };
        let sockets = [Switch::GRO, 0].map(|options| {
            let socket = reusing(&mut net, 1, is_v6, 53);
            let values = Values { options: Switch::REUSE_ADDRESS | options, ..Values::default() };
            net.set(1, socket, &values);
            if is_group {
                join(&mut net, 1, socket, &to).expect("room");
            }
            socket
        });
        // In one frame, in several, and of datagrams that are themselves in several.
        for (len, segment) in [(1500, 400), (10_500, 1000), (9000, 5000), (1500, 1500)] {
            let data = text(seed, len);
            let now = net.network.now();
            let (host, port) = net.network.host_and_port(net.nodes[1]);
            assert!(port.deliver(&joined(to, &data, segment)), "a ring with room");
            host.with(now, port, |stack| while stack.poll().more {});
            if is_group {
                let (got, bytes) = net.receive(1, sockets[0]).expect("all of them");
                assert!(
                    bytes == data && got.segment == if usize::from(segment) == len { 0 } else { segment }
                );
            }
            // Among those that share an address and port by SO_REUSEADDR the newest gets what is for one.
            for chunk in data.chunks(segment.into()) {
                let (got, bytes) = net.receive(1, sockets[1]).expect("a datagram");
                assert!(bytes == chunk && got.segment == 0 && got.source == (address(1, is_v6), 1000));
                assert_eq!((got.destination, got.ttl), (to, 64));
            }
            for socket in sockets {
                assert_eq!(net.receive(1, socket).map(|(got, _)| got.len), Err(Error::WouldBlock));
            }
        }
        net.end(&[(1, sockets[0]), (1, sockets[1])]);
    }
}

/// RFC 768, "Fields": "An all zero transmitted checksum value means that the transmitter generated no checksum"; RFC 8200 §8.1 forbids it.
#[test]
fn a_datagram_without_a_checksum_is_one_of_ipv4_only() {
    for (seed, is_v6) in [(14, false), (15, true)] {
        let mut net = Net::new(seed);
        let (sender, receiver) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        let off = if is_v6 { Switch::NO_CHECKSUM_V6 } else { Switch::NO_CHECKSUM };
        net.set(0, sender, &Values { options: off, ..Values::default() });
        for data in [text(1, 100), text(2, 4000)] {
            net.send_to(0, sender, (address(2, is_v6), 53), &data).expect("a way");
            net.run();
            assert_eq!(net.receive(1, receiver).is_ok(), !is_v6);
        }
        net.end(&[(0, sender), (1, receiver)]);
    }
}

/// RFC 6936 §4: over IPv6 it is a port's own choice to take them, and to send them; what has a checksum is taken everywhere.
#[test]
fn without_a_checksum_a_datagram_is_taken_where_that_was_asked_for() {
    for is_group in [false, true] {
        let mut net = with_groups(36);
        let to = if is_group { GROUP6 } else { address(2, true) };
        let (takes, other) = (reusing(&mut net, 1, true, 53), reusing(&mut net, 1, true, 54));
        let options = Switch::REUSE_ADDRESS | Switch::NO_CHECKSUM_V6_IN;
        net.set(1, takes, &Values { options, ..Values::default() });
        for socket in [takes, other] {
            join(&mut net, 1, socket, &GROUP6).expect("room");
        }
        let (bare, usual) = (net.socket(0, true), net.socket(0, true));
        net.set(0, bare, &Values { options: Switch::NO_CHECKSUM_V6, ..Values::default() });
        // In one piece, and in fragments.
        for data in [text(1, 100), text(2, 4000)] {
            for (sender, port, is_taken) in
                [(bare, 53, true), (usual, 53, true), (bare, 54, false), (usual, 54, true)]
            {
                net.send_to(0, sender, (to, port), &data).expect("a way");
                net.run();
                let receiver = if port == 53 { takes } else { other };
                let got = net.receive(1, receiver).map(|(_, bytes)| bytes == data);
                assert_eq!(
                    got,
                    if is_taken { Ok(true) } else { Err(Error::WouldBlock) },
                    "{port}, group: {is_group}"
                );
            }
        }
        // Nobody is told of a closed port by one that is to be discarded.
        net.send_to(0, bare, (to, 55), b"nobody").expect("a way");
        net.run();
        assert_eq!(net.counter(1, Counter::NoSocket), if is_group { 3 } else { 0 });
        net.end(&[(0, bare), (0, usual), (1, takes), (1, other)]);
    }
}

#[test]
fn how_a_datagram_that_is_too_large_leaves_is_the_sockets_choice() {
    for (seed, is_v6) in [(16, false), (17, true)] {
        let mut net = Net::new(seed);
        let (sender, receiver) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        let (single, errors) = if is_v6 { (1452, Switch::ERRORS_V6) } else { (1472, Switch::ERRORS) };
        // IP_PMTUDISC_DONT to IP_PMTUDISC_OMIT; and IPV6_DONTFRAG, which IPv4 knows nothing of.
        let (usual, whole) = (errors, errors | Switch::DONT_FRAGMENT_V6);
        let rows = [
            (0, usual, true),
            (1, usual, true),
            (2, usual, false),
            (3, usual, false),
            (4, usual, false),
            (5, usual, true),
            (0, whole, !is_v6),
            (1, whole, !is_v6),
            (5, whole, !is_v6),
        ];
        for (how, options, cuts) in rows {
            let (mtu_discover, mtu_discover_v6) = (how + 1, how + 1);
            net.set(0, sender, &Values { mtu_discover, mtu_discover_v6, options, ..Values::default() });
            for size in [single, single + 1] {
                let sent = net.send_to(0, sender, (address(2, is_v6), 53), &vec![7; size]);
                let expected = if size > single && !cuts { Err(Error::MessageSize) } else { Ok(size) };
                assert_eq!(sent, expected, "IP_MTU_DISCOVER {how}, {size} bytes");
                net.run();
                assert_eq!(net.receive(1, receiver).is_ok(), expected.is_ok());
            }
            let read = net.on(0, |stack| stack.udp_receive_error(sender, &mut []));
            assert_eq!(read.is_ok(), !cuts, "{how}");
            if let Ok(read) = read {
                assert_eq!((read.report.origin, read.report.info), (1, 1500), "this host's own word");
                assert_eq!(net.on(0, |stack| stack.udp_take_error(sender)), Ok(None));
            }
        }
        net.end(&[(0, sender), (1, receiver)]);
    }
}

/// RFC 1191, RFC 8201: what a router says of the path counts for the next datagram, and who asks is told.
#[test]
fn a_router_says_what_the_path_takes() {
    use stack::wire::{icmp, icmpv6, udp};
    for (seed, is_v6) in [(18, false), (19, true)] {
        let mut net = Net::new(seed);
        let (sender, receiver) = (net.socket(0, is_v6), net.bound(1, is_v6, 53));
        let remote = (address(2, is_v6), 53);
        net.on(0, |stack| stack.udp_connect(sender, (&remote.0, 53))).expect("a way");
        assert_eq!(net.on(0, |stack| stack.udp_path_mtu(sender)), Ok(1500));
        assert_eq!(net.send(0, sender, &[7; 1400]), Ok(1400));
        net.run();
        let source = net.receive(1, receiver).expect("a datagram").0.source;
        // As the router 3 would write it: host 1 gets it at its own port.
        let data = craft::udp(source, remote, &[7; 1400]);
        let quoted = craft::datagram(source.0, remote.0, protocol::UDP, None, &data);
        let quoted = &quoted[..if is_v6 { 40 } else { 20 } + udp::HEADER_LEN + 16];
        let packet = if is_v6 {
            let message = icmpv6::Message::PacketTooBig { mtu: 1300 };
            craft::packet(
                1,
                ip6(3),
                source.0,
                protocol::ICMPV6,
                &craft::icmp_v6(ip6(3), source.0, &message, quoted),
            )
        } else {
            let message = icmp::Message::Unreachable(icmp::Unreachable::FragmentationNeeded { mtu: 1300 });
            craft::packet(1, ip(3), source.0, protocol::ICMP, &craft::icmp(&message, quoted))
        };
        let node = net.nodes[0];
        net.network.host_and_port(node).1.deliver(&Packet { bytes: packet, ..Default::default() });
        net.run();
        assert_eq!(net.on(0, |stack| stack.udp_path_mtu(sender)), Ok(1300));
        assert_eq!(net.send(0, sender, &[8; 1400]), Err(Error::MessageSize), "the router's word");
        let before = net.counter(0, Counter::FragmentsOut);
        assert_eq!(net.send(0, sender, &[8; 1400]), Ok(1400));
        assert_eq!(net.counter(0, Counter::FragmentsOut) - before, 2);
        net.run();
        assert!(net.receive(1, receiver).expect("in fragments").1 == [8; 1400]);
        net.end(&[(0, sender), (1, receiver)]);
    }
}

#[test]
fn a_neighbour_who_does_not_answer_is_an_error() {
    for (seed, is_v6) in [(20, false), (21, true)] {
        let mut net = Net::new(seed);
        let sender = net.socket(0, is_v6);
        let errors = if is_v6 { Switch::ERRORS_V6 } else { Switch::ERRORS };
        net.set(0, sender, &Values { options: errors, ..Values::default() });
        assert_eq!(net.send_to(0, sender, (address(99, is_v6), 53), b"hello"), Ok(5));
        net.network.run_for(Duration::from_secs(4));
        let mut data = [0; 8];
        let read = net.on(0, |stack| stack.udp_receive_error(sender, &mut [&mut data])).expect("an error");
        assert_eq!((read.report.error(), &data[..read.copied]), (Error::HostUnreachable, &b"hello"[..]));
        assert_eq!(read.report.offender, address(1, is_v6));
        net.end(&[(0, sender)]);
    }
}

#[test]
fn a_ring_that_is_full_loses_nothing_of_who_waits() {
    let setup = |number| Setup { ring: 8, completion_lag: Duration(MS), ..Setup::plain(number) };
    let path = Path { rate: 1_000_000_000, ..BASE };
    let mut net = Net::with_setup(22, path, [host(1).knowing(&[2]), host(2).knowing(&[1])], setup);
    let (sender, receiver) = (net.socket(0, false), net.bound(1, false, 53));
    let (mut sent, mut refused, mut read) = (0u8, 0, 0u8);
    while read < 100 {
        while sent < 100 {
            match net.send_to(0, sender, (ip(2), 53), &[sent]) {
                Ok(_) => sent += 1,
                Err(error) => {
                    assert_eq!((error, net.ready(0, sender)), (Error::WouldBlock, 0));
                    refused += 1;
                    break;
                }
            }
        }
        net.run();
        while let Ok((_, bytes)) = net.receive(1, receiver) {
            assert_eq!(bytes, [read]);
            read += 1;
        }
    }
    assert!(refused > 5, "{refused}");
    net.end(&[(0, sender), (1, receiver)]);
}

#[test]
fn from_an_address_that_nobody_has_nothing_is_heard() {
    let mut net = Net::new(23);
    let receiver = net.bound(1, true, 53);
    let nobodys =
        [Ip::BROADCAST, GROUP, Ip::v4([10, 0, 0, 255]), Ip::v4([0, 0, 0, 1]), Ip::v4([127, 0, 0, 1]), ip(2)];
    for (from, is_heard) in nobodys.into_iter().map(|from| (from, false)).chain([(ip(3), true)]) {
        let data = craft::udp((from, 99), (ip(2), 53), b"hello");
        let bytes = craft::packet(2, from, ip(2), protocol::UDP, &data);
        let node = net.nodes[1];
        net.network.host_and_port(node).1.deliver(&Packet { bytes, ..Default::default() });
        net.run();
        assert_eq!(net.receive(1, receiver).is_ok(), is_heard, "{from}");
    }
    assert_eq!(net.counter(1, Counter::Martians), 6);
    net.end(&[(1, receiver)]);
}
