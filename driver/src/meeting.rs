//! How the two ends of a TCP connection find each other.
//!
//! The acceptor listens on an abstract AF_UNIX seqpacket name made of the tuple ([`Door`]); the connector
//! tries that name now and then, and when somebody listens sends sealed memory through it ([`offer`]). Both
//! ask the kernel who is there: SO_PEERCRED for the process at the other end of the AF_UNIX connection,
//! inet_diag for the owner and the cookie of the TCP socket at the other end of the TCP connection. Nothing
//! is ever written into the TCP stream, so a stranger who squats a name gains nothing and harms nothing.
//!
//! Where both programs want rings from the first byte on, the connector need not wait for the acceptor: before
//! it connects it leaves the memory in the [`Mailbox`] of the listener ([`invite`]), under its socket's cookie.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::channel::{Channel, VERSION};
use crate::diag::{self, Endpoint, Owner};
use crate::sys::{self, Errno, Fd};

mod mailbox;

pub use mailbox::{Address, Mailbox, invite};

/// The identity of a TCP connection as one end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// AF_INET or AF_INET6, of the socket (a v4-mapped connection of an IPv6 socket counts as IPv4 here).
    pub family: u8,
    pub local: Endpoint,
    pub remote: Endpoint,
}

/// Who may be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Programs of our own user in our own PID namespace.
    SameUser,
    /// Programs of any user (both sides must say so).
    Any,
}

/// Why a meeting came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is there yet; try again later.
    NotYet,
    /// The TCP peer is not in this network namespace.
    Elsewhere,
    /// It belongs to another user.
    User,
    /// It is in another PID namespace.
    Container,
    /// The process that answered does not hold the TCP connection, or speaks another version.
    Stranger,
    /// The system refused a call.
    Forbidden(Errno),
}

impl Tuple {
    /// Reads a connected socket's two names.
    ///
    /// # Errors
    /// `ENOTCONN`, or `EAFNOSUPPORT` for anything but IPv4 and IPv6.
    pub fn of_socket(fd: i32) -> sys::Result<Self> {
        let (family, local) = name(fd, false)?;
        let (_, remote) = name(fd, true)?;
        Ok(Self { family, local, remote }.unmapped())
    }

    /// The same connection seen from its other end.
    #[must_use]
    pub const fn mirrored(&self) -> Self {
        Self { family: self.family, local: self.remote, remote: self.local }
    }

    /// IPv4-mapped IPv6 addresses become IPv4, so that both ends use one name.
    fn unmapped(self) -> Self {
        const PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let strip = |end: Endpoint| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&end.address[12..]);
            Endpoint { address, port: end.port }
        };
        let mapped = |end: &Endpoint| end.address[..12] == PREFIX;
        if self.family == libc::AF_INET6 as u8 && mapped(&self.local) && mapped(&self.remote) {
            return Self {
                family: libc::AF_INET as u8,
                local: strip(self.local),
                remote: strip(self.remote),
            };
        }
        self
    }

    /// The abstract name, as a `sockaddr_un`: the same from both ends; `connector` is the end that connected.
    fn door_name(connector: &Endpoint, acceptor: &Endpoint, family: u8) -> [u8; DOOR_BYTES] {
        let mut name = [0; DOOR_BYTES];
        name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        name[3..9].copy_from_slice(b"accel/");
        name[9] = VERSION as u8;
        name[10] = family;
        for (at, end) in [(11, connector), (29, acceptor)] {
            name[at..at + 16].copy_from_slice(&end.address);
            name[at + 16..at + 18].copy_from_slice(&end.port.to_be_bytes());
        }
        name
    }
}

/// `sun_family`, a NUL, `accel/`, version, family, two addresses with ports.
const DOOR_BYTES: usize = 2 + 1 + 6 + 1 + 1 + 2 * 18;

fn name(fd: i32, peer: bool) -> sys::Result<(u8, Endpoint)> {
    let mut buffer = [0u8; 32];
    let length = sys::socket_name(fd, peer, &mut buffer)?;
    parse(&buffer, length)
}

/// Family and endpoint in the first `length` bytes of a `sockaddr`.
fn parse(buffer: &[u8; 32], length: usize) -> sys::Result<(u8, Endpoint)> {
    let family = i32::from(u16::from_ne_bytes([buffer[0], buffer[1]]));
    let port = u16::from_be_bytes([buffer[2], buffer[3]]);
    let mut address = [0; 16];
    match family {
        libc::AF_INET if length >= 8 => address[..4].copy_from_slice(&buffer[4..8]),
        libc::AF_INET6 if length >= 24 => address.copy_from_slice(&buffer[8..24]),
        _ => return Err(Errno(libc::EAFNOSUPPORT)),
    }
    Ok((family as u8, Endpoint { address, port }))
}

/// The acceptor's half: a listening name that waits for the connector.
#[derive(Debug)]
pub struct Door {
    listener: Fd,
    /// Somebody who came but whose letter had not arrived yet.
    visitor: Option<Fd>,
    number_floor: i32,
}

/// What travels with the memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Letter {
    version: u32,
    zero: u32,
    /// SO_COOKIE of the connector's TCP socket.
    cookie: u64,
}

impl Door {
    /// Listens for the connector of this connection; `number_floor` keeps our descriptor out of the way.
    pub fn open(tuple: &Tuple, number_floor: i32) -> sys::Result<Self> {
        let listener = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)?;
        let listener = sys::raise_number(listener, number_floor);
        sys::bind(&listener, &Tuple::door_name(&tuple.remote, &tuple.local, tuple.family))?;
        sys::listen(&listener, 1)?;
        Ok(Self { listener, visitor: None, number_floor })
    }

    /// The number of the descriptor that waits.
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.listener.raw()
    }

    /// Gives the descriptor up without closing it: its number is about to become somebody else's.
    pub fn lose(self) {
        let _ = self.listener.into_raw();
    }

    /// Looks whether the connector came, without blocking; on success its memory, mapped and accepted. `known`: who
    /// owns the connector's TCP socket, if that was asked before.
    pub fn answer(&mut self, tuple: &Tuple, known: Option<&Owner>, peers: Peers) -> Result<Channel, Refusal> {
        if self.visitor.is_none() {
            self.visitor = Some(match sys::accept(&self.listener) {
                // Out of the program's way at once: it counts on the lowest free number.
                Ok(visitor) => sys::raise_number(visitor, self.number_floor),
                Err(Errno(libc::EAGAIN)) => return Err(Refusal::NotYet),
                Err(error) => return Err(Refusal::Forbidden(error)),
            });
        }
        let Some(visitor) = &self.visitor else { return Err(Refusal::NotYet) };
        let (letter, memory) = receive(visitor)?;
        let owner = check_peer(visitor, tuple, known, peers)?;
        self.visitor = None;
        if letter.version != VERSION || letter.cookie != owner.cookie {
            return Err(Refusal::Stranger);
        }
        let channel = Channel::attach(&memory).map_err(|_| Refusal::Stranger)?;
        if !channel.accept() {
            // SAFETY: the handle has not been given to anybody.
            unsafe { channel.unmap() };
            return Err(Refusal::NotYet);
        }
        Ok(channel)
    }
}

/// The connector's half: if the acceptor listens, checks who it is and sends it new memory. `known`: who owns its TCP
/// socket, if that was asked before.
pub fn offer(
    fd: i32,
    tuple: &Tuple,
    known: Option<&Owner>,
    peers: Peers,
    ring_bytes: usize,
) -> Result<Channel, Refusal> {
    let visit = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)
        .map_err(Refusal::Forbidden)?;
    match sys::connect(&visit, &Tuple::door_name(&tuple.local, &tuple.remote, tuple.family)) {
        Ok(()) => {}
        Err(Errno(libc::ECONNREFUSED | libc::EAGAIN | libc::EINTR)) => return Err(Refusal::NotYet),
        Err(error) => return Err(Refusal::Forbidden(error)),
    }
    check_peer(&visit, tuple, known, peers)?;
    hand_over(fd, &visit, ring_bytes)
}

/// Sends new memory, and the cookie of our TCP socket, to whom we visit.
fn hand_over(fd: i32, visit: &Fd, ring_bytes: usize) -> Result<Channel, Refusal> {
    let mut cookie = 0u64;
    sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie).map_err(Refusal::Forbidden)?;
    let (channel, memory) = Channel::create(ring_bytes).map_err(Refusal::Forbidden)?;
    let letter = Letter { version: VERSION, zero: 0, cookie };
    if let Err(error) = send(visit, &letter, &memory) {
        // SAFETY: the handle has not been given to anybody.
        unsafe { channel.unmap() };
        return Err(Refusal::Forbidden(error));
    }
    Ok(channel)
}

/// Checks the process at the other end of the AF_UNIX connection against the TCP socket at the other end of
/// the TCP connection, and both against the policy.
fn check_peer(visit: &Fd, tuple: &Tuple, known: Option<&Owner>, peers: Peers) -> Result<Owner, Refusal> {
    let peer = credentials(visit)?;
    // While we hold our end, the other end stays the socket that it is. Who accepts it may become its owner only then.
    let owner = match known.filter(|owner| owner.uid == peer.uid) {
        Some(owner) => *owner,
        None => find(&tuple.mirrored()).map_err(|error| match error {
            Errno(libc::ENOENT) => Refusal::Elsewhere,
            error => Refusal::Forbidden(error),
        })?,
    };
    if peer.uid != owner.uid {
        return Err(Refusal::Stranger);
    }
    if peers == Peers::SameUser {
        check_policy(&peer)?;
    }
    Ok(owner)
}

/// Who is at the other end of an AF_UNIX connection.
fn credentials(visit: &Fd) -> Result<libc::ucred, Refusal> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    sys::getsockopt(visit.raw(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut peer)
        .map_err(Refusal::Forbidden)?;
    Ok(peer)
}

/// Whether it is a program of our own user in our own PID namespace.
fn check_policy(peer: &libc::ucred) -> Result<(), Refusal> {
    if peer.uid != sys::geteuid() || is_anybody(peer.uid) {
        return Err(Refusal::User);
    }
    if peer.pid <= 0 || is_in_inner_namespace(peer.pid) {
        return Err(Refusal::Container);
    }
    Ok(())
}

/// Finds the socket of `end`; an IPv4 connection may be held by an IPv6 socket.
fn find(end: &Tuple) -> sys::Result<Owner> {
    diag::owner_of(end.family, &end.local, &end.remote)
}

/// Whether the uid may be anybody's: from inside a user namespace every user that it does not map looks like the
/// overflow user. Where all are mapped, that is a user like others (Debian's `nobody`).
fn is_anybody(uid: u32) -> bool {
    uid == overflow_uid() && !maps_everybody()
}

/// Whether this user namespace maps every user: one extent of `/proc/self/uid_map` with all ids but the last.
fn maps_everybody() -> bool {
    let mut text = [0u8; 64];
    let extent = read_file(c"/proc/self/uid_map", &mut text);
    let count = extent.and_then(|text| text.lines().next()?.split_whitespace().nth(2)?.parse().ok());
    count == Some(u32::MAX)
}

/// `/proc/sys/kernel/overflowuid`: the uid shown for users that a user namespace does not map. Read once: it is one for
/// the whole system, and is set when that starts.
fn overflow_uid() -> u32 {
    static KNOWN: AtomicU32 = AtomicU32::new(NOBODY_YET);
    const NOBODY_YET: u32 = u32::MAX;
    let known = KNOWN.load(Relaxed);
    if known != NOBODY_YET {
        return known;
    }
    let mut text = [0u8; 16];
    let read =
        read_file(c"/proc/sys/kernel/overflowuid", &mut text).and_then(|text| text.trim().parse().ok());
    KNOWN.store(read.unwrap_or(NOBODY_YET), Relaxed);
    read.unwrap_or(65534)
}

/// Whether a process lives in a PID namespace below ours.
fn is_in_inner_namespace(pid: i32) -> bool {
    let mut path = [0u8; 32];
    let Some(link) = proc_path(pid, "ns/pid", &mut path) else { return true };
    let same =
        sys::stat(link).and_then(|theirs| Ok(theirs.st_ino == sys::stat(c"/proc/self/ns/pid")?.st_ino));
    same.map_or_else(|_| has_inner_id(pid), |same| !same)
}

/// The same from its status, which is readable where its links are not: that then lists more than one id.
fn has_inner_id(pid: i32) -> bool {
    let mut path = [0u8; 32];
    let mut text = [0u8; 2048];
    let Some(path) = proc_path(pid, "status", &mut path) else { return true };
    let Some(status) = read_file(path, &mut text) else { return false };
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ids.is_some_and(|ids| ids.split_whitespace().count() > 1)
}

fn proc_path<'a>(pid: i32, name: &str, buffer: &'a mut [u8; 32]) -> Option<&'a core::ffi::CStr> {
    use std::io::Write;
    let mut rest = &mut buffer[..];
    write!(rest, "/proc/{pid}/{name}\0").ok()?;
    core::ffi::CStr::from_bytes_until_nul(buffer).ok()
}

fn read_file<'a>(path: &core::ffi::CStr, buffer: &'a mut [u8]) -> Option<&'a str> {
    let file = sys::open(path, libc::O_RDONLY, 0).ok()?;
    // SAFETY: the buffer is writable for its length.
    let count = unsafe { sys::read(file.raw(), buffer.as_mut_ptr().cast(), buffer.len()).ok()? };
    let text = &buffer[..count];
    core::str::from_utf8(text).or_else(|error| core::str::from_utf8(&text[..error.valid_up_to()])).ok()
}

/// Room for one descriptor in a control message, aligned as `cmsghdr` asks.
#[repr(C, align(8))]
struct Control {
    header: libc::cmsghdr,
    fd: i32,
    pad: i32,
}

fn send(visit: &Fd, letter: &Letter, memory: &Fd) -> sys::Result<()> {
    let length = size_of::<libc::cmsghdr>() + size_of::<i32>();
    let header =
        libc::cmsghdr { cmsg_len: length as _, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let mut control = Control { header, fd: memory.raw(), pad: 0 };
    let mut vector =
        libc::iovec { iov_base: (&raw const *letter).cast_mut().cast(), iov_len: size_of::<Letter>() };
    let message = message(&mut vector, &mut control);
    // SAFETY: the message points to the locals above.
    unsafe { sys::sendmsg(visit.raw(), &raw const message, libc::MSG_NOSIGNAL) }.map(drop)
}

fn receive(visitor: &Fd) -> Result<(Letter, Fd), Refusal> {
    let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
    let mut control = Control { header, fd: -1, pad: -1 };
    let mut letter = Letter { version: 0, zero: 0, cookie: 0 };
    let mut vector = libc::iovec { iov_base: (&raw mut letter).cast(), iov_len: size_of::<Letter>() };
    let mut message = message(&mut vector, &mut control);
    // SAFETY: the message points to the locals above.
    let count = unsafe { sys::recvmsg(visitor.raw(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let expected = size_of::<libc::cmsghdr>() + size_of::<i32>();
    let carries = message.msg_controllen as usize >= expected && control.header.cmsg_type == libc::SCM_RIGHTS;
    if !carries {
        return Err(if count == Err(Errno(libc::EAGAIN)) { Refusal::NotYet } else { Refusal::Stranger });
    }
    let memory = Fd::own(control.fd);
    // A second descriptor would fit into the padding: it is not ours to keep.
    if control.header.cmsg_len > expected {
        drop(Fd::own(control.pad));
        return Err(Refusal::Stranger);
    }
    if count != Ok(size_of::<Letter>()) {
        return Err(Refusal::Stranger);
    }
    Ok((letter, memory))
}

fn message(vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = core::ptr::from_mut(control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn both_ends_meet_and_share_memory() {
        let (client, server) = pair();
        let (near, far) = (client.as_raw_fd(), server.as_raw_fd());
        let (near_tuple, far_tuple) = (Tuple::of_socket(near).unwrap(), Tuple::of_socket(far).unwrap());
        assert_eq!(near_tuple, far_tuple.mirrored());
        assert_eq!(offer(near, &near_tuple, None, Peers::SameUser, 65536).unwrap_err(), Refusal::NotYet);
        let mut door = Door::open(&far_tuple, 100).unwrap();
        assert_eq!(door.answer(&far_tuple, None, Peers::SameUser).unwrap_err(), Refusal::NotYet);
        let ours = offer(near, &near_tuple, None, Peers::SameUser, 65536).unwrap();
        let theirs = door.answer(&far_tuple, None, Peers::SameUser).unwrap();
        assert_eq!((ours.capacity(), theirs.capacity()), (65536, 65536));
        ours.commit();
        assert!(theirs.peer_committed() && !ours.peer_committed());
        assert!(!ours.withdraw(), "an accepted offer stands");
        // SAFETY: the handles are not used again.
        unsafe {
            ours.unmap();
            theirs.unmap();
        }
    }

    #[test]
    fn a_visitor_who_does_not_hold_the_connection_is_a_stranger() {
        let (_client, server) = pair();
        let (other, _other_server) = pair();
        let tuple = Tuple::of_socket(server.as_raw_fd()).unwrap();
        let mut door = Door::open(&tuple, 100).unwrap();
        // It knows the name, but its cookie is that of another socket.
        let offered = offer(other.as_raw_fd(), &tuple.mirrored(), None, Peers::SameUser, 65536).unwrap();
        assert_eq!(door.answer(&tuple, None, Peers::SameUser).unwrap_err(), Refusal::Stranger);
        // SAFETY: the handle is not used again.
        unsafe { offered.unmap() };
    }

    #[test]
    fn memory_without_seals_is_refused() {
        let file = sys::memfd_create(c"plain", libc::MFD_ALLOW_SEALING).unwrap();
        sys::ftruncate(&file, Channel::mapped_bytes(65536)).unwrap();
        assert_eq!(Channel::attach(&file).unwrap_err(), Errno(libc::EPROTO));
    }
}
