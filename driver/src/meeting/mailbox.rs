//! The early meeting: memory that a connector leaves for a listener before it connects.
//!
//! The mailbox is a listening abstract AF_UNIX name made of the listener's address. A connector that finds one sends
//! memory and the cookie of its TCP socket there, and then connects; whoever accepts the connection asks inet_diag
//! for the cookie at its other end, and takes the memory that was sent under it.

use super::{Refusal, Tuple, check_policy, credentials, find, hand_over, name, parse, receive};
use crate::channel::{Channel, VERSION};
use crate::diag::Endpoint;
use crate::sys::{self, Fd};

/// One end of a connection, with the family that both ends use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    end: Endpoint,
}

impl Address {
    /// Reads the first `length` bytes of a `sockaddr`.
    ///
    /// # Errors
    /// `EAFNOSUPPORT` for anything but IPv4 and IPv6.
    pub fn parse(buffer: &[u8; 32], length: usize) -> sys::Result<Self> {
        parse(buffer, length).map(|(family, end)| Self { family, end }.unmapped())
    }

    /// Where a socket is bound.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of_socket(fd: i32) -> sys::Result<Self> {
        name(fd, false).map(|(family, end)| Self { family, end }.unmapped())
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.end.port
    }

    fn unmapped(self) -> Self {
        let Self { family, end } = self;
        let tuple = Tuple { family, local: end, remote: end }.unmapped();
        Self { family: tuple.family, end: tuple.local }
    }

    /// This address, and the wildcards whose listeners take what is sent to it.
    fn listeners(self) -> impl Iterator<Item = Self> {
        let any = |family: i32| Self {
            family: family as u8,
            end: Endpoint { address: [0; 16], port: self.end.port },
        };
        let (inet, inet6) = (any(libc::AF_INET), any(libc::AF_INET6));
        let inet = (i32::from(self.family) == libc::AF_INET).then_some(inet);
        core::iter::once(self).chain(inet.filter(|any| *any != self)).chain((inet6 != self).then_some(inet6))
    }

    fn mailbox_name(&self) -> [u8; MAILBOX_BYTES] {
        let mut name = [0; MAILBOX_BYTES];
        name[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        name[3..9].copy_from_slice(b"accel@");
        name[9] = VERSION as u8;
        name[10] = self.family;
        name[11..27].copy_from_slice(&self.end.address);
        name[27..29].copy_from_slice(&self.end.port.to_be_bytes());
        name
    }
}

/// `sun_family`, a NUL, `accel@`, version, family, address with port.
const MAILBOX_BYTES: usize = 2 + 1 + 6 + 1 + 1 + 18;

/// What connectors left for a listener before they connected, each under the cookie of its TCP socket.
#[derive(Debug)]
pub struct Mailbox {
    listener: Fd,
    /// Letters of connections that have not been asked for yet, oldest first.
    waiting: Vec<Early>,
}

/// A letter that was read, its memory mapped.
#[derive(Debug)]
struct Early {
    cookie: u64,
    uid: u32,
    channel: Channel,
}

// SAFETY: a channel is a handle to shared memory whose fields are atomics; whoever owns it may be any thread.
unsafe impl Send for Mailbox {}

/// Letters that may lie unread, in the kernel; a connector that finds the box full connects without.
const UNREAD_MAX: i32 = 64;
/// Letters that may lie read: of connections that were never accepted, or are accepted later.
const WAITING_MAX: usize = 16;

impl Mailbox {
    /// Opens the box of a listener that is bound to `address`.
    ///
    /// # Errors
    /// `EADDRINUSE` if another process has it, or what the system refuses.
    pub fn open(address: &Address, number_floor: i32) -> sys::Result<Self> {
        let listener = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)?;
        let listener = sys::raise_number(listener, number_floor);
        sys::bind(&listener, &address.mailbox_name())?;
        sys::listen(&listener, UNREAD_MAX)?;
        Ok(Self { listener, waiting: Vec::new() })
    }

    /// The number of the descriptor that it needs.
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.listener.raw()
    }

    /// Gives the descriptor up without closing it.
    pub fn lose(mut self) {
        let _ = core::mem::replace(&mut self.listener, Fd::own(-1)).into_raw();
    }

    /// The memory that the connector of this connection left; it is mapped, and not accepted yet.
    pub fn take(&mut self, tuple: &Tuple) -> Option<Channel> {
        let owner = find(&tuple.mirrored()).ok()?;
        let is_it = |early: &Early| early.cookie == owner.cookie && early.uid == owner.uid;
        if let Some(index) = self.waiting.iter().position(is_it) {
            return Some(self.waiting.remove(index).channel);
        }
        for _ in 0..UNREAD_MAX {
            let visitor = sys::accept(&self.listener).ok()?;
            let Ok(early) = open_letter(&visitor) else { continue };
            if is_it(&early) {
                return Some(early.channel);
            }
            if self.waiting.len() == WAITING_MAX {
                let oldest = self.waiting.remove(0);
                // SAFETY: the handle was not given to anybody.
                unsafe { oldest.channel.unmap() };
            }
            self.waiting.push(early);
        }
        None
    }

    fn unmap_waiting(&mut self) {
        for early in self.waiting.drain(..) {
            // SAFETY: the handle was not given to anybody.
            unsafe { early.channel.unmap() };
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.unmap_waiting();
    }
}

/// Reads what a visitor brought; connectors send it before they connect, so it is there.
fn open_letter(visitor: &Fd) -> Result<Early, Refusal> {
    let (letter, memory) = receive(visitor)?;
    let peer = credentials(visitor)?;
    check_policy(&peer)?;
    if letter.version != VERSION {
        return Err(Refusal::Stranger);
    }
    let channel = Channel::attach(&memory).map_err(|_| Refusal::Stranger)?;
    Ok(Early { cookie: letter.cookie, uid: peer.uid, channel })
}

/// The connector's half of the early meeting, before it connects `fd` to `remote`: leaves new memory in the
/// listener's mailbox. Only among programs of one user: whose TCP socket is at the other end is not known yet.
pub fn invite(fd: i32, remote: Address, ring_bytes: usize) -> Result<Channel, Refusal> {
    let visit = sys::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK, 0)
        .map_err(Refusal::Forbidden)?;
    let mut found = remote.listeners().map(|address| sys::connect(&visit, &address.mailbox_name()));
    if !found.any(|reached| reached.is_ok()) {
        return Err(Refusal::NotYet);
    }
    check_policy(&credentials(&visit)?)?;
    hand_over(fd, &visit, ring_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    /// A listener on a free port of 127.0.0.1 under this wildcard or address, with its mailbox.
    fn listener(bind: &str) -> (TcpListener, Mailbox) {
        let listener = TcpListener::bind(bind).unwrap();
        let address = Address::of_socket(listener.as_raw_fd()).unwrap();
        (listener, Mailbox::open(&address, 100).unwrap())
    }

    /// A TCP socket that is not connected yet.
    fn fresh() -> TcpStream {
        TcpStream::from(sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0).map(owned).unwrap())
    }

    fn owned(fd: Fd) -> std::os::fd::OwnedFd {
        use std::os::fd::FromRawFd;
        // SAFETY: the number is open, and nobody else's any more.
        unsafe { std::os::fd::OwnedFd::from_raw_fd(fd.into_raw()) }
    }

    fn loopback(port: u16) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        bytes[4..8].copy_from_slice(&[127, 0, 0, 1]);
        bytes
    }

    fn invited(port: u16) -> (TcpStream, Channel) {
        let client = fresh();
        let remote = Address::parse(&loopback(port), 16).unwrap();
        let channel = invite(client.as_raw_fd(), remote, 65536).unwrap();
        sys::connect_raw(client.as_raw_fd(), &loopback(port)[..16]).unwrap();
        (client, channel)
    }

    #[test]
    fn each_connection_finds_its_own_letter_whatever_the_order() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let (listener, mut mailbox) = listener(bind);
            let port = listener.local_addr().unwrap().port();
            let clients = [invited(port), invited(port), invited(port)];
            clients.iter().for_each(|(_, channel)| channel.commit());
            let mut servers: Vec<TcpStream> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            servers.reverse();
            for server in &servers {
                let tuple = Tuple::of_socket(server.as_raw_fd()).unwrap();
                let theirs = mailbox.take(&tuple).unwrap();
                assert!(theirs.accept() && theirs.peer_committed());
                theirs.commit();
                let client = clients
                    .iter()
                    .find(|(client, _)| Tuple::of_socket(client.as_raw_fd()).unwrap() == tuple.mirrored());
                assert!(client.unwrap().1.peer_committed(), "{bind}: the memory of this very connection");
                assert_eq!(mailbox.take(&tuple).map(|_| ()), None, "once");
                // SAFETY: the handle is not used again.
                unsafe { theirs.unmap() };
            }
            // SAFETY: the handles are not used again.
            clients.iter().for_each(|(_, channel)| unsafe { channel.unmap() });
        }
    }

    #[test]
    fn letters_that_nobody_asks_for_do_not_pile_up() {
        let (listener, mut mailbox) = listener("127.0.0.1:0");
        let port = listener.local_addr().unwrap().port();
        let invitation = || {
            let client = fresh();
            invite(client.as_raw_fd(), Address::parse(&loopback(port), 16).unwrap(), 65536)
        };
        let mut channels: Vec<Channel> = Vec::new();
        while let Ok(channel) = invitation() {
            channels.push(channel);
            assert!(channels.len() < 1000, "the box never fills");
        }
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let server = listener.accept().unwrap().0;
        assert!(mailbox.take(&Tuple::of_socket(server.as_raw_fd()).unwrap()).is_none());
        assert!(mailbox.waiting.len() <= WAITING_MAX);
        // SAFETY: the handles are not used again.
        channels.into_iter().for_each(|channel| unsafe { channel.unmap() });
        drop(client);
    }
}
