//! Errors of ICMP and fragments that steering has left to the kernel: whoever has the rights reads them (`driver::passed`) and sends each
//! as a message; here they come to the stack, which believes an error only if it quotes what was sent (RFC 5927 §4).

use driver::passed::next;
use driver::sys::{self, Fd};
use stack::device::Device;
use stack::stack::Stack;

/// How many are taken at once: under one lock, after they were read without it.
const BATCH: usize = 32;
/// Bytes of the longest that a frame could hold.
const BYTES: usize = 4096;

/// What was read of it.
#[derive(Debug)]
pub struct Passed {
    packets: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Default for Passed {
    fn default() -> Self {
        Self { packets: Vec::new(), buffer: vec![0; BYTES] }
    }
}

impl Passed {
    /// Reads what is there of a socket whose messages are datagrams from IP's header on, without the stack's lock; true if there is
    /// something to [`Passed::apply`].
    ///
    /// # Errors
    /// What recv(2) says.
    pub fn read(&mut self, from: &Fd) -> sys::Result<bool> {
        while self.packets.len() < BATCH {
            match next(from, &mut self.buffer)? {
                // Nothing, or the end: the other end is gone.
                None | Some(0) => break,
                // One that may have been longer is none.
                Some(BYTES) => {}
                Some(len) => self.packets.push(self.buffer[..len].to_vec()),
            }
        }
        Ok(!self.packets.is_empty())
    }

    /// Gives them to the stack, under its lock.
    pub fn apply<D: Device>(&mut self, stack: &mut Stack<'_, '_, D>) {
        for packet in &self.packets {
            stack.inject(packet);
        }
    }

    /// They were applied: the memory is given back without the lock.
    pub fn applied(&mut self) {
        self.packets.clear();
    }
}
