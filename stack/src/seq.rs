//! Sequence numbers (RFC 9293 §3.4): points on a circle of 2³², and lengths.

use core::ops::{Add, Sub};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A point in sequence space. Comparisons are modular, so there is no `Ord`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// `self < other` (RFC 9293 §3.4): true when `other` lies less than 2³¹ ahead.
    #[must_use]
    pub const fn lt(self, other: Self) -> bool {
        (other.0.wrapping_sub(self.0)).wrapping_sub(1) < 0x7fff_ffff
    }

    /// `self ≤ other`.
    #[must_use]
    pub const fn le(self, other: Self) -> bool {
        self.0 == other.0 || self.lt(other)
    }
}

impl Add<u32> for Seq {
    type Output = Self;
    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl Sub for Seq {
    type Output = u32;
    /// Octets from `other` up to `self`.
    fn sub(self, other: Self) -> u32 {
        self.0.wrapping_sub(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let before = Seq(u32::MAX - 1);
        let after = before + 5;
        assert!(before.lt(after) && before.le(after) && !after.lt(before));
        assert_eq!(after - before, 5);
        assert!(before.le(before) && !before.lt(before));
    }
}
