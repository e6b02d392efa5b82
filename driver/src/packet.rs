//! Packet sockets with virtio's header before each packet (packet(7), PACKET_VNET_HDR): what gives the kernel packets that it
//! cuts into segments itself, or hands on whole where the other end is this host's. AF_XDP has no word for that.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | here | the socket, and the header | where memory is handed to the kernel |
//! | [`queue`] | packets that wait to be sent, in memory that processes share | yes |
//! | [`sender`] | who sends them: one at a time, in their order | no |

use std::fmt;

use libc::{c_int, iovec};
use stack::device::Fragment;

use crate::sys::{self, Errno, Fd};

pub mod queue;
pub mod sender;

/// Most pieces of a packet.
pub const PIECES: usize = 64;
/// Bytes that may wait in the kernel until the far end has taken them.
const SEND_BUFFER: c_int = 8 << 20;
// linux/if_packet.h; libc has no names for them.
const PACKET_VNET_HDR: c_int = 15;
const PACKET_QDISC_BYPASS: c_int = 20;
// linux/virtio_net.h.
const NEEDS_CSUM: u8 = 1;

/// What the kernel is to cut: virtio's `gso_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Nothing.
    #[default]
    None = 0,
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP over either.
    Udp = 5,
}

/// What stands before a packet: `struct virtio_net_hdr` (virtio 1.2 §5.1.6), in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// Whether a checksum is to be completed.
    flags: u8,
    kind: u8,
    /// Bytes of the packet's headers, which the kernel keeps in one piece.
    head_len: u16,
    /// Bytes of text of each segment.
    gso_size: u16,
    /// Where the checksum's bytes begin.
    csum_start: u16,
    /// Where in them it is stored.
    csum_offset: u16,
}

const _: () = assert!(size_of::<Header>() == 10);

impl Header {
    /// Of a packet that is cut so, with headers of so many bytes; its checksum begins and is stored there.
    #[must_use]
    pub const fn cut(cut: Cut, gso_size: u16, head_len: u16, (start, offset): (u16, u16)) -> Self {
        Self {
            flags: NEEDS_CSUM,
            kind: cut as u8,
            head_len,
            gso_size,
            csum_start: start,
            csum_offset: offset,
        }
    }

    /// Of a packet that is sent as it is, with headers of so many bytes.
    #[must_use]
    pub const fn whole(head_len: u16) -> Self {
        Self { flags: 0, kind: 0, head_len, gso_size: 0, csum_start: 0, csum_offset: 0 }
    }

    /// Bytes of the packet's headers.
    #[must_use]
    pub const fn head_len(&self) -> u16 {
        self.head_len
    }
}

/// Why there is no socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was tried.
    pub step: &'static str,
    /// Of which interface.
    pub interface: u32,
    /// What the kernel said.
    pub errno: Errno,
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, interface, errno } = self;
        write!(to, "interface {interface}: {step}: errno {}: segments leave one by one", errno.0)
    }
}

/// A packet socket that only sends, by one interface.
///
/// Whoever has the descriptor may send by any interface of its network namespace: the kernel asks for rights only when such a socket is
/// made. Nobody can receive by it, whatever he binds it to.
#[derive(Debug)]
pub struct Socket(Fd);

impl Socket {
    /// Makes the socket of an interface. `direct` goes around its queue of packets: for one that takes all at once anyway.
    ///
    /// # Errors
    /// What the kernel refuses, and where.
    pub fn open(interface: u32, direct: bool) -> Result<Self, Refused> {
        let refused = |step| move |errno| Refused { step, interface, errno };
        // Protocol 0: nothing that arrives is of interest.
        let fd =
            sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(refused("making a packet socket"))?;
        let set = |level, name, value: c_int| sys::setsockopt(fd.raw(), level, name, &value);
        deafen(&fd).map_err(refused("closing it to what arrives"))?;
        set(libc::SOL_PACKET, PACKET_VNET_HDR, 1).map_err(refused("asking for virtio's header"))?;
        if direct {
            set(libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1).map_err(refused("going around its queue"))?;
        }
        let _ = set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER);
        // SAFETY: all-zero bytes are a valid value: it is numbers.
        let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = interface as i32;
        sys::bind_to(&fd, &address).map_err(refused("binding it to the interface"))?;
        Ok(Self(fd))
    }

    /// The socket behind a descriptor that somebody else has opened.
    #[must_use]
    pub const fn adopt(fd: Fd) -> Self {
        Self(fd)
    }

    /// Its descriptor.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        &self.0
    }

    /// Sends a packet whose bytes are these pieces of the frames that begin at `base`. The kernel has copied them when this returns.
    ///
    /// # Errors
    /// What sendmsg(2) says: EAGAIN when its buffer is full.
    ///
    /// # Panics
    /// Never: there is room for every piece that is looked at.
    pub fn send(&self, header: &Header, base: Frames<'_>, pieces: &[Fragment]) -> sys::Result<usize> {
        let mut vector = [const { iovec { iov_base: core::ptr::null_mut(), iov_len: 0 } }; PIECES + 1];
        let head = core::ptr::from_ref(header).cast_mut().cast();
        vector[0] = iovec { iov_base: head, iov_len: size_of::<Header>() };
        let mut count = 1;
        for (to, piece) in vector[1..].iter_mut().zip(pieces) {
            *to = base.piece(piece).ok_or(Errno(libc::EFAULT))?;
            count += 1;
        }
        // SAFETY: all-zero bytes are a valid value: null pointers and zero lengths.
        let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (vector.as_mut_ptr(), count);
        // SAFETY: the header and the vector live here, and the pieces are in memory that is mapped while `base` is lent; the kernel only
        // reads them.
        unsafe { sys::sendmsg(self.0.raw(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    }
}

/// A filter that takes nothing, and stays: `bind` asks for no rights, and would let who has the socket hear every interface.
fn deafen(fd: &Fd) -> sys::Result<()> {
    let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    let locked: c_int = 1;
    sys::setsockopt(fd.raw(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &locked)
}

/// Where frames are, for the kernel to read.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    /// The memory that they are in: frames of one size from its beginning on.
    pub memory: &'a crate::xdp::umem::Mapping,
    /// Bytes of a frame.
    pub frame_size: u16,
}

impl Frames<'_> {
    fn piece(&self, piece: &Fragment) -> Option<iovec> {
        let at = piece.frame.0 as usize * usize::from(self.frame_size) + usize::from(piece.offset);
        let is_inside = at + usize::from(piece.len) <= self.memory.length();
        is_inside.then(|| iovec {
            iov_base: (self.memory.address() as usize + at) as *mut libc::c_void,
            iov_len: piece.len.into(),
        })
    }
}
