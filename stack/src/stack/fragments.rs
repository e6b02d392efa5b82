//! Fragments that arrive, and the datagrams that come of them.
//!
//! A whole datagram is put together in one frame if it fits, behind a header like that of the first fragment, and then goes the
//! way of any other. RFC 8200 §4.5 and RFC 791 §3.2 don't ask for the header itself.

use super::Stack;
use super::icmp::{Either, copy};
use super::other::{Kind, Seen};
use super::parcel::Parcel;
use crate::device::{Device, Fragment, FrameIndex};
use crate::frames::Frames;
use crate::frames::pool::{Charge, Purpose};
use crate::ip::reassembly::{Arrived, Expired, Limits, Outcome, PIECES_MAX, Reassembly, Whole, Why};
use crate::ip::tables::PER_SOURCE;
use crate::stats::Counter;
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::{Malformed, icmp, icmpv6, ipv6, protocol};

/// The pieces of a datagram, in order.
pub(super) struct Pieces {
    all: [Fragment; PIECES_MAX as usize],
    len: usize,
}

impl Pieces {
    pub(super) const fn new() -> Self {
        let none = Fragment { frame: FrameIndex(0), offset: 0, len: 0 };
        Self { all: [none; PIECES_MAX as usize], len: 0 }
    }

    pub(super) fn push(&mut self, piece: Fragment) {
        if let Some(place) = self.all.get_mut(self.len) {
            (*place, self.len) = (piece, self.len + 1);
        }
    }

    /// So many bytes more are in the last.
    pub(super) fn lengthen(&mut self, bytes: u16) {
        if let Some(last) = self.len.checked_sub(1).and_then(|last| self.all.get_mut(last)) {
            last.len = last.len.saturating_add(bytes);
        }
    }

    pub(super) fn as_slice(&self) -> &[Fragment] {
        &self.all[..self.len]
    }

    /// The bytes `from..to` of it. The first piece stays, though it be empty.
    pub(super) fn cut(&self, from: u16, to: u16) -> Self {
        let (mut part, mut at) = (Self::new(), 0u16);
        for piece in self.as_slice() {
            let begin = from.saturating_sub(at).min(piece.len);
            let end = to.saturating_sub(at).min(piece.len);
            at = at.saturating_add(piece.len);
            if end > begin || part.len == 0 {
                let len = end.saturating_sub(begin);
                part.push(Fragment { offset: piece.offset + begin, len, ..*piece });
            }
        }
        part
    }
}

/// The same list without its first bytes.
fn without(mut pieces: Pieces, mut bytes: u16) -> Pieces {
    for piece in &mut pieces.all[..pieces.len] {
        let cut = bytes.min(piece.len);
        (piece.offset, piece.len, bytes) = (piece.offset + cut, piece.len - cut, bytes - cut);
    }
    pieces
}

impl<D: Device> Stack<'_, '_, D> {
    /// A fragment; true if its frame is kept.
    pub(super) fn fragment(&mut self, seen: &Seen) -> bool {
        self.count(Counter::FragmentsIn);
        let Some(fragment) = seen.fragment else { return false };
        let header_len = match seen.source.is_v4() {
            true => seen.payload - seen.begin,
            // The fixed header isn't counted among the 65,535 bytes, and the fragment header goes.
            false => {
                (seen.payload - seen.begin).saturating_sub((ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN) as u16)
            }
        };
        let ends = ((&seen.source, 0), (&seen.destination, 0));
        let (secret, name) = (&self.parts.header.secret, u64::from(fragment.identification));
        let hash = secret.words(&[secret.tuple(ends.0, ends.1).into(), name]);
        let arrived = Arrived {
            source: seen.source,
            destination: seen.destination,
            protocol: seen.protocol,
            fragment,
            len: seen.len(),
            header_len,
            ecn: seen.ecn,
            hash,
            frame: seen.frame.0,
            offset: seen.payload,
        };
        self.make_room();
        let now = self.now;
        let outcome = self.with_reassembly(|reassembly, frames, charge| {
            let outcome = reassembly.receive(&arrived, now, &mut |frame| {
                frames.release(FrameIndex(frame), charge);
            });
            if matches!(outcome, Outcome::Kept | Outcome::Whole(_)) {
                frames.own(seen.frame, charge, u32::MAX);
            }
            outcome
        });
        match outcome {
            Outcome::Kept => true,
            Outcome::Whole(handle) => {
                let mut pieces = Pieces::new();
                let whole = self.parts.reassembly().take(handle, |piece| {
                    let frame = FrameIndex(piece.frame);
                    pieces.push(Fragment { frame, offset: piece.offset, len: piece.len });
                });
                if let Some(whole) = whole {
                    self.count(Counter::Reassembled);
                    self.whole(&whole, seen, &pieces);
                }
                self.release_pieces(&pieces);
                true
            }
            Outcome::Atomic => false,
            Outcome::Refused(why) => {
                self.count(Counter::ReassemblyDropped);
                if why == Why::TooLong && !seen.source.is_v4() {
                    // RFC 8200 §4.5: "an ICMP Parameter Problem, Code 0, message should be sent to the source of the fragment,
                    // pointing to the Fragment Offset field of the fragment packet."
                    let pointer = u32::from(seen.payload - seen.begin).saturating_sub(6);
                    let message = icmpv6::Message::ParameterProblem { code: 0, pointer };
                    self.send_error(seen, Either::V6(message));
                }
                false
            }
        }
    }

    /// Frames of fragments have a limit of their own: the oldest datagram gives way to it.
    fn make_room(&mut self) {
        let charge = self.parts.ip.fragments;
        if charge.frames >= charge.limit {
            self.with_reassembly(|reassembly, frames, charge| {
                reassembly.drop_oldest(&mut |frame| {
                    frames.release(FrameIndex(frame), charge);
                });
            });
            self.count(Counter::ReassemblyDropped);
        }
    }

    fn with_reassembly<R>(
        &mut self,
        act: impl FnOnce(&mut Reassembly<'_>, &mut Frames<'_>, &mut Charge) -> R,
    ) -> R {
        let parts = &mut *self.parts;
        let limits = Limits { per_source: PER_SOURCE };
        let (state, places) = (&mut parts.ip.reassembly, &mut *parts.datagram_places);
        let mut reassembly = Reassembly::new(state, parts.datagrams, parts.pieces, places, limits);
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        act(&mut reassembly, &mut frames, &mut parts.ip.fragments)
    }

    pub(super) fn release_pieces(&mut self, pieces: &Pieces) {
        let parts = &mut *self.parts;
        let mut frames = Frames { pool: parts.pool, records: parts.frames, states: self.shared.frames };
        for piece in pieces.as_slice() {
            // A socket may have taken them.
            if frames.record(piece.frame).is_some_and(|record| record.owner == 0) {
                frames.release(piece.frame, &mut parts.ip.fragments);
            }
        }
    }

    /// A datagram is whole. `seen` is its last fragment to arrive.
    pub(super) fn whole(&mut self, whole: &Whole, seen: &Seen, pieces: &Pieces) {
        let is_echo = self.first_byte(pieces).is_some_and(|kind| {
            matches!((whole.protocol, kind), (protocol::ICMP, 8) | (protocol::ICMPV6, 128))
        });
        if is_echo && usize::from(whole.len) >= icmp::HEADER_LEN {
            return self.echo_of_pieces(whole, seen, pieces);
        }
        if whole.protocol == protocol::UDP && self.udp_in_pieces(whole, seen, pieces) {
            return;
        }
        let Some(joined) = self.join(whole, seen, pieces) else {
            return self.count(Counter::FramesShort);
        };
        if !self.joined(&joined) {
            self.discard(joined.frame);
        }
    }

    fn first_byte(&self, pieces: &Pieces) -> Option<u8> {
        let first = pieces.as_slice().first()?;
        self.device.bytes(first.frame)?.get(usize::from(first.offset)).copied()
    }

    /// Puts as much of a datagram as fits into one frame.
    fn join(&mut self, whole: &Whole, seen: &Seen, pieces: &Pieces) -> Option<Seen> {
        let frame = self.frames().take(Purpose::Control)?;
        let ends = (whole.source, whole.destination);
        let parcel = Parcel { ttl: seen.ttl, ..Parcel::new(ends.0, ends.1, whole.protocol) };
        let (begin, size) = (0u16, usize::from(self.device.capabilities().frame_size));
        let header = self
            .device
            .bytes_mut(frame)
            .and_then(|bytes| parcel.emit(None, 0, usize::from(whole.len), bytes.get_mut(begin.into()..)?));
        let Some(header) = header else {
            self.frames().discard(frame);
            return None;
        };
        let mut end = usize::from(begin) + header;
        for piece in pieces.as_slice() {
            let len = usize::from(piece.len).min(size - end);
            if !copy(self.device, (piece.frame, piece.offset.into()), (frame, end), len) {
                break;
            }
            end += len;
        }
        if let Some(record) = self.frames().record_mut(frame) {
            (record.offset, record.len) = (begin, end as u16 - begin);
        }
        Some(Seen {
            frame,
            begin,
            end: end as u16,
            beyond: 0,
            payload: begin + header as u16,
            source: whole.source,
            destination: whole.destination,
            protocol: whole.protocol,
            ecn: whole.ecn,
            fragment: None,
            ..*seen
        })
    }

    /// The reply to an echo request that came in pieces goes in pieces, too.
    fn echo_of_pieces(&mut self, whole: &Whole, seen: &Seen, pieces: &Pieces) {
        self.count(Counter::IcmpIn);
        let is_v4 = whole.source.is_v4();
        let start = match is_v4 {
            true => Sum::ZERO,
            false => pseudo(&whole.source, &whole.destination, protocol::ICMPV6, whole.len.into()),
        };
        if !self.sum_of(start, pieces.as_slice()).holds() {
            return self.shared.counters().malformed(Malformed::Checksum);
        }
        let Some(first) = pieces.as_slice().first() else { return };
        let word = self.device.bytes(first.frame).and_then(|bytes| {
            let begin = usize::from(first.offset);
            bytes.get(begin + 4..begin + icmp::HEADER_LEN)?.first_chunk().copied()
        });
        let Some([a, b, c, d]) = word else { return };
        let (identifier, sequence) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let request = Seen { source: whole.source, destination: whole.destination, fragment: None, ..*seen };
        let message = match is_v4 {
            true => Either::V4(icmp::Message::EchoRequest { identifier, sequence }),
            false => Either::V6(icmpv6::Message::EchoRequest { identifier, sequence }),
        };
        let data = without(Pieces { all: pieces.all, len: pieces.len }, icmp::HEADER_LEN as u16);
        self.answer_echo(&request, message, data.as_slice());
    }

    /// What waits too long for the rest is given up, and its sender told.
    #[cold]
    pub(super) fn run_reassembly_timers(&mut self) {
        // As many as there are at most.
        for _ in 0..self.parts.datagrams.len() {
            if self.parts.reassembly().next().is_none_or(|at| at > self.now) {
                return;
            }
            let (mut pieces, mut expired, now) = (Pieces::new(), None, self.now);
            let was_due = self.parts.reassembly().expire(
                now,
                &mut |one: &Expired| expired = Some(*one),
                &mut |frame| pieces.push(Fragment { frame: FrameIndex(frame), offset: 0, len: 0 }),
            );
            if was_due.is_none() {
                return;
            }
            self.count(Counter::ReassemblyDropped);
            // Its record still says where the packet lies in the frame.
            let first = expired.and_then(|expired| expired.first).map(|(frame, _)| FrameIndex(frame));
            let text = first.and_then(|first| self.frames().text(first));
            if let Some(Ok(Kind::Datagram(seen))) = text.map(|text| self.kind(text, 0)) {
                self.tell_time_exceeded(&seen);
            }
            self.release_pieces(&pieces);
        }
    }

    /// The sum of pieces, one behind the other.
    pub(super) fn sum_of(&self, start: Sum, pieces: &[Fragment]) -> Sum {
        pieces.iter().fold(start, |sum, piece| {
            let begin = usize::from(piece.offset);
            let bytes = self
                .device
                .bytes(piece.frame)
                .and_then(|bytes| bytes.get(begin..begin + usize::from(piece.len)));
            sum.bytes(bytes.unwrap_or_default())
        })
    }
}
