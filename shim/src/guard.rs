//! What accel knows of the calling thread: whether it is inside accel, and which signals wait for it to leave.
//!
//! A program's signal handler may use sockets, so it must never run while accel's own code is half done.
//! While a thread is *inside* ([`Guard`]), accel's wrapper ([`crate::signals`]) hands an arriving signal back
//! to the kernel: queued again for this very thread, with its siginfo, and blocked in it. Leaving unblocks
//! those signals, and the kernel delivers them there and then, as it always does: mask, alternate stack,
//! `ucontext`, order and coalescing are the kernel's own. Nothing is queued here, so nothing overflows.
//!
//! A handler may `longjmp` away. It runs only at points where the depth is 0 and no lock is held; what else the
//! interrupted call holds there it has named to [`crate::jump`].

use core::arch::{asm, global_asm};
use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicI32, Ordering::SeqCst};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, compiler_fence};
use driver::sys;
use libc::{SIG_UNBLOCK, SYS_rt_sigprocmask, c_int};

/// Per-thread state. All-zero bytes are its initial value, and it has no destructor.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Thread {
    /// How many guards are open.
    depth: AtomicU32,
    /// 1 if a deferred signal's handler was installed without `SA_RESTART`.
    eintr: AtomicU32,
    /// The signals that accel blocked until the thread leaves; bit `signal - 1`.
    deferred: AtomicU64,
    tid: AtomicI32,
    /// Handlers that ran at once, and how many of them were installed without `SA_RESTART`.
    ran: [AtomicU32; 2],
    /// Free for the data path's own per-thread state.
    pub spare: [Cell<u64>; 8],
    /// The calls of accel that let handlers run and hold something.
    pub frames: crate::jump::Frames,
}

// The thread-local block in the initial-exec model, which stable Rust cannot ask for: the library is loaded at
// start-up, so its block is in the static TLS area, and reaching it takes two instructions instead of a call.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".p2align 6",
    ".globl accel_thread",
    ".hidden accel_thread",
    ".type accel_thread, @object",
    ".size accel_thread, {size}",
    "accel_thread:",
    ".zero {size}",
    ".popsection",
    size = const size_of::<Thread>(),
);

/// The calling thread's state.
///
/// In a child of `vfork` this is the parent thread's state: the memory is shared.
#[inline(always)]
#[must_use]
pub(crate) fn thread() -> &'static Thread {
    let at: *const Thread;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread pointer and the block's offset from it; no memory is written.
    unsafe {
        asm!("mov {at}, qword ptr fs:[0]", "add {at}, qword ptr [rip + accel_thread@GOTTPOFF]",
             at = out(reg) at, options(pure, nomem, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("mrs {at}, tpidr_el0", "adrp {offset}, :gottprel:accel_thread",
             "ldr {offset}, [{offset}, :gottprel_lo12:accel_thread]", "add {at}, {at}, {offset}",
             at = out(reg) at, offset = out(reg) _, options(pure, nomem, nostack));
    }
    // SAFETY: the block lives as long as the thread, is zeroed at its start, and `&Thread` is not Send.
    unsafe { &*at }
}

/// The thread is inside accel for as long as this lives: signal handlers wait.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Neither Send nor Sync: it counts for one thread.
    here: PhantomData<*mut ()>,
}

impl Guard {
    /// Enters accel. Guards nest.
    #[inline(always)]
    #[must_use]
    pub(crate) fn enter() -> Self {
        let thread = thread();
        // Only this thread and its signal handlers touch the word, and handlers leave it as they found it.
        thread.depth.store(thread.depth.load(Relaxed) + 1, Relaxed);
        compiler_fence(SeqCst);
        Self { here: PhantomData }
    }
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        let thread = thread();
        compiler_fence(SeqCst);
        let depth = thread.depth.load(Relaxed) - 1;
        thread.depth.store(depth, Relaxed);
        compiler_fence(SeqCst);
        if depth == 0 && thread.deferred.load(Relaxed) != 0 {
            deliver(thread);
        }
    }
}

/// Whether the thread is inside accel.
#[inline(always)]
#[must_use]
pub(crate) fn inside() -> bool {
    thread().depth.load(Relaxed) != 0
}

/// Whether signals wait for the thread to leave. Spinning loops ask, and then call [`take_interrupt`].
#[inline(always)]
#[must_use]
pub(crate) fn signals_pending() -> bool {
    thread().deferred.load(Relaxed) != 0
}

/// What the handlers that ran mean for the interrupted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// None ran.
    None,
    /// All were installed with `SA_RESTART`: the call goes on.
    Restart,
    /// One was installed without: the call fails with `EINTR`.
    Eintr,
}

/// Runs the waiting handlers now. The caller holds no lock: a handler may use sockets, or `longjmp` away.
pub(crate) fn take_interrupt() -> Interrupt {
    if !signals_pending() {
        return Interrupt::None;
    }
    let _outside = Outside::step();
    deliver(thread())
}

/// Runs a blocking real call as if the thread were not inside accel: waiting handlers run first, and those of
/// signals that arrive meanwhile run at once, as in the plain call. The caller holds no lock.
#[inline]
pub(crate) fn outside<R>(f: impl FnOnce() -> R) -> R {
    let _outside = Outside::step();
    if signals_pending() {
        deliver(thread());
    }
    f()
}

/// [`outside`], except that `f` is not called if a waiting handler was installed without `SA_RESTART`: the
/// blocking call must fail with `EINTR` then, as if the signal had come while it slept.
///
/// # Errors
/// `Interrupt::Eintr`.
#[inline]
pub(crate) fn outside_unless_interrupted<R>(f: impl FnOnce() -> R) -> Result<R, Interrupt> {
    let _outside = Outside::step();
    if signals_pending() && deliver(thread()) == Interrupt::Eintr {
        return Err(Interrupt::Eintr);
    }
    Ok(f())
}

/// Depth 0 until dropped, also when a cancelled thread unwinds through the blocking call.
struct Outside {
    depth: u32,
}

impl Outside {
    #[inline(always)]
    fn step() -> Self {
        let thread = thread();
        let depth = thread.depth.load(Relaxed);
        compiler_fence(SeqCst);
        thread.depth.store(0, Relaxed);
        compiler_fence(SeqCst);
        Self { depth }
    }
}

impl Drop for Outside {
    #[inline(always)]
    fn drop(&mut self) {
        compiler_fence(SeqCst);
        thread().depth.store(self.depth, Relaxed);
        compiler_fence(SeqCst);
    }
}

/// Unblocks the deferred signals; the kernel runs their handlers before this returns. Depth must be 0.
#[cold]
fn deliver(thread: &Thread) -> Interrupt {
    let signals = thread.deferred.swap(0, Relaxed);
    let interrupt = if thread.eintr.swap(0, Relaxed) != 0 { Interrupt::Eintr } else { Interrupt::Restart };
    // errno belongs to the call that is being left, and handlers need not keep it.
    crate::errno::kept(|| change_mask(SIG_UNBLOCK, signals));
    interrupt
}

/// Notes that the wrapper left `signal` blocked and queued in the kernel.
pub(crate) fn note_deferred(signal: c_int, restart: bool) {
    let thread = thread();
    thread.deferred.fetch_or(1 << (signal - 1), Relaxed);
    if !restart {
        thread.eintr.store(1, Relaxed);
    }
}

/// A handler runs at once.
pub(crate) fn note_run(restart: bool) {
    let [all, cutting] = &thread().ran;
    all.store(all.load(Relaxed).wrapping_add(1), Relaxed);
    if !restart {
        cutting.store(cutting.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// How many handlers ran at once on this thread, and how many of them cut calls short: for [`since`].
pub(crate) fn runs() -> [u32; 2] {
    thread().ran.each_ref().map(|count| count.load(Relaxed))
}

/// What the handlers mean that ran since then, for a call of our own that the kernel never restarts.
pub(crate) fn since(before: [u32; 2]) -> Interrupt {
    let now = runs();
    if now[1] != before[1] {
        Interrupt::Eintr
    } else if now[0] != before[0] {
        Interrupt::Restart
    } else {
        Interrupt::None
    }
}

/// The kernel's `rt_sigprocmask` on a 64-bit set, without libc's filter of its own two signals; gives the old set.
pub(crate) fn change_mask(how: c_int, set: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: both pointers are to live 8-byte sets, the kernel's size.
    unsafe {
        sys::syscall(
            SYS_rt_sigprocmask,
            [how as usize, &raw const set as usize, &raw mut old as usize, 8, 0, 0],
        )
    };
    old
}

/// The calling thread's kernel id. In a child of `vfork` it is the parent's, if that was asked before.
#[inline]
#[must_use]
pub(crate) fn tid() -> i32 {
    let thread = thread();
    let known = thread.tid.load(Relaxed);
    if known != 0 {
        return known;
    }
    let tid = sys::gettid();
    thread.tid.store(tid, Relaxed);
    tid
}

/// In a new process: the id is another one, and pending signals stayed with the parent.
pub(crate) fn after_fork_in_child() {
    let thread = thread();
    thread.tid.store(0, Relaxed);
    crate::jump::after_fork_in_child();
    let blocked = thread.deferred.swap(0, Relaxed);
    thread.eintr.store(0, Relaxed);
    if blocked != 0 {
        change_mask(SIG_UNBLOCK, blocked);
    }
}

#[cfg(test)]
#[path = "guard/tests.rs"]
mod tests;
