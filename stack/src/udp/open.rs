//! A socket's life without datagrams: made, bound, with a peer and without, given back. Results are Linux's.

use super::{Mark, UdpSocket};
use crate::demux::{End, Sharing};
use crate::error::Error;
use crate::ports::{Class, Protocol, Wish};
use crate::recover::{Operation, fence};
use crate::region::Parts;
use crate::region::slab::{Handle, find};
use crate::settings::{Switch, Values};
use crate::wire::ip::Ip;

#[cfg(test)]
mod tests;

/// A search for a port that found none is worth another try.
const fn out_of_ports(error: Error) -> Error {
    if matches!(error, Error::AddressInUse) { Error::WouldBlock } else { error }
}

impl UdpSocket {
    const fn wildcard(&self) -> Ip {
        if self.is(Mark::V6) { Ip::UNSPECIFIED } else { Ip::UNSPECIFIED_V4 }
    }
}

impl Parts<'_> {
    /// The record of a socket.
    ///
    /// # Errors
    /// `BadHandle` if the handle is old.
    pub fn udp(&mut self, socket: Handle) -> Result<&mut UdpSocket, Error> {
        find(self.udp_sockets, socket).ok_or(Error::BadHandle)
    }

    /// What its options have set.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_options(&mut self, socket: Handle) -> Result<Values, Error> {
        let number = self.udp(socket)?.settings;
        Ok(self.options().of(number))
    }

    /// A new socket, held by the process in slot `holder`.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of sockets.
    pub fn udp_socket(&mut self, is_v6: bool, holder: u32) -> Result<Handle, Error> {
        let socket = self.slabs.udp_sockets.take(self.udp_sockets).ok_or(Error::NoBuffers)?;
        let udp = self.udp(socket)?;
        *udp = UdpSocket { tag: udp.tag, marks: if is_v6 { Mark::V6 } else { 0 }, ..UdpSocket::default() };
        (udp.local, udp.remote) = (udp.wildcard(), udp.wildcard());
        udp.holders = 1u64.checked_shl(holder).unwrap_or(0);
        self.udp_limits(socket)?;
        Ok(socket)
    }

    /// Sets its options. How it shares its address and port among datagrams stays as it was when it got them.
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` when too many sockets have set different ones.
    pub fn set_udp_options(&mut self, socket: Handle, values: &Values) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        let number = self.options().intern(values).ok_or(Error::NoBuffers)?;
        self.udp(socket)?.settings = number;
        fence();
        self.options().release(udp.settings);
        self.udp_limits(socket)?;
        if let Some(bound) = udp.bound.checked_sub(1) {
            let class = Class::of(values.options);
            self.ports().change(bound, Class(udp.bound_as), class, false)?;
            self.udp(socket)?.bound_as = class.0;
        }
        Ok(())
    }

    /// bind(2). Port 0 is any.
    ///
    /// # Errors
    /// `Invalid` if it has a port; `AddressFamily`, `AddressNotAvailable`, `AddressInUse`; `NoBuffers` at the limit of
    /// records.
    pub fn udp_bind(&mut self, socket: Handle, local: End<'_>) -> Result<(), Error> {
        self.under(Operation::Udp, socket, |parts| parts.udp_begin(socket, local))
    }

    fn udp_begin(&mut self, socket: Handle, (address, port): End<'_>) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        if udp.local_port != 0 {
            return Err(Error::Invalid);
        }
        let options = self.udp_options(socket)?.options;
        self.may_bind(address, udp.is(Mark::V6), options)?;
        self.udp_take_port(socket, (address, port))?;
        let udp = self.udp(socket)?;
        udp.marks |= if address.is_unspecified() { 0 } else { Mark::ADDRESS_BOUND };
        udp.marks |= if port == 0 { 0 } else { Mark::PORT_BOUND };
        Ok(())
    }

    /// Counts the socket at this address and port, any port for 0, and lets datagrams find it there.
    fn udp_take_port(&mut self, socket: Handle, local: End<'_>) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        let options = self.udp_options(socket)?.options;
        let (class, v6_only) = (Class::of(options), options & Switch::V6_ONLY != 0);
        let wish = Wish { protocol: Protocol::Udp, local, v6_only, class };
        let (port, bound) = match local.1 {
            0 => self.ports().bind_any(&wish)?,
            port => (port, self.ports().bind(&wish)?),
        };
        *self.udp(socket)? = UdpSocket {
            local: *local.0,
            local_port: port,
            bound: bound.wrapping_add(1),
            bound_as: class.0,
            sharing: Sharing::of(udp.is(Mark::V6), options),
            ..udp
        };
        if self.udp_endpoints().insert(socket.index) {
            return Ok(());
        }
        self.ports().leave(bound, class);
        *self.udp(socket)? = udp;
        Err(Error::NoBuffers)
    }

    /// A port for a socket that sends without one.
    ///
    /// # Errors
    /// `WouldBlock` when none is left, as Linux has it; `NoBuffers` at the limit of records.
    pub(crate) fn udp_auto_bind(&mut self, socket: Handle) -> Result<(), Error> {
        self.under(Operation::Udp, socket, |parts| {
            let local = parts.udp(socket)?.local;
            parts.udp_take_port(socket, (&local, 0)).map_err(out_of_ports)
        })
    }

    /// Takes the socket out of the table that it is in.
    fn udp_hide(&mut self, socket: Handle) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        let was_there = match udp.bound {
            0 => true,
            _ if udp.is(Mark::CONNECTED) => self.udp_pairs().remove(socket.index),
            _ => self.udp_endpoints().remove(socket.index),
        };
        if was_there { Ok(()) } else { Err(Error::Corrupt) }
    }

    /// Puts a socket that is in no table where `new` belongs.
    fn udp_show(&mut self, socket: Handle, new: &UdpSocket) -> Result<(), Error> {
        *self.udp(socket)? = *new;
        let is_in = match new.bound {
            0 => true,
            _ if new.is(Mark::CONNECTED) => self.udp_pairs().insert(socket.index),
            _ => self.udp_endpoints().insert(socket.index),
        };
        if is_in { Ok(()) } else { Err(Error::NoBuffers) }
    }

    /// connect(2): datagrams come from this peer only, and go there. It may be called again with another peer.
    /// `source` is the address that the route wants, for a socket that has none.
    ///
    /// # Errors
    /// `WouldBlock` when no port is left, as Linux has it; `NetworkUnreachable` for IPv4 on a socket of IPv6 only;
    /// `AddressFamily` between addresses of different versions; `NoBuffers` at the limit of records.
    pub fn udp_connect(&mut self, socket: Handle, source: &Ip, remote: End<'_>) -> Result<(), Error> {
        self.under(Operation::Udp, socket, |parts| parts.udp_join(socket, source, remote))
    }

    fn udp_join(&mut self, socket: Handle, source: &Ip, remote: End<'_>) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        let options = self.udp_options(socket)?.options;
        if udp.is(Mark::V6) && options & Switch::V6_ONLY != 0 && remote.0.is_v4() {
            return Err(Error::NetworkUnreachable);
        }
        let local = if udp.is(Mark::ADDRESS_BOUND) { udp.local } else { *source };
        if local.is_v4() != remote.0.is_v4() || (!local.is_v4() && !udp.is(Mark::V6)) {
            return Err(Error::AddressFamily);
        }
        if udp.local_port == 0 {
            self.udp_take_port(socket, (&udp.wildcard(), 0)).map_err(out_of_ports)?;
        }
        let udp = *self.udp(socket)?;
        let marks = udp.marks | Mark::CONNECTED;
        self.udp_move(socket, &UdpSocket { local, remote: *remote.0, remote_port: remote.1, marks, ..udp })
    }

    /// Gives the socket another address, peer, or both: it is counted at `new.local` from here on, and found as `new` says.
    fn udp_move(&mut self, socket: Handle, new: &UdpSocket) -> Result<(), Error> {
        let old = *self.udp(socket)?;
        let class = Class(old.bound_as);
        let v6_only = self.udp_options(socket)?.options & Switch::V6_ONLY != 0;
        let local = (&new.local, new.local_port);
        let bound = self.ports().join(&Wish { protocol: Protocol::Udp, local, v6_only, class })?;
        self.udp_hide(socket)?;
        let done = self.udp_show(socket, &UdpSocket { bound: bound.wrapping_add(1), ..*new });
        match done {
            Ok(()) => self.ports().leave(old.bound.checked_sub(1).ok_or(Error::Corrupt)?, class),
            Err(_) => {
                self.ports().leave(bound, class);
                self.udp_show(socket, &old)?;
            }
        }
        done
    }

    /// connect(2) to AF_UNSPEC: it has no peer, and only what bind(2) had given it (`__udp_disconnect`).
    ///
    /// # Errors
    /// `BadHandle`; `NoBuffers` at the limit of records.
    pub fn udp_disconnect(&mut self, socket: Handle) -> Result<(), Error> {
        self.under(Operation::Udp, socket, |parts| parts.udp_part(socket))
    }

    fn udp_part(&mut self, socket: Handle) -> Result<(), Error> {
        let udp = *self.udp(socket)?;
        let local = if udp.is(Mark::ADDRESS_BOUND) { udp.local } else { udp.wildcard() };
        let marks = udp.marks & !Mark::CONNECTED;
        let alone = UdpSocket { local, remote: udp.wildcard(), remote_port: 0, marks, ..udp };
        if udp.is(Mark::PORT_BOUND) {
            return self.udp_move(socket, &alone);
        }
        self.udp_leave(socket)?;
        let udp = self.udp(socket)?;
        (udp.local, udp.remote, udp.remote_port) = (local, alone.remote, 0);
        udp.marks = marks;
        Ok(())
    }

    /// The socket is in no table, counted nowhere, and has no port.
    fn udp_leave(&mut self, socket: Handle) -> Result<(), Error> {
        self.udp_hide(socket)?;
        let udp = self.udp(socket)?;
        let (bound, class) = (core::mem::take(&mut udp.bound), Class(core::mem::take(&mut udp.bound_as)));
        udp.local_port = 0;
        if let Some(bound) = bound.checked_sub(1) {
            self.ports().leave(bound, class);
        }
        Ok(())
    }

    /// Gives the record back. Frames must be gone.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_release(&mut self, socket: Handle) -> Result<(), Error> {
        self.udp_leave(socket)?;
        let settings = self.udp(socket)?.settings;
        self.options().release(settings);
        self.slabs.udp_sockets.give(self.udp_sockets, socket);
        Ok(())
    }
}
