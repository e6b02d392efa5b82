//! A host of smoltcp in the simulated network, and the program on it.

use std::cell::Cell;
use std::collections::VecDeque;

use harness::sim::Host;
use harness::sim::port::Port;
use harness::sim::raw::Raw;
use harness::sim::tcp::{PORT, TcpHost};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as Length, Instant as Moment};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use stack::time::Instant;
use stack::wire::ip::Ip;

/// One host of the network.
pub(crate) enum Either {
    /// With our stack.
    Ours(Box<TcpHost>),
    /// With smoltcp.
    Smol(Box<SmolHost>),
}

impl Either {
    pub(crate) fn ours(&mut self) -> &mut TcpHost {
        match self {
            Self::Ours(host) => host,
            Self::Smol(_) => panic!("it is smoltcp's"),
        }
    }

    /// What each of its programs has read.
    pub(crate) fn got(&self) -> Vec<&[u8]> {
        match self {
            Self::Ours(host) => host.talks.iter().map(|talk| talk.got.as_slice()).collect(),
            Self::Smol(host) => host.talks.iter().map(|talk| talk.got.as_slice()).collect(),
        }
    }

    /// Whether so many connections were made and all of them have ended.
    pub(crate) fn is_done(&self, connections: usize) -> bool {
        match self {
            Self::Ours(host) => host.talks.len() == connections && host.is_done(),
            Self::Smol(host) => {
                let ended = host.talks.iter().filter(|talk| talk.is_over).count();
                host.opens.is_empty() && ended == connections
            }
        }
    }
}

impl Host for Either {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        match self {
            Self::Ours(host) => host.poll(now, port),
            Self::Smol(host) => host.poll(now, port),
        }
    }
}

thread_local! {
    /// The clock of timestamps in milliseconds: smoltcp asks a plain function for it.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

/// How its sockets are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Bytes of each buffer.
    pub(crate) buffer: usize,
    pub(crate) timestamps: bool,
    pub(crate) control: CongestionControl,
    pub(crate) ack_delay_ms: Option<u64>,
    pub(crate) nagle: bool,
}

impl Kind {
    /// One of several, by a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let control = match seed % 3 {
            0 => CongestionControl::None,
            1 => CongestionControl::Reno,
            _ => CongestionControl::Cubic,
        };
        Self {
            buffer: [65_535, 4_000, 300_000, 17_000][seed as usize / 3 % 4],
            timestamps: seed.is_multiple_of(2),
            control,
            ack_delay_ms: [Some(10), None, Some(40)][seed as usize / 2 % 3],
            nagle: !seed.is_multiple_of(5),
        }
    }

    fn socket(&self) -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(self.control);
        socket.set_nagle_enabled(self.nagle);
        socket.set_ack_delay(self.ack_delay_ms.map(Length::from_millis));
        if self.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK.with(Cell::get)));
        }
        socket
    }
}

/// One connection as its program sees it.
pub(crate) struct Talk {
    socket: SocketHandle,
    text: Vec<u8>,
    sent: usize,
    /// What was read.
    pub(crate) got: Vec<u8>,
    is_finished: bool,
    /// Both directions have ended, or it was reset.
    pub(crate) is_over: bool,
    /// It was reset.
    pub(crate) is_reset: bool,
    /// It was connected.
    is_open: bool,
}

/// Packets on their way between our port and smoltcp.
#[derive(Default)]
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut bytes = vec![0; len];
        let result = write(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl smoltcp::phy::Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Moment) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = (Medium::Ip, 1500);
        capabilities
    }
}

/// The host.
pub(crate) struct SmolHost {
    /// Frames and rings are looked after by the raw host.
    raw: Raw,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    kind: Kind,
    addresses: [Ip; 2],
    listening: Vec<SocketHandle>,
    /// Its connections, in the order of their making.
    pub(crate) talks: Vec<Talk>,
    /// Connections that are to be made: when, where to, what is sent.
    pub(crate) opens: Vec<(Instant, Ip, Vec<u8>)>,
    /// What each accepted connection is answered with.
    pub(crate) answer: Vec<u8>,
    /// It reads nothing before this time.
    pub(crate) reads_from: Instant,
    /// It resets a connection as soon as it has read so many bytes.
    pub(crate) aborts_after: usize,
    next_port: u16,
}

fn address(ip: &Ip) -> IpAddress {
    if ip.is_v4() {
        let [.., a, b, c, d] = ip.0;
        IpAddress::v4(a, b, c, d)
    } else {
        IpAddress::Ipv6(ip.0.into())
    }
}

impl SmolHost {
    /// The host with this number, whose program accepts so many connections.
    pub(crate) fn new(number: u8, seed: u64, kind: Kind, accepts: usize) -> Self {
        let (mut raw, mut wire) = (Raw::new(2048), Wire::default());
        raw.keeps_bytes = true;
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, Moment::ZERO);
        let addresses = [harness::sim::raw::ip(number), harness::sim::raw::ip6(number)];
        interface.update_ip_addrs(|list| {
            for (ip, prefix) in addresses.iter().zip([8, 64]) {
                list.push(IpCidr::new(address(ip), prefix)).expect("room for two");
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let listening = (0..accepts).map(|_| {
            let mut socket = kind.socket();
            socket.listen(PORT).expect("a port");
            sockets.add(socket)
        });
        let listening = listening.collect();
        Self {
            raw,
            wire,
            interface,
            sockets,
            kind,
            addresses,
            listening,
            talks: Vec::new(),
            opens: Vec::new(),
            answer: Vec::new(),
            reads_from: Instant(0),
            aborts_after: usize::MAX,
            next_port: 50_000,
        }
    }

    /// Connects to `remote` at this time and sends this text.
    pub(crate) fn opening(mut self, at: Instant, remote: Ip, text: Vec<u8>) -> Self {
        self.opens.push((at, remote, text));
        self
    }

    fn begin(&mut self, socket: SocketHandle, text: Vec<u8>) {
        let (sent, got) = (0, Vec::new());
        let (is_finished, is_over, is_reset, is_open) = (false, false, false, false);
        self.talks.push(Talk { socket, text, sent, got, is_finished, is_over, is_reset, is_open });
    }

    /// The program's turn; whether it did anything.
    fn act(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some(due) = self.opens.iter().position(|open| open.0 <= now) {
            let (_, remote, text) = self.opens.remove(due);
            let handle = self.sockets.add(self.kind.socket());
            self.next_port += 1;
            let local = (address(&self.addresses[usize::from(!remote.is_v4())]), self.next_port);
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            let context = self.interface.context();
            socket.connect(context, (address(&remote), PORT), local).expect("a closed socket");
            self.begin(handle, text);
            acted = true;
        }
        let sockets = &self.sockets;
        let is_taken = |handle: &SocketHandle| {
            !matches!(sockets.get::<Socket<'_>>(*handle).state(), State::Listen | State::SynReceived)
        };
        let (taken, listening): (Vec<_>, Vec<_>) = self.listening.iter().partition(|handle| is_taken(handle));
        self.listening = listening;
        for handle in taken {
            self.begin(handle, self.answer.clone());
            acted = true;
        }
        let may_read = now >= self.reads_from;
        for talk in &mut self.talks {
            acted |= talk.act(self.sockets.get_mut(talk.socket), may_read, self.aborts_after);
        }
        acted
    }
}

impl Talk {
    fn act(&mut self, socket: &mut Socket<'_>, may_read: bool, aborts_after: usize) -> bool {
        if self.is_over {
            return false;
        }
        let mut acted = false;
        self.is_open |= socket.may_send() || socket.may_recv();
        while self.sent < self.text.len() && socket.can_send() {
            let len = socket.send_slice(&self.text[self.sent..]).expect("room");
            (self.sent, acted) = (self.sent + len, true);
        }
        if self.is_open && self.sent == self.text.len() && !self.is_finished {
            socket.close();
            (self.is_finished, acted) = (true, true);
        }
        let mut buffer = [0; 8000];
        while may_read && self.is_open {
            match socket.recv_slice(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    self.got.extend_from_slice(&buffer[..len]);
                    acted = true;
                }
                Err(RecvError::Finished) if self.is_finished => {
                    (self.is_over, acted) = (true, true);
                    break;
                }
                Err(RecvError::Finished) => break,
                Err(RecvError::InvalidState) => {
                    (self.is_over, self.is_reset, acted) = (true, true, true);
                    break;
                }
            }
            if self.got.len() >= aborts_after {
                socket.abort();
                (self.is_over, acted) = (true, true);
                break;
            }
        }
        acted
    }
}

impl Host for SmolHost {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        CLOCK.with(|clock| clock.set(now.as_ms()));
        self.raw.poll(now, port);
        self.wire.arrived.extend(self.raw.got.drain(..).map(|got| got.bytes));
        let moment = Moment::from_micros((now.0 / 1000) as i64);
        for round in 0..10_000 {
            self.interface.poll(moment, &mut self.wire, &mut self.sockets);
            if !self.act(now) {
                break;
            }
            assert!(round < 9_999, "a poll has no end");
        }
        let sent = self.wire.sent.drain(..).map(|bytes| harness::sim::raw::Send {
            at: now.0,
            bytes,
            checksum: None,
            gso_size: 0,
        });
        self.raw.plan.extend(sent);
        let full = self.raw.poll(now, port);
        // smoltcp counts in microseconds: what is due within this one is due at its end.
        let wanted = self.interface.poll_delay(moment, &self.sockets);
        let wanted = wanted.map(|delay| Instant((now.0 / 1000 + delay.total_micros().max(1)) * 1000));
        let opens = self.opens.iter().map(|open| open.0);
        let reads = Some(self.reads_from).filter(|at| *at > now);
        opens.chain(wanted).chain(full).chain(reads).min()
    }
}

/// The clock of timestamps.
trait Milliseconds {
    fn as_ms(&self) -> u32;
}

impl Milliseconds for Instant {
    fn as_ms(&self) -> u32 {
        (self.0 / 1_000_000) as u32 + 1
    }
}
