//! What a packet is: as much of its headers as filters ask for and a line says.

use core::fmt;
use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};

/// What a packet is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Icmp6,
    Arp,
    /// Of IP, with this number.
    Other(u8),
    /// Neither IP nor ARP, or too short to tell.
    Unknown,
}

/// A packet.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    /// Whether it was sent; otherwise it was received.
    pub(super) is_sent: bool,
    pub(super) protocol: Protocol,
    /// From where to where.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    pub(super) ports: Option<(u16, u16)>,
    /// What more a line says.
    detail: String,
}

impl Packet {
    /// The packet that begins with these bytes.
    pub(super) fn of(bytes: &[u8], is_sent: bool) -> Self {
        let protocol = Protocol::Unknown;
        let mut packet = Self { is_sent, protocol, addresses: None, ports: None, detail: String::new() };
        let Ok(parsed) = LaxSlicedPacket::from_ethernet(bytes) else { return packet };
        let mut left = 0;
        match &parsed.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                packet.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                packet.protocol = Protocol::of(header.protocol().0);
                left = usize::from(header.total_len()).saturating_sub(header.slice().len());
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                packet.addresses = Some((header.source_addr().into(), header.destination_addr().into()));
                packet.protocol = Protocol::of(ip.payload().ip_number.0);
                left = usize::from(header.payload_length());
            }
            Some(LaxNetSlice::Arp(_)) => packet.protocol = Protocol::Arp,
            None => {}
        }
        packet.add(parsed.transport.as_ref(), left);
        packet
    }

    /// What the transport's header says; `left` is how many bytes IP's payload has.
    fn add(&mut self, transport: Option<&TransportSlice<'_>>, left: usize) {
        match transport {
            Some(TransportSlice::Tcp(tcp)) => {
                self.ports = Some((tcp.source_port(), tcp.destination_port()));
                self.detail = of_tcp(tcp, left.saturating_sub(tcp.header_slice().len()));
            }
            Some(TransportSlice::Udp(udp)) => {
                self.ports = Some((udp.source_port(), udp.destination_port()));
                self.detail = format!("length {}", left.saturating_sub(8));
            }
            Some(TransportSlice::Icmpv4(icmp)) => self.detail = format!("{:?}", icmp.icmp_type()),
            Some(TransportSlice::Icmpv6(icmp)) => self.detail = format!("{:?}", icmp.icmp_type()),
            _ => {}
        }
    }
}

fn of_tcp(tcp: &TcpSlice<'_>, length: usize) -> String {
    let flags = [
        (tcp.syn(), 'S'),
        (tcp.fin(), 'F'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
        (tcp.ack(), '.'),
    ];
    let flags: String = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter).collect();
    let ack = if tcp.ack() { format!(" ack {}", tcp.acknowledgment_number()) } else { String::new() };
    format!("[{flags}] seq {}{ack} win {} length {length}", tcp.sequence_number(), tcp.window_size())
}

impl Protocol {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmp6,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => write!(to, "tcp"),
            Self::Udp => write!(to, "udp"),
            Self::Icmp => write!(to, "icmp"),
            Self::Icmp6 => write!(to, "icmp6"),
            Self::Arp => write!(to, "arp"),
            Self::Other(number) => write!(to, "protocol {number}"),
            Self::Unknown => write!(to, "unknown"),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} ", if self.is_sent { "Out" } else { "In " })?;
        let end = |ip: IpAddr, port: Option<u16>| match port {
            Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        };
        if let Some((source, destination)) = self.addresses {
            let (from, into) = self.ports.unzip();
            write!(to, "{} > {} ", end(source, from), end(destination, into))?;
        }
        write!(to, "{}", self.protocol)?;
        if self.detail.is_empty() { Ok(()) } else { write!(to, " {}", self.detail) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    /// A segment of TCP from 10.0.0.1:80 to 10.0.0.2:4000.
    pub(in crate::dump) fn segment() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(80, 4000, 7, 1000)
            .ack(9)
            .psh()
            .write(&mut bytes, b"hello")
            .expect("room");
        bytes
    }

    /// A datagram from fd00::1 to fd00::2, port 53.
    pub(in crate::dump) fn datagram() -> Vec<u8> {
        let (from, to) = ("fd00::1".parse::<std::net::Ipv6Addr>(), "fd00::2".parse::<std::net::Ipv6Addr>());
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6(from.expect("one").octets(), to.expect("one").octets(), 64)
            .udp(4001, 53)
            .write(&mut bytes, b"abc")
            .expect("room");
        bytes
    }

    #[test]
    fn a_line_says_what_a_packet_is() {
        let line = Packet::of(&segment(), true).to_string();
        assert_eq!(line, "Out 10.0.0.1:80 > 10.0.0.2:4000 tcp [P.] seq 7 ack 9 win 1000 length 5");
        // Cut behind the header: the length is the packet's all the same.
        assert_eq!(Packet::of(&segment()[..54], true).to_string(), line);
        let line = Packet::of(&datagram(), false).to_string();
        assert_eq!(line, "In  [fd00::1]:4001 > [fd00::2]:53 udp length 3");
    }

    #[test]
    fn any_bytes_have_a_line() {
        for bytes in [segment(), datagram()] {
            for cut in 0..bytes.len() {
                for at in 0..cut {
                    let mut broken = bytes[..cut].to_vec();
                    broken[at] ^= 0xff;
                    let _ = Packet::of(&broken, true).to_string();
                }
            }
        }
    }
}
