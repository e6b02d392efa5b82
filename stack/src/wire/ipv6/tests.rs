//! IPv6's header and chains of extension headers made by hand.

use proptest::prelude::*;

use super::*;

const SOURCE: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
const DESTINATION: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");

/// A datagram: its next header, and everything behind the header.
fn datagram(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    let header = Header::new(&SOURCE, &DESTINATION, next_header, 64).expect("of IPv6");
    assert_eq!(header.emit(rest.len(), &mut bytes), Some(HEADER_LEN));
    bytes.extend_from_slice(rest);
    bytes
}

/// Extension headers of eight bytes, each followed by the next; the last by `protocol`.
fn chained(headers: &[(u8, [u8; 7])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    for (index, (_, body)) in headers.iter().enumerate() {
        rest.push(headers.get(index + 1).map_or(protocol, |next| next.0));
        rest.extend_from_slice(body);
    }
    rest.extend_from_slice(payload);
    datagram(headers.first().map_or(protocol, |first| first.0), &rest)
}

const PADDED: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

fn rule(bytes: &[u8]) -> Option<Malformed> {
    parse(bytes).err()
}

#[test]
fn a_plain_datagram() {
    let mut bytes = datagram(protocol::TCP, b"segment");
    let expected = [0x60, 0, 0, 0, 0, 7, 6, 64, 0x20, 0x01, 0x0d, 0xb8];
    assert_eq!(bytes[..12], expected);
    bytes.extend_from_slice(b"padding");
    let (read, payload) = parse(&bytes).expect("a datagram");
    assert_eq!(payload, b"segment");
    assert_eq!(read.to_string(), "IP6 2001:db8::1 > 2001:db8::2: TCP, length 7");
}

#[test]
fn extension_headers_are_walked() {
    let headers = [
        (HOP_BY_HOP, [0, 5, 2, 0, 0, 1, 0]),
        (DESTINATION_OPTIONS, PADDED),
        (ROUTING, [0, 4, 0, 0, 0, 0, 0]),
        (FRAGMENT, [0, 0, 0, 0, 0, 0, 9]),
        (DESTINATION_OPTIONS, [0, 0, 0, 0, 0, 0, 0]),
    ];
    let bytes = chained(&headers, protocol::UDP, b"datagram");
    let (read, payload) = parse(&bytes).expect("a datagram");
    assert_eq!(read.chain, Chain { protocol: protocol::UDP, fragment: None });
    assert_eq!(payload, b"datagram");
    // Encryption, and what we've never heard of, is for whoever knows it.
    for unknown in [50, 51, 139, protocol::NO_NEXT_HEADER] {
        let bytes = datagram(unknown, b"12345678");
        assert_eq!(parse(&bytes).map(|(read, _)| read.chain.protocol), Ok(unknown));
    }
}

#[test]
fn a_fragment_is_not_looked_into() {
    let bytes = chained(&[(FRAGMENT, [0, 5, 0xa9, 0, 0, 1, 2])], DESTINATION_OPTIONS, &[0xff; 16]);
    let (read, payload) = parse(&bytes).expect("a fragment");
    let fragment = Fragment { identification: 0x102, offset: 0x5a8, more: true };
    assert_eq!(read.chain, Chain { protocol: DESTINATION_OPTIONS, fragment: Some(fragment) });
    assert_eq!(payload, [0xff; 16]);
    assert_eq!(
        read.to_string(),
        "IP6 2001:db8::1 > 2001:db8::2: frag (0x00000102:1448, +) ip-proto-60, length 24"
    );
    // Whole again, its chain goes on; but a fragment in a fragment isn't one, nor hop-by-hop options.
    let whole = [protocol::TCP, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3];
    let expected = (Chain { protocol: protocol::TCP, fragment: None }, &[1, 2, 3][..]);
    assert_eq!(walk(DESTINATION_OPTIONS, &whole, false), Ok(expected));
    assert_eq!(walk(FRAGMENT, &whole, false), Err(Malformed::ExtensionOrder));
    assert_eq!(walk(HOP_BY_HOP, &whole, false), Err(Malformed::ExtensionOrder));
}

#[test]
fn rules() {
    let plain = datagram(protocol::TCP, b"segment");
    assert_eq!(rule(&plain[..39]), Some(Malformed::Truncated));
    assert_eq!(rule(&plain[..46]), Some(Malformed::PayloadLength));
    let mut bytes = plain.clone();
    bytes[0] = 0x45;
    assert_eq!(rule(&bytes), Some(Malformed::Version));
    for at in [8, 24] {
        let mut bytes = plain.clone();
        bytes[at..at + 16].copy_from_slice(&Ip::v4([127, 0, 0, 1]).0);
        assert_eq!(rule(&bytes), Some(Malformed::MappedAddress));
    }
    assert_eq!(rule(&datagram(HOP_BY_HOP, &[6, 0, 0, 0])), Some(Malformed::ExtensionLength));
    assert_eq!(rule(&datagram(ROUTING, &[6, 1, 0, 0, 0, 0, 0, 0])), Some(Malformed::ExtensionLength));
    assert_eq!(rule(&chained(&[(ROUTING, [0, 0, 1, 0, 0, 0, 0])], 6, b"")), Some(Malformed::SegmentsLeft));
    let twice = |kind, body| chained(&[(kind, body), (kind, body)], 6, b"");
    assert_eq!(rule(&twice(HOP_BY_HOP, PADDED)), Some(Malformed::ExtensionOrder));
    assert_eq!(rule(&twice(FRAGMENT, [0; 7])), Some(Malformed::ExtensionOrder));
}

#[test]
fn the_chain_is_bounded() {
    let of = |count| chained(&vec![(DESTINATION_OPTIONS, PADDED); count], 6, b"");
    assert_eq!(rule(&of(EXTENSIONS_MAX)), None);
    assert_eq!(rule(&of(EXTENSIONS_MAX + 1)), Some(Malformed::ExtensionLimit));
    let long = |words: usize| {
        let rest = [&[6, words as u8 - 1][..], &vec![0; 8 * words - 2]].concat();
        rule(&datagram(DESTINATION_OPTIONS, &rest))
    };
    assert_eq!(long(EXTENSION_BYTES_MAX / 8), None);
    assert_eq!(long(EXTENSION_BYTES_MAX / 8 + 1), Some(Malformed::ExtensionLimit));
    let options = |count: usize| {
        let rest = [&[6, 2][..], &[5, 0].repeat(count), &vec![0; 22 - 2 * count]].concat();
        rule(&datagram(DESTINATION_OPTIONS, &rest))
    };
    assert_eq!(options(OPTIONS_MAX), None);
    assert_eq!(options(OPTIONS_MAX + 1), Some(Malformed::ExtensionLimit));
}

#[test]
fn options_say_whether_they_may_be_passed_over() {
    let one = |body: [u8; 6]| {
        let [a, b, c, d, e, f] = body;
        rule(&chained(&[(HOP_BY_HOP, [0, a, b, c, d, e, f])], 6, b""))
    };
    assert_eq!(one([0x3e, 4, 1, 2, 3, 4]), None);
    assert_eq!(one([0x3e, 5, 1, 2, 3, 4]), Some(Malformed::Ipv6Option));
    assert_eq!(one([1, 3, 0, 0, 0, 1]), Some(Malformed::Ipv6Option));
    for kind in [0x7e, 0xbe, 0xc2] {
        assert_eq!(one([kind, 4, 1, 2, 3, 4]), Some(Malformed::OptionUnrecognized));
    }
}

#[test]
fn fragments_are_measured() {
    let of = |offset: u16, payload: &[u8]| {
        let [high, low] = offset.to_be_bytes();
        rule(&chained(&[(FRAGMENT, [0, high, low, 0, 0, 0, 1])], 6, payload))
    };
    assert_eq!(of(1, &[0; 12]), Some(Malformed::Fragment));
    assert_eq!(of(0xfff8, &[0; 8]), Some(Malformed::Fragment));
    assert_eq!(of(0xfff8, &[0; 7]), None);
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn what_is_written_is_read(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), udp in any::<bool>(), hop_limit in any::<u8>(),
        class in any::<u8>(), flow in 0u32..1 << 20, payload in proptest::collection::vec(any::<u8>(), 0..64), padding in 0usize..9,
    ) {
        let next_header = if udp { protocol::UDP } else { protocol::TCP };
        let header = Header::new(&Ip(source), &Ip(destination), next_header, hop_limit);
        let header = header.expect("random bytes are no mapped address").with_flow(class, flow);
        let mut bytes = [0; HEADER_LEN];
        prop_assert_eq!(header.emit(payload.len(), &mut bytes[..39]), None);
        prop_assert_eq!(header.emit(payload.len(), &mut bytes), Some(HEADER_LEN));
        let whole = [&bytes[..], &payload, &vec![0; padding]].concat();
        let (read, text) = parse(&whole).expect("what was written");
        prop_assert_eq!(text, &payload[..]);
        prop_assert_eq!((read.header.traffic_class(), read.header.ecn(), read.header.flow_label()), (class, class & 3, flow));
        prop_assert_eq!(*read.header, Header { payload_length: read.header.payload_length, ..header });
    }
}
