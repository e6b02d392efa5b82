//! Where stdio meets a socket: libc reads, writes and closes the descriptor of a `FILE` without calling us.
//!
//! A socket that enters stdio goes back to the kernel first, and the entry of a number that stdio is about to
//! close is dropped before it can be reused. If bytes lie unread in its ring then, and the stream is for reading,
//! it becomes a stream that reads and writes by our own calls, which find those bytes.

use core::ffi::CStr;

use crate::calls;
use crate::guard::Guard;
use crate::real::{self, types::*};
use crate::slot::{self, Socket};
use crate::{close, errno, family, fdtable, net, rx};
use rows::reasons::Reason;

/// Before libc writes to the descriptor behind our back. What is unread in the ring stays readable here.
pub(crate) fn written_by_libc(fd: c_int) {
    let Some(socket) = slot::find(fd).filter(|_| fdtable::is_active(fd)) else { return };
    errno::kept(|| {
        let _guard = Guard::enter();
        family::check_owner(&socket);
        close::to_kernel_for_good(&socket, Reason::GivenAway);
        rx::share(&socket);
        crate::nagle::restore(&socket);
    });
}

/// `fdopen`.
///
/// # Safety
/// That of `fdopen`.
pub(crate) unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    if net::find(fd).is_some() {
        // libc would read and write the placeholder.
        // SAFETY: the caller's contract: a string.
        return unsafe { open_on_calls(fd, mode) };
    }
    if fdtable::is_active(fd) {
        written_by_libc(fd);
        errno::kept(|| crate::epoll::give_away(fd));
        let unread = slot::find(fd).filter(Socket::is_live).is_some_and(|socket| {
            let _guard = Guard::enter();
            rx::waiting_in_ring(&socket) > 0
        });
        // SAFETY: the caller's contract: a string.
        if unread && unsafe { is_for_reading(mode) } {
            // SAFETY: as above.
            return unsafe { open_on_calls(fd, mode) };
        }
    }
    // SAFETY: the caller's contract, handed on.
    unsafe { real::fdopen(fd, mode) }
}

/// Whether `mode` is one of the common modes and lets the stream read.
///
/// # Safety
/// `mode` is a string.
unsafe fn is_for_reading(mode: *const c_char) -> bool {
    // SAFETY: the caller's contract.
    let mode = unsafe { CStr::from_ptr(mode) }.to_bytes();
    matches!(mode, [b'r' | b'w' | b'a', rest @ ..] if rest.iter().all(|letter| b"+be".contains(letter)))
        && (mode[0] == b'r' || mode.contains(&b'+'))
}

/// The functions of a stream made by fopencookie(3).
#[repr(C)]
struct Functions {
    read: extern "C-unwind" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: extern "C-unwind" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: extern "C-unwind" fn(*mut c_void, *mut i64, c_int) -> c_int,
    close: extern "C-unwind" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut FILE;
}

const FUNCTIONS: Functions =
    Functions { read: stream_reads, write: stream_writes, seek: stream_seeks, close: stream_closes };

/// Where the descriptor is in glibc's `FILE` on 64-bit systems (bits/types/struct_FILE.h): behind the flags and
/// thirteen pointers.
const FILENO_OFFSET: usize = 14 * size_of::<usize>();

/// A stream on our own calls, which is otherwise like that of `fdopen`: `fileno` gives the descriptor.
///
/// # Safety
/// `mode` is a string.
unsafe fn open_on_calls(fd: c_int, mode: *const c_char) -> *mut FILE {
    // SAFETY: the caller's string; the functions live as long as the process.
    let stream = unsafe { fopencookie(fd as usize as *mut c_void, mode, FUNCTIONS) };
    if !stream.is_null() {
        // SAFETY: a live stream of glibc's, which nobody else has yet.
        unsafe { stream.byte_add(FILENO_OFFSET).cast::<c_int>().write(fd) };
    }
    stream
}

fn descriptor(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

extern "C-unwind" fn stream_reads(cookie: *mut c_void, buffer: *mut c_char, length: size_t) -> ssize_t {
    // SAFETY: stdio's own buffer.
    unsafe { calls::read(descriptor(cookie), buffer.cast(), length) }
}

extern "C-unwind" fn stream_writes(cookie: *mut c_void, buffer: *const c_char, length: size_t) -> ssize_t {
    // SAFETY: stdio's own buffer.
    let written = unsafe { calls::write(descriptor(cookie), buffer.cast(), length) };
    // fopencookie(3): a writer says 0 where it fails.
    written.max(0)
}

extern "C-unwind" fn stream_seeks(_: *mut c_void, _: *mut i64, _: c_int) -> c_int {
    errno::fail(libc::ESPIPE)
}

extern "C-unwind" fn stream_closes(cookie: *mut c_void) -> c_int {
    // SAFETY: the stream owned the descriptor.
    unsafe { calls::close(descriptor(cookie)) }
}

/// `vdprintf`; `list` is a `va_list`, which travels as a pointer on x86-64 and aarch64.
///
/// # Safety
/// That of `vdprintf`.
pub(crate) unsafe fn vdprintf(fd: c_int, format: *const c_char, list: usize) -> c_int {
    if net::find(fd).is_some() {
        // SAFETY: the caller's contract.
        return unsafe { print_to(fd, format, list) };
    }
    written_by_libc(fd);
    // SAFETY: the caller's contract, handed on.
    unsafe { real::vdprintf(fd, format, list) }
}

unsafe extern "C" {
    fn vasprintf(text: *mut *mut c_char, format: *const c_char, list: usize) -> c_int;
}

/// `vdprintf` by our own write: libc's would write to the placeholder.
///
/// # Safety
/// That of `vdprintf`.
unsafe fn print_to(fd: c_int, format: *const c_char, list: usize) -> c_int {
    let mut text = core::ptr::null_mut();
    // SAFETY: the caller's contract; the text is freed below.
    let length = unsafe { vasprintf(&raw mut text, format, list) };
    let mut done = 0;
    while done < length {
        // SAFETY: so many bytes are left of the text.
        let written = unsafe { calls::write(fd, text.add(done as usize).cast(), (length - done) as size_t) };
        if written <= 0 {
            break;
        }
        done += written as c_int;
    }
    if length >= 0 {
        // SAFETY: vasprintf allocated it.
        errno::kept(|| unsafe { libc::free(text.cast()) });
    }
    if done < length { -1 } else { length }
}

/// Fortified `vdprintf`.
///
/// # Safety
/// That of `vdprintf`.
pub(crate) unsafe fn vdprintf_chk(fd: c_int, flag: c_int, format: *const c_char, list: usize) -> c_int {
    if net::find(fd).is_some() {
        // SAFETY: the caller's contract.
        return unsafe { print_to(fd, format, list) };
    }
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
