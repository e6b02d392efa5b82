//! What it costs to find a connection among many, in instructions:
//!
//! ```text
//! cargo build --release -p accel-stack --example demux_cost
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*find_all*' target/release/examples/demux_cost 1000000
//! ```
//!
//! Callgrind's `Collected`, divided by the lookups that are printed, is the cost of one, the loop around it included.

use core::hint::black_box;

use stack::demux::Pairs;
use stack::hash::Secret;
use stack::region::{Layout, Limits, Parts};
use stack::wire::ip::Ip;

const LOOKUPS: usize = 100_000;
const LOCAL: (Ip, u16) = (Ip::v4([192, 0, 2, 1]), 443);

/// The far end of connection `n`: 60,000 from each host.
fn remote(n: u32) -> (Ip, u16) {
    let [a, b, c, d] = (0x0a00_0000 + n / 60_000).to_be_bytes();
    (Ip::v4([a, b, c, d]), (n % 60_000) as u16 + 1024)
}

#[inline(never)]
fn find_all(parts: &mut Parts<'_>, queries: &[(Ip, u16)]) -> usize {
    let mut found = 0;
    for remote in queries {
        let pairs = Pairs::new(parts.tcbs, parts.tcp_places, parts.header.secret);
        found += usize::from(black_box(pairs.find((&LOCAL.0, LOCAL.1), (&remote.0, remote.1))).is_some());
    }
    found
}

fn main() {
    let count: u32 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let limits = Limits { tcp_sockets: count, ..Limits::SMALL };
    let size = Layout::new(&limits).expect("a number of connections").size;
    let mut memory = vec![0u8; size + 64];
    let start = memory.as_ptr().align_offset(64);
    let mut parts = Parts::create(&mut memory[start..], &limits, Secret([1, 2])).expect("room");
    for n in 0..count {
        let handle = parts.slabs.tcbs.take(parts.tcbs).expect("room");
        let tcb = &mut parts.tcbs[handle.index as usize];
        (tcb.local, tcb.local_port) = LOCAL;
        (tcb.remote, tcb.remote_port) = remote(n);
        assert!(Pairs::new(parts.tcbs, parts.tcp_places, parts.header.secret).insert(handle.index));
    }
    let mut state = 1u64;
    let queries: Vec<(Ip, u16)> = (0..LOOKUPS)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            remote((state >> 33) as u32 % count)
        })
        .collect();
    let found = find_all(&mut parts, black_box(&queries));
    let layout = Layout::new(&limits).expect("as before");
    println!("{found} lookups among {count} connections of {} bytes", layout.bytes_per_connection());
}
