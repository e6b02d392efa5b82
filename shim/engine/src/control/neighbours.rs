//! What the kernel says of the neighbours on our link, and whom the stack wants to know.

use std::collections::{BTreeMap, BTreeSet};

use driver::netlink::neighbours::{self, Neighbour, State as Kernel};
use driver::netlink::{Netlink, Table};
use driver::sys;
use stack::device::Device;
use stack::ip::neighbour::State;
use stack::region::Parts;
use stack::stack::Stack;
use stack::time::{Duration, Instant};
use stack::wire::ethernet;
use stack::wire::ip::Ip;

/// Most neighbours that are kept: as many as a stack can have.
const MOST: usize = 65_534;
/// How many the stack is told of under one lock.
const BATCH: usize = 32;
/// How many are asked for at once.
const ASKED: usize = 32;
/// The kernel asks every second itself (RetransTimer): to tell it more often is of no use.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of one.
type Known = (Kernel, Option<[u8; 6]>);

/// What the kernel knows.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<[u8; 16], Known>,
    /// Of whom the stack hasn't been told.
    news: BTreeSet<[u8; 16]>,
    /// For whom somebody was asked lately, and when.
    asked: BTreeMap<[u8; 16], Instant>,
    /// [`stack::ip::neighbour::Neighbours::asks`] when all that were wanted had been asked for.
    asks: Option<u32>,
    /// For whom somebody is to be asked.
    wanted: Vec<Ip>,
}

impl Neighbours {
    /// Reads all of them.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn read(&mut self, netlink: &mut Netlink, interface: u32) -> sys::Result<()> {
        let is_ours = |neighbour: &Neighbour| neighbour.interface == interface;
        let Table { rows, .. } = neighbours::table(netlink, MOST, is_ours)?;
        let found: BTreeMap<[u8; 16], Known> =
            rows.iter().map(|row| (row.ip.0, (row.state, row.link))).collect();
        let is_gone = |ip: &&[u8; 16]| !found.contains_key(*ip);
        let gone: Vec<[u8; 16]> = self.known.keys().filter(is_gone).copied().collect();
        for ip in gone {
            self.set(ip, (Kernel::Gone, None));
        }
        for (ip, known) in found {
            self.set(ip, known);
        }
        Ok(())
    }

    /// The kernel has told of one.
    pub(crate) fn hear(&mut self, neighbour: &Neighbour) {
        self.set(neighbour.ip.0, (neighbour.state, neighbour.link));
    }

    fn set(&mut self, ip: [u8; 16], known: Known) {
        let is_room = self.known.len() < MOST || self.known.contains_key(&ip);
        let before = match known.0 {
            Kernel::Gone => self.known.remove(&ip),
            _ if is_room => self.known.insert(ip, known),
            _ => None,
        };
        // That it is there still is news: it is how old what the stack knows may become.
        if before != Some(known) || known.0 == Kernel::Reachable {
            self.news.insert(ip);
        }
    }

    /// The stack is to be told of all of them, as one that has just been made or mended.
    pub(crate) fn tell_all(&mut self) {
        self.news.extend(self.known.keys());
        self.asks = None;
    }

    /// Whether the stack is to be told something.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Tells the stack, of so many as the lock may be held for.
    pub(crate) fn apply<D: Device>(&mut self, stack: &mut Stack<'_, '_, D>) {
        for _ in 0..BATCH {
            let Some(ip) = self.news.pop_first() else { break };
            let (state, link) = self.known.get(&ip).copied().unwrap_or((Kernel::Gone, None));
            tell(stack, &Ip(ip), state, link);
        }
    }

    /// For whom the kernel is to be asked (`neighbours::resolve`): who packets wait for, and who is in use and stale. Each at most
    /// once a second. There may be more when it is called again.
    pub(crate) fn wanted(&mut self, parts: &mut Parts<'_>) -> bool {
        self.wanted.clear();
        if self.asks == Some(parts.ip.neighbours.asks()) {
            return false;
        }
        self.wanted.extend(parts.wanted().chain(parts.unconfirmed()).take(ASKED));
        if self.wanted.len() < ASKED {
            self.asks = Some(parts.ip.neighbours.asks());
        }
        for ip in &self.wanted {
            let hash = parts.address_hash(ip);
            parts.neighbour_cache(Instant(0)).told(ip, hash);
        }
        !self.wanted.is_empty()
    }

    /// Whom somebody is to be asked for now; whoever is known was only not told of.
    pub(crate) fn questions(&mut self, now: Instant) -> &[Ip] {
        self.asked.retain(|_, at| now < *at + AGAIN);
        let Self { wanted, known, asked, news, .. } = self;
        wanted.retain(|ip| {
            let is_known =
                known.get(&ip.0).is_some_and(|known| known.0.is_valid() && known.0 != Kernel::Stale);
            if is_known {
                news.insert(ip.0);
            }
            !is_known && !asked.contains_key(&ip.0)
        });
        asked.extend(wanted.iter().map(|ip| (ip.0, now)));
        wanted
    }
}

/// Tells the stack of one. Where there is no room it displaces nobody: who is wanted is told of later.
fn tell<D: Device>(stack: &mut Stack<'_, '_, D>, ip: &Ip, state: Kernel, link: Option<[u8; 6]>) {
    let hash = stack.parts.address_hash(ip);
    let is_known = stack.parts.neighbour_cache(stack.now).find(ip, hash).is_some();
    let is_room = (stack.parts.ip.neighbours.used() as usize) < stack.parts.neighbours.len();
    let state = match state {
        Kernel::Gone | Kernel::Incomplete => None,
        Kernel::Reachable => Some(State::Reachable),
        Kernel::Stale => Some(State::Stale),
        Kernel::Delay => Some(State::Delay),
        Kernel::Probe => Some(State::Probe),
        Kernel::Failed => Some(State::Failed),
        Kernel::Permanent => Some(State::Permanent),
    };
    match state {
        // A packet may wait for one that the kernel has just forgotten: it is asked for again.
        None if is_known => forget(stack, ip, hash),
        Some(state) if is_known || is_room && link.is_some() => {
            stack.set_neighbour(ip, link.map(ethernet::Address), state);
        }
        _ => {}
    }
}

fn forget<D: Device>(stack: &mut Stack<'_, '_, D>, ip: &Ip, hash: u32) {
    let found = stack.parts.neighbour_cache(stack.now).find(ip, hash).map(|known| known.state());
    if found.is_some_and(|state| state != State::Incomplete) {
        stack.remove_neighbour(ip);
    }
}
