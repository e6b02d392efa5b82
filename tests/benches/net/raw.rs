//! A frame to and fro through AF_XDP rings, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use driver::steering::{Claim, Place, Protocol};
use driver::xdp::device::AfXdp;
use driver::xdp::open::{Opened, Request, open};
use harness::sim::raw::ip;
use harness::wire::namespace::{Namespace, joined};
use harness::wire::sys;
use harness::wire::veth::{Cable, NAME};
use stack::device::{Device, Fragment, FrameIndex, Memory, Outgoing, Received};

use super::{MESSAGE, TRIPS, Trips};

const PORT: u16 = 9;
const FRAMES: u32 = 2048;
/// Frames to receive into; the others are sent.
const FILLED: u32 = 1024;

/// An end of the cable.
struct End {
    opened: Opened,
    next: u32,
}

impl End {
    fn new(host: &Namespace, number: u8) -> Self {
        let request = || open(&Request { name: NAME, owner: 1, frames: FRAMES, way: None });
        let mut opened = host.inside(request).unwrap_or_else(|refused| panic!("{refused}"));
        opened.steering.set_local(&ip(number), 0).expect("room");
        let place = Place { slot: 0, protocol: Protocol::Udp, port: PORT };
        opened.steering.claim(place, Some(Claim { owner: 1, mixed: false })).expect("a place");
        opened.requests.want(place, true);
        let frames: Vec<FrameIndex> = (0..FILLED).map(FrameIndex).collect();
        assert_eq!(opened.device.fill(&frames), frames.len());
        Self { opened, next: FILLED }
    }

    fn device(&mut self) -> &mut AfXdp {
        &mut self.opened.device
    }

    fn send(&mut self, packet: &[u8]) {
        self.device().completions(&mut [FrameIndex(0); 64]);
        let frame = FrameIndex(self.next);
        self.next = if self.next + 1 < FRAMES { self.next + 1 } else { FILLED };
        self.device().bytes_mut(frame).expect("a frame")[..packet.len()].copy_from_slice(packet);
        let fragments = [Fragment { frame, offset: 0, len: packet.len() as u16 }];
        let sent = self.device().send(&Outgoing { fragments: &fragments, checksum: None, gso_size: 0 });
        assert_eq!(sent, Ok(()));
        self.device().kick();
    }

    /// The next frame; whether there was one.
    fn receive(&mut self) -> bool {
        let mut packets = [Received::EMPTY; 1];
        if self.device().receive(&mut packets) == 0 {
            return false;
        }
        self.device().fill(&[packets[0].fragment.frame]);
        true
    }
}

/// A datagram, whose checksum nobody looks at.
fn packet(from: u8, to: u8) -> Vec<u8> {
    let mut packet = [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat();
    packet.extend([0x08, 0x00, 0x45, 0, 0, (28 + MESSAGE) as u8, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend([10, 0, 0, from, 10, 0, 0, to, 0, PORT as u8, 0, PORT as u8, 0, 8 + MESSAGE as u8, 0, 0]);
    packet.extend([7; MESSAGE]);
    packet
}

pub(crate) fn trips(cable: Cable) -> Option<Trips> {
    let hosts = cable.lay()?;
    let (mut near, mut far) = (End::new(&hosts[0], 1), End::new(&hosts[1], 2));
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let echo = std::thread::spawn(move || {
        sys::pin(1);
        let back = packet(2, 1);
        while !is_done.load(Ordering::Relaxed) {
            if far.receive() {
                far.send(&back);
            }
        }
    });
    let asking = std::thread::spawn(move || {
        sys::pin(0);
        let there = packet(1, 2);
        let mut times = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            let from = Instant::now();
            near.send(&there);
            while !near.receive() {
                assert!(from.elapsed().as_secs() < 5, "a frame was lost");
            }
            times.push(from.elapsed().as_nanos() as u64);
        }
        times
    });
    let times = joined(asking);
    done.store(true, Ordering::Relaxed);
    joined(echo);
    Some(Trips::of(times))
}
