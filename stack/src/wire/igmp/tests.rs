//! Messages as the standards draw them.

use proptest::prelude::*;

use super::*;

const GROUP: Ip = Ip::v4([239, 1, 2, 3]);
const GROUP6: Ip = Ip(*b"\xff\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x63");
const SOURCES: [Ip; 2] = [Ip::v4([192, 0, 2, 1]), Ip::v4([192, 0, 2, 2])];

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = Sum::ZERO.bytes(&bytes).checksum();
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn query(bytes: &[u8]) -> Option<Query<'_>> {
    match parse(bytes) {
        Ok(Some(Message::Query(query))) => Some(query),
        _ => None,
    }
}

#[test]
fn what_is_written_is_what_the_standards_draw() {
    let mut bytes = [0; 64];
    let mut report = Report::new(&mut bytes, true);
    assert!(report.is_empty() && report.begin(Kind::ToExclude, &GROUP) && report.begin(Kind::Allow, &GROUP));
    assert!(SOURCES.iter().all(|source| report.add(source)) && !report.is_empty());
    assert!(!report.begin(Kind::Allow, &GROUP6), "of the other version");
    let len = report.finish(&Ip::UNSPECIFIED_V4);
    assert!(Sum::ZERO.bytes(&bytes[..len]).holds());
    let records = [4, 0, 0, 0, 239, 1, 2, 3, 5, 0, 0, 2, 239, 1, 2, 3, 192, 0, 2, 1, 192, 0, 2, 2];
    assert_eq!((len, bytes[0], &bytes[4..8], &bytes[8..32]), (32, 0x22, &[0, 0, 0, 2][..], &records[..]));
    let mut report = Report::new(&mut bytes, false);
    assert!(report.begin(Kind::Excludes, &GROUP6));
    assert_eq!(report.finish(&Ip::UNSPECIFIED), 28);
    assert_eq!((bytes[0], &bytes[4..12]), (143, &[0, 0, 0, 1, 2, 0, 0, 0][..]));
    assert!(pseudo(&Ip::UNSPECIFIED, &MLD_ROUTERS, protocol::ICMPV6, 28).bytes(&bytes[..28]).holds());

    for (word, kind) in [(Word::ListensV1, 0x12), (Word::Listens, 0x16), (Word::Leaves, 0x17)] {
        assert_eq!(word.emit(&GROUP, &SOURCES[0], &mut bytes), Some(8));
        assert_eq!((bytes[0], &bytes[4..8]), (kind, &[239, 1, 2, 3][..]));
    }
    assert_eq!(Word::Leaves.emit(&GROUP6, &Ip::UNSPECIFIED, &mut bytes), Some(24));
    assert_eq!((bytes[0], Word::Leaves.destination(&GROUP6, false)), (132, MLD_ALL_ROUTERS));
    assert_eq!(Word::Leaves.emit(&GROUP6, &Ip::UNSPECIFIED, &mut bytes[..23]), None);
}

#[test]
fn queries_tell_group_time_version_and_sources() {
    let (five, ten) = (Duration::from_secs(5), Duration::from_secs(10));
    let v2 = sealed(vec![0x11, 50, 0, 0, 239, 1, 2, 3]);
    assert_eq!(query(&v2), Some(Query::new(Some(GROUP), five, Version::V2)));
    // RFC 2236 §4: a version 1 router says 0 and means ten seconds; it asks for all.
    let v1 = sealed(vec![0x11, 0, 0, 0, 239, 1, 2, 3]);
    assert_eq!(query(&v1), Some(Query::new(None, ten, Version::V1)));
    // 0x9a: a mantissa of 10 and an exponent of 1 are (10 + 16) << 4 tenths (RFC 3376 §4.1.1).
    let v3 = sealed(vec![0x11, 0x9a, 0, 0, 0, 0, 0, 0, 0x0b, 125, 0, 0]);
    let long = Query {
        robustness: 3,
        interval: Duration::from_secs(125),
        ..Query::new(None, Duration::from_millis((26 << 4) * 100), Version::V3)
    };
    assert_eq!(query(&v3), Some(long));
    let of_two = sealed(vec![0x11, 10, 0, 0, 239, 1, 2, 3, 2, 0, 0, 2, 192, 0, 2, 1, 192, 0, 2, 2, 77, 77]);
    let asked = query(&of_two).expect("a query");
    assert!(asked.has_sources() && asked.sources().eq(SOURCES));
    let more = sealed(vec![0x11, 10, 0, 0, 239, 1, 2, 3, 2, 0, 0, 3, 192, 0, 2, 1, 192, 0, 2, 2]);
    let general = sealed(vec![0x11, 10, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 192, 0, 2, 1]);
    let odd = sealed(vec![0x11, 10, 0, 0, 239, 1, 2, 3, 2, 0]);
    for (nonsense, why) in [(more, "fewer than it says"), (general, "of every group"), (odd, "ten octets")] {
        assert_eq!(parse(&nonsense), Ok(None), "{why}");
    }
    assert_eq!(parse(&v2[..7]), Err(Malformed::Truncated));
    let mut wrong = v2;
    wrong[7] ^= 1;
    assert_eq!(parse(&wrong), Err(Malformed::Checksum));
    for (kind, said) in [(0x12, true), (0x16, true), (0x17, false), (0x22, false)] {
        let heard = sealed(vec![kind, 0, 0, 0, 239, 1, 2, 3]);
        assert_eq!(parse(&heard), Ok(said.then_some(Message::Report(GROUP))));
    }
}

#[test]
fn queries_of_ipv6_tell_the_same() {
    let ten = Duration::from_secs(10);
    let mut bytes = vec![130, 0, 0, 0, 0x27, 0x10, 0, 0];
    bytes.extend_from_slice(&GROUP6.0);
    assert_eq!(parse_v6(&bytes), Some(Message::Query(Query::new(Some(GROUP6), ten, Version::V2))));
    bytes.extend_from_slice(&[2, 125]);
    assert_eq!(parse_v6(&bytes), None, "26 octets");
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&GROUP6.0);
    let Some(Message::Query(query)) = parse_v6(&bytes) else { panic!("a query") };
    assert_eq!((query.version, query.robustness), (Version::V3, 2));
    assert!(query.sources().eq([GROUP6]));
    bytes[0] = 131;
    assert_eq!(parse_v6(&bytes), Some(Message::Report(GROUP6)));
    bytes[0] = 143;
    assert_eq!(parse_v6(&bytes), None);
}

#[test]
fn an_alert_is_found_among_options() {
    let mut headers = [0; 48];
    headers[40..].copy_from_slice(&alert(protocol::ICMPV6));
    assert!(has_alert(&headers) && !has_alert(&headers[..47]) && !has_alert(&headers[..40]));
    headers[40..].copy_from_slice(&[58, 0, 0, 0, 5, 2, 0, 0]);
    assert!(has_alert(&headers), "behind padding");
    // Of another protocol; and no such option.
    headers[47] = 1;
    assert!(!has_alert(&headers));
    headers[40..].copy_from_slice(&[58, 0, 1, 4, 5, 2, 0, 0]);
    assert!(!has_alert(&headers));
    headers[6] = 58;
    headers[40..].copy_from_slice(&alert(protocol::ICMPV6));
    assert!(!has_alert(&headers), "no hop-by-hop options");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        for bytes in [bytes.clone(), if bytes.len() < 8 { bytes } else { sealed(bytes) }] {
            let messages = [parse(&bytes).ok().flatten(), parse_v6(&bytes)];
            for message in messages.into_iter().flatten() {
                if let Message::Query(query) = message {
                    prop_assert!(query.sources().count() * 4 <= bytes.len());
                }
            }
            let _ = has_alert(&bytes);
        }
    }

    /// However little room there is, what was taken is whole.
    #[test]
    fn a_report_has_what_it_took(room in 0usize..80, records in proptest::collection::vec(0usize..5, 0..6), is_v4: bool) {
        let mut bytes = vec![0; room];
        let group = if is_v4 { GROUP } else { GROUP6 };
        let (each, mut expected) = (if is_v4 { 4 } else { 16 }, 8);
        let mut report = Report::new(&mut bytes, is_v4);
        for sources in records {
            let has_room = report.has_room(sources);
            let begun = report.begin(Kind::Allow, &group);
            let added = if begun { (0..sources).take_while(|_| report.add(&group)).count() } else { 0 };
            prop_assert_eq!(has_room, begun && added == sources);
            expected += if begun { 4 + each * (1 + added) } else { 0 };
        }
        let len = report.finish(&Ip::UNSPECIFIED);
        prop_assert_eq!(len, if room < 8 { 0 } else { expected });
    }
}
