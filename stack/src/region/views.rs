//! The tables of a region, each with the parts that it needs.

use super::{Parts, Shared};
use crate::demux::{Endpoints, Pairs};
use crate::frames::Frames;
use crate::frames::blocks::Blocks;
use crate::ports::Ports;
use crate::settings::Interner;
use crate::tcp::listener::{Listener, SynEntry};
use crate::tcp::tcb::Tcb;
use crate::udp::UdpSocket;

impl Parts<'_> {
    /// Connections by both ends.
    #[inline]
    pub fn connections(&mut self) -> Pairs<'_, Tcb> {
        Pairs::new(self.tcbs, self.tcp_places, self.header.secret)
    }

    /// SYNs that wait, by both ends.
    #[inline]
    pub fn waiting(&mut self) -> Pairs<'_, SynEntry> {
        Pairs::new(self.syns, self.syn_places, self.header.secret)
    }

    /// Listeners by address and port.
    #[inline]
    pub fn listening(&mut self) -> Endpoints<'_, Listener> {
        Endpoints::new(self.listeners, self.listener_places, self.header.secret)
    }

    /// Sockets of UDP with a peer, by both ends.
    #[inline]
    pub fn udp_pairs(&mut self) -> Pairs<'_, UdpSocket> {
        Pairs::new(self.udp_sockets, self.udp_pair_places, self.header.secret)
    }

    /// Sockets of UDP without one, by address and port.
    #[inline]
    pub fn udp_endpoints(&mut self) -> Endpoints<'_, UdpSocket> {
        Endpoints::new(self.udp_sockets, self.udp_places, self.header.secret)
    }

    /// Ports in use.
    pub fn ports(&mut self) -> Ports<'_> {
        self.ports_and_connections().0
    }

    /// Both, for the search of a port towards a peer.
    pub(crate) fn ports_and_connections(&mut self) -> (Ports<'_>, Pairs<'_, Tcb>) {
        let secret = self.header.secret;
        let leases = (self.slabs.leases.fresh() as usize).min(self.leases.len());
        let ports = Ports {
            heads: self.port_heads,
            slab: &mut self.slabs.bounds,
            bounds: self.bounds,
            places: self.bound_places,
            leases: &self.leases[..leases],
            secret,
        };
        (ports, Pairs::new(self.tcbs, self.tcp_places, secret))
    }

    /// Frames, with their words in the shared part.
    pub fn frame_pool<'a>(&'a mut self, shared: &Shared<'a>) -> Frames<'a> {
        Frames { pool: self.pool, records: self.frames, states: shared.frames }
    }

    /// Pageable blocks.
    pub fn block_pool(&mut self) -> Blocks<'_> {
        Blocks { slab: &mut self.slabs.blocks, blocks: self.blocks }
    }

    /// What options have set.
    pub fn options(&mut self) -> Interner<'_> {
        Interner {
            slab: &mut self.slabs.settings,
            records: self.settings,
            places: self.settings_places,
            secret: self.header.secret,
        }
    }
}
