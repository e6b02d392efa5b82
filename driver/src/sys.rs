//! Direct system calls.
//!
//! Inside `libaccel.so` the symbols of libc are our own exports, so libc's `close` would enter accel again;
//! and these calls are made with locks held, so they must not be cancellation points. Results are the
//! kernel's: a negative errno becomes [`Errno`]; the thread's `errno` is never touched.

use core::arch::asm;
use core::sync::atomic::AtomicU64;
use libc::{c_int, c_void, iovec, msghdr, sockaddr, socklen_t};

/// An errno value, e.g. `EAGAIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What a system call gave.
pub type Result<T> = core::result::Result<T, Errno>;

/// One system call with six arguments.
///
/// # Safety
/// The arguments must be legal for the call `number`: pointers valid for what the kernel reads and writes.
#[inline]
pub unsafe fn syscall(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the system call ABI of x86-64 Linux: rcx and r11 are clobbered, memory may change.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the system call ABI of aarch64 Linux: only x0 changes.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
             in("x4") e, in("x5") f, options(nostack));
    }
    result
}

fn check(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {{
        let given = [$($argument as usize),*];
        let mut arguments = [0usize; 6];
        arguments[..given.len()].copy_from_slice(&given);
        // SAFETY: each wrapper below passes what its own types and contract vouch for.
        check(unsafe { syscall($number, arguments) })
    }};
}

/// A descriptor that accel owns; closed on drop.
#[derive(Debug, PartialEq, Eq)]
pub struct Fd(c_int);

impl Fd {
    /// Takes ownership of a descriptor.
    #[must_use]
    pub const fn own(raw: c_int) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn raw(&self) -> c_int {
        self.0
    }

    /// Another descriptor of the same thing, with a number that is not lower.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn duplicate(&self) -> Result<Self> {
        call!(libc::SYS_fcntl, self.0, libc::F_DUPFD_CLOEXEC, self.0).map(|fd| Self(fd as c_int))
    }

    /// Gives the number away without closing it.
    #[must_use]
    pub fn into_raw(self) -> c_int {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a descriptor; errors mean that it is closed already.
pub fn close(fd: c_int) {
    let _ = call!(libc::SYS_close, fd);
}

/// `recv(2)`.
///
/// # Safety
/// `buffer` must be writable for `length` bytes (or the kernel says EFAULT).
pub unsafe fn recv(fd: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> Result<usize> {
    call!(libc::SYS_recvfrom, fd, buffer, length, flags, 0usize, 0usize)
}

/// `send(2)`.
///
/// # Safety
/// `buffer` must be readable for `length` bytes (or the kernel says EFAULT).
pub unsafe fn send(fd: c_int, buffer: *const c_void, length: usize, flags: c_int) -> Result<usize> {
    call!(libc::SYS_sendto, fd, buffer, length, flags, 0usize, 0usize)
}

/// `recvmsg(2)`.
///
/// # Safety
/// As the man page asks of `message`.
pub unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> Result<usize> {
    call!(libc::SYS_recvmsg, fd, message, flags)
}

/// `sendmsg(2)`.
///
/// # Safety
/// As the man page asks of `message`.
pub unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> Result<usize> {
    call!(libc::SYS_sendmsg, fd, message, flags)
}

/// `pread(2)`.
///
/// # Safety
/// `buffer` must be writable for `length` bytes.
pub unsafe fn pread(fd: c_int, buffer: *mut c_void, length: usize, offset: i64) -> Result<usize> {
    call!(libc::SYS_pread64, fd, buffer, length, offset)
}

/// `read(2)`.
///
/// # Safety
/// `buffer` must be writable for `length` bytes.
pub unsafe fn read(fd: c_int, buffer: *mut c_void, length: usize) -> Result<usize> {
    call!(libc::SYS_read, fd, buffer, length)
}

/// `write(2)`.
///
/// # Safety
/// `buffer` must be readable for `length` bytes.
pub unsafe fn write(fd: c_int, buffer: *const c_void, length: usize) -> Result<usize> {
    call!(libc::SYS_write, fd, buffer, length)
}

/// `writev(2)`.
///
/// # Safety
/// The vector and its buffers must be readable.
pub unsafe fn writev(fd: c_int, vector: *const iovec, count: usize) -> Result<usize> {
    call!(libc::SYS_writev, fd, vector, count)
}

/// A write to a pipe that never waits: `pwritev2(2)` with `RWF_NOWAIT`, at the current position.
///
/// # Errors
/// EAGAIN if there is no room; EOPNOTSUPP from kernels before 6.4.
///
/// # Safety
/// `buffer` must be readable for `length` bytes.
pub unsafe fn write_nowait(fd: c_int, buffer: *const c_void, length: usize) -> Result<usize> {
    let vector = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    call!(libc::SYS_pwritev2, fd, &raw const vector, 1, -1isize, 0, libc::RWF_NOWAIT)
}

/// `socket(2)`, close-on-exec.
pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> Result<Fd> {
    call!(libc::SYS_socket, domain, kind | libc::SOCK_CLOEXEC, protocol).map(|fd| Fd(fd as c_int))
}

/// `bind(2)` with the address's bytes.
pub fn bind(fd: &Fd, address: &[u8]) -> Result<()> {
    call!(libc::SYS_bind, fd.0, address.as_ptr(), address.len()).map(drop)
}

/// `listen(2)`.
pub fn listen(fd: &Fd, backlog: c_int) -> Result<()> {
    call!(libc::SYS_listen, fd.0, backlog).map(drop)
}

/// `bind(2)` with a plain address.
pub fn bind_to<T: Copy>(fd: &Fd, address: &T) -> Result<()> {
    call!(libc::SYS_bind, fd.0, core::ptr::from_ref(address), size_of::<T>()).map(drop)
}

/// `send(2)` of nothing without waiting: the kick of AF_XDP.
pub fn kick(fd: &Fd) -> Result<()> {
    call!(libc::SYS_sendto, fd.0, 0usize, 0usize, libc::MSG_DONTWAIT, 0usize, 0usize).map(drop)
}

/// `bpf(2)`; what it returns is a descriptor for those commands that make one.
///
/// # Safety
/// The pointers within `attributes` must be valid for what the command reads and writes.
pub unsafe fn bpf(command: u32, attributes: &mut [u8]) -> Result<usize> {
    call!(libc::SYS_bpf, command, attributes.as_mut_ptr(), attributes.len())
}

/// `connect(2)` with the address's bytes.
pub fn connect(fd: &Fd, address: &[u8]) -> Result<()> {
    call!(libc::SYS_connect, fd.0, address.as_ptr(), address.len()).map(drop)
}

/// `bind(2)` on a descriptor that is not ours.
pub fn bind_raw(fd: c_int, address: &[u8]) -> Result<()> {
    call!(libc::SYS_bind, fd, address.as_ptr(), address.len()).map(drop)
}

/// `connect(2)` on a descriptor that is not ours.
pub fn connect_raw(fd: c_int, address: &[u8]) -> Result<()> {
    call!(libc::SYS_connect, fd, address.as_ptr(), address.len()).map(drop)
}

/// `accept4(2)` without an address, close-on-exec, non-blocking.
pub fn accept(fd: &Fd) -> Result<Fd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    call!(libc::SYS_accept4, fd.0, 0usize, 0usize, flags).map(|fd| Fd(fd as c_int))
}

/// `shutdown(2)`.
pub fn shutdown(fd: c_int, how: c_int) -> Result<()> {
    call!(libc::SYS_shutdown, fd, how).map(drop)
}

/// `getsockopt(2)` into a plain value; gives the length that the kernel wrote.
pub fn getsockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, value: &mut T) -> Result<usize> {
    let mut length = size_of::<T>() as socklen_t;
    call!(libc::SYS_getsockopt, fd, level, name, core::ptr::from_mut(value), &raw mut length)?;
    Ok(length as usize)
}

/// `setsockopt(2)` from a plain value.
pub fn setsockopt<T: Copy>(fd: c_int, level: c_int, name: c_int, value: &T) -> Result<()> {
    call!(libc::SYS_setsockopt, fd, level, name, core::ptr::from_ref(value), size_of::<T>()).map(drop)
}

/// `getsockname(2)` or `getpeername(2)` into a buffer; gives the address's length.
pub fn socket_name(fd: c_int, peer: bool, buffer: &mut [u8]) -> Result<usize> {
    let number = if peer { libc::SYS_getpeername } else { libc::SYS_getsockname };
    let mut length = buffer.len() as socklen_t;
    let address: *mut sockaddr = buffer.as_mut_ptr().cast();
    call!(number, fd, address, &raw mut length)?;
    Ok((length as usize).min(buffer.len()))
}

/// `ioctl(2)` that writes one int (`SIOCINQ`, `SIOCOUTQ`).
pub fn ioctl_int(fd: c_int, request: u64) -> Result<c_int> {
    let mut value: c_int = 0;
    call!(libc::SYS_ioctl, fd, request, &raw mut value)?;
    Ok(value)
}

/// `fcntl(2)`.
pub fn fcntl(fd: c_int, command: c_int, argument: usize) -> Result<usize> {
    call!(libc::SYS_fcntl, fd, command, argument)
}

/// `fstat(2)`.
pub fn fstat(fd: c_int) -> Result<libc::stat> {
    // SAFETY: all-zero bytes are a valid `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    call!(libc::SYS_fstat, fd, &raw mut stat)?;
    Ok(stat)
}

/// `stat(2)`.
pub fn stat(path: &core::ffi::CStr) -> Result<libc::stat> {
    // SAFETY: all-zero bytes are a valid `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    call!(libc::SYS_newfstatat, libc::AT_FDCWD as isize, path.as_ptr(), &raw mut stat, 0)?;
    Ok(stat)
}

/// `memfd_create(2)`; `name` ends in a NUL byte.
pub fn memfd_create(name: &core::ffi::CStr, flags: u32) -> Result<Fd> {
    call!(libc::SYS_memfd_create, name.as_ptr(), flags).map(|fd| Fd(fd as c_int))
}

/// `ftruncate(2)`.
pub fn ftruncate(fd: &Fd, length: usize) -> Result<()> {
    call!(libc::SYS_ftruncate, fd.0, length).map(drop)
}

/// Maps `length` bytes of a file, or of nothing (`None`), shared or private.
pub fn mmap(file: Option<&Fd>, length: usize, protection: c_int, flags: c_int) -> Result<*mut u8> {
    let fd = file.map_or(-1, |fd| fd.0);
    call!(libc::SYS_mmap, 0usize, length, protection, flags, fd as isize, 0usize).map(|at| at as *mut u8)
}

/// Maps `length` bytes of a descriptor from `offset` on, to be read and written by everybody who maps them; present at once.
pub fn mmap_shared(file: &Fd, length: usize, offset: u64) -> Result<*mut u8> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    call!(libc::SYS_mmap, 0usize, length, protection, flags, file.0 as isize, offset).map(|at| at as *mut u8)
}

/// Unmaps memory.
///
/// # Safety
/// Nobody may touch the range afterwards.
pub unsafe fn munmap(at: *mut u8, length: usize) {
    let _ = call!(libc::SYS_munmap, at, length);
}

/// `madvise(2)`.
///
/// # Safety
/// The advice must not take away memory that somebody still reads.
pub unsafe fn madvise(at: *mut u8, length: usize, advice: c_int) -> Result<()> {
    call!(libc::SYS_madvise, at, length, advice).map(drop)
}

/// The process id as the kernel sees it now (a vfork child differs from its parent here only).
#[must_use]
pub fn getpid() -> i32 {
    call!(libc::SYS_getpid).map_or(0, |pid| pid as i32)
}

/// Whether two processes share one table of descriptors; no, where the kernel does not tell.
#[must_use]
pub fn same_descriptors(one: i32, other: i32) -> bool {
    const KCMP_FILES: i32 = 2;
    call!(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0).is_ok_and(|order| order == 0)
}

/// The thread id.
#[must_use]
pub fn gettid() -> i32 {
    call!(libc::SYS_gettid).map_or(0, |tid| tid as i32)
}

/// The effective user id.
#[must_use]
pub fn geteuid() -> u32 {
    call!(libc::SYS_geteuid).map_or(u32::MAX, |uid| uid as u32)
}

/// Whether a process or thread exists (another user's does; a child of ours that has ended and was not waited
/// for does not).
#[must_use]
pub fn process_exists(pid: i32) -> bool {
    !matches!(call!(libc::SYS_kill, pid, 0), Err(Errno(libc::ESRCH))) && !is_zombie_of_ours(pid)
}

/// Whether a process or thread runs still: a process that has ended doesn't, though its number stays until its parent has waited for it.
/// It takes a descriptor for a moment. The first thread of a process ends with the last.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    // Of a thread there is no such descriptor, but it is gone as soon as it has ended.
    let has_ended = |fd: Fd| {
        let mut ends = [libc::pollfd { fd: fd.raw(), events: libc::POLLIN, revents: 0 }];
        poll_all(&mut ends, 0).is_ok_and(|count| count > 0)
    };
    process_exists(pid) && !pidfd_open(pid).is_ok_and(has_ended)
}

/// Asks as `waitid` does, and leaves the child to be waited for.
fn is_zombie_of_ours(pid: i32) -> bool {
    let mut info = [0u32; 32];
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // A `siginfo_t` is 128 bytes and starts with the signal's number: SIGCHLD if the child has ended.
    call!(libc::SYS_waitid, libc::P_PID, pid, info.as_mut_ptr(), options, 0).is_ok() && info[0] != 0
}

/// Gives the core to whoever waits for it.
pub fn sched_yield() {
    let _ = call!(libc::SYS_sched_yield);
}

/// Sleeps for about `nanoseconds`.
pub fn nanosleep(nanoseconds: u64) {
    let time = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    };
    let _ = call!(libc::SYS_nanosleep, &raw const time, 0usize);
}

/// `openat(2)` relative to the current directory; `path` ends in a NUL byte.
pub fn open(path: &core::ffi::CStr, flags: c_int, mode: u32) -> Result<Fd> {
    let flags = flags | libc::O_CLOEXEC;
    call!(libc::SYS_openat, libc::AT_FDCWD as isize, path.as_ptr(), flags, mode).map(|fd| Fd(fd as c_int))
}

/// `poll(2)`.
///
/// # Safety
/// `fds` must be valid for `count` entries.
pub unsafe fn poll(fds: *mut libc::pollfd, count: usize, timeout_ms: c_int) -> Result<usize> {
    let time = libc::timespec {
        tv_sec: i64::from(timeout_ms.max(0)) / 1000,
        tv_nsec: i64::from(timeout_ms.max(0)) % 1000 * 1_000_000,
    };
    let limit = if timeout_ms < 0 { core::ptr::null() } else { &raw const time };
    call!(libc::SYS_ppoll, fds, count, limit, 0usize, 0usize)
}

/// `epoll_wait(2)`.
///
/// # Safety
/// `events` must be valid for `count` entries.
pub unsafe fn epoll_wait(
    fd: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout_ms: c_int,
) -> Result<usize> {
    call!(libc::SYS_epoll_pwait, fd, events, count, timeout_ms as isize, 0usize, 8usize)
}

/// `epoll_ctl(2)`.
///
/// # Safety
/// `event` must be readable unless the operation ignores it.
pub unsafe fn epoll_ctl(
    set: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> Result<()> {
    call!(libc::SYS_epoll_ctl, set, operation, fd, event).map(drop)
}

/// Moves a descriptor of ours to a high number, out of the program's way; the same one if that fails.
#[must_use]
pub fn raise_number(fd: Fd, floor: c_int) -> Fd {
    match call!(libc::SYS_fcntl, fd.0, libc::F_DUPFD_CLOEXEC, floor) {
        Ok(high) => Fd(high as c_int),
        Err(_) => fd,
    }
}

/// The soft and hard limits on descriptors.
#[must_use]
pub fn descriptor_limits() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    let _ = call!(libc::SYS_prlimit64, 0usize, libc::RLIMIT_NOFILE, 0usize, &raw mut limit);
    (limit.rlim_cur, limit.rlim_max)
}

/// `lseek(2)`.
pub fn lseek(fd: c_int, offset: i64, whence: c_int) -> Result<i64> {
    call!(libc::SYS_lseek, fd, offset, whence).map(|position| position as i64)
}

/// Waits while the low half of a word has this value, `nanoseconds` at most; false if that time is over. The word may be shared with
/// other processes.
pub fn futex_wait(word: &AtomicU64, value: u32, nanoseconds: u64) -> bool {
    let limit = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    };
    let low = word.as_ptr().cast::<u32>();
    call!(libc::SYS_futex, low, libc::FUTEX_WAIT, value, &raw const limit, 0usize, 0usize)
        != Err(Errno(libc::ETIMEDOUT))
}

/// Wakes so many who wait for the low half of a word.
pub fn futex_wake(word: &AtomicU64, count: u32) {
    let low = word.as_ptr().cast::<u32>();
    let _ = call!(libc::SYS_futex, low, libc::FUTEX_WAKE, count);
}

/// `ppoll(2)` without a signal mask; `None` waits for ever.
pub fn wait_for(fds: &mut [libc::pollfd], nanoseconds: Option<u64>) -> Result<usize> {
    let time = nanoseconds.map(|nanoseconds| libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    });
    let limit = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    call!(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), limit, 0usize, 0usize)
}

/// `epoll_create1(2)`.
pub fn epoll_create() -> Result<Fd> {
    call!(libc::SYS_epoll_create1, libc::EPOLL_CLOEXEC).map(|fd| Fd(fd as c_int))
}

/// Most descriptors that one message carries: SCM_MAX_FD (include/net/scm.h).
pub const PASSED_MAX: usize = 253;
/// Bytes of a control message's header, and words of room for one with so many descriptors (cmsg(3)).
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();
const CONTROL_WORDS: usize = (CONTROL_HEADER + PASSED_MAX * size_of::<c_int>()).div_ceil(size_of::<u64>());

/// What came with [`receive_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// Bytes, 0 at the end of a connection.
    pub len: usize,
    /// There were more bytes than room.
    pub is_cut: bool,
    /// There were more descriptors than this process may have.
    pub lacks_descriptors: bool,
}

fn message(vector: &mut iovec, control: &mut [u64], length: usize) -> msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`.
    let mut message: msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    if length != 0 {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = length as _;
    }
    message
}

/// `sendmsg(2)` of bytes, and of descriptors that the receiver gets too (SCM_RIGHTS); without SIGPIPE.
///
/// # Errors
/// EINVAL for more than [`PASSED_MAX`]; what sendmsg(2) says.
pub fn send_with(fd: &Fd, bytes: &[u8], passed: &[c_int], flags: c_int) -> Result<usize> {
    if passed.len() > PASSED_MAX {
        return Err(Errno(libc::EINVAL));
    }
    let mut control = [0u64; CONTROL_WORDS];
    let length = CONTROL_HEADER + size_of_val(passed);
    let header =
        libc::cmsghdr { cmsg_len: length as _, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let at: *mut u8 = control.as_mut_ptr().cast();
    // SAFETY: the control message begins aligned, and has room for its header.
    unsafe { at.cast::<libc::cmsghdr>().write(header) };
    // SAFETY: there is room for so many descriptors behind it.
    let place = unsafe { at.add(CONTROL_HEADER) };
    // SAFETY: both are so many numbers, apart from each other.
    unsafe { core::ptr::copy_nonoverlapping(passed.as_ptr(), place.cast(), passed.len()) };
    let mut vector = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = message(&mut vector, &mut control, if passed.is_empty() { 0 } else { length });
    // SAFETY: the message points to the locals above and to `bytes`, which it only reads.
    unsafe { sendmsg(fd.0, &raw const message, flags | libc::MSG_NOSIGNAL) }
}

/// `recvmsg(2)` of bytes, and of descriptors, close-on-exec, which are added to `passed`.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive_with(fd: &Fd, bytes: &mut [u8], passed: &mut Vec<Fd>, flags: c_int) -> Result<Came> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut vector = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = message(&mut vector, &mut control, size_of::<[u64; CONTROL_WORDS]>());
    // SAFETY: the message points to the locals above and to `bytes`.
    let len = unsafe { recvmsg(fd.0, &raw mut message, flags | libc::MSG_CMSG_CLOEXEC) }?;
    let at: *const u8 = control.as_ptr().cast();
    // SAFETY: there is room for a header, and any bytes are one.
    let header = unsafe { at.cast::<libc::cmsghdr>().read() };
    let length = header.cmsg_len.min(message.msg_controllen);
    let is_rights = header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS;
    if is_rights && length >= CONTROL_HEADER {
        for index in 0..(length - CONTROL_HEADER) / size_of::<c_int>() {
            // SAFETY: the kernel wrote so many numbers behind the header, each a new descriptor of ours.
            passed.push(Fd(unsafe { at.add(CONTROL_HEADER).cast::<c_int>().add(index).read() }));
        }
    }
    let flag = |flag| message.msg_flags & flag != 0;
    Ok(Came { len, is_cut: flag(libc::MSG_TRUNC), lacks_descriptors: flag(libc::MSG_CTRUNC) })
}

/// `poll(2)` of these.
///
/// # Errors
/// What poll(2) says.
pub fn poll_all(fds: &mut [libc::pollfd], timeout_ms: c_int) -> Result<usize> {
    // SAFETY: the entries are as many as said.
    unsafe { poll(fds.as_mut_ptr(), fds.len(), timeout_ms) }
}

/// `eventfd(2)`, close-on-exec.
///
/// # Errors
/// What eventfd(2) says.
pub fn eventfd(flags: c_int) -> Result<Fd> {
    call!(libc::SYS_eventfd2, 0, flags | libc::EFD_CLOEXEC).map(|fd| Fd(fd as c_int))
}

/// `pidfd_open(2)`: readable once the process has ended.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: i32) -> Result<Fd> {
    call!(libc::SYS_pidfd_open, pid, 0).map(|fd| Fd(fd as c_int))
}
