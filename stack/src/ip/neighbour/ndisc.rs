//! What a neighbor solicitation or advertisement claims, and what is answered (RFC 4861 §7.2). The message has met
//! RFC 4861 §7.1 when it was parsed.

use super::{Claim, Kind};
use crate::wire::ethernet::Address;
use crate::wire::ip::Ip;
use crate::wire::ndisc::{Message, Options};

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ip = Ip([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// A message to be sent: from where, to whom, on the link to whom (or to whom the cache says).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// Its options.
    pub options: Options,
    /// One of our addresses.
    pub source: Ip,
    /// A neighbour, or a group.
    pub destination: Ip,
    /// Where that is; `None` says to resolve it.
    pub link: Option<Address>,
}

/// What a message comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// For [`super::Cache::hear`].
    pub claim: Option<Claim>,
    /// To be sent.
    pub reply: Option<Outgoing>,
    /// Somebody else uses this address of ours, or is about to.
    pub conflict: Option<Ip>,
}

/// What a message from `source` says to a host with the link address `link` and the addresses that `is_ours` knows.
#[must_use]
pub fn receive(
    message: &Message,
    options: &Options,
    source: &Ip,
    link: Address,
    is_ours: impl Fn(&Ip) -> bool,
) -> Heard {
    match *message {
        Message::NeighborSolicitation { target } if is_ours(&target) => {
            solicited(target, options, source, link)
        }
        Message::NeighborAdvertisement { target, .. } if is_ours(&target) => {
            // Our own comes back over some links.
            let is_own = options.target_link == Some(link);
            Heard { conflict: (!is_own).then_some(target), ..Heard::default() }
        }
        Message::NeighborAdvertisement { target, router, solicited, overrides } => {
            let kind = Kind::Answer { solicited, overrides, router: Some(router) };
            Heard { claim: Some(Claim { ip: target, link: options.target_link, kind }), ..Heard::default() }
        }
        _ => Heard::default(),
    }
}

/// RFC 4861 §7.2.4: "A node sends a Neighbor Advertisement in response to a valid Neighbor Solicitation targeting one of the
/// node's assigned addresses. […] If the source of the solicitation is the unspecified address, the node MUST set the Solicited
/// flag to zero and multicast the advertisement to the all-nodes address. Otherwise, the node MUST set the Solicited flag to one
/// and unicast the advertisement to the Source Address of the solicitation."
fn solicited(target: Ip, options: &Options, source: &Ip, link: Address) -> Heard {
    let anonymous = source.is_unspecified();
    let message =
        Message::NeighborAdvertisement { target, router: false, solicited: !anonymous, overrides: true };
    let claim = Claim { ip: *source, link: options.source_link, kind: Kind::Question };
    let reply = Outgoing {
        message,
        options: Options { target_link: Some(link), ..Options::default() },
        source: target,
        destination: if anonymous { ALL_NODES } else { *source },
        link: if anonymous { Address::of_group(&ALL_NODES) } else { options.source_link },
    };
    Heard { claim: (!anonymous).then_some(claim), reply: Some(reply), conflict: None }
}

/// A question about an address, from one of ours: to its link address, or to the group that it is in.
///
/// RFC 4861 §7.2.2: "If the solicitation is being sent to a solicited-node multicast address, the sender MUST include its
/// link-layer address (if it has one) as a Source Link-Layer Address option. Otherwise, the sender SHOULD include" it.
#[must_use]
pub fn solicitation(target: &Ip, to: Option<Address>, ours: (&Ip, Address)) -> Outgoing {
    let group = target.solicited_node();
    Outgoing {
        message: Message::NeighborSolicitation { target: *target },
        options: Options { source_link: Some(ours.1), ..Options::default() },
        source: *ours.0,
        destination: if to.is_some() { *target } else { group },
        link: to.or(Address::of_group(&group)),
    }
}

/// An address of ours is told to everybody, unasked. RFC 4861 §7.2.6: "the Target Address field in the Neighbor
/// Advertisement is set to an IP address of the interface, and the Target Link-Layer Address option is filled with the new
/// link-layer address. The Solicited flag MUST be set to zero"; the Override flag says that it takes another one's place.
#[must_use]
pub fn announcement(ours: &Ip, link: Address) -> Outgoing {
    Outgoing {
        message: Message::NeighborAdvertisement {
            target: *ours,
            router: false,
            solicited: false,
            overrides: true,
        },
        options: Options { target_link: Some(link), ..Options::default() },
        source: *ours,
        destination: ALL_NODES,
        link: Address::of_group(&ALL_NODES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x01\x02\x03");
    const THEM: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02");
    const OUR_LINK: Address = Address([2, 0, 0, 0, 0, 1]);
    const THEIR_LINK: Address = Address([2, 0, 0, 0, 0, 2]);
    const QUESTION: Message = Message::NeighborSolicitation { target: US };

    fn heard(message: &Message, options: &Options, source: &Ip) -> Heard {
        receive(message, options, source, OUR_LINK, |ip| *ip == US)
    }

    fn from(link: Address) -> Options {
        Options { source_link: Some(link), ..Options::default() }
    }

    #[test]
    fn a_solicitation_for_us_is_answered_to_who_asks() {
        let heard = heard(&QUESTION, &from(THEIR_LINK), &THEM);
        let reply = heard.reply.expect("an advertisement");
        let expected =
            Message::NeighborAdvertisement { target: US, router: false, solicited: true, overrides: true };
        assert_eq!((reply.message, reply.source, reply.destination), (expected, US, THEM));
        assert_eq!((reply.link, reply.options.target_link), (Some(THEIR_LINK), Some(OUR_LINK)));
        assert_eq!(heard.claim, Some(Claim { ip: THEM, link: Some(THEIR_LINK), kind: Kind::Question }));
    }

    #[test]
    fn who_has_no_address_yet_is_answered_to_all_nodes_and_not_learned() {
        let heard = heard(&QUESTION, &Options::default(), &Ip::UNSPECIFIED);
        let reply = heard.reply.expect("an advertisement");
        let expected =
            Message::NeighborAdvertisement { target: US, router: false, solicited: false, overrides: true };
        assert_eq!((reply.message, reply.destination), (expected, ALL_NODES));
        assert_eq!((reply.link, heard.claim), (Some(Address([0x33, 0x33, 0, 0, 0, 1])), None));
    }

    #[test]
    fn a_solicitation_for_another_and_messages_of_routers_say_nothing() {
        let other = Message::NeighborSolicitation { target: THEM };
        assert_eq!(heard(&other, &from(THEIR_LINK), &THEM), Heard::default());
        assert_eq!(heard(&Message::RouterSolicitation, &from(THEIR_LINK), &THEM), Heard::default());
    }

    #[test]
    fn an_advertisement_is_a_claim_and_one_of_our_address_a_conflict() {
        let advertisement = |target| Message::NeighborAdvertisement {
            target,
            router: true,
            solicited: true,
            overrides: false,
        };
        let told = Options { target_link: Some(THEIR_LINK), ..Options::default() };
        let kind = Kind::Answer { solicited: true, overrides: false, router: Some(true) };
        let claim = heard(&advertisement(THEM), &told, &THEM).claim;
        assert_eq!(claim, Some(Claim { ip: THEM, link: Some(THEIR_LINK), kind }));
        assert_eq!(heard(&advertisement(US), &told, &THEM), Heard { conflict: Some(US), ..Heard::default() });
        let own = Options { target_link: Some(OUR_LINK), ..Options::default() };
        assert_eq!(heard(&advertisement(US), &own, &US), Heard::default());
    }

    #[test]
    fn a_question_goes_to_whom_is_known_or_to_the_solicited_node_group() {
        let to_all = solicitation(&US, None, (&THEM, THEIR_LINK));
        assert_eq!(to_all.destination, US.solicited_node());
        assert_eq!(to_all.link, Some(Address([0x33, 0x33, 0xff, 1, 2, 3])));
        assert_eq!(to_all.options.source_link, Some(THEIR_LINK), "a MUST");
        let to_one = solicitation(&US, Some(OUR_LINK), (&THEM, THEIR_LINK));
        assert_eq!((to_one.destination, to_one.link), (US, Some(OUR_LINK)));
    }
}
