use proptest::prelude::*;

use super::*;
use crate::wire::icmp::{self, Unreachable};
use crate::wire::icmpv6;

fn v4(why: Unreachable) -> Meaning {
    meaning(&icmp::Message::Unreachable(why)).expect("an error")
}

fn v6(why: icmpv6::Unreachable) -> Meaning {
    meaning_v6(&icmpv6::Message::Unreachable(why)).expect("an error")
}

const CONNECTED: Datagrams = Datagrams { is_connected: true, receives_errors: false, discovers_mtu: true };

#[test]
fn net_host_and_source_route_are_hints() {
    for why in [Unreachable::Net, Unreachable::Host, Unreachable::SourceRouteFailed] {
        assert!(!v4(why).is_hard, "{why}");
        assert_eq!(to_udp(&v4(why), &CONNECTED), None, "{why}");
    }
}

#[test]
fn a_closed_port_is_a_refused_connection() {
    for meaning in [v4(Unreachable::Port), v6(icmpv6::Unreachable::Port)] {
        assert_eq!((meaning.error, meaning.is_hard), (Error::ConnectionRefused, true));
        assert_eq!(to_tcp(&meaning, true, false), Effect::Abort(Error::ConnectionRefused));
        assert_eq!(to_udp(&meaning, &CONNECTED), Some(Error::ConnectionRefused));
    }
}

#[test]
fn no_error_ends_an_established_connection() {
    for code in (0..=255).filter(|code| *code != 4) {
        let mut bytes = [3, code, 0, 0, 0, 0, 0, 0];
        let sum = !(u16::from_be_bytes([3, code]));
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        let Ok((message, _)) = icmp::parse(&bytes) else { panic!("a message") };
        let Some(meaning) = meaning(&message) else {
            assert!(code > 15, "{code} is assigned");
            continue;
        };
        assert_eq!(to_tcp(&meaning, false, false), Effect::Remember(meaning.error), "RFC 5927 §5.2");
        assert_eq!(to_tcp(&meaning, false, true), Effect::Report(meaning.error), "IP_RECVERR");
        assert_eq!(to_tcp(&meaning, true, false), Effect::Abort(meaning.error), "as Linux");
    }
}

#[test]
fn what_says_too_big_goes_to_the_path() {
    let needed = v4(Unreachable::FragmentationNeeded { mtu: 1400 });
    assert_eq!(to_tcp(&needed, true, true), Effect::TooBig(TooBig::V4 { mtu: 1400 }));
    let too_big = meaning_v6(&icmpv6::Message::PacketTooBig { mtu: 1300 }).expect("an error");
    assert_eq!(to_tcp(&too_big, false, false), Effect::TooBig(TooBig::V6 { mtu: 1300 }));
    for meaning in [needed, too_big] {
        assert_eq!(to_udp(&meaning, &CONNECTED), Some(Error::MessageSize));
        assert_eq!(to_udp(&meaning, &Datagrams { discovers_mtu: false, ..CONNECTED }), None);
    }
}

#[test]
fn quench_redirects_and_the_unknown_mean_nothing() {
    for kind in [4, 5, 9, 13, 40] {
        assert_eq!(meaning(&icmp::Message::Other { kind, code: 0, word: 0 }), None, "{kind}");
    }
    assert_eq!(meaning(&icmp::Message::EchoReply { identifier: 0, sequence: 0 }), None);
    assert_eq!(meaning_v6(&icmpv6::Message::Other { kind: 100, code: 0, word: 0 }), None);
    assert_eq!(meaning_v6(&icmpv6::Message::Other { kind: 137, code: 0, word: 0 }), None);
    assert_eq!(v6(icmpv6::Unreachable::Other(9)).error, Error::Protocol);
}

#[test]
fn a_datagram_socket_without_a_peer_hears_nothing_unless_it_asks() {
    let alone = Datagrams { is_connected: false, ..CONNECTED };
    assert_eq!(to_udp(&v4(Unreachable::Port), &alone), None);
    let asks = Datagrams { receives_errors: true, ..alone };
    assert_eq!(to_udp(&v4(Unreachable::Port), &asks), Some(Error::ConnectionRefused));
    assert_eq!(to_udp(&v4(Unreachable::Net), &asks), Some(Error::NetworkUnreachable), "soft ones too");
}

#[test]
fn a_backoff_is_taken_back_only_for_a_lack_of_routes() {
    let reverts: Vec<bool> =
        [Unreachable::Net, Unreachable::Host, Unreachable::Port].map(|why| v4(why).is_connectivity).to_vec();
    assert_eq!(reverts, [true, true, false]);
    assert!(v6(icmpv6::Unreachable::NoRoute).is_connectivity);
    assert!(!v6(icmpv6::Unreachable::Address).is_connectivity);
}

#[test]
fn an_error_counts_only_if_it_quotes_what_is_in_flight() {
    let (una, nxt) = (Seq(u32::MAX - 9), Seq(10));
    for (seq, counts) in [(una, true), (nxt, true), (nxt + 1, false), (Seq(una.0 - 1), false), (Seq(0), true)]
    {
        assert_eq!(is_about_what_is_in_flight(seq, una, nxt), counts, "{seq:?}");
    }
}

#[test]
fn what_a_socket_is_told_has_the_errno_of_linux() {
    let rows = [
        (v4(Unreachable::Protocol), "ENOPROTOOPT"),
        (v4(Unreachable::SourceRouteFailed), "EOPNOTSUPP"),
        (v4(Unreachable::HostUnknown), "EHOSTDOWN"),
        (v4(Unreachable::SourceIsolated), "ENONET"),
        (v6(icmpv6::Unreachable::Other(9)), "EPROTO"),
        (v6(icmpv6::Unreachable::Other(6)), "EACCES"),
    ];
    for (meaning, errno) in rows {
        assert_eq!(meaning.error.errno(), errno);
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// Any bytes at all have one meaning or none, and hard is never what RFC 1122 calls a hint.
    #[test]
    fn every_message_has_at_most_one_row(kind: u8, code: u8, word: u32) {
        let header = [kind, code, 0, 0].into_iter().chain(word.to_be_bytes());
        let mut bytes: Vec<u8> = header.collect();
        let sum = crate::wire::checksum::Sum::ZERO.bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        let (message, _) = icmp::parse(&bytes).expect("a message");
        let found = meaning(&message);
        let is_error = matches!((kind, code), (3, 0..=15) | (11 | 12, _));
        prop_assert_eq!(found.is_some(), is_error);
        if let Some(found) = found {
            prop_assert!(!(found.is_hard && kind == 3 && matches!(code, 0 | 1 | 5)));
            prop_assert_eq!(found.too_big.is_some(), (kind, code) == (3, 4));
        }
    }

    #[test]
    fn what_is_in_flight_is_what_was_sent(una: u32, len in 0u32..1 << 30, seq: u32) {
        let model = (u64::from(una)..=u64::from(una) + u64::from(len))
            .contains(&(u64::from(seq) + if seq < una { 1 << 32 } else { 0 }));
        prop_assert_eq!(is_about_what_is_in_flight(Seq(seq), Seq(una), Seq(una) + len), model);
    }
}
