//! Groups: what routers ask, and what they are told, on an interface of our own.

use super::Stack;
use super::other::Seen;
use crate::device::Device;
use crate::ip::group;
use crate::ip::route::source;
use crate::stats::Counter;
use crate::wire::ethernet::{self, Address};
use crate::wire::igmp::{self, IGMP, Query, Report};
use crate::wire::ip::Ip;
use crate::wire::{ipv4, ipv6, protocol};

/// Hop-by-hop options before ICMPv6: router alert for multicast listener discovery (RFC 2711 §2.1), and padding.
const ALERT: [u8; 8] = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];

impl<D: Device> Stack<'_, '_, D> {
    /// A message of IGMP.
    pub(super) fn igmp(&mut self, seen: &Seen) {
        match igmp::parse(seen.bytes(&*self.device, seen.payload)) {
            Ok(Some(query)) => self.listeners_asked(seen, &query),
            Ok(None) => {}
            Err(rule) => self.shared.counters().malformed(rule),
        }
    }

    /// A router asks who listens. One of IPv6 does so from a link-local address and with a hop limit of 1, or is none
    /// (RFC 3810 §5.1.14).
    pub(super) fn listeners_asked(&mut self, seen: &Seen, query: &Query) {
        let is_v4 = seen.source.is_v4();
        let is_near = is_v4 || seen.ttl == 1 && seen.source.is_link_local();
        if !is_near || !self.parts.ip.interface.owns() {
            return;
        }
        if query.is_old {
            self.parts.ip.old_routers[usize::from(!is_v4)] = (self.now + group::OLD_ROUTER).0;
        }
        let (parts, now) = (&mut *self.parts, self.now);
        let (secret, drawn) = (parts.header.secret, &mut parts.ip.drawn);
        group::asked(parts.groups, query, is_v4, now, || {
            *drawn = drawn.wrapping_add(1);
            secret.words(&[u64::from(*drawn), now.0])
        });
        parts.ip.groups_due = group::next(parts.groups).map_or(0, |due| due.0);
    }

    /// Reports that are due.
    #[cold]
    pub(super) fn run_group_timers(&mut self) {
        for _ in 0..self.parts.groups.len() {
            let random = self.parts.draw();
            let Some((group, report)) = group::report(self.parts.groups, self.now, random) else { break };
            if self.parts.ip.interface.owns() {
                self.report(&group, report);
            }
        }
        self.parts.ip.groups_due = group::next(self.parts.groups).map_or(0, |due| due.0);
    }

    fn report(&mut self, group: &Ip, report: Report) {
        let is_v4 = group.is_v4();
        let is_old = self.parts.ip.old_routers[usize::from(!is_v4)] > self.now.0;
        let to = igmp::destination(group, report, is_old);
        let Some(link) = Address::of_group(&to) else { return };
        let sent = if is_v4 {
            let ours = source::choose(self.parts.our_addresses(), &to, &to, true);
            let from = ours.unwrap_or(Ip::UNSPECIFIED_V4);
            self.send_on_link(link, ethernet::IPV4, |bytes| {
                let (head, body) = bytes.split_at_mut_checked(ipv4::ALERT_LEN)?;
                let len = igmp::emit(group, report, is_old, (&from, &to), body)?;
                // Internetwork control (RFC 3376 §4).
                let header = ipv4::Header { tos: 0xc0, ..ipv4::Header::new(&from, &to, IGMP, 1)? };
                Some(header.emit_alert(len, head)? + len)
            })
        } else {
            // RFC 3810 §5.2.13: "An MLDv2 Report MUST be sent with a valid IPv6 link-local source address, or the unspecified
            // address (::), if the sending interface has not acquired a valid link-local address yet."
            let mut ours = self.parts.our_addresses().iter().map(|ours| ours.ip);
            let from = ours.find(|ip| !ip.is_v4() && ip.is_link_local()).unwrap_or(Ip::UNSPECIFIED);
            self.send_on_link(link, ethernet::IPV6, |bytes| {
                let (head, body) = bytes.split_at_mut_checked(ipv6::HEADER_LEN + ALERT.len())?;
                let len = igmp::emit(group, report, is_old, (&from, &to), body)? + ALERT.len();
                head.get_mut(ipv6::HEADER_LEN..)?.copy_from_slice(&ALERT);
                Some(ipv6::Header::new(&from, &to, 0, 1)?.emit(len, head)? + len)
            })
        };
        if sent && !is_v4 {
            self.count(Counter::IcmpOut);
        }
    }
}
