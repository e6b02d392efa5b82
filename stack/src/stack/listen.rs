//! Passive opens: SEGMENT ARRIVES in LISTEN (RFC 9293 §3.10.7.2), the SYNs that wait, and the connections that come of them.
//!
//! A SYN is a [`SynEntry`] until it is acknowledged: only then there is a block, in SYN-RECEIVED, which the acknowledgment takes to
//! ESTABLISHED by the eight steps. As in Linux, an accept queue that is full holds handshakes back: their acknowledgment is
//! dropped, and the SYN-ACK goes again.

use super::{Stack, TIMERS};
use crate::device::Device;
use crate::events;
use crate::region::slab::Handle;
use crate::stats::Counter;
use crate::tcp::connection::{RECEIVE_FRAMES, advertised_mss, bounds, offered_shift, peer_mss};
use crate::tcp::isn::{self, Tuple};
use crate::tcp::listener::SynEntry;
use crate::tcp::output::emit::hops;
use crate::tcp::output::header::Head;
use crate::tcp::recovery::ecn::Ecn;
use crate::tcp::rtt;
use crate::tcp::segment::Segment;
use crate::tcp::tcb::{Flags as Tcbits, Rcv, Snd, Tcb};
use crate::tcp::timers::{Timer, limits};
use crate::tcp::timestamps::{self, Recent};
use crate::tcp::window;
use crate::wire::tcp::options::{Options, Timestamps};
use crate::wire::tcp::{Flags, Header};

impl<D: Device> Stack<'_, '_, D> {
    /// LISTEN.
    pub(super) fn listener_segment(&mut self, listener: u32, seg: &Segment) {
        // "First, check for a RST: An incoming RST segment […] should be ignored."
        if seg.is(Flags::RST) {
            return;
        }
        // "Second, check for an ACK: Any acknowledgment is bad if it arrives on a connection still in the LISTEN state."
        if seg.is(Flags::ACK) {
            return self.reset(seg);
        }
        // "Third, check for a SYN". "Fourth, other data or control: This should not be reached. Drop the segment".
        if !seg.is(Flags::SYN) {
            return;
        }
        let Some(record) = self.parts.listeners.get(listener as usize).copied() else { return };
        // Linux: so many may wait as connections may, and none while the accept queue is full.
        if record.accept_len > record.backlog {
            return self.count(Counter::AcceptQueueFull);
        }
        let entry = self.syn_entry(seg);
        if record.syn_len > record.backlog {
            return self.count(Counter::SynQueueFull);
        }
        match self.parts.tcp_keep_syn(listener, &entry) {
            Ok(kept) => {
                self.answer(kept.index);
                self.arm_syn(kept.index);
            }
            Err(_) => self.count(Counter::SynQueueFull),
        }
    }

    /// What is kept of a SYN: "Set RCV.NXT to SEG.SEQ+1, IRS is set to SEG.SEQ […] ISS should be selected".
    fn syn_entry(&mut self, seg: &Segment) -> SynEntry {
        let options = &seg.options;
        let tuple = Tuple {
            local: seg.local.0,
            remote: seg.remote.0,
            local_port: seg.local.1,
            remote_port: seg.remote.1,
        };
        let device = self.device.capabilities();
        let mss = advertised_mss(self.link_mtu(&seg.remote.0), &seg.remote.0);
        let space = RECEIVE_FRAMES * u32::from(device.frame_size / 2);
        let mut flags = Tcbits::default();
        let mut agree = |on: bool, flag: Tcbits| {
            if on {
                flags |= flag
            }
        };
        agree(options.timestamps.is_some(), Tcbits::TIMESTAMPS);
        agree(options.sack_permitted, Tcbits::SACK);
        agree(options.window_scale.is_some(), Tcbits::SCALING);
        agree(Ecn::asks(seg.flags), Tcbits::ECN);
        let mut shifts = Tcb::default();
        if let Some(shift) = options.window_scale {
            shifts.set_shifts(shift, offered_shift(device.frame_size, self.parts.pool.limits.high));
        }
        SynEntry {
            local: tuple.local,
            remote: tuple.remote,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            irs: seg.seq,
            iss: isn::initial_sequence(&self.parts.header.secret.0, &tuple, self.now),
            ts_recent: options.timestamps.map_or(0, |stamps| stamps.tsval),
            peer_mss: peer_mss(options.mss, &tuple.remote),
            rcv_wnd: window::initial(space, mss) as u16,
            shifts: shifts.shifts,
            flags: flags.0 as u8,
            ..SynEntry::default()
        }
    }

    /// SYN-ACK: "<SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>".
    fn answer(&mut self, index: u32) -> bool {
        let Some(syn) = self.parts.syns.get(index as usize).copied() else { return false };
        let flags = Tcbits(syn.flags.into());
        let tuple = tuple_of(&syn);
        let offset = isn::timestamp_offset(&self.parts.header.secret.0, &tuple);
        let tsval = timestamps::clock(self.now, offset);
        let options = Options {
            mss: Some(advertised_mss(self.link_mtu(&syn.remote), &syn.remote)),
            window_scale: flags.has(Tcbits::SCALING).then_some(syn.shifts >> 4),
            sack_permitted: flags.has(Tcbits::SACK),
            timestamps: flags.has(Tcbits::TIMESTAMPS).then_some(Timestamps { tsval, tsecr: syn.ts_recent }),
            ..Options::default()
        };
        let header = Header {
            source: syn.local_port.into(),
            destination: syn.remote_port.into(),
            sequence: syn.iss.0.into(),
            acknowledgment: (syn.irs + 1).0.into(),
            window: syn.rcv_wnd.into(),
            ..Header::default()
        };
        let ecn = if flags.has(Tcbits::ECN) { Ecn::SYN_ACK } else { Flags::default() };
        let (ttl, tos) = hops(&crate::settings::Values::default(), &syn.remote);
        let flags = Flags::SYN | Flags::ACK | ecn;
        self.send_control(&Head { local: syn.local, remote: syn.remote, header, flags, options, ttl, tos })
    }

    /// The SYN-ACK goes again after the first timeout, doubled each time.
    fn arm_syn(&mut self, index: u32) {
        let Some(syn) = self.parts.syns.get(index as usize) else { return };
        let wait = rtt::backed_off(rtt::INITIAL, syn.retransmits, bounds().max);
        self.parts.wheels.syns.arm(self.parts.syns, index, self.now + wait);
    }

    pub(super) fn run_syn_timers(&mut self) -> bool {
        self.parts.wheels.syns.is_due(self.now) && self.run_due_syn_timers()
    }

    fn run_due_syn_timers(&mut self) -> bool {
        let (mut fired, mut count) = ([0; TIMERS], 0);
        let (wheel, syns) = (&mut self.parts.wheels.syns, &mut *self.parts.syns);
        let more = wheel.advance(syns, self.now, TIMERS, |_, _, index| {
            if let Some(place) = fired.get_mut(count) {
                *place = index;
                count += 1;
            }
        });
        for index in &fired[..count] {
            self.on_syn_timer(*index);
        }
        more
    }

    fn on_syn_timer(&mut self, index: u32) {
        let Some(syn) = self.parts.syns.get_mut(index as usize).filter(|syn| syn.tag.is_used()) else {
            return;
        };
        if syn.retransmits >= limits::SYNACK_RETRIES {
            let _ = self.parts.tcp_forget_syn(index);
            return self.count(Counter::AttemptsFailed);
        }
        syn.retransmits += 1;
        let (is_first, listener) = (syn.retransmits == 1, syn.listener);
        if let Some(listener) = self.parts.listeners.get_mut(listener as usize).filter(|_| is_first) {
            listener.syn_young = listener.syn_young.saturating_sub(1);
        }
        self.count(Counter::SegmentsRetransmitted);
        self.answer(index);
        self.arm_syn(index);
    }

    /// A segment for a SYN that waits: the steps of §3.10.7.4 in SYN-RECEIVED, as far as they need no block.
    pub(super) fn waiting_segment(&mut self, index: u32, seg: &mut Segment) -> Option<Handle> {
        let syn = self.parts.syns.get(index as usize).copied()?;
        let nxt = syn.irs + 1;
        let flags = Tcbits(syn.flags.into());
        let recent = Recent::new(self.now, syn.ts_recent);
        let is_late = seg.options.timestamps.is_some_and(|stamps| {
            flags.has(Tcbits::TIMESTAMPS) && !recent.is_acceptable(self.now, stamps.tsval, seg.is(Flags::RST))
        });
        let edge = nxt + u32::from(syn.rcv_wnd);
        let in_window = nxt.le(seg.seq) && seg.seq.lt(edge) || seg.seq == nxt;
        if seg.is(Flags::SYN) && seg.seq == syn.irs && !seg.is(Flags::ACK) && !seg.is(Flags::RST) {
            // The same SYN again: our answer was lost.
            self.answer(index);
        } else if is_late || !in_window {
            if !seg.is(Flags::RST) {
                self.count(Counter::Unacceptable);
                self.answer(index);
            }
        } else if seg.is(Flags::RST) {
            // RFC 5961 §3.2: only an exact one resets.
            if seg.seq == nxt {
                let _ = self.parts.tcp_forget_syn(index);
                self.count(Counter::AttemptsFailed);
            }
        } else if seg.is(Flags::SYN) {
            self.answer(index);
        } else if seg.is(Flags::ACK) && seg.ack != syn.iss + 1 {
            self.reset(seg);
        } else if seg.is(Flags::ACK) && !(flags.has(Tcbits::TIMESTAMPS) && seg.options.timestamps.is_none()) {
            return self.open(index, seg);
        }
        self.drop_segment(seg)
    }

    /// The handshake is done: a block for it, in the accept queue.
    fn open(&mut self, index: u32, seg: &mut Segment) -> Option<Handle> {
        let syn = self.parts.syns.get(index as usize).copied()?;
        let listener = self.parts.listeners.get(syn.listener as usize).copied()?;
        if listener.accept_len > listener.backlog {
            self.count(Counter::AcceptQueueFull);
            return self.drop_segment(seg);
        }
        let Ok(child) = self.parts.tcp_child(syn.listener, &syn) else {
            self.count(Counter::SocketsFull);
            return self.drop_segment(seg);
        };
        let _ = self.parts.tcp_forget_syn(index);
        if let Some(word) = self.shared.tcp_events.get(child.index as usize) {
            events::clear(word);
        }
        let begun = self.work(child, None, |connection| {
            let tcb = &mut *connection.tcb;
            let (irs, iss) = (syn.irs, syn.iss);
            tcb.rcv = Rcv { nxt: irs + 1, wnd: syn.rcv_wnd.into(), last_ack_sent: irs + 1 };
            tcb.snd = Snd { una: iss, nxt: iss + 1, wnd: 0, wl1: irs, wl2: iss };
            tcb.received = 1;
            tcb.flags |= Tcbits(syn.flags.into());
            tcb.shifts = syn.shifts;
            tcb.peer_mss = syn.peer_mss;
            tcb.retransmits = syn.retransmits;
            // Its timer ran since the SYN-ACK: by it the first round trip is measured (tcp_synack_rtt_meas).
            if let Some(at) = syn.entry.deadline() {
                tcb.timers.arm(Timer::Rto, at);
            }
            tcb.recent = match tcb.flags.has(Tcbits::TIMESTAMPS) {
                true => Recent::new(connection.now, syn.ts_recent),
                false => Recent::default(),
            };
            tcb.episode.ecn = Ecn::agreed(tcb.flags.has(Tcbits::ECN));
            connection.begin();
        });
        if begun.is_err() {
            return self.drop_segment(seg);
        }
        self.count(Counter::PassiveOpens);
        let touched = self.connection_segment(child, seg);
        self.tell_listener(listener.socket, true);
        touched
    }

    /// Whether a listener has something to accept.
    pub(crate) fn tell_listener(&mut self, socket: u32, arrived: bool) {
        let Some(seldom) = self.parts.seldoms.get(socket as usize) else { return };
        let record = seldom.queue.checked_sub(1).and_then(|index| self.parts.listeners.get(index as usize));
        let ready = record.map_or(0, |record| if record.accept_len > 0 { events::READABLE } else { 0 });
        if let Some(word) = self.shared.tcp_events.get(socket as usize) {
            events::set(word, ready, arrived);
        }
    }
}

fn tuple_of(syn: &SynEntry) -> Tuple {
    Tuple { local: syn.local, remote: syn.remote, local_port: syn.local_port, remote_port: syn.remote_port }
}
