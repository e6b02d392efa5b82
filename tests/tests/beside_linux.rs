//! What a peer that is driven by hand meets, in our stack and in the kernel's: the same segments and calls are given to both, and what they
//! answer must be the same, line for line. Without the rights of root only ours is asked. Rows W8, W9, W19, W21 and W25 of the list of attacks;
//! F30 to F34 are in `beside_linux/faults.rs`.

#[path = "beside_linux/faults.rs"]
mod faults;

use std::net::Shutdown;

use harness::wire::hand::{Call, Hand, Ours, Subject, ask_kernel, ask_kernel_at_leisure};
use stack::stats::Counter;
use stack::tcp::state::State;
use stack::wire::tcp::Flags;
use stack::wire::tcp::options::Options;

const FIN: Flags = Flags(Flags::FIN.0 | Flags::ACK.0);
/// Text of a full segment.
const MSS: u32 = 1460;

/// What both say, and then our host; ours alone without the rights of root.
fn both(talk: impl Fn(&mut Hand<'_>)) -> Ours {
    let said = |subject: &mut dyn Subject| {
        let mut hand = Hand::new(subject);
        talk(&mut hand);
        hand.lines
    };
    let mut ours = Ours::new();
    let lines = said(&mut ours);
    ours.bench.host().check();
    if let Some(theirs) = ask_kernel(|kernel| said(kernel)) {
        assert!(lines == theirs, "{}", difference(&lines, &theirs));
    }
    ours
}

/// What both come to, each by itself; ours alone without the rights of root.
fn each<R>(talk: impl Fn(&mut Hand<'_>) -> R) -> (R, Option<R>) {
    (our_own(&talk), ask_kernel(|kernel| talk(&mut Hand::new(kernel))))
}

/// The same of long conversations, in which it makes no difference whether timers have said something, too.
fn each_at_leisure<R>(talk: impl Fn(&mut Hand<'_>) -> R) -> (R, Option<R>) {
    (our_own(&talk), ask_kernel_at_leisure(|kernel| talk(&mut Hand::new(kernel))))
}

fn our_own<R>(talk: &impl Fn(&mut Hand<'_>) -> R) -> R {
    let mut ours = Ours::new();
    let our_own = talk(&mut Hand::new(&mut ours));
    ours.bench.host().check();
    our_own
}

/// What both say, and from the first line on that differs what each of them says.
fn difference(ours: &[String], theirs: &[String]) -> String {
    let same = ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let (before, ours, theirs) =
        (ours[same.saturating_sub(12)..same].join("\n"), &ours[same..], &theirs[same..]);
    let some = |lines: &[String]| lines[..lines.len().min(12)].join("\n");
    format!("both:\n{before}\nours:\n{}\nLinux:\n{}", some(ours), some(theirs))
}

/// W19: RFC 9293, figure 7.
#[test]
fn w19_simultaneous_open() {
    both(|hand| {
        let _ = hand.call(Call::Connect);
        hand.says(Flags::SYN, &[]);
        assert_eq!(hand.state(), State::SynReceived);
        let answer = hand.segment(Flags::SYN | Flags::ACK, 0, 1, &[]);
        hand.gives(&answer);
        assert_eq!(hand.state(), State::Established);
        hand.says(Flags::ACK, b"hello");
        assert_eq!(hand.call(Call::Receive(10)), Ok(5));
        let sent = hand.call(Call::Send(10));
        assert_eq!(sent, Ok(10));
    });
}

/// W19: RFC 9293, figure 13.
#[test]
fn w19_simultaneous_close() {
    both(|hand| {
        hand.opens();
        let _ = hand.call(Call::Shut(Shutdown::Write));
        let crossing = hand.segment(FIN, 1, 1, &[]);
        hand.gives(&crossing);
        assert_eq!(hand.state(), State::Closing);
        hand.seq += 1;
        hand.acks();
        assert_eq!(hand.state(), State::TimeWait);
    });
}

/// W19: a FIN with text, and text behind a FIN, which is nobody's.
#[test]
fn w19_fin_with_text_and_text_behind_it() {
    both(|hand| {
        hand.opens();
        hand.says(FIN, b"the end");
        // Its acknowledgment is put off, for the user's own FIN.
        hand.wait(60);
        assert_eq!(hand.state(), State::CloseWait);
        hand.says(Flags::ACK, b"and more");
        hand.says(FIN, b"and more");
        assert_eq!(hand.call(Call::Receive(100)), Ok(7));
        assert_eq!(hand.call(Call::Receive(100)), Ok(0));
        assert_eq!(hand.call(Call::Send(10)), Ok(10));
        hand.seq = 9;
        hand.acks();
        let _ = hand.call(Call::Close);
        hand.acks();
        assert_eq!(hand.state(), State::Closed);
    });
    // Behind a gap the FIN waits for what is before it. The kernel keeps it and reports it; ours has it sent again.
    each(|hand| {
        hand.opens();
        let last = hand.segment(FIN, 5, 1, b"end");
        hand.gives(&last);
        assert_eq!(hand.state(), State::Established);
        hand.says(Flags::ACK, b"the ");
        hand.gives(&last);
        assert_eq!(hand.state(), State::CloseWait);
        assert_eq!(hand.call(Call::Receive(100)), Ok(7));
    });
}

/// W19: who has finished still hears, also after hours; who has closed hears nothing.
#[test]
fn w19_half_close() {
    let talk = |hand: &mut Hand<'_>, hours: u64| {
        hand.opens();
        let _ = hand.call(Call::Shut(Shutdown::Write));
        hand.acks();
        assert_eq!(hand.state(), State::FinWait2);
        if hours > 0 {
            hand.wait(hours * 3_600_000);
        }
        hand.says(Flags::ACK | Flags::PSH, b"still there?");
        assert_eq!(hand.call(Call::Receive(100)), Ok(12));
        assert_eq!(hand.call(Call::Send(1)), Err(libc::EPIPE));
        hand.says(FIN, &[]);
        assert_eq!(hand.state(), State::TimeWait);
    };
    both(|hand| talk(hand, 0));
    let mut ours = Ours::new();
    talk(&mut Hand::new(&mut ours), 10);
    // Text after close(2) is lost, and its sender is told.
    both(|hand| {
        hand.opens();
        let _ = hand.call(Call::Close);
        hand.acks();
        assert_eq!(hand.state(), State::FinWait2);
        hand.says(Flags::ACK, b"nobody reads this");
        assert_eq!(hand.state(), State::Closed);
    });
}

/// The subject has sent ten full segments, which nobody has acknowledged.
fn ten_in_flight(hand: &mut Hand<'_>) {
    (hand.window, hand.rtt_ms) = (60_000, 60);
    hand.opens();
    assert_eq!(hand.call(Call::Send(10 * MSS as usize)), Ok(10 * MSS as usize));
    assert_eq!(hand.ack, 10 * MSS + 1);
}

/// W8: what no receiver says is passed by, block for block; what is right beside it counts.
#[test]
fn w8_blocks_of_sack_that_cannot_be_are_passed_by() {
    let end = 10 * MSS + 1;
    let cases: [&[(u32, u32)]; 9] = [
        // Beyond SND.NXT, across it, and far away.
        &[(end, end + MSS)],
        &[(end - MSS, end + 1)],
        &[(1 << 31, (1 << 31) + 100)],
        // Reversed, and empty.
        &[(5 * MSS + 1, 3 * MSS + 1)],
        &[(5 * MSS + 1, 5 * MSS + 1)],
        // Below SND.UNA: a D-SACK of what was never sent twice.
        &[(0u32.wrapping_sub(5000), 0u32.wrapping_sub(3000))],
        // The whole of everything.
        &[(1, end)],
        // Overlapping ones.
        &[(7 * MSS + 1, end), (9 * MSS + 1, end), (7 * MSS + 2, end - 1)],
        // A right one between wrong ones.
        &[(end + 5, end + 50), (7 * MSS + 1, end), (7, 3)],
    ];
    for blocks in cases {
        let mut ours = both(|hand| {
            ten_in_flight(hand);
            hand.sacks(1, blocks);
            hand.sacks(1, blocks);
            // And it goes on: all of it is acknowledged, and the next text leaves.
            hand.acks();
            assert_eq!(hand.call(Call::Send(100)), Ok(100));
        });
        let held = ours.bench.host().held();
        assert!(held[3] <= 2, "{blocks:?}: {held:?} frames for one segment");
    }
}

/// W8: a receiver that takes back what it has reported: all of it is sent again after the timeout.
#[test]
fn w8_a_receiver_that_reneges_is_served() {
    let mut ours = Ours::new();
    let mut hand = Hand::new(&mut ours);
    ten_in_flight(&mut hand);
    hand.sacks(1, &[(MSS + 1, 10 * MSS + 1)]);
    // It drops all of that, and acknowledges what comes again, one by one and without a block.
    let mut received = 1;
    for _ in 0..12 {
        // Half a round trip, and a tick of the wheel; not a timeout.
        let mut heard = hand.wait(40);
        while !heard.is_empty() {
            for segment in &heard {
                received += if hand.seq_of(segment) == received { MSS } else { 0 };
            }
            heard = hand.sacks(received, &[]);
        }
    }
    assert_eq!(received, 10 * MSS + 1, "{}", hand.lines.join("\n"));
    let socket = ours.socket().expect("a connection");
    let left = ours.bench.with(|stack| stack.parts.tcb(socket).map(|tcb| tcb.snd.nxt - tcb.snd.una));
    assert_eq!(left, Ok(0), "all of it has arrived");
    assert!(ours.bench.host().counter(Counter::SackReneged) > 0);
    ours.bench.host().check();
}

/// W9: RFC 5961 §5.2: only SND.UNA − MAX.SND.WND to SND.NXT is acceptable; all else is answered with an acknowledgment.
#[test]
fn w9_acknowledgments_of_what_was_never_sent() {
    both(|hand| {
        ten_in_flight(hand);
        let end = hand.ack;
        hand.sacks(end + 1, &[]);
        assert_eq!(hand.state(), State::Established);
        hand.acks();
        assert_eq!(hand.call(Call::Send(10)), Ok(10));
    });
    // Far below; just below, which is but old.
    for back in [1 << 30, 60_001 << 7, 1000, 1] {
        both(|hand| {
            ten_in_flight(hand);
            hand.acks();
            let old = hand.ack.wrapping_sub(back);
            hand.sacks(old, &[]);
            let text = hand.segment(Flags::ACK, hand.seq, old, b"with text");
            hand.gives(&text);
            hand.call(Call::Receive(100)).ok();
        });
    }
}

/// W9 (smoltcp#489, gvisor#10312): a window whose right edge moves left.
#[test]
fn w9_a_window_that_shrinks() {
    both(|hand| {
        ten_in_flight(hand);
        // Less than is in flight, then none, then what was there.
        hand.window = 20;
        hand.sacks(MSS + 1, &[]);
        assert_eq!(hand.call(Call::Send(20_000)), Ok(20_000));
        hand.window = 0;
        hand.sacks(2 * MSS + 1, &[]);
        hand.window = 500;
        hand.sacks(10 * MSS + 1, &[]);
        hand.acks();
        hand.acks();
        hand.acks();
    });
    // And from nothing in flight to a closed window, which is probed until it opens.
    both(|hand| {
        hand.opens();
        hand.window = 0;
        hand.acks();
        assert_eq!(hand.call(Call::Send(3000)), Ok(3000));
        let probe = hand.wait(350);
        assert_eq!((probe.len(), probe[0].text.len()), (1, 0), "a probe");
        hand.acks();
        hand.window = 1000;
        hand.acks();
        assert_eq!(hand.ack, 3001);
    });
}

/// W21: PAWS, and what has no timestamp.
#[test]
fn w21_timestamps_of_the_past() {
    both(|hand| {
        hand.tsval = Some(1000);
        hand.opens();
        hand.tsval = Some(1500);
        hand.says(Flags::ACK, b"now");
        // A duplicate of the past, and new text with a stamp of the past: dropped with an acknowledgment.
        hand.tsval = Some(900);
        let past = hand.segment(Flags::ACK, hand.seq, hand.ack, b"then");
        hand.gives(&past);
        assert_eq!(hand.call(Call::Receive(100)), Ok(3));
        // A reset is none of its business (RFC 7323 §5.3).
        hand.tsval = Some(1600);
        hand.says(Flags::ACK, b"later");
        assert_eq!(hand.call(Call::Receive(100)), Ok(5));
    });
    // google/gvisor#11536.
    both(|hand| {
        hand.tsval = Some(1000);
        hand.opens();
        hand.says(Flags::ACK, b"with");
        hand.tsval = None;
        hand.says(Flags::ACK, b"without");
        assert_eq!(hand.call(Call::Receive(100)), Ok(11));
        assert_eq!(hand.call(Call::Send(10)), Ok(10));
        hand.acks();
        hand.says(FIN, &[]);
        hand.wait(60);
        let _ = hand.call(Call::Close);
        hand.acks();
        assert_eq!(hand.state(), State::Closed);
    });
}

/// W21: after 24.8 days of silence the other's clock has gone half round, and after 49.7 once; RFC 7323 §5.5 lets 24 days be the limit.
#[test]
fn w21_a_clock_that_goes_round() {
    for (days, is_taken) in [(1, false), (23, false), (25, true), (49, true)] {
        let mut ours = Ours::new();
        let mut hand = Hand::new(&mut ours);
        hand.tsval = Some(1000);
        hand.opens();
        hand.says(Flags::ACK, b"before");
        assert_eq!(hand.call(Call::Receive(100)), Ok(6));
        hand.wait(days * 86_400_000);
        // Behind, on the circle: half a round and a bit further.
        hand.tsval = Some(1000u32.wrapping_add((1 << 31) + 5));
        hand.says(Flags::ACK, b"after");
        let read = hand.call(Call::Receive(100));
        assert_eq!(read, if is_taken { Ok(5) } else { Err(libc::EAGAIN) }, "{days} days");
    }
    // In steps of less it goes round without a loss.
    let mut ours = Ours::new();
    let mut hand = Hand::new(&mut ours);
    hand.tsval = Some(u32::MAX - 100_000_000);
    hand.opens();
    for day in 0..60u32 {
        hand.says(Flags::ACK, b"day by day");
        assert_eq!(hand.call(Call::Receive(100)), Ok(10), "{day}");
        hand.tsval = hand.tsval.map(|tsval| tsval.wrapping_add(86_400_000));
        hand.wait(86_400_000);
    }
    assert_eq!(ours.bench.host().counter(Counter::PawsDropped), 0);
}

/// W25: a segment that is acknowledged byte by byte counts once (RFC 3465 §2.1: by octets).
#[test]
fn w25_acknowledgments_in_pieces_gain_nothing() {
    // The kernel waits for more, to send a large packet at once (tcp_tso_should_defer): what each has sent is compared, and not when.
    let sent = each(|hand| {
        (hand.window, hand.rtt_ms) = (60_000, 60);
        hand.opens();
        assert_eq!(hand.call(Call::Send(40 * MSS as usize)), Ok(40 * MSS as usize));
        for piece in 1..=146 {
            hand.sacks(1 + piece * 10, &[]);
        }
        hand.ack
    });
    // One segment has left the network: ten were there, one follows it, and one is slow start's.
    assert_eq!(sent.0, 12 * MSS + 1);
    assert!(sent.1.is_none_or(|theirs| theirs <= sent.0));
}

/// W25: duplicates that nobody sent a segment for: with SACK they say nothing; without it, as each may be true, they let go no more than
/// in Linux.
#[test]
fn w25_duplicate_acknowledgments_that_are_made_up() {
    for sack in [true, false] {
        for count in [2, 3, 10, 20, 100] {
            let (ours, theirs) = each(|hand| {
                (hand.window, hand.rtt_ms) = (60_000, 60);
                hand.syn = Options { sack_permitted: sack, ..hand.syn };
                hand.opens();
                assert_eq!(hand.call(Call::Send(40 * MSS as usize)), Ok(40 * MSS as usize));
                let text = (0..count).map(|_| hand.sacks(1, &[])).map(|heard| heard.len()).sum::<usize>();
                (text, hand.ack)
            });
            if sack {
                assert_eq!(ours, (0, 10 * MSS + 1), "{count}");
            }
            // Limited transmit's two segments wait there, as above.
            assert!(
                theirs.is_none_or(|theirs| ours.0 <= theirs.0 + 2),
                "{count}: {ours:?}, Linux {theirs:?}"
            );
        }
    }
}

/// W25: what was sent and has not arrived is acknowledged: the window grows as if it had, and no faster.
#[test]
fn w25_optimistic_acknowledgments() {
    both(|hand| {
        (hand.window, hand.rtt_ms) = (60_000, 60);
        hand.opens();
        assert_eq!(hand.call(Call::Send(40 * MSS as usize)), Ok(40 * MSS as usize));
        for segments in [10, 15, 20] {
            hand.sacks(segments * MSS + 1, &[]);
        }
        // Beyond what was sent: nothing is gained.
        let before = hand.ack;
        hand.sacks(before + MSS, &[]);
        assert_eq!(hand.ack, before);
    });
}
