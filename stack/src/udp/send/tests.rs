//! How far each socket lets a datagram be cut.

use super::*;

const FROM: Ip = Ip::v4([192, 0, 2, 1]);
const TO: Ip = Ip::v4([198, 51, 100, 7]);

#[test]
fn each_way_to_discover_a_path_is_linuxs() {
    let of = |value: u8| Discover::of(&Values { mtu_discover: value, ..Values::default() }, true);
    let rows = [
        // Read back as, uses the path's word, cuts what is too large, lets routers cut what isn't.
        (0, Discover::Want, true, true, false),
        (1, Discover::Dont, true, true, true),
        (2, Discover::Want, true, true, false),
        (3, Discover::Do, true, false, false),
        (4, Discover::Probe, false, false, false),
        (5, Discover::Interface, false, false, true),
        (6, Discover::Omit, false, true, true),
    ];
    for (value, how, uses_path, cuts, may_be_cut) in rows {
        assert_eq!(of(value), how);
        assert_eq!(
            (how.uses_path(), how.cuts(), how.may_be_cut(false)),
            (uses_path, cuts, may_be_cut),
            "{how:?}"
        );
    }
    // A path that takes less than we go down to may be fragmented on the way, but by who forbids it.
    assert!(
        Discover::Want.may_be_cut(true)
            && !Discover::Do.may_be_cut(true)
            && !Discover::Probe.may_be_cut(true)
    );
}

#[test]
fn a_destination_is_the_messages_or_the_peers() {
    let alone = UdpSocket { local: Ip::UNSPECIFIED_V4, ..UdpSocket::default() };
    let to = |ip, port| Sending::from((&ip, port));
    assert_eq!(destination(&alone, &Sending::default()), Err(Error::DestinationRequired));
    assert_eq!(destination(&alone, &to(TO, 53)), Ok((TO, 53)));
    assert_eq!(destination(&alone, &to(TO, 0)), Err(Error::Invalid));
    assert_eq!(destination(&alone, &to(Ip([0xfd; 16]), 53)), Err(Error::AddressFamily));
    let connected = UdpSocket { marks: Mark::CONNECTED, remote: TO, remote_port: 7, ..alone };
    assert_eq!(destination(&connected, &Sending::default()), Ok((TO, 7)));
    assert_eq!(destination(&connected, &to(FROM, 9)), Ok((FROM, 9)));
    let only_six =
        UdpSocket { marks: Mark::V6, sharing: crate::demux::Sharing::V6_ONLY, ..UdpSocket::default() };
    assert_eq!(destination(&only_six, &to(TO, 53)), Err(Error::NetworkUnreachable));
}
