//! One row per interposed libc function.
//!
//! `kind fn symbol = handler(arguments) -> result, "what accel does";`
//!
//! | kind | when the handler runs |
//! |---|---|
//! | `by_fd` | the first argument, `fd`, is a descriptor that accel follows; otherwise a tail call to libc |
//! | `by_entry` | accel has an entry for `fd`, even if its data calls go straight to libc |
//! | `always` | at every call |
//! | `gives_fd` | never: libc is called, and an old entry of the descriptor that it returns is dropped |
//!
//! Variadic functions (`fcntl`, `ioctl`, `open`, `syscall`) take register-sized last arguments: on Linux
//! x86-64 and aarch64 the first eight (six) integer arguments of a variadic call travel in the same
//! registers as those of an ordinary one.

/// Calls the macro `$with` with every row.
#[macro_export]
macro_rules! interposed {
    ($with:path) => {
        $with! {
            // Life of a socket.
            always fn socket = socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, "followed when it is TCP over IPv4 or IPv6, or UDP where accel drives an interface";
            by_fd fn bind = bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int, "kernel; a socket of UDP may be the stack's from then on";
            by_fd fn connect = connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int, "kernel or stack; the socket becomes a candidate";
            by_fd fn __connect = connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int, "alias of connect";
            by_fd fn listen = listen(fd: c_int, backlog: c_int) -> c_int, "kernel; remembered as a listener";
            always fn accept = accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int, "kernel; the new socket becomes a candidate";
            always fn accept4 = accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int, "kernel; the new socket becomes a candidate";
            by_fd fn shutdown = shutdown(fd: c_int, how: c_int) -> c_int, "closes the ring directions, then the kernel";
            by_entry fn close = close(fd: c_int) -> c_int, "drops the entry; unread ring bytes make it a reset as on Linux";
            by_entry fn __close = close(fd: c_int) -> c_int, "alias of close";
            by_fd fn getsockname = getsockname(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int, "kernel, or the stack's connection";
            by_fd fn getpeername = getpeername(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int, "kernel, or the stack's connection";
            by_fd fn getsockopt = getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int, "kernel, with what travelled by the rings added (TCP_INFO, SO_ERROR)";
            by_fd fn setsockopt = setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t) -> c_int, "kernel; timeouts and options that forbid the rings are noted";

            // Receiving.
            by_fd fn read = read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t, "ring or kernel";
            by_fd fn __read = read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t, "alias of read";
            by_fd fn __read_chk = read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t, "fortified read";
            by_fd fn readv = readv(fd: c_int, vector: *const iovec, count: c_int) -> ssize_t, "ring or kernel";
            by_fd fn preadv2 = preadv2(fd: c_int, vector: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t, "ring or kernel when offset is -1";
            by_fd fn preadv64v2 = preadv2(fd: c_int, vector: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t, "alias of preadv2";
            by_fd fn recv = recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t, "ring or kernel";
            by_fd fn __recv_chk = recv_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int) -> ssize_t, "fortified recv";
            by_fd fn recvfrom = recvfrom(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t, "ring or kernel";
            by_fd fn __recvfrom_chk = recvfrom_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t, "fortified recvfrom";
            by_fd fn recvmsg = recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, "ring or kernel";
            by_fd fn recvmmsg = recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int, "ring or kernel";

            // Sending.
            by_fd fn write = write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t, "ring or kernel";
            by_fd fn __write = write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t, "alias of write";
            by_fd fn writev = writev(fd: c_int, vector: *const iovec, count: c_int) -> ssize_t, "ring or kernel";
            by_fd fn pwritev2 = pwritev2(fd: c_int, vector: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t, "ring or kernel when offset is -1";
            by_fd fn pwritev64v2 = pwritev2(fd: c_int, vector: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t, "alias of pwritev2";
            by_fd fn send = send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t, "ring or kernel";
            by_fd fn sendto = sendto(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, address: *const sockaddr, address_length: socklen_t) -> ssize_t, "ring or kernel";
            always fn sendmsg = sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, "ring or kernel; sockets inside SCM_RIGHTS are given away";
            always fn sendmmsg = sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int, "ring or kernel; sockets inside SCM_RIGHTS are given away";
            by_fd fn sendfile = sendfile(fd: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t, "small files are read into the ring; otherwise kernel";
            by_fd fn sendfile64 = sendfile(fd: c_int, source: c_int, offset: *mut off_t, count: size_t) -> ssize_t, "alias of sendfile";
            always fn splice = splice(source: c_int, source_offset: *mut off_t, target: c_int, target_offset: *mut off_t, length: size_t, flags: c_uint) -> ssize_t, "ring bytes first, then kernel";

            // Waiting.
            always fn poll = poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int, "rings and kernel together";
            always fn __poll = poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int, "alias of poll";
            always fn __poll_chk = poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int, "fortified poll";
            always fn ppoll = ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int, "rings and kernel together";
            always fn __ppoll_chk = ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t) -> c_int, "fortified ppoll";
            always fn select = select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int, "rings and kernel together";
            always fn __select = select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int, "alias of select";
            always fn pselect = pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int, "rings and kernel together";
            always fn epoll_create = epoll_create(size: c_int) -> c_int, "kernel set, followed";
            always fn epoll_create1 = epoll_create1(flags: c_int) -> c_int, "kernel set, followed";
            by_fd fn epoll_ctl = epoll_ctl(fd: c_int, operation: c_int, target: c_int, event: *mut epoll_event) -> c_int, "kernel registration, remembered";
            by_fd fn epoll_wait = epoll_wait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int, "rings and kernel together";
            by_fd fn epoll_pwait = epoll_pwait(fd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t) -> c_int, "rings and kernel together";
            by_fd fn epoll_pwait2 = epoll_pwait2(fd: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int, "rings and kernel together";

            // Descriptors.
            by_entry fn dup = dup(fd: c_int) -> c_int, "same socket, same path";
            always fn dup2 = dup2(fd: c_int, target: c_int) -> c_int, "same socket, same path";
            always fn __dup2 = dup2(fd: c_int, target: c_int) -> c_int, "alias of dup2";
            always fn dup3 = dup3(fd: c_int, target: c_int, flags: c_int) -> c_int, "same socket, same path";
            by_entry fn fcntl = fcntl(fd: c_int, command: c_int, argument: usize) -> c_int, "kernel; duplicates, O_NONBLOCK, O_ASYNC noted";
            by_entry fn fcntl64 = fcntl(fd: c_int, command: c_int, argument: usize) -> c_int, "alias of fcntl";
            by_entry fn __fcntl = fcntl(fd: c_int, command: c_int, argument: usize) -> c_int, "alias of fcntl";
            by_fd fn ioctl = ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int, "kernel; FIONREAD and SIOCOUTQ count the rings, FIONBIO noted";
            always fn close_range = close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int, "drops the entries; accel's own descriptors survive";
            always fn closefrom = closefrom(first: c_int) -> (), "drops the entries; accel's own descriptors survive";
            by_fd fn fdopen = fdopen(fd: c_int, mode: *const c_char) -> *mut FILE, "gives the socket to stdio: kernel from then on";
            by_fd fn vdprintf = vdprintf(fd: c_int, format: *const c_char, list: usize) -> c_int, "gives the socket to stdio: kernel from then on";
            by_fd fn __vdprintf_chk = vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, list: usize) -> c_int, "fortified vdprintf";
            always fn fclose = fclose(stream: *mut FILE) -> c_int, "drops the entry of its descriptor";
            always fn freopen = freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, "drops the entry of its descriptor";
            always fn freopen64 = freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE, "alias of freopen";
            by_fd fn sockatmark = sockatmark(fd: c_int) -> c_int, "kernel, after the ring is empty";
            gives_fd fn open = open(path: *const c_char, flags: c_int, mode: usize) -> c_int, "kernel";
            gives_fd fn open64 = open(path: *const c_char, flags: c_int, mode: usize) -> c_int, "kernel";
            gives_fd fn openat = openat(directory: c_int, path: *const c_char, flags: c_int, mode: usize) -> c_int, "kernel";
            gives_fd fn openat64 = openat(directory: c_int, path: *const c_char, flags: c_int, mode: usize) -> c_int, "kernel";
            gives_fd fn creat = creat(path: *const c_char, mode: mode_t) -> c_int, "kernel";
            gives_fd fn creat64 = creat(path: *const c_char, mode: mode_t) -> c_int, "kernel";
            gives_fd fn eventfd = eventfd(value: c_uint, flags: c_int) -> c_int, "kernel";
            gives_fd fn timerfd_create = timerfd_create(clock: c_int, flags: c_int) -> c_int, "kernel";
            gives_fd fn memfd_create = memfd_create(name: *const c_char, flags: c_uint) -> c_int, "kernel";
            gives_fd fn pidfd_open = pidfd_open(pid: pid_t, flags: c_uint) -> c_int, "kernel";

            // Processes.
            always fn fork = fork() -> pid_t, "pending meetings are dropped; the rings stay with the parent";
            always fn __fork = fork() -> pid_t, "alias of fork";
            always fn _Fork = _Fork() -> pid_t, "as fork";
            always fn clone = clone(function: clone_start_t, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent_id: usize, tls: usize, child_id: usize) -> c_int, "as fork, where the child has memory of its own";
            always fn __clone = clone(function: clone_start_t, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent_id: usize, tls: usize, child_id: usize) -> c_int, "alias of clone";
            always fn execve = execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, "sockets that survive are given to the kernel; accel's environment is kept";
            always fn execv = execv(path: *const c_char, arguments: *const *const c_char) -> c_int, "as execve";
            always fn execvp = execvp(file: *const c_char, arguments: *const *const c_char) -> c_int, "as execve";
            always fn execvpe = execvpe(file: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, "as execve";
            always fn execveat = execveat(directory: c_int, path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char, flags: c_int) -> c_int, "as execve";
            always fn fexecve = fexecve(fd: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int, "as execve";
            always fn posix_spawn = posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, "accel's environment is kept";
            always fn posix_spawnp = posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, "accel's environment is kept";
            always fn posix_spawn_file_actions_adddup2 = spawn_adddup2(actions: *mut posix_spawn_file_actions_t, fd: c_int, target: c_int) -> c_int, "the socket is given to the program that will be started";
            always fn _exit = _exit(status: c_int) -> !, "the rings are closed first";
            always fn _Exit = _exit(status: c_int) -> !, "alias of _exit";
            always fn prctl = prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int, "inert before a seccomp filter is installed";
            always fn unshare = unshare(flags: c_int) -> c_int, "open connections keep working; new ones obey the new namespace";
            always fn setns = setns(fd: c_int, kind: c_int) -> c_int, "open connections keep working; new ones obey the new namespace";
            always fn syscall = syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long, "the calls of this table, by number";

            // Signals.
            always fn sigaction = sigaction(signal: c_int, new: *const sigaction_t, old: *mut sigaction_t) -> c_int, "handlers never run inside accel's own code";
            always fn __sigaction = sigaction(signal: c_int, new: *const sigaction_t, old: *mut sigaction_t) -> c_int, "alias of sigaction";
            always fn signal = signal(signal: c_int, handler: sighandler_t) -> sighandler_t, "as sigaction";
            always fn bsd_signal = signal(signal: c_int, handler: sighandler_t) -> sighandler_t, "as sigaction";
            always fn ssignal = signal(signal: c_int, handler: sighandler_t) -> sighandler_t, "as sigaction";
            always fn sysv_signal = sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t, "as sigaction";
            always fn __sysv_signal = sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t, "as sigaction";
            always fn sigset = sigset(signal: c_int, disposition: sighandler_t) -> sighandler_t, "as sigaction";
            always fn siginterrupt = siginterrupt(signal: c_int, flag: c_int) -> c_int, "as sigaction";
            always fn longjmp = longjmp(buffer: *mut c_void, value: c_int) -> !, "a handler that leaves a blocking call leaves nothing behind";
            always fn _longjmp = _longjmp(buffer: *mut c_void, value: c_int) -> !, "as longjmp";
            always fn siglongjmp = siglongjmp(buffer: *mut c_void, value: c_int) -> !, "as longjmp";
            always fn __longjmp_chk = __longjmp_chk(buffer: *mut c_void, value: c_int) -> !, "fortified longjmp";
        }
    };
}

/// One interposed function, as documentation and tests see it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The symbol, e.g. `__recv_chk`.
    pub name: &'static str,
    /// `by_fd`, `by_entry`, `always` or `gives_fd`.
    pub kind: &'static str,
    /// What accel does.
    pub doc: &'static str,
}

macro_rules! list {
    ($($kind:ident fn $name:ident = $handler:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $doc:literal;)*) => {
        /// Every row, in the order of the table.
        pub const CALLS: &[Call] = &[$(Call { name: stringify!($name), kind: stringify!($kind), doc: $doc }),*];
    };
}

interposed!(list);

/// The functions that no row can stand for (variadic, or returning twice); they are written by hand
/// (`shim/src/execl.rs`, `shim/src/process.rs`).
pub const VARIADIC: &[Call] = &[
    Call { name: "execl", kind: "always", doc: "as execve" },
    Call { name: "execlp", kind: "always", doc: "as execve" },
    Call { name: "execle", kind: "always", doc: "as execve" },
    Call { name: "vfork", kind: "always", doc: "its child changes nothing here" },
    Call { name: "dprintf", kind: "by_fd", doc: "gives the socket to stdio: kernel from then on" },
    Call { name: "__dprintf_chk", kind: "by_fd", doc: "fortified dprintf" },
];
