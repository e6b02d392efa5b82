//! Queues: which frames and blocks are whose, and what sockets are charged for.

use super::Lost;
use crate::device::FrameIndex;
use crate::events;
use crate::frames::Frames;
use crate::frames::blocks::Blocks;
use crate::frames::list::FrameList;
use crate::region::{Parts, Shared};
use crate::tcp::tcb::Traffic;
use crate::udp::{Mark, queue};

impl Parts<'_> {
    /// Each socket has the queues that have it, and these the frames and blocks in their lists; where that makes no sense, the
    /// socket is lost.
    pub(super) fn recover_queues(&mut self, shared: &Shared<'_>, lost: &mut impl FnMut(&Lost)) {
        let mut frames = Frames { pool: self.pool, records: self.frames, states: shared.frames };
        frames.begin_claims();
        Blocks { slab: &mut self.slabs.blocks, blocks: self.blocks }.begin_claims();
        for index in 0..self.slabs.tcbs.fresh() {
            let tcb = &mut self.tcbs[index as usize];
            (tcb.send_charge.frames, tcb.receive_charge.frames) = (0, 0);
            let Some(at) = tcb.traffic.checked_sub(1).filter(|_| tcb.tag.is_used()) else {
                tcb.traffic = 0;
                continue;
            };
            let traffic = self.traffics.get(at as usize).filter(|traffic| traffic.tag.is_used());
            let Some(traffic) = traffic.filter(|traffic| traffic.socket == index).copied() else {
                tcb.traffic = 0;
                continue;
            };
            let mut frames = Frames { pool: self.pool, records: self.frames, states: shared.frames };
            let mut blocks = Blocks { slab: &mut self.slabs.blocks, blocks: self.blocks };
            if claim(&traffic, index, &mut frames, &mut blocks) {
                tcb.send_charge.frames = traffic.send.list().frames();
                tcb.receive_charge.frames =
                    traffic.receive.list().frames() + traffic.reassembly.list().frames();
            } else {
                self.lose(index, shared, lost);
            }
        }
    }

    /// The same for sockets of UDP: a queue that makes no sense is empty, and what was in it is lost as on a wire. Nobody is charged for
    /// what the device sends.
    pub(super) fn recover_datagrams(&mut self, shared: &Shared<'_>) {
        for index in 0..self.slabs.udp_sockets.fresh() {
            let Some(udp) = self.udp_sockets.get_mut(index as usize) else { return };
            let mut frames = Frames { pool: self.pool, records: self.frames, states: shared.frames };
            for list in [&mut udp.receive, &mut udp.errors, &mut udp.kept] {
                let is_one = udp.tag.is_used() && udp.holders != 0 && frames.claim(list, index);
                if is_one && queue::check(&frames, list).is_err() {
                    frames.unclaim(list, list.frames());
                } else if is_one {
                    continue;
                }
                *list = FrameList::default();
            }
            udp.receive_charge.frames = udp.receive.frames() + udp.errors.frames();
            udp.send_charge.frames = udp.kept.frames();
            udp.marks &= !Mark::WANTS_ROOM;
            if let Some(word) = shared.udp_events.get(index as usize) {
                let _ = events::set(word, if udp.tag.is_used() { udp.ready() } else { 0 }, udp.tag.is_used());
            }
        }
    }

    /// Frames by what is left of the sockets.
    pub(super) fn recover_frames(&mut self, shared: &Shared<'_>) {
        let tcbs = &self.tcbs[..self.slabs.tcbs.fresh() as usize];
        let charges = tcbs.iter().filter(|tcb| tcb.tag.is_used());
        let charges = charges.flat_map(|tcb| [tcb.send_charge.frames, tcb.receive_charge.frames]);
        let udps = &self.udp_sockets[..self.slabs.udp_sockets.fresh() as usize];
        let udps = udps.iter().filter(|udp| udp.tag.is_used());
        let charges = charges.chain(udps.flat_map(|udp| [udp.send_charge.frames, udp.receive_charge.frames]));
        let (charged, holders) = charges.fold((0, 0), |(charged, holders), frames| {
            (frames.saturating_add(charged), holders + u32::from(frames > 0))
        });
        let mut frames = Frames { pool: self.pool, records: self.frames, states: shared.frames };
        if let Some(frame) = self.intent.frame.checked_sub(1) {
            frames.doubt(FrameIndex(frame));
        }
        frames.end_claims();
        frames.rebuild(charged, holders);
    }
}

/// Claims all that is in the queues; nothing if something is wrong with them.
fn claim(traffic: &Traffic, owner: u32, frames: &mut Frames<'_>, blocks: &mut Blocks<'_>) -> bool {
    let lists = [traffic.send.list(), traffic.receive.list(), traffic.reassembly.list()];
    let pages = [traffic.send.blocks(), traffic.receive.blocks()];
    let listed = lists.iter().take_while(|list| frames.claim(list, owner)).count();
    let paged = pages.iter().take_while(|list| blocks.claim(list)).count();
    let is_whole = listed == lists.len()
        && paged == pages.len()
        && traffic.send.check(frames).is_ok()
        && traffic.reassembly.check(frames).is_ok();
    if !is_whole {
        lists[..listed].iter().for_each(|list| frames.unclaim(list, list.frames()));
        pages[..paged].iter().for_each(|list| blocks.unclaim(list, u32::MAX));
    }
    is_whole
}
