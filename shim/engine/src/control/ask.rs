//! Asking the kernel where a packet goes, one destination at a time: where rules of an administrator's decide, or more routes than a
//! region has place for. What it says becomes a route to that destination alone.
//!
//! Any process of a stack may ask ([`Asker`]). It reads [`stack::ip::State::epoch`] first and says it when it brings the answer
//! ([`admit`]): when something has changed in between, the answer is old and is asked for again. Who has the mirror asks
//! anew for every such route after each change, so those of connections that live stay current, and drops those that
//! nobody uses any more when places become few.

use std::collections::{BTreeMap, BTreeSet};

use driver::netlink::Netlink;
use driver::netlink::routes::{self, Kind as Kernel, Question, Route as Found};
use driver::sys::{self, Errno};
use stack::ip::Policy;
use stack::ip::route::{Refused, Route, V4_BITS, source};
use stack::region::Parts;
use stack::wire::ip::Ip;

use super::rows;
use super::tables::Tables;

/// Answers that a process keeps.
const KEPT: usize = 64;
/// Records of sockets that are looked at under one lock.
const BATCH: usize = 256;

/// What the kernel says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes out by our interface: by this route, which is for it alone and says where it comes from.
    Ours(Route),
    /// It goes another way, or to this host itself.
    Elsewhere,
    /// It goes nowhere: the kernel says why.
    Nowhere(Errno),
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The route is there.
    Yes,
    /// Something has changed since it was asked for: ask again.
    Old,
    /// Another socket's packets to the same destination go another way, by its mark, its user or its source: this one's are the
    /// kernel's.
    Conflict,
    /// There is no place for it, or it is not asked for but mirrored.
    No,
}

/// Asks the kernel, and keeps what it said as long as nothing changes.
#[derive(Debug)]
pub struct Asker {
    netlink: Netlink,
    interface: u32,
    epoch: u16,
    kept: Vec<(Question, Answer)>,
}

impl Asker {
    /// For the interface with this number, of the network namespace of this thread.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open(interface: u32) -> sys::Result<Self> {
        Ok(Self { netlink: Netlink::open(0)?, interface, epoch: 0, kept: Vec::new() })
    }

    /// Where packets for a destination go, as of this [`stack::ip::State::epoch`].
    ///
    /// # Errors
    /// What netlink says besides answers.
    pub fn ask(&mut self, question: &Question, epoch: u16) -> sys::Result<Answer> {
        if self.epoch != epoch {
            self.kept.clear();
            self.epoch = epoch;
        }
        if let Some((_, answer)) = self.kept.iter().find(|(kept, _)| kept == question) {
            return Ok(*answer);
        }
        let answer = ask(&mut self.netlink, self.interface, question)?;
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push((*question, answer));
        Ok(answer)
    }
}

/// One question. Which of our addresses the stack has is for [`admit`] to look at.
fn ask(netlink: &mut Netlink, interface: u32, question: &Question) -> sys::Result<Answer> {
    match routes::lookup(netlink, question) {
        Ok(found) => Ok(answer(&found, interface, &question.destination)),
        Err(
            errno
            @ Errno(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EAGAIN),
        ) => Ok(Answer::Nowhere(errno)),
        Err(errno) => Err(errno),
    }
}

fn answer(found: &Found, interface: u32, destination: &Ip) -> Answer {
    let is_ours = found.kind == Kernel::Unicast && found.interface == interface && !found.is_odd;
    let Some(source) = found.source.filter(|_| is_ours && !destination.is_multicast()) else {
        return Answer::Elsewhere;
    };
    let gateway = found.gateway.unwrap_or(Ip::UNSPECIFIED);
    let prefix_len = V4_BITS + 32;
    let bare = Route { destination: *destination, prefix_len, gateway, source, ..Route::default() };
    Answer::Ours(rows::with_hints(bare, &Tables::default(), found))
}

/// Brings an answer into the stack's table, under its lock. `epoch` is the one that it was asked for with.
pub fn admit(parts: &mut Parts<'_>, answer: &Answer, epoch: u16) -> Admitted {
    let Answer::Ours(route) = answer else { return Admitted::No };
    if parts.ip.epoch != epoch {
        return Admitted::Old;
    }
    if matches!(parts.ip.policy(&route.destination), Policy::Mirrored | Policy::Unknown)
        || !rows::has(parts.our_addresses(), &route.source)
    {
        return Admitted::No;
    }
    let at = parts.routing().find(&route.destination);
    let known = at.and_then(|at| parts.routes.get(at as usize)).copied();
    match known.filter(|known| known.prefix_len == route.prefix_len) {
        Some(known) if known == *route => Admitted::Yes,
        Some(_) => Admitted::Conflict,
        None if parts.add_route(route).is_ok() => Admitted::Yes,
        None => Admitted::No,
    }
}

/// The routes that were asked for, seen from who has the mirror. After a change destinations in use are found, some sockets under each lock;
/// then the kernel is asked for each, and then the stack's routes are what it said.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Something has changed: all are to be asked for again.
    pub(crate) is_old: bool,
    step: Step,
    /// Destinations that there were routes to when the search began.
    before: BTreeSet<[u8; 16]>,
    /// Destinations that are in use.
    used: BTreeSet<[u8; 16]>,
    /// What the kernel said of them.
    answers: BTreeMap<[u8; 16], Answer>,
    /// Routes that are put together.
    rows: Vec<Route>,
}

/// What is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// Nothing.
    #[default]
    Done,
    /// Sockets from this one on are looked at: first those of TCP.
    Find(usize),
    /// The kernel is asked.
    Ask,
    /// Its answers are applied.
    Apply,
}

/// The routes that are for one destination, of a version that is asked for.
fn is_asked(policies: [Policy; 2], route: &Route) -> bool {
    policies[usize::from(!route.destination.is_v4())] != Policy::Mirrored
}

impl Asked {
    /// There is something to do under the lock.
    pub(crate) fn has_news(&self) -> bool {
        self.is_old || matches!(self.step, Step::Find(_) | Step::Apply)
    }

    /// There is something to ask.
    pub(crate) fn has_questions(&self) -> bool {
        self.step == Step::Ask
    }

    /// Asks for what is in use, without the lock.
    pub(crate) fn read(&mut self, netlink: &mut Netlink, interface: u32) -> sys::Result<()> {
        if self.step != Step::Ask || self.is_old {
            return Ok(());
        }
        for ip in &self.used {
            let question = Question { destination: Ip(*ip), ..Question::default() };
            self.answers.insert(*ip, ask(netlink, interface, &question)?);
        }
        self.step = Step::Apply;
        Ok(())
    }

    /// The next step under the lock. `mirrored` are the rows of a version that isn't asked for.
    pub(crate) fn apply(&mut self, parts: &mut Parts<'_>, mirrored: &[Route], policies: [Policy; 2]) {
        if policies == [Policy::Mirrored; 2] {
            (self.is_old, self.step) = (false, Step::Done);
        } else if core::mem::take(&mut self.is_old) {
            self.used.clear();
            self.answers.clear();
            let all = parts.routing();
            let asked = all.all().iter().filter(|route| is_asked(policies, route) && route.prefix_len == 128);
            self.before = asked.map(|route| route.destination.0).collect();
            self.step = Step::Find(0);
        } else if let Step::Find(from) = self.step {
            self.step = self.find(parts, from, policies);
        } else if self.step == Step::Apply {
            self.step = Step::Done;
            self.compose(parts, mirrored, policies);
        }
    }

    /// Finds destinations in use among the next sockets.
    fn find(&mut self, parts: &Parts<'_>, from: usize, policies: [Policy; 2]) -> Step {
        let (end, used): (usize, Vec<Ip>) = if from < parts.tcbs.len() {
            let end = parts.tcbs.len().min(from + BATCH);
            let batch = &parts.tcbs[from..end];
            (end, batch.iter().filter(|tcb| tcb.has_peer()).map(|tcb| tcb.remote).collect())
        } else {
            let from = from - parts.tcbs.len();
            let end = parts.udp_sockets.len().min(from + BATCH);
            let batch = parts.udp_sockets.get(from..end).unwrap_or_default();
            let used = batch.iter().filter(|udp| udp.tag.is_used() && !udp.remote.is_unspecified());
            (end + parts.tcbs.len(), used.map(|udp| udp.remote).collect())
        };
        let is_asked = |ip: &&Ip| policies[usize::from(!ip.is_v4())] != Policy::Mirrored;
        let room = parts.routes.len().saturating_sub(self.used.len());
        self.used.extend(used.iter().filter(is_asked).take(room).map(|ip| ip.0));
        if end < parts.tcbs.len() + parts.udp_sockets.len() { Step::Find(end) } else { Step::Ask }
    }

    /// Keeps what was asked for until there are answers, beside rows that are mirrored.
    pub(crate) fn keep(
        &mut self,
        parts: &mut Parts<'_>,
        mirrored: &[Route],
        policies: [Policy; 2],
    ) -> Result<bool, Refused> {
        self.rows.clear();
        self.rows.extend(mirrored);
        self.rows.extend(parts.routing().all().iter().filter(|route| is_asked(policies, route)));
        self.put(parts)
    }

    fn put(&mut self, parts: &mut Parts<'_>) -> Result<bool, Refused> {
        self.rows.truncate(parts.routes.len());
        self.rows.sort_unstable_by(Route::compare);
        parts.routing().replace(&self.rows)
    }

    /// What was asked for becomes what the kernel said. What came in the meantime stays, and what nobody uses goes.
    fn compose(&mut self, parts: &mut Parts<'_>, mirrored: &[Route], policies: [Policy; 2]) {
        let ours: Vec<source::Address> = parts.our_addresses().to_vec();
        let said = self.answers.values().filter_map(|answer| match answer {
            Answer::Ours(route) if rows::has(&ours, &route.source) => Some(*route),
            _ => None,
        });
        self.rows.clear();
        self.rows.extend(mirrored);
        self.rows.extend(said);
        let is_new = |route: &&Route| {
            let ip = &route.destination.0;
            let is_known = self.before.contains(ip) || self.used.contains(ip);
            is_asked(policies, route) && route.prefix_len == 128 && !is_known
        };
        self.rows.extend(parts.routing().all().iter().filter(is_new));
        let is_put = self.put(parts);
        debug_assert!(is_put.is_ok(), "rows in order, and places for them");
        self.answers.clear();
    }
}
