//! A SYN flood from made-up addresses, beside clients that are real: a request each, answered, closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

use harness::sim::random::Random;
use stack::device::Link;
use stack::error::Error;
use stack::events::READABLE;
use stack::region::slab::Handle;

use super::card::Offload;
use super::far::{ACK, End, FIN, MESSAGE, NEAR, PORT, PSH, Packet, Peer, SYN, Seen};
use super::machine::{Machine, limits};
use super::report::Figures;

/// Virtual nanoseconds between two polls, and SYNs that arrive in them: a million each second.
const STEP: u64 = 10_000;
const SYNS: usize = 10;
/// Between two real clients.
const CLIENT_EVERY: u64 = 10_000_000;
/// From a client to the server and back.
const ROUND_TRIP: u64 = 5_000_000;
/// Room in the region for SYNs that wait, and the listener's backlog.
const BACKLOG: u32 = 1024;

/// What a client does next, and when.
struct Due {
    at: u64,
    client: usize,
    flags: u8,
    text: usize,
}

/// The server, its program and all who send to it.
struct Flood {
    machine: Machine,
    listener: Handle,
    accepted: Vec<Handle>,
    packet: Packet,
    clients: Vec<Peer>,
    due: VecDeque<Due>,
    served: usize,
    closed: usize,
}

/// Real clients have addresses of their own.
fn client_end(client: usize) -> End {
    End { address: [10, 2, 0, 1], port: 1024 + client as u16 }
}

impl Flood {
    fn new() -> Self {
        let limits = stack::region::Limits { syns: BACKLOG, ..limits(256, 256, 16_384) };
        let mut machine = Machine::new(1, 2, &limits, (Link::Ethernet, Offload::None));
        let listener = machine.listen(PORT, BACKLOG / 2);
        let (accepted, clients, due) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { machine, listener, accepted, packet: Packet::new(), clients, due, served: 0, closed: 0 }
    }

    fn tsval(&self) -> u32 {
        (self.machine.now.0 / 1_000_000) as u32
    }

    fn spoof(&mut self, random: &mut Random) {
        let [a, b, c, port @ ..] = (random.next() as u32 | 0x80 << 24).to_be_bytes().map(|byte| byte);
        let far = End { address: [10, a, b, c], port: 1024 + u16::from(port[0]) };
        let (peer, tsval) = (Peer { seq: random.next() as u32, ..Peer::default() }, self.tsval());
        self.machine.card.deliver(self.packet.segment([far, NEAR], &peer, SYN, tsval, &[]));
    }

    /// Sends what clients are due to send.
    fn clients_act(&mut self) {
        while let Some(Due { client, flags, text, .. }) = {
            let now = self.machine.now.0;
            self.due.pop_front_if(|due| due.at <= now)
        } {
            let tsval = self.tsval();
            let peer = &mut self.clients[client];
            let text = &[9; MESSAGE][..text];
            self.machine.card.deliver(self.packet.segment(
                [client_end(client), NEAR],
                peer,
                flags,
                tsval,
                text,
            ));
            peer.seq = peer.seq.wrapping_add(text.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
        }
    }

    /// The server's program.
    fn program_acts(&mut self) {
        while let Ok(socket) = self.machine.stack().accept(self.listener, 0) {
            self.accepted.push(socket);
        }
        let mut buffer = [0; 2 * MESSAGE];
        let machine = &mut self.machine;
        self.accepted.retain(|socket| {
            let mut stack = machine.stack();
            if stack.events(*socket).ready & READABLE == 0 {
                return true;
            }
            match stack.receive(*socket, &mut [&mut buffer]) {
                Err(Error::WouldBlock) => true,
                Ok(len) if len > 0 => {
                    assert_eq!(stack.send(*socket, &[&buffer[..len]], false), Ok(len));
                    true
                }
                _ => {
                    stack.close(*socket).expect("a socket");
                    false
                }
            }
        });
    }

    /// What real clients see of what the server sends; the rest goes to nobody.
    fn clients_see(&mut self) {
        while let Some(seen) = self.machine.card.take(|bytes, _, _| Seen::parse(&bytes[14..], false)) {
            let seen = seen.expect("a segment whose checksums hold");
            if seen.to.address != client_end(0).address {
                continue;
            }
            let client = usize::from(seen.to.port - 1024);
            seen.taken_by(&mut self.clients[client]);
            let mut next = |flags, text| {
                let at = self.machine.now.0 + ROUND_TRIP;
                self.due.push_back(Due { at, client, flags, text });
            };
            if seen.flags & SYN != 0 {
                next(ACK, 0);
                next(PSH | ACK, MESSAGE);
            } else if seen.text > 0 {
                self.served += 1;
                next(FIN | ACK, 0);
            } else if seen.flags & FIN != 0 {
                self.closed += 1;
                next(ACK, 0);
            }
        }
    }
}

/// So many virtual milliseconds of it.
pub(crate) fn run(ms: u64) -> Figures {
    let (mut flood, mut random) = (Flood::new(), Random::new(3));
    let (end, mut next_client) = (flood.machine.now.0 + ms * 1_000_000, flood.machine.now.0);
    let (mut took, mut frames_max, mut syns_max) = (Duration::ZERO, 0, 0);
    // What has begun may finish.
    let grace = end + 20 * ROUND_TRIP;
    while flood.machine.now.0 < grace {
        flood.machine.now.0 += STEP;
        (0..SYNS).for_each(|_| flood.spoof(&mut random));
        if flood.machine.now.0 >= next_client && flood.machine.now.0 < end {
            let client = flood.clients.len();
            flood.clients.push(Peer { seq: 7, ..Peer::default() });
            flood.due.push_front(Due { at: 0, client, flags: SYN, text: 0 });
            next_client += CLIENT_EVERY;
        }
        flood.clients_act();
        let from = Clock::now();
        flood.machine.run();
        took += from.elapsed();
        flood.program_acts();
        flood.clients_see();
        let parts = &flood.machine.parts;
        frames_max = frames_max.max(parts.pool.used());
        syns_max = syns_max.max(parts.slabs.syns.used());
    }
    assert!(syns_max <= BACKLOG && frames_max <= 16_384);
    let syns = (grace - end + ms * 1_000_000) / STEP * SYNS as u64;
    let mut figures = Figures::default();
    figures.put("clients", flood.clients.len() as f64);
    figures.put("served", flood.served as f64);
    figures.put("closed", flood.closed as f64);
    figures.put("ns_per_syn", took.as_nanos() as f64 / syns as f64);
    figures.put("syns_max", f64::from(syns_max));
    figures.put("frames_max", f64::from(frames_max));
    figures
}
