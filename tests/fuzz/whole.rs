//! Whole stacks: packets of any bytes; and connections whose peer says anything, in segments that are well-formed and near what is
//! expected, while the program calls what it likes.

use harness::sim::random::Random;
use harness::sim::raw::ip;
use stack::tcp::calls::How;
use stack::time::Duration;
use stack::wire::checksum::pseudo;
use stack::wire::ip::Ip;
use stack::wire::protocol;

use super::Target;
use super::lone::{ACK, FIN, Lone, PSH, Peer, RST, SYN, Segment, URG, checksum, timestamps};

/// Any packets, each with its length in two bytes before it, to a host with a connection.
fn run_packets(bytes: &[u8]) {
    let mut lone = Lone::new();
    lone.open(5000, &[2, 4, 5, 180, 3, 3, 4, 4, 2]);
    let mut left = bytes;
    while let [high, low, rest @ ..] = left {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (packet, behind) = rest.split_at(len);
        lone.hears_bytes(packet);
        left = behind;
    }
    end(&mut lone);
}

/// Lengths and checksums of the first packet are right, so that more than the first look is taken at it.
fn mend_packets(bytes: &mut [u8], _: &mut Random) {
    if bytes.len() < 56 {
        return;
    }
    let len = bytes.len() - 2;
    bytes[..2].copy_from_slice(&(len as u16).to_be_bytes());
    let packet = &mut bytes[2..];
    packet[12..14].copy_from_slice(&[8, 0]);
    let total = (packet.len() - 14) as u16;
    packet[16..18].copy_from_slice(&total.to_be_bytes());
    packet[14] = 0x45;
    packet[23] = protocol::TCP;
    packet[24..26].fill(0);
    let sum = checksum(&packet[14..34]);
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    let address = |at: usize| Ip::v4([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
    let sum = pseudo(&address(26), &address(30), protocol::TCP, (packet.len() - 34) as u32);
    packet[50..52].fill(0);
    let sum = sum.bytes(&packet[34..]).checksum();
    packet[50..52].copy_from_slice(&sum.to_be_bytes());
}

/// Distances from where a sequence number should be.
const NEAR: [u32; 16] = [
    0,
    0,
    0,
    1,
    u32::MAX,
    10,
    100,
    1448,
    2896,
    20_000,
    65_535,
    65_536,
    1 << 30,
    1 << 31,
    u32::MAX - 1447,
    u32::MAX - 20_000,
];

const FLAGS: [u8; 16] = [
    ACK,
    ACK | PSH,
    ACK,
    ACK | FIN,
    ACK | PSH | FIN,
    RST,
    RST | ACK,
    SYN,
    SYN | ACK,
    ACK | URG,
    ACK | PSH | URG,
    0,
    FIN,
    SYN | FIN | RST | PSH | ACK | URG,
    ACK | 0x40,
    ACK | 0xc0,
];

/// Eight bytes are one step: what happens, to whom, and how.
fn run_segments(bytes: &[u8]) {
    let mut lone = Lone::new();
    let options: [&[u8]; 3] = [&[], &[2, 4, 5, 180, 3, 3, 4, 4, 2], &timestamps_syn()];
    let mut peers: Vec<Peer> =
        options.iter().zip(5000..).map(|(options, port)| lone.open(port, options)).collect();
    let mut stamp = 100;
    for (round, step) in bytes.chunks_exact(8).take(120).enumerate() {
        let which = usize::from(step[0]) % peers.len();
        let peer = &mut peers[which];
        let socket = peer.socket;
        match step[1] % 24 {
            0..14 => {
                let flags = FLAGS[usize::from(step[2]) % 16];
                let (seq, ack) = (NEAR[usize::from(step[3]) % 16], NEAR[usize::from(step[4]) % 16]);
                let options = match (which, step[5] % 8) {
                    (2, 0..6) => timestamps(stamp, u32::from(step[7])),
                    (_, 6) => sack(peer.ack.wrapping_add(seq), step),
                    (_, 7) => step.to_vec(),
                    _ => Vec::new(),
                };
                let text = vec![step[6]; [0, 1, 100, 536, 1448, 0, 0, 7][usize::from(step[6]) % 8]];
                let segment = Segment {
                    seq: peer.seq.wrapping_add(seq),
                    ack: peer.ack.wrapping_add(ack),
                    flags,
                    window: [60_000, 0, 1, 536, 65_535, 2000, 100, 30_000][usize::from(step[7]) % 8],
                    urgent: u16::from(step[7]) << (step[6] & 8),
                    options,
                    text,
                    ..peer.segment()
                };
                let answers = lone.hears(&segment);
                // What the host has acknowledged is what it expects from here on.
                for answer in
                    answers.iter().filter(|answer| answer.to.1 == peer.port && answer.flags & ACK != 0)
                {
                    peer.seq = answer.ack;
                }
                peer.takes(&answers);
            }
            14 => {
                stamp += u32::from(step[2]);
                let answers = lone.wait(Duration::from_millis(u64::from(step[2]) * 8));
                peers.iter_mut().for_each(|peer| peer.takes(&answers));
            }
            15 | 16 => drop(lone.with(|stack| {
                stack.send(socket, &[&vec![step[2]; usize::from(step[3]) * 20]], step[4] & 1 == 0)
            })),
            17 | 18 => {
                let mut buffer = vec![0; usize::from(step[2]) * 30];
                let _ = lone.with(|stack| stack.receive(socket, &mut [&mut buffer]));
            }
            19 => drop(lone.with(|stack| {
                stack.shutdown(socket, [How::Read, How::Write, How::Both][usize::from(step[2]) % 3])
            })),
            20 if step[2] > 128 => drop(lone.with(|stack| stack.close(socket))),
            21 => drop(lone.with(|stack| stack.set_delay(socket, step[2] & 1 == 0, step[2] & 2 == 0))),
            22 => drop(lone.with(|stack| {
                let socket = stack.parts.tcp_socket(false, 0)?;
                stack.connect(socket, &ip(1), (&ip(2), u16::from(step[2])))
            })),
            _ => drop(lone.poll()),
        }
        if round % 16 == 0 {
            lone.host.check();
        }
    }
    end(&mut lone);
}

/// A SYN's options with timestamps.
fn timestamps_syn() -> Vec<u8> {
    [&[2, 4, 5, 180, 3, 3, 7, 4, 2][..], &timestamps(1, 0)[1..]].concat()
}

/// One or two SACK blocks near this number.
fn sack(near: u32, step: &[u8]) -> Vec<u8> {
    let block = |left: u32, len: u32| [left.to_be_bytes(), left.wrapping_add(len).to_be_bytes()].concat();
    let first = block(near.wrapping_sub(u32::from(step[6]) * 50), u32::from(step[7]) * 20);
    let second = block(near, NEAR[usize::from(step[7]) % 16]);
    [&[1, 1, 5, 18][..], &first, &second].concat()
}

/// Every invariant holds; and when the programs have closed all they have and time has passed, nothing is left but the listener.
fn end(lone: &mut Lone) {
    lone.host.check();
    lone.with(|stack| {
        let all: Vec<_> = stack.parts.tcbs.iter().enumerate().filter(|(_, tcb)| tcb.tag.is_used()).collect();
        let all: Vec<_> = all.into_iter().map(|(index, tcb)| tcb.tag.handle(index as u32)).collect();
        for socket in all {
            if stack.state(socket).is_ok_and(|state| state != stack::tcp::state::State::Listen) {
                let _ = stack.close(socket);
            }
        }
    });
    lone.host.talks.clear();
    // As long as an orphan tries at most, and 2 MSL.
    for _ in 0..400 {
        lone.now = lone.now + Duration::from_secs(3);
        lone.poll();
    }
    lone.host.check();
    assert_eq!(lone.host.held(), [1, 0, 0, 0], "sockets, queues, SYNs, frames");
}

/// Both.
pub(crate) const TARGETS: [Target; 2] = [
    Target { name: "packets", run: run_packets, mend: mend_packets },
    Target { name: "segments", run: run_segments, mend: super::as_it_is },
];
