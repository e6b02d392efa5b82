//! write, send and their kin on a followed socket; descriptors that leave the process by SCM_RIGHTS.

use driver::sys;
use engine::engine::Kick;
use rows::reasons::Reason;

use super::receive::{CHECKS, CUTS, message_of, vector};
use crate::buffers::{MOST, can_be_buffer, is_plausible};
use crate::guard::Guard;
use crate::real::{self, types::*};
use crate::slot::{self, Outcome};
use crate::{close, family, fdtable, meet, net, rx, tx};

/// Files up to this size go into the ring at once; larger ones are the kernel's.
const FILE_MAX: usize = 64 << 10;

/// Sends a vector, by the rings' code or, for a socket without rings, by `call`.
///
/// # Safety
/// The caller's contract for the buffers and for `call`.
#[inline(never)]
unsafe fn by_path(fd: c_int, vector: &[iovec], flags: c_int, call: impl Fn() -> isize) -> isize {
    if let Some(carried) = net::find(fd) {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        match unsafe { net::send::send(&carried, vector, flags) } {
            Outcome::Kernel => {}
            outcome => return super::result(outcome),
        }
    }
    if let Some(socket) = net::datagram::find(fd) {
        // SAFETY: the caller's contract.
        return unsafe { datagram(&socket, &message_of(vector), flags, Kick::Now, call) };
    }
    // Under a filter its directions are revoked: nobody counts any more.
    // SAFETY: the caller's contract.
    super::by_path(fd, false, |socket| unsafe { tx::send(socket, vector, flags) }, |_| None, call)
}

/// Sends on a socket of UDP, by the stack or by `call`.
///
/// # Safety
/// The message and its buffers are the caller's promise.
unsafe fn datagram(
    socket: &slot::Socket,
    message: &msghdr,
    flags: c_int,
    kick: Kick,
    call: impl Fn() -> isize,
) -> isize {
    let guard = Guard::enter();
    // SAFETY: the caller's contract.
    match crate::errno::kept(|| unsafe { net::datagram::send::send(socket, message, flags, kick) }) {
        Outcome::Kernel => {
            drop(guard);
            call()
        }
        outcome => super::result(outcome),
    }
}

/// One plain buffer: the short way first.
///
/// # Safety
/// As [`by_path`].
#[inline]
unsafe fn plain<const CUTS: bool>(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    call: impl Fn() -> isize,
) -> isize {
    if flags & !(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) == 0
        && let Some(socket) = slot::find(fd)
    {
        let _guard = Guard::enter();
        // SAFETY: the caller's contract.
        if let Some(count) = unsafe { tx::quickly(&socket, buffer.cast(), length) } {
            return count as isize;
        }
    }
    if !CUTS && length > MOST && !can_be_buffer(buffer.cast_mut(), length) {
        return crate::errno::fail(libc::EFAULT);
    }
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, &one(buffer, length.min(MOST)), flags, call) }
}

fn one(buffer: *const c_void, length: size_t) -> [iovec; 1] {
    [iovec { iov_base: buffer.cast_mut(), iov_len: length }]
}

/// # Safety
/// write(2).
pub(crate) unsafe fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { plain::<CHECKS>(fd, buffer, length, 0, || real::write(fd, buffer, length)) }
}

/// # Safety
/// writev(2).
pub(crate) unsafe fn writev(fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { vector(list, count as usize) }) else {
        // SAFETY: the caller's contract.
        return unsafe { real::writev(fd, list, count) };
    };
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, buffers, 0, || real::writev(fd, list, count)) }
}

/// # Safety
/// pwritev2(2).
pub(crate) unsafe fn pwritev2(
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
        return unsafe { real::pwritev2(fd, list, count, offset, flags) };
    };
    let wait = if flags & libc::RWF_NOWAIT != 0 { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, buffers, wait, || real::pwritev2(fd, list, count, offset, flags)) }
}

/// # Safety
/// send(2).
pub(crate) unsafe fn send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { plain::<CUTS>(fd, buffer, length, flags, || real::send(fd, buffer, length, flags)) }
}

/// # Safety
/// sendto(2).
pub(crate) unsafe fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    let call = || {
        // SAFETY: the caller's contract.
        unsafe { real::sendto(fd, buffer, length, flags, address, address_length) }
    };
    if let Some(socket) = net::datagram::find(fd).filter(|_| !address.is_null()) {
        let (name, list) = (address.cast_mut().cast(), one(buffer, length.min(MOST)));
        let message = msghdr { msg_name: name, msg_namelen: address_length, ..message_of(&list) };
        // SAFETY: the caller's contract.
        return unsafe { datagram(&socket, &message, flags, Kick::Now, call) };
    }
    // move_addr_to_kernel in net/socket.c; a connected TCP socket then ignores the address.
    let legal = address.is_null()
        || is_plausible(address) && address_length as usize <= size_of::<libc::sockaddr_storage>();
    if !legal {
        let socket = slot::find(fd).filter(slot::Socket::is_live);
        let _guard = Guard::enter();
        if let Some(result) =
            socket.and_then(|socket| tx::through_kernel(&socket, length as u64, flags, call))
        {
            return result;
        }
    }
    // SAFETY: the caller's contract.
    unsafe { plain::<CUTS>(fd, buffer, length, flags, call) }
}

/// # Safety
/// sendmsg(2).
pub(crate) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    unsafe { send_message(fd, message, flags, Kick::Now) }
}

/// sendmsg(2), where the device may be told of a datagram later.
///
/// # Safety
/// As the system call.
unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int, kick: Kick) -> ssize_t {
    let call = || {
        // SAFETY: the caller's contract.
        unsafe { real::sendmsg(fd, message, flags) }
    };
    if !is_plausible(message) {
        return call();
    }
    if !fdtable::is_active(fd) {
        // SAFETY: the caller's contract.
        unsafe { give_away_passed(message) };
        return call();
    }
    // SAFETY: the caller's contract.
    let (list, count) = unsafe { ((*message).msg_iov, (*message).msg_iovlen) };
    // SAFETY: the caller's contract.
    let Some(buffers) = (unsafe { vector(list, count) }) else { return call() };
    if let Some(socket) = net::datagram::find(fd) {
        // SAFETY: the caller's contract.
        return unsafe { datagram(&socket, &message.read(), flags, kick, call) };
    }
    // SAFETY: the caller's contract.
    if unsafe { (*message).msg_controllen } != 0 && net::find(fd).is_none() {
        // Control messages (SO_TIMESTAMPING, zero copy) are the kernel's.
        let socket = slot::find(fd).filter(slot::Socket::is_live);
        let bytes = buffers.iter().map(|buffer| buffer.iov_len as u64).sum();
        let result = socket.and_then(|socket| tx::through_kernel(&socket, bytes, flags, call));
        return result.unwrap_or_else(call);
    }
    // SAFETY: the caller's contract.
    unsafe { by_path(fd, buffers, flags, call) }
}

/// # Safety
/// sendmmsg(2).
pub(crate) unsafe fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let mut done = 0;
    if !fdtable::is_active(fd) || !is_plausible(messages) {
        for index in 0..count.min(1024) as usize {
            if is_plausible(messages) {
                // SAFETY: the caller's contract: `count` entries.
                unsafe { give_away_passed(&raw const (*messages.add(index)).msg_hdr) };
            }
        }
        // SAFETY: the caller's contract.
        return unsafe { real::sendmmsg(fd, messages, count, flags) };
    }
    while done < count.min(1024) {
        // SAFETY: the caller's contract: `count` entries.
        let entry = unsafe { &mut *messages.add(done as usize) };
        // SAFETY: as above.
        let result = unsafe { send_message(fd, &raw const entry.msg_hdr, flags, Kick::Soon) };
        if result < 0 {
            break;
        }
        entry.msg_len = result as c_uint;
        done += 1;
    }
    if let Some(carried) = net::datagram::find(fd).and_then(|socket| socket.datagrams()) {
        let _guard = Guard::enter();
        // The device is told of all of them.
        crate::errno::kept(|| carried.with_kick(Kick::Now, |_| ()));
    }
    if done == 0 && count > 0 { -1 } else { done as c_int }
}

/// Sockets that a control message carries to another process are given to the kernel first.
///
/// # Safety
/// The message and its control buffer must be readable.
unsafe fn give_away_passed(message: *const msghdr) {
    // SAFETY: the caller's contract; the CMSG functions stay inside msg_controllen.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let numbers = libc::CMSG_DATA(header).cast::<c_int>();
                for index in 0..bytes / size_of::<c_int>() {
                    family::give_away(numbers.add(index).read_unaligned(), Reason::GivenAway);
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

/// # Safety
/// sendfile(2).
pub(crate) unsafe fn sendfile(fd: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    let call = || {
        // SAFETY: the caller's contract.
        unsafe { real::sendfile(fd, source, offset, count) }
    };
    let Some(socket) = slot::find(fd) else { return call() };
    let guard = Guard::enter();
    if let Some(carried) = net::find(fd) {
        if !offset.is_null() && !is_plausible(offset) {
            return crate::errno::fail(libc::EFAULT);
        }
        // SAFETY: the caller's contract.
        let mut at = (!offset.is_null()).then(|| unsafe { offset.read_unaligned() });
        let sent = net::send::send_file(&carried, source, &mut at, count.min(MOST));
        if let Some(at) = at {
            // SAFETY: the caller's contract.
            unsafe { offset.write_unaligned(at) };
        }
        return super::result(sent);
    }
    if socket.is_live() {
        // SAFETY: the caller's contract for `offset`.
        if let Some(result) = unsafe { small_file(&socket, source, offset, count) } {
            return result;
        }
        if let Some(result) = tx::through_kernel(&socket, count.min(MOST) as u64, 0, call) {
            return result;
        }
    }
    drop(guard);
    let _guard = Guard::enter();
    let result = meet::around(&socket, false, call);
    if result == meet::RETRY {
        // SAFETY: the caller's contract.
        return unsafe { sendfile(fd, source, offset, count) };
    }
    result
}

/// A small piece of a plain file goes straight into the ring.
///
/// # Safety
/// `offset` is null or valid.
unsafe fn small_file(
    socket: &slot::Socket,
    source: c_int,
    offset: *mut off_t,
    count: usize,
) -> Option<ssize_t> {
    let stat = sys::fstat(source).ok()?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || count == 0 {
        return None;
    }
    let at = if offset.is_null() {
        sys::lseek(source, 0, libc::SEEK_CUR).ok()?
    } else if !is_plausible(offset) {
        return None;
    } else {
        // SAFETY: the caller's contract.
        unsafe { *offset }
    };
    let left = usize::try_from(stat.st_size.checked_sub(at)?).ok()?;
    let count = count.min(left);
    if at < 0 || count == 0 || count > FILE_MAX {
        return None;
    }
    let sent = tx::file_into_ring(socket, source, at, count)?.ok()?;
    let end = at + sent as off_t;
    if offset.is_null() {
        let _ = sys::lseek(source, end, libc::SEEK_SET);
    } else {
        // SAFETY: the caller's contract.
        unsafe { *offset = end };
    }
    Some(sent as ssize_t)
}

/// # Safety
/// splice(2).
pub(crate) unsafe fn splice(
    source: c_int,
    source_offset: *mut off_t,
    target: c_int,
    target_offset: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    let some = |length, flags| {
        // SAFETY: the caller's contract.
        unsafe { real::splice(source, source_offset, target, target_offset, length, flags) }
    };
    if net::find(source).is_some() || net::find(target).is_some() {
        // As of a file that can't: the program goes on by read and write.
        return crate::errno::fail(libc::EINVAL);
    }
    let call = || some(length, flags);
    if let Some(socket) = slot::find(target).filter(slot::Socket::is_live) {
        let _guard = Guard::enter();
        return tx::through_kernel(&socket, length as u64, 0, call).unwrap_or_else(call);
    }
    let Some(socket) = slot::find(source).filter(slot::Socket::is_live) else { return call() };
    let _guard = Guard::enter();
    // What the kernel refuses it refuses before it moves anything: do_splice in fs/splice.c.
    let known = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MORE | libc::SPLICE_F_GIFT;
    let legal = source_offset.is_null() && target_offset.is_null() && flags & !known == 0;
    if !legal || !rx::is_pipe(target) {
        return call();
    }
    super::result(rx::to_pipe(&socket, target, length, flags, some))
}

/// Used by `setsockopt` and friends: the socket leaves the rings for good but stays here.
pub(super) fn kernel_for_good(fd: c_int, reason: Reason) {
    if let Some(socket) = slot::find(fd) {
        let _guard = Guard::enter();
        family::check_owner(&socket);
        close::to_kernel_for_good(&socket, reason);
    }
}
