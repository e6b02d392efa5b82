//! Two hosts on a cable: servers on one, their clients on the other.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use harness::wire::namespace::Namespace;
use harness::wire::veth::{Cable, NAME};

use super::{Side, command_line, find, plain_command};

/// The servers' address.
pub(crate) const NEAR: &str = "10.0.0.1";

/// The hosts of one run.
pub(crate) struct Hosts([Namespace; 2]);

impl Hosts {
    /// `None` without the rights of root.
    pub(crate) fn lay() -> Option<Self> {
        Cable::default().lay().map(Self)
    }

    /// The clients'.
    pub(crate) fn far(&self) -> &Namespace {
        &self.0[1]
    }

    /// The command is run on this host. The child enters it by itself: a thread that had, and ended, would take the child with it
    /// (`PR_SET_PDEATHSIG`).
    pub(crate) fn enter(&self, side: Side, command: &mut Command) {
        let host = &self.0[if side == Side::Near { 0 } else { 1 }];
        let namespace = host.as_fd().as_raw_fd();
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe; the descriptor lives as long as the run.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(namespace, libc::CLONE_NEWNET) == 0 {
                    return Ok(());
                }
                Err(std::io::Error::last_os_error())
            });
        }
    }
}

/// A program under accel, which must be able to drive the cable.
pub(crate) fn accel(user: Option<&str>, program: &str) -> Command {
    let mut command = plain_command(&command_line().to_string_lossy());
    command.args(["--strict", "-o", &format!("interfaces={NAME}")]);
    if let Some(user) = user {
        command.args(["-u", user]);
    }
    let program = find(program).map_or_else(|| program.into(), std::path::PathBuf::into_os_string);
    command.arg("--").arg(program);
    command
}
