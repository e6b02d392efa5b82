//! The next definition of every interposed function (libc's, or that of a library preloaded after accel).
//!
//! `real::NAME` is one load and one jump: each pointer starts at a stub that looks the symbol up at its
//! first call, so it works before accel's own constructor ran, and no call tests for null. A symbol that
//! libc lacks fails with `ENOSYS`. Nothing here is `extern "C"`: a cancelled thread unwinds through.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use libc::c_void;

/// The C types of the rows, in one place.
#[allow(non_camel_case_types)]
pub(crate) mod types {
    pub(crate) use libc::sigaction as sigaction_t;
    /// What a child of `clone` runs.
    pub(crate) type clone_start_t = Option<extern "C-unwind" fn(*mut c_void) -> c_int>;
    pub(crate) use libc::{
        FILE, c_char, c_int, c_long, c_uint, c_ulong, c_void, epoll_event, fd_set, iovec, mmsghdr, mode_t,
        msghdr, nfds_t, off_t, pid_t, pollfd, posix_spawn_file_actions_t, posix_spawnattr_t, sighandler_t,
        sigset_t, size_t, sockaddr, socklen_t, ssize_t, timespec, timeval,
    };
}

use types::*;

/// Names `!` as a type, which stable Rust allows only as a return type.
pub(crate) trait Returns {
    /// The type.
    type Value;
}

impl<T> Returns for fn() -> T {
    type Value = T;
}

/// `_exit` always exists; the row's stub must still have something to return.
impl crate::errno::Failure for <fn() -> ! as Returns>::Value {
    fn failure() -> Self {
        std::process::abort()
    }
}

/// The address of the next definition of `name`.
#[cold]
#[inline(never)]
fn look_up(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string; dlsym finds "next" from the address of its caller, which is in accel.
    crate::errno::kept(|| unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) })
}

/// The next definition of a function that no row's type can describe (a variadic one), kept in `cell`.
pub(crate) fn variadic(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cell.load(Relaxed);
    if !known.is_null() {
        return known;
    }
    let found = look_up(name);
    cell.store(found, Relaxed);
    found
}

macro_rules! next {
    ($($kind:ident fn $name:ident = $handler:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $doc:literal;)*) => {
        /// Where each call goes; every cell starts at the stub that fills it.
        #[allow(non_upper_case_globals)]
        mod cell {
            use super::*;
            $(pub(super) static $name: AtomicPtr<c_void> = AtomicPtr::new(stub::$name as *mut c_void);)*
        }

        mod stub {
            use super::*;
            $(
                #[cold]
                #[allow(clippy::missing_safety_doc)]
                pub(super) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("a function name holds no NUL"),
                    };
                    let found = look_up(NAME);
                    let target = if found.is_null() { missing::$name as *mut c_void } else { found };
                    cell::$name.store(target, Relaxed);
                    // SAFETY: the caller's contract, handed on; the cell is no longer this stub.
                    unsafe { super::$name($($arg),*) }
                }
            )*
        }

        mod missing {
            use super::*;
            $(
                #[allow(unused_variables, clippy::unused_unit)]
                pub(super) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
                    crate::errno::fail(libc::ENOSYS)
                }
            )*
        }

        $(
            #[doc = concat!("The next `", stringify!($name), "`.")]
            /// # Safety
            /// That of the C function.
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::unused_unit)]
            pub(crate) unsafe fn $name($($arg: $ty),*) -> $ret {
                let target = cell::$name.load(Relaxed);
                // SAFETY: a cell only ever holds functions of its row's type: a stub, `missing` or libc's.
                let target: unsafe extern "C-unwind" fn($($ty),*) -> $ret = unsafe { core::mem::transmute(target) };
                // SAFETY: the caller's contract, handed on unchanged.
                unsafe { target($($arg),*) }
            }
        )*

        /// Looks every function up now, so that no later call (in a signal handler, in a fork child) has to.
        pub(crate) fn resolve_all() {
            $(
                let name = concat!(stringify!($name), "\0");
                if cell::$name.load(Relaxed) == stub::$name as *mut c_void
                    && let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes())
                {
                    let found = look_up(name);
                    if !found.is_null() {
                        cell::$name.store(found, Relaxed);
                    }
                }
            )*
        }
    };
}

rows::interposed!(next);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_call_finds_the_function_and_later_ones_reach_it() {
        // SAFETY: close of a number that is not open only fails.
        unsafe {
            assert_eq!(close(-1), -1);
            assert_eq!(crate::errno::get(), libc::EBADF);
            assert_eq!(close(-1), -1);
        }
        resolve_all();
        assert_ne!(cell::read.load(Relaxed), stub::read as *mut c_void);
    }
}
