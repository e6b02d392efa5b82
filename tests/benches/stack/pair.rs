//! Two hosts in one thread and a cable between them, of our stack or of smoltcp, behind the same calls.

use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::IpAddress;
use stack::device::Link;
use stack::error::Error;
use stack::region::slab::Handle;

use super::card::Offload;
use super::echo::clock_cost;
use super::far::PORT;
use super::machine::{Machine, ip, limits};
use super::server::Server;
use super::smol::{self, Smol};

/// Which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// Two hosts.
pub(crate) trait Pair {
    /// A socket of either host.
    type Socket: Copy;
    /// The client begins to connect.
    fn connect(&mut self) -> Self::Socket;
    /// The server's next connection.
    fn accept(&mut self) -> Self::Socket;
    /// As many bytes as there is room for.
    fn send(&mut self, side: Side, socket: Self::Socket, text: &[u8]) -> usize;
    /// Bytes that were read; 0 is the end; `None` if nothing is there.
    fn receive(&mut self, side: Side, socket: Self::Socket, to: &mut [u8]) -> Option<usize>;
    /// close(2).
    fn close(&mut self, side: Side, socket: Self::Socket);
    /// Carries packets and lets both hosts look at them, until the cable is empty.
    fn exchange(&mut self);
    /// Virtual time goes on; timers run.
    fn advance(&mut self, ns: u64);
    /// What was spent on carrying, which is no stack's.
    fn carried(&self) -> Duration;
}

/// Our stack at both ends.
pub(crate) struct OurPair {
    hosts: [Machine; 2],
    listener: Handle,
    carried: Duration,
    /// What a look at the clock takes: there are two for each carrying, one of which is in its time.
    clock: Duration,
}

impl OurPair {
    /// Room for so many connections at each host.
    pub(crate) fn new(connections: u32, (link, offload): (Link, Offload)) -> Self {
        let limits = limits(connections, 1024, 16_384);
        let mut hosts =
            [(1, 2), (2, 1)].map(|(number, peer)| Machine::new(number, peer, &limits, (link, offload)));
        let listener = hosts[1].listen(PORT, 4096);
        Self { hosts, listener, carried: Duration::ZERO, clock: Duration::from_nanos(clock_cost()) }
    }

    fn host(&mut self, side: Side) -> &mut Machine {
        &mut self.hosts[side as usize]
    }

    /// Packets that found no room on a card.
    pub(crate) fn lost(&self) -> u64 {
        self.hosts.iter().map(|host| host.card.lost).sum()
    }
}

impl Pair for OurPair {
    type Socket = Handle;

    fn connect(&mut self) -> Handle {
        let client = self.host(Side::Client);
        let socket = client.parts.tcp_socket(false, 0).expect("room");
        assert_eq!(client.stack().connect(socket, &ip(1), (&ip(2), PORT)), Err(Error::InProgress));
        socket
    }

    fn accept(&mut self) -> Handle {
        let listener = self.listener;
        self.host(Side::Server).stack().accept(listener, 0).expect("a connection")
    }

    fn send(&mut self, side: Side, socket: Handle, text: &[u8]) -> usize {
        match self.host(side).stack().send(socket, &[text], false) {
            Ok(len) => len,
            Err(Error::WouldBlock) => 0,
            Err(error) => panic!("send: {error:?}"),
        }
    }

    fn receive(&mut self, side: Side, socket: Handle, to: &mut [u8]) -> Option<usize> {
        match self.host(side).stack().receive(socket, &mut [to]) {
            Ok(len) => Some(len),
            Err(Error::WouldBlock) => None,
            Err(error) => panic!("receive: {error:?}"),
        }
    }

    fn close(&mut self, side: Side, socket: Handle) {
        self.host(side).stack().close(socket).expect("a socket");
    }

    fn exchange(&mut self) {
        loop {
            let [client, server] = &mut self.hosts;
            let from = Clock::now();
            let there = client.card.carry(&mut server.card);
            let back = server.card.carry(&mut client.card);
            self.carried += from.elapsed() + self.clock;
            if there > 0 {
                server.run();
            }
            if back > 0 {
                client.run();
            }
            if there + back == 0 {
                return;
            }
        }
    }

    fn advance(&mut self, ns: u64) {
        for host in &mut self.hosts {
            host.now.0 += ns;
            host.run();
        }
    }

    fn carried(&self) -> Duration {
        self.carried
    }
}

/// smoltcp at both ends. Its sockets are used again: a client's without TIME-WAIT, a server's to listen.
pub(crate) struct SmolPair {
    hosts: [Smol; 2],
    /// Sockets that may connect.
    free: Vec<SocketHandle>,
    /// Sockets that listen, in the order in which connections find them.
    listening: VecDeque<SocketHandle>,
    port: u16,
    carried: Duration,
    clock: Duration,
}

impl SmolPair {
    /// So many connections at each host; the last one has buffers of this size.
    pub(crate) fn new(connections: u32, last: usize) -> Self {
        let mut pair = Self {
            hosts: [Smol::new(1), Smol::new(2)],
            free: Vec::new(),
            listening: VecDeque::new(),
            port: 0,
            carried: Duration::ZERO,
            clock: Duration::from_nanos(clock_cost()),
        };
        for number in 1..=connections {
            let buffer = if number == connections { last } else { 4096 };
            pair.free.push(pair.hosts[0].sockets.add(smol::socket(buffer)));
            let mut socket = smol::socket(buffer);
            socket.listen(PORT).expect("a port");
            pair.listening.push_back(pair.hosts[1].sockets.add(socket));
        }
        pair.free.reverse();
        pair
    }

    fn socket(&mut self, side: Side, socket: SocketHandle) -> &mut Socket<'static> {
        self.hosts[side as usize].sockets.get_mut(socket)
    }
}

impl Pair for SmolPair {
    type Socket = SocketHandle;

    fn connect(&mut self) -> SocketHandle {
        let handle = self.free.pop().expect("a socket");
        self.port = (self.port + 1) % 28_000;
        let port = 32_768 + self.port;
        let (socket, context) = self.hosts[0].with_context(handle);
        socket.abort();
        socket.connect(context, (IpAddress::v4(10, 0, 0, 2), PORT), port).expect("a closed socket");
        handle
    }

    fn accept(&mut self) -> SocketHandle {
        let handle = self.listening.pop_front().expect("a socket");
        assert!(self.socket(Side::Server, handle).may_send());
        handle
    }

    fn send(&mut self, side: Side, socket: SocketHandle, text: &[u8]) -> usize {
        self.socket(side, socket).send_slice(text).expect("a connection")
    }

    fn receive(&mut self, side: Side, handle: SocketHandle, to: &mut [u8]) -> Option<usize> {
        let socket = self.socket(side, handle);
        match socket.recv_slice(to) {
            Ok(0) => None,
            Ok(len) => Some(len),
            Err(_) => Some(0),
        }
    }

    fn close(&mut self, side: Side, socket: SocketHandle) {
        self.socket(side, socket).close();
        match side {
            Side::Client => self.free.push(socket),
            Side::Server => self.listening.push_back(socket),
        }
    }

    /// What the programs did since is seen by the first look.
    fn exchange(&mut self) {
        self.hosts.iter_mut().for_each(Smol::run);
        loop {
            let [client, server] = &mut self.hosts;
            let from = Clock::now();
            let there = client.wire.sent.len();
            server.wire.arrived.append(&mut client.wire.sent);
            let back = server.wire.sent.len();
            client.wire.arrived.append(&mut server.wire.sent);
            self.carried += from.elapsed() + self.clock;
            if there > 0 {
                server.run();
            }
            if back > 0 {
                client.run();
            }
            if there + back == 0 {
                break;
            }
        }
        // A server's socket that has ended listens again.
        for at in (0..self.listening.len()).rev() {
            let handle = self.listening[at];
            let socket = self.socket(Side::Server, handle);
            if socket.state() != State::Closed {
                break;
            }
            socket.listen(PORT).expect("a port");
        }
    }

    fn advance(&mut self, ns: u64) {
        for host in &mut self.hosts {
            Server::advance(host, ns);
            host.run();
        }
    }

    fn carried(&self) -> Duration {
        self.carried
    }
}
