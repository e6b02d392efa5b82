//! SipHash-2-4 with 64 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): two rounds
//! for each word of the message, four at the end.

/// A secret of 128 bits.
pub type Key = [u64; 2];

struct State([u64; 4]);

impl State {
    #[inline]
    fn round(&mut self) {
        let v = &mut self.0;
        v[0] = v[0].wrapping_add(v[1]);
        v[2] = v[2].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[1]);
        v[0] = v[0].wrapping_add(v[3]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }
}

/// The keyed hash of a message.
#[must_use]
pub fn siphash(key: &Key, message: &[u8]) -> u64 {
    // "somepseudorandomlygeneratedbytes", as the paper has it.
    let mut state = State([
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]);
    let (words, rest) = message.as_chunks::<8>();
    for word in words {
        state.word(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = message.len() as u8;
    state.word(u64::from_le_bytes(last));
    state.0[2] ^= 0xff;
    for _ in 0..4 {
        state.round();
    }
    state.0.into_iter().fold(0, |sum, word| sum ^ word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key 00 01 … 0f, message 00 01 … (appendix A of the paper and vectors.h of the authors' code).
    const KEY: Key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_authors_vectors_hold() {
        let vectors: [(usize, u64); 10] = [
            (0, 0x726f_db47_dd0e_0e31),
            (1, 0x74f8_39c5_93dc_67fd),
            (2, 0x0d6c_8009_d9a9_4f5a),
            (3, 0x8567_6696_d7fb_7e2d),
            (4, 0xcf27_94e0_2771_87b7),
            (5, 0x1876_5564_cd99_a68d),
            (6, 0xcbc9_466e_58fe_e3ce),
            (7, 0xab02_00f5_8b01_d137),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ];
        let message: Vec<u8> = (0..64).collect();
        for (len, expected) in vectors {
            assert_eq!(siphash(&KEY, &message[..len]), expected, "{len} bytes");
        }
    }

    #[test]
    fn it_is_the_function_of_the_standard_library() {
        #![allow(deprecated)]
        use std::hash::{Hasher, SipHasher};
        let message: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(37)).collect();
        for len in 0..message.len() {
            let mut reference = SipHasher::new_with_keys(7, 1 << 60);
            reference.write(&message[..len]);
            assert_eq!(siphash(&[7, 1 << 60], &message[..len]), reference.finish(), "{len} bytes");
        }
    }
}
