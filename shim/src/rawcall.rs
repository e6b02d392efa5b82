//! libc's `syscall()`: the calls of the table, by number.
//!
//! A number whose function accel interposes goes to the same handler, with the differences between the kernel's
//! arguments and libc's put right. Every other number is a jump to libc. `rt_sigaction` passes: who calls it by
//! number reads and writes the kernel's own handlers, accel's wrapper among them, and that works.

use crate::config::config;
use crate::log::Once;
use crate::real::{self, types::*};
use crate::{calls, errno, fdtable, process};
use core::mem::MaybeUninit;

/// Whether a `clone` returns twice, in two processes with a memory each.
const fn is_fork(flags: usize, stack: usize) -> bool {
    flags & libc::CLONE_VM as usize == 0 && stack == 0
}

/// # Safety
/// `arguments` is null or points to `size` bytes.
unsafe fn clone3_flags_and_stack(arguments: usize, size: usize) -> Option<(usize, usize)> {
    const STACK: usize = 5;
    if arguments == 0 || size < (STACK + 1) * size_of::<u64>() {
        return None;
    }
    // SAFETY: the caller's structure is long enough.
    let (flags, stack) = unsafe { (*(arguments as *const u64), *(arguments as *const u64).add(STACK)) };
    Some((flags as usize, stack as usize))
}

/// A signal mask as libc's calls take it. The kernel's has 8 bytes, and its size comes with it.
struct Mask(MaybeUninit<sigset_t>);

impl Mask {
    const NONE: Self = Self(MaybeUninit::uninit());

    /// Null, the mask as libc's, or `None` where the kernel must judge the size.
    ///
    /// # Safety
    /// `given` is null or a mask of `size` bytes.
    unsafe fn taken(&mut self, given: usize, size: usize) -> Option<*const sigset_t> {
        match (given, size) {
            (0, _) => Some(core::ptr::null()),
            (_, 8) => {
                self.0 = MaybeUninit::zeroed();
                // SAFETY: 8 readable bytes there, and more than 8 here.
                unsafe { self.0.as_mut_ptr().cast::<u64>().write((given as *const u64).read_unaligned()) };
                Some(self.0.as_ptr())
            }
            _ => None,
        }
    }
}

/// Forgets the number that the kernel gave out, should accel still follow it.
fn given_out(result: c_long) -> c_long {
    if let Ok(fd) = c_int::try_from(result)
        && fd >= 0
        && fdtable::is_known(fd)
    {
        fdtable::forget_number(fd);
    }
    result
}

/// `syscall`.
///
/// # Safety
/// That of the system call.
pub(crate) unsafe fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's contract, handed on unchanged. The last call is a jump: a child that begins there on
    // a stack of its own finds what it would find without accel.
    unsafe {
        match by_number(number, a, b, c, d, e, f) {
            Some(result) => result,
            None => real::syscall(number, a, b, c, d, e, f),
        }
    }
}

/// The result of a call that is accel's business; `None` for all others.
///
/// # Safety
/// That of the system call.
#[inline(never)]
unsafe fn by_number(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> Option<c_long> {
    /// A call of the handler, if the first argument is a descriptor that accel follows.
    macro_rules! by_fd {
        ($handler:ident($($argument:expr),*)) => {
            if fdtable::is_active(a as c_int) {
                // SAFETY: the caller's contract; the casts undo what `syscall`'s prototype did.
                return Some(unsafe { calls::$handler(a as _, $($argument as _),*) } as c_long);
            }
        };
    }
    /// A call of the handler, if accel knows the first argument at all.
    macro_rules! by_entry {
        ($handler:ident($($argument:expr),*)) => {
            if fdtable::is_known(a as c_int) {
                // SAFETY: the caller's contract; the casts undo what `syscall`'s prototype did.
                return Some(unsafe { calls::$handler(a as _, $($argument as _),*) } as c_long);
            }
        };
    }
    /// A call of the handler.
    macro_rules! always {
        ($handler:ident($($argument:expr),*)) => {
            // SAFETY: the caller's contract; the casts undo what `syscall`'s prototype did.
            return Some(unsafe { calls::$handler($($argument as _),*) } as c_long)
        };
    }
    let mut mask = Mask::NONE;
    match number {
        libc::SYS_socket => always!(socket(a, b, c)),
        libc::SYS_bind => by_fd!(bind(b, c)),
        libc::SYS_connect => by_fd!(connect(b, c)),
        libc::SYS_listen => by_fd!(listen(b)),
        libc::SYS_accept => always!(accept(a, b, c)),
        libc::SYS_accept4 => always!(accept4(a, b, c, d)),
        libc::SYS_shutdown => by_fd!(shutdown(b)),
        libc::SYS_close => by_entry!(close()),
        libc::SYS_getsockname => by_fd!(getsockname(b, c)),
        libc::SYS_getpeername => by_fd!(getpeername(b, c)),
        libc::SYS_getsockopt => by_fd!(getsockopt(b, c, d, e)),
        libc::SYS_setsockopt => by_fd!(setsockopt(b, c, d, e)),

        libc::SYS_read => by_fd!(read(b, c)),
        libc::SYS_readv => by_fd!(readv(b, c)),
        libc::SYS_recvfrom => by_fd!(recvfrom(b, c, d, e, f)),
        libc::SYS_recvmsg => by_fd!(recvmsg(b, c)),
        libc::SYS_recvmmsg => by_fd!(recvmmsg(b, c, d, e)),
        // The kernel takes the offset in two halves; a 64-bit one reads only the first.
        libc::SYS_preadv2 => by_fd!(preadv2(b, c, d, f)),

        libc::SYS_write => by_fd!(write(b, c)),
        libc::SYS_writev => by_fd!(writev(b, c)),
        libc::SYS_sendto => by_fd!(sendto(b, c, d, e, f)),
        libc::SYS_sendmsg => always!(sendmsg(a, b, c)),
        libc::SYS_sendmmsg => always!(sendmmsg(a, b, c, d)),
        libc::SYS_pwritev2 => by_fd!(pwritev2(b, c, d, f)),
        libc::SYS_sendfile => by_fd!(sendfile(b, c, d)),
        libc::SYS_splice => always!(splice(a, b, c, d, e, f)),

        libc::SYS_ppoll => {
            // SAFETY: the caller's contract.
            if let Some(mask) = unsafe { mask.taken(d, e) } {
                always!(ppoll(a, b, c, mask))
            }
        }
        libc::SYS_pselect6 => {
            // SAFETY: the sixth argument is null or points to a mask and its size.
            let [at, size] = unsafe { (f as *const [usize; 2]).as_ref() }.copied().unwrap_or([0, 8]);
            // SAFETY: the caller's contract.
            if let Some(mask) = unsafe { mask.taken(at, size) } {
                always!(pselect(a, b, c, d, e, mask))
            }
        }
        libc::SYS_epoll_create1 => always!(epoll_create1(a)),
        libc::SYS_epoll_ctl => by_fd!(epoll_ctl(b, c, d)),
        libc::SYS_epoll_pwait => {
            // SAFETY: the caller's contract.
            if let Some(mask) = unsafe { mask.taken(e, f) } {
                by_fd!(epoll_pwait(b, c, d, mask));
            }
        }
        libc::SYS_epoll_pwait2 => {
            // SAFETY: the caller's contract.
            if let Some(mask) = unsafe { mask.taken(e, f) } {
                by_fd!(epoll_pwait2(b, c, d, mask));
            }
        }

        libc::SYS_dup => by_entry!(dup()),
        libc::SYS_dup3 => always!(dup3(a, b, c)),
        libc::SYS_fcntl => by_entry!(fcntl(b, c)),
        libc::SYS_ioctl => by_fd!(ioctl(b, c)),
        libc::SYS_close_range => always!(close_range(a, b, c)),

        libc::SYS_execve => always!(execve(a, b, c)),
        libc::SYS_execveat => always!(execveat(a, b, c, d, e)),
        libc::SYS_exit_group => process::exiting(),
        libc::SYS_prctl => always!(prctl(a, b, c, d, e)),
        // Strict mode, or a filter; a null filter only asks, as do the other operations.
        libc::SYS_seccomp if a == 0 || a == 1 && c != 0 => process::forbidden_soon(),
        libc::SYS_unshare => always!(unshare(a)),
        libc::SYS_setns => always!(setns(a, b)),
        libc::SYS_clone | libc::SYS_clone3 => {
            // SAFETY: the arguments of clone3 are flags, then words of which the sixth is the stack.
            let of_clone3 = || unsafe { clone3_flags_and_stack(a, b) };
            let asked = if number == libc::SYS_clone { Some((a, b)) } else { of_clone3() };
            let (flags, stack) = asked?;
            if is_fork(flags, stack) {
                process::before_clone(flags);
                // SAFETY: the caller's contract.
                return Some(process::fork_by(|| unsafe { real::syscall(number, a, b, c, d, e, f) }));
            }
            // A thread, or a child in this memory.
            process::memory_is_shared(flags);
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork => process::memory_is_shared(0),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork => {
            // SAFETY: the caller's contract.
            return Some(process::fork_by(|| unsafe { real::syscall(number, a, b, c, d, e, f) }));
        }

        libc::SYS_io_uring_setup if config().refuses_io_uring => return Some(errno::fail(libc::ENOSYS)),
        libc::SYS_io_uring_setup => {
            // SAFETY: the caller's contract.
            let ring = given_out(unsafe { real::syscall(number, a, b, c, d, e, f) });
            if ring >= 0 {
                io_uring_seen();
            }
            return Some(ring);
        }
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_memfd_create
        | libc::SYS_eventfd2
        | libc::SYS_timerfd_create
        | libc::SYS_pidfd_open
        | libc::SYS_pidfd_getfd => {
            // SAFETY: the caller's contract.
            return Some(given_out(unsafe { real::syscall(number, a, b, c, d, e, f) }));
        }

        // Calls that newer machines only have in a longer form.
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => always!(poll(a, b, c)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => always!(select(a, b, c, d, e)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_dup2 => always!(dup2(a, b)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_create => always!(epoll_create(a)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => by_fd!(epoll_wait(b, c, d)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_creat | libc::SYS_eventfd => {
            // SAFETY: the caller's contract.
            return Some(given_out(unsafe { real::syscall(number, a, b, c, d, e, f) }));
        }
        _ => {}
    }
    None
}

/// What io_uring reads, writes and watches does not come past accel: the program's sockets stay on the kernel.
fn io_uring_seen() {
    static SAID: Once = Once::new();
    errno::kept(|| SAID.info(format_args!("the program uses io_uring; its sockets are not accelerated")));
    if !process::in_vfork_child() {
        errno::kept(crate::family::bypassed);
    }
}
