//! The handlers of the interposed functions, by subject. Each has the C function's arguments and result.

mod descriptor;
mod receive;
mod send;
mod socket;
pub(crate) mod wait;

pub(crate) use descriptor::*;
pub(crate) use receive::*;
pub(crate) use send::*;
pub(crate) use socket::*;
pub(crate) use wait::*;

// Used by the generated exports, which unit tests do not have.
#[cfg_attr(test, allow(unused_imports))]
pub(crate) use crate::{
    fortify::*,
    jump::{__longjmp_chk, _longjmp, longjmp, siglongjmp},
    process::*,
    rawcall::syscall,
    signals::{sigaction, siginterrupt, signal, sigset, sysv_signal},
    stdio::*,
};

use core::sync::atomic::Ordering::Relaxed;

use crate::guard::Guard;
use crate::process::is_forbidden;
use crate::slot::{self, Outcome, Socket};
use crate::{errno, meet};

/// The C result of an outcome; `Kernel` must have been dealt with.
fn result(outcome: Outcome) -> isize {
    match outcome {
        Outcome::Value(count) => count as isize,
        Outcome::Fail(error) => errno::fail(error.0),
        Outcome::Kernel => errno::fail(libc::EBADF),
    }
}

/// Moves bytes: on a socket with rings by `rings`, otherwise by `call`, libc's own, around which the meeting goes
/// on. `forbidden` is asked instead of `rings` while a seccomp filter allows only the program's own calls.
fn by_path(
    fd: libc::c_int,
    receiving: bool,
    mut rings: impl FnMut(&Socket) -> Outcome,
    forbidden: impl FnOnce(&Socket) -> Option<isize>,
    call: impl Fn() -> isize,
) -> isize {
    loop {
        let Some(socket) = slot::find(fd) else { return call() };
        let guard = Guard::enter();
        if socket.slot.invited.load(Relaxed) != 0 {
            meet::attend(&socket);
        }
        if socket.is_live() && is_forbidden() {
            let left = forbidden(&socket);
            drop(guard);
            return left.unwrap_or_else(call);
        }
        if socket.is_live() {
            match rings(&socket) {
                Outcome::Kernel if socket.is_live() && socket.is_current() => {
                    drop(guard);
                    return call();
                }
                Outcome::Kernel => {}
                outcome => return result(outcome),
            }
        }
        let Some(socket) = slot::find(fd) else {
            drop(guard);
            return call();
        };
        let result = meet::around(&socket, receiving, &call);
        if result != meet::RETRY {
            return result;
        }
    }
}
