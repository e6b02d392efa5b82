//! The IP layer's own: what it has learned and what waits there is soft, so it is made consistent or dropped.

use crate::ip::group;
use crate::ip::reassembly::{Datagram, Piece, State};
use crate::region::Parts;
use crate::region::table::Place;
use crate::time::Instant;

impl Parts<'_> {
    /// Neighbours keep what is known of them; packets that waited for one, and datagrams of which fragments were missing, are lost
    /// as a wire loses them: nobody claims their frames.
    pub(super) fn recover_ip(&mut self) {
        self.neighbour_cache(Instant(0)).rebuild();
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
        let addresses = self.addresses.get(..self.ip.addresses as usize).unwrap_or_default();
        group::recount(self.groups, |ip| {
            let sockets = memberships.iter().take(fresh).filter(|record| record.tag.is_used());
            let sockets = sockets.filter(|record| record.is_group() && record.group == *ip).count();
            let ours =
                addresses.iter().filter(|ours| !ours.ip.is_v4() && ours.ip.solicited_node() == *ip).count();
            (sockets + ours) as u32
        });
    }
}
