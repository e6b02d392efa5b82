//! Datagrams from fragments, without a copy: a list of frames in the order of their places (RFC 791 §3.2, RFC 815;
//! RFC 8200 §4.5, RFC 5722, RFC 6946).
//!
//! Everything that a sender of fragments can use up is bounded: datagrams and pieces by the records given, pieces of one
//! datagram by [`PIECES_MAX`], datagrams of one source by [`Limits::per_source`]. Where a bound is met the oldest gives
//! way: of that source first, so that a flood from one address costs nobody else.
//!
//! Overlap ends a datagram in either version (Linux has done so for IPv4 since CVE-2018-5391). RFC 5722 §4: "When
//! reassembling an IPv6 datagram, if one or more its constituent fragments is determined to be an overlapping
//! fragment, the entire datagram (and any constituent fragments, including those not yet received) MUST be silently
//! discarded." An exact duplicate is dropped by itself, as RFC 8200 §4.5 allows. Linux takes whatever lies within a
//! run of fragments for a duplicate; here that is an overlap.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::region::slab::{self, Handle, Record, Slab, Tag};
use crate::region::table::{Place, Table};
use crate::time::{Duration, Instant};
use crate::wire::ip::{Fragment, Ip};

#[cfg(test)]
mod tests;

/// How long IPv4 waits from the first fragment to arrive (net.ipv4.ipfrag_time). RFC 1122 §3.3.2: "The reassembly
/// timeout value SHOULD be a fixed value, not set from the remaining TTL. It is recommended that the value lie
/// between 60 seconds and 120 seconds." Linux's half a minute is a departure: it bounds what never completes.
pub const V4_TIMEOUT: Duration = Duration::from_secs(30);
/// How long IPv6 waits (net.ipv6.ip6frag_time). RFC 8200 §4.5: "If insufficient fragments are received to complete
/// reassembly of a packet within 60 seconds of the reception of the first-arriving fragment of that packet, reassembly of
/// that packet must be abandoned".
pub const V6_TIMEOUT: Duration = Duration::from_secs(60);
/// Pieces of one datagram: 64 KiB in fragments for links of 576 bytes. It bounds the walk for each.
pub const PIECES_MAX: u16 = 128;

/// Datagrams that may give way for one piece: each has a piece at least, so the second look finds one.
const EVICTIONS_MAX: usize = 2;

/// A fragment that was kept. Zero bytes are one that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Piece {
    tag: Tag,
    /// Which frame has its bytes.
    pub frame: u32,
    /// The one behind it, plus one.
    next: u32,
    /// Of its first byte, in the datagram's payload.
    pub start: u16,
    /// Bytes.
    pub len: u16,
    /// Where they begin in the frame.
    pub offset: u16,
    padding: u16,
}

/// A datagram of which something has arrived. Zero bytes are one that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Datagram {
    tag: Tag,
    source: Ip,
    destination: Ip,
    /// When it is given up, in nanoseconds.
    deadline: u64,
    identification: u32,
    /// Of source, destination, identification (and IPv4's protocol), under the region's secret.
    hash: u32,
    /// The first piece, plus one, and the last.
    head: u32,
    tail: u32,
    /// Its neighbours in the order of arrival, plus one.
    older: u32,
    newer: u32,
    /// Bytes that are here.
    received: u32,
    /// Bytes that the last fragment says there are.
    total: u16,
    pieces: u16,
    /// What the payload is: the first fragment's, in IPv6.
    protocol: u8,
    /// Codepoints of ECN that fragments had: bit n for codepoint n.
    ecn: u8,
    /// The last fragment is here.
    has_last: u8,
    /// Bytes of headers in front, in words of four.
    header_words: u8,
    padding: u32,
}

impl Record for Piece {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

impl Record for Datagram {
    fn tag(&mut self) -> &mut Tag {
        &mut self.tag
    }
}

/// State beside the records. Zero bytes are that of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    datagrams: Slab,
    pieces: Slab,
    /// The datagram whose first fragment is the longest ago, plus one, and the newest.
    oldest: u32,
    newest: u32,
    /// Nothing is given up before, in nanoseconds.
    next: u64,
}

impl State {
    /// A moment before which nothing expires.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        (self.oldest != 0).then_some(Instant(self.next))
    }
}

/// Bounds beside the numbers of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams of one source that wait at the same time.
    pub per_source: u32,
}

/// A fragment as it arrived. Its headers have been parsed: [`Fragment`]'s own rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Who sent it.
    pub source: Ip,
    /// Whom it is for.
    pub destination: Ip,
    /// What the payload is. In IPv6 it counts of the first fragment only (RFC 8200 §4.5).
    pub protocol: u8,
    /// Its place.
    pub fragment: Fragment,
    /// Bytes of its payload.
    pub len: u16,
    /// Bytes of headers that stay in front of the whole: IPv4's header, or what is behind IPv6's fixed one.
    pub header_len: u16,
    /// Its ECN field.
    pub ecn: u8,
    /// The hash of what names the datagram, under the region's secret.
    pub hash: u32,
    /// Which frame has it.
    pub frame: u32,
    /// Where its payload begins there.
    pub offset: u16,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is a datagram by itself (RFC 6946 §4: "MUST process that packet in isolation from any other packets/fragments").
    Atomic,
    /// Its frame is kept.
    Kept,
    /// Its frame is kept, and the datagram is whole: [`Reassembly::take`].
    Whole(Handle),
    /// Its frame is the caller's still.
    Refused(Why),
}

/// Why a fragment was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is here already.
    Duplicate,
    /// It overlaps with another: the datagram is gone.
    Overlap,
    /// Fragments disagree about the end, or one is behind it, or one has no bytes: the datagram is gone.
    End,
    /// The whole would be longer than 65,535 bytes with its headers: the datagram is gone. RFC 8200 §4.5: "that fragment must
    /// be discarded and an ICMP Parameter Problem, Code 0, message should be sent".
    TooLong,
    /// Fragments with and without ECN are mixed (RFC 3168 §5.3): the datagram is gone.
    Ecn,
    /// In too many pieces: the datagram is gone.
    TooMany,
    /// No record is free, and none can be made.
    Full,
}

/// What a whole datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Who sent it.
    pub source: Ip,
    /// Whom it is for.
    pub destination: Ip,
    /// What the payload is.
    pub protocol: u8,
    /// Bytes of the payload.
    pub len: u16,
    /// The ECN field of the whole.
    pub ecn: u8,
}

/// A datagram that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Who sent it.
    pub source: Ip,
    /// Whom it was for.
    pub destination: Ip,
    /// The frame of the first fragment and where its payload begins, if it has arrived: then the sender is told.
    ///
    /// RFC 1122 §3.3.2: "the partially-reassembled datagram MUST be discarded and an ICMP Time Exceeded message sent to the
    /// source host (if fragment zero has been received)." RFC 8200 §4.5 has the same.
    pub first: Option<(u32, u16)>,
}

/// CE if any fragment has it, and never without ECN on the way (RFC 3168 §5.3; Linux's ip_frag_ecn_table).
fn ecn(seen: u8) -> Option<u8> {
    match seen & 15 {
        0b0001 => Some(0),
        seen if seen & 1 == 1 => None,
        seen if seen & 0b1000 != 0 => Some(3),
        0b0010 => Some(1),
        _ => Some(2),
    }
}

/// Everything together, over borrowed records.
#[derive(Debug)]
pub struct Reassembly<'a> {
    state: &'a mut State,
    datagrams: &'a mut [Datagram],
    pieces: &'a mut [Piece],
    places: &'a mut [Place],
    limits: Limits,
}

impl<'a> Reassembly<'a> {
    /// Over these records; `places` are [`Table::places_for`] the datagrams.
    #[must_use]
    pub fn new(
        state: &'a mut State,
        datagrams: &'a mut [Datagram],
        pieces: &'a mut [Piece],
        places: &'a mut [Place],
        limits: Limits,
    ) -> Self {
        Self { state, datagrams, pieces, places, limits }
    }

    /// A fragment has arrived. `free` is given the frames of what gives way to it or ends by it.
    pub fn receive(&mut self, arrived: &Arrived, now: Instant, free: &mut impl FnMut(u32)) -> Outcome {
        let fragment = arrived.fragment;
        if fragment.offset == 0 && !fragment.more {
            return Outcome::Atomic;
        }
        let handle = match self.find(arrived) {
            Some(index) => self.handle(index),
            None => self.start(arrived, now, free),
        };
        let Some(handle) = handle else { return Outcome::Refused(Why::Full) };
        match self.put(handle, arrived, free) {
            Ok(true) => Outcome::Whole(handle),
            Ok(false) => Outcome::Kept,
            Err(why) => {
                // A datagram with nothing in it doesn't stay either.
                let is_empty = self.datagrams[handle.index as usize].head == 0;
                if is_empty || !matches!(why, Why::Duplicate | Why::Full) {
                    self.discard(handle.index, free);
                }
                Outcome::Refused(why)
            }
        }
    }

    /// Gives the pieces of a whole datagram away in order, and forgets it. Their frames are the caller's.
    pub fn take(&mut self, handle: Handle, mut visit: impl FnMut(&Piece)) -> Option<Whole> {
        let datagram = *slab::find(self.datagrams, handle)?;
        if datagram.has_last == 0 || datagram.received != u32::from(datagram.total) {
            return None;
        }
        self.remove(handle.index, &mut visit);
        Some(Whole {
            source: datagram.source,
            destination: datagram.destination,
            protocol: datagram.protocol,
            len: datagram.total,
            ecn: ecn(datagram.ecn)?,
        })
    }

    /// The datagram whose first fragment is the longest ago gives way: frames are scarce.
    pub fn drop_oldest(&mut self, free: &mut impl FnMut(u32)) {
        if let Some(oldest) = self.state.oldest.checked_sub(1) {
            self.discard(oldest, free);
        }
    }

    /// A moment before which nothing expires.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.state.next()
    }

    /// Gives up one datagram whose time is over; call until `None`. `tell` sees it before its frames are freed.
    pub fn expire(
        &mut self,
        now: Instant,
        tell: &mut impl FnMut(&Expired),
        free: &mut impl FnMut(u32),
    ) -> Option<()> {
        if now.0 < self.state.next {
            return None;
        }
        // One walk in a while: both versions' datagrams are in one list, and IPv6's live longer.
        let (mut next, mut at, mut due) = (u64::MAX, self.state.oldest, None);
        for _ in 0..self.datagrams.len() {
            let Some(index) = at.checked_sub(1) else { break };
            let Some(datagram) = self.datagrams.get(index as usize) else { break };
            if datagram.deadline <= now.0 {
                due = Some(index);
                break;
            }
            (next, at) = (next.min(datagram.deadline), datagram.newer);
        }
        let Some(index) = due else {
            self.state.next = next;
            return None;
        };
        let datagram = self.datagrams[index as usize];
        let head = datagram.head.checked_sub(1).and_then(|head| self.pieces.get(head as usize));
        let first = head.filter(|piece| piece.start == 0).map(|piece| (piece.frame, piece.offset));
        tell(&Expired { source: datagram.source, destination: datagram.destination, first });
        let had = self.state.datagrams.used();
        self.discard(index, free);
        if self.state.datagrams.used() == had {
            // A list of nonsense: it must not be walked for ever.
            (self.state.oldest, self.state.newest) = (0, 0);
            return None;
        }
        Some(())
    }

    fn find(&mut self, arrived: &Arrived) -> Option<u32> {
        let datagrams = &*self.datagrams;
        let is_it = |index: u32| {
            datagrams.get(index as usize).is_some_and(|datagram| {
                let name = (datagram.source, datagram.destination, datagram.identification);
                // RFC 791 §3.2 has the protocol in the name, RFC 8200 §4.5 not.
                name == (arrived.source, arrived.destination, arrived.fragment.identification)
                    && (!arrived.source.is_v4() || datagram.protocol == arrived.protocol)
                    && datagram.tag.is_used()
            })
        };
        Table::new(self.places).find(arrived.hash, is_it)
    }

    fn handle(&self, index: u32) -> Option<Handle> {
        let datagram = self.datagrams.get(index as usize)?;
        Some(Handle { index, generation: datagram.tag.generation })
    }

    /// A new datagram; others give way if they must.
    fn start(&mut self, arrived: &Arrived, now: Instant, free: &mut impl FnMut(u32)) -> Option<Handle> {
        let (count, first) = self.of_source(&arrived.source);
        if count >= self.limits.per_source {
            self.discard(first?, free);
        }
        let handle = match self.state.datagrams.take(self.datagrams) {
            Some(handle) => handle,
            None => {
                self.discard(self.state.oldest.checked_sub(1)?, free);
                self.state.datagrams.take(self.datagrams)?
            }
        };
        if !Table::new(self.places).insert(arrived.hash, handle.index) {
            self.state.datagrams.give(self.datagrams, handle);
            return None;
        }
        let timeout = if arrived.source.is_v4() { V4_TIMEOUT } else { V6_TIMEOUT };
        let deadline = (now + timeout).0;
        let newest = self.state.newest;
        let record = self.datagrams.get_mut(handle.index as usize)?;
        *record = Datagram {
            tag: record.tag,
            source: arrived.source,
            destination: arrived.destination,
            deadline,
            identification: arrived.fragment.identification,
            hash: arrived.hash,
            older: newest,
            protocol: arrived.protocol,
            ..Datagram::default()
        };
        let plus_one = handle.index + 1;
        match newest.checked_sub(1).and_then(|newest| self.datagrams.get_mut(newest as usize)) {
            Some(newest) => newest.newer = plus_one,
            None => (self.state.oldest, self.state.next) = (plus_one, deadline),
        }
        self.state.newest = plus_one;
        self.state.next = self.state.next.min(deadline);
        Some(handle)
    }

    /// How many datagrams of a source wait, and the oldest of them.
    fn of_source(&self, source: &Ip) -> (u32, Option<u32>) {
        let (mut count, mut first, mut at) = (0, None, self.state.oldest);
        for _ in 0..self.datagrams.len() {
            let Some(index) = at.checked_sub(1) else { break };
            let Some(datagram) = self.datagrams.get(index as usize) else { break };
            if datagram.source == *source {
                first = first.or(Some(index));
                count += 1;
            }
            at = datagram.newer;
        }
        (count, first)
    }

    /// Puts a fragment into its place; true if the datagram is whole then.
    fn put(&mut self, handle: Handle, arrived: &Arrived, free: &mut impl FnMut(u32)) -> Result<bool, Why> {
        let mut datagram = *slab::find(self.datagrams, handle).ok_or(Why::Full)?;
        let (start, len) = (arrived.fragment.offset, arrived.len);
        let end = u32::from(start) + u32::from(len);
        let is_first = start == 0;
        if is_first {
            datagram.header_words = arrived.header_len.div_ceil(4).min(255) as u8;
        }
        if end + u32::from(arrived.header_len).max(u32::from(datagram.header_words) * 4) > u32::from(u16::MAX)
        {
            return Err(Why::TooLong);
        }
        let before = self.place(&datagram, start, len)?;
        let is_behind = datagram.has_last != 0 && end > u32::from(datagram.total);
        let tail = datagram.tail.checked_sub(1).and_then(|tail| self.pieces.get(tail as usize));
        let ends_early = tail.is_some_and(|tail| u32::from(tail.start) + u32::from(tail.len) > end);
        let is_other_end = datagram.has_last != 0 && end != u32::from(datagram.total);
        if len == 0 || is_behind || !arrived.fragment.more && (ends_early || is_other_end) {
            return Err(Why::End);
        }
        datagram.ecn |= 1 << (arrived.ecn & 3);
        ecn(datagram.ecn).ok_or(Why::Ecn)?;
        if datagram.pieces >= PIECES_MAX {
            return Err(Why::TooMany);
        }
        if !arrived.fragment.more {
            (datagram.has_last, datagram.total) = (1, end as u16);
        }
        if is_first {
            datagram.protocol = arrived.protocol;
        }
        let piece = self.piece(handle.index, free).ok_or(Why::Full)?;
        // What gave way for it may have been this one's neighbours in the order of arrival.
        let now = &self.datagrams[handle.index as usize];
        (datagram.older, datagram.newer) = (now.older, now.newer);
        let link = match before {
            Some(before) => &mut self.pieces.get_mut(before as usize).ok_or(Why::Full)?.next,
            None => &mut datagram.head,
        };
        let next = core::mem::replace(link, piece + 1);
        if next == 0 {
            datagram.tail = piece + 1;
        }
        let record = &mut self.pieces[piece as usize];
        let (frame, offset) = (arrived.frame, arrived.offset);
        *record = Piece { tag: record.tag, frame, next, start, len, offset, padding: 0 };
        datagram.pieces = datagram.pieces.saturating_add(1);
        datagram.received = datagram.received.saturating_add(len.into());
        self.datagrams[handle.index as usize] = datagram;
        Ok(datagram.has_last != 0 && datagram.received == u32::from(datagram.total))
    }

    /// The piece behind which a fragment belongs; `None` if it is the first.
    fn place(&self, datagram: &Datagram, start: u16, len: u16) -> Result<Option<u32>, Why> {
        let end = |piece: &Piece| u32::from(piece.start) + u32::from(piece.len);
        // Nearly all come in order.
        let tail = datagram.tail.checked_sub(1);
        if let Some(index) = tail
            && let Some(piece) = self.pieces.get(index as usize)
            && end(piece) <= u32::from(start)
        {
            return Ok(Some(index));
        }
        let (mut before, mut at) = (None, datagram.head);
        for _ in 0..=PIECES_MAX {
            let Some(index) = at.checked_sub(1) else { break };
            let Some(piece) = self.pieces.get(index as usize) else { break };
            if (piece.start, piece.len) == (start, len) {
                return Err(Why::Duplicate);
            }
            if u32::from(start) + u32::from(len) <= u32::from(piece.start) {
                break;
            }
            if end(piece) > u32::from(start) {
                return Err(Why::Overlap);
            }
            (before, at) = (Some(index), piece.next);
        }
        Ok(before)
    }

    /// A free piece; the oldest datagram but this one gives way.
    fn piece(&mut self, keep: u32, free: &mut impl FnMut(u32)) -> Option<u32> {
        for _ in 0..EVICTIONS_MAX {
            if let Some(handle) = self.state.pieces.take(self.pieces) {
                return Some(handle.index);
            }
            let oldest = self.state.oldest.checked_sub(1)?;
            let victim = if oldest == keep {
                self.datagrams.get(oldest as usize)?.newer.checked_sub(1)?
            } else {
                oldest
            };
            self.discard(victim, free);
        }
        None
    }

    fn discard(&mut self, index: u32, free: &mut impl FnMut(u32)) {
        self.remove(index, &mut |piece| free(piece.frame));
    }

    /// Takes a datagram out of everything, and visits its pieces in order.
    fn remove(&mut self, index: u32, visit: &mut impl FnMut(&Piece)) {
        let Some(datagram) = self.datagrams.get(index as usize).copied() else { return };
        let Some(handle) = self.handle(index) else { return };
        if !datagram.tag.is_used() {
            return;
        }
        Table::new(self.places).remove(datagram.hash, index);
        self.unlink(&datagram);
        let mut at = datagram.head;
        for _ in 0..datagram.pieces.min(PIECES_MAX) {
            let Some(index) = at.checked_sub(1) else { break };
            let Some(piece) = self.pieces.get(index as usize).copied() else { break };
            // A list of nonsense may go through free pieces, whose frames are nobody's.
            let handle = Handle { index, generation: piece.tag.generation };
            if !self.state.pieces.give(self.pieces, handle) {
                break;
            }
            visit(&piece);
            at = piece.next;
        }
        self.state.datagrams.give(self.datagrams, handle);
    }

    fn unlink(&mut self, datagram: &Datagram) {
        match datagram.older.checked_sub(1).and_then(|older| self.datagrams.get_mut(older as usize)) {
            Some(older) => older.newer = datagram.newer,
            None => self.state.oldest = datagram.newer,
        }
        match datagram.newer.checked_sub(1).and_then(|newer| self.datagrams.get_mut(newer as usize)) {
            Some(newer) => newer.older = datagram.older,
            None => self.state.newest = datagram.older,
        }
    }

    /// Datagrams that wait, and their pieces.
    #[must_use]
    pub const fn used(&self) -> (u32, u32) {
        (self.state.datagrams.used(), self.state.pieces.used())
    }

    /// Whether the records hold together.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&mut self) -> Result<(), &'static str> {
        self.state.datagrams.check(self.datagrams)?;
        self.state.pieces.check(self.pieces)?;
        let (mut at, mut older, mut datagrams, mut pieces) = (self.state.oldest, 0, 0, 0);
        while let Some(index) = at.checked_sub(1) {
            let datagram = self.datagrams.get(index as usize).ok_or("a datagram's name is out of range")?;
            if datagrams > self.datagrams.len() || datagram.older != older || !datagram.tag.is_used() {
                return Err("the list of datagrams isn't one");
            }
            let (mut piece, mut end, mut count, mut bytes) = (datagram.head, 0, 0u16, 0u32);
            while let Some(found) = piece.checked_sub(1) {
                let found = self.pieces.get(found as usize).ok_or("a piece's name is out of range")?;
                if u32::from(found.start) < end || count == PIECES_MAX || !found.tag.is_used() {
                    return Err("the pieces of a datagram overlap or are out of order");
                }
                end = u32::from(found.start) + u32::from(found.len);
                (piece, count, bytes) = (found.next, count + 1, bytes + u32::from(found.len));
            }
            if (count, bytes) != (datagram.pieces, datagram.received) {
                return Err("a datagram counts other pieces than it has");
            }
            (older, at, datagrams, pieces) = (at, datagram.newer, datagrams + 1, pieces + u32::from(count));
        }
        if older != self.state.newest || (datagrams as u32, pieces) != self.used() {
            return Err("datagrams or pieces are lost");
        }
        Ok(())
    }
}
