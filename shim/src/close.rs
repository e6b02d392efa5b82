//! The ends of a connection's rings: close, shutdown, giving the socket away, a peer that cheats.

use core::sync::atomic::Ordering::SeqCst;

use driver::cards::{Path, flag};
use driver::channel::Channel;
use driver::clock::ticks;
use driver::switch::available;
use driver::sys::{self, Errno};
use libc::c_int;
use rows::reasons::Reason;

use crate::slot::{Both, Outcome, Sending, Socket};
use crate::{epoll, family, guard, meet, nagle, net, process, real, rx, statistics, tx};

/// The last descriptor of this process is going. `closing`: the program closes it now; otherwise the number
/// was reused behind our back and nothing may be done to what it names today.
pub(crate) fn last_descriptor(socket: &Socket, closing: bool) {
    epoll::leave_all(socket);
    meet::close_mailbox(socket);
    net::open::closed(socket, closing);
    {
        let both = socket.lock_both();
        if socket.is_current() {
            meet::abandon(socket, &both);
            if socket.slot.owner() == family::pid() || socket.card.is_sole_holder(family::pid()) {
                statistics::count(socket, socket.parts(&both).channel.as_ref());
            }
            if socket.is_live() {
                close_rings(socket, &both, closing);
            }
        }
    }
    socket.free_if_unused();
}

fn close_rings(socket: &Socket, both: &Both, closing: bool) {
    let parts = socket.parts(both);
    let Some(channel) = parts.channel.as_ref() else { return };
    let sole = socket.card.is_sole_holder(family::pid());
    if !sole && socket.slot.owner() != family::pid() {
        // Inherited and never used here: whoever owns the rings goes on with them.
        return;
    }
    let unread =
        channel.incoming().revoke().position() != channel.incoming().head() && rx::comes_here(channel);
    channel.outgoing().revoke();
    if !closing {
        return;
    }
    give_at_end(socket, channel, parts.sending);
    if !sole {
        // Whoever else holds the socket may know of the kernel only.
        channel.give_up();
        return;
    }
    if unread && !channel.gave_up() && !process::is_forbidden() {
        // Linux answers a close with unread data by RST: make the kernel do it.
        let abort = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_LINGER, &abort);
    } else {
        channel.finish();
    }
}

/// The process is about to end with the socket open.
pub(crate) fn before_exit(socket: &Socket) {
    let both = socket.lock_both();
    if !socket.is_current() {
        return;
    }
    meet::abandon(socket, &both);
    statistics::count(socket, socket.parts(&both).channel.as_ref());
    if !socket.is_live() {
        return;
    }
    close_rings(socket, &both, true);
}

/// `shutdown(2)` is about to be called.
pub(crate) fn before_shutdown(socket: &Socket, how: c_int) {
    family::check_owner(socket);
    if how != libc::SHUT_RD {
        statistics::finishes_sending(socket);
    }
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if !socket.is_current() || !socket.is_live() {
        drop(both);
        socket.settle(Reason::Finished);
        return;
    }
    let parts = socket.parts(&both);
    let Some(channel) = parts.channel.as_ref() else { return };
    if how != libc::SHUT_RD {
        channel.outgoing().revoke();
        give_at_end(socket, channel, parts.sending);
        channel.finish();
        socket.card.set(flag::SENT_FIN, true);
    }
    if how != libc::SHUT_WR {
        channel.incoming().revoke();
    }
}

/// The socket goes where we cannot follow (another program, stdio, kTLS): kernel from now on, both ways.
/// Never waits for the peer: what it sent and nobody read here, it takes back and sends through the kernel.
pub(crate) fn give_away(socket: &Socket, reason: Reason) {
    net::datagram::give_back(socket, reason);
    if net::handover::to_kernel(socket, reason) {
        return;
    }
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if !socket.is_current() {
        return;
    }
    let parts = socket.parts(&both);
    if socket.is_live()
        && let Some(channel) = parts.channel.as_ref()
    {
        leave_sending(socket, channel, parts.sending);
        channel.give_up();
        socket.card.describe(socket.fd, Path::Kernel, reason as u8);
        family::table().count_reason(reason as u8);
        nagle::restore(socket);
        rx::mark::restore(socket);
        return;
    }
    drop(both);
    socket.settle(reason);
}

/// Only the kernel can honour what the program asked for; the socket stays in this program.
pub(crate) fn to_kernel_for_good(socket: &Socket, reason: Reason) {
    net::datagram::give_back(socket, reason);
    if net::handover::to_kernel(socket, reason) {
        return;
    }
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if socket.is_current() && socket.is_live() {
        let parts = socket.parts(&both);
        if let Some(channel) = parts.channel.as_ref() {
            leave_sending(socket, channel, parts.sending);
            channel.incoming().revoke();
        }
        socket.begin_to_leave(&both);
        socket.card.describe(socket.fd, Path::Kernel, reason as u8);
        family::table().count_reason(reason as u8);
        return;
    }
    drop(both);
    socket.settle(reason);
}

/// Whether the peer's FIN has arrived (and not its RST): the states that only a FIN leads to, linux/tcp.h.
pub(crate) fn peer_sent_fin(fd: c_int) -> bool {
    const CLOSE_WAIT: u8 = 8;
    const LAST_ACK: u8 = 9;
    const CLOSING: u8 = 11;
    const TIME_WAIT: u8 = 6;
    matches!(state(fd), CLOSE_WAIT | LAST_ACK | CLOSING | TIME_WAIT)
}

/// Whether the connection has failed and the kernel has nothing of it any more.
pub(crate) fn has_failed(fd: c_int) -> bool {
    const CLOSE: u8 = 7;
    state(fd) == CLOSE && sys::ioctl_int(fd, libc::FIONREAD) == Ok(0)
}

/// `tcpi_state`.
fn state(fd: c_int) -> u8 {
    let mut info = [0u8; 8];
    let _ = sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
    info[0]
}

/// The peer was killed with bytes of ours unread in the ring: Linux would have answered with RST. Ending the
/// connection by connect(AF_UNSPEC) leaves ECONNRESET behind, once; the shutdown (which takes effect although
/// it fails with ENOTCONN) then end of stream and EPIPE instead of ENOTCONN.
pub(crate) fn as_if_reset(fd: c_int) {
    let nobody = [0u8; 16];
    let _ = sys::connect_raw(fd, &nobody);
    let _ = sys::shutdown(fd, libc::SHUT_RDWR);
}

/// The program ends the connection by connect(AF_UNSPEC), which throws away what is unread: the rings end
/// with it, and the socket stays on the kernel whatever it is connected to next.
pub(crate) fn disconnect(socket: &Socket) {
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if !socket.is_current() || !socket.is_live() {
        return;
    }
    if let Some(channel) = socket.parts(&both).channel.as_ref() {
        channel.outgoing().revoke();
        channel.incoming().revoke();
    }
    epoll::tell_kernel_of(socket);
    socket.leave_rings(&both, Reason::Finished);
}

/// The peer wrote impossible values: the connection ends, for both.
pub(crate) fn violation(socket: &Socket, channel: &Channel) -> Outcome {
    channel.incoming().revoke();
    channel.outgoing().revoke();
    if socket.card.flags.fetch_or(flag::BROKEN, SeqCst) & flag::BROKEN == 0 {
        socket.card.describe(socket.fd, Path::Kernel, Reason::Violation as u8);
        family::table().count_reason(Reason::Violation as u8);
        let abort = libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_LINGER, &abort);
        let _ = sys::shutdown(socket.fd, libc::SHUT_RDWR);
    }
    Outcome::Fail(Errno(libc::ECONNRESET))
}

/// The sending direction leaves the ring for good, and the kernel is used next by somebody who does not know of it.
pub(crate) fn leave_sending(socket: &Socket, channel: &Channel, sending: &mut Sending) {
    channel.outgoing().revoke();
    give_all(socket, channel, sending);
}

/// Rule 6 of the protocol: what the peer has not taken from the ring goes to the kernel, ahead of what is sent
/// there next. If the peer gave its end away, nobody else can bring its new holder those bytes; otherwise they stay
/// in the ring if the kernel has no room. False: a part was taken back that the kernel has no room for yet, and
/// nothing may be sent before it.
///
/// The send lock is held.
#[must_use]
pub(crate) fn unread_to_kernel(socket: &Socket, channel: &Channel, sending: &mut Sending) -> bool {
    let outgoing = channel.outgoing();
    if sending.taken_back.is_none() {
        let given_up = channel.peer_gave_up();
        if given_up {
            outgoing.revoke();
        }
        let unread = unread_bytes(channel);
        let in_order = || outgoing.nothing_follows() && kernel_has_room(socket.fd, unread);
        if unread == 0 || !given_up && !in_order() {
            return true;
        }
        outgoing.close();
        sending.taken_back = outgoing.take_back(channel.capacity() as u64);
        if let Some((_, bytes)) = sending.taken_back {
            outgoing.kernel_send_begins(bytes);
            // What was readable must not wait for an acknowledgement.
            nagle::push(socket);
        }
    }
    give_to_kernel(socket, channel, sending)
}

/// Gives the kernel what was taken back, as far as it has room. If it fails, the rest stays taken back, and the peer
/// finds it in the ring behind the kernel's last byte.
fn give_to_kernel(socket: &Socket, channel: &Channel, sending: &mut Sending) -> bool {
    let outgoing = channel.outgoing();
    while let Some((from, left)) = sending.taken_back {
        if left == 0 {
            sending.taken_back = None;
            break;
        }
        let (at, length) = channel.outgoing_ring().piece(from, left as usize);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `piece` lies inside the mapped ring, and nobody writes it: the direction is closed.
        match unsafe { sys::send(socket.fd, at.cast(), length, flags) } {
            Ok(sent) => sending.taken_back = Some((from + sent as u64, left - sent as u64)),
            Err(Errno(libc::EAGAIN)) => return false,
            Err(_) => {
                outgoing.kernel_send_ends(left, 0);
                sending.taken_back = None;
            }
        }
    }
    true
}

/// The same where there will be no second try: waits for a kernel that takes something now and then.
fn give_all(socket: &Socket, channel: &Channel, sending: &mut Sending) {
    const PATIENCE_MS: c_int = 1000;
    while !unread_to_kernel(socket, channel, sending) {
        let mut poll = libc::pollfd { fd: socket.fd, events: libc::POLLOUT, revents: 0 };
        // SAFETY: one entry.
        if unsafe { sys::poll(&raw mut poll, 1, PATIENCE_MS) } == Ok(0) {
            break;
        }
    }
}

/// The same, before the stream ends: if there is no room, the kernel's buffer is made larger.
fn give_at_end(socket: &Socket, channel: &Channel, sending: &mut Sending) {
    let unread = unread_bytes(channel);
    if unread == 0 || kernel_has_room(socket.fd, unread) {
        return give_all(socket, channel, sending);
    }
    let mut old: c_int = 0;
    let known = sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &mut old).is_ok();
    let wanted = c_int::try_from(unread).unwrap_or(c_int::MAX);
    let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &wanted);
    give_all(socket, channel, sending);
    if known {
        // The kernel doubles what it is told: socket(7).
        let _ = sys::setsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &(old / 2));
    }
}

/// Bytes of ours that the peer has not taken; none that we may not touch any more.
fn unread_bytes(channel: &Channel) -> u64 {
    let outgoing = channel.outgoing();
    if outgoing.is_consumed() || outgoing.is_taken_back() || process::is_forbidden() {
        return 0;
    }
    available(outgoing.word().position(), outgoing.head(), channel.capacity() as u64).unwrap_or(0)
}

/// Whether the kernel takes so many bytes at once: tcp_sendmsg_locked in net/ipv4/tcp.c asks before each
/// packet whether `wmem_queued` is below `sndbuf`, and a packet counts for more than its bytes.
fn kernel_has_room(fd: c_int, bytes: u64) -> bool {
    // linux/sock_diag.h.
    const SK_MEMINFO_SNDBUF: usize = 3;
    const SK_MEMINFO_WMEM_QUEUED: usize = 5;
    const HEADROOM: u64 = 16 << 10;
    let mut memory = [0u32; 9];
    let known = sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut memory).is_ok();
    let queued = u64::from(memory[SK_MEMINFO_WMEM_QUEUED]);
    known && queued + bytes + bytes / 8 + HEADROOM <= u64::from(memory[SK_MEMINFO_SNDBUF])
}

/// While bytes of ours lie unread in the ring, a thread that would sleep on the socket sleeps in slices: the
/// peer may give its end away, and then nobody but us can bring it those bytes. `None`: look again.
pub(crate) fn sleep_watching(socket: &Socket, deadline: Option<u64>) -> Option<sys::Result<()>> {
    let mut slice_ms = 1;
    loop {
        if !still_unread(socket) {
            break;
        }
        if deadline.is_some_and(|deadline| ticks() >= deadline) {
            return Some(Err(Errno(libc::EAGAIN)));
        }
        let mut poll = libc::pollfd { fd: socket.fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        match guard::outside_unless_interrupted(|| unsafe { real::poll(&raw mut poll, 1, slice_ms) }) {
            Err(_) => return Some(Err(Errno(libc::EINTR))),
            Ok(0) => slice_ms = (slice_ms * 2).min(SLICE_MAX_MS),
            // EINTR by a handler with SA_RESTART would have restarted recv, not poll: look again.
            Ok(..0) => return None,
            // The kernel has something, were it only the end: its call returns at once. (To look again is not
            // enough: a reader that is not busy looks at the kernel only by sleeping in it.)
            Ok(_) => break,
        }
    }
    Some(Ok(()))
}

/// Sends again what the peer gave away unread; whether bytes of ours still lie unread in the ring.
pub(crate) fn still_unread(socket: &Socket) -> bool {
    let held = socket.lock_send();
    let Some(channel) = socket.channel(&held).copied().filter(|_| socket.is_named()) else { return false };
    // SAFETY: the send lock is held.
    let sending = unsafe { socket.sending(&held) };
    let due = channel.peer_gave_up() || sending.taken_back.is_some();
    if due && !unread_to_kernel(socket, &channel, sending) {
        return true;
    }
    if unread_bytes(&channel) == 0 {
        return false;
    }
    !tx::has_stalled(socket, &held, &channel) || !end_if_killed(socket, &channel)
}

/// If the peer was killed with bytes of ours unread, the connection ends as by Linux's RST: who waits for nothing
/// but POLLERR or POLLHUP would not hear of the FIN. Kernel bytes that nobody has read yet would be lost: first
/// they must go.
fn end_if_killed(socket: &Socket, channel: &Channel) -> bool {
    if process::is_forbidden() {
        return false;
    }
    let (failed, fin) = tx::peer_state(socket.fd);
    let killed = !failed && fin && peer_sent_fin(socket.fd) && left_unread(channel);
    if !killed || sys::ioctl_int(socket.fd, libc::FIONREAD) != Ok(0) {
        return false;
    }
    channel.outgoing().revoke();
    as_if_reset(socket.fd);
    true
}

/// Whether the peer, which has sent its FIN, did so without a farewell and left bytes of ours unread in the ring.
pub(crate) fn left_unread(channel: &Channel) -> bool {
    let outgoing = channel.outgoing();
    let unread = !outgoing.is_consumed() && !outgoing.is_taken_back();
    unread && !channel.peer_finished() && !channel.peer_gave_up()
}

/// Longest slice of such a sleep.
pub(crate) const SLICE_MAX_MS: c_int = 64;
