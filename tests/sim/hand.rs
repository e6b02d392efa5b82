//! A host and a peer that a test drives by hand, segment by segment.

use stack::region::slab::Handle;
use stack::settings::Values;
use stack::stack::Stack;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;

use super::forge::{Forged, Machine};
use super::path::Path;
use super::port::{Port, Setup};
use super::raw::ip;
use super::tcp::{PORT, Plan, TcpHost, limits};
use super::{Node, Simulation};

/// One way.
const DELAY: Duration = Duration::from_millis(1);

/// A peer that is driven by hand, 2, and a host, 1.
pub struct Bench {
    /// The network.
    pub network: Simulation<Machine>,
    host: Node,
    hand: Node,
    ends: ((Ip, u16), (Ip, u16)),
    /// After this time what is answered at once is there.
    pub at_once: Duration,
}

impl Bench {
    /// The two, joined.
    pub fn new(seed: u64, host: TcpHost) -> Self {
        Self::over(seed, host, DELAY)
    }

    /// The same over a wire with this delay each way.
    pub fn over(seed: u64, host: TcpHost, delay: Duration) -> Self {
        let mut network = Simulation::new(seed);
        let host = network.add(Machine::Tcp(Box::new(host)), Setup::plain(1));
        let hand = network.add(Machine::Forger(Box::default()), Setup::plain(2));
        network.wire(host, hand, Path::delayed(delay), Path::delayed(delay));
        let at_once = Duration(5 * delay.0);
        Self { network, host, hand, ends: ((ip(2), 5000), (ip(1), PORT)), at_once }
    }

    /// The host.
    pub fn host(&mut self) -> &mut TcpHost {
        self.network.host(self.host).tcp()
    }

    /// Sends a segment and waits for what comes back.
    pub fn send(&mut self, flags: Flags, seq: u32, ack: u32, options: Options, text: &[u8]) -> Vec<Forged> {
        let (link, ends) = ((2, 1), self.ends);
        let text = text.to_vec();
        self.give(&Forged { link, ends, seq, ack, flags, window: 20_000, urgent: 0, options, text })
    }

    /// The same with an urgent pointer.
    pub fn send_urgent(&mut self, flags: Flags, seq: u32, ack: u32, urgent: u16, text: &[u8]) -> Vec<Forged> {
        let (link, ends) = ((2, 1), self.ends);
        let (text, options) = (text.to_vec(), Options::default());
        self.give(&Forged { link, ends, seq, ack, flags, window: 20_000, urgent, options, text })
    }

    /// Sends what was made up and waits for what comes back.
    pub fn give(&mut self, segment: &Forged) -> Vec<Forged> {
        let now = self.network.now();
        self.network.host(self.hand).forger().send(now, segment);
        self.wait(self.at_once)
    }

    /// Lets time pass; what was heard meanwhile.
    pub fn wait(&mut self, length: Duration) -> Vec<Forged> {
        self.network.run_for(length);
        self.network.host(self.hand).forger().heard()
    }
}

impl Bench {
    /// Does something with the host's stack.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = self.network.now();
        let (host, port) = self.network.host_and_port(self.host);
        host.tcp().with(now, port, act)
    }

    /// Sets an option.
    pub fn set(&mut self, socket: Handle, level: i32, name: i32, value: i32) {
        self.with(|stack| stack.set_option(socket, level, name, &value.to_ne_bytes())).expect("an option");
    }
}

/// What Linux's SYN offers, without timestamps.
#[must_use]
pub fn syn() -> Options {
    Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..Options::default() }
}

/// A server whose listener has these options.
#[must_use]
pub fn listening(values: &Values, plan: Plan) -> TcpHost {
    let mut host = TcpHost::server(1, &limits(1024), plan).knowing(&[2]);
    let socket = host.listener.expect("a listener");
    host.parts().set_tcp_options(socket, values).expect("room");
    host
}

/// A host with one established connection to a hand that has sent nothing yet; the hand's next numbers.
#[must_use]
pub fn connected(seed: u64, values: &Values) -> (Bench, Handle, u32, u32) {
    let mut bench = Bench::new(seed, listening(values, Plan { stays: true, ..Plan::default() }));
    bench.host().plan.reads_from = Instant(u64::MAX);
    let heard = bench.send(Flags::SYN, 100, 0, syn(), &[]);
    let ack = heard[0].seq + 1;
    bench.send(Flags::ACK, 101, ack, Options::default(), &[]);
    let socket = bench.host().talks[0].socket.expect("accepted");
    (bench, socket, 101, ack)
}
