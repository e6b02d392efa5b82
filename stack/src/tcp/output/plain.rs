//! The headers of a segment as they almost always are, written at once: Ethernet or none, IP without options, TCP with timestamps
//! alone. The same bytes as [`super::header`]'s, which a test compares.

use super::header::Written;
use crate::device::{Capabilities, ChecksumRequest, Link};
use crate::ip::hop::Hop;
use crate::seq::Seq;
use crate::wire::checksum::halves;
use crate::wire::ip::Ip;
use crate::wire::tcp::Flags;
use crate::wire::{ethernet, protocol};

const ETHERNET: usize = ethernet::HEADER_LEN;
/// TCP's header with padded timestamps.
const TCP: usize = 32;
/// Data offset of eight words.
const OFFSET: u16 = 8 << 12;
/// Two bytes of padding, kind 8, length 10 (RFC 7323 appendix A).
const STAMPS: u32 = 0x0101_080a;

/// A segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<'a> {
    /// Our end.
    pub(crate) local: (&'a Ip, u16),
    /// The peer's.
    pub(crate) remote: (&'a Ip, u16),
    /// SEG.SEQ.
    pub(crate) seq: Seq,
    /// SEG.ACK.
    pub(crate) ack: Seq,
    /// Control bits.
    pub(crate) flags: Flags,
    /// SEG.WND.
    pub(crate) window: u16,
    /// TSval and TSecr.
    pub(crate) stamps: (u32, u32),
    /// IP's time to live or hop limit.
    pub(crate) ttl: u8,
    /// Differentiated services and ECN, or traffic class.
    pub(crate) tos: u8,
    /// The text's sum, and its bytes.
    pub(crate) text: (u16, u16),
}

/// The words of an address, added.
#[inline]
fn sum_of(ip: &Ip) -> u64 {
    let (words, _) = ip.0.as_chunks::<4>();
    words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum()
}

#[inline]
fn put<const N: usize, const M: usize>(head: &mut [u8; N], at: usize, bytes: [u8; M]) {
    head[at..at + M].copy_from_slice(&bytes);
}

impl Plain<'_> {
    /// Writes the headers before the text, which begins at `text`. `None` when they have no room.
    #[inline]
    pub(crate) fn write(
        &self,
        bytes: &mut [u8],
        text: usize,
        hop: &Hop,
        device: &Capabilities,
    ) -> Option<Written> {
        let is_v4 = self.local.0.is_v4();
        let written = if is_v4 {
            let mut head = [0; ETHERNET + 20 + TCP];
            put(&mut head, 12, ethernet::IPV4.to_be_bytes());
            self.v4(&mut head);
            self.finish(head, 20, bytes, text, hop, device)
        } else {
            let mut head = [0; ETHERNET + 40 + TCP];
            put(&mut head, 12, ethernet::IPV6.to_be_bytes());
            self.v6(&mut head);
            self.finish(head, 40, bytes, text, hop, device)
        };
        let (len, checksum) = written?;
        let begin = text - usize::from(len);
        Some(Written { offset: begin as u16, len, checksum })
    }

    #[inline]
    fn v4(&self, head: &mut [u8; ETHERNET + 20 + TCP]) {
        let total = (20 + TCP) as u16 + self.text.1;
        let [a, b, c, d] = [self.local.0.0[12], self.local.0.0[13], self.local.0.0[14], self.local.0.0[15]];
        let source = [a, b, c, d];
        let [a, b, c, d] =
            [self.remote.0.0[12], self.remote.0.0[13], self.remote.0.0[14], self.remote.0.0[15]];
        let destination = [a, b, c, d];
        let first = u32::from(0x4500 | u16::from(self.tos)) << 16 | u32::from(total);
        let third = u32::from(self.ttl) << 24 | u32::from(protocol::TCP) << 16;
        let sum = u64::from(first)
            + 0x4000
            + u64::from(third)
            + u64::from(u32::from_be_bytes(source))
            + u64::from(u32::from_be_bytes(destination));
        put(head, ETHERNET, first.to_be_bytes());
        put(head, ETHERNET + 4, 0x4000u32.to_be_bytes());
        put(head, ETHERNET + 8, (third | u32::from(!halves(sum))).to_be_bytes());
        put(head, ETHERNET + 12, source);
        put(head, ETHERNET + 16, destination);
    }

    #[inline]
    fn v6(&self, head: &mut [u8; ETHERNET + 40 + TCP]) {
        put(head, ETHERNET, (6u32 << 28 | u32::from(self.tos) << 20).to_be_bytes());
        put(head, ETHERNET + 4, (TCP as u16 + self.text.1).to_be_bytes());
        put(head, ETHERNET + 6, [protocol::TCP, self.ttl]);
        put(head, ETHERNET + 8, self.local.0.0);
        put(head, ETHERNET + 24, self.remote.0.0);
    }

    /// TCP's header, and the whole into the frame: how many bytes, and what of the checksum is the device's.
    #[inline]
    fn finish<const N: usize>(
        &self,
        mut head: [u8; N],
        ip_len: usize,
        bytes: &mut [u8],
        text: usize,
        hop: &Hop,
        device: &Capabilities,
    ) -> Option<(u16, Option<ChecksumRequest>)> {
        put(&mut head, 0, hop.destination.0);
        put(&mut head, 6, hop.source.0);
        let at = ETHERNET + ip_len;
        let ports = u32::from(self.local.1) << 16 | u32::from(self.remote.1);
        let bits = u32::from(OFFSET | self.flags.among(Flags::ALL).0) << 16 | u32::from(self.window);
        // The pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1): the mapped form of IPv4 adds 0xffff, which is zero.
        let pseudo = sum_of(self.local.0)
            + sum_of(self.remote.0)
            + u64::from(protocol::TCP)
            + TCP as u64
            + u64::from(self.text.1);
        let words = [ports, self.seq.0, self.ack.0, bits, STAMPS, self.stamps.0, self.stamps.1];
        let (sum, start) = if device.checksum_out {
            (halves(pseudo), Some(at))
        } else {
            let all = words.iter().fold(pseudo + u64::from(self.text.0), |sum, word| sum + u64::from(*word));
            (!halves(all), None)
        };
        let [ports, seq, ack, bits, stamps, tsval, tsecr] = words.map(u32::to_be_bytes);
        put(&mut head, at, ports);
        put(&mut head, at + 4, seq);
        put(&mut head, at + 8, ack);
        put(&mut head, at + 12, bits);
        put(&mut head, at + 16, (u32::from(sum) << 16).to_be_bytes());
        put(&mut head, at + 20, stamps);
        put(&mut head, at + 24, tsval);
        put(&mut head, at + 28, tsecr);
        let skip = if device.link == Link::Ethernet { 0 } else { ETHERNET };
        let len = N - skip;
        let begin = text.checked_sub(len).filter(|begin| *begin >= usize::from(device.headroom_out))?;
        let to = bytes.get_mut(begin..text)?;
        // Of a length that is known here, it is a few moves instead of a call.
        match to.first_chunk_mut::<N>() {
            Some(to) if skip == 0 => *to = head,
            _ => to.copy_from_slice(&head[skip..]),
        }
        let request = start.map(|start| ChecksumRequest { start: (start - skip) as u16, offset: 16 });
        Some((len as u16, request))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::ChecksumIn;
    use crate::tcp::output::header::Head;
    use crate::wire::checksum::Sum;
    use crate::wire::ethernet::Address;
    use crate::wire::tcp::Header;
    use crate::wire::tcp::options::{Options, Timestamps};

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn they_are_the_bytes_of_the_long_way(
            ends in any::<([u8; 16], [u8; 16], u16, u16)>(), words in any::<[u32; 4]>(), rest in any::<(u16, u8, u8, [u8; 12])>(),
            text in proptest::collection::vec(any::<u8>(), 1..100), bits: u16, is_v4: bool, is_ethernet: bool, checksum_out: bool,
        ) {
            let (mut local, mut remote) = (Ip(ends.0), Ip(ends.1));
            if is_v4 {
                let quad = |ip: &Ip| Ip::v4([ip.0[0], ip.0[1], ip.0[2], ip.0[3]]);
                (local, remote) = (quad(&local), quad(&remote));
            }
            let [a, b, c, d, e, f, g, h, i, j, k, l] = rest.3;
            let hop = Hop { source: Address([a, b, c, d, e, f]), destination: Address([g, h, i, j, k, l]), ..Hop::default() };
            let link = if is_ethernet { Link::Ethernet } else { Link::Ip };
            let device = Capabilities {
                link, mtu: 1500, frame_size: 2048, headroom_out: 0, fragments_max: 1, checksum_in: ChecksumIn::Verify,
                checksum_out, tso_bytes_max: 0, gro: false, timestamps: false,
            };
            let (place, sum) = (128usize, Sum::ZERO.bytes(&text));
            let mut expected = vec![0u8; 256];
            expected[place..place + text.len()].copy_from_slice(&text);
            let mut got = expected.clone();
            let header = Header {
                source: ends.2.into(), destination: ends.3.into(), sequence: words[0].into(),
                acknowledgment: words[1].into(), window: rest.0.into(), ..Header::default()
            };
            let options = Options { timestamps: Some(Timestamps { tsval: words[2], tsecr: words[3] }), ..Options::default() };
            let (ttl, tos, flags) = (rest.1, rest.2 & !3, Flags(bits));
            let head = Head { local, remote, header, flags, options, ttl, tos };
            let long = head.write_slowly(&mut expected, (place as u16, text.len() as u16), Some(sum), &hop, &device).expect("room");
            let plain = Plain {
                local: (&local, ends.2), remote: (&remote, ends.3), seq: Seq(words[0]), ack: Seq(words[1]), flags, window: rest.0,
                stamps: (words[2], words[3]), ttl, tos, text: (sum.fold(), text.len() as u16),
            };
            let short = plain.write(&mut got, place, &hop, &device).expect("room");
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!((short.offset, short.len, short.checksum), (long.offset, long.len, long.checksum));
        }
    }
}
