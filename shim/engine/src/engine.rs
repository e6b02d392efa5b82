//! A stack at work in this process: the lock is taken, the device is asked, calls are made, and afterwards the device is kicked
//! and those who sleep are rung for.

use std::sync::Arc;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use driver::clock::monotonic_ns;
use driver::sys::{self, Fd};
use driver::xdp::device::AfXdp;
use driver::xdp::kick::Kicker;
use stack::error::Error;
use stack::hash::Secret;
use stack::ip::Interface;
use stack::ports::Lease;
use stack::process::Identity;
use stack::region::slab::Handle;
use stack::region::{Header, Limits, Parts, Shared};
use stack::stack::Stack;
use stack::time::Instant;

use crate::bells::Bells;
use crate::lock::{Lock, Taken};
use crate::region::{self, Refused, Region};

/// What a process gets of a stack that others may use, too.
#[derive(Debug)]
pub struct Materials {
    /// The region's memory.
    pub region: Fd,
    /// How many of everything it has.
    pub limits: Limits,
    /// The device, over frames and rings that all processes of the stack map.
    pub device: AfXdp,
    /// A doorbell for each process slot of the region: an eventfd.
    pub bells: Vec<Fd>,
    /// How the stack is on its link.
    pub interface: Interface,
    /// Ports that connections from here may have: the first, and how many.
    pub ports: Vec<(u16, u16)>,
}

/// When the device is told of what a call has put into its ring: a system call of 2 µs and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// At once.
    Now,
    /// With what follows soon: the caller has more to do before it waits.
    Soon,
}

/// Calls after which the device is told in any case, and nanoseconds.
const OWED_MAX: u32 = 32;
const OWED_NS: u64 = 20_000;

/// Nanoseconds between two calls of the service thread for neighbours that don't answer.
const CALL_NS: u64 = 1_000_000;

/// What the lock guards.
struct Work {
    parts: Parts<'static>,
    device: AfXdp,
}

/// The stack, as this process has it.
pub struct Engine {
    shared: Shared<'static>,
    work: UnsafeCell<Work>,
    /// For kicks without the lock.
    kicker: Arc<Kicker>,
    /// Calls whose packets the kernel was not told of, or of which it took less than there was: a kick is owed.
    owed: AtomicU32,
    /// Since when, in nanoseconds.
    owed_since: AtomicU64,
    bells: Bells,
    /// The process's slot: index and generation.
    slot: [AtomicU32; 2],
    queues: Vec<i32>,
    /// Packets wait for a neighbour: the service thread was told ([`Engine::nudge`]).
    attention: AtomicBool,
    /// For which asking that was ([`stack::ip::neighbour::Neighbours::asks`]).
    asks: AtomicU32,
    nudge: Fd,
    /// The region's memory, for tools: they find it in /proc/PID/fd.
    memory: Fd,
    /// When it was told last, in nanoseconds.
    called: AtomicU64,
}

// SAFETY: `work` is used under the region's lock only, which one thread of all processes has; the rest is atomics and numbers.
unsafe impl Sync for Engine {}
// SAFETY: as above.
unsafe impl Send for Engine {}

impl core::fmt::Debug for Engine {
    fn fmt(&self, to: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        to.debug_struct("Engine")
            .field("slot", &self.process())
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// A process of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its slot.
    pub slot: Handle,
    /// Which it is.
    pub who: Identity,
    /// Its descriptor of the region's memory.
    memory: Option<i32>,
}

impl Member {
    /// Whether it lives, and has the region still: after exec it has not, and its sockets are nobody's.
    fn is_here(&self) -> bool {
        if !is_alive(&self.who) {
            return false;
        }
        let Some(memory) = self.memory else { return true };
        // Who may not look takes it for granted.
        let link = std::fs::read_link(format!("/proc/{}/fd/{memory}", self.who.pid));
        match link {
            Ok(link) => link.to_string_lossy().contains(region::NAME),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

/// Number, start time and user of this process, as regions know it (/proc/self/stat).
#[must_use]
pub fn identity() -> Identity {
    Identity { pid: sys::getpid() as u32, started: started(c"/proc/self/stat"), uid: sys::geteuid() }
}

/// Whether this process still runs: another one may have its number by now.
fn is_alive(who: &Identity) -> bool {
    let mut path = *b"/proc/0000000000/stat\0";
    let (mut left, begin) = (who.pid, b"/proc/".len());
    for place in path[begin..begin + 10].iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
    // Leading zeros are no number to /proc.
    let zeros = path[begin..begin + 9].iter().take_while(|digit| **digit == b'0').count();
    path.copy_within(begin + zeros.., begin);
    let Ok(path) = core::ffi::CStr::from_bytes_until_nul(&path) else { return true };
    started(path) == who.started
}

/// When a process started, in clock ticks since boot; 0 if nobody tells.
fn started(path: &core::ffi::CStr) -> u64 {
    let mut text = [0u8; 1024];
    let Ok(file) = sys::open(path, libc::O_RDONLY, 0) else { return 0 };
    // SAFETY: the buffer is writable for its length.
    let Ok(len) = (unsafe { sys::read(file.raw(), text.as_mut_ptr().cast(), text.len()) }) else { return 0 };
    // The name in parentheses may hold anything; the start time is the 22nd field, the 20th behind it (proc(5)).
    let behind = text[..len].iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let fields = core::str::from_utf8(&text[behind..len]).unwrap_or_default();
    // One that was not waited for is dead all the same.
    if matches!(fields.split_ascii_whitespace().nth(1), Some("Z" | "X")) {
        return 0;
    }
    fields.split_ascii_whitespace().nth(20).and_then(|field| field.parse().ok()).unwrap_or(0)
}

impl Engine {
    /// Attaches this process to a stack, and makes it first if nobody did. What is mapped stays mapped as long as the process lives.
    ///
    /// # Errors
    /// What doesn't fit together, or what the kernel says.
    pub fn attach(materials: Materials, secret: impl FnOnce() -> Secret) -> Result<&'static Self, Refused> {
        let no_memory = |errno| Refused::Memory { bytes: 0, errno };
        let limits = materials.limits;
        let region: &'static Region = Box::leak(Box::new(Region::map(&materials.region, &limits)?));
        let shared = region.shared()?;
        let mut device = materials.device;
        device.set_tap(shared.tap());
        let queues = device.queues().iter().map(|socket| socket.fd().raw()).collect();
        let kicker = Arc::clone(device.kicker());
        let lock = Lock::new(&shared.lock[0]);
        let taken = lock.take(sys::gettid());
        // SAFETY: the lock is held; there is no other such value of this mapping.
        let made = unsafe { region.parts(secret) };
        let work = made.and_then(|parts| {
            let mut work = Work { parts, device };
            work.begin(&shared, taken == Taken::FromTheDead, &materials.interface, &materials.ports);
            let slot = work.take_slot(&shared, &materials.region).map_err(|_| Refused::Full)?;
            Ok((work, slot))
        });
        lock.give();
        let (work, slot) = work?;
        Ok(Box::leak(Box::new(Self {
            shared,
            work: UnsafeCell::new(work),
            kicker,
            owed: AtomicU32::new(0),
            owed_since: AtomicU64::new(0),
            bells: Bells::new(materials.bells),
            slot: [AtomicU32::new(slot.index), AtomicU32::new(slot.generation)],
            queues,
            attention: AtomicBool::new(false),
            asks: AtomicU32::new(0),
            called: AtomicU64::new(0),
            nudge: sys::eventfd(libc::EFD_NONBLOCK).map_err(no_memory)?,
            memory: materials.region,
        })))
    }

    /// The slot of this process in the region.
    #[must_use]
    pub fn process(&self) -> Handle {
        let [index, generation] = self.slot.each_ref().map(|word| word.load(Ordering::Relaxed));
        Handle { index, generation }
    }

    /// This process has another slot from now on: it is a fork's child.
    pub fn become_process(&self, slot: Handle) {
        self.slot[0].store(slot.index, Ordering::Relaxed);
        self.slot[1].store(slot.generation, Ordering::Relaxed);
        self.bells.after_fork();
    }

    /// Whether this process is the one that brings the kernel's tables into the stack's; it is from now on if nobody else who lives is.
    #[must_use]
    pub fn holds_mirror(&self) -> bool {
        let Some(word) = self.shared.mirror.first() else { return false };
        let (pid, holder) = (sys::getpid() as u64, word.load(Ordering::Relaxed));
        let is_free = holder == 0 || holder != pid && !sys::is_alive(holder as i32);
        holder == pid
            || is_free && word.compare_exchange(holder, pid, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Every descriptor that is kept of it.
    pub fn descriptors(&self) -> impl Iterator<Item = i32> {
        self.queues
            .iter()
            .copied()
            .chain([self.nudge.raw(), self.memory.raw()])
            .chain(self.bells.descriptors())
    }

    /// Has every thread of this process that sleeps look again.
    pub fn ring_here(&self) {
        self.bells.ring(1u64.checked_shl(self.process().index).unwrap_or(0));
    }

    /// Before fork: the child gets a slot, and holds every socket that this process holds.
    ///
    /// # Errors
    /// `NoBuffers` when there are too many processes.
    pub fn expect_child(&self, thread: i32) -> Result<Handle, Error> {
        let parent = self.process();
        self.with(thread, |stack| stack.parts.fork_process(parent))
    }

    /// After fork, in the child: it is who was expected.
    pub fn be_child(&self, thread: i32, slot: Handle) {
        self.become_process(slot);
        let who = identity();
        let _ = self.with(thread, |stack| stack.parts.name_process(slot, &who));
    }

    /// A process that never was, or is no more: what it holds is closed.
    pub fn end_process(&self, thread: i32, slot: Handle) {
        const AT_ONCE: usize = 64;
        while self.with(thread, |stack| stack.end_process(slot, AT_ONCE)) == Ok(true) {}
    }

    /// The processes that use the stack, with their slots.
    pub fn processes(&self, thread: i32) -> Vec<Member> {
        self.with(thread, |stack| {
            let all = stack.parts.processes.iter().zip(0u32..).filter(|(process, _)| process.tag.is_used());
            let members = all.filter_map(|(process, index)| {
                let memory = process.memory.checked_sub(1).map(u32::cast_signed);
                Some(Member { slot: process.tag.handle(index), who: process.identity()?, memory })
            });
            members.collect()
        })
    }

    /// Ends every process of the stack that has died without a word, or runs another program by now; how many those were.
    pub fn bury(&self, thread: i32) -> usize {
        let known = self.processes(thread);
        let own = self.process();
        let gone = known.iter().filter(|member| member.slot != own && !member.is_here());
        gone.map(|member| self.end_process(thread, member.slot)).count()
    }

    /// The shared words.
    #[must_use]
    pub const fn shared(&self) -> &Shared<'static> {
        &self.shared
    }

    /// The device's descriptors, for those who wait: readable when something has arrived.
    #[must_use]
    pub fn queues(&self) -> &[i32] {
        &self.queues
    }

    pub(crate) const fn bells(&self) -> &Bells {
        &self.bells
    }

    /// Does something with the stack, as the lock's only holder; then the device is kicked if it must be, and whoever sleeps and
    /// has got something is rung for. `thread` is the caller's.
    pub fn with<R>(&self, thread: i32, act: impl FnOnce(&mut Stack<'_, 'static, AfXdp>) -> R) -> R {
        self.with_kick(thread, Kick::Now, act)
    }

    /// The same, with a choice of when the device is told.
    #[inline]
    pub fn with_kick<R>(
        &self,
        thread: i32,
        kick: Kick,
        act: impl FnOnce(&mut Stack<'_, 'static, AfXdp>) -> R,
    ) -> R {
        let lock = Lock::new(&self.shared.lock[0]);
        let taken = lock.take(thread);
        // SAFETY: this thread holds the lock, and gives it back below, when nothing of this is used any more.
        let work = unsafe { &mut *self.work.get() };
        if taken == Taken::FromTheDead {
            work.mend(&self.shared);
        }
        let mut stack = work.stack(&self.shared);
        let now = stack.now;
        let result = act(&mut stack);
        let ring = self.who_sleeps(&mut work.parts);
        let asks = work.parts.ip.neighbours.asks();
        let has_sent = self.kicker.owes();
        lock.give();
        if has_sent || self.owed.load(Ordering::Relaxed) != 0 {
            self.kick(kick, has_sent, now);
        }
        if ring != 0 {
            self.bells.ring(ring);
        }
        if asks != self.asks.load(Ordering::Relaxed) && !self.attention.load(Ordering::Relaxed) {
            self.call_service(asks, now);
        }
        result
    }

    /// Tells the device, or notes that it is to be told.
    fn kick(&self, kick: Kick, has_sent: bool, now: Instant) {
        let owed = self.owed.load(Ordering::Relaxed) + u32::from(has_sent);
        if kick == Kick::Soon {
            if owed == 1 {
                self.owed_since.store(now.0, Ordering::Relaxed);
            }
            let waited = now.0.saturating_sub(self.owed_since.load(Ordering::Relaxed));
            if owed < OWED_MAX && waited < OWED_NS {
                return self.owed.store(owed, Ordering::Relaxed);
            }
        }
        // Whoever comes meanwhile owes anew.
        self.owed.store(0, Ordering::Relaxed);
        if self.kicker.kick() {
            self.owed.store(1, Ordering::Relaxed);
        }
    }

    /// Packets wait for a neighbour, or go to one who may be gone: the kernel is to be asked.
    #[cold]
    fn call_service(&self, asks: u32, now: Instant) {
        if now.0.saturating_sub(self.called.load(Ordering::Relaxed)) < CALL_NS {
            return;
        }
        self.called.store(now.0, Ordering::Relaxed);
        self.asks.store(asks, Ordering::Relaxed);
        self.attention.store(true, Ordering::Relaxed);
        let one = 1u64;
        // SAFETY: eight bytes that live as long as the call.
        let _ = unsafe { sys::write(self.nudge.raw(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Readable when the service thread is wanted at once.
    #[must_use]
    pub fn nudge(&self) -> i32 {
        self.nudge.raw()
    }

    /// The service thread comes: from now on it is called again.
    pub fn attended(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes that live as long as the call.
        let _ = unsafe { sys::read(self.nudge.raw(), (&raw mut count).cast(), size_of::<u64>()) };
        self.attention.store(false, Ordering::Relaxed);
    }

    /// Lets the stack take what arrived and do what is due; when it wants to be polled again.
    pub fn poll(&self, thread: i32) -> Option<Instant> {
        loop {
            let polled = self.with(thread, |stack| stack.poll());
            if let Some(word) = self.shared.polled.first() {
                word.store(monotonic_ns(), Ordering::Relaxed);
            }
            if !polled.more {
                return polled.deadline;
            }
        }
    }

    /// The slots of processes that hold a socket to which something has come, and have a thread asleep. The lock is held: who falls
    /// asleep says so first, and then looks at his sockets under the lock, so that either he sees it or he is seen.
    fn who_sleeps(&self, parts: &mut Parts<'_>) -> u64 {
        let Some(told) = self.shared.changed.get(1) else { return 0 };
        let (from, end) = (told.load(Ordering::Relaxed), self.shared.log_end());
        if from == end {
            return 0;
        }
        told.store(end, Ordering::Relaxed);
        let mut asleep = 0u64;
        for (slot, count) in self.shared.processes.iter().enumerate() {
            asleep |= u64::from(count.load(Ordering::SeqCst) != 0) << (slot % 64);
        }
        if asleep == 0 {
            return 0;
        }
        let mut holders = 0;
        let seen = self.shared.log_since(from, |changed| {
            let index = changed.socket as usize;
            holders |= match changed.is_udp {
                true => parts.udp_sockets.get(index).map_or(0, |socket| socket.holders),
                false => parts.seldoms.get(index).map_or(0, |socket| socket.holders),
            };
        });
        if seen.is_err() { asleep } else { asleep & holders }
    }
}

impl Work {
    fn stack<'s>(&'s mut self, shared: &'s Shared<'static>) -> Stack<'s, 'static, AfXdp> {
        let now = Instant(monotonic_ns());
        Stack { parts: &mut self.parts, shared, device: &mut self.device, now }
    }

    /// What the first who comes does, and whoever finds it half done.
    fn begin(
        &mut self,
        shared: &Shared<'static>,
        was_left: bool,
        interface: &Interface,
        ports: &[(u16, u16)],
    ) {
        if was_left {
            self.mend(shared);
        }
        if self.parts.slabs.processes.fresh() != 0 {
            return;
        }
        self.parts.set_interface(interface);
        for (first, count) in ports {
            let Some(handle) = self.parts.slabs.leases.take(self.parts.leases) else { break };
            let Some(lease) = self.parts.leases.get_mut(handle.index as usize) else { break };
            let (first, count, tag) = (*first, *count, lease.tag);
            *lease = Lease { tag, first, count, protocols: 3, is_ephemeral: 1, reserved: 0 };
        }
        self.stack(shared).poll();
    }

    /// The slot of this process. What it held before it called exec, nobody has any more.
    fn take_slot(&mut self, shared: &Shared<'static>, memory: &Fd) -> Result<Handle, Error> {
        let who = identity();
        if let Some(before) = self.parts.find_process(who.pid, who.started) {
            while self.stack(shared).end_process(before, usize::MAX)? {}
        }
        let slot = self.parts.attach_process(&who)?;
        self.parts.process(slot)?.memory = memory.raw().cast_unsigned() + 1;
        Ok(slot)
    }

    /// The last holder of the lock has died while he had it. A region that can't be made whole is given up: its sockets fail.
    #[cold]
    fn mend(&mut self, shared: &Shared<'static>) {
        if self.stack(shared).recover() == Err(Error::Corrupt) {
            self.parts.header.state = Header::GIVEN_UP;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_told_from_who_has_its_number_by_now() {
        let ours = identity();
        assert!(ours.pid != 0 && ours.started != 0 && is_alive(&ours));
        assert!(!is_alive(&Identity { started: ours.started + 1, ..ours }));
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id();
        let known = Identity { pid, started: 1, uid: 0 };
        child.wait().expect("it ends");
        assert!(!is_alive(&known));
    }
}
