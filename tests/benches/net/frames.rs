//! Frames one way, and nothing else: what the rings and the kernel between them carry, with as much text in them as TCP's segments have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use driver::steering::{Claim, Place, Protocol};
use driver::xdp::device::AfXdp;
use driver::xdp::open::{Opened, Request, open};
use harness::sim::raw::ip;
use harness::wire::namespace::{Namespace, joined};
use harness::wire::sys;
use harness::wire::veth::{Cable, NAME};
use stack::device::{ChecksumRequest, Device, Fragment, FrameIndex, Memory, Outgoing, Received};

const PORT: u16 = 7003;
const FRAMES: u32 = 4096;
/// Frames to receive into; the others are sent.
const FILLED: u32 = 2048;
/// Frames that are sent before the kernel is told: few, so that they are still in the cache.
const BATCH: usize = 64;
/// Frames that are sent, in turn: more than are under way at once.
const SENT: u32 = 512;
/// How long is sent.
const LENGTH: Duration = Duration::from_millis(250);
/// Bytes of the headers: Ethernet's, IPv4's, TCP's with timestamps.
const HEADERS: usize = 14 + 20 + 32;
/// Where the text begins in a frame.
const TEXT: u16 = 128;
/// Bytes of text of the largest packet, as our stack makes them.
const WHOLE: usize = 65_535 - 128;

/// How frames leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the transmit ring, each as large as the link takes.
    Ring,
    /// By the packet socket, 64 KiB each, which the kernel is to cut.
    Socket,
}

fn open_end(host: &Namespace, number: u8) -> Opened {
    let request = || open(&Request { name: NAME, owner: 1, frames: FRAMES, way: None });
    let opened = host.inside(request).unwrap_or_else(|refused| panic!("{refused}"));
    opened.steering.set_local(&ip(number), 0).expect("room");
    let place = Place { slot: 0, protocol: Protocol::Tcp, port: PORT };
    opened.steering.claim(place, Some(Claim { owner: 1, mixed: false })).expect("a place");
    opened.requests.want(place, true);
    opened
}

/// A segment's headers, whose checksum nobody looks at, before so much text.
fn headers(text: usize) -> Vec<u8> {
    let mut head = [[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]].concat();
    head.extend([0x08, 0x00, 0x45, 0]);
    head.extend(((HEADERS - 14 + text) as u16).to_be_bytes());
    head.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    head.extend([PORT.to_be_bytes(), PORT.to_be_bytes()].concat());
    head.extend([0; 8]);
    head.extend([0x80, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    head.extend([1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]);
    head
}

/// Sends until it is told to stop.
fn send(device: &mut AfXdp, mtu: usize, way: Way) {
    let room = usize::from(device.capabilities().frame_size - TEXT);
    // As our stack's frames: a segment's text each, if it fits.
    let segment = (mtu - (HEADERS - 14)).min(room);
    let text = if way == Way::Socket { WHOLE / segment * segment } else { (mtu - (HEADERS - 14)).min(WHOLE) };
    let pieces = text.div_ceil(segment);
    let head = headers(text);
    let (mut next, mut sent) = (FILLED, 0);
    let mut fragments: Vec<Fragment> = Vec::with_capacity(pieces);
    let from = Instant::now();
    while from.elapsed() < LENGTH {
        let mut left = text;
        fragments.clear();
        for _ in 0..pieces {
            next = if next + 1 < FILLED + SENT { next + 1 } else { FILLED };
            let len = left.min(segment);
            fragments.push(Fragment { frame: FrameIndex(next), offset: TEXT, len: len as u16 });
            left -= len;
        }
        let first = &mut fragments[0];
        let begin = TEXT - HEADERS as u16;
        let bytes = device.bytes_mut(first.frame).expect("a frame");
        bytes[begin.into()..TEXT.into()].copy_from_slice(&head);
        (first.offset, first.len) = (begin, first.len + HEADERS as u16);
        let is_cut = way == Way::Socket;
        let packet = Outgoing {
            fragments: &fragments,
            checksum: is_cut.then_some(ChecksumRequest { start: 34, offset: 16 }),
            gso_size: if is_cut { segment as u16 } else { 0 },
        };
        assert_eq!(device.send(&packet), Ok(()));
        sent += pieces;
        if sent >= BATCH {
            while device.kick() {}
            while device.completions(&mut [FrameIndex(0); 64]) == 64 {}
            sent = 0;
        }
    }
}

/// Gbit/s of text that arrive.
pub(crate) fn rate(cable: Cable, way: Way) -> Option<f64> {
    let hosts = cable.lay()?;
    let (mut near, mut far) = (open_end(&hosts[0], 1), open_end(&hosts[1], 2));
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let receiving = std::thread::spawn(move || {
        sys::pin(1);
        let device = &mut far.device;
        let frames: Vec<FrameIndex> = (0..FILLED).map(FrameIndex).collect();
        let mut filled = device.fill(&frames);
        let (mut bytes, mut begin) = (0, None);
        let mut packets = [Received::EMPTY; 256];
        loop {
            let count = device.receive(&mut packets);
            if count == 0 && is_done.load(Ordering::Relaxed) {
                break;
            }
            for entry in &packets[..count] {
                bytes += usize::from(entry.fragment.len);
                filled -= usize::from(device.fill(&[entry.fragment.frame]) == 0);
            }
            if count != 0 && begin.is_none() {
                begin = Some(Instant::now());
            }
        }
        assert!(filled > 0, "a fill ring is as large as it was");
        bytes as f64 * 8.0 / begin.expect("frames").elapsed().as_secs_f64() / 1e9
    });
    let sending = std::thread::spawn(move || {
        sys::pin(0);
        send(&mut near.device, cable.mtu as usize, way);
        done.store(true, Ordering::Relaxed);
    });
    joined(sending);
    Some(joined(receiving))
}
