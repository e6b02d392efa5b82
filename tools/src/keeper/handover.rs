//! Connections that the kernel gets from the stack. This half has the right to TCP_REPAIR; what it needs for that comes in a message,
//! and it looks at nothing else.

use driver::keeper::message::{Answer, Reason};
use driver::repair;
use driver::steering::{Connection, Protocol};
use driver::sys::{self, Errno, Fd};
use stack::export::Snapshot;

use super::claims::No;
use super::proof;
use super::server::Server;

impl Server {
    /// The socket becomes the connection; its packets come to the kernel from the moment at which it answers them.
    pub(super) fn hand_over(&mut self, it: &Snapshot, passed: Vec<Fd>) -> Result<Answer, No> {
        let [socket, bytes] = <[Fd; 2]>::try_from(passed).map_err(|_| (Reason::NoSocket, 0))?;
        proof::check_fresh(&socket, self.netns)?;
        is_memory(&bytes)?;
        let (local, port) = it.local;
        if !self.claims.addresses().contains(&local) || !self.claims.has(Protocol::Tcp, &local, port) {
            return Err((Reason::NotOurs, 0));
        }
        let connection = Connection { local: it.local, remote: it.remote, protocol: Protocol::Tcp };
        if self.mixed.contains(&connection) {
            return Err((Reason::Kernel, libc::EADDRINUSE as u32));
        }
        let done = repair::put(&socket, it, &bytes, || {
            self.opened.steering.leave_to_kernel(&connection, true)?;
            self.claims.set_mixed(&self.opened.steering, port, true);
            self.mixed.insert(connection);
            Ok(())
        });
        if let Err(Errno(errno)) = done {
            // Packets are the stack's again, if they were not.
            self.look_for_kernels(port);
            return Err((Reason::Kernel, errno as u32));
        }
        let known = proof::cookie(&socket);
        self.claims.let_go(port, |held| proof::cookie(held) == known);
        Ok(Answer::Done)
    }
}

/// Only of memory it is known that reading it doesn't wait for anybody (memfd_create(2)).
fn is_memory(file: &Fd) -> Result<(), No> {
    let seals = sys::fcntl(file.raw(), libc::F_GET_SEALS, 0);
    seals.map(drop).map_err(|Errno(errno)| (Reason::Kernel, errno as u32))
}
