//! What a datagram's bytes are, whole and in pieces.

use proptest::prelude::*;

use super::*;
use crate::device::FrameIndex;
use crate::frames::tests::{Bytes, FRAME_SIZE};
use crate::wire::udp;

const FROM: Ip = Ip::v4([192, 0, 2, 1]);
const TO: Ip = Ip::v4([198, 51, 100, 7]);

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// However the user's text lies in his slices, and however the datagram is cut, its bytes are the same.
    #[test]
    fn pieces_are_parts_of_the_whole(
        slices in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70), 0..6),
        skip in 0usize..50, cuts in proptest::collection::vec(1usize..12, 0..8), is_unchecked: bool,
    ) {
        let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
        let all: Vec<u8> = slices.concat();
        let text = Text::Users(&slices);
        prop_assert_eq!(text.len(), all.len());
        let at = skip.min(all.len());
        let draft =
            Draft { source: (FROM, 53), remote: (TO, 99), text, at, len: all.len() - at, is_unchecked };
        let mut whole = vec![0; HEADER_LEN + draft.len];
        prop_assert!(draft.put_slices(&slices, None, 0, &mut whole));
        let (header, data) = udp::parse(&whole, true).expect("a datagram");
        prop_assert_eq!(data, &all[at..]);
        prop_assert_eq!(udp::verify(header, data, &FROM, &TO), Ok(()));
        prop_assert_eq!(header.checksum.get() == 0, is_unchecked);
        let head = draft.whole_header(&Bytes(Vec::new())).expect("a header");
        let (mut pieces, mut from) = (vec![0; whole.len()], 0usize);
        for cut in cuts.iter().map(|cut| cut * 8).chain([usize::MAX]) {
            let to = from.saturating_add(cut).min(pieces.len());
            prop_assert!(draft.put_slices(&slices, Some(&head), from, &mut pieces[from..to]));
            from = to;
        }
        prop_assert_eq!(&pieces, &whole);
        // The same from frames, into another.
        let target = FrameIndex(slices.len() as u32);
        let mut memory = Bytes(vec![0xee; (slices.len() + 1) * usize::from(FRAME_SIZE)]);
        let mut kept = Vec::new();
        for (slice, frame) in slices.iter().zip(0..) {
            let piece = Fragment { frame: FrameIndex(frame), offset: 100 + frame as u16, len: slice.len() as u16 };
            let begin = usize::from(piece.offset);
            memory.bytes_mut(piece.frame).expect("a frame")[begin..begin + slice.len()].copy_from_slice(slice);
            kept.push(piece);
        }
        let draft = Draft { text: Text::Kept(&kept), ..draft };
        prop_assert_eq!(draft.whole_header(&memory), Some(head));
        let mut from = 0usize;
        for cut in cuts.iter().map(|cut| cut * 8).chain([usize::MAX]) {
            let to = from.max(from.saturating_add(cut).min(whole.len()));
            let place = Fragment { frame: target, offset: from as u16, len: (to - from) as u16 };
            prop_assert!(draft.put(&mut memory, Some(&head), from, place));
            from = to;
        }
        let got = memory.bytes(target).expect("a frame");
        prop_assert_eq!(&got[..whole.len()], &whole[..]);
        prop_assert!(got[whole.len()..].iter().all(|byte| *byte == 0xee));
    }
}
