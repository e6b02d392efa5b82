//! What of a socket's life needs no segment: it is made, bound, listens, has a peer, and is given back (the
//! bookkeeping of RFC 9293 §3.9.1's OPEN, and of socket(2), bind(2), listen(2), connect(2)).
//!
//! Each call changes everything or nothing. Results are Linux's.

use super::state::State;
use super::tcb::{Flags, Mark, Seldom, Snd, Standing, Tcb};
use super::timers::Timer;
use super::timers::limits;
use super::timestamps::Recent;
use crate::demux::End;
use crate::error::Error;
use crate::host::Host;
use crate::ports::{Class, Protocol, Wish};
use crate::recover::{Operation, fence};
use crate::region::Parts;
use crate::region::slab::{Handle, find};
use crate::seq::Seq;
use crate::settings::{Switch, Values};
use crate::time::{Duration, Instant};
use crate::wire::ip::Ip;

mod queues;
#[cfg(test)]
pub(crate) mod tests;
pub mod traffic;

/// Sequence numbers between the last of a connection in TIME-WAIT and the first of one that takes its place: more than a window
/// without scale (tcp_twsk_unique).
const BEYOND_OLD: u32 = 65_535 + 2;

impl Tcb {
    /// Whether one in TIME-WAIT makes room for a connect(2) between the same ends, from a port that the program has chosen or
    /// not. Only timestamps tell the segments of one from those of the other (RFC 6191; tcp_twsk_unique).
    fn gives_way_to_connect(&self, is_chosen: bool, host: &Host, now: Instant) -> bool {
        let (Some(ends), true) = (self.timers.at(Timer::TimeWait), self.flags.has(Flags::TIMESTAMPS)) else {
            return false;
        };
        let waited = limits::TIME_WAIT.0.saturating_sub((ends - now).0);
        let is_old = waited > Duration::from_millis(host.tcp_tw_reuse_delay.into()).0;
        // Nothing goes over loopback here.
        self.state() == State::TimeWait && (is_chosen || host.tcp_tw_reuse == 1 && is_old)
    }
}

impl Parts<'_> {
    /// The block of a socket, in whatever state.
    ///
    /// # Errors
    /// `BadHandle` if the handle is old.
    pub fn tcb(&mut self, socket: Handle) -> Result<&mut Tcb, Error> {
        find(self.tcbs, socket).ok_or(Error::BadHandle)
    }

    fn seldom(&mut self, index: u32) -> Result<&mut Seldom, Error> {
        self.seldoms.get_mut(index as usize).ok_or(Error::Corrupt)
    }

    /// What its options have set.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn tcp_options(&mut self, socket: Handle) -> Result<Values, Error> {
        let number = self.tcb(socket)?.settings;
        Ok(self.options().of(number))
    }

    /// A new socket in CLOSED, held by the process in slot `holder`.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of sockets.
    pub fn tcp_socket(&mut self, is_v6: bool, holder: u32) -> Result<Handle, Error> {
        let socket = self.slabs.tcbs.take(self.tcbs).ok_or(Error::NoBuffers)?;
        let tcb = self.tcb(socket)?;
        let (local, remote) = match is_v6 {
            true => (Ip::UNSPECIFIED, Ip::UNSPECIFIED),
            false => (Ip::UNSPECIFIED_V4, Ip::UNSPECIFIED_V4),
        };
        let marks = if is_v6 { Mark::V6 } else { 0 };
        *tcb = Tcb { tag: tcb.tag, local, remote, marks, ..Tcb::default() };
        let holders = 1u64.checked_shl(holder).unwrap_or(0);
        *self.seldom(socket.index)? = Seldom { holders, ..Seldom::default() };
        Ok(socket)
    }

    /// Sets its options.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` when too many sockets have set different ones.
    pub fn set_tcp_options(&mut self, socket: Handle, values: &Values) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        let number = self.options().intern(values).ok_or(Error::NoBuffers)?;
        self.tcb(socket)?.settings = number;
        // A recovery counts anew who has which: the socket's word comes first.
        fence();
        self.options().release(tcb.settings);
        let from = Class(tcb.bound_as);
        let kept = from.0 & (Class::LISTEN | Class::EXPLICIT);
        let to = Class(Class::of(values.options).0 | kept);
        if let Some(bound) = self.seldom(socket.index)?.bound.checked_sub(1)
            && from != to
        {
            self.ports().change(bound, from, to, false)?;
            self.tcb(socket)?.bound_as = to.0;
        }
        Ok(())
    }

    /// bind(2). Port 0 is any, and none yet with IP_BIND_ADDRESS_NO_PORT.
    ///
    /// # Errors
    /// `Invalid` if it has a port or a connection; `AddressFamily` if a socket of IPv4 should get an address of IPv6;
    /// `AddressNotAvailable` if it isn't ours; `AddressInUse`; `NoBuffers` at the limit of records.
    pub fn tcp_bind(&mut self, socket: Handle, local: End<'_>) -> Result<(), Error> {
        self.under(Operation::Tcp, socket, |parts| parts.bind(socket, local))
    }

    fn bind(&mut self, socket: Handle, (address, port): End<'_>) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        if tcb.state() != State::Closed || tcb.local_port != 0 {
            return Err(Error::Invalid);
        }
        let options = self.tcp_options(socket)?.options;
        self.may_bind(address, tcb.is(Mark::V6), options)?;
        if address.is_multicast() || address.is_broadcast() {
            return Err(Error::AddressNotAvailable);
        }
        if port != 0 || options & Switch::NO_PORT == 0 {
            self.take_port(socket, (address, port))?;
        }
        let tcb = self.tcb(socket)?;
        tcb.local = *address;
        tcb.marks |= if address.is_unspecified() { 0 } else { Mark::ADDRESS_BOUND };
        Ok(())
    }

    /// Whether a socket of this version may have this address.
    pub(crate) fn may_bind(&self, address: &Ip, is_v6: bool, options: u32) -> Result<(), Error> {
        if !address.is_v4() && !is_v6 {
            return Err(Error::AddressFamily);
        }
        if address.is_v4() && is_v6 && options & Switch::V6_ONLY != 0 {
            return Err(Error::Invalid);
        }
        let is_group = address.is_multicast() || address.is_broadcast();
        if address.is_unspecified() || is_group || self.is_ours(address) || options & Switch::FREE_BIND != 0 {
            return Ok(());
        }
        Err(Error::AddressNotAvailable)
    }

    /// Counts the socket at this address and port; any port for 0.
    fn take_port(&mut self, socket: Handle, (address, port): End<'_>) -> Result<(), Error> {
        let options = self.tcp_options(socket)?.options;
        let class = Class(Class::of(options).0 | Class::EXPLICIT);
        let local = (address, port);
        let wish = Wish { protocol: Protocol::Tcp, local, v6_only: options & Switch::V6_ONLY != 0, class };
        let (port, bound) = match port {
            0 => self.ports().bind_any(&wish)?,
            port => (port, self.ports().bind(&wish)?),
        };
        self.seldom(socket.index)?.bound = bound.wrapping_add(1);
        let tcb = self.tcb(socket)?;
        (tcb.local_port, tcb.bound_as) = (port, class.0);
        Ok(())
    }

    /// The socket is counted nowhere any more and has no port.
    fn leave_port(&mut self, socket: Handle) -> Result<(), Error> {
        let tcb = self.tcb(socket)?;
        let class = Class(core::mem::take(&mut tcb.bound_as));
        tcb.local_port = 0;
        if let Some(bound) = core::mem::take(&mut self.seldom(socket.index)?.bound).checked_sub(1) {
            self.ports().leave(bound, class);
        }
        Ok(())
    }

    /// listen(2): RFC 9293 §3.9.1.1's passive OPEN. On a socket that listens, a new backlog.
    ///
    /// # Errors
    /// `Invalid` if it has a connection; `AddressInUse` if another one listens there, or no port is left; `NoBuffers` at
    /// the limit of listeners.
    pub fn tcp_listen(&mut self, socket: Handle, backlog: u32) -> Result<(), Error> {
        self.under(Operation::Tcp, socket, |parts| parts.begin_listening(socket, backlog))
    }

    fn begin_listening(&mut self, socket: Handle, backlog: u32) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        if tcb.state() == State::Listen {
            let index = self.seldom(socket.index)?.queue.checked_sub(1).ok_or(Error::Corrupt)?;
            self.listeners.get_mut(index as usize).ok_or(Error::Corrupt)?.backlog = backlog;
            return Ok(());
        }
        if tcb.state() != State::Closed {
            return Err(Error::Invalid);
        }
        if tcb.local_port == 0 {
            self.take_port(socket, (&tcb.local, 0))?;
        }
        // The port is asked for once more: two sockets may share it by SO_REUSEADDR until one listens.
        let done = self.begin_to_listen(socket, backlog);
        if done.is_err() && tcb.local_port == 0 {
            self.leave_port(socket)?;
        }
        done
    }

    fn begin_to_listen(&mut self, socket: Handle, backlog: u32) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        let bound = self.seldom(socket.index)?.bound.checked_sub(1).ok_or(Error::Corrupt)?;
        let (from, to) = (Class(tcb.bound_as), Class(tcb.bound_as | Class::LISTEN));
        self.ports().change(bound, from, to, true)?;
        match self.open_listener(socket, backlog) {
            Ok(index) => {
                self.seldom(socket.index)?.queue = index.wrapping_add(1);
                let tcb = self.tcb(socket)?;
                (tcb.state, tcb.bound_as) = (State::Listen as u8, to.0);
                Ok(())
            }
            Err(error) => {
                self.ports().change(bound, to, from, false)?;
                Err(error)
            }
        }
    }

    /// connect(2), up to the SYN: the socket is in SYN-SENT and its connection is the only one of its kind. `source` is the
    /// address that the route wants, for a socket that has none.
    ///
    /// # Errors
    /// `Already`, `IsConnected`; `NetworkUnreachable` for IPv4 on a socket of IPv6 only; `AddressFamily` between addresses
    /// of different versions; `AddressNotAvailable` when the connection exists already or no port is left; `NoBuffers`.
    pub fn tcp_connect(
        &mut self,
        socket: Handle,
        source: &Ip,
        remote: End<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        self.under(Operation::Tcp, socket, |parts| parts.begin_connecting(socket, source, remote, now))
    }

    fn begin_connecting(
        &mut self,
        socket: Handle,
        source: &Ip,
        remote: End<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        match tcb.state() {
            State::Closed => {}
            State::SynSent | State::SynReceived => return Err(Error::Already),
            _ => return Err(Error::IsConnected),
        }
        let options = self.tcp_options(socket)?.options;
        if tcb.is(Mark::V6) && options & Switch::V6_ONLY != 0 && remote.0.is_v4() {
            return Err(Error::NetworkUnreachable);
        }
        // RFC 9293 §3.9.1.1: "MUST reject as an error a local OPEN call for an invalid remote IP address (e.g., a broadcast or
        // multicast address) (MUST-46)".
        if remote.0.is_multicast() || remote.0.is_broadcast() {
            return Err(Error::NetworkUnreachable);
        }
        let local = if tcb.is(Mark::ADDRESS_BOUND) { tcb.local } else { *source };
        if local.is_v4() != remote.0.is_v4() || (!local.is_v4() && !tcb.is(Mark::V6)) {
            return Err(Error::AddressFamily);
        }
        let is_chosen = tcb.local_port != 0;
        let host = *self.host;
        let (mut ports, connections) = self.ports_and_connections();
        let is_free = |port| match connections.find((&local, port), remote) {
            None => true,
            Some(old) => {
                connections.record(old).is_some_and(|old| old.gives_way_to_connect(is_chosen, &host, now))
            }
        };
        let (port, class) = if tcb.local_port == 0 {
            (ports.connect_any(Protocol::Tcp, &local, remote, is_free)?, Class::of(options))
        } else if is_free(tcb.local_port) {
            (tcb.local_port, Class(tcb.bound_as))
        } else {
            return Err(Error::AddressNotAvailable);
        };
        let over = connections.find((&local, port), remote);
        let (iss, recent) = over.map_or_else(Default::default, |old| self.replace_old(old));
        // At a wildcard until now, it is counted at its address from here on (`inet_bhash2_update_saddr`).
        let wish = Wish { protocol: Protocol::Tcp, local: (&local, port), v6_only: false, class };
        let bound = self.ports().join(&wish)?;
        let previous = core::mem::replace(&mut self.seldom(socket.index)?.bound, bound.wrapping_add(1));
        *self.tcb(socket)? = Tcb {
            local,
            local_port: port,
            remote: *remote.0,
            remote_port: remote.1,
            state: State::SynSent as u8,
            bound_as: class.0,
            snd: Snd { una: iss, nxt: iss, ..Snd::default() },
            recent,
            ..tcb
        };
        let is_in = self.connections().insert(socket.index);
        if !is_in {
            (*self.tcb(socket)?, self.seldom(socket.index)?.bound) = (tcb, previous);
        }
        match (is_in, previous.checked_sub(1)) {
            (true, Some(previous)) => self.ports().leave(previous, Class(tcb.bound_as)),
            (true, None) => {}
            (false, _) => self.ports().leave(bound, class),
        }
        if is_in { Ok(()) } else { Err(Error::NoBuffers) }
    }

    /// A connection in TIME-WAIT makes room for a new one between the same ends: where that begins, and the last timestamp
    /// of the peer's (tcp_twsk_unique). RFC 6191 §2 needs the new one's timestamps to be later; sequence numbers of the old one that
    /// still wander about are far from the new one's, too.
    fn replace_old(&mut self, index: u32) -> (Seq, Recent) {
        let Some(tcb) = self.tcbs.get_mut(index as usize) else { return Default::default() };
        let (old, begins, recent) = (tcb.tag.handle(index), tcb.snd.nxt + BEYOND_OLD, tcb.recent);
        tcb.timers.disarm_all();
        tcb.flags |= Flags::RECEIVE_SHUT | Flags::FIN_QUEUED;
        let is_orphan = tcb.flags.has(Flags::ORPHAN);
        self.wheels.tcbs.disarm(self.tcbs, index);
        // Whoever holds it still reads what it has received.
        if self.disconnect(old).is_ok() && is_orphan {
            let _ = self.tcp_release(old);
        }
        (begins, recent)
    }

    /// Ends a connection's bookkeeping: the socket is in CLOSED, no segment finds it, and it has only what bind(2) had
    /// given it, so that it may connect again (`tcp_disconnect`).
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` if it has no peer.
    pub fn tcp_disconnect(&mut self, socket: Handle) -> Result<(), Error> {
        self.under(Operation::Tcp, socket, |parts| parts.disconnect(socket))
    }

    fn disconnect(&mut self, socket: Handle) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        if !tcb.is_in_table() {
            return Err(Error::Invalid);
        }
        self.tcp_stop_waiting(socket)?;
        if !self.connections().remove(socket.index) {
            return Err(Error::Corrupt);
        }
        self.left.moved(tcb.standing(), Standing::Used);
        let (mut local, wildcard) = match tcb.is(Mark::V6) {
            true => (tcb.local, Ip::UNSPECIFIED),
            false => (tcb.local, Ip::UNSPECIFIED_V4),
        };
        let class = Class(tcb.bound_as);
        if tcb.bound_as & Class::EXPLICIT == 0 {
            self.leave_port(socket)?;
        }
        if !tcb.is(Mark::ADDRESS_BOUND) && tcb.bound_as & Class::EXPLICIT != 0 {
            let v6_only = self.tcp_options(socket)?.options & Switch::V6_ONLY != 0;
            let wish = Wish { protocol: Protocol::Tcp, local: (&wildcard, tcb.local_port), v6_only, class };
            // At the limit of records it stays at the address that it had.
            if let Ok(bound) = self.ports().join(&wish) {
                let previous =
                    core::mem::replace(&mut self.seldom(socket.index)?.bound, bound.wrapping_add(1));
                self.ports().leave(previous.checked_sub(1).ok_or(Error::Corrupt)?, class);
                local = wildcard;
            }
        } else if !tcb.is(Mark::ADDRESS_BOUND) {
            local = wildcard;
        }
        let tcb = self.tcb(socket)?;
        (tcb.local, tcb.remote, tcb.remote_port, tcb.state) = (local, wildcard, 0, State::Closed as u8);
        Ok(())
    }

    /// Gives the record back, whatever state it is in, but for a listener with sockets in its accept queue, one of
    /// those, and one whose queues aren't empty.
    ///
    /// # Errors
    /// `BadHandle`; `Invalid` for those three.
    pub fn tcp_release(&mut self, socket: Handle) -> Result<(), Error> {
        let tcb = *self.tcb(socket)?;
        if tcb.is(Mark::QUEUED) || !self.tcp_rest(socket)? {
            return Err(Error::Invalid);
        }
        self.tcp_end_traffic(socket)?;
        self.tcp_stop_waiting(socket)?;
        if tcb.state() == State::Listen {
            self.close_listener(socket)?;
        } else if tcb.is_in_table() {
            self.tcp_disconnect(socket)?;
        }
        self.leave_port(socket)?;
        self.options().release(tcb.settings);
        self.wheels.tcbs.disarm(self.tcbs, socket.index);
        *self.seldom(socket.index)? = Seldom::default();
        self.slabs.tcbs.give(self.tcbs, socket);
        Ok(())
    }
}
