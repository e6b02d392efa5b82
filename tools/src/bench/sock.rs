//! Every libc call that the benchmarks make, and all of their `unsafe`.
//!
//! The functions of libc are called by name, as a C program does, so a preloaded library meets each of
//! them. Nothing here retries, waits or decides, except where its name says so.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{c_int, c_void, socklen_t};

/// The result of a call that says -1 and errno.
fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn checked_int(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes a descriptor that a call has just returned.
fn owned(result: c_int) -> io::Result<OwnedFd> {
    let fd = checked_int(result)?;
    // SAFETY: the call succeeded, so `fd` is open and nobody else has its number yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The size of a C structure as the socket calls want it.
fn length_of<T>() -> socklen_t {
    socklen_t::try_from(size_of::<T>()).unwrap_or(socklen_t::MAX)
}

// ------------------------------------------------------------------------------------------ sockets

/// 127.0.0.1 and this port.
fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
        sin_zero: [0; 8],
    }
}

fn socket(kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket() takes no pointer.
    owned(unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) })
}

fn bind_loopback(fd: &OwnedFd) -> io::Result<u16> {
    let mut address = loopback(0);
    let mut length = length_of::<libc::sockaddr_in>();
    // SAFETY: `address` is a sockaddr_in and `length` its size.
    checked_int(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: both pointers are to locals, `length` says how much room there is.
    checked_int(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
    Ok(u16::from_be(address.sin_port))
}

fn connect_loopback(fd: &OwnedFd, port: u16) -> io::Result<()> {
    let address = loopback(port);
    let length = length_of::<libc::sockaddr_in>();
    // SAFETY: `address` is a sockaddr_in and `length` its size.
    checked_int(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// A TCP listener on 127.0.0.1 and the port that the kernel chose.
pub(crate) fn listen_tcp() -> io::Result<(OwnedFd, u16)> {
    let fd = socket(libc::SOCK_STREAM)?;
    let port = bind_loopback(&fd)?;
    // SAFETY: listen() takes no pointer.
    checked_int(unsafe { libc::listen(fd.as_raw_fd(), 4096) })?;
    Ok((fd, port))
}

/// A blocking TCP connection to 127.0.0.1.
pub(crate) fn connect_tcp(port: u16) -> io::Result<OwnedFd> {
    let fd = socket(libc::SOCK_STREAM)?;
    connect_loopback(&fd, port)?;
    Ok(fd)
}

/// A UDP socket on 127.0.0.1 that is connected to itself.
pub(crate) fn udp_to_self() -> io::Result<OwnedFd> {
    let fd = socket(libc::SOCK_DGRAM)?;
    let port = bind_loopback(&fd)?;
    connect_loopback(&fd, port)?;
    Ok(fd)
}

/// The next connection of a listener.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: accept4() may be called without room for the address.
    owned(unsafe {
        libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
    })
}

/// Switches Nagle's algorithm off.
pub(crate) fn set_nodelay(fd: &OwnedFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the option is an int and `on` is one.
    checked_int(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            length_of::<c_int>(),
        )
    })?;
    Ok(())
}

/// Makes `close` send a reset, so that nothing stays in TIME-WAIT.
pub(crate) fn set_reset_on_close(fd: &OwnedFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option is a struct linger and `linger` is one.
    checked_int(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            length_of::<libc::linger>(),
        )
    })?;
    Ok(())
}

/// Sets O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = checked_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes an int.
    checked_int(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// One `send`.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) })
}

/// One `recv`; 0 is the end of the stream.
pub(crate) fn recv(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) })
}

/// One `write`.
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// One `read`; 0 is the end of the stream.
pub(crate) fn read(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })
}

/// One `pread` at the start of the file.
pub(crate) fn pread(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) })
}

/// One `pwrite` at the start of the file.
pub(crate) fn pwrite(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one slice.
    checked(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), 0) })
}

/// Two connected AF_UNIX stream sockets.
pub(crate) fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors.
    checked_int(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr())
    })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// A pipe: its reading and its writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors.
    checked_int(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

// ------------------------------------------------------------------------------------------ waiting

/// An epoll set with room for the events of one wait.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1() takes no pointer.
        let fd = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Watches `fd` for reading, level-triggered.
    pub(crate) fn add(&self, fd: &OwnedFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` is a local that epoll_ctl only reads.
        checked_int(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event)
        })?;
        Ok(())
    }

    /// Waits (-1: without end, 0: not at all) and says how many tokens [`Epoll::token`] has.
    pub(crate) fn wait(&mut self, timeout_ms: c_int) -> io::Result<usize> {
        let room = c_int::try_from(self.events.len()).unwrap_or(c_int::MAX);
        // SAFETY: `room` is the length of the buffer.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms) };
        checked(count as isize)
    }

    /// The token of the `index`th event of the last wait.
    pub(crate) fn token(&self, index: usize) -> u64 {
        self.events[index].u64
    }
}

/// Sleeps until `fd` can be written.
pub(crate) fn wait_writable(fd: RawFd) -> io::Result<()> {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, and the count says one.
    checked_int(unsafe { libc::poll(&raw mut entry, 1, -1) })?;
    Ok(())
}

// ------------------------------------------------------------------------------- what the kernel saw

/// Bytes that the kernel's TCP itself has sent (acknowledged) and received on a connection.
///
/// The call goes straight to the kernel, past any preloaded library, so it tells what did *not* travel
/// through the kernel.
pub(crate) fn kernel_tcp_bytes(fd: RawFd) -> Option<(u64, u64)> {
    const ACKED: usize = 120; // tcpi_bytes_acked in struct tcp_info of linux/tcp.h
    const RECEIVED: usize = 128; // tcpi_bytes_received
    let mut info = [0u8; 256];
    let mut length = length_of::<[u8; 256]>();
    let level = libc::IPPROTO_TCP;
    let name = libc::TCP_INFO;
    // SAFETY: getsockopt(2) writes at most `length` bytes to `info` and one socklen_t to `length`.
    let result = unsafe { raw_getsockopt(fd, level, name, info.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 || (length as usize) < RECEIVED + 8 {
        return None;
    }
    let word = |at: usize| info[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    Some((word(ACKED)?, word(RECEIVED)?))
}

/// getsockopt(2) by its number and not through libc.
///
/// # Safety
/// As getsockopt: `value` has room for `*length` bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_getsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> isize {
    let result: isize;
    // SAFETY: the kernel's x86-64 convention; it clobbers rcx, r11 and memory. The caller vouches for the pointers.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") libc::SYS_getsockopt as isize => result,
            in("rdi") fd as isize, in("rsi") level as isize, in("rdx") name as isize,
            in("r10") value, in("r8") length, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// getsockopt(2) by its number and not through libc.
///
/// # Safety
/// As getsockopt: `value` has room for `*length` bytes.
#[cfg(target_arch = "aarch64")]
unsafe fn raw_getsockopt(
    fd: RawFd,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> isize {
    let result: isize;
    // SAFETY: the kernel's aarch64 convention. The caller vouches for the pointers.
    unsafe {
        std::arch::asm!("svc 0", in("x8") libc::SYS_getsockopt as isize,
            inlateout("x0") fd as isize => result, in("x1") level as isize, in("x2") name as isize,
            in("x3") value, in("x4") length, options(nostack));
    }
    result
}

// ---------------------------------------------------------------------------------------- processes

/// Which of the two processes we are after [`fork`].
pub(crate) enum Fork {
    Child,
    Parent(libc::pid_t),
}

/// Forks a process that has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: called only by workers, which have a single thread: the child may go on as usual.
    Ok(match checked_int(unsafe { libc::fork() })? {
        0 => Fork::Child,
        pid => Fork::Parent(pid),
    })
}

/// Waits for a child; true if it exited with status 0.
pub(crate) fn wait_child(pid: libc::pid_t) -> io::Result<bool> {
    let mut status = 0;
    // SAFETY: `status` is a local.
    checked_int(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
}

/// Ends this process at once.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: _exit() has no condition.
    unsafe { libc::_exit(status) }
}

/// Sends a signal to a process group that was started here (`pid` is its leader).
pub(crate) fn signal_group(pid: u32, signal: c_int) {
    if let Ok(pid) = libc::pid_t::try_from(pid)
        && pid > 1
    {
        // SAFETY: kill() takes no pointer; a group that is gone gives ESRCH, which is what we want.
        unsafe { libc::kill(-pid, signal) };
    }
}

/// Whether a child has ended; it is not reaped.
pub(crate) fn has_ended(pid: u32) -> bool {
    // SAFETY: siginfo_t is plain data that waitid fills in.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is a local siginfo_t.
    let result = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, how) };
    // SAFETY: si_pid is what waitid sets; it stays zero while the child runs.
    result == -1 || unsafe { info.si_pid() } != 0
}

/// Whether this process has root's user id.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid() has no condition.
    unsafe { libc::geteuid() == 0 }
}

/// The kernel ends this process after so many seconds.
pub(crate) fn alarm(seconds: u32) {
    // SAFETY: alarm() has no condition.
    unsafe { libc::alarm(seconds) };
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is a bit mask; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: `cpu` is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}

/// Ties the calling thread to one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let set = cpu_set(&[cpu]);
    // SAFETY: `set` is a cpu_set_t and the size says so.
    checked_int(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })?;
    Ok(())
}

/// The processors that this process may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    let mut set = cpu_set(&[]);
    // SAFETY: `set` is a cpu_set_t and the size says so.
    let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if got != 0 {
        return vec![0];
    }
    // SAFETY: the range ends below CPU_SETSIZE.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// What the child does between fork and exec: pins itself to `cpus` (none: stays free) and asks for
/// `death_signal` when its parent dies.
pub(crate) fn prepare(command: &mut Command, cpus: &[usize], death_signal: c_int) {
    let set = cpu_set(cpus);
    let pinned = !cpus.is_empty();
    let before_exec = move || {
        // SAFETY: PR_SET_PDEATHSIG takes a signal number.
        checked_int(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, death_signal) })?;
        if pinned {
            let size = size_of::<libc::cpu_set_t>();
            // SAFETY: `set` is a cpu_set_t and the size says so.
            checked_int(unsafe { libc::sched_setaffinity(0, size, &raw const set) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and touches nothing but its own copies.
    unsafe { command.pre_exec(before_exec) };
    command.process_group(0);
}

/// Raises the soft limit of open files to `wanted`; an error names what is possible.
pub(crate) fn raise_open_files(wanted: u64) -> Result<(), String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a local rlimit.
    checked_int(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })
        .map_err(|error| format!("getrlimit: {error}"))?;
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let most = limit.rlim_max;
    limit.rlim_cur = wanted;
    limit.rlim_max = limit.rlim_max.max(wanted);
    // SAFETY: `limit` is a local rlimit.
    checked_int(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
        .map_err(|_| format!("needs {wanted} open files, the limit is {most} (ulimit -Hn)"))?;
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on Ctrl-C and SIGTERM only set a flag.
pub(crate) fn catch_interrupts() {
    let handler = note_interrupt as extern "C" fn(c_int);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to one atomic and does nothing else.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether Ctrl-C or SIGTERM has come.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
