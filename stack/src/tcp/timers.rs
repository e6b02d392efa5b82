//! The timers of a connection: which there are, and when the next of them expires. What their lengths are is in
//! [`delayed_ack`], [`keepalive`] and [`limits`], and for loss in [`super::rtt`] and [`super::recovery`].
//!
//! Timers of which only one can be running share a place, as Linux's do: whatever waits for the peer's
//! acknowledgment, and whatever waits for a peer that is silent; a tail loss probe or a reordering window that
//! expires arms the retransmission timer again. The wheel has one entry for each connection, for [`Timers::next`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Instant;

pub mod delayed_ack;
pub mod keepalive;
pub mod limits;

/// The timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Timer {
    /// Retransmission (RFC 6298 §5).
    Rto = 1,
    /// Tail loss probe (RFC 8985 §7).
    Tlp = 2,
    /// RACK's reordering window (RFC 8985 §6.2 step 5).
    Reorder = 3,
    /// Probe of a zero window, and the override of silly-window avoidance (RFC 9293 §3.8.6.1, §3.8.6.2.1).
    Persist = 4,
    /// Delayed acknowledgment (RFC 9293 §3.8.6.3).
    DelayedAck = 5,
    /// Probe of a silent peer (RFC 9293 §3.8.4).
    Keepalive = 6,
    /// The end of an abandoned FIN-WAIT-2.
    FinWait2 = 7,
    /// 2 MSL (RFC 9293 §3.6.1).
    TimeWait = 8,
    /// The user's limit for data without acknowledgment (RFC 9293 §3.9.1.1, RFC 5482).
    UserTimeout = 9,
    /// The next burst may leave.
    Pacing = 10,
}

impl Timer {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Rto,
        Self::Tlp,
        Self::Reorder,
        Self::Persist,
        Self::DelayedAck,
        Self::Keepalive,
        Self::FinWait2,
        Self::TimeWait,
        Self::UserTimeout,
        Self::Pacing,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    /// Where it is kept. Of those in one place, arming one disarms the others.
    #[inline]
    const fn place(self) -> usize {
        match self {
            // What gives up comes first when several expire at once: nothing is sent for a connection that ends.
            Self::UserTimeout => 0,
            Self::Keepalive | Self::FinWait2 | Self::TimeWait => 1,
            Self::Rto | Self::Tlp | Self::Reorder | Self::Persist => 2,
            Self::DelayedAck => 3,
            Self::Pacing => 4,
        }
    }
}

const PLACES: usize = 5;

/// Deadlines. Zero bytes are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timers {
    /// In nanoseconds; 0 is none.
    deadlines: [u64; PLACES],
    /// Which [`Timer`] of its place runs.
    running: [u8; PLACES],
    spare: u8,
    /// The least retransmission timeout by the route, in milliseconds; 0 if it says nothing.
    pub rto_min_ms: u16,
}

const _: () = assert!(size_of::<Timers>() == 48);

impl Timers {
    /// Starts a timer, or restarts it; another one in its place stops.
    #[inline]
    pub fn arm(&mut self, timer: Timer, at: Instant) {
        let place = timer.place();
        self.deadlines[place] = at.0.max(1);
        self.running[place] = timer as u8;
    }

    /// Stops a timer, if it runs.
    #[inline]
    pub fn disarm(&mut self, timer: Timer) {
        let place = timer.place();
        if self.running[place] == timer as u8 {
            self.deadlines[place] = 0;
        }
    }

    /// Stops all of them.
    pub fn disarm_all(&mut self) {
        *self = Self { rto_min_ms: self.rto_min_ms, ..Self::default() };
    }

    /// When it expires, if it runs.
    #[inline]
    #[must_use]
    pub fn at(&self, timer: Timer) -> Option<Instant> {
        let place = timer.place();
        let runs = self.running[place] == timer as u8 && self.deadlines[place] != 0;
        runs.then_some(Instant(self.deadlines[place]))
    }

    /// When the first of them expires.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.deadlines.into_iter().filter(|deadline| *deadline != 0).min().map(Instant)
    }

    /// Stops one that has expired, and tells which: call until there is none. Those that end a connection come first.
    pub fn expired(&mut self, now: Instant) -> Option<Timer> {
        for place in 0..PLACES {
            let deadline = self.deadlines[place];
            if deadline != 0 && deadline <= now.0 {
                self.deadlines[place] = 0;
                // A byte that is no timer of this place is one that does not run.
                let timer = Timer::from_byte(self.running[place]).filter(|timer| timer.place() == place);
                if timer.is_some() {
                    return timer;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
