//! A connection goes to the kernel while processes hold it.
//!
//! | step | what |
//! |---|---|
//! | [`Stack::begin_handover`] | it is exported, and its queues are empty: its segments are dropped without an answer, its names are old |
//! | [`Stack::end_handover`] | the kernel has it: whoever waits for it is told ([`crate::events::Events::is_at_kernels`]) |
//! | [`Stack::cancel_handover`] | the kernel doesn't take it: it goes on here |
//! | [`Stack::leave_handed_over`] | a process that held it, too, has learned of it |
//! | [`Stack::forget_handed_over`] | the kernel's connection has ended |
//!
//! What is left meanwhile is a record in CLOSED that has a peer: segments which were on their way to us find it, and no connection
//! begins between the same ends as long as the kernel has one there. It stays at least until each of its holders has noticed, so that
//! none takes the readiness of the record's next user for its own.

use crate::device::Device;
use crate::error::Error;
use crate::events;
use crate::export::Snapshot;
use crate::ip::hop::Hop;
use crate::process::bit;
use crate::recover::Operation;
use crate::region::Parts;
use crate::region::slab::{Handle, find};
use crate::stack::Stack;
use crate::tcp::open::traffic::Want;
use crate::tcp::state::State;
use crate::tcp::tcb::{Flags, Tcb};

/// From the name of a connection to that of what is left of it: generations are odd.
const LATER: u32 = 2;

impl Tcb {
    /// It is what is left here of a connection that the kernel has.
    #[must_use]
    pub const fn is_handed_over(&self) -> bool {
        self.tag.is_used() && matches!(self.state(), State::Closed) && self.remote_port != 0
    }

    /// Whether segments find it by both of its ends.
    #[must_use]
    pub const fn is_in_table(&self) -> bool {
        self.has_peer() || self.is_handed_over()
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// Takes a connection out of this stack: what [`Stack::export`] gives, and the name of what is left. From here on nothing is sent for
    /// it, and nobody who holds it can do anything with it until the handover has an end.
    ///
    /// # Errors
    /// As [`Stack::export`]; nothing has changed then.
    pub fn begin_handover(
        &mut self,
        socket: Handle,
        unread: impl FnMut(&[u8]),
        text: impl FnMut(&[u8]),
    ) -> Result<(Snapshot, Handle), Error> {
        let snapshot = self.export(socket, unread, text)?;
        self.parts.intent.begin(Operation::Tcp, socket.index);
        let left = self.become_left_over(socket);
        self.parts.intent.end();
        left.map(|left| (snapshot, left))
    }

    fn become_left_over(&mut self, socket: Handle) -> Result<Handle, Error> {
        let mut spare = None;
        let mut connection = self.connection(socket, &mut spare, Hop::default())?;
        connection.drop_received();
        connection.end();
        connection.tcb.flags = Flags::default();
        connection.tcb.state = State::Closed as u8;
        self.parts.tcp_stop_waiting(socket)?;
        self.parts.tcp_rest(socket)?;
        self.parts.wheels.tcbs.disarm(self.parts.tcbs, socket.index);
        let left = self.parts.rename(socket, LATER)?;
        if let Some(word) = self.shared.tcp_events.get(socket.index as usize) {
            let _ = events::set(word, events::GONE, false);
        }
        Ok(left)
    }

    /// The kernel has the connection; `process`, which gave it, knows that.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn end_handover(&mut self, left: Handle, process: Handle) -> Result<(), Error> {
        self.parts.left_over(left)?;
        let seldom = self.parts.seldoms.get_mut(left.index as usize).ok_or(Error::Corrupt)?;
        seldom.holders &= !bit(process.index);
        if let Some(word) = self.shared.tcp_events.get(left.index as usize)
            && events::set(word, events::GONE | events::READABLE | events::WRITABLE, true)
        {
            self.shared.note_tcp(left.index);
        }
        Ok(())
    }

    /// The connection goes on here, under its old name, which is given back.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` if what was in its queues finds no room any more: it has ended with ECONNRESET then.
    pub fn cancel_handover(
        &mut self,
        left: Handle,
        it: &Snapshot,
        unread: &[&[u8]],
        text: &[&[u8]],
    ) -> Result<Handle, Error> {
        self.parts.left_over(left)?;
        let socket = self.parts.rename(left, LATER.wrapping_neg())?;
        // From here on its segments are answered again.
        let is_back = self.work(socket, Some(Want::Sending), |connection| {
            let is_back = connection.become_it(it, unread, text);
            if !is_back {
                connection.drop_received();
                connection.emit_reset();
                connection.fail(Error::ConnectionReset);
            }
            is_back
        });
        if is_back == Ok(true) { Ok(socket) } else { Err(Error::NoBuffers) }
    }

    /// A process that has held the connection under this name, and still does, knows from now on that the kernel has it. Whether it does.
    pub fn leave_handed_over(&mut self, was: Handle, process: Handle) -> bool {
        let left = Handle { generation: was.generation.wrapping_add(LATER), ..was };
        let is_gone = self.parts.left_over(left).is_ok();
        if let Some(seldom) = self.parts.seldoms.get_mut(left.index as usize).filter(|_| is_gone) {
            seldom.holders &= !bit(process.index);
        }
        is_gone
    }

    /// What is left of connections of which nobody here holds anything any more, and whose ends are not `in_use` in the kernel, goes:
    /// how many those were. At most `most` are asked about.
    pub fn forget_handed_over(&mut self, most: usize, mut in_use: impl FnMut(&Tcb) -> bool) -> usize {
        let fresh = self.parts.slabs.tcbs.fresh() as usize;
        let (mut asked, mut count) = (0, 0);
        for index in 0..fresh.min(self.parts.tcbs.len()) {
            let tcb = self.parts.tcbs[index];
            let is_held = self.parts.seldoms.get(index).is_none_or(|seldom| seldom.holders != 0);
            if !tcb.is_handed_over() || is_held || asked == most {
                continue;
            }
            asked += 1;
            if !in_use(&tcb) && self.parts.tcp_release(tcb.tag.handle(index as u32)).is_ok() {
                count += 1;
            }
        }
        count
    }
}

impl Parts<'_> {
    /// What is left of a connection, by its name.
    fn left_over(&mut self, left: Handle) -> Result<&mut Tcb, Error> {
        find(self.tcbs, left).filter(|tcb| tcb.is_handed_over()).ok_or(Error::BadHandle)
    }

    /// A record is known by another name from now on.
    fn rename(&mut self, socket: Handle, by: u32) -> Result<Handle, Error> {
        let tcb = self.tcb(socket)?;
        tcb.tag.generation = tcb.tag.generation.wrapping_add(by);
        Ok(tcb.tag.handle(socket.index))
    }
}
