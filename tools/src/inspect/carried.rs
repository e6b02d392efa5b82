//! What the network stack says of the sockets that it has: read from its region, without its help.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use driver::cards::Path;
use driver::sys;
use engine::look::Look;
use stack::region::slab::Handle;
use stack::tcp::state::State;
use stack::tcp::tcb::Tcb;
use stack::udp::UdpSocket;
use stack::wire::ip::Ip;

use super::explain::bytes;
use super::process;
use super::sockets::Socket;
use super::view::Row;

/// A socket of the stack.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Its addresses and its state, where the kernel's socket hasn't them.
    pub socket: Option<Socket>,
    /// What it does, in words.
    pub detail: String,
}

const fn state(state: State) -> &'static str {
    match state {
        State::Closed => "CLOSED",
        State::Listen => "LISTEN",
        State::SynSent => "SYN-SENT",
        State::SynReceived => "SYN-RECEIVED",
        State::Established => "ESTABLISHED",
        State::FinWait1 => "FIN-WAIT-1",
        State::FinWait2 => "FIN-WAIT-2",
        State::CloseWait => "CLOSE-WAIT",
        State::Closing => "CLOSING",
        State::LastAck => "LAST-ACK",
        State::TimeWait => "TIME-WAIT",
    }
}

fn address(ip: &Ip, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip.0)).to_canonical(), port)
}

impl Carried {
    fn of(tcb: &Tcb) -> Self {
        let remote = (tcb.remote_port != 0).then(|| address(&tcb.remote, tcb.remote_port));
        let local = Some(address(&tcb.local, tcb.local_port));
        let protocol = if tcb.local.is_v4() { "tcp" } else { "tcp6" };
        let socket = Socket { protocol, local, remote, state: state(tcb.state()) };
        Self { socket: Some(socket), detail: connection(tcb) }
    }

    /// One of UDP: the kernel's socket has its names.
    fn of_datagrams(udp: &UdpSocket) -> Self {
        let (waiting, lost) = (bytes(udp.receive.bytes().into()), udp.drops);
        Self { socket: None, detail: format!("{waiting} wait to be read, {lost} datagrams found no room") }
    }
}

/// As `ss -ti` has it in letters.
fn connection(tcb: &Tcb) -> String {
    let round_trip = tcb.rtt.srtt().map(|round_trip| round_trip.as_micros());
    let round_trip = round_trip.map_or_else(String::new, |us| format!(", round trip {us} µs"));
    format!(
        "acknowledged {}, received {}, {} segments sent again, window {} of {} B{round_trip}",
        bytes(tcb.acked),
        bytes(tcb.received),
        tcb.total_retrans,
        tcb.congestion.cwnd(),
        tcb.mss,
    )
}

/// The regions that a process uses, with the interfaces of their stacks.
fn regions(pid: i32) -> Vec<(u32, Look)> {
    let files = process::regions(pid).filter_map(|path| fs::File::open(path).ok());
    let looks =
        files.filter_map(|file| Look::open(&sys::Fd::own(std::os::fd::IntoRawFd::into_raw_fd(file))).ok());
    looks.filter_map(|look| Some((look.interface()?, look))).collect()
}

/// Adds what the stacks say of a process's sockets.
pub(super) fn add(pid: i32, rows: &mut [Row]) {
    let is_carried = |row: &Row| row.card.is_some_and(|card| card.path == Path::Stack);
    if !rows.iter().any(is_carried) {
        return;
    }
    let regions = regions(pid);
    for row in rows.iter_mut().filter(|row| is_carried(row)) {
        let Some((interface, packed)) = row.card.and_then(|card| card.in_stack) else { continue };
        let handle = Handle { index: packed as u32, generation: (packed >> 32) as u32 };
        let mut looks = regions.iter().filter(|(number, _)| *number == interface).map(|(_, look)| look);
        let is_udp = row.socket.as_ref().is_some_and(|socket| socket.protocol.starts_with("udp"));
        row.carried = looks.find_map(|look| match is_udp {
            true => look.datagrams(handle).map(|udp| Carried::of_datagrams(&udp)),
            false => look.socket(handle).map(|tcb| Carried::of(&tcb)),
        });
    }
}
