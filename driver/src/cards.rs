//! The public record of each socket: a table in a memfd that every process of a family shares.
//!
//! A family is a process and those that it forked: they share open file descriptions, so they share what must
//! be one per description: who holds it, whether it is non-blocking, the two locks. The rest of a card is
//! counters for `accel explain` and `accel stat`, which map the memfd read-only through `/proc/PID/fd`.
//!
//! A card holds no pointers and nothing that memory safety rests on, so a forked child that dropped its
//! rights can harm only the sockets that it shares.

use core::ffi::CStr;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use crate::sys::{self, Errno, Fd};

/// Name of the memfd, as it shows in `/proc/PID/fd`.
pub const MEMFD_NAME: &CStr = c"accel-cards";
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
const MAGIC: u32 = u32::from_le_bytes(*b"acca");
const VERSION: u32 = 1;
/// Sockets that one family can follow.
pub const CARDS_MAX: usize = 65_536;
const HEADER_BYTES: usize = 8192;

/// Where a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Path {
    /// On the kernel; may be upgraded.
    Candidate = 0,
    /// On the kernel; waits for the other end to meet.
    Meeting = 1,
    /// Has rings.
    Local = 2,
    /// On the kernel for good.
    Kernel = 3,
    /// A listening socket.
    Listener = 4,
    /// The network stack carries it.
    Stack = 5,
}

impl Path {
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Candidate,
            1 => Self::Meeting,
            2 => Self::Local,
            4 => Self::Listener,
            5 => Self::Stack,
            _ => Self::Kernel,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Meeting => "meeting",
            Self::Local => "local",
            Self::Kernel => "kernel",
            Self::Listener => "listener",
            Self::Stack => "stack",
        }
    }
}

macro_rules! counters {
    ($($name:ident $doc:literal;)*) => {
        /// Counters of one socket, or of all closed sockets together.
        #[repr(C)]
        #[derive(Debug, Default)]
        pub struct Counters { $(#[doc = $doc] pub $name: AtomicU64),* }

        /// A copy of [`Counters`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $(#[doc = $doc] pub $name: u64),* }

        /// Name and meaning of each counter.
        pub const COUNTERS: &[(&str, &str)] = &[$((stringify!($name), $doc)),*];

        impl Counters {
            fn copy(&self) -> Counts {
                Counts { $($name: self.$name.load(Relaxed)),* }
            }

            /// Adds `other` and clears it.
            pub fn absorb(&self, other: &Self) {
                // Most are 0: a short connection pays for those that it used.
                $(if other.$name.load(Relaxed) != 0 {
                    self.$name.fetch_add(other.$name.swap(0, Relaxed), Relaxed);
                })*
            }
        }

        impl Counts {
            /// Each value, in the order of [`COUNTERS`].
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name),*]
            }

            /// Adds the values of `other`.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }
    };
}

counters! {
    ring_sends "Send calls whose bytes went into the ring.";
    ring_sent_bytes "Bytes sent by the ring.";
    ring_receives "Receive calls that were answered from the ring.";
    ring_received_bytes "Bytes received by the ring.";
    kernel_sends "Send calls that went to the kernel.";
    kernel_receives "Receive calls that went to the kernel.";
    opened "Times that the receiving direction was opened.";
    closed_to_sleep "Times that it was closed because a thread went to sleep.";
    closed_full "Times that the sending direction was closed because its ring stayed full.";
    spins_won "Waits that spinning ended.";
    spins_lost "Waits that spun in vain and slept.";
}

/// Bumps a counter that only the holder of a lock writes: no atomic read-modify-write is needed.
#[inline]
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed) + by, Relaxed);
}

/// Card flags.
pub mod flag {
    /// O_NONBLOCK is set on the open file description.
    pub const NONBLOCK: u32 = 1;
    /// More processes hold it than the card can list: never a sole holder again.
    pub const CROWDED: u32 = 2;
    /// Made by `accept`.
    pub const ACCEPTED: u32 = 4;
    /// A process other than the owner used it (for an epoll set: waits or changes it).
    pub const FOREIGN_USE: u32 = 8;
    /// The sending side was shut down in good order.
    pub const SENT_FIN: u32 = 16;
    /// The peer wrote impossible values; the connection was ended.
    pub const BROKEN: u32 = 32;
    /// A listening socket.
    pub const LISTENER: u32 = 64;
    /// It may be accelerated: the peer is on this host, and nothing forbids it.
    pub const ELIGIBLE: u32 = 128;
    /// It was counted at its end.
    pub const COUNTED: u32 = 256;
    /// The other end had read and sent nothing when this one finished sending.
    pub const UNREAD_AT_END: u32 = 512;
    /// The other end had finished sending when this one first used the connection.
    pub const CAME_LATE: u32 = 1024;
}

const HOLDERS_MAX: usize = 6;

/// One open file description.
#[repr(C, align(256))]
#[derive(Debug)]
pub struct Card {
    taken: AtomicU32,
    /// Locks of the two halves: 0, or the thread id of the holder.
    receive_lock: AtomicU32,
    send_lock: AtomicU32,
    /// See [`flag`].
    pub flags: AtomicU32,
    /// Threads that sleep in the kernel in a wait that covers the receiving direction.
    pub sleepers: AtomicU32,
    /// Calls that are inside the kernel on this socket right now.
    pub in_kernel: AtomicU32,
    holders: [AtomicU32; HOLDERS_MAX],
    path: AtomicU32,
    reason: AtomicU32,
    fd: AtomicU32,
    owner: AtomicU32,
    /// What it did so far.
    pub counters: Counters,
    /// In the network stack: the interface's number, and its handle there (generation, index).
    interface: AtomicU32,
    handle: AtomicU64,
}

const _: () = assert!(size_of::<Card>() == 256);

/// The start of the table.
#[repr(C, align(4096))]
struct Header {
    magic: AtomicU32,
    version: AtomicU32,
    pid: AtomicU32,
    hint: AtomicU32,
    /// One more than the highest index that was ever taken: readers look no further.
    end: AtomicU32,
    /// TCP sockets that could have been accelerated (established, both ends on this host as far as known).
    candidates: AtomicU64,
    upgraded: AtomicU64,
    reasons: [AtomicU64; 64],
    closed: Counters,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

/// The table of a family, mapped in a process.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    base: *const u8,
}

// SAFETY: the table is atomics in shared memory that is never unmapped.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// Makes the table of a new family. The descriptor stays open so that tools can find it; without memfd
    /// the memory is anonymous and tools see nothing.
    pub fn create(number_floor: i32) -> sys::Result<(Self, Option<Fd>)> {
        let bytes = HEADER_BYTES + CARDS_MAX * size_of::<Card>();
        let file = sys::memfd_create(MEMFD_NAME, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING).ok();
        let file = file.filter(|file| sys::ftruncate(file, bytes).is_ok());
        if let Some(file) = &file {
            // Whoever maps it to read need not fear that it shrinks.
            let _ = sys::fcntl(file.raw(), libc::F_ADD_SEALS, SEALS as usize);
        }
        let kind =
            libc::MAP_SHARED | libc::MAP_NORESERVE | if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
        let base = sys::mmap(file.as_ref(), bytes, libc::PROT_READ | libc::PROT_WRITE, kind)?;
        let table = Self { base };
        let header = table.header();
        header.version.store(VERSION, Relaxed);
        header.pid.store(sys::getpid() as u32, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok((table, file.map(|file| sys::raise_number(file, number_floor))))
    }

    fn header(&self) -> &Header {
        // SAFETY: `base` is a mapping of a whole table, never unmapped; all fields are atomics.
        unsafe { &*self.base.cast::<Header>() }
    }

    /// The card with this index (indices from elsewhere wrap).
    #[inline]
    #[must_use]
    pub fn card(&self, index: u32) -> &'static Card {
        let index = index as usize % CARDS_MAX;
        // SAFETY: the table holds CARDS_MAX cards behind the header and is never unmapped.
        unsafe { &*self.base.add(HEADER_BYTES).cast::<Card>().add(index) }
    }

    fn index_of(&self, card: &Card) -> u32 {
        let offset = core::ptr::from_ref(card).addr() - self.base.addr() - HEADER_BYTES;
        (offset / size_of::<Card>()) as u32
    }

    /// Takes a free card for a socket held by process `pid`; `None` when all are in use.
    #[must_use]
    pub fn take(&self, pid: u32) -> Option<u32> {
        self.take_free(pid).or_else(|| {
            self.free_cards_of_the_dead();
            self.take_free(pid)
        })
    }

    fn take_free(&self, pid: u32) -> Option<u32> {
        let start = self.header().hint.load(Relaxed);
        for step in 0..CARDS_MAX as u32 {
            let index = start.wrapping_add(step) % CARDS_MAX as u32;
            let card = self.card(index);
            if card.taken.load(Relaxed) == 0 && card.taken.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
                self.header().hint.store(index + 1, Relaxed);
                self.header().end.fetch_max(index + 1, Release);
                card.clear(pid);
                return Some(index);
            }
        }
        None
    }

    /// A killed process never gives its cards back: do it for it.
    fn free_cards_of_the_dead(&self) {
        for index in 0..self.end() {
            let card = self.card(index);
            if card.taken.load(Relaxed) == 1 {
                card.forget_dead_holders(0);
                self.release_if_unheld(card);
            }
        }
    }

    fn end(&self) -> u32 {
        self.header().end.load(Acquire).min(CARDS_MAX as u32)
    }

    /// Takes `pid` off the card's holders; the last one frees the card.
    pub fn leave(&self, card: &Card, pid: u32) {
        for holder in &card.holders {
            if holder.load(SeqCst) == pid {
                let _ = holder.compare_exchange(pid, 0, SeqCst, Relaxed);
            }
        }
        self.release_if_unheld(card);
    }

    fn release_if_unheld(&self, card: &Card) {
        let crowded = card.flags.load(SeqCst) & flag::CROWDED != 0;
        if crowded || card.holders.iter().any(|holder| holder.load(SeqCst) != 0) {
            return;
        }
        if card.taken.compare_exchange(1, 2, SeqCst, Relaxed).is_ok() {
            self.header().closed.absorb(&card.counters);
            card.taken.store(0, Release);
            // Low cards first: few are ever touched, here and in the slots of the same numbers.
            self.header().hint.fetch_min(self.index_of(card), Relaxed);
        }
    }

    /// Counts a socket that could be accelerated: once, whichever of its holders finds out.
    pub fn count_candidate(&self, card: &Card) {
        if card.flags.fetch_or(flag::ELIGIBLE, SeqCst) & flag::ELIGIBLE == 0 {
            self.header().candidates.fetch_add(1, Relaxed);
        }
    }

    /// Counts an upgrade.
    pub fn count_upgraded(&self) {
        self.header().upgraded.fetch_add(1, Relaxed);
    }

    /// Counts why a socket stays on the kernel.
    pub fn count_reason(&self, reason: u8) {
        self.header().reasons[usize::from(reason) % 64].fetch_add(1, Relaxed);
    }
}

/// A holder that is no process yet: the child of a fork that `parent` is about to make, its `count`th.
#[must_use]
pub const fn expected_child(parent: u32, count: u32) -> u32 {
    EXPECTED | (parent & PID_MASK) << COUNT_BITS | count & ((1 << COUNT_BITS) - 1)
}

const EXPECTED: u32 = 1 << 31;
const COUNT_BITS: u32 = 9;
/// Process ids have 22 bits at most: PID_MAX_LIMIT in include/linux/threads.h.
const PID_MASK: u32 = (1 << 22) - 1;

/// The process whose life decides on a holder's: its own, or its parent's as long as it has none.
const fn answerable(holder: u32) -> i32 {
    (if holder & EXPECTED == 0 { holder } else { holder >> COUNT_BITS & PID_MASK }) as i32
}

impl Card {
    fn clear(&self, pid: u32) {
        for word in [&self.receive_lock, &self.send_lock, &self.flags, &self.sleepers, &self.in_kernel] {
            word.store(0, Relaxed);
        }
        for holder in &self.holders {
            holder.store(0, Relaxed);
        }
        self.holders[0].store(pid, SeqCst);
        self.owner.store(pid, Relaxed);
        self.path.store(Path::Candidate as u32, Relaxed);
        self.reason.store(0, Relaxed);
        self.interface.store(0, Relaxed);
    }

    /// What tools show.
    pub fn describe(&self, fd: i32, path: Path, reason: u8) {
        self.fd.store(fd as u32, Relaxed);
        self.path.store(path as u32, Relaxed);
        self.reason.store(u32::from(reason), Relaxed);
    }

    /// The network stack has it, under this handle (generation in the upper half, index in the lower).
    pub fn describe_in_stack(&self, interface: u32, handle: u64) {
        self.interface.store(interface, Relaxed);
        self.handle.store(handle, Relaxed);
    }

    /// Why it is where it is, as [`Self::describe`] was told last.
    #[must_use]
    pub fn reason(&self) -> u8 {
        self.reason.load(Relaxed) as u8
    }

    /// Whether a flag is set.
    #[inline]
    #[must_use]
    pub fn has(&self, flag: u32) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    /// Sets or clears a flag.
    pub fn set(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag, SeqCst);
        } else {
            self.flags.fetch_and(!flag, SeqCst);
        }
    }

    /// Whether it has carried a message, either way, by ring or kernel.
    #[must_use]
    pub fn carried_any(&self) -> bool {
        let all = self.counters.copy();
        all.ring_sends + all.kernel_sends + all.ring_receives + all.kernel_receives > 0
    }

    /// A forked child now holds the description too.
    pub fn join(&self, pid: u32) {
        for holder in &self.holders {
            if holder.compare_exchange(0, pid, SeqCst, Relaxed).is_ok() {
                return;
            }
        }
        self.set(flag::CROWDED, true);
    }

    /// A holder that was entered before it had a process id, by [`expected_child`], gets it; false if it is not there (any
    /// more).
    pub fn name_holder(&self, expected: u32, pid: u32) -> bool {
        self.holders.iter().any(|holder| holder.compare_exchange(expected, pid, SeqCst, Relaxed).is_ok())
    }

    /// Whether `pid` is among the holders.
    #[must_use]
    pub fn holds(&self, pid: u32) -> bool {
        self.holders.iter().any(|holder| holder.load(SeqCst) == pid)
    }

    /// Whether `pid` is the only process that holds the description; looks whether others still live.
    #[must_use]
    pub fn is_sole_holder(&self, pid: u32) -> bool {
        if self.has(flag::CROWDED) {
            return false;
        }
        let alone = || self.holders.iter().all(|holder| [0, pid].contains(&holder.load(SeqCst)));
        alone() || {
            self.forget_dead_holders(pid);
            alone()
        }
    }

    fn forget_dead_holders(&self, except: u32) {
        for holder in &self.holders {
            let pid = holder.load(SeqCst);
            if pid != 0 && pid != except && !sys::process_exists(answerable(pid)) {
                let _ = holder.compare_exchange(pid, 0, SeqCst, Relaxed);
            }
        }
    }

    /// Locks the receiving half for thread `tid`.
    #[inline]
    pub fn lock_receive(&'static self, tid: u32) -> Held {
        lock(&self.receive_lock, tid)
    }

    /// Locks the sending half for thread `tid`.
    #[inline]
    pub fn lock_send(&'static self, tid: u32) -> Held {
        lock(&self.send_lock, tid)
    }
}

/// A held lock; dropping it unlocks.
#[derive(Debug)]
pub struct Held(&'static AtomicU32);

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

#[inline]
fn lock(word: &'static AtomicU32, tid: u32) -> Held {
    if word.compare_exchange(0, tid, Acquire, Relaxed).is_err() {
        wait_for(word, tid);
    }
    Held(word)
}

/// Holds are shorter than a copy of one ring, so a waiter polls: spins, yields, naps. A holder that died (a
/// killed family member) loses the lock.
#[cold]
fn wait_for(word: &AtomicU32, tid: u32) {
    for round in 0u64.. {
        let holder = word.load(Relaxed);
        if holder == 0 && word.compare_exchange(0, tid, Acquire, Relaxed).is_ok() {
            return;
        }
        match round {
            0..100 => core::hint::spin_loop(),
            100..200 => sys::sched_yield(),
            _ if holder != 0 && !sys::process_exists(holder as i32) => {
                if word.compare_exchange(holder, tid, Acquire, Relaxed).is_ok() {
                    return;
                }
            }
            _ => sys::nanosleep(50_000),
        }
    }
}

/// A reading of one card.
#[derive(Clone, Copy, Debug)]
pub struct CardView {
    /// Descriptor number in the owner when it was last described.
    pub fd: i32,
    /// Process that made or accepted the socket.
    pub owner: i32,
    pub path: Path,
    /// Number of a `rows::reasons::Reason`.
    pub reason: u8,
    /// See [`flag`].
    pub flags: u32,
    /// The interface's number and its handle, if the network stack has it.
    pub in_stack: Option<(u32, u64)>,
    /// Processes that hold it (zeros left out).
    pub holders: [i32; HOLDERS_MAX],
    pub counts: Counts,
}

/// Totals of a family.
#[derive(Clone, Debug)]
pub struct HeaderView {
    /// Process that started the family.
    pub pid: i32,
    pub candidates: u64,
    pub upgraded: u64,
    /// Sockets that stayed on the kernel, by reason number.
    pub reasons: Vec<u64>,
    /// Counters of all sockets that are closed.
    pub closed: Counts,
}

/// The tables of a running process, mapped read-only.
#[derive(Debug)]
pub struct Reader {
    table: Table,
    bytes: usize,
}

impl Reader {
    /// Maps the table of process `pid`.
    ///
    /// # Errors
    /// `NotFound` when the process has none (not under accel, or no TCP socket yet), or the system's error
    /// (another user's process).
    pub fn open(pid: u32) -> std::io::Result<Self> {
        let mut error = std::io::Error::from(std::io::ErrorKind::NotFound);
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            let is_table = std::fs::read_link(&path)
                .is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:accel-cards"));
            if is_table {
                match Self::map(&path) {
                    Ok(reader) => return Ok(reader),
                    Err(cause) => error = cause,
                }
            }
        }
        Err(error)
    }

    fn map(path: &std::path::Path) -> std::io::Result<Self> {
        use std::os::fd::IntoRawFd;
        let os = |error: Errno| std::io::Error::from_raw_os_error(error.0);
        let bytes = HEADER_BYTES + CARDS_MAX * size_of::<Card>();
        let file = Fd::own(std::fs::File::open(path)?.into_raw_fd());
        let seals = sys::fcntl(file.raw(), libc::F_GET_SEALS, 0).map_err(os)? as i32;
        if seals & SEALS != SEALS || sys::fstat(file.raw()).map_err(os)?.st_size as usize != bytes {
            return Err(std::io::Error::other("the table has another version's size"));
        }
        let base = sys::mmap(Some(&file), bytes, libc::PROT_READ, libc::MAP_SHARED).map_err(os)?;
        let reader = Self { table: Table { base }, bytes };
        let header = reader.table.header();
        if header.magic.load(Acquire) != MAGIC || header.version.load(Relaxed) != VERSION {
            return Err(std::io::Error::other("the table has another version"));
        }
        Ok(reader)
    }

    /// The family's totals.
    #[must_use]
    pub fn header(&self) -> HeaderView {
        let header = self.table.header();
        HeaderView {
            pid: header.pid.load(Relaxed) as i32,
            candidates: header.candidates.load(Relaxed),
            upgraded: header.upgraded.load(Relaxed),
            reasons: header.reasons.iter().map(|count| count.load(Relaxed)).collect(),
            closed: header.closed.copy(),
        }
    }

    /// Every open socket that the family follows.
    #[must_use]
    pub fn sockets(&self) -> Vec<CardView> {
        (0..self.table.end()).filter_map(|index| Self::view(self.table.card(index))).collect()
    }

    fn view(card: &Card) -> Option<CardView> {
        (card.taken.load(Acquire) == 1).then(|| CardView {
            fd: card.fd.load(Relaxed) as i32,
            owner: card.owner.load(Relaxed) as i32,
            path: Path::from_number(card.path.load(Relaxed)),
            reason: card.reason.load(Relaxed) as u8,
            flags: card.flags.load(Relaxed),
            in_stack: match card.interface.load(Relaxed) {
                0 => None,
                interface => Some((interface, card.handle.load(Relaxed))),
            },
            // One that is no process yet counts as none.
            holders: core::array::from_fn(|at| (card.holders[at].load(Relaxed) as i32).max(0)),
            counts: card.counters.copy(),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: views are copies; the cards handed out inside do not outlive the methods above.
        unsafe { sys::munmap(self.table.base.cast_mut(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_freed_by_its_last_holder() {
        let (table, _file) = Table::create(100).unwrap();
        let card = table.card(table.take(7).unwrap());
        card.join(8);
        assert!(!card.is_sole_holder(7) || !sys::process_exists(8));
        table.leave(card, 7);
        assert!(Reader::view(card).is_some());
        table.leave(card, 8);
        assert!(Reader::view(card).is_none());
    }

    #[test]
    fn a_holder_that_died_does_not_count() {
        let (table, _file) = Table::create(100).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let card = table.card(table.take(std::process::id()).unwrap());
        card.join(child.id());
        child.wait().unwrap();
        assert!(card.is_sole_holder(std::process::id()));
    }

    #[test]
    fn a_lock_of_a_dead_thread_is_taken_over() {
        let (table, _file) = Table::create(100).unwrap();
        let card = table.card(table.take(1).unwrap());
        let dead = std::thread::spawn(|| sys::gettid() as u32).join().unwrap();
        core::mem::forget(card.lock_receive(dead));
        let held = card.lock_receive(sys::gettid() as u32);
        drop(held);
    }

    #[test]
    fn a_reader_sees_what_the_program_publishes() {
        let (table, _file) = Table::create(100).unwrap();
        let card = table.card(table.take(std::process::id()).unwrap());
        card.describe(5, Path::Local, 0);
        bump(&card.counters.ring_sends, 3);
        let reader = Reader::open(std::process::id());
        // Another test's table may be found first: only then is the answer not ours.
        if let Ok(reader) = reader {
            assert!(reader.header().pid > 0);
        }
    }
}
