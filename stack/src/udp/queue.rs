//! Datagrams that wait to be read: a list of frames, each datagram a run of them.
//!
//! ```text
//!   | first | MORE   MORE   last | first | first | MORE   last |
//! ```
//!
//! The frame that arrived is the buffer, headers and all, so that who sent a datagram and what it was like is read where it stands,
//! and only when somebody asks. A datagram in fragments keeps the fragments' frames. What the records of frames say here:
//!
//! | field | in every frame | in the first of a datagram |
//! |---|---|---|
//! | `offset`, `len` | its data | |
//! | `flags` | [`FrameRecord::MORE`] unless it is the last | |
//! | `seq` | bytes of data that were queued before it | |
//! | `side_previous` | the first frame, plus one | |
//! | `sent_at` | | when it arrived, in ns |
//! | `delivered` | | bytes of data of the whole datagram |
//! | `mate` | | where IP's header begins in the frame; above 16 bits the size of its segments (UDP_GRO), or 0 |
//! | `side_next` | | datagrams that the socket had dropped by then (SO_RXQ_OVFL) |

use crate::device::{Fragment, FrameIndex, Memory};
use crate::frames::list::FrameList;
use crate::frames::pool::Charge;
use crate::frames::{FrameRecord, Frames, link, linked};
use crate::time::Instant;
use crate::wire::ip::Ip;
use crate::wire::udp::HEADER_LEN;
use crate::wire::{ipv4, ipv6};

#[cfg(test)]
mod tests;

/// Most segments of one datagram that is read (UDP_MAX_SEGMENTS, once UDP_GRO_CNT_MAX).
const SEGMENTS_MAX: u32 = 64;

/// What a queue keeps of a datagram beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// When it arrived.
    pub(crate) arrived: Instant,
    /// Where IP's header begins in its first frame.
    pub(crate) begin: u16,
    /// Bytes of its data.
    pub(crate) len: u32,
    /// Bytes of each of its segments but the last, if several arrived; else 0.
    pub(crate) segment: u16,
    /// Datagrams that the socket had dropped by then.
    pub(crate) drops: u32,
}

impl Head {
    fn of(record: &FrameRecord) -> Self {
        Self {
            arrived: Instant(record.sent_at),
            begin: record.mate as u16,
            len: record.delivered,
            segment: (record.mate >> 16) as u16,
            drops: record.side_next,
        }
    }

    fn put(&self, record: &mut FrameRecord) {
        record.sent_at = self.arrived.0;
        record.mate = u32::from(self.segment) << 16 | u32::from(self.begin);
        record.delivered = self.len;
        record.side_next = self.drops;
    }
}

/// What the headers in front of a datagram's data say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Who sent it.
    pub(crate) source: (Ip, u16),
    /// Whom it was for.
    pub(crate) destination: Ip,
    /// Hops that were left.
    pub(crate) ttl: u8,
    /// Differentiated services and ECN, or traffic class.
    pub(crate) tos: u8,
}

impl Said {
    /// Reads the headers of IP at `begin`, and UDP's before `data`, in a frame's bytes: they were verified when they arrived.
    pub(crate) fn read(bytes: &[u8], begin: u16, data: u16) -> Option<Self> {
        let header = bytes.get(begin.into()..)?;
        let port = bytes.get(usize::from(data).checked_sub(HEADER_LEN)?..)?;
        let port = u16::from_be_bytes(*port.first_chunk()?);
        if header.first()? >> 4 == 4 {
            let header: &[u8; ipv4::HEADER_LEN] = header.first_chunk()?;
            let [_, tos, _, _, _, _, _, _, ttl, _, _, _, a, b, c, d, e, f, g, h] = *header;
            let (source, destination) = (Ip::v4([a, b, c, d]), Ip::v4([e, f, g, h]));
            return Some(Self { source: (source, port), destination, ttl, tos });
        }
        let header: &[u8; ipv6::HEADER_LEN] = header.first_chunk()?;
        let (head, addresses) = header.split_first_chunk::<8>()?;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let tos = head[0] << 4 | head[1] >> 4;
        let destination = Ip(*destination.first_chunk()?);
        Some(Self { source: (Ip(*source), port), destination, ttl: head[7], tos })
    }
}

/// Adds a datagram, whose frames are the socket's already. `pieces` are its data, in order and at least one.
pub(crate) fn push(frames: &mut Frames<'_>, list: &mut FrameList, head: &Head, pieces: &[Fragment]) {
    let Some(first) = pieces.first() else { return };
    let mut before = list.last().and_then(|last| frames.record(last)).map_or(0, |last| last.end().0);
    for (at, piece) in pieces.iter().enumerate() {
        let Some(record) = frames.record_mut(piece.frame) else { return };
        let more = if at + 1 < pieces.len() { FrameRecord::MORE } else { 0 };
        record.flags = FrameRecord::RECEIVED | more;
        (record.offset, record.len, record.seq) = (piece.offset, piece.len, before);
        record.side_previous = link(first.frame);
        if at == 0 {
            head.put(record);
        }
        before = before.wrapping_add(piece.len.into());
        frames.push_back(list, piece.frame);
    }
}

/// The first datagram, and the frame that it begins in.
pub(crate) fn first(frames: &Frames<'_>, list: &FrameList) -> Option<(FrameIndex, Head)> {
    let frame = list.first()?;
    Some((frame, Head::of(frames.record(frame)?)))
}

/// The last datagram, likewise.
pub(crate) fn last(frames: &Frames<'_>, list: &FrameList) -> Option<(FrameIndex, Head)> {
    let frame = linked(frames.record(list.last()?)?.side_previous)?;
    Some((frame, Head::of(frames.record(frame)?)))
}

/// Adds a frame, which is the socket's already, to the last datagram as its next segment, if it can be that (UDP_GRO): as long as the
/// others, or shorter, and then the last. What the headers say the caller has compared.
pub(crate) fn join(frames: &mut Frames<'_>, list: &mut FrameList, piece: Fragment) -> bool {
    let Some((frame, head)) = last(frames, list) else { return false };
    let segment = if head.segment == 0 { head.len } else { head.segment.into() };
    let len = u32::from(piece.len);
    let is_next = (1..=segment).contains(&len)
        && head.len.is_multiple_of(segment)
        && head.len / segment < SEGMENTS_MAX
        && head.len.saturating_add(len) <= u32::from(u16::MAX) - (ipv6::HEADER_LEN + HEADER_LEN) as u32;
    let (Some(tail), true) = (list.last(), is_next) else { return false };
    let Some(record) = frames.record_mut(tail) else { return false };
    record.flags |= FrameRecord::MORE;
    let end = record.end();
    let Some(record) = frames.record_mut(piece.frame) else { return false };
    (record.offset, record.len, record.seq) = (piece.offset, piece.len, end.0);
    (record.flags, record.side_previous) = (FrameRecord::RECEIVED, link(frame));
    frames.push_back(list, piece.frame);
    if let Some(record) = frames.record_mut(frame) {
        Head { len: head.len + len, segment: segment as u16, ..head }.put(record);
    }
    true
}

/// Adds a frame without data to the one datagram of a list, which begins with it if there is none yet.
pub(crate) fn begin_piece(frames: &mut Frames<'_>, list: &mut FrameList, piece: Fragment, now: Instant) {
    let last = list.last().and_then(|last| frames.record_mut(last));
    let before = last.map_or(0, |last| {
        last.flags |= FrameRecord::MORE;
        last.end().0
    });
    let first = list.first().unwrap_or(piece.frame);
    let Some(record) = frames.record_mut(piece.frame) else { return };
    record.flags = FrameRecord::RECEIVED;
    (record.offset, record.len, record.seq) = (piece.offset, 0, before);
    record.side_previous = link(first);
    if first == piece.frame {
        Head { arrived: now, begin: 0, len: 0, segment: 0, drops: 0 }.put(record);
    }
    frames.push_back(list, piece.frame);
}

/// The last frame of the one datagram of a list has so many bytes more.
pub(crate) fn lengthen(frames: &mut Frames<'_>, list: &mut FrameList, more: u16) {
    let (Some(first), Some(last)) = (list.first(), list.last()) else { return };
    frames.grow(list, last, more);
    if let Some(record) = frames.record_mut(first) {
        let head = Head::of(record);
        Head { len: head.len + u32::from(more), ..head }.put(record);
    }
}

/// Copies the data of the first datagram, from the byte `skip` on, into the slices; how many bytes.
pub(crate) fn copy<M: Memory>(
    frames: &Frames<'_>,
    list: &FrameList,
    memory: &M,
    mut skip: usize,
    to: &mut [&mut [u8]],
) -> usize {
    let (mut done, mut slice, mut at) = (0, 0, 0);
    for frame in frames.walk(list) {
        let Some(record) = frames.record(frame) else { break };
        let begin = usize::from(record.offset);
        let bytes = memory.bytes(frame).and_then(|bytes| bytes.get(begin..begin + usize::from(record.len)));
        let bytes = bytes.unwrap_or_default();
        let mut text = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
        skip -= bytes.len() - text.len();
        while let Some(room) = to.get_mut(slice).filter(|_| !text.is_empty()) {
            let room = room.get_mut(at..).unwrap_or_default();
            let len = room.len().min(text.len());
            room[..len].copy_from_slice(&text[..len]);
            (done, at, text) = (done + len, at + len, &text[len..]);
            if len == room.len() {
                (slice, at) = (slice + 1, 0);
            }
        }
        if !record.has(FrameRecord::MORE) || slice == to.len() {
            break;
        }
    }
    done
}

/// Drops the first datagram.
#[inline]
pub(crate) fn pop(frames: &mut Frames<'_>, list: &mut FrameList, charge: &mut Charge) {
    for _ in 0..frames.len() {
        let Some(frame) = frames.pop_front(list) else { break };
        let goes_on = frames.record(frame).is_some_and(|record| record.has(FrameRecord::MORE));
        frames.release(frame, charge);
        if !goes_on {
            break;
        }
    }
}

/// Drops all.
pub(crate) fn clear(frames: &mut Frames<'_>, list: &mut FrameList, charge: &mut Charge) {
    for _ in 0..frames.len() {
        let Some(frame) = frames.pop_front(list) else { break };
        frames.release(frame, charge);
    }
    *list = FrameList::default();
}

/// Whether a list is one of whole datagrams.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(frames: &Frames<'_>, list: &FrameList) -> Result<(), &'static str> {
    frames.check_list(list)?;
    let mut inside: Option<(u32, u32)> = None;
    for frame in frames.walk(list) {
        let Some(record) = frames.record(frame) else { break };
        let (first, missing) = inside.unwrap_or((link(frame), record.delivered));
        if record.side_previous != first || u32::from(record.len) > missing {
            return Err("a frame is of another datagram than its neighbours");
        }
        let missing = missing - u32::from(record.len);
        inside = record.has(FrameRecord::MORE).then_some((first, missing));
        if inside.is_none() && missing != 0 {
            return Err("a datagram is not as long as it says");
        }
    }
    if inside.is_none() { Ok(()) } else { Err("the last datagram has no end") }
}
