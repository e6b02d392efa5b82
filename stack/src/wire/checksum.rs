//! The Internet checksum: the ones' complement sum of 16-bit words (RFC 1071).
//!
//! The sum is the same in either byte order but for a final swap (RFC 1071 §2 B), so words are added as the machine
//! loads them, and as wide as it can: carries out of a wide word come back at its end, since 2¹⁶ ≡ 2³² ≡ 2⁶⁴ ≡ 1
//! modulo 2¹⁶ − 1.

use super::ip::Ip;

/// Bytes that one turn of the loops takes.
const BLOCK: usize = 32;

/// The sum of the bytes so far, in pieces of any length: a piece that follows an odd number of bytes is added
/// with its bytes in the other halves of the words (RFC 1071 §2 A).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Congruent to the sum of the words as loaded.
    sum: u64,
    /// Whether the number of bytes so far is odd.
    odd: bool,
}

/// Addition modulo 2⁶⁴ − 1.
#[inline]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The sum of a wide word's 16-bit words: each half is added to the other, and the carry out of the lower comes into the upper.
#[inline]
#[must_use]
pub(crate) const fn halves(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The sum of up to 31 bytes, the last odd one padded with a zero behind it (RFC 1071 §1).
#[inline]
fn tail(mut bytes: &[u8]) -> u64 {
    let mut sum = 0;
    while let Some((word, rest)) = bytes.split_first_chunk::<8>() {
        sum = add(sum, u64::from_ne_bytes(*word));
        bytes = rest;
    }
    let mut last = [0; 8];
    if let Some((word, rest)) = bytes.split_first_chunk::<4>() {
        sum = add(sum, u64::from(u32::from_ne_bytes(*word)));
        bytes = rest;
    }
    for (to, from) in last.iter_mut().zip(bytes) {
        *to = *from;
    }
    add(sum, u64::from_ne_bytes(last))
}

/// Two sums side by side, so that neither waits for the other: of 64-bit words, with their carries above.
#[derive(Clone, Copy, Default)]
struct Lanes([u128; 2]);

impl Lanes {
    #[inline]
    fn block(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<8>();
        for (word, lane) in words.iter().zip([0, 1, 0, 1]) {
            self.0[lane] += u128::from(u64::from_ne_bytes(*word));
        }
    }

    #[inline]
    fn sum(self) -> u64 {
        self.0.into_iter().fold(0, |sum, lane| add(sum, add(lane as u64, (lane >> 64) as u64)))
    }
}

impl Sum {
    /// Of nothing.
    pub const ZERO: Self = Self { sum: 0, odd: false };

    /// Of words that were added up as the machine loads them.
    #[inline]
    #[must_use]
    pub const fn of(sum: u64) -> Self {
        Self { sum, odd: false }
    }

    /// With the bytes of a piece.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut lanes = Lanes::default();
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            lanes.block(block);
        }
        let sum = lanes.sum();
        self.piece(if rest.is_empty() { sum } else { add(sum, tail(rest)) }, bytes.len())
    }

    /// With the bytes of `from`, which are copied to the start of `to` in the same pass.
    ///
    /// # Panics
    /// When `to` is shorter than `from`.
    #[inline]
    #[must_use]
    pub fn copy(self, from: &[u8], to: &mut [u8]) -> Self {
        let to = &mut to[..from.len()];
        let mut lanes = Lanes::default();
        let (blocks, rest) = from.as_chunks::<BLOCK>();
        let (to_blocks, to_rest) = to.as_chunks_mut::<BLOCK>();
        for (block, to) in blocks.iter().zip(to_blocks) {
            lanes.block(block);
            *to = *block;
        }
        let mut sum = lanes.sum();
        if !rest.is_empty() {
            to_rest.copy_from_slice(rest);
            sum = add(sum, tail(rest));
        }
        self.piece(sum, from.len())
    }

    /// With a piece's sum, as if it began at an even byte.
    #[inline]
    const fn piece(self, sum: u64, len: usize) -> Self {
        let sum = if self.odd { sum.rotate_left(8) } else { sum };
        Self { sum: add(self.sum, sum), odd: self.odd != (len % 2 == 1) }
    }

    /// With the bytes that another sum is of.
    #[inline]
    #[must_use]
    pub const fn and(self, next: Self) -> Self {
        self.piece(next.sum, next.odd as usize)
    }

    /// With one word, at an even place.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self { sum: add(self.sum, word.to_be() as u64), ..self }
    }

    /// The 16-bit sum, as a number.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        u16::from_be(halves(self.sum))
    }

    /// What a checksum field holds: the complement of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether the bytes, with their checksum among them, are as they were sent (RFC 1071 §1 (3)).
    #[inline]
    #[must_use]
    pub const fn holds(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum after one word under it has changed (RFC 1624 §3, equation 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum after a 32-bit field under it, at an even place, has changed.
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let high = update(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update(high, old as u16, new as u16)
}

/// The pseudo-header's sum, of IPv4 (RFC 9293 §3.1) or IPv6 (RFC 8200 §8.1) as the addresses are; `len` in bytes.
///
/// One sum serves both: the mapped form of an IPv4 address adds 0xffff to it, which is zero.
#[inline]
#[must_use]
pub fn pseudo(source: &Ip, destination: &Ip, protocol: u8, len: u32) -> Sum {
    let words = |ip: &Ip| {
        let (words, _) = ip.0.as_chunks::<4>();
        words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>()
    };
    let addresses = words(source) + words(destination);
    let rest = (len.to_be() as u64) + (protocol as u16).to_be() as u64;
    Sum { sum: addresses + rest, odd: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §1, as it is written.
    fn plainly(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    /// The example of RFC 1071 §3.
    #[test]
    fn the_sum_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::ZERO.bytes(&bytes).word(!0xddf2).fold(), 0xffff);
        assert!(Sum::ZERO.bytes(&bytes).word(!0xddf2).holds());
        assert_eq!(Sum::ZERO.checksum(), 0xffff);
    }

    /// The example of RFC 1624 §4: equation 3 gives 0x0000 where equation 2 gave 0xffff.
    #[test]
    fn the_update_of_the_rfc() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    fn v4_pseudo(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> u16 {
        plainly(&[&source[..], &destination, &[0, protocol], &len.to_be_bytes()].concat())
    }

    #[test]
    fn long_runs_of_ones_carry() {
        for len in [31, 32, 33, 63, 64, 1460, 65_535, 65_536] {
            let bytes = vec![0xff; len];
            assert_eq!(Sum::ZERO.bytes(&bytes).fold(), plainly(&bytes), "{len}");
        }
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn pieces_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0usize..100, 0..6)) {
            let whole = plainly(&bytes);
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), whole);
            let (mut sum, mut sums, mut rest) = (Sum::ZERO, Sum::ZERO, &bytes[..]);
            let mut copied = vec![0xaa; bytes.len() + 3];
            let mut at = 0;
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                sum = sum.copy(piece, &mut copied[at..]);
                sums = sums.and(Sum::ZERO.bytes(piece));
                (rest, at) = (left, at + piece.len());
            }
            prop_assert_eq!(sum.fold(), whole);
            prop_assert_eq!(sums.fold(), whole);
            prop_assert_eq!(&copied[..bytes.len()], &bytes[..]);
            prop_assert_eq!(&copied[bytes.len()..], &[0xaa; 3]);
        }

        #[test]
        fn an_update_is_a_new_sum(mut words in proptest::collection::vec(any::<u16>(), 2..20), new in any::<u32>()) {
            // A checksum is over some header that isn't all zeros.
            words[1] |= 1;
            words.push(1);
            let sum = |words: &[u16]| words.iter().fold(Sum::ZERO, |sum, word| sum.word(*word)).checksum();
            let before = sum(&words);
            let old = (u32::from(words[0]) << 16) | u32::from(words[1]);
            (words[0], words[1]) = ((new >> 16) as u16, new as u16);
            prop_assert_eq!(update_u32(before, old, new), sum(&words));
        }

        #[test]
        fn the_pseudo_header_serves_both_versions(
            a in any::<[u8; 4]>(), b in any::<[u8; 4]>(), c in any::<[u8; 16]>(), d in any::<[u8; 16]>(), protocol in 1u8.., len in any::<u16>(),
        ) {
            let four = pseudo(&Ip::v4(a), &Ip::v4(b), protocol, len.into());
            prop_assert_eq!(four.fold(), v4_pseudo(a, b, protocol, len));
            let long = u32::from(len) << 3;
            let six = [&c[..], &d, &long.to_be_bytes(), &[0, 0, 0, protocol]].concat();
            prop_assert_eq!(pseudo(&Ip(c), &Ip(d), protocol, long).fold(), plainly(&six));
        }
    }
}
