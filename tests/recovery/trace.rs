//! Memory that outlives a process, and processes that are stopped between two instructions: the only unsafe code of these tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared memory of this process and its children (a memfd, as in a program).
pub(super) struct Mapping {
    base: *mut u8,
    len: usize,
}

impl Mapping {
    /// Zero bytes.
    pub(super) fn new(len: usize) -> Self {
        let len = len.next_multiple_of(4096);
        // SAFETY: a name that ends with 0.
        let fd = unsafe { libc::memfd_create(c"region".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is ours.
        assert_eq!(unsafe { libc::ftruncate(fd, len as i64) }, 0);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is ours, and the mapping keeps the memory.
        unsafe { libc::close(fd) };
        Self { base: base.cast(), len }
    }

    /// A look at it for who has it while it is borrowed by what a child does.
    pub(super) const fn view(&self) -> View {
        View { base: self.base, len: self.len }
    }

    /// All of it.
    pub(super) fn all(&mut self) -> &mut [u8] {
        // SAFETY: the mapping, which nobody else looks at while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }

    /// Three pieces of it, from its begin on: bytes, words, bytes. Each begins at a multiple of 64.
    pub(super) fn split(
        &mut self,
        first: usize,
        words: usize,
        last: usize,
    ) -> (&mut [u8], &[AtomicU64], &mut [u8]) {
        let (second, third) = (first.next_multiple_of(64), (first.next_multiple_of(64) + 8 * words));
        let third = third.next_multiple_of(64);
        assert!(third + last <= self.len);
        // SAFETY: inside of the mapping, apart from the others, and nobody else has it: a child is stopped or dead whenever this
        // process looks, and `self` is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.base, first) };
        // SAFETY: the same; words are aligned, and any bytes are one.
        let words = unsafe { std::slice::from_raw_parts(self.base.add(second).cast::<AtomicU64>(), words) };
        // SAFETY: the same.
        let rest = unsafe { std::slice::from_raw_parts_mut(self.base.add(third), last) };
        (bytes, words, rest)
    }
}

/// Memory that a child changes; it is looked at where [`walk`] has stopped the child.
#[derive(Clone, Copy)]
pub(super) struct View {
    base: *const u8,
    len: usize,
}

impl View {
    /// What it is at this moment: what would be left if the child were killed now.
    pub(super) fn with<R>(self, look: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: the mapping lives as long as the walk, in which nobody but the child writes, and that is stopped.
        look(unsafe { std::slice::from_raw_parts(self.base, self.len) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no borrow of it is left.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It did all of it, in so many instructions.
    Done(u64),
    /// It was killed before it had done so many.
    Killed,
}

/// Steps that no operation takes: it does not end.
const ENDLESS: u64 = 50_000_000;

/// Does something in a child, one instruction at a time, and kills the child after `deaths` of them, if it isn't done before.
pub(super) fn step(deaths: u64, act: impl FnOnce()) -> Fate {
    walk(act, |steps| steps != deaths)
}

/// The same with a look at each instruction, the number of those that are done: false kills the child before it does the next one. The
/// child has this process's memory as it is now, and shares its mappings.
pub(super) fn walk(act: impl FnOnce(), mut goes_on: impl FnMut(u64) -> bool) -> Fate {
    let marks = Mapping::new(64);
    // SAFETY: the mapping is there as long as `marks` is, and a word of it.
    let mark = unsafe { &*marks.base.cast::<AtomicU64>() };
    // SAFETY: the child does nothing but `act`, which takes no lock and no memory, and exits without running anything.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: our parent traces us from here on.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        // SAFETY: the parent sees it and goes on.
        unsafe { libc::raise(libc::SIGSTOP) };
        mark.store(1, Ordering::SeqCst);
        act();
        mark.store(2, Ordering::SeqCst);
        // SAFETY: ends the child alone.
        unsafe { libc::_exit(0) };
    }
    let mut steps = 0;
    wait_for_stop(child);
    while mark.load(Ordering::SeqCst) != 2 {
        if mark.load(Ordering::SeqCst) == 1 {
            if !goes_on(steps) {
                kill(child);
                return Fate::Killed;
            }
            steps += 1;
        }
        assert!(steps < ENDLESS, "it does not end");
        // SAFETY: our child, which is stopped.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0) }, 0);
        wait_for_stop(child);
    }
    kill(child);
    Fate::Done(steps)
}

fn wait_for_stop(child: i32) {
    let mut status = 0;
    // SAFETY: our child; the place is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFSTOPPED(status), "the child ended by itself: {status:#x}");
    let signal = libc::WSTOPSIG(status);
    assert!(matches!(signal, libc::SIGTRAP | libc::SIGSTOP), "the child got signal {signal}");
}

fn kill(child: i32) {
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: our child; the place is ours.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == child && !libc::WIFSIGNALED(status) {}
}
