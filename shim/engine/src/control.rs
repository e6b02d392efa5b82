//! The mirror of the control plane: the kernel's addresses, routes, rules, neighbours, MTU and link of one interface, brought into the
//! tables of a stack and kept current.
//!
//! ```text
//! fd() readable ──► read(): netlink, no lock ──► apply(): under the lock, bounded ──► what it says is next
//! after a poll of the stack:  wanted() under the lock ──► questions(): the keeper's `resolve` for each
//! ```
//!
//! - What the kernel doesn't tell of by itself is read as a whole when something has changed ([`tables`]), and the stack's tables
//!   become that at once: nobody ever finds a part of them, and who finds what he found before looks nothing up again.
//! - Routes are mirrored where they alone decide ([`rows`]). With rules of an administrator's, or more routes than a region has place
//!   for, the kernel is asked for each destination ([`ask`]), and [`Policy`] says so.
//! - Errors of ICMP and fragments, which steering leaves to the kernel, come back ([`passed`]).
//! - The kernel finds neighbours ([`neighbours`]). It doesn't see what the stack sends, so it is told who is in use.
//!
//! One process of a stack has a `Mirror` at a time. When it has died another one opens its own, which applies everything.
//!
//! What Linux's connections see, and ours: with an address or a link that goes its routes go, and what is sent then is dropped, until
//! there is a route again or the connection times out with ENETUNREACH or EHOSTUNREACH (inet_sk_rebuild_header).

pub mod ask;
pub mod decide;
pub mod follow;
mod neighbours;
pub mod passed;
mod rows;
mod tables;

#[cfg(test)]
mod tests;

use driver::netlink::neighbours::parse as parse_neighbour;
use driver::netlink::{Netlink, group};
use driver::sys::{self, Errno, Fd};
use stack::device::Device;
use stack::ip::route::{Route, source};
use stack::ip::{Interface, Policy};
use stack::region::{Limits, Parts};
use stack::stack::Stack;
use stack::time::Instant;
use stack::wire::ethernet;
use stack::wire::ip::Ip;

use ask::Asked;
use neighbours::Neighbours;
use tables::{Changed, Tables};

/// What is heard of.
const GROUPS: u32 =
    group::LINK | group::NEIGHBOUR | group::ADDRESS | group::ROUTE | group::RULE | group::INTERFACE;
/// Messages are read at most so often before what they have changed is read.
const MESSAGES: usize = 256;
/// Routes that are read for each that a region has place for: most of them are other interfaces', and need none.
const READ: usize = 8;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// There is something to [`Mirror::apply`].
    pub news: bool,
    /// The kernel's tables change faster than they are read: it is to be called again soon, also if nothing is heard.
    pub again: bool,
}

/// What is to be done after [`Mirror::apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The same again, after the lock was given up.
    Apply,
    /// [`Mirror::read`]: there is something to ask.
    Read,
    /// Nothing until something is heard.
    Wait,
}

/// What the stack's tables are to be.
#[derive(Debug)]
struct Wanted {
    interface: Option<Interface>,
    addresses: Vec<source::Address>,
    /// Rows of both versions, in the stack's order; of one that is asked for, none.
    rows: Vec<Route>,
    policies: [Policy; 2],
}

impl Default for Wanted {
    fn default() -> Self {
        let policies = [Policy::Unknown; 2];
        Self { interface: None, addresses: Vec::new(), rows: Vec::new(), policies }
    }
}

/// The mirror of one interface.
#[derive(Debug)]
pub struct Mirror {
    asks: Netlink,
    hears: Netlink,
    limits: Limits,
    tables: Tables,
    /// What is to be read.
    changed: Changed,
    wanted: Wanted,
    /// The stack is not yet as it is wanted.
    is_news: bool,
    /// It was, once.
    is_applied: bool,
    neighbours: Neighbours,
    /// What was asked for, and is to be asked for anew.
    asked: Asked,
}

impl Mirror {
    /// For the interface with this number, of the network namespace of this thread, and a stack with these limits. Nothing is read yet.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open(interface: u32, limits: &Limits) -> sys::Result<Self> {
        Ok(Self {
            asks: Netlink::open(0)?,
            hears: Netlink::open(GROUPS)?,
            limits: *limits,
            tables: Tables::new(interface),
            changed: Changed::ALL,
            wanted: Wanted::default(),
            is_news: false,
            is_applied: false,
            neighbours: Neighbours::default(),
            asked: Asked::default(),
        })
    }

    /// Readable when something has changed.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        self.hears.fd()
    }

    /// Reads what has changed since the last call, at first all. It makes system calls, and does not wait.
    ///
    /// # Errors
    /// What netlink says, but for messages that were lost: then everything is read.
    pub fn read(&mut self) -> sys::Result<Read> {
        let more = self.hear()?;
        let changed = core::mem::take(&mut self.changed);
        if changed.is_any() {
            let most = (self.limits.routes as usize).saturating_mul(READ);
            match self.refresh(changed, most) {
                Err(Errno(libc::EINTR)) => self.changed.add(changed),
                done => done?,
            }
        }
        self.asked.read(&mut self.asks, self.tables.interface)?;
        Ok(Read { news: self.has_news(), again: more || self.changed.is_any() })
    }

    /// Takes what the kernel tells; true if there may be more.
    fn hear(&mut self) -> sys::Result<bool> {
        let interface = self.tables.interface;
        for _ in 0..MESSAGES {
            let (changed, neighbours) = (&mut self.changed, &mut self.neighbours);
            let heard = self.hears.changes(|kind, body| {
                changed.add(Changed::of(kind));
                if let Some(neighbour) = parse_neighbour(kind, body)
                    && neighbour.interface == interface
                {
                    neighbours.hear(&neighbour);
                }
            });
            match heard {
                Ok(true) | Err(Errno(libc::EINTR)) => {}
                Ok(false) => return Ok(false),
                // Some were lost (netlink(7)); what was heard so far is as old as what is read now.
                Err(Errno(libc::ENOBUFS)) => self.changed = Changed::ALL,
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    fn refresh(&mut self, changed: Changed, most: usize) -> sys::Result<()> {
        self.tables.read(&mut self.asks, changed, most)?;
        if changed.neighbours || changed.link {
            self.neighbours.read(&mut self.asks, self.tables.interface)?;
        }
        if changed.link || changed.addresses || changed.routes || changed.rules {
            self.want();
            // What was asked for is so no longer, or may be.
            self.asked.is_old = true;
        }
        Ok(())
    }

    /// What the stack's tables are to be, from the kernel's.
    fn want(&mut self) {
        let tables = &self.tables;
        let addresses = rows::addresses(tables, self.limits.addresses as usize);
        let mut policies = [tables.policy(false), tables.policy(true)];
        let mut of = [false, true].map(|is_v6| match policies[usize::from(is_v6)] {
            Policy::Mirrored => rows::rows(tables, is_v6, &addresses),
            _ => Vec::new(),
        });
        // Whoever is asked for has half of the places.
        let places = |policies: &[Policy; 2]| match policies {
            [Policy::Mirrored, Policy::Mirrored] => self.limits.routes as usize,
            _ => self.limits.routes as usize / 2,
        };
        while of[0].len() + of[1].len() > places(&policies) {
            let larger = usize::from(of[1].len() > of[0].len());
            (of[larger], policies[larger]) = (Vec::new(), Policy::Routes);
        }
        let mut rows = of.concat();
        rows.sort_by(Route::compare);
        let interface = tables.link.as_ref().map(|link| {
            let prefers = link.inet6.is_some_and(|inet6| inet6.prefers_temporary);
            Interface {
                link: ethernet::Address(link.address.unwrap_or_default()),
                mtu: link.mtu,
                number: tables.interface,
                flags: if prefers { Interface::PREFERS_TEMPORARY } else { 0 },
                ..Interface::default()
            }
        });
        self.wanted = Wanted { interface, addresses, rows, policies };
        self.is_news = true;
    }

    /// Whether there is something to apply.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.is_news || self.neighbours.has_news() || self.asked.has_news()
    }

    /// Brings what was read into the stack's tables, under its lock, a bounded part of it. It makes no system call.
    pub fn apply<D: Device>(&mut self, stack: &mut Stack<'_, '_, D>) -> Next {
        // Somebody has mended the stack after a death.
        if self.is_applied && stack.parts.ip.policies != self.wanted.policies.map(|policy| policy as u8) {
            self.mended();
        }
        if core::mem::take(&mut self.is_news) {
            self.is_applied = true;
            self.apply_interface(stack.parts);
            self.apply_routes(stack.parts);
        }
        self.asked.apply(stack.parts, &self.wanted.rows, self.wanted.policies);
        self.neighbours.apply(stack);
        if self.has_news() {
            Next::Apply
        } else if self.asked.has_questions() {
            Next::Read
        } else {
            Next::Wait
        }
    }

    fn apply_interface(&self, parts: &mut Parts<'_>) {
        if let Some(wanted) = self.wanted.interface {
            // Its tag is not the kernel's to say.
            let wanted = Interface { vlan: parts.ip.interface.vlan, ..wanted };
            if parts.ip.interface != wanted {
                parts.set_interface(&wanted);
            }
        }
        parts.set_addresses(&self.wanted.addresses);
    }

    fn apply_routes(&mut self, parts: &mut Parts<'_>) {
        let policies = self.wanted.policies.map(|policy| policy as u8);
        let is_asked = self.wanted.policies.iter().any(|policy| *policy != Policy::Mirrored);
        if parts.ip.policies != policies || is_asked {
            (parts.ip.policies, parts.ip.epoch) = (policies, parts.ip.epoch.wrapping_add(1));
        }
        let is_taken = if is_asked {
            self.asked.keep(parts, &self.wanted.rows, self.wanted.policies)
        } else {
            parts.routing().replace(&self.wanted.rows)
        };
        debug_assert!(is_taken.is_ok(), "rows in order, and places for them");
    }

    /// Looks for whom the kernel is to be asked, under the lock, after each poll of the stack: true if there is somebody. Where nothing is
    /// wanted it is one comparison.
    pub fn wanted(&mut self, parts: &mut Parts<'_>) -> bool {
        self.neighbours.wanted(parts)
    }

    /// For whom the kernel is to be asked now, that is `driver::netlink::neighbours::resolve` by who has the right to; each at most
    /// once a second. Without the lock.
    pub fn questions(&mut self, now: Instant) -> &[Ip] {
        self.neighbours.questions(now)
    }

    /// The stack's tables may be anything: it was mended after a process had died in the middle of a change.
    fn mended(&mut self) {
        self.is_news = true;
        self.neighbours.tell_all();
        self.asked.is_old = true;
    }

    /// What the routes of a version are worth.
    #[must_use]
    pub const fn policy(&self, is_v6: bool) -> Policy {
        self.wanted.policies[is_v6 as usize]
    }

    /// The interface is gone: nothing is sent or received any more.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.tables.link.is_none()
    }

    /// The interface is switched on. Without that it has no routes.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.tables.link.as_ref().is_some_and(driver::netlink::links::Link::is_up)
    }

    /// How many addresses the interface has for which the stack has no place: they are the kernel's.
    #[must_use]
    pub const fn beyond(&self) -> usize {
        self.tables.addresses.len().saturating_sub(self.wanted.addresses.len())
    }
}
