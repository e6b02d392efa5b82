//! Our stack over AF_XDP on one end of a cable, in real time. Its calls spin: the far end is another core's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use driver::steering::{Claim, Place, Protocol};
use driver::xdp::device::AfXdp;
use driver::xdp::open::{Opened, Request, Way, open};
use stack::device::Device;
use stack::ip::Interface;
use stack::region::Limits;
use stack::region::slab::Handle;
use stack::stack::Stack;
use stack::time::Instant;
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use super::calls::Calls;
use super::clock;
use super::namespace::Namespace;
use super::veth::NAME;
use crate::sim::tcp::TcpHost;

/// Whose the packets are.
const OWNER: u32 = 1;

/// How many of two ends have read all that they wait for.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<AtomicU32>);

impl Ended {
    /// One more has.
    pub fn end(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Both have.
    #[must_use]
    pub fn both(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 2
    }
}

/// The host.
pub struct Xsk {
    /// Its region.
    pub host: TcpHost,
    /// Its interface.
    pub opened: Opened,
}

impl Xsk {
    /// The host with this number, in this namespace, which knows the neighbour with that number. What comes to `port` is ours, and to the
    /// ports that it connects from.
    ///
    /// # Panics
    /// When the interface can't be opened.
    #[must_use]
    pub fn new(
        namespace: &Namespace,
        (number, neighbour): (u8, u8),
        frames: u32,
        way: Option<Way>,
        port: u16,
    ) -> Self {
        let opened = namespace.inside(move || open(&Request { name: NAME, owner: OWNER, frames, way }));
        let opened = opened.unwrap_or_else(|refused| panic!("{refused}"));
        let limits = Limits {
            frames,
            frame_size: u32::from(opened.device.capabilities().frame_size),
            tcp_sockets: 1024,
            traffics: 256,
            bounds: 1024,
            ..Limits::SMALL
        };
        let link = ethernet::Address([2, 0, 0, 0, 0, number]);
        // The kernel answers for the address, and resolves its neighbours.
        let host = TcpHost::new(number, &limits)
            .on(Interface { link, ..Interface::default() })
            .knowing(&[neighbour]);
        let mut xsk = Self { host, opened };
        let addresses = xsk.host.addresses;
        for (slot, address) in (0..).zip(&addresses) {
            xsk.opened.steering.set_local(address, slot).expect("room");
        }
        xsk.take(port);
        for port in 40_000..41_000 {
            xsk.take(port);
        }
        xsk.with(|_| ());
        xsk
    }

    /// What comes to a port is ours from now on.
    ///
    /// # Panics
    /// Never: every port has a place.
    pub fn take(&mut self, port: u16) {
        for slot in 0..2 {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let place = Place { slot, protocol, port };
                let claim = Claim { owner: OWNER, mixed: false };
                self.opened.steering.claim(place, Some(claim)).expect("a place");
                self.opened.requests.want(place, true);
            }
        }
    }

    /// Closes a socket, and goes on until both ends have come so far: what one has sent may have to be sent again.
    pub fn part(&mut self, socket: Handle, ended: &Ended) {
        self.close(socket);
        ended.end();
        while !ended.both() {
            self.turn(clock());
        }
    }

    /// Pays the kick that is owed.
    fn kick(&mut self) {
        if self.opened.device.flush() {
            self.opened.device.kick();
        }
    }
}

impl Calls for Xsk {
    type Device = AfXdp;

    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, AfXdp>) -> R) -> R {
        let result = self.host.with(clock(), &mut self.opened.device, |stack| {
            while stack.poll().more {}
            act(stack)
        });
        self.kick();
        result
    }

    /// It spins.
    fn turn(&mut self, _: Instant) {
        self.with(|_| ());
    }

    fn address(&self, is_v6: bool) -> Ip {
        self.host.addresses[usize::from(is_v6)]
    }
}
