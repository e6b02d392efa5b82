//! A connection goes into a socket of the kernel's: TCP_REPAIR (net/ipv4/tcp.c, linux/tcp.h). The socket is fresh, but for a bind to the
//! connection's end, and its owner needs CAP_NET_ADMIN over its network namespace while this goes on.
//!
//! The socket is established before a packet may come to it; what is about to make packets come ([`put`]'s `steer`) is the last step
//! in repair mode. TCP_REPAIR knows no FIN that has arrived: such a connection is refused.

use libc::c_int;
use stack::export::{Snapshot, to_tcp_timestamp};
use stack::wire::ip::Ip;

use crate::sys::{self, Errno, Fd};

// linux/tcp.h: what libc has no name for.
const OFF: c_int = 0;
const ON: c_int = 1;
const RECEIVE: c_int = 1;
const SEND: c_int = 2;
const TCP_REPAIR_WINDOW: c_int = 29;
/// Kinds of TCP's options (IANA), as TCP_REPAIR_OPTIONS has them.
const MSS: u32 = 2;
const SCALE: u32 = 3;
const SACK: u32 = 4;
const STAMPS: u32 = 8;
/// Which buffers the user has set (Linux 5.14): a number that autotuning leaves alone.
const SO_BUF_LOCK: c_int = 72;
/// Bytes that are given to the kernel at once.
const PIECE: usize = 64 << 10;
/// What a buffer may be set to, in bytes: it is doubled.
const BUFFER_MAX: u32 = 1 << 29;

/// What brings the bytes of the queues: those that were received come first, then those that are to be sent. It fills the piece from that
/// position on.
pub trait Bytes {
    /// Fills the piece with what is at this position.
    ///
    /// # Errors
    /// What reading says; EIO if there is less.
    fn read(&self, at: u64, to: &mut [u8]) -> sys::Result<()>;
}

impl Bytes for Fd {
    fn read(&self, at: u64, to: &mut [u8]) -> sys::Result<()> {
        let mut done = 0;
        while done < to.len() {
            let rest = &mut to[done..];
            // SAFETY: the room is writable for its length.
            match unsafe {
                sys::pread(self.raw(), rest.as_mut_ptr().cast(), rest.len(), at as i64 + done as i64)
            }? {
                0 => return Err(Errno(libc::EIO)),
                count => done += count,
            }
        }
        Ok(())
    }
}

fn set(socket: &Fd, name: c_int, value: c_int) -> sys::Result<()> {
    sys::setsockopt(socket.raw(), libc::IPPROTO_TCP, name, &value)
}

/// A socket address for a socket of that version: one of IPv6 speaks IPv4, too.
fn name(socket: &Fd, (ip, port): (Ip, u16)) -> sys::Result<Vec<u8>> {
    let mut domain = 0;
    sys::getsockopt(socket.raw(), libc::SOL_SOCKET, libc::SO_DOMAIN, &mut domain)?;
    let is_v6 = domain == libc::AF_INET6;
    let mut bytes = vec![0; if is_v6 { 28 } else { 16 }];
    bytes[..2].copy_from_slice(&(domain as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    match ip.as_v4() {
        _ if is_v6 => bytes[8..24].copy_from_slice(&ip.0),
        Some(ip) => bytes[4..8].copy_from_slice(&ip),
        None => return Err(Errno(libc::EAFNOSUPPORT)),
    }
    Ok(bytes)
}

/// Puts a connection into a socket, which goes on with it. `steer` makes its packets come to the kernel.
///
/// # Errors
/// EPERM without the right, EINVAL if the connection contradicts itself, EOPNOTSUPP if the peer's FIN has arrived, and what else the kernel says: the socket has no connection then.
/// ECONNABORTED if the kernel has no memory for what is to be sent, when it is too late to go back.
pub fn put(
    socket: &Fd,
    it: &Snapshot,
    bytes: &impl Bytes,
    steer: impl FnOnce() -> sys::Result<()>,
) -> sys::Result<()> {
    if it.has_ended {
        return Err(Errno(libc::EOPNOTSUPP));
    }
    let locked = make_room(socket, it)?;
    set(socket, libc::TCP_REPAIR, ON)?;
    let done = establish(socket, it, bytes).and_then(|()| steer());
    if let Err(errno) = done {
        // In repair mode this is neither a FIN nor a reset.
        let _ = sys::connect_raw(socket.raw(), &[0; 16]);
        let _ = set(socket, libc::TCP_REPAIR, OFF);
        return Err(errno);
    }
    set(socket, libc::TCP_REPAIR, OFF)?;
    go_on(socket, it, bytes)?;
    let _ = sys::setsockopt(socket.raw(), libc::SOL_SOCKET, SO_BUF_LOCK, &locked);
    Ok(())
}

/// Makes the buffers as large as what goes into them, and what the peer was promised; which of them the user had set.
fn make_room(socket: &Fd, it: &Snapshot) -> sys::Result<c_int> {
    let mut locked: c_int = 0;
    let _ = sys::getsockopt(socket.raw(), libc::SOL_SOCKET, SO_BUF_LOCK, &mut locked);
    let (to_read, to_send) =
        (it.unread.saturating_add(it.window.rcv_wnd), it.in_flight.saturating_add(it.unsent));
    for (name, forced, least) in
        [(libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, to_read), (libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, to_send)]
    {
        // Half of a buffer is for what is around the bytes.
        let least = least.saturating_mul(2).min(BUFFER_MAX) as c_int;
        let mut now: c_int = 0;
        sys::getsockopt(socket.raw(), libc::SOL_SOCKET, name, &mut now)?;
        if now / 2 < least {
            sys::setsockopt(socket.raw(), libc::SOL_SOCKET, forced, &least)?;
        }
    }
    Ok(locked)
}

/// The socket becomes the connection. No packet leaves.
fn establish(socket: &Fd, it: &Snapshot, bytes: &impl Bytes) -> sys::Result<()> {
    let local = name(socket, it.local)?;
    if !is_named(socket, &local)? {
        sys::bind(socket, &local)?;
    }
    for (which, seq) in [(RECEIVE, it.receive_seq()), (SEND, it.send_seq())] {
        set(socket, libc::TCP_REPAIR_QUEUE, which)?;
        set(socket, libc::TCP_QUEUE_SEQ, seq.0 as c_int)?;
    }
    if it.timestamps.is_some() {
        set(socket, libc::TCP_TIMESTAMP, to_tcp_timestamp(it.tsval) as c_int)?;
    }
    sys::connect(socket, &name(socket, it.remote)?)?;
    if !is_named(socket, &local)? {
        // It was bound to any address, and the route has chosen another one.
        return Err(Errno(libc::EADDRNOTAVAIL));
    }
    // Without scaling the shifts are said to be 0: it would keep the one that it would have offered.
    let (snd, rcv) = it.shifts.unwrap_or_default();
    let scale = u32::from(snd) | u32::from(rcv) << 16;
    let mut options = vec![[MSS, it.peer_mss.into()], [SCALE, scale]];
    options.extend(it.sack.then_some([SACK, 0]));
    options.extend(it.timestamps.map(|_| [STAMPS, 0]));
    for option in options {
        sys::setsockopt(socket.raw(), libc::IPPROTO_TCP, libc::TCP_REPAIR_OPTIONS, &option)?;
    }
    for (which, begin, len) in [(RECEIVE, 0, it.unread), (SEND, it.unread.into(), it.in_flight)] {
        set(socket, libc::TCP_REPAIR_QUEUE, which)?;
        write(socket, bytes, begin, len)?;
    }
    let window = &it.window;
    let window = [window.snd_wl1.0, window.snd_wnd, window.max_window, window.rcv_wnd, window.rcv_wup.0];
    sys::setsockopt(socket.raw(), libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, &window)
}

/// Whether it is bound so.
fn is_named(socket: &Fd, local: &[u8]) -> sys::Result<bool> {
    let mut bytes = [0; 28];
    let len = sys::socket_name(socket.raw(), false, &mut bytes)?;
    let (flow, address) = (4..8, 8..24);
    let is_same = |range: core::ops::Range<usize>| bytes[range.clone()] == local[range];
    Ok(len == local.len() && is_same(2..4) && if len == 16 { is_same(flow) } else { is_same(address) })
}

/// Writes so many bytes of those from `begin` on.
fn write(socket: &Fd, bytes: &impl Bytes, begin: u64, len: u32) -> sys::Result<()> {
    let mut room = vec![0; PIECE.min(len as usize)];
    let mut done = 0;
    while done < len as usize {
        let piece = &mut room[..PIECE.min(len as usize - done)];
        bytes.read(begin + done as u64, piece)?;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the piece is readable for its length.
        done += unsafe { sys::send(socket.raw(), piece.as_ptr().cast(), piece.len(), flags) }?;
    }
    Ok(())
}

/// What was written and not sent follows, and then the FIN, if the user has sent all.
fn go_on(socket: &Fd, it: &Snapshot, bytes: &impl Bytes) -> sys::Result<()> {
    let begin = u64::from(it.unread) + u64::from(it.in_flight);
    if write(socket, bytes, begin, it.unsent).is_err() {
        // The peer must not take what it has got for all.
        let abort = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = sys::setsockopt(socket.raw(), libc::SOL_SOCKET, libc::SO_LINGER, &abort);
        let _ = sys::connect_raw(socket.raw(), &[0; 16]);
        return Err(Errno(libc::ECONNABORTED));
    }
    if it.is_finished {
        sys::shutdown(socket.raw(), libc::SHUT_WR)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_socket_is_named_by_its_own_version() {
        let socket = |domain| sys::socket(domain, libc::SOCK_STREAM, 0).expect("a socket");
        let (four, six) = (socket(libc::AF_INET), socket(libc::AF_INET6));
        let end = (Ip::v4([127, 0, 0, 1]), 258);
        let mapped = name(&six, end).expect("a name");
        assert_eq!(
            (mapped.len(), &mapped[2..4], &mapped[18..24]),
            (28, &[1, 2][..], &[255, 255, 127, 0, 0, 1][..])
        );
        assert_eq!(name(&four, end).expect("a name").len(), 16);
        assert_eq!(name(&four, (Ip([1; 16]), 1)), Err(Errno(libc::EAFNOSUPPORT)));
        assert_eq!(is_named(&four, &name(&four, (Ip::UNSPECIFIED_V4, 0)).expect("a name")), Ok(true));
        assert_eq!(is_named(&four, &name(&four, end).expect("a name")), Ok(false));
    }
}
