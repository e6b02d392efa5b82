//! The locked part: its rows, where each of them is, and the view of all of them at once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::limits::{Limits, Refused};
use super::slab::Slab;
use super::table::{Place, Table};
use super::wheel::{Wheel, due};
use crate::frames::FrameRecord;
use crate::frames::blocks::Block;
use crate::frames::pool::{self, Pool};
use crate::hash::Secret;
use crate::host::Host;
use crate::ip;
use crate::ip::destination::Destination;
use crate::ip::group::{Group, Source};
use crate::ip::icmp::limit::Bucket;
use crate::ip::neighbour::Neighbour;
use crate::ip::path_mtu::Path;
use crate::ip::reassembly::{Datagram, Piece};
use crate::ip::route::Route;
use crate::ip::route::source::Address;
use crate::ports::{Bound, Heads, Lease};
use crate::process::Process;
use crate::recover::Intent;
use crate::settings::Settings;
use crate::tcp::fast_open::FastOpen;
use crate::tcp::listener::{Listener, SynEntry};
use crate::tcp::saved_syn::{SavedSyn, WAYS};
use crate::tcp::tcb::{Left, Resting, Seldom, Sending, Tcb, Traffic};
use crate::time::Instant;
use crate::udp::{Membership, UdpSocket};

/// The first bytes of a region.
pub const MAGIC: [u8; 8] = *b"accelstk";
/// Of this layout; another one for every change of a record or a row.
pub const VERSION: u32 = 8;
/// Parts begin at cache lines.
pub const LINE: usize = 64;

/// What a region says about itself, in its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: u32,
    /// 0 while it is being made, then [`Header::READY`], at last [`Header::GIVEN_UP`].
    pub state: u32,
    /// Bytes of the locked part.
    pub size: u64,
    /// Words of the shared part.
    pub shared_words: u64,
    /// For hashes, ports, sequence numbers and cookies.
    pub secret: Secret,
    /// How many of everything.
    pub limits: Limits,
    /// Bits: [`Header::LONG_WAY`].
    pub modes: u64,
}

impl Header {
    /// No segment and no call takes a short way ([`crate::tcp::predicted`]): what they do differently is to be found out.
    pub const LONG_WAY: u64 = 1;
    /// In use.
    pub const READY: u32 = 1;
    /// Found broken, and left by everybody.
    pub const GIVEN_UP: u32 = 2;
}

/// Where a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the region's beginning.
    pub offset: usize,
    /// Records.
    pub count: usize,
    /// Bytes of a record.
    pub record: usize,
}

impl Span {
    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.count * self.record
    }
}

/// The state of every slab of the locked part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slabs {
    /// Of [`Parts::tcbs`].
    pub tcbs: Slab,
    /// Of [`Parts::listeners`].
    pub listeners: Slab,
    /// Of [`Parts::syns`].
    pub syns: Slab,
    /// Of [`Parts::udp_sockets`].
    pub udp_sockets: Slab,
    /// Of [`Parts::memberships`].
    pub memberships: Slab,
    /// Of [`Parts::bounds`].
    pub bounds: Slab,
    /// Of [`Parts::settings`].
    pub settings: Slab,
    /// Of [`Parts::leases`].
    pub leases: Slab,
    /// Of [`Parts::destinations`].
    pub destinations: Slab,
    /// Of [`Parts::processes`].
    pub processes: Slab,
    /// Of [`Parts::traffics`].
    pub traffics: Slab,
    /// Of [`Parts::blocks`].
    pub blocks: Slab,
    /// Of [`Parts::group_sources`].
    pub group_sources: Slab,
}

/// The wheels.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wheels {
    /// Of [`Parts::tcbs`].
    pub tcbs: Wheel,
    /// Of [`Parts::syns`].
    pub syns: Wheel,
    /// Of [`Parts::neighbours`].
    pub neighbours: Wheel,
}

impl Wheels {
    /// A moment in nanoseconds before which none of them fires; the largest number is never.
    #[inline]
    pub fn due(&mut self) -> u64 {
        due(self.tcbs.soonest().min(self.syns.soonest()).min(self.neighbours.soonest()))
    }

    /// Time goes on, and none is due.
    #[inline]
    pub fn pass(&mut self, now: Instant) {
        self.tcbs.pass(now);
        self.syns.pass(now);
        self.neighbours.pass(now);
    }
}

const fn places(records: u32) -> usize {
    Table::places_for(records)
}

/// Reserves room for a part, from the next line on.
fn reserve<R>(end: &mut usize, count: usize) -> Option<Span> {
    let span = Span { offset: end.checked_next_multiple_of(LINE)?, count, record: size_of::<R>() };
    *end = count.checked_mul(span.record)?.checked_add(span.offset)?;
    Some(span)
}

/// Cuts a part off the front of what is left; `at` is where that begins.
fn cut<'a>(left: &mut &'a mut [u8], at: &mut usize, span: Span) -> Option<&'a mut [u8]> {
    let (_, rest) = core::mem::take(left).split_at_mut_checked(span.offset.checked_sub(*at)?)?;
    let (part, rest) = rest.split_at_mut_checked(span.size())?;
    (*left, *at) = (rest, span.offset + span.size());
    Some(part)
}

macro_rules! parts {
    (
        one { $($(#[doc = $one_doc:literal])+ $one:ident: $One:ty;)+ }
        many { $($(#[doc = $many_doc:literal])+ $many:ident: $Many:ty, |$limits:ident| $count:expr;)+ }
    ) => {
        /// Where every part is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Layout {
            $($(#[doc = $one_doc])+ pub $one: Span,)+
            $($(#[doc = $many_doc])+ pub $many: Span,)+
            /// Bytes of them all.
            pub size: usize,
            /// What it was made for.
            pub limits: Limits,
        }

        /// Name and meaning of each part, in the order of their places.
        pub const PARTS: &[(&str, &str)] = &[
            $((stringify!($one), concat!($($one_doc),+)),)+
            $((stringify!($many), concat!($($many_doc),+)),)+
        ];

        /// The locked part.
        #[derive(Debug)]
        pub struct Parts<'a> {
            $($(#[doc = $one_doc])+ pub $one: &'a mut $One,)+
            $($(#[doc = $many_doc])+ pub $many: &'a mut [$Many],)+
        }

        impl Layout {
            /// For these limits.
            ///
            /// # Errors
            /// The limit that is out of its bounds; or the size, if this machine can't address it.
            pub fn new(limits: &Limits) -> Result<Self, Refused> {
                limits.check()?;
                Self::place(limits).ok_or(Refused::Size { found: usize::MAX as u64, needed: u64::MAX })
            }

            fn place(limits: &Limits) -> Option<Self> {
                let mut end = 0;
                Some(Self {
                    $($one: reserve::<$One>(&mut end, 1)?,)+
                    $($many: reserve::<$Many>(&mut end, { let $limits = limits; $count })?,)+
                    size: end.checked_next_multiple_of(LINE).filter(|size| isize::try_from(*size).is_ok())?,
                    limits: *limits,
                })
            }

            /// Every part's place, in the order of [`PARTS`].
            #[must_use]
            pub const fn spans(&self) -> [Span; PARTS.len()] {
                [$(self.$one,)+ $(self.$many,)+]
            }
        }

        impl<'a> Parts<'a> {
            /// The parts in these bytes.
            ///
            /// # Errors
            /// The alignment or the size, if they don't fit.
            pub fn split(bytes: &'a mut [u8], layout: &Layout) -> Result<Self, Refused> {
                const { $(assert!(align_of::<$One>() <= LINE);)+ $(assert!(align_of::<$Many>() <= LINE);)+ }
                let found = bytes.len() as u64;
                let wrong = Refused::Size { found, needed: layout.size as u64 };
                if bytes.len() < layout.size {
                    return Err(wrong);
                }
                let (mut left, mut at) = (bytes, 0);
                Ok(Self {
                    $($one: {
                        let part = cut(&mut left, &mut at, layout.$one).ok_or(wrong)?;
                        <$One>::mut_from_bytes(part).map_err(|_| Refused::Alignment)?
                    },)+
                    $($many: {
                        let part = cut(&mut left, &mut at, layout.$many).ok_or(wrong)?;
                        <[$Many]>::mut_from_bytes(part).map_err(|_| Refused::Alignment)?
                    },)+
                })
            }
        }
    };
}

parts! {
    one {
        /// What the region says about itself.
        header: Header;
        /// What an administrator has set.
        host: Host;
        /// What the holder of the lock is about to change.
        intent: Intent;
        /// The slabs' own state.
        slabs: Slabs;
        /// The timer wheels.
        wheels: Wheels;
        /// Ports in use, by number.
        port_heads: Heads;
        /// Queues that rest.
        resting: Resting;
        /// Who sends, and who waits until it may.
        sending: Sending;
        /// How many connections nobody uses.
        left: Left;
        /// How many frames there are, and for whom.
        pool: Pool;
        /// The interface, and the state of the tables of IP.
        ip: ip::State;
        /// Keys of fast open, and what is known of its failures.
        fast_open: FastOpen;
    }
    many {
        /// Sockets of TCP.
        tcbs: Tcb, |limits| limits.tcp_sockets as usize;
        /// What of them is seldom touched, under the same index.
        seldoms: Seldom, |limits| limits.tcp_sockets as usize;
        /// Queues of those that have something in them.
        traffics: Traffic, |limits| limits.traffics as usize;
        /// Connections by both ends.
        tcp_places: Place, |limits| places(limits.tcp_sockets);
        /// Listening sockets' queues.
        listeners: Listener, |limits| limits.listeners as usize;
        /// Listening sockets by address and port.
        listener_places: Place, |limits| places(limits.listeners);
        /// SYNs that wait.
        syns: SynEntry, |limits| limits.syns as usize;
        /// SYNs by both ends.
        syn_places: Place, |limits| places(limits.syns);
        /// SYNs that are kept for those who accept their connections.
        saved_syns: SavedSyn, |limits| (limits.syns as usize).next_multiple_of(WAYS);
        /// Sockets of UDP.
        udp_sockets: UdpSocket, |limits| limits.udp_sockets as usize;
        /// Sockets of UDP with a peer, by both ends.
        udp_pair_places: Place, |limits| places(limits.udp_sockets);
        /// Sockets of UDP without a peer, by address and port.
        udp_places: Place, |limits| places(limits.udp_sockets);
        /// Multicast groups joined.
        memberships: Membership, |limits| limits.memberships as usize;
        /// Addresses and ports in use.
        bounds: Bound, |limits| limits.bounds as usize;
        /// Those by address and port.
        bound_places: Place, |limits| places(limits.bounds);
        /// What options have set.
        settings: Settings, |limits| limits.settings as usize;
        /// Settings by their values.
        settings_places: Place, |limits| places(limits.settings);
        /// Ports leased.
        leases: Lease, |limits| limits.leases as usize;
        /// Addresses of our own.
        addresses: Address, |limits| limits.addresses as usize;
        /// Routes.
        routes: Route, |limits| limits.routes as usize;
        /// Neighbours.
        neighbours: Neighbour, |limits| limits.neighbours as usize;
        /// Neighbours by address.
        neighbour_places: Place, |limits| places(limits.neighbours);
        /// What paths take.
        paths: Path, |limits| limits.destinations as usize;
        /// How often hosts are sent errors.
        buckets: Bucket, |limits| limits.destinations as usize;
        /// Groups that are listened to.
        groups: Group, |limits| limits.memberships as usize + limits.addresses as usize;
        /// Their sources: those that are chosen, and those that routers are told of since they are not any more.
        group_sources: Source, |limits| limits.memberships as usize * 2;
        /// Datagrams of which fragments have arrived.
        datagrams: Datagram, |limits| limits.datagrams as usize;
        /// Those by what names them.
        datagram_places: Place, |limits| places(limits.datagrams);
        /// Their fragments.
        pieces: Piece, |limits| limits.pieces as usize;
        /// What was learned about destinations.
        destinations: Destination, |limits| limits.destinations as usize;
        /// Destinations by address.
        destination_places: Place, |limits| places(limits.destinations);
        /// Processes.
        processes: Process, |limits| limits.processes as usize;
        /// What is known of each frame.
        frames: FrameRecord, |limits| limits.frames as usize;
        /// Pageable data.
        blocks: Block, |limits| limits.blocks as usize;
    }
}

impl Layout {
    /// Bytes that a socket of TCP costs in both parts, if there are as many as the limits allow: what is there once
    /// for each, and its share of the table.
    #[must_use]
    pub const fn bytes_per_connection(&self) -> usize {
        let shared = self.tcbs.count * size_of::<u64>();
        (self.tcbs.size() + self.seldoms.size() + self.tcp_places.size() + shared).div_ceil(self.tcbs.count)
    }
}

impl<'a> Parts<'a> {
    /// Makes a region in zero bytes: writes its header, the host's values and the pool's reserves, and touches nothing else.
    ///
    /// # Errors
    /// A limit that is out of its bounds, or bytes that are too few or not at a line.
    pub fn create(bytes: &'a mut [u8], limits: &Limits, secret: Secret) -> Result<Self, Refused> {
        let layout = Layout::new(limits)?;
        let parts = Self::split(bytes, &layout)?;
        let size = layout.size as u64;
        let shared_words = super::shared::words(limits) as u64;
        *parts.host = Host::DEFAULT;
        *parts.pool = Pool::new(pool::Limits::of(limits.frames));
        parts.ip.waiting.limit = parts.pool.limits.control_min;
        parts.ip.fragments.limit = parts.pool.limits.low / 4;
        *parts.header = Header {
            magic: MAGIC,
            version: VERSION,
            state: Header::READY,
            size,
            shared_words,
            secret,
            limits: *limits,
            modes: 0,
        };
        Ok(parts)
    }

    /// The region in these bytes, after a look at everything that it says about itself.
    ///
    /// # Errors
    /// What doesn't fit.
    pub fn attach(bytes: &'a mut [u8]) -> Result<(Layout, Self), Refused> {
        let found = bytes.len() as u64;
        let needed = size_of::<Header>() as u64;
        let prefix = bytes.get(..size_of::<Header>()).ok_or(Refused::Size { found, needed })?;
        let header = Header::read_from_bytes(prefix).map_err(|_| Refused::Size { found, needed })?;
        if header.magic != MAGIC {
            return Err(Refused::Magic);
        }
        if header.version != VERSION {
            return Err(Refused::Version { found: header.version });
        }
        let layout = Layout::new(&header.limits)?;
        let needed = layout.size as u64;
        if header.size != needed {
            return Err(Refused::Size { found: header.size, needed });
        }
        let (said, words) = (header.shared_words, super::shared::words(&header.limits) as u64);
        if said != words {
            return Err(Refused::Size { found: said.saturating_mul(8), needed: words * 8 });
        }
        if header.state != Header::READY {
            return Err(Refused::State { found: header.state });
        }
        Ok((layout, Self::split(bytes, &layout)?))
    }
}
