//! Which packets of an interface are whose: our XDP program and its maps.
//!
//! A packet is redirected to the AF_XDP socket of its queue if all of this holds; else the kernel gets it as if nothing were
//! there, as it does ARP, ICMP, fragments, packets with IP options or VLAN tags:
//!
//! | what | map | who writes it |
//! |---|---|---|
//! | its destination is an address that is accelerated | `locals`: address → slot | root |
//! | the port has an owner | `owners`: (slot, protocol), port → [`Claim`] | root |
//! | the owner wants it now | `requests`: owner → (slot, protocol), port → byte | the owner, through memory of its own |
//! | if the port is mixed: the kernel doesn't have this connection | `kernels`: 4-tuple | root |
//!
//! An owner whose sockets are gone or full loses packets: were they passed on, the kernel would reset its connections.

use std::fmt;
use std::sync::atomic::Ordering;

use stack::wire::ip::Ip;

use crate::bpf::insn::{Assembler, FP, If, Op, R0, R1, R2, R3, R4, R6, R7, R8, R9, Size};
use crate::bpf::object::{Attach, Kind, MMAPABLE, Map, Program, Values};
use crate::sys::{self, Errno, Fd};
use crate::xdp::device::QUEUES;
use crate::xdp::socket::Socket;

/// Addresses that can be accelerated on one interface.
pub const LOCALS: u32 = 16;
/// Owners on one interface, the first one is 1.
pub const OWNERS: u32 = 64;
/// Connections that the kernel may have at mixed ports.
const KERNELS: u32 = 65_536;
/// Ports of a protocol.
const PORTS: usize = 65_536;
/// A claim's bits: whose it is, and whether the kernel has connections there, too.
const OWNER: u16 = 0x0fff;
const MIXED: u16 = 0x8000;

/// Bytes of the key of a connection: both addresses, both ports as they are in packets, the protocol.
const CONNECTION: usize = 40;

// What an XDP program returns (enum xdp_action).
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
// Helpers of the kernel's.
const MAP_LOOKUP: i32 = 1;
const REDIRECT_MAP: i32 = 51;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Its number is 6.
    Tcp = 0,
    /// Its number is 17.
    Udp = 1,
}

/// A place that packets are sent to: the slot of an address, a protocol, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// As [`Steering::set_local`] has it.
    pub slot: u32,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl Place {
    const fn entry(self) -> u32 {
        self.slot * 2 + self.protocol as u32
    }
}

/// Whose a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// From 1 on.
    pub owner: u32,
    /// The kernel has connections there, too.
    pub mixed: bool,
}

/// A connection as packets that arrive name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Our end.
    pub local: (Ip, u16),
    /// The peer's.
    pub remote: (Ip, u16),
    /// The protocol.
    pub protocol: Protocol,
}

impl Connection {
    fn key(&self) -> [u8; CONNECTION] {
        let mut key = [0; CONNECTION];
        key[..16].copy_from_slice(&self.local.0.0);
        key[16..32].copy_from_slice(&self.remote.0.0);
        key[32..34].copy_from_slice(&self.local.1.to_be_bytes());
        key[34..36].copy_from_slice(&self.remote.1.to_be_bytes());
        let number: u32 = match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        key[36..].copy_from_slice(&number.to_ne_bytes());
        key
    }
}

/// Why there is no steering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub errno: Errno,
    /// The verifier's last words.
    pub log: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, errno, log } = self;
        let next = match errno.0 {
            libc::EPERM | libc::EACCES if log.is_empty() => {
                "CAP_BPF and CAP_NET_ADMIN are missing; start accel as root"
            }
            libc::EBUSY | libc::EEXIST => {
                "another XDP program is attached to the interface; detach it, or take another interface"
            }
            libc::EOPNOTSUPP | libc::ERANGE => "the driver can't run it; leave the mode to accel",
            _ => "its sockets stay on the kernel",
        };
        write!(to, "{step}: errno {}: {next}", errno.0)?;
        if log.is_empty() { Ok(()) } else { write!(to, " ({log})") }
    }
}

/// The program and its maps: the half that needs root.
#[derive(Debug)]
pub struct Steering {
    locals: Map,
    owners: Values,
    requests: Map,
    kernels: Map,
    sockets: Map,
    program: Program,
}

/// What every owner's array of requests is like.
fn requests_of_one() -> sys::Result<Map> {
    Map::new(Kind::Array, "accel_requests", (4, PORTS), LOCALS * 2, MMAPABLE, None)
}

impl Steering {
    /// Makes the maps and loads the program; nothing is attached yet.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new() -> Result<Self, Refused> {
        let maps = || -> sys::Result<_> {
            let locals = Map::new(Kind::Hash, "accel_locals", (16, 4), LOCALS, 0, None)?;
            let owners = Map::new(Kind::Array, "accel_owners", (4, PORTS * 2), LOCALS * 2, MMAPABLE, None)?;
            let inner = requests_of_one()?;
            let requests = Map::new(Kind::ArrayOfMaps, "accel_wanted", (4, 4), OWNERS, 0, Some(&inner))?;
            let kernels = Map::new(Kind::Hash, "accel_kernels", (CONNECTION, 1), KERNELS, 0, None)?;
            let sockets = Map::new(Kind::Xsk, "accel_sockets", (4, 4), OWNERS * QUEUES as u32, 0, None)?;
            Ok((locals, owners, requests, kernels, sockets))
        };
        let refused = |step| move |errno| Refused { step, errno, log: String::new() };
        let (locals, owners, requests, kernels, sockets) =
            maps().map_err(refused("making the maps of the XDP program"))?;
        let code = program(&locals, &owners, &requests, &kernels, &sockets);
        let program = Program::load("accel_steering", &code).map_err(|(errno, log)| Refused {
            step: "loading the XDP program",
            errno,
            log,
        })?;
        let owners = owners.mapped().map_err(refused("mapping the owners of ports"))?;
        Ok(Self { locals, owners, requests, kernels, sockets, program })
    }

    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// Attaches it to an interface, for as long as the link lives.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn attach(&self, interface: u32, how: Attach) -> Result<Fd, Refused> {
        let step = match how {
            Attach::Generic => "attaching the XDP program in generic mode",
            Attach::Native => "attaching the XDP program in native mode",
        };
        self.program.attach(interface, how).map_err(|errno| Refused { step, errno, log: String::new() })
    }

    /// Accelerates an address, which is called by this slot from then on.
    ///
    /// # Errors
    /// EINVAL for a slot that there isn't; what bpf(2) says.
    pub fn set_local(&self, address: &Ip, slot: u32) -> sys::Result<()> {
        if slot >= LOCALS {
            return Err(Errno(libc::EINVAL));
        }
        self.locals.set(&address.0, &slot.to_ne_bytes())
    }

    /// No longer accelerates an address.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn remove_local(&self, address: &Ip) -> sys::Result<()> {
        self.locals.remove(&address.0).map(drop)
    }

    /// Makes an owner's array of requests: what is redirected to it waits for its word there.
    ///
    /// # Errors
    /// EINVAL for an owner that there can't be; what bpf(2) says.
    pub fn add_owner(&self, owner: u32) -> sys::Result<Requests> {
        let map = requests_of_one()?;
        self.requests.set(&owner.to_ne_bytes(), &map.fd().raw().to_ne_bytes())?;
        Requests::over(map)
    }

    /// An owner is gone: the kernel gets what was redirected to it, but for what it still owns.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn remove_owner(&self, owner: u32) -> sys::Result<()> {
        self.requests.remove(&owner.to_ne_bytes()).map(drop)
    }

    /// An owner's socket of a queue.
    ///
    /// # Errors
    /// EINVAL for an owner or a queue that there can't be; what bpf(2) says.
    pub fn set_socket(&self, owner: u32, queue: u32, socket: &Socket) -> sys::Result<()> {
        if owner >= OWNERS || queue >= QUEUES as u32 {
            return Err(Errno(libc::EINVAL));
        }
        let index = owner * QUEUES as u32 + queue;
        self.sockets.set(&index.to_ne_bytes(), &socket.fd().raw().to_ne_bytes())
    }

    /// Gives a port to an owner, or to nobody; `None` when there is no such place or owner.
    pub fn claim(&self, place: Place, claim: Option<Claim>) -> Option<()> {
        let bits = match claim {
            None => 0,
            Some(Claim { owner, mixed }) => {
                let owner = u16::try_from(owner).ok().filter(|owner| (1..OWNERS as u16).contains(owner))?;
                owner | if mixed { MIXED } else { 0 }
            }
        };
        self.owners.half(place.entry(), usize::from(place.port) * 2)?.store(bits, Ordering::Relaxed);
        Some(())
    }

    /// A connection at a mixed port is the kernel's, or not any more.
    ///
    /// # Errors
    /// E2BIG when it has too many there; what bpf(2) says.
    pub fn leave_to_kernel(&self, connection: &Connection, is_kernels: bool) -> sys::Result<()> {
        let key = connection.key();
        if is_kernels { self.kernels.set(&key, &[1]) } else { self.kernels.remove(&key).map(drop) }
    }
}

/// What an owner wants: the half that needs no rights.
#[derive(Debug)]
pub struct Requests {
    map: Map,
    values: Values,
}

impl Requests {
    /// Those of a map that [`Steering::add_owner`] has made.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn over(map: Map) -> sys::Result<Self> {
        let values = map.mapped()?;
        Ok(Self { map, values })
    }

    /// Those behind a descriptor that somebody else has opened.
    ///
    /// # Errors
    /// What mmap(2) says: EINVAL or ENODEV for what is no such map.
    pub fn adopt(fd: Fd) -> sys::Result<Self> {
        Self::over(Map::adopt(fd, (4, PORTS), LOCALS * 2))
    }

    /// The map's descriptor, for a process that is to write them.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        self.map.fd()
    }

    /// Asks for what is sent to a place, or no longer. Nothing happens to what somebody else owns.
    pub fn want(&self, place: Place, wanted: bool) {
        if let Some(byte) = self.values.byte(place.entry(), place.port.into()) {
            byte.store(wanted.into(), Ordering::Relaxed);
        }
    }
}

// Where the program keeps what it looks up, below the end of its stack: a connection's key, which begins with the local
// address; the entry of an array; an owner.
const KEY: i16 = -(CONNECTION as i16);
const LOCAL: i16 = KEY;
const REMOTE: i16 = KEY + 16;
const LOCAL_PORT: i16 = KEY + 32;
const REMOTE_PORT: i16 = KEY + 34;
const NUMBER: i16 = KEY + 36;
const ENTRY: i16 = KEY - 4;
const ONE_OWNER: i16 = KEY - 8;

/// Bytes of an Ethernet header.
const ETHERNET: i16 = 14;
// EtherTypes as a load of a little-endian machine sees them; a big-endian one sees them the other way round.
const IPV4: i32 = 0x0800u16.to_be() as i32;
const IPV6: i32 = 0x86ddu16.to_be() as i32;
/// More fragments, or an offset (RFC 791 §3.1).
const FRAGMENT: i32 = 0x3fffu16.to_be() as i32;
/// The third word of an IPv4 address that is mapped to IPv6 (RFC 4291 §2.5.5.2).
const MAPPED: i32 = 0x0000_ffffu32.to_be() as i32;

/// The program.
fn program(locals: &Map, owners: &Map, requests: &Map, kernels: &Map, sockets: &Map) -> Vec<[u8; 8]> {
    let fd = |map: &Map| map.fd().raw();
    let mut code = Assembler::new();
    let [v4, v6, ports, udp, known, is_stacks, pass] = std::array::from_fn(|_| code.label());
    let address = |code: &mut Assembler, key: i16, packet: i16| {
        code.store_number(Size::D, FP, key, 0).store_number(Size::W, FP, key + 8, MAPPED);
        code.load(Size::W, R3, R7, packet).store(Size::W, FP, key + 12, R3);
    };
    let address6 = |code: &mut Assembler, key: i16, packet: i16| {
        code.load(Size::D, R3, R7, packet).store(Size::D, FP, key, R3);
        code.load(Size::D, R3, R7, packet + 8).store(Size::D, FP, key + 8, R3);
    };
    let lookup = |code: &mut Assembler, map: &Map, key: i16| {
        code.map(R1, fd(map)).with(Op::Mov, R2, FP).number(Op::Add, R2, key.into()).call(MAP_LOOKUP);
    };
    // Nothing is read before it is known to be there. Register 7 is the packet, 8 its end.
    let reach = |code: &mut Assembler, bytes: i16| {
        code.with(Op::Mov, R2, R7).number(Op::Add, R2, bytes.into()).jump_if_reg(R2, If::Gt, R8, pass);
    };
    code.with(Op::Mov, R6, R1).load(Size::W, R7, R6, 0).load(Size::W, R8, R6, 4);
    reach(&mut code, ETHERNET);
    code.load(Size::H, R3, R7, 12).jump_if(R3, If::Eq, IPV4, v4).jump_if(R3, If::Eq, IPV6, v6).jump(pass);

    code.place(v4);
    reach(&mut code, ETHERNET + 20 + 4);
    code.load(Size::B, R3, R7, ETHERNET).jump_if(R3, If::Ne, 0x45, pass);
    code.load(Size::H, R3, R7, ETHERNET + 6).jump_if(R3, If::Set, FRAGMENT, pass);
    code.load(Size::B, R9, R7, ETHERNET + 9);
    address(&mut code, LOCAL, ETHERNET + 16);
    address(&mut code, REMOTE, ETHERNET + 12);
    code.number(Op::Add, R7, (ETHERNET + 20).into()).jump(ports);

    code.place(v6);
    reach(&mut code, ETHERNET + 40 + 4);
    code.load(Size::B, R9, R7, ETHERNET + 6);
    address6(&mut code, LOCAL, ETHERNET + 24);
    address6(&mut code, REMOTE, ETHERNET + 8);
    code.number(Op::Add, R7, (ETHERNET + 40).into());

    // Register 7 is the transport header, then the local port; 9 the protocol's number, then 0 or 1.
    code.place(ports).store(Size::W, FP, NUMBER, R9);
    code.load(Size::H, R3, R7, 2).store(Size::H, FP, LOCAL_PORT, R3);
    code.load(Size::H, R4, R7, 0).store(Size::H, FP, REMOTE_PORT, R4);
    code.from_be16(R3).number(Op::And, R3, 0xffff).with(Op::Mov, R7, R3);
    code.jump_if(R9, If::Eq, 17, udp).jump_if(R9, If::Ne, 6, pass).number(Op::Mov, R9, 0).jump(known);
    code.place(udp).number(Op::Mov, R9, 1);

    code.place(known);
    lookup(&mut code, locals, LOCAL);
    code.jump_if(R0, If::Eq, 0, pass).load(Size::W, R3, R0, 0).number(Op::Shl, R3, 1).with(Op::Add, R3, R9);
    code.store(Size::W, FP, ENTRY, R3);

    // Register 9 is the claim, then its owner.
    lookup(&mut code, owners, ENTRY);
    code.jump_if(R0, If::Eq, 0, pass).with(Op::Mov, R3, R7).number(Op::Shl, R3, 1).with(Op::Add, R0, R3);
    code.load(Size::H, R9, R0, 0).jump_if(R9, If::Eq, 0, pass);
    code.with(Op::Mov, R3, R9).number(Op::And, R3, MIXED.into()).jump_if(R3, If::Eq, 0, is_stacks);
    lookup(&mut code, kernels, KEY);
    code.jump_if(R0, If::Ne, 0, pass);
    code.place(is_stacks).number(Op::And, R9, OWNER.into()).store(Size::W, FP, ONE_OWNER, R9);

    lookup(&mut code, requests, ONE_OWNER);
    code.jump_if(R0, If::Eq, 0, pass).with(Op::Mov, R1, R0);
    code.with(Op::Mov, R2, FP).number(Op::Add, R2, ENTRY.into()).call(MAP_LOOKUP);
    code.jump_if(R0, If::Eq, 0, pass).with(Op::Add, R0, R7).load(Size::B, R3, R0, 0);
    code.jump_if(R3, If::Eq, 0, pass);

    code.load(Size::W, R3, R6, 16).jump_if(R3, If::Gt, QUEUES as i32 - 1, pass);
    code.with(Op::Mov, R2, R9).number(Op::Shl, R2, QUEUES.ilog2() as i32).with(Op::Add, R2, R3);
    code.map(R1, fd(sockets)).number(Op::Mov, R3, XDP_DROP).call(REDIRECT_MAP).exit();
    code.place(pass).number(Op::Mov, R0, XDP_PASS).exit();
    code.finish()
}

#[cfg(test)]
mod tests;
