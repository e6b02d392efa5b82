//! TCP segments (RFC 9293 §3.1). Their options are in [`options`].

use core::fmt;
use core::ops::{BitOr, BitOrAssign};

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{Sum, pseudo};
use super::ip::Ip;
use super::{Malformed, protocol, put};
use crate::seq::Seq;

pub mod options;

use options::{Options, Timestamps};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = size_of::<Header>();
/// Bytes of options that a header can have.
pub const OPTIONS_LEN_MAX: usize = 40;

/// Control bits, as they stand behind the data offset (RFC 9293 §3.1, RFC 3168 §6.1, RFC 9768 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x001);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x002);
    /// Reset the connection.
    pub const RST: Self = Self(0x004);
    /// Push.
    pub const PSH: Self = Self(0x008);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x010);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x020);
    /// Echo of congestion experienced.
    pub const ECE: Self = Self(0x040);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x080);
    /// Accurate ECN, once the nonce sum.
    pub const AE: Self = Self(0x100);
    /// Every bit that has a meaning; the other three of the twelve are reserved.
    pub const ALL: Self = Self(0x1ff);

    /// Whether all of these are set.
    #[inline]
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The ones that are among these.
    #[inline]
    #[must_use]
    pub const fn among(self, flags: Self) -> Self {
        Self(self.0 & flags.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Flags {
    /// Letters in tcpdump's and packetdrill's order; `-` when there is none.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(Flags, &str); 9] = [
            (Flags::FIN, "F"),
            (Flags::SYN, "S"),
            (Flags::RST, "R"),
            (Flags::PSH, "P"),
            (Flags::ACK, "."),
            (Flags::URG, "U"),
            (Flags::ECE, "E"),
            (Flags::CWR, "W"),
            (Flags::AE, "A"),
        ];
        if self.among(Self::ALL) == Self::default() {
            return out.write_str("-");
        }
        LETTERS.iter().filter(|row| self.has(row.0)).try_for_each(|row| out.write_str(row.1))
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The header (RFC 9293 §3.1). With the fields as they are, it serves as a template of what is sent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// SEG.SEQ.
    pub sequence: U32,
    /// SEG.ACK.
    pub acknowledgment: U32,
    /// The header's length in words (4 bits), reserved bits (3), [`Flags`].
    pub offset_flags: U16,
    /// SEG.WND, not scaled.
    pub window: U16,
    /// Over pseudo-header, header and text.
    pub checksum: U16,
    /// SEG.UP.
    pub urgent: U16,
}

impl Header {
    /// SEG.SEQ.
    #[inline]
    #[must_use]
    pub const fn seq(&self) -> Seq {
        Seq(self.sequence.get())
    }

    /// SEG.ACK.
    #[inline]
    #[must_use]
    pub const fn ack(&self) -> Seq {
        Seq(self.acknowledgment.get())
    }

    /// The control bits that have a meaning.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags(self.offset_flags.get()).among(Flags::ALL)
    }

    /// Bytes of header and options, as the data offset tells: at least [`HEADER_LEN`] once it is parsed.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.offset_flags.get() >> 12) as usize * 4
    }

    /// Writes the header with these flags and options, its data offset, and no checksum: see [`fill_checksum`].
    #[inline]
    #[must_use]
    pub fn emit(&self, flags: Flags, options: &Options, bytes: &mut [u8]) -> Option<usize> {
        let options_len = options.emit(bytes.get_mut(HEADER_LEN..)?)?;
        let header_len = HEADER_LEN + options_len;
        let offset_flags = ((header_len / 4) as u16) << 12 | flags.among(Flags::ALL).0;
        put(Self { offset_flags: offset_flags.into(), checksum: 0.into(), ..*self }.as_bytes(), bytes)?;
        Some(header_len)
    }
}

/// A segment without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The fixed header.
    pub header: &'a Header,
    /// Its options, not looked at: whole words, at most ten.
    pub options: &'a [u8],
    /// Bytes of text.
    pub text_len: usize,
}

/// A segment and its text.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<(Segment<'_>, &[u8]), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let (options, text) = header
        .header_len()
        .checked_sub(HEADER_LEN)
        .and_then(|len| rest.split_at_checked(len))
        .ok_or(Malformed::DataOffset)?;
    Ok((Segment { header, options, text_len: text.len() }, text))
}

/// Verifies the checksum of a segment: its header, options and text.
#[inline]
pub fn verify(segment: &[u8], source: &Ip, destination: &Ip) -> Result<(), Malformed> {
    let sum = pseudo(source, destination, protocol::TCP, segment.len() as u32);
    if sum.bytes(segment).holds() { Ok(()) } else { Err(Malformed::Checksum) }
}

/// Writes the checksum of a segment whose header and options are `head`, and whose text of `len` bytes has the sum
/// `text`. `None` when the head is shorter than a header.
#[inline]
#[must_use]
pub fn fill_checksum(head: &mut [u8], source: &Ip, destination: &Ip, text: Sum, len: usize) -> Option<()> {
    let sum = pseudo(source, destination, protocol::TCP, (head.len() + len) as u32);
    Header::mut_from_prefix(head).ok()?.0.checksum = 0.into();
    let checksum = sum.bytes(head).and(text).checksum();
    Header::mut_from_prefix(head).ok()?.0.checksum = checksum.into();
    Some(())
}

impl Segment<'_> {
    /// SEG.LEN: bytes of text, with one for each of SYN and FIN (RFC 9293 §3.4).
    #[inline]
    #[must_use]
    pub fn len(&self) -> u32 {
        let flags = self.header.flags();
        self.text_len as u32 + u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN))
    }

    /// Whether it takes no sequence numbers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The timestamps, if they are the only option and stand as RFC 7323 appendix A recommends: what every
    /// segment of an established connection looks like.
    #[inline]
    #[must_use]
    pub fn only_timestamps(&self) -> Option<Timestamps> {
        options::only_timestamps(self.options)
    }
}

impl fmt::Display for Segment<'_> {
    /// As a packetdrill script has it, with the urgent pointer after the window as tcpdump has it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (header, flags) = (self.header, self.header.flags());
        let (seq, len) = (header.seq(), self.text_len);
        write!(out, "{flags} {}:{}({len})", seq.0, (seq + len as u32).0)?;
        if flags.has(Flags::ACK) {
            write!(out, " ack {}", header.acknowledgment)?;
        }
        write!(out, " win {}", header.window)?;
        if flags.has(Flags::URG) {
            write!(out, " urg {}", header.urgent)?;
        }
        if !self.options.is_empty() {
            write!(out, " <{}>", options::Listed(self.options))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
