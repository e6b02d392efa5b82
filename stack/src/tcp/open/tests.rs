//! Sockets' lives without segments: single rules, and many at once with a check of the whole region in between.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::traffic::Want;
use super::*;
use crate::ip::route::source::Address;
use crate::ports::Lease;
use crate::recvq::ReceiveQueue;
use crate::region::memory::{Memory, TINY};
use crate::tcp::listener::SynEntry;

const OURS: Ip = Ip::v4([192, 0, 2, 1]);
const OURS_V6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const PEER: Ip = Ip::v4([198, 51, 100, 7]);
const PEER_V6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
const ANY: Ip = Ip::UNSPECIFIED_V4;

/// A region with two addresses and six ephemeral ports.
pub(crate) fn host() -> Memory {
    let mut memory = Memory::new(&TINY);
    let mut parts = memory.parts();
    for ip in [OURS, OURS_V6] {
        parts.add_address(&Address { ip, prefix_len: 128, ..Address::default() }).expect("room");
    }
    let handle = parts.slabs.leases.take(parts.leases).expect("room");
    let lease = &mut parts.leases[handle.index as usize];
    *lease = Lease { tag: lease.tag, first: 40_000, count: 6, protocols: 3, is_ephemeral: 1, reserved: 0 };
    memory
}

pub(crate) fn switched(options: u32) -> Values {
    Values { options, ..Values::default() }
}

fn syn(local: (Ip, u16), remote: (Ip, u16)) -> SynEntry {
    let ((local, local_port), (remote, remote_port)) = (local, remote);
    SynEntry { local, local_port, remote, remote_port, ..SynEntry::default() }
}

/// A socket of IPv4 that listens at this port.
fn listening(parts: &mut Parts<'_>, options: u32, port: u16) -> Handle {
    let socket = parts.tcp_socket(false, 0).expect("room");
    parts.set_tcp_options(socket, &switched(options)).expect("room");
    parts.tcp_bind(socket, (&ANY, port)).expect("free");
    parts.tcp_listen(socket, 5).expect("free");
    socket
}

#[test]
fn a_server_and_its_child() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = listening(&mut parts, 0, 80);
    let listener = parts.listening().find((&OURS, 80), 0).expect("listening");
    let waiting = parts.tcp_keep_syn(listener, &syn((OURS, 80), (PEER, 1234))).expect("room");
    assert_eq!(parts.waiting().find((&OURS, 80), (&PEER, 1234)), Some(waiting.index));
    assert_eq!(parts.check(), Ok(()));
    let kept = parts.tcp_forget_syn(waiting.index).expect("there");
    let child = parts.tcp_child(listener, &kept).expect("room");
    assert_eq!(parts.connections().find((&OURS, 80), (&PEER, 1234)), Some(child.index));
    assert_eq!(parts.check(), Ok(()));
    assert_eq!(parts.tcp_release(socket), Err(Error::Invalid), "its child waits");
    assert_eq!(parts.tcp_release(child), Err(Error::Invalid), "it waits");
    assert_eq!(parts.tcp_accept(socket, 3), Ok(child));
    assert_eq!(parts.seldoms[child.index as usize].holders, 1 << 3);
    assert_eq!(parts.tcp_accept(socket, 3), Err(Error::WouldBlock));
    assert_eq!((parts.tcp_release(socket), parts.check()), (Ok(()), Ok(())));
    // The port is still the child's.
    let again = parts.tcp_socket(false, 0).expect("room");
    assert_eq!(parts.tcp_bind(again, (&ANY, 80)), Err(Error::AddressInUse));
    parts.set_tcp_options(again, &switched(Switch::REUSE_ADDRESS)).expect("room");
    assert_eq!(parts.tcp_bind(again, (&ANY, 80)), Err(Error::AddressInUse), "the child does not share");
    assert_eq!(parts.tcp_release(child), Ok(()));
    assert_eq!((parts.tcp_bind(again, (&ANY, 80)), parts.check()), (Ok(()), Ok(())));
    assert_eq!(parts.tcp_release(child), Err(Error::BadHandle));
}

#[test]
fn a_server_restarts_beside_its_children_if_both_allow_it() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = listening(&mut parts, Switch::REUSE_ADDRESS, 80);
    let listener = parts.listening().find((&OURS, 80), 0).expect("listening");
    parts.tcp_child(listener, &syn((OURS, 80), (PEER, 1))).expect("room");
    parts.tcp_accept(socket, 0).expect("one waits");
    parts.tcp_release(socket).expect("nothing waits");
    listening(&mut parts, Switch::REUSE_ADDRESS, 80);
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn of_two_that_share_an_address_one_listens() {
    let mut memory = host();
    let mut parts = memory.parts();
    let [first, second] = [(); 2].map(|()| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.set_tcp_options(socket, &switched(Switch::REUSE_ADDRESS)).expect("room");
        parts.tcp_bind(socket, (&OURS, 80)).expect("shared");
        socket
    });
    assert_eq!(parts.tcp_listen(first, 1), Ok(()));
    assert_eq!(parts.tcp_listen(second, 1), Err(Error::AddressInUse));
    assert_eq!(parts.tcp_listen(first, 9), Ok(()), "a new backlog");
    assert_eq!(parts.listeners[0].backlog, 9);
    assert_eq!((parts.tcp_release(first), parts.tcp_listen(second, 1)), (Ok(()), Ok(())));
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn a_socket_without_a_port_gets_one() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = parts.tcp_socket(false, 0).expect("room");
    parts.tcp_listen(socket, 1).expect("a port");
    let port = parts.tcb(socket).expect("there").local_port;
    assert!((40_000..40_006).contains(&port));
    let client = parts.tcp_socket(true, 0).expect("room");
    parts.tcp_connect(client, &OURS, (&PEER, 80), Instant(0)).expect("a port");
    let tcb = *parts.tcb(client).expect("there");
    assert!((40_000..40_006).contains(&tcb.local_port) && tcb.local_port != port);
    assert_eq!((tcb.local, tcb.remote, tcb.state()), (OURS, PEER, State::SynSent));
    assert_eq!(parts.tcp_connect(client, &OURS, (&PEER, 80), Instant(0)), Err(Error::Already));
    assert_eq!(parts.check(), Ok(()));
    parts.tcp_disconnect(client).expect("a connection");
    let tcb = *parts.tcb(client).expect("there");
    assert_eq!((tcb.local, tcb.local_port, tcb.state()), (Ip::UNSPECIFIED, 0, State::Closed));
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn a_bound_port_serves_two_peers_but_not_one_twice() {
    let mut memory = host();
    let mut parts = memory.parts();
    let mut client = |peer| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.set_tcp_options(socket, &switched(Switch::REUSE_ADDRESS)).expect("room");
        parts.tcp_bind(socket, (&ANY, 5000)).expect("shared");
        (socket, parts.tcp_connect(socket, &OURS, (&PEER, peer), Instant(0)))
    };
    let (first, done) = client(80);
    assert_eq!((done, client(81).1), (Ok(()), Ok(())));
    assert_eq!(client(80).1, Err(Error::AddressNotAvailable));
    assert_eq!(parts.check(), Ok(()));
    parts.tcp_disconnect(first).expect("a connection");
    let tcb = *parts.tcb(first).expect("there");
    assert_eq!((tcb.local, tcb.local_port), (ANY, 5000), "what bind had given");
    assert_eq!((parts.check(), parts.tcp_connect(first, &OURS, (&PEER, 82), Instant(0))), (Ok(()), Ok(())));
}

#[test]
fn versions_do_not_mix() {
    let mut memory = host();
    let mut parts = memory.parts();
    let four = parts.tcp_socket(false, 0).expect("room");
    let six = parts.tcp_socket(true, 0).expect("room");
    assert_eq!(parts.tcp_bind(four, (&OURS_V6, 1)), Err(Error::AddressFamily));
    assert_eq!(parts.tcp_bind(four, (&PEER, 1)), Err(Error::AddressNotAvailable));
    assert_eq!(parts.tcp_connect(four, &OURS, (&PEER_V6, 1), Instant(0)), Err(Error::AddressFamily));
    parts.set_tcp_options(six, &switched(Switch::V6_ONLY)).expect("room");
    assert_eq!(parts.tcp_bind(six, (&OURS, 1)), Err(Error::Invalid));
    assert_eq!(parts.tcp_connect(six, &OURS, (&PEER, 1), Instant(0)), Err(Error::NetworkUnreachable));
    // Its half of the port leaves the other to IPv4.
    assert_eq!(parts.tcp_bind(six, (&Ip::UNSPECIFIED, 80)), Ok(()));
    assert_eq!(parts.tcp_bind(six, (&Ip::UNSPECIFIED, 81)), Err(Error::Invalid), "once");
    assert_eq!(parts.tcp_bind(four, (&ANY, 80)), Ok(()));
    assert_eq!((parts.tcp_listen(six, 1), parts.tcp_listen(four, 1)), (Ok(()), Ok(())));
    let (v4, v6) = (parts.listening().find((&OURS, 80), 0), parts.listening().find((&OURS_V6, 80), 0));
    assert!(v4.is_some() && v6.is_some() && v4 != v6);
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn queues_are_there_while_something_is_in_them() {
    let mut memory = host();
    let mut parts = memory.parts();
    let sockets = [(); 4].map(|()| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.tcp_connect(socket, &OURS, (&PEER, 80), Instant(0)).expect("a port");
        socket
    });
    for socket in &sockets[..3] {
        assert!(
            parts.tcp_traffic(*socket, Want::Reception).is_ok_and(|traffic| traffic.socket == socket.index)
        );
    }
    assert_eq!(
        parts.tcp_traffic(sockets[3], Want::Reception).map(|_| ()),
        Err(Error::NoBuffers),
        "the limit is three"
    );
    assert_eq!(parts.check(), Ok(()));
    // As if text had arrived.
    parts.tcp_traffic(sockets[0], Want::Reception).expect("there").receive.as_mut_bytes().fill(1);
    assert_eq!(parts.tcp_rest(sockets[0]), Ok(false));
    assert_eq!(parts.tcp_release(sockets[0]), Err(Error::Invalid), "it has text");
    parts.tcp_traffic(sockets[0], Want::Reception).expect("there").receive = ReceiveQueue::default();
    assert_eq!((parts.tcp_rest(sockets[0]), parts.tcp_rest(sockets[0])), (Ok(true), Ok(true)));
    assert_eq!((parts.tcp_release(sockets[0]), parts.check()), (Ok(()), Ok(())));
    assert!(parts.tcp_traffic(sockets[3], Want::Reception).is_ok());
    // Another one's queues are not taken for one's own.
    parts.tcb(sockets[1]).expect("there").traffic = parts.tcb(sockets[2]).expect("there").traffic;
    assert_eq!(parts.tcp_traffic(sockets[1], Want::Reception).map(|_| ()), Err(Error::Corrupt));
    assert_eq!(parts.check().map_err(|broken| broken.part), Err("traffics"));
}

/// What a connection has learned about a path that loses or reorders stays until others need the record.
#[test]
fn the_record_that_rested_longest_is_taken() {
    let mut memory = host();
    let mut parts = memory.parts();
    let sockets = [(); 4].map(|()| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.tcb(socket).expect("there").total_retrans = 1;
        socket
    });
    for socket in &sockets[..3] {
        parts.tcp_traffic(*socket, Want::Reception).expect("room").stalled_since = socket.index + 7;
        assert_eq!((parts.tcp_rest(*socket), parts.check()), (Ok(true), Ok(())));
    }
    let (first, second, last) = (sockets[0], sockets[1], sockets[3]);
    assert_eq!(
        parts.tcp_traffic(first, Want::Reception).map(|traffic| traffic.stalled_since),
        Ok(first.index + 7),
        "as it was"
    );
    assert_eq!((parts.tcp_rest(first), parts.check()), (Ok(true), Ok(())));
    // Now the second has rested longest.
    assert_eq!(
        parts.tcp_traffic(last, Want::Reception).map(|traffic| (traffic.socket, traffic.stalled_since)),
        Ok((last.index, 0))
    );
    assert_eq!((parts.tcb(second).map(|tcb| tcb.traffic), parts.check()), (Ok(0), Ok(())));
    assert_eq!((parts.tcp_release(first), parts.check()), (Ok(()), Ok(())));
    assert!(parts.tcp_traffic(second, Want::Reception).is_ok_and(|traffic| traffic.stalled_since == 0));
    assert_eq!(parts.check(), Ok(()));
}

#[test]
fn who_waits_for_queues_is_woken_in_turn_and_reception_keeps_its_share() {
    let mut memory = host();
    let mut parts = memory.parts();
    let sockets = [80, 81, 82, 83, 84].map(|port| {
        let socket = parts.tcp_socket(false, 0).expect("room");
        parts.tcp_connect(socket, &OURS, (&PEER, port), Instant(0)).expect("a port");
        socket
    });
    let sends = |parts: &mut Parts<'_>, socket, sends: bool| {
        let send = &mut parts.tcp_traffic(socket, Want::Sending).expect("queues").send;
        // A FIN alone, which has no frame here, and so makes the queue's own check fail; the region's doesn't look at it.
        *send = crate::sendq::SendQueue::default();
        send.as_mut_bytes().fill(u8::from(sends));
        assert!(parts.tcp_rest(socket).is_ok_and(|rests| rests != sends));
    };
    sends(&mut parts, sockets[0], true);
    sends(&mut parts, sockets[1], true);
    assert_eq!(parts.sending.queues, 2);
    assert_eq!(parts.tcp_traffic(sockets[2], Want::Sending).map(|_| ()), Err(Error::NoBuffers));
    assert!(parts.tcp_traffic(sockets[0], Want::Sending).is_ok(), "it has them");
    for socket in &sockets[2..] {
        assert_eq!((parts.tcp_wait(*socket), parts.tcp_wait(*socket)), (Ok(()), Ok(())));
    }
    assert_eq!((parts.tcp_next_to_send(), parts.check()), (None, Ok(())));
    assert!(parts.tcp_traffic(sockets[2], Want::Reception).is_ok(), "the third record is kept for that");
    assert_eq!(
        parts.tcp_traffic(sockets[2], Want::Sending).map(|_| ()),
        Err(Error::NoBuffers),
        "and only that"
    );
    assert_eq!(parts.tcp_rest(sockets[2]), Ok(true));
    // The one in the middle is closed.
    assert_eq!((parts.tcp_release(sockets[3]), parts.check()), (Ok(()), Ok(())));
    sends(&mut parts, sockets[0], false);
    assert_eq!((parts.tcp_next_to_send(), parts.check()), (Some(sockets[2]), Ok(())));
    assert_eq!((parts.tcp_next_to_send(), parts.tcp_next_to_send()), (Some(sockets[4]), None));
    assert_eq!((parts.sending.first, parts.sending.last, parts.check()), (0, 0, Ok(())));
    sends(&mut parts, sockets[1], false);
    assert_eq!((parts.sending.queues, parts.slabs.traffics.used()), (0, 0));
}

/// One of many things that can happen; the numbers choose whom and with what.
pub(crate) type Act = (u8, u8, u16, u8);

pub(crate) fn act(
    parts: &mut Parts<'_>,
    sockets: &mut Vec<Handle>,
    (what, which, number, options): Act,
) -> Result<u32, Error> {
    let pick = |sockets: &[Handle]| sockets.get(usize::from(which) % sockets.len().max(1)).copied();
    let socket = pick(sockets).unwrap_or(Handle { index: u32::from(which), generation: 1 });
    let address = [ANY, OURS, Ip::UNSPECIFIED, OURS_V6, PEER][usize::from(options) % 5];
    let remote = if options & 1 == 0 { PEER } else { PEER_V6 };
    let source = if options & 1 == 0 { OURS } else { OURS_V6 };
    let port = number % 3;
    let number = u32::from(number);
    match what {
        0 | 1 => {
            let socket = parts.tcp_socket(options & 8 != 0, number % 64)?;
            sockets.push(socket);
            Ok(socket.index)
        }
        2 => parts.set_tcp_options(socket, &switched(u32::from(options & 7))).map(|()| 0),
        3 => parts.tcp_bind(socket, (&address, port)).map(|()| 0),
        4 => parts.tcp_listen(socket, number).map(|()| 0),
        5 => parts.tcp_connect(socket, &source, (&remote, port), Instant(0)).map(|()| 0),
        6 => {
            let listener = parts.listening().find((&source, port), number).ok_or(Error::ConnectionRefused)?;
            parts.tcp_keep_syn(listener, &syn((source, port), (remote, number as u16))).map(|syn| syn.index)
        }
        7 => {
            let kept = parts.tcp_forget_syn(number % 4)?;
            parts.tcp_child(kept.listener, &kept).map(|child| child.index)
        }
        8 => {
            let child = parts.tcp_accept(socket, 1)?;
            sockets.push(child);
            Ok(child.index)
        }
        9 => parts.tcp_disconnect(socket).map(|()| 0),
        10 | 12 => {
            parts.tcb(socket)?.total_retrans = u32::from(options & 1);
            parts.tcp_traffic(socket, Want::Reception).map(|traffic| traffic.socket)
        }
        11 => parts.tcp_rest(socket).map(u32::from),
        13 => parts.tcp_wait(socket).map(|()| 0),
        14 => Ok(parts.tcp_next_to_send().map_or(0, |socket| socket.index)),
        _ => {
            parts.tcp_release(socket)?;
            sockets.retain(|held| *held != socket);
            Ok(0)
        }
    }
}

pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    proptest::collection::vec((0u8..17, any::<u8>(), any::<u16>(), any::<u8>()), 0..160)
}

proptest! {
    #![proptest_config(crate::testing::cases(64))]

    /// Whatever is done in whatever order, every invariant holds, and what is given back is free again.
    #[test]
    fn the_region_stays_whole(acts in acts()) {
        let mut memory = host();
        let (mut parts, mut sockets) = (memory.parts(), Vec::new());
        for (step, it) in acts.into_iter().enumerate() {
            let done = act(&mut parts, &mut sockets, it);
            prop_assert_ne!(done, Err(Error::Corrupt), "{:?}", it);
            if step % 16 == 0 {
                prop_assert_eq!(parts.check(), Ok(()), "after {:?}", it);
            }
        }
        prop_assert_eq!(parts.check(), Ok(()));
        for socket in sockets {
            prop_assert_eq!(parts.tcp_rest(socket), Ok(true));
            while let Ok(child) = parts.tcp_accept(socket, 0) {
                prop_assert_eq!(parts.tcp_release(child), Ok(()));
            }
            prop_assert_eq!(parts.tcp_release(socket), Ok(()));
        }
        prop_assert_eq!(parts.check(), Ok(()));
        let slabs = &parts.slabs;
        let left = [slabs.tcbs, slabs.listeners, slabs.syns, slabs.bounds, slabs.settings, slabs.traffics];
        prop_assert_eq!(left.map(|slab| slab.used()), [0; 6]);
    }

    /// A region copied byte for byte to another address goes on as the one that stayed.
    #[test]
    fn a_copy_goes_on_alike(before in acts(), after in acts()) {
        let mut memory = host();
        let mut sockets = Vec::new();
        for it in before {
            let _ = act(&mut memory.parts(), &mut sockets, it);
        }
        let mut copy = Memory::zero(&TINY);
        copy.bytes().copy_from_slice(memory.bytes());
        let mut copied = sockets.clone();
        for it in after {
            let here = act(&mut memory.parts(), &mut sockets, it);
            prop_assert_eq!(here, act(&mut copy.parts(), &mut copied, it));
        }
        prop_assert!(memory.bytes() == copy.bytes());
    }

    /// In a region full of nonsense every call ends with some result.
    #[test]
    fn nonsense_is_survived(acts in acts(), seed in any::<u64>(), density in 0u32..3) {
        let mut memory = host();
        let mut state = seed | 1;
        let header = size_of::<crate::region::Header>();
        for byte in &mut memory.bytes()[header..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 40) % [1, 8, 64][density as usize] == 0 {
                // Small numbers are indices that lead somewhere.
                *byte = if density == 0 { (state >> 56) as u8 } else { (state >> 56) as u8 % 13 };
            }
        }
        let (mut parts, mut sockets) = (memory.parts(), Vec::new());
        for it in acts {
            let _ = act(&mut parts, &mut sockets, it);
            // Handles that fit, so that more than the first question is asked.
            let index = usize::from(it.1) % parts.tcbs.len();
            parts.tcbs[index].tag.generation |= 1;
            sockets.push(parts.tcbs[index].tag.handle(index as u32));
        }
        let _ = parts.check();
    }
}
