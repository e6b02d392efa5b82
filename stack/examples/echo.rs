//! What an echo of 64 bytes costs an established connection, to be counted in instructions:
//!
//! ```text
//! cargo build --release -p accel-stack --example echo
//! for n in 1000 101000; do valgrind --tool=callgrind --toggle-collect='*echo_once*' target/release/examples/echo $n; done
//! ```
//!
//! One echo is: a data segment is in the device's ring; `poll`; the program reads; it writes, and the segment leaves. The difference
//! of the two counts, divided by 100,000, is one of them; the far end and the device's other side are not in it.

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use stack::device::{
    Capabilities, Checksum, ChecksumIn, Device, Fragment, FrameIndex, Link, Memory, Outgoing, Received,
    Refused,
};
use stack::error::Error;
use stack::hash::Secret;
use stack::ip::Interface;
use stack::ip::neighbour::State;
use stack::ip::route::V4_BITS;
use stack::ports::Lease;
use stack::region::slab::Handle;
use stack::region::{Layout, Limits, Parts, Shared};
use stack::stack::Stack;
use stack::time::Instant;
use stack::wire::checksum::Sum;
use stack::wire::ip::Ip;
use stack::wire::tcp::options::{Options, Timestamps};
use stack::wire::tcp::{self, Flags, Header};
use stack::wire::{ethernet, ipv4, protocol};

const FRAME: usize = 2048;
const OURS: Ip = Ip::v4([10, 0, 0, 1]);
const THEIRS: Ip = Ip::v4([10, 0, 0, 2]);
const TEXT: usize = 64;

/// A device whose rings are short lists, and whose other side is the far end.
struct Wire {
    memory: Vec<u8>,
    filled: Vec<FrameIndex>,
    arrived: Option<Received>,
    sent: Option<Fragment>,
    done: Vec<FrameIndex>,
}

impl Memory for Wire {
    #[inline]
    fn bytes(&self, frame: FrameIndex) -> Option<&[u8]> {
        let begin = frame.0 as usize * FRAME;
        self.memory.get(begin..begin + FRAME)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: FrameIndex) -> Option<&mut [u8]> {
        let begin = frame.0 as usize * FRAME;
        self.memory.get_mut(begin..begin + FRAME)
    }

    fn pair(&mut self, from: FrameIndex, to: FrameIndex) -> Option<(&[u8], &mut [u8])> {
        let (a, b) = (from.0 as usize * FRAME, to.0 as usize * FRAME);
        let [a, b] = self.memory.get_disjoint_mut([a..a + FRAME, b..b + FRAME]).ok()?;
        Some((a, b))
    }
}

impl Device for Wire {
    #[inline]
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link: Link::Ethernet,
            mtu: 1500,
            frame_size: FRAME as u16,
            headroom_out: 0,
            fragments_max: 1,
            checksum_in: ChecksumIn::Verify,
            checksum_out: false,
            tso_bytes_max: 0,
            gro: false,
            timestamps: false,
        }
    }

    #[inline]
    fn receive(&mut self, packets: &mut [Received]) -> usize {
        match self.arrived.take() {
            Some(packet) => {
                packets[0] = packet;
                1
            }
            None => 0,
        }
    }

    #[inline]
    fn fill_room(&self) -> usize {
        64 - self.filled.len()
    }

    #[inline]
    fn fill(&mut self, frames: &[FrameIndex]) -> usize {
        self.filled.extend_from_slice(frames);
        frames.len()
    }

    #[inline]
    fn transmit_room(&self) -> usize {
        64
    }

    #[inline]
    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), Refused> {
        self.sent = packet.fragments.first().copied();
        self.done.extend(packet.fragments.iter().map(|fragment| fragment.frame));
        Ok(())
    }

    #[inline]
    fn completions(&mut self, frames: &mut [FrameIndex]) -> usize {
        let count = self.done.len();
        frames[..count].copy_from_slice(&self.done);
        self.done.clear();
        count
    }

    #[inline]
    fn flush(&mut self) -> bool {
        true
    }
}

/// The far end: its next sequence number, and what it acknowledges.
struct Far {
    seq: u32,
    ack: u32,
    tsecr: u32,
}

/// Puts a segment into the device's ring.
fn arrive(wire: &mut Wire, far: &Far, flags: Flags, options: &Options, ms: u32, text: &[u8]) {
    let frame = wire.filled.remove(0);
    let bytes = wire.bytes_mut(frame).expect("a frame");
    let begin = 256;
    let mac = |n| ethernet::Address([2, 0, 0, 0, 0, n]);
    let link =
        ethernet::Frame { destination: mac(1), source: mac(2), tags: [None; 2], ethertype: ethernet::IPV4 };
    let mut at = begin + link.emit(&mut bytes[begin..]).expect("room");
    let options = Options { timestamps: Some(Timestamps { tsval: ms, tsecr: far.tsecr }), ..*options };
    let tcp_len = tcp::HEADER_LEN + options.len();
    let ip = ipv4::Header::new(&THEIRS, &OURS, protocol::TCP, 64).expect("IPv4");
    at += ip.emit(tcp_len + text.len(), &mut bytes[at..]).expect("room");
    let header = Header {
        source: 5000.into(),
        destination: 80.into(),
        sequence: far.seq.into(),
        acknowledgment: far.ack.into(),
        window: 500.into(),
        ..Header::default()
    };
    let (head, rest) = bytes[at..].split_at_mut(tcp_len);
    header.emit(flags, &options, head).expect("room");
    rest[..text.len()].copy_from_slice(text);
    let sum = Sum::ZERO.bytes(text);
    tcp::fill_checksum(head, &THEIRS, &OURS, sum, text.len()).expect("room");
    let len = (at + tcp_len + text.len() - begin) as u16;
    let fragment = Fragment { frame, offset: begin as u16, len };
    wire.arrived = Some(Received {
        fragment,
        continues: false,
        checksum: Checksum::Unchecked,
        gso_size: 0,
        arrived: None,
    });
}

/// What left: its sequence number's end and its timestamp.
fn left(wire: &mut Wire) -> Option<(u32, u32, usize)> {
    let piece = wire.sent.take()?;
    let begin = usize::from(piece.offset);
    let bytes = &wire.bytes(piece.frame)?[begin..begin + usize::from(piece.len)];
    let (_, packet) = ethernet::parse(bytes).ok()?;
    let (_, payload) = ipv4::parse(packet).ok()?;
    let (parsed, text) = tcp::parse(payload).ok()?;
    let stamps = Options::parse(parsed.options).timestamps?;
    let syn = u32::from(parsed.header.flags().has(Flags::SYN));
    Some((parsed.header.seq().0.wrapping_add(text.len() as u32 + syn), stamps.tsval, text.len()))
}

/// What is counted.
#[inline(never)]
fn echo_once(stack: &mut Stack<'_, '_, Wire>, socket: Handle, buffer: &mut [u8]) -> usize {
    black_box(stack.poll());
    let read = stack.receive(socket, &mut [&mut *buffer]).expect("text");
    stack.send(socket, &[&buffer[..read]], false).expect("room")
}

/// A poll that finds nothing.
#[inline(never)]
fn echo_idle(stack: &mut Stack<'_, '_, Wire>) {
    black_box(stack.poll());
}

fn main() {
    let count: u32 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let limits = Limits::SMALL;
    let layout = Layout::new(&limits).expect("limits");
    let mut memory = vec![0u8; layout.size + 64];
    let start = memory.as_ptr().align_offset(64);
    let words: Vec<AtomicU64> =
        (0..stack::region::shared::words(&limits)).map(|_| AtomicU64::new(0)).collect();
    let mut parts = Parts::create(&mut memory[start..], &limits, Secret([1, 2])).expect("room");
    let mac = |n| ethernet::Address([2, 0, 0, 0, 0, n]);
    let (prefix_len, now) = (V4_BITS + 24, Instant(1_000_000_000));
    parts.set_interface(&Interface { link: mac(1), ..Interface::default() });
    parts.join_subnet(&OURS, prefix_len).expect("room");
    parts.set_neighbour(&THEIRS, Some(mac(2)), State::Permanent, now).expect("nothing waits");
    let handle = parts.slabs.leases.take(parts.leases).expect("room");
    let lease = &mut parts.leases[handle.index as usize];
    *lease = Lease { tag: lease.tag, first: 40_000, count: 1000, protocols: 3, is_ephemeral: 1, reserved: 0 };
    let mut wire = Wire {
        memory: vec![0; limits.frames as usize * FRAME],
        filled: Vec::with_capacity(64),
        arrived: None,
        sent: None,
        done: Vec::with_capacity(64),
    };
    let shared = Shared::split(&words, &limits).expect("room");
    let mut stack = Stack { parts: &mut parts, shared, device: &mut wire, now };
    let listener = stack.parts.tcp_socket(true, 0).expect("room");
    stack.parts.tcp_bind(listener, (&Ip::UNSPECIFIED, 80)).expect("free");
    stack.listen(listener, 8).expect("free");
    stack.poll();

    let mut far = Far { seq: 1000, ack: 0, tsecr: 0 };
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: None,
        ..Options::default()
    };
    arrive(stack.device, &far, Flags::SYN, &options, 1, &[]);
    stack.poll();
    (far.ack, far.tsecr, _) = left(stack.device).expect("SYN,ACK");
    far.seq += 1;
    arrive(stack.device, &far, Flags::ACK, &Options::default(), 2, &[]);
    stack.poll();
    let socket = stack.accept(listener, 0).expect("a connection");
    let (text, mut buffer) = ([7; TEXT], [0; TEXT * 2]);
    let mut bytes = 0;
    for n in 0..count {
        stack.now = Instant(stack.now.0 + 20_000);
        arrive(stack.device, &far, Flags::ACK | Flags::PSH, &Options::default(), 3 + n / 50, &text);
        bytes += echo_once(&mut stack, socket, &mut buffer);
        far.seq = far.seq.wrapping_add(TEXT as u32);
        let echoed;
        (far.ack, far.tsecr, echoed) = left(stack.device).expect("an echo");
        assert_eq!(echoed, TEXT);
    }
    if std::env::args().nth(2).is_some() {
        for _ in 0..count {
            echo_idle(&mut stack);
        }
    }
    assert_eq!(stack.receive(socket, &mut [&mut buffer]), Err(Error::WouldBlock));
    println!("{count} echoes of {} bytes", bytes / count.max(1) as usize);
}
