//! Calls that block, as a plain program's do, over whatever carries our stack's packets.

use std::thread::JoinHandle;

use stack::device::Device;
use stack::error::Error;
use stack::events::{FAILED, HUNG_UP, WRITABLE};
use stack::region::slab::Handle;
use stack::settings::{Switch, Values};
use stack::stack::Stack;
use stack::tcp::calls::How;
use stack::time::{Duration, Instant};
use stack::wire::ip::Ip;

use super::clock;
use super::namespace::joined;

/// How long a call may block.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a connection of the host's brought.
#[derive(Debug, Default)]
pub struct Talked {
    /// What was read.
    pub got: Vec<u8>,
    /// Bytes that were taken from what was to be sent.
    pub sent: usize,
}

/// A host of ours, in real time.
pub trait Calls {
    /// What carries its packets.
    type Device: Device;

    /// Does something with the stack, which has been polled before; what it sends is on its way.
    fn with<R>(&mut self, act: impl FnOnce(&mut Stack<'_, '_, Self::Device>) -> R) -> R;

    /// One turn of the loop, which waits for something to happen, but not beyond `until`.
    fn turn(&mut self, until: Instant);

    /// The address that it has of this version.
    #[must_use]
    fn address(&self, is_v6: bool) -> Ip;

    /// Asks again until the answer is another than that it would block.
    ///
    /// # Errors
    /// What is asked for returned.
    ///
    /// # Panics
    /// When it takes too long.
    fn wait<R>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Stack<'_, '_, Self::Device>) -> Result<R, Error>,
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
    fn join<R>(&mut self, thread: JoinHandle<R>) -> R {
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
    fn listen(&mut self, port: u16, values: &Values) -> Handle {
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
    fn accept(&mut self, listener: Handle) -> Result<Handle, Error> {
        self.wait("accept", |stack| stack.accept(listener, 0))
    }

    /// A connection to the kernel's port.
    ///
    /// # Errors
    /// Why it did not come to be.
    ///
    /// # Panics
    /// When there is no room for it.
    fn connect(&mut self, remote: Ip, port: u16, values: &Values) -> Result<Handle, Error> {
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
    fn read(&mut self, socket: Handle, to: &mut [u8]) -> Result<usize, Error> {
        self.wait("reading", |stack| stack.receive(socket, &mut [&mut *to]))
    }

    /// Reads so many bytes.
    ///
    /// # Panics
    /// When there are not so many.
    fn read_exact(&mut self, socket: Handle, len: usize) -> Vec<u8> {
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
    fn send(&mut self, socket: Handle, text: &[u8]) -> usize {
        let sent = self.with(|stack| stack.send(socket, &[text], false));
        blocks(sent).expect("a connection").unwrap_or(0)
    }

    /// Waits until one of these events is there.
    ///
    /// # Panics
    /// When it takes too long.
    fn wait_for(&mut self, socket: Handle, events: u64) {
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
    fn talk(&mut self, socket: Handle, text: &[u8], ends: bool) -> Result<Talked, Error> {
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
    fn abort(&mut self, socket: Handle) {
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
    fn close(&mut self, socket: Handle) {
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
