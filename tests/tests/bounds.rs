//! What an attacker gets out of our stack, in memory and in answers, beside what it gets out of Linux: never more. Rows W5, W6, W9, W11 and
//! W15 of the list of attacks, where the kernel tells what they cost it.

use harness::sim::raw::ip;
use harness::wire::hand::{Call, Hand, Ours, Subject, ask_kernel};
use stack::wire::tcp::Flags;

/// What both come to; ours alone without the rights of root.
fn each<R>(attack: impl Fn(&mut dyn Subject) -> R) -> (R, Option<R>) {
    let mut ours = Ours::new();
    let our_own = attack(&mut ours);
    ours.bench.host().check();
    (our_own, ask_kernel(|kernel| attack(kernel)))
}

/// W15: a listener with a backlog of 8 that may send no cookies keeps as many handshakes as in Linux, however many are begun.
#[test]
fn w15_handshakes_that_nobody_ends() {
    let (ours, theirs) = each(|subject| {
        subject.sets("tcp_syncookies", 0);
        let mut hand = Hand::new(subject);
        let _ = hand.call(Call::Listen);
        let syn = hand.segment(Flags::SYN, 0, 0, &[]);
        let answered = |port: u16, hand: &mut Hand<'_>| {
            let mut syn = syn.clone();
            syn.ends.0 = (ip(2), port);
            hand.subject.hears(&syn).iter().filter(|heard| heard.flags.has(Flags::SYN | Flags::ACK)).count()
        };
        (1000..1200).map(|port| answered(port, &mut hand)).sum::<usize>()
    });
    println!("{ours} of 200 SYNs are answered, Linux {theirs:?}");
    assert!(ours <= 9 && theirs.is_none_or(|theirs| ours <= theirs), "{ours}, Linux {theirs:?}");
}

/// W5, W9, W11: what is wrong is answered by an acknowledgment, and not each time (RFC 5961 §10).
#[test]
fn w5_w9_w11_answers_to_what_is_wrong() {
    let rst_ack = Flags(Flags::RST.0 | Flags::ACK.0);
    let cases: [(&str, Flags, u32, u32, usize); 7] = [
        ("RST in the window", Flags::RST, 5, 0, 0),
        ("RST,ACK in the window", rst_ack, 5, 0, 0),
        ("SYN in the window", Flags::SYN, 5, 0, 0),
        ("ACK of what was never sent", Flags::ACK, 0, 70_000, 0),
        ("ACK of long ago", Flags::ACK, 0, 0x9000_0000, 0),
        ("nothing, far beyond", Flags::ACK, 1 << 30, 0, 0),
        ("text of before", Flags::ACK, 0xffff_ff00, 0, 10),
    ];
    for (name, flags, seq, ack, len) in cases {
        let (ours, theirs) = each(|subject| {
            let mut hand = Hand::new(subject);
            hand.opens();
            let (seq, ack) = (hand.seq.wrapping_add(seq), hand.ack.wrapping_add(ack));
            let wrong = hand.segment(flags, seq, ack, &vec![7; len]);
            (0..200).map(|_| hand.gives(&wrong).len()).sum::<usize>()
        });
        println!("{name}: 200 times, {ours} answers, Linux {theirs:?}");
        assert!(theirs.is_none_or(|theirs| ours <= theirs), "{name}: {ours} answers, Linux {theirs:?}");
    }
}

/// W6: single octets with holes between them, in no order.
#[test]
fn w6_memory_for_single_octets_with_holes() {
    let (ours, theirs) = each(|subject| {
        let mut hand = Hand::new(subject);
        hand.opens();
        let mut most = 0;
        for number in 0..1000u32 {
            let place = 2 * (number * 7919 % 30_000) + 1;
            let octet = hand.segment(Flags::ACK, hand.seq.wrapping_add(place), hand.ack, b"x");
            hand.subject.hears(&octet);
            most = most.max(if number % 50 == 49 { hand.subject.holds() } else { 0 });
        }
        most
    });
    println!("{ours} bytes are held for 1,000 octets with holes, Linux {theirs:?}");
    assert!(theirs.is_none_or(|theirs| ours <= theirs), "{ours} bytes, Linux {theirs:?}");
}

/// The same in order, and never read.
#[test]
fn w6_memory_for_single_octets_that_nobody_reads() {
    let (ours, theirs) = each(|subject| {
        let mut hand = Hand::new(subject);
        hand.opens();
        for _ in 0..1000 {
            let octet = hand.segment(Flags::ACK, hand.seq, hand.ack, b"x");
            hand.seq += 1;
            hand.subject.hears(&octet);
        }
        hand.subject.holds()
    });
    println!("{ours} bytes are held for 1,000 octets, Linux {theirs:?}");
    assert!(
        ours <= 16 * 2048 && theirs.is_none_or(|theirs| ours <= theirs),
        "{ours} bytes, Linux {theirs:?}"
    );
}
