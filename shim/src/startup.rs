//! What runs when the library is loaded, and when the program ends.
//!
//! Nothing depends on it having run: another library's constructor may call `socket` before ours does, and
//! then everything starts at that call.

use libc::{c_char, c_int};

use crate::{config, environment, family, jump, log, process, real};

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = at_load;

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

/// Each step with the reason why it stands where it stands.
extern "C" fn at_load(_argc: c_int, _argv: *const *const c_char, _envp: *const *const c_char) {
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
}

extern "C" fn at_end() {
    family::exiting();
}
