//! Datagrams of several calls: UDP_CORK and MSG_MORE (net/ipv4/udp.c: udp_sendmsg, udp_push_pending_frames; ip_append_data).
//!
//! The first call says where the datagram goes and what it is like, and that stands at the start of the first frame of
//! [`UdpSocket::kept`]; its text, and that of later calls, follows there and in more frames. The first call that isn't corked, or
//! UDP_CORK switched off, sends it. A call that fails loses all of it, as in Linux.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::draft::Text;
use super::send::{Sending, destination};
use super::{Mark, UdpSocket, queue};
use crate::device::{Device, Fragment, FrameIndex};
use crate::error::Error;
use crate::frames::pool::Charge;
use crate::region::slab::Handle;
use crate::stack::Stack;
use crate::wire::ip::Ip;

/// What the first call said of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct First {
    to: Ip,
    source: Ip,
    port: u16,
    segment: u16,
    ttl: u8,
    tos: u8,
    /// What of it was given: bits of [`Given`].
    given: u16,
}

/// Bytes of it, before the first text.
const FIRST: u16 = size_of::<First>() as u16;
/// Most frames of one: the largest datagram in frames of 2 KiB is 33.
const PIECES: usize = 40;

struct Given;

impl Given {
    const SOURCE: u16 = 1;
    const SEGMENT: u16 = 2;
    const TTL: u16 = 4;
    const TOS: u16 = 8;
}

impl First {
    fn new(remote: (Ip, u16), how: &Sending) -> Self {
        let bit = |is_given: bool, bit: u16| if is_given { bit } else { 0 };
        Self {
            to: remote.0,
            port: remote.1,
            source: how.source.unwrap_or_default(),
            segment: how.segment.unwrap_or_default(),
            ttl: how.ttl.unwrap_or_default(),
            tos: how.tos.unwrap_or_default(),
            given: bit(how.source.is_some(), Given::SOURCE)
                | bit(how.segment.is_some(), Given::SEGMENT)
                | bit(how.ttl.is_some(), Given::TTL)
                | bit(how.tos.is_some(), Given::TOS),
        }
    }

    fn sending(&self) -> Sending {
        let has = |bit: u16| self.given & bit != 0;
        Sending {
            to: Some((self.to, self.port)),
            source: has(Given::SOURCE).then_some(self.source),
            segment: has(Given::SEGMENT).then_some(self.segment),
            ttl: has(Given::TTL).then_some(self.ttl),
            tos: has(Given::TOS).then_some(self.tos),
            more: false,
        }
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// sendmsg(2) of a part of a datagram; `goes_on` if it isn't the last.
    ///
    /// # Errors
    /// Those of [`Stack::udp_send`]; the datagram is lost then.
    pub(super) fn udp_send_part(
        &mut self,
        socket: Handle,
        text: &[&[u8]],
        how: &Sending,
        goes_on: bool,
    ) -> Result<usize, Error> {
        let len = Text::Users(text).len();
        let kept = self.udp_keep(socket, text, len, how);
        let done = match kept {
            Ok(()) if goes_on => return Ok(len),
            Ok(()) => self.udp_push(socket),
            Err(error) => Err(error),
        };
        if kept.is_err() {
            self.udp_drop_kept(socket)?;
        }
        done.map(|()| len)
    }

    /// Whether a socket has part of a datagram.
    pub(super) fn udp_first(&self, udp: &UdpSocket) -> Option<Sending> {
        let bytes = self.device.bytes(udp.kept.first()?)?;
        First::read_from_prefix(bytes).ok().map(|(first, _)| first.sending())
    }

    fn udp_keep(&mut self, socket: Handle, text: &[&[u8]], len: usize, how: &Sending) -> Result<(), Error> {
        let udp = *self.parts.udp(socket)?;
        if udp.kept.is_empty() {
            let remote = destination(&udp, how)?;
            let frame = self.udp_kept_frame(socket, FIRST)?;
            let first = First::new(remote, how);
            let is_written =
                self.device.bytes_mut(frame).is_some_and(|bytes| first.write_to_prefix(bytes).is_ok());
            if !is_written {
                return Err(Error::Corrupt);
            }
        }
        let udp = *self.parts.udp(socket)?;
        let how = self.udp_first(&udp).ok_or(Error::Corrupt)?;
        self.udp_may_send(socket, udp.kept.bytes() as usize + len, &how)?;
        text.iter().try_for_each(|piece| self.udp_keep_piece(socket, piece))
    }

    fn udp_keep_piece(&mut self, socket: Handle, mut text: &[u8]) -> Result<(), Error> {
        let size = self.device.capabilities().frame_size;
        while !text.is_empty() {
            let last = self.parts.udp(socket)?.kept.last().ok_or(Error::Corrupt)?;
            let end = self.frames().record(last).map(|record| record.offset.saturating_add(record.len));
            let end = usize::from(end.ok_or(Error::Corrupt)?);
            let now = text.len().min(usize::from(size).saturating_sub(end));
            if now == 0 {
                self.udp_kept_frame(socket, 0)?;
                continue;
            }
            let to = self.device.bytes_mut(last).and_then(|bytes| bytes.get_mut(end..end + now));
            to.ok_or(Error::Corrupt)?.copy_from_slice(&text[..now]);
            let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::Corrupt)?;
            queue::lengthen(&mut frames, &mut udp.kept, now as u16);
            text = &text[now..];
        }
        Ok(())
    }

    /// A frame more, whose text begins there; the socket is charged for it.
    fn udp_kept_frame(&mut self, socket: Handle, offset: u16) -> Result<FrameIndex, Error> {
        let now = self.now;
        let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::BadHandle)?;
        if udp.kept.frames() as usize == PIECES {
            return Err(Error::MessageSize);
        }
        let mut charge = udp.send_charge;
        let frame = frames.take_data(&mut charge, socket.index).map_err(|_| Error::WouldBlock)?;
        udp.send_charge = charge;
        queue::begin_piece(&mut frames, &mut udp.kept, Fragment { frame, offset, len: 0 }, now);
        Ok(frame)
    }

    /// Sends what a socket has kept (udp_push_pending_frames).
    ///
    /// # Errors
    /// Those of [`Stack::udp_send`]; it is lost then.
    pub(super) fn udp_push(&mut self, socket: Handle) -> Result<(), Error> {
        let udp = *self.parts.udp(socket)?;
        let Some(how) = self.udp_first(&udp) else { return Ok(()) };
        let (mut pieces, mut count) = ([Fragment::default(); PIECES], 0);
        let frames = self.frames();
        for frame in frames.walk(&udp.kept) {
            if let (Some(place), Some(text)) = (pieces.get_mut(count), frames.text(frame)) {
                (*place, count) = (text, count + 1);
            }
        }
        // They make room for what leaves.
        let (_, udp) = self.udp_frames(socket.index).ok_or(Error::BadHandle)?;
        let mut charge = Charge { frames: udp.kept.frames(), limit: u32::MAX };
        udp.send_charge.frames = udp.send_charge.frames.saturating_sub(charge.frames);
        let mut kept = core::mem::take(&mut udp.kept);
        let done = self.udp_send_text(socket, Text::Kept(&pieces[..count]), &how);
        queue::clear(&mut self.frames(), &mut kept, &mut charge);
        done.map(drop)
    }

    /// What a socket has kept is lost (udp_flush_pending_frames).
    pub(super) fn udp_drop_kept(&mut self, socket: Handle) -> Result<(), Error> {
        let (mut frames, udp) = self.udp_frames(socket.index).ok_or(Error::BadHandle)?;
        queue::clear(&mut frames, &mut udp.kept, &mut udp.send_charge);
        Ok(())
    }

    /// UDP_CORK: what was kept leaves when it is switched off.
    pub(super) fn udp_set_cork(&mut self, socket: Handle, is_on: bool) -> Result<(), Error> {
        let udp = self.parts.udp(socket)?;
        if is_on {
            udp.marks |= Mark::CORK;
            return Ok(());
        }
        udp.marks &= !Mark::CORK;
        // Nobody is told whether it went well (udp_lib_setsockopt).
        let _ = self.udp_push(socket);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_call_said_comes_back() {
        let (to, source) = (Ip::v4([192, 0, 2, 1]), Ip::v4([198, 51, 100, 7]));
        for how in [
            Sending::default(),
            Sending { source: Some(source), ttl: Some(0), ..Sending::default() },
            Sending { segment: Some(9), tos: Some(8), ..Sending::default() },
        ] {
            let first = First::new((to, 53), &how);
            assert_eq!(first.sending(), Sending { to: Some((to, 53)), ..how });
        }
    }
}
