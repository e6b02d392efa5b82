//! Memberships against sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::region::Limits;
use crate::region::memory::{Memory, TINY};

/// A group as the model has it: the kind of its sources, whether it had some, and they.
type Group = (Filter, bool, BTreeSet<u8>);

proptest! {
    #![proptest_config(crate::testing::cases(64))]

    #[test]
    fn sockets_hear_what_they_have_chosen(
        acts in proptest::collection::vec((0u8..5, 0usize..3, 0u8..3, 0u8..4), 1..80),
    ) {
        let mut memory = Memory::new(&Limits { memberships: 40, ..TINY });
        let mut parts = memory.parts();
        let sockets = [0, 1, 2].map(|_| parts.udp_socket(false, 0).expect("room"));
        let mut model: [BTreeMap<u8, Group>; 3] = Default::default();
        let (group_of, source_of) = (|n: u8| Ip::v4([239, 0, 0, n]), |n: u8| Ip::v4([198, 51, 100, n]));
        for (act, which, group, source) in acts {
            let (socket, known, now) = (sockets[which], &mut model[which], Instant(1));
            let (ip, from) = (group_of(group), source_of(source));
            match act {
                0 => {
                    let done = parts.udp_join_group(socket, &ip, now);
                    let is_new = !known.contains_key(&group);
                    prop_assert_eq!(done, if is_new { Ok(()) } else { Err(Error::AddressInUse) });
                    known.entry(group).or_insert((Filter::Exclude, false, BTreeSet::new()));
                }
                1 => {
                    let done = parts.udp_leave_group(socket, &ip, now);
                    let was_there = known.remove(&group).is_some();
                    prop_assert_eq!(done, if was_there { Ok(()) } else { Err(Error::AddressNotAvailable) });
                }
                _ => {
                    let filter = if act == 2 { Filter::Include } else { Filter::Exclude };
                    let adds = act != 4 || source.is_multiple_of(2);
                    let done = parts.udp_filter(socket, &ip, &from, (filter, adds), now);
                    if filter == Filter::Include && adds {
                        known.entry(group).or_insert((Filter::Include, false, BTreeSet::new()));
                    }
                    let expected = match known.get_mut(&group) {
                        None => Err(Error::Invalid),
                        Some((of, true, _)) if *of != filter => Err(Error::Invalid),
                        Some((_, _, sources)) if sources.contains(&source) == adds => Err(Error::AddressNotAvailable),
                        Some((of, had, sources)) => {
                            (*of, *had) = (filter, true);
                            if adds { sources.insert(source) } else { sources.remove(&source) };
                            Ok(())
                        }
                    };
                    prop_assert_eq!(done, expected);
                }
            }
            prop_assert_eq!(parts.check(), Ok(()));
            for (socket, known) in sockets.iter().zip(&model) {
                for (group, source) in (0..3).flat_map(|group| (0..4).map(move |source| (group, source))) {
                    // Who isn't in a group hears what others have joined (IP_MULTICAST_ALL).
                    let expected = known.get(&group).is_none_or(|(filter, _, sources)| {
                        sources.contains(&source) == (*filter == Filter::Include)
                    });
                    prop_assert_eq!(parts.udp_hears(socket.index, &group_of(group), &source_of(source)), expected);
                }
            }
            for group in 0..3 {
                let is_listened_to = model.iter().any(|known| known.contains_key(&group));
                prop_assert_eq!(parts.listens_to(&group_of(group)), is_listened_to);
            }
        }
    }
}
