//! recvmsg(2) on a socket of UDP, and what is ready (net/ipv4/udp.c: udp_recvmsg; net/core/datagram.c: datagram_poll).

use super::queue::{self, Said};
use super::{Mark, Shut, UdpSocket};
use crate::device::Device;
use crate::error::Error;
use crate::events;
use crate::frames::Frames;
use crate::region::slab::Handle;
use crate::stack::Stack;
use crate::time::Instant;
use crate::wire::ip::Ip;

/// A datagram that was read. All that a control message may tell is here: the caller knows which of them the user has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it (`msg_name`).
    pub source: (Ip, u16),
    /// Whom it was for (IP_PKTINFO, IPV6_PKTINFO, IP_ORIGDSTADDR).
    pub destination: Ip,
    /// Bytes that were copied.
    pub copied: usize,
    /// Bytes that it has: more than were copied is MSG_TRUNC.
    pub len: usize,
    /// Hops that were left (IP_TTL, IPV6_HOPLIMIT).
    pub ttl: u8,
    /// Differentiated services and ECN, or traffic class (IP_TOS, IPV6_TCLASS).
    pub tos: u8,
    /// When it arrived (SO_TIMESTAMP, SO_TIMESTAMPNS).
    pub arrived: Instant,
    /// Bytes of each of the segments that are joined in it, but the last (UDP_GRO); 0 if it is one.
    pub segment: u16,
    /// Datagrams that the socket had dropped before it arrived (SO_RXQ_OVFL); told if it isn't 0.
    pub drops: u32,
}

impl UdpSocket {
    /// Whether a sender is told of room: less than half of the buffer is on its way (sock_writeable).
    #[inline]
    pub(crate) const fn may_write(&self) -> bool {
        self.send_charge.frames.saturating_mul(2) <= self.send_charge.limit
    }

    /// What is ready.
    pub(crate) const fn ready(&self) -> u64 {
        let mut ready = 0;
        let ends = self.shut & Shut::READ != 0;
        if !self.receive.is_empty() || ends {
            ready |= events::READABLE;
        }
        if ends {
            ready |= events::READ_HUNG_UP;
        }
        if self.shut == Shut::READ | Shut::WRITE {
            ready |= events::HUNG_UP;
        }
        if self.error != 0 || !self.errors.is_empty() {
            ready |= events::FAILED;
        }
        if self.may_write() && !self.is(Mark::WANTS_ROOM) {
            ready |= events::WRITABLE;
        }
        ready
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// The frames, and a socket beside them.
    pub(crate) fn udp_frames(&mut self, index: u32) -> Option<(Frames<'_>, &mut UdpSocket)> {
        let parts = &mut *self.parts;
        let udp = parts.udp_sockets.get_mut(index as usize)?;
        Some((Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames }, udp))
    }

    /// Writes down what is ready.
    pub(crate) fn udp_tell(&self, index: u32, arrived: bool) {
        let udp = self.parts.udp_sockets.get(index as usize);
        if let Some((udp, word)) = udp.zip(self.shared.udp_events.get(index as usize))
            && events::set(word, udp.ready(), arrived)
        {
            self.shared.note_udp(index);
        }
    }

    /// What is ready on a socket.
    #[must_use]
    pub fn udp_events(&self, socket: Handle) -> events::Events {
        let word = self.shared.udp_events.get(socket.index as usize);
        word.map_or(events::Events { ready: 0, arrivals: 0, openings: 0 }, events::load)
    }

    /// SO_ERROR: takes the pending error.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_take_error(&mut self, socket: Handle) -> Result<Option<Error>, Error> {
        let error = Error::from_code(core::mem::take(&mut self.parts.udp(socket)?.error));
        if error.is_some() {
            self.udp_tell(socket.index, false);
        }
        Ok(error)
    }

    /// recvmsg(2): the oldest datagram into the slices, as much as they take; the rest of it is lost. `None` is the end that
    /// shutdown(2) makes.
    ///
    /// # Errors
    /// A pending error comes first; `WouldBlock` if nothing is there; `BadHandle`.
    pub fn udp_receive(&mut self, socket: Handle, to: &mut [&mut [u8]]) -> Result<Option<Datagram>, Error> {
        self.udp_read(socket, 0, to, true)
    }

    /// The same with MSG_PEEK: it stays. The first `skip` bytes of it are passed over (SO_PEEK_OFF).
    ///
    /// # Errors
    /// As [`Stack::udp_receive`].
    pub fn udp_peek(
        &mut self,
        socket: Handle,
        skip: usize,
        to: &mut [&mut [u8]],
    ) -> Result<Option<Datagram>, Error> {
        self.udp_read(socket, skip, to, false)
    }

    /// FIONREAD: bytes of the oldest datagram, or 0.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_readable(&mut self, socket: Handle) -> Result<usize, Error> {
        let list = self.parts.udp(socket)?.receive;
        let (frames, _) = self.udp_frames(socket.index).ok_or(Error::Corrupt)?;
        Ok(queue::first(&frames, &list).map_or(0, |(_, head)| head.len as usize))
    }

    fn udp_read(
        &mut self,
        socket: Handle,
        skip: usize,
        to: &mut [&mut [u8]],
        takes: bool,
    ) -> Result<Option<Datagram>, Error> {
        let parts = &mut *self.parts;
        let udp = parts.udp(socket)?;
        if udp.error != 0 {
            return Err(self.udp_take_error(socket)?.unwrap_or(Error::Corrupt));
        }
        let (list, is_over) = (udp.receive, udp.shut & Shut::READ != 0);
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        let Some((frame, head)) = queue::first(&frames, &list) else {
            return if is_over { Ok(None) } else { Err(Error::WouldBlock) };
        };
        let data = frames.record(frame).map_or(0, |record| record.offset);
        let said = self.device.bytes(frame).and_then(|bytes| Said::read(bytes, head.begin, data));
        let said = said.ok_or(Error::Corrupt)?;
        let copied = queue::copy(&frames, &list, &*self.device, skip, to);
        if takes {
            let udp = parts.udp_sockets.get_mut(socket.index as usize).ok_or(Error::Corrupt)?;
            queue::pop(&mut frames, &mut udp.receive, &mut udp.receive_charge);
            udp.stamp = head.arrived.0;
            if udp.receive.is_empty()
                && !is_over
                && let Some(word) = self.shared.udp_events.get(socket.index as usize)
            {
                events::end_readable(word);
            }
        }
        Ok(Some(Datagram {
            source: said.source,
            destination: said.destination,
            copied,
            len: head.len as usize,
            ttl: said.ttl,
            tos: said.tos,
            arrived: head.arrived,
            segment: head.segment,
            drops: head.drops,
        }))
    }
}
