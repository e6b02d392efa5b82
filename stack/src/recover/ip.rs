//! The IP layer's own: what it has learned and what waits there is soft, so it is made consistent or dropped.

use crate::ip::Policy;
use crate::ip::group::Groups;
use crate::ip::reassembly::{Datagram, Piece, State};
use crate::region::Parts;
use crate::region::table::Place;
use crate::time::Instant;
use crate::udp::group::Filter;

impl Parts<'_> {
    /// Neighbours keep what is known of them; packets that waited for one, and datagrams of which fragments were missing, are lost
    /// as a wire loses them: nobody claims their frames. Routes are their owner's to bring again, who is told so.
    pub(super) fn recover_ip(&mut self) {
        self.neighbour_cache(Instant(0)).rebuild();
        self.ip.policies = [Policy::Unknown as u8; 2];
        if self.routing().check().is_err() {
            self.routing().clear();
        }
        self.ip.reassembly = State::default();
        self.datagrams.fill(Datagram::default());
        self.datagram_places.fill(Place::default());
        self.pieces.fill(Piece::default());
        (self.ip.waiting.frames, self.ip.fragments.frames, self.ip.sent.frames) = (0, 0, 0);
    }

    /// Each socket of UDP is in the groups whose records say so, in whatever order; and a group has as many listeners as there are
    /// sockets in it, and addresses of ours that it is of.
    pub(super) fn recover_groups(&mut self) {
        let sockets = self.slabs.udp_sockets.fresh() as usize;
        self.udp_sockets.iter_mut().take(sockets).for_each(|udp| udp.memberships = 0);
        for (index, record) in
            self.memberships.iter_mut().enumerate().filter(|(_, record)| record.tag.is_used())
        {
            let owner =
                record.owner.checked_sub(1).and_then(|owner| self.udp_sockets.get_mut(owner as usize));
            if let Some(udp) = owner {
                record.next = core::mem::replace(&mut udp.memberships, index as u32 + 1);
            }
        }
        let (memberships, fresh) = (&*self.memberships, self.slabs.memberships.fresh() as usize);
        let used = || memberships.iter().take(fresh).filter(|record| record.tag.is_used());
        let addresses = self.addresses.get(..self.ip.addresses as usize).unwrap_or_default();
        let ours = || addresses.iter().filter(|ours| !ours.ip.is_v4()).map(|ours| ours.ip.solicited_node());
        let (sources, slab) = (&mut *self.group_sources, &mut self.slabs.group_sources);
        let mut groups = Groups { groups: self.groups, sources, slab, tellers: &mut self.ip.tellers };
        groups.mend();
        let chosen = || used().filter(|record| !record.is_group());
        chosen().for_each(|record| groups.know(&record.group, &record.source));
        let by_filter = |mut of: [u32; 2], filter: Filter| {
            of[filter as usize] += 1;
            of
        };
        groups.recount(
            |ip| {
                let sockets = used().filter(|record| record.is_group() && record.group == *ip);
                let ours = ours().filter(|group| group == ip).count() as u32;
                sockets.fold([ours, 0], |of, record| by_filter(of, record.filter()))
            },
            |ip, source| {
                let of_it = chosen().filter(|record| record.group == *ip && record.source == *source);
                of_it.fold([0; 2], |of, record| by_filter(of, record.filter()))
            },
        );
        self.ip.groups_due = groups.next().map_or(0, |due| due.0);
    }
}
