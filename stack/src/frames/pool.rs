//! How many frames there are, and who may have how many.
//!
//! Frames are charged whole: a byte in a 2 KiB frame is 2 KiB. A socket has a limit for each direction (SO_RCVBUF,
//! SO_SNDBUF); all sockets together have the three thresholds of tcp_mem (Linux: Documentation/networking/ip-sysctl.rst); and two
//! reserves are out of every socket's reach: the fill ring's, without which no acknowledgement would arrive that
//! frees the others, and control's (ACK, RST, FIN, SYN, ARP), without which no peer would send one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Frames that a socket may have even under pressure, as Linux grants a first page to each (`__sk_mem_raise_allocated`).
pub const MINIMUM: u32 = 2;

/// The numbers of frames by which the pool decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limits {
    /// Frames that are in the fill ring or kept for it.
    pub fill_min: u32,
    /// Frames that only control packets get, besides those.
    pub control_min: u32,
    /// Charged to sockets: pressure ends below it.
    pub low: u32,
    /// Charged to sockets: pressure begins above it.
    pub pressure: u32,
    /// Charged to sockets: beyond it a socket gets no more than [`MINIMUM`].
    pub high: u32,
}

impl Limits {
    /// For so many frames: an eighth of them for reception and a sixteenth for control, but not more than 4096 and
    /// 256; pressure begins at three quarters of the rest and ends at half of it.
    #[must_use]
    pub const fn of(frames: u32) -> Self {
        let fill_min = if frames / 8 < 4096 { frames / 8 } else { 4096 };
        let control_min = if frames / 16 < 256 { frames / 16 } else { 256 };
        let rest = frames - fill_min - control_min;
        Self { fill_min, control_min, low: rest / 2, pressure: rest - rest / 4, high: rest - rest / 8 }
    }
}

/// Frames of one direction of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Charge {
    /// Frames that it has.
    pub frames: u32,
    /// Frames that it may have.
    pub limit: u32,
}

/// Why a frame was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The socket has as many as it may have.
    Socket,
    /// All sockets together have too many, and this one more than its share: its data goes to blocks.
    Pressure,
    /// There are none but the reserves.
    Frames,
}

/// The state of the pool. Zero bytes are one whose frames are all free, without reserves, and whose sockets get
/// [`MINIMUM`] each: [`Pool::new`] gives it its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pool {
    /// The first free frame that was used before, plus one; 0 is none.
    pub(super) free: u32,
    /// Frames from here on were never used.
    pub(super) fresh: u32,
    /// Frames that aren't free.
    pub(super) used: u32,
    /// Frames into which the device receives.
    pub(super) fill: u32,
    /// Frames charged to sockets.
    pub(super) charged: u32,
    /// Directions of sockets that are charged for at least one frame.
    holders: u32,
    /// 1 under pressure.
    in_pressure: u32,
    /// Frames that recovery put aside.
    pub(super) quarantined: u32,
    /// By what it decides.
    pub limits: Limits,
    /// Times that pressure began, which nobody has counted yet.
    pub(crate) entered: u32,
}

/// What a frame is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The fill ring.
    Fill,
    /// A packet without anybody's data.
    Control,
}

impl Pool {
    /// A pool of frames that are all free.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Frames that aren't free.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Frames into which the device receives.
    #[must_use]
    pub const fn filled(&self) -> u32 {
        self.fill
    }

    /// Frames charged to sockets.
    #[must_use]
    pub const fn charged(&self) -> u32 {
        self.charged
    }

    /// Whether sockets have so many frames that their data should go to blocks and their windows shrink.
    #[must_use]
    pub const fn is_under_pressure(&self) -> bool {
        self.in_pressure != 0
    }

    /// A pool whose free list is to be made again.
    pub(super) fn rebuilt(limits: Limits, charged: u32, holders: u32) -> Self {
        let in_pressure = u32::from(charged > limits.pressure);
        Self { charged, holders, in_pressure, limits, ..Self::default() }
    }

    /// Frames that the fill ring lacks of its share.
    const fn missing(&self) -> u32 {
        self.limits.fill_min.saturating_sub(self.fill)
    }

    /// Whether a frame can be taken for a purpose of the stack's own, `available` being the free ones.
    pub(super) const fn may_take(&self, purpose: Purpose, available: u32) -> bool {
        match purpose {
            // The ring's share comes before all else; what it gets beyond its share leaves control's alone.
            Purpose::Fill if self.fill < self.limits.fill_min => available > 0,
            Purpose::Fill => available > self.limits.control_min,
            Purpose::Control => available > self.missing(),
        }
    }

    /// Of the free frames those that sockets may have.
    pub(super) const fn beyond_reserves(&self, available: u32) -> u32 {
        available.saturating_sub(self.missing().saturating_add(self.limits.control_min))
    }

    /// Whether a direction of a socket may have one more frame, when `available` will be free then.
    pub(super) fn may_charge(&self, charge: Charge, available: u32) -> Result<(), Shortage> {
        if available < self.missing().saturating_add(self.limits.control_min) {
            return Err(Shortage::Frames);
        }
        if charge.frames >= charge.limit {
            return Err(Shortage::Socket);
        }
        if charge.frames < MINIMUM {
            return Ok(());
        }
        // Under pressure a socket that has less than its share is still served (`__sk_mem_raise_allocated`).
        let share = u64::from(charge.frames) * u64::from(self.holders);
        let high = u64::from(self.limits.high);
        if u64::from(self.charged) >= high || (self.is_under_pressure() && share >= high) {
            return Err(Shortage::Pressure);
        }
        Ok(())
    }

    pub(super) fn charge(&mut self, charge: &mut Charge) {
        self.holders = self.holders.wrapping_add(u32::from(charge.frames == 0));
        charge.frames = charge.frames.wrapping_add(1);
        self.charged = self.charged.wrapping_add(1);
        if self.charged > self.limits.pressure && self.in_pressure == 0 {
            self.in_pressure = 1;
            self.entered = self.entered.wrapping_add(1);
        }
    }

    /// What was charged to one is another one's.
    pub(crate) fn merge(&mut self, from: &mut Charge, to: &mut Charge) {
        let holders = |charge: &Charge| u32::from(charge.frames > 0);
        let before = holders(from) + holders(to);
        to.frames = to.frames.wrapping_add(core::mem::take(&mut from.frames));
        self.holders = self.holders.wrapping_sub(before).wrapping_add(holders(to));
    }

    pub(super) fn uncharge(&mut self, charge: &mut Charge) {
        self.holders = self.holders.wrapping_sub(u32::from(charge.frames == 1));
        charge.frames = charge.frames.wrapping_sub(1);
        self.charged = self.charged.wrapping_sub(1);
        if self.charged < self.limits.low {
            self.in_pressure = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_above_one_threshold_and_ends_below_another() {
        let limits = Limits { fill_min: 0, control_min: 0, low: 3, pressure: 5, high: 8 };
        let (mut pool, mut charge) = (Pool::new(limits), Charge { frames: 0, limit: 100 });
        let mut turns = Vec::new();
        for _ in 0..6 {
            pool.charge(&mut charge);
            turns.push(pool.is_under_pressure());
        }
        for _ in 0..4 {
            pool.uncharge(&mut charge);
            turns.push(pool.is_under_pressure());
        }
        assert_eq!(turns, [false, false, false, false, false, true, true, true, true, false]);
    }

    #[test]
    fn under_pressure_who_has_less_than_a_share_is_served() {
        let limits = Limits { fill_min: 0, control_min: 0, low: 3, pressure: 5, high: 12 };
        let mut pool = Pool::new(limits);
        let [mut large, mut small] = [Charge { frames: 0, limit: 100 }; 2];
        (0..8).for_each(|_| pool.charge(&mut large));
        (0..3).for_each(|_| pool.charge(&mut small));
        assert_eq!(pool.may_charge(large, 50), Err(Shortage::Pressure), "8 of 12 by two");
        assert_eq!(pool.may_charge(small, 50), Ok(()), "3 of 12 by two");
        pool.charge(&mut small);
        assert_eq!(pool.may_charge(small, 50), Err(Shortage::Pressure), "beyond the highest threshold");
        assert_eq!(pool.may_charge(Charge { frames: 1, limit: 9 }, 50), Ok(()), "the least that each has");
        assert_eq!(pool.may_charge(Charge { frames: 1, limit: 1 }, 50), Err(Shortage::Socket));
    }

    #[test]
    fn the_reserves_are_out_of_reach() {
        let limits = Limits { fill_min: 8, control_min: 4, low: 50, pressure: 60, high: 70 };
        let mut pool = Pool::new(limits);
        let charge = Charge { frames: 0, limit: 10 };
        pool.fill = 5;
        assert_eq!(pool.may_charge(charge, 6), Err(Shortage::Frames), "3 are missing, 4 are control's");
        assert_eq!(pool.may_charge(charge, 7), Ok(()));
        assert!(!pool.may_take(Purpose::Control, 3) && pool.may_take(Purpose::Control, 4));
        assert!(pool.may_take(Purpose::Fill, 1) && !pool.may_take(Purpose::Fill, 0));
        pool.fill = 8;
        assert!(!pool.may_take(Purpose::Fill, 4) && pool.may_take(Purpose::Fill, 5));
        assert!(pool.may_take(Purpose::Control, 1));
    }

    #[test]
    fn limits_leave_something_for_sockets() {
        for frames in [0, 1, 15, 16, 64, 1000, 4096, 1 << 20, u32::MAX] {
            let limits = Limits::of(frames);
            assert!(limits.fill_min + limits.control_min <= frames);
            assert!(limits.low <= limits.pressure && limits.pressure <= limits.high);
            assert!(limits.high <= frames - limits.fill_min - limits.control_min);
        }
    }
}
