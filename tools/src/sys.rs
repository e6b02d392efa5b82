//! The few system calls that std does not offer. The only unsafe code of the command.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn outcome(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The user whose rights count.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::geteuid() }
}

/// The user who started the command.
pub(crate) fn real_user() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getuid() }
}

/// The group of the user who started the command.
pub(crate) fn real_group() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getgid() }
}

/// The group whose rights count.
pub(crate) fn effective_group() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getegid() }
}

/// Number and group of the user with this name (getpwnam(3)).
pub(crate) fn user_named(name: &CStr) -> Option<(u32, u32)> {
    // SAFETY: a C string; what is returned stays until the next such call, and this process has one thread.
    unsafe { libc::getpwnam(name.as_ptr()).as_ref() }.map(|found| (found.pw_uid, found.pw_gid))
}

/// Whose rights count from now on, as far as this process may choose.
pub(crate) fn set_effective(user: u32, group: u32) {
    // SAFETY: take numbers. Whoever gets root back needs it for its group, and whoever gives it up has to change the group first.
    unsafe {
        if user == 0 {
            libc::seteuid(user);
        }
        libc::setegid(group);
        libc::seteuid(user);
    }
}

/// Becomes this user for good, with the groups that the host's tables name (initgroups(3)).
pub(crate) fn become_user(name: &CStr, user: u32, group: u32) -> io::Result<()> {
    // SAFETY: a C string that outlives the call, and numbers.
    unsafe {
        outcome(libc::initgroups(name.as_ptr(), group))?;
        outcome(libc::setgid(group))?;
        outcome(libc::setuid(user))
    }
}

/// Whether this user may execute the file (mode bits and access lists; not its format).
pub(crate) fn may_execute(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that outlives the call.
    outcome(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) })
}

/// Whether the file carries capabilities (the extended attribute `security.capability`).
pub(crate) fn has_capabilities(path: &Path) -> bool {
    c_path(path).is_ok_and(|path| {
        // SAFETY: both are C strings; a null buffer of length 0 asks for the size only.
        let size = unsafe {
            libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0)
        };
        size > 0
    })
}

/// Whether the file system of the file is mounted `nosuid`.
pub(crate) fn is_mounted_nosuid(path: &Path) -> bool {
    let Ok(path) = c_path(path) else { return false };
    // SAFETY: statvfs is a plain struct for which zeroes are a value.
    let mut facts: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string and a struct that outlive the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) };
    result == 0 && facts.f_flag & libc::ST_NOSUID != 0
}

/// How the caller left what std changes before `main`: the program must find it unchanged.
mod caller {
    use std::sync::atomic::{AtomicBool, Ordering};

    static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);
    static CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

    extern "C" fn remember() {
        // SAFETY: zeroes are a value of sigaction; the struct outlives the call, which only reads.
        let ignored = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) == 0
                && old.sa_sigaction == libc::SIG_IGN
        };
        SIGPIPE_IGNORED.store(ignored, Ordering::Relaxed);
        for (fd, closed) in (0..).zip(&CLOSED) {
            // SAFETY: takes numbers only.
            closed.store(unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1, Ordering::Relaxed);
        }
    }

    // std ignores SIGPIPE and opens /dev/null on closed standard descriptors; this runs before it does.
    // SAFETY: .init_array holds such pointers; `remember` needs nothing that is set up later.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static REMEMBER: extern "C" fn() = remember;

    /// Puts it back.
    pub(super) fn restore() {
        set_sigpipe(!SIGPIPE_IGNORED.load(Ordering::Relaxed));
        for (fd, closed) in (0..).zip(&CLOSED) {
            if closed.load(Ordering::Relaxed) {
                // SAFETY: std opened it for its own safety; nothing is written after this.
                unsafe { libc::close(fd) };
            }
        }
    }

    /// Lets SIGPIPE end the process, or not.
    pub(super) fn set_sigpipe(ends: bool) {
        let disposition = if ends { libc::SIG_DFL } else { libc::SIG_IGN };
        // SAFETY: both dispositions are always valid.
        unsafe { libc::signal(libc::SIGPIPE, disposition) };
    }
}

/// From now on the command ends when the reader of its output is gone, as `accel help calls | head` wants.
pub(crate) fn end_at_closed_pipe() {
    caller::set_sigpipe(true);
}

/// Becomes another program; returns only if that fails. Strings with a NUL byte are an error.
pub(crate) fn exec(path: &Path, arguments: &[&OsStr], environment: &[CString]) -> io::Error {
    let prepare = || -> io::Result<(CString, Vec<CString>)> {
        let arguments: Result<Vec<_>, _> =
            arguments.iter().map(|argument| CString::new(argument.as_bytes())).collect();
        Ok((c_path(path)?, arguments?))
    };
    let (path, arguments) = match prepare() {
        Ok(strings) => strings,
        Err(error) => return error,
    };
    let arguments = pointers(arguments.iter().map(CString::as_c_str));
    let environment = pointers(environment.iter().map(CString::as_c_str));
    caller::restore();
    // SAFETY: both arrays end with null and point to C strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    let error = io::Error::last_os_error();
    caller::set_sigpipe(false);
    error
}

fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const libc::c_char> {
    strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

/// The signals that end a command from outside, and the end of a child.
fn watched() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is used; the numbers are signals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Holds SIGINT, SIGQUIT, SIGTERM, SIGHUP and SIGCHLD back, to be fetched by [`wait_signal`].
pub(crate) fn hold_signals() {
    let set = watched();
    // SAFETY: a valid set; the old mask is not wanted.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Waits for a held signal: its number, and whether a process sent it (not the terminal).
pub(crate) fn wait_signal(milliseconds: u32) -> Option<(i32, bool)> {
    let set = watched();
    let timeout = libc::timespec {
        tv_sec: i64::from(milliseconds / 1000),
        tv_nsec: i64::from(milliseconds % 1000) * 1_000_000,
    };
    // SAFETY: siginfo_t is plain data for which zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: three structs that outlive the call.
    let signal = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const timeout) };
    (signal > 0).then_some((signal, info.si_code <= 0))
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// Creates a sealed anonymous file, as the rings of a connection are.
pub(crate) fn sealed_memory() -> io::Result<()> {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: a C string; the flags are those of memfd_create(2).
    let number =
        unsafe { libc::memfd_create(c"accel-doctor".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let file = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: a live descriptor and a number.
    outcome(unsafe { libc::ftruncate(file.as_raw_fd(), 4096) })?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a live descriptor and a number.
    outcome(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    // SAFETY: a live descriptor and a number; shrinking must now fail.
    let shrunk = unsafe { libc::ftruncate(file.as_raw_fd(), 0) };
    if shrunk == 0 { Err(io::Error::other("a sealed file could be shrunk")) } else { Ok(()) }
}

/// The soft and the hard limit of open files.
pub(crate) fn open_files_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct that outlives the call.
    outcome(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// A pipe, close-on-exec: the end to read from, and the end to write to.
pub(crate) fn pipe() -> io::Result<[driver::sys::Fd; 2]> {
    let mut ends = [-1; 2];
    // SAFETY: room for two numbers.
    outcome(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok(ends.map(driver::sys::Fd::own))
}

/// A second process like this one: its number in the first, 0 in the second. This process must have one thread.
pub(crate) fn fork() -> io::Result<i32> {
    // SAFETY: with one thread no lock is held by another.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Gives up every capability, and ends when the parent does, from whom everything comes that this process has.
pub(crate) fn end_with_parent() {
    // `struct __user_cap_header_struct` of version 3 and two of `struct __user_cap_data_struct` (capset(2)).
    let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
    // SAFETY: numbers, and two live arrays of the sizes that the call reads.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
    }
}

/// Ends without what usually happens at an end.
pub(crate) fn exit_at_once(status: i32) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(status) }
}

/// Reads at most so many bytes.
pub(crate) fn read(fd: i32, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the bytes are writable.
        let count = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count),
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// Writes bytes: a pipe takes so few at once.
pub(crate) fn write(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are readable.
    let count = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// A session of its own, `/` as its directory, and no descriptors above the standard ones: what a caller leaves open by mistake is not
/// kept open by a process that outlives it.
pub(crate) fn leave_caller() {
    // SAFETY: takes numbers only; the descriptors are the caller's, of which this process uses none.
    unsafe {
        libc::setsid();
        libc::close_range(3, u32::MAX, 0);
    }
    let _ = std::env::set_current_dir("/");
}

/// Leaves the caller, and every descriptor but this one; signals that end others don't end this process.
pub(crate) fn leave_all_but(fd: i32) {
    // SAFETY: numbers only; nothing that is closed here is used again.
    unsafe {
        libc::setsid();
        libc::dup2(fd, 0);
        libc::close_range(1, u32::MAX, 0);
        libc::dup2(0, fd);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    let _ = std::env::set_current_dir("/");
}

/// Children that end are not waited for.
pub(crate) fn forget_children() {
    // SAFETY: a legal disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Standard output goes nowhere from now on; who reads it sees its end.
pub(crate) fn close_output() {
    if let Ok(nowhere) = driver::sys::open(c"/dev/null", libc::O_RDWR, 0) {
        // SAFETY: both are open.
        unsafe { libc::dup2(nowhere.raw(), libc::STDOUT_FILENO) };
    }
}

/// A descriptor that is readable when SIGINT, SIGTERM, SIGQUIT or SIGHUP has come, which no longer end the process.
pub(crate) fn end_signals() -> io::Result<driver::sys::Fd> {
    // SAFETY: zeroes are a value of the set, which is emptied before it is used; the numbers are signals.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    // SAFETY: a valid set.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(driver::sys::Fd::own(fd)) }
}

/// As many open files as this process may have.
pub(crate) fn raise_open_files() {
    if let Ok((_, hard)) = open_files_limit() {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: a struct that outlives the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// The soft limit of locked memory, in bytes.
pub(crate) fn locked_memory_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct that outlives the call.
    outcome(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    Ok(limit.rlim_cur)
}
