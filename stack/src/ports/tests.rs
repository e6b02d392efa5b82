//! Linux's rules as they stand there, a look at every socket, against the counts; and nonsense.

use proptest::prelude::*;

use super::*;

const SECRET: Secret = Secret([5, 6]);

struct Memory {
    heads: Vec<u64>,
    slab: Slab,
    bounds: Vec<Bound>,
    places: Vec<Place>,
    leases: Vec<Lease>,
}

impl Memory {
    fn new(bounds: u32, leases: &[(u16, u16)]) -> Self {
        let lease = |&(first, count): &(u16, u16)| {
            let mut records = [Lease::default()];
            let _ = Slab::default().take(&mut records);
            Lease { first, count, protocols: 3, is_ephemeral: 1, ..records[0] }
        };
        Self {
            heads: vec![0; size_of::<Heads>() / 8],
            slab: Slab::default(),
            bounds: vec![Bound::default(); bounds as usize],
            places: vec![Place::default(); Table::places_for(bounds)],
            leases: leases.iter().map(lease).collect(),
        }
    }

    fn ports(&mut self) -> Ports<'_> {
        let Self { heads, slab, bounds, places, leases } = self;
        let heads = Heads::mut_from_bytes(heads.as_mut_slice().as_mut_bytes()).expect("its size");
        Ports { heads, slab, bounds, places, leases, secret: SECRET }
    }
}

/// A socket as Linux keeps it.
#[derive(Clone, Copy, Debug)]
struct Socket {
    protocol: Protocol,
    local: Ip,
    port: u16,
    v6_only: bool,
    class: Class,
    index: u32,
}

impl Socket {
    fn wish(&self) -> Wish<'_> {
        let Self { protocol, local, port, v6_only, class, .. } = self;
        Wish { protocol: *protocol, local: (local, *port), v6_only: *v6_only, class: *class }
    }
}

/// `ipv6_rcv_saddr_equal` with its cases; IPv4 in the mapped form.
fn addresses_meet(a: &Socket, b: &Socket) -> bool {
    let any = |socket: &Socket| socket.local == Ip::UNSPECIFIED;
    let any_v4 = |socket: &Socket| socket.local == Ip::UNSPECIFIED_V4;
    match (a.local.is_v4(), b.local.is_v4()) {
        (true, true) => a.local == b.local || any_v4(a) || any_v4(b),
        (false, false) => any(a) || any(b) || a.local == b.local,
        (false, true) => any(a) && !a.v6_only,
        (true, false) => any(b) && !b.v6_only,
    }
}

/// `inet_bind_conflict` with `relax` and `reuseport_ok` for a port that was asked for.
fn conflict(new: &Socket, there: &Socket) -> bool {
    let both = |bit| new.class.has(bit) && there.class.has(bit);
    if new.protocol != there.protocol || new.port != there.port || !addresses_meet(new, there) {
        return false;
    }
    if both(Class::REUSE_ADDRESS) && !there.class.has(Class::LISTEN) {
        return false;
    }
    !both(Class::REUSE_PORT)
}

fn address(which: u8) -> Ip {
    match which % 6 {
        0 => Ip::UNSPECIFIED,
        1 => Ip::UNSPECIFIED_V4,
        2 => Ip::v4([192, 0, 2, 1]),
        3 => Ip::v4([192, 0, 2, 2]),
        4 => Ip([0xfd; 16]),
        _ => Ip([0xfe; 16]),
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(256))]
    #[test]
    fn who_may_share_is_as_linux_says(acts in proptest::collection::vec((0u8..6, 0u8..6, 0u16..3, any::<bool>(), 0u8..4, any::<bool>(), any::<u16>()), 0..120)) {
        let mut memory = Memory::new(120, &[]);
        let mut model: Vec<Socket> = Vec::new();
        for (act, which, port, is_udp, class, v6_only, at) in acts {
            let mut ports = memory.ports();
            match act {
                // bind
                0..3 => {
                    let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
                    let local = address(which);
                    let v6_only = v6_only && !local.is_v4();
                    let mut socket = Socket { protocol, local, port: 40_000 + port, v6_only, class: Class(class | Class::EXPLICIT), index: 0 };
                    let refused = model.iter().any(|there| conflict(&socket, there));
                    match ports.bind(&socket.wish()) {
                        Ok(index) => {
                            prop_assert!(!refused, "{socket:?} beside {model:?}");
                            socket.index = index;
                            model.push(socket);
                        }
                        Err(error) => prop_assert!(refused && error == Error::AddressInUse, "{socket:?} beside {model:?}"),
                    }
                }
                // listen, or an option set late
                3 | 4 if !model.is_empty() => {
                    let at = at as usize % model.len();
                    let mut socket = model[at];
                    let listens = act == 3 && socket.protocol == Protocol::Tcp;
                    let from = socket.class;
                    socket.class = if listens { Class(from.0 | Class::LISTEN) } else { Class(class | Class::EXPLICIT) };
                    let others = model.iter().enumerate().filter(|(other, _)| *other != at);
                    let refused = listens && others.map(|other| other.1).any(|there| conflict(&socket, there));
                    prop_assert_eq!(ports.change(socket.index, from, socket.class, listens).is_err(), refused);
                    if !refused {
                        model[at] = socket;
                    }
                }
                5 if !model.is_empty() => {
                    let socket = model.swap_remove(at as usize % model.len());
                    ports.leave(socket.index, socket.class);
                }
                _ => {}
            }
        }
        prop_assert_eq!(memory.ports().check(), Ok(model.len() as u64));
        for socket in &model {
            memory.ports().leave(socket.index, socket.class);
        }
        prop_assert_eq!((memory.ports().check(), memory.slab.used()), (Ok(0), 0));
        prop_assert!(memory.places.iter().all(|place| *place == Place::default()));
    }

    /// A port is found while there is one, and only then.
    #[test]
    fn a_port_is_found_while_there_is_one(acts in proptest::collection::vec((any::<bool>(), any::<bool>(), 1u8..6, 0u8..4), 0..60)) {
        let leases = [(40_000, 3), (50_000, 2), (65_535, 9)];
        let all: Vec<u16> = vec![40_000, 40_001, 40_002, 50_000, 50_001, 65_535];
        let mut memory = Memory::new(64, &leases);
        let mut model: Vec<Socket> = Vec::new();
        for (connects, is_udp, which, class) in acts {
            let protocol = if is_udp { Protocol::Udp } else { Protocol::Tcp };
            let mut socket = Socket { protocol, local: address(which), port: 0, v6_only: false, class: Class(class), index: 0 };
            let mut ports = memory.ports();
            if connects {
                // To one peer: each port serves once at an address.
                let free = |model: &[Socket], port| !model.iter().any(|there| (there.protocol, there.local, there.port) == (protocol, address(which), port));
                let bound = |model: &[Socket], port| model.iter().any(|there| (there.protocol, there.port) == (protocol, port) && there.class.has(Class::EXPLICIT));
                let suits = |port: &&u16| free(&model, **port) && !bound(&model, **port);
                match ports.connect_any(protocol, &socket.local, (&address(4), 80), |port| free(&model, port)) {
                    Ok(port) => {
                        prop_assert!(all.iter().filter(suits).any(|suitable| *suitable == port), "{port} beside {model:?}");
                        socket.port = port;
                        socket.index = ports.join(&socket.wish()).expect("room");
                        model.push(socket);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Error::AddressNotAvailable);
                        prop_assert_eq!(all.iter().find(suits), None);
                    }
                }
            } else {
                socket.class = Class(class | Class::EXPLICIT);
                let asked = if is_udp { class & Class::REUSE_ADDRESS } else { 0 };
                let suits = |port: &&u16| {
                    let asked = Socket { port: **port, class: Class(asked), ..socket };
                    !model.iter().any(|there| conflict(&asked, there))
                };
                match ports.bind_any(&socket.wish()) {
                    Ok((port, index)) => {
                        prop_assert!(all.iter().filter(suits).any(|suitable| *suitable == port), "{port} beside {model:?}");
                        (socket.port, socket.index) = (port, index);
                        model.push(socket);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Error::AddressInUse);
                        prop_assert_eq!(all.iter().find(suits), None);
                    }
                }
            }
        }
        prop_assert_eq!(memory.ports().check(), Ok(model.len() as u64));
    }

    #[test]
    fn nonsense_is_survived(bytes in proptest::collection::vec(any::<u8>(), 8 * size_of::<Bound>()), links in proptest::collection::vec((0u32..10, 0u32..10, any::<bool>()), 8), slab in any::<[u32; 4]>(), lease in any::<[u8; 16]>(), index in 0u32..9) {
        let mut memory = Memory::new(8, &[(40_000, 4)]);
        memory.bounds.as_mut_slice().as_mut_bytes().copy_from_slice(&bytes);
        for (bound, (next, previous, used)) in memory.bounds.iter_mut().zip(links) {
            (bound.next, bound.previous) = (next, previous);
            if used {
                (bound.port, bound.protocol, bound.local) = (40_000, 0, address(2));
            }
        }
        let ports = memory.ports();
        for (port, head) in ports.heads.heads[0][40_000..40_004].iter_mut().enumerate() {
            head.first = index + port as u32;
        }
        memory.slab = Slab::read_from_bytes((slab.map(|word| word % 10)).as_bytes()).expect("four words");
        memory.leases.push(Lease::read_from_bytes(&lease).expect("sixteen bytes"));
        let mut ports = memory.ports();
        let _ = ports.check();
        let local = address(2);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let wish = Wish { protocol, local: (&local, 40_000), v6_only: false, class: Class(bytes[0]) };
            let _ = ports.bind(&wish);
            let _ = ports.bind_any(&wish);
            let _ = ports.connect_any(protocol, &local, (&local, 1), |_| true);
            let _ = ports.change(index, Class(bytes[1]), Class(bytes[2]), true);
            ports.leave(index, Class(bytes[3]));
        }
    }
}

#[test]
fn a_connected_port_is_shared_and_a_bound_one_is_not() {
    let mut memory = Memory::new(8, &[(40_000, 1)]);
    let (ours, peer) = (address(2), address(3));
    let mut ports = memory.ports();
    let port = ports.connect_any(Protocol::Tcp, &ours, (&peer, 80), |_| true).expect("the only one");
    let wish =
        Wish { protocol: Protocol::Tcp, local: (&ours, port), v6_only: false, class: Class::default() };
    let first = ports.join(&wish).expect("room");
    // To another peer the same port serves again.
    assert_eq!(ports.connect_any(Protocol::Tcp, &ours, (&peer, 81), |_| true), Ok(port));
    assert_eq!(ports.join(&wish), Ok(first), "one record for both");
    ports.leave(first, Class::default());
    ports.leave(first, Class::default());
    let bound = ports.bind(&Wish { class: Class(Class::EXPLICIT), ..wish }).expect("free");
    let other = ports.connect_any(Protocol::Tcp, &peer, (&peer, 81), |_| true);
    assert_eq!(other, Err(Error::AddressNotAvailable), "not even at another address");
    ports.leave(bound, Class(Class::EXPLICIT));
    assert_eq!(ports.connect_any(Protocol::Tcp, &peer, (&peer, 81), |_| true), Ok(port));
}

/// RFC 6056 §3.3.4: ports towards one peer follow each other, and tell nothing about those towards another.
#[test]
fn ports_towards_different_peers_are_apart() {
    let mut memory = Memory::new(1, &[(32_768, 28_232)]);
    let mut ports = memory.ports();
    let mut run = |peer: [u8; 4]| -> Vec<u16> {
        let (ours, peer) = (address(2), Ip::v4(peer));
        (0..64)
            .map(|_| ports.connect_any(Protocol::Tcp, &ours, (&peer, 80), |_| true).expect("one of many"))
            .collect()
    };
    let (a, b) = (run([10, 0, 0, 1]), run([10, 0, 0, 2]));
    for ports in [&a, &b] {
        let step = |pair: &[u16]| pair[1].wrapping_sub(pair[0]);
        let near = ports.windows(2).filter(|pair| (1..=8).contains(&step(pair))).count();
        assert!(near >= 62, "at most the wrap of the pool lies between: {ports:?}");
        assert!(ports.iter().collect::<std::collections::BTreeSet<_>>().len() == 64);
        assert!(ports.windows(3).any(|three| step(&three[..2]) != step(&three[1..])), "steps tell nothing");
    }
    assert!(a[0].abs_diff(b[0]) > 64 || a[1].abs_diff(b[1]) > 64);
}
