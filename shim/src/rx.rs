//! Receiving on a connection that has rings.
//!
//! Ring bytes come before kernel bytes, always: nobody adds to a closed ring. A short result means that both
//! were empty, because programs take it for that (epoll(7) on edge-triggered reading).

use core::sync::atomic::Ordering::Relaxed;

use driver::cards::{Held, bump};
use driver::channel::Channel;
use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::switch::available;
use driver::sys::{self, Errno};
use libc::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, c_int, iovec, msghdr};
use rows::reasons::Reason;

use crate::buffers::{Buffers, Room};
use crate::slot::{Outcome, Socket};
use crate::{close, epoll, family, meet, nagle, process, spin};

pub(crate) mod mark;
mod options;
mod quick;
mod sleep;
mod splice;

pub(crate) use options::{Control, TCP_INQ, peek_offset_in_ring, set_peek_offset, waiting};
use quick::spin_for_bytes;
pub(crate) use quick::{Quick, quickly};
pub(crate) use sleep::Sleeper;
pub(crate) use splice::{is_pipe, to_pipe};

const AGAIN: Outcome = Outcome::Fail(Errno(libc::EAGAIN));
const FAULT: Outcome = Outcome::Fail(Errno(libc::EFAULT));
/// A non-blocking reader that finds nothing looks at the kernel socket this often: a killed peer, urgent data.
const LOOK_USEC: u64 = 50;
/// A non-blocking reader waits at most so long for bytes that the peer is just giving to the kernel.
const COMING_MS: c_int = 10;

/// Bytes that a bulk transfer moves at a time.
pub(crate) const PIECE: usize = 64 << 10;

/// A receive of so many bytes is part of a bulk transfer.
const PIECE_OF_BULK: usize = 4 << 10;

/// One receive call.
struct Receive<'a> {
    socket: &'a Socket,
    buffers: Buffers<'a>,
    flags: c_int,
    /// When the call began to wait; 0 if it has not.
    waiting: u64,
    /// Ring position up to which this call has seen everything (with MSG_PEEK that is beyond the head).
    seen: u64,
    /// Where the ring began when this call last looked.
    front: u64,
    /// The short way has spun already.
    spun: bool,
    /// Room for control messages, where the kernel gives some.
    control: Option<&'a Control>,
    /// The peer was just giving the kernel what is unread when this call last looked, and it was waited for.
    coming: bool,
    awaited: bool,
}

/// What one look at ring and kernel gave.
enum Step {
    Return(Outcome),
    /// Nothing there: the receive lock is still held.
    Empty(Held),
    /// Look again.
    Again,
}

/// Receives into the caller's buffers.
///
/// # Safety
/// The buffers are the caller's promise, as with recvmsg(2).
#[inline(never)]
pub(crate) unsafe fn receive(
    socket: &Socket,
    vector: &[iovec],
    flags: c_int,
    spun: bool,
    control: Option<&Control>,
) -> Outcome {
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(vector) }) else { return Outcome::Kernel };
    if flags & (MSG_OOB | MSG_ERRQUEUE) != 0 {
        return Outcome::Kernel;
    }
    if buffers.is_wild() {
        // Before all else, and also where the element is empty: __import_iovec in lib/iov_iter.c.
        return FAULT;
    }
    family::check_owner(socket);
    let mut call = Receive {
        socket,
        buffers,
        flags,
        waiting: 0,
        seen: 0,
        front: 0,
        spun,
        control,
        coming: false,
        awaited: false,
    };
    {
        let held = socket.lock_receive();
        if let Some(outcome) = call.by_open_ring(&held) {
            return outcome;
        }
    }
    call.slowly()
}

/// How far a receive came in the ring.
struct Drained {
    count: usize,
    /// The program's memory ends there; otherwise what is missing was taken back.
    faulted: bool,
}

/// Takes `count` published bytes from `head` on: `copy(position, offset, length)` moves each piece. The room of
/// a piece goes back to the sender at once, so that both ends of a bulk transfer copy at the same time. Gives how
/// many were taken: the sender may take the rest back first, and then the copy of it counts for nothing; and `copy`
/// fails where the program's memory is not mapped.
#[inline(always)]
fn drain(
    socket: &Socket,
    channel: &Channel,
    head: u64,
    count: usize,
    mut copy: impl FnMut(u64, usize, usize) -> bool,
) -> Drained {
    let (mut done, mut faulted) = (0, false);
    while done < count {
        let (position, length) = (head + done as u64, (count - done).min(PIECE));
        faulted = !copy(position, done, length);
        if faulted || !channel.incoming().take(position, length as u64) {
            break;
        }
        done += length;
    }
    let counters = &socket.card.counters;
    bump(&counters.ring_receives, 1);
    bump(&counters.ring_received_bytes, done as u64);
    Drained { count: done, faulted }
}

impl Receive<'_> {
    /// The common case: enough bytes in the ring for a plain call.
    #[inline]
    fn by_open_ring(&mut self, held: &Held) -> Option<Outcome> {
        let channel = self.socket.plain_channel(held)?;
        let incoming = channel.incoming();
        let (head, word) = (incoming.head_to_take()?, incoming.word());
        let count = available(word.position(), head, channel.capacity() as u64).ok()? as usize;
        let wanted = self.buffers.total();
        let enough = if word.is_open() {
            count >= wanted || self.flags & MSG_WAITALL == 0
        } else {
            count >= wanted && !mark::is_marked(self.socket)
        };
        if count == 0
            || wanted == 0
            || !enough
            || self.buffers.is_faulty()
            || self.flags & (MSG_PEEK | MSG_TRUNC) != 0
        {
            return None;
        }
        let count = count.min(wanted);
        let taken = self.drain(channel, head, count);
        if taken.count < count && !taken.faulted {
            return None;
        }
        spin::record_ready();
        Some(self.so_far(FAULT))
    }

    #[cold]
    #[inline(never)]
    fn slowly(&mut self) -> Outcome {
        loop {
            let held = self.socket.lock_receive();
            match self.look(held) {
                Step::Return(outcome) => return self.finished(outcome),
                Step::Again => {}
                Step::Empty(held) => {
                    if let Some(outcome) = self.wait(held) {
                        return self.finished(outcome);
                    }
                }
            }
        }
    }

    fn finished(&self, outcome: Outcome) -> Outcome {
        if let (Outcome::Value(count), true) = (outcome, self.flags & MSG_PEEK != 0) {
            options::peeked(self.socket, count);
        }
        if self.waiting == 0 {
            return outcome;
        }
        if matches!(outcome, Outcome::Value(count) if self.is_piece_of_bulk(count)) {
            spin::record_ready();
        } else {
            spin::record(self.waiting);
        }
        outcome
    }

    /// Whether a peer on this very core filled a large buffer: it was at work while this thread waited, so the
    /// wait says nothing against yielding to it.
    fn is_piece_of_bulk(&self, count: usize) -> bool {
        let from_here = |channel: &Channel| channel.peer_cpu() == Some(current_cpu());
        count == self.buffers.total()
            && count >= PIECE_OF_BULK
            && self.socket.channel(&self.socket.lock_receive()).is_some_and(from_here)
    }

    /// Bytes for which the call waits: sock_rcvlowat in include/net/sock.h.
    fn target(&self) -> usize {
        let mark = self.socket.slot.low_water.load(Relaxed) as usize;
        let all = self.flags & MSG_WAITALL != 0;
        if all { self.buffers.total() } else { mark.min(self.buffers.total()) }.max(1)
    }

    /// Whether the call waits for more bytes than it has.
    fn wants_more(&self) -> bool {
        self.buffers.done() < self.target() && self.may_block()
    }

    fn may_block(&self) -> bool {
        self.socket.may_block(self.flags)
    }

    /// What the call returns once nothing more is to be had.
    fn so_far(&self, otherwise: Outcome) -> Outcome {
        if self.buffers.done() > 0 { Outcome::Value(self.buffers.done()) } else { otherwise }
    }

    /// Takes what is in the ring, and then, if the direction is closed, what the kernel has.
    fn look(&mut self, held: Held) -> Step {
        let Some(channel) = self.socket.channel(&held).copied() else { return Step::Return(Outcome::Kernel) };
        let seen = match self.take_from_ring(&held, &channel) {
            Ok(position) => position,
            Err(outcome) => return Step::Return(outcome),
        };
        self.seen = seen;
        let complete = self.buffers.left() == 0 && self.buffers.total() > 0;
        let word = channel.incoming().word();
        if word.position() != seen && !complete {
            // More came, and then perhaps a close with kernel bytes behind it: the ring goes first.
            return Step::Again;
        }
        let stops_at_mark = word.is_revoked() && channel.peer_is_urgent();
        if complete || self.buffers.done() > 0 && (stops_at_mark || word.is_open() && !self.wants_more()) {
            return Step::Return(Outcome::Value(self.buffers.done()));
        }
        if self.buffers.total() == 0 && seen != channel.incoming().head() {
            return Step::Return(Outcome::Value(0));
        }
        if word.is_open() {
            return self.look_at_open(held, &channel);
        }
        self.take_from_kernel(held, &channel)
    }

    /// Moves ring bytes into the buffers, and tells up to which position. With MSG_PEEK they stay in the ring.
    fn take_from_ring(&mut self, held: &Held, channel: &Channel) -> Result<u64, Outcome> {
        let incoming = channel.incoming();
        let peek = self.flags & MSG_PEEK != 0;
        // A peek always starts at the same place, whatever an earlier round of this call saw.
        options::settle(self.socket, held, channel);
        let skipped = if peek { options::peek_from(self.socket, held) } else { 0 };
        if peek {
            self.buffers = self.buffers.rewound();
        }
        incoming.forget_holder();
        let (head, tail) = (incoming.head(), incoming.word().position());
        self.front = head;
        self.coming = incoming.is_taken_back();
        let Ok(count) = available(tail, head, channel.capacity() as u64) else {
            return Err(close::violation(self.socket, channel));
        };
        let count = (count.saturating_sub(skipped) as usize).min(self.buffers.left());
        if count == 0 || self.coming {
            return Ok(tail);
        }
        if self.buffers.is_faulty() && self.flags & MSG_TRUNC == 0 {
            return Err(FAULT);
        }
        if !peek {
            let taken = self.drain(channel, head, count);
            options::consumed(self.socket, held, taken.count);
            if taken.faulted {
                return Err(self.so_far(FAULT));
            }
            if taken.count < count {
                // The peer took the rest back, for the kernel; nobody else moves the head meanwhile.
                if !incoming.is_taken_back() {
                    return Err(close::violation(self.socket, channel));
                }
                self.coming = true;
            }
        } else if self.flags & MSG_TRUNC != 0 {
            self.buffers.advance(count);
        } else {
            // SAFETY: the buffers are the caller's promise; `available` bounded the count by the ring.
            let filled = unsafe { self.buffers.fill(channel.incoming_ring(), head + skipped, count) };
            if !filled {
                return Err(FAULT);
            }
        }
        Ok(tail)
    }

    /// Whether the peer has given the kernel what a peek saw in the ring: the kernel's bytes begin anew then.
    fn is_stale(&self, channel: &Channel) -> bool {
        let incoming = channel.incoming();
        self.flags & MSG_PEEK != 0
            && !self.coming
            && (incoming.is_taken_back() || incoming.head() != self.front)
    }

    /// Moves `count` published ring bytes from `head` on into the buffers, or away (MSG_TRUNC); gives how many.
    fn drain(&mut self, channel: &Channel, head: u64, count: usize) -> Drained {
        let before = self.buffers.done();
        let (buffers, drop) = (&mut self.buffers, self.flags & MSG_TRUNC != 0);
        let taken = drain(self.socket, channel, head, count, |position, _, length| {
            if drop {
                buffers.advance(length);
                true
            } else {
                // SAFETY: the buffers are the caller's promise; `available` bounded the count by the ring.
                unsafe { buffers.fill(channel.incoming_ring(), position, length) }
            }
        });
        self.buffers.retreat(before + taken.count);
        taken
    }

    /// The word is open and the ring is empty: a non-blocking call fails, but looks at the kernel now and then.
    fn look_at_open(&mut self, held: Held, channel: &Channel) -> Step {
        if self.may_block() {
            return Step::Empty(held);
        }
        // SAFETY: the receive lock is held.
        let receiving = unsafe { self.socket.receiving(&held) };
        let now = ticks();
        if now.wrapping_sub(receiving.looked) > LOOK_USEC * ticks_per_usec() {
            receiving.looked = now;
            channel.publish_cpu(current_cpu());
            if kernel_has_something(self.socket.fd) {
                channel.incoming().close();
                return Step::Again;
            }
        }
        Step::Return(self.so_far(AGAIN))
    }

    /// The word is closed and the ring is empty: the kernel's turn, without blocking.
    fn take_from_kernel(&mut self, held: Held, channel: &Channel) -> Step {
        if process::is_forbidden() {
            // The peer took back what was waiting: the program's own call may be the only one it is allowed.
            return Step::Return(self.so_far(Outcome::Kernel));
        }
        // SAFETY: the receive lock is held.
        let receiving = unsafe { self.socket.receiving(&held) };
        let drained = || sys::ioctl_int(self.socket.fd, libc::FIONREAD).is_ok_and(|bytes| bytes == 0);
        if let Some(error) = receiving.stashed.filter(|_| drained()) {
            if self.buffers.done() == 0 {
                receiving.stashed = None;
                return Step::Return(Outcome::Fail(Errno(error)));
            }
            return Step::Return(self.so_far(AGAIN));
        }
        if self.flags & MSG_PEEK != 0 && self.target() > 1 && self.wants_more() {
            // Each look would find the same bytes: the kernel alone waits for all of them, or the end.
            return Step::Empty(held);
        }
        if self.may_block() && self.buffers.done() == 0 && !self.worth_looking(channel, receiving.kread) {
            return Step::Empty(held);
        }
        match self.kernel_receive(MSG_DONTWAIT) {
            Ok(_) if self.is_stale(channel) => Step::Again,
            Ok(0) if self.buffers.left() > 0 => self.at_end(held, channel),
            Ok(count) => {
                self.account(&held, count);
                if self.buffers.left() == 0 || !self.wants_more() {
                    self.try_reopen(&held, channel);
                    return Step::Return(Outcome::Value(self.buffers.done()));
                }
                Step::Again
            }
            Err(Errno(libc::EAGAIN)) if self.must_await(channel) => {
                drop(held);
                self.awaited = true;
                await_coming(self.socket.fd);
                Step::Again
            }
            Err(Errno(libc::EAGAIN)) => {
                self.try_reopen(&held, channel);
                if !self.may_block() || self.buffers.done() > 0 && !self.wants_more() {
                    return Step::Return(self.so_far(AGAIN));
                }
                Step::Empty(held)
            }
            Err(Errno(libc::EINTR)) => Step::Again,
            Err(error) => self.failed(held, channel, error),
        }
    }

    /// Whether a call that may not block waits a moment all the same, for bytes that were readable and are on their way.
    fn must_await(&self, channel: &Channel) -> bool {
        self.coming && !self.awaited && !self.may_block() && comes_here(channel)
    }

    /// Whether a blocking call should look at the kernel before it decides how to wait: there are bytes, or it
    /// will spin. If not, it goes to sleep in the kernel with one call, as without us.
    fn worth_looking(&self, channel: &Channel, kread: u64) -> bool {
        !channel.incoming().kernel_is_drained(kread) || self.may_open(channel)
    }

    fn may_open(&self, channel: &Channel) -> bool {
        spin::is_busy() || channel.peer_cpu() == Some(current_cpu()) && spin::may_yield()
    }

    /// One recvmsg on the kernel socket into the rest of the buffers.
    fn kernel_receive(&self, extra: c_int) -> sys::Result<usize> {
        let mut room = Room::new();
        let vector = self.buffers.rest(&mut room);
        let flags = self.flags & !MSG_WAITALL | extra;
        if vector.is_empty() {
            // SAFETY: nothing is written.
            return unsafe { sys::recv(self.socket.fd, core::ptr::null_mut(), 0, flags) };
        }
        if let ([one], None) = (&*vector, self.control) {
            // SAFETY: the caller's buffer.
            return unsafe { sys::recv(self.socket.fd, one.iov_base, one.iov_len, flags) };
        }
        self.by_message(vector, |message| {
            // SAFETY: the message names the caller's buffers.
            unsafe { sys::recvmsg(self.socket.fd, message, flags) }
        })
    }

    /// A call with a message over the buffers, and the caller's room for control messages.
    fn by_message<E>(
        &self,
        vector: &mut [iovec],
        call: impl FnOnce(*mut msghdr) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let mut message = message_over(vector);
        if let Some(control) = self.control {
            control.offer(&mut message);
        }
        let result = call(&raw mut message);
        if let (Ok(_), Some(control)) = (&result, self.control) {
            control.take(&message);
        }
        result
    }

    /// Counts bytes that came from the kernel.
    fn account(&mut self, held: &Held, count: usize) {
        self.buffers.advance(count);
        if self.flags & MSG_PEEK == 0 {
            // SAFETY: the receive lock is held.
            let receiving = unsafe { self.socket.receiving(held) };
            receiving.kread += count as u64;
            if let Some(channel) = self.socket.channel(held) {
                channel.incoming().kernel_was_read(receiving.kread, channel.capacity() as u64);
            }
            mark::settle(self.socket, held);
            bump(&self.socket.card.counters.kernel_receives, 1);
        }
    }

    /// Opens the direction, if the reader is busy enough to find what comes next in the ring.
    fn try_reopen(&self, held: &Held, channel: &Channel) {
        // SAFETY: the receive lock is held.
        let receiving = unsafe { self.socket.receiving(held) };
        if receiving.ended
            || receiving.stashed.is_some()
            || self.flags & MSG_PEEK != 0
            || !self.may_open(channel)
        {
            return;
        }
        if mark::is_marked(self.socket) || !channel.peer_committed() {
            return;
        }
        if self.socket.slot.invited.load(Relaxed) != 0 {
            meet::join(self.socket);
        }
        if epoll::reopen(self.socket, channel, receiving.kread) {
            bump(&self.socket.card.counters.opened, 1);
            nagle::force(self.socket);
            channel.publish_cpu(current_cpu());
        }
    }

    /// The kernel says that the peer sends no more: drain the ring, then it is the end.
    fn at_end(&mut self, held: Held, channel: &Channel) -> Step {
        let incoming = channel.incoming();
        if incoming.word().position() != self.seen {
            return Step::Again;
        }
        // SAFETY: the receive lock is held.
        let receiving = unsafe { self.socket.receiving(&held) };
        if !receiving.ended && close::peer_sent_fin(self.socket.fd) {
            if comes_here(channel) && incoming.recover(receiving.kread, channel.capacity() as u64) {
                return Step::Again;
            }
            receiving.ended = true;
            let died = close::left_unread(channel);
            // From now on our sends meet RST and EPIPE where Linux would.
            channel.outgoing().revoke();
            if died {
                close::as_if_reset(self.socket.fd);
                if self.buffers.done() == 0 {
                    return Step::Again;
                }
            }
        }
        Step::Return(Outcome::Value(self.buffers.done()))
    }

    /// The kernel reports an error: ring bytes that came before it go first.
    fn failed(&mut self, held: Held, channel: &Channel, error: Errno) -> Step {
        // A receive never fails with EPIPE; as_if_reset leaves it behind where Linux's RST leaves ECONNRESET.
        let error = if error == Errno(libc::EPIPE) { Errno(libc::ECONNRESET) } else { error };
        let incoming = channel.incoming();
        // SAFETY: the receive lock is held.
        let receiving = unsafe { self.socket.receiving(&held) };
        // Not after EFAULT and the like, which end nothing.
        let recovered = incoming.is_taken_back()
            && comes_here(channel)
            && close::has_failed(self.socket.fd)
            && incoming.recover(receiving.kread, channel.capacity() as u64);
        let unread = recovered || incoming.word().position() != self.seen;
        if unread || self.buffers.done() > 0 {
            receiving.stashed = Some(error.0);
        }
        if self.buffers.done() > 0 {
            return Step::Return(Outcome::Value(self.buffers.done()));
        }
        if unread { Step::Again } else { Step::Return(Outcome::Fail(error)) }
    }
}

/// Waits a moment for bytes that the peer is just giving to the kernel.
fn await_coming(fd: c_int) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    let _ = unsafe { sys::poll(&raw mut poll, 1, COMING_MS) };
}

/// Whether a non-blocking kernel receive would give anything but EAGAIN: bytes, an end, an error. By poll, which
/// leaves the error where it is: the kernel tells it only once.
pub(crate) fn kernel_has_something(fd: c_int) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN | libc::POLLPRI, revents: 0 };
    // SAFETY: one entry.
    unsafe { sys::poll(&raw mut poll, 1, 0) }.is_ok_and(|count| count > 0)
}

/// A message over the vector.
pub(crate) fn message_over(vector: &mut [iovec]) -> msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vector.as_mut_ptr();
    message.msg_iovlen = vector.len() as _;
    message
}

/// Whether what the sender takes back comes to this process, and was not read by another that does not count.
#[inline]
pub(crate) fn comes_here(channel: &Channel) -> bool {
    !channel.incoming().is_taken_back() || channel.reads_alone() && !process::is_forbidden()
}

/// Others read the socket's kernel bytes too from now on, and do not count.
pub(crate) fn share(socket: &Socket) {
    let held = socket.lock_receive();
    if let Some(channel) = socket.channel(&held) {
        channel.share();
    }
}

/// Bytes that wait in the ring; 0 for a socket without rings.
pub(crate) fn waiting_in_ring(socket: &Socket) -> usize {
    let held = socket.lock_receive();
    socket.channel(&held).and_then(options::waiting_in).unwrap_or(0) as usize
}

/// The receiving direction goes to the kernel, for good or until the next reader opens it; ring bytes stay
/// readable.
pub(crate) fn close_incoming(socket: &Socket, for_good: Option<Reason>) {
    let held = socket.lock_receive();
    let Some(channel) = socket.channel(&held) else { return };
    if for_good.is_some() {
        channel.incoming().revoke();
    } else {
        channel.incoming().close();
    }
}

/// The next call that finds nothing to read fails with this error: net/socket.c, do_recvmmsg.
pub(crate) fn stash(socket: &Socket, error: c_int) {
    let held = socket.lock_receive();
    if let Some(channel) = socket.channel(&held) {
        // SAFETY: the receive lock is held.
        unsafe { socket.receiving(&held) }.stashed = Some(error);
        channel.incoming().close();
    }
}

/// The error that the kernel reported while ring bytes were unread; asked for once, as SO_ERROR is.
pub(crate) fn take_stashed(socket: &Socket) -> Option<i32> {
    let held = socket.lock_receive();
    socket.channel(&held)?;
    // SAFETY: the receive lock is held.
    unsafe { socket.receiving(&held) }.stashed.take()
}
