//! TCP's options (RFC 9293 §3.2): read once into a plain struct, and written in Linux's order.
//!
//! Where a length is malformed, the options end there, and those before it count, as in Linux (`tcp_parse_options`):
//! when a kind is the last byte, so that it has no length; when a length is under 2; when a length reaches beyond the
//! header. An option of a kind that we know with a length that isn't that kind's is skipped like an unknown one:
//! maximum segment size, window scale, SACK permitted, timestamps and user timeout that aren't 4, 3, 2, 10 and 4
//! bytes long, SACK that isn't one or more blocks of eight, a fast open cookie of odd length or not of 4 to 16 bytes
//! (0 is the request for one). The last one of a kind counts.

use core::fmt;

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::OPTIONS_LEN_MAX;
use crate::seq::Seq;
use crate::wire::Malformed;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// An MD5 digest (RFC 2385), and what took its place, TCP-AO (RFC 5925).
const MD5: u8 = 19;
const AUTHENTICATION: u8 = 29;
const USER_TIMEOUT: u8 = 28;
const FAST_OPEN: u8 = 34;
/// Shared by experiments, which an identifier of 16 bits tells apart (RFC 6994).
const EXPERIMENT: u8 = 254;
/// Fast open's identifier, from before it had its own kind (RFC 7413 §4.1.1).
const FAST_OPEN_ID: [u8; 2] = [0xf9, 0x89];

/// The largest window scale; a larger one counts as this (RFC 7323 §2.3).
pub const WINDOW_SCALE_MAX: u8 = 14;
/// Bytes of a block of SACK.
const BLOCK_LEN: usize = 8;
/// Bytes of the shortest and the longest cookie (RFC 7413 §4.1.1).
const COOKIE_LEN: core::ops::RangeInclusive<usize> = 4..=16;

/// TSval and TSecr (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub tsval: u32,
    /// What the sender echoes; without meaning unless ACK is set.
    pub tsecr: u32,
}

/// A block of data that has arrived: from `left` up to and without `right` (RFC 2018 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Block {
    /// Its first sequence number.
    pub left: Seq,
    /// The one behind its last.
    pub right: Seq,
}

/// Up to four blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Blocks {
    count: u8,
    blocks: [Block; 4],
}

impl Blocks {
    /// Adds one behind the others; false when there are four.
    pub fn push(&mut self, block: Block) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.count)) else { return false };
        *place = block;
        self.count += 1;
        true
    }

    /// What follows this sequence number is reported, too, where it is reported that far.
    pub fn lengthen(&mut self, right: Seq) {
        let blocks = self.blocks.iter_mut().take(self.count.into());
        blocks.filter(|block| block.right == right).for_each(|block| block.right = right + 1);
    }

    /// In the order of the wire: the most recent one first (RFC 2018 §4).
    #[must_use]
    pub fn as_slice(&self) -> &[Block] {
        self.blocks.get(..usize::from(self.count)).unwrap_or(&self.blocks)
    }
}

/// A fast open cookie, or the request for one (RFC 7413 §4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    len: u8,
    bytes: [u8; 16],
    /// Whether it came under the experiments' kind: an answer goes out as the question came in.
    pub experimental: bool,
}

impl Cookie {
    /// The request for a cookie.
    pub const REQUEST: Self = Self { len: 0, bytes: [0; 16], experimental: false };

    /// A cookie of 4 to 16 bytes, an even number; or none of them, for a request.
    #[must_use]
    pub fn new(cookie: &[u8], experimental: bool) -> Option<Self> {
        let fits =
            cookie.is_empty() || (COOKIE_LEN.contains(&cookie.len()) && cookie.len().is_multiple_of(2));
        let mut bytes = [0; 16];
        bytes.get_mut(..cookie.len()).filter(|_| fits)?.copy_from_slice(cookie);
        Some(Self { len: cookie.len() as u8, bytes, experimental })
    }

    /// The cookie; empty for a request.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }
}

/// What the sender told. Whether an option counts in this segment (most do with SYN only) is not decided here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Options {
    /// The largest segment that the sender takes (RFC 9293 §3.7.1); never 0.
    pub mss: Option<u16>,
    /// The shift of the sender's windows, up to [`WINDOW_SCALE_MAX`] (RFC 7323 §2).
    pub window_scale: Option<u8>,
    /// SACK may be sent (RFC 2018 §2).
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 §3).
    pub timestamps: Option<Timestamps>,
    /// What has arrived out of order (RFC 2018 §3), or twice (RFC 2883).
    pub sack: Blocks,
    /// TCP fast open (RFC 7413).
    pub fast_open: Option<Cookie>,
    /// How long unacknowledged data may stay so: 15 bits, with minutes for seconds if the highest is set
    /// (RFC 5482 §3).
    pub user_timeout: Option<u16>,
    /// The segment is signed (RFC 2385, RFC 5925).
    pub signed: bool,
    /// Why the options ended before their end, if they did: the one rule that they have.
    pub stopped: Option<Malformed>,
}

/// One option.
#[derive(Clone, Copy)]
enum Item<'a> {
    End,
    Nop,
    /// With the bytes behind the length.
    Kind(u8, &'a [u8]),
    Malformed,
}

/// The next option, and what follows it.
fn next(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    Some(match *bytes {
        [] => return None,
        [END, ..] => (Item::End, &[]),
        [NOP, ref rest @ ..] => (Item::Nop, rest),
        [kind, len @ 2..=255, ..] if usize::from(len) <= bytes.len() => {
            let (option, rest) = bytes.split_at(usize::from(len));
            (Item::Kind(kind, &option[2..]), rest)
        }
        _ => (Item::Malformed, &[]),
    })
}

fn blocks(data: &[u8]) -> Option<Blocks> {
    let (words, rest) = data.as_chunks::<BLOCK_LEN>();
    let mut blocks = Blocks::default();
    for [a, b, c, d, e, f, g, h] in words {
        let left = Seq(u32::from_be_bytes([*a, *b, *c, *d]));
        blocks.push(Block { left, right: Seq(u32::from_be_bytes([*e, *f, *g, *h])) });
    }
    (!words.is_empty() && rest.is_empty()).then_some(blocks)
}

/// A cookie from what is behind a kind and length.
fn cookie(kind: u8, data: &[u8]) -> Option<Cookie> {
    match kind {
        FAST_OPEN => Cookie::new(data, false),
        _ => Cookie::new(data.strip_prefix(&FAST_OPEN_ID)?, true),
    }
}

/// The form of an option alone, padded in front (RFC 7323 appendix A).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Aligned {
    head: [u8; 4],
    tsval: U32,
    tsecr: U32,
}

const ALIGNED: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

/// The timestamps of options that are nothing else.
#[inline]
pub(super) fn only_timestamps(options: &[u8]) -> Option<Timestamps> {
    let aligned = Aligned::ref_from_bytes(options).ok()?;
    (aligned.head == ALIGNED).then(|| Timestamps { tsval: aligned.tsval.get(), tsecr: aligned.tsecr.get() })
}

impl Options {
    /// Reads the options of a header.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut options = Self::default();
        if let Some(timestamps) = only_timestamps(bytes) {
            options.timestamps = Some(timestamps);
            return options;
        }
        let mut left = bytes;
        while let Some((item, rest)) = next(left) {
            match item {
                Item::Kind(kind, data) => options.take(kind, data),
                Item::Malformed => options.stopped = Some(Malformed::TcpOption),
                Item::End | Item::Nop => {}
            }
            left = rest;
        }
        options
    }

    fn take(&mut self, kind: u8, data: &[u8]) {
        match (kind, data) {
            (MSS, [a, b]) if (*a, *b) != (0, 0) => self.mss = Some(u16::from_be_bytes([*a, *b])),
            (WINDOW_SCALE, [shift]) => self.window_scale = Some((*shift).min(WINDOW_SCALE_MAX)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (SACK, data) => self.sack = blocks(data).unwrap_or(self.sack),
            (TIMESTAMPS, [a, b, c, d, e, f, g, h]) => {
                let tsval = u32::from_be_bytes([*a, *b, *c, *d]);
                self.timestamps = Some(Timestamps { tsval, tsecr: u32::from_be_bytes([*e, *f, *g, *h]) });
            }
            (MD5 | AUTHENTICATION, _) => self.signed = true,
            (USER_TIMEOUT, [a, b]) => self.user_timeout = Some(u16::from_be_bytes([*a, *b])),
            (FAST_OPEN | EXPERIMENT, data) => self.fast_open = cookie(kind, data).or(self.fast_open),
            _ => {}
        }
    }

    /// Bytes that these take in a header: whole words.
    #[must_use]
    pub fn len(&self) -> usize {
        // SACK permitted stands in timestamps' padding.
        let permitted = self.sack_permitted && self.timestamps.is_none();
        let words = [self.mss.is_some(), permitted, self.window_scale.is_some(), self.user_timeout.is_some()];
        let blocks = self.sack.as_slice().len();
        words.iter().filter(|is| **is).count() * 4
            + usize::from(self.timestamps.is_some()) * 12
            + if blocks == 0 { 0 } else { 4 + blocks * BLOCK_LEN }
            + self.fast_open.map_or(0, |cookie| {
                (2 + 2 * usize::from(cookie.experimental) + cookie.as_slice().len()).next_multiple_of(4)
            })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks of SACK for which there is room beside the others.
    #[must_use]
    pub fn blocks_max(&self) -> usize {
        let others = Self { sack: Blocks::default(), ..*self }.len();
        (OPTIONS_LEN_MAX.saturating_sub(others + 4) / BLOCK_LEN).min(4)
    }

    /// Writes them in Linux's order (`tcp_options_write`), each padded in front to whole words, a cookie behind.
    /// `None` also when they take more than a header has: see [`Options::blocks_max`].
    #[inline]
    #[must_use]
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let len = self.len();
        if len > OPTIONS_LEN_MAX {
            return None;
        }
        let mut out = Writer { bytes: bytes.get_mut(..len)? };
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            out.put(&[MSS, 4, a, b])?;
        }
        if let Some(Timestamps { tsval, tsecr }) = self.timestamps {
            let [a, b] = if self.sack_permitted { [SACK_PERMITTED, 2] } else { [NOP, NOP] };
            let aligned = Aligned { head: [a, b, TIMESTAMPS, 10], tsval: tsval.into(), tsecr: tsecr.into() };
            out.put(aligned.as_bytes())?;
        } else if self.sack_permitted {
            out.put(&[NOP, NOP, SACK_PERMITTED, 2])?;
        }
        if let Some(shift) = self.window_scale {
            out.put(&[NOP, WINDOW_SCALE, 3, shift])?;
        }
        if let blocks @ [_, ..] = self.sack.as_slice() {
            out.put(&[NOP, NOP, SACK, (2 + blocks.len() * BLOCK_LEN) as u8])?;
            for block in blocks {
                out.put(&block.left.0.to_be_bytes())?;
                out.put(&block.right.0.to_be_bytes())?;
            }
        }
        if let Some(cookie) = self.fast_open {
            out.cookie(&cookie)?;
        }
        if let Some(timeout) = self.user_timeout {
            let [a, b] = timeout.to_be_bytes();
            out.put(&[USER_TIMEOUT, 4, a, b])?;
        }
        Some(len)
    }
}

/// What is left to write.
struct Writer<'a> {
    bytes: &'a mut [u8],
}

impl Writer<'_> {
    #[inline]
    fn put(&mut self, option: &[u8]) -> Option<()> {
        self.bytes.split_off_mut(..option.len())?.copy_from_slice(option);
        Some(())
    }

    fn cookie(&mut self, cookie: &Cookie) -> Option<()> {
        let bytes = cookie.as_slice();
        let len = bytes.len() as u8;
        if cookie.experimental {
            self.put(&[EXPERIMENT, len + 4, FAST_OPEN_ID[0], FAST_OPEN_ID[1]])?;
        } else {
            self.put(&[FAST_OPEN, len + 2])?;
        }
        self.put(bytes)?;
        // An even number of bytes: short of whole words by two, or by none.
        if (bytes.len() + if cookie.experimental { 4 } else { 2 }) % 4 == 2 {
            self.put(&[NOP, NOP])
        } else {
            Some(())
        }
    }
}

/// The options of a header as packetdrill lists them, in the order of the wire.
pub(super) struct Listed<'a>(pub(super) &'a [u8]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut left, mut comma) = (self.0, "");
        while let Some((item, rest)) = next(left) {
            out.write_str(comma)?;
            match item {
                Item::End => out.write_str("eol")?,
                Item::Nop => out.write_str("nop")?,
                Item::Malformed => out.write_str("malformed")?,
                Item::Kind(kind, data) => list(kind, data, out)?,
            }
            (left, comma) = (rest, ",");
        }
        Ok(())
    }
}

fn list(kind: u8, data: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let number = |bytes: &[u8]| bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    match (kind, data.len()) {
        (MSS, 2) => write!(out, "mss {}", number(data)),
        (WINDOW_SCALE, 1) => write!(out, "wscale {}", data[0]),
        (SACK_PERMITTED, 0) => out.write_str("sackOK"),
        (TIMESTAMPS, 8) => write!(out, "TS val {} ecr {}", number(&data[..4]), number(&data[4..])),
        (USER_TIMEOUT, 2) => write!(out, "uto 0x{:x}", number(data)),
        (SACK, len) if len > 0 && len.is_multiple_of(BLOCK_LEN) => {
            out.write_str("sack")?;
            data.chunks_exact(BLOCK_LEN)
                .try_for_each(|block| write!(out, " {}:{}", number(&block[..4]), number(&block[4..])))
        }
        (FAST_OPEN | EXPERIMENT, _) if cookie(kind, data).is_some() => {
            let (name, bytes) = if kind == FAST_OPEN { ("FO", data) } else { ("FOEXP", &data[2..]) };
            let space = if bytes.is_empty() { "" } else { " " };
            write!(out, "{name}{space}")?;
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        _ => write!(out, "unknown-{kind}"),
    }
}
