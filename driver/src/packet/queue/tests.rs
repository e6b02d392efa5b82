use super::*;

fn queue() -> Queue {
    memory().and_then(|file| Queue::map(&file)).expect("a queue")
}

fn pieces(first: u32, count: usize) -> Vec<Fragment> {
    let piece = |at: u32| Fragment { frame: FrameIndex(first + at), offset: 128, len: 1448 + at as u16 };
    (0..count as u32).map(piece).collect()
}

const HEADER: Header = Header::cut(Cut::TcpV6, 1428, 86, (54, 16));

fn all_sent(queue: &Queue) -> usize {
    let mut count = 0;
    while let Some(next) = queue.next() {
        queue.pass(&next, Outcome::Sent);
        count += 1;
    }
    count
}

#[test]
fn packets_come_out_as_they_went_in() {
    let (queue, mut frames) = (queue(), [FrameIndex(0); 256]);
    for round in 0..2000u32 {
        let (one, other) = (pieces(round * 100, 45), pieces(round * 100 + 50, 1));
        assert!(queue.push(&HEADER, &one) && queue.push(&Header::whole(54), &other));
        for (header, expected) in [(HEADER, &one), (Header::whole(54), &other)] {
            let next = queue.next().expect("a packet");
            assert_eq!((next.header, &next.pieces[..next.count]), (header, &expected[..]));
            assert!(queue.is_busy());
            queue.pass(&next, Outcome::Sent);
        }
        assert!(!queue.is_busy());
        let count = queue.completions(&mut frames);
        let expected: Vec<FrameIndex> = one.iter().chain(&other).map(|piece| piece.frame).collect();
        assert_eq!(&frames[..count], expected);
    }
}

/// Frames are the stack's again only once the kernel has copied them, and there is room only then.
#[test]
fn nothing_is_complete_before_it_was_sent() {
    let (queue, mut frames) = (queue(), [FrameIndex(0); 10]);
    let mut count = 0;
    while queue.push(&HEADER, &pieces(count * 64, PIECES)) {
        count += 1;
    }
    assert!(count > 100 && queue.room() < PIECES);
    assert_eq!(queue.completions(&mut frames), 0);
    assert_eq!(all_sent(&queue), count as usize);
    assert!(queue.room() < PIECES, "they were not taken yet");
    let mut taken = Vec::new();
    loop {
        let len = queue.completions(&mut frames);
        taken.extend_from_slice(&frames[..len]);
        if len == 0 {
            break;
        }
    }
    let expected: Vec<FrameIndex> = (0..count * 64).map(FrameIndex).collect();
    assert!(taken == expected && queue.push(&HEADER, &pieces(0, PIECES)));
}

#[test]
fn what_the_kernel_does_not_take_is_complete_all_the_same_and_counted() {
    let (queue, mut frames) = (queue(), [FrameIndex(0); 10]);
    for (outcome, lost, refuses) in
        [(Outcome::Sent, 0, false), (Outcome::Lost, 1, false), (Outcome::Refused, 1, true)]
    {
        assert!(queue.push(&HEADER, &pieces(7, 2)));
        let next = queue.next().expect("a packet");
        queue.pass(&next, outcome);
        assert_eq!((queue.completions(&mut frames), queue.lost(), queue.refuses()), (2, lost, refuses));
    }
}

/// Another process died in the middle of something, or writes what it likes.
#[test]
fn words_that_make_no_sense_are_bounded() {
    let (queue, mut frames) = (queue(), [FrameIndex(0); 64]);
    let mut value = 1u64;
    for _ in 0..20_000 {
        for at in [QUEUED, TAKEN, SENT, RING, RING + 1, RING + 77] {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            queue.word(at).store(if value & 3 == 0 { value >> 40 } else { value }, Ordering::Relaxed);
        }
        let next = queue.next();
        assert!(next.is_none_or(|next| next.count <= PIECES));
        assert!(queue.completions(&mut frames) <= frames.len() && queue.room() < WORDS as usize);
        queue.push(&HEADER, &pieces(0, 3));
    }
}

#[test]
fn memory_that_is_too_small_is_refused() {
    let file = sys::memfd_create(NAME, libc::MFD_CLOEXEC).expect("a file");
    sys::ftruncate(&file, 4096).expect("room");
    assert_eq!(Queue::map(&file).err(), Some(Errno(libc::EINVAL)));
}
