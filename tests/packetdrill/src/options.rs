//! Options of sockets: setsockopt(2), getsockopt(2), fcntl(2), ioctl(2).

use stack::tcp::tcb::Tcb;
use stack::time::Duration;

use crate::errno::Errno;
use crate::host::Host;

/// Options that the stack leaves to its caller, which are kept and told again, and change nothing here: level and name.
const KEPT: &[(i32, i32)] =
    &[(libc::SOL_SOCKET, libc::SO_BUSY_POLL), (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS)];

/// SIOCOUTQNSD (linux/sockios.h).
const OUT_QUEUE_UNSENT: u64 = 0x894b;

impl Host {
    /// SO_RCVTIMEO and SO_SNDTIMEO.
    pub(crate) fn timeouts(&mut self, fd: i32) -> (Option<Duration>, Option<Duration>) {
        let values = self.files.tcp(fd).map(|socket| self.with(|stack| stack.parts.tcp_options(socket)));
        let Ok(Ok(values)) = values else { return (None, None) };
        let limit = |micros: u64| (micros > 0).then(|| Duration::from_micros(micros));
        (limit(values.receive_timeout_us), limit(values.send_timeout_us))
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// EBADF, and those of the stack.
    pub fn set_option(&mut self, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        if KEPT.contains(&(level, name)) {
            let kept = &mut self.files.of(fd)?.kept;
            kept.retain(|row| (row.0, row.1) != (level, name));
            kept.push((level, name, value.to_vec()));
            return Ok(());
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ZEROCOPY) {
            let value = value.first_chunk().map_or(-1, |value| i32::from_ne_bytes(*value));
            self.files.of(fd)?.zerocopy.is_on = match value {
                0 | 1 => value == 1,
                _ => return Err(Errno(libc::EINVAL)),
            };
            return Ok(());
        }
        self.with(|stack| stack.set_option(socket, level, name, value))?;
        self.settle();
        Ok(())
    }

    /// getsockopt(2) into so many bytes, as the bytes that it writes.
    ///
    /// # Errors
    /// EBADF, and those of the stack.
    pub fn option(&mut self, fd: i32, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno> {
        let socket = self.files.tcp(fd)?;
        let file = self.files.of(fd)?;
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ZEROCOPY) {
            return Ok(i32::from(file.zerocopy.is_on).to_ne_bytes().to_vec());
        }
        let kept = &file.kept;
        if let Some(row) = kept.iter().find(|row| (row.0, row.1) == (level, name)) {
            return Ok(row.2.clone());
        }
        let mut bytes = vec![0; room];
        let len = self.with(|stack| stack.option(socket, level, name, &mut bytes))?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// fcntl(2) with F_GETFL and F_SETFL.
    ///
    /// # Errors
    /// EBADF, EINVAL.
    pub fn fcntl(&mut self, fd: i32, command: i32, argument: i32) -> Result<i32, Errno> {
        let file = self.files.of(fd)?;
        match command {
            libc::F_GETFL => Ok(libc::O_RDWR | if file.is_nonblocking { libc::O_NONBLOCK } else { 0 }),
            libc::F_SETFL => {
                file.is_nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// ioctl(2) with FIONREAD, TIOCOUTQ and SIOCOUTQNSD, which tell a number: bytes that wait to be read, to be acknowledged,
    /// to be sent.
    ///
    /// # Errors
    /// EBADF, ENOTTY.
    pub fn ioctl(&mut self, fd: i32, request: u64) -> Result<i32, Errno> {
        let tcb = self.tcb(fd)?;
        let traffic = |stack: &mut stack::stack::Stack<'_, '_, crate::link::Link>| {
            let at = tcb.traffic.checked_sub(1)?;
            let traffic = stack.parts.traffics.get(at as usize)?;
            Some((traffic.receive.bytes(), traffic.send.bytes()))
        };
        let (unread, unacknowledged) = self.with(traffic).unwrap_or_default();
        let in_flight = tcb.snd.nxt - tcb.snd.una;
        match request {
            libc::FIONREAD => Ok(unread as i32),
            libc::TIOCOUTQ => Ok(unacknowledged as i32),
            OUT_QUEUE_UNSENT => Ok(unacknowledged.saturating_sub(in_flight) as i32),
            _ => Err(Errno(libc::ENOTTY)),
        }
    }

    /// A copy of a socket's block.
    ///
    /// # Errors
    /// EBADF.
    pub fn tcb(&mut self, fd: i32) -> Result<Tcb, Errno> {
        let socket = self.files.tcp(fd)?;
        self.with(|stack| stack.parts.tcbs.get(socket.index as usize).copied()).ok_or(Errno(libc::EBADF))
    }
}
