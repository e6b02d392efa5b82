//! System calls of scripts: their arguments, and what they return.

use accel_packetdrill::calls::{Answer, Call as Operation, End, Pending};
use accel_packetdrill::control::Control;
use accel_packetdrill::errno::Errno;
use stack::wire::ip::Ip;

use super::flow::{Flow, Role};
use super::run::{PORT, Run, Stopped};
use super::syntax::{Call, Expr};

/// Pieces of memory that one of Linux's buffers has at most (MAX_SKB_FRAGS).
const PIECES_MAX: usize = 17;

/// Fields of a `struct sock_extended_err`: name, place and bytes.
const EXTENDED_ERROR: &[(&str, usize, usize)] = &[
    ("ee_errno", 0, 4),
    ("ee_origin", 4, 1),
    ("ee_type", 5, 1),
    ("ee_code", 6, 1),
    ("ee_info", 8, 4),
    ("ee_data", 12, 4),
];

/// Bytes of the longest value that an option has.
const OPTION_MAX: usize = 512;

impl Run {
    /// Makes a call; `end` is when it has to be over if it waits.
    pub(super) fn call(&mut self, call: &Call, end: Option<i64>) -> Result<(), Stopped> {
        if let Some(operation) = self.operation(call)? {
            let pending = Pending::new(operation, self.host.now());
            return self.begin(pending, call, end);
        }
        let done = self.at_once(call)?;
        self.host.settle();
        self.returned(call, done)
    }

    // ---- arguments ----

    fn number(&self, call: &Call, at: usize) -> Result<i64, Stopped> {
        match call.arguments.get(at) {
            Some(Expr::Number(number)) => Ok(*number),
            Some(Expr::List(list)) => match list.as_slice() {
                [Expr::Number(number)] => Ok(*number),
                _ => Err(self.argument(call, at)),
            },
            _ => Err(self.argument(call, at)),
        }
    }

    fn argument(&self, call: &Call, at: usize) -> Stopped {
        Stopped::Unsupported(format!("argument {} of {}: {:?}", at + 1, call.name, call.arguments.get(at)))
    }

    fn int(&self, call: &Call, at: usize) -> Result<i32, Stopped> {
        Ok(self.number(call, at)? as i32)
    }

    fn fd_of(&self, script: i32) -> i32 {
        self.fds.iter().rev().find(|row| row.0 == script).map_or(script, |row| row.1)
    }

    fn fd(&self, call: &Call, at: usize) -> Result<i32, Stopped> {
        Ok(self.fd_of(self.int(call, at)?))
    }

    /// A member of a record.
    fn of<'e>(record: &'e Expr, name: &str) -> Option<&'e Expr> {
        let Expr::Record(members) = record else { return None };
        members.iter().find(|member| member.0 == name).map(|member| &member.1)
    }

    /// The same, if it is a number.
    fn member(record: &Expr, name: &str) -> Option<i64> {
        match Self::of(record, name) {
            Some(Expr::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// Bytes of a buffer: `...` and a length, or a text.
    fn len(&self, call: &Call, at: usize) -> Result<usize, Stopped> {
        match self.number(call, at + 1) {
            Ok(len) => usize::try_from(len).map_err(|_| self.argument(call, at + 1)),
            Err(stopped) => Err(stopped),
        }
    }

    /// Bytes of all pieces of a message.
    fn message_len(&self, call: &Call, at: usize) -> Result<usize, Stopped> {
        let pieces = call.arguments.get(at).and_then(|message| Self::of(message, "msg_iov"));
        self.pieces_len(pieces).ok_or_else(|| self.argument(call, at))
    }

    fn message_pieces(&self, call: &Call, at: usize) -> usize {
        match call.arguments.get(at).and_then(|message| Self::of(message, "msg_iov")) {
            Some(Expr::List(pieces)) => pieces.len(),
            _ => 0,
        }
    }

    fn pieces_len(&self, pieces: Option<&Expr>) -> Option<usize> {
        let Some(Expr::List(pieces)) = pieces else { return None };
        let len = |piece: &Expr| match piece {
            Expr::Record(members) => match members.last() {
                Some((_, Expr::Number(len))) => usize::try_from(*len).ok(),
                _ => None,
            },
            _ => None,
        };
        pieces.iter().map(len).sum()
    }

    // ---- calls that may wait ----

    fn operation(&self, call: &Call) -> Result<Option<Operation>, Stopped> {
        let flags = |at: usize| self.int(call, at);
        let zeros = |len: usize| vec![0; len];
        Ok(Some(match call.name.as_str() {
            "connect" => Operation::Connect(self.fd(call, 0)?, self.connect_end(call)?),
            "accept" => Operation::Accept(self.fd(call, 0)?, false),
            "accept4" => Operation::Accept(self.fd(call, 0)?, flags(3)? & libc::SOCK_NONBLOCK != 0),
            "read" => Operation::Receive(self.fd(call, 0)?, self.len(call, 1)?, 0),
            "recv" | "recvfrom" => Operation::Receive(self.fd(call, 0)?, self.len(call, 1)?, flags(3)?),
            "readv" => {
                let len = self.pieces_len(call.arguments.get(1)).ok_or_else(|| self.argument(call, 1))?;
                Operation::Receive(self.fd(call, 0)?, len, 0)
            }
            "recvmsg" => Operation::Receive(self.fd(call, 0)?, self.message_len(call, 1)?, flags(2)?),
            "write" => Operation::Send(self.fd(call, 0)?, zeros(self.len(call, 1)?), 0),
            "sendto" if flags(3)? & libc::MSG_FASTOPEN != 0 => {
                let to = (self.addresses().1, PORT);
                Operation::SendFast(self.fd(call, 0)?, to, zeros(self.len(call, 1)?), flags(3)?)
            }
            "send" | "sendto" => Operation::Send(self.fd(call, 0)?, zeros(self.len(call, 1)?), flags(3)?),
            "writev" => {
                let len = self.pieces_len(call.arguments.get(1)).ok_or_else(|| self.argument(call, 1))?;
                Operation::Send(self.fd(call, 0)?, zeros(len), 0)
            }
            "sendmsg" if flags(2)? & libc::MSG_ZEROCOPY != 0 && self.message_pieces(call, 1) > PIECES_MAX => {
                return Err(Stopped::Unsupported(
                    "a segment's end where Linux's buffer has no piece left".to_owned(),
                ));
            }
            "sendmsg" => Operation::Send(self.fd(call, 0)?, zeros(self.message_len(call, 1)?), flags(2)?),
            "poll" => {
                let Some(Expr::List(list)) = call.arguments.first() else {
                    return Err(self.argument(call, 0));
                };
                let one = |record: &Expr| {
                    let fd = Self::member(record, "fd")? as i32;
                    Some((self.fd_of(fd), Self::member(record, "events")? as i16))
                };
                let fds: Option<Vec<_>> = list.iter().map(one).collect();
                Operation::Poll(fds.ok_or_else(|| self.argument(call, 0))?, self.int(call, 2)?)
            }
            "epoll_wait" => Operation::EpollWait(self.fd(call, 0)?, self.len(call, 1)?, self.int(call, 3)?),
            _ => return Ok(None),
        }))
    }

    /// Whom connect(2) names: `...` is the peer.
    fn connect_end(&self, call: &Call) -> Result<End, Stopped> {
        let Some(Expr::Record(members)) = call.arguments.get(1) else {
            return Ok((self.addresses().1, PORT));
        };
        let member = |name: &str| members.iter().find(|member| member.0 == name).map(|member| &member.1);
        match (member("sin_addr").or(member("sin6_addr")), member("sin_port").or(member("sin6_port"))) {
            (Some(Expr::Text(address)), Some(Expr::Number(port))) => {
                let ip: std::net::IpAddr = address.parse().map_err(|_| self.argument(call, 1))?;
                let ip = match ip {
                    std::net::IpAddr::V4(ip) => Ip::v4(ip.octets()),
                    std::net::IpAddr::V6(ip) => Ip(ip.octets()),
                };
                Ok((ip, *port as u16))
            }
            _ => Err(self.argument(call, 1)),
        }
    }

    // ---- calls that don't ----

    fn at_once(&mut self, call: &Call) -> Result<Result<i64, Errno>, Stopped> {
        let done = |result: Result<(), Errno>| result.map(|()| 0);
        Ok(match call.name.as_str() {
            "socket" => self.socket(call)?,
            "bind" => {
                let fd = self.fd(call, 0)?;
                let local = self.addresses().0;
                let result = self.host.bind(fd, (local, PORT));
                self.role(fd, |flow| flow.local_port = PORT);
                done(result)
            }
            "listen" => {
                let fd = self.fd(call, 0)?;
                let result = self.host.listen(fd, self.int(call, 1)?);
                self.role(fd, |flow| flow.role = Role::Listening);
                done(result)
            }
            "shutdown" => done(self.host.shutdown(self.fd(call, 0)?, self.int(call, 1)?)),
            "close" => {
                let fd = self.fd(call, 0)?;
                let result = self.host.close(fd);
                self.role(fd, |flow| flow.fd = None);
                self.fds.retain(|row| row.1 != fd);
                done(result)
            }
            "fcntl" => {
                let argument = if call.arguments.len() > 2 { self.int(call, 2)? } else { 0 };
                self.host.fcntl(self.fd(call, 0)?, self.int(call, 1)?, argument).map(i64::from)
            }
            "setsockopt" => done(self.set_option(call)?),
            "getsockopt" => done(self.option(call)?),
            "ioctl" => match self.host.ioctl(self.fd(call, 0)?, self.number(call, 1)? as u64) {
                Ok(actual) if i64::from(actual) != self.number(call, 2)? => {
                    return Err(self.failed(format!("{actual} is told")));
                }
                result => result.map(|_| 0),
            },
            "epoll_create" => self.host.epoll_create().map(i64::from),
            "epoll_ctl" => {
                let empty = Expr::Record(Vec::new());
                let event = call.arguments.get(3).unwrap_or(&empty);
                let events = Self::member(event, "events").unwrap_or(0) as u32;
                let names = ["fd", "ptr", "u32", "u64"];
                let data = names.iter().find_map(|name| Self::member(event, name)).unwrap_or(0) as u64;
                let (epoll, operation) = (self.fd(call, 0)?, self.int(call, 1)?);
                done(self.host.epoll_ctl(epoll, operation, self.fd(call, 2)?, events, data))
            }
            other => return Err(Stopped::Unsupported(format!("the call {other}"))),
        })
    }

    fn role(&mut self, fd: i32, change: impl FnOnce(&mut Flow)) {
        if let Some(flow) = self.flows.iter_mut().rev().find(|flow| flow.fd == Some(fd)) {
            change(flow);
        }
    }

    fn socket(&mut self, call: &Call) -> Result<Result<i64, Errno>, Stopped> {
        let default = if self.is_v6() { libc::AF_INET6 } else { libc::AF_INET };
        let family = match call.arguments.first() {
            Some(Expr::Any) => default,
            _ => self.int(call, 0)?,
        };
        let (kind, protocol) = (self.int(call, 1)?, self.int(call, 2)?);
        if kind & 0xf != libc::SOCK_STREAM {
            return Err(Stopped::Unsupported("a socket that isn't TCP's".to_owned()));
        }
        let result = self.host.socket(family, kind, protocol);
        if let Ok(fd) = result {
            self.current = self.flows.len();
            self.flows.push(Flow::new(Role::New, Some(fd), 0, 0));
        }
        Ok(result.map(i64::from))
    }

    /// The bytes of an option's value.
    fn value(&self, call: &Call, at: usize) -> Result<Vec<u8>, Stopped> {
        match call.arguments.get(at) {
            Some(Expr::Text(text)) => Ok(text.as_bytes().to_vec()),
            Some(Expr::Record(members)) => {
                let mut bytes = Vec::new();
                for (name, value) in members {
                    let Expr::Number(value) = value else { return Err(self.argument(call, at)) };
                    // A time has wide members, SO_LINGER's narrow ones.
                    match name.starts_with("tv_") {
                        true => bytes.extend(value.to_ne_bytes()),
                        false => bytes.extend((*value as i32).to_ne_bytes()),
                    }
                }
                Ok(bytes)
            }
            _ => Ok((self.number(call, at)? as i32).to_ne_bytes().to_vec()),
        }
    }

    fn set_option(&mut self, call: &Call) -> Result<Result<(), Errno>, Stopped> {
        let value = self.value(call, 3)?;
        let (fd, level, name) = (self.fd(call, 0)?, self.int(call, 1)?, self.int(call, 2)?);
        let done = self.host.set_option(fd, level, name, &value);
        match done {
            Err(Errno(libc::ENOPROTOOPT)) if call.result == Some(0) => {
                Err(Stopped::Unsupported(format!("option {name} of level {level}")))
            }
            done => Ok(done),
        }
    }

    fn option(&mut self, call: &Call) -> Result<Result<(), Errno>, Stopped> {
        let (fd, level, name) = (self.fd(call, 0)?, self.int(call, 1)?, self.int(call, 2)?);
        let wanted = match call.arguments.get(3) {
            Some(Expr::Any) => None,
            _ => Some(self.value(call, 3)?),
        };
        let room = wanted.as_ref().map_or(OPTION_MAX, Vec::len);
        let value = match self.host.option(fd, level, name, room) {
            Ok(value) => value,
            Err(Errno(libc::ENOPROTOOPT)) if call.result == Some(0) => {
                return Err(Stopped::Unsupported(format!("option {name} of level {level}")));
            }
            Err(error) => return Ok(Err(error)),
        };
        match wanted.filter(|wanted| *wanted != value) {
            Some(wanted) => Err(self.failed(format!("the option is {value:?}, not {wanted:?}"))),
            None => Ok(Ok(())),
        }
    }

    // ---- results ----

    /// A call that may have waited is over.
    pub(super) fn answered(&mut self, call: &Call, done: Result<Answer, Errno>) -> Result<(), Stopped> {
        if let Ok(answer) = &done {
            self.told(call, answer)?;
        }
        if matches!(call.name.as_str(), "connect" | "sendto")
            && done.is_ok() | (done == Err(Errno(libc::EINPROGRESS)))
        {
            let fd = self.fd(call, 0)?;
            let local = self.host.ends(fd).map_or(0, |ends| ends.0.1);
            self.role(fd, |flow| {
                if flow.role == Role::New {
                    (flow.role, flow.local_port, flow.remote_port) = (Role::Talking, local, PORT);
                }
            });
        }
        let number = done.as_ref().map(Answer::number).map_err(|error| *error);
        if let Ok(Answer::Accepted(fd, peer)) = &done {
            let known = self.flows.iter().position(|flow| flow.remote_port == peer.1 && flow.fd.is_none());
            if let Some(known) = known {
                self.flows[known].fd = Some(*fd);
            }
        }
        self.returned(call, number)
    }

    /// What a call has written to where its arguments point.
    fn told(&self, call: &Call, answer: &Answer) -> Result<(), Stopped> {
        let same = |what: &str, actual: i64, wanted: Option<i64>| match wanted {
            Some(wanted) if wanted != actual => {
                Err(self.failed(format!("{what} are 0x{actual:x}, not 0x{wanted:x}")))
            }
            _ => Ok(()),
        };
        match (answer, call.arguments.first(), call.arguments.get(1)) {
            (Answer::Polled(events), Some(Expr::List(list)), _) => {
                for (record, actual) in list.iter().zip(events) {
                    same("revents", i64::from(*actual), Self::member(record, "revents"))?;
                }
            }
            (Answer::Received(message), _, Some(wanted)) if call.name == "recvmsg" => {
                same("msg_flags", message.flags.into(), Self::member(wanted, "msg_flags"))?;
                if let Some(Expr::List(wanted)) = Self::of(wanted, "msg_control") {
                    same("control messages", message.control.len() as i64, Some(wanted.len() as i64))?;
                    for (wanted, actual) in wanted.iter().zip(&message.control) {
                        self.controls(wanted, actual)?;
                    }
                }
            }
            (Answer::Ready(events), _, Some(list)) => {
                let records = match list {
                    Expr::List(records) => records.as_slice(),
                    record => std::slice::from_ref(record),
                };
                for (record, (actual, _)) in records.iter().zip(events) {
                    same("events", i64::from(*actual), Self::member(record, "events"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares a control message.
    fn controls(&self, wanted: &Expr, actual: &Control) -> Result<(), Stopped> {
        let number = |at: usize, len: usize| {
            let bytes = actual.data.get(at..at + len).unwrap_or_default();
            bytes.iter().rev().fold(0, |number, byte| number << 8 | i64::from(*byte))
        };
        let mut rows = vec![
            ("cmsg_level", i64::from(actual.level), Self::member(wanted, "cmsg_level")),
            ("cmsg_type", i64::from(actual.kind), Self::member(wanted, "cmsg_type")),
        ];
        match Self::of(wanted, "cmsg_data") {
            Some(Expr::Number(wanted)) => rows.push(("cmsg_data", number(0, 4), Some(*wanted))),
            Some(error @ Expr::Record(_)) => {
                let fields = EXTENDED_ERROR.iter();
                rows.extend(
                    fields.map(|(name, at, len)| (*name, number(*at, *len), Self::member(error, name))),
                );
            }
            _ => return Err(Stopped::Unsupported(format!("the control message {wanted:?}"))),
        }
        match rows.iter().find(|(_, actual, wanted)| wanted.is_some_and(|wanted| wanted != *actual)) {
            Some((name, actual, _)) => Err(self.failed(format!("{name} is {actual}, in {wanted:?}"))),
            None => Ok(()),
        }
    }

    /// Compares what a call returned.
    fn returned(&mut self, call: &Call, done: Result<i64, Errno>) -> Result<(), Stopped> {
        let gives_fd = matches!(call.name.as_str(), "socket" | "accept" | "accept4" | "epoll_create");
        match (done, call.result) {
            (_, None) => Ok(()),
            (Ok(fd), Some(script)) if gives_fd && script >= 0 => {
                self.fds.push((script as i32, fd as i32));
                Ok(())
            }
            (Ok(number), Some(wanted)) if number == wanted => Ok(()),
            (Err(error), Some(-1)) if call.errno.as_deref().is_none_or(|name| name == error.name()) => Ok(()),
            (Ok(number), _) => Err(self.failed(format!("{} returned {number}", call.name))),
            (Err(error), _) => Err(self.failed(format!("{} failed with {}", call.name, error.name()))),
        }
    }

    /// TCP_INFO by the names that assertions have for it.
    pub(super) fn info(&mut self, fd: i32) -> Result<Vec<(String, i64)>, Stopped> {
        let tcb = self.host.tcb(fd).map_err(|error| self.failed(error.name()))?;
        let rows = [
            ("snd_cwnd", i64::from(tcb.congestion.cwnd())),
            ("snd_ssthresh", i64::from(tcb.congestion.ssthresh())),
            ("ca_state", tcb.episode.state() as i64),
            ("snd_mss", i64::from(tcb.mss)),
            ("total_retrans", i64::from(tcb.total_retrans)),
            ("retransmits", i64::from(tcb.retransmits)),
            ("probes", i64::from(tcb.probes)),
        ];
        Ok(rows.into_iter().map(|(name, value)| (format!("tcpi_{name}"), value)).collect())
    }
}
