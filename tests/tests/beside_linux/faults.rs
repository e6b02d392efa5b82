//! Rows F30 to F34 of the list of faults: paths that lose, go silent and come back, windows that close, buffers that fill, and small
//! writes. What `adversity.rs` bounds in virtual time is here what Linux does.

use harness::wire::hand::{Call, Hand};
use stack::wire::tcp::Flags;

use super::{MSS, both, each, each_at_leisure};

/// A connection whose handshake took 60 ms, to a hand that takes much.
fn opens(hand: &mut Hand<'_>) {
    (hand.window, hand.rtt_ms) = (60_000, 60);
    hand.opens();
}

/// Segments that were heard so far.
fn heard(hand: &Hand<'_>) -> usize {
    hand.lines.iter().filter(|line| line.starts_with('>')).count()
}

/// F30: what overtakes is told as it comes, what comes twice is told once more (RFC 2018, RFC 2883), and each byte is read once.
#[test]
fn f30_what_is_reordered_or_comes_twice_is_read_once() {
    both(|hand| {
        hand.opens();
        let piece = |hand: &Hand<'_>, at: u32, len: usize| hand.segment(Flags::ACK, 1 + at, 1, &vec![7; len]);
        // The second, the fourth, the first, the third.
        for at in [100, 300, 0, 200] {
            let next = piece(hand, at, 100);
            hand.gives(&next);
        }
        assert_eq!(hand.call(Call::Receive(1000)), Ok(400));
        // All of one again, a part of what is known, and more behind what is known.
        for (at, len) in [(0, 100), (150, 100), (350, 150)] {
            let again = piece(hand, at, len);
            hand.gives(&again);
        }
        assert_eq!(hand.call(Call::Receive(1000)), Ok(100));
    });
}

/// F30: a path that is away for as short as a round trip is nobody's business.
#[test]
fn f30_a_short_silence_costs_nothing() {
    both(|hand| {
        opens(hand);
        for _ in 0..3 {
            assert_eq!(hand.call(Call::Send(3 * MSS as usize)), Ok(3 * MSS as usize));
            assert!(hand.wait(90).is_empty(), "nothing is late yet");
            hand.acks();
        }
    });
}

/// F30: a longer one is asked with a probe of the tail, and then with timeouts that double; what comes then is as if nothing had been.
#[test]
fn f30_a_long_silence_is_probed_and_then_timed_out() {
    both(|hand| {
        opens(hand);
        assert_eq!(hand.call(Call::Send(3 * MSS as usize)), Ok(3 * MSS as usize));
        assert_eq!(hand.wait(200).len(), 1, "a probe");
        assert_eq!(hand.wait(1250).len(), 2, "two timeouts");
        hand.acks();
        assert_eq!(hand.call(Call::Send(2 * MSS as usize)), Ok(2 * MSS as usize));
        hand.acks();
        hand.acks();
    });
}

/// F30: a peer that is gone for ever is given up after as long as the administrator says (tcp_retries2), and its user is told.
#[test]
fn f30_a_peer_that_is_gone_is_given_up() {
    both(|hand| {
        hand.subject.sets("tcp_retries2", 3);
        opens(hand);
        assert_eq!(hand.call(Call::Send(100)), Ok(100));
        hand.wait(5200);
        assert_eq!(hand.call(Call::Error), Ok(libc::ETIMEDOUT as usize));
        hand.state();
        assert_eq!(hand.call(Call::Send(100)), Err(libc::EPIPE));
    });
}

/// F31: on a path of microseconds a lost tail is sent again no later than after the smallest timeout, which is 200 ms.
#[test]
fn f31_a_lost_tail_on_a_short_path_is_repaired_within_the_smallest_timeout() {
    for arrives in [0, 5, 9] {
        let talk = |hand: &mut Hand<'_>| {
            hand.window = 60_000;
            hand.opens();
            assert_eq!(hand.call(Call::Send(10 * MSS as usize)), Ok(10 * MSS as usize));
            hand.sacks(arrives * MSS + 1, &[]);
            let again = hand.wait(240);
            let last = again.last().map(|segment| hand.seq_of(segment));
            hand.acks();
            (again.is_empty(), last.is_some_and(|seq| seq > arrives * MSS))
        };
        let (ours, theirs) = each(talk);
        assert_eq!((ours, theirs.unwrap_or(ours)), ((false, true), (false, true)), "{arrives} arrive");
    }
}

/// F32: a window that stays closed is probed at intervals that double, as long as the peer answers; when it opens, text leaves at once.
#[test]
fn f32_a_closed_window_is_probed_and_used_when_it_opens() {
    both(|hand| {
        opens(hand);
        hand.window = 0;
        hand.acks();
        assert_eq!(hand.call(Call::Send(3000)), Ok(3000));
        for wait in [420, 800, 1500] {
            let probe = hand.wait(wait);
            assert_eq!((probe.len(), probe.iter().map(|probe| probe.text.len()).sum::<usize>()), (1, 0));
            hand.acks();
        }
        hand.window = 20_000;
        hand.acks();
        assert_eq!(hand.ack, 3001, "without another probe");
        assert_eq!(hand.call(Call::Error), Ok(0));
    });
}

/// F32: a reader of a byte now and then opens no silly window (RFC 9293 MUST-39), and one that reads all tells so at once.
#[test]
fn f32_a_slow_reader_tells_of_no_small_window() {
    let talk = |hand: &mut Hand<'_>| {
        let _ = hand.call(Call::Listen);
        let answer = hand.says(Flags::SYN, &[]);
        let scale = answer.first().and_then(|segment| segment.options.window_scale).unwrap_or(0);
        hand.says(Flags::ACK, &[]);
        let _ = hand.call(Call::Accept);
        let (mut window, mut sent) = (MSS, 0);
        // As much as it takes, and half a second for each time that it delays its acknowledgment.
        while window > 0 && sent < 64 << 20 {
            let len = window.min(MSS);
            let mut said = hand.says(Flags::ACK | Flags::PSH, &vec![7; len as usize]);
            if said.is_empty() {
                said = hand.wait(50);
            }
            sent += len;
            if let Some(last) = said.last() {
                let taken = hand.segment(Flags::ACK, hand.seq, hand.ack, &[]).seq.wrapping_sub(last.ack);
                window = (u32::from(last.window) << scale).saturating_sub(taken);
            }
        }
        let before = heard(hand);
        for _ in 0..20 {
            assert_eq!(hand.call(Call::Receive(1)), Ok(1));
        }
        let silly = heard(hand) - before;
        assert_eq!(hand.call(Call::Receive(sent as usize)), Ok(sent as usize - 20));
        (window, silly, heard(hand) - before > silly)
    };
    let (ours, theirs) = each_at_leisure(talk);
    assert_eq!((ours, theirs.unwrap_or(ours)), ((0, 0, true), (0, 0, true)));
}

/// F33: a writer that sleeps until it is told (EPOLLET) is told after each time that its buffer was full, also when a timeout has cut the
/// window to one segment meanwhile.
#[test]
fn f33_a_writer_that_waits_is_told_each_time() {
    let talk = |hand: &mut Hand<'_>| {
        opens(hand);
        let mut edges = vec![hand.call(Call::Opening)];
        for silence in [0, 700, 0, 1200] {
            // Each time it writes until there is no room.
            while hand.call(Call::Send(64 << 10)).is_ok() {}
            edges.push(hand.call(Call::Opening));
            hand.wait(silence);
            let told = (0..2000).any(|_| {
                hand.acks();
                hand.call(Call::Opening) == Ok(1)
            });
            edges.push(Ok(told.into()));
        }
        edges
    };
    let (ours, theirs) = each_at_leisure(talk);
    assert_eq!(ours, [1, 0, 1, 0, 1, 0, 1, 0, 1].map(Ok).to_vec());
    assert!(theirs.as_ref().is_none_or(|theirs| *theirs == ours), "{ours:?}, Linux {theirs:?}");
}

/// F34: which of small writes waits for an acknowledgment (RFC 9293 SHLD-7, with Minshall's change), line by line.
#[test]
fn f34_small_writes_wait_for_what_they_wait_for_in_linux() {
    let full = MSS as usize;
    for writes in [
        &[100, 100, 100][..],
        &[full - 1, 1],
        &[full + 1, 1],
        &[full, 1, 1],
        &[2 * full + 500, 10],
        &[1, full],
        &[1, 2 * full + 1],
        &[full - 100, 200, full],
    ] {
        both(|hand| {
            opens(hand);
            for write in writes {
                assert_eq!(hand.call(Call::Send(*write)), Ok(*write));
            }
            while !hand.acks().is_empty() {}
            assert_eq!(hand.ack as usize, 1 + writes.iter().sum::<usize>());
        });
    }
}

/// F34: acknowledgments of small segments that are read as they come, and of those that nobody reads.
#[test]
fn f34_small_segments_are_acknowledged_as_in_linux() {
    let talk = |hand: &mut Hand<'_>, reads: bool| {
        hand.opens();
        let mut longest = 0;
        for _ in 0..40 {
            let before = heard(hand);
            hand.says(Flags::ACK, b"odd");
            if reads {
                assert_eq!(hand.call(Call::Receive(10)), Ok(3));
            }
            let mut waited = 0;
            // No longer than the least that Linux delays one by, and a tick.
            while heard(hand) == before && waited < 60 {
                hand.wait(10);
                waited += 10;
            }
            longest = longest.max(waited);
        }
        longest
    };
    for reads in [true, false] {
        let (ours, theirs) = each_at_leisure(|hand| talk(hand, reads));
        assert!(ours <= 50 && theirs.is_none_or(|theirs| ours <= theirs + 10), "{ours} ms, Linux {theirs:?}");
    }
}
