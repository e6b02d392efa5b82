//! How a packet leaves: to which address on the link, as much as is known, and what becomes of it otherwise.
//!
//! A packet whose next hop has no link address yet is written as one that has, and waits: [`Hop::hold`] keeps it in a list
//! of frames, and [`crate::stack`] takes that to the neighbour cache once whoever sends is done. The text of a socket's own
//! queue stays in that, so what waits is a copy.

use crate::device::{ChecksumRequest, FrameIndex};
use crate::error::Error;
use crate::frames::{Frames, link, linked};
use crate::wire::ethernet::{Address, Frame, Tag};
use crate::wire::ip::Ip;

/// What is known of the next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Via {
    /// Its link address; none is needed where packets begin with IP's header.
    #[default]
    Link,
    /// It was confirmed too long ago to be taken for granted: the neighbour of this index.
    Old(u32),
    /// Who has this address is to be found out first.
    Unresolved(Ip),
    /// There is no way: packets are dropped.
    Nowhere(Error),
}

/// The way of packets to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Our address on the link.
    pub(crate) source: Address,
    /// The next hop's.
    pub(crate) destination: Address,
    /// The VLAN's tag.
    pub(crate) tag: Option<Tag>,
    /// How far the next hop is known.
    pub(crate) via: Via,
    /// Bytes of the largest datagram of that path, if they were looked up just now; else 0.
    pub(crate) mtu: u16,
    /// The same of the route's first link.
    pub(crate) link_mtu: u16,
    /// The route's least retransmission timeout, in milliseconds, if it was looked up just now and says one.
    pub(crate) rto_min_ms: u16,
    /// Not 0: the path may fragment what is sent.
    pub(crate) may_fragment: bool,
    /// Something was sent.
    pub(crate) is_used: bool,
    /// What waits, the latest first: a frame plus one.
    pub(crate) waiting: u32,
}

impl Hop {
    /// The link's header of a packet of this type.
    #[inline]
    pub(crate) const fn frame(&self, ethertype: u16) -> Frame {
        let (destination, source) = (self.destination, self.source);
        Frame { destination, source, tags: [self.tag, None], ethertype }
    }

    /// Bytes of that header.
    #[inline]
    pub(crate) const fn header_len(&self) -> usize {
        crate::wire::ethernet::HEADER_LEN + if self.tag.is_some() { 4 } else { 0 }
    }

    /// Whether packets can be given to the device.
    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.via, Via::Link | Via::Old(_))
    }

    /// Keeps a packet that can't be sent yet, or drops it where it never can. The frame is nobody else's; the packet is
    /// its bytes `offset..offset + len`.
    #[cold]
    pub(crate) fn hold(
        &mut self,
        frames: &mut Frames<'_>,
        frame: FrameIndex,
        (offset, len): (u16, u16),
        checksum: Option<ChecksumRequest>,
    ) {
        let waits = matches!(self.via, Via::Unresolved(_));
        match frames.record_mut(frame).filter(|_| waits) {
            Some(record) => {
                (record.offset, record.len, record.next) = (offset, len, self.waiting);
                record.seq = checksum.map_or(0, pack);
                self.waiting = link(frame);
            }
            None => {
                frames.discard(frame);
            }
        }
    }

    /// Takes the latest of the packets that were kept.
    pub(crate) fn take_waiting(&mut self, frames: &mut Frames<'_>) -> Option<FrameIndex> {
        let frame = linked(self.waiting)?;
        self.waiting = frames.record_mut(frame).map_or(0, |record| core::mem::take(&mut record.next));
        Some(frame)
    }
}

/// A request in the word of a record that counts text elsewhere: 0 is none.
const fn pack(request: ChecksumRequest) -> u32 {
    (request.start as u32) << 16 | request.offset as u32
}

/// The request in such a word.
pub(crate) const fn unpack(word: u32) -> Option<ChecksumRequest> {
    if word == 0 {
        return None;
    }
    Some(ChecksumRequest { start: (word >> 16) as u16, offset: word as u16 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::{HEADER_LEN, IPV4};

    #[test]
    fn a_request_is_a_word() {
        assert_eq!(
            (unpack(0), unpack(34 << 16 | 16)),
            (None, Some(ChecksumRequest { start: 34, offset: 16 }))
        );
        assert_eq!(pack(ChecksumRequest { start: 34, offset: 16 }), 34 << 16 | 16);
    }

    #[test]
    fn a_tag_stands_in_the_header_and_counts() {
        let tag = Some(Tag { tpid: crate::wire::ethernet::C_TAG, control: 7 });
        for hop in [Hop::default(), Hop { tag, ..Hop::default() }] {
            let mut bytes = [0; 32];
            assert_eq!(hop.frame(IPV4).emit(&mut bytes), Some(hop.header_len()));
        }
        assert_eq!(Hop::default().header_len(), HEADER_LEN);
    }
}
