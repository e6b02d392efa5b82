//! fork, exec, spawn, exit, and the calls after which a process is no longer the same to accel.
//!
//! `fork` is covered by `pthread_atfork`, because libc also forks by itself (`daemon`, `forkpty`); `_Fork` and
//! a fork through `syscall()` run no such handlers and call the same functions here. The child of `vfork` runs in
//! the parent's memory, and [`in_vfork_child`] tells.

use crate::real::{self, types::*};
use crate::{environment, errno, family, guard, signals};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use driver::sys;
use rows::reasons::Reason;

/// The process whose memory this is.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// A child that runs in this memory has been made, or may have been: set for good.
static SHARED: AtomicBool = AtomicBool::new(false);

/// One of them may share the table of descriptors as well: set for good. Only then is the kernel asked who does.
static SHARED_FILES: AtomicBool = AtomicBool::new(false);

/// The child that is about to be made begins a PID namespace of its own (`clone(CLONE_NEWPID)`).
static ELSEWHERE: AtomicBool = AtomicBool::new(false);

/// A seccomp filter may be in force, and any call that the program does not make itself may end it.
static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// At start-up: notes the process and asks to be told of forks.
pub(crate) fn start() {
    OWNER.store(sys::getpid(), Relaxed);
    // SAFETY: the three functions live as long as the process.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
}

/// Whether the caller is a child that runs in its parent's memory with descriptors of its own (`vfork`,
/// `clone(CLONE_VM)`): what it does must leave the tables here as they are. With its parent's descriptors
/// (`CLONE_FILES` as well) it is to them what a thread is.
#[must_use]
pub(crate) fn in_vfork_child() -> bool {
    let shares_files = || sys::same_descriptors(sys::getpid(), OWNER.load(Relaxed));
    in_other_process() && !(SHARED_FILES.load(Relaxed) && shares_files())
}

/// Whether the caller is a child that runs in its parent's memory: its end and its exec are not the parent's.
/// Costs a `getpid` once such a child was made, so under a seccomp filter of the program's own the answer is
/// always no.
#[must_use]
pub(crate) fn in_other_process() -> bool {
    let owner = OWNER.load(Relaxed);
    SHARED.load(Relaxed) && !FORBIDDEN.load(Relaxed) && owner != 0 && owner != sys::getpid()
}

/// A child that runs in this memory is about to be made by `clone` with these flags.
pub(crate) fn memory_is_shared(flags: usize) {
    if flags & libc::CLONE_FILES as usize != 0 {
        SHARED_FILES.store(true, Relaxed);
    }
    SHARED.store(true, Relaxed);
}

/// `vfork` comes back twice through the same frames, so none of ours may lie between the caller's and libc's.
///
/// # Safety
/// That of `vfork`.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn vfork() -> pid_t {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        "mov byte ptr [rip + {shared}], 1", "jmp [rip + __vfork@GOTPCREL]", shared = sym SHARED,
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        "adrp x9, {shared}", "add x9, x9, :lo12:{shared}", "mov w10, #1", "strb w10, [x9]",
        "adrp x9, :got:__vfork", "ldr x9, [x9, :got_lo12:__vfork]", "br x9", shared = sym SHARED,
    );
}

/// Whether a seccomp filter may be in force.
#[inline]
#[must_use]
pub(crate) fn is_forbidden() -> bool {
    FORBIDDEN.load(Relaxed)
}

extern "C" fn before_fork() {
    family::fork_prepare();
}

extern "C" fn after_fork_in_parent() {
    family::fork_parent();
}

extern "C" fn after_fork_in_child() {
    OWNER.store(sys::getpid(), Relaxed);
    ELSEWHERE.store(false, Relaxed);
    guard::after_fork_in_child();
    signals::after_fork_in_child();
    family::fork_child();
}

/// Whether a child that is made now is in another PID namespace: numbers of processes don't mean the same there.
#[must_use]
pub(crate) fn child_is_elsewhere() -> bool {
    // unshare(2) and setns(2) leave the process where it is, and bring its children there.
    let number = |path| sys::stat(path).map(|link| link.st_ino);
    let (ours, childs) = (number(c"/proc/self/ns/pid"), number(c"/proc/self/ns/pid_for_children"));
    // A namespace whose first process hasn't been made yet can't be looked at.
    ELSEWHERE.load(Relaxed) || ours.is_ok() && ours != childs
}

/// A child with memory of its own is about to be made by `clone` with these flags.
pub(crate) fn before_clone(flags: usize) {
    ELSEWHERE.store(flags & libc::CLONE_NEWPID as usize != 0, Relaxed);
    if flags & libc::CLONE_FILES as usize != 0 && !in_vfork_child() {
        errno::kept(family::descriptors_shared);
    }
}

/// Forks by a call that runs no `pthread_atfork` handlers.
pub(crate) fn fork_by(call: impl FnOnce() -> c_long) -> c_long {
    if in_vfork_child() {
        return call();
    }
    before_fork();
    let pid = call();
    match pid {
        0 => after_fork_in_child(),
        _ => errno::kept(|| {
            ELSEWHERE.store(false, Relaxed);
            family::fork_parent();
            family::fork_parent_of(u32::try_from(pid).ok());
        }),
    }
    pid
}

/// `fork`: the handlers that [`start`] registered do most of the work.
///
/// # Safety
/// That of `fork`.
pub(crate) unsafe fn fork() -> pid_t {
    // SAFETY: the caller's contract, handed on.
    let pid = unsafe { real::fork() };
    if pid != 0 {
        errno::kept(|| family::fork_parent_of(u32::try_from(pid).ok()));
    }
    pid
}

/// `_Fork`: as `fork` without handlers, so accel's part is called here.
///
/// # Safety
/// That of `_Fork`.
#[allow(non_snake_case)]
pub(crate) unsafe fn _Fork() -> pid_t {
    // SAFETY: the caller's contract, handed on.
    fork_by(|| c_long::from(unsafe { real::_Fork() })) as pid_t
}

/// What a child of [`clone`] starts with.
struct Start {
    function: extern "C-unwind" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

extern "C-unwind" fn start_of_child(start: *mut c_void) -> c_int {
    // SAFETY: `clone` passed its own record, of which the child has a copy at the same address.
    let start = unsafe { &*start.cast::<Start>() };
    after_fork_in_child();
    (start.function)(start.argument)
}

/// `clone`, libc's: a child with memory of its own is a fork child that begins in a function.
///
/// # Safety
/// That of `clone`.
pub(crate) unsafe fn clone(
    function: clone_start_t,
    stack: *mut c_void,
    flags: c_int,
    argument: *mut c_void,
    parent_id: usize,
    tls: usize,
    child_id: usize,
) -> c_int {
    match function {
        Some(function) if flags & libc::CLONE_VM == 0 && !stack.is_null() => {
            before_clone(flags as usize);
            let mut start = Start { function, argument };
            let start = (&raw mut start).cast();
            // SAFETY: the caller's contract; the record outlives the call, and the child copies it.
            let call = || unsafe {
                real::clone(Some(start_of_child), stack, flags, start, parent_id, tls, child_id)
            };
            fork_by(|| c_long::from(call())) as c_int
        }
        _ => {
            if flags & libc::CLONE_VM != 0 && flags & libc::CLONE_THREAD == 0 {
                memory_is_shared(flags as usize);
            }
            // SAFETY: the caller's contract, handed on.
            unsafe { real::clone(function, stack, flags, argument, parent_id, tls, child_id) }
        }
    }
}

/// Runs one of the exec calls with the environment that the new program shall have.
///
/// # Safety
/// `given` is null or an array of strings that ends with null.
unsafe fn exec(given: *const *const c_char, call: impl FnOnce(*const *const c_char) -> c_int) -> c_int {
    family::exec_prepare();
    // SAFETY: the caller's array.
    let result = unsafe { environment::with_accel(given, call) };
    errno::kept(family::exec_failed);
    result
}

/// `execve`.
///
/// # Safety
/// That of `execve`.
pub(crate) unsafe fn execve(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe { exec(envp, |envp| real::execve(path, argv, envp)) }
}

/// `execv`.
///
/// # Safety
/// That of `execv`.
pub(crate) unsafe fn execv(path: *const c_char, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe { execve(path, argv, environment::current()) }
}

/// `execvpe`.
///
/// # Safety
/// That of `execvpe`.
pub(crate) unsafe fn execvpe(
    file: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe { exec(envp, |envp| real::execvpe(file, argv, envp)) }
}

/// `execvp`.
///
/// # Safety
/// That of `execvp`.
pub(crate) unsafe fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe { execvpe(file, argv, environment::current()) }
}

/// `execveat`.
///
/// # Safety
/// That of `execveat`.
pub(crate) unsafe fn execveat(
    directory: c_int,
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe { exec(envp, |envp| real::execveat(directory, path, argv, envp, flags)) }
}

/// `fexecve`.
///
/// # Safety
/// That of `fexecve`.
pub(crate) unsafe fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    if envp.is_null() {
        // libc refuses it, though execve takes it for an empty one.
        // SAFETY: the caller's contract, handed on.
        return unsafe { real::fexecve(fd, argv, envp) };
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { exec(envp, |envp| real::fexecve(fd, argv, envp)) }
}

/// `posix_spawn`.
///
/// # Safety
/// That of `posix_spawn`.
pub(crate) unsafe fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe {
        environment::with_accel(envp.cast(), |envp| {
            real::posix_spawn(pid, path, actions, attributes, argv, envp.cast())
        })
    }
}

/// `posix_spawnp`.
///
/// # Safety
/// That of `posix_spawnp`.
pub(crate) unsafe fn posix_spawnp(
    pid: *mut pid_t,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    // SAFETY: the caller's contract, handed on.
    unsafe {
        environment::with_accel(envp.cast(), |envp| {
            real::posix_spawnp(pid, file, actions, attributes, argv, envp.cast())
        })
    }
}

/// What an end without `exit` handlers owes the peers; nothing in a child that shares its parent's memory.
pub(crate) fn exiting() {
    if !in_other_process() {
        family::exiting();
    }
}

/// `_exit` and `_Exit`.
///
/// # Safety
/// That of `_exit`.
pub(crate) unsafe fn _exit(status: c_int) -> ! {
    exiting();
    // SAFETY: the caller's contract, handed on.
    unsafe { real::_exit(status) }
}

/// Before a seccomp filter takes effect: from then on accel makes no call that the program does not make.
pub(crate) fn forbidden_soon() {
    if !in_other_process() {
        family::go_inert(Reason::Forbidden);
        family::all_to_kernel(Reason::Forbidden);
        signals::never_defer();
        FORBIDDEN.store(true, Relaxed);
    }
}

/// `prctl`.
///
/// # Safety
/// That of `prctl`.
pub(crate) unsafe fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int {
    // With a null filter libseccomp only asks what the kernel can do.
    if option == libc::PR_SET_SECCOMP && (a != libc::SECCOMP_MODE_FILTER as usize || b != 0) {
        forbidden_soon();
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { real::prctl(option, a, b, c, d) }
}

/// After a call that may have moved the process to another network namespace.
pub(crate) fn namespace_changed(result: c_int) -> c_int {
    if result == 0 && !in_other_process() {
        errno::kept(family::namespace_changed);
    }
    result
}

/// `unshare`.
///
/// # Safety
/// That of `unshare`.
pub(crate) unsafe fn unshare(flags: c_int) -> c_int {
    // SAFETY: the caller's contract, handed on.
    let result = unsafe { real::unshare(flags) };
    if flags & libc::CLONE_NEWNET != 0 { namespace_changed(result) } else { result }
}

/// `setns`.
///
/// # Safety
/// That of `setns`.
pub(crate) unsafe fn setns(fd: c_int, kind: c_int) -> c_int {
    // SAFETY: the caller's contract, handed on.
    let result = unsafe { real::setns(fd, kind) };
    // Kind 0 takes whatever namespace the descriptor names.
    if kind == 0 || kind & libc::CLONE_NEWNET != 0 { namespace_changed(result) } else { result }
}

/// `posix_spawn_file_actions_adddup2`: the program that will be started gets the descriptor.
///
/// # Safety
/// That of the C function.
pub(crate) unsafe fn spawn_adddup2(
    actions: *mut posix_spawn_file_actions_t,
    fd: c_int,
    target: c_int,
) -> c_int {
    errno::kept(|| family::give_away(fd, Reason::GivenAway));
    // SAFETY: the caller's contract, handed on.
    unsafe { real::posix_spawn_file_actions_adddup2(actions, fd, target) }
}
