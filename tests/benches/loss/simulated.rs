//! Our stack to our stack, in virtual time.

use harness::sim::port::{Port, Setup};
use harness::sim::raw::ip;
use harness::sim::tcp::{PORT, Plan, TcpHost, limits};
use harness::sim::{Host, Simulation};
use stack::error::Error;
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::time::Instant;

use crate::{DELAY, Measured, Row};

/// Frames of each host.
const FRAMES: u32 = 1 << 15;

/// Runs of a shared bottleneck.
const SEEDS: usize = 6;

/// A host whose program sends without an end, or reads all that comes.
struct Endless {
    host: TcpHost,
    sockets: Vec<Handle>,
    /// When connections are to be opened.
    opens: Vec<Instant>,
    text: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes that were read of each connection.
    got: Vec<u64>,
}

impl Endless {
    fn new(host: TcpHost, opens: Vec<Instant>) -> Self {
        let (text, buffer) = (vec![0x5a; 1 << 16], vec![0; 1 << 18]);
        Self { host, sockets: Vec::new(), opens, text, buffer, got: Vec::new() }
    }

    /// The program's turn; whether it did anything.
    fn act(&mut self, now: Instant, port: &mut Port) -> bool {
        let Self { host, sockets, opens, text, buffer, got } = self;
        let (source, listener) = (host.addresses[0], host.listener);
        host.with(now, port, |stack| {
            let mut acted = false;
            for _ in opens.extract_if(.., |at| *at <= now) {
                let socket = stack.parts.tcp_socket(false, 0).expect("room");
                stack.parts.set_tcp_options(socket, &Values::default()).expect("room");
                assert_eq!(stack.connect(socket, &source, (&ip(2), PORT)), Err(Error::InProgress));
                sockets.push(socket);
                acted = true;
            }
            while let Some(Ok(socket)) = listener.map(|listener| stack.accept(listener, 0)) {
                sockets.push(socket);
                got.push(0);
            }
            for (flow, socket) in sockets.iter().enumerate() {
                match got.get_mut(flow) {
                    None => {
                        while stack.send(*socket, &[&*text], false).is_ok() {
                            acted = true;
                        }
                    }
                    Some(got) => {
                        while let Ok(len @ 1..) = stack.receive(*socket, &mut [&mut *buffer]) {
                            *got += len as u64;
                            acted = true;
                        }
                    }
                }
            }
            acted
        })
    }
}

impl Host for Endless {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        loop {
            let polled = self.host.with(now, port, |stack| stack.poll());
            let acted = self.act(now, port);
            if !polled.more && !acted {
                return self.opens.iter().copied().chain(polled.deadline).min();
            }
        }
    }
}

pub(crate) fn run(row: &Row) -> Measured {
    let mut measured = Measured::default();
    // A shared wire is run as often as there is a seed for.
    let runs = if row.is_apart || row.flows == 1 { row.wires() } else { SEEDS };
    let first = row.path.pattern.unwrap_or(1);
    for seed in 0..runs {
        let flows = row.flows / row.wires();
        let mut network = Simulation::new(first.wrapping_add(seed as u64));
        // Connections that began at one moment would move in step for ever: they begin within a round trip.
        let opens = (0..flows).map(|_| Instant(network.random().below(2 * DELAY.0))).collect();
        let setup = |number| Setup { frames: FRAMES, ring: 4096, ..Setup::plain(number) };
        let client =
            network.add(Endless::new(TcpHost::new(1, &limits(FRAMES)).knowing(&[2]), opens), setup(1));
        let server = TcpHost::server(2, &limits(FRAMES), Plan::default()).knowing(&[1]);
        let server = network.add(Endless::new(server, Vec::new()), setup(2));
        network.wire(client, server, row.path.of_wire(seed), row.back());
        network.run_until(Instant(0) + row.length);
        let got = &network.look(server).got;
        assert_eq!(got.len(), flows, "every connection is there");
        measured.goodput.extend(got.iter().map(|bytes| *bytes as f64 * 8e9 / row.length.0 as f64));
        let (counts, _) = network.counts(client);
        measured.counts = measured.counts.and(&counts);
    }
    measured
}
