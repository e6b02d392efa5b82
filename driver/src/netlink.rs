//! rtnetlink(7): messages to the kernel about links, addresses, routes and neighbours, and its answers.
//!
//! A message is a header, a struct that depends on its kind, and attributes; all in the machine's order of bytes but for
//! addresses ([`links`], [`addresses`], [`routes`], [`neighbours`], [`connections`], [`filters`]). What is read is checked against the length that was received: nothing is believed.

use stack::wire::ip::Ip;

use crate::sys::{self, Errno, Fd};

pub mod addresses;
pub mod connections;
pub mod filters;
pub mod links;
pub mod neighbours;
pub mod routes;

/// Bytes of `struct nlmsghdr`, of `struct nlattr`, and what both are padded to (linux/netlink.h).
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const ALIGN: usize = 4;

/// An attribute's kind without the bits that say what is in it: NLA_TYPE_MASK.
const KIND: u16 = 0x3fff;
/// It holds attributes: NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// The kernel has dropped messages (ENOBUFS), or a table has changed while it was read: it is to be read again.
const DUMP_INTERRUPTED: u16 = 0x10;

/// Room for what comes at once: the kernel fills up to 32 KiB if it can.
const BUFFER: usize = 32 << 10;
/// How often a table is read that changes while it is read.
const ATTEMPTS: usize = 16;

/// Bits of the groups in which the kernel tells of changes (RTMGRP_*, and 1 << (RTNLGRP_* - 1) where there is none).
pub mod group {
    /// Links.
    pub const LINK: u32 = 1;
    /// Neighbours of both families.
    pub const NEIGHBOUR: u32 = 4;
    /// Addresses of IPv4, and of IPv6.
    pub const ADDRESS: u32 = 0x10 | 0x100;
    /// Their routes.
    pub const ROUTE: u32 = 0x40 | 0x400;
    /// Their rules (RTMGRP_IPV4_RULE, RTNLGRP_IPV6_RULE).
    pub const RULE: u32 = 0x80 | 1 << 18;
    /// What IPv6 knows of an interface, as its MTU (RTMGRP_IPV6_IFINFO).
    pub const INTERFACE: u32 = 0x800;
}

/// A table that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<T> {
    /// Its first rows, in the kernel's order.
    pub rows: Vec<T>,
    /// How many it has.
    pub count: usize,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Of this kind, with flags besides NLM_F_REQUEST, and the struct that the kind asks for.
    #[must_use]
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        Self(bytes)
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.0.extend([len.to_ne_bytes(), kind.to_ne_bytes()].concat());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// With an attribute that holds what `inner` adds.
    #[must_use]
    pub fn with_nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.0.len();
        self.0.extend([[0; 2], (kind | NESTED).to_ne_bytes()].concat());
        self = inner(self);
        let len = u16::try_from(self.0.len() - begin).unwrap_or(u16::MAX);
        self.0[begin..begin + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// With the bytes of a struct, as some attributes begin.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Its end is told: NLM_F_ACK.
    fn acknowledged(mut self) -> Self {
        let flags = half(&self.0, 6).unwrap_or_default() | libc::NLM_F_ACK as u16;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// What follows the header.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.0.get(HEADER..).unwrap_or_default()
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// Two bytes at a place, as a number.
#[must_use]
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes at a place, as a number.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An address in bytes: four of IPv4, sixteen of IPv6.
#[must_use]
pub fn address(bytes: &[u8]) -> Option<Ip> {
    match *bytes {
        [a, b, c, d] => Some(Ip::v4([a, b, c, d])),
        _ => bytes.try_into().ok().map(Ip),
    }
}

/// The attributes in these bytes: kind and value of each.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let (len, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        // One shorter than its header ends them.
        let value = bytes.get(ATTRIBUTE..len)?;
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

/// The value of the first attribute of this kind.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A message of the kernel's.
struct Heard<'b> {
    kind: u16,
    flags: u16,
    /// The request that it answers.
    sequence: u32,
    /// What follows the header.
    body: &'b [u8],
}

/// The messages in these bytes.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    core::iter::from_fn(move || {
        let len = word(bytes, 0)? as usize;
        let body = bytes.get(HEADER..len)?;
        let heard = Heard { kind: half(bytes, 4)?, flags: half(bytes, 6)?, sequence: word(bytes, 8)?, body };
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(heard)
    })
}

/// A socket to the kernel's tables of this network namespace.
#[derive(Debug)]
pub struct Netlink {
    fd: Fd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one that hears of changes in these groups: bits of [`group`].
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open(groups: u32) -> sys::Result<Self> {
        Self::to(libc::NETLINK_ROUTE, groups)
    }

    /// Opens one to other tables of the kernel's, by their NETLINK_*: sock_diag(7), nf_tables.
    ///
    /// # Errors
    /// EPROTONOSUPPORT where the kernel lacks them; what socket(2) and bind(2) say.
    pub fn to(protocol: i32, groups: u32) -> sys::Result<Self> {
        let fd = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        let mut address = [0; 12];
        address[..2].copy_from_slice(&(libc::AF_NETLINK as u16).to_ne_bytes());
        address[8..].copy_from_slice(&groups.to_ne_bytes());
        sys::bind(&fd, &address)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Its descriptor, readable when something has changed.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        &self.fd
    }

    fn send(&mut self, message: Message) -> sys::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(self.sequence);
        // SAFETY: the bytes are readable.
        unsafe { sys::send(self.fd.raw(), bytes.as_ptr().cast(), bytes.len(), 0) }.map(drop)
    }

    fn receive(&mut self, flags: i32) -> sys::Result<usize> {
        // SAFETY: the buffer is writable for its length.
        unsafe { sys::recv(self.fd.raw(), self.buffer.as_mut_ptr().cast(), self.buffer.len(), flags) }
    }

    /// Asks for something to be done, and waits until it is.
    ///
    /// # Errors
    /// What the kernel says of it.
    pub fn ask(&mut self, message: Message) -> sys::Result<()> {
        self.exchange(message.acknowledged(), |_, _| {})
    }

    /// Asks for a table: the first `most` of the rows that `parse` makes of its messages, and how many there are. One that changes
    /// while it is read is read again.
    ///
    /// # Errors
    /// What the kernel says of it; EINTR when it changed each time.
    pub fn table<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        most: usize,
        mut parse: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> sys::Result<Table<T>> {
        for _ in 0..ATTEMPTS {
            let mut table = Table { rows: Vec::new(), count: 0 };
            let message = Message::new(kind, libc::NLM_F_DUMP as u16, body);
            let done = self.exchange(message, |kind, body| {
                let Some(row) = parse(kind, body) else { return };
                table.count += 1;
                if table.rows.len() < most {
                    table.rows.push(row);
                }
            });
            match done {
                Err(Errno(libc::EINTR)) => {}
                done => return done.map(|()| table),
            }
        }
        Err(Errno(libc::EINTR))
    }

    /// Asks for one thing: its kind and what follows its header.
    ///
    /// # Errors
    /// What the kernel says of it.
    pub fn get(&mut self, message: Message, row: impl FnMut(u16, &[u8])) -> sys::Result<()> {
        self.exchange(message.acknowledged(), row)
    }

    fn exchange(&mut self, message: Message, mut row: impl FnMut(u16, &[u8])) -> sys::Result<()> {
        self.send(message)?;
        let mut interrupted = false;
        loop {
            let len = self.receive(0)?;
            for Heard { kind, flags, sequence, body } in messages(&self.buffer[..len]) {
                if sequence != self.sequence {
                    // The rest of an answer that nobody waited for.
                    continue;
                }
                interrupted |= flags & DUMP_INTERRUPTED != 0;
                match i32::from(kind) {
                    libc::NLMSG_ERROR => {
                        let errno = word(body, 0).ok_or(Errno(libc::EPROTO))? as i32;
                        return if errno == 0 { Ok(()) } else { Err(Errno(errno.wrapping_neg())) };
                    }
                    libc::NLMSG_DONE if interrupted => return Err(Errno(libc::EINTR)),
                    libc::NLMSG_DONE => return Ok(()),
                    _ => row(kind, body),
                }
            }
        }
    }

    /// What has changed since the last call: false when there is nothing more. The socket is one that hears of changes.
    ///
    /// # Errors
    /// ENOBUFS when changes were lost: the tables are to be read again.
    pub fn changes(&mut self, mut row: impl FnMut(u16, &[u8])) -> sys::Result<bool> {
        let len = match self.receive(libc::MSG_DONTWAIT) {
            Err(Errno(libc::EAGAIN)) => return Ok(false),
            len => len?,
        };
        for heard in messages(&self.buffer[..len]) {
            row(heard.kind, heard.body);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_come_back() {
        let message = Message::new(16, 0, &[1, 2, 3, 4])
            .with(3, b"name\0")
            .with_nested(18, |message| message.with(1, b"veth").with_nested(2, |inner| inner.raw(&[9; 8])));
        let bytes = message.finish(7);
        let Heard { kind, flags, sequence, body } = messages(&bytes).next().expect("a message");
        assert_eq!((kind, flags, sequence), (16, libc::NLM_F_REQUEST as u16, 7));
        assert_eq!(body[..4], [1, 2, 3, 4]);
        assert_eq!(attribute(&body[4..], 3), Some(&b"name\0"[..]));
        let nested = attribute(&body[4..], 18).expect("nested");
        assert_eq!(attribute(nested, 1), Some(&b"veth"[..]));
        assert_eq!(attribute(nested, 2), Some(&[9; 8][..]));
        assert_eq!(attribute(nested, 5), None);
    }

    proptest! {
        /// Whatever comes: an end, and nothing read outside.
        #[test]
        fn any_bytes_have_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER + 1);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / ATTRIBUTE + 1);
        }
    }
}
