//! What runs when the library is loaded, and when the program ends.
//!
//! Nothing depends on it having run: another library's constructor may call `socket` before ours does, and
//! then everything starts at that call.

use libc::{c_char, c_int, c_void};

use crate::{calls, config, environment, errno, family, jump, log, process, real};

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = at_load;

/// Each step with the reason why it stands where it stands.
extern "C" fn at_load(_argc: c_int, _argv: *const *const c_char, _envp: *const *const c_char) {
    // Early, so that nobody has to wait for the rate of the counter later: not each child of a forking server.
    driver::clock::begin();
    // The next definitions first: looking one up may allocate, and later that could be in a signal handler.
    real::resolve_all();
    // The environment as the launcher made it, before the program changes it.
    environment::remember();
    // The options: everything below asks them.
    let _ = config::config();
    // Forks are followed from the first on, whether sockets exist yet or not.
    process::start();
    // Before any handler can jump out of a call.
    jump::start();
    log::abort_on_panic();
    // Last: it may attach to the stack.
    errno::kept(calls::find_inherited);
    // SAFETY: the function lives as long as the process (the library is linked with nodelete).
    unsafe { __cxa_atexit(at_end, core::ptr::null_mut(), core::ptr::null_mut()) };
}

unsafe extern "C" {
    /// What `atexit` is made of; with a null library, no library's end runs the function early.
    fn __cxa_atexit(
        function: extern "C" fn(*mut c_void),
        argument: *mut c_void,
        library: *mut c_void,
    ) -> c_int;
}

/// The very last of the program's exit: handlers run in the reverse order of their registration, and libc registers
/// the one that runs the destructors of the program and of all libraries after this one. They may use sockets.
extern "C" fn at_end(_: *mut c_void) {
    family::exiting();
}
