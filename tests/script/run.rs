//! Running a script: one event after the other, at its time.
//!
//! As packetdrill does it: a relative time counts from the moment at which the event before was over; an injected packet and a
//! call happen at their time, an expected packet has to leave at its time, within the tolerance. One call that waits
//! may go on beside the other events; the next call waits for its end.

use std::fmt;

use accel_packetdrill::calls::Pending;
use accel_packetdrill::host::{Host, LOCAL, LOCAL_6, REMOTE, REMOTE_6, Setup};
use stack::tcp::tcb::Tcb;
use stack::time::{Duration, Instant};
use stack::wire::tcp::Flags;

use super::flow::{Flow, Role};
use super::options::Choice;
use super::syntax::{Action, Body, Call, Ecn, Event, Icmp, Packet, Script, Segment, Time};
use super::wire::{self, Ends, Live};
use super::{code, parse, shell};

/// Microseconds by which a time may be missed: packetdrill's default.
const TOLERANCE: i64 = 4_000;
/// Microseconds that something without a time is waited for.
const PATIENCE: i64 = 3_600_000_000;
/// The port that a script's server has, and that its client connects to.
pub const PORT: u16 = 8080;
/// The port of the first peer that connects.
const PEER: u16 = 33_001;

/// How a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Over IPv6.
    pub is_v6: bool,
    /// A packet that is left when the script ends is a failure.
    pub ends_quiet: bool,
}

/// Why a script did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It is about something that isn't here.
    Unsupported(String),
    /// What was expected did not happen: line and text.
    Failed(usize, String),
}

impl fmt::Display for Stopped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(out, "not supported: {what}"),
            Self::Failed(line, what) => write!(out, "line {line}: {what}"),
        }
    }
}

/// What runs a script.
pub struct Run {
    /// The host that it runs on.
    pub host: Host,
    how: How,
    start: Instant,
    tolerance: i64,
    pub(super) flows: Vec<Flow>,
    /// The connection that packets without ports belong to.
    pub(super) current: usize,
    /// Descriptors of the script, and the host's.
    pub(super) fds: Vec<(i32, i32)>,
    waiting: Option<Waiting>,
    line: usize,
    peers: u16,
}

/// A call that goes on.
struct Waiting {
    pending: Pending,
    call: Call,
    /// When it has to end, if that was said.
    end: Option<i64>,
    line: usize,
}

/// Runs the text of a script.
///
/// # Errors
/// What is not supported, or did not happen.
pub fn run(text: &str, how: How) -> Result<(), Stopped> {
    let script = parse::script(text)
        .map_err(|wrong| Stopped::Unsupported(format!("line {}: {} is wanted", wrong.line, wrong.wanted)))?;
    Run::new(&script, how)?.script(&script)
}

/// The same, and a look at the host afterwards.
///
/// # Errors
/// What is not supported, or did not happen.
pub fn run_then<R>(text: &str, how: How, look: impl FnOnce(&Host) -> R) -> Result<R, Stopped> {
    let script = parse::script(text)
        .map_err(|wrong| Stopped::Unsupported(format!("line {}: {} is wanted", wrong.line, wrong.wanted)))?;
    let mut run = Run::new(&script, how)?;
    run.script(&script)?;
    Ok(look(&run.host))
}

impl Run {
    fn new(script: &Script, how: How) -> Result<Self, Stopped> {
        // The headers of IPv6 are longer by 20 bytes: scripts for both versions count on the same MSS.
        let mut setup = Setup { mtu: if how.is_v6 { 1520 } else { 1500 }, ..Setup::default() };
        let mut tolerance = TOLERANCE;
        for (name, value) in &script.options {
            let number = || {
                value.parse::<i64>().map_err(|_| Stopped::Unsupported(format!("the option {name}={value}")))
            };
            match name.as_str() {
                "tolerance_usecs" => tolerance = number()?,
                "mtu" => setup.mtu = number()? as u32,
                "ip_version" if (value == "ipv6") == how.is_v6 => {}
                "tcp_ts_tick_usecs" if value == "1000" => {}
                // What is injected is one packet, whatever its length.
                "mss" | "tcp_ts_ecr_scaled" | "send_omit_free" => {}
                _ => return Err(Stopped::Unsupported(format!("the option {name}={value}"))),
            }
        }
        for event in &script.events {
            let Action::Command(command) = &event.action else { continue };
            for (name, value) in shell::settings(command).map_err(Stopped::Unsupported)? {
                make_room(&name, &value, &mut setup);
            }
        }
        let host = Host::new(&setup);
        let start = host.now();
        Ok(Self {
            host,
            how,
            start,
            tolerance,
            flows: Vec::new(),
            current: 0,
            fds: Vec::new(),
            waiting: None,
            line: 0,
            peers: 0,
        })
    }

    fn script(&mut self, script: &Script) -> Result<(), Stopped> {
        for event in &script.events {
            self.line = event.line;
            self.event(event)?;
            self.host.check();
        }
        self.finish_call()?;
        match self.host.packet_out() {
            Some((at, bytes)) if self.how.ends_quiet => {
                let (at, packet) = (self.micros(at), self.show(&bytes));
                Err(self.failed(format!("nobody expected, at {}: > {packet}", seconds(at))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, what: impl Into<String>) -> Stopped {
        Stopped::Failed(self.line, what.into())
    }

    /// Microseconds since the beginning, rounded up: a relative time is never shorter than it is written.
    fn micros(&self, at: Instant) -> i64 {
        (at - self.start).0.div_ceil(1_000) as i64
    }

    pub(super) fn now(&self) -> i64 {
        self.micros(self.host.now())
    }

    fn instant(&self, micros: i64) -> Instant {
        self.start + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// The local and the remote address.
    pub(super) const fn addresses(&self) -> (stack::wire::ip::Ip, stack::wire::ip::Ip) {
        if self.how.is_v6 { (LOCAL_6, REMOTE_6) } else { (LOCAL, REMOTE) }
    }

    /// Whether it is run over IPv6.
    pub(super) const fn is_v6(&self) -> bool {
        self.how.is_v6
    }

    // ---- time ----

    /// The first and the last moment at which an event may happen.
    fn window(&self, time: Time) -> (i64, i64) {
        let now = self.now();
        match time {
            Time::Any => (now, now + PATIENCE),
            Time::Absolute(at) => (at, at),
            Time::Relative(at) => (now + at, now + at),
            Time::AbsoluteRange(from, to) => (from, to),
            Time::RelativeRange(from, to) => (now + from, now + to),
        }
    }

    fn in_time(&self, at: i64, (from, to): (i64, i64), what: &str) -> Result<(), Stopped> {
        if (from - self.tolerance..=to + self.tolerance).contains(&at) {
            return Ok(());
        }
        let wanted = if from == to { seconds(from) } else { format!("{}~{}", seconds(from), seconds(to)) };
        Err(self.failed(format!("{what} at {}, not at {wanted}", seconds(at))))
    }

    /// Lets time pass to the next thing that happens, but not beyond this moment; whether something happened before it.
    fn step(&mut self, until: i64) -> Result<bool, Stopped> {
        let mut until = self.instant(until);
        let mut is_call = false;
        if let Some(waiting) = &mut self.waiting
            && let Some(at) = waiting.pending.deadline(&mut self.host).filter(|at| *at < until)
        {
            (until, is_call) = (at, true);
        }
        let is_timer = self.host.step(until);
        self.try_call()?;
        Ok(is_timer || is_call)
    }

    fn wait_until(&mut self, at: i64) -> Result<(), Stopped> {
        while self.step(at)? {}
        Ok(())
    }

    // ---- events ----

    fn event(&mut self, event: &Event) -> Result<(), Stopped> {
        let window = self.window(event.time);
        match &event.action {
            Action::Expect(packet) => return self.expect(packet, window, event),
            Action::Call(_) => self.finish_call()?,
            _ => {}
        }
        let begun = self.now();
        if event.time != Time::Any {
            self.wait_until(window.0)?;
            self.in_time(self.now(), window, "it happens")?;
        }
        match &event.action {
            Action::Inject(packet) => self.inject(packet),
            Action::Call(call) => {
                let counts_from = if matches!(event.time, Time::Relative(_)) { begun } else { 0 };
                self.call(call, call.end.map(|end| end + counts_from))
            }
            Action::Code(text) => self.code(text),
            Action::Command(command) => {
                if let Some((state, port)) = shell::listed(command) {
                    let is_one = |tcb: &Tcb| tcb.state().as_linux() == state && tcb.local_port == port;
                    if !self.host.with(|stack| stack.parts.tcbs.iter().any(is_one)) {
                        return Err(self.failed(format!("no socket at port {port} is in state {state}")));
                    }
                }
                for (name, value) in shell::settings(command).map_err(Stopped::Unsupported)? {
                    // One that the host hasn't is known to be harmless.
                    if let Some(number) = shell::number(&value) {
                        self.host.with(|stack| stack.parts.host.set(&name, number));
                    }
                }
                Ok(())
            }
            Action::Expect(_) => Ok(()),
        }
    }

    fn code(&mut self, text: &str) -> Result<(), Stopped> {
        let fd = self.flows.get(self.current).and_then(|flow| flow.fd);
        let fd = fd.ok_or_else(|| self.failed("no socket to ask for TCP_INFO"))?;
        let info = self.info(fd)?;
        let names = |name: &str| info.iter().find(|row| row.0 == name).map(|row| row.1);
        code::check(text, &names).map_err(|what| self.failed(what))
    }

    // ---- calls that wait ----

    /// Begins a call.
    pub(super) fn begin(
        &mut self,
        mut pending: Pending,
        call: &Call,
        end: Option<i64>,
    ) -> Result<(), Stopped> {
        match pending.attempt(&mut self.host) {
            Some(done) => {
                let is_over = end.map_or(Ok(()), |end| self.in_time(self.now(), (end, end), "the call ends"));
                is_over.and_then(|()| self.answered(call, done))
            }
            None if end.is_none() => Err(self.failed("the call waits")),
            None => {
                let line = self.line;
                self.waiting = Some(Waiting { pending, call: call.clone(), end, line });
                Ok(())
            }
        }
    }

    fn try_call(&mut self) -> Result<(), Stopped> {
        let Some(mut waiting) = self.waiting.take() else { return Ok(()) };
        let Some(done) = waiting.pending.attempt(&mut self.host) else {
            self.waiting = Some(waiting);
            return Ok(());
        };
        let line = std::mem::replace(&mut self.line, waiting.line);
        if let Some(end) = waiting.end {
            self.in_time(self.now(), (end, end), "the call ends")?;
        }
        self.answered(&waiting.call, done)?;
        self.line = line;
        Ok(())
    }

    fn finish_call(&mut self) -> Result<(), Stopped> {
        let limit = self.now() + PATIENCE;
        while self.waiting.is_some() {
            if !self.step(limit)? && self.waiting.is_some() {
                return Err(self.failed("the call before has no end"));
            }
        }
        Ok(())
    }

    // ---- packets in ----

    fn ends(&self) -> Ends {
        let (local, remote) = self.addresses();
        let flow = &self.flows[self.current];
        Ends { source: (remote, flow.remote_port), destination: (local, flow.local_port) }
    }

    fn inject(&mut self, packet: &Packet) -> Result<(), Stopped> {
        if self.flows.get(self.current).is_none() {
            return Err(self.failed("a packet before any socket"));
        }
        let bytes = match &packet.body {
            Body::Tcp(segment) => {
                self.choose(segment);
                let live = self.flows[self.current].to_wire(segment);
                let ends = self.ends();
                vec![wire::inject(packet, &live, &ends)]
            }
            Body::Icmp(icmp) => vec![self.icmp(icmp)?],
        };
        if !self.host.packets_in(&bytes) {
            return Err(self.failed("the packet is longer than the device takes"));
        }
        self.try_call()
    }

    /// The connection that an injected segment is for. One to a socket that listens is of a new one.
    fn choose(&mut self, segment: &Segment) {
        if let Some((remote, local)) = segment.ports {
            let known =
                self.flows.iter().position(|flow| flow.remote_port == remote && flow.local_port == local);
            self.current = known.unwrap_or(self.flows.len());
            if known.is_none() {
                self.flows.push(Flow::new(Role::Talking, None, local, remote));
            }
        } else if self.flows[self.current].role == Role::Listening {
            let local = self.flows[self.current].local_port;
            let remote = PEER + self.peers;
            self.peers += 1;
            self.current = self.flows.len();
            self.flows.push(Flow::new(Role::Talking, None, local, remote));
        }
    }

    fn icmp(&mut self, icmp: &Icmp) -> Result<Vec<u8>, Stopped> {
        let flow = &self.flows[self.current];
        let (seq, len) = icmp.quoted.unwrap_or((0, 0));
        let quoted = Segment {
            ports: None,
            flags: Flags::ACK,
            seq: flow.seq_to_wire(seq),
            len,
            ack: 0,
            window: None,
            urgent: 0,
            options: Some(Vec::new()),
        };
        let bytes = wire::inject_icmp(icmp, &quoted, &self.ends().reversed());
        bytes.ok_or_else(|| Stopped::Unsupported(format!("icmp {} {}", icmp.kind, icmp.code)))
    }

    // ---- packets out ----

    fn expect(&mut self, packet: &Packet, window: (i64, i64), event: &Event) -> Result<(), Stopped> {
        let Body::Tcp(expected) = &packet.body else {
            return Err(Stopped::Unsupported("an expected packet that isn't TCP's".to_owned()));
        };
        let (at, mut live) = self.next(window.1 + self.tolerance, event)?;
        self.flow_of(&live, event)?;
        self.flows[self.current].learn(&live.segment, expected);
        // The kernel hands several segments to its device as one packet, and scripts are written so.
        while live.segment.len > 0 && live.segment.len < expected.len {
            let Some((_, more)) = self.following(&live, expected)? else { break };
            live.segment.len += more.segment.len;
            // A packet of several segments has PSH in Linux, whatever its text is (__tcp_transmit_skb).
            live.segment.flags |= more.segment.flags | Flags(expected.flags.0 & Flags::PSH.0);
        }
        let actual = self.flows[self.current].to_script(&live.segment);
        let wanted = Self::wanted(expected, &actual);
        let differs = differs(packet, &wanted, &live, &actual);
        if !differs.is_empty() {
            let wanted = Packet { body: Body::Tcp(wanted), ..packet.clone() };
            let tos = packet.tos.map(|_| live.tos);
            let ecn = packet.ecn.map(|_| Ecn::Exactly(live.tos & 3));
            let ttl = packet.ttl.map(|_| live.ttl);
            let actual = Packet { tos, ecn, ttl, body: Body::Tcp(actual) };
            let differs = differs.join(", ");
            return Err(self.failed(format!("{differs}\n    expected > {wanted}\n    actual   > {actual}")));
        }
        let what = format!("> {actual} leaves");
        if event.time == Time::Any { Ok(()) } else { self.in_time(self.micros(at), window, &what) }
    }

    /// What is expected, with what isn't compared taken from what is there.
    fn wanted(expected: &Segment, actual: &Segment) -> Segment {
        let mut wanted = expected.clone();
        wanted.window = wanted.window.or(actual.window);
        wanted.ports = None;
        wanted.options = wanted.options.or_else(|| actual.options.clone());
        let tsval = super::flow::tsval(actual);
        for option in wanted.options.iter_mut().flatten() {
            if let (Choice::Timestamps(to, _), Some(tsval)) = (option, tsval) {
                *to = tsval;
            }
        }
        wanted
    }

    fn next(&mut self, limit: i64, event: &Event) -> Result<(Instant, Live), Stopped> {
        loop {
            if let Some((at, bytes)) = self.host.packet_out() {
                return match wire::read(&bytes) {
                    Ok(live) => Ok((at, live)),
                    Err(what) => Err(self.failed(what)),
                };
            }
            if self.now() >= limit || !self.step(limit)? && self.now() >= limit {
                if let Some(sent) = self.host.packet_out() {
                    self.host.put_back(sent);
                    continue;
                }
                return Err(self.failed(format!(
                    "nothing was sent until {}; {}",
                    seconds(limit),
                    event.text
                )));
            }
        }
    }

    /// The next packet, if it goes on where this one ends.
    fn following(&mut self, live: &Live, expected: &Segment) -> Result<Option<(Instant, Live)>, Stopped> {
        let Some((at, bytes)) = self.host.packet_out() else { return Ok(None) };
        let next = wire::read(&bytes).map_err(|what| self.failed(what))?;
        let goes_on = next.ends == live.ends
            && next.segment.seq == live.segment.seq.wrapping_add(live.segment.len)
            && next.segment.ack == live.segment.ack
            && next.segment.len > 0
            && live.segment.len + next.segment.len <= expected.len;
        if !goes_on {
            self.host.put_back((at, bytes));
            return Ok(None);
        }
        Ok(Some((at, next)))
    }

    /// Makes the connection of a packet the current one.
    fn flow_of(&mut self, live: &Live, event: &Event) -> Result<(), Stopped> {
        let (local, remote) = (live.ends.source.1, live.ends.destination.1);
        if (live.ends.source.0, live.ends.destination.0) != self.addresses() {
            return Err(self.failed(format!("from {} to {}", live.ends.source.0, live.ends.destination.0)));
        }
        let flow = &mut self.flows[self.current];
        if flow.local_port == 0 {
            // The stack has chosen a port for a connection that it opens.
            (flow.local_port, flow.remote_port) = (local, remote);
        }
        let is = |flow: &Flow| flow.local_port == local && flow.remote_port == remote;
        if is(&self.flows[self.current]) {
            return Ok(());
        }
        match self.flows.iter().position(is) {
            Some(known) => {
                self.current = known;
                Ok(())
            }
            None => Err(self.failed(format!(
                "of no connection of the script: {local} > {remote} {}; {}",
                live.segment, event.text
            ))),
        }
    }

    fn show(&self, bytes: &[u8]) -> String {
        match wire::read(bytes) {
            Ok(live) => match self.flows.get(self.current) {
                Some(flow) => flow.to_script(&live.segment).to_string(),
                None => live.segment.to_string(),
            },
            Err(what) => what,
        }
    }
}

/// What a parameter of the kernel means for the host that is made: others are set when their time has come.
fn make_room(name: &str, value: &str, setup: &mut Setup) {
    let most = || value.split_whitespace().nth(2).and_then(|bytes| bytes.parse::<u32>().ok());
    if name == "tcp_rmem" && most().is_some_and(|bytes| bytes > 6 << 20) {
        // Receive buffers are counted in frames: larger ones make larger buffers.
        setup.frame_size = 4096;
    }
}

/// The names of the fields in which two packets differ.
fn differs(packet: &Packet, wanted: &Segment, live: &Live, actual: &Segment) -> Vec<&'static str> {
    let ecn = live.tos & 3;
    let rows = [
        ("flags", wanted.flags != actual.flags),
        ("sequence number", wanted.seq != actual.seq),
        ("length", wanted.len != actual.len),
        ("acknowledgment", wanted.ack != actual.ack),
        ("window", wanted.window != actual.window),
        ("urgent pointer", wanted.urgent != actual.urgent),
        ("options", wanted.options != actual.options),
        ("tos", packet.tos.is_some_and(|tos| tos != live.tos)),
        ("ttl", packet.ttl.is_some_and(|ttl| ttl != live.ttl)),
        (
            "ECN",
            match packet.ecn {
                Some(Ecn::Exactly(bits)) => bits != ecn,
                Some(Ecn::Capable) => ecn != 1 && ecn != 2,
                None => false,
            },
        ),
    ];
    rows.into_iter().filter(|row| row.1).map(|row| row.0).collect()
}

/// Microseconds as scripts write them.
#[must_use]
pub fn seconds(micros: i64) -> String {
    format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000)
}
