//! A connection of the stack's, over AF_XDP, to the kernel at the other end of a cable, while an administrator changes what it depends on:
//! it goes on, or waits until it can, as one of the kernel's does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use driver::netlink::neighbours::resolve;
use driver::xdp::device::AfXdp;
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
