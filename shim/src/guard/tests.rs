use super::*;
use crate::signals;
use core::ptr::null_mut;
use core::sync::atomic::AtomicUsize;
use libc::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_SIGINFO, c_void, sigaction, siginfo_t};
use std::sync::{Mutex, MutexGuard};

/// One test at a time: dispositions are the process's.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

static RUNS: AtomicUsize = AtomicUsize::new(0);
static DEPTH: AtomicUsize = AtomicUsize::new(99);
static MASK: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);
static VALUES: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C" fn handler(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    RUNS.fetch_add(1, SeqCst);
    DEPTH.store(thread().depth.load(Relaxed) as usize, SeqCst);
    MASK.store(change_mask(SIG_UNBLOCK, 0), SeqCst);
    STACK.store((&raw const info).addr(), SeqCst);
    // SAFETY: the kernel's siginfo of a queued signal.
    let value = unsafe { (*info).si_value() };
    // Handlers run only where this thread calls guard functions, and it does not hold the lock there.
    VALUES.lock().unwrap().push(value.sival_ptr.addr());
}

fn install(signal: c_int, flags: c_int) {
    // SAFETY: all-zero is a legal sigaction; the handler is a three-argument one.
    unsafe {
        let mut action: sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | SA_SIGINFO;
        libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR2);
        assert_eq!(signals::sigaction(signal, &raw const action, null_mut()), 0);
    }
    RUNS.store(0, SeqCst);
    VALUES.lock().unwrap().clear();
}

fn disposition(signal: c_int) -> sigaction {
    // SAFETY: all-zero is a legal sigaction, which the call fills.
    unsafe {
        let mut action: sigaction = core::mem::zeroed();
        assert_eq!(signals::sigaction(signal, core::ptr::null(), &raw mut action), 0);
        action
    }
}

/// To this very thread: the harness has others.
fn send(signal: c_int, value: usize) {
    let value = libc::sigval { sival_ptr: core::ptr::without_provenance_mut(value) };
    // SAFETY: a live thread and a legal signal.
    assert_eq!(unsafe { libc::pthread_sigqueue(libc::pthread_self(), signal, value) }, 0);
}

fn runs() -> usize {
    RUNS.load(SeqCst)
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

#[test]
fn a_signal_waits_until_the_outermost_guard_ends_and_leaves_the_mask_as_it_was() {
    let _alone = alone();
    install(libc::SIGUSR1, SA_RESTART);
    let before = change_mask(SIG_UNBLOCK, 0);
    let outer = Guard::enter();
    let inner = Guard::enter();
    send(libc::SIGUSR1, 5);
    assert_eq!((runs(), signals_pending(), inside()), (0, true, true));
    drop(inner);
    assert_eq!(runs(), 0);
    drop(outer);
    assert_eq!((runs(), signals_pending(), inside()), (1, false, false));
    assert_eq!(DEPTH.load(SeqCst), 0, "a handler runs outside");
    assert_eq!(VALUES.lock().unwrap()[..], [5], "with its siginfo");
    assert_eq!(MASK.load(SeqCst), before | bit(libc::SIGUSR1) | bit(libc::SIGUSR2), "and its mask");
    assert_eq!(change_mask(SIG_UNBLOCK, 0), before);
}

#[test]
fn outside_a_guard_it_runs_at_once() {
    let _alone = alone();
    install(libc::SIGUSR1, 0);
    send(libc::SIGUSR1, 0);
    assert_eq!(runs(), 1);
}

#[test]
fn take_interrupt_tells_whether_a_call_restarts() {
    let _alone = alone();
    let _guard = Guard::enter();
    assert_eq!(take_interrupt(), Interrupt::None);
    install(libc::SIGUSR1, SA_RESTART);
    send(libc::SIGUSR1, 0);
    assert_eq!((take_interrupt(), runs(), inside()), (Interrupt::Restart, 1, true));
    install(libc::SIGUSR1, 0);
    send(libc::SIGUSR1, 0);
    assert_eq!((take_interrupt(), runs(), inside()), (Interrupt::Eintr, 1, true));
    assert_eq!(take_interrupt(), Interrupt::None);
}

#[test]
fn a_blocking_call_lets_handlers_run_and_an_interrupted_one_is_not_made() {
    let _alone = alone();
    let _guard = Guard::enter();
    install(libc::SIGUSR1, SA_RESTART);
    send(libc::SIGUSR1, 0);
    let seen = outside(|| {
        let before = runs();
        send(libc::SIGUSR1, 0);
        (before, runs(), inside())
    });
    assert_eq!((seen, inside()), ((1, 2, false), true));
    assert_eq!(outside_unless_interrupted(runs), Ok(2));
    install(libc::SIGUSR1, 0);
    send(libc::SIGUSR1, 0);
    let called = outside_unless_interrupted(|| panic!("must not be called"));
    assert_eq!((called, runs()), (Err(Interrupt::Eintr), 1));
}

#[test]
fn a_blocking_call_that_unwinds_restores_the_depth() {
    let _alone = alone();
    let guard = Guard::enter();
    let unwound = std::panic::catch_unwind(|| outside(|| std::panic::resume_unwind(Box::new(()))));
    assert!(unwound.is_err() && inside());
    drop(guard);
    assert!(!inside());
}

#[test]
fn real_time_signals_queue_and_standard_ones_coalesce() {
    let _alone = alone();
    install(libc::SIGRTMIN(), 0);
    {
        let _guard = Guard::enter();
        (0..100).for_each(|value| send(libc::SIGRTMIN(), value));
        assert_eq!(runs(), 0);
    }
    assert!(VALUES.lock().unwrap().iter().copied().eq(0..100), "in order");
    install(libc::SIGUSR1, 0);
    {
        let _guard = Guard::enter();
        (0..100).for_each(|value| send(libc::SIGUSR1, value));
    }
    assert_eq!(runs(), 1);
}

#[test]
fn a_handler_without_a_mask_of_its_own_is_deferred_too() {
    let _alone = alone();
    install(libc::SIGUSR1, SA_NODEFER);
    let before = change_mask(SIG_UNBLOCK, 0);
    {
        let _guard = Guard::enter();
        send(libc::SIGUSR1, 0);
        assert_eq!((runs(), change_mask(SIG_UNBLOCK, 0)), (0, before | bit(libc::SIGUSR1)));
    }
    assert_eq!((runs(), change_mask(SIG_UNBLOCK, 0)), (1, before));
    assert_eq!(MASK.load(SeqCst) & bit(libc::SIGUSR1), 0, "SA_NODEFER holds for the handler itself");
}

#[test]
fn a_one_shot_handler_runs_once_although_it_is_delivered_twice() {
    let _alone = alone();
    install(libc::SIGUSR1, SA_RESETHAND);
    assert_ne!(disposition(libc::SIGUSR1).sa_flags & SA_RESETHAND, 0);
    {
        let _guard = Guard::enter();
        send(libc::SIGUSR1, 0);
        assert_eq!(disposition(libc::SIGUSR1).sa_sigaction, handler as *const () as usize);
    }
    assert_eq!((runs(), disposition(libc::SIGUSR1).sa_sigaction), (1, libc::SIG_DFL));
}

#[test]
fn a_deferred_handler_has_its_alternate_stack() {
    let _alone = alone();
    let mut memory = vec![0u8; 65536];
    let bounds = memory.as_mut_ptr_range();
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory lives until the alternate stack is taken back below.
    let own = unsafe {
        let mut own = core::mem::zeroed();
        assert_eq!(libc::sigaltstack(&raw const stack, &raw mut own), 0);
        own
    };
    install(libc::SIGUSR1, SA_ONSTACK);
    {
        let _guard = Guard::enter();
        send(libc::SIGUSR1, 0);
    }
    assert!((bounds.start.addr()..bounds.end.addr()).contains(&STACK.load(SeqCst)));
    // SAFETY: puts the harness's own back.
    unsafe { libc::sigaltstack(&raw const own, null_mut()) };
}

#[test]
fn the_thread_s_block_is_its_own_and_starts_as_zeros() {
    let here = std::ptr::from_ref(thread()).addr();
    assert_eq!(here % 64, 0);
    let other = std::thread::spawn(|| {
        let thread = thread();
        assert_eq!((thread.depth.load(Relaxed), thread.spare[7].get(), inside()), (0, 0, false));
        assert_eq!(tid(), sys::gettid());
        std::ptr::from_ref(thread).addr()
    });
    assert_ne!(here, other.join().unwrap());
}
