//! poll, select and epoll, in all their forms.

use driver::sys::{self, Errno};

use crate::buffers::is_plausible;
use crate::config::config;
use crate::epoll::{self, Waiting};
use crate::errno;
use crate::family;
use crate::fdtable;
use crate::guard::Guard;
use crate::net::ready;
use crate::poll::{Poll, concerns_us};
use crate::process::in_vfork_child;
use crate::real::{self, types::*};
use crate::select::{Select, sets_of};
use crate::slot;

fn result(outcome: sys::Result<usize>) -> c_int {
    match outcome {
        Ok(count) => count as c_int,
        Err(error) => errno::fail(error.0),
    }
}

fn outcome(result: c_int) -> sys::Result<usize> {
    usize::try_from(result).map_err(|_| Errno(errno::get()))
}

fn milliseconds(timeout: c_int) -> Option<u64> {
    u64::try_from(timeout).ok().map(|ms| ms * 1_000_000)
}

/// Milliseconds for the kernel, rounded up so that a wait is never shorter than asked.
fn to_milliseconds(ns: Option<u64>) -> c_int {
    ns.map_or(-1, |ns| ns.div_ceil(1_000_000).min(c_int::MAX as u64) as c_int)
}

/// Nanoseconds as the kernel's calls take them.
pub(crate) fn to_timespec(ns: u64) -> timespec {
    timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
}

/// A caller's timespec in nanoseconds: `Ok(None)` waits for ever, `Err` is not legal.
///
/// # Safety
/// `timeout` is null or readable.
pub(super) unsafe fn nanoseconds(timeout: *const timespec) -> Result<Option<u64>, ()> {
    if timeout.is_null() {
        return Ok(None);
    }
    if !is_plausible(timeout) {
        return Err(());
    }
    // SAFETY: the caller's contract.
    let limit = unsafe { *timeout };
    if limit.tv_sec < 0 || !(0..1_000_000_000).contains(&limit.tv_nsec) {
        return Err(());
    }
    Ok(Some((limit.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(limit.tv_nsec as u64)))
}

/// Whether a signal mask can be one: the kernel reads it before anything else.
fn is_mask(mask: *const sigset_t) -> bool {
    mask.is_null() || is_plausible(mask)
}

/// The caller's array, if it is one.
///
/// # Safety
/// `fds` is the caller's promise for `count` entries.
unsafe fn entries<'a>(fds: *mut pollfd, count: nfds_t) -> Option<&'a mut [pollfd]> {
    // More than the limit on descriptors is EINVAL, and need not be readable.
    let too_many = count > 1024 && count > sys::descriptor_limits().0;
    if count == 0 || too_many || !is_plausible(fds) || !fds.is_aligned() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { core::slice::from_raw_parts_mut(fds, count as usize) })
}

/// # Safety
/// poll(2).
pub(crate) unsafe fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's contract.
    match unsafe { entries(fds, count) } {
        Some(list) if ready::concerns(list.iter().map(|entry| entry.fd)) => {
            let _guard = Guard::enter();
            result(ready::poll(list, milliseconds(timeout), config().spin_poll, None))
        }
        Some(list) if concerns_us(list.iter().map(|entry| entry.fd)) => {
            let _guard = Guard::enter();
            let mut call = Poll::new(list, milliseconds(timeout), config().spin_poll, false);
            result(call.wait(|list, left| {
                let (fds, count, left) = (list.as_mut_ptr(), list.len() as nfds_t, to_milliseconds(left));
                // SAFETY: the array is a live slice.
                outcome(unsafe { real::poll(fds, count, left) })
            }))
        }
        // SAFETY: the caller's contract.
        _ => unsafe { real::poll(fds, count, timeout) },
    }
}

/// # Safety
/// ppoll(2).
pub(crate) unsafe fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    let (list, limit) = unsafe { (entries(fds, count), nanoseconds(timeout)) };
    match (list, limit) {
        (Some(list), Ok(limit)) if is_mask(mask) && ready::concerns(list.iter().map(|entry| entry.fd)) => {
            let _guard = Guard::enter();
            // SAFETY: the caller's contract.
            let mask = (!mask.is_null()).then(|| unsafe { &*mask });
            result(ready::poll(list, limit, config().spin_poll, mask))
        }
        (Some(list), Ok(limit)) if is_mask(mask) && concerns_us(list.iter().map(|entry| entry.fd)) => {
            let _guard = Guard::enter();
            // With a mask the signals that it lets in belong to the kernel's call: do not spin before it.
            let mut call = Poll::new(list, limit, config().spin_poll && mask.is_null(), !mask.is_null());
            result(call.wait(|list, left| {
                let left = left.map(to_timespec);
                let pointer = left.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
                // SAFETY: the array and the mask are the caller's.
                outcome(unsafe { real::ppoll(list.as_mut_ptr(), list.len() as nfds_t, pointer, mask) })
            }))
        }
        // SAFETY: the caller's contract.
        _ => unsafe { real::ppoll(fds, count, timeout, mask) },
    }
}

/// # Safety
/// select(2).
pub(crate) unsafe fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let call = || {
        // SAFETY: the caller's contract.
        unsafe { real::select(count, read, write, except, timeout) }
    };
    if !timeout.is_null() && !is_plausible(timeout) {
        return call();
    }
    // SAFETY: the caller's contract.
    let limit = if timeout.is_null() { None } else { Some(unsafe { *timeout }) };
    let legal = limit.is_none_or(|limit| limit.tv_sec >= 0 && (0..1_000_000).contains(&limit.tv_usec));
    // SAFETY: the caller's contract: the sets hold `count` bits.
    let Some(fds) = (unsafe { sets_of(count, read, write, except) }).filter(|_| legal) else { return call() };
    let _guard = Guard::enter();
    let limit = limit.map(|limit| limit.tv_sec as u64 * 1_000_000_000 + limit.tv_usec as u64 * 1000);
    let mut select = Select::new(fds, [read, write, except]);
    let (outcome, left) = select.wait(limit, config().spin_select, None);
    if let (false, Some(left)) = (timeout.is_null(), left) {
        // Linux's select gives back the time that is left.
        // SAFETY: the caller's contract.
        unsafe {
            *timeout = timeval {
                tv_sec: (left / 1_000_000_000) as i64,
                tv_usec: (left % 1_000_000_000 / 1000) as i64,
            }
        };
    }
    result(outcome)
}

/// # Safety
/// pselect(2).
pub(crate) unsafe fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    let (fds, limit) = unsafe { (sets_of(count, read, write, except), nanoseconds(timeout)) };
    let (Some(fds), Ok(limit), true) = (fds, limit, is_mask(mask)) else {
        // SAFETY: the caller's contract.
        return unsafe { real::pselect(count, read, write, except, timeout, mask) };
    };
    let _guard = Guard::enter();
    let mut select = Select::new(fds, [read, write, except]);
    let spins = config().spin_select && mask.is_null();
    // SAFETY: the caller's contract.
    let mask = (!mask.is_null()).then(|| unsafe { &*mask });
    result(select.wait(limit, spins, mask).0)
}

/// # Safety
/// epoll_create(2).
pub(crate) unsafe fn epoll_create(size: c_int) -> c_int {
    // SAFETY: the caller's contract.
    created(unsafe { real::epoll_create(size) })
}

/// # Safety
/// epoll_create1(2).
pub(crate) unsafe fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: the caller's contract.
    created(unsafe { real::epoll_create1(flags) })
}

fn created(fd: c_int) -> c_int {
    if fd >= 0 && family::follows() && !in_vfork_child() {
        let _guard = Guard::enter();
        errno::kept(|| epoll::follow(fd));
    } else if fd >= 0 && fdtable::is_known(fd) {
        fdtable::forget_number(fd);
    }
    fd
}

/// # Safety
/// epoll_ctl(2).
pub(crate) unsafe fn epoll_ctl(fd: c_int, operation: c_int, target: c_int, event: *mut epoll_event) -> c_int {
    let legal = is_plausible(event) || operation == libc::EPOLL_CTL_DEL;
    if let Some(socket) = slot::find(target) {
        let _guard = Guard::enter();
        family::check_owner(&socket);
    }
    let Some(set) = epoll::find(fd).filter(|_| legal) else {
        // SAFETY: the caller's contract.
        return unsafe { real::epoll_ctl(fd, operation, target, event) };
    };
    let _guard = Guard::enter();
    // SAFETY: the caller's contract.
    let event = (is_plausible(event)).then(|| unsafe { event.read_unaligned() });
    match epoll::control(fd, set, operation, target, event) {
        Ok(()) => 0,
        Err(error) => errno::fail(error.0),
    }
}

/// The caller's room for events, if the kernel would take it.
///
/// # Safety
/// `events` is the caller's promise for `count` entries.
unsafe fn room<'a>(events: *mut epoll_event, count: c_int) -> Option<&'a mut [epoll_event]> {
    if count <= 0
        || count as usize > i32::MAX as usize / size_of::<epoll_event>()
        || !is_plausible(events)
        || !events.is_aligned()
    {
        return None;
    }
    // SAFETY: the caller's promise; the kernel checks what it writes.
    Some(unsafe { core::slice::from_raw_parts_mut(events, (count as usize).min(1 << 20)) })
}

/// # Safety
/// epoll_wait(2).
pub(crate) unsafe fn epoll_wait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int {
    // SAFETY: the caller's contract.
    match (epoll::find(fd), unsafe { room(events, count) }) {
        (Some(set), Some(events)) => {
            let _guard = Guard::enter();
            let call = Waiting {
                fd,
                events,
                timeout_ns: milliseconds(timeout),
                may_spin: config().spin_epoll,
                mask: None,
            };
            result(epoll::wait(set, call, |events, left| {
                // SAFETY: the events are a live slice.
                outcome(unsafe {
                    real::epoll_wait(fd, events.as_mut_ptr(), events.len() as c_int, to_milliseconds(left))
                })
            }))
        }
        // SAFETY: the caller's contract.
        _ => unsafe { real::epoll_wait(fd, events, count, timeout) },
    }
}

/// # Safety
/// epoll_pwait(2).
pub(crate) unsafe fn epoll_pwait(
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    match (epoll::find(fd), unsafe { room(events, count) }) {
        (Some(set), Some(events)) if is_mask(mask) => {
            let _guard = Guard::enter();
            let may_spin = config().spin_epoll && mask.is_null();
            // SAFETY: the caller's contract.
            let given = (!mask.is_null()).then(|| unsafe { &*mask });
            let call = Waiting { fd, events, timeout_ns: milliseconds(timeout), may_spin, mask: given };
            result(epoll::wait(set, call, |events, left| {
                // SAFETY: the events are a live slice; the mask is the caller's.
                outcome(unsafe {
                    real::epoll_pwait(
                        fd,
                        events.as_mut_ptr(),
                        events.len() as c_int,
                        to_milliseconds(left),
                        mask,
                    )
                })
            }))
        }
        // SAFETY: the caller's contract.
        _ => unsafe { real::epoll_pwait(fd, events, count, timeout, mask) },
    }
}

/// # Safety
/// epoll_pwait2(2).
pub(crate) unsafe fn epoll_pwait2(
    fd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    match (epoll::find(fd), unsafe { room(events, count) }, unsafe { nanoseconds(timeout) }) {
        (Some(set), Some(events), Ok(timeout_ns)) if is_mask(mask) => {
            let _guard = Guard::enter();
            let may_spin = config().spin_epoll && mask.is_null();
            // SAFETY: the caller's contract.
            let given = (!mask.is_null()).then(|| unsafe { &*mask });
            let call = Waiting { fd, events, timeout_ns, may_spin, mask: given };
            result(epoll::wait(set, call, |events, left| {
                let left = left.map(to_timespec);
                let pointer = left.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
                // SAFETY: the events are a live slice; the mask is the caller's.
                outcome(unsafe {
                    real::epoll_pwait2(fd, events.as_mut_ptr(), events.len() as c_int, pointer, mask)
                })
            }))
        }
        // SAFETY: the caller's contract.
        _ => unsafe { real::epoll_pwait2(fd, events, count, timeout, mask) },
    }
}
