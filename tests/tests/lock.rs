//! The stack's lock among processes that fork, and that are killed at any moment: one has it at a time, and who dies with it is
//! followed, also while nobody has waited for him.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use driver::sys;
use engine::lock::{Lock, Taken};

/// Processes that take it.
const WORKERS: usize = 3;
/// Of these so many are killed, one after the other.
const DEATHS: u64 = 150;
/// Turns after which a worker has a child, which takes some turns, too.
const TURNS: u64 = 400;

/// What the processes share.
#[repr(C)]
#[derive(Default)]
struct Words {
    lock: AtomicU64,
    /// Who is inside.
    inside: AtomicU64,
    /// How often it was taken, and from the dead.
    taken: AtomicU64,
    dead: AtomicU64,
    /// Two were inside, or a living one was taken for dead.
    faults: AtomicU64,
}

fn shared() -> &'static Words {
    let (length, access) = (size_of::<Words>(), libc::PROT_READ | libc::PROT_WRITE);
    let base = sys::mmap(None, length, access, libc::MAP_SHARED | libc::MAP_ANONYMOUS).expect("memory");
    // SAFETY: a page of zeros, which are valid words; it stays mapped.
    unsafe { &*base.cast::<Words>() }
}

/// Takes the lock, looks whether nobody else is inside, and gives it back.
fn turn(words: &Words, thread: i32) {
    let lock = Lock::new(&words.lock);
    let taken = lock.take(thread);
    let before = words.inside.swap(thread as u64, SeqCst);
    let is_followed = taken == Taken::FromTheDead && !sys::is_alive(before as i32);
    if before != 0 && !is_followed {
        words.faults.fetch_add(1, SeqCst);
    }
    words.dead.fetch_add(u64::from(taken == Taken::FromTheDead), SeqCst);
    words.taken.fetch_add(1, SeqCst);
    // As long as a burst of packets: most of a worker's time is spent in here.
    (0..500).for_each(|_| core::hint::spin_loop());
    if words.inside.swap(0, SeqCst) != thread as u64 || lock.holder() != Some(thread) {
        words.faults.fetch_add(1, SeqCst);
    }
    lock.give();
}

/// A child that does something and ends without running anything of its parent's.
fn child(act: impl FnOnce()) -> i32 {
    // SAFETY: the child uses neither memory nor locks of its parent's, and leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        act();
        // SAFETY: ends the child alone.
        unsafe { libc::_exit(0) };
    }
    pid
}

/// Takes turns until it is killed, or its parent ends. Now and then it has a child, for which it never waits.
fn work(words: &Words) {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    for count in 1.. {
        turn(words, sys::gettid());
        if count % TURNS == 0 {
            child(|| (0..TURNS / 4).for_each(|_| turn(words, sys::gettid())));
        }
    }
}

fn kill(pid: i32) {
    // SAFETY: takes numbers; our child, for which nobody has waited.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn wait_for(pid: i32) {
    // SAFETY: our child; no status is wanted.
    assert_eq!(unsafe { libc::waitpid(pid, core::ptr::null_mut(), 0) }, pid);
}

#[test]
fn one_process_at_a_time_has_it_whoever_dies() {
    let words = shared();
    let mut workers: Vec<i32> = (0..WORKERS).map(|_| child(|| work(words))).collect();
    let mut random = 7u64;
    for death in 0..DEATHS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let until = words.taken.load(SeqCst) + (random >> 57);
        while words.taken.load(SeqCst) < until {
            std::thread::yield_now();
        }
        let worker = &mut workers[death as usize % WORKERS];
        kill(*worker);
        // The others go on while nobody has waited for it.
        let after = words.taken.load(SeqCst);
        while words.taken.load(SeqCst) < after + 100 {
            std::thread::yield_now();
        }
        wait_for(*worker);
        *worker = child(|| work(words));
    }
    for worker in workers {
        kill(worker);
        wait_for(worker);
    }
    assert_eq!(words.faults.load(SeqCst), 0, "one at a time");
    assert!(words.dead.load(SeqCst) > 0, "of {DEATHS} deaths some are inside");
    println!("{} turns, {} from the dead", words.taken.load(SeqCst), words.dead.load(SeqCst));
}
