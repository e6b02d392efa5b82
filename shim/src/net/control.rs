//! What the stack learns from the kernel: addresses, routes, neighbours. One process of a stack mirrors them; each asks for the neighbours
//! and the ways that its own connections need.

use driver::netlink::routes::Question;
use engine::control::ask::{Admitted, Asker, admit};
use engine::control::decide::{Decision, decide};
use engine::control::follow::Follower;
use engine::engine::Engine;
use engine::service::Duty;
use stack::region::Limits;
use stack::wire::ip::Ip;

use super::attach::Interface;
use crate::guard;
use crate::lock::Lock;

/// Answers may be old: so often they are asked for.
const ASKED_MAX: usize = 3;

/// The control plane, as far as this process has a part in it.
#[derive(Debug)]
pub(super) struct Control {
    follower: Follower,
    asker: Lock<Option<Asker>>,
}

impl Control {
    pub(super) const fn new(interface: u32, limits: Limits) -> Self {
        Self { follower: Follower::new(interface, limits), asker: Lock::new(None) }
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

    fn fd(&self) -> i32 {
        self.control.follower.fd()
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
