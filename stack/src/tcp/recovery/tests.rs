use proptest::prelude::*;
use zerocopy::FromBytes;

use super::ecn::{Ecn, Outgoing};
use super::prr::Prr;
use super::rack::{Judgment, Rack, Segment, Surroundings};
use super::scoreboard::Scoreboard;
use super::tlp::{self, Flight, Outcome};
use super::undo::{CaState, Episode, Prior};
use super::*;
use crate::seq::Seq;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Flags;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant(ms * MS)
}

fn ms(length: u64) -> Duration {
    Duration::from_millis(length)
}

fn segment(sent_ms: u64, end: u32) -> Segment {
    Segment { sent_at: at(sent_ms), end: Seq(end), retransmitted: false }
}

fn again(sent_ms: u64, end: u32) -> Segment {
    Segment { retransmitted: true, ..segment(sent_ms, end) }
}

const AROUND: Surroundings = Surroundings {
    in_recovery: false,
    sacked_out: 0,
    min_rtt: Some(Duration(40 * MS)),
    srtt: Some(Duration(100 * MS)),
};

// ---- RACK ----

/// A path of 40 ms on which the segment that was sent at 10 ms and ends at 2000 is delivered.
fn delivered() -> Rack {
    let mut rack = Rack::default();
    rack.update(at(50), &segment(10, 2000), Some(ms(40)), false);
    rack
}

#[test]
fn what_was_sent_before_a_delivered_segment_is_lost_after_a_round_trip_and_the_reordering_window() {
    let rack = delivered();
    assert_eq!(rack.judge(at(50), &segment(5, 1000), ms(10)), Judgment::LostIn(ms(5)));
    assert_eq!(rack.judge(at(55), &segment(5, 1000), ms(10)), Judgment::Lost);
    assert_eq!(rack.judge(at(50), &segment(5, 1000), ms(0)), Judgment::Lost);
}

#[test]
fn of_what_was_sent_later_nothing_can_be_said() {
    let rack = delivered();
    assert_eq!(
        rack.judge(at(500), &segment(10, 3000), ms(0)),
        Judgment::TooEarly,
        "the same moment, but behind"
    );
    assert_eq!(rack.judge(at(500), &segment(10, 1000), ms(0)), Judgment::Lost, "the same moment, but before");
    assert_eq!(rack.judge(at(500), &segment(11, 1000), ms(0)), Judgment::TooEarly);
    assert_eq!(Rack::default().judge(at(500), &segment(0, 1), ms(0)), Judgment::TooEarly);
}

#[test]
fn a_lost_retransmission_is_found_as_any_segment() {
    let mut rack = delivered();
    rack.update(at(140), &segment(100, 9000), Some(ms(40)), false);
    assert_eq!(rack.judge(at(140), &again(60, 1000), ms(10)), Judgment::Lost);
}

#[test]
fn an_acknowledgment_that_may_be_of_the_first_transmission_does_not_count() {
    let mut rack = delivered();
    let before = rack;
    rack.update(at(110), &again(100, 1000), Some(ms(40)), false);
    assert_eq!(rack, before, "RFC 8985 §6.2 step 2: faster than the path");
    rack.update(at(160), &again(100, 1000), Some(ms(40)), true);
    assert_eq!(rack, before, "its echo is older than the retransmission");
    rack.update(at(160), &again(100, 1000), Some(ms(40)), false);
    assert_eq!(rack.judge(at(158), &segment(99, 5000), ms(0)), Judgment::LostIn(ms(1)), "60 ms after 99");
}

#[test]
fn until_reordering_is_seen_three_reports_or_recovery_leave_no_window() {
    let mut rack = delivered();
    assert_eq!(rack.reo_wnd(&AROUND), ms(10), "a quarter of the smallest round trip");
    assert_eq!(rack.reo_wnd(&Surroundings { sacked_out: 3, ..AROUND }), ms(0));
    assert_eq!(rack.reo_wnd(&Surroundings { in_recovery: true, ..AROUND }), ms(0));
    assert_eq!(rack.detect_reordering(&segment(0, 500), Seq(2000)), Seq(2000));
    assert!(rack.reordering_seen());
    assert_eq!(rack.reo_wnd(&Surroundings { in_recovery: true, ..AROUND }), ms(10));
}

#[test]
fn a_retransmission_that_fills_a_hole_is_no_reordering() {
    let mut rack = Rack::default();
    assert_eq!(rack.detect_reordering(&segment(0, 1000), Seq(500)), Seq(1000));
    assert_eq!(rack.detect_reordering(&again(0, 700), Seq(1000)), Seq(1000));
    assert!(!rack.reordering_seen());
}

#[test]
fn each_round_with_a_dsack_widens_the_window_up_to_a_round_trip_and_sixteen_recoveries_narrow_it() {
    let mut rack = delivered();
    rack.on_ack(true, Seq(0), Seq(100));
    assert_eq!(rack.reo_wnd(&AROUND), ms(20));
    rack.on_ack(true, Seq(99), Seq(200));
    assert_eq!(rack.reo_wnd(&AROUND), ms(20), "the same round");
    rack.on_ack(true, Seq(100), Seq(200));
    assert_eq!(rack.reo_wnd(&AROUND), ms(30));
    for round in 2..300 {
        rack.on_ack(true, Seq(round * 100), Seq((round + 1) * 100));
    }
    assert_eq!(rack.reo_wnd(&AROUND), ms(100), "SRTT");
    for _ in 0..15 {
        rack.on_recovered();
    }
    assert_eq!(rack.reo_wnd(&AROUND), ms(100));
    rack.on_recovered();
    assert_eq!(rack.reo_wnd(&AROUND), ms(10));
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn without_loss_or_reordering_nothing_is_lost(gaps in proptest::collection::vec(0u64..50_000, 2..50), rtt_us in 1u64..100_000) {
        // Sent in order, delivered in order, each after a round trip that is the same for all.
        let (mut rack, mut sent, mut segments) = (Rack::default(), 0, Vec::new());
        for (index, gap) in gaps.iter().enumerate() {
            sent += gap * 1_000;
            segments.push(Segment { sent_at: Instant(sent), end: Seq(index as u32 + 1), retransmitted: false });
        }
        let rtt = Duration::from_micros(rtt_us);
        for (index, segment) in segments.iter().enumerate() {
            let now = segment.sent_at + rtt;
            rack.update(now, segment, Some(rtt), false);
            for rest in &segments[index + 1..] {
                prop_assert_eq!(rack.judge(now, rest, Duration(0)), Judgment::TooEarly);
            }
        }
    }
}

// ---- TLP ----

#[test]
fn the_probe_is_due_after_two_round_trips_and_never_after_the_timeout() {
    let late = at(100_000);
    assert_eq!(tlp::pto(at(0), Some(ms(50)), 5, late), at(102), "RFC 8985 §7.2");
    assert_eq!(tlp::pto(at(0), Some(ms(50)), 1, late), at(300), "with room for a delayed acknowledgment");
    assert_eq!(tlp::pto(at(0), None, 5, late), at(1000));
    assert_eq!(tlp::pto(at(0), None, 5, at(250)), at(250));
}

#[test]
fn a_probe_is_scheduled_only_while_nothing_else_tells_of_loss() {
    let mut rack = Rack::default();
    let flight = Flight { sack: true, open: true, packets_out: 3, sacked_out: 0 };
    assert!(rack.may_probe(&flight));
    assert!(!rack.may_probe(&Flight { sack: false, ..flight }));
    assert!(!rack.may_probe(&Flight { open: false, ..flight }));
    assert!(!rack.may_probe(&Flight { sacked_out: 1, ..flight }));
    assert!(!rack.may_probe(&Flight { packets_out: 0, ..flight }));
    rack.on_tlp_sent(Seq(100), true);
    assert!(!rack.may_probe(&flight), "one at a time");
}

fn outcome(is_retrans: bool, ack: u32, dsack_of_probe: bool, plain_duplicate: bool) -> Outcome {
    let mut rack = Rack::default();
    rack.on_tlp_sent(Seq(100), is_retrans);
    let outcome = rack.on_tlp_ack(&tlp::Ack { ack: Seq(ack), dsack_of_probe, plain_duplicate });
    assert_eq!(rack.tlp_end_seq().is_some(), outcome == Outcome::Pending);
    outcome
}

#[test]
fn a_probe_that_repaired_a_loss_is_told_from_one_that_was_not_needed() {
    assert_eq!(outcome(true, 99, false, false), Outcome::Pending);
    assert_eq!(outcome(true, 100, false, false), Outcome::Pending, "both are possible yet");
    assert_eq!(outcome(true, 100, true, false), Outcome::Arrived, "RFC 8985 §7.4.2, case 1");
    assert_eq!(outcome(true, 100, false, true), Outcome::Arrived);
    assert_eq!(outcome(true, 101, false, false), Outcome::Repaired, "case 2");
    assert_eq!(outcome(false, 100, false, false), Outcome::Arrived, "the probe was new data");
    assert_eq!(
        Rack::default().on_tlp_ack(&tlp::Ack { ack: Seq(5), dsack_of_probe: true, plain_duplicate: true }),
        Outcome::Pending
    );
}

// ---- Scoreboard ----

#[test]
fn the_pipe_is_what_was_neither_reported_nor_lost_and_what_was_sent_again() {
    let board = Scoreboard { packets_out: 20, sacked_out: 5, lost_out: 3, retrans_out: 2, fack: Seq(0) };
    assert_eq!(board.pipe(), 14, "RFC 6675 §4");
    assert_eq!(board.recover_fs(0, 4), 19, "one was reported before");
    assert_eq!(board.check(), Ok(()));
    assert!(Scoreboard { lost_out: 16, ..board }.check().is_err());
}

#[test]
fn without_sack_duplicates_stand_for_reports() {
    let mut board = Scoreboard { packets_out: 4, lost_out: 1, ..Scoreboard::default() };
    for _ in 0..10 {
        board.on_duplicate();
    }
    assert_eq!(board.sacked_out, 3, "no more than there are");
    assert!(board.is_first_lost(CaState::Disorder, false), "the third");
    assert!(!Scoreboard { sacked_out: 2, ..board }.is_first_lost(CaState::Disorder, false));
    assert!(board.is_first_lost(CaState::Recovery, true), "a partial acknowledgment");
    assert!(!board.is_first_lost(CaState::Recovery, false), "one more duplicate");
    board.packets_out -= 3;
    board.lost_out = 0;
    board.on_partial(3);
    assert_eq!(board.sacked_out, 1, "RFC 6582: one filled the hole");
}

// ---- PRR ----

/// An episode in which `lost` segments of `flight` are lost, and everything else is delivered. Returns what is in
/// flight at its end.
fn episode(flight: u32, ssthresh: u32, lost: u32) -> u32 {
    let mut prr = Prr::new(flight);
    let mut pipe = flight - lost;
    let mut deliver = pipe;
    let mut bursts = 0;
    while deliver > 0 {
        deliver -= 1;
        pipe -= 1;
        let cwnd = prr.on_ack(1, pipe, ssthresh, false);
        let sent = cwnd - pipe;
        bursts = bursts.max(sent);
        pipe += sent;
        prr.on_sent(sent);
    }
    assert!(bursts <= 2, "a burst of {bursts}");
    pipe
}

#[test]
fn at_the_end_of_recovery_ssthresh_is_in_flight() {
    assert_eq!(episode(100, 70, 1), 70);
    assert_eq!(episode(100, 50, 5), 50);
}

#[test]
fn after_many_losses_no_more_is_sent_than_is_delivered() {
    // 90 of 100 are lost: ten are delivered, and ten are sent for them.
    assert_eq!(episode(100, 70, 90), 10, "the conservative bound");
}

#[test]
fn an_acknowledgment_that_is_safe_gains_one_more() {
    let mut prr = Prr::new(100);
    prr.on_sent(1);
    assert_eq!(prr.on_ack(1, 20, 70, false), 21);
    let mut prr = Prr::new(100);
    prr.on_sent(1);
    assert_eq!(prr.on_ack(1, 20, 70, true), 22, "RFC 9937 §6: SafeACK");
}

#[test]
fn the_first_acknowledgment_sends_the_fast_retransmit() {
    assert_eq!(Prr::new(100).on_ack(0, 99, 1, false), 100);
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn prr_sends_at_most_what_is_delivered_and_two(flight in 1u32..10_000, share in 1u32..100, acks in proptest::collection::vec((1u32..8, any::<bool>()), 1..200)) {
        let ssthresh = (flight * share / 100).max(2);
        let (mut prr, mut pipe, mut delivered, mut sent) = (Prr::new(flight), flight, 0, 0);
        for (count, safe) in acks {
            let count = count.min(pipe);
            pipe -= count;
            delivered += count;
            let cwnd = prr.on_ack(count, pipe, ssthresh, safe);
            prop_assert!(cwnd >= pipe);
            let burst = cwnd - pipe;
            prop_assert!(pipe + burst <= ssthresh.max(pipe + 1).max(flight));
            pipe += burst;
            sent += burst;
            prr.on_sent(burst);
            // Slow start's bound: one more for each acknowledgment, at most as much again.
            prop_assert!(sent <= 2 * delivered + 1);
        }
    }
}

// ---- Undo ----

const PRIOR: Prior = Prior { cwnd: 100, ssthresh: 500 };

fn begun(to: CaState) -> Episode {
    let mut episode = Episode::default();
    episode.begin(to, Seq(1000), Seq(5000), PRIOR, 0);
    episode
}

#[test]
fn an_echo_from_before_the_first_retransmission_undoes() {
    let mut episode = begun(CaState::Recovery);
    episode.on_retransmit(1, 700);
    episode.on_retransmit(1, 705);
    assert!(!episode.may_undo(Some(700)), "RFC 3522 §3.2: smaller");
    assert!(!episode.may_undo(Some(0)) && !episode.may_undo(None));
    assert!(episode.may_undo(Some(699)));
    assert_eq!(episode.undo(), PRIOR);
    assert!(!episode.may_undo(Some(699)), "once");
}

#[test]
fn duplicates_of_every_retransmission_undo() {
    let mut episode = begun(CaState::Recovery);
    assert!(!episode.may_undo(None), "nothing was sent again");
    episode.on_retransmit(2, 700);
    episode.on_dsack(1, Seq(2000), Seq(3000));
    assert!(!episode.may_undo(None), "one may have been needed");
    episode.on_dsack(1, Seq(900), Seq(3000));
    assert!(!episode.may_undo(None), "of before the episode");
    episode.on_dsack(1, Seq(3000), Seq(3000));
    assert!(episode.may_undo(None), "RFC 3708");
}

#[test]
fn duplicates_that_come_when_the_episode_has_ended_undo_it_too() {
    let mut episode = begun(CaState::Recovery);
    episode.on_retransmit(1, 700);
    episode.end();
    assert!(!episode.dsack_undoes());
    episode.on_dsack(1, Seq(2000), Seq(6000));
    assert!(episode.dsack_undoes() && episode.undo() == PRIOR);
    assert!(!episode.dsack_undoes(), "once");
    let mut episode = begun(CaState::Recovery);
    episode.end();
    assert!(!episode.dsack_undoes(), "nothing was sent again");
}

#[test]
fn a_reduction_that_a_router_asked_for_is_not_undone() {
    let mut episode = begun(CaState::Cwr);
    episode.on_retransmit(1, 700);
    assert!(!episode.may_undo(Some(1)), "the path is as full as it said");
}

#[test]
fn the_window_is_reduced_once_for_each_window_of_data() {
    let episode = begun(CaState::Recovery);
    assert!(Episode::default().may_reduce(CaState::Recovery, Seq(0), 0));
    assert!(!episode.may_reduce(CaState::Recovery, Seq(4999), 0), "RFC 5681 §3.2");
    assert!(!episode.may_reduce(CaState::Loss, Seq(4999), 0), "fast recovery has reduced it already");
    assert!(episode.may_reduce(CaState::Recovery, Seq(5000), 0));
    let episode = begun(CaState::Loss);
    assert!(!episode.may_reduce(CaState::Loss, Seq(4999), 1), "the same segment timed out again");
    assert!(episode.may_reduce(CaState::Loss, Seq(4999), 0), "progress was made since");
    assert!(!episode.is_recovered(Seq(4999)) && episode.is_recovered(Seq(5000)));
}

#[test]
fn a_timeout_in_fast_recovery_keeps_what_was_before_both() {
    let mut episode = begun(CaState::Recovery);
    episode.on_retransmit(1, 700);
    episode.continue_as(CaState::Loss, Seq(7000));
    assert_eq!(episode.state(), CaState::Loss);
    assert!(!episode.is_recovered(Seq(5000)) && episode.may_undo(Some(600)));
    assert_eq!(episode.undo(), PRIOR);
}

// ---- F-RTO ----

const FRTO_ACK: frto::Ack = frto::Ack {
    una: Seq(2000),
    nxt: Seq(5000),
    advances: true,
    originals: false,
    reports: false,
    can_send_new: true,
};

#[test]
fn a_timeout_is_spurious_if_what_was_not_sent_again_is_acknowledged() {
    let mut episode = begun(CaState::Loss);
    episode.begin_frto(true);
    assert_eq!(episode.frto(&FRTO_ACK), frto::Verdict::SendNew, "RFC 5682 §3.1 step 2 b");
    // Two new segments are sent, and the next acknowledgment is of an original.
    let next = frto::Ack { una: Seq(3000), nxt: Seq(7000), originals: true, ..FRTO_ACK };
    assert_eq!(episode.frto(&next), frto::Verdict::Spurious, "step 3 b");
}

#[test]
fn a_duplicate_after_new_data_says_that_the_loss_is_real() {
    let mut episode = begun(CaState::Loss);
    episode.begin_frto(true);
    assert_eq!(episode.frto(&FRTO_ACK), frto::Verdict::SendNew);
    let duplicate = frto::Ack { nxt: Seq(7000), advances: false, reports: true, ..FRTO_ACK };
    assert_eq!(episode.frto(&duplicate), frto::Verdict::Retransmit, "step 3 a");
    let original = frto::Ack { originals: true, ..duplicate };
    assert_eq!(episode.frto(&original), frto::Verdict::Retransmit, "it is not asked again");
}

#[test]
fn without_new_data_to_send_recovery_is_conventional() {
    let mut episode = begun(CaState::Loss);
    episode.begin_frto(true);
    assert_eq!(episode.frto(&frto::Ack { can_send_new: false, ..FRTO_ACK }), frto::Verdict::Retransmit);
    assert_eq!(episode.frto(&frto::Ack { originals: true, ..FRTO_ACK }), frto::Verdict::Retransmit);
}

#[test]
fn a_timeout_while_something_is_repaired_is_not_looked_at() {
    let mut episode = begun(CaState::Loss);
    episode.begin_frto(false);
    assert_eq!(episode.frto(&frto::Ack { originals: true, ..FRTO_ACK }), frto::Verdict::Retransmit);
    assert_eq!(episode.frto(&frto::Ack { una: Seq(5000), ..FRTO_ACK }), frto::Verdict::Recovered);
}

// ---- ECN ----

#[test]
fn ecn_is_agreed_only_by_a_syn_ack_with_ece_alone() {
    let (ece, cwr) = (Flags::ECE, Flags::CWR);
    assert!(Ecn::asks(Flags::SYN | ece | cwr) && !Ecn::asks(Flags::SYN | ece) && !Ecn::asks(Flags::SYN));
    assert!(!Ecn::asks(Flags::SYN | ece | cwr | Flags::AE), "that is another kind");
    assert!(Ecn::agrees(Flags::SYN | Flags::ACK | ece));
    assert!(!Ecn::agrees(Flags::SYN | Flags::ACK | ece | cwr), "a reflection");
    assert!(!Ecn::agrees(Flags::SYN | Flags::ACK));
}

#[test]
fn only_new_text_is_sent_as_ecn_capable() {
    let mut ecn = Ecn::agreed(true);
    ecn.on_reduced();
    for what in [Outgoing::Again, Outgoing::PureAck, Outgoing::Probe] {
        assert_eq!(ecn.outgoing(what), (Flags::default(), false), "RFC 3168 §6.1.4–6.1.6: {what:?}");
    }
    assert_eq!(ecn.outgoing(Outgoing::NewText), (Flags::CWR, true), "§6.1.2");
    assert_eq!(ecn.outgoing(Outgoing::NewText), (Flags::default(), true), "once");
    assert_eq!(Ecn::agreed(false).outgoing(Outgoing::NewText), (Flags::default(), false));
}

#[test]
fn a_mark_is_echoed_until_cwr_arrives() {
    let mut ecn = Ecn::agreed(true);
    assert!(ecn.incoming(Flags::ACK, true, true).acknowledge, "the first mark at once");
    assert!(!ecn.incoming(Flags::ACK, true, true).acknowledge);
    assert_eq!(ecn.outgoing(Outgoing::PureAck).0, Flags::ECE);
    ecn.incoming(Flags::ACK, false, true);
    assert_eq!(ecn.outgoing(Outgoing::NewText).0, Flags::ECE, "RFC 3168 §6.1.3: continues");
    assert!(ecn.incoming(Flags::ACK | Flags::CWR, false, true).acknowledge);
    assert_eq!(ecn.outgoing(Outgoing::PureAck).0, Flags::default());
    ecn.incoming(Flags::ACK, true, true);
    ecn.incoming(Flags::ACK | Flags::CWR, true, true);
    assert_eq!(
        ecn.outgoing(Outgoing::PureAck).0,
        Flags::ECE,
        "a mark on the segment that says CWR is a new one"
    );
}

#[test]
fn an_echo_reduces_the_window_and_one_on_a_syn_does_not() {
    let mut ecn = Ecn::agreed(true);
    assert!(ecn.incoming(Flags::ACK | Flags::ECE, false, false).reduce);
    assert!(!ecn.incoming(Flags::SYN | Flags::ACK | Flags::ECE, false, false).reduce);
    assert!(!Ecn::agreed(false).incoming(Flags::ACK | Flags::ECE, false, false).reduce);
}

// ---- Bytes ----

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn any_bytes_are_survived(bytes in any::<[u8; 64]>(), board in any::<[u8; 20]>(), numbers in any::<[u64; 5]>(), seqs in any::<[u32; 4]>(), flags: [bool; 4]) {
        let mut recovery = Recovery::read_from_bytes(&bytes).expect("64 bytes");
        let mut board = Scoreboard::read_from_bytes(&board).expect("20 bytes");
        let [now, sent, rtt, srtt, wait] = numbers;
        let [a, b, c, d] = seqs;
        let segment = Segment { sent_at: Instant(sent), end: Seq(a), retransmitted: flags[0] };
        let around = Surroundings { in_recovery: flags[1], sacked_out: b, min_rtt: Some(Duration(rtt)), srtt: Some(Duration(srtt)) };
        let rack = &mut recovery.rack;
        let wnd = rack.reo_wnd(&around);
        prop_assert!(wnd <= Duration(srtt));
        let _ = rack.judge(Instant(now), &segment, Duration(wait));
        rack.update(Instant(now), &segment, Some(Duration(rtt)), flags[2]);
        board.fack = rack.detect_reordering(&segment, board.fack);
        rack.on_ack(flags[3], Seq(c), Seq(d));
        rack.on_recovered();
        let _ = rack.on_tlp_ack(&tlp::Ack { ack: Seq(b), dsack_of_probe: flags[0], plain_duplicate: flags[1] });
        let _ = tlp::pto(Instant(now), Some(Duration(srtt)), c, Instant(wait));
        let cwnd = recovery.prr.on_ack(a, b, c, flags[0]);
        prop_assert!(cwnd >= b);
        recovery.prr.on_sent(d);
        board.on_duplicate();
        board.on_partial(c);
        let _ = (board.pipe(), board.recover_fs(a, b), board.check());
        let episode = &mut recovery.episode;
        let _ = (episode.state(), episode.may_reduce(CaState::Loss, Seq(a), 0), episode.may_undo(Some(b)));
        let _ = episode.frto(&frto::Ack { una: Seq(a), nxt: Seq(b), advances: flags[0], originals: flags[1], reports: flags[2], can_send_new: flags[3] });
        episode.on_retransmit(a as u16, c);
        episode.on_dsack(b as u16, Seq(c), Seq(d));
        episode.begin(CaState::Recovery, Seq(a), Seq(b), PRIOR, c);
        let _ = episode.ecn.incoming(Flags(a as u16), flags[0], flags[1]);
        prop_assert_eq!(episode.undo(), PRIOR);
    }
}
