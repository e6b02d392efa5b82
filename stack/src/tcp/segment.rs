//! A segment as it arrived: what the steps of RFC 9293 §3.10.7 look at.

use crate::device::FrameIndex;
use crate::seq::Seq;
use crate::wire::ip::Ip;
use crate::wire::tcp::options::Options;
use crate::wire::tcp::{Flags, Header};

/// A segment and where its text is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Our end.
    pub(crate) local: (Ip, u16),
    /// The peer's.
    pub(crate) remote: (Ip, u16),
    /// SEG.SEQ.
    pub(crate) seq: Seq,
    /// SEG.ACK.
    pub(crate) ack: Seq,
    /// SEG.WND, not scaled.
    pub(crate) window: u16,
    /// Its control bits.
    pub(crate) flags: Flags,
    /// Its options.
    pub(crate) options: Options,
    /// Bytes of text.
    pub(crate) text: u16,
    /// Where that begins: so many bytes behind the start of the first frame, as if the pieces of the packet in the
    /// frames behind it followed its own without a gap.
    pub(crate) offset: u32,
    /// The frame, which is nobody's yet; none once a queue has it. Those with the rest of the packet hang on it.
    pub(crate) frame: Option<FrameIndex>,
    /// Bytes of text in each of the segments that a device has joined to this one, but for the last; 0 if it is one, or
    /// nobody said.
    pub(crate) joined: u16,
    /// The octet to which its urgent pointer points, if it has one: the last of the urgent data.
    pub(crate) urgent: Option<Seq>,
    /// Its packet says congestion experienced (RFC 3168 §5).
    pub(crate) marked: bool,
}

impl Segment {
    /// Of a header between these ends.
    pub(crate) fn of(header: &Header, options: Options, local: Ip, remote: Ip) -> Self {
        Self {
            local: (local, header.destination.get()),
            remote: (remote, header.source.get()),
            seq: header.seq(),
            ack: header.ack(),
            window: header.window.get(),
            flags: header.flags(),
            options,
            text: 0,
            offset: 0,
            frame: None,
            joined: 0,
            urgent: header.flags().has(Flags::URG).then(|| {
                // The pointer is behind the urgent data (RFC 9293 §3.8.5); 0 points to the first octet, as in Linux.
                header.seq() + u32::from(header.urgent.get().saturating_sub(1))
            }),
            marked: false,
        }
    }

    pub(crate) const fn is(&self, flags: Flags) -> bool {
        self.flags.has(flags)
    }

    /// SEG.LEN: text, and one for each of SYN and FIN.
    pub(crate) const fn len(&self) -> u32 {
        self.text as u32 + self.is(Flags::SYN) as u32 + self.is(Flags::FIN) as u32
    }

    /// Bytes of text in each of the segments that it was sent as, if the peer's carry no more than `most`: what a device
    /// joins counts as often as it came (`gso_size`).
    pub(crate) fn size(&self, most: u16) -> u16 {
        match self.joined {
            0 if self.text <= most || most == 0 => self.text,
            0 => most,
            joined => joined.min(self.text),
        }
    }

    /// How many segments it was sent as (`gso_segs`).
    pub(crate) fn count(&self, most: u16) -> u32 {
        let size = self.size(most);
        if size == self.text { 1 } else { self.text.div_ceil(size.max(1)).into() }
    }

    /// The sequence number behind it.
    pub(crate) fn end(&self) -> Seq {
        self.seq + self.len()
    }

    /// Drops what lies before `seq`, which is inside of it: SYN first.
    pub(crate) fn trim_front(&mut self, mut octets: u32) {
        self.seq = self.seq + octets;
        if octets > 0 && self.is(Flags::SYN) {
            self.flags = Flags(self.flags.0 & !Flags::SYN.0);
            octets -= 1;
        }
        let text = octets.min(u32::from(self.text)) as u16;
        self.text -= text;
        self.offset += u32::from(text);
        if u32::from(text) < octets {
            self.flags = Flags(self.flags.0 & !Flags::FIN.0);
        }
    }

    /// Drops so many octets from its end: FIN first.
    pub(crate) fn trim_back(&mut self, mut octets: u32) {
        if octets > 0 && self.is(Flags::FIN) {
            self.flags = Flags(self.flags.0 & !Flags::FIN.0);
            octets -= 1;
        }
        self.text -= octets.min(u32::from(self.text)) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: Flags, text: u16) -> Segment {
        let header = Header::default();
        Segment {
            flags,
            text,
            offset: 54,
            ..Segment::of(&header, Options::default(), Ip::default(), Ip::default())
        }
    }

    #[test]
    fn what_was_joined_counts_as_often_as_it_was_sent() {
        let one = segment(Flags::ACK, 1448);
        assert_eq!((one.size(1460), one.count(1460)), (1448, 1));
        assert_eq!((segment(Flags::ACK, 0).size(1460), segment(Flags::ACK, 0).count(0)), (0, 1));
        let joined = Segment { joined: 1000, ..segment(Flags::ACK, 2001) };
        assert_eq!((joined.size(1460), joined.count(1460)), (1000, 3));
        let unsaid = segment(Flags::ACK, 3000);
        assert_eq!((unsaid.size(1460), unsaid.count(1460)), (1460, 3));
    }

    #[test]
    fn a_segment_is_cut_at_its_control_bits_as_at_octets() {
        let mut cut = segment(Flags::SYN | Flags::FIN, 3);
        cut.trim_front(2);
        assert_eq!((cut.seq, cut.text, cut.offset, cut.flags), (Seq(2), 2, 55, Flags::FIN));
        cut.trim_back(1);
        assert_eq!((cut.text, cut.flags, cut.len()), (2, Flags::default(), 2));
        let mut gone = segment(Flags::FIN, 3);
        gone.trim_front(4);
        assert_eq!((gone.text, gone.flags, gone.len(), gone.end()), (0, Flags::default(), 0, Seq(4)));
    }
}
