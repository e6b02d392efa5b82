//! The rules together: a sender of numbered segments over a path that loses, delays and reorders them, in virtual
//! time. There are no bytes and no frames; a sequence number is a segment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::congestion::{Acked, Algorithm, Congestion, SSTHRESH_INITIAL, Sent, initial_window};
use super::recovery::Recovery;
use super::recovery::frto::{self, Verdict};
use super::recovery::prr::Prr;
use super::recovery::rack::{Judgment, Segment, Surroundings};
use super::recovery::scoreboard::Scoreboard;
use super::recovery::tlp::{self, Flight, Outcome};
use super::recovery::undo::{CaState, Prior};
use super::rtt::{Bounds, Evidence, Rtt, measured};
use super::timers::{Timer, Timers};
use crate::seq::Seq;
use crate::time::{Duration, Instant};

const MS: u64 = 1_000_000;
const BOUNDS: Bounds = Bounds { min: Duration::from_millis(200), max: Duration::from_secs(120) };

/// A segment of the send queue.
#[derive(Clone, Copy, Default)]
struct Queued {
    sent_at: Instant,
    sacked: bool,
    lost: bool,
    /// A retransmission of it is in flight.
    resent: bool,
    ever_resent: bool,
}

/// What reaches the sender: everything below `una` and what is set in `has` has arrived; `dsack` came twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Ack {
    una: usize,
    has: Vec<bool>,
    dsack: Option<usize>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    Segment(usize),
    Ack(Ack),
}

/// A transfer, its path, and what happened.
struct World {
    now: u64,
    /// Nanoseconds to the receiver at a moment, for the transmission of this number, of this segment; `None` loses
    /// it.
    delay: Box<dyn FnMut(u64, usize, usize) -> Option<u64>>,
    /// Nanoseconds back.
    back: u64,
    transmissions: usize,
    arrivals: BinaryHeap<Reverse<(u64, usize, Arrival)>>,
    has: Vec<bool>,
    queue: Vec<Queued>,
    una: usize,
    nxt: usize,
    rtt: Rtt,
    congestion: Congestion,
    recovery: Recovery,
    board: Scoreboard,
    timers: Timers,
    timeouts: u32,
    retransmits: u8,
    probes: u32,
    resent: u32,
    /// F-RTO waits for what comes back for new data.
    only_new: bool,
}

impl World {
    /// So many segments over a path.
    fn new(count: usize, back: u64, delay: impl FnMut(u64, usize, usize) -> Option<u64> + 'static) -> Self {
        Self {
            now: 1 << 32,
            delay: Box::new(delay),
            back,
            transmissions: 0,
            arrivals: BinaryHeap::new(),
            has: vec![false; count],
            queue: vec![Queued::default(); count],
            una: 0,
            nxt: 0,
            rtt: Rtt::default(),
            congestion: Congestion::new(Algorithm::Cubic, initial_window(1460, false)),
            recovery: Recovery::default(),
            board: Scoreboard::default(),
            timers: Timers::default(),
            timeouts: 0,
            retransmits: 0,
            probes: 0,
            resent: 0,
            only_new: false,
        }
    }

    fn instant(&self) -> Instant {
        Instant(self.now)
    }

    fn seq(index: usize) -> Seq {
        Seq(index as u32)
    }

    fn segment(&self, index: usize) -> Segment {
        let queued = self.queue[index];
        Segment { sent_at: queued.sent_at, end: Self::seq(index + 1), retransmitted: queued.ever_resent }
    }

    /// Runs until everything is acknowledged; the time that it took.
    fn run(&mut self) -> Duration {
        let start = self.now;
        self.output();
        for _ in 0..1_000_000 {
            if self.una == self.has.len() {
                return Duration(self.now - start);
            }
            let arrival = self.arrivals.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            let timer = self.timers.next().map_or(u64::MAX, |at| at.0);
            assert!(arrival.min(timer) != u64::MAX, "nothing will ever happen");
            self.now = self.now.max(arrival.min(timer));
            if arrival <= timer {
                match self.arrivals.pop().expect("an arrival").0.2 {
                    Arrival::Segment(index) => self.receive(index),
                    Arrival::Ack(ack) => self.on_ack(&ack),
                }
            } else if let Some(timer) = self.timers.expired(self.instant()) {
                self.on_timer(timer);
            }
            self.check();
        }
        panic!("it does not end: {} of {} are acknowledged", self.una, self.has.len());
    }

    /// The counts are those of the queue.
    fn check(&self) {
        let flight = &self.queue[self.una..self.nxt];
        let count = |is: fn(&Queued) -> bool| flight.iter().filter(|queued| is(queued)).count() as u32;
        assert_eq!(self.board.check(), Ok(()));
        assert_eq!(self.board.packets_out as usize, flight.len());
        assert_eq!(self.board.sacked_out, count(|queued| queued.sacked));
        assert_eq!(self.board.lost_out, count(|queued| queued.lost));
        assert_eq!(self.board.retrans_out, count(|queued| queued.resent));
        assert!(
            self.una == self.nxt || self.timers.next().is_some(),
            "something is in flight and no timer runs"
        );
    }

    // ---- The receiver ----

    fn receive(&mut self, index: usize) {
        let dsack = self.has[index].then_some(index);
        self.has[index] = true;
        let una = self.has.iter().position(|has| !has).unwrap_or(self.has.len());
        let ack = Ack { una, has: self.has.clone(), dsack };
        self.arrivals.push(Reverse((self.now + self.back, self.transmissions, Arrival::Ack(ack))));
    }

    // ---- The sender ----

    fn transmit(&mut self, index: usize) {
        self.queue[index].sent_at = self.instant();
        self.transmissions += 1;
        if let Some(delay) = (self.delay)(self.now, self.transmissions, index) {
            self.arrivals.push(Reverse((self.now + delay, self.transmissions, Arrival::Segment(index))));
        }
        if self.recovery.episode.state() >= CaState::Cwr {
            self.recovery.prr.on_sent(1);
        }
        // Segments leave one after the other.
        self.now += 1_000;
    }

    fn retransmit(&mut self, index: usize) {
        self.resent += 1;
        let queued = &mut self.queue[index];
        if !queued.resent {
            self.board.retrans_out += 1;
        }
        (queued.resent, queued.ever_resent) = (true, true);
        self.recovery.episode.on_retransmit(1, (self.now / MS) as u32);
        self.transmit(index);
    }

    fn transmit_new(&mut self) -> bool {
        let is_more = self.nxt < self.queue.len();
        if is_more {
            self.board.packets_out += 1;
            self.nxt += 1;
            self.transmit(self.nxt - 1);
        }
        is_more
    }

    fn output(&mut self) {
        while self.board.pipe() < self.congestion.cwnd() {
            let lost =
                (self.una..self.nxt).find(|index| self.queue[*index].lost && !self.queue[*index].resent);
            match lost {
                Some(index) if !self.only_new => self.retransmit(index),
                _ if self.transmit_new() => {}
                _ => break,
            }
        }
        let sent = Sent {
            una: Self::seq(self.una),
            nxt: Self::seq(self.nxt),
            packets_out: self.board.packets_out,
            limited: self.nxt < self.queue.len(),
            rto: self.rtt.rto(&BOUNDS),
            initial_window: 10,
        };
        self.congestion.on_sent(self.instant(), &sent);
        if self.timers.next().is_none() && self.una != self.nxt {
            self.arm();
        }
    }

    /// The retransmission timer, or a probe before it.
    fn arm(&mut self) {
        if self.una == self.nxt {
            return self.timers.disarm_all();
        }
        let (now, board) = (self.instant(), &self.board);
        let flight = Flight {
            sack: true,
            open: self.recovery.episode.state() == CaState::Open,
            packets_out: board.packets_out,
            sacked_out: board.sacked_out,
        };
        let rto_at = now + self.rtt.rto(&BOUNDS);
        if self.recovery.rack.may_probe(&flight) {
            self.timers.arm(Timer::Tlp, tlp::pto(now, self.rtt.srtt(), board.packets_out, rto_at));
        } else {
            self.timers.arm(Timer::Rto, rto_at);
        }
    }

    /// Marks what RACK finds; how many, and arms the reordering timer.
    fn detect_loss(&mut self) -> u32 {
        let around = Surroundings {
            in_recovery: self.recovery.episode.in_recovery(),
            sacked_out: self.board.sacked_out,
            min_rtt: self.rtt.min_rtt(),
            srtt: self.rtt.srtt(),
        };
        let wnd = self.recovery.rack.reo_wnd(&around);
        let (mut lost, mut wait) = (0, None);
        for index in self.una..self.nxt {
            let queued = self.queue[index];
            if queued.sacked || queued.lost && !queued.resent {
                continue;
            }
            match self.recovery.rack.judge(self.instant(), &self.segment(index), wnd) {
                Judgment::Lost => {
                    lost += 1;
                    self.board.lost_out += u32::from(!queued.lost);
                    self.board.retrans_out -= u32::from(queued.resent);
                    (self.queue[index].lost, self.queue[index].resent) = (true, false);
                }
                Judgment::LostIn(length) => wait = wait.max(Some(length)),
                Judgment::TooEarly => {}
            }
        }
        if let Some(length) = wait {
            self.timers.arm(Timer::Reorder, self.instant() + length);
        }
        lost
    }

    fn prior(&self) -> Prior {
        Prior { cwnd: self.congestion.cwnd(), ssthresh: self.congestion.ssthresh() }
    }

    fn reduce(&mut self, to: CaState, newly_acked: u32, newly_sacked: u32) {
        let (una, nxt, prior) = (Self::seq(self.una), Self::seq(self.nxt), self.prior());
        self.recovery.rack.forget_tlp();
        self.recovery.episode.begin(to, una, nxt, prior, self.board.retrans_out);
        self.congestion.on_congestion();
        self.recovery.prr = Prr::new(self.board.recover_fs(newly_acked, newly_sacked));
    }

    fn undo(&mut self) {
        let Prior { cwnd, ssthresh } = self.recovery.episode.undo();
        self.congestion.undo(cwnd, ssthresh);
        for index in self.una..self.nxt {
            self.board.lost_out -= u32::from(self.queue[index].lost);
            self.queue[index].lost = false;
        }
        self.recovery.episode.end();
    }

    fn on_ack(&mut self, ack: &Ack) {
        let (now, advances) = (self.instant(), ack.una > self.una);
        let (mut acked, mut sacked, mut newest, mut originals, mut twice) = (0, 0, None, false, false);
        let min_rtt = self.rtt.min_rtt();
        for index in self.una..self.nxt.max(ack.una) {
            let (queued, cumulative) = (self.queue[index], index < ack.una);
            if !cumulative && (!ack.has[index] || queued.sacked) {
                continue;
            }
            self.board.packets_out -= u32::from(cumulative);
            self.board.sacked_out -= u32::from(cumulative && queued.sacked);
            if !queued.sacked {
                let segment = self.segment(index);
                self.recovery.rack.update(now, &segment, min_rtt, false);
                self.board.fack = self.recovery.rack.detect_reordering(&segment, self.board.fack);
                self.board.lost_out -= u32::from(queued.lost);
                self.board.retrans_out -= u32::from(queued.resent);
                (acked, sacked) = (acked + u32::from(cumulative), sacked + u32::from(!cumulative));
                newest = newest.max(Some(queued.sent_at));
                twice |= queued.ever_resent;
                let before = Self::seq(index + 1).le(self.recovery.episode.recovery_point());
                originals |= !queued.ever_resent && before;
                self.queue[index] = Queued { sacked: !cumulative, lost: false, resent: false, ..queued };
                self.board.sacked_out += u32::from(!cumulative);
            }
        }
        self.una = self.una.max(ack.una);
        let evidence = Evidence { sent_at: newest.filter(|_| !twice), advances, since_tsecr_ms: None };
        let sample = measured(now, &evidence);
        if let Some(rtt) = sample {
            self.rtt.sample_min(now, rtt, false);
            self.rtt.sample(rtt, Self::seq(self.una), Self::seq(self.nxt), &BOUNDS);
        }
        if advances {
            self.retransmits = 0;
        }
        self.recovery.rack.on_ack(ack.dsack.is_some(), Self::seq(self.una), Self::seq(self.nxt));
        if let Some(index) = ack.dsack {
            self.recovery.episode.on_dsack(1, Self::seq(index + 1), Self::seq(self.una));
        }
        let tlp_ack = tlp::Ack {
            ack: Self::seq(ack.una),
            dsack_of_probe: ack
                .dsack
                .is_some_and(|index| Some(Self::seq(index + 1)) == self.recovery.rack.tlp_end_seq()),
            plain_duplicate: false,
        };
        if self.recovery.rack.on_tlp_ack(&tlp_ack) == Outcome::Repaired {
            self.reduce(CaState::Cwr, acked, sacked);
        }
        if ack.dsack.is_some() && self.recovery.episode.dsack_undoes() {
            self.undo();
        }
        let lost = self.detect_loss();
        self.only_new = false;
        self.react(acked, sacked, lost, advances, originals, sample);
        // Progress of either kind puts the timer off, unless RACK has set its own.
        if acked + sacked != 0 && self.timers.at(Timer::Reorder).is_none_or(|at| at <= now) {
            self.arm();
        }
        self.output();
    }

    fn react(
        &mut self,
        acked: u32,
        sacked: u32,
        lost: u32,
        advances: bool,
        originals: bool,
        rtt: Option<Duration>,
    ) {
        let (una, nxt) = (Self::seq(self.una), Self::seq(self.nxt));
        let episode = &mut self.recovery.episode;
        if episode.in_recovery() && episode.may_undo(None) {
            return self.undo();
        }
        if episode.state() == CaState::Loss {
            let ack = frto::Ack {
                una,
                nxt,
                advances,
                originals,
                reports: sacked != 0,
                can_send_new: self.nxt < self.queue.len(),
            };
            match episode.frto(&ack) {
                Verdict::Spurious => return self.undo(),
                Verdict::Recovered => {
                    episode.end();
                    self.recovery.rack.on_recovered();
                }
                Verdict::SendNew => self.only_new = true,
                Verdict::Retransmit => {}
            }
        } else if episode.state() >= CaState::Cwr && episode.is_recovered(una) {
            episode.end();
            self.congestion.on_recovered();
            self.recovery.rack.on_recovered();
        }
        let state = self.recovery.episode.state();
        if self.board.lost_out > 0 && state < CaState::Recovery {
            self.reduce(CaState::Recovery, acked, sacked);
        }
        if matches!(self.recovery.episode.state(), CaState::Cwr | CaState::Recovery) {
            let safe = advances && lost == 0;
            let ssthresh = self.congestion.ssthresh();
            let cwnd = self.recovery.prr.on_ack(acked + sacked, self.board.pipe(), ssthresh, safe);
            self.congestion.set_cwnd(cwnd);
        } else {
            self.congestion.on_ack(&Acked {
                now: self.instant(),
                segments: acked + sacked,
                rtt,
                min_rtt: self.rtt.min_rtt(),
                una,
                nxt,
                pacing_rate: 0,
                is_paced: false,
            });
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Reorder => {
                if self.detect_loss() > 0 {
                    self.react(0, 0, 1, false, false, None);
                }
                self.output();
            }
            Timer::Tlp => {
                self.probes += 1;
                let is_new = self.transmit_new();
                if !is_new {
                    self.retransmit(self.nxt - 1);
                }
                self.recovery.rack.on_tlp_sent(Self::seq(self.nxt), !is_new);
            }
            _ => self.on_rto(),
        }
        if self.timers.next().is_none() {
            self.arm();
        }
    }

    fn on_rto(&mut self) {
        self.timeouts += 1;
        self.only_new = false;
        let (una, nxt, prior) = (Self::seq(self.una), Self::seq(self.nxt), self.prior());
        let episode = &mut self.recovery.episode;
        let eligible = !episode.in_recovery() || self.retransmits > 0;
        let first = episode.may_reduce(CaState::Loss, una, self.retransmits);
        if first {
            episode.begin(CaState::Loss, una, nxt, prior, self.board.retrans_out);
        } else {
            episode.continue_as(CaState::Loss, nxt);
        }
        episode.begin_frto(eligible);
        self.recovery.rack.forget_tlp();
        self.retransmits = self.retransmits.saturating_add(1);
        for queued in &mut self.queue[self.una..self.nxt] {
            if !queued.sacked {
                self.board.lost_out += u32::from(!queued.lost);
                self.board.retrans_out -= u32::from(queued.resent);
                (queued.lost, queued.resent) = (true, false);
            }
        }
        self.congestion.on_timeout(self.board.pipe(), first);
        self.rtt.back_off();
        self.output();
    }
}

/// A round trip of 20 ms that loses the transmissions of these numbers.
fn losing(count: usize, lost: &'static [usize]) -> World {
    World::new(count, 10 * MS, move |_, number, _| (!lost.contains(&number)).then_some(10 * MS))
}

#[test]
fn without_loss_nothing_is_sent_twice_and_the_window_doubles_each_round() {
    let mut world = losing(620, &[]);
    let took = world.run();
    assert_eq!((world.timeouts, world.resent, world.probes), (0, 0, 0));
    // 10 + 20 + … + 320 is 630.
    assert!(took.as_millis() < 6 * 20 + 10, "{took:?}");
}

#[test]
fn a_loss_in_the_middle_is_repaired_without_a_timeout_and_costs_three_tenths() {
    let mut world = losing(600, &[100]);
    world.run();
    assert_eq!((world.timeouts, world.resent), (0, 1));
    assert!(world.congestion.ssthresh() < 200, "{}", world.congestion.ssthresh());
}

#[test]
fn a_lost_retransmission_is_sent_again_without_a_timeout() {
    for losses in 1..=4 {
        let mut left = losses;
        let mut world = World::new(1500, 10 * MS, move |_, _, index| {
            let is_lost = index == 59 && left > 0;
            left -= u32::from(is_lost);
            (!is_lost).then_some(10 * MS)
        });
        world.run();
        assert_eq!((world.timeouts, world.resent), (0, losses), "RFC 8985 §1");
    }
}

#[test]
fn a_lost_tail_is_found_by_a_probe_and_not_by_a_timeout() {
    let mut world = losing(60, &[60]);
    let took = world.run();
    assert_eq!((world.timeouts, world.probes), (0, 1));
    assert!(took.as_millis() < 400, "{took:?}");
    let mut world = losing(60, &[58, 59, 60]);
    world.run();
    assert_eq!((world.timeouts, world.probes), (0, 1), "the probe's report is behind two holes");
}

#[test]
fn a_path_that_stalls_gives_the_window_back() {
    // From 60 ms on for a second everything waits, and then arrives: nothing is lost.
    let stall = 1u64 << 32;
    let mut world = World::new(1500, 10 * MS, move |now, _, _| {
        let (from, to) = (stall + 65 * MS, stall + 1065 * MS);
        Some(if (from..to).contains(&now) { to - now + 10 * MS } else { 10 * MS })
    });
    world.run();
    assert!(world.timeouts >= 1, "the timeout is 220 ms");
    assert!(world.congestion.cwnd() >= 80, "{} segments", world.congestion.cwnd());
    assert!(world.resent < 20, "{} were sent again", world.resent);
}

#[test]
fn one_segment_that_comes_late_costs_nothing_in_the_end() {
    let late = |_, number, _| Some(if number == 60 { 25 * MS } else { 10 * MS });
    let mut world = World::new(900, 10 * MS, late);
    world.run();
    assert_eq!((world.timeouts, world.resent), (0, 1), "it was taken for lost");
    assert_eq!(world.congestion.ssthresh(), SSTHRESH_INITIAL, "and DSACK tells that it wasn't");
}

#[test]
fn reordering_within_a_quarter_of_a_round_trip_loses_nothing_once_it_is_known() {
    // Every seventh takes 3 ms more.
    let mut world =
        World::new(3000, 10 * MS, |_, number, _| Some(if number % 7 == 0 { 13 * MS } else { 10 * MS }));
    world.run();
    assert_eq!(world.timeouts, 0);
    assert!(world.resent < 30, "{} of 3,000 were sent again", world.resent);
}

proptest! {
    #![proptest_config(crate::testing::cases(60))]
    #[test]
    fn whatever_the_path_does_everything_arrives(count in 1usize..300, seed: u64, loss in 0u64..25, jitter_us in 0u64..30_000, delay_us in 10u64..50_000) {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        let mut world = World::new(count, delay_us * 1_000, move |_, _, _| {
            (random() % 100 >= loss).then(|| delay_us * 1_000 + random() % (jitter_us * 1_000 + 1))
        });
        let took = world.run();
        // A quarter of all transmissions is lost at most: no segment needs more than a few doublings of a timeout.
        prop_assert!(took < Duration::from_secs(3600), "{took:?}");
    }
}
