//! The smallest value of a sliding window, kept in three values: Kathleen Nichols' filter, as in Linux's
//! lib/win_minmax.c.
//!
//! The best of the window, the best after that one, and the best after that: when the first has become too old, the
//! next is at hand. The second choice is of the second quarter of the window or later, the third of the second half.
//! Linux takes a new choice only if it has the same moment as the one before; if they are apart by a little it takes
//! none, and may forget the whole window at once. Here "in the first quarter" is enough.

use zerocopy::native_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Instant;

/// Nanoseconds of a unit of `at`, as a power of two: 134 ms. In 16 bits there are 2.4 hours of them.
const UNIT_BITS: u32 = 27;
/// Units of the window: 300 s (net.ipv4.tcp_min_rtt_wlen).
const WINDOW: u16 = (300_000_000_000u64 >> UNIT_BITS) as u16;

/// Values are positive; zero bytes are an empty window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Minimum {
    /// Without alignment: `Rtt` puts two bytes of its own behind these eighteen.
    values: [U32; 3],
    at: [u16; 3],
}

impl Minimum {
    /// The smallest value of the window.
    #[inline]
    pub(super) fn value(&self) -> Option<u32> {
        let value = self.values[0].get();
        (value != 0).then_some(value)
    }

    pub(super) fn update(&mut self, now: Instant, value: u32) {
        let at = (now.0 >> UNIT_BITS) as u16;
        let age = |stamp: u16| at.wrapping_sub(stamp);
        if self.value().is_none_or(|least| value <= least) || age(self.at[2]) > WINDOW {
            *self = Self { values: [value.into(); 3], at: [at; 3] };
            return;
        }
        if value <= self.values[1].get() {
            self.set_from(1, value, at);
        } else if value <= self.values[2].get() {
            self.set_from(2, value, at);
        }
        let apart = |choice: usize| self.at[choice].wrapping_sub(self.at[0]);
        if age(self.at[0]) > WINDOW {
            self.shift(value, at);
            // The second choice may be as old; the third is not.
            if age(self.at[0]) > WINDOW {
                self.shift(value, at);
            }
        } else if apart(1) <= WINDOW / 4 && age(self.at[0]) > WINDOW / 4 {
            self.set_from(1, value, at);
        } else if apart(2) <= WINDOW / 2 && age(self.at[0]) > WINDOW / 2 {
            self.set_from(2, value, at);
        }
    }

    /// Makes the choices from this one on the new value.
    fn set_from(&mut self, first: usize, value: u32, at: u16) {
        for choice in first..3 {
            (self.values[choice], self.at[choice]) = (value.into(), at);
        }
    }

    /// Drops the first choice.
    fn shift(&mut self, value: u32, at: u16) {
        self.values = [self.values[1], self.values[2], value.into()];
        self.at = [self.at[1], self.at[2], at];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        #![proptest_config(crate::testing::cases(256))]
        #[test]
        fn it_is_older_than_the_window_never_and_above_the_minimum_of_its_last_sixth_never(
            samples in proptest::collection::vec((1u64..20, 1u32..1_000_000), 1..200),
        ) {
            let (mut minimum, mut now, mut all) = (Minimum::default(), 0, Vec::new());
            for (seconds, value) in samples {
                now += seconds * SECOND;
                minimum.update(Instant(now), value);
                all.push((now, value));
                let least = |length: u64| {
                    all.iter().filter(|(at, _)| now - at <= length * SECOND).map(|(_, value)| *value).min()
                };
                let got = minimum.value().expect("a value");
                prop_assert!(Some(got) >= least(301), "{got} is older than the window");
                prop_assert!(Some(got) <= least(50), "{got} is above what was just seen");
            }
        }
    }

    #[test]
    fn an_old_minimum_is_forgotten() {
        let mut minimum = Minimum::default();
        minimum.update(Instant(0), 10);
        for second in 1..=299 {
            minimum.update(Instant(second * SECOND), 50);
        }
        assert_eq!(minimum.value(), Some(10));
        minimum.update(Instant(301 * SECOND), 50);
        assert_eq!(minimum.value(), Some(50));
    }

    #[test]
    fn the_best_of_each_quarter_is_at_hand_when_the_first_is_too_old() {
        let mut minimum = Minimum::default();
        minimum.update(Instant(0), 10);
        for second in 70..=302 {
            minimum.update(Instant(second * SECOND), if second < 140 { 50 } else { 100 });
        }
        assert_eq!(minimum.value(), Some(50), "it was met 160 s ago");
    }
}
