//! TCP, UDP and IP as a sans-I/O library.
//!
//! Bytes, time and randomness are arguments; frames, deadlines and events are results. [`stack`] is where everything
//! meets: the [`region`] that holds all of its state, the device's [`frames`], the formats on the [`wire`], [`tcp`] and [`udp`].
//! TCP, UDP, IP, ICMP, ARP and neighbour discovery run over any [`device`]; no program is joined to it yet: until one is, `accel` has the
//! local and the kernel path.
//!
//! Miri runs the tests beside the code, those with random cases and a million steps with a sixty-fourth of them. A module takes some
//! seconds to some minutes, and all of them some hours:
//!
//! ```text
//! MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p accel-stack --lib
//! MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p accel-stack --lib -- wire::ipv4 tcp::rtt
//! ```
//!
//! It reads the sources from where they were when its target directory was made: one that another copy of the repository has made, which
//! is gone, ends it with "No such file or directory".

#![forbid(unsafe_code)]

mod coded;
pub mod demux;
pub mod device;
pub mod error;
pub mod events;
pub mod export;
pub mod frames;
pub mod handover;
pub mod hash;
pub mod host;
pub mod ip;
pub mod options;
pub mod ports;
pub mod process;
pub mod reassembly;
pub mod recover;
pub mod recvq;
pub mod region;
pub mod sendq;
pub mod seq;
pub mod settings;
pub mod stack;
pub mod stats;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod time;
pub mod udp;
pub mod wire;
