//! Very many sockets in one region, and what each of them costs in it.

use std::time::Instant as Clock;

use stack::device::Link;
use stack::region::{Layout, shared};
use stack::time::Duration;

use super::card::{FRAME, Offload};
use super::echo::Echo;
use super::machine::limits;
use super::report::Figures;
use super::server::{Ours, Server};

/// Frames of the device: few, since few connections have text at the same time.
const FRAMES: usize = 16_384;

/// Bytes of region and words for an idle connection, if there is room for so many.
pub(crate) fn bytes_per_connection(connections: u32) -> usize {
    Layout::new(&limits(connections, 64, FRAMES as u32)).expect("limits").bytes_per_connection()
}

/// Bytes of everything that so many sockets need: the region, its words, the frames.
pub(crate) fn bytes(connections: u32) -> usize {
    let limits = limits(connections, 64, FRAMES as u32);
    Layout::new(&limits).expect("limits").size + 8 * shared::words(&limits) + FRAMES * FRAME
}

/// Sets up so many connections, has each exchange a message, and closes them all: every other one first here, then TIME-WAIT passes.
pub(crate) fn life(connections: u32) -> Figures {
    let mut figures = Figures::default();
    let mut echo = Echo::new(Ours::new(connections, 64, (Link::Ethernet, Offload::None)), connections, false);
    let mut phase = |name: &str, act: &mut dyn FnMut(usize)| {
        let from = Clock::now();
        (0..connections as usize).for_each(act);
        figures.put(name, f64::from(connections) / from.elapsed().as_secs_f64());
    };
    phase("handshakes", &mut |index| echo.handshake(index));
    phase("echoes", &mut |index| _ = echo.one(index));
    phase("closes", &mut |index| echo.close(index, index % 2 == 0));
    figures.put("resident", resident());
    let waiting = echo.server.machine.parts.slabs.tcbs.used() - 1;
    assert_eq!(waiting, connections / 2, "in TIME-WAIT");
    let from = Clock::now();
    echo.server.advance(Duration::from_secs(61).0);
    echo.server.machine.run();
    figures.put("ends", f64::from(waiting) / from.elapsed().as_secs_f64());
    let parts = &echo.server.machine.parts;
    let left =
        (parts.slabs.tcbs.used(), parts.slabs.traffics.used(), parts.pool.used() - parts.pool.filled());
    assert_eq!(left, (1, 0, 0), "only the listener is left");
    figures.put("bytes", bytes(connections) as f64);
    figures
}

/// The most memory that this process ever had, in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
}

/// Bytes that the machine can give without swapping.
pub(crate) fn available() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
