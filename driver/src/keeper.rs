//! What programs and the keeper of an interface say to each other.
//!
//! The keeper is a process that has the rights: it holds the XDP program, the sockets of the queues, the maps and the ports, and
//! no data passes through it. It listens at an abstract AF_UNIX name (unix(7)) of the interface's network namespace. A program asks
//! for what it needs in messages of one size, and is answered in messages of another.
//!
//! | module | what | unsafe |
//! |---|---|---|
//! | [`message`] | the messages, and what is checked of them | no |
//! | [`client`] | a program's side | no |
//!
//! Whoever serves the name is believed only if it runs as root or as the program's own user (SO_PEERCRED): anybody may take a name
//! that is free.

pub mod client;
pub mod message;

pub use client::{Attached, Keeper, Refusal};
pub use message::{Claimed, Terms};

/// `sun_family`, a NUL, the word, the interface in decimal digits.
const NAME_MAX: usize = 2 + 1 + WORD.len() + 10;
const WORD: &[u8] = b"accel-keeper-";

/// The address of an interface's keeper, for bind(2) and connect(2).
#[must_use]
pub fn address(interface: u32) -> Vec<u8> {
    let mut address = Vec::with_capacity(NAME_MAX);
    address.extend((libc::AF_UNIX as u16).to_ne_bytes());
    address.push(0);
    address.extend(WORD);
    address.extend(interface.to_string().bytes());
    address
}
