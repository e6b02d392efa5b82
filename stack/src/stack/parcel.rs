//! Datagrams that no connection sends: what of IP stands before their payload, and fragments where they are larger than the
//! path takes.
//!
//! RFC 791 §3.2 and RFC 8200 §4.5: fragments carry multiples of eight bytes, but for the last.

use super::Stack;
use crate::device::{Device, Fragment as Piece, FrameIndex, Outgoing};
use crate::error::Error;
use crate::frames::pool::{Charge, Purpose};
use crate::ip::hop::Hop;
use crate::region::slab::Handle;
use crate::stats::Counter;
use crate::wire::ip::{Fragment, Ip};
use crate::wire::{ethernet, ipv4, ipv6};

/// A datagram without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel {
    /// Our address.
    pub(crate) local: Ip,
    /// The other end's.
    pub(crate) remote: Ip,
    /// What the payload is.
    pub(crate) protocol: u8,
    /// Time to live, or hop limit.
    pub(crate) ttl: u8,
    /// Differentiated services and ECN, or traffic class.
    pub(crate) tos: u8,
    /// It may go in fragments: we make them, and in IPv4 routers may, too.
    pub(crate) may_fragment: bool,
    /// The socket of UDP that is charged for its frames; the stack's own are control packets.
    pub(crate) payer: Option<Handle>,
}

/// Time to live of what the stack itself sends (net.ipv4.ip_default_ttl).
pub(crate) const TTL: u8 = 64;

impl Parcel {
    /// One of the stack's own.
    pub(crate) const fn new(local: Ip, remote: Ip, protocol: u8) -> Self {
        Self { local, remote, protocol, ttl: TTL, tos: 0, may_fragment: true, payer: None }
    }

    fn ethertype(&self) -> u16 {
        if self.local.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 }
    }

    /// Bytes of IP's headers.
    pub(crate) fn header_len(&self, is_fragment: bool) -> usize {
        match (self.local.is_v4(), is_fragment) {
            (true, _) => ipv4::HEADER_LEN,
            (false, true) => ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN,
            (false, false) => ipv6::HEADER_LEN,
        }
    }

    /// How many pieces of at most so many bytes, with headers, a payload goes in, if it doesn't go in one.
    pub(crate) fn pieces(&self, most: usize, len: usize) -> usize {
        len.div_ceil((most.saturating_sub(self.header_len(true)) & !7).max(8))
    }

    /// Writes IP's headers before so many bytes.
    pub(super) fn emit(
        &self,
        place: Option<Fragment>,
        name: u32,
        len: usize,
        bytes: &mut [u8],
    ) -> Option<usize> {
        let Self { local, remote, protocol, ttl, tos, may_fragment, .. } = self;
        if local.is_v4() {
            let header = ipv4::Header::new(local, remote, *protocol, *ttl)?;
            let header = ipv4::Header { tos: *tos, ..header };
            // RFC 6864 §4.1: an atomic datagram's identification means nothing; one that may be fragmented has its own.
            let header = if *may_fragment { header.fragment(place, name as u16) } else { header };
            return header.emit(len, bytes);
        }
        let next = if place.is_some() { ipv6::FRAGMENT } else { *protocol };
        let header = ipv6::Header::new(local, remote, next, *ttl)?.with_flow(*tos, 0);
        let Some(place) = place else { return header.emit(len, bytes) };
        let (head, rest) = bytes.split_at_mut_checked(ipv6::HEADER_LEN)?;
        let added = ipv6::emit_fragment(*protocol, place, rest)?;
        Some(header.emit(len + added, head)? + added)
    }
}

impl<D: Device> Stack<'_, '_, D> {
    /// Sends a datagram of `len` bytes of payload by this hop, whose path takes datagrams of `mtu` bytes. `put` copies so
    /// many bytes of the payload, from an offset on, to a place in a frame: `put(device, frame, place, offset, len)`.
    ///
    /// # Errors
    /// `MessageSize` if it is too large and may not be fragmented, or too large for IP; `NoBuffers` without frames or room in
    /// the ring: what was sent of it before is lost; why there is no way.
    pub(crate) fn send_parcel(
        &mut self,
        parcel: &Parcel,
        (hop, mtu): (&mut Hop, u16),
        len: usize,
        mut put: impl FnMut(&mut D, FrameIndex, usize, usize, usize) -> bool,
    ) -> Result<(), Error> {
        if let crate::ip::hop::Via::Nowhere(error) = hop.via {
            return Err(error);
        }
        let most = self.piece_max(hop, mtu);
        if len + parcel.header_len(false) <= most {
            return self.send_piece(parcel, hop, (None, 0), 0..len, &mut put);
        }
        let each = most.saturating_sub(parcel.header_len(true)) & !7;
        // The total length is IPv4's header with it, and IPv6's payload.
        let whole = if parcel.local.is_v4() { len + parcel.header_len(false) } else { len };
        if !parcel.may_fragment || whole > usize::from(u16::MAX) || each == 0 {
            return Err(Error::MessageSize);
        }
        let name = self.identification(&parcel.remote);
        let mut at = 0;
        while at < len {
            let end = (at + each).min(len);
            let place = Fragment { identification: name, offset: at as u16, more: end < len };
            self.send_piece(parcel, hop, (Some(place), name), at..end, &mut put)?;
            self.count(Counter::FragmentsOut);
            at = end;
        }
        Ok(())
    }

    /// Bytes of the largest piece by a hop: a packet is one frame.
    #[inline]
    pub(crate) fn piece_max(&self, hop: &Hop, mtu: u16) -> usize {
        let capabilities = self.device.capabilities();
        let headroom = usize::from(capabilities.headroom_out) + hop.header_len();
        usize::from(mtu).min(usize::from(capabilities.frame_size).saturating_sub(headroom))
    }

    /// A frame for a piece, moving: from the reserve of control packets, or from what sockets may have.
    fn frame_for(&mut self, payer: Option<Handle>) -> Option<FrameIndex> {
        let Some(socket) = payer else { return self.frames().take(Purpose::Control) };
        let (mut frames, udp) = self.udp_frames(socket.index)?;
        frames.take_for_datagram(Charge { limit: u32::MAX, ..udp.send_charge }).ok()
    }

    /// Gives a piece to the device; if that has no room, the frame is free.
    fn give_piece(&mut self, payer: Option<Handle>, fragment: Piece) -> bool {
        let packet = Outgoing { fragments: &[fragment], checksum: None, gso_size: 0 };
        let frame = fragment.frame;
        let Some(socket) = payer else {
            let is_sent = self.give(frame, &packet);
            if !is_sent {
                self.frames().discard(frame);
            }
            return is_sent;
        };
        let Some((mut frames, udp)) = self.udp_frames(socket.index) else { return false };
        if !frames.send_datagram(frame, &mut udp.send_charge, socket) {
            return false;
        }
        let is_sent = self.device.send(&packet).is_ok();
        if !is_sent && let Some((mut frames, udp)) = self.udp_frames(socket.index) {
            frames.end_datagram(frame, &mut udp.send_charge);
        }
        is_sent
    }

    /// The name of the next datagram that may be fragmented: nobody predicts it in IPv6 (RFC 7739); IPv4's 16 bits are counted,
    /// so that none comes again too soon (RFC 6864 §4.2), from a place that is another one for each destination.
    fn identification(&mut self, remote: &Ip) -> u32 {
        if !remote.is_v4() {
            return self.parts.draw();
        }
        let hash = self.parts.address_hash(remote);
        let state = &mut self.parts.ip;
        state.identification = state.identification.wrapping_add(1);
        hash.wrapping_add(state.identification)
    }

    /// Sends a piece, the datagram itself if it has no place in another.
    #[inline]
    pub(crate) fn send_piece(
        &mut self,
        parcel: &Parcel,
        hop: &mut Hop,
        (place, name): (Option<Fragment>, u32),
        range: core::ops::Range<usize>,
        put: &mut impl FnMut(&mut D, FrameIndex, usize, usize, usize) -> bool,
    ) -> Result<(), Error> {
        let name =
            if parcel.may_fragment && place.is_none() { self.identification(&parcel.remote) } else { name };
        let capabilities = self.device.capabilities();
        let link_len = if capabilities.link == crate::device::Link::Ethernet { hop.header_len() } else { 0 };
        let begin = usize::from(capabilities.headroom_out);
        let ip = begin + link_len;
        let payload = ip + parcel.header_len(place.is_some());
        let Some(frame) = self.frame_for(parcel.payer) else {
            self.count(Counter::FramesShort);
            return Err(Error::NoBuffers);
        };
        let is_written = put(self.device, frame, payload, range.start, range.len())
            && self.device.bytes_mut(frame).is_some_and(|bytes| {
                let head = bytes.get_mut(begin..payload).and_then(|head| head.split_at_mut_checked(link_len));
                head.is_some_and(|(link, ip)| {
                    (link_len == 0 || hop.frame(parcel.ethertype()).emit(link).is_some())
                        && parcel.emit(place, name, range.len(), ip).is_some()
                })
            });
        if !is_written {
            self.frames().discard(frame);
            return Err(Error::MessageSize);
        }
        let (offset, len) = (begin as u16, (payload - begin + range.len()) as u16);
        if !hop.is_open() {
            hop.hold(&mut self.frames(), frame, (offset, len), None);
            return Ok(());
        }
        let fragment = Piece { frame, offset, len };
        hop.is_used = true;
        if self.give_piece(parcel.payer, fragment) {
            self.count(Counter::PacketsOut);
            return Ok(());
        }
        Err(Error::NoBuffers)
    }
}
