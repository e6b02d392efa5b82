//! Hashes under the region's secret: a fast one for tables, whose values never leave the host, and SipHash for what
//! others see (ports, initial sequence numbers, cookies).
//!
//! The fast one folds the 128-bit product of two words, as wyhash does. Who doesn't know the secret can't choose
//! addresses and ports that fall into one bucket; who sees its values might learn the secret, so they stay inside.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tcp::isn::siphash::siphash;
use crate::wire::ip::Ip;

/// 128 random bits, drawn once for a region.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Secret(pub [u64; 2]);

impl core::fmt::Debug for Secret {
    /// Without its value: traces and dumps leave the host.
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("Secret")
    }
}

/// What a hash for the outside is made for: values of one kind tell nothing about those of another. Numbers below 16
/// are [`crate::tcp::isn`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Where the search for an ephemeral port begins, and which counter it uses (RFC 6056 §3.3.4, F and G).
    Port = 16,
    /// Numbers that nobody can predict, one for each count.
    Draw,
    /// Cookies of fast open (RFC 7413 §4.1.2).
    FastOpen,
}

/// Words with as many ones as zeros (the first digits of pi): a secret of zero hashes well too.
const PI: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// The two halves of a product, over each other.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

fn halves(address: &Ip) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = address.0;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
}

impl Secret {
    /// Of a connection.
    #[inline]
    #[must_use]
    pub fn tuple(&self, local: (&Ip, u16), remote: (&Ip, u16)) -> u32 {
        let ports = u64::from(local.1) << 16 | u64::from(remote.1);
        self.fold3(halves(local.0), halves(remote.0), ports)
    }

    /// Of a local address and port.
    #[inline]
    #[must_use]
    pub fn endpoint(&self, local: (&Ip, u16)) -> u32 {
        self.fold3(halves(local.0), [0; 2], u64::from(local.1))
    }

    /// Of any few words.
    #[must_use]
    pub fn words(&self, words: &[u64]) -> u32 {
        let start = self.0[0] ^ PI[3];
        let hash = words.iter().fold(start, |hash, word| fold(hash ^ word, self.0[1] ^ PI[4]));
        (hash >> 32) as u32 ^ hash as u32
    }

    #[inline]
    fn fold3(&self, a: [u64; 2], b: [u64; 2], c: u64) -> u32 {
        let [low, high] = self.0;
        // The ports lie over the first half of the local address: that one nobody else chooses.
        let a = fold(a[0] ^ c ^ low ^ PI[0], a[1] ^ high ^ PI[1]);
        let b = fold(b[0] ^ high ^ PI[2], b[1] ^ low ^ PI[3]);
        let hash = fold(a, b ^ PI[4]);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// SipHash of a purpose and up to seven words.
    #[must_use]
    pub fn outside(&self, purpose: Purpose, words: &[u64]) -> u64 {
        debug_assert!(words.len() <= 7);
        let mut message = [purpose as u64; 8];
        let length = message.iter_mut().skip(1).zip(words).map(|(to, word)| *to = word.to_le()).count();
        message[0] = (purpose as u64).to_le();
        siphash(&self.0, message[..=length].as_bytes())
    }

    /// The same of a connection.
    #[must_use]
    pub fn outside_tuple(&self, purpose: Purpose, local: (&Ip, u16), remote: (&Ip, u16)) -> u64 {
        let ([a, b], [c, d]) = (halves(local.0), halves(remote.0));
        self.outside(purpose, &[a, b, c, d, u64::from(local.1) << 16 | u64::from(remote.1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::steps;

    /// Chi-square of the buckets; its standard deviation is about √(2·buckets).
    fn deviation(hashes: impl Iterator<Item = u32>, buckets: usize) -> f64 {
        let (mut counts, mut all) = (vec![0u32; buckets], 0.0);
        for hash in hashes {
            counts[hash as usize % buckets] += 1;
            all += 1.0;
        }
        let expected = all / buckets as f64;
        let square = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        (counts.iter().map(square).sum::<f64>() - buckets as f64) / (2.0 * buckets as f64).sqrt()
    }

    const LOCAL: Ip = Ip::v4([192, 0, 2, 1]);

    #[test]
    fn neighbours_spread_over_the_buckets() {
        // Sixteen in each bucket.
        let buckets = steps(4096) as usize;
        let numbers = || 0..=(steps(1 << 16) - 1) as u16;
        for secret in [Secret([0, 0]), Secret([1, 2]), Secret([u64::MAX, 0x0123_4567_89ab_cdef])] {
            let ports = numbers().map(|port| secret.tuple((&LOCAL, 80), (&Ip::v4([10, 0, 0, 1]), port)));
            let hosts = numbers().map(|host| {
                let [a, b] = host.to_be_bytes();
                secret.tuple((&LOCAL, 80), (&Ip::v4([10, 0, a, b]), 40_000))
            });
            let sixes = numbers().map(|host| {
                let [a, b] = host.to_be_bytes();
                let remote = Ip([0x20, 1, 0xd, 0xb8, 0, 0, a, b, 0, 0, 0, 0, 0, 0, 0, 1]);
                secret.tuple((&Ip([0xfe; 16]), 443), (&remote, 40_000))
            });
            let both = numbers().map(|n| {
                let host = Ip::v4([10, 0, 0, (n >> 8) as u8]);
                secret.tuple((&LOCAL, 80), (&host, 32_768 + (n & 0xff)))
            });
            let endpoints = numbers().map(|port| secret.endpoint((&Ip::UNSPECIFIED_V4, port)));
            for (what, deviation) in [
                ("ports", deviation(ports, buckets)),
                ("hosts", deviation(hosts, buckets)),
                ("networks", deviation(sixes, buckets)),
                ("hosts and ports", deviation(both, buckets)),
                ("endpoints", deviation(endpoints, buckets)),
            ] {
                assert!(deviation.abs() < 6.0, "{what} under {:x?}: {deviation} σ", secret.0);
            }
        }
    }

    #[test]
    fn every_bit_of_the_input_moves_half_of_the_hash() {
        let (secret, zero) = (Secret([3, 5]), ([0u8; 16], [0u8; 16], [0u16; 2]));
        let hash = |(local, remote, ports): &([u8; 16], [u8; 16], [u16; 2])| {
            secret.tuple((&Ip(*local), ports[0]), (&Ip(*remote), ports[1]))
        };
        for bit in 0..288 {
            let mut moved = 0;
            for base in 0..64u8 {
                let mut input = zero;
                input.0[3] = base;
                input.1[15] = base.wrapping_mul(41);
                let before = hash(&input);
                match bit {
                    0..128 => input.0[bit / 8] ^= 1 << (bit % 8),
                    128..256 => input.1[bit / 8 - 16] ^= 1 << (bit % 8),
                    _ => input.2[(bit - 256) / 16] ^= 1 << (bit % 16),
                }
                moved += (before ^ hash(&input)).count_ones();
            }
            let share = f64::from(moved) / (64.0 * 32.0);
            assert!((0.4..0.6).contains(&share), "bit {bit} moves {share}");
        }
    }

    /// Connections that share a bucket under one secret don't under another.
    #[test]
    fn the_secret_chooses_the_buckets() {
        let hash = |secret: Secret, port| secret.tuple((&LOCAL, 80), (&Ip::v4([10, 0, 0, 1]), port));
        let (known, other) = (Secret([7, 11]), Secret([7, 12]));
        let chosen: Vec<u16> = (0..=u16::MAX).filter(|port| hash(known, *port) % 256 == 0).collect();
        assert!(chosen.len() > 128);
        let still = chosen.iter().filter(|port| hash(other, **port) % 256 == 0).count();
        assert!(still < chosen.len() / 16, "{still} of {}", chosen.len());
    }

    #[test]
    fn purposes_are_apart() {
        let secret = Secret([1, 2]);
        assert_ne!(secret.outside(Purpose::Draw, &[1]), secret.outside(Purpose::FastOpen, &[1]));
        assert_ne!(secret.outside(Purpose::Draw, &[1]), secret.outside(Purpose::Draw, &[1, 0]));
        assert_ne!(secret.outside(Purpose::Draw, &[1]), Secret([2, 1]).outside(Purpose::Draw, &[1]));
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
