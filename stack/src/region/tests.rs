//! Layout, attaching, and what a region is when nobody has written to it, or everybody.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{LINE, PARTS, VERSION};
use super::limits::LIMITS;
use super::memory::{Memory, TINY};
use super::shared::{SHARED, words};
use super::*;
use crate::frames::pool::{self, Pool};
use crate::hash::Secret;
use crate::host::Host;
use crate::stats::Counter;

/// Limits up to their bounds: mostly small, for the sum of all at their most is more than a test should add up.
fn limits() -> impl Strategy<Value = Limits> {
    proptest::array::uniform20((any::<u32>(), 0u32..26)).prop_map(|numbers| {
        let values: Vec<u32> = LIMITS
            .iter()
            .zip(numbers)
            .map(|((_, _, least, most), (number, shift))| {
                least + (number >> shift) % (most - least).saturating_add(1)
            })
            .collect();
        Limits::read_from_bytes(values.as_bytes()).expect("a word for each")
    })
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn parts_are_apart_and_aligned(limits in limits()) {
        let layout = Layout::new(&limits).expect("within the bounds");
        let mut end = 0;
        for (span, (name, _)) in layout.spans().into_iter().zip(PARTS) {
            prop_assert!(span.offset >= end && span.offset.is_multiple_of(LINE), "{name} at {}", span.offset);
            prop_assert!(span.offset - end < LINE, "{name} leaves a gap");
            end = span.offset + span.size();
        }
        prop_assert!(end <= layout.size && layout.size - end < LINE && layout.size.is_multiple_of(LINE));
        prop_assert_eq!(layout.tcbs.count, limits.tcp_sockets as usize);
        prop_assert!(layout.tcp_places.count * 3 >= layout.tcbs.count * 4, "a table is at most three quarters full");
        prop_assert!(words(&limits) >= limits.frames as usize + limits.tcp_sockets as usize + limits.udp_sockets as usize);
    }

    #[test]
    fn a_limit_out_of_bounds_is_named(which in 0usize..LIMITS.len(), beyond in 1u32..1000) {
        let (name, _, least, most) = LIMITS[which];
        for value in [least.checked_sub(beyond), most.checked_add(beyond)].into_iter().flatten() {
            let mut values = Limits::SMALL.values();
            values[which] = value;
            let limits = Limits::read_from_bytes(values.as_bytes()).expect("a word for each");
            let refused = Layout::new(&limits).expect_err("out of bounds");
            prop_assert_eq!(refused, Refused::Limit { name, value, least, most });
            prop_assert!(refused.to_string().contains(name));
        }
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(48))]

    /// Whatever the bytes say, attaching and checking end, and end well.
    #[test]
    fn nonsense_is_survived(seed in any::<u64>(), keeps_header in any::<bool>(), density in 0u32..4) {
        let mut memory = Memory::new(&TINY);
        let header = memory.bytes()[..size_of::<Header>()].to_vec();
        let mut state = seed | 1;
        for byte in memory.bytes() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Small numbers are indices that lead somewhere.
            *byte = match density {
                0 => (state >> 56) as u8,
                1 => u8::from(state >> 60 == 0),
                2 => if state >> 59 == 0 { (state >> 40) as u8 % 12 } else { 0 },
                _ => if state >> 54 == 0 { (state >> 40) as u8 } else { 0 },
            };
        }
        if keeps_header {
            memory.bytes()[..header.len()].copy_from_slice(&header);
        }
        match Parts::attach(memory.bytes()) {
            Ok((_, mut parts)) => {
                prop_assert!(keeps_header);
                let _ = parts.check();
            }
            Err(refused) => prop_assert!(!keeps_header && refused.to_string().len() < 120),
        }
        let _ = memory.parts().check();
    }
}

#[test]
fn every_part_has_a_name_of_its_own_and_a_meaning() {
    let mut names: Vec<&str> = PARTS.iter().chain(SHARED).map(|row| row.0).collect();
    assert!(PARTS.iter().chain(SHARED).all(|row| row.1.trim().ends_with('.')));
    // Frames have a record in one part and a word in the other; so have processes.
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(before - names.len(), 2);
}

#[test]
fn zero_bytes_are_an_empty_region() {
    let mut memory = Memory::zero(&Limits::SMALL);
    let mut parts = memory.parts();
    assert_eq!(parts.check(), Ok(()));
    assert_eq!((parts.slabs.tcbs.used(), parts.header.state), (0, 0));
    let handle = parts.slabs.tcbs.take(parts.tcbs).expect("the first socket");
    assert_eq!((handle.index, parts.check()), (0, Ok(())));
}

#[test]
fn frames_and_blocks_are_at_hand() {
    let mut memory = Memory::new(&Limits { frames: 64, ..TINY });
    let words: Vec<AtomicU64> = memory.words.iter().map(|_| AtomicU64::new(0)).collect();
    let shared = Shared::split(&words, &memory.limits).expect("room");
    let mut parts = memory.parts();
    let frame = parts.frame_pool(&shared).take(pool::Purpose::Fill).expect("a reserve");
    assert!(parts.frame_pool(&shared).fill(frame));
    assert_eq!(parts.check_frames(&shared), Ok(()));
    assert_eq!((parts.pool.filled(), parts.block_pool().blocks.len()), (1, 1));
    shared.frames[frame.0 as usize].store(99, Relaxed);
    assert_eq!(parts.check_frames(&shared).map_err(|broken| broken.part), Err("frames"));
}

#[test]
fn making_a_region_writes_only_its_header_its_reserves_and_the_hosts_values() {
    let mut memory = Memory::new(&TINY);
    let parts = memory.parts();
    assert_eq!(core::mem::take(parts.pool), Pool::new(pool::Limits::of(TINY.frames)));
    assert_eq!(*parts.host, Host::DEFAULT);
    parts.host.as_mut_bytes().fill(0);
    let rest = &memory.bytes()[size_of::<Header>()..];
    assert!(*rest == vec![0; rest.len()], "all of it is zero");
    let (layout, parts) = Parts::attach(memory.bytes()).expect("a region");
    assert_eq!((parts.header.limits, layout.limits), (TINY, TINY));
    assert_eq!(parts.header.secret, Secret([0x1234, 0x5678]));
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let attach = |change: &dyn Fn(&mut Header)| {
        let mut memory = Memory::new(&TINY);
        change(memory.parts().header);
        let refused = Parts::attach(memory.bytes()).map(|_| ()).expect_err("refused");
        (refused, refused.to_string())
    };
    let (_, text) = attach(&|header| header.magic[7] = b'!');
    assert_eq!(text, "these bytes are no region of a stack: they don't begin with its mark");
    let (_, text) = attach(&|header| header.version = VERSION + 1);
    assert_eq!(text, format!("the region has layout {}, and this stack knows layout {VERSION}", VERSION + 1));
    let needed = Layout::new(&TINY).expect("limits").size;
    let (_, text) = attach(&|header| header.size -= 64);
    assert_eq!(text, format!("the region has {} bytes, and its limits need {needed}", needed - 64));
    let (refused, _) = attach(&|header| header.shared_words += 1);
    assert!(matches!(refused, Refused::Size { .. }));
    let (_, text) = attach(&|header| header.limits.processes = 65);
    assert_eq!(text, "a region can't have 65 processes: 1 to 64 are possible");
    let (_, text) = attach(&|header| header.state = 0);
    assert_eq!(text, "the region is still being made");
    let (_, text) = attach(&|header| header.state = Header::GIVEN_UP);
    assert_eq!(text, "the region was given up by those who used it");

    let mut memory = Memory::new(&TINY);
    let short = memory.bytes().len() - 1;
    assert!(matches!(Parts::attach(&mut memory.bytes()[..short]), Err(Refused::Size { .. })));
    assert!(matches!(Parts::attach(&mut memory.bytes()[..7]), Err(Refused::Size { .. })));
    // Eight bytes further, every row is where no record may be.
    let mut moved = Memory::zero(&Limits::SMALL);
    moved.bytes()[8..][..short + 1].copy_from_slice(memory.bytes());
    assert_eq!(Parts::attach(&mut moved.bytes()[8..]).map(|_| ()), Err(Refused::Alignment));
    let words = &memory.words[1..];
    assert!(matches!(Shared::split(words, &TINY), Err(Refused::Size { .. })));
}

#[test]
fn a_copy_elsewhere_is_the_same_region() {
    let mut memory = Memory::new(&TINY);
    let parts = memory.parts();
    let first = parts.slabs.tcbs.take(parts.tcbs).expect("room");
    let second = parts.slabs.tcbs.take(parts.tcbs).expect("room");
    assert!(parts.slabs.tcbs.give(parts.tcbs, first));
    let mut copy = Memory::zero(&TINY);
    copy.bytes().copy_from_slice(memory.bytes());
    let (_, mut parts) = Parts::attach(copy.bytes()).expect("a region");
    assert_eq!(parts.check(), Ok(()));
    assert!(slab::find(parts.tcbs, second).is_some() && slab::find(parts.tcbs, first).is_none());
    let next = parts.slabs.tcbs.take(parts.tcbs).expect("room");
    let parts = memory.parts();
    assert_eq!(parts.slabs.tcbs.take(parts.tcbs), Some(next));
    assert_eq!(copy.bytes(), memory.bytes());
}

/// Ten million connections from as many ports of ours, with half a gigabyte of frames beside them.
#[test]
fn ten_million_connections_fit_into_eight_gigabytes() {
    let limits = Limits {
        tcp_sockets: 10_000_000,
        traffics: 65_536,
        bounds: 10_000_000,
        frames: 1 << 18,
        ..Limits::SMALL
    };
    let layout = Layout::new(&limits).expect("limits");
    let frames = limits.frames as usize * limits.frame_size as usize;
    let all = layout.size + 8 * words(&limits) + frames;
    assert!(all <= 8 << 30, "{all}");
}

/// An idle connection, and its share of the table: the goal is 512 bytes.
#[test]
fn a_connection_costs_what_it_may() {
    for tcp_sockets in [1000, 10_000, 786_432, 1_000_000, 1_048_576, 10_000_000] {
        let layout = Layout::new(&Limits { tcp_sockets, ..Limits::SMALL }).expect("limits");
        assert!(layout.bytes_per_connection() <= 512, "{} at {tcp_sockets}", layout.bytes_per_connection());
    }
}

/// Nobody's word is another's, and words of different parts are in different lines.
#[test]
fn shared_words_are_apart() {
    let memory = Memory::new(&TINY);
    let shared = memory.shared();
    let base = memory.words.as_ptr().addr();
    let parts = [
        shared.lock,
        shared.deferred,
        shared.deadline,
        shared.polled,
        shared.leader,
        shared.mirror,
        shared.kick,
        shared.processes,
        shared.changed,
        shared.changes,
        shared.tcp_events,
        shared.udp_events,
        shared.frames,
        shared.stats,
        shared.tap,
        shared.tapped,
    ];
    assert_eq!(parts.len(), SHARED.len());
    let mut end = 0;
    for part in parts {
        let offset = (part.as_ptr().addr() - base) / 8;
        assert!(offset >= end && offset.is_multiple_of(8) && offset - end < 8);
        end = offset + part.len();
    }
    assert_eq!(end.next_multiple_of(8), memory.words.len());
    shared.counters().add(Counter::Corrupt, 1);
    assert_eq!(memory.shared().counters().of(Counter::Corrupt), 1);
}
