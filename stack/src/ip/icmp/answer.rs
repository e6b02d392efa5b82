//! What we answer: echoes, and "port unreachable" where nobody listens.

use crate::wire::ip::Ip;
use crate::wire::{icmp, icmpv6, protocol};

/// Most bytes of a datagram that carries an error of IPv4 (RFC 1812 §4.3.2.3: "SHOULD contain as much of the original
/// datagram as possible without the length of the ICMP datagram exceeding 576 bytes").
const V4_MAX: usize = 576;
/// Most bytes of one that carries an error of IPv6 (RFC 4443 §2.4 (c): "MUST include as much of the IPv6 offending
/// (invoking) packet […] as possible without making the error message packet exceed the minimum IPv6 MTU").
const V6_MAX: usize = 1280;

/// The datagram that an answer would be about, as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoking {
    /// Who sent it.
    pub source: Ip,
    /// Whom it was for.
    pub destination: Ip,
    /// What it carries, behind all extension headers.
    pub protocol: u8,
    /// If that is ICMP or ICMPv6: its type.
    pub icmp_kind: Option<u8>,
    /// A fragment that isn't the first.
    pub is_later_fragment: bool,
    /// The link's frame was for one station: ours.
    pub is_for_us_on_the_link: bool,
    /// The destination is a broadcast of one of our subnets; the limited broadcast needn't be told.
    pub is_subnet_broadcast: bool,
}

/// Whether an address names one host that can be answered.
fn is_single(ip: &Ip) -> bool {
    let reserved = ip.as_v4().is_some_and(|[first, ..]| first == 0 || first >= 240);
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback() || reserved)
}

/// Whether a message of this type is an error, or a redirect, which is answered as little.
const fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        protocol::ICMP => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        _ => kind < 128 || kind == 137,
    }
}

/// Whether an error may be sent about a datagram.
///
/// RFC 1122 §3.2.2: "An ICMP error message MUST NOT be sent as the result of receiving: * an ICMP error message, or * a
/// datagram destined to an IP broadcast or IP multicast address, or * a datagram sent as a link-layer broadcast, or * a
/// non-initial fragment, or * a datagram whose source address does not define a single host". RFC 4443 §2.4 (e) says the
/// same of IPv6, redirects included.
#[must_use]
pub fn may_send_error(about: &Invoking) -> bool {
    let is_icmp = matches!(about.protocol, protocol::ICMP | protocol::ICMPV6);
    let about_error = is_icmp && about.icmp_kind.is_none_or(|kind| is_error(about.protocol, kind));
    let to_many = about.destination.is_multicast()
        || about.destination.is_broadcast()
        || about.is_subnet_broadcast
        || !about.is_for_us_on_the_link;
    !(about_error || to_many || about.is_later_fragment) && is_single(&about.source)
}

/// How many bytes of the datagram that an error is about go into it, of `len`; `mtu` is that of the way back.
#[must_use]
pub fn quoted_len(is_v4: bool, len: usize, mtu: usize) -> usize {
    let (most, header) = if is_v4 { (V4_MAX, 20) } else { (V6_MAX, 40) };
    len.min(most.min(mtu).saturating_sub(header + icmp::HEADER_LEN))
}

/// Whether the sender is told that nobody listens on a port, by "port unreachable" (RFC 1122 §4.1.3.1). A segment of TCP is
/// answered with a reset instead (RFC 9293 §3.10.7.1).
#[must_use]
pub fn tells_closed_port(about: &Invoking) -> bool {
    about.protocol == protocol::UDP && may_send_error(about)
}

/// The reply to an echo request, and the address that it comes from. The caller adds the request's data.
///
/// RFC 1122 §3.2.2.6: "Every host MUST implement an ICMP Echo server function"; "An ICMP Echo Request destined to an IP
/// broadcast or IP multicast address MAY be silently discarded": it is, as by Linux; "The IP source address in an ICMP Echo Reply
/// MUST be the same as the specific-destination address"; "Data received in an ICMP Echo Request MUST be entirely included
/// in the resulting Echo Reply".
#[must_use]
pub fn echo(message: &icmp::Message, about: &Invoking) -> Option<(icmp::Message, Ip)> {
    let icmp::Message::EchoRequest { identifier, sequence } = *message else { return None };
    let to_one = is_single(&about.destination) && !about.is_subnet_broadcast && about.is_for_us_on_the_link;
    let reply = icmp::Message::EchoReply { identifier, sequence };
    (to_one && is_single(&about.source)).then_some((reply, about.destination))
}

/// The same for IPv6; `ours` is the address that is chosen towards the source (RFC 6724).
///
/// RFC 4443 §4.2: "Every node MUST implement an ICMPv6 Echo responder function"; "The source address of an Echo Reply
/// sent in response to a unicast Echo Request message MUST be the same as the destination address of that Echo
/// Request message"; "An Echo Reply SHOULD be sent in response to an Echo Request message sent to an IPv6 multicast
/// or anycast address. In this case, the source address of the reply MUST be a unicast address belonging to the
/// interface".
#[must_use]
pub fn echo_v6(
    message: &icmpv6::Message,
    about: &Invoking,
    ours: Option<Ip>,
) -> Option<(icmpv6::Message, Ip)> {
    let icmpv6::Message::EchoRequest { identifier, sequence } = *message else { return None };
    let from = if about.destination.is_multicast() { ours? } else { about.destination };
    let reply = icmpv6::Message::EchoReply { identifier, sequence };
    is_single(&about.source).then_some((reply, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEM: Ip = Ip::v4([198, 51, 100, 1]);
    const US: Ip = Ip::v4([192, 0, 2, 1]);
    const US6: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
    const THEM6: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");
    const GROUP6: Ip = Ip(*b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");

    const PLAIN: Invoking = Invoking {
        source: THEM,
        destination: US,
        protocol: protocol::UDP,
        icmp_kind: None,
        is_later_fragment: false,
        is_for_us_on_the_link: true,
        is_subnet_broadcast: false,
    };

    #[test]
    fn a_datagram_to_a_closed_port_is_answered_and_a_segment_is_not() {
        assert!(tells_closed_port(&PLAIN));
        assert!(!tells_closed_port(&Invoking { protocol: protocol::TCP, ..PLAIN }), "it gets a reset");
    }

    #[test]
    fn an_error_is_never_sent_about_an_error() {
        let icmp = |kind| Invoking { protocol: protocol::ICMP, icmp_kind: Some(kind), ..PLAIN };
        for kind in [3, 4, 5, 11, 12, 40, 255] {
            assert!(!may_send_error(&icmp(kind)), "{kind}");
        }
        assert!(may_send_error(&icmp(8)));
        assert!(!may_send_error(&Invoking { icmp_kind: None, ..icmp(8) }), "or what may be one");
        let icmpv6 = |kind| Invoking { protocol: protocol::ICMPV6, ..icmp(kind) };
        for kind in [1, 2, 3, 4, 127, 137] {
            assert!(!may_send_error(&icmpv6(kind)), "{kind}");
        }
        assert!(may_send_error(&icmpv6(128)));
    }

    #[test]
    fn an_error_is_never_sent_about_what_went_to_many() {
        for destination in [Ip::BROADCAST, Ip::v4([224, 0, 0, 1]), GROUP6] {
            assert!(!may_send_error(&Invoking { destination, ..PLAIN }), "{destination}");
        }
        assert!(!may_send_error(&Invoking { is_subnet_broadcast: true, ..PLAIN }));
        assert!(!may_send_error(&Invoking { is_for_us_on_the_link: false, ..PLAIN }));
    }

    #[test]
    fn an_error_is_never_sent_about_a_later_fragment() {
        assert!(!may_send_error(&Invoking { is_later_fragment: true, ..PLAIN }));
    }

    #[test]
    fn an_error_is_never_sent_to_who_is_not_a_single_host() {
        let loopback = Ip::v4([127, 0, 0, 1]);
        let reserved = Ip::v4([240, 0, 0, 1]);
        let zero = Ip::v4([0, 1, 2, 3]);
        for source in [Ip::UNSPECIFIED, Ip::UNSPECIFIED_V4, Ip::BROADCAST, GROUP6, loopback, reserved, zero] {
            assert!(!may_send_error(&Invoking { source, ..PLAIN }), "{source}");
        }
    }

    #[test]
    fn an_error_fills_576_bytes_of_ipv4_and_1280_of_ipv6() {
        assert_eq!([quoted_len(true, 2000, 1500), quoted_len(true, 100, 1500)], [548, 100]);
        assert_eq!([quoted_len(false, 2000, 1500), quoted_len(false, 2000, 1280)], [1232, 1232]);
        assert_eq!(quoted_len(true, 2000, 10), 0);
    }

    #[test]
    fn an_echo_comes_from_the_address_that_was_asked() {
        let request = icmp::Message::EchoRequest { identifier: 7, sequence: 9 };
        let reply = icmp::Message::EchoReply { identifier: 7, sequence: 9 };
        assert_eq!(echo(&request, &PLAIN), Some((reply, US)));
        assert_eq!(echo(&reply, &PLAIN), None);
        for destination in [Ip::BROADCAST, Ip::v4([224, 0, 0, 1])] {
            assert_eq!(echo(&request, &Invoking { destination, ..PLAIN }), None, "an amplifier");
        }
        assert_eq!(echo(&request, &Invoking { is_subnet_broadcast: true, ..PLAIN }), None);
        assert_eq!(echo(&request, &Invoking { is_for_us_on_the_link: false, ..PLAIN }), None);
        assert_eq!(echo(&request, &Invoking { source: Ip::BROADCAST, ..PLAIN }), None);
    }

    #[test]
    fn an_echo_of_ipv6_to_a_group_comes_from_an_address_of_ours() {
        let request = icmpv6::Message::EchoRequest { identifier: 7, sequence: 9 };
        let reply = icmpv6::Message::EchoReply { identifier: 7, sequence: 9 };
        let to_us = Invoking { source: THEM6, destination: US6, ..PLAIN };
        assert_eq!(echo_v6(&request, &to_us, None), Some((reply, US6)));
        let to_all = Invoking { destination: GROUP6, ..to_us };
        assert_eq!(echo_v6(&request, &to_all, Some(US6)), Some((reply, US6)));
        assert_eq!(echo_v6(&request, &to_all, None), None);
        assert_eq!(echo_v6(&request, &Invoking { source: GROUP6, ..to_us }, None), None);
    }
}
