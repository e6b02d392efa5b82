//! Segments made by hand, and any segment there and back.

use proptest::prelude::*;

use super::options::{Block, Cookie, WINDOW_SCALE_MAX};
use super::*;

const FROM: Ip = Ip::v4([192, 0, 2, 1]);
const TO: Ip = Ip::v4([192, 0, 2, 2]);

/// Linux's SYN, byte for byte.
const SYN: [u8; 40] = [
    0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0xa0, 0x02, 0xff, 0xff, 0, 0, 0, 0, // the header
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];

fn options(bytes: &[u8]) -> Options {
    Options::parse(bytes)
}

fn header(seq: u32, ack: u32, window: u16) -> Header {
    Header { sequence: seq.into(), acknowledgment: ack.into(), window: window.into(), ..Header::default() }
}

fn printed(header: Header, flags: Flags, options: &Options, text_len: usize) -> String {
    let mut bytes = vec![0; 60];
    let len = header.emit(flags, options, &mut bytes).expect("room");
    bytes.truncate(len);
    bytes.resize(len + text_len, 0);
    parse(&bytes).expect("what was written").0.to_string()
}

#[test]
fn the_syn_of_linux() {
    let (segment, text) = parse(&SYN).expect("a SYN");
    assert!(text.is_empty());
    assert_eq!(segment.to_string(), "S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>");
    let read = options(segment.options);
    let timestamps = Some(Timestamps { tsval: 1, tsecr: 0 });
    let (mss, window_scale) = (Some(1460), Some(7));
    assert_eq!(read, Options { mss, window_scale, sack_permitted: true, timestamps, ..Options::default() });
    assert_eq!((segment.len(), segment.is_empty(), segment.only_timestamps()), (1, false, None));
    let mut written = [0; 40];
    assert_eq!(segment.header.emit(Flags::SYN, &read, &mut written), Some(40));
    assert_eq!(written, SYN);
}

/// The words of pseudo-header, header and options, added up as RFC 1071 §1 says.
#[test]
fn a_checksum_is_filled_and_verified() {
    let words = [
        0xc000u32, 0x0201, 0xc000, 0x0202, 0x0006, 0x0028, 0x9c40, 0x0050, 0xa002, 0xffff, 0x0204, 0x05b4,
        0x0402, 0x080a, 0x0001, 0x0103, 0x0307,
    ];
    let sum: u32 = words.iter().sum();
    let expected = !((sum >> 16) + (sum & 0xffff)) as u16;
    let mut bytes = SYN;
    assert_eq!(fill_checksum(&mut bytes, &FROM, &TO, Sum::ZERO, 0), Some(()));
    assert_eq!(bytes[16..18], expected.to_be_bytes());
    assert_eq!(verify(&bytes, &FROM, &TO), Ok(()));
    bytes[39] ^= 1;
    assert_eq!(verify(&bytes, &FROM, &TO), Err(Malformed::Checksum));
    assert_eq!(fill_checksum(&mut bytes[..19], &FROM, &TO, Sum::ZERO, 0), None);
}

#[test]
fn segments_print_as_packetdrill_writes_them() {
    let none = Options::default();
    assert_eq!(
        printed(header(1, 1, 257), Flags::PSH | Flags::ACK, &none, 1000),
        "P. 1:1001(1000) ack 1 win 257"
    );
    assert_eq!(printed(header(1, 2, 0), Flags::FIN | Flags::ACK, &none, 0), "F. 1:1(0) ack 2 win 0");
    assert_eq!(printed(header(u32::MAX, 2, 0), Flags::RST, &none, 2), "R 4294967295:1(2) win 0");
    assert_eq!(printed(header(0, 0, 0), Flags::default(), &none, 0), "- 0:0(0) win 0");
    let ecn = Flags::SYN | Flags::ECE | Flags::CWR | Flags::AE;
    assert_eq!(printed(header(0, 0, 9), ecn, &none, 0), "SEWA 0:0(0) win 9");
    let urgent = Header { urgent: 5.into(), ..header(1, 1, 9) };
    assert_eq!(printed(urgent, Flags::URG | Flags::ACK, &none, 9), ".U 1:10(9) ack 1 win 9 urg 5");
    let mut sack = none;
    sack.timestamps = Some(Timestamps { tsval: 7, tsecr: 8 });
    sack.sack.push(Block { left: Seq(2001), right: Seq(3001) });
    sack.sack.push(Block { left: Seq(5001), right: Seq(6001) });
    assert_eq!(
        printed(header(1, 1, 9), Flags::ACK, &sack, 0),
        ". 1:1(0) ack 1 win 9 <nop,nop,TS val 7 ecr 8,nop,nop,sack 2001:3001 5001:6001>"
    );
    let cookie = |bytes: &[u8], experimental| Options { fast_open: Cookie::new(bytes, experimental), ..none };
    let syn = |options: &Options| printed(header(0, 0, 9), Flags::SYN, options, 0);
    assert_eq!(syn(&cookie(&[], false)), "S 0:0(0) win 9 <FO,nop,nop>");
    assert_eq!(syn(&cookie(&[1, 2, 0xab, 4], false)), "S 0:0(0) win 9 <FO 0102ab04,nop,nop>");
    assert_eq!(syn(&cookie(&[1, 2, 3, 4, 5, 6], false)), "S 0:0(0) win 9 <FO 010203040506>");
    assert_eq!(syn(&cookie(&[1, 2, 3, 4], true)), "S 0:0(0) win 9 <FOEXP 01020304>");
    assert_eq!(syn(&Options { user_timeout: Some(0x8005), ..none }), "S 0:0(0) win 9 <uto 0x8005>");
}

#[test]
fn rules() {
    assert_eq!(parse(&SYN[..19]), Err(Malformed::Truncated));
    for (offset, len) in [(0x40, 40), (0x00, 40), (0xb0, 40), (0xa0, 39)] {
        let mut bytes = SYN;
        bytes[12] = offset;
        assert_eq!(parse(&bytes[..len]), Err(Malformed::DataOffset));
    }
}

/// After a maximum segment size of 1460, which counts.
#[test]
fn a_malformed_length_ends_the_options() {
    let ends: [(&[u8], &str); 5] = [
        (&[8], "a kind without a length"),
        (&[3, 0, 3, 3, 7], "length 0"),
        (&[3, 1, 3, 3, 7], "length 1"),
        (&[8, 10, 0, 0, 0, 1, 0, 0, 0], "beyond the header"),
        (&[250, 255, 3, 3, 7], "unknown, beyond the header"),
    ];
    for (bytes, what) in ends {
        let read = options(&[&[2, 4, 0x05, 0xb4], bytes].concat());
        let expected = Options { mss: Some(1460), stopped: Some(Malformed::TcpOption), ..Options::default() };
        assert_eq!(read, expected, "{what}");
    }
}

/// Before a window scale of 7, which counts.
#[test]
fn what_is_not_understood_is_skipped() {
    let skipped: [&[u8]; 12] = [
        &[250, 4, 1, 2],
        &[250, 2],
        &[2, 3, 5],
        &[2, 4, 0, 0],
        &[4, 3, 0],
        &[5, 2],
        &[5, 9, 0, 0, 0, 0, 0, 0, 0],
        &[8, 4, 0, 0],
        &[28, 3, 1],
        &[34, 4, 1, 2],
        &[34, 7, 1, 2, 3, 4, 5],
        &[254, 4, 0x12, 0x34],
    ];
    for bytes in skipped {
        let read = options(&[bytes, &[1, 3, 3, 7]].concat());
        assert_eq!(read, Options { window_scale: Some(7), ..Options::default() }, "{bytes:?}");
    }
    assert_eq!(options(&[0, 3, 3, 7]), Options::default(), "behind the end");
    assert_eq!(options(&[3, 3, 200]).window_scale, Some(WINDOW_SCALE_MAX));
    assert_eq!(options(&[2, 4, 1, 0, 2, 4, 2, 0]).mss, Some(0x200), "the last one");
    let long = [&[5, 38][..], &[9; 36], &[1, 1]].concat();
    assert!(options(&long).sack.as_slice().is_empty(), "four and a half blocks");
}

#[test]
fn the_options_have_forty_bytes() {
    let mut all = Options { timestamps: Some(Timestamps { tsval: 1, tsecr: 2 }), ..Options::default() };
    assert_eq!((all.blocks_max(), Options::default().blocks_max()), (3, 4));
    for left in 0..3 {
        assert!(all.sack.push(Block { left: Seq(left), right: Seq(left + 1) }));
    }
    assert_eq!((all.len(), all.emit(&mut [0; 40]), all.emit(&mut [0; 39])), (40, Some(40), None));
    assert!(all.sack.push(Block::default()) && !all.sack.push(Block::default()));
    assert_eq!(all.emit(&mut [0; 60]), None);
    assert_eq!(header(0, 0, 0).emit(Flags::ACK, &Options::default(), &mut [0; 19]), None);
}

fn any_options() -> impl Strategy<Value = Options> {
    use proptest::option::of;
    let timestamps = any::<(u32, u32)>().prop_map(|(tsval, tsecr)| Timestamps { tsval, tsecr });
    let blocks = proptest::collection::vec(any::<(u32, u32)>(), 0..5);
    let cookie = (proptest::collection::vec(any::<u8>(), 0..18), any::<bool>());
    let words = (of(1u16..), of(0u8..15), any::<bool>(), of(any::<u16>()));
    (words, of(timestamps), blocks, of(cookie)).prop_map(|(words, timestamps, blocks, cookie)| {
        let (mss, window_scale, sack_permitted, user_timeout) = words;
        let mut options =
            Options { mss, window_scale, sack_permitted, timestamps, user_timeout, ..Options::default() };
        options.fast_open = cookie.and_then(|(bytes, experimental)| Cookie::new(&bytes, experimental));
        for (left, right) in blocks {
            options.sack.push(Block { left: Seq(left), right: Seq(right) });
        }
        options
    })
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn what_is_written_is_read(
        ports in any::<(u16, u16)>(), numbers in any::<(u32, u32, u16, u16)>(), flags in 0u16..0x200, options in any_options(),
        text in proptest::collection::vec(any::<u8>(), 0..100), six in any::<bool>(), flip in any::<usize>(),
    ) {
        let (seq, ack, window, urgent) = numbers;
        let header = Header { source: ports.0.into(), destination: ports.1.into(), urgent: urgent.into(), ..header(seq, ack, window) };
        let mut bytes = vec![0xaa; 60];
        let len = header.emit(Flags(flags), &options, &mut bytes);
        prop_assert_eq!(len, (options.len() <= 40).then_some(20 + options.len()));
        let Some(len) = len else { return Ok(()) };
        prop_assert_eq!(header.emit(Flags(flags), &options, &mut bytes[..len - 1]), None);
        bytes.truncate(len);
        let (from, to) = if six { (Ip([1; 16]), Ip([2; 16])) } else { (FROM, TO) };
        prop_assert_eq!(fill_checksum(&mut bytes, &from, &to, Sum::ZERO.bytes(&text), text.len()), Some(()));
        bytes.extend_from_slice(&text);
        prop_assert_eq!(verify(&bytes, &from, &to), Ok(()));
        let (segment, read) = parse(&bytes).expect("what was written");
        prop_assert_eq!(read, &text[..]);
        prop_assert_eq!(Options::parse(segment.options), options);
        prop_assert_eq!(segment.header.flags(), Flags(flags));
        let taken = text.len() as u32 + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
        prop_assert_eq!((segment.len(), segment.header.seq(), segment.header.ack()), (taken, Seq(seq), Seq(ack)));
        let (offset_flags, checksum) = (segment.header.offset_flags, segment.header.checksum);
        prop_assert_eq!(*segment.header, Header { offset_flags, checksum, ..header });
        if let Some(timestamps) = segment.only_timestamps() {
            prop_assert_eq!(options, Options { timestamps: Some(timestamps), ..Options::default() });
        }
        let at = flip % bytes.len();
        bytes[at] ^= 1 << (flip % 8);
        prop_assert_eq!(verify(&bytes, &from, &to), Err(Malformed::Checksum));
    }
}
