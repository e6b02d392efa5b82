use proptest::prelude::*;
use stack::export::Window;
use stack::seq::Seq;

use super::*;

const PORT: Port = Port { protocol: Protocol::Udp, local: Ip::v4([10, 0, 0, 1]), number: 53 };

fn terms() -> Terms {
    Terms {
        interface: 7,
        name: "a-name-of-15-xx".to_owned(),
        kind: "veth".to_owned(),
        mac: [2, 0, 0, 0, 0, 1],
        owner: 1,
        queues: 4,
        entries: 2048,
        bells: 64,
        capabilities: Capabilities {
            link: Link::Ip,
            mtu: 9000,
            frame_size: 4096,
            headroom_out: 0,
            fragments_max: 17,
            checksum_in: ChecksumIn::Partial,
            checksum_out: true,
            tso_bytes_max: 65_536,
            gro: true,
            timestamps: true,
        },
        limits: Limits { tcp_sockets: 4, ..Limits::SMALL },
        ports: vec![(40_960, 1000), (u16::MAX, 1)],
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        local: (Ip::v4([10, 0, 0, 1]), 80),
        remote: (Ip::v4([10, 0, 0, 2]), 5000),
        rcv_nxt: Seq(1000),
        unread: 10,
        has_ended: false,
        snd_una: Seq(u32::MAX),
        in_flight: 5,
        unsent: 7,
        is_finished: true,
        is_fin_sent: false,
        peer_mss: 1460,
        shifts: Some((7, 8)),
        sack: true,
        timestamps: Some(3),
        tsval: u32::MAX,
        ecn: true,
        window: Window {
            snd_wl1: Seq(990),
            snd_wnd: 5000,
            max_window: 6000,
            rcv_wnd: 4000,
            rcv_wup: Seq(900),
        },
    }
}

#[test]
fn every_message_comes_back() {
    let requests = [
        Request::Hold,
        Request::Attach,
        Request::Claim(PORT),
        Request::Join(PORT),
        Request::Release(Port { protocol: Protocol::Tcp, local: Ip::UNSPECIFIED, number: u16::MAX }),
        Request::Resolve(PORT.local),
        Request::Forked(4_194_304),
        Request::HandOver(snapshot()),
        Request::HandOver(Snapshot { shifts: None, timestamps: None, is_finished: false, ..snapshot() }),
    ];
    for (number, request) in (0..).zip(requests) {
        assert_eq!(Request::parse(&request.bytes(number)), Ok((request, number)));
    }
    let answers = [
        Answer::Done,
        Answer::Claimed(Claimed { slots: 0x8001 }),
        Answer::Attached(Box::new(terms())),
        Answer::Refused(Reason::User, 1000),
    ];
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(Answer::parse(&answer.bytes(number)), Ok((answer, number)));
    }
    // All that there can be has room.
    let most = Terms { ports: vec![(1, 1); LEASES_MAX], ..terms() };
    let answer = Answer::Attached(Box::new(most));
    assert_eq!(Answer::parse(&answer.bytes(1)), Ok((answer, 1)));
}

#[test]
fn another_version_is_told_by_number_whatever_its_size() {
    let mut bytes = Request::Hold.bytes(5);
    bytes[..4].copy_from_slice(&9u32.to_ne_bytes());
    assert_eq!(Request::parse(&bytes), Err(Wrong::Version(9)));
    assert_eq!(Request::parse(&bytes[..8]), Err(Wrong::Version(9)));
    let bytes = Request::Hold.bytes(5);
    assert_eq!(Request::parse(&bytes[..REQUEST - 1]), Err(Wrong::Size(REQUEST - 1)));
    assert_eq!(Request::parse(&bytes[..3]), Err(Wrong::Size(3)));
}

#[test]
fn a_field_that_can_not_be_is_named_by_its_place() {
    let changed = |at: usize, value: u8| {
        let mut bytes = Request::Claim(PORT).bytes(5);
        bytes[at] = value;
        Request::parse(&bytes)
    };
    assert_eq!(changed(8, 0), Err(Wrong::Field(8)), "no such kind");
    assert_eq!(changed(8, 2), Err(Wrong::Field(8)), "attaching names no port");
    assert_eq!(changed(9, 132), Err(Wrong::Field(9)), "SCTP");
    assert_eq!(changed(10, 0), Err(Wrong::Field(10)), "port 0");
    assert_eq!(changed(39, 1), Err(Wrong::Field(39)), "behind the end");
    let contradiction = Snapshot { unsent: 7, is_fin_sent: true, ..snapshot() };
    assert_eq!(
        Request::parse(&Request::HandOver(contradiction).bytes(5)),
        Err(Wrong::Field(9)),
        "its text was not sent"
    );
    assert_eq!(Request::parse(&Request::Forked(u32::MAX).bytes(5)), Err(Wrong::Field(12)), "no process");

    let refused = |change: fn(&mut Terms)| {
        let mut terms = terms();
        change(&mut terms);
        Answer::parse(&Answer::Attached(Box::new(terms)).bytes(5))
    };
    for (what, change) in [
        ("an owner", (|terms: &mut Terms| terms.owner = OWNERS) as fn(&mut Terms)),
        ("queues", |terms| terms.queues = QUEUES as u32 + 1),
        ("bells", |terms| terms.bells = PASSED_MAX as u32),
        ("a limit", |terms| terms.limits.tcp_sockets = 0),
        ("an empty lease", |terms| terms.ports = vec![(5, 0)]),
        ("a lease behind the last port", |terms| terms.ports = vec![(u16::MAX, 2)]),
    ] {
        assert!(matches!(refused(change), Err(Wrong::Field(_))), "{what}");
    }
}

#[test]
fn a_claim_names_its_places() {
    let slots: Vec<u32> =
        Claimed { slots: 0x8005 }.places(Protocol::Tcp, 80).map(|place| place.slot).collect();
    assert_eq!(slots, [0, 2, 15]);
}

proptest! {
    /// Whatever comes is understood or not: what is understood is written the same way again.
    #[test]
    fn there_is_one_way_to_say_it(tail in proptest::collection::vec(any::<u8>(), ANSWER - 4), kind in 0u8..9, zeros in any::<bool>()) {
        let mut bytes = [&VERSION.to_ne_bytes()[..], &tail].concat();
        bytes[8] = kind;
        if zeros {
            bytes[9..12].fill(0);
            bytes[16..].fill(0);
        }
        if let Ok((request, number)) = Request::parse(&bytes[..REQUEST]) {
            prop_assert_eq!(&request.bytes(number)[..], &bytes[..REQUEST]);
        }
        if let Ok((answer, number)) = Answer::parse(&bytes) {
            prop_assert_eq!(&answer.bytes(number)[..], &bytes[..]);
        }
    }
}
