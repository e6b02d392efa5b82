//! `sigaction` and its relatives: the program's handlers run behind a wrapper of accel's.
//!
//! The wrapper runs the handler directly, inside the kernel's own signal frame, unless the thread is inside
//! accel ([`crate::guard`]): then it queues the signal again for this thread, leaves it blocked in the mask
//! that the interrupted code returns to, and the handler runs when the thread leaves. The `ucontext` that a
//! deferred handler sees is that of the point where the thread left accel.
//!
//! | kept by | what |
//! |---|---|
//! | the kernel | mask, `SA_RESTART`, `SA_ONSTACK`, `SA_NODEFER`, `SA_NOCLDSTOP`, `SA_NOCLDWAIT`, `SIG_DFL`, `SIG_IGN` |
//! | one word per signal here | the handler's address, `SA_SIGINFO`, `SA_RESETHAND`, no `SA_RESTART`, `SA_NODEFER` |
//!
//! `SA_RESETHAND` can't be left to the kernel, because a deferred signal is delivered twice. Handlers of signals
//! that the program's own instructions raise (SIGSEGV and its like) do not wait. Those of SIGSEGV and SIGBUS are
//! wrapped all the same once the process has rings ([`catch_faults`]), and so is their default action: a copy between a ring and
//! memory that is not mapped gives EFAULT (`driver::fault`). Every other fault is the program's, as before.

use crate::real::{self, types::*};
use crate::{errno, guard, process};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use driver::sys;
use libc::{
    SA_NODEFER, SA_RESETHAND, SA_RESTART, SA_SIGINFO, SIG_BLOCK, SIG_DFL, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK,
    siginfo_t, ucontext_t,
};

const SIGNALS: usize = 65;

/// User addresses are below this on x86-64 (five-level paging) and aarch64; the bits above hold the flags.
const ADDRESS: u64 = (1 << 56) - 1;
const SIGINFO: u64 = 1 << 56;
/// `SA_RESETHAND`, and the handler has not run yet.
const ONCE: u64 = 1 << 57;
/// `SA_RESETHAND`, and it has run.
const SPENT: u64 = 1 << 58;
const NO_RESTART: u64 = 1 << 59;
const NODEFER: u64 = 1 << 60;

/// What the program last installed for each signal: one word, so that no reader sees half of a change.
/// It stays when the program goes on to `SIG_DFL` or `SIG_IGN`, for a wrapper that is already on its way.
static INSTALLED: [AtomicU64; SIGNALS] = [const { AtomicU64::new(0) }; SIGNALS];

/// Signals for which `siginterrupt(signal, 1)` was called; libc's own set of them is private.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// Makes a change of [`INSTALLED`] and of the kernel's disposition one step.
static CHANGING: AtomicBool = AtomicBool::new(false);

/// Off: handlers always run at once (after the process went inert, where re-queueing may be forbidden).
static DEFER: AtomicBool = AtomicBool::new(true);

type Handler = unsafe extern "C-unwind" fn(c_int, *mut siginfo_t, *mut c_void);

fn word_of(action: &sigaction_t) -> u64 {
    let flag = |set: c_int, bit: u64| if action.sa_flags & set != 0 { bit } else { 0 };
    action.sa_sigaction as u64
        | flag(SA_SIGINFO, SIGINFO)
        | flag(SA_RESETHAND, ONCE)
        | flag(SA_NODEFER, NODEFER)
        | if action.sa_flags & SA_RESTART == 0 { NO_RESTART } else { 0 }
}

fn is_handler(action: &sigaction_t) -> bool {
    let at = action.sa_sigaction;
    at != SIG_DFL && at != SIG_IGN && at as u64 <= ADDRESS
}

/// The process has rings, and copies into them may fault.
static CATCHING: AtomicBool = AtomicBool::new(false);

fn is_fault(signal: c_int) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS)
}

/// What stands before the program's handlers of a signal, if anything does.
fn wrapper_of(signal: c_int) -> Option<Handler> {
    if is_fault(signal) {
        CATCHING.load(SeqCst).then_some(fault_wrapper)
    } else {
        is_wrapped(signal).then_some(wrapper)
    }
}

/// Whether a disposition goes behind the wrapper. A fault's default action does, too; an ignored one must stay
/// what the kernel knows of, for it outlives exec.
fn goes_behind(signal: c_int, action: &sigaction_t) -> bool {
    is_handler(action) || is_fault(signal) && action.sa_sigaction == SIG_DFL
}

fn behind(wrapper: Handler, action: &sigaction_t) -> sigaction_t {
    let mut action = *action;
    action.sa_flags = action.sa_flags & !SA_RESETHAND | SA_SIGINFO;
    action.sa_sigaction = wrapper as *const () as usize;
    action
}

/// From now on a fault in a copy between a ring and the program's memory is caught. Whatever handles SIGSEGV and
/// SIGBUS now stays behind it.
pub(crate) fn catch_faults() {
    if !cfg!(target_arch = "x86_64") || CATCHING.load(Relaxed) || process::in_vfork_child() {
        return;
    }
    let _changing = Changing::begin();
    if CATCHING.swap(true, SeqCst) {
        return;
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let mut now = MaybeUninit::<sigaction_t>::uninit();
        // SAFETY: asks for, and then sets, the disposition of a legal signal with live structures.
        unsafe {
            if real::sigaction(signal, core::ptr::null(), now.as_mut_ptr()) != 0 {
                continue;
            }
            let now = now.assume_init();
            if goes_behind(signal, &now) {
                INSTALLED[signal as usize].store(word_of(&now), SeqCst);
                let wrapped = behind(fault_wrapper, &now);
                real::sigaction(signal, &raw const wrapped, core::ptr::null_mut());
            }
        }
    }
}

/// What the kernel runs for SIGSEGV and SIGBUS.
unsafe extern "C-unwind" fn fault_wrapper(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: info and context are the kernel's, for this very frame.
    unsafe {
        if guard::inside() && recover(info, context) {
            return;
        }
        run_handler(signal, info, context);
    }
}

/// Lets a copy that faulted return null; false if it was something else that faulted.
///
/// # Safety
/// The arguments are those of a signal handler, in that handler.
#[cfg(target_arch = "x86_64")]
unsafe fn recover(info: *mut siginfo_t, context: *mut c_void) -> bool {
    // SAFETY: the kernel's; a fault that the thread did not raise itself has a code above 0, and an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // SAFETY: as above.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    let top = registers[libc::REG_RSP as usize] as usize;
    // Where the stack itself has run out, its top cannot be read.
    if code <= 0 || address.abs_diff(top) < 4096 {
        return false;
    }
    // SAFETY: the stack's top is mapped: the fault is elsewhere, and the thread was running on it.
    let return_address = unsafe { *(top as *const usize) };
    let Some(on) = driver::fault::recovery(return_address) else { return false };
    registers[libc::REG_RIP as usize] = on as i64;
    true
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn recover(_: *mut siginfo_t, _: *mut c_void) -> bool {
    false
}

/// The program leaves the fault to its default action: the kernel takes it when the instruction faults again, so that a
/// core dump shows the place. A signal that no instruction raised is queued again.
///
/// # Safety
/// `info` is the kernel's, in a handler of the signal.
unsafe fn default_action(signal: c_int, info: *mut siginfo_t) {
    // SAFETY: an all-zero sigaction is the default action; the signal is legal.
    unsafe {
        let action: sigaction_t = core::mem::zeroed();
        errno::kept(|| real::sigaction(signal, &raw const action, core::ptr::null_mut()));
        // From memory that failed while nobody touched it: asm-generic/siginfo.h.
        const BUS_MCEERR_AO: c_int = 5;
        let code = (*info).si_code;
        if code <= 0 || signal == libc::SIGBUS && code == BUS_MCEERR_AO {
            queue_again(signal, info);
        }
    }
}

/// Whether handlers of this signal are wrapped, and wait.
fn is_wrapped(signal: c_int) -> bool {
    use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP};
    // 32 and 33 are libc's own; it refuses them by itself, as it does numbers out of range.
    (1..SIGNALS as c_int).contains(&signal)
        && ![32, 33, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS]
            .contains(&signal)
}

/// All signals blocked and [`CHANGING`] held: no handler can meet the lock on its own thread.
struct Changing {
    mask: u64,
}

impl Changing {
    fn begin() -> Self {
        let mask = guard::change_mask(SIG_BLOCK, !0);
        while CHANGING.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            sys::sched_yield();
        }
        Self { mask }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        CHANGING.store(false, SeqCst);
        guard::change_mask(SIG_SETMASK, self.mask);
    }
}

/// What the kernel runs for every wrapped signal.
unsafe extern "C-unwind" fn wrapper(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let word = INSTALLED[signal as usize].load(SeqCst);
    // SAFETY: info and context are the kernel's, for this very frame.
    if guard::inside() && DEFER.load(Relaxed) && unsafe { defer(signal, word, info, context) } {
        return;
    }
    guard::note_run(word & NO_RESTART == 0);
    // SAFETY: info and context are the kernel's, for this very frame.
    unsafe { run_handler(signal, info, context) }
}

/// Runs the program's handler, in the kernel's own signal frame.
///
/// # Safety
/// The arguments are those of a signal handler, in that handler.
unsafe fn run_handler(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let mut word = INSTALLED[signal as usize].load(SeqCst);
    while word & (ONCE | SPENT) != 0 {
        if word & ONCE != 0 && reset(signal, word) {
            break;
        }
        let now = INSTALLED[signal as usize].load(SeqCst);
        if now & SPENT != 0 {
            // Another delivery was first; this one meets SIG_DFL, as it would have without the wrapper.
            // SAFETY: info is the kernel's.
            unsafe { queue_again(signal, info) };
            return;
        }
        word = now;
    }
    if word & ADDRESS == SIG_DFL as u64 {
        // SAFETY: info is the kernel's.
        return unsafe { default_action(signal, info) };
    }
    // SAFETY: the program installed this address as a handler; three arguments reach it in registers, of which a
    // plain handler reads the first.
    let handler: Handler = unsafe { core::mem::transmute((word & ADDRESS) as *const c_void) };
    // SAFETY: as above.
    unsafe { handler(signal, info, context) }
}

/// Queues the signal for this thread, to arrive once it leaves accel. False: it could not be queued.
///
/// # Safety
/// The arguments are those of a signal handler, in that handler.
#[cold]
unsafe fn defer(signal: c_int, word: u64, info: *mut siginfo_t, context: *mut c_void) -> bool {
    let bit = 1u64 << (signal - 1);
    if word & NODEFER != 0 {
        // The kernel did not block it for this handler: it would arrive again at once.
        guard::change_mask(SIG_BLOCK, bit);
    }
    // SAFETY: info is the kernel's.
    if !unsafe { queue_again(signal, info) } {
        if word & NODEFER != 0 {
            guard::change_mask(SIG_UNBLOCK, bit);
        }
        return false;
    }
    // SAFETY: the kernel restores its 64-bit mask from here when this handler returns.
    unsafe { *(&raw mut (*context.cast::<ucontext_t>()).uc_sigmask).cast::<u64>() |= bit };
    guard::note_deferred(signal, word & NO_RESTART == 0);
    true
}

/// # Safety
/// `info` is a siginfo that the kernel made.
unsafe fn queue_again(signal: c_int, info: *mut siginfo_t) -> bool {
    // SAFETY: a thread may queue any siginfo for itself.
    let result = unsafe {
        // The kernel's own ids: in a child of vfork the cached ones are the parent's.
        let (process, thread) = (sys::getpid() as usize, sys::gettid() as usize);
        sys::syscall(libc::SYS_rt_tgsigqueueinfo, [process, thread, signal as usize, info as usize, 0, 0])
    };
    result == 0
}

/// The first delivery of an `SA_RESETHAND` handler: the disposition becomes `SIG_DFL` before it runs.
fn reset(signal: c_int, word: u64) -> bool {
    errno::kept(|| {
        let _changing = Changing::begin();
        let installed = &INSTALLED[signal as usize];
        if installed.load(SeqCst) != word {
            return false;
        }
        let mut now = MaybeUninit::<sigaction_t>::uninit();
        // SAFETY: asks for, and then sets, the disposition of a legal signal with live structures.
        unsafe {
            if real::sigaction(signal, core::ptr::null(), now.as_mut_ptr()) == 0 {
                let mut now = now.assume_init();
                now.sa_sigaction = SIG_DFL;
                now.sa_flags |= SA_RESETHAND;
                if word & SIGINFO == 0 {
                    now.sa_flags &= !SA_SIGINFO;
                }
                real::sigaction(signal, &raw const now, core::ptr::null_mut());
            }
        }
        installed.store(word & !ONCE | SPENT, SeqCst);
        true
    })
}

/// From now on handlers run at once, even inside accel: re-queueing needs a system call that a seccomp filter
/// may answer with death.
pub(crate) fn never_defer() {
    DEFER.store(false, SeqCst);
}

/// In a new process: whoever held the lock is not here.
pub(crate) fn after_fork_in_child() {
    CHANGING.store(false, SeqCst);
}

/// `sigaction`: a handler is installed behind the wrapper, and `old` shows the program's own.
///
/// # Safety
/// That of `sigaction`.
pub(crate) unsafe fn sigaction(signal: c_int, new: *const sigaction_t, old: *mut sigaction_t) -> c_int {
    if !is_wrapped(signal) && !is_fault(signal) {
        // SAFETY: the caller's contract, handed on.
        return unsafe { real::sigaction(signal, new, old) };
    }
    // SAFETY: the caller's pointer is null or valid.
    let new = unsafe { new.as_ref() }.copied();
    let mut kernel_old = MaybeUninit::<sigaction_t>::uninit();
    let pointer =
        |action: &Option<sigaction_t>| action.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let installed = &INSTALLED[signal as usize];
    let before;
    let result = if process::in_other_process() {
        // The dispositions are the child's own, the table is the parent's: leave the table alone.
        before = installed.load(SeqCst);
        // SAFETY: live structures and the caller's signal.
        unsafe { real::sigaction(signal, pointer(&new), kernel_old.as_mut_ptr()) }
    } else {
        let _changing = Changing::begin();
        before = installed.load(SeqCst);
        // Under the lock: catch_faults changes the answer.
        let wrapped = new.filter(|action| goes_behind(signal, action)).zip(wrapper_of(signal));
        if let Some((action, _)) = &wrapped {
            installed.store(word_of(action), SeqCst);
        }
        let given = wrapped.map(|(action, wrapper)| behind(wrapper, &action)).or(new);
        // SAFETY: live structures and the caller's signal.
        let result = unsafe { real::sigaction(signal, pointer(&given), kernel_old.as_mut_ptr()) };
        if result != 0 {
            installed.store(before, SeqCst);
        }
        result
    };
    if result == 0 && !old.is_null() {
        // SAFETY: the kernel filled the structure; the caller's pointer is valid.
        unsafe { *old = as_the_program_set_it(kernel_old.assume_init(), before) };
    }
    result
}

/// The program's view of a disposition that the kernel reports.
fn as_the_program_set_it(mut action: sigaction_t, word: u64) -> sigaction_t {
    let wrappers: [Handler; 2] = [wrapper, fault_wrapper];
    if wrappers.iter().any(|wrapper| action.sa_sigaction == *wrapper as *const () as usize) {
        action.sa_sigaction = (word & ADDRESS) as usize;
        if word & SIGINFO == 0 {
            action.sa_flags &= !SA_SIGINFO;
        }
        if word & ONCE != 0 {
            action.sa_flags |= SA_RESETHAND;
        }
    }
    action
}

/// Installs a plain handler; gives the old one.
///
/// # Safety
/// The handler is one that a signal may run.
unsafe fn install(signal: c_int, handler: sighandler_t, masked: Option<c_int>, flags: c_int) -> sighandler_t {
    // SAFETY: an all-zero sigaction is a legal one with an empty mask.
    let mut new: sigaction_t = unsafe { core::mem::zeroed() };
    let mut old = new;
    new.sa_sigaction = handler;
    new.sa_flags = flags;
    // SAFETY: live structures; sigaddset refuses numbers out of range.
    unsafe {
        if let Some(signal) = masked
            && libc::sigaddset(&raw mut new.sa_mask, signal) != 0
        {
            return libc::SIG_ERR;
        }
        if sigaction(signal, &raw const new, &raw mut old) != 0 { libc::SIG_ERR } else { old.sa_sigaction }
    }
}

fn is_refused(signal: c_int, handler: sighandler_t) -> bool {
    handler == libc::SIG_ERR || !(1..SIGNALS as c_int).contains(&signal)
}

/// `signal`, with BSD semantics: the handler stays, the signal is blocked while it runs, calls restart.
///
/// # Safety
/// That of `signal`.
pub(crate) unsafe fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    if is_refused(signal, handler) {
        return errno::fail(libc::EINVAL);
    }
    let interrupts = INTERRUPTING.load(Relaxed) >> (signal - 1) & 1 == 1;
    // SAFETY: the caller's handler.
    unsafe { install(signal, handler, Some(signal), if interrupts { 0 } else { SA_RESTART }) }
}

/// `sysv_signal`: the handler runs once, nothing is blocked, calls fail with `EINTR`.
///
/// # Safety
/// That of `sysv_signal`.
pub(crate) unsafe fn sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    /// Historic, and set by libc here too.
    const SA_INTERRUPT: c_int = 0x2000_0000;
    if is_refused(signal, handler) {
        return errno::fail(libc::EINVAL);
    }
    // SAFETY: the caller's handler.
    unsafe { install(signal, handler, None, SA_RESETHAND | SA_NODEFER | SA_INTERRUPT) }
}

/// `sigset`: as `sigaction` without flags, and `SIG_HOLD` blocks the signal instead.
///
/// # Safety
/// That of `sigset`.
pub(crate) unsafe fn sigset(signal: c_int, disposition: sighandler_t) -> sighandler_t {
    const SIG_HOLD: sighandler_t = 2;
    if is_refused(signal, disposition) {
        return errno::fail(libc::EINVAL);
    }
    let bit = 1u64 << (signal - 1);
    if disposition == SIG_HOLD {
        let held = guard::change_mask(SIG_BLOCK, bit) & bit != 0;
        // SAFETY: an all-zero sigaction is legal; only asks for the disposition.
        let mut old: sigaction_t = unsafe { core::mem::zeroed() };
        // SAFETY: as above.
        let asked = unsafe { sigaction(signal, core::ptr::null(), &raw mut old) };
        return match (held, asked) {
            (true, _) => SIG_HOLD,
            (false, 0) => old.sa_sigaction,
            (false, _) => libc::SIG_ERR,
        };
    }
    // SAFETY: the caller's handler.
    let old = unsafe { install(signal, disposition, None, 0) };
    if old == libc::SIG_ERR {
        return old;
    }
    let held = guard::change_mask(SIG_UNBLOCK, bit) & bit != 0;
    if held { SIG_HOLD } else { old }
}

/// `siginterrupt`: whether calls that the signal interrupts fail with `EINTR`.
///
/// # Safety
/// That of `siginterrupt`.
pub(crate) unsafe fn siginterrupt(signal: c_int, flag: c_int) -> c_int {
    // SAFETY: an all-zero sigaction is legal; asked for and put back with one flag changed.
    unsafe {
        let mut action: sigaction_t = core::mem::zeroed();
        if sigaction(signal, core::ptr::null(), &raw mut action) < 0 {
            return -1;
        }
        if flag != 0 {
            INTERRUPTING.fetch_or(1 << (signal - 1), Relaxed);
            action.sa_flags &= !SA_RESTART;
        } else {
            INTERRUPTING.fetch_and(!(1 << (signal - 1)), Relaxed);
            action.sa_flags |= SA_RESTART;
        }
        sigaction(signal, &raw const action, core::ptr::null_mut())
    }
}
