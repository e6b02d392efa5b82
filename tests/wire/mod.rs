//! A network in real time: our stack and the kernel's, joined by TUN or TAP devices and a wire in user space.
//!
//! The kernel's end is an interface in a [`namespace`] of the test's own: its packets are read and written here ([`tun`]),
//! pass a [`line`], which delays, loses and limits them just as the simulation's wire does, and reach either our stack
//! ([`ours`]) or another interface of the kernel's ([`bridge`]).
//!
//! It needs the rights of root, and leaves nothing behind: a namespace and its interfaces end with their descriptors.

use std::sync::OnceLock;
use std::time;

use stack::time::Instant;

pub mod admin;
pub mod bridge;
pub mod calls;
pub mod diag;
pub mod hand;
pub mod line;
pub mod namespace;
pub mod ours;
pub mod repair;
pub mod sys;
pub mod tun;
pub mod veth;
pub mod vnet;
pub mod world;
pub mod xsk;

/// The time since the first who asked, and a second.
#[must_use]
pub fn clock() -> Instant {
    static START: OnceLock<time::Instant> = OnceLock::new();
    let since = START.get_or_init(time::Instant::now).elapsed();
    Instant(1_000_000_000 + since.as_nanos() as u64)
}
