//! A socket's life with packets: what socket(2), connect(2), shutdown(2) and close(2) do besides [`crate::udp`]'s records.

use super::queue;
use super::{Mark, Shut, UdpSocket};
use crate::demux::End;
use crate::device::Device;
use crate::error::Error;
use crate::events;
use crate::host::Host;
use crate::region::Parts;
use crate::region::slab::Handle;
use crate::settings::{Switch, Values};
use crate::stack::Stack;
use crate::tcp::calls::How;
use crate::wire::ip::Ip;

/// SO_SNDBUF, in bytes, as it is read back.
pub(crate) fn send_buffer(values: &Values, host: &Host) -> u32 {
    if values.send_buffer == 0 { host.wmem_default } else { values.send_buffer.saturating_mul(2) }
}

/// SO_RCVBUF, in bytes, as it is read back.
pub(crate) fn receive_buffer(values: &Values, host: &Host) -> u32 {
    if values.receive_buffer == 0 { host.rmem_default } else { values.receive_buffer.saturating_mul(2) }
}

impl Parts<'_> {
    /// How many frames a socket may have, by its options: a frame counts whole, and as in Linux one more is taken as long as the buffer
    /// isn't full.
    pub(crate) fn udp_limits(&mut self, socket: Handle) -> Result<(), Error> {
        let values = self.udp_options(socket)?;
        let frame = self.header.limits.frame_size.max(1);
        let (send, receive) = (send_buffer(&values, self.host), receive_buffer(&values, self.host));
        let udp = self.udp(socket)?;
        udp.send_charge.limit = send.div_ceil(frame);
        udp.receive_charge.limit = (receive / frame).saturating_add(1);
        Ok(())
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// socket(2), for the process in slot `holder`.
    ///
    /// # Errors
    /// `NoBuffers` at the limit of sockets.
    pub fn udp_open(&mut self, is_v6: bool, holder: u32) -> Result<Handle, Error> {
        let socket = self.parts.udp_socket(is_v6, holder)?;
        if let Some(word) = self.shared.udp_events.get(socket.index as usize) {
            events::clear(word);
        }
        self.udp_tell(socket.index, false);
        Ok(socket)
    }

    /// connect(2): the route says which address of ours it is, unless bind(2) has. It may be called again with another peer.
    ///
    /// # Errors
    /// That there is no way; `Forbidden` for a broadcast without SO_BROADCAST; those of [`Parts::udp_connect`].
    pub fn udp_connect(&mut self, socket: Handle, remote: End<'_>) -> Result<(), Error> {
        let udp = *self.parts.udp(socket)?;
        if !remote.0.is_v4() && !udp.is(Mark::V6) {
            return Err(Error::AddressFamily);
        }
        let values = self.parts.udp_options(socket)?;
        if udp.is(Mark::V6) && values.options & Switch::V6_ONLY != 0 && remote.0.is_v4() {
            return Err(Error::NetworkUnreachable);
        }
        let source = self.udp_way(&udp, values.options, remote.0)?.source;
        self.parts.udp_connect(socket, &source, remote)?;
        let udp = self.parts.udp(socket)?;
        (udp.route, udp.route_version) = (0, 0);
        Ok(())
    }

    /// shutdown(2). What has arrived can still be read.
    ///
    /// # Errors
    /// `NotConnected` without a peer: the directions are shut down all the same (inet_shutdown).
    pub fn udp_shutdown(&mut self, socket: Handle, how: How) -> Result<(), Error> {
        let udp = self.parts.udp(socket)?;
        udp.shut |= match how {
            How::Read => Shut::READ,
            How::Write => Shut::WRITE,
            How::Both => Shut::READ | Shut::WRITE,
        };
        let is_connected = udp.is(Mark::CONNECTED);
        self.udp_tell(socket.index, true);
        if is_connected { Ok(()) } else { Err(Error::NotConnected) }
    }

    /// close(2) by the last holder: what was not read is lost, and what was sent leaves.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_close(&mut self, socket: Handle) -> Result<(), Error> {
        self.parts.udp(socket)?;
        self.udp_leave_groups(socket)?;
        self.udp_drop_queues(socket)?;
        self.parts.udp_release(socket)?;
        if let Some(word) = self.shared.udp_events.get(socket.index as usize) {
            events::clear(word);
        }
        Ok(())
    }

    /// Nothing is in its queues, and nobody is charged for what the device still sends.
    fn udp_drop_queues(&mut self, socket: Handle) -> Result<(), Error> {
        let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::BadHandle)?;
        let UdpSocket { receive, errors, kept, receive_charge, send_charge, .. } = udp;
        queue::clear(&mut frames, receive, receive_charge);
        queue::clear(&mut frames, errors, receive_charge);
        queue::clear(&mut frames, kept, send_charge);
        let parts = &mut *self.parts;
        let udp = parts.udp_sockets.get_mut(socket.index as usize).ok_or(Error::BadHandle)?;
        parts.pool.merge(&mut udp.send_charge, &mut parts.ip.sent);
        Ok(())
    }

    /// SIOCOUTQ: bytes of buffer that are on their way.
    ///
    /// # Errors
    /// `BadHandle`.
    pub fn udp_unsent(&mut self, socket: Handle) -> Result<u32, Error> {
        let frame = self.parts.header.limits.frame_size;
        Ok(self.parts.udp(socket)?.send_charge.frames.saturating_mul(frame))
    }

    /// IP_MTU, IPV6_MTU: what the path to its peer takes.
    ///
    /// # Errors
    /// `NotConnected` without a peer; that there is no way.
    pub fn udp_path_mtu(&mut self, socket: Handle) -> Result<u16, Error> {
        let udp = *self.parts.udp(socket)?;
        if !udp.is(Mark::CONNECTED) {
            return Err(Error::NotConnected);
        }
        let values = self.parts.udp_options(socket)?;
        Ok(self.udp_way(&udp, values.options, &udp.remote)?.path.mtu)
    }

    /// Whether an address is one that many listen at on the link.
    pub(crate) fn is_broadcast(&self, ip: &Ip) -> bool {
        ip.is_broadcast() || self.parts.is_subnet_broadcast(ip)
    }
}
