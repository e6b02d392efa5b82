//! Our stack at one end and the kernel at the other, and connections between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use stack::device::Link;
use stack::error::Error;
use stack::region::Limits;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};

use super::calls::Calls;
use super::line::Lines;
use super::namespace::Namespace;
use super::ours::{Ours, setup};
use super::sys;
use super::tun::{Interface, Tun};
use crate::sim::path::Path;
use crate::sim::port::Setup;
use crate::sim::raw::{ip, ip6};

/// The kernel's number, and ours.
pub const KERNEL: u8 = 1;
/// See [`KERNEL`].
pub const OURS: u8 = 2;
/// The port of listeners.
pub const PORT: u16 = 7000;

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What packets begin with.
    pub link: Link,
    /// Largest IP packet.
    pub mtu: u32,
    /// Frames of our device.
    pub frames: u32,
    /// Sockets that we may have.
    pub sockets: u32,
    /// The wire, each way.
    pub path: Path,
    /// Of chance.
    pub seed: u64,
    /// Wires: one for all, or one for each flow.
    pub flows: usize,
    /// Packets need not be cut nor summed in either direction.
    pub offloads: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            link: Link::Ip,
            mtu: 1500,
            frames: 8192,
            sockets: 256,
            path: Path::IDEAL,
            seed: 1,
            flows: 1,
            offloads: false,
        }
    }
}

/// The two ends.
pub struct World {
    /// The kernel's.
    pub namespace: Namespace,
    /// Ours.
    pub ours: Ours,
    /// SO_RCVBUF of the kernel's sockets, if it is set.
    pub kernel_buffer: Option<i32>,
    /// Options of ours.
    pub values: Values,
}

/// Which version of IP, and who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// IPv6.
    pub is_v6: bool,
    /// We connect and the kernel listens.
    pub ours_connects: bool,
}

impl Side {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self { is_v6: false, ours_connects: true },
        Self { is_v6: false, ours_connects: false },
        Self { is_v6: true, ours_connects: true },
        Self { is_v6: true, ours_connects: false },
    ];
}

/// The kernel's address, or ours, for the kernel's sockets.
#[must_use]
pub fn address(number: u8, is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, number).into()
    }
}

/// Sets options before the handshake, which tells the peer of some of them.
///
/// A namespace inherits the host's congestion control, and may itself choose only what everybody may; a socket of root's may
/// choose any.
fn prepare(socket: std::os::fd::BorrowedFd<'_>, buffer: Option<i32>) {
    sys::set_option_bytes(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, b"cubic").expect("CUBIC");
    if let Some(bytes) = buffer {
        sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).expect("SO_RCVBUFFORCE");
    }
}

impl World {
    /// A new one; `None`, and a line that is counted, without the rights of root.
    #[must_use]
    pub fn new(recipe: &Recipe) -> Option<Self> {
        let Recipe { link, mtu, frames, sockets, path, seed, flows, offloads } = *recipe;
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => {
                println!("SKIP the wire to the kernel: a network namespace: {error}");
                return None;
            }
        };
        let interface = Interface { number: KERNEL, link, mtu };
        let (tun, setup) = if offloads {
            let setup = Setup { link, mtu, frames, ring: 4096, ..Setup::offloads(OURS) };
            (Tun::with_offloads(&namespace, interface), setup)
        } else {
            (Tun::new(&namespace, interface), setup(OURS, link, mtu, frames))
        };
        let limits = Limits {
            frames,
            frame_size: setup.frame_size.into(),
            tcp_sockets: sockets,
            traffics: 256,
            bounds: sockets,
            ..Limits::SMALL
        };
        let lines = [Lines::new(path, seed, PORT, flows), Lines::new(path, seed + 1, PORT, flows)];
        let ours = Ours::new(OURS, &limits, setup, tun, lines);
        Some(Self { namespace, ours, kernel_buffer: None, values: Values::default() })
    }

    /// A listener of the kernel's.
    ///
    /// # Panics
    /// When the kernel has none.
    #[must_use]
    pub fn kernel_listener(&self, is_v6: bool, port: u16) -> TcpListener {
        let (at, buffer) = (SocketAddr::new(address(KERNEL, is_v6), port), self.kernel_buffer);
        self.namespace.inside(move || {
            let listener = TcpListener::bind(at).expect("a listener of the kernel's");
            prepare(listener.as_fd(), buffer);
            listener
        })
    }

    /// A connection: our socket, and the kernel's.
    ///
    /// # Panics
    /// When it does not come to be.
    pub fn pair(&mut self, side: Side) -> (Handle, TcpStream) {
        self.try_pair(side).expect("a connection")
    }

    /// The same.
    ///
    /// # Errors
    /// Those of our connect(2).
    pub fn try_pair(&mut self, side: Side) -> Result<(Handle, TcpStream), Error> {
        let Side { is_v6, ours_connects } = side;
        if ours_connects {
            let listener = self.kernel_listener(is_v6, PORT);
            let remote = if is_v6 { ip6(KERNEL) } else { ip(KERNEL) };
            let socket = self.ours.connect(remote, PORT, &self.values)?;
            let accepting = std::thread::spawn(move || listener.accept().expect("a connection").0);
            return Ok((socket, self.ours.join(accepting)));
        }
        // A connection before it may be in TIME-WAIT.
        let options = self.values.options | Switch::REUSE_ADDRESS;
        let values = Values { options, ..self.values };
        let listener = self.ours.listen(PORT, &values);
        let (at, buffer) = (SocketAddr::new(address(OURS, is_v6), PORT), self.kernel_buffer);
        let connecting = self.namespace.spawn(move || connect(at, buffer));
        let socket = self.ours.accept(listener)?;
        self.ours.close(listener);
        Ok((socket, self.ours.join(connecting)))
    }
}

/// A connection of the kernel's, from the calling thread's namespace.
fn connect(at: SocketAddr, buffer: Option<i32>) -> TcpStream {
    let socket = sys::stream_socket(at.is_ipv6()).expect("a socket of the kernel's");
    prepare(socket.as_fd(), buffer);
    sys::connect(socket.as_fd(), at).expect("a connection of the kernel's");
    socket.into()
}
