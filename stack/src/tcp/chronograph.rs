//! What a sender waits for, and how long in all: TCP_INFO's busy_time, rwnd_limited and sndbuf_limited (Linux's tcp_chrono_start
//! and tcp_chrono_stop). One cause at a time: a full buffer counts before a window, and that before text on its way.
//!
//! In milliseconds of the clock, as in Linux, whose ticks are no finer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Cause {
    /// Nothing: all is acknowledged.
    None = 0,
    /// Acknowledgments, or the congestion window (TCP_CHRONO_BUSY).
    Path = 1,
    /// The peer's window (TCP_CHRONO_RWND_LIMITED).
    Window = 2,
    /// The user can't write more, and all that there is was sent (TCP_CHRONO_SNDBUF_LIMITED).
    Buffer = 3,
}

/// What is waited for now. Zero bytes are nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Chronograph {
    /// Milliseconds at which that began.
    since: u32,
    /// A [`Cause`].
    cause: u16,
    /// Not used.
    spare: u16,
}

/// How long each cause was waited for, in milliseconds, in the order of [`Cause`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Waited([u32; 3]);

impl Waited {
    fn add(&mut self, cause: u16, ms: u32) {
        if let Some(sum) = usize::from(cause).checked_sub(1).and_then(|place| self.0.get_mut(place)) {
            *sum = sum.wrapping_add(ms);
        }
    }
}

impl Chronograph {
    /// Whether this is what is waited for.
    #[inline]
    #[must_use]
    pub const fn is(&self, cause: Cause) -> bool {
        self.cause == cause as u16
    }

    /// Text is on its way, and there was none.
    #[inline]
    pub const fn begin(&mut self, now_ms: u32) {
        *self = Self { since: now_ms, cause: Cause::Path as u16, spare: 0 };
    }

    /// All is acknowledged.
    #[inline]
    pub fn end(&mut self, now_ms: u32, waited: &mut Waited) {
        if self.is(Cause::Path) {
            let [path, ..] = &mut waited.0;
            *path = path.wrapping_add(now_ms.wrapping_sub(self.since));
            self.cause = Cause::None as u16;
        } else {
            self.set(Cause::None, now_ms, waited);
        }
    }

    /// From now on something else is waited for.
    pub fn set(&mut self, cause: Cause, now_ms: u32, waited: &mut Waited) {
        if !self.is(cause) {
            waited.add(self.cause, now_ms.wrapping_sub(self.since));
            (self.since, self.cause) = (now_ms, cause as u16);
        }
    }

    /// How long each was waited for until now, the current one with it: in all, for the window, and for the buffer.
    #[must_use]
    pub fn read(&self, now_ms: u32, waited: &Waited) -> [u64; 3] {
        let mut waited = *waited;
        waited.add(self.cause, now_ms.wrapping_sub(self.since));
        let [path, window, buffer] = waited.0.map(u64::from);
        [path + window + buffer, window, buffer]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_at_a_time_is_counted_and_the_first_number_is_all() {
        let (mut chronograph, mut waited) = (Chronograph::default(), Waited::default());
        let start = u32::MAX - 3;
        chronograph.set(Cause::Path, start, &mut waited);
        chronograph.set(Cause::Path, start.wrapping_add(1), &mut waited);
        assert_eq!(
            chronograph.read(start.wrapping_add(5), &waited),
            [5, 0, 0],
            "across the wrap of the clock"
        );
        chronograph.set(Cause::Window, start.wrapping_add(5), &mut waited);
        chronograph.set(Cause::Buffer, start.wrapping_add(8), &mut waited);
        chronograph.set(Cause::None, start.wrapping_add(20), &mut waited);
        assert_eq!(chronograph.read(start.wrapping_add(1000), &waited), [20, 3, 12]);
        chronograph.begin(start.wrapping_add(1000));
        assert_eq!(chronograph.read(start.wrapping_add(1001), &waited), [21, 3, 12]);
        chronograph.end(start.wrapping_add(1002), &mut waited);
        assert_eq!(chronograph.read(start.wrapping_add(2000), &waited), [22, 3, 12]);
    }

    #[test]
    fn a_cause_that_is_none_is_not_counted() {
        let (mut chronograph, mut waited) =
            (Chronograph { since: 0, cause: 77, spare: 0 }, Waited::default());
        chronograph.set(Cause::Path, 500, &mut waited);
        assert_eq!(chronograph.read(500, &waited), [0; 3]);
    }
}
