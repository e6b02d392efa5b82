use std::cell::RefCell;

use super::*;

const ONE: Ip = Ip::v4([10, 0, 0, 1]);
const TWO: Ip = Ip::v4([10, 0, 0, 2]);
const SIX: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// What was entered.
#[derive(Debug, Default)]
struct Entered {
    locals: RefCell<BTreeMap<[u8; 16], u32>>,
    places: RefCell<BTreeMap<(u32, u8, u16), Claim>>,
}

impl Table for Entered {
    fn set_local(&self, address: &Ip, slot: u32) -> sys::Result<()> {
        self.locals.borrow_mut().insert(address.0, slot);
        Ok(())
    }

    fn remove_local(&self, address: &Ip) -> sys::Result<()> {
        self.locals.borrow_mut().remove(&address.0);
        Ok(())
    }

    fn claim(&self, place: Place, claim: Option<Claim>) {
        let key = (place.slot, place.protocol as u8, place.port);
        match claim {
            Some(claim) => self.places.borrow_mut().insert(key, claim),
            None => self.places.borrow_mut().remove(&key),
        };
    }
}

impl Entered {
    /// What a packet to this address and port of TCP meets.
    fn meets(&self, ip: &Ip, port: u16) -> Option<Claim> {
        let slot = *self.locals.borrow().get(&ip.0)?;
        self.places.borrow().get(&(slot, Protocol::Tcp as u8, port)).copied()
    }
}

fn socket() -> Fd {
    sys::eventfd(0).expect("a descriptor")
}

fn port(local: Ip, number: u16) -> Port {
    Port { protocol: Protocol::Tcp, local, number }
}

fn started(addresses: &[Ip]) -> (Claims, Entered) {
    let (mut claims, table) = (Claims::new(1, Vec::new()), Entered::default());
    for ip in addresses {
        assert!(claims.add_address(&table, *ip));
    }
    (claims, table)
}

const OURS: Option<Claim> = Some(Claim { owner: 1, mixed: false });

#[test]
fn a_claim_is_for_its_addresses_also_for_those_that_come_later() {
    let (mut claims, table) = started(&[ONE]);
    claims.claim(&table, 7, &port(Ip::UNSPECIFIED_V4, 80), Cover::V4, socket()).expect("free");
    let one = claims.claim(&table, 7, &port(ONE, 81), Cover::One(ONE), socket()).expect("free");
    claims.claim(&table, 7, &port(Ip::UNSPECIFIED, 82), Cover::Both, socket()).expect("free");
    claims.claim(&table, 7, &port(Ip::UNSPECIFIED, 83), Cover::V6, socket()).expect("free");
    assert!(claims.add_address(&table, TWO) && claims.add_address(&table, SIX));
    let met = |ip: &Ip| [80, 81, 82, 83].map(|port| table.meets(ip, port).is_some());
    assert_eq!(met(&ONE), [true, true, true, false]);
    assert_eq!(met(&TWO), [true, false, true, false]);
    assert_eq!(met(&SIX), [false, false, true, true]);
    assert_eq!(one.slots, 1);
    let absent = claims.claim(&table, 7, &port(Ip::BROADCAST, 81), Cover::One(Ip::BROADCAST), socket());
    assert_eq!(absent, Err((Reason::Address, 0)));
}

#[test]
fn a_port_is_free_when_the_last_holder_has_ended() {
    let (mut claims, table) = started(&[ONE]);
    let wanted = port(ONE, 80);
    claims.claim(&table, 7, &wanted, Cover::One(ONE), socket()).expect("free");
    claims.join(8, &wanted).expect("claimed");
    claims.inherit(8, 9);
    claims.end(&table, 7);
    claims.end(&table, 8);
    assert_eq!(table.meets(&ONE, 80), OURS, "the child has it");
    assert_eq!(claims.release(&table, 7, &wanted), Err((Reason::Unclaimed, 0)));
    claims.release(&table, 9, &wanted).expect("held");
    assert_eq!(table.meets(&ONE, 80), None);
    assert_eq!(claims.join(8, &wanted), Err((Reason::Unclaimed, 0)));
}

#[test]
fn a_process_releases_as_often_as_it_claimed() {
    let (mut claims, table) = started(&[ONE]);
    let wanted = port(Ip::UNSPECIFIED_V4, 80);
    for _ in 0..2 {
        claims.claim(&table, 7, &wanted, Cover::V4, socket()).expect("shared");
    }
    claims.release(&table, 7, &wanted).expect("held");
    assert_eq!(table.meets(&ONE, 80), OURS);
    claims.release(&table, 7, &wanted).expect("held");
    assert_eq!(table.meets(&ONE, 80), None);
}

#[test]
fn what_is_leased_is_ours_at_every_address_whatever_else_is_claimed() {
    let (mut claims, table) = (Claims::new(1, vec![(40_000, 10), (u16::MAX, 1)]), Entered::default());
    assert!(claims.add_address(&table, ONE));
    let met = |port| table.meets(&ONE, port);
    assert_eq!([39_999, 40_000, 40_009, 40_010, u16::MAX].map(met), [None, OURS, OURS, None, OURS]);
    claims.claim(&table, 7, &port(ONE, 40_001), Cover::One(ONE), socket()).expect("ours");
    claims.end(&table, 7);
    assert_eq!(met(40_001), OURS);
}

#[test]
fn an_address_that_comes_back_has_its_slot_as_long_as_it_is_claimed() {
    let (mut claims, table) = started(&[ONE, TWO]);
    let claimed = claims.claim(&table, 7, &port(TWO, 80), Cover::One(TWO), socket()).expect("free");
    claims.remove_address(&table, &TWO);
    assert_eq!((table.meets(&TWO, 80), claims.addresses()), (None, vec![ONE]));
    let others: Vec<Ip> = (0..20).map(|last| Ip::v4([10, 1, 0, last])).collect();
    let taken = others.iter().filter(|ip| claims.add_address(&table, **ip)).count();
    assert_eq!(taken, LOCALS as usize - 2, "one slot waits");
    assert!(claims.add_address(&table, TWO));
    assert_eq!(table.meets(&TWO, 80), OURS);
    assert_eq!(table.locals.borrow().get(&TWO.0).map(|slot| 1 << slot), Some(claimed.slots));
    // Nobody claims it: another address takes the slot, and nothing of the first is left there.
    claims.end(&table, 7);
    claims.remove_address(&table, &TWO);
    let last = others[19];
    assert!(claims.add_address(&table, last));
    assert_eq!(table.meets(&last, 80), None);
}

#[test]
fn a_mixed_port_stays_so_until_it_is_free() {
    let (mut claims, table) = started(&[ONE]);
    let wanted = port(ONE, 80);
    claims.claim(&table, 7, &wanted, Cover::One(ONE), socket()).expect("free");
    claims.set_mixed(&table, 80, true);
    assert_eq!(table.meets(&ONE, 80), Some(Claim { owner: 1, mixed: true }));
    claims.end(&table, 7);
    claims.claim(&table, 8, &wanted, Cover::One(ONE), socket()).expect("free");
    assert_eq!(table.meets(&ONE, 80), OURS);
}

/// As long as a port comes to the stack it is taken in the kernel.
#[test]
fn the_socket_stays_as_long_as_somebody_holds_the_port() {
    let (mut claims, table) = started(&[ONE]);
    let [read, write] = crate::sys::pipe().expect("a pipe");
    let wanted = port(ONE, 80);
    claims.claim(&table, 7, &wanted, Cover::One(ONE), write).expect("free");
    claims.join(8, &wanted).expect("claimed");
    claims.inherit(8, 9);
    let is_open = || {
        let mut end = [libc::pollfd { fd: read.raw(), events: libc::POLLIN, revents: 0 }];
        sys::poll_all(&mut end, 0) == Ok(0)
    };
    for pid in [7, 8] {
        claims.end(&table, pid);
        assert!(is_open(), "{pid} has ended");
    }
    claims.end(&table, 9);
    assert!(!is_open());
}
