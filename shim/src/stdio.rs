//! Where stdio meets a socket: libc reads, writes and closes the descriptor of a `FILE` without calling us.
//!
//! A socket that enters stdio goes back to the kernel first, and the entry of a number that stdio is about to
//! close is dropped before it can be reused.

use crate::real::{self, types::*};
use crate::{errno, family, fdtable};
use rows::reasons::Reason;

/// Before libc writes to the descriptor behind our back.
pub(crate) fn written_by_libc(fd: c_int) {
    if fdtable::is_active(fd) {
        errno::kept(|| family::give_away(fd, Reason::GivenAway));
    }
}

/// `fdopen`.
///
/// # Safety
/// That of `fdopen`.
pub(crate) unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    written_by_libc(fd);
    // SAFETY: the caller's contract, handed on.
    unsafe { real::fdopen(fd, mode) }
}

/// `vdprintf`; `list` is a `va_list`, which travels as a pointer on x86-64 and aarch64.
///
/// # Safety
/// That of `vdprintf`.
pub(crate) unsafe fn vdprintf(fd: c_int, format: *const c_char, list: usize) -> c_int {
    written_by_libc(fd);
    // SAFETY: the caller's contract, handed on.
    unsafe { real::vdprintf(fd, format, list) }
}

/// Fortified `vdprintf`.
///
/// # Safety
/// That of `vdprintf`.
pub(crate) unsafe fn vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, list: usize) -> c_int {
    written_by_libc(fd);
    // SAFETY: the caller's contract, handed on.
    unsafe { real::__vdprintf_chk(fd, flag, format, list) }
}

/// The stream's descriptor will be closed by libc: writes out what it holds, then drops the number's entry.
///
/// # Safety
/// `stream` is null or a live stream.
unsafe fn leave(stream: *mut FILE) {
    if stream.is_null() {
        return;
    }
    errno::kept(|| {
        // SAFETY: a live stream; one without a descriptor gives -1.
        let fd = unsafe { libc::fileno(stream) };
        if fd >= 0 && fdtable::is_known(fd) {
            // SAFETY: as above.
            unsafe { libc::fflush(stream) };
            fdtable::forget_number(fd);
        }
    });
}

/// `fclose`.
///
/// # Safety
/// That of `fclose`.
pub(crate) unsafe fn fclose(stream: *mut FILE) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { leave(stream) };
    // SAFETY: the caller's contract, handed on.
    unsafe { real::fclose(stream) }
}

/// `freopen` and `freopen64`, which are one function in a 64-bit libc.
///
/// # Safety
/// That of `freopen`.
pub(crate) unsafe fn freopen(path: *const c_char, mode: *const c_char, stream: *mut FILE) -> *mut FILE {
    // SAFETY: the caller's contract.
    unsafe { leave(stream) };
    // SAFETY: the caller's contract, handed on.
    unsafe { real::freopen64(path, mode, stream) }
}
