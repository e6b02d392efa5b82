//! Options and names of sockets that the stack carries.
//!
//! What a program sets before the path is decided goes to the kernel's socket and is remembered; a socket that the stack takes gets it
//! then. An option that the stack doesn't know keeps its socket on the kernel.

use libc::{c_int, c_void, sockaddr, socklen_t};
use stack::error::Error;
use stack::options::What;
use stack::tcp;

use super::address::{self, Name};
use super::{Carried, failure};
use crate::buffers::is_plausible;
use crate::calls::SIOCATMARK;
use crate::lock::Lock;
use crate::slot::{Outcome, Socket, State};
use driver::sys::Errno;

/// Bytes of an option that are remembered: the longest are a congestion control's name and a linger.
const LONGEST: usize = 48;
/// Options of one socket.
const EACH: usize = 24;

/// One option as it was set.
#[derive(Clone, Copy, Debug)]
struct Set {
    slot: u32,
    generation: u32,
    level: c_int,
    name: c_int,
    len: usize,
    value: [u8; LONGEST],
}

/// What was set on sockets whose path is not decided yet.
static REMEMBERED: Lock<Vec<Set>> = Lock::new(Vec::new());

/// Before fork: nothing of it is half changed in the child.
pub(super) fn lock_for_fork() {
    core::mem::forget(REMEMBERED.lock());
}

/// After it, in either process.
pub(super) fn unlock_after_fork() {
    // SAFETY: this thread, or its image in the parent, has locked it in `lock_for_fork`.
    unsafe { REMEMBERED.unlock_forgotten() };
}

/// Options that stay the kernel's: the placeholder's, or the wait's, alone.
const OF_THE_PLACEHOLDER: &[(c_int, c_int)] =
    &[(libc::SOL_SOCKET, libc::SO_RCVTIMEO), (libc::SOL_SOCKET, libc::SO_SNDTIMEO)];

/// Whether the stack knows the option.
fn is_known(level: c_int, name: c_int) -> bool {
    tcp::options::names().any(|what: What| (what.level, what.number) == (level, name))
}

/// A program has set an option of a socket whose path is not decided, and the kernel took it; false if it must stay there.
///
/// # Safety
/// `value` is the caller's promise for `length` bytes: the kernel has read them.
pub(crate) unsafe fn remember(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> bool {
    if OF_THE_PLACEHOLDER.contains(&(level, name)) {
        return true;
    }
    // SAFETY: the caller's contract.
    is_known(level, name) && unsafe { keep(socket, level, name, value, length) }
}

/// Keeps an option for when the path is decided; false if there is no room for it.
///
/// # Safety
/// As [`remember`].
pub(super) unsafe fn keep(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> bool {
    let len = length as usize;
    if len > LONGEST {
        return false;
    }
    let (slot, generation) = (socket.name.index, socket.name.generation);
    let mut set = Set { slot, generation, level, name, len, value: [0; LONGEST] };
    // SAFETY: the caller's contract; the room is as long.
    unsafe { core::ptr::copy_nonoverlapping(value.cast::<u8>(), set.value.as_mut_ptr(), len) };
    let mut all = REMEMBERED.lock();
    let same = |other: &Set| (other.slot, other.level, other.name) == (slot, level, name);
    // Those of a socket that had the slot before.
    all.retain(|other| !same(other) && (other.slot != slot || other.generation == generation));
    let count = all.iter().filter(|other| other.slot == slot).count();
    if count < EACH {
        all.push(set);
    }
    count < EACH
}

/// The same, and what follows from it: the socket stays on the kernel, or its listener in the stack gets the option, too.
///
/// # Safety
/// As [`remember`].
pub(crate) unsafe fn note(
    socket: &Socket,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) {
    if let Some(listener) = socket.stack_listener() {
        // SAFETY: the caller's contract.
        let _ = unsafe { set(&listener, level, name, value, length) };
        return;
    }
    // SAFETY: the caller's contract.
    if socket.slot.state() == State::Candidate && !unsafe { remember(socket, level, name, value, length) } {
        socket.slot.refuse_stack();
    }
}

/// The socket is gone, or its path is decided.
pub(crate) fn forget(socket: &Socket) {
    REMEMBERED.lock().retain(|set| set.slot != socket.name.index);
}

/// The stack's socket gets what was set on the kernel's.
pub(super) fn carry_over(carried: &Carried) {
    let name = carried.socket.name;
    let is_its = |set: &&Set| (set.slot, set.generation) == (name.index, name.generation);
    let sets: Vec<Set> = REMEMBERED.lock().iter().filter(is_its).copied().collect();
    let handle = carried.handle;
    if !sets.is_empty() {
        carried.with(|stack| {
            for set in &sets {
                let value = &set.value[..set.len];
                let _ = match carried.is_udp {
                    true => stack.udp_set_option(handle, set.level, set.name, value),
                    false => stack.set_option(handle, set.level, set.name, value),
                };
            }
        });
    }
    // A socket of UDP may get another half like this one.
    if !carried.is_udp {
        forget(&carried.socket);
    }
}

/// setsockopt(2): `None` leaves it to the kernel's socket alone.
///
/// # Safety
/// As the system call.
pub(crate) unsafe fn set(
    carried: &Carried,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> Option<Outcome> {
    if OF_THE_PLACEHOLDER.contains(&(level, name)) {
        return None;
    }
    if length > 0 && !is_plausible(value) {
        return Some(Outcome::Fail(Errno(libc::EFAULT)));
    }
    let value = match length as c_int {
        ..0 => return Some(failure(Error::Invalid)),
        0 => &[],
        // SAFETY: the caller's contract.
        _ => unsafe { core::slice::from_raw_parts(value.cast::<u8>(), length as usize) },
    };
    let handle = carried.handle;
    Some(match carried.with(|stack| stack.set_option(handle, level, name, value)) {
        Ok(()) => Outcome::Value(0),
        Err(error) => failure(error),
    })
}

/// getsockopt(2): `None` leaves it to the kernel's socket.
///
/// # Safety
/// As the system call.
pub(crate) unsafe fn get(
    carried: &Carried,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> Option<Outcome> {
    if OF_THE_PLACEHOLDER.contains(&(level, name)) || !is_known(level, name) {
        return None;
    }
    if !is_plausible(length) {
        return Some(Outcome::Fail(Errno(libc::EFAULT)));
    }
    // SAFETY: the caller's contract.
    let room = unsafe { length.read_unaligned() };
    if (room as c_int) < 0 {
        return Some(failure(Error::Invalid));
    }
    let mut bytes = [0u8; 1024];
    let most = (room as usize).min(bytes.len());
    let handle = carried.handle;
    let got = carried.with(|stack| {
        stack.poll();
        stack.option(handle, level, name, &mut bytes[..most])
    });
    let count = match got {
        Ok(count) => count.min(most),
        Err(error) => return Some(failure(error)),
    };
    if count > 0 && !is_plausible(value) {
        return Some(Outcome::Fail(Errno(libc::EFAULT)));
    }
    // SAFETY: the caller's contract: so many bytes fit.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), value.cast(), count);
        length.write_unaligned(count as socklen_t);
    }
    Some(Outcome::Value(0))
}

/// What ioctl(2) tells of a connection (tcp_ioctl in net/ipv4/tcp.c): `None` is the kernel's to answer.
pub(crate) fn count(carried: &Carried, request: u64) -> Option<c_int> {
    /// linux/sockios.h.
    const SIOCOUTQNSD: u64 = 0x894b;
    let handle = carried.handle;
    match request {
        libc::FIONREAD => Some(super::receive::unread(carried)),
        libc::TIOCOUTQ | SIOCOUTQNSD => Some(carried.with(|stack| {
            stack.poll();
            let queued = stack.queued(handle).unwrap_or_default();
            (if request == SIOCOUTQNSD { queued.unsent } else { queued.all }) as c_int
        })),
        SIOCATMARK => Some(carried.with(|stack| stack.is_at_mark(handle).is_ok_and(|at| at).into())),
        _ => None,
    }
}

/// getsockname(2) and getpeername(2) of a connection.
///
/// # Safety
/// As the system calls.
pub(crate) unsafe fn name(
    carried: &Carried,
    is_peer: bool,
    to: *mut sockaddr,
    length: *mut socklen_t,
) -> Outcome {
    let handle = carried.handle;
    let known = carried.with(|stack| {
        let tcb = stack.parts.tcb(handle)?;
        if is_peer && (!tcb.has_peer() || !tcb.state().is_synchronized()) {
            return Err(Error::NotConnected);
        }
        let (ip, port) = if is_peer { (tcb.remote, tcb.remote_port) } else { (tcb.local, tcb.local_port) };
        Ok(Name::of(carried.interface.index, ip, port))
    });
    let name = match known {
        Ok(name) => name,
        Err(error) => return failure(error),
    };
    let is_v6 = address::of_socket(carried.socket.fd).is_some_and(|(_, is_v6)| is_v6);
    if !is_plausible(to) {
        return Outcome::Fail(Errno(libc::EFAULT));
    }
    // SAFETY: the caller's contract.
    match unsafe { address::give(&name, is_v6, to, length) } {
        Ok(()) => Outcome::Value(0),
        Err(error) => Outcome::Fail(Errno(error)),
    }
}
