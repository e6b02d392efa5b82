//! A program's side of the keeper.
//!
//! Every call ends: within [`PATIENCE`] the keeper has answered, or is taken for one that is stopped. A signal handler that runs
//! meanwhile changes nothing. Descriptors lie above the number that the caller names, out of the program's way.

use std::fmt;
use std::time::{Duration, Instant};

use libc::c_int;
use stack::export::Snapshot;
use stack::wire::ip::Ip;

use super::message::{ANSWER, Answer, Claimed, Port, Reason, Request, Terms, Wrong};
use crate::steering::{Protocol, Requests};
use crate::sys::{self, Errno, Fd};
use crate::xdp::device::AfXdp;
use crate::xdp::kick::Packets;
use crate::xdp::socket::Socket;
use crate::xdp::umem::Umem;

/// How long a call waits for the keeper.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no answer, or not the one that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody keeps this interface.
    Absent {
        /// Its number.
        interface: u32,
    },
    /// The name is taken by somebody who isn't believed.
    Stranger {
        /// Who it is.
        uid: u32,
    },
    /// It doesn't answer.
    Silent,
    /// It has ended.
    Gone,
    /// It speaks another version.
    Version {
        /// That one.
        found: u32,
    },
    /// Its answer makes no sense.
    Malformed {
        /// Why.
        wrong: Wrong,
    },
    /// This process may not have so many descriptors.
    Descriptors,
    /// The system refuses.
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The keeper says no.
    Told {
        /// Why.
        reason: Reason,
        /// The number that belongs to it.
        detail: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { interface } => {
                write!(
                    to,
                    "nobody keeps interface {interface}: start the program by `accel -o interfaces=NAME`"
                )
            }
            Self::Stranger { uid } => {
                write!(to, "the keeper's name is taken by a program of user {uid}: end that program")
            }
            Self::Silent => {
                let seconds = PATIENCE.as_secs();
                write!(to, "the keeper did not answer for {seconds} s: continue it if it is stopped")
            }
            Self::Gone => write!(to, "the keeper has ended: start the program again"),
            Self::Version { found } => {
                write!(to, "the keeper speaks version {found} of its language, and this library version ")?;
                write!(to, "{}: end all programs on the interface, and start again", super::message::VERSION)
            }
            Self::Malformed { wrong } => {
                write!(
                    to,
                    "the keeper's answer makes no sense ({wrong:?}): it is of another version of accel"
                )
            }
            Self::Descriptors => {
                write!(to, "this process may not have the descriptors of an interface: raise `ulimit -n`")
            }
            Self::System { step, errno } => {
                write!(to, "{step}: errno {}: the sockets stay on the kernel", errno.0)
            }
            Self::Told { reason, detail } => {
                to.write_str(&reason.sentence().replace("{}", &detail.to_string()))
            }
        }
    }
}

/// A connection to the keeper of an interface.
#[derive(Debug)]
pub struct Keeper {
    fd: Fd,
    floor: c_int,
    number: u32,
    patience: Duration,
}

/// What it takes to drive an interface.
#[derive(Debug)]
pub struct Attached {
    /// What was said of it.
    pub terms: Terms,
    /// The memory of the stack's state.
    pub region: Fd,
    /// The memory of frames.
    pub frames: Fd,
    /// The sockets of the queues, until [`Self::device`] takes them.
    pub queues: Vec<Fd>,
    /// Where errors and fragments come, each as a message: one end of a pair, which all processes of the stack read.
    pub passed: Fd,
    /// The map of what is wanted, until [`Self::requests`] takes it.
    pub requests: Option<Fd>,
    /// The second way out, until [`Self::device`] takes it: none, or two.
    pub packets: Vec<Fd>,
    /// One event descriptor for each process of the region, by its slot.
    pub bells: Vec<Fd>,
}

const fn system(step: &'static str) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal::System { step, errno }
}

impl Keeper {
    /// Connects to the keeper of an interface of this network namespace. Descriptors get numbers from `floor` on.
    ///
    /// # Errors
    /// Nobody keeps it, or nobody who is believed.
    pub fn connect(interface: u32, floor: c_int) -> Result<Self, Refusal> {
        let fd = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0)
            .map(|fd| sys::raise_number(fd, floor))
            .map_err(system("making a socket to the keeper"))?;
        let patience = libc::timeval { tv_sec: PATIENCE.as_secs() as i64, tv_usec: 0 };
        sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_SNDTIMEO, &patience)
            .map_err(system("setting a time limit"))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match sys::connect(&fd, &super::address(interface)) {
                Ok(()) => break,
                Err(Errno(libc::ECONNREFUSED)) => return Err(Refusal::Absent { interface }),
                Err(Errno(libc::EINTR)) if Instant::now() < until => {}
                Err(Errno(libc::EAGAIN | libc::EINTR)) => return Err(Refusal::Silent),
                Err(errno) => return Err(system("connecting to the keeper")(errno)),
            }
        }
        let mut server = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
        sys::getsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut server)
            .map_err(system("asking who keeps the interface"))?;
        if server.uid != 0 && server.uid != sys::geteuid() {
            return Err(Refusal::Stranger { uid: server.uid });
        }
        Ok(Self { fd, floor, number: 0, patience: PATIENCE })
    }

    /// This process counts from now on as one that uses the interface: the keeper doesn't end before it does.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn hold(&mut self) -> Result<(), Refusal> {
        self.ask(&Request::Hold, &[]).and_then(|(answer, _)| done(&answer))
    }

    /// After fork, in the parent, before that goes on: the child holds what this process holds. It has a connection of its own to make;
    /// but it may not get to that before this process ends, and then what it inherited would be free.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn forked(&mut self, child: i32) -> Result<(), Refusal> {
        self.ask(&Request::Forked(child.unsigned_abs()), &[]).and_then(|(answer, _)| done(&answer))
    }

    /// Everything that it takes to drive the interface.
    ///
    /// # Errors
    /// What the keeper says; the limit on descriptors.
    pub fn attach(&mut self) -> Result<Attached, Refusal> {
        let (answer, passed) = self.ask(&Request::Attach, &[])?;
        let Answer::Attached(terms) = answer else { return Err(refusal(&answer)) };
        let malformed = Refusal::Malformed { wrong: Wrong::Size(passed.len()) };
        if passed.len() != terms.descriptors() {
            return Err(malformed);
        }
        let mut all = passed.into_iter().map(|fd| sys::raise_number(fd, self.floor));
        let mut one = || all.next().ok_or_else(|| malformed.clone());
        let (region, frames, requests, passed) = (one()?, one()?, Some(one()?), one()?);
        let queues = all.by_ref().take(terms.queues as usize).collect();
        let packets = all.by_ref().take(terms.ways_out()).collect();
        let bells = all.collect();
        Ok(Attached { terms: *terms, region, frames, queues, passed, requests, packets, bells })
    }

    /// Claims a port for this process, with a socket that is bound to it in the kernel: that the kernel allowed it is the right to it.
    /// The keeper has that socket too as long as the claim holds, so the port stays taken.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn claim(
        &mut self,
        protocol: Protocol,
        local: Ip,
        number: u16,
        placeholder: c_int,
    ) -> Result<Claimed, Refusal> {
        self.port(Request::Claim(Port { protocol, local, number }), &[placeholder])
    }

    /// A port that another process has claimed is this one's, too: a child's, or that of who serves what a process left behind.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn join(&mut self, protocol: Protocol, local: Ip, number: u16) -> Result<Claimed, Refusal> {
        self.port(Request::Join(Port { protocol, local, number }), &[])
    }

    fn port(&mut self, request: Request, passed: &[c_int]) -> Result<Claimed, Refusal> {
        match self.ask(&request, passed)? {
            (Answer::Claimed(claimed), _) => Ok(claimed),
            (answer, _) => Err(refusal(&answer)),
        }
    }

    /// This process no longer needs a port. It stays claimed as long as another one does.
    ///
    /// # Errors
    /// What the keeper says.
    pub fn release(&mut self, protocol: Protocol, local: Ip, number: u16) -> Result<(), Refusal> {
        let request = Request::Release(Port { protocol, local, number });
        self.ask(&request, &[]).and_then(|(answer, _)| done(&answer))
    }

    /// Has the kernel ask for a neighbour. Its answer is a change of the kernel's table (RTMGRP_NEIGH).
    ///
    /// # Errors
    /// What the keeper says.
    pub fn resolve(&mut self, ip: Ip) -> Result<(), Refusal> {
        self.ask(&Request::Resolve(ip), &[]).and_then(|(answer, _)| done(&answer))
    }

    /// The kernel has a connection from now on, in this socket; `bytes` is memory with those of its queues.
    ///
    /// # Errors
    /// What the keeper says: the socket has no connection then.
    pub fn hand_over(&mut self, it: &Snapshot, socket: c_int, bytes: &Fd) -> Result<(), Refusal> {
        self.ask(&Request::HandOver(*it), &[socket, bytes.raw()]).and_then(|(answer, _)| done(&answer))
    }

    /// Sends a request, and waits for its answer, whose descriptors are close-on-exec.
    fn ask(&mut self, request: &Request, passed: &[c_int]) -> Result<(Answer, Vec<Fd>), Refusal> {
        let until = Instant::now() + self.patience;
        self.number = self.number.wrapping_add(1);
        let bytes = request.bytes(self.number);
        self.attempt(until, libc::POLLOUT, |fd| sys::send_with(fd, &bytes, passed, libc::MSG_DONTWAIT))?;
        loop {
            let (mut bytes, mut passed) = ([0; ANSWER + 1], Vec::new());
            let came = self.attempt(until, libc::POLLIN, |fd| {
                sys::receive_with(fd, &mut bytes, &mut passed, libc::MSG_DONTWAIT)
            })?;
            if came.len == 0 {
                return Err(Refusal::Gone);
            }
            let (answer, number) = Answer::parse(&bytes[..came.len]).map_err(|wrong| match wrong {
                Wrong::Version(found) => Refusal::Version { found },
                wrong => Refusal::Malformed { wrong },
            })?;
            if number == self.number {
                let is_whole = !came.lacks_descriptors;
                return if is_whole { Ok((answer, passed)) } else { Err(Refusal::Descriptors) };
            }
            // The answer to what somebody gave up waiting for.
        }
    }

    /// Does something once the socket is ready for it.
    fn attempt<T>(
        &self,
        until: Instant,
        events: i16,
        mut act: impl FnMut(&Fd) -> sys::Result<T>,
    ) -> Result<T, Refusal> {
        loop {
            match act(&self.fd) {
                Ok(value) => return Ok(value),
                Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
                Err(Errno(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN)) => return Err(Refusal::Gone),
                Err(Errno(libc::EMFILE)) => return Err(Refusal::Descriptors),
                Err(errno) => return Err(system("talking to the keeper")(errno)),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::Silent);
            }
            // Rounded up: what is left of a millisecond is waited for, not spun away.
            let milliseconds = left.as_millis() as c_int + 1;
            let _ =
                sys::poll_all(&mut [libc::pollfd { fd: self.fd.raw(), events, revents: 0 }], milliseconds);
        }
    }
}

fn refusal(answer: &Answer) -> Refusal {
    match answer {
        Answer::Refused(reason, detail) => Refusal::Told { reason: *reason, detail: *detail },
        // An answer to another question.
        _ => Refusal::Malformed { wrong: Wrong::Field(8) },
    }
}

fn done(answer: &Answer) -> Result<(), Refusal> {
    if *answer == Answer::Done { Ok(()) } else { Err(refusal(answer)) }
}

impl Attached {
    /// The stack's device, over the frames and the sockets of the queues: once.
    ///
    /// # Errors
    /// What the kernel refuses to map.
    pub fn device(&mut self) -> Result<AfXdp, Refusal> {
        let Terms { limits, entries, capabilities, .. } = &self.terms;
        let umem = Umem::map(&self.frames, limits.frames, capabilities.frame_size)
            .map_err(system("mapping the frames"))?;
        let sockets = core::mem::take(&mut self.queues)
            .into_iter()
            .map(|fd| Socket::adopt(fd, *entries))
            .collect::<sys::Result<Vec<_>>>()
            .map_err(system("mapping the rings"))?;
        let packets = <[Fd; 2]>::try_from(core::mem::take(&mut self.packets)).ok();
        let packets =
            packets.map(Packets::adopt).transpose().map_err(system("mapping the queue of packets"))?;
        AfXdp::new(umem, sockets, packets, *capabilities).map_err(system("mapping the rings"))
    }

    /// What the owner wants, to be written by this process: once.
    ///
    /// # Errors
    /// EBADF for the second time; what the kernel refuses to map.
    pub fn requests(&mut self) -> Result<Requests, Refusal> {
        let mapping = system("mapping what is wanted of the interface");
        let fd = self.requests.take().ok_or(Errno(libc::EBADF));
        fd.and_then(Requests::adopt).map_err(mapping)
    }
}

#[cfg(test)]
mod tests;
