//! What routers are told of groups, by our stack and by the Linux kernel: the same joins, leaves and changes of filters on both, and the
//! same questions, must come to the same reports (RFC 3376, RFC 3810, and their older versions).

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Instant as Clock;

use harness::sim::any::Any;
use harness::sim::craft;
use harness::sim::port::Setup;
use harness::sim::raw::{Raw, Send};
use harness::sim::udp::{BASE, host};
use harness::sim::{Node, Simulation};
use harness::wire::namespace::Namespace;
use harness::wire::sys;
use harness::wire::tun::{Interface, NAME, Tun};
use stack::device::Link;
use stack::region::slab::Handle;
use stack::time::Duration;
use stack::udp::group::Filter;
use stack::wire::checksum::{Sum, pseudo};
use stack::wire::ethernet::{Address, HEADER_LEN, IPV4, IPV6};
use stack::wire::igmp::{IGMP, alert};
use stack::wire::ip::Ip;
use stack::wire::{ipv4, ipv6, protocol};

/// What one of two sockets does, or a router says.
#[derive(Clone, Copy, Debug)]
enum Act {
    Join(usize),
    Leave(usize),
    /// A source is let through besides others, or no more.
    Allow(usize, u8),
    Deny(usize, u8),
    /// A source is kept out, or no more.
    Block(usize, u8),
    Unblock(usize, u8),
    /// A router of the newest version asks for all, or for the group, or for sources of it; a tenth of a second is left for answers.
    AskAll,
    Ask(&'static [u8]),
    /// One of IGMPv2 or MLDv1 asks for all.
    AskOld,
}

/// The acts, and how long their reports are waited for, in ms: a change is told twice within a second, in the older versions once within
/// ten.
const ACTS: [(Act, u64); 24] = [
    (Act::Join(0), 1100),
    (Act::Block(0, 1), 1100),
    (Act::Block(0, 2), 1100),
    // What one lets through is let through for all.
    (Act::Allow(1, 2), 1100),
    (Act::Ask(&[]), 200),
    (Act::Ask(&[1]), 200),
    (Act::Ask(&[1, 2]), 200),
    (Act::AskAll, 200),
    (Act::Unblock(0, 1), 1100),
    (Act::Block(0, 3), 1100),
    (Act::Leave(0), 1100),
    (Act::Allow(1, 4), 1100),
    (Act::Ask(&[4, 5]), 200),
    (Act::Ask(&[5]), 200),
    (Act::Deny(1, 2), 1100),
    (Act::Join(0), 1100),
    (Act::Leave(0), 1100),
    (Act::Deny(1, 4), 1100),
    (Act::AskAll, 200),
    (Act::AskOld, 200),
    (Act::Join(0), 50),
    (Act::AskOld, 200),
    (Act::Leave(0), 50),
    (Act::Allow(1, 1), 50),
];

fn group(is_v6: bool) -> Ip {
    if is_v6 { Ip(*b"\xff\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x63") } else { Ip::v4([239, 1, 2, 3]) }
}

fn source(is_v6: bool, number: u8) -> Ip {
    if is_v6 {
        Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, number])
    } else {
        Ip::v4([10, 0, 1, number])
    }
}

/// What a packet tells of the group: whom, how far it goes, in which words; and the records, without their order.
type Told = (Ip, u8, u8, BTreeSet<(u8, Vec<u8>)>);

/// What a packet of IP tells of the group, if it does.
fn told(packet: &[u8], is_v6: bool) -> Option<Told> {
    let (to, ttl, message, each) = if is_v6 {
        let (datagram, message) = ipv6::parse(packet).ok()?;
        let is_it = datagram.chain.protocol == protocol::ICMPV6 && [131, 132, 143].contains(message.first()?);
        assert!(!is_it || stack::wire::igmp::has_alert(packet.get(..48)?), "without an alert");
        (datagram.header.destination, datagram.header.hop_limit, is_it.then_some(message)?, 16)
    } else {
        let (datagram, message) = ipv4::parse(packet).ok()?;
        let header = datagram.header;
        if header.protocol != IGMP {
            return None;
        }
        assert_eq!((datagram.options, header.tos), (&[148, 4, 0, 0][..], 0xc0));
        (header.destination(), header.ttl, message, 4)
    };
    let group = group(is_v6);
    let group = if is_v6 { &group.0[..] } else { &group.0[12..] };
    let mut records = BTreeSet::new();
    if matches!(message[0], 0x22 | 143) {
        let mut left = message.get(8..)?;
        while let [kind, _, high, low, rest @ ..] = left {
            let (of, rest) = rest.split_at_checked(each)?;
            let (sources, rest) =
                rest.split_at_checked(each * usize::from(u16::from_be_bytes([*high, *low])))?;
            let mut last: Vec<u8> = sources.chunks(each).map(|source| source[each - 1]).collect();
            last.sort_unstable();
            if of == group {
                records.insert((*kind, last));
            }
            left = rest;
        }
        return (!records.is_empty()).then_some((to, ttl, message[0], records));
    }
    message.ends_with(group).then_some((to, ttl, message[0], records))
}

/// A question of a router's, as a packet of IP.
fn question(act: Act, is_v6: bool) -> Option<Vec<u8>> {
    let (of, sources, is_old) = match act {
        Act::AskAll => (None, &[][..], false),
        Act::AskOld => (None, &[][..], true),
        Act::Ask(sources) => (Some(group(is_v6)), sources, false),
        _ => return None,
    };
    let bytes = |ip: &Ip| if is_v6 { ip.0.to_vec() } else { ip.0[12..].to_vec() };
    // A tenth of a second, in tenths or in thousandths.
    let mut message = if is_v6 { vec![130, 0, 0, 0, 0, 100, 0, 0] } else { vec![0x11, 1, 0, 0] };
    message.extend(of.as_ref().map_or(vec![0; if is_v6 { 16 } else { 4 }], bytes));
    if !is_old {
        message.extend([2, 125, 0, sources.len() as u8]);
        sources.iter().for_each(|number| message.extend(bytes(&source(is_v6, *number))));
    }
    if !is_v6 {
        let sum = Sum::ZERO.bytes(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        return Some(craft::datagram(Ip::v4([10, 0, 0, 3]), Ip::v4([224, 0, 0, 1]), IGMP, None, &message));
    }
    let from = Ip(*b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x03");
    let to = of.unwrap_or(stack::ip::group::ALL_NODES);
    let sum = pseudo(&from, &to, protocol::ICMPV6, message.len() as u32).bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let payload = [&alert(protocol::ICMPV6)[..], &message].concat();
    let mut packet = craft::datagram(from, to, 0, None, &payload);
    packet[7] = 1;
    Some(packet)
}

/// Our stack, and a host that keeps what it hears.
struct Ours {
    network: Simulation<Any>,
    nodes: [Node; 2],
    sockets: [Handle; 2],
    is_v6: bool,
}

impl Ours {
    fn new(is_v6: bool) -> Self {
        let mut network = Simulation::<Any>::new(7);
        let a = network.add(host(1).into(), Setup::plain(1));
        let mut router = Raw::new(1024);
        router.keeps_bytes = true;
        let b = network.add(router.into(), Setup::plain(2));
        network.wire(a, b, BASE, BASE);
        network.run_for(Duration::from_secs(3));
        let now = network.now();
        let (host, port) = network.host_and_port(a);
        let open = |stack: &mut stack::stack::Stack<'_, '_, _>| {
            [0, 1].map(|_| stack.udp_open(is_v6, 0).expect("room"))
        };
        let sockets = host.stack().with(now, port, open);
        let mut ours = Self { network, nodes: [a, b], sockets, is_v6 };
        ours.heard(0);
        ours
    }

    fn act(&mut self, act: Act) {
        let is_v6 = self.is_v6;
        if let Some(packet) = question(act, is_v6) {
            let to = if is_v6 { Ip([0xff; 16]) } else { Ip::v4([224, 0, 0, 1]) };
            let link = Address::of_group(&to).expect("a group");
            let ethertype = if is_v6 { IPV6 } else { IPV4 };
            let bytes = craft::frame(link, [None; 2], ethertype, &packet);
            let raw = self.network.host(self.nodes[1]).raw();
            return raw.plan.push_front(Send { at: 0, bytes, checksum: None, gso_size: 0 });
        }
        let (now, group, sockets) = (self.network.now(), group(is_v6), self.sockets);
        let (host, port) = self.network.host_and_port(self.nodes[0]);
        host.stack()
            .with(now, port, |stack| {
                let mut filter = |at: usize, number, filter, adds| {
                    stack.parts.udp_filter(sockets[at], &group, &source(is_v6, number), (filter, adds), now)
                };
                match act {
                    Act::Allow(at, number) => filter(at, number, Filter::Include, true),
                    Act::Deny(at, number) => filter(at, number, Filter::Include, false),
                    Act::Block(at, number) => filter(at, number, Filter::Exclude, true),
                    Act::Unblock(at, number) => filter(at, number, Filter::Exclude, false),
                    Act::Leave(at) => stack.parts.udp_leave_group(sockets[at], &group, now),
                    Act::Join(at) => stack.parts.udp_join_group(sockets[at], &group, now),
                    _ => Ok(()),
                }
            })
            .expect("room");
    }

    /// What was told within so many ms.
    fn heard(&mut self, ms: u64) -> Vec<Told> {
        self.network.run_for(Duration::from_millis(ms));
        let got = std::mem::take(&mut self.network.host(self.nodes[1]).raw().got);
        got.iter().filter_map(|got| told(got.bytes.get(HEADER_LEN..)?, self.is_v6)).collect()
    }
}

/// The kernel.
struct Kernel {
    tun: Tun,
    sockets: [UdpSocket; 2],
    index: u32,
    is_v6: bool,
    _namespace: Namespace,
}

impl Kernel {
    /// One of its own; `None` without the rights of root.
    fn new(is_v6: bool) -> Option<Self> {
        let namespace = Namespace::new().ok()?;
        // A new link-local address has all groups told anew (ipv6_mc_dad_complete), at a time of its own.
        let mode = "/proc/sys/net/ipv6/conf/default/addr_gen_mode";
        namespace.inside(move || std::fs::write(mode, "1")).expect("a sysctl");
        let tun = Tun::new(&namespace, Interface { number: 1, link: Link::Ip, mtu: 1500 });
        let (sockets, index) = namespace.inside(move || {
            let any = if is_v6 { "[::]:0" } else { "0.0.0.0:0" };
            let socket = || UdpSocket::bind(any).expect("a socket of the kernel's");
            ([socket(), socket()], sys::interface_index(NAME).expect("an interface"))
        });
        Some(Self { tun, sockets, index, is_v6, _namespace: namespace })
    }

    fn act(&mut self, act: Act) -> io::Result<()> {
        let address = |ip: Ip| {
            // A `struct sockaddr_storage`.
            let mut bytes = vec![0; 128];
            let family = if ip.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
            bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
            let (at, address) = if ip.is_v4() { (4, &ip.0[12..]) } else { (8, &ip.0[..]) };
            bytes[at..at + address.len()].copy_from_slice(address);
            bytes
        };
        let (at, name, number) = match act {
            Act::Join(at) => (at, libc::MCAST_JOIN_GROUP, None),
            Act::Leave(at) => (at, libc::MCAST_LEAVE_GROUP, None),
            Act::Allow(at, number) => (at, libc::MCAST_JOIN_SOURCE_GROUP, Some(number)),
            Act::Deny(at, number) => (at, libc::MCAST_LEAVE_SOURCE_GROUP, Some(number)),
            Act::Block(at, number) => (at, libc::MCAST_BLOCK_SOURCE, Some(number)),
            Act::Unblock(at, number) => (at, libc::MCAST_UNBLOCK_SOURCE, Some(number)),
            _ => {
                self.tun.write(&question(act, self.is_v6).unwrap_or_default());
                return Ok(());
            }
        };
        // A `struct group_req` or a `struct group_source_req`.
        let mut value = [&self.index.to_ne_bytes()[..], &[0; 4], &address(group(self.is_v6))].concat();
        value.extend(number.map(|number| address(source(self.is_v6, number))).unwrap_or_default());
        let level = if self.is_v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
        sys::set_option_bytes(self.sockets[at].as_fd(), level, name, &value)
    }

    /// The next so many that are told; fewer if they don't come within ten seconds. Of none it is seen that none come for so many ms.
    fn heard(&mut self, count: usize, ms: u64) -> Vec<Told> {
        let limit = std::time::Duration::from_millis(if count == 0 { ms } else { 10_000 });
        let (until, mut heard) = (Clock::now() + limit, Vec::new());
        while (count == 0 || heard.len() < count) && Clock::now() < until {
            match self.tun.read() {
                Some(packet) => heard.extend(told(packet, self.is_v6)),
                None => sys::wait(&[self.tun.as_fd()], Duration::from_millis(20)).expect("an interface"),
            }
        }
        heard
    }
}

#[test]
fn routers_hear_of_us_what_they_hear_of_the_kernel() {
    for is_v6 in [false, true] {
        let Some(mut kernel) = Kernel::new(is_v6) else { return };
        let mut ours = Ours::new(is_v6);
        let mut all = 0;
        for (act, ms) in ACTS {
            ours.act(act);
            let expected = ours.heard(ms);
            kernel.act(act).unwrap_or_else(|error| panic!("{act:?}: {error}"));
            let heard = kernel.heard(expected.len(), ms);
            assert_eq!(expected, heard, "{act:?}, IPv6: {is_v6}; ours first");
            all += heard.len();
        }
        assert_eq!(all, 32, "IPv6: {is_v6}");
    }
}
