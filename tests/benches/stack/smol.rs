//! smoltcp 0.14 as the peer: the same packets, the same clock, as many sockets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::far::{MESSAGE, PORT, Packet, Seen};
use super::server::Server;

/// The clock of timestamps, which smoltcp asks a plain function for.
static CLOCK_MS: AtomicU32 = AtomicU32::new(1);

fn tsval() -> u32 {
    CLOCK_MS.load(Ordering::Relaxed)
}

/// Two queues of packets; buffers go round.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) arrived: VecDeque<Vec<u8>>,
    pub(crate) sent: VecDeque<Vec<u8>>,
    pub(crate) spare: Vec<Vec<u8>>,
}

pub(crate) struct Arrived<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);
pub(crate) struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>, Vec<u8>);

impl RxToken for Arrived<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        let result = look(&self.0);
        self.1.push(self.0);
        result
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, write: F) -> R {
        self.1.resize(len, 0);
        let result = write(&mut self.1);
        self.0.push_back(self.1);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived<'a>;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        let buffer = self.spare.pop().unwrap_or_default();
        Some((Arrived(packet, &mut self.spare), Leaving(&mut self.sent, buffer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        let buffer = self.spare.pop().unwrap_or_default();
        Some(Leaving(&mut self.sent, buffer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, 1500);
        capabilities
    }
}

/// A host of smoltcp.
pub(crate) struct Smol {
    pub(crate) wire: Wire,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) handles: Vec<SocketHandle>,
    accepted: usize,
    now: u64,
}

/// A socket with buffers of this size.
pub(crate) fn socket(buffer: usize) -> Socket<'static> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; buffer]), SocketBuffer::new(vec![0; buffer]));
    socket.set_tsval_generator(Some(tsval));
    socket.set_congestion_control(CongestionControl::Cubic);
    socket
}

impl Smol {
    /// The host with this number.
    pub(crate) fn new(number: u8) -> Self {
        let mut wire = Wire::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::from_micros(0));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 8)).expect("room");
        });
        Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            handles: Vec::new(),
            accepted: 0,
            now: 1 << 30,
        }
    }

    /// A host with so many sockets that wait for a connection each.
    pub(crate) fn listening(sockets: u32) -> Self {
        let mut host = Self::new(1);
        for _ in 0..sockets {
            let mut socket = socket(4096);
            socket.listen(PORT).expect("a port");
            host.handles.push(host.sockets.add(socket));
        }
        host
    }

    pub(crate) fn run(&mut self) {
        let now = Instant::from_micros((self.now / 1000) as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    /// A socket, and what connecting it needs.
    pub(crate) fn with_context(
        &mut self,
        handle: SocketHandle,
    ) -> (&mut Socket<'static>, &mut smoltcp::iface::Context) {
        (self.sockets.get_mut(handle), self.interface.context())
    }
}

impl Server for Smol {
    fn deliver(&mut self, packet: &Packet) {
        let mut buffer = self.wire.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet.ip());
        self.wire.arrived.push_back(buffer);
    }

    fn poll(&mut self) {
        self.run();
    }

    /// The socket that took the connection is the first that listened.
    fn accept(&mut self) -> usize {
        self.accepted += 1;
        self.accepted - 1
    }

    fn echo(&mut self, connection: usize) -> usize {
        self.run();
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handles[connection]);
        let mut buffer = [0; 2048];
        let len = socket.recv_slice(&mut buffer).expect("text");
        assert_eq!(socket.send_slice(&buffer[..len]), Ok(MESSAGE));
        self.run();
        len
    }

    fn take(&mut self) -> Option<Seen> {
        let packet = self.wire.sent.pop_front()?;
        let seen = Seen::parse(&packet, false).expect("a segment whose checksums hold");
        self.wire.spare.push(packet);
        Some(seen)
    }

    fn advance(&mut self, ns: u64) {
        self.now += ns;
        CLOCK_MS.store((self.now / 1_000_000) as u32, Ordering::Relaxed);
    }
}
