//! A connection of the kernel's that is taken out of its socket by TCP_REPAIR (net/ipv4/tcp.c): what [`stack::export`] says of ours, in
//! the kernel's own calls and their order. [`driver::repair`] puts one into a socket.

use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};

use driver::repair::{self, Bytes};
use stack::export::{Snapshot, Window, from_tcp_timestamp};
use stack::seq::Seq;
use stack::wire::ip::Ip;

use super::sys;

/// TCP_REPAIR's value.
const ON: c_int = 1;
/// TCP_REPAIR_QUEUE's.
const RECEIVE: c_int = 1;
const SEND: c_int = 2;
/// TCP_INFO's options.
const HAS_STAMPS: u8 = 1;
const HAS_SACK: u8 = 2;
const HAS_SCALE: u8 = 4;
/// linux/sockios.h: bytes that were written and not sent.
const SIOCOUTQNSD: libc::Ioctl = 0x894b;

/// A connection that is nowhere: the snapshot, what was received and not read, what was written and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// What it is.
    pub it: Snapshot,
    /// The bytes of its receive queue.
    pub unread: Vec<u8>,
    /// The bytes of its send queue.
    pub text: Vec<u8>,
}

fn set(socket: BorrowedFd<'_>, name: c_int, value: c_int) -> io::Result<()> {
    sys::set_option(socket, libc::IPPROTO_TCP, name, value)
}

fn get<const N: usize>(socket: BorrowedFd<'_>, name: c_int) -> io::Result<[u32; N]> {
    let mut bytes = [0; 64];
    let len = sys::option_bytes(socket, libc::IPPROTO_TCP, name, &mut bytes[..4 * N])?;
    assert_eq!(len, 4 * N, "the option {name}");
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(std::array::from_fn(|index| word(4 * index)))
}

fn end(name: SocketAddr) -> (Ip, u16) {
    match name {
        SocketAddr::V4(name) => (Ip::v4(name.ip().octets()), name.port()),
        SocketAddr::V6(name) => (Ip(name.ip().octets()), name.port()),
    }
}

/// All of one queue.
fn queue(socket: BorrowedFd<'_>, which: c_int, len: u32) -> io::Result<Vec<u8>> {
    set(socket, libc::TCP_REPAIR_QUEUE, which)?;
    let mut bytes = vec![0; len as usize];
    if len > 0 {
        let got = sys::receive(socket, &mut bytes, libc::MSG_PEEK | libc::MSG_DONTWAIT)?;
        assert_eq!(got, bytes.len(), "the queue {which}");
    }
    Ok(bytes)
}

/// Takes an established connection out of its socket, which ends without a word to the peer.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn take(stream: TcpStream) -> io::Result<Parcel> {
    let socket = stream.as_fd();
    set(socket, libc::TCP_REPAIR, ON)?;
    let info = sys::tcp_info(socket)?;
    let unread = sys::queued(socket, libc::FIONREAD)?;
    let (written, unsent) = (sys::queued(socket, libc::TIOCOUTQ)?, sys::queued(socket, SIOCOUTQNSD)?);
    let unread = queue(socket, RECEIVE, unread)?;
    let [rcv_nxt] = get(socket, libc::TCP_QUEUE_SEQ)?;
    let text = queue(socket, SEND, written)?;
    let [write_seq] = get(socket, libc::TCP_QUEUE_SEQ)?;
    let [snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup] = get(socket, libc::TCP_REPAIR_WINDOW)?;
    let ([mss], [stamp]) = (get(socket, libc::TCP_MAXSEG)?, get(socket, libc::TCP_TIMESTAMP)?);
    let has = |option| info.tcpi_options & option != 0;
    // Two fields of four bits.
    let scales = (info.tcpi_snd_rcv_wscale & 15, info.tcpi_snd_rcv_wscale >> 4);
    let it = Snapshot {
        local: end(stream.local_addr()?),
        remote: end(stream.peer_addr()?),
        rcv_nxt: Seq(rcv_nxt),
        unread: unread.len() as u32,
        has_ended: false,
        snd_una: Seq(write_seq.wrapping_sub(written)),
        in_flight: written - unsent,
        unsent,
        is_finished: false,
        is_fin_sent: false,
        peer_mss: mss as u16,
        shifts: has(HAS_SCALE).then_some(scales),
        sack: has(HAS_SACK),
        // Which one came last it doesn't tell: the next one will be.
        timestamps: has(HAS_STAMPS).then_some(0),
        tsval: from_tcp_timestamp(stamp),
        ecn: false,
        window: Window { snd_wl1: Seq(snd_wl1), snd_wnd, max_window, rcv_wnd, rcv_wup: Seq(rcv_wup) },
    };
    // In repair mode this is neither a FIN nor a reset.
    drop(stream);
    Ok(Parcel { it, unread, text })
}

impl Bytes for Parcel {
    fn read(&self, at: u64, to: &mut [u8]) -> driver::sys::Result<()> {
        let all = [&self.unread[..], &self.text].concat();
        to.copy_from_slice(&all[at as usize..][..to.len()]);
        Ok(())
    }
}

/// Puts a connection into a socket of the calling thread's namespace, which goes on with it.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EINVAL if it contradicts itself.
pub fn put(parcel: &Parcel) -> io::Result<TcpStream> {
    let made = sys::stream_socket(!parcel.it.local.0.is_v4())?;
    let socket = driver::sys::Fd::own(made.try_clone()?.into_raw_fd());
    repair::put(&socket, &parcel.it, parcel, || Ok(()))
        .map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
    Ok(TcpStream::from(made))
}
