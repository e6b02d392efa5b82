//! read, recv and their kin on a followed socket.

use crate::buffers::{MOST, can_be_buffer, is_plausible};
use crate::guard::Guard;
use crate::net;
use crate::real::{self, types::*};
use crate::rx::{self, Control, Quick};
use crate::slot::{self, Outcome};

/// Receives into a vector, by the rings' code or, for a socket without rings, by `call`.
///
/// # Safety
/// The caller's contract for the buffers and for `call`.
#[inline(never)]
unsafe fn by_path(
    fd: c_int,
    vector: &[iovec],
    flags: c_int,
    mut spun: bool,
    control: Option<&Control>,
    call: impl Fn() -> isize,
) -> isize {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        match unsafe { net::receive::receive(&carried, vector, flags) } {
            Outcome::Kernel => {}
            outcome => return super::result(outcome),
        }
    }
    if let Some(socket) = net::datagram::find(fd) {
        // SAFETY: the caller's contract.
        return unsafe { datagram(&socket, &mut message_of(vector), flags) };
    }
    super::by_path(
        fd,
        true,
        // SAFETY: the caller's contract.
        |socket| unsafe { rx::receive(socket, vector, flags, core::mem::take(&mut spun), control) },
        // SAFETY: the caller's contract.
        |socket| unsafe { what_is_left(socket, vector, flags) },
        call,
    )
}

/// A message with nothing but these buffers.
pub(super) const fn message_of(vector: &[iovec]) -> msghdr {
    msghdr {
        msg_name: core::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: vector.as_ptr().cast_mut(),
        msg_iovlen: vector.len(),
        msg_control: core::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// Receives on a socket of UDP.
///
/// # Safety
/// The message and its buffers are the caller's promise.
unsafe fn datagram(socket: &slot::Socket, message: &mut msghdr, flags: c_int) -> isize {
    let guard = Guard::enter();
    // SAFETY: the caller's contract.
    match unsafe { net::datagram::receive::receive(socket, message, flags) } {
        Outcome::Kernel => {
            drop(guard);
            // SAFETY: the caller's contract.
            unsafe { real::recvmsg(socket.fd, message, flags) }
        }
        outcome => super::result(outcome),
    }
}

/// Under a seccomp filter only the program's own calls are made: ring bytes first, as one short receive, and
/// `None` when there are none.
///
/// # Safety
/// The caller's contract for the buffers.
#[cold]
unsafe fn what_is_left(socket: &slot::Socket, vector: &[iovec], flags: c_int) -> Option<isize> {
    let waiting = rx::waiting_in_ring(socket);
    let first = vector.iter().find(|buffer| buffer.iov_len > 0)?;
    let clipped = [iovec { iov_base: first.iov_base, iov_len: first.iov_len.min(waiting) }];
    if waiting == 0 {
        return None;
    }
    // SAFETY: the caller's contract; the buffer only got shorter.
    match unsafe { rx::receive(socket, &clipped, flags, true, None) } {
        Outcome::Kernel => None,
        outcome => Some(super::result(outcome)),
    }
}

/// recv cuts a length before it checks whether a buffer can be so long (import_ubuf in lib/iov_iter.c);
pub(super) const CUTS: bool = true;
/// read checks first (vfs_read in fs/read_write.c).
pub(super) const CHECKS: bool = false;

/// One plain buffer: the short way first.
///
/// # Safety
/// As [`by_path`].
#[inline]
unsafe fn plain<const CUTS: bool>(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    call: impl Fn() -> isize,
) -> isize {
    let mut spun = false;
    if flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) == 0
        && let Some(socket) = slot::find(fd)
    {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        match unsafe { rx::quickly(&socket, buffer.cast(), length, flags) } {
            Quick::Done(count) => return count as isize,
            Quick::Spun => spun = true,
            Quick::No => {}
        }
    }
    if !CUTS && length > MOST && !can_be_buffer(buffer, length) {
        return crate::errno::fail(libc::EFAULT);
    }
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, &one(buffer, length.min(MOST)), flags, spun, None, call) }
}

fn one(buffer: *mut c_void, length: size_t) -> [iovec; 1] {
    [iovec { iov_base: buffer, iov_len: length }]
}

/// A caller's vector; empty when the kernel must judge it.
///
/// # Safety
/// `vector` is the caller's promise for `count` entries.
pub(super) unsafe fn vector<'a>(vector: *const iovec, count: usize) -> Option<&'a [iovec]> {
    if count == 0 {
        return Some(&[]);
    }
    if count > 1024 || !is_plausible(vector) || !vector.is_aligned() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { core::slice::from_raw_parts(vector, count) })
}

/// # Safety
/// read(2).
pub(crate) unsafe fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    if length == 0 {
        // sock_read_iter in net/socket.c: 0 at once, whatever waits.
        // SAFETY: the caller's contract.
        return unsafe { real::read(fd, buffer, 0) };
    }
    // SAFETY: the caller's contract.
    unsafe { plain::<CHECKS>(fd, buffer, length, 0, || real::read(fd, buffer, length)) }
}

/// # Safety
/// readv(2).
pub(crate) unsafe fn readv(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { vector(list, count as usize) }) else {
        // SAFETY: the caller's contract.
        return unsafe { real::readv(fd, list, count) };
    };
    if buffers.iter().all(|buffer| buffer.iov_len == 0) {
        // As read of nothing.
        // SAFETY: the caller's contract.
        return unsafe { real::readv(fd, list, count) };
    }
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, buffers, 0, false, None, || real::readv(fd, list, count)) }
}

/// # Safety
/// preadv2(2).
pub(crate) unsafe fn preadv2(
    fd: c_int,
    list: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's contract.
    let buffers = unsafe { vector(list, count as usize) };
    // A socket has no position: any offset but -1 is ESPIPE.
    let (Some(buffers), -1, 0) = (buffers, offset, flags & !libc::RWF_NOWAIT) else {
        // SAFETY: the caller's contract.
        return unsafe { real::preadv2(fd, list, count, offset, flags) };
    };
    let wait = if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, buffers, wait, false, None, || real::preadv2(fd, list, count, offset, flags)) }
}

/// # Safety
/// recv(2).
pub(crate) unsafe fn recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { plain::<CUTS>(fd, buffer, length, flags, || real::recv(fd, buffer, length, flags)) }
}

/// # Safety
/// recvfrom(2).
pub(crate) unsafe fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    if let Some(socket) = net::datagram::find(fd).filter(|_| !address.is_null()) {
        // SAFETY: the caller's contract.
        return unsafe {
            datagram_from(&socket, &one(buffer, length.min(MOST)), flags, address, address_length)
        };
    }
    let by_kernel = core::cell::Cell::new(false);
    // SAFETY: the caller's contract.
    let result = unsafe {
        plain::<CUTS>(fd, buffer, length, flags, || {
            by_kernel.set(true);
            real::recvfrom(fd, buffer, length, flags, address, address_length)
        })
    };
    if result < 0 || address.is_null() || by_kernel.get() {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe { no_address(address_length) }.map_or_else(crate::errno::fail, |()| result)
}

/// recvfrom(2) of a datagram, with whoever sent it.
///
/// # Safety
/// As the system call.
unsafe fn datagram_from(
    socket: &slot::Socket,
    vector: &[iovec],
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> isize {
    if !is_plausible(address_length) {
        return crate::errno::fail(libc::EFAULT);
    }
    // SAFETY: the caller's contract.
    let msg_namelen = unsafe { address_length.read_unaligned() };
    let mut message = msghdr { msg_name: address.cast(), msg_namelen, ..message_of(vector) };
    // SAFETY: the caller's contract.
    let result = unsafe { datagram(socket, &mut message, flags) };
    if result >= 0 {
        // SAFETY: the caller's contract.
        unsafe { address_length.write_unaligned(message.msg_namelen) };
    }
    result
}

/// TCP gives no address (inet_recvmsg in net/ipv4/af_inet.c); what was received is gone even if its length cannot be
/// told (move_addr_to_user in net/socket.c).
///
/// # Safety
/// The pointer is the caller's promise, unless it cannot be one.
unsafe fn no_address(length: *mut socklen_t) -> Result<(), c_int> {
    if !is_plausible(length) {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller's contract.
    unsafe {
        if length.read_unaligned() as c_int <= -1 {
            return Err(libc::EINVAL);
        }
        length.write_unaligned(0);
    }
    Ok(())
}

/// # Safety
/// recvmsg(2).
pub(crate) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if !is_plausible(message) {
        // SAFETY: the kernel answers EFAULT.
        return unsafe { real::recvmsg(fd, message, flags) };
    }
    // SAFETY: the caller's contract.
    let (list, count, name_length) =
        unsafe { ((*message).msg_iov, (*message).msg_iovlen, (*message).msg_namelen) };
    if name_length > i32::MAX as u32 {
        // SAFETY: the kernel answers EINVAL.
        return unsafe { real::recvmsg(fd, message, flags) };
    }
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { vector(list, count) }) else {
        // SAFETY: the caller's contract.
        return unsafe { real::recvmsg(fd, message, flags) };
    };
    if let Some(socket) = net::datagram::find(fd) {
        // SAFETY: the caller's contract. What the program has asked for stays as it is until there is something.
        unsafe {
            let mut filled = message.read();
            let result = datagram(&socket, &mut filled, flags);
            if result >= 0 {
                message.write(filled);
            }
            return result;
        }
    }
    let by_kernel = core::cell::Cell::new(false);
    // SAFETY: the caller's contract.
    let control = slot::find(fd).and_then(|socket| Control::of(&socket, unsafe { &*message }));
    // SAFETY: the caller's contract.
    let result = unsafe {
        by_path(fd, buffers, flags, false, control.as_ref(), || {
            by_kernel.set(true);
            real::recvmsg(fd, message, flags)
        })
    };
    if result >= 0 && !by_kernel.get() {
        // SAFETY: the caller's contract.
        let answer = control.zip(slot::find(fd)).map(|(control, socket)| unsafe { control.answer(&socket) });
        let (given, more) = answer.unwrap_or((0, 0));
        // SAFETY: the caller's contract: the header is writable. TCP fills in no address.
        unsafe {
            if !(*message).msg_name.is_null() {
                (*message).msg_namelen = 0;
            }
            (*message).msg_controllen = given;
            (*message).msg_flags = flags & libc::MSG_CMSG_CLOEXEC | more;
        }
    }
    result
}

/// # Safety
/// recvmmsg(2).
pub(crate) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let socket =
        slot::find(fd).filter(|socket| socket.is_live() || net::find(fd).is_some() || socket.is_datagram());
    let legal = is_plausible(messages) && (timeout.is_null() || is_plausible(timeout));
    let Some(socket) = socket.filter(|_| legal) else {
        // SAFETY: the caller's contract.
        return unsafe { real::recvmmsg(fd, messages, count, flags, timeout) };
    };
    let deadline = if timeout.is_null() {
        None
    } else {
        // SAFETY: the caller's contract.
        let limit = unsafe { *timeout };
        if !(0..1_000_000_000).contains(&limit.tv_nsec) || limit.tv_sec < 0 {
            return crate::errno::fail(libc::EINVAL);
        }
        Some(
            driver::clock::monotonic_ns()
                .saturating_add(limit.tv_sec as u64 * 1_000_000_000 + limit.tv_nsec as u64),
        )
    };
    // As the kernel does, whatever there is to read.
    if let Some(error) = stashed(&socket) {
        return crate::errno::fail(error);
    }
    let mut done = 0;
    let mut each = flags & !libc::MSG_WAITFORONE;
    while done < count.min(1024) {
        // SAFETY: the caller's contract: `count` entries.
        let entry = unsafe { &mut *messages.add(done as usize) };
        // SAFETY: as above.
        let result = unsafe { recvmsg(fd, &raw mut entry.msg_hdr, each) };
        if result < 0 {
            note_error(&socket, done);
            break;
        }
        entry.msg_len = result as c_uint;
        done += 1;
        if flags & libc::MSG_WAITFORONE != 0 {
            each |= libc::MSG_DONTWAIT;
        }
        if deadline.is_some_and(|deadline| driver::clock::monotonic_ns() >= deadline) {
            break;
        }
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_sub(driver::clock::monotonic_ns());
        // SAFETY: the caller's contract: Linux writes back what is left.
        unsafe {
            *timeout =
                timespec { tv_sec: (left / 1_000_000_000) as i64, tv_nsec: (left % 1_000_000_000) as i64 };
        }
    }
    if done == 0 && count > 0 { -1 } else { done as c_int }
}

fn stashed(socket: &slot::Socket) -> Option<c_int> {
    let _guard = Guard::enter();
    rx::take_stashed(socket)
}

/// An error after the first messages is for the next call, or for SO_ERROR. That of an interruption is not: Linux
/// keeps a number there that means nothing to programs.
fn note_error(socket: &slot::Socket, done: c_uint) {
    let error = crate::errno::get();
    if done > 0 && error != libc::EAGAIN && error != libc::EINTR {
        let _guard = Guard::enter();
        rx::stash(socket, error);
    }
}
