//! A server that sends each message back: blocking, spinning, or with epoll for many connections.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{Channel, Outcome, Params, again, called, pattern, report_port};
use crate::bench::sock::{self, Epoll};

/// `mode=block|spin|epoll|epollspin size=BYTES`.
pub(super) fn server(params: &Params) -> Outcome<()> {
    let size: usize = params.get("size")?;
    let mode: String = params.get("mode")?;
    sock::raise_open_files(params.get("files").unwrap_or(64))?;
    let (listener, port) = called("listen", sock::listen_tcp())?;
    report_port(port)?;
    match mode.as_str() {
        "block" => one_connection(&listener, size, false),
        "spin" => one_connection(&listener, size, true),
        "epoll" => Server::new(listener, size)?.run(-1),
        "epollspin" => Server::new(listener, size)?.run(0),
        _ => Err(format!("mode={mode} is unknown")),
    }
}

fn one_connection(listener: &OwnedFd, size: usize, spins: bool) -> Outcome<()> {
    let connection = called("accept", sock::accept(listener))?;
    called("TCP_NODELAY", sock::set_nodelay(&connection))?;
    if spins {
        called("O_NONBLOCK", sock::set_nonblocking(&connection))?;
    }
    serve(Channel::socket(&connection), size)
}

/// Echoes messages until the other end closes.
pub(super) fn serve(channel: Channel, size: usize) -> Outcome<()> {
    let mut message = vec![0; size];
    let mut number = 0;
    while channel.recv_full(&mut message)? {
        pattern::verify(&message, number)?;
        channel.send_all(&message)?;
        number += 1;
    }
    Ok(())
}

/// One connection of the epoll server.
struct Connection {
    fd: OwnedFd,
    message: Vec<u8>,
    filled: usize,
    number: u64,
}

/// Readiness by level, one `recv` and one `send` per request, as servers do.
struct Server {
    epoll: Epoll,
    listener: OwnedFd,
    connections: Vec<Option<Connection>>,
    open: usize,
    size: usize,
}

impl Server {
    const LISTENER: u64 = u64::MAX;

    fn new(listener: OwnedFd, size: usize) -> Outcome<Self> {
        let epoll = called("epoll_create1", Epoll::new())?;
        called("O_NONBLOCK", sock::set_nonblocking(&listener))?;
        called("epoll_ctl", epoll.add(&listener, Self::LISTENER))?;
        Ok(Self { epoll, listener, connections: Vec::new(), open: 0, size })
    }

    /// Serves until the last connection has closed.
    fn run(&mut self, timeout_ms: i32) -> Outcome<()> {
        loop {
            let count = match self.epoll.wait(timeout_ms) {
                Ok(count) => count,
                Err(error) if again(&error) => 0,
                Err(error) => return Err(format!("epoll_wait: {error}")),
            };
            for index in 0..count {
                match self.epoll.token(index) {
                    Self::LISTENER => self.accept()?,
                    token => self.serve(token as usize)?,
                }
            }
            if count > 0 && self.open == 0 && !self.connections.is_empty() {
                return Ok(());
            }
        }
    }

    fn accept(&mut self) -> Outcome<()> {
        loop {
            let fd = match sock::accept(&self.listener) {
                Ok(fd) => fd,
                Err(error) if again(&error) => return Ok(()),
                Err(error) => return Err(format!("accept: {error}")),
            };
            called("TCP_NODELAY", sock::set_nodelay(&fd))?;
            called("O_NONBLOCK", sock::set_nonblocking(&fd))?;
            called("epoll_ctl", self.epoll.add(&fd, self.connections.len() as u64))?;
            let message = vec![0; self.size];
            self.connections.push(Some(Connection { fd, message, filled: 0, number: 0 }));
            self.open += 1;
        }
    }

    fn serve(&mut self, token: usize) -> Outcome<()> {
        let Some(connection) = self.connections.get_mut(token).and_then(Option::as_mut) else {
            return Ok(());
        };
        if !connection.turn()? {
            self.connections[token] = None;
            self.open -= 1;
        }
        Ok(())
    }
}

impl Connection {
    /// One `recv`, and the answer if the message is whole; false at the end of the stream.
    fn turn(&mut self) -> Outcome<bool> {
        match sock::recv(self.fd.as_raw_fd(), &mut self.message[self.filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => self.filled += count,
            Err(error) if again(&error) => return Ok(true),
            Err(error) => return Err(format!("recv: {error}")),
        }
        if self.filled == self.message.len() {
            pattern::verify(&self.message, self.number)?;
            self.answer()?;
            self.filled = 0;
            self.number += 1;
        }
        Ok(true)
    }

    fn answer(&self) -> Outcome<()> {
        let mut rest = self.message.as_slice();
        while !rest.is_empty() {
            match sock::send(self.fd.as_raw_fd(), rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if again(&error) => {
                    called("poll", sock::wait_writable(self.fd.as_raw_fd()))?;
                }
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        Ok(())
    }
}
