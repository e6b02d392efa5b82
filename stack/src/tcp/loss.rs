//! What an acknowledgment, or a timer, means for what is in flight: the rules of [`super::recovery`] and
//! [`super::congestion`] applied to the frames of the send queue, in the order in which they depend on each other.

use super::congestion::Acked;
use super::connection::{Connection, means};
use super::pacing;
use super::rate::Newest;
use super::recovery::frto::{self, Verdict};
use super::recovery::prr::Prr;
use super::recovery::rack::{Judgment, Segment as Sent, Surroundings};
use super::recovery::tlp::{self, Flight, Outcome};
use super::recovery::undo::{CaState, Prior};
use super::rtt::{Evidence, measured};
use super::segment::Segment;
use super::tcb::Flags;
use super::timers::Timer;
use super::timestamps;
use crate::device::Device;
use crate::frames::FrameRecord;
use crate::sendq::scoreboard::STEPS_MAX;
use crate::seq::Seq;
use crate::stats::Counter;
use crate::time::{Duration, Instant};
use crate::wire::tcp::options::Block;

/// The peer echoes marks of congestion.
const ECE: crate::wire::tcp::Flags = crate::wire::tcp::Flags::ECE;

/// How soon what a peer has reported and dropped again is sent anew, at the least (tcp_check_sack_reneging).
const RENEGED_MIN: Duration = Duration::from_millis(10);

/// What an acknowledgment brought.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    /// Segments acknowledged cumulatively, and not reported before.
    acked: u32,
    /// Segments reported by SACK for the first time.
    sacked: u32,
    /// When the newest of them was sent.
    newest: Option<Instant>,
    /// What was known then of deliveries.
    stamp: Option<Newest>,
    /// Whether one of them was sent twice.
    twice: bool,
    /// Whether one from before the recovery point was never sent again.
    originals: bool,
    /// SND.UNA advances.
    advances: bool,
    /// Our FIN is acknowledged.
    fin: bool,
    /// It repeats SND.UNA without a sign of life otherwise.
    is_duplicate: bool,
}

/// RACK's and the counts' view of one frame.
fn sent(record: &FrameRecord) -> Sent {
    let retransmitted = record.has(FrameRecord::EVER_RETRANSMITTED);
    Sent { sent_at: Instant(record.sent_at), end: record.end(), retransmitted }
}

impl<D: Device> Connection<'_, D> {
    /// An acceptable acknowledgment; whether our FIN is among what it acknowledges. `same_window` if it doesn't change SND.WND.
    pub(super) fn on_ack(&mut self, seg: &Segment, same_window: bool) -> bool {
        let (una, before) = (self.tcb.snd.una, self.board());
        let plain = seg.len() == 0 && same_window && seg.ack == una && before.packets_out != 0;
        let dsack = self.dsack(seg);
        let news = self.mark(seg, dsack, plain);
        if news.advances {
            self.probe_arrived();
        }
        let sample = self.measure(seg, &news);
        let delivered = news.acked + news.sacked + u32::from(news.is_duplicate);
        self.tcb.delivered = self.tcb.delivered.wrapping_add(delivered);
        if self.tcb.episode.ecn.is_on() && seg.is(ECE) {
            // Some of these were marked; which, the echo doesn't say (tcp_count_delivered).
            self.tcb.delivered_ce = self.tcb.delivered_ce.wrapping_add(delivered);
        }
        if delivered != 0 {
            self.sample_rate(news.stamp);
        }
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        self.traffic.rack.on_ack(dsack.is_some(), una, nxt);
        if let Some(block) = dsack {
            self.tcb.dsack_dups = self.tcb.dsack_dups.saturating_add(1);
            self.tcb.episode.on_dsack(1, block.right, una);
        }
        self.after_probe(seg, dsack, plain, &news);
        if dsack.is_some() && self.tcb.episode.dsack_undoes() {
            self.undo();
        }
        let lost = self.detect_lost(&news);
        self.traffic.only_new = 0;
        self.react(&news, lost, sample, seg.options.timestamps.map(|stamps| stamps.tsecr));
        if self.traffic.send.sent().frames == 0 {
            for timer in [Timer::Rto, Timer::Tlp, Timer::Reorder] {
                self.tcb.timers.disarm(timer);
            }
        } else if news.advances && self.has_reneged() {
            let soon = Duration(self.tcb.rtt.srtt().map_or(0, |srtt| srtt.0 / 2)).max(RENEGED_MIN);
            self.tcb.timers.disarm(Timer::Tlp);
            self.tcb.timers.arm(Timer::Rto, self.now + soon);
        } else if news.acked + news.sacked != 0
            && self.tcb.timers.at(Timer::Reorder).is_none_or(|at| at <= self.now)
        {
            // Progress of either kind puts the timer off, unless RACK has set its own.
            self.arm();
        }
        news.fin
    }

    /// The peer has reported what it is to get next, and doesn't acknowledge it: it has dropped it (RFC 2018 §8).
    fn has_reneged(&self) -> bool {
        let send = &self.traffic.send;
        let first = send.list().first().filter(|_| send.sacked().frames != 0);
        first
            .and_then(|first| self.frames.record(first))
            .is_some_and(|record| record.has(FrameRecord::SACKED))
    }

    /// The D-SACK block of an acknowledgment (RFC 2883 §4): the first one, if it lies below SEG.ACK or inside of the second.
    fn dsack(&self, seg: &Segment) -> Option<Block> {
        if !self.tcb.flags.has(Flags::SACK) {
            return None;
        }
        let (first, rest) = seg.options.sack.as_slice().split_first()?;
        let is_inside = |outer: &Block| outer.left.le(first.left) && first.right.le(outer.right);
        (first.left.lt(first.right) && (first.right.le(seg.ack) || rest.first().is_some_and(is_inside)))
            .then_some(*first)
    }

    /// Marks what the acknowledgment says in the send queue, and takes out what is acknowledged.
    fn mark(&mut self, seg: &Segment, dsack: Option<Block>, plain: bool) -> News {
        let (now, min_rtt, point) = (self.now, self.tcb.rtt.min_rtt(), self.tcb.episode.recovery_point());
        let mut news = News { advances: self.tcb.snd.una.lt(seg.ack), ..News::default() };
        let has_echo = self.tcb.flags.has(Flags::TIMESTAMPS);
        let echo = seg.options.timestamps.filter(|_| has_echo).map(|stamps| stamps.tsecr);
        let offset = self.tcb.ts_offset;
        let traffic = &mut *self.traffic;
        let (rack, fack) = (&mut traffic.rack, &mut traffic.fack);
        let mut learn = |record: &FrameRecord, news: &mut News| {
            let segment = sent(record);
            let precedes =
                echo.is_some_and(|echo| Seq(echo).lt(Seq(timestamps::clock(segment.sent_at, offset))));
            rack.update(now, &segment, min_rtt, precedes);
            *fack = rack.detect_reordering(&segment, *fack);
            news.stamp = Newest::newer(news.stamp, record);
            news.newest = news.newest.max(Some(segment.sent_at));
            news.twice |= segment.retransmitted;
            news.originals |= !segment.retransmitted && segment.end.le(point);
        };
        if self.tcb.flags.has(Flags::SACK) {
            let (mut steps, nxt, una) = (STEPS_MAX, self.tcb.snd.nxt, self.tcb.snd.una);
            for block in seg.options.sack.as_slice().iter().filter(|block| Some(**block) != dsack) {
                // Inside of what was sent, or it is nonsense (RFC 2018 §5).
                if una.lt(block.right) && block.left.lt(block.right) && block.right.le(nxt) {
                    let new = traffic
                        .send
                        .sack(&mut self.frames, *block, &mut steps, |record| learn(record, &mut news));
                    news.sacked += new;
                }
            }
        }
        if news.advances {
            let mut acked = 0;
            let done = traffic.send.acknowledge(&mut means!(self, send_charge), seg.ack, |record| {
                if !record.has(FrameRecord::SACKED) {
                    acked += 1;
                    learn(record, &mut news);
                }
            });
            (news.acked, news.fin) = (acked, done.fin);
            self.tcb.acked = self.tcb.acked.wrapping_add((seg.ack - self.tcb.snd.una).into());
            self.tcb.snd.una = seg.ack;
            self.urgent_acknowledged();
            self.tcb.retransmits = 0;
            self.traffic.stalled_since = 0;
        }
        self.count_duplicates(&mut news, plain);
        if self.traffic.rack.reordering_seen() && self.tcb.reord_seen == 0 {
            self.tcb.reord_seen = 1;
        }
        news
    }

    /// Without SACK, duplicates are counted as segments that were reported (RFC 6582).
    fn count_duplicates(&mut self, news: &mut News, plain: bool) {
        if self.tcb.flags.has(Flags::SACK) {
            return;
        }
        let mut board = self.board();
        if news.advances {
            let known = board.sacked_out;
            board.on_partial(news.acked);
            // Of what is acknowledged now each duplicate has told one: they have arrived before (tcp_remove_reno_sacks).
            news.acked = news.acked.saturating_sub(known).max(u32::from(news.acked != 0));
        } else if plain {
            board.on_duplicate();
            news.is_duplicate = true;
        }
        self.traffic.duplicates = board.sacked_out;
        if self.traffic.send.sent().frames == 0 {
            self.traffic.duplicates = 0;
        }
    }

    /// The rate at which what it tells of was delivered; who drops what it has reported tells of the same text twice.
    #[inline]
    pub(super) fn sample_rate(&mut self, newest: Option<Newest>) {
        let sample = self.traffic.delivery.on_delivered(self.now, self.tcb.delivered, newest);
        if let Some(sample) = sample.filter(|_| !self.has_reneged()) {
            self.tcb.rate.take(&sample, self.tcb.mss, self.tcb.rtt.min_rtt());
        }
    }

    /// The round-trip time that the acknowledgment measures.
    fn measure(&mut self, seg: &Segment, news: &News) -> Option<Duration> {
        let since = |tsecr: u32| (tsecr != 0).then(|| self.tsval().wrapping_sub(tsecr));
        let echo = self.tcb.flags.has(Flags::TIMESTAMPS).then_some(seg.options.timestamps).flatten();
        let evidence = Evidence {
            sent_at: news.newest.filter(|_| !news.twice),
            advances: news.advances && news.acked != 0,
            since_tsecr_ms: echo.and_then(|stamps| since(stamps.tsecr)),
        };
        let rtt = measured(self.now, &evidence)?;
        self.tcb.rtt.sample_min(self.now, rtt, news.acked == 1 && news.sacked == 0);
        self.tcb.rtt.sample(rtt, self.tcb.snd.una, self.tcb.snd.nxt, &self.bounds());
        Some(rtt)
    }

    /// What the acknowledgment says of a tail loss probe (RFC 8985 §7.4).
    fn after_probe(&mut self, seg: &Segment, dsack: Option<Block>, plain: bool, news: &News) {
        let end = self.traffic.rack.tlp_end_seq();
        let ack = tlp::Ack {
            ack: seg.ack,
            dsack_of_probe: dsack.is_some_and(|block| Some(block.right) == end),
            plain_duplicate: plain && seg.options.sack.as_slice().is_empty(),
        };
        if self.traffic.rack.on_tlp_ack(&ack) == Outcome::Repaired
            && self.tcb.episode.state() == CaState::Open
        {
            self.reduce(CaState::Cwr, news);
        }
    }

    /// RACK_detect_loss over what is in flight, and its timer; without SACK the third duplicate. How many are lost now.
    fn detect_lost(&mut self, news: &News) -> u32 {
        let board = self.board();
        if !self.tcb.flags.has(Flags::SACK) {
            let state = self.tcb.episode.state();
            let first = self.traffic.send.list().first().filter(|_| board.packets_out != 0);
            let is_lost = (news.is_duplicate || news.advances) && board.is_first_lost(state, news.advances);
            let is_new = first
                .filter(|_| is_lost)
                .is_some_and(|first| self.traffic.send.mark_lost(&mut self.frames, first));
            return u32::from(is_new);
        }
        let around = Surroundings {
            in_recovery: self.tcb.episode.in_recovery(),
            sacked_out: board.sacked_out,
            min_rtt: self.tcb.rtt.min_rtt(),
            srtt: self.tcb.rtt.srtt(),
        };
        let (now, rack) = (self.now, self.traffic.rack);
        let wnd = rack.reo_wnd(&around);
        let mut wait = None;
        let lost = self.traffic.send.detect_lost(&mut self.frames, |record| {
            match rack.judge(now, &sent(record), wnd) {
                Judgment::Lost => Some(true),
                Judgment::LostIn(length) => {
                    wait = wait.max(Some(length));
                    Some(false)
                }
                Judgment::TooEarly => None,
            }
        });
        if let Some(length) = wait {
            self.tcb.timers.arm(Timer::Reorder, now + length);
        }
        lost
    }

    fn prior(&self) -> Prior {
        Prior { cwnd: self.tcb.congestion.cwnd(), ssthresh: self.tcb.congestion.ssthresh() }
    }

    /// An episode of reduction begins.
    fn reduce(&mut self, to: CaState, news: &News) {
        let (board, prior) = (self.board(), self.prior());
        self.traffic.rack.forget_tlp();
        self.tcb.episode.begin(to, self.tcb.snd.una, self.tcb.snd.nxt, prior, board.retrans_out);
        self.tcb.congestion.on_congestion();
        self.tcb.episode.ecn.on_reduced();
        self.traffic.prr = Prr::new(board.recover_fs(news.acked, news.sacked));
        if to == CaState::Recovery {
            self.count(Counter::FastRecoveries);
        }
    }

    /// A router has reported congestion (RFC 3168 §6.1.2): once for each window of data.
    pub(super) fn on_congestion_echo(&mut self) {
        if self.tcb.episode.may_reduce(CaState::Cwr, self.tcb.snd.una, self.tcb.retransmits)
            && self.traffic.send.sent().frames != 0
        {
            self.reduce(CaState::Cwr, &News::default());
        }
    }

    /// The reduction was a mistake: nothing was lost (RFC 4015).
    fn undo(&mut self) {
        let Prior { cwnd, ssthresh } = self.tcb.episode.undo();
        self.tcb.congestion.undo(cwnd, ssthresh);
        self.traffic.send.unmark_lost(&mut self.frames);
        self.count(Counter::SpuriousRecoveries);
        self.tcb.episode.end();
    }

    /// What an acknowledgment changes in the congestion window and the state of recovery.
    fn react(&mut self, news: &News, lost: u32, rtt: Option<Duration>, tsecr: Option<u32>) {
        let (una, nxt) = (self.tcb.snd.una, self.tcb.snd.nxt);
        let tsecr = tsecr.filter(|_| self.tcb.flags.has(Flags::TIMESTAMPS));
        if self.tcb.episode.in_recovery() && news.advances && self.tcb.episode.may_undo(tsecr) {
            return self.undo();
        }
        if self.tcb.episode.state() == CaState::Loss {
            let ack = frto::Ack {
                una,
                nxt,
                advances: news.advances,
                originals: news.originals,
                reports: news.sacked != 0 || news.is_duplicate,
                can_send_new: self.traffic.send.next_unsent().is_some() && nxt.lt(una + self.tcb.snd.wnd),
            };
            match self.tcb.episode.frto(&ack) {
                Verdict::Spurious => return self.undo(),
                Verdict::Recovered => {
                    self.tcb.episode.end();
                    self.traffic.rack.on_recovered();
                }
                Verdict::SendNew => self.traffic.only_new = 1,
                Verdict::Retransmit => {}
            }
        } else if self.tcb.episode.state() >= CaState::Cwr && self.tcb.episode.is_recovered(una) {
            self.tcb.episode.end();
            self.tcb.congestion.on_recovered();
            self.traffic.rack.on_recovered();
        }
        if self.board().lost_out > 0 && self.tcb.episode.state() < CaState::Cwr && self.probe_is_lost() {
            return;
        }
        if self.board().lost_out > 0 && self.tcb.episode.state() < CaState::Recovery {
            self.reduce(CaState::Recovery, news);
        }
        self.move_window(news, lost, rtt);
    }

    fn move_window(&mut self, news: &News, lost: u32, rtt: Option<Duration>) {
        let board = self.board();
        if matches!(self.tcb.episode.state(), CaState::Cwr | CaState::Recovery) {
            let (safe, ssthresh) = (news.advances && lost == 0, self.tcb.congestion.ssthresh());
            let delivered = news.acked + news.sacked + u32::from(news.is_duplicate);
            let cwnd = self.traffic.prr.on_ack(delivered, board.pipe(), ssthresh, safe);
            return self.tcb.congestion.set_cwnd(cwnd);
        }
        // RFC 5681 §3.2: "the TCP sender MUST NOT change cwnd" for what only reports that something is missing
        // (tcp_may_raise_cwnd).
        if news.advances {
            self.grow_window(news.acked + news.sacked, rtt);
        }
    }

    /// So many segments arrived: congestion control's business, unless the window is being reduced.
    pub(super) fn grow_window(&mut self, segments: u32, rtt: Option<Duration>) {
        let congestion = &self.tcb.congestion;
        let pacing_rate = if congestion.watches_rate() {
            pacing::rate(&pacing::Path {
                mss: self.tcb.mss,
                cwnd: congestion.cwnd(),
                packets_out: self.traffic.send.sent().frames,
                ssthresh: congestion.ssthresh(),
                srtt: self.tcb.rtt.srtt(),
                max: u64::MAX,
            })
        } else {
            0
        };
        self.tcb.congestion.on_ack(&Acked {
            now: self.now,
            segments,
            rtt,
            min_rtt: self.tcb.rtt.min_rtt(),
            una: self.tcb.snd.una,
            nxt: self.tcb.snd.nxt,
            pacing_rate,
            is_paced: self.values.max_pacing_rate != 0,
        });
    }

    /// Arms the retransmission timer, or a probe before it (RFC 8985 §7.2).
    pub(super) fn arm(&mut self) {
        let board = self.board();
        if board.packets_out == 0 {
            return;
        }
        let flight = Flight {
            sack: self.tcb.flags.has(Flags::SACK),
            open: self.tcb.episode.state() == CaState::Open,
            packets_out: board.packets_out,
            sacked_out: board.sacked_out,
        };
        let rto_at = self.now + self.rto();
        if self.traffic.rack.may_probe(&flight) && self.tcb.state().is_synchronized() {
            let at = tlp::pto(self.now, self.tcb.rtt.srtt(), board.packets_out, rto_at);
            self.tcb.timers.arm(Timer::Tlp, at);
        } else {
            self.tcb.timers.arm(Timer::Rto, rto_at);
        }
    }

    /// The same, if none of the timers for what is in flight runs.
    pub(super) fn arm_if_idle(&mut self) {
        let runs = |timer| self.tcb.timers.at(timer).is_some();
        if ![Timer::Rto, Timer::Tlp, Timer::Reorder].into_iter().any(runs) {
            self.arm();
        }
    }

    /// RACK's reordering window has passed (RFC 8985 §6.3).
    pub(super) fn on_reorder_timer(&mut self) {
        if self.detect_lost(&News::default()) > 0 {
            self.react(&News::default(), 1, None, None);
        }
    }

    /// Nothing came back for two round trips: new text, or the last segment again, makes something come
    /// (RFC 8985 §7.3).
    pub(super) fn on_tlp_timer(&mut self) {
        self.count(Counter::TailLossProbes);
        let new = self.traffic.send.next_unsent();
        let plan = new.and_then(|frame| self.text_of(frame, super::output::Why::TailProbe));
        let is_new = plan.is_some_and(|plan| self.emit(&plan));
        if !is_new {
            let last = match self.traffic.send.next_unsent() {
                Some(unsent) => self.frames.previous(unsent),
                None => self.traffic.send.list().last(),
            };
            let again = last.and_then(|frame| {
                let seq = self.frames.record(frame)?.seq();
                Some(super::output::Plan {
                    why: super::output::Why::TailProbe,
                    seq,
                    text: super::output::Text::Again(frame),
                })
            });
            if !again.is_some_and(|plan| self.emit(&plan)) {
                return;
            }
        }
        self.traffic.rack.on_tlp_sent(self.tcb.snd.nxt, !is_new);
    }

    /// The path takes less than was sent: what is longer than a segment is lost, and goes again in shorter ones. The
    /// congestion window stays, for it counts segments and these carry less (tcp_simple_retransmit).
    pub(crate) fn resegment(&mut self) {
        let (mss, mut is_lost, mut at) = (self.shape().mss, false, self.traffic.send.list().first());
        for _ in 0..self.traffic.send.sent().frames {
            let Some(frame) = at else { break };
            at = self.frames.next(frame);
            if self.frames.record(frame).is_some_and(|record| record.len > mss) {
                is_lost |= self.traffic.send.mark_lost(&mut self.frames, frame);
            }
        }
        if is_lost && self.tcb.episode.state() != CaState::Loss {
            self.tcb.episode.repair(self.tcb.snd.nxt);
        }
    }

    /// A router says that there was no way for what was sent again last: the timer was backed off for another cause than
    /// congestion (RFC 6069 §3; tcp_ld_RTO_revert).
    pub(crate) fn revert_backoff(&mut self, seq: Seq) {
        let first = self.traffic.send.list().first().and_then(|first| self.frames.record(first));
        let Some(sent_at) = first.map(|record| Instant(record.sent_at)) else { return };
        if seq != self.tcb.snd.una || self.tcb.retransmits == 0 || self.tcb.rtt.backoff() == 0 {
            return;
        }
        self.tcb.rtt.revert();
        let at = (sent_at + self.rto()).max(self.now);
        self.tcb.timers.arm(Timer::Rto, at);
    }

    /// The retransmission timer has expired with text in flight (RFC 6298 §5.4–5.6, RFC 8985 §6.4).
    pub(super) fn on_rto(&mut self) {
        self.count(Counter::Timeouts);
        if self.has_reneged() {
            self.count(Counter::SackReneged);
        }
        self.traffic.only_new = 0;
        let (una, nxt, prior, board) = (self.tcb.snd.una, self.tcb.snd.nxt, self.prior(), self.board());
        let retransmits = self.tcb.retransmits;
        let eligible = !self.tcb.episode.in_recovery() || retransmits > 0;
        let first = self.tcb.episode.may_reduce(CaState::Loss, una, retransmits);
        if first {
            self.tcb.episode.begin(CaState::Loss, una, nxt, prior, board.retrans_out);
            self.tcb.episode.ecn.on_reduced();
        } else {
            self.tcb.episode.continue_as(CaState::Loss, nxt);
        }
        self.tcb.episode.begin_frto(eligible && self.tcb.flags.has(Flags::SACK));
        self.traffic.rack.forget_tlp();
        self.traffic.duplicates = 0;
        self.tcb.retransmits = retransmits.saturating_add(1);
        self.traffic.send.mark_all_lost(&mut self.frames, |_| true);
        self.tcb.congestion.on_timeout(self.board().pipe(), first);
        self.tcb.rtt.back_off();
    }
}
