//! Single rules, and many sockets at once with a check of the whole region in between.

use proptest::prelude::*;

use super::*;
use crate::tcp::open::tests::{host, switched};

const OURS: Ip = Ip::v4([192, 0, 2, 1]);
const OURS_V6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const PEER: Ip = Ip::v4([198, 51, 100, 7]);
const PEER_V6: Ip = Ip([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
const ANY: Ip = Ip::UNSPECIFIED_V4;

#[test]
fn a_peer_comes_and_goes() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = parts.udp_socket(false, 0).expect("room");
    parts.udp_bind(socket, (&ANY, 53)).expect("free");
    assert_eq!(parts.udp_endpoints().find((&OURS, 53), 0), Some(socket.index));
    parts.udp_connect(socket, &OURS, (&PEER, 1000)).expect("free");
    assert_eq!(parts.udp_pairs().find((&OURS, 53), (&PEER, 1000)), Some(socket.index));
    assert_eq!(parts.udp_endpoints().find((&OURS, 53), 0), None);
    parts.udp_connect(socket, &OURS, (&PEER, 1001)).expect("another peer");
    assert_eq!(parts.udp_pairs().find((&OURS, 53), (&PEER, 1000)), None);
    assert_eq!(parts.check(), Ok(()));
    parts.udp_disconnect(socket).expect("a peer");
    let udp = *parts.udp(socket).expect("there");
    assert_eq!((udp.local, udp.local_port, udp.remote_port), (ANY, 53, 0));
    assert_eq!(parts.udp_endpoints().find((&OURS, 53), 0), Some(socket.index));
    assert_eq!((parts.check(), parts.udp_release(socket), parts.check()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(parts.udp_endpoints().find((&OURS, 53), 0), None);
}

#[test]
fn a_port_that_was_not_asked_for_is_given_back() {
    let mut memory = host();
    let mut parts = memory.parts();
    let socket = parts.udp_socket(true, 0).expect("room");
    parts.udp_connect(socket, &OURS_V6, (&PEER_V6, 53)).expect("a port");
    assert!((40_000..40_006).contains(&parts.udp(socket).expect("there").local_port));
    parts.udp_disconnect(socket).expect("a peer");
    let udp = *parts.udp(socket).expect("there");
    assert_eq!((udp.local, udp.local_port, udp.bound), (Ip::UNSPECIFIED, 0, 0));
    assert_eq!((parts.check(), parts.slabs.bounds.used()), (Ok(()), 0));
}

/// Of sockets that share by SO_REUSEADDR only, the newest gets the datagrams; a multicast goes to all.
#[test]
fn the_newest_gets_it() {
    let mut memory = host();
    let mut parts = memory.parts();
    let group = Ip::v4([224, 0, 0, 251]);
    let mut sockets = [(); 3].map(|()| {
        let socket = parts.udp_socket(false, 0).expect("room");
        parts.set_udp_options(socket, &switched(Switch::REUSE_ADDRESS)).expect("room");
        parts.udp_bind(socket, (&ANY, 5353)).expect("shared");
        socket.index
    });
    assert_eq!(parts.udp_endpoints().find((&OURS, 5353), 7), Some(sockets[2]));
    let mut all = Vec::new();
    parts.udp_endpoints().for_all((&group, 5353), |index| all.push(index));
    all.sort_unstable();
    sockets.sort_unstable();
    assert_eq!((all.as_slice(), parts.check()), (sockets.as_slice(), Ok(())));
}

type Act = (u8, u8, u16, u8);

fn act(
    parts: &mut Parts<'_>,
    sockets: &mut Vec<Handle>,
    (what, which, port, options): Act,
) -> Result<(), Error> {
    let socket = sockets.get(usize::from(which) % sockets.len().max(1)).copied();
    let socket = socket.unwrap_or(Handle { index: u32::from(which), generation: 1 });
    let address = [ANY, OURS, Ip::UNSPECIFIED, OURS_V6, PEER][usize::from(options) % 5];
    let (source, remote) = if options & 1 == 0 { (OURS, PEER) } else { (OURS_V6, PEER_V6) };
    match what {
        0 | 1 => sockets.push(parts.udp_socket(options & 8 != 0, u32::from(port % 64))?),
        2 => parts.set_udp_options(socket, &switched(u32::from(options & 7)))?,
        3 | 4 => parts.udp_bind(socket, (&address, port % 3))?,
        5 => parts.udp_connect(socket, &source, (&remote, port % 3))?,
        6 => parts.udp_disconnect(socket)?,
        _ => {
            parts.udp_release(socket)?;
            sockets.retain(|held| *held != socket);
        }
    }
    Ok(())
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    proptest::collection::vec((0u8..8, any::<u8>(), any::<u16>(), any::<u8>()), 0..120)
}

proptest! {
    #![proptest_config(crate::testing::cases(64))]

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
            prop_assert_eq!(parts.udp_release(socket), Ok(()));
        }
        prop_assert_eq!(parts.check(), Ok(()));
        prop_assert_eq!((parts.slabs.udp_sockets.used(), parts.slabs.bounds.used()), (0, 0));
    }

    #[test]
    fn nonsense_is_survived(acts in acts(), seed in any::<u64>(), density in 0u32..3) {
        let mut memory = host();
        let mut state = seed | 1;
        let header = size_of::<crate::region::Header>();
        for byte in &mut memory.bytes()[header..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (state >> 40) % [1, 8, 64][density as usize] == 0 {
                *byte = if density == 0 { (state >> 56) as u8 } else { (state >> 56) as u8 % 13 };
            }
        }
        let (mut parts, mut sockets) = (memory.parts(), Vec::new());
        for it in acts {
            let _ = act(&mut parts, &mut sockets, it);
            let index = usize::from(it.1) % parts.udp_sockets.len();
            parts.udp_sockets[index].tag.generation |= 1;
            sockets.push(parts.udp_sockets[index].tag.handle(index as u32));
        }
        let _ = parts.check();
    }
}
