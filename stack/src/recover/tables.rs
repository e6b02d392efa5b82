//! What follows from the records: free lists, tables, counts, timer wheels.

use super::sockets::is_kept;
use crate::demux::{Endpoints, Pairs};
use crate::frames::blocks::Blocks;
use crate::ports::{Class, Protocol};
use crate::region::Parts;
use crate::seq::Seq;
use crate::tcp::tcb::{Left, Resting, Sending, Standing};
use crate::time::Instant;
use crate::udp::Mark;

impl Parts<'_> {
    /// Counts the records that were ever used.
    pub(super) fn reach_all(&mut self) {
        macro_rules! reach {
            ($($name:ident),+) => { $(self.slabs.$name.reach(self.$name);)+ };
        }
        reach!(tcbs, listeners, syns, udp_sockets, memberships, bounds, settings, traffics, blocks);
        reach!(leases, destinations, processes, group_sources);
    }

    /// Free lists: a record is in use if it is somebody's.
    pub(super) fn recover_slabs(&mut self) {
        let seldoms = &*self.seldoms;
        self.slabs.tcbs.rebuild(self.tcbs, |index, tcb| is_kept(tcb, &seldoms[index as usize]));
        self.slabs.udp_sockets.rebuild(self.udp_sockets, |_, udp| udp.holders != 0);
        let tcbs = &*self.tcbs;
        self.slabs.traffics.rebuild(self.traffics, |index, traffic| {
            let socket = tcbs.get(traffic.socket as usize).filter(|tcb| tcb.tag.is_used());
            socket.is_some_and(|tcb| tcb.traffic == index + 1)
        });
        Blocks { slab: &mut self.slabs.blocks, blocks: self.blocks }.end_claims();
        macro_rules! as_tagged {
            ($($name:ident),+) => { $(self.slabs.$name.rebuild(self.$name, |_, _| true);)+ };
        }
        // These belong to the region's owner: what was being written is what a caller of the same call would find.
        as_tagged!(leases);
        // The death may have been in the midst of writing it.
        self.ip.last_way = Default::default();
        // What was learned of others is learned again.
        self.known_destinations().forget();
        let udps = &*self.udp_sockets;
        self.slabs.memberships.rebuild(self.memberships, |_, record| {
            let owner = record.owner.checked_sub(1).and_then(|owner| udps.get(owner as usize));
            owner.is_some_and(|udp| udp.tag.is_used())
        });
        self.recover_resting();
    }

    /// Records of queues that rest are in a list, in whatever order.
    fn recover_resting(&mut self) {
        *self.resting = Resting::default();
        for index in 0..self.slabs.traffics.fresh() {
            let traffic = &mut self.traffics[index as usize];
            let is_empty =
                traffic.send.is_empty() && traffic.receive.is_empty() && traffic.reassembly.is_empty();
            let rests = traffic.tag.is_used() && traffic.is_resting != 0 && is_empty;
            (traffic.is_resting, traffic.older, traffic.younger) = (rests.into(), 0, 0);
            if rests {
                let older = core::mem::replace(&mut self.resting.youngest, index + 1);
                self.traffics[index as usize].older = older;
                match older.checked_sub(1).and_then(|older| self.traffics.get_mut(older as usize)) {
                    Some(older) => older.younger = index + 1,
                    None => self.resting.oldest = index + 1,
                }
            }
        }
    }

    /// Tables, counts and wheels.
    pub(super) fn recover_tables(&mut self) {
        let secret = self.header.secret;
        let fresh = self.slabs.tcbs.fresh() as usize;
        Pairs::new(&self.tcbs[..fresh], self.tcp_places, secret).rebuild(|tcb| tcb.is_in_table());
        let syns = self.slabs.syns.fresh() as usize;
        Pairs::new(&self.syns[..syns], self.syn_places, secret).rebuild(|syn| syn.tag.is_used());
        let listeners = self.slabs.listeners.fresh() as usize;
        Endpoints::new(&mut self.listeners[..listeners], self.listener_places, secret)
            .rebuild(|listener| listener.tag.is_used());
        let udp = self.slabs.udp_sockets.fresh() as usize;
        Pairs::new(&self.udp_sockets[..udp], self.udp_pair_places, secret)
            .rebuild(|udp| udp.tag.is_used() && udp.is(Mark::CONNECTED));
        Endpoints::new(&mut self.udp_sockets[..udp], self.udp_places, secret)
            .rebuild(|udp| udp.tag.is_used() && !udp.is(Mark::CONNECTED) && udp.bound != 0);
        self.recount_ports();
        self.recount_settings();
        *self.left = Left::default();
        for tcb in self.tcbs[..fresh].iter().filter(|tcb| tcb.tag.is_used()) {
            self.left.moved(Standing::Used, tcb.standing());
        }
        let wheels = &mut *self.wheels;
        wheels
            .tcbs
            .rebuild(&mut self.tcbs[..fresh], |tcb, _| tcb.timers.next().filter(|_| tcb.tag.is_used()));
        // One whose timer had fired is asked at once.
        wheels
            .syns
            .rebuild(&mut self.syns[..syns], |syn, was| syn.tag.is_used().then(|| was.unwrap_or(Instant(0))));
    }

    /// Who sends is counted again, and those that waited until they may wait again, in whatever order.
    pub(super) fn recover_sending(&mut self) {
        *self.sending = Sending::default();
        for traffic in self.traffics.iter_mut().take(self.slabs.traffics.fresh() as usize) {
            traffic.is_sending = (traffic.tag.is_used() && !traffic.send.is_empty()).into();
            self.sending.queues += u32::from(traffic.is_sending);
        }
        for index in 0..self.slabs.tcbs.fresh() {
            let (Some(tcb), Some(seldom)) =
                (self.tcbs.get(index as usize), self.seldoms.get_mut(index as usize))
            else {
                continue;
            };
            if tcb.tag.is_used() && tcb.waits_for_queues(seldom.queue) {
                let socket = tcb.tag.handle(index);
                (seldom.queue, seldom.snd_up) = (0, Seq(0));
                // Whose connection is over has nothing to wait for.
                let _ = self.tcp_wait(socket);
            }
        }
    }

    fn recount_ports(&mut self) {
        let sockets = self.slabs.tcbs.fresh() as usize;
        let udp_sockets = self.slabs.udp_sockets.fresh() as usize;
        let (tcbs, seldoms, udps) = (&*self.tcbs, &*self.seldoms, &*self.udp_sockets);
        let fresh = self.slabs.bounds.fresh() as usize;
        let mut ports = crate::ports::Ports {
            heads: self.port_heads,
            slab: &mut self.slabs.bounds,
            bounds: &mut self.bounds[..fresh],
            places: self.bound_places,
            leases: &[],
            secret: self.header.secret,
        };
        ports.begin_recount();
        for (tcb, seldom) in tcbs.iter().zip(seldoms).take(sockets).filter(|(tcb, _)| tcb.tag.is_used()) {
            if let Some(bound) = seldom.bound.checked_sub(1) {
                ports.recount(bound, Protocol::Tcp, tcb.local_port, Class(tcb.bound_as));
            }
        }
        for udp in udps.iter().take(udp_sockets).filter(|udp| udp.tag.is_used()) {
            if let Some(bound) = udp.bound.checked_sub(1) {
                ports.recount(bound, Protocol::Udp, udp.local_port, Class(udp.bound_as));
            }
        }
        ports.end_recount();
    }

    fn recount_settings(&mut self) {
        let (sockets, udp_sockets) = (self.slabs.tcbs.fresh(), self.slabs.udp_sockets.fresh());
        let fresh = self.slabs.settings.fresh() as usize;
        let mut options = crate::settings::Interner {
            slab: &mut self.slabs.settings,
            records: &mut self.settings[..fresh],
            places: self.settings_places,
            secret: self.header.secret,
        };
        options.begin_recount();
        let tcp = self.tcbs.iter_mut().take(sockets as usize).filter(|tcb| tcb.tag.is_used());
        let udp = self.udp_sockets.iter_mut().take(udp_sockets as usize).filter(|udp| udp.tag.is_used());
        for number in tcp.map(|tcb| &mut tcb.settings).chain(udp.map(|udp| &mut udp.settings)) {
            if *number != 0 && !options.recount(*number) {
                *number = 0;
            }
        }
        options.end_recount();
    }
}
