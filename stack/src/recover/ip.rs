//! The IP layer's own: what it has learned and what waits there is soft, so it is made consistent or dropped.

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
        (self.ip.waiting.frames, self.ip.fragments.frames) = (0, 0);
    }
}
