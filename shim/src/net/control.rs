//! What the stack learns from the kernel: addresses, routes, neighbours. One process of a stack mirrors them; each asks for the neighbours
//! and the ways that its own connections need.

use driver::clock::monotonic_ns;
use driver::netlink::routes::Question;
use driver::netlink::{Netlink, addresses};
use driver::sys::{self, Fd};
use engine::control::ask::{Admitted, Asker, admit};
use engine::control::decide::{Decision, decide};
use engine::control::follow::Follower;
use engine::engine::Engine;
use engine::service::Duty;
use stack::ip::Policy;
use stack::region::{Limits, Parts};
use stack::wire::ip::Ip;

use super::attach::Interface;
use crate::guard;
use crate::lock::Lock;

/// Answers may be old: so often they are asked for.
const ASKED_MAX: usize = 3;
/// How long another process, which brings the kernel's tables into the stack's, is waited for, and between two looks; in nanoseconds.
const LATE_NS: u64 = 1_000_000_000;
const LOOK_NS: u64 = 200_000;

/// The control plane, as far as this process has a part in it.
#[derive(Debug)]
pub(super) struct Control {
    follower: Follower,
    asker: Lock<Option<Asker>>,
}

impl Control {
    pub(super) const fn new(interface: u32, limits: Limits, passed: Fd) -> Self {
        Self { follower: Follower::new(interface, limits, passed), asker: Lock::new(None) }
    }

    /// In a fork's child: its parent goes on with the mirror.
    pub(super) fn after_fork(&self) {
        self.follower.after_fork();
        // SAFETY: the child has one thread.
        unsafe { self.asker.renew(None) };
    }
}

impl Duty for Interface {
    fn engine(&self) -> &Engine {
        self.engine
    }

    fn fds(&self) -> [i32; 2] {
        self.control.follower.fds()
    }

    fn tick(&self) {
        self.give_back();
        self.control.follower.take_over(self.engine, guard::tid(), |ip| self.resolve(ip));
    }

    fn attend(&self) {
        self.control.follower.follow(self.engine, guard::tid(), |ip| self.resolve(ip));
    }
}

impl Interface {
    /// Waits until the stack has the kernel's tables, which another process may be about to bring.
    pub(super) fn await_tables(&self) {
        self.await_that(|parts| parts.ip.policies.iter().all(|policy| *policy != Policy::Unknown as u8));
    }

    fn await_that(&self, is_so: impl Fn(&Parts<'_>) -> bool) -> bool {
        let until = monotonic_ns() + LATE_NS;
        loop {
            // It is this process's part from the moment at which nobody else has it.
            self.attend();
            if self.engine.with(guard::tid(), |stack| is_so(stack.parts)) {
                return true;
            }
            if monotonic_ns() >= until {
                return false;
            }
            let _ = sys::wait_for(&mut [], Some(LOOK_NS));
        }
    }

    /// Whether connections to this address come in by the interface. One that it got a moment ago the stack may not know yet.
    pub(super) fn has(&self, local: &Ip) -> bool {
        let knows = |parts: &Parts<'_>| parts.is_ours(local);
        local.is_unspecified()
            || self.engine.with(guard::tid(), |stack| knows(stack.parts))
            || self.kernel_has(local) && self.await_that(knows)
    }

    fn kernel_has(&self, local: &Ip) -> bool {
        let all = Netlink::open(0).and_then(|mut netlink| addresses::all(&mut netlink)).unwrap_or_default();
        all.iter().any(|one| one.interface == self.index && one.ip == *local && !one.is_tentative)
    }

    /// Whether a connection to this address leaves by the interface, from this address if that is not unspecified.
    pub(super) fn reaches(&self, local: &Ip, remote: &Ip, scope: u32) -> bool {
        for _ in 0..ASKED_MAX {
            let (decision, epoch) = self.engine.with(guard::tid(), |stack| {
                let is_ours = local.is_unspecified() || stack.parts.is_ours(local);
                let decision = is_ours.then(|| decide(stack, self.index, remote, scope));
                (decision, stack.parts.ip.epoch)
            });
            match decision {
                Some(Decision::Ours(_)) => return true,
                Some(Decision::Ask(_)) => {}
                Some(Decision::Kernel(_)) | None => return false,
            }
            match self.ask(local, remote, epoch) {
                Some(Admitted::Yes) => return true,
                Some(Admitted::Old) => {}
                _ => return false,
            }
        }
        false
    }

    /// Asks the kernel for the way to an address.
    fn ask(&self, local: &Ip, remote: &Ip, epoch: u16) -> Option<Admitted> {
        let mut held = self.control.asker.lock();
        if held.is_none() {
            *held = Asker::open(self.index).ok();
        }
        // The mark and the interface of its socket are not asked about: a socket with either stays on the kernel.
        let question = Question {
            destination: *remote,
            source: (!local.is_unspecified()).then_some(*local),
            interface: 0,
            mark: 0,
            uid: sys::geteuid(),
        };
        let answer = held.as_mut()?.ask(&question, epoch).ok()?;
        Some(self.engine.with(guard::tid(), |stack| admit(stack.parts, &answer, epoch)))
    }
}
