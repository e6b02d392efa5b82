//! A connection's search for what its path takes (RFC 4821, RFC 8899; Linux's tcp_mtu_probe and tcp_mtu_probing): the rules are
//! those of [`crate::ip::path_mtu::probe`], here they meet the send queue.
//!
//! A probe is made of text that waits to be sent: frames of the usual size become one larger frame. It lives in the
//! [`Traffic`](super::tcb::Traffic) record; a connection that has lost that, and whose segments are smaller than its path is said to take,
//! begins anew where it was.

use super::connection::{Connection, MSS_MIN, advertised_mss, means, options_len};
use super::output::{Plan, Text, Why};
use super::recovery::DUP_THRESH;
use super::recovery::undo::CaState;
use crate::device::{Device, FrameIndex};
use crate::ip::path_mtu::V6_MIN;
use crate::ip::path_mtu::probe::{Headers, Mode, Next, Rules, Search, Sender};
use crate::sendq::Shape;
use crate::stats::Counter;

impl<D: Device> Connection<'_, D> {
    /// Eff.snd.MSS anew, after one of its parts has changed: RFC 9293 §3.7.1 (MUST-16), min(SendMSS + 20, MMS_S) −
    /// TCPhdrsize − IPoptionsize. A search keeps it at what is known to pass (tcp_sync_mss).
    pub(crate) fn set_mss(&mut self) {
        let (mss, headers, clamp) = (self.mss_of_path(), self.headers(), self.mss_clamp());
        let most = if self.traffic.search.is_on() {
            self.traffic.search.mss(self.tcb.path_mtu, &headers, clamp)
        } else if self.host.tcp_mtu_probing > 1 {
            headers.mss(headers.base(&Rules::of(self.host)), clamp)
        } else {
            mss
        };
        self.tcb.mss = mss.min(most);
    }

    /// The same, if whatever routers have not complained of passes.
    fn mss_of_path(&self) -> u16 {
        let by_path = advertised_mss(self.tcb.path_mtu.into(), &self.tcb.remote);
        by_path.min(self.mss_clamp()).max(MSS_MIN) - options_len(self.tcb.flags)
    }

    /// What the peer's option and ours allow.
    fn mss_clamp(&self) -> u16 {
        let mss = self.tcb.peer_mss;
        if self.values.mss == 0 { mss } else { mss.min(self.values.mss) }
    }

    fn headers(&self) -> Headers {
        let (fixed, least) = if self.tcb.remote.is_v4() { (40, 0) } else { (60, V6_MIN) };
        Headers { fixed, options: options_len(self.tcb.flags), least }
    }

    /// R1 (RFC 9293 §3.8.3) is over: routers may drop what is too large without a word (RFC 2923 §2.1; tcp_mtu_probing).
    pub(super) fn suspect_black_hole(&mut self) {
        let (rules, headers, clamp) = (Rules::of(self.host), self.headers(), self.mss_clamp());
        self.traffic.search.black_hole(&headers, clamp, &rules, self.now);
        let before = self.tcb.mss;
        self.set_mss();
        if self.tcb.mss < before {
            self.count(Counter::PathMtuLowered);
        }
    }

    /// Sends a probe, if it is the time for one; or lets text wait for it.
    #[inline]
    pub(super) fn search_path(&mut self) {
        if self.host.tcp_mtu_probing != 0 || self.traffic.search.is_on() {
            self.search();
        }
    }

    fn search(&mut self) {
        let rules = Rules::of(self.host);
        let is_possible = self.traffic.tag.is_used()
            && self.tcb.state().may_retransmit()
            && !self.hop.may_fragment
            && self.tcb.pacing.next_send(self.now).is_none();
        let Some(first) = self.traffic.send.next_unsent().filter(|_| is_possible) else {
            return self.traffic.search.stop_waiting();
        };
        if !self.traffic.search.is_on() && !self.begin_search(&rules) {
            return;
        }
        let (sender, headers, seq) = (self.probing_sender(), self.headers(), self.tcb.snd.nxt);
        if let Next::Send(text) = self.traffic.search.next(&sender, &headers, &rules, self.now)
            && self.gather(first, text)
            && self.emit(&Plan { why: Why::PathProbe, seq, text: Text::New(first, text) })
        {
            self.count(Counter::PathMtuProbed);
            self.traffic.search.sent(text, seq, &headers);
            // It is as much as two segments (tcp_mtu_probe).
            self.tcb.congestion.set_cwnd(sender.cwnd - 1);
        }
    }

    /// Whether there is something to search for: then it begins at what is sent now.
    fn begin_search(&mut self, rules: &Rules) -> bool {
        let is_wanted = rules.mode == Mode::Always || self.tcb.mss < self.mss_of_path();
        if is_wanted {
            let headers = self.headers();
            let high = self.mss_clamp().saturating_add(headers.fixed).min(self.tcb.path_mtu);
            self.traffic.search = Search::new(headers.mtu(self.tcb.mss), high, self.now);
        }
        is_wanted
    }

    fn probing_sender(&self) -> Sender {
        let (board, tcb) = (self.board(), &*self.tcb);
        let reassembly = &self.traffic.reassembly;
        let in_flight = tcb.snd.nxt - tcb.snd.una;
        Sender {
            is_undisturbed: tcb.episode.state() == CaState::Open
                && reassembly.is_empty()
                && !reassembly.has_duplicate(),
            cwnd: tcb.congestion.cwnd(),
            pipe: board.pipe(),
            reordering: DUP_THRESH,
            mss: tcb.mss,
            mss_clamp: self.mss_clamp().min(self.mss_of_frame()),
            unsent: self.unsent(),
            wnd: tcb.snd.wnd,
            wnd_left: tcb.snd.wnd.saturating_sub(in_flight),
        }
    }

    /// The MSS, options with it, of a segment that fills a frame.
    fn mss_of_frame(&self) -> u16 {
        let capabilities = self.capabilities();
        let text = capabilities.frame_size.saturating_sub(self.shape().headroom);
        text.saturating_add(options_len(self.tcb.flags))
    }

    /// Puts so much text into the first frame that was never sent, out of those behind it. False if it could not be done; then the
    /// frame may be longer than a segment, and is cut again.
    fn gather(&mut self, first: FrameIndex, text: u16) -> bool {
        let shape = Shape { mss: text, ..self.shape() };
        // Each turn takes a frame, or the part of one that is missing.
        for _ in 0..self.frames.len() {
            let Some(missing) = self.frames.record(first).and_then(|record| text.checked_sub(record.len))
            else {
                return false;
            };
            if missing == 0 {
                return true;
            }
            let next = self.frames.next(first);
            let Some((next, len)) = next.and_then(|next| Some((next, self.frames.record(next)?.len))) else {
                return false;
            };
            let queue = &mut self.traffic.send;
            let mut means = means!(self, send_charge);
            let is_cut = len <= missing || queue.split(&mut means, shape, next, missing).is_some();
            if !is_cut || !queue.collapse(&mut means, shape, first) {
                return false;
            }
        }
        false
    }

    /// SND.UNA has advanced: the probe may have arrived (tcp_mtup_probe_success).
    pub(super) fn probe_arrived(&mut self) {
        let (cwnd, mss, headers) = (self.tcb.congestion.cwnd(), self.tcb.mss, self.headers());
        if let Some(grown) = self.traffic.search.acknowledged(self.tcb.snd.una, cwnd, mss, &headers) {
            self.tcb.congestion.set_cwnd(grown.cwnd);
            self.set_mss();
            self.count(Counter::PathMtuRaised);
        }
    }

    /// Something is lost before recovery has begun. Whether it is the probe: its text goes again in segments of the usual size at
    /// once, and congestion control has nothing to do with it (tcp_mtup_probe_failed, tcp_simple_retransmit).
    pub(super) fn probe_is_lost(&mut self) -> bool {
        let is_lost = self.traffic.search.lost(self.tcb.snd.una);
        if is_lost {
            let cwnd = self.tcb.congestion.cwnd();
            self.tcb.congestion.set_cwnd(cwnd.saturating_add(1));
            self.tcb.episode.repair(self.tcb.snd.nxt);
        }
        is_lost
    }
}
