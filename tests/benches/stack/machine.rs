//! A host: a region, the shared words beside it, a card, and the stack over all three for as long as a call takes.

use stack::device::Link;
use stack::hash::Secret;
use stack::ip::Interface;
use stack::ip::neighbour::State;
use stack::ip::route::{Route, V4_BITS};
use stack::ports::Lease;
use stack::region::slab::Handle;
use stack::region::{Layout, Limits, Parts, Shared};
use stack::stack::{Polled, Stack};
use stack::time::Instant;
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use super::card::{Card, FRAME, Offload};

/// The host.
pub(crate) struct Machine {
    pub(crate) parts: Parts<'static>,
    pub(crate) shared: Shared<'static>,
    pub(crate) card: Card,
    pub(crate) now: Instant,
}

/// The address of the host with this number.
pub(crate) const fn ip(number: u8) -> Ip {
    Ip::v4([10, 0, 0, number])
}

/// Room for so many connections, of which `busy` may have something in their queues at once.
pub(crate) fn limits(connections: u32, busy: u32, frames: u32) -> Limits {
    Limits {
        tcp_sockets: connections + 8,
        // A quarter of them is reception's alone.
        traffics: busy + busy / 3 + 2,
        frames,
        frame_size: FRAME as u32,
        syns: 4096,
        listeners: 8,
        udp_sockets: 1,
        bounds: connections.min(65_536) + 64,
        blocks: 1024,
        ..Limits::SMALL
    }
}

impl Machine {
    /// The host with this number, whose neighbour on the wire is `peer`.
    pub(crate) fn new(number: u8, peer: u8, limits: &Limits, (link, offload): (Link, Offload)) -> Self {
        let layout = Layout::new(limits).expect("limits");
        let bytes = super::sys::bytes(layout.size).expect("memory for the region");
        let words = super::sys::words(stack::region::shared::words(limits)).expect("memory for its words");
        let parts =
            Parts::create(bytes, limits, Secret([0x1234 + u64::from(number), 0x5678])).expect("a region");
        let mut machine = Self {
            parts,
            shared: Shared::split(words, limits).expect("its words"),
            card: Card::new(limits.frames, link, offload).expect("memory for frames"),
            now: Instant(1_000_000_000),
        };
        machine.configure(number, peer);
        machine.poll();
        machine
    }

    /// Its address, its neighbour, behind whom everybody else is, and the ports that it may connect from.
    fn configure(&mut self, number: u8, peer: u8) {
        let parts = &mut self.parts;
        let address = |number| ethernet::Address([2, 0, 0, 0, 0, number]);
        parts.set_interface(&Interface { link: address(number), ..Interface::default() });
        parts.join_subnet(&ip(number), V4_BITS + 24).expect("room");
        let (destination, gateway) = (Ip::UNSPECIFIED_V4, ip(peer));
        let route = Route { destination, prefix_len: V4_BITS, gateway, ..Route::default() };
        parts.add_route(&route).expect("room");
        parts
            .set_neighbour(&gateway, Some(address(peer)), State::Permanent, self.now)
            .expect("nothing waits");
        let handle = parts.slabs.leases.take(parts.leases).expect("room");
        let lease = &mut parts.leases[handle.index as usize];
        let (first, count) = (32_768, 28_232);
        *lease = Lease { tag: lease.tag, first, count, protocols: 3, is_ephemeral: 1, reserved: 0 };
    }

    /// A socket that listens at this port.
    pub(crate) fn listen(&mut self, port: u16, backlog: u32) -> Handle {
        let socket = self.parts.tcp_socket(false, 0).expect("room");
        self.parts.tcp_bind(socket, (&Ip::UNSPECIFIED_V4, port)).expect("a free port");
        self.stack().listen(socket, backlog).expect("a listener");
        socket
    }

    /// The stack at this time.
    pub(crate) fn stack(&mut self) -> Stack<'_, 'static, Card> {
        let Self { parts, shared, card, now, .. } = self;
        Stack { parts, shared, device: card, now: *now }
    }

    /// Rounds of the stack until nothing is left to do at this time.
    pub(crate) fn run(&mut self) {
        while self.poll().more {}
    }

    /// One round of the stack.
    pub(crate) fn poll(&mut self) -> Polled {
        self.stack().poll()
    }
}
