//! Which packets are wanted, in the words of pcap-filter(7), as far as they are useful here:
//!
//! ```text
//! filter    = term { "or" term }
//! term      = factor { "and" factor }
//! factor    = "not" factor | "(" filter ")" | primitive
//! primitive = "inbound" | "outbound"
//!           | protocol                                      tcp udp icmp icmp6 arp ip ip6
//!           | [protocol] ["src" | "dst"] ["host"] ADDRESS
//!           | [protocol] ["src" | "dst"] "net" ADDRESS/BITS
//!           | [protocol] ["src" | "dst"] ("port" N | "portrange" N-M)
//! ```

use std::net::IpAddr;

use super::packet::{Packet, Protocol};
use crate::refusal::Refusal;

/// Brackets and `not` inside each other.
const DEPTH_MAX: usize = 64;

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Every packet.
    All,
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// Whether it was sent.
    Sent(bool),
    Of(Kind),
    /// An address and how many of its bits count.
    Net(Ends, IpAddr, u32),
    Ports(Ends, u16, u16),
}

/// A word for protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ip,
    Ip6,
    One(Protocol),
}

/// Which ends of a packet are asked about: one of them is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Source,
    Destination,
    Either,
}

const KINDS: [(&str, Kind); 7] = [
    ("tcp", Kind::One(Protocol::Tcp)),
    ("udp", Kind::One(Protocol::Udp)),
    ("icmp", Kind::One(Protocol::Icmp)),
    ("icmp6", Kind::One(Protocol::Icmp6)),
    ("arp", Kind::One(Protocol::Arp)),
    ("ip", Kind::Ip),
    ("ip6", Kind::Ip6),
];

impl Ends {
    fn any<T: Copy>(self, both: Option<(T, T)>, is_it: impl Fn(T) -> bool) -> bool {
        let Some((source, destination)) = both else { return false };
        match self {
            Self::Source => is_it(source),
            Self::Destination => is_it(destination),
            Self::Either => is_it(source) || is_it(destination),
        }
    }
}

impl Filter {
    /// The filter that these words are; every packet without any.
    pub(super) fn parse(words: &[String]) -> Result<Self, Refusal> {
        let text = words.join(" ").replace('(', " ( ").replace(')', " ) ").replace('!', " not ");
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() {
            return Ok(Self::All);
        }
        let mut parser = Parser { words: &words, at: 0 };
        let filter = parser.filter(0)?;
        if parser.at < words.len() {
            return Err(parser.wrong("`and` or `or`"));
        }
        Ok(filter)
    }

    /// Whether a packet is wanted.
    pub(super) fn holds(&self, packet: &Packet) -> bool {
        match self {
            Self::All => true,
            Self::Not(inner) => !inner.holds(packet),
            Self::And(one, other) => one.holds(packet) && other.holds(packet),
            Self::Or(one, other) => one.holds(packet) || other.holds(packet),
            Self::Sent(is_sent) => packet.is_sent == *is_sent,
            Self::Of(Kind::One(protocol)) => packet.protocol == *protocol,
            Self::Of(Kind::Ip) => packet.addresses.is_some_and(|(source, _)| source.is_ipv4()),
            Self::Of(Kind::Ip6) => packet.addresses.is_some_and(|(source, _)| source.is_ipv6()),
            Self::Net(ends, net, bits) => ends.any(packet.addresses, |ip| is_in(ip, *net, *bits)),
            Self::Ports(ends, first, last) => ends.any(packet.ports, |port| (*first..=*last).contains(&port)),
        }
    }
}

/// Whether the first bits of two addresses of one version are equal.
fn is_in(ip: IpAddr, net: IpAddr, bits: u32) -> bool {
    let (one, other, all) = match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => (u128::from(ip.to_bits()), u128::from(net.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(net)) => (ip.to_bits(), net.to_bits(), 128),
        _ => return false,
    };
    (one ^ other).checked_shr(all - bits.min(all)).unwrap_or(0) == 0
}

struct Parser<'w> {
    words: &'w [&'w str],
    at: usize,
}

impl<'w> Parser<'w> {
    fn next_is(&mut self, words: &[&str]) -> bool {
        let is_it = self.words.get(self.at).is_some_and(|word| words.contains(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn wrong(&self, wanted: &str) -> Refusal {
        let before = self.words[..self.at].join(" ");
        let after = if before.is_empty() { String::new() } else { format!(" after `{before}`") };
        let found = match self.words.get(self.at) {
            Some(word) => format!("`{word}` stands{after}"),
            None => format!("nothing stands{after}"),
        };
        Refusal::usage(format!(
            "the filter: {found} where {wanted} should; `accel help dump` shows how they are written."
        ))
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, Refusal> {
        let mut filter = self.term(depth)?;
        while self.next_is(&["or", "||"]) {
            filter = Filter::Or(Box::new(filter), Box::new(self.term(depth)?));
        }
        Ok(filter)
    }

    fn term(&mut self, depth: usize) -> Result<Filter, Refusal> {
        let mut term = self.factor(depth)?;
        while self.next_is(&["and", "&&"]) {
            term = Filter::And(Box::new(term), Box::new(self.factor(depth)?));
        }
        Ok(term)
    }

    fn factor(&mut self, depth: usize) -> Result<Filter, Refusal> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("something less deep"));
        }
        if self.next_is(&["not"]) {
            return Ok(Filter::Not(Box::new(self.factor(depth + 1)?)));
        }
        if self.next_is(&["("]) {
            let filter = self.filter(depth + 1)?;
            return if self.next_is(&[")"]) { Ok(filter) } else { Err(self.wrong("`)`")) };
        }
        self.primitive()
    }

    fn primitive(&mut self) -> Result<Filter, Refusal> {
        if self.next_is(&["inbound"]) {
            return Ok(Filter::Sent(false));
        }
        if self.next_is(&["outbound"]) {
            return Ok(Filter::Sent(true));
        }
        let kind = KINDS.iter().find(|(word, _)| self.next_is(&[word])).map(|(_, kind)| Filter::Of(*kind));
        let ends = match () {
            () if self.next_is(&["src"]) => Some(Ends::Source),
            () if self.next_is(&["dst"]) => Some(Ends::Destination),
            () => None,
        };
        let value = self.value(ends.unwrap_or(Ends::Either), kind.is_none() || ends.is_some())?;
        match (kind, value) {
            (Some(kind), Some(value)) => Ok(Filter::And(Box::new(kind), Box::new(value))),
            (one, other) => one.or(other).ok_or_else(|| self.wrong("a protocol, an address or a port")),
        }
    }

    /// What is asked of an address or a port, if that is what stands here; it must if `is_needed`.
    fn value(&mut self, ends: Ends, is_needed: bool) -> Result<Option<Filter>, Refusal> {
        if self.next_is(&["port", "portrange"]) {
            let range = self.word("a port")?;
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse(), last.parse());
            let (Ok(first), Ok(last)) = (first, last) else { return Err(self.back("a port")) };
            return Ok(Some(Filter::Ports(ends, first, last)));
        }
        if self.next_is(&["net"]) {
            let net = self.word("an address with its bits")?;
            let (ip, bits) = net.split_once('/').unwrap_or((net, "128"));
            let (Ok(ip), Ok(bits)) = (ip.parse(), bits.parse()) else {
                return Err(self.back("an address with its bits"));
            };
            return Ok(Some(Filter::Net(ends, ip, bits)));
        }
        let is_host = self.next_is(&["host"]);
        let ip = self.words.get(self.at).and_then(|word| word.parse().ok());
        match ip {
            Some(ip) => {
                self.at += 1;
                Ok(Some(Filter::Net(ends, ip, 128)))
            }
            None if is_host => Err(self.wrong("an address")),
            None if is_needed => Err(self.wrong("a protocol, an address or a port")),
            None => Ok(None),
        }
    }

    fn word(&mut self, wanted: &str) -> Result<&'w str, Refusal> {
        let word = self.words.get(self.at).ok_or_else(|| self.wrong(wanted))?;
        self.at += 1;
        Ok(word)
    }

    /// The word that was read last is wrong.
    fn back(&mut self, wanted: &str) -> Refusal {
        self.at -= 1;
        self.wrong(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::{datagram, segment};
    use super::*;

    fn parse(text: &str) -> Result<Filter, Refusal> {
        Filter::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn filters_choose_packets() {
        let [tcp, udp] = [Packet::of(&segment(), true), Packet::of(&datagram(), false)];
        for (text, of_tcp, of_udp) in [
            ("", true, true),
            ("tcp", true, false),
            ("udp or tcp", true, true),
            ("tcp and udp", false, false),
            ("not tcp", false, true),
            ("!(tcp or udp)", false, false),
            ("port 80", true, false),
            ("src port 80", true, false),
            ("dst port 80", false, false),
            ("tcp dst portrange 3999-4001", true, false),
            ("udp port 80", false, false),
            ("10.0.0.2", true, false),
            ("src host 10.0.0.2", false, false),
            ("dst fd00::2", false, true),
            ("net 10.0.0.0/24", true, false),
            ("net 10.0.1.0/24 or net fd00::/8", false, true),
            ("ip6", false, true),
            ("ip and outbound", true, false),
            ("inbound", false, true),
            ("tcp or udp and port 54", true, false),
            ("icmp or arp", false, false),
        ] {
            let filter = parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
            assert_eq!((filter.holds(&tcp), filter.holds(&udp)), (of_tcp, of_udp), "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_in_a_sentence() {
        let deep = "( ".repeat(1000);
        for text in
            ["tcp 80 or", "port", "port x", "host", "net 10.0.0.0/x", "( tcp", "and", "tcp tcp", "src", &deep]
        {
            let refusal = parse(text).expect_err(text);
            assert!(refusal.message.starts_with("the filter: ") && refusal.status == 2, "{text}: {refusal}");
        }
    }
}
