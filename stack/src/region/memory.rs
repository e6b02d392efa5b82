//! Memory for regions in tests.

use core::sync::atomic::AtomicU64;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Layout, Limits, Parts, Shared};
use crate::hash::Secret;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Bytes that begin at a line, and the shared words beside them.
pub(crate) struct Memory {
    lines: Vec<Line>,
    pub(crate) words: Vec<AtomicU64>,
    pub(crate) limits: Limits,
}

impl Memory {
    /// Zero bytes for these limits.
    pub(crate) fn zero(limits: &Limits) -> Self {
        let layout = Layout::new(limits).expect("limits");
        let words = super::shared::words(limits);
        Self {
            lines: vec![Line([0; 8]); layout.size / 64],
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            limits: *limits,
        }
    }

    /// An empty region.
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut memory = Self::zero(limits);
        Parts::create(memory.bytes(), limits, Secret([0x1234, 0x5678])).expect("room");
        memory
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.lines.as_mut_slice().as_mut_bytes()
    }

    pub(crate) fn parts(&mut self) -> Parts<'_> {
        let layout = Layout::new(&self.limits).expect("limits");
        Parts::split(self.bytes(), &layout).expect("room")
    }

    pub(crate) fn shared(&self) -> Shared<'_> {
        Shared::split(&self.words, &self.limits).expect("room")
    }
}

/// A region in which every limit is reached soon.
pub(crate) const TINY: Limits = Limits {
    tcp_sockets: 12,
    traffics: 3,
    listeners: 4,
    syns: 4,
    udp_sockets: 4,
    memberships: 2,
    bounds: 10,
    settings: 3,
    leases: 2,
    addresses: 2,
    routes: 2,
    neighbours: 2,
    datagrams: 2,
    pieces: 4,
    destinations: 2,
    processes: 4,
    frames: 4,
    frame_size: 2048,
    blocks: 1,
    tap: 0,
};
