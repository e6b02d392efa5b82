//! ICMP of IPv6 (RFC 4443). Neighbor discovery's messages are in [`super::ndisc`]; what errors quote,
//! in [`super::icmp::quoted`].

use core::fmt;

use zerocopy::FromBytes;

use super::checksum::{Sum, pseudo};
use super::icmp::{self, Header};
use super::ip::Ip;
use super::{Malformed, protocol};

/// Bytes of the header, which is laid out as ICMP's of IPv4 (RFC 4443 §2.1).
pub const HEADER_LEN: usize = icmp::HEADER_LEN;

/// A message; its payload is the data of an echo, the datagram that an error quotes, or the rest of a neighbor
/// discovery message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A datagram didn't arrive (§3.1).
    Unreachable(Unreachable),
    /// A datagram was larger than the next link takes (§3.2).
    PacketTooBig {
        /// That link's.
        mtu: u32,
    },
    /// A datagram lived too long: in transit (0), or in reassembly (1) (§3.3).
    TimeExceeded {
        /// Which of both.
        code: u8,
    },
    /// A datagram's header makes no sense (§3.4).
    ParameterProblem {
        /// 0: an erroneous field; 1: an unrecognized next header; 2: an unrecognized option.
        code: u8,
        /// The offset of the byte in question, in the quoted datagram.
        pointer: u32,
    },
    /// To be echoed (§4.1).
    EchoRequest {
        /// Tells programs apart.
        identifier: u16,
        /// Tells requests apart.
        sequence: u16,
    },
    /// The echo (§4.2).
    EchoReply {
        /// The request's.
        identifier: u16,
        /// The request's.
        sequence: u16,
    },
    /// Anything else: an unknown error (below 128) goes to the protocol above, the rest is discarded (§2.4).
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The last word of its header.
        word: u32,
    },
}

/// Why a destination can't be reached (RFC 4443 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Unreachable {
    NoRoute,
    Prohibited,
    BeyondScope,
    Address,
    Port,
    SourcePolicy,
    RejectRoute,
    /// A code that isn't assigned by that RFC.
    Other(u8),
}

/// The codes from 0 on.
const CODES: [Unreachable; 7] = [
    Unreachable::NoRoute,
    Unreachable::Prohibited,
    Unreachable::BeyondScope,
    Unreachable::Address,
    Unreachable::Port,
    Unreachable::SourcePolicy,
    Unreachable::RejectRoute,
];

impl Unreachable {
    fn of(code: u8) -> Self {
        CODES.get(usize::from(code)).copied().unwrap_or(Self::Other(code))
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Other(code) => code,
            known => CODES.iter().position(|code| *code == known).unwrap_or(0) as u8,
        }
    }
}

/// The header and what is behind it. The checksum is right.
pub(super) fn parse_header<'a>(
    bytes: &'a [u8],
    source: &Ip,
    destination: &Ip,
) -> Result<(&'a Header, &'a [u8]), Malformed> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let sum = pseudo(source, destination, protocol::ICMPV6, bytes.len() as u32);
    if sum.bytes(bytes).holds() { Ok((header, rest)) } else { Err(Malformed::Checksum) }
}

/// A message between these addresses, and its payload. Its checksum is right.
pub fn parse<'a>(bytes: &'a [u8], source: &Ip, destination: &Ip) -> Result<(Message, &'a [u8]), Malformed> {
    let (header, payload) = parse_header(bytes, source, destination)?;
    let (code, word) = (header.code, header.word.get());
    let (identifier, sequence) = ((word >> 16) as u16, word as u16);
    let message = match (header.kind, code) {
        (1, _) => Message::Unreachable(Unreachable::of(code)),
        // Its code is ignored (§3.2).
        (2, _) => Message::PacketTooBig { mtu: word },
        (3, _) => Message::TimeExceeded { code },
        (4, _) => Message::ParameterProblem { code, pointer: word },
        (128, 0) => Message::EchoRequest { identifier, sequence },
        (129, 0) => Message::EchoReply { identifier, sequence },
        (kind, _) => Message::Other { kind, code, word },
    };
    Ok((message, payload))
}

impl Message {
    /// Writes the message between these addresses, its payload and its checksum.
    #[must_use]
    pub fn emit(&self, source: &Ip, destination: &Ip, payload: &[u8], bytes: &mut [u8]) -> Option<usize> {
        let len = u32::try_from(HEADER_LEN + payload.len()).ok()?;
        let pseudo = pseudo(source, destination, protocol::ICMPV6, len);
        icmp::emit(self.fields(), pseudo, payload, bytes)
    }

    /// The header alone, before a payload of `len` bytes with this sum.
    #[must_use]
    pub fn header(&self, source: &Ip, destination: &Ip, payload: Sum, len: u32) -> Header {
        let pseudo = pseudo(source, destination, protocol::ICMPV6, HEADER_LEN as u32 + len);
        icmp::summed(self.fields(), pseudo, payload)
    }

    /// The header without its checksum.
    fn fields(&self) -> Header {
        let pair = |identifier: u16, sequence: u16| u32::from(identifier) << 16 | u32::from(sequence);
        let (kind, code, word) = match *self {
            Self::Unreachable(why) => (1, why.code(), 0),
            Self::PacketTooBig { mtu } => (2, 0, mtu),
            Self::TimeExceeded { code } => (3, code, 0),
            Self::ParameterProblem { code, pointer } => (4, code, pointer),
            Self::EchoRequest { identifier, sequence } => (128, 0, pair(identifier, sequence)),
            Self::EchoReply { identifier, sequence } => (129, 0, pair(identifier, sequence)),
            Self::Other { kind, code, word } => (kind, code, word),
        };
        Header { kind, code, checksum: 0.into(), word: word.into() }
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoRoute => "unreachable route",
            Self::Prohibited => "unreachable prohibited",
            Self::BeyondScope => "beyond scope of source address",
            Self::Address => "unreachable address",
            Self::Port => "unreachable port",
            Self::SourcePolicy => "source address failed policy",
            Self::RejectRoute => "reject route to destination",
            Self::Other(code) => return write!(out, "unknown unreach code ({code})"),
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(out, "ICMP6, destination unreachable, {why}"),
            Self::PacketTooBig { mtu } => write!(out, "ICMP6, packet too big, mtu {mtu}"),
            Self::TimeExceeded { code: 0 } => out.write_str("ICMP6, time exceeded in-transit"),
            Self::TimeExceeded { code: 1 } => out.write_str("ICMP6, ip reassembly time exceeded"),
            Self::TimeExceeded { code } => write!(out, "ICMP6, time exceeded, unknown code ({code})"),
            Self::ParameterProblem { code, pointer } => {
                write!(out, "ICMP6, parameter problem, code {code} - octet {pointer}")
            }
            Self::EchoRequest { identifier, sequence } => {
                write!(out, "ICMP6, echo request, id {identifier}, seq {sequence}")
            }
            Self::EchoReply { identifier, sequence } => {
                write!(out, "ICMP6, echo reply, id {identifier}, seq {sequence}")
            }
            Self::Other { kind, code, .. } => write!(out, "ICMP6, type-#{kind}, code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6;

    const FROM: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
    const TO: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");

    /// By hand: twice 0x2001+0x0db8, 0x0001+0x0002, 0x000a+0x003a (pseudo-header), 0x8000+0x1234+0x0001+0x6162
    /// = 0x14f50, 0x4f51, complement 0xb0ae.
    const ECHO: [u8; 10] = [128, 0, 0xb0, 0xae, 0x12, 0x34, 0, 1, b'a', b'b'];

    #[test]
    fn an_echo() {
        let (message, data) = parse(&ECHO, &FROM, &TO).expect("an echo request");
        assert_eq!((message.to_string().as_str(), data), ("ICMP6, echo request, id 4660, seq 1", &b"ab"[..]));
        let mut bytes = [0; 10];
        assert_eq!((message.emit(&FROM, &TO, b"ab", &mut bytes), bytes), (Some(10), ECHO));
    }

    #[test]
    fn rules() {
        assert_eq!(parse(&ECHO[..7], &FROM, &TO), Err(Malformed::Truncated));
        assert_eq!(parse(&ECHO, &FROM, &FROM), Err(Malformed::Checksum));
    }

    #[test]
    fn an_error_quotes_what_it_is_about() {
        let mut datagram = [0; 48];
        let header = ipv6::Header::new(&TO, &FROM, protocol::UDP, 64).expect("of IPv6");
        assert_eq!(header.emit(1400, &mut datagram), Some(40));
        datagram[40..].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, 0, 0, 0]);
        let mut bytes = [0; 56];
        let error = Message::PacketTooBig { mtu: 1280 };
        assert_eq!(error.emit(&FROM, &TO, &datagram, &mut bytes), Some(56));
        let (read, payload) = parse(&bytes, &FROM, &TO).expect("an error");
        assert_eq!((read, read.to_string().as_str()), (error, "ICMP6, packet too big, mtu 1280"));
        let about = icmp::quoted(payload, false).expect("a datagram");
        assert_eq!((about.source, about.destination, about.protocol), (TO, FROM, protocol::UDP));
        assert_eq!(about.ports_and_sequence(), Some((40_000, 53, 0)));
        // A fragment that isn't the first, of which not all is quoted.
        let mut later = datagram;
        (later[6], later[40], later[43]) = (44, protocol::UDP, 9);
        let about = icmp::quoted(&later, false).expect("a fragment");
        assert_eq!((about.protocol, about.transport), (protocol::UDP, &b""[..]));
    }

    fn messages() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<u8>().prop_map(|code| Message::Unreachable(Unreachable::of(code))),
            any::<u32>().prop_map(|mtu| Message::PacketTooBig { mtu }),
            any::<u8>().prop_map(|code| Message::TimeExceeded { code }),
            any::<(u8, u32)>().prop_map(|(code, pointer)| Message::ParameterProblem { code, pointer }),
            any::<(u16, u16)>()
                .prop_map(|(identifier, sequence)| Message::EchoRequest { identifier, sequence }),
            any::<(u16, u16)>()
                .prop_map(|(identifier, sequence)| Message::EchoReply { identifier, sequence }),
            (130u8.., any::<(u8, u32)>()).prop_map(|(kind, (code, word))| Message::Other {
                kind,
                code,
                word
            }),
        ]
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn what_is_written_is_read(message in messages(), payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![0; HEADER_LEN + payload.len()];
            let len = bytes.len();
            prop_assert_eq!(message.emit(&FROM, &TO, &payload, &mut bytes[..len - 1]), None);
            prop_assert_eq!(message.emit(&FROM, &TO, &payload, &mut bytes), Some(len));
            prop_assert_eq!(parse(&bytes, &FROM, &TO), Ok((message, &payload[..])));
        }
    }
}
