use std::collections::BTreeMap;

use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Ip {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ip::v4(address.octets()),
        Err(_) => Ip(text.parse::<Ipv6Addr>().expect("an address").octets()),
    }
}

fn address(text: &str, flags: u8) -> Address {
    let (text, len) = text.split_once('/').expect("a prefix");
    let ip = ip(text);
    let len: u8 = len.parse().expect("a length");
    Address { ip, prefix_len: len + if ip.is_v4() { 96 } else { 0 }, flags, reserved: [0; 2] }
}

/// What is chosen of these towards there, whichever comes first.
fn chosen(addresses: &[(&str, u8)], destination: &str) -> Ip {
    let mut all: Vec<Address> = addresses.iter().map(|(text, flags)| address(text, *flags)).collect();
    let to = ip(destination);
    let first = choose(&all, &to, &to, false).expect("an address");
    all.reverse();
    assert_eq!(choose(&all, &to, &to, false), Some(first), "the order doesn't matter");
    first
}

/// RFC 6724 §10.1, "Default Source Address Selection", with what differs in rules that apply here.
#[test]
fn the_examples_of_rfc_6724_come_out() {
    type Case<'a> = (&'a str, &'a [(&'a str, u8)], &'a str);
    let cases: &[Case<'_>] = &[
        ("2001:db8:1::1", &[("2001:db8:3::1/64", 0), ("fe80::1/64", 0)], "2001:db8:3::1"),
        ("ff05::1", &[("2001:db8:3::1/64", 0), ("fe80::1/64", 0)], "2001:db8:3::1"),
        (
            "2001:db8:1::1",
            &[("2001:db8:1::1/64", flag::DEPRECATED), ("2001:db8:2::1/64", 0)],
            "2001:db8:1::1",
        ),
        ("fe80::1", &[("fe80::2/64", flag::DEPRECATED), ("2001:db8:1::1/64", 0)], "fe80::2"),
        ("2001:db8:1::1", &[("2001:db8:1::2/64", 0), ("2001:db8:3::2/64", 0)], "2001:db8:1::2"),
        (
            "2002:c633:6401::1",
            &[("2002:c633:6401::d5e3:7953:13eb:22e8/64", flag::TEMPORARY), ("2001:db8:1::2/64", 0)],
            "2002:c633:6401::d5e3:7953:13eb:22e8",
        ),
        (
            "2001:db8:1::d5e3:0:0:1",
            &[("2001:db8:1::2/64", 0), ("2001:db8:1::d5e3:7953:13eb:22e8/64", flag::TEMPORARY)],
            "2001:db8:1::d5e3:7953:13eb:22e8",
        ),
    ];
    for (destination, addresses, expected) in cases {
        assert_eq!(chosen(addresses, destination), ip(expected), "to {destination}");
    }
}

#[test]
fn a_deprecated_address_is_avoided() {
    let ours = [("2001:db8:1::2/64", flag::DEPRECATED), ("2001:db8:9::2/64", 0)];
    assert_eq!(chosen(&ours, "2001:db8:1::1"), ip("2001:db8:9::2"));
}

#[test]
fn a_label_counts_more_than_a_prefix() {
    let ours = [("fd00::2/64", 0), ("2001:db8::2/64", 0)];
    assert_eq!(chosen(&ours, "fd99::1"), ip("fd00::2"));
    assert_eq!(chosen(&ours, "2a00::1"), ip("2001:db8::2"));
}

#[test]
fn a_prefix_counts_no_further_than_the_subnets() {
    let ours = [("2001:db8:1:1::2/32", 0), ("2001:db8:1:8000::2/64", 0)];
    assert_eq!(chosen(&ours, "2001:db8:1:1::9"), ip("2001:db8:1:8000::2"));
}

#[test]
fn a_tentative_address_is_not_ours_yet() {
    let only = [address("2001:db8::2/64", flag::TENTATIVE), Address::default()];
    assert_eq!(choose(&only, &ip("2001:db8::1"), &ip("2001:db8::1"), false), None);
}

#[test]
fn public_addresses_can_be_preferred() {
    let ours = [address("2001:db8::2/64", 0), address("2001:db8::3/64", flag::TEMPORARY)];
    let to = ip("2001:db8:5::1");
    assert_eq!(choose(&ours, &to, &to, true), Some(ip("2001:db8::2")));
    assert_eq!(choose(&ours, &to, &to, false), Some(ip("2001:db8::3")));
}

#[test]
fn ipv4_comes_from_the_next_hops_subnet_or_from_the_first() {
    let ours = ["192.0.2.1/24", "10.0.0.1/8"].map(|text| address(text, 0));
    let to = ip("198.51.100.1");
    assert_eq!(choose(&ours, &to, &ip("10.9.9.9"), false), Some(ip("10.0.0.1")));
    assert_eq!(choose(&ours, &to, &to, false), Some(ip("192.0.2.1")));
    let secondary = [address("10.0.0.2/8", flag::SECONDARY), ours[1]];
    assert_eq!(choose(&secondary, &to, &ip("10.9.9.9"), false), Some(ip("10.0.0.1")));
}

#[test]
fn a_subnet_has_a_broadcast_address_if_it_has_hosts() {
    let broadcast = |text| address(text, 0).broadcast();
    assert_eq!(broadcast("192.0.2.1/24"), Some(ip("192.0.2.255")));
    assert_eq!(broadcast("10.1.2.3/8"), Some(ip("10.255.255.255")));
    assert_eq!(
        [broadcast("192.0.2.1/31"), broadcast("192.0.2.1/32"), broadcast("2001:db8::1/64")],
        [None; 3]
    );
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    /// With at most a handful of addresses of few kinds, the choice is one that no other beats.
    #[test]
    fn no_other_address_is_better(kinds in proptest::collection::vec((0usize..6, 0u8..8), 1..6), to in 0usize..6) {
        let all = ["2001:db8:1::2/64", "2001:db8:2::2/48", "fe80::2/64", "fd00::2/64", "2002:1::2/16", "fec0::2/10"];
        // Each once.
        let kinds: BTreeMap<usize, u8> = kinds.into_iter().collect();
        let ours: Vec<Address> = kinds.into_iter().map(|(kind, flags)| address(all[kind], flags)).collect();
        let destination = ip(["2001:db8:1::9", "fe80::9", "fd00::9", "2002:1::9", "ff02::9", "::1"][to]);
        match choose(&ours, &destination, &destination, false) {
            None => prop_assert!(ours.iter().all(|address| address.has(flag::TENTATIVE))),
            Some(best) => {
                let best = ours.iter().find(|address| address.ip == best && address.is_candidate()).expect("ours");
                let rivals = ours.iter().filter(|address| address.is_candidate() && address.ip != best.ip);
                for rival in rivals {
                    prop_assert!(!is_better(rival, best, &destination, false), "{} beats {}", rival.ip, best.ip);
                }
            }
        }
    }

    #[test]
    fn nonsense_is_survived(ours in proptest::collection::vec((any::<[u8; 16]>(), any::<u8>(), any::<u8>()), 0..8), to: [u8; 16]) {
        let address = |(ip, prefix_len, flags)| Address { ip: Ip(ip), prefix_len, flags, reserved: [0; 2] };
        let ours: Vec<Address> = ours.into_iter().map(address).collect();
        let _ = choose(&ours, &Ip(to), &Ip(to), true);
        let _: Vec<_> = ours.iter().map(Address::broadcast).collect();
    }
}
