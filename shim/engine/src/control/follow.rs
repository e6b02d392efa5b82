//! A process's part in following the kernel: the mirror, if it is the one of the stack's processes that has it.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use driver::clock::monotonic_ns;
use stack::region::Limits;
use stack::time::Instant;
use stack::wire::ip::Ip;

use super::{Mirror, Next};
use crate::engine::Engine;

/// The stack's tables are brought up to date in so many steps at once.
const STEPS_MAX: usize = 1024;

/// The mirror of one interface, in whoever's process it is. One thread at a time uses it; a second one leaves it to the first.
#[derive(Debug)]
pub struct Follower {
    interface: u32,
    limits: Limits,
    /// Null while it isn't there, or in use.
    mirror: AtomicPtr<Mirror>,
    is_open: AtomicBool,
    /// The mirror's descriptor, plus one; 0 is none.
    fd: AtomicI32,
}

impl Follower {
    /// Of this interface, for a stack with these limits.
    #[must_use]
    pub const fn new(interface: u32, limits: Limits) -> Self {
        let mirror = AtomicPtr::new(core::ptr::null_mut());
        Self { interface, limits, mirror, is_open: AtomicBool::new(false), fd: AtomicI32::new(0) }
    }

    /// Readable when the kernel has changed something; -1 where another process follows it.
    #[must_use]
    pub fn fd(&self) -> i32 {
        self.fd.load(Ordering::Relaxed) - 1
    }

    /// In a fork's child, whose parent goes on with it.
    pub fn after_fork(&self) {
        // Its memory is a copy that nobody uses; its sockets are the parent's, too, and close on exec or exit.
        self.mirror.store(core::ptr::null_mut(), Ordering::Relaxed);
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
        let Some(mut mirror) = self.take() else { return };
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
        self.mirror.store(Box::into_raw(mirror), Ordering::Release);
    }

    fn take(&self) -> Option<Box<Mirror>> {
        if !self.is_open.swap(true, Ordering::SeqCst) {
            let opened = Mirror::open(self.interface, &self.limits).ok();
            let fd = opened.as_ref().map_or(0, |mirror| mirror.fd().raw() + 1);
            self.fd.store(fd, Ordering::Relaxed);
            self.is_open.store(opened.is_some(), Ordering::SeqCst);
            return opened.map(Box::new);
        }
        let mirror = self.mirror.swap(core::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: whoever stores a pointer here gives it up, and whoever swaps it out is the only one who has it.
        (!mirror.is_null()).then(|| unsafe { Box::from_raw(mirror) })
    }
}
