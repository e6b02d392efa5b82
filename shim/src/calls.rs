//! The handlers of the interposed functions, by subject. Each has the C function's arguments and result.

mod descriptor;
mod receive;
mod send;
mod socket;
mod wait;

pub use descriptor::*;
pub use receive::*;
pub use send::*;
pub use socket::*;
pub use wait::*;

pub use crate::fortify::*;
pub use crate::process::*;
pub use crate::rawcall::syscall;
pub use crate::signals::{sigaction, siginterrupt, signal, sigset, sysv_signal};
pub use crate::stdio::*;

use crate::errno;
use crate::slot::Outcome;

/// The C result of an outcome; `Kernel` must have been dealt with.
fn result(outcome: Outcome) -> isize {
    match outcome {
        Outcome::Value(count) => count as isize,
        Outcome::Fail(error) => errno::fail(error.0),
        Outcome::Kernel => errno::fail(libc::EBADF),
    }
}
