//! The meeting: how a connection on the kernel gets its rings.
//!
//! No thread of ours: every step rides on a call that the program makes anyway, and none blocks. The acceptor
//! opens a door (a listening name made of the tuple), the connector tries it now and then; see
//! [`driver::meeting`]. With `ACCEL_LOCAL_AFTER=0` they meet earlier where they can ([`early`]). Both then
//! *commit*: under both locks, with no call of this process inside the kernel, the byte counts become the
//! kernel's own, and from there on each byte is counted.

use core::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use driver::cards::Path;
use driver::channel::{Channel, Side};
use driver::clock::{monotonic_ns, ticks, ticks_per_usec};
use driver::diag::Owner;
use driver::meeting::{Door, Peers, Refusal, Tuple, offer};
use driver::sys::{self, Errno};
use libc::c_int;
use rows::reasons::Reason;

use crate::config::config;
use crate::fdtable::{self, Entry};
use crate::slot::{Both, Socket, State};
use crate::{family, slot};

mod early;

pub(crate) use early::{
    attend, close_mailbox, greet, invite, join, leave_to_parent, lock_for_fork, open_mailbox,
    unlock_after_fork,
};

/// So many messages later than the acceptor opens its door does a connector try it first: every try in vain costs
/// three calls.
const CONNECTOR_LATER: u32 = 2;
/// Doors and offers that may be pending in one process.
const PENDING_MAX: usize = 64;
/// A door or an offer waits for so many messages at least, and for so long: a door for one who may not have accel at all,
/// an offer for one who has.
const PATIENCE_MESSAGES: u32 = 64;
const DOOR_NS: u64 = 50_000_000;
const OFFER_NS: u64 = 1_000_000_000;
/// Messages after which a connector stops trying, if it has tried for [`DOOR_NS`]: a stream's sender may write thousands
/// before its peer gets to run at all.
const TRIES_UNTIL: u32 = 4096;

/// A meeting under way.
#[derive(Debug)]
pub(crate) struct Meeting {
    tuple: Tuple,
    /// Who owns the other end, if that was asked.
    owner: Option<Owner>,
    stage: Stage,
    /// Number of the next message at which to try.
    next: u32,
    /// Tries so far.
    tries: u32,
    /// When the tries began, or what is pending.
    since_ns: u64,
    since_messages: u32,
    /// Size of the rings for which memory was taken from the allowance; 0 is none.
    reserved: usize,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is pending; the tuple is known and may be accelerated.
    Idle,
    /// Acceptor: the name is open.
    Waiting(Door),
    /// Connector: memory was sent, and waits to be accepted.
    Offered(Channel),
    /// Acceptor: the connector left this memory before it connected.
    Invited(Channel),
}

/// Sockets with something pending (card index plus one), for fork to find.
static PENDING: [AtomicU32; PENDING_MAX] = [const { AtomicU32::new(0) }; PENDING_MAX];

/// The system forbade a call: accel goes inert as soon as no lock is held.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// Runs a call on a socket that has no rings: `f` is libc's own call, and the meeting goes on around it.
pub(crate) fn around(socket: &Socket, receiving: bool, f: impl FnOnce() -> isize) -> isize {
    if config().local_after == 0 {
        crate::errno::kept(|| step(socket));
    }
    let result = {
        let mut inside = Some(InKernel::enter(socket));
        if socket.is_live() {
            // It was upgraded between the caller's look and ours: the caller looks again.
            return RETRY;
        }
        crate::jump::holding(&mut || drop(inside.take()), || crate::guard::outside(f))
    };
    if result > 0 {
        let counters = &socket.card.counters;
        let counter = if receiving { &counters.kernel_receives } else { &counters.kernel_sends };
        counter.fetch_add(1, Relaxed);
        if socket.slot.messages.fetch_add(1, Relaxed) == 0 {
            socket.slot.first_at.store(ticks(), Relaxed);
        }
        crate::errno::kept(|| step(socket));
    }
    result
}

/// [`around`] did nothing: the socket has rings now.
pub(crate) const RETRY: isize = isize::MIN;

/// Counts the calls that are inside the kernel: a commit waits for none. Also on unwinding.
struct InKernel<'a>(&'a Socket);

impl<'a> InKernel<'a> {
    fn enter(socket: &'a Socket) -> Self {
        socket.card.in_kernel.fetch_add(1, SeqCst);
        Self(socket)
    }
}

impl Drop for InKernel<'_> {
    fn drop(&mut self) {
        self.0.card.in_kernel.fetch_sub(1, SeqCst);
    }
}

/// Takes the meeting one step further, if it is time.
pub(crate) fn step(socket: &Socket) {
    let messages = socket.slot.messages.load(Relaxed);
    let first = config().local_after.max(socket.slot.next_step.load(Relaxed));
    if messages < first || socket.slot.state() != State::Candidate || is_young(socket) {
        return;
    }
    let both = socket.lock_both();
    if !socket.is_current() || socket.slot.state() != State::Candidate {
        return;
    }
    let verdict = advance(socket, &both, messages);
    let next = socket.parts(&both).meeting.as_ref().map_or(0, |meeting| meeting.next);
    socket.slot.next_step.store(next, Relaxed);
    drop(both);
    if FORBIDDEN.swap(false, SeqCst) {
        family::go_inert(Reason::Forbidden);
    }
    if let Err(reason) = verdict {
        forget_pending(socket.name.index);
        socket.settle(reason);
    }
}

/// Whether the connection has not been in use for as long as an upgrade is worth. Programs that ask for it at once
/// get it.
fn is_young(socket: &Socket) -> bool {
    let config = config();
    let age = || ticks().wrapping_sub(socket.slot.first_at.load(Relaxed)) / ticks_per_usec();
    config.local_after != 0 && age() < config.local_after_usec
}

/// One step under both locks; an error settles the socket on the kernel.
fn advance(socket: &Socket, both: &Both, messages: u32) -> Result<(), Reason> {
    let slot = socket.parts(both).meeting;
    let Some(meeting) = slot else {
        match prepare(socket) {
            Ok(Some(meeting)) => *slot = Some(Box::new(meeting)),
            Ok(None) => return Ok(()),
            Err(reason) => return Err(reason),
        }
        return advance(socket, both, messages);
    };
    if messages < meeting.next {
        return Ok(());
    }
    if socket.card.in_kernel.load(SeqCst) != 0 {
        // Another thread is inside the kernel on it: its own way out takes the next step.
        return Ok(());
    }
    match &mut meeting.stage {
        Stage::Idle => begin(socket, meeting, messages),
        Stage::Waiting(door) => match door.answer(&meeting.tuple, meeting.owner.as_ref(), peers()) {
            Ok(channel) => {
                // The connector chose the size.
                let committed = meeting.reserve(channel.capacity()) && commit(socket, both, channel);
                if !committed {
                    // SAFETY: the handle was not stored anywhere.
                    unsafe { channel.unmap() };
                }
                finish(socket, both, committed)
            }
            Err(Refusal::NotYet) => lose_patience(socket, meeting, messages),
            Err(Refusal::Forbidden(error)) if is_passing(error) => lose_patience(socket, meeting, messages),
            Err(refusal) => Err(reason_of(refusal)),
        },
        Stage::Invited(channel) => {
            let channel = *channel;
            follow_invitation(socket, both, meeting, channel, messages)
        }
        Stage::Offered(channel) if !channel.peer_committed() => {
            let channel = *channel;
            if is_over(meeting, messages, OFFER_NS) {
                return Err(withdraw(&channel));
            }
            look_again_later(meeting, messages);
            Ok(())
        }
        Stage::Offered(channel) => {
            let channel = *channel;
            if commit(socket, both, channel) {
                finish(socket, both, true)
            } else if is_over(meeting, messages.saturating_sub(TRIES_UNTIL), OFFER_NS) {
                // SAFETY: no other copy of the handle is in use: the stage goes with the meeting.
                unsafe { channel.unmap() };
                Err(Reason::Counts)
            } else {
                Ok(())
            }
        }
    }
}

/// The connector has rings already: so have we, unless it took them back, or is gone.
fn follow_invitation(
    socket: &Socket,
    both: &Both,
    meeting: &mut Meeting,
    channel: Channel,
    messages: u32,
) -> Result<(), Reason> {
    crate::statistics::first_use(socket);
    let gone = channel.incoming().word().is_revoked() && channel.outgoing().word().is_revoked();
    let forbidden = if family::is_inert() { Err(Reason::SwitchedOff) } else { check_options(socket) };
    if forbidden.is_ok() {
        family::table().count_candidate(socket.card);
    }
    if !gone && forbidden.is_ok() && !socket.card.is_sole_holder(family::pid()) {
        // The one who goes on with it (a child, after its parent's close) takes it.
        back_off(meeting, messages);
        return if meeting.tries > 12 { Err(Reason::Shared) } else { Ok(()) };
    }
    meeting.stage = Stage::Idle;
    if gone || forbidden.is_err() || !channel.accept() {
        meeting.return_memory();
        discard(channel);
        return if gone { Err(Reason::Finished) } else { forbidden };
    }
    let committed = commit(socket, both, channel);
    if !committed {
        discard(channel);
    }
    finish(socket, both, committed)
}

/// Unmaps memory that was never, or is no longer, in use here: the caller holds the only handle.
fn discard(channel: Channel) {
    // SAFETY: no other copy of the handle is in use.
    unsafe { channel.unmap() };
}

/// Takes an offer back. An acceptor who took it and did not commit (he could not, or is still about to) stays on
/// the kernel too: he opens nothing before we commit.
fn withdraw(channel: &Channel) -> Reason {
    let _ = channel.withdraw();
    // SAFETY: no other copy of the handle is in use: the stage goes with the meeting.
    unsafe { channel.unmap() };
    Reason::PeerPlain
}

/// The meeting is over: with rings, or (the counts could not be read, or it is shared) without.
fn finish(socket: &Socket, both: &Both, committed: bool) -> Result<(), Reason> {
    if !committed {
        return Err(Reason::Shared);
    }
    let slot = socket.parts(both).meeting;
    if let Some(meeting) = slot {
        // It belongs to the rings now, until the slot is freed.
        meeting.reserved = 0;
    }
    *slot = None;
    forget_pending(socket.name.index);
    Ok(())
}

/// The first look at a candidate: is it a connection that may be upgraded?
fn prepare(socket: &Socket) -> Result<Option<Meeting>, Reason> {
    if family::is_inert() || !config().local {
        return Err(Reason::SwitchedOff);
    }
    let Ok(tuple) = Tuple::of_socket(socket.fd) else { return Ok(None) };
    if !config().carries(tuple.local.port, tuple.remote.port) {
        return Err(Reason::Port);
    }
    check_options(socket)?;
    let owner = match driver::diag::owner_of(tuple.family, &tuple.remote, &tuple.local) {
        Ok(owner) => owner,
        Err(Errno(libc::ENOENT)) if crate::close::peer_sent_fin(socket.fd) => return Err(Reason::Finished),
        Err(Errno(libc::ENOENT)) => return Err(Reason::PeerElsewhere),
        Err(error) if is_passing(error) => return Ok(None),
        Err(_) => return Err(Reason::Forbidden),
    };
    family::table().count_candidate(socket.card);
    crate::statistics::first_use(socket);
    let mut meeting = Meeting::new(tuple, Stage::Idle);
    meeting.owner = Some(owner);
    if socket.side() == Side::Connector {
        // The acceptor, who is about as far, opens its door first.
        meeting.next = socket.slot.messages.load(Relaxed) + CONNECTOR_LATER;
    }
    Ok(Some(meeting))
}

/// Options that only the kernel can honour, also those inherited from a listener; and the blocking mode as it
/// really is.
fn check_options(socket: &Socket) -> Result<(), Reason> {
    let int = |level: c_int, name: c_int| {
        let mut value: c_int = 0;
        sys::getsockopt(socket.fd, level, name, &mut value).map_or(0, |_| value)
    };
    if int(libc::SOL_SOCKET, libc::SO_PROTOCOL) != libc::IPPROTO_TCP {
        return Err(Reason::Option);
    }
    let mut pacing = u64::MAX;
    let length = sys::getsockopt(socket.fd, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, &mut pacing);
    let paced = match length {
        Ok(8) => pacing != u64::MAX,
        Ok(4) => pacing as u32 != u32::MAX,
        _ => false,
    };
    let forbidden = paced
        || int(libc::SOL_SOCKET, libc::SO_TIMESTAMPING) != 0
        || int(libc::SOL_SOCKET, libc::SO_TIMESTAMP) != 0
        || int(libc::IPPROTO_TCP, libc::TCP_ULP) != 0
        || int(libc::IPPROTO_TCP, libc::TCP_REPAIR) != 0;
    let flags = sys::fcntl(socket.fd, libc::F_GETFL, 0).unwrap_or(0) as c_int;
    socket.card.set(driver::cards::flag::NONBLOCK, flags & libc::O_NONBLOCK != 0);
    if flags & libc::O_ASYNC != 0 {
        return Err(Reason::Signals);
    }
    if forbidden { Err(Reason::Option) } else { Ok(()) }
}

/// Opens the door, or tries it.
fn begin(socket: &Socket, meeting: &mut Meeting, messages: u32) -> Result<(), Reason> {
    if !socket.card.is_sole_holder(family::pid()) {
        // It may become ours alone later (PostgreSQL's child after its parent's close).
        back_off(meeting, messages);
        return if meeting.tries > 12 { Err(Reason::Shared) } else { Ok(()) };
    }
    if !meeting.reserve(config().local_ring) {
        return Err(Reason::Memory);
    }
    if meeting.tries == 0 {
        meeting.since_ns = monotonic_ns();
    }
    let begun = match socket.side() {
        Side::Acceptor => open_door(socket, meeting),
        Side::Connector => make_offer(socket, meeting),
    };
    if begun != Ok(true) {
        meeting.return_memory();
    }
    match begun? {
        true => {
            meeting.since_ns = monotonic_ns();
            meeting.since_messages = messages;
            meeting.next = 0;
            socket.card.describe(socket.fd, Path::Meeting, Reason::None as u8);
        }
        false
            if messages > config().local_after.saturating_add(TRIES_UNTIL)
                && has_waited(meeting, DOOR_NS) =>
        {
            return Err(Reason::PeerPlain);
        }
        false => back_off(meeting, messages),
    }
    Ok(())
}

fn open_door(socket: &Socket, meeting: &mut Meeting) -> Result<bool, Reason> {
    if !add_pending(socket.name.index) {
        return Ok(false);
    }
    match Door::open(&meeting.tuple, family::number_floor()) {
        Ok(door) => {
            fdtable::set(door.number(), Entry::Internal);
            meeting.stage = Stage::Waiting(door);
            Ok(true)
        }
        Err(error) if is_passing(error) || error == Errno(libc::EADDRINUSE) => {
            forget_pending(socket.name.index);
            Ok(false)
        }
        Err(error) => Err(reason_of(Refusal::Forbidden(error))),
    }
}

fn make_offer(socket: &Socket, meeting: &mut Meeting) -> Result<bool, Reason> {
    if !add_pending(socket.name.index) {
        return Ok(false);
    }
    match offer(socket.fd, &meeting.tuple, meeting.owner.as_ref(), peers(), config().local_ring) {
        Ok(channel) => {
            meeting.stage = Stage::Offered(channel);
            Ok(true)
        }
        Err(refusal) if is_not_yet(refusal) => {
            forget_pending(socket.name.index);
            Ok(false)
        }
        Err(refusal) => Err(reason_of(refusal)),
    }
}

/// Whether the same call may work later.
fn is_passing(error: Errno) -> bool {
    matches!(error.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EINTR)
}

fn is_not_yet(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::NotYet) || matches!(refusal, Refusal::Forbidden(error) if is_passing(error))
}

/// Tries come after 1, 1, 2, 4, 8 … further messages.
fn back_off(meeting: &mut Meeting, messages: u32) {
    meeting.next = messages.saturating_add(1 << meeting.tries.saturating_sub(1).min(10));
    meeting.tries += 1;
}

/// Whoever waits for the other looks after every message first, and then less and less often: the other may have no
/// accel at all.
fn look_again_later(meeting: &mut Meeting, messages: u32) {
    let pause = 1 + messages.saturating_sub(meeting.since_messages) / 8;
    meeting.next = messages.saturating_add(pause);
}

fn is_over(meeting: &Meeting, messages: u32, patience_ns: u64) -> bool {
    messages.saturating_sub(meeting.since_messages) > PATIENCE_MESSAGES && has_waited(meeting, patience_ns)
}

fn has_waited(meeting: &Meeting, patience_ns: u64) -> bool {
    monotonic_ns() - meeting.since_ns > patience_ns
}

/// Nobody came yet: close the door after a while.
fn lose_patience(socket: &Socket, meeting: &mut Meeting, messages: u32) -> Result<(), Reason> {
    if !is_over(meeting, messages, DOOR_NS) {
        look_again_later(meeting, messages);
        return Ok(());
    }
    drop_stage(socket, meeting);
    Err(Reason::PeerPlain)
}

/// Drops what is pending, and its descriptor's entry with it.
fn drop_stage(socket: &Socket, meeting: &mut Meeting) {
    match core::mem::replace(&mut meeting.stage, Stage::Idle) {
        Stage::Idle => return,
        // Not withdrawn: after a fork another process may hold the same letter, and follow it.
        Stage::Invited(channel) => discard(channel),
        Stage::Waiting(door) => {
            fdtable::take(door.number());
            drop(door);
        }
        Stage::Offered(channel) => {
            let _ = channel.withdraw();
            // SAFETY: the only copy of the handle was in the stage.
            unsafe { channel.unmap() };
        }
    }
    meeting.return_memory();
    forget_pending(socket.name.index);
}

impl Meeting {
    const fn new(tuple: Tuple, stage: Stage) -> Self {
        Self { tuple, owner: None, stage, next: 0, tries: 0, since_ns: 0, since_messages: 0, reserved: 0 }
    }

    /// Takes memory for such rings from the allowance, instead of what was taken before.
    fn reserve(&mut self, ring_bytes: usize) -> bool {
        if self.reserved == ring_bytes {
            return true;
        }
        self.return_memory();
        let taken = family::reserve_memory(ring_bytes);
        if taken {
            self.reserved = ring_bytes;
        }
        taken
    }

    fn return_memory(&mut self) {
        if self.reserved != 0 {
            family::return_memory(core::mem::take(&mut self.reserved));
        }
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.return_memory();
        if let Stage::Waiting(door) = &self.stage {
            fdtable::take(door.number());
        }
    }
}

/// Makes the byte counts the kernel's and starts to use the channel. Both locks are held.
fn commit(socket: &Socket, both: &Both, channel: Channel) -> bool {
    let quiet = || socket.card.in_kernel.load(SeqCst) == 0 && socket.card.is_sole_holder(family::pid());
    if !quiet() {
        return false;
    }
    // A child that goes on with what its parent accepted is the owner now.
    socket.slot.adopt();
    if socket.side() == Side::Acceptor {
        crate::calls::note_inherited(socket);
    }
    // Calls that begin from here on see the live state and wait for our locks.
    let parts = socket.parts(both);
    *parts.channel = Some(channel);
    socket.become_live(both);
    let counts = if quiet() { kernel_counts(socket) } else { None };
    let Some((read, sent)) = counts else {
        *socket.parts(both).channel = None;
        socket.back_to_candidate(both);
        return false;
    };
    socket.parts(both).receiving.kread = read;
    channel.outgoing().set_kernel_sent(sent);
    channel.commit();
    crate::nagle::rings_came(socket);
    family::table().count_upgraded();
    true
}

/// Bytes that the program has read from, and given to, the kernel since the connection began.
pub(crate) fn kernel_counts(socket: &Socket) -> Option<(u64, u64)> {
    const SIOCINQ: u64 = libc::FIONREAD;
    const SIOCOUTQ: u64 = libc::TIOCOUTQ;
    for _ in 0..16 {
        let before = TcpCounts::of(socket.fd)?;
        let queued_in = sys::ioctl_int(socket.fd, SIOCINQ).ok()? as u64;
        let queued_out = sys::ioctl_int(socket.fd, SIOCOUTQ).ok()? as u64;
        if TcpCounts::of(socket.fd)? != before {
            continue;
        }
        // The acknowledged SYN of an active open counts as a byte (tcp_ack in net/ipv4/tcp_input.c), and so does
        // a FIN that was received (tcp_data_queue), which SIOCINQ leaves out.
        let syn = u64::from(socket.side() == Side::Connector);
        let sent = (before.acked + queued_out).checked_sub(syn)?;
        return Some((before.received.checked_sub(queued_in + before.fin)?, sent));
    }
    None
}

#[derive(PartialEq, Eq)]
struct TcpCounts {
    acked: u64,
    received: u64,
    fin: u64,
}

/// States of a connection that may still send (net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

impl TcpCounts {
    /// `tcpi_bytes_acked` and `tcpi_bytes_received` of a socket that may still send (linux/tcp.h).
    fn of(fd: c_int) -> Option<Self> {
        let mut info = [0u64; 17];
        let length = sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info).ok()?;
        let fin = match info[0].to_ne_bytes()[0] {
            ESTABLISHED => 0,
            CLOSE_WAIT => 1,
            _ => return None,
        };
        (length >= size_of_val(&info)).then(|| Self { acked: info[15], received: info[16], fin })
    }
}

fn peers() -> Peers {
    if config().any_peer { Peers::Any } else { Peers::SameUser }
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NotYet | Refusal::Stranger => Reason::PeerPlain,
        Refusal::Elsewhere => Reason::PeerElsewhere,
        Refusal::User => Reason::PeerUser,
        Refusal::Container => Reason::PeerContainer,
        Refusal::Forbidden(Errno(libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
            // What the system forbade once it forbids again: do not try in this process any more.
            FORBIDDEN.store(true, SeqCst);
            Reason::Forbidden
        }
        Refusal::Forbidden(_) => Reason::Forbidden,
    }
}

fn add_pending(index: u32) -> bool {
    PENDING.iter().any(|entry| entry.compare_exchange(0, index + 1, SeqCst, Relaxed).is_ok())
}

fn forget_pending(index: u32) {
    for entry in &PENDING {
        let _ = entry.compare_exchange(index + 1, 0, SeqCst, Relaxed);
    }
}

/// Before fork: nothing may be pending, or two processes would meet the same peer.
pub(crate) fn drop_all_pending() {
    for entry in &PENDING {
        let Some(index) = entry.load(SeqCst).checked_sub(1) else { continue };
        let socket = slot::by_index(index);
        let both = socket.lock_both();
        if let Some(meeting) = socket.parts(&both).meeting {
            drop_stage(&socket, meeting);
            meeting.next = socket.slot.messages.load(Relaxed) + 1;
        }
        entry.store(0, SeqCst);
    }
}

/// The program takes the number of a descriptor of ours: what waited on it ends, and nothing is closed.
pub(crate) fn lose_descriptor(fd: c_int) {
    early::lose_descriptor(fd);
    for entry in &PENDING {
        let Some(index) = entry.load(SeqCst).checked_sub(1) else { continue };
        let socket = slot::by_index(index);
        let both = socket.lock_both();
        if let Some(meeting) = socket.parts(&both).meeting
            && matches!(&meeting.stage, Stage::Waiting(door) if door.number() == fd)
        {
            if let Stage::Waiting(door) = core::mem::replace(&mut meeting.stage, Stage::Idle) {
                door.lose();
            }
            meeting.return_memory();
            entry.store(0, SeqCst);
        }
    }
}

/// The socket is closed or given away: whatever is pending goes.
pub(crate) fn abandon(socket: &Socket, both: &Both) {
    if let Some(meeting) = socket.parts(both).meeting {
        drop_stage(socket, meeting);
    }
    *socket.parts(both).meeting = None;
}
