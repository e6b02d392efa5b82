//! Groups: what routers ask, and what they are told, on an interface of our own.

use super::Stack;
use super::other::Seen;
use crate::device::{Device, Memory};
use crate::ip::group::teller::{About, Due, Place};
use crate::ip::route::source;
use crate::stats::Counter;
use crate::wire::ethernet::{self, Address};
use crate::wire::igmp::{self, IGMP, MLD_ROUTERS, Message, Report, V3_ROUTERS, Word, alert};
use crate::wire::ip::Ip;
use crate::wire::{ipv4, ipv6, protocol};

/// Bytes of the longest report: what is left of Ethernet's 1,500.
const REPORT_MAX: usize = 1500 - ipv4::ALERT_LEN;

impl<D: Device> Stack<'_, '_, D> {
    /// A message of IGMP, or of multicast listener discovery whose checksum is right: a router asks who listens, or somebody else says that
    /// he does.
    pub(super) fn listeners(&mut self, seen: &Seen) {
        let is_v4 = seen.source.is_v4();
        let bytes = seen.bytes(&*self.device, seen.payload);
        let parsed = if is_v4 { igmp::parse(bytes) } else { Ok(igmp::parse_v6(bytes)) };
        let message = match parsed {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(rule) => return self.shared.counters().malformed(rule),
        };
        if !self.parts.ip.interface.owns() || !is_v4 && !is_near(seen, &*self.device) {
            return;
        }
        let (now, secret) = (self.now, self.parts.header.secret);
        let (seed, mut drawn) = (u64::from(self.parts.draw()), 0);
        self.parts.with_groups(|groups| match message {
            Message::Report(group) => groups.heard(&group),
            Message::Query(query) => groups.asked(&query, is_v4, now, || {
                drawn += 1;
                secret.words(&[seed, drawn])
            }),
        });
    }

    /// Reports that are due.
    #[cold]
    pub(super) fn run_group_timers(&mut self) {
        for is_v4 in [false, true] {
            for _ in 0..self.parts.groups.len() + 2 {
                let (random, now) = (self.parts.draw(), self.now);
                match self.parts.with_groups(|groups| groups.take_due(is_v4, now, random)) {
                    Some(Due::Report(about)) => self.report(about, is_v4),
                    Some(Due::Word(word, group)) => self.say(word, &group),
                    None => break,
                }
            }
        }
    }

    /// Tells of groups in as many reports as it takes.
    fn report(&mut self, about: About, is_v4: bool) {
        let to = if is_v4 { V3_ROUTERS } else { MLD_ROUTERS };
        let headers = if is_v4 { ipv4::ALERT_LEN } else { ipv6::HEADER_LEN + alert(0).len() };
        let room = (self.link_mtu(&to) as usize).saturating_sub(headers).min(REPORT_MAX);
        let (from, mut place) = (self.teller_address(&to), Place::default());
        // Each has one record, or one source, at least.
        for _ in 0..=self.parts.group_sources.len() + 3 * self.parts.groups.len() {
            let mut bytes = [0; REPORT_MAX];
            let mut report = Report::new(&mut bytes[..room], is_v4);
            let more = self.parts.with_groups(|groups| groups.write(about, is_v4, &mut place, &mut report));
            if !report.is_empty() {
                let len = report.finish(&from);
                self.tell(&bytes[..len], &from, &to);
            }
            if !more {
                break;
            }
        }
    }

    /// Says something of a group in the words of an older version.
    fn say(&mut self, word: Word, group: &Ip) {
        let to = word.destination(group, group.is_v4());
        let (from, mut bytes) = (self.teller_address(&to), [0; 24]);
        if let Some(len) = word.emit(group, &from, &mut bytes) {
            self.tell(&bytes[..len], &from, &to);
        }
    }

    /// Our address for reports to `to`.
    fn teller_address(&self, to: &Ip) -> Ip {
        if to.is_v4() {
            return source::choose(self.parts.our_addresses(), to, to, true).unwrap_or(Ip::UNSPECIFIED_V4);
        }
        // RFC 3810 §5.2.13: "An MLDv2 Report MUST be sent with a valid IPv6 link-local source address, or the unspecified address (::),
        // if the sending interface has not acquired a valid link-local address yet."
        let mut ours = self.parts.our_addresses().iter().map(|ours| ours.ip);
        ours.find(|ip| !ip.is_v4() && ip.is_link_local()).unwrap_or(Ip::UNSPECIFIED)
    }

    /// Sends a message about groups, if the addresses are ours alone: where they are the kernel's, he tells.
    fn tell(&mut self, message: &[u8], from: &Ip, to: &Ip) {
        let Some(link) = Address::of_group(to).filter(|_| self.parts.ip.interface.owns()) else { return };
        if to.is_v4() {
            self.send_on_link(link, ethernet::IPV4, |bytes| {
                let (head, body) = bytes.split_at_mut_checked(ipv4::ALERT_LEN)?;
                body.get_mut(..message.len())?.copy_from_slice(message);
                // Internetwork control (RFC 3376 §4).
                let header = ipv4::Header { tos: 0xc0, ..ipv4::Header::new(from, to, IGMP, 1)? };
                Some(header.emit_alert(message.len(), head)? + message.len())
            });
            return;
        }
        let is_sent = self.send_on_link(link, ethernet::IPV6, |bytes| {
            let alert = alert(protocol::ICMPV6);
            let (head, body) = bytes.split_at_mut_checked(ipv6::HEADER_LEN + alert.len())?;
            body.get_mut(..message.len())?.copy_from_slice(message);
            head.get_mut(ipv6::HEADER_LEN..)?.copy_from_slice(&alert);
            let len = alert.len() + message.len();
            Some(ipv6::Header::new(from, to, 0, 1)?.emit(len, head)? + len)
        });
        if is_sent {
            self.count(Counter::IcmpOut);
        }
    }
}

/// Whether a message of multicast listener discovery is from our own link (RFC 3810 §6.2).
fn is_near<M: Memory>(seen: &Seen, memory: &M) -> bool {
    let bytes = memory.bytes(seen.frame).unwrap_or_default();
    let headers = bytes.get(usize::from(seen.begin)..usize::from(seen.payload)).unwrap_or_default();
    seen.ttl == 1 && seen.source.is_link_local() && igmp::has_alert(headers)
}
