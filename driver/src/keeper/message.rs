//! The messages: a request of 112 bytes, an answer of 768. Numbers are in the machine's order of bytes, since both ends are on it.
//!
//! Both begin with the version and a number that the answer repeats: who has given up waiting doesn't take a late answer for that
//! to a later question. Nothing is believed: a field that can't be is an error, and so is one that is set where it means nothing.

use stack::device::{Capabilities, ChecksumIn, Link};
use stack::export::Snapshot;
use stack::region::Limits;
use stack::wire::ip::Ip;

use crate::steering::{LOCALS, OWNERS, Place, Protocol};
use crate::sys::PASSED_MAX;
use crate::xdp::device::QUEUES;

mod handover;

/// What both ends must agree on. It changes with every change of a message.
pub const VERSION: u32 = 2;
/// Bytes of a request.
pub const REQUEST: usize = 112;
/// Bytes of an answer.
pub const ANSWER: usize = 768;
/// Most ranges of ports that are leased to an owner.
pub const LEASES_MAX: usize = 128;
/// Bytes of an interface's name or kind, with the NUL (IFNAMSIZ).
const TEXT: usize = 16;

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// This process counts as one that uses the interface, though it has nothing of it yet.
    Hold,
    /// Everything that is needed to drive the interface.
    Attach,
    /// A port: a socket that is bound to it comes with this.
    Claim(Port),
    /// A port that another process of the same owner has claimed: this one has it, too.
    Join(Port),
    /// This process no longer needs it.
    Release(Port),
    /// The kernel is to ask for a neighbour.
    Resolve(Ip),
    /// This process has forked: the child with this number holds what it holds.
    Forked(u32),
    /// The kernel is to have this connection: with it come a fresh socket that becomes it, and memory with the bytes that were received
    /// and not read, and behind them those that were written and not acknowledged.
    HandOver(Snapshot),
}

/// A port of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// One of the interface's, or the unspecified one of either version.
    pub local: Ip,
    /// From 1 on.
    pub number: u16,
}

/// What the keeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was done: packets to the port come here once they are wanted.
    Claimed(Claimed),
    /// The interface, with its descriptors: [`Terms::descriptors`].
    Attached(Box<Terms>),
    /// It is not done.
    Refused(Reason, u32),
}

/// Where a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// One bit for each slot of an address. All of them for an unspecified address: also those that the interface gets later.
    pub slots: u32,
}

impl Claimed {
    /// The places that [`crate::steering::Requests::want`] is to be called with.
    pub fn places(self, protocol: Protocol, port: u16) -> impl Iterator<Item = Place> {
        (0..LOCALS).filter(move |slot| self.slots >> slot & 1 != 0).map(move |slot| Place {
            slot,
            protocol,
            port,
        })
    }
}

/// Everything that is said of an interface to who attaches to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The interface's number in its network namespace.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// What makes it: "veth", "tun" …; empty for hardware.
    pub kind: String,
    /// Its link address.
    pub mac: [u8; 6],
    /// Whose packets these are, in [`crate::steering`].
    pub owner: u32,
    /// Queues, each with a socket.
    pub queues: u32,
    /// Entries of each ring.
    pub entries: u32,
    /// Event descriptors, one for each process of the region.
    pub bells: u32,
    /// What the device can do.
    pub capabilities: Capabilities,
    /// What the region was sized for.
    pub limits: Limits,
    /// Ports that connections of the owner may come from, of every address and either protocol: first, how many.
    pub ports: Vec<(u16, u16)>,
}

impl Terms {
    /// Descriptors of the second way out, for packets that the kernel cuts ([`crate::xdp::kick::Packets::fds`]): two, if there is one.
    #[must_use]
    pub const fn ways_out(&self) -> usize {
        if self.capabilities.tso_bytes_max != 0 { 2 } else { 0 }
    }

    /// Descriptors that come with them: the region, the frames, the requests, what the kernel has passed ([`crate::passed`]), the queues, the second way out, the bells.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        4 + self.queues as usize + self.ways_out() + self.bells as usize
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $sentence:literal;)+) => {
        /// Why the keeper doesn't do what it was asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $code),+
        }

        impl Reason {
            const fn of(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// What is said to a user; `{}` is the number that comes with it.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence),+
                }
            }
        }
    };
}

reasons! {
    /// The program is another user's.
    User = 1, "the interface was opened for programs of user {}; end those, or run this one as that user";
    /// The program speaks another version.
    Version = 2, "the keeper speaks version {} of its language; end all programs on the interface, and start them with one accel";
    /// The request isn't one.
    Malformed = 3, "the request makes no sense to the keeper; end all programs on the interface, and start them with one accel";
    /// The program is in another PID namespace, where it can't be watched.
    Elsewhere = 4, "the program is in another PID namespace than the interface's keeper; start it where that is";
    /// It has to attach first.
    NotAttached = 5, "the program has not attached to the interface";
    /// No socket came with the request, or one of another kind.
    NoSocket = 6, "no TCP or UDP socket came with the request";
    /// The socket isn't bound to what is claimed.
    NotBound = 7, "the socket is not bound to that address and port";
    /// The socket is of another network namespace or interface.
    OtherNetwork = 8, "the socket is in another network namespace, or bound to another interface";
    /// Others may bind the same port, since the socket doesn't listen and has SO_REUSEADDR.
    Shared = 9, "others may bind that port too, as long as the socket has SO_REUSEADDR and does not listen";
    /// The address isn't one of the interface's.
    Address = 10, "the address is not one of the interface's";
    /// Nobody has claimed it.
    Unclaimed = 11, "nobody has claimed that port";
    /// There are as many already as there can be.
    Full = 12, "the keeper has {} of these, which is all that it can have";
    /// What the kernel said.
    Kernel = 13, "the kernel refused it with errno {}";
    /// The port is nobody's who asks.
    NotOurs = 14, "the connection's port is not one of the owner's";
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// They are of another version.
    Version(u32),
    /// So many bytes are no message of this version.
    Size(usize),
    /// A field can't have this value; where it begins.
    Field(usize),
}

/// Bytes that are written from the beginning on.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, value: &[u8]) -> &mut Self {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + value.len()) {
            place.copy_from_slice(value);
        }
        self.at += value.len();
        self
    }

    fn byte(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    fn half(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    /// A text, cut if it is too long, and a NUL.
    fn text(&mut self, value: &str) -> &mut Self {
        let mut room = [0; TEXT];
        for (to, byte) in room[..TEXT - 1].iter_mut().zip(value.bytes()) {
            *to = byte;
        }
        self.put(&room)
    }
}

/// Bytes that are read from the beginning on.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let place = self.bytes.get(self.at..self.at + N).ok_or(Wrong::Size(self.bytes.len()))?;
        self.at += N;
        place.try_into().map_err(|_| Wrong::Field(self.at - N))
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        self.take().map(u8::from_ne_bytes)
    }

    fn half(&mut self) -> Result<u16, Wrong> {
        self.take().map(u16::from_ne_bytes)
    }

    fn word(&mut self) -> Result<u32, Wrong> {
        self.take().map(u32::from_ne_bytes)
    }

    fn flag(&mut self) -> Result<bool, Wrong> {
        let at = self.at;
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Wrong::Field(at)),
        }
    }

    /// A number up to this one.
    fn word_to(&mut self, most: u32) -> Result<u32, Wrong> {
        let at = self.at;
        Some(self.word()?).filter(|value| *value <= most).ok_or(Wrong::Field(at))
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let (at, room) = (self.at, self.take::<TEXT>()?);
        let len = room.iter().position(|byte| *byte == 0).ok_or(Wrong::Field(at))?;
        let is_zero = room[len..].iter().all(|byte| *byte == 0);
        let text = str::from_utf8(&room[..len]).ok().filter(|_| is_zero);
        text.map(str::to_owned).ok_or(Wrong::Field(at))
    }

    /// Nothing but zeros follows.
    fn end(&self) -> Result<(), Wrong> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.iter().position(|byte| *byte != 0) {
            Some(at) => Err(Wrong::Field(self.at + at)),
            None => Ok(()),
        }
    }
}

/// Checks version and size, and gives the number that follows.
fn begin(bytes: &[u8], size: usize) -> Result<(u32, Reader<'_>), Wrong> {
    let mut reader = Reader { bytes, at: 0 };
    let version = reader.word()?;
    if version != VERSION {
        return Err(Wrong::Version(version));
    }
    if bytes.len() != size {
        return Err(Wrong::Size(bytes.len()));
    }
    Ok((reader.word()?, reader))
}

// IANA's numbers.
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
/// The one kind of request with more than a port.
const HAND_OVER: u8 = 8;

impl Request {
    /// As bytes, with this number.
    #[must_use]
    pub fn bytes(&self, number: u32) -> [u8; REQUEST] {
        let mut writer = Writer::new();
        writer.word(VERSION).word(number);
        let port = |writer: &mut Writer<REQUEST>, kind, port: &Port| {
            let protocol = match port.protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            };
            writer.byte(kind).byte(protocol).half(port.number).put(&port.local.0);
        };
        let plain = |writer: &mut Writer<REQUEST>, kind, ip: &Ip| {
            writer.byte(kind).byte(0).half(0).put(&ip.0);
        };
        match self {
            Self::Hold => plain(&mut writer, 1, &Ip::UNSPECIFIED),
            Self::Attach => plain(&mut writer, 2, &Ip::UNSPECIFIED),
            Self::Claim(claimed) => port(&mut writer, 3, claimed),
            Self::Join(claimed) => port(&mut writer, 4, claimed),
            Self::Release(claimed) => port(&mut writer, 5, claimed),
            Self::Resolve(ip) => plain(&mut writer, 6, ip),
            Self::Forked(pid) => {
                writer.byte(7).byte(0).half(0).word(*pid);
            }
            Self::HandOver(it) => handover::write(writer.byte(HAND_OVER), it),
        }
        writer.bytes
    }

    /// From bytes, with its number.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<(Self, u32), Wrong> {
        let (number, mut reader) = begin(bytes, REQUEST)?;
        let (at, kind) = (reader.at, reader.byte()?);
        if kind == HAND_OVER {
            let request = Self::HandOver(handover::read(&mut reader)?);
            return reader.end().map(|()| (request, number));
        }
        let protocol = reader.byte()?;
        let (port, local) = (reader.half()?, Ip(reader.take()?));
        let claimed = || {
            let protocol = match protocol {
                TCP => Protocol::Tcp,
                UDP => Protocol::Udp,
                _ => return Err(Wrong::Field(at + 1)),
            };
            if port == 0 { Err(Wrong::Field(at + 2)) } else { Ok(Port { protocol, local, number: port }) }
        };
        let is_plain = protocol == 0 && port == 0;
        let request = match kind {
            1 | 2 if is_plain && local == Ip::UNSPECIFIED => {
                if kind == 1 {
                    Self::Hold
                } else {
                    Self::Attach
                }
            }
            3 => Self::Claim(claimed()?),
            4 => Self::Join(claimed()?),
            5 => Self::Release(claimed()?),
            6 if is_plain => Self::Resolve(local),
            7 if is_plain => {
                let [a, b, c, d, rest @ ..] = local.0;
                let pid = u32::from_ne_bytes([a, b, c, d]);
                // A number that a process can have.
                if rest != [0; 12] || i32::try_from(pid).is_err() {
                    return Err(Wrong::Field(at + 4));
                }
                Self::Forked(pid)
            }
            _ => return Err(Wrong::Field(at)),
        };
        reader.end().map(|()| (request, number))
    }
}

impl Answer {
    /// As bytes, with the number of the request.
    #[must_use]
    pub fn bytes(&self, number: u32) -> [u8; ANSWER] {
        let mut writer = Writer::new();
        writer.word(VERSION).word(number);
        match self {
            Self::Done => writer.byte(1),
            Self::Claimed(claimed) => writer.byte(2).word(claimed.slots),
            Self::Attached(terms) => terms.write(writer.byte(3)),
            Self::Refused(reason, detail) => writer.byte(4).half(*reason as u16).word(*detail),
        };
        writer.bytes
    }

    /// From bytes, with the number of the request.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<(Self, u32), Wrong> {
        let (number, mut reader) = begin(bytes, ANSWER)?;
        let (at, kind) = (reader.at, reader.byte()?);
        let answer = match kind {
            1 => Self::Done,
            2 => Self::Claimed(Claimed { slots: reader.word()? }),
            3 => Self::Attached(Box::new(Terms::read(&mut reader)?)),
            4 => {
                let reason = Reason::of(reader.half()?).ok_or(Wrong::Field(at + 1))?;
                Self::Refused(reason, reader.word()?)
            }
            _ => return Err(Wrong::Field(at)),
        };
        reader.end().map(|()| (answer, number))
    }
}

impl Terms {
    fn write<'w>(&self, writer: &'w mut Writer<ANSWER>) -> &'w mut Writer<ANSWER> {
        writer.word(self.interface).text(&self.name).text(&self.kind).put(&self.mac);
        writer.word(self.owner).word(self.queues).word(self.entries).word(self.bells);
        let Capabilities { link, mtu, frame_size, headroom_out, fragments_max, checksum_in, .. } =
            self.capabilities;
        let Capabilities { checksum_out, tso_bytes_max, gro, timestamps, .. } = self.capabilities;
        writer.byte(u8::from(link == Link::Ip)).word(mtu).half(frame_size).half(headroom_out);
        writer.half(fragments_max).byte(u8::from(checksum_in == ChecksumIn::Partial));
        writer.byte(checksum_out.into()).word(tso_bytes_max).byte(gro.into()).byte(timestamps.into());
        for value in self.limits.values() {
            writer.word(value);
        }
        let count = self.ports.len().min(LEASES_MAX);
        writer.half(count as u16);
        for (first, many) in &self.ports[..count] {
            writer.half(*first).half(*many);
        }
        writer
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Wrong> {
        let (interface, name, kind, mac) =
            (reader.word()?, reader.text()?, reader.text()?, reader.take::<6>()?);
        let owner = reader.word_to(OWNERS - 1)?;
        let queues = reader.word_to(QUEUES as u32)?;
        let entries = reader.word()?;
        let bells = reader.word_to((PASSED_MAX - 4 - QUEUES - 2) as u32)?;
        let capabilities = Capabilities {
            link: if reader.flag()? { Link::Ip } else { Link::Ethernet },
            mtu: reader.word()?,
            frame_size: reader.half()?,
            headroom_out: reader.half()?,
            fragments_max: reader.half()?,
            checksum_in: if reader.flag()? { ChecksumIn::Partial } else { ChecksumIn::Verify },
            checksum_out: reader.flag()?,
            tso_bytes_max: reader.word()?,
            gro: reader.flag()?,
            timestamps: reader.flag()?,
        };
        let at = reader.at;
        let mut limits = Limits::SMALL.values();
        for value in &mut limits {
            *value = reader.word()?;
        }
        let limits = Limits::of(limits);
        limits.check().map_err(|_| Wrong::Field(at))?;
        Ok(Self {
            interface,
            name,
            kind,
            mac,
            owner,
            queues,
            entries,
            bells,
            capabilities,
            limits,
            ports: leases(reader)?,
        })
    }
}

/// Ranges of ports: none is empty, none has port 0 or ends behind the last.
fn leases(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, Wrong> {
    let (at, count) = (reader.at, usize::from(reader.half()?));
    if count > LEASES_MAX {
        return Err(Wrong::Field(at));
    }
    let mut ports = Vec::with_capacity(count);
    for _ in 0..count {
        let (at, first, many) = (reader.at, reader.half()?, reader.half()?);
        if first == 0 || many == 0 || u32::from(first) + u32::from(many) > 1 << 16 {
            return Err(Wrong::Field(at));
        }
        ports.push((first, many));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests;
