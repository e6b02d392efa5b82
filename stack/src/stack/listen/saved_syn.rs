//! What TCP_SAVE_SYN asks of a SYN that arrives.

use super::super::Stack;
use crate::device::{Device, Link};
use crate::settings;
use crate::tcp::connection::clock_ms;
use crate::tcp::listener::SynEntry;
use crate::tcp::saved_syn::Name;
use crate::tcp::segment::Segment;
use crate::wire::ethernet;

/// TCP_SAVE_SYN's value that asks for the link's header, too.
const FROM_LINK: u8 = 2;

impl<D: Device> Stack<'_, '_, D> {
    /// Keeps the headers of a SYN, if its listener's user wants them: IP's and TCP's, and the link's before them.
    pub(super) fn save_syn(&mut self, syn: &SynEntry, seg: &Segment) {
        let listener = self.parts.listeners.get(syn.listener as usize);
        let tcb = listener.and_then(|listener| self.parts.tcbs.get(listener.socket as usize));
        let how = tcb.map_or(0, |tcb| settings::of(self.parts.settings, tcb.settings).save_syn);
        let Some(frame) = seg.frame.filter(|_| how != 0) else { return };
        let record = self.parts.frames.get(frame.0 as usize);
        let headers = record.and_then(|record| {
            self.device.bytes(frame)?.get(record.offset.into()..usize::try_from(seg.offset).ok()?)
        });
        let Some(mut headers) = headers else { return };
        if how != FROM_LINK && self.device.capabilities().link == Link::Ethernet {
            let Ok((_, packet)) = ethernet::parse(headers) else { return };
            headers = packet;
        }
        self.parts.save_syn(&Name::of_syn(syn), clock_ms(self.now), headers);
    }
}
