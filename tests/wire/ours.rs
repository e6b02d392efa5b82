//! Our stack on the wire, in real time: a host of the simulation, whose device's packets go to the kernel.
//!
//! Its calls block as a plain program's do: while one waits, the stack is polled when packets arrive and when its deadline comes.

use std::os::fd::AsFd;
use std::thread::JoinHandle;

use stack::device::Link;
use stack::error::Error;
use stack::events::{FAILED, HUNG_UP, WRITABLE};
use stack::region::Limits;
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stack::Stack;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

use super::line::Lines;
use super::namespace::joined;
use super::tun::Tun;
use super::{clock, sys, vnet};
use crate::sim::port::{Packet, Port, Setup};
use crate::sim::tcp::TcpHost;
use crate::sim::trace::{Trace, What};

/// How long a call may block.
const PATIENCE: Duration = Duration::from_secs(60);
/// Packets that are read before the stack is polled, as many as it takes at once.
const BURST: usize = 32;

/// The host.
pub struct Ours {
    /// Its region.
    pub host: TcpHost,
    /// Its device.
    pub port: Port,
    tun: Tun,
    /// The wire to the kernel.
    pub there: Lines,
    /// The wire from the kernel.
    pub back: Lines,
    /// Who has the wire in our place, if somebody has.
    elsewhere: Option<Tun>,
    deadline: Option<Instant>,
    packet: Packet,
    /// The last packets, printed when a test fails.
    trace: Trace,
}

/// Our number in a trace.
const OURS: usize = 2;

impl Drop for Ours {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace.lines().join("\n"));
        }
    }
}

/// What a connection of the host's brought.
#[derive(Debug, Default)]
pub struct Talked {
    /// What was read.
    pub got: Vec<u8>,
    /// Bytes that were taken from what was to be sent.
    pub sent: usize,
}

impl Ours {
    /// The host with this number, on the other end of an interface.
    #[must_use]
    pub fn new(number: u8, limits: &Limits, setup: Setup, tun: Tun, lines: [Lines; 2]) -> Self {
        let mut host = TcpHost::new(number, limits);
        // Enough ports for ten thousand connections that are closed.
        if let Some(lease) = host.parts().leases.first_mut() {
            (lease.first, lease.count) = (20_000, 40_000);
        }
        let [there, back] = lines;
        let port = Port::new(setup, 1);
        Self {
            host,
            port,
            tun,
            there,
            back,
            elsewhere: None,
            deadline: None,
            packet: Packet::default(),
            trace: Trace::default(),
        }
    }

    /// The address that it has of this version.
    #[must_use]
    pub fn address(&self, is_v6: bool) -> Ip {
        self.host.addresses[usize::from(is_v6)]
    }

    /// From now on the wire is another interface's, or ours again; whose it was before.
    pub fn give_wire(&mut self, to: Option<Tun>) -> Option<Tun> {
        std::mem::replace(&mut self.elsewhere, to)
    }

    /// Moves packets between the two interfaces of the kernel's.
    fn pass_on(&mut self, now: Instant) {
        let Some(elsewhere) = &mut self.elsewhere else { return };
        for _ in 0..BURST {
            let Some(packet) = elsewhere.read() else { break };
            self.trace.note(now.0, OURS, What::Sent, Link::Ip, packet);
            self.there.put(now, packet);
        }
        for _ in 0..BURST {
            let Some(packet) = self.tun.read() else { break };
            self.trace.note(now.0, OURS, What::Got, Link::Ip, packet);
            self.back.put(now, packet);
        }
        while let Some(packet) = self.there.take(now) {
            self.tun.write(packet);
        }
        while let Some(packet) = self.back.take(now) {
            elsewhere.write(packet);
        }
    }

    /// Does something with the stack; what it sends is on its way.
    pub fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Port>) -> R) -> R {
        let now = clock();
        self.port.now = now;
        let (result, polled) = self.host.with(now, &mut self.port, |stack| {
            // What has arrived is there for the caller; no more can come before the packets are carried.
            while stack.poll().more {}
            (act(stack), stack.poll())
        });
        self.deadline = polled.deadline;
        if self.carry(now) || polled.more {
            self.deadline = Some(now);
        }
        result
    }

    /// Moves packets from the device to the kernel, and from the kernel to the device; whether any came.
    fn carry(&mut self, now: Instant) -> bool {
        if self.elsewhere.is_some() {
            self.pass_on(now);
            return false;
        }
        let link = self.port.setup().link;
        while let Some(packet) = self.port.take_sent() {
            self.trace.note(now.0, OURS, What::Sent, link, &packet.bytes);
            if self.has_header() {
                vnet::put(&packet, link, &mut self.packet.bytes);
                self.there.put(now, &self.packet.bytes);
            } else {
                self.there.put(now, &packet.bytes);
            }
            self.port.spare.push(packet.bytes);
        }
        while let Some(packet) = self.there.take(now) {
            self.tun.write(packet);
        }
        for _ in 0..BURST {
            let Some(packet) = self.tun.read() else { break };
            self.back.put(now, packet);
        }
        let mut came = 0;
        while came < BURST {
            let has_header = self.has_header();
            let Some(bytes) = self.back.take(now) else { break };
            if !has_header {
                self.packet.bytes.clear();
                self.packet.bytes.extend_from_slice(bytes);
            } else if vnet::take(bytes, &mut self.packet).is_none() {
                continue;
            }
            self.trace.note(now.0, OURS, What::Got, link, &self.packet.bytes);
            self.port.deliver(&self.packet);
            came += 1;
        }
        came > 0
    }

    /// Whether packets have a header of virtio's: where the device cuts.
    fn has_header(&self) -> bool {
        self.port.setup().tso_bytes_max > 0
    }

    /// Packets that the kernel did not take.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.tun.refused
    }

    /// One turn of the loop, which waits for something to happen, but not beyond `until`.
    pub fn turn(&mut self, until: Instant) {
        let now = clock();
        let came = self.carry(now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.elsewhere.is_none() && (came || is_due(self.deadline) || is_due(self.port.next_completion()))
        {
            return self.with(|_| ());
        }
        let deadline = self.deadline.filter(|_| self.elsewhere.is_none());
        let next = [deadline, self.there.next(), self.back.next(), Some(until)];
        let next = next.into_iter().flatten().min().unwrap_or(until);
        if next > now {
            let elsewhere = self.elsewhere.as_ref().unwrap_or(&self.tun);
            // A signal is no reason to stop.
            let _ = sys::wait(&[self.tun.as_fd(), elsewhere.as_fd()], next - now);
        }
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, length: Duration) {
        let until = clock() + length;
        while clock() < until {
            self.turn(until);
        }
    }

    /// Asks again until the answer is another than that it would block.
    ///
    /// # Errors
    /// What is asked for returned.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait<R>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Stack<'_, '_, Port>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let until = clock() + PATIENCE;
        loop {
            match self.with(&mut ask) {
                Err(Error::WouldBlock) => {}
                done => return done,
            }
            assert!(clock() < until, "{what} takes too long");
            self.turn(until);
        }
    }

    /// What a thread of the kernel's side returns: the stack runs until it does.
    ///
    /// # Panics
    /// When it takes too long, or panics.
    pub fn join<R>(&mut self, thread: JoinHandle<R>) -> R {
        let until = clock() + PATIENCE;
        while !thread.is_finished() {
            let now = clock();
            assert!(now < until, "the kernel's program takes too long");
            self.turn(now + Duration::from_millis(1));
        }
        joined(thread)
    }

    /// A listening socket.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn listen(&mut self, port: u16, values: &Values) -> Handle {
        self.with(|stack| {
            let socket = stack.parts.tcp_socket(true, 0).expect("room");
            stack.parts.set_tcp_options(socket, values).expect("room");
            stack.parts.tcp_bind(socket, (&Ip::UNSPECIFIED, port)).expect("a free port");
            stack.listen(socket, 128).expect("room");
            socket
        })
    }

    /// The next connection of a listener.
    ///
    /// # Errors
    /// accept(2)'s.
    pub fn accept(&mut self, listener: Handle) -> Result<Handle, Error> {
        self.wait("accept", |stack| stack.accept(listener, 0))
    }

    /// A connection to the kernel's port.
    ///
    /// # Errors
    /// Why it did not come to be.
    ///
    /// # Panics
    /// When there is no room for it.
    pub fn connect(&mut self, remote: Ip, port: u16, values: &Values) -> Result<Handle, Error> {
        let source = self.address(!remote.is_v4());
        let socket = self.with(|stack| {
            let socket = stack.parts.tcp_socket(!remote.is_v4(), 0).expect("room");
            stack.parts.set_tcp_options(socket, values).expect("room");
            assert_eq!(stack.connect(socket, &source, (&remote, port)), Err(Error::InProgress));
            socket
        });
        let done = self.wait("connect", |stack| {
            let ready = stack.events(socket).ready;
            match ready & (WRITABLE | FAILED | HUNG_UP) {
                0 => Err(Error::WouldBlock),
                _ => Ok(stack.take_error(socket)?),
            }
        })?;
        match done {
            None => Ok(socket),
            Some(error) => {
                self.close(socket);
                Err(error)
            }
        }
    }

    /// Reads what is there, or waits for it; 0 is the end.
    ///
    /// # Errors
    /// recv(2)'s.
    pub fn read(&mut self, socket: Handle, to: &mut [u8]) -> Result<usize, Error> {
        self.wait("reading", |stack| stack.receive(socket, &mut [&mut *to]))
    }

    /// Reads so many bytes.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn read_exact(&mut self, socket: Handle, len: usize) -> Vec<u8> {
        let (mut got, mut done) = (vec![0; len], 0);
        while done < len {
            let read = self.read(socket, &mut got[done..]).expect("text");
            assert_ne!(read, 0, "it ends after {done} of {len}");
            done += read;
        }
        got
    }

    /// Sends what there is room for; how much.
    ///
    /// # Panics
    /// When the connection has failed.
    pub fn send(&mut self, socket: Handle, text: &[u8]) -> usize {
        let sent = self.with(|stack| stack.send(socket, &[text], false));
        blocks(sent).expect("a connection").unwrap_or(0)
    }

    /// Waits until one of these events is there.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait_for(&mut self, socket: Handle, events: u64) {
        let ready = self.wait("an event", |stack| match stack.events(socket).ready & events {
            0 => Err(Error::WouldBlock),
            ready => Ok(ready),
        });
        assert!(ready.is_ok());
    }

    /// Sends all of it, and reads all that comes, each as far as there is room; with `ends` until both directions have ended,
    /// else until all is sent.
    ///
    /// # Errors
    /// What either failed with.
    ///
    /// # Panics
    /// When nothing moves for too long.
    pub fn talk(&mut self, socket: Handle, text: &[u8], ends: bool) -> Result<Talked, Error> {
        let (mut talked, mut buffer) = (Talked::default(), vec![0; 1 << 17]);
        let (mut is_read, mut is_shut) = (!ends, !ends);
        let mut until = clock() + PATIENCE;
        loop {
            let moved = self.with(|stack| -> Result<bool, Error> {
                let mut moved = false;
                if talked.sent < text.len() {
                    let end = text.len().min(talked.sent + (1 << 17));
                    let sent = blocks(stack.send(socket, &[&text[talked.sent..end]], false))?;
                    talked.sent += sent.unwrap_or(0);
                    moved |= sent.is_some();
                }
                if talked.sent == text.len() && !is_shut {
                    stack.shutdown(socket, How::Write)?;
                    (is_shut, moved) = (true, true);
                }
                if !is_read && let Some(len) = blocks(stack.receive(socket, &mut [&mut buffer]))? {
                    talked.got.extend_from_slice(&buffer[..len]);
                    (is_read, moved) = (len == 0, true);
                }
                Ok(moved)
            })?;
            if talked.sent == text.len() && is_shut && is_read {
                return Ok(talked);
            }
            let now = clock();
            if moved {
                until = now + PATIENCE;
            } else {
                assert!(now < until, "{} of {} sent, {} read", talked.sent, text.len(), talked.got.len());
                self.turn(until);
            }
        }
    }

    /// Resets a connection.
    ///
    /// # Panics
    /// When it is none.
    pub fn abort(&mut self, socket: Handle) {
        self.with(|stack| {
            let values = Values { options: Switch::LINGER, ..Values::default() };
            stack.parts.set_tcp_options(socket, &values).expect("room");
            stack.close(socket).expect("a socket");
        });
    }

    /// Closes a socket.
    ///
    /// # Panics
    /// When it is none.
    pub fn close(&mut self, socket: Handle) {
        self.with(|stack| stack.close(socket)).expect("a socket");
    }
}

/// `None` for what would block.
fn blocks(result: Result<usize, Error>) -> Result<Option<usize>, Error> {
    match result {
        Err(Error::WouldBlock) => Ok(None),
        done => done.map(Some),
    }
}

/// What kind of device our end of an interface is.
#[must_use]
pub fn setup(number: u8, link: Link, mtu: u32, frames: u32) -> Setup {
    // A frame holds the largest packet, and its own headroom when it is sent from.
    let largest = mtu + 128;
    let frame_size = if largest <= 2048 { 2048 } else { u16::try_from(largest).unwrap_or(u16::MAX) };
    Setup { link, mtu, frames, frame_size, headroom: 0, ring: 1024, ..Setup::plain(number) }
}
