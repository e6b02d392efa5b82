//! AF_XDP: frames that the kernel shares with a process, and rings that say whose each is.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | [`umem`] | the memory of frames | yes |
//! | [`ring`] | the positions and entries of one ring | yes |
//! | [`socket`] | one queue's socket: options, rings, kick, statistics | where the kernel fills structs |
//! | [`kick`] | what tells the kernel of packets, apart from the stack's lock | no |
//! | [`device`] | the stack's [`stack::device::Device`] over all queues of an interface | no |
//! | [`open`] | which way suits an interface, and all that it takes to drive it | no |

pub mod device;
pub mod kick;
pub mod open;
pub mod ring;
pub mod socket;
pub mod umem;
