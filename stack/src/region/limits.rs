//! How many of everything a region has, and why one is refused.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::process::PROCESSES_MAX;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $least:literal..=$most:expr, $small:literal;)+) => {
        /// How many records of each kind a region has. Fixed when it is made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Limits {
            $($(#[doc = $doc])+ #[doc = concat!("\n\n", stringify!($least), " to ", stringify!($most), ".")] pub $name: u32,)+
        }

        /// Name, meaning, least and most of each limit.
        pub const LIMITS: &[(&str, &str, u32, u32)] =
            &[$((stringify!($name), concat!($($doc),+), $least, $most)),+];

        impl Limits {
            /// Enough for one program with some hundred connections.
            pub const SMALL: Self = Self { $($name: $small),+ };

            /// Each value, in the order of [`LIMITS`].
            #[must_use]
            pub const fn values(&self) -> [u32; LIMITS.len()] {
                [$(self.$name),+]
            }

            /// With these values, in the order of [`LIMITS`].
            #[must_use]
            pub const fn of([$($name),+]: [u32; LIMITS.len()]) -> Self {
                Self { $($name),+ }
            }
        }
    };
}

limits! {
    /// Sockets of TCP, listening ones and those in TIME-WAIT among them.
    tcp_sockets: 1..=1 << 26, 1024;
    /// Of those, how many can have something in their queues at one time: more than frames are of no use.
    traffics: 1..=1 << 26, 1024;
    /// Listening sockets.
    listeners: 1..=1 << 20, 64;
    /// SYNs that wait for their acknowledgment, of all listeners together.
    syns: 1..=1 << 24, 1024;
    /// Sockets of UDP.
    udp_sockets: 1..=1 << 24, 128;
    /// Multicast groups that sockets have joined.
    memberships: 0..=1 << 20, 64;
    /// Pairs of address and port that sockets are bound to.
    bounds: 1..=1 << 26, 1024;
    /// Different settings of options.
    settings: 1..=65_535, 256;
    /// Ranges of ports leased from the kernel.
    leases: 1..=65_536, 256;
    /// Addresses of our own.
    addresses: 1..=65_536, 16;
    /// Routes.
    routes: 1..=65_535, 64;
    /// Neighbours on the link.
    neighbours: 1..=65_534, 256;
    /// Datagrams whose fragments wait for each other.
    datagrams: 1..=65_536, 64;
    /// Fragments that wait.
    pieces: 1..=1 << 20, 256;
    /// Destinations of which something was learned.
    destinations: 1..=1 << 24, 256;
    /// Processes that share the region.
    processes: 1..=PROCESSES_MAX, 64;
    /// Frames of the device.
    frames: 1..=1 << 26, 4096;
    /// Bytes of a frame.
    frame_size: 2048..=65_536, 2048;
    /// Pageable blocks of 4 KiB, for data that waits while frames are scarce.
    blocks: 0..=1 << 24, 1024;
    /// Words of packets that a dump may read late ([`crate::device::tap`]).
    tap: 0..=1 << 26, 0;
}

impl Limits {
    /// Whether a region can have so many.
    ///
    /// # Errors
    /// The first limit that is out of its bounds.
    pub fn check(&self) -> Result<(), Refused> {
        for (value, (name, _, least, most)) in self.values().into_iter().zip(LIMITS) {
            if !(*least..=*most).contains(&value) {
                return Err(Refused::Limit { name, value, least: *least, most: *most });
            }
        }
        Ok(())
    }
}

/// Why bytes are not taken for a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They don't begin as a region does.
    Magic,
    /// It was made by another version of the stack.
    Version {
        /// That one.
        found: u32,
    },
    /// It isn't as large as it says, or as its limits need.
    Size {
        /// Bytes there, or that it says.
        found: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A limit is out of its bounds.
    Limit {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u32,
        /// The least that is allowed.
        least: u32,
        /// The most.
        most: u32,
    },
    /// They don't begin at a cache line.
    Alignment,
    /// It isn't finished, or was given up.
    State {
        /// What it says.
        found: u32,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => {
                write!(out, "these bytes are no region of a stack: they don't begin with its mark")
            }
            Self::Version { found } => {
                write!(
                    out,
                    "the region has layout {found}, and this stack knows layout {}",
                    super::layout::VERSION
                )
            }
            Self::Size { found, needed } => {
                write!(out, "the region has {found} bytes, and its limits need {needed}")
            }
            Self::Limit { name, value, least, most } => {
                write!(out, "a region can't have {value} {name}: {least} to {most} are possible")
            }
            Self::Alignment => write!(out, "a region must begin at a multiple of 64 bytes"),
            Self::State { found: 0 } => write!(out, "the region is still being made"),
            Self::State { .. } => write!(out, "the region was given up by those who used it"),
        }
    }
}

impl core::error::Error for Refused {}
