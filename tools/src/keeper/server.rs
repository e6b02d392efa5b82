//! The keeper at work: it answers requests one after the other, and sees processes, addresses and itself end.

use std::collections::HashSet;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use driver::keeper::address;
use driver::keeper::message::{Answer, Port, REQUEST, Reason, Request, Terms, VERSION, Wrong};
use driver::netlink::{Netlink, addresses, connections, links, neighbours};
use driver::steering::{Connection, Protocol};
use driver::sys::{self, Errno, Fd};
use driver::xdp::kick::Packets;
use driver::xdp::open::Opened;

use super::Order;
use super::claims::{Claims, No};
use super::proof;
use super::relay::Relay;
use super::watch::Watch;

/// Nobody comes: whoever had this keeper started has ended before it asked for anything.
const START: Duration = Duration::from_secs(10);
/// Between looks at the rings, and at the kernel's connections at mixed ports.
const LOOK: Duration = Duration::from_secs(1);
/// Connections to the keeper at one time: each process has one, and some more are on their way.
const VISITORS_MAX: usize = 512;
/// Of those, programs of other users, who are only told so.
const STRANGERS_MAX: usize = 16;
/// `SO_PEERPIDFD`: the process at the other end of an AF_UNIX connection, even if it has ended (Linux 6.5).
const SO_PEERPIDFD: i32 = 77;
// Groups of rtnetlink(7).
const GROUPS: u32 = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
const RTM_DELLINK: u16 = 17;

/// Why the keeper ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The last program has ended.
    Last,
    /// A signal said so.
    Signal,
    /// The interface is gone.
    Interface,
    /// Packets wait, and nobody takes them.
    Stuck,
}

/// What is given to who attaches.
#[derive(Debug)]
pub(super) struct Given {
    /// What is said.
    pub(super) terms: Terms,
    /// The memory of the stack's state.
    pub(super) region: Fd,
    /// One event descriptor for each of its processes.
    pub(super) bells: Vec<Fd>,
}

/// A process that uses the interface.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// Readable once it has ended.
    end: Fd,
}

/// A connection, and who made it.
#[derive(Debug)]
struct Visitor {
    fd: Fd,
    pid: i32,
    uid: u32,
}

/// The keeper.
#[derive(Debug)]
pub(super) struct Server {
    /// Who may use the interface.
    user: u32,
    /// How long it stays after the last program.
    linger: Duration,
    pub(super) opened: Opened,
    relay: Relay,
    given: Given,
    pub(super) claims: Claims,
    listener: Fd,
    signals: Fd,
    changes: Netlink,
    asks: Netlink,
    pub(super) netns: u64,
    processes: Vec<Process>,
    /// The half without rights, while there is one.
    half: Option<Process>,
    /// There is none, and will be none.
    is_alone: bool,
    /// The group of the first program.
    group: u32,
    visitors: Vec<Visitor>,
    /// The kernel's connections at ports of ours.
    pub(super) mixed: HashSet<Connection>,
    watch: Watch,
    ends: Instant,
    looks: Instant,
}

/// Takes the name of an interface's keeper; EADDRINUSE if another one has it.
pub(super) fn take_name(interface: u32) -> sys::Result<Fd> {
    let listener = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)?;
    sys::bind(&listener, &address(interface))?;
    Ok(listener)
}

impl Server {
    /// Over an interface that is open.
    pub(super) fn new(
        order: &Order,
        opened: Opened,
        given: Given,
        (listener, signals): (Fd, Fd),
        watch: Watch,
    ) -> sys::Result<Self> {
        let netns = proof::namespace(&sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?)?;
        let claims = Claims::new(given.terms.owner, given.terms.ports.clone());
        let now = Instant::now();
        let mut server = Self {
            user: order.user,
            linger: order.linger,
            is_alone: order.alone,
            relay: Relay::open(opened.link.index, order.user)?,
            opened,
            given,
            claims,
            listener,
            signals,
            changes: Netlink::open(GROUPS)?,
            asks: Netlink::open(0)?,
            netns,
            processes: Vec::new(),
            half: None,
            group: u32::MAX,
            visitors: Vec::new(),
            mixed: HashSet::new(),
            watch,
            ends: now + START,
            looks: now + LOOK,
        };
        server.read_addresses()?;
        sys::listen(&server.listener, 64)?;
        Ok(server)
    }

    /// Serves until there is a reason to end.
    pub(super) fn serve(&mut self) -> End {
        loop {
            let mut ready = self.ready();
            let now = Instant::now();
            if self.processes.is_empty() && self.half.is_none() && now >= self.ends {
                return End::Last;
            }
            let is_ending = self.processes.is_empty() && self.half.is_none();
            let until = if is_ending { self.ends } else { self.looks };
            let wait = until.saturating_duration_since(now).as_millis() as i32 + 1;
            if sys::poll_all(&mut ready, wait).is_err() {
                continue;
            }
            let is_ready: Vec<bool> = ready.iter().map(|one| one.revents != 0).collect();
            if is_ready[1] {
                return End::Signal;
            }
            if is_ready[2] && self.follow() {
                return End::Interface;
            }
            if is_ready[3] {
                self.relay.carry(&self.claims);
            }
            let (visitors, processes) = is_ready[4..].split_at(self.visitors.len());
            self.answer_all(visitors);
            if processes.contains(&true) {
                self.bury_ended();
            }
            if is_ready[0] {
                self.welcome();
            }
            if Instant::now() >= self.looks {
                self.looks = Instant::now() + LOOK;
                self.look_at_mixed();
                let pids = self.processes.iter().chain(&self.half).map(|process| process.pid);
                if self.watch.is_stuck(self.opened.device.queues(), pids) {
                    return End::Stuck;
                }
            }
        }
    }

    /// Gives everything back; what is left is the name, which keeps the next keeper away until it is dropped.
    pub(super) fn close(self) -> Fd {
        let Self { opened, listener, .. } = self;
        let Opened { attached, .. } = opened;
        drop(attached);
        listener
    }

    fn ready(&self) -> Vec<libc::pollfd> {
        let fixed = [&self.listener, &self.signals, self.changes.fd(), self.relay.fd()];
        let visitors = self.visitors.iter().map(|visitor| &visitor.fd);
        let processes = self.processes.iter().chain(&self.half).map(|process| &process.end);
        let poll = |fd: &Fd| libc::pollfd { fd: fd.raw(), events: libc::POLLIN, revents: 0 };
        fixed.into_iter().chain(visitors).chain(processes).map(poll).collect()
    }

    fn welcome(&mut self) {
        while let Ok(fd) = sys::accept(&self.listener) {
            let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
            let known = sys::getsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut who);
            if known.is_err() {
                continue;
            }
            // Who comes too late for that has been told, or doesn't ask.
            let is_stranger = |visitor: &Visitor| visitor.uid != self.user;
            if who.uid != self.user
                && self.visitors.iter().filter(|one| is_stranger(one)).count() >= STRANGERS_MAX
            {
                let oldest = self.visitors.iter().position(is_stranger);
                oldest.map(|at| self.visitors.remove(at));
            }
            if self.visitors.len() < VISITORS_MAX {
                if who.uid == self.user && self.group == u32::MAX {
                    self.group = who.gid;
                }
                self.visitors.push(Visitor { fd, pid: who.pid, uid: who.uid });
            }
        }
    }

    fn answer_all(&mut self, ready: &[bool]) {
        let mut stays: Vec<bool> = ready.iter().map(|_| true).collect();
        for at in (0..ready.len()).filter(|at| ready[*at]) {
            stays[at] = self.answer_one(at).is_some();
        }
        let mut stays = stays.into_iter();
        self.visitors.retain(|_| stays.next().unwrap_or(true));
    }

    /// One request of a visitor; `None` when the visitor has gone, or doesn't read its answers.
    fn answer_one(&mut self, at: usize) -> Option<()> {
        let (mut bytes, mut passed) = ([0; REQUEST + 1], Vec::new());
        let fd = &self.visitors[at].fd;
        let came = match sys::receive_with(fd, &mut bytes, &mut passed, libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => return Some(()),
            came => came.ok().filter(|came| came.len != 0)?,
        };
        let (answer, number) = match Request::parse(&bytes[..came.len]) {
            Ok((request, number)) => {
                let answer = self.answer(at, &request, passed);
                (answer.unwrap_or_else(|(reason, detail)| Answer::Refused(reason, detail)), number)
            }
            Err(Wrong::Version(_)) => (Answer::Refused(Reason::Version, VERSION), 0),
            Err(_) => (Answer::Refused(Reason::Malformed, 0), 0),
        };
        let passed = if let Answer::Attached(_) = answer { self.descriptors() } else { Vec::new() };
        let sent = sys::send_with(&self.visitors[at].fd, &answer.bytes(number), &passed, libc::MSG_DONTWAIT);
        sent.ok().map(drop)
    }

    /// In the order of [`Terms::descriptors`].
    fn descriptors(&self) -> Vec<i32> {
        let Opened { memory, requests, device, .. } = &self.opened;
        let fixed = [&self.given.region, memory, requests.fd(), self.relay.far_end()];
        let queues = device.queues().iter().map(driver::xdp::socket::Socket::fd);
        let packets = device.kicker().packets().filter(|_| self.given.terms.ways_out() != 0);
        let packets = packets.into_iter().flat_map(Packets::fds);
        fixed.into_iter().chain(queues).chain(packets).chain(&self.given.bells).map(Fd::raw).collect()
    }

    fn answer(&mut self, at: usize, request: &Request, passed: Vec<Fd>) -> Result<Answer, No> {
        let Visitor { pid, uid, .. } = self.visitors[at];
        if uid != self.user {
            return Err((Reason::User, self.user));
        }
        if pid <= 0 {
            return Err((Reason::Elsewhere, 0));
        }
        let is_half = self.half.as_ref().is_some_and(|half| half.pid == pid);
        let is_known = is_half || self.processes.iter().any(|process| process.pid == pid);
        if !is_known && !matches!(request, Request::Hold | Request::Attach) {
            return Err((Reason::NotAttached, 0));
        }
        match request {
            Request::Hold => self.enlist(at).map(|()| Answer::Done),
            Request::Attach => {
                self.enlist(at)?;
                Ok(Answer::Attached(Box::new(self.given.terms.clone())))
            }
            Request::Forked(child) => self.adopt(pid, *child as i32),
            Request::Claim(port) => self.claim(pid, port, passed),
            Request::Join(port) => self.claims.join(pid, port).map(Answer::Claimed),
            Request::Release(port) => {
                self.claims.release(&self.opened.steering, pid, port).map(|()| Answer::Done)
            }
            Request::HandOver(it) => self.hand_over(it, passed),
            Request::Resolve(ip) => neighbours::resolve(&mut self.asks, self.opened.link.index, ip)
                .map(|()| Answer::Done)
                .map_err(|Errno(errno)| (Reason::Kernel, errno as u32)),
        }
    }

    /// A process uses the interface from now on.
    fn enlist(&mut self, at: usize) -> Result<(), No> {
        // The number of one that has ended may be another's already.
        self.bury_ended();
        let Visitor { fd, pid, .. } = &self.visitors[at];
        if self.processes.iter().chain(&self.half).any(|process| process.pid == *pid) {
            return Ok(());
        }
        let mut number = -1;
        let end = match sys::getsockopt(fd.raw(), libc::SOL_SOCKET, SO_PEERPIDFD, &mut number) {
            Ok(_) => Ok(Fd::own(number)),
            Err(_) => sys::pidfd_open(*pid),
        };
        let (pid, end) = (*pid, end.map_err(|Errno(errno)| (Reason::Kernel, errno as u32))?);
        self.add(Process { pid, end })
    }

    fn add(&mut self, process: Process) -> Result<(), No> {
        let most = self.given.terms.limits.processes;
        if self.processes.len() >= most as usize {
            return Err((Reason::Full, most));
        }
        self.processes.push(process);
        if self.half.is_none() && !self.is_alone {
            self.start_half();
        }
        Ok(())
    }

    /// Starts the half that runs the stack for connections whose programs have ended. Without it they end with their programs.
    fn start_half(&mut self) {
        let Ok(command) = std::env::current_exe() else { return };
        let mut half = Command::new(command);
        half.args(["keeper-half", "--interface", &self.opened.link.name]);
        half.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if self.user != 0 {
            half.uid(self.user).gid(self.group);
        }
        let Ok(child) = half.spawn() else { return };
        let pid = child.id() as i32;
        if let Ok(end) = sys::pidfd_open(pid) {
            self.half = Some(Process { pid, end });
            self.claims.half = pid;
        }
    }

    /// A child holds what its parent does, which waits for this: so it still is its parent's child, if there is such a process.
    fn adopt(&mut self, parent: i32, child: i32) -> Result<Answer, No> {
        let end = sys::pidfd_open(child).map_err(|Errno(errno)| (Reason::Kernel, errno as u32))?;
        if parent_of(child) != Some(parent) {
            return Err((Reason::Kernel, libc::ECHILD as u32));
        }
        self.claims.inherit(parent, child);
        // It may have come by itself before.
        if !self.processes.iter().any(|process| process.pid == child) {
            self.add(Process { pid: child, end })?;
        }
        Ok(Answer::Done)
    }

    /// What ended processes held is free.
    fn bury_ended(&mut self) {
        if let Some(half) = self.half.take_if(|half| is_over(&half.end)) {
            self.claims.end(&self.opened.steering, half.pid);
            self.claims.half = 0;
            if !self.processes.is_empty() {
                self.start_half();
            }
        }
        let poll =
            |process: &Process| libc::pollfd { fd: process.end.raw(), events: libc::POLLIN, revents: 0 };
        let mut ends: Vec<libc::pollfd> = self.processes.iter().map(poll).collect();
        if sys::poll_all(&mut ends, 0).unwrap_or_default() == 0 {
            return;
        }
        let ended = self.processes.iter().zip(&ends).filter(|(_, end)| end.revents != 0);
        let ended: Vec<i32> = ended.map(|(process, _)| process.pid).collect();
        self.processes.retain(|process| !ended.contains(&process.pid));
        for pid in ended {
            self.claims.end(&self.opened.steering, pid);
        }
        self.ends = Instant::now() + self.linger;
    }

    fn claim(&mut self, pid: i32, port: &Port, mut passed: Vec<Fd>) -> Result<Answer, No> {
        let socket = passed.pop().filter(|_| passed.is_empty()).ok_or((Reason::NoSocket, 0))?;
        let cover = proof::check(&socket, port, self.opened.link.index, self.netns)?;
        let claimed = self.claims.claim(&self.opened.steering, pid, port, cover, socket)?;
        if port.protocol == Protocol::Tcp {
            self.look_for_kernels(port.number);
        }
        Ok(Answer::Claimed(claimed))
    }

    /// Connections that the kernel has at a port stay its own. The owner wants nothing there before it has its answer, so none of their
    /// packets is lost meanwhile.
    pub(super) fn look_for_kernels(&mut self, port: u16) {
        let steering = &self.opened.steering;
        let found = Netlink::to(libc::NETLINK_SOCK_DIAG, 0)
            .and_then(|mut netlink| connections::at_port(&mut netlink, port))
            .unwrap_or_default();
        // They may be tens of thousands.
        let found: HashSet<Connection> = found.into_iter().collect();
        let gone = |known: &Connection| known.local.1 == port && !found.contains(known);
        for connection in self.mixed.iter().filter(|known| gone(known)) {
            let _ = steering.leave_to_kernel(connection, false);
        }
        self.mixed.retain(|known| !gone(known));
        self.claims.set_mixed(steering, port, !found.is_empty());
        for connection in found {
            if !self.mixed.contains(&connection) && steering.leave_to_kernel(&connection, true).is_ok() {
                self.mixed.insert(connection);
            }
        }
    }

    fn look_at_mixed(&mut self) {
        let mut ports: Vec<u16> = self.mixed.iter().map(|connection| connection.local.1).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.into_iter().for_each(|port| self.look_for_kernels(port));
    }

    /// Addresses as they are now.
    fn read_addresses(&mut self) -> sys::Result<()> {
        let index = self.opened.link.index;
        let is_usable = |one: &addresses::Address| one.interface == index && !one.is_tentative;
        let mut now: Vec<_> =
            addresses::all(&mut self.asks)?.into_iter().filter(is_usable).map(|one| one.ip).collect();
        // If they are more than there are slots, those that others know come first.
        now.sort_by_key(stack::wire::ip::Ip::is_link_local);
        let steering = &self.opened.steering;
        for old in self.claims.addresses().iter().filter(|old| !now.contains(old)) {
            self.claims.remove_address(steering, old);
        }
        let known = self.claims.addresses();
        for ip in now.into_iter().filter(|ip| !known.contains(ip)) {
            self.claims.add_address(steering, ip);
        }
        Ok(())
    }

    /// Does what the kernel's changes ask for; whether the interface is gone.
    fn follow(&mut self) -> bool {
        let index = self.opened.link.index;
        let (mut is_gone, mut is_new) = (false, false);
        loop {
            let changes = self.changes.changes(|kind, body| {
                if kind == RTM_DELLINK {
                    is_gone |= driver::netlink::word(body, 4) == Some(index);
                }
                is_new |= addresses::parse(kind, body).is_some_and(|(address, _)| address.interface == index);
            });
            match changes {
                Ok(true) => {}
                Ok(false) => break,
                // Changes were lost: everything is read again.
                Err(_) => {
                    is_new = true;
                    is_gone |= !is_there(&mut self.asks, index);
                    break;
                }
            }
        }
        if is_new {
            let _ = self.read_addresses();
        }
        is_gone
    }
}

fn is_over(end: &Fd) -> bool {
    sys::poll_all(&mut [libc::pollfd { fd: end.raw(), events: libc::POLLIN, revents: 0 }], 0) == Ok(1)
}

fn is_there(netlink: &mut Netlink, index: u32) -> bool {
    links::all(netlink).map_or(true, |links| links.iter().any(|link| link.index == index))
}

/// A process's parent: the second number behind its name in `/proc/PID/stat`.
fn parent_of(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
