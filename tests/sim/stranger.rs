//! Two hosts with stacks and a stranger on their segment, which sends what a test makes up: a router, or an attacker.

use stack::tcp::tcb::Tcb;
use stack::time::Duration;
use stack::wire::ip::{Fragment, Ip};
use stack::wire::{icmp, icmpv6, protocol};

use super::any::Any;
use super::craft;
use super::path::Path;
use super::port::Setup;
use super::raw::{Raw, ip, ip6};
use super::tcp::{Plan, TcpHost, limits};
use super::{Node, Simulation};

/// By then routers were told of every group that a host is in.
pub const SETTLED: Duration = Duration::from_secs(3);

/// The wire to each.
pub const BASE: Path = Path::delayed(Duration::from_millis(5));

/// The host 1, whose invariants are looked at after each poll.
#[must_use]
pub fn client() -> TcpHost {
    let mut host = TcpHost::new(1, &limits(1024));
    host.checks = true;
    host
}

/// The host 2 likewise, which listens.
#[must_use]
pub fn server(plan: Plan) -> TcpHost {
    let mut host = TcpHost::server(2, &limits(1024), plan);
    host.checks = true;
    host
}

/// A host that keeps what it gets and answers nothing by itself.
#[must_use]
pub fn raw() -> Raw {
    let mut host = Raw::new(1024);
    host.keeps_bytes = true;
    host
}

/// Two hosts with stacks and a stranger on one segment.
#[must_use]
pub fn three(seed: u64, a: TcpHost, b: TcpHost, path: Path) -> (Simulation<Any>, Node, Node, Node) {
    let mut network = Simulation::new(seed);
    let a = network.add(a.into(), Setup::plain(1));
    let b = network.add(b.into(), Setup::plain(2));
    let stranger = network.add(raw().into(), Setup::plain(3));
    network.join(&[(a, path, Path::IDEAL), (b, path, Path::IDEAL), (stranger, Path::IDEAL, Path::IDEAL)]);
    (network, a, b, stranger)
}

/// The first connection of a host.
///
/// # Panics
/// If it has none.
pub fn tcb(network: &mut Simulation<Any>, node: Node) -> Tcb {
    let parts = network.host(node).stack().parts();
    *parts.tcbs.iter().find(|tcb| tcb.has_peer()).expect("a connection")
}

/// The stranger sends these, and a moment passes.
pub fn send(network: &mut Simulation<Any>, stranger: Node, packets: impl IntoIterator<Item = Vec<u8>>) {
    for packet in packets {
        network.host(stranger).raw().now(packet);
    }
    network.run_for(Duration(100_000));
}

/// An error of the router 3 to the host 1 about its segment with this sequence number.
#[must_use]
pub fn error_about(tcb: &Tcb, seq: u32, message: Either) -> Vec<u8> {
    let quoted = craft::quoted((tcb.local, tcb.local_port), (tcb.remote, tcb.remote_port), seq);
    match message {
        Either::V4(message) => {
            let data = craft::icmp(&message, &quoted[..28]);
            craft::packet(1, ip(3), tcb.local, protocol::ICMP, &data)
        }
        Either::V6(message) => {
            let data = craft::icmp_v6(ip6(3), tcb.local, &message, &quoted);
            craft::packet(1, ip6(3), tcb.local, protocol::ICMPV6, &data)
        }
    }
}

/// A message of either version.
#[derive(Clone, Copy, Debug)]
pub enum Either {
    /// Of ICMP.
    V4(icmp::Message),
    /// Of ICMPv6.
    V6(icmpv6::Message),
}

/// "Fragmentation needed".
#[must_use]
pub const fn needed(mtu: u16) -> Either {
    Either::V4(icmp::Message::Unreachable(icmp::Unreachable::FragmentationNeeded { mtu }))
}

/// "Packet too big".
#[must_use]
pub const fn too_big(mtu: u32) -> Either {
    Either::V6(icmpv6::Message::PacketTooBig { mtu })
}

/// What the stranger got of this protocol.
pub fn got(
    network: &mut Simulation<Any>,
    stranger: Node,
    wanted: u8,
) -> Vec<(Ip, Option<Fragment>, Vec<u8>)> {
    let got = std::mem::take(&mut network.host(stranger).raw().got);
    let opened = got.iter().filter_map(|got| craft::opened(&got.bytes));
    opened.filter(|packet| packet.0 == wanted).map(|(_, from, _, place, data)| (from, place, data)).collect()
}
