//! One AF_XDP socket: one queue of an interface, its four rings and its options (Documentation/networking/af_xdp.rst, net/xdp/xsk.c).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{c_int, xdp_desc};

use super::ring::{Consumer, Offsets, Producer};
use super::umem::Umem;
use crate::sys::{self, Errno, Fd};

/// Packets that one call sends at most: without it 32 (net/xdp/xsk.c, since 6.18). libc has no name for it.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;
/// What we want of it.
const BUDGET: u32 = 256;
/// Bytes that may wait in the kernel's own buffers between its copy of a packet and the packet's end.
const SEND_BUFFER: c_int = 4 << 20;
/// A queue whose last owner has just ended is still taken for a moment (xsk_destruct is deferred): measured 1 to 20 ms.
const REBIND: Duration = Duration::from_millis(300);

/// How packets get between device and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies: every device.
    Copy,
    /// The device reads and writes frames.
    ZeroCopy,
}

/// Which queue, and how.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The interface.
    pub interface: u32,
    /// Its queue, from 0 on.
    pub queue: u32,
    /// How packets get there.
    pub mode: Mode,
    /// Packets of several frames (XDP_USE_SG).
    pub multi_buffer: bool,
    /// Entries of each ring: a power of two.
    pub entries: u32,
}

/// Why there is no socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was tried.
    pub step: &'static str,
    /// Of which interface and queue.
    pub interface: u32,
    /// Likewise.
    pub queue: u32,
    /// What the kernel said.
    pub errno: Errno,
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, interface, queue, errno } = self;
        let next = match errno.0 {
            libc::EBUSY => "another program has this queue; end it, or take another interface",
            libc::EPERM | libc::EACCES => "CAP_NET_RAW is missing; start accel as root",
            libc::EOPNOTSUPP => "the device can't do that; leave the mode to accel",
            libc::EINVAL => "the interface has no such queue, or frames are too small for its MTU",
            libc::ENODEV => "there is no such interface",
            libc::ENOBUFS | libc::ENOMEM => {
                "memory is short; take fewer frames, or raise the limit on locked memory"
            }
            libc::EAFNOSUPPORT => "this kernel has no AF_XDP",
            _ => "the socket stays on the kernel",
        };
        write!(to, "interface {interface}, queue {queue}: {step}: errno {}: {next}", errno.0)
    }
}

/// The socket.
#[derive(Debug)]
pub struct Socket {
    pub(super) rx: Consumer<xdp_desc>,
    pub(super) tx: Producer<xdp_desc>,
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
    offsets: Offsets,
    entries: u32,
    fd: Arc<Fd>,
}

/// What tells the kernel of a transmit ring, apart from the socket: that one is worked with under the stack's lock, and system calls are not
/// made there.
#[derive(Debug)]
pub struct Waker {
    /// The same ring once more, to be looked at only.
    tx: Producer<xdp_desc>,
    fd: Arc<Fd>,
}

/// What the kernel counts of a socket: `struct xdp_statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for other reasons than those below.
    pub rx_dropped: u64,
    /// Bad entries of the fill ring.
    pub rx_invalid: u64,
    /// Bad entries of the transmit ring.
    pub tx_invalid: u64,
    /// Packets dropped since the receive ring was full.
    pub rx_ring_full: u64,
    /// Packets that met an empty fill ring.
    pub fill_ring_empty: u64,
}

/// How far a socket's owner has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets that wait in the receive ring.
    pub waiting: u32,
    /// Where the owner is in the receive ring and in the fill ring: either moves when it works.
    pub received: u32,
    /// Likewise.
    pub filled: u32,
}

impl Socket {
    /// How far its owner has come, whichever process that is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { waiting: self.rx.len(), received: self.rx.position(), filled: self.fill.position() }
    }

    /// Makes the socket of a queue and binds it. The first socket of an interface brings the frames, others share them with it.
    ///
    /// # Errors
    /// What the kernel refuses, and where.
    pub fn open(config: &Config, umem: &Umem, first: Option<&Self>) -> Result<Self, Refused> {
        let refused =
            |step| move |errno| Refused { step, interface: config.interface, queue: config.queue, errno };
        let fd = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(refused("making an AF_XDP socket"))?;
        if first.is_none() {
            let memory = libc::xdp_umem_reg {
                addr: umem.address(),
                len: umem.length(),
                chunk_size: umem.frame_size().into(),
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            set(&fd, libc::XDP_UMEM_REG, &memory).map_err(refused("registering its frames"))?;
        }
        let rings =
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING];
        for ring in rings {
            set(&fd, ring, &config.entries).map_err(refused("making its rings"))?;
        }
        // A larger budget and buffer make bulk cheaper; without them it works.
        let _ = set(&fd, XDP_MAX_TX_SKB_BUDGET, &BUDGET);
        let _ = sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        bind(&fd, config, first).map_err(refused("binding it to the queue"))?;
        Self::adopt(fd, config.entries).map_err(refused("mapping its rings"))
    }

    /// The socket behind a descriptor that somebody else has opened.
    ///
    /// # Errors
    /// EINVAL when its rings have another size; what mmap(2) says.
    pub fn adopt(fd: Fd, entries: u32) -> sys::Result<Self> {
        // SAFETY: all-zero bytes are a valid value: it is numbers.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { core::mem::zeroed() };
        let length = sys::getsockopt(fd.raw(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        if length != size_of_val(&offsets) {
            return Err(Errno(libc::EINVAL));
        }
        let of = |ring: libc::xdp_ring_offset| Offsets {
            producer: ring.producer,
            consumer: ring.consumer,
            flags: ring.flags,
            entries: ring.desc,
        };
        Ok(Self {
            rx: Consumer::map(&fd, libc::XDP_PGOFF_RX_RING as u64, of(offsets.rx), entries)?,
            tx: Producer::map(&fd, libc::XDP_PGOFF_TX_RING as u64, of(offsets.tx), entries)?,
            fill: Producer::map(&fd, libc::XDP_UMEM_PGOFF_FILL_RING, of(offsets.fr), entries)?,
            completion: Consumer::map(&fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING, of(offsets.cr), entries)?,
            offsets: of(offsets.tx),
            entries,
            fd: Arc::new(fd),
        })
    }

    /// Its descriptor.
    #[must_use]
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// What tells the kernel that something is to be sent.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn waker(&self) -> sys::Result<Waker> {
        let tx = Producer::map(&self.fd, libc::XDP_PGOFF_TX_RING as u64, self.offsets, self.entries)?;
        Ok(Waker { tx, fd: Arc::clone(&self.fd) })
    }

    /// The kernel's counts.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn statistics(&self) -> sys::Result<Statistics> {
        // SAFETY: all-zero bytes are a valid value: it is numbers.
        let mut counts: libc::xdp_statistics = unsafe { core::mem::zeroed() };
        sys::getsockopt(self.fd.raw(), libc::SOL_XDP, libc::XDP_STATISTICS, &mut counts)?;
        Ok(Statistics {
            rx_dropped: counts.rx_dropped,
            rx_invalid: counts.rx_invalid_descs,
            tx_invalid: counts.tx_invalid_descs,
            rx_ring_full: counts.rx_ring_full,
            fill_ring_empty: counts.rx_fill_ring_empty_descs,
        })
    }
}

impl Waker {
    /// Has the kernel send what is in the transmit ring: as much as it takes in one go, until there is nothing left or it
    /// wants to be asked later. Whether something is left.
    pub fn kick(&self) -> bool {
        loop {
            let before = self.tx.waiting();
            if before == 0 || !self.tx.needs_wakeup() {
                return false;
            }
            match sys::kick(&self.fd) {
                // A device that reads frames itself was told, and goes on by itself.
                Ok(()) if self.tx.waiting() == before => return false,
                Ok(()) => {}
                // Its budget for one call is used up, or its buffers are: it is asked again as long as that helps.
                Err(Errno(libc::EAGAIN)) if self.tx.waiting() != before => {}
                Err(_) => return true,
            }
        }
    }
}

fn set<T: Copy>(fd: &Fd, name: c_int, value: &T) -> sys::Result<()> {
    sys::setsockopt(fd.raw(), libc::SOL_XDP, name, value)
}

fn bind(fd: &Fd, config: &Config, first: Option<&Socket>) -> sys::Result<()> {
    let mode = match config.mode {
        Mode::Copy => libc::XDP_COPY,
        Mode::ZeroCopy => libc::XDP_ZEROCOPY,
    };
    let many = if config.multi_buffer { libc::XDP_USE_SG } else { 0 };
    // Who shares frames shares the mode, and may not name one.
    let flags = if first.is_some() { libc::XDP_SHARED_UMEM } else { mode | many | libc::XDP_USE_NEED_WAKEUP };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: config.interface,
        sxdp_queue_id: config.queue,
        sxdp_shared_umem_fd: first.map_or(0, |first| first.fd.raw() as u32),
    };
    let until = Instant::now() + REBIND;
    loop {
        match sys::bind_to(fd, &address) {
            Err(Errno(libc::EBUSY)) if Instant::now() < until => sys::nanosleep(1_000_000),
            done => return done,
        }
    }
}
