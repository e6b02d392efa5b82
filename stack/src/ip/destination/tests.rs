use proptest::prelude::*;

use super::*;

const COUNT: u32 = 4;

struct Memory(Slab, Vec<Destination>, Vec<Place>, Order);

impl Memory {
    fn new() -> Self {
        let places = vec![Place::default(); Table::places_for(COUNT)];
        Self(Slab::default(), vec![Destination::default(); COUNT as usize], places, Order::default())
    }

    fn all(&mut self) -> Destinations<'_> {
        Destinations { slab: &mut self.0, records: &mut self.1, places: &mut self.2, order: &mut self.3 }
    }
}

fn host(number: u8) -> Ip {
    Ip::v4([192, 0, 2, number])
}

/// A bad one, so that they meet in the table.
fn hash(ip: &Ip) -> u32 {
    u32::from(ip.0[15] & 3)
}

const fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn those_that_were_used_last_are_known(acts in proptest::collection::vec((0u8..9, any::<u16>()), 0..100)) {
        let mut memory = Memory::new();
        let mut model: Vec<(u8, u16)> = Vec::new();
        for (number, mss) in acts {
            let ip = host(number);
            memory.all().change(&ip, hash(&ip), hash, |record| record.mss = mss);
            model.retain(|row| row.0 != number);
            model.push((number, mss));
            if model.len() > COUNT as usize {
                model.remove(0);
            }
            prop_assert_eq!(memory.all().check(hash), Ok(()));
            for number in 0..9 {
                let known = memory.all().of(&host(number), hash(&host(number))).map(|record| record.mss);
                prop_assert_eq!(known, model.iter().find(|row| row.0 == number).map(|row| row.1));
            }
        }
        memory.all().forget();
        prop_assert_eq!(memory.all().check(hash), Ok(()));
        prop_assert_eq!(memory.0.used(), 0);
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 1000), number in 0u8..9) {
        let mut memory = Memory::new();
        let (slab, rest) = bytes.split_at(size_of::<Slab>());
        memory.0 = Slab::read_from_bytes(slab).expect("a slab");
        let (order, rest) = rest.split_at(size_of::<Order>());
        memory.3 = Order::read_from_bytes(order).expect("an order");
        let (records, rest) = rest.split_at(COUNT as usize * size_of::<Destination>());
        memory.1.as_mut_slice().as_mut_bytes().copy_from_slice(records);
        let length = memory.2.len() * size_of::<Place>();
        memory.2.as_mut_slice().as_mut_bytes().copy_from_slice(&rest[..length]);
        let ip = host(number);
        let _ = memory.all().of(&ip, hash(&ip)).and_then(|record| record.cookie());
        memory.all().change(&ip, hash(&ip), hash, |record| record.note_failure(at(5)));
        let _ = memory.all().check(hash);
    }
}

#[test]
fn a_cookie_is_kept_whole() {
    let mut record = Destination::default();
    assert_eq!(record.cookie(), None);
    let cookie = Cookie::new(&[1, 2, 3, 4, 5, 6, 7, 8], false).expect("eight bytes");
    record.set_cookie(&cookie, 1460);
    assert_eq!((record.cookie(), record.mss), (Some(cookie), 1460));
    record.cookie_len = 200;
    assert_eq!(record.cookie(), None, "nonsense");
}

#[test]
fn after_the_second_failure_it_is_left_alone_for_longer_each_time() {
    let mut record = Destination::default();
    record.note_failure(at(100));
    assert!(!record.is_avoided(at(100)), "one may be chance");
    record.note_failure(at(200));
    assert!(record.is_avoided(at(200)) && record.is_avoided(at(439)) && !record.is_avoided(at(440)));
    record.note_failure(at(500));
    assert!(record.is_avoided(at(979)) && !record.is_avoided(at(980)));
}
