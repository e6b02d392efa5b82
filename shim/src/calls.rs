//! The handlers of the interposed functions, by subject. Each has the C function's arguments and result.

mod descriptor;
mod receive;
mod send;
mod socket;
mod wait;

pub(crate) use descriptor::*;
pub(crate) use receive::*;
pub(crate) use send::*;
pub(crate) use socket::*;
pub(crate) use wait::*;

// Used by the generated exports, which unit tests do not have.
#[cfg_attr(test, allow(unused_imports))]
pub(crate) use crate::{
    fortify::*,
    process::*,
    rawcall::syscall,
    signals::{sigaction, siginterrupt, signal, sigset, sysv_signal},
    stdio::*,
};

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
