//! A connection's timers expire (RFC 9293 §3.10.8): what each of them does.

use super::connection::{Connection, clock_ms};
use super::output::Why;
use super::state::{Event, State};
use super::tcb::{Flags as Tcbits, Mark};
use super::timers::keepalive::{Action, Defaults, Keepalive};
use super::timers::{Timer, limits};
use crate::device::Device;
use crate::error::Error;
use crate::settings::Switch;
use crate::stats::Counter;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Flags;

impl<D: Device> Connection<'_, D> {
    /// Does what the timers that have expired ask for, and then sends what may be sent. So many connections live on without
    /// their programs.
    pub(crate) fn on_timers(&mut self, orphans: u32) {
        // As many as there are places for timers that don't arm each other at once.
        for _ in 0..Timer::ALL.len() {
            if self.is_over {
                return;
            }
            let Some(timer) = self.tcb.timers.expired(self.now) else { break };
            self.on_timer(timer, orphans);
        }
        self.output();
    }

    fn on_timer(&mut self, timer: Timer, orphans: u32) {
        match timer {
            Timer::Rto => self.on_retransmission_timer(orphans),
            Timer::Tlp => self.on_tlp_timer(),
            Timer::Reorder => self.on_reorder_timer(),
            Timer::Persist => self.on_persist(orphans),
            Timer::DelayedAck => {
                let rto = self.rto();
                self.tcb.delayed_ack.on_timeout(rto);
                if self.tcb.flags.has(Tcbits::ACK_OWED) {
                    self.count(Counter::DelayedAcks);
                    self.owe_ack(true);
                }
            }
            Timer::Keepalive => self.on_keepalive(),
            Timer::FinWait2 | Timer::TimeWait => self.enter(Event::Timeout),
            Timer::UserTimeout => self.give_up(),
            Timer::Pacing => self.traffic.short = 0,
        }
    }

    /// RFC 9293 §3.8.3 (MUST-20): beyond R2, "close the connection"; §3.10.8: "flush all queues, signal the user […] delete the
    /// TCB". A peer that has said nothing for so long gets no reset (tcp_write_err).
    fn give_up(&mut self) {
        self.count(Counter::TimedOut);
        let soft = Error::from_code(self.tcb.soft_error);
        self.fail(soft.unwrap_or(Error::TimedOut));
    }

    fn on_retransmission_timer(&mut self, orphans: u32) {
        match self.tcb.state() {
            State::SynSent | State::SynReceived => self.on_syn_timer(),
            _ if self.traffic.send.sent().frames == 0 => {}
            _ => {
                let now = clock_ms(self.now);
                if self.traffic.stalled_since == 0 {
                    let first = self.traffic.send.list().first().and_then(|first| self.frames.record(first));
                    let sent_at = first.map_or(self.now, |record| Instant(record.sent_at));
                    self.traffic.stalled_since = clock_ms(sent_at).wrapping_add(1).max(1);
                }
                let waited = Duration::from_millis(now.wrapping_sub(self.traffic.stalled_since - 1).into());
                let since = Instant(self.now.0.saturating_sub(waited.0));
                let lives = self.lives();
                let retries = self.retries(lives);
                let is_early = !limits::is_given_up(self.now, since, retries, None, &self.patience());
                if self.gives_way(orphans, lives || is_early) {
                    return;
                }
                if limits::is_given_up(self.now, since, retries, self.user_timeout(), &self.patience()) {
                    return self.give_up();
                }
                if self.host.tcp_mtu_probing != 0
                    && limits::is_given_up(self.now, since, limits::RETRIES_1, None, &self.patience())
                {
                    self.suspect_black_hole();
                }
                self.on_rto();
            }
        }
    }

    /// A SYN or SYN,ACK was not answered.
    fn on_syn_timer(&mut self) {
        let is_answer = self.tcb.state() == State::SynReceived;
        let most = match self.values.syn_count {
            0 if is_answer => self.host.tcp_synack_retries.min(u8::MAX.into()) as u8,
            0 => self.host.tcp_syn_retries as u8,
            count => count,
        };
        // One that was accepted before its handshake has ended is given one more (tcp_fastopen_synack_timer).
        let most = most.saturating_add(self.tcb.is(Mark::FAST_CHILD).into());
        if self.tcb.retransmits >= most {
            self.count(Counter::AttemptsFailed);
            let soft = Error::from_code(self.tcb.soft_error);
            return self.fail(soft.unwrap_or(Error::TimedOut));
        }
        self.tcb.retransmits += 1;
        self.tcb.total_retrans = self.tcb.total_retrans.wrapping_add(1);
        self.tcb.rtt.back_off();
        self.count(Counter::SegmentsRetransmitted);
        // RFC 7413 §4.2.2: "the client SHOULD retransmit a SYN packet without data and Fast Open options".
        self.emit_syn(if is_answer { Flags::SYN | Flags::ACK } else { Flags::SYN }, None);
        self.arm_syn();
    }

    /// The retransmission timer of a SYN.
    pub(crate) fn arm_syn(&mut self) {
        self.tcb.timers.arm(Timer::Rto, self.now + self.rto());
    }

    /// The window is closed, or too small for silly-window avoidance: it is probed, or filled as it is (RFC 9293 §3.8.6.1,
    /// §3.8.6.2.1). A probe repeats an octet that the peer has, so that it answers (tcp_xmit_probe_skb).
    fn on_persist(&mut self, orphans: u32) {
        // What the user meant to go on with is pushed (tcp_write_wakeup).
        self.traffic.unpushed = 0;
        if !super::window::send::needs_probe(&self.sender()) {
            return;
        }
        self.overridden = true;
        let is_open = self.tcb.snd.wnd != 0;
        if is_open {
            return;
        }
        self.overridden = false;
        let limit = self.user_timeout();
        let silence =
            Duration::from_millis(clock_ms(self.now).wrapping_sub(self.tcb.last_ack_received).into());
        let (lives, most) = (self.lives(), self.retries(self.lives()));
        let is_hopeless = self.tcb.flags.has(Tcbits::ORPHAN) && !lives && self.tcb.rtt.backoff() >= most;
        if !is_hopeless && self.gives_way(orphans, true) {
            return;
        }
        if is_hopeless
            || limit.is_some_and(|limit| silence >= limit && self.tcb.probes > 0)
            || self.tcb.probes >= most
        {
            return self.give_up();
        }
        self.tcb.probes = self.tcb.probes.saturating_add(1);
        // The interval grows although the peer answers: the backoff of the timeout counts it.
        self.tcb.rtt.back_off();
        self.count(Counter::WindowProbes);
        let seq = crate::seq::Seq(self.tcb.snd.una.0.wrapping_sub(1));
        self.emit_bare(Why::Probe, seq);
        self.arm_persist();
    }

    pub(crate) fn arm_persist(&mut self) {
        let at = self.now + limits::persist(self.rto(), 0, &self.patience());
        self.tcb.timers.arm(Timer::Persist, at);
    }

    fn keepalive(&self) -> Keepalive {
        let values = &self.values;
        Keepalive {
            idle: values.keep_idle_s,
            interval: values.keep_interval_s,
            count: values.keep_count,
            sent: self.tcb.probes,
        }
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            idle: Duration::from_secs(self.host.tcp_keepalive_time.into()),
            interval: Duration::from_secs(self.host.tcp_keepalive_intvl.into()),
            probes: self.host.tcp_keepalive_probes as u8,
        }
    }

    /// The connection is established, and its user wants to know whether the peer lives (RFC 9293 §3.8.4).
    pub(crate) fn begin_keepalive(&mut self) {
        if self.values.options & Switch::KEEP_ALIVE != 0 {
            let at = self.keepalive().first(self.heard(), &self.defaults());
            self.tcb.timers.arm(Timer::Keepalive, at);
        }
    }

    fn on_keepalive(&mut self) {
        if self.values.options & Switch::KEEP_ALIVE == 0 {
            return;
        }
        let mut keepalive = self.keepalive();
        let busy = !self.traffic.send.is_empty();
        let limit = self.user_timeout();
        match keepalive.on_timeout(self.now, self.heard(), busy, limit, &self.defaults()) {
            Action::Wait(at) => self.tcb.timers.arm(Timer::Keepalive, at),
            Action::Probe(at) => {
                self.tcb.probes = keepalive.sent;
                self.count(Counter::KeepaliveProbes);
                let seq = crate::seq::Seq(self.tcb.snd.una.0.wrapping_sub(1));
                self.emit_bare(Why::Probe, seq);
                self.tcb.timers.arm(Timer::Keepalive, at);
            }
            Action::GiveUp => {
                // RFC 1122 §4.2.3.6 leaves it open; Linux tells a peer whose silence was asked about (tcp_keepalive_timer).
                self.emit_reset();
                self.give_up();
            }
        }
    }
}
