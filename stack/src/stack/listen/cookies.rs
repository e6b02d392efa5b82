//! SYNs that nobody remembers: answered with a cookie, and known again by it (RFC 4987 §3.6).
//!
//! What a cookie can't keep is agreed upon only if the peer's timestamps bring it back: without them a connection goes
//! without SACK, scaling and ECN.

use super::super::Stack;
use super::tuple_of;
use crate::device::Device;
use crate::seq::Seq;
use crate::stats::Counter;
use crate::tcp::isn::{self, cookie};
use crate::tcp::listener::SynEntry;
use crate::tcp::segment::Segment;
use crate::tcp::tcb::Flags as Tcbits;
use crate::tcp::timestamps;
use crate::wire::tcp::Flags;

impl<D: Device> Stack<'_, '_, D> {
    /// Answers a SYN with a cookie, and forgets it.
    pub(super) fn send_cookie(&mut self, syn: SynEntry) {
        let flags = Tcbits(syn.flags.into());
        let (flags, shifts) =
            if flags.has(Tcbits::TIMESTAMPS) { (flags, syn.shifts) } else { (Tcbits::default(), 0) };
        let key = self.parts.header.secret.0;
        let (iss, _) = cookie::make(&key, &tuple_of(&syn), syn.irs, syn.peer_mss, self.now);
        let kept = cookie::Kept {
            wnd_shift: flags.has(Tcbits::SCALING).then_some(shifts & 0xf),
            sack: flags.has(Tcbits::SACK),
            ecn: flags.has(Tcbits::ECN),
        };
        let clock = cookie::timestamp(timestamps::clock(self.now, 0), &kept);
        self.send_syn_ack(&SynEntry { iss, shifts, flags: flags.0 as u8, ..syn }, clock, None);
        self.count(Counter::SynCookiesSent);
        if let Some(listener) = self.parts.listeners.get_mut(syn.listener as usize) {
            listener.note_cookie(self.now);
        }
    }

    /// The SYN whose answer this segment acknowledges, if that had a cookie in it.
    pub(super) fn returned_cookie(&mut self, listener: u32, seg: &Segment) -> Option<SynEntry> {
        let record = self.parts.listeners.get(listener as usize)?;
        if seg.is(Flags::SYN) || self.parts.host.tcp_syncookies == 0 || !record.expects_cookies(self.now) {
            return None;
        }
        let syn = SynEntry {
            local: seg.local.0,
            remote: seg.remote.0,
            local_port: seg.local.1,
            remote_port: seg.remote.1,
            irs: Seq(seg.seq.0.wrapping_sub(1)),
            iss: Seq(seg.ack.0.wrapping_sub(1)),
            ts_recent: seg.options.timestamps.map_or(0, |stamps| stamps.tsval),
            listener,
            ..SynEntry::default()
        };
        let (key, tuple) = (self.parts.header.secret.0, tuple_of(&syn));
        let Some(peer_mss) = cookie::check(&key, &tuple, syn.irs, syn.iss, self.now) else {
            self.count(Counter::SynCookiesBad);
            return None;
        };
        self.count(Counter::SynCookiesGood);
        let offset = isn::timestamp_offset(&key, &tuple);
        let kept = seg.options.timestamps.map(|stamps| cookie::kept(stamps.tsecr.wrapping_sub(offset)));
        let mut flags = Tcbits::default();
        let known = kept.unwrap_or_default();
        for (on, flag) in [
            (kept.is_some(), Tcbits::TIMESTAMPS),
            (known.sack, Tcbits::SACK),
            (known.wnd_shift.is_some(), Tcbits::SCALING),
            (known.ecn, Tcbits::ECN),
        ] {
            if on {
                flags |= flag;
            }
        }
        Some(self.with_offer(SynEntry { peer_mss, ..syn }, flags, known.wnd_shift))
    }
}
