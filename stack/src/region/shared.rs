//! The shared part: words that anybody may read and write at any time, and what each of them is.

use core::sync::atomic::AtomicU64;

use super::limits::{Limits, Refused};
use crate::device::tap::{self, Tap};
use crate::events::log;
use crate::stats;

/// Words of a cache line: parts begin at one, so that two parties never fight for a line without need.
const LINE: usize = 8;

/// Kinds of work that a caller without the lock leaves for its holder, a list each.
pub const DEFERRED: usize = 8;

/// Cuts a part, and the rest of its last line, off the front of what is left.
fn cut<'a>(left: &mut &'a [AtomicU64], count: usize) -> Option<&'a [AtomicU64]> {
    let (part, rest) = left.split_at_checked(count.next_multiple_of(LINE))?;
    *left = rest;
    part.get(..count)
}

macro_rules! shared {
    ($($(#[doc = $doc:literal])+ $name:ident: |$limits:ident| $count:expr;)+) => {
        /// The shared part.
        #[derive(Clone, Copy, Debug)]
        pub struct Shared<'a> {
            $($(#[doc = $doc])+ pub $name: &'a [AtomicU64],)+
        }

        /// Name and meaning of each of its parts, in the order of their places.
        pub const SHARED: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+))),+];

        /// Words that these limits need. They were checked: no sum overflows.
        #[must_use]
        pub fn words(limits: &Limits) -> usize {
            let mut words = 0;
            $(words += { let $limits = limits; $count as usize }.next_multiple_of(LINE);)+
            words
        }

        impl<'a> Shared<'a> {
            /// The parts in these words, for the limits of the locked part.
            ///
            /// # Errors
            /// A limit that is out of its bounds, or words that are too few.
            pub fn split(words: &'a [AtomicU64], limits: &Limits) -> Result<Self, Refused> {
                limits.check()?;
                let found = 8 * words.len() as u64;
                let wrong = Refused::Size { found, needed: 8 * self::words(limits) as u64 };
                let mut left = words;
                Ok(Self {
                    $($name: {
                        let count = { let $limits = limits; $count as usize };
                        cut(&mut left, count).ok_or(wrong)?
                    },)+
                })
            }
        }
    };
}

shared! {
    /// The lock: process slot and thread of its holder, whether somebody waits.
    lock: |_limits| 1;
    /// The heads of lists of work that was left for the lock's holder.
    deferred: |_limits| DEFERRED;
    /// When the next timer is due, in nanoseconds; what a waiter sleeps until.
    deadline: |_limits| 1;
    /// When somebody last polled, in nanoseconds: a service thread stays away meanwhile.
    polled: |_limits| 1;
    /// The thread that sleeps until the device has something, for all of them; 0 is none.
    leader: |_limits| 1;
    /// The process that brings the kernel's tables into the stack's; 0 is none.
    mirror: |_limits| 1;
    /// Whether a system call is owed to the device, and which.
    kick: |_limits| 1;
    /// Threads of each process that sleep until its doorbell is rung.
    processes: |limits| limits.processes;
    /// How many entries the log of changes ever had; up to which of them those who sleep were told.
    changed: |_limits| 2;
    /// The log of changes ([`crate::events::log`]).
    changes: |_limits| log::ENTRIES;
    /// Readiness of each socket of TCP, with a counter of its edges.
    tcp_events: |limits| limits.tcp_sockets;
    /// Readiness of each socket of UDP.
    udp_events: |limits| limits.udp_sockets;
    /// Where each frame is: free, with the device, with a socket; and which use of it.
    frames: |limits| limits.frames;
    /// Counters ([`crate::stats`]).
    stats: |_limits| stats::WORDS;
    /// What dumps want ([`crate::device::tap`]).
    tap: |_limits| tap::HEAD;
    /// Packets for them.
    tapped: |limits| limits.tap;
}

impl<'a> Shared<'a> {
    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> stats::Stats<'a> {
        stats::Stats::new(self.stats)
    }

    /// Where packets are copied for dumps.
    #[must_use]
    pub fn tap(&self) -> Option<Tap<'a>> {
        Tap::new(self.tap, self.tapped)
    }
}
