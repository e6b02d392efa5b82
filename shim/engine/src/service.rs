//! The service thread: it keeps the protocol moving while the program computes, or sleeps in something that accel doesn't see; and it
//! keeps the kernel's tables current ([`Duty`]).
//!
//! While threads of the program come by, or one of them waits for the device, it only looks after timers. When nobody did for
//! [`AWAY`] it waits for the device itself. All signals are blocked in it.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use driver::clock::monotonic_ns;
use driver::sys::{self, Fd};
use libc::{c_void, pollfd, pthread_t};

use stack::region::slab::Handle;

use crate::bells::Who;
use crate::engine::Engine;

/// Nanoseconds without a poll after which nobody comes by any more.
const AWAY: u64 = 2_000_000;
/// The longest time between two looks: who waits for the device may leave it and compute, and calls set timers.
const LOOK_MAX: u64 = 50_000_000;
/// How often it looks which processes the stack has.
const LOOK_FOR_OTHERS: u64 = 50_000_000;
/// Bytes of its stack.
const STACK: usize = 256 << 10;
/// Descriptors that end its wait: the call for it, its duty's own, the processes of the stack, the queues.
const FDS: usize = OWN + 64 + 64;
/// The first of them.
const OWN: usize = 3;

/// What the thread does besides.
pub trait Duty: Sync + 'static {
    /// The stack that it serves.
    fn engine(&self) -> &Engine;

    /// Descriptors that become readable when there is something to do; -1 is none.
    fn fds(&self) -> [i32; 2];

    /// It is: or packets wait for a neighbour.
    fn attend(&self);

    /// What is to be done every now and then.
    fn tick(&self);
}

/// Starts the thread of this process. Where there can't be one, the stack moves when the program calls.
///
/// # Errors
/// What pthread_create(3) says.
pub fn start<D: Duty>(duty: &'static D) -> Result<(), i32> {
    // SAFETY: all-zero bytes may be overwritten by the calls that make these values.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
        unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
    // SAFETY: as above.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    let mut thread: pthread_t = 0;
    let argument = ptr::from_ref(duty).cast_mut().cast();
    // SAFETY: the values are ours; the mask is put back; the duty lives for ever.
    let result = unsafe {
        libc::sigfillset(&raw mut all);
        // By libc: glibc's own signals, which setuid(3) needs in every thread, stay open.
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        libc::pthread_attr_init(&raw mut attributes);
        libc::pthread_attr_setstacksize(&raw mut attributes, STACK);
        libc::pthread_attr_setdetachstate(&raw mut attributes, libc::PTHREAD_CREATE_DETACHED);
        let result = libc::pthread_create(&raw mut thread, &raw const attributes, serve::<D>, argument);
        libc::pthread_attr_destroy(&raw mut attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        result
    };
    if result == 0 { Ok(()) } else { Err(result) }
}

extern "C" fn serve<D: Duty>(duty: *mut c_void) -> *mut c_void {
    // SAFETY: `start` passes one that lives for ever.
    let duty: &'static D = unsafe { &*duty.cast::<D>() };
    serve_while(duty, || true);
    ptr::null_mut()
}

/// Serves on this thread as long as that is wanted.
pub fn serve_while<D: Duty>(duty: &D, is_wanted: impl Fn() -> bool) {
    let thread = sys::gettid();
    duty.attend();
    let (mut patience, mut others) = (AWAY, Others::default());
    while is_wanted() {
        if others.look(duty.engine(), thread) {
            duty.tick();
        }
        patience = turn(duty, thread, patience, &others);
    }
}

/// The processes of the stack: whoever dies without a word is noticed at once.
#[derive(Debug, Default)]
struct Others {
    watched: Vec<(Handle, Fd)>,
    looked: u64,
}

impl Others {
    /// Looks, if it is time; whether it was.
    fn look(&mut self, engine: &Engine, thread: i32) -> bool {
        let now = monotonic_ns();
        let is_over = self.watched.iter().any(|(_, fd)| is_readable(fd.raw()));
        if !is_over && now.saturating_sub(self.looked) < LOOK_FOR_OTHERS {
            return false;
        }
        self.looked = now;
        engine.bury(thread);
        let known = engine.processes(thread);
        self.watched.retain(|(slot, _)| known.iter().any(|member| member.slot == *slot));
        for member in known {
            let slot = member.slot;
            let is_new = slot != engine.process() && self.watched.iter().all(|(other, _)| *other != slot);
            if is_new && let Ok(fd) = sys::pidfd_open(member.who.pid as i32) {
                self.watched.push((slot, fd));
            }
        }
        true
    }

    fn fds(&self) -> impl Iterator<Item = pollfd> {
        self.watched.iter().map(|(_, fd)| pollfd { fd: fd.raw(), events: libc::POLLIN, revents: 0 })
    }
}

fn is_readable(fd: i32) -> bool {
    sys::wait_for(&mut [pollfd { fd, events: libc::POLLIN, revents: 0 }], Some(0))
        .is_ok_and(|count| count > 0)
}

fn word(words: &[AtomicU64]) -> u64 {
    words.first().map_or(0, |word| word.load(Ordering::Relaxed))
}

/// One look, one wait. `patience`: how long it may look away; it grows while the program sleeps. The next one.
fn turn<D: Duty>(duty: &D, thread: i32, patience: u64, others: &Others) -> u64 {
    let engine = duty.engine();
    let now = monotonic_ns();
    let (deadline, polled) = (word(engine.shared().deadline), word(engine.shared().polled));
    let left = deadline.saturating_sub(now);
    if left == 0 {
        engine.poll(thread);
        return AWAY;
    }
    if engine.leader().is_some() {
        rest(duty, others, &[], left.min(patience));
        return (patience * 2).min(LOOK_MAX);
    }
    if now.saturating_sub(polled) < AWAY {
        rest(duty, others, &[], left.min(AWAY));
        return AWAY;
    }
    // What arrived while nobody was here.
    engine.poll(thread);
    match engine.fall_asleep(thread, Who::Service) {
        Ok(sleeper) => {
            let fds: Vec<pollfd> = sleeper.fds().collect();
            // A call of the program may set a timer meanwhile, and tells nobody.
            let left = word(engine.shared().deadline).saturating_sub(monotonic_ns()).min(LOOK_MAX);
            rest(duty, others, &fds, left);
        }
        Err(_) => rest(duty, others, &[], AWAY),
    }
    engine.poll(thread);
    AWAY
}

/// Waits for so many nanoseconds, or until it is called, or one of these has something; and does its duty if there is any.
fn rest<D: Duty>(duty: &D, others: &Others, queues: &[pollfd], nanoseconds: u64) {
    let mut fds = [pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; FDS];
    let [one, other] = duty.fds();
    (fds[0].fd, fds[1].fd, fds[2].fd) = (duty.engine().nudge(), one, other);
    let mut count = OWN;
    for (to, other) in fds[OWN..].iter_mut().zip(others.fds().chain(queues.iter().copied())) {
        (*to, count) = (other, count + 1);
    }
    if sys::wait_for(&mut fds[..count], Some(nanoseconds)).is_ok()
        && fds[..OWN].iter().any(|entry| entry.revents != 0)
    {
        duty.engine().attended();
        duty.attend();
    }
}
