//! Our stack against the Linux kernel's, over a TUN or TAP device whose packets neither side cuts nor sums: what the kernel sends as
//! one packet of 64 KiB we take, and what we send so the kernel does.

use harness::sim::path::Path;
use harness::sim::tcp::text;
use harness::wire::calls::Calls;
use harness::wire::namespace::kernel_talks;
use harness::wire::world::{Recipe, Side, World};
use stack::device::Link;
use stack::stats::Counter;
use stack::time::Duration;

/// So much each way; packets that we sent and got for each segment of 1,448 bytes.
fn talk(recipe: &Recipe, side: Side, len: usize) -> Option<(f64, f64)> {
    let mut world = World::new(recipe)?;
    println!("{side:?}");
    let (socket, stream) = world.pair(side);
    let (there, back) = (text(1, len), text(2, len));
    let kernel = kernel_talks(&stream, &back);
    let talked = world.ours.talk(socket, &there, true).expect("a talk");
    let got = world.ours.join(kernel);
    assert!(talked.got == back, "{} of {} came from the kernel", talked.got.len(), back.len());
    assert!(got == there, "{} of {} came to the kernel", got.len(), there.len());
    world.ours.close(socket);
    world.ours.host.check();
    assert_eq!(world.ours.refused(), 0, "packets that the kernel finds malformed");
    assert_eq!(world.ours.host.counter(Counter::Corrupt), 0);
    let (counters, segments) = (world.ours.port.counters, len as f64 / 1448.0);
    assert_eq!(counters.too_long, 0, "no packet has more fragments than are taken at once");
    Some((counters.sent as f64 / segments, counters.received as f64 / segments))
}

#[test]
fn runs_are_taken_by_both() {
    for link in [Link::Ip, Link::Ethernet] {
        for side in Side::ALL {
            let recipe = Recipe { link, offloads: true, ..Recipe::default() };
            let Some((sent, received)) = talk(&recipe, side, 16 << 20) else { return };
            // Text and acknowledgments together are far fewer than the segments of one direction.
            assert!(sent < 0.5 && received < 0.5, "{sent} sent and {received} received for each segment");
        }
    }
}

#[test]
fn runs_are_lost_doubled_and_late() {
    let delayed = Path::delayed(Duration::from_millis(2));
    let (reorder, reorder_by) = (0.02, Duration::from_millis(3));
    let paths = [
        Path { loss: 0.02, ..delayed },
        Path { reorder, reorder_by, duplicate: 0.02, ..delayed },
        Path { loss: 0.01, reorder, reorder_by, rate: 1_000_000_000, ..delayed },
    ];
    for (path, side) in paths.into_iter().zip([Side::ALL[0], Side::ALL[3], Side::ALL[1]]) {
        let recipe = Recipe { offloads: true, path, seed: 5, ..Recipe::default() };
        if talk(&recipe, side, 4 << 20).is_none() {
            return;
        }
    }
}
