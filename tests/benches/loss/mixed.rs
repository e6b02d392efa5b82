//! Our stack to Linux, and Linux to our stack, in real time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time;

use harness::sim::raw::ip;
use harness::wire::calls::Calls;
use harness::wire::clock;
use harness::wire::line::Lines;
use harness::wire::world::{KERNEL, OURS, PORT, Recipe, World, address};
use stack::region::slab::Handle;
use stack::settings::Values;
use stack::time::Duration;

use crate::linux::{connect, counters, rates, read_all, write_all};
use crate::{Measured, Row};

/// Frames of our device: a window each way, and the queue.
const FRAMES: u32 = 1 << 15;

pub(crate) fn run(row: &Row, ours_sends: bool) -> Option<Measured> {
    let mut world = World::new(&Recipe { frames: FRAMES, ..Recipe::default() })?;
    let there = Lines::new(row.path, 1, PORT, row.wires());
    let back = Lines::new(row.back(), 2, PORT, row.wires());
    (world.ours.there, world.ours.back) = if ours_sends { (there, back) } else { (back, there) };
    let (counters, stops) = (counters(row.flows), Arc::new(AtomicBool::new(false)));
    let mut sockets: Vec<Handle> = Vec::new();
    let mut threads = Vec::new();
    for flow in 0..row.flows {
        let port = PORT + flow as u16;
        if ours_sends {
            let listener = world.kernel_listener(false, port);
            sockets.push(world.ours.connect(ip(KERNEL), port, &Values::default()).expect("a connection"));
            let accepting = std::thread::spawn(move || listener.accept().expect("a connection").0);
            threads.push(read_all(world.ours.join(accepting), Arc::clone(&counters), flow));
        } else {
            let listener = world.ours.listen(port, &Values::default());
            let to = SocketAddr::new(address(OURS, false), port);
            let connecting = world.namespace.spawn(move || connect(to));
            sockets.push(world.ours.accept(listener).expect("a connection"));
            threads.push(write_all(world.ours.join(connecting), Arc::clone(&stops)));
        }
    }
    let (start, until) = (time::Instant::now(), clock() + row.length);
    let before: Vec<u64> = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect();
    let (text, mut buffer) = (vec![0x5a; 1 << 16], vec![0; 1 << 18]);
    while clock() < until {
        world.ours.with(|stack| {
            for (flow, socket) in sockets.iter().enumerate() {
                if ours_sends {
                    while stack.send(*socket, &[&text], false).is_ok() {}
                } else {
                    while let Ok(len @ 1..) = stack.receive(*socket, &mut [&mut buffer]) {
                        counters[flow].fetch_add(len as u64, Ordering::Relaxed);
                    }
                }
            }
        });
        world.ours.turn((clock() + Duration::from_millis(1)).min(until));
    }
    let goodput = rates(&counters, &before, start.elapsed());
    stops.store(true, Ordering::Relaxed);
    let counts = if ours_sends { &world.ours.there } else { &world.ours.back }.counts();
    // Resets end the kernel's programs.
    for socket in sockets {
        world.ours.abort(socket);
    }
    for thread in threads {
        world.ours.join(thread);
    }
    Some(Measured { goodput, counts })
}
