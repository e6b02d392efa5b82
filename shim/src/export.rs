//! The exported symbols, made from the table of interposed functions.
//!
//! An inactive descriptor costs a bounds test, a load, a branch and a jump to libc: what runs for an active
//! one is kept out of line, so that the short path saves no register. Not compiled into unit tests, where an
//! exported `write` would take over the test harness.

use crate::real::{self, types::*};

macro_rules! export {
    (by_fd $($row:tt)*) => { export! { @if is_active $($row)* } };
    (by_entry $($row:tt)*) => { export! { @if is_known $($row)* } };
    (@if $test:ident $name:ident $handler:ident ($fd:ident: $fd_ty:ty $(, $arg:ident: $ty:ty)*) $ret:ty, $doc:literal) => {
        #[doc = $doc]
        /// # Safety
        /// That of the C function.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C-unwind" fn $name($fd: $fd_ty $(, $arg: $ty)*) -> $ret {
            #[inline(never)]
            unsafe extern "C-unwind" fn active($fd: $fd_ty $(, $arg: $ty)*) -> $ret {
                // SAFETY: the caller's contract, handed on unchanged.
                unsafe { crate::calls::$handler($fd $(, $arg)*) }
            }
            if crate::fdtable::$test($fd) {
                // SAFETY: the caller's contract, handed on unchanged.
                unsafe { active($fd $(, $arg)*) }
            } else {
                // SAFETY: the caller's contract, handed on unchanged.
                unsafe { real::$name($fd $(, $arg)*) }
            }
        }
    };
    (always $name:ident $handler:ident ($($arg:ident: $ty:ty),*) $ret:ty, $doc:literal) => {
        #[doc = $doc]
        /// # Safety
        /// That of the C function.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments, clippy::unused_unit)]
        pub(crate) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller's contract, handed on unchanged.
            unsafe { crate::calls::$handler($($arg),*) }
        }
    };
    (gives_fd $name:ident $handler:ident ($($arg:ident: $ty:ty),*) $ret:ty, $doc:literal) => {
        #[doc = $doc]
        /// # Safety
        /// That of the C function.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C-unwind" fn $name($($arg: $ty),*) -> $ret {
            // SAFETY: the caller's contract, handed on unchanged.
            let fd = unsafe { real::$name($($arg),*) };
            // The kernel gave out a number that accel still follows: it was closed behind our back.
            if fd >= 0 && crate::fdtable::is_known(fd) {
                crate::fdtable::forget_number(fd);
            }
            fd
        }
    };
}

macro_rules! exports {
    ($($kind:ident fn $name:ident = $handler:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $doc:literal;)*) => {
        $(export! { $kind $name $handler ($($arg: $ty),*) $ret, $doc })*
    };
}

rows::interposed!(exports);
