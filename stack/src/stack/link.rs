//! What is said on the link itself: ARP and neighbor discovery, on an interface of our own.

use super::Stack;
use crate::device::{Device, Fragment, Link, Outgoing};
use crate::frames::pool::Purpose;
use crate::ip::hop::Hop;
use crate::ip::neighbour::ndisc::{self, Outgoing as Discovery};
use crate::ip::neighbour::{Claim, arp};
use crate::ip::route::source;
use crate::stats::Counter;
use crate::wire::ethernet::{self, Address};
use crate::wire::ip::Ip;
use crate::wire::ipv6;
use crate::wire::ndisc::{HOP_LIMIT, Message, Options};
use crate::wire::{arp as packet, protocol};

impl<D: Device> Stack<'_, '_, D> {
    /// Asks who has an address: the neighbour that is known, or everybody. Where the addresses are the owner's it is he who
    /// asks: he finds the entry ([`Parts::wanted`](crate::region::Parts::wanted)).
    pub(super) fn solicit(&mut self, target: &Ip, to: Option<Address>) {
        let interface = self.parts.ip.interface;
        let ours = source::choose(self.parts.our_addresses(), target, target, true);
        let Some(ours) = ours.filter(|_| interface.owns()) else { return };
        if target.is_v4() {
            let (question, to) = arp::request(target, to, (&ours, interface.link));
            self.send_arp(&question, to);
        } else {
            self.send_discovery(&ndisc::solicitation(target, to, (&ours, interface.link)));
        }
    }

    fn send_arp(&mut self, packet: &packet::Packet, to: Address) {
        self.send_on_link(to, ethernet::ARP, |bytes| packet.emit(bytes));
    }

    fn send_discovery(&mut self, message: &Discovery) {
        let Discovery { message, options, source, destination, link } = message;
        let write = |bytes: &mut [u8]| {
            let (head, body) = bytes.split_at_mut_checked(ipv6::HEADER_LEN)?;
            let len = message.emit(options, source, destination, body)?;
            Some(ipv6::Header::new(source, destination, protocol::ICMPV6, HOP_LIMIT)?.emit(len, head)? + len)
        };
        let known = link.or_else(|| {
            let hash = self.parts.address_hash(destination);
            self.parts.neighbour_cache(self.now).find(destination, hash)?.link()
        });
        // Who asks without saying where he is asks everybody again, or is known by then.
        if let Some(to) = known
            && self.send_on_link(to, ethernet::IPV6, write)
        {
            self.count(Counter::IcmpOut);
        }
    }

    /// Sends a packet of its own frame to this address on the link.
    pub(super) fn send_on_link(
        &mut self,
        destination: Address,
        ethertype: u16,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let interface = &self.parts.ip.interface;
        let hop = Hop { source: interface.link, destination, tag: interface.tag(), ..Hop::default() };
        let Some(frame) = self.frames().take(Purpose::Control) else { return false };
        let device = self.device.capabilities();
        let offset = device.headroom_out;
        let has_header = device.link == Link::Ethernet;
        let written = self.device.bytes_mut(frame).and_then(|bytes| {
            let link_len = if has_header { hop.header_len() } else { 0 };
            let (head, body) = bytes.get_mut(offset.into()..)?.split_at_mut_checked(link_len)?;
            let head_len = if has_header { hop.frame(ethertype).emit(head)? } else { 0 };
            Some(head_len + write(body)?)
        });
        let fragment = Fragment { frame, offset, len: written.unwrap_or(0) as u16 };
        let packet = Outgoing { fragments: &[fragment], checksum: None, gso_size: 0 };
        let is_sent = written.is_some() && self.give(frame, &packet);
        if is_sent {
            self.count(Counter::PacketsOut);
        } else {
            self.frames().discard(frame);
        }
        is_sent
    }

    /// A packet of ARP.
    pub(super) fn arp(&mut self, packet: &packet::Packet) {
        let interface = self.parts.ip.interface;
        if !interface.owns() {
            return;
        }
        let heard = arp::receive(packet, interface.link, |ip| self.parts.is_ours(ip));
        self.claimed(heard.claim);
        if let Some(reply) = heard.reply {
            self.send_arp(&reply, reply.target_hardware);
        }
        if let Some(ours) = heard.conflict
            && self.parts.ip.defence.defends(self.now)
        {
            let (announcement, to) = arp::announcement((&ours, interface.link));
            self.send_arp(&announcement, to);
        }
    }

    /// A message of neighbor discovery.
    pub(super) fn discovery(&mut self, message: &Message, options: &Options, source: &Ip) {
        let interface = self.parts.ip.interface;
        if !interface.owns() {
            return;
        }
        let heard = ndisc::receive(message, options, source, interface.link, |ip| self.parts.is_ours(ip));
        self.claimed(heard.claim);
        if let Some(reply) = heard.reply {
            self.send_discovery(&reply);
        }
        if let Some(ours) = heard.conflict
            && self.parts.ip.defence.defends(self.now)
        {
            self.send_discovery(&ndisc::announcement(&ours, interface.link));
        }
    }

    fn claimed(&mut self, claim: Option<Claim>) {
        let Some(claim) = claim else { return };
        let hash = self.parts.address_hash(&claim.ip);
        let heard = self.parts.neighbour_cache(self.now).hear(&claim, hash, self.now);
        self.heard(heard);
    }
}
