//! A process's part in following the kernel: the mirror, if it is the one of the stack's processes that has it, and with it what the
//! kernel passes.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use driver::clock::monotonic_ns;
use driver::sys::Fd;
use stack::region::Limits;
use stack::time::Instant;
use stack::wire::ip::Ip;

use super::passed::Passed;
use super::{Mirror, Next};
use crate::engine::Engine;

/// The stack's tables are brought up to date in so many steps at once.
const STEPS_MAX: usize = 1024;

/// Errors and fragments that are read at once are taken in so many parts: there may always be more.
const PARTS_MAX: usize = 16;

/// What whoever follows has.
#[derive(Debug)]
struct Following {
    mirror: Mirror,
    passed: Passed,
}

/// The mirror of one interface, in whoever's process it is. One thread at a time uses it; a second one leaves it to the first.
#[derive(Debug)]
pub struct Follower {
    interface: u32,
    limits: Limits,
    /// Null while it isn't there, or in use.
    following: AtomicPtr<Following>,
    /// Errors and fragments, from the keeper.
    passed: Fd,
    is_open: AtomicBool,
    /// The mirror's descriptor, plus one; 0 is none.
    fd: AtomicI32,
}

impl Follower {
    /// Of this interface, for a stack with these limits; errors and fragments come by `passed`.
    #[must_use]
    pub const fn new(interface: u32, limits: Limits, passed: Fd) -> Self {
        let following = AtomicPtr::new(core::ptr::null_mut());
        let (is_open, fd) = (AtomicBool::new(false), AtomicI32::new(0));
        Self { interface, limits, following, passed, is_open, fd }
    }

    /// Readable when the kernel has changed something, or has passed something; -1 where another process follows it.
    #[must_use]
    pub fn fds(&self) -> [i32; 2] {
        match self.fd.load(Ordering::Relaxed) - 1 {
            -1 => [-1; 2],
            fd => [fd, self.passed.raw()],
        }
    }

    /// In a fork's child, whose parent goes on with it.
    pub fn after_fork(&self) {
        // Its memory is a copy that nobody uses; its sockets are the parent's, too, and close on exec or exit.
        self.following.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.is_open.store(false, Ordering::Relaxed);
        self.fd.store(0, Ordering::Relaxed);
    }

    /// Takes the mirror over if nobody has it who lives.
    pub fn take_over(&self, engine: &Engine, thread: i32, resolve: impl FnMut(Ip)) {
        if engine.holds_mirror() && !self.is_open.load(Ordering::Relaxed) {
            self.follow(engine, thread, resolve);
        }
    }

    /// Has the kernel asked for those who are waited for, and brings what has changed into the stack's tables if that is this process's
    /// part. `resolve` asks the keeper.
    pub fn follow(&self, engine: &Engine, thread: i32, mut resolve: impl FnMut(Ip)) {
        let wanted: Vec<Ip> = engine.with(thread, |stack| stack.parts.wanted().collect());
        wanted.into_iter().for_each(&mut resolve);
        if !engine.holds_mirror() {
            return;
        }
        let Some(mut following) = self.take() else { return };
        let Following { mirror, passed } = &mut *following;
        let mut next = Next::Read;
        for _ in 0..STEPS_MAX {
            if next == Next::Read && mirror.read().is_err() {
                break;
            }
            next = engine.with(thread, |stack| mirror.apply(stack));
            if next == Next::Wait {
                break;
            }
        }
        engine.with(thread, |stack| mirror.wanted(stack.parts));
        mirror.questions(Instant(monotonic_ns())).iter().copied().for_each(resolve);
        for _ in 0..PARTS_MAX {
            // After the kernel's tables: an error means nothing to a stack that doesn't know its addresses.
            let Ok(true) = passed.read(&self.passed) else { break };
            engine.with(thread, |stack| passed.apply(stack));
            passed.applied();
        }
        self.following.store(Box::into_raw(following), Ordering::Release);
    }

    fn take(&self) -> Option<Box<Following>> {
        if !self.is_open.swap(true, Ordering::SeqCst) {
            let opened = Mirror::open(self.interface, &self.limits).ok();
            let fd = opened.as_ref().map_or(0, |mirror| mirror.fd().raw() + 1);
            self.fd.store(fd, Ordering::Relaxed);
            self.is_open.store(opened.is_some(), Ordering::SeqCst);
            return opened.map(|mirror| Box::new(Following { mirror, passed: Passed::default() }));
        }
        let following = self.following.swap(core::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: whoever stores a pointer here gives it up, and whoever swaps it out is the only one who has it.
        (!following.is_null()).then(|| unsafe { Box::from_raw(following) })
    }
}
