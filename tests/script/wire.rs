//! Packets of a script as bytes, bytes as packets of a script, and both as text.

use std::fmt;

use stack::wire::checksum::Sum;
use stack::wire::ip::Ip;
use stack::wire::tcp::{self, Flags, HEADER_LEN};
use stack::wire::{icmp, icmpv6, ipv4, ipv6, protocol};

use super::options::{Choice, decode, encode};
use super::syntax::{Body, Ecn, Icmp, Packet, Segment};

/// Time to live of what a script injects without saying it.
const TTL: u8 = 255;

/// Sender and receiver, with their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender.
    pub source: (Ip, u16),
    /// The receiver.
    pub destination: (Ip, u16),
}

impl Ends {
    /// The other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// TCP's header, options and text, without a checksum.
fn segment_head(ends: &Ends, segment: &Segment, text_len: u32) -> Vec<u8> {
    let options = encode(segment.options.as_deref().unwrap_or_default());
    let offset_flags = (((HEADER_LEN + options.len()) / 4) as u16) << 12 | segment.flags.0;
    let mut bytes = Vec::new();
    bytes.extend(ends.source.1.to_be_bytes());
    bytes.extend(ends.destination.1.to_be_bytes());
    bytes.extend(segment.seq.to_be_bytes());
    bytes.extend(segment.ack.to_be_bytes());
    bytes.extend(offset_flags.to_be_bytes());
    bytes.extend(segment.window.unwrap_or(0).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(segment.urgent.to_be_bytes());
    bytes.extend(options);
    bytes.resize(bytes.len() + text_len as usize, 0);
    bytes
}

/// Puts an IP header before it.
fn datagram(ends: &Ends, protocol: u8, tos: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (&ends.source.0, &ends.destination.0);
    let mut bytes = vec![0; if source.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }];
    let written = match ipv4::Header::new(source, destination, protocol, ttl) {
        Some(header) => ipv4::Header { tos, ..header }.emit(payload.len(), &mut bytes),
        None => ipv6::Header::new(source, destination, protocol, ttl)
            .and_then(|header| header.with_flow(tos, 0).emit(payload.len(), &mut bytes)),
    };
    assert!(written.is_some(), "an IP header for {} bytes", payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

fn tos(packet: &Packet) -> u8 {
    match (packet.tos, packet.ecn) {
        (Some(tos), _) => tos,
        (None, Some(Ecn::Exactly(bits))) => bits,
        (None, Some(Ecn::Capable)) => 2,
        (None, None) => 0,
    }
}

/// A segment that is to be injected, with its checksums.
#[must_use]
pub fn inject(packet: &Packet, segment: &Segment, ends: &Ends) -> Vec<u8> {
    let mut bytes = segment_head(ends, segment, segment.len);
    let (source, destination) = (&ends.source.0, &ends.destination.0);
    tcp::fill_checksum(&mut bytes, source, destination, Sum::ZERO, 0).expect("a whole header");
    datagram(ends, protocol::TCP, tos(packet), packet.ttl.unwrap_or(TTL), &bytes)
}

/// Type and code of an error by their names, for IPv4 and IPv6.
fn icmp_numbers(icmp: &Icmp, is_v4: bool) -> Option<(u8, u8)> {
    let code = |names: &[&str]| names.iter().position(|name| *name == icmp.code).map(|code| code as u8);
    Some(match (icmp.kind.as_str(), is_v4) {
        ("unreachable", true) => (
            3,
            code(&[
                "net_unreachable",
                "host_unreachable",
                "protocol_unreachable",
                "port_unreachable",
                "frag_needed",
                "source_route_failed",
                "net_unknown",
                "host_unknown",
                "source_host_isolated",
                "net_prohibited",
                "host_prohibited",
                "net_unreachable_for_tos",
                "host_unreachable_for_tos",
                "packet_filtered",
                "precedence_violation",
                "precedence_cutoff",
            ])?,
        ),
        ("source_quench", true) => (4, 0),
        ("time_exceeded", true) => (11, code(&["exc_ttl", "exc_fragtime"])?),
        ("parameter_problem", true) => (12, 0),
        ("unreachable", false) => (
            1,
            code(&["no_route", "adm_prohibited", "not_neighbour", "addr_unreachable", "port_unreachable"])?,
        ),
        ("packet_too_big", false) => (2, 0),
        ("time_exceeded", false) => (3, code(&["exc_hoplimit", "exc_fragtime"])?),
        ("parameter_problem", false) => (4, 0),
        _ => return None,
    })
}

/// An error about a segment of ours that had these ends; `None` if there is no such error.
#[must_use]
pub fn inject_icmp(icmp: &Icmp, quoted: &Segment, ours: &Ends) -> Option<Vec<u8>> {
    let is_v4 = ours.source.0.is_v4();
    let (kind, code) = icmp_numbers(icmp, is_v4)?;
    let head = segment_head(ours, quoted, 0);
    let about = datagram(ours, protocol::TCP, 0, 64, &head);
    let ends = ours.reversed();
    let mut bytes = vec![0; icmp::HEADER_LEN + about.len()];
    let word = icmp.mtu;
    if is_v4 {
        icmp::Message::Other { kind, code, word }.emit(&about, &mut bytes)?;
        return Some(datagram(&ends, protocol::ICMP, 0, TTL, &bytes));
    }
    let message = icmpv6::Message::Other { kind, code, word };
    message.emit(&ends.source.0, &ends.destination.0, &about, &mut bytes)?;
    Some(datagram(&ends, protocol::ICMPV6, 0, TTL, &bytes))
}

/// A segment that the stack has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// From whom to whom.
    pub ends: Ends,
    /// Traffic class.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// The segment.
    pub segment: Segment,
}

/// Reads a packet of the stack's: a segment whose checksums are right.
///
/// # Errors
/// What it is instead.
pub fn read(bytes: &[u8]) -> Result<Live, String> {
    let malformed = |error| format!("a malformed packet: {error:?}");
    let (source, destination, protocol, tos, ttl, payload) =
        if bytes.first().is_some_and(|byte| byte >> 4 == 6) {
            let (datagram, payload) = ipv6::parse(bytes).map_err(malformed)?;
            let header = datagram.header;
            let class = header.traffic_class();
            (header.source, header.destination, datagram.chain.protocol, class, header.hop_limit, payload)
        } else {
            let (datagram, payload) = ipv4::parse(bytes).map_err(malformed)?;
            let header = datagram.header;
            (header.source(), header.destination(), header.protocol, header.tos, header.ttl, payload)
        };
    if protocol != protocol::TCP {
        return Err(format!("a packet of protocol {protocol}"));
    }
    tcp::verify(payload, &source, &destination).map_err(malformed)?;
    let (parsed, text) = tcp::parse(payload).map_err(malformed)?;
    let header = parsed.header;
    let ports = (header.source.get(), header.destination.get());
    let flags = header.flags();
    let segment = Segment {
        ports: None,
        flags,
        seq: header.seq().0,
        len: text.len() as u32,
        ack: if flags.has(Flags::ACK) { header.ack().0 } else { 0 },
        window: Some(header.window.get()),
        urgent: header.urgent.get(),
        options: Some(decode(parsed.options)),
    };
    let ends = Ends { source: (source, ports.0), destination: (destination, ports.1) };
    Ok(Live { ends, tos, ttl, segment })
}

impl fmt::Display for Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nop => out.write_str("nop"),
            Self::End => out.write_str("eol"),
            Self::Mss(mss) => write!(out, "mss {mss}"),
            Self::Scale(shift) => write!(out, "wscale {shift}"),
            Self::SackPermitted => out.write_str("sackOK"),
            Self::Sack(blocks) => {
                out.write_str("sack")?;
                blocks.iter().try_for_each(|(left, right)| write!(out, " {left}:{right}"))
            }
            Self::Timestamps(tsval, tsecr) => write!(out, "TS val {tsval} ecr {tsecr}"),
            Self::Other(kind, data) => {
                let (name, data) = match (kind, data.as_slice()) {
                    (34, data) => ("FO".to_owned(), data),
                    (254, [0xf9, 0x89, data @ ..]) => ("FOEXP".to_owned(), data),
                    (19, data) => ("md5".to_owned(), data),
                    (kind, data) => (format!("kind-{kind}"), data),
                };
                write!(out, "{name}{}", if data.is_empty() { "" } else { " " })?;
                data.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((source, destination)) = self.ports {
            write!(out, "{source} > {destination} ")?;
        }
        write!(out, "{} {}:{}({})", self.flags, self.seq, self.seq.wrapping_add(self.len), self.len)?;
        if self.flags.has(Flags::ACK) {
            write!(out, " ack {}", self.ack)?;
        }
        if let Some(window) = self.window {
            write!(out, " win {window}")?;
        }
        if self.flags.has(Flags::URG) {
            write!(out, " urg {}", self.urgent)?;
        }
        match &self.options {
            None => out.write_str(" <...>"),
            Some(options) if options.is_empty() => Ok(()),
            Some(options) => {
                let listed: Vec<String> = options.iter().map(ToString::to_string).collect();
                write!(out, " <{}>", listed.join(","))
            }
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tos, self.ecn, self.ttl) {
            (Some(tos), ..) => write!(out, "[tos 0x{tos:x}] ")?,
            (None, Some(Ecn::Capable), _) => out.write_str("[ect01] ")?,
            (None, Some(Ecn::Exactly(bits)), _) => {
                let name = ["noecn", "ect1", "ect0", "ce"][usize::from(bits & 3)];
                write!(out, "[{name}] ")?;
            }
            (None, None, Some(ttl)) => write!(out, "[ttl {ttl}] ")?,
            (None, None, None) => {}
        }
        match &self.body {
            Body::Tcp(segment) => segment.fmt(out),
            Body::Icmp(icmp) => write!(out, "icmp {} {}", icmp.kind, icmp.code),
        }
    }
}
