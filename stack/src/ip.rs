//! Between the formats on the wire and the transports: plain structures over borrowed records, and pure functions.
//! Time, hashes and randomness are arguments; who owns the bytes passes indices of frames.
//!
//! | file | what | from |
//! |---|---|---|
//! | [`icmp`] | what an error means to a socket, what is answered and how often | RFC 792, 1122 §3.2.2, 4443, 5927 |
//! | [`neighbour`] | who is on the link: ARP, neighbor discovery, unreachability | RFC 826, 5227, 4861 §7 |
//! | [`route`] | where packets go, and from which of our addresses | RFC 1122 §3.3.1, 6724 |
//! | [`reassembly`] | datagrams from fragments | RFC 791, 815, 8200 §4.5, 5722, 6946, 3168 §5.3 |
//! | [`state`] | the interface, and the tables' own state | IEEE 802.1Q |
//! | [`tables`] | what the owner of the stack feeds: addresses, routes, neighbours | |
//! | [`hop`] | how a packet leaves towards its next hop | RFC 1122 §2.3.2.2 |
//! | [`group`] | groups that are listened to, and when routers are told | RFC 3376, 3810 |
//! | [`path_mtu`] | what a path takes: what routers tell, and the search without them | RFC 1191, 8201, 4821, 8899 |
//!
//! Where Linux departs from an RFC, and we with it, the function says so.

pub mod destination;
pub mod group;
pub mod hop;
pub mod icmp;
pub mod neighbour;
pub mod path_mtu;
pub mod reassembly;
pub mod route;
pub mod state;
pub mod tables;

pub use state::{Interface, Policy, State};
