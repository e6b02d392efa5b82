//! The mirror of the control plane against the kernel: what the stack's tables say is what the kernel does, whatever an administrator
//! sets up, and stays so while he changes it.

use driver::netlink::routes::{self, Kind as Kernel, Question};
use driver::netlink::{Netlink, group};
use driver::sys::Errno;
use engine::control::ask::{Admitted, Answer, Asker, admit};
use engine::control::decide::{Decision, Why, decide};
use engine::control::{Mirror, Next};
use harness::sim::random::Random;
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::TcpHost;
use harness::wire::admin::{Admin, Change, MAIN, Route};
use harness::wire::sys;
use harness::wire::veth::{Cable, NAME};
use stack::device::{
    Capabilities, ChecksumIn, Device, FrameIndex, Link, Memory, Outgoing, Received, Refused,
};
use stack::error::Error;
use stack::ip::neighbour::State;
use stack::ip::{Interface, Policy};
use stack::region::Limits;
use stack::stack::Stack;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

const NOW: Instant = Instant(1_000_000_000_000);
const MTU: u32 = 1500;

/// A device that nothing comes from and that takes nothing.
#[derive(Debug)]
struct Quiet;

impl Memory for Quiet {
    fn bytes(&self, _: FrameIndex) -> Option<&[u8]> {
        None
    }

    fn bytes_mut(&mut self, _: FrameIndex) -> Option<&mut [u8]> {
        None
    }

    fn pair(&mut self, _: FrameIndex, _: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        None
    }
}

impl Device for Quiet {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link: Link::Ethernet,
            mtu: MTU,
            frame_size: 2048,
            headroom_out: 0,
            fragments_max: 1,
            checksum_in: ChecksumIn::Verify,
            checksum_out: false,
            tso_bytes_max: 0,
            gro: false,
            timestamps: false,
        }
    }

    fn waiting(&self) -> usize {
        0
    }

    fn receive(&mut self, _: &mut [Received]) -> usize {
        0
    }

    fn fill_room(&self) -> usize {
        0
    }

    fn fill(&mut self, _: &[FrameIndex]) -> usize {
        0
    }

    fn transmit_room(&self) -> usize {
        0
    }

    fn send(&mut self, _: &Outgoing<'_>) -> Result<(), Refused> {
        Err(Refused::Full)
    }

    fn completions(&mut self, _: &mut [FrameIndex]) -> usize {
        0
    }

    fn flush(&mut self) -> bool {
        false
    }
}

/// A stack on the near end of a cable, with its mirror; in the namespace of its thread.
struct Host {
    interface: u32,
    mirror: Mirror,
    host: TcpHost,
    admin: Admin,
}

fn limits() -> Limits {
    Limits { routes: 256, addresses: 16, neighbours: 16, ..harness::sim::tcp::limits(64) }
}

impl Host {
    fn new(limits: &Limits) -> Self {
        let mut admin = Admin::new();
        let interface = admin.number(NAME);
        // What the region had before is of no importance.
        let host = TcpHost::new(1, limits).on(Interface::default());
        let mirror = Mirror::open(interface, limits).expect("a mirror");
        let mut made = Self { interface, mirror, host, admin };
        assert_eq!(made.decide(&ip(2)), Decision::Kernel(Why::Unknown));
        made.follow();
        made
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Quiet>) -> R) -> R {
        self.host.with(NOW, &mut Quiet, act)
    }

    /// Brings what the kernel has told, up to the last bit, into the stack.
    fn follow(&mut self) {
        let mut is_read = false;
        loop {
            let read = self.mirror.read().expect("netlink");
            let next = loop {
                let next = self.host.with(NOW, &mut Quiet, |stack| self.mirror.apply(stack));
                if next != Next::Apply {
                    break next;
                }
            };
            if next == Next::Wait && !read.again && is_read {
                break;
            }
            is_read = true;
        }
        let mut parts = self.host.parts();
        assert_eq!(parts.routing().check(), Ok(()));
        assert_eq!(parts.neighbour_cache(NOW).check(), Ok(()));
    }

    fn decide(&mut self, destination: &Ip) -> Decision {
        let interface = self.interface;
        self.with(|stack| decide(stack, interface, destination, interface))
    }

    /// What the kernel does with it. A link-local destination is named with our interface.
    fn kernel(&mut self, destination: &Ip) -> Result<routes::Route, Errno> {
        let interface = if destination.is_v4() || !destination.is_link_local() { 0 } else { self.interface };
        let question = Question { destination: *destination, interface, ..Question::default() };
        routes::lookup(self.admin.netlink(), &question)
    }

    /// Whether the kernel sends to a destination by our interface, to one host.
    fn is_ours(&mut self, destination: &Ip) -> bool {
        let interface = self.interface;
        self.kernel(destination)
            .is_ok_and(|found| found.kind == Kernel::Unicast && found.interface == interface)
    }

    fn is_here(&mut self, destination: &Ip) -> bool {
        matches!(self.decide(destination), Decision::Ours(_))
    }

    /// Compares; whether both sent it out by our interface, and whether the kernel alone did.
    fn compare(&mut self, destination: &Ip, seed: u64) -> (bool, bool) {
        let (decision, kernel) = (self.decide(destination), self.kernel(destination));
        let is_ours = self.is_ours(destination);
        let context = || format!("seed {seed}: {destination}: {decision:?}, and the kernel: {kernel:?}");
        match decision {
            Decision::Ours(way) => {
                let found = kernel.as_ref().unwrap_or_else(|_| panic!("{}", context()));
                assert!(is_ours, "{}", context());
                assert_eq!(way.next_hop, found.gateway.unwrap_or(*destination), "{}", context());
                assert_eq!(Some(way.source), found.source, "{}", context());
                let mtu = if found.mtu == 0 { MTU } else { found.mtu.min(MTU) };
                assert_eq!(u32::from(way.link_mtu), mtu, "{}", context());
                (true, false)
            }
            Decision::Kernel(Why::Elsewhere(error)) if error != Error::NetworkUnreachable => {
                assert_eq!(kernel, Err(Errno(error.number())), "{}", context());
                (false, is_ours)
            }
            _ => (false, is_ours),
        }
    }
}

/// Does something in the namespace of one end of a cable.
fn on_a_cable(act: impl FnOnce() + Send + 'static) {
    let Some([near, _far]) = Cable::default().lay() else { return };
    near.inside(act);
}

const fn v4(a: u8, b: u8, c: u8) -> Ip {
    Ip::v4([10, a, b, c])
}

/// An address of fd00:A:B::/48.
fn v6(a: u8, b: u8, last: u8) -> Ip {
    let mut bytes = [0; 16];
    (bytes[0], bytes[3], bytes[5], bytes[15]) = (0xfd, a, b, last);
    Ip(bytes)
}

/// An address near those that routes are for.
fn somewhere(random: &mut Random, is_v6: bool) -> Ip {
    let mut small = |end| random.below(end) as u8;
    let (a, b, c) = (small(5), small(4), small(16));
    match (is_v6, small(20)) {
        (false, 0) => Ip::v4([203, 0, 113, c]),
        (false, 1) => Ip::v4([127, 1, b, c]),
        (false, 2) => Ip::v4([192, 168, 0, c % 4]),
        (false, 3) => v4(a, b, 255),
        (false, _) => v4(a, b, c),
        (true, 0) => Ip([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, c]),
        (true, 1) => Ip([0xfe, 0x80, 0, 0, 0, 0, 0, b, 0, 0, 0, 0, 0, 0, 0, c + 1]),
        (true, _) => v6(a, b, c),
    }
}

/// The first bits of an address.
fn first_bits(ip: &Ip, prefix_len: u8) -> (Ip, u8) {
    let bits = prefix_len + if ip.is_v4() { 96 } else { 0 };
    (stack::ip::route::masked(ip, bits), prefix_len)
}

/// A route of chance. `is_odd` allows what no table of the stack's can say.
fn any_route(random: &mut Random, [ours, other]: [u32; 2], is_v6: bool, is_odd: bool) -> Route {
    let lengths: &[u8] =
        if is_v6 { &[0, 8, 32, 40, 48, 56, 64, 128] } else { &[0, 8, 12, 16, 20, 24, 30, 32] };
    let prefix_len = lengths[random.below(lengths.len() as u64) as usize];
    let destination = somewhere(random, is_v6);
    let interface = if random.happens(0.7) { ours } else { other };
    let mut route = Route::new(first_bits(&destination, prefix_len), interface);
    route.priority = if random.happens(0.5) { 0 } else { 1 + random.below(3) as u32 };
    if random.happens(0.4) {
        // One that is on a link, mostly.
        let on_link = if is_v6 { v6(0, 0, 40) } else { ip(40) };
        route.gateway = Some(if random.happens(0.7) { on_link } else { somewhere(random, is_v6) });
    }
    if random.happens(0.2) {
        route.source = Some(match random.below(3) {
            0 if is_v6 => ip6(1),
            0 => ip(1),
            _ => somewhere(random, is_v6),
        });
    }
    if random.happens(0.2) {
        route.mtu = 1280 + random.below(400) as u32;
    }
    if random.happens(0.1) {
        (route.kind, route.interface, route.gateway) = (6 + random.below(3) as u8, 0, None);
        (route.source, route.mtu) = (None, 0);
    }
    if is_odd && random.happens(0.3) {
        match random.below(4) {
            0 => {
                (route.kind, route.interface, route.gateway, route.source, route.mtu) = (9, 0, None, None, 0)
            }
            1 => route.table = 253,
            2 => route.table = 255,
            _ if !is_v6 => route.tos = 0x10,
            _ => {}
        }
    }
    route
}

/// One set of addresses and routes, and some thousand destinations.
fn compare_a_set(seed: u64, is_odd: bool) -> (u32, u32) {
    let mut host = Host::new(&limits());
    let mut random = Random::new(seed);
    let links = [host.interface, host.admin.another("other")];
    let pool = [
        (v4(1, 0, 5), 16),
        (v4(2, 2, 7), 24),
        (ip(9), 24),
        (Ip::v4([192, 168, 0, 1]), 30),
        (v4(3, 0, 1), 24),
        (v6(1, 0, 5), 48),
        (v6(2, 2, 7), 64),
        (ip6(9), 64),
        (v6(3, 0, 1), 64),
    ];
    for address in pool.iter().filter(|_| random.happens(0.4)).collect::<Vec<_>>() {
        let link = links[usize::from(random.happens(0.3))];
        host.admin.address(Change::Add, link, *address).expect("an address");
        // The route of an address of IPv6 comes a little later (addrconf_dad_work).
        while !host.kernel(&address.0).is_ok_and(|found| found.kind == Kernel::Local) {
            std::thread::yield_now();
        }
    }
    let mut taken = 0;
    for _ in 0..40 {
        let is_v6 = random.happens(0.5);
        let route = any_route(&mut random, links, is_v6, is_odd);
        let change = if is_odd && random.happens(0.3) { Change::Append } else { Change::Add };
        // Many make no sense to the kernel: a gateway that isn't on the link, a source that isn't ours.
        taken += u32::from(host.admin.route(change, &route).is_ok());
    }
    assert!(taken >= 8, "seed {seed}: {taken} routes are no test");
    host.follow();
    assert_eq!([false, true].map(|is_v6| host.mirror.policy(is_v6)), [Policy::Mirrored; 2]);
    let (mut same, mut missed) = (0, 0);
    for at in 0..600 {
        let destination = somewhere(&mut random, at % 2 == 0);
        let (ours, kernels) = host.compare(&destination, seed);
        // Of loopback's addresses, and of link-local ones beside the link's own prefix, nothing is mirrored.
        let is_left = destination.is_loopback() || !destination.is_v4() && destination.is_link_local();
        let is_missed = kernels && !is_left;
        (same, missed) = (same + u32::from(ours), missed + u32::from(is_missed));
        if is_missed && !is_odd {
            let (decision, kernel) = (host.decide(&destination), host.kernel(&destination));
            println!("seed {seed}: {destination}: {decision:?}, and the kernel: {kernel:?}");
        }
    }
    (same, missed)
}

#[test]
fn what_the_stack_says_of_a_destination_is_what_the_kernel_does() {
    let mut all = 0;
    for seed in 0..24 {
        let Some([near, _far]) = Cable::default().lay() else { return };
        let (same, missed) = near.inside(move || compare_a_set(seed, false));
        assert!(missed * 20 <= same, "seed {seed}: {missed} beside {same} were left to the kernel");
        all += same;
    }
    assert!(all > 2000, "{all} destinations are ours in all sets");
}

#[test]
fn what_no_table_can_say_is_left_to_the_kernel() {
    let mut all = 0;
    for seed in 100..124 {
        let Some([near, _far]) = Cable::default().lay() else { return };
        all += near.inside(move || compare_a_set(seed, true)).0;
    }
    assert!(all > 1000, "{all} destinations are ours in all sets");
}

#[test]
fn every_change_arrives() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        let far = Ip::v4([203, 0, 113, 7]);
        assert!(host.is_here(&ip(2)) && host.is_here(&ip6(2)) && !host.is_here(&far));
        assert!(!host.is_here(&ip(1)) && host.with(|stack| stack.parts.is_ours(&ip6(1))));
        // An address, and the routes that come with it.
        let second = (v4(7, 0, 1), 24);
        host.admin.address(Change::Add, link, second).expect("an address");
        host.follow();
        assert!(host.is_here(&v4(7, 0, 2)) && host.with(|stack| stack.parts.is_ours(&second.0)));
        host.admin.address(Change::Remove, link, second).expect("gone");
        host.follow();
        assert!(!host.is_here(&v4(7, 0, 2)) && !host.with(|stack| stack.parts.is_ours(&second.0)));
        // A route, another one in its place, none.
        let route = Route { gateway: Some(ip(2)), ..Route::new((Ip::UNSPECIFIED_V4, 0), link) };
        host.admin.route(Change::Add, &route).expect("a route");
        host.follow();
        let Decision::Ours(way) = host.decide(&far) else { panic!("a default route") };
        assert_eq!((way.next_hop, way.source), (ip(2), ip(1)));
        let lower = Route { gateway: Some(ip(3)), mtu: 1400, ..route };
        host.admin.route(Change::Replace, &lower).expect("another");
        host.follow();
        let Decision::Ours(way) = host.decide(&far) else { panic!("a default route") };
        assert_eq!((way.next_hop, way.link_mtu), (ip(3), 1400));
        host.admin.route(Change::Remove, &lower).expect("gone");
        host.follow();
        assert!(!host.is_here(&far));
        // The link's MTU and address.
        sys::set_mtu(NAME, 1300).expect("an MTU");
        host.admin.set_link(link, [2, 0, 0, 0, 0, 77]).expect("a link address");
        host.follow();
        let Decision::Ours(way) = host.decide(&ip(2)) else { panic!("on the link") };
        assert_eq!(way.link_mtu, 1300);
        assert_eq!(host.with(|stack| stack.parts.ip.interface.link.0), [2, 0, 0, 0, 0, 77]);
        sys::set_mtu(NAME, 1500).expect("an MTU");
        host.follow();
        let Decision::Ours(way) = host.decide(&ip(2)) else { panic!("on the link") };
        assert_eq!(way.link_mtu, 1500);
    });
}

#[test]
fn a_link_that_is_switched_off_has_no_routes_and_gets_them_again() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        let far = Ip::v4([203, 0, 113, 7]);
        let route = Route { gateway: Some(ip(2)), ..Route::new((Ip::UNSPECIFIED_V4, 0), link) };
        host.admin.route(Change::Add, &route).expect("a route");
        host.follow();
        assert!(host.is_here(&far) && host.is_here(&ip(2)) && host.mirror.is_up());
        host.admin.switch(link, false).expect("off");
        host.follow();
        assert!(!host.mirror.is_up());
        for destination in [far, ip(2), ip6(2)] {
            assert_eq!(
                host.decide(&destination),
                Decision::Kernel(Why::Elsewhere(Error::NetworkUnreachable))
            );
            assert_eq!(host.kernel(&destination).map(|_| ()), Err(Errno(libc::ENETUNREACH)));
        }
        host.admin.switch(link, true).expect("on");
        host.follow();
        assert!(host.is_here(&ip(2)) && !host.is_here(&far), "the kernel forgets the default route, too");
        host.admin.remove(link).expect("gone");
        host.follow();
        assert!(host.mirror.is_gone() && !host.is_here(&ip(2)));
        assert_eq!(host.with(|stack| stack.parts.our_addresses().len()), 0);
    });
}

/// NUD_* of linux/neighbour.h.
const REACHABLE: u16 = 0x02;
const STALE: u16 = 0x04;
const FAILED: u16 = 0x20;
const PERMANENT: u16 = 0x80;

#[test]
fn neighbours_are_as_the_kernel_has_them() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        let find = |host: &mut Host, ip: &Ip| {
            host.with(|stack| {
                let hash = stack.parts.address_hash(ip);
                let found = stack.parts.neighbour_cache(NOW).find(ip, hash).copied();
                found.map(|known| (known.state(), known.link().map(|link| link.0)))
            })
        };
        for (ip, first) in [(ip(50), 1), (ip6(50), 2)] {
            let at = |last| [2, 0, 0, 0, first, last];
            for (state, address, expected) in [
                (REACHABLE, at(1), Some((State::Reachable, Some(at(1))))),
                (STALE, at(1), Some((State::Stale, Some(at(1))))),
                // It has moved.
                (PERMANENT, at(2), Some((State::Permanent, Some(at(2))))),
                (FAILED, at(2), Some((State::Failed, None))),
                (REACHABLE, at(3), Some((State::Reachable, Some(at(3))))),
            ] {
                host.admin.neighbour(Change::Replace, link, (ip, address), state).expect("a neighbour");
                host.follow();
                assert_eq!(find(&mut host, &ip), expected, "{ip}: {state:#x}");
            }
            host.admin.neighbour(Change::Remove, link, (ip, at(3)), 0).expect("gone");
            host.follow();
            assert!(find(&mut host, &ip).is_none_or(|(state, _)| state == State::Failed), "{ip}");
        }
        // More than there is room for displace nobody.
        let one = (ip(50), [2, 0, 0, 0, 0, 50]);
        host.admin.neighbour(Change::Replace, link, one, PERMANENT).expect("a neighbour");
        host.follow();
        for last in 100..150 {
            let many = (ip(last), [2, 0, 0, 0, 0, last]);
            host.admin.neighbour(Change::Replace, link, many, REACHABLE).expect("a neighbour");
        }
        host.follow();
        assert_eq!(find(&mut host, &one.0), Some((State::Permanent, Some(one.1))));
    });
}

#[test]
fn the_kernel_is_asked_for_who_is_wanted_and_for_who_is_in_use() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        let wanted = |host: &mut Host, now: Instant| {
            let Host { mirror, host, .. } = host;
            let any = host.with(NOW, &mut Quiet, |stack| mirror.wanted(stack.parts));
            if any { mirror.questions(now).to_vec() } else { Vec::new() }
        };
        assert_eq!(wanted(&mut host, NOW), []);
        // A packet waits; what it is doesn't matter here.
        let resolve = |host: &mut Host, ip: &Ip, now: Instant| {
            host.with(|stack| {
                let hash = stack.parts.address_hash(ip);
                stack.parts.neighbour_cache(now).resolve(ip, hash, u32::MAX - 1, now);
            });
        };
        resolve(&mut host, &ip(60), NOW);
        assert_eq!(wanted(&mut host, NOW), [ip(60)]);
        assert_eq!(wanted(&mut host, NOW), [], "it was asked for");
        host.with(|stack| {
            let now = NOW + Duration::from_millis(1001);
            let mut cache = stack.parts.neighbour_cache(now);
            assert!(!cache.poll(now, 16, |_| ()));
        });
        assert_eq!(wanted(&mut host, NOW + Duration::from_millis(900)), [], "once a second");
        // One that is in use: the kernel doesn't see it, and takes it for stale.
        let one = (ip(61), [2, 0, 0, 0, 0, 61]);
        host.admin.neighbour(Change::Replace, link, one, STALE).expect("a neighbour");
        host.follow();
        assert_eq!(wanted(&mut host, NOW + Duration::from_secs(2)), []);
        let uses = |host: &mut Host| {
            host.with(|stack| {
                let hash = stack.parts.address_hash(&one.0);
                let mut cache = stack.parts.neighbour_cache(NOW);
                let (index, _) = cache.keep(&one.0, hash).expect("it is known");
                cache.used(index, Some(NOW), NOW);
            });
        };
        uses(&mut host);
        let asked = wanted(&mut host, NOW + Duration::from_secs(2));
        assert!(asked.contains(&one.0), "{asked:?}");
        uses(&mut host);
        assert_eq!(wanted(&mut host, NOW + Duration::from_millis(2900)), [], "once a second");
        uses(&mut host);
        let asked = wanted(&mut host, NOW + Duration::from_millis(3100));
        assert!(asked.contains(&one.0), "nobody has answered: {asked:?}");
        // Who is asked for is found, by the kernel.
        driver::netlink::neighbours::resolve(host.admin.netlink(), link, &ip(2)).expect("root may ask");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            host.follow();
            let found = host.with(|stack| {
                let hash = stack.parts.address_hash(&ip(2));
                stack.parts.neighbour_cache(NOW).find(&ip(2), hash).and_then(|known| known.link())
            });
            if let Some(found) = found {
                assert_eq!(found.0, [2, 0, 0, 0, 0, 2]);
                break;
            }
            assert!(std::time::Instant::now() < until, "nobody answers");
        }
    });
}

#[test]
fn messages_that_were_lost_are_made_up_for() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        let mut beside = Netlink::open(group::ROUTE).expect("netlink");
        let route = |last: u8| Route { mtu: 1400, ..Route::new((v4(9, last, 0), 24), link) };
        for round in 0..3000u32 {
            let change = if round % 2 == 0 { Change::Add } else { Change::Remove };
            host.admin.route(change, &route(1)).expect("a route");
        }
        host.admin.route(Change::Add, &route(2)).expect("a route");
        host.admin.address(Change::Add, link, (v4(8, 0, 1), 24)).expect("an address");
        let lost = std::iter::repeat_with(|| beside.changes(|_, _| ())).find(|heard| *heard != Ok(true));
        assert_eq!(lost, Some(Err(Errno(libc::ENOBUFS))), "this is no test of an overrun");
        host.follow();
        assert!(host.is_here(&v4(9, 2, 1)) && !host.is_here(&v4(9, 1, 1)) && host.is_here(&v4(8, 0, 2)));
    });
}

#[test]
fn what_is_as_it_was_is_not_touched() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let version = host.with(|stack| stack.parts.ip.version());
        // Another process takes the mirror over.
        host.mirror = Mirror::open(host.interface, &limits()).expect("a mirror");
        host.follow();
        let other = host.admin.another("other");
        host.admin.address(Change::Add, other, (v4(7, 0, 1), 24)).expect("an address");
        host.follow();
        assert_eq!(host.with(|stack| stack.parts.ip.version()), version, "no socket looks again");
        // And what somebody left half done is mended.
        host.with(|stack| {
            stack.parts.routes[0].destination = v4(66, 6, 6);
            stack.recover().expect("it is mended");
        });
        assert_eq!(host.decide(&ip(2)), Decision::Kernel(Why::Unknown));
        host.follow();
        assert!(host.is_here(&ip(2)) && host.is_here(&ip6(2)));
    });
}

#[test]
fn with_rules_of_an_administrators_the_kernel_is_asked() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let (link, far) = (host.interface, Ip::v4([203, 0, 113, 7]));
        let other = host.admin.another("other");
        host.admin.address(Change::Add, other, (v4(7, 0, 1), 24)).expect("an address");
        host.admin.rule(Change::Add, (ip(1), 32), 100, 77).expect("a rule");
        let special = Route { gateway: Some(ip(2)), table: 77, ..Route::new((Ip::UNSPECIFIED_V4, 0), link) };
        host.admin.route(Change::Add, &special).expect("a route");
        host.follow();
        assert_eq!([false, true].map(|is_v6| host.mirror.policy(is_v6)), [Policy::Rules, Policy::Mirrored]);
        assert_eq!((host.decide(&far), host.is_here(&ip6(2))), (Decision::Ask(Policy::Rules), true));

        let mut asker = Asker::open(link).expect("netlink");
        let epoch = host.with(|stack| stack.parts.ip.epoch);
        let question = Question { destination: far, source: Some(ip(1)), ..Question::default() };
        let answer = asker.ask(&question, epoch).expect("an answer");
        let Answer::Ours(route) = answer else { panic!("{answer:?}") };
        assert_eq!((route.gateway, route.source, route.prefix_len), (ip(2), ip(1), 128));
        let unbound = Question { source: None, ..question };
        let answers = [far, v4(7, 0, 2), ip(1)]
            .map(|destination| asker.ask(&Question { destination, ..unbound }, epoch).expect("an answer"));
        assert_eq!(
            answers,
            [Answer::Nowhere(Errno(libc::ENETUNREACH)), Answer::Elsewhere, Answer::Elsewhere]
        );
        assert_eq!(host.with(|stack| admit(stack.parts, &answer, epoch)), Admitted::Yes);
        assert_eq!(host.with(|stack| admit(stack.parts, &answer, epoch.wrapping_sub(1))), Admitted::Old);
        let way = host.with(|stack| stack.way(&far)).expect("it goes there");
        assert_eq!((way.next_hop, way.source), (ip(2), ip(1)));
        let conflict = Answer::Ours(stack::ip::route::Route { gateway: ip(3), ..route });
        assert_eq!(host.with(|stack| admit(stack.parts, &conflict, epoch)), Admitted::Conflict);

        // A change empties what was asked: nobody uses this route, so it goes.
        host.admin.route(Change::Add, &Route::new((v4(9, 9, 0), 24), link)).expect("a route");
        host.follow();
        assert_ne!(host.with(|stack| stack.parts.ip.epoch), epoch);
        assert!(host.with(|stack| stack.way(&far)).is_err());

        // And when the rules are the usual ones again the routes are.
        host.admin.rule(Change::Remove, (ip(1), 32), 100, 77).expect("gone");
        host.follow();
        assert_eq!(host.mirror.policy(false), Policy::Mirrored);
        assert!(host.is_here(&ip(2)) && host.is_here(&v4(9, 9, 1)) && !host.is_here(&far));
    });
}

#[test]
fn connections_keep_their_way_when_rules_come() {
    on_a_cable(|| {
        let mut host = Host::new(&limits());
        let link = host.interface;
        host.with(|stack| {
            let socket = stack.parts.tcp_socket(true, 0).expect("room");
            stack.connect(socket, &ip(1), (&ip(2), 80)).expect_err("it goes on");
        });
        host.admin.rule(Change::Add, (v4(7, 0, 1), 32), 100, 77).expect("a rule");
        host.follow();
        assert_eq!(host.decide(&ip(2)), Decision::Ask(Policy::Rules));
        let way = host.with(|stack| stack.way(&ip(2))).expect("as before");
        assert_eq!((way.route.prefix_len, way.source), (128, ip(1)), "for this destination alone");
        assert!(host.with(|stack| stack.way(&ip(3))).is_err());
        // It goes another way now: by a gateway, and then not at all.
        let host_route = Route { gateway: Some(ip(4)), ..Route::new((ip(2), 32), link) };
        host.admin.route(Change::Add, &host_route).expect("a route");
        host.follow();
        assert_eq!(host.with(|stack| stack.way(&ip(2))).map(|way| way.next_hop), Ok(ip(4)));
        let nowhere = Route { kind: 7, interface: 0, gateway: None, ..host_route };
        host.admin.route(Change::Remove, &host_route).expect("gone");
        host.admin.route(Change::Add, &nowhere).expect("a route");
        host.follow();
        assert!(host.with(|stack| stack.way(&ip(2))).is_err());
    });
}

#[test]
fn more_routes_than_there_is_place_for_are_asked_for() {
    on_a_cable(|| {
        let mut host = Host::new(&Limits { routes: 16, ..limits() });
        let link = host.interface;
        let add = |host: &mut Host, change, count: u8| {
            for at in 0..count {
                host.admin.route(change, &Route::new((v4(9, at, 0), 24), link)).expect("a route");
            }
            host.follow();
        };
        assert_eq!(host.mirror.policy(false), Policy::Mirrored);
        add(&mut host, Change::Add, 20);
        assert_eq!([false, true].map(|is_v6| host.mirror.policy(is_v6)), [Policy::Routes, Policy::Mirrored]);
        assert_eq!((host.decide(&v4(9, 1, 1)), host.is_here(&ip6(2))), (Decision::Ask(Policy::Routes), true));
        // More than are read at all.
        for at in 20..200 {
            host.admin.route(Change::Add, &Route::new((v4(9, at, 0), 24), link)).expect("a route");
        }
        host.follow();
        assert_eq!(host.mirror.policy(false), Policy::Routes);
        add(&mut host, Change::Remove, 200);
        assert_eq!(host.mirror.policy(false), Policy::Mirrored);
        assert!(host.is_here(&ip(2)));
        // Other interfaces' need no place.
        let other = host.admin.another("other");
        for at in 0..60 {
            host.admin.route(Change::Add, &Route::new((v4(9, at, 0), 24), other)).expect("a route");
        }
        host.follow();
        assert_eq!((host.mirror.policy(false), host.is_here(&v4(9, 1, 1))), (Policy::Mirrored, false));
        assert_eq!(MAIN, 254);
    });
}
