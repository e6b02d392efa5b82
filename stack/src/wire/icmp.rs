//! ICMP of IPv4 (RFC 792, RFC 1122 §3.2.2), and the datagrams that the errors of either version quote.

use core::fmt;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::ip::Ip;
use super::{Malformed, ipv4, ipv6};

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();

/// The header (RFC 792): its last word differs from type to type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// What the message is.
    pub kind: u8,
    /// Which of its kind.
    pub code: u8,
    /// Over the whole message.
    pub checksum: U16,
    /// Identifier and sequence number, MTU, pointer, or unused.
    pub word: U32,
}

/// Why a destination can't be reached (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFCs'")]
pub enum Unreachable {
    Net,
    Host,
    Protocol,
    Port,
    /// Too large, and not to be fragmented: `mtu` is the next hop's, 0 from a router older than RFC 1191.
    FragmentationNeeded {
        mtu: u16,
    },
    SourceRouteFailed,
    NetUnknown,
    HostUnknown,
    SourceIsolated,
    NetProhibited,
    HostProhibited,
    NetTos,
    HostTos,
    CommunicationProhibited,
    PrecedenceViolation,
    PrecedenceCutoff,
    /// A code that isn't assigned.
    Other(u8),
}

/// The codes from 0 on; that of [`Unreachable::FragmentationNeeded`] is 4.
const CODES: [Unreachable; 16] = [
    Unreachable::Net,
    Unreachable::Host,
    Unreachable::Protocol,
    Unreachable::Port,
    Unreachable::FragmentationNeeded { mtu: 0 },
    Unreachable::SourceRouteFailed,
    Unreachable::NetUnknown,
    Unreachable::HostUnknown,
    Unreachable::SourceIsolated,
    Unreachable::NetProhibited,
    Unreachable::HostProhibited,
    Unreachable::NetTos,
    Unreachable::HostTos,
    Unreachable::CommunicationProhibited,
    Unreachable::PrecedenceViolation,
    Unreachable::PrecedenceCutoff,
];

impl Unreachable {
    fn of(code: u8, word: u32) -> Self {
        match CODES.get(usize::from(code)) {
            Some(Self::FragmentationNeeded { .. }) => Self::FragmentationNeeded { mtu: word as u16 },
            Some(known) => *known,
            None => Self::Other(code),
        }
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Other(code) => code,
            Self::FragmentationNeeded { .. } => 4,
            known => CODES.iter().position(|code| *code == known).unwrap_or(0) as u8,
        }
    }
}

/// A message; its payload is the data of an echo, or the datagram that an error quotes: see [`quoted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// To be echoed.
    EchoRequest {
        /// Tells programs apart.
        identifier: u16,
        /// Tells requests apart.
        sequence: u16,
    },
    /// The echo.
    EchoReply {
        /// The request's.
        identifier: u16,
        /// The request's.
        sequence: u16,
    },
    /// A datagram didn't arrive.
    Unreachable(Unreachable),
    /// A datagram lived too long: in transit (0), or in reassembly (1).
    TimeExceeded {
        /// Which of both.
        code: u8,
    },
    /// A datagram's header makes no sense.
    ParameterProblem {
        /// 0: the pointer shows where; 1: an option is missing; 2: a bad length.
        code: u8,
        /// The offset of the byte in question, in the quoted datagram.
        pointer: u8,
    },
    /// Anything else, which a host discards silently if it doesn't know it (RFC 1122 §3.2.2).
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The last word of its header.
        word: u32,
    },
}

/// A message and its payload. Its checksum is right.
pub fn parse(bytes: &[u8]) -> Result<(Message, &[u8]), Malformed> {
    let (header, payload) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    if !Sum::ZERO.bytes(bytes).holds() {
        return Err(Malformed::Checksum);
    }
    let (code, word) = (header.code, header.word.get());
    let (identifier, sequence) = ((word >> 16) as u16, word as u16);
    let message = match (header.kind, code) {
        (0, 0) => Message::EchoReply { identifier, sequence },
        (3, _) => Message::Unreachable(Unreachable::of(code, word)),
        (8, 0) => Message::EchoRequest { identifier, sequence },
        (11, _) => Message::TimeExceeded { code },
        (12, _) => Message::ParameterProblem { code, pointer: (word >> 24) as u8 },
        (kind, _) => Message::Other { kind, code, word },
    };
    Ok((message, payload))
}

impl Message {
    /// Writes the message, its payload and its checksum.
    #[must_use]
    pub fn emit(&self, payload: &[u8], bytes: &mut [u8]) -> Option<usize> {
        emit(self.fields(), Sum::ZERO, payload, bytes)
    }

    /// The header alone, before a payload with this sum.
    #[must_use]
    pub fn header(&self, payload: Sum) -> Header {
        summed(self.fields(), Sum::ZERO, payload)
    }

    /// The header without its checksum.
    fn fields(&self) -> Header {
        let pair = |identifier: u16, sequence: u16| u32::from(identifier) << 16 | u32::from(sequence);
        let (kind, code, word) = match *self {
            Self::EchoReply { identifier, sequence } => (0, 0, pair(identifier, sequence)),
            Self::Unreachable(why @ Unreachable::FragmentationNeeded { mtu }) => (3, why.code(), mtu.into()),
            Self::Unreachable(why) => (3, why.code(), 0),
            Self::EchoRequest { identifier, sequence } => (8, 0, pair(identifier, sequence)),
            Self::TimeExceeded { code } => (11, code, 0),
            Self::ParameterProblem { code, pointer } => (12, code, u32::from(pointer) << 24),
            Self::Other { kind, code, word } => (kind, code, word),
        };
        Header { kind, code, checksum: 0.into(), word: word.into() }
    }
}

/// A header with its checksum, before a payload with this sum.
pub(super) fn summed(header: Header, pseudo: Sum, payload: Sum) -> Header {
    let checksum = pseudo.bytes(header.as_bytes()).and(payload).checksum();
    Header { checksum: checksum.into(), ..header }
}

/// Writes a header with its checksum, and the payload; `pseudo` is the sum of what stands in front of both.
pub(super) fn emit(mut header: Header, pseudo: Sum, payload: &[u8], bytes: &mut [u8]) -> Option<usize> {
    let len = HEADER_LEN + payload.len();
    let (head, tail) = bytes.get_mut(..len)?.split_at_mut(HEADER_LEN);
    header.checksum = pseudo.bytes(header.as_bytes()).copy(payload, tail).checksum().into();
    head.copy_from_slice(header.as_bytes());
    Some(len)
}

/// The start of a datagram that we've sent and that an error is about. It comes from whoever sent the error: what
/// it says is to be compared with what we know (RFC 5927 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// Sender: ourselves.
    pub source: Ip,
    /// Whom it was for.
    pub destination: Ip,
    /// What it carried.
    pub protocol: u8,
    /// The start of that; empty when the datagram is a fragment and not the first.
    pub transport: &'a [u8],
}

/// The datagram that an error quotes, of IPv4 or IPv6 as the error itself.
pub fn quoted(payload: &[u8], is_v4: bool) -> Result<Quoted<'_>, Malformed> {
    let (source, destination, protocol, fragment, transport) = if is_v4 {
        let (datagram, transport) = ipv4::parse_quoted(payload)?;
        let header = datagram.header;
        (header.source(), header.destination(), header.protocol, datagram.fragment(), transport)
    } else {
        let (datagram, transport) = ipv6::parse_quoted(payload)?;
        let (header, chain) = (datagram.header, datagram.chain);
        (header.source, header.destination, chain.protocol, chain.fragment, transport)
    };
    let is_first = fragment.is_none_or(|fragment| fragment.offset == 0);
    Ok(Quoted { source, destination, protocol, transport: if is_first { transport } else { &[] } })
}

/// The first eight bytes of TCP and UDP: all that RFC 792 promises.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start {
    source: U16,
    destination: U16,
    /// TCP's sequence number.
    word: U32,
}

impl Quoted<'_> {
    /// Source and destination port, and TCP's SEG.SEQ (for UDP without meaning); `None` if too little is quoted.
    #[must_use]
    pub fn ports_and_sequence(&self) -> Option<(u16, u16, u32)> {
        let (start, _) = Start::ref_from_prefix(self.transport).ok()?;
        Some((start.source.get(), start.destination.get(), start.word.get()))
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Net => "net unreachable",
            Self::Host => "host unreachable",
            Self::Protocol => "protocol unreachable",
            Self::Port => "port unreachable",
            Self::FragmentationNeeded { mtu: 0 } => "unreachable - need to frag",
            Self::FragmentationNeeded { mtu } => {
                return write!(out, "unreachable - need to frag (mtu {mtu})");
            }
            Self::SourceRouteFailed => "unreachable - source route failed",
            Self::NetUnknown => "net unreachable - unknown",
            Self::HostUnknown => "host unreachable - unknown",
            Self::SourceIsolated => "unreachable - source host isolated",
            Self::NetProhibited => "net unreachable - admin prohibited",
            Self::HostProhibited => "host unreachable - admin prohibited",
            Self::NetTos => "net unreachable - tos prohibited",
            Self::HostTos => "host unreachable - tos prohibited",
            Self::CommunicationProhibited => "unreachable - admin prohibited filter",
            Self::PrecedenceViolation => "host unreachable - host precedence violation",
            Self::PrecedenceCutoff => "unreachable - precedence cutoff",
            Self::Other(code) => return write!(out, "unreachable - #{code}"),
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EchoRequest { identifier, sequence } => {
                write!(out, "ICMP echo request, id {identifier}, seq {sequence}")
            }
            Self::EchoReply { identifier, sequence } => {
                write!(out, "ICMP echo reply, id {identifier}, seq {sequence}")
            }
            Self::Unreachable(why) => write!(out, "ICMP {why}"),
            Self::TimeExceeded { code: 0 } => out.write_str("ICMP time exceeded in-transit"),
            Self::TimeExceeded { code: 1 } => out.write_str("ICMP ip reassembly time exceeded"),
            Self::TimeExceeded { code } => write!(out, "ICMP time exceeded-#{code}"),
            Self::ParameterProblem { code: 0, pointer } => {
                write!(out, "ICMP parameter problem - octet {pointer}")
            }
            Self::ParameterProblem { code, .. } => write!(out, "ICMP parameter problem - code {code}"),
            Self::Other { kind, code, .. } => write!(out, "ICMP type-#{kind}, code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::protocol;

    /// By hand: 0x0800 + 0x1234 + 0x0001 + 0x6162 = 0x7b97, complement 0x8468.
    const ECHO: [u8; 10] = [8, 0, 0x84, 0x68, 0x12, 0x34, 0, 1, b'a', b'b'];

    #[test]
    fn an_echo() {
        let (message, data) = parse(&ECHO).expect("an echo request");
        assert_eq!((message, data), (Message::EchoRequest { identifier: 0x1234, sequence: 1 }, &b"ab"[..]));
        assert_eq!(message.to_string(), "ICMP echo request, id 4660, seq 1");
        let mut bytes = [0; 10];
        assert_eq!((message.emit(b"ab", &mut bytes), bytes), (Some(10), ECHO));
        assert_eq!(message.emit(b"ab", &mut bytes[..9]), None);
    }

    #[test]
    fn rules() {
        assert_eq!(parse(&ECHO[..7]), Err(Malformed::Truncated));
        let mut bytes = ECHO;
        bytes[9] = b'c';
        assert_eq!(parse(&bytes), Err(Malformed::Checksum));
    }

    /// An error about a segment from us, as a router quotes it: the header and eight bytes.
    #[test]
    fn an_error_quotes_what_it_is_about() {
        let mut datagram = [0; 28];
        let (us, them) = (Ip::v4([192, 0, 2, 1]), Ip::v4([198, 51, 100, 1]));
        let header = ipv4::Header::new(&us, &them, protocol::TCP, 64).expect("of IPv4");
        assert_eq!(header.emit(1480, &mut datagram), Some(20));
        datagram[20..].copy_from_slice(&[0x9c, 0x40, 0, 80, 0, 0, 0x10, 0]);
        let mut bytes = [0; 36];
        let error = Message::Unreachable(Unreachable::FragmentationNeeded { mtu: 1400 });
        assert_eq!(error.emit(&datagram, &mut bytes), Some(36));
        assert_eq!((bytes[..2].to_vec(), &bytes[4..8]), (vec![3, 4], &[0, 0, 5, 0x78][..]));
        let (read, payload) = parse(&bytes).expect("an error");
        assert_eq!((read, read.to_string().as_str()), (error, "ICMP unreachable - need to frag (mtu 1400)"));
        let about = quoted(payload, true).expect("a datagram");
        assert_eq!((about.source, about.destination, about.protocol), (us, them, protocol::TCP));
        assert_eq!(about.ports_and_sequence(), Some((40_000, 80, 4096)));
        assert_eq!(quoted(&payload[..27], true).expect("a datagram").ports_and_sequence(), None);
        assert_eq!(quoted(&payload[..19], true), Err(Malformed::Truncated));
        assert_eq!(quoted(payload, false), Err(Malformed::Truncated));
        let mut later = datagram;
        later[7] = 1;
        assert_eq!(quoted(&later, true).expect("a fragment").transport, b"");
        later[0] = 0x44;
        assert_eq!(quoted(&later, true), Err(Malformed::HeaderLength));
    }

    #[test]
    fn codes_are_those_of_the_rfcs() {
        for code in 0..=255 {
            assert_eq!(Unreachable::of(code, 0).code(), code);
        }
        let text = |code| Message::Unreachable(Unreachable::of(code, 0)).to_string();
        assert_eq!((text(1), text(3)), ("ICMP host unreachable".into(), "ICMP port unreachable".into()));
        assert_eq!((text(13), text(16)), (text(13), "ICMP unreachable - #16".into()));
    }

    fn messages() -> impl Strategy<Value = Message> {
        let pair = any::<(u16, u16)>();
        prop_oneof![
            pair.prop_map(|(identifier, sequence)| Message::EchoRequest { identifier, sequence }),
            pair.prop_map(|(identifier, sequence)| Message::EchoReply { identifier, sequence }),
            (any::<u8>(), any::<u16>())
                .prop_map(|(code, mtu)| Message::Unreachable(Unreachable::of(code, mtu.into()))),
            any::<u8>().prop_map(|code| Message::TimeExceeded { code }),
            any::<(u8, u8)>().prop_map(|(code, pointer)| Message::ParameterProblem { code, pointer }),
            (13u8.., any::<(u8, u32)>()).prop_map(|(kind, (code, word))| Message::Other { kind, code, word }),
        ]
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(message in messages(), payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![0; HEADER_LEN + payload.len()];
            let len = bytes.len();
            prop_assert_eq!(message.emit(&payload, &mut bytes[..len - 1]), None);
            prop_assert_eq!(message.emit(&payload, &mut bytes), Some(len));
            prop_assert_eq!(parse(&bytes), Ok((message, &payload[..])));
        }
    }
}
