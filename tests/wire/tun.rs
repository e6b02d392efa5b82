//! An interface of the kernel's whose packets are read and written here.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use stack::device::Link;

use super::namespace::Namespace;
use super::sys;

/// Packets that the interface holds until they are read: none is to be lost but by the wire.
const QUEUE: u32 = 20_000;

/// What kind of interface.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// The kernel's addresses are 10.0.0.`number` and fd00::`number`.
    pub number: u8,
    /// A TAP carries Ethernet, a TUN carries IP.
    pub link: Link,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// The interface's name in its namespace.
pub const NAME: &str = "wire";
/// IPv6 has no smaller links (RFC 8200 §5).
const MTU_MIN6: u32 = 1280;

/// The interface.
#[derive(Debug)]
pub struct Tun {
    file: File,
    buffer: Vec<u8>,
    /// Packets that the kernel did not take.
    pub refused: u64,
}

impl Tun {
    /// A new one in this namespace.
    ///
    /// # Panics
    /// When the kernel refuses something to root.
    #[must_use]
    pub fn new(namespace: &Namespace, interface: Interface) -> Self {
        Self::make(namespace, interface, false)
    }

    /// The same of one whose packets have a header of [`super::vnet`], and need not be cut nor summed in either direction.
    ///
    /// # Panics
    /// When the kernel refuses something to root.
    #[must_use]
    pub fn with_offloads(namespace: &Namespace, interface: Interface) -> Self {
        Self::make(namespace, interface, true)
    }

    fn make(namespace: &Namespace, interface: Interface, offloads: bool) -> Self {
        let Interface { number, link, mtu } = interface;
        let made = namespace.inside(move || {
            let file = sys::open_tun(NAME, link == Link::Ethernet, offloads)?;
            sys::set_mtu(NAME, mtu)?;
            sys::set_queue(NAME, QUEUE)?;
            sys::set_address(NAME, Ipv4Addr::new(10, 0, 0, number), Ipv4Addr::new(255, 255, 255, 0))?;
            sys::set_up(NAME)?;
            if mtu >= MTU_MIN6 {
                sys::add_address6(NAME, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()), 64)?;
                // The kernel's own work ends duplicate address detection: before it the address is not used.
                while is_tentative(&format!("fd{:030x}", number))? {
                    std::thread::yield_now();
                }
            }
            Ok::<_, std::io::Error>(file)
        });
        Self { file: made.expect("an interface"), buffer: vec![0; 1 << 17], refused: 0 }
    }

    /// Reads a packet, if there is one.
    ///
    /// # Panics
    /// When the interface is gone.
    pub fn read(&mut self) -> Option<&[u8]> {
        match self.file.read(&mut self.buffer) {
            Ok(len) => self.buffer.get(..len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("reading from the interface: {error}"),
        }
    }

    /// Gives the kernel a packet.
    pub fn write(&mut self, packet: &[u8]) {
        // What the kernel finds malformed it drops, as a card would.
        let is_taken = self.file.write(packet).is_ok_and(|len| len == packet.len());
        self.refused += u64::from(!is_taken);
    }
}

/// Whether an address, in hexadecimal digits, is not yet usable.
pub(super) fn is_tentative(address: &str) -> std::io::Result<bool> {
    const IFA_F_TENTATIVE: u32 = 0x40;
    let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
    let line = addresses.lines().find(|line| line.starts_with(address));
    let flags = line.and_then(|line| u32::from_str_radix(line.split_whitespace().nth(4)?, 16).ok());
    Ok(flags.is_none_or(|flags| flags & IFA_F_TENTATIVE != 0))
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
