//! System calls. Those that may have to wait are a [`Pending`] operation, which is tried until it is done: between two trials
//! whoever drives the host gives it packets and time.

use stack::events::{self, Events};
use stack::region::slab::Handle;
use stack::tcp::calls::How;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

use crate::control::{self, Control, ZeroCopy};
use crate::errno::Errno;
use crate::files::{File, Interest, Kind};
use crate::host::{Host, LOCAL, LOCAL_6};

/// An address and a port.
pub type End = (Ip, u16);

/// A call that may wait.
#[derive(Clone, Debug)]
pub enum Call {
    /// connect(2).
    Connect(i32, End),
    /// accept4(2); whether the new socket doesn't block.
    Accept(i32, bool),
    /// recv(2) of so many bytes, with flags.
    Receive(i32, usize, i32),
    /// send(2), with flags.
    Send(i32, Vec<u8>, i32),
    /// sendto(2) with MSG_FASTOPEN among its flags.
    SendFast(i32, End, Vec<u8>, i32),
    /// poll(2): descriptors, events; milliseconds, or -1.
    Poll(Vec<(i32, i16)>, i32),
    /// epoll_wait(2): so many events at most; milliseconds, or -1.
    EpollWait(i32, usize, i32),
}

/// What recvmsg(2) gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The text.
    pub text: Vec<u8>,
    /// `msg_control`.
    pub control: Vec<Control>,
    /// `msg_flags`.
    pub flags: i32,
}

/// What a call has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A new descriptor, and whom it talks to.
    Accepted(i32, End),
    /// What was received.
    Received(Message),
    /// So many bytes were taken.
    Sent(usize),
    /// Events of each descriptor.
    Polled(Vec<i16>),
    /// Events, and what is given back with each.
    Ready(Vec<(u32, u64)>),
}

impl Answer {
    /// What the call returns.
    #[must_use]
    pub fn number(&self) -> i64 {
        match self {
            Self::Done => 0,
            Self::Accepted(fd, _) => i64::from(*fd),
            Self::Received(message) => message.text.len() as i64,
            Self::Sent(len) => *len as i64,
            Self::Polled(all) => all.iter().filter(|events| **events != 0).count() as i64,
            Self::Ready(all) => all.len() as i64,
        }
    }
}

/// A call that has begun.
#[derive(Clone, Debug)]
pub struct Pending {
    call: Call,
    begun: Instant,
    /// Bytes that were sent, or the SYN.
    sent: usize,
    received: Vec<u8>,
    /// When the last of it arrived.
    arrived: Option<Instant>,
    /// What is told besides.
    control: Vec<Control>,
    /// It was tried before.
    has_waited: bool,
    /// The SYN of sendto(2) has left.
    has_begun: bool,
}

/// What the events of a socket are to poll(2); the low bits of EPOLL* are the same.
fn poll_bits(ready: u64) -> i16 {
    let rows = [
        (events::READABLE, libc::POLLIN | libc::POLLRDNORM),
        (events::WRITABLE, libc::POLLOUT | libc::POLLWRNORM),
        (events::FAILED, libc::POLLERR),
        (events::HUNG_UP, libc::POLLHUP),
        (events::READ_HUNG_UP, libc::POLLRDHUP),
        (events::URGENT, libc::POLLPRI),
    ];
    rows.iter().filter(|row| ready & row.0 != 0).fold(0, |bits, row| bits | row.1)
}

/// What poll(2) tells without being asked.
const ALWAYS: i16 = libc::POLLERR | libc::POLLHUP;

impl Pending {
    /// A call that begins now.
    #[must_use]
    pub const fn new(call: Call, now: Instant) -> Self {
        Self {
            call,
            begun: now,
            sent: 0,
            received: Vec::new(),
            arrived: None,
            control: Vec::new(),
            has_waited: false,
            has_begun: false,
        }
    }

    /// What was received until now.
    fn message(&mut self) -> Message {
        let (text, control) = (std::mem::take(&mut self.received), std::mem::take(&mut self.control));
        Message { text, control, flags: 0 }
    }

    /// When it ends by itself.
    pub fn deadline(&self, host: &mut Host) -> Option<Instant> {
        let millis = |timeout: i32| u64::try_from(timeout).ok().map(Duration::from_millis);
        let limit = match &self.call {
            Call::Poll(_, timeout) | Call::EpollWait(_, _, timeout) => millis(*timeout),
            Call::Accept(fd, _) | Call::Receive(fd, ..) => host.timeouts(*fd).0,
            Call::Connect(fd, _) | Call::Send(fd, ..) | Call::SendFast(fd, ..) => host.timeouts(*fd).1,
        };
        limit.map(|limit| self.begun + limit)
    }

    /// Tries: `None` while it has to wait.
    pub fn attempt(&mut self, host: &mut Host) -> Option<Result<Answer, Errno>> {
        let done = match self.call.clone() {
            Call::Connect(fd, to) => host.connect(fd, to, &mut self.sent),
            Call::Accept(fd, is_nonblocking) => host.accept(fd, is_nonblocking),
            Call::Receive(fd, len, flags) => self.receive(host, fd, len, flags),
            Call::Send(fd, bytes, flags) => self.send(host, fd, &bytes, flags),
            Call::SendFast(fd, to, bytes, _) => self.send_fast(host, fd, to, &bytes),
            Call::Poll(fds, _) => host.poll(&fds),
            Call::EpollWait(fd, most, _) => host.epoll_wait(fd, most),
        };
        host.settle();
        let again = Err(Errno(libc::EAGAIN));
        if done != again {
            return Some(self.noted(host, done));
        }
        let waits = match &self.call {
            Call::Receive(fd, _, flags) | Call::Send(fd, _, flags) => {
                flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0 && host.blocks(*fd)
            }
            Call::Connect(fd, _) | Call::Accept(fd, _) | Call::SendFast(fd, ..) => host.blocks(*fd),
            Call::Poll(..) | Call::EpollWait(..) => true,
        };
        let is_late = self.deadline(host).is_some_and(|at| at <= host.now());
        if waits && !is_late {
            self.has_waited = true;
            return None;
        }
        let so_far = match &self.call {
            Call::Connect(..) => Err(Errno(libc::EINPROGRESS)),
            Call::SendFast(..) if self.sent == 0 => Err(Errno(libc::EINPROGRESS)),
            Call::Poll(fds, _) => Ok(Answer::Polled(vec![0; fds.len()])),
            Call::EpollWait(..) => Ok(Answer::Ready(Vec::new())),
            // What was done before the wait ended is what it has done.
            Call::Send(..) | Call::SendFast(..) if self.sent > 0 => Ok(Answer::Sent(self.sent)),
            Call::Receive(..) if !self.received.is_empty() => Ok(Answer::Received(self.message())),
            _ => again,
        };
        Some(self.noted(host, so_far))
    }

    /// What was sent with MSG_ZEROCOPY is told by the error queue.
    fn noted(&self, host: &mut Host, done: Result<Answer, Errno>) -> Result<Answer, Errno> {
        if let (Call::Send(fd, _, flags) | Call::SendFast(fd, _, _, flags), Ok(Answer::Sent(1..))) =
            (&self.call, &done)
            && flags & libc::MSG_ZEROCOPY != 0
        {
            let zerocopy = &mut host.files.of(*fd)?.zerocopy;
            if zerocopy.is_on {
                zerocopy.note();
            }
        }
        done
    }

    /// A SYN with what has room in it; who waits sends the rest when the connection is there.
    fn send_fast(
        &mut self,
        host: &mut Host,
        fd: i32,
        (ip, port): End,
        bytes: &[u8],
    ) -> Result<Answer, Errno> {
        let socket = host.files.tcp(fd)?;
        if !self.has_begun {
            let source = if ip.is_v4() { LOCAL } else { LOCAL_6 };
            self.sent = match host.with(|stack| stack.send_fast_open(socket, &source, (&ip, port), &[bytes]))
            {
                Err(stack::error::Error::InProgress) => 0,
                sent => sent?,
            };
            self.has_begun = true;
            host.files.of(fd)?.is_connecting = true;
        }
        if host.with(|stack| stack.state(socket))? == State::SynSent || !host.blocks(fd) {
            return Err(Errno(libc::EAGAIN));
        }
        self.has_waited = false;
        if self.sent == bytes.len() { Ok(Answer::Sent(self.sent)) } else { self.send(host, fd, bytes, 0) }
    }

    fn send(&mut self, host: &mut Host, fd: i32, bytes: &[u8], flags: i32) -> Result<Answer, Errno> {
        let socket = host.files.tcp(fd)?;
        // Who waits for room is woken when there is enough of it, as poll(2) tells, and not for each byte (sk_stream_write_space).
        let ready = host.events(socket).ready;
        if self.has_waited && ready & (events::WRITABLE | events::FAILED | events::HUNG_UP) == 0 {
            return Err(Errno(libc::EAGAIN));
        }
        let more = flags & libc::MSG_MORE != 0;
        loop {
            let text = [&bytes[self.sent..]];
            let sent = host.with(|stack| match flags & libc::MSG_OOB {
                0 => stack.send(socket, &text, more),
                _ => stack.send_urgent(socket, &text),
            });
            match sent {
                Ok(len) => self.sent += len,
                // An error after some bytes is told by the next call.
                Err(error) if self.sent > 0 && error != stack::error::Error::WouldBlock => {
                    return Ok(Answer::Sent(self.sent));
                }
                Err(error) => return Err(error.into()),
            }
            if self.sent == bytes.len() {
                return Ok(Answer::Sent(self.sent));
            }
            host.settle();
        }
    }

    fn receive(&mut self, host: &mut Host, fd: i32, len: usize, flags: i32) -> Result<Answer, Errno> {
        let socket = host.files.tcp(fd)?;
        if flags & libc::MSG_ERRQUEUE != 0 {
            let file = host.files.of(fd)?;
            let told = file.zerocopy.take(file.family == libc::AF_INET6).ok_or(Errno(libc::EAGAIN))?;
            let (control, flags) = (vec![told], libc::MSG_ERRQUEUE);
            return Ok(Answer::Received(Message { control, flags, ..Message::default() }));
        }
        let peeks = flags & libc::MSG_PEEK != 0;
        if flags & libc::MSG_OOB != 0 {
            let (mut text, flags) = (vec![0; len], libc::MSG_OOB);
            let got = host.with(|stack| stack.receive_urgent(socket, &mut text, peeks))?;
            text.truncate(got);
            return Ok(Answer::Received(Message { text, flags, ..Message::default() }));
        }
        // What was peeked at is still there when it is tried again.
        self.received.truncate(if peeks { 0 } else { self.received.len() });
        let mut buffer = vec![0; len - self.received.len()];
        let values = host.with(|stack| stack.parts.tcp_options(socket))?;
        if values.tells_arrival() {
            let arrived = host.with(|stack| stack.text_arrived(socket, buffer.len()))?;
            self.arrived = arrived.or(self.arrived);
        }
        let got = host.with(|stack| match flags & (libc::MSG_PEEK | libc::MSG_TRUNC) {
            0 => stack.receive(socket, &mut [&mut buffer]),
            libc::MSG_TRUNC => stack.discard_text(socket, buffer.len()),
            _ => stack.peek(socket, 0, &mut [&mut buffer]),
        });
        match got {
            Ok(got) => self.received.extend_from_slice(&buffer[..got]),
            Err(_) if !self.received.is_empty() && flags & libc::MSG_WAITALL == 0 => {}
            Err(error) => return Err(error.into()),
        }
        let is_short = self.received.len() < len && flags & libc::MSG_WAITALL != 0;
        if is_short && !host.reads_end(socket) {
            return Err(Errno(libc::EAGAIN));
        }
        let left = host.with(|stack| stack.unread(socket))?;
        self.control = control::of_read(&values, self.arrived, left);
        Ok(Answer::Received(self.message()))
    }
}

impl Host {
    /// Whether a descriptor's calls wait.
    fn blocks(&mut self, fd: i32) -> bool {
        self.files.of(fd).is_ok_and(|file| !file.is_nonblocking)
    }

    fn events(&mut self, socket: Handle) -> Events {
        self.with(|stack| stack.events(socket))
    }

    /// Events of a socket, and of its error queue.
    fn ready(&mut self, fd: i32, socket: Handle) -> i16 {
        let tells = self.files.of(fd).is_ok_and(|file| file.zerocopy.tells());
        poll_bits(self.events(socket).ready) | if tells { libc::POLLERR } else { 0 }
    }

    fn reads_end(&mut self, socket: Handle) -> bool {
        self.events(socket).ready & events::READ_HUNG_UP != 0
    }

    /// socket(2) of TCP.
    ///
    /// # Errors
    /// EMFILE, ENOBUFS; EAFNOSUPPORT and EPROTONOSUPPORT for what isn't here.
    pub fn socket(&mut self, family: i32, kind: i32, protocol: i32) -> Result<i32, Errno> {
        if family != libc::AF_INET && family != libc::AF_INET6 {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        let bare = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if bare != libc::SOCK_STREAM || !matches!(protocol, 0 | libc::IPPROTO_TCP) {
            return Err(Errno(libc::EPROTONOSUPPORT));
        }
        let socket = self.with(|stack| stack.parts.tcp_socket(family == libc::AF_INET6, 0))?;
        self.files.open(File::new(Kind::Tcp(socket), family, kind & libc::SOCK_NONBLOCK != 0))
    }

    /// bind(2).
    ///
    /// # Errors
    /// Those of the stack.
    pub fn bind(&mut self, fd: i32, (ip, port): End) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        Ok(self.with(|stack| stack.parts.tcp_bind(socket, (&ip, port)))?)
    }

    /// listen(2).
    ///
    /// # Errors
    /// Those of the stack.
    pub fn listen(&mut self, fd: i32, backlog: i32) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        // listen(2): a negative backlog is the largest.
        let backlog = u32::try_from(backlog).unwrap_or(4096).min(4096);
        Ok(self.with(|stack| stack.listen(socket, backlog))?)
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// EINVAL, and those of the stack.
    pub fn shutdown(&mut self, fd: i32, how: i32) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        let how = match how {
            libc::SHUT_RD => How::Read,
            libc::SHUT_WR => How::Write,
            libc::SHUT_RDWR => How::Both,
            _ => return Err(Errno(libc::EINVAL)),
        };
        self.with(|stack| stack.shutdown(socket, how))?;
        self.settle();
        Ok(())
    }

    /// close(2).
    ///
    /// # Errors
    /// EBADF.
    pub fn close(&mut self, fd: i32) -> Result<(), Errno> {
        if let Kind::Tcp(socket) = self.files.take(fd)?.kind {
            self.with(|stack| stack.close(socket))?;
            self.settle();
        }
        Ok(())
    }

    fn connect(&mut self, fd: i32, (ip, port): End, begun: &mut usize) -> Result<Answer, Errno> {
        let socket = self.files.tcp(fd)?;
        let was_connecting = self.files.of(fd)?.is_connecting;
        let state = self.with(|stack| stack.state(socket))?;
        if was_connecting && state != State::SynSent && state != State::SynReceived {
            // The second call tells how the first one ended.
            self.files.of(fd)?.is_connecting = false;
            return match self.with(|stack| stack.take_error(socket))? {
                Some(error) => Err(error.into()),
                None if state == State::Closed => Err(Errno(libc::ECONNABORTED)),
                None => Ok(Answer::Done),
            };
        }
        if was_connecting {
            return Err(Errno(if *begun > 0 { libc::EAGAIN } else { libc::EALREADY }));
        }
        let source = if ip.is_v4() { LOCAL } else { LOCAL_6 };
        let result = self.with(|stack| stack.connect(socket, &source, (&ip, port)));
        match result {
            Err(stack::error::Error::InProgress) => {
                *begun = 1;
                self.files.of(fd)?.is_connecting = true;
                Err(Errno(libc::EAGAIN))
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Answer::Done),
        }
    }

    fn accept(&mut self, fd: i32, is_nonblocking: bool) -> Result<Answer, Errno> {
        let socket = self.files.tcp(fd)?;
        let family = self.files.of(fd)?.family;
        let child = self.with(|stack| stack.accept(socket, 0))?;
        let kind = Kind::Tcp(child);
        // A connection has it from its listener.
        let zerocopy = ZeroCopy::new(self.files.of(fd)?.zerocopy.is_on);
        let new = self.files.open(File { zerocopy, ..File::new(kind, family, is_nonblocking) })?;
        Ok(Answer::Accepted(new, self.ends(new)?.1))
    }

    /// getsockname(2) and getpeername(2) at once.
    ///
    /// # Errors
    /// EBADF.
    pub fn ends(&mut self, fd: i32) -> Result<(End, End), Errno> {
        let socket = self.files.tcp(fd)?;
        self.with(|stack| {
            let tcb = stack.parts.tcbs.get(socket.index as usize).ok_or(Errno(libc::EBADF))?;
            Ok(((tcb.local, tcb.local_port), (tcb.remote, tcb.remote_port)))
        })
    }

    fn poll_events(&mut self, fd: i32) -> i16 {
        match self.files.tcp(fd) {
            Ok(socket) => self.ready(fd, socket),
            Err(_) => libc::POLLNVAL,
        }
    }

    fn poll(&mut self, fds: &[(i32, i16)]) -> Result<Answer, Errno> {
        let told =
            fds.iter().map(|(fd, asked)| self.poll_events(*fd) & (asked | ALWAYS | libc::POLLNVAL)).collect();
        let answer = Answer::Polled(told);
        if answer.number() > 0 { Ok(answer) } else { Err(Errno(libc::EAGAIN)) }
    }

    /// epoll_create(2).
    ///
    /// # Errors
    /// EMFILE.
    pub fn epoll_create(&mut self) -> Result<i32, Errno> {
        let kind = Kind::Epoll(Vec::new());
        self.files.open(File::new(kind, 0, false))
    }

    fn interests(&mut self, epoll: i32) -> Result<&mut Vec<Interest>, Errno> {
        match &mut self.files.of(epoll)?.kind {
            Kind::Epoll(interests) => Ok(interests),
            Kind::Tcp(_) => Err(Errno(libc::EINVAL)),
        }
    }

    /// epoll_ctl(2).
    ///
    /// # Errors
    /// EBADF, EEXIST, ENOENT, EINVAL.
    pub fn epoll_ctl(
        &mut self,
        epoll: i32,
        operation: i32,
        fd: i32,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        self.files.of(fd)?;
        let interests = self.interests(epoll)?;
        let at = interests.iter().position(|interest| interest.fd == fd);
        let fresh = Interest { fd, events, data, seen: (u32::MAX, u32::MAX, u32::MAX), is_spent: false };
        match (operation, at) {
            (libc::EPOLL_CTL_ADD, None) => interests.push(fresh),
            (libc::EPOLL_CTL_ADD, Some(_)) => return Err(Errno(libc::EEXIST)),
            (libc::EPOLL_CTL_MOD, Some(at)) => interests[at] = fresh,
            (libc::EPOLL_CTL_DEL, Some(at)) => {
                interests.remove(at);
            }
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, None) => return Err(Errno(libc::ENOENT)),
            _ => return Err(Errno(libc::EINVAL)),
        }
        Ok(())
    }

    fn epoll_wait(&mut self, epoll: i32, most: usize) -> Result<Answer, Errno> {
        let mut interests = self.interests(epoll)?.clone();
        let mut told = Vec::new();
        for interest in interests.iter_mut().filter(|interest| !interest.is_spent) {
            let socket = self.files.tcp(interest.fd)?;
            let now = self.events(socket);
            let asked = interest.events | ALWAYS as u32;
            let ready = self.ready(interest.fd, socket) as u16 as u32 & asked;
            let is_edge = interest.events & libc::EPOLLET as u32 != 0;
            let edges = (now.arrivals, now.openings, self.files.of(interest.fd)?.zerocopy.edges);
            let is_new = !is_edge || edges != interest.seen;
            if ready == 0 || !is_new || told.len() == most {
                continue;
            }
            interest.seen = edges;
            interest.is_spent = interest.events & libc::EPOLLONESHOT as u32 != 0;
            told.push((ready, interest.data));
        }
        *self.interests(epoll)? = interests;
        if told.is_empty() { Err(Errno(libc::EAGAIN)) } else { Ok(Answer::Ready(told)) }
    }
}
