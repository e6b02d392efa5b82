//! The memory of a stack's state: a memfd with the locked part first, and the shared words behind it from the next page on.
//!
//! Zero bytes are a region that nobody has made yet. Whoever holds the lock makes it; the lock is one of the shared words, which
//! need no making.

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use driver::sys::{self, Errno, Fd};
use stack::hash::Secret;
use stack::region::{Layout, Limits, Parts, Refused as NotOurs, Shared, shared};

/// What the memory is called in /proc/PID/maps.
const FILE: &core::ffi::CStr = c"accel-region";
/// The same, for those who look for it.
pub const NAME: &str = match FILE.to_str() {
    Ok(name) => name,
    Err(_) => unreachable!(),
};
/// Bytes of a page.
const PAGE: usize = 4096;

/// Why there is no region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What is there is no region that this library knows.
    NotOurs(NotOurs),
    /// No process more can use it.
    Full,
    /// There is no memory for it.
    Memory {
        /// Bytes that it needs.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs(why) => write!(to, "{why}"),
            Self::Full => write!(
                to,
                "{} processes use the stack already, and no more can",
                stack::process::PROCESSES_MAX
            ),
            Self::Memory { bytes, errno } => {
                write!(
                    to,
                    "no {bytes} bytes for a stack: errno {}: lower its limits, or allow more memory",
                    errno.0
                )
            }
        }
    }
}

/// Where the shared words begin, and bytes of the whole file.
fn extent(limits: &Limits) -> Result<(Layout, usize, usize), Refused> {
    let layout = Layout::new(limits).map_err(Refused::NotOurs)?;
    let words_at = layout.size.next_multiple_of(PAGE);
    let end = words_at + shared::words(limits) * size_of::<AtomicU64>();
    Ok((layout, words_at, end.next_multiple_of(PAGE)))
}

/// Memory for a region with these limits: zero bytes.
///
/// # Errors
/// A limit that is out of its bounds; what memfd_create(2) and ftruncate(2) say.
pub fn memory(limits: &Limits) -> Result<Fd, Refused> {
    let (_, _, bytes) = extent(limits)?;
    let no_memory = |errno| Refused::Memory { bytes, errno };
    let file = sys::memfd_create(FILE, libc::MFD_CLOEXEC).map_err(no_memory)?;
    sys::ftruncate(&file, bytes).map_err(no_memory)?;
    Ok(file)
}

/// A region that is mapped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    mapped: usize,
    words_at: usize,
    layout: Layout,
}

// SAFETY: it owns its mapping. The shared words are atomics, and the rest is lent only to who promises to hold the lock.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps a region with these limits.
    ///
    /// # Errors
    /// A file that is too short for them; what mmap(2) says.
    pub fn map(file: &Fd, limits: &Limits) -> Result<Self, Refused> {
        let (layout, words_at, mapped) = extent(limits)?;
        let no_memory = |errno| Refused::Memory { bytes: mapped, errno };
        let found = sys::lseek(file.raw(), 0, libc::SEEK_END).map_err(no_memory)?.cast_unsigned();
        if found < mapped as u64 {
            return Err(Refused::NotOurs(NotOurs::Size { found, needed: mapped as u64 }));
        }
        // Not present at once: most of it is for sockets that never are, and short programs would pay for them.
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let base = sys::mmap(Some(file), mapped, protection, libc::MAP_SHARED).map_err(no_memory)?;
        let base = NonNull::new(base).ok_or(no_memory(Errno(libc::ENOMEM)))?;
        Ok(Self { base, mapped, words_at, layout })
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.layout.limits
    }

    /// The shared words.
    ///
    /// # Errors
    /// None that a region which was mapped has.
    pub fn shared(&self) -> Result<Shared<'_>, Refused> {
        let count = shared::words(self.limits());
        // SAFETY: they lie behind the locked part, within the mapping, at a page's beginning; atomics may be shared with whoever
        // else maps them.
        let words =
            unsafe { core::slice::from_raw_parts(self.base.add(self.words_at).cast().as_ptr(), count) };
        Shared::split(words, self.limits()).map_err(Refused::NotOurs)
    }

    /// The locked part; it is made first if nobody did, with the secret that is asked for then.
    ///
    /// # Safety
    /// The caller uses what it gets only while it holds the region's lock, and there is only one such value in this process
    /// as long as one is used.
    ///
    /// # Errors
    /// What is there, if it is no region with these limits.
    pub unsafe fn parts<'a>(&self, secret: impl FnOnce() -> Secret) -> Result<Parts<'a>, Refused> {
        let base = self.base.as_ptr();
        // SAFETY: within the mapping, which the caller doesn't outlive; nobody else has a reference, as the caller promises.
        let bytes = || unsafe { core::slice::from_raw_parts_mut(base, self.layout.size) };
        let (layout, parts) = match Parts::attach(bytes()) {
            Err(NotOurs::Magic) if bytes().iter().take(PAGE).all(|byte| *byte == 0) => {
                Parts::create(bytes(), self.limits(), secret()).map(|parts| (self.layout, parts))
            }
            found => found,
        }
        .map_err(Refused::NotOurs)?;
        if layout != self.layout {
            let (found, needed) = (layout.size as u64, self.layout.size as u64);
            return Err(Refused::NotOurs(NotOurs::Size { found, needed }));
        }
        Ok(parts)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into the mapping but through `self`, or has promised not to use it any more.
        unsafe { sys::munmap(self.base.as_ptr(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret([1, 2])
    }

    #[test]
    fn the_first_makes_it_and_others_find_it() {
        let limits = Limits::SMALL;
        let file = memory(&limits).expect("memory");
        let (one, other) =
            (Region::map(&file, &limits).expect("one"), Region::map(&file, &limits).expect("other"));
        // SAFETY: this thread alone uses them, one after the other.
        unsafe { one.parts(secret).expect("made") }.host.somaxconn = 77;
        // SAFETY: as above.
        let found = unsafe { other.parts(|| panic!("it is there")) }.expect("found");
        assert_eq!(found.host.somaxconn, 77);
        one.shared().expect("words").deadline[0].store(5, core::sync::atomic::Ordering::Relaxed);
        let read = other.shared().expect("words").deadline[0].load(core::sync::atomic::Ordering::Relaxed);
        assert_eq!(read, 5);
    }

    #[test]
    fn what_is_no_region_is_refused() {
        let limits = Limits::SMALL;
        let file = memory(&limits).expect("memory");
        let larger = Limits { tcp_sockets: 2048, ..limits };
        assert!(matches!(Region::map(&file, &larger), Err(Refused::NotOurs(NotOurs::Size { .. }))));
        let region = Region::map(&file, &limits).expect("mapped");
        // SAFETY: this thread alone uses it.
        unsafe { region.base.as_ptr().write(1) };
        // SAFETY: as above.
        let refused = unsafe { region.parts(secret) }.map(|_| ()).expect_err("no region").to_string();
        assert!(refused.contains("mark"), "{refused}");
    }
}
