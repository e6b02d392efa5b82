//! A packet as one line that reads beside a capture: the stack's own formats, put together.

use std::fmt::Write as _;

use stack::device::Link;
use stack::wire::ip::Ip;
use stack::wire::{arp, ethernet, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp};

/// The line of a packet. One that is broken says which rule it broke.
#[must_use]
pub fn line(bytes: &[u8], link: Link) -> String {
    let parsed = match link {
        Link::Ethernet => match ethernet::parse(bytes) {
            Ok((frame, payload)) => match frame.ethertype {
                ethernet::IPV4 | ethernet::IPV6 => return ip(payload),
                ethernet::ARP => arp::parse(payload).map(|(packet, _)| packet.to_string()),
                _ => Ok(format!("{frame}, length {}", payload.len())),
            },
            Err(rule) => Err(rule),
        },
        Link::Ip => return ip(bytes),
    };
    parsed.unwrap_or_else(|rule| format!("[{rule}], length {}", bytes.len()))
}

/// The line of an IP datagram.
fn ip(bytes: &[u8]) -> String {
    let broken = |rule| format!("[{rule}], length {}", bytes.len());
    if bytes.first().is_some_and(|byte| byte >> 4 == 6) {
        return match ipv6::parse(bytes) {
            Ok((datagram, payload)) => {
                let (from, to) = (datagram.header.source, datagram.header.destination);
                let protocol = datagram.chain.fragment.is_none().then_some(datagram.chain.protocol);
                transport("IP6", from, to, protocol, payload).unwrap_or_else(|| datagram.to_string())
            }
            Err(rule) => broken(rule),
        };
    }
    match ipv4::parse(bytes) {
        Ok((datagram, payload)) => {
            let (from, to) = (datagram.header.source(), datagram.header.destination());
            let protocol = datagram.fragment().is_none().then_some(datagram.header.protocol);
            transport("IP", from, to, protocol, payload).unwrap_or_else(|| datagram.to_string())
        }
        Err(rule) => broken(rule),
    }
}

/// The line of what a datagram carries, if it is something that the stack speaks.
fn transport(version: &str, from: Ip, to: Ip, protocol: Option<u8>, payload: &[u8]) -> Option<String> {
    let mut line = format!("{version} ");
    match protocol? {
        protocol::TCP => {
            let (segment, _) = tcp::parse(payload).ok()?;
            let (source, destination) = (segment.header.source, segment.header.destination);
            write!(line, "{from}.{source} > {to}.{destination}: {segment}").ok()?;
        }
        protocol::UDP => {
            let (header, _) = udp::parse(payload, from.is_v4()).ok()?;
            let (source, destination, length) = (header.source, header.destination, payload.len() - 8);
            write!(line, "{from}.{source} > {to}.{destination}: UDP, length {length}").ok()?;
        }
        protocol::ICMP => write!(line, "{from} > {to}: {}", icmp::parse(payload).ok()?.0).ok()?,
        protocol::ICMPV6 => {
            write!(line, "{from} > {to}: {}", icmpv6::parse(payload, &from, &to).ok()?.0).ok()?
        }
        _ => return None,
    }
    Some(line)
}
