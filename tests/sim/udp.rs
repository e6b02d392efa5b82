//! Two hosts with sockets of UDP, and a wire between them.

use stack::error::Error;
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::stack::Stack;
use stack::stats::Counter;
use stack::time::Duration;
use stack::udp::receive::Datagram;
use stack::udp::send::Sending;
use stack::wire::ip::Ip;

use super::path::Path;
use super::port::{Port, Setup};
use super::raw::{ip, ip6};
use super::tcp::{TcpHost, limits};
use super::{Node, Simulation};

/// A millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;
/// A wire that only takes its time.
pub const BASE: Path = Path::delayed(Duration::from_millis(5));
/// Longer than a datagram and its answer take.
pub const WHILE: Duration = Duration::from_millis(50);

/// A host whose invariants are looked at after each poll.
#[must_use]
pub fn host(number: u8) -> TcpHost {
    let mut host = TcpHost::new(number, &limits(1024));
    host.checks = true;
    host
}

/// The address of a host.
#[must_use]
pub fn address(number: u8, is_v6: bool) -> Ip {
    if is_v6 { ip6(number) } else { ip(number) }
}

/// Two hosts and a wire.
pub struct Net {
    /// The network.
    pub network: Simulation<TcpHost>,
    /// Both of them.
    pub nodes: [Node; 2],
}

impl Net {
    /// Hosts with such devices, and a wire with this path each way.
    #[must_use]
    pub fn with_setup(seed: u64, path: Path, hosts: [TcpHost; 2], setup: impl Fn(u8) -> Setup) -> Self {
        let mut network = Simulation::new(seed);
        let [a, b] = hosts;
        let nodes = [network.add(a, setup(1)), network.add(b, setup(2))];
        network.wire(nodes[0], nodes[1], path, path);
        // What is said when a host comes is over.
        network.run_for(Duration::from_secs(3));
        Self { network, nodes }
    }

    /// Two hosts with plain devices, and a wire with a delay.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_setup(seed, BASE, [host(1), host(2)], Setup::plain)
    }

    /// Does something with the stack of one.
    pub fn on<R>(&mut self, host: usize, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(self.nodes[host]);
        host.with(now, port, act)
    }

    /// A socket without a port.
    ///
    /// # Panics
    /// Without room for it.
    pub fn socket(&mut self, host: usize, is_v6: bool) -> Handle {
        self.on(host, |stack| stack.udp_open(is_v6, 0)).expect("room")
    }

    /// A socket at a port of any address.
    ///
    /// # Panics
    /// If somebody has it.
    pub fn bound(&mut self, host: usize, is_v6: bool, port: u16) -> Handle {
        let socket = self.socket(host, is_v6);
        let any = if is_v6 { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 };
        self.on(host, |stack| stack.parts.udp_bind(socket, (&any, port))).expect("a free port");
        socket
    }

    /// Sets its options.
    ///
    /// # Panics
    /// Without room for them.
    pub fn set(&mut self, host: usize, socket: Handle, values: &Values) {
        self.on(host, |stack| stack.parts.set_udp_options(socket, values)).expect("room");
    }

    /// Sends a datagram, given in two pieces.
    ///
    /// # Errors
    /// sendmsg(2)'s.
    pub fn send_to(
        &mut self,
        host: usize,
        socket: Handle,
        to: (Ip, u16),
        text: &[u8],
    ) -> Result<usize, Error> {
        let (first, second) = text.split_at(text.len() / 3);
        let how = Sending { to: Some(to), ..Sending::default() };
        self.on(host, |stack| stack.udp_send(socket, &[first, second], &how))
    }

    /// Sends a datagram to the socket's peer.
    ///
    /// # Errors
    /// sendmsg(2)'s.
    pub fn send(&mut self, host: usize, socket: Handle, text: &[u8]) -> Result<usize, Error> {
        self.on(host, |stack| stack.udp_send(socket, &[text], &Sending::default()))
    }

    /// The next datagram, whole.
    ///
    /// # Errors
    /// recvmsg(2)'s.
    ///
    /// # Panics
    /// At the end that shutdown(2) makes.
    pub fn receive(&mut self, host: usize, socket: Handle) -> Result<(Datagram, Vec<u8>), Error> {
        let mut buffer = vec![0; 66_000];
        let (first, second) = buffer.split_at_mut(10);
        let got = self.on(host, |stack| stack.udp_receive(socket, &mut [first, second]))?;
        let got = got.expect("no end");
        buffer.truncate(got.copied);
        assert_eq!(got.copied, got.len);
        Ok((got, buffer))
    }

    /// What is ready.
    pub fn ready(&mut self, host: usize, socket: Handle) -> u64 {
        self.on(host, |stack| stack.udp_events(socket).ready)
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, host: usize, counter: Counter) -> u64 {
        self.network.look(self.nodes[host]).counter(counter)
    }

    /// Lets a datagram and its answer pass.
    pub fn run(&mut self) {
        self.network.run_for(WHILE);
    }

    /// These sockets are closed, and then nothing is held.
    ///
    /// # Panics
    /// If something is.
    pub fn end(mut self, sockets: &[(usize, Handle)]) {
        for (host, socket) in sockets {
            self.on(*host, |stack| stack.udp_close(*socket)).expect("a socket");
        }
        self.network.run_for(Duration::from_secs(100));
        for node in self.nodes {
            // What is complete is seen by who polls.
            self.network.host(node);
            self.network.run_for(Duration(MS));
            let host = self.network.host(node);
            host.check();
            let parts = host.parts();
            let slabs = &parts.slabs;
            assert_eq!([slabs.udp_sockets.used(), slabs.memberships.used(), slabs.bounds.used()], [0; 3]);
            assert_eq!(parts.pool.used() - parts.pool.filled(), 0, "frames");
        }
    }
}
