//! Far ends that have no stack: a segment is answered from what it says, and a connection costs twelve bytes here.
//!
//! Formats are written down once more, independently of the stack's: Ethernet, IPv4 and TCP with timestamps.

/// Bytes before TCP's header.
pub(crate) const BELOW: usize = 14 + 20;
/// Bytes before the text of a segment with timestamps.
pub(crate) const HEADERS: usize = BELOW + 20 + 12;
/// The message of the echo and of every request.
pub(crate) const MESSAGE: usize = 64;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct End {
    pub(crate) address: [u8; 4],
    pub(crate) port: u16,
}

/// The listener's port.
pub(crate) const PORT: u16 = 80;
/// The listener's end.
pub(crate) const NEAR: End = End { address: [10, 0, 0, 1], port: PORT };

/// The far end with this number: fifty thousand ports of each address.
pub(crate) const fn far_end(index: u32) -> End {
    let [.., a, b] = (index / 50_000 + 1).to_be_bytes();
    End { address: [10, 1, a, b], port: 1024 + (index % 50_000) as u16 }
}

/// What a far end knows of its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    /// SND.NXT.
    pub(crate) seq: u32,
    /// RCV.NXT.
    pub(crate) ack: u32,
    /// The last TSval that came.
    pub(crate) recent: u32,
}

/// A segment that came from the stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) to: End,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) tsval: u32,
    pub(crate) text: usize,
}

/// A packet that is being made.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    bytes: [u8; HEADERS + 1460],
    len: usize,
    identification: u16,
}

/// The sum of big-endian words, as RFC 1071 has it.
fn sum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let all: u32 = words.by_ref().map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    all + words.remainder().first().map_or(0, |last| u32::from(*last) << 8)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

impl Packet {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; HEADERS + 1460];
        bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        bytes[12] = 8;
        (bytes[14], bytes[20], bytes[22], bytes[23]) = (0x45, 0x40, 64, 6);
        Self { bytes, len: 0, identification: 0 }
    }

    /// The packet with its link header.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The packet without.
    pub(crate) fn ip(&self) -> &[u8] {
        &self.bytes[14..self.len]
    }

    /// Writes a segment; a SYN carries the options of Linux: MSS 1460, SACK, timestamps, a scale of 7.
    pub(crate) fn segment(
        &mut self,
        [from, to]: [End; 2],
        peer: &Peer,
        flags: u8,
        tsval: u32,
        text: &[u8],
    ) -> &[u8] {
        let options: &mut [u8; 20] = &mut [1; 20];
        let len = if flags & SYN != 0 {
            options[..6].copy_from_slice(&[2, 4, 0x05, 0xb4, 4, 2]);
            options[17..20].copy_from_slice(&[3, 3, 7]);
            (options[6], options[7]) = (8, 10);
            options[8..12].copy_from_slice(&tsval.to_be_bytes());
            options[12..16].copy_from_slice(&peer.recent.to_be_bytes());
            20
        } else {
            (options[2], options[3]) = (8, 10);
            options[4..8].copy_from_slice(&tsval.to_be_bytes());
            options[8..12].copy_from_slice(&peer.recent.to_be_bytes());
            12
        };
        let tcp = 20 + len + text.len();
        self.len = BELOW + tcp;
        self.identification = self.identification.wrapping_add(1);
        let ip = &mut self.bytes[14..34];
        ip[2..4].copy_from_slice(&(20 + tcp as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&self.identification.to_be_bytes());
        ip[10..12].fill(0);
        ip[12..16].copy_from_slice(&from.address);
        ip[16..20].copy_from_slice(&to.address);
        let checksum = !fold(sum(ip));
        let addresses = sum(&ip[12..20]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let segment = &mut self.bytes[BELOW..BELOW + tcp];
        segment[..2].copy_from_slice(&from.port.to_be_bytes());
        segment[2..4].copy_from_slice(&to.port.to_be_bytes());
        segment[4..8].copy_from_slice(&peer.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&peer.ack.to_be_bytes());
        (segment[12], segment[13]) = (((20 + len) as u8) << 2, flags);
        segment[14..16].copy_from_slice(&502u16.to_be_bytes());
        segment[16..20].fill(0);
        segment[20..20 + len].copy_from_slice(&options[..len]);
        segment[20 + len..].copy_from_slice(text);
        let checksum = !fold(sum(segment) + addresses + 6 + tcp as u32);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        self.bytes()
    }
}

impl Seen {
    /// What an IPv4 packet without options says, if its checksums hold (a card's stack leaves them out: `trusts`).
    pub(crate) fn parse(ip: &[u8], trusts: bool) -> Option<Self> {
        let (head, segment) = ip.split_at_checked(20)?;
        if head[0] != 0x45 || head[9] != 6 || fold(sum(head)) != 0xffff {
            return None;
        }
        let segment = segment.get(..usize::from(u16::from_be_bytes([head[2], head[3]])).checked_sub(20)?)?;
        let whole = fold(sum(segment) + sum(&head[12..20]) + 6 + segment.len() as u32);
        if segment.len() < 20 || !(trusts || whole == 0xffff) {
            return None;
        }
        let word =
            |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let half = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let behind = usize::from(segment[12] >> 4) * 4;
        let end =
            |at: usize, port| End { address: [head[at], head[at + 1], head[at + 2], head[at + 3]], port };
        Some(Self {
            to: end(16, half(2)),
            seq: word(4),
            ack: word(8),
            flags: segment[13],
            tsval: tsval(segment.get(20..behind)?),
            text: segment.len() - behind,
        })
    }

    /// What the peer that it came to knows now.
    pub(crate) fn taken_by(&self, peer: &mut Peer) {
        let one = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        peer.ack = self.seq.wrapping_add(self.text as u32 + one);
        peer.recent = self.tsval;
    }
}

fn tsval(mut options: &[u8]) -> u32 {
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (1, _) => options = rest,
            (8, [10, a, b, c, d, ..]) => return u32::from_be_bytes([*a, *b, *c, *d]),
            (0, _) | (_, []) => return 0,
            (_, [len, ..]) => options = options.get(usize::from(*len).max(2)..).unwrap_or_default(),
        }
    }
    0
}
