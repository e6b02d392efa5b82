//! What a recovery leaves alone, what it loses, and what it survives. Deaths in the midst of operations are in the workspace's
//! tests.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::process::Identity;
use crate::region::Header;
use crate::region::memory::{Memory, TINY};
use crate::region::slab::Handle;
use crate::region::wheel::Entry;
use crate::tcp::open::tests::{Act, act, acts, host};
use crate::tcp::state::State;
use crate::tcp::tcb::{Mark, Seldom, Tcb};
use crate::time::Instant;

/// Does what is said, as if every child had been opened by its segment.
fn live(memory: &mut Memory, acts: Vec<Act>) -> Vec<Handle> {
    let mut sockets = Vec::new();
    let mut parts = memory.parts();
    for it in acts {
        let _ = act(&mut parts, &mut sockets, it);
        parts.intent.end();
    }
    for tcb in parts.tcbs.iter_mut().filter(|tcb| tcb.state() == State::SynReceived) {
        tcb.advertised_mss = 1460;
    }
    sockets
}

/// What programs and peers know of a region: the sockets in use, the queues of listeners in order, and how many of everything. Of
/// sockets that wait for queues it is known that they do, and not in which order.
type Known = (Vec<(Tcb, Seldom)>, Vec<Vec<u32>>, [u32; 8]);

fn known(parts: &mut Parts<'_>) -> Known {
    let used = parts.tcbs.iter().zip(&*parts.seldoms).filter(|(tcb, _)| tcb.tag.is_used());
    let sockets = used.map(|(tcb, seldom)| {
        let (waits, mut seldom) = (tcb.waits_for_queues(seldom.queue), *seldom);
        if waits {
            (seldom.queue, seldom.snd_up) = (Seldom::LAST, Seq(0));
        }
        (Tcb { entry: Entry::default(), ..*tcb }, seldom)
    });
    let sockets = sockets.collect();
    let queues = parts.listeners.iter().filter(|listener| listener.tag.is_used()).map(|listener| {
        let queue = core::iter::successors(listener.accept_head.checked_sub(1), |at| {
            parts.seldoms[*at as usize].queue.checked_sub(1)
        });
        queue.chain([listener.backlog, listener.accept_len, listener.syn_len, listener.syn_young]).collect()
    });
    let queues = queues.collect();
    let slabs = &parts.slabs;
    let counts = [
        slabs.tcbs,
        slabs.listeners,
        slabs.syns,
        slabs.bounds,
        slabs.settings,
        slabs.traffics,
        slabs.leases,
        slabs.processes,
    ];
    (sockets, queues, counts.map(|slab| slab.used()))
}

fn recovered(memory: &mut Memory) -> Vec<Lost> {
    let words: Vec<_> = memory.words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let words: Vec<_> = words.into_iter().map(core::sync::atomic::AtomicU64::new).collect();
    let shared = Shared::split(&words, &TINY).expect("room");
    let mut all = Vec::new();
    memory.parts().recover(&shared, |lost| all.push(*lost));
    all
}

proptest! {
    #![proptest_config(crate::testing::cases(48))]

    #[test]
    fn a_region_that_was_whole_stays_as_it_was(acts in acts()) {
        let mut memory = host();
        live(&mut memory, acts);
        let before = known(&mut memory.parts());
        for _ in 0..2 {
            prop_assert_eq!(recovered(&mut memory), []);
            prop_assert_eq!(memory.parts().check(), Ok(()));
            prop_assert_eq!(known(&mut memory.parts()), before.clone());
        }
    }

    /// All that can be made anew is nonsense, and the sockets are as before.
    #[test]
    fn what_follows_from_the_records_is_made_anew(acts in acts(), nonsense in any::<u64>()) {
        let mut memory = host();
        live(&mut memory, acts);
        let before = known(&mut memory.parts());
        let parts = memory.parts();
        let mut state = nonsense | 1;
        for bytes in [
            parts.tcp_places.as_mut_bytes(),
            parts.syn_places.as_mut_bytes(),
            parts.listener_places.as_mut_bytes(),
            parts.bound_places.as_mut_bytes(),
            parts.settings_places.as_mut_bytes(),
            parts.resting.as_mut_bytes(),
            parts.sending.as_mut_bytes(),
            parts.wheels.as_mut_bytes(),
        ] {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 59) as u8;
            }
        }
        for tcb in &mut *parts.tcbs {
            tcb.entry.as_mut_bytes().fill(nonsense as u8);
        }
        prop_assert_eq!(recovered(&mut memory), []);
        prop_assert_eq!(memory.parts().check(), Ok(()));
        prop_assert_eq!(known(&mut memory.parts()), before);
    }

    /// Whatever the bytes are, a recovery ends; if it says that the region is whole, it is.
    #[test]
    fn nonsense_is_survived(acts in acts(), seed in any::<u64>(), density in 0u32..3) {
        let mut memory = host();
        live(&mut memory, acts);
        let mut state = seed | 1;
        for byte in &mut memory.bytes()[size_of::<Header>()..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 40) % [1, 8, 64][density as usize] == 0 {
                *byte = if density == 0 { (state >> 56) as u8 } else { (state >> 56) as u8 % 13 };
            }
        }
        recovered(&mut memory);
        let _ = memory.parts().check();
    }
}

#[test]
fn the_named_connection_is_lost_and_no_other() {
    let mut memory = host();
    let mut parts = memory.parts();
    let (ours, peer) = (Ip::v4([192, 0, 2, 1]), Ip::v4([198, 51, 100, 7]));
    let sockets = [80, 81].map(|port| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.tcp_connect(socket, &ours, (&peer, port), Instant(0)).expect("a port");
        parts.tcb(socket).expect("there").snd.nxt = Seq(u32::from(port));
        socket
    });
    parts.intent.begin(Operation::Tcp, sockets[1].index);
    let lost = recovered(&mut memory);
    assert_eq!(
        lost.iter().map(|lost| (lost.socket, lost.remote, lost.seq)).collect::<Vec<_>>(),
        [(sockets[1], (peer, 81), Seq(81))]
    );
    let mut parts = memory.parts();
    assert_eq!((parts.check(), parts.intent.operation()), (Ok(()), Operation::None));
    let tcb = *parts.tcb(sockets[1]).expect("its program has it still");
    assert_eq!((tcb.state(), Error::from_code(tcb.error)), (State::Closed, Some(Error::ConnectionReset)));
    assert!(parts.tcb(sockets[0]).expect("there").has_peer());
}

/// A child whose making was not finished is gone, and so is one that no queue leads to; an accept(2) is undone.
#[test]
fn an_accept_is_undone_and_half_a_child_is_none() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = parts.tcp_socket(false, 0).expect("room");
    let ours = Ip::v4([192, 0, 2, 1]);
    parts.tcp_bind(socket, (&Ip::UNSPECIFIED_V4, 80)).expect("free");
    parts.tcp_listen(socket, 5).expect("free");
    let listener = parts.listening().find((&ours, 80), 0).expect("it listens");
    let children = [1, 2, 3].map(|port| {
        let syn = crate::tcp::listener::SynEntry {
            local: ours,
            local_port: 80,
            remote: Ip::v4([198, 51, 100, 7]),
            remote_port: port,
            ..Default::default()
        };
        let child = parts.tcp_child(listener, &syn).expect("room");
        parts.intent.end();
        parts.tcb(child).expect("there").advertised_mss = 1460;
        child
    });
    // The first is taken off, and marked still.
    let record = &mut parts.listeners[listener as usize];
    record.accept_head = children[1].index + 1;
    parts.seldoms[children[0].index as usize].holders = 1;
    parts.intent.other = listener + 1;
    parts.intent.begin(Operation::Accept, children[0].index);
    parts.tcb(children[1]).expect("there").advertised_mss = 0;
    assert_eq!(recovered(&mut memory).len(), 1, "the one that no segment has opened");
    let mut parts = memory.parts();
    assert_eq!(parts.check(), Ok(()));
    assert_eq!(parts.listeners[listener as usize].accept_len, 2);
    assert_eq!(parts.tcp_accept(socket, 0), Ok(children[0]));
    assert_eq!(parts.tcp_accept(socket, 0), Ok(children[2]));
    assert_eq!(parts.tcp_accept(socket, 0), Err(Error::WouldBlock));
    assert!(!parts.tcb(children[2]).expect("there").is(Mark::QUEUED));
}

#[test]
fn what_nobody_holds_is_given_back() {
    let mut memory = host();
    let mut parts = memory.parts();
    let process = parts.attach_process(&Identity { pid: 7, started: 1, uid: 0 }).expect("room");
    let held = parts.tcp_socket(false, process.index).expect("room");
    // As a death in socket(2) leaves it, and one in fork.
    let made = parts.tcp_socket(false, u64::BITS).expect("room");
    parts.seldoms[held.index as usize].holders |= 1 << 3;
    assert_eq!(recovered(&mut memory), []);
    let mut parts = memory.parts();
    assert_eq!(parts.check(), Ok(()));
    assert_eq!(parts.holders(held), Ok(1 << process.index));
    assert_eq!(parts.holders(made), Err(Error::BadHandle));
}
