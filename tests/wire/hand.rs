//! A peer that a test drives by hand, and what it meets: our stack in virtual time ([`Ours`]), or the kernel's over a TUN
//! ([`Kernel`]). Both are 10.0.0.1 port 80 and the hand is 10.0.0.2 port 5000, so that the same segments and calls can be given to
//! either and what they answer is compared, as lines in which numbers are relative.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use stack::device::{Device, Link};
use stack::error::{ERRORS, Error};
use stack::events::WRITABLE;
use stack::region::slab::Handle;
use stack::seq::Seq;
use stack::tcp::calls::How;
use stack::tcp::state::State;
use stack::time::{Duration, Instant};
use stack::wire::ethernet;
use stack::wire::ip::Ip;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::{Block, Options, Timestamps};

use super::diag::Diag;
use super::namespace::Namespace;
use super::tun::{Interface, Tun};
use super::{clock, sys};
use crate::sim::forge::Forged;
use crate::sim::hand::Bench;
use crate::sim::raw::ip;
use crate::sim::tcp::{PORT, TcpHost, limits, text};

/// The hand's port.
pub const HAND: u16 = 5000;

/// Our wire's, each way: no timer is to fire between a hundred segments.
const DELAY: Duration = Duration(100);

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// socket(2) and bind(2).
    Socket,
    /// listen(2), of a new socket if there is none.
    Listen,
    /// accept(2).
    Accept,
    /// connect(2) to the hand, of a new socket if there is none.
    Connect,
    /// send(2) of so many bytes.
    Send(usize),
    /// recv(2) of up to so many bytes.
    Receive(usize),
    /// shutdown(2) of one direction, or of both.
    Shut(Shutdown),
    /// close(2).
    Close,
    /// close(2) with a linger of no time.
    Abort,
    /// SO_ERROR.
    Error,
    /// epoll_wait(2) with EPOLLET: 1 if there was an edge of room to write since it was asked last.
    Opening,
}

/// What a call returns.
pub type Outcome = Result<usize, i32>;

/// Who answers the hand.
pub trait Subject {
    /// Its name.
    fn name(&self) -> &'static str;
    /// A segment arrives; what is answered at once.
    fn hears(&mut self, segment: &Forged) -> Vec<Forged>;
    /// Its program does something, by the socket that was accepted if there is one; what is sent at once.
    fn does(&mut self, call: Call) -> (Outcome, Vec<Forged>);
    /// The state of its connection with the hand; of its listener as long as nothing was accepted.
    fn state(&mut self) -> State;
    /// Time passes; what is sent meanwhile.
    fn waits(&mut self, length: Duration) -> Vec<Forged>;
    /// The administrator sets one of net.ipv4.
    fn sets(&mut self, name: &str, value: u32);
    /// Bytes of memory that are charged to its connection for what it has received and not read.
    fn holds(&mut self) -> usize;
}

/// The name of an errno.
#[must_use]
pub fn errno(number: i32) -> String {
    let row = ERRORS.iter().find(|row| row.0.number() == number);
    row.map_or_else(|| format!("errno {number}"), |row| row.1.to_owned())
}

/// Our stack.
pub struct Ours {
    /// Its network.
    pub bench: Bench,
    listener: Option<Handle>,
    socket: Option<Handle>,
    /// It had a connection.
    had: bool,
    sent: usize,
    /// Edges of room that it was told of.
    openings: Option<u32>,
}

impl Ours {
    /// A host without sockets.
    #[must_use]
    pub fn new() -> Self {
        let host = TcpHost::new(1, &limits(1024)).knowing(&[2]);
        Self {
            bench: Bench::over(1, host, DELAY),
            listener: None,
            socket: None,
            had: false,
            sent: 0,
            openings: None,
        }
    }

    /// The socket that calls are for.
    #[must_use]
    pub fn socket(&self) -> Option<Handle> {
        self.socket.or(self.listener)
    }

    fn bound(&mut self) -> Handle {
        self.bench.with(|stack| {
            let socket = stack.parts.tcp_socket(false, 0).expect("room");
            stack.parts.tcp_bind(socket, (&ip(1), PORT)).expect("a free port");
            socket
        })
    }

    fn act(&mut self, call: Call) -> Result<usize, Error> {
        match call {
            Call::Socket => {
                self.socket = Some(self.bound());
                Ok(0)
            }
            Call::Listen => {
                let socket = match self.socket() {
                    Some(socket) => socket,
                    None => self.bound(),
                };
                self.bench.with(|stack| stack.listen(socket, 8))?;
                (self.listener, self.socket) = (Some(socket), None);
                Ok(0)
            }
            Call::Opening => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                let events = self.bench.with(|stack| stack.events(socket));
                let is_new = self.openings.replace(events.openings) != Some(events.openings);
                Ok((is_new && events.ready & WRITABLE != 0).into())
            }
            Call::Error => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                let error = self.bench.with(|stack| stack.take_error(socket))?;
                Ok(error.map_or(0, |error| error.number() as usize))
            }
            Call::Accept => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                let accepted = self.bench.with(|stack| stack.accept(socket, 0))?;
                (self.socket, self.had) = (Some(accepted), true);
                Ok(0)
            }
            Call::Connect => {
                let socket = match self.socket() {
                    Some(socket) => socket,
                    None => self.bound(),
                };
                if self.listener.is_none() {
                    self.socket = Some(socket);
                }
                self.bench.with(|stack| stack.connect(socket, &ip(1), (&ip(2), HAND))).map(|()| 0)
            }
            Call::Send(len) => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                let bytes = text(7, self.sent + len);
                let sent = self.bench.with(|stack| stack.send(socket, &[&bytes[self.sent..]], false))?;
                self.sent += sent;
                Ok(sent)
            }
            Call::Receive(len) => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                self.bench.with(|stack| stack.receive(socket, &mut [&mut vec![0; len]]))
            }
            Call::Shut(how) => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                let how = match how {
                    Shutdown::Read => How::Read,
                    Shutdown::Write => How::Write,
                    Shutdown::Both => How::Both,
                };
                self.bench.with(|stack| stack.shutdown(socket, how)).map(|()| 0)
            }
            Call::Close | Call::Abort => {
                let socket = self.socket().ok_or(Error::BadHandle)?;
                if call == Call::Abort {
                    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
                    let set = |stack: &mut stack::stack::Stack<'_, '_, _>| {
                        stack.set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
                    };
                    self.bench.with(set)?;
                }
                let done = self.bench.with(|stack| stack.close(socket));
                if self.socket.take().is_none() {
                    self.listener = None;
                }
                done.map(|()| 0)
            }
        }
    }
}

impl Default for Ours {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "accel"
    }

    fn hears(&mut self, segment: &Forged) -> Vec<Forged> {
        self.bench.give(segment)
    }

    fn does(&mut self, call: Call) -> (Outcome, Vec<Forged>) {
        let done = self.act(call).map_err(Error::number);
        (done, self.bench.wait(self.bench.at_once))
    }

    fn state(&mut self) -> State {
        let parts = self.bench.host().parts();
        let is_it = |remote: &Ip, port: u16| *remote == ip(2) && port == HAND;
        if parts.syns.iter().any(|syn| syn.tag.is_used() && is_it(&syn.remote, syn.remote_port)) {
            return State::SynReceived;
        }
        let mut used = parts.tcbs.iter().filter(|tcb| tcb.tag.is_used());
        match used.clone().find(|tcb| is_it(&tcb.remote, tcb.remote_port)) {
            Some(tcb) => tcb.state(),
            None if !self.had && used.any(|tcb| tcb.state() == State::Listen) => State::Listen,
            None => State::Closed,
        }
    }

    fn waits(&mut self, length: Duration) -> Vec<Forged> {
        self.bench.wait(length)
    }

    fn sets(&mut self, name: &str, value: u32) {
        assert!(self.bench.host().parts().host.set(name, value), "{name} = {value}");
    }

    fn holds(&mut self) -> usize {
        let socket = self.socket().expect("a connection");
        self.bench.with(|stack| {
            let frames = stack.parts.tcb(socket).expect("a connection").receive_charge.frames;
            frames as usize * usize::from(stack.device.capabilities().frame_size)
        })
    }
}

/// The kernel's stack.
pub struct Kernel {
    /// Its namespace.
    pub namespace: Namespace,
    tun: Tun,
    diag: Diag,
    listener: Option<OwnedFd>,
    socket: Option<OwnedFd>,
    /// It had a connection.
    had: bool,
    sent: usize,
    edges: Option<OwnedFd>,
    /// When the last step ended, and how long all of them took beyond what was waited for.
    ended: Instant,
    took: Duration,
}

/// The shortest of the kernel's timers in a conversation by hand is the one that delays acknowledgments, of 40 ms (TCP_ATO_MIN); one of
/// its ticks is left.
const TIMER_MIN: Duration = Duration::from_millis(30);
/// Conversations that are held until one is as short.
const CONVERSATIONS: usize = 50;

/// What the kernel says in a conversation that took less than any of the kernel's timers, beyond what was waited for: in another one, when
/// the machine was away, a timer may have said something, too. Whether it is held again depends on the time alone, which the program
/// measures, and not on what was said. `None`, and a line that is counted, without the rights of root.
///
/// # Panics
/// If there is no such conversation among so many.
pub fn ask_kernel<R>(talk: impl Fn(&mut Kernel) -> R) -> Option<R> {
    ask_within(TIMER_MIN, talk)
}

/// The same of a long conversation, in which it makes no difference whether timers have said something, too.
pub fn ask_kernel_at_leisure<R>(talk: impl Fn(&mut Kernel) -> R) -> Option<R> {
    ask_within(Duration(u64::MAX), talk)
}

fn ask_within<R>(most: Duration, talk: impl Fn(&mut Kernel) -> R) -> Option<R> {
    for _ in 0..CONVERSATIONS {
        let mut kernel = match Kernel::new() {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("SKIP the kernel's answers: a network namespace: {error}");
                return None;
            }
        };
        let said = talk(&mut kernel);
        if kernel.took < most {
            return Some(said);
        }
    }
    panic!("{CONVERSATIONS} conversations, and each took {most:?} and more");
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl Kernel {
    /// A namespace of its own.
    ///
    /// # Errors
    /// EPERM without the rights of root.
    pub fn new() -> io::Result<Self> {
        let namespace = Namespace::new()?;
        let tun = Tun::new(&namespace, Interface { number: 1, link: Link::Ip, mtu: 1500 });
        let diag = namespace.inside(Diag::new)?;
        let (ended, took) = (clock(), Duration(0));
        Ok(Self {
            namespace,
            tun,
            diag,
            listener: None,
            socket: None,
            had: false,
            sent: 0,
            edges: None,
            ended,
            took,
        })
    }

    /// The segments that it has sent.
    pub fn heard(&mut self) -> Vec<Forged> {
        let mut heard = Vec::new();
        while let Some(packet) = self.tun.read() {
            // Its own business with routers is IPv6's and IGMP's.
            if packet.first() == Some(&0x45) && packet.get(9) == Some(&6) {
                let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0], packet].concat();
                heard.extend(Forged::parse(&frame));
            }
        }
        heard
    }

    /// One step of the conversation, in which time was meant to pass.
    fn step<R>(&mut self, passes: Duration, act: impl FnOnce(&mut Self) -> R) -> R {
        let done = act(self);
        let before = std::mem::replace(&mut self.ended, clock());
        self.took.0 += (self.ended - before).0.saturating_sub(passes.0);
        done
    }

    fn bound(&self) -> io::Result<OwnedFd> {
        self.namespace.inside(|| {
            let socket = unblocked(sys::stream_socket(false)?)?;
            let name = libc::TCP_CONGESTION;
            sys::set_option_bytes(socket.as_fd(), libc::IPPROTO_TCP, name, b"cubic")?;
            sys::bind(socket.as_fd(), SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), PORT))?;
            Ok(socket)
        })
    }

    fn act(&mut self, call: Call) -> io::Result<usize> {
        if self.socket.is_none()
            && self.listener.is_none()
            && matches!(call, Call::Socket | Call::Listen | Call::Connect)
        {
            self.socket = Some(self.bound()?);
        }
        let socket = self.socket.as_ref().or(self.listener.as_ref());
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?.as_fd();
        match call {
            Call::Socket => {}
            Call::Listen => {
                sys::listen(socket, 8)?;
                self.listener = self.socket.take().or(self.listener.take());
            }
            Call::Accept => {
                let accepted = unblocked(sys::accept(socket)?)?;
                (self.socket, self.had) = (Some(accepted), true);
            }
            Call::Connect => sys::connect(socket, SocketAddr::new(Ipv4Addr::new(10, 0, 0, 2).into(), HAND))?,
            Call::Send(len) => {
                let sent = sys::send(socket, &text(7, self.sent + len)[self.sent..], libc::MSG_NOSIGNAL)?;
                self.sent += sent;
                return Ok(sent);
            }
            Call::Receive(len) => return sys::receive(socket, &mut vec![0; len], 0),
            Call::Shut(how) => TcpStream::from(socket.try_clone_to_owned()?).shutdown(how)?,
            Call::Opening => {
                let edges = match self.edges.take() {
                    Some(edges) => edges,
                    None => sys::edges_of_room(socket)?,
                };
                let is_one = sys::take_edge(edges.as_fd());
                self.edges = Some(edges);
                return is_one.map(usize::from);
            }
            Call::Error => {
                let mut error = [0; 4];
                sys::option_bytes(socket, libc::SOL_SOCKET, libc::SO_ERROR, &mut error)?;
                return Ok(i32::from_ne_bytes(error) as usize);
            }
            Call::Close | Call::Abort => {
                if call == Call::Abort {
                    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
                    sys::set_option_bytes(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
                }
                if self.socket.take().is_none() {
                    self.listener = None;
                }
            }
        }
        Ok(0)
    }
}

/// A socket whose calls don't wait.
fn unblocked(socket: OwnedFd) -> io::Result<OwnedFd> {
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

impl Subject for Kernel {
    fn name(&self) -> &'static str {
        "Linux"
    }

    fn hears(&mut self, segment: &Forged) -> Vec<Forged> {
        self.step(Duration(0), |kernel| {
            kernel.tun.write(&segment.bytes()[ethernet::HEADER_LEN..]);
            kernel.heard()
        })
    }

    fn does(&mut self, call: Call) -> (Outcome, Vec<Forged>) {
        self.step(Duration(0), |kernel| {
            let done = kernel.act(call).map_err(|error| number(&error));
            (done, kernel.heard())
        })
    }

    fn state(&mut self) -> State {
        let (ours, hand) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let ends = (SocketAddrV4::new(ours, PORT), SocketAddrV4::new(hand, HAND));
        let state = self.step(Duration(0), |kernel| kernel.diag.state(ends.0, ends.1)).expect("inet_diag");
        // Who had a connection asks about that one, and not about its listener.
        if self.had && state == State::Listen { State::Closed } else { state }
    }

    fn waits(&mut self, length: Duration) -> Vec<Forged> {
        self.step(length, |kernel| {
            let (until, mut heard) = (clock() + length, Vec::new());
            while clock() < until {
                let _ = sys::wait(&[kernel.tun.as_fd()], until - clock());
                heard.extend(kernel.heard());
            }
            heard
        })
    }

    fn sets(&mut self, name: &str, value: u32) {
        self.namespace.set(&format!("net/ipv4/{name}"), &value.to_string());
    }

    fn holds(&mut self) -> usize {
        // linux/sock_diag.h: the first word of SO_MEMINFO is SK_MEMINFO_RMEM_ALLOC.
        let (socket, mut words) = (self.socket.as_ref().expect("a connection"), [0; 36]);
        sys::option_bytes(socket.as_fd(), libc::SOL_SOCKET, SO_MEMINFO, &mut words).expect("SO_MEMINFO");
        u32::from_ne_bytes([words[0], words[1], words[2], words[3]]) as usize
    }
}

/// asm-generic/socket.h.
const SO_MEMINFO: i32 = 55;

/// A conversation by hand: what was said, as lines, and the numbers that both sides have come to.
pub struct Hand<'a> {
    /// Who answers.
    pub subject: &'a mut dyn Subject,
    /// The hand's own next sequence number, relative to its SYN's.
    pub seq: u32,
    /// What it has received, relative to the subject's SYN.
    pub ack: u32,
    /// The window that it offers, not scaled.
    pub window: u16,
    /// TSval of what it sends, if it sends timestamps.
    pub tsval: Option<u32>,
    /// Options of its SYN.
    pub syn: Options,
    /// Milliseconds that its handshake takes, from which the subject learns what a round trip is: a tail loss probe waits for two.
    pub rtt_ms: u64,
    /// TSval of what was heard last.
    tsecr: u32,
    /// The subject's initial sequence number, once it is known.
    iss: Option<u32>,
    /// All lines.
    pub lines: Vec<String>,
}

/// The hand's own initial sequence number.
pub const ISS: u32 = 0xffff_f000;

impl<'a> Hand<'a> {
    /// Nothing was said yet.
    pub fn new(subject: &'a mut dyn Subject) -> Self {
        Self {
            subject,
            seq: 0,
            ack: 0,
            window: 20_000,
            tsval: None,
            syn: crate::sim::hand::syn(),
            rtt_ms: 0,
            tsecr: 0,
            iss: None,
            lines: Vec::new(),
        }
    }

    /// A segment of the hand's with these relative numbers.
    #[must_use]
    pub fn segment(&self, flags: Flags, seq: u32, ack: u32, text: &[u8]) -> Forged {
        let acks = flags.has(Flags::ACK);
        let options = if flags.has(Flags::SYN) { self.syn } else { Options::default() };
        let timestamps =
            self.tsval.map(|tsval| Timestamps { tsval, tsecr: if acks { self.tsecr } else { 0 } });
        Forged {
            link: (2, 1),
            ends: ((ip(2), HAND), (ip(1), PORT)),
            seq: ISS.wrapping_add(seq),
            ack: if acks { self.iss.unwrap_or(0).wrapping_add(ack) } else { 0 },
            flags,
            window: self.window,
            urgent: 0,
            options: Options { timestamps, ..options },
            text: text.to_vec(),
        }
    }

    /// Sends it; what is answered at once.
    pub fn gives(&mut self, segment: &Forged) -> Vec<Forged> {
        let line = self.line(segment, true);
        self.lines.push(format!("< {line}"));
        let heard = self.subject.hears(segment);
        self.note(&heard);
        heard
    }

    /// The segment that would come next.
    pub fn says(&mut self, flags: Flags, text: &[u8]) -> Vec<Forged> {
        let segment = self.segment(flags, self.seq, self.ack, text);
        self.seq += text.len() as u32 + u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN));
        self.gives(&segment)
    }

    /// A call of the subject's program.
    pub fn call(&mut self, call: Call) -> Outcome {
        let (done, heard) = self.subject.does(call);
        let shown = done.map_or_else(errno, |value| value.to_string());
        self.lines.push(format!("  {call:?} = {shown}"));
        self.note(&heard);
        done
    }

    /// The state that it is in.
    pub fn state(&mut self) -> State {
        let state = self.subject.state();
        self.lines.push(format!("  {state}"));
        state
    }

    /// Time passes.
    pub fn wait(&mut self, ms: u64) -> Vec<Forged> {
        let heard = self.subject.waits(Duration::from_millis(ms));
        self.note(&heard);
        heard
    }

    /// The handshake of a connection to the subject's listener, which accepts it.
    pub fn opens(&mut self) {
        let _ = self.call(Call::Listen);
        self.says(Flags::SYN, &[]);
        if self.rtt_ms > 0 {
            self.wait(self.rtt_ms);
        }
        self.says(Flags::ACK, &[]);
        let _ = self.call(Call::Accept);
    }

    /// An acknowledgment of all that came.
    pub fn acks(&mut self) -> Vec<Forged> {
        self.says(Flags::ACK, &[])
    }

    /// An acknowledgment with these blocks of SACK.
    pub fn sacks(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<Forged> {
        let mut segment = self.segment(Flags::ACK, self.seq, ack, &[]);
        let edge = |at: u32| Seq(self.iss.unwrap_or(0).wrapping_add(at));
        for (left, right) in blocks {
            segment.options.sack.push(Block { left: edge(*left), right: edge(*right) });
        }
        self.gives(&segment)
    }

    fn note(&mut self, heard: &[Forged]) {
        for segment in heard {
            if let Some(stamps) = segment.options.timestamps {
                self.tsecr = stamps.tsval;
            }
            if segment.flags.has(Flags::SYN) && self.iss.is_none() {
                self.iss = Some(segment.seq);
            }
            let line = self.line(segment, false);
            self.lines.push(format!("> {line}"));
            let end = self.relative(segment.seq) + segment.text.len() as u32;
            let end =
                end + u32::from(segment.flags.has(Flags::SYN)) + u32::from(segment.flags.has(Flags::FIN));
            if self.relative(segment.seq) == self.ack {
                self.ack = end;
            }
        }
    }

    /// The relative sequence number of what was heard.
    #[must_use]
    pub fn seq_of(&self, segment: &Forged) -> u32 {
        self.relative(segment.seq)
    }

    fn relative(&self, seq: u32) -> u32 {
        seq.wrapping_sub(self.iss.unwrap_or(0))
    }

    /// A segment as packetdrill writes it, without what is a stack's own: timestamps, PSH, and windows that are open.
    #[must_use]
    pub fn line(&self, segment: &Forged, is_mine: bool) -> String {
        let (from, to) = if is_mine { (ISS, self.iss.unwrap_or(0)) } else { (self.iss.unwrap_or(0), ISS) };
        let letters = [(Flags::SYN, 'S'), (Flags::FIN, 'F'), (Flags::RST, 'R'), (Flags::ACK, '.')];
        let flags: String = letters.iter().filter(|row| segment.flags.has(row.0)).map(|row| row.1).collect();
        let flags = if flags.is_empty() { "none".to_owned() } else { flags };
        let (seq, len) = (segment.seq.wrapping_sub(from), segment.text.len());
        let mut line = format!("{flags} {}:{}({len})", seq as i32, seq.wrapping_add(len as u32) as i32);
        if segment.flags.has(Flags::ACK) {
            line += &format!(" ack {}", segment.ack.wrapping_sub(to) as i32);
        }
        if segment.window == 0 && !segment.flags.has(Flags::RST) {
            line += " win 0";
        }
        for (at, block) in segment.options.sack.as_slice().iter().enumerate() {
            let [left, right] = [block.left.0, block.right.0].map(|edge| edge.wrapping_sub(to) as i32);
            line += &format!("{}{left}:{right}", if at == 0 { " sack " } else { " " });
        }
        line
    }
}
