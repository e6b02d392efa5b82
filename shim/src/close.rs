//! The ends of a connection's rings: close, shutdown, giving the socket away, a peer that cheats.

use core::sync::atomic::Ordering::SeqCst;

use driver::cards::{Held, Path, flag};
use driver::channel::Channel;
use driver::clock::ticks;
use driver::switch::available;
use driver::sys::{self, Errno};
use libc::c_int;
use rows::reasons::Reason;

use crate::slot::{Outcome, Socket};
use crate::{epoll, family, guard, meet, real, statistics, tx};

/// The last descriptor of this process is going. `closing`: the program closes it now; otherwise the number
/// was reused behind our back and nothing may be done to what it names today.
pub(crate) fn last_descriptor(socket: &Socket, closing: bool) {
    epoll::leave_all(socket);
    meet::close_mailbox(socket);
    {
        let both = socket.lock_both();
        if socket.is_current() {
            meet::abandon(socket, &both);
            if socket.slot.owner() == family::pid() || socket.card.is_sole_holder(family::pid()) {
                statistics::count(socket, socket.parts(&both).channel.as_ref());
            }
            if let Some(channel) = socket.parts(&both).channel.as_ref().filter(|_| socket.is_live()) {
                let sole = socket.card.is_sole_holder(family::pid());
                close_rings(socket, channel, closing, sole, socket.parts(&both).sending.sent_again);
            }
        }
    }
    socket.free_if_unused();
}

fn close_rings(socket: &Socket, channel: &Channel, closing: bool, sole: bool, sent_again: bool) {
    if !sole && socket.slot.owner() != family::pid() {
        // Inherited and never used here: whoever owns the rings goes on with them.
        return;
    }
    let unread = channel.incoming().revoke().position() != channel.incoming().head();
    channel.outgoing().revoke();
    if !closing || !sole {
        return;
    }
    if !sent_again && let Some(from) = channel.peer_gave_up() {
        send_ring_rest(socket, channel, from);
    }
    if unread && !crate::process::is_forbidden() {
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
    let parts = socket.parts(&both);
    let Some(channel) = parts.channel.as_ref() else { return };
    let sole = socket.card.is_sole_holder(family::pid());
    close_rings(socket, channel, true, sole, parts.sending.sent_again);
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
        if !parts.sending.sent_again
            && let Some(from) = channel.peer_gave_up()
        {
            send_ring_rest(socket, channel, from);
            parts.sending.sent_again = true;
        }
        channel.finish();
        socket.card.set(flag::SENT_FIN, true);
    }
    if how != libc::SHUT_WR {
        channel.incoming().revoke();
    }
}

/// The socket goes where we cannot follow (another program, stdio, kTLS): kernel from now on, both ways.
/// Never waits for the peer: what it sent and nobody read here, it sends again through the kernel.
pub(crate) fn give_away(socket: &Socket, reason: Reason) {
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if !socket.is_current() {
        return;
    }
    if socket.is_live()
        && let Some(channel) = socket.parts(&both).channel.as_ref()
    {
        channel.outgoing().revoke();
        channel.give_up();
        socket.card.describe(socket.fd, Path::Kernel, reason as u8);
        family::table().count_reason(reason as u8);
        crate::nagle::restore(socket);
        crate::rx::mark::restore(socket);
        return;
    }
    drop(both);
    socket.settle(reason);
}

/// Only the kernel can honour what the program asked for; the socket stays in this program.
pub(crate) fn to_kernel_for_good(socket: &Socket, reason: Reason) {
    let both = socket.lock_both();
    meet::abandon(socket, &both);
    if socket.is_current() && socket.is_live() {
        if let Some(channel) = socket.parts(&both).channel.as_ref() {
            channel.outgoing().revoke();
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
    let mut info = [0u8; 8];
    let _ = sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info);
    matches!(info[0], CLOSE_WAIT | LAST_ACK | CLOSING | TIME_WAIT)
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

/// If the peer gave its end away with bytes of ours unread, sends those again, before any other byte.
pub(crate) fn send_again_if_asked(socket: &Socket, held: &Held, channel: &Channel) {
    // SAFETY: the send lock is held.
    let sending = unsafe { socket.sending(held) };
    let Some(from) = channel.peer_gave_up().filter(|_| !sending.sent_again) else { return };
    sending.sent_again = true;
    send_ring_rest(socket, channel, from);
}

fn send_ring_rest(socket: &Socket, channel: &Channel, from: u64) {
    let (tail, mut head) = (channel.outgoing().revoke().position(), from);
    let Ok(mut left) = available(tail, head, channel.capacity() as u64) else { return };
    while left > 0 {
        let (at, length) = channel.outgoing_ring().piece(head, left as usize);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `piece` lies inside the mapped ring, and nobody writes it: the direction is revoked.
        match unsafe { sys::send(socket.fd, at.cast(), length, flags) } {
            Ok(sent) => {
                head += sent as u64;
                left -= sent as u64;
            }
            // The new holder reads, and then there is room.
            Err(Errno(libc::EAGAIN)) => {
                let mut poll = libc::pollfd { fd: socket.fd, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one entry.
                let _ = unsafe { sys::poll(&raw mut poll, 1, 1000) };
            }
            Err(_) => return,
        }
    }
}

/// While bytes of ours lie unread in the ring, a thread that would sleep on the socket sleeps in slices: the
/// peer may give its end away, and then nobody but us can bring it those bytes. `None`: look again.
pub(crate) fn sleep_watching(
    socket: &Socket,
    channel: &Channel,
    deadline: Option<u64>,
) -> Option<sys::Result<()>> {
    let mut slice_ms = 1;
    loop {
        // In this order: what is given up counts as consumed, and is marked before.
        let consumed = channel.outgoing().is_consumed();
        if channel.peer_gave_up().is_some() {
            let held = socket.lock_send();
            send_again_if_asked(socket, &held, channel);
            break;
        }
        if consumed {
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
    let Some(channel) = socket.channel(&held).copied() else { return false };
    send_again_if_asked(socket, &held, &channel);
    // SAFETY: the send lock is held.
    let again = unsafe { socket.sending(&held) }.sent_again;
    if again || channel.outgoing().is_consumed() {
        return false;
    }
    !tx::has_stalled(socket, &held, &channel) || !end_if_killed(socket, &channel)
}

/// If the peer was killed with bytes of ours unread, the connection ends as by Linux's RST: who waits for nothing
/// but POLLERR or POLLHUP would not hear of the FIN. Kernel bytes that nobody has read yet would be lost: first
/// they must go.
fn end_if_killed(socket: &Socket, channel: &Channel) -> bool {
    if crate::process::is_forbidden() {
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
    // In this order: what is given up counts as consumed, and is marked before.
    let consumed = channel.outgoing().is_consumed();
    !channel.peer_finished() && channel.peer_gave_up().is_none() && !consumed
}

/// Longest slice of such a sleep.
pub(crate) const SLICE_MAX_MS: c_int = 64;
