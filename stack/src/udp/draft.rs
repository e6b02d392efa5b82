//! One datagram as it is written: its header, and a text that lies in the user's slices or in frames, whole or in pieces.

use core::ops::Range;

use crate::device::{Fragment, Memory};
use crate::wire::checksum::Sum;
use crate::wire::ip::Ip;
use crate::wire::udp::{HEADER_LEN, Header};

#[cfg(test)]
mod tests;

/// Where the text of a message lies.
#[derive(Clone, Copy)]
pub(crate) enum Text<'t> {
    /// In the user's slices.
    Users(&'t [&'t [u8]]),
    /// In frames, until the last part came ([`super::cork`]).
    Kept(&'t [Fragment]),
}

/// So much of each piece as is in a range of them all.
fn range<P>(
    pieces: &[P],
    len_of: impl Fn(&P) -> usize,
    mut skip: usize,
    mut len: usize,
) -> impl Iterator<Item = (&P, Range<usize>)> {
    pieces.iter().map_while(move |piece| {
        if len == 0 {
            return None;
        }
        let from = skip.min(len_of(piece));
        skip -= from;
        let now = len.min(len_of(piece) - from);
        len -= now;
        Some((piece, from..from + now))
    })
}

/// The bytes of a range of slices.
fn slices<'t>(pieces: &'t [&'t [u8]], skip: usize, len: usize) -> impl Iterator<Item = &'t [u8]> {
    range(pieces, |piece| piece.len(), skip, len).map(|(piece, range)| &piece[range])
}

/// The pieces of a range of fragments.
fn fragments(pieces: &[Fragment], skip: usize, len: usize) -> impl Iterator<Item = Fragment> {
    range(pieces, |piece| piece.len.into(), skip, len).map(|(piece, range)| Fragment {
        frame: piece.frame,
        offset: piece.offset + range.start as u16,
        len: range.len() as u16,
    })
}

/// The bytes of a fragment.
fn bytes_of(frame: &[u8], piece: Fragment) -> Option<&[u8]> {
    frame.get(piece.offset.into()..usize::from(piece.offset) + usize::from(piece.len))
}

impl Text<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Users(pieces) => pieces.iter().fold(0, |len, piece| len.saturating_add(piece.len())),
            Self::Kept(pieces) => pieces.iter().map(|piece| usize::from(piece.len)).sum(),
        }
    }

    /// The sum of a range.
    pub(crate) fn sum<M: Memory>(self, memory: &M, skip: usize, len: usize) -> Sum {
        match self {
            Self::Users(pieces) => slices(pieces, skip, len).fold(Sum::ZERO, Sum::bytes),
            Self::Kept(pieces) => fragments(pieces, skip, len).fold(Sum::ZERO, |sum, piece| {
                let bytes = memory.bytes(piece.frame).and_then(|frame| bytes_of(frame, piece));
                bytes.map_or(sum, |bytes| sum.bytes(bytes))
            }),
        }
    }
}

/// Copies a range of slices to the start of `to`; its sum.
fn copy(pieces: &[&[u8]], skip: usize, len: usize, to: &mut [u8]) -> Option<Sum> {
    if let [piece] = pieces {
        return Some(Sum::ZERO.copy(piece.get(skip..skip + len)?, to.get_mut(..len)?));
    }
    let (mut sum, mut at) = (Sum::ZERO, 0);
    for piece in slices(pieces, skip, len) {
        sum = sum.copy(piece, to.get_mut(at..at + piece.len())?);
        at += piece.len();
    }
    (at == len).then_some(sum)
}

/// One datagram on its way.
#[derive(Clone, Copy)]
pub(crate) struct Draft<'t> {
    pub(crate) source: (Ip, u16),
    pub(crate) remote: (Ip, u16),
    pub(crate) text: Text<'t>,
    /// The range of the text that it carries.
    pub(crate) at: usize,
    pub(crate) len: usize,
    /// Without a checksum (SO_NO_CHECK, UDP_NO_CHECK6_TX).
    pub(crate) is_unchecked: bool,
}

impl Draft<'_> {
    /// Writes UDP's header for a text with this sum.
    fn header(&self, sum: Sum, to: &mut [u8]) -> bool {
        let (source, remote) = ((&self.source.0, self.source.1), (&self.remote.0, self.remote.1));
        let sum = Some(sum).filter(|_| !self.is_unchecked);
        Header::emit(source, remote, self.len, sum, to).is_some()
    }

    /// Writes bytes of the datagram, header and text, to a piece of a frame, from the byte `from` on. Without `whole`, its header, what
    /// is written is all of it.
    pub(crate) fn put<M: Memory>(
        &self,
        memory: &mut M,
        whole: Option<&[u8; HEADER_LEN]>,
        from: usize,
        to: Fragment,
    ) -> bool {
        match self.text {
            Text::Users(pieces) => {
                let (begin, len) = (usize::from(to.offset), usize::from(to.len));
                let bytes = memory.bytes_mut(to.frame).and_then(|bytes| bytes.get_mut(begin..begin + len));
                bytes.is_some_and(|bytes| self.put_slices(pieces, whole, from, bytes))
            }
            Text::Kept(pieces) => {
                let all = self.whole_header(memory);
                whole.or(all.as_ref()).is_some_and(|header| self.put_kept(memory, pieces, header, from, to))
            }
        }
    }

    fn put_slices(
        &self,
        pieces: &[&[u8]],
        whole: Option<&[u8; HEADER_LEN]>,
        from: usize,
        to: &mut [u8],
    ) -> bool {
        let skipped = HEADER_LEN.saturating_sub(from).min(to.len());
        let Some((head, text)) = to.split_at_mut_checked(skipped) else { return false };
        let at = self.at + (from + skipped).saturating_sub(HEADER_LEN);
        let Some(sum) = copy(pieces, at, text.len(), text) else { return false };
        match whole {
            Some(header) => match header.get(from..from + skipped) {
                Some(part) => {
                    head.copy_from_slice(part);
                    true
                }
                None => skipped == 0,
            },
            None => self.header(sum, head),
        }
    }

    fn put_kept<M: Memory>(
        &self,
        memory: &mut M,
        pieces: &[Fragment],
        header: &[u8; HEADER_LEN],
        from: usize,
        to: Fragment,
    ) -> bool {
        let (len, mut at) = (usize::from(to.len), usize::from(to.offset));
        let skipped = HEADER_LEN.saturating_sub(from).min(len);
        let head = memory.bytes_mut(to.frame).and_then(|bytes| bytes.get_mut(at..at + skipped));
        match (head, header.get(from.min(HEADER_LEN)..).and_then(|rest| rest.get(..skipped))) {
            (Some(head), Some(part)) => head.copy_from_slice(part),
            _ => return false,
        }
        at += skipped;
        let skip = self.at + (from + skipped).saturating_sub(HEADER_LEN);
        for piece in fragments(pieces, skip, len - skipped) {
            let Some((source, target)) = memory.pair(piece.frame, to.frame) else { return false };
            let room = target.get_mut(at..at + usize::from(piece.len));
            let (Some(bytes), Some(room)) = (bytes_of(source, piece), room) else { return false };
            room.copy_from_slice(bytes);
            at += room.len();
        }
        at == usize::from(to.offset) + len
    }

    /// The header of a datagram whose text is read before it is copied, because it goes in pieces.
    pub(crate) fn whole_header<M: Memory>(&self, memory: &M) -> Option<[u8; HEADER_LEN]> {
        let mut header = [0; HEADER_LEN];
        self.header(self.text.sum(memory, self.at, self.len), &mut header).then_some(header)
    }
}
