//! What the driver reads of the kernel's tables, in a namespace whose tables are known.

use std::time::{Duration, Instant};

use driver::netlink::routes::{Kind, Route};
use driver::netlink::{Netlink, addresses, links, neighbours, routes};
use harness::sim::raw::{ip, ip6};
use harness::wire::veth::{Cable, NAME};

#[test]
fn a_host_on_a_cable_has_its_tables() {
    let Some([near, _far]) = Cable { mtu: 9000, queues: 4 }.lay() else { return };
    near.inside(|| {
        let mut netlink = Netlink::open(0).expect("netlink");
        let link = links::named(&mut netlink, NAME).expect("the cable");
        assert_eq!((link.kind.as_str(), link.mtu, link.rx_queues), ("veth", 9000, 4));
        assert_eq!((link.address, link.master, link.has_xdp), (Some([2, 0, 0, 0, 0, 1]), 0, false));
        let all = addresses::all(&mut netlink).expect("addresses");
        for (ip, prefix_len) in [(ip(1), 24), (ip6(1), 64)] {
            let one = all.iter().find(|address| address.ip == ip).expect("its address");
            assert_eq!((one.interface, one.prefix_len, one.is_tentative), (link.index, prefix_len, false));
        }
        for (family, subnet, prefix_len) in [(libc::AF_INET, ip(0), 24), (libc::AF_INET6, ip6(0), 64)] {
            let all = routes::all(&mut netlink, family as u8).expect("routes");
            let is_it = |route: &&Route| route.destination == subnet && route.prefix_len == prefix_len;
            let route = all.iter().find(is_it).expect("the link's own");
            assert_eq!((route.kind, route.interface, route.gateway), (Kind::Unicast, link.index, None));
            assert!(!route.is_odd && route.table == 254);
            let rules = routes::rules(&mut netlink, family as u8).expect("rules");
            assert!(rules.iter().all(|rule| rule.is_plain), "{rules:?}");
        }
    });
}

#[test]
fn the_kernel_resolves_who_is_asked_for() {
    let Some([near, _far]) = Cable::default().lay() else { return };
    near.inside(|| {
        const RTMGRP_NEIGH: u32 = 4;
        let (mut asks, mut hears) =
            (Netlink::open(0).expect("netlink"), Netlink::open(RTMGRP_NEIGH).expect("netlink"));
        let interface = links::named(&mut asks, NAME).expect("the cable").index;
        for ip in [ip(2), ip6(2)] {
            neighbours::resolve(&mut asks, interface, &ip).expect("root may ask");
            let until = Instant::now() + Duration::from_secs(20);
            let mut link = None;
            while link.is_none() {
                assert!(Instant::now() < until, "{ip:?} is there, and does not answer");
                let seen = hears.changes(|kind, body| {
                    let heard = neighbours::parse(kind, body).filter(|neighbour| neighbour.ip == ip);
                    link = link.or(heard.and_then(|neighbour| neighbour.link));
                });
                if seen == Ok(false) {
                    std::thread::yield_now();
                }
            }
            assert_eq!(link, Some([2, 0, 0, 0, 0, 2]));
            let all = neighbours::all(&mut asks).expect("neighbours");
            let known = all.iter().find(|neighbour| neighbour.ip == ip).expect("it is known");
            assert_eq!((known.interface, known.link, known.state.is_valid()), (interface, link, true));
        }
    });
}
