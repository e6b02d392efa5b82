//! Packets that are no plain segment for us: what is said on the link, ICMP, fragments, what is for somebody else.

use super::Stack;
use crate::device::{Device, Link, Received};
use crate::stats::Counter;
use crate::wire::ip::Ip;
use crate::wire::{Malformed, arp, ethernet, ipv6, ndisc, protocol};

/// What a packet asks for, in values of its own: its frame is free then.
enum Asks {
    /// Nothing: it is for somebody else.
    NotOurs,
    /// Nothing that we know.
    Unknown,
    /// ARP's.
    Arp(arp::Packet),
    /// Neighbor discovery's, from this address.
    Discovery(ndisc::Message, ndisc::Options, Ip),
}

impl<D: Device> Stack<'_, '_, D> {
    /// A packet that is one frame, and not a segment for us.
    #[cold]
    pub(super) fn other(&mut self, packet: &Received) {
        let asks = self.asks(packet);
        self.discard(packet.fragment.frame);
        match asks {
            Ok(Asks::NotOurs) => self.count(Counter::NotOurs),
            Ok(Asks::Unknown) => self.count(Counter::UnknownProtocol),
            Ok(Asks::Arp(packet)) => self.arp(&packet),
            Ok(Asks::Discovery(message, options, source)) => {
                self.count(Counter::IcmpIn);
                self.discovery(&message, &options, &source);
            }
            Err(rule) => self.shared.counters().malformed(rule),
        }
    }

    fn asks(&self, packet: &Received) -> Result<Asks, Malformed> {
        let piece = packet.fragment;
        let (begin, end) = (usize::from(piece.offset), usize::from(piece.offset) + usize::from(piece.len));
        let bytes = self.device.bytes(piece.frame).and_then(|bytes| bytes.get(begin..end));
        let bytes = bytes.ok_or(Malformed::Truncated)?;
        if self.device.capabilities().link == Link::Ip {
            return Ok(Asks::Unknown);
        }
        let (frame, payload) = ethernet::parse(bytes)?;
        let interface = &self.parts.ip.interface;
        let is_for_us = frame.destination == interface.link || frame.destination.is_multicast();
        if !is_for_us || !interface.takes(&frame.tags) {
            return Ok(Asks::NotOurs);
        }
        match frame.ethertype {
            ethernet::ARP => Ok(Asks::Arp(arp::parse(payload)?.0)),
            ethernet::IPV6 => {
                let (datagram, payload) = ipv6::parse(payload)?;
                let (header, chain) = (datagram.header, datagram.chain);
                let is_icmp = chain.protocol == protocol::ICMPV6 && chain.fragment.is_none();
                if !is_icmp || !payload.first().is_some_and(|kind| (133..=137).contains(kind)) {
                    return Ok(Asks::Unknown);
                }
                let (source, destination) = (header.source, header.destination);
                let (message, options) = ndisc::parse(payload, &source, &destination, header.hop_limit)?;
                Ok(Asks::Discovery(message, options, source))
            }
            _ => Ok(Asks::Unknown),
        }
    }
}
