//! The C interface by which packetdrill drives a stack that is a shared object (`--so_filename`).
//!
//! packetdrill calls `packetdrill_interface_init`, which fills a struct of function pointers; each gets `userdata` first, and then
//! what the system call of its name gets. `netdev_send` gives the stack an IP packet and `netdev_receive` takes one; `usleep` and
//! `gettimeofday` are the clock. Calls that wait are made in threads of packetdrill's.
//!
//! C's variadic functions can't be written in stable Rust; fcntl and ioctl take their one argument as a word, which on x86-64 and
//! aarch64 is passed alike.

use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

use libc::{epoll_event, iovec, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval};
use stack::time::Duration;
use stack::wire::ip::Ip;

use crate::calls::{Answer, Call, End, Message};
use crate::control::encode;
use crate::errno::Errno;
use crate::host::Setup;
use crate::world::World;

/// Names each function of the interface with its arguments; makes the struct, and the function that fills it.
macro_rules! interface {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)+) => {
        /// `struct packetdrill_interface`.
        #[repr(C)]
        #[derive(Debug)]
        pub struct Interface {
            userdata: *mut c_void,
            free: unsafe extern "C" fn(*mut c_void),
            $($name: unsafe extern "C" fn(*mut c_void $(, $ty)*) -> $ret,)+
        }

        fn filled(userdata: *mut c_void) -> Interface {
            Interface { userdata, free, $($name,)+ }
        }
    };
}

interface! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int;
    fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int;
    fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t;
    fn readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t;
    fn recv(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int) -> ssize_t;
    fn recvfrom(fd: c_int, buffer: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, room: *mut socklen_t) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn write(fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t;
    fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t;
    fn send(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    fn sendto(fd: c_int, buffer: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, room: socklen_t) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int;
    fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
    fn netdev_send(packet: *const c_void, len: size_t) -> c_int;
    fn netdev_receive(buffer: *mut c_void, len: *mut size_t, time_usecs: *mut i64) -> c_int;
    fn usleep(micros: c_uint) -> c_int;
    fn gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int;
    fn epoll_create(size: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, operation: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int;
    fn pipe(fds: *mut c_int) -> c_int;
    fn splice(from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, len: size_t, flags: c_uint) -> ssize_t;
}

/// Makes a host and fills the interface. Of the flags, `mtu=N` counts.
///
/// # Safety
/// `flags` is null or a text of C; `interface` is packetdrill's struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut Interface) {
    let mut setup = Setup::default();
    // SAFETY: the caller's contract: null, or a text with an end.
    let flags = (!flags.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(flags) });
    for flag in flags.map(|flags| flags.to_string_lossy()).unwrap_or_default().split(',') {
        if let Some(mtu) = flag.strip_prefix("mtu=").and_then(|mtu| mtu.parse().ok()) {
            setup.mtu = mtu;
        }
    }
    let userdata = Box::into_raw(Box::new(World::new(&setup))).cast();
    // SAFETY: the caller's contract: room for the struct, which may hold anything until now.
    unsafe { interface.write(filled(userdata)) };
}

/// The host behind `userdata`.
///
/// # Safety
/// `userdata` is what `packetdrill_interface_init` gave, and `free` was not called for it.
unsafe fn world<'w>(userdata: *mut c_void) -> &'w World {
    // SAFETY: the caller's contract; the box lives until `free`, and a World is shared by threads.
    unsafe { &*userdata.cast::<World>() }
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    // SAFETY: packetdrill gives the box back, once, when no thread uses it any more.
    drop(unsafe { Box::from_raw(userdata.cast::<World>()) });
}

fn fail(error: Errno) -> c_int {
    // SAFETY: errno of this thread is always there.
    unsafe { *libc::__errno_location() = error.0 };
    -1
}

/// What a call returns: a number, or -1 and errno.
fn returned(result: Result<i64, Errno>) -> ssize_t {
    match result {
        Ok(number) => number as ssize_t,
        Err(error) => fail(error) as ssize_t,
    }
}

fn done(result: Result<(), Errno>) -> c_int {
    returned(result.map(|()| 0)) as c_int
}

/// Makes a call that may wait.
///
/// # Safety
/// As of [`world`].
unsafe fn call(userdata: *mut c_void, call: Call) -> Result<Answer, Errno> {
    // SAFETY: the caller's contract.
    unsafe { world(userdata) }.call(call)
}

/// The bytes of a slice of C.
///
/// # Safety
/// `len` bytes are readable at `at`, or `len` is 0.
unsafe fn bytes<'b>(at: *const c_void, len: usize) -> &'b [u8] {
    if at.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(at.cast(), len) }
}

/// Writes at most `room` bytes there.
///
/// # Safety
/// `room` bytes are writable at `to`, or `room` is 0.
unsafe fn put(bytes: &[u8], to: *mut c_void, room: usize) {
    if !to.is_null() {
        // SAFETY: the caller's contract; the bytes are memory of ours, which C doesn't have.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len().min(room)) };
    }
}

/// An address of C.
///
/// # Safety
/// `len` bytes are readable at `address`.
unsafe fn end(address: *const sockaddr, len: socklen_t) -> Result<End, Errno> {
    // SAFETY: the caller's contract.
    let bytes = unsafe { bytes(address.cast(), len as usize) };
    let family = bytes.first_chunk().map(|family| i32::from(u16::from_ne_bytes(*family)));
    let port = bytes.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match (family, port) {
        (Some(libc::AF_INET), Some(port)) => {
            let ip = bytes.get(4..).and_then(|rest| rest.first_chunk()).ok_or(Errno(libc::EINVAL))?;
            Ok((Ip::v4(*ip), port))
        }
        (Some(libc::AF_INET6), Some(port)) => {
            let ip = bytes.get(8..).and_then(|rest| rest.first_chunk()).ok_or(Errno(libc::EINVAL))?;
            Ok((Ip(*ip), port))
        }
        (Some(_), _) => Err(Errno(libc::EAFNOSUPPORT)),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// Writes an address of C, with its length.
///
/// # Safety
/// Either pointer is null, or `*len` says how many bytes are writable at `address`.
unsafe fn put_end((ip, port): End, address: *mut sockaddr, len: *mut socklen_t) {
    if address.is_null() || len.is_null() {
        return;
    }
    let mut bytes = Vec::new();
    let family = if ip.is_v4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes.extend((family as u16).to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    match ip.as_v4() {
        Some(ip) => bytes.extend(ip.into_iter().chain([0; 8])),
        None => bytes.extend([0; 4].into_iter().chain(ip.0).chain([0; 4])),
    }
    // SAFETY: the caller's contract.
    let room = unsafe { *len } as usize;
    // SAFETY: as above.
    unsafe { put(&bytes, address.cast(), room) };
    // SAFETY: as above.
    unsafe { *len = bytes.len() as socklen_t };
}

/// The pieces of a message.
///
/// # Safety
/// `count` records are readable at `pieces`.
unsafe fn pieces<'b>(pieces: *const iovec, count: usize) -> &'b [iovec] {
    if pieces.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's contract.
    unsafe { std::slice::from_raw_parts(pieces, count) }
}

/// Receives into pieces.
///
/// # Safety
/// As of [`world`]; the pieces are writable.
unsafe fn receive_into(userdata: *mut c_void, fd: c_int, pieces: &[iovec], flags: c_int) -> ssize_t {
    // SAFETY: the caller's contract.
    let message = unsafe { message_into(userdata, fd, pieces, flags) };
    returned(message.map(|message| message.text.len() as i64))
}

/// The same, with what is told besides the text.
///
/// # Safety
/// As of [`receive_into`].
unsafe fn message_into(
    userdata: *mut c_void,
    fd: c_int,
    pieces: &[iovec],
    flags: c_int,
) -> Result<Message, Errno> {
    let len = pieces.iter().map(|piece| piece.iov_len).sum();
    // SAFETY: the caller's contract.
    let Answer::Received(message) = (unsafe { call(userdata, Call::Receive(fd, len, flags)) })? else {
        return Err(Errno(libc::EIO));
    };
    let mut left = message.text.as_slice();
    for piece in pieces {
        let (now, later) = left.split_at(piece.iov_len.min(left.len()));
        // SAFETY: the caller's contract.
        unsafe { put(now, piece.iov_base, piece.iov_len) };
        left = later;
    }
    Ok(message)
}

/// Sends pieces.
///
/// # Safety
/// As of [`world`]; the pieces are readable.
unsafe fn send_from(userdata: *mut c_void, fd: c_int, pieces: &[iovec], flags: c_int) -> ssize_t {
    let mut all = Vec::new();
    for piece in pieces {
        // SAFETY: the caller's contract.
        all.extend_from_slice(unsafe { bytes(piece.iov_base, piece.iov_len) });
    }
    // SAFETY: the caller's contract.
    returned(unsafe { call(userdata, Call::Send(fd, all, flags)) }.map(|answer| answer.number()))
}

// Each of the functions below is called by packetdrill with `userdata` as it was given, and with pointers that the system call of
// its name would take: that is the SAFETY of all of them, and named so where it is used.

unsafe extern "C" fn socket(userdata: *mut c_void, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: packetdrill's contract.
    let result = unsafe { world(userdata) }.with(|host| host.socket(domain, kind, protocol));
    returned(result.map(i64::from)) as c_int
}

unsafe extern "C" fn bind(
    userdata: *mut c_void,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: packetdrill's contract.
    let end = unsafe { end(address, len) };
    // SAFETY: packetdrill's contract.
    done(end.and_then(|end| unsafe { world(userdata) }.with(|host| host.bind(fd, end))))
}

unsafe extern "C" fn listen(userdata: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: packetdrill's contract.
    done(unsafe { world(userdata) }.with(|host| host.listen(fd, backlog)))
}

unsafe extern "C" fn accept(
    userdata: *mut c_void,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: packetdrill's contract.
    match unsafe { call(userdata, Call::Accept(fd, false)) } {
        Ok(Answer::Accepted(new, peer)) => {
            // SAFETY: packetdrill's contract.
            unsafe { put_end(peer, address, len) };
            new
        }
        Ok(_) => fail(Errno(libc::EIO)),
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn connect(
    userdata: *mut c_void,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    // SAFETY: packetdrill's contract.
    let end = unsafe { end(address, len) };
    // SAFETY: packetdrill's contract.
    done(end.and_then(|end| unsafe { call(userdata, Call::Connect(fd, end)) }.map(|_| ())))
}

unsafe extern "C" fn read(userdata: *mut c_void, fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    let piece = iovec { iov_base: buffer, iov_len: len };
    // SAFETY: packetdrill's contract.
    unsafe { receive_into(userdata, fd, &[piece], 0) }
}

unsafe extern "C" fn readv(userdata: *mut c_void, fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: packetdrill's contract.
    let pieces = unsafe { pieces(list, usize::try_from(count).unwrap_or(0)) };
    // SAFETY: packetdrill's contract.
    unsafe { receive_into(userdata, fd, pieces, 0) }
}

unsafe extern "C" fn recv(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    let piece = iovec { iov_base: buffer, iov_len: len };
    // SAFETY: packetdrill's contract.
    unsafe { receive_into(userdata, fd, &[piece], flags) }
}

unsafe extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    _address: *mut sockaddr,
    room: *mut socklen_t,
) -> ssize_t {
    if !room.is_null() {
        // recv(2): a connected socket leaves the address as it is, and says that it has none.
        // SAFETY: packetdrill's contract.
        unsafe { *room = 0 };
    }
    // SAFETY: packetdrill's contract.
    unsafe { recv(userdata, fd, buffer, len, flags) }
}

unsafe extern "C" fn recvmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: packetdrill's contract.
    let message = unsafe { &mut *message };
    // SAFETY: packetdrill's contract.
    let pieces = unsafe { pieces(message.msg_iov, message.msg_iovlen) };
    // SAFETY: packetdrill's contract.
    let told = match unsafe { message_into(userdata, fd, pieces, flags) } {
        Ok(told) => told,
        Err(error) => return fail(error) as ssize_t,
    };
    let control = encode(&told.control);
    let room = message.msg_controllen;
    // SAFETY: packetdrill's contract: `msg_controllen` bytes are writable there.
    unsafe { put(&control, message.msg_control, room) };
    let cut = if control.len() > room { libc::MSG_CTRUNC } else { 0 };
    (message.msg_namelen, message.msg_controllen) = (0, control.len().min(room));
    message.msg_flags = told.flags | cut;
    told.text.len() as ssize_t
}

unsafe extern "C" fn write(userdata: *mut c_void, fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: packetdrill's contract.
    unsafe { send(userdata, fd, buffer, len, 0) }
}

unsafe extern "C" fn writev(userdata: *mut c_void, fd: c_int, list: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: packetdrill's contract.
    let pieces = unsafe { pieces(list, usize::try_from(count).unwrap_or(0)) };
    // SAFETY: packetdrill's contract.
    unsafe { send_from(userdata, fd, pieces, 0) }
}

unsafe extern "C" fn send(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    let piece = iovec { iov_base: buffer.cast_mut(), iov_len: len };
    // SAFETY: packetdrill's contract; the bytes are only read.
    unsafe { send_from(userdata, fd, &[piece], flags) }
}

unsafe extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    _address: *const sockaddr,
    _room: socklen_t,
) -> ssize_t {
    // SAFETY: packetdrill's contract.
    unsafe { send(userdata, fd, buffer, len, flags) }
}

unsafe extern "C" fn sendmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: packetdrill's contract.
    let message = unsafe { &*message };
    // SAFETY: packetdrill's contract.
    let pieces = unsafe { pieces(message.msg_iov, message.msg_iovlen) };
    // SAFETY: packetdrill's contract.
    unsafe { send_from(userdata, fd, pieces, flags) }
}

unsafe extern "C" fn fcntl(userdata: *mut c_void, fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: packetdrill's contract.
    let result = unsafe { world(userdata) }.with(|host| host.fcntl(fd, command, argument as c_int));
    returned(result.map(i64::from)) as c_int
}

unsafe extern "C" fn ioctl(userdata: *mut c_void, fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: packetdrill's contract.
    match unsafe { world(userdata) }.with(|host| host.ioctl(fd, request)) {
        Ok(number) => {
            // SAFETY: packetdrill's contract: the requests that are served write an int.
            unsafe { put(&number.to_ne_bytes(), argument as *mut c_void, 4) };
            0
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn close(userdata: *mut c_void, fd: c_int) -> c_int {
    // SAFETY: packetdrill's contract.
    done(unsafe { world(userdata) }.with(|host| host.close(fd)))
}

unsafe extern "C" fn shutdown(userdata: *mut c_void, fd: c_int, how: c_int) -> c_int {
    // SAFETY: packetdrill's contract.
    done(unsafe { world(userdata) }.with(|host| host.shutdown(fd, how)))
}

unsafe extern "C" fn getsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: packetdrill's contract.
    let room = unsafe { *len } as usize;
    // SAFETY: packetdrill's contract.
    match unsafe { world(userdata) }.with(|host| host.option(fd, level, name, room)) {
        Ok(bytes) => {
            // SAFETY: packetdrill's contract.
            unsafe { put(&bytes, value, room) };
            // SAFETY: packetdrill's contract.
            unsafe { *len = bytes.len().min(room) as socklen_t };
            0
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn setsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: packetdrill's contract.
    let value = unsafe { bytes(value, len as usize) };
    // SAFETY: packetdrill's contract.
    done(unsafe { world(userdata) }.with(|host| host.set_option(fd, level, name, value)))
}

unsafe extern "C" fn poll(userdata: *mut c_void, list: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    let count = if list.is_null() { 0 } else { count as usize };
    if count == 0 {
        // SAFETY: packetdrill's contract.
        let answer = unsafe { call(userdata, Call::Poll(Vec::new(), timeout)) };
        return returned(answer.map(|answer| answer.number())) as c_int;
    }
    // SAFETY: packetdrill's contract.
    let list = unsafe { std::slice::from_raw_parts_mut(list, count) };
    let asked = list.iter().map(|row| (row.fd, row.events)).collect();
    // SAFETY: packetdrill's contract.
    let answer = unsafe { call(userdata, Call::Poll(asked, timeout)) };
    if let Ok(Answer::Polled(events)) = &answer {
        for (row, events) in list.iter_mut().zip(events) {
            row.revents = *events;
        }
    }
    returned(answer.map(|answer| answer.number())) as c_int
}

unsafe extern "C" fn netdev_send(userdata: *mut c_void, packet: *const c_void, len: size_t) -> c_int {
    // SAFETY: packetdrill's contract.
    let packet = unsafe { bytes(packet, len) };
    // SAFETY: packetdrill's contract.
    let is_taken = unsafe { world(userdata) }.with(|host| host.packet_in(packet));
    if is_taken { 0 } else { fail(Errno(libc::EMSGSIZE)) }
}

unsafe extern "C" fn netdev_receive(
    userdata: *mut c_void,
    buffer: *mut c_void,
    len: *mut size_t,
    time_usecs: *mut i64,
) -> c_int {
    // SAFETY: packetdrill's contract.
    let (at, packet) = unsafe { world(userdata) }.next_packet().unwrap_or_default();
    // SAFETY: packetdrill's contract.
    let room = unsafe { *len };
    // SAFETY: packetdrill's contract.
    unsafe { put(&packet, buffer, room) };
    // SAFETY: packetdrill's contract.
    unsafe { *len = packet.len().min(room) };
    // SAFETY: packetdrill's contract.
    unsafe { *time_usecs = (at.0 / 1_000) as i64 };
    0
}

unsafe extern "C" fn usleep(userdata: *mut c_void, micros: c_uint) -> c_int {
    // SAFETY: packetdrill's contract.
    unsafe { world(userdata) }.pass(Duration::from_micros(micros.into()));
    0
}

unsafe extern "C" fn gettimeofday(userdata: *mut c_void, time: *mut timeval, _zone: *mut c_void) -> c_int {
    // SAFETY: packetdrill's contract.
    let micros = unsafe { world(userdata) }.now().0 / 1_000;
    let (seconds, rest) = ((micros / 1_000_000) as c_long, (micros % 1_000_000) as c_long);
    // SAFETY: packetdrill's contract.
    unsafe { time.write(timeval { tv_sec: seconds, tv_usec: rest }) };
    0
}

unsafe extern "C" fn epoll_create(userdata: *mut c_void, _size: c_int) -> c_int {
    // SAFETY: packetdrill's contract.
    let result = unsafe { world(userdata) }.with(crate::host::Host::epoll_create);
    returned(result.map(i64::from)) as c_int
}

unsafe extern "C" fn epoll_ctl(
    userdata: *mut c_void,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: packetdrill's contract; EPOLL_CTL_DEL may have none. The struct is packed, and so read as a whole.
    let event = (!event.is_null()).then(|| unsafe { event.read_unaligned() });
    let (events, data) = event.map_or((0, 0), |event| (event.events, event.u64));
    // SAFETY: packetdrill's contract.
    done(unsafe { world(userdata) }.with(|host| host.epoll_ctl(epoll, operation, fd, events, data)))
}

unsafe extern "C" fn epoll_wait(
    userdata: *mut c_void,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    let most = usize::try_from(most).unwrap_or(0);
    // SAFETY: packetdrill's contract.
    let answer = unsafe { call(userdata, Call::EpollWait(epoll, most, timeout)) };
    if let Ok(Answer::Ready(ready)) = &answer {
        for (at, (bits, data)) in ready.iter().take(most).enumerate() {
            // SAFETY: packetdrill's contract: room for so many.
            let to = unsafe { events.add(at) };
            // SAFETY: as above.
            unsafe { to.write_unaligned(epoll_event { events: *bits, u64: *data }) };
        }
    }
    returned(answer.map(|answer| answer.number())) as c_int
}

unsafe extern "C" fn pipe(_userdata: *mut c_void, _fds: *mut c_int) -> c_int {
    fail(Errno(libc::EOPNOTSUPP))
}

unsafe extern "C" fn splice(
    _userdata: *mut c_void,
    _from: c_int,
    _from_at: *mut i64,
    _to: c_int,
    _to_at: *mut i64,
    _len: size_t,
    _flags: c_uint,
) -> ssize_t {
    fail(Errno(libc::EOPNOTSUPP)) as ssize_t
}
