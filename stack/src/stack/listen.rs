//! Passive opens: SEGMENT ARRIVES in LISTEN (RFC 9293 §3.10.7.2), the SYNs that wait, and the connections that come of them.
//!
//! A SYN is a [`SynEntry`] until it is acknowledged: only then there is a block, in SYN-RECEIVED, which the acknowledgment takes to
//! ESTABLISHED by the eight steps. As in Linux, an accept queue that is full holds handshakes back: their acknowledgment is
//! dropped, and the SYN-ACK goes again. When no more SYNs may wait, they are answered with a cookie ([`cookies`]).
//!
//! A connection has its listener's options; what of them a SYN-ACK shows is looked up when it is sent.

use super::{Stack, TIMERS};
use crate::device::Device;
use crate::events;
use crate::region::slab::Handle;
use crate::settings::Values;
use crate::stats::Counter;
use crate::tcp::connection::{Connection, Offer, bounds, offered_mss, peer_mss};
use crate::tcp::isn::{self, Tuple};
use crate::tcp::listener::{Listener, SynEntry};
use crate::tcp::output::emit::hops;
use crate::tcp::output::header::Head;
use crate::tcp::recovery::ecn::Ecn;
use crate::tcp::rtt;
use crate::tcp::segment::Segment;
use crate::tcp::tcb::{Flags as Tcbits, Rcv, Snd, Tcb};
use crate::tcp::timers::Timer;
use crate::tcp::timestamps::{self, Recent};
use crate::wire::tcp::options::{Cookie, Options, Timestamps};
use crate::wire::tcp::{Flags, Header};

mod cookies;
mod fast_open;
mod saved_syn;

use fast_open::Verdict;

impl<D: Device> Stack<'_, '_, D> {
    /// LISTEN. Which connection it has opened, if that has something to send now.
    pub(super) fn listener_segment(&mut self, listener: u32, seg: &mut Segment) -> Option<Handle> {
        // "First, check for a RST: An incoming RST segment […] should be ignored."
        if seg.is(Flags::RST) {
            return self.drop_segment(seg);
        }
        // "Second, check for an ACK: Any acknowledgment is bad if it arrives on a connection still in the LISTEN state." But
        // what acknowledges a cookie was a connection's, if we could remember it.
        if seg.is(Flags::ACK) {
            return match self.returned_cookie(listener, seg) {
                Some(syn) => self.open(&syn, seg),
                None => {
                    self.reset(seg);
                    self.drop_segment(seg)
                }
            };
        }
        // "Third, check for a SYN". "Fourth, other data or control: This should not be reached. Drop the segment".
        let child = if seg.is(Flags::SYN) { self.listener_syn(listener, seg) } else { None };
        self.drop_segment(seg);
        child
    }

    /// A SYN, in Linux's order (tcp_conn_request): a queue of SYNs that is full asks for a cookie; an accept queue that is
    /// full takes no part in more handshakes.
    fn listener_syn(&mut self, listener: u32, seg: &mut Segment) -> Option<Handle> {
        let record = self.parts.listeners.get(listener as usize).copied()?;
        let cookies = self.parts.host.tcp_syncookies;
        let is_full = record.is_syn_full();
        if is_full {
            self.count(Counter::SynQueueFull);
        }
        if is_full && cookies == 0 {
            return None;
        }
        if record.is_accept_full() {
            self.count(Counter::AcceptQueueFull);
            return None;
        }
        let syn = self.syn_entry(listener, seg);
        if is_full || cookies > 1 {
            self.send_cookie(syn);
            return None;
        }
        self.save_syn(&syn, seg);
        let cookie = match self.fast_open(listener, seg) {
            Verdict::Handshake(cookie) => cookie,
            Verdict::Connection(cookie) => match self.open_fast(listener, &syn, seg, cookie) {
                Some(child) => return Some(child),
                None => cookie,
            },
        };
        match self.parts.tcp_keep_syn(listener, &syn) {
            Ok(kept) => {
                self.send_syn_ack(&syn, timestamps::clock(self.now, 0), cookie);
                self.arm_syn(kept.index);
            }
            Err(_) => {
                self.count(Counter::SynQueueFull);
                if cookies != 0 {
                    self.send_cookie(syn);
                }
            }
        }
        None
    }

    /// What a listener's options are: its connections have them too.
    fn listener_values(&mut self, listener: u32) -> Values {
        let record = self.parts.listeners.get(listener as usize);
        let tcb = record.and_then(|record| self.parts.tcbs.get(record.socket as usize));
        let number = tcb.map_or(0, |tcb| tcb.settings);
        self.parts.options().of(number)
    }

    /// What is kept of a SYN: "Set RCV.NXT to SEG.SEQ+1, IRS is set to SEG.SEQ […] ISS should be selected".
    fn syn_entry(&mut self, listener: u32, seg: &Segment) -> SynEntry {
        let options = &seg.options;
        let syn = SynEntry {
            local: seg.local.0,
            remote: seg.remote.0,
            local_port: seg.local.1,
            remote_port: seg.remote.1,
            irs: seg.seq,
            ts_recent: options.timestamps.map_or(0, |stamps| stamps.tsval),
            peer_mss: peer_mss(options.mss, &seg.remote.0),
            listener,
            ..SynEntry::default()
        };
        let iss = isn::initial_sequence(&self.parts.header.secret.0, &tuple_of(&syn), self.now);
        let (mut flags, offered) = (Tcbits::default(), self.parts.host.offered() | Tcbits::ECN);
        let mut agree = |on: bool, flag: Tcbits| {
            if on && offered.has(flag) {
                flags |= flag
            }
        };
        agree(options.timestamps.is_some(), Tcbits::TIMESTAMPS);
        agree(options.sack_permitted, Tcbits::SACK);
        agree(options.window_scale.is_some(), Tcbits::SCALING);
        agree(self.parts.host.tcp_ecn != 0 && Ecn::asks(seg.flags), Tcbits::ECN);
        let peers_shift = options.window_scale.filter(|_| flags.has(Tcbits::SCALING));
        self.with_offer(SynEntry { iss, ..syn }, flags, peers_shift)
    }

    /// The same with what we offer: the window and its scale, from the listener's buffer.
    fn with_offer(&mut self, syn: SynEntry, flags: Tcbits, peers_shift: Option<u8>) -> SynEntry {
        let values = self.listener_values(syn.listener);
        let device = self.device.capabilities();
        let mss = offered_mss(self.link_mtu(&syn.remote), &syn.remote, &values);
        let offer = Offer::new(&values, &device, self.parts.pool.limits.high, mss);
        let mut shifts = Tcb::default();
        if let Some(shift) = peers_shift {
            shifts.set_shifts(shift, offer.shift);
        }
        SynEntry { rcv_wnd: offer.wnd as u16, shifts: shifts.shifts, flags: flags.0 as u8, ..syn }
    }

    fn answer(&mut self, index: u32) -> bool {
        let Some(syn) = self.parts.syns.get(index as usize).copied() else { return false };
        self.send_syn_ack(&syn, timestamps::clock(self.now, 0), None)
    }

    /// SYN-ACK: "<SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>". `clock` is the timestamp's, without the connection's offset.
    fn send_syn_ack(&mut self, syn: &SynEntry, clock: u32, fast_open: Option<Cookie>) -> bool {
        let flags = Tcbits(syn.flags.into());
        let values = self.listener_values(syn.listener);
        let tsval = clock.wrapping_add(isn::timestamp_offset(&self.parts.header.secret.0, &tuple_of(syn)));
        let options = Options {
            mss: Some(offered_mss(self.link_mtu(&syn.remote), &syn.remote, &values)),
            window_scale: flags.has(Tcbits::SCALING).then_some(syn.shifts >> 4),
            sack_permitted: flags.has(Tcbits::SACK),
            timestamps: flags.has(Tcbits::TIMESTAMPS).then_some(Timestamps { tsval, tsecr: syn.ts_recent }),
            fast_open,
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
        let (ttl, tos) = hops(&values, &syn.remote);
        let flags = Flags::SYN | Flags::ACK | ecn;
        self.send_control(&Head { local: syn.local, remote: syn.remote, header, flags, options, ttl, tos })
    }

    /// The SYN-ACK goes again after the first timeout, doubled each time.
    fn arm_syn(&mut self, index: u32) {
        let Some(syn) = self.parts.syns.get(index as usize).copied() else { return };
        let max = bounds(&self.listener_values(syn.listener), self.parts.host, 0).max;
        let wait = rtt::backed_off(rtt::INITIAL, syn.retransmits, max);
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

    /// A SYN-ACK was not answered in time, or what answered it had no room (reqsk_timer_handler, syn_ack_recalc).
    fn on_syn_timer(&mut self, index: u32) {
        let Some(syn) = self.parts.syns.get(index as usize).copied().filter(|syn| syn.tag.is_used()) else {
            return;
        };
        let Some(listener) = self.parts.listeners.get(syn.listener as usize).copied() else { return };
        let values = self.listener_values(syn.listener);
        let most = self.syn_ack_retries(&listener, &values);
        let (timeouts, is_acked) = (syn.retransmits, syn.flags & SynEntry::ACKED != 0);
        let defers = |until: u8| values.defer_accept != 0 && is_acked && timeouts < until;
        if timeouts >= most && !defers(values.defer_accept) {
            let _ = self.parts.tcp_forget_syn(index);
            return self.count(Counter::AttemptsFailed);
        }
        if let Some(syn) = self.parts.syns.get_mut(index as usize) {
            syn.retransmits = timeouts.saturating_add(1);
        }
        if let Some(listener) = self.parts.listeners.get_mut(syn.listener as usize).filter(|_| timeouts == 0)
        {
            listener.syn_young = listener.syn_young.saturating_sub(1);
        }
        // While text is waited for, nothing goes again but the last time, as the peer's last chance to show itself.
        if !defers(values.defer_accept.saturating_sub(1)) {
            self.count(Counter::SegmentsRetransmitted);
            self.answer(index);
        }
        self.arm_syn(index);
    }

    /// How often a listener's SYN-ACKs go again: TCP_SYNCNT or the host's value, and less the fuller its queue is of SYNs
    /// that nobody has acknowledged.
    fn syn_ack_retries(&self, listener: &Listener, values: &Values) -> u8 {
        let most = self.parts.host.tcp_synack_retries.min(u8::MAX.into()) as u8;
        let mut most = if values.syn_count != 0 { values.syn_count } else { most };
        if listener.syn_len.saturating_mul(2) > listener.backlog.max(8) {
            let mut young = listener.syn_young.saturating_mul(2);
            while most > 2 && listener.syn_len >= young {
                most -= 1;
                young = young.saturating_mul(2);
            }
        }
        most
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
        } else if seg.is(Flags::ACK) {
            return self.acknowledged(index, &syn, seg);
        }
        self.drop_segment(seg)
    }

    /// A SYN-ACK is acknowledged: the connection is there, unless it is to wait for text (TCP_DEFER_ACCEPT) or for room.
    fn acknowledged(&mut self, index: u32, syn: &SynEntry, seg: &mut Segment) -> Option<Handle> {
        let defer = self.listener_values(syn.listener).defer_accept;
        let waits_for_text = syn.retransmits < defer && seg.end() == syn.irs + 1;
        let is_full = self.parts.listeners.get(syn.listener as usize).is_some_and(Listener::is_accept_full);
        if waits_for_text || is_full {
            if let Some(syn) = self.parts.syns.get_mut(index as usize) {
                syn.flags |= SynEntry::ACKED;
            }
            if !waits_for_text {
                self.count(Counter::AcceptQueueFull);
                if self.parts.host.tcp_abort_on_overflow != 0 {
                    let _ = self.parts.tcp_forget_syn(index);
                    self.reset(seg);
                }
            }
            return self.drop_segment(seg);
        }
        // Timeouts in which nothing went again say nothing of the path.
        let was_lost = syn.flags & SynEntry::ACKED == 0 || defer == 0;
        let retransmits = if was_lost { syn.retransmits } else { 0 };
        let _ = self.parts.tcp_forget_syn(index);
        self.open(&SynEntry { retransmits, ..*syn }, seg)
    }

    /// The handshake is done: a block for it, in the accept queue.
    fn open(&mut self, syn: &SynEntry, seg: &mut Segment) -> Option<Handle> {
        let Some(listener) = self.parts.listeners.get(syn.listener as usize).copied() else {
            return self.drop_segment(seg);
        };
        if listener.is_accept_full() {
            self.count(Counter::AcceptQueueFull);
            return self.drop_segment(seg);
        }
        let Ok(child) = self.parts.tcp_child(syn.listener, syn) else {
            self.count(Counter::SocketsFull);
            return self.drop_segment(seg);
        };
        if let Some(word) = self.shared.tcp_events.get(child.index as usize) {
            events::clear(word);
        }
        let begun = self.work(child, None, |connection| {
            connection.begin_child(syn);
            // Its timer ran since the SYN-ACK: by it the first round trip is measured (tcp_synack_rtt_meas).
            if let Some(at) = syn.entry.deadline() {
                connection.tcb.timers.arm(Timer::Rto, at);
            }
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
        if let Some(word) = self.shared.tcp_events.get(socket as usize)
            && events::set(word, ready, arrived)
        {
            self.shared.note_tcp(socket);
        }
    }
}

impl<D: Device> Connection<'_, D> {
    /// What the handshake has agreed upon.
    fn begin_child(&mut self, syn: &SynEntry) {
        let tcb = &mut *self.tcb;
        let (irs, iss) = (syn.irs, syn.iss);
        tcb.rcv = Rcv { nxt: irs + 1, wnd: syn.rcv_wnd.into(), last_ack_sent: irs + 1 };
        tcb.snd = Snd { una: iss, nxt: iss + 1, wnd: 0, wl1: irs, wl2: iss };
        tcb.received = 1;
        tcb.flags |= Tcbits((syn.flags & SynEntry::NEGOTIATED).into());
        tcb.shifts = syn.shifts;
        tcb.peer_mss = syn.peer_mss;
        tcb.retransmits = syn.retransmits;
        tcb.recent = match tcb.flags.has(Tcbits::TIMESTAMPS) {
            true => Recent::new(self.now, syn.ts_recent),
            false => Recent::default(),
        };
        tcb.episode.ecn = Ecn::agreed(tcb.flags.has(Tcbits::ECN));
        self.begin(isn::timestamp_offset(&self.secret.0, &self.tuple()));
    }
}

pub(super) fn tuple_of(syn: &SynEntry) -> Tuple {
    Tuple { local: syn.local, remote: syn.remote, local_port: syn.local_port, remote_port: syn.remote_port }
}
