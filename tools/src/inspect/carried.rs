//! What the network stack says of the sockets that it has: read from its region, without its help.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use driver::cards::Path;
use driver::sys;
use engine::look::Look;
use stack::region::slab::Handle;
use stack::tcp::state::State;
use stack::tcp::tcb::Tcb;
use stack::wire::ip::Ip;

use super::explain::bytes;
use super::process;
use super::sockets::Socket;
use super::view::Row;

/// A connection of the stack.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Its addresses and its state.
    pub socket: Socket,
    /// Bytes that the peer has acknowledged, and that came from it.
    acked: u64,
    received: u64,
    /// Segments sent again.
    again: u32,
    /// Segments that may be on their way, and octets of the largest.
    window: u32,
    mss: u16,
    /// Microseconds; none before the first measurement.
    round_trip_us: Option<u64>,
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
        Self {
            socket: Socket { protocol, local, remote, state: state(tcb.state()) },
            acked: tcb.acked,
            received: tcb.received,
            again: tcb.total_retrans,
            window: tcb.congestion.cwnd(),
            mss: tcb.mss,
            round_trip_us: tcb.rtt.srtt().map(|round_trip| round_trip.as_micros()),
        }
    }

    /// In words, as `ss -ti` has them in letters.
    pub(crate) fn detail(&self) -> String {
        let round_trip = self.round_trip_us.map_or_else(String::new, |us| format!(", round trip {us} µs"));
        format!(
            "acknowledged {}, received {}, {} segments sent again, window {} of {} B{round_trip}",
            bytes(self.acked),
            bytes(self.received),
            self.again,
            self.window,
            self.mss,
        )
    }
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
        let tcb = regions.iter().filter(|(number, _)| *number == interface);
        row.carried = tcb.filter_map(|(_, look)| look.socket(handle)).map(|tcb| Carried::of(&tcb)).next();
    }
}
