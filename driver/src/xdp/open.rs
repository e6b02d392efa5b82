//! Opening an interface: which way suits it, its frames, a socket for each of its queues, and the steering that brings them
//! their packets.

use std::fmt;

use stack::device::{Capabilities, ChecksumIn, Link as LinkType};

use super::device::{AfXdp, FRAGMENTS, QUEUES};
use super::kick::Packets;
use super::socket::{self, Config, Mode, Socket};
use super::umem::{self, Umem};
use crate::bpf::object::Attach;
use crate::netlink::Netlink;
use crate::netlink::links::{self, Link};
use crate::packet::{self, queue};
use crate::steering::{self, Requests, Steering};
use crate::sys::{Errno, Fd};

/// Bytes before each packet that the kernel leaves free (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// Bytes of an Ethernet header with a VLAN tag.
const ETHERNET: u32 = 18;
/// The largest entries of rings that we ask for.
const ENTRIES: u32 = 4096;

/// How an interface is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where the XDP program runs.
    pub attach: Attach,
    /// How packets get to frames.
    pub mode: Mode,
}

/// The ways that suit an interface, the best first.
///
/// Interfaces that are made by the kernel run the program in generic mode: in native mode veth copies every packet once more, so that
/// all other traffic is five times as slow, and receives no joined segments.
///
/// # Errors
/// Why it isn't to be driven.
pub fn ways(link: &Link) -> Result<&'static [Way], Refused> {
    const GENERIC: &[Way] = &[Way { attach: Attach::Generic, mode: Mode::Copy }];
    const HARDWARE: &[Way] = &[
        Way { attach: Attach::Native, mode: Mode::ZeroCopy },
        Way { attach: Attach::Native, mode: Mode::Copy },
        Way { attach: Attach::Generic, mode: Mode::Copy },
    ];
    let refused = |why| Err(Refused::Unfit { name: link.name.clone(), why });
    let is = |flag: i32| link.flags & flag as u32 != 0;
    if is(libc::IFF_LOOPBACK) {
        return refused("it is the loopback: connections within this host take the local path");
    }
    if link.has_xdp {
        return refused("another XDP program is attached to it: detach that, or take another interface");
    }
    if link.address.is_none() {
        return refused("it has no Ethernet addresses");
    }
    if !is(libc::IFF_UP) {
        return refused("it is down: set it up first");
    }
    if link.master != 0 {
        return refused("it is a port of a bridge or a bond, whose addresses are not its own");
    }
    match link.kind.as_str() {
        "" => Ok(HARDWARE),
        "veth" | "tun" | "bridge" | "macvlan" | "macvtap" | "dummy" | "ifb" => Ok(GENERIC),
        "bond" => refused("it is a bond: name one of its ports, once that is no port any more"),
        "vlan" => refused("it is a VLAN over another interface, which sees its packets first"),
        _ => refused("accel doesn't know this kind of interface"),
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// Whose its packets are, from 1 on.
    pub owner: u32,
    /// Frames, for all queues together.
    pub frames: u32,
    /// The way, if it is not to be chosen.
    pub way: Option<Way>,
}

/// Why an interface is not driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such interface.
    Absent {
        /// What it was called.
        name: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// It is not to be driven.
    Unfit {
        /// Its name.
        name: String,
        /// Why, and what to do.
        why: &'static str,
    },
    /// There is no memory for its frames.
    Memory {
        /// How many were asked for.
        frames: u32,
        /// What the kernel said.
        errno: Errno,
    },
    /// There is no socket for a queue.
    Socket(socket::Refused),
    /// There is no steering.
    Steering(steering::Refused),
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { name, errno } => {
                write!(to, "interface {name}: errno {}: there is none with this name", errno.0)
            }
            Self::Unfit { name, why } => write!(to, "interface {name}: {why}"),
            Self::Memory { frames, errno } => {
                write!(to, "memory for {frames} frames: errno {}: take fewer, or raise the limits", errno.0)
            }
            Self::Socket(refused) => refused.fmt(to),
            Self::Steering(refused) => refused.fmt(to),
        }
    }
}

/// An interface that is driven.
#[derive(Debug)]
pub struct Opened {
    /// The interface.
    pub link: Link,
    /// The way that was found.
    pub way: Way,
    /// What the stack drives.
    pub device: AfXdp,
    /// The memory of its frames, for other processes of the stack.
    pub memory: Fd,
    /// Which packets come here.
    pub steering: Steering,
    /// Which of them are wanted.
    pub requests: Requests,
    /// Entries of each ring.
    pub entries: u32,
    /// The XDP program is attached as long as this is open.
    pub attached: Fd,
}

/// Opens an interface of this network namespace in the best way that it allows.
///
/// # Errors
/// Why the last of the ways that suit it was refused.
pub fn open(request: &Request<'_>) -> Result<Opened, Refused> {
    let absent = |errno| Refused::Absent { name: request.name.to_owned(), errno };
    let link =
        Netlink::open(0).and_then(|mut netlink| links::named(&mut netlink, request.name)).map_err(absent)?;
    let chosen = request.way.as_ref().map(core::slice::from_ref);
    let ways = ways(&link).map(|ways| chosen.unwrap_or(ways))?;
    let mut last = Refused::Unfit { name: link.name.clone(), why: "no way suits it" };
    for way in ways {
        match open_so(request, &link, *way) {
            Ok(opened) => return Ok(opened),
            Err(refused) => last = refused,
        }
    }
    Err(last)
}

/// Bytes of a frame: the smaller kind, if a packet fits.
const fn frame_size(mtu: u32) -> u16 {
    if mtu + ETHERNET + HEADROOM <= 2048 { 2048 } else { 4096 }
}

/// Entries of each ring for so many frames.
fn entries(frames: u32) -> u32 {
    frames.clamp(64, ENTRIES).next_power_of_two()
}

fn open_so(request: &Request<'_>, link: &Link, way: Way) -> Result<Opened, Refused> {
    let no_memory = |errno| Refused::Memory { frames: request.frames, errno };
    let frame_size = frame_size(link.mtu);
    let memory = umem::memory(request.frames, frame_size).map_err(no_memory)?;
    let umem = Umem::map(&memory, request.frames, frame_size).map_err(no_memory)?;
    let steering = Steering::new().map_err(Refused::Steering)?;
    let sockets = sockets(request, link, way, &umem)?;
    let no_entry = |errno| {
        Refused::Steering(steering::Refused { step: "entering the sockets", errno, log: String::new() })
    };
    for (queue, socket) in (0..).zip(&sockets) {
        steering.set_socket(request.owner, queue, socket).map_err(no_entry)?;
    }
    let requests = steering.add_owner(request.owner).map_err(no_entry)?;
    let attached = steering.attach(link.index, way.attach).map_err(Refused::Steering)?;
    let packets = if is_joined(way) { packets(link) } else { None };
    let device =
        AfXdp::new(umem, sockets, packets, capabilities(link, way, frame_size)).map_err(no_memory)?;
    let entries = entries(request.frames);
    Ok(Opened { link: link.clone(), way, device, memory, steering, requests, entries, attached })
}

/// The kernel is to cut where it runs in generic mode anyway: a device that reads frames by itself is better off with each of them. `None`
/// where it can't: then they leave one by one.
fn packets(link: &Link) -> Option<Packets> {
    // What the kernel makes has no queue of packets, and takes them all at once.
    let socket = packet::Socket::open(link.index, !link.kind.is_empty()).ok()?;
    queue::memory().and_then(|file| Packets::new(socket, file)).ok()
}

/// A socket for each queue that is in use: the first one that isn't there is EINVAL.
fn sockets(request: &Request<'_>, link: &Link, way: Way, umem: &Umem) -> Result<Vec<Socket>, Refused> {
    let mut sockets: Vec<Socket> = Vec::new();
    for queue in 0..link.rx_queues.clamp(1, QUEUES as u32) {
        let config = Config {
            interface: link.index,
            queue,
            mode: way.mode,
            multi_buffer: has_many(link, way),
            entries: entries(request.frames),
        };
        match Socket::open(&config, umem, sockets.first()) {
            Ok(socket) => sockets.push(socket),
            Err(refused) if refused.errno.0 == libc::EINVAL && queue > 0 => break,
            Err(refused) => return Err(Refused::Socket(refused)),
        }
    }
    Ok(sockets)
}

/// Whether packets have several frames: in generic mode the kernel joins segments, and never asks whether they fit.
const fn is_joined(way: Way) -> bool {
    matches!(way.attach, Attach::Generic)
}

/// Whether packets may have several frames: joined ones, and those of a link whose packets are larger than a frame.
const fn has_many(link: &Link, way: Way) -> bool {
    is_joined(way) || link.mtu + ETHERNET + HEADROOM > frame_size(link.mtu) as u32
}

fn capabilities(link: &Link, way: Way, frame_size: u16) -> Capabilities {
    let is_made_here = !link.kind.is_empty();
    Capabilities {
        link: LinkType::Ethernet,
        mtu: link.mtu,
        frame_size,
        headroom_out: 0,
        fragments_max: if has_many(link, way) { FRAGMENTS } else { 1 },
        checksum_in: if is_made_here { ChecksumIn::Partial } else { ChecksumIn::Verify },
        checksum_out: false,
        tso_bytes_max: 0,
        gro: is_joined(way),
        timestamps: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veth() -> Link {
        Link {
            index: 2,
            name: "va".to_owned(),
            kind: "veth".to_owned(),
            mtu: 1500,
            address: Some([2, 0, 0, 0, 0, 1]),
            flags: libc::IFF_UP as u32,
            rx_queues: 1,
            ..Link::default()
        }
    }

    #[test]
    fn each_kind_has_its_way_or_a_reason() {
        let hardware = Link { kind: String::new(), ..veth() };
        assert_eq!(ways(&veth()).map(|ways| ways[0].attach), Ok(Attach::Generic));
        assert_eq!(ways(&hardware).map(|ways| ways[0].mode), Ok(Mode::ZeroCopy));
        let up = libc::IFF_UP as u32;
        for (link, word) in [
            (Link { flags: up | libc::IFF_LOOPBACK as u32, ..veth() }, "loopback"),
            (Link { flags: 0, ..veth() }, "down"),
            (Link { has_xdp: true, ..veth() }, "another XDP program"),
            (Link { address: None, ..veth() }, "Ethernet"),
            (Link { master: 7, ..veth() }, "port of a bridge"),
            (Link { kind: "bond".to_owned(), ..veth() }, "bond"),
            (Link { kind: "vlan".to_owned(), ..veth() }, "VLAN"),
            (Link { kind: "wireguard".to_owned(), ..veth() }, "doesn't know"),
        ] {
            let said = ways(&link).expect_err("a reason").to_string();
            assert!(said.contains(word) && said.starts_with("interface va: "), "{said}");
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_refused_by_name() {
        let request = Request { name: "none-such", owner: 1, frames: 64, way: None };
        let said = open(&request).map(|_| ()).expect_err("no interface").to_string();
        assert!(said.contains("none-such"), "{said}");
    }

    #[test]
    fn frames_are_as_small_as_the_mtu_allows() {
        assert_eq!([1500, 1774, 1775, 9000, 65_535].map(frame_size), [2048, 2048, 4096, 4096, 4096]);
    }
}
