//! What an error of ICMP means to the socket that it is about (RFC 1122 §3.2.2, RFC 4443 §2.4, RFC 5927). What we send
//! ourselves is in [`answer`], how often in [`limit`].
//!
//! An error comes from whoever wrote it. Before it means anything the caller has found the socket by the quoted
//! addresses and ports, and for TCP asked [`is_about_what_is_in_flight`].
//!
//! The rows are Linux's: icmp_err_convert and tcp_v4_err in net/ipv4, icmpv6_err_convert and tcp_v6_err in net/ipv6,
//! and __udp4_lib_err, __udp6_lib_err.

use super::path_mtu::TooBig;
use crate::error::Error;
use crate::seq::Seq;
use crate::wire::{icmp, icmpv6};

pub mod answer;
pub mod limit;

#[cfg(test)]
mod tests;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// What the socket is told.
    pub error: Error,
    /// Nothing will change that: a connected UDP socket's next call fails even without IP_RECVERR (RFC 1122 §4.1.3.3).
    /// For TCP [`to_tcp`] says what happens.
    pub is_hard: bool,
    /// No route at the moment: a backoff of the retransmission timer may be taken back (RFC 6069 §3; Linux's
    /// tcp_ld_RTO_revert).
    pub is_connectivity: bool,
    /// What the path takes, if that is what the error says.
    pub too_big: Option<TooBig>,
}

/// A row: type, code (or any), error, hard, connectivity.
type Row = (u8, Option<u8>, Error, bool, bool);

/// RFC 1122 §3.2.2.1: "A Destination Unreachable message that is received with code 0 (Net), 1 (Host), or 5 (Bad Source
/// Route) may result from a routing transient and MUST therefore be interpreted as only a hint, not proof, that the
/// specified destination is unreachable". RFC 1122 §4.2.3.9: "these are hard error conditions" of codes 2 to 4; of those 4
/// has become path MTU discovery.
#[rustfmt::skip]
const V4: &[Row] = &[
    (3,  Some(0),  Error::NetworkUnreachable,    false, true),  // net unreachable
    (3,  Some(1),  Error::HostUnreachable,   false, true),  // host unreachable
    (3,  Some(2),  Error::ProtocolUnreachable,        true,  false), // protocol unreachable
    (3,  Some(3),  Error::ConnectionRefused, true,  false), // port unreachable
    (3,  Some(4),  Error::MessageSize,       false, false), // fragmentation needed and DF set
    (3,  Some(5),  Error::NotSupported,      false, false), // source route failed
    (3,  Some(6),  Error::NetworkUnreachable,    true,  false), // net unknown
    (3,  Some(7),  Error::HostDown,          true,  false), // host unknown
    (3,  Some(8),  Error::NoNetwork,             true,  false), // source host isolated
    (3,  Some(9),  Error::NetworkUnreachable,    true,  false), // net prohibited
    (3,  Some(10), Error::HostUnreachable,   true,  false), // host prohibited
    (3,  Some(11), Error::NetworkUnreachable,    false, false), // net unreachable for type of service
    (3,  Some(12), Error::HostUnreachable,   false, false), // host unreachable for type of service
    (3,  Some(13), Error::HostUnreachable,   true,  false), // filtered
    (3,  Some(14), Error::HostUnreachable,   true,  false), // precedence violation
    (3,  Some(15), Error::HostUnreachable,   true,  false), // precedence cutoff
    (11, None,     Error::HostUnreachable,   false, false), // time exceeded
    (12, None,     Error::Protocol,             true,  false), // parameter problem
];

/// Unassigned codes of "unreachable" are hard (icmpv6_err_convert).
#[rustfmt::skip]
const V6: &[Row] = &[
    (1,  Some(0),  Error::NetworkUnreachable,    false, true),  // no route
    (1,  Some(1),  Error::Forbidden,            true,  false), // prohibited
    (1,  Some(2),  Error::HostUnreachable,   false, false), // beyond the scope of the source
    (1,  Some(3),  Error::HostUnreachable,   false, false), // address unreachable
    (1,  Some(4),  Error::ConnectionRefused, true,  false), // port unreachable
    (1,  Some(5),  Error::Forbidden,            true,  false), // source address failed policy
    (1,  Some(6),  Error::Forbidden,            true,  false), // reject route
    (1,  None,     Error::Protocol,             true,  false), // unassigned
    (2,  None,     Error::MessageSize,       false, false), // packet too big
    (3,  None,     Error::HostUnreachable,   false, false), // time exceeded
    (4,  None,     Error::Protocol,             true,  false), // parameter problem
];

fn row(rows: &[Row], kind: u8, code: u8, too_big: Option<TooBig>) -> Option<Meaning> {
    let is_it = |row: &&Row| row.0 == kind && row.1.is_none_or(|of| of == code);
    let &(_, _, error, is_hard, is_connectivity) = rows.iter().find(is_it)?;
    Some(Meaning { error, is_hard, is_connectivity, too_big })
}

/// What a message of IPv4 says to a socket; `None` if it isn't an error or means nothing to one: source quench, which
/// RFC 6633 has ended, redirects, and types and codes that aren't assigned.
#[must_use]
pub fn meaning(message: &icmp::Message) -> Option<Meaning> {
    use icmp::{Message, Unreachable};
    let (kind, code, too_big) = match *message {
        Message::Unreachable(why @ Unreachable::FragmentationNeeded { mtu }) => {
            (3, why.code(), Some(TooBig::V4 { mtu: mtu.into() }))
        }
        Message::Unreachable(why) => (3, why.code(), None),
        Message::TimeExceeded { code } => (11, code, None),
        Message::ParameterProblem { code, .. } => (12, code, None),
        _ => return None,
    };
    row(V4, kind, code, too_big)
}

/// What a message of IPv6 says to a socket; RFC 4443 §2.4 (a) would pass unknown errors on too: "it MUST be passed to
/// the upper-layer process that originated the packet that caused the error, where this can be identified". Linux
/// drops them (icmpv6_rcv knows no handler), and no socket could tell what they mean: a departure.
#[must_use]
pub fn meaning_v6(message: &icmpv6::Message) -> Option<Meaning> {
    use icmpv6::Message;
    let (kind, code, too_big) = match *message {
        Message::Unreachable(why) => (1, why.code(), None),
        Message::PacketTooBig { mtu } => (2, 0, Some(TooBig::V6 { mtu })),
        Message::TimeExceeded { code } => (3, code, None),
        Message::ParameterProblem { code, .. } => (4, code, None),
        _ => return None,
    };
    row(V6, kind, code, too_big)
}

/// Whether an error is about something that we have sent and that isn't acknowledged: SND.UNA ≤ SEG.SEQ ≤ SND.NXT.
///
/// RFC 5927 §4.1: "These implementations check that the TCP sequence number contained in the payload of the ICMP
/// error message is within the range SND.UNA =< SEG.SEQ < SND.NXT." Linux takes SND.NXT too (between in tcp_v4_err):
/// a keep-alive or a bare acknowledgment has it. A guess still hits only one in 2³² divided by what is in flight.
#[must_use]
pub fn is_about_what_is_in_flight(quoted: Seq, snd_una: Seq, snd_nxt: Seq) -> bool {
    quoted - snd_una <= snd_nxt - snd_una
}

/// What an error does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The connection ends; the next call gets the error.
    Abort(Error),
    /// The next call gets the error (IP_RECVERR is set); the connection goes on.
    Report(Error),
    /// Kept: it becomes the error if the connection is given up for another reason (sk_err_soft).
    Remember(Error),
    /// The path's MTU is asked: [`super::path_mtu`].
    TooBig(TooBig),
}

/// What an error does to a connection that is in SYN-SENT or SYN-RECEIVED (`is_opening`) or beyond.
///
/// RFC 1122 §4.2.3.9 would abort for hard errors in any state. RFC 5927 §5.2 describes that in the synchronized
/// states they are better taken as soft ones, for a path that has worked is not known to be gone by what anybody can
/// write: Linux does that, and we do. For those that are opening Linux ends on the soft ones as well: connect fails
/// at once with ENETUNREACH or EHOSTUNREACH (RFC 5461 §4.1 describes that; RFC 1122 §4.2.3.9 has "MUST NOT abort the
/// connection": a departure).
#[must_use]
pub fn to_tcp(meaning: &Meaning, is_opening: bool, receives_errors: bool) -> Effect {
    match (meaning.too_big, is_opening, receives_errors) {
        (Some(too_big), _, _) => Effect::TooBig(too_big),
        (None, true, _) => Effect::Abort(meaning.error),
        (None, false, true) => Effect::Report(meaning.error),
        (None, false, false) => Effect::Remember(meaning.error),
    }
}

/// What of UDP's socket an error is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// It has a peer.
    pub is_connected: bool,
    /// IP_RECVERR or IPV6_RECVERR: errors are queued, soft ones too, and without a peer.
    pub receives_errors: bool,
    /// Its IP_MTU_DISCOVER isn't IP_PMTUDISC_DONT: it wants to know what is too large.
    pub discovers_mtu: bool,
}

/// The error that the next call on a socket of UDP gets, if any.
///
/// RFC 1122 §4.1.3.3: "UDP MUST pass to the application layer all ICMP error messages that it receives from the IP
/// layer." As Linux, that is on request; without, hard ones to sockets with a peer.
#[must_use]
pub fn to_udp(meaning: &Meaning, socket: &Datagrams) -> Option<Error> {
    let is_hard = match meaning.too_big {
        // IPv4's is no error at all to who lets routers fragment.
        Some(TooBig::V4 { .. }) if !socket.discovers_mtu => return None,
        Some(_) => socket.discovers_mtu,
        None => meaning.is_hard,
    };
    (socket.receives_errors || is_hard && socket.is_connected).then_some(meaning.error)
}
