//! A host with a whole stack, and a program on it: it connects or listens, sends what it is told, reads what comes, and
//! closes. After every poll the region can be checked.

use stack::device::Device;
use stack::error::Error;
use stack::events::{Events, FAILED, READABLE, WRITABLE};
use stack::hash::Secret;
use stack::ip::Interface;
use stack::ip::neighbour::{Heard, State};
use stack::ip::route::V4_BITS;
use stack::ports::Lease;
use stack::region::slab::Handle;
use stack::region::{Layout, Limits, Parts, Shared};
use stack::settings::Values;
use stack::stack::{Polled, Stack};
use stack::stats::Counter;
use stack::tcp::calls::How;
use stack::tcp::state::State as Phase;
use stack::time::{Duration, Instant};
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use super::Host;
use super::moved::Words;
use super::port::Port;

/// One connection as its program sees it.
#[derive(Debug, Default)]
pub struct Talk {
    /// Its socket, until it is closed.
    pub socket: Option<Handle>,
    /// What is to be sent.
    pub text: Vec<u8>,
    /// Bytes of it that were taken.
    pub sent: usize,
    /// What was read.
    pub got: Vec<u8>,
    /// The end was read.
    pub is_ended: bool,
    /// What it failed with.
    pub error: Option<Error>,
    /// shutdown(2) was called.
    is_finished: bool,
}

/// What the program does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Most bytes of one send.
    pub write: usize,
    /// Most bytes of one receive.
    pub read: usize,
    /// It reads nothing before this time.
    pub reads_from: Instant,
    /// What each accepted connection is answered with.
    pub answer: Vec<u8>,
    /// It closes as soon as there is something to read, and reads nothing.
    pub closes_unread: bool,
    /// It neither finishes nor closes.
    pub stays: bool,
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// It sends back what it reads, and finishes when the peer has.
    pub echoes: bool,
    /// It sends the next bytes only when as many came back as it has sent.
    pub in_turn: bool,
    /// It accepts nothing before this time.
    pub accepts_from: Instant,
    /// Its first bytes go by sendto(2) with MSG_FASTOPEN.
    pub fast_open: bool,
    /// Its process is stopped until then: nobody polls.
    pub stopped_until: Instant,
}

impl Default for Plan {
    fn default() -> Self {
        let answer = Vec::new();
        Self {
            write: 20_000,
            read: 16_384,
            reads_from: Instant(0),
            answer,
            closes_unread: false,
            stays: false,
            no_delay: false,
            echoes: false,
            in_turn: false,
            accepts_from: Instant(0),
            fast_open: false,
            stopped_until: Instant(0),
        }
    }
}

/// The host.
pub struct TcpHost {
    memory: Vec<u8>,
    aligned: usize,
    words: Words,
    layout: Layout,
    /// Its addresses.
    pub addresses: [Ip; 2],
    /// What its program does.
    pub plan: Plan,
    /// Its listening socket.
    pub listener: Option<Handle>,
    /// Its connections, in the order of their making.
    pub talks: Vec<Talk>,
    /// Whether every invariant is looked at after each poll.
    pub checks: bool,
    /// Connections that are to be made: when, where to, what is sent.
    pub opens: Vec<(Instant, Ip, Vec<u8>)>,
    /// What sockets are given.
    pub values: Values,
}

/// The port of every listener.
pub const PORT: u16 = 80;

/// Limits of a host with so many frames.
#[must_use]
pub fn limits(frames: u32) -> Limits {
    Limits { frames, tcp_sockets: 64, traffics: 64, syns: 16, blocks: 256, bounds: 64, ..Limits::SMALL }
}

impl TcpHost {
    /// The host with this number, on a subnet of each version with all others.
    #[must_use]
    pub fn new(number: u8, limits: &Limits) -> Self {
        let layout = Layout::new(limits).expect("limits");
        let memory = vec![0; layout.size + 64];
        let aligned = memory.as_ptr().align_offset(64);
        let words = Words::new(limits);
        let addresses = [super::raw::ip(number), super::raw::ip6(number)];
        let mut host = Self {
            memory,
            aligned,
            words,
            layout,
            addresses,
            plan: Plan::default(),
            listener: None,
            talks: Vec::new(),
            checks: false,
            opens: Vec::new(),
            values: Values::default(),
        };
        let bytes = &mut host.memory[aligned..];
        let mut parts =
            Parts::create(bytes, limits, Secret([0x1234 + u64::from(number), 0x5678])).expect("room");
        let link = ethernet::Address([2, 0, 0, 0, 0, number]);
        parts.set_interface(&Interface { link, flags: Interface::OWNS, ..Interface::default() });
        for (ip, prefix_len) in addresses.into_iter().zip([V4_BITS + 24, 64]) {
            parts.join_subnet(&ip, prefix_len).expect("room");
        }
        let handle = parts.slabs.leases.take(parts.leases).expect("room");
        let lease = &mut parts.leases[handle.index as usize];
        *lease =
            Lease { tag: lease.tag, first: 40_000, count: 1000, protocols: 3, is_ephemeral: 1, reserved: 0 };
        host
    }

    /// The same with another interface.
    #[must_use]
    pub fn on(mut self, interface: Interface) -> Self {
        self.parts().set_interface(&interface);
        self
    }

    /// The same that knows these neighbours, and will not ask for them.
    #[must_use]
    pub fn knowing(mut self, neighbours: &[u8]) -> Self {
        let mut parts = self.parts();
        for number in neighbours {
            let link = Some(ethernet::Address([2, 0, 0, 0, 0, *number]));
            for ip in [super::raw::ip(*number), super::raw::ip6(*number)] {
                let heard = parts.set_neighbour(&ip, link, State::Permanent, Instant(0));
                assert_eq!(heard, Ok(Heard::Nothing));
            }
        }
        self
    }

    /// A host that listens.
    #[must_use]
    pub fn server(number: u8, limits: &Limits, plan: Plan) -> Self {
        let mut host = Self { plan, ..Self::new(number, limits) };
        let socket = {
            let mut parts = host.parts();
            let socket = parts.tcp_socket(true, 0).expect("room");
            parts.tcp_bind(socket, (&Ip::UNSPECIFIED, PORT)).expect("free");
            parts.tcp_listen(socket, 8).expect("free");
            socket
        };
        host.listener = Some(socket);
        host
    }

    /// A host that connects to `remote` at this time and sends this text.
    #[must_use]
    pub fn opening(mut self, at: Instant, remote: Ip, text: Vec<u8>) -> Self {
        self.opens.push((at, remote, text));
        self
    }

    /// Its region.
    pub fn parts(&mut self) -> Parts<'_> {
        Parts::split(&mut self.memory[self.aligned..], &self.layout).expect("room")
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        Shared::split(&self.words, &self.layout.limits).expect("room").counters().of(counter)
    }

    /// Where each of its frames is.
    #[must_use]
    pub fn frame_states(&self) -> Vec<stack::frames::state::State> {
        let shared = Shared::split(&self.words, &self.layout.limits).expect("room");
        shared.frames.iter().map(|word| stack::frames::state::load(word).0).collect()
    }

    /// Does something with its stack.
    pub fn with<D: Device, R>(
        &mut self,
        now: Instant,
        device: &mut D,
        act: impl FnOnce(&mut Stack<'_, '_, D>) -> R,
    ) -> R {
        let shared = Shared::split(&self.words, &self.layout.limits).expect("room");
        let mut parts = Parts::split(&mut self.memory[self.aligned..], &self.layout).expect("room");
        act(&mut Stack { parts: &mut parts, shared: &shared, device, now })
    }

    /// Looks at every invariant of the region, and of the frames in it.
    ///
    /// # Panics
    /// At the first that doesn't hold.
    pub fn check(&mut self) {
        let shared = Shared::split(&self.words, &self.layout.limits).expect("room");
        let mut parts = Parts::split(&mut self.memory[self.aligned..], &self.layout).expect("room");
        assert_eq!(parts.check(), Ok(()));
        assert_eq!(parts.check_frames(&shared), Ok(()));
        let traffics: Vec<_> =
            parts.traffics.iter().filter(|traffic| traffic.tag.is_used()).copied().collect();
        let frames = parts.frame_pool(&shared);
        for traffic in traffics {
            assert_eq!(traffic.send.check(&frames), Ok(()));
            assert_eq!(traffic.reassembly.check(&frames), Ok(()));
            assert_eq!(frames.check_list(traffic.receive.list()), Ok(()));
        }
    }

    /// Sockets, queues and SYNs that are in use, and frames that are not in the fill ring.
    pub fn held(&mut self) -> [u32; 4] {
        let parts = self.parts();
        let slabs = &parts.slabs;
        let frames = parts.pool.used() - parts.pool.filled();
        [slabs.tcbs.used(), slabs.traffics.used(), slabs.syns.used(), frames]
    }

    /// Whether every connection that was made is closed by its program.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.opens.is_empty() && !self.talks.is_empty() && self.talks.iter().all(|talk| talk.socket.is_none())
    }

    /// The program's turn; whether it did anything.
    fn act(&mut self, now: Instant, port: &mut Port) -> bool {
        let (plan, values, listener) = (self.plan.clone(), self.values, self.listener);
        let due = self.opens.iter().position(|open| open.0 <= now).map(|at| self.opens.remove(at));
        let mut talks = std::mem::take(&mut self.talks);
        let acted = self.with(now, port, |stack| {
            let mut acted = false;
            if let Some((_, remote, text)) = due {
                let socket = stack.parts.tcp_socket(!remote.is_v4(), 0).expect("room");
                stack.parts.set_tcp_options(socket, &values).expect("room");
                if plan.no_delay {
                    stack.set_delay(socket, true, false).expect("a socket");
                }
                let (source, remote) = (&Ip::UNSPECIFIED, (&remote, PORT));
                let done = match plan.fast_open {
                    true => stack.send_fast_open(socket, source, remote, &[&text]),
                    false => stack.connect(socket, source, remote).map(|()| 0),
                };
                let error = done.err().filter(|error| *error != Error::InProgress);
                let sent = done.unwrap_or(0);
                talks.push(Talk { socket: Some(socket), text, sent, error, ..Talk::default() });
                acted = true;
            }
            if let Some(listener) = listener.filter(|_| now >= plan.accepts_from) {
                while let Ok(socket) = stack.accept(listener, 0) {
                    if plan.no_delay {
                        stack.set_delay(socket, true, false).expect("a socket");
                    }
                    talks.push(Talk { socket: Some(socket), text: plan.answer.clone(), ..Talk::default() });
                    acted = true;
                }
            }
            for talk in &mut talks {
                acted |= talk.act(&plan, stack);
            }
            acted
        });
        self.talks = talks;
        acted
    }
}

impl Talk {
    fn act(&mut self, plan: &Plan, stack: &mut Stack<'_, '_, Port>) -> bool {
        let Some(socket) = self.socket else { return false };
        let Events { ready, .. } = stack.events(socket);
        let mut acted = false;
        // What isn't ready is not tried: who waits for room must be told of it.
        while self.sent < self.text.len()
            && self.error.is_none()
            && (!plan.in_turn || self.got.len() >= self.sent)
            && stack.events(socket).ready & (WRITABLE | FAILED) != 0
        {
            let end = (self.sent + plan.write).min(self.text.len());
            let (first, second) = self.text[self.sent..end].split_at((end - self.sent) / 3);
            match stack.send(socket, &[first, second], false) {
                Ok(sent) => (self.sent, acted) = (self.sent + sent, true),
                Err(Error::WouldBlock) => break,
                Err(error) => self.error = Some(error),
            }
        }
        // A connection that isn't there yet is not given up.
        let is_open = stack.state(socket).is_ok_and(Phase::is_synchronized);
        if self.sent == self.text.len()
            && is_open
            && !self.is_finished
            && !plan.stays
            && !plan.closes_unread
            && self.error.is_none()
            && (!plan.echoes || self.is_ended)
            && (!plan.in_turn || self.got.len() == self.sent)
        {
            assert_eq!(stack.shutdown(socket, How::Write), Ok(()));
            (self.is_finished, acted) = (true, true);
        }
        while ready & READABLE != 0
            && !plan.closes_unread
            && stack.now >= plan.reads_from
            && !self.is_ended
            && self.error.is_none()
        {
            let mut buffer = vec![0; plan.read];
            let (first, second) = buffer.split_at_mut(plan.read / 2);
            match stack.receive(socket, &mut [first, second]) {
                Ok(0) => (self.is_ended, acted) = (true, true),
                Ok(len) => {
                    self.got.extend_from_slice(&buffer[..len]);
                    if plan.echoes {
                        self.text.extend_from_slice(&buffer[..len]);
                    }
                    acted = true;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => self.error = Some(error),
            }
        }
        let is_unread = plan.closes_unread && ready & READABLE != 0;
        let is_over = self.error.is_some() || self.is_finished && self.is_ended || is_unread;
        if is_over && !(plan.stays && self.error.is_none()) {
            stack.close(socket).expect("a socket");
            (self.socket, acted) = (None, true);
        }
        acted
    }
}

impl Host for TcpHost {
    fn poll(&mut self, now: Instant, port: &mut Port) -> Option<Instant> {
        if now < self.plan.stopped_until {
            return Some(self.plan.stopped_until);
        }
        for round in 0..10_000 {
            let Polled { deadline, more, .. } = self.with(now, port, |stack| stack.poll());
            if self.checks {
                self.check();
            }
            let acted = self.act(now, port);
            if self.checks && acted {
                self.check();
            }
            if !more && !acted {
                let opens = self.opens.iter().map(|open| open.0);
                let later = [self.plan.reads_from, self.plan.accepts_from];
                let later = later.into_iter().filter(|at| *at > now);
                return opens.chain(deadline).chain(later).min();
            }
            assert!(round < 9_999, "a poll has no end");
        }
        None
    }
}

/// Bytes that no two places share: a counter that is hashed.
#[must_use]
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = super::random::Random::new(seed);
    (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(len).collect()
}

/// As long as a lossy transfer may take.
pub const PATIENCE: Duration = Duration::from_secs(3600);
