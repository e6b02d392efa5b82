//! What is below TCP between our stack and the kernel's: Ethernet with ARP and neighbour discovery over a TAP, and marks of congestion that
//! the wire makes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use harness::sim::path::Path;
use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::sys;
use harness::wire::world::{KERNEL, OURS, PORT, Recipe, Side, World, address};
use stack::device::Link;
use stack::ip::Interface;
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::stats::Counter;
use stack::time::Duration;

/// The kernel's program reads until the end, and writes all of this meanwhile.
fn kernel_talks(stream: &TcpStream, text: Vec<u8>) -> JoinHandle<Vec<u8>> {
    let (mut reads, mut writes) =
        (stream.try_clone().expect("a stream"), stream.try_clone().expect("a stream"));
    thread::spawn(move || {
        let writing = thread::spawn(move || {
            writes.write_all(&text).expect("the kernel sends");
            writes.shutdown(Shutdown::Write).expect("the kernel has sent");
        });
        let mut got = Vec::new();
        reads.read_to_end(&mut got).expect("the kernel receives");
        writing.join().expect("the writer");
        got
    })
}

/// Both send so much at once, and both read what the other has sent.
fn talk(world: &mut World, socket: Handle, stream: &TcpStream, len: usize) {
    let (there, back) = (text(1, len), text(2, len));
    let kernel = kernel_talks(stream, back.clone());
    let talked = world.ours.talk(socket, &there, true).expect("a talk");
    assert!(world.ours.join(kernel) == there && talked.got == back);
    world.ours.close(socket);
}

#[test]
fn over_ethernet_each_finds_the_other() {
    each_finds_the_other(None);
}

/// A switch between: our end is a trunk with a VLAN's tags (IEEE 802.1Q), the kernel's a port of that VLAN.
#[test]
fn over_a_trunk_each_finds_the_other() {
    each_finds_the_other(Some(7));
}

/// Ours is in another VLAN than the switch's port: what it says nobody hears, and what it gets is not for it.
#[test]
fn over_a_trunk_nobody_is_found_in_another_vlan() {
    let Some(mut world) = World::new(&Recipe { link: Link::Ethernet, ..Recipe::default() }) else { return };
    world.ours.trunk = Some(8);
    join_vlan(&mut world, 7);
    let (at, refused) = (SocketAddr::new(address(OURS, false), PORT), Some(libc::EHOSTUNREACH));
    world.ours.listen(PORT, &Values::default());
    let connecting =
        world.namespace.spawn(move || TcpStream::connect(at).map_err(|error| error.raw_os_error()));
    assert_eq!(world.ours.join(connecting).err(), Some(refused), "the kernel finds nobody");
    let remote = harness::sim::raw::ip(KERNEL);
    assert!(world.ours.connect(remote, PORT, &Values::default()).is_err(), "and neither do we");
    let count = |counter| world.ours.host.counter(counter);
    assert!(world.ours.foreign > 0 && count(Counter::NotOurs) > 0);
    assert_eq!(count(Counter::NotOurs), count(Counter::PacketsIn), "nothing that came was for us");
    world.ours.host.check();
}

/// Our interface's packets have this tag from now on.
fn join_vlan(world: &mut World, vlan: u16) {
    let mut parts = world.ours.host.parts();
    let interface = parts.ip.interface;
    parts.set_interface(&Interface { vlan: Interface::TAGGED | vlan, ..interface });
}

fn each_finds_the_other(vlan: Option<u16>) {
    let recipe = Recipe { link: Link::Ethernet, ..Recipe::default() };
    for side in Side::ALL {
        let Some(mut world) = World::new(&recipe) else { return };
        println!("{side:?}");
        world.ours.trunk = vlan;
        if let Some(vlan) = vlan {
            join_vlan(&mut world, vlan);
        }
        let (socket, stream) = world.pair(side);
        // Who connects asks, and its SYN waits for the answer; who was asked knows who asked.
        let waited = world.ours.host.counter(Counter::NeighbourPending);
        assert_eq!(waited, u64::from(side.ours_connects), "packets that waited");
        talk(&mut world, socket, &stream, 4 << 20);
        assert_eq!(world.ours.host.counter(Counter::NeighbourFailed), 0);
        // Nothing is lost on this wire: what goes again is a probe, where the machine kept the kernel's program from running for longer
        // than two round trips and two milliseconds (RFC 8985 §7.2).
        let count = |counter| world.ours.host.counter(counter);
        assert_eq!((count(Counter::Timeouts), count(Counter::FastRecoveries)), (0, 0));
        let (again, probes) = (count(Counter::SegmentsRetransmitted), count(Counter::TailLossProbes));
        assert!(again <= probes && probes <= 8, "{again} were sent again, {probes} probes");
        world.ours.host.check();
        assert_eq!(world.ours.foreign, 0, "every frame of ours has its tag");
        // What the kernel has learned of us (it tells it of IPv4 in a file).
        if !side.is_v6 {
            let arp = world.namespace.inside(|| std::fs::read_to_string("/proc/thread-self/net/arp"));
            let arp = arp.expect("the kernel's table");
            let line = arp.lines().find(|line| line.starts_with("10.0.0.2 ")).expect("our line");
            assert!(line.contains("0x2") && line.contains("02:00:00:00:00:02"), "{line}");
        }
    }
}

/// RFC 3168: marks are echoed until the sender says that it has slowed down, in both directions, and nothing is lost by it.
#[test]
fn marks_of_congestion_slow_both_down() {
    for side in Side::ALL {
        let path = Path { rate: 400_000_000, ..Path::delayed(Duration::from_millis(1)) };
        let Some(mut world) = World::new(&Recipe { path, ..Recipe::default() }) else { return };
        println!("{side:?}");
        world.namespace.set("net/ipv4/tcp_ecn", "1");
        assert!(world.ours.host.parts().host.set("tcp_ecn", 1));
        let (socket, stream) = world.pair(side);
        let info = sys::tcp_info(stream.as_fd()).expect("TCP_INFO");
        assert_eq!(info.tcpi_options & 8, 8, "ECN was agreed upon (TCPI_OPT_ECN)");
        (world.ours.there.line(0).marks_each, world.ours.back.line(0).marks_each) = (50, 50);
        let (there, back) = (text(3, 4 << 20), text(4, 4 << 20));
        let kernel = kernel_talks(&stream, back.clone());
        let talked = world.ours.talk(socket, &there, true).expect("a talk");
        assert!(world.ours.join(kernel) == there && talked.got == back);
        let marked = world.ours.host.counter(Counter::CongestionMarks);
        assert!(marked > 10, "{marked} marks came to us");
        assert!(world.namespace.counter("InCEPkts") > 10 || side.is_v6, "and to the kernel");
        // Our marks have slowed the kernel down (TCP_INFO), and the kernel's echoes us: nothing is lost on this wire.
        let info = sys::tcp_info(stream.as_fd()).expect("TCP_INFO");
        assert!(info.tcpi_snd_ssthresh < 0x7fff_ffff, "the kernel has reduced its window");
        let ours = world.ours.with(|stack| stack.status(socket)).expect("TCP_INFO");
        assert!(ours.snd_ssthresh < 0x7fff_ffff, "and we ours: {}", ours.snd_ssthresh);
        assert!(ours.delivered_ce > 0, "the kernel has echoed marks");
        world.ours.close(socket);
        world.ours.host.check();
    }
}
