//! A connection of the kernel's that is taken out of its socket, or put into one, by TCP_REPAIR (net/ipv4/tcp.c): what
//! [`stack::export`] says of ours, in the kernel's own calls and their order.

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use stack::export::{Snapshot, Window, from_tcp_timestamp, to_tcp_timestamp};
use stack::seq::Seq;
use stack::wire::ip::Ip;

use super::sys;

/// TCP_REPAIR's values: on, and off with a probe of the peer's window.
const ON: c_int = 1;
const OFF: c_int = 0;
/// TCP_REPAIR_QUEUE's.
const RECEIVE: c_int = 1;
const SEND: c_int = 2;
/// TCP_REPAIR_OPTIONS': kinds of TCP's options.
const MSS: u32 = 2;
const SCALE: u32 = 3;
const SACK: u32 = 4;
const STAMPS: u32 = 8;
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

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// An end, for the kernel's calls.
fn name((ip, port): (Ip, u16)) -> SocketAddr {
    let ip = ip.as_v4().map_or_else(|| Ipv6Addr::from(ip.0).into(), |ip| Ipv4Addr::from(ip).into());
    SocketAddr::new(ip, port)
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

/// Puts a connection into a socket of the calling thread's namespace, which goes on with it; text that was not sent is to be written by
/// the caller.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN; EINVAL if it contradicts itself.
pub fn put(parcel: &Parcel) -> io::Result<TcpStream> {
    let Parcel { it, unread, text } = parcel;
    let made = sys::stream_socket(!it.local.0.is_v4())?;
    let socket = made.as_fd();
    set(socket, libc::TCP_REPAIR, ON)?;
    sys::bind(socket, name(it.local))?;
    for (which, seq) in [(RECEIVE, it.receive_seq()), (SEND, it.send_seq())] {
        set(socket, libc::TCP_REPAIR_QUEUE, which)?;
        set(socket, libc::TCP_QUEUE_SEQ, seq.0 as c_int)?;
    }
    if it.timestamps.is_some() {
        set(socket, libc::TCP_TIMESTAMP, to_tcp_timestamp(it.tsval) as c_int)?;
    }
    // No packet leaves: the socket is established from here on.
    sys::connect(socket, name(it.remote))?;
    // Without scaling the shifts are said to be 0: it would keep the one that it would have offered.
    let (snd, rcv) = it.shifts.unwrap_or_default();
    let mut options = vec![MSS, it.peer_mss.into(), SCALE, u32::from(snd) | u32::from(rcv) << 16];
    if it.sack {
        options.extend([SACK, 0]);
    }
    if it.timestamps.is_some() {
        options.extend([STAMPS, 0]);
    }
    sys::set_option_bytes(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &words(&options))?;
    for (which, bytes) in [(RECEIVE, &unread[..]), (SEND, &text[..it.in_flight as usize])] {
        set(socket, libc::TCP_REPAIR_QUEUE, which)?;
        let mut left = bytes;
        while !left.is_empty() {
            left = &left[sys::send(socket, left, 0)?..];
        }
    }
    let window = &it.window;
    let window = [window.snd_wl1.0, window.snd_wnd, window.max_window, window.rcv_wnd, window.rcv_wup.0];
    sys::set_option_bytes(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_WINDOW, &words(&window))?;
    set(socket, libc::TCP_REPAIR, OFF)?;
    let stream = TcpStream::from(made);
    if it.is_finished && it.unsent == 0 {
        stream.shutdown(Shutdown::Write)?;
    }
    Ok(stream)
}
