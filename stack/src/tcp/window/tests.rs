use proptest::prelude::*;

use super::autotune::Autotune;
use super::send::{Sender, needs_probe, next_len};
use super::*;
use crate::time::{Duration, Instant};

const MSS: u16 = 1460;

/// A receiver with a full buffer's size, free room, and a shift.
fn space(full: u32, free: u32, shift: u8) -> Space {
    Space { full, free, rcv_mss: MSS, offer_max: u32::MAX, shift }
}

/// A sender with nothing in flight.
fn sender(queued: u32, wnd: u32) -> Sender {
    Sender {
        una: Seq(0),
        nxt: Seq(0),
        wnd,
        max_wnd: wnd,
        mss: MSS,
        queued,
        small: Seq(0),
        nodelay: false,
        cork: false,
        fin: false,
        overridden: false,
    }
}

#[test]
fn the_shift_is_the_smallest_that_can_show_the_largest_window() {
    assert_eq!((shift(0), shift(65_535), shift(65_536), shift(131_071)), (0, 0, 1, 1));
    // Linux's tcp_rmem[2] of 6 MiB gives 7.
    assert_eq!(shift(6 << 20), 7);
    assert_eq!(shift(u32::MAX), 14, "RFC 7323 §2.3");
}

#[test]
fn the_window_of_a_syn_is_not_scaled() {
    assert_eq!(initial(1 << 20, MSS), 65_535);
    assert_eq!(initial(10_000, MSS), 8_760);
    assert_eq!(unscaled(1000, 7, true), 1000);
    assert_eq!(unscaled(1000, 7, false), 128_000);
    assert_eq!(unscaled(1, 200, false), 1 << 14);
}

#[test]
fn the_window_closes_when_less_than_a_segment_is_left() {
    assert_eq!(advertise(&space(65_535, 1459, 0), Seq(0), Seq(0), 0).wnd, 0);
    assert_eq!(advertise(&space(1 << 20, 65_535, 4), Seq(0), Seq(0), 0).wnd, 0, "or less than a sixteenth");
}

#[test]
fn the_right_edge_moves_by_segments_and_not_by_bytes() {
    let whole = advertise(&space(65_535, 58_400, 0), Seq(0), Seq(0), 0);
    assert_eq!(whole.wnd, 58_400);
    let after = advertise(&space(65_535, 58_900, 0), Seq(0), whole.edge, whole.wnd);
    assert_eq!(after.edge, whole.edge, "500 bytes more are no segment");
    let after = advertise(&space(65_535, 59_860, 0), Seq(0), whole.edge, whole.wnd);
    assert_eq!(after.edge, whole.edge + 1460);
}

#[test]
fn what_was_offered_stays_offered_when_the_buffer_shrinks() {
    let offered = advertise(&space(1 << 20, 1 << 20, 5), Seq(0), Seq(0), 0);
    let after = advertise(&space(65_536, 0, 5), Seq(10_000), offered.edge, offered.wnd);
    assert!(!after.edge.lt(offered.edge), "RFC 9293 SHLD-14");
    assert!(after.edge - offered.edge < 32, "beyond it by less than a unit");
}

#[test]
fn an_offer_grows_with_text_that_fills_its_buffers() {
    let start = Space { offer_max: 14_600, ..space(100_000, 80_000, 0) };
    let grown = |offer_max, len, charge| {
        grown_offer(&Space { offer_max, rcv_mss: 500, ..start }, len, charge, MSS, 100_000)
    };
    assert_eq!(grown(14_600, 1460, 2048), 17_520);
    assert_eq!(grown(14_600, 20_000, 20_480), 54_600, "an aggregate");
    assert_eq!(grown(14_600, 1, 2048), 14_600, "tiny segments");
    assert_eq!(grown(79_000, 1460, 2048), 80_000, "no more than is free");
    assert_eq!(grown(90_000, 1460, 2048), 90_000);
    // A quarter of the frame: up to half of the largest window; an eighth of it: up to a quarter.
    assert_eq!([grown(50_000, 512, 2048), grown(50_001, 512, 2048)], [51_024, 50_001]);
    assert_eq!([grown(25_000, 256, 2048), grown(25_001, 256, 2048)], [26_000, 25_001]);
    assert_eq!(advertise(&start, Seq(0), Seq(0), 0).wnd, 14_600, "what is offered is free and offered");
}

#[test]
fn a_reader_tells_the_peer_when_the_window_has_doubled() {
    assert!(needs_update(&space(65_535, 65_535, 0), Seq(0), Seq(0), 0));
    assert!(needs_update(&space(65_535, 65_535, 0), Seq(0), Seq(30_000), 30_000));
    assert!(!needs_update(&space(65_535, 40_000, 0), Seq(0), Seq(30_000), 30_000));
    assert!(!needs_update(&space(65_535, 100, 0), Seq(0), Seq(0), 0));
}

#[test]
fn a_full_segment_is_sent_at_once() {
    let corked = Sender { cork: true, nxt: Seq(5), small: Seq(5), ..sender(5000, 10_000) };
    assert_eq!(next_len(&corked), Some(1460));
}

#[test]
fn a_small_segment_waits_only_behind_a_small_one() {
    assert_eq!(next_len(&sender(10, 5000)), Some(10), "nothing in flight");
    let behind_full = Sender { nxt: Seq(1460), ..sender(10, 5000) };
    assert_eq!(next_len(&behind_full), Some(10));
    let behind_small = Sender { nxt: Seq(10), small: Seq(10), ..sender(10, 5000) };
    assert_eq!(next_len(&behind_small), None, "SHLD-7");
    assert_eq!(next_len(&Sender { nodelay: true, ..behind_small }), Some(10), "MUST-17");
    assert_eq!(next_len(&Sender { fin: true, ..behind_small }), Some(10));
    assert_eq!(next_len(&Sender { una: Seq(10), ..behind_small }), Some(10), "once it is acknowledged");
}

#[test]
fn a_small_part_of_a_window_is_not_filled() {
    // The peer once offered 10,000 bytes; now 300 are free.
    let squeezed = Sender { max_wnd: 10_000, ..sender(5000, 300) };
    assert_eq!(next_len(&squeezed), None, "MUST-38");
    assert!(needs_probe(&squeezed));
    assert_eq!(next_len(&Sender { overridden: true, ..squeezed }), Some(300), "case 4");
    // A peer whose buffer is that small gets half of it.
    assert_eq!(next_len(&Sender { max_wnd: 600, ..squeezed }), Some(300), "case 3");
}

#[test]
fn a_window_that_shrinks_below_what_is_in_flight_sends_nothing() {
    let shrunk = Sender { nxt: Seq(5000), ..sender(5000, 4000) };
    assert_eq!(next_len(&shrunk), None, "MUST-34");
    assert!(!needs_probe(&shrunk), "what is in flight will be acknowledged or sent again");
    assert!(needs_probe(&sender(1, 0)));
    let corked = Sender { cork: true, ..sender(10, 5000) };
    assert!(needs_probe(&corked) && next_len(&Sender { overridden: true, ..corked }) == Some(10), "tcp(7)");
    assert!(!needs_probe(&sender(0, 0)));
}

#[test]
fn the_buffer_grows_while_more_is_read_in_each_round() {
    let ms = |ms: u64| Instant(ms * 1_000_000);
    let mut tune = Autotune::new(ms(0), Seq(0), 60_000);
    assert_eq!(tune.on_read(ms(50), Seq(100_000), MSS), None, "nothing is known of the round trip");
    tune.sample(Duration::from_millis(10));
    assert_eq!(tune.on_read(ms(5), Seq(30_000), MSS), None, "a round has not passed");
    assert_eq!(tune.on_read(ms(10), Seq(60_000), MSS), None, "no more than before");
    // Twice as much: the window for it, and as much again twice.
    assert_eq!(tune.on_read(ms(20), Seq(180_000), MSS), Some(3 * (2 * 120_000 + 16 * 1460)));
    assert_eq!(tune.on_read(ms(30), Seq(300_000), MSS), None);
}

#[test]
fn without_timestamps_a_round_is_a_windows_worth() {
    let ms = |ms: u64| Instant(ms * 1_000_000);
    let mut tune = Autotune::new(ms(0), Seq(0), 1000);
    tune.on_text(ms(0), Seq(0), 1000);
    tune.on_text(ms(5), Seq(500), 1000);
    assert_eq!(tune.rtt(), None);
    tune.on_text(ms(20), Seq(1000), 1000);
    assert_eq!(tune.rtt(), Some(Duration::from_millis(20)));
    tune.on_text(ms(28), Seq(2000), 1000);
    tune.on_text(ms(90), Seq(3000), 1000);
    assert_eq!(tune.rtt(), Some(Duration::from_millis(8)), "the smallest");
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn the_right_edge_never_moves_left(
        steps in proptest::collection::vec((any::<u32>(), any::<u32>(), 0u32..100_000), 1..50), shift in 0u8..16, mss: u16, start: u32,
    ) {
        let (mut nxt, mut edge, mut wnd) = (Seq(start), Seq(start), 0);
        for (full, free, arrives) in steps {
            let full = full >> 2;
            let space = Space { full, free: free % (full + 1), rcv_mss: mss, offer_max: full, shift };
            let next = advertise(&space, nxt, edge, wnd);
            prop_assert!(edge.le(next.edge), "{edge:?} then {:?}", next.edge);
            prop_assert_eq!(u32::from(next.field) << shift.min(14), next.wnd, "the field shows the window");
            (edge, wnd) = (next.edge, next.wnd);
            nxt = nxt + arrives.min(edge - nxt);
        }
    }

    #[test]
    fn what_is_sent_fits_the_window_the_queue_and_the_segment(
        una: u32, flight in 0u32..1 << 20, wnd in 0u32..1 << 20, max_wnd in 0u32..1 << 20, mss: u16, queued: u32, small: u32,
        flags: [bool; 4],
    ) {
        let [nodelay, cork, fin, overridden] = flags;
        let sender = Sender { una: Seq(una), nxt: Seq(una) + flight, wnd, max_wnd, mss, queued, small: Seq(small), nodelay, cork, fin, overridden };
        if let Some(len) = next_len(&sender) {
            prop_assert!(len > 0 && len <= queued && flight + len <= wnd && len <= u32::from(mss).max(1));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<[u8; 24]>(), rtt: u64, now: u64, seq: u32, mss: u16) {
        use zerocopy::FromBytes;
        let mut tune = Autotune::read_from_bytes(&bytes).expect("24 bytes");
        tune.sample(Duration(rtt));
        tune.on_text(Instant(now), Seq(seq), u32::from(mss));
        let _ = tune.on_read(Instant(now.wrapping_mul(3)), Seq(seq.wrapping_mul(5)), mss);
        prop_assert!(tune.rtt().is_some());
    }
}
