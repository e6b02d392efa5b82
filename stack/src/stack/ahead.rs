//! A batch of packets, and the memory that they are about to need.
//!
//! Of a million connections none is in the cache: a packet costs two reads of memory, one after the other, before anything else is known
//! (the table's place, then the connection), and those of several packets need not wait for one another.

use core::sync::atomic::Ordering;

use super::Stack;
use crate::device::{Device, Link, Received};
use crate::wire::ip::Ip;

/// So few connections are in the cache anyway.
const FEW: u32 = 4096;
/// Bytes of an Ethernet header, and of IP's without options and extensions.
const ETHERNET: usize = 14;
const V4: usize = 20;
const V6: usize = 40;

/// The ends that a packet of TCP names, ours first, if it looks as most do; nothing is verified.
fn ends(bytes: &[u8], link: Link) -> Option<((Ip, u16), (Ip, u16))> {
    let packet = if link == Link::Ethernet { bytes.get(ETHERNET..)? } else { bytes };
    let (source, destination, segment) = match packet.first()? >> 4 {
        4 => {
            let [.., a, b, c, d, e, f, g, h]: [u8; V4] = *packet.first_chunk()?;
            (Ip::v4([a, b, c, d]), Ip::v4([e, f, g, h]), packet.get(V4..)?)
        }
        _ => {
            let (source, rest) = packet.get(8..)?.split_first_chunk::<16>()?;
            (Ip(*source), Ip(*rest.first_chunk()?), packet.get(V6..)?)
        }
    };
    let [a, b, c, d] = *segment.first_chunk()?;
    Some(((destination, u16::from_be_bytes([c, d])), (source, u16::from_be_bytes([a, b]))))
}

impl<D: Device> Stack<'_, '_, D> {
    /// Reads the places of the packets' connections, and then the connections. It changes nothing, and is believed by nobody.
    pub(super) fn look_ahead<const N: usize>(&mut self, packets: &[Received]) {
        if packets.len() < 2 || self.parts.slabs.tcbs.used() < FEW {
            return;
        }
        let mut hashes = [None; N];
        let link = self.device.capabilities().link;
        for (packet, hash) in packets.iter().zip(&mut hashes) {
            let begin = usize::from(packet.fragment.offset);
            let bytes = self.device.bytes(packet.fragment.frame).and_then(|bytes| bytes.get(begin..));
            if let Some((local, remote)) = bytes.and_then(|bytes| ends(bytes, link)) {
                let connections = self.parts.connections();
                *hash = Some(connections.look_ahead((&local.0, local.1), (&remote.0, remote.1)));
            }
        }
        for hash in hashes.into_iter().flatten() {
            let index = self.parts.connections().touch(hash);
            if let Some(word) = index.and_then(|index| self.shared.tcp_events.get(index as usize)) {
                core::hint::black_box(word.load(Ordering::Relaxed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ipv4, ipv6, protocol};

    #[test]
    fn the_ends_are_those_of_the_headers() {
        let (ours, theirs) = (Ip::v4([192, 0, 2, 1]), Ip::v4([198, 51, 100, 7]));
        let (our_six, their_six) = (Ip([0xfd; 16]), Ip([0xfe; 16]));
        let mut packets = [[0u8; ETHERNET + V6 + 4]; 2];
        let four = ipv4::Header::new(&theirs, &ours, protocol::TCP, 64).expect("IPv4");
        four.emit(4, &mut packets[0][ETHERNET..]).expect("room");
        let six = ipv6::Header::new(&their_six, &our_six, protocol::TCP, 64).expect("IPv6");
        six.emit(4, &mut packets[1][ETHERNET..]).expect("room");
        let expected = [(V4, ours, theirs), (V6, our_six, their_six)];
        for (packet, (header, local, remote)) in packets.iter_mut().zip(expected) {
            let segment = ETHERNET + header;
            packet[segment..segment + 4].copy_from_slice(&[0x12, 0x34, 0, 80]);
            let all = Some(((local, 80), (remote, 0x1234)));
            assert_eq!(ends(packet, Link::Ethernet), all);
            assert_eq!(ends(&packet[ETHERNET..], Link::Ip), all);
            for len in 0..segment + 4 {
                assert_eq!(ends(&packet[..len], Link::Ethernet), None, "{len} bytes");
            }
        }
    }
}
