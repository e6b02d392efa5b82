//! A connection of the stack's, over AF_XDP, to the kernel at the other end of a cable, while an administrator changes what it depends on:
//! it goes on, or waits until it can, as one of the kernel's does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixDatagram;
use std::thread::JoinHandle;

use driver::netlink::neighbours::resolve;
use driver::passed;
use driver::sys::Fd;
use driver::xdp::device::AfXdp;
use engine::control::passed::Passed;
use engine::control::{Mirror, Next};
use harness::sim::raw::{ip, ip6};
use harness::sim::tcp::text;
use harness::wire::admin::{Admin, Change, Route};
use harness::wire::calls::Calls;
use harness::wire::clock;
use harness::wire::namespace::Namespace;
use harness::wire::sys;
use harness::wire::veth::{Cable, NAME};
use harness::wire::xsk::Xsk;
use stack::error::Error;
use stack::events::{FAILED, HUNG_UP};
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::stack::Stack;
use stack::time::Instant;
use stack::wire::ip::Ip;

const PORT: u16 = 7000;
const FRAMES: u32 = 4096;

/// The host whose stack has the kernel's tables.
struct Fed {
    xsk: Xsk,
    mirror: Mirror,
    admin: Admin,
    interface: u32,
}

impl Fed {
    fn new(near: &Namespace) -> Self {
        let mut xsk = Xsk::new(near, (1, 2), FRAMES, None, PORT);
        // All that it knows is to come from the kernel.
        xsk.with(|stack| [ip(2), ip6(2)].iter().for_each(|ip| stack.remove_neighbour(ip)));
        let limits = xsk.host.parts().header.limits;
        let (mirror, admin, interface) = near.inside(move || {
            let mut admin = Admin::new();
            let interface = admin.number(NAME);
            (Mirror::open(interface, &limits).expect("a mirror"), admin, interface)
        });
        Self { xsk, mirror, admin, interface }
    }

    /// What a service thread does, and the keeper.
    fn follow(&mut self) {
        let Self { xsk, mirror, admin, interface } = self;
        let mut next = Next::Read;
        while next != Next::Wait {
            if next == Next::Read {
                mirror.read().expect("netlink");
            }
            next = xsk.with(|stack| mirror.apply(stack));
        }
        if xsk.with(|stack| mirror.wanted(stack.parts)) {
            for ip in mirror.questions(clock()) {
                // While the link is off the kernel asks nobody.
                let _ = resolve(admin.netlink(), *interface, ip);
            }
        }
    }

    /// The way to the other end.
    fn way(&mut self) -> Result<stack::ip::tables::Way, Error> {
        self.with(|stack| stack.way(&ip(2)))
    }

    /// Goes on until this holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let until = clock() + stack::time::Duration::from_secs(60);
        while !holds(self) {
            assert!(clock() < until, "{what} takes too long");
            self.turn(until);
        }
    }
}

impl Calls for Fed {
    type Device = AfXdp;

    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, AfXdp>) -> R) -> R {
        self.follow();
        self.xsk.with(act)
    }

    fn turn(&mut self, until: Instant) {
        self.follow();
        self.xsk.turn(until);
    }

    fn address(&self, is_v6: bool) -> Ip {
        self.xsk.address(is_v6)
    }
}

/// The kernel's program: it sends back what it gets, until there is no more.
fn echo(far: &Namespace) -> (SocketAddr, JoinHandle<()>) {
    let listener = far
        .inside(|| TcpListener::bind(SocketAddr::new([0, 0, 0, 0].into(), 0)))
        .expect("a port of the kernel's");
    let at = listener.local_addr().expect("its name");
    let thread = far.spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = vec![0; 1 << 16];
        loop {
            let len = stream.read(&mut buffer).expect("the kernel receives");
            if len == 0 {
                break;
            }
            stream.write_all(&buffer[..len]).expect("the kernel sends");
        }
    });
    (at, thread)
}

/// Whether the connection carries bytes both ways.
fn carries(fed: &mut Fed, socket: Handle, seed: u64) {
    let sent = text(seed, 150_000);
    let (mut done, mut got) = (0, Vec::new());
    let mut buffer = vec![0; 1 << 16];
    while got.len() < sent.len() {
        done += fed.send(socket, &sent[done..]);
        match fed.with(|stack| stack.receive(socket, &mut [&mut buffer])) {
            Ok(len) => {
                assert_ne!(len, 0, "the kernel's end is there");
                got.extend_from_slice(&buffer[..len]);
            }
            Err(Error::WouldBlock) => fed.turn(clock()),
            Err(error) => panic!("{error:?} after {} of {}", got.len(), sent.len()),
        }
    }
    assert!(got == sent, "what came back is something else");
}

#[test]
fn a_connection_lives_through_what_an_administrator_does() {
    let Some([near, far]) = Cable::default().lay() else { return };
    // Whoever gets another link address says so.
    far.set(&format!("net/ipv4/conf/{NAME}/arp_notify"), "1");
    let mut fed = Fed::new(&near);
    let (at, kernel) = echo(&far);
    let socket = fed.connect(ip(2), at.port(), &Values::default()).expect("a connection");
    carries(&mut fed, socket, 1);

    // The link takes less, and what is larger is lost (is_skb_forwardable): then as much as before again.
    for (seed, mtu) in [(2, 1300), (3, 1500)] {
        for host in [&near, &far] {
            host.inside(move || sys::set_mtu(NAME, mtu)).expect("an MTU");
        }
        fed.until("the MTU", |fed| fed.way().is_ok_and(|way| u32::from(way.link_mtu) == mtu));
        carries(&mut fed, socket, seed);
    }

    // The other end has another card.
    far.inside(|| {
        let mut admin = Admin::new();
        let link = admin.number(NAME);
        admin.set_link(link, [2, 0, 0, 0, 7, 7]).expect("a link address");
    });
    fed.until("who moved", |fed| {
        fed.with(|stack| {
            let hash = stack.parts.address_hash(&ip(2));
            let found = stack.parts.neighbour_cache(stack.now).find(&ip(2), hash).copied();
            found.and_then(|known| known.link()).is_some_and(|link| link.0 == [2, 0, 0, 0, 7, 7])
        })
    });
    carries(&mut fed, socket, 4);

    // The link is switched off, and on again.
    let link = fed.interface;
    fed.admin.switch(link, false).expect("off");
    fed.until("the link's end", |fed| fed.way() == Err(Error::NetworkUnreachable));
    assert_eq!(fed.send(socket, b"it waits"), 8);
    fed.admin.switch(link, true).expect("on");
    let mut waited = [0; 8];
    let mut done = 0;
    while done < waited.len() {
        done += fed.read(socket, &mut waited[done..]).expect("it has come back");
    }
    assert_eq!(&waited, b"it waits");
    carries(&mut fed, socket, 5);

    // Its address goes, and comes again.
    fed.admin.address(Change::Remove, link, (ip(1), 24)).expect("gone");
    fed.until("the address's end", |fed| fed.way().is_err());
    fed.admin.address(Change::Add, link, (ip(1), 24)).expect("an address");
    carries(&mut fed, socket, 6);

    // The way to its peer is another interface's for a while, and then a router's, which is the peer itself.
    let other = fed.admin.another("other");
    let away = Route::new((ip(2), 32), other);
    fed.admin.route(Change::Add, &away).expect("a route");
    fed.until("another way", |fed| fed.way() == Err(Error::NetworkUnreachable));
    fed.admin.route(Change::Remove, &away).expect("gone");
    carries(&mut fed, socket, 7);

    fed.close(socket);
    fed.join(kernel);
    fed.xsk.host.check();
}

#[test]
fn new_connections_hear_that_there_is_no_way_or_nobody() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    let mut fed = Fed::new(&near);
    let link = fed.interface;
    // Nobody has this address: the kernel asks three times.
    let refused = fed.connect(ip(99), PORT, &Values::default());
    assert_eq!(refused.err(), Some(Error::HostUnreachable));
    fed.admin.switch(link, false).expect("off");
    fed.until("the link's end", |fed| fed.way().is_err());
    let socket = fed.with(|stack| stack.parts.tcp_socket(false, 0)).expect("room");
    let refused = fed.with(|stack| stack.connect(socket, &Ip::UNSPECIFIED, (&ip(2), PORT)));
    assert_eq!(refused, Err(Error::NetworkUnreachable));
}

/// What is left to the kernel comes back: an error of a router's ends what waits for an answer, and of a large datagram's fragments a datagram
/// is made.
#[test]
fn errors_and_fragments_come_back_from_the_kernel() {
    const MINE: u16 = 40_500;
    let Some([near, far]) = Cable::default().lay() else { return };
    far.set("net/ipv4/ip_forward", "1");
    let mut fed = Fed::new(&near);
    let interface = fed.interface;
    let reads = near.inside(move || passed::Passed::open(interface)).expect("root may look");
    let (gives, takes) = UnixDatagram::pair().expect("a pair of sockets");
    let (mut passed, takes) = (Passed::default(), Fd::own(takes.into_raw_fd()));
    let mut buffer = vec![0; 1 << 16];
    let mut come_back = |fed: &mut Fed| {
        // What the keeper does.
        while let Some(len) = reads.next(&mut buffer).expect("the interface is on") {
            gives.send(&buffer[..len]).expect("room");
        }
        let is_any = passed.read(&takes).expect("messages");
        fed.with(|stack| passed.apply(stack));
        passed.applied();
        is_any
    };

    // The other end is a router that knows no way to this one.
    let lost = Ip::v4([203, 0, 113, 7]);
    let route = Route { gateway: Some(ip(2)), ..Route::new((lost, 32), interface) };
    fed.admin.route(Change::Add, &route).expect("a route");
    fed.until("a way", |fed| fed.with(|stack| stack.way(&lost)).is_ok());
    let socket = fed.with(|stack| stack.parts.tcp_socket(false, 0)).expect("room");
    let began = fed.with(|stack| stack.connect(socket, &ip(1), (&lost, PORT)));
    assert_eq!(began, Err(Error::InProgress));
    let mut is_told = false;
    fed.until("the router's word", |fed| {
        is_told |= come_back(fed);
        fed.with(|stack| stack.events(socket).ready) & (FAILED | HUNG_UP) != 0
    });
    let error = fed.with(|stack| stack.take_error(socket));
    assert_eq!(error, Ok(Some(Error::NetworkUnreachable)));
    assert!(is_told, "it came by the kernel");
    fed.close(socket);

    // A datagram that is longer than the link's packets.
    let receiver = fed.with(|stack| {
        let socket = stack.parts.udp_socket(false, 0).expect("room");
        stack.parts.udp_bind(socket, (&ip(1), MINE)).expect("a free port");
        socket
    });
    let whole = text(9, 1900);
    let sent = whole.clone();
    far.inside(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port of the kernel's");
        socket.send_to(&sent, SocketAddr::new([10, 0, 0, 1].into(), MINE)).expect("the kernel cuts it");
    });
    let mut got = vec![0; 4096];
    let mut len = None;
    fed.until("the fragments", |fed| {
        come_back(fed);
        len = fed.with(|stack| stack.udp_receive(receiver, &mut [&mut got])).ok();
        len.is_some()
    });
    assert!(got[..whole.len()] == whole, "{len:?}");
    fed.xsk.host.check();
}
