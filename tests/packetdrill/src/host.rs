//! One host: the region with the stack's state, its device, and its clock.

use std::sync::atomic::AtomicU64;

use stack::hash::Secret;
use stack::ip::route::{Route, V4_BITS};
use stack::ports::Lease;
use stack::region::{Layout, Limits, Parts, Shared};
use stack::stack::Stack;
use stack::stats::Counter;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

use crate::files::Files;
use crate::link::{Link, Sent};

/// This host's addresses, as packetdrill configures its tun device.
pub const LOCAL: Ip = Ip::v4([192, 168, 0, 1]);
/// The same of IPv6: fd3d:a0b:17d6::1.
pub const LOCAL_6: Ip = Ip([0xfd, 0x3d, 0x0a, 0x0b, 0x17, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// Whom it talks to.
pub const REMOTE: Ip = Ip::v4([192, 0, 2, 1]);
/// The same of IPv6: fd3d:fa7b:d17d::1.
pub const REMOTE_6: Ip = Ip([0xfd, 0x3d, 0xfa, 0x7b, 0xd1, 0x7d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// What a host is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Bytes of a frame.
    pub frame_size: u16,
    /// Frames of its device: enough for the largest window that tuning makes.
    pub frames: u32,
    /// What the administrator has set.
    pub host: stack::host::Host,
}

impl Default for Setup {
    fn default() -> Self {
        Self { mtu: 1500, frame_size: 2048, frames: 12_288, host: stack::host::Host::DEFAULT }
    }
}

/// The time at which a host begins: not zero, which means "never" in some records.
const BEGIN: Instant = Instant(1_000_000_000_000);

/// Most rounds in which all that is due at one time must be done.
const ROUNDS: u32 = 100_000;

/// The host.
pub struct Host {
    memory: Vec<u8>,
    aligned: usize,
    words: Vec<AtomicU64>,
    layout: Layout,
    link: Link,
    now: Instant,
    deadline: Option<Instant>,
    /// Its descriptors.
    pub files: Files,
}

impl Host {
    /// A host without sockets.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let limits = Limits {
            frames: setup.frames,
            frame_size: setup.frame_size.into(),
            tcp_sockets: 256,
            traffics: 256,
            syns: 256,
            ..Limits::SMALL
        };
        let layout = Layout::new(&limits).expect("limits within their bounds");
        let memory = vec![0; layout.size + 64];
        let aligned = memory.as_ptr().align_offset(64);
        let words = (0..stack::region::shared::words(&limits)).map(|_| AtomicU64::new(0)).collect();
        let mut host = Self {
            memory,
            aligned,
            words,
            layout,
            link: Link::new(setup.frames, setup.frame_size, setup.mtu),
            now: BEGIN,
            deadline: None,
            files: Files::default(),
        };
        host.configure(&limits, &setup.host);
        host.settle();
        host
    }

    fn configure(&mut self, limits: &Limits, set: &stack::host::Host) {
        let bytes = &mut self.memory[self.aligned..];
        let secret = Secret([0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978]);
        let mut parts = Parts::create(bytes, limits, secret).expect("memory for the layout");
        *parts.host = *set;
        for (ip, prefix_len) in [(LOCAL, V4_BITS + 16), (LOCAL_6, 64)] {
            parts.join_subnet(&ip, prefix_len).expect("room for two addresses");
        }
        // A tun device: whatever is sent goes to its other side.
        for (destination, prefix_len) in [(Ip::UNSPECIFIED_V4, V4_BITS), (Ip::UNSPECIFIED, 0)] {
            parts.add_route(&Route { destination, prefix_len, ..Route::default() }).expect("room for routes");
        }
        let handle = parts.slabs.leases.take(parts.leases).expect("room for a lease");
        let lease = &mut parts.leases[handle.index as usize];
        *lease = Lease {
            tag: lease.tag,
            first: 32_768,
            count: 28_000,
            protocols: 3,
            is_ephemeral: 1,
            reserved: 0,
        };
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// When the stack wants to be polled next.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// A counter of the stack.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        Shared::split(&self.words, &self.layout.limits).expect("words for the limits").counters().of(counter)
    }

    /// The names of the stack's counters that have moved.
    #[must_use]
    pub fn moved(&self) -> Vec<&'static str> {
        Shared::split(&self.words, &self.layout.limits)
            .expect("words for the limits")
            .counters()
            .moved()
            .collect()
    }

    /// Does something with the stack, without polling it.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Link>) -> R) -> R {
        let shared = Shared::split(&self.words, &self.layout.limits).expect("words for the limits");
        let mut parts = Parts::split(&mut self.memory[self.aligned..], &self.layout).expect("a region");
        self.link.now = self.now;
        act(&mut Stack { parts: &mut parts, shared: &shared, device: &mut self.link, now: self.now })
    }

    /// Polls until nothing is left to do at this time.
    ///
    /// # Panics
    /// If that has no end.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let polled = self.with(|stack| stack.poll());
            self.deadline = polled.deadline;
            let is_due = polled.deadline.is_some_and(|at| at <= self.now);
            if !polled.more && !is_due && !self.link.has_received() {
                return;
            }
        }
        panic!("at {:?} the stack has always more to do", self.now);
    }

    /// Lets time pass up to this moment.
    pub fn advance(&mut self, until: Instant) {
        while self.step(until) {}
    }

    /// Lets time pass to the next deadline, if that isn't later than this moment, or to the moment; whether there was one.
    pub fn step(&mut self, until: Instant) -> bool {
        match self.deadline {
            Some(at) if at <= until => {
                self.now = self.now.max(at);
                self.settle();
                true
            }
            _ => {
                self.now = self.now.max(until);
                false
            }
        }
    }

    /// Time since an earlier moment, in whole microseconds.
    #[must_use]
    pub fn since(&self, earlier: Instant) -> Duration {
        self.now - earlier
    }

    /// An IP packet arrives; false if it is longer than any that this device takes.
    pub fn packet_in(&mut self, packet: &[u8]) -> bool {
        self.packets_in(&[packet])
    }

    /// The same for several, in one burst.
    pub fn packets_in<P: AsRef<[u8]>>(&mut self, packets: &[P]) -> bool {
        self.link.now = self.now;
        let are_taken = packets.iter().all(|packet| self.link.deliver(packet.as_ref()));
        self.settle();
        are_taken
    }

    /// The next IP packet that has left, and when.
    pub fn packet_out(&mut self) -> Option<Sent> {
        self.link.take_sent()
    }

    /// Puts back what [`Host::packet_out`] gave.
    pub fn put_back(&mut self, sent: Sent) {
        self.link.put_back(sent);
    }

    /// Looks at every invariant of the region.
    ///
    /// # Panics
    /// At the first that doesn't hold.
    pub fn check(&mut self) {
        let shared = Shared::split(&self.words, &self.layout.limits).expect("words for the limits");
        let mut parts = Parts::split(&mut self.memory[self.aligned..], &self.layout).expect("a region");
        assert_eq!(parts.check(), Ok(()));
        assert_eq!(parts.check_frames(&shared), Ok(()));
    }
}
