//! Sending on a connection that has rings.
//!
//! A closed word, a ring that stays full, or an odd call means the kernel: it blocks, fails and signals as
//! Linux does. Kernel sends hold no lock; they are announced before and settled after (rule 2 of the
//! protocol), so threads may send at once as on a plain socket.

use driver::cards::{Held, bump};
use driver::channel::Channel;
use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::switch::{Word, available};
use driver::sys::{self, Errno};
use libc::{MSG_NOSIGNAL, MSG_OOB, MSG_ZEROCOPY, c_int, iovec};
use rows::reasons::Reason;

use crate::buffers::{Buffers, Room, can_be_buffer};
use crate::config::{Spin, config};
use crate::rx::{PIECE, message_over};
use crate::slot::{Outcome, Socket};
use crate::spin::Watch;
use crate::{close, family, guard, jump, nagle, real, spin, unread};

/// Published bytes that nobody takes for this long: look whether the peer still lives.
const SUSPICIOUS_USEC: u64 = 1_000;
/// After so many sends in a row on the kernel the sender waits for the reader to catch up and open the ring,
const STREAM_SENDS: u32 = 8;
/// as long as it reads something every so many microseconds.
const READING_USEC: u64 = 20;
/// A wait in vain doubles the sends before the next one, so many times at most.
const WAITS_LOST_MAX: u32 = 5;
/// Flags that mean nothing to a ring, which never waits for more and never raises SIGPIPE.
const PLAIN: c_int = libc::MSG_DONTWAIT | MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_CONFIRM;
/// Sends between two looks at the reader's position.
const QUICK_SENDS: u32 = 64;
/// How far ahead of the next message its line is made ours: a few of them, for a line takes longer to come than a
/// message to be written.
const CLAIM_AHEAD: u64 = 256;
/// A full ring is waited for so long while the reader takes nothing.
const FULL_USEC: u64 = 50;

/// One send call.
struct Send<'a> {
    socket: &'a Socket,
    buffers: Buffers<'a>,
    flags: c_int,
}

/// What one try with the ring gave.
enum Try {
    Done,
    Full,
    Kernel,
    Fail(Outcome),
}

/// The common case, on its own because it must be short: one plain buffer that fits into the open ring of a
/// reader that keeps up. `None`: nothing was done.
///
/// # Safety
/// The buffer is the caller's promise, as with send(2).
#[inline]
pub(crate) unsafe fn quickly(socket: &Socket, buffer: *const u8, length: usize) -> Option<usize> {
    if socket.slot.owner() != family::pid() {
        return None;
    }
    let held = socket.lock_send();
    let channel = socket.plain_channel(&held)?;
    let outgoing = channel.outgoing();
    let word = outgoing.sendable()?;
    let capacity = channel.capacity();
    // SAFETY: the send lock is held.
    let sending = unsafe { socket.sending(&held) };
    // The reader was at least here when we last looked: often that is room enough, without a look at its line.
    let used = available(word.position(), sending.head_seen, capacity as u64).ok()? as usize;
    if length == 0 || length > (capacity - used).min(PIECE) || sending.quick_left == 0 {
        return None;
    }
    if !can_be_buffer(buffer.cast_mut().cast(), length) {
        return None;
    }
    // SAFETY: the buffer is the caller's promise; the room was free when `head_seen` was read, and only the
    // lock's holder takes it.
    let copied = unsafe { channel.outgoing_ring().write(word.position(), buffer, length) };
    if !copied || !outgoing.publish(word, length as u64) {
        return None;
    }
    channel.outgoing_ring().claim(word.position() + length as u64 + CLAIM_AHEAD);
    sending.quick_left -= 1;
    unread::note(socket);
    let counters = &socket.card.counters;
    bump(&counters.ring_sends, 1);
    bump(&counters.ring_sent_bytes, length as u64);
    Some(length)
}

/// Sends the caller's buffers.
///
/// # Safety
/// The buffers are the caller's promise, as with sendmsg(2).
#[inline(never)]
pub(crate) unsafe fn send(socket: &Socket, vector: &[iovec], flags: c_int) -> Outcome {
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { Buffers::new(vector) }) else { return Outcome::Kernel };
    if buffers.is_wild() {
        // As in `receive`.
        return Outcome::Fail(Errno(libc::EFAULT));
    }
    family::check_owner(socket);
    let mut call = Send { socket, buffers, flags };
    if flags & !PLAIN != 0 || call.buffers.total() == 0 || call.buffers.is_faulty() {
        return call.oddly();
    }
    call.run()
}

impl Send<'_> {
    #[inline]
    fn run(&mut self) -> Outcome {
        let held = self.socket.lock_send();
        let Some(channel) = self.socket.channel(&held).copied() else { return Outcome::Kernel };
        match self.by_ring(&held, &channel) {
            Try::Done => Outcome::Value(self.buffers.done()),
            Try::Kernel if self.waits_for_reader(&held, &channel) => {
                drop(held);
                self.run()
            }
            rest => self.slowly(held, &channel, rest),
        }
    }

    /// Copies as much as fits and publishes it.
    #[inline]
    fn by_ring(&mut self, held: &Held, channel: &Channel) -> Try {
        let outgoing = channel.outgoing();
        let Some(word) = outgoing.sendable() else { return Try::Kernel };
        let Ok(room) = outgoing.room(word, channel.capacity() as u64) else {
            return Try::Fail(close::violation(self.socket, channel));
        };
        let used = channel.capacity() as u64 - room;
        // SAFETY: the send lock is held.
        let sending = unsafe { self.socket.sending(held) };
        sending.quick_left = QUICK_SENDS;
        if used == 0 {
            (sending.head_seen, sending.head_seen_at) = (word.position(), 0);
        } else if self.is_suspicious(held, channel) {
            return Try::Kernel;
        }
        // A write that could fit goes whole or not at all: another thread must not get in between.
        if room == 0 || room < self.buffers.left() as u64 && self.buffers.left() <= channel.capacity() / 4 {
            return Try::Full;
        }
        (sending.kernel_streak, sending.waits_lost) = (0, 0);
        self.pour(channel, word, room as usize)
    }

    /// Copies what fits into `room` free bytes behind `word`, and publishes it piece by piece, so that both ends
    /// of a bulk transfer copy at the same time.
    #[inline]
    fn pour(&mut self, channel: &Channel, mut word: Word, mut room: usize) -> Try {
        let (outgoing, counters) = (channel.outgoing(), &self.socket.card.counters);
        let mut first = true;
        loop {
            let count = room.min(self.buffers.left()).min(PIECE);
            if count == 0 {
                return Try::Full;
            }
            let before = self.buffers.done();
            // SAFETY: the buffers are the caller's promise; `room` bounded it by the ring's free space,
            // which only the holder of the send lock writes.
            if !unsafe { self.buffers.pour(channel.outgoing_ring(), word.position(), count) } {
                // The kernel takes what it can, and says EFAULT.
                return Try::Kernel;
            }
            if !outgoing.publish(word, count as u64) {
                self.buffers.retreat(before);
                return Try::Kernel;
            }
            unread::note(self.socket);
            bump(&counters.ring_sends, u64::from(core::mem::take(&mut first)));
            bump(&counters.ring_sent_bytes, count as u64);
            if self.buffers.left() == 0 {
                return Try::Done;
            }
            word = word.after(count as u64);
            let Ok(free) = outgoing.room(word, channel.capacity() as u64) else {
                return Try::Fail(close::violation(self.socket, channel));
            };
            room = free as usize;
        }
    }

    /// A stream of sends on the kernel would stay there for ever: the reader can open the ring only when it has
    /// read everything, and is never given the time. So now and then the sender waits, while it reads; less often
    /// each time that the reader does not open.
    #[cold]
    fn waits_for_reader(&self, held: &Held, channel: &Channel) -> bool {
        // SAFETY: the send lock is held.
        let sending = unsafe { self.socket.sending(held) };
        sending.kernel_streak += 1;
        if sending.kernel_streak < STREAM_SENDS << sending.waits_lost {
            return false;
        }
        sending.kernel_streak = 0;
        // A reader on this very core opens for a sender that it knows to be there.
        channel.publish_cpu(current_cpu());
        if self.reader_opens(channel) {
            sending.waits_lost = 0;
            return true;
        }
        sending.waits_lost = (sending.waits_lost + 1).min(WAITS_LOST_MAX);
        nagle::streams(self.socket, channel);
        false
    }

    /// Waits while the reader reads what the kernel has.
    fn reader_opens(&self, channel: &Channel) -> bool {
        let outgoing = channel.outgoing();
        // A reader that has read everything and did not open will not: it means to sleep. One that has not come
        // cannot.
        let mut read = outgoing.kernel_read();
        let reads = channel.peer_committed() && read != outgoing.kernel_sent();
        if !reads || outgoing.word().is_revoked() || !config().spin_send || !may_spin(channel) {
            return false;
        }
        // What Nagle holds back the reader cannot read.
        nagle::force(self.socket);
        let (started, before) = (ticks(), read);
        loop {
            let end = spin_on(channel, READING_USEC, || {
                outgoing.word().is_open() || outgoing.kernel_read() != read
            });
            if outgoing.word().is_open() {
                spin::was_the_peer(started, outgoing.kernel_read().wrapping_sub(before));
                return true;
            }
            if end != spin::End::Ready {
                return false;
            }
            read = outgoing.kernel_read();
            spin::was_the_peer(started, read.wrapping_sub(before));
        }
    }

    /// Bytes lie unread: has the reader moved at all lately, and if not, does the peer still live?
    fn is_suspicious(&self, held: &Held, channel: &Channel) -> bool {
        if !has_stalled(self.socket, held, channel) {
            return false;
        }
        let (own, peer) = peer_state(self.socket.fd);
        if own || peer {
            channel.outgoing().revoke();
        }
        own || peer
    }

    #[cold]
    #[inline(never)]
    fn slowly(&mut self, held: Held, channel: &Channel, mut last: Try) -> Outcome {
        let mut pin = Some(self.socket.pin());
        let mut held = Some(held);
        loop {
            match last {
                Try::Done => return Outcome::Value(self.buffers.done()),
                Try::Fail(outcome) => return outcome,
                Try::Full => {
                    held = None;
                    if !self.wait_for_room(channel) {
                        channel.outgoing().close();
                        bump(&self.socket.card.counters.closed_full, 1);
                        last = Try::Kernel;
                        continue;
                    }
                }
                Try::Kernel => {
                    let held = held.unwrap_or_else(|| self.socket.lock_send());
                    return jump::holding(&mut || drop(pin.take()), || self.by_kernel(channel, held));
                }
            }
            let again = self.socket.lock_send();
            last = self.by_ring(&again, channel);
            held = Some(again);
        }
    }

    /// Waits while the reader makes room; false when it does not, or a signal came.
    fn wait_for_room(&self, channel: &Channel) -> bool {
        if !config().spin_send {
            return false;
        }
        let outgoing = channel.outgoing();
        let (started, before) = (ticks(), outgoing.head());
        let mut head = before;
        channel.publish_cpu(current_cpu());
        // Room for a good part of what is left, so that copies stay long.
        let wanted = (self.buffers.left() as u64).min(channel.capacity() as u64 / 2);
        loop {
            let end = spin_on(channel, FULL_USEC, || outgoing.head() != head || !outgoing.word().is_open());
            if end != spin::End::Ready || !outgoing.word().is_open() {
                return false;
            }
            head = outgoing.head();
            spin::was_the_peer(started, head.wrapping_sub(before));
            if outgoing.room(outgoing.word(), channel.capacity() as u64).is_ok_and(|room| room >= wanted) {
                return true;
            }
        }
    }

    /// The rest goes to the kernel: announced under the lock, behind what is unread in the ring, and sent without.
    fn by_kernel(&mut self, channel: &Channel, mut held: Held) -> Outcome {
        let mut room = Room::new();
        let mut first = true;
        loop {
            let vector = self.buffers.rest(&mut room);
            let bytes: u64 = vector.iter().map(|buffer| buffer.iov_len as u64).sum();
            held = match unread_first(self.socket, channel, held, self.flags) {
                Ok(held) => held,
                Err(_) if self.buffers.done() > 0 => return Outcome::Value(self.buffers.done()),
                Err(error) => return Outcome::Fail(error),
            };
            let announced = Announced::new(channel, bytes);
            drop(held);
            match self.kernel_send(channel, announced, vector) {
                Ok(sent) => {
                    if core::mem::take(&mut first) {
                        bump(&self.socket.card.counters.kernel_sends, 1);
                    }
                    self.buffers.advance(sent);
                    let more = self.buffers.left() > 0 && sent as u64 == bytes && sent > 0;
                    if !more {
                        return Outcome::Value(self.buffers.done());
                    }
                }
                Err(_) if self.buffers.done() > 0 => return Outcome::Value(self.buffers.done()),
                Err(error) => return Outcome::Fail(error),
            }
            held = self.socket.lock_send();
        }
    }

    fn kernel_send(
        &self,
        channel: &Channel,
        announced: Announced<'_>,
        vector: &mut [iovec],
    ) -> sys::Result<usize> {
        let mut announced = Some(announced);
        // After part of the call went by the ring, a failure is reported by the next call, without a signal.
        let quiet = if self.buffers.done() > 0 { MSG_NOSIGNAL } else { 0 };
        let (fd, flags) = (self.socket.fd, self.flags | quiet);
        let mut send = || {
            if let [one] = &*vector {
                // SAFETY: the caller's buffer.
                return unsafe { real::send(fd, one.iov_base, one.iov_len, flags) };
            }
            let message = message_over(vector);
            // SAFETY: the message names the caller's buffers.
            unsafe { real::sendmsg(fd, &raw const message, flags) }
        };
        let result = if self.socket.may_block(flags) {
            let mut undo = || abandon(channel, announced.take());
            jump::holding(&mut undo, || guard::outside_unless_interrupted(send))
        } else {
            Ok(send())
        };
        match result {
            Err(_) => Err(Errno(libc::EINTR)),
            Ok(sent) => {
                let sent = usize::try_from(sent).map_err(|_| Errno(crate::errno::get()))?;
                if let Some(announced) = &mut announced {
                    announced.sent = sent as u64;
                }
                Ok(sent)
            }
        }
    }

    /// Urgent and zero-copy data, empty and impossible buffers: the kernel's, in order behind the ring.
    #[cold]
    fn oddly(&mut self) -> Outcome {
        let held = self.socket.lock_send();
        let Some(channel) = self.socket.channel(&held).copied() else { return Outcome::Kernel };
        if self.flags & (MSG_OOB | MSG_ZEROCOPY) != 0 {
            if self.flags & MSG_OOB != 0 {
                channel.announce_urgent();
            }
            channel.outgoing().revoke();
            let reason = if self.flags & MSG_OOB != 0 { Reason::Urgent } else { Reason::Option };
            family::table().count_reason(reason as u8);
        }
        // In order: nothing may be added to the ring behind what the kernel gets now.
        channel.outgoing().close();
        let mut pin = Some(self.socket.pin());
        jump::holding(&mut || drop(pin.take()), || self.by_kernel(&channel, held))
    }
}

/// Gives the kernel what is unread in the ring, which goes before all that is sent there; where it has no room for
/// that, it has none for the call either.
fn unread_first(socket: &Socket, channel: &Channel, mut held: Held, flags: c_int) -> sys::Result<Held> {
    loop {
        // SAFETY: the send lock is held.
        let sending = unsafe { socket.sending(&held) };
        if !socket.is_named() || close::unread_to_kernel(socket, channel, sending) {
            return Ok(held);
        }
        drop(held);
        if !socket.may_block(flags) {
            return Err(Errno(libc::EAGAIN));
        }
        wait_for_kernel(socket.fd)?;
        held = socket.lock_send();
    }
}

/// Sleeps until the kernel has room, as its own send would.
#[cold]
fn wait_for_kernel(fd: c_int) -> sys::Result<()> {
    let mut limit = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let _ = sys::getsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &mut limit);
    let limit_ms = limit.tv_sec * 1000 + (limit.tv_usec + 999) / 1000;
    let limit_ms = if limit_ms == 0 { -1 } else { c_int::try_from(limit_ms).unwrap_or(c_int::MAX) };
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry.
    match guard::outside_unless_interrupted(|| unsafe { real::poll(&raw mut poll, 1, limit_ms) }) {
        Err(_) => Err(Errno(libc::EINTR)),
        Ok(0) => Err(Errno(libc::EAGAIN)),
        // EINTR by a handler with SA_RESTART would have restarted send, not poll: look again.
        Ok(_) => Ok(()),
    }
}

/// An announced kernel send; settled on drop, also when a cancelled thread unwinds.
struct Announced<'a> {
    channel: &'a Channel,
    bytes: u64,
    sent: u64,
}

impl<'a> Announced<'a> {
    fn new(channel: &'a Channel, bytes: u64) -> Self {
        channel.outgoing().kernel_send_begins(bytes);
        Self { channel, bytes, sent: 0 }
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.channel.outgoing().kernel_send_ends(self.bytes, self.sent);
    }
}

/// Whether the reader has taken nothing for a while; once in that while.
pub(crate) fn has_stalled(socket: &Socket, held: &Held, channel: &Channel) -> bool {
    // SAFETY: the send lock is held.
    let sending = unsafe { socket.sending(held) };
    let head = channel.outgoing().head();
    if head != sending.head_seen || sending.head_seen_at == 0 {
        sending.head_seen = head;
        sending.head_seen_at = ticks();
        return false;
    }
    if ticks().wrapping_sub(sending.head_seen_at) < SUSPICIOUS_USEC * ticks_per_usec() {
        return false;
    }
    sending.head_seen_at = ticks();
    true
}

/// A handler jumps out of a kernel send: how much of it went is lost, so the direction stays on the kernel.
fn abandon(channel: &Channel, announced: Option<Announced<'_>>) {
    channel.outgoing().revoke();
    drop(announced);
}

/// Whether our own connection has failed, and whether the peer has sent its FIN.
pub(crate) fn peer_state(fd: c_int) -> (bool, bool) {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry.
    let _ = unsafe { sys::poll(&raw mut poll, 1, 0) };
    (poll.revents & (libc::POLLERR | libc::POLLHUP) != 0, poll.revents & libc::POLLRDHUP != 0)
}

/// Whether [`spin_on`] would wait at all: where nothing spins, only for a peer on this very core.
fn may_spin(channel: &Channel) -> bool {
    config().spin != Spin::Never || channel.peer_cpu() == Some(current_cpu())
}

/// Spins for something that the peer does in shared memory.
fn spin_on(channel: &Channel, usec: u64, ready: impl FnMut() -> bool) -> spin::End {
    let budget = if may_spin(channel) { usec * ticks_per_usec() } else { 0 };
    Watch { budget, peer_cpu: || channel.peer_cpu(), ready, look: || false, look_usec: usec }.run()
}

/// Bytes of ours that the peer has not taken from the ring; 0 for a socket without rings.
pub(crate) fn unread_by_peer(socket: &Socket) -> usize {
    let held = socket.lock_send();
    let Some(channel) = socket.channel(&held) else { return 0 };
    if channel.outgoing().is_taken_back() {
        // The rest is the kernel's.
        // SAFETY: the send lock is held.
        return unsafe { socket.sending(&held) }.taken_back.map_or(0, |(_, left)| left as usize);
    }
    let word = channel.outgoing().word();
    channel
        .outgoing()
        .room(word, channel.capacity() as u64)
        .map_or(0, |room| channel.capacity() - room as usize)
}

/// Runs a call that only the kernel can do (splice, a large sendfile) and that may send up to `bytes`, in order
/// behind the ring. `None`: the socket has no rings, and nothing was done.
pub(crate) fn through_kernel(
    socket: &Socket,
    bytes: u64,
    flags: c_int,
    call: impl FnOnce() -> isize,
) -> Option<isize> {
    family::check_owner(socket);
    let held = socket.lock_send();
    let channel = *socket.channel(&held)?;
    // Another thread may close the descriptor meanwhile: the channel must stay.
    let mut pin = Some(socket.pin());
    channel.outgoing().close();
    let ready = jump::holding(&mut || drop(pin.take()), || unread_first(socket, &channel, held, flags));
    let held = match ready {
        Ok(held) => held,
        Err(Errno(error)) => return Some(crate::errno::fail(error)),
    };
    let mut announced = Some(Announced::new(&channel, bytes));
    drop(held);
    let mut undo = || {
        abandon(&channel, announced.take());
        drop(pin.take());
    };
    let result = jump::holding(&mut undo, || guard::outside(call));
    if let Some(announced) = &mut announced {
        announced.sent = u64::try_from(result).unwrap_or(0);
    }
    // Settled while the pin still keeps the channel.
    drop(announced);
    drop(pin);
    Some(result)
}

/// Reads up to `count` bytes of a plain file straight into the ring. `None`: not possible now, use the kernel.
pub(crate) fn file_into_ring(
    socket: &Socket,
    source: c_int,
    offset: i64,
    count: usize,
) -> Option<sys::Result<usize>> {
    family::check_owner(socket);
    let held = socket.lock_send();
    let channel = *socket.channel(&held)?;
    let outgoing = channel.outgoing();
    let word = outgoing.sendable()?;
    let room = outgoing.room(word, channel.capacity() as u64).ok()? as usize;
    if count == 0 || room < count {
        return None;
    }
    let (mut done, ring) = (0, channel.outgoing_ring());
    while done < count {
        let (at, length) = ring.piece(word.position() + done as u64, count - done);
        // SAFETY: `piece` lies in the ring's free space, which only the holder of the send lock writes.
        match unsafe { sys::pread(source, at.cast(), length, offset + done as i64) } {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(_) if done > 0 => break,
            Err(error) => return Some(Err(error)),
        }
    }
    if done > 0 && !outgoing.publish(word, done as u64) {
        return None;
    }
    unread::note(socket);
    bump(&socket.card.counters.ring_sends, 1);
    bump(&socket.card.counters.ring_sent_bytes, done as u64);
    Some(Ok(done))
}
