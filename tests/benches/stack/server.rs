//! Who answers: our stack, smoltcp, or the kernel, each behind the same five calls.

use stack::device::{Device, Link};
use stack::region::slab::Handle;

use super::card::Offload;
use super::far::{PORT, Packet, Seen};
use super::machine::{Machine, limits};

/// A host with a listener, and a program that answers each request with its own bytes.
pub(crate) trait Server {
    /// A packet arrives; nothing has looked at it yet. Not measured.
    fn deliver(&mut self, packet: &Packet);
    /// The stack looks at what arrived. Not measured.
    fn poll(&mut self);
    /// The program accepts a connection; its number, from 0 on.
    fn accept(&mut self) -> usize;
    /// What is measured: the segment is taken in, the program reads it and writes as much, a segment leaves. The bytes read.
    fn echo(&mut self, connection: usize) -> usize;
    /// A segment that left. Not measured.
    fn take(&mut self) -> Option<Seen>;
    /// Virtual time goes on.
    fn advance(&mut self, ns: u64);
}

/// Our stack.
pub(crate) struct Ours {
    pub(crate) machine: Machine,
    listener: Handle,
    pub(crate) sockets: Vec<Handle>,
    link: Link,
    trusts: bool,
    buffer: [u8; 2048],
}

impl Ours {
    /// Room for so many connections, of which so many have text at once.
    pub(crate) fn new(connections: u32, busy: u32, (link, offload): (Link, Offload)) -> Self {
        let mut machine = Machine::new(1, 2, &limits(connections, busy, 16_384), (link, offload));
        let listener = machine.listen(PORT, 4096);
        let sockets = Vec::with_capacity(connections as usize);
        Self { machine, listener, sockets, link, trusts: offload == Offload::All, buffer: [0; 2048] }
    }

    /// The program's part of an echo whose request is there.
    pub(crate) fn answer(&mut self, connection: usize) -> usize {
        let len = phase_read(&mut self.machine, self.sockets[connection], &mut self.buffer);
        phase_write(&mut self.machine, self.sockets[connection], &self.buffer[..len]);
        len
    }
}

impl Server for Ours {
    fn deliver(&mut self, packet: &Packet) {
        self.machine.card.deliver(if self.link == Link::Ip { packet.ip() } else { packet.bytes() });
    }

    fn poll(&mut self) {
        self.machine.poll();
    }

    fn accept(&mut self) -> usize {
        let socket = self.machine.stack().accept(self.listener, 0).expect("a connection");
        self.sockets.push(socket);
        self.sockets.len() - 1
    }

    fn echo(&mut self, connection: usize) -> usize {
        let socket = self.sockets[connection];
        measured(&mut self.machine, socket, &mut self.buffer)
    }

    fn take(&mut self) -> Option<Seen> {
        let (skip, trusts) = (if self.link == Link::Ip { 0 } else { 14 }, self.trusts);
        let seen = self.machine.card.take(|bytes, _, _| Seen::parse(&bytes[skip..], trusts))?;
        Some(seen.expect("a segment whose checksums hold"))
    }

    fn advance(&mut self, ns: u64) {
        self.machine.now.0 += ns;
    }
}

/// What callgrind counts: three calls of the stack, and the device's flush. Each is a function of its own, to be found in the profile.
#[inline(never)]
fn measured(machine: &mut Machine, socket: Handle, buffer: &mut [u8]) -> usize {
    phase_poll(machine);
    let len = phase_read(machine, socket, buffer);
    phase_write(machine, socket, &buffer[..len]);
    len
}

#[inline(never)]
fn phase_poll(machine: &mut Machine) {
    machine.poll();
}

#[inline(never)]
fn phase_read(machine: &mut Machine, socket: Handle, buffer: &mut [u8]) -> usize {
    machine.stack().receive(socket, &mut [buffer]).expect("text")
}

#[inline(never)]
fn phase_write(machine: &mut Machine, socket: Handle, text: &[u8]) {
    assert_eq!(machine.stack().send(socket, &[text], false), Ok(text.len()));
    machine.card.flush();
}
