//! Descriptor number → what accel knows of it: one array load.
//!
//! An entry names a socket (by the index of its card and slot), an epoll set, or a descriptor of our own.
//! The ACTIVE bit says that data calls must come to us; a socket that stays on the kernel for good keeps its
//! entry, for `close` and `dup`, without that bit.

use core::sync::atomic::{
    AtomicI32, AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use driver::sys;
use libc::c_int;

const ACTIVE: u64 = 1 << 63;
const KIND: u64 = 0x7f << 56;
const KIND_SOCKET: u64 = 1 << 56;
const KIND_SET: u64 = 2 << 56;
const KIND_INTERNAL: u64 = 3 << 56;
const GENERATION_SHIFT: u32 = 32;
const GENERATION: u64 = 0xff_ffff;
const ENTRIES_MAX: usize = 1 << 20;

/// What a descriptor is to accel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Not ours: libc's alone.
    None,
    /// A TCP socket that is followed.
    Socket(Name),
    /// An epoll set that is followed.
    Set(Name),
    /// A descriptor that accel itself uses.
    Internal,
}

/// An index with the generation that tells its users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

static TABLE: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);
/// One more than the highest descriptor that ever had an entry: bounds the walks.
static END: AtomicI32 = AtomicI32::new(0);

/// Makes the table, sized by the hard limit on descriptors; false if there is no memory.
pub(crate) fn start() -> bool {
    let length = (sys::descriptor_limits().1 as usize).clamp(1024, ENTRIES_MAX);
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let Ok(base) = sys::mmap(None, length * 8, libc::PROT_READ | libc::PROT_WRITE, kind) else {
        return false;
    };
    TABLE.store(base.cast(), Release);
    LENGTH.store(length, SeqCst);
    true
}

#[inline]
fn slot(fd: c_int) -> Option<&'static AtomicU64> {
    let index = fd as u32 as usize;
    if index >= LENGTH.load(Acquire) {
        return None;
    }
    // SAFETY: LENGTH is set after TABLE, which is never unmapped and holds LENGTH zeroed words.
    Some(unsafe { &*TABLE.load(Relaxed).add(index) })
}

#[inline]
fn word(fd: c_int) -> u64 {
    slot(fd).map_or(0, |entry| entry.load(Acquire))
}

/// Whether data calls on this descriptor come to accel.
#[inline]
pub(crate) fn is_active(fd: c_int) -> bool {
    word(fd) & ACTIVE != 0
}

/// Whether accel knows the descriptor at all.
#[inline]
pub(crate) fn is_known(fd: c_int) -> bool {
    word(fd) != 0
}

/// The entry of a descriptor.
#[inline]
pub(crate) fn get(fd: c_int) -> Entry {
    let word = word(fd);
    let name = Name { index: word as u32, generation: (word >> GENERATION_SHIFT & GENERATION) as u32 };
    match word & KIND {
        KIND_SOCKET => Entry::Socket(name),
        KIND_SET => Entry::Set(name),
        KIND_INTERNAL => Entry::Internal,
        _ => Entry::None,
    }
}

/// Replaces the entry of a descriptor; false if the number is beyond the table.
pub(crate) fn set(fd: c_int, entry: Entry) -> bool {
    let Some(slot) = slot(fd) else { return false };
    END.fetch_max(fd + 1, Relaxed);
    let pack = |kind: u64, name: Name| {
        kind | u64::from(name.generation) << GENERATION_SHIFT & (GENERATION << GENERATION_SHIFT)
            | u64::from(name.index)
    };
    slot.store(
        match entry {
            Entry::None => 0,
            Entry::Socket(name) => pack(ACTIVE | KIND_SOCKET, name),
            Entry::Set(name) => pack(ACTIVE | KIND_SET, name),
            Entry::Internal => KIND_INTERNAL,
        },
        Release,
    );
    true
}

/// Takes the entry out, if it is still the same.
pub(crate) fn take(fd: c_int) -> Entry {
    let entry = get(fd);
    if let Some(slot) = slot(fd) {
        slot.store(0, Release);
    }
    entry
}

/// Data calls no longer come to us; `close` and `dup` do.
pub(crate) fn quieten(fd: c_int) {
    if let Some(slot) = slot(fd) {
        slot.fetch_and(!ACTIVE, SeqCst);
    }
}

/// Calls `f` for every descriptor with an entry.
pub(crate) fn for_each(mut f: impl FnMut(c_int, Entry)) {
    for fd in 0..END.load(Relaxed) {
        let entry = get(fd);
        if entry != Entry::None {
            f(fd, entry);
        }
    }
}

/// The number was handed out again by the kernel: what we knew of it is old.
pub(crate) fn forget_number(fd: c_int) {
    crate::slot::forget_descriptor(fd);
}
