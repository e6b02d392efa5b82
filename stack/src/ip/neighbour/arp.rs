//! What an ARP packet claims, and what is answered (RFC 826, RFC 5227 as far as a host needs it that doesn't choose its
//! addresses itself).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Claim, Kind};
use crate::time::{Duration, Instant};
use crate::wire::arp::{Operation, Packet};
use crate::wire::ethernet::Address;
use crate::wire::ip::Ip;

/// RFC 5227 §1.1.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// What a packet comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// For [`super::Cache::hear`].
    pub claim: Option<Claim>,
    /// To be sent to its target's link address.
    pub reply: Option<Packet>,
    /// Somebody else uses this address of ours: for [`Defence`].
    pub conflict: Option<Ip>,
}

/// What a packet says to a host with the link address `link` and the addresses that `is_ours` knows.
///
/// RFC 826, "Packet Reception": "?Am I the target protocol address? […] ?Is the opcode ares_op$REQUEST? […] Swap hardware and
/// protocol fields, putting the local hardware and protocol addresses in the sender fields."
///
/// RFC 5227 §2.4: "At any time, if a host receives an ARP packet (Request *or* Reply) where the 'sender IP address' is (one
/// of) the host's own IP address(es) configured on that interface, but the 'sender hardware address' does not match any of the
/// host's own interface addresses, then this is a conflicting ARP packet".
#[must_use]
pub fn receive(packet: &Packet, link: Address, is_ours: impl Fn(&Ip) -> bool) -> Heard {
    let sender = packet.sender_protocol;
    // RFC 1812 §3.3.2: "MUST not believe any ARP reply that claims that the Link Layer address of another host or router is a
    // broadcast or multicast address"; and our own packets come back over some links.
    let own_or_group = packet.sender_hardware == link || packet.sender_hardware.is_multicast();
    if own_or_group || sender.is_multicast() || sender.is_broadcast() || sender.is_loopback() {
        return Heard::default();
    }
    if is_ours(&sender) {
        return Heard { conflict: Some(sender), ..Heard::default() };
    }
    let (is_request, is_for_us) = (packet.operation == Operation::Request, is_ours(&packet.target_protocol));
    let kind = match (is_request, is_for_us && packet.target_hardware == link) {
        (true, _) if is_for_us => Kind::Question,
        (_, to_us) => Kind::Answer { solicited: to_us && !is_request, overrides: true, router: None },
    };
    let claim = Claim { ip: sender, link: Some(packet.sender_hardware), kind };
    let reply = Packet {
        operation: Operation::Reply,
        sender_hardware: link,
        sender_protocol: packet.target_protocol,
        target_hardware: packet.sender_hardware,
        target_protocol: sender,
    };
    Heard {
        // A probe's sender has no address yet (RFC 5227 §2.1.1): "to avoid polluting ARP caches in other hosts".
        claim: (!sender.is_unspecified()).then_some(claim),
        reply: (is_request && is_for_us).then_some(reply),
        conflict: None,
    }
}

/// A question about an address, from one of ours: to its link address, or to everybody.
#[must_use]
pub fn request(target: &Ip, to: Option<Address>, ours: (&Ip, Address)) -> (Packet, Address) {
    let packet = Packet {
        operation: Operation::Request,
        sender_hardware: ours.1,
        sender_protocol: *ours.0,
        target_hardware: Address::default(),
        target_protocol: *target,
    };
    (packet, to.unwrap_or(Address::BROADCAST))
}

/// RFC 5227 §2.3: an announcement "is identical to the ARP Probe described above, except that now the sender and
/// target IP addresses are both set to the host's newly selected IPv4 address". It is broadcast.
#[must_use]
pub fn announcement(ours: (&Ip, Address)) -> (Packet, Address) {
    request(ours.0, None, ours)
}

/// When an address was defended. Zero bytes are never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Defence {
    /// When the last conflict was seen, in nanoseconds, plus one.
    last: u64,
}

impl Defence {
    /// Whether the address is defended against a conflict that was just seen, by [`announcement`].
    ///
    /// RFC 5227 §2.4 (b): "if it has not seen any other conflicting ARP packets within the last DEFEND_INTERVAL seconds, [a
    /// host] MAY elect to attempt to defend its address by recording the time […] and then broadcasting one single ARP Announcement
    /// […] However, if this is not the first conflicting ARP packet […] the host MUST immediately cease using this address". Whether
    /// it does is its owner's to say: our sockets stay, as Linux's do, and nothing is sent, so that two such hosts don't
    /// fight for ever.
    pub fn defends(&mut self, now: Instant) -> bool {
        let is_first = self.last == 0 || now - Instant(self.last - 1) >= DEFEND_INTERVAL;
        self.last = now.0.saturating_add(1);
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ip = Ip::v4([192, 0, 2, 1]);
    const THEM: Ip = Ip::v4([192, 0, 2, 2]);
    const OUR_LINK: Address = Address([2, 0, 0, 0, 0, 1]);
    const THEIR_LINK: Address = Address([2, 0, 0, 0, 0, 2]);

    const QUESTION: Packet = Packet {
        operation: Operation::Request,
        sender_hardware: THEIR_LINK,
        sender_protocol: THEM,
        target_hardware: Address([0; 6]),
        target_protocol: US,
    };
    const ANSWER: Packet = Packet { operation: Operation::Reply, target_hardware: OUR_LINK, ..QUESTION };

    fn heard(packet: &Packet) -> Heard {
        receive(packet, OUR_LINK, |ip| *ip == US)
    }

    #[test]
    fn a_question_for_us_is_answered_and_tells_who_asks() {
        let heard = heard(&QUESTION);
        let reply = Packet {
            operation: Operation::Reply,
            sender_hardware: OUR_LINK,
            sender_protocol: US,
            target_hardware: THEIR_LINK,
            target_protocol: THEM,
        };
        assert_eq!((heard.reply, heard.conflict), (Some(reply), None));
        assert_eq!(heard.claim, Some(Claim { ip: THEM, link: Some(THEIR_LINK), kind: Kind::Question }));
    }

    #[test]
    fn a_question_for_another_is_not_answered_and_an_announcement_is_only_a_claim() {
        let other = Ip::v4([192, 0, 2, 3]);
        let unasked = Kind::Answer { solicited: false, overrides: true, router: None };
        for target_protocol in [other, THEM] {
            for operation in [Operation::Request, Operation::Reply] {
                let heard = heard(&Packet { operation, target_protocol, ..ANSWER });
                assert_eq!((heard.reply, heard.claim.map(|claim| claim.kind)), (None, Some(unasked)));
            }
        }
    }

    #[test]
    fn a_reply_is_to_us_only_if_it_is_addressed_so() {
        let solicited = |packet: &Packet| match heard(packet).claim.expect("a claim").kind {
            Kind::Answer { solicited, .. } => solicited,
            Kind::Question => panic!("an answer"),
        };
        assert!(solicited(&ANSWER) && heard(&ANSWER).reply.is_none());
        assert!(!solicited(&Packet { target_hardware: Address::BROADCAST, ..ANSWER }));
    }

    #[test]
    fn a_probe_is_answered_and_nothing_is_learned_from_it() {
        let heard = heard(&Packet { sender_protocol: Ip::UNSPECIFIED_V4, ..QUESTION });
        assert_eq!((heard.claim, heard.reply.map(|reply| reply.sender_protocol)), (None, Some(US)));
    }

    #[test]
    fn who_uses_our_address_is_no_neighbour_but_a_conflict() {
        for packet in [QUESTION, ANSWER] {
            let expected = Heard { conflict: Some(US), ..Heard::default() };
            assert_eq!(heard(&Packet { sender_protocol: US, ..packet }), expected);
        }
        assert_eq!(
            heard(&Packet { sender_protocol: US, sender_hardware: OUR_LINK, ..QUESTION }),
            Heard::default()
        );
    }

    #[test]
    fn an_address_is_defended_once_in_ten_seconds() {
        let mut defence = Defence::default();
        let at = |seconds| Instant(0) + Duration::from_secs(seconds);
        let defended = [0, 1, 10, 20].map(|seconds| defence.defends(at(seconds)));
        assert_eq!(defended, [true, false, false, true], "each conflict counts, defended or not");
    }

    #[test]
    fn groups_are_nobodys_link_address() {
        for packet in [
            Packet { sender_hardware: Address::BROADCAST, ..ANSWER },
            Packet { sender_protocol: Ip::v4([224, 0, 0, 1]), ..ANSWER },
            Packet { sender_protocol: Ip::BROADCAST, ..ANSWER },
        ] {
            assert_eq!(heard(&packet), Heard::default());
        }
    }

    #[test]
    fn a_request_goes_to_whom_is_known_or_to_all() {
        let (packet, to) = request(&THEM, None, (&US, OUR_LINK));
        assert_eq!((packet.target_protocol, packet.sender_protocol, to), (THEM, US, Address::BROADCAST));
        assert_eq!(request(&THEM, Some(THEIR_LINK), (&US, OUR_LINK)).1, THEIR_LINK);
        let (packet, to) = announcement((&US, OUR_LINK));
        assert_eq!((packet.sender_protocol, packet.target_protocol, to), (US, US, Address::BROADCAST));
    }
}
