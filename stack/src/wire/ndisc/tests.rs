//! Messages between two neighbors and a router, and what none of them may send.

use proptest::prelude::*;

use super::*;

const HOST: Ip = Ip(*b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
const ROUTER: Ip = Ip(*b"\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x02");
const GLOBAL: Ip = Ip(*b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x01\x02\x03");
const ALL_NODES: Ip = Ip(*b"\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
const LINK: Address = Address([2, 0, 0, 0, 0, 1]);

fn written(message: Message, options: &Options, source: &Ip, destination: &Ip) -> Vec<u8> {
    let mut bytes = vec![0; 300];
    let len = message.emit(options, source, destination, &mut bytes).expect("room");
    bytes.truncate(len);
    bytes
}

fn rule(message: Message, options: &Options, source: &Ip, destination: &Ip) -> Option<Malformed> {
    parse(&written(message, options, source, destination), source, destination, HOP_LIMIT).err()
}

/// The same message with other bytes at its end, its checksum right.
fn rule_of(mut bytes: Vec<u8>, source: &Ip, destination: &Ip) -> Option<Malformed> {
    bytes[2..4].fill(0);
    let sum = pseudo(source, destination, protocol::ICMPV6, bytes.len() as u32).bytes(&bytes).checksum();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    parse(&bytes, source, destination, HOP_LIMIT).err()
}

fn advertisement(target: Ip, solicited: bool) -> Message {
    Message::NeighborAdvertisement { target, router: false, solicited, overrides: true }
}

const FROM_ROUTER: Message = Message::RouterAdvertisement {
    hop_limit: 64,
    flags: 0x40,
    lifetime_s: 1800,
    reachable_ms: 30_000,
    retrans_ms: 1000,
};

/// By hand. Pseudo-header: twice 0xfe80, 0x0001, 0xff02+0x0001+0xff01+0x0203 for the solicited node,
/// 0x0020+0x003a; message: 0x8700, 0x2001+0x0db8+0x0001+0x0203 and 0x0101+0x0200+0x0000+0x0001.
#[test]
fn a_solicitation() {
    let to = GLOBAL.solicited_node();
    let options = Options { source_link: Some(LINK), ..Options::default() };
    let bytes = written(Message::NeighborSolicitation { target: GLOBAL }, &options, &HOST, &to);
    let words = [
        0xfe80u32, 0x0001, 0xff02, 0x0001, 0xff01, 0x0203, 0x0020, 0x003a, 0x8700, 0x2001, 0x0db8, 0x0001,
        0x0203, 0x0101, 0x0200, 0x0000, 0x0001,
    ];
    let sum: u32 = words.iter().sum();
    let expected = !((sum >> 16) + (sum & 0xffff)) as u16;
    assert_eq!(bytes[2..4], expected.to_be_bytes());
    assert_eq!((&bytes[..2], &bytes[4..8]), (&[135, 0][..], &[0; 4][..]));
    assert_eq!((&bytes[8..24], &bytes[24..]), (&GLOBAL.0[..], &[1, 1, 2, 0, 0, 0, 0, 1][..]));
    let (message, read) = parse(&bytes, &HOST, &to, HOP_LIMIT).expect("a solicitation");
    assert_eq!(message.to_string(), "ICMP6, neighbor solicitation, who has 2001:db8::1:203");
    assert_eq!(read, options);
}

#[test]
fn messages_print_as_in_tcpdump() {
    assert_eq!(
        advertisement(GLOBAL, true).to_string(),
        "ICMP6, neighbor advertisement, tgt is 2001:db8::1:203, Flags [solicited, override]"
    );
    assert_eq!(
        FROM_ROUTER.to_string(),
        "ICMP6, router advertisement, hop limit 64, Flags [0x40], router lifetime 1800s, reachable time 30000ms, \
         retrans timer 1000ms"
    );
    assert_eq!(Message::RouterSolicitation.to_string(), "ICMP6, router solicitation");
}

#[test]
fn rules() {
    let none = Options::default();
    let told = Options { source_link: Some(LINK), ..none };
    let bytes = written(advertisement(GLOBAL, true), &none, &HOST, &ROUTER);
    assert_eq!(parse(&bytes, &HOST, &ROUTER, 254), Err(Malformed::HopLimit));
    assert_eq!(parse(&bytes, &HOST, &HOST, HOP_LIMIT), Err(Malformed::Checksum));
    assert_eq!(rule_of(bytes[..23].to_vec(), &HOST, &ROUTER), Some(Malformed::Truncated));
    assert_eq!(rule_of(vec![134, 0, 0, 0, 0, 0, 0, 0, 1], &ROUTER, &HOST), Some(Malformed::Truncated));
    for (at, byte) in [(1, 1), (0, 137)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert_eq!(rule_of(bytes, &HOST, &ROUTER), Some(Malformed::NeighborCode));
    }
    let solicitation = |target| Message::NeighborSolicitation { target };
    let (nobody, node) = (Ip::UNSPECIFIED, GLOBAL.solicited_node());
    let allowed = [
        rule(Message::RouterSolicitation, &none, &nobody, &ALL_NODES),
        rule(Message::RouterSolicitation, &told, &HOST, &ALL_NODES),
        rule(FROM_ROUTER, &told, &ROUTER, &ALL_NODES),
        rule(solicitation(GLOBAL), &none, &nobody, &node),
        rule(advertisement(GLOBAL, false), &none, &HOST, &ALL_NODES),
    ];
    assert_eq!(allowed, [None; 5]);
    let forbidden = [
        rule(Message::RouterSolicitation, &told, &nobody, &ALL_NODES),
        rule(FROM_ROUTER, &none, &GLOBAL, &ALL_NODES),
        rule(solicitation(ALL_NODES), &none, &HOST, &ROUTER),
        rule(solicitation(GLOBAL), &told, &nobody, &node),
        rule(solicitation(GLOBAL), &none, &nobody, &GLOBAL),
        rule(advertisement(ALL_NODES, false), &none, &HOST, &ROUTER),
        rule(advertisement(GLOBAL, true), &none, &HOST, &ALL_NODES),
    ];
    assert_eq!(forbidden, [Some(Malformed::NeighborAddress); 7]);
}

#[test]
fn options_have_lengths() {
    let with = |option: &[u8]| {
        let bytes = written(Message::RouterSolicitation, &Options::default(), &HOST, &ROUTER);
        rule_of([&bytes[..], option].concat(), &HOST, &ROUTER)
    };
    let long = |kind: u8, words: u8| {
        let mut option = vec![0; usize::from(words) * 8];
        (option[0], option[1]) = (kind, words);
        option
    };
    assert_eq!(with(&long(25, 3)), None, "unknown");
    let mut wide = long(PREFIX, 4);
    wide[2] = 129;
    let broken = [
        vec![1, 0, 0, 0, 0, 0, 0, 0],
        vec![1, 1, 0, 0],
        vec![1],
        long(1, 2),
        long(2, 2),
        long(5, 2),
        long(3, 3),
        wide,
    ];
    for option in broken {
        assert_eq!(with(&option), Some(Malformed::NeighborOption), "{option:?}");
    }
    let many = long(PREFIX, 4).repeat(PREFIXES_MAX + 1);
    assert_eq!(with(&many), None, "more prefixes than are kept");
}

fn any_options() -> impl Strategy<Value = Options> {
    use proptest::option::of;
    let link = || of(any::<[u8; 6]>().prop_map(Address));
    let prefix = (any::<[u8; 16]>(), 0u8..=128, any::<u8>(), any::<(u32, u32)>()).prop_map(
        |(prefix, len, flags, (valid_s, preferred_s))| Prefix {
            prefix: Ip(prefix),
            len,
            flags,
            valid_s,
            preferred_s,
        },
    );
    (link(), link(), of(any::<u32>()), proptest::collection::vec(prefix, 0..5)).prop_map(
        |(source_link, target_link, mtu, kept)| {
            let mut prefixes = [None; PREFIXES_MAX];
            for (place, prefix) in prefixes.iter_mut().zip(kept) {
                *place = Some(prefix);
            }
            Options { source_link, target_link, mtu, prefixes }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    // The first byte keeps the target from being a multicast address.
    let target = || {
        any::<[u8; 16]>().prop_map(|mut bytes| {
            bytes[0] &= 0x7f;
            Ip(bytes)
        })
    };
    prop_oneof![
        Just(Message::RouterSolicitation),
        any::<(u8, u8, u16, u32, u32)>().prop_map(
            |(hop_limit, flags, lifetime_s, reachable_ms, retrans_ms)| {
                Message::RouterAdvertisement { hop_limit, flags, lifetime_s, reachable_ms, retrans_ms }
            }
        ),
        target().prop_map(|target| Message::NeighborSolicitation { target }),
        (target(), any::<(bool, bool, bool)>()).prop_map(|(target, (router, solicited, overrides))| {
            Message::NeighborAdvertisement { target, router, solicited, overrides }
        }),
    ]
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn what_is_written_is_read(message in any_message(), options in any_options(), short in 1usize..300) {
        let mut bytes = written(message, &options, &HOST, &ROUTER);
        prop_assert_eq!(parse(&bytes, &HOST, &ROUTER, HOP_LIMIT), Ok((message, options)));
        let len = bytes.len().saturating_sub(short);
        prop_assert_eq!(message.emit(&options, &HOST, &ROUTER, &mut bytes[..len]), None);
    }
}
