//! What the stack learns from the kernel: addresses, routes, neighbours. One process of a stack mirrors them; each asks for the neighbours
//! and the ways that its own connections need.

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use driver::clock::monotonic_ns;
use driver::netlink::routes::Question;
use engine::control::ask::{Admitted, Asker, admit};
use engine::control::decide::{Decision, decide};
use engine::control::{Mirror, Next};
use engine::engine::Engine;
use engine::service::Duty;
use stack::time::Instant;
use stack::wire::ip::Ip;

use super::attach::Interface;
use crate::guard;
use crate::lock::Lock;

/// Answers may be old: so often they are asked for.
const ASKED_MAX: usize = 3;
/// The stack's tables are brought up to date in so many steps at once.
const STEPS_MAX: usize = 1024;

/// The control plane, as far as this process has a part in it.
#[derive(Debug, Default)]
pub(super) struct Control {
    mirror: Lock<Option<Mirror>>,
    asker: Lock<Option<Asker>>,
    /// The mirror's descriptor, plus one; 0 is none.
    fd: AtomicI32,
}

impl Control {
    /// In a fork's child: its parent goes on with the mirror.
    pub(super) fn after_fork(&self) {
        self.fd.store(0, Relaxed);
        *self.mirror.lock() = None;
        *self.asker.lock() = None;
    }
}

impl Duty for Interface {
    fn engine(&self) -> &Engine {
        self.engine
    }

    fn fd(&self) -> i32 {
        self.control.fd.load(Relaxed) - 1
    }

    fn tick(&self) {
        self.give_back();
    }

    fn attend(&self) {
        let wanted: Vec<Ip> = self.engine.with(guard::tid(), |stack| stack.parts.wanted().collect());
        for ip in &wanted {
            self.resolve(*ip);
        }
        if self.engine.holds_mirror() {
            self.mirror();
        }
    }
}

impl Interface {
    /// Brings what the kernel has into the stack's tables.
    fn mirror(&self) {
        let mut held = self.control.mirror.lock();
        if held.is_none() {
            *held = Mirror::open(self.index, &self.limits).ok();
            self.control.fd.store(held.as_ref().map_or(0, |mirror| mirror.fd().raw() + 1), Relaxed);
        }
        let Some(mirror) = held.as_mut() else { return };
        let thread = guard::tid();
        let mut next = Next::Read;
        for _ in 0..STEPS_MAX {
            if next == Next::Read && mirror.read().is_err() {
                break;
            }
            next = self.engine.with(thread, |stack| mirror.apply(stack));
            if next == Next::Wait {
                break;
            }
        }
        self.engine.with(thread, |stack| mirror.wanted(stack.parts));
        let asked: Vec<Ip> = mirror.questions(Instant(monotonic_ns())).to_vec();
        drop(held);
        for ip in asked {
            self.resolve(ip);
        }
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
            uid: driver::sys::geteuid(),
        };
        let answer = held.as_mut()?.ask(&question, epoch).ok()?;
        Some(self.engine.with(guard::tid(), |stack| admit(stack.parts, &answer, epoch)))
    }
}
