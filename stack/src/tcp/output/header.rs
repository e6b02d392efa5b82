//! The headers of a segment, written right before its text.

use zerocopy::FromBytes;

use super::plain::Plain;
use crate::device::{Capabilities, ChecksumRequest, Link};
use crate::ip::hop::Hop;
use crate::seq::Seq;
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ethernet;
use crate::wire::ip::Ip;
use crate::wire::tcp::options::{Options, Timestamps};
use crate::wire::tcp::{self, Flags, Header};
use crate::wire::{ipv4, ipv6, protocol};

/// Bytes of the timestamps option with its padding, when there is no other.
const TIMESTAMPS_PADDED: usize = 12;

/// A segment's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Our address.
    pub(crate) local: Ip,
    /// The peer's.
    pub(crate) remote: Ip,
    /// TCP's header, but for what follows.
    pub(crate) header: Header,
    /// Control bits.
    pub(crate) flags: Flags,
    /// Options.
    pub(crate) options: Options,
    /// IP's time to live or hop limit.
    pub(crate) ttl: u8,
    /// Differentiated services and ECN, or traffic class.
    pub(crate) tos: u8,
}

/// Where a packet begins, and what of its checksum is left to the device.
pub(crate) struct Written {
    /// Its first byte in the frame.
    pub(crate) offset: u16,
    /// Bytes of headers.
    pub(crate) len: u16,
    /// The device completes the checksum.
    pub(crate) checksum: Option<ChecksumRequest>,
}

impl Head {
    /// Writes the headers before the text, which is at `text..text + len` and has this sum, if anybody knows it. `None`
    /// when they have no room.
    pub(crate) fn write(
        &self,
        bytes: &mut [u8],
        place: (u16, u16),
        sum: Option<Sum>,
        hop: &Hop,
        device: &Capabilities,
    ) -> Option<Written> {
        match self.plain(place.1, sum, hop, device) {
            Some(plain) => plain.write(bytes, place.0.into(), hop, device),
            None => self.write_slowly(bytes, place, sum, hop, device),
        }
    }

    /// The same headers, if they are what almost all segments have.
    #[inline]
    fn plain(&self, len: u16, sum: Option<Sum>, hop: &Hop, device: &Capabilities) -> Option<Plain<'_>> {
        let Timestamps { tsval, tsecr } = self.options.timestamps?;
        let sum = if len == 0 || device.checksum_out { 0 } else { sum?.fold() };
        let is_plain = self.options.len() == TIMESTAMPS_PADDED
            && !self.flags.has(Flags::URG)
            && hop.tag.is_none()
            && !hop.may_fragment;
        is_plain.then(|| Plain {
            local: (&self.local, self.header.source.get()),
            remote: (&self.remote, self.header.destination.get()),
            seq: Seq(self.header.sequence.get()),
            ack: Seq(self.header.acknowledgment.get()),
            flags: self.flags,
            window: self.header.window.get(),
            stamps: (tsval, tsecr),
            ttl: self.ttl,
            tos: self.tos,
            text: (sum, len),
        })
    }

    /// The same, whatever they are.
    pub(super) fn write_slowly(
        &self,
        bytes: &mut [u8],
        (text, len): (u16, u16),
        sum: Option<Sum>,
        hop: &Hop,
        device: &Capabilities,
    ) -> Option<Written> {
        let tcp_len = tcp::HEADER_LEN + self.options.len();
        let ip_len = if self.local.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let link_len = if device.link == Link::Ethernet { hop.header_len() } else { 0 };
        let all = link_len + ip_len + tcp_len;
        let begin = usize::from(text).checked_sub(all)?;
        if begin < usize::from(device.headroom_out) {
            return None;
        }
        let sum = match sum {
            _ if device.checksum_out => Sum::ZERO,
            Some(sum) => sum,
            None => Sum::ZERO.bytes(bytes.get(text.into()..usize::from(text) + usize::from(len))?),
        };
        let head = bytes.get_mut(begin..text.into())?;
        let (link, rest) = head.split_at_mut_checked(link_len)?;
        let (ip, tcp) = rest.split_at_mut_checked(ip_len)?;
        if link_len > 0 {
            hop.frame(self.ethertype()).emit(link)?;
        }
        self.ip(hop, tcp_len + usize::from(len), ip)?;
        self.header.emit(self.flags, &self.options, tcp)?;
        let checksum = if device.checksum_out {
            let partial =
                pseudo(&self.local, &self.remote, protocol::TCP, (tcp_len + usize::from(len)) as u32);
            Header::mut_from_prefix(tcp).ok()?.0.checksum = partial.fold().into();
            Some(ChecksumRequest { start: (link_len + ip_len) as u16, offset: 16 })
        } else {
            tcp::fill_checksum(tcp, &self.local, &self.remote, sum, len.into())?;
            None
        };
        Some(Written { offset: begin as u16, len: all as u16, checksum })
    }

    fn ethertype(&self) -> u16 {
        if self.local.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 }
    }

    fn ip(&self, hop: &Hop, payload: usize, bytes: &mut [u8]) -> Option<usize> {
        if self.local.is_v4() {
            let header = ipv4::Header::new(&self.local, &self.remote, protocol::TCP, self.ttl)?;
            // Segments of one flight that may be fragmented have names of their own (RFC 6864 §4.1).
            let name = self.header.sequence.get() as u16 ^ self.header.source.get();
            let header = if hop.may_fragment { header.fragment(None, name) } else { header };
            return ipv4::Header { tos: self.tos, ..header }.emit(payload, bytes);
        }
        let header = ipv6::Header::new(&self.local, &self.remote, protocol::TCP, self.ttl)?;
        header.with_flow(self.tos, 0).emit(payload, bytes)
    }
}
