//! What stands before a packet that a device need not have cut or summed: virtio's header, as TUN and packet sockets have it
//! (virtio 1.2 §5.1.6; `struct virtio_net_hdr`).

use stack::device::{ChecksumRequest, Link};

use crate::sim::port::Packet;

/// Bytes of the header, without the count of merged buffers.
pub const LEN: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum is to be completed.
const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV4, and TCPV6.
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;

/// The packet with its header before it, into these bytes.
pub fn put(packet: &Packet, link: Link, to: &mut Vec<u8>) {
    to.clear();
    let ip = if link == Link::Ethernet { 14 } else { 0 };
    let is_v6 = packet.bytes.get(ip).is_some_and(|byte| byte >> 4 == 6);
    let (start, offset) = packet.checksum.map_or((0, 0), |request| (request.start, request.offset));
    let tcp_len = packet.bytes.get(usize::from(start) + 12).map_or(0, |byte| u16::from(byte >> 4) * 4);
    let kind = match packet.gso_size {
        0 => 0,
        _ if is_v6 => TCP_V6,
        _ => TCP_V4,
    };
    to.extend_from_slice(&[if packet.checksum.is_some() { NEEDS_CSUM } else { 0 }, kind]);
    let head_len = if kind == 0 { 0 } else { start + tcp_len };
    for word in [head_len, packet.gso_size, start, offset] {
        to.extend_from_slice(&word.to_ne_bytes());
    }
    to.extend_from_slice(&packet.bytes);
}

/// The packet behind a header; `None` if that is no header.
pub fn take(bytes: &[u8], packet: &mut Packet) -> Option<()> {
    let (head, rest) = bytes.split_at_checked(LEN)?;
    let word = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    packet.bytes.clear();
    packet.bytes.extend_from_slice(rest);
    packet.gso_size = if head[1] == 0 { 0 } else { word(4) };
    let request = ChecksumRequest { start: word(6), offset: word(8) };
    packet.checksum = (head[0] & NEEDS_CSUM != 0).then_some(request);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken() {
        let checksum = Some(ChecksumRequest { start: 34, offset: 16 });
        for (gso_size, checksum) in [(1448, checksum), (0, checksum), (0, None)] {
            let packet = Packet { bytes: vec![0x45; 90], gso_size, checksum };
            let (mut bytes, mut again) = (Vec::new(), Packet::default());
            put(&packet, Link::Ethernet, &mut bytes);
            assert_eq!((take(&bytes, &mut again), bytes.len()), (Some(()), 100));
            assert_eq!((again.bytes, again.gso_size, again.checksum), (packet.bytes, gso_size, checksum));
        }
        assert_eq!(take(&[0; 9], &mut Packet::default()), None);
    }
}
