//! What a receive does that finds nothing and may block: it spins, and then sleeps in the kernel.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use driver::cards::{Held, bump};
use driver::channel::Channel;
use driver::clock::{current_cpu, ticks, ticks_per_usec};
use driver::sys::{self, Errno};

use super::{AGAIN, Receive, Step, mark, spin_for_bytes};
use crate::buffers::Room;
use crate::guard::{self, Interrupt};
use crate::slot::{Outcome, Socket};
use crate::{close, jump, real, spin};

impl Receive<'_> {
    /// Nothing is there and the call may block: spin, then sleep in the kernel. `None`: look again.
    pub(super) fn wait(&mut self, held: Held) -> Option<Outcome> {
        let channel = *self.socket.channel(&held)?;
        if self.waiting == 0 {
            self.waiting = ticks();
        }
        let timeout = u64::from(self.socket.slot.receive_timeout_us.load(Relaxed));
        if channel.incoming().word().is_open() {
            let pin = self.socket.pin();
            drop(held);
            let end = if self.spun {
                spin::End::Expired
            } else {
                spin_for_bytes(self.socket, &channel, self.seen, timeout)
            };
            self.spun = false;
            drop(pin);
            match end {
                spin::End::Ready => return None,
                spin::End::Signal => return self.interrupted(timeout),
                spin::End::Expired => {}
            }
            if timeout != 0 && ticks().wrapping_sub(self.waiting) >= timeout * ticks_per_usec() {
                return Some(self.so_far(AGAIN));
            }
            return self.sleep(self.socket.lock_receive());
        }
        self.sleep(held)
    }

    /// Runs the handlers of signals that came while we spun.
    fn interrupted(&self, timeout: u64) -> Option<Outcome> {
        match guard::take_interrupt() {
            Interrupt::Eintr => Some(self.so_far(Outcome::Fail(Errno(libc::EINTR)))),
            // A receive timeout makes the call fail with EINTR whatever SA_RESTART says: signal(7).
            Interrupt::Restart if timeout != 0 => Some(self.so_far(Outcome::Fail(Errno(libc::EINTR)))),
            Interrupt::Restart | Interrupt::None => None,
        }
    }

    /// Closes the direction, and sleeps in the kernel on the real descriptor.
    fn sleep(&mut self, held: Held) -> Option<Outcome> {
        let channel = *self.socket.channel(&held)?;
        // Another thread may close the descriptor meanwhile: the channel must stay.
        let mut pin = Some(self.socket.pin());
        let mut sleeper = Some(Sleeper::enter(self.socket));
        let before = channel.incoming().close();
        if before.position() != self.seen {
            return None;
        }
        mark::settle(self.socket, &held);
        if before.is_open() {
            bump(&self.socket.card.counters.closed_to_sleep, 1);
        }
        channel.publish_cpu(current_cpu());
        drop(held);
        let timeout = u64::from(self.socket.slot.receive_timeout_us.load(Relaxed));
        let deadline = (timeout != 0).then(|| self.waiting + timeout * ticks_per_usec());
        let mut undo = || drop((sleeper.take(), pin.take()));
        let result = jump::holding(&mut undo, || {
            close::sleep_watching(self.socket, deadline).map(|watched| {
                watched?;
                spin::record_sleep();
                self.blocking_receive()
            })
        })?;
        let held = self.socket.lock_receive();
        drop(sleeper);
        match result {
            Err(error @ Errno(libc::EINTR | libc::EAGAIN)) => Some(self.so_far(Outcome::Fail(error))),
            result => self.woken(held, &channel, result),
        }
    }

    /// The kernel's own blocking call, as the program made it.
    fn blocking_receive(&self) -> sys::Result<usize> {
        let mut room = Room::new();
        let vector = self.buffers.rest(&mut room);
        let (fd, flags) = (self.socket.fd, self.flags);
        let counted = |result| usize::try_from(result).map_err(|_| Errno(crate::errno::get()));
        let slept = guard::outside_unless_interrupted(|| {
            if let ([one], None) = (&*vector, self.control) {
                // SAFETY: the caller's buffer.
                return counted(unsafe { real::recv(fd, one.iov_base, one.iov_len, flags) });
            }
            self.by_message(vector, |message| {
                // SAFETY: the message names the caller's buffers.
                counted(unsafe { real::recvmsg(fd, message, flags) })
            })
        });
        slept.unwrap_or(Err(Errno(libc::EINTR)))
    }

    fn woken(&mut self, held: Held, channel: &Channel, result: sys::Result<usize>) -> Option<Outcome> {
        match result {
            Ok(_) if self.is_stale(channel) => None,
            Ok(0) if self.buffers.left() > 0 => match self.at_end(held, channel) {
                Step::Return(outcome) => Some(outcome),
                _ => None,
            },
            Ok(count) => {
                self.account(&held, count);
                self.try_reopen(&held, channel);
                Some(Outcome::Value(self.buffers.done()))
            }
            Err(error) => match self.failed(held, channel, error) {
                Step::Return(outcome) => Some(outcome),
                _ => None,
            },
        }
    }
}

/// Counts a thread that sleeps in a wait that covers the receiving direction: nobody opens it meanwhile.
pub(crate) struct Sleeper(Socket);

impl Sleeper {
    /// The receive lock must be held.
    pub(crate) fn enter(socket: &Socket) -> Self {
        socket.card.sleepers.fetch_add(1, SeqCst);
        Self(*socket)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.card.sleepers.fetch_sub(1, SeqCst);
    }
}
