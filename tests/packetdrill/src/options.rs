//! Options of sockets: setsockopt(2), getsockopt(2), fcntl(2), and what TCP_INFO tells.

use stack::settings::{Switch, Values};
use stack::tcp::congestion::Algorithm;
use stack::tcp::tcb::Tcb;
use stack::time::Duration;

use crate::errno::Errno;
use crate::host::Host;

/// Options that are kept and told again, and change nothing here: level and name.
const KEPT: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::IPPROTO_TCP, libc::TCP_THIN_LINEAR_TIMEOUTS),
];

/// SIOCOUTQNSD (linux/sockios.h).
const OUT_QUEUE_UNSENT: u64 = 0x894b;

/// An option that is one bit of [`Values::options`].
fn switch(level: i32, name: i32) -> Option<u32> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => Switch::REUSE_ADDRESS,
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => Switch::REUSE_PORT,
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => Switch::KEEP_ALIVE,
        (libc::SOL_SOCKET, libc::SO_OOBINLINE) => Switch::OOB_INLINE,
        (libc::IPPROTO_IP, libc::IP_RECVERR) => Switch::ERRORS,
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => Switch::ERRORS_V6,
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => Switch::V6_ONLY,
        _ => return None,
    })
}

fn number(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.first_chunk().ok_or(Errno(libc::EINVAL))?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// As a smaller number, or EINVAL.
fn fit<T: TryFrom<i32>>(number: i32) -> Result<T, Errno> {
    T::try_from(number).map_err(|_| Errno(libc::EINVAL))
}

/// Sets one of the numbers; false if there is no such option.
fn set(values: &mut Values, level: i32, name: i32, value: i32) -> Result<bool, Errno> {
    match (level, name) {
        // socket(7): the kernel doubles both, for its own overhead.
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
            values.send_buffer = fit::<u32>(value)?.saturating_mul(2).max(4608);
            values.options |= Switch::SEND_BUFFER_LOCKED;
        }
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
            values.receive_buffer = fit::<u32>(value)?.saturating_mul(2).max(2304);
            values.options |= Switch::RECEIVE_BUFFER_LOCKED;
        }
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => values.receive_low_water = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => values.keep_idle_s = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => values.keep_interval_s = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => values.keep_count = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => values.syn_count = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => values.user_timeout_ms = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => values.mss = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => values.linger2_s = value,
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => values.window_clamp = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => values.defer_accept = fit(value)?,
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => values.unsent_low_water = fit(value)?,
        (libc::IPPROTO_IP, libc::IP_TOS) => values.tos = fit(value)?,
        (libc::IPPROTO_IP, libc::IP_TTL) => values.ttl = fit(value)?,
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => values.traffic_class = fit(value)?,
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => {
            values.set_hop_limit(fit::<u8>(value)?.into());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// One of the numbers.
fn get(values: &Values, level: i32, name: i32) -> Option<i32> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => values.send_buffer as i32,
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => values.receive_buffer as i32,
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => values.receive_low_water.max(1) as i32,
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => values.keep_idle_s.into(),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => values.keep_interval_s.into(),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => values.keep_count.into(),
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => values.syn_count.into(),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => values.user_timeout_ms as i32,
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => values.linger2_s,
        (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP) => values.window_clamp as i32,
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => values.unsent_low_water as i32,
        (libc::IPPROTO_IP, libc::IP_TOS) => values.tos.into(),
        (libc::IPPROTO_IP, libc::IP_TTL) => values.ttl.into(),
        _ => return None,
    })
}

impl Host {
    fn change(&mut self, fd: i32, change: impl FnOnce(&mut Values)) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        self.with(|stack| {
            let mut values = stack.parts.tcp_options(socket)?;
            change(&mut values);
            stack.parts.set_tcp_options(socket, &values)
        })?;
        Ok(())
    }

    fn values(&mut self, fd: i32) -> Result<Values, Errno> {
        let socket = self.files.tcp(fd)?;
        Ok(self.with(|stack| stack.parts.tcp_options(socket))?)
    }

    /// SO_RCVTIMEO and SO_SNDTIMEO.
    pub(crate) fn timeouts(&mut self, fd: i32) -> (Option<Duration>, Option<Duration>) {
        let Ok(values) = self.values(fd) else { return (None, None) };
        let limit = |micros: u64| (micros > 0).then(|| Duration::from_micros(micros));
        (limit(values.receive_timeout_us), limit(values.send_timeout_us))
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// EBADF, EINVAL, ENOPROTOOPT, ENOENT for an algorithm that isn't here.
    pub fn set_option(&mut self, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let socket = self.files.tcp(fd)?;
        if let Some(bit) = switch(level, name) {
            let on = number(value)? != 0;
            self.change(fd, |values| values.options = values.options & !bit | if on { bit } else { 0 })?;
            if bit == Switch::KEEP_ALIVE {
                self.settle();
            }
            return Ok(());
        }
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (on, time) = (number(value)?, number(value.get(4..).unwrap_or_default())?);
                let on = if on != 0 { Switch::LINGER } else { 0 };
                self.change(fd, |values| {
                    values.options = values.options & !Switch::LINGER | on;
                    values.linger_s = time as u32;
                })
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO | libc::SO_SNDTIMEO) => {
                let wide = |at: usize| value.get(at..).and_then(|bytes| bytes.first_chunk()).copied();
                let (Some(seconds), Some(micros)) = (wide(0), wide(8)) else {
                    return Err(Errno(libc::EINVAL));
                };
                let time = i64::from_ne_bytes(seconds) * 1_000_000 + i64::from_ne_bytes(micros);
                self.change(fd, |values| match name {
                    libc::SO_RCVTIMEO => values.receive_timeout_us = time as u64,
                    _ => values.send_timeout_us = time as u64,
                })
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY | libc::TCP_CORK) => {
                let (on, info) = (number(value)? != 0, self.tcb(fd)?);
                let has = |flag| info.flags.has(flag);
                let no_delay =
                    if name == libc::TCP_NODELAY { on } else { has(stack::tcp::tcb::Flags::NO_DELAY) };
                let cork = if name == libc::TCP_CORK { on } else { has(stack::tcp::tcb::Flags::CORK) };
                self.with(|stack| stack.set_delay(socket, no_delay, cork))?;
                self.settle();
                Ok(())
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
                let algorithm = Algorithm::named(&value[..end]).ok_or(Errno(libc::ENOENT))?;
                self.change(fd, |values| values.congestion = algorithm as u8)?;
                self.with(|stack| {
                    if let Some(tcb) = stack.parts.tcbs.get_mut(socket.index as usize) {
                        tcb.congestion.set_algorithm(algorithm);
                    }
                });
                Ok(())
            }
            _ if KEPT.contains(&(level, name)) => {
                let kept = &mut self.files.of(fd)?.kept;
                kept.retain(|row| (row.0, row.1) != (level, name));
                kept.push((level, name, value.to_vec()));
                Ok(())
            }
            _ => {
                let (number, mut known) = (number(value)?, Ok(false));
                self.change(fd, |values| known = set(values, level, name, number))?;
                if !known? {
                    self.with(|stack| stack.set_option(socket, level, name, value))?;
                }
                Ok(())
            }
        }
    }

    /// getsockopt(2), as the bytes that it writes.
    ///
    /// # Errors
    /// EBADF, ENOPROTOOPT.
    pub fn option(&mut self, fd: i32, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let (socket, values) = (self.files.tcp(fd)?, self.values(fd)?);
        let int = |number: i32| Ok(number.to_ne_bytes().to_vec());
        if let Some(bit) = switch(level, name) {
            return int(i32::from(values.options & bit != 0));
        }
        let kept = self
            .files
            .of(fd)?
            .kept
            .iter()
            .find(|row| (row.0, row.1) == (level, name))
            .map(|row| row.2.clone());
        if let Some(value) = kept {
            return Ok(value);
        }
        let tcb = self.tcb(fd)?;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => {
                let error = self.with(|stack| stack.take_error(socket))?;
                int(error.map_or(0, |error| Errno::from(error).0))
            }
            (libc::SOL_SOCKET, libc::SO_TYPE) => int(libc::SOCK_STREAM),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let on = i32::from(values.options & Switch::LINGER != 0);
                Ok([on.to_ne_bytes(), values.linger_s.to_ne_bytes()].concat())
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => {
                int(tcb.flags.has(stack::tcp::tcb::Flags::NO_DELAY).into())
            }
            (libc::IPPROTO_TCP, libc::TCP_CORK) => int(tcb.flags.has(stack::tcp::tcb::Flags::CORK).into()),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => int(tcb.mss.into()),
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                Ok(Algorithm::decode(values.congestion).name().as_bytes().to_vec())
            }
            _ => int(get(&values, level, name).ok_or(Errno(libc::ENOPROTOOPT))?),
        }
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
