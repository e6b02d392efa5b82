//! Two hosts whose regions and devices lie in shared memory, a wire between them, and programs that talk.

use std::collections::VecDeque;

use harness::sim::raw::ip;
use harness::sim::tcp::text;
use stack::error::Error;
use stack::frames::state::{self, State as FrameState};
use stack::hash::Secret;
use stack::ip::Interface;
use stack::ip::neighbour::State as Reach;
use stack::ip::route::V4_BITS;
use stack::ports::Lease;
use stack::process::{self, Identity};
use stack::region::slab::Handle;
use stack::region::{Header, Layout, Limits, Parts, Shared, shared};
use stack::stack::{Polled, Stack};
use stack::tcp::calls::How;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ethernet;

use super::card::{Card, FRAMES, SIZE, WORDS};
use super::datagrams::Mail;
use super::trace::{Mapping, View};

/// The port of both listeners.
pub(super) const PORT: u16 = 80;
/// Bytes that a program sends at a time: bursts are short, and an operation some thousand instructions.
const WRITE: usize = 3000;
/// How long a packet is on its way.
const DELAY: Duration = Duration::from_millis(1);
/// Virtual time in which everything must be over.
const PATIENCE: Duration = Duration::from_secs(2000);

/// Limits of a host.
pub(super) fn limits() -> Limits {
    Limits {
        tcp_sockets: 32,
        traffics: 24,
        listeners: 4,
        syns: 8,
        udp_sockets: 4,
        memberships: 2,
        bounds: 32,
        settings: 8,
        processes: 8,
        frames: FRAMES,
        frame_size: SIZE.into(),
        blocks: 64,
        ..Limits::SMALL
    }
}

/// A host.
pub(super) struct Machine {
    mapping: Mapping,
    layout: Layout,
    words: usize,
    /// Its number.
    pub(super) number: u8,
}

impl Machine {
    pub(super) fn new(number: u8, peer: u8) -> Self {
        let layout = Layout::new(&limits()).expect("limits");
        let words = shared::words(&limits()).next_multiple_of(8);
        let memory = FRAMES as usize * usize::from(SIZE);
        let mapping = Mapping::new(layout.size + 64 + 8 * (words + WORDS) + 64 + memory);
        let address = |number| ethernet::Address([2, 0, 0, 0, 0, number]);
        let mut machine = Self { mapping, layout, words, number };
        let (bytes, ..) = machine.split();
        let secret = Secret([0x1234 + u64::from(number), 0x5678]);
        let mut parts = Parts::create(bytes, &limits(), secret).expect("room");
        parts.set_interface(&Interface { link: address(number), ..Interface::default() });
        parts.join_subnet(&ip(number), V4_BITS + 24).expect("room");
        let known = parts.set_neighbour(&ip(peer), Some(address(peer)), Reach::Permanent, Instant(0));
        known.expect("nothing waits");
        let handle = parts.slabs.leases.take(parts.leases).expect("room");
        let lease = &mut parts.leases[handle.index as usize];
        *lease =
            Lease { tag: lease.tag, first: 40_000, count: 1000, protocols: 3, is_ephemeral: 1, reserved: 0 };
        machine
    }

    fn split(&mut self) -> (&mut [u8], &[std::sync::atomic::AtomicU64], &mut [u8]) {
        let memory = FRAMES as usize * usize::from(SIZE);
        self.mapping.split(self.layout.size, self.words + WORDS, memory)
    }

    /// All of its memory.
    pub(super) fn image(&mut self) -> &mut [u8] {
        self.mapping.all()
    }

    /// The same, while a child changes it.
    pub(super) const fn view(&self) -> View {
        self.mapping.view()
    }

    /// Where that is.
    pub(super) fn address(&mut self) -> usize {
        self.image().as_ptr().addr()
    }

    /// Becomes what another one is.
    pub(super) fn copy_from(&mut self, other: &mut Self) {
        self.image().copy_from_slice(other.image());
    }

    /// Changes the locked part behind its header, and the shared part.
    pub(super) fn spoil(&mut self, mut change: impl FnMut(&mut [u8])) {
        let shared = self.layout.size.next_multiple_of(64);
        let end = shared + 8 * self.words;
        let bytes = &mut self.image()[..end];
        change(&mut bytes[size_of::<Header>()..]);
    }

    /// Does something with its stack.
    pub(super) fn with<R>(&mut self, now: Instant, act: impl FnOnce(&mut Stack<'_, '_, Card<'_>>) -> R) -> R {
        let (layout, words) = (self.layout, self.words);
        let (bytes, all, memory) = self.split();
        let shared = Shared::split(&all[..words], &layout.limits).expect("room");
        let mut parts = Parts::split(bytes, &layout).expect("room");
        let mut device = Card::new(&all[words..], memory);
        act(&mut Stack { parts: &mut parts, shared: &shared, device: &mut device, now })
    }

    /// Does something with its device.
    pub(super) fn card<R>(&mut self, act: impl FnOnce(&mut Card<'_>) -> R) -> R {
        let words = self.words;
        let (_, all, memory) = self.split();
        act(&mut Card::new(&all[words..], memory))
    }

    /// Looks at every invariant, of the region and of who has which frame.
    ///
    /// # Panics
    /// At the first that doesn't hold.
    pub(super) fn check(&mut self) {
        self.with(Instant(0), |stack| {
            assert_eq!(stack.parts.check(), Ok(()));
            assert_eq!(stack.parts.check_frames(stack.shared), Ok(()));
            let traffics: Vec<_> =
                stack.parts.traffics.iter().filter(|it| it.tag.is_used()).copied().collect();
            let frames = stack.parts.frame_pool(stack.shared);
            for traffic in traffics {
                assert_eq!(traffic.send.check(&frames), Ok(()));
                assert_eq!(traffic.reassembly.check(&frames), Ok(()));
                assert_eq!(frames.check_list(traffic.receive.list()), Ok(()));
            }
            // What the device has, nobody else may have.
            let card = &*stack.device;
            let mut seen = vec![false; FRAMES as usize];
            let sent =
                [FrameState::Tx, FrameState::TxSocket, FrameState::TxDatagram, FrameState::Quarantined];
            for (ring, may) in [
                (card.filled(), &[FrameState::Fill, FrameState::Quarantined][..]),
                (card.arrived(), &[FrameState::Fill, FrameState::Quarantined][..]),
                (card.sending(), &sent[..]),
                (card.done(), &sent[..]),
            ] {
                for frame in ring.frames() {
                    let (state, _) = state::load(&stack.shared.frames[frame.0 as usize]);
                    assert!(may.contains(&state), "frame {} is with the device and {state:?}", frame.0);
                    assert!(
                        !std::mem::replace(&mut seen[frame.0 as usize], true),
                        "frame {} is there twice",
                        frame.0
                    );
                }
            }
        });
    }
}

/// One end of a connection, as its program sees it.
#[derive(Clone, Default)]
pub(super) struct Talk {
    /// Its socket, until it is closed.
    pub(super) socket: Option<Handle>,
    /// What is to be sent, how much of it was taken, and what was read.
    pub(super) text: Vec<u8>,
    pub(super) sent: usize,
    pub(super) got: Vec<u8>,
    pub(super) error: Option<Error>,
    is_shut: bool,
    is_ended: bool,
    may_send: usize,
}

impl Talk {
    fn new(socket: Handle, text: Vec<u8>) -> Self {
        Self { socket: Some(socket), text, ..Self::default() }
    }

    /// The program's turn; whether it did anything.
    fn act(&mut self, process: Handle, stack: &mut Stack<'_, '_, Card<'_>>) -> bool {
        let Some(socket) = self.socket else { return false };
        let mut acted = false;
        while self.sent < self.text.len().min(self.may_send) && self.error.is_none() {
            let end = self.text.len().min(self.may_send);
            match stack.send(socket, &[&self.text[self.sent..end]], false) {
                Ok(sent) => (self.sent, acted) = (self.sent + sent, true),
                Err(Error::WouldBlock) => break,
                Err(error) => self.error = Some(error),
            }
        }
        let is_open = stack.state(socket).is_ok_and(State::is_synchronized);
        if self.sent == self.text.len() && is_open && !self.is_shut && self.error.is_none() {
            match stack.shutdown(socket, How::Write) {
                Ok(()) => (self.is_shut, acted) = (true, true),
                Err(error) => self.error = Some(error),
            }
        }
        while !self.is_ended && self.error.is_none() {
            let mut buffer = [0; 4096];
            match stack.receive(socket, &mut [&mut buffer]) {
                Ok(0) => (self.is_ended, acted) = (true, true),
                Ok(len) => {
                    self.got.extend_from_slice(&buffer[..len]);
                    acted = true;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => self.error = Some(error),
            }
        }
        if self.error.is_some() || self.is_shut && self.is_ended {
            stack.close_by(socket, process).expect("its own");
            (self.socket, acted) = (None, true);
        }
        acted
    }
}

/// A packet on the wire: when it arrives, whether at the first host, its bytes.
type Flying = (Instant, bool, Vec<u8>);

/// The two hosts.
pub(super) struct World {
    pub(super) now: Instant,
    /// The host on which a process will die, and the other one.
    pub(super) ours: Machine,
    pub(super) theirs: Machine,
    /// The process that will die, the one that lives on, and the other host's.
    pub(super) victim: Handle,
    pub(super) survivor: Handle,
    pub(super) stranger: Handle,
    pub(super) listener: Handle,
    their_listener: Handle,
    /// The survivor's ends of connections; and those of the other host.
    pub(super) our_talks: Vec<Talk>,
    pub(super) their_talks: Vec<Talk>,
    flying: VecDeque<Flying>,
    /// Which packets are lost: those to the first host if the first is set, by their number.
    pub(super) loses: Option<fn(bool, usize) -> bool>,
    carried: [usize; 2],
    /// The victim's connection to the other host.
    pub(super) socket: Handle,
    /// Sockets of UDP, where there are some.
    pub(super) mail: Option<Mail>,
}

impl World {
    /// Two hosts, a listener on each, and three connections with text in both directions: one that the survivor has opened, one
    /// that it has accepted, and one of the victim's.
    pub(super) fn new() -> Self {
        let (mut ours, mut theirs) = (Machine::new(1, 2), Machine::new(2, 1));
        let now = Instant(1_000_000);
        let identity = |pid| Identity { pid, started: 5, uid: 0 };
        let listen = |machine: &mut Machine, pid| {
            let number = machine.number;
            machine.with(now, |stack| {
                let process = stack.parts.attach_process(&identity(pid)).expect("room");
                let socket = stack.parts.tcp_socket(false, process.index).expect("room");
                stack.parts.tcp_bind(socket, (&ip(number), PORT)).expect("free");
                stack.listen(socket, 8).expect("free");
                (process, socket)
            })
        };
        let (survivor, listener) = listen(&mut ours, 10);
        let (stranger, their_listener) = listen(&mut theirs, 20);
        let victim = ours.with(now, |stack| {
            let victim = stack.parts.attach_process(&identity(11)).expect("room");
            stack.parts.share_socket(listener, survivor, victim).expect("its own");
            victim
        });
        let none = Handle { index: 0, generation: 0 };
        let mut world = Self {
            now,
            ours,
            theirs,
            victim,
            survivor,
            stranger,
            listener,
            their_listener,
            our_talks: Vec::new(),
            their_talks: Vec::new(),
            flying: VecDeque::new(),
            loses: None,
            carried: [0; 2],
            socket: none,
            mail: None,
        };
        world.dial(text(1, 150_000));
        world.call(text(2, 150_000));
        world.socket = world.connect(victim).expect("a port");
        world.run_for(Duration::from_millis(6));
        world
    }

    /// A connection of one of our processes to the other host.
    pub(super) fn connect(&mut self, process: Handle) -> Option<Handle> {
        self.ours.with(self.now, |stack| {
            let socket = stack.parts.tcp_socket(false, process.index).ok()?;
            assert_eq!(stack.connect(socket, &ip(1), (&ip(2), PORT)), Err(Error::InProgress));
            Some(socket)
        })
    }

    /// The survivor connects to the other host and sends this.
    fn dial(&mut self, text: Vec<u8>) {
        let socket = self.connect(self.survivor).expect("a port");
        self.our_talks.push(Talk::new(socket, text));
    }

    /// The other host connects to us and sends this.
    pub(super) fn call(&mut self, text: Vec<u8>) {
        let stranger = self.stranger;
        let socket = self.theirs.with(self.now, |stack| {
            let socket = stack.parts.tcp_socket(false, stranger.index).expect("room");
            assert_eq!(stack.connect(socket, &ip(2), (&ip(1), PORT)), Err(Error::InProgress));
            socket
        });
        self.their_talks.push(Talk::new(socket, text));
    }

    /// Both programs' turns, until neither has anything to do.
    fn act(&mut self, accepts: bool) {
        let (survivor, stranger) = (self.survivor, self.stranger);
        let (listener, their_listener) = (self.listener, self.their_listener);
        loop {
            let talks = &mut self.our_talks;
            let ours = self.ours.with(self.now, |stack| {
                let mut acted = false;
                while accepts && let Ok(socket) = stack.accept(listener, survivor.index) {
                    talks.push(Talk::new(socket, text(100, 40_000)));
                    acted = true;
                }
                talks.iter_mut().fold(acted, |acted, talk| talk.act(survivor, stack) | acted)
            });
            let talks = &mut self.their_talks;
            let theirs = self.theirs.with(self.now, |stack| {
                let mut acted = false;
                while let Ok(socket) = stack.accept(their_listener, stranger.index) {
                    talks.push(Talk::new(socket, text(200, 40_000)));
                    acted = true;
                }
                talks.iter_mut().fold(acted, |acted, talk| talk.act(stranger, stack) | acted)
            });
            if !ours && !theirs {
                return;
            }
        }
    }

    /// Packets that were given to the devices are on their way.
    fn transmit(&mut self) {
        for (to_us, machine) in [(false, &mut self.ours), (true, &mut self.theirs)] {
            for packet in machine.card(|card| card.transmit()) {
                let count = &mut self.carried[usize::from(to_us)];
                *count += 1;
                if !self.loses.is_some_and(|loses| loses(to_us, *count)) {
                    self.flying.push_back((self.now + DELAY, to_us, packet));
                }
            }
        }
    }

    fn poll(machine: &mut Machine, now: Instant) -> Option<Instant> {
        for _ in 0..1000 {
            let Polled { deadline, more, .. } = machine.with(now, |stack| stack.poll());
            if !more && machine.card(|card| card.arrived().len()) == 0 {
                return deadline;
            }
        }
        panic!("a poll has no end");
    }

    /// Everything that can be done now is; then time goes on to the next arrival or deadline, and what arrives is with the devices.
    /// How many packets are with ours.
    pub(super) fn advance(&mut self, accepts: bool) -> usize {
        let mut deadlines = [None; 2];
        for talk in self.our_talks.iter_mut().chain(&mut self.their_talks) {
            talk.may_send = talk.sent + WRITE;
        }
        for _ in 0..2 {
            deadlines[0] = Self::poll(&mut self.ours, self.now);
            deadlines[1] = Self::poll(&mut self.theirs, self.now);
            self.act(accepts);
        }
        self.transmit();
        let arrival = self.flying.front().map(|first| first.0);
        let next = deadlines.into_iter().flatten().chain(arrival).min();
        self.now = self.now.max(next.unwrap_or(self.now + Duration::from_secs(10)));
        while let Some((_, to_us, packet)) = self.flying.pop_front_if(|first| first.0 <= self.now) {
            let to = if to_us { &mut self.ours } else { &mut self.theirs };
            to.card(|card| card.deliver(&packet));
        }
        self.ours.card(|card| card.arrived().len())
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.advance(true);
        }
    }

    /// Lets time pass until so many packets are with our device, and it was not polled since.
    pub(super) fn run_until_arrived(&mut self, least: usize) {
        for _ in 0..10_000 {
            if self.advance(true) >= least {
                return;
            }
        }
        panic!("nothing arrives");
    }

    /// Runs until every program has closed all that it has.
    pub(super) fn finish(&mut self) {
        let end = self.now + PATIENCE;
        while self.our_talks.iter().chain(&self.their_talks).any(|talk| talk.socket.is_some()) {
            self.advance(true);
            assert!(self.now < end, "somebody waits for ever");
        }
    }

    /// Slots of processes that somebody expected, and that never came, or whose end was begun.
    pub(super) fn left_over(&mut self) -> Vec<Handle> {
        self.ours.with(self.now, |stack| {
            let slots = stack.parts.processes.iter().enumerate();
            let left = slots.filter(|(_, it)| it.tag.is_used() && it.state() != process::State::Attached);
            left.map(|(index, it)| it.tag.handle(index as u32)).collect()
        })
    }

    /// What is left of ours when all connections have ended: sockets, queues, SYNs, and frames that are in no place where one
    /// expects them.
    pub(super) fn left(&mut self) -> [u32; 4] {
        self.run_for(Duration::from_secs(400));
        self.ours.with(self.now, |stack| {
            let slabs = &stack.parts.slabs;
            let states = stack.shared.frames.iter().map(|word| state::load(word).0);
            let kept = |state: &FrameState| {
                !matches!(state, FrameState::Free | FrameState::Fill | FrameState::Quarantined)
            };
            let frames = states.filter(kept).count() as u32;
            [slabs.tcbs.used(), slabs.traffics.used(), slabs.syns.used(), frames]
        })
    }
}
