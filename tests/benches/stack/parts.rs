//! What is measured in a process of its own: memory is given back with it, and the parent can repeat and interleave.

use std::time::{Duration, Instant as Clock};

use harness::sim::random::Random;
use stack::device::Link;

use super::card::Offload;
use super::echo::{Echo, Samples, samples};
use super::kernel::Kernel;
use super::pair::{OurPair, SmolPair};
use super::report::Figures;
use super::server::{Ours, Server};
use super::smol::Smol;
use super::{crr, flood, sockets, sys, udp};

/// Connections at once that a device with offloads, or the row's own, may have beside idle ones.
const SPARE: u32 = 64;
/// Long enough for a median, short enough for a slow peer.
const LONGEST: Duration = Duration::from_secs(4);

/// Runs a part by its name and numbers.
///
/// # Errors
/// What this machine doesn't allow, in one sentence.
pub(crate) fn run(name: &str, numbers: &[u32]) -> Result<Figures, String> {
    let number = |at: usize| numbers.get(at).copied().unwrap_or(1);
    let (first, second) = (number(0), number(1));
    Ok(match name {
        // Connections; whether acknowledgments are piggybacked; echoes.
        "echo" => echo(ours(first, second == 1, Link::Ethernet), first, second == 1, number(2)),
        // Connections; at once; echoes.
        "echo-burst" => {
            let mut echo = Echo::opened(ours(first, false, Link::Ethernet), first, false);
            let took = samples(|| echo.burst(second as usize), (number(2) / second) as usize, LONGEST);
            figures(&took)
        }
        "echo-kernel" => {
            let kernel = Kernel::new().map_err(|error| format!("a TUN device: {error}"))?;
            echo(kernel, 1, true, first)
        }
        // Echoes.
        "udp" => figures(&udp::ours(first as usize, LONGEST)),
        "udp-kernel" => {
            let took = udp::kernels(first as usize, LONGEST);
            figures(&took.map_err(|error| format!("a TUN device: {error}"))?)
        }
        // Sockets; echoes.
        "echo-ip" => echo(ours(first, true, Link::Ip), first, true, second),
        "echo-smoltcp" => echo(Smol::listening(first), first, true, second),
        "life" => sockets::life(first),
        // Idle connections; connections; at once.
        "crr" => {
            let mut pair = OurPair::new(first + 30_000, (Link::Ip, Offload::None));
            crr::idle(&mut pair, first as usize);
            one("per_second", crr::connections_per_second(&mut pair, second as usize, number(2) as usize))
        }
        "crr-smoltcp" => {
            let mut pair = SmolPair::new(first + number(2), 4096);
            crr::idle(&mut pair, first as usize);
            one("per_second", crr::connections_per_second(&mut pair, second as usize, number(2) as usize))
        }
        // Idle connections; megabytes; offloads.
        "bulk" => {
            let offload = if number(2) == 1 { Offload::All } else { Offload::None };
            let mut pair = OurPair::new(first + SPARE, (Link::Ip, offload));
            crr::idle(&mut pair, first as usize);
            let rate = crr::bulk(&mut pair, second as usize * 1_000_000);
            assert_eq!(pair.lost(), 0);
            one("gbit_per_second", rate)
        }
        "bulk-smoltcp" => {
            let mut pair = SmolPair::new(first + 1, 1 << 20);
            crr::idle(&mut pair, first as usize);
            one("gbit_per_second", crr::bulk(&mut pair, second as usize * 1_000_000))
        }
        "flood" => flood::run(first.into()),
        // Connections.
        "reads" => one("ns", dependent_read(first as usize * size_of::<stack::tcp::tcb::Tcb>())?),
        "call" => one("ns", system_call()),
        _ => return Err(format!("no part {name}")),
    })
}

fn ours(connections: u32, piggybacks: bool, link: Link) -> Ours {
    // With its acknowledgment in the next request, a connection's answer waits in its queue.
    let busy = if piggybacks { connections.clamp(SPARE, 16_384) } else { SPARE };
    Ours::new(connections, busy, (link, Offload::None))
}

fn one(name: &str, value: f64) -> Figures {
    let mut figures = Figures::default();
    figures.put(name, value);
    figures
}

fn echo<S: Server>(server: S, connections: u32, piggybacks: bool, echoes: u32) -> Figures {
    let mut echo = Echo::opened(server, connections, piggybacks);
    sys::start_instrumentation();
    let took = samples(|| echo.once(), echoes as usize, LONGEST);
    figures(&took)
}

fn figures(took: &Samples) -> Figures {
    let mut figures = Figures::default();
    figures.put("echoes", took.all as f64);
    figures.put("median", took.at(0.5));
    figures.put("p99", took.at(0.99));
    figures
}

/// Nanoseconds of a read that must wait for the one before it, somewhere in so much memory: what the machine takes for
/// the least that a connection which nobody touched lately can cost.
fn dependent_read(bytes: usize) -> Result<f64, String> {
    const COUNT: u32 = 1_000_000;
    const LINE: usize = 64;
    let memory = sys::bytes(bytes).map_err(|error| format!("{bytes} bytes: {error}"))?;
    memory.fill(0);
    let (lines, mut random, mut at) = (memory.len() / LINE, Random::new(9), 0);
    let from = Clock::now();
    for _ in 0..COUNT {
        // It depends on what was read, though that is zero.
        at = (random.below(lines as u64) as usize + usize::from(memory[at * LINE])) % lines;
    }
    std::hint::black_box(at);
    Ok(from.elapsed().as_nanos() as f64 / f64::from(COUNT))
}

/// Nanoseconds of a system call that does nothing.
fn system_call() -> f64 {
    const COUNT: u32 = 200_000;
    let from = Clock::now();
    for _ in 0..COUNT {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
    from.elapsed().as_nanos() as f64 / f64::from(COUNT)
}
