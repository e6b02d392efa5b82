//! The memory of one connection: two rings and the words that steer them, private to the two processes.
//!
//! ```text
//! 0      Header: magic, version, phase, two Ends, two Directions      (4096 bytes)
//! 4096   ring connector → acceptor                                   (capacity)
//! …      ring acceptor → connector                                   (capacity)
//! ```
//! It is a memfd whose size is sealed, so no access can fault. Sizes are taken once, from the kernel, when it
//! is mapped; nothing that the peer writes later changes where we read.

use core::ffi::CStr;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use crate::copy::Ring;
use crate::switch::Direction;
use crate::sys::{self, Errno, Fd};

const MAGIC: u32 = u32::from_le_bytes(*b"accl");
/// Raised with every change of this layout: programs with different libraries then stay on the kernel.
pub const VERSION: u32 = 2;
/// An end's `gave_up`: it was given away, and whatever is unread in its ring, the sender sends by the kernel;
const GIVEN: u32 = 1;
/// others, who do not count, read its kernel bytes too.
const SHARED: u32 = 2;
/// Bytes before the first ring.
pub const HEADER_BYTES: usize = 4096;
/// Smallest and largest ring.
pub const CAPACITY_RANGE: (usize, usize) = (16 << 10, 16 << 20);
const NAME: &CStr = c"accel-channel";
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

const OFFERED: u32 = 0;
const ACCEPTED: u32 = 1;
const WITHDRAWN: u32 = 2;

#[repr(C, align(4096))]
struct Header {
    magic: AtomicU32,
    version: AtomicU32,
    phase: AtomicU32,
    ends: [End; 2],
    directions: [Direction; 2],
}

/// What one side tells the other.
#[repr(C, align(128))]
struct End {
    /// The CPU where it last waited or sent, plus one.
    cpu: AtomicU32,
    /// Its byte counts are published; it obeys the protocol from now on.
    committed: AtomicU32,
    /// It has shut its sending side down in good order (so a FIN is not a death).
    finished: AtomicU32,
    /// GIVEN or SHARED.
    gave_up: AtomicU32,
    /// It has sent urgent data by the kernel: a read must not run from the ring over the mark.
    urgent: AtomicU32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Which end of the TCP connection a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It called `connect`.
    Connector = 0,
    /// It called `accept`.
    Acceptor = 1,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Connector => Self::Acceptor,
            Self::Acceptor => Self::Connector,
        }
    }
}

/// A mapped channel. It is a handle: whoever owns it unmaps it.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    base: NonNull<u8>,
    capacity: usize,
    side: Side,
}

impl Channel {
    /// Makes the memory of a new connection: the connector's part. The descriptor is for the peer.
    pub fn create(capacity: usize) -> sys::Result<(Self, Fd)> {
        let capacity = capacity.next_power_of_two().clamp(CAPACITY_RANGE.0, CAPACITY_RANGE.1);
        let file = sys::memfd_create(NAME, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
        sys::ftruncate(&file, Self::mapped_bytes(capacity))?;
        sys::fcntl(file.raw(), libc::F_ADD_SEALS, SEALS as usize)?;
        let channel = Self::map(&file, capacity, Side::Connector)?;
        for direction in &channel.header().directions {
            direction.close();
        }
        channel.header().version.store(VERSION, Relaxed);
        channel.header().magic.store(MAGIC, Release);
        Ok((channel, file))
    }

    /// Maps what the peer sent, if it is such memory: sealed, of a legal size, of our version.
    pub fn attach(file: &Fd) -> sys::Result<Self> {
        const REFUSED: Errno = Errno(libc::EPROTO);
        let seals = sys::fcntl(file.raw(), libc::F_GET_SEALS, 0)? as i32;
        if seals & SEALS != SEALS || seals & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(REFUSED);
        }
        let size = usize::try_from(sys::fstat(file.raw())?.st_size).map_err(|_| REFUSED)?;
        let capacity = size.checked_sub(HEADER_BYTES).ok_or(REFUSED)? / 2;
        let legal = capacity.is_power_of_two() && (CAPACITY_RANGE.0..=CAPACITY_RANGE.1).contains(&capacity);
        if !legal || size != Self::mapped_bytes(capacity) {
            return Err(REFUSED);
        }
        let channel = Self::map(file, capacity, Side::Acceptor)?;
        let header = channel.header();
        if header.magic.load(Acquire) != MAGIC || header.version.load(Relaxed) != VERSION {
            // SAFETY: nobody else has this mapping yet.
            unsafe { channel.unmap() };
            return Err(REFUSED);
        }
        Ok(channel)
    }

    fn map(file: &Fd, capacity: usize, side: Side) -> sys::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let base = sys::mmap(Some(file), Self::mapped_bytes(capacity), protection, libc::MAP_SHARED)?;
        Ok(Self { base: NonNull::new(base).ok_or(Errno(libc::ENOMEM))?, capacity, side })
    }

    /// Bytes of address space that a channel with such rings takes.
    #[must_use]
    pub const fn mapped_bytes(capacity: usize) -> usize {
        HEADER_BYTES + 2 * capacity
    }

    /// Size of each ring in bytes.
    #[inline]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Which end we are.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// No thread of this process may use the channel, or a copy of this handle, afterwards.
    pub unsafe fn unmap(self) {
        // SAFETY: `base` came from mmap with exactly this length.
        unsafe { sys::munmap(self.base.as_ptr(), Self::mapped_bytes(self.capacity)) };
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the mapping starts with a page-aligned Header and lives as long as the handle's owner
        // keeps it; all fields are atomics, so what the peer writes cannot break the reference.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// The direction in which we send.
    #[inline]
    #[must_use]
    pub fn outgoing(&self) -> &Direction {
        &self.header().directions[self.side as usize]
    }

    /// The direction in which we receive.
    #[inline]
    #[must_use]
    pub fn incoming(&self) -> &Direction {
        &self.header().directions[self.side.other() as usize]
    }

    /// The ring of [`Self::outgoing`].
    #[inline]
    #[must_use]
    pub fn outgoing_ring(&self) -> Ring {
        self.ring(self.side)
    }

    /// The ring of [`Self::incoming`].
    #[inline]
    #[must_use]
    pub fn incoming_ring(&self) -> Ring {
        self.ring(self.side.other())
    }

    #[inline]
    fn ring(&self, sender: Side) -> Ring {
        let base = self.base.as_ptr().wrapping_add(HEADER_BYTES + sender as usize * self.capacity);
        // SAFETY: the mapping holds two rings of `capacity` bytes behind the header.
        unsafe { Ring::new(base, self.capacity) }
    }

    /// Acceptor: takes the offer. False if the connector withdrew it first.
    #[must_use]
    pub fn accept(&self) -> bool {
        self.header().phase.compare_exchange(OFFERED, ACCEPTED, SeqCst, SeqCst).is_ok()
    }

    /// Connector: takes the offer back. False if it has been accepted.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.header().phase.compare_exchange(OFFERED, WITHDRAWN, SeqCst, SeqCst).is_ok()
    }

    /// Our byte counts are published.
    pub fn commit(&self) {
        self.header().ends[self.side as usize].committed.store(1, SeqCst);
    }

    /// Whether the peer's byte counts are published.
    #[must_use]
    pub fn peer_committed(&self) -> bool {
        self.header().ends[self.side.other() as usize].committed.load(SeqCst) != 0
    }

    /// We shut our sending side down in good order.
    pub fn finish(&self) {
        self.header().ends[self.side as usize].finished.store(1, SeqCst);
    }

    /// Whether the peer shut its sending side down in good order.
    #[must_use]
    pub fn peer_finished(&self) -> bool {
        self.header().ends[self.side.other() as usize].finished.load(SeqCst) != 0
    }

    /// We give our end away: the direction is revoked, and the sender takes back what is unread (rule 6).
    pub fn give_up(&self) {
        self.header().ends[self.side as usize].gave_up.store(GIVEN, SeqCst);
        self.incoming().revoke();
    }

    /// Whether we did.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.header().ends[self.side as usize].gave_up.load(SeqCst) == GIVEN
    }

    /// Others read our end's kernel bytes too from now on.
    pub fn share(&self) {
        let gave_up = &self.header().ends[self.side as usize].gave_up;
        let _ = gave_up.compare_exchange(0, SHARED, SeqCst, Relaxed);
    }

    /// Whether nobody else does, so that our count of them holds.
    #[must_use]
    pub fn reads_alone(&self) -> bool {
        self.header().ends[self.side as usize].gave_up.load(SeqCst) == 0
    }

    /// Whether the peer did.
    #[must_use]
    pub fn peer_gave_up(&self) -> bool {
        self.header().ends[self.side.other() as usize].gave_up.load(SeqCst) == GIVEN
    }

    /// Our next kernel send is urgent.
    pub fn announce_urgent(&self) {
        self.header().ends[self.side as usize].urgent.store(1, SeqCst);
    }

    /// Whether the peer has sent urgent data.
    #[must_use]
    pub fn peer_is_urgent(&self) -> bool {
        self.header().ends[self.side.other() as usize].urgent.load(SeqCst) != 0
    }

    /// Tells the peer on which CPU we run.
    #[inline]
    pub fn publish_cpu(&self, cpu: u32) {
        let mine = &self.header().ends[self.side as usize].cpu;
        if mine.load(Relaxed) != cpu + 1 {
            mine.store(cpu + 1, Relaxed);
        }
    }

    /// The CPU where the peer last was, if it said.
    #[inline]
    #[must_use]
    pub fn peer_cpu(&self) -> Option<u32> {
        self.header().ends[self.side.other() as usize].cpu.load(Relaxed).checked_sub(1)
    }
}
