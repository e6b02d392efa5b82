//! Every branch of the program, by BPF_PROG_TEST_RUN: no interface is needed, but the rights to load programs.

use super::*;

const PASS: u32 = 2;
const DROP: u32 = 1;

/// Where the packets below are sent to and come from.
const LOCAL: Ip = Ip::v4([10, 9, 0, 1]);
const REMOTE: Ip = Ip::v4([10, 9, 0, 2]);
const LOCAL6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const REMOTE6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
const PORT: u16 = 8080;
const FROM: u16 = 40_000;

fn v4(protocol: u8) -> Vec<u8> {
    let mut packet = vec![0; 14];
    packet[12..14].copy_from_slice(&[0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend([REMOTE.0[12..].to_vec(), LOCAL.0[12..].to_vec()].concat());
    packet.extend([FROM.to_be_bytes(), PORT.to_be_bytes()].concat());
    packet.resize(64, 0);
    packet
}

fn v6(protocol: u8) -> Vec<u8> {
    let mut packet = vec![0; 14];
    packet[12..14].copy_from_slice(&[0x86, 0xdd]);
    packet.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
    packet.extend([REMOTE6.0, LOCAL6.0].concat());
    packet.extend([FROM.to_be_bytes(), PORT.to_be_bytes()].concat());
    packet.resize(80, 0);
    packet
}

fn place(slot: u32, protocol: Protocol) -> Place {
    Place { slot, protocol, port: PORT }
}

/// Steering where owner 1 has our port of slot 3; without the rights a skip that is printed.
fn claimed(protocol: Protocol, mixed: bool) -> Option<(Steering, Requests)> {
    let steering = match Steering::new() {
        Ok(steering) => steering,
        Err(Refused { errno: Errno(libc::EPERM), .. }) => {
            println!("SKIP steering: only root may load programs");
            return None;
        }
        Err(refused) => panic!("{refused}"),
    };
    for address in [LOCAL, LOCAL6] {
        steering.set_local(&address, 3).expect("room");
    }
    steering.claim(place(3, protocol), Some(Claim { owner: 1, mixed })).expect("a place");
    let requests = steering.add_owner(1).expect("an owner");
    requests.want(place(3, protocol), true);
    Some((steering, requests))
}

/// Redirected: with no socket in the map the program's answer is the drop that was asked for.
fn verdict(steering: &Steering, packet: &[u8]) -> u32 {
    steering.program().test(packet, 1).expect("a run").0
}

#[test]
fn what_an_owner_wants_is_redirected_and_never_passed_on() {
    for (protocol, number) in [(Protocol::Tcp, 6), (Protocol::Udp, 17)] {
        let Some((steering, requests)) = claimed(protocol, false) else { return };
        for packet in [v4(number), v6(number)] {
            assert_eq!(verdict(&steering, &packet), DROP, "the owner has no socket");
        }
        requests.want(place(3, protocol), false);
        for packet in [v4(number), v6(number)] {
            assert_eq!(verdict(&steering, &packet), PASS, "it isn't wanted");
        }
        requests.want(place(3, protocol), true);
        steering.remove_owner(1).expect("an owner");
        assert_eq!(verdict(&steering, &v4(number)), PASS, "the owner is gone");
    }
}

#[test]
fn what_is_not_claimed_is_the_kernels() {
    let Some((steering, _requests)) = claimed(Protocol::Tcp, false) else { return };
    let changed = |at: usize, byte: u8, packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        verdict(&steering, &packet)
    };
    let (v4, v6) = (v4(6), v6(6));
    assert_eq!((verdict(&steering, &v4), verdict(&steering, &v6)), (DROP, DROP));
    for (what, at, byte) in [
        ("ARP", 13, 0x06),
        ("a VLAN tag", 12, 0x81),
        ("IP options", 14, 0x46),
        ("more fragments", 20, 0x20),
        ("a fragment's offset", 21, 1),
        ("ICMP", 23, 1),
        ("UDP", 23, 17),
        ("another address", 33, 9),
        ("another port", 37, 1),
        ("a port with the same low byte", 36, 1),
    ] {
        assert_eq!(changed(at, byte, &v4), PASS, "{what}");
    }
    for (what, at, byte) in
        [("an extension header", 20, 44), ("ICMPv6", 20, 58), ("another address", 53, 9), ("a port", 57, 1)]
    {
        assert_eq!(changed(at, byte, &v6), PASS, "{what}");
    }
    // What surrounds them makes no difference.
    assert_eq!(changed(20, 0x40, &v4), DROP, "don't fragment");
    assert_eq!(changed(29, 99, &v4), DROP, "another peer");
}

#[test]
fn a_packet_that_is_cut_short_is_the_kernels() {
    let Some((steering, _requests)) = claimed(Protocol::Tcp, false) else { return };
    for (packet, whole) in [(v4(6), 38), (v6(6), 58)] {
        for len in 14..packet.len() {
            let expected = if len < whole { PASS } else { DROP };
            assert_eq!(verdict(&steering, &packet[..len]), expected, "{len} bytes");
        }
    }
}

#[test]
fn at_a_mixed_port_the_kernel_keeps_its_connections() {
    let Some((steering, _requests)) = claimed(Protocol::Tcp, true) else { return };
    let connections = [((LOCAL, PORT), (REMOTE, FROM), v4(6)), ((LOCAL6, PORT), (REMOTE6, FROM), v6(6))];
    for (local, remote, packet) in connections {
        let connection = Connection { local, remote, protocol: Protocol::Tcp };
        assert_eq!(verdict(&steering, &packet), DROP);
        steering.leave_to_kernel(&connection, true).expect("room");
        assert_eq!(verdict(&steering, &packet), PASS);
        let mut other = packet.clone();
        other[if packet[14] == 0x45 { 35 } else { 55 }] ^= 1;
        assert_eq!(verdict(&steering, &other), DROP, "another port of the same peer");
        steering.leave_to_kernel(&connection, false).expect("an entry");
        assert_eq!(verdict(&steering, &packet), DROP);
    }
}

#[test]
fn nobody_claims_what_there_is_not() {
    let Some((steering, requests)) = claimed(Protocol::Tcp, false) else { return };
    assert_eq!(steering.claim(place(LOCALS, Protocol::Tcp), None), None);
    assert_eq!(steering.claim(place(0, Protocol::Tcp), Some(Claim { owner: 0, mixed: false })), None);
    assert_eq!(steering.claim(place(0, Protocol::Tcp), Some(Claim { owner: OWNERS, mixed: false })), None);
    assert!(steering.set_local(&LOCAL, LOCALS).is_err() && steering.add_owner(OWNERS).is_err());
    // Out of the array: nothing happens.
    requests.want(place(LOCALS, Protocol::Udp), true);
    steering.claim(place(3, Protocol::Tcp), None).expect("a place");
    assert_eq!(verdict(&steering, &v4(6)), PASS, "the claim is gone");
    steering.remove_local(&LOCAL).expect("an address");
}

/// One word of an owner moves no packet that is somebody else's.
#[test]
fn an_owner_gets_only_what_it_owns() {
    let Some((steering, requests)) = claimed(Protocol::Tcp, false) else { return };
    let other = steering.add_owner(2).expect("an owner");
    requests.want(place(3, Protocol::Tcp), false);
    other.want(place(3, Protocol::Tcp), true);
    assert_eq!(verdict(&steering, &v4(6)), PASS);
}
