//! The queue against a queue of datagrams.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::frames::tests::World;
use crate::wire::ip::Ip;

/// A datagram of the model: its data, bytes of each of its segments, and what was dropped before it.
type Model = VecDeque<(Vec<u8>, u16, u32)>;

/// Frames with this text, which are the socket's.
fn kept(world: &mut World, pieces: &[Vec<u8>], offset: u16) -> Option<Vec<Fragment>> {
    pieces
        .iter()
        .map(|text| {
            let frame = world.arrived(0, offset, text)?;
            world.with(|means| means.frames.keep(frame, means.charge, means.owner)).ok()?;
            Some(Fragment { frame, offset, len: text.len() as u16 })
        })
        .collect()
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn it_is_a_queue_of_datagrams(
        acts in proptest::collection::vec((0u8..8, any::<u16>(), any::<u16>()), 1..120),
    ) {
        let mut world = World::ample(48);
        let (mut list, mut model, mut made) = (FrameList::default(), Model::new(), 0u32);
        for (act, a, b) in acts {
            made += 1;
            let text = |len: u16| (0..len).map(|at| (made * 31 + u32::from(at)) as u8).collect::<Vec<u8>>();
            match act {
                0..=2 => {
                    let count = if act == 2 { 1 + usize::from(b % 4) } else { 1 };
                    let pieces = vec![text(a % [2, 200, 1500][usize::from(b % 3)]); count];
                    let used: u32 = list.frames() + count as u32;
                    if used > 40 {
                        continue;
                    }
                    let places = kept(&mut world, &pieces, 40 + b % 200).expect("room");
                    let len = pieces.iter().map(|piece| piece.len() as u32).sum();
                    let head = Head { arrived: Instant(a.into()), begin: b, len, segment: 0, drops: made };
                    push(&mut world.frames(), &mut list, &head, &places);
                    model.push_back((pieces.concat(), 0, made));
                }
                3 => {
                    // As long as the last one, or as its segments, or not.
                    let Some((last, segment, _)) = model.back_mut().filter(|_| list.frames() < 40) else { continue };
                    let each = if *segment == 0 { last.len() } else { usize::from(*segment) };
                    let len = [each, each.saturating_sub(1), each + 1][usize::from(b % 3)].min(1500) as u16;
                    let places = kept(&mut world, &[text(len)], 40).expect("room");
                    let joins = len > 0 && usize::from(len) <= each && last.len().is_multiple_of(each);
                    prop_assert_eq!(join(&mut world.frames(), &mut list, places[0]), joins);
                    if joins {
                        last.extend(text(len));
                        *segment = each as u16;
                    } else {
                        let frame = places[0].frame;
                        world.with(|means| means.frames.release(frame, means.charge));
                    }
                }
                4 | 5 => {
                    let (skip, room) = (usize::from(a) % 3000, usize::from(b) % 3000);
                    let mut bytes = vec![0; room];
                    let (first, rest) = bytes.split_at_mut(room / 3);
                    let copied = world.with(|means| copy(means.frames, &list, &*means.memory, skip, &mut [first, &mut [], rest]));
                    let expected: Vec<u8> = model.front().map_or(Vec::new(), |(data, ..)| {
                        data.iter().skip(skip).take(room).copied().collect()
                    });
                    prop_assert_eq!(&bytes[..copied], &expected[..]);
                }
                _ => {
                    world.with(|means| pop(means.frames, &mut list, means.charge));
                    model.pop_front();
                }
            }
            let frames = world.frames();
            prop_assert_eq!(check(&frames, &list), Ok(()));
            let head = first(&frames, &list).map(|(_, head)| (head.len as usize, head.segment, head.drops));
            prop_assert_eq!(head, model.front().map(|(data, segment, drops)| (data.len(), *segment, *drops)));
            let tail = last(&frames, &list).map(|(_, head)| (head.len as usize, head.segment, head.drops));
            prop_assert_eq!(tail, model.back().map(|(data, segment, drops)| (data.len(), *segment, *drops)));
            prop_assert_eq!(world.charge.frames, list.frames());
        }
        world.with(|means| clear(means.frames, &mut list, means.charge));
        prop_assert_eq!((list, world.charge.frames, world.pool.used()), (FrameList::default(), 0, 0));
    }

    #[test]
    fn nonsense_is_survived(numbers in any::<[u32; 4]>(), words in proptest::collection::vec(any::<[u32; 6]>(), 8), small: bool) {
        let mut world = World::ample(8);
        let bound = |number: u32| if small { number % 10 } else { number };
        for (record, word) in world.records.iter_mut().zip(words) {
            (record.next, record.side_previous, record.delivered) = (bound(word[0]), bound(word[1]), word[2]);
            (record.mate, record.flags, record.offset) = (word[3], word[4] as u16, (word[4] >> 16) as u16);
            record.len = word[5] as u16;
        }
        let [head, tail, frames, bytes] = numbers.map(bound);
        let mut list = FrameList::nonsense(head, tail, frames, bytes);
        world.with(|means| {
            let _ = check(means.frames, &list);
            let _ = copy(means.frames, &list, &*means.memory, 3, &mut [&mut [0; 100]]);
            let _ = join(means.frames, &mut list, Fragment { frame: FrameIndex(3), offset: 1, len: 100 });
            pop(means.frames, &mut list, means.charge);
            clear(means.frames, &mut list, means.charge);
        });
    }
}

#[test]
fn what_the_headers_say_is_read_where_they_stand() {
    let (from, to) = (Ip::v4([192, 0, 2, 1]), Ip::v4([198, 51, 100, 7]));
    let mut bytes = [0; 80];
    let header = ipv4::Header::new(&from, &to, 17, 9).expect("IPv4");
    ipv4::Header { tos: 0xb8, ..header }.emit(8, &mut bytes[14..]).expect("room");
    bytes[34..36].copy_from_slice(&53u16.to_be_bytes());
    let said = Said { source: (from, 53), destination: to, ttl: 9, tos: 0xb8 };
    assert_eq!(Said::read(&bytes, 14, 42), Some(said));
    let (from, to) = (Ip([0xfd; 16]), Ip([0xfe; 16]));
    let header = ipv6::Header::new(&from, &to, 17, 7).expect("IPv6");
    header.with_flow(0x2e, 0x12345).emit(8, &mut bytes[..]).expect("room");
    bytes[40..42].copy_from_slice(&54u16.to_be_bytes());
    let said = Said { source: (from, 54), destination: to, ttl: 7, tos: 0x2e };
    assert_eq!(Said::read(&bytes, 0, 48), Some(said));
    assert_eq!(
        (Said::read(&bytes, 70, 80), Said::read(&bytes, 0, 7), Said::read(&bytes, 90, 99)),
        (None, None, None)
    );
}
