//! The stack: everything that one operation sees, for as long as it holds the lock.
//!
//! [`Stack::poll`] takes completions and what arrived, runs timers, sends what may be sent and fills the ring. Calls of the
//! user are in [`crate::tcp`]. Nothing waits and nothing reads a clock; after either the caller flushes the device's kick.
//!
//! A packet is one frame as a rule; those of several, as a device with GRO gives them, are [`chain`]'s.

use core::sync::atomic::Ordering;

use crate::device::{Device, FrameIndex, Received};
use crate::error::Error;
use crate::events;
use crate::frames::blocks::Blocks;
use crate::frames::pool::Purpose;
use crate::frames::{Completed, Frames, link};
use crate::ip::hop::Hop;
use crate::recover::{Operation, fence};
use crate::region::layout::Header;
use crate::region::slab::Handle;
use crate::region::{Parts, Shared};
use crate::sendq::SendQueue;
use crate::settings;
use crate::stats::Counter;
use crate::tcp::connection::Connection;
use crate::tcp::open::traffic::Want;
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags, Mark, Standing, Tcb, Traffic};
use crate::time::Instant;

mod ahead;
mod chain;
mod errors;
mod fragments;
mod groups;
mod icmp;
mod ingress;
mod inject;
mod link;
mod listen;
mod other;
pub(crate) mod parcel;
mod path;
mod predicted;
mod udp;

use predicted::Prediction;

/// Packets that are taken in one poll: no longer than the lock may be held.
const BURST: usize = 32;
/// Entries of a ring that are looked at together: room for more costs a poll that finds one, too.
const BATCH: usize = 8;
/// More entries than those.
const BATCH_MANY: usize = BATCH + 1;
/// The same of a device whose packets have several each: it drops what needs more, and 64 KiB in the room that AF_XDP leaves
/// in frames of 2 KiB are 37.
const BATCH_JOINED: usize = 64;
/// Timers that are run at once.
const TIMERS: usize = 64;

/// One stack at work.
#[derive(Debug)]
pub struct Stack<'s, 'a, D> {
    /// The locked part.
    pub parts: &'s mut Parts<'a>,
    /// The shared part.
    pub shared: &'s Shared<'a>,
    /// What carries frames.
    pub device: &'s mut D,
    /// The time.
    pub now: Instant,
}

/// What is left after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polled {
    /// When it wants to be polled, if nothing arrives before.
    pub deadline: Option<Instant>,
    /// There may be more to do at once.
    pub more: bool,
    /// A kick is owed to the device ([`Device::flush`]).
    pub kick: bool,
}

/// Sockets that a burst has touched: each is asked once what it sends.
struct Touched {
    sockets: [u32; BURST],
    len: usize,
}

impl Touched {
    const NONE: Self = Self { sockets: [0; BURST], len: 0 };

    /// False if there is no room for one more.
    fn add(&mut self, socket: Handle) -> bool {
        let known = self.sockets.get(..self.len).is_some_and(|known| known.contains(&socket.index));
        if known {
            return true;
        }
        let place = self.sockets.get_mut(self.len);
        place.map(|place| (*place, self.len) = (socket.index, self.len + 1)).is_some()
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// One round: completions, a burst of packets, timers, output, the fill ring.
    pub fn poll(&mut self) -> Polled {
        self.take_completions();
        let mut touched = Touched::NONE;
        // What fits into few entries is taken so, too, if the device joins segments.
        let waiting = self.device.waiting();
        let is_stopped = match waiting {
            0 => false,
            BATCH_MANY.. if self.device.capabilities().gro => self.receive_joined(&mut touched),
            _ => self.receive_burst::<BATCH>(&mut touched) == BURST,
        };
        for index in &touched.sockets[..touched.len] {
            if let Some(tcb) = self.parts.tcbs.get(*index as usize) {
                self.predicted_output(tcb.tag.handle(*index));
            }
        }
        let more_timers = if self.due() <= self.now.0 {
            self.run_all_timers()
        } else {
            self.parts.wheels.pass(self.now);
            false
        };
        let more_senders = self.wake_senders();
        if self.parts.pool.entered != 0 {
            let entered = core::mem::take(&mut self.parts.pool.entered);
            self.shared.counters().add(Counter::PressureEntered, entered.into());
        }
        // Who polls because something came has something to read: the ring is filled when there is time, or need.
        let target = self.parts.pool.limits.fill_min;
        if waiting == 0 || self.parts.pool.filled() < target - target / 4 {
            self.fill();
        }
        let kick = self.device.flush();
        let word = self.due();
        let deadline = (word != u64::MAX).then_some(Instant(word));
        if let Some(shared) = self.shared.deadline.first() {
            shared.store(word, Ordering::Relaxed);
        }
        Polled { deadline, more: is_stopped || more_timers || more_senders, kick }
    }

    /// When something is to be done next, in nanoseconds; the largest number is never.
    #[inline]
    fn due(&mut self) -> u64 {
        self.parts.wheels.due().min(self.parts.ip.due())
    }

    #[inline(never)]
    fn run_all_timers(&mut self) -> bool {
        self.run_timers() | self.run_syn_timers() | self.run_ip_timers()
    }

    /// Wakes who has waited longest for queues, as long as there are some: its end is sent, or its user learns that there
    /// is room. One who makes no use of it leaves it to the next, whom the next poll wakes. Whether somebody waits for that.
    pub(crate) fn wake_senders(&mut self) -> bool {
        if self.parts.sending.first == 0 {
            return false;
        }
        for _ in 0..self.parts.free_to_send().min(BURST as u32) {
            let Some(socket) = self.parts.tcp_next_to_send() else { return false };
            self.output(socket);
        }
        self.parts.sending.first != 0 && self.parts.free_to_send() != 0
    }

    pub(crate) fn frames(&mut self) -> Frames<'_> {
        Frames { pool: self.parts.pool, records: self.parts.frames, states: self.shared.frames }
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.shared.counters().add(counter, 1);
    }

    #[inline]
    fn take_completions(&mut self) {
        if self.take_some_completions() == BATCH {
            // Each frame can be complete once.
            for _ in 0..self.parts.frames.len() / BATCH {
                if self.take_some_completions() < BATCH {
                    break;
                }
            }
        }
    }

    #[inline]
    fn take_some_completions(&mut self) -> usize {
        let mut done = [FrameIndex::default(); BATCH];
        let count = self.device.completions(&mut done).min(BATCH);
        for frame in &done[..count] {
            if self.frames().completed(*frame) == Completed::Datagram {
                self.datagram_sent(*frame);
            }
        }
        count
    }

    /// What arrived, up to [`BURST`] entries, so many at a time.
    fn receive_burst<const N: usize>(&mut self, touched: &mut Touched) -> usize {
        let mut all = 0;
        while all + N <= BURST {
            let count = self.receive_batch::<N>(touched);
            all += count;
            if count < N {
                break;
            }
        }
        all
    }

    /// The same of a device that joins segments: what it has left may be a packet that needs more entries than are left.
    /// Whether there may be more.
    fn receive_joined(&mut self, touched: &mut Touched) -> bool {
        let mut all = 0;
        while all < BURST {
            match self.receive_batch::<BATCH_JOINED>(touched) {
                0 => return false,
                count => all += count,
            }
        }
        true
    }

    fn receive_batch<const N: usize>(&mut self, touched: &mut Touched) -> usize {
        let mut packets = [Received::EMPTY; N];
        let count = self.device.receive(&mut packets).min(N);
        let size = self.device.capabilities().frame_size;
        // All of them are the stack's before one is looked at: the ring has given them away.
        let (mut believed, mut arrived, mut goes_on) = (0u64, self.now, false);
        for (at, packet) in packets[..count].iter().enumerate() {
            if !goes_on {
                arrived = packet.arrived.unwrap_or(self.now);
            }
            goes_on = packet.continues;
            believed |= u64::from(self.frames().received(packet.fragment, size, arrived)) << at;
        }
        self.look_ahead::<N>(&packets[..count]);
        let mut at = 0;
        while let Some((first, rest)) = packets[..count].get(at..).and_then(|left| left.split_first()) {
            let believed = believed >> at;
            let socket = if !first.continues && believed & 1 == 1 {
                at += 1;
                self.count(Counter::PacketsIn);
                match self.predicted(first) {
                    Prediction::Taken(socket) => socket,
                    Prediction::Other(segment, found) => self.segment_for(segment, found),
                    Prediction::Unusual => self.packet(core::slice::from_ref(first)),
                }
            } else {
                let more = rest.iter().take_while(|entry| entry.continues).count() + 1;
                let len = if first.continues { 1 + more.min(rest.len()) } else { 1 };
                at += len;
                self.chain(packets.get(at - len..at).unwrap_or_default(), believed)
            };
            if let Some(socket) = socket
                && !touched.add(socket)
            {
                self.output(socket);
            }
        }
        count
    }

    fn discard(&mut self, frame: FrameIndex) -> Option<Handle> {
        self.frames().discard(frame);
        None
    }

    /// Gives the device frames to receive into, up to the share that is kept for it.
    fn fill(&mut self) {
        let target = self.parts.pool.limits.fill_min;
        let mut room = self.device.fill_room();
        while room > 0 && self.parts.pool.filled() < target {
            let mut frames = self.frames();
            let Some(frame) = frames.take(Purpose::Fill) else { return self.count(Counter::FramesShort) };
            self.parts.intent.frame = link(frame);
            fence();
            if !self.frames().fill(frame) || self.device.fill(&[frame]) == 0 {
                return self.count(Counter::Corrupt);
            }
            room -= 1;
        }
        fence();
        self.parts.intent.frame = 0;
    }

    fn run_timers(&mut self) -> bool {
        self.parts.wheels.tcbs.is_due(self.now) && self.run_due_timers()
    }

    fn run_due_timers(&mut self) -> bool {
        let (mut fired, mut count) = ([0; TIMERS], 0);
        let (wheel, tcbs) = (&mut self.parts.wheels.tcbs, &mut *self.parts.tcbs);
        let more = wheel.advance(tcbs, self.now, TIMERS, |_, _, index| {
            if let Some(place) = fired.get_mut(count) {
                *place = index;
                count += 1;
            }
        });
        for index in &fired[..count] {
            let Some(tcb) = self.parts.tcbs.get(*index as usize) else { continue };
            let (socket, next) = (tcb.tag.handle(*index), tcb.timers.next());
            match next {
                Some(at) if at <= self.now => {
                    let asked = if tcb.is(Mark::FAST_OPEN) { Some(*tcb) } else { None };
                    let orphans = self.parts.left.orphans;
                    let _ = self.work(socket, None, |connection| connection.on_timers(orphans));
                    if let Some(was) = asked {
                        self.note_silence(*index, &was);
                    }
                }
                // It was put off since: the entry is lazy.
                Some(at) => self.parts.wheels.tcbs.arm(self.parts.tcbs, *index, at),
                None => {}
            }
        }
        more
    }

    /// Sends what a socket may send now.
    pub(crate) fn output(&mut self, socket: Handle) {
        let _ = self.work(socket, None, |connection| connection.output());
    }

    /// Works on one connection, and does what follows from it for the region: its timer in the wheel, its readiness, its
    /// queues given back, its record if it has ended and nobody holds it. It gets the queues that it is to have.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` when no queues are left.
    pub(crate) fn work<R>(
        &mut self,
        socket: Handle,
        queues: Option<Want>,
        work: impl FnOnce(&mut Connection<'_, D>) -> R,
    ) -> Result<R, Error> {
        self.parts.intent.begin(Operation::Tcp, socket.index);
        let done = self.work_named(socket, queues, work);
        self.parts.intent.end();
        done
    }

    #[inline]
    fn work_named<R>(
        &mut self,
        socket: Handle,
        queues: Option<Want>,
        work: impl FnOnce(&mut Connection<'_, D>) -> R,
    ) -> Result<R, Error> {
        if let Some(want) = queues {
            self.parts.tcp_traffic(socket, want)?;
        } else if matches!(self.state(socket)?, State::FinWait1 | State::Closing | State::LastAck) {
            // Its FIN may wait for a frame still.
            let _ = self.parts.tcp_traffic(socket, Want::Sending);
        }
        let (mut spare, hop) = (None, self.hop_to_peer(socket.index));
        let is_crowded = self.parts.left.time_waits >= self.parts.host.tcp_max_tw_buckets;
        let takes_short_way = self.parts.header.modes & Header::LONG_WAY == 0;
        let mut connection = self.connection(socket, &mut spare, hop)?;
        if connection.hop.mtu != 0 {
            connection.set_path_mtu(connection.hop.mtu);
            connection.tcb.timers.rto_min_ms = connection.hop.rto_min_ms;
        }
        if connection.values.mtu_discover != 0 {
            connection.choose_fragments();
        }
        let before = connection.tcb.standing();
        let vouching = connection.tcb.is(Mark::FAST_CHILD).then_some(connection.seldom.rcv_up);
        let result = work(&mut connection);
        if is_crowded && before != Standing::TimeWait && connection.tcb.standing() == Standing::TimeWait {
            connection.output();
            connection.count(Counter::TimeWaitsKilled);
            connection.end();
        }
        let after = connection.tcb.standing();
        // Its handshake was going on, and has ended.
        let vouched = vouching.filter(|_| connection.is_over || !connection.tcb.is(Mark::FAST_CHILD));
        let is_reset = connection.is_over && connection.tcb.error == Error::ConnectionReset.code();
        let predicted = takes_short_way && connection.is_predictable();
        let flags = connection.tcb.flags.without(Flags::PREDICTED);
        connection.tcb.flags = if predicted { flags | Flags::PREDICTED } else { flags };
        let (is_over, arrived) = (connection.is_over, connection.arrived);
        let waits = !is_over && connection.lacks_queues();
        let ready = connection.ready();
        if connection.hop.is_used || connection.hop.waiting != 0 {
            let (mut hop, heard) = (connection.hop, connection.heard());
            self.after(&mut hop, Some(heard));
        }
        if let Some(word) = self.shared.tcp_events.get(socket.index as usize)
            && events::set(word, ready, arrived)
        {
            self.shared.note_tcp(socket.index);
        }
        if before != after {
            self.parts.left.moved(before, after);
        }
        if let Some(listener) = vouched {
            self.end_fast_open(socket, listener, is_reset);
        }
        if is_over {
            self.finish(socket)?;
        } else {
            self.arm_wheel(socket.index);
            self.parts.tcp_rest(socket)?;
            if waits {
                self.parts.tcp_wait(socket)?;
            }
        }
        Ok(result)
    }

    /// One connection at work, whose packets leave by `hop`.
    #[inline(always)]
    pub(crate) fn connection<'w>(
        &'w mut self,
        socket: Handle,
        spare: &'w mut Option<Traffic>,
        hop: Hop,
    ) -> Result<Connection<'w, D>, Error> {
        let stats = self.shared.counters();
        let parts = &mut *self.parts;
        let tcb = parts.tcbs.get_mut(socket.index as usize).ok_or(Error::BadHandle)?;
        let traffic = match tcb.traffic.checked_sub(1) {
            Some(index) => parts.traffics.get_mut(index as usize).ok_or(Error::Corrupt)?,
            None => spare.insert(Traffic { send: SendQueue::new(tcb.snd.nxt), ..Traffic::default() }),
        };
        if traffic.send.sent().frames == 0 {
            traffic.fack = tcb.snd.una;
        }
        Ok(Connection {
            index: socket.index,
            values: settings::of(parts.settings, tcb.settings),
            tcb,
            seldom: parts.seldoms.get_mut(socket.index as usize).ok_or(Error::Corrupt)?,
            traffic,
            frames: Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames },
            blocks: Blocks { slab: &mut parts.slabs.blocks, blocks: parts.blocks },
            device: self.device,
            host: parts.host,
            stats,
            secret: &parts.header.secret,
            hop,
            now: self.now,
            overridden: false,
            arrived: false,
            is_over: false,
            armed: None,
        })
    }

    /// The first of a connection's timers, into the wheel.
    #[inline]
    fn arm_wheel(&mut self, index: u32) {
        if let Some(at) = self.parts.tcbs.get(index as usize).and_then(|tcb| tcb.timers.next()) {
            self.parts.wheels.tcbs.arm(self.parts.tcbs, index, at);
            self.note_deadline(at);
        }
    }

    /// Whoever sleeps until the first timer is to wake for this one.
    #[inline]
    fn note_deadline(&self, at: Instant) {
        if let Some(word) = self.shared.deadline.first()
            && at.0 < word.load(Ordering::Relaxed)
        {
            word.store(at.0, Ordering::Relaxed);
        }
    }

    /// The same for a timer that was just armed, when the others are in the wheel already.
    #[inline]
    pub(crate) fn arm_wheel_at(&mut self, index: u32, at: Option<Instant>) {
        let is_early = |tcb: &Tcb| at.filter(|at| tcb.entry.deadline().is_none_or(|entry| *at < entry));
        if let Some(at) = self.parts.tcbs.get(index as usize).and_then(is_early) {
            self.parts.wheels.tcbs.arm(self.parts.tcbs, index, at);
            self.note_deadline(at);
        }
    }

    /// A connection has ended: no segment finds it, and its record goes with the last who holds it. One that waits to be
    /// accepted waits on, for accept(2) to tell.
    fn finish(&mut self, socket: Handle) -> Result<(), Error> {
        self.parts.wheels.tcbs.disarm(self.parts.tcbs, socket.index);
        if self.parts.tcb(socket)?.has_peer() {
            self.parts.tcp_disconnect(socket)?;
        }
        let tcb = *self.parts.tcb(socket)?;
        if tcb.flags.has(Flags::ORPHAN) {
            let mut spare = None;
            self.connection(socket, &mut spare, Hop::default())?.drop_received();
            self.parts.tcp_release(socket)?;
        } else {
            self.parts.tcp_rest(socket)?;
        }
        Ok(())
    }

    /// The state of a socket, for whoever shows it.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn state(&mut self, socket: Handle) -> Result<State, Error> {
        Ok(self.parts.tcb(socket)?.state())
    }
}
